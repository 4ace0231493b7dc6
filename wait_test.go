package dockerexec

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/events"
	"github.com/pkg/errors"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// fakeContainer is the inspect side of a fake engine that has one container.
type fakeContainer struct {
	client *fakeClient
	mu     sync.Mutex
	answer container.InspectResponse
	err    error
	asked  []string // what each inspect named
}

func newFakeContainer(client *fakeClient, status container.ContainerState) *fakeContainer {
	c := &fakeContainer{client: client, answer: containerIs(status)}
	client.containerInspect = func(_ context.Context, name string) (container.InspectResponse, error) {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.asked = append(c.asked, name)
		return c.answer, c.err
	}
	return c
}

// become has the next inspects answer so.
func (c *fakeContainer) become(answer container.InspectResponse, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.answer, c.err = answer, err
}

func (c *fakeContainer) inspects() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.asked)
}

func exitedWith(code int) container.InspectResponse {
	answer := containerIs("exited")
	answer.State.ExitCode = code
	return answer
}

// waiting is a Wait in its own goroutine.
type waiting struct {
	answer container.InspectResponse
	err    error
	took   time.Duration
	done   chan struct{}
}

func startWait(ctx context.Context, adapter *ContainerAdapter) *waiting {
	w := &waiting{done: make(chan struct{})}
	begin := time.Now()
	go func() {
		defer close(w.done)
		w.answer, w.err = adapter.Wait(ctx)
		w.took = time.Since(begin)
	}()
	return w
}

func (w *waiting) over() bool { return isClosed(w.done) }

// settled lets the stream open and the inspects that belong to it pass.
func settled() {
	time.Sleep(2 * proofTime)
	synctest.Wait()
}

// The state that inspect shows is what counts.
func TestWaitByState(t *testing.T) {
	t.Parallel()
	dead := containerIs("dead")
	dead.State.ExitCode = 137
	for _, test := range []struct {
		status container.ContainerState
		answer container.InspectResponse
		over   bool
		err    error
	}{
		{"exited", exitedWith(3), true, nil},
		{"exited with 0", exitedWith(0), true, nil},
		{"dead", dead, true, nil},
		{"removing", containerIs("removing"), true, ErrContainerDestroyed},
		{"created", containerIs("created"), false, nil},
		{"running", containerIs("running"), false, nil},
		{"paused", containerIs("paused"), false, nil},
		{"restarting", containerIs("restarting"), false, nil},
		{"of a fake without status", containerIs(""), false, nil},
	} {
		t.Run(test.status, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				client := newFakeClient(t)
				source := newEventSource(client)
				newFakeContainer(client, "").become(test.answer, nil)
				ctx, cancel := context.WithCancel(t.Context())
				wait := startWait(ctx, newTestAdapter(t, client, plainTask()))
				settled()
				// What the engine may replay changes nothing.
				if !test.over {
					source.latest().send(event(plainTask(), "die", at), event(plainTask(), "start", at+1))
					time.Sleep(time.Second)
				}
				assert.Equal(t, test.over, wait.over())
				cancel()
				<-wait.done
				switch {
				case !test.over:
					assert.Equal(t, context.Canceled, wait.err)
				case test.err != nil:
					assert.Equal(t, test.err, wait.err) // bare
					assert.Equal(t, container.InspectResponse{}, wait.answer)
				default:
					require.NoError(t, wait.err)
					assert.Equal(t, test.answer, wait.answer)
				}
				for _, call := range client.called() {
					assert.Regexp(t, `^(Events \d+\.\d{9}|ContainerInspect web\.1\.taskid)$`, call)
				}
			})
		})
	}
}

func TestWaitReportsAnExitAtItsEvent(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		client := newFakeClient(t)
		source := newEventSource(client)
		task := newFakeContainer(client, "running")
		wait := startWait(t.Context(), newTestAdapter(t, client, plainTask()))
		settled()
		task.become(exitedWith(7), nil)
		died := time.Now()
		forged := event(plainTask(), "die", at)
		forged.Actor.Attributes["exitCode"] = "99" // a label can do that
		source.latest().send(forged)
		<-wait.done
		require.NoError(t, wait.err)
		assert.Equal(t, 7, wait.answer.State.ExitCode)
		assert.Equal(t, coalesceTime, time.Since(died))
	})
}

// A renamed container is still the task's, and a new one under its name is
// not.
func TestWaitPinsTheContainer(t *testing.T) {
	t.Parallel()
	unknown := answer{"No such container: " + taskName, cerrdefs.ErrNotFound}
	other := containerIs("running")
	other.ID = "another"
	for _, test := range []struct {
		name           string
		byName, byID   container.InspectResponse
		errName, errID error
		want           error
		code           int
	}{
		{"renamed, exited", container.InspectResponse{}, exitedWith(4), unknown, nil, nil, 4},
		{"removed", container.InspectResponse{}, container.InspectResponse{}, unknown, unknown, ErrContainerDestroyed, 0},
		{"another has the name", other, exitedWith(4), nil, nil, ErrContainerDestroyed, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				client := newFakeClient(t)
				source := newEventSource(client)
				running(client, "running")
				adapter := newTestAdapter(t, client, plainTask())
				wait := startWait(t.Context(), adapter)
				settled()
				client.containerInspect = func(_ context.Context, name string) (container.InspectResponse, error) {
					if name == taskName {
						return test.byName, test.errName
					}
					assert.Equal(t, "id-of-web.1.taskid", name)
					return test.byID, test.errID
				}
				elsewhere := event(plainTask(), "rename", at)
				elsewhere.Actor.Attributes["name"] = "elsewhere"
				source.latest().send(elsewhere)
				<-wait.done
				assert.Equal(t, test.want, wait.err)
				assert.Less(t, wait.took, 3*time.Second)
				if test.want == nil {
					assert.Equal(t, test.code, wait.answer.State.ExitCode)
				}
			})
		})
	}
}

func TestWaitWithoutContainer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		for _, gone := range []error{
			answer{"No such container: " + taskName, cerrdefs.ErrNotFound},
			cerrdefs.ErrNotFound,
			errors.New("no such container"),
		} {
			client := newFakeClient(t)
			newEventSource(client)
			newFakeContainer(client, "").become(container.InspectResponse{}, gone)
			_, err := newTestAdapter(t, client, plainTask()).Wait(t.Context())
			assert.Equal(t, ErrContainerDestroyed, err)
			assert.Len(t, client.called(), 2)
		}
	})
}

// An answer without a state is an error and no panic; so is a refusal.
func TestWaitReportsWhatWillNotPass(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		client := newFakeClient(t)
		newEventSource(client)
		task := newFakeContainer(client, "")
		task.become(container.InspectResponse{}, nil)
		_, err := newTestAdapter(t, client, plainTask()).Wait(t.Context())
		assert.EqualError(t, err, "inspect container web.1.taskid: the engine's answer has no state")
		refused := answer{"authorization denied by plugin", cerrdefs.ErrPermissionDenied}
		task.become(container.InspectResponse{}, refused)
		_, err = newTestAdapter(t, client, plainTask()).Wait(t.Context())
		require.EqualError(t, err, "inspect container web.1.taskid: Error response from daemon: authorization denied by plugin")
		require.ErrorIs(t, err, refused)
	})
}

// The context's error comes back bare, wherever a Wait is.
func TestWaitCancelled(t *testing.T) {
	t.Parallel()
	for name, set := range map[string]func(*fakeClient){
		"waiting for the engine": func(c *fakeClient) { newEventSource(c).refuse(engineAway{}) },
		"waiting for an event":   func(c *fakeClient) { newEventSource(c); running(c, "running") },
		"inspecting": func(c *fakeClient) {
			newEventSource(c)
			c.containerInspect = func(ctx context.Context, _ string) (container.InspectResponse, error) {
				<-ctx.Done()
				return container.InspectResponse{}, errors.Wrap(ctx.Err(), "client")
			}
		},
		"opening the stream": func(c *fakeClient) {
			c.events = func(ctx context.Context, _ events.ListOptions) (<-chan events.Message, <-chan error) {
				<-ctx.Done()
				return nil, nil
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				client := newFakeClient(t)
				set(client)
				ctx, _ := linesOf(t.Context())
				ctx, cancel := context.WithCancel(ctx)
				wait := startWait(ctx, newTestAdapter(t, client, plainTask()))
				time.Sleep(3 * time.Second)
				cancel()
				cancelled := time.Now()
				<-wait.done
				assert.Equal(t, context.Canceled, wait.err)
				assert.Zero(t, time.Since(cancelled))
			})
		})
	}
}

// An engine that takes the request for events and says nothing is asked again
// after the request time-out, so that no task waits for ever.
func TestWaitSurvivesARequestForEventsThatIsNeverAnswered(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		client := newFakeClient(t)
		asked := 0
		client.events = func(ctx context.Context, _ events.ListOptions) (<-chan events.Message, <-chan error) {
			if asked++; asked == 1 {
				<-ctx.Done()
			}
			return make(chan events.Message), make(chan error)
		}
		client.inspecting(inspected("c0", container.StateExited, nil), nil)
		begin := time.Now()
		ended, err := newTestAdapter(t, client, plainTask(), WithRequestTimeout(10*time.Second)).Wait(t.Context())
		require.NoError(t, err)
		assert.Equal(t, container.StateExited, ended.State.Status)
		assert.Less(t, time.Since(begin), 11*time.Second)
		assert.Equal(t, 2, asked)
	})
}
