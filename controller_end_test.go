package dockerexec

import (
	"context"
	"errors"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/docker/docker/api/types/container"
	gogotypes "github.com/gogo/protobuf/types"
	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/moby/swarmkit/v2/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// methods are those that end with their context and with Close.
var methods = []struct {
	name string
	call func(context.Context, *controller) error
}{
	{"Update", func(ctx context.Context, c *controller) error { return c.Update(ctx, plainTask()) }},
	{"Prepare", func(ctx context.Context, c *controller) error { return c.Prepare(ctx) }},
	{"Start", func(ctx context.Context, c *controller) error { return c.Start(ctx) }},
	{"Wait", func(ctx context.Context, c *controller) error { return c.Wait(ctx) }},
	{"Shutdown", func(ctx context.Context, c *controller) error { return c.Shutdown(ctx) }},
	{"Terminate", func(ctx context.Context, c *controller) error { return c.Terminate(ctx) }},
	{"Remove", func(ctx context.Context, c *controller) error { return c.Remove(ctx) }},
	{"Logs", func(ctx context.Context, c *controller) error {
		return c.Logs(ctx, exec.LogPublisherFunc(func(context.Context, api.LogMessage) error { return nil }), api.LogSubscriptionOptions{Follow: true})
	}},
	{"ContainerStatus", func(ctx context.Context, c *controller) error { _, err := c.ContainerStatus(ctx); return err }},
	{"PortStatus", func(ctx context.Context, c *controller) error { _, err := c.PortStatus(ctx); return err }},
}

func TestAfterCloseMethodsSaySo(t *testing.T) {
	t.Parallel()
	for _, method := range methods {
		t.Run(method.name, func(t *testing.T) {
			t.Parallel()
			sim := newSimEngine(t)
			ctlr := newSimController(t, sim, plainTask())
			require.NoError(t, ctlr.Close())
			assert.Equal(t, exec.ErrControllerClosed, method.call(t.Context(), ctlr))
			assert.Empty(t, sim.called())
		})
	}
}

// A context that ended comes bare, whatever the client makes of it.
func TestEachMethodEndsWithItsContextAndWithClose(t *testing.T) {
	t.Parallel()
	for _, method := range methods {
		if method.name == "Update" {
			continue // does not block
		}
		for _, test := range []struct {
			name string
			end  func(*controller, context.CancelFunc)
			ctx  func(context.Context) (context.Context, context.CancelFunc)
			want error
		}{
			{"cancelled", func(_ *controller, cancel context.CancelFunc) { cancel() }, context.WithCancel, context.Canceled},
			{"deadline", func(*controller, context.CancelFunc) {}, func(ctx context.Context) (context.Context, context.CancelFunc) {
				return context.WithTimeout(ctx, time.Minute)
			}, context.DeadlineExceeded},
			{"closed", func(c *controller, _ context.CancelFunc) { assert.NoError(t, c.Close()) }, context.WithCancel, exec.ErrControllerClosed},
		} {
			t.Run(method.name+" "+test.name, func(t *testing.T) {
				t.Parallel()
				bubble(t, func(t *testing.T) {
					sim := newSimEngine(t)
					sim.latency = time.Hour
					ctlr := newSimController(t, sim, plainTask(), WithRequestTimeout(0))
					ctx, cancel := test.ctx(t.Context())
					defer cancel()
					done := asynchronously(func() error { return method.call(ctx, ctlr) })
					time.Sleep(time.Minute - time.Nanosecond)
					before := time.Now()
					test.end(ctlr, cancel)
					assert.Equal(t, test.want, done())
					assert.LessOrEqual(t, time.Since(before), time.Second)
				})
			})
		}
	}
}

func TestCloseMayBeCalledAtOnce(t *testing.T) {
	t.Parallel()
	ctlr := newSimController(t, newSimEngine(t), plainTask())
	var all []func() error
	for range 20 {
		all = append(all, asynchronously(ctlr.Close))
	}
	for _, err := range all {
		require.NoError(t, err())
	}
}

// An agent that stops ends its contexts and calls nothing.
func TestNothingWaitsForClose(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) { // which fails if a goroutine is left
		sim := newSimEngine(t)
		sim.latency = time.Second
		ctx, cancel := context.WithCancel(t.Context())
		ctlr, _ := runningTask(t, sim, plainTask())
		var all []func() error
		for _, method := range methods {
			if method.name == "Wait" || method.name == "Logs" {
				all = append(all, asynchronously(func() error { return method.call(ctx, ctlr) }))
			}
		}
		preparing := newSimController(t, sim, func() *api.Task { task := plainTask(); task.ID = "another"; return task }())
		all = append(all, asynchronously(func() error { return preparing.Prepare(ctx) }))
		time.Sleep(2500 * time.Millisecond) // within the create
		cancel()
		for _, err := range all {
			assert.Equal(t, context.Canceled, err())
		}
	})
}

func TestShutdownEndsAPull(t *testing.T) {
	t.Parallel()
	for name, stop := range map[string]func(*controller, context.Context) error{"Shutdown": (*controller).Shutdown, "Terminate": (*controller).Terminate} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T) {
				sim := newSimEngine(t)
				pulls := 0
				sim.pulling = func(ctx context.Context) error {
					if pulls++; pulls > 1 {
						return nil
					}
					<-ctx.Done()
					return ctx.Err()
				}
				ctlr := newSimController(t, sim, plainTask())
				prepare := asynchronously(func() error { return ctlr.Prepare(t.Context()) })
				synctest.Wait()
				require.NoError(t, stop(ctlr, t.Context()))
				assert.Equal(t, context.Canceled, prepare())
				assert.Empty(t, sim.left())

				// The pull that was ended is not remembered.
				require.NoError(t, ctlr.Prepare(t.Context()))
				assert.Equal(t, 2, pulls)
				assert.Equal(t, []string{"container web.1.taskid"}, sim.left())
			})
		})
	}
}

// A making call is not given up: a Shutdown meanwhile waits for it, and so stops
// what was started.
func TestShutdownWaitsForAStart(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		sim := newSimEngine(t)
		ctlr := newSimController(t, sim, plainTask())
		require.NoError(t, ctlr.Prepare(t.Context()))
		sim.latency, sim.slow = time.Second, 5*time.Second
		start := asynchronously(func() error { return ctlr.Start(t.Context()) })
		time.Sleep(2500 * time.Millisecond)
		require.NoError(t, ctlr.Shutdown(t.Context()))
		assert.Equal(t, context.Canceled, start())
		sim.with(taskName, func(c *simContainer) { assert.Equal(t, container.StateExited, c.state.Status) })
	})
}

func TestPrepareReturnsAtOnceAndTheNextGoesOn(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		sim := newSimEngine(t)
		sim.latency = time.Second
		ctlr := newSimController(t, sim, plainTask())
		ctx, cancel := context.WithTimeout(t.Context(), 2500*time.Millisecond) // within the create
		defer cancel()
		assert.Equal(t, context.DeadlineExceeded, ctlr.Prepare(ctx))
		assert.Equal(t, exec.ErrTaskPrepared, ctlr.Prepare(t.Context()))
		assert.Equal(t, []string{
			"ImagePull example/web:1", "ContainerCreate web.1.taskid", "ContainerInspect web.1.taskid",
		}, sim.called())
	})
}

// A create of which the answer is lost, and then the engine, is found again.
func TestACreateWithoutAnAnswerIsFound(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		sim := newSimEngine(t)
		lost := false
		sim.lost = func(call string) error {
			if call == "ContainerCreate web.1.taskid" && !lost {
				lost = true
				return errAway
			}
			return nil
		}
		ctlr, _ := runningTask(t, sim, plainTask())
		assert.Equal(t, []string{
			"ImagePull example/web:1", "ContainerCreate web.1.taskid",
			"ContainerInspect web.1.taskid", // found: neither pulled nor created again
		}, sim.called()[:3])
		assert.Len(t, sim.called(), 7)
		sim.exit(taskName, 0)
		require.NoError(t, ctlr.Wait(t.Context()))
		require.NoError(t, ctlr.Remove(t.Context()))
		assert.Empty(t, sim.left())
	})
}

func TestLogsArePublished(t *testing.T) {
	t.Parallel()
	client := newFakeClient(t)
	statuses(client, "exited")
	client.containerLogs = func(_ context.Context, _ string, o container.LogsOptions) (io.ReadCloser, error) {
		assert.Equal(t, container.LogsOptions{ShowStderr: true, Timestamps: true, Since: "5.000000006", Tail: "7"}, o)
		return (&fakeLog{records: twoLines}).open(container.LogsOptions{ShowStderr: true}, -1, nil), nil
	}
	ctlr := newController(newTestAdapter(t, client, plainTask()), api.TaskStateNew)
	var sink logSink
	require.NoError(t, ctlr.Logs(t.Context(), &sink, api.LogSubscriptionOptions{
		Streams: []api.LogStream{api.LogStreamStderr}, Since: &gogotypes.Timestamp{Seconds: 5, Nanos: 6}, Tail: -8,
	}))
	assert.Equal(t, []string{"stderr two\n"}, sink.lines())
}

func TestLogOptionsThatAreRefused(t *testing.T) {
	t.Parallel()
	err := newController(newTestAdapter(t, newFakeClient(t), plainTask()), api.TaskStateNew).Logs(t.Context(), &logSink{}, api.LogSubscriptionOptions{Tail: 1})
	require.ErrorContains(t, err, "tail relative to start of logs not supported via docker API")
}

// A service's log is asked of all its tasks, those that are still pulled and those
// that are removed too. SwarmKit logs each error.
func TestLogsOfNoContainerAreEmpty(t *testing.T) {
	t.Parallel()
	client := newFakeClient(t)
	client.containerInspect = func(context.Context, string) (container.InspectResponse, error) {
		return container.InspectResponse{}, errors.New("Error response from daemon: No such container: " + taskName)
	}
	require.NoError(t, newController(newTestAdapter(t, client, plainTask()), api.TaskStateNew).Logs(t.Context(), &logSink{}, api.LogSubscriptionOptions{}))
}
