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

// awaitStart is a pass that reads no log. It returns when the container may have been
// started, or was removed after an earlier pass had seen it. The next pass finds out.
func (p *logPublication) awaitStart(ctx context.Context) (done bool, err error) {
	started, err := p.target.awaitStart(ctx, p.container)
	p.advanced = started
	return err != nil && !exec.IsTemporary(err), err
}

// noteLost logs that the stream broke, once for each outage.
func (p *logPublication) noteLost(ctx context.Context, err error) {
	if p.lost.IsZero() {
		p.lost = time.Now()
		log.G(p.target.logContext(ctx)).WithError(err).Warn("log stream lost; it will be resumed")
	}
}

// maxIdle is how many answers in a row end without a new message before there is a
// warning. One or two are normal when a container ends. But an engine that was killed may
// leave an incomplete record in the log. Engines from 23 on end every answer there.
const maxIdle = 5

// noteIdle logs once that the engine ends the log again and again.
func (p *logPublication) noteIdle(ctx context.Context, idle bool) {
	if p.idle == maxIdle { // it was logged before
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

// noteRestored logs that the engine answers again.
func (p *logPublication) noteRestored(ctx context.Context) {
	if !p.lost.IsZero() {
		log.G(p.target.logContext(ctx)).Infof("log stream restored after %v", time.Since(p.lost).Round(time.Millisecond))
		p.lost = time.Time{}
	}
}

// noteGap reports that messages may be missing before the message with the time at. It
// first publishes the lines that are held: their other pieces may be missing too.
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

// logOverlap is how far before the last message a resumed request begins. Messages of
// one stream are in the order of their times. Messages of different streams may not be:
// an engine takes the time when it reads a line, and may store the line later than a
// newer line of the other stream if the disk is slow.
const logOverlap = 5 * time.Second

// repeatTime bounds the time from the beginning of an answer to its last repeated
// message. An engine sends the stored messages at once. So a message that comes later is
// new, even if its time is old.
const repeatTime = 5 * time.Second

// logCursor knows which messages of a container have been taken, so that a new request
// can continue after them. A request names only a time, and the engine then sends all
// messages from that time on. Many messages may have the same time; the pieces of a
// long line always do. So the cursor counts, for each stream, how many messages of the
// last time it has taken.
//
// The cursor relies on the engine to send the same messages again in the same order. If
// several messages share stream and time, it cannot tell them apart. Then a resume may
// deliver messages that the tail excluded, or report the wrong ones as lost.
//
// The clock of an engine may be set back. Then a resumed answer begins with messages
// from before that moment, and their times are later than that of the last message. The
// cursor skips them until the last message has come again, or until repeatTime is over. If
// the engine has dropped the last message, the cursor may skip new messages in this way.
type logCursor struct {
	first         container.LogsOptions // the options of the first request
	since         logTime               // older messages are not wanted; zero: all are
	firstAnswered logTime               // when the engine answered first, by the clock of this host
	lastAnswered  time.Time             // when it answered last
	last          api.LogStream         // stream of the last message taken; unknown: none was taken
	streams       [2]streamCursor

	found    bool    // the last message taken has come again, so nothing is missing after it
	gapAfter logTime // time of the last message before a gap

	overlap  time.Duration // how far the last request went back
	taken    bool          // a new message has come since that request
	repeated bool          // a message has come again since that request
}

// streamCursor is the part of a logCursor for one stream.
type streamCursor struct {
	at     logTime // time of the last message taken
	n      int     // how many messages of that time were taken
	latest logTime // the latest time taken; it is later than at if the clock was set back
	skip   int     // how many of the n messages must still come again; -1: no more are expected
}

// begin returns the options of the next request. Call it once for each request.
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
		if c.first.Tail == "0" && c.firstAnswered != (logTime{}) { // nothing from before the first answer, all since then
			options.Tail, options.Since = "", c.firstAnswered.since()
		}
		return options
	}
	// The last answer may have broken off while it still repeated messages. Then go back
	// half as far, so that the next answer repeats fewer messages before a new one.
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

// answered notes that the engine has begun to answer.
func (c *logCursor) answered(now time.Time) {
	c.lastAnswered = now
	if c.firstAnswered == (logTime{}) {
		c.firstAnswered = logTimeOf(now)
	}
}

func (c *logCursor) at(stream api.LogStream) *streamCursor {
	return &c.streams[stream-api.LogStreamStdout]
}

// take reports whether a message is new, and counts it. gap says that messages before
// it may be missing, because the engine has dropped them since the last answer.
func (c *logCursor) take(stream api.LogStream, t logTime) (taken, gap bool) {
	s := c.at(stream)
	if s.skip >= 0 {
		c.repeated = true
		switch order := t.compare(s.at); {
		case order < 0:
			return false, false
		case order == 0 && s.skip > 0:
			if s.skip--; s.skip == 0 {
				s.skip = -1 // everything after it is new
				c.found = c.found || stream == c.last
			}
			return false, false
		case !c.found && t.compare(s.latest) <= 0 && time.Since(c.lastAnswered) < repeatTime: // from before the clock was set back
			return false, false
		}
		s.skip = -1
	}
	if gap = !c.found; gap {
		c.gapAfter = c.at(c.last).at
	}
	c.found, c.taken = true, true
	if c.first.Tail != "" && (c.last == api.LogStreamUnknown || t.compare(c.since) < 0) {
		c.since = t // what the tail excluded must not come with a later answer
	}
	if t != s.at {
		s.at, s.n = t, 0
	}
	s.n++
	if t.compare(s.latest) > 0 {
		s.latest = t
	}
	c.last = stream
	return true, gap
}

// since returns t in the form of the option Since of a request.
func (t logTime) since() string {
	if t.sec < 0 {
		return ""
	}
	return fmt.Sprintf("%d.%09d", t.sec, t.nsec)
}
