package engine_test

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/image"
	engineapi "github.com/docker/docker/client"
	"github.com/dockerexec/dockerexec"
	gogotypes "github.com/gogo/protobuf/types"
	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/moby/swarmkit/v2/api"
	"github.com/moby/swarmkit/v2/api/naming"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// lingering drives a task whose container ends a time after its first stop signal, and
// waits until it would notice one. It returns the container's ID.
func lingering(t *testing.T, executor exec.Executor, client *engineapi.Client, lasts string) (*api.Task, taskController, string) {
	t.Helper()
	task := taskAt(engineTask(t, "linger", lasts), api.TaskStateAccepted)
	spec(task).StopGracePeriod = gogotypes.DurationProto(6 * time.Second)
	ctlr := engineController(t, executor, task)
	drive(t.Context(), t, task, ctlr, api.TaskStateRunning)
	require.Equal(t, api.TaskStateRunning, task.Status.State, task.Status.Err)
	adapter := engineTwin(t, client, task)
	awaitReady(t, adapter)
	return task, ctlr, task.Status.GetContainer().ContainerID
}

// An update stops a task, and three seconds later the service is removed. The caller of
// the first stop may have left by then. The container gets one signal and ends in its
// grace period.
func TestEngineARemovalWithinAStopSendsNoSecondSignal(t *testing.T) {
	sharesEngine(t)
	for name, test := range map[string]struct {
		leaves bool
		lasts  string
	}{
		"it ends by itself":                         {false, "4s"},
		"it ends by itself and the caller leaves":   {true, "4s"},
		"the engine kills it":                       {false, "1h"},
		"the engine kills it and the caller leaves": {true, "1h"},
	} {
		t.Run(name, func(t *testing.T) {
			sharesEngine(t)
			client, _ := plainClient(t)
			warmImage(t, client)
			fates := watchFates(t, client)
			defer fates.close()
			_, ctlr, id := lingering(t, dockerexec.NewExecutor(client, nil), client, test.lasts)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			began := time.Now()
			shutdown := asynchronously(func() error { return ctlr.Shutdown(ctx) })
			time.AfterFunc(time.Second, func() {
				if test.leaves {
					cancel()
				}
			})
			removed := make(chan error, 1)
			time.AfterFunc(3*time.Second, func() { removed <- ctlr.Remove(t.Context()) })
			require.NoError(t, <-removed)
			err := shutdown()
			if test.leaves {
				assert.Equal(t, context.Canceled, err)
			} else {
				require.NoError(t, err)
			}
			var terms int
			var ended time.Time
			require.Eventually(t, func() (gone bool) {
				terms, ended, gone = fates.of(id)
				return gone
			}, time.Minute, 10*time.Millisecond)
			if !isPodman() {
				assert.Equal(t, 1, terms)
			}
			assert.Greater(t, ended.Sub(began), 3*time.Second)
			assert.Less(t, ended.Sub(began), 8*time.Second)
		})
	}
}

// A container that somebody has renamed is stopped and removed, by the controller that
// made it and by a new one. Beside it runs a copy of it, made from its image.
func TestEngineARenamedContainer(t *testing.T) {
	sharesEngine(t)
	for name, isNew := range map[string]bool{"by its controller": false, "by a new controller": true} {
		t.Run(name, func(t *testing.T) {
			client, _ := plainClient(t)
			warmImage(t, client)
			task := taskAt(engineTask(t, "sleep", "1h"), api.TaskStateAccepted)
			ctlr := engineController(t, dockerexec.NewExecutor(client, nil), task)
			drive(t.Context(), t, task, ctlr, api.TaskStateRunning)
			id := task.Status.GetContainer().ContainerID
			ctx := context.WithoutCancel(t.Context())

			committed, err := client.ContainerCommit(ctx, id, container.CommitOptions{Config: &container.Config{}}) // Podman wants one
			require.NoError(t, err)
			made, err := client.ContainerCreate(ctx, &container.Config{Image: committed.ID, Cmd: []string{"sleep", "1h"}}, nil, nil, nil, "")
			require.NoError(t, err)
			defer func() {
				assert.NoError(t, client.ContainerRemove(ctx, made.ID, container.RemoveOptions{Force: true}))
				_, err := client.ImageRemove(ctx, committed.ID, image.RemoveOptions{Force: true})
				assert.NoError(t, err)
			}()
			require.NoError(t, client.ContainerStart(ctx, made.ID, container.StartOptions{}))
			copied, err := client.ContainerInspect(ctx, made.ID)
			require.NoError(t, err)
			require.Equal(t, task.ID, copied.Config.Labels[dockerexec.LabelTaskID])

			require.NoError(t, client.ContainerRename(ctx, id, "renamed-"+task.ID))
			if isNew {
				ctlr = engineController(t, dockerexec.NewExecutor(client, nil), taskAt(task, api.TaskStateRunning))
			}
			status, err := ctlr.ContainerStatus(ctx)
			require.NoError(t, err)
			require.NotNil(t, status)
			assert.Equal(t, id, status.ContainerID)
			wait := asynchronously(func() error { return ctlr.Wait(ctx) })
			require.NoError(t, ctlr.Shutdown(ctx))
			require.NoError(t, wait())
			require.NoError(t, ctlr.Remove(ctx))
			_, err = client.ContainerInspect(ctx, id)
			assert.True(t, dockerexec.IsUnknownContainer(err), err)
			copied, err = client.ContainerInspect(ctx, made.ID)
			require.NoError(t, err)
			assert.True(t, copied.State.Running)
		})
	}
}

// before calls do before the first request whose path ends so.
type before struct {
	http.RoundTripper
	suffix string
	do     func()
	once   sync.Once
}

func (b *before) RoundTrip(r *http.Request) (*http.Response, error) {
	if strings.HasSuffix(r.URL.Path, b.suffix) {
		b.once.Do(b.do)
	}
	return b.RoundTripper.RoundTrip(r)
}

// Somebody removes all that a prune removes before the create, or before the start.
func TestEngineAPruneBeforeARequest(t *testing.T) {
	for name, suffix := range map[string]string{"create": "/containers/create", "start": "/start"} {
		t.Run(name, func(t *testing.T) {
			client, _ := plainClient(t)
			warmImage(t, client)
			transport := engineTransport(t)
			t.Cleanup(transport.CloseIdleConnections)
			task := taskAt(engineTask(t, "sleep", "1h"), api.TaskStateAccepted)
			attach(task, "dockerexec-pruned", "10.222.1.0/24")
			pruning := &before{RoundTripper: transport, suffix: suffix, do: func() {
				ctx := context.WithoutCancel(t.Context())
				if name == "start" {
					assert.NoError(t, client.ContainerRemove(ctx, naming.Task(task), container.RemoveOptions{}))
				}
				_, err := client.ImageRemove(ctx, spec(task).Image, image.RemoveOptions{Force: true, PruneChildren: true})
				assert.NoError(t, err)
				assert.NoError(t, client.NetworkRemove(ctx, "dockerexec-pruned"))
			}}
			pruned, err := engineapi.NewClientWithOpts(engineapi.WithHost("tcp://engine:2375"), engineapi.WithHTTPClient(&http.Client{Transport: pruning}))
			require.NoError(t, err)
			ctlr := engineController(t, dockerexec.NewExecutor(pruned, nil), task)
			drive(t.Context(), t, task, ctlr, api.TaskStateRunning)
			assert.Equal(t, api.TaskStateRunning, task.Status.State, task.Status.Err)
			require.NoError(t, ctlr.Remove(context.WithoutCancel(t.Context())))
			assert.Empty(t, leftOfTask(t, client, task))
		})
	}
}

// A container that the kernel kills for its memory says so in its task's status, and its
// exit code stays in front.
func TestEngineNamesAKillForMemory(t *testing.T) {
	sharesEngine(t)
	client := engineClient(t)
	info, err := client.Info(t.Context())
	require.NoError(t, err)
	if !info.MemoryLimit {
		skip(t, "this kernel limits no memory")
	}
	executor := dockerexec.NewExecutor(client, nil)
	for name, test := range map[string]struct {
		args []string
		want string
	}{
		"too much":     {[]string{"oom", "200"}, "task: non-zero exit (137): out of memory"},
		"little":       {[]string{"oom", "2"}, ""},
		"another code": {[]string{"exit", "137"}, "task: non-zero exit (137)"},
	} {
		t.Run(name, func(t *testing.T) {
			task := taskAt(engineTask(t, test.args...), api.TaskStateAccepted)
			task.Spec.Resources = &api.ResourceRequirements{Limits: &api.Resources{MemoryBytes: 48 << 20}, SwapBytes: &gogotypes.Int64Value{}}
			ctlr := engineController(t, executor, task)
			drive(t.Context(), t, task, ctlr, api.TaskStateCompleted)
			answer, err := engineTwin(t, client, task).Inspect(t.Context())
			require.NoError(t, err)
			if !answer.State.OOMKilled { // a busy engine may not hear of it before the end
				test.want = strings.TrimSuffix(test.want, ": out of memory")
			}
			assert.Equal(t, test.want, task.Status.Err)
		})
	}
}

// The end of each task is reported at once, also where the engine sends its events late.
func TestEngineTwentyEndsAreReportedAtOnce(t *testing.T) {
	client := engineClient(t)
	warmImage(t, client)
	engine := dockerexec.NewEngine(client)
	type end struct {
		answer   container.InspectResponse
		reported time.Time
		err      error
	}
	ends := make(chan end, 20)
	for range 20 {
		adapter := adapterOf(t, engine, engineTask(t, "sleep", "2s"))
		t.Cleanup(func() { assert.NoError(t, adapter.Remove(context.WithoutCancel(t.Context()))) })
		require.NoError(t, adapter.Create(t.Context()))
		go func() {
			answer, err := adapter.Wait(t.Context())
			ends <- end{answer, time.Now(), err}
		}()
		require.NoError(t, adapter.Start(t.Context()))
	}
	var latest time.Duration
	for range 20 {
		e := <-ends
		require.NoError(t, e.err)
		finished, err := time.Parse(time.RFC3339Nano, e.answer.State.FinishedAt)
		require.NoError(t, err)
		latest = max(latest, e.reported.Sub(finished))
	}
	t.Logf("the latest report came %v after the end", latest.Round(time.Millisecond))
	assert.Less(t, latest, 2*time.Second)
}

// Without a grace period of the task, the container gets its stop signal and ten seconds.
func TestEngineStopWithoutAGracePeriod(t *testing.T) {
	sharesEngine(t)
	client := engineClient(t)
	warmImage(t, client)
	for _, test := range []struct {
		args     []string
		from, to time.Duration
		code     int
	}{
		{[]string{"linger", "3s"}, 3 * time.Second, 9 * time.Second, 0},
		{[]string{"ignore-term"}, 10 * time.Second, 20 * time.Second, 137},
	} {
		task := engineTask(t, test.args...)
		adapter := engineAdapter(t, client, task)
		require.NoError(t, adapter.Create(t.Context()))
		require.NoError(t, adapter.Start(t.Context()))
		awaitReady(t, adapter)
		began := time.Now()
		require.NoError(t, engineTwin(t, client, task).Shutdown(t.Context()))
		took := time.Since(began)
		assert.Greater(t, took, test.from, test.args)
		assert.Less(t, took, test.to, test.args)
		answer, err := adapter.Inspect(t.Context())
		require.NoError(t, err)
		assert.Equal(t, test.code, answer.State.ExitCode, test.args)
	}
}
