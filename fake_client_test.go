package dockerexec

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/events"
	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/api/types/system"
	"github.com/docker/docker/api/types/volume"
	engineapi "github.com/docker/docker/client"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/pkg/errors"
	"github.com/stretchr/testify/require"
)

// fakeClient is an engine's client of which a test sets the methods that it
// expects. Any other call fails the test by name. The calls are recorded in
// order, each with what it is about: "ContainerCreate web.1.abc".
//
// It stands for a user's own fake. Tests of what engines do use dockerexectest. This one is
// kept for the exact calls that a user's fake gets, for answers and errors that only a fake
// has, for what a client gets by its context, and for bodies and event channels that a test
// controls message by message: see fake_streams_test.go.
type fakeClient struct {
	engineapi.APIClient // nil: a method without a field below is a nil dereference

	t     testing.TB
	mu    sync.Mutex
	calls []string

	imagePull        func(ctx context.Context, ref string, options image.PullOptions) (io.ReadCloser, error)
	imageInspect     func(ctx context.Context, ref string) (image.InspectResponse, error)
	networkCreate    func(ctx context.Context, name string, options network.CreateOptions) (network.CreateResponse, error)
	networkInspect   func(ctx context.Context, name string) (network.Inspect, error)
	networkConnect   func(ctx context.Context, name, container string, config *network.EndpointSettings) error
	networkRemove    func(ctx context.Context, name string) error
	volumeCreate     func(ctx context.Context, options volume.CreateOptions) (volume.Volume, error)
	containerCreate  func(ctx context.Context, config *container.Config, hostConfig *container.HostConfig, networkingConfig *network.NetworkingConfig, platform *ocispec.Platform, name string) (container.CreateResponse, error)
	containerStart   func(ctx context.Context, name string, options container.StartOptions) error
	containerInspect func(ctx context.Context, name string) (container.InspectResponse, error)
	containerStop    func(ctx context.Context, name string, options container.StopOptions) error
	containerKill    func(ctx context.Context, name, signal string) error
	containerRemove  func(ctx context.Context, name string, options container.RemoveOptions) error
	containerLogs    func(ctx context.Context, name string, options container.LogsOptions) (io.ReadCloser, error)
	events           func(ctx context.Context, options events.ListOptions) (<-chan events.Message, <-chan error)
	info             func(ctx context.Context) (system.Info, error)
}

var _ engineapi.APIClient = (*fakeClient)(nil)

func newFakeClient(t testing.TB) *fakeClient { return &fakeClient{t: t} }

// called returns the calls so far, in order.
func (f *fakeClient) called() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]string(nil), f.calls...)
}

// record notes the call; set is whether the test expects it.
func (f *fakeClient) record(method, about string, set bool) {
	f.mu.Lock()
	f.calls = append(f.calls, method+" "+about)
	f.mu.Unlock()
	if !set {
		f.t.Errorf("unexpected engine call: %s %s", method, about)
		panic("unexpected engine call: " + method)
	}
}

func (f *fakeClient) ImagePull(ctx context.Context, ref string, options image.PullOptions) (io.ReadCloser, error) {
	f.record("ImagePull", ref, f.imagePull != nil)
	return f.imagePull(ctx, ref, options)
}

func (f *fakeClient) ImageInspect(ctx context.Context, ref string, _ ...engineapi.ImageInspectOption) (image.InspectResponse, error) {
	f.record("ImageInspect", ref, f.imageInspect != nil)
	return f.imageInspect(ctx, ref)
}

func (f *fakeClient) NetworkCreate(ctx context.Context, name string, options network.CreateOptions) (network.CreateResponse, error) {
	f.record("NetworkCreate", name, f.networkCreate != nil)
	return f.networkCreate(ctx, name, options)
}

func (f *fakeClient) NetworkInspect(ctx context.Context, name string, _ network.InspectOptions) (network.Inspect, error) {
	f.record("NetworkInspect", name, f.networkInspect != nil)
	return f.networkInspect(ctx, name)
}

func (f *fakeClient) NetworkConnect(ctx context.Context, name, containerName string, config *network.EndpointSettings) error {
	f.record("NetworkConnect", name, f.networkConnect != nil)
	return f.networkConnect(ctx, name, containerName, config)
}

func (f *fakeClient) NetworkRemove(ctx context.Context, name string) error {
	f.record("NetworkRemove", name, f.networkRemove != nil)
	return f.networkRemove(ctx, name)
}

func (f *fakeClient) VolumeCreate(ctx context.Context, options volume.CreateOptions) (volume.Volume, error) {
	f.record("VolumeCreate", options.Name, f.volumeCreate != nil)
	return f.volumeCreate(ctx, options)
}

func (f *fakeClient) ContainerCreate(ctx context.Context, config *container.Config, hostConfig *container.HostConfig, networkingConfig *network.NetworkingConfig, platform *ocispec.Platform, name string) (container.CreateResponse, error) {
	f.record("ContainerCreate", name, f.containerCreate != nil)
	return f.containerCreate(ctx, config, hostConfig, networkingConfig, platform, name)
}

func (f *fakeClient) ContainerStart(ctx context.Context, name string, options container.StartOptions) error {
	f.record("ContainerStart", name, f.containerStart != nil)
	return f.containerStart(ctx, name, options)
}

func (f *fakeClient) ContainerInspect(ctx context.Context, name string) (container.InspectResponse, error) {
	f.record("ContainerInspect", name, f.containerInspect != nil)
	return f.containerInspect(ctx, name)
}

func (f *fakeClient) ContainerStop(ctx context.Context, name string, options container.StopOptions) error {
	f.record("ContainerStop", name, f.containerStop != nil)
	return f.containerStop(ctx, name, options)
}

func (f *fakeClient) ContainerKill(ctx context.Context, name, signal string) error {
	f.record("ContainerKill", name, f.containerKill != nil)
	return f.containerKill(ctx, name, signal)
}

func (f *fakeClient) ContainerRemove(ctx context.Context, name string, options container.RemoveOptions) error {
	f.record("ContainerRemove", name, f.containerRemove != nil)
	return f.containerRemove(ctx, name, options)
}

func (f *fakeClient) ContainerLogs(ctx context.Context, name string, options container.LogsOptions) (io.ReadCloser, error) {
	f.record("ContainerLogs", name, f.containerLogs != nil)
	return f.containerLogs(ctx, name, options)
}

func (f *fakeClient) Events(ctx context.Context, options events.ListOptions) (<-chan events.Message, <-chan error) {
	f.record("Events", options.Since, f.events != nil)
	return f.events(ctx, options)
}

func (f *fakeClient) Info(ctx context.Context) (system.Info, error) {
	f.record("Info", "", f.info != nil)
	return f.info(ctx)
}

// creating has the fake answer each ContainerCreate with the next of errs, nil
// standing for success, and the last one for ever.
func (f *fakeClient) creating(errs ...error) {
	f.containerCreate = func(context.Context, *container.Config, *container.HostConfig, *network.NetworkingConfig, *ocispec.Platform, string) (container.CreateResponse, error) {
		err := errs[0]
		if len(errs) > 1 {
			errs = errs[1:]
		}
		if err != nil {
			return container.CreateResponse{}, err
		}
		return container.CreateResponse{ID: "c0"}, nil
	}
}

func (f *fakeClient) killing(err error) {
	f.containerKill = func(context.Context, string, string) error { return err }
}

func (f *fakeClient) inspecting(answer container.InspectResponse, err error) {
	f.containerInspect = func(context.Context, string) (container.InspectResponse, error) { return answer, err }
}

// fakeContainer is the inspect side of a fake engine that has one container.
type fakeContainer struct {
	client *fakeClient
	mu     sync.Mutex
	answer container.InspectResponse
	err    error
	asked  []string // what each inspect named
}

// become has the next inspects answer so.
func (c *fakeContainer) become(answer container.InspectResponse, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.answer, c.err = answer, err
}

func (c *fakeContainer) inspects() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.asked)
}

func newFakeContainer(client *fakeClient, status container.ContainerState) *fakeContainer {
	c := &fakeContainer{client: client, answer: containerIs(status)}
	client.containerInspect = func(_ context.Context, name string) (container.InspectResponse, error) {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.asked = append(c.asked, name)
		return c.answer, c.err
	}
	return c
}

// oldEngine answers as an engine of API 1.41 does, and records the paths.
type oldEngine struct {
	mu       sync.Mutex
	paths    []string
	pingFail int // so many pings fail
	version  string
	hang     bool
}

func (e *oldEngine) RoundTrip(request *http.Request) (*http.Response, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.hang {
		<-request.Context().Done()
		return nil, request.Context().Err()
	}
	e.paths = append(e.paths, request.URL.Path)
	response := &http.Response{StatusCode: http.StatusNoContent, Header: http.Header{}, Body: http.NoBody, Request: request}
	if request.URL.Path == "/_ping" {
		if e.pingFail > 0 {
			e.pingFail--
			return nil, io.ErrUnexpectedEOF
		}
		response.StatusCode = http.StatusOK
		response.Header.Set("Api-Version", e.version)
	}
	return response, nil
}

func (e *oldEngine) client(t *testing.T, opts ...engineapi.Opt) *engineapi.Client {
	t.Helper()
	opts = append([]engineapi.Opt{engineapi.WithHost("tcp://engine:1"), engineapi.WithHTTPClient(&http.Client{Transport: e})}, opts...)
	client, err := engineapi.NewClientWithOpts(opts...)
	require.NoError(t, err)
	return client
}

// silentTransport is an engine that knows a running container of any name, and
// whose event stream is silent. It costs no connection.
type silentTransport struct{}

func (silentTransport) RoundTrip(request *http.Request) (*http.Response, error) {
	answer := &http.Response{StatusCode: http.StatusOK, Header: http.Header{"Api-Version": {"1.51"}, "Content-Type": {"application/json"}}, Request: request}
	switch path := request.URL.Path; {
	case strings.HasSuffix(path, "/_ping"):
		answer.Body = io.NopCloser(strings.NewReader("OK"))
	case strings.HasSuffix(path, "/events"):
		answer.Body = silentBody{request.Context()}
	case strings.HasSuffix(path, "/json"):
		answer.Body = io.NopCloser(strings.NewReader(`{"Id": "c1", "Config": {}, "State": {"Status": "running", "Running": true}}`))
	default:
		return nil, errors.Errorf("unexpected request: %s", path)
	}
	return answer, nil
}

// silentBody says nothing until its request ends.
type silentBody struct{ ctx context.Context }

func (s silentBody) Read([]byte) (int, error) {
	<-s.ctx.Done()
	return 0, s.ctx.Err()
}

func (silentBody) Close() error { return nil }

// answering is a transport that answers as an engine.
type answering func(*http.Request) (int, string)

func (a answering) RoundTrip(r *http.Request) (*http.Response, error) {
	status, body := a(r)
	return &http.Response{StatusCode: status, Body: io.NopCloser(strings.NewReader(body)), Request: r,
		Header: http.Header{"Content-Type": {"application/json"}}}, nil
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// wireEngine is the events side of an engine on the wire, for the real client:
// it keeps the last 256 events of all kinds, replays inclusively from since,
// answers before it subscribes, loses all with a restart, and is cut off after
// so many bytes. Its connections are pipes, so it runs on fake time.
type wireEngine struct {
	mu        sync.Mutex
	down      bool
	ring      []events.Message
	followers map[chan events.Message]bool
	conns     map[net.Conn]bool
	budgets   []int  // bytes that each next stream sends before it is cut; none left: no limit
	recorded  []byte // what streams begin with, a line each millisecond
	refusal   int    // not 0: the status that requests for events are answered with
	streams   int
	dials     int

	accepted chan net.Conn
	closed   chan struct{}
}

const keptByEngine = 256

// newWireEngine starts an engine and a client of it.
func newWireEngine(t *testing.T) (*wireEngine, *engineapi.Client) {
	t.Helper()
	e := &wireEngine{
		followers: map[chan events.Message]bool{}, conns: map[net.Conn]bool{},
		accepted: make(chan net.Conn), closed: make(chan struct{}),
	}
	server := &http.Server{
		Handler: e,
		ConnContext: func(ctx context.Context, conn net.Conn) context.Context {
			return context.WithValue(ctx, wireEngine{}.accepted, conn)
		},
	}
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(e) })
	client, err := engineapi.NewClientWithOpts(
		engineapi.WithHost("tcp://engine"), engineapi.WithHTTPClient(&http.Client{Transport: &http.Transport{DialContext: e.dial}}))
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, client.Close())
		require.NoError(t, server.Close())
		serving.Wait()
	})
	return e, client
}

func (e *wireEngine) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	e.mu.Lock()
	e.dials++
	down := e.down
	e.mu.Unlock()
	if down {
		return nil, &net.OpError{Op: "dial", Net: "unix", Err: syscall.ECONNREFUSED}
	}
	near, far := net.Pipe()
	conn := &wireConn{Conn: far, left: -1}
	e.mu.Lock()
	e.conns[conn] = true
	e.mu.Unlock()
	select {
	case e.accepted <- conn:
		return near, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (e *wireEngine) Accept() (net.Conn, error) {
	select {
	case conn := <-e.accepted:
		return conn, nil
	case <-e.closed:
		return nil, net.ErrClosed
	}
}

func (e *wireEngine) Close() error {
	close(e.closed)
	return nil
}

func (e *wireEngine) Addr() net.Addr { return &net.UnixAddr{Name: "engine", Net: "unix"} }

// wireConn is cut after so many bytes.
type wireConn struct {
	net.Conn
	mu   sync.Mutex
	left int // negative: no limit
}

func (c *wireConn) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.left < 0 {
		return c.Conn.Write(p)
	}
	n, err := c.Conn.Write(p[:min(len(p), c.left)])
	if c.left -= n; c.left == 0 {
		_ = c.Conn.Close()
	}
	return n, err
}

func (e *wireEngine) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if strings.HasSuffix(r.URL.Path, "/_ping") {
		w.Header().Set("Api-Version", "1.41")
		return
	}
	var filter map[string]map[string]bool
	if err := json.Unmarshal([]byte(r.FormValue("filters")), &filter); err != nil || !strings.HasSuffix(r.URL.Path, "/v1.41/events") {
		http.Error(w, "unexpected request "+r.URL.String(), http.StatusTeapot)
		return
	}
	e.mu.Lock()
	refusal := e.refusal
	e.mu.Unlock()
	if refusal != 0 {
		http.Error(w, `{"message": "not now"}`, refusal)
		return
	}
	sec, nano, _ := strings.Cut(r.FormValue("since"), ".")
	since, _ := strconv.ParseInt(sec+nano, 10, 64)

	e.mu.Lock()
	e.streams++
	if len(e.budgets) > 0 {
		conn := r.Context().Value(wireEngine{}.accepted).(*wireConn)
		conn.mu.Lock()
		conn.left, e.budgets = e.budgets[0], e.budgets[1:]
		conn.mu.Unlock()
	}
	e.mu.Unlock()
	_ = http.NewResponseController(w).Flush()

	e.mu.Lock()
	var replay []events.Message
	for i := len(e.ring) - 1; i >= 0 && e.ring[i].TimeNano >= since; i-- {
		if passes(filter, e.ring[i]) {
			replay = append(replay, e.ring[i])
		}
	}
	slices.Reverse(replay)
	follower := make(chan events.Message, 1024)
	e.followers[follower] = true
	e.mu.Unlock()
	defer func() {
		e.mu.Lock()
		delete(e.followers, follower)
		e.mu.Unlock()
	}()

	for line := range bytes.Lines(e.recorded) {
		time.Sleep(time.Millisecond)
		_, _ = w.Write(line)
		_ = http.NewResponseController(w).Flush()
	}
	encoder := json.NewEncoder(w)
	for {
		var next events.Message
		if len(replay) > 0 {
			next, replay = replay[0], replay[1:]
		} else {
			select {
			case next = <-follower:
			case <-r.Context().Done():
				return
			}
		}
		if passes(filter, next) {
			if encoder.Encode(next) != nil || http.NewResponseController(w).Flush() != nil {
				return
			}
		}
	}
}

func passes(filter map[string]map[string]bool, m events.Message) bool {
	action, _, _ := strings.Cut(string(m.Action), ":")
	_, labelled := m.Actor.Attributes[labelTask]
	return filter["type"][string(m.Type)] && filter["event"][action] && (labelled || !filter["label"][labelTask+"="])
}

// publish has an event happen.
func (e *wireEngine) publish(m events.Message) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.ring) == keptByEngine {
		e.ring = e.ring[1:]
	}
	e.ring = append(e.ring, m)
	for follower := range e.followers {
		select {
		case follower <- m:
		default: // the engine waits 100 ms, and drops it then
		}
	}
}

// stop breaks every connection and forgets every event.
func (e *wireEngine) stop() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.down, e.ring = true, nil
	for conn := range e.conns {
		_ = conn.Close()
	}
	clear(e.conns)
}

func (e *wireEngine) start() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.down = false
}

func (e *wireEngine) opened() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.streams
}
