package dockerexec

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/events"
	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/moby/swarmkit/v2/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// starting is a container with a health check that has just been created.
func starting(t *testing.T) (*simEngine, *controller, *api.Task) {
	t.Helper()
	sim := newSimEngine(t)
	task := taskAt(plainTask(), api.TaskStateAccepted)
	spec(task).Healthcheck = &api.HealthConfig{Test: []string{"CMD", "check"}}
	ctlr := newSimController(t, sim, task)
	drive(t.Context(), t, task, ctlr, api.TaskStateStarting)
	return sim, ctlr, task
}

func TestStartWaitsForHealth(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		sim, ctlr, task := starting(t)
		before := time.Now()
		time.AfterFunc(time.Hour, func() { sim.health(taskName, container.Healthy) })
		drive(t.Context(), t, task, ctlr, api.TaskStateRunning)
		assert.Equal(t, api.TaskStateRunning, task.Status.State, task.Status.Err)
		assert.InDelta(t, time.Hour, time.Since(before), float64(time.Second))
	})
}

// What the stream lost is found by looking.
func TestStartFindsHealthThatNoEventTold(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		sim, ctlr, _ := starting(t)
		time.AfterFunc(time.Hour, func() {
			sim.with(taskName, func(c *simContainer) { c.state.Health = &container.Health{Status: container.Healthy} })
			sim.cutEvents()
		})
		require.NoError(t, ctlr.Start(t.Context()))
	})
	bubble(t, func(t *testing.T) { // healthy before anybody looks
		sim, ctlr, _ := starting(t)
		sim.started = func(c *simContainer) { c.state.Health = &container.Health{Status: container.Healthy} }
		require.NoError(t, ctlr.Start(t.Context()))
	})
}

func TestStartWithoutAHealthCheckWaitsForNothing(t *testing.T) {
	t.Parallel()
	for name, test := range map[string][]string{"none": nil, "turned off": {"NONE"}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T) {
				sim := newSimEngine(t)
				task := plainTask()
				if test != nil {
					spec(task).Healthcheck = &api.HealthConfig{Test: test}
				}
				ctlr := newSimController(t, sim, task)
				require.NoError(t, ctlr.Prepare(t.Context()))
				sim.forgetCalls()
				before := time.Now()
				require.NoError(t, ctlr.Start(t.Context()))
				assert.Equal(t, before, time.Now())
				assert.Equal(t, []string{"ContainerInspect web.1.taskid", "ContainerStart web.1.taskid"}, sim.called())
			})
		})
	}
}

// An unhealthy container is stopped, and the error has its code, its
// status and the cause.
func TestUnhealthyInStart(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		sim, ctlr, task := starting(t)
		time.AfterFunc(time.Hour, func() { sim.health(taskName, container.Unhealthy) })
		err := ctlr.Start(t.Context())
		require.EqualError(t, err, "task: non-zero exit (143): dockerexec: unhealthy container")
		assert.ErrorIs(t, err, ErrContainerUnhealthy)
		assert.Equal(t, 143, err.(exec.ExitCoder).ExitCode())
		sim.with(taskName, func(c *simContainer) { assert.Equal(t, container.StateExited, c.state.Status) })

		task.Status.State = api.TaskStateRunning // as if the agent had not heard
		require.EqualError(t, ctlr.Wait(t.Context()), "task: non-zero exit (143): dockerexec: unhealthy container")
	})
	bubble(t, func(t *testing.T) {
		sim, ctlr, task := starting(t)
		time.AfterFunc(time.Hour, func() { sim.health(taskName, container.Unhealthy) })
		drive(t.Context(), t, task, ctlr, api.TaskStateCompleted)
		assert.Equal(t, api.TaskStateFailed, task.Status.State)
		assert.Equal(t, "task: non-zero exit (143): dockerexec: unhealthy container", task.Status.Err)
		assert.Equal(t, &api.ContainerStatus{ContainerID: "container-00000001", ExitCode: 143}, task.Status.GetContainer())
	})
}

// An end before health is no success of Start, but with code 0 the work is
// done.
func TestExitWhileWaitingForHealth(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		code   int
		start  string
		states api.TaskState
		err    string
	}{
		{"with 0", 0, "exec: task already started", api.TaskStateCompleted, ""},
		{"with 3", 3, "task: non-zero exit (3)", api.TaskStateFailed, "task: non-zero exit (3)"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T) {
				sim, ctlr, _ := starting(t)
				time.AfterFunc(time.Hour, func() { sim.exit(taskName, test.code) })
				require.EqualError(t, ctlr.Start(t.Context()), test.start)
			})
			bubble(t, func(t *testing.T) {
				sim, ctlr, task := starting(t)
				time.AfterFunc(time.Hour, func() { sim.exit(taskName, test.code) })
				drive(t.Context(), t, task, ctlr, api.TaskStateCompleted)
				assert.Equal(t, test.states, task.Status.State)
				assert.Equal(t, test.err, task.Status.Err)
				assert.EqualValues(t, test.code, task.Status.GetContainer().ExitCode)
			})
		})
	}
}

func TestDestroyedWhileWaitingForHealth(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		sim, ctlr, _ := starting(t)
		time.AfterFunc(time.Hour, func() {
			assert.NoError(t, sim.ContainerRemove(t.Context(), taskName, container.RemoveOptions{Force: true}))
		})
		assert.Equal(t, ErrContainerDestroyed, ctlr.Start(t.Context()))
		assert.Equal(t, ErrContainerDestroyed, ctlr.Wait(t.Context()))
	})
}

func TestUnhealthyInWait(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name string
		code int // with which the container answers the stop
		want string
	}{
		{"killed", 143, "task: non-zero exit (143): dockerexec: unhealthy container"},
		{"stops with 0", 0, "task: non-zero exit (0): dockerexec: unhealthy container"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T) {
				sim := newSimEngine(t)
				ctlr, task := runningTask(t, sim, plainTask())
				time.AfterFunc(time.Hour, func() { sim.health(taskName, container.Unhealthy) })
				sim.lost = func(call string) error {
					if strings.HasPrefix(call, "ContainerStop") {
						sim.with(taskName, func(c *simContainer) { c.state.ExitCode = test.code })
					}
					return nil
				}
				drive(t.Context(), t, task, ctlr, api.TaskStateCompleted)
				assert.Equal(t, api.TaskStateFailed, task.Status.State)
				assert.Equal(t, test.want, task.Status.Err)
			})
		})
	}
}

// The stop of an unhealthy container outlasts an engine that is away, and a
// Wait that is called again goes on with it.
func TestUnhealthyIsNotForgotten(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		sim := newSimEngine(t)
		ctlr, _ := runningTask(t, sim, plainTask())
		sim.health(taskName, container.Unhealthy)
		sim.fails(func(call string) error {
			if strings.HasPrefix(call, "ContainerStop") {
				return errAway
			}
			return nil
		})
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		assert.Equal(t, context.DeadlineExceeded, ctlr.Wait(ctx))
		sim.health(taskName, container.Healthy)
		time.AfterFunc(time.Minute, func() { sim.fails(nil) })
		err := ctlr.Wait(t.Context())
		require.EqualError(t, err, "task: non-zero exit (143): dockerexec: unhealthy container")
		assert.True(t, errors.Is(err, ErrContainerUnhealthy))
	})
}

// An end that no event told is found when the stream is open again.
func TestWaitFindsAnEndThatNoEventTold(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		sim := newSimEngine(t)
		ctlr, _ := runningTask(t, sim, plainTask())
		time.AfterFunc(time.Hour, func() {
			sim.with(taskName, func(c *simContainer) { c.state = container.State{Status: container.StateExited, ExitCode: 11} })
			sim.fails(func(string) error { return errAway })
			sim.cutEvents()
			time.AfterFunc(time.Hour, func() { sim.fails(nil) })
		})
		before := time.Now()
		require.EqualError(t, ctlr.Wait(t.Context()), "task: non-zero exit (11)")
		assert.Less(t, time.Since(before), 2*time.Hour+10*time.Second)
	})
}

// An event is a hint; what the container is now decides.
func TestWaitGoesByWhatIsNow(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		sim := newSimEngine(t)
		ctlr, _ := runningTask(t, sim, plainTask())
		wait := asynchronously(func() error { return ctlr.Wait(t.Context()) })
		for _, past := range []events.Action{events.ActionDie, events.ActionHealthStatusUnhealthy, events.ActionStop, events.ActionDestroy} {
			time.Sleep(time.Minute)
			sim.with(taskName, func(c *simContainer) {
				c.state.Health = &container.Health{Status: container.Healthy}
				sim.emit(c, past)
			})
		}
		for _, state := range []string{container.StatePaused, container.StateRestarting, container.StateCreated} {
			time.Sleep(time.Minute)
			sim.with(taskName, func(c *simContainer) { c.state.Status = state; sim.emit(c, events.ActionPause) })
		}
		time.Sleep(time.Minute)
		for _, call := range sim.called() {
			assert.NotContains(t, call, "ContainerStop")
		}
		sim.with(taskName, func(c *simContainer) { c.state.Status = container.StateRemoving; sim.emit(c, events.ActionKill) })
		assert.Equal(t, ErrContainerDestroyed, wait())
	})
}

func TestWaitForAContainerThatIsGone(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		ctlr := newSimController(t, newSimEngine(t), plainTask())
		assert.Equal(t, ErrContainerDestroyed, ctlr.Wait(t.Context()))
		require.ErrorContains(t, ctlr.Start(t.Context()), "No such container: web.1.taskid")
	})
}

// A Start that was interrupted is not taken for a success, neither here nor by a
// new process.
func TestStartGoesOnWaitingForHealth(t *testing.T) {
	t.Parallel()
	for _, fresh := range []bool{false, true} {
		for _, test := range []struct {
			status container.HealthStatus
			want   string
		}{
			{container.Healthy, "exec: task already started"},
			{container.Unhealthy, "task: non-zero exit (143): dockerexec: unhealthy container"},
		} {
			bubble(t, func(t *testing.T) {
				sim, ctlr, task := starting(t)
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				assert.Equal(t, context.DeadlineExceeded, ctlr.Start(ctx))
				if fresh {
					ctlr = newSimController(t, sim, task)
				}
				before := time.Now()
				time.AfterFunc(time.Hour, func() { sim.health(taskName, test.status) })
				require.EqualError(t, ctlr.Start(t.Context()), test.want)
				assert.GreaterOrEqual(t, time.Since(before), time.Hour)
			})
		}
	}
}
