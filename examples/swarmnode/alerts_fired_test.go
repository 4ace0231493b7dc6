package main

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/moby/swarmkit/v2/api"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockerexec/dockerexec"
	"github.com/dockerexec/dockerexec/dockerexectest"
)

const scrapeEvery = 5 * time.Second

// alerted is a monitor of an Engine on an engine for tests, scraped each five seconds.
type alerted struct {
	t       *testing.T
	host    *dockerexectest.Engine
	engine  *dockerexec.Engine
	monitor *monitor
	watch   *alertWatch
}

// onAlerted runs a test in fake time.
func onAlerted(t *testing.T, test func(a *alerted), opts ...dockerexec.Option) {
	t.Helper()
	rules := newAlertWatch(t)
	synctest.Test(t, func(t *testing.T) {
		a := &alerted{t: t, host: dockerexectest.New(t), watch: rules}
		a.host.Image("example/web:1", dockerexectest.UntilStopped(0), dockerexectest.WithProbe(dockerexectest.Exit(0)))
		client := a.host.Client()
		var err error
		a.monitor, err = newMonitor(client)
		require.NoError(t, err)
		a.monitor.gatherer = a.monitor.gatherer.(prometheus.Gatherers)[:1] // no rule is about the process' own
		a.engine = dockerexec.NewEngine(client, append(a.monitor.options(), opts...)...)
		a.scrape()
		test(a)
	})
}

// scrape returns which alerts fire now.
func (a *alerted) scrape() []string {
	a.t.Helper()
	code, text := a.monitor.get("/metrics")
	require.Equal(a.t, 200, code)
	return a.watch.add(time.Now(), parseSamples(a.t, text))
}

// until scrapes until an alert fires, or until it does not, and returns how
// long that took. It gives up after an hour.
func (a *alerted) until(alert string, fires bool) time.Duration {
	a.t.Helper()
	begin := time.Now()
	for slices.Contains(a.scrape(), alert) != fires {
		require.Less(a.t, time.Since(begin), time.Hour, "%s, fires: %v", alert, fires)
		time.Sleep(scrapeEvery)
	}
	return time.Since(begin)
}

// pass scrapes for a while.
func (a *alerted) pass(d time.Duration) {
	a.t.Helper()
	for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(scrapeEvery) {
		a.scrape()
	}
}

func webTask(image string) *api.Task {
	task := &api.Task{ID: "t1", Slot: 1, NodeID: "node", ServiceAnnotations: api.Annotations{Name: "web"}}
	task.Spec.Runtime = &api.TaskSpec_Container{Container: &api.ContainerSpec{Image: image}}
	return task
}

func (a *alerted) controller(image string) exec.Controller {
	a.t.Helper()
	controller, err := a.engine.Controller(nil, webTask(image), nil)
	require.NoError(a.t, err)
	return controller
}

// runs runs a task, and waits for its end until the test's.
func (a *alerted) runs() exec.Controller {
	a.t.Helper()
	controller := a.controller("example/web:1")
	require.NoError(a.t, controller.Prepare(a.t.Context()))
	require.NoError(a.t, controller.Start(a.t.Context()))
	ctx, cancel := context.WithCancel(a.t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = controller.Wait(ctx)
	}()
	a.t.Cleanup(func() {
		cancel()
		<-ended
		require.NoError(a.t, controller.Close())
	})
	a.pass(5 * time.Second)
	return controller
}

func TestNoAlertFiresInADayOfATask(t *testing.T) {
	onAlerted(t, func(a *alerted) {
		controller := a.runs()
		time.Sleep(24 * time.Hour)
		require.NoError(t, controller.Shutdown(a.t.Context()))
		require.NoError(t, controller.Remove(a.t.Context()))
		a.pass(11 * time.Minute)
		assert.Empty(t, a.watch.names())
	})
}

func TestAlertThatTheEngineIsAway(t *testing.T) {
	onAlerted(t, func(a *alerted) {
		a.runs()
		go a.host.Restart(dockerexectest.RestartOptions{LiveRestore: true, Away: 10 * time.Second})
		a.pass(20 * time.Second)
		assert.Empty(t, a.watch.names(), "a restart of ten seconds is no alert")

		a.host.Down()
		took := a.until("EngineAway", true)
		assert.LessOrEqual(t, took, 30*time.Second)
		a.pass(10 * time.Minute)
		a.host.Up()
		took = a.until("EngineAway", false)
		assert.LessOrEqual(t, took, 10*time.Second)
		a.pass(11 * time.Minute)
		assert.Equal(t, []string{"EngineAway"}, a.watch.names())
	})
}

func TestAlertThatEventsAreRefused(t *testing.T) {
	onAlerted(t, func(a *alerted) {
		allow := a.host.FailAll("GET /events", dockerexectest.Refuse(403, "no events for you"))
		a.runs()
		a.pass(4 * time.Minute)
		assert.Empty(t, a.watch.names())
		a.until("EngineEventsRefused", true)
		allow()
		assert.LessOrEqual(t, a.until("EngineEventsRefused", false), 10*time.Second)
		assert.Equal(t, []string{"EngineEventsRefused"}, a.watch.names())
	})
}

func TestAlertThatPullsFail(t *testing.T) {
	onAlerted(t, func(a *alerted) {
		a.runs()
		require.Error(t, a.controller("example/typo:1").Prepare(a.t.Context()))
		assert.Zero(t, a.until("PullsFail", true))
		took := a.until("PullsFail", false)
		assert.InDelta(t, 10*time.Minute, took, float64(2*scrapeEvery))
		assert.Equal(t, []string{"PullsFail"}, a.watch.names())
	})
}

func TestAlertThatTheEngineHangs(t *testing.T) {
	onAlerted(t, func(a *alerted) {
		a.runs()
		executor := a.engine.Executor(nil)
		ctx, cancel := context.WithCancel(a.t.Context())
		described := make(chan struct{})
		go func() { // as the agent does
			defer close(described)
			for ctx.Err() == nil {
				_, _ = executor.Describe(ctx)
				select {
				case <-time.After(20 * time.Second):
				case <-ctx.Done():
				}
			}
		}()
		defer func() { cancel(); <-described }()
		a.pass(time.Minute)
		assert.Empty(a.t, a.watch.names())
		answer := a.host.FailAll("GET /info", dockerexectest.Slow(time.Hour))
		took := a.until("EngineTimesOut", true)
		assert.LessOrEqual(t, took, 150*time.Second)
		answer()
		a.until("EngineTimesOut", false)
		a.pass(5 * time.Minute)
		assert.NotContains(t, a.watch.names(), "EngineAway")
	})
}

func TestAlertThatTasksFail(t *testing.T) {
	onAlerted(t, func(a *alerted) {
		a.host.FailAll("POST /containers/create", dockerexectest.Refuse(500, "no space left on device"))
		controller := a.controller("example/web:1")
		for try := range 4 {
			require.Error(a.t, controller.Prepare(a.t.Context()))
			a.pass(5 * time.Second)
			if try == 1 {
				assert.Empty(t, a.watch.names(), "two failures are no alert")
			}
		}
		assert.Equal(t, []string{"TasksFail"}, a.scrape())
		require.NoError(a.t, controller.Close())
		a.until("TasksFail", false)
		assert.Equal(t, []string{"TasksFail"}, a.watch.names())
	})
}

func TestAlertThatStopsFail(t *testing.T) {
	onAlerted(t, func(a *alerted) {
		controller := a.runs()
		a.host.FailAll("POST /containers/*/stop", dockerexectest.Refuse(500, "tried to kill container, but did not receive an exit event"))
		ctx, cancel := context.WithCancel(a.t.Context())
		shut := make(chan struct{})
		go func() { // as the agent does
			defer close(shut)
			for ; ctx.Err() == nil; time.Sleep(time.Second) {
				_ = controller.Shutdown(ctx)
			}
		}()
		took := a.until("StopsFail", true)
		assert.LessOrEqual(t, took, 5*time.Minute)
		cancel()
		<-shut
		a.until("StopsFail", false)
		assert.Equal(t, []string{"StopsFail"}, a.watch.names())
	})
}

func TestAlertThatAContainerIsNotInspected(t *testing.T) {
	onAlerted(t, func(a *alerted) {
		a.runs()
		answer := a.host.FailAll("GET /containers/*/json", dockerexectest.Slow(time.Hour))
		took := a.until("ContainerNotInspected", true)
		assert.LessOrEqual(t, took, 10*time.Minute, "an inspect every five minutes, the request time-out, and a minute")
		answer()
		a.until("ContainerNotInspected", false)
		assert.Equal(t, []string{"ContainerNotInspected", "EngineTimesOut"}, a.watch.names())
	})
}

func TestAlertThatChecksHaveStopped(t *testing.T) {
	onAlerted(t, func(a *alerted) {
		a.host.Image("example/web:1", dockerexectest.UntilStopped(0), dockerexectest.WithProbe(dockerexectest.Exit(0)),
			dockerexectest.WithHealthcheck(container.HealthConfig{Test: []string{"CMD", "check"}, Interval: time.Second, Retries: 2}))
		a.runs()
		web := a.host.Container("web.1.t1")
		last := web.Inspect().State.Health
		web.AlterInspect(func(answer *container.InspectResponse) { answer.State.Health = last })
		a.until("ChecksStopped", true)
		a.until("ChecksStopped", false)
		assert.Equal(t, []string{"ChecksStopped"}, a.watch.names())
	})
}

func TestAlertThatContainersAreLeftBehind(t *testing.T) {
	onAlerted(t, func(a *alerted) {
		before, err := dockerexec.NewEngine(a.host.Client()).Adapter(nil, webTask("example/web:1"), nil) // an earlier process
		require.NoError(t, err)
		require.NoError(t, before.PullImage(a.t.Context()))
		require.NoError(t, before.Create(a.t.Context()))
		executor := a.engine.Executor(nil)
		require.NoError(t, executor.Configure(a.t.Context(), &api.Node{ID: "node"}))
		executor.(exec.SecretsProvider).Secrets().Reset()
		looks := func(d time.Duration) { // as the agent causes them
			for end := time.Now().Add(d); time.Now().Before(end); a.pass(20 * time.Second) {
				_, err := executor.Describe(a.t.Context())
				require.NoError(t, err)
			}
		}
		looks(4 * time.Minute)
		assert.Empty(t, a.watch.names(), "within the grace")
		looks(2 * time.Minute)
		assert.Equal(t, []string{"ContainersLeftBehind"}, a.scrape())
		a.host.Container("web.1.t1").RemoveByHand()
		looks(time.Minute)
		assert.Empty(t, a.scrape())
		assert.Equal(t, []string{"ContainersLeftBehind"}, a.watch.names())
	}, dockerexec.WithOrphans(dockerexec.OrphansReport, 5*time.Minute))
}
