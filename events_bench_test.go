package dockerexec

import (
	"context"
	"math"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/events"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// silentEvents has every request for events established, and no event come.
func silentEvents(client *fakeClient) {
	client.events = func(context.Context, events.ListOptions) (<-chan events.Message, <-chan error) {
		return make(chan events.Message), make(chan error)
	}
}

func numberedAdapters(t testing.TB, engine *Engine, count int) []*ContainerAdapter {
	adapters := make([]*ContainerAdapter, count)
	for n := range adapters {
		adapter, err := engine.Adapter(nil, numberedTask(n), nil)
		require.NoError(t, err)
		adapters[n] = adapter
	}
	return adapters
}

// dispatchBench sends events through the run of an Engine with subscribers, as
// its goroutine does.
type dispatchBench struct {
	run    *streamRun
	subs   []subscribed
	ids    []string
	names  []string
	nano   int64
	cancel context.CancelFunc
}

func newDispatchBench(b *testing.B, count int) *dispatchBench {
	client := newFakeClient(b)
	silentEvents(client)
	engine := NewEngine(client)
	ctx, cancel := context.WithCancel(b.Context())
	d := &dispatchBench{nano: at, cancel: cancel}
	for _, adapter := range numberedAdapters(b, engine, count) {
		d.subs = append(d.subs, subscribe(ctx, b, adapter))
		d.ids = append(d.ids, adapter.config.task.ID)
		d.names = append(d.names, adapter.config.name())
	}
	// The goroutine of the stream has a reader of its own.
	d.run = &streamRun{stream: &engine.stream, byTask: engine.stream.run.byTask, byName: engine.stream.run.byName}
	return d
}

func (d *dispatchBench) end() {
	d.cancel()
	for _, sub := range d.subs {
		<-sub.closed
	}
}

// batch is how many events are dispatched between two looks at the clock: what
// the queues of ten subscribers hold.
const batch = 10 * eventQueue

// events dispatches number events to count subscribers of all, in an order of no
// pattern, and returns the nanoseconds of one. The events are fresh, as if just
// decoded, so their strings are copied before the clock runs; and the readers
// take them out when it has stopped.
func (d *dispatchBench) events(ctx context.Context, number, count int) float64 {
	targets := rand.New(rand.NewPCG(1, 2)).Perm(len(d.subs))[:count]
	messages := make([]events.Message, batch)
	for i := range messages {
		messages[i] = event(numberedTask(0), "pause", 0)
	}
	var took time.Duration
	for first := 0; first < number; first += batch {
		for i := range messages {
			n := targets[(first+i)%count]
			d.nano++
			messages[i].TimeNano = d.nano
			messages[i].Actor.Attributes[LabelTaskID] = strings.Clone(d.ids[n])
			messages[i].Actor.Attributes["name"] = strings.Clone(d.names[n])
		}
		begin := time.Now()
		for i := range messages {
			d.run.receive(ctx, messages[i])
		}
		took += time.Since(begin)
		for i := range messages {
			<-d.subs[targets[(first+i)%count]].messages
		}
	}
	return float64(took.Nanoseconds()) / float64(number)
}

// BenchmarkEventDispatch is the way of an event from the client's channel into
// the queue of its one subscriber, with 10 and with 10,000 subscribers side by
// side: the baseline is that of 10. As many subscribers get the events, so the
// ratio shows what the others cost. In "spread" each of the 10,000 gets one in
// turn, so that all that an event touches has to come from memory: a queue holds
// 1 KiB, which no longer fits into a processor's cache 10,000 times.
func BenchmarkEventDispatch(b *testing.B) {
	b.Run("10,000 beside 10", func(b *testing.B) { // the table shows it
		few, many := newDispatchBench(b, 10), newDispatchBench(b, 10_000)
		defer few.end()
		defer many.end()
		spread := math.Inf(1)
		compare(b, "ns/event", 1.5, func() float64 {
			spread = min(spread, many.events(b.Context(), 10_000, 10_000))
			return many.events(b.Context(), 10_000, 10)
		}, func() float64 { return few.events(b.Context(), 10_000, 10) })
		b.ReportMetric(spread, "ns/event-spread")
		if spread > 1000 {
			b.Errorf("an event takes %.0f ns where all 10,000 subscribers get some", spread)
		}
	})
}

// An idle subscription costs at most 2 KiB and no goroutine; a Wait no
// goroutine but its caller's.
func TestIdleSubscribersCostLittle(t *testing.T) {
	const count = 10_000
	client := newFakeClient(t)
	silentEvents(client)
	engine := NewEngine(client)
	adapters := numberedAdapters(t, engine, count)
	subs := make([]subscribed, count)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()

	heap := func() uint64 {
		runtime.GC()
		runtime.GC()
		var stats runtime.MemStats
		runtime.ReadMemStats(&stats)
		return stats.HeapAlloc
	}
	goroutines, before := runtime.NumGoroutine(), heap()
	for n, adapter := range adapters {
		subs[n] = subscribe(ctx, t, adapter)
	}
	each := float64(heap()-before) / count
	t.Logf("an idle subscriber: %.0f bytes of heap; %d goroutines for %d of them", each, runtime.NumGoroutine()-goroutines, count)
	assert.LessOrEqual(t, each, 2048.0)
	assert.LessOrEqual(t, runtime.NumGoroutine()-goroutines, 1)

	cancel()
	for _, sub := range subs {
		<-sub.closed
	}
	assert.Nil(t, engine.stream.run)
	runtime.KeepAlive(adapters)
}
