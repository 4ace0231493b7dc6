package dockerexec

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/network"
	engineapi "github.com/docker/docker/client"
	gogotypes "github.com/gogo/protobuf/types"
	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/moby/swarmkit/v2/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// countingTransport counts the requests that go over the engine's socket.
type countingTransport struct {
	http.RoundTripper
	mu       sync.Mutex
	requests []string
	point    *requestPoint // nil: none is waited for
}

// requestPoint is the sending of a request, or the coming of its answer.
type requestPoint struct {
	before   int // requests
	answered bool
	reached  chan struct{}
}

func (c *countingTransport) RoundTrip(request *http.Request) (*http.Response, error) {
	c.mu.Lock()
	c.requests = append(c.requests, asked(request))
	point := c.point
	if point != nil {
		if point.before == 0 {
			c.point = nil
		}
		if point.before--; point.before >= 0 {
			point = nil
		}
	}
	c.mu.Unlock()
	if point == nil {
		return c.RoundTripper.RoundTrip(request)
	}
	if !point.answered {
		close(point.reached)
		return c.RoundTripper.RoundTrip(request)
	}
	defer close(point.reached)
	return c.RoundTripper.RoundTrip(request)
}

// reach returns a channel that is closed when a request is sent, or when its
// answer has come, after so many others from now on.
func (c *countingTransport) reach(before int, answered bool) <-chan struct{} {
	point := &requestPoint{before: before, answered: answered, reached: make(chan struct{})}
	c.mu.Lock()
	c.point = point
	c.mu.Unlock()
	return point.reached
}

// counted returns the requests so far but pings and events.
func (c *countingTransport) counted() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var counted []string
	for _, request := range c.requests {
		if !strings.Contains(request, "_ping") && !strings.HasSuffix(request, "events") {
			counted = append(counted, request)
		}
	}
	c.requests = nil
	return counted
}

// plainClient is a client as swarmd makes it, which has agreed on no version.
func plainClient(t testing.TB) (*engineapi.Client, *countingTransport) {
	t.Helper()
	transport := engineTransport(t)
	counting := &countingTransport{RoundTripper: transport}
	client, err := engineapi.NewClientWithOpts(engineapi.WithHost("tcp://engine:2375"), engineapi.WithHTTPClient(&http.Client{Transport: counting}))
	require.NoError(t, err)
	t.Cleanup(transport.CloseIdleConnections)
	return client, counting
}

// engineController makes a controller, and has all of its task removed at the
// end.
func engineController(t testing.TB, executor exec.Executor, task *api.Task) *controller {
	t.Helper()
	made, err := executor.Controller(task)
	require.NoError(t, err)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), time.Minute)
		defer cancel()
		fresh, err := executor.Controller(task)
		assert.NoError(t, err)
		assert.NoError(t, fresh.Remove(ctx))
		assert.NoError(t, made.Close())
	})
	return made.(*controller)
}

// warmImage has the test image on the engine.
func warmImage(t testing.TB, client *engineapi.Client) {
	t.Helper()
	adapter, err := NewContainerAdapter(client, nil, engineTask(t, "exit", "0"), nil)
	require.NoError(t, err)
	require.NoError(t, adapter.PullImage(t.Context()))
}

// leftOfTask lists what is on the engine of the task.
func leftOfTask(t testing.TB, client *engineapi.Client, task *api.Task) []string {
	t.Helper()
	var left []string
	adapter, err := NewContainerAdapter(client, nil, task, nil)
	require.NoError(t, err)
	if _, err := client.ContainerInspect(t.Context(), adapter.name); !cerrdefs.IsNotFound(err) {
		left = append(left, "container "+adapter.name)
	}
	for _, n := range task.Networks {
		name := n.Network.Spec.Annotations.Name
		if _, err := client.NetworkInspect(t.Context(), name, network.InspectOptions{}); !cerrdefs.IsNotFound(err) {
			left = append(left, "network "+name)
		}
	}
	return left
}

func TestEngineTasksComplete(t *testing.T) {
	client, _ := plainClient(t)
	executor := NewExecutor(client, nil)
	node, err := executor.Describe(t.Context())
	require.NoError(t, err)
	t.Log(node.Hostname, node.Platform, node.Resources, node.Engine.EngineVersion, len(node.Engine.Plugins), "plugins, API", client.ClientVersion())
	assert.Contains(t, node.Engine.Plugins, api.PluginDescription{Type: "Log", Name: "json-file"})
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
	client, counting := plainClient(t)
	executor := NewExecutor(client, nil)
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
	assert.Len(t, requests, 6)
	assert.NotZero(t, driven.Status.GetContainer().PID)
}

// A hundred tasks with two networks each come and go. Then there is no container,
// network, goroutine, descriptor or connection more than before them, and not 5 %
// more live heap than after the first twenty.
func TestEngineManyTasksLeaveNothing(t *testing.T) {
	client, counting := plainClient(t)
	executor := NewExecutor(client, nil)
	warmImage(t, client)
	transport := counting.RoundTripper.(*http.Transport)
	transport.CloseIdleConnections()
	before := measure()
	t.Logf("before: %v", before)
	var warm, now measures
	for batch := range 5 {
		began := time.Now()
		var group sync.WaitGroup
		slots := make(chan struct{}, 8)
		for i := 20 * batch; i < 20*(batch+1); i++ {
			slots <- struct{}{}
			group.Go(func() {
				defer func() { <-slots }()
				task := taskAt(engineTask(t, "exit", "0"), api.TaskStateAccepted)
				spec(task).Env = []string{"SEEN_IF_KEPT=" + strings.Repeat("x", 4<<10)}
				attach(task, fmt.Sprintf("dockerexec-many-%d-a", i), fmt.Sprintf("10.215.%d.0/24", i))
				attach(task, fmt.Sprintf("dockerexec-many-%d-b", i), fmt.Sprintf("10.216.%d.0/24", i))
				made, err := executor.Controller(task)
				if !assert.NoError(t, err) {
					return
				}
				drive(t.Context(), t, task, made, api.TaskStateCompleted)
				assert.Equal(t, api.TaskStateCompleted, task.Status.State, task.Status.Err)
				assert.NoError(t, made.Remove(t.Context()))
				assert.NoError(t, made.Close())
			})
		}
		group.Wait()
		counting.counted() // which are the test's own memory
		now = measure()
		if batch == 0 {
			warm = now
		}
		t.Logf("%d tasks, the last 20 in %v: %v", 20*(batch+1), time.Since(began).Round(time.Millisecond), now)
	}
	growth := 100 * (float64(now.heap)/float64(warm.heap) - 1)
	t.Logf("the heap has grown by %.1f %% since the first 20 tasks", growth)
	assert.Less(t, growth, 5.0)
	left, err := leftOn(fromHarness(t, "DOCKEREXEC_TEST_HOST"))
	require.NoError(t, err)
	assert.Empty(t, left)
	transport.CloseIdleConnections()
	for late := time.Now().Add(10 * time.Second); !now.within(before) && time.Now().Before(late); now = measure() {
		time.Sleep(100 * time.Millisecond)
	}
	t.Logf("in the end: %v", now)
	assert.True(t, now.within(before))
}

func TestEngineHealth(t *testing.T) {
	client, _ := plainClient(t)
	executor := NewExecutor(client, nil)
	warmImage(t, client)
	for _, test := range []struct {
		name string
		args []string
		want error
	}{
		{"healthy", []string{"sleep", "2s", "--", "write", "/tmp/ok", "1", "--", "sleep", "1h"}, nil},
		{"unhealthy", []string{"ignore-term"}, ErrContainerUnhealthy},
	} {
		t.Run(test.name, func(t *testing.T) {
			task := taskAt(engineTask(t, test.args...), api.TaskStateAccepted)
			spec(task).StopGracePeriod = &gogotypes.Duration{Seconds: 1}
			spec(task).Healthcheck = &api.HealthConfig{
				Test: []string{"CMD", "/testtask", "health", "/tmp/ok"}, Retries: 6,
				Interval: &gogotypes.Duration{Nanos: 500e6}, Timeout: &gogotypes.Duration{Seconds: 5},
			}
			ctlr := engineController(t, executor, task)
			drive(t.Context(), t, task, ctlr, api.TaskStateStarting)
			began := time.Now()
			drive(t.Context(), t, task, ctlr, api.TaskStateRunning)
			t.Logf("%v %q after %v", task.Status.State, task.Status.Err, time.Since(began).Round(time.Millisecond))
			if test.want != nil {
				assert.Equal(t, api.TaskStateFailed, task.Status.State)
				assert.Equal(t, "task: non-zero exit (137): dockerexec: unhealthy container", task.Status.Err)
				assert.EqualValues(t, 137, task.Status.GetContainer().ExitCode)
				return
			}
			assert.Equal(t, api.TaskStateRunning, task.Status.State)
			assert.Greater(t, time.Since(began), 2*time.Second)
		})
	}
	t.Run("unhealthy later", func(t *testing.T) {
		task := taskAt(engineTask(t, "write", "/data/ok", "1", "--", "sleep", "1h"), api.TaskStateAccepted)
		spec(task).Mounts = []api.Mount{{Type: api.MountTypeVolume, Target: "/data"}}
		spec(task).Healthcheck = &api.HealthConfig{Test: []string{"CMD", "/testtask", "health", "/data/ok"}, Retries: 1, Interval: &gogotypes.Duration{Nanos: 500e6}}
		ctlr := engineController(t, executor, task)
		drive(t.Context(), t, task, ctlr, api.TaskStateRunning)
		require.Equal(t, api.TaskStateRunning, task.Status.State, task.Status.Err)
		inspected, err := client.ContainerInspect(t.Context(), task.Status.GetContainer().ContainerID)
		require.NoError(t, err)
		require.NoError(t, os.Remove(inspected.Mounts[0].Source+"/ok"))
		drive(t.Context(), t, task, ctlr, api.TaskStateCompleted)
		assert.Equal(t, api.TaskStateFailed, task.Status.State)
		assert.Equal(t, "task: non-zero exit (0): dockerexec: unhealthy container", task.Status.Err)
	})
}

func TestEngineHostPorts(t *testing.T) {
	client, _ := plainClient(t)
	executor := NewExecutor(client, nil)
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
	assert.Equal(t, host(api.ProtocolTCP, 8080, 18080), task.Status.PortStatus.Ports[0])
	assert.Equal(t, host(api.ProtocolUDP, 8080, 18081), task.Status.PortStatus.Ports[1])
	assert.EqualValues(t, 8081, task.Status.PortStatus.Ports[2].TargetPort)
	assert.NotZero(t, task.Status.PortStatus.Ports[2].PublishedPort)
	assert.Equal(t, api.PublishModeHost, task.Status.PortStatus.Ports[2].PublishMode)
}
