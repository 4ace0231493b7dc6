package engine_test

import (
	"net/http"
	"strconv"
	"strings"
)

// fault is what befalls one request on its way to the engine and back.
type fault string

const (
	faultRefused fault = "refused" // nobody listens
	faultReset   fault = "reset"   // the connection is reset, the engine saw nothing
	faultHeader  fault = "header"  // reset in the midst of the answer's header
	faultBody    fault = "body"    // reset in the midst of the answer's body
	faultCut     fault = "cut"     // closed at any byte of the answer
	faultGarbled fault = "garbled" // a body that is no JSON
	faultEmpty   fault = "empty"   // no body
	fault403     fault = "403"     // a proxy forbids the request
	fault404     fault = "404"
	fault409     fault = "409"
	fault429     fault = "429"
	fault500     fault = "500"
	fault503     fault = "503"
	faultNever   fault = "never"  // neither the engine nor the client hears anything
	faultSlow    fault = "slow"   // the answer comes at one byte a second
	faultLost    fault = "lost"   // closed without any byte of the answer
	faultCancel  fault = "cancel" // the caller's context ends while the answer is held back
)

// faults are all of them, in the order of the matrix's columns.
var faults = []fault{
	faultRefused, faultReset, faultHeader, faultBody, faultCut,
	faultGarbled, faultEmpty,
	fault403, fault404, fault409, fault429, fault500, fault503,
	faultNever, faultSlow, faultLost, faultCancel,
}

// carriedOut reports whether the engine does what the request asks for.
func (f fault) carriedOut() bool {
	switch f {
	case faultHeader, faultBody, faultCut, faultGarbled, faultEmpty, faultSlow, faultLost, faultCancel:
		return true
	default:
		return false
	}
}

// status is that of an answer which the engine did not give, or 0.
func (f fault) status() int {
	status, _ := strconv.Atoi(string(f))
	return status
}

// notJSON is the body of a garbled answer. As a log's it has no frames.
const notJSON = "<html><body>It works!</body></html>"

// faultPlan says which request gets a fault.
type faultPlan struct {
	fault   fault
	target  string // "METHOD path" without the version; a * is anything
	nth     int    // the how many-th of the requests that match; 0: every one
	before  bool   // and all before it
	message string // what an answer with a status says
	endless bool   // the answer has no end; what comes of it at once is taken
	sample  string // instead of what comes at once, where nothing does
	others  map[string]answerInstead
}

// answerInstead is what requests that match a pattern are answered, every time.
type answerInstead struct {
	status  int
	message string
}

// matchesPattern reports whether text is pattern, in which one * is anything.
func matchesPattern(pattern, text string) bool {
	before, after, found := strings.Cut(pattern, "*")
	if !found {
		return pattern == text
	}
	return len(text) >= len(before)+len(after) && strings.HasPrefix(text, before) && strings.HasSuffix(text, after)
}

// asked is a request as patterns have it.
func asked(r *http.Request) string {
	path := strings.TrimPrefix(r.URL.Path, "/")
	if version, rest, found := strings.Cut(path, "/"); found && strings.HasPrefix(version, "v1.") {
		path = rest
	}
	return r.Method + " " + path
}
