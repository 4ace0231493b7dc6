package dockerexec

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/events"
	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/moby/swarmkit/v2/api"
	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func newSimController(t testing.TB, sim *simEngine, task *api.Task, opts ...Option) *controller {
	t.Helper()
	made, err := NewExecutor(sim, nil, opts...).Controller(task)
	require.NoError(t, err)
	return made.(*controller)
}

// bubble is synctest.Test with time for steps to end after the test. It fails if
// any goroutine does not.
func bubble(t *testing.T, test func(*testing.T)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		t.Cleanup(func() { time.Sleep(24 * time.Hour) })
		test(t)
	})
}

// taskAt is a task that has come as far as state, and is wanted to run.
func taskAt(task *api.Task, state api.TaskState) *api.Task {
	task.Status.State, task.DesiredState = state, api.TaskStateRunning
	return task
}

// drive does with a task what SwarmKit's agent does, until it is in state or
// cannot go on.
func drive(ctx context.Context, t testing.TB, task *api.Task, ctlr exec.Controller, state api.TaskState) {
	t.Helper()
	for range 100 {
		if task.Status.State >= state {
			return
		}
		status, err := exec.Do(ctx, task, ctlr)
		require.NotNil(t, status)
		task.Status = *status
		switch err {
		case nil:
		case exec.ErrTaskRetry:
			time.Sleep(time.Second)
		case exec.ErrTaskNoop:
			return
		default:
			require.NoError(t, err)
		}
	}
	t.Errorf("the task stays in %v: %s", task.Status.State, task.Status.Err)
}

// runningTask takes a task to RUNNING.
func runningTask(t testing.TB, sim *simEngine, task *api.Task) (*controller, *api.Task) {
	t.Helper()
	taskAt(task, api.TaskStateAccepted)
	ctlr := newSimController(t, sim, task)
	drive(t.Context(), t, task, ctlr, api.TaskStateRunning)
	require.Equal(t, api.TaskStateRunning, task.Status.State, task.Status.Err)
	return ctlr, task
}

// asynchronously runs do and returns how to get its error.
func asynchronously(do func() error) func() error {
	done := make(chan error, 1)
	go func() { done <- do() }()
	return func() error { return <-done }
}

// One inspect a step serves both statuses.
func TestRequestsOfATaskUpToRunning(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		sim := newSimEngine(t)
		ctlr := newSimController(t, sim, plainTask())
		require.NoError(t, ctlr.Prepare(t.Context()))
		require.NoError(t, ctlr.Start(t.Context()))
		assert.Equal(t, []string{
			"ImagePull example/web:1", "ContainerCreate web.1.taskid", "ContainerInspect web.1.taskid", "ContainerStart web.1.taskid",
		}, sim.called())

		sim = newSimEngine(t)
		runningTask(t, sim, plainTask())
		assert.Equal(t, []string{
			"ImagePull example/web:1", "ContainerCreate web.1.taskid",
			"ContainerInspect web.1.taskid", // the status in STARTING
			"ContainerInspect web.1.taskid", "ContainerStart web.1.taskid",
			"ContainerInspect web.1.taskid", // the status in RUNNING
		}, sim.called())
	})
}

func TestATaskCompletes(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		sim := newSimEngine(t)
		task := plainTask()
		attach(task, "backend", "10.1.0.0/24")
		ctlr, task := runningTask(t, sim, task)
		assert.Equal(t, &api.ContainerStatus{ContainerID: "container-00000002", PID: 4711}, task.Status.GetContainer())

		time.AfterFunc(time.Hour, func() { sim.exit(taskName, 0) })
		drive(t.Context(), t, task, ctlr, api.TaskStateCompleted)
		assert.Equal(t, api.TaskStateCompleted, task.Status.State, task.Status.Err)
		assert.Equal(t, &api.ContainerStatus{ContainerID: "container-00000002"}, task.Status.GetContainer())

		require.NoError(t, ctlr.Remove(t.Context()))
		require.NoError(t, ctlr.Close())
		assert.Empty(t, sim.left())
	})
}

// The exit error has the status, so that the agent need not ask for a
// container that may be gone.
func TestATaskFailsWithItsExitCode(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		sim := newSimEngine(t)
		ctlr, task := runningTask(t, sim, plainTask())
		sim.exit(taskName, 3)
		sim.forgetCalls()
		drive(t.Context(), t, task, ctlr, api.TaskStateCompleted)
		assert.Equal(t, api.TaskStateFailed, task.Status.State)
		assert.Equal(t, "task: non-zero exit (3)", task.Status.Err)
		assert.Equal(t, &api.ContainerStatus{ContainerID: "container-00000001", ExitCode: 3}, task.Status.GetContainer())
		assert.Equal(t, &api.PortStatus{}, task.Status.PortStatus)
		assert.Equal(t, []string{"ContainerInspect web.1.taskid"}, sim.called())
	})
}

// A new controller finds what another process has left, whatever it did last.
func TestAFreshControllerTakesATaskUp(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name  string
		state api.TaskState
		done  int // how many of Prepare and Start were done
		want  []string
	}{
		// What is prepared is not made, nor pulled, again.
		{"killed in PREPARING after the create", api.TaskStatePreparing, 1, []string{
			"ContainerInspect web.1.taskid",
			"ContainerInspect web.1.taskid",
			"ContainerInspect web.1.taskid", "ContainerStart web.1.taskid",
			"ContainerInspect web.1.taskid",
		}},
		{"killed in PREPARING before the create", api.TaskStatePreparing, 0, []string{
			"ContainerInspect web.1.taskid", "NetworkCreate backend", "ImagePull example/web:1", "ContainerCreate web.1.taskid",
			"ContainerInspect web.1.taskid",
			"ContainerInspect web.1.taskid", "ContainerStart web.1.taskid",
			"ContainerInspect web.1.taskid",
		}},
		{"killed in STARTING before the start", api.TaskStateStarting, 1, []string{
			"ContainerInspect web.1.taskid", "ContainerStart web.1.taskid",
			"ContainerInspect web.1.taskid",
		}},
		{"killed in STARTING after the start", api.TaskStateStarting, 2, []string{
			"ContainerInspect web.1.taskid",
			"ContainerInspect web.1.taskid",
		}},
		{"killed in RUNNING", api.TaskStateRunning, 2, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T) {
				sim := newSimEngine(t)
				task := plainTask()
				attach(task, "backend", "10.1.0.0/24")
				before := newSimController(t, sim, task)
				if test.done > 0 {
					require.NoError(t, before.Prepare(t.Context()))
				}
				if test.done > 1 {
					require.NoError(t, before.Start(t.Context()))
				}
				sim.forgetCalls()

				taskAt(task, test.state)
				ctlr := newSimController(t, sim, task)
				drive(t.Context(), t, task, ctlr, api.TaskStateRunning)
				require.Equal(t, api.TaskStateRunning, task.Status.State, task.Status.Err)
				assert.Equal(t, test.want, sim.called())

				sim.exit(taskName, 3)
				drive(t.Context(), t, task, ctlr, api.TaskStateCompleted)
				assert.Equal(t, api.TaskStateFailed, task.Status.State)
				assert.EqualValues(t, 3, task.Status.GetContainer().ExitCode)
				require.NoError(t, ctlr.Remove(t.Context()))
				assert.Empty(t, sim.left())
			})
		})
	}
}

// Each method may be called again, in any order that the agent has.
func TestMethodsMayBeRepeated(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		ctx := t.Context()
		sim := newSimEngine(t)
		ctlr := newSimController(t, sim, plainTask())
		require.NoError(t, ctlr.Shutdown(ctx)) // before Prepare
		require.NoError(t, ctlr.Terminate(ctx))
		require.NoError(t, ctlr.Prepare(ctx))
		assert.Equal(t, exec.ErrTaskPrepared, ctlr.Prepare(ctx))
		require.NoError(t, ctlr.Shutdown(ctx)) // never started
		require.NoError(t, ctlr.Terminate(ctx))
		require.NoError(t, ctlr.Start(ctx))
		assert.Equal(t, exec.ErrTaskPrepared, ctlr.Prepare(ctx))
		assert.Equal(t, exec.ErrTaskStarted, ctlr.Start(ctx))
		sim.with(taskName, func(c *simContainer) { c.state.Status, c.state.Paused = container.StatePaused, true })
		assert.Equal(t, exec.ErrTaskStarted, ctlr.Start(ctx))
		require.NoError(t, ctlr.Shutdown(ctx)) // paused
		assert.Equal(t, exec.ErrTaskStarted, ctlr.Start(ctx))
		for range 2 {
			require.EqualError(t, ctlr.Wait(ctx), "task: non-zero exit (143)")
		}
		require.NoError(t, ctlr.Shutdown(ctx))
		require.NoError(t, ctlr.Terminate(ctx))
		require.NoError(t, ctlr.Remove(ctx))
		require.NoError(t, ctlr.Remove(ctx))
		require.NoError(t, ctlr.Shutdown(ctx))
		require.NoError(t, ctlr.Terminate(ctx))
		require.NoError(t, ctlr.Update(ctx, plainTask()))
		for range 2 {
			require.NoError(t, ctlr.Close())
		}
		assert.Empty(t, sim.left())
	})
}

func TestTerminateKills(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		ctlr, _ := runningTask(t, newSimEngine(t), plainTask())
		wait := asynchronously(func() error { return ctlr.Wait(t.Context()) })
		require.NoError(t, ctlr.Terminate(t.Context()))
		require.EqualError(t, wait(), "task: non-zero exit (137)")
	})
}

func TestUpdateSaysNothing(t *testing.T) {
	t.Parallel()
	ctx, lines := logged(t)
	ctlr := newSimController(t, newSimEngine(t), plainTask())
	require.NoError(t, ctlr.Update(ctx, plainTask()))
	assert.Empty(t, lines(logrus.TraceLevel))
}

// A fake need not know of labels, nor answer with more than a state.
func TestAFakeMayAnswerWithTheStateAlone(t *testing.T) {
	t.Parallel()
	client := newFakeClient(t)
	state := container.State{Status: container.StateCreated}
	client.containerInspect = func(context.Context, string) (container.InspectResponse, error) {
		return container.InspectResponse{ContainerJSONBase: &container.ContainerJSONBase{State: &state}}, nil
	}
	client.containerStart = func(context.Context, string, container.StartOptions) error { return nil }
	client.containerStop = func(context.Context, string, container.StopOptions) error { return nil }
	client.events = func(context.Context, events.ListOptions) (<-chan events.Message, <-chan error) { return nil, nil }
	made, err := NewExecutor(client, nil).Controller(plainTask())
	require.NoError(t, err)
	require.NoError(t, made.Start(t.Context()))
	ports, err := made.(*controller).PortStatus(t.Context())
	require.NoError(t, err)
	assert.Equal(t, &api.PortStatus{}, ports)
	state = container.State{Status: container.StateExited, ExitCode: 3}
	require.EqualError(t, made.Wait(t.Context()), "task: non-zero exit (3)")
	require.NoError(t, made.Shutdown(t.Context()))
}
