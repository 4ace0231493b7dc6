package dockerexec

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/image"
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
	taskIdentity // of the task's container
	engine       *Engine
	fullTask     fullTask

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

func newContainerAdapter(e *Engine, of taskIdentity, full fullTask) *ContainerAdapter {
	return &ContainerAdapter{taskIdentity: of, engine: e, fullTask: full}
}

// ContainerName returns the name of the task's container. It is the same at every
// call, whether or not there is such a container.
func (a *ContainerAdapter) ContainerName() string { return a.name }

// logContext gives ctx a logger with the fields that each log line carries.
func (a *ContainerAdapter) logContext(ctx context.Context) context.Context {
	return log.WithFields(ctx, log.Fields{
		"task.id":    a.taskID,
		"service.id": a.serviceID,
		"node.id":    a.nodeID,
	})
}

// ready agrees on the API version and refuses a task that asks for what this
// version or the engine's host does not have, before anything is made. It returns what
// the container is made from.
func (a *ContainerAdapter) ready(ctx context.Context) (config *containerConfig, version string, err error) {
	config, _, err = a.fullTask()
	if err != nil {
		return nil, "", err
	}
	version, err = a.engine.api.get(ctx, a.engine.options.requestTimeout)
	if err != nil {
		return nil, "", err
	}
	if err := config.checkVersion(version); err != nil {
		return nil, "", err
	}
	return config, version, a.checkFiles(ctx, config.files)
}

// CreateVolumes creates the volumes of the task's mounts that name a driver, in
// sorted order. A volume that exists is used as it is. The engine itself makes the
// volumes without a driver, when it creates the container. Named volumes are never
// removed.
func (a *ContainerAdapter) CreateVolumes(ctx context.Context) error {
	config, _, err := a.ready(ctx)
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

// Start starts the container. A container that already runs is left running.
// Files of secrets and configs that are missing are written again first.
func (a *ContainerAdapter) Start(ctx context.Context) error {
	config, _, err := a.ready(ctx)
	if err != nil {
		return err
	}
	if a.nameTaken.Load() {
		return errors.Errorf("start container %s: a container that is not this task's has its name; create it first", a.name)
	}
	if err := a.provideMissing(ctx, config.files); err != nil {
		return err
	}
	err = do(ctx, a.engine, 0, func(ctx context.Context) error {
		a.startSent.Store(true)
		return a.engine.client.ContainerStart(ctx, a.name, container.StartOptions{})
	})
	if IsUnknownContainer(err) {
		_ = a.removeFiles(ctx) // the start's error counts
	}
	return engineError(ctx, a.explain(err, config.files), "start container %s", a.name)
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
		return container.InspectResponse{}, engineError(ctx, err, "inspect container %s", a.name)
	}
	if answer.ContainerJSONBase == nil || answer.State == nil {
		return container.InspectResponse{}, errors.Errorf("inspect container %s: the engine's answer has no state", a.name)
	}
	if id := answer.ID; id != "" {
		a.containerID.Store(&id)
	}
	return answer, nil
}

func (a *ContainerAdapter) inspect(ctx context.Context) (container.InspectResponse, error) {
	return request(ctx, a.engine, 0, func(ctx context.Context) (container.InspectResponse, error) {
		return a.engine.client.ContainerInspect(ctx, a.name)
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
	grace := defaultGrace
	if a.stopTimeout != nil {
		grace = time.Duration(*a.stopTimeout) * time.Second
	}
	err := do(ctx, a.engine, grace, func(ctx context.Context) error {
		return a.engine.client.ContainerStop(ctx, a.name, container.StopOptions{Timeout: a.stopTimeout})
	})
	if isContainerGone(err) || IsStoppedContainer(err) {
		return nil
	}
	return engineError(ctx, err, "stop container %s", a.name)
}

// Terminate kills the container at once. A container that is gone or does not
// run is no error.
func (a *ContainerAdapter) Terminate(ctx context.Context) error {
	if a.nameTaken.Load() {
		return nil
	}
	err := do(ctx, a.engine, 0, func(ctx context.Context) error {
		return a.engine.client.ContainerKill(ctx, a.name, "")
	})
	if isContainerGone(err) || IsStoppedContainer(err) {
		return nil
	}
	return engineError(ctx, err, "kill container %s", a.name)
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
		return a.engine.client.ContainerRemove(ctx, a.name, container.RemoveOptions{RemoveVolumes: true, Force: true})
	})
	if removalInProgress.matches(err) {
		err = a.untilGone(ctx)
	}
	if isContainerGone(err) {
		return nil
	}
	return engineError(ctx, err, "remove container %s", a.name)
}

// untilGone waits until the engine no longer knows the container, which another
// caller is removing, and returns the error that says so. It may take as long as
// one engine call.
func (a *ContainerAdapter) untilGone(ctx context.Context) error {
	return do(ctx, a.engine, 0, func(ctx context.Context) error {
		for pause := 10 * time.Millisecond; ; pause = min(2*pause, time.Second) {
			if _, err := a.engine.client.ContainerInspect(ctx, a.name); err != nil {
				return err
			}
			if err := sleep(ctx, pause); err != nil {
				return err
			}
		}
	})
}

// checkOwner refuses a container under the task's name that is not the task's: of
// another task, or without a label under a name that anybody may choose. Only to
// adopt one that was there before a create takes the label itself.
func (a *ContainerAdapter) checkOwner(answer container.InspectResponse) error {
	switch owner := labelOf(answer); {
	case owner == a.taskID, owner == "" && !a.isNamed:
		return nil
	case owner == "":
		return errors.Errorf("container %s (%s) belongs to no task", a.name, shortID(answer.ID))
	default:
		return errors.Errorf("container %s (%s) belongs to task %s", a.name, shortID(answer.ID), owner)
	}
}

// PullImage has the engine pull the task's image, and returns when the pull has
// ended. A tag is pulled every time, because it may have moved; a digest only if the
// engine does not have it; an image ID never. An image that only this engine has,
// under a tag, cannot be pulled: name it by its ID.
//
// The credentials are those of the task's PullOptions.RegistryAuth, and no others:
// no configuration file and no credential helper is read.
//
// Adapters of one [Engine] that want the same image, for the same platform and with
// the same credentials, share one request. It goes on as long as one of them waits,
// and is cancelled when the last of them leaves. Its result is not remembered.
//
// A pull that fails is tried again with growing pauses, up to [WithPullAttempts] times
// in all, unless the fault is known to be final: the image is not there, or not for the
// platform, access is denied, the disk is full. The engine itself tries each layer
// several times. A pull that makes no progress is cancelled
// and not tried again; see [WithPullStallTimeout]. Extractions, and layers that the
// engine has queued, may take an hour without progress.
//
// The error is the bare error of a context that ended; a temporary one (see
// [exec.IsTemporary]) if the last attempt failed for a fault of the engine itself
// or of the connection to it; any other is final. It names image, attempt and
// cause. It has the class of github.com/containerd/errdefs that the cause has, as far
// as its text tells, and holds neither credentials nor the user or query part of any
// URL. The error of a registry that refuses the credentials contains "denied".
//
// The observer of [WithPullObserver] is called from the engine's first message
// on, and once more with the last state when the pull has ended, for which
// PullImage may take a tenth of a second longer. A call that is running when the pull
// ends is waited for. When ctx ends, PullImage returns within a second, even if
// the observer, or the client, is still busy; the observer is not called again.
func (a *ContainerAdapter) PullImage(ctx context.Context) error {
	if imageID.MatchString(a.image) {
		return nil
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	config, _, err := a.ready(ctx)
	if err != nil {
		return err
	}
	ref, _ := reference.ParseNormalizedNamed(a.image) // checked by newContainerConfig
	if _, isDigest := ref.(reference.Canonical); isDigest {
		present, err := a.imagePresent(ctx)
		if present {
			log.G(a.logContext(ctx)).WithField("image", a.image).Debug("image digest is on the engine: not pulled")
		}
		if present || err != nil {
			return err
		}
	}
	return a.engine.pulls.pull(ctx, a.logContext(ctx), pullTarget{image: a.image, ref: ref, options: config.pullOptions()})
}

// imagePresent reports whether the task's image is on the engine, for the task's
// platform. Only that the engine is away is an error; whatever else it answers
// means that it has no such image.
func (a *ContainerAdapter) imagePresent(ctx context.Context) (bool, error) {
	config, _, err := a.fullTask()
	if err != nil {
		return false, err
	}
	answer, err := request(ctx, a.engine, 0, func(ctx context.Context) (image.InspectResponse, error) {
		return a.engine.client.ImageInspect(ctx, a.image)
	})
	switch {
	case err == nil:
		return runsOn(answer, config.platform()), nil
	case ctx.Err() != nil, isPassing(err) && !cerrdefs.IsNotFound(err):
		return false, engineError(ctx, err, "inspect image %s", a.image)
	default:
		return false, nil
	}
}

// Adapter makes the adapter of one task. It does no I/O and never changes node
// or task, of which it takes copies; both may be reused at once.
//
// node describes the node that the task runs on. Templates in the task, and in its
// secrets and configs, may refer to it; nil leaves those values empty. deps hands
// out secrets and configs; nil if there are none. Only Create and Start ask it, and
// only for those that the task references; the adapter expands their templates. A
// task is refused if deps has no getter for what it references. When a getter
// answers with an error, or with nil, the payload is taken to be on its way: Create
// or Start fails with a temporary error.
//
// A task that cannot run as asked is refused here with an error that names the
// field at fault, and a nil task with an error too. [ErrImageRequired] and
// [exec.ErrRuntimeUnsupported] are returned bare.
func (e *Engine) Adapter(node *api.NodeDescription, task *api.Task, deps exec.DependencyGetter) (*ContainerAdapter, error) {
	if err := e.usable(); err != nil {
		return nil, err
	}
	config, given, err := resolveTask(node, true, task, deps)
	if err != nil {
		return nil, err
	}
	return newContainerAdapter(e, identityOf(task), func() (*containerConfig, payloads, error) { return config, given, nil }), nil
}

// deferredAdapter is Adapter for a node that may not be known yet, which is nil. If
// the task depends on it, nothing is made before it is known.
func (e *Engine) deferredAdapter(node func() *api.NodeDescription, task *api.Task, deps exec.DependencyGetter) (*ContainerAdapter, error) {
	known := node()
	if known != nil {
		return e.Adapter(known, task, deps)
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

// refusedAdapter is the adapter of a task that is refused and may have a container,
// which another version of this package or another executor made. It makes nothing.
// If no engine can have a container of the task, the refusal is returned.
func (e *Engine) refusedAdapter(task *api.Task, refusal error) (*ContainerAdapter, error) {
	if e == nil || e.client == nil || task == nil || checkRuntime(task) != nil || checkName(task) != nil {
		return nil, refusal
	}
	return newContainerAdapter(e, identityOf(task), makesNothing(refusal)), nil
}
