package dockerexec

import (
	"archive/tar"
	"context"
	"io"
	"os"
	osexec "os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	engineapi "github.com/docker/docker/client"
	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/moby/swarmkit/v2/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// containerdSocket is that of the containerd which an engine starts for itself.
const containerdSocket = "/run/docker/containerd/containerd.sock"

// startBehindTheEngine has the engine's containerd run the test image's program
// with args as the container's process, as a start that the engine began and did
// not live to see.
func startBehindTheEngine(t testing.TB, client *engineapi.Client, id string, args ...string) {
	t.Helper()
	root := filepath.Join(t.TempDir(), "root")
	require.NoError(t, os.Mkdir(root, 0o755))
	archive, _, err := client.CopyFromContainer(t.Context(), id, "/testtask")
	require.NoError(t, err)
	defer archive.Close()
	files := tar.NewReader(archive)
	_, err = files.Next()
	require.NoError(t, err)
	program, err := os.OpenFile(filepath.Join(root, "testtask"), os.O_CREATE|os.O_WRONLY, 0o755)
	require.NoError(t, err)
	_, err = io.Copy(program, files)
	require.NoError(t, err)
	require.NoError(t, program.Close())
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	output, err := osexec.CommandContext(ctx, "ctr", append([]string{
		"--address", containerdSocket, "--namespace", "moby", "run", "--detach", "--null-io", "--rootfs", root, id, "/testtask"}, args...)...).CombinedOutput()
	require.NoError(t, err, string(output))
}

// An engine takes up a container that runs without its having seen the start,
// and says in the end that it was created.
func TestEngineWaitForAContainerOfWhichTheEngineMissedTheStart(t *testing.T) {
	client, _ := plainClient(t)
	warmImage(t, client)
	if _, err := osexec.LookPath("ctr"); err != nil {
		skip(t, "no containerd client: "+err.Error())
	}
	if _, err := os.Stat(containerdSocket); err != nil {
		skip(t, "the engine's containerd is elsewhere: "+err.Error())
	}
	executor := NewExecutor(client, nil)
	task := taskAt(engineTask(t, "sleep", "1h"), api.TaskStateStarting)
	ctlr := engineController(t, executor, task)
	require.NoError(t, ctlr.Prepare(t.Context()))
	created, err := ctlr.adapter.Inspect(t.Context())
	require.NoError(t, err)
	waited := make(chan container.InspectResponse, 1)
	go func() {
		answer, err := ctlr.adapter.Wait(t.Context())
		assert.NoError(t, err)
		waited <- answer
	}()

	startBehindTheEngine(t, client, created.ID, "sleep", "1s", "--", "exit", "3")
	ended := <-waited
	require.NotNil(t, ended.State)
	t.Logf("%+v", *ended.State)
	assert.Equal(t, container.StateCreated, ended.State.Status)
	assert.Equal(t, 3, ended.State.ExitCode)

	fresh := engineController(t, executor, task)
	assert.Equal(t, exec.ErrTaskStarted, fresh.Start(t.Context()))
	require.NoError(t, fresh.Logs(t.Context(), &logSink{}, api.LogSubscriptionOptions{Follow: true}))
	drive(t.Context(), t, task, fresh, api.TaskStateCompleted)
	assert.Equal(t, api.TaskStateFailed, task.Status.State)
	assert.Equal(t, "task: non-zero exit (3)", task.Status.Err)
}

// A start that failed is none: the container can still be started.
func TestEngineAFailedStartIsNoEnd(t *testing.T) {
	client, _ := plainClient(t)
	warmImage(t, client)
	task := taskAt(engineTask(t), api.TaskStateStarting)
	spec(task).Command = []string{"/nosuch"}
	ctlr := engineController(t, NewExecutor(client, nil), task)
	require.NoError(t, ctlr.Prepare(t.Context()))
	require.ErrorContains(t, ctlr.Start(t.Context()), "/nosuch")
	answer, err := ctlr.adapter.Inspect(t.Context())
	require.NoError(t, err)
	assert.Equal(t, container.StateCreated, answer.State.Status)
	assert.Equal(t, 127, answer.State.ExitCode)
	assert.NotEmpty(t, answer.State.Error)
	assert.True(t, isUnstarted(answer))
	assert.False(t, hasEnded(answer))
}
