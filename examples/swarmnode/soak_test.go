package main

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	gogotypes "github.com/gogo/protobuf/types"
	"github.com/moby/swarmkit/v2/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
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
	debug.SetTraceback("all") // for what it waits for
	watchdog := time.AfterFunc(2*whole+30*time.Minute, func() { panic("the soak hangs") })
	t.Cleanup(func() { watchdog.Stop() }) // the last of all

	k := newSoak(t, seed)
	k.begin()
	k.endNode(k.killNode) // both measures are of a process that took over from another
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
	// The same services run, and one follower: so many waits, one event stream, so many logs.
	assert.Equal(t, before.Own, after.Own, "goroutines within the package; before:\n%s", profile)
	k.end()
	if whole >= 5*time.Minute {
		for _, c := range soakCards {
			assert.NotZero(t, k.done[c.what], "how often there was a %s", c.what)
		}
	}
}

// soak is a swarm that things happen to, and what is known of them.
type soak struct {
	*swarm
	random     *rand.Rand
	services   map[string]string // IDs by name
	ever       []string          // IDs of all, removed ones too
	network    string
	secret     *api.SecretReference
	deck       []card            // what will happen next
	done       map[string]int    // how often each thing was done
	hit        map[string]string // what was done to tasks from outside, by their IDs
	moments    []time.Time       // ends and starts of engine and node
	removals   []time.Time       // of services
	engineEnds []engineEnd
	orphans    map[string]string // containers that an end of the node may have left, see startNode, and their tasks
	left       int
	follower   *follower
}

var soakNames = []string{"sleeps", "writes", "checked", "sickens", "networked", "secret", "logs", "jobs"}

func newSoak(t *testing.T, seed uint64) *soak {
	fromHarness(t, "DOCKEREXEC_TEST_ENGINE") // a private one: all tasks and volumes of it are taken for the soak's
	s := newMeasuredSwarm(t)
	s.keepShortLog()
	k := &soak{
		swarm: s, random: rand.New(rand.NewPCG(seed, seed)), services: map[string]string{},
		done: map[string]int{}, hit: map[string]string{}, orphans: map[string]string{}, follower: &follower{kept: map[string]string{}},
	}
	t.Cleanup(func() {
		k.follower.stop()
		if t.Failed() {
			t.Logf("done so far: %v", k.done)
			if k.node != nil {
				list, err := k.api.ListServices(context.Background(), &api.ListServicesRequest{})
				require.NoError(t, err)
				for _, service := range list.Services {
					t.Logf("%s %s: %d replicas, %v", service.Spec.Annotations.Name, service.ID, service.Spec.GetReplicated().Replicas, service.UpdateStatus)
				}
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
	secret, err := s.api.CreateSecret(t.Context(), &api.CreateSecretRequest{Spec: &api.SecretSpec{
		Annotations: api.Annotations{Name: "soaked"}, Data: []byte("canary-secret-payload"),
	}})
	require.NoError(t, err)
	k.secret = &api.SecretReference{SecretID: secret.Secret.ID, SecretName: "soaked", Target: &api.SecretReference_File{
		File: &api.FileTarget{Name: "soaked", UID: "0", GID: "0", Mode: 0o400},
	}}
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
	case "sickens":
		c.Args = []string{"write", "/tmp/ok", "1", "--", "sleep", "1h"}
		c.Healthcheck = &api.HealthConfig{
			Test: []string{"CMD", "/testtask", "health", "/tmp/ok"}, Retries: 2,
			Interval: gogotypes.DurationProto(time.Second), Timeout: gogotypes.DurationProto(30 * time.Second),
		}
	case "secret":
		c.Args = []string{"cat", "/run/secrets/soaked", "--", "sleep", "1h"} // ends with 1 if it is not there
		c.Secrets = []*api.SecretReference{k.secret}
	case "logs":
		c.Args = []string{"lines", "100000000", "40", "10"}
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
	if name == "logs" {
		k.follow()
	}
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

// measuresOfTheSame makes all services anew and returns what the node has in use
// with them, once nothing is left of what it did before.
func (k *soak) measuresOfTheSame() measures {
	k.t.Helper()
	k.removeOrphans() // which are none of the services' that are waited for
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
		least.Own = min(least.Own, now.Own)
		least.Retries = min(least.Retries, now.Retries)
		least.Descriptors = min(least.Descriptors, now.Descriptors)
		least.Connections = min(least.Connections, now.Connections)
		time.Sleep(time.Second)
	}
	return least
}
