//go:build linux

package engine_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	osexec "os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	engineapi "github.com/docker/docker/client"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// forgetStart has the engine forget that a running container was started, and returns the
// container's process: what an engine has that is killed after the program has begun, and
// before that is written down. containerd has told of the start by then, and does not again.
func forgetStart(t testing.TB, client *engineapi.Client, id string) (process int) {
	t.Helper()
	require.NoError(t, client.ContainerStart(t.Context(), id, container.StartOptions{}))
	answer, err := client.ContainerInspect(t.Context(), id)
	require.NoError(t, err)
	require.True(t, answer.State.Running)
	controlEngine(t, "kill")
	file := filepath.Join(filepath.Dir(os.Getenv("DOCKEREXEC_TEST_ENGINE")), "data", "containers", id, "config.v2.json")
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	var record map[string]any
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	require.NoError(t, decoder.Decode(&record))
	state := record["State"].(map[string]any)
	state["Running"], state["Pid"], state["StartedAt"] = false, 0, never
	record["HasBeenStartedBefore"] = false
	text, err = json.Marshal(record)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(file, text, 0o600))
	controlEngine(t, "start")
	return answer.State.Pid
}

// halveStart has the engine end after the runtime has made the container's process, and
// before the engine has told it to begin the program. It returns that process.
func halveStart(t testing.TB, client *engineapi.Client, id string) (process int) {
	t.Helper()
	out, err := osexec.Command(os.Getenv("DOCKEREXEC_TEST_ENGINE"), "pid").Output()
	require.NoError(t, err)
	engine, err := strconv.Atoi(strings.TrimSpace(string(out)))
	require.NoError(t, err)
	ended := make(chan error, 1)
	go func() { ended <- client.ContainerStart(t.Context(), id, container.StartOptions{}) }()
	for !runtimeMakes(id) {
		select {
		case err := <-ended:
			require.Fail(t, "the start has ended before it was seen", err)
		default:
		}
	}
	require.NoError(t, syscall.Kill(engine, syscall.SIGSTOP))
	require.Eventually(t, func() bool {
		state, err := os.ReadFile(filepath.Join("/run/docker/runtime-runc/moby", id, "state.json"))
		var made struct {
			Process int `json:"init_process_pid"`
		}
		if err != nil || json.Unmarshal(state, &made) != nil {
			return false
		}
		process = made.Process
		return process > 0 && !runtimeMakes(id)
	}, time.Minute, 10*time.Millisecond)
	controlEngine(t, "kill")
	require.Error(t, <-ended)
	controlEngine(t, "start")
	return process
}

// runtimeMakes reports whether the runtime is about to make a container's process.
func runtimeMakes(id string) bool { return processWith("\x00create\x00", id) != 0 }

// processWith returns a process with both in its command line; 0: there is none.
func processWith(what, id string) int {
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, file := range files {
		line, err := os.ReadFile(file)
		if err == nil && bytes.Contains(line, []byte(what)) && bytes.Contains(line, []byte(id)) {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(file)))
			return pid
		}
	}
	return 0
}

// is2010 reports whether the engine is one of 20.10. Later ones carry out a second start.
func is2010(t testing.TB, client *engineapi.Client) bool {
	t.Helper()
	version, err := client.ServerVersion(t.Context())
	require.NoError(t, err)
	return strings.HasPrefix(version.Version, "20.10.")
}

// A process whose start engine 20.10 has forgotten is out of a client's reach if containerd
// does not tell of it again: no call ends it, nor shows it, and the container's removal
// leaves it. docs/operations.md says so, and how to end it.
func TestEngineNoCallEndsAStray(t *testing.T) {
	client, _ := plainClient(t)
	controlEngine(t, "pid")
	warmImage(t, client)
	if !is2010(t, client) {
		return
	}
	type stray struct {
		name    string
		lose    func(testing.TB, *engineapi.Client, string) int
		id      string
		process int
	}
	strays := []*stray{{name: "its program runs", lose: forgetStart}, {name: "its program has not begun", lose: halveStart}}
	for _, s := range strays {
		made, err := client.ContainerCreate(t.Context(), &container.Config{
			Image: fromHarness(t, "DOCKEREXEC_TEST_IMAGE"), Cmd: []string{"sleep", "1h"},
		}, &container.HostConfig{NetworkMode: "host"}, nil, nil, "") // any other network asks the engine while the process is made
		require.NoError(t, err)
		s.id, s.process = made.ID, s.lose(t, client, made.ID)
		t.Cleanup(func() { _ = syscall.Kill(s.process, syscall.SIGKILL) })
	}
	time.Sleep(20 * time.Second) // in which containerd could have told of them; the first has outlived one more kill
	for _, s := range strays {
		t.Run(s.name, func(t *testing.T) {
			lives := func() bool {
				line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", s.process))
				return err == nil && len(line) > 0 // a zombie has none
			}
			require.True(t, lives())
			const isNotRunning, inUse = " is not running", " already " // "id already in use", or "task ID: already exists"
			for _, call := range []struct {
				name string
				says string // empty: no error
				make func(ctx context.Context, id string) error
			}{
				{"stop", "", func(ctx context.Context, id string) error {
					return client.ContainerStop(ctx, id, container.StopOptions{})
				}},
				{"kill", isNotRunning, func(ctx context.Context, id string) error { return client.ContainerKill(ctx, id, "KILL") }},
				{"signal", isNotRunning, func(ctx context.Context, id string) error { return client.ContainerKill(ctx, id, "TERM") }},
				{"pause", isNotRunning, client.ContainerPause},
				{"exec", isNotRunning, func(ctx context.Context, id string) error {
					_, err := client.ContainerExecCreate(ctx, id, container.ExecOptions{Cmd: []string{"/testtask", "exit", "0"}})
					return err
				}},
				{"start", inUse, func(ctx context.Context, id string) error {
					return client.ContainerStart(ctx, id, container.StartOptions{})
				}},
				{"restart", inUse, func(ctx context.Context, id string) error {
					return client.ContainerRestart(ctx, id, container.StopOptions{})
				}},
				{"remove", "", func(ctx context.Context, id string) error {
					return client.ContainerRemove(ctx, id, container.RemoveOptions{Force: true, RemoveVolumes: true})
				}},
			} {
				answer, err := client.ContainerInspect(t.Context(), s.id)
				require.NoError(t, err)
				assert.Equal(t, container.StateCreated, answer.State.Status, "before %s", call.name)
				err = call.make(t.Context(), s.id)
				if call.says == "" {
					require.NoError(t, err, call.name)
				} else {
					require.ErrorContains(t, err, call.says, call.name)
				}
				assert.True(t, lives(), "after %s", call.name)
			}
			controlEngine(t, "restart")
			assert.True(t, lives(), "after a restart of the engine")

			// containerd ends what is left of a container whose shim has ended.
			shim := processWith("containerd-shim", s.id)
			require.NotZero(t, shim)
			require.NoError(t, syscall.Kill(shim, syscall.SIGKILL))
			require.Eventually(t, func() bool { return !lives() }, time.Minute, 10*time.Millisecond, "docs/operations.md says so")
		})
	}
}
