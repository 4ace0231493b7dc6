package dockerexec

import (
	"context"
	"fmt"
	"os"
	osexec "os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/moby/swarmkit/v2/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// controlEngine stops and starts the engine.
func controlEngine(t testing.TB, args ...string) {
	t.Helper()
	control := os.Getenv("DOCKEREXEC_TEST_ENGINE")
	if control == "" {
		skip(t, "this engine is not ours to stop")
	}
	out, err := osexec.Command(control, args...).CombinedOutput()
	require.NoError(t, err, string(out))
}

// The engine is killed while 20 tasks run. Those that end meanwhile are reported
// with their codes; the others do not notice.
func TestEngineKilledWhileTasksRun(t *testing.T) {
	client, counting := plainClient(t)
	executor := NewExecutor(client, nil)
	warmImage(t, client)
	const tasks = 10
	var ended atomic.Int32
	codes := make(chan int32, 2*tasks)
	run := func(args ...string) func() error {
		task := engineTask(t, args...)
		ctlr := engineController(t, executor, task)
		driven := taskAt(task.Copy(), api.TaskStateAccepted)
		return asynchronously(func() error {
			drive(t.Context(), t, driven, ctlr, api.TaskStateRunning)
			if driven.Status.State != api.TaskStateRunning {
				return fmt.Errorf("%v: %s", driven.Status.State, driven.Status.Err)
			}
			go func() {
				status, err := exec.Do(t.Context(), driven, ctlr)
				ended.Add(1)
				if err == nil && status.State == api.TaskStateFailed {
					codes <- status.GetContainer().ExitCode
				}
			}()
			return nil
		})
	}
	var all []func() error
	for i := range tasks {
		all = append(all, run("sleep", "1h"), run("sleep", "15s", "--", "exit", fmt.Sprint(10+i)))
	}
	for _, err := range all {
		require.NoError(t, err())
	}
	require.Zero(t, ended.Load())
	controlEngine(t, "kill")
	counting.counted()
	began := time.Now()
	time.Sleep(16 * time.Second)
	assert.Zero(t, ended.Load(), "while the engine is away no task changes")
	requests := counting.counted()
	t.Logf("requests but events while the engine was away: %d", len(requests))
	assert.LessOrEqual(t, len(requests), 2*tasks, "those that were on their way")
	controlEngine(t, "start")
	back := time.Now()
	reported := map[int32]bool{}
	for range tasks {
		select {
		case code := <-codes:
			reported[code] = true
		case <-time.After(30 * time.Second):
			t.Fatal("an exit during the outage is not reported")
		}
	}
	t.Logf("engine away for %v; %d exits reported %v after its return", back.Sub(began).Round(time.Millisecond), len(reported), time.Since(back).Round(time.Millisecond))
	for i := range int32(tasks) {
		assert.True(t, reported[10+i], 10+i)
	}
	time.Sleep(time.Second)
	assert.EqualValues(t, tasks, ended.Load(), "the others run on")
}

// Without live-restore the tasks end with the engine. Each is told, none hangs.
func TestEngineRestartedWithoutLiveRestore(t *testing.T) {
	client, _ := plainClient(t)
	executor := NewExecutor(client, nil)
	warmImage(t, client)
	controlEngine(t, "restart", "--no-live-restore")
	t.Cleanup(func() { controlEngine(t, "restart") })
	var all []func() error
	for range 5 {
		task := taskAt(engineTask(t, "sleep", "1h"), api.TaskStateAccepted)
		ctlr := engineController(t, executor, task)
		drive(t.Context(), t, task, ctlr, api.TaskStateRunning)
		require.Equal(t, api.TaskStateRunning, task.Status.State, task.Status.Err)
		all = append(all, asynchronously(func() error {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			status, err := exec.Do(ctx, task, ctlr)
			if err == nil && status.State < api.TaskStateCompleted {
				err = fmt.Errorf("state %v", status.State)
			}
			return err
		}))
	}
	controlEngine(t, "restart", "--no-live-restore")
	for _, err := range all {
		require.NoError(t, err())
	}
}

// A service is removed while the engine is away: the agent calls Remove once.
func TestEngineRemovalWhileAway(t *testing.T) {
	client, _ := plainClient(t)
	executor := NewExecutor(client, nil)
	warmImage(t, client)
	var all []func() error
	var tasks []*api.Task
	for i := range 3 {
		task := taskAt(engineTask(t, "sleep", "1h"), api.TaskStateAccepted)
		attach(task, fmt.Sprintf("dockerexec-away-%d", i), fmt.Sprintf("10.217.%d.0/24", i))
		ctlr := engineController(t, executor, task)
		drive(t.Context(), t, task, ctlr, api.TaskStateRunning)
		require.Equal(t, api.TaskStateRunning, task.Status.State, task.Status.Err)
		tasks = append(tasks, task)
		all = append(all, func() error { return ctlr.Remove(t.Context()) })
	}
	controlEngine(t, "kill")
	for i, remove := range all {
		all[i] = asynchronously(remove)
	}
	time.Sleep(10 * time.Second)
	controlEngine(t, "start")
	began := time.Now()
	for _, err := range all {
		require.NoError(t, err())
	}
	t.Logf("removed %v after the engine's return", time.Since(began).Round(time.Millisecond))
	for _, task := range tasks {
		assert.Empty(t, leftOfTask(t, client, task))
	}
}

// Another task's removal took the networks of a task that was not started.
func TestEngineVanishedNetwork(t *testing.T) {
	client, _ := plainClient(t)
	executor := NewExecutor(client, nil)
	task := taskAt(engineTask(t, "sleep", "1h"), api.TaskStateAccepted)
	attach(task, "dockerexec-vanish-a", "10.220.1.0/24")
	attach(task, "dockerexec-vanish-b", "10.220.2.0/24")
	ctlr := engineController(t, executor, task)
	drive(t.Context(), t, task, ctlr, api.TaskStateStarting)
	require.Equal(t, api.TaskStateStarting, task.Status.State, task.Status.Err)
	for _, name := range []string{"dockerexec-vanish-a", "dockerexec-vanish-b"} {
		require.NoError(t, client.NetworkRemove(t.Context(), name))
	}
	ctx, hook := hooked(t)
	hook.Reset()
	drive(ctx, t, task, ctlr, api.TaskStateRunning)
	require.Equal(t, api.TaskStateRunning, task.Status.State, task.Status.Err)
	answer, err := ctlr.adapter.Inspect(t.Context())
	require.NoError(t, err)
	assert.Contains(t, answer.NetworkSettings.Networks["dockerexec-vanish-a"].IPAddress, "10.220.1.")
	assert.Contains(t, answer.NetworkSettings.Networks["dockerexec-vanish-b"].IPAddress, "10.220.2.")
}

// Remove is called when Prepare sends, and when it gets an answer to, each of its
// first ten requests: nine for networks and the pull. The create is still to come.
func TestEngineRemoveWithinPrepare(t *testing.T) {
	client, counting := plainClient(t)
	executor := NewExecutor(client, nil)
	warmImage(t, client)
	for point := range 20 {
		task := taskAt(engineTask(t, "sleep", "1h"), api.TaskStateAccepted)
		for n := range 9 {
			attach(task, fmt.Sprintf("dockerexec-within-%d", n), fmt.Sprintf("10.221.%d.0/24", n))
		}
		made, err := executor.Controller(task)
		require.NoError(t, err)
		reached := counting.reach(point/2, point%2 == 1)
		prepare := asynchronously(func() error { return made.Prepare(t.Context()) })
		<-reached
		require.NoError(t, made.Remove(t.Context()))
		assert.Equal(t, context.Canceled, prepare(), "point %d is within Prepare", point)
		require.NoError(t, made.Close())
		assert.Empty(t, leftOfTask(t, client, task))
	}
}

// The image is on the engine and the registry refuses: the task runs, with a
// warning.
func TestEnginePullFallback(t *testing.T) {
	client, _ := plainClient(t)
	executor := NewExecutor(client, nil)
	warmImage(t, client)
	task := taskAt(engineTask(t, "exit", "0"), api.TaskStateAccepted)
	spec(task).PullOptions.RegistryAuth = registryAuth(t, "tester", "canary-password")
	ctlr := engineController(t, executor, task)
	ctx, hook := hooked(t)
	drive(ctx, t, task, ctlr, api.TaskStateCompleted)
	assert.Equal(t, api.TaskStateCompleted, task.Status.State, task.Status.Err)
	warned := 0
	for _, entry := range hook.AllEntries() {
		text, err := entry.String()
		require.NoError(t, err)
		assert.NotContains(t, text, "canary-password")
		if strings.Contains(entry.Message, "pull failed, the image on the engine is used instead") {
			warned++
			t.Log(text)
		}
	}
	assert.Equal(t, 1, warned)

	absent := taskAt(engineTask(t, "exit", "0"), api.TaskStateAccepted)
	spec(absent).Image = fromHarness(t, "DOCKEREXEC_TEST_REGISTRY") + "/absent:1"
	spec(absent).PullOptions.RegistryAuth = registryAuth(t, "tester", "canary-password")
	_, err := client.ImageInspect(t.Context(), spec(absent).Image)
	require.True(t, cerrdefs.IsNotFound(err), err)
	ctlr = engineController(t, executor, absent)
	drive(t.Context(), t, absent, ctlr, api.TaskStateCompleted)
	assert.Equal(t, api.TaskStateRejected, absent.Status.State)
	assert.Contains(t, absent.Status.Err, "pull image "+spec(absent).Image)
	assert.NotContains(t, absent.Status.Err, "No such image")
	t.Log(absent.Status.Err)
}
