package dockerexec

import (
	"cmp"
	"context"
	stderrors "errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/system"
	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/moby/swarmkit/v2/api"
	"github.com/moby/swarmkit/v2/log"
	"github.com/pkg/errors"
)

// createTries bounds the tries of one call of Create. Create tries again in two cases:
//
//   - The container is removed right after it was made or found.
//   - The name is taken, but the engine shows no container of that name. Either that
//     container was removed in between, or the engine is still busy with an earlier
//     create: it shows a container only after the create is done.
const createTries = 3

// Create writes the files of the task's secrets and configs, and then creates the
// container. If it fails and the task had no files before, it leaves none.
//
// It returns [exec.ErrTaskPrepared], bare, if the container exists already. While the
// engine is busy with an earlier create of the container, the error is temporary. If a
// container that is not this task's has the name, the error names that other container.
// From then on this adapter does not start, stop or remove the other container.
//
// A new adapter of the task does not know the other container. So if the task chose its
// container's name (Annotations.Name), check the container's label [LabelTaskID] before
// you stop or remove the container with a new adapter. The controllers of [NewExecutor]
// and [Engine.Controller] check it themselves.
func (a *ContainerAdapter) Create(ctx context.Context) (err error) {
	ctx, end := a.begin(ctx, methodCreate)
	defer end(&err)
	config, _, err := a.ready(ctx)
	if err != nil {
		return err
	}
	if a.isAlone {
		a.engine.tasks.note(a.taskID)
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
			about := log.WithFields(a.logContext(ctx), log.Fields{"container.id": made.ID})
			log.G(about).Debug("container created")
			a.passOn(about, config, made.Warnings...)
			err = a.connectRest(ctx, config, version, made.ID, nil)
			if IsUnknownContainer(err) && try < createTries {
				continue // somebody has removed it since
			}
			return err
		}
		if hook := (hookError{}); stderrors.As(err, &hook) {
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
			a.createLost.Store(true)
			return exec.MakeTemporary(errors.Wrapf(err, "create container %s, %d times, while the engine shows no container of that name", name, try))
		}
		if err := sleep(ctx, burstWindow+pauses.next()); err != nil {
			return err
		}
	}
}

// passOn logs the warnings in an engine's answer to a create, each text once for the adapter.
func (a *ContainerAdapter) passOn(ctx context.Context, config *containerConfig, warnings ...string) {
	for _, warning := range warnings {
		warning = strings.TrimSpace(a.scrubber().clean(warning, longestWarning))
		if warning == "" || !a.said.first(warning) {
			continue
		}
		if field := config.warnedField(warning); field != "" {
			log.G(ctx).Warnf("task field %s: the engine warns: %s", field, warning)
		} else {
			log.G(ctx).Warnf("the engine warns: %s", warning)
		}
	}
}

const (
	longestWarning = 1000 // bytes; a warning is a sentence
	mostWarnings   = 50   // different warnings for one task; an engine has some twenty
)

// saidTexts are the warnings that have been logged.
type saidTexts struct {
	mu    sync.Mutex
	texts map[string]bool
}

// first reports whether text is new, and notes it. After mostWarnings texts it always
// reports false.
func (s *saidTexts) first(text string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.texts[text] || len(s.texts) >= mostWarnings {
		return false
	}
	if s.texts == nil {
		s.texts = map[string]bool{}
	}
	s.texts[text] = true
	return true
}

// create sends one create request. It returns the API version of the request, which may
// differ from the one that ready returned.
func (a *ContainerAdapter) create(ctx context.Context, config *containerConfig) (made container.CreateResponse, version string, err error) {
	var refusal error // of the hook
	sent := false
	made, err = request(ctx, a, 0, func(ctx context.Context) (container.CreateResponse, error) {
		version = a.engine.api.shared.current()
		if err := config.checkVersion(version); err != nil {
			return container.CreateResponse{}, err
		}
		config := config.forVersion(version)
		wanted, host := config.config(), config.hostConfig()
		if refusal = a.callCreateHook(ctx, config.task, wanted, host); refusal != nil {
			return container.CreateResponse{}, cmp.Or(ctx.Err(), errHook)
		}
		sent = true
		return a.engine.client.ContainerCreate(ctx, wanted, host,
			firstNetworks(config, version), config.platform(), config.name())
	})
	switch {
	case stderrors.Is(err, errHook):
		return made, version, refusal
	case err == nil:
		a.createLost.Store(false)
		a.isPrepared.Store(false)
		a.isStarted.Store(false)
	case sent && mayBeDone(ctx, err):
		a.createLost.Store(true)
	}
	return made, version, err
}

// callCreateHook calls the hook of [WithCreateHook]. It refuses a change of the labels by
// which the container is found.
func (a *ContainerAdapter) callCreateHook(ctx context.Context, task *api.Task, wanted *container.Config, host *container.HostConfig) error {
	hook := a.engine.options.createHook
	if hook == nil {
		return nil
	}
	before := maps.Clone(wanted.Labels)
	err := hook(ctx, task.Copy(), wanted, host)
	for _, label := range []string{LabelTaskID, LabelNodeID, labelTask} {
		if err == nil && wanted.Labels[label] != before[label] {
			err = errors.Errorf("it changed the label %s, by which the container is found", label)
		}
	}
	if err != nil {
		return hookError{"create container " + a.name + ": the create hook failed", a.hide(err)}
	}
	return nil
}

// onlyCores finds the number of cores in the refusal of a CPU limit. Engines of 20.10 to
// 29 name it.
var onlyCores = regexp.MustCompile(`only (\d+) CPUs? available`)

// capCPUs asks the engine for its number of cores, and returns config with the CPU limit
// capped to that number. It logs a warning. refusal is the engine's answer to the create.
// If the engine, or a proxy, refuses to tell the number, it is taken from refusal.
func (a *ContainerAdapter) capCPUs(ctx context.Context, config *containerConfig, refusal error) (*containerConfig, error) {
	info, err := request(ctx, a, 0, func(ctx context.Context) (system.Info, error) {
		return a.engine.client.Info(ctx)
	})
	if named := onlyCores.FindStringSubmatch(refusal.Error()); named != nil && ctx.Err() == nil && (isForbidden(err) || cerrdefs.IsNotFound(err)) {
		a.engine.optional.without(a.logContext(ctx), "GET /info", err, "the number of cores is taken from the engine's refusal of the CPU limit")
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

// adoptOrRefuse adopts holder, the container that has the task's name, if the label of
// holder names the task. Otherwise the error says whose container holder is. conflict is
// the engine's answer to the create.
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
	a.createLost.Store(false)
	a.isPrepared.Store(true)
	id := idOf(found)
	a.noteContainer(id)
	a.noteFiles(found)
	if err := a.connectRest(ctx, config, version, id, found.NetworkSettings); err != nil {
		return err
	}
	log.G(a.logContext(ctx)).WithField("container.id", id).Debug("container of this task found and adopted")
	return exec.ErrTaskPrepared
}

// lostCreateTime is how long a removal looks for a container or a network whose create got
// no answer, with lostCreatePause between two looks. An engine shows a container only
// once the container's volumes are filled.
const lostCreateTime, lostCreatePause = 5 * time.Second, time.Second

// awaitLostCreate looks for the container of a create that got no answer, for at most
// lostCreateTime. It reports whether it has found the container. If no create may be lost,
// it makes no request.
func (a *ContainerAdapter) awaitLostCreate(ctx context.Context) (found bool, err error) {
	for began := time.Now(); a.createLost.Load(); {
		answer, err := a.Inspect(ctx)
		switch {
		case err == nil:
			a.createLost.Store(false)
			found = a.checkOwner(answer) == nil
			a.nameTaken.Store(!found)
			return found, nil
		case !isContainerGone(err):
			return false, err
		case time.Since(began) >= lostCreateTime:
			a.createLost.Store(false)
			return false, nil
		}
		if err := sleep(ctx, lostCreatePause); err != nil {
			return false, err
		}
	}
	return false, nil
}

// Somebody may rename the task's container. Another container may then get the old name.
// So if no container has the name, the task's container may still exist. If the adapter
// has made or seen the container, it finds the container by its ID. Otherwise it looks for
// the task's label.

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

// onContainer calls call with the name or the ID of the task's container. If the engine
// answers that there is no such container, onContainer looks for the task's label, and
// calls again with the ID that it finds.
//
// If the ID is known, the first call gets the ID and not the name: another container may
// have the name by now. A fake may know its containers by name alone, so it gets the name
// first, and then the ID.
func (a *ContainerAdapter) onContainer(ctx context.Context, call func(nameOrID string) error) error {
	known := a.knownID()
	first := a.name
	if known != "" && !a.engine.api.isFake {
		first = known
	}
	isGone := func(err error) bool {
		return ctx.Err() == nil && isContainerGone(err) && !isNetworkVanished(err) // a start's 404 may be about a network
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

// inspect inspects the task's container. It asks by name first. If no container has the
// name, or another container has it, inspect asks by the ID, and then looks for the label.
// If none of these finds the container, the error is a 404. There is one exception: if the
// ID is not known and another container has the name, inspect returns that other container.
// The caller checks the owner.
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

// findByLabel returns the ID of the container that has the task's label, and notes the ID.
// The ID is empty if no container has the label, or several have it. known is the ID that
// the task's container had; empty: not known. If known is set, the container with that ID is
// gone: findByLabel leaves it out. It then also leaves out the container that has the task's
// name: another container has taken that name. For a fake, which need not implement
// ContainerList, the ID is always empty.
func (a *ContainerAdapter) findByLabel(ctx context.Context, known string) (id string, err error) {
	if a.engine.api.isFake {
		return "", nil
	}
	list, err := request(ctx, a, 0, func(ctx context.Context) ([]container.Summary, error) {
		return a.engine.client.ContainerList(ctx, container.ListOptions{All: true, Filters: filters.NewArgs(filters.Arg("label", LabelTaskID+"="+a.taskID))})
	})
	switch {
	case err == nil:
	case ctx.Err() == nil && (isForbidden(err) || cerrdefs.IsNotFound(err)):
		a.unlistedOnce.Do(func() {
			log.G(a.logContext(ctx)).WithError(err).Warn("containers are not listed (GET /containers/json): a container that has another name is not found")
		})
		return "", nil
	default:
		return "", errors.Wrap(err, "look for it under another name")
	}
	for _, c := range list {
		if c.ID == known || known != "" && slices.Contains(c.Names, "/"+a.name) {
			continue
		}
		isCopy, err := a.engine.isCopy(ctx, a, a.taskID, c.ImageID)
		switch {
		case err != nil:
			return "", errors.Wrap(err, "look for it under another name")
		case isCopy:
		case id == "":
			id = c.ID
		default:
			a.doubtOnce.Do(func() { warnOfDoubt(a.logContext(ctx), id, c.ID) })
			return "", nil
		}
	}
	a.noteContainer(id)
	return id, nil
}

func warnOfDoubt(ctx context.Context, id, other string) {
	log.G(ctx).Warnf("containers %s and %s have the label of this task: it is not certain which one is the task's, none is touched", shortID(id), shortID(other))
}
