package dockerexec

import (
	"context"
	"encoding/json"
	stderrors "errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"strings"
	"syscall"
	"testing"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	engineapi "github.com/docker/docker/client"
	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/pkg/errors"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// answer is an error as the client makes it of an engine's answer: a text and a
// class that are told apart.
type answer struct {
	text  string
	class error
}

func (a answer) Error() string        { return "Error response from daemon: " + a.text }
func (a answer) Is(target error) bool { return target == a.class }

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
		{"unknown container, podman", answer{`no container with name or ID "x" found: no such container`, cerrdefs.ErrNotFound}, unknownContainer},
		{"name taken, podman", answer{`creating container storage: the container name "x" is already in use by 0123. You have to remove that container to be able to reuse that name: that name is already in use`, cerrdefs.ErrInternal}, nameConflict},
		{"network exists, podman", answer{"network name n already used: network already exists", cerrdefs.ErrConflict}, networkExist},
		{"network in use, podman", answer{`"n" has associated containers with it. Use -f to forcefully delete containers and pods: network is being used`, cerrdefs.ErrConflict}, activeEndpoint},
		{"kill stopped, podman", answer{"can only kill running containers. 0123 is in state exited: container state improper", cerrdefs.ErrConflict}, stoppedContainer},
		{"unknown container, other words", errors.New(`container "x" not found`), unknownContainer},
		{"name taken, other words", errors.New("container x already exists"), nameConflict},
		{"network exists, other words", errors.New(`network "n" already exists`), networkExist},

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
		{"bare, about a network", errors.Wrap(cerrdefs.ErrNotFound, "remove network n"), none},
		{"volume conflict", answer{"create V: driver 'local' already has volume 'V': volume name must be unique", cerrdefs.ErrConflict}, none},
		{"other network exists", answer{"network with name nn already exists", cerrdefs.ErrConflict}, none},
		{"predefined network", answer{"bridge is a pre-defined network and cannot be removed", cerrdefs.ErrPermissionDenied}, none},
		{"removal in progress", answer{"removal of container x is already in progress", cerrdefs.ErrConflict}, none},
		{"remove of a running container", answer{`cannot remove container "x": container is running: stop the container before removing or force remove`, cerrdefs.ErrConflict}, none},
		{"no such program", answer{`failed to create task for container: failed to create shim task: OCI runtime create failed: runc create failed: unable to start container process: exec: "foo": executable file not found in $PATH: unknown`, cerrdefs.ErrInvalidArgument}, none},
		{"no such program, 20.10", answer{`OCI runtime create failed: container_linux.go:380: starting container process caused: exec: "foo": executable file not found in $PATH: unknown`, cerrdefs.ErrInvalidArgument}, none},
		{"no such runtime", answer{"unknown or invalid runtime name: container runtime kata not found", cerrdefs.ErrInvalidArgument}, none},
		{"the runtime's own conflict", answer{"runc create failed: container with given ID already exists: unknown", cerrdefs.ErrInternal}, none},
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

func TestExitError(t *testing.T) {
	t.Parallel()
	ended := func(code int, message string) container.InspectResponse {
		return container.InspectResponse{ContainerJSONBase: &container.ContainerJSONBase{
			State: &container.State{Status: container.StateExited, ExitCode: code, Error: message}}}
	}
	require.NoError(t, ExitError(ended(0, ""), nil))

	err := ExitError(ended(3, ""), nil)
	require.EqualError(t, err, "task: non-zero exit (3)")
	coder, ok := err.(exec.ExitCoder) // as the agent does: nothing may be wrapped around it
	require.True(t, ok)
	assert.Equal(t, 3, coder.ExitCode())

	err = errors.Wrap(ExitError(ended(137, ""), ErrContainerUnhealthy), "web")
	require.EqualError(t, err, "web: task: non-zero exit (137): dockerexec: unhealthy container")
	assert.ErrorIs(t, err, ErrContainerUnhealthy)
	assert.Equal(t, ErrContainerUnhealthy, errors.Cause(err))
	require.ErrorAs(t, err, &coder)
	assert.Equal(t, 137, coder.ExitCode())

	require.EqualError(t, ExitError(ended(0, ""), ErrContainerUnhealthy), "task: non-zero exit (0): dockerexec: unhealthy container")
	require.EqualError(t, ExitError(ended(127, "no such file"), nil), "task: non-zero exit (127): no such file")
	require.EqualError(t, ExitError(container.InspectResponse{}, nil), "dockerexec: the engine's answer about the container has no state")
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
