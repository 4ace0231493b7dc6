package dockerexec

import (
	"context"
	"io"
	"strings"
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

// errFinal will not mend itself.
var errFinal = simError{"something is wrong", cerrdefs.ErrInternal}

// operations are the calls that each operation of the agent makes.
var operations = []struct {
	name   string
	state  api.TaskState // in which the agent does it
	stop   bool          // the task is to be shut down
	calls  []string
	after  api.TaskState // when it succeeded
	failed api.TaskState // when it failed for good
}{
	{"Prepare", api.TaskStatePreparing, false, []string{"NetworkCreate", "VolumeCreate", "ImagePull", "ContainerCreate"}, api.TaskStateReady, api.TaskStateRejected},
	{"Start", api.TaskStateStarting, false, []string{"ContainerInspect", "ContainerStart"}, api.TaskStateRunning, api.TaskStateFailed},
	{"Wait", api.TaskStateRunning, false, []string{"ContainerInspect"}, api.TaskStateCompleted, api.TaskStateFailed},
	{"Shutdown", api.TaskStateRunning, true, []string{"ContainerStop"}, api.TaskStateShutdown, api.TaskStateFailed},
}

// inState takes a task on an engine to state, with networks and a volume, and
// has it wanted to run or to stop.
func inState(t *testing.T, sim *simEngine, state api.TaskState, stop bool) (*controller, *api.Task) {
	t.Helper()
	task := taskAt(plainTask(), api.TaskStateAccepted)
	attach(task, "backend", "10.1.0.0/24")
	spec(task).Mounts = []api.Mount{{Type: api.MountTypeVolume, Source: "data", Target: "/data",
		VolumeOptions: &api.Mount_VolumeOptions{DriverConfig: &api.Driver{Name: "local"}}}}
	ctlr := newSimController(t, sim, task, WithRequestTimeout(time.Minute), WithPullAttempts(1))
	drive(t.Context(), t, task, ctlr, state)
	require.Equal(t, state, task.Status.State, task.Status.Err)
	if stop {
		task.DesiredState = api.TaskStateShutdown
	}
	return ctlr, task
}

// B36: an engine that is away, or answers wrongly for a time, fails no task.
// Wait does not even return.
func TestPassingFaultsAreTriedAgain(t *testing.T) {
	t.Parallel()
	for _, operation := range operations {
		for _, call := range operation.calls {
			for _, fault := range passingFaults {
				if call == "ImagePull" && (fault.err == nil || fault.name == "429") {
					continue // a pull may take as long as it likes; and this is the registry's
				}
				t.Run(operation.name+" "+call+" "+fault.name, func(t *testing.T) {
					t.Parallel()
					bubble(t, func(t *testing.T) {
						sim := newSimEngine(t)
						ctlr, task := inState(t, sim, operation.state, operation.stop)
						sim.fails(func(made string) error {
							if !strings.HasPrefix(made, call) {
								return nil
							}
							if fault.err == nil {
								time.Sleep(2 * time.Minute) // longer than a request may take
								return context.DeadlineExceeded
							}
							return fault.err
						})
						if operation.name == "Wait" {
							time.AfterFunc(time.Hour, func() { sim.fails(nil); sim.exit(taskName, 0) })
						} else {
							before := time.Now()
							status, err := exec.Do(t.Context(), task, ctlr)
							assert.Equal(t, exec.ErrTaskRetry, err)
							assert.Equal(t, operation.state, status.State, status.Err)
							assert.NotEmpty(t, status.Err)
							assert.Less(t, time.Since(before), 10*time.Minute)
							sim.fails(nil)
						}
						status, err := exec.Do(t.Context(), task, ctlr)
						require.NoError(t, err)
						assert.Equal(t, operation.after, status.State, status.Err)
						assert.Empty(t, status.Err)
					})
				})
			}
		}
	}
}

// B35
func TestContextsThatEndFailNoTask(t *testing.T) {
	t.Parallel()
	for _, operation := range operations {
		for _, call := range operation.calls {
			for _, ended := range []error{context.Canceled, context.DeadlineExceeded} {
				t.Run(operation.name+" "+call+" "+ended.Error(), func(t *testing.T) {
					t.Parallel()
					bubble(t, func(t *testing.T) {
						sim := newSimEngine(t)
						ctlr, task := inState(t, sim, operation.state, operation.stop)
						ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
						defer cancel()
						sim.fails(func(made string) error {
							if strings.HasPrefix(made, call) {
								if ended == context.Canceled {
									cancel()
								}
								time.Sleep(2 * time.Minute)
							}
							return nil
						})
						status, err := exec.Do(ctx, task, ctlr)
						assert.Equal(t, exec.ErrTaskRetry, err)
						assert.Equal(t, operation.state, status.State, status.Err)
						assert.Empty(t, status.Err)
						sim.fails(nil)
						if operation.name == "Wait" {
							sim.exit(taskName, 0)
						}
						drive(t.Context(), t, task, ctlr, operation.after)
						assert.Equal(t, operation.after, task.Status.State, task.Status.Err)
					})
				})
			}
		}
	}
}

func TestFinalErrorsEndATask(t *testing.T) {
	t.Parallel()
	for _, operation := range operations {
		for _, call := range operation.calls {
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
					ctlr, task := inState(t, sim, operation.state, operation.stop)
					sim.fails(func(made string) error {
						if strings.HasPrefix(made, call) {
							return errFinal
						}
						return nil
					})
					status, err := exec.Do(t.Context(), task, ctlr)
					require.NoError(t, err)
					assert.Equal(t, operation.failed, status.State)
					assert.Contains(t, status.Err, "something is wrong")
				})
			})
		}
	}
}

// B50: an answer without a state is an error, not a panic.
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
