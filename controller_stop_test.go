package dockerexec

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/network"
	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/moby/swarmkit/v2/api"
	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockerexec/dockerexec/dockerexectest"
)

var (
	endUnseen    = dockerexectest.Refuse(500, noExitEvent)
	finalFault   = dockerexectest.Refuse(500, "something is wrong")
	guardRefuses = dockerexectest.Refuse(403, "authorization denied by plugin guard: no")
)

const stopsAndKills = "POST /containers/*/*"

// One warning tells of the kill, and one of a stop that the agent repeats.
func TestAStopThatFailsIsToldOnce(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		engine := webEngine(t, obedient)
		ctlr, _, _ := runningWeb(t, engine)
		ctx, lines := logged(t)
		works := engine.FailAll(stopsAndKills, dockerexectest.Drop())
		assert.True(t, exec.IsTemporary(ctlr.Shutdown(ctx)))
		assert.Empty(t, lines(logrus.WarnLevel), "a first failure may pass")
		for range 2 {
			time.Sleep(time.Minute)
			assert.True(t, exec.IsTemporary(ctlr.Shutdown(ctx)))
		}
		assert.Equal(t, []string{"stop not answered, the container is killed", "stop failed again, the agent is to repeat it"}, lines(logrus.WarnLevel))
		works()
		require.NoError(t, ctlr.Shutdown(ctx))
	})
}

// A stop without an answer is told when the kill is due, and not only once the kill has failed
// too.
func TestAStopThatHangsIsTold(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		engine := webEngine(t, obedient)
		ctlr, _, web := runningWeb(t, engine)
		ctx, lines := logged(t)
		engine.FailNext(stopRequest, dockerexectest.Slow(time.Hour))
		began := time.Now()
		require.NoError(t, ctlr.Shutdown(ctx))
		assert.Equal(t, 12*time.Second, time.Since(began))
		assert.Equal(t, []string{"stop not answered, the container is killed"}, lines(logrus.WarnLevel))
		assert.Equal(t, container.StateExited, web.Inspect().State.Status)
	})
}

// The agent asks no second time for the stop of a task that has ended, so a task
// does not end while its container runs.
func TestAStopThatFailsIsTriedAgain(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		engine := webEngine(t, obedient)
		ctlr, task, web := runningWeb(t, engine)
		engine.FailNext(stopRequest, endUnseen)
		task.DesiredState = api.TaskStateShutdown
		status, err := exec.Do(t.Context(), task, ctlr)
		assert.Equal(t, exec.ErrTaskRetry, err)
		assert.Equal(t, api.TaskStateRunning, status.State)
		assert.Equal(t, "stop container web.1.taskid: Error response from daemon: cannot stop container: web.1.taskid: tried to kill container, but did not receive an exit event", status.Err)

		task.Status = *status
		status, err = exec.Do(t.Context(), task, ctlr)
		require.NoError(t, err)
		assert.Equal(t, api.TaskStateShutdown, status.State)
		assert.Equal(t, container.StateExited, web.Inspect().State.Status)
		assert.Equal(t, 1, engine.Requests().Count(stopRequest))
	})
}

func TestAStopThatFailsLooksAtTheContainer(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name      string
		fault     dockerexectest.Fault
		happens   func(*dockerexectest.Engine, *dockerexectest.Container)
		want      string // empty: done
		temporary bool
	}{
		{"it has exited", endUnseen, func(_ *dockerexectest.Engine, web *dockerexectest.Container) { web.Exit(0) }, "", false},
		{"it is dead", endUnseen, func(_ *dockerexectest.Engine, web *dockerexectest.Container) { web.SetDead() }, "", false},
		{"it is gone", endUnseen, func(_ *dockerexectest.Engine, web *dockerexectest.Container) { web.RemoveByHand() }, "", false},
		{"it has never run", endUnseen, func(_ *dockerexectest.Engine, web *dockerexectest.Container) {
			web.AlterInspect(func(answer *container.InspectResponse) {
				answer.State = &container.State{Status: container.StateCreated}
			})
		}, "", false},
		{"it runs", endUnseen, nil, "did not receive an exit event", true},
		{"it cannot be looked at", endUnseen, func(engine *dockerexectest.Engine, _ *dockerexectest.Container) {
			engine.FailAll(inspectRequest, finalFault)
		}, "did not receive an exit event", true},
		{"the engine goes away", endUnseen, func(engine *dockerexectest.Engine, _ *dockerexectest.Container) {
			engine.FailAll(inspectRequest, dockerexectest.Drop())
		}, "did not receive an exit event", true},
		{"refused", guardRefuses, nil, "authorization denied by plugin guard", false},
	} {
		for _, way := range []struct {
			name, request string
			stop          func(*controller, context.Context) error
		}{{"Shutdown", stopRequest, (*controller).Shutdown}, {"Terminate", killRequest, (*controller).Terminate}} {
			t.Run(way.name+" "+test.name, func(t *testing.T) {
				t.Parallel()
				bubble(t, func(t *testing.T) {
					engine := webEngine(t, obedient)
					ctlr, _, web := runningWeb(t, engine)
					engine.FailAll(way.request, test.fault)
					if test.happens != nil {
						test.happens(engine, web)
					}
					err := way.stop(ctlr, t.Context())
					if test.want == "" {
						require.NoError(t, err)
						return
					}
					require.ErrorContains(t, err, test.want)
					_, outermost := err.(interface{ Temporary() bool })
					assert.Equal(t, test.temporary, outermost)
				})
			})
		}
	}
}

// A fake's errors have no class.
func TestAFakesStopThatFails(t *testing.T) {
	t.Parallel()
	client := newFakeClient(t)
	running(client, container.StateRunning)
	client.containerKill = func(context.Context, string, string) error { return assert.AnError }
	client.containerStop = func(context.Context, string, container.StopOptions) error { return nil }
	client.containerRemove = func(context.Context, string, container.RemoveOptions) error { return assert.AnError }
	ctlr := newController(newTestAdapter(t, client, plainTask()), api.TaskStateNew)
	err := ctlr.Terminate(t.Context())
	require.ErrorIs(t, err, assert.AnError)
	_, outermost := err.(interface{ Temporary() bool })
	assert.True(t, outermost)
	require.EqualError(t, ctlr.Remove(t.Context()), "remove container web.1.taskid: assert.AnError general error for testing")
}

// A task with a name of its own is looked at before it is stopped.
func TestTheStopOfANamedTaskThatCannotBeLookedAt(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		fault     dockerexectest.Fault
		want      string
		temporary bool
	}{
		"a fault":   {finalFault, "inspect container web: Error response from daemon: something is wrong", true},
		"a refusal": {guardRefuses, "inspect container web: Error response from daemon: authorization denied by plugin guard: no", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T) {
				engine, task := webEngine(t, obedient), plainTask()
				task.Annotations.Name = "web"
				ctlr, _ := reached(t, engine, task, api.TaskStateRunning)
				engine.FailAll(inspectRequest, test.fault)
				err := ctlr.Shutdown(t.Context())
				require.EqualError(t, err, test.want)
				assert.Equal(t, test.temporary, exec.IsTemporary(err))
				assert.Zero(t, engine.Requests().Count(stopRequest))
			})
		})
	}
}

// The adapter's own errors keep their kinds.
func TestAnAdaptersStopThatFailsIsFinal(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		engine := webEngine(t, obedient)
		ctlr, _, _ := runningWeb(t, engine)
		engine.FailAll("*", finalFault)
		for _, stop := range []func(context.Context) error{ctlr.adapter.Shutdown, ctlr.adapter.Terminate} {
			err := stop(t.Context())
			require.ErrorContains(t, err, "something is wrong")
			assert.False(t, exec.IsTemporary(err))
		}
	})
}

// An unhealthy container is stopped, however long that takes.
func TestTheStopOfAnUnhealthyContainerIsTriedAgain(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		engine := webEngine(t, obedient)
		ctlr, _, web := runningWeb(t, engine)
		wait := asynchronously(func() error { return ctlr.Wait(t.Context()) })
		mends := engine.FailAll(stopsAndKills, endUnseen)
		engine.ForgetRequests()
		web.SetHealth("unhealthy")
		time.Sleep(time.Minute)
		assert.Equal(t, 1, engine.Requests().Count(stopRequest))
		tries := engine.Requests().Count(killRequest)
		assert.Greater(t, tries, 5)
		assert.Less(t, tries, 60)
		engine.ForgetRequests()
		time.Sleep(time.Hour)
		assert.Zero(t, engine.Requests().Count(stopRequest))
		tries = engine.Requests().Count(killRequest)
		assert.Greater(t, tries, 80)
		assert.Less(t, tries, 180)
		assert.True(t, web.Inspect().State.Running)
		mends()
		require.ErrorIs(t, wait(), ErrContainerUnhealthy)
		assert.Equal(t, container.StateExited, web.Inspect().State.Status)
	})
}

// An engine may fail to see the end that its stop has brought about.
func TestAnUnhealthyContainerThatHasEndedIsNotStoppedAgain(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		engine := webEngine(t, obedient)
		_, _, web := runningWeb(t, engine)
		engine.FailAll(stopsAndKills, endUnseen)
		engine.ForgetRequests()
		client := through(t, engine, func(r *http.Request, next http.RoundTripper) (*http.Response, error) {
			if strings.HasSuffix(r.URL.Path, "/kill") && engine.Requests().Count(killRequest) == 1 {
				web.Exit(137) // and the second kill fails all the same
			}
			return next.RoundTrip(r)
		})
		ctlr := newController(adapterOf(t, NewEngine(client), plainTask()), api.TaskStateRunning)
		web.SetHealth("unhealthy")
		require.ErrorIs(t, ctlr.Wait(t.Context()), ErrContainerUnhealthy)
		assert.Equal(t, 1, engine.Requests().Count(stopRequest))
		assert.Equal(t, 2, engine.Requests().Count(killRequest))
	})
}

// The agent calls Remove while Prepare runs, and then forgets the task.
// The points are in both halves of each of the five requests, and after them.
func TestRemoveWithinPrepareLeavesNothing(t *testing.T) {
	t.Parallel()
	for point := range 23 {
		t.Run(fmt.Sprint("point ", point), func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T) {
				engine := webEngine(t, obedient)
				ctlr := controllerOn(t, engine, networkedTask())
				_, err := ctlr.adapter.engine.api.get(t.Context(), time.Minute) // so that no request but those is made
				require.NoError(t, err)
				engine.FailAll("*", dockerexectest.Slow(2*time.Second))
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				prepare := asynchronously(func() error { return ctlr.Prepare(ctx) })
				time.Sleep(time.Duration(point) * 500 * time.Millisecond)
				if point%2 == 1 { // the agent ends the operation as well, at about the same time
					time.AfterFunc(time.Millisecond, cancel)
				}
				require.NoError(t, ctlr.Remove(t.Context()))
				switch err := prepare(); point {
				case 0: // at the very beginning: either way
					assert.Contains(t, []error{exec.ErrControllerClosed, context.Canceled}, err)
				case 20: // at the very end: either way
				case 21, 22:
					require.NoError(t, err)
				default:
					assert.Equal(t, context.Canceled, err)
				}
				assert.Empty(t, leftOn(engine))
				engine.ForgetRequests()

				assert.Equal(t, exec.ErrControllerClosed, ctlr.Prepare(t.Context()))
				assert.Equal(t, exec.ErrControllerClosed, ctlr.Start(t.Context()))
				assert.Equal(t, exec.ErrControllerClosed, ctlr.Wait(t.Context()))
				require.NoError(t, ctlr.Close())
				time.Sleep(time.Hour)
				assert.Empty(t, leftOn(engine))
				assert.Empty(t, engine.Requests())
			})
		})
	}
}

// The same, with a Remove that cannot wait for the call in flight: then that
// call's owner removes what it has made.
func TestRemoveThatEndsWithinAStepLeavesNothing(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, request string
		passes        int // so many such requests before
	}{
		{"in the first network", "POST /networks/create", 0}, {"in the second network", "POST /networks/create", 1},
		{"in the create", createRequest, 0}, {"in the start", startRequest, 0},
	} {
		for _, away := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, engine away after it: %t", test.name, away), func(t *testing.T) {
				t.Parallel()
				bubble(t, func(t *testing.T) {
					engine := webEngine(t, obedient)
					ctlr := controllerOn(t, engine, networkedTask())
					reached := make(chan struct{})
					for range test.passes {
						engine.FailNext(test.request, dockerexectest.Fault{})
					}
					engine.FailNext(test.request, dockerexectest.Call(func() {
						close(reached)
						time.Sleep(time.Minute)
						if away {
							engine.Down()
							time.AfterFunc(time.Minute, engine.Up)
						}
					}))
					end := asynchronously(func() error {
						if err := ctlr.Prepare(t.Context()); err != nil {
							return err
						}
						return ctlr.Start(t.Context())
					})
					<-reached
					ctx, cancel := context.WithTimeout(t.Context(), time.Second)
					defer cancel()
					assert.Equal(t, context.DeadlineExceeded, ctlr.Remove(ctx))
					assert.Equal(t, context.Canceled, end())
					require.NoError(t, ctlr.Close())
					time.Sleep(10 * time.Minute)
					assert.Empty(t, leftOn(engine))
				})
			})
		}
	}
}

// The agent calls Remove beside a running operation. That the task is on its way out
// is no failure of it.
func TestATaskIsNotFailedByItsRemoval(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		ctlr, task, _ := runningWeb(t, webEngine(t, obedient))
		removed := asynchronously(func() error {
			time.Sleep(time.Minute)
			return ctlr.Remove(t.Context())
		})
		ctx, lines := linesOf(t.Context())
		status, err := exec.Do(ctx, taskAt(task, api.TaskStateRunning), ctlr)
		assert.Equal(t, exec.ErrTaskRetry, err)
		assert.Equal(t, api.TaskStateRunning, status.State)
		assert.Empty(t, status.Err)
		require.NoError(t, removed())
		assert.Empty(t, lines())
	})
}

func TestRemoveEndsStartAndWait(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		engine, task := webEngine(t, obedient), networkedTask()
		spec(task).Healthcheck = rareCheck()
		ctlr := controllerOn(t, engine, task)
		require.NoError(t, ctlr.Prepare(t.Context()))
		start := asynchronously(func() error { return ctlr.Start(t.Context()) })
		wait := asynchronously(func() error { return ctlr.Wait(t.Context()) })
		time.Sleep(time.Minute)
		require.NoError(t, ctlr.Remove(t.Context()))
		assert.Equal(t, context.Canceled, start())
		assert.Equal(t, context.Canceled, wait())
		assert.Empty(t, leftOn(engine))
	})
}

// Networks go after the container, and whatever becomes of the stop.
func TestRemoveInOrder(t *testing.T) {
	t.Parallel()
	for name, stop := range map[string]dockerexectest.Fault{"stopped": {}, "not stopped": finalFault} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T) {
				engine := webEngine(t, obedient)
				ctlr, _ := reached(t, engine, networkedTask(), api.TaskStateRunning)
				var networks []string
				for _, name := range []string{"backend", "frontend"} {
					found, err := engine.Client().NetworkInspect(t.Context(), name, network.InspectOptions{})
					require.NoError(t, err)
					networks = append(networks, "GET /containers/json", "DELETE /networks/"+found.ID) // none uses it
				}
				web := "/containers/" + engine.Container(taskName).ID()
				engine.ForgetRequests()
				engine.FailNext(stopRequest, stop)
				require.NoError(t, ctlr.Remove(t.Context()))
				var requests []string
				for _, r := range engine.Requests() {
					requests = append(requests, r.String())
				}
				assert.Equal(t, append([]string{"POST " + web + "/stop", "DELETE " + web}, networks...), requests)
				assert.Empty(t, leftOn(engine))
			})
		})
	}
}

// What Wait has seen end needs no stop, unless it may have begun to run again.
func TestRemoveStopsNoContainerThatHasEnded(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		then  func(t *testing.T, ctlr *controller)
		stops int
	}{
		"seen":                  {func(*testing.T, *controller) {}, 0},
		"then Start was called": {func(t *testing.T, ctlr *controller) { require.Equal(t, exec.ErrTaskStarted, ctlr.Start(t.Context())) }, 1},
		"a start may be lost":   {func(_ *testing.T, ctlr *controller) { ctlr.adapter.startLost.Store(true) }, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T) {
				engine := webEngine(t, obedient)
				ctlr, _, web := runningWeb(t, engine)
				web.Exit(3)
				require.EqualError(t, ctlr.Wait(t.Context()), "task: non-zero exit (3)")
				test.then(t, ctlr)
				require.NoError(t, ctlr.Remove(t.Context()))
				assert.Equal(t, test.stops, engine.Requests().Count(stopRequest))
				assert.Empty(t, leftOn(engine))
			})
		})
	}
}

// The agent shuts a task down and then removes it.
func TestRemoveStopsNoContainerThatWasStopped(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		stop     func(ctlr *controller, ctx context.Context) error
		then     func(t *testing.T, ctlr *controller)
		requests []string
	}{
		"Shutdown":  {(*controller).Shutdown, func(*testing.T, *controller) {}, []string{"POST /containers/ID/stop", "DELETE /containers/ID"}},
		"Terminate": {(*controller).Terminate, func(*testing.T, *controller) {}, []string{"POST /containers/ID/kill", "DELETE /containers/ID"}},
		"Start was called after it": {(*controller).Shutdown,
			func(t *testing.T, ctlr *controller) { require.Equal(t, exec.ErrTaskStarted, ctlr.Start(t.Context())) },
			[]string{"POST /containers/ID/stop", "GET /containers/web.1.taskid/json", "POST /containers/ID/stop", "DELETE /containers/ID"}},
		"a start may be lost": {(*controller).Shutdown,
			func(_ *testing.T, ctlr *controller) { ctlr.adapter.startLost.Store(true) },
			[]string{"POST /containers/ID/stop", "GET /containers/web.1.taskid/json", "POST /containers/ID/stop", "DELETE /containers/ID"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T) {
				engine := webEngine(t, obedient)
				ctlr, _, _ := runningWeb(t, engine)
				engine.ForgetRequests()
				require.NoError(t, test.stop(ctlr, t.Context()))
				test.then(t, ctlr)
				require.NoError(t, ctlr.Remove(t.Context()))
				assert.Equal(t, test.requests, asked(engine))
				assert.Empty(t, leftOn(engine))
			})
		})
	}
}

// A start that has been answered is over: a Remove that comes at once stops the
// container before it removes it. Other methods, which want the same lock, make
// the two meet. They take all the processor they get, so no test runs beside this one.
func TestRemoveStopsWhatHasJustStarted(t *testing.T) {
	for range 100 {
		engine := webEngine(t, obedient)
		ctlr := controllerOn(t, engine, plainTask())
		require.NoError(t, ctlr.Prepare(t.Context()))
		ctx, cancel := context.WithCancel(t.Context())
		var others sync.WaitGroup
		for range 2 {
			others.Go(func() {
				for ctx.Err() == nil {
					assert.NoError(t, ctlr.Update(t.Context(), nil))
				}
			})
		}
		engine.ForgetRequests()
		require.NoError(t, ctlr.Start(t.Context()))
		require.NoError(t, ctlr.Remove(t.Context()))
		cancel()
		others.Wait()
		require.Equal(t, []string{
			"GET /containers/web.1.taskid/json", "POST /containers/ID/start", "POST /containers/ID/stop", "DELETE /containers/ID",
		}, asked(engine))
		engine.Close()
	}
}

// The agent calls Remove once and then forgets the task.
func TestRemoveOutlastsAnEngineThatIsAway(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		engine := webEngine(t, obedient)
		ctlr, _ := reached(t, engine, networkedTask(), api.TaskStateRunning)
		engine.ForgetRequests()
		before := time.Now()
		time.AfterFunc(time.Minute, engine.FailAll("*", dockerexectest.Drop()))
		require.NoError(t, ctlr.Remove(t.Context()))
		assert.Less(t, time.Since(before), time.Minute+6*time.Second)
		asked := engine.Requests()
		looks, kills := asked.Count(inspectRequest), asked.Count(killRequest)
		assert.Less(t, looks, 50) // no hot loop: the pauses grow to 5 seconds, and are half as long in the mean
		assert.LessOrEqual(t, kills, looks)
		assert.Equal(t, 1, asked.Count(stopRequest))
		assert.Equal(t, 1+1+2*2, len(asked)-looks-kills) // the stop, the removal, and two for each network
		assert.Empty(t, leftOn(engine))
	})
	bubble(t, func(t *testing.T) {
		engine := webEngine(t, obedient)
		ctlr, _ := reached(t, engine, networkedTask(), api.TaskStateRunning)
		engine.Down()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		assert.Equal(t, context.DeadlineExceeded, ctlr.Remove(ctx))
		engine.Up()
		require.NoError(t, ctlr.Remove(t.Context())) // what is left is done when it is called again
		assert.Empty(t, leftOn(engine))
	})
}

// A fault between two of Remove's calls loses none of the later ones.
func TestRemoveGoesOnAfterAFault(t *testing.T) {
	t.Parallel()
	for _, request := range []string{stopRequest, removeRequest, "DELETE /networks/*"} {
		t.Run(request, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T) {
				engine := webEngine(t, obedient)
				ctlr, _ := reached(t, engine, networkedTask(), api.TaskStateRunning)
				engine.FailNext(request, dockerexectest.Drop())
				require.NoError(t, ctlr.Remove(t.Context()))
				assert.Empty(t, leftOn(engine))
			})
		})
	}
	t.Run("final", func(t *testing.T) {
		t.Parallel()
		bubble(t, func(t *testing.T) {
			engine := webEngine(t, obedient)
			ctlr, _ := reached(t, engine, networkedTask(), api.TaskStateRunning)
			require.NoError(t, ctlr.Shutdown(t.Context()))
			engine.FailNext(removeRequest, guardRefuses)
			require.EqualError(t, ctlr.Remove(t.Context()), "remove container web.1.taskid: Error response from daemon: authorization denied by plugin guard: no")
			assert.Equal(t, []string{"container web.1.taskid"}, leftOn(engine))
		})
	})
}

func TestRemoveBesideAnotherRemoval(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		engine := webEngine(t, obedient)
		ctlr, _ := reached(t, engine, networkedTask(), api.TaskStateRunning)
		engine.FailNext(removeRequest, dockerexectest.Slow(time.Minute))
		other := asynchronously(func() error {
			return engine.Client().ContainerRemove(t.Context(), taskName, container.RemoveOptions{Force: true})
		})
		time.Sleep(time.Second)
		require.NoError(t, ctlr.Remove(t.Context()))
		assert.Empty(t, leftOn(engine))
		require.NoError(t, other())
	})
}

func TestRemoveOfATaskThatWasNeverPrepared(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		engine := webEngine(t, obedient)
		_, err := engine.Client().NetworkCreate(t.Context(), "backend", network.CreateOptions{})
		require.NoError(t, err)
		engine.ForgetRequests()
		require.NoError(t, controllerOn(t, engine, networkedTask()).Remove(t.Context()))
		assert.Equal(t, []string{"network backend"}, leftOn(engine))
		assert.Equal(t, []string{"GET /containers/web.1.taskid/json", "GET /containers/json", "GET /networks/backend", "GET /networks/frontend"}, asked(engine))
	})
}

// A container that is not proven to be the task's is not touched, nor
// taken for it.
func TestStrangersAreLeftAlone(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		named  string // the task's own name
		labels map[string]string
		want   string // what Start and Wait say
	}{
		{"a user's container", "web", nil, "container web (%s) belongs to no task"},
		{"another task's container", "web", map[string]string{LabelTaskID: "other"}, "container web (%s) belongs to task other"},
		{"another task's under the task's own name", "", map[string]string{LabelTaskID: "other"}, "container web.1.taskid (%s) belongs to task other"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T) {
				ctx, engine, task, name := t.Context(), webEngine(t, obedient), plainTask(), taskName
				task.Annotations.Name = test.named
				if test.named != "" {
					name = test.named
				}
				stranger := engine.AddContainer(name, test.labels)
				want := fmt.Sprintf(test.want, stranger.ID()[:12])

				require.NoError(t, controllerOn(t, engine, task).Remove(ctx))
				fresh := controllerOn(t, engine, taskAt(task, api.TaskStateStarting))
				require.EqualError(t, fresh.Start(ctx), want)
				require.EqualError(t, fresh.Wait(ctx), want)
				for _, ctlr := range []*controller{fresh, controllerOn(t, engine, taskAt(task, api.TaskStateAccepted))} {
					require.ErrorContains(t, ctlr.Prepare(ctx), "has its name")
					status, err := ctlr.ContainerStatus(ctx)
					require.NoError(t, err)
					assert.Nil(t, status)
					require.NoError(t, ctlr.Shutdown(ctx))
					require.NoError(t, ctlr.Terminate(ctx))
					require.NoError(t, ctlr.Remove(ctx))
				}
				assert.Equal(t, []string{"container " + name}, leftOn(engine))
				assert.True(t, stranger.Inspect().State.Running)
				assert.Zero(t, engine.Requests().Count("DELETE /containers/*"))
				assert.Zero(t, engine.Requests().Count("POST /containers/*/*"))
			})
		})
	}
}

// A container that took the name of one that was this task's is not touched
// either.
func TestANamedTaskDoesNotRemoveItsSuccessor(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		engine, task := webEngine(t, obedient), plainTask()
		task.Annotations.Name = "web"
		ctlr, _ := reached(t, engine, task, api.TaskStateRunning)
		engine.Container("web").RemoveByHand()
		successor := engine.AddContainer("web", nil)
		require.NoError(t, ctlr.Shutdown(t.Context()))
		require.NoError(t, ctlr.Remove(t.Context()))
		assert.Equal(t, []string{"container web"}, leftOn(engine))
		assert.True(t, successor.Inspect().State.Running)
	})
}

// All at once, under the race detector, as the agent and its shutdown may
// have it. Nothing is left, and no method hangs.
func TestAllMethodsAtOnce(t *testing.T) {
	t.Parallel()
	for round := range 30 {
		bubble(t, func(t *testing.T) {
			engine := webEngine(t, obedient)
			engine.FailAll("*", dockerexectest.Slow(time.Duration(round%7)*200*time.Microsecond))
			ctlr := controllerOn(t, engine, networkedTask())
			var all []func() error
			for _, method := range methods {
				for range 3 {
					delay := time.Duration(round*len(all)%13) * 150 * time.Microsecond
					all = append(all, asynchronously(func() error {
						time.Sleep(delay)
						if method.name == "Remove" {
							time.Sleep(time.Duration(round) * 100 * time.Microsecond)
						}
						if err := method.call(t.Context(), ctlr); method.name == "Remove" {
							return err
						}
						return nil
					}))
				}
			}
			time.AfterFunc(time.Minute, func() { ctlr.Close() })
			for _, err := range all {
				require.NoError(t, err())
			}
			assert.Empty(t, leftOn(engine))
		})
	}
}

// Each call of a Remove that the engine fails to carry out is made again until
// it does: nobody else would.
func TestRemoveOutlastsWhatTheEngineFailsToDo(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		status      int
		text        string
		lasts       time.Duration
		longest     time.Duration // the pause between two tries
		least, most int           // tries meanwhile
	}{
		{500, `cannot remove container "web": unable to remove filesystem: device or resource busy`, time.Hour, time.Minute, 80, 180},
		{409, "something is in the way", time.Hour, time.Minute, 80, 180},
		{503, "overloaded", 10 * time.Minute, 5 * time.Second, 180, 300},
	} {
		for _, request := range []string{inspectRequest, removeRequest, "GET /networks/*", "DELETE /networks/*"} {
			t.Run(fmt.Sprint(request, " ", test.status), func(t *testing.T) {
				t.Parallel()
				bubble(t, func(t *testing.T) {
					engine := webEngine(t, obedient)
					_, task := reached(t, engine, networkedTask(), api.TaskStateRunning)
					anew := controllerOn(t, engine, task)
					engine.ForgetRequests()
					time.AfterFunc(test.lasts, engine.FailAll(request, dockerexectest.Refuse(test.status, test.text)))
					began := time.Now()
					ctx, lines := logged(t)
					require.NoError(t, anew.Remove(ctx))
					assert.Less(t, time.Since(began), test.lasts+test.longest+time.Second)
					assert.Greater(t, time.Since(began), test.lasts-time.Nanosecond)
					tries := engine.Requests().Count(request)
					assert.Greater(t, tries, test.least)
					assert.Less(t, tries, test.most)
					assert.Equal(t, 1, engine.Requests().Count(stopRequest)) // what was stopped is not stopped again
					if request == removeRequest {                            // the networks wait for it
						assert.Equal(t, 2, engine.Requests().Count("GET /networks/*"))
					}
					assert.Empty(t, leftOn(engine))
					assert.Equal(t, []string{"stop or removal failed, trying again"}, lines(logrus.WarnLevel))
				})
			})
		}
	}
}

func TestRemoveEndsAtOnce(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		status int
		text   string
		limit  time.Duration // 0: none
		want   string
	}{
		"with its context": {500, "something is wrong", time.Hour, "context deadline exceeded"},
		"400":              {400, "bad parameter", 0, "remove container web.1.taskid: Error response from daemon: bad parameter"},
		"401":              {401, "who are you", 0, "remove container web.1.taskid: Error response from daemon: who are you"},
		"403":              {403, "no", 0, "remove container web.1.taskid: Error response from daemon: no"},
		"501":              {501, "not here", 0, "remove container web.1.taskid: Error response from daemon: not here"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T) {
				engine := webEngine(t, obedient)
				ctlr, _, _ := runningWeb(t, engine)
				engine.FailAll(removeRequest, dockerexectest.Refuse(test.status, test.text))
				ctx, cancel := context.WithTimeout(t.Context(), max(test.limit, time.Nanosecond))
				defer cancel()
				if test.limit == 0 {
					ctx = t.Context()
				}
				began := time.Now()
				require.EqualError(t, ctlr.Remove(ctx), test.want)
				assert.Equal(t, test.limit, time.Since(began))
			})
		})
	}
}

// What is made after a Remove that could not wait is removed by the step that
// made it, also if that does not succeed at once.
func TestAnUndoOutlastsWhatTheEngineFailsToDo(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		engine := webEngine(t, obedient)
		ctlr := controllerOn(t, engine, plainTask())
		engine.FailNext(createRequest, dockerexectest.Slow(time.Minute))
		prepare := asynchronously(func() error { return ctlr.Prepare(t.Context()) })
		time.Sleep(time.Second)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		assert.Equal(t, context.DeadlineExceeded, ctlr.Remove(ctx))
		mends := engine.FailAll(removeRequest, finalFault)
		time.Sleep(90 * time.Second)
		assert.Equal(t, []string{"container web.1.taskid"}, leftOn(engine))
		mends()
		assert.Error(t, prepare())
		time.Sleep(time.Minute)
		assert.Empty(t, leftOn(engine))
	})
}

// passingFault is one of the engine, or one of the way to it.
type passingFault struct {
	name       string
	fault      dockerexectest.Fault
	onTheWay   error // nil: none
	connection bool  // fails: nobody is there
	unsent     bool  // the engine has certainly not done what it was asked for
}

var passingFaults = []passingFault{
	{name: "engine away", onTheWay: &net.OpError{Op: "dial", Net: "unix", Err: syscall.ECONNREFUSED}, connection: true, unsent: true},
	{name: "connection reset", onTheWay: &net.OpError{Op: "read", Net: "unix", Err: syscall.ECONNRESET}, connection: true},
	{name: "answer cut off", fault: dockerexectest.Drop(), connection: true},
	{name: "503", fault: dockerexectest.Refuse(503, "engine is shutting down")},
	{name: "429", fault: dockerexectest.Refuse(429, "too many requests")},
	{name: "older engine", fault: dockerexectest.Refuse(400, "client version 1.51 is too new. Maximum supported API version is 1.41"), unsent: true},
	{name: "newer engine", fault: dockerexectest.Refuse(400, tooOldClientAnswer), unsent: true},
	{name: "no answer in time", fault: dockerexectest.Slow(1000 * time.Hour)},
}

// faultTime is longer than any time-out.
const faultTime = 5 * time.Minute

// agentStep is what the agent has a controller do.
type agentStep struct {
	name    string
	state   api.TaskState // in which the agent does it
	stop    bool          // the task is to be shut down
	checked bool          // the container has a health check, and is healthy unless the operation starts it
	begin   string        // the health that is found before; empty: nothing
	from    string        // the request from which on others fail; empty: the first
	calls   []string      // that it makes, and with whose passing faults it returns
	waits   []string      // that it makes, and whose passing faults it sits out
	finish  func(*dockerexectest.Container)
	after   api.TaskState // when it succeeded
	err     string        // of the task then
	failed  api.TaskState // when it failed for good
}

const unhealthy143 = "task: non-zero exit (143): dockerexec: unhealthy container"

func becomes(health string) func(*dockerexectest.Container) {
	return func(web *dockerexectest.Container) { web.SetHealth(health) }
}

var operations = []agentStep{
	{name: "Prepare", state: api.TaskStatePreparing, calls: []string{"POST /networks/create", "POST /volumes/create", pullRequest, createRequest},
		after: api.TaskStateReady, failed: api.TaskStateRejected},
	{name: "Start", state: api.TaskStateStarting, calls: []string{inspectRequest, startRequest},
		after: api.TaskStateRunning, failed: api.TaskStateFailed},
	{name: "Start until healthy", state: api.TaskStateStarting, checked: true,
		from: startRequest, waits: []string{eventsRequest, inspectRequest},
		finish: becomes("healthy"), after: api.TaskStateRunning, failed: api.TaskStateFailed},
	{name: "Start until unhealthy", state: api.TaskStateStarting, checked: true,
		from: startRequest, waits: []string{eventsRequest, inspectRequest},
		finish: becomes("unhealthy"), after: api.TaskStateFailed, err: unhealthy143, failed: api.TaskStateFailed},
	{name: "Wait", state: api.TaskStateRunning, waits: []string{eventsRequest, inspectRequest},
		finish: func(web *dockerexectest.Container) { web.Exit(0) }, after: api.TaskStateCompleted, failed: api.TaskStateFailed},
	{name: "Wait until unhealthy", state: api.TaskStateRunning, checked: true, waits: []string{eventsRequest, inspectRequest},
		finish: becomes("unhealthy"), after: api.TaskStateFailed, err: unhealthy143, failed: api.TaskStateFailed},
	{name: "Wait, unhealthy", state: api.TaskStateRunning, checked: true, begin: "unhealthy",
		from: stopsAndKills, waits: []string{stopsAndKills, eventsRequest, inspectRequest},
		after: api.TaskStateFailed, err: unhealthy143, failed: api.TaskStateFailed},
	{name: "Shutdown", state: api.TaskStateRunning, stop: true, calls: []string{stopsAndKills},
		after: api.TaskStateShutdown, failed: api.TaskStateFailed},
}

// reachedStep is a task for which an operation comes next.
type reachedStep struct {
	agentStep
	engine *dockerexectest.Engine
	ctlr   *controller
	task   *api.Task
	onWay  atomic.Pointer[func(*http.Request) error] // nil: nothing fails on the way
	stops  atomic.Pointer[func()]                    // nil: the engine fails nothing
}

func (o agentStep) reach(t *testing.T) *reachedStep {
	t.Helper()
	engine, task := webEngine(t, obedient), networkedTask()
	task.Networks = task.Networks[:1]
	step := &reachedStep{agentStep: o, engine: engine, task: taskAt(task, api.TaskStateAccepted)}
	if o.checked {
		spec(task).Healthcheck = rareCheck()
		if o.state == api.TaskStateRunning {
			time.AfterFunc(time.Second, func() { engine.Container(taskName).SetHealth("healthy") })
		}
	}
	client := through(t, engine, func(r *http.Request, next http.RoundTripper) (*http.Response, error) {
		if fails := step.onWay.Load(); fails != nil {
			if err := (*fails)(r); err != nil {
				return nil, err
			}
		}
		return next.RoundTrip(r)
	})
	step.ctlr = newController(adapterOf(t, NewEngine(client, WithRequestTimeout(time.Minute), WithPullAttempts(1)), task), api.TaskStateAccepted)
	drive(t.Context(), t, task, step.ctlr, o.state)
	require.Equal(t, o.state, task.Status.State, task.Status.Err)
	if o.stop {
		task.DesiredState = api.TaskStateShutdown
	}
	if o.begin != "" {
		engine.Container(taskName).SetHealth(o.begin)
	}
	return step
}

var pathVersion = regexp.MustCompile("^/v[0-9.]+")

// fails has the requests of a pattern fail. A pattern for stops includes kills: a stop that
// may have been sent is followed by a kill.
func (s *reachedStep) fails(request string, f passingFault) {
	begin := func() {
		if f.onTheWay == nil {
			stops := s.engine.FailAll(request, f.fault)
			s.stops.Store(&stops)
			return
		}
		fails := func(r *http.Request) error {
			sent := dockerexectest.Requests{{Method: r.Method, Path: pathVersion.ReplaceAllString(r.URL.Path, "")}}
			if sent.Count(request) > 0 {
				return f.onTheWay
			}
			return nil
		}
		s.onWay.Store(&fails)
	}
	if s.from == "" || s.from == request {
		begin()
		return
	}
	s.engine.FailNext(s.from, dockerexectest.Call(begin))
}

// mends has the engine well again, and what the operation waits for happen.
func (s *reachedStep) mends() {
	if stops := s.stops.Load(); stops != nil {
		(*stops)()
	}
	s.onWay.Store(nil)
	if s.finish != nil {
		s.finish(s.engine.Container(taskName))
	}
}

// An engine that is away, or answers wrongly for a time, fails no task.
// What waits does not even return.
func TestPassingFaultsAreTriedAgain(t *testing.T) {
	t.Parallel()
	for _, operation := range operations {
		for _, request := range slices.Concat(operation.calls, operation.waits) {
			for _, fault := range passingFaults {
				hangs, waits := fault.name == "no answer in time", slices.Contains(operation.waits, request)
				if request == pullRequest && (hangs || fault.name == "429") {
					continue // a pull may take as long as it likes; and this is the registry's
				}
				if request == createRequest && hangs {
					continue // see TestACreateThatTakesLongerThanARequest
				}
				t.Run(operation.name+" "+request+" "+fault.name, func(t *testing.T) {
					t.Parallel()
					bubble(t, func(t *testing.T) {
						step := operation.reach(t)
						step.fails(request, fault)
						before := time.Now()
						if waits {
							time.AfterFunc(faultTime, step.mends)
						} else {
							status, err := exec.Do(t.Context(), step.task, step.ctlr)
							assert.Equal(t, exec.ErrTaskRetry, err)
							assert.Equal(t, operation.state, status.State, status.Err)
							assert.NotEmpty(t, status.Err)
							assert.Less(t, time.Since(before), 10*time.Minute)
							step.mends()
						}
						status, err := exec.Do(t.Context(), step.task, step.ctlr)
						require.NoError(t, err)
						assert.Equal(t, operation.after, status.State, status.Err)
						want := operation.err
						if request == stopsAndKills && !fault.unsent {
							want = strings.Replace(want, "(143)", "(137)", 1)
						}
						assert.Equal(t, want, status.Err)
						switch {
						case request == eventsRequest && hangs: // after five seconds inspects tell as well
							assert.GreaterOrEqual(t, time.Since(before), 5*time.Second)
						case request == eventsRequest && !fault.connection: // the same after a minute
							assert.GreaterOrEqual(t, time.Since(before), time.Minute)
						case waits:
							assert.Greater(t, time.Since(before), faultTime)
						}
					})
				})
			}
		}
	}
}

func TestContextsThatEndFailNoTask(t *testing.T) {
	t.Parallel()
	for _, operation := range operations {
		for _, request := range slices.Concat(operation.calls, operation.waits) {
			for _, ended := range []error{context.Canceled, context.DeadlineExceeded} {
				if operation.name == "Wait, unhealthy" && request == eventsRequest && ended == context.DeadlineExceeded {
					continue // inspects tell before the deadline
				}
				t.Run(operation.name+" "+request+" "+ended.Error(), func(t *testing.T) {
					t.Parallel()
					bubble(t, func(t *testing.T) {
						step := operation.reach(t)
						ctx, cancel := context.WithTimeout(t.Context(), 59*time.Second) // a request has a minute
						defer cancel()
						step.fails(request, passingFault{fault: dockerexectest.Call(func() {
							if ended == context.Canceled {
								cancel()
							}
							time.Sleep(2 * time.Minute)
						})})
						status, err := exec.Do(ctx, step.task, step.ctlr)
						assert.Equal(t, exec.ErrTaskRetry, err)
						assert.Equal(t, ended, ctx.Err())
						assert.Equal(t, operation.state, status.State, status.Err)
						assert.Empty(t, status.Err)
						step.mends()
						drive(t.Context(), t, step.task, step.ctlr, operation.after)
						assert.Equal(t, operation.after, step.task.Status.State, step.task.Status.Err)
						want := operation.err
						if request == stopsAndKills { // no answer to the stop: a kill follows
							want = strings.Replace(want, "(143)", "(137)", 1)
						}
						assert.Equal(t, want, step.task.Status.Err)
						time.Sleep(2 * time.Minute) // until the engine has done what it was asked
					})
				})
			}
		}
	}
}

// Whatever is said of the stream, what waits for it goes on waiting.
func TestFinalErrorsEndATask(t *testing.T) {
	t.Parallel()
	for _, operation := range operations {
		for _, request := range slices.Concat(operation.calls, operation.waits) {
			if request == inspectRequest {
				continue // only a refusal is final, see TestARefusalToInspectIsFinal
			}
			t.Run(operation.name+" "+request, func(t *testing.T) {
				t.Parallel()
				bubble(t, func(t *testing.T) {
					step := operation.reach(t)
					final, text := finalFault, "something is wrong"
					if request == stopsAndKills { // anything else is tried again
						final, text = guardRefuses, "authorization denied by plugin guard: no"
					}
					step.fails(request, passingFault{fault: final})
					if request == eventsRequest {
						time.AfterFunc(faultTime, step.mends)
					}
					status, err := exec.Do(t.Context(), step.task, step.ctlr)
					require.NoError(t, err)
					if request == eventsRequest {
						assert.Equal(t, operation.after, status.State)
						assert.Equal(t, operation.err, status.Err)
						return
					}
					assert.Equal(t, operation.failed, status.State)
					assert.Contains(t, status.Err, text)
				})
			})
		}
	}
}

// An answer without a state is an error, not a panic, and ends no Wait.
func TestAnswersWithoutAState(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		ctlr, _, web := runningWeb(t, webEngine(t, obedient))
		web.AlterInspect(func(answer *container.InspectResponse) { answer.ContainerJSONBase = nil })
		require.EqualError(t, ctlr.Start(t.Context()), "inspect container web.1.taskid: the engine's answer has no state")
		_, err := ctlr.ContainerStatus(t.Context())
		require.EqualError(t, err, "inspect container web.1.taskid: the engine's answer has no state")

		ctx, lines := logged(t)
		ctx, cancel := context.WithTimeout(ctx, time.Hour)
		defer cancel()
		assert.Equal(t, context.DeadlineExceeded, ctlr.Wait(ctx))
		assert.Len(t, lines(logrus.WarnLevel), 1)
	})
}

// oddAnswers are what an engine may answer to an inspect that says nothing about
// the container.
var oddAnswers = map[string]struct {
	fault dockerexectest.Fault
	text  string
}{
	"500":      {dockerexectest.Refuse(500, "RWLayer of container abc is unexpectedly nil"), "Error response from daemon: RWLayer of container abc is unexpectedly nil"},
	"409":      {dockerexectest.Refuse(409, "container is marked for removal"), "Error response from daemon: container is marked for removal"},
	"no class": {dockerexectest.Refuse(418, "something odd"), "Error response from daemon: something odd"},
	"not JSON": {dockerexectest.Garble(), "invalid character '!' looking for beginning of value"},
	"no layer": {dockerexectest.Refuse(500, "layer does not exist"), "Error response from daemon: layer does not exist"},
}

// An answer that says nothing about the container does not end its task: it is
// asked again, and said once.
func TestWaitOutlastsOddAnswers(t *testing.T) {
	t.Parallel()
	for name, odd := range oddAnswers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T) {
				engine := webEngine(t, obedient)
				ctlr, _, web := runningWeb(t, engine)
				engine.ForgetRequests()
				mends := engine.FailAll(inspectRequest, odd.fault)
				ctx, lines := logged(t)
				wait := asynchronously(func() error { return ctlr.Wait(ctx) })
				time.Sleep(10 * time.Minute)
				tries := engine.Requests().Count(inspectRequest)
				assert.Greater(t, tries, 100)
				assert.Less(t, tries, 480)
				assert.Equal(t, []string{"container not inspected; it will be looked at again"}, lines(logrus.WarnLevel))

				mends()
				time.Sleep(10 * time.Second)
				require.Len(t, lines(logrus.InfoLevel), 2)
				assert.Regexp(t, `^container inspected again after (9m59\.\d+|10m\d(\.\d+)?)s$`, lines(logrus.InfoLevel)[1])

				mends = engine.FailAll(inspectRequest, odd.fault) // another outage, which is worth its own line
				time.Sleep(10 * time.Minute)
				assert.Len(t, lines(logrus.WarnLevel), 2)
				mends()
				web.Exit(6)
				assert.EqualError(t, wait(), "task: non-zero exit (6)")
			})
		})
	}
}

// The stream says nothing of an engine that hangs on one container. Once that answers
// again, the end is reported.
func TestWaitSaysOnceThatTheEngineHangsOnTheContainer(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		engine := webEngine(t, obedient)
		ctlr, _, web := runningWeb(t, engine)
		ctx, lines := logged(t)
		wait := asynchronously(func() error { return ctlr.Wait(ctx) })
		time.Sleep(time.Minute)
		hangs := dockerexectest.Slow(1000 * time.Hour)
		mends := engine.FailAll(inspectRequest, hangs)
		engine.ForgetRequests()
		time.Sleep(20 * time.Minute)
		assert.Equal(t, []string{"container not inspected; it will be looked at again"}, lines(logrus.WarnLevel))

		mends()
		hung := time.Since(engine.Requests()[0].At)
		time.Sleep(5 * time.Minute)
		require.Len(t, lines(logrus.InfoLevel), 2)
		text, found := strings.CutPrefix(lines(logrus.InfoLevel)[1], "container inspected again after ")
		require.True(t, found)
		said, err := time.ParseDuration(text)
		require.NoError(t, err)
		assert.GreaterOrEqual(t, said, hung.Round(time.Millisecond))

		mends = engine.FailAll(inspectRequest, hangs)
		time.Sleep(20 * time.Minute)
		assert.Len(t, lines(logrus.WarnLevel), 2)
		mends()
		web.Exit(6)
		assert.EqualError(t, wait(), "task: non-zero exit (6)")
	})
}

// A container that is gone after such answers is gone.
func TestAnOddAnswerIsNotTheLastWord(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		engine := webEngine(t, obedient)
		ctlr, _, web := runningWeb(t, engine)
		mends := engine.FailAll(inspectRequest, oddAnswers["500"].fault)
		wait := asynchronously(func() error { return ctlr.Wait(t.Context()) })
		time.Sleep(time.Minute)
		web.RemoveByHand()
		mends()
		assert.Equal(t, ErrContainerDestroyed, wait())
	})
}

// Refusals do not mend by asking again.
func TestARefusalToInspectIsFinal(t *testing.T) {
	t.Parallel()
	for _, status := range []int{400, 401, 403, 501} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T) {
				engine := webEngine(t, obedient)
				ctlr, _, _ := runningWeb(t, engine)
				engine.FailAll(inspectRequest, dockerexectest.Refuse(status, "not for you"))
				before := time.Now()
				for _, call := range []func(context.Context) error{ctlr.Wait, ctlr.Start} {
					err := call(t.Context())
					require.EqualError(t, err, "inspect container web.1.taskid: Error response from daemon: not for you")
					assert.False(t, exec.IsTemporary(err))
				}
				assert.Less(t, time.Since(before), time.Second)
			})
		})
	}
}

// Start looks before it does anything. An odd answer then is no reason to fail a
// task whose container may be running: the agent starts again.
func TestStartOutlastsOddAnswers(t *testing.T) {
	t.Parallel()
	for name, odd := range oddAnswers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T) {
				engine, ctlr, task := starting(t)
				engine.FailNext(inspectRequest, odd.fault)
				err := ctlr.Start(t.Context())
				assert.True(t, exec.IsTemporary(err), err)
				assert.EqualError(t, err, "inspect container web.1.taskid: "+odd.text)

				time.AfterFunc(time.Minute, func() {
					mends := engine.FailAll(inspectRequest, odd.fault)
					time.AfterFunc(time.Hour, func() { mends(); engine.Container(taskName).SetHealth("healthy") })
				})
				before := time.Now()
				drive(t.Context(), t, task, ctlr, api.TaskStateRunning)
				assert.Equal(t, api.TaskStateRunning, task.Status.State, task.Status.Err)
				assert.GreaterOrEqual(t, time.Since(before), time.Hour+time.Minute)
			})
		})
	}
}

// What is put before an engine's words names the container, and must not make
// another object's absence that of the container.
func TestALostLayerIsNoLostContainer(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		engine := webEngine(t, obedient)
		_, task, web := runningWeb(t, engine)
		mends := engine.FailAll(inspectRequest, oddAnswers["no layer"].fault)
		fresh := controllerOn(t, engine, task)
		_, err := fresh.adapter.Inspect(t.Context())
		require.ErrorContains(t, err, "layer does not exist")
		assert.False(t, isContainerGone(err))
		_, err = fresh.ContainerStatus(t.Context())
		require.ErrorContains(t, err, "layer does not exist")
		mends()
		web.RemoveByHand()
		_, err = fresh.adapter.Inspect(t.Context())
		assert.True(t, isContainerGone(err), err)
	})
}

// The adapter's own Wait leaves it to its caller what to make of such an answer.
func TestTheAdaptersWaitReportsOddAnswers(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		engine := webEngine(t, obedient)
		ctlr, _, _ := runningWeb(t, engine)
		engine.FailAll(inspectRequest, oddAnswers["500"].fault)
		_, err := ctlr.adapter.Wait(t.Context())
		require.EqualError(t, err, "inspect container web.1.taskid: Error response from daemon: RWLayer of container abc is unexpectedly nil")
		assert.False(t, exec.IsTemporary(err))
	})
}

// Wait and Start, also while it waits for health, have nothing to do with a
// container of somebody else.
func TestAStrangersContainerIsNotWaitedFor(t *testing.T) {
	t.Parallel()
	isOther := func(web *dockerexectest.Container) (want string) {
		web.AlterInspect(func(answer *container.InspectResponse) { answer.Config.Labels[LabelTaskID] = "other" })
		web.Emit("rename")
		return fmt.Sprintf("container web.1.taskid (%s) belongs to task other", web.ID()[:12])
	}
	bubble(t, func(t *testing.T) {
		ctlr, _, web := runningWeb(t, webEngine(t, obedient))
		want := isOther(web)
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		assert.EqualError(t, ctlr.Wait(ctx), want)
		assert.EqualError(t, ctlr.Start(ctx), want)
	})
	bubble(t, func(t *testing.T) {
		engine, ctlr, _ := starting(t)
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		start := asynchronously(func() error { return ctlr.Start(ctx) })
		time.Sleep(time.Minute)
		want := isOther(engine.Container(taskName))
		assert.EqualError(t, start(), want)
	})
}
