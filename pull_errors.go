package dockerexec

import (
	"context"
	stderrors "errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/distribution/reference"
	engineapi "github.com/docker/docker/client"
	"github.com/moby/swarmkit/v2/agent/exec"
)

// maxErrorLength bounds an error's text, which goes into a task's status.
const maxErrorLength = 2048

// pullError is why a pull failed. It does not unwrap: neither the text nor the
// temporariness of what is behind it reaches a caller, only its class.
type pullError struct {
	text    string
	class   error // of errdefs, as the text says; nil if it says none
	cause   error // what the client returned, if it did
	passing bool  // worth another attempt
	engine  bool  // a fault of the engine, or of the way to it, and not of the registry
}

func (e *pullError) Error() string { return e.text }

// Is reports whether target is the error's class, or in what is behind it. Of a
// class, the words have the last word; a context that ended there was not the
// caller's.
func (e *pullError) Is(target error) bool {
	switch {
	case target == context.Canceled || target == context.DeadlineExceeded:
		return false
	case e.class != nil && target == e.class:
		return true
	case e.class != nil && knownClass(target) != nil: // 20.10 says "internal" of most
		return false
	}
	return e.cause != nil && stderrors.Is(e.cause, target)
}

func (e *pullError) rateLimited() bool { return cerrdefs.IsResourceExhausted(e.class) }

// scrubbed cleans the text. A refusal is called denied, whatever word the
// engine has for it.
func (e *pullError) scrubbed(scrub scrubber) *pullError {
	e.text = scrub.clean(e.text, maxErrorLength)
	refused := cerrdefs.IsUnauthorized(e.class) || cerrdefs.IsPermissionDenied(e.class)
	if refused && !strings.Contains(strings.ToLower(e.text), "denied") {
		e.text = "access denied: " + e.text
	}
	return e
}

// stallError is final: a pull that hung once hangs again, and a task in
// PREPARING would show nothing of it. far is empty if the engine said nothing.
func stallError(limit time.Duration, far string) *pullError {
	text := fmt.Sprintf("stalled: no answer from the engine for %v", limit)
	if far != "" {
		text = fmt.Sprintf("stalled: no advance for %v; it came to %s", limit, far)
	}
	return &pullError{text: text, class: cerrdefs.ErrUnavailable, cause: ErrPullStalled}
}

// pullFault is what an engine says of one kind of fault of a registry.
type pullFault struct {
	phrase
	class   error
	passing bool
}

// pullFaults is asked in this order; the first one that is said decides. The
// words come with any class: 20.10 says 500 for most of it.
var pullFaults = []pullFault{
	{phrase{"20.10 to 28, of a registry's code", "toomanyrequests"}, cerrdefs.ErrResourceExhausted, true},
	{phrase{"29, of a registry's status", "too many requests"}, cerrdefs.ErrResourceExhausted, true},
	{phrase{"29, of a registry's code", "rate limit"}, cerrdefs.ErrResourceExhausted, true},
	{phrase{"20.10, of a body that is not JSON", "http 429"}, cerrdefs.ErrResourceExhausted, true},

	{phrase{"20.10 to 29", "no basic auth credentials"}, cerrdefs.ErrUnauthenticated, false},
	{phrase{"29", "authorization failed"}, cerrdefs.ErrUnauthenticated, false},
	{phrase{"20.10 to 29", "unauthorized"}, cerrdefs.ErrUnauthenticated, false},
	{phrase{"20.10 to 28", "authentication required"}, cerrdefs.ErrUnauthenticated, false},
	{phrase{"Docker Hub", "incorrect username or password"}, cerrdefs.ErrUnauthenticated, false},
	{phrase{"20.10 to 29", "denied"}, cerrdefs.ErrPermissionDenied, false},
	{phrase{"29, of a registry's status", "403 forbidden"}, cerrdefs.ErrPermissionDenied, false},

	{phrase{"20.10 to 29", "no matching manifest for"}, cerrdefs.ErrNotFound, false},
	{phrase{"29", "no match for platform"}, cerrdefs.ErrNotFound, false},
	{phrase{"20.10 to 28", "does not match the specified platform"}, cerrdefs.ErrNotFound, false},
	{phrase{"20.10 to 28", "manifest unknown"}, cerrdefs.ErrNotFound, false},
	{phrase{"20.10 to 28", "name unknown"}, cerrdefs.ErrNotFound, false},
	{phrase{"20.10 to 28", "unknown blob"}, cerrdefs.ErrNotFound, false},
	{phrase{"20.10 to 28", "does not exist"}, cerrdefs.ErrNotFound, false},
	{phrase{"20.10 to 29", "not found"}, cerrdefs.ErrNotFound, false},
	{phrase{"the client", "invalid reference format"}, cerrdefs.ErrInvalidArgument, false},
	{phrase{"20.10 to 29", "platform specifier"}, cerrdefs.ErrInvalidArgument, false},
	{phrase{"20.10 to 29", "unsupported media type"}, cerrdefs.ErrInvalidArgument, false},
	{phrase{"28 to 29", "schema 1"}, cerrdefs.ErrInvalidArgument, false},
	{phrase{"20.10 to 29", "x509:"}, nil, false},
	{phrase{"20.10 to 29", "server gave http response to https client"}, nil, false},
	{phrase{"20.10 to 29", "no space left on device"}, nil, false},

	{phrase{"20.10 to 28", "verification failed for digest"}, cerrdefs.ErrDataLoss, true},
	{phrase{"29", "unexpected commit digest"}, cerrdefs.ErrDataLoss, true},
	{phrase{"29", "failed size validation"}, cerrdefs.ErrDataLoss, true},
	{phrase{"20.10 to 29", "connection refused"}, cerrdefs.ErrUnavailable, true},
	{phrase{"20.10 to 29", "connection reset"}, cerrdefs.ErrUnavailable, true},
	{phrase{"20.10 to 29", "broken pipe"}, cerrdefs.ErrUnavailable, true},
	{phrase{"20.10 to 29", "timeout"}, cerrdefs.ErrUnavailable, true},
	{phrase{"20.10 to 29", "timed out"}, cerrdefs.ErrUnavailable, true},
	{phrase{"20.10 to 29", "deadline exceeded"}, cerrdefs.ErrUnavailable, true},
	{phrase{"20.10 to 29", "unexpected eof"}, cerrdefs.ErrUnavailable, true},
	{phrase{"20.10 to 29", ": eof"}, cerrdefs.ErrUnavailable, true},
	{phrase{"20.10 to 29", "no such host"}, cerrdefs.ErrUnavailable, true},
	{phrase{"20.10 to 29", "server misbehaving"}, cerrdefs.ErrUnavailable, true},
	{phrase{"20.10 to 29", "name resolution"}, cerrdefs.ErrUnavailable, true},
	{phrase{"20.10 to 29", "is unreachable"}, cerrdefs.ErrUnavailable, true},
	{phrase{"20.10 to 29", "no route to host"}, cerrdefs.ErrUnavailable, true},
	{phrase{"20.10 to 28", "unexpected http status: 5"}, cerrdefs.ErrUnavailable, true},
	{phrase{"20.10 to 29", "500 internal server error"}, cerrdefs.ErrUnavailable, true},
	{phrase{"20.10 to 29", "bad gateway"}, cerrdefs.ErrUnavailable, true},
	{phrase{"20.10 to 29", "service unavailable"}, cerrdefs.ErrUnavailable, true},
	{phrase{"20.10 to 29", "unavailable:"}, cerrdefs.ErrUnavailable, true},
}

// ofRegistry are words that an engine uses only when it speaks of a registry.
var ofRegistry = []string{
	"registry", "manifest", "failed to resolve reference", "unexpected http status", "unexpected status from",
	"failed to do request", "dial tcp", "https://", "http://", "toomanyrequests", "error pulling image",
}

// wording reads what an engine says about the pull of one image.
type wording struct {
	names []string // of the image, in lower case, the longest first
}

func newWording(target pullTarget) wording {
	ref := reference.TagNameOnly(target.ref)
	names := []string{target.image, ref.String(), ref.Name(), reference.FamiliarString(ref), reference.FamiliarName(ref), reference.Path(ref)}
	var w wording
	for _, name := range names {
		if strings.ContainsAny(name, "/:") { // a bare word may be one of the engine's own
			w.names = append(w.names, strings.ToLower(name))
		}
	}
	slices.SortFunc(w.names, func(a, b string) int { return len(b) - len(a) })
	return w
}

var quotedOrURL = regexp.MustCompile(`"[^"]*"|[a-z][a-z0-9+.-]*://[^\s"]*[^\s":]`)

// fault finds what text says. What the image or a URL is called says nothing.
func (w wording) fault(text string) *pullFault {
	text = quotedOrURL.ReplaceAllString(strings.ToLower(text), "")
	for _, name := range w.names {
		text = strings.ReplaceAll(text, name, "")
	}
	for i := range pullFaults {
		if pullFaults[i].in(text) {
			return &pullFaults[i]
		}
	}
	return nil
}

// requestError reads the error of the request, before there is a body. The text
// comes before the class: 20.10 answers missing credentials with 500.
func (w wording) requestError(err error) *pullError {
	e := &pullError{text: err.Error(), cause: err}
	text := strings.ToLower(e.text)
	own := strings.Contains(text, "for api route and version") || // by the client, of an answer without words
		!slices.ContainsFunc(ofRegistry, func(word string) bool { return strings.Contains(text, word) })
	fault := w.fault(e.text)
	switch {
	case exec.IsTemporary(err) && !isTransport(err): // a fake's
		e.engine, e.passing = true, true
	case !isAnswer(err) && isPassing(err), tooNewClient.matches(err):
		e.engine, e.passing, e.class = true, true, cerrdefs.ErrUnavailable
	case own && (cerrdefs.IsUnavailable(err) || strings.Contains(text, "bad gateway") || strings.Contains(text, "gateway timeout")):
		e.engine, e.passing, e.class = true, true, cerrdefs.ErrUnavailable
	case fault != nil:
		e.class, e.passing = fault.class, fault.passing
	default:
		e.passing = cerrdefs.IsInternal(err) || cerrdefs.IsUnavailable(err) || cerrdefs.IsResourceExhausted(err)
		e.class = knownClass(err)
	}
	return e
}

func isTransport(err error) bool {
	var netErr net.Error
	return stderrors.As(err, &netErr) || engineapi.IsErrConnectionFailed(err)
}

// streamError reads an error of the stream, which is about the registry or about
// storing what it sent.
func (w wording) streamError(f *pullFailure) *pullError {
	e := &pullError{text: f.text}
	if f.code != 0 {
		e.text = fmt.Sprintf("%s (code %d)", f.text, f.code)
	}
	if fault := w.fault(f.text); fault != nil {
		e.class, e.passing = fault.class, fault.passing
		return e
	}
	switch f.code {
	case http.StatusUnauthorized:
		e.class = cerrdefs.ErrUnauthenticated
	case http.StatusForbidden:
		e.class = cerrdefs.ErrPermissionDenied
	case http.StatusNotFound:
		e.class = cerrdefs.ErrNotFound
	case http.StatusTooManyRequests:
		e.class, e.passing = cerrdefs.ErrResourceExhausted, true
	case http.StatusServiceUnavailable, http.StatusBadGateway, http.StatusGatewayTimeout:
		e.class, e.passing = cerrdefs.ErrUnavailable, true
	case http.StatusInternalServerError:
		e.class, e.passing = cerrdefs.ErrInternal, true
	}
	return e
}

// bodyError reads the error of a body that could not be read to its end.
func (w wording) bodyError(err error) *pullError {
	var netErr net.Error
	switch {
	case stderrors.Is(err, io.ErrUnexpectedEOF):
		return &pullError{text: "the engine's answer ends early: unexpected EOF", class: cerrdefs.ErrUnavailable, cause: err, passing: true, engine: true}
	case stderrors.Is(err, syscall.ECONNRESET), stderrors.Is(err, syscall.EPIPE), stderrors.Is(err, net.ErrClosed),
		stderrors.As(err, &netErr), isPassing(err):
		return &pullError{text: "the engine's answer breaks off: " + err.Error(), class: cerrdefs.ErrUnavailable, cause: err, passing: true, engine: true}
	}
	return &pullError{text: "the engine's answer cannot be read: " + err.Error(), cause: err}
}
