package dockerexec

import (
	"context"
	"math"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/events"
	"github.com/docker/go-connections/nat"
	gogotypes "github.com/gogo/protobuf/types"
	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/moby/swarmkit/v2/api"
	"github.com/pkg/errors"
	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockerexec/dockerexec/dockerexectest"
)

func TestStartWaitsForHealth(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		engine, ctlr, task := starting(t)
		before := time.Now()
		time.AfterFunc(time.Hour, func() { engine.Container(taskName).SetHealth("healthy") })
		drive(t.Context(), t, task, ctlr, api.TaskStateRunning)
		assert.Equal(t, api.TaskStateRunning, task.Status.State, task.Status.Err)
		assert.InDelta(t, time.Hour, time.Since(before), float64(time.Second))
	})
}

// showing has the engine show a running container with another health.
func showing(web *dockerexectest.Container, health *container.Health) {
	web.AlterInspect(func(answer *container.InspectResponse) {
		if answer.State.Running {
			answer.State.Health = health
		}
	})
}

// What the stream lost is found by looking.
func TestStartFindsHealthThatNoEventTold(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		engine, ctlr, _ := starting(t)
		time.AfterFunc(time.Hour, func() {
			showing(engine.Container(taskName), probed(container.Healthy, 0))
			cutStreams(engine)
		})
		require.NoError(t, ctlr.Start(t.Context()))
	})
	bubble(t, func(t *testing.T) { // healthy before anybody looks
		engine, ctlr, _ := starting(t)
		showing(engine.Container(taskName), probed(container.Healthy, 0))
		require.NoError(t, ctlr.Start(t.Context()))
	})
}

func TestStartWithoutAHealthCheckWaitsForNothing(t *testing.T) {
	t.Parallel()
	for name, check := range map[string]*api.HealthConfig{"none": nil, "turned off": {Test: []string{"NONE"}}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T) {
				engine, task := webEngine(t, obedient), plainTask()
				spec(task).Healthcheck = check
				ctlr, _ := reached(t, engine, task, api.TaskStateReady)
				engine.ForgetRequests()
				before := time.Now()
				require.NoError(t, ctlr.Start(t.Context()))
				assert.Equal(t, before, time.Now())
				assert.Equal(t, []string{"GET /containers/web.1.taskid/json", "POST /containers/ID/start"}, asked(engine))
			})
		})
	}
}

// An unhealthy container is stopped, and the error has its code, its status and the cause. An
// end before health is no success of Start either, but with code 0 the work is done.
func TestWhatEndsAStartThatWaitsForHealth(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		happens func(*dockerexectest.Container)
		start   string
		code    int
		state   api.TaskState
		err     string
	}{
		"unhealthy": {becomes("unhealthy"), unhealthy143, 143, api.TaskStateFailed, unhealthy143},
		"exit 0":    {func(web *dockerexectest.Container) { web.Exit(0) }, "exec: task already started", 0, api.TaskStateCompleted, ""},
		"exit 3":    {func(web *dockerexectest.Container) { web.Exit(3) }, "task: non-zero exit (3)", 3, api.TaskStateFailed, "task: non-zero exit (3)"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T) {
				engine, ctlr, _ := starting(t)
				web := engine.Container(taskName)
				time.AfterFunc(time.Hour, func() { test.happens(web) })
				err := ctlr.Start(t.Context())
				require.EqualError(t, err, test.start)
				assert.Equal(t, container.StateExited, web.Inspect().State.Status)
				if test.code != 0 {
					assert.Equal(t, test.code, err.(exec.ExitCoder).ExitCode())
					require.EqualError(t, ctlr.Wait(t.Context()), test.start) // as if the agent had not heard
				}
				assert.Equal(t, test.code == 143, errors.Is(err, ErrContainerUnhealthy))
			})
			bubble(t, func(t *testing.T) {
				engine, ctlr, task := starting(t)
				web := engine.Container(taskName)
				time.AfterFunc(time.Hour, func() { test.happens(web) })
				drive(t.Context(), t, task, ctlr, api.TaskStateCompleted)
				assert.Equal(t, test.state, task.Status.State)
				assert.Equal(t, test.err, task.Status.Err)
				assert.Equal(t, &api.ContainerStatus{ContainerID: web.ID(), ExitCode: int32(test.code)}, task.Status.GetContainer())
			})
		})
	}
}

func TestDestroyedWhileWaitingForHealth(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		engine, ctlr, _ := starting(t)
		time.AfterFunc(time.Hour, func() { engine.Container(taskName).RemoveByHand() })
		assert.Equal(t, ErrContainerDestroyed, ctlr.Start(t.Context()))
		assert.Equal(t, ErrContainerDestroyed, ctlr.Wait(t.Context()))
	})
}

func TestUnhealthyInWait(t *testing.T) {
	t.Parallel()
	for want, program := range map[string]dockerexectest.Program{
		unhealthy143: obedient,
		"task: ended with exit code 0: dockerexec: unhealthy container": dockerexectest.UntilStopped(0),
	} {
		t.Run(want, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T) {
				ctlr, task, web := runningWeb(t, webEngine(t, program))
				time.AfterFunc(time.Hour, func() { web.SetHealth("unhealthy") })
				drive(t.Context(), t, task, ctlr, api.TaskStateCompleted)
				assert.Equal(t, api.TaskStateFailed, task.Status.State)
				assert.Equal(t, want, task.Status.Err)
			})
		})
	}
}

// Podman shows a container that has ended as stopped, and sends no event when it shows
// it as exited.
func TestWaitTakesPodmansStoppedForAnEnd(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		ctlr, task, web := runningWeb(t, webEngine(t, obedient))
		time.AfterFunc(time.Minute, func() {
			web.AlterInspect(func(answer *container.InspectResponse) { answer.State.Status = "stopped" })
			web.Exit(3)
		})
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
		defer cancel()
		require.EqualError(t, ctlr.Wait(ctx), "task: non-zero exit (3)")
		answer, err := ctlr.adapter.Inspect(ctx)
		require.NoError(t, err)
		assert.Equal(t, container.StateExited, answer.State.Status)
		drive(t.Context(), t, task, ctlr, api.TaskStateCompleted)
		assert.Equal(t, api.TaskStateFailed, task.Status.State)
	})
}

// The stop of an unhealthy container outlasts an engine that is away, and a
// Wait that is called again goes on with it.
func TestUnhealthyIsNotForgotten(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		engine := webEngine(t, obedient)
		_, _, web := runningWeb(t, engine)
		var mended atomic.Bool
		client := through(t, engine, func(r *http.Request, next http.RoundTripper) (*http.Response, error) {
			if strings.HasSuffix(r.URL.Path, "/stop") && !mended.Load() {
				return nil, &net.OpError{Op: "dial", Net: "unix", Err: syscall.ECONNREFUSED}
			}
			return next.RoundTrip(r)
		})
		ctlr := newController(adapterOf(t, NewEngine(client), plainTask()), api.TaskStateRunning)
		web.SetHealth("unhealthy")
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		assert.Equal(t, context.DeadlineExceeded, ctlr.Wait(ctx))
		web.SetHealth("healthy")
		time.AfterFunc(time.Minute, func() { mended.Store(true) })
		err := ctlr.Wait(t.Context())
		require.EqualError(t, err, unhealthy143)
		assert.ErrorIs(t, err, ErrContainerUnhealthy)
	})
}

// An end that no event told is found when the stream is open again.
func TestWaitFindsAnEndThatNoEventTold(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		engine := webEngine(t, obedient)
		ctlr, _, web := runningWeb(t, engine)
		time.AfterFunc(time.Hour, func() { engine.Restart(dockerexectest.RestartOptions{LiveRestore: true, Away: time.Hour}) })
		time.AfterFunc(time.Hour+time.Minute, func() { web.Exit(11) })
		before := time.Now()
		require.EqualError(t, ctlr.Wait(t.Context()), "task: non-zero exit (11)")
		assert.Less(t, time.Since(before), 2*time.Hour+10*time.Second)
	})
}

// An event is a hint; what the container is now decides.
func TestWaitGoesByWhatIsNow(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		engine := webEngine(t, obedient)
		ctlr, _, web := runningWeb(t, engine)
		wait := asynchronously(func() error { return ctlr.Wait(t.Context()) })
		showing(web, probed(container.Healthy, 0))
		for _, past := range []events.Action{events.ActionDie, events.ActionHealthStatusUnhealthy, events.ActionStop, events.ActionDestroy} {
			time.Sleep(time.Minute)
			web.Emit(past)
		}
		becomes := func(state container.ContainerState) {
			time.Sleep(time.Minute)
			web.AlterInspect(func(answer *container.InspectResponse) { answer.State.Status = state })
			web.Emit(events.ActionPause)
		}
		for _, state := range []string{container.StatePaused, container.StateRestarting, container.StateCreated} {
			becomes(state)
		}
		time.Sleep(time.Minute)
		assert.Zero(t, engine.Requests().Count(stopsAndKills)-engine.Requests().Count(startRequest))
		becomes(container.StateRemoving)
		assert.Equal(t, ErrContainerDestroyed, wait())
	})
}

func TestAContainerThatIsNotThere(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		ctlr := controllerOn(t, webEngine(t, obedient), plainTask())
		assert.Equal(t, ErrContainerDestroyed, ctlr.Wait(t.Context()))
		err := ctlr.Start(t.Context())
		require.ErrorContains(t, err, "No such container: web.1.taskid")
		assert.False(t, exec.IsTemporary(err))
		status, err := ctlr.ContainerStatus(t.Context())
		require.NoError(t, err)
		assert.Nil(t, status)
		ports, err := ctlr.PortStatus(t.Context())
		require.NoError(t, err)
		assert.Nil(t, ports)
	})
}

// A Start that was interrupted is not taken for a success, neither here nor by a
// new process.
func TestStartGoesOnWaitingForHealth(t *testing.T) {
	t.Parallel()
	for _, fresh := range []bool{false, true} {
		for health, want := range map[string]string{"healthy": "exec: task already started", "unhealthy": unhealthy143} {
			bubble(t, func(t *testing.T) {
				engine, ctlr, task := starting(t)
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				assert.Equal(t, context.DeadlineExceeded, ctlr.Start(ctx))
				if fresh {
					ctlr = controllerOn(t, engine, task)
				}
				before := time.Now()
				time.AfterFunc(time.Hour, func() { engine.Container(taskName).SetHealth(health) })
				require.EqualError(t, ctlr.Start(t.Context()), want)
				assert.GreaterOrEqual(t, time.Since(before), time.Hour)
			})
		}
	}
}

// probed is what an engine shows of a health check: its log is never nil.
func probed(status container.HealthStatus, streak int) *container.Health {
	health := &container.Health{Status: status, FailingStreak: streak, Log: []*container.HealthcheckResult{}}
	for range min(streak, 5) {
		health.Log = append(health.Log, &container.HealthcheckResult{ExitCode: 1})
	}
	return health
}

// checkedWeb is an engine whose container is checked each half minute, and fails after so
// many tries. It is healthy but for the tries that fails says, from 1.
func checkedWeb(t *testing.T, retries int, fails func(try int) bool) (*dockerexectest.Engine, *controller, *api.Task) {
	t.Helper()
	tries := 0 // one check runs at a time
	engine, task := webEngine(t, obedient, dockerexectest.WithProbe(func(*dockerexectest.Process) int {
		if tries++; fails(tries) {
			return 1
		}
		return 0
	})), plainTask()
	spec(task).Healthcheck = &api.HealthConfig{Test: []string{"CMD", "check"}, Retries: int32(retries)}
	ctlr, _ := reached(t, engine, task, api.TaskStateStarting)
	return engine, ctlr, task
}

// An engine calls a container unhealthy while it is paused, and afterwards until
// the next check. No check has failed then.
func TestAPauseIsNoFailedCheck(t *testing.T) {
	t.Parallel()
	for name, failed := range map[string]int{"healthy": 0, "failed, but not often enough": 2} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T) {
				engine, ctlr, task := checkedWeb(t, 3, func(try int) bool { return try > 1 && try <= 1+failed })
				drive(t.Context(), t, task, ctlr, api.TaskStateRunning)
				web := engine.Container(taskName)
				wait := asynchronously(func() error { return ctlr.Wait(t.Context()) })
				time.Sleep(time.Duration(failed)*30*time.Second + 10*time.Second)
				web.Pause()
				assert.Equal(t, probed(container.Unhealthy, failed).FailingStreak, web.Inspect().State.Health.FailingStreak)
				time.Sleep(time.Minute)
				web.Unpause()
				assert.Equal(t, container.Unhealthy, web.Inspect().State.Health.Status)
				time.Sleep(time.Hour)
				assert.Equal(t, container.Healthy, web.Inspect().State.Health.Status)
				assert.Zero(t, engine.Requests().Count(stopRequest))
				web.Exit(0)
				assert.NoError(t, wait())
			})
		})
	}
	t.Run("really unhealthy before the pause", func(t *testing.T) {
		t.Parallel()
		bubble(t, func(t *testing.T) { // judged once it runs again
			ctlr, _, web := runningWeb(t, webEngine(t, obedient))
			showing(web, probed(container.Unhealthy, 3))
			web.Pause()
			for _, want := range []string{"context deadline exceeded", unhealthy143} {
				ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
				defer cancel()
				require.EqualError(t, ctlr.Wait(ctx), want)
				web.Unpause()
			}
		})
	})
}

// Start waits on after a pause, for a check that says something.
func TestAPauseWhileStartWaitsForHealth(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		engine, ctlr, _ := checkedWeb(t, 1000, func(try int) bool { return try <= 120 })
		web := engine.Container(taskName)
		time.AfterFunc(10*time.Second, web.Pause)
		time.AfterFunc(time.Minute, web.Unpause)
		before := time.Now()
		require.NoError(t, ctlr.Start(t.Context()))
		assert.InDelta(t, time.Minute+121*30*time.Second, time.Since(before), float64(time.Second))
	})
}

func TestHowManyFailedChecksAreUnhealthy(t *testing.T) {
	t.Parallel()
	check := func(retries int) *container.Config {
		return &container.Config{Healthcheck: &container.HealthConfig{Retries: retries}}
	}
	for name, test := range map[string]struct {
		config *container.Config
		health *container.Health
		want   bool
	}{
		"no check":                      {check(1), nil, false},
		"one of one":                    {check(1), probed(container.Unhealthy, 1), true},
		"none of one":                   {check(1), probed(container.Unhealthy, 0), false},
		"two of three by default":       {check(0), probed(container.Unhealthy, 2), false},
		"three of three by default":     {check(0), probed(container.Unhealthy, 3), true},
		"four of five":                  {check(5), probed(container.Unhealthy, 4), false},
		"more than five":                {check(5), probed(container.Unhealthy, 9), true},
		"healthy again":                 {check(1), probed(container.Healthy, 0), false},
		"a fake that has only a status": {nil, &container.Health{Status: container.Unhealthy}, true},
		"a fake that is healthy":        {nil, &container.Health{Status: container.Healthy}, false},
		"a fake that is starting":       {nil, &container.Health{Status: container.Starting}, false},
		"no settings, two":              {nil, probed(container.Unhealthy, 2), false},
		"no settings of a check, three": {&container.Config{}, probed(container.Unhealthy, 3), true},
	} {
		answer := container.InspectResponse{
			ContainerJSONBase: &container.ContainerJSONBase{State: &container.State{Status: "running", Health: test.health}},
			Config:            test.config,
		}
		assert.Equal(t, test.want, failedChecks(answer), name)
	}
}

// A new process knows of a stop for health by what the engine keeps of the checks.
// That an engine calls each container with a check unhealthy once it has ended
// says nothing.
func TestAStopForHealthOutlivesTheProcess(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		health *container.Health
		code   int
		want   string // empty: no error
	}{
		{"was unhealthy, stopped with 0", probed(container.Unhealthy, 2), 0, "task: ended with exit code 0: dockerexec: unhealthy container"},
		{"was unhealthy, killed", probed(container.Unhealthy, 3), 137, "task: non-zero exit (137): dockerexec: unhealthy container"},
		{"was healthy", probed(container.Unhealthy, 0), 0, ""},
		{"one check had failed", probed(container.Unhealthy, 1), 0, ""},
		{"was healthy, failed", probed(container.Unhealthy, 0), 1, "task: non-zero exit (1)"},
		{"no check", nil, 0, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T) {
				engine := webEngine(t, obedient)
				_, task, web := runningWeb(t, engine)
				web.AlterInspect(func(answer *container.InspectResponse) {
					answer.Config.Healthcheck = &container.HealthConfig{Test: []string{"CMD", "check"}, Retries: 2}
					answer.State.Health = test.health
				})
				web.Exit(test.code)
				fresh := controllerOn(t, engine, task)
				assert.Equal(t, exec.ErrTaskStarted, fresh.Start(t.Context()))
				drive(t.Context(), t, task, fresh, api.TaskStateCompleted)
				want := api.TaskStateFailed
				if test.want == "" {
					want = api.TaskStateCompleted
				}
				assert.Equal(t, want, task.Status.State)
				assert.Equal(t, test.want, task.Status.Err)
			})
		})
	}
}

// Nothing but a running container is healthy, also if nothing is said of its
// health.
func TestStartIsNotContentWithAContainerThatDoesNotRun(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		engine, ctlr, _ := starting(t)
		web := engine.Container(taskName)
		web.AlterInspect(func(answer *container.InspectResponse) {
			if answer.State.Running {
				answer.State.Status, answer.State.Paused, answer.State.Health = container.StatePaused, true, nil
			}
		})
		time.AfterFunc(time.Hour, func() {
			web.AlterInspect(nil)
			web.SetHealth("healthy")
		})
		before := time.Now()
		require.NoError(t, ctlr.Start(t.Context()))
		assert.GreaterOrEqual(t, time.Since(before), time.Hour)
	})
}

// A stop that has nothing to do does not make an end.
func TestAStopForHealthIsWaitedFor(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		engine := webEngine(t, obedient)
		ctlr, _, web := runningWeb(t, engine)
		engine.FailAll(stopRequest, dockerexectest.Refuse(404, "No such container: web.1.taskid"))
		web.SetHealth("unhealthy")
		time.AfterFunc(time.Hour, func() { web.Exit(9) })
		before := time.Now()
		require.EqualError(t, ctlr.Wait(t.Context()), "task: non-zero exit (9): dockerexec: unhealthy container")
		assert.GreaterOrEqual(t, time.Since(before), time.Hour)
	})
}

func host(protocol api.PortConfig_Protocol, target, published uint32) *api.PortConfig {
	return &api.PortConfig{Protocol: protocol, TargetPort: target, PublishedPort: published, PublishMode: api.PublishModeHost}
}

func TestPublishedPorts(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name  string
		ports nat.PortMap
		want  []*api.PortConfig
	}{
		{"none", nil, nil},
		{"sorted", nat.PortMap{
			"9000/tcp": {{HostIP: "0.0.0.0", HostPort: "9001"}, {HostIP: "0.0.0.0", HostPort: "9000"}},
			"80/udp":   {{HostPort: "8081"}},
			"80/tcp":   {{HostPort: "8080"}},
			"443/sctp": {{HostPort: "32768"}},
		}, []*api.PortConfig{
			host(api.ProtocolTCP, 80, 8080), host(api.ProtocolUDP, 80, 8081), host(api.ProtocolSCTP, 443, 32768),
			host(api.ProtocolTCP, 9000, 9000), host(api.ProtocolTCP, 9000, 9001),
		}},
		{"both address families", nat.PortMap{"80/tcp": {{HostIP: "0.0.0.0", HostPort: "8080"}, {HostIP: "::", HostPort: "8080"}}},
			[]*api.PortConfig{host(api.ProtocolTCP, 80, 8080)}},
		{"families with ports of their own", nat.PortMap{"80/tcp": {{HostIP: "::", HostPort: "8081"}, {HostIP: "0.0.0.0", HostPort: "8080"}}},
			[]*api.PortConfig{host(api.ProtocolTCP, 80, 8080), host(api.ProtocolTCP, 80, 8081)}},
		{"not published", nat.PortMap{"80/tcp": nil, "81/tcp": {{HostIP: "0.0.0.0"}}, "82/tcp": {{HostPort: "82"}}},
			[]*api.PortConfig{host(api.ProtocolTCP, 82, 82)}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			ctlr, _, web := runningWeb(t, webEngine(t, obedient))
			web.AlterInspect(func(answer *container.InspectResponse) { answer.NetworkSettings.Ports = test.ports })
			for range 20 {
				status, err := ctlr.PortStatus(t.Context())
				require.NoError(t, err)
				require.Equal(t, &api.PortStatus{Ports: test.want}, status)
			}
		})
	}
}

// The inspect of one serves the other, but only at once, and only as long
// as nothing was done in between.
func TestOneInspectServesBothStatuses(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		ctx, engine := t.Context(), webEngine(t, obedient)
		ctlr, _, _ := runningWeb(t, engine)
		for _, test := range []struct {
			between func()
			want    int
		}{
			{func() {}, 1},
			{func() { time.Sleep(2 * time.Second) }, 2},
			{func() { assert.Equal(t, exec.ErrTaskStarted, ctlr.Start(ctx)) }, 3}, // its own, too
			{func() { require.NoError(t, ctlr.Shutdown(ctx)) }, 2},
		} {
			engine.ForgetRequests()
			_, err := ctlr.ContainerStatus(ctx)
			require.NoError(t, err)
			test.between()
			_, err = ctlr.PortStatus(ctx)
			require.NoError(t, err)
			assert.Equal(t, test.want, engine.Requests().Count(inspectRequest))
			_, err = ctlr.PortStatus(ctx)
			require.NoError(t, err)
			assert.Equal(t, test.want+1, engine.Requests().Count(inspectRequest)) // once
		}
	})
}

// publishedWeb is a running task with a port, which has been seen.
func publishedWeb(t *testing.T) (*dockerexectest.Engine, *controller, *api.Task, *api.PortStatus) {
	t.Helper()
	engine, task := webEngine(t, obedient), plainTask()
	withPort(host(api.ProtocolTCP, 80, 8080))(task)
	ctlr, _ := reached(t, engine, task, api.TaskStateRunning)
	ports, err := ctlr.PortStatus(t.Context())
	require.NoError(t, err)
	require.Equal(t, &api.PortStatus{Ports: []*api.PortConfig{host(api.ProtocolTCP, 80, 8080)}}, ports)
	return engine, ctlr, task, ports
}

// The agent reports what PortStatus returns, also beside an error. An update of
// the task, which cancels the Wait, must not take its ports away.
func TestPortsOutliveAnInterruption(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		engine, ctlr, task, ports := publishedWeb(t)
		want := ports.Copy()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		status, err := exec.Do(ctx, task, ctlr)
		assert.Equal(t, exec.ErrTaskRetry, err)
		assert.Equal(t, want, status.PortStatus)
		assert.Equal(t, task.Status.GetContainer(), status.GetContainer())

		ports.Ports = nil // what is handed out is the caller's
		engine.Down()
		lctx, lines := logged(t)
		ports, err = ctlr.PortStatus(lctx)
		require.NoError(t, err)
		assert.Equal(t, want, ports)
		container, err := ctlr.ContainerStatus(lctx)
		require.NoError(t, err)
		assert.Nil(t, container)
		assert.Empty(t, lines(logrus.InfoLevel))

		engine.Up()
		engine.Container(taskName).Exit(0)
		ports, err = ctlr.PortStatus(t.Context())
		require.NoError(t, err)
		assert.Equal(t, &api.PortStatus{}, ports)
	})
}

// An engine that does not answer is not waited for twice.
func TestBothStatusesOfAHungEngineTakeOneTimeout(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		engine, ctlr, _, want := publishedWeb(t)
		engine.Hang()
		engine.ForgetRequests()
		for range 2 {
			began := time.Now()
			status, err := ctlr.ContainerStatus(t.Context())
			require.NoError(t, err)
			assert.Nil(t, status)
			ports, err := ctlr.PortStatus(t.Context())
			require.NoError(t, err)
			assert.Equal(t, want, ports)
			assert.Equal(t, 2*time.Minute, time.Since(began))
		}
		_, err := ctlr.PortStatus(t.Context())
		require.NoError(t, err)
		assert.Equal(t, []string{"GET /containers/web.1.taskid/json", "GET /containers/web.1.taskid/json", "GET /containers/web.1.taskid/json"}, asked(engine))
	})
}

// A code beyond 31 bits is the same number in the text and in the error.
func TestLargeExitCodes(t *testing.T) {
	t.Parallel()
	code := uint64(3221225477)
	if code > math.MaxInt {
		t.Skip("the client's type has no room for such a code here")
	}
	err := ExitError(container.InspectResponse{ContainerJSONBase: &container.ContainerJSONBase{ID: "c0",
		State: &container.State{Status: container.StateExited, ExitCode: int(code)}}}, nil)
	require.EqualError(t, err, "task: non-zero exit (3221225477)")
	assert.EqualValues(t, code, err.(exec.ExitCoder).ExitCode())
}

func TestExitErrorHasTheStatus(t *testing.T) {
	t.Parallel()
	err := ExitError(container.InspectResponse{ContainerJSONBase: &container.ContainerJSONBase{ID: "c0",
		State: &container.State{Status: container.StateExited, ExitCode: 3}}}, nil)
	for range 2 {
		status, statusErr := err.(exec.ContainerStatuser).ContainerStatus(t.Context())
		require.NoError(t, statusErr)
		require.Equal(t, &api.ContainerStatus{ContainerID: "c0", ExitCode: 3}, status)
		status.ExitCode = 99 // what is handed out is the caller's
	}
}

// checkedAt is a record of the health checks whose last one, the newest of a full log,
// ran at that time.
func checkedAt(status container.HealthStatus, last time.Time) *container.Health {
	health := &container.Health{Status: status, Log: []*container.HealthcheckResult{}}
	for i := range 5 {
		began := last.Add(time.Duration(i-4) * 30 * time.Second)
		health.Log = append(health.Log, &container.HealthcheckResult{Start: began, End: began.Add(time.Second)})
	}
	return health
}

const (
	forgotten = "the engine has run no health check of the container for "
	goesOn    = "; the container counts as started, and is not stopped for its health"
)

// assertForgotten checks that one warning tells of checks that have stopped.
func assertForgotten(t *testing.T, warned []string) {
	t.Helper()
	require.Len(t, warned, 1)
	assert.True(t, strings.HasPrefix(warned[0], forgotten) && strings.HasSuffix(warned[0], goesOn), warned[0])
}

// An engine of 20.10 with live-restore that restarts shows the container as before, and
// checks it no more.
func TestStartDoesNotWaitForChecksThatHaveStopped(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		check       container.HealthConfig
		health      func() *container.Health
		least, most time.Duration
	}{
		"by default": {health: func() *container.Health { return checkedAt(container.Starting, time.Now()) },
			least: 3 * time.Minute, most: 6 * time.Minute},
		"short": {check: container.HealthConfig{Interval: time.Second, Timeout: time.Second},
			health: func() *container.Health { return checkedAt(container.Starting, time.Now()) },
			least:  time.Minute, most: 6 * time.Minute},
		"long": {check: container.HealthConfig{Interval: time.Hour, Timeout: time.Minute},
			health: func() *container.Health { return checkedAt(container.Starting, time.Now()) },
			least:  3*time.Hour + 3*time.Minute, most: 3*time.Hour + 9*time.Minute},
		"longest": {check: container.HealthConfig{Interval: math.MaxInt64, Timeout: math.MaxInt64},
			health: func() *container.Health { return checkedAt(container.Starting, time.Now()) },
			least:  20 * time.Hour, most: math.MaxInt64},
		"never checked": {health: func() *container.Health { return probed(container.Starting, 0) },
			least: 3 * time.Minute, most: 6 * time.Minute},
		"never checked, with a start period": {check: container.HealthConfig{StartPeriod: time.Hour},
			health: func() *container.Health { return probed(container.Starting, 0) },
			least:  time.Hour + 3*time.Minute, most: time.Hour + 9*time.Minute},
		"a long start interval": {check: container.HealthConfig{StartPeriod: time.Hour, StartInterval: 20 * time.Minute},
			health: func() *container.Health { return checkedAt(container.Starting, time.Now()) },
			least:  time.Hour + 90*time.Second, most: time.Hour + 7*time.Minute},
		"failed, but not often enough": {health: func() *container.Health { return probed(container.Starting, 2) },
			least: 3 * time.Minute, most: 6 * time.Minute},
		"unhealthy since a pause": {health: func() *container.Health { return probed(container.Unhealthy, 0) },
			least: 3 * time.Minute, most: 6 * time.Minute},
		"by an engine's clock that is a day behind": {health: func() *container.Health { return checkedAt(container.Starting, time.Now().Add(-24*time.Hour)) },
			least: 3 * time.Minute, most: 6 * time.Minute},
		"by an engine's clock that is a day ahead": {health: func() *container.Health { return checkedAt(container.Starting, time.Now().Add(24*time.Hour)) },
			least: 3 * time.Minute, most: 6 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, fresh := range []bool{false, true} {
				bubble(t, func(t *testing.T) {
					engine, ctlr, task := starting(t)
					web := engine.Container(taskName)
					test.check.Test = []string{"CMD", "check"}
					var health *container.Health
					web.AlterInspect(func(answer *container.InspectResponse) {
						answer.Config.Healthcheck = &test.check
						if answer.State.Running && health == nil {
							health = test.health()
						}
						answer.State.Health = health
					})
					want := error(nil)
					if fresh {
						interrupted, cancel := context.WithTimeout(t.Context(), time.Second)
						defer cancel()
						require.Equal(t, context.DeadlineExceeded, ctlr.Start(interrupted))
						ctlr, want = controllerOn(t, engine, task), exec.ErrTaskStarted
					}
					ctx, lines := logged(t)
					ctx, cancel := context.WithTimeout(ctx, 20*time.Hour)
					defer cancel()
					before := time.Now()
					err := ctlr.Start(ctx)
					took := time.Since(before)
					assert.GreaterOrEqual(t, took, test.least)
					assert.LessOrEqual(t, took, test.most)
					if took == 20*time.Hour {
						assert.Equal(t, context.DeadlineExceeded, err)
						assert.Empty(t, lines(logrus.WarnLevel))
						return
					}
					assert.Equal(t, want, err)
					assertForgotten(t, lines(logrus.WarnLevel))

					// The task goes on, and nothing stops it or says the same again.
					wait := asynchronously(func() error { return ctlr.Wait(ctx) })
					time.Sleep(10 * time.Hour)
					web.AlterInspect(nil)
					web.Exit(0)
					assert.NoError(t, wait())
					assert.Zero(t, engine.Requests().Count(stopRequest))
					assert.Len(t, lines(logrus.WarnLevel), 1)
				})
			}
		})
	}
}

// freeze has the engine show the last checks for ever.
func freeze(web *dockerexectest.Container) {
	showing(web, web.Inspect().State.Health)
	web.Emit(events.ActionRename) // the last check is seen
	time.Sleep(time.Second)
}

// Checks that go on are waited for, however the clocks differ, however slowly they come,
// and while nobody can see them. Those that have stopped are not, whatever the stream does.
func TestStartWaitsForChecksThatGoOn(t *testing.T) {
	t.Parallel()
	const healthyAfter = 10 * time.Hour
	// An engine that comes back needs an interval for its first check.
	unseen := func(begin func(*dockerexectest.Engine) (end func())) func(*dockerexectest.Engine, *dockerexectest.Container) {
		return func(engine *dockerexectest.Engine, web *dockerexectest.Container) {
			time.Sleep(10 * time.Minute)
			freeze(web)
			end := begin(engine)
			time.Sleep(20 * time.Minute)
			end()
			time.Sleep(time.Minute)
			web.AlterInspect(nil)
		}
	}
	failing := func(request string, fault dockerexectest.Fault) func(*dockerexectest.Engine) func() {
		return func(engine *dockerexectest.Engine) func() {
			end := engine.FailAll(request, fault)
			cutStreams(engine)
			return end
		}
	}
	skewed := func(skew time.Duration) func(*dockerexectest.Engine, *dockerexectest.Container) {
		return func(_ *dockerexectest.Engine, web *dockerexectest.Container) {
			web.AlterInspect(func(answer *container.InspectResponse) {
				if answer.State.Health != nil {
					for _, check := range answer.State.Health.Log {
						check.Start, check.End = check.Start.Add(skew), check.End.Add(skew)
					}
				}
			})
		}
	}
	for name, test := range map[string]struct {
		interval    time.Duration
		happens     func(*dockerexectest.Engine, *dockerexectest.Container)
		least, most time.Duration // most 0: it is healthy then, and nothing is said of checks
	}{
		"one clock":     {least: healthyAfter},
		"engine behind": {happens: skewed(-24 * time.Hour), least: healthyAfter},
		"engine ahead":  {happens: skewed(24 * time.Hour), least: healthyAfter},
		"rare":          {interval: 2 * time.Hour, least: healthyAfter},
		"paused": {happens: func(_ *dockerexectest.Engine, web *dockerexectest.Container) {
			time.Sleep(time.Minute)
			web.Pause()
			time.Sleep(5 * time.Hour)
			web.Unpause()
		}, least: healthyAfter},
		"engine away": {happens: unseen(func(engine *dockerexectest.Engine) func() {
			engine.Down()
			return engine.Up
		}), least: healthyAfter},
		"engine behind a sick proxy": {happens: unseen(failing("*", dockerexectest.Refuse(503, "bad gateway"))), least: healthyAfter},
		"inspects fail":              {happens: unseen(failing(inspectRequest, dockerexectest.Drop())), least: healthyAfter},
		"a fake without a log": {happens: func(_ *dockerexectest.Engine, web *dockerexectest.Container) {
			web.AlterInspect(func(answer *container.InspectResponse) {
				answer.State.Health, answer.State.StartedAt = &container.Health{Status: container.Starting}, ""
			})
			time.Sleep(healthyAfter)
			web.AlterInspect(nil)
		}, least: healthyAfter},
		"engine away for good": {happens: func(engine *dockerexectest.Engine, web *dockerexectest.Container) {
			time.Sleep(10 * time.Minute)
			freeze(web)
			engine.Down()
			time.AfterFunc(time.Hour, engine.Up)
		}, least: 72 * time.Minute, most: 76 * time.Minute},
		"a stream that breaks each half minute": {happens: func(engine *dockerexectest.Engine, web *dockerexectest.Container) {
			time.Sleep(time.Minute)
			freeze(web)
			for range 20 {
				time.Sleep(30 * time.Second)
				cutStreams(engine)
			}
		}, least: 3 * time.Minute, most: 7 * time.Minute},
		"a stream that is refused": {happens: func(engine *dockerexectest.Engine, web *dockerexectest.Container) {
			time.Sleep(10 * time.Minute)
			freeze(web)
			engine.FailAll(eventsRequest, dockerexectest.Refuse(403, "no"))
			cutStreams(engine)
		}, least: 12 * time.Minute, most: 14 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T) {
				began := time.Now()
				engine, task := webEngine(t, obedient, dockerexectest.WithProbe(func(*dockerexectest.Process) int {
					if time.Since(began) < healthyAfter {
						return 1
					}
					return 0
				})), plainTask()
				spec(task).Healthcheck = &api.HealthConfig{Test: []string{"CMD", "check"}, Retries: 1e6, Interval: gogotypes.DurationProto(test.interval)}
				ctlr, _ := reached(t, engine, task, api.TaskStateStarting)
				if test.happens != nil {
					go test.happens(engine, engine.Container(taskName))
				}
				ctx, lines := logged(t)
				require.NoError(t, ctlr.Start(ctx))
				assert.GreaterOrEqual(t, time.Since(began), test.least)
				warned := strings.Join(lines(logrus.WarnLevel), "\n")
				if test.most == 0 {
					assert.NotContains(t, warned, "health check")
				} else {
					assert.LessOrEqual(t, time.Since(began), test.most)
					assert.Contains(t, warned, forgotten)
				}
				time.Sleep(time.Hour) // until nothing happens any more
			})
		})
	}
}

// A task that runs is told about as well, and then goes on. A check that runs after all
// counts.
func TestWaitWarnsOfChecksThatHaveStopped(t *testing.T) {
	t.Parallel()
	for name, fresh := range map[string]bool{"same process": false, "a new one": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T) {
				engine, ctlr, task := checkedWeb(t, 3, func(int) bool { return false })
				drive(t.Context(), t, task, ctlr, api.TaskStateRunning)
				web := engine.Container(taskName)
				freeze(web)
				if fresh {
					ctlr = controllerOn(t, engine, task)
				}
				ctx, lines := logged(t)
				wait := asynchronously(func() error { return ctlr.Wait(ctx) })
				time.Sleep(10 * time.Hour)
				assertForgotten(t, lines(logrus.WarnLevel))
				assert.Zero(t, engine.Requests().Count(stopRequest))

				showing(web, probed(container.Unhealthy, 3)) // somebody has paused the container, and let it go on
				web.Emit(events.ActionHealthStatusUnhealthy)
				assert.EqualError(t, wait(), unhealthy143)
				assert.Len(t, lines(logrus.WarnLevel), 1)
			})
		})
	}
}

// An engine that has not checked yet may show no log. A fake may show no time at all.
func TestChecksWithoutALog(t *testing.T) {
	t.Parallel()
	empty, check := []*container.HealthcheckResult{}, []*container.HealthcheckResult{{}}
	for _, test := range []struct {
		startedAt string
		log       []*container.HealthcheckResult
		want      bool
	}{
		{"2000-01-01T00:00:00Z", nil, true},
		{"2000-01-01T00:00:00Z", empty, true},
		{"2000-01-01T00:00:00Z", check, true},
		{"", check, true},
		{"", nil, false},
		{"", empty, false},
		{"0001-01-01T00:00:00Z", empty, false},
	} {
		answer := inspected("c1", container.StateRunning, ofThisTask)
		answer.Config.Healthcheck = &container.HealthConfig{Test: []string{"CMD", "check"}}
		answer.State.StartedAt = test.startedAt
		answer.State.Health = &container.Health{Status: container.Starting, Log: test.log}
		var checks checkRecord
		checks.look(answer, 0)
		_, early := checks.look(answer, 3*time.Minute-1)
		assert.False(t, early, test)
		_, stopped := checks.look(answer, 3*time.Minute)
		assert.Equal(t, test.want, stopped, test)
	}
}

// Each of these is a check, or keeps the engine from checking. The time counts anew.
func TestWhatBeginsTheTimeWithoutACheck(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*container.InspectResponse){
		"a check": func(a *container.InspectResponse) {
			a.State.Health = checkedAt(container.Starting, bubbleBegan.Add(time.Second))
		},
		"the end of a long one": func(a *container.InspectResponse) {
			a.State.Health.Log[4] = &container.HealthcheckResult{Start: bubbleBegan, End: bubbleBegan.Add(time.Hour)}
		},
		"the first of a log": func(a *container.InspectResponse) { a.State.Health = probed(container.Starting, 1) },
		"healthy":            func(a *container.InspectResponse) { a.State.Health.Status = container.Healthy },
		"one more failure":   func(a *container.InspectResponse) { a.State.Health.FailingStreak++ },
		"a start":            func(a *container.InspectResponse) { a.State.StartedAt = "2000-01-01T00:00:01Z" },
		"a pause":            func(a *container.InspectResponse) { a.State.Status = container.StatePaused },
		"no check any more":  func(a *container.InspectResponse) { a.Config.Healthcheck.Test = []string{"NONE"} },
		"no health":          func(a *container.InspectResponse) { a.State.Health = nil },
	} {
		at := func() container.InspectResponse {
			answer := inspected("c1", container.StateRunning, ofThisTask)
			answer.Config.Healthcheck = &container.HealthConfig{Test: []string{"CMD", "check"}}
			answer.State.StartedAt = "2000-01-01T00:00:00Z"
			answer.State.Health = checkedAt(container.Starting, bubbleBegan)
			return answer
		}
		var checks checkRecord
		_, stopped := checks.look(at(), time.Minute)
		assert.False(t, stopped, name)
		changed := at()
		change(&changed)
		silence, stopped := checks.look(changed, time.Hour)
		assert.False(t, stopped, name)
		assert.Zero(t, silence, name)
		silence, stopped = checks.look(at(), time.Hour+time.Minute)
		assert.False(t, stopped, name)
		assert.Zero(t, silence, name)
		silence, stopped = checks.look(at(), time.Hour+4*time.Minute)
		assert.True(t, stopped, name)
		assert.Equal(t, 3*time.Minute, silence, name)
	}
}

func TestHowLongChecksMayBeMissing(t *testing.T) {
	t.Parallel()
	const s, m, h = time.Second, time.Minute, time.Hour
	for want, check := range map[time.Duration]*container.HealthConfig{
		3 * m:         nil,
		m:             {Interval: s, Timeout: s},
		63 * s:        {Interval: 20 * s, Timeout: s},
		3*h + 90*s:    {Interval: h},
		3*h + 93*s:    {Timeout: h, Interval: 31 * s},
		2*h + 3*m:     {StartPeriod: 2 * h},
		3*m + 105*s:   {StartPeriod: 15 * s, StartInterval: m},
		60000 * h:     {Interval: math.MaxInt64, Timeout: math.MaxInt64},
		3*m + 10000*h: {StartPeriod: math.MaxInt64},
	} {
		answer := containerIs("running")
		answer.State.Health = probed(container.Starting, 0)
		answer.Config = &container.Config{Healthcheck: check}
		assert.Equal(t, want, checkSilence(answer))
	}
}
