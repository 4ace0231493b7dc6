package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/events"
	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/api/types/volume"
	engineapi "github.com/docker/docker/client"
	"github.com/docker/docker/pkg/stdcopy"
	"github.com/dockerexec/dockerexec"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// fakeEngine runs one container, which ends by itself unless it sleeps.
type fakeEngine struct {
	engineapi.APIClient

	pullErr    error
	hasImage   bool
	createErr  error
	sleeps     bool   // runs until it is stopped
	stubborn   bool   // and even then, until it is killed
	sick       bool   // its health check fails
	exitCode   int    // of a container that ends by itself
	log        []byte // multiplexed
	started    chan struct{}
	mu         sync.Mutex
	calls      []string
	labels     map[string]string
	state      *container.State // nil: no container
	messages   chan events.Message
	volumeName string
}

func newFakeEngine() *fakeEngine {
	return &fakeEngine{started: make(chan struct{}), messages: make(chan events.Message, 8)}
}

func (f *fakeEngine) called(call string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls = append(f.calls, call)
}

// become puts the container into another state and says so as an event.
func (f *fakeEngine) become(status string, code int, action events.Action) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.state = &container.State{Status: status, ExitCode: code}
	f.messages <- events.Message{Type: events.ContainerEventType, Action: action,
		Actor: events.Actor{ID: "c1", Attributes: f.labels}, TimeNano: time.Now().UnixNano()}
}

func (f *fakeEngine) ImagePull(context.Context, string, image.PullOptions) (io.ReadCloser, error) {
	f.called("pull")
	return io.NopCloser(strings.NewReader(`{"status":"Pulling from web","id":"1"}` + "\n")), f.pullErr
}

func (f *fakeEngine) ImageInspect(context.Context, string, ...engineapi.ImageInspectOption) (image.InspectResponse, error) {
	if !f.hasImage {
		return image.InspectResponse{}, cerrdefs.ErrNotFound
	}
	return image.InspectResponse{}, nil
}

func (f *fakeEngine) NetworkCreate(_ context.Context, name string, _ network.CreateOptions) (network.CreateResponse, error) {
	f.called("create network " + name)
	return network.CreateResponse{ID: "n1"}, nil
}

func (f *fakeEngine) NetworkInspect(context.Context, string, network.InspectOptions) (network.Inspect, error) {
	return network.Inspect{}, cerrdefs.ErrNotFound
}

func (f *fakeEngine) NetworkRemove(_ context.Context, id string) error {
	f.called("remove network " + id)
	return nil
}

func (f *fakeEngine) VolumeCreate(_ context.Context, options volume.CreateOptions) (volume.Volume, error) {
	f.called("create volume " + options.Name)
	f.volumeName = options.Name
	return volume.Volume{}, nil
}

func (f *fakeEngine) VolumeList(_ context.Context, options volume.ListOptions) (volume.ListResponse, error) {
	if f.volumeName == "" || !slices.Equal(options.Filters.Get("label"), []string{"runtask.task=task1"}) {
		return volume.ListResponse{}, nil
	}
	return volume.ListResponse{Volumes: []*volume.Volume{{Name: f.volumeName}}}, nil
}

func (f *fakeEngine) VolumeRemove(_ context.Context, name string, _ bool) error {
	f.called("remove volume " + name)
	return nil
}

func (f *fakeEngine) ContainerCreate(_ context.Context, config *container.Config, _ *container.HostConfig, _ *network.NetworkingConfig, _ *ocispec.Platform, name string) (container.CreateResponse, error) {
	f.called("create " + name)
	if f.createErr != nil {
		return container.CreateResponse{}, f.createErr
	}
	f.mu.Lock()
	f.labels = map[string]string{"name": name}
	for k, v := range config.Labels {
		f.labels[k] = v
	}
	f.mu.Unlock()
	f.become(container.StateCreated, 0, events.ActionCreate)
	return container.CreateResponse{ID: "c1"}, nil
}

func (f *fakeEngine) ContainerStart(context.Context, string, container.StartOptions) error {
	f.called("start")
	f.become(container.StateRunning, 0, events.ActionStart)
	close(f.started)
	if f.sick {
		f.become(container.StateRunning, 0, events.ActionHealthStatusUnhealthy)
	}
	if !f.sleeps {
		f.become(container.StateExited, f.exitCode, events.ActionDie)
	}
	return nil
}

func (f *fakeEngine) ContainerInspect(_ context.Context, name string) (container.InspectResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.state == nil {
		return container.InspectResponse{}, cerrdefs.ErrNotFound
	}
	state := *f.state
	return container.InspectResponse{
		ContainerJSONBase: &container.ContainerJSONBase{ID: "c1", Name: "/" + name, State: &state},
		Config:            &container.Config{Labels: f.labels},
	}, nil
}

func (f *fakeEngine) ContainerStop(ctx context.Context, _ string, options container.StopOptions) error {
	f.called("stop")
	if options.Timeout == nil || *options.Timeout != 7 {
		return errors.New("the grace period is not the task's")
	}
	if f.stubborn {
		<-ctx.Done()
		return ctx.Err()
	}
	f.become(container.StateExited, 143, events.ActionDie)
	return nil
}

func (f *fakeEngine) ContainerKill(context.Context, string, string) error {
	f.called("kill")
	f.become(container.StateExited, 137, events.ActionDie)
	return nil
}

func (f *fakeEngine) ContainerRemove(context.Context, string, container.RemoveOptions) error {
	f.called("remove")
	f.mu.Lock()
	there := f.state != nil
	f.mu.Unlock()
	if !there {
		return cerrdefs.ErrNotFound
	}
	f.become(container.StateDead, 0, events.ActionDestroy)
	return nil
}

func (f *fakeEngine) ContainerLogs(context.Context, string, container.LogsOptions) (io.ReadCloser, error) {
	return io.NopCloser(bytes.NewReader(f.log)), nil
}

func (f *fakeEngine) Events(context.Context, events.ListOptions) (<-chan events.Message, <-chan error) {
	return f.messages, make(chan error)
}

// runOn runs a task with a network and a volume on the fake engine.
func runOn(t *testing.T, first, second context.Context, f *fakeEngine) (code int, output string, err error) {
	t.Helper()
	file := write(t, `{"id": "task1"}`)
	o, err := parseFlags([]string{"-f", file, "-image", "registry.test/web:1", "-name", "web", "-volume", "data:/data", "-network", "net", "-grace", "7s"}, io.Discard)
	require.NoError(t, err)
	task, err := o.task()
	require.NoError(t, err)
	var out bytes.Buffer
	r := &runner{client: f, task: task, out: newPrinter(&out)}
	code, err = r.run(first, second)
	return code, out.String(), err
}

var all = []string{"pull", "create network net", "create volume data", "create web.1.task1", "start",
	"remove", "remove network n1", "remove volume data"}

func TestRunGivesTheContainersExitCode(t *testing.T) {
	f := newFakeEngine()
	f.exitCode = 3
	var log bytes.Buffer
	stdcopy.NewStdWriter(&log, stdcopy.Stdout).Write([]byte("2026-01-02T03:04:05.000000006Z hello world\n"))
	stdcopy.NewStdWriter(&log, stdcopy.Stderr).Write([]byte("2026-01-02T03:04:06Z oops\n"))
	f.log = log.Bytes()

	code, output, err := runOn(t, t.Context(), t.Context(), f)
	assert.Equal(t, 3, code)
	assert.EqualError(t, err, "task: non-zero exit (3)")
	assert.Equal(t, all, f.calls)
	for _, line := range []string{"event create", "event start", "event die", "event destroy", "log | hello world", "log ! oops", "exit code 3"} {
		assert.Contains(t, output, "\n"+line+"\n")
	}
}

func TestRunOfATaskThatSucceeds(t *testing.T) {
	code, _, err := runOn(t, t.Context(), t.Context(), newFakeEngine())
	require.NoError(t, err)
	assert.Zero(t, code)
}

func TestPullFailsWithoutTheImage(t *testing.T) {
	f := newFakeEngine()
	f.pullErr = cerrdefs.ErrPermissionDenied
	code, _, err := runOn(t, t.Context(), t.Context(), f)
	assert.Equal(t, 125, code)
	require.ErrorIs(t, err, cerrdefs.ErrPermissionDenied)
	assert.Equal(t, []string{"pull"}, f.calls)
}

func TestPullFailsWithTheImageOnTheEngine(t *testing.T) {
	f := newFakeEngine()
	f.pullErr, f.hasImage = cerrdefs.ErrPermissionDenied, true
	code, output, err := runOn(t, t.Context(), t.Context(), f)
	require.NoError(t, err)
	assert.Zero(t, code)
	assert.Contains(t, output, "pull not needed, the image is on the engine: ")
}

func TestAllIsRemovedWhenTheCreateFails(t *testing.T) {
	f := newFakeEngine()
	f.createErr = cerrdefs.ErrInvalidArgument
	code, _, err := runOn(t, t.Context(), t.Context(), f)
	assert.Equal(t, 125, code)
	require.ErrorIs(t, err, cerrdefs.ErrInvalidArgument)
	assert.Equal(t, slices.DeleteFunc(slices.Clone(all), func(c string) bool { return c == "start" }), f.calls)
}

func TestInterruptStopsTheContainer(t *testing.T) {
	f := newFakeEngine()
	f.sleeps = true
	first, interrupt := context.WithCancel(t.Context())
	go func() { <-f.started; interrupt() }()
	code, _, err := runOn(t, first, t.Context(), f)
	assert.Equal(t, 143, code)
	assert.EqualError(t, err, "task: non-zero exit (143)")
	assert.Equal(t, slices.Insert(slices.Clone(all), 5, "stop"), f.calls)
}

func TestSecondInterruptKillsTheContainer(t *testing.T) {
	f := newFakeEngine()
	f.sleeps, f.stubborn = true, true
	first, interrupt := context.WithCancel(t.Context())
	second, again := context.WithCancel(t.Context())
	go func() { <-f.started; interrupt(); again() }()
	code, _, err := runOn(t, first, second, f)
	assert.Equal(t, 137, code)
	assert.EqualError(t, err, "task: non-zero exit (137)")
	assert.Contains(t, f.calls, "kill")
	assert.Equal(t, all[5:], f.calls[len(f.calls)-3:])
}

func TestInterruptBeforeTheStart(t *testing.T) {
	f := newFakeEngine()
	f.pullErr = context.Canceled
	first, interrupt := context.WithCancel(t.Context())
	interrupt()
	code, _, err := runOn(t, first, t.Context(), f)
	assert.Equal(t, 125, code)
	assert.EqualError(t, err, "interrupted before the task had started")
}

func TestUnhealthyContainerIsStopped(t *testing.T) {
	f := newFakeEngine()
	f.sleeps, f.sick = true, true
	code, output, err := runOn(t, t.Context(), t.Context(), f)
	assert.Equal(t, 143, code)
	require.ErrorIs(t, err, dockerexec.ErrContainerUnhealthy)
	assert.Contains(t, output, "\nevent health_status: unhealthy\n")
}
