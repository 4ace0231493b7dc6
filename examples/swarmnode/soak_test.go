package main

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/volume"
	gogotypes "github.com/gogo/protobuf/types"
	"github.com/moby/swarmkit/v2/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// TestSoak has a node live through random scaling, updates, removals, and ends of
// containers, engine and node, for as long as SWARMNODE_TEST_SOAK says; hack/soak.sh
// runs it. SWARMNODE_TEST_SEED repeats the choices of an earlier run, though not
// their timing.
//
// It goes in three parts: a sixth of the time without ends of the node, so that all
// that it does once is done, then half of the time with them, then a third without,
// so that one process has lived for long enough to be measured. After each the
// engine must hold what SwarmKit says, and after the first and the last the same
// services are made anew and the node is measured.
func TestSoak(t *testing.T) {
	length := os.Getenv("SWARMNODE_TEST_SOAK")
	if length == "" {
		t.Skip("SWARMNODE_TEST_SOAK is not set: `make soak` sets it")
	}
	whole, err := time.ParseDuration(length)
	require.NoError(t, err)
	seed := uint64(time.Now().UnixNano())
	if text := os.Getenv("SWARMNODE_TEST_SEED"); text != "" {
		seed, err = strconv.ParseUint(text, 10, 64)
		require.NoError(t, err)
	}
	t.Logf("SOAK_SEED=%d", seed)

	k := newSoak(t, seed)
	k.begin()
	k.endNode() // both measures are of a process that took over from another
	k.part("without ends of the node", whole/6, false)
	before := k.measuresOfTheSame()
	profile := k.ask("/profile?of=goroutine")
	k.part("with ends of the node", whole/2, true)
	k.part("without ends of the node", whole/3, false)
	after := k.measuresOfTheSame()

	growth := 100 * (float64(after.Heap)/float64(before.Heap) - 1)
	t.Logf("early: %v", before)
	t.Logf("late:  %v (heap %+.1f %%)", after, growth)
	assert.Less(t, growth, 5.0)
	// One more connection to the engine and one more of SwarmKit's to itself, which
	// has two ends and five goroutines, may be open at the one time and not at the other.
	allowed := before
	allowed.Goroutines, allowed.Descriptors, allowed.Connections = before.Goroutines+8, before.Descriptors+3, before.Connections+3
	assert.True(t, after.within(allowed), "more in use than before and a little; goroutines before:\n%s", profile)
	k.end()
}

// soak is a swarm that things happen to, and what is known of them.
type soak struct {
	*swarm
	random   *rand.Rand
	services map[string]string // IDs by name
	ever     []string          // IDs of all, removed ones too
	network  string
	done     map[string]int    // how often each thing was done
	hit      map[string]string // what was done to tasks from outside, by their IDs
	orphans  map[string]bool   // containers that an end of the node may have left, see startNode
	left     int
}

var soakNames = []string{"sleeps", "writes", "checked", "networked", "jobs"}

func newSoak(t *testing.T, seed uint64) *soak {
	fromHarness(t, "DOCKEREXEC_TEST_ENGINE") // a private one: all tasks and volumes of it are taken for the soak's
	s := newMeasuredSwarm(t)
	s.keepShortLog()
	k := &soak{
		swarm: s, random: rand.New(rand.NewPCG(seed, seed)), services: map[string]string{},
		done: map[string]int{}, hit: map[string]string{}, orphans: map[string]bool{},
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("done so far: %v", k.done)
			if k.node != nil {
				t.Logf("the node's goroutines:\n%s", k.ask("/profile?of=goroutine"))
			}
		}
	})
	made, err := s.api.CreateNetwork(t.Context(), &api.CreateNetworkRequest{Spec: &api.NetworkSpec{
		Annotations:  api.Annotations{Name: "dockerexec-soak"},
		DriverConfig: &api.Driver{Name: "bridge"},
		IPAM:         &api.IPAMOptions{Configs: []*api.IPAMConfig{{Subnet: "10.219.7.0/24"}}},
	}})
	require.NoError(t, err)
	k.network = made.Network.ID
	return k
}

// spec is that of a service in its first form.
func (k *soak) spec(name string) *api.ServiceSpec {
	spec := k.service(name, 3, "sleep", "1h")
	c := spec.Task.GetContainer()
	spec.Task.Restart = &api.RestartPolicy{Condition: api.RestartOnAny, Delay: gogotypes.DurationProto(300 * time.Millisecond)}
	spec.Update = &api.UpdateConfig{Monitor: gogotypes.DurationProto(300 * time.Millisecond), FailureAction: api.UpdateConfig_CONTINUE}
	switch name {
	case "writes":
		c.Mounts = []api.Mount{{Type: api.MountTypeVolume, Source: "dockerexec-soak-{{.Task.Slot}}", Target: "/data"}}
		c.Args = []string{"write", "/data/ok", "1", "--", "sleep", "1h"}
	case "checked":
		c.Args = []string{"write", "/tmp/ok", "1", "--", "sleep", "1h"}
		c.Healthcheck = &api.HealthConfig{
			Test: []string{"CMD", "/testtask", "health", "/tmp/ok"}, Retries: 1000,
			Interval: gogotypes.DurationProto(2 * time.Second), Timeout: gogotypes.DurationProto(30 * time.Second),
		}
	case "networked":
		spec.Task.Networks = []*api.NetworkAttachmentConfig{{Target: k.network}}
	}
	return spec
}

// begin makes all services and waits until they run.
func (k *soak) begin() {
	k.t.Helper()
	for _, name := range soakNames {
		k.make(name)
	}
	for _, id := range k.services {
		k.awaitRunning(id, 3)
	}
}

func (k *soak) make(name string) {
	k.services[name] = k.create(k.spec(name))
	k.ever = append(k.ever, k.services[name])
}

// part does random things for a time, and then sees that all is as it should be.
func (k *soak) part(what string, length time.Duration, nodeToo bool) {
	k.t.Helper()
	begin, doneBefore := time.Now(), maps.Clone(k.done)
	for time.Since(begin) < length {
		k.something(nodeToo)
		time.Sleep(time.Duration(k.random.IntN(500)) * time.Millisecond)
	}
	happened := time.Since(begin)
	k.converge()
	k.awaitExact()
	k.checkEnds()
	var did []string
	for _, thing := range slices.Sorted(maps.Keys(k.done)) {
		if n := k.done[thing] - doneBefore[thing]; n > 0 {
			did = append(did, fmt.Sprintf("%s %d", thing, n))
		}
	}
	k.t.Logf("%v %s, and %v until all was well: %s", happened.Round(time.Second), what, (time.Since(begin) - happened).Round(100*time.Millisecond), strings.Join(did, ", "))
}

func (k *soak) something(nodeToo bool) {
	n := k.random.IntN(100)
	switch {
	case n < 30:
		k.scale()
	case n < 50:
		k.change()
	case n < 58:
		k.renew()
	case n < 80:
		k.killContainer()
	case n < 86:
		k.removeContainer()
	case n < 93 || !nodeToo:
		k.endEngine(func() {})
	case n < 98:
		k.endNode()
	default:
		k.endEngine(k.endNodeOnly)
	}
}

func (k *soak) anyService() (name, id string) {
	name = soakNames[k.random.IntN(len(soakNames))]
	return name, k.services[name]
}

func (k *soak) scale() {
	_, id := k.anyService()
	replicas := uint64(k.random.IntN(6))
	k.did("scale")
	k.persistently(id, func(spec *api.ServiceSpec) { spec.GetReplicated().Replicas = replicas })
}

// change updates a service; the tasks of the service of jobs may end of themselves.
// The new task never starts first: SwarmKit can forget the old one then, if the next
// update comes too soon.
func (k *soak) change() {
	name, id := k.anyService()
	round := k.done["update"]
	parallelism := uint64(k.random.IntN(3))
	jobs := [][]string{{"sleep", "1h"}, {"sleep", "1s", "--", "exit", "0"}, {"sleep", "2s", "--", "exit", "3"}}
	job := jobs[k.random.IntN(len(jobs))]
	k.did("update")
	k.persistently(id, func(spec *api.ServiceSpec) {
		spec.Task.GetContainer().Env = []string{fmt.Sprint("ROUND=", round)}
		spec.Update.Parallelism = parallelism
		if name == "jobs" {
			spec.Task.GetContainer().Args = job
		}
	})
}

// renew removes a service and makes it again.
func (k *soak) renew() {
	name, id := k.anyService()
	k.did("remove and create")
	k.removeOnly(id)
	k.make(name)
}

func (k *soak) removeOnly(id string) {
	_, err := k.api.RemoveService(k.t.Context(), &api.RemoveServiceRequest{ServiceID: id})
	require.NoError(k.t, err)
}

// persistently updates a service. The manager may be changing it as well: then its
// version is not the one that was read.
func (k *soak) persistently(id string, change func(*api.ServiceSpec)) {
	require.Eventually(k.t, func() bool {
		now := k.get(id)
		change(&now.Spec)
		_, err := k.api.UpdateService(k.t.Context(), &api.UpdateServiceRequest{ServiceID: id, ServiceVersion: &now.Meta.Version, Spec: &now.Spec})
		if err != nil && strings.Contains(err.Error(), "update out of sequence") {
			return false
		}
		require.NoError(k.t, err)
		return true
	}, patience, 10*time.Millisecond)
}

// onEngine are the containers of tasks.
func (k *soak) onEngine() []container.Summary {
	k.t.Helper()
	list, err := k.engine.ContainerList(k.t.Context(), container.ListOptions{All: true, Filters: ofTasks()})
	require.NoError(k.t, err)
	slices.SortFunc(list, func(a, b container.Summary) int { return cmp.Compare(a.ID, b.ID) })
	return list
}

func (k *soak) onEngineRunning() []container.Summary {
	return slices.DeleteFunc(k.onEngine(), func(c container.Summary) bool { return c.State != container.StateRunning })
}

func taskOf(c container.Summary) string { return c.Labels["com.docker.swarm.task.id"] }

func (k *soak) killContainer() {
	k.hitOne("kill of a container", func(id string) error { return k.engine.ContainerKill(k.t.Context(), id, "KILL") })
}

func (k *soak) removeContainer() {
	k.hitOne("removal of a container", func(id string) error {
		return k.engine.ContainerRemove(k.t.Context(), id, container.RemoveOptions{Force: true})
	})
}

func (k *soak) hitOne(what string, hit func(id string) error) {
	list := k.onEngineRunning()
	if len(list) == 0 {
		return
	}
	picked := list[k.random.IntN(len(list))]
	k.hit[taskOf(picked)] = what
	k.did(what)
	if err := hit(picked.ID); !cerrdefs.IsNotFound(err) && !cerrdefs.IsConflict(err) { // it may end meanwhile
		require.NoError(k.t, err)
	}
}

// endEngine ends the engine, one way or the other, and starts it a while later.
// Orders are given meanwhile. An engine that is stopped while no container runs
// keeps none, not even those that it is about to start.
func (k *soak) endEngine(meanwhile func()) {
	way := []string{"kill", "stop"}[k.random.IntN(2)]
	if len(k.onEngineRunning()) == 0 {
		way = "kill"
	}
	k.did(way + " of the engine")
	controlEngine(k.t, way)
	for range k.random.IntN(3) {
		[]func(){k.scale, k.change, k.renew}[k.random.IntN(3)]()
	}
	time.Sleep(time.Duration(k.random.IntN(3000)) * time.Millisecond)
	if k.node != nil {
		meanwhile()
	}
	controlEngine(k.t, "start")
	if k.node == nil {
		k.startNode()
	}
}

// endNode ends the node, one way or the other, and starts it a while later.
func (k *soak) endNode() {
	k.endNodeOnly()
	time.Sleep(time.Duration(k.random.IntN(2000)) * time.Millisecond)
	k.startNode()
}

func (k *soak) endNodeOnly() {
	if k.random.IntN(3) == 0 {
		k.did("stop of the node")
		k.stop()
	} else {
		k.did("kill of the node")
		k.kill()
	}
}

// startNode starts the node and takes note of what its end has left. SwarmKit's
// agent forgets a task before the task's container is removed: if it ends in
// between, nobody removes that, now or later. Any other executor has that too.
func (k *soak) startNode() {
	containers := k.onEngine()
	k.start()
	known := k.known()
	for _, c := range containers {
		if known[taskOf(c)] == nil {
			k.orphans[c.ID] = true
		}
	}
}

// known are SwarmKit's tasks by their IDs.
func (k *soak) known() map[string]*api.Task {
	k.t.Helper()
	var answer *api.ListTasksResponse
	require.Eventually(k.t, func() (listed bool) {
		var err error
		answer, err = k.api.ListTasks(k.t.Context(), &api.ListTasksRequest{})
		if status.Code(err) == codes.Unavailable {
			return false
		}
		require.NoError(k.t, err)
		return true
	}, patience, 50*time.Millisecond)
	known := map[string]*api.Task{}
	for _, task := range answer.Tasks {
		known[task.ID] = task
	}
	return known
}

func (k *soak) did(what string) {
	k.done[what]++
	k.t.Logf("%s %s", time.Now().UTC().Format("15:04:05.000"), what)
}

// converge lets jobs be services, and waits until each service has its tasks. Those
// with a health check are made anew, since engine 20.10 never again checks a
// container that ran when it was restarted: one that was not healthy stays so.
func (k *soak) converge() {
	k.t.Helper()
	k.persistently(k.services["checked"], func(spec *api.ServiceSpec) { spec.Task.ForceUpdate++ })
	k.persistently(k.services["jobs"], func(spec *api.ServiceSpec) { spec.Task.GetContainer().Args = []string{"sleep", "1h"} })
	for _, name := range soakNames {
		id := k.services[name]
		k.awaitRunning(id, int(k.get(id).Spec.GetReplicated().Replicas))
	}
}

// awaitExact waits until the engine has what SwarmKit says: a running container for
// each task that runs, at most one that does not for each that has ended, and none
// besides.
func (k *soak) awaitExact() {
	k.t.Helper()
	wrong := k.differences()
	for late := time.Now().Add(patience); len(wrong) > 0 && time.Now().Before(late); wrong = k.differences() {
		time.Sleep(100 * time.Millisecond)
	}
	require.Empty(k.t, wrong, "between SwarmKit and the engine")
}

func (k *soak) differences() (wrong []string) {
	known, seen, orphans := k.known(), map[string]bool{}, 0
	for _, c := range k.onEngine() {
		task := known[taskOf(c)]
		switch {
		case task == nil && k.orphans[c.ID] && c.State != container.StateRunning:
			orphans++
		case task == nil:
			wrong = append(wrong, fmt.Sprintf("container %v %s of no task, %q, left by an end of the node: %v; its task was: %s; it is: %s",
				c.Names, c.State, k.hit[taskOf(c)], k.orphans[c.ID], k.past(c.Labels["com.docker.swarm.service.id"], taskOf(c)), k.inspected(c.ID)))
		case seen[task.ID]:
			wrong = append(wrong, fmt.Sprintf("two containers of task %s", task.ID))
		case running(task) != (c.State == container.StateRunning):
			wrong = append(wrong, fmt.Sprintf("container %v %s of task %s", c.Names, c.State, describe(task)))
		}
		if task != nil {
			seen[task.ID] = true
		}
	}
	k.left = orphans
	for id, task := range known {
		had := task.Status.GetContainer() != nil && task.Status.GetContainer().ContainerID != ""
		if !seen[id] && (running(task) || had && k.hit[id] != "removal of a container") {
			wrong = append(wrong, fmt.Sprintf("no container of task %s %s, after %q; it was: %s", id, describe(task), k.hit[id], k.past(task.ServiceID, id)))
		}
	}
	return wrong
}

// inspected is the state of a container.
func (k *soak) inspected(id string) string {
	k.t.Helper()
	answer, err := k.engine.ContainerInspect(k.t.Context(), id)
	if err != nil {
		return err.Error()
	}
	return fmt.Sprintf("created %s, %+v", answer.Created, *answer.State)
}

// past are the states that a task of a service was in.
func (k *soak) past(service, task string) string {
	var states []string
	for _, versions := range k.tasks.History(service) {
		if versions[0].ID == task {
			for _, version := range versions {
				states = append(states, version.Status.Timestamp.String()+" "+describe(version))
			}
		}
	}
	return strings.Join(states, "; ")
}

// cameToLife is what a task ends with whose container ran, unknown to the engine.
const cameToLife = ": the engine ended within it; the container ran without network and log, and was stopped"

// lostStart is how an engine refuses to start what runs already, unknown to it.
var lostStart = regexp.MustCompile(`: (already exists|id already in use|mkdir \S+: file exists)$`)

// checkEnds sees that no task has failed but those that were made to.
func (k *soak) checkEnds() {
	k.t.Helper()
	tasks, ends := 0, map[string]int{}
	for _, id := range k.ever {
		tasks += len(k.tasks.History(id))
		for _, task := range k.ended(id) {
			cause := k.hit[task.ID]
			container := task.Status.GetContainer()
			isJob := task.ServiceAnnotations.Name == "jobs" && !slices.Contains(task.Spec.GetContainer().Args, "1h")
			code := int32(0)
			if container != nil {
				code = container.ExitCode
			}
			switch {
			case cause != "":
			case isJob && (task.Status.State == api.TaskStateCompleted || code == 3):
				cause = "end of a job"
			case isJob && code == 255:
				// The code that an engine gives what ended while it was away.
				cause = "end of a job without the engine"
			case code == 128 && lostStart.MatchString(task.Status.Err), strings.HasSuffix(task.Status.Err, cameToLife):
				// The engine ended while it started the container, and lost sight of it: it
				// refuses another start, now or later, or finds the container later, which
				// is stopped then.
				cause = "end of the engine within its start"
			default:
				assert.Fail(k.t, "a task has ended without cause", "%s of service %s: %s; it was: %s",
					task.ID, task.ServiceAnnotations.Name, describe(task), k.past(task.ServiceID, task.ID))
			}
			ends[fmt.Sprintf("%v after %s", task.Status.State, cause)]++
		}
	}
	k.t.Logf("of %d tasks so far: %v; stopped containers that ends of the node left: %d", tasks, ends, k.left)
}

// measuresOfTheSame makes all services anew and returns what the node has in use
// with them, once nothing is left of what it did before.
func (k *soak) measuresOfTheSame() measures {
	k.t.Helper()
	for _, id := range k.services {
		k.remove(id)
	}
	k.begin()
	k.shortenLog()
	now := k.measures()
	least := now
	// A client keeps its connections for half a minute after their last use.
	for late := time.Now().Add(45 * time.Second); time.Now().Before(late); now = k.measures() {
		least.Goroutines = min(least.Goroutines, now.Goroutines)
		least.Retries = min(least.Retries, now.Retries)
		least.Descriptors = min(least.Descriptors, now.Descriptors)
		least.Connections = min(least.Connections, now.Connections)
		time.Sleep(time.Second)
	}
	return least
}

// end removes all and sees what is left.
func (k *soak) end() {
	k.t.Helper()
	for _, id := range k.services {
		k.remove(id)
	}
	k.awaitExact()
	for _, c := range k.onEngine() { // orphans, all
		require.NoError(k.t, k.engine.ContainerRemove(k.t.Context(), c.ID, container.RemoveOptions{Force: true}))
	}
	volumes, err := k.engine.VolumeList(k.t.Context(), volume.ListOptions{})
	require.NoError(k.t, err)
	for _, v := range volumes.Volumes {
		require.NoError(k.t, k.engine.VolumeRemove(k.t.Context(), v.Name, false))
	}
	err = k.engine.NetworkRemove(context.Background(), "dockerexec-soak")
	if k.left == 0 {
		assert.True(k.t, cerrdefs.IsNotFound(err), "the network is left, though no container is")
	}
}
