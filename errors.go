package dockerexec

import (
	"context"
	"encoding/json"
	stderrors "errors"
	"fmt"
	"io"
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

// What is done about an error of an engine call, by what it is:
//
//	                              isPassing  isRefusal  mayMend  tryAgain  the event stream
//	                                                                       counts as refused
//	no connection, cut short      yes        -          yes      yes       -
//	no answer in time             yes        -          yes      yes       after a minute
//	429, 502, 503, 504            yes        -          yes      yes       after a minute
//	500, containerd is lost       yes        -          yes      yes       after a minute
//	400, client version too new   yes        (yes)      yes      yes       after a minute
//	409, 500                      -          -          yes      yes       at once
//	400, 401, 403, 501            -          yes        -        -         at once
//	404, any other status         -          -          -        yes       at once
//	no JSON                       -          -          -        yes       at once
//
// engineError makes a temporary error of what is passing, so mayMend and tryAgain,
// which get its errors, look for that alone. Who asks about the container itself
// looks for 404 before, see isContainerGone. A pull has rules of its own: most
// of its errors are a registry's, see pull_errors.go.

// What a proxy answers that does not reach the engine.
var (
	badGateway     = errhttp.ToNative(http.StatusBadGateway)
	gatewayTimeout = errhttp.ToNative(http.StatusGatewayTimeout)
)

// isPassing reports whether err is a fault of the engine, or of the way to it,
// that will pass by itself: the engine is away, restarting or overloaded, or did
// not answer in time.
func isPassing(err error) bool {
	if err == nil {
		return false
	}
	var netErr net.Error
	switch {
	case exec.IsTemporary(err),
		cerrdefs.IsUnavailable(err),       // 503
		cerrdefs.IsResourceExhausted(err), // 429
		stderrors.Is(err, badGateway),
		stderrors.Is(err, gatewayTimeout),
		stderrors.Is(err, io.EOF),
		stderrors.Is(err, io.ErrUnexpectedEOF),
		stderrors.Is(err, syscall.ECONNREFUSED),
		stderrors.Is(err, syscall.ECONNRESET),
		stderrors.Is(err, syscall.EPIPE),
		stderrors.As(err, &netErr) && netErr.Timeout(),
		engineapi.IsErrConnectionFailed(err),
		tooNewClient.matches(err),
		isLostContainerd(err),
		isCutShort(err):
		return true
	}
	return false
}

// isRefusal reports whether the engine refused what it was asked for: asked
// again, it would answer the same.
func isRefusal(err error) bool {
	return cerrdefs.IsInvalidArgument(err) || cerrdefs.IsUnauthorized(err) ||
		cerrdefs.IsPermissionDenied(err) || cerrdefs.IsNotImplemented(err)
}

// mayMend reports whether what failed with err may succeed when it is tried long
// enough: a fault that passes, or what the engine says while something is busy or
// broken. A refusal stays, and so does an error without a class, which is no
// engine's answer.
func mayMend(err error) bool {
	return exec.IsTemporary(err) || cerrdefs.IsInternal(err) || cerrdefs.IsConflict(err)
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

// hasStatus reports whether err is an answer with a status of HTTP, be it one for
// which there is no class.
func hasStatus(err error) bool {
	for status := http.StatusBadRequest; status < 600; status++ {
		if stderrors.Is(err, errhttp.ToNative(status)) {
			return true
		}
	}
	return false
}

// hasReached reports whether the request that ended with err has come to somebody, be
// it that no answer followed: there was a connection.
func hasReached(err error) bool {
	var (
		noJSON    *json.SyntaxError
		otherJSON *json.UnmarshalTypeError
		noAnswer  requestTimeoutError
	)
	return isAnswer(err) || hasStatus(err) ||
		stderrors.As(err, &noJSON) || stderrors.As(err, &otherJSON) || stderrors.As(err, &noAnswer)
}

// isLostContainerd reports whether the engine answered that its containerd has
// gone, or that it is about to end itself. Newer engines say so with 503 where they
// notice, and with 500 elsewhere.
func isLostContainerd(err error) bool { return lostContainerd.matches(err) }

// isCutShort reports whether err says only in words that an answer ended early.
func isCutShort(err error) bool {
	var syntax *json.SyntaxError
	if stderrors.As(err, &syntax) {
		return syntax.Error() == "unexpected end of JSON input" // what json.Unmarshal has for an EOF
	}
	text := strings.ToLower(err.Error()) // the client's Info is its one call whose error has nothing behind it
	return strings.HasPrefix(text, "error reading remote info: ") && (strings.HasSuffix(text, "eof") || strings.HasSuffix(text, "connection reset by peer"))
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
