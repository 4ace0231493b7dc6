package dockerexec

import (
	"context"
	stderrors "errors"
	"math/rand/v2"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/moby/swarmkit/v2/log"
)

const (
	// inspectInterval is how often a watch inspects without any hint, give or
	// take a tenth.
	inspectInterval = 5 * time.Minute
	// refusedInterval is the same while the engine refuses the event stream.
	refusedInterval = 10 * time.Second
	// coalesceTime is how long a hint waits for the others of a burst: an end is
	// kill, die and stop, milliseconds apart.
	coalesceTime = 20 * time.Millisecond
	// spreadTime is over how long the inspects of all watches are spread when
	// the stream gives every one of them a hint.
	spreadTime = 250 * time.Millisecond
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
// container, whenever the stream was opened, once more proofTime later, and every
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
		select {
		case <-sub.hints: // what it hints at is seen now
		default:
		}
		asked := time.Now()
		answer, err := a.inspectPinned(ctx, &pinned)
		next := jittered(stream.inspectInterval())
		switch {
		case err == nil:
			pauses = backoff{}
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
			if pause := coalesceTime + pauses.next(); !isPassing(err) || !stream.isRefused() {
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
	if a.gone(err) && *pinned != "" {
		answer, err = request(ctx, a.engine, 0, func(ctx context.Context) (container.InspectResponse, error) {
			return a.engine.client.ContainerInspect(ctx, *pinned)
		})
	}
	if a.gone(err) {
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

// untilHint waits for a hint and the rest of its burst, or as long as limit.
func (s *subscriber) untilHint(ctx context.Context, limit time.Duration) error {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case everybody := <-s.hints:
		pause := coalesceTime
		if everybody {
			pause += rand.N(spreadTime)
		}
		timer.Reset(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
		}
	case <-timer.C:
	case <-ctx.Done():
	}
	return ctx.Err()
}
