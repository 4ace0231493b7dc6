package dockerexec

import (
	"context"
	"fmt"
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/moby/swarmkit/v2/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockerexec/dockerexec/dockerexectest"
)

// slowStream is a publisher like an agent's: not for two at a time.
type slowStream struct {
	sends atomic.Int32
	lines atomic.Int32
	wrong atomic.Bool
}

func (s *slowStream) Publish(ctx context.Context, _ api.LogMessage) error {
	if s.sends.Add(1) > 1 {
		s.wrong.Store(true)
	}
	defer s.sends.Add(-1)
	s.lines.Add(1)
	return sleep(ctx, time.Second)
}

// talkers makes an executor's controllers of tasks that have written five lines each.
func talkers(t *testing.T, tasks int) (ctlrs []*controller) {
	t.Helper()
	fake := dockerexectest.New(t)
	fake.LocalImage("example/web:1", dockerexectest.Print(dockerexectest.Exit(0), "1", "2", "3", "4", "5"))
	executor := NewExecutor(fake.Client(), nil)
	for n := range tasks {
		task := plainTask()
		task.ID = fmt.Sprint("task", n)
		made, err := executor.Controller(task)
		require.NoError(t, err)
		require.NoError(t, made.Prepare(t.Context()))
		require.NoError(t, made.Start(t.Context()))
		require.NoError(t, made.Wait(t.Context()))
		ctlrs = append(ctlrs, made.(*controller))
	}
	return ctlrs
}

// isInTurn reports whether calls have a publisher now.
func isInTurn(e *Engine, publisher exec.LogPublisher) bool {
	e.logTurns.mu.Lock()
	defer e.logTurns.mu.Unlock()
	return e.logTurns.turns[turnKey(publisher)] != nil
}

// SwarmKit's agent gives one publisher to the controllers of all tasks of a service.
func TestTasksWithOnePublisherTakeTurns(t *testing.T) {
	t.Parallel()
	publishers := map[string]func(*slowStream) exec.LogPublisher{
		"a function, as the agent's": func(s *slowStream) exec.LogPublisher { return exec.LogPublisherFunc(s.Publish) },
		"a pointer":                  func(s *slowStream) exec.LogPublisher { return s },
	}
	calls := map[string]func(context.Context, *controller, exec.LogPublisher) error{
		"controllers": func(ctx context.Context, c *controller, p exec.LogPublisher) error {
			return c.Logs(ctx, p, api.LogSubscriptionOptions{})
		},
		"adapters": func(ctx context.Context, c *controller, p exec.LogPublisher) error {
			return c.adapter.PublishLogs(ctx, api.LogSubscriptionOptions{}, p)
		},
	}
	for kind, publisher := range publishers {
		for whose, logs := range calls {
			t.Run(whose+", "+kind, func(t *testing.T) {
				t.Parallel()
				bubble(t, func(t *testing.T) {
					ctlrs := talkers(t, 4)
					var stream slowStream
					one := publisher(&stream)
					var ends []func() error
					for _, c := range ctlrs {
						ctx, cancel := context.WithCancel(t.Context())
						defer cancel()
						ends = append(ends, asynchronously(func() error { return logs(ctx, c, one) }))
					}
					synctest.Wait()
					assert.True(t, isInTurn(ctlrs[0].adapter.engine, one))
					for _, end := range ends {
						require.NoError(t, end())
					}
					assert.EqualValues(t, 20, stream.lines.Load())
					assert.False(t, stream.wrong.Load(), "two at a time")
					assert.False(t, isInTurn(ctlrs[0].adapter.engine, one))
				})
			})
		}
	}
}

// Functions of one literal are not one publisher. A reader may merge what they publish: then
// one must not wait for the other.
func TestPublishersThatDifferDoNotWaitForEachOther(t *testing.T) {
	t.Parallel()
	for name, publisher := range map[string]func(func(context.Context, api.LogMessage) error) exec.LogPublisher{
		"functions": func(f func(context.Context, api.LogMessage) error) exec.LogPublisher { return exec.LogPublisherFunc(f) },
		"uncomparable": func(f func(context.Context, api.LogMessage) error) exec.LogPublisher {
			return struct{ exec.LogPublisher }{exec.LogPublisherFunc(f)}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				var ends []func() error
				var lines [2]atomic.Int32
				for i, c := range talkers(t, 2) {
					one := publisher(func(ctx context.Context, m api.LogMessage) error {
						assert.Equal(t, fmt.Sprint("task", i), m.Context.TaskID)
						lines[i].Add(1)
						if i == 0 {
							<-ctx.Done() // nobody reads
						}
						return ctx.Err()
					})
					ends = append(ends, asynchronously(func() error { return c.Logs(ctx, one, api.LogSubscriptionOptions{}) }))
					synctest.Wait()
				}
				require.NoError(t, ends[1]())
				assert.EqualValues(t, 5, lines[1].Load())
				assert.EqualValues(t, 1, lines[0].Load())
				cancel()
				assert.Equal(t, context.Canceled, ends[0]())
			})
		})
	}
}

// A task whose turn does not come can be given up.
func TestATurnThatDoesNotComeCanBeGivenUp(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		ctlrs := talkers(t, 2)
		var stuck atomic.Int32
		one := exec.LogPublisherFunc(func(ctx context.Context, _ api.LogMessage) error {
			stuck.Add(1)
			<-ctx.Done()
			return ctx.Err()
		})
		ctx, cancel := context.WithCancel(t.Context())
		first := asynchronously(func() error { return ctlrs[0].Logs(ctx, one, api.LogSubscriptionOptions{}) })
		synctest.Wait()
		second := asynchronously(func() error { return ctlrs[1].Logs(ctx, one, api.LogSubscriptionOptions{}) })
		synctest.Wait()
		assert.EqualValues(t, 1, stuck.Load())
		require.NoError(t, ctlrs[1].Close())
		assert.Equal(t, exec.ErrControllerClosed, second())
		cancel()
		assert.Equal(t, context.Canceled, first())
		assert.False(t, isInTurn(ctlrs[0].adapter.engine, one))
	})
}

// The agent's publisher ends its stream, for all tasks, if it is called with a context that has
// ended. And whoever gives up loses no turn: the next one gets it.
func TestATurnThatComesTooLateIsNotTaken(t *testing.T) {
	t.Parallel()
	for range 200 { // whichever of the turn and the end comes first
		var turns logTurns
		calls, release := make(chan int), make(chan struct{})
		one := exec.LogPublisherFunc(func(_ context.Context, m api.LogMessage) error {
			calls <- int(m.Stream)
			<-release
			return nil
		})
		publish := func(ctx context.Context, n int) func() error {
			turn, leave := turns.enter(one)
			return asynchronously(func() error {
				defer leave()
				if err := turn.take(ctx); err != nil {
					return err
				}
				defer turn.end()
				return one.Publish(ctx, api.LogMessage{Stream: api.LogStream(n)})
			})
		}
		waits := func(n int64) {
			for _, turn := range turns.turns {
				for turn.state.Load() != turnTaken+n*turnWaits {
					runtime.Gosched()
				}
			}
		}
		first := publish(t.Context(), 1)
		require.Equal(t, 1, <-calls)
		ctx, cancel := context.WithCancel(t.Context())
		second := publish(ctx, 2)
		waits(1)
		third := publish(t.Context(), 3)
		waits(2)
		go cancel()
		release <- struct{}{}
		require.NoError(t, first())
		for last := 0; last != 3; release <- struct{}{} {
			last = <-calls
		}
		require.NoError(t, third())
		if err := second(); err != nil {
			require.Equal(t, context.Canceled, err)
		}
		require.Empty(t, turns.turns)
	}
}

// Two unfinished lines are published at the end of the log. A context that ends within the first
// call of the publisher allows no second one.
func TestNothingIsPublishedOnceTheContextHasEnded(t *testing.T) {
	t.Parallel()
	l := &fakeLog{records: []logRecord{{1, "2026-01-02T03:04:05.000000000Z", "out"}, {2, "2026-01-02T03:04:05.000000000Z", "err"}}}
	_, adapter := publishing(t, l, []string{"exited"})
	ctx, cancel := context.WithCancel(t.Context())
	sink := logSink{onLine: func(int) error { cancel(); return nil }}
	require.Equal(t, context.Canceled, adapter.PublishLogs(ctx, api.LogSubscriptionOptions{}, &sink))
	assert.Equal(t, []string{"stdout out"}, sink.lines())
}

// A publisher that panics, and is recovered from, keeps no turn.
func TestATurnEndsWithAPanic(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		ctlrs := talkers(t, 2)
		var stream slowStream
		calls := 0
		one := exec.LogPublisherFunc(func(ctx context.Context, m api.LogMessage) error {
			if calls++; calls == 1 {
				panic("the publisher's")
			}
			return stream.Publish(ctx, m)
		})
		turn, leave := ctlrs[0].adapter.engine.logTurns.enter(one) // another call has it too
		defer leave()
		require.PanicsWithValue(t, "the publisher's", func() {
			_ = ctlrs[0].adapter.PublishLogs(t.Context(), api.LogSubscriptionOptions{}, one)
		})
		require.Zero(t, turn.state.Load())
		require.NoError(t, ctlrs[1].Logs(t.Context(), one, api.LogSubscriptionOptions{}))
		assert.EqualValues(t, 5, stream.lines.Load())
	})
}

// A turn that is handed to somebody who gives up at that moment is not lost.
func TestATurnThatIsHandedTooLateIsGivenBack(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for range 100 { // select takes one of two at random
		turn := logTurn{handed: make(chan struct{}, 1)}
		turn.state.Store(turnTaken + turnWaits)
		turn.end()
		require.Equal(t, context.Canceled, turn.await(ctx))
		require.Zero(t, turn.state.Load())
		require.Empty(t, turn.handed)
	}
}

// everywhere is the same publisher wherever it is used.
type everywhere struct{}

func (everywhere) Publish(ctx context.Context, _ api.LogMessage) error {
	return sleep(ctx, time.Millisecond)
}

// Tests with fake time may use one publisher at the same time: nothing of one may wait in
// another.
func TestEnginesInFakeTimeShareNoTurns(t *testing.T) {
	t.Parallel()
	for range 8 {
		t.Run("", func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T) {
				for _, c := range talkers(t, 50) {
					require.NoError(t, c.Logs(t.Context(), everywhere{}, api.LogSubscriptionOptions{}))
				}
			})
		})
	}
}
