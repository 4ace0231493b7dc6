package dockerexec

import (
	"context"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/docker/docker/api/types"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/system"
	engineapi "github.com/docker/docker/client"
	"github.com/moby/swarmkit/v2/agent/configs"
	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/moby/swarmkit/v2/agent/secrets"
	"github.com/moby/swarmkit/v2/api"
	"github.com/moby/swarmkit/v2/log"
)

// executor is what [Engine.Executor] returns.
type executor struct {
	engine  *Engine
	generic []*api.GenericResource
	secrets exec.SecretsManager
	configs exec.ConfigsManager
	volumes exec.VolumesManager // nil: tasks have no cluster volumes
	csi     csiInfo

	mu       sync.Mutex
	node     *api.NodeDescription // nil: Describe has not succeeded yet
	hostname string               // the node's name in the swarm; empty: Configure was not called yet
	platform *api.Platform        // as the swarm knows it; not used once node is known

	// When the list of plugins first failed while there was no description; zero: it has not failed.
	pluginsFailed time.Time

	sweep *orphanSweep

	said atomic.Pointer[engineSaid] // at the last Describe; nil: none has succeeded yet
}

var (
	_ exec.Executor        = (*executor)(nil)
	_ exec.SecretsProvider = (*executor)(nil)
	_ exec.ConfigsProvider = (*executor)(nil)
)

// NewExecutor makes the executor of a SwarmKit agent, which runs its tasks on the
// engine behind client. NewExecutor is short for [NewEngine] and [Engine.Executor]. opts
// are the options of that Engine. Only this executor uses it. What NewEngine says about
// the client applies here too.
func NewExecutor(client engineapi.APIClient, genericResources []*api.GenericResource, opts ...Option) exec.Executor {
	return NewEngine(client, opts...).Executor(genericResources)
}

// Executor makes the executor of a SwarmKit agent, which runs its tasks on e. It does
// no I/O. The executor has nothing to close and is safe for concurrent use. The caller
// closes the client of e, once the agent has ended. genericResources are what the node
// offers besides CPUs and memory; nil for none. Describe and Controller report a nil
// client, and an option whose value is impossible. [Option] says what Controller does then.
//
// The executor's methods:
//
//   - Describe asks the engine. The caller may change the description. Its plugins are
//     sorted. An engine without a plugin API, or one that refuses it, counts as one
//     without managed plugins. If the engine refuses a request after a first description,
//     that part of the description stays as it was. Errors are as for [ContainerAdapter].
//     Describe also starts the look for what was left behind (see [WithOrphans]), and does
//     not wait for it. The look and its removals end with the context of that Describe.
//   - Configure notes the node's ID and its hostname, which the agent may have overridden. From
//     then on {{.Node.Hostname}} in a task is that name. Before that it is the
//     engine's hostname. If the agent starts while the engine is away, neither name is
//     known. Then Prepare and Start fail with a temporary error for a task that has
//     secrets or configs, or whose templates refer to the node. Configure never fails.
//   - SetNetworkBootstrapKeys does nothing: an engine's API takes no keys for overlay
//     networks.
//   - Controller makes a controller as [Engine.Controller] does.
//   - Secrets and Configs return the stores that the agent fills: see
//     [exec.SecretsProvider] and [exec.ConfigsProvider]. With cluster volumes (see
//     [WithDependencies]) the executor is an [exec.VolumesProvider] too.
//
// At its start an agent resumes tasks before it is connected, and so before Configure.
// If a resumed task has no container yet, the task gets the engine's hostname. (SwarmKit's
// swarmd/dockerexec ignores Configure. It sees the agent's override of the hostname only
// through a data race, because the agent and that executor share one description.)
func (e *Engine) Executor(genericResources []*api.GenericResource) exec.Executor {
	made := &executor{
		engine:  e,
		generic: copyResources(genericResources),
		secrets: secrets.NewManager(),
		configs: configs.NewManager(),
		sweep:   &orphanSweep{engine: e},
	}
	if e == nil || e.options.dependencies == nil {
		return made
	}
	if given := e.options.dependencies.Secrets(); given != nil {
		made.secrets = given
	}
	if given := e.options.dependencies.Configs(); given != nil {
		made.configs = given
	}
	if made.volumes = e.options.dependencies.Volumes(); made.volumes == nil {
		return made
	}
	return volumesExecutor{made}
}

// volumesExecutor is an executor with cluster volumes. It is a type of its own: the agent
// takes any [exec.VolumesProvider] for one that has a store.
type volumesExecutor struct{ *executor }

var _ exec.VolumesProvider = volumesExecutor{}

// Volumes returns the store into which the agent puts the node's cluster volumes.
func (e volumesExecutor) Volumes() exec.VolumesManager { return e.volumes }

// Controller makes the controller of one task, for an executor of your own. It does no
// I/O. It copies node and task and never changes them. node and deps are as for
// [Engine.Adapter].
//
// A nil client and a nil task are errors. So is a task that can have no container: it has
// no image, another runtime, or a name or an ID that no container can have.
//
// Other errors of [Engine.Adapter] depend on the state of the task. Below PREPARING,
// Controller returns the error. From PREPARING on, the task may have a container. Then
// Controller returns a controller. Its Prepare and Start return the error, and its other
// methods wait for, stop and remove the container as usual. If the value of an option is
// impossible, Prepare and Start return a temporary error (see [Option]).
//
// The controller is safe for concurrent use. The caller must call its Close, which
// ends the calls that run. It implements SwarmKit's optional interfaces
// [exec.ControllerLogs], [exec.ContainerStatuser] and [exec.PortStatuser]. The package
// documentation describes its methods under "Controllers".
func (e *Engine) Controller(node *api.NodeDescription, task *api.Task, deps exec.DependencyGetter) (exec.Controller, error) {
	adapter, err := e.controllersAdapter(node, task, deps)
	return e.controllerOf(adapter, task, err)
}

// controllerOf makes the controller of a task. adapter is the task's adapter; err says
// why there is none.
func (e *Engine) controllerOf(adapter *ContainerAdapter, task *api.Task, err error) (exec.Controller, error) {
	if err != nil && task != nil && task.Status.State >= api.TaskStatePreparing {
		adapter, err = e.refusedAdapter(task, err)
	}
	if err != nil {
		return nil, err
	}
	return newController(adapter, task.Status.State), nil
}

// deferredAdapter is Adapter for a node that may not be known yet. node returns nil as
// long as the node is not known. Meanwhile a task that depends on the node makes nothing.
func (e *Engine) deferredAdapter(node func() *api.NodeDescription, task *api.Task, deps exec.DependencyGetter) (*ContainerAdapter, error) {
	known := node()
	if known != nil {
		return e.controllersAdapter(known, task, deps)
	}
	if err := e.usable(); err != nil {
		return nil, err
	}
	config, given, err := resolveTask(nil, false, task, deps)
	switch err {
	case nil:
		return newContainerAdapter(e, identityOf(task), func() (*containerConfig, payloads, error) { return config, given, nil }), nil
	case errNodeUnknown: //nolint:errorlint // bare
		own := task.Copy()
		return newContainerAdapter(e, identityOf(own), deferredTask(func() (*containerConfig, payloads, error) {
			now := node()
			return resolveTask(now, now != nil, own, deps)
		})), nil
	default:
		return nil, err
	}
}

// refusedAdapter returns the adapter of a refused task. The task may already have a
// container, made by another version of this package or by another executor. The adapter
// finds, stops and removes that container, and makes nothing. If the task can have no
// container at all, refusedAdapter returns the refusal.
func (e *Engine) refusedAdapter(task *api.Task, refusal error) (*ContainerAdapter, error) {
	if e == nil || e.client == nil || task == nil || checkRuntime(task) != nil || checkName(task) != nil {
		return nil, refusal
	}
	return newContainerAdapter(e, identityOf(task), makesNothing(refusal)), nil
}

// Secrets returns the store into which the agent puts the node's secrets.
func (e *executor) Secrets() exec.SecretsManager { return assignedSecrets{e.secrets, e.sweep} }

// Configs returns the store into which the agent puts the node's configs.
func (e *executor) Configs() exec.ConfigsManager { return e.configs }

// Configure notes what the swarm calls the node.
func (e *executor) Configure(_ context.Context, node *api.Node) error {
	if node != nil {
		e.sweep.configured(node.ID)
	}
	if node == nil || node.Description == nil || node.Description.Hostname == "" {
		return nil
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.hostname = node.Description.Hostname
	e.platform = node.Description.Platform.Copy()
	return nil
}

// SetNetworkBootstrapKeys does nothing.
func (e *executor) SetNetworkBootstrapKeys([]*api.EncryptionKey) error { return nil }

// Controller makes the controller of one task.
func (e *executor) Controller(task *api.Task) (exec.Controller, error) {
	adapter, err := e.engine.deferredAdapter(e.nodeDescription, task, getters{e.secrets, e.configs, e.volumes})
	ctlr, err := e.engine.controllerOf(adapter, task, err)
	if task != nil {
		e.sweep.asked(task.ID, err != nil)
	}
	return ctlr, err
}

// nodeDescription returns the node as tasks see it; nil while nothing is known.
func (e *executor) nodeDescription() *api.NodeDescription {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.node == nil && e.hostname == "" {
		return nil
	}
	node := &api.NodeDescription{Platform: e.platform}
	if e.node != nil {
		node = e.node.Copy()
	}
	if e.hostname != "" {
		node.Hostname = e.hostname
	}
	return node
}

// Describe asks the engine for the description of the node. If the engine refuses a
// request, or does not answer the one for plugins, Describe uses the last answer to that
// request: a description that changes closes the agent's session.
func (e *executor) Describe(ctx context.Context) (*api.NodeDescription, error) {
	if err := e.engine.usable(); err != nil {
		return nil, err
	}
	info, err := request(ctx, e.engine, 0, e.engine.client.Info)
	before := e.said.Load()
	switch {
	case err == nil:
		e.engine.optional.answered("GET /info")
	case ctx.Err() != nil || isPassing(err) || before == nil:
		return nil, engineError(ctx, err, "describe the node: engine information (GET /info)")
	default:
		e.engine.optional.without(ctx, "GET /info", err, "the node is described as it was before")
		info = before.info
	}
	plugins, err := request(ctx, e.engine, 0, func(ctx context.Context) (types.PluginsListResponse, error) {
		return e.engine.client.PluginList(ctx, filters.Args{})
	})
	switch {
	case err == nil:
		e.engine.optional.answered("GET /plugins")
	case ctx.Err() != nil || isPassing(err) && before == nil && !e.pluginsLate():
		return nil, engineError(ctx, err, "describe the node: plugins (GET /plugins)")
	case before == nil && (cerrdefs.IsNotFound(err) || cerrdefs.IsNotImplemented(err)): // an engine without managed plugins
	default:
		e.engine.optional.without(ctx, "GET /plugins", err, "the node is described with the managed plugins that are known")
	}
	if err != nil && before != nil {
		plugins = before.plugins
	}
	e.said.Store(&engineSaid{info, plugins})
	node := describe(info, plugins, e.generic)
	if e.volumes != nil {
		node.CSIInfo = e.csi.of(ctx, e.volumes)
	}
	e.mu.Lock()
	e.node = node.Copy()
	e.mu.Unlock()
	e.sweep.start(ctx)
	return node, nil
}

// csiInfo keeps what the volume plugins have said of the node.
type csiInfo struct {
	mu     sync.Mutex
	asking chan struct{}               // closed once the plugins have answered; nil: they are not being asked
	known  map[string]*api.NodeCSIInfo // the last answer of each, by its name
}

// csiPatience is how long the volume plugins may take for an answer. The agent stands still
// meanwhile.
const csiPatience = 5 * time.Second

// of returns what the volume plugins say of the node, sorted by their names. The last answer
// of a plugin that fails stays: a description that changes closes the agent's session. The
// plugins are asked by a goroutine of its own, one at a time, because a plugin may hang in
// spite of its context. It ends when they have answered.
func (c *csiInfo) of(ctx context.Context, volumes exec.VolumesManager) []*api.NodeCSIInfo {
	limited, cancel := context.WithTimeout(ctx, csiPatience)
	defer cancel()
	c.mu.Lock()
	if c.asking == nil {
		c.asking = make(chan struct{})
		go c.ask(limited, volumes, c.asking)
	}
	asking := c.asking
	c.mu.Unlock()
	select {
	case <-asking:
	case <-limited.Done():
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	var infos []*api.NodeCSIInfo
	for _, name := range slices.Sorted(maps.Keys(c.known)) {
		infos = append(infos, c.known[name].Copy())
	}
	return infos
}

func (c *csiInfo) ask(ctx context.Context, volumes exec.VolumesManager, answered chan struct{}) {
	infos, err := volumes.Plugins().NodeInfo(ctx)
	if err != nil {
		log.G(ctx).WithError(err).Debug("volume plugins not asked about the node")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.known == nil {
		c.known = map[string]*api.NodeCSIInfo{}
	}
	for _, info := range infos {
		if info != nil {
			c.known[info.PluginName] = info.Copy()
		}
	}
	c.asking = nil
	close(answered)
}

// pluginsLate reports whether the list of plugins has failed for at least refusedAfter,
// while the engine answers other requests. Then a passing fault counts as a refusal.
func (e *executor) pluginsLate() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.pluginsFailed.IsZero() {
		e.pluginsFailed = time.Now()
	}
	return time.Since(e.pluginsFailed) >= refusedAfter
}

// engineSaid is what a description is made from.
type engineSaid struct {
	info    system.Info
	plugins types.PluginsListResponse
}

func describe(info system.Info, plugins types.PluginsListResponse, generic []*api.GenericResource) *api.NodeDescription {
	labels := map[string]string{}
	for _, label := range info.Labels {
		if key, value, found := strings.Cut(label, "="); found {
			labels[key] = value
		}
	}
	return &api.NodeDescription{
		Hostname: info.Name,
		Platform: &api.Platform{Architecture: info.Architecture, OS: info.OSType},
		Resources: &api.Resources{
			NanoCPUs:    int64(info.NCPU) * 1e9,
			MemoryBytes: info.MemTotal,
			Generic:     copyResources(generic),
		},
		Engine: &api.EngineDescription{
			EngineVersion: info.ServerVersion,
			Labels:        labels,
			Plugins:       describePlugins(info.Plugins, plugins),
		},
	}
}

// swarmPluginTypes are SwarmKit's names of the capabilities of managed plugins.
var swarmPluginTypes = map[string]string{"volumedriver": "Volume", "networkdriver": "Network", "logdriver": "Log"}

// describePlugins lists built-in and managed plugins by type and name, each once.
func describePlugins(builtin system.PluginsInfo, managed types.PluginsListResponse) []api.PluginDescription {
	var plugins []api.PluginDescription
	add := func(kind string, names ...string) {
		for _, name := range names {
			plugins = append(plugins, api.PluginDescription{Type: kind, Name: name})
		}
	}
	add("Volume", builtin.Volume...)
	add("Network", builtin.Network...)
	add("Network", "overlay") // not every engine names it
	add("Authorization", builtin.Authorization...)
	add("Log", builtin.Log...)
	for _, p := range managed {
		if p == nil || !p.Enabled {
			continue
		}
		for _, t := range p.Config.Interface.Types {
			if t.Prefix != "docker" {
				continue
			}
			kind, known := swarmPluginTypes[t.Capability]
			if !known {
				kind = t.Capability
			}
			add(kind, p.Name)
		}
	}
	slices.SortFunc(plugins, func(a, b api.PluginDescription) int {
		if order := strings.Compare(a.Type, b.Type); order != 0 {
			return order
		}
		return strings.Compare(a.Name, b.Name)
	})
	return slices.Compact(plugins)
}

func copyResources(resources []*api.GenericResource) []*api.GenericResource {
	var copies []*api.GenericResource
	for _, r := range resources {
		if r != nil {
			copies = append(copies, r.Copy())
		}
	}
	return copies
}
