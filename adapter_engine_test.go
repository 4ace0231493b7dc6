package dockerexec

import (
	"bytes"
	"context"
	"sync"
	"testing"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/network"
	engineapi "github.com/docker/docker/client"
	"github.com/docker/docker/pkg/stdcopy"
	gogotypes "github.com/gogo/protobuf/types"
	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/moby/swarmkit/v2/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// engineAdapter makes an adapter on the running engine and has all of its task
// removed at the end.
func engineAdapter(t *testing.T, client *engineapi.Client, task *api.Task) *ContainerAdapter {
	t.Helper()
	adapter, err := NewContainerAdapter(client, nil, task, nil)
	require.NoError(t, err)
	t.Cleanup(func() {
		ctx := context.WithoutCancel(t.Context())
		assert.NoError(t, adapter.Remove(ctx))
		assert.NoError(t, adapter.RemoveNetworks(ctx))
	})
	return adapter
}

// engineTwin is a second adapter of the same task, as a new process has it.
func engineTwin(t *testing.T, client *engineapi.Client, task *api.Task) *ContainerAdapter {
	t.Helper()
	adapter, err := NewContainerAdapter(client, nil, task, nil)
	require.NoError(t, err)
	return adapter
}

func TestEngineRunsATaskToItsEnd(t *testing.T) {
	client := engineClient(t)
	task := engineTask(t, "print", "3", "hello")
	attach(task, "dockerexec-life", "10.213.1.0/24")
	spec(task).Mounts = []api.Mount{{Type: api.MountTypeVolume, Source: "dockerexec-life", Target: "/data",
		VolumeOptions: &api.Mount_VolumeOptions{DriverConfig: &api.Driver{Name: "local"}}}}
	adapter := engineAdapter(t, client, task)
	ctx := t.Context()

	require.NoError(t, adapter.PullImage(ctx))
	require.NoError(t, adapter.CreateNetworks(ctx))
	require.NoError(t, adapter.CreateVolumes(ctx))
	t.Cleanup(func() {
		assert.NoError(t, client.VolumeRemove(context.WithoutCancel(ctx), "dockerexec-life", false))
	})
	require.NoError(t, adapter.Create(ctx))
	assert.Equal(t, exec.ErrTaskPrepared, engineTwin(t, client, task).Create(ctx))
	require.NoError(t, adapter.Start(ctx))
	ended, err := adapter.Wait(ctx)
	require.NoError(t, err)
	assert.Equal(t, container.StateExited, ended.State.Status)
	assert.Equal(t, 0, ended.State.ExitCode)
	require.NoError(t, ExitError(ended, nil))

	body, err := adapter.Logs(ctx, api.LogSubscriptionOptions{Streams: []api.LogStream{api.LogStreamStdout}})
	require.NoError(t, err)
	var stdout, stderr bytes.Buffer
	_, err = stdcopy.StdCopy(&stdout, &stderr, body)
	require.NoError(t, err)
	require.NoError(t, body.Close())
	assert.Equal(t, 3, bytes.Count(stdout.Bytes(), []byte("\n")), stdout.String())
	assert.Contains(t, stdout.String(), "hello")
	assert.Empty(t, stderr.String())

	require.NoError(t, adapter.Remove(ctx))
	_, err = adapter.Inspect(ctx)
	assert.True(t, IsUnknownContainer(err), err)
	require.NoError(t, engineTwin(t, client, task).RemoveNetworks(ctx))
	_, err = client.NetworkInspect(ctx, "dockerexec-life", network.InspectOptions{})
	assert.True(t, cerrdefs.IsNotFound(err), err)
}

func TestEngineExitCodeOfAFailedTask(t *testing.T) {
	client := engineClient(t)
	adapter := engineAdapter(t, client, engineTask(t, "exit", "3"))
	ctx := t.Context()
	require.NoError(t, adapter.PullImage(ctx))
	require.NoError(t, adapter.Create(ctx))
	require.NoError(t, adapter.Start(ctx))
	ended, err := adapter.Wait(ctx)
	require.NoError(t, err)
	require.EqualError(t, ExitError(ended, nil), "task: non-zero exit (3)")
}

// The classifiers on what the running engine really answers.
func TestEngineAnswersAreClassified(t *testing.T) {
	client := engineClient(t)
	ctx := t.Context()
	task := engineTask(t, "exit", "0")
	attach(task, "dockerexec-answers", "10.213.2.0/24")
	adapter := engineAdapter(t, client, task)
	name := adapter.name

	_, err := client.ContainerInspect(ctx, name)
	assert.True(t, IsUnknownContainer(err), err)
	err = client.ContainerStart(ctx, name, container.StartOptions{})
	assert.True(t, IsUnknownContainer(err), err)
	err = client.ContainerStop(ctx, name, container.StopOptions{})
	assert.True(t, IsUnknownContainer(err), err)
	err = client.ContainerKill(ctx, name, "")
	assert.True(t, IsUnknownContainer(err), err)
	err = client.ContainerRemove(ctx, name, container.RemoveOptions{})
	assert.True(t, IsUnknownContainer(err), err)

	_, err = client.ContainerCreate(ctx, &container.Config{Image: "example/none:1"}, nil, nil, nil, name)
	require.Error(t, err)
	assert.False(t, IsUnknownContainer(err), err)
	assert.False(t, IsContainerCreateNameConflict(err), err)

	require.NoError(t, adapter.PullImage(ctx))
	require.NoError(t, adapter.CreateNetworks(ctx))
	_, err = client.NetworkCreate(ctx, "dockerexec-answers", network.CreateOptions{Driver: "bridge"})
	assert.True(t, IsNetworkExistError(err, "dockerexec-answers"), err)
	assert.False(t, IsNetworkExistError(err, "dockerexec"), err)
	assert.False(t, IsContainerCreateNameConflict(err) && !IsNetworkExistError(err, "dockerexec-answers"), err)

	require.NoError(t, adapter.Create(ctx))
	_, err = client.ContainerCreate(ctx, &container.Config{Image: spec(task).Image}, nil, nil, nil, name)
	assert.True(t, IsContainerCreateNameConflict(err), err)
	assert.False(t, IsUnknownContainer(err), err)

	err = client.ContainerKill(ctx, name, "")
	assert.True(t, IsStoppedContainer(err), err)
	require.NoError(t, client.ContainerStop(ctx, name, container.StopOptions{}), "a 304 is a nil error")

	spec(task).Args = []string{"sleep", "1m"}
	running := engineTask(t, "sleep", "1m")
	running.Networks = task.Networks
	second := engineAdapter(t, client, running)
	require.NoError(t, second.CreateNetworks(ctx))
	require.NoError(t, second.Create(ctx))
	require.NoError(t, second.Start(ctx))
	err = client.NetworkRemove(ctx, "dockerexec-answers")
	assert.True(t, IsActiveEndpointError(err), err)
	err = client.NetworkRemove(ctx, "bridge")
	require.Error(t, err)
	assert.False(t, IsActiveEndpointError(err), err)
	err = client.NetworkRemove(ctx, "dockerexec-none")
	require.Error(t, err)
	assert.False(t, IsUnknownContainer(err), err)
	assert.False(t, IsActiveEndpointError(err), err)

	// Two tasks of one network: the first removal leaves it, the last one takes it.
	require.NoError(t, adapter.Remove(ctx))
	require.NoError(t, adapter.RemoveNetworks(ctx))
	_, err = client.NetworkInspect(ctx, "dockerexec-answers", network.InspectOptions{})
	require.NoError(t, err)
	require.NoError(t, second.Remove(ctx))
	require.NoError(t, second.RemoveNetworks(ctx))
	_, err = client.NetworkInspect(ctx, "dockerexec-answers", network.InspectOptions{})
	assert.True(t, cerrdefs.IsNotFound(err), err)
}

// To the engine a network is not in use while its only containers are created;
// without it they do not start.
func TestEngineKeepsANetworkThatACreatedContainerNeeds(t *testing.T) {
	client := engineClient(t)
	warmImage(t, client)
	ctx := t.Context()
	byHand := network.CreateOptions{Driver: "bridge", IPAM: &network.IPAM{Config: []network.IPAMConfig{{Subnet: "10.213.8.0/24"}}}}
	made, err := client.NetworkCreate(ctx, "dockerexec-byhand", byHand)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, client.NetworkRemove(context.WithoutCancel(ctx), made.ID)) })

	one := NewEngine(client)
	for name, engines := range map[string][2]*Engine{"two processes": {NewEngine(client), NewEngine(client)}, "one Engine": {one, one}} {
		t.Run(name, func(t *testing.T) {
			var adapters [2]*ContainerAdapter
			for i := range adapters {
				task := engineTask(t, "sleep", "1h")
				attach(task, "dockerexec-awaited", "10.213.7.0/24")
				attach(task, "dockerexec-byhand", "10.213.8.0/24")
				var err error
				adapters[i], err = engines[i].Adapter(nil, task, nil)
				require.NoError(t, err)
				t.Cleanup(func() {
					ctx := context.WithoutCancel(ctx)
					assert.NoError(t, adapters[i].Remove(ctx))
					assert.NoError(t, adapters[i].RemoveNetworks(ctx))
				})
				require.NoError(t, adapters[i].CreateNetworks(ctx))
				require.NoError(t, adapters[i].Create(ctx))
			}
			there := func() bool {
				_, err := client.NetworkInspect(ctx, "dockerexec-awaited", network.InspectOptions{})
				assert.True(t, err == nil || cerrdefs.IsNotFound(err), err)
				return err == nil
			}
			require.NoError(t, adapters[0].Start(ctx))
			require.NoError(t, adapters[0].Remove(ctx))
			require.NoError(t, adapters[0].RemoveNetworks(ctx))
			require.True(t, there())
			require.NoError(t, adapters[1].Start(ctx))
			require.NoError(t, adapters[1].Remove(ctx))
			require.NoError(t, adapters[1].RemoveNetworks(ctx))
			require.False(t, there())
			_, err := client.NetworkInspect(ctx, made.ID, network.InspectOptions{})
			require.NoError(t, err, "a user made it by hand")
		})
	}
}

func TestEngineLeavesAStrangersContainerAlone(t *testing.T) {
	client := engineClient(t)
	ctx := t.Context()
	task := engineTask(t, "exit", "0")
	task.Annotations.Name = "dockerexec-strangers"
	adapter := engineAdapter(t, client, task)
	require.NoError(t, adapter.PullImage(ctx))

	created, err := client.ContainerCreate(ctx, &container.Config{Image: spec(task).Image}, nil, nil, nil, "dockerexec-strangers")
	require.NoError(t, err)
	t.Cleanup(func() {
		assert.NoError(t, client.ContainerRemove(context.WithoutCancel(ctx), created.ID, container.RemoveOptions{}))
	})

	err = adapter.Create(ctx)
	assert.True(t, IsContainerCreateNameConflict(err), err)
	require.NoError(t, adapter.Remove(ctx))
	_, err = client.ContainerInspect(ctx, created.ID)
	require.NoError(t, err)
}

func TestEngineLeavesAUsersNetworkAlone(t *testing.T) {
	client := engineClient(t)
	ctx := t.Context()
	made, err := client.NetworkCreate(ctx, "dockerexec-users", network.CreateOptions{Driver: "bridge",
		IPAM: &network.IPAM{Config: []network.IPAMConfig{{Subnet: "10.213.3.0/24"}}}})
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, client.NetworkRemove(context.WithoutCancel(ctx), made.ID)) })

	task := engineTask(t, "exit", "0")
	attach(task, "dockerexec-users", "10.213.3.0/24")
	adapter := engineAdapter(t, client, task)
	require.NoError(t, adapter.CreateNetworks(ctx))
	require.NoError(t, adapter.RemoveNetworks(ctx))
	_, err = client.NetworkInspect(ctx, made.ID, network.InspectOptions{})
	require.NoError(t, err)

	differs := engineTask(t, "exit", "0")
	attach(differs, "dockerexec-users", "10.213.4.0/24")
	err = engineAdapter(t, client, differs).CreateNetworks(ctx)
	require.ErrorContains(t, err, "subnets [10.213.3.0/24], the task wants [10.213.4.0/24]")
}

func TestEngineSeveralNetworksAtOnce(t *testing.T) {
	client := engineClient(t)
	ctx := t.Context()
	task := engineTask(t, "sleep", "1m")
	attach(task, "dockerexec-two-b", "10.213.5.0/24")
	attach(task, "dockerexec-two-a", "10.213.6.0/24")
	adapter := engineAdapter(t, client, task)
	require.NoError(t, adapter.PullImage(ctx))
	require.NoError(t, adapter.CreateNetworks(ctx))
	require.NoError(t, adapter.Create(ctx))
	require.NoError(t, adapter.Start(ctx))
	running, err := adapter.Inspect(ctx)
	require.NoError(t, err)
	require.Len(t, running.NetworkSettings.Networks, 2)
	assert.Contains(t, running.NetworkSettings.Networks["dockerexec-two-a"].IPAddress, "10.213.6.")
	assert.Contains(t, running.NetworkSettings.Networks["dockerexec-two-b"].IPAddress, "10.213.5.")
}

func TestEngineStopsWithinTheGracePeriod(t *testing.T) {
	client := engineClient(t)
	ctx := t.Context()
	task := engineTask(t, "ignore-term")
	spec(task).StopGracePeriod = &gogotypes.Duration{Nanos: 500e6}
	adapter := engineAdapter(t, client, task)
	require.NoError(t, adapter.PullImage(ctx))
	require.NoError(t, adapter.Create(ctx))
	require.NoError(t, adapter.Start(ctx))
	require.NoError(t, adapter.Shutdown(ctx))
	require.NoError(t, adapter.Shutdown(ctx), "a stopped container")
	require.NoError(t, adapter.Terminate(ctx), "a stopped container")
	ended, err := adapter.Wait(ctx)
	require.NoError(t, err)
	assert.Equal(t, 137, ended.State.ExitCode)
}

// The image is not on the engine and the password is wrong: the answer names
// image and cause, and not the password.
func TestEnginePullWithAWrongPassword(t *testing.T) {
	client := engineClient(t)
	task := engineTask(t, "exit", "0")
	spec(task).Image = fromHarness(t, "DOCKEREXEC_TEST_REGISTRY") + "/other:1"
	spec(task).PullOptions.RegistryAuth = registryAuth(t, "tester", "canary-password")
	err := engineAdapter(t, client, task).PullImage(t.Context())
	require.ErrorContains(t, err, "pull image "+spec(task).Image)
	assert.False(t, exec.IsTemporary(err), err)
	assert.NotContains(t, err.Error(), "canary-password")
	assert.NotContains(t, err.Error(), spec(task).PullOptions.RegistryAuth)
	t.Log(err)
}

// Several tasks that ask for one network at once get one network.
func TestEngineOneNetworkForTasksAtOnce(t *testing.T) {
	client := engineClient(t)
	e := NewEngine(client)
	for name, ipam := range map[string]*api.IPAMOptions{
		"dockerexec-at-once-any":    nil,
		"dockerexec-at-once-subnet": {Configs: []*api.IPAMConfig{{Subnet: "10.222.1.0/24"}}},
	} {
		const tasks = 8
		var adapters [tasks]*ContainerAdapter
		for i := range adapters {
			task := engineTask(t, "exit", "0")
			attach(task, name, "")
			task.Networks[0].Network.IPAM = ipam
			var err error
			adapters[i], err = e.Adapter(nil, task, nil)
			require.NoError(t, err)
		}
		var group sync.WaitGroup
		for _, adapter := range adapters {
			group.Go(func() { assert.NoError(t, adapter.CreateNetworks(t.Context())) })
		}
		group.Wait()
		list, err := client.NetworkList(t.Context(), network.ListOptions{Filters: filters.NewArgs(filters.Arg("name", name))})
		require.NoError(t, err)
		t.Logf("%s: %d tasks, %d networks", name, tasks, len(list))
		assert.Len(t, list, 1)
		for _, adapter := range adapters {
			assert.NoError(t, adapter.RemoveNetworks(t.Context()))
		}
	}
}
