package dockerexec

import (
	"testing"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/moby/swarmkit/v2/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

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
			err := engineError(t.Context(), simError{test.text, test.class}, "%s container web", test.call)
			_, outermost := err.(interface{ Temporary() bool })
			assert.Equal(t, test.passing, outermost)
		})
	}
}

func TestATaskOutlivesTheEndOfContainerdWithinItsCreate(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		sim := newSimEngine(t)
		task := taskAt(plainTask(), api.TaskStatePreparing)
		ctlr := newSimController(t, sim, task)
		sim.fails(failing("ContainerCreate", simError{"Unavailable: error reading from server: EOF", cerrdefs.ErrInternal}))
		status, err := exec.Do(t.Context(), task, ctlr)
		assert.Equal(t, exec.ErrTaskRetry, err)
		assert.Equal(t, api.TaskStatePreparing, status.State)
		sim.fails(nil)
		status, err = exec.Do(t.Context(), task, ctlr)
		require.NoError(t, err)
		assert.Equal(t, api.TaskStateReady, status.State)
	})
}
