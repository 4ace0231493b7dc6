package dockerexec_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"strings"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/docker/docker/api/types"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/api/types/registry"
	"github.com/docker/docker/api/types/system"
	"github.com/docker/docker/api/types/volume"
	engineapi "github.com/docker/docker/client"
	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/moby/swarmkit/v2/agent/secrets"
	"github.com/moby/swarmkit/v2/api"
	"github.com/moby/swarmkit/v2/api/genericresource"

	"github.com/dockerexec/dockerexec"
)

func (f *fakeEngine) Info(context.Context) (system.Info, error) {
	return system.Info{Name: "node-1", NCPU: 2}, nil
}

func (f *fakeEngine) PluginList(context.Context, filters.Args) (types.PluginsListResponse, error) {
	return nil, nil
}

func (f *fakeEngine) NetworkCreate(_ context.Context, name string, _ network.CreateOptions) (network.CreateResponse, error) {
	fmt.Println("create network", name)
	return network.CreateResponse{ID: "id-of-" + name}, nil
}

func (f *fakeEngine) NetworkRemove(_ context.Context, id string) error {
	fmt.Println("remove network", id)
	return nil
}

func (f *fakeEngine) VolumeCreate(_ context.Context, options volume.CreateOptions) (volume.Volume, error) {
	fmt.Println("create volume", options.Name)
	return volume.Volume{Name: options.Name}, nil
}

func (f *fakeEngine) VolumeRemove(_ context.Context, name string, _ bool) error {
	fmt.Println("remove volume", name)
	return nil
}

// started returns the adapter of a task whose container has been started.
func started(ctx context.Context, client *fakeEngine) *dockerexec.ContainerAdapter {
	adapter, err := dockerexec.NewEngine(client).Adapter(nil, task(), nil)
	if err != nil {
		log.Fatal(err)
	}
	if err := errors.Join(adapter.Create(ctx), adapter.Start(ctx)); err != nil {
		log.Fatal(err)
	}
	return adapter
}

// A swarm agent hands the executor to SwarmKit, which then does the rest: it asks
// for the node's description, and takes each task from state to state.
func ExampleNewExecutor() {
	ctx := context.Background()
	executor := dockerexec.NewExecutor(&fakeEngine{}, nil, dockerexec.WithLogRate(1<<20))

	node, err := executor.Describe(ctx)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(node.Hostname)

	task := task()
	task.Status.State, task.DesiredState = api.TaskStateAccepted, api.TaskStateRunning
	controller, err := executor.Controller(task)
	if err != nil {
		log.Fatal(err)
	}
	for task.Status.State < api.TaskStateCompleted {
		status, err := exec.Do(ctx, task, controller)
		if err != nil {
			log.Fatal(err)
		}
		task.Status = *status
		fmt.Println(task.Status.State)
	}
	if err := errors.Join(controller.Remove(ctx), controller.Close()); err != nil {
		log.Fatal(err)
	}
	// Output:
	// node-1
	// PREPARING
	// READY
	// STARTING
	// RUNNING
	// COMPLETE
}

// requests is a transport that prints each request before it hands it on.
type requests struct{ next http.RoundTripper }

func (r requests) RoundTrip(request *http.Request) (*http.Response, error) {
	fmt.Println(request.Method, request.URL.Path)
	return r.next.RoundTrip(request)
}

// wire is a transport that answers in the engine's place.
type wire struct{}

func (wire) RoundTrip(request *http.Request) (*http.Response, error) {
	return &http.Response{
		StatusCode: http.StatusOK,
		Header:     http.Header{"Api-Version": {"1.47"}},
		Body:       io.NopCloser(strings.NewReader("")),
		Request:    request,
	}, nil
}

// To see, count or trace the requests, wrap the client's transport and not the
// client, so that the Engine can still negotiate the API version. The host comes
// first. An engine that is reached by TLS needs client.WithScheme("https") too.
func ExampleNewEngine() {
	client, err := engineapi.NewClientWithOpts(engineapi.WithHost("tcp://127.0.0.1:2375"), func(c *engineapi.Client) error {
		wrapped := c.HTTPClient()
		wrapped.Transport = requests{next: wire{}} // elsewhere: next is wrapped.Transport
		return engineapi.WithHTTPClient(wrapped)(c)
	})
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()

	adapter, err := dockerexec.NewEngine(client).Adapter(nil, task(), nil)
	if err != nil {
		log.Fatal(err)
	}
	if err := adapter.Start(context.Background()); err != nil {
		log.Fatal(err)
	}
	// Output:
	// HEAD /_ping
	// POST /v1.47/containers/web.1.t1/start
}

// Run does what a task needs, from its pull to its removal. The result says how it ended.
func ExampleEngine_Run() {
	engine := dockerexec.NewEngine(&fakeEngine{exitCode: 3})

	result, err := engine.Run(context.Background(), task(), dockerexec.RunOptions{
		OnStatus: func(_ context.Context, s api.TaskStatus) {
			fmt.Println(s.State) // the last one can be written down here: nothing is removed yet
		},
	})
	fmt.Println(result.State, result.ExitCode, result.Reason)
	fmt.Println(err)
	// Output:
	// PREPARING
	// STARTING
	// RUNNING
	// FAILED
	// FAILED 3 exit code 3
	// task: non-zero exit (3)
}

// A label of the task names a device, for which SwarmKit's task has no field.
func ExampleWithCreateHook_device() {
	client := &fakeEngine{}
	engine := dockerexec.NewEngine(client, dockerexec.WithCreateHook(
		func(_ context.Context, task *api.Task, _ *container.Config, host *container.HostConfig) error {
			if path := task.Spec.GetContainer().Labels["com.example.device"]; path != "" {
				host.Devices = append(host.Devices, container.DeviceMapping{PathOnHost: path, PathInContainer: path, CgroupPermissions: "rw"})
			}
			return nil
		}))

	task := task()
	task.Spec.GetContainer().Labels = map[string]string{"com.example.device": "/dev/ttyUSB0"}
	if err := run(context.Background(), engine, task); err != nil {
		log.Fatal(err)
	}
	fmt.Println(client.host.Devices)
	// Output: [{/dev/ttyUSB0 /dev/ttyUSB0 rw}]
}

// A scheduler hands out GPUs as a generic resource, by the names that the agent got in
// genericResources. The container gets those of its task.
func ExampleWithCreateHook_gpus() {
	client := &fakeEngine{}
	engine := dockerexec.NewEngine(client, dockerexec.WithCreateHook(
		func(_ context.Context, task *api.Task, _ *container.Config, host *container.HostConfig) error {
			gpus := container.DeviceRequest{Driver: "nvidia", Capabilities: [][]string{{"gpu"}}}
			for _, resource := range task.AssignedGenericResources {
				if named := resource.GetNamedResourceSpec(); named != nil && named.Kind == "gpu" {
					gpus.DeviceIDs = append(gpus.DeviceIDs, named.Value)
				}
			}
			if len(gpus.DeviceIDs) > 0 { // without IDs the container would get all of them
				host.DeviceRequests = append(host.DeviceRequests, gpus)
			}
			return nil
		}))

	task := task()
	task.AssignedGenericResources = genericresource.NewSet("gpu", "GPU-0aa1", "GPU-0aa2")
	if err := run(context.Background(), engine, task); err != nil {
		log.Fatal(err)
	}
	fmt.Println(client.host.DeviceRequests[0].DeviceIDs)
	// Output: [GPU-0aa1 GPU-0aa2]
}

// A label of the task names a checkpoint, from which an experimental engine with criu starts
// it. The engine looks for it in the container's own folder, below its root folder:
// containers/ID/checkpoints.
func ExampleWithStartHook() {
	client := &fakeEngine{}
	engine := dockerexec.NewEngine(client, dockerexec.WithStartHook(
		func(_ context.Context, task *api.Task, options *container.StartOptions) error {
			options.CheckpointID = task.Spec.GetContainer().Labels["com.example.checkpoint"]
			return nil
		}))

	task := task()
	task.Spec.GetContainer().Labels = map[string]string{"com.example.checkpoint": "before-lunch"}
	if err := run(context.Background(), engine, task); err != nil {
		log.Fatal(err)
	}
	fmt.Println(client.start.CheckpointID)
	// Output: before-lunch
}

// The function is asked for a task that brings no credentials of its own. With
// github.com/docker/cli/cli/config, those of docker's own configuration and of its
// helpers are one line: examples/runtask has it.
//
//	auth, err := config.LoadDefaultConfigFile(os.Stderr).GetAuthConfig("registry.example.com")
func ExampleWithCredentials() {
	client := &fakeEngine{}
	engine := dockerexec.NewEngine(client, dockerexec.WithCredentials(
		func(_ context.Context, image string) (registry.AuthConfig, error) {
			fmt.Println("asked for", image)
			return registry.AuthConfig{Username: "me", Password: os.Getenv("REGISTRY_PASSWORD")}, nil
		}))

	if err := run(context.Background(), engine, task()); err != nil {
		log.Fatal(err)
	}
	// Output: asked for example/web:1
}

// startAgain starts the container, and tries again while the engine is away.
func startAgain(ctx context.Context, adapter *dockerexec.ContainerAdapter) error {
	for {
		err := adapter.Start(ctx)
		if !exec.IsTemporary(err) {
			return err // nil, final, or the context's
		}
		fmt.Println("trying again:", err)
		select {
		case <-time.After(time.Second / 2):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// An engine that restarts gives a temporary error, after which an executor tries
// again, as SwarmKit's agent does.
func Example_temporaryErrors() {
	ctx := context.Background()
	client := &fakeEngine{startErr: []error{cerrdefs.ErrUnavailable}}
	adapter, err := dockerexec.NewEngine(client).Adapter(nil, task(), nil)
	if err != nil {
		log.Fatal(err)
	}
	if err := adapter.Create(ctx); err != nil {
		log.Fatal(err)
	}
	fmt.Println(startAgain(ctx, adapter))
	// Output:
	// trying again: start container web.1.t1: unavailable
	// <nil>
}

// Subscribe, then inspect, and inspect again after each event. When the second
// channel is closed, subscribe again.
func ExampleContainerAdapter_Events() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel() // ends the subscriptions
	client := &fakeEngine{lasting: true}
	adapter := started(ctx, client)

	for ended := false; !ended; {
		messages, lost, err := adapter.Events(ctx)
		if err != nil {
			log.Fatal(err)
		}
		for subscribed := true; subscribed && !ended; {
			answer, err := adapter.Inspect(ctx)
			if err != nil {
				log.Fatal(err)
			}
			fmt.Println("container", answer.State.Status)
			if ended = answer.State.Status == container.StateExited; ended {
				break
			}
			client.end(0) // what happens on the engine meanwhile
			select {
			case m := <-messages:
				fmt.Println("event", m.Action)
			case <-lost:
				subscribed = false
			}
		}
	}
	// Output:
	// container running
	// event die
	// container exited
}

// A fake's container may run for a while: its event has the container's name, and
// inspect says what has become of it.
func ExampleContainerAdapter_Wait() {
	ctx := context.Background()
	client := &fakeEngine{lasting: true}
	adapter := started(ctx, client)

	time.AfterFunc(time.Second/10, func() { client.end(3) })
	ended, err := adapter.Wait(ctx)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("exit code", ended.State.ExitCode)
	// Output: exit code 3
}

// The log as messages. Follow goes on until the container has ended.
func ExampleContainerAdapter_PublishLogs() {
	ctx := context.Background()
	adapter := started(ctx, &fakeEngine{log: `2026-01-02T03:04:05.000000001Z one
2026-01-02T03:04:05.000000002Z two
`})

	publisher := exec.LogPublisherFunc(func(_ context.Context, m api.LogMessage) error {
		fmt.Printf("%s %d %q\n", m.Context.TaskID, m.Timestamp.Nanos, m.Data)
		return nil
	})
	if err := adapter.PublishLogs(ctx, api.LogSubscriptionOptions{Follow: true}, publisher); err != nil {
		log.Fatal(err)
	}
	// Output:
	// t1 1 "one\n"
	// t1 2 "two\n"
}

// Shutdown gives the container the task's grace period. Terminate does not.
func ExampleContainerAdapter_Shutdown() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	adapter := started(ctx, &fakeEngine{lasting: true})

	err := adapter.Shutdown(ctx)
	if err != nil && !exec.IsTemporary(err) { // an engine that fails to stop it may still kill it
		err = adapter.Terminate(ctx)
	}
	if err != nil {
		log.Fatal(err)
	}
	ended, err := adapter.Wait(ctx)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(dockerexec.ExitError(ended, nil))
	// Output: task: non-zero exit (143)
}

// Networks are made before the container and removed after it, if no other task
// uses them. Named volumes stay until you remove them yourself.
func ExampleContainerAdapter_CreateNetworks() {
	ctx := context.Background()
	client := &fakeEngine{}
	task := task()
	task.Networks = []*api.NetworkAttachment{{Network: &api.Network{
		Spec: api.NetworkSpec{Annotations: api.Annotations{Name: "backend"}},
	}}}
	task.Spec.GetContainer().Mounts = []api.Mount{{
		Type: api.MountTypeVolume, Source: "data", Target: "/data",
		VolumeOptions: &api.Mount_VolumeOptions{DriverConfig: &api.Driver{Name: "local"}},
	}}
	adapter, err := dockerexec.NewEngine(client).Adapter(nil, task, nil)
	if err != nil {
		log.Fatal(err)
	}
	for _, step := range []func(context.Context) error{
		adapter.CreateNetworks, adapter.CreateVolumes, adapter.Create, adapter.Start,
		adapter.Remove, adapter.RemoveNetworks,
	} {
		if err := step(ctx); err != nil {
			log.Fatal(err)
		}
	}
	if err := client.VolumeRemove(ctx, "data", false); err != nil {
		log.Fatal(err)
	}
	// Output:
	// create network backend
	// create volume data
	// remove network id-of-backend
	// remove volume data
}

// dependencies hands out secrets, and neither configs nor volumes.
type dependencies struct{ secrets exec.SecretGetter }

func (d dependencies) Secrets() exec.SecretGetter { return d.secrets }
func (d dependencies) Configs() exec.ConfigGetter { return nil }
func (d dependencies) Volumes() exec.VolumeGetter { return nil }

// steps runs a task on the adapter. It does not try again, and does not watch the health.
func steps(ctx context.Context, adapter *dockerexec.ContainerAdapter) (err error) {
	defer func() {
		if removeErr := adapter.Remove(context.WithoutCancel(ctx)); err == nil {
			err = removeErr
		}
	}()
	for _, step := range []func(context.Context) error{adapter.PullImage, adapter.Create, adapter.Start} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	ended, err := adapter.Wait(ctx)
	if err != nil {
		return err
	}
	return dockerexec.ExitError(ended, nil)
}

// An adapter is for a runner that decides itself about each step.
func ExampleEngine_Adapter() {
	adapter, err := dockerexec.NewEngine(&fakeEngine{exitCode: 3}).Adapter(nil, task(), nil)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(steps(context.Background(), adapter))
	// Output: task: non-zero exit (3)
}

// A task's secrets come from the getter that the adapter is given. Create asks it for
// them, and for no others.
func ExampleEngine_Adapter_secrets() {
	store := secrets.NewManager()
	store.Add(api.Secret{ID: "s1", Spec: api.SecretSpec{Data: []byte("the payload")}})

	task := task()
	task.Spec.GetContainer().Secrets = []*api.SecretReference{{
		SecretID: "s1", SecretName: "password",
		Target: &api.SecretReference_File{File: &api.FileTarget{Name: "password", Mode: 0o400}},
	}}
	engine := dockerexec.NewEngine(&fakeEngine{})

	_, err := engine.Adapter(nil, task, dependencies{secrets: store})
	fmt.Println(err)
	_, err = engine.Adapter(nil, task, nil)
	fmt.Println(err)
	// Output:
	// <nil>
	// dockerexec: task field Spec.Container.Secrets[0]: secret "password" (s1): the adapter was given no getter of secrets
}

// A task that cannot run as asked is refused at once, with the field's path.
func ExampleEngine_Adapter_refused() {
	bad := task()
	bad.Spec.GetContainer().Mounts = []api.Mount{{Type: api.MountTypeBind, Source: "/data", Target: "relative"}}

	_, err := dockerexec.NewEngine(&fakeEngine{}).Adapter(nil, bad, nil)
	fmt.Println(err)
	// Output: dockerexec: task field Spec.Container.Mounts[0].Target: "relative" is not an absolute path
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

// Whether a container is there.
func ExampleIsUnknownContainer() {
	ctx := context.Background()
	adapter, err := dockerexec.NewEngine(&fakeEngine{}).Adapter(nil, task(), nil)
	if err != nil {
		log.Fatal(err)
	}

	_, err = adapter.Inspect(ctx)
	fmt.Println(dockerexec.IsUnknownContainer(err))
	if err := adapter.Create(ctx); err != nil {
		log.Fatal(err)
	}
	_, err = adapter.Inspect(ctx)
	fmt.Println(err)
	// Output:
	// true
	// <nil>
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
