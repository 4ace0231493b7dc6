package dockerexec

import (
	"context"
	"io"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/events"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// An engine that is away costs one quiet loop: a first try within 100 ms, then
// ever longer pauses, up to 5 s; a good event makes them short again.
func TestPausesWhileTheEngineIsAway(t *testing.T) {
	t.Parallel()
	var dials int
	for range 50 {
		synctest.Test(t, func(t *testing.T) {
			client := newFakeClient(t)
			running(client, "running")
			source := newEventSource(client)
			ctx, lines := linesOf(t.Context())
			ctx, cancel := context.WithCancel(ctx)
			engine := NewEngine(client)
			var waits sync.WaitGroup
			for n := range 40 {
				adapter, err := engine.Adapter(nil, numberedTask(n), nil)
				require.NoError(t, err)
				waits.Go(func() {
					_, err := adapter.Wait(ctx)
					assert.Equal(t, context.Canceled, err)
				})
			}
			time.Sleep(time.Minute)
			source.latest().send(event(numberedTask(0), "start", at))
			source.refuse(engineAway{})
			time.Sleep(time.Second)
			calls := len(client.called())
			source.latest().end(io.ErrUnexpectedEOF)
			time.Sleep(10 * time.Second)
			away := source.requests() - 1
			dials = max(dials, away)
			assert.Less(t, away, 20)
			assert.Equal(t, calls+away, len(client.called()), "nothing but the one loop")
			assert.Len(t, lines(), 1)

			time.Sleep(10 * time.Minute)
			limits := []time.Duration{100 * time.Millisecond, 200 * time.Millisecond, 400 * time.Millisecond,
				800 * time.Millisecond, 1600 * time.Millisecond, 3200 * time.Millisecond, 5 * time.Second}
			_, before := source.asked(1)
			for n := range source.requests() - 2 {
				_, when := source.asked(n + 2)
				assert.LessOrEqual(t, when.Sub(before), limits[min(n+1, len(limits)-1)])
				before = when
			}
			assert.GreaterOrEqual(t, source.requests(), 120)
			assert.LessOrEqual(t, source.requests(), 480)

			source.refuse(nil)
			time.Sleep(longestPause + settleTime)
			source.latest().send(event(numberedTask(0), "die", at+1))
			lost := time.Now()
			source.latest().end(io.ErrUnexpectedEOF)
			time.Sleep(firstPause)
			_, again := source.asked(source.requests() - 1)
			assert.LessOrEqual(t, again.Sub(lost), firstPause)
			cancel()
			waits.Wait()
		})
	}
	t.Logf("an engine away for 10 s with 40 waits: at most %d requests in 50 runs", dials)
}

// A stream that is opened and breaks at once, again and again, is one outage.
func TestLogOfAStreamThatKeepsBreaking(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		client := newFakeClient(t)
		source := newEventSource(client)
		ctx, lines := linesOf(t.Context())
		adapter := newTestAdapter(t, client, plainTask())
		begin := time.Now()
		for range 20 {
			subscribe(ctx, t, adapter)
			source.latest().end(io.ErrUnexpectedEOF)
		}
		assert.Greater(t, time.Since(begin), 10*time.Second, "subscribing again and again does without pauses")
		assert.Equal(t, []string{"warning: event stream lost, it is opened again as soon as the engine answers error=unexpected EOF"}, lines())
	})
}

// Callers that lose patience and come again share the pauses too.
func TestImpatientCallersWhileTheEngineIsAway(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		client := newFakeClient(t)
		source := newEventSource(client)
		source.refuse(engineAway{})
		ctx, lines := linesOf(t.Context())
		adapter := newTestAdapter(t, client, plainTask())
		begin := time.Now()
		for time.Since(begin) < time.Minute {
			ctx, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
			_, _, err := adapter.Events(ctx)
			assert.Equal(t, context.DeadlineExceeded, err)
			cancel()
		}
		assert.LessOrEqual(t, source.requests(), 40)
		assert.Len(t, lines(), 1)
	})
}

// A request that fails a moment after the client has returned has failed.
func TestARequestThatFailsLateIsNotEstablished(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		client := newFakeClient(t)
		client.containerInspect = func(context.Context, string) (container.InspectResponse, error) {
			t.Error("inspected while the engine is away")
			return container.InspectResponse{}, engineAway{}
		}
		client.events = func(context.Context, events.ListOptions) (<-chan events.Message, <-chan error) {
			errs := make(chan error, 1)
			time.AfterFunc(5*time.Millisecond, func() { errs <- engineAway{} })
			return make(chan events.Message), errs
		}
		ctx, lines := linesOf(t.Context())
		ctx, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		_, err := newTestAdapter(t, client, plainTask()).Wait(ctx)
		assert.Equal(t, context.DeadlineExceeded, err)
		assert.Len(t, lines(), 1)
	})
}
