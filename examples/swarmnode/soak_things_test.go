package main

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/moby/swarmkit/v2/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// card is one of the things that happen, as often in the deck as it says.
type card struct {
	what  string
	times int
	node  bool // it ends the node
	do    func(k *soak)
}

// soakCards are dealt in a random order, all of them before they are shuffled anew,
// so that a soak of some minutes has seen each.
var soakCards []card

func init() { // the things name themselves
	soakCards = []card{
		{what: "scale", times: 10, do: (*soak).scale},
		{what: "update", times: 7, do: (*soak).change},
		{what: "remove and create", times: 3, do: (*soak).renew},
		{what: killOfContainer, times: 7, do: (*soak).killContainer},
		{what: removalOfContainer, times: 2, do: (*soak).removeContainer},
		{what: sickening, times: 2, do: (*soak).sicken},
		{what: "kill of the engine", times: 2, do: func(k *soak) { k.endEngine("kill", func() {}) }},
		{what: "stop of the engine", times: 1, do: func(k *soak) { k.endEngine("stop", func() {}) }},
		{what: "kill of the node", times: 1, node: true, do: func(k *soak) { k.endNode(k.killNode) }},
		{what: "stop of the node", times: 1, node: true, do: func(k *soak) { k.endNode(k.stopNode) }},
		{what: "end of engine and node", times: 1, node: true, do: (*soak).endBoth},
	}
}

// something deals the next card; one that ends the node is kept until that may be.
func (k *soak) something(nodeToo bool) {
	if len(k.deck) == 0 {
		for _, c := range soakCards {
			k.deck = append(k.deck, slices.Repeat([]card{c}, c.times)...)
		}
		k.random.Shuffle(len(k.deck), func(i, j int) { k.deck[i], k.deck[j] = k.deck[j], k.deck[i] })
	}
	i := slices.IndexFunc(k.deck, func(c card) bool { return nodeToo || !c.node })
	if i < 0 {
		k.deck = nil
		return
	}
	next := k.deck[i]
	k.deck = slices.Delete(k.deck, i, i+1)
	next.do(k)
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
	k.removals = append(k.removals, time.Now())
	k.removeOnly(id)
	k.make(name)
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

// What is done to a container from outside.
const (
	killOfContainer    = "kill of a container"
	removalOfContainer = "removal of a container"
	sickening          = "failing health check"
)

func (k *soak) killContainer() {
	k.hitOne(killOfContainer, k.onEngineRunning(), func(ctx context.Context, id string) error { return k.engine.ContainerKill(ctx, id, "KILL") })
}

func (k *soak) removeContainer() {
	k.hitOne(removalOfContainer, k.onEngineRunning(), func(ctx context.Context, id string) error {
		return k.engine.ContainerRemove(ctx, id, container.RemoveOptions{Force: true})
	})
}

// sicken has the health check of a container find its file gone: a link to nowhere
// takes its place. The tasks are made anew before, see converge.
func (k *soak) sicken() {
	service := k.services["sickens"]
	k.persistently(service, func(spec *api.ServiceSpec) { spec.Task.ForceUpdate++ })
	k.awaitRunning(service, int(k.get(service).Spec.GetReplicated().Replicas))
	list := slices.DeleteFunc(k.onEngineRunning(), func(c container.Summary) bool {
		return c.Labels["com.docker.swarm.service.id"] != service
	})
	k.hitOne(sickening, list, func(ctx context.Context, id string) error {
		var archive bytes.Buffer
		w := tar.NewWriter(&archive)
		require.NoError(k.t, w.WriteHeader(&tar.Header{Name: "ok", Typeflag: tar.TypeSymlink, Linkname: "/nosuch"}))
		require.NoError(k.t, w.Close())
		return k.engine.CopyToContainer(ctx, id, "/tmp", &archive, container.CopyToContainerOptions{})
	})
}

// hitOne does something to one of the containers, unless that ends meanwhile.
func (k *soak) hitOne(what string, list []container.Summary, hit func(ctx context.Context, id string) error) {
	if len(list) == 0 {
		return
	}
	picked := list[k.random.IntN(len(list))]
	if k.hit[taskOf(picked)] != "" {
		return // the first hit is what it ends of
	}
	ctx, cancel := context.WithTimeout(k.t.Context(), hangTime)
	defer cancel()
	if err := hit(ctx, picked.ID); err != nil && ctx.Err() != nil {
		require.True(k.t, k.freeHung(), "%s: %v, and the engine does not hang", what, err)
		return
	} else if err != nil { // engines say many things of one that is being removed
		k.untilRight(fmt.Sprintf("%s fails (%v), and the container runs on", what, err), func(ctx context.Context) []string {
			for {
				now, inspectErr := k.engine.ContainerInspect(ctx, picked.ID)
				if cerrdefs.IsNotFound(inspectErr) || inspectErr == nil && !now.State.Running {
					return nil
				}
				if ctx.Err() != nil {
					return []string{picked.ID}
				}
				time.Sleep(100 * time.Millisecond)
			}
		})
		return
	}
	k.hit[taskOf(picked)] = what
	k.did(what)
}

// endEngine ends the engine, one way or the other, and starts it a while later.
// Orders are given meanwhile. An engine that is stopped while no container runs
// keeps none, not even those that it is about to start.
func (k *soak) endEngine(way string, meanwhile func()) {
	if len(k.onEngineRunning()) == 0 {
		way = "kill"
	}
	k.did(way + " of the engine")
	k.endOfEngine(way)
	for range k.random.IntN(3) {
		[]func(){k.scale, k.change, k.renew}[k.random.IntN(3)]()
	}
	time.Sleep(time.Duration(k.random.IntN(3000)) * time.Millisecond)
	meanwhile()
	k.moment(func() { controlEngine(k.t, "start") })
	if k.node == nil {
		k.startNode()
	}
}

// moment takes note of when something begins and ends of which tasks may end.
func (k *soak) moment(do func()) {
	k.moments = append(k.moments, time.Now())
	do()
	k.moments = append(k.moments, time.Now())
}

// engineEnd is when an end of the engine was ordered, and when it was gone.
type engineEnd struct{ ordered, gone time.Time }

// endOfEngine ends the engine and takes note of when.
func (k *soak) endOfEngine(way string) {
	ordered := time.Now()
	k.moment(func() { controlEngine(k.t, way) })
	k.engineEnds = append(k.engineEnds, engineEnd{ordered, time.Now()})
}

// endNode ends the node and starts it a while later.
func (k *soak) endNode(end func()) {
	end()
	time.Sleep(time.Duration(k.random.IntN(2000)) * time.Millisecond)
	k.startNode()
}

func (k *soak) stopNode() {
	k.did("stop of the node")
	k.stop()
}

func (k *soak) killNode() {
	k.did("kill of the node")
	k.kill()
}

func (k *soak) endBoth() {
	k.did("end of engine and node")
	k.endEngine([]string{"kill", "stop"}[k.random.IntN(2)], []func(){k.killNode, k.stopNode}[k.random.IntN(2)])
}

// orphansOfAService is how many containers an end of the node may leave of a service
// that was just removed, and as many of all others together: five tasks for each of
// up to five slots, which is what SwarmKit keeps of a slot.
const orphansOfAService = 25

// orphansOfAnEnd is how many containers an end of the node may leave now. What was
// removed while the engine was away is still all there.
func (k *soak) orphansOfAnEnd() int {
	allowed := orphansOfAService
	for _, at := range k.removals {
		if time.Since(at) < 30*time.Second {
			allowed += orphansOfAService
		}
	}
	return allowed
}

// startNode starts the node and takes note of what its end has left. SwarmKit's
// agent forgets a task before the task's container is removed: if it ends in
// between, nobody removes that, now or later. The container may run on: where a
// service is scaled twice, the manager forgets tasks of it that were to end and have
// not. Any other executor has that too.
func (k *soak) startNode() {
	containers := k.onEngine()
	k.moment(k.start)
	known := k.known()
	before := len(k.orphans)
	for _, c := range containers {
		if known[taskOf(c)] == nil {
			k.orphans[c.ID] = taskOf(c)
		}
	}
	assert.LessOrEqual(k.t, len(k.orphans)-before, k.orphansOfAnEnd(), "containers that one end of the node has left")
	k.follow()
}

func (k *soak) did(what string) {
	k.done[what]++
	k.t.Logf("%s %s", time.Now().UTC().Format("15:04:05.000"), what)
}
