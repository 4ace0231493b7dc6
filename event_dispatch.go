package dockerexec

import (
	"sync/atomic"

	"github.com/docker/docker/api/types/events"
)

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
