package dockerexec

import (
	"context"
	"io"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/events"
	"github.com/pkg/errors"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The state that inspect shows is what counts.
func TestWaitByState(t *testing.T) {
	t.Parallel()
	dead := containerIs("dead")
	dead.State.ExitCode = 137
	for _, test := range []struct {
		status container.ContainerState
		answer container.InspectResponse
		over   bool
		err    error
	}{
		{"exited", exitedWith(3), true, nil},
		{"exited with 0", exitedWith(0), true, nil},
		{"dead", dead, true, nil},
		{"removing", containerIs("removing"), true, ErrContainerDestroyed},
		{"created", containerIs("created"), false, nil},
		{"running", containerIs("running"), false, nil},
		{"paused", containerIs("paused"), false, nil},
		{"restarting", containerIs("restarting"), false, nil},
		{"of a fake without status", containerIs(""), false, nil},
	} {
		t.Run(test.status, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				client := newFakeClient(t)
				source := newEventSource(client)
				newFakeContainer(client, "").become(test.answer, nil)
				ctx, cancel := context.WithCancel(t.Context())
				wait := startWait(ctx, newTestAdapter(t, client, plainTask()))
				settled()
				// What the engine may replay changes nothing.
				if !test.over {
					source.latest().send(event(plainTask(), "die", at), event(plainTask(), "start", at+1))
					time.Sleep(time.Second)
				}
				assert.Equal(t, test.over, wait.over())
				cancel()
				<-wait.done
				switch {
				case !test.over:
					assert.Equal(t, context.Canceled, wait.err)
				case test.err != nil:
					assert.Equal(t, test.err, wait.err) // bare
					assert.Equal(t, container.InspectResponse{}, wait.answer)
				default:
					require.NoError(t, wait.err)
					assert.Equal(t, test.answer, wait.answer)
				}
				for _, call := range client.called() {
					assert.Regexp(t, `^(Events \d+\.\d{9}|ContainerInspect web\.1\.taskid)$`, call)
				}
			})
		})
	}
}

func TestWaitReportsAnExitAtItsEvent(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		client := newFakeClient(t)
		source := newEventSource(client)
		task := newFakeContainer(client, "running")
		wait := startWait(t.Context(), newTestAdapter(t, client, plainTask()))
		settled()
		task.become(exitedWith(7), nil)
		died := time.Now()
		forged := event(plainTask(), "die", at)
		forged.Actor.Attributes["exitCode"] = "99" // a label can do that
		source.latest().send(forged)
		<-wait.done
		require.NoError(t, wait.err)
		assert.Equal(t, 7, wait.answer.State.ExitCode)
		assert.Equal(t, burstWindow, time.Since(died))
	})
}

// A renamed container is still the task's, and a new one under its name is
// not.
func TestWaitPinsTheContainer(t *testing.T) {
	t.Parallel()
	unknown := answer{"No such container: " + taskName, cerrdefs.ErrNotFound}
	other := containerIs("running")
	other.ID = "another"
	for _, test := range []struct {
		name           string
		byName, byID   container.InspectResponse
		errName, errID error
		want           error
		code           int
	}{
		{"renamed, exited", container.InspectResponse{}, exitedWith(4), unknown, nil, nil, 4},
		{"removed", container.InspectResponse{}, container.InspectResponse{}, unknown, unknown, ErrContainerDestroyed, 0},
		{"renamed, another has the name, exited", other, exitedWith(4), nil, nil, nil, 4},
		{"removed, another has the name", other, container.InspectResponse{}, nil, unknown, ErrContainerDestroyed, 0},
		{"removed, another has the name, says a fake that knows names alone", other, other, nil, nil, ErrContainerDestroyed, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				client := newFakeClient(t)
				source := newEventSource(client)
				running(client, "running")
				adapter := newTestAdapter(t, client, plainTask())
				wait := startWait(t.Context(), adapter)
				settled()
				client.containerInspect = func(_ context.Context, name string) (container.InspectResponse, error) {
					if name == taskName {
						return test.byName, test.errName
					}
					assert.Equal(t, "id-of-web.1.taskid", name)
					return test.byID, test.errID
				}
				elsewhere := event(plainTask(), "rename", at)
				elsewhere.Actor.Attributes["name"] = "elsewhere"
				source.latest().send(elsewhere)
				<-wait.done
				assert.Equal(t, test.want, wait.err)
				assert.Less(t, wait.took, 3*time.Second)
				if test.want == nil {
					assert.Equal(t, test.code, wait.answer.State.ExitCode)
				}
			})
		})
	}
}

func TestWaitWithoutContainer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		for _, gone := range []error{
			answer{"No such container: " + taskName, cerrdefs.ErrNotFound},
			cerrdefs.ErrNotFound,
			errors.New("no such container"),
		} {
			client := newFakeClient(t)
			newEventSource(client)
			newFakeContainer(client, "").become(container.InspectResponse{}, gone)
			_, err := newTestAdapter(t, client, plainTask()).Wait(t.Context())
			assert.Equal(t, ErrContainerDestroyed, err)
			assert.Len(t, client.called(), 2)
		}
	})
}

// An answer without a state is an error and no panic; so is a refusal.
func TestWaitReportsWhatWillNotPass(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		client := newFakeClient(t)
		newEventSource(client)
		task := newFakeContainer(client, "")
		task.become(container.InspectResponse{}, nil)
		_, err := newTestAdapter(t, client, plainTask()).Wait(t.Context())
		assert.EqualError(t, err, "inspect container web.1.taskid: the engine's answer has no state")
		refused := answer{"authorization denied by plugin", cerrdefs.ErrPermissionDenied}
		task.become(container.InspectResponse{}, refused)
		_, err = newTestAdapter(t, client, plainTask()).Wait(t.Context())
		require.EqualError(t, err, "inspect container web.1.taskid: Error response from daemon: authorization denied by plugin")
		require.ErrorIs(t, err, refused)
	})
}

// The context's error comes back bare, wherever a Wait is.
func TestWaitCancelled(t *testing.T) {
	t.Parallel()
	for name, set := range map[string]func(*fakeClient){
		"waiting for the engine": func(c *fakeClient) { newEventSource(c).refuse(engineAway{}) },
		"waiting for an event":   func(c *fakeClient) { newEventSource(c); running(c, "running") },
		"inspecting": func(c *fakeClient) {
			newEventSource(c)
			c.containerInspect = func(ctx context.Context, _ string) (container.InspectResponse, error) {
				<-ctx.Done()
				return container.InspectResponse{}, errors.Wrap(ctx.Err(), "client")
			}
		},
		"opening the stream": func(c *fakeClient) {
			c.events = func(ctx context.Context, _ events.ListOptions) (<-chan events.Message, <-chan error) {
				<-ctx.Done()
				return nil, nil
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				client := newFakeClient(t)
				set(client)
				ctx, _ := linesOf(t.Context())
				ctx, cancel := context.WithCancel(ctx)
				wait := startWait(ctx, newTestAdapter(t, client, plainTask()))
				time.Sleep(3 * time.Second)
				cancel()
				cancelled := time.Now()
				<-wait.done
				assert.Equal(t, context.Canceled, wait.err)
				assert.Zero(t, time.Since(cancelled))
			})
		})
	}
}

// An engine that takes the request for events and says nothing is asked again
// after the request time-out, so that no task waits for ever.
func TestWaitSurvivesARequestForEventsThatIsNeverAnswered(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		client := newFakeClient(t)
		asked := 0
		client.events = func(ctx context.Context, _ events.ListOptions) (<-chan events.Message, <-chan error) {
			if asked++; asked == 1 {
				<-ctx.Done()
			}
			return make(chan events.Message), make(chan error)
		}
		found := newFakeContainer(client, container.StateRunning)
		time.AfterFunc(10*time.Second, func() { found.become(exitedWith(0), nil) })
		begin := time.Now()
		ended, err := newTestAdapter(t, client, plainTask(), WithRequestTimeout(10*time.Second)).Wait(t.Context())
		require.NoError(t, err)
		assert.Equal(t, container.StateExited, ended.State.Status)
		assert.Less(t, time.Since(begin), 11*time.Second)
		assert.Equal(t, 2, asked)
	})
}

func TestThePausesOfAWaitBeginAnewAfterAnAnswer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		client := newFakeClient(t)
		source := newEventSource(client)
		task := newFakeContainer(client, "")
		overloaded := answer{"overloaded", cerrdefs.ErrUnavailable}
		task.become(container.InspectResponse{}, overloaded)
		ctx, _ := linesOf(t.Context())
		wait := startWait(ctx, newTestAdapter(t, client, plainTask()))
		time.Sleep(10 * time.Minute)
		task.become(containerIs("running"), nil)
		time.Sleep(time.Minute)
		task.become(container.InspectResponse{}, overloaded)
		source.latest().send(event(plainTask(), "oom", at))
		time.Sleep(20 * time.Millisecond)
		synctest.Wait()
		task.become(exitedWith(2), nil)
		failed := time.Now()
		<-wait.done
		assert.LessOrEqual(t, time.Since(failed), 120*time.Millisecond)
	})
}

// A hundred waits that began together inspect at a hundred times.
func TestWaitsThatBeganTogetherInspectApart(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		client := newFakeClient(t)
		newEventSource(client)
		var mu sync.Mutex
		var times []time.Duration
		began := time.Now()
		client.containerInspect = func(context.Context, string) (container.InspectResponse, error) {
			mu.Lock()
			defer mu.Unlock()
			times = append(times, time.Since(began))
			return containerIs("running"), nil
		}
		ctx, _ := linesOf(t.Context())
		for _, adapter := range numberedAdapters(t, NewEngine(client), 100) {
			startWait(ctx, adapter)
		}
		time.Sleep(4 * time.Minute)
		mu.Lock()
		times = nil
		mu.Unlock()
		time.Sleep(2 * time.Minute)

		mu.Lock()
		defer mu.Unlock()
		require.Len(t, times, 100)
		assert.GreaterOrEqual(t, slices.Min(times), 4*time.Minute+30*time.Second)
		assert.LessOrEqual(t, slices.Max(times), 5*time.Minute+32*time.Second, "five and a half minutes after the inspect that follows the stream's opening")
		assert.Greater(t, slices.Max(times)-slices.Min(times), 30*time.Second)
		slices.Sort(times)
		assert.Len(t, slices.Compact(times), 100)
	})
}

// An end of which no event ever comes is found by inspecting.
func TestWaitFindsAnEndWithoutEvent(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name string
		lose func(*eventSource)
		want time.Duration // at most
	}{
		{"the engine was restarted and has no events", func(s *eventSource) { s.latest().end(io.ErrUnexpectedEOF) },
			firstPause + errorWindow + burstWindow + spreadTime},
		{"before the engine had subscribed", func(*eventSource) {}, settleWindow + burstWindow + spreadTime},
		{"dropped by the engine", func(*eventSource) { settled() }, longInterval * 11 / 10},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				client := newFakeClient(t)
				source := newEventSource(client)
				task := newFakeContainer(client, "running")
				ctx, _ := linesOf(t.Context())
				wait := startWait(ctx, newTestAdapter(t, client, plainTask()))
				time.Sleep(errorWindow)
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
		assert.Equal(t, burstWindow, time.Since(begin))
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
		time.Sleep(burstWindow)
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
