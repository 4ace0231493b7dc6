package dockerexec

import (
	"context"
	"errors"
	"io"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/events"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The engine knows no filter "name"; the label and the actions are what
// narrows the stream. The first request does not ask for all that the
// engine has kept.
func TestEventsRequest(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		client := newFakeClient(t)
		source := newEventSource(client)
		var filter string
		client.events = func(ctx context.Context, options events.ListOptions) (<-chan events.Message, <-chan error) {
			text, err := options.Filters.MarshalJSON()
			assert.NoError(t, err)
			filter = string(text)
			assert.Empty(t, options.Until)
			return source.events(ctx, options)
		}
		subscribe(t.Context(), t, newTestAdapter(t, client, plainTask()))
		assert.JSONEq(t, `{
			"type": {"container": true},
			"label": {"com.docker.swarm.task": true},
			"event": {"create": true, "start": true, "die": true, "kill": true, "stop": true, "oom": true, "destroy": true,
				"rename": true, "pause": true, "unpause": true, "health_status": true}
		}`, filter)
		assert.Equal(t, []string{"946684795.000000000"}, source.since) // five seconds before 2000
	})
}

func TestEventsOfOneTaskInOrder(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		client := newFakeClient(t)
		source := newEventSource(client)
		engine := NewEngine(client)
		var subs []subscribed
		for n := range 2 {
			adapter, err := engine.Adapter(nil, numberedTask(n), nil)
			require.NoError(t, err)
			subs = append(subs, subscribe(t.Context(), t, adapter), subscribe(t.Context(), t, adapter))
		}
		source.latest().send(
			event(numberedTask(0), "create", 1),
			event(numberedTask(1), "create", 2),
			event(numberedTask(0), "start", 3),
			event(numberedTask(0), "health_status: healthy", 3),
			event(numberedTask(7), "die", 4),
			event(numberedTask(0), "die", 5),
		)
		for _, sub := range subs[:2] {
			assert.Equal(t, []string{"create", "start", "health_status: healthy", "die"}, read(sub.messages))
		}
		for _, sub := range subs[2:] {
			assert.Equal(t, []string{"create"}, read(sub.messages))
		}
		assert.Equal(t, 1, source.requests())
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
	synctest.Test(t, func(t *testing.T) {
		client := newFakeClient(t)
		source := newEventSource(client)
		client.containerInspect = func(context.Context, string) (container.InspectResponse, error) {
			return containerIs("running"), nil
		}
		adapter := newTestAdapter(t, client, plainTask())
		sub := subscribe(t.Context(), t, adapter)
		_, err := adapter.Inspect(t.Context())
		require.NoError(t, err)

		renamed := event(plainTask(), "rename", 1)
		renamed.Actor.Attributes["name"] = "elsewhere"
		died := event(plainTask(), "die", 2)
		died.Actor.Attributes["name"] = "elsewhere"
		source.latest().send(renamed, died)
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
		source.refuse(engineAway{})
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
		assert.LessOrEqual(t, took, time.Minute+longestPause+settleTime)
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
		assert.Nil(t, adapter.engine.stream.left, "a stream was started")

		ctx, lines := linesOf(t.Context())
		ctx, cancel := context.WithCancel(ctx)
		sub := subscribe(ctx, t, adapter)
		cancel()
		<-sub.closed
		assert.Equal(t, context.Canceled, source.latest().ctx.Err())
		time.Sleep(time.Minute)
		assert.Equal(t, 1, source.requests())
		assert.Empty(t, lines())

		source.refuse(engineAway{})
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

// containerIs is what an engine says about the container of plainTask.
func containerIs(status container.ContainerState) container.InspectResponse {
	return container.InspectResponse{ContainerJSONBase: &container.ContainerJSONBase{
		ID: "id-of-" + taskName, Name: "/" + taskName, State: &container.State{Status: status},
	}}
}

// running has every inspect answer with one status.
func running(client *fakeClient, status container.ContainerState) {
	client.containerInspect = func(context.Context, string) (container.InspectResponse, error) {
		return containerIs(status), nil
	}
}
