package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/network"
	"github.com/moby/swarmkit/v2/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A node is taken over from the reference. What that has made is made here by hand:
// a network without label, and containers with these names and labels. The tasks go
// on in their containers, a new task uses the network, and in the end the network
// is left, for the command of the migration page to find.
func TestEngineNodeTakesOver(t *testing.T) {
	sharesEngine(t)
	const replicas = 3
	s := newSwarm(t)
	theirs := s.makeNetwork("dockerexec-theirs", "10.219.2.0/24", nil)
	made, err := s.api.CreateNetwork(t.Context(), &api.CreateNetworkRequest{Spec: &api.NetworkSpec{
		Annotations:  api.Annotations{Name: "dockerexec-theirs"},
		DriverConfig: &api.Driver{Name: "bridge"},
		IPAM:         &api.IPAMOptions{Configs: []*api.IPAMConfig{{Subnet: "10.219.2.0/24"}}},
	}})
	require.NoError(t, err)
	spec := s.service("taken", replicas, "sleep", "1h")
	spec.Task.Networks = []*api.NetworkAttachmentConfig{{Target: made.Network.ID}}
	service := s.create(spec)
	tasks := s.awaitRunning(service, replicas)
	s.stop()
	for _, task := range tasks {
		s.remake(task, s.containers(service)[task.ID].ID)
	}
	before := s.processes(service)
	require.Len(t, before, replicas)

	begin := time.Now()
	s.start()
	s.awaitRunning(service, replicas)
	t.Logf("%d tasks run %v after the node's start", replicas, time.Since(begin).Round(time.Millisecond))
	s.update(service, func(spec *api.ServiceSpec) { spec.GetReplicated().Replicas = replicas + 1 })
	now := s.awaitRunning(service, replicas+1)
	after := s.processes(service)
	for task, p := range before {
		assert.Equal(t, p, after[task], "the same container, started once")
	}
	for _, task := range now {
		networks := s.inspect(after[task.ID].container).NetworkSettings.Networks
		require.Len(t, networks, 1)
		assert.Equal(t, theirs, networks["dockerexec-theirs"].NetworkID)
	}
	require.Len(t, s.tasks.History(service), replicas+1)
	require.Empty(t, s.ended(service))

	// The node waits for what it did not make, too.
	for _, p := range before {
		require.NoError(t, s.engine.ContainerKill(t.Context(), p.container, "KILL"))
	}
	s.await(service, "the ends of those taken over", func([]*api.Task) bool { return len(s.ended(service)) == replicas })
	for _, task := range s.ended(service) {
		assert.Contains(t, before, task.ID)
		assert.EqualValues(t, 137, task.Status.GetContainer().ExitCode, describe(task))
	}

	s.attach("dockerexec-theirs-running", "10.219.3.0/24", true)
	s.attach("dockerexec-theirs-created", "10.219.4.0/24", false)
	s.makeNetwork("dockerexec-labelled", "10.219.5.0/24", map[string]string{"com.dockerexec.network": ""})
	s.makeNetwork("dockerexec-marked", "10.219.6.0/24", map[string]string{"com.example.mark": "yes"})
	assert.Empty(t, leftNetworks(t), "listed while the service is there")
	s.remove(service)
	answer, err := s.engine.NetworkInspect(t.Context(), "dockerexec-theirs", network.InspectOptions{})
	require.NoError(t, err)
	assert.Equal(t, theirs, answer.ID)
	assert.Empty(t, answer.Containers)
	left := leftNetworks(t)
	assert.Equal(t, []string{"dockerexec-theirs"}, left)
	t.Logf("%d containers taken over; the migration page's command lists %v", len(before), left)
}

// makeNetwork makes a network and returns its ID; the test's end removes it.
func (s *swarm) makeNetwork(name, subnet string, labels map[string]string) string {
	s.t.Helper()
	answer, err := s.engine.NetworkCreate(s.t.Context(), name, network.CreateOptions{
		Driver: "bridge", Labels: labels, IPAM: &network.IPAM{Config: []network.IPAMConfig{{Subnet: subnet}}},
	})
	require.NoError(s.t, err)
	s.t.Cleanup(func() { assert.NoError(s.t, s.engine.NetworkRemove(context.Background(), answer.ID)) })
	return answer.ID
}

// attach makes a network without label and a container in it.
func (s *swarm) attach(name, subnet string, start bool) {
	s.t.Helper()
	s.makeNetwork(name, subnet, nil)
	answer, err := s.engine.ContainerCreate(s.t.Context(), &container.Config{Image: fromHarness(s.t, "DOCKEREXEC_TEST_IMAGE"), Cmd: []string{"sleep", "1h"}},
		nil, &network.NetworkingConfig{EndpointsConfig: map[string]*network.EndpointSettings{name: {}}}, nil, name)
	require.NoError(s.t, err)
	s.t.Cleanup(func() {
		assert.NoError(s.t, s.engine.ContainerRemove(context.Background(), answer.ID, container.RemoveOptions{Force: true}))
	})
	if start {
		require.NoError(s.t, s.engine.ContainerStart(s.t.Context(), answer.ID, container.StartOptions{}))
	}
}

// remake puts a container of the reference's in the place of a task's, and sees
// that the two have the same name and labels.
func (s *swarm) remake(task *api.Task, id string) {
	s.t.Helper()
	name := fmt.Sprintf("taken.%d.%s", task.Slot, task.ID)
	labels := map[string]string{
		"com.docker.swarm.task":         "",
		"com.docker.swarm.task.id":      task.ID,
		"com.docker.swarm.task.name":    name,
		"com.docker.swarm.node.id":      task.NodeID,
		"com.docker.swarm.service.id":   task.ServiceID,
		"com.docker.swarm.service.name": "taken",
	}
	ours := s.inspect(id)
	require.Equal(s.t, "/"+name, ours.Name)
	require.Equal(s.t, labels, ours.Config.Labels)
	require.NoError(s.t, s.engine.ContainerRemove(s.t.Context(), id, container.RemoveOptions{Force: true}))
	answer, err := s.engine.ContainerCreate(s.t.Context(),
		&container.Config{Image: task.Spec.GetContainer().Image, Cmd: task.Spec.GetContainer().Args, Labels: labels}, nil,
		&network.NetworkingConfig{EndpointsConfig: map[string]*network.EndpointSettings{"dockerexec-theirs": {}}}, nil, name)
	require.NoError(s.t, err)
	require.NoError(s.t, s.engine.ContainerStart(s.t.Context(), answer.ID, container.StartOptions{}))
}

// leftNetworks runs the migration page's command and returns what it lists of the
// test's networks and the engine's own.
func leftNetworks(t testing.TB) []string {
	t.Helper()
	page, err := os.ReadFile("../../docs/migration.md")
	require.NoError(t, err)
	commands := regexp.MustCompile("(?s)```sh\n(.*?)```").FindAllStringSubmatch(string(page), -1)
	require.Len(t, commands, 1)
	require.Contains(t, commands[0][1], "docker network ls")
	command := exec.Command("sh", "-euc", commands[0][1])
	command.Env = append(os.Environ(), "DOCKER_HOST="+fromHarness(t, "DOCKEREXEC_TEST_HOST"))
	out, err := command.Output()
	require.NoError(t, err)
	own := []string{"bridge", "host", "none"}
	return slices.DeleteFunc(strings.Fields(string(out)), func(name string) bool {
		return !strings.HasPrefix(name, "dockerexec-") && !slices.Contains(own, name)
	})
}
