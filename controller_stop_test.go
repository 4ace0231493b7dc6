package dockerexec

import (
	"context"
	"strings"
	"testing"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/moby/swarmkit/v2/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// failing fails all calls of one method.
func failing(method string, err error) func(string) error {
	return func(call string) error {
		if strings.HasPrefix(call, method+" ") {
			return err
		}
		return nil
	}
}

var (
	errNoExitEvent = simError{"cannot stop container: web.1.taskid: tried to kill container, but did not receive an exit event", cerrdefs.ErrInternal}
	errRefused     = simError{"authorization denied by plugin guard: no", cerrdefs.ErrPermissionDenied}
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
		sim.fails(failing("ContainerStop", errNoExitEvent))
		sim.health(taskName, container.Unhealthy)
		time.Sleep(time.Minute)
		sim.forgetCalls()
		time.Sleep(time.Minute)
		tries := strings.Count(strings.Join(sim.called(), "\n"), "ContainerStop")
		assert.Greater(t, tries, 5)
		assert.Less(t, tries, 60)
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
		stops := 0
		sim.fails(func(call string) error {
			if !strings.HasPrefix(call, "ContainerStop") {
				return nil
			}
			if stops++; stops == 3 {
				sim.exit(taskName, 137)
			}
			return errNoExitEvent
		})
		sim.health(taskName, container.Unhealthy)
		require.ErrorIs(t, wait(), ErrContainerUnhealthy)
		assert.Equal(t, 3, stops)
	})
}
