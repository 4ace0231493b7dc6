package dockerexec

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/docker/docker/api/types"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/events"
	engineapi "github.com/docker/docker/client"
	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockerexec/dockerexec/dockerexectest"
)

// An engine that is away costs one quiet loop: a first try within 100 ms, then
// ever longer pauses, up to 5 s; a good event makes them short again.
func TestPausesWhileTheEngineIsAway(t *testing.T) {
	t.Parallel()
	var dials int
	for round := range 15 { // the pauses are random
		atOnce := 2
		if round == 0 {
			atOnce = 40
		}
		synctest.Test(t, func(t *testing.T) {
			client := newFakeClient(t)
			running(client, "running")
			source := newEventSource(client)
			ctx, lines := linesOf(t.Context())
			ctx, cancel := context.WithCancel(ctx)
			engine := NewEngine(client)
			var waits sync.WaitGroup
			for n := range atOnce {
				adapter, err := engine.Adapter(nil, numberedTask(n), nil)
				require.NoError(t, err)
				waits.Go(func() {
					_, err := adapter.Wait(ctx)
					assert.Equal(t, context.Canceled, err)
				})
			}
			time.Sleep(time.Minute)
			source.latest().send(event(numberedTask(0), "start", at))
			source.refuse(errEngineAway)
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
			time.Sleep(longestPause + errorWindow)
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
	t.Logf("an engine away for 10 s: at most %d requests in 15 runs", dials)
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
		source.refuse(errEngineAway)
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
			return container.InspectResponse{}, errEngineAway
		}
		client.events = func(context.Context, events.ListOptions) (<-chan events.Message, <-chan error) {
			errs := make(chan error, 1)
			time.AfterFunc(5*time.Millisecond, func() { errs <- errEngineAway })
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

func TestAnOutageThatIsOverDelaysNoLaterSubscriber(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		client := newFakeClient(t)
		source := newEventSource(client)
		ctx, _ := linesOf(t.Context())
		adapter := newTestAdapter(t, client, plainTask())
		subscribe(ctx, t, adapter)
		source.refuse(errEngineAway)
		source.latest().end(io.ErrUnexpectedEOF)
		time.Sleep(time.Minute)
		source.refuse(nil)
		time.Sleep(time.Minute)
		begin := time.Now()
		subscribe(ctx, t, adapter)
		assert.Equal(t, 10*time.Millisecond, time.Since(begin))
	})
}

// The pauses of an outage are not those of the next one, even if no event came in
// between.
func TestAStreamThatWasSilentForLongIsOpenedAgainAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		client := newFakeClient(t)
		source := newEventSource(client)
		running(client, "running")
		ctx, _ := linesOf(t.Context())
		startWait(ctx, newTestAdapter(t, client, plainTask()))
		settled()
		source.refuse(errEngineAway)
		source.latest().end(io.ErrUnexpectedEOF)
		time.Sleep(time.Minute)
		source.refuse(nil)
		time.Sleep(time.Hour)
		asked := source.requests()
		source.latest().end(io.ErrUnexpectedEOF)
		time.Sleep(100 * time.Millisecond)
		synctest.Wait()
		assert.Equal(t, asked+1, source.requests())
	})
}

// follower reads the events of one task, subscribes again when it is told to,
// and checks what it gets: numbered events, of which none comes twice, and none
// is missing within one subscription.
type follower struct {
	got, resyncs, lost, twice, disorder int
}

func (f *follower) follow(ctx context.Context, t *testing.T, adapter *ContainerAdapter) {
	last := 0
	seen := map[int]bool{}
	for {
		messages, closed, err := adapter.Events(ctx)
		if err != nil {
			return
		}
		first := true
		take := func(m events.Message) {
			n, err := strconv.Atoi(m.Actor.Attributes["n"])
			assert.NoError(t, err)
			switch {
			case seen[n]:
				f.twice++
			case n < last:
				f.disorder++
			case !first && n > last+1:
				f.lost += n - last - 1
			}
			seen[n], last, first = true, n, false
			f.got++
		}
		for open := true; open; {
			select {
			case m := <-messages:
				take(m)
			case <-closed:
				for len(messages) > 0 {
					take(<-messages)
				}
				open = false
			}
		}
		if ctx.Err() == nil {
			f.resyncs++
		}
	}
}

// A stream that is cut at any byte loses nothing and doubles nothing in
// silence, whether the engine still has the last event or not.
func TestCutsAtRandomBytes(t *testing.T) {
	t.Parallel()
	const total, cuts, tasks, eventSize = 10_000, 500, 10, 260
	for _, test := range []struct {
		name    string
		every   time.Duration // between events
		restart int           // the engine is restarted every so many events; 0: never
		resumed float64       // cuts that resume, at least
	}{
		{"on an engine that has the last event", 10 * time.Millisecond, 0, 0.9},
		{"on a busy engine", time.Millisecond, 0, 0},
		{"on an engine that restarts", 10 * time.Millisecond, 500, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			seed := rand.Uint64()
			t.Logf("seed %d", seed)
			random := rand.New(rand.NewPCG(seed, 1))
			synctest.Test(t, func(t *testing.T) {
				engine, client := newWireEngine(t)
				// Sorted random places of the whole stream; a budget is the way from one to the next.
				places := make([]int, cuts)
				for i := range places {
					places[i] = random.IntN(total * eventSize)
				}
				slices.Sort(places)
				for i, place := range places {
					if i > 0 {
						place -= places[i-1]
					}
					engine.budgets = append(engine.budgets, place+1)
				}
				ctx, _ := linesOf(t.Context())
				ctx, cancel := context.WithCancel(ctx)
				shared := NewEngine(client)
				followers := make([]follower, tasks)
				var all sync.WaitGroup
				for n := range tasks {
					adapter, err := shared.Adapter(nil, numberedTask(n), nil)
					require.NoError(t, err)
					all.Go(func() { followers[n].follow(ctx, t, adapter) })
				}
				time.Sleep(time.Second)

				numbers := make([]int, tasks)
				nano, mates := time.Now().UnixNano(), 0
				actions := []events.Action{"start", "pause", "unpause", "health_status: healthy", "die"}
				for n := range total {
					// Some have the same nanosecond, but then not all else in common.
					if mates++; mates == len(actions) || random.IntN(4) > 0 {
						nano += int64(test.every)
						mates = 0
					}
					task := random.IntN(tasks)
					m := event(numberedTask(task), actions[n%len(actions)], nano)
					numbers[task]++
					m.Actor.Attributes["n"] = strconv.Itoa(numbers[task])
					engine.publish(m)
					noise := event(numberedTask(task), "exec_start: /bin/check", nano+1)
					if random.IntN(4) == 0 {
						engine.publish(noise)
					}
					time.Sleep(test.every)
					if test.restart > 0 && n%test.restart == test.restart-1 {
						engine.stop()
						time.Sleep(3 * time.Second)
						engine.start()
					}
				}
				time.Sleep(time.Minute)
				cancel()
				all.Wait()

				streams := engine.opened()
				var sum follower
				for n, f := range followers {
					sum.got += f.got
					sum.lost += f.lost
					sum.twice += f.twice
					sum.disorder += f.disorder
					sum.resyncs = max(sum.resyncs, f.resyncs)
					assert.LessOrEqual(t, f.got, numbers[n])
				}
				resumed := 1 - float64(sum.resyncs)/float64(streams-1)
				t.Logf("%d events, %d streams, %d cuts not made; got %d, lost in silence %d, twice %d, out of order %d; told to resync %d times, %.1f %% of the cuts resumed",
					total, streams, len(engine.budgets), sum.got, sum.lost, sum.twice, sum.disorder, sum.resyncs, 100*resumed)
				assert.Zero(t, sum.lost)
				assert.Zero(t, sum.twice)
				assert.Zero(t, sum.disorder)
				assert.GreaterOrEqual(t, resumed, test.resumed)
				if test.resumed > 0 {
					assert.Greater(t, streams, cuts)
				}
			})
		})
	}
}

// Each wait and subscription of a real client stands on the one connection.
func TestTheRealClientIsAskedOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		engine, client := newWireEngine(t)
		ctx, lines := linesOf(t.Context())
		ctx, cancel := context.WithCancel(ctx)
		shared := NewEngine(client)
		var subs []subscribed
		for n := range 1000 {
			adapter, err := shared.Adapter(nil, numberedTask(n), nil)
			require.NoError(t, err)
			subs = append(subs, subscribe(ctx, t, adapter))
		}
		engine.mu.Lock()
		assert.Equal(t, 1, engine.streams)
		assert.LessOrEqual(t, engine.dials, 2) // the ping's too
		engine.mu.Unlock()

		engine.stop()
		time.Sleep(10 * time.Second)
		engine.mu.Lock()
		t.Logf("1000 adapters, engine away for 10 s: %d connections dialled", engine.dials)
		assert.LessOrEqual(t, engine.dials, 2+20)
		engine.mu.Unlock()
		assert.Len(t, lines(), 1, lines())
		assert.Contains(t, fmt.Sprint(lines()), "EOF")
		engine.start()
		for n, sub := range subs {
			<-sub.closed
			adapter, err := shared.Adapter(nil, numberedTask(n), nil)
			require.NoError(t, err)
			subscribe(ctx, t, adapter)
		}
		time.Sleep(2 * settleWindow)
		assert.Len(t, lines(), 2, lines())
		cancel()
	})
}

// Recorded with the package's own filter: a task's container with the label
// exitCode, which is paused and renamed, one that claims the task and the name in
// its labels (not with Podman), and the engine's own order at the end.
func TestRecordedStreams(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		file, id string
		want     []string
	}{
		{"engine-20.10.jsonl", "48ddbf9e732955cb5f5da82ecb27edbd82964207e9137d66dffe712bd294117f",
			[]string{"create", "start", "pause", "unpause", "rename", "kill", "die", "stop", "destroy"}},
		{"engine-29.jsonl", "7297ba194cfa31601b51dc5f23981ce3ab92cc8de622fed02dd72fe785009bea",
			[]string{"create", "start", "pause", "unpause", "rename", "kill", "stop", "die", "destroy"}},
		{"podman-4.3.jsonl", "18bb0f6888a9c2741c6ec8ed4dfcd5f673a6a95ab669041bed03a10a03e34c47",
			[]string{"create", "start", "pause", "unpause", "rename", "stop", "die", "destroy"}},
		{"engine-20.10.jsonl", "", []string{"create", "start", "pause", "unpause"}},
	} {
		t.Run(test.file, func(t *testing.T) {
			t.Parallel()
			recorded, err := os.ReadFile("testdata/events/" + test.file)
			require.NoError(t, err)
			synctest.Test(t, func(t *testing.T) {
				engine, client := newWireEngine(t)
				engine.recorded = recorded
				adapter, err := NewEngine(client).Adapter(nil, plainTask(), nil)
				require.NoError(t, err)
				if test.id != "" {
					adapter.containerID.Store(&test.id)
				}
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				sub := subscribe(ctx, t, adapter)
				var got []string
				for !isClosed(sub.closed) {
					select {
					case m := <-sub.messages:
						got = append(got, string(m.Action))
					case <-sub.closed:
					}
				}
				assert.Equal(t, test.want, got)
			})
		})
	}
}

// The real client returns before it says that a request has failed.
func TestTheRealClientsFailuresAreNotEstablished(t *testing.T) {
	t.Parallel()
	for _, refusal := range []int{0, http.StatusBadGateway, http.StatusServiceUnavailable} {
		t.Run(strconv.Itoa(refusal), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				engine, client := newWireEngine(t)
				client.NegotiateAPIVersionPing(types.Ping{APIVersion: "1.41"})
				engine.refusal = refusal
				engine.down = refusal == 0
				ctx, lines := linesOf(t.Context())
				ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
				defer cancel()
				adapter, err := NewEngine(inspectedNever{client, t}).Adapter(nil, plainTask(), nil)
				require.NoError(t, err)
				_, err = adapter.Wait(ctx)
				assert.Equal(t, context.DeadlineExceeded, err)
				assert.Len(t, lines(), 1)
				assert.Zero(t, engine.opened())

				// What never came back has failed, however late the client says so.
				opened, err := adapter.engine.stream.request(t.Context(), "0", func() {})
				require.NoError(t, err)
				want := errorWindow
				if refusal == 0 {
					want = time.Second
				}
				assert.Equal(t, want, opened.settle)
				require.Error(t, <-opened.errs)
			})
		})
	}
}

type inspectedNever struct {
	*engineapi.Client
	t *testing.T
}

func (c inspectedNever) ContainerInspect(context.Context, string) (container.InspectResponse, error) {
	c.t.Error("inspected while there is no event stream")
	return container.InspectResponse{}, errEngineAway
}

func TestWaitWithoutTheEventStream(t *testing.T) {
	t.Parallel()
	for name, refusal := range map[string]error{
		"403": errNoEvents,
		"501": answer{"not implemented", cerrdefs.ErrNotImplemented},
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
		source.refuse(answer{"restarting", cerrdefs.ErrUnavailable})
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
		{"no answer", (&oldEngine{hang: true}), 5 * time.Second,
			[]string{"warning: event stream not answered, containers are inspected every ten seconds until it is opened"}},
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

// A stream that is opened and ends at once costs no more inspects than one that is
// refused: one every ten seconds. An end is seen within twice that time.
func TestWaitWhereTheEventStreamEndsAtOnce(t *testing.T) {
	t.Parallel()
	for name, ended := range map[string]error{"with its end": io.EOF, "with a cut": io.ErrUnexpectedEOF} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for range 20 {
				synctest.Test(t, func(t *testing.T) {
					client := newFakeClient(t)
					client.events = func(context.Context, events.ListOptions) (<-chan events.Message, <-chan error) {
						errs := make(chan error, 1)
						time.AfterFunc(50*time.Millisecond, func() { errs <- ended })
						return make(chan events.Message), errs
					}
					task := newFakeContainer(client, "running")
					ctx, _ := linesOf(t.Context())
					wait := startWait(ctx, newTestAdapter(t, client, plainTask()))
					time.Sleep(10 * time.Minute)
					synctest.Wait()
					assert.LessOrEqual(t, task.inspects(), 60+2)
					assert.GreaterOrEqual(t, task.inspects(), 30)
					task.become(exitedWith(3), nil)
					died := time.Now()
					<-wait.done
					assert.LessOrEqual(t, time.Since(died), 20*time.Second)
				})
			}
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
			"warning: event stream not answered, containers are inspected every ten seconds until it is opened",
		}, lines())
	})
}

// A proxy holds back the header of the answer until there is something to send, as one
// does that compresses JSON. Meanwhile a Wait inspects every ten seconds.
func TestWaitWhileTheHeaderOfTheEventStreamIsHeldBack(t *testing.T) {
	t.Parallel()
	for name, opts := range map[string][]Option{"by default": nil, "without a limit of requests": {WithRequestTimeout(0)}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T) {
				client := newFakeClient(t)
				source := newEventSource(client)
				released := make(chan struct{})
				client.events = func(ctx context.Context, options events.ListOptions) (<-chan events.Message, <-chan error) {
					select {
					case <-released:
					case <-ctx.Done():
					}
					return source.events(ctx, options)
				}
				found := newFakeContainer(client, container.StateRunning)
				ctx, lines := linesOf(t.Context())
				w := startWait(ctx, newTestAdapter(t, client, plainTask(), opts...))
				time.Sleep(4900 * time.Millisecond)
				assert.Zero(t, found.inspects())
				time.Sleep(200 * time.Millisecond)
				assert.Equal(t, 1, found.inspects())
				time.Sleep(10 * time.Minute)
				assert.InDelta(t, 60, found.inspects(), 7)
				assert.Equal(t, []string{"warning: event stream not answered, containers are inspected every ten seconds until it is opened"}, lines())

				close(released)
				time.Sleep(15 * time.Second)
				require.Len(t, lines(), 2, lines())
				assert.Contains(t, lines()[1], "info: event stream restored gap=10m")
				before := found.inspects()
				time.Sleep(time.Minute)
				assert.Equal(t, before, found.inspects(), "the stream is there")
				found.become(exitedWith(3), nil)
				source.latest().send(event(plainTask(), "die", time.Now().UnixNano()))
				time.Sleep(time.Second)
				require.True(t, w.over())
				assert.Equal(t, 3, w.answer.State.ExitCode)
			})
		})
	}
}

// The stream is lost while it is waited for, and the next one is held back. An end is
// seen within ten seconds.
func TestWaitWhoseNextEventStreamIsHeldBack(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		client := newFakeClient(t)
		source := newEventSource(client)
		found := newFakeContainer(client, container.StateRunning)
		ctx, lines := linesOf(t.Context())
		ctx, cancel := context.WithTimeout(ctx, 2*time.Hour)
		defer cancel()
		w := startWait(ctx, newTestAdapter(t, client, plainTask()))
		time.Sleep(time.Hour)
		first := source.latest()
		client.events = func(ctx context.Context, options events.ListOptions) (<-chan events.Message, <-chan error) {
			<-ctx.Done()
			return source.events(ctx, options)
		}
		first.end(io.ErrUnexpectedEOF)
		time.Sleep(7 * time.Minute) // longer than a request may take, three times
		assert.False(t, w.over())
		found.become(exitedWith(3), nil)
		died := time.Now()
		<-w.done
		require.NoError(t, w.err)
		assert.LessOrEqual(t, time.Since(died), 11*time.Second)
		assert.Equal(t, []string{
			"warning: event stream lost, it is opened again as soon as the engine answers error=unexpected EOF",
			"warning: event stream not answered, containers are inspected every ten seconds until it is opened",
		}, lines())
	})
}

// An engine to which there is no connection is away: it costs no inspect, however long
// the connection takes.
func TestWaitWhileTheConnectionIsNotMade(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		var dials atomic.Int32
		client, err := engineapi.NewClientWithOpts(engineapi.WithHost("tcp://engine"), engineapi.WithVersion("1.51"),
			engineapi.WithHTTPClient(&http.Client{Transport: &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) {
				dials.Add(1)
				time.Sleep(30 * time.Second)
				return nil, &net.OpError{Op: "dial", Err: syscall.ETIMEDOUT}
			}}}))
		require.NoError(t, err)
		engine := NewEngine(client)
		engine.api.fix("1.51")
		adapter := adapterOf(t, engine, plainTask())
		ctx, lines := linesOf(t.Context())
		ctx, cancel := context.WithTimeout(ctx, 29*time.Second)
		defer cancel()
		_, err = adapter.Wait(ctx)
		assert.Equal(t, context.DeadlineExceeded, err)
		assert.EqualValues(t, 1, dials.Load())
		assert.Empty(t, lines())
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
		away := answer{"no server", cerrdefs.ErrUnavailable}
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

// Docker 29 rounds the times of events. The last event comes back after an outage all the
// same, so nobody is told to resync.
func TestTheLastEventOfARoundedTimeComesBack(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		engine, newAdapter := onFakeEngine(t, dockerexectest.UntilStopped(0))
		ctx, lines := logged(t)
		adapter := newAdapter()
		require.NoError(t, adapter.Create(ctx))
		require.NoError(t, adapter.Start(ctx))
		sub := subscribe(ctx, t, adapter)
		time.Sleep(time.Minute)
		require.Equal(t, []string{"create", "start"}, read(sub.messages))
		for range 20 {
			time.Sleep(time.Minute + 77*time.Nanosecond)
			engine.Container(taskName).Pause()
			engine.Container(taskName).Unpause()
			time.Sleep(time.Second)
			assert.Equal(t, []string{"pause", "unpause"}, read(sub.messages))
			engine.Down()
			time.Sleep(time.Second)
			engine.Up()
			time.Sleep(time.Minute)
		}
		assert.False(t, isClosed(sub.closed))
		assert.NotContains(t, lines(logrus.DebugLevel), "events may be lost, subscribers are told to resync")
	})
}

// Podman 4.3 sends "die" for what its filter calls "died". Other versions may send either.
func TestWhatDockerCallsAnEvent(t *testing.T) {
	t.Parallel()
	for action, want := range map[events.Action]events.Action{
		"die": "die", "died": "die", "remove": "destroy", "destroy": "destroy", "start": "start", "health_status: healthy": "health_status: healthy",
	} {
		assert.Equal(t, want, dockerAction(action))
	}
}
