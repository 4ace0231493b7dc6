package dockerexec

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

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

// onGraceTask is an engine whose container of graceTask runs the program, the task's
// controller, and that container.
func onGraceTask(t *testing.T, program dockerexectest.Program) (*dockerexectest.Engine, *controller, *dockerexectest.Container) {
	t.Helper()
	engine := webEngine(t, program)
	ctlr, _ := reached(t, engine, graceTask(), api.TaskStateRunning)
	return engine, ctlr, engine.Container(taskName)
}

// untilFirstMinute sleeps until the bubble is a minute old.
func untilFirstMinute() { time.Sleep(time.Minute - time.Since(bubbleBegan)) }

// An update stops the task, and the service is removed 3 seconds later. The caller of
// the first stop may leave it in between.
func TestARemovalWithinAStopSendsNoSecondSignal(t *testing.T) {
	t.Parallel()
	for ending, want := range map[time.Duration][]string{8 * time.Second: {"TERM 1m0s"}, time.Hour: {"TERM 1m0s", "KILL 1m15s"}} {
		for _, leaves := range []bool{false, true} {
			t.Run(fmt.Sprint("it needs ", ending, ", the caller leaves: ", leaves), func(t *testing.T) {
				t.Parallel()
				bubble(t, func(t *testing.T) {
					var signals signalLog
					engine, ctlr, _ := onGraceTask(t, signals.program(ending))
					untilFirstMinute()
					ctx, cancel := context.WithCancel(t.Context())
					defer cancel()
					shutdown := asynchronously(func() error { return ctlr.Shutdown(ctx) })
					if leaves {
						time.AfterFunc(time.Second, cancel)
					}
					time.Sleep(3 * time.Second)
					require.NoError(t, ctlr.Remove(t.Context()))
					if leaves {
						assert.Equal(t, context.Canceled, shutdown())
					} else {
						require.NoError(t, shutdown())
					}
					assert.Empty(t, engine.Containers())
					assert.Equal(t, want, signals.got())
					assert.Equal(t, 1, engine.Requests().Count(stopRequest))
					assert.Zero(t, engine.Requests().Count(killRequest))
				})
			})
		}
	}
}

// Whatever becomes of the request, the container gets one stop signal, and has ended two
// seconds after its grace period.
func TestAStopIsSentOnce(t *testing.T) {
	t.Parallel()
	fails := func(fault dockerexectest.Fault) func(*dockerexectest.Engine) {
		return func(e *dockerexectest.Engine) { e.FailNext(stopRequest, fault) }
	}
	for name, test := range map[string]struct {
		ending  time.Duration
		happens func(*dockerexectest.Engine) // before the stop
		options []Option
		want    []string
		ended   time.Duration // since the stop
	}{
		"it is killed by the engine": {time.Hour, func(*dockerexectest.Engine) {}, nil, []string{"TERM 1m0s", "KILL 1m15s"}, 15 * time.Second},
		"the answer is lost":         {4 * time.Second, fails(dockerexectest.LoseAnswer()), nil, []string{"TERM 1m0s"}, 4 * time.Second},
		"500 after the end":          {4 * time.Second, func(*dockerexectest.Engine) {}, nil, []string{"TERM 1m0s"}, 4 * time.Second},
		"cut off on its way":         {time.Hour, fails(dockerexectest.Drop()), nil, []string{"KILL 1m17s"}, 17 * time.Second},
		"504 before the engine":      {time.Hour, fails(dockerexectest.Refuse(http.StatusGatewayTimeout, "gateway time-out")), nil, []string{"KILL 1m17s"}, 17 * time.Second},
		"429":                        {time.Hour, fails(dockerexectest.Refuse(http.StatusTooManyRequests, "slow down")), nil, []string{"KILL 1m17s"}, 17 * time.Second},
		"409":                        {time.Hour, fails(dockerexectest.Refuse(http.StatusConflict, "busy")), nil, []string{"KILL 1m17s"}, 17 * time.Second},
		"a short request time-out":   {time.Hour, fails(dockerexectest.Slow(2 * time.Hour)), []Option{WithRequestTimeout(time.Second)}, []string{"KILL 1m17s"}, 17 * time.Second},
		"no connection": {4 * time.Second, func(e *dockerexectest.Engine) {
			e.Down()
			time.AfterFunc(1900*time.Millisecond, e.Up)
		}, nil, []string{"TERM 1m2s"}, 6 * time.Second},
		"refused": {4 * time.Second, func(e *dockerexectest.Engine) {
			time.AfterFunc(1900*time.Millisecond, e.FailAll(stopRequest, dockerexectest.Refuse(http.StatusForbidden, "authorization denied by plugin guard: no")))
		}, nil, []string{"TERM 1m2s"}, 6 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T) {
				var signals signalLog
				engine, _, _ := onGraceTask(t, signals.program(test.ending))
				client := engine.Client()
				if name == "500 after the end" {
					client = through(t, engine, func(r *http.Request, next http.RoundTripper) (*http.Response, error) {
						response, err := next.RoundTrip(r)
						if err == nil && response.StatusCode == http.StatusNoContent && strings.HasSuffix(r.URL.Path, "/stop") {
							response.StatusCode = http.StatusInternalServerError
						}
						return response, err
					})
				}
				adapter := adapterOf(t, NewEngine(client, test.options...), graceTask())
				untilFirstMinute()
				test.happens(engine)
				stopAgain(t, adapter)
				assert.Equal(t, test.want, signals.got())
				assert.InDelta(t, test.ended.Seconds(), time.Since(bubbleBegan.Add(time.Minute)).Seconds(), 1)
				// The stop is over: the engine answers the next one.
				before := engine.Requests().Count(stopRequest)
				require.NoError(t, adapter.Shutdown(t.Context()))
				assert.Equal(t, before+1, engine.Requests().Count(stopRequest))
				assert.Equal(t, test.want, signals.got())
			})
		})
	}
}

// stopAgain calls Shutdown every half second until it succeeds.
func stopAgain(t *testing.T, adapter *ContainerAdapter) {
	t.Helper()
	for adapter.Shutdown(t.Context()) != nil {
		time.Sleep(500 * time.Millisecond)
		require.Less(t, time.Since(bubbleBegan), time.Hour)
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
				bubble(t, func(t *testing.T) {
					engine := webEngine(t, dockerexectest.IgnoreStop())
					task := plainTask()
					spec(task).StopGracePeriod = test.task
					ctlr, _ := reached(t, engine, task, api.TaskStateRunning, WithRequestTimeout(timeout))
					engine.Container(taskName).AlterInspect(func(answer *container.InspectResponse) { answer.Config.StopTimeout = test.image })
					engine.FailAll(stopRequest, dockerexectest.Slow(2*time.Hour))
					engine.ForgetRequests()
					began := time.Now()
					require.NoError(t, ctlr.adapter.Shutdown(t.Context()))
					assert.Equal(t, test.want, time.Since(began))
					calls := asked(engine)
					assert.Equal(t, "POST /containers/ID/stop", calls[0])
					assert.Equal(t, "POST /containers/ID/kill", calls[len(calls)-1])
					assert.Equal(t, 2, len(calls)-engine.Requests().Count(inspectRequest))
				})
			})
		}
	}
}

// A stop of a task without a grace period names none. But Podman 4.3 stores 0 for such a
// container, and kills at once: there the stop names ten seconds.
func TestTheGracePeriodThatAStopNames(t *testing.T) {
	t.Parallel()
	const look, stopByName, stopByID = "GET /containers/web.1.taskid/json", "POST /containers/web.1.taskid/stop", "POST /containers/ID/stop"
	podman := dockerexectest.PodmanV4
	for name, test := range map[string]struct {
		dialect   dockerexectest.Dialect
		own       int // what the container is made with, in seconds; -1: nothing
		task      *gogotypes.Duration
		isSeen    bool // the adapter has inspected the container
		isUnknown bool // the ping is forbidden
		want      string
		asked     []string
	}{
		"Docker 20.10":                 {dialect: dockerexectest.DockerV20, own: -1, asked: []string{stopByName}},
		"Docker 29":                    {dialect: dockerexectest.DockerV29, own: -1, asked: []string{stopByName}},
		"Docker, a hook's 0":           {dialect: dockerexectest.DockerV29, own: 0, isSeen: true, asked: []string{stopByID}},
		"Podman 4.3":                   {dialect: podman, own: -1, want: "10", asked: []string{look, stopByName}},
		"Podman 4.3, inspected before": {dialect: podman, own: -1, isSeen: true, want: "10", asked: []string{stopByID}},
		"a newer Podman, which stores ten seconds":    {dialect: podman, own: 10, asked: []string{look, stopByName}},
		"a newer Podman, inspected before":            {dialect: podman, own: 10, isSeen: true, asked: []string{stopByID}},
		"Podman, a hook's time":                       {dialect: podman, own: 60, asked: []string{look, stopByName}},
		"Podman, the task's own":                      {dialect: podman, own: -1, task: &gogotypes.Duration{Seconds: 3}, want: "3", asked: []string{stopByName}},
		"Podman, a task that wants to be killed":      {dialect: podman, own: 0, task: &gogotypes.Duration{}, want: "0", asked: []string{stopByName}},
		"the ping is forbidden":                       {dialect: podman, own: -1, isUnknown: true, asked: []string{stopByName}},
		"the ping is forbidden, and inspected before": {dialect: podman, own: -1, isUnknown: true, isSeen: true, want: "10", asked: []string{stopByID}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T) {
				engine := dockerexectest.New(t, dockerexectest.WithDialect(test.dialect))
				engine.LocalImage("example/web:1", dockerexectest.UntilStopped(time.Second))
				task := plainTask()
				spec(task).StopGracePeriod = test.task
				first := adapterOn(t, engine, task, WithCreateHook(func(_ context.Context, _ *api.Task, c *container.Config, _ *container.HostConfig) error {
					if test.own >= 0 {
						c.StopTimeout = &test.own
					}
					return nil
				}))
				require.NoError(t, first.Create(t.Context()))
				require.NoError(t, first.Start(t.Context()))
				if test.isUnknown {
					engine.FailNext("HEAD /_ping", dockerexectest.Refuse(http.StatusForbidden, "forbidden"))
					engine.FailNext("GET /_ping", dockerexectest.Refuse(http.StatusForbidden, "forbidden"))
				}
				adapter := adapterOn(t, engine, task)
				if test.isSeen {
					_, err := adapter.Inspect(t.Context())
					require.NoError(t, err)
				}
				engine.ForgetRequests()
				require.NoError(t, adapter.Shutdown(t.Context()))
				assert.Equal(t, test.asked, asked(engine))
				stop := engine.Requests()[len(engine.Requests())-1]
				assert.Equal(t, test.want, stop.Query.Get("t"))
				assert.Equal(t, test.want != "", stop.Query.Has("t"))
			})
		})
	}
}

// On Podman, a stop that has no answer is followed by a kill only after the ten seconds, and a
// stop is not sent while nobody knows which grace period it must name.
func TestAStopOnPodmanThatFails(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		engine := dockerexectest.New(t, dockerexectest.WithDialect(dockerexectest.PodmanV4))
		engine.LocalImage("example/web:1", dockerexectest.IgnoreStop())
		adapter := adapterOn(t, engine, plainTask())
		require.NoError(t, adapter.Create(t.Context()))
		require.NoError(t, adapter.Start(t.Context()))
		engine.ForgetRequests()
		engine.FailNext(inspectRequest, dockerexectest.Refuse(http.StatusInternalServerError, "database is locked"))
		require.EqualError(t, adapter.Shutdown(t.Context()), "stop container web.1.taskid: Error response from daemon: database is locked")
		assert.Equal(t, 0, engine.Requests().Count(stopRequest))

		engine.FailNext(stopRequest, dockerexectest.Drop())
		began := time.Now()
		require.Error(t, adapter.Shutdown(t.Context()))
		require.NoError(t, adapter.Shutdown(t.Context()))
		assert.Equal(t, 12*time.Second, time.Since(began))
		assert.Equal(t, 1, engine.Requests().Count(stopRequest))
		assert.Equal(t, 1, engine.Requests().Count("POST /containers/*/kill"))
	})
}

// A fake is not asked which grace period its container has. What an inspect showed counts.
func TestTheGracePeriodThatAFakesStopNames(t *testing.T) {
	t.Parallel()
	seconds := func(n int) *int { return &n }
	for _, test := range []struct{ own, want *int }{{nil, nil}, {seconds(0), seconds(10)}, {seconds(60), nil}} {
		client := newFakeClient(t)
		client.containerInspect = func(context.Context, string) (container.InspectResponse, error) {
			answer := inspected("id-of-web", container.StateRunning, ofThisTask)
			answer.Config.StopTimeout = test.own
			return answer, nil
		}
		var got []*int
		client.containerStop = func(_ context.Context, _ string, o container.StopOptions) error {
			got = append(got, o.Timeout)
			return nil
		}
		adapter := newTestAdapter(t, client, plainTask())
		require.NoError(t, adapter.Shutdown(t.Context()))
		_, err := adapter.Inspect(t.Context())
		require.NoError(t, err)
		require.NoError(t, adapter.Shutdown(t.Context()))
		assert.Equal(t, []*int{nil, test.want}, got)
	}
}

// An image may want to be waited for without end.
func TestAContainerThatMayTakeForEverIsNotKilled(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		never := -1
		engine := webEngine(t, dockerexectest.IgnoreStop())
		ctlr, _ := reached(t, engine, plainTask(), api.TaskStateRunning)
		engine.Container(taskName).AlterInspect(func(answer *container.InspectResponse) { answer.Config.StopTimeout = &never })
		engine.FailNext(stopRequest, dockerexectest.Drop())
		require.True(t, exec.IsTemporary(ctlr.adapter.Shutdown(t.Context())))
		time.AfterFunc(5*time.Minute, func() { engine.Container(taskName).Exit(0) })
		began := time.Now()
		require.NoError(t, ctlr.adapter.Shutdown(t.Context()))
		assert.InDelta(t, 300, time.Since(began).Seconds(), 1)
	})
}

// A task may have got another adapter since its stop was sent.
func TestAllAdaptersOfATaskShareItsStop(t *testing.T) {
	t.Parallel()
	for ending, want := range map[time.Duration][]string{8 * time.Second: {"TERM 1m0s"}, time.Hour: {"TERM 1m0s", "KILL 1m15s"}} {
		bubble(t, func(t *testing.T) {
			var signals signalLog
			kit, _, _ := onGraceTask(t, signals.program(ending))
			engine := NewEngine(kit.Client())
			untilFirstMinute()
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
			defer cancel()
			assert.Equal(t, context.DeadlineExceeded, adapterOf(t, engine, graceTask()).Shutdown(ctx))
			require.NoError(t, adapterOf(t, engine, graceTask()).Shutdown(t.Context()))
			assert.Equal(t, want, signals.got())
			assert.Equal(t, 1, kit.Requests().Count(stopRequest))
			assert.Empty(t, engine.stops.byTask)
		})
	}
}

// Several calls at once send one stop. Each returns when the container has ended, or with
// its own context.
func TestManyStopsAtOnceAreOne(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		var signals signalLog
		engine, ctlr, _ := onGraceTask(t, signals.program(10*time.Second))
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
		assert.Equal(t, 1, engine.Requests().Count(stopRequest))
		assert.Len(t, signals.got(), 1)
	})
}

func TestTerminateWithinAStopKillsAtOnce(t *testing.T) {
	t.Parallel()
	for name, want := range map[string][]string{"the stop arrives": {"TERM 1m0s", "KILL 1m3s"}, "the stop is lost": {"KILL 1m3s"}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T) {
				var signals signalLog
				engine, ctlr, _ := onGraceTask(t, signals.program(time.Hour))
				if name == "the stop is lost" {
					engine.FailNext(stopRequest, dockerexectest.Drop())
				}
				untilFirstMinute()
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
				assert.Equal(t, want, signals.got())
				assert.Equal(t, 1, engine.Requests().Count(stopRequest))
			})
		})
	}
}

// A stop belongs to one run of the container. After another start the next one sends its
// own signal, and the container has its whole grace period.
func TestAContainerThatIsStartedAgainGetsAStopOfItsOwn(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		fault func() dockerexectest.Fault // of the first stop; nil: none
		again func(context.Context, engineapi.APIClient, *ContainerAdapter) error
		want  []string
	}{
		"the stop was answered": {nil, startByHand, []string{"TERM 1m0s", "TERM 1m2s"}},
		"the answer was lost":   {dockerexectest.LoseAnswer, startByHand, []string{"TERM 1m0s", "TERM 1m2s"}},
		"the stop never arrived, and it is removed by somebody else and made again": {dockerexectest.Drop, func(ctx context.Context, client engineapi.APIClient, a *ContainerAdapter) error {
			return errors.Join(client.ContainerRemove(ctx, taskName, container.RemoveOptions{Force: true}), a.Create(ctx), a.Start(ctx))
		}, []string{"KILL 1m1s", "TERM 1m2s"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T) {
				var signals signalLog
				engine, ctlr, _ := onGraceTask(t, signals.program(0))
				_, err := ctlr.ContainerStatus(t.Context())
				require.NoError(t, err)
				if test.fault != nil {
					engine.FailNext(stopRequest, test.fault())
				}
				untilFirstMinute()
				assert.Equal(t, test.fault != nil, ctlr.adapter.Shutdown(t.Context()) != nil)
				time.Sleep(time.Second)
				require.NoError(t, test.again(t.Context(), engine.Client(), ctlr.adapter))
				time.Sleep(time.Second)
				require.NoError(t, ctlr.adapter.Shutdown(t.Context()))
				assert.Equal(t, test.want, signals.got())
				assert.Zero(t, engine.Requests().Count(killRequest))
			})
		})
	}
	// What was seen of an earlier run does not make two runs of the stopped one.
	t.Run("a run that was not seen", func(t *testing.T) {
		t.Parallel()
		bubble(t, func(t *testing.T) {
			var signals signalLog
			engine, ctlr, web := onGraceTask(t, signals.program(5*time.Second))
			_, err := ctlr.ContainerStatus(t.Context())
			require.NoError(t, err)
			web.Exit(0)
			require.NoError(t, startByHand(t.Context(), engine.Client(), nil))
			time.Sleep(time.Second)
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			assert.Equal(t, context.DeadlineExceeded, ctlr.Shutdown(ctx))
			require.NoError(t, ctlr.Shutdown(t.Context()))
			assert.Equal(t, 1, engine.Requests().Count(stopRequest))
		})
	})
}

func startByHand(ctx context.Context, client engineapi.APIClient, _ *ContainerAdapter) error {
	return client.ContainerStart(ctx, taskName, container.StartOptions{})
}

// A stop whose caller had left before is not sent, and does not count.
func TestAStopOfACallerThatHasLeftDoesNotCount(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		engine, ctlr, web := onGraceTask(t, dockerexectest.UntilStopped(0))
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		assert.Equal(t, context.Canceled, ctlr.adapter.Shutdown(ctx))
		assert.Zero(t, engine.Requests().Count(stopRequest))
		require.NoError(t, ctlr.Shutdown(t.Context()))
		assert.Equal(t, "POST /containers/"+web.ID()+"/stop", engine.Requests()[len(engine.Requests())-1].String())
	})
}

// A container that the engine does not show, or of which it does not answer in time, is
// killed in time all the same.
func TestAContainerThatCannotBeInspectedIsKilledInTime(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]dockerexectest.Fault{
		"400": dockerexectest.Refuse(http.StatusBadRequest, "invalid name"),
		"401": dockerexectest.Refuse(http.StatusUnauthorized, "who are you"),
		"403": dockerexectest.Refuse(http.StatusForbidden, "authorization denied by plugin"),
		"501": dockerexectest.Refuse(http.StatusNotImplemented, "not supported"),
		"cut": dockerexectest.Drop(), "hanging": dockerexectest.Slow(2 * time.Hour),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T) {
				var signals signalLog
				engine, ctlr, _ := onGraceTask(t, signals.program(time.Hour))
				engine.FailNext(stopRequest, dockerexectest.Refuse(http.StatusInternalServerError, "something is wrong"))
				engine.FailAll(inspectRequest, fault)
				untilFirstMinute()
				require.True(t, exec.IsTemporary(ctlr.Shutdown(t.Context())))
				require.NoError(t, ctlr.Shutdown(t.Context()))
				assert.Equal(t, []string{"KILL 1m17s"}, signals.got())
			})
		})
	}
}

// The client says "Cannot connect" of a connection that was refused, of one that did not
// come about in time, and of an answer that did not come in time. Only the last request
// was sent.
func TestWhetherAStopGotAConnection(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name  string
		dial  func(context.Context) (net.Conn, error) // of the first stop
		stops int                                     // that the engine sees
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
			bubble(t, func(t *testing.T) {
				engine, _, _ := onGraceTask(t, dockerexectest.IgnoreStop())
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				first := &http.Transport{DisableKeepAlives: true, ResponseHeaderTimeout: 5 * time.Second,
					DialContext: func(dialing context.Context, _, _ string) (net.Conn, error) { return test.dial(dialing) }}
				tried := false
				client := through(t, engine, func(r *http.Request, next http.RoundTripper) (*http.Response, error) {
					if strings.HasSuffix(r.URL.Path, "/stop") && !tried {
						tried = true
						return first.RoundTrip(r)
					}
					return next.RoundTrip(r)
				})
				adapter := adapterOf(t, NewEngine(client, WithRequestTimeout(time.Second)), graceTask())
				err := adapter.Shutdown(ctx)
				assert.True(t, exec.IsTemporary(err), err)
				require.NoError(t, adapter.Shutdown(ctx))
				assert.Equal(t, test.stops, engine.Requests().Count(stopRequest))
				assert.Equal(t, 1-test.stops, engine.Requests().Count(killRequest))
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
				client.containerStop = func(context.Context, string, container.StopOptions) error { return test.err }
				client.inspecting(exitedWith(0), nil)
				adapter := newTestAdapter(t, client, plainTask())
				require.Error(t, adapter.Shutdown(t.Context()))
				assert.Equal(t, test.sent, adapter.Shutdown(t.Context()) == nil)
				second := map[bool]string{true: "ContainerInspect web.1.taskid", false: "ContainerStop web.1.taskid"}[test.sent]
				assert.Equal(t, []string{"ContainerStop web.1.taskid", second}, client.called())
			})
		})
	}
}

// Whoever calls Start, and however often: a container is started once.
func TestAContainerIsStartedOnce(t *testing.T) {
	t.Parallel()
	type adapters func(...Option) *ContainerAdapter
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
