package dockerexec_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"strings"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/events"
	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/api/types/network"
	engineapi "github.com/docker/docker/client"
	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/moby/swarmkit/v2/api"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/dockerexec/dockerexec"
)

// A fakeEngine stands in for the engine's client. It embeds the interface and
// implements what the code under test needs.
type fakeEngine struct {
	engineapi.APIClient
	exitCode int
	created  *container.Config
}

func (f *fakeEngine) ImagePull(context.Context, string, image.PullOptions) (io.ReadCloser, error) {
	return io.NopCloser(strings.NewReader(`{"status":"Downloaded newer image"}`)), nil
}

func (f *fakeEngine) ContainerCreate(_ context.Context, config *container.Config, _ *container.HostConfig, _ *network.NetworkingConfig, _ *ocispec.Platform, _ string) (container.CreateResponse, error) {
	f.created = config
	return container.CreateResponse{ID: "0123456789ab"}, nil
}

func (f *fakeEngine) ContainerStart(context.Context, string, container.StartOptions) error {
	return nil
}

func (f *fakeEngine) ContainerInspect(context.Context, string) (container.InspectResponse, error) {
	return container.InspectResponse{ContainerJSONBase: &container.ContainerJSONBase{
		ID:    "0123456789ab",
		State: &container.State{Status: container.StateExited, ExitCode: f.exitCode},
	}}, nil
}

func (f *fakeEngine) Events(context.Context, events.ListOptions) (<-chan events.Message, <-chan error) {
	return make(chan events.Message), make(chan error)
}

func (f *fakeEngine) ContainerRemove(context.Context, string, container.RemoveOptions) error {
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

// run is a small executor of one's own: it runs a task to its end.
func run(ctx context.Context, engine *dockerexec.Engine, task *api.Task) error {
	adapter, err := engine.Adapter(nil, task, nil)
	if err != nil {
		return err
	}
	if err := adapter.PullImage(ctx); err != nil {
		return err
	}
	if err := adapter.Create(ctx); err != nil && !errors.Is(err, exec.ErrTaskPrepared) {
		return err
	}
	if err := adapter.Start(ctx); err != nil {
		return err
	}
	ended, err := adapter.Wait(ctx)
	if err != nil {
		return err
	}
	if err := adapter.Remove(ctx); err != nil {
		return err
	}
	return dockerexec.ExitError(ended, nil)
}

// A small executor, tested with a fake client. On a real engine the client is
// client.NewClientWithOpts(client.FromEnv).
func Example() {
	client := &fakeEngine{exitCode: 3}
	engine := dockerexec.NewEngine(client)

	err := run(context.Background(), engine, task())

	var exit exec.ExitCoder
	if errors.As(err, &exit) {
		fmt.Println("exit code", exit.ExitCode())
	}
	fmt.Println(err)
	fmt.Println(client.created.Env)
	// Output:
	// exit code 3
	// task: non-zero exit (3)
	// [INSTANCE=web-1]
}

// The observer is called with the context of the PullImage that waits.
func ExampleWithPullObserver() {
	type taskID struct{}
	engine := dockerexec.NewEngine(&fakeEngine{}, dockerexec.WithPullObserver(
		func(ctx context.Context, progress dockerexec.PullProgress) {
			fmt.Println(ctx.Value(taskID{}), progress.Image, progress.Status)
		}))

	adapter, err := engine.Adapter(nil, task(), nil)
	if err != nil {
		log.Fatal(err)
	}
	if err := adapter.PullImage(context.WithValue(context.Background(), taskID{}, "t1")); err != nil {
		log.Fatal(err)
	}
	// Output: t1 example/web:1 Downloaded newer image
}

// A task that cannot run as asked is refused at once, with the field's path.
func ExampleEngine_Adapter_refused() {
	bad := task()
	bad.Spec.GetContainer().Mounts = []api.Mount{{Type: api.MountTypeBind, Source: "/data", Target: "relative"}}

	_, err := dockerexec.NewEngine(&fakeEngine{}).Adapter(nil, bad, nil)
	fmt.Println(err)
	// Output: dockerexec: task field Spec.Container.Mounts[0].Target: "relative" is not an absolute path
}

// What a controller reports for a container that its health check ended.
func ExampleExitError() {
	ended := container.InspectResponse{ContainerJSONBase: &container.ContainerJSONBase{
		State: &container.State{Status: container.StateExited, ExitCode: 137},
	}}

	err := dockerexec.ExitError(ended, dockerexec.ErrContainerUnhealthy)
	fmt.Println(err)
	fmt.Println(errors.Is(err, dockerexec.ErrContainerUnhealthy))
	// Output:
	// task: non-zero exit (137): dockerexec: unhealthy container
	// true
}
