package dockerexec

import (
	"testing"

	"github.com/docker/docker/api/types/container"
	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/moby/swarmkit/v2/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A container without the label is the task's own if its name has the task's ID
// in it, whoever asks; but it is never taken for what a create was to make.
func TestOneAnswerToWhoseAContainerIs(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, named string
		labels      map[string]string
		own         bool
		adopted     bool
	}{
		{"labelled", "", map[string]string{LabelTaskID: "taskid"}, true, true},
		{"labelled, named", "web", map[string]string{LabelTaskID: "taskid"}, true, true},
		{"no label", "", map[string]string{"x": "y"}, true, false},
		{"no labels", "", map[string]string{}, true, false},
		{"no label, named", "web", map[string]string{"x": "y"}, false, false},
		{"another task's", "", map[string]string{LabelTaskID: "other"}, false, false},
		{"another task's, named", "web", map[string]string{LabelTaskID: "other"}, false, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T) {
				ctx := t.Context()
				sim := newSimEngine(t)
				task := plainTask()
				task.Annotations.Name = test.named
				name := taskName
				if test.named != "" {
					name = test.named
				}
				put := func(status string) *controller {
					sim.mu.Lock()
					sim.containers[name] = &simContainer{id: "found", name: name, config: container.Config{Labels: test.labels},
						state: container.State{Status: status, Running: status == container.StateRunning}}
					sim.mu.Unlock()
					return newSimController(t, sim, taskAt(task, api.TaskStatePreparing))
				}
				accepted := func(what string, err error) {
					if test.own {
						assert.NoError(t, err, what)
					} else {
						assert.Error(t, err, what)
					}
				}
				if err := put(container.StateCreated).Prepare(ctx); test.adopted {
					require.Equal(t, exec.ErrTaskPrepared, err)
				} else {
					require.ErrorContains(t, err, "has its name")
				}
				accepted("Start", put(container.StateCreated).Start(ctx))
				accepted("Wait", put(container.StateExited).Wait(ctx))
				ctlr := put(container.StateExited)
				accepted("Logs", ctlr.adapter.checkLogOwner(container.InspectResponse{
					ContainerJSONBase: &container.ContainerJSONBase{ID: "found"}, Config: &container.Config{Labels: test.labels}}))
				status, err := ctlr.ContainerStatus(ctx)
				require.NoError(t, err)
				assert.Equal(t, test.own, status != nil, "ContainerStatus")
				if test.own || test.named != "" {
					require.NoError(t, put(container.StateRunning).Shutdown(ctx))
					sim.with(name, func(c *simContainer) { assert.Equal(t, test.own, !c.state.Running, "Shutdown") })
				}
				require.NoError(t, put(container.StateRunning).Remove(ctx))
				assert.Equal(t, test.own, len(sim.left()) == 0, "Remove")
			})
		})
	}
}
