package engine_test

import (
	"context"
	"strings"
	"sync"
	"testing"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/network"
	engineapi "github.com/docker/docker/client"
	"github.com/dockerexec/dockerexec"
	"github.com/moby/swarmkit/v2/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// To the engine a network is not in use while its only containers are created;
// without it they do not start.
func TestEngineKeepsANetworkThatACreatedContainerNeeds(t *testing.T) {
	sharesEngine(t)
	client := engineClient(t)
	warmImage(t, client)
	ctx := t.Context()
	byHand := network.CreateOptions{Driver: "bridge", IPAM: &network.IPAM{Config: []network.IPAMConfig{{Subnet: "10.213.8.0/24"}}}}
	made, err := client.NetworkCreate(ctx, "dockerexec-byhand", byHand)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, client.NetworkRemove(context.WithoutCancel(ctx), made.ID)) })

	one := dockerexec.NewEngine(client)
	for name, engines := range map[string][2]*dockerexec.Engine{"two processes": {dockerexec.NewEngine(client), dockerexec.NewEngine(client)}, "one Engine": {one, one}} {
		t.Run(name, func(t *testing.T) {
			var adapters [2]*dockerexec.ContainerAdapter
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

func TestEngineLeavesAUsersNetworkAlone(t *testing.T) {
	sharesEngine(t)
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
	sharesEngine(t)
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

// Several tasks that ask for one network at once get one network.
func TestEngineOneNetworkForTasksAtOnce(t *testing.T) {
	sharesEngine(t)
	client := engineClient(t)
	e := dockerexec.NewEngine(client)
	for name, ipam := range map[string]*api.IPAMOptions{
		"dockerexec-at-once-any":    nil,
		"dockerexec-at-once-subnet": {Configs: []*api.IPAMConfig{{Subnet: "10.222.1.0/24"}}},
	} {
		const tasks = 8
		var adapters [tasks]*dockerexec.ContainerAdapter
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

// An engine that picks the IPv6 subnet itself lists it with the task's.
func TestEngineSecondTaskOnADualStackNetwork(t *testing.T) {
	sharesEngine(t)
	client := engineClient(t)
	e := dockerexec.NewEngine(client)
	for i := range 2 {
		task := engineTask(t, "exit", "0")
		attach(task, "dockerexec-dual-stack", "10.213.21.0/24")
		task.Networks[0].Network.Spec.Ipv6Enabled = true
		adapter, err := e.Adapter(nil, task, nil)
		require.NoError(t, err)
		err = adapter.CreateNetworks(t.Context())
		if i == 0 && err != nil && strings.Contains(err.Error(), "IPv6") {
			require.False(t, atLeast(client.ClientVersion(), "1.47"), err)
			skip(t, cannotPickIPv6)
		}
		require.NoError(t, err)
		defer func() { require.NoError(t, adapter.RemoveNetworks(t.Context())) }()
	}
}

// withoutItsUsers is what to call a network by, so that it is removed although a container needs
// it. Podman refuses that by the name, also where the container is not started.
func withoutItsUsers(t testing.TB, client *engineapi.Client, name string) string {
	t.Helper()
	if !isPodman() {
		return name
	}
	found, err := client.NetworkInspect(t.Context(), name, network.InspectOptions{})
	require.NoError(t, err)
	return found.ID
}

// Another task's removal took the networks of a task that was not started.
func TestEngineVanishedNetwork(t *testing.T) {
	sharesEngine(t)
	client, _ := plainClient(t)
	engine := dockerexec.NewEngine(client)
	task := taskAt(engineTask(t, "sleep", "1h"), api.TaskStateAccepted)
	attach(task, "dockerexec-vanish-a", "10.220.1.0/24")
	attach(task, "dockerexec-vanish-b", "10.220.2.0/24")
	ctlr := engineController(t, engine.Executor(nil), task)
	drive(t.Context(), t, task, ctlr, api.TaskStateStarting)
	require.Equal(t, api.TaskStateStarting, task.Status.State, task.Status.Err)
	for _, name := range []string{"dockerexec-vanish-a", "dockerexec-vanish-b"} {
		require.NoError(t, client.NetworkRemove(t.Context(), withoutItsUsers(t, client, name)))
	}
	drive(t.Context(), t, task, ctlr, api.TaskStateRunning)
	require.Equal(t, api.TaskStateRunning, task.Status.State, task.Status.Err)
	answer, err := adapterOf(t, engine, task).Inspect(t.Context())
	require.NoError(t, err)
	assert.Contains(t, answer.NetworkSettings.Networks["dockerexec-vanish-a"].IPAddress, "10.220.1.")
	assert.Contains(t, answer.NetworkSettings.Networks["dockerexec-vanish-b"].IPAddress, "10.220.2.")
}

// A process that was not there before ends one task, while another one still runs on the
// same network.
func TestEngineKeepsANetworkOfARunningContainerAfterARestart(t *testing.T) {
	sharesEngine(t)
	client := engineClient(t)
	ctx := t.Context()
	warmImage(t, client)
	tasks := []*api.Task{engineTask(t, "sleep", "1h"), engineTask(t, "sleep", "1h")}
	for _, task := range tasks {
		attach(task, "dockerexec-outlives", "10.213.9.0/24")
		adapter := engineAdapter(t, client, task)
		require.NoError(t, adapter.CreateNetworks(ctx))
		require.NoError(t, adapter.Create(ctx))
		require.NoError(t, adapter.Start(ctx))
	}
	restarted := dockerexec.NewEngine(client)
	for i, task := range tasks {
		adapter := adapterOf(t, restarted, task)
		require.NoError(t, adapter.Remove(ctx))
		require.NoError(t, adapter.RemoveNetworks(ctx))
		_, err := client.NetworkInspect(ctx, "dockerexec-outlives", network.InspectOptions{})
		if i == 0 {
			require.NoError(t, err)
			answer, err := adapterOf(t, restarted, tasks[1]).Inspect(ctx)
			require.NoError(t, err)
			assert.True(t, answer.State.Running)
			continue
		}
		assert.True(t, cerrdefs.IsNotFound(err), err)
	}
}
