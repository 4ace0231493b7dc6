package dockerexec

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	engineapi "github.com/docker/docker/client"
	gogotypes "github.com/gogo/protobuf/types"
	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/moby/swarmkit/v2/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockerexec/dockerexec/dockerexectest"
)

// graceTask has a grace period of 15 s.
func graceTask() *api.Task {
	task := plainTask()
	spec(task).StopGracePeriod = &gogotypes.Duration{Seconds: 15}
	return task
}

// signals are what the container has got by stops and kills, each with the time since
// the bubble began.
func (e *simEngine) signals(name string) (signals []string) {
	e.with(name, func(c *simContainer) { signals = append(signals, c.signals...) })
	return signals
}

// count returns how often a method was called.
func (e *simEngine) count(method string) int {
	return strings.Count(strings.Join(e.called(), "\n"), method+" ")
}

// An update stops the task, and the service is removed 3 seconds later. The caller of
// the first stop may leave it in between.
func TestARemovalWithinAStopSendsNoSecondSignal(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		ending time.Duration // of the container
		leaves bool          // whether the first caller does, after a second
		want   []string
	}{
		{"it ends by itself", 8 * time.Second, false, []string{"TERM 1m0s"}},
		{"it is killed by the engine", time.Hour, false, []string{"TERM 1m0s", "KILL 1m15s"}},
		{"it ends by itself, the caller has left", 8 * time.Second, true, []string{"TERM 1m0s"}},
		{"it is killed by the engine, the caller has left", time.Hour, true, []string{"TERM 1m0s", "KILL 1m15s"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T) {
				sim := newSimEngine(t)
				sim.ending = test.ending
				ctlr, _ := runningTask(t, sim, graceTask())
				var signals []string
				sim.fails(func(call string) error {
					if strings.HasPrefix(call, "ContainerRemove") {
						signals = sim.signals(taskName)
					}
					return nil
				})
				time.Sleep(time.Minute)
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				shutdown := asynchronously(func() error { return ctlr.Shutdown(ctx) })
				if test.leaves {
					time.AfterFunc(time.Second, cancel)
				}
				time.Sleep(3 * time.Second)
				require.NoError(t, ctlr.Remove(t.Context()))
				if test.leaves {
					assert.Equal(t, context.Canceled, shutdown())
				} else {
					require.NoError(t, shutdown())
				}
				assert.Equal(t, test.want, signals)
				assert.Equal(t, 1, sim.count("ContainerStop"))
				assert.Zero(t, sim.count("ContainerKill"))
			})
		})
	}
}

// Whatever becomes of the request, the container gets one stop signal, and has ended two
// seconds after its grace period.
func TestAStopIsSentOnce(t *testing.T) {
	t.Parallel()
	gatewayTimeout := simError{"gateway time-out", gatewayTimeout}
	for _, test := range []struct {
		name    string
		ending  time.Duration
		request func() error // what happens to the request before the engine has it
		answer  error        // in place of the engine's, after the stop
		options []Option
		want    []string
		ended   time.Duration // since the stop
	}{
		{"a proxy gives up", time.Hour, nil, nil, nil, []string{"TERM 1m0s", "KILL 1m15s"}, 15 * time.Second},
		{"the answer is lost", 4 * time.Second, nil, io.ErrUnexpectedEOF, nil, []string{"TERM 1m0s"}, 4 * time.Second},
		{"500 after the end", 4 * time.Second, nil, errNoExitEvent, nil, []string{"TERM 1m0s"}, 4 * time.Second},
		{"reset on its way", time.Hour, func() error { return syscall.ECONNRESET }, nil, nil, []string{"KILL 1m17s"}, 17 * time.Second},
		{"504 before the engine", time.Hour, func() error { return gatewayTimeout }, nil, nil, []string{"KILL 1m17s"}, 17 * time.Second},
		{"429", time.Hour, func() error { return simError{"slow down", cerrdefs.ErrResourceExhausted} }, nil, nil, []string{"KILL 1m17s"}, 17 * time.Second},
		{"409", time.Hour, func() error { return conflict("busy") }, nil, nil, []string{"KILL 1m17s"}, 17 * time.Second},
		{"a short request time-out", time.Hour, func() error { time.Sleep(16 * time.Second); return context.DeadlineExceeded }, nil, []Option{WithRequestTimeout(time.Second)}, []string{"KILL 1m17s"}, 17 * time.Second},
		{"no connection", 4 * time.Second, awayUntil(2 * time.Second), nil, nil, []string{"TERM 1m2s"}, 6 * time.Second},
		{"refused", 4 * time.Second, func() error {
			if time.Since(simBegin) < 62*time.Second {
				return errRefused
			}
			return nil
		}, nil, nil, []string{"TERM 1m2s"}, 6 * time.Second},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T) {
				sim := newSimEngine(t)
				sim.ending = test.ending
				_, task := runningTask(t, sim, graceTask())
				adapter, err := NewEngine(sim, test.options...).Adapter(nil, task, nil)
				require.NoError(t, err)
				sim.fails(func(call string) error {
					if test.request == nil || !strings.HasPrefix(call, "ContainerStop") {
						return nil
					}
					return test.request()
				})
				sim.lost = func(call string) error {
					if strings.HasPrefix(call, "ContainerStop") {
						return test.answer
					}
					return nil
				}
				time.Sleep(time.Minute - time.Since(simBegin))
				began := time.Now()
				stopAgain(t, adapter)
				assert.Equal(t, test.want, sim.signals(taskName))
				assert.InDelta(t, test.ended.Seconds(), time.Since(began).Seconds(), 1)
				// The stop is over: the engine answers the next one.
				sim.fails(nil)
				sim.lost = nil
				require.NoError(t, adapter.Shutdown(t.Context()))
				assert.Equal(t, test.want, sim.signals(taskName))
			})
		})
	}
}

// awayUntil has requests get no connection until so long after the first minute.
func awayUntil(d time.Duration) func() error {
	return func() error {
		if time.Since(simBegin) < time.Minute+d {
			return errAway
		}
		return nil
	}
}

// stopAgain calls Shutdown every half second until it succeeds.
func stopAgain(t *testing.T, adapter *ContainerAdapter) {
	t.Helper()
	for adapter.Shutdown(t.Context()) != nil {
		time.Sleep(500 * time.Millisecond)
		require.Less(t, time.Since(simBegin), time.Hour)
	}
}

// A request that is never answered ends two seconds after the grace period, whatever the
// request time-out. The container is killed within the same call.
func TestAStopWithoutAnAnswerKills(t *testing.T) {
	t.Parallel()
	seconds := func(n int) *int { return &n }
	for _, test := range []struct {
		name  string
		task  *gogotypes.Duration
		image *int // its grace period in seconds
		want  time.Duration
	}{
		{"the task's grace", &gogotypes.Duration{Seconds: 15}, seconds(60), 17 * time.Second},
		{"none", &gogotypes.Duration{}, nil, 2 * time.Second},
		{"the image's grace", nil, seconds(60), 62 * time.Second},
		{"the image's, shorter than the engine's own", nil, seconds(1), 12 * time.Second}, // not known earlier
		{"the engine's own", nil, nil, 12 * time.Second},
	} {
		for _, timeout := range []time.Duration{0, time.Hour} {
			t.Run(fmt.Sprint(test.name, ", time-out ", timeout), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					client := newFakeClient(t)
					client.containerStop = func(ctx context.Context, _ string, _ container.StopOptions) error {
						<-ctx.Done()
						return ctx.Err()
					}
					client.containerInspect = func(context.Context, string) (container.InspectResponse, error) {
						answer := containerIs(container.StateRunning)
						answer.Config = &container.Config{StopTimeout: test.image}
						return answer, nil
					}
					client.containerKill = func(context.Context, string, string) error { return nil }
					task := plainTask()
					spec(task).StopGracePeriod = test.task
					began := time.Now()
					require.NoError(t, newTestAdapter(t, client, task, WithRequestTimeout(timeout)).Shutdown(t.Context()))
					assert.Equal(t, test.want, time.Since(began))
					calls := client.called()
					assert.Equal(t, "ContainerStop web.1.taskid", calls[0])
					assert.Equal(t, "ContainerKill web.1.taskid", calls[len(calls)-1])
					assert.Equal(t, 2, len(calls)-strings.Count(strings.Join(calls, "\n"), "ContainerInspect"))
				})
			})
		}
	}
}

// An image may want to be waited for without end.
func TestAContainerThatMayTakeForEverIsNotKilled(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		client := newFakeClient(t)
		fake := newFakeContainer(client, container.StateRunning)
		never := -1
		fake.answer.Config = &container.Config{StopTimeout: &never}
		client.containerStop = func(context.Context, string, container.StopOptions) error { return io.ErrUnexpectedEOF }
		adapter := newTestAdapter(t, client, plainTask())
		require.True(t, exec.IsTemporary(adapter.Shutdown(t.Context())))
		time.AfterFunc(time.Hour, func() { fake.become(exitedWith(0), nil) })
		began := time.Now()
		require.NoError(t, adapter.Shutdown(t.Context()))
		assert.InDelta(t, time.Hour.Seconds(), time.Since(began).Seconds(), 1)
	})
}

// A task may have got another adapter since its stop was sent.
func TestAllAdaptersOfATaskShareItsStop(t *testing.T) {
	t.Parallel()
	for _, ending := range []time.Duration{8 * time.Second, time.Hour} {
		bubble(t, func(t *testing.T) {
			sim := newSimEngine(t)
			sim.ending = ending
			_, task := runningTask(t, sim, graceTask())
			engine := NewEngine(sim)
			time.Sleep(time.Minute)
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
			defer cancel()
			assert.Equal(t, context.DeadlineExceeded, adapterOf(t, engine, task).Shutdown(ctx))
			require.NoError(t, adapterOf(t, engine, task).Shutdown(t.Context()))
			want := []string{"TERM 1m0s"}
			if ending > time.Minute {
				want = append(want, "KILL 1m15s")
			}
			assert.Equal(t, want, sim.signals(taskName))
			assert.Equal(t, 1, sim.count("ContainerStop"))
			assert.Empty(t, engine.stops.byTask)
		})
	}
}

// Several calls at once send one stop. Each returns when the container has ended, or with
// its own context.
func TestManyStopsAtOnceAreOne(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		sim := newSimEngine(t)
		sim.ending = 10 * time.Second
		ctlr, _ := runningTask(t, sim, graceTask())
		var all []func() error
		for range 10 {
			all = append(all, asynchronously(func() error { return ctlr.Shutdown(t.Context()) }))
		}
		impatient, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		assert.Equal(t, context.DeadlineExceeded, ctlr.Shutdown(impatient))
		for _, err := range all {
			require.NoError(t, err())
		}
		assert.Equal(t, 1, sim.count("ContainerStop"))
		assert.Len(t, sim.signals(taskName), 1)
	})
}

func TestTerminateWithinAStopKillsAtOnce(t *testing.T) {
	t.Parallel()
	for _, lost := range []error{nil, io.ErrUnexpectedEOF} {
		t.Run(fmt.Sprint(lost), func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T) {
				sim := newSimEngine(t)
				sim.ending = time.Hour
				ctlr, _ := runningTask(t, sim, graceTask())
				sim.fails(func(call string) error {
					if strings.HasPrefix(call, "ContainerStop") {
						return lost
					}
					return nil
				})
				time.Sleep(time.Minute - time.Since(simBegin))
				shutdown := asynchronously(func() error {
					err := ctlr.Shutdown(t.Context())
					for exec.IsTemporary(err) {
						err = ctlr.Shutdown(t.Context())
					}
					return err
				})
				time.Sleep(3 * time.Second)
				require.NoError(t, ctlr.Terminate(t.Context()))
				require.NoError(t, shutdown())
				signals := sim.signals(taskName)
				assert.Equal(t, "KILL 1m3s", signals[len(signals)-1])
				assert.Equal(t, 1, sim.count("ContainerStop"))
			})
		})
	}
}

// A stop belongs to one run of the container.
func TestAContainerThatIsStartedAgainGetsItsOwnStop(t *testing.T) {
	t.Parallel()
	for name, lost := range map[string]error{"the stop was answered": nil, "the answer was lost": io.ErrUnexpectedEOF} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T) {
				sim := newSimEngine(t)
				starts := func() {
					sim.with(taskName, func(c *simContainer) {
						c.state = container.State{Status: container.StateRunning, Running: true, StartedAt: time.Now().Format(time.RFC3339Nano)}
					})
				}
				ctlr, _ := runningTask(t, sim, graceTask())
				starts()
				_, err := ctlr.ContainerStatus(t.Context())
				require.NoError(t, err)
				sim.lost = func(call string) error {
					if strings.HasPrefix(call, "ContainerStop") {
						return lost
					}
					return nil
				}
				time.Sleep(time.Minute - time.Since(simBegin))
				assert.Equal(t, lost != nil, ctlr.Shutdown(t.Context()) != nil)
				sim.lost = nil
				time.Sleep(time.Second)
				starts()
				time.Sleep(time.Second)
				require.NoError(t, ctlr.Shutdown(t.Context()))
				assert.Equal(t, []string{"TERM 1m0s", "TERM 1m2s"}, sim.signals(taskName))
			})
		})
	}
	// What was seen of an earlier run does not make two runs of the stopped one.
	t.Run("a run that was not seen", func(t *testing.T) {
		t.Parallel()
		bubble(t, func(t *testing.T) {
			sim := newSimEngine(t)
			ctlr, _ := runningTask(t, sim, graceTask())
			for _, at := range []string{"1999-12-31T23:00:00Z", "1999-12-31T23:30:00Z"} {
				_, err := ctlr.ContainerStatus(t.Context())
				require.NoError(t, err)
				sim.with(taskName, func(c *simContainer) { c.state.StartedAt = at })
			}
			sim.ending = 5 * time.Second
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			assert.Equal(t, context.DeadlineExceeded, ctlr.Shutdown(ctx))
			require.NoError(t, ctlr.Shutdown(t.Context()))
			assert.Equal(t, 1, sim.count("ContainerStop"))
		})
	})
}

// A stop whose caller had left before is not sent, and does not count.
func TestAStopOfACallerThatHasLeftDoesNotCount(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		sim := newSimEngine(t)
		ctlr, _ := runningTask(t, sim, graceTask())
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		assert.Equal(t, context.Canceled, ctlr.adapter.Shutdown(ctx))
		assert.Zero(t, sim.count("ContainerStop"))
		require.NoError(t, ctlr.Shutdown(t.Context()))
		assert.Equal(t, []string{"ContainerStop web.1.taskid"}, sim.called()[len(sim.called())-1:])
	})
}

// A container that the engine does not show is killed in time all the same.
func TestAContainerThatCannotBeInspectedIsKilledInTime(t *testing.T) {
	t.Parallel()
	faults := maps.Clone(refusals)
	faults["away"] = errAway
	for name, err := range faults {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T) {
				sim := newSimEngine(t)
				ctlr, _ := runningTask(t, sim, graceTask())
				sim.fails(func(call string) error {
					switch {
					case strings.HasPrefix(call, "ContainerStop"):
						return errFinal
					case strings.HasPrefix(call, "ContainerInspect"):
						return err
					}
					return nil
				})
				time.Sleep(time.Minute - time.Since(simBegin))
				require.True(t, exec.IsTemporary(ctlr.Shutdown(t.Context())))
				require.NoError(t, ctlr.Shutdown(t.Context()))
				assert.Equal(t, []string{"KILL 1m17s"}, sim.signals(taskName))
			})
		})
	}
}

// An inspect that hangs delays the kill no more.
func TestAHangingInspectDelaysNoKill(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		client := newFakeClient(t)
		client.containerStop = func(context.Context, string, container.StopOptions) error { return errFinal }
		client.containerInspect = func(ctx context.Context, _ string) (container.InspectResponse, error) {
			<-ctx.Done()
			return container.InspectResponse{}, ctx.Err()
		}
		var killed time.Duration
		began := time.Now()
		client.containerKill = func(context.Context, string, string) error {
			killed = time.Since(began)
			return nil
		}
		ctlr, err := NewExecutor(client, nil).Controller(taskAt(graceTask(), api.TaskStateReady))
		require.NoError(t, err)
		require.True(t, exec.IsTemporary(ctlr.Shutdown(t.Context())))
		require.NoError(t, ctlr.Shutdown(t.Context()))
		assert.Equal(t, 17*time.Second, killed)
	})
}

// The client says "Cannot connect" of a connection that was refused, of one that did not
// come about in time, and of an answer that did not come in time. Only the last request
// was sent.
func TestWhetherAStopGotAConnection(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name  string
		dial  func(context.Context) (net.Conn, error) // of the first stop
		stops int32                                   // that the engine sees
	}{
		{"refused", func(context.Context) (net.Conn, error) {
			return nil, &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}
		}, 1},
		{"no socket", func(context.Context) (net.Conn, error) {
			return nil, &net.OpError{Op: "dial", Net: "unix", Err: syscall.ENOENT}
		}, 1},
		{"no connection in time", func(context.Context) (net.Conn, error) {
			time.Sleep(time.Hour) // the transport dials on without its request
			return nil, &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ETIMEDOUT}
		}, 1},
		{"no answer in time", func(ctx context.Context) (net.Conn, error) {
			near, far := net.Pipe()
			go io.Copy(io.Discard, far)
			context.AfterFunc(ctx, func() { far.Close() })
			return near, nil
		}, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var stops, kills atomic.Int32
				engine := answering(func(r *http.Request) (int, string) {
					switch {
					case strings.HasSuffix(r.URL.Path, "/stop"):
						stops.Add(1)
						return http.StatusNoContent, ""
					case strings.HasSuffix(r.URL.Path, "/kill"):
						kills.Add(1)
						return http.StatusNoContent, ""
					}
					return http.StatusOK, `{"Id": "c1", "Config": {}, "State": {"Status": "running", "Running": true}}`
				})
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				first := &http.Transport{DisableKeepAlives: true, ResponseHeaderTimeout: 5 * time.Second,
					DialContext: func(dialing context.Context, _, _ string) (net.Conn, error) { return test.dial(dialing) }}
				tried := false
				client, err := engineapi.NewClientWithOpts(engineapi.WithHost("tcp://engine:1"), engineapi.WithVersion("1.51"),
					engineapi.WithHTTPClient(&http.Client{Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
						if strings.HasSuffix(r.URL.Path, "/stop") && !tried {
							tried = true
							return first.RoundTrip(r)
						}
						if strings.HasSuffix(r.URL.Path, "/_ping") {
							return &http.Response{StatusCode: http.StatusOK, Header: http.Header{"Api-Version": {"1.51"}}, Body: http.NoBody, Request: r}, nil
						}
						return engine.RoundTrip(r)
					})}))
				require.NoError(t, err)
				adapter, err := NewEngine(client, WithRequestTimeout(time.Second)).Adapter(nil, graceTask(), nil)
				require.NoError(t, err)
				err = adapter.Shutdown(ctx)
				assert.True(t, exec.IsTemporary(err), err)
				require.NoError(t, adapter.Shutdown(ctx))
				assert.Equal(t, test.stops, stops.Load())
				assert.Equal(t, 1-test.stops, kills.Load())
				time.Sleep(2 * time.Hour)
			})
		})
	}
}

// A fake's errors tell too.
func TestWhetherAFakesStopGotAConnection(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		err  error
		sent bool
	}{
		{engineapi.ErrorConnectionFailed("unix:///run/docker.sock"), false}, //nolint:staticcheck // as the client has it
		{syscall.ECONNREFUSED, false},
		{errors.New("something odd"), true},
		{fmt.Errorf("error during connect: %w", io.EOF), true},
	} {
		t.Run(test.err.Error(), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				client := newFakeClient(t)
				client.failEverything(test.err)
				client.inspecting(exitedWith(0), nil)
				adapter := newTestAdapter(t, client, plainTask())
				require.Error(t, adapter.Shutdown(t.Context()))
				err := adapter.Shutdown(t.Context())
				if test.sent {
					require.NoError(t, err)
					assert.Equal(t, []string{"ContainerStop web.1.taskid", "ContainerInspect web.1.taskid"}, client.called())
					return
				}
				require.Error(t, err)
				assert.Equal(t, []string{"ContainerStop web.1.taskid", "ContainerStop web.1.taskid"}, client.called())
			})
		})
	}
}

// A stop belongs to one run of the container. After another start the next one sends its
// own signal, and the container has its whole grace period.
func TestAContainerThatIsStartedAgainGetsAStopOfItsOwn(t *testing.T) {
	t.Parallel()
	for name, again := range map[string]func(*testing.T, *simEngine, *ContainerAdapter){
		"it is removed by somebody else, and made again": func(t *testing.T, sim *simEngine, a *ContainerAdapter) {
			require.NoError(t, sim.ContainerRemove(t.Context(), taskName, container.RemoveOptions{}))
			require.NoError(t, a.Create(t.Context()))
			require.NoError(t, a.Start(t.Context()))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T) {
				sim := newSimEngine(t)
				adapter, err := NewEngine(sim).Adapter(nil, graceTask(), nil)
				require.NoError(t, err)
				require.NoError(t, adapter.PullImage(t.Context()))
				require.NoError(t, adapter.Create(t.Context()))
				require.NoError(t, adapter.Start(t.Context()))
				sim.fails(failing("ContainerStop", errNoExitEvent))
				require.Error(t, adapter.Shutdown(t.Context()))
				sim.fails(nil)
				sim.exit(taskName, 0)
				time.Sleep(time.Minute)
				again(t, sim, adapter)
				time.Sleep(time.Minute)
				sim.forgetCalls()
				require.NoError(t, adapter.Shutdown(t.Context()))
				assert.Equal(t, 1, sim.count("ContainerStop"))
				assert.Zero(t, sim.count("ContainerKill"))
			})
		})
	}
}

// onFakeEngine returns an engine for tests that has the image of plainTask, and a function
// that makes one more adapter of that task, as another process would.
func onFakeEngine(t *testing.T, program dockerexectest.Program) (engine *dockerexectest.Engine, adapter func() *ContainerAdapter) {
	t.Helper()
	engine = dockerexectest.New(t)
	engine.LocalImage(spec(plainTask()).Image, program)
	return engine, func() *ContainerAdapter {
		a, err := NewEngine(engine.Client()).Adapter(nil, plainTask(), nil)
		require.NoError(t, err)
		return a
	}
}

const startRequest = "POST /containers/*/start"

// Whoever calls Start, and however often: a container is started once.
func TestAContainerIsStartedOnce(t *testing.T) {
	t.Parallel()
	type adapters func() *ContainerAdapter
	for name, test := range map[string]struct {
		program dockerexectest.Program
		again   func(t *testing.T, engine *dockerexectest.Engine, first *ContainerAdapter, another adapters) error
		fails   error
	}{
		"the first start has no answer, and the job is short": {dockerexectest.Exit(0), func(t *testing.T, engine *dockerexectest.Engine, first *ContainerAdapter, _ adapters) error {
			engine.FailNext(startRequest, dockerexectest.LoseAnswer())
			require.True(t, exec.IsTemporary(first.Start(t.Context())))
			return first.Start(t.Context())
		}, nil},
		"the first start has no answer, and the engine is away for a while": {dockerexectest.ExitAfter(time.Second, 3), func(t *testing.T, engine *dockerexectest.Engine, first *ContainerAdapter, _ adapters) error {
			engine.FailNext(startRequest, dockerexectest.LoseAnswer())
			require.True(t, exec.IsTemporary(first.Start(t.Context())))
			engine.Down()
			require.True(t, exec.IsTemporary(first.Start(t.Context())))
			time.Sleep(time.Minute)
			engine.Up()
			return first.Start(t.Context())
		}, nil},
		"the caller gives the first start up": {dockerexectest.Exit(0), func(t *testing.T, engine *dockerexectest.Engine, first *ContainerAdapter, _ adapters) error {
			engine.FailNext(startRequest, dockerexectest.Slow(time.Second))
			ctx, cancel := context.WithTimeout(t.Context(), time.Second/2)
			defer cancel()
			require.Equal(t, context.DeadlineExceeded, first.Start(ctx))
			time.Sleep(time.Minute)
			return first.Start(t.Context())
		}, nil},
		"the first start succeeded, and the container runs": {dockerexectest.UntilStopped(0), func(t *testing.T, _ *dockerexectest.Engine, first *ContainerAdapter, _ adapters) error {
			require.NoError(t, first.Start(t.Context()))
			return first.Start(t.Context())
		}, nil},
		"an earlier process started it, and it has ended": {dockerexectest.Exit(3), func(t *testing.T, _ *dockerexectest.Engine, first *ContainerAdapter, another adapters) error {
			require.NoError(t, first.Start(t.Context()))
			time.Sleep(time.Second)
			second := another()
			require.Equal(t, exec.ErrTaskPrepared, second.Create(t.Context()))
			return second.Start(t.Context())
		}, exec.ErrTaskStarted},
		"an earlier process started it, and it runs": {dockerexectest.UntilStopped(0), func(t *testing.T, _ *dockerexectest.Engine, first *ContainerAdapter, another adapters) error {
			require.NoError(t, first.Start(t.Context()))
			second := another()
			require.Equal(t, exec.ErrTaskPrepared, second.Create(t.Context()))
			return second.Start(t.Context())
		}, exec.ErrTaskStarted},
		"an earlier process only created it": {dockerexectest.UntilStopped(0), func(t *testing.T, _ *dockerexectest.Engine, _ *ContainerAdapter, another adapters) error {
			second := another()
			require.Equal(t, exec.ErrTaskPrepared, second.Create(t.Context()))
			return second.Start(t.Context())
		}, nil},
		"the engine refused the first start": {dockerexectest.UntilStopped(0), func(t *testing.T, engine *dockerexectest.Engine, first *ContainerAdapter, _ adapters) error {
			engine.FailNext(startRequest, dockerexectest.Refuse(http.StatusInternalServerError, "port is already allocated"))
			require.ErrorContains(t, first.Start(t.Context()), "port is already allocated")
			engine.ForgetRequests()
			err := first.Start(t.Context())
			assert.Equal(t, "POST /containers/"+engine.Container(taskName).ID()+"/start", engine.Requests()[0].String(), "it is simply sent again")
			return err
		}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T) {
				engine, adapter := onFakeEngine(t, test.program)
				first := adapter()
				require.NoError(t, first.Create(t.Context()))
				assert.Equal(t, test.fails, test.again(t, engine, first, adapter))
				assert.Equal(t, 1, engine.Container(taskName).Starts())
			})
		})
	}
}

// A start after this adapter's own create is one request, and so is one without a create.
func TestTheFirstStartIsOneRequest(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		engine, adapter := onFakeEngine(t, dockerexectest.UntilStopped(0))
		first, second := adapter(), adapter()
		require.NoError(t, first.Create(t.Context()))
		for _, a := range []*ContainerAdapter{first, second} {
			_, err := a.engine.api.get(t.Context(), time.Minute)
			require.NoError(t, err)
			engine.ForgetRequests()
			require.NoError(t, a.Start(t.Context()))
			assert.Len(t, engine.Requests(), 1)
		}
	})
}

// A call that its caller gave up is carried out by the engine. What it makes is found and
// removed.
func TestWhatIsMadeTooLateIsRemoved(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		request string
		make    func(*ContainerAdapter, context.Context) error
	}{
		"a container": {"POST /containers/create", (*ContainerAdapter).Create},
		"a network":   {"POST /networks/create", (*ContainerAdapter).CreateNetworks},
	} {
		for how, fault := range map[string]dockerexectest.Fault{
			"its caller gives it up": dockerexectest.Slow(3 * time.Second),
			"its answer is lost":     dockerexectest.LoseAnswer(),
		} {
			t.Run(name+", "+how, func(t *testing.T) {
				t.Parallel()
				bubble(t, func(t *testing.T) {
					engine, _ := onFakeEngine(t, dockerexectest.UntilStopped(0))
					task := plainTask()
					attach(task, "backend", "10.1.0.0/24")
					adapter, err := NewEngine(engine.Client()).Adapter(nil, task, nil)
					require.NoError(t, err)
					if test.request == "POST /containers/create" {
						require.NoError(t, adapter.CreateNetworks(t.Context()))
					}
					engine.FailNext(test.request, fault)
					ctx, cancel := context.WithTimeout(t.Context(), time.Second)
					defer cancel()
					require.Error(t, test.make(adapter, ctx))
					require.NoError(t, adapter.Remove(t.Context()))
					require.NoError(t, adapter.RemoveNetworks(t.Context()))
					time.Sleep(time.Hour)
					assert.Empty(t, engine.Containers())
					assert.NotContains(t, engine.Networks(), "backend")
				})
			})
		}
	}
}

// Two calls at the same time start the container once.
func TestCallsAtOnceStartAContainerOnce(t *testing.T) {
	t.Parallel()
	for name, start := range map[string]func(*ContainerAdapter) func(context.Context) error{
		"adapter": func(a *ContainerAdapter) func(context.Context) error { return a.Start },
		"controller": func(a *ContainerAdapter) func(context.Context) error {
			return newController(a, api.TaskStatePreparing).Start
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T) {
				engine, adapter := onFakeEngine(t, dockerexectest.Exit(0))
				a := adapter()
				require.NoError(t, a.Create(t.Context()))
				engine.FailNext(startRequest, dockerexectest.Slow(time.Second))
				call := start(a)
				first := asynchronously(func() error { return call(t.Context()) })
				second := asynchronously(func() error { return call(t.Context()) })
				results := []error{first(), second()}
				if name == "controller" {
					// The call that comes later may already see that the container was started.
					results = slices.DeleteFunc(results, func(err error) bool { return err == exec.ErrTaskStarted })
					require.NotEmpty(t, results)
				}
				for _, err := range results {
					require.NoError(t, err)
				}
				assert.Equal(t, 1, engine.Container(taskName).Starts())
			})
		})
	}
}

// A create that got no answer may have found the name taken. What has the name then is
// looked at, and left alone if it is not the task's.
func TestRemoveAfterALostCreateLeavesAStrangersContainer(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		engine, _ := onFakeEngine(t, dockerexectest.Exit(0))
		engine.AddContainer("database", nil)
		task := plainTask()
		task.Annotations.Name = "database"
		adapter, err := NewEngine(engine.Client()).Adapter(nil, task, nil)
		require.NoError(t, err)
		engine.FailNext("POST /containers/create", dockerexectest.Drop())
		require.Error(t, adapter.Create(t.Context()))
		require.NoError(t, adapter.Remove(t.Context()))
		assert.NotNil(t, engine.Container("database"))
	})
}
