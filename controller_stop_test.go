package dockerexec

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/network"
	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/moby/swarmkit/v2/api"
	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The agent asks no second time for the stop of a task that has ended, so a task
// does not end while its container runs.
func TestAStopThatFailsIsTriedAgain(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		sim := newSimEngine(t)
		ctlr, task := runningTask(t, sim, plainTask())
		sim.fails(failing("ContainerStop", errNoExitEvent))
		task.DesiredState = api.TaskStateShutdown
		status, err := exec.Do(t.Context(), task, ctlr)
		assert.Equal(t, exec.ErrTaskRetry, err)
		assert.Equal(t, api.TaskStateRunning, status.State)
		assert.Equal(t, "stop container web.1.taskid: Error response from daemon: cannot stop container: web.1.taskid: tried to kill container, but did not receive an exit event", status.Err)

		sim.fails(nil)
		task.Status = *status
		status, err = exec.Do(t.Context(), task, ctlr)
		require.NoError(t, err)
		assert.Equal(t, api.TaskStateShutdown, status.State)
		sim.with(taskName, func(c *simContainer) { assert.Equal(t, container.StateExited, c.state.Status) })
	})
}

func TestAStopThatFailsLooksAtTheContainer(t *testing.T) {
	t.Parallel()
	ended := func(status string) func(*simEngine) {
		return func(sim *simEngine) {
			sim.with(taskName, func(c *simContainer) { c.state = container.State{Status: status} })
		}
	}
	gone := func(sim *simEngine) {
		sim.mu.Lock()
		defer sim.mu.Unlock()
		delete(sim.containers, taskName)
	}
	for _, test := range []struct {
		name      string
		err       error
		happens   func(*simEngine)
		want      string // empty: done
		temporary bool
	}{
		{"it has exited", errNoExitEvent, ended(container.StateExited), "", false},
		{"it is dead", errNoExitEvent, ended(container.StateDead), "", false},
		{"it is gone", errNoExitEvent, gone, "", false},
		{"it has never run", errNoExitEvent, ended(container.StateCreated), "", false},
		{"it runs", errNoExitEvent, nil, "did not receive an exit event", true},
		{"it runs, says a fake", assert.AnError, nil, "assert.AnError", true},
		{"it cannot be looked at", errNoExitEvent, func(sim *simEngine) {
			sim.fails(func(call string) error {
				if strings.HasPrefix(call, "ContainerInspect") {
					return errFinal
				}
				return errNoExitEvent
			})
		}, "did not receive an exit event", true},
		{"the engine goes away", errNoExitEvent, func(sim *simEngine) {
			sim.fails(func(call string) error {
				if strings.HasPrefix(call, "ContainerInspect") {
					return errAway
				}
				return errNoExitEvent
			})
		}, "did not receive an exit event", true},
		{"refused", errRefused, nil, "authorization denied by plugin guard", false},
	} {
		for _, way := range []struct {
			name, call string
			stop       func(*controller, context.Context) error
		}{{"Shutdown", "ContainerStop", (*controller).Shutdown}, {"Terminate", "ContainerKill", (*controller).Terminate}} {
			t.Run(way.name+" "+test.name, func(t *testing.T) {
				t.Parallel()
				bubble(t, func(t *testing.T) {
					sim := newSimEngine(t)
					ctlr, _ := runningTask(t, sim, plainTask())
					sim.fails(failing(way.call, test.err))
					if test.happens != nil {
						test.happens(sim)
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

// A task with a name of its own is looked at before it is stopped.
func TestTheStopOfANamedTaskThatCannotBeLookedAt(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		err       error
		temporary bool
	}{"a fault": {errFinal, true}, "a refusal": {errRefused, false}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T) {
				sim := newSimEngine(t)
				task := plainTask()
				task.Annotations.Name = "web"
				ctlr, _ := runningTask(t, sim, task)
				sim.fails(failing("ContainerInspect", test.err))
				err := ctlr.Shutdown(t.Context())
				require.ErrorIs(t, err, test.err)
				assert.Equal(t, test.temporary, exec.IsTemporary(err))
			})
		})
	}
}

// The adapter's own errors keep their kinds.
func TestAnAdaptersStopThatFailsIsFinal(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		sim := newSimEngine(t)
		ctlr, _ := runningTask(t, sim, plainTask())
		sim.fails(func(string) error { return errFinal })
		assert.False(t, exec.IsTemporary(ctlr.adapter.Shutdown(t.Context())))
		assert.False(t, exec.IsTemporary(ctlr.adapter.Terminate(t.Context())))
	})
}

// An unhealthy container is stopped, however long that takes.
func TestTheStopOfAnUnhealthyContainerIsTriedAgain(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		sim := newSimEngine(t)
		ctlr, _ := runningTask(t, sim, plainTask())
		wait := asynchronously(func() error { return ctlr.Wait(t.Context()) })
		sim.fails(func(call string) error {
			if strings.HasPrefix(call, "ContainerStop") || strings.HasPrefix(call, "ContainerKill") {
				return errNoExitEvent
			}
			return nil
		})
		sim.health(taskName, container.Unhealthy)
		time.Sleep(time.Minute)
		assert.Equal(t, 1, strings.Count(strings.Join(sim.called(), "\n"), "ContainerStop"))
		tries := strings.Count(strings.Join(sim.called(), "\n"), "ContainerKill")
		assert.Greater(t, tries, 5)
		assert.Less(t, tries, 60)
		sim.forgetCalls()
		time.Sleep(time.Hour)
		assert.Zero(t, strings.Count(strings.Join(sim.called(), "\n"), "ContainerStop"))
		tries = strings.Count(strings.Join(sim.called(), "\n"), "ContainerKill")
		assert.Greater(t, tries, 80)
		assert.Less(t, tries, 180)
		sim.with(taskName, func(c *simContainer) { assert.True(t, c.state.Running) })
		sim.fails(nil)
		require.ErrorIs(t, wait(), ErrContainerUnhealthy)
		sim.with(taskName, func(c *simContainer) { assert.Equal(t, container.StateExited, c.state.Status) })
	})
}

// An engine may fail to see the end that its stop has brought about.
func TestAnUnhealthyContainerThatHasEndedIsNotStoppedAgain(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		sim := newSimEngine(t)
		ctlr, _ := runningTask(t, sim, plainTask())
		wait := asynchronously(func() error { return ctlr.Wait(t.Context()) })
		var tries []string
		sim.fails(func(call string) error {
			if !strings.HasPrefix(call, "ContainerStop") && !strings.HasPrefix(call, "ContainerKill") {
				return nil
			}
			if tries = append(tries, call); len(tries) == 3 {
				sim.exit(taskName, 137)
			}
			return errNoExitEvent
		})
		sim.health(taskName, container.Unhealthy)
		require.ErrorIs(t, wait(), ErrContainerUnhealthy)
		assert.Equal(t, []string{"ContainerStop web.1.taskid", "ContainerKill web.1.taskid", "ContainerKill web.1.taskid"}, tries)
	})
}

// The agent calls Remove while Prepare runs, and then forgets the task.
// The points are before, within and after each call, on both of its ways.
func TestRemoveWithinPrepareLeavesNothing(t *testing.T) {
	t.Parallel()
	for point := range 22 {
		t.Run(fmt.Sprint("point ", point), func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T) {
				sim := newSimEngine(t)
				sim.latency, sim.slow = time.Second, 5*time.Second // 30 s in all
				ctlr := newSimController(t, sim, networkedTask())
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				prepare := asynchronously(func() error { return ctlr.Prepare(ctx) })
				time.Sleep(time.Duration(point) * 1500 * time.Millisecond)
				if point%2 == 1 { // the agent ends the operation as well, at about the same time
					time.AfterFunc(time.Millisecond, cancel)
				}
				require.NoError(t, ctlr.Remove(t.Context()))
				switch err := prepare(); point {
				case 0: // at the very beginning: either way
					assert.Contains(t, []error{exec.ErrControllerClosed, context.Canceled}, err)
				case 20: // at the very end: either way
				case 21:
					require.NoError(t, err)
				default:
					assert.Equal(t, context.Canceled, err)
				}
				assert.Empty(t, sim.left())
				sim.forgetCalls()

				assert.Equal(t, exec.ErrControllerClosed, ctlr.Prepare(t.Context()))
				assert.Equal(t, exec.ErrControllerClosed, ctlr.Start(t.Context()))
				assert.Equal(t, exec.ErrControllerClosed, ctlr.Wait(t.Context()))
				require.NoError(t, ctlr.Close())
				time.Sleep(time.Hour)
				assert.Empty(t, sim.left())
				assert.Empty(t, sim.called())
			})
		})
	}
}

// The same, with a Remove that cannot wait for the call in flight: then that
// call's owner removes what it has made.
func TestRemoveThatEndsWithinAStepLeavesNothing(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name string
		call string
	}{{"in the first network", "NetworkCreate backend"}, {"in the second network", "NetworkCreate frontend"}, {"in the create", "ContainerCreate web.1.taskid"}, {"in the start", "ContainerStart web.1.taskid"}} {
		for _, away := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, engine away after it: %t", test.name, away), func(t *testing.T) {
				t.Parallel()
				bubble(t, func(t *testing.T) {
					sim := newSimEngine(t)
					ctlr := newSimController(t, sim, networkedTask())
					reached := make(chan struct{})
					sim.fails(func(call string) error {
						if call == test.call {
							close(reached)
							time.Sleep(time.Minute)
							if away {
								sim.fails(func(string) error { return errAway })
								time.AfterFunc(time.Minute, func() { sim.fails(nil) })
							}
						}
						return nil
					})
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
					assert.Empty(t, sim.left())
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
		sim := newSimEngine(t)
		ctlr, task := runningTask(t, sim, plainTask())
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
		sim := newSimEngine(t)
		task := networkedTask()
		spec(task).Healthcheck = &api.HealthConfig{Test: []string{"CMD", "check"}}
		ctlr := newSimController(t, sim, task)
		require.NoError(t, ctlr.Prepare(t.Context()))
		start := asynchronously(func() error { return ctlr.Start(t.Context()) })
		wait := asynchronously(func() error { return ctlr.Wait(t.Context()) })
		time.Sleep(time.Minute)
		require.NoError(t, ctlr.Remove(t.Context()))
		assert.Equal(t, context.Canceled, start())
		assert.Equal(t, context.Canceled, wait())
		assert.Empty(t, sim.left())
	})
}

// Networks go after the container, and whatever becomes of the stop.
func TestRemoveInOrder(t *testing.T) {
	t.Parallel()
	for name, stop := range map[string]error{"stopped": nil, "not stopped": errFinal} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T) {
				sim := newSimEngine(t)
				ctlr, _ := runningTask(t, sim, networkedTask())
				sim.forgetCalls()
				sim.fails(func(call string) error {
					if strings.HasPrefix(call, "ContainerStop") {
						return stop
					}
					return nil
				})
				require.NoError(t, ctlr.Remove(t.Context()))
				assert.Equal(t, []string{
					"ContainerStop web.1.taskid", "ContainerRemove web.1.taskid", "NetworkRemove network-00000001", "NetworkRemove network-00000002",
				}, sim.called())
				assert.Empty(t, sim.left())
			})
		})
	}
}

// A start that has been answered is over: a Remove that comes at once stops the
// container before it removes it. Other methods, which want the same lock, make
// the two meet. They take all the processor they get, so no test runs beside this one.
func TestRemoveStopsWhatHasJustStarted(t *testing.T) {
	for range 100 {
		sim := newSimEngine(t)
		ctlr := newSimController(t, sim, plainTask())
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
		sim.forgetCalls()
		require.NoError(t, ctlr.Start(t.Context()))
		require.NoError(t, ctlr.Remove(t.Context()))
		cancel()
		others.Wait()
		require.Equal(t, []string{
			"ContainerInspect web.1.taskid", "ContainerStart web.1.taskid", "ContainerStop web.1.taskid", "ContainerRemove web.1.taskid",
		}, sim.called())
	}
}

// The agent calls Remove once and then forgets the task.
func TestRemoveOutlastsAnEngineThatIsAway(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		sim := newSimEngine(t)
		ctlr, _ := runningTask(t, sim, networkedTask())
		sim.forgetCalls()
		sim.fails(func(string) error { return errAway })
		before := time.Now()
		time.AfterFunc(time.Minute, func() { sim.fails(nil) })
		require.NoError(t, ctlr.Remove(t.Context()))
		assert.Less(t, time.Since(before), time.Minute+6*time.Second)
		assert.Less(t, len(sim.called()), 60) // no hot loop
		assert.Empty(t, sim.left())
	})
	bubble(t, func(t *testing.T) {
		sim := newSimEngine(t)
		ctlr, _ := runningTask(t, sim, networkedTask())
		sim.fails(func(string) error { return errAway })
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		assert.Equal(t, context.DeadlineExceeded, ctlr.Remove(ctx))
		sim.fails(nil)
		require.NoError(t, ctlr.Remove(t.Context())) // what is left is done when it is called again
		assert.Empty(t, sim.left())
	})
}

// A fault between two of Remove's calls loses none of the later ones.
func TestRemoveGoesOnAfterAFault(t *testing.T) {
	t.Parallel()
	for _, faulty := range []string{"ContainerStop", "ContainerRemove", "NetworkRemove"} {
		t.Run(faulty, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T) {
				sim := newSimEngine(t)
				ctlr, _ := runningTask(t, sim, networkedTask())
				var once sync.Once
				sim.fails(func(call string) (err error) {
					if strings.HasPrefix(call, faulty) {
						once.Do(func() { err = errAway })
					}
					return err
				})
				require.NoError(t, ctlr.Remove(t.Context()))
				assert.Empty(t, sim.left())
			})
		})
	}
	t.Run("final", func(t *testing.T) {
		t.Parallel()
		bubble(t, func(t *testing.T) {
			sim := newSimEngine(t)
			ctlr, _ := runningTask(t, sim, networkedTask())
			require.NoError(t, ctlr.Shutdown(t.Context()))
			sim.fails(func(call string) error {
				if strings.HasPrefix(call, "ContainerRemove") {
					return errRefused
				}
				return nil
			})
			require.EqualError(t, ctlr.Remove(t.Context()), "remove container web.1.taskid: Error response from daemon: authorization denied by plugin guard: no")
			assert.Equal(t, []string{"container web.1.taskid"}, sim.left())
		})
	})
}

func TestRemoveBesideAnotherRemoval(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		sim := newSimEngine(t)
		ctlr, _ := runningTask(t, sim, networkedTask())
		sim.fails(func(call string) error {
			if !strings.HasPrefix(call, "ContainerRemove") {
				return nil
			}
			time.AfterFunc(time.Minute, func() {
				sim.mu.Lock()
				defer sim.mu.Unlock()
				delete(sim.containers, taskName)
			})
			return conflict("removal of container web.1.taskid is already in progress")
		})
		require.NoError(t, ctlr.Remove(t.Context()))
		assert.Empty(t, sim.left())
	})
}

func TestRemoveOfATaskThatWasNeverPrepared(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		sim := newSimEngine(t)
		sim.networks["backend"] = network.Inspect{ID: "theirs", Name: "backend"}
		ctlr := newSimController(t, sim, networkedTask())
		require.NoError(t, ctlr.Remove(t.Context()))
		assert.Equal(t, []string{"network backend"}, sim.left())
		assert.Equal(t, []string{"ContainerInspect web.1.taskid", "NetworkInspect backend", "NetworkInspect frontend"}, sim.called())
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
		{"a user's container", "web", nil, "container web (user) belongs to no task"},
		{"another task's container", "web", map[string]string{LabelTaskID: "other"}, "container web (user) belongs to task other"},
		{"another task's under the task's own name", "", map[string]string{LabelTaskID: "other"}, "container web.1.taskid (user) belongs to task other"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T) {
				ctx := t.Context()
				sim := newSimEngine(t)
				task := plainTask()
				task.Annotations.Name = test.named
				name := taskName
				if test.named != "" {
					name = test.named
				}
				sim.containers[name] = &simContainer{id: "user", name: name, config: container.Config{Labels: test.labels},
					state: container.State{Status: container.StateCreated}}

				require.NoError(t, newSimController(t, sim, task).Remove(ctx))
				fresh := newSimController(t, sim, taskAt(task, api.TaskStateStarting))
				require.EqualError(t, fresh.Start(ctx), test.want)
				require.EqualError(t, fresh.Wait(ctx), test.want)
				for _, ctlr := range []*controller{fresh, newSimController(t, sim, taskAt(task, api.TaskStateAccepted))} {
					require.ErrorContains(t, ctlr.Prepare(ctx), "has its name")
					status, err := ctlr.ContainerStatus(ctx)
					require.NoError(t, err)
					assert.Nil(t, status)
					if test.named != "" {
						sim.with(name, func(c *simContainer) { c.state = container.State{Status: container.StateRunning, Running: true} })
						require.NoError(t, ctlr.Shutdown(ctx))
						require.NoError(t, ctlr.Terminate(ctx))
						sim.with(name, func(c *simContainer) { assert.True(t, c.state.Running) })
					}
					require.NoError(t, ctlr.Remove(ctx))
					assert.Equal(t, []string{"container " + name}, sim.left())
				}
				for _, call := range sim.called() {
					assert.NotContains(t, call, "ContainerRemove")
					assert.NotContains(t, call, "ContainerStart")
				}
			})
		})
	}
}

// A container that took the name of one that was this task's is not touched
// either.
func TestANamedTaskDoesNotRemoveItsSuccessor(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		sim := newSimEngine(t)
		task := plainTask()
		task.Annotations.Name = "web"
		ctlr, _ := runningTask(t, sim, task)
		sim.with("web", func(c *simContainer) { c.id, c.config.Labels = "user", nil })
		require.NoError(t, ctlr.Shutdown(t.Context()))
		require.NoError(t, ctlr.Remove(t.Context()))
		assert.Equal(t, []string{"container web"}, sim.left())
		sim.with("web", func(c *simContainer) { assert.True(t, c.state.Running) })
	})
}

// All at once, under the race detector, as the agent and its shutdown may
// have it. Nothing is left, and no method hangs.
func TestAllMethodsAtOnce(t *testing.T) {
	t.Parallel()
	for round := range 30 {
		bubble(t, func(t *testing.T) {
			sim := newSimEngine(t)
			sim.latency = time.Duration(round%7) * 100 * time.Microsecond
			ctlr := newSimController(t, sim, networkedTask())
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
			assert.Empty(t, sim.left())
		})
	}
}

// Each call of a Remove that the engine fails to carry out is made again until
// it does: nobody else would.
func TestRemoveOutlastsWhatTheEngineFailsToDo(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		fault       simError
		longest     time.Duration // the pause between two tries
		least, most int           // tries in an hour
	}{
		{simError{`cannot remove container "web": unable to remove filesystem: device or resource busy`, cerrdefs.ErrInternal}, time.Minute, 80, 180},
		{simError{"something is in the way", cerrdefs.ErrConflict}, time.Minute, 80, 180},
		{simError{"overloaded", cerrdefs.ErrUnavailable}, 5 * time.Second, 700, 3000},
	} {
		fault := test.fault
		for _, faulty := range []string{"ContainerInspect", "ContainerRemove", "NetworkInspect", "NetworkRemove"} {
			t.Run(faulty+" "+fault.class.Error(), func(t *testing.T) {
				t.Parallel()
				bubble(t, func(t *testing.T) {
					sim := newSimEngine(t)
					_, task := runningTask(t, sim, networkedTask())
					anew := newSimController(t, sim, task)
					sim.fails(failing(faulty, fault))
					sim.forgetCalls()
					time.AfterFunc(time.Hour, func() { sim.fails(nil) })
					began := time.Now()
					ctx, lines := logged(t)
					require.NoError(t, anew.Remove(ctx))
					assert.Less(t, time.Since(began), time.Hour+test.longest+time.Second)
					assert.Greater(t, time.Since(began), time.Hour-time.Nanosecond)
					tries := strings.Count(strings.Join(sim.called(), "\n"), faulty)
					assert.Greater(t, tries, test.least)
					assert.Less(t, tries, test.most)
					// What was stopped is not stopped again.
					assert.LessOrEqual(t, strings.Count(strings.Join(sim.called(), "\n"), "ContainerStop"), 1)
					if faulty == "ContainerRemove" { // the networks wait for it
						assert.Equal(t, 2, strings.Count(strings.Join(sim.called(), "\n"), "NetworkInspect"))
					}
					assert.Empty(t, sim.left())
					assert.Equal(t, []string{"stop or removal failed, trying again"}, lines(logrus.WarnLevel))
				})
			})
		}
	}
}

func TestRemoveEndsAtOnce(t *testing.T) {
	t.Parallel()
	t.Run("with its context", func(t *testing.T) {
		t.Parallel()
		bubble(t, func(t *testing.T) {
			sim := newSimEngine(t)
			ctlr, _ := runningTask(t, sim, plainTask())
			sim.fails(failing("ContainerRemove", errFinal))
			ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
			defer cancel()
			began := time.Now()
			assert.Equal(t, context.DeadlineExceeded, ctlr.Remove(ctx))
			assert.Equal(t, time.Hour, time.Since(began))
		})
	})
	for name, test := range map[string]struct {
		err  error
		want string
	}{
		"400":                       {simError{"bad parameter", cerrdefs.ErrInvalidArgument}, "Error response from daemon: bad parameter"},
		"401":                       {simError{"who are you", cerrdefs.ErrUnauthenticated}, "Error response from daemon: who are you"},
		"403":                       {errRefused, "Error response from daemon: authorization denied by plugin guard: no"},
		"501":                       {simError{"not here", cerrdefs.ErrNotImplemented}, "Error response from daemon: not here"},
		"a fake's, without a class": {assert.AnError, "assert.AnError general error for testing"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T) {
				sim := newSimEngine(t)
				ctlr, _ := runningTask(t, sim, plainTask())
				sim.fails(failing("ContainerRemove", test.err))
				began := time.Now()
				require.EqualError(t, ctlr.Remove(t.Context()), "remove container web.1.taskid: "+test.want)
				assert.Zero(t, time.Since(began))
			})
		})
	}
}

// What is made after a Remove that could not wait is removed by the step that
// made it, also if that does not succeed at once.
func TestAnUndoOutlastsWhatTheEngineFailsToDo(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		sim := newSimEngine(t)
		ctlr := newSimController(t, sim, plainTask())
		sim.slow = time.Minute
		prepare := asynchronously(func() error { return ctlr.Prepare(t.Context()) })
		time.Sleep(time.Second)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		assert.Equal(t, context.DeadlineExceeded, ctlr.Remove(ctx))
		sim.fails(failing("ContainerRemove", errFinal))
		time.Sleep(90 * time.Second)
		assert.Equal(t, []string{"container web.1.taskid"}, sim.left())
		sim.fails(nil)
		assert.Error(t, prepare())
		time.Sleep(time.Minute)
		assert.Empty(t, sim.left())
	})
}
