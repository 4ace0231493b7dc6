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
	"strconv"
	"strings"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errhttp"
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
	e.text, e.cause = scrub.clean(e.text, maxErrorLength), scrub.hide(e.cause)
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

// finalFaults are what an engine says of a fault that another attempt does not mend,
// with its class; nil: it has none. The words come with any class of the answer: 20.10
// says 500 for most of it.
var finalFaults = []struct {
	phrase
	class error
}{
	{phrase{"20.10 to 29", "no basic auth credentials"}, cerrdefs.ErrUnauthenticated},
	{phrase{"29", "authorization failed"}, cerrdefs.ErrUnauthenticated},
	{phrase{"20.10 to 29", "unauthorized"}, cerrdefs.ErrUnauthenticated},
	{phrase{"20.10 to 28", "authentication required"}, cerrdefs.ErrUnauthenticated},
	{phrase{"Docker Hub", "incorrect username or password"}, cerrdefs.ErrUnauthenticated},
	{phrase{"20.10 to 29", "denied"}, cerrdefs.ErrPermissionDenied},

	{phrase{"20.10 to 29", "no matching manifest for"}, cerrdefs.ErrNotFound},
	{phrase{"29", "no match for platform"}, cerrdefs.ErrNotFound},
	{phrase{"20.10 to 28", "does not match the specified platform"}, cerrdefs.ErrNotFound},
	{phrase{"20.10 to 28", "cannot be used on this platform"}, cerrdefs.ErrNotFound},
	{phrase{"20.10 to 28, podman", "manifest unknown"}, cerrdefs.ErrNotFound},
	{phrase{"20.10 to 28", "name unknown"}, cerrdefs.ErrNotFound},
	{phrase{"20.10 to 28", "unknown blob"}, cerrdefs.ErrNotFound},
	{phrase{"20.10 to 28", "does not exist"}, cerrdefs.ErrNotFound},
	{phrase{"20.10 to 29", "not found"}, cerrdefs.ErrNotFound},

	{phrase{"the client", "invalid reference format"}, cerrdefs.ErrInvalidArgument},
	{phrase{"20.10 to 29", "platform specifier"}, cerrdefs.ErrInvalidArgument},
	{phrase{"20.10 to 29", "unsupported media type"}, cerrdefs.ErrInvalidArgument},
	{phrase{"28 to 29", "schema 1"}, cerrdefs.ErrInvalidArgument},

	{phrase{"20.10 to 29", "x509:"}, nil},
	{phrase{"20.10 to 29", "server gave http response to https client"}, nil},
	{phrase{"20.10 to 29", "no space left on device"}, nil},
	{phrase{"20.10 to 29", "disk quota exceeded"}, nil},
	{phrase{"20.10 to 29", "read-only file system"}, nil},
}

// Faults that are tried again, as everything is that nobody knows: these words only tell
// their class.
var (
	// A registry's code (20.10 to 28), or its words (29). Some send another status with it.
	rateLimitSays = regexp.MustCompile(`toomanyrequests|rate limit`)
	// 20.10 to 28; 29.
	damageSays = regexp.MustCompile(`verification failed for digest|unexpected commit (?:digest|size)|failed size validation`)
	// A layer below the registry, by its name, and the words of a connection that ended.
	transportSays = regexp.MustCompile(`\b(?:dial|read|write) (?:tcp|udp|unix)\b|\b(?:http2|net/http|tls|stream error|unavailable): |` +
		`\beof\b|\btime(?:d )?-?out\b|\bdeadline exceeded\b|\bcode = unavailable\b|\bconnection (?:refused|reset by peer)\b|\bbroken pipe\b|` +
		`\bclosed? (?:network|idle) connection\b|\bno route to host\b`)
)

// statusNumber finds a status of HTTP by the word before it: not each number is one, and
// behind a colon stands a port.
var statusNumber = regexp.MustCompile(`\b(?:https?(?:/[\d.]+)?|status(?:[ _-]?code)?)\b(?:[^\d]{0,60}[^\d:])?\b([45]\d\d)\b`)

// statusIn returns the status of HTTP that text tells, as a number or by the words that
// go with it, or 0.
func statusIn(text string) int {
	if found := statusNumber.FindStringSubmatch(text); found != nil {
		status, _ := strconv.Atoi(found[1])
		return status
	}
	for status := http.StatusBadRequest; status < 600; status++ {
		words := strings.ToLower(http.StatusText(status))
		if words != "" && (text == words || strings.HasSuffix(text, ": "+words) || strings.Contains(text, strconv.Itoa(status)+" "+words)) {
			return status
		}
	}
	return 0
}

// classOfStatus returns the class of a registry's status, or nil.
func classOfStatus(status int) error {
	switch status {
	case http.StatusBadRequest, http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound, http.StatusTooManyRequests:
		return errhttp.ToNative(status)
	case http.StatusProxyAuthRequired:
		return cerrdefs.ErrUnauthenticated
	case http.StatusUnavailableForLegalReasons:
		return cerrdefs.ErrPermissionDenied
	case http.StatusGone:
		return cerrdefs.ErrNotFound
	case http.StatusRequestTimeout, http.StatusTooEarly:
		return cerrdefs.ErrUnavailable
	}
	if status >= http.StatusInternalServerError {
		return cerrdefs.ErrUnavailable
	}
	return nil
}

// isFinalClass reports whether another attempt gets the same answer, by its class.
func isFinalClass(err error) bool {
	kind := classify(err)
	return kind == kindRefused || kind == kindMissing
}

// ofRegistry are words that an engine uses only when it speaks of a registry.
var ofRegistry = []string{
	"registry", "manifest", "failed to resolve reference", "unexpected http status", "unexpected status from",
	"failed to do request", "error parsing http", "dial tcp", "https://", "http://", "toomanyrequests", "error pulling image",
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

var someURL = regexp.MustCompile(`[a-z][a-z0-9+.-]*://[^\s"]*[^\s":]`)

// plain returns text in lower case, without what is quoted, and without what the image
// or a URL is called: that says nothing.
func (w wording) plain(text string) string {
	text = someURL.ReplaceAllString(quoted.ReplaceAllString(strings.ToLower(text), ""), "")
	for _, name := range w.names {
		text = strings.ReplaceAll(text, name, "")
	}
	return text
}

// fault finds the class of what text says, and whether that may pass. What is not known
// may.
func (w wording) fault(text string) (class error, passing, known bool) {
	text = w.plain(text)
	if rateLimitSays.MatchString(text) {
		return cerrdefs.ErrResourceExhausted, true, true
	}
	if class := classOfStatus(statusIn(text)); class != nil {
		return class, !isFinalClass(class), true
	}
	for _, fault := range finalFaults {
		if fault.in(text) {
			return fault.class, false, true
		}
	}
	switch {
	case damageSays.MatchString(text):
		return cerrdefs.ErrDataLoss, true, true
	case transportSays.MatchString(text):
		return cerrdefs.ErrUnavailable, true, true
	}
	return nil, true, false
}

// requestError reads the error of the request, before there is a body. The text
// comes before the class: 20.10 answers missing credentials with 500.
func (w wording) requestError(err error) *pullError {
	e := &pullError{text: err.Error(), cause: err}
	text := strings.ToLower(e.text)
	own := strings.Contains(text, "for api route and version") || // by the client, of an answer without words
		!slices.ContainsFunc(ofRegistry, func(word string) bool { return strings.Contains(text, word) })
	status := statusIn(w.plain(e.text))
	class, passing, known := w.fault(e.text)
	switch {
	case exec.IsTemporary(err) && !isTransport(err): // a fake's
		e.engine, e.passing = true, true
	case !isAnswer(err) && isPassing(err), tooNewClient.matches(err),
		own && (cerrdefs.IsUnavailable(err) || status == http.StatusBadGateway || status == http.StatusGatewayTimeout):
		e.engine, e.passing, e.class = true, true, cerrdefs.ErrUnavailable
	case known:
		e.class, e.passing = class, passing
	default:
		e.class, e.passing = knownClass(err), !isFinalClass(err)
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
	class, passing, known := w.fault(f.text)
	if !known {
		class = classOfStatus(f.code)
		if f.code == http.StatusInternalServerError { // the engine's own
			class = cerrdefs.ErrInternal
		}
		passing = !isFinalClass(class)
	}
	e.class, e.passing = class, passing
	return e
}

// bodyError reads the error of a body that could not be read to its end. What is no
// answer to a pull at all is final: whoever speaks so speaks so again.
func (w wording) bodyError(err error) *pullError {
	switch {
	case stderrors.Is(err, io.ErrUnexpectedEOF):
		return &pullError{text: "the engine's answer ends early: unexpected EOF", class: cerrdefs.ErrUnavailable, cause: err, passing: true, engine: true}
	case stderrors.Is(err, net.ErrClosed), isTransport(err), isPassing(err):
		return &pullError{text: "the engine's answer breaks off: " + err.Error(), class: cerrdefs.ErrUnavailable, cause: err, passing: true, engine: true}
	}
	return &pullError{text: "the engine's answer cannot be read: " + err.Error(), cause: err}
}
