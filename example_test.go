package dockerexec_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/events"
	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/api/types/network"
	engineapi "github.com/docker/docker/client"
	"github.com/docker/docker/pkg/stdcopy"
	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/moby/swarmkit/v2/api"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/dockerexec/dockerexec"
)

// A fakeEngine stands in for the engine's client, and runs one container. It embeds
// the interface and implements what the code under test needs.
type fakeEngine struct {
	engineapi.APIClient
	lasting  bool   // the container runs until end is called
	exitCode int    // of a container that does not
	log      string // lines, each with the engine's time in front
	startErr []error

	mu       sync.Mutex
	name     string // of the container
	config   *container.Config
	host     *container.HostConfig
	start    container.StartOptions
	state    *container.State // nil: there is no container
	messages chan events.Message
}

func (f *fakeEngine) ImagePull(context.Context, string, image.PullOptions) (io.ReadCloser, error) {
	return io.NopCloser(strings.NewReader(`{"status":"Downloaded newer image"}`)), nil
}

func (f *fakeEngine) ContainerCreate(_ context.Context, config *container.Config, host *container.HostConfig, _ *network.NetworkingConfig, _ *ocispec.Platform, name string) (container.CreateResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.name, f.config, f.host, f.state = name, config, host, &container.State{Status: container.StateCreated}
	return container.CreateResponse{ID: "0123456789ab"}, nil
}

func (f *fakeEngine) ContainerStart(_ context.Context, _ string, options container.StartOptions) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.start = options
	if len(f.startErr) > 0 {
		err := f.startErr[0]
		f.startErr = f.startErr[1:]
		return err
	}
	f.state = &container.State{Status: container.StateRunning}
	if !f.lasting {
		f.endLocked(f.exitCode)
	}
	return nil
}

// end ends the container and sends the event that says so.
func (f *fakeEngine) end(exitCode int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.endLocked(exitCode)
}

func (f *fakeEngine) endLocked(exitCode int) {
	f.state = &container.State{Status: container.StateExited, ExitCode: exitCode}
	if f.messages == nil {
		return
	}
	f.messages <- events.Message{
		Type:   events.ContainerEventType,
		Action: events.ActionDie,
		Actor:  events.Actor{ID: "0123456789ab", Attributes: map[string]string{"name": f.name}}, // the name is what counts
	}
}

func (f *fakeEngine) ContainerInspect(_ context.Context, name string) (container.InspectResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.state == nil {
		return container.InspectResponse{}, fmt.Errorf("No such container: %s: %w", name, cerrdefs.ErrNotFound)
	}
	state := *f.state
	return container.InspectResponse{
		ContainerJSONBase: &container.ContainerJSONBase{ID: "0123456789ab", State: &state},
		Config:            f.config,
	}, nil
}

func (f *fakeEngine) Events(context.Context, events.ListOptions) (<-chan events.Message, <-chan error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.messages = make(chan events.Message, 10)
	return f.messages, nil
}

func (f *fakeEngine) ContainerLogs(context.Context, string, container.LogsOptions) (io.ReadCloser, error) {
	var frames bytes.Buffer
	for line := range strings.Lines(f.log) {
		if _, err := stdcopy.NewStdWriter(&frames, stdcopy.Stdout).Write([]byte(line)); err != nil {
			return nil, err
		}
	}
	return io.NopCloser(&frames), nil
}

func (f *fakeEngine) ContainerStop(context.Context, string, container.StopOptions) error {
	f.end(143)
	return nil
}

func (f *fakeEngine) ContainerRemove(context.Context, string, container.RemoveOptions) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.state = nil
	return nil
}

// task is what a SwarmKit manager would hand to the agent.
func task() *api.Task {
	return &api.Task{
		ID:                 "t1",
		Slot:               1,
		ServiceAnnotations: api.Annotations{Name: "web"},
		Spec: api.TaskSpec{Runtime: &api.TaskSpec_Container{Container: &api.ContainerSpec{
			Image: "example/web:1",
			Env:   []string{"INSTANCE={{.Service.Name}}-{{.Task.Slot}}"},
		}}},
	}
}

// run runs a task to its end, prints its log, and leaves nothing but named volumes.
func run(ctx context.Context, engine *dockerexec.Engine, task *api.Task) error {
	_, err := engine.Run(ctx, task, dockerexec.RunOptions{
		Logs: exec.LogPublisherFunc(func(_ context.Context, m api.LogMessage) error {
			_, err := fmt.Print(string(m.Data))
			return err
		}),
	})
	return err
}

// A small executor, tested with a fake client. On a real engine the client is
// client.NewClientWithOpts(client.FromEnv).
func Example() {
	client := &fakeEngine{exitCode: 3, log: "2026-01-02T03:04:05.000000000Z hello\n"}
	engine := dockerexec.NewEngine(client)

	err := run(context.Background(), engine, task())

	var exit exec.ExitCoder
	if errors.As(err, &exit) {
		fmt.Println("exit code", exit.ExitCode())
	}
	fmt.Println(err)
	fmt.Println(client.config.Env)
	// Output:
	// hello
	// exit code 3
	// task: non-zero exit (3)
	// [INSTANCE=web-1]
}
