package engine_test

import (
	"context"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/api/types/versions"
	engineapi "github.com/docker/docker/client"
	"github.com/dockerexec/dockerexec"
	"github.com/moby/swarmkit/v2/agent/configs"
	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/moby/swarmkit/v2/agent/secrets"
	"github.com/moby/swarmkit/v2/api"
	"github.com/moby/swarmkit/v2/identity"
	"github.com/moby/swarmkit/v2/log"
	"github.com/sirupsen/logrus"
	logtest "github.com/sirupsen/logrus/hooks/test"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// engineTask is a task with an ID of its own that runs the test image's program
// with args.
func engineTask(t testing.TB, args ...string) *api.Task {
	t.Helper()
	name := strings.NewReplacer("/", "-", "_", "-").Replace(strings.ToLower(t.Name()))
	return &api.Task{
		ID:                 identity.NewID(),
		ServiceID:          identity.NewID(),
		NodeID:             identity.NewID(),
		Slot:               1,
		ServiceAnnotations: api.Annotations{Name: name},
		Spec: api.TaskSpec{Runtime: &api.TaskSpec_Container{Container: &api.ContainerSpec{
			Image:       fromHarness(t, "DOCKEREXEC_TEST_IMAGE"),
			Args:        args,
			PullOptions: &api.ContainerSpec_PullOptions{RegistryAuth: engineAuth(t)},
		}}},
	}
}

// engineAdapter makes an adapter on the running engine and has all of its task
// removed at the end.
func engineAdapter(t *testing.T, client *engineapi.Client, task *api.Task) *dockerexec.ContainerAdapter {
	t.Helper()
	adapter, err := dockerexec.NewContainerAdapter(client, nil, task, nil)
	require.NoError(t, err)
	t.Cleanup(func() {
		ctx := context.WithoutCancel(t.Context())
		assert.NoError(t, adapter.Remove(ctx))
		assert.NoError(t, adapter.RemoveNetworks(ctx))
	})
	return adapter
}

// engineTwin is a second adapter of the same task, as a new process has it.
func engineTwin(t *testing.T, client *engineapi.Client, task *api.Task) *dockerexec.ContainerAdapter {
	t.Helper()
	adapter, err := dockerexec.NewContainerAdapter(client, nil, task, nil)
	require.NoError(t, err)
	return adapter
}

// adapterOf makes an adapter of an Engine.
func adapterOf(t testing.TB, engine *dockerexec.Engine, task *api.Task) *dockerexec.ContainerAdapter {
	t.Helper()
	adapter, err := engine.Adapter(nil, task, nil)
	require.NoError(t, err)
	return adapter
}

// taskController is a controller with SwarmKit's optional interfaces.
type taskController interface {
	exec.Controller
	exec.ControllerLogs
	exec.ContainerStatuser
	exec.PortStatuser
}

// engineController makes a controller, and has all of its task removed at the
// end.
func engineController(t testing.TB, executor exec.Executor, task *api.Task) taskController {
	t.Helper()
	made, err := executor.Controller(task)
	require.NoError(t, err)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), time.Minute)
		defer cancel()
		fresh, err := executor.Controller(task)
		assert.NoError(t, err)
		assert.NoError(t, fresh.Remove(ctx))
		assert.NoError(t, made.Close())
	})
	return made.(taskController)
}

// warmImage has the test image on the engine.
func warmImage(t testing.TB, client *engineapi.Client) {
	t.Helper()
	adapter, err := dockerexec.NewContainerAdapter(client, nil, engineTask(t, "exit", "0"), nil)
	require.NoError(t, err)
	require.NoError(t, adapter.PullImage(t.Context()))
}

// leftOfTask lists what is on the engine of the task.
func leftOfTask(t testing.TB, client *engineapi.Client, task *api.Task) []string {
	t.Helper()
	var left []string
	adapter, err := dockerexec.NewContainerAdapter(client, nil, task, nil)
	require.NoError(t, err)
	if _, err := client.ContainerInspect(t.Context(), adapter.ContainerName()); !cerrdefs.IsNotFound(err) {
		left = append(left, "container "+adapter.ContainerName())
	}
	for _, n := range task.Networks {
		name := n.Network.Spec.Annotations.Name
		if _, err := client.NetworkInspect(t.Context(), name, network.InspectOptions{}); !cerrdefs.IsNotFound(err) {
			left = append(left, "network "+name)
		}
	}
	return left
}

func spec(task *api.Task) *api.ContainerSpec { return task.Spec.GetContainer() }

// attach gives the task a bridge network with a subnet of its own.
func attach(task *api.Task, name, subnet string) {
	task.Networks = append(task.Networks, &api.NetworkAttachment{Network: &api.Network{
		ID:          "id-of-" + name,
		Spec:        api.NetworkSpec{Annotations: api.Annotations{Name: name}},
		DriverState: &api.Driver{Name: "bridge"},
		IPAM:        &api.IPAMOptions{Configs: []*api.IPAMConfig{{Subnet: subnet}}},
	}})
}

// attachTo gives the task one of the engine's own networks.
func attachTo(task *api.Task, predefined string) {
	task.Networks = []*api.NetworkAttachment{{Network: &api.Network{Spec: api.NetworkSpec{Annotations: api.Annotations{Name: predefined}}}}}
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

// asynchronously runs do and returns how to get its error.
func asynchronously(do func() error) func() error {
	done := make(chan error, 1)
	go func() { done <- do() }()
	return func() error { return <-done }
}

// testNode is the node that tasks with templates run on.
func testNode() *api.NodeDescription {
	return &api.NodeDescription{Hostname: "node-1", Platform: &api.Platform{Architecture: "x86_64", OS: "linux"}}
}

// atLeast reports whether an API version has what came with wanted.
func atLeast(version, wanted string) bool { return versions.GreaterThanOrEqualTo(version, wanted) }

// logLines are what a logger has logged.
type logLines struct{ *logtest.Hook }

// logged returns a context with a logger of its own, down to debug.
func logged(t testing.TB) (context.Context, logLines) {
	logger, hook := logtest.NewNullLogger()
	logger.SetLevel(logrus.DebugLevel)
	return log.WithLogger(t.Context(), logrus.NewEntry(logger)), logLines{hook}
}

// at returns the messages at a level or above.
func (l logLines) at(level logrus.Level) []string {
	var lines []string
	for _, entry := range l.AllEntries() {
		if entry.Level <= level {
			lines = append(lines, entry.Message)
		}
	}
	return lines
}

// logSink keeps what is published.
type logSink struct {
	mu       sync.Mutex
	messages []api.LogMessage
}

// Publish keeps a message.
func (s *logSink) Publish(_ context.Context, m api.LogMessage) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.messages = append(s.messages, m)
	return nil
}

// lines returns what is published, each as "stdout text".
func (s *logSink) lines() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var lines []string
	for _, m := range s.messages {
		lines = append(lines, map[api.LogStream]string{api.LogStreamStdout: "stdout ", api.LogStreamStderr: "stderr "}[m.Stream]+string(m.Data))
	}
	return lines
}

// pause pauses the container. On a busy machine runc may be unable to freeze one in which a
// process begins; then the container runs on, and is paused by another request.
// One with health checks is paused right after a check: pause of the conformance checks says why.
func pause(t testing.TB, client *engineapi.Client, adapter *dockerexec.ContainerAdapter) {
	t.Helper()
	for late := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		err := client.ContainerPause(t.Context(), adapter.ContainerName())
		if err == nil {
			return
		}
		require.ErrorContains(t, err, "unable to freeze")
		require.True(t, time.Now().Before(late), err)
	}
}

// awaitReady waits until the program of the test image has said that it is ready: before that
// it does not catch a signal.
func awaitReady(t testing.TB, adapter *dockerexec.ContainerAdapter) {
	t.Helper()
	require.Eventually(t, func() bool {
		sink := &logSink{}
		return adapter.PublishLogs(t.Context(), api.LogSubscriptionOptions{}, sink) == nil && slices.Contains(sink.lines(), "stdout ready\n")
	}, time.Minute, 10*time.Millisecond)
}

// stores are an agent's, of secrets and configs.
type stores struct {
	secrets exec.SecretsManager
	configs exec.ConfigsManager
}

func newStores() stores { return stores{secrets.NewManager(), configs.NewManager()} }

func (s stores) Secrets() exec.SecretGetter { return s.secrets }
func (s stores) Configs() exec.ConfigGetter { return s.configs }
func (s stores) Volumes() exec.VolumeGetter { return nil }

func secretFile(id string, file *api.FileTarget) *api.SecretReference {
	return &api.SecretReference{SecretID: id, SecretName: "name-of-" + id, Target: &api.SecretReference_File{File: file}}
}

func configFile(id string, file *api.FileTarget) *api.ConfigReference {
	return &api.ConfigReference{ConfigID: id, ConfigName: "name-of-" + id, Target: &api.ConfigReference_File{File: file}}
}

// testSeed is for a test's random choices. A test that fails shows it, and
// DOCKEREXEC_TEST_SEED repeats it, though not the timing.
func testSeed(t testing.TB) uint64 {
	t.Helper()
	seed := uint64(time.Now().UnixNano())
	if text := os.Getenv("DOCKEREXEC_TEST_SEED"); text != "" {
		var err error
		seed, err = strconv.ParseUint(text, 10, 64)
		require.NoError(t, err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("DOCKEREXEC_TEST_SEED=%d", seed)
		}
	})
	return seed
}

func (l logLines) warnings() (texts []string) {
	for _, entry := range l.AllEntries() {
		if entry.Level == logrus.WarnLevel {
			texts = append(texts, entry.Message)
		}
	}
	return texts
}
