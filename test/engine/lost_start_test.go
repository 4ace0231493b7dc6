package engine_test

import (
	"archive/tar"
	"bytes"
	"context"
	"io"
	"os"
	osexec "os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	engineapi "github.com/docker/docker/client"
	"github.com/dockerexec/dockerexec"
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
	sharesEngine(t)
	client, _ := plainClient(t)
	warmImage(t, client)
	if _, err := osexec.LookPath("ctr"); err != nil {
		skip(t, "no containerd client: "+err.Error())
	}
	if _, err := os.Stat(containerdSocket); err != nil {
		skip(t, "the engine's containerd is elsewhere: "+err.Error())
	}
	engine := dockerexec.NewEngine(client)
	executor := engine.Executor(nil)
	task := taskAt(engineTask(t, "sleep", "1h"), api.TaskStateStarting)
	ctlr, adapter := engineController(t, executor, task), adapterOf(t, engine, task)
	require.NoError(t, ctlr.Prepare(t.Context()))
	created, err := adapter.Inspect(t.Context())
	require.NoError(t, err)
	waited := make(chan container.InspectResponse, 1)
	go func() {
		answer, err := adapter.Wait(t.Context())
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
	sharesEngine(t)
	client, _ := plainClient(t)
	warmImage(t, client)
	task := taskAt(engineTask(t), api.TaskStateStarting)
	spec(task).Command = []string{"/nosuch"}
	engine := dockerexec.NewEngine(client)
	ctlr, adapter := engineController(t, engine.Executor(nil), task), adapterOf(t, engine, task)
	require.NoError(t, ctlr.Prepare(t.Context()))
	require.ErrorContains(t, ctlr.Start(t.Context()), "/nosuch")
	answer, err := adapter.Inspect(t.Context())
	require.NoError(t, err)
	assert.Equal(t, container.StateCreated, answer.State.Status)
	if !isPodman() { // which notes neither
		assert.Equal(t, 127, answer.State.ExitCode)
		assert.NotEmpty(t, answer.State.Error)
	}

	// It is started again, and it is waited for.
	require.ErrorContains(t, ctlr.Start(t.Context()), "/nosuch")
	require.ErrorContains(t, engineController(t, engine.Executor(nil), task).Start(t.Context()), "/nosuch")
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	_, err = adapter.Wait(ctx)
	assert.Equal(t, context.DeadlineExceeded, err)
}

// never is the time that an engine has for what has not come about.
const never = "0001-01-01T00:00:00Z"

// startsOnHost reports whether the runtime is about to start the process of one of the tasks.
func startsOnHost(tasks []*lostStart) bool {
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, file := range files {
		line, err := os.ReadFile(file)
		if err == nil && slices.ContainsFunc(tasks, func(s *lostStart) bool { return bytes.Contains(line, []byte("\x00start\x00"+s.id)) }) {
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

// The engine is killed within starts, at the worst moment of one if the test is lucky.
// What it makes of the containers then, a task that is stopped has none that runs,
// and one that is started has its network.
func TestEngineKilledWithinAStart(t *testing.T) {
	client, _ := plainClient(t)
	engine := dockerexec.NewEngine(client)
	warmImage(t, client)
	for range fewerOnPodman(2, 1) {
		starts := make([]*lostStart, 4)
		for i := range starts {
			starts[i] = prepareStart(t, engine)
		}
		kill := engineProcess(t)
		ended := make(chan struct{}, len(starts))
		for _, s := range starts {
			go func() {
				s.err = s.controller.Start(t.Context())
				ended <- struct{}{}
			}()
		}
		for seen := false; !seen && len(ended) < len(starts); {
			seen = startsOnHost(starts)
		}
		kill()
		for range starts {
			<-ended
		}
		controlEngine(t, "start")
		var all sync.WaitGroup
		for i, s := range starts {
			if i%2 == 0 {
				all.Go(func() { s.checkStop(t) })
			} else {
				all.Go(func() { s.checkStart(t) })
			}
		}
		all.Wait()
	}
}

// lostStart is a task within whose start the engine was killed.
type lostStart struct {
	controller exec.Controller
	adapter    *dockerexec.ContainerAdapter
	id         string
	err        error // of the start
}

// prepareStart makes the container of a task that has a network.
func prepareStart(t *testing.T, engine *dockerexec.Engine) *lostStart {
	t.Helper()
	task := taskAt(engineTask(t, "sleep", "1h"), api.TaskStateAccepted)
	attach(task, "dockerexec-lost-start", "10.218.0.0/24")
	s := &lostStart{controller: engineController(t, engine.Executor(nil), task), adapter: adapterOf(t, engine, task)}
	drive(t.Context(), t, task, s.controller, api.TaskStateReady)
	require.Equal(t, api.TaskStateReady, task.Status.State, task.Status.Err)
	prepared, err := s.adapter.Inspect(t.Context())
	require.NoError(t, err)
	s.id = prepared.ID
	return s
}

func (s *lostStart) checkStop(t *testing.T) {
	before, err := s.adapter.Inspect(t.Context())
	if !assert.NoError(t, err) {
		return
	}
	began := time.Now()
	assert.NoError(t, retried(func() error { return s.controller.Shutdown(t.Context()) }))
	took := time.Since(began)
	after, err := s.adapter.Inspect(t.Context())
	if !assert.NoError(t, err) {
		return
	}
	assert.False(t, after.State.Running)
	lost := before.State.Status == container.StateCreated && exec.IsTemporary(s.err)
	if lost && after.State.Status == container.StateCreated && after.State.FinishedAt == never {
		assert.GreaterOrEqual(t, took, 20*time.Second, "in which a start that was lost may come about")
	}
	t.Logf("killed within a start (%v); then %s; stopped in %v: %s", s.err, before.State.Status, took.Round(time.Millisecond), after.State.Status)
}

func (s *lostStart) checkStart(t *testing.T) {
	before, err := s.adapter.Inspect(t.Context())
	if !assert.NoError(t, err) {
		return
	}
	began := time.Now()
	started := retried(func() error { return s.controller.Start(t.Context()) })
	took := time.Since(began)
	assert.Less(t, took, 20*time.Second, "nothing is shared with a replacement")
	runs := started == nil || started == exec.ErrTaskStarted
	if !runs {
		time.Sleep(20 * time.Second) // in which a start that was lost may come about
	}
	after, err := s.adapter.Inspect(t.Context())
	if !assert.NoError(t, err) {
		return
	}
	assert.Equal(t, runs, after.State.Running)
	if runs {
		assert.NotEmpty(t, after.NetworkSettings.Networks["dockerexec-lost-start"].IPAddress)
	}
	t.Logf("killed within a start (%v); then %s; started again in %v: %v", s.err, before.State.Status, took.Round(time.Millisecond), started)
}

// retried repeats a call for as long as its error is a temporary one.
func retried(call func() error) error {
	for {
		if err := call(); !exec.IsTemporary(err) {
			return err
		}
		time.Sleep(time.Second)
	}
}
