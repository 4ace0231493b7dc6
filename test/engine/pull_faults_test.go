package engine_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/dockerexec/dockerexec"
	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/moby/swarmkit/v2/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestEnginePullThatStalls(t *testing.T) {
	ref := registryProxy(t, stopsAfter(3<<20)) + "/" + pushedImage(t, randomTar(t, 8<<20))
	engine, counter := pullEngine(t, dockerexec.WithPullStallTimeout(3*time.Second))
	started := time.Now()
	err := adapterOf(t, engine, pullTaskWith(ref, engineAuth(t))).PullImage(t.Context())
	limit := 3 * time.Second
	if isPodman() { // which names the layers and no bytes
		limit = 20 * time.Second
	}
	assert.Less(t, time.Since(started), limit+2*time.Second)
	require.ErrorContains(t, err, "pull image "+ref+", attempt 1 of 3: stalled: no advance for "+limit.String()+"; it came to 0 of 1 layers, ")
	assert.False(t, exec.IsTemporary(err))
	assert.EqualValues(t, 1, counter.pulls.Load())
	t.Log(err)
}

func TestEnginePullWithoutAFirstMessage(t *testing.T) {
	ref := registryProxy(t, func(_ http.ResponseWriter, r *http.Request, _ http.Handler) { <-r.Context().Done() }) + "/x:1"
	engine, _ := pullEngine(t, dockerexec.WithPullStallTimeout(3*time.Second))
	started := time.Now()
	err := adapterOf(t, engine, pullTaskWith(ref, engineAuth(t))).PullImage(t.Context())
	assert.Less(t, time.Since(started), 5*time.Second)
	require.EqualError(t, err, "pull image "+ref+", attempt 1 of 3: stalled: no answer from the engine for 3s")
}

// An engine with the containerd store reports a download by the MiB, which takes
// 16 seconds here, far longer than the limit; 20.10 by the hundredth of a layer.
func TestEnginePullThatTrickles(t *testing.T) {
	sharesEngine(t)
	const rate = 64 << 10
	name := pushedImage(t, randomTar(t, 2<<20))
	ref := registryProxy(t, func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		if isBlob(r) {
			due := time.Now() // so that the rate is the same on a busy machine
			w = &slowBody{ResponseWriter: w, left: rate / 10, chunk: rate / 10, pause: func() {
				due = due.Add(time.Second / 10)
				time.Sleep(time.Until(due))
			}}
		}
		next.ServeHTTP(w, r)
	}) + "/" + name
	removedAfter(t, ref)
	engine, counter := pullEngine(t, dockerexec.WithPullStallTimeout(3*time.Second))
	started := time.Now()
	require.NoError(t, adapterOf(t, engine, pullTaskWith(ref, engineAuth(t))).PullImage(t.Context()))
	assert.Greater(t, time.Since(started), 30*time.Second)
	assert.EqualValues(t, 1, counter.pulls.Load())
}

// A layer of many files takes long to extract.
func TestEnginePullThatExtractsForLong(t *testing.T) {
	const limit = time.Second
	var layer bytes.Buffer
	w := tar.NewWriter(&layer)
	for i := range 60_000 {
		require.NoError(t, w.WriteHeader(&tar.Header{Name: fmt.Sprintf("%d/%d", i%500, i), Mode: 0o644}))
	}
	require.NoError(t, w.Close())
	ref := fromHarness(t, "DOCKEREXEC_TEST_REGISTRY") + "/" + pushedImage(t, layer.Bytes())
	removedAfter(t, ref)
	var extracting time.Time
	engine, _ := pullEngine(t, dockerexec.WithPullStallTimeout(limit), dockerexec.WithPullObserver(func(_ context.Context, p dockerexec.PullProgress) {
		if p.Status == "Extracting" && extracting.IsZero() {
			extracting = time.Now()
		}
	}))
	require.NoError(t, adapterOf(t, engine, pullTaskWith(ref, engineAuth(t))).PullImage(t.Context()))
	require.False(t, extracting.IsZero())
	if took := time.Since(extracting); took < limit {
		t.Log("extracted within ", took)
		skip(t, cannotTell)
	}
}

func TestEnginePullOfARegistryThatLimitsItsRate(t *testing.T) {
	sharesEngine(t)
	ref := registryProxy(t, func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusTooManyRequests)
		_, _ = io.WriteString(w, `{"errors":[{"code":"TOOMANYREQUESTS","message":"You have reached your pull rate limit."}]}`)
	}) + "/x:1"
	engine, counter := pullEngine(t)
	err := adapterOf(t, engine, pullTaskWith(ref, engineAuth(t))).PullImage(t.Context())
	require.ErrorContains(t, err, "pull image "+ref+", attempt 3 of 3: ")
	assert.Equal(t, []string{"resource exhausted"}, classesOf(err))
	assert.False(t, exec.IsTemporary(err))
	assert.EqualValues(t, 3, counter.pulls.Load())
}

func TestEnginePullWhileTheEngineDies(t *testing.T) {
	fromHarness(t, "DOCKEREXEC_TEST_ENGINE")
	var whole atomic.Bool
	stops := stopsAfter(3 << 20)
	ref := registryProxy(t, func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		if whole.Load() {
			next.ServeHTTP(w, r)
			return
		}
		stops(w, r, next)
	}) + "/" + pushedImage(t, randomTar(t, 8<<20))
	removedAfter(t, ref)
	engine, _ := pullEngine(t, dockerexec.WithPullAttempts(2))
	adapter := adapterOf(t, engine, pullTaskWith(ref, engineAuth(t)))
	result := make(chan error, 1)
	go func() { result <- adapter.PullImage(t.Context()) }()
	time.Sleep(time.Second)
	controlEngine(t, "kill")
	err := <-result
	controlEngine(t, "start")
	require.Error(t, err)
	assert.True(t, exec.IsTemporary(err), err)
	t.Log(err)

	whole.Store(true)
	require.NoError(t, adapter.PullImage(t.Context()))
}

// The image is not on the engine and the password is wrong: the answer names
// image and cause, and not the password.
func TestEnginePullWithAWrongPassword(t *testing.T) {
	sharesEngine(t)
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

// The image is on the engine and the registry refuses: the task runs, with a
// warning.
func TestEnginePullFallback(t *testing.T) {
	sharesEngine(t)
	client, _ := plainClient(t)
	executor := dockerexec.NewExecutor(client, nil)
	warmImage(t, client)
	task := taskAt(engineTask(t, "exit", "0"), api.TaskStateAccepted)
	spec(task).PullOptions.RegistryAuth = registryAuth(t, "tester", "canary-password")
	ctlr := engineController(t, executor, task)
	ctx, lines := logged(t)
	drive(ctx, t, task, ctlr, api.TaskStateCompleted)
	assert.Equal(t, api.TaskStateCompleted, task.Status.State, task.Status.Err)
	warned := 0
	for _, entry := range lines.AllEntries() {
		text, err := entry.String()
		require.NoError(t, err)
		assert.NotContains(t, text, "canary-password")
		if strings.Contains(entry.Message, "pull failed, the image on the engine is used instead") {
			warned++
			t.Log(text)
		}
	}
	assert.Equal(t, 1, warned)

	absent := taskAt(engineTask(t, "exit", "0"), api.TaskStateAccepted)
	spec(absent).Image = fromHarness(t, "DOCKEREXEC_TEST_REGISTRY") + "/absent:1"
	spec(absent).PullOptions.RegistryAuth = registryAuth(t, "tester", "canary-password")
	_, err := client.ImageInspect(t.Context(), spec(absent).Image)
	require.True(t, cerrdefs.IsNotFound(err), err)
	ctlr = engineController(t, executor, absent)
	drive(t.Context(), t, absent, ctlr, api.TaskStateCompleted)
	assert.Equal(t, api.TaskStateRejected, absent.Status.State)
	assert.Contains(t, absent.Status.Err, "pull image "+spec(absent).Image)
	assert.NotContains(t, absent.Status.Err, "No such image")
	t.Log(absent.Status.Err)
}

// classesOf names the classes of errdefs that err has.
func classesOf(err error) (classes []string) {
	for _, class := range []error{
		cerrdefs.ErrUnknown, cerrdefs.ErrInvalidArgument, cerrdefs.ErrNotFound, cerrdefs.ErrPermissionDenied, cerrdefs.ErrUnauthenticated,
		cerrdefs.ErrResourceExhausted, cerrdefs.ErrInternal, cerrdefs.ErrUnavailable, cerrdefs.ErrDataLoss,
	} {
		if errors.Is(err, class) {
			classes = append(classes, class.Error())
		}
	}
	return classes
}
