package dockerexec

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net/url"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/events"
	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/api/types/network"
	engineapi "github.com/docker/docker/client"
)

// simEngine is an engine with state: networks, containers and an event stream.
// As a real one it carries out what it has begun, also if the client has gone;
// only a pull ends with its client. Each call takes latency before the engine
// has done it, and again until the client hears of it.
type simEngine struct {
	engineapi.APIClient // nil: a method that is not below is a nil dereference

	t       testing.TB
	latency time.Duration
	slow    time.Duration           // how much longer a create or start takes the engine
	fault   func(call string) error // fails a call before the engine does it; nil: none does
	lost    func(call string) error // fails the answer of a call that the engine has done
	started func(c *simContainer)   // called, locked, when a container has started
	pulling func(ctx context.Context) error

	mu         sync.Mutex
	calls      []string
	busy       sync.WaitGroup
	images     map[string]image.InspectResponse
	networks   map[string]network.Inspect
	containers map[string]*simContainer
	streams    map[chan events.Message]chan error
	made       int // for IDs
}

type simContainer struct {
	id, name string
	config   container.Config
	networks []string
	state    container.State
	ports    container.NetworkSettings
}

func newSimEngine(t testing.TB) *simEngine {
	return &simEngine{
		t:          t,
		images:     map[string]image.InspectResponse{"example/web:1": {ID: "sha256:web", Os: "linux", Architecture: "amd64"}},
		networks:   map[string]network.Inspect{},
		containers: map[string]*simContainer{},
		streams:    map[chan events.Message]chan error{},
	}
}

// The errors of an engine, in its own words.
type simError struct {
	text  string
	class error
}

func (e simError) Error() string        { return "Error response from daemon: " + e.text }
func (e simError) Is(target error) bool { return target == e.class }

func notFound(format string, args ...any) error {
	return simError{fmt.Sprintf(format, args...), cerrdefs.ErrNotFound}
}

func conflict(format string, args ...any) error {
	return simError{fmt.Sprintf(format, args...), cerrdefs.ErrConflict}
}

// errAway is what the client says of an engine that does not run.
var errAway = &url.Error{Op: "Post", URL: "http://engine", Err: syscall.ECONNREFUSED}

// simCall has the engine do one thing.
func simCall[T any](ctx context.Context, e *simEngine, method, about string, do func() (T, error)) (T, error) {
	var none T
	call := strings.TrimSpace(method + " " + about)
	left := func() error { return &url.Error{Op: "Post", URL: "http://engine", Err: ctx.Err()} }
	e.mu.Lock()
	e.calls = append(e.calls, call)
	fault, lost := e.fault, e.lost
	e.mu.Unlock()
	if ctx.Err() != nil {
		return none, left()
	}
	if fault != nil {
		if err := fault(call); err != nil {
			return none, err
		}
	}
	type result struct {
		answer T
		err    error
	}
	done := make(chan result, 1)
	e.busy.Add(1)
	go func() {
		defer e.busy.Done()
		time.Sleep(e.latency)
		if strings.HasSuffix(method, "Create") || strings.HasSuffix(method, "Start") {
			time.Sleep(e.slow)
		}
		e.mu.Lock()
		answer, err := do()
		e.mu.Unlock()
		if lost != nil && err == nil {
			err = lost(call)
		}
		time.Sleep(e.latency)
		done <- result{answer, err}
	}()
	select {
	case r := <-done:
		return r.answer, r.err
	case <-ctx.Done():
		return none, left()
	}
}

// fails sets what fails calls before the engine does them; nil: nothing does.
func (e *simEngine) fails(fault func(call string) error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.fault = fault
}

// called returns the calls so far, without those for events.
func (e *simEngine) called() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(e.calls), func(call string) bool { return strings.HasPrefix(call, "Events") })
}

func (e *simEngine) forgetCalls() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.calls = nil
}

// left lists what is on the engine once it is idle.
func (e *simEngine) left() []string {
	e.busy.Wait()
	e.mu.Lock()
	defer e.mu.Unlock()
	var left []string
	for name := range e.containers {
		left = append(left, "container "+name)
	}
	for name := range e.networks {
		left = append(left, "network "+name)
	}
	slices.Sort(left)
	return left
}

// with lets a test look at, or change, the container of a name.
func (e *simEngine) with(name string, do func(*simContainer)) {
	e.mu.Lock()
	defer e.mu.Unlock()
	c := e.containers[name]
	if c == nil {
		e.t.Errorf("no container %s", name)
		return
	}
	do(c)
}

// emit puts an event on the stream. The caller holds mu.
func (e *simEngine) emit(c *simContainer, action events.Action) {
	attributes := maps.Clone(c.config.Labels)
	if attributes == nil {
		attributes = map[string]string{}
	}
	attributes["name"] = c.name
	e.made++
	m := events.Message{Type: events.ContainerEventType, Action: action, TimeNano: time.Now().UnixNano() + int64(e.made),
		Actor: events.Actor{ID: c.id, Attributes: attributes}}
	for stream := range e.streams {
		stream <- m
	}
}

// exit ends a running container by itself.
func (e *simEngine) exit(name string, code int) {
	e.with(name, func(c *simContainer) { e.exitLocked(c, code) })
}

func (e *simEngine) exitLocked(c *simContainer, code int) {
	c.state.Status, c.state.Running, c.state.Pid, c.state.ExitCode = container.StateExited, false, 0, code
	c.ports = container.NetworkSettings{}
	e.emit(c, events.ActionDie)
}

// health has the health check of a running container find something.
func (e *simEngine) health(name string, status container.HealthStatus) {
	e.with(name, func(c *simContainer) {
		c.state.Health = &container.Health{Status: status}
		e.emit(c, events.ActionHealthStatus+events.Action(": "+status))
	})
}

// cutEvents breaks the event stream.
func (e *simEngine) cutEvents() {
	e.mu.Lock()
	defer e.mu.Unlock()
	for stream, errs := range e.streams {
		errs <- io.ErrUnexpectedEOF
		delete(e.streams, stream)
	}
}

func (e *simEngine) id(kind string) string {
	e.made++
	return fmt.Sprintf("%s-%08d", kind, e.made)
}

func (e *simEngine) find(name string) (*simContainer, error) {
	for _, c := range e.containers {
		if c.name == name || c.id == name {
			return c, nil
		}
	}
	return nil, notFound("No such container: %s", name)
}
