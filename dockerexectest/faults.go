package dockerexectest

import (
	"net/http"
	"strings"
	"time"
)

// Fault is what goes wrong with a request. [LoseAnswer], [Drop], [Refuse],
// [Slow], [CutBody], [Garble], [Call] and [Answer] make one. The zero value is no fault.
type Fault struct {
	kind    faultKind
	status  int
	message string
	wait    time.Duration
	bytes   int
	do      func()
}

type faultKind int

const (
	noFault faultKind = iota
	loseAnswer
	drop
	refuse
	slow
	cutBody
	garble
	call
	answerAs
)

// LoseAnswer carries the request out, but closes the connection before the answer.
func LoseAnswer() Fault { return Fault{kind: loseAnswer} }

// Drop closes the connection. The request is not carried out.
func Drop() Fault { return Fault{kind: drop} }

// Refuse answers with a status and a message. The request is not carried out.
func Refuse(status int, message string) Fault {
	return Fault{kind: refuse, status: status, message: message}
}

// Slow makes the engine wait for d before it carries the request out. The request is
// carried out even if the client has left by then. During a slow removal, the container
// has the state removing. During a slow create, the container's name is taken, but no
// inspect shows the container.
func Slow(d time.Duration) Fault { return Fault{kind: slow, wait: d} }

// CutBody closes the connection after that many bytes of the answer's body. It is meant
// for pulls, logs and events, but cuts all answers. A shorter answer is whole.
func CutBody(after int) Fault { return Fault{kind: cutBody, bytes: max(after, 0)} }

// Garble carries the request out, and answers with the right status and a body
// that is no JSON and no log.
func Garble() Fault { return Fault{kind: garble} }

// Call calls do when the request has come, and carries the request out afterwards, also
// if the client has left by then. So a test can have something happen at that moment: a
// container is removed by hand, the client gives up, the engine goes down. do must not
// close the engine. A nil do is no fault.
func Call(do func()) Fault { return Fault{kind: call, do: do} }

// Answer answers with a status and a body of JSON, which is sent as it is: a warning, or
// what no engine says. The request is not carried out.
func Answer(status int, body string) Fault {
	return Fault{kind: answerAs, status: status, message: body}
}

// armedFault is a fault that waits for its request.
type armedFault struct {
	pattern string
	matches func(request string) bool
	fault   Fault
	isOnce  bool
	hits    int
	isOver  bool
}

// FailNext makes the next request fail that matches a pattern. Faults queue up: each
// request takes the first fault whose pattern matches. It takes a fault of
// [Engine.FailAll] only if no fault of FailNext matches.
//
// A pattern is a method and a path without the API version. "*" stands for any text that
// is not empty: "POST /containers/*/start", "GET *", "*". If no request matches the
// pattern until the engine ends, the test fails.
func (e *Engine) FailNext(request string, f Fault) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.faults = append(e.faults, &armedFault{pattern: request, matches: matcher(request), fault: f, isOnce: true})
}

// FailAll makes every request fail that matches a pattern, until stop is called. See
// [Engine.FailNext] for patterns. stop may be called again.
func (e *Engine) FailAll(request string, f Fault) (stop func()) {
	armed := &armedFault{pattern: request, matches: matcher(request), fault: f}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.faults = append(e.faults, armed)
	return func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		armed.isOver = true
	}
}

// takeFault returns the fault of a request. The caller holds mu.
func (e *Engine) takeFault(method, path string) Fault {
	text := method + " " + path
	for _, once := range []bool{true, false} {
		for _, armed := range e.faults {
			if armed.isOnce == once && !armed.isOver && armed.matches(text) {
				armed.hits++
				armed.isOver = armed.isOnce
				return armed.fault
			}
		}
	}
	return Fault{}
}

// unusedFaults returns the patterns that no request has matched. The caller holds mu.
func (e *Engine) unusedFaults() []string {
	var patterns []string
	for _, armed := range e.faults {
		if armed.hits == 0 {
			patterns = append(patterns, armed.pattern)
		}
	}
	return patterns
}

// failBefore does what a fault does before the request is carried out. isOver says that a
// is the answer, and that the request is not carried out.
func (e *Engine) failBefore(r *request) (a answer, isOver bool) {
	switch kind := r.fault.kind; {
	case kind == drop:
		panic(http.ErrAbortHandler)
	case kind == refuse:
		return e.refusal(r, &apiError{status: r.fault.status, message: r.fault.message}), true
	case kind == answerAs:
		return answer{status: r.fault.status, body: r.fault.message, header: map[string]string{"Content-Type": "application/json"}}, true
	case kind == call && r.fault.do != nil:
		r.fault.do()
	case kind == slow && r.path != "/containers/create" && // createContainer and removeContainer wait themselves
		!(r.method == http.MethodDelete && strings.HasPrefix(r.path, "/containers/")):
		if !e.sleep(r.fault.wait, r.life) {
			panic(http.ErrAbortHandler)
		}
	}
	return answer{}, false
}
