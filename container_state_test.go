package dockerexec

import (
	"context"
	"io"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/events"
	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/moby/swarmkit/v2/api"
	"github.com/pkg/errors"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The states are those that engines answered, 20.10 and the newest alike.
func TestWhetherAContainerHasEnded(t *testing.T) {
	t.Parallel()
	const never, then = "0001-01-01T00:00:00Z", "2026-11-24T02:34:00.457721431Z"
	for name, test := range map[string]struct {
		state            container.State
		ended, unstarted bool
	}{
		"created":                       {container.State{Status: "created", StartedAt: never, FinishedAt: never}, false, true},
		"created, of a fake":            {container.State{Status: "created"}, false, true},
		"a start that failed":           {container.State{Status: "created", StartedAt: never, FinishedAt: never, ExitCode: 127, Error: "exec: no such file"}, false, true},
		"a start that the engine lost":  {container.State{Status: "created", StartedAt: never, FinishedAt: then, ExitCode: 3}, true, false},
		"a time that is none":           {container.State{Status: "created", FinishedAt: "yesterday"}, false, true},
		"the zero time of another zone": {container.State{Status: "created", FinishedAt: "0001-01-01T00:00:00+01:00"}, false, true},
		"running":                       {container.State{Status: "running", Running: true, StartedAt: then, FinishedAt: never}, false, false},
		"running again":                 {container.State{Status: "running", Running: true, StartedAt: then, FinishedAt: then}, false, false},
		"paused":                        {container.State{Status: "paused", Running: true, Paused: true, StartedAt: then, FinishedAt: never}, false, false},
		"restarting":                    {container.State{Status: "restarting", Running: true, StartedAt: then, FinishedAt: then}, false, false},
		"removing":                      {container.State{Status: "removing", StartedAt: then, FinishedAt: then}, false, false},
		"exited":                        {container.State{Status: "exited", StartedAt: then, FinishedAt: then}, true, false},
		"exited, of a fake":             {container.State{Status: "exited"}, true, false},
		"dead":                          {container.State{Status: "dead", StartedAt: then, FinishedAt: then}, true, false},
		"nothing, of a fake":            {container.State{}, false, false},
	} {
		answer := container.InspectResponse{ContainerJSONBase: &container.ContainerJSONBase{State: &test.state}}
		assert.Equal(t, test.ended, hasEnded(answer), name)
		assert.Equal(t, test.unstarted, isUnstarted(answer), name)
	}
}

// endedUnseen is what an engine shows of a container that it took up while it ran,
// without having seen its start, once that has exited.
func endedUnseen(code int) container.State {
	return container.State{Status: container.StateCreated, StartedAt: "0001-01-01T00:00:00Z", FinishedAt: "2026-11-24T02:34:00.457721431Z", ExitCode: code}
}

func TestTheEndOfAContainerOfWhichTheEngineMissedTheStart(t *testing.T) {
	t.Parallel()
	t.Run("Wait", func(t *testing.T) {
		t.Parallel()
		bubble(t, func(t *testing.T) {
			sim := newSimEngine(t)
			ctlr, task := runningTask(t, sim, plainTask())
			time.AfterFunc(time.Hour, func() {
				sim.with(taskName, func(c *simContainer) { c.state = endedUnseen(3); sim.emit(c, events.ActionDie) })
			})
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Hour)
			defer cancel()
			drive(ctx, t, task, ctlr, api.TaskStateCompleted)
			assert.Equal(t, api.TaskStateFailed, task.Status.State)
			assert.Equal(t, "task: non-zero exit (3)", task.Status.Err)
			assert.EqualValues(t, 3, task.Status.GetContainer().ExitCode)
		})
	})
	t.Run("Adapter.Wait", func(t *testing.T) {
		t.Parallel()
		bubble(t, func(t *testing.T) {
			sim := newSimEngine(t)
			ctlr, _ := runningTask(t, sim, plainTask())
			sim.with(taskName, func(c *simContainer) { c.state = endedUnseen(4) })
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Hour)
			defer cancel()
			answer, err := ctlr.adapter.Wait(ctx)
			require.NoError(t, err)
			assert.Equal(t, 4, answer.State.ExitCode)
		})
	})
	t.Run("Start", func(t *testing.T) { // which does not run it again
		t.Parallel()
		bubble(t, func(t *testing.T) {
			sim := newSimEngine(t)
			ctlr := newSimController(t, sim, plainTask())
			require.NoError(t, ctlr.Prepare(t.Context()))
			sim.with(taskName, func(c *simContainer) { c.state = endedUnseen(0) })
			assert.Equal(t, exec.ErrTaskStarted, ctlr.Start(t.Context()))
			assert.NotContains(t, sim.called(), "ContainerStart web.1.taskid")
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Hour)
			defer cancel()
			assert.NoError(t, ctlr.Wait(ctx))
		})
	})
	t.Run("Start, waiting for health", func(t *testing.T) {
		t.Parallel()
		bubble(t, func(t *testing.T) {
			sim, ctlr, _ := starting(t)
			time.AfterFunc(time.Hour, func() {
				sim.with(taskName, func(c *simContainer) { c.state = endedUnseen(5); sim.emit(c, events.ActionDie) })
			})
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Hour)
			defer cancel()
			assert.EqualError(t, ctlr.Start(ctx), "task: non-zero exit (5)")
		})
	})
}

func TestTheLogOfAContainerOfWhichTheEngineMissedTheStart(t *testing.T) {
	t.Parallel()
	for _, states := range [][]container.State{
		{endedUnseen(0)}, // ended before anybody asks
		{{Status: container.StateCreated}, {Status: container.StateCreated}, endedUnseen(0)}, // while its start is waited for
	} {
		bubble(t, func(t *testing.T) {
			client := newFakeClient(t)
			newEventSource(client)
			client.containerInspect = func(context.Context, string) (container.InspectResponse, error) {
				answer := logContainer(container.StateCreated)
				answer.State = &states[0]
				if len(states) > 1 {
					states = states[1:]
				}
				return answer, nil
			}
			requests := &fakeLog{records: []logRecord{{1, "2026-11-24T02:33:59.000000000Z", "its only line\n"}}}
			client.containerLogs = func(_ context.Context, _ string, o container.LogsOptions) (io.ReadCloser, error) {
				return requests.open(o, -1, nil), nil
			}
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Hour)
			defer cancel()
			sink := &logSink{}
			require.NoError(t, newTestAdapter(t, client, plainTask()).PublishLogs(ctx, api.LogSubscriptionOptions{Follow: true}, sink))
			assert.Equal(t, []string{"stdout its only line\n"}, sink.lines())
			require.Len(t, requests.requests, 1)
			assert.False(t, requests.requests[0].Follow) // for it does not run
		})
	}
}

func TestExitError(t *testing.T) {
	t.Parallel()
	ended := func(code int, message string) container.InspectResponse {
		return container.InspectResponse{ContainerJSONBase: &container.ContainerJSONBase{
			State: &container.State{Status: container.StateExited, ExitCode: code, Error: message}}}
	}
	require.NoError(t, ExitError(ended(0, ""), nil))

	err := ExitError(ended(3, ""), nil)
	require.EqualError(t, err, "task: non-zero exit (3)")
	coder, ok := err.(exec.ExitCoder) // as the agent does: nothing may be wrapped around it
	require.True(t, ok)
	assert.Equal(t, 3, coder.ExitCode())

	err = errors.Wrap(ExitError(ended(137, ""), ErrContainerUnhealthy), "web")
	require.EqualError(t, err, "web: task: non-zero exit (137): dockerexec: unhealthy container")
	assert.ErrorIs(t, err, ErrContainerUnhealthy)
	assert.Equal(t, ErrContainerUnhealthy, errors.Cause(err))
	require.ErrorAs(t, err, &coder)
	assert.Equal(t, 137, coder.ExitCode())

	require.EqualError(t, ExitError(ended(0, ""), ErrContainerUnhealthy), "task: non-zero exit (0): dockerexec: unhealthy container")
	require.EqualError(t, ExitError(ended(127, "no such file"), nil), "task: non-zero exit (127): no such file")
	require.EqualError(t, ExitError(container.InspectResponse{}, nil), "dockerexec: the engine's answer about the container has no state")
}
