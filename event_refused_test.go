package dockerexec

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	engineapi "github.com/docker/docker/client"
	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// What a proxy before the engine says that lets no events through.
var errNoEvents = simError{"the path /events is not allowed", cerrdefs.ErrPermissionDenied}

func TestWaitWithoutTheEventStream(t *testing.T) {
	t.Parallel()
	for name, refusal := range map[string]error{
		"403": errNoEvents,
		"501": simError{"not implemented", cerrdefs.ErrNotImplemented},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T) {
				client := newFakeClient(t)
				source := newEventSource(client)
				source.refuse(refusal)
				found := newFakeContainer(client, container.StateRunning)
				ctx, lines := linesOf(t.Context())
				w := startWait(ctx, newTestAdapter(t, client, plainTask()))
				time.Sleep(time.Minute)
				assert.False(t, w.over())
				assert.InDelta(t, 6, found.inspects(), 2)
				found.become(exitedWith(3), nil)
				time.Sleep(12 * time.Second)
				require.True(t, w.over())
				require.NoError(t, w.err)
				assert.Equal(t, 3, w.answer.State.ExitCode)
				assert.Equal(t, []string{
					"warning: event stream refused, containers are inspected every ten seconds until it is opened error=" + refusal.Error()}, lines())
			})
		})
	}
}

// A stream that was open, and one that is opened again.
func TestWaitWhileTheEventStreamIsRefused(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		client := newFakeClient(t)
		source := newEventSource(client)
		found := newFakeContainer(client, container.StateRunning)
		w := startWait(t.Context(), newTestAdapter(t, client, plainTask()))
		settled()
		source.refuse(errNoEvents)
		source.latest().end(errStreamEnded)
		before := found.inspects()
		time.Sleep(time.Minute)
		assert.InDelta(t, 6, found.inspects()-before, 2)

		source.refuse(errAway)
		time.Sleep(30 * time.Second)
		before = found.inspects()
		time.Sleep(10 * time.Minute)
		assert.Equal(t, before, found.inspects(), "an engine that is away is not asked")

		source.refuse(nil)
		time.Sleep(time.Minute)
		assert.Equal(t, before+2, found.inspects(), "the opening, and once more")
		found.become(exitedWith(0), nil)
		source.latest().send(event(plainTask(), "die", time.Now().UnixNano()))
		time.Sleep(time.Second)
		assert.True(t, w.over())
	})
}

// What failed before anybody waited gives an engine that restarts now no less time.
func TestAnOutageOfAnHourAgoIsNoRefusal(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		client := newFakeClient(t)
		source := newEventSource(client)
		source.refuse(simError{"restarting", cerrdefs.ErrUnavailable})
		found := newFakeContainer(client, container.StateRunning)
		adapter := newTestAdapter(t, client, plainTask())
		for range 2 {
			before := found.inspects()
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Second)
			_, err := adapter.Wait(ctx)
			cancel()
			require.Equal(t, context.DeadlineExceeded, err)
			assert.Equal(t, before, found.inspects())
			time.Sleep(time.Hour)
		}
	})
}

// Events are promised to whoever subscribes to them.
func TestEventsWaitForAStreamThatIsRefused(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		client := newFakeClient(t)
		source := newEventSource(client)
		source.refuse(errNoEvents)
		adapter := newTestAdapter(t, client, plainTask())
		subscribe := func() error { _, _, err := adapter.Events(t.Context()); return err }
		assert.Zero(t, source.opens())
		begin := time.Now()
		time.AfterFunc(time.Hour, func() { source.refuse(nil) })
		require.NoError(t, subscribe())
		assert.GreaterOrEqual(t, time.Since(begin), time.Hour)
		synctest.Wait()
		assert.Equal(t, 1, source.opens())
	})
}

func TestHealthWithoutTheEventStream(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		client := newFakeClient(t)
		newEventSource(client).refuse(errNoEvents)
		found := newFakeContainer(client, container.StateRunning)
		starting := containerIs(container.StateRunning)
		starting.State.Health = &container.Health{Status: container.Starting}
		found.become(starting, nil)
		made, err := NewExecutor(client, nil).Controller(plainTask())
		require.NoError(t, err)
		start := asynchronously(func() error { return made.Start(t.Context()) })
		time.Sleep(time.Minute)
		healthy := containerIs(container.StateRunning)
		healthy.State.Health = &container.Health{Status: container.Healthy}
		found.become(healthy, nil)
		require.Equal(t, exec.ErrTaskStarted, start())
	})
}

// What a proxy may do to the request for events alone, while the engine behind it
// answers to inspects.
func TestWaitWhereOnlyTheEventStreamFails(t *testing.T) {
	t.Parallel()
	const lost = "warning: event stream lost, it is opened again as soon as the engine answers error="
	const refused = "warning: event stream refused, containers are inspected every ten seconds until it is opened error="
	says := func(status int, body string) answering {
		return func(*http.Request) (int, string) { return status, body }
	}
	for _, test := range []struct {
		name   string
		events http.RoundTripper
		within time.Duration
		lines  []string
	}{
		{"no JSON", says(http.StatusOK, "<html>"), time.Second,
			[]string{refused + "invalid character '<' looking for beginning of value"}},
		{"another JSON", says(http.StatusOK, `"hello"`), time.Second,
			[]string{refused + "json: cannot unmarshal string into Go value of type events.Message"}},
		{"405", says(http.StatusMethodNotAllowed, `{"message": "no"}`), time.Second,
			[]string{refused + "Error response from daemon: no"}},
		{"429", says(http.StatusTooManyRequests, `{"message": "later"}`), 70 * time.Second,
			[]string{lost + "Error response from daemon: later", refused + "Error response from daemon: later"}},
		{"502", says(http.StatusBadGateway, `{"message": "none"}`), 70 * time.Second,
			[]string{lost + "Error response from daemon: none", refused + "Error response from daemon: none"}},
		{"503", says(http.StatusServiceUnavailable, `{"message": "no server"}`), 70 * time.Second,
			[]string{lost + "Error response from daemon: no server", refused + "Error response from daemon: no server"}},
		{"504", says(http.StatusGatewayTimeout, `{"message": "slow"}`), 70 * time.Second,
			[]string{lost + "Error response from daemon: slow", refused + "Error response from daemon: slow"}},
		{"no answer", (&oldEngine{hang: true}), 4*time.Minute + time.Second,
			[]string{lost + "the engine did not answer within 2m0s", refused + "the engine did not answer within 2m0s"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T) {
				ended := says(http.StatusOK, `{"Id": "c1", "State": {"Status": "exited", "ExitCode": 3}}`)
				adapter := adapterVia(t, func(r *http.Request) (*http.Response, error) {
					if strings.HasSuffix(r.URL.Path, "/events") {
						return test.events.RoundTrip(r)
					}
					return ended.RoundTrip(r)
				})
				ctx, lines := linesOf(t.Context())
				ctx, cancel := context.WithTimeout(ctx, 24*time.Hour)
				defer cancel()
				begin := time.Now()
				answer, err := adapter.Wait(ctx)
				require.NoError(t, err)
				assert.Equal(t, 3, answer.State.ExitCode)
				assert.LessOrEqual(t, time.Since(begin), test.within)
				assert.Equal(t, test.lines, lines())
			})
		})
	}
}

// An engine that answers nothing at all is told of once, and not by each that waits.
func TestWaitsOnAnEngineThatHangsSayNothingOfTheirContainers(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		adapter := adapterVia(t, func(r *http.Request) (*http.Response, error) {
			<-r.Context().Done()
			return nil, r.Context().Err()
		})
		ctx, lines := linesOf(t.Context())
		ctx, cancel := context.WithTimeout(ctx, time.Hour)
		defer cancel()
		_, err := adapter.Wait(ctx)
		assert.Equal(t, context.DeadlineExceeded, err)
		assert.Equal(t, []string{
			"warning: event stream lost, it is opened again as soon as the engine answers error=the engine did not answer within 2m0s",
			"warning: event stream refused, containers are inspected every ten seconds until it is opened error=the engine did not answer within 2m0s",
		}, lines())
	})
}

type transport func(*http.Request) (*http.Response, error)

func (t transport) RoundTrip(r *http.Request) (*http.Response, error) { return t(r) }

// adapterVia makes an adapter of the engine's own client, whose requests via answers.
func adapterVia(t *testing.T, via transport) *ContainerAdapter {
	t.Helper()
	client, err := engineapi.NewClientWithOpts(engineapi.WithHost("tcp://engine"), engineapi.WithVersion("1.51"),
		engineapi.WithHTTPClient(&http.Client{Transport: via}))
	require.NoError(t, err)
	engine := NewEngine(client)
	engine.api.fix("1.51")
	adapter, err := engine.Adapter(nil, plainTask(), nil)
	require.NoError(t, err)
	return adapter
}

// An engine that is away behind a proxy which answers in its place: nothing tells
// that from a proxy that keeps the event stream alone from getting through.
func TestWaitWhileAProxyAnswersForTheEngine(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		away := simError{"no server", cerrdefs.ErrUnavailable}
		client := newFakeClient(t)
		source := newEventSource(client)
		found := newFakeContainer(client, container.StateRunning)
		ctx, lines := linesOf(t.Context())
		w := startWait(ctx, newTestAdapter(t, client, plainTask()))
		settled()
		before := found.inspects()
		source.refuse(away)
		found.become(container.InspectResponse{}, away)
		source.latest().end(io.ErrUnexpectedEOF)
		time.Sleep(50 * time.Second)
		assert.Equal(t, before, found.inspects(), "a restart is waited for")
		time.Sleep(10 * time.Minute)
		assert.InDelta(t, 60, found.inspects()-before, 6)

		source.refuse(errAway) // the proxy goes too
		time.Sleep(time.Minute)
		before = found.inspects()
		time.Sleep(10 * time.Minute)
		assert.Equal(t, before, found.inspects())
		source.refuse(away)
		time.Sleep(time.Minute)

		source.refuse(nil)
		found.become(containerIs(container.StateRunning), nil)
		time.Sleep(10 * time.Second)
		assert.False(t, w.over())
		require.Len(t, lines(), 3, "and that it is restored")
		assert.Equal(t, []string{
			"warning: event stream lost, it is opened again as soon as the engine answers error=unexpected EOF",
			"warning: event stream refused, containers are inspected every ten seconds until it is opened error=" + away.Error(),
		}, lines()[:2])
		found.become(exitedWith(3), nil)
		source.latest().send(event(plainTask(), "die", time.Now().UnixNano()))
		time.Sleep(time.Second)
		require.True(t, w.over())
		require.NoError(t, w.err)
	})
}
