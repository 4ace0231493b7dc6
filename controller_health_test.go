package dockerexec

import (
	"context"
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/events"
	engineapi "github.com/docker/docker/client"
	"github.com/docker/go-connections/nat"
	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/moby/swarmkit/v2/api"
	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestStartWaitsForHealth(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		sim, ctlr, task := starting(t)
		before := time.Now()
		time.AfterFunc(time.Hour, func() { sim.health(taskName, container.Healthy) })
		drive(t.Context(), t, task, ctlr, api.TaskStateRunning)
		assert.Equal(t, api.TaskStateRunning, task.Status.State, task.Status.Err)
		assert.InDelta(t, time.Hour, time.Since(before), float64(time.Second))
	})
}

// What the stream lost is found by looking.
func TestStartFindsHealthThatNoEventTold(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		sim, ctlr, _ := starting(t)
		time.AfterFunc(time.Hour, func() {
			sim.with(taskName, func(c *simContainer) { c.state.Health = &container.Health{Status: container.Healthy} })
			sim.cutEvents()
		})
		require.NoError(t, ctlr.Start(t.Context()))
	})
	bubble(t, func(t *testing.T) { // healthy before anybody looks
		sim, ctlr, _ := starting(t)
		sim.started = func(c *simContainer) { c.state.Health = &container.Health{Status: container.Healthy} }
		require.NoError(t, ctlr.Start(t.Context()))
	})
}

func TestStartWithoutAHealthCheckWaitsForNothing(t *testing.T) {
	t.Parallel()
	for name, test := range map[string][]string{"none": nil, "turned off": {"NONE"}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T) {
				sim := newSimEngine(t)
				task := plainTask()
				if test != nil {
					spec(task).Healthcheck = &api.HealthConfig{Test: test}
				}
				ctlr := newSimController(t, sim, task)
				require.NoError(t, ctlr.Prepare(t.Context()))
				sim.forgetCalls()
				before := time.Now()
				require.NoError(t, ctlr.Start(t.Context()))
				assert.Equal(t, before, time.Now())
				assert.Equal(t, []string{"ContainerInspect web.1.taskid", "ContainerStart web.1.taskid"}, sim.called())
			})
		})
	}
}

// An unhealthy container is stopped, and the error has its code, its
// status and the cause.
func TestUnhealthyInStart(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		sim, ctlr, task := starting(t)
		time.AfterFunc(time.Hour, func() { sim.health(taskName, container.Unhealthy) })
		err := ctlr.Start(t.Context())
		require.EqualError(t, err, "task: non-zero exit (143): dockerexec: unhealthy container")
		assert.ErrorIs(t, err, ErrContainerUnhealthy)
		assert.Equal(t, 143, err.(exec.ExitCoder).ExitCode())
		sim.with(taskName, func(c *simContainer) { assert.Equal(t, container.StateExited, c.state.Status) })

		task.Status.State = api.TaskStateRunning // as if the agent had not heard
		require.EqualError(t, ctlr.Wait(t.Context()), "task: non-zero exit (143): dockerexec: unhealthy container")
	})
	bubble(t, func(t *testing.T) {
		sim, ctlr, task := starting(t)
		time.AfterFunc(time.Hour, func() { sim.health(taskName, container.Unhealthy) })
		drive(t.Context(), t, task, ctlr, api.TaskStateCompleted)
		assert.Equal(t, api.TaskStateFailed, task.Status.State)
		assert.Equal(t, "task: non-zero exit (143): dockerexec: unhealthy container", task.Status.Err)
		assert.Equal(t, &api.ContainerStatus{ContainerID: "container-00000001", ExitCode: 143}, task.Status.GetContainer())
	})
}

// An end before health is no success of Start, but with code 0 the work is
// done.
func TestExitWhileWaitingForHealth(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		code   int
		start  string
		states api.TaskState
		err    string
	}{
		{"with 0", 0, "exec: task already started", api.TaskStateCompleted, ""},
		{"with 3", 3, "task: non-zero exit (3)", api.TaskStateFailed, "task: non-zero exit (3)"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T) {
				sim, ctlr, _ := starting(t)
				time.AfterFunc(time.Hour, func() { sim.exit(taskName, test.code) })
				require.EqualError(t, ctlr.Start(t.Context()), test.start)
			})
			bubble(t, func(t *testing.T) {
				sim, ctlr, task := starting(t)
				time.AfterFunc(time.Hour, func() { sim.exit(taskName, test.code) })
				drive(t.Context(), t, task, ctlr, api.TaskStateCompleted)
				assert.Equal(t, test.states, task.Status.State)
				assert.Equal(t, test.err, task.Status.Err)
				assert.EqualValues(t, test.code, task.Status.GetContainer().ExitCode)
			})
		})
	}
}

func TestDestroyedWhileWaitingForHealth(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		sim, ctlr, _ := starting(t)
		time.AfterFunc(time.Hour, func() {
			assert.NoError(t, sim.ContainerRemove(t.Context(), taskName, container.RemoveOptions{Force: true}))
		})
		assert.Equal(t, ErrContainerDestroyed, ctlr.Start(t.Context()))
		assert.Equal(t, ErrContainerDestroyed, ctlr.Wait(t.Context()))
	})
}

func TestUnhealthyInWait(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name string
		code int // with which the container answers the stop
		want string
	}{
		{"killed", 143, "task: non-zero exit (143): dockerexec: unhealthy container"},
		{"stops with 0", 0, "task: ended with exit code 0: dockerexec: unhealthy container"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T) {
				sim := newSimEngine(t)
				ctlr, task := runningTask(t, sim, plainTask())
				time.AfterFunc(time.Hour, func() { sim.health(taskName, container.Unhealthy) })
				sim.lost = func(call string) error {
					if strings.HasPrefix(call, "ContainerStop") {
						sim.with(taskName, func(c *simContainer) { c.state.ExitCode = test.code })
					}
					return nil
				}
				drive(t.Context(), t, task, ctlr, api.TaskStateCompleted)
				assert.Equal(t, api.TaskStateFailed, task.Status.State)
				assert.Equal(t, test.want, task.Status.Err)
			})
		})
	}
}

// The task's status names a kill for memory.
func TestOutOfMemory(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		sim := newSimEngine(t)
		ctlr, task := runningTask(t, sim, plainTask())
		time.AfterFunc(time.Hour, func() {
			sim.with(taskName, func(c *simContainer) { c.state.OOMKilled = true })
			sim.exit(taskName, 137)
		})
		drive(t.Context(), t, task, ctlr, api.TaskStateCompleted)
		assert.Equal(t, api.TaskStateFailed, task.Status.State)
		assert.Equal(t, "task: non-zero exit (137): out of memory", task.Status.Err)
		assert.EqualValues(t, 137, task.Status.GetContainer().ExitCode)
	})
}

// Podman shows a container that has ended as stopped, and sends no event when it shows
// it as exited.
func TestWaitTakesPodmansStoppedForAnEnd(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		sim := newSimEngine(t)
		ctlr, task := runningTask(t, sim, plainTask())
		time.AfterFunc(time.Minute, func() {
			sim.exit(taskName, 3)
			sim.with(taskName, func(c *simContainer) { c.state.Status = "stopped" })
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
		sim := newSimEngine(t)
		ctlr, _ := runningTask(t, sim, plainTask())
		sim.health(taskName, container.Unhealthy)
		sim.fails(func(call string) error {
			if strings.HasPrefix(call, "ContainerStop") {
				return errAway
			}
			return nil
		})
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		assert.Equal(t, context.DeadlineExceeded, ctlr.Wait(ctx))
		sim.health(taskName, container.Healthy)
		time.AfterFunc(time.Minute, func() { sim.fails(nil) })
		err := ctlr.Wait(t.Context())
		require.EqualError(t, err, "task: non-zero exit (143): dockerexec: unhealthy container")
		assert.True(t, errors.Is(err, ErrContainerUnhealthy))
	})
}

// An end that no event told is found when the stream is open again.
func TestWaitFindsAnEndThatNoEventTold(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		sim := newSimEngine(t)
		ctlr, _ := runningTask(t, sim, plainTask())
		time.AfterFunc(time.Hour, func() {
			sim.with(taskName, func(c *simContainer) { c.state = container.State{Status: container.StateExited, ExitCode: 11} })
			sim.fails(func(string) error { return errAway })
			sim.cutEvents()
			time.AfterFunc(time.Hour, func() { sim.fails(nil) })
		})
		before := time.Now()
		require.EqualError(t, ctlr.Wait(t.Context()), "task: non-zero exit (11)")
		assert.Less(t, time.Since(before), 2*time.Hour+10*time.Second)
	})
}

// An event is a hint; what the container is now decides.
func TestWaitGoesByWhatIsNow(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		sim := newSimEngine(t)
		ctlr, _ := runningTask(t, sim, plainTask())
		wait := asynchronously(func() error { return ctlr.Wait(t.Context()) })
		for _, past := range []events.Action{events.ActionDie, events.ActionHealthStatusUnhealthy, events.ActionStop, events.ActionDestroy} {
			time.Sleep(time.Minute)
			sim.with(taskName, func(c *simContainer) {
				c.state.Health = &container.Health{Status: container.Healthy}
				sim.emit(c, past)
			})
		}
		for _, state := range []string{container.StatePaused, container.StateRestarting, container.StateCreated} {
			time.Sleep(time.Minute)
			sim.with(taskName, func(c *simContainer) { c.state.Status = state; sim.emit(c, events.ActionPause) })
		}
		time.Sleep(time.Minute)
		for _, call := range sim.called() {
			assert.NotContains(t, call, "ContainerStop")
		}
		sim.with(taskName, func(c *simContainer) { c.state.Status = container.StateRemoving; sim.emit(c, events.ActionKill) })
		assert.Equal(t, ErrContainerDestroyed, wait())
	})
}

func TestWaitForAContainerThatIsGone(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		ctlr := newSimController(t, newSimEngine(t), plainTask())
		assert.Equal(t, ErrContainerDestroyed, ctlr.Wait(t.Context()))
		require.ErrorContains(t, ctlr.Start(t.Context()), "No such container: web.1.taskid")
	})
}

// A Start that was interrupted is not taken for a success, neither here nor by a
// new process.
func TestStartGoesOnWaitingForHealth(t *testing.T) {
	t.Parallel()
	for _, fresh := range []bool{false, true} {
		for _, test := range []struct {
			status container.HealthStatus
			want   string
		}{
			{container.Healthy, "exec: task already started"},
			{container.Unhealthy, "task: non-zero exit (143): dockerexec: unhealthy container"},
		} {
			bubble(t, func(t *testing.T) {
				sim, ctlr, task := starting(t)
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				assert.Equal(t, context.DeadlineExceeded, ctlr.Start(ctx))
				if fresh {
					ctlr = newSimController(t, sim, task)
				}
				before := time.Now()
				time.AfterFunc(time.Hour, func() { sim.health(taskName, test.status) })
				require.EqualError(t, ctlr.Start(t.Context()), test.want)
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

// retrying has the check of the task's container fail after so many tries.
func retrying(sim *simEngine, retries int) {
	sim.with(taskName, func(c *simContainer) {
		c.config.Healthcheck = &container.HealthConfig{Test: []string{"CMD", "check"}, Retries: retries}
	})
}

// An engine calls a container unhealthy while it is paused, and afterwards until
// the next check. No check has failed then.
func TestAPauseIsNoFailedCheck(t *testing.T) {
	t.Parallel()
	for name, streak := range map[string]int{"healthy": 0, "failed, but not often enough": 2} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T) {
				sim := newSimEngine(t)
				ctlr, _ := runningTask(t, sim, plainTask())
				retrying(sim, 3)
				wait := asynchronously(func() error { return ctlr.Wait(t.Context()) })
				sim.forgetCalls()
				become := func(status container.ContainerState, health *container.Health, action events.Action) {
					time.Sleep(time.Minute)
					sim.with(taskName, func(c *simContainer) {
						c.state.Status, c.state.Paused, c.state.Health = status, status == container.StatePaused, health
						sim.emit(c, action)
					})
				}
				become("running", probed(container.Healthy, streak), events.ActionHealthStatusHealthy)
				become("paused", probed(container.Unhealthy, streak), events.ActionPause)
				become("running", probed(container.Unhealthy, streak), events.ActionUnPause)
				become("running", probed(container.Healthy, 0), events.ActionHealthStatusHealthy)
				time.Sleep(time.Hour)
				assert.NotContains(t, sim.called(), "ContainerStop web.1.taskid")
				sim.exit(taskName, 0)
				assert.NoError(t, wait())
			})
		})
	}
	t.Run("really unhealthy before the pause", func(t *testing.T) {
		t.Parallel()
		bubble(t, func(t *testing.T) { // judged once it runs again
			sim := newSimEngine(t)
			ctlr, _ := runningTask(t, sim, plainTask())
			retrying(sim, 3)
			paused := func(c *simContainer) { c.state.Status, c.state.Paused = container.StatePaused, true }
			sim.with(taskName, func(c *simContainer) { paused(c); c.state.Health = probed(container.Unhealthy, 3) })
			ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
			defer cancel()
			assert.Equal(t, context.DeadlineExceeded, ctlr.Wait(ctx))
			sim.with(taskName, func(c *simContainer) { c.state.Status, c.state.Paused = container.StateRunning, false })
			ctx, cancel = context.WithTimeout(t.Context(), time.Hour)
			defer cancel()
			assert.EqualError(t, ctlr.Wait(ctx), "task: non-zero exit (143): dockerexec: unhealthy container")
		})
	})
}

// Start waits on after a pause, for a check that says something.
func TestAPauseWhileStartWaitsForHealth(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		sim, ctlr, _ := starting(t)
		start := asynchronously(func() error { return ctlr.Start(t.Context()) })
		for _, status := range []container.ContainerState{"running", "paused", "running"} {
			time.Sleep(time.Minute)
			sim.with(taskName, func(c *simContainer) {
				c.state.Status, c.state.Paused = status, status == container.StatePaused
				c.state.Health = probed(container.Unhealthy, 0)
				sim.emit(c, events.ActionPause)
			})
		}
		before := time.Now()
		for n := range 120 { // the engine goes on checking
			time.AfterFunc(time.Duration(n+1)*30*time.Second, func() {
				sim.with(taskName, func(c *simContainer) {
					c.state.Health = probed(container.Unhealthy, 0)
					c.state.Health.Log = []*container.HealthcheckResult{{Start: time.Now(), End: time.Now()}}
				})
			})
		}
		time.AfterFunc(time.Hour+time.Second, func() {
			sim.with(taskName, func(c *simContainer) {
				c.state.Health = probed(container.Healthy, 0)
				sim.emit(c, events.ActionHealthStatusHealthy)
			})
		})
		require.NoError(t, start())
		assert.GreaterOrEqual(t, time.Since(before), time.Hour)
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
				sim := newSimEngine(t)
				_, task := runningTask(t, sim, plainTask())
				retrying(sim, 2)
				sim.with(taskName, func(c *simContainer) {
					c.state = container.State{Status: container.StateExited, ExitCode: test.code, Health: test.health}
				})
				fresh := newSimController(t, sim, task)
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
		sim, ctlr, _ := starting(t)
		sim.started = func(c *simContainer) { c.state = container.State{Status: container.StatePaused, Paused: true} }
		time.AfterFunc(time.Hour, func() {
			sim.with(taskName, func(c *simContainer) {
				c.state = container.State{Status: container.StateRunning, Running: true, Health: probed(container.Healthy, 0)}
				sim.emit(c, events.ActionUnPause)
			})
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
		sim := newSimEngine(t)
		ctlr, _ := runningTask(t, sim, plainTask())
		sim.fails(func(call string) error {
			if strings.HasPrefix(call, "ContainerStop ") {
				return notFound("No such container: web.1.taskid")
			}
			return nil
		})
		sim.health(taskName, container.Unhealthy)
		time.AfterFunc(time.Hour, func() { sim.exit(taskName, 9) })
		before := time.Now()
		require.EqualError(t, ctlr.Wait(t.Context()), "task: non-zero exit (9): dockerexec: unhealthy container")
		assert.GreaterOrEqual(t, time.Since(before), time.Hour)
	})
}

func host(protocol api.PortConfig_Protocol, target, published uint32) *api.PortConfig {
	return &api.PortConfig{Protocol: protocol, TargetPort: target, PublishedPort: published, PublishMode: api.PublishModeHost}
}

// publish gives a container on the engine published ports.
func publish(sim *simEngine, ports nat.PortMap) {
	sim.with(taskName, func(c *simContainer) { c.ports.Ports = ports })
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
			sim := newSimEngine(t)
			ctlr := newSimController(t, sim, plainTask())
			require.NoError(t, ctlr.Prepare(t.Context()))
			publish(sim, test.ports)
			for range 20 {
				status, err := ctlr.PortStatus(t.Context())
				require.NoError(t, err)
				require.Equal(t, &api.PortStatus{Ports: test.want}, status)
			}
		})
	}
}

func TestStatusOfAContainerThatIsNotThere(t *testing.T) {
	t.Parallel()
	ctlr := newSimController(t, newSimEngine(t), plainTask())
	status, err := ctlr.ContainerStatus(t.Context())
	require.NoError(t, err)
	assert.Nil(t, status)
	ports, err := ctlr.PortStatus(t.Context())
	require.NoError(t, err)
	assert.Nil(t, ports)
}

// The inspect of one serves the other, but only at once, and only as long
// as nothing was done in between.
func TestOneInspectServesBothStatuses(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		ctx := t.Context()
		sim := newSimEngine(t)
		ctlr, _ := runningTask(t, sim, plainTask())
		inspects := func() int {
			n := 0
			for _, call := range sim.called() {
				if strings.HasPrefix(call, "ContainerInspect") {
					n++
				}
			}
			return n
		}
		for _, test := range []struct {
			between func()
			want    int
		}{
			{func() {}, 1},
			{func() { time.Sleep(2 * time.Second) }, 2},
			{func() { assert.Equal(t, exec.ErrTaskStarted, ctlr.Start(ctx)) }, 3}, // its own, too
			{func() { require.NoError(t, ctlr.Shutdown(ctx)) }, 2},
		} {
			sim.forgetCalls()
			_, err := ctlr.ContainerStatus(ctx)
			require.NoError(t, err)
			test.between()
			_, err = ctlr.PortStatus(ctx)
			require.NoError(t, err)
			assert.Equal(t, test.want, inspects())
			_, err = ctlr.PortStatus(ctx)
			require.NoError(t, err)
			assert.Equal(t, test.want+1, inspects()) // once
		}
	})
}

// The agent reports what PortStatus returns, also beside an error. An update of
// the task, which cancels the Wait, must not take its ports away.
func TestPortsOutliveAnInterruption(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		sim := newSimEngine(t)
		ctlr, task := runningTask(t, sim, plainTask())
		publish(sim, nat.PortMap{"80/tcp": {{HostPort: "8080"}}})
		want := &api.PortStatus{Ports: []*api.PortConfig{host(api.ProtocolTCP, 80, 8080)}}
		ports, err := ctlr.PortStatus(t.Context())
		require.NoError(t, err)
		require.Equal(t, want, ports)

		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		status, err := exec.Do(ctx, task, ctlr)
		assert.Equal(t, exec.ErrTaskRetry, err)
		assert.Equal(t, want, status.PortStatus)
		assert.Equal(t, task.Status.GetContainer(), status.GetContainer())

		ports.Ports = nil // what is handed out is the caller's
		sim.fails(func(string) error { return errAway })
		lctx, lines := logged(t)
		ports, err = ctlr.PortStatus(lctx)
		require.NoError(t, err)
		assert.Equal(t, want, ports)
		container, err := ctlr.ContainerStatus(lctx)
		require.NoError(t, err)
		assert.Nil(t, container)
		assert.Empty(t, lines(logrus.InfoLevel))

		sim.fails(nil)
		sim.exit(taskName, 0)
		ports, err = ctlr.PortStatus(t.Context())
		require.NoError(t, err)
		assert.Equal(t, &api.PortStatus{}, ports)
	})
}

// An engine that does not answer is not waited for twice.
func TestBothStatusesOfAHungEngineTakeOneTimeout(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		sim := newSimEngine(t)
		ctlr, _ := runningTask(t, sim, plainTask())
		publish(sim, nat.PortMap{"80/tcp": {{HostPort: "8080"}}})
		want := &api.PortStatus{Ports: []*api.PortConfig{host(api.ProtocolTCP, 80, 8080)}}
		ports, err := ctlr.PortStatus(t.Context())
		require.NoError(t, err)
		require.Equal(t, want, ports)
		sim.latency = time.Hour
		sim.forgetCalls()
		for range 2 {
			began := time.Now()
			status, err := ctlr.ContainerStatus(t.Context())
			require.NoError(t, err)
			assert.Nil(t, status)
			ports, err = ctlr.PortStatus(t.Context())
			require.NoError(t, err)
			assert.Equal(t, want, ports)
			assert.Equal(t, 2*time.Minute, time.Since(began))
		}
		_, err = ctlr.PortStatus(t.Context())
		require.NoError(t, err)
		assert.Equal(t, []string{"ContainerInspect web.1.taskid", "ContainerInspect web.1.taskid", "ContainerInspect web.1.taskid"}, sim.called())
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

// checking has the engine check the container's health each time that interval has
// passed, until ctx ends. The engine's clock differs from this one by skew.
func checking(ctx context.Context, sim *simEngine, interval, skew time.Duration) {
	for sleep(ctx, interval) == nil {
		sim.with(taskName, func(c *simContainer) {
			if c.state.Status == container.StateRunning {
				c.state.Health = checkedAt(c.state.Health.Status, time.Now().Add(skew))
			}
		})
	}
}

const (
	forgotten = "the engine has run no health check of the container for "
	goesOn    = "; the container counts as started, and is not stopped for its health"
)

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
					sim, ctlr, task := starting(t)
					sim.started = func(c *simContainer) {
						c.state.Health, c.state.StartedAt = test.health(), time.Now().UTC().Format(time.RFC3339Nano)
					}
					test.check.Test = []string{"CMD", "check"}
					sim.with(taskName, func(c *simContainer) { c.config.Healthcheck = &test.check })
					want := error(nil)
					if fresh {
						interrupted, cancel := context.WithTimeout(t.Context(), time.Second)
						defer cancel()
						require.Equal(t, context.DeadlineExceeded, ctlr.Start(interrupted))
						ctlr, want = newSimController(t, sim, task), exec.ErrTaskStarted
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
					warned := lines(logrus.WarnLevel)
					require.Len(t, warned, 1)
					assert.True(t, strings.HasPrefix(warned[0], forgotten) && strings.HasSuffix(warned[0], goesOn), warned[0])

					// The task goes on, and nothing stops it or says the same again.
					wait := asynchronously(func() error { return ctlr.Wait(ctx) })
					time.Sleep(10 * time.Hour)
					sim.exit(taskName, 0)
					assert.NoError(t, wait())
					assert.NotContains(t, sim.called(), "ContainerStop web.1.taskid")
					assert.Len(t, lines(logrus.WarnLevel), 1)
				})
			}
		})
	}
}

// Checks that go on are waited for, however the clocks differ, however slowly they come,
// and while nobody can see them.
func TestStartWaitsForChecksThatGoOn(t *testing.T) {
	t.Parallel()
	begin := func(t *testing.T, skew time.Duration, check container.HealthConfig) (*simEngine, *controller, context.CancelFunc) {
		sim, ctlr, _ := starting(t)
		check.Test = []string{"CMD", "check"}
		sim.with(taskName, func(c *simContainer) { c.config.Healthcheck = &check })
		sim.started = func(c *simContainer) { c.state.Health = checkedAt(container.Starting, time.Now().Add(skew)) }
		ctx, cancel := context.WithCancel(t.Context())
		interval := check.Interval
		if interval == 0 {
			interval = 30 * time.Second
		}
		go checking(ctx, sim, interval+30*time.Second, skew)
		return sim, ctlr, cancel
	}
	healthyAfter := func(sim *simEngine, after time.Duration) {
		time.AfterFunc(after, func() {
			sim.with(taskName, func(c *simContainer) {
				c.state.Health = checkedAt(container.Healthy, time.Now())
				sim.emit(c, events.ActionHealthStatusHealthy)
			})
		})
	}
	waits := func(t *testing.T, ctlr *controller, least time.Duration) {
		ctx, lines := logged(t)
		before := time.Now()
		require.NoError(t, ctlr.Start(ctx))
		assert.GreaterOrEqual(t, time.Since(before), least)
		for _, line := range lines(logrus.WarnLevel) {
			assert.NotContains(t, line, "health check")
		}
	}
	for name, skew := range map[string]time.Duration{"one clock": 0, "engine behind": -24 * time.Hour, "engine ahead": 24 * time.Hour} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T) {
				sim, ctlr, cancel := begin(t, skew, container.HealthConfig{})
				defer cancel()
				healthyAfter(sim, 10*time.Hour)
				waits(t, ctlr, 10*time.Hour)
			})
		})
	}
	t.Run("rare", func(t *testing.T) {
		t.Parallel()
		bubble(t, func(t *testing.T) {
			sim, ctlr, cancel := begin(t, 0, container.HealthConfig{Interval: 2 * time.Hour})
			defer cancel()
			healthyAfter(sim, 10*time.Hour)
			waits(t, ctlr, 10*time.Hour)
		})
	})
	t.Run("paused", func(t *testing.T) {
		t.Parallel()
		bubble(t, func(t *testing.T) {
			sim, ctlr, cancel := begin(t, 0, container.HealthConfig{})
			defer cancel()
			for after, status := range map[time.Duration]container.ContainerState{time.Minute: "paused", 5 * time.Hour: "running"} {
				time.AfterFunc(after, func() {
					sim.with(taskName, func(c *simContainer) { c.state.Status = status; sim.emit(c, events.ActionPause) })
				})
			}
			healthyAfter(sim, 10*time.Hour)
			waits(t, ctlr, 10*time.Hour)
		})
	})
	// An engine that comes back needs an interval for its first check.
	away := func(t *testing.T, sim *simEngine, stop func(), fault func(string) error) {
		time.AfterFunc(10*time.Minute, func() {
			stop()
			sim.with(taskName, func(c *simContainer) { sim.emit(c, events.ActionRename) }) // the last check is seen
			time.Sleep(time.Second)
			sim.fails(fault)
			sim.cutEvents()
			time.Sleep(20 * time.Minute)
			sim.fails(nil)
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(11*time.Hour, cancel)
			go checking(ctx, sim, time.Minute, 0)
		})
	}
	for name, fault := range map[string]func(string) error{
		"engine away":                func(string) error { return engineapi.ErrorConnectionFailed("unix:///run/docker.sock") }, //nolint:staticcheck // as the client has it
		"engine behind a sick proxy": func(string) error { return simError{"bad gateway", cerrdefs.ErrUnavailable} },
		"inspects fail": func(call string) error {
			if strings.HasPrefix(call, "ContainerInspect") {
				return errAway
			}
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T) {
				sim, ctlr, stop := begin(t, 0, container.HealthConfig{})
				away(t, sim, stop, fault)
				healthyAfter(sim, 10*time.Hour)
				waits(t, ctlr, 10*time.Hour)
			})
		})
	}
	t.Run("engine away for good", func(t *testing.T) { // and what it then shows does not change
		t.Parallel()
		bubble(t, func(t *testing.T) {
			sim, ctlr, stop := begin(t, 0, container.HealthConfig{})
			time.AfterFunc(10*time.Minute, func() {
				stop()
				sim.fails(func(string) error { return errAway })
				sim.cutEvents()
				time.AfterFunc(time.Hour, func() { sim.fails(nil) })
			})
			ctx, lines := logged(t)
			ctx, cancel := context.WithTimeout(ctx, 10*time.Hour)
			defer cancel()
			before := time.Now()
			require.NoError(t, ctlr.Start(ctx))
			assert.GreaterOrEqual(t, time.Since(before), 70*time.Minute+2*time.Minute)
			assert.LessOrEqual(t, time.Since(before), 70*time.Minute+6*time.Minute)
			assert.Contains(t, strings.Join(lines(logrus.WarnLevel), "\n"), forgotten)
		})
	})
	t.Run("a stream that breaks each half minute", func(t *testing.T) { // must not hide that they have stopped
		t.Parallel()
		bubble(t, func(t *testing.T) {
			sim, ctlr, stop := begin(t, 0, container.HealthConfig{})
			stop()
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Hour)
			defer cancel()
			go func() {
				for sleep(ctx, 30*time.Second) == nil {
					sim.cutEvents()
				}
			}()
			before := time.Now()
			require.NoError(t, ctlr.Start(ctx))
			assert.LessOrEqual(t, time.Since(before), 6*time.Minute)
		})
	})
	t.Run("a stream that is refused", func(t *testing.T) { // nor does this: the engine answers inspects
		t.Parallel()
		bubble(t, func(t *testing.T) {
			sim, ctlr, stop := begin(t, 0, container.HealthConfig{})
			time.AfterFunc(10*time.Minute, func() {
				stop()
				sim.fails(func(call string) error {
					if call == "Events" {
						return simError{"no", cerrdefs.ErrPermissionDenied}
					}
					return nil
				})
				sim.cutEvents()
			})
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Hour)
			defer cancel()
			before := time.Now()
			require.NoError(t, ctlr.Start(ctx))
			assert.GreaterOrEqual(t, time.Since(before), 12*time.Minute)
			assert.LessOrEqual(t, time.Since(before), 14*time.Minute)
		})
	})
	t.Run("a fake without a log", func(t *testing.T) {
		t.Parallel()
		bubble(t, func(t *testing.T) {
			sim, ctlr, _ := starting(t)
			healthyAfter(sim, 10*time.Hour)
			waits(t, ctlr, 10*time.Hour)
		})
	})
}

// A task that runs is told about as well, and then goes on. A check that runs after all
// counts.
func TestWaitWarnsOfChecksThatHaveStopped(t *testing.T) {
	t.Parallel()
	for name, fresh := range map[string]bool{"same process": false, "a new one": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T) {
				sim := newSimEngine(t)
				ctlr, task := runningTask(t, sim, plainTask())
				retrying(sim, 3)
				sim.with(taskName, func(c *simContainer) { c.state.Health = checkedAt(container.Healthy, time.Now()) })
				if fresh {
					ctlr = newSimController(t, sim, task)
				}
				ctx, lines := logged(t)
				wait := asynchronously(func() error { return ctlr.Wait(ctx) })
				time.Sleep(10 * time.Hour)
				warned := lines(logrus.WarnLevel)
				require.Len(t, warned, 1)
				assert.True(t, strings.HasPrefix(warned[0], forgotten) && strings.HasSuffix(warned[0], goesOn), warned[0])
				assert.NotContains(t, sim.called(), "ContainerStop web.1.taskid")

				sim.with(taskName, func(c *simContainer) { // somebody has paused the container, and let it go on
					c.state.Health = probed(container.Unhealthy, 3)
					sim.emit(c, events.ActionHealthStatusUnhealthy)
				})
				assert.EqualError(t, wait(), "task: non-zero exit (143): dockerexec: unhealthy container")
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
			a.State.Health = checkedAt(container.Starting, simBegin.Add(time.Second))
		},
		"the end of a long one": func(a *container.InspectResponse) {
			a.State.Health.Log[4] = &container.HealthcheckResult{Start: simBegin, End: simBegin.Add(time.Hour)}
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
			answer.State.Health = checkedAt(container.Starting, simBegin)
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
