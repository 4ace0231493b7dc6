package main

import (
	"context"
	"io"
	stdlog "log"
	"net"
	"net/http"
	"net/http/httputil"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/docker/docker/api/types/versions"
	"github.com/stretchr/testify/require"
)

// engineProxy stands between a node and its engine: it takes note of the calls,
// and can hold some up until their caller is gone.
type engineProxy struct {
	host      string // for the node's -host
	transport *http.Transport

	mu       sync.Mutex
	calls    []call
	gate     *gate  // nil: nothing is held
	min, max string // the API versions that the engine seems to speak; empty: its own
	refused  int    // requests of other versions
	forbids  []call // answered with 403
}

// call is a request that was answered, with its path without version and query.
type call struct {
	method, path string
	status       int
}

func (c call) String() string { return c.method + " " + c.path + " " + http.StatusText(c.status) }

// gate holds calls whose path ends so.
type gate struct {
	method, suffix string
	answered       bool // they are held once the engine has answered, not before it is asked
	arrived        chan struct{}
	held           sync.WaitGroup
}

func newEngineProxy(t testing.TB) *engineProxy {
	t.Helper()
	socket := strings.TrimPrefix(fromHarness(t, "DOCKEREXEC_TEST_HOST"), "unix://")
	dir, err := shortDir()
	require.NoError(t, err)
	path := filepath.Join(dir, "engine")
	listener, err := net.Listen("unix", path)
	require.NoError(t, err)
	p := &engineProxy{host: "unix://" + path, transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		},
	}}
	server := &http.Server{Handler: &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL.Scheme, r.Out.URL.Host = "http", "engine"
		},
		Transport:     p,
		FlushInterval: -1,
		ErrorLog:      stdlog.New(io.Discard, "", 0), // of connections that the node's end cuts
	}}
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(listener) })
	t.Cleanup(func() {
		require.NoError(t, server.Close())
		serving.Wait()
		p.transport.CloseIdleConnections()
	})
	return p
}

// speaks has the engine seem to speak the API versions from least to most, and no other.
func (p *engineProxy) speaks(least, most string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.min, p.max = least, most
	p.refused = 0
}

// refusedSince returns how many requests had a version that speaks does not name.
func (p *engineProxy) refusedSince() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.refused
}

// forbid has the proxy answer requests with 403, also those of a path below.
func (p *engineProxy) forbid(requests ...call) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.forbids = requests
}

// forbidden is the answer to a request that the proxy forbids; nil: it does not.
func (p *engineProxy) forbidden(r *http.Request, path string) *http.Response {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, f := range p.forbids {
		if f.method == r.Method && (path == f.path || strings.HasPrefix(path, f.path+"/")) {
			return &http.Response{
				StatusCode: http.StatusForbidden, ProtoMajor: 1, ProtoMinor: 1, Request: r,
				Header: http.Header{"Content-Type": {"text/html"}},
				Body:   io.NopCloser(strings.NewReader("<html><body><h1>403 Forbidden</h1>\nRequest forbidden by administrative rules.\n</body></html>\n")),
			}
		}
	}
	return nil
}

// refusal is the answer to a request of a version that the engine seems not to speak;
// nil: it speaks it.
func (p *engineProxy) refusal(r *http.Request, version string) *http.Response {
	p.mu.Lock()
	defer p.mu.Unlock()
	var text string
	switch {
	case p.max == "":
		return nil
	case versions.LessThan(version, p.min):
		text = "client version " + version + " is too old. Minimum supported API version is " + p.min + ", please upgrade your client to a newer version"
	case versions.GreaterThan(version, p.max):
		text = "client version " + version + " is too new. Maximum supported API version is " + p.max
	default:
		return nil
	}
	p.refused++
	return &http.Response{
		StatusCode: http.StatusBadRequest, ProtoMajor: 1, ProtoMinor: 1, Request: r,
		Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(strings.NewReader(`{"message": "` + text + `"}`)),
	}
}

// hold has all calls of a kind wait, and returns what tells of each that does.
func (p *engineProxy) hold(method, suffix string, answered bool) (arrived <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.gate = &gate{method: method, suffix: suffix, answered: answered, arrived: make(chan struct{}, 100)}
	return p.gate.arrived
}

// callerIsGone waits until the calls that were held are given up. Later ones are
// not held.
func (p *engineProxy) callerIsGone() {
	p.mu.Lock()
	g := p.gate
	p.gate = nil
	p.mu.Unlock()
	if g != nil {
		g.held.Wait()
	}
}

// made are the calls of a kind so far.
func (p *engineProxy) made(method, suffix string) []call {
	p.mu.Lock()
	defer p.mu.Unlock()
	var made []call
	for _, c := range p.calls {
		if c.method == method && strings.HasSuffix(c.path, suffix) {
			made = append(made, c)
		}
	}
	return made
}

// conflicts are the calls that the engine refused because of a name.
func (p *engineProxy) conflicts() []call {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(p.calls), func(c call) bool { return c.status != http.StatusConflict })
}

func (p *engineProxy) RoundTrip(r *http.Request) (*http.Response, error) {
	path := r.URL.Path
	if _, rest, versioned := strings.Cut(path, "/v1."); versioned {
		version, rest, _ := strings.Cut(rest, "/")
		if refusal := p.refusal(r, "1."+version); refusal != nil {
			return refusal, nil
		}
		path = rest
	}
	if refusal := p.forbidden(r, strings.TrimPrefix(path, "/")); refusal != nil {
		return refusal, nil
	}
	g := p.gateOf(r.Method, path)
	if g != nil {
		defer g.held.Done()
	}
	if g != nil && !g.answered {
		return nil, g.wait(r.Context())
	}
	answer, err := p.transport.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	p.calls = append(p.calls, call{r.Method, path, answer.StatusCode})
	if p.max != "" && answer.Header.Get("Api-Version") != "" {
		answer.Header.Set("Api-Version", p.max)
	}
	p.mu.Unlock()
	if g != nil && g.answered {
		answer.Body.Close()
		return nil, g.wait(r.Context())
	}
	return answer, nil
}

// gateOf returns the gate that holds a call, which is among its calls then; nil:
// the call passes.
func (p *engineProxy) gateOf(method, path string) *gate {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.gate == nil || p.gate.method != method || !strings.HasSuffix(path, p.gate.suffix) {
		return nil
	}
	p.gate.held.Add(1)
	return p.gate
}

func (g *gate) wait(ctx context.Context) error {
	g.arrived <- struct{}{}
	<-ctx.Done()
	return ctx.Err()
}
