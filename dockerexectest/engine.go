package dockerexectest

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net"
	"net/http"
	"os"
	"reflect"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/docker/docker/api/types/system"
	"github.com/docker/docker/api/types/versions"
	engineapi "github.com/docker/docker/client"
)

// Engine is an in-memory Docker Engine. It is made by [New], is safe for
// concurrent use, and ends with its test.
type Engine struct {
	tb       testing.TB // nil: failures go to standard error
	dialect  Dialect
	listener *listener
	server   *http.Server
	serving  sync.WaitGroup // the server's loop
	working  sync.WaitGroup // requests, programs, probes and restarts

	mu       sync.Mutex // guards all below, and the state of what they hold
	isClosed bool
	closed   chan struct{} // closed by Close
	life     chan struct{} // closed when the engine's process ends, by Restart or Close
	isDown   bool
	hung     chan struct{} // not nil while the engine hangs; closed by Resume
	isMute   bool          // the engine's process is not there: nothing is told of by an event

	apiVersion, minAPIVersion string
	info                      system.Info
	inflight                  map[*request]bool
	requests                  requestLog
	faults                    []*armedFault
	clients                   []*engineapi.Client

	lastStamp  int64 // nanoseconds
	made       int   // for IDs
	events     eventLog
	containers map[string]*Container // by ID
	order      []*Container          // as created
	names      map[string]*Container
	reserved   map[string]string         // IDs by name, of containers whose create takes its time
	registry   map[string]*registryImage // by normalised reference
	images     []*localImage             // as they came
	pulls      map[string][]pullScript   // by normalised reference
	networks   []*networkState           // as created
	volumes    map[string]*volumeState
	ports      map[string]*Container // published, as "8080/tcp"
	missing    map[string]bool       // paths that the host does not have
}

// Option configures an [Engine].
type Option func(*Engine)

// WithAPIVersion sets the newest API version that the engine serves, such as
// "1.44". The default is the client's newest; 1.41 for [DockerV20] and [PodmanV4].
func WithAPIVersion(v string) Option { return func(e *Engine) { e.apiVersion = v } }

// WithMinAPIVersion sets the oldest API version that the engine serves. The
// default is that of the dialect's engine.
func WithMinAPIVersion(v string) Option { return func(e *Engine) { e.minAPIVersion = v } }

// WithDialect sets whose words, status codes and event names the engine uses.
// The default is [DockerV29].
func WithDialect(d Dialect) Option { return func(e *Engine) { e.dialect = d } }

// WithInfo sets what /info says. What is empty in it keeps its default: the
// engine's name, 2 cores, 4 GB of memory, the plugins of a Linux engine.
func WithInfo(info system.Info) Option { return func(e *Engine) { e.info = info } }

// New starts an engine, which ends with the test. If tb is nil, it ends with
// [Engine.Close], and failures are written to standard error.
//
// In a bubble of testing/synctest it must be made inside the bubble.
func New(tb testing.TB, opts ...Option) *Engine {
	e := &Engine{
		closed: make(chan struct{}), life: make(chan struct{}),
		listener: newListener(),
		inflight: map[*request]bool{}, containers: map[string]*Container{}, names: map[string]*Container{}, reserved: map[string]string{},
		registry: map[string]*registryImage{}, pulls: map[string][]pullScript{}, volumes: map[string]*volumeState{},
		ports: map[string]*Container{}, missing: map[string]bool{},
	}
	if tb != nil && !isNilPointer(tb) {
		e.tb = tb
	}
	for _, opt := range opts {
		if opt != nil {
			opt(e)
		}
	}
	newest, oldest := e.dialect.apiVersions()
	if e.apiVersion == "" {
		e.apiVersion = newest
	}
	if e.minAPIVersion == "" {
		e.minAPIVersion = oldest
		if versions.LessThan(e.apiVersion, oldest) {
			e.minAPIVersion = e.apiVersion
		}
	}
	e.fillInfo()
	e.makePredefinedNetworks()
	e.server = &http.Server{Handler: http.HandlerFunc(e.serve)}
	e.serving.Go(func() { _ = e.server.Serve(e.listener) })
	if e.tb != nil {
		e.tb.Helper()
		e.tb.Cleanup(e.Close)
	}
	return e
}

func isNilPointer(v any) bool {
	value := reflect.ValueOf(v)
	return value.Kind() == reflect.Pointer && value.IsNil()
}

// Client returns a real client of the engine. Several share the engine. It
// speaks the newest API version that both know, without a ping. The options come
// after the engine's own; whatever host they name, the client dials this engine,
// unless they bring an HTTP client with a transport of their own. It is closed
// with the engine.
//
// A request has a connection of its own: no connection is idle.
func (e *Engine) Client(opts ...engineapi.Opt) *engineapi.Client {
	transport := &http.Transport{DisableKeepAlives: true, DialContext: e.dial}
	all := []engineapi.Opt{
		engineapi.WithHTTPClient(&http.Client{Transport: transport, CheckRedirect: engineapi.CheckRedirect}),
		engineapi.WithHost("tcp://engine.test:2375"),
	}
	all = append(all, opts...)
	all = append(all, func(*engineapi.Client) error {
		transport.DialContext = e.dial // a host among the options set the transport's own
		return nil
	})
	made, err := engineapi.NewClientWithOpts(all...)
	if err != nil {
		e.helper()
		e.failf("dockerexectest: make a client: %v", err)
		return nil
	}
	e.mu.Lock()
	version := e.apiVersion
	e.clients = append(e.clients, made)
	e.mu.Unlock()
	made.NegotiateAPIVersionPing(pingOf(version))
	return made
}

// Handler returns the engine as an HTTP handler, for a socket of your own. The
// caller closes what it serves the handler on, before the engine is closed.
func (e *Engine) Handler() http.Handler { return http.HandlerFunc(e.serve) }

// Close ends the engine: every program, request, stream and connection. It
// returns when all their goroutines have ended, and reports each fault whose
// pattern matched no request. [New] has the test call it. It may be called again.
func (e *Engine) Close() {
	e.mu.Lock()
	if e.isClosed {
		e.mu.Unlock()
		e.working.Wait()
		return
	}
	e.isClosed, e.isMute = true, true
	close(e.closed)
	e.endLife()
	for _, c := range e.order {
		if c.run != nil {
			c.run.kill()
		}
	}
	clients := e.clients
	unused := e.unusedFaults()
	e.mu.Unlock()

	e.listener.closeConns()
	_ = e.server.Close()
	e.serving.Wait()
	for _, c := range clients {
		_ = c.Close()
	}
	if !waitFor(&e.working, 10*time.Second) {
		e.failf("dockerexectest: a program does not end although it is killed: %v", e.stillRunning())
	}
	for _, pattern := range unused {
		e.failf("dockerexectest: no request matched the fault for %q", pattern)
	}
}

func (e *Engine) stillRunning() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	var names []string
	for _, c := range e.order {
		if c.run != nil {
			names = append(names, c.name)
		}
	}
	return names
}

// waitFor reports whether the group was done in time.
func waitFor(group *sync.WaitGroup, limit time.Duration) bool {
	done := make(chan struct{})
	go func() {
		group.Wait()
		close(done)
	}()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-done:
		return true
	case <-timer.C:
		return false
	}
}

// failf fails the test. The caller does not hold mu.
func (e *Engine) failf(format string, args ...any) {
	if e.tb == nil {
		fmt.Fprintf(os.Stderr, format+"\n", args...)
		return
	}
	e.tb.Helper()
	e.tb.Errorf(format, args...)
}

func (e *Engine) helper() {
	if e.tb != nil {
		e.tb.Helper()
	}
}

// work runs what must have ended when Close returns. The caller holds mu; false
// if the engine is closed.
func (e *Engine) work(do func()) bool {
	if e.isClosed {
		return false
	}
	e.working.Go(do)
	return true
}

// endLife lets every request that is carried out give up. The caller holds mu.
func (e *Engine) endLife() {
	close(e.life)
	if e.hung != nil {
		close(e.hung)
		e.hung = nil
	}
	for r := range e.inflight {
		r.cut()
	}
}

// now is the time of an event: no two have the same. The caller holds mu.
func (e *Engine) now() time.Time {
	e.lastStamp = max(time.Now().UnixNano(), e.lastStamp+1)
	return time.Unix(0, e.lastStamp).UTC()
}

// newID makes an ID of 64 digits. The caller holds mu.
func (e *Engine) newID(kind string) string {
	e.made++
	sum := sha256.Sum256(fmt.Appendf(nil, "%s %d", kind, e.made))
	return hex.EncodeToString(sum[:])
}

// Container returns the container of a name, or nil if there is none.
func (e *Engine) Container(name string) *Container {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.names[name]
}

// Containers returns the containers in the order of their creation.
func (e *Engine) Containers() []*Container {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.order)
}

// sleep waits, and reports whether the engine's process was there all the time.
func (e *Engine) sleep(d time.Duration, life <-chan struct{}) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-life:
		return false
	}
}

// signal wakes all who wait for a change. The engine's mu guards it.
type signal struct{ ch chan struct{} }

// wait returns the channel that the next raise closes.
func (s *signal) wait() <-chan struct{} {
	if s.ch == nil {
		s.ch = make(chan struct{})
	}
	return s.ch
}

func (s *signal) raise() {
	if s.ch != nil {
		close(s.ch)
		s.ch = nil
	}
}

// dial connects to the engine.
func (e *Engine) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	e.mu.Lock()
	isDown := e.isDown || e.isClosed
	e.mu.Unlock()
	if isDown {
		return nil, refused()
	}
	return e.listener.dial(ctx)
}
