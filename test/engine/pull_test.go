package engine_test

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
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/docker/docker/api/types/image"
	engineapi "github.com/docker/docker/client"
	"github.com/dockerexec/dockerexec"
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
func pullEngine(t *testing.T, opts ...dockerexec.Option) (*dockerexec.Engine, *pullCounter) {
	t.Helper()
	counter := &pullCounter{RoundTripper: engineClient(t).HTTPClient().Transport, ended: make(chan struct{}, 1)}
	client, err := engineapi.NewClientWithOpts(
		engineapi.WithHost(fromHarness(t, "DOCKEREXEC_TEST_HOST")), engineapi.WithHTTPClient(&http.Client{Transport: counter}))
	require.NoError(t, err)
	return dockerexec.NewEngine(client, opts...), counter
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

// pullTask is a task of which only the image matters.
func pullTask(ref string) *api.Task {
	return &api.Task{
		ID:                 "taskid",
		ServiceAnnotations: api.Annotations{Name: "web"},
		Spec:               api.TaskSpec{Runtime: &api.TaskSpec_Container{Container: &api.ContainerSpec{Image: ref}}},
	}
}

// pullTaskWith is the same with credentials.
func pullTaskWith(ref, auth string) *api.Task {
	task := pullTask(ref)
	spec(task).PullOptions = &api.ContainerSpec_PullOptions{RegistryAuth: auth}
	return task
}

func TestEnginePullIsShared(t *testing.T) {
	sharesEngine(t)
	var mu sync.Mutex
	seen := map[any]bool{}
	type waiter struct{}
	engine, counter := pullEngine(t, dockerexec.WithPullObserver(func(ctx context.Context, p dockerexec.PullProgress) {
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
	ctx, lines := logged(t)
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
	for _, e := range lines.AllEntries() {
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
