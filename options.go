package dockerexec

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	"github.com/pkg/errors"
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
//
// An Option does not fail. If its value cannot be, [Engine.Adapter] and the executor's
// Describe return an error that names the option. A controller's Prepare and Start then
// fail with a temporary error, while its Wait, Shutdown and Remove work: tasks that run
// are not lost for it.
type Option func(*options)

type options struct {
	pullObserver     func(context.Context, PullProgress)
	pullStallTimeout time.Duration
	pullAttempts     int
	requestTimeout   time.Duration
	logRate          int
	secretsDir       string
	wrappedClient    bool

	err error // the first option whose value cannot be; its setting keeps the default
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

// refuse notes that an option's value cannot be.
func (o *options) refuse(name, format string, args ...any) {
	if o.err == nil {
		o.err = errors.Errorf("dockerexec: option %s: %s", name, fmt.Sprintf(format, args...))
	}
}

// WithPullObserver has observe called with the progress of pulls. Each
// [ContainerAdapter.PullImage] that waits has its own calls, with the context that
// it was given, so put into that whatever tells the tasks apart. The calls for one
// PullImage come one after the other, at most ten times a second, and never after it
// has returned; those for different ones may run at the same time. A slow observer
// delays only its own progress. The default is nil: no observer.
func WithPullObserver(observe func(context.Context, PullProgress)) Option {
	return func(o *options) { o.pullObserver = observe }
}

// WithPullStallTimeout bounds how long a pull may go on without progress: no new
// byte of any layer, no layer in a later phase. The wait for the engine's first
// message counts too; extraction has a limit of its own, an hour. The default is
// five minutes, to which containerd raised its own for slow disks; 0 means no limit,
// a negative value is an error.
//
// An engine with the containerd image store reports a download only for each
// whole MiB. There a layer may take 20 seconds to begin, and each MiB may take twice
// as long as the one before, where that is longer than the time-out.
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
// final. The default is 3, because the engine itself tries each layer five times and
// the attempts multiply. 1 means that a pull is
// not tried again; less than 1 is an error.
func WithPullAttempts(attempts int) Option {
	return func(o *options) {
		if attempts < 1 {
			o.refuse("WithPullAttempts", "%d is less than 1; 1 means that a pull is not tried again", attempts)
			return
		}
		o.pullAttempts = attempts
	}
}

// WithRequestTimeout bounds each engine call except pulls and logs, and of the
// events only the opening of the stream. A stop may take the task's grace period and
// this time on top. A call that takes longer fails with a temporary error, and so does
// one that waits longer for another task's call that has to come first: a ping, the look
// at the engine before the first task with secrets, or a call about the same network. The
// engine may still carry out a create or start that timed
// out; it is found when the call is repeated. The default is two minutes, as cri-dockerd
// and the ECS agent allow; 0 means no limit, a negative value is an error.
//
// Without a time-out a call takes as long as its context allows. A controller's
// creates and starts outlive their context, so one that the engine never answers
// then never ends, and later calls of that controller wait for it.
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
// hands on, on average; one second's worth may come at once. The default is 10 MiB,
// as in the swarm executor inside the engine; 0 means no limit, a negative value is an
// error.
func WithLogRate(bytesPerSecond int) Option {
	return func(o *options) {
		if bytesPerSecond < 0 {
			o.refuse("WithLogRate", "%d is negative; 0 means no limit", bytesPerSecond)
			return
		}
		o.logRate = bytesPerSecond
	}
}

// WithSecretsDir sets the directory for the secrets and configs of tasks. It must be
// an absolute path on a memory file system (tmpfs or ramfs) that the engine sees at
// the same path. An executor in a container of its own needs the host's directory
// mounted there. An executor that is not root needs a directory owned by its user,
// and cannot give files to other users. Missing directories are created with mode
// 0700. The default, also for an empty path, is /run/dockerexec/secrets: on hosts with
// systemd, /run is a tmpfs, and the engine keeps its own secrets there.
//
// Executors of one user may share the directory; one that starts may make a create
// of another fail with a temporary error. After a change of the directory, older
// containers start only if their files are still in the old one. Those files are not
// removed until the host restarts.
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

// WithWrappedClient says that the client is a real one inside another type, such as one
// that counts calls. The [Engine] then pings the engine and negotiates the API version
// through the methods Ping, NegotiateAPIVersionPing and ClientVersion, and sends the
// requests that it spares a fake: see [NewEngine]. The default is that any type but
// *client.Client counts as a fake of the newest version.
func WithWrappedClient() Option {
	return func(o *options) { o.wrappedClient = true }
}
