package dockerexec

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	engineapi "github.com/docker/docker/client"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
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
	fault404, fault409, fault429, fault500, fault503,
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
	message string // what an answer with a status says
	sample  string // not empty: how the body begins of an answer that has no end
	others  map[string]answerInstead
}

// answerInstead is what requests that match a pattern are answered, every time.
type answerInstead struct {
	status  int
	message string
}

// faultProxy stands before an engine as its client's transport. The faults are
// those of real connections, for which each faulty request has a new one.
type faultProxy struct {
	server        *httptest.Server
	pass          *httputil.ReverseProxy
	engine        http.RoundTripper // to the engine
	plain, faulty *http.Transport   // to the proxy
	dead          string            // a socket on which nobody listens
	closing       chan struct{}
	handlers      sync.WaitGroup
	mu            sync.Mutex
	plan          *faultPlan
	matched       int           // requests of the plan that matched so far
	hit           chan struct{} // closed when the fault has come about
	release       chan struct{} // closed to let go of what is held back
	open          map[net.Conn]bool
	seen          []string
	where         string // where the answer was cut
	unfit         string // why the fault could not come about
}

// The headers by which the client's side tells the proxy's what to do.
const (
	faultHeaderName = "X-Fault"
	otherHeaderName = "X-Fault-Other" // the pattern
)

// newFaultProxy stands a proxy before the engine that transport leads to. dead is
// from deadSocket.
func newFaultProxy(transport http.RoundTripper, dead string) *faultProxy {
	p := &faultProxy{
		engine: transport, dead: dead, closing: make(chan struct{}), open: map[net.Conn]bool{},
	}
	p.pass = &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL.Scheme, r.Out.URL.Host, r.Out.Host = "http", "engine", r.In.Host
		},
		Transport:     transport,
		FlushInterval: -1,
		ErrorHandler:  func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
	}
	p.server = httptest.NewUnstartedServer(p)
	p.server.Config.ConnState = p.track
	p.server.Start()
	p.plain = &http.Transport{DialContext: p.dial, DisableCompression: true}
	p.faulty = &http.Transport{DisableCompression: true, DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
		if p.planned() == faultRefused {
			return new(net.Dialer).DialContext(ctx, "unix", p.dead)
		}
		return p.dial(ctx, network, address)
	}}
	return p
}

// deadSocket is the path of a socket on which nobody listens.
func deadSocket(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "") //nolint:usetesting // the path of a socket has 107 bytes at most, and t.TempDir has the test's name
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	path := filepath.Join(dir, "dead")
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	require.NoError(t, err)
	listener.SetUnlinkOnClose(false)
	require.NoError(t, listener.Close())
	return path
}

func (p *faultProxy) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	return new(net.Dialer).DialContext(ctx, "tcp", p.server.Listener.Addr().String())
}

func (p *faultProxy) track(conn net.Conn, state http.ConnState) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch state {
	case http.StateNew:
		p.open[conn] = true
	case http.StateClosed:
		delete(p.open, conn)
	default: // in use, or a handler's, which takes it off
	}
}

// client returns a client that goes through the proxy.
func (p *faultProxy) client() (*engineapi.Client, error) {
	return engineapi.NewClientWithOpts(engineapi.WithHost("tcp://engine:2375"), engineapi.WithHTTPClient(&http.Client{Transport: p}))
}

// arm has plan come about from now on. The channel is closed when it has.
func (p *faultProxy) arm(plan *faultPlan) <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.plan, p.matched, p.seen, p.where, p.unfit = plan, 0, nil, "", ""
	p.hit, p.release = make(chan struct{}), make(chan struct{})
	return p.hit
}

// disarm has all requests pass, and lets go of those that are held back. It
// returns what was asked for since arm, and why the fault did not come about.
func (p *faultProxy) disarm() (seen []string, where string, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	close(p.release)
	select {
	case <-p.hit:
	default:
		err = fmt.Errorf("no request %q among %q", p.plan.target, p.seen)
	}
	if p.unfit != "" {
		err = errors.New(p.unfit)
	}
	p.plan = nil
	return p.seen, p.where, err
}

func (p *faultProxy) planned() fault {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.plan == nil {
		return ""
	}
	return p.plan.fault
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

// RoundTrip is the client's side: it finds out whether a request gets the fault.
func (p *faultProxy) RoundTrip(r *http.Request) (*http.Response, error) {
	what := asked(r)
	p.mu.Lock()
	p.seen = append(p.seen, what)
	plan, through, hit := p.plan, p.plain, p.hit
	if plan != nil {
		for pattern := range plan.others {
			if matchesPattern(pattern, what) {
				r = r.Clone(r.Context())
				r.Header.Set(otherHeaderName, pattern)
			}
		}
		if matchesPattern(plan.target, what) {
			p.matched++
			if plan.nth == 0 || plan.nth == p.matched {
				through = p.faulty
				r = r.Clone(r.Context())
				r.Header.Set(faultHeaderName, string(plan.fault))
			}
		}
	}
	p.mu.Unlock()
	response, err := through.RoundTrip(r)
	if through == p.faulty && plan.fault == faultRefused {
		p.happened(hit)
	}
	return response, err
}

func (p *faultProxy) happened(hit chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-hit:
	default:
		close(hit)
	}
}

// ServeHTTP is the engine's side.
func (p *faultProxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.handlers.Add(1)
	defer p.handlers.Done()
	f := fault(r.Header.Get(faultHeaderName))
	other := r.Header.Get(otherHeaderName)
	r.Header.Del(faultHeaderName)
	r.Header.Del(otherHeaderName)
	p.mu.Lock()
	plan, hit, release := p.plan, p.hit, p.release
	p.mu.Unlock()
	switch {
	case plan == nil || f == "" && other == "":
		p.pass.ServeHTTP(w, r)
		return
	case f == "":
		answerStatus(w, plan.others[other].status, plan.others[other].message)
		return
	case f.status() != 0:
		p.happened(hit)
		answerStatus(w, f.status(), plan.message)
		return
	}

	var wire []byte
	var header int
	if f.carriedOut() {
		var err error
		if wire, header, err = p.forward(r, f, plan.sample); err != nil {
			p.mu.Lock()
			p.unfit = fmt.Sprintf("%s: %v", asked(r), err)
			p.mu.Unlock()
			panic(http.ErrAbortHandler)
		}
	}
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return // the client has gone
	}
	defer func() {
		conn.Close()
		p.mu.Lock()
		delete(p.open, conn)
		p.mu.Unlock()
	}()
	gone := make(chan struct{})
	p.handlers.Go(func() {
		defer close(gone)
		_, _ = io.Copy(io.Discard, conn) // until the client, or the handler, closes it
	})

	p.happened(hit)
	switch f {
	case faultReset, faultHeader, faultBody:
		n := map[fault]int{faultHeader: header / 2, faultBody: header + (len(wire)-header)/2}[f]
		_, _ = conn.Write(wire[:n])
		_ = conn.(*net.TCPConn).SetLinger(0) // a reset, not an end
	case faultCut:
		n := 1 + rand.N(max(len(wire)-1-atTheEnd(wire, header), 1))
		p.mu.Lock()
		p.where = fmt.Sprintf("cut after %d of %d bytes, %d of them header", n, len(wire), header)
		p.mu.Unlock()
		_, _ = conn.Write(wire[:n])
	case faultLost: // that is all
	case faultNever:
		select {
		case <-gone:
		case <-release:
		case <-p.closing:
		}
	case faultSlow:
		for i := range wire {
			if _, err := conn.Write(wire[i : i+1]); err != nil {
				return
			}
			select {
			case <-time.After(time.Second):
			case <-gone:
				return
			case <-p.closing:
				return
			}
		}
	case faultCancel:
		select {
		case <-release:
			_, _ = conn.Write(wire)
		case <-gone:
		case <-p.closing:
		}
	default: // garbled and empty answers are whole
		_, _ = conn.Write(wire)
	}
}

// atTheEnd is how many of the last bytes an answer may lack and say the same.
func atTheEnd(wire []byte, header int) int {
	if len(wire) == header {
		return 0
	}
	return len(wire) - header - len(bytes.TrimRight(wire[header:], "0\r\n}"))
}

func answerStatus(w http.ResponseWriter, status int, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	fmt.Fprintf(w, "{\"message\":%q}\n", message)
}

// forward has the engine carry the request out and returns its answer as it
// goes over the wire, and how long the header of that is.
func (p *faultProxy) forward(r *http.Request, f fault, sample string) (wire []byte, header int, err error) {
	out := r.Clone(context.WithoutCancel(r.Context())) // the engine has heard it
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, 0, err
	}
	out.RequestURI, out.URL.Scheme, out.URL.Host, out.Body = "", "http", "engine", http.NoBody
	if len(body) > 0 {
		out.Body = io.NopCloser(bytes.NewReader(body))
	}
	answer, err := p.engine.RoundTrip(out)
	if err != nil {
		return nil, 0, err
	}
	text := []byte(sample)
	if sample == "" {
		text, err = io.ReadAll(answer.Body)
	}
	answer.Body.Close()
	if err != nil {
		return nil, 0, err
	}
	switch {
	case answer.StatusCode >= 400:
		return nil, 0, fmt.Errorf("the engine itself refuses: status %d, %s", answer.StatusCode, text)
	case len(text) == 0 && (f == faultBody || f == faultGarbled || f == faultEmpty):
		return nil, 0, fmt.Errorf("the answer with status %d has no body that could be %s", answer.StatusCode, f)
	case f == faultGarbled:
		text = []byte(notJSON)
	case f == faultEmpty:
		text = nil
	}
	answer.Body, answer.Request = io.NopCloser(bytes.NewReader(text)), out
	if len(answer.TransferEncoding) == 0 && answer.ContentLength >= 0 && out.Method != http.MethodHead {
		answer.ContentLength = int64(len(text))
		answer.Header.Set("Content-Length", strconv.Itoa(len(text)))
	}
	var buffer bytes.Buffer
	err = answer.Write(&buffer)
	return buffer.Bytes(), bytes.Index(buffer.Bytes(), []byte("\r\n\r\n")) + 4, err
}

// settled closes the client's idle connections and reports how many are left.
func (p *faultProxy) settled(within time.Duration) (left int) {
	for deadline := time.Now().Add(within); ; time.Sleep(5 * time.Millisecond) {
		p.plain.CloseIdleConnections()
		p.faulty.CloseIdleConnections()
		p.mu.Lock()
		left = len(p.open)
		p.mu.Unlock()
		if left == 0 || time.Now().After(deadline) {
			return left
		}
	}
}

// close ends the proxy and whatever it holds.
func (p *faultProxy) close() {
	close(p.closing)
	p.plain.CloseIdleConnections()
	p.faulty.CloseIdleConnections()
	p.server.CloseClientConnections()
	p.server.Close()
	p.handlers.Wait()
}

// The faults are what they are called, as a client without any package sees them.
func TestFaultsOnTheWire(t *testing.T) {
	t.Parallel()
	const body = `{"Id":"0123456789","Warnings":[]}` + "\n"
	var carriedOut sync.Map
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		text, _ := io.ReadAll(r.Body)
		carriedOut.Store(string(text), true)
		_, _ = io.WriteString(w, body)
	}))
	defer upstream.Close()
	address, err := url.Parse(upstream.URL)
	require.NoError(t, err)
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", address.Host)
	}}
	defer transport.CloseIdleConnections()
	dead := deadSocket(t)

	for f, want := range map[fault]struct {
		err    error  // of the request, or of reading its answer
		status int    // 0: none came
		body   string // if there is no error
	}{
		faultRefused: {err: syscall.ECONNREFUSED},
		faultReset:   {err: syscall.ECONNRESET},
		faultHeader:  {err: io.ErrUnexpectedEOF}, // net/http forgets the reset
		faultBody:    {err: syscall.ECONNRESET, status: 200},
		faultGarbled: {status: 200, body: "<html><body>It works!</body></html>"},
		faultEmpty:   {status: 200},
		fault404:     {status: 404, body: `{"message":"not \"this\""}` + "\n"},
		fault503:     {status: 503, body: `{"message":"not \"this\""}` + "\n"},
		faultNever:   {err: context.DeadlineExceeded},
		faultSlow:    {err: context.DeadlineExceeded},
		faultLost:    {err: io.EOF},
		faultCancel:  {err: context.DeadlineExceeded},
	} {
		t.Run(string(f), func(t *testing.T) {
			p := newFaultProxy(transport, dead)
			defer p.close()
			ask := func() (status int, text string, err error) {
				ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
				defer cancel()
				request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://engine/v1.41/containers/create", strings.NewReader(string(f)))
				require.NoError(t, err)
				answer, err := (&http.Client{Transport: p}).Do(request)
				if err != nil {
					return 0, "", err
				}
				defer answer.Body.Close()
				all, err := io.ReadAll(answer.Body)
				return answer.StatusCode, string(all), err
			}
			hit := p.arm(&faultPlan{fault: f, target: "POST containers/create", nth: 1, message: `not "this"`})
			status, text, err := ask()
			<-hit
			assert.Equal(t, want.status, status)
			if want.err != nil {
				assert.ErrorIs(t, err, want.err)
			} else if assert.NoError(t, err) {
				assert.Equal(t, want.body, text)
			}
			_, done := carriedOut.Load(string(f))
			assert.Equal(t, f.carriedOut(), done)
			_, _, err = p.disarm()
			require.NoError(t, err)

			status, text, err = ask()
			require.NoError(t, err)
			assert.Equal(t, 200, status)
			assert.Equal(t, body, text)
			assert.Zero(t, p.settled(5*time.Second), "connections")
		})
	}

	// No cut leaves a whole answer.
	p := newFaultProxy(transport, dead)
	defer p.close()
	for range 200 {
		p.arm(&faultPlan{fault: faultCut, target: "* containers/create"})
		answer, err := (&http.Client{Transport: p}).Post("http://engine/containers/create", "text/plain", nil)
		if err == nil {
			_, err = io.ReadAll(answer.Body)
			answer.Body.Close()
		}
		_, where, _ := p.disarm()
		assert.Error(t, err, where)
	}
}
