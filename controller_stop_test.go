package dockerexec

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/network"
	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/moby/swarmkit/v2/api"
	"github.com/pkg/errors"
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

var passingFaults = []struct {
	name       string
	err        error
	connection bool // fails: nobody is there
	unsent     bool // the engine has certainly not done what it was asked for
}{
	{"engine away", errAway, true, true},
	{"answer cut off", io.ErrUnexpectedEOF, true, false},
	{"connection reset", syscall.ECONNRESET, true, false},
	{"503", simError{"engine is shutting down", cerrdefs.ErrUnavailable}, false, false},
	{"429", simError{"too many requests", cerrdefs.ErrResourceExhausted}, false, false},
	{"older engine", simError{"client version 1.51 is too new. Maximum supported API version is 1.41", cerrdefs.ErrInvalidArgument}, false, true},
	{"newer engine", simError{"client version 1.43 is too old. Minimum supported API version is 1.44, please upgrade your client to a newer version", cerrdefs.ErrInvalidArgument}, false, true},
	{"no answer in time", nil, false, false}, // the engine hangs
}

// faultTime is longer than any time-out.
const faultTime = 5 * time.Minute

// agentStep is what the agent has a controller do.
type agentStep struct {
	name    string
	state   api.TaskState    // in which the agent does it
	stop    bool             // the task is to be shut down
	checked bool             // the container has a health check, and is healthy unless the operation starts it
	begin   func(*simEngine) // what happens before; nil: nothing
	from    string           // the call from which on others fail; empty: the first
	calls   []string         // that it makes, and with whose passing faults it returns
	waits   []string         // that it makes, and whose passing faults it sits out
	finish  func(*simEngine) // what it waits for; nil: nothing
	after   api.TaskState    // when it succeeded
	err     string           // of the task then
	failed  api.TaskState    // when it failed for good
}

var operations = []agentStep{
	{name: "Prepare", state: api.TaskStatePreparing, calls: []string{"NetworkCreate", "VolumeCreate", "ImagePull", "ContainerCreate"},
		after: api.TaskStateReady, failed: api.TaskStateRejected},
	{name: "Start", state: api.TaskStateStarting, calls: []string{"ContainerInspect", "ContainerStart"},
		after: api.TaskStateRunning, failed: api.TaskStateFailed},
	{name: "Start until healthy", state: api.TaskStateStarting, checked: true,
		from: "ContainerStart", waits: []string{"Events", "ContainerInspect"},
		finish: func(sim *simEngine) { sim.health(taskName, container.Healthy) }, after: api.TaskStateRunning, failed: api.TaskStateFailed},
	{name: "Start until unhealthy", state: api.TaskStateStarting, checked: true,
		from: "ContainerStart", waits: []string{"Events", "ContainerInspect"},
		finish: func(sim *simEngine) { sim.health(taskName, container.Unhealthy) },
		after:  api.TaskStateFailed, err: "task: non-zero exit (143): dockerexec: unhealthy container", failed: api.TaskStateFailed},
	{name: "Wait", state: api.TaskStateRunning, waits: []string{"Events", "ContainerInspect"},
		finish: func(sim *simEngine) { sim.exit(taskName, 0) }, after: api.TaskStateCompleted, failed: api.TaskStateFailed},
	{name: "Wait until unhealthy", state: api.TaskStateRunning, checked: true, waits: []string{"Events", "ContainerInspect"},
		finish: func(sim *simEngine) { sim.health(taskName, container.Unhealthy) },
		after:  api.TaskStateFailed, err: "task: non-zero exit (143): dockerexec: unhealthy container", failed: api.TaskStateFailed},
	{name: "Wait, unhealthy", state: api.TaskStateRunning, checked: true,
		begin: func(sim *simEngine) { sim.health(taskName, container.Unhealthy) },
		from:  "ContainerStop", waits: []string{"ContainerStop", "Events", "ContainerInspect"},
		after: api.TaskStateFailed, err: "task: non-zero exit (143): dockerexec: unhealthy container", failed: api.TaskStateFailed},
	{name: "Shutdown", state: api.TaskStateRunning, stop: true, calls: []string{"ContainerStop"},
		after: api.TaskStateShutdown, failed: api.TaskStateFailed},
}

// reach takes a task to where the operation comes next.
func (o agentStep) reach(t *testing.T, sim *simEngine) (*controller, *api.Task) {
	t.Helper()
	if o.checked && o.state == api.TaskStateRunning {
		sim.started = func(c *simContainer) { c.state.Health.Status = container.Healthy }
	}
	ctlr, task := inState(t, sim, o.state, func(task *api.Task) {
		if o.checked {
			spec(task).Healthcheck = &api.HealthConfig{Test: []string{"CMD", "check"}}
		}
	})
	if o.stop {
		task.DesiredState = api.TaskStateShutdown
	}
	if o.begin != nil {
		o.begin(sim)
	}
	return ctlr, task
}

// fails has the engine fail a call of the operation. With a stop it fails kills too: a
// stop that may have been sent is followed by a kill.
func (o agentStep) fails(sim *simEngine, call string, fault func() error) {
	var begun atomic.Bool
	sim.fails(func(made string) error {
		if strings.HasPrefix(made, o.from) {
			begun.Store(true)
		}
		if !begun.Load() || !strings.HasPrefix(made, call) && (call != "ContainerStop" || !strings.HasPrefix(made, "ContainerKill")) {
			return nil
		}
		return fault()
	})
}

// mends has the engine well again, and what the operation waits for happen.
func (o agentStep) mends(sim *simEngine) {
	sim.fails(nil)
	if o.finish != nil {
		o.finish(sim)
	}
}

// An engine that is away, or answers wrongly for a time, fails no task.
// What waits does not even return.
func TestPassingFaultsAreTriedAgain(t *testing.T) {
	t.Parallel()
	for _, operation := range operations {
		for _, call := range slices.Concat(operation.calls, operation.waits) {
			for _, fault := range passingFaults {
				if call == "ImagePull" && (fault.err == nil || fault.name == "429") {
					continue // a pull may take as long as it likes; and this is the registry's
				}
				t.Run(operation.name+" "+call+" "+fault.name, func(t *testing.T) {
					t.Parallel()
					bubble(t, func(t *testing.T) {
						sim := newSimEngine(t)
						ctlr, task := operation.reach(t, sim)
						var failed atomic.Bool
						operation.fails(sim, call, func() error {
							failed.Store(true)
							if fault.err == nil {
								time.Sleep(2 * time.Minute) // longer than a request may take
								return context.DeadlineExceeded
							}
							return fault.err
						})
						before := time.Now()
						if slices.Contains(operation.waits, call) {
							time.AfterFunc(faultTime, func() { operation.mends(sim) })
						} else {
							status, err := exec.Do(t.Context(), task, ctlr)
							assert.Equal(t, exec.ErrTaskRetry, err)
							assert.Equal(t, operation.state, status.State, status.Err)
							assert.NotEmpty(t, status.Err)
							assert.Less(t, time.Since(before), 10*time.Minute)
							operation.mends(sim)
						}
						status, err := exec.Do(t.Context(), task, ctlr)
						require.NoError(t, err)
						assert.Equal(t, operation.after, status.State, status.Err)
						want := operation.err
						if call == "ContainerStop" && !fault.unsent {
							want = strings.Replace(want, "(143)", "(137)", 1)
						}
						assert.Equal(t, want, status.Err)
						assert.True(t, failed.Load())
						switch {
						case call == "Events" && fault.err == nil: // after five seconds inspects tell as well
							assert.GreaterOrEqual(t, time.Since(before), 5*time.Second)
						case call == "Events" && !fault.connection: // the same after a minute
							assert.GreaterOrEqual(t, time.Since(before), time.Minute)
						case slices.Contains(operation.waits, call):
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
		for _, call := range slices.Concat(operation.calls, operation.waits) {
			for _, ended := range []error{context.Canceled, context.DeadlineExceeded} {
				if operation.name == "Wait, unhealthy" && call == "Events" && ended == context.DeadlineExceeded {
					continue // inspects tell before the deadline
				}
				t.Run(operation.name+" "+call+" "+ended.Error(), func(t *testing.T) {
					t.Parallel()
					bubble(t, func(t *testing.T) {
						sim := newSimEngine(t)
						ctlr, task := operation.reach(t, sim)
						ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
						defer cancel()
						operation.fails(sim, call, func() error {
							if ended == context.Canceled {
								cancel()
							}
							time.Sleep(2 * time.Minute)
							return nil
						})
						status, err := exec.Do(ctx, task, ctlr)
						assert.Equal(t, exec.ErrTaskRetry, err)
						assert.Equal(t, ended, ctx.Err())
						assert.Equal(t, operation.state, status.State, status.Err)
						assert.Empty(t, status.Err)
						operation.mends(sim)
						drive(t.Context(), t, task, ctlr, operation.after)
						assert.Equal(t, operation.after, task.Status.State, task.Status.Err)
						assert.Equal(t, operation.err, task.Status.Err)
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
		for _, call := range slices.Concat(operation.calls, operation.waits) {
			if call == "ContainerInspect" {
				continue // only a refusal is final, see TestARefusalToInspectIsFinal
			}
			t.Run(operation.name+" "+call, func(t *testing.T) {
				t.Parallel()
				bubble(t, func(t *testing.T) {
					sim := newSimEngine(t)
					if call == "ImagePull" {
						delete(sim.images, "example/web:1")
					}
					ctlr, task := operation.reach(t, sim)
					final := errFinal
					if operation.name == "Shutdown" || call == "ContainerStop" {
						final = errRefused // anything else is tried again
					}
					operation.fails(sim, call, func() error { return final })
					if call == "Events" {
						time.AfterFunc(faultTime, func() { operation.mends(sim) })
					}
					status, err := exec.Do(t.Context(), task, ctlr)
					require.NoError(t, err)
					if call == "Events" {
						assert.Equal(t, operation.after, status.State)
						assert.Equal(t, operation.err, status.Err)
						return
					}
					assert.Equal(t, operation.failed, status.State)
					assert.Contains(t, status.Err, final.text)
				})
			})
		}
	}
}

// An answer without a state is an error, not a panic.
func TestAnswersWithoutAState(t *testing.T) {
	t.Parallel()
	client := newFakeClient(t)
	client.containerInspect = func(context.Context, string) (container.InspectResponse, error) {
		return container.InspectResponse{}, nil
	}
	made, err := NewExecutor(client, nil).Controller(plainTask())
	require.NoError(t, err)
	require.EqualError(t, made.Start(t.Context()), "inspect container web.1.taskid: the engine's answer has no state")
	_, err = made.(*controller).ContainerStatus(t.Context())
	require.EqualError(t, err, "inspect container web.1.taskid: the engine's answer has no state")
}

// stateless answers an inspect of the one container without a state.
type stateless struct{ *simEngine }

func (s stateless) ContainerInspect(ctx context.Context, name string) (container.InspectResponse, error) {
	answer, err := s.simEngine.ContainerInspect(ctx, name)
	answer.ContainerJSONBase = nil
	return answer, err
}

// oddAnswers are what an engine may answer to an inspect that says nothing about
// the container.
var oddAnswers = map[string]error{
	"500":       simError{"RWLayer of container abc is unexpectedly nil", cerrdefs.ErrInternal},
	"409":       conflict("container is marked for removal"),
	"no class":  errors.New("something odd"),
	"not JSON":  errors.New("invalid character '<' looking for beginning of value"),
	"unknown":   simError{"what now", cerrdefs.ErrUnknown},
	"data lost": simError{"layer does not exist", cerrdefs.ErrDataLoss},
}

// refusals do not mend by asking again.
var refusals = map[string]error{
	"400": simError{"invalid name", cerrdefs.ErrInvalidArgument},
	"401": simError{"who are you", cerrdefs.ErrUnauthenticated},
	"403": simError{"authorization denied by plugin", cerrdefs.ErrPermissionDenied},
	"501": simError{"not supported", cerrdefs.ErrNotImplemented},
}

func failInspect(err error) func(string) error {
	return func(call string) error {
		if strings.HasPrefix(call, "ContainerInspect") {
			return err
		}
		return nil
	}
}

// An answer that says nothing about the container does not end its task: it is
// asked again, and said once.
func TestWaitOutlastsOddAnswers(t *testing.T) {
	t.Parallel()
	for name, odd := range oddAnswers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T) {
				sim := newSimEngine(t)
				ctlr, _ := runningTask(t, sim, plainTask())
				sim.forgetCalls()
				sim.fails(failInspect(odd))
				ctx, lines := logged(t)
				wait := asynchronously(func() error { return ctlr.Wait(ctx) })
				time.Sleep(10 * time.Minute)
				assert.Greater(t, len(sim.called()), 100)
				assert.Less(t, len(sim.called()), 480)
				assert.Equal(t, []string{"container not inspected; it will be looked at again"}, lines(logrus.WarnLevel))

				sim.fails(nil)
				time.Sleep(10 * time.Second)
				require.Len(t, lines(logrus.InfoLevel), 2)
				assert.Regexp(t, `^container inspected again after (9m59\.\d+|10m\d(\.\d+)?)s$`, lines(logrus.InfoLevel)[1])

				sim.fails(failInspect(odd)) // another outage, which is worth its own line
				time.Sleep(10 * time.Minute)
				assert.Len(t, lines(logrus.WarnLevel), 2)
				sim.fails(nil)
				sim.exit(taskName, 6)
				assert.EqualError(t, wait(), "task: non-zero exit (6)")
			})
		})
	}
}

// silent answers no inspect while it is mute.
type silent struct {
	*simEngine
	mute  atomic.Bool
	first atomic.Pointer[time.Time] // when it first did not
}

func (s *silent) ContainerInspect(ctx context.Context, name string) (container.InspectResponse, error) {
	if s.mute.Load() {
		now := time.Now()
		s.first.CompareAndSwap(nil, &now)
		<-ctx.Done()
		return container.InspectResponse{}, ctx.Err()
	}
	return s.simEngine.ContainerInspect(ctx, name)
}

// The stream says nothing of an engine that hangs on one container. Once that answers
// again, the end is reported.
func TestWaitSaysOnceThatTheEngineHangsOnTheContainer(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		sim := newSimEngine(t)
		runningTask(t, sim, plainTask())
		engine := &silent{simEngine: sim}
		ctlr, err := NewExecutor(engine, nil).Controller(taskAt(plainTask(), api.TaskStateRunning))
		require.NoError(t, err)
		ctx, lines := logged(t)
		wait := asynchronously(func() error { return ctlr.Wait(ctx) })
		time.Sleep(time.Minute)
		engine.mute.Store(true)
		time.Sleep(20 * time.Minute)
		assert.Equal(t, []string{"container not inspected; it will be looked at again"}, lines(logrus.WarnLevel))

		engine.mute.Store(false)
		hung := time.Since(*engine.first.Load())
		time.Sleep(5 * time.Minute)
		require.Len(t, lines(logrus.InfoLevel), 2)
		text, found := strings.CutPrefix(lines(logrus.InfoLevel)[1], "container inspected again after ")
		require.True(t, found)
		said, err := time.ParseDuration(text)
		require.NoError(t, err)
		assert.GreaterOrEqual(t, said, hung.Round(time.Millisecond))

		engine.mute.Store(true)
		time.Sleep(20 * time.Minute)
		assert.Len(t, lines(logrus.WarnLevel), 2)
		engine.mute.Store(false)
		sim.exit(taskName, 6)
		assert.EqualError(t, wait(), "task: non-zero exit (6)")
	})
}

func TestWaitOutlastsAnAnswerWithoutAState(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		sim := newSimEngine(t)
		runningTask(t, sim, plainTask())
		made, err := NewExecutor(stateless{sim}, nil).Controller(taskAt(plainTask(), api.TaskStateRunning))
		require.NoError(t, err)
		ctx, lines := logged(t)
		ctx, cancel := context.WithTimeout(ctx, time.Hour)
		defer cancel()
		assert.Equal(t, context.DeadlineExceeded, made.Wait(ctx))
		assert.Len(t, lines(logrus.WarnLevel), 1)
	})
}

// A container that is gone after such answers is gone.
func TestAnOddAnswerIsNotTheLastWord(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		sim := newSimEngine(t)
		ctlr, _ := runningTask(t, sim, plainTask())
		sim.fails(failInspect(oddAnswers["500"]))
		wait := asynchronously(func() error { return ctlr.Wait(t.Context()) })
		time.Sleep(time.Minute)
		require.NoError(t, sim.ContainerRemove(t.Context(), taskName, container.RemoveOptions{Force: true}))
		sim.fails(nil)
		assert.Equal(t, ErrContainerDestroyed, wait())
	})
}

func TestARefusalToInspectIsFinal(t *testing.T) {
	t.Parallel()
	for name, refusal := range refusals {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T) {
				sim := newSimEngine(t)
				ctlr, _ := runningTask(t, sim, plainTask())
				sim.fails(failInspect(refusal))
				before := time.Now()
				want := "inspect container web.1.taskid: " + refusal.Error()
				err := ctlr.Wait(t.Context())
				require.EqualError(t, err, want)
				assert.False(t, exec.IsTemporary(err))
				err = ctlr.Start(t.Context())
				require.EqualError(t, err, want)
				assert.False(t, exec.IsTemporary(err))
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
				sim, ctlr, task := starting(t)
				sim.fails(failInspect(odd))
				err := ctlr.Start(t.Context())
				assert.True(t, exec.IsTemporary(err), err)
				assert.EqualError(t, err, "inspect container web.1.taskid: "+odd.Error())
				sim.fails(nil)

				time.AfterFunc(time.Minute, func() { sim.fails(failInspect(odd)) })
				time.AfterFunc(time.Hour, func() { sim.fails(nil); sim.health(taskName, container.Healthy) })
				before := time.Now()
				drive(t.Context(), t, task, ctlr, api.TaskStateRunning)
				assert.Equal(t, api.TaskStateRunning, task.Status.State, task.Status.Err)
				assert.GreaterOrEqual(t, time.Since(before), time.Hour)
			})
		})
	}
	bubble(t, func(t *testing.T) { // what is not there is no odd answer
		ctlr := newSimController(t, newSimEngine(t), plainTask())
		err := ctlr.Start(t.Context())
		require.ErrorContains(t, err, "No such container: web.1.taskid")
		assert.False(t, exec.IsTemporary(err))
	})
}

// What is put before an engine's words names the container, and must not make
// another object's absence that of the container.
func TestALostLayerIsNoLostContainer(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		sim := newSimEngine(t)
		_, task := runningTask(t, sim, plainTask())
		sim.fails(failInspect(oddAnswers["data lost"]))
		fresh := newSimController(t, sim, task)
		_, err := fresh.adapter.Inspect(t.Context())
		require.ErrorContains(t, err, "layer does not exist")
		assert.False(t, isContainerGone(err))
		_, err = fresh.ContainerStatus(t.Context())
		require.ErrorContains(t, err, "layer does not exist")
		sim.fails(nil)
		require.NoError(t, sim.ContainerRemove(t.Context(), taskName, container.RemoveOptions{Force: true}))
		_, err = fresh.adapter.Inspect(t.Context())
		assert.True(t, isContainerGone(err), err)
	})
}

// The adapter's own Wait leaves it to its caller what to make of such an answer.
func TestTheAdaptersWaitReportsOddAnswers(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		sim := newSimEngine(t)
		ctlr, _ := runningTask(t, sim, plainTask())
		sim.fails(failInspect(oddAnswers["500"]))
		_, err := ctlr.adapter.Wait(t.Context())
		require.EqualError(t, err, "inspect container web.1.taskid: Error response from daemon: RWLayer of container abc is unexpectedly nil")
		assert.False(t, exec.IsTemporary(err))
	})
}

// Wait and Start, also while it waits for health, have nothing to do with a
// container of somebody else.
func TestAStrangersContainerIsNotWaitedFor(t *testing.T) {
	t.Parallel()
	belongs := func(sim *simEngine, task string) {
		sim.with(taskName, func(c *simContainer) {
			c.config.Labels = map[string]string{LabelTaskID: task}
			sim.emit(c, "rename")
		})
	}
	const want = "container web.1.taskid (container-00) belongs to task other"
	bubble(t, func(t *testing.T) {
		sim := newSimEngine(t)
		ctlr, _ := runningTask(t, sim, plainTask())
		belongs(sim, "other")
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		assert.EqualError(t, ctlr.Wait(ctx), want)
		assert.EqualError(t, ctlr.Start(ctx), want)
	})
	bubble(t, func(t *testing.T) {
		sim, ctlr, _ := starting(t)
		time.AfterFunc(time.Minute, func() { belongs(sim, "other") })
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		assert.EqualError(t, ctlr.Start(ctx), want)
	})
}
