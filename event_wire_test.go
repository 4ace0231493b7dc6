package dockerexec

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"slices"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/docker/docker/api/types"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/events"
	engineapi "github.com/docker/docker/client"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

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
		time.Sleep(2 * proofTime)
		assert.Len(t, lines(), 2, lines())
		cancel()
	})
}

// Recorded with the package's own filter: a task's container with the label
// exitCode, which is paused and renamed, one that claims the task and the name in
// its labels, and the engine's own order at the end.
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
				opened, err := adapter.engine.stream.request(t.Context(), "0")
				require.NoError(t, err)
				want := settleTime
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
	return container.InspectResponse{}, engineAway{}
}
