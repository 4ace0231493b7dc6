package dockerexectest

import (
	"encoding/binary"
	"io"
	"net/http"
	"strconv"
	"time"
)

// logQuery is what a client wants of a log.
type logQuery struct {
	stdout, stderr, times, details, follow bool
	since, until                           time.Time
	tail                                   int // negative: all
}

// serveLogs is GET /containers/{name}/logs.
func serveLogs(e *Engine, r *request) (answer, error) {
	q := logQuery{stdout: r.flag("stdout"), stderr: r.flag("stderr"), times: r.flag("timestamps"),
		details: r.flag("details"), follow: r.flag("follow"), tail: -1}
	if !q.stdout && !q.stderr {
		return answer{}, e.dialect.say(http.StatusBadRequest, "Bad parameters: you must choose at least one stream", "must specify at least one of 'stdout' or 'stderr'")
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	c, err := e.find(r.name)
	if err != nil {
		return answer{}, err
	}
	if c.removing || c.dead {
		return answer{}, conflict("can not get logs from container which is dead or marked for removal")
	}
	if !c.isReadable() {
		return answer{}, apiErrorf(http.StatusNotImplemented, "configured logging driver does not support reading")
	}
	if q.since, err = e.timeOf(r, "since", `"since"`); err != nil {
		return answer{}, err
	}
	if q.until, err = e.timeOf(r, "until", `"until"`); err != nil {
		return answer{}, err
	}
	if q.until.Equal(time.Unix(0, 0)) {
		q.until = time.Time{}
	}
	if n, err := strconv.Atoi(r.query.Get("tail")); err == nil {
		q.tail = n
	}
	if c.run == nil {
		q.follow = false
	}
	a := answer{stream: e.logStream(r, c, c.run, q), contentType: "application/vnd.docker.raw-stream"}
	switch {
	case e.dialect == DockerV20:
		a.contentType = noContentType
	case !c.config.Tty && r.atLeast("1.42"):
		a.contentType = "application/vnd.docker.multiplexed-stream"
	}
	return a, nil
}

// logStream returns a function that sends the log. With follow, the stream ends when the
// run has ended, or when a message comes that is later than until. It does not end at the
// time until itself.
func (e *Engine) logStream(r *request, c *Container, run *run, q logQuery) func(io.Writer) error {
	next := c.log.dropped // the number of the next entry to send
	if q.tail >= 0 {
		next += max(len(c.log.entries)-q.tail, 0)
	}
	return func(w io.Writer) error {
		var out []byte
		for {
			e.mu.Lock()
			next = max(next, c.log.dropped) // rotation may have dropped entries
			entries := c.log.entries[next-c.log.dropped:]
			next += len(entries)
			grown := c.log.grown.wait()
			isOver := !q.follow || run.hasEnded || c.isRemoved
			e.mu.Unlock()
			for _, entry := range entries {
				at := time.Unix(0, entry.at)
				if at.Before(q.since) {
					continue
				}
				if e.dialect != DockerV20 {
					q.since = time.Time{} // after the first match, since does not count any more
				}
				if !q.until.IsZero() && at.After(q.until) {
					isOver = true
					break
				}
				out = q.encode(out, entry, c)
				if len(out) >= 32<<10 {
					if _, err := w.Write(out); err != nil {
						return err
					}
					out = out[:0]
				}
			}
			if len(out) > 0 {
				if _, err := w.Write(out); err != nil {
					return err
				}
				out = out[:0]
			}
			if isOver {
				return nil
			}
			select {
			case <-grown:
			case <-r.ctx.Done():
				return r.ctx.Err()
			}
		}
	}
}

// encode appends a message as the client gets it.
func (q *logQuery) encode(out []byte, entry logEntry, c *Container) []byte {
	if entry.stream == stdout && !q.stdout || entry.stream == stderr && !q.stderr {
		return out
	}
	begin := len(out)
	if !c.config.Tty {
		out = append(out, entry.stream, 0, 0, 0, 0, 0, 0, 0)
	}
	if q.times {
		out = time.Unix(0, entry.at).UTC().AppendFormat(out, "2006-01-02T15:04:05.000000000Z07:00")
		out = append(out, ' ')
	}
	if q.details && c.engine.dialect != PodmanV4 {
		out = append(out, c.log.details...)
		out = append(out, ' ')
	}
	out = append(out, entry.text...)
	if !c.config.Tty {
		binary.BigEndian.PutUint32(out[begin+4:], uint32(len(out)-begin-8)) //nolint:gosec // at most pieceSize and a prefix
	}
	return out
}
