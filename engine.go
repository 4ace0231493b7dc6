package dockerexec

import (
	"context"
	"io"
	"net/http/httptrace"
	"reflect"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
	"weak"

	"github.com/docker/docker/api/types/image"
	engineapi "github.com/docker/docker/client"
	"github.com/moby/swarmkit/v2/log"
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
	given     engineapi.APIClient // the client of NewEngine
	client    engineapi.APIClient // makes the requests to given, and counts them; nil: there is no client
	options   options
	telemetry *telemetry
	api       apiVersion
	pulls     *pulls
	stream    eventStream
	networks  sharedNetworks
	files     fileStore
	hosts     fileHosts
	optional  optionalRequests
	stops     stops
	tasks     taskTable
	logTurns  logTurns
}

// NewEngine makes a handle on the engine behind client. It does no I/O. It never closes
// the client: the caller does, after the last call has returned. [Engine.Adapter]
// reports a nil client, and an option whose value is impossible (see [Option]).
//
// On a *client.Client whose API version is not fixed, the Engine negotiates the
// version. That sets the version for all users of the client. The Engine does the same for
// a client of another type with the option [WithWrappedClient]. Without that option, any
// other type counts as a fake of the newest version, even if it wraps a *client.Client.
// The Engine then never pings, never negotiates, and leaves out the requests that fakes
// need not implement. To instrument requests, better wrap the client's transport. See
// "API version" in the package documentation.
func NewEngine(client engineapi.APIClient, opts ...Option) *Engine {
	if c, ok := client.(*engineapi.Client); ok && c == nil {
		client = nil
	}
	e := &Engine{given: client, options: newOptions(opts)}
	e.telemetry = newTelemetry(e.options.meters, e.options.tracers)
	if client != nil {
		e.client = countedClient{client, e.telemetry}
	}
	e.api.init(e, e.options.wrappedClient)
	e.pulls = newPulls(e.openPull, e.options, e.telemetry, e.api.isFake)
	e.stream.request = e.openEvents
	e.stream.telemetry, e.stream.observer.observe = e.telemetry, e.options.engineObserver
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

// optionalRequests are the requests that a proxy in front of the engine may refuse. The
// package goes on without their answers. The zero value is ready for use.
type optionalRequests struct {
	mu      sync.Mutex
	refused map[string]bool
}

// without is called when a request was refused. It logs the refusal, and what is done
// instead. It logs each request once, until answered is called.
func (o *optionalRequests) without(ctx context.Context, request string, err error, instead string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.refused[request] {
		return
	}
	if o.refused == nil {
		o.refused = map[string]bool{}
	}
	o.refused[request] = true
	log.G(ctx).WithError(err).Warnf("the engine, or a proxy in front of it, refuses %s; %s", request, instead)
}

// answered notes that a request was answered.
func (o *optionalRequests) answered(request string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.refused, request)
}

// versionTries bounds the tries of a request whose API version the engine refuses. While
// an engine is upgraded, the old one may answer the ping, and the new one may then refuse
// the version that was agreed on.
const versionTries = 3

// caller is the one for whom a call is made: a task's adapter, or an Engine for itself.
type caller interface {
	handle() *Engine
	// hide takes secrets out of an error of the engine.
	hide(err error) error
}

func (e *Engine) handle() *Engine { return e }

// hide knows no secrets of tasks. It takes users and queries out of URLs.
func (e *Engine) hide(err error) error { return scrubber{}.hide(err) }

// request makes one engine call. It agrees on the API version first. If the engine
// refuses that version, it agrees on another one and makes the call again. Each try may
// take the request time-out plus extra. The error is the client's own, without secrets:
// classifiers still find what the engine said. The function that calls request classifies
// the error and then passes it to engineError. These errors are not the client's own:
//
//   - The error of get, if no version could be agreed on.
//   - requestTimeoutError, after a time-out.
//   - versionCutError, after a call that was cut short for a change of the version.
//   - An error that does not come from the client, but from other code in call, such as the
//     refusal of a hook.
func request[T any](ctx context.Context, by caller, extra time.Duration, call func(context.Context) (T, error)) (T, error) {
	e := by.handle()
	timeout := e.options.requestTimeout
	if timeout > 0 {
		timeout += extra
	}
	return retried(ctx, e, by.hide, func() (answer T, version string, err error) {
		if _, err := e.api.get(ctx, e.options.requestTimeout); err != nil {
			return answer, "", err
		}
		callCtx, cancel := withTimeout(ctx, timeout)
		defer cancel()
		callCtx, version, leave, err := e.api.enter(callCtx)
		if err == nil {
			answer, err = call(callCtx)
			leave()
		}
		if cut := cutBy(callCtx); err != nil && cut != nil {
			err = cut
		} else if err != nil && callCtx.Err() != nil && ctx.Err() == nil {
			err = requestTimeoutError(timeout)
		}
		return answer, version, err
	})
}

// retried makes a request again if the engine refused its API version and another one
// was agreed on. hide takes secrets out of its error.
func retried[T any](ctx context.Context, e *Engine, hide func(error) error, once func() (answer T, version string, err error)) (T, error) {
	for try := 1; ; try++ {
		answer, version, err := once()
		err = hide(err)
		if try == versionTries || !refusesVersion(err) || !e.api.renew(ctx, e.options.requestTimeout, version, err, hide) {
			return answer, err
		}
	}
}

// openBody makes an engine call that answers with a stream. The API version cannot change
// until the call has returned. It may change while the stream is read. No time-out
// applies. The errors are as those of request.
func (e *Engine) openBody(ctx context.Context, hide func(error) error, call func(context.Context) (io.ReadCloser, error)) (io.ReadCloser, error) {
	return retried(ctx, e, hide, func() (io.ReadCloser, string, error) {
		if _, err := e.api.get(ctx, e.options.requestTimeout); err != nil {
			return nil, "", err
		}
		ctx, cancel := context.WithCancel(ctx)
		callCtx, version, leave, err := e.api.enter(ctx)
		if err != nil {
			cancel()
			return nil, "", err
		}
		body, err := call(callCtx)
		leave()
		if cut := cutBy(callCtx); err != nil && cut != nil {
			err = cut
		}
		if err != nil || body == nil { // only a fake has no body
			cancel()
			return body, version, err
		}
		return openedBody{body, cancel}, version, nil
	})
}

// openedBody ends its request when it is closed.
type openedBody struct {
	io.ReadCloser
	cancel context.CancelFunc
}

func (b openedBody) Close() error {
	defer b.cancel()
	return b.ReadCloser.Close()
}

// openPull asks the engine to pull an image.
func (e *Engine) openPull(ctx context.Context, name string, options image.PullOptions, hide func(error) error) (io.ReadCloser, error) {
	return e.openBody(ctx, hide, func(ctx context.Context) (io.ReadCloser, error) {
		return e.client.ImagePull(ctx, name, options)
	})
}

// openEvents opens the event stream.
func (e *Engine) openEvents(ctx context.Context, since string, unanswered func()) (openedEvents, error) {
	if _, err := e.api.get(ctx, e.options.requestTimeout); err != nil {
		return openedEvents{}, err
	}
	callCtx, version, leave, err := e.api.enter(ctx)
	if err != nil {
		return openedEvents{}, err
	}
	opened, err := openEvents(callCtx, e.client, e.options.requestTimeout, since, unanswered)
	leave()
	if cut := cutBy(callCtx); cut != nil {
		return openedEvents{}, cut
	}
	// The client reports a refusal only later, on opened.errs. The reader of the stream
	// then calls failed.
	opened.failed = func(ctx context.Context, err error) {
		if refusesVersion(err) {
			e.api.renew(ctx, e.options.requestTimeout, version, err, e.hide)
		}
	}
	return opened, err
}

// do does the same as the function request, for a call that returns only an error.
func do(ctx context.Context, by caller, extra time.Duration, call func(context.Context) error) error {
	_, err := request(ctx, by, extra, func(ctx context.Context) (struct{}, error) {
		return struct{}{}, call(ctx)
	})
	return err
}

// versionsByClient finds the clientVersion of a client. It keeps no client alive.
type versionsByClient struct {
	mu sync.Mutex
	// By the weak pointer to a *client.Client, or by a wrapped client itself.
	byClient map[any]*clientVersion
	// engines counts the Engines of each wrapped client, to find out when the entry can be
	// dropped. Go has no weak pointer to a value whose type is not known.
	engines map[any]int
}

var clientVersions = versionsByClient{byClient: map[any]*clientVersion{}, engines: map[any]int{}}

// of returns the version of the client of e. The table keeps the version of a
// *client.Client as long as the client lives. It keeps that of a wrapped client as long as
// an Engine of the client lives.
func (t *versionsByClient) of(e *Engine) *clientVersion {
	t.mu.Lock()
	defer t.mu.Unlock()
	typed, isReal := e.given.(*engineapi.Client)
	var key any
	switch {
	case isReal:
		key = weak.Make(typed)
	case reflect.ValueOf(e.given).Comparable():
		key = e.given
	default: // the client cannot be the key of a map
		return newClientVersion()
	}
	v := t.byClient[key]
	if v == nil {
		v = newClientVersion()
		t.byClient[key] = v
		if isReal {
			runtime.AddCleanup(typed, t.drop, key)
		}
	}
	if !isReal {
		t.engines[key]++
		runtime.AddCleanup(e, t.dropEngine, key)
	}
	return v
}

func (t *versionsByClient) drop(key any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.byClient, key)
}

func (t *versionsByClient) dropEngine(key any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.engines[key]--
	if t.engines[key] == 0 {
		delete(t.engines, key)
		delete(t.byClient, key)
	}
}

// connectionTrace tells whether a request may have been sent. The client's error does not
// tell that: it says "Cannot connect" also after some time-outs.
type connectionTrace struct{ wanted, got atomic.Bool }

func (t *connectionTrace) follow(ctx context.Context) context.Context {
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		// A transport that wants a second connection has sent nothing on the first.
		GetConn: func(string) { t.wanted.Store(true); t.got.Store(false) },
		GotConn: func(httptrace.GotConnInfo) { t.got.Store(true) },
	})
}

// failed reports whether the request that ended with err got no connection. If the
// transport is not Go's own, or the client is a fake, then only err can tell.
func (t *connectionTrace) failed(err error) bool {
	if t.wanted.Load() {
		return !t.got.Load()
	}
	return saysNoConnection(err)
}

// onOwnStack calls do in a goroutine of its own, and waits for its end. A request needs a
// large stack. So the stack of a caller that then waits for days stays small. A panic or a
// Goexit of do, which a client of a test may use, is that of the caller.
func onOwnStack(do func()) {
	var (
		done     = make(chan struct{})
		returned bool
		panicked any
	)
	go func() {
		defer close(done)
		defer func() { panicked = recover() }()
		do()
		returned = true
	}()
	<-done
	switch {
	case panicked != nil:
		panic(panicked)
	case !returned:
		runtime.Goexit()
	}
}
