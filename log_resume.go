package dockerexec

import (
	"context"
	"fmt"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/moby/swarmkit/v2/api"
	"github.com/moby/swarmkit/v2/log"
)

// awaitStart is a pass that reads nothing: it returns when the container may have been
// started, or was removed after it had been seen. The caller looks.
func (p *logPublication) awaitStart(ctx context.Context) (done bool, err error) {
	started, err := p.target.awaitStart(ctx, p.container)
	p.advanced = started
	return err != nil && !exec.IsTemporary(err), err
}

// noteLost says once an outage that the stream broke.
func (p *logPublication) noteLost(ctx context.Context, err error) {
	if p.lost.IsZero() {
		p.lost = time.Now()
		log.G(p.target.logContext(ctx)).WithError(err).Warn("log stream lost; it will be resumed")
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
		log.G(p.target.logContext(ctx)).WithField("container.id", p.container).Warn("the engine ends the log although the container runs; it is asked again")
	}
}

// noteRestored says that the engine answers again.
func (p *logPublication) noteRestored(ctx context.Context) {
	if !p.lost.IsZero() {
		log.G(p.target.logContext(ctx)).Infof("log stream restored after %v", time.Since(p.lost).Round(time.Millisecond))
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
	log.G(p.target.logContext(ctx)).WithField("container.id", p.container).
		Warnf("log lines after %s and before %s may be missing: the engine no longer has the last one",
			p.gapAfter.time().Format(time.RFC3339Nano), at.time().Format(time.RFC3339Nano))
	return nil
}

// logOverlap is how far before the last message a resumed request begins. Each
// stream's messages are in the order of their times, those of two streams are
// not: engines take the time as they read a line and keep lines as they get to
// it, which a slow disk delays.
const logOverlap = 5 * time.Second

// repeatTime is how long an answer may take to begin with what has come before. An
// engine sends at once what it has kept, so what comes later is new, even if its time
// is not.
const repeatTime = 5 * time.Second

// logCursor knows which messages of a container have been taken, so that a new
// request can go on behind them. A request can begin at a time only, with all
// messages of that very time, and many messages may share one: the pieces of a
// long line always do. So it counts, for each stream, the messages taken at the
// last time.
//
// It leans on the engine sending the same messages in the same order again, and
// cannot tell messages of one stream and time apart. So of those, what a tail left
// out comes after a break, and what the engine lost of the first ones is taken for
// lost of the last ones. If the engine's clock was set back and the last message is
// lost as well, so is what an answer begins with up to the time from which it was
// set back.
type logCursor struct {
	first   container.LogsOptions // what was asked for at first
	since   logTime               // nothing before it is wanted; zero: all
	opened  logTime               // when the engine answered first, by the clock of this host
	latest  time.Time             // when it answered last
	last    api.LogStream         // stream of the last message taken; unknown: none was
	streams [2]streamCursor

	found    bool    // the last message taken has come again, so none is missing behind it
	gapAfter logTime // of the last message before a gap

	overlap  time.Duration // of the last request
	taken    bool          // something new has come since that
	repeated bool          // something has come again since that
}

type streamCursor struct {
	at   logTime // of the last message taken
	n    int     // messages taken at that time
	max  logTime // the latest time taken; later than at once the clock was set back
	skip int     // how many of these are yet to come again; -1: all that were to come have
}

// begin is to be called for each request and returns its options.
func (c *logCursor) begin() container.LogsOptions {
	for i := range c.streams {
		c.streams[i].skip = -1
		if c.streams[i].n > 0 {
			c.streams[i].skip = c.streams[i].n
		}
	}
	options := c.first
	if c.last == api.LogStreamUnknown {
		c.found = true
		if c.first.Tail == "0" && c.opened != (logTime{}) { // nothing that was there at the time, and all since
			options.Tail, options.Since = "", c.opened.since()
		}
		return options
	}
	// Where an answer broke off before anything new came, one of the same length
	// must get further.
	switch {
	case c.taken || !c.repeated:
		c.overlap = logOverlap
	case c.overlap > time.Millisecond:
		c.overlap /= 2
	default:
		c.overlap = 0
	}
	c.found, c.taken, c.repeated = false, false, false
	from := c.at(c.last).at.add(-c.overlap)
	if from.compare(c.since) < 0 {
		from = c.since
	}
	options.Tail, options.Since = "", from.since()
	return options
}

// answered is to be called when the engine has begun to answer.
func (c *logCursor) answered(now time.Time) {
	c.latest = now
	if c.opened == (logTime{}) {
		c.opened = logTimeOf(now)
	}
}

func (c *logCursor) at(stream api.LogStream) *streamCursor {
	return &c.streams[stream-api.LogStreamStdout]
}

// take reports whether the message is to be taken, and if so whether messages
// before it may be missing: those that the engine has thrown away since.
func (c *logCursor) take(stream api.LogStream, t logTime) (taken, gap bool) {
	s := c.at(stream)
	if s.skip >= 0 {
		c.repeated = true
		switch order := t.compare(s.at); {
		case order < 0:
			return false, false
		case order == 0 && s.skip > 0:
			if s.skip--; s.skip == 0 {
				s.skip = -1 // whatever comes now is new
				c.found = c.found || stream == c.last
			}
			return false, false
		case !c.found && t.compare(s.max) <= 0 && time.Since(c.latest) < repeatTime: // of before the clock was set back
			return false, false
		}
		s.skip = -1
	}
	if gap = !c.found; gap {
		c.gapAfter = c.at(c.last).at
	}
	c.found, c.taken = true, true
	if c.first.Tail != "" && (c.last == api.LogStreamUnknown || t.compare(c.since) < 0) {
		c.since = t // what the tail left out stays out
	}
	if t != s.at {
		s.at, s.n = t, 0
	}
	s.n++
	if t.compare(s.max) > 0 {
		s.max = t
	}
	c.last = stream
	return true, gap
}

// since is t as the engine reads it in a request.
func (t logTime) since() string {
	if t.sec < 0 {
		return ""
	}
	return fmt.Sprintf("%d.%09d", t.sec, t.nsec)
}
