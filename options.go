package dockerexec

import (
	"context"
	"time"
)

// The defaults of the options, which say where each comes from.
const (
	defaultPullStallTimeout = 5 * time.Minute
	defaultPullAttempts     = 3
	defaultRequestTimeout   = 2 * time.Minute
	defaultLogRate          = 10 << 20
	defaultSecretsDir       = "/run/dockerexec/secrets"
)

// Option changes one setting of an [Engine] and of every adapter it makes.
// A nil Option is ignored; of two for the same setting the last one counts.
type Option func(*options)

type options struct {
	pullObserver     func(context.Context, PullProgress)
	pullStallTimeout time.Duration
	pullAttempts     int
	requestTimeout   time.Duration
	logRate          int
	secretsDir       string
}

func newOptions(opts []Option) options {
	o := options{
		pullStallTimeout: defaultPullStallTimeout,
		pullAttempts:     defaultPullAttempts,
		requestTimeout:   defaultRequestTimeout,
		logRate:          defaultLogRate,
		secretsDir:       defaultSecretsDir,
	}
	for _, opt := range opts {
		if opt != nil {
			opt(&o)
		}
	}
	return o
}

// WithPullObserver calls observe with the progress of every pull: for
// each [ContainerAdapter.PullImage] that waits, with the context of that very
// call (put the task in it), never twice at the same time for one call, at most
// ten times a second, and never after the call returned. A slow observer delays
// only its own progress. The default is nil: nobody is called.
func WithPullObserver(observe func(context.Context, PullProgress)) Option {
	return func(o *options) { o.pullObserver = observe }
}

// WithPullStallTimeout bounds how long a pull may go on without any advance: no
// byte more of any layer, no layer in a later phase. The wait for the engine's
// first message counts too; extracting has a longer limit of its own. The default
// is five minutes, to which containerd raised its own for slow disks; 0 or less
// turns it off.
//
// An engine with the containerd image store reports a download only for each
// whole MiB. So a layer may take 20 seconds to begin, and there each MiB twice as
// long as the one before, if that is longer than the time-out.
func WithPullStallTimeout(timeout time.Duration) Option {
	return func(o *options) { o.pullStallTimeout = max(timeout, 0) }
}

// WithPullAttempts sets how often a pull is tried in all when the registry or
// the connection to it fails in a passing way. The default is 3: the engine itself
// tries each layer five times, and more would multiply. Less than 1 counts as 1.
func WithPullAttempts(attempts int) Option {
	return func(o *options) { o.pullAttempts = max(attempts, 1) }
}

// WithRequestTimeout bounds each engine call except pulls, events and logs,
// which may rightly take as long as they like. A stop may take the task's grace
// period and this time on top. A call that takes longer fails with a temporary
// error, and so does one that waits longer for another task's call that comes
// first: a ping, or one about the same network. The engine may go on with it: a create or start that timed out can still
// be carried out, and is found when the call is repeated. The default is two
// minutes, as cri-dockerd and the ECS agent allow; 0 or less turns it off.
//
// Without a time-out a call takes as long as its context. A controller's creates
// and starts go on after theirs has ended, so one that the engine never answers
// then never ends, and what comes after it for the task waits for it.
func WithRequestTimeout(timeout time.Duration) Option {
	return func(o *options) { o.requestTimeout = max(timeout, 0) }
}

// WithLogRate bounds the bytes a second, over time, that each
// [ContainerAdapter.PublishLogs] hands on; one second's worth may come at once.
// The default is 10 MiB, as in the swarm executor inside the engine; 0 or less
// turns it off.
func WithLogRate(bytesPerSecond int) Option {
	return func(o *options) { o.logRate = max(bytesPerSecond, 0) }
}

// WithSecretsDir names the directory for the secrets and configs of tasks: an
// absolute path, on a memory file system (tmpfs or ramfs), which the engine sees
// at the same path. An executor in a container of its own needs the host's directory
// mounted there; one that is not root needs a directory of its own user's, and can
// give files to nobody else. Missing directories are created with mode 0700. The
// default, and what an empty path stands for, is /run/dockerexec/secrets: on systemd's
// hosts /run is a tmpfs, and the engine keeps its own there.
//
// Executors of one user may share it; one that starts may cost the creates of
// another one a retry. After a change of the directory a container of before starts
// only if its files are still where they were. They are not removed any more,
// until the host restarts.
func WithSecretsDir(dir string) Option {
	return func(o *options) {
		if o.secretsDir = dir; dir == "" {
			o.secretsDir = defaultSecretsDir
		}
	}
}
