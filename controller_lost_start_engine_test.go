package dockerexec

import (
	"bytes"
	"os"
	osexec "os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/moby/swarmkit/v2/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// startsOnHost reports whether the runtime is about to start a container's process.
func startsOnHost(id string) bool {
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, file := range files {
		if line, err := os.ReadFile(file); err == nil && bytes.Contains(line, []byte("\x00start\x00"+id)) {
			return true
		}
	}
	return false
}

// engineProcess returns how to kill the engine faster than controlEngine does.
func engineProcess(t *testing.T) (kill func()) {
	t.Helper()
	controlEngine(t, "pid")
	pid := func() (int, error) {
		out, err := osexec.Command(os.Getenv("DOCKEREXEC_TEST_ENGINE"), "pid").Output()
		if err != nil {
			return 0, err
		}
		return strconv.Atoi(strings.TrimSpace(string(out)))
	}
	number, err := pid()
	require.NoError(t, err)
	process, err := os.FindProcess(number)
	require.NoError(t, err)
	return func() {
		require.NoError(t, process.Kill())
		require.Eventually(t, func() bool { _, err := pid(); return err != nil }, time.Minute, 10*time.Millisecond)
	}
}

// The engine is killed within a start, at the worst moment if the test is lucky.
// What it makes of the container then, a task that is stopped has none that runs,
// and one that is started has its network.
func TestEngineKilledWithinAStart(t *testing.T) {
	client, _ := plainClient(t)
	executor := NewExecutor(client, nil)
	warmImage(t, client)
	for round := range 8 {
		task := taskAt(engineTask(t, "sleep", "1h"), api.TaskStateAccepted)
		attach(task, "dockerexec-lost-start", "10.218.0.0/24")
		ctlr := engineController(t, executor, task)
		drive(t.Context(), t, task, ctlr, api.TaskStateReady)
		require.Equal(t, api.TaskStateReady, task.Status.State, task.Status.Err)
		prepared, err := ctlr.adapter.Inspect(t.Context())
		require.NoError(t, err)
		kill := engineProcess(t)
		begun := make(chan error, 1)
		go func() { begun <- ctlr.Start(t.Context()) }()
		ended := false
		for !ended && !startsOnHost(prepared.ID) {
			select {
			case err = <-begun:
				ended = true
			default:
			}
		}
		kill()
		if !ended {
			err = <-begun
		}
		controlEngine(t, "start")
		again := func(call func() error) error {
			for {
				if err := call(); !exec.IsTemporary(err) {
					return err
				}
				time.Sleep(time.Second)
			}
		}
		before, inspectErr := ctlr.adapter.Inspect(t.Context())
		require.NoError(t, inspectErr)
		lost := before.State.Status == container.StateCreated && exec.IsTemporary(err)
		began := time.Now()
		if round%2 == 0 {
			require.NoError(t, again(func() error { return ctlr.Shutdown(t.Context()) }))
			took := time.Since(began)
			after, inspectErr := ctlr.adapter.Inspect(t.Context())
			require.NoError(t, inspectErr)
			assert.False(t, after.State.Running)
			if lost && isUnstarted(after) {
				assert.GreaterOrEqual(t, took, lostStartTime)
			}
			t.Logf("killed within a start (%v); then %s; stopped in %v: %s", err, before.State.Status, took.Round(time.Millisecond), after.State.Status)
			continue
		}
		err = again(func() error { return ctlr.Start(t.Context()) })
		after, inspectErr := ctlr.adapter.Inspect(t.Context())
		require.NoError(t, inspectErr)
		if err == nil || err == exec.ErrTaskStarted {
			assert.NotEmpty(t, after.NetworkSettings.Networks["dockerexec-lost-start"].IPAddress)
		} else {
			assert.False(t, after.State.Running)
		}
		t.Logf("killed within a start; then %s; started again in %v: %v", before.State.Status, time.Since(began).Round(time.Millisecond), err)
	}
}
