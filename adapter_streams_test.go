package dockerexec

import (
	"context"
	"errors"
	"net/http"
	"runtime"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/moby/swarmkit/v2/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockerexec/dockerexec/dockerexectest"
)

// onRunningWeb is an engine on which the container of plainTask runs, that container, and an
// adapter that has not seen it.
func onRunningWeb(t testing.TB, opts ...Option) (*dockerexectest.Engine, *dockerexectest.Container, *ContainerAdapter) {
	t.Helper()
	engine, adapter := onFakeEngine(t, dockerexectest.UntilStopped(0))
	first := adapter()
	require.NoError(t, first.Create(t.Context()))
	require.NoError(t, first.Start(t.Context()))
	time.Sleep(time.Minute) // so that no stream tells of the start
	engine.ForgetRequests()
	return engine, engine.Container(taskName), adapter(opts...)
}

// shows has an engine show a container in a state, of which no event tells.
func shows(c *dockerexectest.Container, status container.ContainerState, code int) {
	c.AlterInspect(func(answer *container.InspectResponse) {
		answer.State = &container.State{Status: status, ExitCode: code, Running: status == container.StateRunning}
	})
}

// inspects is how often an engine was asked for a container.
func inspects(engine *dockerexectest.Engine) int { return engine.Requests().Count(inspectRequest) }

// The state that inspect shows is what counts.
func TestWaitByState(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		status container.ContainerState
		code   int
		over   bool
		err    error
	}{
		{"exited", 3, true, nil},
		{"exited", 0, true, nil},
		{"dead", 137, true, nil},
		{"removing", 0, true, ErrContainerDestroyed},
		{"created", 0, false, nil},
		{"running", 0, false, nil},
		{"paused", 0, false, nil},
		{"restarting", 0, false, nil},
		{"", 0, false, nil}, // of a fake
	} {
		t.Run(test.status, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T) {
				engine, web, adapter := onRunningWeb(t)
				shows(web, test.status, test.code)
				ctx, cancel := context.WithCancel(t.Context())
				wait := startWait(ctx, adapter)
				settled()
				// What the engine may replay changes nothing.
				if !test.over {
					web.Emit("die")
					web.Emit("start")
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
					assert.Equal(t, test.status, wait.answer.State.Status)
					assert.Equal(t, test.code, wait.answer.State.ExitCode)
				}
				for _, request := range asked(engine) {
					assert.Equal(t, "GET /containers/web.1.taskid/json", request)
				}
			})
		})
	}
}

func TestWaitReportsAnExitAtItsEvent(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		_, web, adapter := onRunningWeb(t)
		wait := startWait(t.Context(), adapter)
		settled()
		web.AlterInspect(func(answer *container.InspectResponse) { answer.State.ExitCode = 7 })
		died := time.Now()
		web.Exit(99) // which the event says; a label can do that
		<-wait.done
		require.NoError(t, wait.err)
		assert.Equal(t, 7, wait.answer.State.ExitCode)
		assert.Equal(t, burstWindow, time.Since(died))
	})
}

// A container that somebody restarts has ended for SwarmKit, as long as the engine shows its end
// for some tenths of a second. The next run of it is left alone until the task is removed.
func TestAContainerThatIsRestartedByHandHasEnded(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		engine := webEngine(t, obedient)
		ctlr, task, web := runningWeb(t, engine)
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		ended := asynchronously(func() error {
			drive(ctx, t, task, ctlr, api.TaskStateCompleted)
			return ctx.Err()
		})
		time.Sleep(10 * time.Minute)
		require.NoError(t, engine.Client().ContainerStop(ctx, taskName, container.StopOptions{}))
		time.Sleep(300 * time.Millisecond)
		require.NoError(t, startByHand(ctx, engine.Client(), nil))
		require.NoError(t, ended())
		assert.Equal(t, api.TaskStateFailed, task.Status.State)
		assert.Equal(t, "task: non-zero exit (143)", task.Status.Err)
		time.Sleep(time.Hour)
		assert.Equal(t, "running 0", stateOf(web))
		assert.Equal(t, 1, engine.Requests().Count(stopRequest))
		require.NoError(t, ctlr.Remove(t.Context()))
		assert.Empty(t, engine.Containers())
	})
}

// A renamed container is still the task's, and a new one under its name is
// not.
func TestWaitPinsTheContainer(t *testing.T) {
	t.Parallel()
	renamed := func(_ *testing.T, _ *dockerexectest.Engine, web *dockerexectest.Container) {
		web.Rename("elsewhere")
		web.Exit(4)
	}
	removed := func(_ *testing.T, _ *dockerexectest.Engine, web *dockerexectest.Container) { web.RemoveByHand() }
	succeeded := func(before func(*testing.T, *dockerexectest.Engine, *dockerexectest.Container)) func(*testing.T, *dockerexectest.Engine, *dockerexectest.Container) {
		return func(t *testing.T, engine *dockerexectest.Engine, web *dockerexectest.Container) {
			before(t, engine, web)
			another(t, engine, taskName, "example/web:1", ofThisTask)
		}
	}
	for name, test := range map[string]struct {
		happens func(*testing.T, *dockerexectest.Engine, *dockerexectest.Container)
		want    error
	}{
		"renamed, exited":                       {renamed, nil},
		"removed":                               {removed, ErrContainerDestroyed},
		"renamed, another has the name, exited": {succeeded(renamed), nil},
		"removed, another has the name":         {succeeded(removed), ErrContainerDestroyed},
		"removed, another has the name, says an engine that knows names alone": {func(_ *testing.T, engine *dockerexectest.Engine, web *dockerexectest.Container) {
			engine.FailAll(inspectRequest, dockerexectest.Answer(http.StatusOK, `{"Id": "another", "Config": {}, "State": {"Status": "running", "Running": true}}`))
			web.RemoveByHand()
		}, ErrContainerDestroyed},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T) {
				engine, web, adapter := onRunningWeb(t)
				wait := startWait(t.Context(), adapter)
				settled()
				test.happens(t, engine, web)
				<-wait.done
				assert.Equal(t, test.want, wait.err)
				assert.Less(t, wait.took, 3*time.Second)
				if test.want == nil {
					assert.Equal(t, 4, wait.answer.State.ExitCode)
				}
			})
		})
	}
}

// A container that is not there ends a Wait, and so does what will not pass: a refusal, or
// an answer without a state, which is an error and no panic.
func TestWaitEndsAtOnce(t *testing.T) {
	t.Parallel()
	for want, fault := range map[string]dockerexectest.Fault{
		ErrContainerDestroyed.Error():                                                                {},
		"inspect container web.1.taskid: the engine's answer has no state":                           dockerexectest.Answer(http.StatusOK, "{}"),
		"inspect container web.1.taskid: Error response from daemon: authorization denied by plugin": dockerexectest.Refuse(http.StatusForbidden, "authorization denied by plugin"),
	} {
		bubble(t, func(t *testing.T) {
			engine, adapter := onFakeEngine(t, nil)
			engine.FailNext(inspectRequest, fault)
			_, err := adapter().Wait(t.Context())
			require.EqualError(t, err, want)
			assert.Equal(t, want == ErrContainerDestroyed.Error(), err == ErrContainerDestroyed) // bare
			assert.Equal(t, 1, inspects(engine))
			assert.Equal(t, 1, engine.Requests().Count(eventsRequest))
		})
	}
}

// A user's fake may fail its test by a panic or by Goexit: the caller of Wait gets it.
func TestWaitCallsTheClientAsIfInItsOwnGoroutine(t *testing.T) {
	t.Parallel()
	client := newFakeClient(t)
	silentEvents(client)
	adapter := newTestAdapter(t, client, plainTask())
	client.containerInspect = func(context.Context, string) (container.InspectResponse, error) { panic("not expected") }
	assert.PanicsWithValue(t, "not expected", func() { _, _ = adapter.Wait(t.Context()) })

	client.containerInspect = func(context.Context, string) (container.InspectResponse, error) { runtime.Goexit(); panic("never") }
	ended, returned := make(chan struct{}), false
	go func() {
		defer close(ended)
		_, _ = adapter.Wait(t.Context())
		returned = true
	}()
	<-ended
	assert.False(t, returned)
}

// The context's error comes back bare, wherever a Wait is.
func TestWaitCancelled(t *testing.T) {
	t.Parallel()
	for name, set := range map[string]func(*dockerexectest.Engine){
		"waiting for the engine": func(e *dockerexectest.Engine) { e.Down() },
		"waiting for an event":   func(*dockerexectest.Engine) {},
		"inspecting":             func(e *dockerexectest.Engine) { e.FailAll(inspectRequest, dockerexectest.Slow(time.Hour)) },
		"opening the stream":     func(e *dockerexectest.Engine) { e.FailAll(eventsRequest, dockerexectest.Slow(time.Hour)) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T) {
				engine, _, adapter := onRunningWeb(t)
				set(engine)
				ctx, _ := linesOf(t.Context())
				ctx, cancel := context.WithCancel(ctx)
				wait := startWait(ctx, adapter)
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
	bubble(t, func(t *testing.T) {
		engine, web, adapter := onRunningWeb(t, WithRequestTimeout(10*time.Second))
		engine.FailNext(eventsRequest, dockerexectest.Slow(time.Hour))
		time.AfterFunc(10*time.Second, func() { web.Exit(0) })
		begin := time.Now()
		ended, err := adapter.Wait(t.Context())
		require.NoError(t, err)
		assert.Equal(t, container.StateExited, ended.State.Status)
		assert.Less(t, time.Since(begin), 11*time.Second)
		assert.Equal(t, 2, engine.Requests().Count(eventsRequest))
	})
}

func TestThePausesOfAWaitBeginAnewAfterAnAnswer(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		engine, web, adapter := onRunningWeb(t)
		overloaded := dockerexectest.Refuse(http.StatusServiceUnavailable, "overloaded")
		mend := engine.FailAll(inspectRequest, overloaded)
		ctx, _ := linesOf(t.Context())
		wait := startWait(ctx, adapter)
		time.Sleep(10 * time.Minute)
		mend()
		time.Sleep(time.Minute)
		mend = engine.FailAll(inspectRequest, overloaded)
		web.Emit("oom")
		time.Sleep(20 * time.Millisecond)
		synctest.Wait()
		shows(web, "exited", 2)
		mend()
		failed := time.Now()
		<-wait.done
		assert.LessOrEqual(t, time.Since(failed), 120*time.Millisecond)
	})
}

// labelsOf are labels of a task's container.
func labelsOf(taskID string) map[string]string {
	return map[string]string{LabelTaskID: taskID, "com.docker.swarm.task": ""}
}

// manyWaits begins a hundred waits, each for a container of its own.
func manyWaits(ctx context.Context, t *testing.T) *dockerexectest.Engine {
	t.Helper()
	engine, _ := onFakeEngine(t, dockerexectest.UntilStopped(0))
	for _, adapter := range numberedAdapters(t, NewEngine(engine.Client()), 100) {
		another(t, engine, adapter.ContainerName(), "example/web:1", labelsOf(adapter.taskID))
		defer startWait(ctx, adapter)
	}
	return engine
}

// inspectTimes are the times of the inspects since began.
func inspectTimes(engine *dockerexectest.Engine, began time.Time) (times []time.Duration) {
	for _, request := range engine.Requests() {
		if (dockerexectest.Requests{request}).Count(inspectRequest) > 0 {
			times = append(times, request.At.Sub(began))
		}
	}
	slices.Sort(times)
	return times
}

// A hundred waits that began together inspect at a hundred times.
func TestWaitsThatBeganTogetherInspectApart(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		began := time.Now()
		ctx, _ := linesOf(t.Context())
		engine := manyWaits(ctx, t)
		time.Sleep(4 * time.Minute)
		engine.ForgetRequests()
		time.Sleep(2 * time.Minute)
		times := inspectTimes(engine, began)
		require.Len(t, times, 100)
		assert.GreaterOrEqual(t, times[0], 4*time.Minute+30*time.Second)
		assert.LessOrEqual(t, times[99], 5*time.Minute+32*time.Second, "five and a half minutes after the inspect that follows the stream's opening")
		assert.Greater(t, times[99]-times[0], 30*time.Second)
		assert.Len(t, slices.Compact(times), 100)
	})
}

// An end of which no event ever comes is found by inspecting.
func TestWaitFindsAnEndWithoutEvent(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name string
		lose func(*dockerexectest.Engine)
		want time.Duration // at most
	}{
		{"the engine was restarted and has no events", cutStreams, firstPause + errorWindow + burstWindow + spreadTime},
		{"before the engine had subscribed", func(*dockerexectest.Engine) {}, settleWindow + burstWindow + spreadTime},
		{"dropped by the engine", func(*dockerexectest.Engine) { settled() }, longInterval * 11 / 10},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T) {
				engine, web, adapter := onRunningWeb(t)
				ctx, _ := linesOf(t.Context())
				wait := startWait(ctx, adapter)
				time.Sleep(errorWindow)
				synctest.Wait()
				test.lose(engine)
				shows(web, "exited", 5)
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
	bubble(t, func(t *testing.T) {
		_, web, adapter := onRunningWeb(t)
		web.SetHealth("healthy")
		errUnhealthy := errors.New("shut it down")
		done := make(chan error, 1)
		go func() {
			_, err := adapter.watch(t.Context(), nil, func(answer container.InspectResponse) (bool, error) {
				if answer.State.Health.Status == container.Unhealthy {
					return false, errUnhealthy
				}
				return false, nil
			})
			done <- err
		}()
		settled()
		web.Emit("health_status: unhealthy")
		web.Emit("health_status: healthy")
		time.Sleep(time.Second)
		assert.Empty(t, done)
		begin := time.Now()
		web.SetHealth("unhealthy")
		assert.Equal(t, errUnhealthy, <-done)
		assert.Equal(t, burstWindow, time.Since(begin))
	})
}

// An inspect that fails in a passing way is tried again, at a pace.
func TestWaitOutlastsPassingFaults(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		engine, web, adapter := onRunningWeb(t)
		mend := engine.FailAll(inspectRequest, dockerexectest.Refuse(http.StatusServiceUnavailable, "overloaded"))
		ctx, lines := linesOf(t.Context())
		wait := startWait(ctx, adapter)
		time.Sleep(10 * time.Minute)
		assert.False(t, wait.over())
		assert.Less(t, inspects(engine), 480)
		assert.Greater(t, inspects(engine), 100)
		assert.Empty(t, lines())

		mend()
		web.Exit(2)
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
	bubble(t, func(t *testing.T) {
		engine, web, adapter := onRunningWeb(t)
		ctx, _ := linesOf(t.Context())
		early := startWait(ctx, adapter)
		settled()
		comesBack := engine.FailAll(eventsRequest, dockerexectest.Drop()) // inspects would be seen
		cutStreams(engine)
		late := startWait(ctx, adapter)
		before := inspects(engine)
		time.Sleep(10 * time.Minute) // longer than a Wait goes without an inspect
		assert.Equal(t, before, inspects(engine))
		shows(web, "exited", 9)
		comesBack()
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
	bubble(t, func(t *testing.T) {
		engine, web, adapter := onRunningWeb(t)
		other := another(t, engine, "web.1.task1", "example/web:1", labelsOf("task1"))
		ctx, cancel := context.WithCancel(t.Context())
		wait := startWait(ctx, adapter)
		settled()
		assert.Equal(t, 2, inspects(engine))
		for range 500 {
			web.Emit("health_status: healthy")
		}
		time.Sleep(time.Second)
		assert.Equal(t, 3, inspects(engine))
		other.Emit("die")
		time.Sleep(time.Second)
		assert.Equal(t, 3, inspects(engine))
		time.Sleep(time.Hour)
		assert.GreaterOrEqual(t, inspects(engine), 3+10)
		assert.LessOrEqual(t, inspects(engine), 3+14)
		cancel()
		<-wait.done
		assert.Equal(t, context.Canceled, wait.err)
	})
}

// The inspects of many waits are spread when all get a hint at once.
func TestWaitsDoNotInspectAllAtOnce(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		ctx, _ := linesOf(t.Context())
		engine := manyWaits(ctx, t)
		settled()
		engine.ForgetRequests()
		cutStreams(engine)
		settled()
		times := inspectTimes(engine, time.Now())
		assert.Len(t, times, 200)
		for i := range len(times) - 4 {
			assert.NotEqual(t, times[i], times[i+4], "five at once")
		}
	})
}
