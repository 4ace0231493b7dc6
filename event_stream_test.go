package dockerexec

import (
	"context"
	"io"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/docker/docker/api/types/events"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// at is a nanosecond of 1 January 2001.
const at = int64(978307200_000000000)

// Each row is what comes after a cut at the third event, and what becomes of a
// subscriber. What comes again is not delivered again.
func TestResume(t *testing.T) {
	t.Parallel()
	task := plainTask()
	before := []events.Message{event(task, "create", at), event(task, "start", at+5), event(task, "oom", at+5)}
	seenTwice := append([]events.Message{}, before[1:]...)
	for _, test := range []struct {
		name   string
		after  []events.Message
		want   []string
		resync bool
	}{
		{"the last event and nothing else", before[2:], nil, false},
		{"all of its nanosecond", seenTwice, nil, false},
		{"more of its nanosecond", append(seenTwice, event(task, "die", at+5)), []string{"die"}, false},
		{"another container in its nanosecond", append(seenTwice, event(numberedTask(1), "die", at+5)), nil, false},
		{"what was missed", append(seenTwice, event(task, "die", at+6), event(task, "stop", at+7)), []string{"die", "stop"}, false},
		{"what was missed, its times out of order", append(seenTwice, event(task, "die", at+9), event(task, "stop", at+7)), []string{"die", "stop"}, false},
		{"the same action later", append(seenTwice, event(task, "oom", at+6)), []string{"oom"}, false},
		{"another event first", []events.Message{event(task, "die", at+6)}, nil, true},
		{"another task's event first", []events.Message{event(numberedTask(1), "die", at+6)}, nil, true},
		{"another event first, then the last", append([]events.Message{event(task, "die", at+5)}, before[2]), nil, true},
		{"nothing", nil, nil, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				client := newFakeClient(t)
				source := newEventSource(client)
				ctx, _ := linesOf(t.Context())
				adapter := newTestAdapter(t, client, task)
				sub := subscribe(ctx, t, adapter)
				source.latest().send(before...)
				require.Equal(t, []string{"create", "start", "oom"}, read(sub.messages))

				source.latest().end(io.ErrUnexpectedEOF)
				time.Sleep(firstPause + settleTime)
				assert.False(t, isClosed(sub.closed), "told before the new stream said anything")
				since, _ := source.asked(1)
				assert.Equal(t, "978307200.000000005", since)
				source.latest().send(test.after...)
				time.Sleep(proofTime)
				assert.Equal(t, test.want, read(sub.messages))
				assert.Equal(t, test.resync, isClosed(sub.closed))

				// Whatever was lost, one who comes now has lost nothing.
				sub = subscribe(ctx, t, adapter)
				source.latest().send(event(task, "destroy", at+20))
				assert.Equal(t, []string{"destroy"}, read(sub.messages))
				time.Sleep(time.Minute)
				assert.False(t, isClosed(sub.closed))
			})
		})
	}
}

// Without any event there is nothing that could come back.
func TestResumeWithoutAnEventIsALoss(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		client := newFakeClient(t)
		source := newEventSource(client)
		ctx, lines := linesOf(t.Context())
		adapter := newTestAdapter(t, client, plainTask())
		sub := subscribe(ctx, t, adapter)
		time.Sleep(time.Hour)
		source.refuse(engineAway{})
		source.latest().end(io.EOF)
		joined := make(chan subscribed, 1)
		go func() { joined <- subscribe(ctx, t, adapter) }()
		time.Sleep(10 * time.Minute)
		assert.False(t, isClosed(sub.closed), "told while the engine is away")
		source.refuse(nil)
		late := <-joined
		synctest.Wait()
		assert.True(t, isClosed(sub.closed))
		time.Sleep(2 * proofTime)
		assert.False(t, isClosed(late.closed), "one who came in the outage has lost nothing")

		_, last := source.asked(source.requests() - 1)
		_, first := source.asked(0)
		assert.Equal(t, []string{
			"warning: event stream lost, it is opened again as soon as the engine answers error=EOF",
			"info: event stream restored gap=" + last.Sub(first.Add(time.Hour)).Round(time.Millisecond).String(),
		}, lines())
	})
}

// afterFuncs is a context without end that counts what waits for it.
type afterFuncs struct {
	context.Context
	done    chan struct{}
	waiting int
}

func (c *afterFuncs) Done() <-chan struct{} { return c.done }

func (c *afterFuncs) AfterFunc(func()) func() bool {
	c.waiting++
	return func() bool {
		c.waiting--
		return true
	}
}

// A context that lives long does not collect the subscriptions that are over.
func TestSubscriptionsThatAreOverAreForgotten(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		client := newFakeClient(t)
		source := newEventSource(client)
		ctx := &afterFuncs{Context: t.Context(), done: make(chan struct{})}
		adapter := newTestAdapter(t, client, plainTask())
		for round := range int64(5) {
			sub := subscribe(ctx, t, adapter)
			assert.Equal(t, 1, ctx.waiting)
			for n := range int64(9) {
				source.latest().send(event(plainTask(), "pause", at+10*round+n))
			}
			assert.True(t, isClosed(sub.closed))
			assert.Zero(t, ctx.waiting)
		}
	})
}

// The reader's queue is 8. Whoever has more waiting is told, and nobody else
// notices.
func TestSlowSubscriberIsToldToResync(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		client := newFakeClient(t)
		source := newEventSource(client)
		adapter := newTestAdapter(t, client, plainTask())
		slow := subscribe(t.Context(), t, adapter)
		quick := subscribe(t.Context(), t, adapter)
		var got []string
		for n := range int64(1000) {
			source.latest().send(event(plainTask(), "pause", at+n))
			got = append(got, read(quick.messages)...)
			assert.Equal(t, n >= 8, isClosed(slow.closed), n)
		}
		assert.Len(t, got, 1000)
		assert.False(t, isClosed(quick.closed))
		assert.Len(t, read(slow.messages), 8)
		assert.Equal(t, 1, adapter.engine.stream.run.count)
		assert.Len(t, adapter.engine.stream.run.reader.memory.keys, 256)
	})
}

func TestAThousandAdaptersShareOneRequest(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		client := newFakeClient(t)
		source := newEventSource(client)
		ctx, cancel := context.WithCancel(t.Context())
		engine := NewEngine(client)
		var subs []subscribed
		for n := range 1000 {
			adapter, err := engine.Adapter(nil, numberedTask(n), nil)
			require.NoError(t, err)
			subs = append(subs, subscribe(ctx, t, adapter))
		}
		for n := range 1000 {
			source.latest().send(event(numberedTask(n), "die", at+int64(n)))
		}
		for _, sub := range subs {
			assert.Equal(t, []string{"die"}, read(sub.messages))
		}
		assert.Equal(t, 1, source.requests())
		cancel()
		for _, sub := range subs {
			<-sub.closed
		}
		assert.Equal(t, context.Canceled, source.latest().ctx.Err())
		t.Logf("1000 adapters: %d request for events", source.requests())
	})
}

// Subscribers and waits come and go at random while the stream breaks: nothing
// is left, and there is never more than one stream.
func TestSubscribersComeAndGo(t *testing.T) {
	t.Parallel()
	seed := testSeed(t)
	synctest.Test(t, func(t *testing.T) {
		client := newFakeClient(t)
		running(client, "running")
		source := newEventSource(client)
		ctx, _ := linesOf(t.Context())
		engine := NewEngine(client)
		client.events = func(ctx context.Context, options events.ListOptions) (<-chan events.Message, <-chan error) {
			for n := range source.opens() {
				assert.Error(t, source.opened[n].ctx.Err(), "two streams at a time")
			}
			return source.events(ctx, options)
		}
		var all sync.WaitGroup
		end := time.Now().Add(10 * time.Second)
		for n := range 200 {
			adapter, err := engine.Adapter(nil, numberedTask(n%150), nil)
			require.NoError(t, err)
			all.Go(func() {
				random := rand.New(rand.NewPCG(seed, uint64(n)))
				for time.Now().Before(end) {
					time.Sleep(time.Duration(random.Int64N(int64(2 * time.Second))))
					ctx, cancel := context.WithTimeout(ctx, time.Duration(random.Int64N(int64(500*time.Millisecond))))
					if n%3 == 0 {
						_, err := adapter.Wait(ctx)
						assert.Equal(t, context.DeadlineExceeded, err)
					} else if messages, closed, err := adapter.Events(ctx); err == nil {
						read(messages)
						if n%3 == 1 {
							<-closed
						}
					}
					cancel()
				}
			})
		}
		all.Go(func() {
			random := rand.New(rand.NewPCG(seed, 200))
			for n := int64(0); time.Now().Before(end); n++ {
				time.Sleep(time.Duration(random.Int64N(int64(20 * time.Millisecond))))
				if source.opens() == 0 {
					continue
				}
				if stream := source.latest(); random.IntN(20) == 0 {
					select {
					case stream.errs <- io.ErrUnexpectedEOF:
					default:
					}
				} else {
					select {
					case stream.messages <- event(numberedTask(int(n)%150), "pause", at+n):
					case <-stream.ctx.Done():
					}
				}
			}
		})
		all.Wait()
		synctest.Wait()
		assert.Nil(t, engine.stream.run)
		assert.Greater(t, source.opens(), 20)
		t.Logf("200 subscribers for 10 s: %d streams, one at a time", source.opens())
	})
}

// The stream is nobody's: its lines name no task.
func TestLogLinesOfTheStreamNameNoTask(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		client := newFakeClient(t)
		source := newEventSource(client)
		source.refuse(engineAway{})
		ctx, lines := linesOf(t.Context())
		adapter := newTestAdapter(t, client, plainTask())
		ctx, cancel := context.WithTimeout(adapter.logContext(ctx), time.Minute)
		defer cancel()
		_, _, err := adapter.Events(ctx)
		assert.Equal(t, context.DeadlineExceeded, err)
		assert.Equal(t, []string{"warning: event stream lost, it is opened again as soon as the engine answers " +
			"error=Cannot connect to the Docker daemon at unix:///run/engine.sock. Is the docker daemon running?"}, lines())
	})
}
