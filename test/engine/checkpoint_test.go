package engine_test

import (
	"context"
	"net/http"
	"net/url"
	"os"
	osexec "os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/docker/docker/api/types/checkpoint"
	"github.com/docker/docker/api/types/container"
	engineapi "github.com/docker/docker/client"
	"github.com/dockerexec/dockerexec"
	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/moby/swarmkit/v2/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// startQueries keeps the queries of the start requests.
type startQueries struct {
	http.RoundTripper
	mu      sync.Mutex
	queries []url.Values
}

func (s *startQueries) RoundTrip(r *http.Request) (*http.Response, error) {
	if strings.HasSuffix(r.URL.Path, "/start") {
		s.mu.Lock()
		s.queries = append(s.queries, r.URL.Query())
		s.mu.Unlock()
	}
	return s.RoundTripper.RoundTrip(r)
}

// A label of a task names a checkpoint of another one, from which the start hook has an
// experimental engine start it. That takes criu, and a kernel and rights that let criu work.
// Where they do not, the log says what is missing, and the engine must refuse the start that
// names the checkpoint.
func TestEngineStartsFromACheckpoint(t *testing.T) {
	controlEngine(t, "restart", "--experimental")
	t.Cleanup(func() { controlEngine(t, "restart") })
	const label = "com.example.checkpoint"
	starts := &startQueries{RoundTripper: engineTransport(t)}
	client, err := engineapi.NewClientWithOpts(engineapi.WithHost(faultHost), engineapi.WithHTTPClient(&http.Client{Transport: starts}))
	require.NoError(t, err)
	t.Cleanup(func() { starts.RoundTripper.(*http.Transport).CloseIdleConnections() })
	engine := dockerexec.NewEngine(client, dockerexec.WithStartHook(
		func(_ context.Context, task *api.Task, options *container.StartOptions) error {
			options.CheckpointID = spec(task).Labels[label]
			return nil
		}))
	info, err := engineClient(t).Info(t.Context())
	require.NoError(t, err)
	// Engines look for a checkpoint in the container's own folder alone.
	folder := func(adapter *dockerexec.ContainerAdapter) string {
		answer, err := adapter.Inspect(t.Context())
		require.NoError(t, err)
		return filepath.Join(info.DockerRootDir, "containers", answer.ID, "checkpoints")
	}
	create := func(labels map[string]string) *dockerexec.ContainerAdapter {
		task := engineTask(t, "job", "-lines", "6000", "-every", "10ms")
		spec(task).Labels = labels
		attachTo(task, "none")
		adapter := adapterOf(t, engine, task)
		t.Cleanup(func() { assert.NoError(t, adapter.Remove(context.WithoutCancel(t.Context()))) })
		require.NoError(t, adapter.PullImage(t.Context()))
		require.NoError(t, adapter.Create(t.Context()))
		return adapter
	}
	logOf := func(adapter *dockerexec.ContainerAdapter) []string {
		sink := &logSink{}
		require.NoError(t, adapter.PublishLogs(t.Context(), api.LogSubscriptionOptions{}, sink))
		return sink.lines()
	}

	first := create(nil)
	require.NoError(t, first.Start(t.Context()))
	require.Eventually(t, func() bool { return len(logOf(first)) >= 10 }, time.Minute, 10*time.Millisecond)
	var missing []string
	if _, err := osexec.LookPath("criu"); err != nil {
		missing = append(missing, "the program criu")
	} else if output, err := osexec.Command("criu", "check").CombinedOutput(); err != nil {
		missing = append(missing, "a kernel and rights with which criu works: "+strings.TrimSpace(string(output)))
	}
	if err := client.CheckpointCreate(t.Context(), first.ContainerName(), checkpoint.CreateOptions{CheckpointID: "before-lunch", Exit: true}); err != nil {
		missing = append(missing, "a checkpoint: "+err.Error())
	}

	second := create(map[string]string{label: "before-lunch"})
	if len(missing) == 0 {
		require.NoError(t, os.CopyFS(folder(second), os.DirFS(folder(first))))
	}
	err = second.Start(t.Context())
	starts.mu.Lock()
	require.Len(t, starts.queries, 2)
	assert.Empty(t, starts.queries[0])
	assert.Equal(t, url.Values{"checkpoint": {"before-lunch"}}, starts.queries[1])
	t.Logf("the query of the start: %s", starts.queries[1].Encode())
	starts.mu.Unlock()

	if len(missing) > 0 {
		t.Logf("no start from a checkpoint here, missing:\n%s", strings.Join(missing, "\n"))
		require.ErrorContains(t, err, "start container "+second.ContainerName()+": Error response from daemon: ")
		assert.False(t, exec.IsTemporary(err), "a refusal is final: %v", err)
		t.Logf("the engine's refusal: %v", err)
		answer, err := second.Inspect(t.Context())
		require.NoError(t, err)
		assert.False(t, answer.State.Running)
		return
	}
	require.NoError(t, err)
	require.Eventually(t, func() bool { return len(logOf(second)) > 0 }, time.Minute, 10*time.Millisecond)
	assert.NotEqual(t, "stdout step 1 of 6000\n", logOf(second)[0], "it goes on where the first one was")
}
