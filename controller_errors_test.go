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
	"github.com/pkg/errors"
	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var passingFaults = []struct {
	name       string
	err        error
	connection bool // fails: nobody is there
	unsent     bool // the engine has certainly not done what it was asked for
}{
	{"engine away", errAway, true, true},
	{"answer cut off", io.ErrUnexpectedEOF, true, false},
	{"connection reset", syscall.ECONNRESET, true, false},
	{"503", simError{"engine is shutting down", cerrdefs.ErrUnavailable}, false, false},
	{"429", simError{"too many requests", cerrdefs.ErrResourceExhausted}, false, false},
	{"older engine", simError{"client version 1.51 is too new. Maximum supported API version is 1.41", cerrdefs.ErrInvalidArgument}, false, true},
	{"newer engine", simError{"client version 1.43 is too old. Minimum supported API version is 1.44, please upgrade your client to a newer version", cerrdefs.ErrInvalidArgument}, false, true},
	{"no answer in time", nil, false, false}, // the engine hangs
}

// faultTime is longer than any time-out.
const faultTime = 5 * time.Minute

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

// fails has the engine fail a call of the operation. With a stop it fails kills too: a
// stop that may have been sent is followed by a kill.
func (o agentStep) fails(sim *simEngine, call string, fault func() error) {
	var begun atomic.Bool
	sim.fails(func(made string) error {
		if strings.HasPrefix(made, o.from) {
			begun.Store(true)
		}
		if !begun.Load() || !strings.HasPrefix(made, call) && (call != "ContainerStop" || !strings.HasPrefix(made, "ContainerKill")) {
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
						var failed atomic.Bool
						operation.fails(sim, call, func() error {
							failed.Store(true)
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
						want := operation.err
						if call == "ContainerStop" && !fault.unsent {
							want = strings.Replace(want, "(143)", "(137)", 1)
						}
						assert.Equal(t, want, status.Err)
						assert.True(t, failed.Load())
						switch {
						case call == "Events" && !fault.connection: // inspects tell as well
							assert.GreaterOrEqual(t, time.Since(before), time.Minute)
						case slices.Contains(operation.waits, call):
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

// stateless answers an inspect of the one container without a state.
type stateless struct{ *simEngine }

func (s stateless) ContainerInspect(ctx context.Context, name string) (container.InspectResponse, error) {
	answer, err := s.simEngine.ContainerInspect(ctx, name)
	answer.ContainerJSONBase = nil
	return answer, err
}

// oddAnswers are what an engine may answer to an inspect that says nothing about
// the container.
var oddAnswers = map[string]error{
	"500":       simError{"RWLayer of container abc is unexpectedly nil", cerrdefs.ErrInternal},
	"409":       conflict("container is marked for removal"),
	"no class":  errors.New("something odd"),
	"not JSON":  errors.New("invalid character '<' looking for beginning of value"),
	"unknown":   simError{"what now", cerrdefs.ErrUnknown},
	"data lost": simError{"layer does not exist", cerrdefs.ErrDataLoss},
}

// refusals do not mend by asking again.
var refusals = map[string]error{
	"400": simError{"invalid name", cerrdefs.ErrInvalidArgument},
	"401": simError{"who are you", cerrdefs.ErrUnauthenticated},
	"403": simError{"authorization denied by plugin", cerrdefs.ErrPermissionDenied},
	"501": simError{"not supported", cerrdefs.ErrNotImplemented},
}

func failInspect(err error) func(string) error {
	return func(call string) error {
		if strings.HasPrefix(call, "ContainerInspect") {
			return err
		}
		return nil
	}
}

// An answer that says nothing about the container does not end its task: it is
// asked again, and said once.
func TestWaitOutlastsOddAnswers(t *testing.T) {
	t.Parallel()
	for name, odd := range oddAnswers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T) {
				sim := newSimEngine(t)
				ctlr, _ := runningTask(t, sim, plainTask())
				sim.forgetCalls()
				sim.fails(failInspect(odd))
				ctx, lines := logged(t)
				wait := asynchronously(func() error { return ctlr.Wait(ctx) })
				time.Sleep(10 * time.Minute)
				assert.Greater(t, len(sim.called()), 100)
				assert.Less(t, len(sim.called()), 480)
				assert.Equal(t, []string{"container not inspected; it will be looked at again"}, lines(logrus.WarnLevel))

				sim.fails(nil)
				time.Sleep(10 * time.Second)
				require.Len(t, lines(logrus.InfoLevel), 2)
				assert.Regexp(t, `^container inspected again after (9m59\.\d+|10m\d(\.\d+)?)s$`, lines(logrus.InfoLevel)[1])

				sim.fails(failInspect(odd)) // another outage, which is worth its own line
				time.Sleep(10 * time.Minute)
				assert.Len(t, lines(logrus.WarnLevel), 2)
				sim.fails(nil)
				sim.exit(taskName, 6)
				assert.EqualError(t, wait(), "task: non-zero exit (6)")
			})
		})
	}
}

// silent answers no inspect while it is mute.
type silent struct {
	*simEngine
	mute  atomic.Bool
	first atomic.Pointer[time.Time] // when it first did not
}

func (s *silent) ContainerInspect(ctx context.Context, name string) (container.InspectResponse, error) {
	if s.mute.Load() {
		now := time.Now()
		s.first.CompareAndSwap(nil, &now)
		<-ctx.Done()
		return container.InspectResponse{}, ctx.Err()
	}
	return s.simEngine.ContainerInspect(ctx, name)
}

// The stream says nothing of an engine that hangs on one container. Once that answers
// again, the end is reported.
func TestWaitSaysOnceThatTheEngineHangsOnTheContainer(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		sim := newSimEngine(t)
		runningTask(t, sim, plainTask())
		engine := &silent{simEngine: sim}
		ctlr, err := NewExecutor(engine, nil).Controller(taskAt(plainTask(), api.TaskStateRunning))
		require.NoError(t, err)
		ctx, lines := logged(t)
		wait := asynchronously(func() error { return ctlr.Wait(ctx) })
		time.Sleep(time.Minute)
		engine.mute.Store(true)
		time.Sleep(20 * time.Minute)
		assert.Equal(t, []string{"container not inspected; it will be looked at again"}, lines(logrus.WarnLevel))

		engine.mute.Store(false)
		hung := time.Since(*engine.first.Load())
		time.Sleep(5 * time.Minute)
		require.Len(t, lines(logrus.InfoLevel), 2)
		text, found := strings.CutPrefix(lines(logrus.InfoLevel)[1], "container inspected again after ")
		require.True(t, found)
		said, err := time.ParseDuration(text)
		require.NoError(t, err)
		assert.GreaterOrEqual(t, said, hung.Round(time.Millisecond))

		engine.mute.Store(true)
		time.Sleep(20 * time.Minute)
		assert.Len(t, lines(logrus.WarnLevel), 2)
		engine.mute.Store(false)
		sim.exit(taskName, 6)
		assert.EqualError(t, wait(), "task: non-zero exit (6)")
	})
}

func TestWaitOutlastsAnAnswerWithoutAState(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		sim := newSimEngine(t)
		runningTask(t, sim, plainTask())
		made, err := NewExecutor(stateless{sim}, nil).Controller(taskAt(plainTask(), api.TaskStateRunning))
		require.NoError(t, err)
		ctx, lines := logged(t)
		ctx, cancel := context.WithTimeout(ctx, time.Hour)
		defer cancel()
		assert.Equal(t, context.DeadlineExceeded, made.Wait(ctx))
		assert.Len(t, lines(logrus.WarnLevel), 1)
	})
}

// A container that is gone after such answers is gone.
func TestAnOddAnswerIsNotTheLastWord(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		sim := newSimEngine(t)
		ctlr, _ := runningTask(t, sim, plainTask())
		sim.fails(failInspect(oddAnswers["500"]))
		wait := asynchronously(func() error { return ctlr.Wait(t.Context()) })
		time.Sleep(time.Minute)
		require.NoError(t, sim.ContainerRemove(t.Context(), taskName, container.RemoveOptions{Force: true}))
		sim.fails(nil)
		assert.Equal(t, ErrContainerDestroyed, wait())
	})
}

func TestARefusalToInspectIsFinal(t *testing.T) {
	t.Parallel()
	for name, refusal := range refusals {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T) {
				sim := newSimEngine(t)
				ctlr, _ := runningTask(t, sim, plainTask())
				sim.fails(failInspect(refusal))
				before := time.Now()
				want := "inspect container web.1.taskid: " + refusal.Error()
				err := ctlr.Wait(t.Context())
				require.EqualError(t, err, want)
				assert.False(t, exec.IsTemporary(err))
				err = ctlr.Start(t.Context())
				require.EqualError(t, err, want)
				assert.False(t, exec.IsTemporary(err))
				assert.Less(t, time.Since(before), time.Second)
			})
		})
	}
}

// Start looks before it does anything. An odd answer then is no reason to fail a
// task whose container may be running: the agent starts again.
func TestStartOutlastsOddAnswers(t *testing.T) {
	t.Parallel()
	for name, odd := range oddAnswers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T) {
				sim, ctlr, task := starting(t)
				sim.fails(failInspect(odd))
				err := ctlr.Start(t.Context())
				assert.True(t, exec.IsTemporary(err), err)
				assert.EqualError(t, err, "inspect container web.1.taskid: "+odd.Error())
				sim.fails(nil)

				time.AfterFunc(time.Minute, func() { sim.fails(failInspect(odd)) })
				time.AfterFunc(time.Hour, func() { sim.fails(nil); sim.health(taskName, container.Healthy) })
				before := time.Now()
				drive(t.Context(), t, task, ctlr, api.TaskStateRunning)
				assert.Equal(t, api.TaskStateRunning, task.Status.State, task.Status.Err)
				assert.GreaterOrEqual(t, time.Since(before), time.Hour)
			})
		})
	}
	bubble(t, func(t *testing.T) { // what is not there is no odd answer
		ctlr := newSimController(t, newSimEngine(t), plainTask())
		err := ctlr.Start(t.Context())
		require.ErrorContains(t, err, "No such container: web.1.taskid")
		assert.False(t, exec.IsTemporary(err))
	})
}

// What is put before an engine's words names the container, and must not make
// another object's absence that of the container.
func TestALostLayerIsNoLostContainer(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		sim := newSimEngine(t)
		_, task := runningTask(t, sim, plainTask())
		sim.fails(failInspect(oddAnswers["data lost"]))
		fresh := newSimController(t, sim, task)
		_, err := fresh.adapter.Inspect(t.Context())
		require.ErrorContains(t, err, "layer does not exist")
		assert.False(t, isContainerGone(err))
		_, err = fresh.ContainerStatus(t.Context())
		require.ErrorContains(t, err, "layer does not exist")
		sim.fails(nil)
		require.NoError(t, sim.ContainerRemove(t.Context(), taskName, container.RemoveOptions{Force: true}))
		_, err = fresh.adapter.Inspect(t.Context())
		assert.True(t, isContainerGone(err), err)
	})
}

// The adapter's own Wait leaves it to its caller what to make of such an answer.
func TestTheAdaptersWaitReportsOddAnswers(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		sim := newSimEngine(t)
		ctlr, _ := runningTask(t, sim, plainTask())
		sim.fails(failInspect(oddAnswers["500"]))
		_, err := ctlr.adapter.Wait(t.Context())
		require.EqualError(t, err, "inspect container web.1.taskid: Error response from daemon: RWLayer of container abc is unexpectedly nil")
		assert.False(t, exec.IsTemporary(err))
	})
}

// Wait and Start, also while it waits for health, have nothing to do with a
// container of somebody else.
func TestAStrangersContainerIsNotWaitedFor(t *testing.T) {
	t.Parallel()
	belongs := func(sim *simEngine, task string) {
		sim.with(taskName, func(c *simContainer) {
			c.config.Labels = map[string]string{LabelTaskID: task}
			sim.emit(c, "rename")
		})
	}
	const want = "container web.1.taskid (container-00) belongs to task other"
	bubble(t, func(t *testing.T) {
		sim := newSimEngine(t)
		ctlr, _ := runningTask(t, sim, plainTask())
		belongs(sim, "other")
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		assert.EqualError(t, ctlr.Wait(ctx), want)
		assert.EqualError(t, ctlr.Start(ctx), want)
	})
	bubble(t, func(t *testing.T) {
		sim, ctlr, _ := starting(t)
		time.AfterFunc(time.Minute, func() { belongs(sim, "other") })
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		assert.EqualError(t, ctlr.Start(ctx), want)
	})
}
