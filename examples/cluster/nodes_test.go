package cluster

import (
	"context"
	"fmt"
	"slices"

	"github.com/docker/docker/api/types/container"
	"github.com/moby/swarmkit/v2/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockerexec/dockerexec"
)

// A host that is drained has no tasks, and gets some again once it is active.
func (c *cluster) aHostIsDrained() {
	h := c.follower()
	c.spread()
	c.changeNode(h, func(spec *api.NodeSpec) { spec.Availability = api.NodeAvailabilityDrain })
	c.say("host %s is drained", h.name)
	c.awaitRunning(c.web, 12, c.others(h)...)
	c.until("no container to run on host "+h.name, func(context.Context) string {
		if left := c.running(h); len(left) > 0 {
			return fmt.Sprint(len(left), " run")
		}
		return ""
	})
	c.holds()
	c.changeNode(h, func(spec *api.NodeSpec) { spec.Availability = api.NodeAvailabilityActive })
	c.say("host %s is active again", h.name)
	c.spread()
	c.holds()
}

// A node that becomes a manager, and a manager that becomes a worker: its containers run on.
func (c *cluster) aNodeChangesItsRole() {
	h := c.follower()
	c.spread()
	before := c.running(h)
	roles := []api.NodeRole{api.NodeRoleManager, api.NodeRoleWorker}
	if c.managers > 1 {
		slices.Reverse(roles)
	}
	for _, role := range roles {
		c.changeNode(h, func(spec *api.NodeSpec) { spec.DesiredRole = role })
		c.awaitNode(h, fmt.Sprint("of the role ", role), func(node *api.Node) bool { return node.Role == role })
		c.awaitReady(h)
		c.awaitRunning(c.web, 12)
		c.same(h, before)
		c.say("the node of host %s is a %v, and its containers run on", h.name, role)
	}
	c.still(h, before, c.tellsAnEnd(h))
	c.holds()
}

// A node that is removed from the swarm, and joins it anew. It has another ID then, and knows
// nothing of its old containers, which run on. They are found by the old ID.
func (c *cluster) aNodeIsRemovedAndJoinsAnew() {
	h := c.follower()
	c.spread()
	before, old := c.running(h), h.id
	if c.managers > 1 {
		c.changeNode(h, func(spec *api.NodeSpec) { spec.DesiredRole = api.NodeRoleWorker })
		c.awaitNode(h, "a worker", func(node *api.Node) bool { return node.Role == api.NodeRoleWorker })
		c.awaitReady(h)
	}
	h.goesAway()
	c.forget(h)
	c.awaitDown(h)
	c.awaitRunning(c.web, 12, c.others(h)...)
	c.same(h, before)
	c.until("the removal of a node", func(ctx context.Context) string {
		_, err := c.seat.swarm.RemoveNode(ctx, &api.RemoveNodeRequest{NodeID: old})
		return text(err)
	})
	c.say("the node of host %s has ended, is removed from the swarm, and forgets it; its %d containers run on", h.name, len(before))
	c.join(h)
	require.NotEqual(c.t, old, h.id)
	c.same(h, before)
	c.say("it joins as another node, and leaves the containers alone")
	c.removeOrphans(h, old, before)
	c.holds()
	c.spread()
	c.holds()
}

// removeOrphans finds the containers of a node that is no more, and removes them.
func (c *cluster) removeOrphans(h *host, node string, want []string) {
	c.t.Helper()
	engine := dockerexec.NewEngine(h.engine)
	list, err := engine.Orphans(c.t.Context(), node, func(string) bool { return false })
	require.NoError(c.t, err)
	var found []string
	for _, orphan := range list {
		assert.Equal(c.t, node, orphan.NodeID)
		if orphan.State == container.StateRunning {
			found = append(found, orphan.ContainerID)
		}
		require.NoError(c.t, engine.RemoveOrphan(c.t.Context(), orphan))
	}
	slices.Sort(found)
	assert.Equal(c.t, want, found, "the containers that are found by the ID of the old node")
	c.say("Engine.Orphans finds the %d containers by the ID of the old node, and they are removed", len(found))
}
