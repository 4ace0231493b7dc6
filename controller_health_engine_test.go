package dockerexec

import (
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	gogotypes "github.com/gogo/protobuf/types"
	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/moby/swarmkit/v2/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// checked is a task whose container is healthy as long as it has the file
// /tmp/ok, and exits with 0 when it is stopped.
func checked(t *testing.T, interval time.Duration, args ...string) *api.Task {
	t.Helper()
	task := taskAt(engineTask(t, append(args, "sleep", "1h")...), api.TaskStateAccepted)
	spec(task).Healthcheck = &api.HealthConfig{
		Test: []string{"CMD", "/testtask", "health", "/tmp/ok"}, Retries: 2,
		Interval: gogotypes.DurationProto(interval), Timeout: &gogotypes.Duration{Seconds: 30},
	}
	return task
}

// untilHealth waits until the engine says so of the container's health.
func untilHealth(t *testing.T, adapter *ContainerAdapter, status container.HealthStatus) container.InspectResponse {
	t.Helper()
	var answer container.InspectResponse
	require.Eventually(t, func() bool {
		var err error
		answer, err = adapter.Inspect(t.Context())
		require.NoError(t, err)
		return answer.State.Health != nil && answer.State.Health.Status == status
	}, time.Minute, 20*time.Millisecond)
	return answer
}

func TestEngineAPauseIsNoFailedCheck(t *testing.T) {
	client, _ := plainClient(t)
	executor := NewExecutor(client, nil)
	warmImage(t, client)
	task := checked(t, 3*time.Second, "write", "/tmp/ok", "1", "--")
	ctlr := engineController(t, executor, task)
	drive(t.Context(), t, task, ctlr, api.TaskStateRunning)
	require.Equal(t, api.TaskStateRunning, task.Status.State, task.Status.Err)
	waited := make(chan error, 1)
	go func() { waited <- ctlr.Wait(t.Context()) }()

	require.NoError(t, client.ContainerPause(t.Context(), ctlr.adapter.name))
	paused := untilHealth(t, ctlr.adapter, container.Unhealthy)
	assert.Equal(t, container.StatePaused, paused.State.Status)
	require.NoError(t, client.ContainerUnpause(t.Context(), ctlr.adapter.name))
	unpaused, err := ctlr.adapter.Inspect(t.Context())
	require.NoError(t, err)
	t.Logf("paused: %+v; unpaused: %v, %+v", paused.State.Health.Status, unpaused.State.Status, unpaused.State.Health.Status)
	healthy := untilHealth(t, ctlr.adapter, container.Healthy)
	assert.Equal(t, container.StateRunning, healthy.State.Status)
	assert.Equal(t, paused.State.StartedAt, healthy.State.StartedAt)
	assert.Empty(t, waited)

	require.NoError(t, client.ContainerStop(t.Context(), ctlr.adapter.name, container.StopOptions{}))
	assert.NoError(t, <-waited) // it was healthy when it ended, with 0
}

// A new process, which did not see what was stopped for what, tells it.
func TestEngineAStopForHealthOutlivesTheProcess(t *testing.T) {
	client, _ := plainClient(t)
	executor := NewExecutor(client, nil)
	warmImage(t, client)
	for _, test := range []struct {
		health container.HealthStatus
		args   []string
		state  api.TaskState
		err    string
	}{
		{container.Unhealthy, nil, api.TaskStateFailed, "task: non-zero exit (0): dockerexec: unhealthy container"},
		{container.Healthy, []string{"write", "/tmp/ok", "1", "--"}, api.TaskStateCompleted, ""},
	} {
		t.Run(test.health, func(t *testing.T) {
			task := checked(t, 500*time.Millisecond, test.args...)
			adapter := engineController(t, executor, task).adapter
			require.NoError(t, adapter.Create(t.Context()))
			require.NoError(t, adapter.Start(t.Context()))
			untilHealth(t, adapter, test.health)
			require.NoError(t, adapter.Shutdown(t.Context()))
			ended, err := adapter.Wait(t.Context())
			require.NoError(t, err)
			assert.Equal(t, container.Unhealthy, ended.State.Health.Status) // says the engine of both

			fresh := engineController(t, executor, task)
			assert.Equal(t, exec.ErrTaskStarted, fresh.Start(t.Context()))
			task.Status.State = api.TaskStateRunning
			drive(t.Context(), t, task, fresh, api.TaskStateCompleted)
			assert.Equal(t, test.state, task.Status.State)
			assert.Equal(t, test.err, task.Status.Err)
		})
	}
}
