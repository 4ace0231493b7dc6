package dockerexec

import (
	"context"
	"fmt"
	"hash/maphash"
	"io"
	"strconv"
	"time"

	"github.com/docker/docker/api/types/container"
	gogotypes "github.com/gogo/protobuf/types"
	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/moby/swarmkit/v2/api"
	"github.com/pkg/errors"
)

// logsOptions translates a log subscription into the engine's options. Without Streams
// it asks for both. A Tail of 0 is the whole log, -1 is nothing, and -n-1 is the last n
// lines. A Tail above 0 counts from the start of the log; the engine's API has no such
// option.
func logsOptions(options api.LogSubscriptionOptions) (container.LogsOptions, error) {
	o := container.LogsOptions{Follow: options.Follow, Timestamps: true}
	for _, stream := range options.Streams {
		switch stream {
		case api.LogStreamStdout:
			o.ShowStdout = true
		case api.LogStreamStderr:
			o.ShowStderr = true
		case api.LogStreamUnknown: // the zero value: no stream
		}
	}
	if !o.ShowStdout && !o.ShowStderr {
		if len(options.Streams) > 0 {
			return o, errors.Errorf("log option Streams: %v names neither stdout nor stderr", options.Streams)
		}
		o.ShowStdout, o.ShowStderr = true, true
	}
	if since := options.Since; since != nil {
		if since.Nanos < 0 || since.Nanos >= 1e9 || since.Seconds < 0 {
			return o, errors.Errorf("log option Since: %d seconds and %d nanoseconds are no time after 1970", since.Seconds, since.Nanos)
		}
		o.Since = fmt.Sprintf("%d.%09d", since.Seconds, since.Nanos)
	}
	switch {
	case options.Tail > 0:
		return o, errors.New("tail relative to start of logs not supported via docker API")
	case options.Tail < 0:
		o.Tail = strconv.FormatInt(-(options.Tail + 1), 10)
	}
	return o, nil
}

// maxLogLine bounds a line that is joined from its pieces, in bytes.
const maxLogLine = 1 << 20

// logTarget is the container whose log is published.
type logTarget interface {
	ContainerName() string
	Inspect(ctx context.Context) (container.InspectResponse, error)
	// inspectPinned inspects the container whose ID pinned holds. If pinned is empty,
	// inspectPinned sets it to the ID of the task's container.
	inspectPinned(ctx context.Context, pinned *string) (container.InspectResponse, error)
	// awaitStart waits until the container has been started. seen is the ID of the task's
	// container if the caller has seen it before, or empty. If seen is set, awaitStart also
	// returns once that container is gone.
	awaitStart(ctx context.Context, seen string) (started bool, err error)
	// checkLogOwner refuses a container that is not the task's.
	checkLogOwner(answer container.InspectResponse) error
	openLogs(ctx context.Context, nameOrID string, options container.LogsOptions) (io.ReadCloser, error)
	// isReal reports whether the client is a real one, and not a user's fake. With a fake,
	// each pass makes only one request for the log.
	isReal() bool
	// hide takes secrets out of an error of the engine.
	hide(err error) error
	logMessageContext() api.LogContext
	// logContext gives ctx the logger of the task.
	logContext(ctx context.Context) context.Context
}

// logPublication is one call of PublishLogs.
type logPublication struct {
	target    logTarget
	publisher exec.LogPublisher
	turn      *logTurn // of the publisher; nil: there is none
	counts    logCounts
	context   api.LogContext
	limiter   *logLimiter
	cursor    logCursor

	container string    // its ID; empty: not known yet
	advanced  bool      // the last pass got a message, or saw the start
	lost      time.Time // when the stream broke; zero: it is not broken
	idle      int       // passes in a row without an error and without a new message

	hasDetails bool
	timesVary  bool // each piece of a line has its own time
	clock      logClock
	details    logDetails
	arena      logArena
	held       [2]heldLine // by stream
	isGap      bool        // the next message follows a gap
	gapAfter   logTime     // of the last message before the gap; zero: there was none

	unwanted api.LogStream // its entries are only counted, and not published; unknown: there is no such stream
	entries  int           // messages in the last answer
	begin    logEntry      // the first of them; not set for a request with Since, and for a fake
	isPart   bool          // the last request had Since
	beginBy  logTime       // the first of them is not later; zero: it may be
	damage   logDamage
	tail     logTail
}

const mostTexts = 1 << 16 // so many messages of a second are compared, by their hashes

var textSeed = maphash.MakeSeed()

// heldLine is the beginning of a line whose other pieces have not come yet.
type heldLine struct {
	data  []byte // empty: no line is held
	at    logTime
	attrs []api.LogAttr
}

func newLogPublication(target logTarget, bytesPerSecond int, first container.LogsOptions, since *gogotypes.Timestamp, publisher exec.LogPublisher, telemetry *telemetry) *logPublication {
	p := &logPublication{
		target:    target,
		publisher: publisher,
		counts:    logCounts{telemetry: telemetry},
		context:   target.logMessageContext(),
		limiter:   newLogLimiter(bytesPerSecond),
		cursor:    logCursor{first: first},
	}
	p.tail.lines, _ = strconv.ParseInt(first.Tail, 10, 64)
	if target.isReal() { // engines count the entries of both streams, even if only one stream is asked for
		switch {
		case !first.ShowStdout:
			p.unwanted = api.LogStreamStdout
		case !first.ShowStderr:
			p.unwanted = api.LogStreamStderr
		}
		p.cursor.first.ShowStdout, p.cursor.first.ShowStderr = true, true
	}
	if since != nil {
		p.cursor.since = logTime{since.Seconds, since.Nanos}
	}
	return p
}

// pass inspects the container and publishes what the engine has of its log. done means that
// no more messages will come, or that err is final.
func (p *logPublication) pass(ctx context.Context) (done bool, err error) {
	p.advanced = false
	follow := p.cursor.first.Follow
	var answer container.InspectResponse
	if p.container == "" {
		answer, err = p.target.Inspect(ctx)
		if follow && isContainerGone(err) {
			return p.awaitStart(ctx)
		}
	} else {
		answer, err = p.target.inspectPinned(ctx, &p.container)
		if errors.Is(err, ErrContainerDestroyed) {
			return true, nil
		}
	}
	if err != nil {
		return !exec.IsTemporary(err), err
	}
	if err := p.target.checkLogOwner(answer); err != nil {
		return true, err
	}
	p.container = answer.ID
	switch {
	case isUnstarted(answer) && follow:
		return p.awaitStart(ctx)
	case hasEnded(answer), answer.State.Status == container.StateRemoving:
		// Read without following, even if the log was followed before: engine 20.10 may
		// end a followed log before the last lines.
		follow = false
	}
	p.hasDetails, p.timesVary = hasLogDetails(answer), isPodmansLog(answer)
	if p.target.isReal() {
		return p.readWhole(ctx, answer, follow)
	}
	return p.read(ctx, answer, follow, 0, logTime{})
}

// open asks the engine for the log. The caller must call end.
func (p *logPublication) open(ctx context.Context, answer container.InspectResponse, options container.LogsOptions) (reader logReader, end func(), err error) {
	nameOrID := p.target.ContainerName()
	if answer.ID != "" && answer.Name != "" && answer.Name != "/"+nameOrID { // renamed
		nameOrID = answer.ID
	}
	options.Details = p.hasDetails
	body, err := p.target.openLogs(ctx, nameOrID, options)
	if err != nil {
		return nil, nil, err
	}
	closed := make(chan struct{})
	stop := context.AfterFunc(ctx, func() { // so that a blocked read ends with ctx
		defer close(closed)
		body.Close()
	})
	end = func() {
		if stop() {
			body.Close()
		} else {
			<-closed
		}
	}
	if answer.Config != nil && answer.Config.Tty {
		return newPlainReader(countedBody{body, ctx, &p.counts}, p.hasDetails), end, nil
	}
	return newFrameReader(countedBody{body, ctx, &p.counts}), end, nil
}

// read asks the engine for the log and publishes the answer. If last is above 0, it asks
// for at most that many of the last entries. If by is set and the answer begins later, read
// returns errBeginsLate.
func (p *logPublication) read(ctx context.Context, answer container.InspectResponse, follow bool, last int, by logTime) (done bool, err error) {
	name := p.target.ContainerName()
	options := p.cursor.begin()
	options.Follow = follow
	if last > 0 {
		options.Tail = strconv.Itoa(last)
		p.cursor.found = p.cursor.found && !p.damage.isAhead
	}
	p.entries, p.begin, p.isPart, p.beginBy = 0, logEntry{}, options.Since != "", by
	reader, end, err := p.open(ctx, answer, options)
	if err != nil {
		if p.cursor.first.Follow && (isContainerGone(err) || logOfDying.matches(err)) {
			return true, nil
		}
		return !isPassing(err), engineError(ctx, err, "logs of container %s", name)
	}
	defer end()
	p.cursor.answered(time.Now())
	p.noteRestored(ctx)
	readErr, err := p.publishAll(ctx, reader)
	switch {
	case err != nil:
		return true, err
	case readErr == errBeginsLate: //nolint:errorlint // bare
		return false, readErr
	case readErr != io.EOF: //nolint:errorlint // an error that wraps io.EOF is no clean end
		return !isPassing(readErr), engineError(ctx, p.target.hide(readErr), "logs of container %s", name)
	case follow:
		return false, nil // the container has ended, or the engine ends: inspect again
	}
	return true, nil
}

// publishAll publishes the messages of reader that have not been published yet.
// readErr is the error at which reader ended. err is the error of ctx or of the
// publisher.
func (p *logPublication) publishAll(ctx context.Context, reader logReader) (readErr, err error) {
	previous := logTimeOf(time.Now())
	for {
		stream, message, readErr := reader.next()
		if readErr != nil {
			return readErr, nil
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		at, line, ok := p.clock.cut(message)
		if !ok { // it has no time; publish it all the same
			at = previous
		}
		previous = at
		if p.entries == 0 && ok && p.beginBy != (logTime{}) && at.compare(p.beginBy) > 0 {
			return errBeginsLate, nil
		}
		if p.entries++; p.entries == 1 && !p.isPart && p.target.isReal() {
			p.begin = logEntry{stream, at, string(message)}
		}
		if p.tail.isBefore(stream, at, message, p.entries == 1) {
			continue
		}
		taken, gap := p.cursor.take(stream, at, message)
		if !taken {
			continue
		}
		p.advanced = true
		if p.damage.behind > 0 {
			p.damage.behind++
		}
		p.tail.note(stream, at, message)
		var attrs []api.LogAttr
		if p.hasDetails && ok {
			attrs, line = p.details.cut(line)
		}
		if gap {
			if err := p.noteGap(ctx, at); err != nil {
				return nil, err
			}
		}
		if stream == p.unwanted {
			continue
		}
		if err := p.add(ctx, stream, at, attrs, line); err != nil {
			return nil, err
		}
	}
}

// add publishes a whole line. It holds the pieces of a line until the last one comes.
// With Docker, all pieces of a line have the same time, so a piece with another time begins a
// new line. Podman gives each piece the time at which it was read.
func (p *logPublication) add(ctx context.Context, stream api.LogStream, at logTime, attrs []api.LogAttr, line []byte) error {
	held := &p.held[stream-api.LogStreamStdout]
	isNew := held.at != at && !p.timesVary
	if len(held.data) > 0 && (isNew || len(held.data)+len(line) > maxLogLine) {
		if err := p.flush(ctx, stream, isNew); err != nil {
			return err
		}
	}
	whole := len(line) > 0 && line[len(line)-1] == '\n'
	if whole && len(held.data) == 0 {
		return p.publish(ctx, stream, at, attrs, line, true, true)
	}
	if len(held.data) == 0 {
		held.at, held.attrs = at, attrs
	}
	held.data = append(held.data, line...)
	if whole {
		return p.flush(ctx, stream, true)
	}
	return nil
}

// flush publishes what is held for stream. ends says whether the line ends there.
func (p *logPublication) flush(ctx context.Context, stream api.LogStream, ends bool) error {
	held := &p.held[stream-api.LogStreamStdout]
	line := *held
	*held = heldLine{}
	if len(line.data) == 0 {
		return nil
	}
	if err := p.publish(ctx, stream, line.at, line.attrs, line.data, false, ends); err != nil {
		return err
	}
	return ctx.Err() // the caller publishes again
}

// release publishes the lines that are held for both streams.
func (p *logPublication) release(ctx context.Context) error {
	if err := p.flush(ctx, api.LogStreamStdout, true); err != nil {
		return err
	}
	return p.flush(ctx, api.LogStreamStderr, true)
}

// publish hands one message to the publisher, which may keep data. If isShared is set,
// publish copies data first. If not, the caller must not use data again. ends says whether
// the message ends a line.
func (p *logPublication) publish(ctx context.Context, stream api.LogStream, at logTime, attrs []api.LogAttr, data []byte, isShared, ends bool) error {
	if p.tail.leavesOut(stream, at, ends) {
		p.isGap = false
		return nil
	}
	if isShared {
		data = p.arena.clone(data)
	}
	if err := p.limiter.wait(ctx, len(data)); err != nil {
		return err
	}
	if p.isGap {
		attrs = append(attrs, api.LogAttr{Key: AttrLogGap, Value: p.gapAfter.text()})
		sortLogAttrs(attrs)
		p.isGap = false
	}
	if err := p.turn.take(ctx); err != nil {
		return err
	}
	defer p.turn.end()
	p.counts.add(len(data), ends)
	err := p.publisher.Publish(ctx, api.LogMessage{
		Context:   p.context,
		Timestamp: p.arena.timestamp(at),
		Stream:    stream,
		Data:      data,
		Attrs:     attrs,
	})
	if err != nil {
		p.held = [2]heldLine{} // after a refusal nothing more is published
	}
	return err
}
