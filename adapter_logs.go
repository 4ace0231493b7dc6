package dockerexec

import (
	"context"
	"io"

	"github.com/docker/docker/api/types/container"
	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/moby/swarmkit/v2/api"
	"github.com/pkg/errors"
)

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
	if _, err := a.engine.api.get(ctx, a.engine.options.requestTimeout); err != nil {
		return nil, a.hide(err)
	}
	body, err := a.engine.client.ContainerLogs(ctx, a.name, engineOptions)
	if err != nil {
		return nil, engineError(ctx, a.hide(err), "logs of container %s", a.name)
	}
	return body, nil
}

// PublishLogs hands each line of the container's log to publisher, in the engine's
// order, one after the other. It reads at most as fast as [WithLogRate] says. A nil
// publisher is an error.
//
// The options: Streams names stdout, stderr or both; empty means both. Lines that are
// older than Since are left out; with nil none is. A Tail of 0 is the whole log, -1 is
// nothing of what the log has so far, and -n-1 is the last n lines. A Tail above 0
// counts from the start of the log. It is refused, because the engine's API has no such
// option. For Follow see below.
//
// A message's Context holds the IDs of the task, its service and its node. Timestamp
// is the engine's time of the line; a line without a time gets that of the line before.
// Stream is stdout or stderr; a TTY has one stream, stdout. Data is the line as the
// container wrote it, with its newline. Engines keep a line of more than 16 KiB in
// pieces; these are joined again, up to 1 MiB. A longer line comes in several messages,
// and only the last one has the newline. Attrs are the labels and variables that the
// container's log options ask for, sorted. The publisher may keep the message.
//
// Without Follow, PublishLogs returns nil at the end of the log. A container that has
// not been started has none; a container that does not exist is an error, see
// [IsUnknownContainer]. With Follow it waits for the container to be created and
// started, and returns nil once the container has ended and all its lines are
// published, or once it is gone. A passing fault of the engine does not end it: it
// continues where the stream broke off, without losing or repeating a line. If the
// engine has dropped the last line by then (log rotation), lines after it may be missing
// too. Then there is a warning in the log, and the next message has the attribute
// com.dockerexec.log.gap ([AttrLogGap]) with the time of that last line. If the engine's
// clock was set back too, lines may be missing whose times that clock had shown before.
//
// If ctx ends, the error is that of ctx, bare. An error of the publisher is returned
// unchanged. Without Follow, a passing fault of the engine is a temporary error. All
// other errors are final: for example, a log driver that cannot be read, or an error
// that the engine reports in the middle of the log.
func (a *ContainerAdapter) PublishLogs(ctx context.Context, options api.LogSubscriptionOptions, publisher exec.LogPublisher) error {
	first, err := logsOptions(options)
	if err != nil {
		return err
	}
	if publisher == nil {
		return errors.New("dockerexec: the log publisher is nil")
	}
	p := newLogPublication(a, a.engine.options.logRate, first, options.Since, publisher)
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
	body, err := a.engine.client.ContainerLogs(ctx, nameOrID, options)
	return body, a.hide(err)
}

func (a *ContainerAdapter) logMessageContext() api.LogContext {
	return api.LogContext{ServiceID: a.serviceID, NodeID: a.nodeID, TaskID: a.taskID}
}
