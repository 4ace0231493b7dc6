package dockerexec

import (
	"context"
	stderrors "errors"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/events"
	"github.com/moby/swarmkit/v2/log"
)

// Wait waits until the task's container has exited, or is dead, and returns the
// engine's record of it, with the exit code in State; see [ExitError]. It goes on
// waiting while the container is created, running, paused or restarting. A container
// that is created and has a time of its end has exited: its engine was killed during
// the start and did not see it.
//
// It returns [ErrContainerDestroyed], bare, if there is no container, if it is
// being removed, or if another one has taken its name since Wait first looked. It
// returns ctx.Err(), bare, if ctx ends. Any other error is the engine's answer to an
// inspect, and does not mean that the container has stopped: call Wait again.
//
// An inspect that is not answered within the request time-out does not end Wait: it is
// made again, with one warning in the log until one is answered, unless the event
// stream is refused. Nor does an engine that is away end Wait. Wait makes no request
// meanwhile: only the stream that all adapters of the [Engine] share looks for the
// engine. An exit during that time is reported once the stream is open again.
//
// Wait inspects after every event of the container, when the stream has been opened
// and a second later, and otherwise every five minutes, give or take a tenth. Where
// the engine, or a proxy in front of it, answers but refuses the stream, it inspects
// every ten seconds: a hundred tasks then make ten requests a second. A passing fault,
// or no answer within the request time-out, counts as a refusal once the stream has
// been lost for a minute.
func (a *ContainerAdapter) Wait(ctx context.Context) (container.InspectResponse, error) {
	return a.watch(ctx, nil, atEnd)
}

// watch hands look what the engine says about the task's container until look
// reports true, or an error, and returns the last answer. It looks first when
// it is on the event stream and that is open, then after each event of the
// container, whenever the stream was opened, once more settleWindow later, and every
// inspectInterval. State is never nil in what look gets. The errors are those of
// Wait, but those of an inspect that are odd: as after a fault that passes it is
// inspected again then, with pauses and one warning. The same warning is given if
// no answer comes in time, unless the stream is refused.
func (a *ContainerAdapter) watch(ctx context.Context, odd func(error) bool, look func(container.InspectResponse) (bool, error)) (container.InspectResponse, error) {
	var none container.InspectResponse
	stream := &a.engine.stream
	sub := a.subscriber()
	sub.hints = make(chan bool, 1)
	if err := stream.subscribe(ctx, sub); err != nil {
		return none, err
	}
	defer stream.leave(sub)

	var (
		pinned   string // the container's ID
		pauses   backoff
		oddSince time.Time // since when the answers have been odd, or late; zero: they are not
	)
	for {
		if err := stream.untilOpen(ctx, sub); err != nil {
			return none, err
		}
		sub.dropHint() // what it hints at is seen now
		asked := time.Now()
		answer, err := a.inspectPinned(ctx, &pinned)
		next := jittered(stream.inspectInterval())
		switch {
		case err == nil:
			pauses.reset()
			if !oddSince.IsZero() {
				log.G(a.logContext(ctx)).Infof("container inspected again after %v", time.Since(oddSince).Round(time.Millisecond))
				oddSince = time.Time{}
			}
			if done, err := look(answer); err != nil {
				return none, err
			} else if done {
				return answer, nil
			}
		case ctx.Err() != nil:
			return none, ctx.Err()
		case isPassing(err), odd != nil && odd(err):
			// Who refuses the stream may answer so to everything, an engine's whole
			// restart long: then the interval will do.
			if pause := burstWindow + pauses.next(); !isPassing(err) || !stream.isRefused() {
				next = pause
			}
			logger := log.G(a.logContext(ctx)).WithError(err)
			// An engine that answers nothing refuses the stream too, and of that it is
			// told. Else nobody tells of one that hangs, be it on this container alone.
			var late requestTimeoutError
			hangs := stderrors.As(err, &late) && !stream.isRefused()
			if oddSince.IsZero() && (!isPassing(err) || hangs) {
				oddSince = asked
				logger.Warn("container not inspected; it will be looked at again")
			} else {
				logger.Debug("container not inspected, trying again")
			}
		default:
			return none, err
		}
		if err := sub.untilHint(ctx, next); err != nil {
			return none, err
		}
	}
}

// inspectPinned inspects the task's container by its name, and pins the ID that
// it finds first: another one is not the container that was asked about. If the
// name is gone, the container may have been renamed.
func (a *ContainerAdapter) inspectPinned(ctx context.Context, pinned *string) (container.InspectResponse, error) {
	answer, err := a.inspect(ctx)
	if isContainerGone(err) && *pinned != "" {
		answer, err = request(ctx, a.engine, 0, func(ctx context.Context) (container.InspectResponse, error) {
			return a.engine.client.ContainerInspect(ctx, *pinned)
		})
	}
	if isContainerGone(err) {
		return answer, ErrContainerDestroyed
	}
	if answer, err = a.checkInspect(ctx, answer, err); err != nil {
		return answer, err
	}
	if *pinned == "" {
		*pinned = answer.ID
	}
	if answer.ID != "" && answer.ID != *pinned {
		return answer, ErrContainerDestroyed
	}
	return answer, nil
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
	return &subscriber{task: a.taskID, name: a.name, id: &a.containerID}
}

// awaitStart waits until the container has been started, or is another one than the
// one seen before, and then reports true. It reports false if the container was seen
// and is gone.
func (a *ContainerAdapter) awaitStart(ctx context.Context, seen string) (started bool, err error) {
	stream := &a.engine.stream
	sub := a.subscriber()
	sub.hints = make(chan bool, 1)
	if err := stream.subscribe(ctx, sub); err != nil {
		return false, err
	}
	defer stream.leave(sub)
	for {
		if err := stream.untilOpen(ctx, sub); err != nil {
			return false, err
		}
		sub.dropHint() // what it hints at is seen now
		answer, err := a.Inspect(ctx)
		switch {
		case isContainerGone(err):
			if seen != "" {
				return false, nil
			}
		case err != nil:
			return false, err
		case !isUnstarted(answer) || seen != "" && seen != answer.ID:
			return true, nil
		}
		if err := sub.untilHint(ctx, jittered(stream.inspectInterval())); err != nil {
			return false, err
		}
	}
}
