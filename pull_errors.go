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

// maxErrorLength bounds the text of an error: the text goes into the task's status.
const maxErrorLength = 2048

// pullError is why a pull failed. It has no Unwrap. So a caller sees neither the text of
// the cause, nor whether the cause is temporary. A caller only sees what errors.Is finds.
type pullError struct {
	text    string
	class   error // its class of errdefs; nil: none
	cause   error // the client's error, or ErrPullStalled; nil: none
	passing bool  // worth another attempt
	engine  bool  // the fault is in the engine or the connection to it, not in the registry
}

func (e *pullError) Error() string { return e.text }

// Is reports whether target is the error's class, or is found in its cause. If the error
// has a class, a class of the cause does not count. An ended context in the cause never
// counts: it was not the caller's.
func (e *pullError) Is(target error) bool {
	switch {
	case target == context.Canceled || target == context.DeadlineExceeded:
		return false
	case e.class != nil && target == e.class:
		return true
	case e.class != nil && knownClass(target) != nil: // 20.10 calls most faults "internal"
		return false
	}
	return e.cause != nil && stderrors.Is(e.cause, target)
}

func (e *pullError) rateLimited() bool { return cerrdefs.IsResourceExhausted(e.class) }

// scrubbed takes secrets out of the text. If access was refused, it makes sure that the
// text contains the word "denied". Engines use several words for it.
func (e *pullError) scrubbed(scrub scrubber) *pullError {
	e.text, e.cause = scrub.clean(e.text, maxErrorLength), scrub.hide(e.cause)
	refused := cerrdefs.IsUnauthorized(e.class) || cerrdefs.IsPermissionDenied(e.class)
	if refused && !strings.Contains(strings.ToLower(e.text), "denied") {
		e.text = "access denied: " + e.text
	}
	return e
}

// stallError returns the error of a pull that made no progress. The error is final: the
// next attempt would probably hang too, and meanwhile the task would only show PREPARING.
// far says how far the pull came. It is empty if the engine sent no message.
func stallError(limit time.Duration, far string) *pullError {
	text := fmt.Sprintf("stalled: no answer from the engine for %v", limit)
	if far != "" {
		text = fmt.Sprintf("stalled: no advance for %v; it came to %s", limit, far)
	}
	return &pullError{text: text, class: cerrdefs.ErrUnavailable, cause: ErrPullStalled}
}

// finalFaults are an engine's phrases for faults that another attempt does not mend. If
// class is nil, the fault has no class. The status of the answer does not matter: 20.10
// answers most of these faults with 500.
var finalFaults = []struct {
	phrase
	class error
}{
	{phrase{"20.10 to 29", "no basic auth credentials"}, cerrdefs.ErrUnauthenticated},
	{phrase{"29", "authorization failed"}, cerrdefs.ErrUnauthenticated},
	{phrase{"20.10 to 29", "unauthorized"}, cerrdefs.ErrUnauthenticated},
	{phrase{"20.10 to 28", "authentication required"}, cerrdefs.ErrUnauthenticated},
	{phrase{"a proxy's words for 401, in 20.10 to 29", "authorization required"}, cerrdefs.ErrUnauthenticated},
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

// Words of faults that are tried again, for the class of the error. The method fault has their
// order. A fault that is not known is tried again too, unless its class is final.
var (
	// 20.10 to 28 show the registry's code, 29 shows the registry's words. Some
	// registries send them with a status other than 429.
	rateLimitSays = regexp.MustCompile(`toomanyrequests|rate limit`)
	// The first phrase is from 20.10 to 28, the others are from 29.
	damageSays = regexp.MustCompile(`verification failed for digest|unexpected commit (?:digest|size)|failed size validation`)
	// No connection was made, so no registry has answered. The words "permission denied" in
	// such a text come from a firewall, and "not found" from a resolver.
	dialSays = regexp.MustCompile(`\bdial (?:tcp|udp|unix)\b`)
	// The names of what carries the request (TCP, TLS, HTTP, gRPC), and words for a
	// connection that ended.
	transportSays = regexp.MustCompile(`\b(?:read|write) (?:tcp|udp|unix)\b|\b(?:http2|net/http|tls|stream error|unavailable): |` +
		`\beof\b|\btime(?:d )?-?out\b|\bdeadline exceeded\b|\bcode = unavailable\b|\bconnection (?:refused|reset by peer)\b|\bbroken pipe\b|` +
		`\bclosed? (?:network|idle) connection\b|\bno route to host\b`)
)

// statusNumber finds an HTTP status. The word "http", "https" or "status" must stand
// before it, because other numbers look the same. A number right after a colon is a port.
var statusNumber = regexp.MustCompile(`\b(?:https?(?:/[\d.]+)?|status(?:[ _-]?code)?)\b(?:[^\d]{0,60}[^\d:/])?\b([45]\d\d)\b`)

// statusIn returns the HTTP status that text names, by its number or by its standard
// words. It returns 0 if text names none.
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
	case http.StatusPaymentRequired, http.StatusMethodNotAllowed, http.StatusUnavailableForLegalReasons:
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

// isFinalClass reports whether the class of err means that another attempt would get the
// same answer.
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
		if strings.ContainsAny(name, "/:") { // a name without "/" and ":" may also be a word of the engine
			w.names = append(w.names, strings.ToLower(name))
		}
	}
	slices.SortFunc(w.names, func(a, b string) int { return len(b) - len(a) })
	return w
}

var someURL = regexp.MustCompile(`[a-z][a-z0-9+.-]*://[^\s"]*[^\s":]`)

// plain returns text in lower case, without quoted text, URLs and names of the image.
// They say nothing about the fault.
func (w wording) plain(text string) string {
	text = someURL.ReplaceAllString(quoted.ReplaceAllString(strings.ToLower(text), ""), "")
	for _, name := range w.names {
		text = strings.ReplaceAll(text, name, "")
	}
	return text
}

// fault judges the fault that text describes: whether it is known, whether another
// attempt may succeed, and the fault's class. passing and class count only if known is set.
func (w wording) fault(text string) (known, passing bool, class error) {
	text = w.plain(text)
	if rateLimitSays.MatchString(text) {
		return true, true, cerrdefs.ErrResourceExhausted
	}
	if class := classOfStatus(statusIn(text)); class != nil {
		return true, !isFinalClass(class), class
	}
	if dialSays.MatchString(text) {
		return true, true, cerrdefs.ErrUnavailable
	}
	for _, fault := range finalFaults {
		if fault.in(text) {
			return true, false, fault.class
		}
	}
	switch {
	case damageSays.MatchString(text):
		return true, true, cerrdefs.ErrDataLoss
	case transportSays.MatchString(text):
		return true, true, cerrdefs.ErrUnavailable
	}
	return false, false, nil
}

// requestError judges the error of a request that got no body. The text counts before the
// class: 20.10 answers missing credentials with 500.
func (w wording) requestError(err error) *pullError {
	e := &pullError{text: err.Error(), cause: err}
	text := strings.ToLower(e.text)
	own := strings.Contains(text, "for api route and version") || // the client's words for an answer without text
		!slices.ContainsFunc(ofRegistry, func(word string) bool { return strings.Contains(text, word) })
	status := statusIn(w.plain(e.text))
	known, passing, class := w.fault(e.text)
	switch {
	case exec.IsTemporary(err) && !isTransport(err): // the error of a fake
		e.engine, e.passing = true, true
	case !isAnswer(err) && isPassing(err), tooNewClient.matches(err), tooOldClient.matches(err),
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

// streamError judges an error message in the stream of a pull. Such a message is about the
// registry, or about storing the image.
func (w wording) streamError(f *pullFailure) *pullError {
	e := &pullError{text: f.text}
	if f.code != 0 {
		e.text = fmt.Sprintf("%s (code %d)", f.text, f.code)
	}
	known, passing, class := w.fault(f.text)
	if !known { // it is tried again, unless its code is final
		class = classOfStatus(f.code)
		if f.code == http.StatusInternalServerError { // the engine's own fault
			class = cerrdefs.ErrInternal
		}
		passing = !isFinalClass(class)
	}
	e.class, e.passing = class, passing
	return e
}

// bodyError judges the error of a body that could not be read to its end. If the body
// is not the answer to a pull at all, the error is final: another attempt would get the
// same.
func (w wording) bodyError(err error) *pullError {
	switch {
	case stderrors.Is(err, io.ErrUnexpectedEOF):
		return &pullError{text: "the engine's answer ends early: unexpected EOF", class: cerrdefs.ErrUnavailable, cause: err, passing: true, engine: true}
	case stderrors.Is(err, net.ErrClosed), isTransport(err), isPassing(err):
		return &pullError{text: "the engine's answer breaks off: " + err.Error(), class: cerrdefs.ErrUnavailable, cause: err, passing: true, engine: true}
	}
	return &pullError{text: "the engine's answer cannot be read: " + err.Error(), cause: err}
}
