package dockerexec

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	osexec "os/exec"
	"sync/atomic"
	"testing"
	"time"

	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestEnginePullThatStalls(t *testing.T) {
	ref := registryProxy(t, stopsAfter(3<<20)) + "/" + pushedImage(t, randomTar(t, 8<<20))
	engine, counter := pullEngine(t, WithPullStallTimeout(3*time.Second))
	started := time.Now()
	err := adapterOf(t, engine, pullTaskWith(ref, engineAuth(t))).PullImage(t.Context())
	assert.Less(t, time.Since(started), 5*time.Second)
	require.ErrorContains(t, err, "pull image "+ref+", attempt 1 of 3: stalled: no advance for 3s; it came to 0 of 1 layers, ")
	assert.False(t, exec.IsTemporary(err))
	assert.EqualValues(t, 1, counter.pulls.Load())
	t.Log(err)
}

func TestEnginePullWithoutAFirstMessage(t *testing.T) {
	ref := registryProxy(t, func(_ http.ResponseWriter, r *http.Request, _ http.Handler) { <-r.Context().Done() }) + "/x:1"
	engine, _ := pullEngine(t, WithPullStallTimeout(3*time.Second))
	started := time.Now()
	err := adapterOf(t, engine, pullTaskWith(ref, engineAuth(t))).PullImage(t.Context())
	assert.Less(t, time.Since(started), 5*time.Second)
	require.EqualError(t, err, "pull image "+ref+", attempt 1 of 3: stalled: no answer from the engine for 3s")
}

// An engine with the containerd store reports a download by the MiB, which takes
// 16 seconds here, far longer than the limit; 20.10 by the hundredth of a layer.
func TestEnginePullThatTrickles(t *testing.T) {
	const rate = 64 << 10
	name := pushedImage(t, randomTar(t, 2<<20))
	ref := registryProxy(t, func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		if isBlob(r) {
			w = &slowBody{ResponseWriter: w, left: rate / 10, chunk: rate / 10, pause: func() { time.Sleep(time.Second / 10) }}
		}
		next.ServeHTTP(w, r)
	}) + "/" + name
	removedAfter(t, ref)
	engine, counter := pullEngine(t, WithPullStallTimeout(3*time.Second))
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
	engine, _ := pullEngine(t, WithPullStallTimeout(limit), WithPullObserver(func(_ context.Context, p PullProgress) {
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
	control := fromHarness(t, "DOCKEREXEC_TEST_ENGINE")
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
	do := func(what string) {
		out, err := osexec.Command(control, what).CombinedOutput()
		require.NoError(t, err, string(out))
	}
	engine, _ := pullEngine(t, WithPullAttempts(2))
	adapter := adapterOf(t, engine, pullTaskWith(ref, engineAuth(t)))
	result := make(chan error, 1)
	go func() { result <- adapter.PullImage(t.Context()) }()
	time.Sleep(time.Second)
	do("kill")
	err := <-result
	do("start")
	require.Error(t, err)
	assert.True(t, exec.IsTemporary(err), err)
	t.Log(err)

	whole.Store(true)
	require.NoError(t, adapter.PullImage(t.Context()))
}
