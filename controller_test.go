package dockerexec

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/events"
	"github.com/docker/docker/api/types/system"
	engineapi "github.com/docker/docker/client"
	"github.com/docker/go-connections/nat"
	gogotypes "github.com/gogo/protobuf/types"
	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/moby/swarmkit/v2/api"
	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockerexec/dockerexec/dockerexectest"
)

// One inspect a step serves both statuses.
func TestRequestsOfATaskUpToRunning(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		engine := webEngine(t, obedient)
		ctlr := controllerOn(t, engine, plainTask())
		require.NoError(t, ctlr.Prepare(t.Context()))
		require.NoError(t, ctlr.Start(t.Context()))
		assert.Equal(t, []string{
			"POST /images/create", "POST /containers/create web.1.taskid", "GET /containers/web.1.taskid/json", "POST /containers/ID/start",
		}, asked(engine))

		engine = webEngine(t, obedient)
		runningWeb(t, engine)
		assert.Equal(t, []string{
			"POST /images/create", "POST /containers/create web.1.taskid",
			"GET /containers/web.1.taskid/json", "POST /containers/ID/start",
			"GET /containers/web.1.taskid/json", // the status in RUNNING
		}, asked(engine))
	})
}

// The exit error has the status, so that the agent need not ask for a container that may be
// gone.
func TestATaskEnds(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		end   func(*dockerexectest.Container)
		state api.TaskState
		err   string
		code  int32
	}{
		"with 0":        {func(c *dockerexectest.Container) { c.Exit(0) }, api.TaskStateCompleted, "", 0},
		"with 3":        {func(c *dockerexectest.Container) { c.Exit(3) }, api.TaskStateFailed, "task: non-zero exit (3)", 3},
		"out of memory": {(*dockerexectest.Container).OOM, api.TaskStateFailed, "task: non-zero exit (137): out of memory", 137},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T) {
				engine, task := webEngine(t, obedient), plainTask()
				attach(task, "backend", "10.1.0.0/24")
				ctlr, _ := reached(t, engine, task, api.TaskStateRunning)
				web := engine.Container(taskName)
				assert.Equal(t, &api.ContainerStatus{ContainerID: web.ID(), PID: int32(web.Inspect().State.Pid)}, task.Status.GetContainer())

				time.AfterFunc(4*time.Minute, func() { engine.ForgetRequests(); test.end(web) })
				drive(t.Context(), t, task, ctlr, api.TaskStateCompleted)
				assert.Equal(t, test.state, task.Status.State)
				assert.Equal(t, test.err, task.Status.Err)
				assert.Equal(t, &api.ContainerStatus{ContainerID: web.ID(), ExitCode: test.code}, task.Status.GetContainer())
				assert.Equal(t, &api.PortStatus{}, task.Status.PortStatus)
				if test.code != 137 { // an event more
					assert.Equal(t, []string{"GET /containers/web.1.taskid/json"}, asked(engine))
				}

				require.NoError(t, ctlr.Remove(t.Context()))
				require.NoError(t, ctlr.Close())
				assert.Empty(t, leftOn(engine))
			})
		})
	}
}

// The agent asks for the status after each step, also of a task that has ended. The engine is
// not asked again for what cannot have changed.
func TestTheRequestsOfATaskUpToItsRemoval(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		engine, task := webEngine(t, obedient), plainTask()
		ctlr, _ := reached(t, engine, task, api.TaskStateRunning)
		id := engine.Container(taskName).ID()
		time.Sleep(time.Minute) // the event of the start is past
		ctx, cancel := context.WithCancel(t.Context())
		ended := asynchronously(func() error { _, err := exec.Do(ctx, task.Copy(), ctlr); return err })
		settled()
		cancel() // as the agent does it when the task is to end
		require.Equal(t, exec.ErrTaskRetry, ended())
		task.DesiredState = api.TaskStateRemove
		for range 3 { // the stop, and two steps in which nothing is to be done
			status, err := exec.Do(t.Context(), task, ctlr)
			if err != nil {
				require.Equal(t, exec.ErrTaskNoop, err)
			}
			task.Status = *status
		}
		assert.Equal(t, api.TaskStateShutdown, task.Status.State)
		assert.Equal(t, &api.ContainerStatus{ContainerID: id, ExitCode: 143}, task.Status.GetContainer())
		require.NoError(t, ctlr.Remove(t.Context()))
		assert.Equal(t, []string{
			"POST /images/create", "POST /containers/create web.1.taskid",
			"GET /containers/web.1.taskid/json", "POST /containers/ID/start", // Start, and none for the status before it
			"GET /containers/web.1.taskid/json", // the status in RUNNING
			"GET /containers/web.1.taskid/json", // Wait, once it has subscribed
			"GET /containers/web.1.taskid/json", // and once more when the stream is certainly open
			"POST /containers/ID/stop",
			"GET /containers/web.1.taskid/json", // the status of the end
			"DELETE /containers/ID",
		}, asked(engine))

		status, err := ctlr.ContainerStatus(t.Context())
		require.NoError(t, err)
		assert.Nil(t, status, "of a task that is removed")
	})
}

// The status that stands between a create and a start is not that of the container which
// runs, and comes without the engine.
func TestAStartForgetsTheStatusThatStood(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		engine := webEngine(t, obedient)
		ctlr := controllerOn(t, engine, plainTask())
		require.NoError(t, ctlr.Prepare(t.Context()))
		web := engine.Container(taskName)
		for range 2 {
			status, err := ctlr.ContainerStatus(t.Context())
			require.NoError(t, err)
			assert.Equal(t, &api.ContainerStatus{ContainerID: web.ID()}, status)
			ports, err := ctlr.PortStatus(t.Context())
			require.NoError(t, err)
			assert.Equal(t, &api.PortStatus{}, ports)
		}
		assert.Equal(t, []string{"POST /images/create", "POST /containers/create web.1.taskid"}, asked(engine))
		require.NoError(t, ctlr.Start(t.Context()))
		status, err := ctlr.ContainerStatus(t.Context())
		require.NoError(t, err)
		assert.Equal(t, &api.ContainerStatus{ContainerID: web.ID(), PID: int32(web.Inspect().State.Pid)}, status)
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
			"GET /containers/web.1.taskid/json",
			"GET /containers/web.1.taskid/json",
			"GET /containers/web.1.taskid/json", "POST /containers/ID/start",
			"GET /containers/web.1.taskid/json",
		}},
		{"killed in PREPARING before the create", api.TaskStatePreparing, 0, []string{
			"GET /containers/web.1.taskid/json", "GET /containers/json",
			"POST /networks/create backend", "POST /images/create", "POST /containers/create web.1.taskid",
			"GET /containers/web.1.taskid/json", "POST /containers/ID/start",
			"GET /containers/web.1.taskid/json",
		}},
		{"killed in STARTING before the start", api.TaskStateStarting, 1, []string{
			"GET /containers/web.1.taskid/json", "POST /containers/ID/start",
			"GET /containers/web.1.taskid/json",
		}},
		{"killed in STARTING after the start", api.TaskStateStarting, 2, []string{
			"GET /containers/web.1.taskid/json",
			"GET /containers/web.1.taskid/json",
		}},
		{"killed in RUNNING", api.TaskStateRunning, 2, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T) {
				engine, task := webEngine(t, obedient), plainTask()
				attach(task, "backend", "10.1.0.0/24")
				before := controllerOn(t, engine, task)
				if test.done > 0 {
					require.NoError(t, before.Prepare(t.Context()))
				}
				if test.done > 1 {
					require.NoError(t, before.Start(t.Context()))
				}
				engine.ForgetRequests()

				taskAt(task, test.state)
				ctlr := controllerOn(t, engine, task)
				drive(t.Context(), t, task, ctlr, api.TaskStateRunning)
				require.Equal(t, api.TaskStateRunning, task.Status.State, task.Status.Err)
				assert.Equal(t, test.want, asked(engine))

				engine.Container(taskName).Exit(3)
				drive(t.Context(), t, task, ctlr, api.TaskStateCompleted)
				assert.Equal(t, api.TaskStateFailed, task.Status.State)
				assert.EqualValues(t, 3, task.Status.GetContainer().ExitCode)
				require.NoError(t, ctlr.Remove(t.Context()))
				assert.Empty(t, leftOn(engine))
			})
		})
	}
}

// Each method may be called again, in any order that the agent has.
func TestMethodsMayBeRepeated(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		ctx, engine := t.Context(), webEngine(t, obedient)
		ctlr := controllerOn(t, engine, plainTask())
		require.NoError(t, ctlr.Shutdown(ctx)) // before Prepare
		require.NoError(t, ctlr.Terminate(ctx))
		require.NoError(t, ctlr.Prepare(ctx))
		assert.Equal(t, exec.ErrTaskPrepared, ctlr.Prepare(ctx))
		require.NoError(t, ctlr.Shutdown(ctx)) // never started
		require.NoError(t, ctlr.Terminate(ctx))
		require.NoError(t, ctlr.Start(ctx))
		assert.Equal(t, exec.ErrTaskPrepared, ctlr.Prepare(ctx))
		assert.Equal(t, exec.ErrTaskStarted, ctlr.Start(ctx))
		engine.Container(taskName).Pause()
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
		assert.Empty(t, leftOn(engine))
	})
}

func TestTerminateKills(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		ctlr, _, _ := runningWeb(t, webEngine(t, obedient))
		wait := asynchronously(func() error { return ctlr.Wait(t.Context()) })
		require.NoError(t, ctlr.Terminate(t.Context()))
		require.EqualError(t, wait(), "task: non-zero exit (137)")
	})
}

func TestUpdateSaysNothing(t *testing.T) {
	t.Parallel()
	ctx, lines := logged(t)
	engine := webEngine(t, obedient)
	require.NoError(t, controllerOn(t, engine, plainTask()).Update(ctx, plainTask()))
	assert.Empty(t, lines(logrus.TraceLevel))
	assert.Empty(t, engine.Requests())
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
		engine := webEngine(t, obedient)
		ctlr := controllerOn(t, engine, plainTask())
		require.NoError(t, ctlr.Close())
		assert.Equal(t, exec.ErrControllerClosed, method.call(t.Context(), ctlr), method.name)
		assert.Empty(t, engine.Requests(), method.name)
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
					engine := webEngine(t, obedient)
					engine.Hang()
					ctlr := controllerOn(t, engine, plainTask(), WithRequestTimeout(0))
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
	ctlr := controllerOn(t, webEngine(t, obedient), plainTask())
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
		engine := webEngine(t, obedient)
		ctx, cancel := context.WithCancel(t.Context())
		ctlr, _, _ := runningWeb(t, engine)
		var all []func() error
		for _, method := range methods {
			if method.name == "Wait" || method.name == "Logs" {
				all = append(all, asynchronously(func() error { return method.call(ctx, ctlr) }))
			}
		}
		preparing := controllerOn(t, engine, numberedTask(2))
		engine.FailNext(createRequest, dockerexectest.Call(func() { cancel(); time.Sleep(time.Second) }))
		all = append(all, asynchronously(func() error { return preparing.Prepare(ctx) }))
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
				engine := webEngine(t, obedient, dockerexectest.WithStall(1000))
				ctlr := controllerOn(t, engine, plainTask())
				prepare := asynchronously(func() error { return ctlr.Prepare(t.Context()) })
				synctest.Wait()
				require.NoError(t, stop(ctlr, t.Context()))
				assert.Equal(t, context.Canceled, prepare())
				assert.Empty(t, leftOn(engine))

				// The pull that was ended is not remembered.
				engine.Image("example/web:1", obedient)
				require.NoError(t, ctlr.Prepare(t.Context()))
				assert.Equal(t, 2, engine.Requests().Count(pullRequest))
				assert.Equal(t, []string{"container web.1.taskid"}, leftOn(engine))
			})
		})
	}
}

// A making call is not given up: a Shutdown meanwhile waits for it, and so stops
// what was started.
func TestShutdownWaitsForAStart(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		engine := webEngine(t, obedient)
		ctlr := controllerOn(t, engine, plainTask())
		require.NoError(t, ctlr.Prepare(t.Context()))
		engine.FailNext(startRequest, dockerexectest.Slow(5*time.Second))
		start := asynchronously(func() error { return ctlr.Start(t.Context()) })
		time.Sleep(time.Second)
		require.NoError(t, ctlr.Shutdown(t.Context()))
		assert.Equal(t, context.Canceled, start())
		web := engine.Container(taskName)
		assert.Equal(t, 1, web.Starts())
		assert.Equal(t, container.StateExited, web.Inspect().State.Status)
	})
}

func TestPrepareReturnsAtOnceAndTheNextGoesOn(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		engine := webEngine(t, obedient)
		engine.FailNext(createRequest, dockerexectest.Slow(2*time.Second))
		ctlr := controllerOn(t, engine, plainTask())
		ctx, cancel := context.WithTimeout(t.Context(), time.Second) // within the create
		defer cancel()
		assert.Equal(t, context.DeadlineExceeded, ctlr.Prepare(ctx))
		assert.Equal(t, exec.ErrTaskPrepared, ctlr.Prepare(t.Context()))
		assert.Equal(t, []string{
			"POST /images/create", "POST /containers/create web.1.taskid", "GET /containers/web.1.taskid/json",
		}, asked(engine))
	})
}

// A create of which the answer is lost is found again.
func TestACreateWithoutAnAnswerIsFound(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		engine := webEngine(t, obedient)
		engine.FailNext(createRequest, dockerexectest.LoseAnswer())
		ctlr, _, web := runningWeb(t, engine)
		assert.Equal(t, []string{
			"POST /images/create", "POST /containers/create web.1.taskid",
			"GET /containers/web.1.taskid/json", // found: neither pulled nor created again
			"GET /containers/web.1.taskid/json",
			"GET /containers/web.1.taskid/json", "POST /containers/ID/start",
			"GET /containers/web.1.taskid/json",
		}, asked(engine))
		web.Exit(0)
		require.NoError(t, ctlr.Wait(t.Context()))
		require.NoError(t, ctlr.Remove(t.Context()))
		assert.Empty(t, leftOn(engine))
	})
}

// A service's log is asked of all its tasks, those that are still pulled and those
// that are removed too. SwarmKit logs each error.
func TestLogsArePublished(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		engine := webEngine(t, func(p *dockerexectest.Process) int {
			for n := range 10 {
				fmt.Fprintln(p.Stdout, n)
				fmt.Fprintln(p.Stderr, n)
				p.Sleep(time.Second)
			}
			return 0
		})
		ctlr := controllerOn(t, engine, plainTask())
		logs := func(options api.LogSubscriptionOptions) []string {
			var sink logSink
			require.NoError(t, ctlr.Logs(t.Context(), &sink, options))
			return sink.lines()
		}
		assert.Empty(t, logs(api.LogSubscriptionOptions{}))
		require.NoError(t, ctlr.Prepare(t.Context()))
		require.NoError(t, ctlr.Start(t.Context()))
		require.NoError(t, ctlr.Wait(t.Context()))
		stderr := []api.LogStream{api.LogStreamStderr}
		assert.Equal(t, []string{"stderr 7\n", "stderr 8\n", "stderr 9\n"}, logs(api.LogSubscriptionOptions{Streams: stderr, Tail: -4}))
		since := &gogotypes.Timestamp{Seconds: bubbleBegan.Unix() + 8, Nanos: 6}
		assert.Equal(t, []string{"stderr 9\n"}, logs(api.LogSubscriptionOptions{Streams: stderr, Tail: -4, Since: since}))

		engine.ForgetRequests()
		require.ErrorContains(t, ctlr.Logs(t.Context(), &logSink{}, api.LogSubscriptionOptions{Tail: 1}),
			"tail relative to start of logs not supported via docker API")
		assert.Empty(t, engine.Requests())
	})
}

// A Remove that comes once a step has returned stops the container itself, and the
// step does not take it away before.
func TestAStepReturnsOnceItIsUndone(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		engine := webEngine(t, obedient)
		ctlr := controllerOn(t, engine, plainTask())
		require.NoError(t, ctlr.adapter.PullImage(t.Context()))
		engine.FailNext(removeRequest, dockerexectest.Slow(time.Second))
		require.NoError(t, ctlr.detached(t.Context(), func(ctx context.Context) error {
			err := ctlr.adapter.Create(ctx)
			assert.Len(t, engine.Containers(), 1)
			ctlr.mu.Lock()
			defer ctlr.mu.Unlock()
			ctlr.removed = true
			return err
		}))
		assert.Empty(t, engine.Containers())
	})
}

// filesController is a controller of ownedTask, as a new process has it.
func filesController(t testing.TB, engine *dockerexectest.Engine, store fileStore, task *api.Task) *controller {
	t.Helper()
	made := NewExecutor(engine.Client(engineapi.WithHost("unix:///run/docker.sock")), nil, WithSecretsDir(store.dir))
	made.(*executor).engine.files = store
	require.NoError(t, made.Configure(t.Context(), &api.Node{Description: &api.NodeDescription{Hostname: "host-1"}}))
	made.(exec.SecretsProvider).Secrets().Add(api.Secret{ID: "s1", Spec: api.SecretSpec{Data: []byte("payload of s1")}})
	made.(exec.ConfigsProvider).Configs().Add(api.Config{ID: "c1", Spec: api.ConfigSpec{Data: []byte("payload of c1")}})
	ctlr, err := made.Controller(task)
	require.NoError(t, err)
	return ctlr.(*controller)
}

// filesEngine is an engine of this host.
func filesEngine(t testing.TB) *dockerexectest.Engine {
	t.Helper()
	engine := dockerexectest.New(t, dockerexectest.WithInfo(system.Info{ID: "engine-1", Name: "host-1"}))
	engine.Image("example/web:1", obedient)
	return engine
}

// The agent calls Remove while Prepare and Start run, and then forgets the task.
func TestRemoveMeanwhileLeavesNoFiles(t *testing.T) {
	t.Parallel()
	for point := range 28 {
		t.Run(fmt.Sprint("point ", point), func(t *testing.T) {
			t.Parallel()
			store := newTestStore(t)
			bubble(t, func(t *testing.T) {
				engine := filesEngine(t)
				ctlr := filesController(t, engine, store, ownedTask())
				engine.FailAll("*", dockerexectest.Slow(time.Second))
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				run := asynchronously(func() error {
					if err := ctlr.Prepare(ctx); err != nil {
						return err
					}
					return ctlr.Start(ctx)
				})
				time.Sleep(time.Duration(point) * 250 * time.Millisecond)
				if point%2 == 1 { // the agent ends the operation as well, at about the same time
					time.AfterFunc(time.Millisecond, cancel)
				}
				require.NoError(t, ctlr.Remove(t.Context()))
				if err := run(); point == 27 { // the last point is after the last call
					require.NoError(t, err)
				}
				time.Sleep(time.Hour)
				assert.Empty(t, leftOn(engine))
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
		engine := filesEngine(t)
		require.NoError(t, filesController(t, engine, store, ownedTask()).Prepare(t.Context()))
		require.NoError(t, store.remove("engine-1", "taskid"))

		task := taskAt(ownedTask(), api.TaskStateStarting)
		ctlr := filesController(t, engine, store, task)
		engine.Down()
		time.AfterFunc(time.Minute, engine.Up)
		drive(t.Context(), t, task, ctlr, api.TaskStateRunning)
		assert.Equal(t, written, tree(t, store.dir))
		require.NoError(t, ctlr.Remove(t.Context()))
		assert.Empty(t, tree(t, store.dir))
		assert.Empty(t, leftOn(engine))
	})
}

// What is known of a container's end is forgotten when an answer contradicts it.
func TestTheStatusOfAnEndIsForgotten(t *testing.T) {
	t.Parallel()
	ended := func(t *testing.T) (*dockerexectest.Engine, *controller) {
		engine := webEngine(t, obedient)
		ctlr, _, web := runningWeb(t, engine)
		web.Exit(3)
		status, err := ctlr.ContainerStatus(t.Context())
		require.NoError(t, err)
		require.Equal(t, &api.ContainerStatus{ContainerID: web.ID(), ExitCode: 3}, status)
		return engine, ctlr
	}
	t.Run("the container is gone", func(t *testing.T) {
		t.Parallel()
		bubble(t, func(t *testing.T) {
			engine, ctlr := ended(t)
			require.NoError(t, engine.Client().ContainerRemove(t.Context(), taskName, container.RemoveOptions{}))
			ports, err := ctlr.PortStatus(t.Context()) // is fresh
			require.NoError(t, err)
			require.Equal(t, &api.PortStatus{}, ports)
			ports, err = ctlr.PortStatus(t.Context())
			require.NoError(t, err)
			require.Nil(t, ports)
			status, err := ctlr.ContainerStatus(t.Context())
			require.NoError(t, err)
			assert.Nil(t, status)
		})
	})
	t.Run("somebody has started it again", func(t *testing.T) {
		t.Parallel()
		bubble(t, func(t *testing.T) {
			engine, ctlr := ended(t)
			require.NoError(t, engine.Client().ContainerStart(t.Context(), taskName, container.StartOptions{}))
			ctx, cancel := context.WithCancel(t.Context())
			wait := asynchronously(func() error { return ctlr.Wait(ctx) })
			settled()
			cancel()
			require.Equal(t, context.Canceled, wait())
			status, err := ctlr.ContainerStatus(t.Context())
			require.NoError(t, err)
			assert.Zero(t, status.ExitCode)
			assert.NotZero(t, status.PID)
		})
	})
	t.Run("an older answer comes late", func(t *testing.T) {
		t.Parallel()
		bubble(t, func(t *testing.T) {
			_, ctlr := ended(t)
			older := container.InspectResponse{
				ContainerJSONBase: &container.ContainerJSONBase{State: &container.State{Status: container.StateRunning}},
				NetworkSettings:   &container.NetworkSettings{},
			}
			older.NetworkSettings.Ports = nat.PortMap{"80/tcp": {{HostPort: "8080"}}}
			ctlr.notePorts(older)
			_, err := ctlr.ContainerStatus(t.Context())
			require.NoError(t, err)
			ports, err := ctlr.PortStatus(t.Context())
			require.NoError(t, err)
			assert.Equal(t, &api.PortStatus{}, ports)
		})
	})
	t.Run("the controller is closed", func(t *testing.T) {
		t.Parallel()
		bubble(t, func(t *testing.T) {
			_, ctlr := ended(t)
			require.NoError(t, ctlr.Close())
			status, err := ctlr.ContainerStatus(t.Context())
			assert.Equal(t, exec.ErrControllerClosed, err)
			assert.Nil(t, status)
		})
	})
}
