package dockerexec

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockerexec/dockerexec/dockerexectest"
)

// told is what an observer of an Engine was told. takes is how long each call takes.
type told struct {
	takes  time.Duration
	mu     sync.Mutex
	events []string
	gaps   []time.Duration
	ended  []bool // whether the context had ended before the call
	inCall bool
}

func (o *told) option(t *testing.T) Option {
	return WithEngineObserver(func(ctx context.Context, e EngineEvent) {
		o.mu.Lock()
		assert.False(t, o.inCall, "one call after the other")
		o.inCall, o.ended = true, append(o.ended, ctx.Err() != nil)
		o.mu.Unlock()
		time.Sleep(o.takes)
		o.mu.Lock()
		defer o.mu.Unlock()
		o.inCall = false
		text := e.Kind.String()
		if e.Err != nil {
			text += ": " + e.Err.Error()
		}
		o.events, o.gaps = append(o.events, text), append(o.gaps, e.Gap)
	})
}

func (o *told) kinds() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return append([]string{}, o.events...)
}

// waitingWith is a running task that an adapter with the option waits for.
func waitingWith(t *testing.T, option Option) (*dockerexectest.Engine, *ContainerAdapter, *waiting, context.CancelFunc) {
	engine, adapter := onFakeEngine(t, dockerexectest.UntilStopped(0))
	a := adapter(option)
	require.NoError(t, a.Create(t.Context()))
	require.NoError(t, a.Start(t.Context()))
	ctx, cancel := context.WithCancel(t.Context())
	w := startWait(ctx, a)
	time.Sleep(time.Minute)
	return engine, a, w, cancel
}

func TestObserverIsToldOnceAnOutage(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		var observer told
		engine, _, w, cancel := waitingWith(t, observer.option(t))
		defer cancel()
		assert.Empty(t, observer.kinds(), "nothing of an engine that is well")
		for range 2 {
			engine.Down()
			time.Sleep(30 * time.Second)
			engine.Up()
			time.Sleep(time.Minute)
		}
		require.Len(t, observer.kinds(), 4)
		assert.Equal(t, "restored", observer.events[1])
		assert.Equal(t, "lost: ", observer.events[2][:6])
		assert.Equal(t, "restored", observer.events[3])
		for i, gap := range observer.gaps {
			if i%2 == 0 {
				assert.Zero(t, gap)
			} else {
				assert.GreaterOrEqual(t, gap, 30*time.Second)
				assert.LessOrEqual(t, gap, 35*time.Second, "the longest pause between two tries is five seconds")
			}
		}
		assert.False(t, w.over())
	})
}

func TestObserverIsToldOfARefusal(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		fault dockerexectest.Fault
		want  []string
	}{
		"a proxy forbids the events": {
			dockerexectest.Refuse(403, "no"),
			[]string{"refused: Error response from daemon: no", "restored"},
		},
		"the engine is overloaded for minutes": {
			dockerexectest.Refuse(503, "later"),
			[]string{"lost: Error response from daemon: later", "refused: Error response from daemon: later", "restored"},
		},
		"a proxy holds back the answer": {
			dockerexectest.Slow(5 * time.Minute),
			[]string{"refused: the engine has not answered the request for events within 5s", "restored"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T) {
				var observer told
				engine, adapter := onFakeEngine(t, dockerexectest.UntilStopped(0))
				stop := engine.FailAll("GET /events", test.fault)
				a := adapter(observer.option(t), WithRequestTimeout(10*time.Minute))
				require.NoError(t, a.Create(t.Context()))
				require.NoError(t, a.Start(t.Context()))
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				startWait(ctx, a)
				time.Sleep(3 * time.Minute)
				stop()
				time.Sleep(10 * time.Minute)
				assert.Equal(t, test.want, observer.kinds())
			})
		})
	}
}

// An outage that nobody waits for any more is not told a second time to those who come
// later; its end is.
func TestObserverIsToldOnceAcrossCallers(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		var observer told
		engine, a, _, cancel := waitingWith(t, observer.option(t))
		engine.Down()
		time.Sleep(time.Minute)
		cancel()
		time.Sleep(time.Hour)
		ctx, cancelLater := context.WithCancel(t.Context())
		defer cancelLater()
		startWait(ctx, a)
		time.Sleep(time.Minute)
		require.Len(t, observer.kinds(), 1)
		assert.Equal(t, "lost: ", observer.events[0][:6])
		engine.Up()
		time.Sleep(time.Minute)
		assert.Equal(t, "restored", observer.kinds()[1])
		assert.Greater(t, observer.gaps[1], time.Hour, "since the stream was lost")
	})
}

// A slow observer delays neither the tasks nor the stream, and hears of the newest.
func TestASlowObserverDelaysNobody(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		observer := told{takes: 24 * time.Hour}
		engine, _, w, cancel := waitingWith(t, observer.option(t))
		defer cancel()
		for range 10 {
			engine.Down()
			time.Sleep(30 * time.Second)
			engine.Up()
			time.Sleep(time.Minute)
		}
		engine.Container("web.1.taskid").Exit(3)
		time.Sleep(time.Second + 100*time.Millisecond) // the last one waits a second for the observer
		assert.True(t, w.over(), "the exit is seen although the observer is busy")
		assert.Empty(t, observer.kinds())
		time.Sleep(10 * 24 * time.Hour)
		kinds := observer.kinds()
		require.Len(t, kinds, 9, "the call that ran, and the eight newest")
		assert.Equal(t, "restored", kinds[8])
		assert.Equal(t, "lost: ", kinds[7][:6])
		assert.Equal(t, []bool{false, true, true, true, true, true, true, true, true}, observer.ended)
	})
}

// Whoever has seen the last task return is not told later, unless the observer is slow.
func TestTheLastTaskWaitsForTheObserver(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		observer := told{takes: 500 * time.Millisecond}
		engine, _, w, cancel := waitingWith(t, observer.option(t))
		engine.Down()
		time.Sleep(100 * time.Millisecond)
		cancel()
		<-w.done
		assert.Len(t, observer.kinds(), 1)
	})
}

func TestEngineEventKinds(t *testing.T) {
	t.Parallel()
	assert.Equal(t, "lost refused restored unknown", fmt.Sprint(EngineLost, " ", EngineRefused, " ", EngineRestored, " ", EngineEventKind(0)))
}
