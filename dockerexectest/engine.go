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
	isMute   bool          // the engine's process is away: it sends no events

	apiVersion, minAPIVersion string
	info                      system.Info
	inflight                  map[*request]bool
	requests                  requestLog
	faults                    []*armedFault
	clients                   []*engineapi.Client

	lastStamp  int64 // nanoseconds
	made       int   // counts what was made, for IDs, names and process IDs
	events     eventLog
	containers map[string]*Container // by ID
	order      []*Container          // the oldest first
	names      map[string]*Container
	reserved   map[string]string         // IDs by name, of containers whose create takes its time
	registry   map[string]*registryImage // by normalised reference
	images     []*localImage             // the oldest first
	pulls      map[string][]pullScript   // by normalised reference
	networks   []*networkState           // the oldest first
	volumes    map[string]*volumeState
	ports      map[string]*Container // by published port, such as "8080/tcp"
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

// WithInfo sets the answer of /info. Empty fields keep their defaults: the name
// engine.test, 2 cores, 4 GiB of memory, the plugins of a Linux engine.
func WithInfo(info system.Info) Option { return func(e *Engine) { e.info = info } }

// New starts an engine, which ends with the test. If tb is nil, the engine ends with
// [Engine.Close], and failures are written to standard error.
//
// A test with testing/synctest must call New inside its bubble.
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

// Client returns a real client of the engine. Each call makes a new one. Without a ping,
// the client uses the newest API version that client and engine know. opts are applied
// after the engine's own options. Even if opts name another host, the client dials this
// engine, unless opts set an HTTP client with another transport. [Engine.Close] closes
// the client.
//
// Each request has a connection of its own: no connection is idle.
func (e *Engine) Client(opts ...engineapi.Opt) *engineapi.Client {
	transport := &http.Transport{DisableKeepAlives: true, DialContext: e.dial}
	all := []engineapi.Opt{
		engineapi.WithHTTPClient(&http.Client{Transport: transport, CheckRedirect: engineapi.CheckRedirect}),
		engineapi.WithHost("tcp://engine.test:2375"),
	}
	all = append(all, opts...)
	all = append(all, func(*engineapi.Client) error {
		transport.DialContext = e.dial // an option with a host has replaced it
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

// Handler returns the engine as an HTTP handler, for a server of your own. Close that
// server before the engine.
func (e *Engine) Handler() http.Handler { return http.HandlerFunc(e.serve) }

// Close ends the engine with all programs, requests, streams and connections. It returns
// when all their goroutines have ended. If a program does not end within 10 seconds, or
// no request has matched the pattern of a fault, the test fails. With a test, Close is
// called at the test's end. Close may be called again.
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

// waitFor waits for the group, and reports whether the group was done within limit.
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

// work runs do in a goroutine for which Close waits. If the engine is closed, work returns
// false and does not run do. The caller holds mu.
func (e *Engine) work(do func()) bool {
	if e.isClosed {
		return false
	}
	e.working.Go(do)
	return true
}

// endLife ends the engine's process, and with it all requests. The caller holds mu.
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

// now returns the time. No two calls return the same. The caller holds mu.
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

// Container returns the container with a name, or nil if there is none.
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

// sleep waits for d. If life is closed first, sleep returns false at once.
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

// signal wakes all goroutines that wait for a change. The engine's mu guards it.
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
