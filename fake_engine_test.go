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
	"github.com/docker/docker/api/types"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/events"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/api/types/system"
	"github.com/docker/docker/api/types/volume"
	engineapi "github.com/docker/docker/client"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
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
	ending  time.Duration           // how long a container takes to end after a stop signal
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
	signals  []string // that stops and kills have sent, each with its second on the clock
}

func (c *simContainer) signal(name string) {
	c.signals = append(c.signals, fmt.Sprint(name, " ", time.Since(simBegin)))
}

// simBegin is where the clock of a bubble begins.
var simBegin = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

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

// count returns how often a method was called.
func (e *simEngine) count(method string) int {
	return strings.Count(strings.Join(e.called(), "\n"), method+" ")
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

func (e *simEngine) ImagePull(ctx context.Context, ref string, _ image.PullOptions) (io.ReadCloser, error) {
	if e.pulling != nil {
		e.mu.Lock()
		e.calls = append(e.calls, "ImagePull "+ref)
		e.mu.Unlock()
		if err := e.pulling(ctx); err != nil {
			return nil, err
		}
		return io.NopCloser(strings.NewReader("")), nil
	}
	return simCall(ctx, e, "ImagePull", ref, func() (io.ReadCloser, error) {
		e.images[ref] = image.InspectResponse{ID: "sha256:web", Os: "linux", Architecture: "amd64"}
		return io.NopCloser(strings.NewReader(`{"status":"Status: Image is up to date"}`)), nil
	})
}

func (e *simEngine) ImageInspect(ctx context.Context, ref string, _ ...engineapi.ImageInspectOption) (image.InspectResponse, error) {
	return simCall(ctx, e, "ImageInspect", ref, func() (image.InspectResponse, error) {
		if found, there := e.images[ref]; there {
			return found, nil
		}
		return image.InspectResponse{}, notFound("No such image: %s", ref)
	})
}

func (e *simEngine) NetworkCreate(ctx context.Context, name string, options network.CreateOptions) (network.CreateResponse, error) {
	return simCall(ctx, e, "NetworkCreate", name, func() (network.CreateResponse, error) {
		if _, exists := e.networks[name]; exists {
			return network.CreateResponse{}, conflict("network with name %s already exists", name)
		}
		made := network.Inspect{ID: e.id("network"), Name: name, Driver: options.Driver, Labels: options.Labels, Internal: options.Internal}
		if options.IPAM != nil {
			made.IPAM = *options.IPAM
		}
		e.networks[name] = made
		return network.CreateResponse{ID: made.ID}, nil
	})
}

func (e *simEngine) NetworkInspect(ctx context.Context, name string, _ network.InspectOptions) (network.Inspect, error) {
	return simCall(ctx, e, "NetworkInspect", name, func() (network.Inspect, error) {
		if found, there := e.networks[name]; there {
			return found, nil
		}
		return network.Inspect{}, notFound("network %s not found", name)
	})
}

func (e *simEngine) NetworkRemove(ctx context.Context, id string) error {
	_, err := simCall(ctx, e, "NetworkRemove", id, func() (struct{}, error) {
		for name, n := range e.networks {
			if n.ID != id {
				continue
			}
			for _, c := range e.containers {
				if c.state.Running && slices.Contains(c.networks, name) {
					return struct{}{}, simError{"error while removing network: network " + name + " has active endpoints", cerrdefs.ErrPermissionDenied}
				}
			}
			delete(e.networks, name)
			return struct{}{}, nil
		}
		return struct{}{}, notFound("network %s not found", id)
	})
	return err
}

func (e *simEngine) NetworkConnect(ctx context.Context, name, id string, _ *network.EndpointSettings) error {
	_, err := simCall(ctx, e, "NetworkConnect", name, func() (struct{}, error) {
		c, err := e.find(id)
		if err != nil {
			return struct{}{}, err
		}
		if _, there := e.networks[name]; !there {
			return struct{}{}, notFound("network %s not found", name)
		}
		c.networks = append(c.networks, name)
		return struct{}{}, nil
	})
	return err
}

func (e *simEngine) VolumeCreate(ctx context.Context, options volume.CreateOptions) (volume.Volume, error) {
	return simCall(ctx, e, "VolumeCreate", options.Name, func() (volume.Volume, error) { return volume.Volume{Name: options.Name}, nil })
}

func (e *simEngine) ContainerCreate(ctx context.Context, config *container.Config, _ *container.HostConfig, networking *network.NetworkingConfig, _ *ocispec.Platform, name string) (container.CreateResponse, error) {
	return simCall(ctx, e, "ContainerCreate", name, func() (container.CreateResponse, error) {
		if holder, err := e.find(name); err == nil {
			return container.CreateResponse{}, conflict(`Conflict. The container name "/%s" is already in use by container "%s". You have to remove (or rename) that container to be able to reuse that name.`, name, holder.id)
		}
		if _, there := e.images[config.Image]; !there {
			return container.CreateResponse{}, notFound("No such image: %s", config.Image)
		}
		c := &simContainer{id: e.id("container"), name: name, config: *config, state: container.State{Status: container.StateCreated}}
		for n := range networking.EndpointsConfig {
			c.networks = append(c.networks, n)
		}
		slices.Sort(c.networks)
		e.containers[name] = c
		e.emit(c, events.ActionCreate)
		return container.CreateResponse{ID: c.id}, nil
	})
}

func (e *simEngine) ContainerStart(ctx context.Context, name string, _ container.StartOptions) error {
	_, err := simCall(ctx, e, "ContainerStart", name, func() (struct{}, error) {
		c, err := e.find(name)
		if err != nil || c.state.Running {
			return struct{}{}, err
		}
		for _, n := range c.networks {
			if _, there := e.networks[n]; !there {
				return struct{}{}, notFound("failed to set up container networking: network %s not found", n)
			}
		}
		c.state = container.State{Status: container.StateRunning, Running: true, Pid: 4711}
		if h := c.config.Healthcheck; h != nil && len(h.Test) > 0 && h.Test[0] != "NONE" {
			c.state.Health = &container.Health{Status: container.Starting}
		}
		e.emit(c, events.ActionStart)
		if e.started != nil {
			e.started(c)
		}
		return struct{}{}, nil
	})
	return err
}

func (e *simEngine) ContainerInspect(ctx context.Context, name string) (container.InspectResponse, error) {
	return simCall(ctx, e, "ContainerInspect", name, func() (container.InspectResponse, error) {
		c, err := e.find(name)
		if err != nil {
			return container.InspectResponse{}, err
		}
		state, config, settings := c.state, c.config, c.ports
		settings.Networks = map[string]*network.EndpointSettings{}
		for _, n := range c.networks {
			settings.Networks[n] = &network.EndpointSettings{}
		}
		return container.InspectResponse{
			ContainerJSONBase: &container.ContainerJSONBase{ID: c.id, Name: "/" + c.name, State: &state},
			Config:            &config,
			NetworkSettings:   &settings,
		}, nil
	})
}

func (e *simEngine) ContainerStop(ctx context.Context, name string, options container.StopOptions) error {
	grace := 10 * time.Second
	if options.Timeout != nil {
		grace = time.Duration(*options.Timeout) * time.Second
	}
	_, err := simCall(ctx, e, "ContainerStop", name, func() (struct{}, error) {
		c, err := e.find(name)
		if err != nil || !c.state.Running {
			return struct{}{}, err
		}
		c.signal("TERM")
		if e.ending > 0 {
			run := c.state.StartedAt
			e.mu.Unlock()
			time.Sleep(min(e.ending, grace))
			e.mu.Lock()
			if !c.state.Running || c.state.StartedAt != run {
				return struct{}{}, nil
			}
		}
		if e.ending > grace {
			c.signal("KILL")
			e.exitLocked(c, 137)
		} else {
			e.exitLocked(c, 143)
		}
		return struct{}{}, nil
	})
	return err
}

func (e *simEngine) ContainerKill(ctx context.Context, name, _ string) error {
	_, err := simCall(ctx, e, "ContainerKill", name, func() (struct{}, error) {
		c, err := e.find(name)
		if err != nil {
			return struct{}{}, err
		}
		if !c.state.Running {
			return struct{}{}, conflict("cannot kill container: %s: container %s is not running", name, c.id)
		}
		c.signal("KILL")
		e.exitLocked(c, 137)
		return struct{}{}, nil
	})
	return err
}

func (e *simEngine) ContainerRemove(ctx context.Context, name string, options container.RemoveOptions) error {
	_, err := simCall(ctx, e, "ContainerRemove", name, func() (struct{}, error) {
		c, err := e.find(name)
		if err != nil {
			return struct{}{}, err
		}
		if c.state.Running && !options.Force {
			return struct{}{}, conflict("cannot remove container %q: container is running", name)
		}
		delete(e.containers, c.name)
		e.emit(c, events.ActionDestroy)
		return struct{}{}, nil
	})
	return err
}

func (e *simEngine) ContainerLogs(ctx context.Context, name string, _ container.LogsOptions) (io.ReadCloser, error) {
	return simCall(ctx, e, "ContainerLogs", name, func() (io.ReadCloser, error) {
		if _, err := e.find(name); err != nil {
			return nil, err
		}
		reader, writer := io.Pipe()
		context.AfterFunc(ctx, func() { writer.CloseWithError(ctx.Err()) })
		return reader, nil
	})
}

func (e *simEngine) Events(ctx context.Context, _ events.ListOptions) (<-chan events.Message, <-chan error) {
	messages, errs := make(chan events.Message, 1024), make(chan error, 1)
	e.mu.Lock()
	e.calls = append(e.calls, "Events")
	fault := e.fault
	e.mu.Unlock()
	if fault != nil {
		if err := fault("Events"); err != nil {
			errs <- err
			return messages, errs
		}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.streams[messages] = errs
	context.AfterFunc(ctx, func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		delete(e.streams, messages)
	})
	return messages, errs
}

func (e *simEngine) Info(ctx context.Context) (system.Info, error) {
	return simCall(ctx, e, "Info", "", func() (system.Info, error) { return system.Info{Name: "engine-host"}, nil })
}

func (e *simEngine) PluginList(ctx context.Context, _ filters.Args) (types.PluginsListResponse, error) {
	return simCall(ctx, e, "PluginList", "", func() (types.PluginsListResponse, error) { return nil, nil })
}
