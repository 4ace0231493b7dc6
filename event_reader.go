package dockerexec

import (
	"context"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/docker/docker/api/types/events"
	"github.com/moby/swarmkit/v2/log"
	"github.com/pkg/errors"
)

const (
	// errorWindow is how long a failed request may take to say so once the
	// client has returned; it is a matter of microseconds.
	errorWindow = 10 * time.Millisecond
	// settleWindow is when an open stream counts as restored. An engine sends what
	// it has kept at once, so what has not come back by then is lost. It is also
	// when every watch inspects once more: an engine answers before it subscribes.
	settleWindow = time.Second
	// refusedAfter is how long the stream may be lost until whoever answers to the
	// request with a fault that passes, or not at all, counts as refusing it. It
	// leaves an engine the time to restart behind a proxy that answers meanwhile.
	refusedAfter = time.Minute
	// lookBack is how far the first request goes back, for the time between an
	// engine's answer and its subscribing.
	lookBack = 5 * time.Second
	// rememberedEvents is how many events an engine keeps, of all kinds, so no
	// more than that can come twice.
	rememberedEvents = 256
)

// errStreamEnded is the end of a stream without any error, which only fakes do.
var errStreamEnded = errors.New("the event stream ended without an error")

// eventReader is what the goroutine of a run keeps from one request to the next.
type eventReader struct {
	memory eventMemory
	last   eventKey // the last event, where the next request begins; zero: none
	outage outage
	failed time.Time // when a request of this run failed first in this outage; zero: none has

	// Of the request at hand.
	open     time.Time // when it was established; zero: not yet
	resuming bool      // last has not come back yet
	good     bool      // a new event has come
	proven   bool
}

// outage is what one run leaves to the next, so that a caller which subscribes
// again and again goes on with the pauses, and does not have each one logged.
type outage struct {
	since   time.Time     // when the stream was lost; zero: it is well
	refused bool          // a warning has said that it is refused
	away    bool          // the last request failed or broke
	gap     time.Duration // how long it was lost before it was last opened
	pauses  backoff
}

// read opens the stream, and opens it again whenever it breaks, until ctx ends.
// It is the goroutine of a run. left is from the one of the run before.
func (r *streamRun) read(ctx context.Context, left <-chan outage) {
	rd := &r.reader
	defer close(r.done)
	defer func() { r.left <- rd.outage }()
	if left != nil {
		rd.outage = receiveWithin(joinTimeout, left)
	}
	if rd.outage.away {
		_ = sleep(ctx, rd.outage.pauses.next()) // ctx is looked at below
	}
	for ctx.Err() == nil {
		err := r.follow(ctx)
		if ctx.Err() == nil {
			_ = sleep(ctx, r.broke(ctx, err)) // the loop looks at ctx
		}
	}
}

// follow makes one request and reads it to its end.
func (r *streamRun) follow(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends the client's goroutine
	rd := &r.reader
	rd.open, rd.resuming, rd.good, rd.proven = time.Time{}, false, false, false

	opened, err := r.stream.request(ctx, rd.since())
	if err != nil {
		return err
	}
	timer := time.NewTimer(opened.settle) // then until settleWindow
	defer timer.Stop()
	established := func() {
		if rd.open.IsZero() {
			r.established(ctx)
			timer.Reset(settleWindow)
		}
	}
	for {
		select {
		case m, ok := <-opened.messages:
			established()
			if !ok {
				return errStreamEnded
			}
			r.receive(ctx, m)
		case err := <-opened.errs:
			if err == nil {
				err = errStreamEnded
			}
			if err == io.EOF || err == errStreamEnded { //nolint:errorlint // bare: the end of a good answer; a request that ends so is wrapped
				established()
			}
			r.drain(ctx, opened.messages)
			return err
		case <-timer.C:
			if !rd.open.IsZero() {
				r.prove(ctx)
			} else if len(opened.errs) == 0 {
				established()
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// drain takes what a fake had ready when it ended the stream. The client's own
// channel holds nothing.
func (r *streamRun) drain(ctx context.Context, messages <-chan events.Message) {
	for range cap(messages) {
		select {
		case m, ok := <-messages:
			if !ok {
				return
			}
			r.receive(ctx, m)
		default:
			return
		}
	}
}

// established notes that the request at hand has been answered.
func (r *streamRun) established(ctx context.Context) {
	rd := &r.reader
	rd.open = time.Now()
	rd.outage.away = false
	if !rd.outage.since.IsZero() {
		rd.outage.gap = time.Since(rd.outage.since)
	}
	opens := r.opened()
	rd.resuming = rd.last != eventKey{}
	if opens > 1 && !rd.resuming {
		r.loss(ctx, "no event was seen before")
	}
}

// receive takes one event off the stream.
func (r *streamRun) receive(ctx context.Context, m events.Message) {
	rd := &r.reader
	key := keyOf(m)
	if key.timeNano != 0 { // a fake's event without a time is neither a position nor a duplicate
		if rd.memory.has(key) {
			if rd.resuming && key == rd.last {
				rd.resuming = false
			}
			return
		}
		if rd.resuming {
			r.loss(ctx, "the last event did not come back")
		}
		rd.memory.add(key)
		rd.last = key
	}
	rd.good = true
	if !rd.proven {
		r.wellAgain(ctx)
	}
	r.dispatch(m)
}

// prove is called settleWindow after the stream was opened.
func (r *streamRun) prove(ctx context.Context) {
	if r.reader.resuming {
		r.loss(ctx, "nothing came back")
	}
	r.wellAgain(ctx)
	r.hintAll()
}

// loss tells that events may be lost.
func (r *streamRun) loss(ctx context.Context, why string) {
	r.reader.resuming = false
	told := r.resync()
	log.G(ctx).WithFields(log.Fields{"why": why, "subscribers": told}).Debug("events may be lost, subscribers are told to resync")
}

// wellAgain ends an outage. A stream that breaks before goes on with the same
// outage, so that one which opens and breaks all the time is not logged each
// time.
func (r *streamRun) wellAgain(ctx context.Context) {
	rd := &r.reader
	rd.proven = true
	if !rd.outage.since.IsZero() {
		rd.outage.since, rd.outage.refused, rd.failed = time.Time{}, false, time.Time{}
		log.G(ctx).WithField("gap", rd.outage.gap.Round(time.Millisecond)).Info("event stream restored")
	}
}

// broke notes that the request at hand has failed or ended, and returns how
// long to pause before the next one.
func (r *streamRun) broke(ctx context.Context, err error) time.Duration {
	rd := &r.reader
	refused := rd.refusedBy(err)
	r.lost(refused)
	if rd.good || !rd.open.IsZero() && time.Since(rd.open) > longestPause {
		rd.outage.pauses = backoff{}
	}
	rd.outage.away = true
	pause := rd.outage.pauses.next()
	entry := log.G(ctx).WithError(err)
	switch {
	case refused && !rd.outage.refused:
		rd.outage.refused = true
		entry.Warn("event stream refused, containers are inspected every ten seconds until it is opened")
	case !rd.outage.since.IsZero():
		entry.WithField("pause", pause).Debug("event stream not restored yet")
	default:
		entry.Warn("event stream lost, it is opened again as soon as the engine answers")
	}
	if rd.outage.since.IsZero() {
		rd.outage.since = time.Now()
	}
	if rd.failed.IsZero() {
		rd.failed = time.Now()
	}
	return pause
}

// refusedBy reports whether the request at hand, which ended with err, was
// refused: somebody is there, and may well answer to an inspect. Without a
// connection nobody is, and who has opened the stream does not refuse it. An
// engine that restarts behind a proxy, or is busy, is given refusedAfter.
func (rd *eventReader) refusedBy(err error) bool {
	if !rd.open.IsZero() {
		return false
	}
	refusal := verdictOf(err).stream
	long := !rd.failed.IsZero() && time.Since(rd.failed) >= refusedAfter
	return refusal == refusedAtOnce || refusal == refusedAfterAMinute && long
}

// since is where the next request begins: at the last event, inclusively, since
// others may have its time. If there was none the wall clock has to do.
func (rd *eventReader) since() string {
	nano := rd.last.timeNano
	if nano <= 0 { // an engine takes no time from before 1970
		nano = time.Now().Add(-lookBack).UnixNano()
	}
	return fmt.Sprintf("%d.%09d", nano/1e9, nano%1e9)
}

// eventKey tells events apart. The time alone does not: several may have the
// same nanosecond.
type eventKey struct {
	timeNano int64
	kind     events.Type
	action   events.Action
	actor    string
}

func keyOf(m events.Message) eventKey {
	return eventKey{timeNano: m.TimeNano, kind: m.Type, action: m.Action, actor: m.Actor.ID}
}

// eventMemory remembers the last rememberedEvents keys, some 50 KiB at most.
type eventMemory struct {
	keys   []eventKey // a ring
	oldest int        // where the next key goes once the ring is full
	newest int64      // the highest time so far
}

// has reports whether key is remembered. Events come in the order of time but
// for a few, so it has to look only when the stream goes back.
func (m *eventMemory) has(key eventKey) bool {
	return key.timeNano <= m.newest && slices.Contains(m.keys, key)
}

func (m *eventMemory) add(key eventKey) {
	m.newest = max(m.newest, key.timeNano)
	if len(m.keys) < rememberedEvents {
		m.keys = append(m.keys, key)
		return
	}
	m.keys[m.oldest] = key
	m.oldest = (m.oldest + 1) % rememberedEvents
}

// dispatch hands an event to the subscribers that it is about. It never blocks,
// and costs the same however many others there are.
//
// An event belongs to the task that its label names, if it comes from the
// container that has the task's name, or from the one with the ID that inspect
// has seen: anybody can label a container. An engine always sends the label,
// since the filter asks for it; the reference's fakes send the name alone.
func (r *streamRun) dispatch(m events.Message) {
	name := m.Actor.Attributes["name"]
	task, labelled := m.Actor.Attributes[LabelTaskID]
	var slow []*subscriber

	r.stream.mu.Lock()
	about := r.byTask[task]
	if !labelled {
		about = r.byName[name]
	}
	for _, sub := range about {
		if sub.isAbout(name, m.Actor.ID) && !sub.offer(m) {
			slow = append(slow, sub)
		}
	}
	stops := r.dismissLocked(slow)
	r.stream.mu.Unlock()
	stopAll(stops)
}

// hintAll has every watch inspect.
func (r *streamRun) hintAll() {
	r.stream.mu.Lock()
	defer r.stream.mu.Unlock()
	r.hintAllLocked()
}

func (r *streamRun) hintAllLocked() {
	for _, subs := range r.byTask {
		for _, sub := range subs {
			if sub.hints != nil {
				sub.hint(true)
			}
		}
	}
}

// resync tells every subscriber that was there before the stream was last
// opened that events may be lost. It returns how many it told. Watches need not
// be told: they inspect after every opening.
func (r *streamRun) resync() int {
	var lost []*subscriber
	r.stream.mu.Lock()
	for _, subs := range r.byTask {
		for _, sub := range subs {
			if sub.messages != nil && sub.opens < r.opens {
				lost = append(lost, sub)
			}
		}
	}
	stops := r.dismissLocked(lost)
	r.stream.mu.Unlock()
	stopAll(stops)
	return len(lost)
}

// dismissLocked takes subscribers off the run and closes their second channels.
// It returns what is to be called without the lock: a context may be anybody's.
func (r *streamRun) dismissLocked(subs []*subscriber) (stops []func() bool) {
	for _, sub := range subs {
		r.removeLocked(sub)
		close(sub.closed)
		if sub.stop != nil {
			stops = append(stops, sub.stop)
		}
	}
	return stops
}

func stopAll(stops []func() bool) {
	for _, stop := range stops {
		stop()
	}
}
