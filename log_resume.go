package dockerexec

import (
	"cmp"
	"context"
	"fmt"
	"hash/maphash"
	"slices"
	"strconv"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/moby/swarmkit/v2/api"
	"github.com/moby/swarmkit/v2/log"
)

// awaitStart is a pass that reads no log. It returns when the container may have been
// started, or was removed after an earlier pass had seen it. The next pass finds out which.
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

// maxIdle is how many answers in a row end without a new message before there is a warning.
// One or two are normal when a container ends. But a killed engine may leave an incomplete
// record in the log, where engines from 23 on end every answer.
const maxIdle = 5

// noteIdle logs once that the engine ends the log again and again.
func (p *logPublication) noteIdle(ctx context.Context, idle bool) {
	if p.idle == maxIdle { // it was logged before
		return
	}
	if p.idle++; !idle {
		p.idle = 0
	} else if p.idle == maxIdle {
		log.G(withFields(p.target.logContext(ctx), log.Fields{"container.id": p.container})).Warn("the engine ends the log although the container runs; it is asked again")
	}
}

// noteRestored logs that the engine answers again.
func (p *logPublication) noteRestored(ctx context.Context) {
	if !p.lost.IsZero() {
		log.G(p.target.logContext(ctx)).Infof("log stream restored after %v", time.Since(p.lost).Round(time.Millisecond))
		p.lost = time.Time{}
	}
}

// noteGap reports that messages may be missing before the message of the time at. First it
// publishes the lines that are held: their other pieces may be missing too.
func (p *logPublication) noteGap(ctx context.Context, at logTime) error {
	if err := p.release(ctx); err != nil {
		return err
	}
	p.isGap, p.gapAfter = true, p.cursor.gapAfter
	if p.tail.counts != nil {
		return nil
	}
	p.counts.telemetry.logGaps.Add(ctx, 1)
	from, to, logger := p.gapAfter.text(), at.text(), log.G(withFields(p.target.logContext(ctx), log.Fields{"container.id": p.container}))
	if from == "" {
		logger.Warn("log lines are missing: the engine's file of the log is damaged")
	} else if p.damage.isAhead {
		logger.Warnf("log lines after %s and before %s are missing: the engine's file of the log is damaged there", from, to)
	} else {
		logger.Warnf("log lines after %s and before %s may be missing: the engine no longer has the last one", from, to)
	}
	return nil
}

// readWhole reads the log of an engine, not of a fake. It makes requests that a fake need not
// know: for enough entries, so that all lines of the tail are whole, and for what is behind damage.
func (p *logPublication) readWhole(ctx context.Context, answer container.InspectResponse, follow bool) (done bool, err error) {
	isFirst := p.cursor.last == api.LogStreamUnknown
	if isFirst && p.tail.lines > 0 {
		if done, err := p.cutTail(ctx, answer); err != nil {
			return done, err
		}
	}
	// With other log drivers it is not known what the requests of catchUp do. They crash
	// engine 20.10 if its driver is "local" and the file is damaged.
	if !keepsJSONFile(answer) || p.cursor.first.Tail == "0" && isFirst {
		return p.read(ctx, answer, follow, p.damage.reserve(), logTime{})
	}
	// If the container has logged more lines than are known behind the damage, a follow would begin
	// too late. They are read first.
	for late := 0; ; late++ {
		if done, err := p.catchUp(ctx, answer, follow); err != nil || !follow {
			return done, err
		}
		var by logTime
		if p.damage.behind > 0 && late < mostLate {
			by = p.cursor.newest()
		}
		if done, err = p.read(ctx, answer, follow, p.damage.reserve(), by); err != errBeginsLate { //nolint:errorlint // bare
			return done, err
		}
	}
}

// cutTail finds the entries that hold the wanted last lines. It sets p.cursor.first and
// p.tail.
func (p *logPublication) cutTail(ctx context.Context, answer container.InspectResponse) (done bool, err error) {
	lines := int(min(p.tail.lines, entryLimit))
	for entries := lines + 16; ; entries = 4 * min(entries, entryLimit) {
		counting := &logPublication{target: p.target, container: p.container, hasDetails: p.hasDetails, unwanted: p.unwanted}
		counting.cursor.first = p.cursor.first
		counting.cursor.first.Since, counting.cursor.first.Tail = "", strconv.Itoa(entries)
		counts := &tailCounts{}
		counting.tail.counts = counts
		if keepsJSONFile(answer) {
			done, err = counting.catchUp(ctx, answer, false)
		} else {
			done, err = counting.read(ctx, answer, false, 0, logTime{})
		}
		if err == nil {
			err = counting.release(ctx)
		}
		if err != nil {
			return done, err
		}
		if isWhole := counts.entries+counting.damage.count < entries; !isWhole && !counts.haveWhole(lines) && entries < entryLimit {
			continue
		}
		if !hasEnded(answer) {
			entries += tailReserve
		}
		p.cursor.first.Since, p.cursor.first.Tail = "", strconv.Itoa(entries)
		p.tail.from, p.tail.skip, p.tail.since = counts.first, max(counts.lines-lines, 0), p.cursor.since
		return false, nil
	}
}

// logOverlap is how far before the last message a resumed request begins. Messages of one
// stream are in the order of their times. Messages of different streams may not be: an engine
// takes the time when it reads a line, and may store the line after a newer one of the other.
const logOverlap = 5 * time.Second

// repeatTime bounds the time from the beginning of an answer to its last repeated message. An
// engine sends the stored messages at once. A message that comes later is new, whatever its time.
const repeatTime = 5 * time.Second

// logCursor knows which messages of a container have been taken, so that a new request can
// continue after them. A request names only a time, and the engine then sends all messages from
// that time on. Many may have the same time; with Docker the pieces of a long line always do. So
// the cursor counts, for each stream, how many messages of the last time it has taken.
//
// The cursor relies on the engine to send the same messages again in the same order. If
// several messages share stream and time, a resume may deliver messages that the tail
// excluded, or report the wrong ones as lost. Podman's times are whole seconds, and it may
// leave out messages of an answer that is followed. So there the texts count too.
//
// The clock of an engine may be set back. Then a resumed answer begins with messages from
// before that moment, whose times are later than that of the last message. The cursor skips
// them until the last message comes again, which the engine may have dropped, or repeatTime is over.
type logCursor struct {
	first         container.LogsOptions // the options of the first request
	since         logTime               // messages before this time are not wanted; zero: all are wanted
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
	// Hashes of the messages of a whole second: those that must come again, and the others.
	missing, texts []uint64
}

// begin returns the options of the next request. Call it once for each request.
func (c *logCursor) begin() container.LogsOptions {
	for i := range c.streams {
		s := &c.streams[i]
		s.skip = cmp.Or(s.n, -1)
		s.missing, s.texts = append(s.texts, s.missing...), nil
	}
	options := c.first
	if c.last == api.LogStreamUnknown {
		c.found = true
		if c.first.Tail == "0" && c.firstAnswered != (logTime{}) { // nothing from before the first answer, all since then
			options.Tail, options.Since = "", c.firstAnswered.since()
		}
		return options
	}
	// If the last answer broke off while it still repeated messages, go back half as far.
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

// newest returns the latest time of all messages taken.
func (c *logCursor) newest() logTime {
	return slices.MaxFunc([]logTime{c.streams[0].latest, c.streams[1].latest}, logTime.compare)
}

// isNewer reports whether the entry exists and is newer than all messages taken. If none was
// taken, it must not be older than c.since.
func (c *logCursor) isNewer(entry logEntry) bool {
	if c.last == api.LogStreamUnknown {
		return entry.stream != api.LogStreamUnknown && entry.at.compare(c.since) >= 0
	}
	return entry.stream != api.LogStreamUnknown && entry.at.compare(c.newest()) > 0
}

func (c *logCursor) at(stream api.LogStream) *streamCursor {
	return &c.streams[stream-api.LogStreamStdout]
}

// take reports whether a message is new, and counts it. gap says that messages before it may
// be missing: the engine has dropped them since the last answer, or its file is damaged.
func (c *logCursor) take(stream api.LogStream, t logTime, message []byte) (taken, gap bool) {
	s := c.at(stream)
	if s.skip >= 0 {
		c.repeated = true
		switch order, n := t.compare(s.at), s.again(t, message); {
		case order < 0:
			return false, false
		case order == 0 && s.skip > 0 && n == 0: // the engine or the tail has left it out before
			if c.first.Tail != "" && t == c.since && len(s.texts) == 0 {
				return false, false
			}
		case order == 0 && s.skip > 0:
			k := min(n, len(s.missing)) // 0: times are exact
			s.texts, s.missing = append(s.texts, s.missing[:k]...), s.missing[k:]
			if s.skip -= n; s.skip == 0 {
				s.skip = -1 // everything after it is new
				c.found = c.found || stream == c.last
			}
			return false, false
		case !c.found && t.compare(s.latest) <= 0 && time.Since(c.lastAnswered) < repeatTime: // from before the clock was set back
			return false, false
		}
		if t != s.at {
			s.skip = -1
		}
	}
	if gap = !c.found; gap && c.last != api.LogStreamUnknown {
		c.gapAfter = c.at(c.last).at
	}
	c.found, c.taken = true, true
	if c.first.Tail != "" && (c.last == api.LogStreamUnknown || t.compare(c.since) < 0) {
		c.since = t // what the tail excluded must not come with a later answer
	}
	if t != s.at {
		s.at, s.n, s.missing, s.texts = t, 0, nil, nil
	}
	s.n++
	s.note(t, message)
	if t.compare(s.latest) > 0 {
		s.latest = t
	}
	c.last = stream
	return true, gap
}

// again returns how many messages are over with this one, which has come before: those in
// between are left out by this answer. 0: a message of a whole second has not come before.
func (s *streamCursor) again(t logTime, message []byte) int {
	if t.nsec != 0 || len(s.missing) == 0 || s.n > mostTexts {
		return 1
	}
	return slices.Index(s.missing, maphash.Bytes(textSeed, message)) + 1
}

func (s *streamCursor) note(t logTime, message []byte) {
	if t.nsec == 0 && len(s.texts) < mostTexts {
		s.texts = append(s.texts, maphash.Bytes(textSeed, message))
	}
}

// since returns t in the form of the option Since of a request.
func (t logTime) since() string {
	if t.sec < 0 {
		return ""
	}
	return fmt.Sprintf("%d.%09d", t.sec, t.nsec)
}
