package main

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockerexec/dockerexec"
	"github.com/dockerexec/dockerexec/dockerexectest"
)

// watched is a monitor of an Engine on an engine for tests.
func watched(t *testing.T) (*monitor, *dockerexectest.Engine, *dockerexec.Engine) {
	t.Helper()
	engine := dockerexectest.New(t)
	engine.Image("example/web:1", dockerexectest.UntilStopped(0))
	client := engine.Client()
	m, err := newMonitor(client)
	require.NoError(t, err)
	return m, engine, dockerexec.NewEngine(client, m.options()...)
}

// waitingTask runs a task and waits for its end, until stop is called.
func waitingTask(t *testing.T, engine *dockerexec.Engine) (stop func()) {
	t.Helper()
	controller, err := engine.Controller(nil, webTask("example/web:1"), nil)
	require.NoError(t, err)
	require.NoError(t, controller.Prepare(t.Context()))
	require.NoError(t, controller.Start(t.Context()))
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- controller.Wait(ctx) }()
	synctest.Wait()
	time.Sleep(2 * time.Second) // the stream is proven
	return func() {
		cancel()
		require.ErrorIs(t, <-ended, context.Canceled)
		synctest.Wait()
	}
}

// get returns what the monitor answers.
func (m *monitor) get(path string) (code int, text string) {
	answer := httptest.NewRecorder()
	m.handler().ServeHTTP(answer, httptest.NewRequest(http.MethodGet, path, nil))
	return answer.Code, answer.Body.String()
}

// value is that of one line of /metrics; empty: there is no such line.
func (m *monitor) value(t *testing.T, series string) string {
	t.Helper()
	code, text := m.get("/metrics")
	require.Equal(t, 200, code)
	for line := range strings.SplitSeq(text, "\n") {
		if value, found := strings.CutPrefix(line, series+" "); found {
			return value
		}
	}
	return ""
}

func TestHealthFollowsTheEngine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, engine, executor := watched(t)
		stop := waitingTask(t, executor)
		code, text := m.get("/healthz")
		assert.Equal(t, 200, code)
		assert.Equal(t, "ok\n", text)
		assert.Equal(t, "1", m.value(t, "dockerexec_container_starts_total"))
		assert.Equal(t, "0", m.value(t, `dockerexec_event_stream_away{dockerexec_away="lost"}`))
		assert.NotEmpty(t, m.value(t, "go_goroutines"), "the process' own metrics")

		engine.Down()
		time.Sleep(time.Second)
		code, text = m.get("/healthz")
		assert.Equal(t, 503, code)
		assert.Contains(t, text, "the engine does not answer: ")
		assert.Equal(t, "1", m.value(t, `dockerexec_event_stream_away{dockerexec_away="lost"}`))

		time.Sleep(time.Minute)
		engine.Up()
		code, text = m.get("/healthz")
		assert.Equal(t, 503, code)
		assert.Regexp(t, `^the engine answers, and tasks wait for its events since 2000-01-01T00:00:0\dZ: .+\n$`, text)
		time.Sleep(10 * time.Second)
		_, text = m.get("/healthz")
		assert.Equal(t, "ok\n", text)
		assert.Equal(t, "0", m.value(t, `dockerexec_event_stream_away{dockerexec_away="lost"}`))
		assert.Equal(t, "1", m.value(t, "dockerexec_event_stream_outages_total"))
		stop()
	})
}

// Who waits for nothing learns nothing of the engine from events.
func TestHealthWithoutTasks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, engine, executor := watched(t)
		stop := waitingTask(t, executor)
		engine.Down()
		time.Sleep(time.Second)
		stop()
		code, text := m.get("/healthz")
		assert.Equal(t, 503, code)
		assert.Contains(t, text, "the engine does not answer: ")
		engine.Up()
		_, text = m.get("/healthz")
		assert.Equal(t, "ok\n", text, "an outage whose end nobody has seen is over")

		engine.Hang()
		begin := time.Now()
		code, text = m.get("/healthz")
		assert.Equal(t, 503, code)
		assert.Contains(t, text, "the engine does not answer: ")
		assert.Equal(t, 5*time.Second, time.Since(begin))
		engine.Resume()
	})
}

func TestHealthOfAnEngineThatRefusesItsEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, engine, executor := watched(t)
		stopFault := engine.FailAll("GET /events", dockerexectest.Refuse(403, "no events for you"))
		stop := waitingTask(t, executor)
		code, text := m.get("/healthz")
		assert.Equal(t, 200, code)
		assert.Regexp(t, `^ok, but the engine refuses its events since 2000-01-01T00:00:0\dZ: .*no events for you`, text)
		assert.Equal(t, "1", m.value(t, `dockerexec_event_stream_away{dockerexec_away="refused"}`))
		stopFault()
		time.Sleep(10 * time.Second)
		_, text = m.get("/healthz")
		assert.Equal(t, "ok\n", text)
		stop()
	})
}

func TestMetricsAreServedUntilTheEnd(t *testing.T) {
	engine := dockerexectest.New(t)
	m, err := newMonitor(engine.Client())
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	address := freeAddress(t)
	ended, err := m.serve(ctx, address)
	require.NoError(t, err)
	_, err = m.serve(ctx, address)
	require.ErrorContains(t, err, "address already in use")

	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	answer, err := client.Get("http://" + address + "/healthz")
	require.NoError(t, err)
	text, err := io.ReadAll(answer.Body)
	require.NoError(t, err)
	require.NoError(t, answer.Body.Close())
	assert.Equal(t, "ok\n", string(text))

	cancel()
	ended()
	_, err = client.Get("http://" + address + "/healthz") //nolint:bodyclose // there is none
	require.ErrorContains(t, err, "connection refused")
}
