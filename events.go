package dockerexec

import (
	"context"
	"math"
	"math/rand/v2"
	"net/http/httptrace"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/docker/docker/api/types/events"
	"github.com/docker/docker/api/types/filters"
	"github.com/moby/swarmkit/v2/log"
)

const (
	// refusedInterval is how often a watch inspects while the engine refuses the event
	// stream.
	refusedInterval = 10 * time.Second
	// answerWindow is how long a request for events may stay without an answer. Then a
	// watch goes on without the stream, as if it were refused. The answer may still come.
	answerWindow = 5 * time.Second
	// burstWindow is how long a watch waits after a hint before it inspects. When a
	// container is stopped, the engine sends kill, die and stop, milliseconds apart: one
	// inspect serves all three.
	burstWindow = 20 * time.Millisecond
	// spreadTime spreads the inspects of all watches when the stream hints all of them
	// at once.
	spreadTime = 250 * time.Millisecond
)

// eventActions are the actions that the stream asks for. An engine treats each as a
// prefix, because it appends the status to health_status. No action in this list is a
// prefix of exec_create, exec_start or exec_die: each health check sends those.
var eventActions = []events.Action{
	events.ActionCreate, events.ActionStart, events.ActionDie, events.ActionKill, events.ActionStop, events.ActionOOM,
	events.ActionDestroy, events.ActionRename, events.ActionPause, events.ActionUnPause, events.ActionHealthStatus,
	actionDied, events.ActionRemove, // Podman's, see dockerAction
}

// eventsClient is the part of the engine's client that makes the stream's requests.
type eventsClient interface {
	Events(ctx context.Context, options events.ListOptions) (<-chan events.Message, <-chan error)
}

// openedEvents is one request for events.
type openedEvents struct {
	messages <-chan events.Message
	errs     <-chan error
	// settle is how long errs must stay silent before the request counts as
	// established.
	settle time.Duration
	// failed must be called with the error of a request that was never established. If
	// failed is nil, there is nothing to call.
	failed func(context.Context, error)
}

// openEvents asks the engine for the events of all tasks' containers, from since on.
//
// The client returns when it has the answer's header or has failed. It sends its error
// a moment later. A fake may never send anything. So silence for errorWindow means
// success. There is one exception: the client asked for a connection, and returned
// without an answer. Then it has failed for certain, and only its error is missing. So
// settle is much longer then.
//
// openEvents calls unanswered, from another goroutine, if no answer came within answerWindow
// after the connection was made. Without a connection the engine is away.
func openEvents(ctx context.Context, client eventsClient, timeout time.Duration, since string, unanswered func()) (openedEvents, error) {
	// Podman ignores a label without its value, and then sends nothing.
	filter := filters.NewArgs(filters.Arg("type", string(events.ContainerEventType)), filters.Arg("label", labelTask+"="))
	for _, action := range eventActions {
		filter.Add("event", string(action))
	}
	// The client sets no limit to the wait for the answer's header.
	if timeout <= 0 {
		timeout = math.MaxInt64
	}
	openCtx, cancel := context.WithCancel(ctx) // ends with ctx at the latest
	late := time.AfterFunc(timeout, cancel)
	silent := time.AfterFunc(answerWindow, unanswered) // begins now, because a fake makes no connection; a connection restarts it
	defer silent.Stop()
	var asked, answered atomic.Bool
	openCtx = httptrace.WithClientTrace(openCtx, &httptrace.ClientTrace{
		GetConn: func(string) {
			asked.Store(true)
			silent.Stop()
		},
		GotConn:              func(httptrace.GotConnInfo) { silent.Reset(answerWindow) },
		GotFirstResponseByte: func() { answered.Store(true) },
	})
	opened := openedEvents{settle: errorWindow}
	opened.messages, opened.errs = client.Events(openCtx, events.ListOptions{Since: since, Filters: filter})
	if !late.Stop() && ctx.Err() == nil {
		return openedEvents{}, requestTimeoutError(timeout)
	}
	if asked.Load() && !answered.Load() {
		opened.settle = time.Second
	}
	return opened, nil
}

// One event stream serves all adapters of an Engine. Who owns what:
//
//   - An eventStream lives as long as its Engine. It knows the current run.
//   - A streamRun is one life of the stream. The first subscriber starts it. The last
//     one to leave ends it and waits for its goroutine. eventStream.mu guards the
//     subscribers and whether the stream is open.
//   - The run's goroutine, in event_reader.go, makes one request at a time. Only this
//     goroutine uses the eventReader. It never waits for a subscriber.
//   - A subscriber has no goroutine. The run's goroutine sends to its channels, under
//     mu. Its channel named closed is closed when it leaves the run, or is taken off it.

const (
	// eventQueue is how many events may wait for a reader. If one more comes, the reader
	// is told to resync.
	eventQueue = 8
	// joinTimeout bounds the wait for the end of a run. The client obeys its context. A
	// fake may not.
	joinTimeout = time.Second
)

// eventStream is the event stream of an Engine. It is closed while nobody is
// subscribed.
type eventStream struct {
	request   func(ctx context.Context, since string, unanswered func()) (openedEvents, error)
	telemetry *telemetry
	observer  engineObserver

	mu       sync.Mutex
	run      *streamRun    // nil: nobody is subscribed
	previous <-chan outage // the run before sends here as it ends; nil: there was none
}

// streamRun is one life of the stream.
type streamRun struct {
	stream *eventStream
	cancel context.CancelFunc // ends the goroutine
	ended  chan outage        // the goroutine sends here once, as it ends, for the next run; has room for one
	done   chan struct{}      // closed by the goroutine after that

	// Guarded by stream.mu.
	byTask map[string][]*subscriber
	byName map[string][]*subscriber // the same subscribers, by their container's name
	count  int
	opens  int           // how often the stream has been open
	open   chan struct{} // closed while the stream is open; a new one when it is lost
	isOpen bool
	lostAt time.Time     // when the stream was lost; zero: it is open, was never open, or is refused
	away   time.Duration // how long all earlier losses of the stream took together
	// refused is closed while the stream counts as refused, see eventReader.refusedBy.
	// After that a new channel replaces it.
	refused   chan struct{}
	isRefused bool

	reader eventReader // only the goroutine uses it
}

// subscribe puts sub on the stream. The first subscriber starts the stream. subscribe
// never blocks. It fails only if ctx has ended already.
//
// The stream belongs to no caller: of the first subscriber's ctx it keeps only the
// logger, without its fields, which are about one task.
func (s *eventStream) subscribe(ctx context.Context, sub *subscriber) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.run == nil {
		own, cancel := context.WithCancel(log.WithLogger(context.Background(), log.G(ctx).Logger.WithFields(nil)))
		s.run = &streamRun{
			stream: s,
			cancel: cancel,
			ended:  make(chan outage, 1),
			done:   make(chan struct{}),
			byTask: map[string][]*subscriber{},
			byName: map[string][]*subscriber{},
			open:   make(chan struct{}),

			refused: make(chan struct{}),
		}
		go s.run.read(own, s.previous)
	}
	s.run.addLocked(sub)
	return nil
}

// untilOpen waits until the stream is open. A subscriber that gets only hints does not
// wait for a stream that the engine refuses or does not answer.
func (s *eventStream) untilOpen(ctx context.Context, sub *subscriber) error {
	s.mu.Lock()
	run := sub.run
	if run == nil { // already told to resync: the stream has been open
		s.mu.Unlock()
		return ctx.Err()
	}
	open, refused := run.open, run.refused
	s.mu.Unlock()
	if sub.hints == nil {
		refused = nil
	}
	select {
	case <-open:
	case <-refused:
	case <-ctx.Done():
	}
	return ctx.Err()
}

// leaveAfter makes sub leave when ctx ends, and closes sub.closed then. Until then it
// costs no goroutine.
func (s *eventStream) leaveAfter(ctx context.Context, sub *subscriber) {
	stop := context.AfterFunc(ctx, func() {
		if s.leave(sub) {
			close(sub.closed)
		}
	})
	s.mu.Lock()
	subscribed := sub.run != nil
	if subscribed {
		sub.stop = stop
	}
	s.mu.Unlock()
	if !subscribed {
		stop()
	}
}

// leave takes sub off the stream. It reports whether sub was on the stream. The last
// one to leave ends the stream and waits for its goroutine.
func (s *eventStream) leave(sub *subscriber) bool {
	s.mu.Lock()
	run := sub.run
	if run == nil {
		s.mu.Unlock()
		return false
	}
	run.removeLocked(sub)
	last := run.count == 0
	s.mu.Unlock()
	if last {
		receiveWithin(joinTimeout, run.done)
	}
	return true
}

func (r *streamRun) addLocked(sub *subscriber) {
	sub.run = r
	sub.opens = r.opens
	if !r.isOpen {
		sub.opens++
	}
	r.byTask[sub.task] = append(r.byTask[sub.task], sub)
	r.byName[sub.name] = append(r.byName[sub.name], sub)
	r.count++
}

// removeLocked takes sub off the run. Without a subscriber the run ends.
func (r *streamRun) removeLocked(sub *subscriber) {
	remove(r.byTask, sub.task, sub)
	remove(r.byName, sub.name, sub)
	sub.run = nil
	r.count--
	if r.count == 0 {
		r.cancel()
		r.stream.run = nil
		r.stream.previous = r.ended
	}
}

func remove(from map[string][]*subscriber, key string, sub *subscriber) {
	rest := slices.DeleteFunc(from[key], func(other *subscriber) bool { return other == sub })
	if len(rest) == 0 {
		delete(from, key)
		return
	}
	from[key] = rest
}

// opened lets the waiting subscribers go on. If hint is set, it makes every watch
// inspect. It returns how often the stream has been open.
func (r *streamRun) opened(hint bool) int {
	r.stream.mu.Lock()
	defer r.stream.mu.Unlock()
	r.opens++
	r.isOpen = true
	close(r.open)
	r.backLocked()
	r.setRefusedLocked(false)
	if hint {
		r.hintAllLocked()
	}
	return r.opens
}

// lost makes subscribers wait for the next opening. If the engine refuses the stream,
// subscribers that get only hints go on without it.
func (r *streamRun) lost(refused bool) {
	r.stream.mu.Lock()
	defer r.stream.mu.Unlock()
	if r.isOpen {
		r.isOpen = false
		r.open = make(chan struct{})
	}
	if refused {
		r.backLocked()
	} else if r.opens > 0 && r.lostAt.IsZero() {
		r.lostAt = time.Now()
	}
	r.setRefusedLocked(refused)
}

func (r *streamRun) setRefusedLocked(refused bool) {
	switch {
	case refused && !r.isRefused:
		close(r.refused)
		r.hintAllLocked()
	case !refused && r.isRefused:
		r.refused = make(chan struct{})
	}
	r.isRefused = refused
}

// hintAll makes every watch inspect.
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

// subscriber gets either the events of one task's container, or hints that there were
// some.
type subscriber struct {
	task string
	name string                  // the container's
	id   *atomic.Pointer[string] // the container's; nil until an inspect has seen it
	hide func(error) error       // takes the task's secrets out of an error of the engine

	// For events: both are as ContainerAdapter.Events describes them. Otherwise nil.
	messages chan events.Message
	closed   chan struct{}
	// For hints; nil for a subscriber to events. It has room for one hint. The hint is
	// true if it goes to all watches at once.
	hints chan bool

	// Guarded by eventStream.mu.
	run   *streamRun  // nil: not on the stream
	stop  func() bool // undoes leaveAfter
	opens int         // the number of the first opening that serves it
}

// isAbout reports whether an event with this name and ID is about the container.
func (s *subscriber) isAbout(name, id string) bool {
	if name != "" && name == s.name {
		return true
	}
	known := s.id.Load()
	return known != nil && *known == id
}

// offer hands the event on, or a hint. It reports false if there is no room for the
// event.
func (s *subscriber) offer(m events.Message) bool {
	if s.hints != nil {
		s.hint(false)
		return true
	}
	select {
	case s.messages <- m:
		return true
	default:
		return false
	}
}

func (s *subscriber) hint(everybody bool) {
	select {
	case s.hints <- everybody:
	default: // one hint waits already
	}
}

// dropHint drops a hint that waits.
func (s *subscriber) dropHint() {
	select {
	case <-s.hints:
	default:
	}
}

// untilHint waits for a hint and the rest of its burst. It waits at most for limit.
func (s *subscriber) untilHint(ctx context.Context, limit time.Duration) error {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case everybody := <-s.hints:
		pause := burstWindow
		if everybody {
			pause += rand.N(spreadTime)
		}
		timer.Reset(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
		}
	case <-timer.C:
	case <-ctx.Done():
	}
	return ctx.Err()
}
