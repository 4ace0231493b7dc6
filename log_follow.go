package dockerexec

import (
	"context"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/moby/swarmkit/v2/log"
	"github.com/pkg/errors"
)

// awaitStart returns when the container may have been started, or was removed
// after it had been seen: the caller looks. It is a pass that read nothing.
func (p *logPublication) awaitStart(ctx context.Context) (done bool, err error) {
	stream := &p.adapter.engine.stream
	sub := p.adapter.subscriber()
	sub.hints = make(chan bool, 1)
	if err := stream.subscribe(ctx, sub); err != nil {
		return false, err
	}
	defer stream.leave(sub)
	for {
		if err := stream.untilOpen(ctx, sub); err != nil {
			return false, err
		}
		select {
		case <-sub.hints: // what it hints at is seen now
		default:
		}
		answer, err := p.adapter.Inspect(ctx)
		switch {
		case p.adapter.gone(err):
			if p.container != "" {
				return false, nil
			}
		case err != nil:
			return !exec.IsTemporary(err), err
		case !isUnstarted(answer) || p.container != "" && p.container != answer.ID:
			p.advanced = true
			return false, nil
		}
		if err := sub.untilHint(ctx, jittered(stream.inspectInterval())); err != nil {
			return false, err
		}
	}
}

// isOwn refuses a container that has the task's name and is another task's, or
// nobody's: its log is not for those who may read the task's.
func (a *ContainerAdapter) isOwn(answer container.InspectResponse) error {
	if answer.Config == nil || answer.Config.Labels == nil { // a fake's; engines always send them
		return nil
	}
	if a.checkOwner(answer) != nil {
		return errors.Errorf("logs of container %s: it (%s) is not this task's: its label %s is %q", a.config.name(), shortID(answer.ID), LabelTaskID, labelOf(answer))
	}
	return nil
}

// noteLost says once an outage that the stream broke.
func (p *logPublication) noteLost(ctx context.Context, err error) {
	if p.lost.IsZero() {
		p.lost = time.Now()
		log.G(p.adapter.logContext(ctx)).WithError(err).Warn("log stream lost; it will be resumed")
	}
}

// maxIdle is how many answers in a row may end without a new message. One or two do
// when a container ends; engines from 23 on end all of them at a torn record, as an
// engine that was killed may leave.
const maxIdle = 5

// noteIdle says once that the engine ends the log of a container that runs.
func (p *logPublication) noteIdle(ctx context.Context, idle bool) {
	if p.idle == maxIdle { // it has been said
		return
	}
	if !idle {
		p.idle = 0
		return
	}
	if p.idle++; p.idle == maxIdle {
		log.G(p.adapter.logContext(ctx)).WithField("container.id", p.container).Warn("the engine ends the log although the container runs; it is asked again")
	}
}

// noteRestored says that the engine answers again.
func (p *logPublication) noteRestored(ctx context.Context) {
	if !p.lost.IsZero() {
		log.G(p.adapter.logContext(ctx)).Infof("log stream restored after %v", time.Since(p.lost).Round(time.Millisecond))
		p.lost = time.Time{}
	}
}

// noteGap reports that messages before the one of the time at are missing, and
// lets go of lines that will not be completed any more.
func (p *logPublication) noteGap(ctx context.Context, at logTime) error {
	if err := p.release(ctx); err != nil {
		return err
	}
	p.gapAfter = p.cursor.gapAfter
	log.G(p.adapter.logContext(ctx)).WithField("container.id", p.container).
		Warnf("log lines after %s and before %s may be missing: the engine no longer has the last one",
			p.gapAfter.time().Format(time.RFC3339Nano), at.time().Format(time.RFC3339Nano))
	return nil
}
