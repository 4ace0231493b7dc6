package dockerexec

import (
	"context"
	"testing"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/docker/docker/api/types"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/api/types/system"
	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/moby/swarmkit/v2/api"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// infoClient is an engine that describes itself.
type infoClient struct {
	*fakeClient
	plugins func() (types.PluginsListResponse, error)
}

func (c *infoClient) PluginList(context.Context, filters.Args) (types.PluginsListResponse, error) {
	return c.plugins()
}

func managedPlugin(name string, enabled bool, capabilities ...string) *types.Plugin {
	p := &types.Plugin{Name: name, Enabled: enabled}
	for _, c := range capabilities {
		p.Config.Interface.Types = append(p.Config.Interface.Types, types.PluginInterfaceType{Prefix: "docker", Capability: c, Version: "1.0"})
	}
	return p
}

func newInfoClient(t testing.TB) *infoClient {
	client := &infoClient{fakeClient: newFakeClient(t)}
	client.info = func(context.Context) (system.Info, error) {
		return system.Info{
			Name: "engine-host", OSType: "linux", Architecture: "x86_64", NCPU: 4, MemTotal: 8 << 30, ServerVersion: "29.0.1",
			Labels: []string{"zone=b", "rack=a=1", "odd"},
			Plugins: system.PluginsInfo{
				Volume:        []string{"local"},
				Network:       []string{"overlay", "bridge", "macvlan"},
				Authorization: []string{"authy"},
				Log:           []string{"json-file", "fluentd"},
			},
		}, nil
	}
	client.plugins = func() (types.PluginsListResponse, error) {
		other := managedPlugin("other:latest", true, "volumedriver")
		other.Config.Interface.Types[0].Prefix = "example"
		return types.PluginsListResponse{
			managedPlugin("net:latest", true, "networkdriver"),
			nil,
			managedPlugin("off:latest", false, "volumedriver"),
			managedPlugin("log:latest", true, "logdriver"),
			managedPlugin("vol:latest", true, "volumedriver", "authz"),
			other,
		}, nil
	}
	return client
}

// Log drivers are reported too, so that SwarmKit's scheduler sees
// which nodes have one.
func TestDescribe(t *testing.T) {
	t.Parallel()
	generic := []*api.GenericResource{{Resource: &api.GenericResource_DiscreteResourceSpec{
		DiscreteResourceSpec: &api.DiscreteGenericResource{Kind: "ssd", Value: 3}}}}
	executor := NewExecutor(newInfoClient(t), generic)
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
	for _, test := range []struct {
		name          string
		info, plugins error
		want          string
		temporary     bool
	}{
		{name: "engine away", info: errAway, want: "describe the node: engine information (GET /info): ", temporary: true},
		{name: "information refused", info: simError{"no", cerrdefs.ErrPermissionDenied}, want: "describe the node: engine information (GET /info): Error response from daemon: no"},
		{name: "engine away between the calls", plugins: errAway, want: "describe the node: plugins (GET /plugins): ", temporary: true},
		{name: "plugins refused", plugins: simError{"no", cerrdefs.ErrPermissionDenied}},
		{name: "no plugin API", plugins: simError{"page not found", cerrdefs.ErrNotFound}},
		{name: "plugins not implemented", plugins: simError{"not supported on this platform", cerrdefs.ErrNotImplemented}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			client := newInfoClient(t)
			if test.info != nil {
				client.info = func(context.Context) (system.Info, error) { return system.Info{}, test.info }
			}
			if test.plugins != nil {
				client.plugins = func() (types.PluginsListResponse, error) { return nil, test.plugins }
			}
			node, err := NewExecutor(client, nil).Describe(t.Context())
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
	client := newFakeClient(t)
	client.failEverything(nil)
	_, err := NewExecutor(client, nil).Describe(ctx)
	assert.Equal(t, context.Canceled, err)
	_, err = NewExecutor(nil, nil).Describe(t.Context())
	require.EqualError(t, err, "dockerexec: the engine's client is nil")
	_, err = NewExecutor(nil, nil).Controller(plainTask())
	require.EqualError(t, err, "dockerexec: the engine's client is nil")
}

// created prepares a task with a template and returns what the engine is asked.
func created(t *testing.T, executor exec.Executor, client *infoClient) []string {
	t.Helper()
	var env []string
	client.containerCreate = func(_ context.Context, config *container.Config, _ *container.HostConfig, _ *network.NetworkingConfig, _ *ocispec.Platform, _ string) (container.CreateResponse, error) {
		env = config.Env
		return container.CreateResponse{}, nil
	}
	task := plainTask()
	spec(task).Image = "sha256:0000000000000000000000000000000000000000000000000000000000000001"
	spec(task).Env = []string{"ON={{.Node.Hostname}}/{{.Node.Platform.OS}}"}
	ctlr, err := executor.Controller(task)
	require.NoError(t, err)
	require.NoError(t, ctlr.Prepare(t.Context()))
	assert.Equal(t, []string{"ON={{.Node.Hostname}}/{{.Node.Platform.OS}}"}, spec(task).Env)
	return env
}

// The agent may name the node otherwise than the engine. It tells the
// manager, and the manager's answer tells the executor.
func TestHostnameInTemplatesIsTheAgents(t *testing.T) {
	t.Parallel()
	client := newInfoClient(t)
	executor := NewExecutor(client, nil)
	_, err := executor.Describe(t.Context())
	require.NoError(t, err)
	assert.Equal(t, []string{"ON=engine-host/linux"}, created(t, executor, client))
	require.NoError(t, executor.Configure(t.Context(), nil))
	require.NoError(t, executor.Configure(t.Context(), &api.Node{ID: "nodeid"})) // the manager's first answer to a new node
	assert.Equal(t, []string{"ON=engine-host/linux"}, created(t, executor, client))
	require.NoError(t, executor.Configure(t.Context(), &api.Node{Description: &api.NodeDescription{Hostname: "agent-host"}}))
	assert.Equal(t, []string{"ON=agent-host/linux"}, created(t, executor, client))
	_, err = executor.Describe(t.Context())
	require.NoError(t, err)
	assert.Equal(t, []string{"ON=agent-host/linux"}, created(t, executor, client))

	executor = NewExecutor(client, nil)
	require.NoError(t, executor.Configure(t.Context(), &api.Node{Description: &api.NodeDescription{Hostname: "agent-host"}}))
	assert.Equal(t, []string{"ON=agent-host/"}, created(t, executor, client))
}

// Under the race detector, with the agent's overwriting.
func TestExecutorIsSafeForConcurrentUse(t *testing.T) {
	t.Parallel()
	executor := NewExecutor(newInfoClient(t), nil)
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
	made := NewExecutor(newFakeClient(t), nil)
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
	client := newFakeClient(t) // fails on any call
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
	assert.Empty(t, client.called())
}
