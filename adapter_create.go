package dockerexec

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strconv"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/api/types/system"
	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/moby/swarmkit/v2/log"
	"github.com/pkg/errors"
)

// createTries bounds the creates of one call. A container may be removed as soon as it is
// made or found. Or its name is taken, while the engine shows no container of that name.
// Then either that container was removed in between, or the engine is still busy with an
// earlier create. An engine shows a container only after its create is done.
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
			if config, err = a.capCPUs(ctx, config, err); err != nil {
				return err
			}
			made, version, err = a.create(ctx, config)
		}
		if err == nil {
			a.nameTaken.Store(false)
			a.noteContainer(made.ID)
			logger := log.G(a.logContext(ctx)).WithField("container.id", made.ID)
			logger.Debug("container created")
			for _, warning := range made.Warnings {
				logger.Debug("the engine warns: " + a.scrubber().hideIn(warning, ""))
			}
			err = a.connectRest(ctx, config, version, made.ID, nil)
			if IsUnknownContainer(err) && try < createTries {
				continue // somebody has removed it since
			}
			return err
		}
		if ctx.Err() != nil || !IsContainerCreateNameConflict(err) {
			return engineError(ctx, a.explain(err, config.files), "create container %s", name)
		}
		holder, inspectErr := a.inspectAs(ctx, a.name)
		if inspectErr == nil {
			if err = a.adoptOrRefuse(ctx, config, version, holder, err); IsUnknownContainer(err) && try < createTries {
				continue // somebody has removed it since
			}
			return err
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

// onlyCores finds the number of cores in the refusal of a CPU limit. Engines of 20.10 to
// 29 name it.
var onlyCores = regexp.MustCompile(`only (\d+) CPUs? available`)

// capCPUs asks the engine for its cores, and returns config with the CPU limit capped
// to them. It logs a warning. refusal is the engine's answer to the create. Its number
// counts if the engine may not be asked.
func (a *ContainerAdapter) capCPUs(ctx context.Context, config *containerConfig, refusal error) (*containerConfig, error) {
	info, err := request(ctx, a, 0, func(ctx context.Context) (system.Info, error) {
		return a.engine.client.Info(ctx)
	})
	if named := onlyCores.FindStringSubmatch(refusal.Error()); named != nil && ctx.Err() == nil && (isForbidden(err) || cerrdefs.IsNotFound(err)) {
		a.engine.optional.without(a.logContext(ctx), "GET /info", err, "the number of cores is that of the engine's refusal of the CPU limit")
		info.NCPU, err = strconv.Atoi(named[1])
	}
	if err == nil && info.NCPU < 1 {
		err = errors.Errorf("the engine says that it has %d cores", info.NCPU)
	}
	if err != nil {
		return nil, engineError(ctx, err, "create container %s: its CPU limit is above the engine's cores; ask for their number (GET /info)", a.name)
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
	a.noteContainer(id)
	a.noteFiles(found)
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

// A container may get another name, and its own name may then be another container's.
// So a name that is gone does not prove that the container is. A container that the
// adapter has made or seen is known by its ID. Any other one is looked for by its label.

// noteContainer notes the ID of the task's container.
func (a *ContainerAdapter) noteContainer(id string) {
	if id != "" {
		a.containerID.Store(&id)
		a.isRemoved.Store(false)
	}
}

// knownID returns the ID of the task's container. It is empty if the adapter has neither
// made nor seen the container, or has removed it.
func (a *ContainerAdapter) knownID() string {
	if id := a.containerID.Load(); id != nil && !a.isRemoved.Load() {
		return *id
	}
	return ""
}

// onContainer makes a call on the task's container. The call gets the container's name or
// its ID. If there is no such container, it may be made again with another ID.
//
// A container that is known is called by its ID, so that no other container of its name
// is touched. A fake may know its containers by their names alone: it gets the name first.
func (a *ContainerAdapter) onContainer(ctx context.Context, call func(nameOrID string) error) error {
	known := a.knownID()
	first := a.name
	if known != "" && !a.engine.api.isFake {
		first = known
	}
	isGone := func(err error) bool {
		return ctx.Err() == nil && isContainerGone(err) && !networkVanished.matches(err) // a start's 404 may be about a network
	}
	err := call(first)
	if isGone(err) && known != first && known != "" {
		err = call(known)
	}
	if !isGone(err) {
		return err
	}
	id, findErr := a.findByLabel(ctx, known)
	if findErr != nil {
		return findErr
	}
	if id == "" {
		return err
	}
	return call(id)
}

// inspect inspects the task's container: by its name, and if that is gone or another
// container's, by its ID or its label.
func (a *ContainerAdapter) inspect(ctx context.Context) (container.InspectResponse, error) {
	known := a.knownID()
	named, err := a.inspectAs(ctx, a.name)
	isOther := err == nil && known != "" && idOf(named) != "" && idOf(named) != known
	isStrange := err == nil && known == "" && a.checkOwner(named) != nil
	if ctx.Err() != nil || !isContainerGone(err) && !isOther && !isStrange {
		return named, err
	}
	if isOther {
		err = fmt.Errorf("no such container: %s (the name %s is that of container %s): %w", shortID(known), a.name, shortID(idOf(named)), cerrdefs.ErrNotFound)
	}
	if known != "" {
		if answer, byID := a.inspectAs(ctx, known); byID != nil && !isContainerGone(byID) || idOf(answer) == known {
			return answer, byID
		}
	}
	id, findErr := a.findByLabel(ctx, known)
	switch {
	case findErr != nil:
		return container.InspectResponse{}, findErr
	case id != "":
		return a.inspectAs(ctx, id)
	case isStrange:
		return named, nil
	}
	return container.InspectResponse{}, err
}

func (a *ContainerAdapter) inspectAs(ctx context.Context, nameOrID string) (container.InspectResponse, error) {
	return request(ctx, a, 0, func(ctx context.Context) (container.InspectResponse, error) {
		return a.engine.client.ContainerInspect(ctx, nameOrID)
	})
}

// findByLabel returns the ID of the container that has the task's label, and notes it. It
// is empty if there is none, or if several have the label. known is the ID of a container
// that is gone, or empty. If there is one, a container with the task's name is another's.
//
// Skipped for fakes, which need not implement ContainerList.
func (a *ContainerAdapter) findByLabel(ctx context.Context, known string) (id string, err error) {
	if a.engine.api.isFake {
		return "", nil
	}
	list, err := request(ctx, a, 0, func(ctx context.Context) ([]container.Summary, error) {
		return a.engine.client.ContainerList(ctx, container.ListOptions{All: true, Filters: filters.NewArgs(filters.Arg("label", LabelTaskID+"="+a.taskID))})
	})
	switch {
	case err == nil:
	case ctx.Err() == nil && (isRefusal(err) || cerrdefs.IsNotFound(err)):
		a.unlistedOnce.Do(func() {
			log.G(a.logContext(ctx)).WithError(err).Warn("containers are not listed: a container that has another name is not found")
		})
		return "", nil
	default:
		return "", errors.Wrap(err, "look for it under another name")
	}
	for _, c := range list {
		if c.ID == known || known != "" && slices.Contains(c.Names, "/"+a.name) {
			continue
		}
		isCopy, err := a.isCopy(ctx, c)
		switch {
		case err != nil:
			return "", errors.Wrap(err, "look for it under another name")
		case isCopy:
		case id == "":
			id = c.ID
		default:
			a.doubtOnce.Do(func() {
				log.G(a.logContext(ctx)).Warnf("containers %s and %s have the label of this task: it is not certain which one is the task's, none is touched", shortID(id), shortID(c.ID))
			})
			return "", nil
		}
	}
	a.noteContainer(id)
	return id, nil
}

// isCopy reports whether a container has the task's label from its image: somebody has
// committed the task's container, and runs the copy. An image that the engine does not
// show may have the label too.
func (a *ContainerAdapter) isCopy(ctx context.Context, c container.Summary) (bool, error) {
	answer, err := request(ctx, a, 0, func(ctx context.Context) (image.InspectResponse, error) {
		return a.engine.client.ImageInspect(ctx, c.ImageID)
	})
	switch {
	case err == nil:
		return answer.Config != nil && answer.Config.Labels[LabelTaskID] == a.taskID, nil
	case ctx.Err() != nil, isPassing(err) && !cerrdefs.IsNotFound(err):
		return false, err
	}
	return true, nil
}
