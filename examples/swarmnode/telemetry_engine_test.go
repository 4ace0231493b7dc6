package main

import (
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	gogotypes "github.com/gogo/protobuf/types"
	"github.com/moby/swarmkit/v2/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// scraper reads a node's page each second, and evaluates the rules of alerts.
type scraper struct {
	t       testing.TB
	url     string
	client  http.Client
	watch   *alertWatch
	stopped sync.WaitGroup
	stop    chan struct{}

	mu     sync.Mutex
	last   samples
	firing []string
}

func newScraper(t testing.TB, address string) *scraper {
	s := &scraper{t: t, url: "http://" + address + "/metrics", watch: newAlertWatch(t), stop: make(chan struct{}),
		client: http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}}
	s.scrape()
	s.stopped.Go(func() {
		for ticks := time.NewTicker(time.Second); ; {
			select {
			case <-ticks.C:
				s.scrape()
			case <-s.stop:
				ticks.Stop()
				return
			}
		}
	})
	return s
}

// end ends the scrapes. It is called before the node ends.
func (s *scraper) end() {
	close(s.stop)
	s.stopped.Wait()
}

func (s *scraper) scrape() {
	answer, err := s.client.Get(s.url)
	if !assert.NoError(s.t, err) {
		return
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	assert.NoError(s.t, err)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last = parseSamples(s.t, string(text))
	s.firing = s.watch.add(time.Now(), s.last)
}

// counts are the counters that a task or a fault moves, by metric and attribute.
func (s *scraper) counts() map[string]float64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	counts := map[string]float64{}
	for series, value := range s.last {
		name, found := strings.CutPrefix(series, "dockerexec_")
		counter := strings.Contains(name, "_total{") || strings.HasPrefix(name, "orphan_containers{")
		// Requests are many, and an engine tells no bytes of a small layer, or of one that it has.
		if found && counter && !strings.HasPrefix(name, "engine_requests") && !strings.HasPrefix(name, "pull_io") {
			counts[name] = value
		}
	}
	return counts
}

// moves does something, and waits until the counters have moved as wanted, and no other.
func (s *scraper) moves(what string, want map[string]float64, do func()) {
	s.t.Helper()
	s.movesAsOneOf(what, do, want)
}

// movesByRunning has the node pull and run a service of one task, and returns the service.
func (s *scraper) movesByRunning(of *swarm) (service string) {
	s.t.Helper()
	s.moves("pull and run", map[string]float64{
		`pull_attempts_total{dockerexec_outcome="ok"}`: 1, "container_starts_total{}": 1,
	}, func() { service = of.create(of.service("web", 1, "sleep", "1h")) })
	return service
}

// movesAsOneOf is moves where several things may be wanted. It returns which has come.
func (s *scraper) movesAsOneOf(what string, do func(), wants ...map[string]float64) int {
	s.t.Helper()
	before := s.counts()
	do()
	var moved map[string]float64
	for late := time.Now().Add(patience); time.Now().Before(late); time.Sleep(200 * time.Millisecond) {
		moved = map[string]float64{}
		for name, value := range s.counts() {
			if value != before[name] {
				moved[name] = value - before[name]
			}
		}
		for i, want := range wants {
			if maps.Equal(moved, want) {
				return i
			}
		}
	}
	require.Equal(s.t, wants[0], moved, what)
	return 0
}

// awaitAlert waits until an alert fires, or until it does not, and returns how long that took.
func (s *scraper) awaitAlert(name string, fires bool) time.Duration {
	s.t.Helper()
	begin := time.Now()
	for late := begin.Add(patience); ; time.Sleep(100 * time.Millisecond) {
		s.mu.Lock()
		now := slices.Contains(s.firing, name)
		s.mu.Unlock()
		if now == fires {
			return time.Since(begin)
		}
		require.True(s.t, time.Now().Before(late), "%s, fires: %v", name, fires)
	}
}

// Somebody sees all of a node from outside: each thing that happens to it moves its
// counter and no other, an alert fires where somebody is to look, and the spans of a task
// are one trace.
func TestEngineNodeTellsWhatHappens(t *testing.T) {
	sharesEngine(t)
	spans, address := filepath.Join(t.TempDir(), "spans"), freeAddress(t)
	s := newSwarmOf(t, os.Executable, []string{tracesTo + "=" + spans}, "-metrics", address, "-orphan-grace", "5s")
	seen := newScraper(t, address)
	end := sync.OnceFunc(seen.end)
	t.Cleanup(end)

	web := seen.movesByRunning(s)
	task := s.awaitRunning(web, 1)[0].ID

	run := func(name string, change func(*api.ServiceSpec), args ...string) func() {
		return func() {
			spec := s.service(name, 1, args...)
			spec.Task.Restart = &api.RestartPolicy{Condition: api.RestartOnNone}
			change(spec)
			s.create(spec)
		}
	}
	ended := func(cause string) map[string]float64 {
		return map[string]float64{`pull_attempts_total{dockerexec_outcome="ok"}`: 1, "container_starts_total{}": 1,
			fmt.Sprintf(`container_ends_total{dockerexec_end_cause=%q}`, cause): 1}
	}
	seen.moves("exit", ended("exit"), run("exits", func(*api.ServiceSpec) {}, "exit", "3"))
	info, err := s.engine.Info(t.Context())
	require.NoError(t, err)
	if info.MemoryLimit {
		// A busy engine may not hear of it, and lays the end to nothing: then once more.
		for try := 1; seen.movesAsOneOf("out of memory", run(fmt.Sprint("oom", try), func(spec *api.ServiceSpec) {
			spec.Task.Resources = &api.ResourceRequirements{Limits: &api.Resources{MemoryBytes: 48 << 20}, SwapBytes: &gogotypes.Int64Value{}}
		}, "oom", "200"), ended("oom"), ended("exit")) != 0; try++ {
			require.Less(t, try, 5, "ends that the engine does not lay to memory")
			assert.False(t, s.isOOMKilled(fmt.Sprint("oom", try)), "the engine lays the end to memory, and the counter does not")
		}
	} else {
		t.Log("this kernel limits no memory: no container is out of it")
	}
	seen.moves("unhealthy", ended("unhealthy"), run("unhealthy", func(spec *api.ServiceSpec) {
		spec.Task.GetContainer().Healthcheck = &api.HealthConfig{Test: []string{"CMD", "/testtask", "health", "/tmp/none"}, Retries: 2,
			Interval: gogotypes.DurationProto(200 * time.Millisecond), Timeout: gogotypes.DurationProto(10 * time.Second)}
	}, "sleep", "1h"))
	assert.Empty(t, seen.watch.names(), "alerts so far")

	seen.moves("a container of no task", map[string]float64{"orphan_containers{}": 1}, func() {
		made, err := s.engine.ContainerCreate(t.Context(), &container.Config{Image: fromHarness(t, "DOCKEREXEC_TEST_IMAGE"), Labels: map[string]string{
			"com.docker.swarm.task": "", "com.docker.swarm.task.id": "gone", "com.docker.swarm.node.id": s.nodeID,
		}}, nil, nil, nil, "left.1.gone")
		require.NoError(t, err)
		t.Cleanup(func() { _ = s.engine.ContainerRemove(t.Context(), made.ID, container.RemoveOptions{Force: true}) })
	})
	seen.awaitAlert("ContainersLeftBehind", true)
	seen.moves("its removal", map[string]float64{"orphan_containers{}": -1}, func() {
		require.NoError(t, s.engine.ContainerRemove(t.Context(), "left.1.gone", container.RemoveOptions{}))
	})
	seen.awaitAlert("ContainersLeftBehind", false)

	seen.moves("a pull that is refused", map[string]float64{`pull_attempts_total{dockerexec_outcome="final"}`: 1}, run("typo", func(spec *api.ServiceSpec) {
		spec.Task.GetContainer().Image = strings.Replace(spec.Task.GetContainer().Image, "testtask", "typo", 1)
	}))
	seen.awaitAlert("PullsFail", true)

	s.remove(web)
	end()
	assert.Equal(t, []string{"ContainersLeftBehind", "PullsFail"}, seen.watch.names())
	s.clear()
	s.stop()
	checkTrace(t, readSpans(t, spans), task)
}

// The alert of a killed engine fires, and ends once the engine is back.
func TestEngineNodeTellsThatItsEngineIsAway(t *testing.T) {
	fromHarness(t, "DOCKEREXEC_TEST_ENGINE")
	address := freeAddress(t)
	s := newSwarm(t, "-metrics", address)
	seen := newScraper(t, address)
	end := sync.OnceFunc(seen.end)
	t.Cleanup(end)
	web := seen.movesByRunning(s)
	s.awaitRunning(web, 1)
	seen.moves("an engine that is killed, and has forgotten its events", map[string]float64{
		"event_stream_outages_total{}": 1, `event_stream_resyncs_total{dockerexec_resync_cause="lost"}`: 1,
	}, func() {
		controlEngine(t, "kill")
		took := seen.awaitAlert("EngineAway", true)
		assert.Less(t, took, time.Minute, "until the alert fires")
		controlEngine(t, "start")
		ended := seen.awaitAlert("EngineAway", false)
		t.Logf("EngineAway fired %v after the engine was killed, and ended %v after its return", took.Round(time.Second), ended.Round(time.Second))
	})

	s.remove(web)
	end()
	assert.Equal(t, []string{"EngineAway"}, seen.watch.names())
}

// isOOMKilled reports whether the engine says that the container of a service was killed for
// its memory.
func (s *swarm) isOOMKilled(service string) bool {
	s.t.Helper()
	list, err := s.engine.ContainerList(s.t.Context(), container.ListOptions{All: true,
		Filters: filters.NewArgs(filters.Arg("label", "com.docker.swarm.service.name="+service))})
	require.NoError(s.t, err)
	require.Len(s.t, list, 1)
	answer, err := s.engine.ContainerInspect(s.t.Context(), list[0].ID)
	require.NoError(s.t, err)
	return answer.State.OOMKilled
}

// checkTrace looks for the whole life of a task below one span.
func checkTrace(t *testing.T, spans []writtenSpan, task string) {
	t.Helper()
	byID, traces, names := map[string]writtenSpan{}, map[string]bool{}, map[string]bool{}
	for _, span := range spans {
		byID[span.SpanContext.SpanID] = span
		if span.attribute("dockerexec.task.id") == task {
			traces[span.SpanContext.TraceID] = true
		}
	}
	require.Len(t, traces, 1, "traces with spans of the task")
	for _, span := range spans {
		if !traces[span.SpanContext.TraceID] {
			continue
		}
		path := span.Name
		for parent, found := byID[span.Parent.SpanID]; found; parent, found = byID[parent.Parent.SpanID] {
			path = parent.Name + " / " + path
		}
		names[path] = true
	}
	for _, want := range []string{
		"task",
		"task / Controller.Prepare",
		"task / Controller.Prepare / ContainerAdapter.PullImage",
		"task / Controller.Prepare / ContainerAdapter.Create",
		"task / Controller.Start",
		"task / Controller.Start / ContainerAdapter.Inspect",
		"task / ContainerAdapter.Inspect",
		"task / Controller.ContainerStatus",
		"task / Controller.Shutdown / ContainerAdapter.Shutdown",
		"task / Controller.Remove",
		"task / Controller.Remove / ContainerAdapter.Remove",
	} {
		assert.Contains(t, names, want)
	}
	requests := 0
	for name := range names {
		assert.True(t, name == "task" || strings.HasPrefix(name, "task / "), name)
		if strings.Contains(name, " /v1.") {
			requests++
		}
	}
	assert.Positive(t, requests, "the client's spans of requests, below those of the package")
	if t.Failed() {
		t.Log(strings.Join(slices.Sorted(maps.Keys(names)), "\n"))
	}
}
