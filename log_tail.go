package dockerexec

import (
	"github.com/moby/swarmkit/v2/api"
)

// logTail cuts the last entries of a log to whole lines. Engines count entries, and a line
// of more than 16 KiB has several. First the lines are only counted, so that no line is
// kept in memory. Then the entries are requested again. The lines before the tail are left
// out.
type logTail struct {
	lines  int64       // how many are wanted; 0: there is no tail
	from   logEntry    // messages before this one are skipped; none: nothing is skipped
	skip   int         // how many lines to leave out from that message on
	since  logTime     // older lines are not published
	counts *tailCounts // nil: lines are published, not counted
}

type tailCounts struct {
	entries int
	first   logEntry
	lines   int
	firstOf [2]int     // by stream: the number of its first line, from 1; 0: it has none
	at      [2]logTime // of that line
}

// haveWhole reports whether there are n lines, and the last n are whole. The first line of
// a stream may be cut: it may have pieces before the first entry that was counted. A line
// that is more than logOverlap younger than that entry is whole.
func (c *tailCounts) haveWhole(n int) bool {
	for i, number := range c.firstOf {
		if number > c.lines-n && c.at[i].compare(c.first.at.add(logOverlap)) <= 0 {
			return false
		}
	}
	return c.lines >= n
}

// isBefore reports whether a message comes before the message t.from. isFirst says that the
// message is the first one of an answer.
func (t *logTail) isBefore(stream api.LogStream, at logTime, message []byte, isFirst bool) bool {
	switch {
	case t.from.stream == api.LogStreamUnknown:
		return false
	case stream == t.from.stream && at == t.from.at && string(message) == t.from.text:
		t.from = logEntry{}
		return false
	case isFirst && at.compare(t.from.at) > 0: // t.from does not come: the container has logged more than tailReserve entries since
		t.from, t.skip = logEntry{}, 0
		return false
	}
	return true
}

// note counts a message.
func (t *logTail) note(stream api.LogStream, at logTime, message []byte) {
	if t.counts == nil {
		return
	}
	if t.counts.entries++; t.counts.entries == 1 {
		t.counts.first = logEntry{stream, at, string(message)}
	}
}

// leavesOut reports whether a message is not published. ends says whether it ends a line.
func (t *logTail) leavesOut(stream api.LogStream, at logTime, ends bool) bool {
	switch {
	case t.counts != nil:
		i := stream - api.LogStreamStdout
		if ends {
			t.counts.lines++
			if t.counts.firstOf[i] == 0 {
				t.counts.firstOf[i], t.counts.at[i] = t.counts.lines, at
			}
		}
		return true
	case t.skip > 0:
		if ends {
			t.skip--
		}
		return true
	}
	return at.compare(t.since) < 0
}
