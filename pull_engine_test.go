package dockerexec

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	osexec "os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/docker/docker/api/types/image"
	engineapi "github.com/docker/docker/client"
	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/moby/swarmkit/v2/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// pullCounter is a client's transport that counts the pulls.
type pullCounter struct {
	http.RoundTripper
	pulls atomic.Int64
	ended chan struct{} // receives when a pull's request is cancelled
}

func (c *pullCounter) RoundTrip(r *http.Request) (*http.Response, error) {
	if strings.HasSuffix(r.URL.Path, "/images/create") {
		c.pulls.Add(1)
		context.AfterFunc(r.Context(), func() {
			select {
			case c.ended <- struct{}{}:
			default:
			}
		})
	}
	return c.RoundTripper.RoundTrip(r)
}

// pullEngine is an Engine on the running engine, and the count of its pulls.
func pullEngine(t *testing.T, opts ...Option) (*Engine, *pullCounter) {
	t.Helper()
	counter := &pullCounter{RoundTripper: engineClient(t).HTTPClient().Transport, ended: make(chan struct{}, 1)}
	client, err := engineapi.NewClientWithOpts(
		engineapi.WithHost(fromHarness(t, "DOCKEREXEC_TEST_HOST")), engineapi.WithHTTPClient(&http.Client{Transport: counter}))
	require.NoError(t, err)
	return NewEngine(client, opts...), counter
}

// randomTar is a layer of one file that cannot be compressed.
func randomTar(t testing.TB, size int) []byte {
	t.Helper()
	var layer bytes.Buffer
	w := tar.NewWriter(&layer)
	require.NoError(t, w.WriteHeader(&tar.Header{Name: "random", Mode: 0o644, Size: int64(size)}))
	_, err := io.CopyN(w, rand.Reader, int64(size))
	require.NoError(t, err)
	require.NoError(t, w.Close())
	return layer.Bytes()
}

// pushedImage makes an image of one layer that is in the registry and not on the
// engine, and returns its name there, without the registry's.
func pushedImage(t *testing.T, layer []byte) string {
	t.Helper()
	client := engineClient(t)
	name := strings.ToLower(t.Name()) + ":1"
	ref := fromHarness(t, "DOCKEREXEC_TEST_REGISTRY") + "/" + name
	body, err := client.ImageImport(t.Context(), image.ImportSource{Source: bytes.NewReader(layer), SourceName: "-"}, ref, image.ImportOptions{})
	require.NoError(t, err)
	readAll(t, body)
	body, err = client.ImagePush(t.Context(), ref, image.PushOptions{RegistryAuth: engineAuth(t)})
	require.NoError(t, err)
	readAll(t, body)
	removeImage(t, client, ref)
	return name
}

// readAll reads an answer in which no error may be.
func readAll(t *testing.T, body io.ReadCloser) {
	t.Helper()
	defer body.Close()
	text, err := io.ReadAll(body)
	require.NoError(t, err)
	require.NotContains(t, string(text), `"error"`)
}

func removeImage(t *testing.T, client *engineapi.Client, ref string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), time.Minute)
	defer cancel()
	_, _ = client.ImageRemove(ctx, ref, image.RemoveOptions{Force: true, PruneChildren: true})
}

// removedAfter has the test's end remove an image from the engine.
func removedAfter(t *testing.T, ref string) {
	client := engineClient(t)
	t.Cleanup(func() { removeImage(t, client, ref) })
}

// registryProxy stands before the registry: handle gets each request, and next
// to have it answered. It returns its host and port.
func registryProxy(t *testing.T, handle func(w http.ResponseWriter, r *http.Request, next http.Handler)) string {
	t.Helper()
	next := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: fromHarness(t, "DOCKEREXEC_TEST_REGISTRY")})
	next.FlushInterval = -1
	next.ErrorHandler = func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusBadGateway) }
	stopped, stop := context.WithCancel(context.Background())
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithCancel(r.Context())
		defer cancel()
		defer context.AfterFunc(stopped, cancel)()
		handle(w, r.WithContext(ctx), next)
	}))
	t.Cleanup(func() {
		stop()
		server.CloseClientConnections()
		server.Close()
	})
	return strings.TrimPrefix(server.URL, "http://")
}

// slowBody lets so many bytes through at once, and then calls pause before each
// chunk of the others.
type slowBody struct {
	http.ResponseWriter
	left, chunk int
	pause       func()
}

func (s *slowBody) Write(p []byte) (written int, err error) {
	for written < len(p) && err == nil {
		if s.left == 0 {
			_ = http.NewResponseController(s.ResponseWriter).Flush()
			s.pause()
			s.left = s.chunk
		}
		n := min(len(p)-written, s.left)
		n, err = s.ResponseWriter.Write(p[written : written+n])
		written += n
		s.left -= n
	}
	return written, err
}

func isBlob(r *http.Request) bool {
	return r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/blobs/")
}

// stopsAfter has a registry send so many bytes of a blob and then nothing more.
func stopsAfter(bytes int) func(http.ResponseWriter, *http.Request, http.Handler) {
	return func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		if isBlob(r) {
			w = &slowBody{ResponseWriter: w, left: bytes, chunk: 1, pause: func() {
				<-r.Context().Done()
				panic(http.ErrAbortHandler)
			}}
		}
		next.ServeHTTP(w, r)
	}
}

// pullTaskWith is a task of that image with those credentials.
func pullTaskWith(ref, auth string) *api.Task {
	task := pullTask(ref)
	spec(task).PullOptions = &api.ContainerSpec_PullOptions{RegistryAuth: auth}
	return task
}

func TestEnginePullIsShared(t *testing.T) {
	var mu sync.Mutex
	seen := map[any]bool{}
	type waiter struct{}
	engine, counter := pullEngine(t, WithPullObserver(func(ctx context.Context, p PullProgress) {
		mu.Lock()
		defer mu.Unlock()
		seen[ctx.Value(waiter{})] = true
		assert.NotContains(t, fmt.Sprint(p), "canary")
	}))
	name := pushedImage(t, randomTar(t, 4<<20))
	release := make(chan struct{})
	ref := registryProxy(t, func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		<-release
		next.ServeHTTP(w, r)
	}) + "/" + name
	removedAfter(t, ref)

	// The same rights in another form are other credentials.
	user, password := fromHarness(t, "DOCKEREXEC_TEST_USER"), fromHarness(t, "DOCKEREXEC_TEST_PASSWORD")
	other, err := json.Marshal(map[string]string{"auth": base64.StdEncoding.EncodeToString([]byte(user + ":" + password)), "username": user, "password": password})
	require.NoError(t, err)
	tasks := make([]*api.Task, 62)
	for i := range tasks {
		tasks[i] = pullTaskWith(ref, engineAuth(t))
		if i >= 50 {
			tasks[i] = pullTaskWith(ref, base64.URLEncoding.EncodeToString(other))
		}
		if i >= 60 {
			tasks[i] = pullTaskWith(ref, registryAuth(t, user, "canary-wrong-password"))
		}
	}
	ctx, hook := logHook(t.Context())
	errs := make([]error, len(tasks))
	var all sync.WaitGroup
	for i, task := range tasks {
		adapter := adapterOf(t, engine, task)
		all.Go(func() { errs[i] = adapter.PullImage(context.WithValue(ctx, waiter{}, i)) })
	}
	require.Eventually(t, func() bool { return counter.pulls.Load() >= 3 }, 10*time.Second, 10*time.Millisecond)
	time.Sleep(500 * time.Millisecond) // for the pulls that should not be
	close(release)
	all.Wait()
	for i, err := range errs {
		if i >= 60 {
			require.ErrorContains(t, err, "denied")
			assert.NotContains(t, err.Error(), "canary")
			assert.False(t, exec.IsTemporary(err))
			continue
		}
		assert.NoError(t, err)
		assert.True(t, seen[i], i)
	}
	assert.EqualValues(t, 3, counter.pulls.Load())
	for _, e := range hook.AllEntries() {
		line, err := e.String()
		require.NoError(t, err)
		assert.NotContains(t, line, "canary")
	}

	// A digest that is there is not pulled again.
	inspected, err := engineClient(t).ImageInspect(t.Context(), ref)
	require.NoError(t, err)
	require.NotEmpty(t, inspected.RepoDigests)
	for _, digest := range inspected.RepoDigests {
		require.NoError(t, adapterOf(t, engine, pullTaskWith(digest, engineAuth(t))).PullImage(t.Context()))
	}
	require.NoError(t, adapterOf(t, engine, pullTask(inspected.ID)).PullImage(t.Context()))
	assert.EqualValues(t, 3, counter.pulls.Load())
	require.NoError(t, adapterOf(t, engine, pullTaskWith(ref, engineAuth(t))).PullImage(t.Context()))
	assert.EqualValues(t, 4, counter.pulls.Load())
}

func TestEnginePullEndsWithItsLastWaiter(t *testing.T) {
	engine, counter := pullEngine(t)
	closed := make(chan struct{}, 1)
	// It goes on sending: 20.10 notices that its client has left when it has
	// progress to write, and with a download that hangs it never does.
	ref := registryProxy(t, func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		if isBlob(r) {
			context.AfterFunc(r.Context(), func() { closed <- struct{}{} })
			w = &slowBody{ResponseWriter: w, left: 3 << 20, chunk: 32 << 10, pause: func() { time.Sleep(50 * time.Millisecond) }}
		}
		next.ServeHTTP(w, r)
	}) + "/" + pushedImage(t, randomTar(t, 8<<20))
	ctx, cancel := context.WithCancel(t.Context())
	var both sync.WaitGroup
	for range 2 {
		adapter := adapterOf(t, engine, pullTaskWith(ref, engineAuth(t)))
		both.Go(func() { assert.Equal(t, context.Canceled, adapter.PullImage(ctx)) })
	}
	time.Sleep(2 * time.Second)
	select {
	case <-counter.ended:
		t.Error("cancelled too early")
	default:
	}
	started := time.Now()
	cancel()
	<-counter.ended
	assert.Less(t, time.Since(started), 100*time.Millisecond, "until the request is cancelled")
	both.Wait()
	assert.Less(t, time.Since(started), 100*time.Millisecond, "until PullImage returns")
	select {
	case <-closed:
		t.Logf("the registry saw its connection close after %v", time.Since(started))
	case <-time.After(5 * time.Second):
		t.Error("the registry's connection stays open")
	}
	assert.EqualValues(t, 1, counter.pulls.Load())
}

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
		t.Skipf("extracted within %v, too fast to tell", took)
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
