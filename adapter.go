package dockerexec

import (
	"context"
	"io"
	"sync"
	"sync/atomic"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/api/types/system"
	"github.com/docker/docker/api/types/volume"
	engineapi "github.com/docker/docker/client"
	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/moby/swarmkit/v2/api"
	"github.com/moby/swarmkit/v2/log"
	"github.com/pkg/errors"
)

// ContainerAdapter carries out the remote operations of one task on its engine.
// Each may be called again after a failure, also by a new adapter of the same task
// in another process: what exists already is found by its name and labels.
//
// Errors: the bare error of a context that ended; a temporary error (see
// [exec.IsTemporary]) for a fault of the engine that will pass; the package's
// and SwarmKit's sentinels bare; else an error that says what failed on which
// object. An adapter is safe for concurrent use and has nothing to close. The zero
// value cannot be used; see [Engine.Adapter].
type ContainerAdapter struct {
	engine   *Engine
	config   *containerConfig
	payloads payloads
	late     func() (*containerConfig, payloads, error) // see making; nil: config and payloads are the whole task

	containerID atomic.Pointer[string] // what the last inspect found; nil: none so far

	// Whether the engine was asked for it, since the controller last cleared them.
	createSent, startSent atomic.Bool

	// Whether Create found the name taken by a container that is not the task's, and
	// so not for this task to start, stop or remove.
	nameTaken atomic.Bool

	warnOnce, capOnce sync.Once // one warning a task, however often it is created
}

// NewContainerAdapter makes an adapter with an [Engine] of its own: it shares no
// event stream and no pull with any other adapter. To run more than one task, make
// an Engine and take adapters from it. Everything else is as for [NewEngine] and
// [Engine.Adapter], except that a task that references a config is refused. secrets
// may be nil if the task references none.
func NewContainerAdapter(client engineapi.APIClient, node *api.NodeDescription, task *api.Task, secrets exec.SecretGetter, opts ...Option) (*ContainerAdapter, error) {
	var deps exec.DependencyGetter
	if secrets != nil {
		deps = getters{secrets: secrets}
	}
	return NewEngine(client, opts...).Adapter(node, task, deps)
}

func newContainerAdapter(e *Engine, config *containerConfig, payloads payloads) *ContainerAdapter {
	return &ContainerAdapter{engine: e, config: config, payloads: payloads}
}

// ContainerName returns the name of the task's container. It is the same at every
// call, whether or not there is such a container.
func (a *ContainerAdapter) ContainerName() string { return a.config.name() }

// logContext gives ctx a logger with the fields that each log line carries.
func (a *ContainerAdapter) logContext(ctx context.Context) context.Context {
	task := a.config.task
	return log.WithFields(ctx, log.Fields{
		"task.id":    task.ID,
		"service.id": task.ServiceID,
		"node.id":    task.NodeID,
	})
}

// ready agrees on the API version and refuses a task that asks for what this
// version or the engine's host does not have, before anything is made.
func (a *ContainerAdapter) ready(ctx context.Context) (version string, err error) {
	config, _, err := a.making()
	if err != nil {
		return "", err
	}
	version, err = a.engine.api.get(ctx, a.engine.options.requestTimeout)
	if err != nil {
		return "", err
	}
	if err := config.checkVersion(version); err != nil {
		return "", err
	}
	return version, a.checkFiles(ctx)
}

// CreateVolumes creates the volumes of the task's mounts that name a driver, in
// sorted order. A volume that exists is used as it is. The engine itself makes the
// volumes without a driver, when it creates the container. Named volumes are never
// removed.
func (a *ContainerAdapter) CreateVolumes(ctx context.Context) error {
	if _, err := a.ready(ctx); err != nil {
		return err
	}
	config, _, err := a.making()
	if err != nil {
		return err
	}
	for _, v := range config.volumes() {
		_, err := request(ctx, a.engine, 0, func(ctx context.Context) (volume.Volume, error) {
			return a.engine.client.VolumeCreate(ctx, v)
		})
		if err != nil {
			what := "create volume " + v.Name
			if v.Driver != "" { // else it is the engine's default
				what += " with driver " + v.Driver
			}
			return engineError(ctx, err, "%s", what)
		}
	}
	return nil
}

// createTries bounds how often Create goes after a name that is taken while the
// engine shows no container of that name: it was removed since, or the engine is
// still at an earlier create, which it shows when it is done.
const createTries = 3

// Create writes the files of the task's secrets and configs, and then creates the
// container. If it fails, it leaves no files where there were none before.
//
// It returns [exec.ErrTaskPrepared], bare, if the container exists already, and a
// temporary error while the engine is busy with an earlier create of it. If a
// container that is not this task's has the name, the error names that container.
// From then on this adapter does not start, stop or remove it. A new adapter does
// not know about it: before a new adapter stops or removes a container whose name
// somebody chose (Annotations.Name), look at the container's label, as the
// controllers of [NewExecutor] do.
func (a *ContainerAdapter) Create(ctx context.Context) error {
	version, err := a.ready(ctx)
	if err != nil {
		return err
	}
	a.warnOnce.Do(func() {
		for _, warning := range a.config.warnings() {
			log.G(a.logContext(ctx)).Warn(warning)
		}
	})
	config, created, err := a.provide(ctx)
	if err != nil {
		return err
	}
	err = a.createOrAdopt(ctx, version, config)
	created(err != nil && err != exec.ErrTaskPrepared) //nolint:errorlint // bare
	return err
}

func (a *ContainerAdapter) createOrAdopt(ctx context.Context, version string, config *containerConfig) error {
	name := config.name()
	var pauses backoff
	for try := 1; ; try++ {
		made, err := a.create(ctx, version, config)
		if err != nil && config.maxCPUs == 0 && tooManyCPUs.in(normalize(err.Error()), "") {
			if config, err = a.capCPUs(ctx, config); err != nil {
				return err
			}
			made, err = a.create(ctx, version, config)
		}
		if err == nil {
			a.nameTaken.Store(false)
			logger := log.G(a.logContext(ctx)).WithField("container.id", made.ID)
			logger.Debug("container created")
			for _, warning := range made.Warnings {
				logger.Debug("the engine warns: " + warning)
			}
			return a.connectRest(ctx, version, made.ID, nil)
		}
		if ctx.Err() != nil || !IsContainerCreateNameConflict(err) {
			return engineError(ctx, a.explain(err), "create container %s", name)
		}
		holder, inspectErr := a.inspect(ctx)
		if inspectErr == nil {
			return a.adoptOrRefuse(ctx, version, holder, err)
		}
		if !a.gone(inspectErr) {
			return engineError(ctx, inspectErr, "create container %s: its name is taken; inspect the holder", name)
		}
		if try == createTries {
			return exec.MakeTemporary(errors.Wrapf(err, "create container %s, %d times, while the engine shows no container of that name", name, try))
		}
		if err := sleep(ctx, coalesceTime+pauses.next()); err != nil {
			return err
		}
	}
}

// create asks for the container once.
func (a *ContainerAdapter) create(ctx context.Context, version string, config *containerConfig) (container.CreateResponse, error) {
	config = config.forVersion(version)
	return request(ctx, a.engine, 0, func(ctx context.Context) (container.CreateResponse, error) {
		a.createSent.Store(true)
		return a.engine.client.ContainerCreate(ctx, config.config(), config.hostConfig(),
			firstNetworks(config, version), config.platform(), config.name())
	})
}

// capCPUs returns config with its CPU limit capped at the engine's cores,
// which the engine is asked for, and warns of it.
func (a *ContainerAdapter) capCPUs(ctx context.Context, config *containerConfig) (*containerConfig, error) {
	info, err := request(ctx, a.engine, 0, func(ctx context.Context) (system.Info, error) {
		return a.engine.client.Info(ctx)
	})
	if err == nil && info.NCPU < 1 {
		err = errors.Errorf("the engine says that it has %d cores", info.NCPU)
	}
	if err != nil {
		return nil, engineError(ctx, err, "create container %s: its CPU limit is above the engine's cores; ask for their number", a.config.name())
	}
	a.capOnce.Do(func() {
		log.G(a.logContext(ctx)).Warnf("task field Spec.Resources.Limits.NanoCPUs: the engine has only %d cores, the limit is capped to them", info.NCPU)
	})
	return config.withCPUs(info.NCPU), nil
}

// adoptOrRefuse takes the container that has the task's name for the task's own if
// its label says so. conflict is what the engine said.
func (a *ContainerAdapter) adoptOrRefuse(ctx context.Context, version string, holder container.InspectResponse, conflict error) error {
	switch owner := labelOf(holder); owner {
	case a.config.task.ID:
		return a.adopt(ctx, version, holder)
	case "":
		a.nameTaken.Store(true)
		return errors.Wrapf(conflict, "create container %s: a container (%s) that belongs to no task has its name; rename or remove that one", a.config.name(), shortID(idOf(holder)))
	default:
		a.nameTaken.Store(true)
		return errors.Wrapf(conflict, "create container %s: the container (%s) of task %s has its name; remove that task first", a.config.name(), shortID(idOf(holder)), owner)
	}
}

func idOf(answer container.InspectResponse) string {
	if answer.ContainerJSONBase == nil {
		return ""
	}
	return answer.ID
}

// adopt takes a container that was found, with the task's label, for the task's own.
func (a *ContainerAdapter) adopt(ctx context.Context, version string, found container.InspectResponse) error {
	a.nameTaken.Store(false)
	id := idOf(found)
	if err := a.connectRest(ctx, version, id, found.NetworkSettings); err != nil {
		return err
	}
	log.G(a.logContext(ctx)).WithField("container.id", id).Debug("container of this task found and adopted")
	return exec.ErrTaskPrepared
}

// severalNetworks is the API version from which one create joins any number of
// networks. Below it the create joins the first, and each other is connected
// before the start.
const severalNetworks = "1.44"

func firstNetworks(task *containerConfig, version string) *network.NetworkingConfig {
	config := task.networkingConfig()
	if names := task.endpointNames(); len(names) > 1 && !atLeast(version, severalNetworks) {
		for _, name := range names[1:] {
			delete(config.EndpointsConfig, name)
		}
	}
	return config
}

// connectRest connects container id to those of the task's networks that the
// create could not join and that it does not have yet. has are those of a
// container that was there before: it may have been made at an older version.
// One without any is a fake's, which says nothing of them.
func (a *ContainerAdapter) connectRest(ctx context.Context, version, id string, has *container.NetworkSettings) error {
	names := a.config.endpointNames()
	unknown := has == nil || len(has.Networks) == 0
	if len(names) < 2 || unknown && atLeast(version, severalNetworks) {
		return nil
	}
	endpoints := a.config.networkingConfig().EndpointsConfig
	for _, name := range names[1:] {
		if has != nil && has.Networks[name] != nil {
			continue
		}
		err := do(ctx, a.engine, 0, func(ctx context.Context) error {
			return a.engine.client.NetworkConnect(ctx, name, id, endpoints[name])
		})
		if err != nil {
			return engineError(ctx, err, "connect container %s to network %s", a.config.name(), name)
		}
	}
	return nil
}

// Start starts the container. A container that already runs is left running.
// Files of secrets and configs that are missing are written again first.
func (a *ContainerAdapter) Start(ctx context.Context) error {
	if _, err := a.ready(ctx); err != nil {
		return err
	}
	if a.nameTaken.Load() {
		return errors.Errorf("start container %s: a container that is not this task's has its name; create it first", a.config.name())
	}
	if err := a.provideMissing(ctx); err != nil {
		return err
	}
	err := do(ctx, a.engine, 0, func(ctx context.Context) error {
		a.startSent.Store(true)
		return a.engine.client.ContainerStart(ctx, a.config.name(), container.StartOptions{})
	})
	if IsUnknownContainer(err) {
		_ = a.removeFiles(ctx) // the start's error counts
	}
	return engineError(ctx, a.explain(err), "start container %s", a.config.name())
}

// Inspect returns the engine's record of the container. Its State is never nil: an
// answer without one is an error. If there is no such container, the error is one
// that [IsUnknownContainer] recognises.
func (a *ContainerAdapter) Inspect(ctx context.Context) (container.InspectResponse, error) {
	answer, err := a.inspect(ctx)
	return a.checkInspect(ctx, answer, err)
}

// checkInspect has an inspect's answer as the methods of this package return it.
func (a *ContainerAdapter) checkInspect(ctx context.Context, answer container.InspectResponse, err error) (container.InspectResponse, error) {
	if err != nil {
		return container.InspectResponse{}, engineError(ctx, err, "inspect container %s", a.config.name())
	}
	if answer.ContainerJSONBase == nil || answer.State == nil {
		return container.InspectResponse{}, errors.Errorf("inspect container %s: the engine's answer has no state", a.config.name())
	}
	if id := answer.ID; id != "" {
		a.containerID.Store(&id)
	}
	return answer, nil
}

func (a *ContainerAdapter) inspect(ctx context.Context) (container.InspectResponse, error) {
	return request(ctx, a.engine, 0, func(ctx context.Context) (container.InspectResponse, error) {
		return a.engine.client.ContainerInspect(ctx, a.config.name())
	})
}

// defaultGrace is how long an engine waits before it kills a container for which
// neither task nor image says.
const defaultGrace = 10 * time.Second

// Shutdown stops the container. The engine kills it after the task's grace period,
// rounded up to whole seconds, or after the image's or the engine's own if the task
// sets none. A container that is gone or does not run is no error.
func (a *ContainerAdapter) Shutdown(ctx context.Context) error {
	if a.nameTaken.Load() {
		return nil
	}
	options := a.config.stopOptions()
	grace := defaultGrace
	if options.Timeout != nil {
		grace = time.Duration(*options.Timeout) * time.Second
	}
	err := do(ctx, a.engine, grace, func(ctx context.Context) error {
		return a.engine.client.ContainerStop(ctx, a.config.name(), options)
	})
	if a.gone(err) || IsStoppedContainer(err) {
		return nil
	}
	return engineError(ctx, err, "stop container %s", a.config.name())
}

// Terminate kills the container at once. A container that is gone or does not
// run is no error.
func (a *ContainerAdapter) Terminate(ctx context.Context) error {
	if a.nameTaken.Load() {
		return nil
	}
	err := do(ctx, a.engine, 0, func(ctx context.Context) error {
		return a.engine.client.ContainerKill(ctx, a.config.name(), "")
	})
	if a.gone(err) || IsStoppedContainer(err) {
		return nil
	}
	return engineError(ctx, err, "kill container %s", a.config.name())
}

// Remove removes the container, running or not, with its anonymous volumes, waits
// until it is gone, and then removes the files of its secrets and configs. A
// container that does not exist is no error. Named volumes, networks and the image
// stay; for networks see [ContainerAdapter.RemoveNetworks].
func (a *ContainerAdapter) Remove(ctx context.Context) error {
	if !a.nameTaken.Load() {
		if err := a.removeContainer(ctx); err != nil {
			return err
		}
	}
	return a.removeFiles(ctx)
}

func (a *ContainerAdapter) removeContainer(ctx context.Context) error {
	err := do(ctx, a.engine, 0, func(ctx context.Context) error {
		return a.engine.client.ContainerRemove(ctx, a.config.name(), container.RemoveOptions{RemoveVolumes: true, Force: true})
	})
	if err != nil && removalInProgress.in(normalize(err.Error()), "") {
		err = a.untilGone(ctx)
	}
	if a.gone(err) {
		return nil
	}
	return engineError(ctx, err, "remove container %s", a.config.name())
}

// untilGone waits until the engine no longer knows the container, which another
// caller is removing, and returns the error that says so. It may take as long as
// one engine call.
func (a *ContainerAdapter) untilGone(ctx context.Context) error {
	return do(ctx, a.engine, 0, func(ctx context.Context) error {
		for pause := 10 * time.Millisecond; ; pause = min(2*pause, time.Second) {
			if _, err := a.engine.client.ContainerInspect(ctx, a.config.name()); err != nil {
				return err
			}
			if err := sleep(ctx, pause); err != nil {
				return err
			}
		}
	})
}

// gone reports whether the engine's answer to a call on the container itself
// means that there is none: 404 has no other meaning there. Only the engine's own
// words count: "does not exist" may be said of a layer, and what this package
// puts before it names the container.
func (a *ContainerAdapter) gone(err error) bool {
	return IsUnknownContainer(errors.Cause(err)) || cerrdefs.IsNotFound(err)
}

// Logs returns the container's log as the engine sends it, in one request, without
// a limit of rate or length and without resuming. Each line begins with its time, as
// 2006-01-02T15:04:05.000000000Z, and a space. The stream is multiplexed with the
// engine's 8-byte frame headers, unless the container has a TTY. For the options,
// and for decoded messages, see [ContainerAdapter.PublishLogs].
//
// ctx bounds the reading of the body too, not only the request: when it ends, reads
// fail. The caller closes the reader.
func (a *ContainerAdapter) Logs(ctx context.Context, options api.LogSubscriptionOptions) (io.ReadCloser, error) {
	engineOptions, err := logsOptions(options)
	if err != nil {
		return nil, err
	}
	if _, err := a.engine.api.get(ctx, a.engine.options.requestTimeout); err != nil {
		return nil, err
	}
	body, err := a.engine.client.ContainerLogs(ctx, a.config.name(), engineOptions)
	if err != nil {
		return nil, engineError(ctx, err, "logs of container %s", a.config.name())
	}
	return body, nil
}

// shortID is an engine's ID as its command line shows it.
func shortID(id string) string {
	if id == "" {
		return "of unknown ID"
	}
	return id[:min(len(id), 12)]
}

// labelOf is the ID of the task that a container was made for, or empty.
func labelOf(answer container.InspectResponse) string {
	if answer.Config == nil {
		return ""
	}
	return answer.Config.Labels[LabelTaskID]
}

// isNamed reports whether the task has a name of its own, which others may have
// too. Else its container's name has the task's ID in it.
func (c *containerConfig) isNamed() bool { return c.task.Annotations.Name != "" }

// checkOwner refuses a container under the task's name that is not the task's: of
// another task, or without a label under a name that anybody may choose. Only to
// adopt one that was there before a create takes the label itself.
func (a *ContainerAdapter) checkOwner(answer container.InspectResponse) error {
	switch owner := labelOf(answer); {
	case owner == a.config.task.ID, owner == "" && !a.config.isNamed():
		return nil
	case owner == "":
		return errors.Errorf("container %s (%s) belongs to no task", a.config.name(), shortID(answer.ID))
	default:
		return errors.Errorf("container %s (%s) belongs to task %s", a.config.name(), shortID(answer.ID), owner)
	}
}
