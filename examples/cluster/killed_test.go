package cluster

import (
	"context"
	"fmt"
	"syscall"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/moby/swarmkit/v2/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A node that is killed and starts again takes its containers over.
func (c *cluster) anAgentIsKilled() {
	h := c.follower()
	c.spread()
	c.nodeIsKilled(h)
}

// The same where the node is the leader: meanwhile the swarm decides nothing, or elects another.
func (c *cluster) theLeaderIsKilled() {
	leader := c.leader()
	c.spread()
	if c.managers > 1 {
		c.seat = c.others(leader)[0]
	}
	c.nodeIsKilled(leader)
}

func (c *cluster) nodeIsKilled(h *host) {
	c.t.Helper()
	before := map[*host][]string{}
	for _, one := range c.hosts {
		before[one] = c.running(one)
	}
	h.endNode(c.t, syscall.SIGKILL)
	c.say("the node of host %s is killed", h.name)
	for one, containers := range before {
		c.same(one, containers)
	}
	c.startNode(h)
	for _, one := range c.hosts {
		c.awaitReady(one)
	}
	c.awaitRunning(c.web, 12)
	for one, containers := range before {
		c.same(one, containers)
	}
	c.say("it is back, all containers run on, and no other was made")
	victim := c.tellsAnEnd(h)
	for one, containers := range before {
		c.still(one, containers, victim)
	}
	c.holds()
}

// An engine that is killed and starts again has its containers, and no task ends.
func (c *cluster) anEngineIsKilled() {
	h := c.follower()
	c.spread()
	before := c.running(h)
	h.controlEngine(c.t, "kill")
	c.say("the engine of host %s is killed", h.name)
	h.controlEngine(c.t, "start")
	c.awaitReady(h)
	c.awaitRunning(c.web, 12)
	c.same(h, before)
	c.say("it is back, all containers run on, and no other was made")
	c.still(h, before, c.tellsAnEnd(h))
	c.holds()
}

// A host that loses its power: its containers have ended, and the swarm runs others. The host
// comes back with its disk: with its node's state, and with containers that have ended.
func (c *cluster) aHostIsKilled() {
	h := c.follower()
	c.spread()
	before := c.running(h)
	h.goesAway()
	h.kill(c.t)
	c.say("host %s loses its power, with %d tasks", h.name, len(before))
	c.awaitDown(h)
	c.awaitRunning(c.web, 12, c.others(h)...)
	c.say("the others run all 12 tasks")
	h.switchOn(c.t)
	c.startNode(h)
	c.say("host %s is switched on, with its disk", h.name)
	c.awaitReady(h)
	c.holds()
	for _, id := range before {
		answer, err := h.engine.ContainerInspect(c.t.Context(), id)
		if cerrdefs.IsNotFound(err) {
			continue
		}
		require.NoError(c.t, err)
		assert.False(c.t, answer.State.Running, "container %s runs again", id)
	}
	c.tellsAnEnd(c.others(h)[0])
	c.spread()
	c.tellsAnEnd(h)
	c.holds()
}

// tellsAnEnd sees that a host's node looks after its containers: it kills one behind the swarm's
// back, and waits until the swarm knows of that with its exit code, and runs another. It returns
// the ID of the container.
func (c *cluster) tellsAnEnd(h *host) string {
	c.t.Helper()
	var victim container.Summary
	c.until("a container to kill", func(ctx context.Context) string {
		list, err := h.containers(ctx)
		for _, one := range list {
			if one.State == container.StateRunning && one.Labels["com.docker.swarm.service.id"] == c.web {
				victim = one
				return ""
			}
		}
		return fmt.Sprint("there is none: ", err)
	})
	require.NoError(c.t, h.engine.ContainerKill(c.t.Context(), victim.ID, "KILL"))
	c.await(c.web, "the end of a container that is killed", func(tasks []*api.Task) string {
		for _, task := range tasks {
			if task.ID != taskOf(victim) {
				continue
			}
			if task.Status.State == api.TaskStateFailed && exitCode(task) == 137 {
				return ""
			}
			return describe(task)
		}
		return "its task is gone"
	})
	c.awaitRunning(c.web, 12)
	c.say("a container of host %s is killed: the swarm knows of exit code 137, and runs another", h.name)
	return victim.ID
}
