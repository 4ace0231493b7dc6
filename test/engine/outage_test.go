package engine_test

import (
	"context"
	"fmt"
	"os"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/dockerexec/dockerexec"
	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/moby/swarmkit/v2/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The engine is killed while 20 tasks run. Those that end meanwhile are reported
// with their codes; the others do not notice.
func TestEngineKilledWhileTasksRun(t *testing.T) {
	client, counting := plainClient(t)
	engine := dockerexec.NewEngine(client)
	executor := engine.Executor(nil)
	warmImage(t, client)
	const tasks = 10
	var ended atomic.Int32
	codes := make(chan int32, 2*tasks)
	run := func(args ...string) (*api.Task, func() error) {
		task := engineTask(t, args...)
		ctlr := engineController(t, executor, task)
		driven := taskAt(task.Copy(), api.TaskStateAccepted)
		return task, asynchronously(func() error {
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
	var short []*api.Task // those that are to end
	for i := range tasks {
		_, running := run("sleep", "1h")
		task, alsoRunning := run("sleep", "1h", "--", "exit", fmt.Sprint(10+i))
		all, short = append(all, running, alsoRunning), append(short, task)
	}
	for _, err := range all {
		require.NoError(t, err())
	}
	var processes []*os.Process
	for _, task := range short {
		adapter := adapterOf(t, engine, task)
		awaitReady(t, adapter)
		answer, err := adapter.Inspect(t.Context())
		require.NoError(t, err)
		require.Positive(t, answer.State.Pid)
		process, err := os.FindProcess(answer.State.Pid)
		require.NoError(t, err)
		processes = append(processes, process)
	}
	require.Zero(t, ended.Load())
	controlEngine(t, "kill")
	counting.counted()
	began := time.Now()
	for _, process := range processes {
		require.NoError(t, process.Signal(syscall.SIGTERM)) // ends the sleep
	}
	for _, process := range processes {
		require.Eventually(t, func() bool { return process.Signal(syscall.Signal(0)) != nil }, time.Minute, 10*time.Millisecond, "the end of a program")
	}
	time.Sleep(5 * time.Second)
	assert.Zero(t, ended.Load(), "while the engine is away no task changes")
	requests := counting.counted()
	t.Logf("requests but events while the engine was away: %d", len(requests))
	assert.LessOrEqual(t, len(requests), tasks, "those that were on their way")
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
	executor := dockerexec.NewExecutor(client, nil)
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
	executor := dockerexec.NewExecutor(client, nil)
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
