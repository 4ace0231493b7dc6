package dockerexec

import (
	"context"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/go-connections/nat"
	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/moby/swarmkit/v2/api"
	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func host(protocol api.PortConfig_Protocol, target, published uint32) *api.PortConfig {
	return &api.PortConfig{Protocol: protocol, TargetPort: target, PublishedPort: published, PublishMode: api.PublishModeHost}
}

// publish gives a container on the engine published ports.
func publish(sim *simEngine, ports nat.PortMap) {
	sim.with(taskName, func(c *simContainer) { c.ports.Ports = ports })
}

func TestPublishedPorts(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name  string
		ports nat.PortMap
		want  []*api.PortConfig
	}{
		{"none", nil, nil},
		{"sorted", nat.PortMap{
			"9000/tcp": {{HostIP: "0.0.0.0", HostPort: "9001"}, {HostIP: "0.0.0.0", HostPort: "9000"}},
			"80/udp":   {{HostPort: "8081"}},
			"80/tcp":   {{HostPort: "8080"}},
			"443/sctp": {{HostPort: "32768"}},
		}, []*api.PortConfig{
			host(api.ProtocolTCP, 80, 8080), host(api.ProtocolUDP, 80, 8081), host(api.ProtocolSCTP, 443, 32768),
			host(api.ProtocolTCP, 9000, 9000), host(api.ProtocolTCP, 9000, 9001),
		}},
		{"both address families", nat.PortMap{"80/tcp": {{HostIP: "0.0.0.0", HostPort: "8080"}, {HostIP: "::", HostPort: "8080"}}},
			[]*api.PortConfig{host(api.ProtocolTCP, 80, 8080)}},
		{"families with ports of their own", nat.PortMap{"80/tcp": {{HostIP: "::", HostPort: "8081"}, {HostIP: "0.0.0.0", HostPort: "8080"}}},
			[]*api.PortConfig{host(api.ProtocolTCP, 80, 8080), host(api.ProtocolTCP, 80, 8081)}},
		{"not published", nat.PortMap{"80/tcp": nil, "81/tcp": {{HostIP: "0.0.0.0"}}, "82/tcp": {{HostPort: "82"}}},
			[]*api.PortConfig{host(api.ProtocolTCP, 82, 82)}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			sim := newSimEngine(t)
			ctlr := newSimController(t, sim, plainTask())
			require.NoError(t, ctlr.Prepare(t.Context()))
			publish(sim, test.ports)
			for range 20 {
				status, err := ctlr.PortStatus(t.Context())
				require.NoError(t, err)
				require.Equal(t, &api.PortStatus{Ports: test.want}, status)
			}
		})
	}
}

func TestStatusOfAContainerThatIsNotThere(t *testing.T) {
	t.Parallel()
	ctlr := newSimController(t, newSimEngine(t), plainTask())
	status, err := ctlr.ContainerStatus(t.Context())
	require.NoError(t, err)
	assert.Nil(t, status)
	ports, err := ctlr.PortStatus(t.Context())
	require.NoError(t, err)
	assert.Nil(t, ports)
}

// The inspect of one serves the other, but only at once, and only as long
// as nothing was done in between.
func TestOneInspectServesBothStatuses(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		ctx := t.Context()
		sim := newSimEngine(t)
		ctlr, _ := runningTask(t, sim, plainTask())
		inspects := func() int {
			n := 0
			for _, call := range sim.called() {
				if strings.HasPrefix(call, "ContainerInspect") {
					n++
				}
			}
			return n
		}
		for _, test := range []struct {
			between func()
			want    int
		}{
			{func() {}, 1},
			{func() { time.Sleep(2 * time.Second) }, 2},
			{func() { assert.Equal(t, exec.ErrTaskStarted, ctlr.Start(ctx)) }, 3}, // its own, too
			{func() { require.NoError(t, ctlr.Shutdown(ctx)) }, 2},
		} {
			sim.forgetCalls()
			_, err := ctlr.ContainerStatus(ctx)
			require.NoError(t, err)
			test.between()
			_, err = ctlr.PortStatus(ctx)
			require.NoError(t, err)
			assert.Equal(t, test.want, inspects())
			_, err = ctlr.PortStatus(ctx)
			require.NoError(t, err)
			assert.Equal(t, test.want+1, inspects()) // once
		}
	})
}

// The agent reports what PortStatus returns, also beside an error. An update of
// the task, which cancels the Wait, must not take its ports away.
func TestPortsOutliveAnInterruption(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		sim := newSimEngine(t)
		ctlr, task := runningTask(t, sim, plainTask())
		publish(sim, nat.PortMap{"80/tcp": {{HostPort: "8080"}}})
		want := &api.PortStatus{Ports: []*api.PortConfig{host(api.ProtocolTCP, 80, 8080)}}
		ports, err := ctlr.PortStatus(t.Context())
		require.NoError(t, err)
		require.Equal(t, want, ports)

		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		status, err := exec.Do(ctx, task, ctlr)
		assert.Equal(t, exec.ErrTaskRetry, err)
		assert.Equal(t, want, status.PortStatus)
		assert.Equal(t, task.Status.GetContainer(), status.GetContainer())

		ports.Ports = nil // what is handed out is the caller's
		sim.fails(func(string) error { return errAway })
		lctx, lines := logged(t)
		ports, err = ctlr.PortStatus(lctx)
		require.NoError(t, err)
		assert.Equal(t, want, ports)
		container, err := ctlr.ContainerStatus(lctx)
		require.NoError(t, err)
		assert.Nil(t, container)
		assert.Empty(t, lines(logrus.InfoLevel))

		sim.fails(nil)
		sim.exit(taskName, 0)
		ports, err = ctlr.PortStatus(t.Context())
		require.NoError(t, err)
		assert.Equal(t, &api.PortStatus{}, ports)
	})
}

// A code beyond 31 bits is the same number in the text and in the error.
func TestLargeExitCodes(t *testing.T) {
	t.Parallel()
	code := uint64(3221225477)
	if code > math.MaxInt {
		t.Skip("the client's type has no room for such a code here")
	}
	err := ExitError(container.InspectResponse{ContainerJSONBase: &container.ContainerJSONBase{ID: "c0",
		State: &container.State{Status: container.StateExited, ExitCode: int(code)}}}, nil)
	require.EqualError(t, err, "task: non-zero exit (3221225477)")
	assert.EqualValues(t, code, err.(exec.ExitCoder).ExitCode())
}

func TestExitErrorHasTheStatus(t *testing.T) {
	t.Parallel()
	err := ExitError(container.InspectResponse{ContainerJSONBase: &container.ContainerJSONBase{ID: "c0",
		State: &container.State{Status: container.StateExited, ExitCode: 3}}}, nil)
	for range 2 {
		status, statusErr := err.(exec.ContainerStatuser).ContainerStatus(t.Context())
		require.NoError(t, statusErr)
		require.Equal(t, &api.ContainerStatus{ContainerID: "c0", ExitCode: 3}, status)
		status.ExitCode = 99 // what is handed out is the caller's
	}
}
