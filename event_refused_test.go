package dockerexec

import (
	"testing"
	"testing/synctest"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
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
