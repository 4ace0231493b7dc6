package dockerexec

import (
	"context"
	"io"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/pkg/errors"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// An end of which no event ever comes is found by inspecting.
func TestWaitFindsAnEndWithoutEvent(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name string
		lose func(*eventSource)
		want time.Duration // at most
	}{
		{"the engine was restarted and has no events", func(s *eventSource) { s.latest().end(io.ErrUnexpectedEOF) },
			firstPause + settleTime + coalesceTime + spreadTime},
		{"before the engine had subscribed", func(*eventSource) {}, proofTime + coalesceTime + spreadTime},
		{"dropped by the engine", func(*eventSource) { settled() }, inspectInterval * 11 / 10},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				client := newFakeClient(t)
				source := newEventSource(client)
				task := newFakeContainer(client, "running")
				ctx, _ := linesOf(t.Context())
				wait := startWait(ctx, newTestAdapter(t, client, plainTask()))
				time.Sleep(settleTime)
				synctest.Wait()
				test.lose(source)
				task.become(exitedWith(5), nil)
				ended := time.Now()
				<-wait.done
				assert.Equal(t, 5, wait.answer.State.ExitCode)
				assert.LessOrEqual(t, time.Since(ended), test.want)
			})
		})
	}
}

// What decides about health is what inspect shows, not an old event.
func TestWatchJudgesHealthByInspect(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		client := newFakeClient(t)
		source := newEventSource(client)
		is := func(health container.HealthStatus) container.InspectResponse {
			answer := containerIs("running")
			answer.State.Health = &container.Health{Status: health}
			return answer
		}
		task := newFakeContainer(client, "running")
		task.become(is("healthy"), nil)
		errUnhealthy := errors.New("shut it down")
		done := make(chan error, 1)
		go func() {
			_, err := newTestAdapter(t, client, plainTask()).watch(t.Context(), nil, func(answer container.InspectResponse) (bool, error) {
				if answer.State.Health.Status == container.Unhealthy {
					return false, errUnhealthy
				}
				return false, nil
			})
			done <- err
		}()
		settled()
		source.latest().send(event(plainTask(), "health_status: unhealthy", at), event(plainTask(), "health_status: healthy", at+1))
		time.Sleep(time.Second)
		assert.Empty(t, done)
		task.become(is("unhealthy"), nil)
		begin := time.Now()
		source.latest().send(event(plainTask(), "health_status: unhealthy", at+2))
		assert.Equal(t, errUnhealthy, <-done)
		assert.Equal(t, coalesceTime, time.Since(begin))
	})
}

// An inspect that fails in a passing way is tried again, at a pace.
func TestWaitOutlastsPassingFaults(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		client := newFakeClient(t)
		source := newEventSource(client)
		task := newFakeContainer(client, "")
		task.become(container.InspectResponse{}, answer{"overloaded", cerrdefs.ErrUnavailable})
		ctx, lines := linesOf(t.Context())
		wait := startWait(ctx, newTestAdapter(t, client, plainTask()))
		time.Sleep(10 * time.Minute)
		assert.False(t, wait.over())
		assert.Less(t, task.inspects(), 480)
		assert.Greater(t, task.inspects(), 100)
		assert.Empty(t, lines())

		task.become(exitedWith(2), nil)
		source.latest().send(event(plainTask(), "die", at))
		time.Sleep(coalesceTime)
		synctest.Wait()
		require.True(t, wait.over())
		assert.Equal(t, 2, wait.answer.State.ExitCode)
	})
}

// While the engine is away a Wait asks nothing; each exit of that time is
// reported with its code once it is back.
func TestWaitWhileTheEngineIsAway(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		client := newFakeClient(t)
		source := newEventSource(client)
		task := newFakeContainer(client, "running")
		ctx, _ := linesOf(t.Context())
		adapter := newTestAdapter(t, client, plainTask())
		early := startWait(ctx, adapter)
		settled()
		source.refuse(engineAway{})
		source.latest().end(io.ErrUnexpectedEOF)
		late := startWait(ctx, adapter)
		before := task.inspects()
		time.Sleep(time.Hour)
		assert.Equal(t, before, task.inspects())
		task.become(exitedWith(9), nil)
		source.refuse(nil)
		back := time.Now()
		for _, wait := range []*waiting{early, late} {
			<-wait.done
			require.NoError(t, wait.err)
			assert.Equal(t, 9, wait.answer.State.ExitCode)
		}
		assert.LessOrEqual(t, time.Since(back), 6*time.Second)
	})
}

// A Wait costs an inspect at its start, one when the stream was opened for sure,
// one for a burst of events, and one every five minutes.
func TestWaitInspectsNoMoreThanItMust(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		client := newFakeClient(t)
		source := newEventSource(client)
		task := newFakeContainer(client, "running")
		ctx, cancel := context.WithCancel(t.Context())
		wait := startWait(ctx, newTestAdapter(t, client, plainTask()))
		settled()
		assert.Equal(t, 2, task.inspects())
		for n := range int64(500) {
			source.latest().send(event(plainTask(), "health_status: healthy", at+n))
		}
		time.Sleep(time.Second)
		assert.Equal(t, 3, task.inspects())
		source.latest().send(event(numberedTask(1), "die", at+1000))
		time.Sleep(time.Second)
		assert.Equal(t, 3, task.inspects())
		time.Sleep(time.Hour)
		assert.GreaterOrEqual(t, task.inspects(), 3+10)
		assert.LessOrEqual(t, task.inspects(), 3+14)
		cancel()
		<-wait.done
		assert.Equal(t, context.Canceled, wait.err)
	})
}

// The inspects of many waits are spread when all get a hint at once.
func TestWaitsDoNotInspectAllAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		client := newFakeClient(t)
		source := newEventSource(client)
		var mu sync.Mutex
		at := map[time.Time]int{}
		client.containerInspect = func(context.Context, string) (container.InspectResponse, error) {
			mu.Lock()
			defer mu.Unlock()
			at[time.Now()]++
			return containerIs("running"), nil
		}
		ctx, _ := linesOf(t.Context())
		ctx, cancel := context.WithCancel(ctx)
		engine := NewEngine(client)
		for n := range 100 {
			adapter, err := engine.Adapter(nil, numberedTask(n), nil)
			require.NoError(t, err)
			startWait(ctx, adapter)
		}
		settled()
		mu.Lock()
		clear(at)
		mu.Unlock()
		source.latest().end(io.EOF)
		settled()
		mu.Lock()
		defer mu.Unlock()
		total := 0
		for _, n := range at {
			assert.Less(t, n, 5)
			total += n
		}
		assert.Equal(t, 200, total)
		cancel()
	})
}
