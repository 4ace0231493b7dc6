// Package telemetry tests what the library measures, with OpenTelemetry's SDK: the SDK
// stays out of the library's own module.
package telemetry

import (
	"context"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/docker/docker/api/types/container"
	engineapi "github.com/docker/docker/client"
	"github.com/dockerexec/dockerexec"
	"github.com/dockerexec/dockerexec/dockerexectest"
	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/moby/swarmkit/v2/api"
	"github.com/moby/swarmkit/v2/log"
	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
)

const image = "registry.test/web:1"

// node is an engine for tests, the library on it, and what the SDK has recorded.
type node struct {
	t       *testing.T
	host    *dockerexectest.Engine
	engine  *dockerexec.Engine
	reader  *metric.ManualReader
	tracers *trace.TracerProvider
	spans   *tracetest.SpanRecorder
	ctx     context.Context
}

// on runs a test in fake time, on a node whose registry has an image with the program.
func on(t *testing.T, program dockerexectest.Program, test func(n *node), image ...dockerexectest.ImageOption) {
	t.Helper()
	onNode(t, program, nil, test, image...)
}

func onNode(t *testing.T, program dockerexectest.Program, opts []dockerexec.Option, test func(n *node), options ...dockerexectest.ImageOption) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		n := &node{t: t, host: dockerexectest.New(t), reader: metric.NewManualReader(), spans: tracetest.NewSpanRecorder()}
		n.host.Image(image, program, options...)
		n.tracers = trace.NewTracerProvider(trace.WithSpanProcessor(n.spans))
		opts = append(opts, dockerexec.WithMeterProvider(metric.NewMeterProvider(metric.WithReader(n.reader))), dockerexec.WithTracerProvider(n.tracers))
		n.engine = dockerexec.NewEngine(n.host.Client(engineapi.WithTraceProvider(n.tracers)), opts...)
		quiet := logrus.New()
		quiet.SetOutput(io.Discard)
		n.ctx = log.WithLogger(t.Context(), logrus.NewEntry(quiet))
		test(n)
	})
}

func task() *api.Task {
	task := &api.Task{ID: "task1", ServiceID: "service1", NodeID: "node1", Slot: 1, ServiceAnnotations: api.Annotations{Name: "web"}}
	task.Spec.Runtime = &api.TaskSpec_Container{Container: &api.ContainerSpec{Image: image}}
	return task
}

// numbers reads all metrics. Each has its name and attributes. A histogram is the number
// of its values. What is 0 is left out.
func (n *node) numbers() map[string]int64 {
	n.t.Helper()
	var all metricdata.ResourceMetrics
	require.NoError(n.t, n.reader.Collect(n.t.Context(), &all))
	numbers := map[string]int64{}
	add := func(name string, set attribute.Set, value int64) {
		if text := set.Encoded(attribute.DefaultEncoder()); text != "" {
			name += " " + strings.ReplaceAll(text, "dockerexec.", "")
		}
		if value != 0 {
			numbers[strings.TrimPrefix(name, "dockerexec.")] = value
		}
	}
	for _, scope := range all.ScopeMetrics {
		for _, m := range scope.Metrics {
			switch data := m.Data.(type) {
			case metricdata.Sum[int64]:
				for _, point := range data.DataPoints {
					add(m.Name, point.Attributes, point.Value)
				}
			case metricdata.Histogram[float64]:
				for _, point := range data.DataPoints {
					add(m.Name, point.Attributes, int64(point.Count))
				}
			default:
				n.t.Errorf("%s is a %T", m.Name, data)
			}
		}
	}
	return numbers
}

// besides leaves out what counts operations and requests.
func besides(numbers map[string]int64) map[string]int64 {
	rest := map[string]int64{}
	for name, value := range numbers {
		if !strings.HasPrefix(name, "operation.duration") && !strings.HasPrefix(name, "engine.requests") {
			rest[name] = value
		}
	}
	return rest
}

// pulled is what the pull of a task's image counts.
func pulled(more map[string]int64) map[string]int64 {
	all := map[string]int64{"pull.duration outcome=ok": 1, "pull.attempts outcome=ok": 1, "pull.io": 4096}
	for name, value := range more {
		all[name] = value
	}
	return all
}

// layers has an image of two layers, which are pulled in ten seconds: engines tell of no
// bytes of a pull that is quick.
func layers(more ...dockerexectest.ImageOption) []dockerexectest.ImageOption {
	return append([]dockerexectest.ImageOption{dockerexectest.WithLayers(1024, 3072), dockerexectest.WithPullTime(10 * time.Second)}, more...)
}

// An alert on the growth of a counter sees its first step only if the counter was 0 before.
func TestCountersBeginAtZero(t *testing.T) {
	t.Parallel()
	on(t, dockerexectest.Exit(0), func(n *node) {
		assert.Empty(t, n.numbers())
		var all metricdata.ResourceMetrics
		require.NoError(t, n.reader.Collect(t.Context(), &all))
		points := map[string]int{}
		for _, m := range all.ScopeMetrics[0].Metrics {
			points[m.Name] = len(m.Data.(metricdata.Sum[int64]).DataPoints)
		}
		assert.Equal(t, map[string]int{
			"dockerexec.engine.requests": 8, "dockerexec.event_stream.outages": 1, "dockerexec.event_stream.away": 3, "dockerexec.event_stream.resyncs": 2,
			"dockerexec.pull.attempts": 4, "dockerexec.pull.io": 1, "dockerexec.task.waiting": 4,
			"dockerexec.container.starts": 1, "dockerexec.container.ends": 4, "dockerexec.container.uninspected": 1, "dockerexec.container.unchecked": 1,
			"dockerexec.log.io": 1, "dockerexec.log.lines": 1, "dockerexec.log.gaps": 1, "dockerexec.orphan.containers": 1,
		}, points)
	})
}

func TestAPullCounts(t *testing.T) {
	t.Parallel()
	on(t, dockerexectest.Exit(0), func(n *node) {
		adapter, err := n.engine.Adapter(nil, task(), nil)
		require.NoError(t, err)
		require.NoError(t, adapter.PullImage(n.ctx))
		assert.Equal(t, pulled(map[string]int64{
			"operation.duration operation=ContainerAdapter.PullImage,outcome=ok": 1,
			"engine.requests request=Ping":                                       1,
			"engine.requests request=ImagePull":                                  1,
		}), n.numbers())
	}, layers()...)
}

func TestAPullThatIsRefusedCounts(t *testing.T) {
	t.Parallel()
	on(t, dockerexectest.Exit(0), func(n *node) {
		adapter, err := n.engine.Adapter(nil, task(), nil)
		require.NoError(t, err)
		require.Error(t, adapter.PullImage(n.ctx))
		assert.Equal(t, map[string]int64{
			"pull.duration outcome=final":                                           1,
			"pull.attempts outcome=final":                                           1,
			"operation.duration operation=ContainerAdapter.PullImage,outcome=final": 1,
			"engine.requests request=Ping":                                          1,
			"engine.requests request=ImagePull,error.type=busy":                     1,
		}, n.numbers())
	}, layers(dockerexectest.WithCredentials("user", "password"))...)
}

func TestEachAttemptOfAPullCounts(t *testing.T) {
	t.Parallel()
	on(t, dockerexectest.Exit(0), func(n *node) {
		adapter, err := n.engine.Adapter(nil, task(), nil)
		require.NoError(t, err)
		require.NoError(t, adapter.PullImage(n.ctx))
		assert.Equal(t, pulled(map[string]int64{"pull.attempts outcome=temporary": 2}), besides(n.numbers()))
	}, layers(dockerexectest.WithRateLimit(2))...)
}

func TestAPullThatIsGivenUpCounts(t *testing.T) {
	t.Parallel()
	on(t, dockerexectest.Exit(0), func(n *node) {
		adapter, err := n.engine.Adapter(nil, task(), nil)
		require.NoError(t, err)
		ctx, cancel := context.WithTimeout(n.ctx, time.Minute)
		defer cancel()
		time.AfterFunc(30*time.Second, func() {
			assert.Equal(t, int64(1), n.numbers()["task.waiting wait=pull"])
		})
		require.Equal(t, context.DeadlineExceeded, adapter.PullImage(ctx))
		synctest.Wait()
		assert.Equal(t, map[string]int64{"pull.duration outcome=cancelled": 1, "pull.attempts outcome=cancelled": 1}, keep(n.numbers(), "pull.duration", "pull.attempts", "task.waiting"))
		assert.Equal(t, int64(1), n.numbers()["operation.duration operation=ContainerAdapter.PullImage,outcome=cancelled"])
	}, layers(dockerexectest.WithPullTime(time.Hour))...)
}

func keep(numbers map[string]int64, names ...string) map[string]int64 {
	kept := map[string]int64{}
	for name, value := range numbers {
		if base, _, _ := strings.Cut(name, " "); slices.Contains(names, base) {
			kept[name] = value
		}
	}
	return kept
}

// Each end of a task moves the counter of its cause, and no other.
func TestEachEndCounts(t *testing.T) {
	t.Parallel()
	check := dockerexectest.WithHealthcheck(container.HealthConfig{Test: []string{"CMD", "check"}, Interval: time.Second, Retries: 2})
	for name, test := range map[string]struct {
		program dockerexectest.Program
		image   []dockerexectest.ImageOption
		during  func(n *node)
		want    map[string]int64
	}{
		"it exits with 0": {
			program: dockerexectest.Print(dockerexectest.ExitAfter(time.Minute, 0), "one", "three"),
			want:    map[string]int64{"container.starts": 1, "container.ends end.cause=exit": 1, "log.io": 10, "log.lines": 2},
		},
		"it exits with 3": {
			program: func(p *dockerexectest.Process) int { fmt.Fprint(p.Stdout, "half a line"); return 3 },
			want:    map[string]int64{"container.starts": 1, "container.ends end.cause=exit": 1, "log.io": 11, "log.lines": 1},
		},
		"out of memory": {
			program: func(p *dockerexectest.Process) int { p.Sleep(time.Minute); p.OOM(); return 0 },
			want:    map[string]int64{"container.starts": 1, "container.ends end.cause=oom": 1},
		},
		"unhealthy": {
			program: dockerexectest.UntilStopped(0),
			image:   []dockerexectest.ImageOption{check, dockerexectest.WithProbe(dockerexectest.Exit(1))},
			want:    map[string]int64{"container.starts": 1, "container.ends end.cause=unhealthy": 1},
		},
		"healthy, and then unhealthy": {
			program: dockerexectest.UntilStopped(0),
			image:   []dockerexectest.ImageOption{check, dockerexectest.WithProbe(dockerexectest.Exit(0))},
			during:  func(n *node) { n.host.Container("web.1.task1").SetHealth("unhealthy") },
			want:    map[string]int64{"container.starts": 1, "container.ends end.cause=unhealthy": 1},
		},
		"somebody removed it": {
			program: dockerexectest.UntilStopped(0),
			during:  func(n *node) { n.host.Container("web.1.task1").RemoveByHand() },
			want:    map[string]int64{"container.starts": 1, "container.ends end.cause=lost": 1},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			on(t, test.program, func(n *node) {
				if test.during != nil {
					time.AfterFunc(time.Minute, func() { test.during(n) })
				}
				_, _ = n.engine.Run(n.ctx, task(), dockerexec.RunOptions{Logs: discard})
				assert.Equal(t, pulled(test.want), besides(n.numbers()))
			}, layers(test.image...)...)
		})
	}
}

var discard = exec.LogPublisherFunc(func(context.Context, api.LogMessage) error { return nil })

// The end of a container counts once, also if several calls wait for it, or one comes later.
func TestAnEndCountsOnce(t *testing.T) {
	t.Parallel()
	on(t, dockerexectest.ExitAfter(time.Minute, 3), func(n *node) {
		adapter := n.started()
		for range 2 {
			go func() { _, _ = adapter.Wait(n.ctx) }()
		}
		time.Sleep(30 * time.Second)
		assert.Equal(t, pulled(map[string]int64{"container.starts": 1, "task.waiting wait=exit": 2}), besides(n.numbers()))
		time.Sleep(time.Hour)
		_, err := adapter.Wait(n.ctx)
		require.NoError(t, err)
		assert.Equal(t, pulled(map[string]int64{"container.starts": 1, "container.ends end.cause=exit": 1}), besides(n.numbers()))
	}, layers()...)
}

// An adapter that waits alone counts the same causes as a controller.
func TestEachEndThatAnAdapterSeesCounts(t *testing.T) {
	t.Parallel()
	check := dockerexectest.WithHealthcheck(container.HealthConfig{Test: []string{"CMD", "check"}, Interval: time.Second, Retries: 2})
	for cause, end := range map[string]func(n *node, web *dockerexectest.Container){
		"exit":      func(_ *node, web *dockerexectest.Container) { web.Exit(0) },
		"oom":       func(_ *node, web *dockerexectest.Container) { web.OOM() },
		"lost":      func(_ *node, web *dockerexectest.Container) { web.RemoveByHand() },
		"unhealthy": func(_ *node, web *dockerexectest.Container) { web.Exit(1) },
	} {
		t.Run(cause, func(t *testing.T) {
			t.Parallel()
			probe := dockerexectest.Exit(0)
			if cause == "unhealthy" { // somebody else ends it for that
				probe = dockerexectest.Exit(1)
			}
			on(t, dockerexectest.UntilStopped(0), func(n *node) {
				adapter := n.started()
				web := n.host.Container("web.1.task1")
				time.AfterFunc(time.Minute, func() { end(n, web) })
				_, err := adapter.Wait(n.ctx)
				assert.Equal(t, cause == "lost", err != nil)
				assert.Equal(t, pulled(map[string]int64{"container.starts": 1, "container.ends end.cause=" + cause: 1}), besides(n.numbers()))
			}, layers(check, dockerexectest.WithProbe(probe))...)
		})
	}
}

// The engine ended within the start of an earlier process: the container runs without its
// knowledge, and is stopped.
func TestAStartThatWasLostCounts(t *testing.T) {
	t.Parallel()
	on(t, dockerexectest.UntilStopped(0), func(n *node) {
		n.started()
		n.host.Container("web.1.task1").AlterInspect(func(answer *container.InspectResponse) { answer.State.StartedAt = "0001-01-01T00:00:00Z" })
		later, err := n.engine.Adapter(nil, task(), nil)
		require.NoError(t, err)
		require.Equal(t, exec.ErrTaskPrepared, later.Create(n.ctx))
		require.ErrorContains(t, later.Start(n.ctx), "the engine ended within it")
		assert.Equal(t, pulled(map[string]int64{"container.starts": 1, "container.ends end.cause=lost": 1}), besides(n.numbers()))
	}, layers()...)
}

// A step of Run that is tried again waits for the engine.
func TestATaskThatWaitsForTheEngineCounts(t *testing.T) {
	t.Parallel()
	on(t, dockerexectest.Exit(0), func(n *node) {
		n.host.Down()
		time.AfterFunc(time.Minute, func() {
			assert.Equal(t, map[string]int64{"task.waiting wait=engine": 1}, besides(n.numbers()))
			n.host.Up()
		})
		_, err := n.engine.Run(n.ctx, task(), dockerexec.RunOptions{})
		require.NoError(t, err)
		assert.Equal(t, pulled(map[string]int64{"container.starts": 1, "container.ends end.cause=exit": 1}), besides(n.numbers()))
	}, layers()...)
}

// started is the adapter of a task whose container has been started.
func (n *node) started() *dockerexec.ContainerAdapter {
	n.t.Helper()
	adapter, err := n.engine.Adapter(nil, task(), nil)
	require.NoError(n.t, err)
	require.NoError(n.t, adapter.PullImage(n.ctx))
	require.NoError(n.t, adapter.Create(n.ctx))
	require.NoError(n.t, adapter.Start(n.ctx))
	return adapter
}

// running is a container that a task waits for.
var running = pulled(map[string]int64{"container.starts": 1, "task.waiting wait=exit": 1})

func with(numbers, more map[string]int64) map[string]int64 {
	all := map[string]int64{}
	for _, of := range []map[string]int64{numbers, more} {
		for name, value := range of {
			all[name] = value
		}
	}
	return all
}

func TestAnOutageCounts(t *testing.T) {
	t.Parallel()
	on(t, dockerexectest.UntilStopped(0), func(n *node) {
		adapter := n.started()
		ctx, cancel := context.WithCancel(n.ctx)
		defer cancel()
		go func() { _, _ = adapter.Wait(ctx) }()
		time.Sleep(time.Minute)
		assert.Equal(t, running, besides(n.numbers()))

		n.host.Down()
		time.Sleep(time.Minute)
		away := map[string]int64{"event_stream.outages": 1, "event_stream.away away=lost": 1}
		assert.Equal(t, with(running, away), besides(n.numbers()))

		n.host.Up()
		time.Sleep(time.Minute)
		over := map[string]int64{"event_stream.outages": 1, "event_stream.outage.duration": 1}
		assert.Equal(t, with(running, over), besides(n.numbers()))

		n.host.Restart(dockerexectest.RestartOptions{LiveRestore: true, Away: time.Minute}) // it forgets its events
		time.Sleep(time.Minute)
		lost := map[string]int64{"event_stream.outages": 2, "event_stream.outage.duration": 2, "event_stream.resyncs resync.cause=lost": 1}
		assert.Equal(t, with(running, lost), besides(n.numbers()))

		stop := n.host.FailAll("GET /events", dockerexectest.Refuse(403, "no"))
		n.host.Down()
		n.host.Up()
		time.Sleep(time.Minute)
		refused := map[string]int64{"event_stream.outages": 3, "event_stream.away away=refused": 1}
		assert.Equal(t, with(running, with(lost, refused)), besides(n.numbers()))

		cancel() // nobody needs the stream any more
		time.Sleep(time.Minute)
		assert.Equal(t, map[string]int64{}, keep(n.numbers(), "event_stream.away", "task.waiting"))
		go func() { _, _ = adapter.Wait(n.ctx) }()
		time.Sleep(time.Minute)
		assert.Equal(t, map[string]int64{"event_stream.away away=refused": 1, "event_stream.outages": 3}, keep(n.numbers(), "event_stream.away", "event_stream.outages"))
		stop()
		time.Sleep(time.Minute)
		assert.Equal(t, map[string]int64{"event_stream.outages": 3, "event_stream.outage.duration": 3}, keep(n.numbers(), "event_stream.away", "event_stream.outages", "event_stream.outage.duration"))
		n.host.Container("web.1.task1").Exit(0)
		time.Sleep(time.Minute)
	}, layers()...)
}

// The state of an outage is the present one: an engine that first hangs may be gone later.
func TestAnOutageShowsItsPresentState(t *testing.T) {
	t.Parallel()
	on(t, dockerexectest.UntilStopped(0), func(n *node) {
		adapter := n.started()
		go func() { _, _ = adapter.Wait(n.ctx) }()
		time.Sleep(time.Minute)
		away := func() map[string]int64 { return keep(n.numbers(), "event_stream.away") }
		stop := n.host.FailAll("GET /events", dockerexectest.Slow(24*time.Hour))
		n.host.Down()
		n.host.Up()
		time.Sleep(time.Minute)
		assert.Equal(t, map[string]int64{"event_stream.away away=unanswered": 1}, away())
		n.host.Down()
		time.Sleep(time.Minute)
		assert.Equal(t, map[string]int64{"event_stream.away away=lost": 1}, away())
		stop()
		n.host.Up()
		time.Sleep(time.Minute)
		assert.Equal(t, map[string]int64{}, away())
		n.host.Container("web.1.task1").Exit(0)
		time.Sleep(time.Minute)
	}, layers()...)
}

func TestAReaderOfEventsThatIsSlowCounts(t *testing.T) {
	t.Parallel()
	on(t, dockerexectest.UntilStopped(0), func(n *node) {
		adapter := n.started()
		ctx, cancel := context.WithCancel(n.ctx)
		defer cancel()
		_, closed, err := adapter.Events(ctx)
		require.NoError(t, err)
		for range 5 {
			n.host.Container("web.1.task1").Pause()
			n.host.Container("web.1.task1").Unpause()
		}
		<-closed
		assert.Equal(t, map[string]int64{"event_stream.resyncs resync.cause=slow": 1}, keep(n.numbers(), "event_stream.resyncs"))
	}, layers()...)
}

func TestAContainerThatIsNotInspectedCounts(t *testing.T) {
	t.Parallel()
	on(t, dockerexectest.UntilStopped(0), func(n *node) {
		adapter := n.started()
		stop := n.host.FailAll("GET /containers/*/json", dockerexectest.Slow(time.Hour))
		ctx, cancel := context.WithCancel(n.ctx)
		for range 2 { // once it is answered again, once nobody waits any more
			go func() { _, _ = adapter.Wait(ctx) }()
		}
		time.Sleep(3 * time.Minute)
		assert.Equal(t, map[string]int64{"container.uninspected": 2}, keep(n.numbers(), "container.uninspected"))
		assert.Positive(t, n.numbers()["engine.requests request=ContainerInspect,error.type=timed_out"])
		cancel()
		synctest.Wait()
		assert.Equal(t, map[string]int64{}, keep(n.numbers(), "container.uninspected"))
		go func() { _, _ = adapter.Wait(n.ctx) }()
		time.Sleep(3 * time.Minute)
		assert.Equal(t, map[string]int64{"container.uninspected": 1}, keep(n.numbers(), "container.uninspected"))
		stop()
		time.Sleep(10 * time.Minute)
		assert.Equal(t, running, besides(n.numbers()))
		n.host.Container("web.1.task1").Exit(0)
		time.Sleep(2 * time.Hour)
	}, layers()...)
}

func TestChecksThatHaveStoppedCount(t *testing.T) {
	t.Parallel()
	check := dockerexectest.WithHealthcheck(container.HealthConfig{Test: []string{"CMD", "check"}, Interval: time.Second, Retries: 2})
	on(t, dockerexectest.UntilStopped(0), func(n *node) {
		controller, err := n.engine.Controller(nil, task(), nil)
		require.NoError(t, err)
		defer func() { assert.NoError(t, controller.Close()) }()
		require.NoError(t, controller.Prepare(n.ctx))
		go func() {
			time.Sleep(500 * time.Millisecond)
			assert.Equal(t, int64(1), n.numbers()["task.waiting wait=health"])
		}()
		require.NoError(t, controller.Start(n.ctx))
		go func() { _ = controller.Wait(n.ctx) }()
		web := n.host.Container("web.1.task1")
		last := web.Inspect().State.Health
		web.AlterInspect(func(answer *container.InspectResponse) { answer.State.Health = last })
		time.Sleep(30 * time.Minute)
		assert.Equal(t, with(running, map[string]int64{"container.unchecked": 1}), besides(n.numbers()))
	}, layers(check, dockerexectest.WithProbe(dockerexectest.Exit(0)))...)
}

func TestAnOrphanCounts(t *testing.T) {
	t.Parallel()
	onNode(t, dockerexectest.UntilStopped(0), []dockerexec.Option{dockerexec.WithOrphans(dockerexec.OrphansReport, time.Minute)}, func(n *node) {
		before := dockerexec.NewEngine(n.host.Client()) // an earlier process
		adapter, err := before.Adapter(nil, task(), nil)
		require.NoError(t, err)
		require.NoError(t, adapter.PullImage(n.ctx))
		require.NoError(t, adapter.Create(n.ctx))
		require.NoError(t, adapter.Start(n.ctx))

		executor := n.engine.Executor(nil)
		require.NoError(t, executor.Configure(n.ctx, &api.Node{ID: "node1"}))
		executor.(exec.SecretsProvider).Secrets().Reset()
		agent := func(d time.Duration) {
			for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(20 * time.Second) {
				_, err := executor.Describe(n.ctx)
				require.NoError(t, err)
				synctest.Wait()
			}
		}
		agent(time.Minute)
		assert.Empty(t, besides(n.numbers()), "within the grace")
		agent(time.Hour)
		assert.Equal(t, map[string]int64{"orphan.containers": 1}, besides(n.numbers()))
		orphans, err := n.engine.Orphans(n.ctx, "node1", nil)
		require.NoError(t, err)
		require.Len(t, orphans, 1)
		require.NoError(t, n.engine.RemoveOrphan(n.ctx, orphans[0]))
		assert.Positive(t, n.numbers()["operation.duration operation=Engine.Orphans,outcome=ok"])
		agent(time.Minute)
		assert.Empty(t, besides(n.numbers()))
		assert.Equal(t, int64(1), n.numbers()["operation.duration operation=Engine.RemoveOrphan,outcome=ok"])
	}, layers()...)
}

// A controller's calls count, and those of its adapter below them.
func TestOperationsCount(t *testing.T) {
	t.Parallel()
	on(t, dockerexectest.UntilStopped(0), func(n *node) {
		controller, err := n.engine.Controller(nil, task(), nil)
		require.NoError(t, err)
		require.NoError(t, controller.Prepare(n.ctx))
		require.Equal(t, exec.ErrTaskPrepared, controller.Prepare(n.ctx))
		n.host.FailNext("POST /containers/*/start", dockerexectest.Refuse(503, "later"))
		require.Error(t, controller.Start(n.ctx))
		require.NoError(t, controller.Start(n.ctx))
		_, err = controller.(exec.ContainerStatuser).ContainerStatus(n.ctx)
		require.NoError(t, err)
		_, err = controller.(exec.PortStatuser).PortStatus(n.ctx)
		require.NoError(t, err)
		require.NoError(t, controller.Shutdown(n.ctx))
		require.NoError(t, controller.Terminate(n.ctx))
		require.NoError(t, controller.Remove(n.ctx))
		require.NoError(t, controller.Close())
		require.Equal(t, exec.ErrControllerClosed, controller.Start(n.ctx))
		assert.Equal(t, map[string]int64{
			"operation.duration operation=Controller.Prepare,outcome=ok":              2,
			"operation.duration operation=Controller.Start,outcome=temporary":         1,
			"operation.duration operation=Controller.Start,outcome=ok":                1,
			"operation.duration operation=Controller.Start,outcome=cancelled":         1,
			"operation.duration operation=Controller.ContainerStatus,outcome=ok":      1,
			"operation.duration operation=Controller.PortStatus,outcome=ok":           1,
			"operation.duration operation=Controller.Shutdown,outcome=ok":             1,
			"operation.duration operation=Controller.Terminate,outcome=ok":            1,
			"operation.duration operation=Controller.Remove,outcome=ok":               1,
			"operation.duration operation=ContainerAdapter.CreateNetworks,outcome=ok": 1,
			"operation.duration operation=ContainerAdapter.CreateVolumes,outcome=ok":  1,
			"operation.duration operation=ContainerAdapter.PullImage,outcome=ok":      1,
			"operation.duration operation=ContainerAdapter.Create,outcome=ok":         1,
			"operation.duration operation=ContainerAdapter.Inspect,outcome=ok":        4,
			"operation.duration operation=ContainerAdapter.Shutdown,outcome=ok":       1,
			"operation.duration operation=ContainerAdapter.Terminate,outcome=ok":      1,
			"operation.duration operation=ContainerAdapter.Remove,outcome=ok":         1,
			"operation.duration operation=ContainerAdapter.RemoveNetworks,outcome=ok": 1,
		}, keep(n.numbers(), "operation.duration"))
	}, layers()...)
}

// The table of the page has each attribute that a metric gets, and no metric gets the name
// of a task, an image or a container.
func TestMetricsHaveTheAttributesOfTheTable(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../docs/operations.md")
	require.NoError(t, err)
	on(t, dockerexectest.ExitAfter(time.Minute, 3), func(n *node) {
		n.host.FailNext("POST /containers/create", dockerexectest.Refuse(503, "later"))
		_, _ = n.engine.Run(n.ctx, task(), dockerexec.RunOptions{Logs: discard})
		var all metricdata.ResourceMetrics
		require.NoError(t, n.reader.Collect(t.Context(), &all))
		require.Len(t, all.ScopeMetrics, 1)
		assert.Equal(t, "github.com/dockerexec/dockerexec", all.ScopeMetrics[0].Scope.Name)
		for _, m := range all.ScopeMetrics[0].Metrics {
			row := regexp.MustCompile("(?m)^\\| `" + regexp.QuoteMeta(m.Name) + "` \\| [^|]* \\|([^|]*)\\|").FindSubmatch(page)
			require.NotNil(t, row, m.Name)
			var listed []string
			for _, name := range regexp.MustCompile("`([^`]+)`").FindAllSubmatch(row[1], -1) {
				listed = append(listed, string(name[1]))
			}
			seen := attributesOf(m)
			for _, name := range seen {
				assert.Contains(t, listed, name, m.Name)
			}
			if seen != nil {
				assert.ElementsMatch(t, listed, seen, m.Name)
			}
		}
	}, layers()...)
}

// attributesOf are the names of the attributes of a metric; nil: it has no value yet.
func attributesOf(m metricdata.Metrics) (names []string) {
	add := func(set attribute.Set) {
		if names == nil {
			names = []string{}
		}
		for _, a := range set.ToSlice() {
			if !slices.Contains(names, string(a.Key)) {
				names = append(names, string(a.Key))
			}
		}
	}
	switch data := m.Data.(type) {
	case metricdata.Sum[int64]:
		for _, point := range data.DataPoints {
			add(point.Attributes)
		}
	case metricdata.Histogram[float64]:
		for _, point := range data.DataPoints {
			add(point.Attributes)
		}
	}
	return names
}

// tree writes a span and those below it, in the order of their ends. Of equal ones in a row
// it writes one.
func (n *node) tree(of trace.ReadOnlySpan, indent string) string {
	text, last := indent+of.Name()+"\n", ""
	for _, span := range n.spans.Ended() {
		if span.Parent().SpanID() != of.SpanContext().SpanID() {
			continue
		}
		if below := n.tree(span, indent+"  "); below != last {
			text += below
			last = below
		}
	}
	return text
}

// The spans of a task, from its pull to its end, are in the caller's trace.
func TestASpanOfTheCallerHasTheWholeTask(t *testing.T) {
	t.Parallel()
	on(t, dockerexectest.ExitAfter(time.Minute, 3), func(n *node) {
		ctx, span := n.tracers.Tracer("test").Start(n.ctx, "the job")
		_, err := n.engine.Run(ctx, task(), dockerexec.RunOptions{})
		require.Error(t, err)
		span.End()
		var root trace.ReadOnlySpan
		for _, ended := range n.spans.Ended() {
			if ended.Name() == "the job" {
				root = ended
			}
			if ended.InstrumentationScope().Name == "github.com/dockerexec/dockerexec" {
				assert.Equal(t, span.SpanContext().TraceID(), ended.SpanContext().TraceID(), ended.Name())
				assert.Less(t, ended.EndTime().Sub(ended.StartTime()), time.Minute, "%s: a wait has no span", ended.Name())
			}
		}
		id := regexp.MustCompile("[0-9a-f]{64}")
		assert.Equal(t, `the job
  Controller.Prepare
    ContainerAdapter.Inspect
      HEAD /_ping
      GET /v1.51/containers/web.1.task1/json
      GET /v1.51/containers/json
    ContainerAdapter.CreateNetworks
    ContainerAdapter.CreateVolumes
    ContainerAdapter.PullImage
      POST /v1.51/images/create
    ContainerAdapter.Create
      POST /v1.51/containers/create
  Controller.Start
    ContainerAdapter.Inspect
      GET /v1.51/containers/web.1.task1/json
    POST /v1.51/containers/ID/start
  ContainerAdapter.Inspect
    GET /v1.51/containers/web.1.task1/json
  Controller.Remove
    ContainerAdapter.Remove
      DELETE /v1.51/containers/ID
    ContainerAdapter.RemoveNetworks
`, id.ReplaceAllString(n.tree(root, ""), "ID"))
	}, layers()...)
}

func TestSpansNameTheTask(t *testing.T) {
	t.Parallel()
	on(t, dockerexectest.UntilStopped(0), func(n *node) {
		n.started()
		created := n.span("ContainerAdapter.Create")
		assert.Equal(t, map[string]string{
			"dockerexec.outcome": "ok", "dockerexec.task.id": "task1", "dockerexec.service.id": "service1", "dockerexec.node.id": "node1",
			"container.name": "web.1.task1", "container.id": n.host.Container("web.1.task1").ID(), "container.image.name": image,
		}, attributes(created))
		assert.Equal(t, codes.Unset, created.Status().Code)
		assert.Equal(t, attributes(created), attributes(n.span("ContainerAdapter.Start")))
		assert.NotContains(t, attributes(n.span("ContainerAdapter.PullImage")), "container.id", "it was not known yet")
	}, layers()...)
}

func (n *node) span(name string) trace.ReadOnlySpan {
	n.t.Helper()
	for _, span := range n.spans.Ended() {
		if span.Name() == name {
			return span
		}
	}
	require.Fail(n.t, "no span", name)
	return nil
}

func attributes(span trace.ReadOnlySpan) map[string]string {
	all := map[string]string{}
	for _, a := range span.Attributes() {
		all[string(a.Key)] = a.Value.Emit()
	}
	return all
}

// No span and no metric shows a secret that an engine quotes in its error.
func TestTelemetryShowsNoSecret(t *testing.T) {
	t.Parallel()
	const canary = "canary-0123456789"
	on(t, dockerexectest.UntilStopped(0), func(n *node) {
		secretive := task()
		secretive.Spec.GetContainer().Env = []string{"TOKEN=" + canary}
		n.host.FailAll("POST /containers/create", dockerexectest.Refuse(500, "cannot use "+canary+" here"))
		adapter, err := n.engine.Adapter(nil, secretive, nil)
		require.NoError(t, err)
		require.NoError(t, adapter.PullImage(n.ctx))
		require.Error(t, adapter.Create(n.ctx))
		created := n.span("ContainerAdapter.Create")
		assert.Equal(t, trace.Status{Code: codes.Error, Description: "create container web.1.task1: Error response from daemon: cannot use xxxxx here"}, created.Status())
		assert.Equal(t, "final", attributes(created)["dockerexec.outcome"])
		for _, span := range n.spans.Ended() {
			assert.NotContains(t, fmt.Sprint(span.Name(), span.Attributes(), span.Status(), span.Events()), canary)
		}
		assert.NotContains(t, fmt.Sprint(n.numbers()), canary)
	}, layers()...)
}
