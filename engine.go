package dockerexec

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	engineapi "github.com/docker/docker/client"
	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/pkg/errors"
)

// Engine is a client-side handle on one Docker Engine. Make one for each client, and
// from it an adapter for each task. The adapters of one Engine share its event stream,
// its pulls, and the knowledge of which tasks use a network.
//
// An Engine starts nothing by itself and needs no Close: background work ends with the
// contexts of the calls that started it. It is safe for concurrent use. The zero value
// has no client, which [Engine.Adapter] reports. Use [NewEngine].
type Engine struct {
	client   engineapi.APIClient
	options  options
	api      apiVersion
	pulls    *pulls
	stream   eventStream
	networks sharedNetworks
	files    fileStore
	hosts    fileHosts
}

// NewEngine makes a handle on the engine behind client. It does no I/O. The client
// stays the caller's to close, after the last call has returned. [Engine.Adapter]
// reports a nil client, and an option whose value is impossible (see [Option]).
//
// On a *client.Client whose API version is not fixed, the Engine negotiates the
// version. That sets the version for all users of the client. It does the same for a
// client of another type with the option [WithWrappedClient]. Without that option, any
// other type counts as a fake of the newest version, even if it wraps a *client.Client.
// The Engine then never pings, never negotiates, and leaves out the requests that it
// spares a fake. To instrument requests, better wrap the client's transport. See "API
// version" in the package documentation.
func NewEngine(client engineapi.APIClient, opts ...Option) *Engine {
	if c, ok := client.(*engineapi.Client); ok && c == nil {
		client = nil
	}
	e := &Engine{client: client, options: newOptions(opts)}
	e.api.init(client, e.options.wrappedClient)
	e.pulls = newPulls(client, e.options, e.api.isFake)
	e.stream.request = func(ctx context.Context, since string) (openedEvents, error) {
		if _, err := e.api.get(ctx, e.options.requestTimeout); err != nil {
			return openedEvents{}, err
		}
		return openEvents(ctx, client, e.options.requestTimeout, since)
	}
	e.files = newFileStore(e.options.secretsDir)
	e.hosts = newFileHosts()
	return e
}

var errNoClient = errors.New("dockerexec: the engine's client is nil")

// usable returns the error that every operation would meet: there is no client, or the
// value of an option is impossible.
func (e *Engine) usable() error {
	if e == nil || e.client == nil {
		return errNoClient
	}
	return e.options.err
}

// apiVersion agrees with the engine on an API version. That happens once, before the
// first other request.
//
// The client's own negotiation is not used. It is a data race beside a request. It
// hides a ping that failed, and then keeps a version that an older engine refuses.
type apiVersion struct {
	client engineapi.APIClient
	isFake bool          // no ping, and no request that fakes need not know
	gate   chan struct{} // see passGate; the holder of its token may ping
	agreed atomic.Pointer[string]
}

// negotiating guards a client while its version is set. Several Engines may use one
// client, and the client has no accessor that is safe while another sets it.
var negotiating sync.Mutex

func (v *apiVersion) init(client engineapi.APIClient, isWrapped bool) {
	v.client, v.gate = client, make(chan struct{}, 1)
	if _, isReal := client.(*engineapi.Client); !isReal && !isWrapped {
		v.isFake = true
		v.fix("") // the newest
	}
}

// get returns the agreed version. If there is none yet, it pings first. The empty
// version is the newest. A failed ping is a passing fault: the next call tries again.
func (v *apiVersion) get(ctx context.Context, timeout time.Duration) (string, error) {
	if agreed := v.agreed.Load(); agreed != nil {
		return *agreed, nil
	}
	pingCtx, cancel := withTimeout(ctx, timeout) // bounds the wait for another call's ping, too
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
		return failed(errors.New(err.Error())) // without its class, which is about the ping alone
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

// fix stores the version that get returns from now on.
func (v *apiVersion) fix(version string) { v.agreed.Store(&version) }

// caller is on whose behalf a call is made: a task's adapter, or an Engine for itself.
type caller interface {
	handle() *Engine
	// hide takes secrets out of an error of the engine.
	hide(err error) error
}

func (e *Engine) handle() *Engine { return e }

// hide knows no secrets of tasks. It takes users and queries out of URLs.
func (e *Engine) hide(err error) error { return scrubber{}.hide(err) }

// request makes one engine call. It agrees on the API version first. The call may take
// the request time-out plus extra. The error is the client's own, without the secrets of
// the task: those who classify it find what the engine said. Then it goes to engineError.
// Only a time-out is replaced, by requestTimeoutError.
func request[T any](ctx context.Context, by caller, extra time.Duration, call func(context.Context) (T, error)) (T, error) {
	var none T
	e := by.handle()
	timeout := e.options.requestTimeout
	if _, err := e.api.get(ctx, timeout); err != nil {
		return none, by.hide(err)
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
	return answer, by.hide(err)
}

// do is request for a call whose answer is only an error.
func do(ctx context.Context, by caller, extra time.Duration, call func(context.Context) error) error {
	_, err := request(ctx, by, extra, func(ctx context.Context) (struct{}, error) {
		return struct{}{}, call(ctx)
	})
	return err
}
