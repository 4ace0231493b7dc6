package cluster

import (
	"context"
	"maps"
	"slices"

	"github.com/docker/docker/api/types/container"
)

// A follower that is cut off: its tasks run on, and beside them others in their place. Once it
// is back it is told so.
func (c *cluster) aFollowerIsCutOff() {
	h := c.follower()
	c.spread()
	before := c.running(h)
	h.goesAway()
	h.unplug(c.t)
	c.say("host %s is unplugged, with %d tasks", h.name, len(before))
	c.awaitDown(h)
	c.awaitRunning(c.web, 12, c.others(h)...)
	c.same(h, before)
	c.say("the others run all 12 tasks, and host %s its %d containers on", h.name, len(before))
	h.plugIn(c.t)
	c.say("host %s is plugged in", h.name)
	c.awaitReady(h)
	c.holds()
}

// The leader that is cut off. Of three managers, the other two elect another one. The only
// manager counts the workers as lost and runs all tasks itself, while theirs run on.
func (c *cluster) theLeaderIsCutOff() {
	leader := c.leader()
	c.spread()
	lost, left := []*host{leader}, c.others(leader)
	if c.managers == 1 {
		lost, left = left, lost
	}
	before := map[*host][]string{}
	for _, h := range lost {
		before[h] = c.running(h)
		h.goesAway()
	}
	c.seat = left[0]
	leader.unplug(c.t)
	c.say("host %s is unplugged, the manager that leads is on it", leader.name)
	for _, h := range lost {
		c.awaitDown(h)
	}
	c.awaitRunning(c.web, 12, left...)
	for h, containers := range before {
		c.same(h, containers)
	}
	c.say("all 12 tasks run where a manager leads: host %s", c.leader().name)
	leader.plugIn(c.t)
	c.say("host %s is plugged in", leader.name)
	for _, h := range lost {
		c.awaitReady(h)
	}
	c.holds()
}

// running are the containers of tasks that run on a host, sorted.
func (c *cluster) running(h *host) []string {
	c.t.Helper()
	var ids []string
	c.until("what runs on host "+h.name, func(ctx context.Context) string {
		list, err := h.containers(ctx)
		if err != nil {
			return err.Error()
		}
		found := map[string]bool{}
		for _, one := range list {
			if one.State == container.StateRunning {
				found[one.ID] = true
			}
		}
		ids = slices.Sorted(maps.Keys(found))
		return ""
	})
	return ids
}

// same sees that the same containers run on a host as before.
func (c *cluster) same(h *host, before []string) {
	c.t.Helper()
	if now := c.running(h); !slices.Equal(before, now) {
		c.t.Fatalf("on host %s ran %v, and now %v", h.name, before, now)
	}
}

// still sees that the containers of before run on a host, but for the one that was killed.
func (c *cluster) still(h *host, before []string, killed string) {
	c.t.Helper()
	now := c.running(h)
	for _, id := range before {
		if id != killed && !slices.Contains(now, id) {
			c.t.Errorf("on host %s container %s does not run any more", h.name, id)
		}
	}
}
