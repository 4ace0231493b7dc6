package dockerexec

import (
	"context"
	"errors"
	"fmt"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/events"
	gogotypes "github.com/gogo/protobuf/types"
	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/moby/swarmkit/v2/api"
	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// One inspect a step serves both statuses.
func TestRequestsOfATaskUpToRunning(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		sim := newSimEngine(t)
		ctlr := newSimController(t, sim, plainTask())
		require.NoError(t, ctlr.Prepare(t.Context()))
		require.NoError(t, ctlr.Start(t.Context()))
		assert.Equal(t, []string{
			"ImagePull example/web:1", "ContainerCreate web.1.taskid", "ContainerInspect web.1.taskid", "ContainerStart web.1.taskid",
		}, sim.called())

		sim = newSimEngine(t)
		runningTask(t, sim, plainTask())
		assert.Equal(t, []string{
			"ImagePull example/web:1", "ContainerCreate web.1.taskid",
			"ContainerInspect web.1.taskid", // the status in STARTING
			"ContainerInspect web.1.taskid", "ContainerStart web.1.taskid",
			"ContainerInspect web.1.taskid", // the status in RUNNING
		}, sim.called())
	})
}

func TestATaskCompletes(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		sim := newSimEngine(t)
		task := plainTask()
		attach(task, "backend", "10.1.0.0/24")
		ctlr, task := runningTask(t, sim, task)
		assert.Equal(t, &api.ContainerStatus{ContainerID: "container-00000002", PID: 4711}, task.Status.GetContainer())

		time.AfterFunc(time.Hour, func() { sim.exit(taskName, 0) })
		drive(t.Context(), t, task, ctlr, api.TaskStateCompleted)
		assert.Equal(t, api.TaskStateCompleted, task.Status.State, task.Status.Err)
		assert.Equal(t, &api.ContainerStatus{ContainerID: "container-00000002"}, task.Status.GetContainer())

		require.NoError(t, ctlr.Remove(t.Context()))
		require.NoError(t, ctlr.Close())
		assert.Empty(t, sim.left())
	})
}

// The exit error has the status, so that the agent need not ask for a
// container that may be gone.
func TestATaskFailsWithItsExitCode(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		sim := newSimEngine(t)
		ctlr, task := runningTask(t, sim, plainTask())
		sim.exit(taskName, 3)
		sim.forgetCalls()
		drive(t.Context(), t, task, ctlr, api.TaskStateCompleted)
		assert.Equal(t, api.TaskStateFailed, task.Status.State)
		assert.Equal(t, "task: non-zero exit (3)", task.Status.Err)
		assert.Equal(t, &api.ContainerStatus{ContainerID: "container-00000001", ExitCode: 3}, task.Status.GetContainer())
		assert.Equal(t, &api.PortStatus{}, task.Status.PortStatus)
		assert.Equal(t, []string{"ContainerInspect web.1.taskid"}, sim.called())
	})
}

// A new controller finds what another process has left, whatever it did last.
func TestAFreshControllerTakesATaskUp(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name  string
		state api.TaskState
		done  int // how many of Prepare and Start were done
		want  []string
	}{
		// What is prepared is not made, nor pulled, again.
		{"killed in PREPARING after the create", api.TaskStatePreparing, 1, []string{
			"ContainerInspect web.1.taskid",
			"ContainerInspect web.1.taskid",
			"ContainerInspect web.1.taskid", "ContainerStart web.1.taskid",
			"ContainerInspect web.1.taskid",
		}},
		{"killed in PREPARING before the create", api.TaskStatePreparing, 0, []string{
			"ContainerInspect web.1.taskid", "NetworkCreate backend", "ImagePull example/web:1", "ContainerCreate web.1.taskid",
			"ContainerInspect web.1.taskid",
			"ContainerInspect web.1.taskid", "ContainerStart web.1.taskid",
			"ContainerInspect web.1.taskid",
		}},
		{"killed in STARTING before the start", api.TaskStateStarting, 1, []string{
			"ContainerInspect web.1.taskid", "ContainerStart web.1.taskid",
			"ContainerInspect web.1.taskid",
		}},
		{"killed in STARTING after the start", api.TaskStateStarting, 2, []string{
			"ContainerInspect web.1.taskid",
			"ContainerInspect web.1.taskid",
		}},
		{"killed in RUNNING", api.TaskStateRunning, 2, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T) {
				sim := newSimEngine(t)
				task := plainTask()
				attach(task, "backend", "10.1.0.0/24")
				before := newSimController(t, sim, task)
				if test.done > 0 {
					require.NoError(t, before.Prepare(t.Context()))
				}
				if test.done > 1 {
					require.NoError(t, before.Start(t.Context()))
				}
				sim.forgetCalls()

				taskAt(task, test.state)
				ctlr := newSimController(t, sim, task)
				drive(t.Context(), t, task, ctlr, api.TaskStateRunning)
				require.Equal(t, api.TaskStateRunning, task.Status.State, task.Status.Err)
				assert.Equal(t, test.want, sim.called())

				sim.exit(taskName, 3)
				drive(t.Context(), t, task, ctlr, api.TaskStateCompleted)
				assert.Equal(t, api.TaskStateFailed, task.Status.State)
				assert.EqualValues(t, 3, task.Status.GetContainer().ExitCode)
				require.NoError(t, ctlr.Remove(t.Context()))
				assert.Empty(t, sim.left())
			})
		})
	}
}

// Each method may be called again, in any order that the agent has.
func TestMethodsMayBeRepeated(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		ctx := t.Context()
		sim := newSimEngine(t)
		ctlr := newSimController(t, sim, plainTask())
		require.NoError(t, ctlr.Shutdown(ctx)) // before Prepare
		require.NoError(t, ctlr.Terminate(ctx))
		require.NoError(t, ctlr.Prepare(ctx))
		assert.Equal(t, exec.ErrTaskPrepared, ctlr.Prepare(ctx))
		require.NoError(t, ctlr.Shutdown(ctx)) // never started
		require.NoError(t, ctlr.Terminate(ctx))
		require.NoError(t, ctlr.Start(ctx))
		assert.Equal(t, exec.ErrTaskPrepared, ctlr.Prepare(ctx))
		assert.Equal(t, exec.ErrTaskStarted, ctlr.Start(ctx))
		sim.with(taskName, func(c *simContainer) { c.state.Status, c.state.Paused = container.StatePaused, true })
		assert.Equal(t, exec.ErrTaskStarted, ctlr.Start(ctx))
		require.NoError(t, ctlr.Shutdown(ctx)) // paused
		assert.Equal(t, exec.ErrTaskStarted, ctlr.Start(ctx))
		for range 2 {
			require.EqualError(t, ctlr.Wait(ctx), "task: non-zero exit (143)")
		}
		require.NoError(t, ctlr.Shutdown(ctx))
		require.NoError(t, ctlr.Terminate(ctx))
		require.NoError(t, ctlr.Remove(ctx))
		require.NoError(t, ctlr.Remove(ctx))
		require.NoError(t, ctlr.Shutdown(ctx))
		require.NoError(t, ctlr.Terminate(ctx))
		require.NoError(t, ctlr.Update(ctx, plainTask()))
		for range 2 {
			require.NoError(t, ctlr.Close())
		}
		assert.Empty(t, sim.left())
	})
}

func TestTerminateKills(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		ctlr, _ := runningTask(t, newSimEngine(t), plainTask())
		wait := asynchronously(func() error { return ctlr.Wait(t.Context()) })
		require.NoError(t, ctlr.Terminate(t.Context()))
		require.EqualError(t, wait(), "task: non-zero exit (137)")
	})
}

func TestUpdateSaysNothing(t *testing.T) {
	t.Parallel()
	ctx, lines := logged(t)
	ctlr := newSimController(t, newSimEngine(t), plainTask())
	require.NoError(t, ctlr.Update(ctx, plainTask()))
	assert.Empty(t, lines(logrus.TraceLevel))
}

// A fake need not know of labels, nor answer with more than a state.
func TestAFakeMayAnswerWithTheStateAlone(t *testing.T) {
	t.Parallel()
	client := newFakeClient(t)
	state := container.State{Status: container.StateCreated}
	client.containerInspect = func(context.Context, string) (container.InspectResponse, error) {
		return container.InspectResponse{ContainerJSONBase: &container.ContainerJSONBase{State: &state}}, nil
	}
	client.containerStart = func(context.Context, string, container.StartOptions) error { return nil }
	client.containerStop = func(context.Context, string, container.StopOptions) error { return nil }
	client.events = func(context.Context, events.ListOptions) (<-chan events.Message, <-chan error) { return nil, nil }
	made, err := NewExecutor(client, nil).Controller(plainTask())
	require.NoError(t, err)
	require.NoError(t, made.Start(t.Context()))
	ports, err := made.(*controller).PortStatus(t.Context())
	require.NoError(t, err)
	assert.Equal(t, &api.PortStatus{}, ports)
	state = container.State{Status: container.StateExited, ExitCode: 3}
	require.EqualError(t, made.Wait(t.Context()), "task: non-zero exit (3)")
	require.NoError(t, made.Shutdown(t.Context()))
}

func TestAfterCloseMethodsSaySo(t *testing.T) {
	t.Parallel()
	for _, method := range methods {
		t.Run(method.name, func(t *testing.T) {
			t.Parallel()
			sim := newSimEngine(t)
			ctlr := newSimController(t, sim, plainTask())
			require.NoError(t, ctlr.Close())
			assert.Equal(t, exec.ErrControllerClosed, method.call(t.Context(), ctlr))
			assert.Empty(t, sim.called())
		})
	}
}

// A context that ended comes bare, whatever the client makes of it.
func TestEachMethodEndsWithItsContextAndWithClose(t *testing.T) {
	t.Parallel()
	for _, method := range methods {
		if method.name == "Update" {
			continue // does not block
		}
		for _, test := range []struct {
			name string
			end  func(*controller, context.CancelFunc)
			ctx  func(context.Context) (context.Context, context.CancelFunc)
			want error
		}{
			{"cancelled", func(_ *controller, cancel context.CancelFunc) { cancel() }, context.WithCancel, context.Canceled},
			{"deadline", func(*controller, context.CancelFunc) {}, func(ctx context.Context) (context.Context, context.CancelFunc) {
				return context.WithTimeout(ctx, time.Minute)
			}, context.DeadlineExceeded},
			{"closed", func(c *controller, _ context.CancelFunc) { assert.NoError(t, c.Close()) }, context.WithCancel, exec.ErrControllerClosed},
		} {
			t.Run(method.name+" "+test.name, func(t *testing.T) {
				t.Parallel()
				bubble(t, func(t *testing.T) {
					sim := newSimEngine(t)
					sim.latency = time.Hour
					ctlr := newSimController(t, sim, plainTask(), WithRequestTimeout(0))
					ctx, cancel := test.ctx(t.Context())
					defer cancel()
					done := asynchronously(func() error { return method.call(ctx, ctlr) })
					time.Sleep(time.Minute - time.Nanosecond)
					before := time.Now()
					test.end(ctlr, cancel)
					assert.Equal(t, test.want, done())
					assert.LessOrEqual(t, time.Since(before), time.Second)
				})
			})
		}
	}
}

func TestCloseMayBeCalledAtOnce(t *testing.T) {
	t.Parallel()
	ctlr := newSimController(t, newSimEngine(t), plainTask())
	var all []func() error
	for range 20 {
		all = append(all, asynchronously(ctlr.Close))
	}
	for _, err := range all {
		require.NoError(t, err())
	}
}

// An agent that stops ends its contexts and calls nothing.
func TestNothingWaitsForClose(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) { // which fails if a goroutine is left
		sim := newSimEngine(t)
		sim.latency = time.Second
		ctx, cancel := context.WithCancel(t.Context())
		ctlr, _ := runningTask(t, sim, plainTask())
		var all []func() error
		for _, method := range methods {
			if method.name == "Wait" || method.name == "Logs" {
				all = append(all, asynchronously(func() error { return method.call(ctx, ctlr) }))
			}
		}
		preparing := newSimController(t, sim, func() *api.Task { task := plainTask(); task.ID = "another"; return task }())
		all = append(all, asynchronously(func() error { return preparing.Prepare(ctx) }))
		time.Sleep(2500 * time.Millisecond) // within the create
		cancel()
		for _, err := range all {
			assert.Equal(t, context.Canceled, err())
		}
	})
}

func TestShutdownEndsAPull(t *testing.T) {
	t.Parallel()
	for name, stop := range map[string]func(*controller, context.Context) error{"Shutdown": (*controller).Shutdown, "Terminate": (*controller).Terminate} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T) {
				sim := newSimEngine(t)
				pulls := 0
				sim.pulling = func(ctx context.Context) error {
					if pulls++; pulls > 1 {
						return nil
					}
					<-ctx.Done()
					return ctx.Err()
				}
				ctlr := newSimController(t, sim, plainTask())
				prepare := asynchronously(func() error { return ctlr.Prepare(t.Context()) })
				synctest.Wait()
				require.NoError(t, stop(ctlr, t.Context()))
				assert.Equal(t, context.Canceled, prepare())
				assert.Empty(t, sim.left())

				// The pull that was ended is not remembered.
				require.NoError(t, ctlr.Prepare(t.Context()))
				assert.Equal(t, 2, pulls)
				assert.Equal(t, []string{"container web.1.taskid"}, sim.left())
			})
		})
	}
}

// A making call is not given up: a Shutdown meanwhile waits for it, and so stops
// what was started.
func TestShutdownWaitsForAStart(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		sim := newSimEngine(t)
		ctlr := newSimController(t, sim, plainTask())
		require.NoError(t, ctlr.Prepare(t.Context()))
		sim.latency, sim.slow = time.Second, 5*time.Second
		start := asynchronously(func() error { return ctlr.Start(t.Context()) })
		time.Sleep(2500 * time.Millisecond)
		require.NoError(t, ctlr.Shutdown(t.Context()))
		assert.Equal(t, context.Canceled, start())
		sim.with(taskName, func(c *simContainer) { assert.Equal(t, container.StateExited, c.state.Status) })
	})
}

func TestPrepareReturnsAtOnceAndTheNextGoesOn(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		sim := newSimEngine(t)
		sim.latency = time.Second
		ctlr := newSimController(t, sim, plainTask())
		ctx, cancel := context.WithTimeout(t.Context(), 2500*time.Millisecond) // within the create
		defer cancel()
		assert.Equal(t, context.DeadlineExceeded, ctlr.Prepare(ctx))
		assert.Equal(t, exec.ErrTaskPrepared, ctlr.Prepare(t.Context()))
		assert.Equal(t, []string{
			"ImagePull example/web:1", "ContainerCreate web.1.taskid", "ContainerInspect web.1.taskid",
		}, sim.called())
	})
}

// A create of which the answer is lost, and then the engine, is found again.
func TestACreateWithoutAnAnswerIsFound(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		sim := newSimEngine(t)
		lost := false
		sim.lost = func(call string) error {
			if call == "ContainerCreate web.1.taskid" && !lost {
				lost = true
				return errAway
			}
			return nil
		}
		ctlr, _ := runningTask(t, sim, plainTask())
		assert.Equal(t, []string{
			"ImagePull example/web:1", "ContainerCreate web.1.taskid",
			"ContainerInspect web.1.taskid", // found: neither pulled nor created again
		}, sim.called()[:3])
		assert.Len(t, sim.called(), 7)
		sim.exit(taskName, 0)
		require.NoError(t, ctlr.Wait(t.Context()))
		require.NoError(t, ctlr.Remove(t.Context()))
		assert.Empty(t, sim.left())
	})
}

func TestLogsArePublished(t *testing.T) {
	t.Parallel()
	client := newFakeClient(t)
	statuses(client, "exited")
	client.containerLogs = func(_ context.Context, _ string, o container.LogsOptions) (io.ReadCloser, error) {
		assert.Equal(t, container.LogsOptions{ShowStderr: true, Timestamps: true, Since: "5.000000006", Tail: "7"}, o)
		return (&fakeLog{records: twoLines}).open(container.LogsOptions{ShowStderr: true}, -1, nil), nil
	}
	ctlr := newController(newTestAdapter(t, client, plainTask()), api.TaskStateNew)
	var sink logSink
	require.NoError(t, ctlr.Logs(t.Context(), &sink, api.LogSubscriptionOptions{
		Streams: []api.LogStream{api.LogStreamStderr}, Since: &gogotypes.Timestamp{Seconds: 5, Nanos: 6}, Tail: -8,
	}))
	assert.Equal(t, []string{"stderr two\n"}, sink.lines())
}

func TestLogOptionsThatAreRefused(t *testing.T) {
	t.Parallel()
	err := newController(newTestAdapter(t, newFakeClient(t), plainTask()), api.TaskStateNew).Logs(t.Context(), &logSink{}, api.LogSubscriptionOptions{Tail: 1})
	require.ErrorContains(t, err, "tail relative to start of logs not supported via docker API")
}

// A service's log is asked of all its tasks, those that are still pulled and those
// that are removed too. SwarmKit logs each error.
func TestLogsOfNoContainerAreEmpty(t *testing.T) {
	t.Parallel()
	client := newFakeClient(t)
	client.containerInspect = func(context.Context, string) (container.InspectResponse, error) {
		return container.InspectResponse{}, errors.New("Error response from daemon: No such container: " + taskName)
	}
	require.NoError(t, newController(newTestAdapter(t, client, plainTask()), api.TaskStateNew).Logs(t.Context(), &logSink{}, api.LogSubscriptionOptions{}))
}

// A Remove that comes once a step has returned stops the container itself, and the
// step does not take it away before.
func TestAStepReturnsOnceItIsUndone(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		sim := newSimEngine(t)
		sim.latency = time.Second
		ctlr := newSimController(t, sim, plainTask())
		require.NoError(t, ctlr.detached(t.Context(), func(ctx context.Context) error {
			err := ctlr.adapter.Create(ctx)
			ctlr.mu.Lock()
			defer ctlr.mu.Unlock()
			ctlr.removed = true
			return err
		}))
		sim.mu.Lock()
		defer sim.mu.Unlock()
		assert.Contains(t, sim.calls, "ContainerCreate web.1.taskid")
		assert.Empty(t, sim.containers)
	})
}

// filesController is a controller of ownedTask, as a new process has it.
func filesController(t testing.TB, sim *simEngine, store fileStore, task *api.Task) *controller {
	t.Helper()
	made := NewExecutor(filesSim{sim}, nil, WithSecretsDir(store.dir))
	made.(*executor).engine.files = store
	require.NoError(t, made.Configure(t.Context(), &api.Node{Description: &api.NodeDescription{Hostname: "host-1"}}))
	made.(exec.SecretsProvider).Secrets().Add(api.Secret{ID: "s1", Spec: api.SecretSpec{Data: []byte("payload of s1")}})
	made.(exec.ConfigsProvider).Configs().Add(api.Config{ID: "c1", Spec: api.ConfigSpec{Data: []byte("payload of c1")}})
	ctlr, err := made.Controller(task)
	require.NoError(t, err)
	return ctlr.(*controller)
}

// The agent calls Remove while Prepare and Start run, and then forgets the task.
func TestRemoveMeanwhileLeavesNoFiles(t *testing.T) {
	t.Parallel()
	for point := range 28 {
		t.Run(fmt.Sprint("point ", point), func(t *testing.T) {
			t.Parallel()
			store := newTestStore(t)
			bubble(t, func(t *testing.T) {
				sim := newSimEngine(t)
				sim.latency = time.Second
				ctlr := filesController(t, sim, store, ownedTask())
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				run := asynchronously(func() error {
					if err := ctlr.Prepare(ctx); err != nil {
						return err
					}
					return ctlr.Start(ctx)
				})
				time.Sleep(time.Duration(point) * 500 * time.Millisecond)
				if point%2 == 1 { // the agent ends the operation as well, at about the same time
					time.AfterFunc(time.Millisecond, cancel)
				}
				require.NoError(t, ctlr.Remove(t.Context()))
				_ = run() // fails, or was done before
				time.Sleep(time.Hour)
				assert.Empty(t, sim.left())
				assert.Empty(t, tree(t, store.dir))
			})
		})
	}
}

// A new process finds the container created, the host's memory empty, and the
// engine away for a while.
func TestControllerGoesOnAfterTheHostsRestart(t *testing.T) {
	t.Parallel()
	store := newTestStore(t)
	bubble(t, func(t *testing.T) {
		sim := newSimEngine(t)
		require.NoError(t, filesController(t, sim, store, ownedTask()).Prepare(t.Context()))
		require.NoError(t, store.remove("engine-1", "taskid"))

		task := taskAt(ownedTask(), api.TaskStateStarting)
		ctlr := filesController(t, sim, store, task)
		sim.fails(func(string) error { return errAway })
		time.AfterFunc(time.Minute, func() { sim.fails(nil) })
		drive(t.Context(), t, task, ctlr, api.TaskStateRunning)
		assert.Equal(t, written, tree(t, store.dir))
		require.NoError(t, ctlr.Remove(t.Context()))
		assert.Empty(t, tree(t, store.dir))
		assert.Empty(t, sim.left())
	})
}
