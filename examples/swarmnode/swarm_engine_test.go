package main

import (
	"net/netip"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/network"
	"github.com/moby/swarmkit/v2/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A second node joins the swarm and takes its share of the tasks.
func TestEngineNodeJoins(t *testing.T) {
	sharesEngine(t)
	s := newSwarm(t)
	list, err := s.api.ListClusters(t.Context(), &api.ListClustersRequest{})
	require.NoError(t, err)
	manager, err := s.api.ListNodes(t.Context(), &api.ListNodesRequest{})
	require.NoError(t, err)
	require.Len(t, manager.Nodes, 1)
	flags := []string{"-state-dir", filepath.Join(s.dir, "worker"), "-control", filepath.Join(s.dir, "worker-control"),
		"-listen", freeAddress(t), "-hostname", "worker", "-host", fromHarness(t, "DOCKEREXEC_TEST_HOST"),
		"-join", manager.Nodes[0].ManagerStatus.Addr, "-token", list.Clusters[0].RootCA.JoinTokens.Worker}
	worker, ready := s.launch(flags...)
	defer func() {
		require.NoError(t, worker.Process.Signal(syscall.SIGTERM))
		require.NoError(t, worker.Wait())
	}()
	require.Regexp(t, `^node \w{25} is ready\n$`, ready)

	service := s.create(s.service("shared", 4, "sleep", "1h"))
	byNode := map[string]int{}
	for _, task := range s.awaitRunning(service, 4) {
		byNode[task.NodeID]++
	}
	assert.Equal(t, map[string]int{manager.Nodes[0].ID: 2, ready[len("node "):][:25]: 2}, byNode)
	s.remove(service)
}

// A service is attached to a network of the engine's own, which is there as long as
// its tasks are.
func TestEngineNodeNetworks(t *testing.T) {
	sharesEngine(t)
	s := newSwarm(t)
	answer, err := s.api.CreateNetwork(t.Context(), &api.CreateNetworkRequest{Spec: &api.NetworkSpec{
		Annotations: api.Annotations{Name: "backend"},
		IPAM:        &api.IPAMOptions{Configs: []*api.IPAMConfig{{Subnet: "10.77.0.0/24"}}},
	}})
	require.NoError(t, err)
	spec := s.service("networked", 2, "sleep", "1h")
	spec.Task.Networks = []*api.NetworkAttachmentConfig{{Target: answer.Network.ID}}
	service := s.create(spec)
	s.awaitRunning(service, 2)
	for _, c := range s.containers(service) {
		endpoint := c.NetworkSettings.Networks["backend"]
		require.NotNil(t, endpoint, c.NetworkSettings.Networks)
		assert.True(t, netip.MustParsePrefix("10.77.0.0/24").Contains(netip.MustParseAddr(endpoint.IPAddress)), endpoint.IPAddress)
		assert.Len(t, c.NetworkSettings.Networks, 1)
	}
	s.remove(service)
	require.Eventually(t, func() bool { // after the last container
		list, err := s.engine.NetworkList(t.Context(), network.ListOptions{Filters: filters.NewArgs(filters.Arg("name", "backend"))})
		return err == nil && len(list) == 0
	}, patience, 20*time.Millisecond)

	_, err = s.api.CreateNetwork(t.Context(), &api.CreateNetworkRequest{Spec: &api.NetworkSpec{
		Annotations: api.Annotations{Name: "far"}, DriverConfig: &api.Driver{Name: "overlay"},
	}})
	require.ErrorContains(t, err, "overlay networks need nodes that share keys and addresses")
}
