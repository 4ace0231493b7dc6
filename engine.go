package dockerexec

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/docker/docker/api/types/versions"
	engineapi "github.com/docker/docker/client"
	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/moby/swarmkit/v2/api"
	"github.com/pkg/errors"
)

// Engine is a client-side handle on one Docker Engine. Make one for each
// client, and from it an adapter for each task: the adapters of one Engine share
// its event stream, its pulls, and the knowledge of which tasks use a network.
//
// An Engine starts nothing by itself and needs no Close: background work ends
// with the contexts of the calls that started it. It is safe for concurrent use.
// The zero value has no client, which [Engine.Adapter] reports; use [NewEngine].
type Engine struct {
	client   engineapi.APIClient
	options  options
	api      apiVersion
	pulls    pulls
	stream   eventStream
	networks sharedNetworks
	files    fileStore
	hosts    fileHosts
}

// NewEngine makes a handle on the engine behind client. It does no I/O. The
// client stays the caller's to close, after the last call has returned. A nil
// client is reported by [Engine.Adapter].
//
// On a *client.Client whose API version is not fixed, the Engine negotiates the
// version, which sets it for all users of that client. Any other implementation
// counts as a fake of the newest version, even one that wraps a *client.Client:
// negotiate or fix the version of such a client yourself, or wrap its transport
// instead. See "API version" in the package documentation.
func NewEngine(client engineapi.APIClient, opts ...Option) *Engine {
	if c, ok := client.(*engineapi.Client); ok && c == nil {
		client = nil
	}
	e := &Engine{client: client, options: newOptions(opts)}
	e.api.init(client)
	e.stream.request = e.openEvents
	e.files = newFileStore(e.options.secretsDir)
	e.hosts.gate = make(chan struct{}, 1)
	return e
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
	if e == nil || e.client == nil {
		return nil, errNoClient
	}
	config, err := newContainerConfig(node, task)
	if err != nil {
		return nil, err
	}
	payloads, err := newPayloads(deps, config)
	if err != nil {
		return nil, err
	}
	return newContainerAdapter(e, config, payloads), nil
}

var errNoClient = errors.New("dockerexec: the engine's client is nil")

// apiVersion agrees with the engine on an API version, once, before the first
// other request.
//
// The client's own negotiation is not used: it is a data race beside a request,
// swallows a failed ping and then keeps a version that an older engine refuses.
type apiVersion struct {
	client *engineapi.Client // nil for a fake, which is not asked
	gate   chan struct{}     // holds one token: whoever takes it may ping
	agreed atomic.Pointer[string]
}

// negotiating guards the client's version while it is set. Several Engines may
// stand on one client, and the client has no accessor that is safe beside it.
var negotiating sync.Mutex

func (v *apiVersion) init(client engineapi.APIClient) {
	v.gate = make(chan struct{}, 1)
	if c, ok := client.(*engineapi.Client); ok && c != nil {
		v.client = c
		return
	}
	v.fix("") // the newest
}

// get returns the agreed version, after a ping if there is none yet. The empty
// version is the newest. A failed ping is a passing fault: the next call tries
// again.
func (v *apiVersion) get(ctx context.Context, timeout time.Duration) (string, error) {
	if agreed := v.agreed.Load(); agreed != nil {
		return *agreed, nil
	}
	pingCtx, cancel := withTimeout(ctx, timeout) // of the wait for another one's ping, too
	defer cancel()
	failed := func(err error) (string, error) {
		if ctx.Err() != nil {
			return "", ctx.Err()
		}
		return "", exec.MakeTemporary(errors.Wrapf(err, "ping the engine at %s", cleanURL(v.client.DaemonHost())))
	}
	if err := passGate(ctx, v.gate, timeout); err != nil {
		return failed(err)
	}
	defer leaveGate(v.gate)
	if agreed := v.agreed.Load(); agreed != nil {
		return *agreed, nil
	}

	ping, err := v.client.Ping(pingCtx)
	switch {
	case err != nil && pingCtx.Err() != nil:
		return failed(requestTimeoutError(timeout))
	case isAnswer(err):
		return failed(errors.New(err.Error())) // its class is no word on what is asked for next
	case err != nil:
		return failed(err)
	case ping.APIVersion == "":
		return failed(errors.New("its answer names no API version"))
	}

	negotiating.Lock()
	v.client.NegotiateAPIVersionPing(ping)
	version := v.client.ClientVersion()
	negotiating.Unlock()
	v.fix(version)
	return version, nil
}

// fix sets the version without asking.
func (v *apiVersion) fix(version string) { v.agreed.Store(&version) }

// atLeast reports whether the API version in use has what came with wanted.
func atLeast(version, wanted string) bool {
	return version == "" || versions.GreaterThanOrEqualTo(version, wanted)
}

func withTimeout(ctx context.Context, timeout time.Duration) (context.Context, context.CancelFunc) {
	if timeout <= 0 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, timeout)
}

// passGate takes the one place behind a gate, for which it waits as long as an engine
// call may take: who is there makes such calls. Without a bound those that wait
// would take their time-outs one after the other.
func passGate(ctx context.Context, gate chan struct{}, timeout time.Duration) error {
	waitCtx, cancel := withTimeout(ctx, timeout)
	defer cancel()
	select {
	case gate <- struct{}{}:
		if waitCtx.Err() == nil {
			return nil
		}
		leaveGate(gate) // both were possible
	case <-waitCtx.Done():
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return requestTimeoutError(timeout)
}

func leaveGate(gate chan struct{}) { <-gate }

// request makes one engine call. The API version is agreed first, and the call
// is bounded by the request time-out plus extra. The error is the client's own,
// for the caller to classify and then to hand to engineError; only a time-out
// is replaced, by an error that says so.
func request[T any](ctx context.Context, e *Engine, extra time.Duration, call func(context.Context) (T, error)) (T, error) {
	var none T
	timeout := e.options.requestTimeout
	if _, err := e.api.get(ctx, timeout); err != nil {
		return none, err
	}
	if timeout > 0 {
		timeout += extra
	}
	callCtx, cancel := withTimeout(ctx, timeout)
	defer cancel()
	answer, err := call(callCtx)
	if err != nil && callCtx.Err() != nil && ctx.Err() == nil {
		err = requestTimeoutError(timeout)
	}
	return answer, err
}

// do is request for a call that answers nothing.
func do(ctx context.Context, e *Engine, extra time.Duration, call func(context.Context) error) error {
	_, err := request(ctx, e, extra, func(ctx context.Context) (struct{}, error) {
		return struct{}{}, call(ctx)
	})
	return err
}
