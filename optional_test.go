package dockerexec

import (
	"context"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	engineapi "github.com/docker/docker/client"
	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/moby/swarmkit/v2/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockerexec/dockerexec/dockerexectest"
)

// forbidding answers as a proxy that forbids some requests, by the ends of their paths,
// and leaves the others to the engine behind it.
type forbidding struct {
	http.RoundTripper
	mu      sync.Mutex
	paths   []string
	status  int
	page    string // the body of the answer
	refused []string
}

func (p *forbidding) forbid(paths ...string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.paths = paths
}

func (p *forbidding) RoundTrip(r *http.Request) (*http.Response, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, path := range p.paths {
		if method, path, _ := strings.Cut(path, " "); (r.Method == method || method == "*") && strings.HasSuffix(r.URL.Path, path) {
			p.refused = append(p.refused, r.Method+" "+r.URL.Path)
			return &http.Response{StatusCode: p.status, Request: r, Header: http.Header{"Content-Type": {"text/html"}},
				Body: io.NopCloser(strings.NewReader(p.page))}, nil
		}
	}
	return p.RoundTripper.RoundTrip(r)
}

// bans are how proxies and plugins of the engine forbid a request.
var bans = map[string]struct {
	status int
	page   string
}{
	"haproxy":      {http.StatusForbidden, "<html><body><h1>403 Forbidden</h1>\nRequest forbidden by administrative rules.\n</body></html>\n"},
	"bare":         {http.StatusForbidden, ""},
	"by method":    {http.StatusMethodNotAllowed, "Method Not Allowed\n"},
	"unauthorized": {http.StatusUnauthorized, `{"message": "authorization denied by plugin"}`},
	"none of it":   {http.StatusNotImplemented, `{"message": "not implemented"}`},
}

func (p *forbidding) client(t testing.TB) *engineapi.Client {
	t.Helper()
	client, err := engineapi.NewClientWithOpts(engineapi.WithHost("tcp://engine:1"), engineapi.WithHTTPClient(&http.Client{Transport: p}))
	require.NoError(t, err)
	return client
}

// A proxy that forbids each optional request leaves a node that describes itself, and
// runs, stops and removes tasks. Each refusal is logged once, with the request.
func TestANodeBehindAProxyThatForbidsWhatIsOptional(t *testing.T) {
	t.Parallel()
	for name, ban := range bans {
		proxy := &forbidding{RoundTripper: &rangedEngine{min: "1.12", max: "1.41"}, status: ban.status, page: ban.page}
		proxy.forbid("* /_ping", "* /plugins", "POST /volumes/create", "GET /containers/json", "GET /networks/backend")
		if name == "unauthorized" { // of the ping this says that nothing is allowed
			proxy.forbid("* /plugins", "GET /containers/json", "GET /networks/backend")
		}
		ctx, lines := linesOf(t.Context())
		engine := NewEngine(proxy.client(t))
		executor := engine.Executor(nil)
		for range 2 {
			node, err := executor.Describe(ctx)
			require.NoError(t, err, name)
			assert.Equal(t, "host", node.Hostname, name)
			assert.Equal(t, []api.PluginDescription{{Type: "Network", Name: "overlay"}}, node.Engine.Plugins, name)
		}
		for range 2 {
			adapter, err := engine.Adapter(nil, versionTask(), nil)
			require.NoError(t, err)
			for _, step := range []func(*ContainerAdapter, context.Context) error{
				(*ContainerAdapter).CreateNetworks, (*ContainerAdapter).CreateVolumes, (*ContainerAdapter).PullImage, (*ContainerAdapter).Create,
				(*ContainerAdapter).Start, (*ContainerAdapter).Shutdown, (*ContainerAdapter).Remove, (*ContainerAdapter).RemoveNetworks,
			} {
				require.NoError(t, step(adapter, ctx), name)
			}
		}
		var requests []string
		for _, line := range lines() {
			if _, request, found := strings.Cut(line, "warning: the engine, or a proxy in front of it, refuses "); found {
				request, _, _ = strings.Cut(request, ";")
				requests = append(requests, request)
			}
		}
		want := []string{"GET /_ping", "GET /plugins", "POST /volumes/create", "GET /containers/json"}
		if name == "unauthorized" {
			want = []string{"GET /plugins", "GET /containers/json"}
		}
		assert.Equal(t, want, requests, name)
	}
}

// Where the version cannot be asked for, the refusals of other requests tell it.
func TestAForbiddenPingLeavesTheVersionToTheRefusals(t *testing.T) {
	t.Parallel()
	engine := &rangedEngine{min: "1.12", max: "1.41"}
	proxy := &forbidding{RoundTripper: engine, status: http.StatusForbidden}
	proxy.forbid("* /_ping")
	e := NewEngine(proxy.client(t))
	for _, step := range []struct {
		min, max string
		want     []string
	}{
		{"1.12", "1.41", []string{"/v1.51", "/v1.41"}},
		{"1.44", "1.47", []string{"/v1.41", "/v1.51", "/v1.47"}},
		{"1.12", "1.47", []string{"/v1.47"}},
	} {
		engine.speaks(step.min, step.max)
		require.NoError(t, startOn(t, e))
		var want []string
		for _, version := range step.want {
			want = append(want, "POST "+version+startPath)
		}
		assert.Equal(t, want, engine.taken())
	}
}

// A proxy that forbids everything is no engine.
func TestWhatIsNeededStaysAnErrorThatNamesTheRequest(t *testing.T) {
	t.Parallel()
	proxy := &forbidding{RoundTripper: &rangedEngine{min: "1.12", max: "1.41"}, status: http.StatusForbidden, page: "no\n"}
	proxy.forbid("* /_ping", "* /info", "POST /start")
	e := NewEngine(proxy.client(t))
	_, err := e.Executor(nil).Describe(t.Context())
	require.ErrorContains(t, err, "describe the node: engine information (GET /info): ")
	assert.False(t, exec.IsTemporary(err))
	require.ErrorContains(t, startOn(t, e), "start container web.1.taskid: ")

	local := dockerexectest.New(t)
	local.FailNext("GET /info", dockerexectest.Refuse(http.StatusForbidden, "no"))
	adapter := adapterOf(t, NewEngine(local.Client(engineapi.WithHost("unix:///run/docker.sock"))), plainTask())
	_, err = adapter.fileEngine(t.Context(), []taskFile{{}})
	require.ErrorContains(t, err, "secrets and configs: engine information (GET /info): Error response from daemon: no")
}

// A description that changes closes the agent's session. While a request is refused, the
// description stays as it was.
func TestADescriptionDoesNotFlap(t *testing.T) {
	t.Parallel()
	for text, refusal := range map[string]dockerexectest.Fault{
		"no":                         dockerexectest.Refuse(http.StatusForbidden, "no"),
		"page not found":             dockerexectest.Refuse(http.StatusNotFound, "page not found"),
		"not here":                   dockerexectest.Refuse(http.StatusNotImplemented, "not here"),
		"the plugin store is broken": dockerexectest.Refuse(http.StatusInternalServerError, "the plugin store is broken"),
	} {
		t.Run(text, func(t *testing.T) {
			t.Parallel()
			engine := describedEngine(t)
			unlist := engine.FailAll("GET /plugins", dockerexectest.Answer(http.StatusOK, managedPlugins))
			ctx, lines := linesOf(t.Context())
			executor := NewExecutor(engine.Client(), nil)
			first, err := executor.Describe(ctx)
			require.NoError(t, err)
			for range 3 {
				engine.FailNext("GET /plugins", refusal)
				again, err := executor.Describe(ctx)
				require.NoError(t, err)
				assert.Equal(t, first, again)
			}
			assert.Equal(t, []string{
				"warning: the engine, or a proxy in front of it, refuses GET /plugins; the node is described with the managed plugins that are known error=Error response from daemon: " + text,
			}, lines())
			for range 3 {
				engine.FailNext("GET /info", refusal)
				again, err := executor.Describe(ctx)
				require.NoError(t, err)
				assert.Equal(t, first, again)
			}
			require.Len(t, lines(), 2)
			assert.Contains(t, lines()[1], "refuses GET /info; the node is described as it was before")

			// Answered again, what has changed is reported, and the next refusal is logged.
			unlist()
			changed, err := executor.Describe(ctx)
			require.NoError(t, err)
			assert.Less(t, len(changed.Engine.Plugins), len(first.Engine.Plugins))
			engine.FailNext("GET /plugins", refusal)
			again, err := executor.Describe(ctx)
			require.NoError(t, err)
			assert.Equal(t, changed, again)
			assert.Len(t, lines(), 3)
		})
	}
}

// A list of plugins that fails for a minute, while the engine answers otherwise, keeps
// the node no longer from being described.
func TestPluginsThatAreNeverListed(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]dockerexectest.Fault{
		"busy": dockerexectest.Refuse(http.StatusServiceUnavailable, "not now"), "cut off": dockerexectest.Drop(), "hanging": dockerexectest.Slow(time.Hour),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T) {
				engine := describedEngine(t)
				engine.FailAll("GET /plugins", fault)
				executor := NewExecutor(engine.Client(), nil, WithRequestTimeout(time.Second))
				for range 3 { // the agent asks every 20 seconds
					_, err := executor.Describe(t.Context())
					require.ErrorContains(t, err, "describe the node: plugins (GET /plugins): ")
					assert.True(t, exec.IsTemporary(err))
					time.Sleep(20 * time.Second)
				}
				ctx, lines := linesOf(t.Context())
				first, err := executor.Describe(ctx)
				require.NoError(t, err)
				again, err := executor.Describe(ctx)
				require.NoError(t, err)
				assert.Equal(t, first, again)
				assert.Equal(t, "engine-host", first.Hostname)
				assert.Len(t, lines(), 1)
			})
		})
	}
}

// The refusal of a CPU limit has the number of cores, too.
func TestACPULimitIsCappedWithoutEngineInformation(t *testing.T) {
	t.Parallel()
	task := plainTask()
	withLimits(api.Resources{NanoCPUs: 64e9})(task)
	for refusal, want := range map[string]string{
		"": "", // the engine's own
		"Range of CPUs is from here to there, as there are only some CPUs available": "create container web.1.taskid: its CPU limit is above the engine's cores; ask for their number (GET /info): Error response from daemon: no",
	} {
		engine, _ := onFakeEngine(t, dockerexectest.Exit(0))
		if refusal != "" {
			engine.FailNext(createRequest, dockerexectest.Refuse(http.StatusBadRequest, refusal))
		}
		engine.FailNext("GET /info", dockerexectest.Refuse(http.StatusForbidden, "no"))
		ctx, lines := linesOf(t.Context())
		err := adapterOn(t, engine, task).Create(ctx)
		if want != "" {
			require.EqualError(t, err, want)
			continue
		}
		require.NoError(t, err)
		assert.EqualValues(t, 2e9, engine.Container(taskName).Inspect().HostConfig.NanoCPUs)
		assert.Equal(t, 2, engine.Requests().Count(createRequest))
		require.Len(t, lines(), 2)
		assert.Contains(t, lines()[0], "refuses GET /info; the number of cores is taken from the engine's refusal of the CPU limit")
	}
}

// A volume that may not be created by itself is made with its container, and has the
// options of the task. Any other refusal is about the volume.
func TestAVolumeThatMayNotBeCreatedByItself(t *testing.T) {
	t.Parallel()
	for status, want := range map[int]string{
		http.StatusForbidden: "", http.StatusMethodNotAllowed: "", http.StatusNotImplemented: "",
		http.StatusBadRequest: "no", http.StatusUnauthorized: "no", http.StatusNotFound: "no", http.StatusConflict: "no", http.StatusInternalServerError: "no",
	} {
		bubble(t, func(t *testing.T) {
			engine := dockerexectest.New(t)
			engine.LocalImage("example/web:1", dockerexectest.Exit(0))
			stop := engine.FailAll("POST /volumes/create", dockerexectest.Refuse(status, "no"))
			adapter := adapterOf(t, NewEngine(engine.Client()), mountTask(map[string]string{"type": "tmpfs", "device": "tmpfs", "o": "size=1m"}))
			ctx, lines := linesOf(t.Context())
			err := adapter.CreateVolumes(ctx)
			if want != "" {
				require.ErrorContains(t, err, "create volume share with driver local: Error response from daemon: no", status)
				return
			}
			require.NoError(t, err, status)
			require.NoError(t, adapter.Create(ctx), status)
			made, err := engine.Client().VolumeInspect(ctx, "share")
			require.NoError(t, err)
			assert.Equal(t, map[string]string{"type": "tmpfs", "device": "tmpfs", "o": "size=1m"}, made.Options)
			require.NoError(t, adapter.CreateVolumes(ctx))
			require.Len(t, lines(), 1)
			stop()
			require.NoError(t, adapter.CreateVolumes(ctx))
			engine.FailNext("POST /volumes/create", dockerexectest.Refuse(status, "no"))
			require.NoError(t, adapter.CreateVolumes(ctx))
			require.Len(t, lines(), 2, "it was answered in between")
			assert.Contains(t, lines()[0], "refuses POST /volumes/create; the engine makes volumes when it creates the container")
		})
	}
}

// A network that cannot be looked at is used as it is, and not removed.
func TestANetworkThatMayNotBeLookedAt(t *testing.T) {
	t.Parallel()
	engine := dockerexectest.New(t)
	require.NoError(t, adapterOn(t, engine, backendTask()).CreateNetworks(t.Context()))
	engine.FailAll("GET /networks/*", dockerexectest.Refuse(http.StatusForbidden, "no"))
	engine.ForgetRequests()
	ctx, lines := linesOf(t.Context())
	adapter := adapterOn(t, engine, backendTask())
	require.NoError(t, adapter.CreateNetworks(ctx))
	require.NoError(t, adapter.RemoveNetworks(ctx))
	assert.Equal(t, []string{"POST /networks/create backend", "GET /networks/backend", "GET /networks/backend"}, asked(engine))
	assert.Equal(t, []string{"backend"}, engine.Networks())
	require.Len(t, lines(), 1)
	assert.Contains(t, lines()[0], "refuses GET /networks/…; networks that exist are used as they are, and not removed")
}

// If nobody may look whether the image is on the engine, the create tells.
func TestAnImageThatMayNotBeLookedAt(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		set  func(*dockerexectest.Engine)
		want string
	}{
		"it is on the engine": {func(e *dockerexectest.Engine) { e.LocalImage("example/web:1", dockerexectest.Exit(0)) }, ""},
		"it is not":           {func(*dockerexectest.Engine) {}, "pull image example/web:1, attempt 1 of 1: Error response from daemon: manifest unknown"},
		"another fault": {func(e *dockerexectest.Engine) {
			e.FailNext(createRequest, dockerexectest.Refuse(http.StatusNotFound, "no such volume driver"))
		}, "create container web.1.taskid: Error response from daemon: no such volume driver"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			engine := dockerexectest.New(t)
			test.set(engine)
			engine.FailAll(pullRequest, dockerexectest.Refuse(http.StatusNotFound, "manifest unknown"))
			engine.FailAll("GET /images/*/json", dockerexectest.Refuse(http.StatusForbidden, "no"))
			ctx, lines := linesOf(t.Context())
			err := controllerOn(t, engine, taskAt(plainTask(), api.TaskStateAccepted), WithPullAttempts(1)).Prepare(ctx)
			if test.want != "" {
				require.ErrorContains(t, err, test.want)
				assert.False(t, exec.IsTemporary(err))
			} else {
				require.NoError(t, err)
				require.Len(t, lines(), 2)
				assert.Contains(t, lines()[1], "pull failed, the image on the engine is used instead")
			}
			require.NotEmpty(t, lines())
			assert.Contains(t, lines()[0], "refuses GET /images/…; ")
		})
	}
}
