package main

import (
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/moby/swarmkit/v2/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A proxy forbids each request that is not needed. The node is described, and gets
// tasks that need its resources. These run, are seen to end, and are removed.
func TestEngineNodeBehindAProxyThatForbidsRequests(t *testing.T) {
	sharesEngine(t)
	const replicas = 3
	proxy := newEngineProxy(t)
	proxy.forbid(
		call{method: http.MethodHead, path: "_ping"}, call{method: http.MethodGet, path: "_ping"},
		call{method: http.MethodGet, path: "plugins"}, call{method: http.MethodGet, path: "events"},
		call{method: http.MethodGet, path: "networks"}, call{method: http.MethodGet, path: "images"},
		call{method: http.MethodGet, path: "containers/json"},
	)
	s := newSwarm(t, "-host", proxy.host)
	network, err := s.api.CreateNetwork(t.Context(), &api.CreateNetworkRequest{Spec: &api.NetworkSpec{
		Annotations:  api.Annotations{Name: "dockerexec-forbidden"},
		DriverConfig: &api.Driver{Name: "bridge"},
		IPAM:         &api.IPAMOptions{Configs: []*api.IPAMConfig{{Subnet: "10.219.7.0/24"}}},
	}})
	require.NoError(t, err)
	spec := s.service("reserves", replicas, "sleep", "1h")
	spec.Task.Networks = []*api.NetworkAttachmentConfig{{Target: network.Network.ID}}
	spec.Task.Resources = &api.ResourceRequirements{Reservations: &api.Resources{MemoryBytes: 8 << 20}}
	service := s.create(spec)
	s.awaitRunning(service, replicas)

	for _, p := range s.processes(service) {
		require.NoError(t, s.engine.ContainerKill(t.Context(), p.container, "KILL"))
	}
	s.await(service, "the ends", func([]*api.Task) bool { return len(s.ended(service)) == replicas })
	for _, task := range s.ended(service) {
		assert.EqualValues(t, 137, task.Status.GetContainer().ExitCode, describe(task))
	}
	s.awaitRunning(service, replicas)

	node, err := s.api.GetNode(t.Context(), &api.GetNodeRequest{NodeID: s.nodeID})
	require.NoError(t, err)
	assert.Positive(t, node.Node.Description.Resources.MemoryBytes)
	log, err := os.ReadFile(s.log)
	require.NoError(t, err)
	for _, request := range []string{"GET /_ping", "GET /plugins"} {
		assert.Equal(t, 1, strings.Count(string(log), "refuses "+request+";"), request)
	}
	assert.Equal(t, 1, strings.Count(string(log), "event stream refused"))
	s.remove(service)
}
