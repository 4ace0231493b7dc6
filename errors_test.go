package dockerexec

import (
	"context"
	"encoding/json"
	stderrors "errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errhttp"
	engineapi "github.com/docker/docker/client"
	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/moby/swarmkit/v2/api"
	"github.com/pkg/errors"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockerexec/dockerexec/dockerexectest"
)

const (
	unknownContainer = iota
	stoppedContainer
	nameConflict
	networkExist // of the network "n"
	activeEndpoint
	none
)

func TestClassifiers(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name string
		err  error
		want int
	}{
		// What engines answer, 20.10 to 29.
		{"unknown container", answer{"No such container: web.1.abc", cerrdefs.ErrNotFound}, unknownContainer},
		{"kill unknown, 20.10", answer{"Cannot kill container: x: No such container: x", cerrdefs.ErrNotFound}, unknownContainer},
		{"kill unknown, 25 to 29", answer{"cannot kill container: x: No such container: x", cerrdefs.ErrNotFound}, unknownContainer},
		{"kill stopped, 20.10", answer{"Cannot kill container: x: Container 0123 is not running", cerrdefs.ErrConflict}, stoppedContainer},
		{"kill stopped, 25 to 29", answer{"cannot kill container: x: container 0123 is not running", cerrdefs.ErrConflict}, stoppedContainer},
		{"stop stopped, inside 20.10", errors.New("Container is already stopped"), stoppedContainer},
		{"stop stopped, inside 25", errors.New("container is already stopped"), stoppedContainer},
		{"name taken, 1.13 to 29", answer{`Conflict. The container name "/x" is already in use by container "0123". You have to remove (or rename) that container to be able to reuse that name.`, cerrdefs.ErrConflict}, nameConflict},
		{"name taken, before 1.13", answer{`Conflict. The name "/x" is already in use by container 0123. You have to remove (or rename) that container to be able to reuse that name.`, cerrdefs.ErrConflict}, nameConflict},
		{"name taken, the reference's tests", errors.New("Conflict. The name"), nameConflict},
		{"network exists, 20.10 to 29", answer{"network with name n already exists", cerrdefs.ErrConflict}, networkExist},
		{"network in use, 20.10 to 28.0", answer{"error while removing network: network n id 0123 has active endpoints", cerrdefs.ErrPermissionDenied}, activeEndpoint},
		{"network in use, 28.1 to 29", answer{`error while removing network: network n has active endpoints (name:"c" id:"0123")`, cerrdefs.ErrPermissionDenied}, activeEndpoint},

		// What other engines answer.
		{"name taken, podman 4.3", answer{`container create: creating container storage: the container name "x" is already in use by 0123`, cerrdefs.ErrInternal}, nameConflict},
		{"network exists, podman 4.3", answer{"network name n already used: network already exists", cerrdefs.ErrInternal}, networkExist},
		{"network in use, podman 4.3", answer{"network is being used", cerrdefs.ErrInternal}, activeEndpoint},
		{"kill created, podman 4.3", answer{"can only kill running containers. 0123 is in state created: container state improper", cerrdefs.ErrInternal}, stoppedContainer},
		{"unknown container, podman", answer{`no container with name or ID "x" found: no such container`, cerrdefs.ErrNotFound}, unknownContainer},
		{"name taken, podman", answer{`creating container storage: the container name "x" is already in use by 0123. You have to remove that container to be able to reuse that name: that name is already in use`, cerrdefs.ErrInternal}, nameConflict},
		{"network exists, podman", answer{"network name n already used: network already exists", cerrdefs.ErrConflict}, networkExist},
		{"network in use, podman", answer{`"n" has associated containers with it. Use -f to forcefully delete containers and pods: network is being used`, cerrdefs.ErrConflict}, activeEndpoint},
		{"kill stopped, podman", answer{"can only kill running containers. 0123 is in state exited: container state improper", cerrdefs.ErrConflict}, stoppedContainer},

		// The text decides, whatever the class and the case.
		{"right text, wrong class", answer{"No such container: x", cerrdefs.ErrInternal}, unknownContainer},
		{"right text, no class", errors.New("conflict. the container name \"/x\" is already in use"), nameConflict},
		{"upper case", errors.New("NETWORK WITH NAME N ALREADY EXISTS"), networkExist},
		{"upper case, in use", errors.New("NETWORK N HAS ACTIVE ENDPOINTS"), activeEndpoint},
		{"wrapped", errors.Wrap(answer{"No such container: x", cerrdefs.ErrNotFound}, "inspect container x"), unknownContainer},
		{"wrapped with %w", fmt.Errorf("stop: %w", answer{"cannot kill container: x: container 0123 is not running", cerrdefs.ErrConflict}), stoppedContainer},
		{"joined", stderrors.Join(io.EOF, answer{"No such container: x", cerrdefs.ErrNotFound}), unknownContainer},
		{"temporary", exec.MakeTemporary(errors.Wrap(errors.New("network n has active endpoints"), "remove network n")), activeEndpoint},

		// A bare class says no more than its class.
		{"bare, not found", cerrdefs.ErrNotFound, unknownContainer},
		{"bare, not modified", cerrdefs.ErrNotModified, stoppedContainer},
		{"bare, permission denied", cerrdefs.ErrPermissionDenied, activeEndpoint},
		{"bare, wrapped", errors.Wrap(cerrdefs.ErrNotFound, "inspect web.1.abc"), unknownContainer},
		{"bare, joined", stderrors.Join(io.EOF, cerrdefs.ErrNotFound), unknownContainer},
		{"bare, about a container called my-network", errors.Wrap(cerrdefs.ErrNotFound, "inspect container my-network.1.abc"), unknownContainer},

		// The nearest wrong object.
		{"unknown image", answer{"No such image: nginx:latest", cerrdefs.ErrNotFound}, none},
		{"unknown network", answer{"network n not found", cerrdefs.ErrNotFound}, none},
		{"unknown network at start, 28", answer{"failed to set up container networking: network n not found", cerrdefs.ErrNotFound}, none},
		{"unknown volume", answer{"get v: no such volume", cerrdefs.ErrNotFound}, none},
		{"unknown plugin", answer{`plugin "other" not found`, cerrdefs.ErrNotFound}, none},
		{"bare, about an image", errors.Wrap(cerrdefs.ErrNotFound, "pull image x"), none},
		{"bare, about a volume", errors.Wrap(cerrdefs.ErrNotFound, "create volume v"), none},
		{"bare, about a container, to a network", errors.Wrap(cerrdefs.ErrPermissionDenied, "start container x"), none},
		{"bare, about a network", errors.Wrap(cerrdefs.ErrNotFound, "remove network n"), none},
		{"volume conflict", answer{"create V: driver 'local' already has volume 'V': volume name must be unique", cerrdefs.ErrConflict}, none},
		{"other network exists", answer{"network with name nn already exists", cerrdefs.ErrConflict}, none},
		{"predefined network", answer{"bridge is a pre-defined network and cannot be removed", cerrdefs.ErrPermissionDenied}, none},
		{"removal in progress", answer{"removal of container x is already in progress", cerrdefs.ErrConflict}, none},
		{"remove of a running container", answer{`cannot remove container "x": container is running: stop the container before removing or force remove`, cerrdefs.ErrConflict}, none},
		{"no such program", answer{`failed to create task for container: failed to create shim task: OCI runtime create failed: runc create failed: unable to start container process: exec: "foo": executable file not found in $PATH: unknown`, cerrdefs.ErrInvalidArgument}, none},
		{"no such program, 20.10", answer{`OCI runtime create failed: container_linux.go:380: starting container process caused: exec: "foo": executable file not found in $PATH: unknown`, cerrdefs.ErrInvalidArgument}, none},
		{"no such runtime", answer{"unknown or invalid runtime name: container runtime kata not found", cerrdefs.ErrInvalidArgument}, none},
		{"no such data set, 500 to a removal", answer{`cannot remove container "/web": container 12ab: driver "zfs" failed to remove root filesystem: exit status 1: "/usr/sbin/zfs fs destroy -r pool/12ab" => cannot open 'pool/12ab': dataset does not exist`, cerrdefs.ErrInternal}, none},
		{"no such file, 500 to a kill", answer{"cannot kill container: web: tried to kill: open /run/x: file not found", cerrdefs.ErrInternal}, none},
		{"no such layer", answer{"container 12ab: layer does not exist", cerrdefs.ErrInternal}, none},
		{"no such snapshot", answer{`failed to prepare container "web": snapshot 12ab does not exist: not found`, cerrdefs.ErrInternal}, none},
		{"no such link", answer{"could not get container 12ab for link db: not found", cerrdefs.ErrInternal}, none},
		{"a file that is there", answer{"container web: mkdir /x: file already exists", cerrdefs.ErrInternal}, none},
		{"a network's port in use", answer{"network n: port 80 in use", cerrdefs.ErrInternal}, none},
		{"the runtime's own conflict", answer{"runc create failed: container with given ID already exists: unknown", cerrdefs.ErrInternal}, none},
		{"unknown network, podman", answer{"unable to find network with name or ID n: network not found", cerrdefs.ErrInternal}, none},
		{"port in use, podman", answer{"container create: cannot listen on the TCP port: listen tcp4 :80: bind: address already in use", cerrdefs.ErrInternal}, none},
		{"no removal, podman", answer{"cannot remove container 0123 as it could not be stopped: sending SIGKILL to container 0123: container state improper: stopped", cerrdefs.ErrInternal}, none},
		{"no such path, podman", answer{"Path /v1.41/plugins is not supported", cerrdefs.ErrNotFound}, none},
		{"class with other text", answer{"something else", cerrdefs.ErrNotFound}, none},
		{"EOF", io.EOF, none},
		{"nil", nil, none},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			assert.Equal(t, test.want == unknownContainer, IsUnknownContainer(test.err), "IsUnknownContainer")
			assert.Equal(t, test.want == stoppedContainer, IsStoppedContainer(test.err), "IsStoppedContainer")
			assert.Equal(t, test.want == nameConflict, IsContainerCreateNameConflict(test.err), "IsContainerCreateNameConflict")
			assert.Equal(t, test.want == networkExist, IsNetworkExistError(test.err, "n"), "IsNetworkExistError")
			assert.Equal(t, test.want == activeEndpoint, IsActiveEndpointError(test.err), "IsActiveEndpointError")
		})
	}
}

// A bare conflict is all that a fake says for a name that is taken, of a
// container or of a network.
func TestClassifiersOfABareConflict(t *testing.T) {
	t.Parallel()
	for _, err := range []error{cerrdefs.ErrConflict, cerrdefs.ErrAlreadyExists} {
		assert.True(t, IsContainerCreateNameConflict(err))
		assert.True(t, IsNetworkExistError(err, "n"))
		assert.True(t, IsNetworkExistError(err, ""))
		assert.False(t, IsUnknownContainer(err))
		assert.False(t, IsStoppedContainer(err))
		assert.False(t, IsActiveEndpointError(err))
	}
}

func TestSentinelTexts(t *testing.T) {
	t.Parallel()
	assert.EqualError(t, ErrImageRequired, "dockerexec: image required")
	assert.EqualError(t, ErrContainerDestroyed, "dockerexec: container destroyed")
	assert.EqualError(t, ErrContainerUnhealthy, "dockerexec: unhealthy container")
}

func TestErrorKinds(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name      string
		err       error
		temporary bool
	}{
		{"EOF", &url.Error{Op: "Get", URL: "http://docker", Err: io.EOF}, true},
		{"answer cut short", io.ErrUnexpectedEOF, true},
		{"refused", &url.Error{Op: "Get", URL: "http://docker", Err: syscall.ECONNREFUSED}, true},
		{"reset", errors.Wrap(syscall.ECONNRESET, "read"), true},
		{"broken pipe", errors.Wrap(syscall.EPIPE, "write"), true},
		{"503", answer{"away", cerrdefs.ErrUnavailable}, true},
		{"429", answer{"slow down", cerrdefs.ErrResourceExhausted}, true},
		{"older engine", answer{"client version 1.51 is too new. Maximum supported API version is 1.41", cerrdefs.ErrInvalidArgument}, true},
		{"newer engine", answer{"client version 1.43 is too old. Minimum supported API version is 1.44, please upgrade your client to a newer version", cerrdefs.ErrInvalidArgument}, true},
		{"time-out", requestTimeoutError(2 * time.Minute), true},
		{"engine information, cut short", errors.New("Error reading remote info: unexpected EOF"), true},
		{"engine information, empty", errors.New("Error reading remote info: EOF"), true},
		{"engine information, reset", errors.New("Error reading remote info: read unix @->/run/docker.sock: read: connection reset by peer"), true},
		{"engine information, garbled", errors.New("Error reading remote info: invalid character '<' looking for beginning of value"), false},
		{"an image's record, empty", json.Unmarshal(nil, new(any)), true},
		{"an image's record, garbled", json.Unmarshal([]byte("<html>"), new(any)), false},
		{"a file of the engine, cut short", answer{"unexpected end of JSON input", cerrdefs.ErrInternal}, false},
		{"rights on the socket", errors.Wrap(syscall.EACCES, "dial"), false},
		{"400", answer{"bad", cerrdefs.ErrInvalidArgument}, false},
		{"500", answer{"boom", cerrdefs.ErrInternal}, false},
		{"404", answer{"No such container: x", cerrdefs.ErrNotFound}, false},
		{"other", errors.New("no"), false},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			err := engineError(context.Background(), test.err, "start container %s", "x")
			require.ErrorIs(t, err, test.err)
			assert.True(t, strings.HasPrefix(err.Error(), "start container x: "), err)
			assert.Equal(t, test.temporary, exec.IsTemporary(err))
		})
	}
	require.NoError(t, engineError(context.Background(), nil, "x"))
}

// A socket that lets nobody in is an engine that is away: a task must outlive
// it, as it outlives the ping that comes first.
func TestNoRightOnTheSocketIsTemporary(t *testing.T) {
	t.Parallel()
	client, err := engineapi.NewClientWithOpts(engineapi.WithDialContext(func(context.Context, string, string) (net.Conn, error) {
		return nil, &net.OpError{Op: "dial", Net: "unix", Err: syscall.EACCES}
	}))
	require.NoError(t, err)
	defer client.Close()
	_, err = client.ContainerInspect(t.Context(), "x")
	err = engineError(t.Context(), err, "inspect container x")
	assert.True(t, exec.IsTemporary(err), err)
	assert.ErrorContains(t, err, "permission denied")
}

// The agent compares errors.Cause with the context's errors, which does not see
// through *url.Error: a cancelled call must come back bare.
func TestErrorOfAnEndedContextIsBare(t *testing.T) {
	t.Parallel()
	cancelled, cancel := context.WithCancel(context.Background())
	cancel()
	err := engineError(cancelled, &url.Error{Op: "Get", URL: "http://docker", Err: context.Canceled}, "start")
	assert.Equal(t, context.Canceled, err)

	late, cancel := context.WithDeadline(context.Background(), time.Unix(1, 0))
	defer cancel()
	err = engineError(late, &url.Error{Op: "Get", URL: "http://docker", Err: context.DeadlineExceeded}, "start")
	assert.Equal(t, context.DeadlineExceeded, err)
}

// The parts of a phrase stand in its order.
func TestClassifiersHeedTheOrderOfWords(t *testing.T) {
	t.Parallel()
	assert.True(t, IsUnknownContainer(stderrors.New("no container with name or ID web found")))
	assert.False(t, IsUnknownContainer(stderrors.New("found no container with name or ID web")))
	assert.True(t, IsContainerCreateNameConflict(stderrors.New("the container name web is already in use")))
	assert.False(t, IsContainerCreateNameConflict(stderrors.New("already in use: the container name web")))
	assert.True(t, IsStoppedContainer(stderrors.New("container web is not running")))
	assert.False(t, IsStoppedContainer(stderrors.New("is not running: container web")))
}

// A proxy that does not reach the engine is an engine that is away.
func TestAGatewaysErrorsAreTemporary(t *testing.T) {
	t.Parallel()
	for status, temporary := range map[int]bool{
		http.StatusInternalServerError:     false,
		http.StatusNotImplemented:          false,
		http.StatusBadGateway:              true,
		http.StatusServiceUnavailable:      true,
		http.StatusGatewayTimeout:          true,
		http.StatusHTTPVersionNotSupported: false,
	} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Api-Version", "1.51")
			if r.URL.Path != "/_ping" {
				w.WriteHeader(status)
			}
		}))
		t.Cleanup(server.Close)
		client, err := engineapi.NewClientWithOpts(engineapi.WithHost(server.URL), engineapi.WithVersion("1.51"))
		require.NoError(t, err)
		t.Cleanup(func() { assert.NoError(t, client.Close()) })
		adapter, err := NewContainerAdapter(client, nil, plainTask(), nil)
		require.NoError(t, err)
		err = adapter.Start(t.Context())
		require.Error(t, err)
		assert.Equal(t, temporary, exec.IsTemporary(err), "%d: %v", status, err)
	}
}

// What engines answered to calls while their containerd, or they themselves, were
// ended.
func TestAnEngineWithoutItsContainerdIsAPassingFault(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		call, text string
		class      error
		passing    bool
	}{
		// 29, containerd killed
		{"create", "Unavailable: error reading from server: EOF", cerrdefs.ErrInternal, true},
		{"create", "Unavailable: error reading from server: connection reset by peer", cerrdefs.ErrUnavailable, true},
		{"start", "Unavailable: error reading from server: connection reset by peer", cerrdefs.ErrInternal, true},
		{"start", "failed to create task for container: Unavailable: error reading from server: EOF", cerrdefs.ErrInternal, true},
		{"start", `failed to create task for container: Unavailable: connection error: desc = "transport: Error while dialing: dial unix /run/docker/containerd/containerd.sock: connect: connection refused"`, cerrdefs.ErrInternal, true},
		{"remove", `cannot remove container "web": Unavailable: connection error: desc = "error reading server preface: connection reset by peer"`, cerrdefs.ErrUnavailable, true},
		// 29, on its way down
		{"create", "Canceled: grpc: the client connection is closing: context canceled", cerrdefs.ErrInternal, true},
		{"network create", "failed to update bridge store for object type *bridge.networkConfiguration: database not open", cerrdefs.ErrInternal, true},
		{"network create", "failed to update store for object type *libnetwork.Network: database not open", cerrdefs.ErrInternal, true},
		{"network remove", "error while removing network: error deleting network from store: database not open", cerrdefs.ErrInternal, true},
		// 20.10, containerd killed
		{"start", `connection error: desc = "transport: Error while dialing dial unix /run/docker/containerd/containerd.sock: connect: connection refused": unavailable`, cerrdefs.ErrInternal, true},
		{"start", "transport is closing: unavailable", cerrdefs.ErrInternal, true},
		// 20.10, on its way down
		{"start", "failed to update store for object type *libnetwork.endpoint: open : no such file or directory", cerrdefs.ErrInternal, true},

		{"start", `failed to create task for container: failed to create shim task: OCI runtime create failed: runc create failed: unable to start container process: exec: "unavailable: error reading from server: EOF": executable file not found in $PATH: unknown`, cerrdefs.ErrInternal, false},
		{"start", `OCI runtime create failed: container_linux.go:380: starting container process caused: exec: "transport is closing: unavailable": executable file not found in $PATH: unknown`, cerrdefs.ErrInternal, false},
		{"start", "driver failed programming external connectivity on endpoint web: Bind for 0.0.0.0:80 failed: port is already allocated", cerrdefs.ErrInternal, false},
		{"create", "No such image: unavailable: error reading from server: EOF", cerrdefs.ErrNotFound, false},
		{"create", "invalid mount config: Unavailable: connection error: desc = x", cerrdefs.ErrInvalidArgument, false},
		{"create", "service unavailable: connection refused", cerrdefs.ErrInternal, false},
	} {
		t.Run(test.call+": "+test.text, func(t *testing.T) {
			t.Parallel()
			err := engineError(t.Context(), answer{test.text, test.class}, "%s container web", test.call)
			_, outermost := err.(interface{ Temporary() bool })
			assert.Equal(t, test.passing, outermost)
		})
	}
}

func TestATaskOutlivesTheEndOfContainerdWithinItsCreate(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		engine := webEngine(t, dockerexectest.Exit(0))
		task := taskAt(plainTask(), api.TaskStatePreparing)
		ctlr := controllerOn(t, engine, task)
		engine.FailNext(createRequest, dockerexectest.Refuse(http.StatusInternalServerError, "Unavailable: error reading from server: EOF"))
		status, err := exec.Do(t.Context(), task, ctlr)
		assert.Equal(t, exec.ErrTaskRetry, err)
		assert.Equal(t, api.TaskStatePreparing, status.State)
		status, err = exec.Do(t.Context(), task, ctlr)
		require.NoError(t, err)
		assert.Equal(t, api.TaskStateReady, status.State)
	})
}

// What errors are, and each cell of the table of verdicts.
func TestVerdicts(t *testing.T) {
	t.Parallel()
	status := func(status int) error { return answer{"no", errhttp.ToNative(status)} }
	for name, test := range map[string]struct {
		err                              error
		kind                             errorKind
		passing, refusal, mayMend, again bool
		stream                           streamRefusal
	}{
		"nil":                 {nil, noError, false, false, false, false, notRefused},
		"refused connection":  {syscall.ECONNREFUSED, kindUnreachable, true, false, true, true, notRefused},
		"cut short":           {io.ErrUnexpectedEOF, kindUnreachable, true, false, true, true, notRefused},
		"a dial's time-out":   {&net.OpError{Op: "dial", Err: os.ErrDeadlineExceeded}, kindUnreachable, true, false, true, true, notRefused},
		"a failed ping":       {exec.MakeTemporary(errors.New("ping the engine at x: no")), kindUnreachable, true, false, true, true, notRefused},
		"no answer":           {requestTimeoutError(time.Minute), kindTimedOut, true, false, true, true, refusedAfterAMinute},
		"no answer to a ping": {exec.MakeTemporary(errors.Wrap(requestTimeoutError(time.Minute), "ping")), kindTimedOut, true, false, true, true, refusedAfterAMinute},
		"429":                 {status(http.StatusTooManyRequests), kindOverloaded, true, false, true, true, refusedAfterAMinute},
		"502":                 {status(http.StatusBadGateway), kindOverloaded, true, false, true, true, refusedAfterAMinute},
		"503":                 {status(http.StatusServiceUnavailable), kindOverloaded, true, false, true, true, refusedAfterAMinute},
		"504":                 {status(http.StatusGatewayTimeout), kindOverloaded, true, false, true, true, refusedAfterAMinute},
		"lost containerd":     {answer{"Unavailable: error reading from server: EOF", cerrdefs.ErrInternal}, kindOverloaded, true, false, true, true, refusedAfterAMinute},
		"older engine":        {answer{"client version 1.51 is too new", cerrdefs.ErrInvalidArgument}, kindOverloaded, true, false, true, true, refusedAfterAMinute},
		"newer engine":        {answer{"client version 1.43 is too old", cerrdefs.ErrInvalidArgument}, kindOverloaded, true, false, true, true, refusedAfterAMinute},
		"409":                 {status(http.StatusConflict), kindBusy, false, false, true, true, refusedAtOnce},
		"500":                 {status(http.StatusInternalServerError), kindBusy, false, false, true, true, refusedAtOnce},
		"400":                 {status(http.StatusBadRequest), kindRefused, false, true, false, false, refusedAtOnce},
		"401":                 {status(http.StatusUnauthorized), kindRefused, false, true, false, false, refusedAtOnce},
		"403":                 {status(http.StatusForbidden), kindRefused, false, true, false, false, refusedAtOnce},
		"501":                 {status(http.StatusNotImplemented), kindRefused, false, true, false, false, refusedAtOnce},
		"404":                 {status(http.StatusNotFound), kindMissing, false, false, false, true, refusedAtOnce},
		"405":                 {status(http.StatusMethodNotAllowed), kindOtherAnswer, false, false, false, true, refusedAtOnce},
		"520":                 {status(520), kindOtherAnswer, false, false, false, true, refusedAtOnce},
		"no JSON":             {json.Unmarshal([]byte("<html>"), new(any)), kindOtherAnswer, false, false, false, true, refusedAtOnce},
		"another JSON":        {json.Unmarshal([]byte(`"x"`), new(int)), kindOtherAnswer, false, false, false, true, refusedAtOnce},
		"no right to connect": {&net.OpError{Op: "dial", Err: syscall.EACCES}, kindOther, false, false, false, true, notRefused},
		"a sentinel":          {ErrContainerDestroyed, kindOther, false, false, false, true, notRefused},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			assert.Equal(t, test.kind, classify(test.err), "classify")
			assert.Equal(t, test.stream, verdictOf(test.err).stream, "stream")
			assert.Equal(t, test.passing, isPassing(test.err), "isPassing")
			assert.Equal(t, test.refusal, isRefusal(test.err), "isRefusal")
			wrapped := engineError(t.Context(), test.err, "inspect container web")
			assert.Equal(t, test.kind, classify(wrapped), "classify, wrapped")
			assert.Equal(t, test.passing, exec.IsTemporary(wrapped), "temporary")
			assert.Equal(t, test.mayMend, mayMend(wrapped), "mayMend")
			if test.err != nil {
				assert.Equal(t, test.again, exec.IsTemporary(tryAgain(t.Context(), wrapped)), "tryAgain")
			}
		})
	}
	for kind := noError; kind <= kindOther; kind++ {
		assert.Contains(t, verdicts, kind)
	}
}

// The words that methods look for, and answers that only quote them: a command, a
// path, a user, a page. What is quoted is the user's, and decides nothing.
func TestWhatAnAnswerQuotesDecidesNothing(t *testing.T) {
	t.Parallel()
	const lost = "unavailable: error reading from server: EOF"
	quotes := map[string]string{
		"a command":                "failed to create task for container: failed to create shim task: OCI runtime create failed: runc create failed: unable to start container process: exec: \"%s\": executable file not found in $PATH: unknown",
		"a command, 20.10":         "OCI runtime create failed: container_linux.go:380: starting container process caused: exec: \"%s\": executable file not found in $PATH: unknown",
		"a command, Podman":        "runc: runc create failed: unable to start container process: exec: %s: executable file not found: OCI runtime attempted to invoke a command that was not found",
		"words in quotes":          "something is wrong with \"%s\"",
		"words behind a quote":     `something is wrong with "x\" %s"`,
		"words in single quotes":   "something is wrong with 'x's %s'",
		"two in single quotes":     "neither 'x' '%s'",
		"a quote without its end":  `something is wrong with "%s`,
		"the path of a mount":      "error while creating mount source path /mnt/%s: mkdir /mnt/%[1]s: permission denied",
		"a user":                   "unable to find user %s: no matching entries in passwd file",
		"a group":                  "unable to find group %s: no matching entries in group file",
		"an option of a volume":    "failed to mount local volume: mount x:/y, data: %s: permission denied",
		"an environment variable":  "invalid environment variable: =%s",
		"a log driver's own words": "failed to initialize logging driver: %s",
		"a page":                   "<html>%s</html>",
		"a page of many lines":     "<html>\n%s\n</html>",
	}
	missing := "bind source path does not exist: /srv/%s"
	for name, test := range map[string]struct {
		says   func(error) bool
		class  error
		answer string
		within string // the words, as somebody may quote them
	}{
		"client version too new": {func(err error) bool { return tooNewClient.matches(err) }, cerrdefs.ErrInvalidArgument,
			"client version 1.51 is too new. Maximum supported API version is 1.41", "client version 1 is too new"},
		"client version too old": {func(err error) bool { return tooOldClient.matches(err) }, cerrdefs.ErrInvalidArgument,
			"client version 1.43 is too old. Minimum supported API version is 1.44, please upgrade your client to a newer version", "client version 1 is too old"},
		"no such source of a mount": {func(err error) bool { return noSource.matches(err) }, cerrdefs.ErrInvalidArgument,
			`invalid mount config for type "bind": bind source path does not exist: /data`, "bind source path does not exist: /x"},
		"too many cores": {func(err error) bool { return tooManyCPUs.matches(err) }, cerrdefs.ErrInvalidArgument,
			"Range of CPUs is from 0.01 to 2.00, as there are only 2 CPUs available", "range of CPUs is from 0 to 1 CPUs available"},
		"a network is gone": {func(err error) bool { return networkVanished.matches(err) }, cerrdefs.ErrNotFound,
			"failed to set up container networking: network backend not found", "network backend not found"},
		"a network is gone, in Podman's words": {isNetworkVanished, cerrdefs.ErrInternal,
			"container create: unable to find network with name or ID backend: network not found", "unable to find network with name or ID x: network not found"},
		"a removal too early": {func(err error) bool { return removalTooEarly.matches(err) && isPassing(err) }, cerrdefs.ErrInternal,
			"cannot remove container 0123 as it could not be stopped: sending SIGKILL to container 0123: container state improper: stopped",
			"cannot remove container x as it could not be stopped: container state improper"},
		"removal in progress": {func(err error) bool { return removalInProgress.matches(err) }, cerrdefs.ErrConflict,
			"removal of container web is already in progress", "removal of container x is already in progress"},
		"log of a dying container": {func(err error) bool { return logOfDying.matches(err) }, cerrdefs.ErrConflict,
			"can not get logs from container which is dead or marked for removal", "can not get logs from container which is dead or marked for removal"},
		"containerd is lost": {func(err error) bool { return lostContainerd.matches(err) }, cerrdefs.ErrInternal,
			"failed to create task for container: Unavailable: error reading from server: EOF", lost},
		"containerd is lost, of 20.10": {func(err error) bool { return lostContainerd.matches(err) }, cerrdefs.ErrInternal,
			`connection error: desc = "transport: Error while dialing dial unix /x.sock: connect: connection refused": unavailable`, "connection error: desc = transport: x: unavailable"},
		"lost start": {isLostStart, cerrdefs.ErrInternal,
			"failed to create task for container: AlreadyExists: task f054: already exists", "task f054: already exists"},
		"lost start, of 20.10": {isLostStart, cerrdefs.ErrInternal, "id already in use", "id already in use"},
		"unknown container":    {IsUnknownContainer, cerrdefs.ErrNotFound, "No such container: web", "No such container: x"},
		"stopped container":    {IsStoppedContainer, cerrdefs.ErrConflict, "Container 0123 is not running", "container x is not running"},
		"name conflict":        {IsContainerCreateNameConflict, cerrdefs.ErrConflict, `Conflict. The container name "/x" is already in use`, "Conflict. The container name"},
		"network exists": {func(err error) bool { return IsNetworkExistError(err, "n") }, cerrdefs.ErrConflict,
			"network with name n already exists", "network with name n already exists"},
		"active endpoint": {IsActiveEndpointError, cerrdefs.ErrPermissionDenied, "network n has active endpoints", "n has active endpoints"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			assert.True(t, test.says(answer{test.answer, test.class}), test.answer)
			assert.True(t, test.says(errors.Wrap(answer{test.answer, test.class}, "start container x")), test.answer)
			for what, quote := range quotes {
				err := answer{fmt.Sprintf(quote, test.within), test.class}
				assert.False(t, test.says(err), "%s: %s", what, err)
				assert.False(t, test.says(errors.Wrap(err, "start container x")), "%s: %s", what, err)
			}
			err := answer{fmt.Sprintf(missing, test.within), test.class}
			assert.Equal(t, name == "no such source of a mount", test.says(err), err)
		})
	}
}

// Where an engine's answer begins with its words, others may repeat them at any place.
func TestAnAnswerBeginsWithItsWords(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		says  classifier
		words string
		class error
	}{
		{tooNewClient, "client version 1.51 is too new", cerrdefs.ErrInvalidArgument},
		{noSource, "bind source path does not exist: /x", cerrdefs.ErrInvalidArgument},
		{tooManyCPUs, "range of CPUs is from 0.01 to 2.00, as there are only 2 CPUs available", cerrdefs.ErrInvalidArgument},
		{networkVanished, "network x not found", cerrdefs.ErrNotFound},
		{removalInProgress, "removal of container x is already in progress", cerrdefs.ErrConflict},
		{logOfDying, "can not get logs from container which is dead or marked for removal", cerrdefs.ErrConflict},
	} {
		assert.True(t, test.says.matches(answer{test.words, test.class}), test.words)
		assert.False(t, test.says.matches(answer{"invalid host name: " + test.words, test.class}), test.words)
	}
}

// Where all engines give an answer the same class, words of another class are not it.
func TestWordsOfAnotherClassAreAnotherAnswer(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		says  classifier
		text  string
		class error
	}{
		{tooNewClient, "client version 1.51 is too new", cerrdefs.ErrInternal},
		{tooOldClient, "client version 1.43 is too old", cerrdefs.ErrInternal},
		{noSource, "bind source path does not exist: /x", cerrdefs.ErrInternal},
		{tooManyCPUs, "range of CPUs is from 0.01 to 2.00, as there are only 2 CPUs available", cerrdefs.ErrInternal},
		{networkVanished, "network x not found", cerrdefs.ErrInternal},
		{removalInProgress, "removal of container x is already in progress", cerrdefs.ErrInternal},
		{logOfDying, "can not get logs from container which is dead or marked for removal", cerrdefs.ErrInternal},
		{lostContainerd, "transport is closing: unavailable", cerrdefs.ErrInvalidArgument},
		{lostStart, "id already in use", cerrdefs.ErrInvalidArgument},
	} {
		assert.False(t, test.says.matches(answer{test.text, test.class}), test.text)
	}
}

// A driver, a volume or an image may be called network.
func TestTheNameOfAnotherObjectIsNoNetwork(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		`plugin "network" not found`,
		`error looking up volume plugin network: plugin "x" not found`,
		"No such image: network:not found",
	} {
		assert.False(t, networkVanished.matches(answer{text, cerrdefs.ErrNotFound}), text)
	}
}

// A task whose start is refused for a command that quotes an engine's words fails;
// it must not be tried again for ever.
func TestARefusedStartWhoseCommandQuotesAnEngineIsFinal(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		engine := webEngine(t, dockerexectest.Exit(0))
		task := taskAt(plainTask(), api.TaskStateStarting)
		ctlr := controllerOn(t, engine, task)
		require.NoError(t, ctlr.Prepare(t.Context()))
		engine.FailNext(startRequest, dockerexectest.Refuse(http.StatusBadRequest, `failed to create task for container: failed to create shim task: OCI runtime create failed: runc create failed: unable to start container process: exec: "client version 1 is too new": executable file not found in $PATH: unknown`))
		status, err := exec.Do(t.Context(), task, ctlr)
		require.NoError(t, err)
		assert.Equal(t, api.TaskStateFailed, status.State)
	})
}
