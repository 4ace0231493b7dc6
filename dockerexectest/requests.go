package dockerexectest

import (
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Request is a request as the engine got it.
type Request struct {
	Method string
	Path   string // without the API version: "/containers/create"
	Query  url.Values
	Body   []byte
	At     time.Time
}

// String returns the method and the path, as "POST /containers/create".
func (r Request) String() string { return r.Method + " " + r.Path }

// Requests are requests in the order of their arrival.
type Requests []Request

// Count returns how many requests match a pattern, such as
// "POST /containers/*/start". See [Engine.FailNext] for patterns.
func (r Requests) Count(pattern string) int {
	n, matches := 0, matcher(pattern)
	for _, request := range r {
		if matches(request.String()) {
			n++
		}
	}
	return n
}

// requestsKept bounds the memory that a long test takes.
const requestsKept = 10_000

// Requests returns the requests that the engine got, also those that a fault has hit. The
// engine keeps at least the latest 10,000. If it has dropped older ones, Requests fails the
// test: call [Engine.ForgetRequests] now and then.
func (e *Engine) Requests() Requests {
	e.mu.Lock()
	list, lost := slices.Clone(e.requests.list), e.requests.lost
	e.mu.Unlock()
	if lost > 0 {
		e.helper()
		e.failf("dockerexectest: only the latest %d requests are kept, %d more came before: call ForgetRequests", len(list), lost)
	}
	return list
}

// ForgetRequests drops all requests that [Engine.Requests] would return.
func (e *Engine) ForgetRequests() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.requests = requestLog{}
}

type requestLog struct {
	list []Request
	lost int
}

func (l *requestLog) add(r *request) {
	if len(l.list) == 2*requestsKept { // at twice the number, so that the list is seldom copied
		l.list = slices.Delete(l.list, 0, requestsKept)
		l.lost += requestsKept
	}
	l.list = append(l.list, Request{Method: r.method, Path: r.path, Query: r.query, Body: r.body, At: time.Now()})
}

// matcher compiles a pattern: "*" stands for any text that is not empty.
func matcher(pattern string) func(string) bool {
	parts := strings.Split(pattern, "*")
	for i, part := range parts {
		parts[i] = regexp.QuoteMeta(part)
	}
	compiled := regexp.MustCompile("^" + strings.Join(parts, ".+") + "$")
	return compiled.MatchString
}
