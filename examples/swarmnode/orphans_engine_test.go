package main

import (
	"cmp"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/network"
	"github.com/dockerexec/dockerexec"
	gogotypes "github.com/gogo/protobuf/types"
	"github.com/moby/swarmkit/v2/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A node with ten tasks is killed again and again while its tasks are being removed. What it
// leaves behind goes one grace after its last start. DOCKEREXEC_TEST_KILLS says how often the
// node is killed. From twenty on, the same is counted where nobody looks: that many kills leave
// something there, so the test can fail.
func TestEngineKilledNodeLeavesNothingBehind(t *testing.T) {
	sharesEngine(t) // or skip: what is skipped below would count as a node that leaves nothing
	const grace = 5 * time.Second
	kills, err := strconv.Atoi(cmp.Or(os.Getenv("DOCKEREXEC_TEST_KILLS"), "3"))
	require.NoError(t, err)
	if kills >= 20 { // of a few, none may come at a moment that leaves something
		ignored := leftByKills(t, kills, "10.219.9.0/24", "-orphans", "ignore")
		t.Logf("after %d kills: containers, networks and files of no task are %v with OrphansIgnore", kills, ignored)
		assert.Positive(t, ignored[0], "containers where nobody looks")
	}
	removed := leftByKills(t, kills, "10.219.10.0/24", "-orphans", "remove", "-orphan-grace", grace.String())
	assert.Equal(t, [3]int{}, removed)
}

// leftByKills returns how many containers, networks and folders of files belong to no task
// in the end.
func leftByKills(t *testing.T, kills int, subnet string, flags ...string) (left [3]int) {
	t.Run(flags[1], func(t *testing.T) {
		s := newSwarm(t, flags...)
		made, err := s.api.CreateNetwork(t.Context(), &api.CreateNetworkRequest{Spec: &api.NetworkSpec{
			Annotations:  api.Annotations{Name: "dockerexec-orphans-" + flags[1]},
			DriverConfig: &api.Driver{Name: "bridge"},
			IPAM:         &api.IPAMOptions{Configs: []*api.IPAMConfig{{Subnet: subnet}}},
		}})
		require.NoError(t, err)
		secret, err := s.api.CreateSecret(t.Context(), &api.CreateSecretRequest{Spec: &api.SecretSpec{
			Annotations: api.Annotations{Name: "orphans"}, Data: []byte("payload"),
		}})
		require.NoError(t, err)
		steady := s.create(s.service("steady", 1, "sleep", "1h"))
		steadily := ids(s.containersOf(steady, 1))
		bystander := s.bystander()

		spec := s.service("victims", 10, "ignore-term") // so that each stop takes its grace period
		spec.Task.Networks = []*api.NetworkAttachmentConfig{{Target: made.Network.ID}}
		spec.Task.GetContainer().StopGracePeriod = gogotypes.DurationProto(2 * time.Second)
		spec.Task.GetContainer().Secrets = []*api.SecretReference{{SecretID: secret.Secret.ID, SecretName: "orphans",
			Target: &api.SecretReference_File{File: &api.FileTarget{Name: "orphans", UID: "0", GID: "0", Mode: 0o400}}}}
		spec.Update = &api.UpdateConfig{Parallelism: 5, Monitor: gogotypes.DurationProto(100 * time.Millisecond)}
		victims := s.create(spec)
		for kill := range kills {
			s.awaitRunning(victims, 10)
			switch kill % 3 {
			case 0: // twice, so that the swarm forgets tasks that still run
				s.update(victims, func(spec *api.ServiceSpec) { spec.GetReplicated().Replicas = 6 })
				s.update(victims, func(spec *api.ServiceSpec) { spec.GetReplicated().Replicas = 2 })
			case 1:
				s.removeOnly(victims)
			case 2:
				s.update(victims, func(spec *api.ServiceSpec) { spec.Task.ForceUpdate++ })
			}
			time.Sleep(rand.N(4 * time.Second))
			s.kill()
			s.start()
			if kill%3 == 1 {
				victims = s.create(spec)
			} else {
				s.update(victims, func(spec *api.ServiceSpec) { spec.GetReplicated().Replicas = 10 })
			}
		}
		s.awaitRunning(victims, 10)
		s.removeOnly(victims)
		s.await(victims, "no task", noTasks)
		// The agent causes a look every 20 seconds: one that sees them, and one a grace later.
		for late := time.Now().Add(90 * time.Second); ; time.Sleep(200 * time.Millisecond) {
			left = s.left()
			if left == [3]int{} || time.Now().After(late) {
				break
			}
		}
		assert.Equal(t, steadily, ids(s.containers(steady)), "a task that runs")
		assert.True(t, s.runs(bystander), "a container of another node")
		require.NoError(t, s.engine.ContainerRemove(t.Context(), bystander, container.RemoveOptions{Force: true}))
		s.remove(steady)
		if left[0] > 0 { // for the tests after this one
			s.sweep()
		}
		for name := range s.networks() {
			if !s.removeNetwork(name) && left[1] > 0 {
				left[1]-- // nobody can remove it
			}
		}
		if left != [3]int{} {
			for _, folder := range folders(t) {
				require.NoError(t, os.RemoveAll(folder))
			}
		}
	})
	return left
}

// containersOf waits until a service has as many running tasks, and returns their containers.
func (s *swarm) containersOf(service string, want int) map[string]container.Summary {
	s.t.Helper()
	s.awaitRunning(service, want)
	return s.containers(service)
}

// bystander is a container that looks like one of a task, but of another node.
func (s *swarm) bystander() string {
	s.t.Helper()
	const task = "anothertaskofanothernode1"
	made, err := s.engine.ContainerCreate(s.t.Context(), &container.Config{
		Image: fromHarness(s.t, "DOCKEREXEC_TEST_IMAGE"), Cmd: []string{"sleep", "1h"},
		Labels: map[string]string{"com.docker.swarm.node.id": "anothernode", "com.docker.swarm.task.id": task},
	}, nil, nil, nil, "web.1."+task)
	require.NoError(s.t, err)
	require.NoError(s.t, s.engine.ContainerStart(s.t.Context(), made.ID, container.StartOptions{}))
	return made.ID
}

func (s *swarm) runs(id string) bool {
	s.t.Helper()
	answer, err := s.engine.ContainerInspect(s.t.Context(), id)
	return err == nil && answer.State.Running
}

// left counts the containers of this node whose task the swarm does not list, the networks
// of its executor that no container has, and the folders of files of such tasks.
func (s *swarm) left() (left [3]int) {
	s.t.Helper()
	answer, err := s.api.ListTasks(s.t.Context(), &api.ListTasksRequest{})
	require.NoError(s.t, err)
	known := map[string]bool{}
	for _, task := range answer.Tasks {
		known[task.ID] = true
	}
	list, err := s.engine.ContainerList(s.t.Context(), container.ListOptions{All: true, Filters: ofTasks()})
	require.NoError(s.t, err)
	used := map[string]bool{}
	for _, c := range list {
		for name := range c.NetworkSettings.Networks {
			used[name] = true
		}
		if c.Labels["com.docker.swarm.node.id"] == s.nodeID && !known[c.Labels["com.docker.swarm.task.id"]] {
			left[0]++
		}
	}
	for name, endpoints := range s.networks() {
		if !used[name] && len(endpoints) == 0 {
			left[1]++
		}
	}
	for _, folder := range folders(s.t) {
		if !known[filepath.Base(folder)] {
			left[2]++
		}
	}
	return left
}

// networks are those that the executor has made, each with the containers that the engine
// counts as its users, by their IDs.
func (s *swarm) networks() map[string]map[string]network.EndpointResource {
	s.t.Helper()
	users := map[string]map[string]network.EndpointResource{}
	for _, n := range s.networksMade() {
		if answer, err := s.engine.NetworkInspect(s.t.Context(), n.ID, network.InspectOptions{}); err == nil {
			users[n.Name] = answer.Containers
		}
	}
	return users
}

// usedBy finds the name of a container in an engine's refusal to remove a network.
var usedBy = regexp.MustCompile(`has active endpoints \(name:"([^"]+)"`)

// removeNetwork removes a network that the test has left. An engine may count a container
// that is gone as a user of the network, if a client was killed that had asked for the
// container's removal. It then refuses to remove the network, until the container is
// disconnected by force. Engine 20.10 may also refuse for a user that it does not list. Then
// the network stays, and removeNetwork returns false.
func (s *swarm) removeNetwork(name string) (removed bool) {
	s.t.Helper()
	var err error
	var gone []string
	for range 20 {
		gone = nil
		for _, endpoint := range s.networks()[name] {
			gone = append(gone, endpoint.Name)
		}
		if err = s.engine.NetworkRemove(s.t.Context(), name); err == nil {
			return true
		}
		if found := usedBy.FindStringSubmatch(err.Error()); found != nil {
			gone = append(gone, found[1])
		}
		if len(gone) == 0 { // a container was removed a moment ago
			time.Sleep(500 * time.Millisecond)
		}
		for _, user := range gone {
			s.t.Logf("the engine counts %s as a user of network %s, and it is gone", user, name)
			require.NoError(s.t, s.engine.NetworkDisconnect(s.t.Context(), name, user, true))
		}
	}
	if len(gone) > 0 || !dockerexec.IsActiveEndpointError(err) {
		s.t.Fatalf("network %s cannot be removed: %v", name, err)
	}
	s.t.Logf("network %s stays: the engine refuses to remove it for a user that it does not list: %v", name, err)
	return false
}

// folders are those of the files of tasks on this engine. A file in each names the engine.
func folders(t testing.TB) (found []string) {
	t.Helper()
	notes, err := filepath.Glob("/run/dockerexec/secrets/*/*/engine")
	require.NoError(t, err)
	for _, note := range notes {
		text, _ := os.ReadFile(note) // an error: it is gone
		if strings.HasPrefix(string(text), fromHarness(t, "DOCKEREXEC_TEST_HOST")+" ") {
			found = append(found, filepath.Dir(note))
		}
	}
	return found
}
