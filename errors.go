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
	"github.com/docker/docker/api/types/container"
	engineapi "github.com/docker/docker/client"
	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/moby/swarmkit/v2/api"
	"github.com/pkg/errors"
)

var (
	// ErrImageRequired is returned, bare, for a task that names no image.
	ErrImageRequired = errors.New("dockerexec: image required")

	// ErrContainerDestroyed is returned, bare, by Wait when the container of a
	// task is gone, is being removed, or another one has taken its name. A
	// controller's Start returns it too, while it waits for the health check.
	ErrContainerDestroyed = errors.New("dockerexec: container destroyed")

	// ErrContainerUnhealthy is the cause of the exit error of a task whose
	// health check failed: errors.Is finds it.
	ErrContainerUnhealthy = errors.New("dockerexec: unhealthy container")
)

// ExitError returns the error that a SwarmKit controller's Wait reports for a
// container that has ended: nil if it exited with 0 and the engine reports no
// error of its own. The error implements [exec.ExitCoder] and
// [exec.ContainerStatuser]; return it unwrapped, because SwarmKit's agent looks no
// deeper.
//
// cause, which may be nil, is what errors.Is and errors.Cause find behind the error,
// such as [ErrContainerUnhealthy]. With a cause the error is never nil, whatever the
// code. An answer without a state, which does not say how the container ended, is an
// error without a code.
func ExitError(ended container.InspectResponse, cause error) error {
	if ended.ContainerJSONBase == nil || ended.State == nil {
		return errors.New("dockerexec: the engine's answer about the container has no state")
	}
	if cause == nil && ended.State.Error != "" {
		cause = errors.New(ended.State.Error)
	}
	if cause == nil && ended.State.ExitCode == 0 {
		return nil
	}
	return &exitError{code: ended.State.ExitCode, cause: cause, status: containerStatus(ended)}
}

// exitError is how a task that failed says with which code and why.
type exitError struct {
	code   int
	cause  error
	status *api.ContainerStatus
}

var (
	_ exec.ExitCoder         = (*exitError)(nil)
	_ exec.ContainerStatuser = (*exitError)(nil)
)

func (e *exitError) Error() string {
	if e.cause != nil {
		return fmt.Sprintf("task: non-zero exit (%d): %v", e.code, e.cause)
	}
	return fmt.Sprintf("task: non-zero exit (%d)", e.code)
}

// ExitCode returns the container's exit code.
func (e *exitError) ExitCode() int { return e.code }

// ContainerStatus returns what the container was when it had ended, which SwarmKit's
// agent then need not ask for.
func (e *exitError) ContainerStatus(context.Context) (*api.ContainerStatus, error) {
	return e.status.Copy(), nil
}

// Cause serves [errors.Cause], which SwarmKit's agent uses.
func (e *exitError) Cause() error { return e.cause }

// Unwrap serves the standard library's errors.Is and errors.As.
func (e *exitError) Unwrap() error { return e.cause }

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
		tooNewClient.in(normalize(err.Error()), ""),
		isLostContainerd(err),
		isCutShort(err):
		return true
	}
	return false
}

// isLostContainerd reports whether the engine answered that its containerd has
// gone, or that it is about to end itself. Newer engines say so with 503 where they
// notice, and with 500 elsewhere. What a runtime says of a container's own process
// may have any words in it.
func isLostContainerd(err error) bool {
	return cerrdefs.IsInternal(err) && matches(err, lostContainerd, "", aContainer) &&
		!strings.Contains(normalize(err.Error()), "oci runtime")
}

// isCutShort reports whether err says only in words that an answer ended early.
func isCutShort(err error) bool {
	var syntax *json.SyntaxError
	if stderrors.As(err, &syntax) {
		return syntax.Error() == "unexpected end of JSON input" // what json.Unmarshal has for an EOF
	}
	text := normalize(err.Error())
	return lostInfo.in(text, "") && (strings.HasSuffix(text, "eof") || strings.HasSuffix(text, "connection reset by peer"))
}

// phrase is what one family of engines says in one situation.
type phrase struct {
	engine string   // who says it
	parts  []string // lower case, no quotes; all of them stand in one line, in this order
}

// Answers that methods of the package look for.
var (
	// The 400 of an engine that went back to an older version after the API
	// version was agreed.
	tooNewClient = phrase{"20.10 to 29", []string{"client version", "is too new"}}
	// The client's Info is its one call whose error has nothing behind it.
	lostInfo = phrase{"the client", []string{"error reading remote info: "}}
	// The 400 to a CPU limit above the host's cores.
	tooManyCPUs = phrase{"20.10 to 29", []string{"range of cpus is from", "cpus available"}}
	// The 404 to the create or start of a container about a network of its.
	networkVanished = phrase{"20.10 to 29", []string{"network", "not found"}}
	// The 409 to a removal while the engine is at it already.
	removalInProgress = phrase{"20.10 to 29", []string{"removal of container", "is already in progress"}}
	// The 500 of an engine whose containerd has gone, or that ends itself.
	lostContainerd = []phrase{
		{"29", []string{"unavailable: error reading from server: "}},
		{"29", []string{"unavailable: connection error: desc = "}},
		{"20.10", []string{"connection error: desc = transport: ", ": unavailable"}},
		{"20.10", []string{"transport is closing: unavailable"}},
		{"29", []string{"grpc: the client connection is closing"}},
		{"29, of a network while the engine stops", []string{": database not open"}},
		{"20.10, of a network while the engine stops", []string{"failed to update store for object type", ": open : no such file or directory"}},
	}
	// The 500 to the start of a container whose earlier start the engine has lost.
	lostStart = []phrase{
		{"20.10 to 29", []string{"task ", ": already exists"}},
		{"20.10", []string{"id already in use"}},
		{"20.10 to 29", []string{"mkdir ", "/containerd/", ": file exists"}},
	}
	// The 409 to a request for the log of a container that is about to be removed.
	logOfDying = phrase{"20.10 to 29", []string{"can not get logs from container which is dead or marked for removal"}}
)

// The phrases of each classifier. NAME stands for the name that is asked about.
var (
	activeEndpointPhrases = []phrase{
		{"20.10 to 29", []string{"has active endpoints"}},
		{"podman", []string{"network is being used"}},
		{"podman", []string{"has associated containers with it"}},
		{"others", []string{"network", "in use"}},
	}
	networkExistPhrases = []phrase{
		{"20.10 to 29", []string{"network with name NAME already exists"}},
		{"podman", []string{"network name NAME already used"}},
		{"others", []string{"network NAME already exists"}},
	}
	nameConflictPhrases = []phrase{
		{"before 1.13, and the reference's tests", []string{"conflict. the name"}},
		{"1.13 to 29", []string{"conflict. the container name"}},
		{"podman", []string{"container name", "already in use"}},
		{"podman", []string{"that name is already in use"}},
		{"others", []string{"container", "already exists"}},
	}
	unknownContainerPhrases = []phrase{
		{"20.10 to 29, podman", []string{"no such container"}},
		{"podman", []string{"no container with", "found"}},
		{"others", []string{"container", "not found"}},
		{"others", []string{"container", "does not exist"}},
	}
	stoppedContainerPhrases = []phrase{
		{"20.10 to 29, within the engine", []string{"is already stopped"}},
		{"20.10 to 29, to a kill", []string{"container", "is not running"}},
		{"podman, to a kill", []string{"can only kill running containers"}},
	}
)

// Words for the objects of an engine. An error about one of them is not about
// another, however alike the rest of its words.
const (
	aContainer = 1 << iota
	aNetwork
	another
)

var objectWords = map[string]int{
	"container": aContainer, "containers": aContainer,
	"network": aNetwork, "networks": aNetwork, "networking": aNetwork,
	"image": another, "volume": another, "plugin": another, "manifest": another, "repository": another,
	// What a runtime says of the process in a container, which is there.
	"runc": another, "runtime": another, "shim": another, "process": another, "exec": another,
}

// IsActiveEndpointError reports whether the engine refused to remove a network
// because containers are attached to it. It is false for nil.
func IsActiveEndpointError(err error) bool {
	return matches(err, activeEndpointPhrases, "", aNetwork, cerrdefs.ErrPermissionDenied)
}

// IsNetworkExistError reports whether the engine refused to create the network
// name because one of that name exists. It is false for nil. An empty name matches
// only an error that says no more than its class.
func IsNetworkExistError(err error, name string) bool {
	return matches(err, networkExistPhrases, name, aNetwork, cerrdefs.ErrConflict, cerrdefs.ErrAlreadyExists)
}

// IsContainerCreateNameConflict reports whether the engine refused to create a
// container because one of that name exists. It is false for nil.
func IsContainerCreateNameConflict(err error) bool {
	return matches(err, nameConflictPhrases, "", aContainer, cerrdefs.ErrConflict, cerrdefs.ErrAlreadyExists)
}

// IsUnknownContainer reports whether the engine has no container of the name or
// ID that it was asked about. It is false for nil.
func IsUnknownContainer(err error) bool {
	return matches(err, unknownContainerPhrases, "", aContainer, cerrdefs.ErrNotFound)
}

// IsStoppedContainer reports whether the engine had nothing to stop or to kill
// because the container does not run. It is false for nil. Engines answer a stop of
// a stopped container with 304, which the client returns as success.
func IsStoppedContainer(err error) bool {
	return matches(err, stoppedContainerPhrases, "", aContainer, cerrdefs.ErrNotModified)
}

// isLostStart reports whether err, a start's, says that containerd has the
// container's process already.
func isLostStart(err error) bool {
	return err != nil && matches(err, lostStart, "", aContainer)
}

// matches is the one rule of all classifiers: err says one of the phrases,
// ignoring case and quotes and whatever its class; or it is a bare error of one
// of the classes, which says no more than its class, as fakes return it. Neither
// holds when the words are about another object than wanted.
func matches(err error, phrases []phrase, name string, wanted int, classes ...error) bool {
	if err == nil {
		return false
	}
	for line := range strings.Lines(normalize(err.Error())) {
		for _, p := range phrases {
			if p.in(line, strings.ToLower(name)) && !(p.engine == "others" && aboutOther(line, wanted)) {
				return true
			}
		}
	}
	return !aboutOther(normalize(err.Error()), wanted) && isBare(err, classes)
}

func normalize(text string) string {
	return strings.NewReplacer(`"`, "", "'", "", "`", "").Replace(strings.ToLower(text))
}

// in reports whether line says the phrase.
func (p phrase) in(line, name string) bool {
	for _, part := range p.parts {
		if strings.Contains(part, "NAME") {
			if name == "" {
				return false
			}
			part = strings.ReplaceAll(part, "NAME", name)
		}
		_, rest, found := strings.Cut(line, part)
		if !found {
			return false
		}
		line = rest
	}
	return true
}

// aboutOther reports whether text names an object and not the wanted one, or
// one that neither classifier is about. Only whole words count: a container may
// be called my-network.
func aboutOther(text string, wanted int) bool {
	named := 0
	for _, word := range strings.Fields(text) {
		named |= objectWords[strings.Trim(word, ":,.;()")]
	}
	return named&^wanted != 0
}

// isBare reports whether a leaf of err's tree is one of the classes itself, or
// says nothing but the class's own words.
func isBare(err error, classes []error) bool {
	switch e := err.(type) { //nolint:errorlint // the tree itself is walked
	case interface{ Unwrap() []error }:
		for _, child := range e.Unwrap() {
			if isBare(child, classes) {
				return true
			}
		}
		return false
	case interface{ Unwrap() error }:
		if child := e.Unwrap(); child != nil && isBare(child, classes) {
			return true
		}
	}
	for _, class := range classes {
		if stderrors.Is(err, class) && strings.EqualFold(err.Error(), class.Error()) {
			return true
		}
	}
	return false
}
