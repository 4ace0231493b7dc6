package dockerexec

import (
	"context"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/api/types/system"
	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/moby/swarmkit/v2/log"
	"github.com/pkg/errors"
)

// createTries bounds the creates that fail because the name is taken, while the engine
// shows no container of that name. Either that container was removed in between, or the
// engine is still busy with an earlier create. An engine shows a container only after
// its create is done.
const createTries = 3

// Create writes the files of the task's secrets and configs, and then creates the
// container. If it fails and the task had no files before, it leaves none.
//
// It returns [exec.ErrTaskPrepared], bare, if the container exists already. While the
// engine is busy with an earlier create of it, the error is temporary. If a container
// that is not this task's has the name, the error names that container. From then on
// this adapter does not start, stop or remove it.
//
// A new adapter of the task does not know about that container. So if the task chose its
// container's name (Annotations.Name), check the container's label [LabelTaskID] before
// you stop or remove the container with a new adapter. The controllers of [NewExecutor]
// and [Engine.Controller] check it themselves.
func (a *ContainerAdapter) Create(ctx context.Context) error {
	config, _, err := a.ready(ctx)
	if err != nil {
		return err
	}
	a.warnOnce.Do(func() {
		for _, warning := range config.warnings() {
			log.G(a.logContext(ctx)).Warn(warning)
		}
	})
	config, created, err := a.provide(ctx)
	if err != nil {
		return err
	}
	err = a.createOrAdopt(ctx, config)
	created(err != nil && err != exec.ErrTaskPrepared) //nolint:errorlint // bare
	return err
}

func (a *ContainerAdapter) createOrAdopt(ctx context.Context, config *containerConfig) error {
	name := a.name
	var pauses backoff
	for try := 1; ; try++ {
		made, version, err := a.create(ctx, config)
		if config.maxCPUs == 0 && tooManyCPUs.matches(err) {
			if config, err = a.capCPUs(ctx, config); err != nil {
				return err
			}
			made, version, err = a.create(ctx, config)
		}
		if err == nil {
			a.nameTaken.Store(false)
			a.forgetStops()
			logger := log.G(a.logContext(ctx)).WithField("container.id", made.ID)
			logger.Debug("container created")
			for _, warning := range made.Warnings {
				logger.Debug("the engine warns: " + a.scrubber().hideIn(warning, ""))
			}
			return a.connectRest(ctx, config, version, made.ID, nil)
		}
		if ctx.Err() != nil || !IsContainerCreateNameConflict(err) {
			return engineError(ctx, a.explain(err, config.files), "create container %s", name)
		}
		holder, inspectErr := a.inspect(ctx)
		if inspectErr == nil {
			return a.adoptOrRefuse(ctx, config, version, holder, err)
		}
		if !isContainerGone(inspectErr) {
			return engineError(ctx, inspectErr, "create container %s: its name is taken; inspect the holder", name)
		}
		if try == createTries {
			return exec.MakeTemporary(errors.Wrapf(err, "create container %s, %d times, while the engine shows no container of that name", name, try))
		}
		if err := sleep(ctx, burstWindow+pauses.next()); err != nil {
			return err
		}
	}
}

// create sends one create request. It returns the API version of the request, which may
// not be the one that ready has seen.
func (a *ContainerAdapter) create(ctx context.Context, config *containerConfig) (made container.CreateResponse, version string, err error) {
	made, err = request(ctx, a, 0, func(ctx context.Context) (container.CreateResponse, error) {
		version = a.engine.api.shared.current()
		if err := config.checkVersion(version); err != nil {
			return container.CreateResponse{}, err
		}
		config := config.forVersion(version)
		a.createSent.Store(true)
		return a.engine.client.ContainerCreate(ctx, config.config(), config.hostConfig(),
			firstNetworks(config, version), config.platform(), config.name())
	})
	return made, version, err
}

// capCPUs asks the engine for its cores, and returns config with the CPU limit capped
// to them. It logs a warning.
func (a *ContainerAdapter) capCPUs(ctx context.Context, config *containerConfig) (*containerConfig, error) {
	info, err := request(ctx, a, 0, func(ctx context.Context) (system.Info, error) {
		return a.engine.client.Info(ctx)
	})
	if err == nil && info.NCPU < 1 {
		err = errors.Errorf("the engine says that it has %d cores", info.NCPU)
	}
	if err != nil {
		return nil, engineError(ctx, err, "create container %s: its CPU limit is above the engine's cores; ask for their number", a.name)
	}
	a.capOnce.Do(func() {
		log.G(a.logContext(ctx)).Warnf("task field Spec.Resources.Limits.NanoCPUs: the engine has only %d cores, the limit is capped to them", info.NCPU)
	})
	return config.withCPUs(info.NCPU), nil
}

// adoptOrRefuse decides about holder, the container that has the task's name. If its
// label names the task, it is adopted. Otherwise the error says whose it is. conflict
// is the engine's answer to the create.
func (a *ContainerAdapter) adoptOrRefuse(ctx context.Context, config *containerConfig, version string, holder container.InspectResponse, conflict error) error {
	switch owner := labelOf(holder); owner {
	case a.taskID:
		return a.adopt(ctx, config, version, holder)
	case "":
		a.nameTaken.Store(true)
		return errors.Wrapf(conflict, "create container %s: a container (%s) that belongs to no task has its name; rename or remove that one", a.name, shortID(idOf(holder)))
	default:
		a.nameTaken.Store(true)
		return errors.Wrapf(conflict, "create container %s: the container (%s) of task %s has its name; remove that task first", a.name, shortID(idOf(holder)), owner)
	}
}

// adopt takes over a container that has the task's label, and connects it to the
// networks that it lacks. It returns [exec.ErrTaskPrepared], bare, if that succeeds.
func (a *ContainerAdapter) adopt(ctx context.Context, config *containerConfig, version string, found container.InspectResponse) error {
	a.nameTaken.Store(false)
	id := idOf(found)
	if err := a.connectRest(ctx, config, version, id, found.NetworkSettings); err != nil {
		return err
	}
	log.G(a.logContext(ctx)).WithField("container.id", id).Debug("container of this task found and adopted")
	return exec.ErrTaskPrepared
}

// severalNetworks is the API version from which a create joins any number of networks.
// Below it the create joins the first one. The others are connected before the start.
const severalNetworks = "1.44"

// firstNetworks returns the networks that the create joins.
func firstNetworks(task *containerConfig, version string) *network.NetworkingConfig {
	config := task.networkingConfig()
	if names := task.endpointNames(); len(names) > 1 && !atLeast(version, severalNetworks) {
		for _, name := range names[1:] {
			delete(config.EndpointsConfig, name)
		}
	}
	return config
}

// connectRest connects the container id to the task's networks that it has not joined.
// has holds the networks of a container that existed before, perhaps made with an older
// API version. has is nil for a new container. If has is empty, the answer comes from a
// fake, and it is not known which networks the container has joined.
func (a *ContainerAdapter) connectRest(ctx context.Context, config *containerConfig, version, id string, has *container.NetworkSettings) error {
	names := config.endpointNames()
	unknown := has == nil || len(has.Networks) == 0
	if len(names) < 2 || unknown && atLeast(version, severalNetworks) {
		return nil
	}
	endpoints := config.networkingConfig().EndpointsConfig
	for _, name := range names[1:] {
		if has != nil && has.Networks[name] != nil {
			continue
		}
		err := do(ctx, a, 0, func(ctx context.Context) error {
			return a.engine.client.NetworkConnect(ctx, name, id, endpoints[name])
		})
		if err != nil {
			return engineError(ctx, err, "connect container %s to network %s", a.name, name)
		}
	}
	return nil
}
