package engine_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/events"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/network"
	"github.com/dockerexec/dockerexec"
	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/moby/swarmkit/v2/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A new process takes a task up where the one before was killed.
func TestEngineAdoption(t *testing.T) {
	sharesEngine(t)
	client, _ := plainClient(t)
	warmImage(t, client)
	for _, test := range []struct {
		state api.TaskState
		start bool
	}{{api.TaskStatePreparing, false}, {api.TaskStateStarting, false}, {api.TaskStateStarting, true}, {api.TaskStateRunning, true}} {
		t.Run(fmt.Sprintf("%v started %t", test.state, test.start), func(t *testing.T) {
			task := engineTask(t, "sleep", "1h")
			attach(task, "dockerexec-adopt-a", "10.218.1.0/24")
			attach(task, "dockerexec-adopt-b", "10.218.2.0/24")
			before, err := dockerexec.NewExecutor(client, nil).Controller(task)
			require.NoError(t, err)
			require.NoError(t, before.Prepare(t.Context()))
			if test.start {
				require.NoError(t, before.Start(t.Context()))
			}
			made, err := engineTwin(t, client, task).Inspect(t.Context())
			require.NoError(t, err)

			taskAt(task, test.state)
			ctlr := engineController(t, dockerexec.NewExecutor(client, nil), task)
			drive(t.Context(), t, task, ctlr, api.TaskStateRunning)
			require.Equal(t, api.TaskStateRunning, task.Status.State, task.Status.Err)
			status, err := ctlr.ContainerStatus(t.Context())
			require.NoError(t, err)
			assert.Equal(t, made.ID, status.ContainerID)
			if test.start {
				assert.Equal(t, made.State.Pid, int(status.PID))
			}
			wait := asynchronously(func() error { return ctlr.Wait(t.Context()) })
			require.NoError(t, client.ContainerKill(t.Context(), made.ID, "KILL"))
			require.EqualError(t, wait(), "task: non-zero exit (137)")
			require.NoError(t, ctlr.Remove(t.Context()))
			assert.Empty(t, leftOfTask(t, client, task))
		})
	}
}

// What the reference has made has its names and labels; its networks have no
// label. Its tasks go on, and its networks are used and left.
func TestEngineTakesOverFromTheReference(t *testing.T) {
	sharesEngine(t)
	client := engineClient(t)
	warmImage(t, client)
	ctx := t.Context()
	task := taskAt(engineTask(t, "sleep", "1h"), api.TaskStateRunning)
	attach(task, "dockerexec-theirs", "10.219.1.0/24")
	theirs, err := client.NetworkCreate(ctx, "dockerexec-theirs", network.CreateOptions{Driver: "bridge",
		IPAM: &network.IPAM{Config: []network.IPAMConfig{{Subnet: "10.219.1.0/24"}}}})
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, client.NetworkRemove(context.WithoutCancel(ctx), theirs.ID)) })
	name := task.ServiceAnnotations.Name + ".1." + task.ID
	made, err := client.ContainerCreate(ctx, &container.Config{Image: spec(task).Image, Cmd: spec(task).Args, Labels: map[string]string{
		"com.docker.swarm.task":         "",
		"com.docker.swarm.task.id":      task.ID,
		"com.docker.swarm.task.name":    name,
		"com.docker.swarm.node.id":      task.NodeID,
		"com.docker.swarm.service.id":   task.ServiceID,
		"com.docker.swarm.service.name": task.ServiceAnnotations.Name,
	}}, nil, &network.NetworkingConfig{EndpointsConfig: map[string]*network.EndpointSettings{"dockerexec-theirs": {}}}, nil, name)
	require.NoError(t, err)
	require.NoError(t, client.ContainerStart(ctx, made.ID, container.StartOptions{}))
	started, err := client.ContainerInspect(ctx, made.ID)
	require.NoError(t, err)

	ctlr := engineController(t, dockerexec.NewExecutor(client, nil), task)
	ended, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	status, err := exec.Do(ended, task, ctlr)
	assert.Equal(t, exec.ErrTaskRetry, err)
	assert.Equal(t, api.TaskStateRunning, status.State)
	now, err := client.ContainerInspect(ctx, made.ID)
	require.NoError(t, err)
	assert.Equal(t, started.State.StartedAt, now.State.StartedAt)

	// A new task beside it uses its network.
	second := taskAt(engineTask(t, "sleep", "1h"), api.TaskStateAccepted)
	second.Networks = task.Networks
	beside := engineController(t, dockerexec.NewExecutor(client, nil), second)
	drive(ctx, t, second, beside, api.TaskStateRunning)
	require.Equal(t, api.TaskStateRunning, second.Status.State, second.Status.Err)

	for _, c := range []taskController{ctlr, beside} {
		require.NoError(t, c.Shutdown(ctx))
		require.NoError(t, c.Remove(ctx))
	}
	assert.Equal(t, []string{"network dockerexec-theirs"}, leftOfTask(t, client, task))
}

// What is made here the reference finds and removes: it goes by the name of the
// container and of the network, and has its events by a label. These are its
// requests.
func TestEngineGivesBackToTheReference(t *testing.T) {
	sharesEngine(t)
	client := engineClient(t)
	warmImage(t, client)
	ctx := t.Context()
	task := engineTask(t, "sleep", "1h")
	task.ServiceAnnotations.Name, task.ServiceID, task.NodeID = "gives-back", "service-1", "node-1"
	attach(task, "dockerexec-back", "10.219.2.0/24")
	ctlr := engineController(t, dockerexec.NewExecutor(client, nil), task)
	require.NoError(t, ctlr.Prepare(ctx))
	require.NoError(t, ctlr.Close())
	name := "gives-back.1." + task.ID

	// Created and not started.
	created, err := client.ContainerInspect(ctx, name)
	require.NoError(t, err)
	assert.Equal(t, "created", created.State.Status)
	require.NoError(t, client.ContainerStart(ctx, name, container.StartOptions{}))

	// Running.
	running, err := client.ContainerInspect(ctx, name)
	require.NoError(t, err)
	assert.Equal(t, "running", running.State.Status)
	for label, want := range map[string]string{
		"com.docker.swarm.task":         "",
		"com.docker.swarm.task.id":      task.ID,
		"com.docker.swarm.task.name":    name,
		"com.docker.swarm.node.id":      "node-1",
		"com.docker.swarm.service.id":   "service-1",
		"com.docker.swarm.service.name": "gives-back",
	} {
		got, has := running.Config.Labels[label]
		assert.True(t, has, label)
		assert.Equal(t, want, got, label)
	}
	_, err = client.NetworkCreate(ctx, "dockerexec-back", network.CreateOptions{Driver: "bridge"})
	require.ErrorContains(t, err, "network with name dockerexec-back already exists", "which it takes for its own")
	_, err = client.ContainerCreate(ctx, &container.Config{Image: spec(task).Image}, nil, nil, nil, name)
	require.ErrorContains(t, err, "Conflict. The container name")
	assert.NotContains(t, err.Error(), "Conflict. The name", "by which it would take the container for its own")

	// Stopped.
	ectx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	messages, errs := client.Events(ectx, events.ListOptions{Since: "0", Filters: filters.NewArgs(
		filters.Arg("type", "container"), filters.Arg("name", name), filters.Arg("label", "com.docker.swarm.task.id="+task.ID))})
	grace := 10
	require.NoError(t, client.ContainerStop(ctx, name, container.StopOptions{Timeout: &grace}))
	for died := false; !died; {
		select {
		case m := <-messages:
			assert.Equal(t, name, m.Actor.Attributes["name"])
			died = m.Action == events.ActionDie
		case err := <-errs:
			require.NoError(t, err)
		}
	}

	// Removed, the network first.
	require.NoError(t, client.NetworkRemove(ctx, "dockerexec-back"))
	require.NoError(t, client.ContainerRemove(ctx, name, container.RemoveOptions{RemoveVolumes: true, Force: true}))
	assert.Empty(t, leftOfTask(t, client, task))
}

// Before a container the reference removes its networks, and gives up at the
// engine's own.
func TestEngineRefusesTheReferenceItsOwnNetwork(t *testing.T) {
	sharesEngine(t)
	client := engineClient(t)
	warmImage(t, client)
	task := engineTask(t, "sleep", "1h")
	attachTo(task, "bridge")
	ctlr := engineController(t, dockerexec.NewExecutor(client, nil), task)
	require.NoError(t, ctlr.Prepare(t.Context()))
	require.NoError(t, ctlr.Start(t.Context()))
	require.NoError(t, ctlr.Shutdown(t.Context()))
	err := client.NetworkRemove(t.Context(), "bridge")
	require.True(t, cerrdefs.IsPermissionDenied(err) || isPodman() && dockerexec.IsActiveEndpointError(err), err)
}
