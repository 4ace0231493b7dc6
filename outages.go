package dockerexec

import (
	"context"
	"sync"
	"time"

	"github.com/moby/swarmkit/v2/log"
	"github.com/pkg/errors"
)

// EngineEvent tells that the engine went away, or is back. See [WithEngineObserver].
type EngineEvent struct {
	Kind EngineEventKind
	// Err says why, without secrets. It is nil for EngineRestored.
	Err error
	// Gap is how long the event stream was away. It is 0 but for EngineRestored.
	Gap time.Duration
}

// EngineEventKind is what an [EngineEvent] tells. An outage of the engine begins with
// EngineLost or EngineRefused, and ends with EngineRestored. EngineLost may be followed by
// EngineRefused. The zero value is no kind.
type EngineEventKind int

const (
	// EngineLost means that the event stream broke. Tasks wait. It is opened again as soon as the
	// engine answers.
	EngineLost EngineEventKind = iota + 1
	// EngineRefused means that the engine, or a proxy in front of it, refuses the event stream,
	// or does not answer the request for it. Tasks go on, as long as the engine answers other
	// requests: their containers are inspected every ten seconds.
	EngineRefused
	// EngineRestored means that the event stream is open again, and tasks go on.
	EngineRestored
)

// String returns "lost", "refused" or "restored".
func (k EngineEventKind) String() string {
	switch k {
	case EngineLost:
		return "lost"
	case EngineRefused:
		return "refused"
	case EngineRestored:
		return "restored"
	default:
		return "unknown"
	}
}

// errUnanswered is the reason of EngineRefused for a stream that is not answered.
var errUnanswered = errors.Errorf("the engine has not answered the request for events within %v", answerWindow)

// outage is what one run hands to the next. A caller may subscribe and leave again and
// again while the engine is away. The next run must continue with the grown pauses, and
// must not tell of the outage a second time.
type outage struct {
	since   time.Time     // when the stream was lost; zero: it works
	refused bool          // a refusal, or a missing answer, has been told
	away    bool          // the last request failed or broke
	gap     time.Duration // how long the stream had been lost when it was last opened
	pauses  backoff
}

// beginOutage notes that the stream is lost since then, unless it has been lost before. The
// metrics show the state.
func (r *streamRun) beginOutage(ctx context.Context, since time.Time, state awayState) {
	if rd := &r.reader; rd.outage.since.IsZero() {
		rd.outage.since = since
		r.stream.telemetry.outages.Add(ctx, 1)
	}
	r.showOutage(ctx, state)
}

// endOutage ends an outage, if there is one. It is called when the stream is proven,
// not when it opens. So a stream that opens and breaks all the time stays in one
// outage, which is told once.
func (r *streamRun) endOutage(ctx context.Context) {
	rd := &r.reader
	rd.proven = true
	if rd.outage.since.IsZero() {
		return
	}
	rd.outage.since, rd.outage.refused, rd.failed = time.Time{}, false, time.Time{}
	r.showOutage(ctx, "")
	log.G(ctx).WithField("gap", rd.outage.gap.Round(time.Millisecond)).Info("event stream restored")
	r.stream.telemetry.outageTimes.Record(ctx, rd.outage.gap.Seconds())
	r.stream.observer.tell(ctx, EngineEvent{Kind: EngineRestored, Gap: rd.outage.gap})
}

// showOutage counts the stream as one that is away in this state. The empty state is a
// stream that is not away, or that nobody needs.
func (r *streamRun) showOutage(ctx context.Context, state awayState) {
	if r.reader.shown == state {
		return
	}
	if before, counted := awayStates[r.reader.shown]; counted {
		r.stream.telemetry.away.Add(ctx, -1, before)
	}
	if now, counts := awayStates[state]; counts {
		r.stream.telemetry.away.Add(ctx, 1, now)
	}
	r.reader.shown = state
}

// awayTime returns how long the engine has been away in all, as far as the present run
// of the stream knows. The caller must be subscribed.
func (s *eventStream) awayTime() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.run == nil {
		return 0
	}
	away := s.run.away
	if !s.run.lostAt.IsZero() {
		away += time.Since(s.run.lostAt)
	}
	return away
}

func (s *eventStream) isRefused() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.run != nil && s.run.isRefused
}

// backLocked ends the time in which the engine is away. An engine that refuses the
// stream is not away.
func (r *streamRun) backLocked() {
	if !r.lostAt.IsZero() {
		r.away += time.Since(r.lostAt)
		r.lostAt = time.Time{}
	}
}

// toldEvents is how many events may wait for an observer. If one more comes, the oldest one
// is dropped: the newest ones say how the engine is now.
const toldEvents = 8

// engineObserver calls the function of [WithEngineObserver]. It has a goroutine only while
// there is something to tell. The goroutine ends when all is told; join waits for that.
// The zero value has no function.
type engineObserver struct {
	observe func(context.Context, EngineEvent)

	mu    sync.Mutex
	queue []toldEvent
	told  chan struct{} // closed when the goroutine ends; nil: there is none
}

type toldEvent struct {
	ctx   context.Context // of the run that tells it
	event EngineEvent
}

// tell hands an event to the observer. It never waits.
func (o *engineObserver) tell(ctx context.Context, event EngineEvent) {
	if o.observe == nil {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.queue) == toldEvents {
		o.queue = o.queue[1:]
	}
	o.queue = append(o.queue, toldEvent{ctx, event})
	if o.told == nil {
		o.told = make(chan struct{})
		go o.tellAll()
	}
}

func (o *engineObserver) tellAll() {
	for {
		o.mu.Lock()
		if len(o.queue) == 0 {
			close(o.told)
			o.told = nil
			o.mu.Unlock()
			return
		}
		next := o.queue[0]
		o.queue = o.queue[1:]
		o.mu.Unlock()
		o.observe(next.ctx, next.event)
	}
}

// join waits until all is told, at most for joinTimeout.
func (o *engineObserver) join() {
	o.mu.Lock()
	told := o.told
	o.mu.Unlock()
	if told != nil {
		receiveWithin(joinTimeout, told)
	}
}
