package engine_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/dockerexec/dockerexec"
	"github.com/moby/swarmkit/v2/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// defaultLogDriver is a log driver that the engine lists. Podman takes json-file too, and does
// not list it.
func defaultLogDriver() string {
	if isPodman() {
		return "k8s-file"
	}
	return "json-file"
}

func TestEngineTasksComplete(t *testing.T) {
	sharesEngine(t)
	client, _ := plainClient(t)
	executor := dockerexec.NewExecutor(client, nil)
	node, err := executor.Describe(t.Context())
	require.NoError(t, err)
	t.Log(node.Hostname, node.Platform, node.Resources, node.Engine.EngineVersion, len(node.Engine.Plugins), "plugins, API", client.ClientVersion())
	assert.Contains(t, node.Engine.Plugins, api.PluginDescription{Type: "Log", Name: defaultLogDriver()})
	for _, test := range []struct {
		code  string
		state api.TaskState
		err   string
	}{{"0", api.TaskStateCompleted, ""}, {"3", api.TaskStateFailed, "task: non-zero exit (3)"}} {
		task := taskAt(engineTask(t, "exit", test.code), api.TaskStateAccepted)
		attach(task, "dockerexec-completes", "10.214.1.0/24")
		ctlr := engineController(t, executor, task)
		drive(t.Context(), t, task, ctlr, api.TaskStateCompleted)
		assert.Equal(t, test.state, task.Status.State)
		assert.Equal(t, test.err, task.Status.Err)
		assert.Equal(t, test.code, fmt.Sprint(task.Status.GetContainer().ExitCode))
		assert.NotEmpty(t, task.Status.GetContainer().ContainerID)
		require.NoError(t, ctlr.Remove(t.Context()))
		assert.Empty(t, leftOfTask(t, client, task))
	}
}

func TestEngineRequestsOfATask(t *testing.T) {
	sharesEngine(t)
	client, counting := plainClient(t)
	executor := dockerexec.NewExecutor(client, nil)
	warmImage(t, client)

	task := engineTask(t, "sleep", "1h")
	ctlr := engineController(t, executor, task)
	counting.counted()
	require.NoError(t, ctlr.Prepare(t.Context()))
	require.NoError(t, ctlr.Start(t.Context()))
	requests := counting.counted()
	t.Log("Prepare and Start:", requests)
	assert.Len(t, requests, 4)

	driven := taskAt(engineTask(t, "sleep", "1h"), api.TaskStateAccepted)
	ctlr = engineController(t, executor, driven)
	counting.counted()
	drive(t.Context(), t, driven, ctlr, api.TaskStateRunning)
	requests = counting.counted()
	t.Log("through exec.Do:", requests)
	assert.Len(t, requests, 5)
	assert.NotZero(t, driven.Status.GetContainer().PID)
}

func TestEngineHostPorts(t *testing.T) {
	sharesEngine(t)
	client, _ := plainClient(t)
	executor := dockerexec.NewExecutor(client, nil)
	task := taskAt(engineTask(t, "serve", ":8080"), api.TaskStateAccepted)
	task.Endpoint = &api.Endpoint{Ports: []*api.PortConfig{
		{Protocol: api.ProtocolTCP, TargetPort: 8080, PublishedPort: 18080, PublishMode: api.PublishModeHost},
		{Protocol: api.ProtocolTCP, TargetPort: 8081, PublishMode: api.PublishModeHost},
		{Protocol: api.ProtocolUDP, TargetPort: 8080, PublishedPort: 18081, PublishMode: api.PublishModeHost},
	}}
	ctlr := engineController(t, executor, task)
	drive(t.Context(), t, task, ctlr, api.TaskStateRunning)
	require.Equal(t, api.TaskStateRunning, task.Status.State, task.Status.Err)
	t.Log(task.Status.PortStatus)
	require.Len(t, task.Status.PortStatus.Ports, 3)
	assert.Equal(t, &api.PortConfig{Protocol: api.ProtocolTCP, TargetPort: 8080, PublishedPort: 18080, PublishMode: api.PublishModeHost}, task.Status.PortStatus.Ports[0])
	assert.Equal(t, &api.PortConfig{Protocol: api.ProtocolUDP, TargetPort: 8080, PublishedPort: 18081, PublishMode: api.PublishModeHost}, task.Status.PortStatus.Ports[1])
	assert.EqualValues(t, 8081, task.Status.PortStatus.Ports[2].TargetPort)
	assert.NotZero(t, task.Status.PortStatus.Ports[2].PublishedPort)
	assert.Equal(t, api.PublishModeHost, task.Status.PortStatus.Ports[2].PublishMode)
}

// Remove is called when Prepare sends, and when it gets an answer to, each of its
// first ten requests: nine for networks and the pull. The create is still to come.
func TestEngineRemoveWithinPrepare(t *testing.T) {
	sharesEngine(t)
	client, counting := plainClient(t)
	executor := dockerexec.NewExecutor(client, nil)
	warmImage(t, client)
	for point := range 20 {
		task := taskAt(engineTask(t, "sleep", "1h"), api.TaskStateAccepted)
		for n := range 9 {
			attach(task, fmt.Sprintf("dockerexec-within-%d", n), fmt.Sprintf("10.221.%d.0/24", n))
		}
		made, err := executor.Controller(task)
		require.NoError(t, err)
		reached := counting.reach(point/2, point%2 == 1)
		prepare := asynchronously(func() error { return made.Prepare(t.Context()) })
		<-reached
		require.NoError(t, made.Remove(t.Context()))
		assert.Equal(t, context.Canceled, prepare(), "point %d is within Prepare", point)
		require.NoError(t, made.Close())
		assert.Empty(t, leftOfTask(t, client, task))
	}
}
