package dockerexec

import (
	"context"
	stderrors "errors"
	"io"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/events"
	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/moby/swarmkit/v2/api"
	"github.com/moby/swarmkit/v2/log"
	"github.com/pkg/errors"
)

// Inspect returns the engine's record of the container. The secrets of the task are
// taken out of its State.Error. Its State is never nil: an answer without a state is an
// error. If there is no such container, [IsUnknownContainer] recognises the error.
func (a *ContainerAdapter) Inspect(ctx context.Context) (answer container.InspectResponse, err error) {
	ctx, end := a.begin(ctx, methodInspect)
	defer end(&err)
	answer, err = a.inspect(ctx)
	return a.checkInspect(ctx, answer, err)
}

// checkInspect turns the engine's answer to an inspect into the result of Inspect, and
// notes the container's ID.
func (a *ContainerAdapter) checkInspect(ctx context.Context, answer container.InspectResponse, err error) (container.InspectResponse, error) {
	if err != nil {
		return container.InspectResponse{}, engineError(ctx, err, "inspect container %s", a.name)
	}
	if answer.ContainerJSONBase == nil || answer.State == nil {
		return container.InspectResponse{}, errors.Errorf("inspect container %s: the engine's answer has no state", a.name)
	}
	if a.checkOwner(answer) == nil {
		a.noteContainer(answer.ID)
		a.noteFiles(answer)
		a.ownGrace.Store(ownGrace(answer))
	}
	if set, _ := isSet(answer.State.StartedAt); set {
		a.startedAt.Store(&answer.State.StartedAt)
	}
	return a.hideInState(withDockersState(answer)), nil
}

// hideInState takes secrets out of the engine's error about the container, which becomes
// the text of an exit error.
func (a *ContainerAdapter) hideInState(answer container.InspectResponse) container.InspectResponse {
	if answer.State.Error == "" {
		return answer
	}
	base, state := *answer.ContainerJSONBase, *answer.State
	state.Error = a.scrubber().hideIn(state.Error, "")
	base.State, answer.ContainerJSONBase = &state, &base
	return answer
}

// Wait waits until the task's container has exited or is dead. It returns the engine's
// record of the container; [ExitError] reads its exit code. While the container is
// created, running, paused or restarting, Wait goes on waiting. A container that is
// created and has FinishedAt set has exited: its engine was killed during the start and
// did not see the exit.
//
// Wait returns [ErrContainerDestroyed], bare, if there is no container, if the container
// is being removed, or if only another container with its name is left. A container that
// was renamed is still the task's. Wait returns ctx.Err(), bare, if ctx ends. Any other
// error is the engine's answer to an inspect. It does not mean that the container has
// stopped: call Wait again.
//
// An engine that is away does not end Wait. Meanwhile Wait makes no request: only the
// event stream, which all adapters of the [Engine] share, looks for the engine. An exit
// in that time is reported once the stream is open again. An inspect that fails for a
// passing fault does not end Wait either: it is made again. If no answer came within
// the request time-out, one warning is logged, unless the event stream is refused.
//
// Wait inspects the container:
//
//   - After every event of the container.
//   - When the stream has been opened, and a second later. If the stream broke twice in a
//     row within a second of its opening, an opening causes an inspect only every ten seconds.
//   - Every five minutes.
//   - Every ten seconds while the stream is refused. A hundred tasks then make ten requests
//     a second.
//
// The last two intervals vary by a tenth. The stream is refused if the engine, or a proxy in front
// of it, answers the request for the stream with an error. It also counts as refused if the
// request has had no answer for five seconds, until the answer comes. An answer such as 503
// counts only once the stream has been lost for a minute.
func (a *ContainerAdapter) Wait(ctx context.Context) (container.InspectResponse, error) {
	defer a.waits(ctx, waitExit)()
	answer, err := a.watch(ctx, nil, atEnd)
	if err != nil {
		a.noteEnd(ctx, endCauseOf(err))
	} else {
		a.noteEnd(ctx, endCauseOf(exitOf(answer, false)))
	}
	return answer, err
}

// watch inspects the task's container again and again, until look reports true or an
// error, and returns the last answer. It inspects as Wait does. The State that look
// gets is never nil.
//
// The errors are those of Wait. But mayRepeat gets each error of an inspect. If mayRepeat
// reports true, watch logs one warning and inspects again, as after a passing fault.
// mayRepeat may be nil.
func (a *ContainerAdapter) watch(ctx context.Context, mayRepeat func(error) bool, look func(container.InspectResponse) (bool, error)) (container.InspectResponse, error) {
	var none container.InspectResponse
	stream := &a.engine.stream
	sub := a.subscriber()
	sub.hints = make(chan bool, 1)
	if err := stream.subscribe(ctx, sub); err != nil {
		return none, err
	}
	defer stream.leave(sub)

	var (
		pinned string // the container's ID
		pauses backoff
		warned time.Time // when the inspect that caused the warning began; zero: no warning since the last answer
	)
	warn := func(began time.Time) { // zero: the container is inspected again, or nobody waits for it any more
		switch {
		case warned.IsZero() && !began.IsZero():
			a.engine.telemetry.uninspected.Add(ctx, 1)
		case !warned.IsZero() && began.IsZero():
			a.engine.telemetry.uninspected.Add(ctx, -1)
		}
		warned = began
	}
	defer warn(time.Time{})
	for {
		if err := stream.untilOpen(ctx, sub); err != nil {
			return none, err
		}
		sub.dropHint() // this inspect serves it
		asked := time.Now()
		var answer container.InspectResponse
		var err error
		onOwnStack(func() { answer, err = a.inspectPinned(ctx, &pinned) })
		next := jittered(inspectInterval(stream))
		switch {
		case err == nil:
			pauses.reset()
			if !warned.IsZero() {
				log.G(a.logContext(ctx)).Infof("container inspected again after %v", time.Since(warned).Round(time.Millisecond))
				warn(time.Time{})
			}
			if done, err := look(answer); err != nil {
				return none, err
			} else if done {
				return answer, nil
			}
		case ctx.Err() != nil:
			return none, ctx.Err()
		case mayRepeat != nil && mayRepeat(err), isPassing(err):
			// A proxy that refuses the stream may refuse inspects too, for as long as
			// the engine restarts. Then wait for refusedInterval, not for the pause.
			if pause := burstWindow + pauses.next(); !isPassing(err) || !stream.isRefused() {
				next = pause
			}
			logger := log.G(a.logContext(ctx)).WithError(err)
			// A refused stream has already logged a warning. An inspect that hangs has
			// not, so warn here: the engine may hang on this container alone.
			var late requestTimeoutError
			hangs := stderrors.As(err, &late) && !stream.isRefused()
			if warned.IsZero() && (!isPassing(err) || hangs) {
				warn(asked)
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

// inspectPinned inspects the task's container, and pins the first ID that it finds. A
// container with another ID is not the one that was asked about.
func (a *ContainerAdapter) inspectPinned(ctx context.Context, pinned *string) (answer container.InspectResponse, err error) {
	ctx, end := a.begin(ctx, methodInspect)
	defer end(&err)
	answer, err = a.inspect(ctx)
	if isContainerGone(err) && *pinned != "" && *pinned != a.knownID() {
		answer, err = a.inspectAs(ctx, *pinned)
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

// Events subscribes to the events of the task's container. All adapters of an [Engine]
// share one request. Events returns once that request is established. While the engine
// is away, or refuses the request, Events waits, as long as ctx allows. Its only error
// is ctx.Err(), bare. Any number of subscriptions may exist at the same time.
//
// The first channel delivers the events create, start, kill, stop, die, oom, destroy,
// rename, pause, unpause and health_status. It delivers each once, in the engine's
// order. All events that happen after Events has returned are delivered. Events from
// shortly before the return may come first, and so may events from an outage during which
// Events waited. The channel holds 8 events. It is never closed. A slow reader does not
// delay other subscribers.
//
// An event is a hint, and inspect is the truth: a label of the container can override
// any attribute of the event except "name". The attributes are shared with other
// subscribers, so do not change them.
//
// The second channel delivers nothing. It is closed, once, when no more events follow.
// There are three reasons: events may have been lost on the way from the engine; a
// ninth event found the first channel full; ctx has ended. If ctx has not ended,
// subscribe again and then inspect, in this order, so that nothing is missed. Events
// that are in the first channel by then can still be read. A slow reader delays nobody
// else. A reader that stops must end ctx.
//
// An event reaches a task in one of two ways:
//
//   - Actor.Attributes has no label [LabelTaskID], and its "name" is the container's
//     name ([ContainerAdapter.ContainerName]).
//   - The label has the task's ID. In addition, either "name" is the container's name,
//     or Actor.ID is the container's ID, as the adapter's last inspect saw it. So a
//     renamed container is found by its ID.
//
// Engines send the name, the label and the ID. An event reaches no task by its ID alone
// or by its label alone. So a fake client must send one of the two combinations above. A
// fake's Events may return nil channels, which never deliver anything:
// [ContainerAdapter.Wait] then inspects at its start, a second later, and every five
// minutes.
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

// subscriber returns a subscriber to the events of the task's container. The caller
// gives it its channels.
func (a *ContainerAdapter) subscriber() *subscriber {
	return &subscriber{task: a.taskID, name: a.name, id: &a.containerID, hide: a.hide}
}

// awaitStart waits until the container has been started, and then reports true. seen is
// the ID of the container as the caller saw it before, or empty. If another container
// has the name by now, it reports true too. If the container was seen and is gone, it
// reports false.
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
		sub.dropHint() // this inspect serves it
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
		if err := sub.untilHint(ctx, jittered(inspectInterval(stream))); err != nil {
			return false, err
		}
	}
}

// Logs returns the container's log as the engine sends it, in one request, without
// a limit of rate or length and without resuming. Each line begins with its time, as
// 2006-01-02T15:04:05.000000000Z, and a space. The stream is multiplexed with the
// engine's 8-byte frame headers, unless the container has a TTY. For the options,
// and for decoded messages, see [ContainerAdapter.PublishLogs].
//
// ctx bounds the reading of the body too, not only the request: when it ends, reads
// fail. The caller closes the reader.
func (a *ContainerAdapter) Logs(ctx context.Context, options api.LogSubscriptionOptions) (io.ReadCloser, error) {
	engineOptions, err := logsOptions(options)
	if err != nil {
		return nil, err
	}
	var body io.ReadCloser
	err = a.onContainer(ctx, func(nameOrID string) error {
		body, err = a.openLogs(ctx, nameOrID, engineOptions)
		return err
	})
	if err != nil {
		return nil, engineError(ctx, err, "logs of container %s", a.name)
	}
	return body, nil
}

// PublishLogs hands each line of the container's log to publisher, in the engine's
// order, one after the other. It reads at most as fast as [WithLogRate] says. A nil
// publisher is an error.
//
// The options: Streams names stdout, stderr or both; empty means both. Lines that are
// older than Since are left out; nil: none is too old. A Tail of 0 is the whole log. A Tail
// of -1 leaves out all lines that the log has so far. A Tail of -n-1 is the last n lines of
// these streams. An engine counts entries, and one long line has several entries. So
// PublishLogs reads the entries twice: first only to count the lines, without a limit of
// rate. With a user's fake, Tail counts entries. A Tail above 0, which counts from the start
// of the log, is refused: the engine's API has no such option. For Follow see below.
//
// A message's Context holds the IDs of the task, its service and its node. Timestamp
// is the engine's time of the line; a line without a time gets that of the line before.
// Stream is stdout or stderr; a TTY has one stream, stdout. Data is the line as the
// container wrote it, with its newline. Engines keep a line of more than 16 KiB in
// pieces; these are joined again, up to 1 MiB. A longer line comes in several messages,
// and only the last one has the newline. Attrs are the labels and variables that the
// container's log options ask for, sorted. The publisher may keep the message.
//
// Without Follow, PublishLogs returns nil at the end of the log. The log of a container that
// has not been started is empty; a container that does not exist is an error, see
// [IsUnknownContainer]. With Follow it waits for the container to be created and
// started, and returns nil once the container has ended and all its lines are
// published, or once it is gone. A passing fault of the engine does not end it: it
// continues where the stream broke off, without losing or repeating a line.
//
// If log rotation drops the last published line before PublishLogs continues, lines after
// that line may be missing too. Then a warning is logged, and the next message has the attribute
// com.dockerexec.log.gap ([AttrLogGap]) with the time of the last published line. If the
// engine's clock was also set back, new lines may be missing until the clock has passed the
// times of all published lines. If the engine's file of the log is damaged (log driver
// json-file), PublishLogs goes on behind the damage, with Follow or without, and reports the
// gap in the same way.
//
// A publisher is called for one message at a time, also if several calls of one Engine have the
// same one: gRPC's streams want that. So a publisher that blocks holds up all calls that
// have it, until their contexts end, and a publisher must not publish to itself. The same one is
// the same pointer, or the same exec.LogPublisherFunc or a copy of it. A struct with a function
// in it is never the same.
//
// If ctx ends, the error is that of ctx, bare. An error of the publisher is returned
// unchanged. Without Follow, a passing fault of the engine is a temporary error. All
// other errors are final: for example, a log driver that cannot be read, or an error
// that the engine reports in the middle of the log.
func (a *ContainerAdapter) PublishLogs(ctx context.Context, options api.LogSubscriptionOptions, publisher exec.LogPublisher) error {
	return a.publishLogsOf(ctx, a, options, publisher)
}

// publishLogsOf is PublishLogs for a target that stands for the adapter.
func (a *ContainerAdapter) publishLogsOf(ctx context.Context, target logTarget, options api.LogSubscriptionOptions, publisher exec.LogPublisher) error {
	first, err := logsOptions(options)
	if err != nil {
		return err
	}
	if publisher == nil {
		return errors.New("dockerexec: the log publisher is nil")
	}
	turn, leave := a.engine.logTurns.enter(publisher)
	defer leave()
	p := newLogPublication(target, a.engine.options.logRate, first, options.Since, publisher, a.engine.telemetry)
	p.turn = turn
	defer p.counts.flush(ctx)
	var pauses backoff
	for {
		done, err := p.pass(ctx)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case done || !first.Follow:
			if releaseErr := p.release(ctx); err == nil {
				err = releaseErr
			}
			return err
		case err != nil:
			p.noteLost(ctx, err)
		}
		p.noteIdle(ctx, err == nil && !p.advanced)
		if p.advanced {
			pauses.reset()
		}
		if err := sleep(ctx, pauses.next()); err != nil {
			return err
		}
	}
}

// checkLogOwner refuses a container that has the task's name but is not the task's. A
// reader of the task's log may have no right to read the log of that container.
func (a *ContainerAdapter) checkLogOwner(answer container.InspectResponse) error {
	if answer.Config == nil || answer.Config.Labels == nil { // a fake's; engines always send them
		return nil
	}
	if a.checkOwner(answer) != nil {
		return errors.Errorf("logs of container %s: it (%s) is not this task's: its label %s is %q", a.name, shortID(answer.ID), LabelTaskID, labelOf(answer))
	}
	return nil
}

func (a *ContainerAdapter) openLogs(ctx context.Context, nameOrID string, options container.LogsOptions) (io.ReadCloser, error) {
	return a.engine.openBody(ctx, a.hide, func(ctx context.Context) (io.ReadCloser, error) {
		return a.engine.client.ContainerLogs(ctx, nameOrID, options)
	})
}

// isReal reports whether the client is a real one, and not a user's fake.
func (a *ContainerAdapter) isReal() bool { return !a.engine.api.isFake }

// longInterval is how often a watch inspects without a hint, give or take a tenth.
const longInterval = 5 * time.Minute

// inspectInterval returns how often a watch inspects now.
func inspectInterval(stream *eventStream) time.Duration {
	if stream.isRefused() {
		return refusedInterval
	}
	return longInterval
}
