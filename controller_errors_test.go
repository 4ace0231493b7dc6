package dockerexec

import (
	"context"
	"io"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/moby/swarmkit/v2/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var passingFaults = []struct {
	name string
	err  error
}{
	{"engine away", errAway},
	{"answer cut off", io.ErrUnexpectedEOF},
	{"connection reset", syscall.ECONNRESET},
	{"503", simError{"engine is shutting down", cerrdefs.ErrUnavailable}},
	{"429", simError{"too many requests", cerrdefs.ErrResourceExhausted}},
	{"older engine", simError{"client version 1.51 is too new. Maximum supported API version is 1.41", cerrdefs.ErrInvalidArgument}},
	{"no answer in time", nil}, // the engine hangs
}

// faultTime is longer than any time-out.
const faultTime = 5 * time.Minute

// errFinal will not mend itself.
var errFinal = simError{"something is wrong", cerrdefs.ErrInternal}

// agentStep is what the agent has a controller do.
type agentStep struct {
	name    string
	state   api.TaskState    // in which the agent does it
	stop    bool             // the task is to be shut down
	checked bool             // the container has a health check, and is healthy unless the operation starts it
	begin   func(*simEngine) // what happens before; nil: nothing
	from    string           // the call from which on others fail; empty: the first
	calls   []string         // that it makes, and with whose passing faults it returns
	waits   []string         // that it makes, and whose passing faults it sits out
	finish  func(*simEngine) // what it waits for; nil: nothing
	after   api.TaskState    // when it succeeded
	err     string           // of the task then
	failed  api.TaskState    // when it failed for good
}

var operations = []agentStep{
	{name: "Prepare", state: api.TaskStatePreparing, calls: []string{"NetworkCreate", "VolumeCreate", "ImagePull", "ContainerCreate"},
		after: api.TaskStateReady, failed: api.TaskStateRejected},
	{name: "Start", state: api.TaskStateStarting, calls: []string{"ContainerInspect", "ContainerStart"},
		after: api.TaskStateRunning, failed: api.TaskStateFailed},
	{name: "Start until healthy", state: api.TaskStateStarting, checked: true,
		from: "ContainerStart", waits: []string{"Events", "ContainerInspect"},
		finish: func(sim *simEngine) { sim.health(taskName, container.Healthy) }, after: api.TaskStateRunning, failed: api.TaskStateFailed},
	{name: "Start until unhealthy", state: api.TaskStateStarting, checked: true,
		from: "ContainerStart", waits: []string{"Events", "ContainerInspect"},
		finish: func(sim *simEngine) { sim.health(taskName, container.Unhealthy) },
		after:  api.TaskStateFailed, err: "task: non-zero exit (143): dockerexec: unhealthy container", failed: api.TaskStateFailed},
	{name: "Wait", state: api.TaskStateRunning, waits: []string{"Events", "ContainerInspect"},
		finish: func(sim *simEngine) { sim.exit(taskName, 0) }, after: api.TaskStateCompleted, failed: api.TaskStateFailed},
	{name: "Wait until unhealthy", state: api.TaskStateRunning, checked: true, waits: []string{"Events", "ContainerInspect"},
		finish: func(sim *simEngine) { sim.health(taskName, container.Unhealthy) },
		after:  api.TaskStateFailed, err: "task: non-zero exit (143): dockerexec: unhealthy container", failed: api.TaskStateFailed},
	{name: "Wait, unhealthy", state: api.TaskStateRunning, checked: true,
		begin: func(sim *simEngine) { sim.health(taskName, container.Unhealthy) },
		from:  "ContainerStop", waits: []string{"ContainerStop", "Events", "ContainerInspect"},
		after: api.TaskStateFailed, err: "task: non-zero exit (143): dockerexec: unhealthy container", failed: api.TaskStateFailed},
	{name: "Shutdown", state: api.TaskStateRunning, stop: true, calls: []string{"ContainerStop"},
		after: api.TaskStateShutdown, failed: api.TaskStateFailed},
}

// inState takes a task on an engine to state, with networks and a volume; change
// is nil or changes the task before.
func inState(t *testing.T, sim *simEngine, state api.TaskState, change func(*api.Task)) (*controller, *api.Task) {
	t.Helper()
	task := taskAt(plainTask(), api.TaskStateAccepted)
	attach(task, "backend", "10.1.0.0/24")
	spec(task).Mounts = []api.Mount{{Type: api.MountTypeVolume, Source: "data", Target: "/data",
		VolumeOptions: &api.Mount_VolumeOptions{DriverConfig: &api.Driver{Name: "local"}}}}
	if change != nil {
		change(task)
	}
	ctlr := newSimController(t, sim, task, WithRequestTimeout(time.Minute), WithPullAttempts(1))
	drive(t.Context(), t, task, ctlr, state)
	require.Equal(t, state, task.Status.State, task.Status.Err)
	return ctlr, task
}

// reach takes a task to where the operation comes next.
func (o agentStep) reach(t *testing.T, sim *simEngine) (*controller, *api.Task) {
	t.Helper()
	if o.checked && o.state == api.TaskStateRunning {
		sim.started = func(c *simContainer) { c.state.Health.Status = container.Healthy }
	}
	ctlr, task := inState(t, sim, o.state, func(task *api.Task) {
		if o.checked {
			spec(task).Healthcheck = &api.HealthConfig{Test: []string{"CMD", "check"}}
		}
	})
	if o.stop {
		task.DesiredState = api.TaskStateShutdown
	}
	if o.begin != nil {
		o.begin(sim)
	}
	return ctlr, task
}

// fails has the engine fail a call of the operation.
func (o agentStep) fails(sim *simEngine, call string, fault func() error) {
	var begun atomic.Bool
	sim.fails(func(made string) error {
		if strings.HasPrefix(made, o.from) {
			begun.Store(true)
		}
		if !begun.Load() || !strings.HasPrefix(made, call) {
			return nil
		}
		return fault()
	})
}

// mends has the engine well again, and what the operation waits for happen.
func (o agentStep) mends(sim *simEngine) {
	sim.fails(nil)
	if o.finish != nil {
		o.finish(sim)
	}
}

// An engine that is away, or answers wrongly for a time, fails no task.
// What waits does not even return.
func TestPassingFaultsAreTriedAgain(t *testing.T) {
	t.Parallel()
	for _, operation := range operations {
		for _, call := range slices.Concat(operation.calls, operation.waits) {
			for _, fault := range passingFaults {
				if call == "ImagePull" && (fault.err == nil || fault.name == "429") {
					continue // a pull may take as long as it likes; and this is the registry's
				}
				t.Run(operation.name+" "+call+" "+fault.name, func(t *testing.T) {
					t.Parallel()
					bubble(t, func(t *testing.T) {
						sim := newSimEngine(t)
						ctlr, task := operation.reach(t, sim)
						failed := 0
						operation.fails(sim, call, func() error {
							failed++
							if fault.err == nil {
								time.Sleep(2 * time.Minute) // longer than a request may take
								return context.DeadlineExceeded
							}
							return fault.err
						})
						before := time.Now()
						if slices.Contains(operation.waits, call) {
							time.AfterFunc(faultTime, func() { operation.mends(sim) })
						} else {
							status, err := exec.Do(t.Context(), task, ctlr)
							assert.Equal(t, exec.ErrTaskRetry, err)
							assert.Equal(t, operation.state, status.State, status.Err)
							assert.NotEmpty(t, status.Err)
							assert.Less(t, time.Since(before), 10*time.Minute)
							operation.mends(sim)
						}
						status, err := exec.Do(t.Context(), task, ctlr)
						require.NoError(t, err)
						assert.Equal(t, operation.after, status.State, status.Err)
						assert.Equal(t, operation.err, status.Err)
						assert.Positive(t, failed)
						if slices.Contains(operation.waits, call) {
							assert.Greater(t, time.Since(before), faultTime)
						}
					})
				})
			}
		}
	}
}

func TestContextsThatEndFailNoTask(t *testing.T) {
	t.Parallel()
	for _, operation := range operations {
		for _, call := range slices.Concat(operation.calls, operation.waits) {
			for _, ended := range []error{context.Canceled, context.DeadlineExceeded} {
				t.Run(operation.name+" "+call+" "+ended.Error(), func(t *testing.T) {
					t.Parallel()
					bubble(t, func(t *testing.T) {
						sim := newSimEngine(t)
						ctlr, task := operation.reach(t, sim)
						ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
						defer cancel()
						operation.fails(sim, call, func() error {
							if ended == context.Canceled {
								cancel()
							}
							time.Sleep(2 * time.Minute)
							return nil
						})
						status, err := exec.Do(ctx, task, ctlr)
						assert.Equal(t, exec.ErrTaskRetry, err)
						assert.Equal(t, ended, ctx.Err())
						assert.Equal(t, operation.state, status.State, status.Err)
						assert.Empty(t, status.Err)
						operation.mends(sim)
						drive(t.Context(), t, task, ctlr, operation.after)
						assert.Equal(t, operation.after, task.Status.State, task.Status.Err)
						assert.Equal(t, operation.err, task.Status.Err)
					})
				})
			}
		}
	}
}

// Whatever is said of the stream, what waits for it goes on waiting.
func TestFinalErrorsEndATask(t *testing.T) {
	t.Parallel()
	for _, operation := range operations {
		for _, call := range slices.Concat(operation.calls, operation.waits) {
			if call == "ContainerInspect" {
				continue // only a refusal is final, see TestARefusalToInspectIsFinal
			}
			t.Run(operation.name+" "+call, func(t *testing.T) {
				t.Parallel()
				bubble(t, func(t *testing.T) {
					sim := newSimEngine(t)
					if call == "ImagePull" {
						delete(sim.images, "example/web:1")
					}
					ctlr, task := operation.reach(t, sim)
					final := errFinal
					if operation.name == "Shutdown" || call == "ContainerStop" {
						final = errRefused // anything else is tried again
					}
					operation.fails(sim, call, func() error { return final })
					if call == "Events" {
						time.AfterFunc(faultTime, func() { operation.mends(sim) })
					}
					status, err := exec.Do(t.Context(), task, ctlr)
					require.NoError(t, err)
					if call == "Events" {
						assert.Equal(t, operation.after, status.State)
						assert.Equal(t, operation.err, status.Err)
						return
					}
					assert.Equal(t, operation.failed, status.State)
					assert.Contains(t, status.Err, final.text)
				})
			})
		}
	}
}

// An answer without a state is an error, not a panic.
func TestAnswersWithoutAState(t *testing.T) {
	t.Parallel()
	client := newFakeClient(t)
	client.containerInspect = func(context.Context, string) (container.InspectResponse, error) {
		return container.InspectResponse{}, nil
	}
	made, err := NewExecutor(client, nil).Controller(plainTask())
	require.NoError(t, err)
	require.EqualError(t, made.Start(t.Context()), "inspect container web.1.taskid: the engine's answer has no state")
	_, err = made.(*controller).ContainerStatus(t.Context())
	require.EqualError(t, err, "inspect container web.1.taskid: the engine's answer has no state")
}
