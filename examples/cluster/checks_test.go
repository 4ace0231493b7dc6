package cluster

import (
	"context"
	"fmt"
	"strings"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/moby/swarmkit/v2/api"
)

// holds waits until all engines and the swarm say the same, and then sees that no task ran
// twice. It ends each scene: all hosts are on and connected.
func (c *cluster) holds() {
	c.t.Helper()
	c.until("the engines to have what the swarm lists", func(ctx context.Context) string {
		return strings.Join(c.differences(ctx), "\n")
	})
	for _, h := range c.hosts {
		h.isBack()
	}
	for _, wrong := range doubles(c.hosts, c.mayRunBeside) {
		c.t.Error(wrong)
	}
	if !c.t.Failed() {
		c.say("ok: each engine has what the swarm lists for its node, no task ran twice, no exit code is lost")
	}
}

// mayRunBeside reports whether SwarmKit itself may have begun a task beside another one of its slot.
func (c *cluster) mayRunBeside(slot string, later run) bool {
	return c.isBegunTwice(slot) || c.elections.mayHurry(c.made[later.task], later.begin)
}

// differences are those between the swarm and the engines of all hosts. Each host has a running
// container for each task that runs there, at most one that has ended for each task that has
// ended there, with the exit code that the swarm knows, and none besides.
func (c *cluster) differences(ctx context.Context) (wrong []string) {
	nodes, err := c.nodes(ctx)
	if err != nil {
		return []string{err.Error()}
	}
	tasks, err := c.tasks(ctx, "")
	if err != nil {
		return []string{err.Error()}
	}
	for _, h := range c.hosts {
		node := nodes[h.name]
		if node == nil || node.ID != h.id || node.Status.State != api.NodeStatus_READY {
			wrong = append(wrong, fmt.Sprintf("the node of host %s is %s", h.name, describeNode(node)))
		}
		listed := map[string]*api.Task{}
		for _, task := range tasks {
			if task.NodeID == h.id {
				listed[task.ID] = task
			}
		}
		containers, err := h.containers(ctx)
		if err != nil {
			return append(wrong, err.Error())
		}
		for _, one := range h.differences(ctx, listed, containers) {
			wrong = append(wrong, "host "+h.name+": "+one)
		}
	}
	return wrong
}

func (h *host) differences(ctx context.Context, listed map[string]*api.Task, containers []container.Summary) (wrong []string) {
	seen := map[string]bool{}
	for _, one := range containers {
		task := listed[taskOf(one)]
		switch {
		case task == nil:
			wrong = append(wrong, fmt.Sprintf("container %v %s is of no task", one.Names, one.State))
			continue
		case seen[task.ID]:
			wrong = append(wrong, fmt.Sprintf("container %v is another one of %s", one.Names, describe(task)))
		case (one.State == container.StateRunning) != (task.Status.State == api.TaskStateRunning):
			wrong = append(wrong, fmt.Sprintf("container %v %s of %s", one.Names, one.State, describe(task)))
		case one.State == container.StateRunning && !h.seen.has(one.ID):
			wrong = append(wrong, fmt.Sprintf("the start of container %v was not seen", one.Names))
		case task.Status.State > api.TaskStateRunning:
			wrong = append(wrong, h.wrongEnd(ctx, one, task)...)
		}
		seen[task.ID] = true
	}
	for id, task := range listed {
		status := task.Status.GetContainer()
		if !seen[id] && status != nil && status.ContainerID != "" {
			wrong = append(wrong, "there is no container of "+describe(task))
		}
		if task.DesiredState > api.TaskStateRunning && task.Status.State <= api.TaskStateRunning {
			wrong = append(wrong, "still to end: "+describe(task))
		}
	}
	return wrong
}

// wrongEnd says how what the swarm knows of a task's end differs from what the engine knows.
func (h *host) wrongEnd(ctx context.Context, one container.Summary, task *api.Task) []string {
	answer, err := h.engine.ContainerInspect(ctx, one.ID)
	if cerrdefs.IsNotFound(err) {
		return nil // the next look lacks the task too
	}
	if err != nil {
		return []string{err.Error()}
	}
	code, state := answer.State.ExitCode, task.Status.State
	if exitCode(task) != code || state == api.TaskStateCompleted && code != 0 || state == api.TaskStateFailed && code == 0 {
		return []string{fmt.Sprintf("container %v has ended with %d: %s", one.Names, code, describe(task))}
	}
	return nil
}
