package dockerexec

import (
	"cmp"
	"context"
	"encoding/json"
	stderrors "errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"syscall"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errhttp"
	engineapi "github.com/docker/docker/client"
	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/pkg/errors"
	"golang.org/x/time/rate"
)

var (
	// ErrImageRequired is returned, bare, for a task that names no image.
	ErrImageRequired = errors.New("dockerexec: image required")

	// ErrContainerDestroyed is returned, bare, by Wait. It means that the task's
	// container is gone or is being removed. A controller's Start returns it too, while
	// it waits for the health check.
	ErrContainerDestroyed = errors.New("dockerexec: container destroyed")

	// ErrPullStalled means that a pull made no progress and was cancelled. errors.Is
	// finds it in the error of the pull. See [WithPullStallTimeout].
	ErrPullStalled = errors.New("dockerexec: image pull stalled")

	// ErrContainerUnhealthy is the cause of the exit error of a task whose
	// health check failed: errors.Is finds it.
	ErrContainerUnhealthy = errors.New("dockerexec: unhealthy container")
)

// FieldError says that a task cannot run as asked, and which of its fields is at
// fault. errors.As finds it in every refusal of a task, with two exceptions. A task
// without an image gets [ErrImageRequired]. A task whose runtime is not a container gets
// [exec.ErrRuntimeUnsupported].
type FieldError struct {
	// Path names the field, as in "Spec.Container.Mounts[0].Source". It is empty for a
	// task that is nil.
	Path string
	// Reason says why the task is refused. It shows no value that may be a secret.
	Reason string
}

func (e *FieldError) Error() string {
	if e.Path == "" {
		return "dockerexec: the task " + e.Reason
	}
	return "dockerexec: task field " + e.Path + ": " + e.Reason
}

// engineError turns the error of an engine call into the error that a method returns:
//
//   - If ctx has ended: the error of ctx, bare.
//   - For a fault that will pass: a temporary error. Its text says what was being done.
//   - For any other fault: an error whose text says what was being done.
//   - nil stays nil.
//
// It uses errors.Wrap instead of %w, because SwarmKit's agent uses errors.Cause, which
// does not see through %w. With %w the agent would take a cancelled call for a failed
// task.
func engineError(ctx context.Context, err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	wrapped := errors.Wrapf(err, format, args...)
	if isPassing(err) {
		return exec.MakeTemporary(wrapped)
	}
	return wrapped
}

// requestTimeoutError says that the engine did not answer in time.
type requestTimeoutError time.Duration

func (e requestTimeoutError) Error() string {
	return fmt.Sprintf("the engine did not answer within %v", time.Duration(e))
}

// Temporary makes the agent try again.
func (requestTimeoutError) Temporary() bool { return true }

// errorKind is what an error of an engine call is.
type errorKind int

const (
	noError         errorKind = iota
	kindUnreachable           // no connection, an answer that was cut short, or a time-out of the transport
	kindTimedOut              // no answer within the request time-out
	kindOverloaded            // 429, 502, 503, 504; the engine's containerd is lost; Podman is not done with a container's end; the client's version is too new or too old
	kindBusy                  // 409, 500
	kindRefused               // 400, 401, 403, 501
	kindMissing               // 404
	kindOtherAnswer           // any other status, or a body that is not the expected JSON
	kindOther                 // not an engine's answer, and not a fault of the connection
)

// verdict is what is done about an error.
type verdict struct {
	passing bool // the fault passes by itself: a temporary error
	mayMend bool // the call may succeed when it is repeated for long enough
	// refusal: the engine would answer the same again. So tryAgain does not make a
	// refusal temporary, and tellsNothing is false for it.
	refusal bool
	stream  streamRefusal
}

// streamRefusal is whether an event stream that ended with an error counts as refused.
type streamRefusal int

const (
	notRefused          streamRefusal = iota
	refusedAfterAMinute               // refused once requests have failed for refusedAfter; before that, the engine may be restarting
	refusedAtOnce
)

// A call on the container itself checks for 404 first, see isContainerGone. A pull has
// its own rules, see pull_errors.go: most of its errors come from a registry.
var verdicts = map[errorKind]verdict{
	noError:         {},
	kindUnreachable: {passing: true, mayMend: true},
	kindTimedOut:    {passing: true, mayMend: true, stream: refusedAfterAMinute},
	kindOverloaded:  {passing: true, mayMend: true, stream: refusedAfterAMinute},
	kindBusy:        {mayMend: true, stream: refusedAtOnce},
	kindRefused:     {refusal: true, stream: refusedAtOnce},
	kindMissing:     {stream: refusedAtOnce},
	kindOtherAnswer: {stream: refusedAtOnce},
	kindOther:       {},
}

func verdictOf(err error) verdict { return verdicts[classify(err)] }

func isPassing(err error) bool { return verdictOf(err).passing }
func isRefusal(err error) bool { return verdictOf(err).refusal }
func mayMend(err error) bool   { return verdictOf(err).mayMend }

// The answers of a proxy that cannot reach the engine.
var (
	badGateway     = errhttp.ToNative(http.StatusBadGateway)
	gatewayTimeout = errhttp.ToNative(http.StatusGatewayTimeout)
)

// classify returns the kind of err. It checks for passing faults first: the class of an
// answer would hide some of them.
func classify(err error) errorKind {
	var (
		late      requestTimeoutError
		netErr    net.Error
		noJSON    *json.SyntaxError
		otherJSON *json.UnmarshalTypeError
	)
	raw := err
	if err != nil {
		raw = rawError(err)
	}
	switch {
	case err == nil:
		return noError
	case stderrors.As(raw, &late):
		return kindTimedOut
	case cerrdefs.IsUnavailable(err), cerrdefs.IsResourceExhausted(err),
		stderrors.Is(err, badGateway), stderrors.Is(err, gatewayTimeout),
		lostContainerd.matches(err), removalTooEarly.matches(err), tooNewClient.matches(err), tooOldClient.matches(err):
		return kindOverloaded
	case stderrors.Is(err, io.EOF), stderrors.Is(err, io.ErrUnexpectedEOF), lostInfo.matches(err),
		stderrors.As(raw, &noJSON) && noJSON.Error() == "unexpected end of JSON input", // json.Unmarshal's error for a body that was cut short
		stderrors.Is(err, syscall.ECONNREFUSED), stderrors.Is(err, syscall.ECONNRESET), stderrors.Is(err, syscall.EPIPE),
		stderrors.As(raw, &netErr) && netErr.Timeout(), engineapi.IsErrConnectionFailed(raw),
		exec.IsTemporary(err): // the error of a ping, or of a fake
		return kindUnreachable
	case cerrdefs.IsInternal(err), cerrdefs.IsConflict(err):
		return kindBusy
	case isUndone(err):
		return kindRefused
	case cerrdefs.IsNotFound(err):
		return kindMissing
	case hasStatus(err), stderrors.As(raw, &noJSON), stderrors.As(raw, &otherJSON):
		return kindOtherAnswer
	}
	return kindOther
}

// isForbidden reports whether err refuses an optional request: an engine's plugin, or a
// proxy in front of the engine, does not allow the request. The caller goes on without the
// answer. A 200 with a page in it is no refusal.
func isForbidden(err error) bool {
	kind := classify(err)
	return kind == kindRefused || kind == kindOtherAnswer && hasStatus(err)
}

// forbidsRequest reports whether err refuses this one request as such. A 400 may be about
// what the request holds. A 401 says that nothing at all is allowed.
func forbidsRequest(err error) bool {
	return cerrdefs.IsPermissionDenied(err) || cerrdefs.IsNotImplemented(err) || stderrors.Is(err, errhttp.ToNative(http.StatusMethodNotAllowed))
}

// tellsNothing reports whether the error of an inspect says nothing about the
// container. It says something if the container is gone, or if the engine refuses to
// show it.
func tellsNothing(err error) bool {
	return err != ErrContainerDestroyed && !isRefusal(err) //nolint:errorlint // bare
}

// tryAgain makes err temporary, so that the agent tries again. It leaves a refusal as it
// is.
func tryAgain(ctx context.Context, err error) error {
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case exec.IsTemporary(err), isRefusal(err):
		return err
	}
	return exec.MakeTemporary(err)
}

// isAnswer reports whether err is an answer of the engine. Only an answer has a class.
func isAnswer(err error) bool { return knownClass(err) != nil }

// isUndone reports whether an engine answered a request with 400, 401, 403 or 501: then it
// has done nothing. That includes the 400 of an engine that does not speak the client's API
// version, although classify takes that answer for a passing fault.
func isUndone(err error) bool {
	return cerrdefs.IsInvalidArgument(err) || cerrdefs.IsUnauthorized(err) || cerrdefs.IsPermissionDenied(err) || cerrdefs.IsNotImplemented(err)
}

// mayBeDone reports whether the engine may have carried out a call that was sent and ended
// with err, or may still carry it out. The client's error does not tell whether the
// request has arrived.
func mayBeDone(ctx context.Context, err error) bool {
	return err != nil && (ctx.Err() != nil || isPassing(err) && !isUndone(err))
}

// saysNoConnection reports whether err says that a request got no connection, so that
// the engine has not seen it. The client drops the cause of such an error: its text
// remains.
func saysNoConnection(err error) bool {
	if err == nil {
		return false
	}
	err = rawError(err)
	var dial *net.OpError
	return stderrors.Is(err, syscall.ECONNREFUSED) || stderrors.As(err, &dial) && dial.Op == "dial" ||
		engineapi.IsErrConnectionFailed(err) && strings.Contains(err.Error(), "Cannot connect to the Docker daemon")
}

// hasStatus reports whether err is an answer with an HTTP status of an error. The status
// need not have a class.
func hasStatus(err error) bool {
	for status := http.StatusBadRequest; status < 600; status++ {
		if stderrors.Is(err, errhttp.ToNative(status)) {
			return true
		}
	}
	return false
}

// unfinished reports whether the step that failed with err must be tried again later.
// After any other error the caller goes on to its next step.
func unfinished(ctx context.Context, err error) bool {
	return err != nil && (ctx.Err() != nil || exec.IsTemporary(err))
}

// knownClass returns the class of an engine's answer, as the error of
// github.com/containerd/errdefs; nil: err has none.
func knownClass(err error) error {
	for _, c := range []struct {
		is    func(error) bool
		class error
	}{
		{cerrdefs.IsNotFound, cerrdefs.ErrNotFound},
		{cerrdefs.IsInvalidArgument, cerrdefs.ErrInvalidArgument},
		{cerrdefs.IsUnauthorized, cerrdefs.ErrUnauthenticated},
		{cerrdefs.IsPermissionDenied, cerrdefs.ErrPermissionDenied},
		{cerrdefs.IsConflict, cerrdefs.ErrConflict},
		{cerrdefs.IsResourceExhausted, cerrdefs.ErrResourceExhausted},
		{cerrdefs.IsNotImplemented, cerrdefs.ErrNotImplemented},
		{cerrdefs.IsUnavailable, cerrdefs.ErrUnavailable},
		{cerrdefs.IsInternal, cerrdefs.ErrInternal},
	} {
		if c.is(err) {
			return c.class
		}
	}
	return nil
}

// isContainerGone reports whether err means that the container does not exist. err must
// come from a call on the container itself: there 404 has no other meaning.
func isContainerGone(err error) bool { return IsUnknownContainer(err) || cerrdefs.IsNotFound(err) }

// errHook ends a request before it is sent, because the caller's hook failed.
var errHook = errors.New("the hook failed")

// hookError is the error of a caller's hook. It is final, whatever the hook's own error is.
type hookError struct {
	what  string
	cause error
}

func (e hookError) Error() string { return e.what + ": " + e.cause.Error() }
func (e hookError) Unwrap() error { return e.cause }

// Temporary serves [exec.IsTemporary], which would ask the cause otherwise.
func (e hookError) Temporary() bool { return false }

// sleep waits for d. If ctx ends first, it returns the error of ctx.
func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// receiveWithin receives from done. After limit it gives up and returns the zero value.
func receiveWithin[T any](limit time.Duration, done <-chan T) (received T) {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case received = <-done:
	case <-timer.C:
	}
	return received
}

// jittered returns d, plus or minus up to a tenth. It keeps many waiters from acting at
// the same moment.
func jittered(d time.Duration) time.Duration { return d*9/10 + rand.N(d/5) }

// The limits of a backoff that sets none of its own.
const (
	firstPause   = 100 * time.Millisecond
	longestPause = 5 * time.Second
)

// backoff computes the pauses between tries. A pause is random, between zero and a
// limit. The limit doubles from first to longest. The zero value is ready for use.
type backoff struct {
	first, longest time.Duration // 0: firstPause, longestPause
	// atLeastHalf makes each pause at least half of its limit.
	atLeastHalf bool

	limit time.Duration // of the last pause; 0: there was none
}

// next returns the length of the next pause.
func (b *backoff) next() time.Duration {
	b.limit = min(max(2*b.limit, cmp.Or(b.first, firstPause)), cmp.Or(b.longest, longestPause))
	if b.atLeastHalf {
		return b.limit/2 + rand.N(b.limit/2)
	}
	return rand.N(b.limit)
}

// reset makes the pauses begin at first again.
func (b *backoff) reset() { b.limit = 0 }

func withTimeout(ctx context.Context, timeout time.Duration) (context.Context, context.CancelFunc) {
	if timeout <= 0 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, timeout)
}

// passGate waits for the token of a gate, a channel with room for one token. Only one
// call holds the token, and that call returns it with leaveGate. passGate waits at most
// for timeout, the limit of one engine call. Without this limit, the last of many
// waiters would wait for the calls of all others, one after the other.
func passGate(ctx context.Context, gate chan struct{}, timeout time.Duration) error {
	waitCtx, cancel := withTimeout(ctx, timeout)
	defer cancel()
	select {
	case gate <- struct{}{}:
		if waitCtx.Err() == nil {
			return nil
		}
		leaveGate(gate) // the token and the end came together
	case <-waitCtx.Done():
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return requestTimeoutError(timeout)
}

func leaveGate(gate chan struct{}) { <-gate }

// logLimiter spreads bytes over time. A nil logLimiter has no limit.
type logLimiter struct {
	limiter *rate.Limiter
	owed    int // bytes that went out and have not been waited for yet
	slice   int // owed must reach this number of bytes before there is a wait
}

func newLogLimiter(bytesPerSecond int) *logLimiter {
	if bytesPerSecond <= 0 {
		return nil
	}
	return &logLimiter{
		limiter: rate.NewLimiter(rate.Limit(bytesPerSecond), bytesPerSecond),
		slice:   min(max(bytesPerSecond/16, 1), 64<<10), // asking the limiter for each line would cost more than the line itself
	}
}

// wait returns when n bytes more may go out, or ctx has ended.
func (p *logLimiter) wait(ctx context.Context, n int) error {
	if p == nil {
		return nil
	}
	p.owed += n
	for p.owed >= p.slice {
		take := min(p.owed, p.limiter.Burst())
		p.owed -= take
		// WaitN is not used: it fails at once if ctx would end before the pause does.
		if delay := p.limiter.ReserveN(time.Now(), take).Delay(); delay > 0 {
			if err := sleep(ctx, delay); err != nil {
				return err
			}
		}
	}
	return nil
}
