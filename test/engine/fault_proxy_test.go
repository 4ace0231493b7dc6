package engine_test

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
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	engineapi "github.com/docker/docker/client"
	"github.com/stretchr/testify/require"
)

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
	first         map[string]time.Time     // when each request was asked first
	answered      map[string]chan struct{} // see whenAnswered
	random        *rand.Rand
	where         string // where the answer was cut
	unfit         string // why the fault could not come about
}

// The headers by which the client's side tells the proxy's what to do.
const (
	faultHeaderName = "X-Fault"
	otherHeaderName = "X-Fault-Other" // the pattern
)

// newFaultProxy stands a proxy before the engine that transport leads to. dead is
// from deadSocket, random says where answers are cut.
func newFaultProxy(transport http.RoundTripper, dead string, random *rand.Rand) *faultProxy {
	p := &faultProxy{
		engine: transport, dead: dead, random: random, closing: make(chan struct{}), open: map[net.Conn]bool{},
		first: map[string]time.Time{}, answered: map[string]chan struct{}{},
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

// faultHost is the engine's address to the clients of a proxy, which dial none. It
// counts as this host.
const faultHost = "tcp://127.0.0.1:2375"

// client returns a client that goes through the proxy.
func (p *faultProxy) client() (*engineapi.Client, error) {
	return engineapi.NewClientWithOpts(engineapi.WithHost(faultHost), engineapi.WithHTTPClient(&http.Client{Transport: p}))
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

// RoundTrip is the client's side: it finds out whether a request gets the fault.
func (p *faultProxy) RoundTrip(r *http.Request) (*http.Response, error) {
	what := asked(r)
	p.mu.Lock()
	p.seen = append(p.seen, what)
	if _, before := p.first[what]; !before {
		p.first[what] = time.Now()
	}
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
			if plan.nth == 0 || plan.nth == p.matched || p.matched < plan.nth && plan.before {
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
	if err == nil {
		p.noteAnswer(what)
	}
	return response, err
}

// firstAsked returns when a request like pattern was asked first. The zero time is never.
func (p *faultProxy) firstAsked(pattern string) (first time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for what, at := range p.first {
		if matchesPattern(pattern, what) && (first.IsZero() || at.Before(first)) {
			first = at
		}
	}
	return first
}

// whenAnswered returns a channel that is closed when a request has its answer from
// now on.
func (p *faultProxy) whenAnswered(request string) <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	answered := make(chan struct{})
	p.answered[request] = answered
	return answered
}

func (p *faultProxy) noteAnswer(request string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if answered, awaited := p.answered[request]; awaited {
		close(answered)
		delete(p.answered, request)
	}
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
		if wire, header, err = p.forward(r, plan); err != nil {
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
		p.mu.Lock()
		n := 1 + p.random.IntN(max(len(wire)-1-atTheEnd(wire, header), 1))
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
	case faultGarbled:
		if !plan.endless {
			_, _ = conn.Write(wire)
			break
		}
		_, _ = conn.Write(bytes.TrimSuffix(wire, []byte("0\r\n\r\n")))
		select {
		case <-gone:
		case <-p.closing:
		}
	default: // an empty answer is whole
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
func (p *faultProxy) forward(r *http.Request, plan *faultPlan) (wire []byte, header int, err error) {
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
	text := []byte(plan.sample)
	switch {
	case plan.endless && plan.sample == "":
		text = make([]byte, 4<<10)
		var n int
		n, err = answer.Body.Read(text)
		text = text[:n]
	case !plan.endless:
		text, err = io.ReadAll(answer.Body)
	}
	answer.Body.Close()
	if err != nil {
		return nil, 0, err
	}
	f := plan.fault
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
