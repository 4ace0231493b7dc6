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
	// errorWindow is how long the stream waits for the error of a failed request, after
	// the client has returned.
	errorWindow = 10 * time.Millisecond
	// settleWindow is the time from the opening of a stream until it counts as
	// restored. Right after the opening, an engine sends the events that it has kept. If
	// the last event is not among them again, events may be lost. After the same time
	// every watch inspects once more: an engine answers a moment before it begins to
	// send new events, and an event of that moment may be missed.
	settleWindow = time.Second
	// refusedAfter is how long requests must have failed before a time-out, or an answer
	// such as 503, counts as a refusal. An engine has this time to restart behind a
	// proxy that answers meanwhile.
	refusedAfter = time.Minute
	// lookBack is how far the first request goes back in time. The engine's clock may be
	// this much behind the clock of this host.
	lookBack = 5 * time.Second
	// Engine 29 rounds an event's time to a float64 for API versions below 1.52.
	eventRounding = 1000 // nanoseconds; the error is at most 128
	// rememberedEvents is how many events an engine keeps: only these can come twice.
	rememberedEvents = 256
)

// errStreamEnded is the end of a stream without an error. Only a fake's stream ends so.
var errStreamEnded = errors.New("the event stream ended without an error")

// eventReader is what the goroutine of a streamRun keeps from one request to the next. In
// this file, a run is a streamRun.
type eventReader struct {
	memory eventMemory
	last   eventKey // the last event; the next request begins there; zero: none
	outage outage
	shown  awayState // how the metrics show the stream
	failed time.Time // the time of the first failure that this run saw in this outage; zero: none yet
	hinted time.Time // when the watches were last told that the stream was opened
	// flaps counts how often in a row the stream broke before it was proven. From the
	// second time on, the watches are told of an opening only every refusedInterval. So a
	// stream that opens and closes at once costs no more inspects than a refused one.
	flaps int

	// The current request.
	open     time.Time // when it was established; zero: not yet
	late     bool      // it was not answered within answerWindow
	resuming bool      // the engine has not yet sent the last event again, as it must
	good     bool      // a new event has come
	proven   bool      // a new event has come, or settleWindow has passed
}

// read is the goroutine of a run. It opens the stream, and opens it again whenever it
// breaks, until ctx ends. previous delivers the outage of the run before; nil: there
// was none.
func (r *streamRun) read(ctx context.Context, previous <-chan outage) {
	rd := &r.reader
	defer close(r.done)
	defer func() {
		r.showOutage(ctx, "")
		r.ended <- rd.outage
		r.stream.observer.join()
	}()
	if previous != nil {
		rd.outage = receiveWithin(joinTimeout, previous)
	}
	if rd.outage.away {
		_ = sleep(ctx, rd.outage.pauses.next()) // the loop looks at ctx
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
	rd.open, rd.late, rd.resuming, rd.good, rd.proven = time.Time{}, false, false, false, false

	opened, err := r.request(ctx)
	if err != nil {
		return err
	}
	timer := time.NewTimer(opened.settle) // once established: settleWindow
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
			if err == io.EOF || err == errStreamEnded { //nolint:errorlint // bare: the end of a good answer; a failed request wraps it
				established()
			}
			r.drain(ctx, opened.messages)
			if rd.open.IsZero() && opened.failed != nil {
				opened.failed(ctx, r.hidden(err))
			}
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

// request makes the request, and returns when the client does. A proxy may hold back the
// header of the answer, for ever if no event comes.
func (r *streamRun) request(ctx context.Context) (opened openedEvents, err error) {
	since, asked := r.reader.since(), time.Now()
	late, done := make(chan struct{}, 1), make(chan struct{})
	go func() {
		defer close(done)
		opened, err = r.stream.request(ctx, since, func() {
			select {
			case late <- struct{}{}:
			default: // the connection was made twice
			}
		})
	}()
	select {
	case <-done:
	case <-late:
		if ctx.Err() == nil {
			r.unanswered(ctx, asked)
		}
		<-done
	}
	return opened, err
}

// unanswered notes that the current request has no answer yet. Until it has one, watches
// go on without the stream.
func (r *streamRun) unanswered(ctx context.Context, asked time.Time) {
	rd := &r.reader
	rd.late = true
	if !rd.outage.refused {
		rd.outage.refused = true
		log.G(ctx).Warn("event stream not answered, containers are inspected every ten seconds until it is opened")
		r.stream.observer.tell(ctx, EngineEvent{Kind: EngineRefused, Err: errUnanswered})
	}
	r.beginOutage(ctx, asked, awayUnanswered)
	r.lost(true)
}

// drain receives the events that a fake had ready when it ended the stream. The channel
// of a real client is empty then.
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

// established notes that the current request has been answered.
func (r *streamRun) established(ctx context.Context) {
	rd := &r.reader
	rd.open = time.Now()
	rd.outage.away = false
	if !rd.outage.since.IsZero() {
		rd.outage.gap = time.Since(rd.outage.since)
	}
	hint := rd.flaps < 2 || time.Since(rd.hinted) >= refusedInterval
	if hint {
		rd.hinted = time.Now()
	}
	opens := r.opened(hint)
	rd.resuming = rd.last != eventKey{}
	if opens > 1 && !rd.resuming {
		r.loss(ctx, "no event was seen before")
	}
}

// receive handles one event of the stream.
func (r *streamRun) receive(ctx context.Context, m events.Message) {
	rd := &r.reader
	m.Action = dockerAction(m.Action)
	key := keyOf(m)
	if key.timeNano != 0 { // zero: from a fake; such an event is never a repeated one, and no request begins at it
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
		r.endOutage(ctx)
	}
	r.dispatch(m)
}

// prove is called when the stream has been open for settleWindow.
func (r *streamRun) prove(ctx context.Context) {
	if r.reader.resuming {
		r.loss(ctx, "nothing came back")
	}
	r.endOutage(ctx)
	r.reader.hinted = time.Now()
	r.hintAll()
}

// loss tells the subscribers that events may be lost.
func (r *streamRun) loss(ctx context.Context, why string) {
	r.reader.resuming = false
	told := r.resync()
	r.stream.telemetry.resyncs.Add(ctx, 1, resyncCauses[resyncLost])
	log.G(ctx).WithFields(log.Fields{"why": why, "subscribers": told}).Debug("events may be lost, subscribers are told to resync")
}

// broke notes that the current request has failed or ended. It returns the pause before
// the next one.
func (r *streamRun) broke(ctx context.Context, err error) time.Duration {
	rd := &r.reader
	refused := rd.refusedBy(err)
	err = r.hidden(err)
	switch {
	case rd.proven:
		rd.flaps = 0
	case !rd.open.IsZero():
		rd.flaps++
	}
	r.lost(refused)
	if rd.good || !rd.open.IsZero() && time.Since(rd.open) > longestPause {
		rd.outage.pauses.reset()
	}
	rd.outage.away = true
	pause := rd.outage.pauses.next()
	entry, state := log.G(ctx).WithError(err), awayLost
	if refused {
		state = awayRefused
	}
	switch {
	case refused && !rd.outage.refused:
		rd.outage.refused = true
		entry.Warn("event stream refused, containers are inspected every ten seconds until it is opened")
		r.stream.observer.tell(ctx, EngineEvent{Kind: EngineRefused, Err: err})
	case !rd.outage.since.IsZero():
		entry.WithField("pause", pause).Debug("event stream not restored yet")
	default:
		entry.Warn("event stream lost, it is opened again as soon as the engine answers")
		r.stream.observer.tell(ctx, EngineEvent{Kind: EngineLost, Err: err})
	}
	r.beginOutage(ctx, time.Now(), state)
	if rd.failed.IsZero() {
		rd.failed = time.Now()
	}
	return pause
}

// refusedBy reports whether the current request, which ended with err, was refused. A
// refusal means that something answers, and may answer inspects too. A request without
// a connection, or one that opened the stream, was not refused. A time-out, or an answer
// such as 503, is a refusal in two cases: requests have failed for refusedAfter, or the
// answer was late. Otherwise the engine may be restarting behind a proxy, or busy.
func (rd *eventReader) refusedBy(err error) bool {
	if !rd.open.IsZero() {
		return false
	}
	refusal := verdictOf(err).stream
	long := rd.late || !rd.failed.IsZero() && time.Since(rd.failed) >= refusedAfter
	return refusal == refusedAtOnce || refusal == refusedAfterAMinute && long
}

// since is the time at which the next request begins: just before the last event, which the
// engine must send again. Without a last event, it is lookBack before now, by this host's clock.
func (rd *eventReader) since() string {
	nano := rd.last.timeNano - eventRounding
	if nano <= 0 { // an engine takes no time from before 1970
		nano = time.Now().Add(-lookBack).UnixNano()
	}
	return fmt.Sprintf("%d.%09d", nano/1e9, nano%1e9)
}

// eventKey tells events apart. The time alone does not: several events may have the
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

// eventMemory remembers the keys of the last rememberedEvents events, in some 50 KiB.
type eventMemory struct {
	keys   []eventKey // a ring
	oldest int        // where the next key goes once the ring is full
	newest int64      // the highest time so far
}

// has reports whether key is remembered. Events come almost in the order of time. So
// the ring is searched only for a time that is not later than all others.
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

// dispatch hands an event to the subscribers of its container. It never blocks. Its
// cost does not depend on the number of other subscribers.
//
// Anybody can put a task's label on a container. So an event with a label belongs to
// the task only if its container also has the task's container name, or the ID that
// inspect has seen. An engine sends all labels of a container with each of its events.
// Fakes of swarmd/dockerexec's tests send the name alone.
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
	if len(slow) > 0 {
		r.stream.telemetry.resyncs.Add(context.Background(), int64(len(slow)), resyncCauses[resyncSlow])
	}
	stopAll(stops)
}

// resync tells every subscriber that was there before the last opening that events may
// be lost. It returns how many it told. Watches need not be told: the methods opened and
// prove send them hints, and so they inspect.
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

// dismissLocked takes subscribers off the run, and closes each one's channel named
// closed. The caller must call the returned functions without the lock, because they
// call into contexts, which may be of any type.
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

// hidden returns err without the secrets of any subscriber's task.
func (r *streamRun) hidden(err error) error {
	r.stream.mu.Lock()
	var subscribers []*subscriber
	for _, of := range r.byTask {
		subscribers = append(subscribers, of...)
	}
	r.stream.mu.Unlock()
	err = scrubber{}.hide(err)
	for _, s := range subscribers {
		err = s.hide(err)
	}
	return err
}
