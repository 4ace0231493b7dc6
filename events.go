package dockerexec

import (
	"context"
	"math"
	"net/http/httptrace"
	"sync/atomic"
	"time"

	"github.com/docker/docker/api/types/events"
	"github.com/docker/docker/api/types/filters"
)

// eventActions are the actions that the stream asks for. An engine takes them
// for prefixes because of health_status, which goes on with the status. None is
// a prefix of exec_create, exec_start and exec_die, which a health check puts
// on the stream at every run.
var eventActions = []events.Action{
	events.ActionCreate, events.ActionStart, events.ActionDie, events.ActionKill, events.ActionStop, events.ActionOOM,
	events.ActionDestroy, events.ActionRename, events.ActionPause, events.ActionUnPause, events.ActionHealthStatus,
}

// Events subscribes to the events of the task's container. All adapters of an
// [Engine] share one request; Events returns once that is established. While the
// engine is away, or refuses the request, it waits, as long as ctx allows; its
// only error is ctx.Err(), bare. Any number of subscriptions may exist at the same
// time.
//
// The first channel delivers the events create, start, kill, stop, die, oom,
// destroy, rename, pause, unpause and health_status, in the engine's order and
// each once: all that happen after the return, and perhaps some from shortly
// before it, or from an outage during which Events waited. Its sender is the shared
// stream; it holds 8 events and is never closed. An event is a hint and inspect is
// the truth: a container's label can override what the engine says in the event's
// attributes, except in "name". The attributes are shared with other subscribers,
// so treat them as read-only.
//
// The second channel delivers nothing. It is closed, once, when no more events will
// follow: events may have been lost on the way from the engine, or a ninth event
// found the first channel full, or ctx has ended. If ctx has not ended, subscribe
// again and then inspect, in this order, so that nothing is missed in between. What
// is in the first channel by then can still be read. A slow reader delays nobody
// else. A reader that stops must end ctx.
//
// An event reaches a task in one of two ways. It has no label
// com.docker.swarm.task.id in Actor.Attributes, and Attributes["name"] is the
// container's name (SERVICE.SLOT.TASKID, or the task's own). Or it has that label
// with the task's ID, and either that name or the ID of the container in Actor.ID,
// as the adapter's last inspect saw it; a renamed container is found by its ID.
// Actor.ID alone, or the label alone, reaches no task. Engines send all three.
//
// A fake client must do the same for its events to arrive. A nil channel from a
// fake's Events never delivers anything, which is allowed: [ContainerAdapter.Wait]
// then inspects at its start, a second later, and every five minutes.
func (a *ContainerAdapter) Events(ctx context.Context) (<-chan events.Message, <-chan struct{}, error) {
	stream := &a.engine.stream
	sub := a.subscriber()
	sub.messages = make(chan events.Message, eventQueue)
	sub.closed = make(chan struct{})
	if err := stream.subscribe(ctx, sub); err != nil {
		return nil, nil, err
	}
	if err := stream.untilOpen(ctx, sub); err != nil {
		stream.leave(sub)
		return nil, nil, err
	}
	stream.leaveAfter(ctx, sub)
	return sub.messages, sub.closed, nil
}

// subscriber is a subscriber to the events of the task's container, for the
// caller to give it a channel.
func (a *ContainerAdapter) subscriber() *subscriber {
	return &subscriber{task: a.config.task.ID, name: a.config.name(), id: &a.containerID}
}

// openedEvents is one request for events.
type openedEvents struct {
	messages <-chan events.Message
	errs     <-chan error
	// settle is how long to watch errs before the request counts as established.
	settle time.Duration
}

// openEvents asks the engine for the events of all tasks' containers, from
// since on.
//
// The client returns when it has the answer's header or has failed, and sends
// the failure a moment later; a fake may never send anything. So silence means
// success, after settleTime, or much later if the request went out and nothing
// came back: then it has failed for certain, and only the error is missing.
func (e *Engine) openEvents(ctx context.Context, since string) (openedEvents, error) {
	if _, err := e.api.get(ctx, e.options.requestTimeout); err != nil {
		return openedEvents{}, err
	}
	filter := filters.NewArgs(filters.Arg("type", string(events.ContainerEventType)), filters.Arg("label", labelTask))
	for _, action := range eventActions {
		filter.Add("event", string(action))
	}
	// The client waits for the answer's header without an end of its own.
	timeout := e.options.requestTimeout
	if timeout <= 0 {
		timeout = math.MaxInt64
	}
	openCtx, cancel := context.WithCancel(ctx) // ends with ctx at the latest
	late := time.AfterFunc(timeout, cancel)
	var asked, answered atomic.Bool
	openCtx = httptrace.WithClientTrace(openCtx, &httptrace.ClientTrace{
		GetConn:              func(string) { asked.Store(true) },
		GotFirstResponseByte: func() { answered.Store(true) },
	})
	opened := openedEvents{settle: settleTime}
	opened.messages, opened.errs = e.client.Events(openCtx, events.ListOptions{Since: since, Filters: filter})
	if !late.Stop() && ctx.Err() == nil {
		return openedEvents{}, requestTimeoutError(timeout)
	}
	if asked.Load() && !answered.Load() {
		opened.settle = time.Second
	}
	return opened, nil
}
