package main

import (
	"testing"

	"github.com/docker/docker/api/types/container"
	"github.com/moby/swarmkit/v2/api"
	"github.com/moby/swarmkit/v2/node"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockerexec/dockerexec"
)

// Two hosts and one task on each. A case changes what is listed or held.
func TestCheck(t *testing.T) {
	tests := []struct {
		name  string
		alter func(hosts []*host, tasks []*api.Task) []*api.Task
		want  string // empty: no difference
	}{
		{"as listed", func(_ []*host, tasks []*api.Task) []*api.Task { return tasks }, ""},
		{"a container is gone", func(hosts []*host, tasks []*api.Task) []*api.Task {
			hosts[1].engine.Containers()[0].RemoveByHand()
			return tasks
		}, "1 differences; b: task task-b (RUNNING) has no container"},
		{"a container has ended", func(hosts []*host, tasks []*api.Task) []*api.Task {
			hosts[1].engine.Containers()[0].Exit(1)
			return tasks
		}, "1 differences; b: the container of task task-b is exited, and the task is RUNNING"},
		{"a container is left behind", func(hosts []*host, tasks []*api.Task) []*api.Task {
			hosts[0].engine.AddContainer("old", map[string]string{dockerexec.LabelTaskID: "task-old"})
			return tasks
		}, "1 differences; a: container old is of no task that is listed"},
		{"a container is somebody else's", func(hosts []*host, tasks []*api.Task) []*api.Task {
			hosts[0].engine.AddContainer("other", nil)
			return tasks
		}, "1 differences; a: container other is of no task that is listed"},
		{"a task has two containers", func(hosts []*host, tasks []*api.Task) []*api.Task {
			hosts[0].engine.AddContainer("second", map[string]string{dockerexec.LabelTaskID: "task-a"})
			return tasks
		}, "1 differences; a: task task-a has a second container"},
		{"a container is on the wrong host", func(_ []*host, tasks []*api.Task) []*api.Task {
			tasks[0].NodeID = "node-b"
			return tasks
		}, "2 differences; a: container first is of no task that is listed; b: task task-a (RUNNING) has no container"},
		{"an old image", func(hosts []*host, tasks []*api.Task) []*api.Task {
			hosts[0].engine.Containers()[0].AlterInspect(func(c *container.InspectResponse) { c.Config.Image = firstImage })
			return tasks
		}, "1 differences; a: the container of task task-a has the image example/web:1, want example/other:1"},
		{"a task is to end", func(_ []*host, tasks []*api.Task) []*api.Task {
			tasks[0].DesiredState = api.TaskStateShutdown
			return tasks
		}, "2 differences; 1 tasks run and are to run, want 2; a: task task-a is RUNNING and is to be SHUTDOWN"},
		{"a task is to end on a lost host", func(hosts []*host, tasks []*api.Task) []*api.Task {
			hosts[0].lost = true
			tasks[0].DesiredState = api.TaskStateShutdown
			hosts[1].engine.AddContainer("third", map[string]string{dockerexec.LabelTaskID: "task-c"})
			return append(tasks, runningTask("task-c", "node-b"))
		}, ""},
		{"a task that a lost host never got to know", func(hosts []*host, tasks []*api.Task) []*api.Task {
			hosts[0].lost = true
			return append(tasks, &api.Task{ID: "task-c", NodeID: "node-a", DesiredState: api.TaskStateShutdown, Status: api.TaskStatus{State: api.TaskStateAssigned}})
		}, ""},
		{"a task that a host never got to know", func(_ []*host, tasks []*api.Task) []*api.Task {
			return append(tasks, &api.Task{ID: "task-c", NodeID: "node-a", DesiredState: api.TaskStateShutdown, Status: api.TaskStatus{State: api.TaskStateAssigned}})
		}, "2 differences; a: task task-c (ASSIGNED) has no container; a: task task-c is ASSIGNED and is to be SHUTDOWN"},
		{"a task without a host", func(_ []*host, tasks []*api.Task) []*api.Task {
			return append(tasks, &api.Task{ID: "task-c", Status: api.TaskStatus{Err: "no suitable node"}, DesiredState: api.TaskStateRunning})
		}, "1 differences; task task-c (NEW, to be RUNNING) is on no host: no suitable node"},
		{"a task too many", func(hosts []*host, tasks []*api.Task) []*api.Task {
			hosts[1].engine.AddContainer("third", map[string]string{dockerexec.LabelTaskID: "task-c"})
			return append(tasks, runningTask("task-c", "node-b"))
		}, "1 differences; 3 tasks run and are to run, want 2"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			var f faults
			hosts := []*host{newHost(agentsPart, node.Config{Hostname: "a"}, &f), newHost(agentsPart, node.Config{Hostname: "b"}, &f)}
			t.Cleanup(hosts[0].engine.Close)
			t.Cleanup(hosts[1].engine.Close)
			hosts[0].id, hosts[1].id = "node-a", "node-b"
			hosts[0].engine.AddContainer("first", map[string]string{dockerexec.LabelTaskID: "task-a"})
			hosts[1].engine.AddContainer("first", map[string]string{dockerexec.LabelTaskID: "task-b"})
			tasks := test.alter(hosts, []*api.Task{runningTask("task-a", "node-a"), runningTask("task-b", "node-b")})
			err := check(tasks, hosts, want{tasks: 2, image: "example/other:1"})
			if test.want == "" {
				require.NoError(t, err)
				return
			}
			require.EqualError(t, err, test.want)
			assert.NoError(t, f.err())
		})
	}
}

func runningTask(id, node string) *api.Task {
	return &api.Task{ID: id, NodeID: node, DesiredState: api.TaskStateRunning, Status: api.TaskStatus{State: api.TaskStateRunning}}
}
