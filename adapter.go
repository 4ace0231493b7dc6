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
	"github.com/docker/docker/api/types/registry"
	"github.com/docker/docker/api/types/volume"
	engineapi "github.com/docker/docker/client"
	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/moby/swarmkit/v2/api"
	"github.com/moby/swarmkit/v2/log"
	"github.com/pkg/errors"
)

// ContainerAdapter carries out the operations of one task on its engine. Each operation
// may be called again after a failure, also on a new adapter of the same task in another
// process. It finds the task's objects on the engine by their names and labels.
//
// Its errors:
//
//   - The bare error of a context that ended.
//   - A temporary error (see [exec.IsTemporary]) for a fault of the engine that passes.
//   - The sentinels of this package and of SwarmKit, bare.
//   - Any other error says what failed on which object.
//
// No error shows a secret of the task, even if the engine's own error quotes a secret.
//
// An adapter is safe for concurrent use and has nothing to close. The zero value cannot
// be used; see [Engine.Adapter].
type ContainerAdapter struct {
	taskIdentity // of the task's container
	engine       *Engine
	fullTask     fullTask
	secrets      taskSecrets

	containerID  atomic.Pointer[string] // as the last create or inspect found it; nil: none so far
	isRemoved    atomic.Bool            // this adapter has removed that container
	mountedUnder atomic.Pointer[string] // the engine ID in the path DIR/ENGINE ID/TASK ID of the container's files; nil: not known
	startedAt    atomic.Pointer[string] // when the container was started, as the last inspect found it; nil: not known
	ownGrace     atomic.Pointer[int]    // the container's own grace period in seconds, as the last inspect found it; nil: none, or not known

	isPrepared atomic.Bool   // the last Create found the container: an earlier process may have started it
	isStarted  atomic.Bool   // this adapter has started the container, or sent a start that got no answer
	starts     atomic.Int64  // how many start requests of this adapter have got a result
	starting   chan struct{} // see passGate; its holder sends a start

	createLost  atomic.Bool // a create may be under way: this adapter's had no answer, or the name is taken by nothing seen
	networkLost atomic.Bool // this adapter's create of a network had no answer, and may be under way
	// A start may be lost: the container may run without the engine's knowledge.
	startLost atomic.Bool

	// Create, or the search for a lost create, found the name taken by a container that is
	// not the task's. This adapter must not start, stop or remove that container.
	nameTaken atomic.Bool

	isAlone bool // no controller stands for the adapter: see taskTable

	// Each of these warnings is logged only once.
	warnOnce, capOnce, doubtOnce, unlistedOnce sync.Once
	endOnce                                    sync.Once // counts the end of the container
	said                                       saidTexts
}

// NewContainerAdapter makes an adapter with an [Engine] of its own: it shares no event
// stream and no pull with any other adapter. To run more than one task, make one
// Engine, and from it an adapter for each task. The rest is as for [NewEngine] and
// [Engine.Adapter], except that a task that references a config or has a cluster volume is
// refused. secrets may be nil if the task references none.
func NewContainerAdapter(client engineapi.APIClient, node *api.NodeDescription, task *api.Task, secrets exec.SecretGetter, opts ...Option) (*ContainerAdapter, error) {
	var deps exec.DependencyGetter
	if secrets != nil {
		deps = getters{secrets: secrets}
	}
	return NewEngine(client, opts...).Adapter(node, task, deps)
}

func newContainerAdapter(e *Engine, of taskIdentity, full fullTask) *ContainerAdapter {
	return &ContainerAdapter{taskIdentity: of, engine: e, fullTask: full, starting: make(chan struct{}, 1)}
}

func (a *ContainerAdapter) handle() *Engine { return a.engine }

// ContainerName returns the name of the task's container. The name never changes, and
// does not depend on whether the container exists.
func (a *ContainerAdapter) ContainerName() string { return a.name }

// ready comes before each call that makes something. It agrees on the API version. It
// refuses a task if the version lacks one of the task's fields, or if the task's files
// cannot be written. While a cluster volume of the task is not published, the error is
// temporary. ready returns the translated task and the version.
func (a *ContainerAdapter) ready(ctx context.Context) (config *containerConfig, version string, err error) {
	config, given, err := a.fullTask()
	if err != nil {
		return nil, "", err
	}
	version, err = a.engine.api.get(ctx, a.engine.options.requestTimeout)
	if err != nil {
		return nil, "", a.hide(err)
	}
	if err := config.checkVersion(version); err != nil {
		return nil, "", err
	}
	if _, err := a.volumePaths(config, given); err != nil {
		return nil, "", err
	}
	return config, version, a.checkFiles(ctx, config.files)
}

// CreateVolumes creates the task's named volumes that have a driver configuration, in
// sorted order. On Podman it also creates those that have labels: Podman drops the labels of
// a volume that it makes with a container. A volume that exists is used as it is. If it has
// other driver options or labels than the task asks for, one warning names them. The engine
// itself makes the other volumes, when it creates the container. It makes all of them if a
// proxy forbids this request; one warning says so. Named volumes are never removed.
func (a *ContainerAdapter) CreateVolumes(ctx context.Context) (err error) {
	ctx, end := a.begin(ctx, methodCreateVolumes)
	defer end(&err)
	config, _, err := a.ready(ctx)
	if err != nil {
		return err
	}
	for _, v := range config.volumes(a.engine.api.madeBy() == madeByPodman) {
		answer, err := request(ctx, a, 0, func(ctx context.Context) (volume.Volume, error) {
			return a.engine.client.VolumeCreate(ctx, v)
		})
		if err != nil && ctx.Err() == nil && forbidsRequest(err) {
			a.engine.optional.without(a.logContext(ctx), "POST /volumes/create", err, "the engine makes volumes when it creates the container, and nobody sees whether one exists with other options")
			return nil
		}
		if err != nil {
			what := "create volume " + v.Name
			if v.Driver != "" { // empty: the engine's default
				what += " with driver " + v.Driver
			}
			return engineError(ctx, err, "%s", what)
		}
		a.engine.optional.answered("POST /volumes/create")
		if difference := volumeDifference(v, answer); difference != "" && a.said.first("volume "+v.Name) {
			log.G(a.logContext(ctx)).Warnf("task field %s.VolumeOptions: volume %s exists and differs: %s; it is used as it is", config.volumePath(v.Name), v.Name, difference)
		}
	}
	return nil
}

// Remove removes the container, running or not, and its anonymous volumes. It waits
// until the container is gone, and then removes the files of its secrets and configs. A
// container that does not exist is no error. Named volumes, networks and the image
// stay; for networks see [ContainerAdapter.RemoveNetworks].
//
// If a Create got no answer, the engine may still make the container. Then Remove looks for
// the container for five seconds: an engine shows a container only once its volumes are
// filled. If a start may be lost, Remove takes up to 20 seconds more: see [WithRequestTimeout].
func (a *ContainerAdapter) Remove(ctx context.Context) (err error) {
	ctx, end := a.begin(ctx, methodRemove)
	defer end(&err)
	if !a.nameTaken.Load() {
		if _, err := a.awaitLostCreate(ctx); err != nil {
			return err
		}
		if _, err := a.awaitLostStart(ctx); err != nil {
			return err
		}
	}
	if !a.nameTaken.Load() { // awaitLostCreate may have set it
		if err := a.removeContainer(ctx); err != nil {
			return err
		}
	}
	return a.removeFiles()
}

func (a *ContainerAdapter) removeContainer(ctx context.Context) error {
	err := a.onContainer(ctx, func(nameOrID string) error {
		err := do(ctx, a, 0, func(ctx context.Context) error {
			return a.engine.client.ContainerRemove(ctx, nameOrID, container.RemoveOptions{RemoveVolumes: true, Force: true})
		})
		if removalInProgress.matches(err) {
			if err = a.untilGone(ctx, nameOrID); isContainerGone(err) {
				err = nil
			}
		}
		return err
	})
	if err == nil || isContainerGone(err) {
		a.isRemoved.Store(true)
		a.forgetStop(nil)
		a.engine.tasks.forget(a.taskID)
		return nil
	}
	return engineError(ctx, err, "remove container %s", a.name)
}

// untilGone waits while another caller removes the container. It returns the first
// error of an inspect; if the removal succeeds, the error says that there is no such
// container. It waits at most as long as one engine call may take.
func (a *ContainerAdapter) untilGone(ctx context.Context, nameOrID string) error {
	return do(ctx, a, 0, func(ctx context.Context) error {
		pauses := backoff{first: 10 * time.Millisecond, longest: time.Second, atLeastHalf: true}
		for {
			if _, err := a.engine.client.ContainerInspect(ctx, nameOrID); err != nil {
				return err
			}
			if err := sleep(ctx, pauses.next()); err != nil {
				return err
			}
		}
	})
}

// checkOwner refuses a container that has the task's name but is not the task's. There
// are two cases. Either its label names another task. Or it has no label and the task
// chose the name, so that other containers may have the name too. Create does not call
// checkOwner: Create takes over only a container with the task's label.
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

// PullImage makes the engine pull the task's image, and returns when the pull has ended.
// A tag is pulled every time, because it may have moved. A digest is pulled only if the
// engine does not have it, and an image ID never. A tagged image that only this engine
// has cannot be pulled: name it by its ID instead, or see [WithPullPolicy].
//
// The credentials are those of the task's PullOptions.RegistryAuth. If the task has none,
// the function of [WithCredentials] is asked. No configuration file and no credential
// helper is read.
//
// Adapters of one [Engine] share a request if they want the same image, for the same
// platform, with the same credentials. The request is cancelled when no adapter waits
// for it any more. Its result is not remembered.
//
// A pull that fails is tried again with growing pauses, up to [WithPullAttempts] times
// in all, unless its fault is known to be final: the image is not there, or not for the
// platform; access is denied; the disk is full. The engine itself tries each layer
// several times. A pull that makes no progress is cancelled and not tried again:
// errors.Is finds [ErrPullStalled] in its error. [WithPullStallTimeout] has the limits.
//
// If ctx ends, the error is that of ctx, bare. The error is temporary (see
// [exec.IsTemporary]) if the last attempt failed for a fault of the engine or of the
// connection to it. Any other error is final. The error names image, attempt and cause.
// If the cause shows a class of github.com/containerd/errdefs, the error has that class.
// If the registry refuses the credentials, the text contains "denied". No error contains
// credentials, nor the user or the query of a URL.
//
// The observer of [WithPullObserver] is called from the engine's first message on. If the
// first attempt fails without a message, it is called from the second attempt on. If the
// pull ends and the observer has not seen the last state, the observer is called once more,
// within a tenth of a second. PullImage waits for that call. If ctx ends, the observer is
// not called again. PullImage then returns within a second, even if the observer or the
// client is still busy.
func (a *ContainerAdapter) PullImage(ctx context.Context) (err error) {
	ctx, end := a.begin(ctx, methodPullImage)
	defer end(&err)
	policy := a.engine.options.pullPolicy
	if imageID.MatchString(a.image) || policy == PullNever {
		return nil
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	config, _, err := a.ready(ctx)
	if err != nil {
		return err
	}
	ref, _ := reference.ParseNormalizedNamed(a.image) // checked by translateTask
	if _, isDigest := ref.(reference.Canonical); isDigest || policy == PullIfMissing {
		present, err := a.imagePresent(ctx)
		if present {
			log.G(a.logContext(ctx)).WithField("image", a.image).Debug("image is on the engine: not pulled")
		}
		if present || err != nil && err != errImageUnseen { //nolint:errorlint // bare
			return err
		}
	}
	options := config.pullOptions()
	if options.RegistryAuth == "" {
		if options.RegistryAuth, err = a.askCredentials(ctx); err != nil {
			return err
		}
	}
	return a.hide(a.engine.pulls.pull(ctx, a.logContext(ctx), pullTarget{
		image: a.image, ref: ref, options: options, scrubber: a.scrubber(),
	}))
}

// askCredentials asks the function of [WithCredentials], and returns the credentials as a
// header for the engine. The header is empty if there are no credentials.
func (a *ContainerAdapter) askCredentials(ctx context.Context) (header string, err error) {
	ask := a.engine.options.credentials
	if ask == nil {
		return "", nil
	}
	given, err := ask(ctx, a.image)
	switch {
	case ctx.Err() != nil:
		return "", ctx.Err()
	case err != nil:
		return "", errors.Wrapf(a.hide(err), "pull image %s: ask for its credentials", a.image)
	case given == (registry.AuthConfig{}):
		return "", nil
	}
	header, err = registry.EncodeAuthConfig(given)
	if err != nil {
		return "", errors.Wrapf(err, "pull image %s: its credentials", a.image)
	}
	a.secrets.learn(valueCredentials, header)
	return header, nil
}

// errImageUnseen is the error of imagePresent if inspects of images are forbidden.
var errImageUnseen = errors.New("the image may not be looked at")

// imagePresent reports whether the engine has the task's image, for a platform that the
// task allows. If the engine, or a proxy, forbids the inspect, the error is
// errImageUnseen, bare. It returns an error too if the fault will pass or ctx has ended.
// After any other answer it reports that the engine does not have the image.
func (a *ContainerAdapter) imagePresent(ctx context.Context) (bool, error) {
	config, _, err := a.fullTask()
	if err != nil {
		return false, err
	}
	answer, err := request(ctx, a, 0, func(ctx context.Context) (image.InspectResponse, error) {
		return a.engine.client.ImageInspect(ctx, a.image)
	})
	switch {
	case err == nil:
		return runsOn(answer, config.platforms()), nil
	case ctx.Err() != nil, isPassing(err) && !cerrdefs.IsNotFound(err):
		return false, engineError(ctx, err, "inspect image %s", a.image)
	case isForbidden(err):
		a.engine.optional.without(a.logContext(ctx), "GET /images/…", err, "an image with a digest is pulled although the engine may have it; after a failed pull, the create shows whether the image is there")
		return false, errImageUnseen
	default:
		return false, nil
	}
}

// Adapter makes the adapter of one task. It does no I/O. It copies node and task and
// never changes them; both may be reused at once.
//
// node describes the node that the task runs on. Templates in the task, and in its
// secrets and configs, may refer to the node. If node is nil, the node's values are empty.
//
// deps hands out secrets, configs and the paths of cluster volumes; nil if there are none.
// Only Create and Start ask deps for secrets and configs, and only for those that the task
// references. The adapter expands the templates in the secrets and configs that deps hands
// out. A task is refused if deps has no getter for what it references. If a getter returns
// an error, or nil, the payload has not arrived yet: Create or Start fails with a
// temporary error.
//
// A mount of type cluster becomes a bind mount of the path that deps.Volumes() returns for
// the ID of its volume. The path must be on the engine's host. Each method that makes
// something asks for the path first. As long as the getter returns an error, or an empty
// path, the method fails with a temporary error, and has made nothing.
//
// A task that cannot run as asked, or is nil, is refused: errors.As finds a
// *[FieldError], which names the field at fault. [ErrImageRequired] and
// [exec.ErrRuntimeUnsupported] are returned bare. A nil client and an option whose
// value is impossible are errors too (see [Option]).
func (e *Engine) Adapter(node *api.NodeDescription, task *api.Task, deps exec.DependencyGetter) (*ContainerAdapter, error) {
	a, err := e.controllersAdapter(node, task, deps)
	if err != nil {
		return nil, err
	}
	a.isAlone = true
	e.tasks.note(a.taskID)
	return a, nil
}

// controllersAdapter is Adapter for a controller, which notes the task itself.
func (e *Engine) controllersAdapter(node *api.NodeDescription, task *api.Task, deps exec.DependencyGetter) (*ContainerAdapter, error) {
	if err := e.usable(); err != nil {
		return nil, err
	}
	config, given, err := resolveTask(node, true, task, deps)
	if err != nil {
		return nil, err
	}
	return newContainerAdapter(e, identityOf(task), func() (*containerConfig, payloads, error) { return config, given, nil }), nil
}
