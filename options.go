package dockerexec

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/registry"
	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/moby/swarmkit/v2/api"
	"github.com/pkg/errors"
)

// The defaults of the options. The comment of each option says where the number comes
// from.
const (
	defaultPullStallTimeout = 5 * time.Minute
	defaultPullAttempts     = 3
	defaultRequestTimeout   = 2 * time.Minute
	defaultLogRate          = 10 << 20
	defaultSecretsDir       = "/run/dockerexec/secrets"
	defaultOrphanGrace      = 5 * time.Minute
)

// Option changes one setting of an [Engine] and of every adapter made from it. A nil
// Option is ignored. If two change the same setting, the last one counts.
//
// An Option does not fail. If its value is impossible, these methods return an error
// that names the option:
//
//   - [Engine.Adapter] and [NewContainerAdapter].
//   - An executor's Describe.
//   - [Engine.Controller], and an executor's Controller, for a task whose state is
//     below PREPARING.
//
// For a task that has reached PREPARING, [Engine.Controller] and an executor's Controller
// return a controller, so that no running task is lost. Its Prepare and Start fail with
// that error, as a temporary one. Its Wait, Shutdown and Remove work.
type Option func(*options)

type options struct {
	pullObserver     func(context.Context, PullProgress)
	pullStallTimeout time.Duration
	pullAttempts     int
	requestTimeout   time.Duration
	logRate          int
	secretsDir       string
	wrappedClient    bool
	pullPolicy       PullPolicy
	credentials      func(context.Context, string) (registry.AuthConfig, error)
	createHook       func(context.Context, *api.Task, *container.Config, *container.HostConfig) error
	startHook        func(context.Context, *api.Task, *container.StartOptions) error
	orphanPolicy     OrphanPolicy
	orphanGrace      time.Duration
	dependencies     exec.DependencyManager

	err error // names the first option whose value is impossible
}

func newOptions(opts []Option) options {
	o := options{
		pullStallTimeout: defaultPullStallTimeout,
		pullAttempts:     defaultPullAttempts,
		requestTimeout:   defaultRequestTimeout,
		logRate:          defaultLogRate,
		secretsDir:       defaultSecretsDir,
		orphanGrace:      defaultOrphanGrace,
	}
	for _, opt := range opts {
		if opt != nil {
			opt(&o)
		}
	}
	return o
}

// refuse notes that the value of an option is impossible. The first such value counts.
func (o *options) refuse(name, format string, args ...any) {
	if o.err == nil {
		o.err = errors.Errorf("dockerexec: option %s: %s", name, fmt.Sprintf(format, args...))
	}
}

// WithPullObserver sets a function that gets the progress of pulls. Each
// [ContainerAdapter.PullImage] that waits for a pull calls it with its own context. To
// tell tasks apart, put the task into that context. The calls of one PullImage come one
// after the other, at most ten times a second, and never after it has returned. The
// calls of different PullImages may run at the same time. A slow observer delays only
// its own progress. The default is nil: no observer.
func WithPullObserver(observe func(context.Context, PullProgress)) Option {
	return func(o *options) { o.pullObserver = observe }
}

// WithPullStallTimeout bounds how long a pull may go on without progress. Progress is a
// new byte of a layer, a layer that enters a later phase, or one of the first 16 changes of
// the whole pull's status. While a layer downloads, only downloads are progress: the
// extraction of another layer is not. The wait for the engine's first message counts too. A
// pull without progress is cancelled and not tried again: errors.Is finds [ErrPullStalled]
// in its error. The default is five minutes: containerd raised its own limit to that, for
// slow disks. 0 means no limit. A negative value is an error (see [Option]).
//
// Some phases have a longer limit. Extractions, and layers that the engine has queued,
// have at least an hour. A layer has at least 20 seconds to begin. An engine with the
// containerd image store reports a download only for each whole MiB. With such an engine,
// the limit for a MiB is the longer of two times: timeout, and twice the time that the MiB
// before took. The second of these times counts as at most 40 seconds.
func WithPullStallTimeout(timeout time.Duration) Option {
	return func(o *options) {
		if timeout < 0 {
			o.refuse("WithPullStallTimeout", "%v is negative; 0 means no limit", timeout)
			return
		}
		o.pullStallTimeout = timeout
	}
}

// WithPullAttempts sets how often a pull is tried in all, unless its fault is known to be
// final. The default is 3: the engine itself tries each layer five times, and the
// attempts multiply. 1 means that a pull is not tried again. Less than 1 is an error (see
// [Option]).
func WithPullAttempts(attempts int) Option {
	return func(o *options) {
		if attempts < 1 {
			o.refuse("WithPullAttempts", "%d is less than 1; 1 means that a pull is not tried again", attempts)
			return
		}
		o.pullAttempts = attempts
	}
}

// PullPolicy says when an image is pulled. See [WithPullPolicy].
type PullPolicy int

const (
	// PullAlways pulls each time: a tag may have moved. It is the default. An image ID is
	// never pulled, and a digest only if the engine does not have it.
	PullAlways PullPolicy = iota
	// PullIfMissing pulls only if the engine does not have the image.
	PullIfMissing
	// PullNever does not pull. If the engine does not have the image, the create fails.
	PullNever
)

// WithPullPolicy says when [ContainerAdapter.PullImage] pulls an image. The default is
// [PullAlways]. With [PullIfMissing] and [PullNever] a tag can be used that only this
// engine has. Any other value is an error (see [Option]).
func WithPullPolicy(policy PullPolicy) Option {
	return func(o *options) {
		if policy < PullAlways || policy > PullNever {
			o.refuse("WithPullPolicy", "there is no policy %d", policy)
			return
		}
		o.pullPolicy = policy
	}
}

// WithCredentials sets a function that is asked for the credentials of a pull, if the task
// brings none (PullOptions.RegistryAuth). image is the image as the task names it. The zero
// [registry.AuthConfig] means that there are none. An error of the function is an error of
// the pull: the pull is not sent. The function may be called by several goroutines at the
// same time, and again for each pull. The default is nil: only the task's own credentials.
func WithCredentials(ask func(ctx context.Context, image string) (registry.AuthConfig, error)) Option {
	return func(o *options) { o.credentials = ask }
}

// WithCreateHook sets a function that sees each create of a container before it is sent,
// and may change it. It is for what SwarmKit's task has no field for: devices, GPUs,
// privileges. The hook is called again when a create is repeated. It gets a copy of the
// task, with its templates expanded. It must not change the labels by which the container
// is found: [LabelTaskID], com.docker.swarm.task and the node's.
//
// An error of the hook is final, and nothing is created. A hook may be called by several
// goroutines at the same time. The default is nil: no hook.
func WithCreateHook(hook func(context.Context, *api.Task, *container.Config, *container.HostConfig) error) Option {
	return func(o *options) { o.createHook = hook }
}

// WithStartHook is [WithCreateHook] for the start of a container. It can name a checkpoint
// from which the container starts.
func WithStartHook(hook func(context.Context, *api.Task, *container.StartOptions) error) Option {
	return func(o *options) { o.startHook = hook }
}

// WithRequestTimeout bounds each engine call, and each wait for another task's call. It
// does not bound pulls and logs; but see the Logs of [RunOptions]. Of the event stream it
// bounds only the opening. A stop may take the task's grace period in addition. A call that
// takes longer fails with a temporary error. The engine may still carry it out; a repeated
// call finds the result.
// The default is two minutes, as in cri-dockerd and the ECS agent. 0 means no limit:
// then a create or start that the engine never answers blocks its controller's later
// calls. A negative value is an error (see [Option]).
//
// A stop or a removal may take 20 seconds more if a start may be lost. That is so if the
// engine shows the container as never started, and one of two things has happened: a start
// got no answer, or an earlier process left the task in STARTING or RUNNING. The container's
// process may then still appear. See "Lost starts" in docs/operations.md.
func WithRequestTimeout(timeout time.Duration) Option {
	return func(o *options) {
		if timeout < 0 {
			o.refuse("WithRequestTimeout", "%v is negative; 0 means no limit", timeout)
			return
		}
		o.requestTimeout = timeout
	}
}

// WithLogRate bounds how many bytes a second each [ContainerAdapter.PublishLogs]
// publishes, on average. One second's worth may come at once. The default is 10 MiB, as
// in the swarm executor inside the engine. 0 means no limit. A negative value is an
// error (see [Option]).
func WithLogRate(bytesPerSecond int) Option {
	return func(o *options) {
		if bytesPerSecond < 0 {
			o.refuse("WithLogRate", "%d is negative; 0 means no limit", bytesPerSecond)
			return
		}
		o.logRate = bytesPerSecond
	}
}

// WithSecretsDir sets the directory for the secrets and configs of tasks. It must be an
// absolute path; a relative one is an error (see [Option]). It must be on a memory file
// system (tmpfs or ramfs), and the engine must see it at the same path. If the executor
// runs in a container, mount the host's directory there. If the executor is not root,
// its user must own the directory, and tasks' files cannot belong to other users.
// Missing directories are created with mode 0700. The default, also for an empty path,
// is /run/dockerexec/secrets: on hosts with systemd, /run is a tmpfs, and the engine
// keeps its own secrets there.
//
// Executors of one user may share the directory. Before its first task with secrets or
// configs, an executor removes the files of its engine's tasks that have no container,
// unless the files were written in the last ten minutes. If another executor's create takes
// longer than ten minutes, that create may fail with a temporary error. After a change of
// the directory, older containers start only if their files are still in the old directory.
// Those files stay until the host restarts.
func WithSecretsDir(dir string) Option {
	return func(o *options) {
		switch {
		case dir == "":
			o.secretsDir = defaultSecretsDir
		case !filepath.IsAbs(dir):
			o.refuse("WithSecretsDir", "%q is not an absolute path", dir)
		default:
			o.secretsDir = dir
		}
	}
}

// WithDependencies sets the stores into which the agent of an executor puts the secrets,
// configs and cluster volumes of its node, such as those of SwarmKit's
// agent.NewDependencyManager. An executor of [NewExecutor] or [Engine.Executor] then hands
// them to the agent. If the stores have Volumes, it is also an [exec.VolumesProvider], its
// tasks may have mounts of type cluster, and its Describe says what their volume plugins say
// of the node. Adapters and controllers are given their getters by the caller, and do not use
// this option. The caller closes what the stores need closed, once the agent has ended. The
// default, also for nil, is stores of secrets and configs of the executor's own, and no
// cluster volumes. A store of secrets or configs that is nil is replaced by one of its own.
func WithDependencies(stores exec.DependencyManager) Option {
	return func(o *options) { o.dependencies = stores }
}

// OrphanPolicy says what an executor does with the containers that an agent has left behind.
// See [WithOrphans].
type OrphanPolicy int

const (
	// OrphansReport logs one warning for each such container. It is the default.
	OrphansReport OrphanPolicy = iota
	// OrphansRemove stops and removes them.
	OrphansRemove
	// OrphansIgnore does not look for them.
	OrphansIgnore
)

// WithOrphans says what an executor does with the containers of tasks that the swarm no
// longer has: see "What is left behind" in docs/operations.md. The default is
// [OrphansReport] and five minutes. grace is how long each look must have found a container
// so. It begins when the agent has got its tasks from the swarm, and anew if two looks are
// more than a minute apart. SwarmKit's agent causes a look every 20 seconds. A grace of less
// than one second, and any other policy, are errors (see [Option]); with [OrphansIgnore]
// grace does not matter. Only the executors of [NewExecutor] and [Engine.Executor] look: for
// others see [Engine.Orphans]. Nobody looks on a fake.
//
// With [OrphansRemove], a container is stopped with its own grace period. Its networks that
// this package made and the files of its secrets and configs are removed with it. So are
// such networks and files without a container, after the same grace. At most four containers
// are removed at the same time.
func WithOrphans(policy OrphanPolicy, grace time.Duration) Option {
	return func(o *options) {
		switch {
		case policy < OrphansReport || policy > OrphansIgnore:
			o.refuse("WithOrphans", "there is no policy %d", policy)
		case policy != OrphansIgnore && grace < time.Second:
			o.refuse("WithOrphans", "a grace of %v is less than a second", grace)
		default:
			o.orphanPolicy, o.orphanGrace = policy, grace
		}
	}
}

// WithWrappedClient says that the client is a real one inside another type, such as a
// type that counts calls. The [Engine] then treats it as a real client. It pings the
// engine, and negotiates the API version through the methods Ping,
// NegotiateAPIVersionPing and ClientVersion. They can lower a version, but not raise it:
// see "Upgrades" in docs/operations.md. The [Engine] also makes the requests that fakes
// need not implement: see docs/engine-calls.md. Without this option, any type except
// *client.Client counts as a fake of the newest version.
//
// If several Engines use one client, give all of them the same wrapper, or all of them the
// client itself. Otherwise one Engine may change the client's version while another one
// makes a request.
func WithWrappedClient() Option {
	return func(o *options) { o.wrappedClient = true }
}
