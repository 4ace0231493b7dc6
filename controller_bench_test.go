package dockerexec

import (
	"context"
	"io"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/events"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/api/types/network"
	engineapi "github.com/docker/docker/client"
	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/moby/swarmkit/v2/api"
	"github.com/pkg/errors"
	"github.com/stretchr/testify/require"
)

// referenceCalls is the baseline for requests: a controller that asks the
// engine what the reference's asks it in the life of a plain task.
type referenceCalls struct {
	exec.StubController // for Update, Terminate and Close

	client engineapi.APIClient
	config *containerConfig
}

func (r *referenceCalls) Prepare(ctx context.Context) error {
	body, err := r.client.ImagePull(ctx, r.config.image(), image.PullOptions{})
	if err != nil {
		return err
	}
	defer body.Close()
	if _, err := io.Copy(io.Discard, body); err != nil {
		return err
	}
	_, err = r.client.ContainerCreate(ctx, r.config.config(), r.config.hostConfig(), &network.NetworkingConfig{}, nil, r.config.name())
	return err
}

func (r *referenceCalls) Start(ctx context.Context) error {
	if _, err := r.inspect(ctx); err != nil {
		return err
	}
	return r.client.ContainerStart(ctx, r.config.name(), container.StartOptions{})
}

func (r *referenceCalls) Wait(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	messages, errs := r.client.Events(ctx, events.ListOptions{Since: "0", Filters: filters.NewArgs(
		filters.Arg("type", string(events.ContainerEventType)), filters.Arg("name", r.config.name()))})
	if _, err := r.inspect(ctx); err != nil {
		return err
	}
	for {
		select {
		case m := <-messages:
			if m.Action != events.ActionDie || m.Actor.Attributes["name"] != r.config.name() {
				continue
			}
			_, err := r.inspect(ctx)
			return err
		case err := <-errs:
			return err
		}
	}
}

func (r *referenceCalls) Remove(ctx context.Context) error {
	if err := r.client.ContainerStop(ctx, r.config.name(), container.StopOptions{}); err != nil {
		return err
	}
	return r.client.ContainerRemove(ctx, r.config.name(), container.RemoveOptions{RemoveVolumes: true, Force: true})
}

func (r *referenceCalls) ContainerStatus(ctx context.Context) (*api.ContainerStatus, error) {
	answer, err := r.inspect(ctx)
	return containerStatus(answer), err
}

func (r *referenceCalls) PortStatus(ctx context.Context) (*api.PortStatus, error) {
	_, err := r.inspect(ctx)
	return &api.PortStatus{}, err
}

func (r *referenceCalls) inspect(ctx context.Context) (container.InspectResponse, error) {
	return r.client.ContainerInspect(ctx, r.config.name())
}

// requestsOfTasks has count tasks run at the same time on one engine, each for two
// seconds and until it is removed, and returns the number of requests.
func requestsOfTasks(b *testing.B, count int, controllers func(engineapi.APIClient) func(*api.Task) exec.Controller) int {
	b.Helper()
	sim := newSimEngine(b)
	controller := controllers(sim)
	var running, ended sync.WaitGroup
	for n := range count {
		task := taskAt(numberedTask(n), api.TaskStateAccepted)
		ctlr := controller(task)
		running.Add(1)
		ended.Go(func() {
			drive(b.Context(), b, task, ctlr, api.TaskStateRunning)
			running.Done()
			drive(b.Context(), b, task, ctlr, api.TaskStateCompleted)
			if err := ctlr.Remove(b.Context()); err != nil || task.Status.State != api.TaskStateCompleted {
				b.Errorf("the task ends in %v: %v", task.Status.State, err)
			}
		})
	}
	running.Wait()
	// Every one waits once the engine has not been asked for a while.
	for asked, since := -1, time.Now(); time.Since(since) < 100*time.Millisecond; time.Sleep(time.Millisecond) {
		sim.mu.Lock()
		if len(sim.calls) != asked {
			asked, since = len(sim.calls), time.Now()
		}
		sim.mu.Unlock()
	}
	time.Sleep(2 * proofTime)
	for n := range count {
		sim.exit("web.1."+numberedTask(n).ID, 0)
	}
	ended.Wait()
	if left := sim.left(); len(left) > 0 {
		b.Errorf("left: %v", left)
	}
	sim.mu.Lock()
	defer sim.mu.Unlock()
	return len(sim.calls)
}

// BenchmarkTaskRequests counts what ten tasks on a warm image ask of the engine
// from ACCEPTED through SwarmKit's exec.Do to their exit and removal, requests for
// events among it. They run for two seconds, so the inspect one second after the
// stream was opened is counted: an engine answers before it subscribes, and an end
// in between has no event. Each further five minutes of a task cost one inspect,
// which finds an end that no event has told of; the baseline makes none, and waits
// for ever then.
func BenchmarkTaskRequests(b *testing.B) {
	const tasks = 10
	compareCounts(b, "requests/task", 0.9, func() float64 {
		return float64(requestsOfTasks(b, tasks, func(client engineapi.APIClient) func(*api.Task) exec.Controller {
			executor := NewExecutor(client, nil)
			return func(task *api.Task) exec.Controller {
				ctlr, err := executor.Controller(task)
				require.NoError(b, err)
				return ctlr
			}
		})) / tasks
	}, func() float64 {
		return float64(requestsOfTasks(b, tasks, func(client engineapi.APIClient) func(*api.Task) exec.Controller {
			return func(task *api.Task) exec.Controller {
				config, err := newContainerConfig(nil, task)
				require.NoError(b, err)
				return &referenceCalls{client: client, config: config}
			}
		})) / tasks
	})
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

// memoryOfWaits returns by how much heap and stacks are larger while count tasks
// wait. wait runs until its context ends, and calls waits when it has begun.
func memoryOfWaits(b *testing.B, count int, wait func(ctx context.Context, n int, waits func())) float64 {
	b.Helper()
	used := func() uint64 {
		runtime.GC()
		runtime.GC()
		var stats runtime.MemStats
		runtime.ReadMemStats(&stats)
		return stats.HeapAlloc + stats.StackInuse
	}
	before := used()
	ctx, cancel := context.WithCancel(b.Context())
	var begun, ended sync.WaitGroup
	begun.Add(count)
	for n := range count {
		ended.Go(func() { wait(ctx, n, sync.OnceFunc(begun.Done)) })
	}
	begun.Wait()
	each := (float64(used()) - float64(before)) / float64(count)
	cancel()
	ended.Wait()
	return each
}

// BenchmarkWaitingTask is the memory of a task whose exit is waited for, beside
// that of a request for events a task, as the reference makes it. The adapter is
// not counted, nor is what a connection costs.
func BenchmarkWaitingTask(b *testing.B) {
	const tasks = 500
	client, err := engineapi.NewClientWithOpts(engineapi.WithHost("http://engine"), engineapi.WithHTTPClient(&http.Client{Transport: silentTransport{}}))
	require.NoError(b, err)
	engine := NewEngine(client)
	adapters := numberedAdapters(b, engine, tasks)
	_, err = adapters[0].Inspect(b.Context()) // agrees on the API version
	require.NoError(b, err)
	compareCounts(b, "bytes/task", 1, func() float64 {
		return memoryOfWaits(b, tasks, func(ctx context.Context, n int, waits func()) {
			_, _ = adapters[n].watch(ctx, nil, func(container.InspectResponse) (bool, error) {
				waits()
				return false, nil
			})
		})
	}, func() float64 {
		return memoryOfWaits(b, tasks, func(ctx context.Context, n int, waits func()) {
			messages, errs := client.Events(ctx, events.ListOptions{Since: "0", Filters: filters.NewArgs(filters.Arg("name", adapters[n].config.name()))})
			_, _ = client.ContainerInspect(ctx, adapters[n].config.name())
			waits()
			select {
			case <-messages:
			case <-errs:
			}
		})
	})
}
