package dockerexec

import (
	"context"
	"reflect"
	"runtime"
	"sync"
	"sync/atomic"
	"unsafe"

	"github.com/moby/swarmkit/v2/agent/exec"
)

// logTurns lets one task at a time publish to one publisher. An agent hands the same
// publisher to the controllers of all tasks whose log is wanted. Behind it is one gRPC stream,
// and only one goroutine may send on that. If the stream is full and two wait, the room that
// comes wakes one of them. The other may wait for ever, and the rest of its log never comes.
//
// Each Engine has its own. One for all could not be used by two tests with fake time.
type logTurns struct {
	mu    sync.Mutex
	turns map[any]*logTurn // by turnKey, while a log is published there
}

// logTurn is what the calls with one publisher share: a lock for which a caller need not wait
// longer than its context lasts. Nearly always nobody else wants it: then it costs a line next to
// nothing.
type logTurn struct {
	users  int
	state  atomic.Int64  // turnTaken if somebody has the turn; and turnWaits for each who waits
	handed chan struct{} // who ends a turn hands it to one who waits
}

const turnTaken, turnWaits = 1, 2

// take waits for the turn. Whoever has waited longest gets it next, but not if its context has
// ended: the agent's publisher would end its stream then, for all tasks.
func (t *logTurn) take(ctx context.Context) error {
	if t == nil || t.state.CompareAndSwap(0, turnTaken) {
		return nil
	}
	return t.wait(ctx)
}

// wait is take where somebody else has the turn.
func (t *logTurn) wait(ctx context.Context) error {
	for {
		state := t.state.Load()
		if state == 0 && t.state.CompareAndSwap(0, turnTaken) {
			return nil
		}
		if state != 0 && t.state.CompareAndSwap(state, state+turnWaits) {
			return t.await(ctx)
		}
	}
}

// await waits until the turn is handed to the caller, who counts among those who wait.
func (t *logTurn) await(ctx context.Context) error {
	select {
	case <-t.handed:
		if ctx.Err() == nil {
			return nil
		}
		t.end()
	case <-ctx.Done():
		for !t.stopWaiting() { // a turn is on its way, which another one may take
			select {
			case <-t.handed:
				t.end()
				return ctx.Err()
			default:
				runtime.Gosched()
			}
		}
	}
	return ctx.Err()
}

// end gives the turn to one who waits, or to nobody.
func (t *logTurn) end() {
	if t != nil && !t.state.CompareAndSwap(turnTaken, 0) {
		t.hand()
	}
}

// hand is end where somebody waits.
func (t *logTurn) hand() {
	for {
		state := t.state.Load()
		if state == turnTaken && t.state.CompareAndSwap(turnTaken, 0) {
			return
		}
		if state != turnTaken && t.state.CompareAndSwap(state, state-turnWaits) {
			t.handed <- struct{}{} // has room: there is one turn
			return
		}
	}
}

// stopWaiting takes back that the caller waits. It reports false if that is too late.
func (t *logTurn) stopWaiting() bool {
	for {
		state := t.state.Load()
		if state == turnTaken {
			return false
		}
		if t.state.CompareAndSwap(state, state-turnWaits) {
			return true
		}
	}
}

// enter returns the turn of a publisher, which is valid until leave is called; nil: nobody can
// tell who else has it.
func (l *logTurns) enter(publisher exec.LogPublisher) (t *logTurn, leave func()) {
	key := turnKey(publisher)
	if key == nil {
		return nil, func() {}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if t = l.turns[key]; t == nil {
		t = &logTurn{handed: make(chan struct{}, 1)}
		if l.turns == nil {
			l.turns = map[any]*logTurn{}
		}
		l.turns[key] = t
	}
	t.users++
	return t, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if t.users--; t.users == 0 {
			delete(l.turns, key)
		}
	}
}

// turnKey is what copies of one publisher have in common, and no two publishers; nil: nobody
// can tell.
func turnKey(publisher exec.LogPublisher) any {
	if function, ok := publisher.(exec.LogPublisherFunc); ok {
		// Go does not compare functions. A function is a pointer to its code and the variables
		// that it has from around it, and copies have the same pointer. The agent's publisher
		// is such a function. The code alone does not tell: a loop makes many with one code.
		return *(*unsafe.Pointer)(unsafe.Pointer(&function))
	}
	if reflect.ValueOf(publisher).Comparable() {
		return publisher
	}
	return nil
}
