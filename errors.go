package dockerexec

import (
	"context"
	"encoding/json"
	stderrors "errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"syscall"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errhttp"
	engineapi "github.com/docker/docker/client"
	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/pkg/errors"
)

var (
	// ErrImageRequired is returned, bare, for a task that names no image.
	ErrImageRequired = errors.New("dockerexec: image required")

	// ErrContainerDestroyed is returned, bare, by Wait when the container of a
	// task is gone, is being removed, or another one has taken its name. A
	// controller's Start returns it too, while it waits for the health check.
	ErrContainerDestroyed = errors.New("dockerexec: container destroyed")

	// ErrPullStalled is behind the error of a pull that was cancelled because it made
	// no progress: errors.Is finds it. See [WithPullStallTimeout].
	ErrPullStalled = errors.New("dockerexec: image pull stalled")

	// ErrContainerUnhealthy is the cause of the exit error of a task whose
	// health check failed: errors.Is finds it.
	ErrContainerUnhealthy = errors.New("dockerexec: unhealthy container")
)

// FieldError says that a task cannot run as asked, and which of its fields is at
// fault. It is behind every refusal of a task: errors.As finds it. A task without an
// image, or of a runtime that is no container, has its own error: [ErrImageRequired],
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

// engineError turns the error of an engine call into what the methods of this
// package return: the bare error of a context that has ended; a temporary error,
// outermost, for a fault that will pass; any other error wrapped with what was
// being done. nil stays nil.
//
// errors.Wrap and not %w: SwarmKit's agent asks errors.Cause, which does not see
// through %w, and would take a cancelled call for a failed task.
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

// Temporary has the agent try again.
func (requestTimeoutError) Temporary() bool { return true }

// errorKind is what an error of an engine call is.
type errorKind int

const (
	noError         errorKind = iota
	kindUnreachable           // no connection, or an answer that was cut short
	kindTimedOut              // no answer in time
	kindOverloaded            // 429, 502, 503, 504; the engine's containerd is lost; the client's version is too new
	kindBusy                  // 409, 500
	kindRefused               // 400, 401, 403, 501
	kindMissing               // 404
	kindOtherAnswer           // any other status, or no JSON
	kindOther                 // no answer of an engine, and no fault of the way to it
)

// verdict is what is done about an error.
type verdict struct {
	passing bool // the fault passes by itself: a temporary error
	mayMend bool // the call may succeed when it is repeated for long enough
	refusal bool // asked again, the engine answers the same; what is no refusal is tried again
	stream  streamRefusal
}

// streamRefusal is whether an event stream that ended with an error counts as refused.
type streamRefusal int

const (
	notRefused          streamRefusal = iota
	refusedAfterAMinute               // of such errors alone: an engine that restarts answers so, too
	refusedAtOnce
)

// Who asks about the container itself looks for 404 before, see isContainerGone. A pull
// has rules of its own: most of its errors are a registry's, see pull_errors.go.
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

// What a proxy answers that does not reach the engine.
var (
	badGateway     = errhttp.ToNative(http.StatusBadGateway)
	gatewayTimeout = errhttp.ToNative(http.StatusGatewayTimeout)
)

// classify tells what err is. A fault that passes comes before the class of an answer.
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
		lostContainerd.matches(err), tooNewClient.matches(err):
		return kindOverloaded
	case stderrors.Is(err, io.EOF), stderrors.Is(err, io.ErrUnexpectedEOF), lostInfo.matches(err),
		stderrors.As(raw, &noJSON) && noJSON.Error() == "unexpected end of JSON input", // what json.Unmarshal has for an EOF
		stderrors.Is(err, syscall.ECONNREFUSED), stderrors.Is(err, syscall.ECONNRESET), stderrors.Is(err, syscall.EPIPE),
		stderrors.As(raw, &netErr) && netErr.Timeout(), engineapi.IsErrConnectionFailed(raw),
		exec.IsTemporary(err): // of a ping, or a fake's
		return kindUnreachable
	case cerrdefs.IsInternal(err), cerrdefs.IsConflict(err):
		return kindBusy
	case cerrdefs.IsInvalidArgument(err), cerrdefs.IsUnauthorized(err), cerrdefs.IsPermissionDenied(err), cerrdefs.IsNotImplemented(err):
		return kindRefused
	case cerrdefs.IsNotFound(err):
		return kindMissing
	case hasStatus(err), stderrors.As(raw, &noJSON), stderrors.As(raw, &otherJSON):
		return kindOtherAnswer
	}
	return kindOther
}

// tellsNothing reports whether the error of an inspect says nothing about the
// container: neither that there is none, nor that it will never be shown.
func tellsNothing(err error) bool {
	return err != ErrContainerDestroyed && !isRefusal(err) //nolint:errorlint // bare
}

// tryAgain has the agent try again what failed with err, unless that is a refusal.
func tryAgain(ctx context.Context, err error) error {
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case exec.IsTemporary(err), isRefusal(err):
		return err
	}
	return exec.MakeTemporary(err)
}

// isAnswer reports whether err is what the engine answered. A client has no
// class for what the engine did not answer.
func isAnswer(err error) bool { return knownClass(err) != nil }

// hasStatus reports whether err is an answer with a status of HTTP, also one that has
// no class.
func hasStatus(err error) bool {
	for status := http.StatusBadRequest; status < 600; status++ {
		if stderrors.Is(err, errhttp.ToNative(status)) {
			return true
		}
	}
	return false
}

// unfinished reports whether err leaves more to try than the next call.
func unfinished(ctx context.Context, err error) bool {
	return err != nil && (ctx.Err() != nil || exec.IsTemporary(err))
}

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

// isContainerGone reports whether the engine's answer to a call on the container itself
// means that there is none: 404 has no other meaning there.
func isContainerGone(err error) bool { return IsUnknownContainer(err) || cerrdefs.IsNotFound(err) }
