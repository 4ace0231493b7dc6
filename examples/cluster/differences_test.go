package cluster

import (
	"testing"

	"github.com/docker/docker/api/types/container"
	"github.com/moby/swarmkit/v2/api"
	"github.com/stretchr/testify/assert"
)

// What is told of an engine that has not what the swarm lists for its node.
func TestDifferences(t *testing.T) {
	task := func(state, wanted api.TaskState, container string) *api.Task {
		return &api.Task{ID: "t1", Slot: 1, ServiceAnnotations: api.Annotations{Name: "web"}, DesiredState: wanted, Status: api.TaskStatus{
			State: state, RuntimeStatus: &api.TaskStatus_Container{Container: &api.ContainerStatus{ContainerID: container}}}}
	}
	of := func(id, state string) container.Summary {
		return container.Summary{ID: id, Names: []string{"/" + id}, State: state, Labels: map[string]string{"com.docker.swarm.task.id": "t1"}}
	}
	const running, shutdown = api.TaskStateRunning, api.TaskStateShutdown
	for _, tt := range []struct {
		name       string
		task       *api.Task
		containers []container.Summary
		want       []string
	}{
		{"as it should be", task(running, running, "a"), []container.Summary{of("a", "running")}, nil},
		{"prepared", task(api.TaskStateReady, running, "a"), []container.Summary{of("a", "created")}, nil},
		{"a start that was not seen", task(running, running, "b"), []container.Summary{of("b", "running")},
			[]string{"the start of container [/b] was not seen"}},
		{"of no task", nil, []container.Summary{of("a", "running")}, []string{"container [/a] running is of no task"}},
		{"two of one task", task(running, running, "a"), []container.Summary{of("a", "running"), of("b", "exited")},
			[]string{"container [/b] is another one of task t1, slot 1 of web, RUNNING, wanted RUNNING"}},
		{"runs after its end", task(shutdown, shutdown, "a"), []container.Summary{of("a", "running")},
			[]string{"container [/a] running of task t1, slot 1 of web, SHUTDOWN, wanted SHUTDOWN"}},
		{"has ended unseen", task(running, running, "a"), []container.Summary{of("a", "exited")},
			[]string{"container [/a] exited of task t1, slot 1 of web, RUNNING, wanted RUNNING"}},
		{"gone", task(running, running, "a"), nil, []string{"there is no container of task t1, slot 1 of web, RUNNING, wanted RUNNING"}},
		{"does not end", task(running, shutdown, "a"), []container.Summary{of("a", "running")},
			[]string{"still to end: task t1, slot 1 of web, RUNNING, wanted SHUTDOWN"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := &host{seen: newRecorder()}
			h.seen.note(event{1, "start", "a", "t1"}.message())
			listed := map[string]*api.Task{}
			if tt.task != nil {
				listed[tt.task.ID] = tt.task
			}
			assert.Equal(t, tt.want, h.differences(t.Context(), listed, tt.containers))
		})
	}
}
