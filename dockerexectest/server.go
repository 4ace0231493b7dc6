package dockerexectest

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/docker/docker/api/types"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/versions"
)

// request is one request as its handler sees it.
type request struct {
	ctx     context.Context // ends when the client has left, or the connection is cut
	cancel  context.CancelFunc
	life    <-chan struct{} // of the engine's process that carries the request out
	method  string
	path    string // without the version
	name    string // the variable part of the path
	version string // of the API
	query   url.Values
	header  http.Header
	body    []byte
	fault   Fault
	isCut   bool // the engine's mu guards it
}

// cut breaks the request's connection. The caller holds the engine's mu.
func (r *request) cut() {
	r.isCut = true
	r.cancel()
}

// flag reports whether a query parameter is set, by the engine's rules.
func (r *request) flag(name string) bool {
	switch strings.ToLower(strings.TrimSpace(r.query.Get(name))) {
	case "", "0", "no", "false", "none":
		return false
	}
	return true
}

// decode reads the request's body.
func (e *Engine) decode(r *request, into any) error {
	if err := json.NewDecoder(bytes.NewReader(r.body)).Decode(into); err != nil {
		return e.dialect.badJSON(err)
	}
	return nil
}

// filters reads the request's filters.
func (e *Engine) filters(r *request) (filters.Args, error) {
	text := r.query.Get("filters")
	args, err := filters.FromJSON(text)
	if err != nil {
		var value any
		if plain := json.Unmarshal([]byte(text), &value); plain != nil {
			err = plain
		}
		return args, e.dialect.badFilter(err)
	}
	return args, nil
}

// unservedError names an option that Docker has and this engine does not serve. A handler
// returns it to fail the test.
type unservedError string

func (u unservedError) Error() string { return string(u) }

// filtersOf reads the filters of a list. served and others are the names that Docker
// knows. A filter of others fails the test. Any other name is refused, as Docker refuses it.
func (e *Engine) filtersOf(r *request, served, others string) (filters.Args, error) {
	args, err := e.filters(r)
	if err != nil {
		return args, err
	}
	for _, name := range slices.Sorted(slices.Values(args.Keys())) {
		switch {
		case slices.Contains(strings.Fields(served), name):
		case slices.Contains(strings.Fields(others), name):
			return args, unservedError("the filter " + name)
		default:
			return args, e.dialect.say(http.StatusBadRequest, "Invalid filter '"+name+"'", "invalid filter '"+name+"'")
		}
	}
	return args, nil
}

// atLeast reports whether the request's API version is version or newer.
func (r *request) atLeast(version string) bool {
	return versions.GreaterThanOrEqualTo(r.version, version)
}

// answer is the answer to a request. The zero value is 204 without a body.
type answer struct {
	status      int
	body        any    // encoded as JSON; a string is sent as it is
	contentType string // of a stream; empty: JSON
	header      map[string]string

	// stream, if not nil, writes the body after a status of 200. If it returns an error,
	// the connection is cut.
	stream func(w io.Writer) error
	// carriesOut says that the stream carries the request out, as for a pull.
	carriesOut bool
	// ended, if not nil, is called once at the end, even if stream was not called.
	ended func()
}

// noContentType is the contentType of an answer without such a header.
const noContentType = "-"

var versionPrefix = regexp.MustCompile(`^/v([0-9]+\.[0-9]+)(/.*)$`)

// serve answers one request.
func (e *Engine) serve(w http.ResponseWriter, hr *http.Request) {
	body, err := io.ReadAll(hr.Body)
	if err != nil {
		panic(http.ErrAbortHandler) // the client left before the end of the body: nothing is carried out
	}
	r := &request{method: hr.Method, path: hr.URL.Path, query: hr.URL.Query(), header: hr.Header, body: body}
	if found := versionPrefix.FindStringSubmatch(r.path); found != nil {
		r.version, r.path = found[1], found[2]
	}
	r.ctx, r.cancel = context.WithCancel(hr.Context())
	defer r.cancel()

	e.mu.Lock()
	if e.isDown || e.isClosed {
		e.mu.Unlock()
		panic(http.ErrAbortHandler)
	}
	e.working.Add(1)
	defer e.working.Done()
	e.inflight[r] = true
	r.life = e.life
	e.requests.add(r)
	e.mu.Unlock()
	defer func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		delete(e.inflight, r)
	}()

	e.waitWhileHung(r.life)
	e.mu.Lock()
	r.fault = e.takeFault(r.method, r.path)
	if r.version == "" {
		r.version = e.apiVersion
	}
	newest, oldest := e.apiVersion, e.minAPIVersion
	e.mu.Unlock()

	header := w.Header()
	header.Set("Api-Version", newest)
	if e.dialect != PodmanV4 {
		header.Set("Ostype", "linux")
		header.Set("Docker-Experimental", "false")
	}
	header.Set("Server", e.dialect.server())
	e.send(w, r, e.carryOut(r, newest, oldest))
}

// carryOut does what a request asks for.
func (e *Engine) carryOut(r *request, newest, oldest string) answer {
	if a, isOver := e.failBefore(r); isOver {
		return a
	}
	switch {
	case versions.LessThan(r.version, oldest):
		return e.refusal(r, badRequest("client version %s is too old. Minimum supported API version is %s, please upgrade your client to a newer version", r.version, oldest))
	case versions.GreaterThan(r.version, newest):
		return e.refusal(r, badRequest("client version %s is too new. Maximum supported API version is %s", r.version, newest))
	}
	found := findRoute(r)
	if found == nil {
		return e.unserved(r, r.method+" "+r.path+" is not served")
	}
	known := strings.Fields(found.query)
	for _, name := range slices.Sorted(maps.Keys(r.query)) {
		if !slices.Contains(known, name) {
			return e.unserved(r, r.method+" "+r.path+" is not served with the query parameter "+name)
		}
	}
	a, err := found.does(e, r)
	if option, ok := err.(unservedError); ok { //nolint:errorlint // handlers return it bare
		return e.unserved(r, r.method+" "+r.path+" is not served with "+string(option))
	}
	if err != nil {
		return e.refusal(r, err)
	}
	return a
}

// unserved fails the test, and returns the answer to a request that is not served.
func (e *Engine) unserved(r *request, what string) answer {
	e.mu.Lock()
	isClosed := e.isClosed
	e.mu.Unlock()
	if !isClosed {
		e.failf("dockerexectest: %s", what)
	}
	return e.refusal(r, &apiError{status: http.StatusNotImplemented, message: "dockerexectest: " + what})
}

// send writes the answer, with the request's fault.
func (e *Engine) send(w http.ResponseWriter, r *request, a answer) {
	if a.ended != nil {
		defer a.ended()
	}
	out := &answerWriter{engine: e, request: r, to: w, left: -1}
	switch kind := r.fault.kind; {
	case kind == loseAnswer:
		if a.stream != nil && a.carriesOut {
			_ = a.stream(io.Discard)
		}
		panic(http.ErrAbortHandler)
	case kind == cutBody:
		out.left = r.fault.bytes
	case kind == garble:
		out.garbles = true
	}
	e.waitWhileHung(r.life)
	if e.wasCut(r) {
		panic(http.ErrAbortHandler)
	}
	for name, value := range a.header {
		w.Header().Set(name, value)
	}
	if a.stream != nil {
		w.Header().Set("Content-Type", "application/json")
		switch a.contentType {
		case "":
		case noContentType:
			w.Header()["Content-Type"] = nil // or net/http guesses a type
		default:
			w.Header().Set("Content-Type", a.contentType)
		}
		w.WriteHeader(http.StatusOK)
		_ = http.NewResponseController(w).Flush()
		if err := a.stream(out); err != nil || e.wasCut(r) {
			panic(http.ErrAbortHandler)
		}
		return
	}
	var text []byte
	switch body := a.body.(type) {
	case nil:
	case string:
		text = []byte(body)
	default:
		text, _ = json.Marshal(body)
		text = append(text, '\n')
		w.Header().Set("Content-Type", "application/json")
	}
	if a.status == 0 {
		a.status = http.StatusNoContent
		if len(text) > 0 {
			a.status = http.StatusOK
		}
	}
	w.WriteHeader(a.status)
	if len(text) > 0 && r.method != http.MethodHead {
		_, _ = out.Write(text)
	}
}

func (e *Engine) wasCut(r *request) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return r.isCut
}

// refusal returns the answer for an error. API versions below 1.24 get plain text.
func (e *Engine) refusal(r *request, err error) answer {
	refused, ok := err.(*apiError) //nolint:errorlint // handlers return it bare
	if !ok {
		refused = &apiError{status: http.StatusInternalServerError, message: err.Error()}
	}
	if refused.status == http.StatusNotModified {
		return answer{status: refused.status}
	}
	if e.dialect != PodmanV4 && !r.atLeast("1.24") {
		return answer{status: refused.status, body: refused.message + "\n", header: map[string]string{"Content-Type": "text/plain; charset=utf-8"}}
	}
	return answer{status: refused.status, body: e.dialect.errorBody(refused)}
}

// waitWhileHung waits until the engine does not hang, or life is closed.
func (e *Engine) waitWhileHung(life <-chan struct{}) {
	for {
		e.mu.Lock()
		hung := e.hung
		e.mu.Unlock()
		if hung == nil {
			return
		}
		select {
		case <-hung:
		case <-life:
			return
		}
	}
}

// answerWriter sends a body, each write at once.
type answerWriter struct {
	engine  *Engine
	request *request
	to      http.ResponseWriter
	left    int // bytes until the connection is cut; negative: no limit
	garbles bool
}

func (w *answerWriter) Write(p []byte) (int, error) {
	w.engine.waitWhileHung(w.request.life)
	if w.garbles {
		p = garbled(p)
	}
	cuts := w.left >= 0 && len(p) >= w.left
	if cuts {
		p = p[:w.left]
	}
	n, err := w.to.Write(p)
	if err == nil {
		err = http.NewResponseController(w.to).Flush()
	}
	if cuts {
		panic(http.ErrAbortHandler)
	}
	if w.left >= 0 {
		w.left -= n
	}
	return n, err
}

// garbled changes a body, so that it is neither JSON nor a log any more.
func garbled(p []byte) []byte {
	other := make([]byte, len(p))
	for i, b := range p {
		other[i] = b ^ 0x5a
	}
	return other
}

func pingOf(version string) types.Ping { return types.Ping{APIVersion: version, OSType: "linux"} }
