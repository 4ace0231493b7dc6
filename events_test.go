package dockerexec

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net/url"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/events"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// read takes the events that have arrived, as "action" each.
func read(messages <-chan events.Message) []string {
	var actions []string
	for {
		select {
		case m := <-messages:
			actions = append(actions, string(m.Action))
		default:
			return actions
		}
	}
}

// The engine knows no filter "name"; the label and the actions are what
// narrows the stream. The first request does not ask for all that the
// engine has kept.
func TestEventsRequest(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		engine, adapter := onFakeEngine(t, obedient)
		subscribe(t.Context(), t, adapter())
		requests := engine.Requests()
		require.Equal(t, 1, requests.Count(eventsRequest))
		query := requests[len(requests)-1].Query
		assert.JSONEq(t, `{
			"type": {"container": true},
			"label": {"com.docker.swarm.task=": true},
			"event": {"create": true, "start": true, "die": true, "kill": true, "stop": true, "oom": true, "destroy": true,
				"rename": true, "pause": true, "unpause": true, "health_status": true, "died": true, "remove": true}
		}`, query.Get("filters"))
		delete(query, "filters")
		assert.Equal(t, url.Values{"since": {"946684795.000000000"}}, query) // five seconds before 2000
	})
}

func TestEventsOfOneTaskInOrder(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		host, _ := onFakeEngine(t, obedient)
		engine, other := NewEngine(host.Client()), NewEngine(host.Client())
		var subs []subscribed
		for n := range 2 {
			adapter := adapterOf(t, engine, numberedTask(n))
			subs = append(subs, subscribe(t.Context(), t, adapter), subscribe(t.Context(), t, adapter))
		}
		require.NoError(t, adapterOf(t, other, numberedTask(0)).Create(t.Context()))
		require.NoError(t, adapterOf(t, other, numberedTask(1)).Create(t.Context()))
		require.NoError(t, adapterOf(t, other, numberedTask(0)).Start(t.Context()))
		host.Container("web.1.task0").SetHealth("healthy")
		leftBehind(t, host, numberedTask(7)).Exit(0)
		host.Container("web.1.task0").Exit(0)
		synctest.Wait()
		for _, sub := range subs[:2] {
			assert.Equal(t, []string{"create", "start", "health_status: healthy", "die"}, read(sub.messages))
		}
		for _, sub := range subs[2:] {
			assert.Equal(t, []string{"create"}, read(sub.messages))
		}
		assert.Equal(t, 1, host.Requests().Count(eventsRequest))
	})
}

// Anybody can give a container the labels of a task. Its name it cannot have.
func TestEventsOfAContainerThatClaimsTheTask(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		client := newFakeClient(t)
		source := newEventSource(client)
		sub := subscribe(t.Context(), t, newTestAdapter(t, client, numberedTask(1)))

		forged := event(numberedTask(1), "die", 1)
		forged.Actor.ID = "another"
		forged.Actor.Attributes["name"] = "another"
		forged.Actor.Attributes["exitCode"] = "99"
		nameless := event(numberedTask(1), "die", 2)
		delete(nameless.Actor.Attributes, "name")
		otherTask := event(numberedTask(1), "die", 3)
		otherTask.Actor.Attributes[LabelTaskID] = "task2"
		source.latest().send(forged, nameless, otherTask)
		assert.Empty(t, read(sub.messages))
		assert.False(t, isClosed(sub.closed))
	})
}

// The events of a renamed container go on; inspect has seen its ID.
func TestEventsAfterARename(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		engine, newAdapter := onFakeEngine(t, obedient)
		web := leftBehind(t, engine, plainTask())
		time.Sleep(time.Minute) // what was before is not told
		adapter := newAdapter()
		sub := subscribe(t.Context(), t, adapter)
		_, err := adapter.Inspect(t.Context())
		require.NoError(t, err)
		web.Rename("elsewhere")
		web.Exit(0)
		synctest.Wait()
		assert.Equal(t, []string{"rename", "die"}, read(sub.messages))
	})
}

// The reference's fakes send the container's name and nothing else, buffered,
// close the message channel, and return no error channel.
func TestEventsOfTheReferencesFakes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		client := newFakeClient(t)
		calls := 0
		client.events = func(context.Context, events.ListOptions) (<-chan events.Message, <-chan error) {
			messages := make(chan events.Message, 2)
			if calls++; calls == 1 {
				for _, action := range []events.Action{"create", "die"} {
					messages <- events.Message{Type: events.ContainerEventType, Action: action,
						Actor: events.Actor{Attributes: map[string]string{"name": taskName}}}
				}
			}
			close(messages)
			return messages, nil
		}
		ctx, _ := linesOf(t.Context())
		sub := subscribe(ctx, t, newTestAdapter(t, client, plainTask()))
		synctest.Wait()
		assert.Equal(t, []string{"create", "die"}, read(sub.messages))
	})
}

// What a fake has ready counts, whether or not it has its error ready too.
func TestEventsOfAFakeThatHasEndedAlready(t *testing.T) {
	t.Parallel()
	for range 20 {
		synctest.Test(t, func(t *testing.T) {
			client := newFakeClient(t)
			client.events = func(context.Context, events.ListOptions) (<-chan events.Message, <-chan error) {
				messages, errs := make(chan events.Message, 2), make(chan error, 1)
				messages <- event(plainTask(), "start", 1)
				messages <- event(plainTask(), "die", 2)
				errs <- io.EOF
				return messages, errs
			}
			ctx, _ := linesOf(t.Context())
			sub := subscribe(ctx, t, newTestAdapter(t, client, plainTask()))
			synctest.Wait()
			assert.Equal(t, []string{"start", "die"}, read(sub.messages))
		})
	}
}

// Whatever a client returns, it is asked again at a pace, and its
// streams' ends are no errors.
func TestOddStreamsDoNotSpin(t *testing.T) {
	t.Parallel()
	closedMessages := make(chan events.Message)
	close(closedMessages)
	closedErrs := make(chan error)
	close(closedErrs)
	type request = func() (<-chan events.Message, <-chan error)
	for name, source := range map[string]request{
		"closed messages, no errors":     func() (<-chan events.Message, <-chan error) { return closedMessages, nil },
		"closed messages, silent errors": func() (<-chan events.Message, <-chan error) { return closedMessages, make(chan error) },
		"both closed":                    func() (<-chan events.Message, <-chan error) { return closedMessages, closedErrs },
		"no messages, closed errors":     func() (<-chan events.Message, <-chan error) { return nil, closedErrs },
		"a nil error": func() (<-chan events.Message, <-chan error) {
			errs := make(chan error, 1)
			errs <- nil
			return make(chan events.Message), errs
		},
		"an error without end": func() (<-chan events.Message, <-chan error) {
			errs := make(chan error, 1)
			errs <- io.EOF
			return make(chan events.Message), errs
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				client := newFakeClient(t)
				client.events = func(context.Context, events.ListOptions) (<-chan events.Message, <-chan error) { return source() }
				ctx, cancel := context.WithCancel(t.Context())
				ctx, lines := linesOf(ctx)
				sub := subscribe(ctx, t, newTestAdapter(t, client, plainTask()))
				time.Sleep(time.Second)
				assert.True(t, isClosed(sub.closed))

				running(client, "running")
				go func() { _, _ = newTestAdapter(t, client, plainTask()).Wait(ctx) }()
				before := len(client.called())
				time.Sleep(time.Minute)
				cancel()
				synctest.Wait()
				// Some 30 requests for events, and an inspect or two after each.
				assert.Less(t, len(client.called())-before, 120)
				assert.Less(t, len(lines()), 4, lines())
			})
		})
	}
}

// A message about nothing is nobody's.
func TestEventsWithoutActorOrTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		client := newFakeClient(t)
		source := newEventSource(client)
		sub := subscribe(t.Context(), t, newTestAdapter(t, client, plainTask()))
		timeless := event(plainTask(), "health_status: healthy", 0)
		source.latest().send(events.Message{}, events.Message{Type: "container", Action: "die", TimeNano: 3}, timeless, timeless)
		assert.Equal(t, []string{"health_status: healthy", "health_status: healthy"}, read(sub.messages))
		assert.False(t, isClosed(sub.closed))
	})
}

// Events waits for an engine that is away, and for nothing else.
func TestEventsReturnsOnceTheRequestIsEstablished(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		client := newFakeClient(t)
		source := newEventSource(client)
		source.refuse(errEngineAway)
		returned := make(chan time.Duration, 1)
		ctx, _ := linesOf(t.Context())
		begin := time.Now()
		go func() {
			_, _, err := newTestAdapter(t, client, plainTask()).Events(ctx)
			assert.NoError(t, err)
			returned <- time.Since(begin)
		}()
		time.Sleep(time.Minute)
		source.refuse(nil)
		took := <-returned
		assert.GreaterOrEqual(t, took, time.Minute)
		assert.LessOrEqual(t, took, time.Minute+longestPause+errorWindow)
	})
}

// A context that has ended costs no request, ends a wait for the
// engine, and is no fault that anybody logs.
func TestEventsWithAContextThatEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		client := newFakeClient(t)
		source := newEventSource(client)
		adapter := newTestAdapter(t, client, plainTask())
		ended, end := context.WithCancel(t.Context())
		end()
		_, _, err := adapter.Events(ended)
		assert.Equal(t, context.Canceled, err)
		_, err = adapter.Wait(ended)
		assert.Equal(t, context.Canceled, err)
		assert.Empty(t, client.called())
		assert.Nil(t, adapter.engine.stream.previous, "a stream was started")

		ctx, lines := linesOf(t.Context())
		ctx, cancel := context.WithCancel(ctx)
		sub := subscribe(ctx, t, adapter)
		cancel()
		<-sub.closed
		assert.Equal(t, context.Canceled, source.latest().ctx.Err())
		time.Sleep(time.Minute)
		assert.Equal(t, 1, source.requests())
		assert.Empty(t, lines())

		source.refuse(errEngineAway)
		ctx, lines = linesOf(t.Context())
		ctx, cancel = context.WithTimeout(ctx, 3*time.Second)
		defer cancel()
		_, _, err = adapter.Events(ctx)
		assert.Equal(t, context.DeadlineExceeded, err)
		asked := source.requests()
		time.Sleep(time.Minute)
		assert.Equal(t, asked, source.requests())
		assert.Len(t, lines(), 1)
	})
}

// Nothing is left of a subscription, nor of a Wait, that is over while the
// caller's context lives on.
func TestNothingIsLeftOfASubscription(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		client := newFakeClient(t)
		source := newEventSource(client)
		running(client, "exited")
		adapter := newTestAdapter(t, client, plainTask())
		for range 3 {
			_, err := adapter.Wait(t.Context())
			require.NoError(t, err)
			assert.Equal(t, context.Canceled, source.latest().ctx.Err())
		}
		running(client, "running")
		look := errors.New("seen enough")
		_, err := adapter.watch(t.Context(), nil, func(container.InspectResponse) (bool, error) { return false, look })
		assert.Equal(t, look, err)
		assert.Equal(t, context.Canceled, source.latest().ctx.Err())
		assert.Nil(t, adapter.engine.stream.run)
		assert.Equal(t, 4, source.requests())
	})
}

// A client that does not obey its context holds up neither those who leave nor
// those who come, for long.
func TestHungClient(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		client := newFakeClient(t)
		source := newEventSource(client)
		hung := make(chan struct{})
		var hangs atomic.Bool
		hangs.Store(true)
		client.events = func(ctx context.Context, options events.ListOptions) (<-chan events.Message, <-chan error) {
			if hangs.Swap(false) {
				<-hung
			}
			return source.events(ctx, options)
		}
		adapter := newTestAdapter(t, client, plainTask())
		begin := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, _, err := adapter.Events(ctx)
		assert.Equal(t, context.DeadlineExceeded, err)
		assert.Equal(t, 2*time.Second, time.Since(begin))

		begin = time.Now()
		subscribe(t.Context(), t, adapter)
		assert.Equal(t, time.Second+10*time.Millisecond, time.Since(begin))
		assert.Equal(t, 1, source.opens())
		close(hung)
	})
}

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
				time.Sleep(firstPause + errorWindow)
				assert.False(t, isClosed(sub.closed), "told before the new stream said anything")
				since, _ := source.asked(1)
				assert.Equal(t, "978307199.999999005", since)
				source.latest().send(test.after...)
				time.Sleep(settleWindow)
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
		source.refuse(errEngineAway)
		source.latest().end(io.EOF)
		joined := make(chan subscribed, 1)
		go func() { joined <- subscribe(ctx, t, adapter) }()
		time.Sleep(10 * time.Minute)
		assert.False(t, isClosed(sub.closed), "told while the engine is away")
		source.refuse(nil)
		late := <-joined
		synctest.Wait()
		assert.True(t, isClosed(sub.closed))
		time.Sleep(2 * settleWindow)
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
		source.refuse(errEngineAway)
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
