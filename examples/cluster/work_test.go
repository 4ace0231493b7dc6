package cluster

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/moby/swarmkit/v2/api"
	"github.com/stretchr/testify/require"
)

// A rolling update while a host is cut off: it ends without the host, whose own tasks run on.
// Once the host is back it learns that they are over.
func (c *cluster) anUpdateMissesAHost() {
	h := c.follower()
	c.spread()
	before := c.running(h)
	h.goesAway()
	h.unplug(c.t)
	c.awaitDown(h)
	c.say("host %s is unplugged, and the swarm misses it", h.name)
	c.update(c.web, func(spec *api.ServiceSpec) { spec.Task.GetContainer().Env = []string{"VERSION=2"} })
	c.awaitRunning(c.web, 12, c.others(h)...)
	c.same(h, before)
	c.say("all 12 tasks run on the others, of the new version; %d of the old one on host %s", len(before), h.name)
	h.plugIn(c.t)
	c.awaitReady(h)
	c.holds()
}

// An update that begins when the swarm does not miss the host yet. SwarmKit's updater waits for
// each task that it has given to the host, without a limit. So the update ends when the host is back.
func (c *cluster) anUpdateWaitsForAHost() {
	h := c.follower()
	c.spread()
	before := c.running(h)
	h.goesAway()
	h.unplug(c.t)
	c.update(c.web, func(spec *api.ServiceSpec) { spec.Task.GetContainer().Env = []string{"VERSION=3"} })
	c.say("host %s is unplugged, and the service is updated at once", h.name)
	c.awaitDown(h)
	c.same(h, before)
	h.plugIn(c.t)
	c.say("host %s is plugged in", h.name)
	c.awaitReady(h)
	c.awaitRunning(c.web, 12)
	c.say("all 12 tasks are of the new version")
	c.holds()
}

// A global service has a task on each host. One that is cut off keeps it, and has it replaced
// when it is back.
func (c *cluster) aGlobalServiceSeesACut() {
	h := c.follower()
	spec := c.service("everywhere", 0, "sleep", "1h")
	spec.Mode = &api.ServiceSpec_Global{Global: &api.GlobalService{}}
	service := c.create(spec)
	c.awaitAll(service, 3)
	before := c.running(h)
	h.goesAway()
	h.unplug(c.t)
	c.say("host %s is unplugged", h.name)
	c.awaitDown(h)
	c.awaitRunning(service, 2, c.others(h)...)
	c.same(h, before)
	h.plugIn(c.t)
	c.awaitReady(h)
	c.awaitAll(service, 3)
	c.holds()
	c.remove(service)
}

// Jobs of both kinds that go on through a cut: each run that the swarm counts has ended with 0.
// Tasks that end during the cut, on the host that is cut off too, are known with their exit code.
func (c *cluster) jobsGoOnThroughACut() {
	h := c.follower()
	begin := time.Now()
	// A manager that leads again begins each run twice, on all hosts. Whether one leads again is known as far as somebody
	// looked, so an election within the scene counts too.
	twice := func() bool { return c.elections.wereSince(begin) || c.elections.leadsAgain() }
	spec := c.service("fails", 6, "sleep", "1h", "--", "exit", "7") // goes on to exit when SIGTERM ends the sleep
	spec.Task.Restart = &api.RestartPolicy{Condition: api.RestartOnNone}
	fails := c.create(spec)
	c.awaitAll(fails, 6)
	spec = c.service("job", 0, "sleep", "5s")
	spec.Task.Restart = &api.RestartPolicy{Condition: api.RestartOnFailure}
	spec.Mode = &api.ServiceSpec_ReplicatedJob{ReplicatedJob: &api.ReplicatedJob{MaxConcurrent: 6, TotalCompletions: 18}}
	spec.Update = nil
	replicated := c.create(spec)
	spec = c.service("job-everywhere", 0, "sleep", "5s")
	spec.Task.Restart = &api.RestartPolicy{Condition: api.RestartOnFailure}
	spec.Mode, spec.Update = &api.ServiceSpec_GlobalJob{GlobalJob: &api.GlobalJob{}}, nil
	global := c.create(spec)
	for _, service := range []string{replicated, global} {
		c.await(service, "a job that runs on host "+h.name, func(tasks []*api.Task) string {
			for _, task := range tasks {
				if c.hostOf(task) == h && task.Status.State == api.TaskStateRunning {
					return ""
				}
			}
			return "none does"
		})
	}
	h.goesAway()
	h.unplug(c.t)
	c.say("host %s is unplugged while jobs run on all hosts", h.name)
	for _, one := range c.hosts {
		c.terminate(one, fails)
	}
	c.awaitDown(h)
	h.plugIn(c.t)
	c.awaitReady(h)
	c.say("host %s is plugged in", h.name)
	c.await(replicated, "18 runs that are complete", func(tasks []*api.Task) string {
		if twice() {
			return unlessRuns(tasks, 18)
		}
		return unlessComplete(tasks, 18)
	})
	c.await(global, "3 runs that are complete", func(tasks []*api.Task) string { return unlessComplete(tasks, 3) })
	c.await(fails, "six ends with exit code 7", func(tasks []*api.Task) string {
		return unlessEnds(tasks, "FAILED 7, FAILED 7, FAILED 7, FAILED 7, FAILED 7, FAILED 7")
	})
	c.say("18 and 3 runs are complete, and six tasks have ended with exit code 7, also those during the cut")
	// SwarmKit counts runs and not slots: the job ends before each slot has had its run, or begins further runs without
	// an end, as it subtracts the complete ones from 18, without a sign.
	c.leader() // looks once more
	if twice() {
		c.twice = []string{"job", "job-everywhere"}
		c.say("a manager began to lead, or leads again, which may have begun runs of jobs twice")
	}
	c.remove(replicated)
	c.remove(global)
	c.remove(fails)
}

// isBegunTwice reports whether a slot is one of a job whose runs SwarmKit may have begun twice.
func (c *cluster) isBegunTwice(slot string) bool {
	service, _, _ := strings.Cut(slot, ".")
	return slices.Contains(c.twice, service)
}

// terminate sends SIGTERM to the containers of a service on a host, behind the swarm's back.
func (c *cluster) terminate(h *host, service string) {
	c.t.Helper()
	ctx := c.t.Context()
	list, err := h.containers(ctx)
	require.NoError(c.t, err)
	n := 0
	for _, one := range list {
		if one.Labels["com.docker.swarm.service.id"] == service && one.State == container.StateRunning {
			require.NoError(c.t, h.engine.ContainerKill(ctx, one.ID, "TERM"))
			n++
		}
	}
	require.Equal(c.t, 2, n, "containers on host %s", h.name)
}

// unlessEnds compares how tasks have ended, with their exit codes.
func unlessEnds(tasks []*api.Task, want string) string {
	var ends []string
	for _, task := range tasks {
		ends = append(ends, fmt.Sprint(task.Status.State, " ", exitCode(task)))
	}
	slices.Sort(ends)
	if got := strings.Join(ends, ", "); got != want {
		return got
	}
	return ""
}

// unlessRuns counts the runs of a job that are complete, also those of one slot.
func unlessRuns(tasks []*api.Task, want int) string {
	complete := 0
	for _, task := range tasks {
		if task.Status.State == api.TaskStateCompleted && exitCode(task) == 0 {
			complete++
		}
	}
	if complete < want {
		return fmt.Sprintf("%d of %d are", complete, want)
	}
	return ""
}

// unlessComplete counts the runs of a job that are complete: one for each slot, or for each node.
func unlessComplete(tasks []*api.Task, want int) string {
	complete, others := map[string]bool{}, []string{}
	for _, task := range tasks {
		if task.Status.State == api.TaskStateCompleted && exitCode(task) == 0 {
			place := task.NodeID
			if task.Slot != 0 || task.ServiceAnnotations.Name == "job" {
				place = fmt.Sprint("slot ", task.Slot)
			}
			complete[place] = true
		} else {
			others = append(others, describe(task))
		}
	}
	if len(complete) != want {
		return fmt.Sprintf("%d are, %v are not", len(complete), others)
	}
	return ""
}
