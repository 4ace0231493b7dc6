package dockerexec

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/docker/docker/api/types/container"
	gogotypes "github.com/gogo/protobuf/types"
	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/moby/swarmkit/v2/api"
	"github.com/pkg/errors"
	"golang.org/x/time/rate"
)

// logsOptions translates a log subscription into the engine's options. Streams:
// none named means both. Tail: 0 is the whole log, -1 nothing of it, -n-1 the
// last n lines; more than 0, counted from the start, does not exist in the
// engine's API.
func logsOptions(options api.LogSubscriptionOptions) (container.LogsOptions, error) {
	o := container.LogsOptions{Follow: options.Follow, Timestamps: true}
	for _, stream := range options.Streams {
		switch stream {
		case api.LogStreamStdout:
			o.ShowStdout = true
		case api.LogStreamStderr:
			o.ShowStderr = true
		case api.LogStreamUnknown: // the zero value, which names none
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

// maxLogLine bounds, in bytes, a line that is put together from its pieces.
const maxLogLine = 1 << 20

// AttrLogGap is the key of an attribute of log messages: messages are missing right
// before the one that has it. The value is the time of the last message before the
// gap, in the form of [time.RFC3339Nano]; see [ContainerAdapter.PublishLogs].
const AttrLogGap = "com.dockerexec.log.gap"

// PublishLogs hands each line of the container's log to publisher, in the engine's
// order, one after the other. It reads at most as fast as [WithLogRate] says. A nil
// publisher is an error.
//
// The options: Streams names stdout, stderr or both; empty means both. Since leaves
// out what is older; nil leaves out nothing. Tail 0 is the whole log, -1 none of what
// is there, and -n-1 the last n lines; a Tail above 0, which counts from the start of
// the log, is refused, because the engine's API has no such option. For Follow see
// below.
//
// A message's Context holds the IDs of the task, its service and its node. Timestamp
// is the engine's time of the line; a line without one has the time of the line
// before. Stream is stdout or stderr; a TTY has one stream, stdout. Data is the line
// as the container wrote it, with its newline. Engines keep a line of more than
// 16 KiB in pieces; these are joined again, up to 1 MiB. A longer line comes in
// several messages, of which only the last has the newline. Attrs are the labels and
// variables that the container's log options ask for, sorted. The publisher may keep
// what it is handed.
//
// Without Follow, PublishLogs returns nil at the end of the log. A container that has
// not been started has none; a container that does not exist is an error, see
// [IsUnknownContainer]. With Follow it waits for the container to be created and
// started, and returns nil once the container has ended and all its lines are
// published, or once it is gone. A passing fault of the engine does not end it: it
// continues where the stream broke off, without losing or repeating a line. If the
// engine no longer has the last line then (log rotation), lines after it may be
// missing too: there is a warning in the log, and the next message has the attribute
// com.dockerexec.log.gap, whose value is the time of that last line. If the engine's
// clock was set back as well, lines with times up to the one from which it was set
// back may be missing.
//
// Errors: the bare error of a ctx that ended; the publisher's own error, unchanged;
// without Follow a temporary error for a fault that will pass. All other errors are
// final, such as those for a log driver that cannot be read, and for an error that
// the engine reports in the middle of the log.
func (a *ContainerAdapter) PublishLogs(ctx context.Context, options api.LogSubscriptionOptions, publisher exec.LogPublisher) error {
	first, err := logsOptions(options)
	if err != nil {
		return err
	}
	if publisher == nil {
		return errors.New("dockerexec: the log publisher is nil")
	}
	p := newLogPublication(a, first, options.Since, publisher)
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
			pauses = backoff{}
		}
		if err := sleep(ctx, pauses.next()); err != nil {
			return err
		}
	}
}

// logPublication is one call of PublishLogs.
type logPublication struct {
	adapter   *ContainerAdapter
	publisher exec.LogPublisher
	context   api.LogContext
	pace      *logPace
	cursor    logCursor

	container string    // ID, once it has been seen
	advanced  bool      // the last pass got a message, or saw the start
	lost      time.Time // when the engine was lost; zero: it is there
	idle      int       // passes in a row that ended well and got nothing

	hasDetails bool
	clock      logClock
	details    logDetails
	room       logRoom
	held       [2]heldLine // by stream
	gapAfter   logTime     // for the next message; zero: there is no gap before it
}

// heldLine is the beginning of a line of which more pieces are to come.
type heldLine struct {
	data  []byte // empty: no line is held
	at    logTime
	attrs []api.LogAttr
}

func newLogPublication(a *ContainerAdapter, first container.LogsOptions, since *gogotypes.Timestamp, publisher exec.LogPublisher) *logPublication {
	task := a.config.task
	p := &logPublication{
		adapter:   a,
		publisher: publisher,
		context:   api.LogContext{ServiceID: task.ServiceID, NodeID: task.NodeID, TaskID: task.ID},
		pace:      newLogPace(a.engine.options.logRate),
		cursor:    logCursor{first: first},
	}
	if since != nil {
		p.cursor.since = logTime{since.Seconds, since.Nanos}
	}
	return p
}

// pass looks at the container and reads one engine answer. done means that
// nothing is to come any more, or that err is final.
func (p *logPublication) pass(ctx context.Context) (done bool, err error) {
	p.advanced = false
	follow := p.cursor.first.Follow
	var answer container.InspectResponse
	if p.container == "" {
		answer, err = p.adapter.Inspect(ctx)
		if follow && p.adapter.gone(err) {
			return p.awaitStart(ctx)
		}
	} else {
		answer, err = p.adapter.inspectPinned(ctx, &p.container)
		if errors.Is(err, ErrContainerDestroyed) {
			return true, nil
		}
	}
	if err != nil {
		return !exec.IsTemporary(err), err
	}
	if err := p.adapter.isOwn(answer); err != nil {
		return true, err
	}
	p.container = answer.ID
	switch {
	case isUnstarted(answer) && follow:
		return p.awaitStart(ctx)
	case hasEnded(answer), answer.State.Status == container.StateRemoving:
		// Read to the end without following, also after having followed: 20.10 is
		// known to end that before the last lines.
		follow = false
	}
	return p.read(ctx, answer, follow)
}

// read publishes one engine answer.
func (p *logPublication) read(ctx context.Context, answer container.InspectResponse, follow bool) (done bool, err error) {
	name := p.adapter.config.name()
	target := name
	if answer.ID != "" && answer.Name != "" && answer.Name != "/"+name { // renamed
		target = answer.ID
	}
	p.hasDetails = hasLogDetails(answer)
	options := p.cursor.begin()
	options.Follow, options.Details = follow, p.hasDetails

	body, err := p.adapter.engine.client.ContainerLogs(ctx, target, options)
	if err != nil {
		if p.cursor.first.Follow && (p.adapter.gone(err) || logOfDying.in(normalize(err.Error()), "")) {
			return true, nil
		}
		return !isPassing(err), engineError(ctx, err, "logs of container %s", name)
	}
	closed := make(chan struct{})
	stop := context.AfterFunc(ctx, func() { // a read that blocks ends with ctx
		defer close(closed)
		body.Close()
	})
	defer func() {
		if stop() {
			body.Close()
		} else {
			<-closed
		}
	}()
	p.cursor.answered(time.Now())
	p.noteRestored(ctx)

	var reader logReader = newFrameReader(body)
	if answer.Config != nil && answer.Config.Tty {
		reader = newPlainReader(body, p.hasDetails)
	}
	readErr, err := p.publishAll(ctx, reader)
	switch {
	case err != nil:
		return true, err
	case readErr != io.EOF: //nolint:errorlint // an error that wraps io.EOF is no clean end
		return !isPassing(readErr), engineError(ctx, readErr, "logs of container %s", name)
	case follow:
		return false, nil // the container has ended, or the engine is about to: look again
	}
	return true, nil
}

// publishAll publishes the messages of reader that have not been published yet.
// readErr is how reader ended; err is that of ctx or of the publisher.
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
		if !ok { // no engine's; it is handed on all the same
			at = previous
		}
		previous = at
		taken, gap := p.cursor.take(stream, at)
		if !taken {
			continue
		}
		p.advanced = true
		var attrs []api.LogAttr
		if p.hasDetails && ok {
			attrs, line = p.details.cut(line)
		}
		if gap {
			if err := p.noteGap(ctx, at); err != nil {
				return nil, err
			}
		}
		if err := p.add(ctx, stream, at, attrs, line); err != nil {
			return nil, err
		}
	}
}

// add publishes line if it is whole, and else holds it until it is. The pieces of
// a line have one time.
func (p *logPublication) add(ctx context.Context, stream api.LogStream, at logTime, attrs []api.LogAttr, line []byte) error {
	held := &p.held[stream-api.LogStreamStdout]
	if len(held.data) > 0 && (held.at != at || len(held.data)+len(line) > maxLogLine) {
		if err := p.flush(ctx, stream); err != nil {
			return err
		}
	}
	whole := len(line) > 0 && line[len(line)-1] == '\n'
	if whole && len(held.data) == 0 {
		return p.publish(ctx, stream, at, attrs, p.room.clone(line))
	}
	if len(held.data) == 0 {
		held.at, held.attrs = at, attrs
	}
	held.data = append(held.data, line...)
	if whole {
		return p.flush(ctx, stream)
	}
	return nil
}

// flush publishes what is held of stream.
func (p *logPublication) flush(ctx context.Context, stream api.LogStream) error {
	held := &p.held[stream-api.LogStreamStdout]
	line := *held
	*held = heldLine{}
	if len(line.data) == 0 {
		return nil
	}
	return p.publish(ctx, stream, line.at, line.attrs, line.data)
}

// release publishes what is held of both streams.
func (p *logPublication) release(ctx context.Context) error {
	if err := p.flush(ctx, api.LogStreamStdout); err != nil {
		return err
	}
	return p.flush(ctx, api.LogStreamStderr)
}

// publish hands data over, which must not be used any more.
func (p *logPublication) publish(ctx context.Context, stream api.LogStream, at logTime, attrs []api.LogAttr, data []byte) error {
	if err := p.pace.wait(ctx, len(data)); err != nil {
		return err
	}
	if p.gapAfter != (logTime{}) {
		attrs = append(attrs, api.LogAttr{Key: AttrLogGap, Value: p.gapAfter.time().Format(time.RFC3339Nano)})
		sortLogAttrs(attrs)
		p.gapAfter = logTime{}
	}
	err := p.publisher.Publish(ctx, api.LogMessage{
		Context:   p.context,
		Timestamp: p.room.timestamp(at),
		Stream:    stream,
		Data:      data,
		Attrs:     attrs,
	})
	if err != nil {
		p.held = [2]heldLine{} // who refuses a message gets no other
	}
	return err
}

// logPace spreads bytes over time. nil is no limit.
type logPace struct {
	limiter *rate.Limiter
	owed    int // bytes that have not been waited for yet
	slice   int // from so many on they are
}

func newLogPace(bytesPerSecond int) *logPace {
	if bytesPerSecond <= 0 {
		return nil
	}
	return &logPace{
		limiter: rate.NewLimiter(rate.Limit(bytesPerSecond), bytesPerSecond),
		slice:   min(max(bytesPerSecond/16, 1), 64<<10), // to ask the limiter for each line would cost more than the line
	}
}

// wait returns when n bytes more may go out, or ctx has ended.
func (p *logPace) wait(ctx context.Context, n int) error {
	if p == nil {
		return nil
	}
	p.owed += n
	for p.owed >= p.slice {
		take := min(p.owed, p.limiter.Burst())
		p.owed -= take
		// WaitN would fail at once where ctx has a deadline before the end.
		if delay := p.limiter.ReserveN(time.Now(), take).Delay(); delay > 0 {
			if err := sleep(ctx, delay); err != nil {
				return err
			}
		}
	}
	return nil
}
