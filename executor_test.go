package dockerexec

import (
	"context"
	"net/http"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/docker/docker/api/types/system"
	engineapi "github.com/docker/docker/client"
	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/moby/swarmkit/v2/api"
	"github.com/pkg/errors"
	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockerexec/dockerexec/dockerexectest"
)

// describedEngine is one that says much of itself.
func describedEngine(t testing.TB) *dockerexectest.Engine {
	t.Helper()
	engine := dockerexectest.New(t, dockerexectest.WithInfo(system.Info{
		Name: "engine-host", OSType: "linux", Architecture: "x86_64", NCPU: 4, MemTotal: 8 << 30, ServerVersion: "29.0.1",
		Labels: []string{"zone=b", "rack=a=1", "odd"},
		Plugins: system.PluginsInfo{
			Volume:        []string{"local"},
			Network:       []string{"overlay", "bridge", "macvlan"},
			Authorization: []string{"authy"},
			Log:           []string{"json-file", "fluentd"},
		},
	}))
	engine.LocalImage("example/web:1", dockerexectest.Exit(0))
	return engine
}

// managedPlugins is an engine's list of plugins, some of which count for nothing.
const managedPlugins = `[
	{"Name": "net:latest", "Enabled": true, "Config": {"Interface": {"Types": ["docker.networkdriver/1.0"]}}},
	null,
	{"Name": "off:latest", "Enabled": false, "Config": {"Interface": {"Types": ["docker.volumedriver/1.0"]}}},
	{"Name": "log:latest", "Enabled": true, "Config": {"Interface": {"Types": ["docker.logdriver/1.0"]}}},
	{"Name": "vol:latest", "Enabled": true, "Config": {"Interface": {"Types": ["docker.volumedriver/1.0", "docker.authz/1.0"]}}},
	{"Name": "other:latest", "Enabled": true, "Config": {"Interface": {"Types": ["example.volumedriver/1.0"]}}}
]`

// Log drivers are reported too, so that SwarmKit's scheduler sees
// which nodes have one.
func TestDescribe(t *testing.T) {
	t.Parallel()
	generic := []*api.GenericResource{{Resource: &api.GenericResource_DiscreteResourceSpec{
		DiscreteResourceSpec: &api.DiscreteGenericResource{Kind: "ssd", Value: 3}}}}
	engine := describedEngine(t)
	engine.FailAll("GET /plugins", dockerexectest.Answer(http.StatusOK, managedPlugins))
	executor := NewExecutor(engine.Client(), generic)
	want := &api.NodeDescription{
		Hostname: "engine-host",
		Platform: &api.Platform{Architecture: "x86_64", OS: "linux"},
		Resources: &api.Resources{NanoCPUs: 4000000000, MemoryBytes: 8589934592, Generic: []*api.GenericResource{
			{Resource: &api.GenericResource_DiscreteResourceSpec{DiscreteResourceSpec: &api.DiscreteGenericResource{Kind: "ssd", Value: 3}}}}},
		Engine: &api.EngineDescription{
			EngineVersion: "29.0.1",
			Labels:        map[string]string{"zone": "b", "rack": "a=1"},
			Plugins: []api.PluginDescription{
				{Type: "Authorization", Name: "authy"},
				{Type: "Log", Name: "fluentd"},
				{Type: "Log", Name: "json-file"},
				{Type: "Log", Name: "log:latest"},
				{Type: "Network", Name: "bridge"},
				{Type: "Network", Name: "macvlan"},
				{Type: "Network", Name: "net:latest"},
				{Type: "Network", Name: "overlay"},
				{Type: "Volume", Name: "local"},
				{Type: "Volume", Name: "vol:latest"},
				{Type: "authz", Name: "vol:latest"},
			},
		},
	}
	for range 3 {
		node, err := executor.Describe(t.Context())
		require.NoError(t, err)
		require.Equal(t, want, node)
		// What is handed out is the caller's to change.
		node.Hostname, node.Resources.Generic[0], node.Engine.Plugins[0].Name = "mine", nil, "mine"
		node.Engine.Labels["zone"] = "mine"
	}
}

func TestDescribeErrors(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		request   string
		fault     dockerexectest.Fault
		want      string // empty: no error
		temporary bool
	}{
		"engine away":                   {"GET /info", dockerexectest.Drop(), "describe the node: engine information (GET /info): ", true},
		"information refused":           {"GET /info", dockerexectest.Refuse(403, "no"), "describe the node: engine information (GET /info): Error response from daemon: no", false},
		"engine away between the calls": {"GET /plugins", dockerexectest.Drop(), "describe the node: plugins (GET /plugins): ", true},
		"plugins refused":               {"GET /plugins", dockerexectest.Refuse(403, "no"), "", false},
		"no plugin API":                 {"GET /plugins", dockerexectest.Refuse(404, "page not found"), "", false},
		"plugins not implemented":       {"GET /plugins", dockerexectest.Refuse(501, "not supported on this platform"), "", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			engine := describedEngine(t)
			engine.FailNext(test.request, test.fault)
			node, err := NewExecutor(engine.Client(), nil).Describe(t.Context())
			if test.want == "" {
				require.NoError(t, err)
				assert.Equal(t, "engine-host", node.Hostname)
				return
			}
			require.ErrorContains(t, err, test.want)
			assert.Equal(t, test.temporary, exec.IsTemporary(err))
			assert.Nil(t, node)
		})
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := NewExecutor(describedEngine(t).Client(), nil).Describe(ctx)
	assert.Equal(t, context.Canceled, err)
	_, err = NewExecutor(nil, nil).Describe(t.Context())
	require.EqualError(t, err, "dockerexec: the engine's client is nil")
	_, err = NewExecutor(nil, nil).Controller(plainTask())
	require.EqualError(t, err, "dockerexec: the engine's client is nil")
}

// created makes a container with a template of the node and returns its environment.
func created(t *testing.T, executor exec.Executor, engine *dockerexectest.Engine) []string {
	t.Helper()
	task := plainTask()
	spec(task).Env = []string{"ON={{.Node.Hostname}}/{{.Node.Platform.OS}}"}
	ctlr, err := executor.Controller(task)
	require.NoError(t, err)
	require.NoError(t, ctlr.(*controller).adapter.Create(t.Context()))
	assert.Equal(t, []string{"ON={{.Node.Hostname}}/{{.Node.Platform.OS}}"}, spec(task).Env)
	env := engine.Container(taskName).Inspect().Config.Env
	require.NoError(t, ctlr.Remove(t.Context()))
	return env
}

// The agent may name the node otherwise than the engine. It tells the
// manager, and the manager's answer tells the executor.
func TestHostnameInTemplatesIsTheAgents(t *testing.T) {
	t.Parallel()
	engine := describedEngine(t)
	executor := NewExecutor(engine.Client(), nil)
	_, err := executor.Describe(t.Context())
	require.NoError(t, err)
	assert.Equal(t, []string{"ON=engine-host/linux"}, created(t, executor, engine))
	require.NoError(t, executor.Configure(t.Context(), nil))
	require.NoError(t, executor.Configure(t.Context(), &api.Node{ID: "nodeid"})) // the manager's first answer to a new node
	assert.Equal(t, []string{"ON=engine-host/linux"}, created(t, executor, engine))
	require.NoError(t, executor.Configure(t.Context(), &api.Node{Description: &api.NodeDescription{Hostname: "agent-host"}}))
	assert.Equal(t, []string{"ON=agent-host/linux"}, created(t, executor, engine))
	_, err = executor.Describe(t.Context())
	require.NoError(t, err)
	assert.Equal(t, []string{"ON=agent-host/linux"}, created(t, executor, engine))

	executor = NewExecutor(engine.Client(), nil)
	require.NoError(t, executor.Configure(t.Context(), &api.Node{Description: &api.NodeDescription{Hostname: "agent-host"}}))
	assert.Equal(t, []string{"ON=agent-host/"}, created(t, executor, engine))
}

// Under the race detector, with the agent's overwriting.
func TestExecutorIsSafeForConcurrentUse(t *testing.T) {
	t.Parallel()
	executor := NewExecutor(describedEngine(t).Client(), nil)
	task := plainTask()
	var all []func() error
	for range 20 {
		all = append(all,
			asynchronously(func() error {
				node, err := executor.Describe(context.Background())
				if node != nil {
					node.Hostname, node.TLSInfo, node.FIPS = "agent-host", &api.NodeTLSInfo{}, true
				}
				return err
			}),
			asynchronously(func() error { _, err := executor.Controller(task); return err }),
			asynchronously(func() error {
				return executor.Configure(context.Background(), &api.Node{Description: &api.NodeDescription{Hostname: "agent-host"}})
			}),
			asynchronously(func() error { return executor.SetNetworkBootstrapKeys([]*api.EncryptionKey{{}}) }),
		)
	}
	for _, err := range all {
		require.NoError(t, err())
	}
}

// The agent delivers secrets and configs, and a task sees its own only.
func TestSecretsAndConfigsAreRestrictedToTheTask(t *testing.T) {
	t.Parallel()
	made := NewExecutor(dockerexectest.New(t).Client(), nil)
	require.NoError(t, made.Configure(t.Context(), &api.Node{Description: &api.NodeDescription{Hostname: "host-1"}}))
	made.(exec.SecretsProvider).Secrets().Add(api.Secret{ID: "s1"}, api.Secret{ID: "s2"})
	made.(exec.ConfigsProvider).Configs().Add(api.Config{ID: "c1"}, api.Config{ID: "c2"})
	task := plainTask()
	spec(task).Secrets = []*api.SecretReference{{SecretID: "s1", Target: &api.SecretReference_File{File: &api.FileTarget{Name: "s"}}}}
	spec(task).Configs = []*api.ConfigReference{{ConfigID: "c1", Target: &api.ConfigReference_File{File: &api.FileTarget{Name: "c"}}}}
	c, err := made.Controller(task)
	require.NoError(t, err)
	_, given, err := c.(*controller).adapter.fullTask()
	require.NoError(t, err)
	deps := given.getter
	secret, err := deps.Secrets().Get("s1")
	require.NoError(t, err)
	assert.Equal(t, "s1", secret.ID)
	_, err = deps.Secrets().Get("s2")
	require.ErrorContains(t, err, "not authorized")
	config, err := deps.Configs().Get("c1")
	require.NoError(t, err)
	assert.Equal(t, "c1", config.ID)
	_, err = deps.Configs().Get("c2")
	require.ErrorContains(t, err, "not authorized")
	assert.Nil(t, deps.Volumes())
	_, isVolumes := made.(exec.VolumesProvider)
	assert.False(t, isVolumes)
}

// SwarmKit calls Controller under a lock, and copies the task after it.
func TestControllerDoesNoIOAndKeepsTheTask(t *testing.T) {
	t.Parallel()
	engine := dockerexectest.New(t)
	client := engine.Client()
	task := plainTask()
	spec(task).Env = []string{"ID={{.Task.ID}}"}
	before := task.Copy()
	_, err := NewExecutor(client, nil).Controller(task)
	require.NoError(t, err)
	assert.Equal(t, before, task)

	for name, task := range map[string]*api.Task{
		"nil":        nil,
		"no runtime": {ID: "x"},
		"odd refs":   {ID: "x", Spec: api.TaskSpec{Runtime: &api.TaskSpec_Container{Container: &api.ContainerSpec{Image: "x", Secrets: []*api.SecretReference{nil}}}}},
	} {
		_, err := NewExecutor(client, nil).Controller(task)
		require.Error(t, err, name)
	}
	_, err = NewExecutor(client, nil).Controller(&api.Task{Spec: api.TaskSpec{Runtime: &api.TaskSpec_Container{Container: &api.ContainerSpec{}}}})
	assert.Equal(t, ErrImageRequired, err)
	_, err = NewExecutor(client, nil).Controller(&api.Task{Spec: api.TaskSpec{Runtime: &api.TaskSpec_Attachment{Attachment: &api.NetworkAttachmentSpec{}}}})
	assert.Equal(t, exec.ErrRuntimeUnsupported, err)
	assert.Empty(t, engine.Requests())
}

// whyRefused is what is wrong with refusedTask.
const whyRefused = "dockerexec: task field Spec.Container.Hosts[0]: is not an address with one name or more"

// refusedTask is one that another version may have run.
func refusedTask(state api.TaskState) *api.Task {
	task := taskAt(plainTask(), state)
	attach(task, "n1", "10.1.0.0/24")
	spec(task).Hosts = []string{"odd"}
	return task
}

// earlier is an engine with the container of refusedTask in a state, as another version
// made it.
func earlier(t *testing.T, state api.TaskState) *dockerexectest.Engine {
	t.Helper()
	engine := webEngine(t, obedient)
	task := plainTask()
	attach(task, "n1", "10.1.0.0/24")
	reached(t, engine, task, state)
	engine.ForgetRequests()
	return engine
}

func TestRefusedTaskThatRunsIsWaitedFor(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		engine := earlier(t, api.TaskStateRunning)
		task := refusedTask(api.TaskStateRunning)
		ctlr, status, err := exec.Resolve(t.Context(), task, NewExecutor(engine.Client(), nil))
		require.NoError(t, err)
		require.Equal(t, api.TaskStateRunning, status.State)
		time.AfterFunc(time.Minute, func() { engine.Container(taskName).Exit(3) })
		drive(t.Context(), t, task, ctlr, api.TaskStateCompleted)
		assert.Equal(t, api.TaskStateFailed, task.Status.State)
		assert.Equal(t, "task: non-zero exit (3)", task.Status.Err)
		assert.Equal(t, int32(3), task.Status.GetContainer().ExitCode)
		require.NoError(t, ctlr.Remove(t.Context()))
		assert.Empty(t, leftOn(engine))
	})
}

func TestRefusedTaskThatRunsIsShutDown(t *testing.T) {
	t.Parallel()
	for name, stop := range map[string]func(exec.Controller, context.Context) error{
		"exited 143": exec.Controller.Shutdown, "exited 137": exec.Controller.Terminate,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T) {
				engine := earlier(t, api.TaskStateRunning)
				ctlr := controllerOn(t, engine, refusedTask(api.TaskStateRunning))
				require.NoError(t, stop(ctlr, t.Context()))
				assert.Equal(t, name, stateOf(engine.Container(taskName)))
				status, err := ctlr.ContainerStatus(t.Context())
				require.NoError(t, err)
				assert.Equal(t, engine.Container(taskName).ID(), status.ContainerID)
				require.NoError(t, ctlr.Remove(t.Context()))
				assert.Empty(t, leftOn(engine))
			})
		})
	}
}

// A container that runs is not left to itself because the agent ended between
// its start and the note of it.
func TestRefusedTaskThatStartedGoesOn(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		engine := earlier(t, api.TaskStateRunning)
		task := refusedTask(api.TaskStateStarting)
		drive(t.Context(), t, task, controllerOn(t, engine, task), api.TaskStateRunning)
		assert.Equal(t, api.TaskStateRunning, task.Status.State, task.Status.Err)
	})
}

func TestRefusedTaskMakesNothing(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ from, to api.TaskState }{
		{api.TaskStatePreparing, api.TaskStateRejected},
		{api.TaskStateStarting, api.TaskStateFailed},
	} {
		t.Run(test.from.String(), func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T) {
				engine := earlier(t, api.TaskStateReady)
				task := refusedTask(test.from)
				ctlr := controllerOn(t, engine, task)
				drive(t.Context(), t, task, ctlr, test.to)
				assert.Equal(t, test.to, task.Status.State)
				assert.Equal(t, whyRefused, task.Status.Err)
				requests := engine.Requests()
				assert.Len(t, requests, requests.Count(inspectRequest)+requests.Count("HEAD /_ping"))
				require.NoError(t, ctlr.Remove(t.Context()))
				assert.Empty(t, leftOn(engine))
			})
		})
	}
}

// Where no container can be there the agent hears of it at once, as it does of a
// name that would make other requests than it should.
func TestRefusedTaskWithoutContainer(t *testing.T) {
	t.Parallel()
	client := dockerexectest.New(t).Client()
	_, err := NewExecutor(client, nil).Controller(refusedTask(api.TaskStateAccepted))
	require.EqualError(t, err, whyRefused)
	for name, change := range map[string]func(*api.Task){
		"no ID":      func(task *api.Task) { task.ID = "" },
		"odd name":   func(task *api.Task) { task.Annotations.Name = "../images" },
		"no image":   func(task *api.Task) { spec(task).Image = "" },
		"no runtime": func(task *api.Task) { task.Spec.Runtime = nil },
		"nil spec":   func(task *api.Task) { task.Spec.Runtime = &api.TaskSpec_Container{} },
		"typed nil":  func(task *api.Task) { task.Spec.Runtime = (*api.TaskSpec_Container)(nil) },
	} {
		task := refusedTask(api.TaskStateRunning)
		change(task)
		_, err := NewExecutor(client, nil).Controller(task)
		require.Error(t, err, name)
		_, err = NewExecutor(nil, nil).Controller(task)
		require.EqualError(t, err, "dockerexec: the engine's client is nil", name)
	}
}

// What is no task at all is taken up for its end, too.
func TestRefusedTaskWithNilElements(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		engine := webEngine(t, obedient)
		reached(t, engine, plainTask(), api.TaskStateRunning)
		task := taskAt(plainTask(), api.TaskStateRunning)
		task.Networks = []*api.NetworkAttachment{nil}
		task.Endpoint = &api.Endpoint{Ports: []*api.PortConfig{nil}}
		spec(task).Secrets = []*api.SecretReference{nil}
		spec(task).Configs = []*api.ConfigReference{nil}
		spec(task).Ulimits = []*api.ContainerSpec_Ulimit{nil}
		ctlr := controllerOn(t, engine, task)
		require.Error(t, ctlr.Prepare(t.Context()))
		require.NoError(t, ctlr.Shutdown(t.Context()))
		require.NoError(t, ctlr.Remove(t.Context()))
		assert.Empty(t, leftOn(engine))
	})
}

// The files of a refused task go with its container, whatever its references are
// refused for.
func TestRefusedTaskLeavesNoFiles(t *testing.T) {
	t.Parallel()
	_, client := localEngine(t)
	store := newTestStore(t)
	require.NoError(t, newFilesAdapter(t, client, store, ownedTask(), stores()).Create(t.Context()))
	require.NotEmpty(t, tree(t, store.dir))
	task := ownedTask()
	spec(task).Secrets = append(spec(task).Secrets, secretFile("s2", ownFile("odd", 0o4755)))
	engine := newFilesEngine(t, client, store)
	_, refusal := engine.Adapter(goldenNode(), task, stores())
	require.Error(t, refusal)
	adapter, err := engine.refusedAdapter(task, refusal)
	require.NoError(t, err)
	require.NoError(t, adapter.Remove(t.Context()))
	assert.Empty(t, tree(t, store.dir))
}

// A task may be called as another one's file is; the name is refused, and
// nothing of the other one's goes with it.
func TestRefusedTaskRemovesNoFilesOfAnother(t *testing.T) {
	t.Parallel()
	_, client := localEngine(t)
	store := newTestStore(t)
	require.NoError(t, newFilesAdapter(t, client, store, ownedTask(), stores()).Create(t.Context()))
	engine := newFilesEngine(t, client, store)
	for _, id := range []string{"taskid/secret.0", ".", "..", "../engine-1/taskid"} {
		task := ownedTask()
		task.ID, task.Annotations.Name = id, "another"
		_, refusal := engine.Adapter(goldenNode(), task, stores())
		require.ErrorContains(t, refusal, "dockerexec: task field ID: ")
		adapter, err := engine.refusedAdapter(task, refusal)
		require.NoError(t, err)
		require.NoError(t, adapter.Remove(t.Context()))
		assert.Equal(t, written, tree(t, store.dir), id)
	}
}

// nodeTask is one whose request depends on the node.
func nodeTask(state api.TaskState) *api.Task {
	task := taskAt(plainTask(), state)
	attach(task, "n1", "10.1.0.0/24")
	spec(task).Hostname = "on-{{.Node.Hostname}}-{{.Node.Platform.OS}}"
	return task
}

const whyUnknown = "dockerexec: the task's templates say something of the node, and the engine has not described it yet"

// The agent starts while the engine is away, so that nothing has described the
// node when it takes up its tasks.
func TestTaskWaitsForTheNodesDescription(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		engine := webEngine(t, obedient)
		executor := NewExecutor(engine.Client(), nil)
		task := nodeTask(api.TaskStatePreparing)
		made, err := executor.Controller(task)
		require.NoError(t, err)
		ctlr := made.(*controller)
		for range 2 {
			err = ctlr.Prepare(t.Context())
			require.EqualError(t, err, whyUnknown)
			assert.True(t, exec.IsTemporary(err))
		}
		assert.Empty(t, leftOn(engine))

		require.NoError(t, executor.Configure(t.Context(), &api.Node{Description: &api.NodeDescription{
			Hostname: "host-1", Platform: &api.Platform{OS: "linux"}}}))
		require.NoError(t, ctlr.Prepare(t.Context()))
		assert.Equal(t, "on-host-1-linux", engine.Container(taskName).Inspect().Config.Hostname)
		// What it was made as it stays.
		require.NoError(t, executor.Configure(t.Context(), &api.Node{Description: &api.NodeDescription{Hostname: "host-2"}}))
		whole, _, err := ctlr.adapter.fullTask()
		require.NoError(t, err)
		assert.Equal(t, "on-host-1-linux", whole.config().Hostname)
		require.NoError(t, ctlr.Start(t.Context()))
		require.NoError(t, ctlr.Remove(t.Context()))
		assert.Empty(t, leftOn(engine))
		assert.Equal(t, "on-{{.Node.Hostname}}-{{.Node.Platform.OS}}", spec(task).Hostname)
	})
}

// What the description says may be no good: no path, or a host name that is too long only
// with the node's.
func TestTaskIsRefusedOnceTheNodeIsDescribed(t *testing.T) {
	t.Parallel()
	for want, test := range map[string]struct {
		hostname string
		change   func(*api.ContainerSpec)
	}{
		`dockerexec: task field Spec.Container.Mounts[0].Source: "host-1" is not an absolute path`: {"host-1", func(s *api.ContainerSpec) {
			s.Mounts = []api.Mount{{Type: api.MountTypeBind, Source: "{{.Node.Hostname}}", Target: "/data"}}
		}},
		"dockerexec: task field Spec.Container.Hostname: has 66 bytes, a system takes 64": {"a-host-with-a-name-of-fifty-six-bytes.rack-12.example.com", func(s *api.ContainerSpec) {
			s.Hostname = "on-{{.Node.Hostname}}-{{.Node.Platform.OS}}"
		}},
	} {
		bubble(t, func(t *testing.T) {
			engine := webEngine(t, obedient)
			executor := NewExecutor(engine.Client(), nil)
			task := taskAt(plainTask(), api.TaskStatePreparing)
			test.change(spec(task))
			ctlr, err := executor.Controller(task)
			require.NoError(t, err)
			require.True(t, exec.IsTemporary(ctlr.Prepare(t.Context())))
			require.NoError(t, executor.Configure(t.Context(), &api.Node{Description: &api.NodeDescription{
				Hostname: test.hostname, Platform: &api.Platform{OS: "linux"}}}))
			drive(t.Context(), t, task, ctlr, api.TaskStateRejected)
			assert.Equal(t, want, task.Status.Err)
			require.NoError(t, ctlr.Remove(t.Context()))
			assert.Empty(t, leftOn(engine))
		})
	}
}

// An agent that is started anew while the engine is away has to stop and remove
// what runs.
func TestTaskThatRunsIsEndedWithoutTheNodesDescription(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		engine := earlier(t, api.TaskStateRunning)
		task := nodeTask(api.TaskStateRunning)
		spec(task).Mounts = []api.Mount{{Type: api.MountTypeVolume, Source: "{{.Node.Hostname}}", Target: "/data"}}
		ctlr, status, err := exec.Resolve(t.Context(), task, NewExecutor(engine.Client(), nil))
		require.NoError(t, err)
		require.Equal(t, api.TaskStateRunning, status.State)
		wait := asynchronously(func() error { return ctlr.Wait(t.Context()) })
		time.Sleep(time.Minute)
		require.NoError(t, ctlr.Shutdown(t.Context()))
		require.EqualError(t, wait(), "task: non-zero exit (143)")
		require.NoError(t, ctlr.Remove(t.Context()))
		assert.Empty(t, leftOn(engine))
	})
}

func TestOnlyTemplatesOfTheNodeWaitForIt(t *testing.T) {
	t.Parallel()
	secret := []*api.SecretReference{{SecretID: "s1", Target: &api.SecretReference_File{File: &api.FileTarget{Name: "s"}}}}
	for _, test := range []struct {
		name   string
		change func(*api.ContainerSpec)
		waits  bool
	}{
		{"none", func(*api.ContainerSpec) {}, false},
		{"the task's own", func(s *api.ContainerSpec) { s.Hostname = "{{.Task.Slot}}-{{.Node.ID}}" }, false},
		{"all that a template can show", func(s *api.ContainerSpec) { s.Env = []string{"A={{.}}"} }, true},
		{"no template", func(s *api.ContainerSpec) { s.Env = []string{"A=.Node.Hostname"} }, false},
		{"labels, which are not expanded", func(s *api.ContainerSpec) { s.Labels = map[string]string{"a": "{{.Node.Hostname}}"} }, false},
		{"env", func(s *api.ContainerSpec) { s.Env = []string{"A=1", "B={{.Node.ID}}{{.Node.Hostname}}"} }, true},
		{"a block", func(s *api.ContainerSpec) { s.Hostname = "{{with .Node}}{{.Hostname}}{{end}}" }, true},
		{"a variable", func(s *api.ContainerSpec) { s.Hostname = "{{$x := .}}{{$x.Node.Platform.OS}}" }, true},
		{"driver options", func(s *api.ContainerSpec) {
			s.Mounts = []api.Mount{{Type: api.MountTypeVolume, Source: "v", Target: "/v", VolumeOptions: &api.Mount_VolumeOptions{
				DriverConfig: &api.Driver{Name: "d", Options: map[string]string{"o": "{{.Node.Hostname}}"}}}}}
		}, true},
		{"a secret, which may have one", func(s *api.ContainerSpec) { s.Secrets = secret }, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			task := plainTask()
			test.change(spec(task))
			ctlr, err := NewExecutor(dockerexectest.New(t).Client(), nil).Controller(task)
			require.NoError(t, err)
			_, _, err = ctlr.(*controller).adapter.fullTask()
			assert.Equal(t, test.waits, err != nil)
		})
	}
}

// givenStores are a caller's stores, with volume plugins.
type givenStores struct {
	getters
	nodeInfo func(context.Context) ([]*api.NodeCSIInfo, error)
}

func (s *givenStores) Secrets() exec.SecretsManager {
	return s.secrets.(exec.SecretsManager)
}
func (s *givenStores) Configs() exec.ConfigsManager { return s.configs.(exec.ConfigsManager) }
func (s *givenStores) Volumes() exec.VolumesManager {
	if s.nodeInfo == nil {
		return nil
	}
	return s
}
func (s *givenStores) Get(id string) (string, error)               { return "/published/" + id, nil }
func (s *givenStores) Add(...api.VolumeAssignment)                 {}
func (s *givenStores) Remove([]api.VolumeAssignment, func(string)) {}
func (s *givenStores) Plugins() exec.VolumePluginManager           { return s }
func (s *givenStores) NodeInfo(ctx context.Context) ([]*api.NodeCSIInfo, error) {
	return s.nodeInfo(ctx)
}

// Only with a store of volumes the executor is a VolumesProvider.
func TestTheStoresOfAnExecutor(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		host := newHost(t)
		client := host.Client(engineapi.WithHost("unix:///run/docker.sock"))
		given := &givenStores{getters: stores(), nodeInfo: func(context.Context) ([]*api.NodeCSIInfo, error) { return nil, nil }}
		e := NewExecutor(client, nil, WithDependencies(given), WithPullPolicy(PullNever))
		assert.Same(t, given, e.(exec.VolumesProvider).Volumes())
		e.(exec.SecretsProvider).Secrets().Reset()
		_, err := given.secrets.Get("s1")
		require.Error(t, err, "it is the given store")
		_, err = e.(exec.ConfigsProvider).Configs().Get("c1")
		require.NoError(t, err)
		_, err = e.Describe(t.Context())
		require.NoError(t, err)
		ctlr, err := e.Controller(volumeTask())
		require.NoError(t, err)
		require.NoError(t, ctlr.Prepare(t.Context()))
		assert.Equal(t, "/published/v1", host.Container(taskName).Inspect().HostConfig.Mounts[0].Source)

		given.nodeInfo = nil
		for _, option := range []Option{WithDependencies(given), WithDependencies(nil), nil} {
			_, is := NewExecutor(client, nil, option).(exec.VolumesProvider)
			assert.False(t, is)
		}
	})
}

// A description that changes closes the agent's session.
func TestDescribeSaysWhatVolumePluginsSay(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		ctx, lines := logged(t)
		given := &givenStores{getters: stores()}
		one, two := &api.NodeCSIInfo{PluginName: "one", NodeID: "1"}, &api.NodeCSIInfo{PluginName: "two", NodeID: "2"}
		answer := func(infos []*api.NodeCSIInfo, err error) func(context.Context) ([]*api.NodeCSIInfo, error) {
			return func(context.Context) ([]*api.NodeCSIInfo, error) { return infos, err }
		}
		given.nodeInfo = answer(nil, nil)
		e := NewExecutor(describedEngine(t).Client(), nil, WithDependencies(given))
		describe := func() []*api.NodeCSIInfo {
			t.Helper()
			node, err := e.Describe(ctx)
			require.NoError(t, err)
			for _, info := range node.CSIInfo {
				defer func(id string) { info.NodeID = id }(info.NodeID)
				info.NodeID = "mine"
			}
			return node.CSIInfo
		}
		assert.Empty(t, describe())
		given.nodeInfo = answer([]*api.NodeCSIInfo{two, nil, one}, nil)
		assert.Equal(t, []*api.NodeCSIInfo{one, two}, describe(), "sorted")
		given.nodeInfo = answer([]*api.NodeCSIInfo{{PluginName: "two", NodeID: "3"}}, nil)
		changed := []*api.NodeCSIInfo{one, {PluginName: "two", NodeID: "3"}}
		assert.Equal(t, changed, describe(), "the plugin one fails")
		given.nodeInfo = answer(nil, errors.New("no plugins"))
		assert.Equal(t, changed, describe())
		assert.Equal(t, []string{"volume plugins not asked about the node"}, lines(logrus.DebugLevel))

		var asked atomic.Int64
		release := make(chan struct{})
		given.nodeInfo = func(context.Context) ([]*api.NodeCSIInfo, error) {
			asked.Add(1)
			<-release // in spite of the context
			return []*api.NodeCSIInfo{{PluginName: "one", NodeID: "4"}}, nil
		}
		began := time.Now()
		assert.Equal(t, changed, describe(), "the plugins hang")
		assert.Equal(t, 5*time.Second, time.Since(began))
		assert.Equal(t, changed, describe())
		assert.Equal(t, int64(1), asked.Load(), "they are asked once")
		close(release)
		synctest.Wait()
		assert.Equal(t, "4", describe()[0].NodeID)
	})
}
