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
	// inspectInterval is how often a watch inspects without any hint, give or
	// take a tenth.
	inspectInterval = 5 * time.Minute
	// refusedInterval is the same while the engine refuses the event stream.
	refusedInterval = 10 * time.Second
	// burstWindow is how long a hint waits for the others of a burst: an end is
	// kill, die and stop, milliseconds apart.
	burstWindow = 20 * time.Millisecond
	// spreadTime is over how long the inspects of all watches are spread when
	// the stream gives every one of them a hint.
	spreadTime = 250 * time.Millisecond
)

// eventActions are the actions that the stream asks for. An engine takes them
// for prefixes because of health_status, which goes on with the status. None is
// a prefix of exec_create, exec_start and exec_die, which a health check puts
// on the stream at every run.
var eventActions = []events.Action{
	events.ActionCreate, events.ActionStart, events.ActionDie, events.ActionKill, events.ActionStop, events.ActionOOM,
	events.ActionDestroy, events.ActionRename, events.ActionPause, events.ActionUnPause, events.ActionHealthStatus,
}

// eventsClient is the part of the engine's client that makes the stream's requests.
type eventsClient interface {
	Events(ctx context.Context, options events.ListOptions) (<-chan events.Message, <-chan error)
}

// openedEvents is one request for events.
type openedEvents struct {
	messages <-chan events.Message
	errs     <-chan error
	// settle is how long to watch errs before the request counts as established.
	settle time.Duration
}

// openEvents asks the engine for the events of all tasks' containers, from
// since on.
//
// The client returns when it has the answer's header or has failed, and sends
// the failure a moment later; a fake may never send anything. So silence means
// success, after errorWindow, or much later if the request went out and nothing
// came back: then it has failed for certain, and only the error is missing.
func openEvents(ctx context.Context, client eventsClient, timeout time.Duration, since string) (openedEvents, error) {
	filter := filters.NewArgs(filters.Arg("type", string(events.ContainerEventType)), filters.Arg("label", labelTask))
	for _, action := range eventActions {
		filter.Add("event", string(action))
	}
	// The client waits for the answer's header without an end of its own.
	if timeout <= 0 {
		timeout = math.MaxInt64
	}
	openCtx, cancel := context.WithCancel(ctx) // ends with ctx at the latest
	late := time.AfterFunc(timeout, cancel)
	var asked, answered atomic.Bool
	openCtx = httptrace.WithClientTrace(openCtx, &httptrace.ClientTrace{
		GetConn:              func(string) { asked.Store(true) },
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
//   - An eventStream lives as long as its Engine. It knows the run there is.
//   - A streamRun is one life of the stream: the first subscriber starts it, the
//     last to leave ends it and waits for its goroutine. Who is subscribed and
//     whether the stream is open is guarded by eventStream.mu.
//   - The run's goroutine, in event_reader.go, makes the requests, one at a
//     time, and has all else to itself: position, memory, pauses. It never waits
//     for a subscriber.
//   - A subscriber has no goroutine. The run's goroutine sends to its channels,
//     under mu; whoever takes it off the run closes the one that tells so.

const (
	// eventQueue is how many events wait for a reader before it is told to
	// resync.
	eventQueue = 8
	// joinTimeout is how long the end of a run is waited for. The client obeys
	// its context, so this is for fakes that do not.
	joinTimeout = time.Second
)

// eventStream is the event stream of an Engine. It is closed while nobody is
// subscribed.
type eventStream struct {
	request func(ctx context.Context, since string) (openedEvents, error)

	mu   sync.Mutex
	run  *streamRun    // nil: nobody is subscribed
	left <-chan outage // what the goroutine of the run before leaves when it ends; nil: there was none
}

// streamRun is one life of the stream.
type streamRun struct {
	stream *eventStream
	cancel context.CancelFunc // ends the goroutine
	left   chan outage        // the goroutine's last words, for the next run; has room for them
	done   chan struct{}      // closed by the goroutine when it has ended

	// Guarded by stream.mu.
	byTask map[string][]*subscriber
	byName map[string][]*subscriber // the same ones, by their container's name
	count  int
	opens  int           // how often the stream has been open
	open   chan struct{} // closed while the stream is open; a new one when it is lost
	isOpen bool
	// closed while the stream counts as refused, see eventReader.refusedBy; a new one
	// when it does not
	refused   chan struct{}
	isRefused bool

	reader eventReader // the goroutine's own
}

// subscribe puts sub on the stream, which starts for the first one. It neither
// blocks nor fails, unless ctx has ended already.
//
// The stream belongs to no caller. So of the first subscriber's ctx it keeps
// the logger alone, without its fields, which are about a task.
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
			left:   make(chan outage, 1),
			done:   make(chan struct{}),
			byTask: map[string][]*subscriber{},
			byName: map[string][]*subscriber{},
			open:   make(chan struct{}),

			refused: make(chan struct{}),
		}
		go s.run.read(own, s.left)
	}
	s.run.addLocked(sub)
	return nil
}

// untilOpen waits until the stream is open. Who wants hints alone goes on without
// a stream that the engine refuses.
func (s *eventStream) untilOpen(ctx context.Context, sub *subscriber) error {
	s.mu.Lock()
	run := sub.run
	if run == nil { // told to resync already, for which the stream was open
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

// inspectInterval is how often to inspect without a hint.
func (s *eventStream) inspectInterval() time.Duration {
	if s.isRefused() {
		return refusedInterval
	}
	return inspectInterval
}

func (s *eventStream) isRefused() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.run != nil && s.run.isRefused
}

// leaveAfter has sub leave when ctx ends, and then closes its second channel.
// Until then it costs no goroutine.
func (s *eventStream) leaveAfter(ctx context.Context, sub *subscriber) {
	stop := context.AfterFunc(ctx, func() {
		if s.leave(sub) {
			close(sub.closed)
		}
	})
	s.mu.Lock()
	on := sub.run != nil
	if on {
		sub.stop = stop
	}
	s.mu.Unlock()
	if !on {
		stop()
	}
}

// leave takes sub off the stream and reports whether it was on. The last one to
// leave ends the stream and waits for it.
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

// removeLocked takes sub off the run, and ends the run with its last one.
func (r *streamRun) removeLocked(sub *subscriber) {
	remove(r.byTask, sub.task, sub)
	remove(r.byName, sub.name, sub)
	sub.run = nil
	r.count--
	if r.count == 0 {
		r.cancel()
		r.stream.run = nil
		r.stream.left = r.left
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

// opened lets waiting subscribers go on, and has every watch inspect if hint says so. It
// returns how often the stream has been open.
func (r *streamRun) opened(hint bool) int {
	r.stream.mu.Lock()
	defer r.stream.mu.Unlock()
	r.opens++
	r.isOpen = true
	close(r.open)
	r.setRefusedLocked(false)
	if hint {
		r.hintAllLocked()
	}
	return r.opens
}

// lost has subscribers that come now wait for the next opening, or go on without
// one if the engine refuses the stream.
func (r *streamRun) lost(refused bool) {
	r.stream.mu.Lock()
	defer r.stream.mu.Unlock()
	if r.isOpen {
		r.isOpen = false
		r.open = make(chan struct{})
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

// subscriber gets the events of one task's container, or hints that there were
// some.
type subscriber struct {
	task string
	name string                  // the container's
	id   *atomic.Pointer[string] // the container's, once an inspect has seen it

	// Either messages and closed, for events: both as Events describes them.
	messages chan events.Message
	closed   chan struct{}
	// Or hints, with room for one. True: every subscriber got that hint.
	hints chan bool

	// Guarded by eventStream.mu.
	run   *streamRun  // nil: not on the stream
	stop  func() bool // takes back leaveAfter
	opens int         // the first opening of the stream that serves it
}

// isAbout reports whether the container of an event is the one that is subscribed to.
func (s *subscriber) isAbout(name, id string) bool {
	if name != "" && name == s.name {
		return true
	}
	known := s.id.Load()
	return known != nil && *known == id
}

// offer reports false if there is no room for the event.
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
	default: // a hint waits already
	}
}

// dropHint takes back a hint that waits.
func (s *subscriber) dropHint() {
	select {
	case <-s.hints:
	default:
	}
}

// untilHint waits for a hint and the rest of its burst, or as long as limit.
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
