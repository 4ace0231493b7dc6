package engine_test

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/dockerexec/dockerexec"
	gogotypes "github.com/gogo/protobuf/types"
	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/moby/swarmkit/v2/api"
	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestEngineHealth(t *testing.T) {
	sharesEngine(t)
	client, _ := plainClient(t)
	executor := dockerexec.NewExecutor(client, nil)
	warmImage(t, client)
	for _, test := range []struct {
		name string
		args []string
		want error
	}{
		{"healthy", []string{"sleep", "2s", "--", "write", "/tmp/ok", "1", "--", "sleep", "1h"}, nil},
		{"unhealthy", []string{"ignore-term"}, dockerexec.ErrContainerUnhealthy},
	} {
		t.Run(test.name, func(t *testing.T) {
			task := taskAt(engineTask(t, test.args...), api.TaskStateAccepted)
			spec(task).StopGracePeriod = &gogotypes.Duration{Seconds: 1}
			spec(task).Healthcheck = &api.HealthConfig{
				Test: []string{"CMD", "/testtask", "health", "/tmp/ok"}, Retries: 6,
				Interval: &gogotypes.Duration{Nanos: 500e6}, Timeout: &gogotypes.Duration{Seconds: 5},
			}
			ctlr := engineController(t, executor, task)
			drive(t.Context(), t, task, ctlr, api.TaskStateStarting)
			began := time.Now()
			drive(t.Context(), t, task, ctlr, api.TaskStateRunning)
			t.Logf("%v %q after %v", task.Status.State, task.Status.Err, time.Since(began).Round(time.Millisecond))
			if test.want != nil {
				assert.Equal(t, api.TaskStateFailed, task.Status.State)
				assert.Equal(t, "task: non-zero exit (137): dockerexec: unhealthy container", task.Status.Err)
				assert.EqualValues(t, 137, task.Status.GetContainer().ExitCode)
				return
			}
			assert.Equal(t, api.TaskStateRunning, task.Status.State)
			assert.Greater(t, time.Since(began), 2*time.Second)
		})
	}
	t.Run("unhealthy later", func(t *testing.T) {
		task := taskAt(engineTask(t, "write", "/data/ok", "1", "--", "sleep", "1h"), api.TaskStateAccepted)
		spec(task).Mounts = []api.Mount{{Type: api.MountTypeVolume, Target: "/data"}}
		spec(task).Healthcheck = &api.HealthConfig{Test: []string{"CMD", "/testtask", "health", "/data/ok"}, Retries: 1, Interval: &gogotypes.Duration{Nanos: 500e6}}
		ctlr := engineController(t, executor, task)
		drive(t.Context(), t, task, ctlr, api.TaskStateRunning)
		require.Equal(t, api.TaskStateRunning, task.Status.State, task.Status.Err)
		inspected, err := client.ContainerInspect(t.Context(), task.Status.GetContainer().ContainerID)
		require.NoError(t, err)
		require.NoError(t, os.Remove(inspected.Mounts[0].Source+"/ok"))
		drive(t.Context(), t, task, ctlr, api.TaskStateCompleted)
		assert.Equal(t, api.TaskStateFailed, task.Status.State)
		assert.Equal(t, "task: ended with exit code 0: dockerexec: unhealthy container", task.Status.Err)
	})
}

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
func untilHealth(t *testing.T, adapter *dockerexec.ContainerAdapter, status container.HealthStatus) container.InspectResponse {
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
	sharesEngine(t)
	client, _ := plainClient(t)
	engine := dockerexec.NewEngine(client)
	warmImage(t, client)
	task := checked(t, 5*time.Second, "write", "/tmp/ok", "1", "--")
	ctlr, adapter := engineController(t, engine.Executor(nil), task), adapterOf(t, engine, task)
	drive(t.Context(), t, task, ctlr, api.TaskStateRunning)
	require.Equal(t, api.TaskStateRunning, task.Status.State, task.Status.Err)
	waited := make(chan error, 1)
	go func() { waited <- ctlr.Wait(t.Context()) }()

	pause(t, client, adapter)
	paused := untilHealth(t, adapter, container.Unhealthy)
	assert.Equal(t, container.StatePaused, paused.State.Status)
	require.NoError(t, client.ContainerUnpause(t.Context(), adapter.ContainerName()))
	unpaused, err := adapter.Inspect(t.Context())
	require.NoError(t, err)
	t.Logf("paused: %+v; unpaused: %v, %+v", paused.State.Health.Status, unpaused.State.Status, unpaused.State.Health.Status)
	healthy := untilHealth(t, adapter, container.Healthy)
	assert.Equal(t, container.StateRunning, healthy.State.Status)
	assert.Equal(t, paused.State.StartedAt, healthy.State.StartedAt)
	assert.Empty(t, waited)

	require.NoError(t, client.ContainerStop(t.Context(), adapter.ContainerName(), container.StopOptions{}))
	assert.NoError(t, <-waited) // it was healthy when it ended, with 0
}

// A new process, which did not see what was stopped for what, tells it.
func TestEngineAStopForHealthOutlivesTheProcess(t *testing.T) {
	sharesEngine(t)
	client, _ := plainClient(t)
	executor := dockerexec.NewExecutor(client, nil)
	warmImage(t, client)
	for _, test := range []struct {
		health container.HealthStatus
		args   []string
		state  api.TaskState
		err    string
	}{
		{container.Unhealthy, nil, api.TaskStateFailed, "task: ended with exit code 0: dockerexec: unhealthy container"},
		{container.Healthy, []string{"write", "/tmp/ok", "1", "--"}, api.TaskStateCompleted, ""},
	} {
		t.Run(test.health, func(t *testing.T) {
			task := checked(t, 500*time.Millisecond, test.args...)
			adapter := engineAdapter(t, client, task)
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

// An engine of 20.10 that restarts forgets the checks of containers that run on. A start
// does not wait for them for ever. On an engine that remembers them, it waits.
func TestEngineThatForgetsHealthChecks(t *testing.T) {
	share := beginsAlone(t)
	client, _ := plainClient(t)
	engine := dockerexec.NewEngine(client)
	warmImage(t, client)
	task := checked(t, 500*time.Millisecond)
	spec(task).Healthcheck.Timeout = gogotypes.DurationProto(time.Second)
	spec(task).Healthcheck.StartPeriod = gogotypes.DurationProto(time.Hour)
	ctlr, adapter := engineController(t, engine.Executor(nil), task), adapterOf(t, engine, task)
	ctx, lines := logged(t)
	drive(ctx, t, task, ctlr, api.TaskStateStarting)
	started := make(chan error, 1)
	go func() { started <- ctlr.Start(ctx) }()
	lastCheck := func() time.Time {
		answer, err := client.ContainerInspect(ctx, adapter.ContainerName())
		if err != nil || answer.State.Health == nil || len(answer.State.Health.Log) == 0 {
			return time.Time{}
		}
		return answer.State.Health.Log[len(answer.State.Health.Log)-1].Start
	}
	checkedSince := func(before time.Time) func() bool {
		return func() bool { return lastCheck().After(before) }
	}
	require.Eventually(t, checkedSince(time.Time{}), time.Minute, 20*time.Millisecond)
	controlEngine(t, "restart")
	share()
	back, last := time.Now(), lastCheck()
	forgets := true
	for deadline := back.Add(15 * time.Second); forgets && time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		forgets = !checkedSince(last)()
	}
	t.Logf("API %s forgets checks: %v", client.ClientVersion(), forgets)
	if client.ClientVersion() == "1.41" { // 20.10
		assert.True(t, forgets)
	}
	warned := func() string { return strings.Join(lines.at(logrus.WarnLevel), "\n") }
	const warning = "the engine has run no health check of the container for "

	if forgets {
		var err error
		require.Eventually(t, func() bool {
			// Events have the watch inspect, which it does every five minutes otherwise.
			assert.NoError(t, client.ContainerRename(ctx, adapter.ContainerName(), adapter.ContainerName()+"-"))
			assert.NoError(t, client.ContainerRename(ctx, adapter.ContainerName()+"-", adapter.ContainerName()))
			select {
			case err = <-started:
				return true
			default:
				return false
			}
		}, 3*time.Minute, 2*time.Second)
		require.NoError(t, err)
		t.Logf("the start ended %v after the engine was back: %s", time.Since(back).Round(time.Second), warned())
		assert.Greater(t, time.Since(back), 55*time.Second)
		assert.Equal(t, 1, strings.Count(warned(), warning))
		answer, err := adapter.Inspect(ctx)
		require.NoError(t, err)
		assert.Equal(t, container.StateRunning, answer.State.Status)
		assert.Equal(t, container.Starting, answer.State.Health.Status)
		assert.Equal(t, last.UTC(), lastCheck().UTC())

		pause(t, client, adapter)
		require.NoError(t, client.ContainerUnpause(ctx, adapter.ContainerName()))
		require.Eventually(t, checkedSince(last), time.Minute, 20*time.Millisecond, "a pause has the engine check again")
		return
	}
	assert.Empty(t, started)
	run, err := client.ContainerExecCreate(ctx, adapter.ContainerName(), container.ExecOptions{Cmd: []string{"/testtask", "write", "/tmp/ok", "1"}})
	require.NoError(t, err)
	require.NoError(t, client.ContainerExecStart(ctx, run.ID, container.ExecStartOptions{}))
	require.NoError(t, <-started)
	assert.NotContains(t, warned(), warning)
	assert.Equal(t, container.Healthy, untilHealth(t, adapter, container.Healthy).State.Health.Status)
}
