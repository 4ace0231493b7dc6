package dockerexec

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/versions"
	engineapi "github.com/docker/docker/client"
	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/moby/swarmkit/v2/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockerexec/dockerexec/dockerexectest"
)

func TestNoClientIsRefused(t *testing.T) {
	t.Parallel()
	_, err := NewEngine(nil).Adapter(nil, plainTask(), nil)
	require.EqualError(t, err, "dockerexec: the engine's client is nil")
	_, err = NewEngine((*engineapi.Client)(nil)).Adapter(nil, plainTask(), nil)
	require.EqualError(t, err, "dockerexec: the engine's client is nil")
	_, err = (*Engine)(nil).Adapter(nil, plainTask(), nil)
	require.EqualError(t, err, "dockerexec: the engine's client is nil")
}

func TestOptionsTakeTheLastAndIgnoreNil(t *testing.T) {
	t.Parallel()
	o := newOptions([]Option{nil, WithRequestTimeout(time.Hour), WithRequestTimeout(0), WithPullAttempts(2), WithPullAttempts(1), WithPullStallTimeout(0)})
	assert.Equal(t, time.Duration(0), o.requestTimeout)
	assert.Equal(t, 1, o.pullAttempts)
	assert.Equal(t, time.Duration(0), o.pullStallTimeout)

	o = newOptions([]Option{WithSecretsDir("/dev/shm/x"), WithSecretsDir("")})
	assert.Equal(t, 2*time.Minute, o.requestTimeout)
	assert.Equal(t, 3, o.pullAttempts)
	assert.Equal(t, 5*time.Minute, o.pullStallTimeout)
	assert.Equal(t, 10<<20, o.logRate)
	assert.Equal(t, "/run/dockerexec/secrets", o.secretsDir)
	assert.Equal(t, OrphansReport, o.orphanPolicy)
	assert.Equal(t, 5*time.Minute, o.orphanGrace)
}

// wrongOptions are values that cannot be, with the errors that name the options.
var wrongOptions = []struct {
	option Option
	want   string
}{
	{WithSecretsDir("relative"), `dockerexec: option WithSecretsDir: "relative" is not an absolute path`},
	{WithSecretsDir("./x"), `dockerexec: option WithSecretsDir: "./x" is not an absolute path`},
	{WithPullAttempts(-7), "dockerexec: option WithPullAttempts: -7 is less than 1; 1 means that a pull is not tried again"},
	{WithPullAttempts(0), "dockerexec: option WithPullAttempts: 0 is less than 1; 1 means that a pull is not tried again"},
	{WithPullStallTimeout(-time.Second), "dockerexec: option WithPullStallTimeout: -1s is negative; 0 means no limit"},
	{WithRequestTimeout(-time.Minute), "dockerexec: option WithRequestTimeout: -1m0s is negative; 0 means no limit"},
	{WithLogRate(-1), "dockerexec: option WithLogRate: -1 is negative; 0 means no limit"},
	{WithOrphans(-1, time.Minute), "dockerexec: option WithOrphans: there is no policy -1"},
	{WithOrphans(3, time.Minute), "dockerexec: option WithOrphans: there is no policy 3"},
	{WithOrphans(OrphansRemove, time.Second-1), "dockerexec: option WithOrphans: a grace of 999.999999ms is less than a second"},
	{WithOrphans(OrphansReport, 0), "dockerexec: option WithOrphans: a grace of 0s is less than a second"},
}

func TestAWrongOptionIsReportedByName(t *testing.T) {
	t.Parallel()
	for _, test := range wrongOptions {
		fake := dockerexectest.New(t)
		client := fake.Client()
		engine := NewEngine(client, test.option)
		_, err := engine.Adapter(nil, plainTask(), nil)
		require.EqualError(t, err, test.want)
		_, err = NewContainerAdapter(client, nil, plainTask(), nil, test.option)
		require.EqualError(t, err, test.want)
		_, err = engine.Executor(nil).Describe(t.Context())
		require.EqualError(t, err, test.want)
		_, err = engine.Controller(nil, plainTask(), nil)
		require.EqualError(t, err, test.want)
		_, err = NewExecutor(client, nil, test.option).Controller(taskAt(plainTask(), api.TaskStateAccepted))
		require.EqualError(t, err, test.want)
		assert.Empty(t, fake.Requests())
	}
	// Of several, the first one counts, also if the same option is right later.
	_, err := NewEngine(dockerexectest.New(t).Client(), WithLogRate(-1), WithPullAttempts(-7), WithLogRate(1)).Adapter(nil, plainTask(), nil)
	require.EqualError(t, err, "dockerexec: option WithLogRate: -1 is negative; 0 means no limit")
}

// An agent is restarted with a wrong option. Tasks that run are not lost for it.
func TestAWrongOptionFailsNoRunningTask(t *testing.T) {
	t.Parallel()
	for _, test := range wrongOptions {
		bubble(t, func(t *testing.T) {
			engine := webEngine(t, obedient)
			_, task, _ := runningWeb(t, engine)
			engine.ForgetRequests()
			ctlr, status, err := exec.Resolve(t.Context(), task, NewExecutor(engine.Client(), nil, test.option))
			require.NoError(t, err)
			require.Equal(t, api.TaskStateRunning, status.State)
			for _, make := range []func(context.Context) error{ctlr.Prepare, ctlr.Start} {
				err := make(t.Context())
				require.EqualError(t, err, test.want)
				assert.True(t, exec.IsTemporary(err))
			}
			assert.Empty(t, engine.Requests())
			wait := asynchronously(func() error { return ctlr.Wait(t.Context()) })
			synctest.Wait()
			require.NoError(t, ctlr.Shutdown(t.Context()))
			require.EqualError(t, wait(), "task: non-zero exit (143)")
			require.NoError(t, ctlr.Remove(t.Context()))
			assert.Empty(t, leftOn(engine))
		})
	}
}

// A fresh task of the same agent is refused before it makes anything, and tried again.
func TestAWrongOptionIsTriedAgainInPreparing(t *testing.T) {
	t.Parallel()
	engine := dockerexectest.New(t)
	ctlr, err := NewEngine(engine.Client(), WithPullAttempts(-7)).Controller(nil, taskAt(plainTask(), api.TaskStatePreparing), nil)
	require.NoError(t, err)
	err = ctlr.Prepare(t.Context())
	require.EqualError(t, err, "dockerexec: option WithPullAttempts: -7 is less than 1; 1 means that a pull is not tried again")
	assert.True(t, exec.IsTemporary(err))
	assert.Empty(t, engine.Requests())
}

// wrappedClient is a real client inside another type.
type wrappedClient struct{ engineapi.APIClient }

func TestAWrappedClientIsAsked(t *testing.T) {
	t.Parallel()
	old := &oldEngine{version: "1.41"}
	engine := NewEngine(wrappedClient{old.client(t)}, WithWrappedClient())
	require.NoError(t, startOn(t, engine))
	require.NoError(t, startOn(t, engine))
	assert.Equal(t, []string{"/_ping", "/v1.41" + startPath, "/v1.41" + startPath}, old.paths)

	// Without the option it counts as a fake of the newest version.
	old = &oldEngine{version: "1.41"}
	require.NoError(t, startOn(t, NewEngine(wrappedClient{old.client(t)})))
	assert.Equal(t, []string{"/v1.51" + startPath}, old.paths)
}

func startOn(t *testing.T, engine *Engine) error {
	t.Helper()
	adapter, err := engine.Adapter(nil, plainTask(), nil)
	require.NoError(t, err)
	return adapter.Start(t.Context())
}

const startPath = "/containers/web.1.taskid/start"

func TestVersionIsAgreedBeforeTheFirstRequest(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name string
		opts []engineapi.Opt
		want string
	}{
		{"a client made without negotiation, as swarmd makes it", nil, "/v1.41"},
		{"a client that would negotiate itself", []engineapi.Opt{engineapi.WithAPIVersionNegotiation()}, "/v1.41"},
		{"a version that the user has fixed", []engineapi.Opt{engineapi.WithVersion("1.40")}, "/v1.40"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			old := &oldEngine{version: "1.41"}
			engine := NewEngine(old.client(t, test.opts...))
			require.NoError(t, startOn(t, engine))
			require.NoError(t, startOn(t, engine))
			assert.Equal(t, []string{"/_ping", test.want + startPath, test.want + startPath}, old.paths)
		})
	}
}

func TestAFailedPingIsTriedAgain(t *testing.T) {
	t.Parallel()
	old := &oldEngine{version: "1.41", pingFail: 1}
	engine := NewEngine(old.client(t))
	err := startOn(t, engine)
	require.ErrorContains(t, err, "ping the engine at tcp://engine:1")
	assert.True(t, exec.IsTemporary(err))
	require.NoError(t, startOn(t, engine))
	assert.Equal(t, "/v1.41"+startPath, old.paths[len(old.paths)-1])
}

func TestAPingWithoutAVersionIsNotTakenForAnEngine(t *testing.T) {
	t.Parallel()
	old := &oldEngine{}
	err := startOn(t, NewEngine(old.client(t)))
	require.EqualError(t, err, "ping the engine at tcp://engine:1: its answer names no API version")
	assert.True(t, exec.IsTemporary(err))
}

func TestManyFirstRequestsPingOnce(t *testing.T) {
	t.Parallel()
	old := &oldEngine{version: "1.41"}
	engine := NewEngine(old.client(t))
	var all sync.WaitGroup
	for range 50 {
		all.Go(func() { assert.NoError(t, startOn(t, engine)) })
	}
	all.Wait()
	pings := 0
	for _, path := range old.paths {
		if path == "/_ping" {
			pings++
			continue
		}
		assert.Equal(t, "/v1.41"+startPath, path)
	}
	assert.Equal(t, 1, pings)
	assert.Len(t, old.paths, 51)
}

// Under the race detector: the second Engine's negotiation must not write what
// the first one's requests read.
func TestTwoEnginesOfOneClient(t *testing.T) {
	t.Parallel()
	old := &oldEngine{version: "1.41"}
	client := old.client(t)
	var all sync.WaitGroup
	for range 10 {
		engine := NewEngine(client)
		for range 5 {
			all.Go(func() { assert.NoError(t, startOn(t, engine)) })
		}
	}
	all.Wait()
	assert.Len(t, old.paths, 60)
}

func TestAPingThatIsNeverAnsweredIsBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		old := &oldEngine{hang: true}
		engine := NewEngine(old.client(t), WithRequestTimeout(time.Minute))
		begin := time.Now()
		err := startOn(t, engine)
		require.Error(t, err)
		assert.True(t, exec.IsTemporary(err), err)
		assert.Equal(t, time.Minute, time.Since(begin))
	})
}

// Calls that wait for another one's ping do not take their time-outs one after the
// other.
func TestCallsBehindAPingThatIsNeverAnsweredAreBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		engine := NewEngine((&oldEngine{hang: true}).client(t), WithRequestTimeout(time.Minute))
		begin := time.Now()
		var all sync.WaitGroup
		for n := range 100 {
			all.Go(func() {
				time.Sleep(time.Duration(n) * time.Millisecond)
				began := time.Now()
				err := startOn(t, engine)
				require.EqualError(t, err, "ping the engine at tcp://engine:1: the engine did not answer within 1m0s")
				assert.True(t, exec.IsTemporary(err))
				assert.Equal(t, time.Minute, time.Since(began))
			})
		}
		all.Wait()
		assert.Equal(t, time.Minute+99*time.Millisecond, time.Since(begin))
	})
}

func TestWaitingForAPingObeysTheContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		engine := NewEngine((&oldEngine{hang: true}).client(t))
		adapter, err := engine.Adapter(nil, plainTask(), nil)
		require.NoError(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		var all sync.WaitGroup
		for range 2 { // one pings, one waits at the gate
			all.Go(func() { assert.Equal(t, context.DeadlineExceeded, adapter.Start(ctx)) })
		}
		all.Wait()
	})
}

func TestAtLeast(t *testing.T) {
	t.Parallel()
	assert.True(t, atLeast("", "1.44"))
	assert.True(t, atLeast("1.44", "1.44"))
	assert.True(t, atLeast("1.51", "1.44"))
	assert.False(t, atLeast("1.41", "1.44"))
	assert.False(t, atLeast("1.9", "1.44"))
}

// notFoundTransport is a proxy that has no engine to ask.
type notFoundTransport struct{}

func (notFoundTransport) RoundTrip(request *http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: http.StatusNotFound, Header: http.Header{}, Request: request,
		Body: io.NopCloser(strings.NewReader("404 page not found"))}, nil
}

// What is answered to the ping is no word on the container or the network that is
// asked for after it, which nobody has removed.
func TestNothingIsGoneForAPingThatIsNotFound(t *testing.T) {
	t.Parallel()
	client, err := engineapi.NewClientWithOpts(engineapi.WithHost("http://engine"), engineapi.WithHTTPClient(&http.Client{Transport: notFoundTransport{}}))
	require.NoError(t, err)
	task := plainTask()
	attach(task, "n", "10.1.0.0/24")
	for name, call := range map[string]func(*ContainerAdapter, context.Context) error{
		"Shutdown":       (*ContainerAdapter).Shutdown,
		"Terminate":      (*ContainerAdapter).Terminate,
		"Remove":         (*ContainerAdapter).Remove,
		"CreateNetworks": (*ContainerAdapter).CreateNetworks,
		"RemoveNetworks": (*ContainerAdapter).RemoveNetworks,
	} {
		adapter, err := NewEngine(client).Adapter(nil, task, nil)
		require.NoError(t, err)
		err = call(adapter, t.Context())
		require.ErrorContains(t, err, "ping the engine at http://engine: ", name)
		assert.True(t, exec.IsTemporary(err), name)
		assert.False(t, cerrdefs.IsNotFound(err), name)
	}
}

// rangedEngine speaks the API versions from min to max, and refuses others as Docker
// does. It is upgraded by moving that range. It knows a running container of any name.
type rangedEngine struct {
	mu       sync.Mutex
	min, max string
	requests []string // all but pings
	pings    int
	// before may take over a request before it is answered; nil: it is answered.
	before func(*http.Request) (*http.Response, error)
}

func (e *rangedEngine) speaks(least, most string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.min, e.max = least, most
}

// taken returns the requests since the last call.
func (e *rangedEngine) taken() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	taken := e.requests
	e.requests = nil
	return taken
}

func (e *rangedEngine) RoundTrip(r *http.Request) (*http.Response, error) {
	e.mu.Lock()
	least, most := e.min, e.max
	_, version, _ := strings.Cut(r.URL.Path, "/v")
	version, path, versioned := strings.Cut(version, "/")
	if versioned {
		e.requests = append(e.requests, r.Method+" "+r.URL.Path)
	} else {
		e.pings++
	}
	e.mu.Unlock()
	answer := &http.Response{StatusCode: http.StatusOK, Request: r, Body: http.NoBody,
		Header: http.Header{"Api-Version": {most}, "Content-Type": {"application/json"}}}
	says := func(status int, text string) (*http.Response, error) {
		answer.StatusCode, answer.Body = status, io.NopCloser(strings.NewReader(text))
		return answer, nil
	}
	switch {
	case !versioned:
		return answer, nil
	case versions.LessThan(version, least):
		return says(http.StatusBadRequest, fmt.Sprintf(`{"message": "client version %s is too old. Minimum supported API version is %s, please upgrade your client to a newer version"}`, version, least))
	case versions.GreaterThan(version, most):
		return says(http.StatusBadRequest, fmt.Sprintf(`{"message": "client version %s is too new. Maximum supported API version is %s"}`, version, most))
	}
	if e.before != nil {
		if taken, err := e.before(r); taken != nil || err != nil {
			return taken, err
		}
	}
	switch {
	case path == "events":
		answer.Body = silentBody{r.Context()}
		return answer, nil
	case path == "containers/json":
		return says(http.StatusOK, `[]`)
	case strings.HasSuffix(path, "/json"):
		return says(http.StatusOK, `{"Id": "c1", "Config": {}, "State": {"Status": "running", "Running": true}}`)
	case strings.HasSuffix(path, "/create") && strings.HasPrefix(path, "images"):
		return says(http.StatusOK, `{"status": "Status: Image is up to date"}`)
	case path == "containers/create":
		return says(http.StatusCreated, `{"Id": "c1"}`)
	case strings.HasSuffix(path, "/create"):
		return says(http.StatusCreated, `{"Id": "x1"}`)
	case strings.HasSuffix(path, "/logs"):
		return says(http.StatusOK, "\x01\x00\x00\x00\x00\x00\x00\x242026-01-02T03:04:05.000000006Z line\n")
	case path == "info":
		return says(http.StatusOK, `{"Name": "host", "NCPU": 2}`)
	case path == "plugins":
		return says(http.StatusOK, `[]`)
	}
	return says(http.StatusNoContent, "")
}

func (e *rangedEngine) client(t testing.TB, opts ...engineapi.Opt) *engineapi.Client {
	t.Helper()
	opts = append([]engineapi.Opt{engineapi.WithHost("tcp://engine:1"), engineapi.WithHTTPClient(&http.Client{Transport: e})}, opts...)
	client, err := engineapi.NewClientWithOpts(opts...)
	require.NoError(t, err)
	return client
}

// versionTask uses each kind of request.
func versionTask() *api.Task {
	task := plainTask()
	attach(task, "backend", "10.1.0.0/24")
	spec(task).Mounts = []api.Mount{{Type: api.MountTypeVolume, Source: "data", Target: "/data",
		VolumeOptions: &api.Mount_VolumeOptions{DriverConfig: &api.Driver{Name: "local"}}}}
	return task
}

// versionCalls are the operations of an adapter that make requests.
var versionCalls = map[string]func(*ContainerAdapter, context.Context) error{
	"PullImage":      (*ContainerAdapter).PullImage,
	"CreateNetworks": (*ContainerAdapter).CreateNetworks,
	"CreateVolumes":  (*ContainerAdapter).CreateVolumes,
	"Create":         (*ContainerAdapter).Create,
	"Start":          (*ContainerAdapter).Start,
	"Shutdown":       (*ContainerAdapter).Shutdown,
	"Terminate":      (*ContainerAdapter).Terminate,
	"Remove":         (*ContainerAdapter).Remove,
	"Inspect": func(a *ContainerAdapter, ctx context.Context) error {
		_, err := a.Inspect(ctx)
		return err
	},
	"Logs": func(a *ContainerAdapter, ctx context.Context) error {
		body, err := a.Logs(ctx, api.LogSubscriptionOptions{})
		if err != nil {
			return err
		}
		_, err = io.ReadAll(body)
		body.Close()
		return err
	},
	"PublishLogs": func(a *ContainerAdapter, ctx context.Context) error {
		return a.PublishLogs(ctx, api.LogSubscriptionOptions{}, exec.LogPublisherFunc(func(context.Context, api.LogMessage) error { return nil }))
	},
	"Describe": func(a *ContainerAdapter, ctx context.Context) error {
		_, err := a.engine.Executor(nil).Describe(ctx)
		return err
	},
}

// The ranges that an engine moves through, with the version that each call ends up with.
var upgrades = []struct {
	name             string
	min, max, agreed string
	newMin, newMax   string
	again            string
}{
	{"24 to 29", "1.12", "1.43", "1.43", "1.44", "1.54", "1.51"},
	{"28 to 20.10", "1.24", "1.51", "1.51", "1.12", "1.41", "1.41"},
	{"20.10 to one that speaks a single version", "1.12", "1.41", "1.41", "1.48", "1.48", "1.48"},
	{"29 to 25", "1.44", "1.54", "1.51", "1.24", "1.44", "1.44"},
}

func TestAnEngineOfAnotherVersionIsAgreedWithAgain(t *testing.T) {
	t.Parallel()
	for _, test := range upgrades {
		for name, call := range versionCalls {
			engine := &rangedEngine{min: test.min, max: test.max}
			adapter, err := NewEngine(engine.client(t)).Adapter(nil, versionTask(), nil)
			require.NoError(t, err)
			require.NoError(t, call(adapter, t.Context()), "%s, %s", test.name, name)
			for _, request := range engine.taken() {
				assert.Contains(t, request, "/v"+test.agreed+"/", "%s, %s", test.name, name)
			}

			engine.speaks(test.newMin, test.newMax)
			require.NoError(t, call(adapter, t.Context()), "%s, %s", test.name, name)
			requests := engine.taken()
			require.GreaterOrEqual(t, len(requests), 2, "%s, %s", test.name, name)
			assert.Contains(t, requests[0], "/v"+test.agreed+"/", "%s, %s", test.name, name)
			for _, request := range requests[1:] {
				assert.Contains(t, request, "/v"+test.again+"/", "%s, %s", test.name, name)
			}
			assert.Equal(t, 2, engine.pings, "%s, %s", test.name, name)
		}
	}
}

// RemoveNetworks asks only for what CreateNetworks has made.
func TestNetworksAreRemovedFromAnUpgradedEngine(t *testing.T) {
	t.Parallel()
	engine := &rangedEngine{min: "1.12", max: "1.43"}
	adapter, err := NewEngine(engine.client(t)).Adapter(nil, versionTask(), nil)
	require.NoError(t, err)
	require.NoError(t, adapter.CreateNetworks(t.Context()))
	engine.taken()
	engine.speaks("1.44", "1.51")
	require.NoError(t, adapter.RemoveNetworks(t.Context()))
	assert.Equal(t, []string{"GET /v1.43/containers/json", "GET /v1.51/containers/json", "DELETE /v1.51/networks/x1"}, engine.taken())
}

// A version that was raised is no longer moved by pings. It moves all the same, and also
// for an Engine that is made later.
func TestAnEngineThatMovesAgainAndAgain(t *testing.T) {
	t.Parallel()
	engine := &rangedEngine{min: "1.12", max: "1.41"}
	client := engine.client(t)
	first := NewEngine(client)
	ctx, lines := linesOf(t.Context())
	for _, step := range []struct{ min, max, agreed string }{
		{"1.12", "1.41", "1.41"}, {"1.44", "1.54", "1.51"}, {"1.12", "1.41", "1.41"}, {"1.24", "1.48", "1.41"}, {"1.44", "1.48", "1.48"},
	} {
		engine.speaks(step.min, step.max)
		for _, e := range []*Engine{first, NewEngine(client), first} {
			adapter, err := e.Adapter(nil, plainTask(), nil)
			require.NoError(t, err)
			require.NoError(t, adapter.Start(ctx))
			requests := engine.taken()
			assert.Equal(t, "POST /v"+step.agreed+startPath, requests[len(requests)-1])
		}
	}
	assert.Equal(t, []string{
		"info: API version 1.51 agreed on with the engine, in place of 1.41",
		"info: API version 1.41 agreed on with the engine, in place of 1.51",
		"info: API version 1.48 agreed on with the engine, in place of 1.41",
	}, lines())
}

func TestNoVersionToAgreeOnIsAPassingFault(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, min, max, newMin, newMax string
		opts                           []engineapi.Opt
		want                           string
	}{
		{"fixed, and too old", "1.12", "1.43", "1.44", "1.54", []engineapi.Opt{engineapi.WithVersion("1.43")},
			"warning: the engine refuses API version 1.43, and no other version can be agreed on: the client was made with a fixed version; the calls are tried again error=Error response from daemon: client version 1.43 is too old. Minimum supported API version is 1.44, please upgrade your client to a newer version"},
		{"fixed, and too new", "1.24", "1.51", "1.12", "1.41", []engineapi.Opt{engineapi.WithVersion("1.51")},
			"warning: the engine refuses API version 1.51, and no other version can be agreed on: the client was made with a fixed version; the calls are tried again error=Error response from daemon: client version 1.51 is too new. Maximum supported API version is 1.41"},
		{"none in common", "1.24", "1.51", "1.60", "1.70", nil,
			"warning: the engine refuses API version 1.51, and no other version can be agreed on: the client speaks no version above 1.51; the calls are tried again error=Error response from daemon: client version 1.51 is too old. Minimum supported API version is 1.60, please upgrade your client to a newer version"},
	} {
		bubble(t, func(t *testing.T) {
			engine := &rangedEngine{min: test.min, max: test.max}
			client := engine.client(t, test.opts...)
			ctx, lines := linesOf(t.Context())
			adapters := []*ContainerAdapter{}
			for range 2 {
				adapter, err := NewEngine(client, WithPullAttempts(1)).Adapter(nil, versionTask(), nil)
				require.NoError(t, err)
				require.NoError(t, adapter.Start(t.Context()))
				adapters = append(adapters, adapter)
			}
			before := client.ClientVersion()
			engine.speaks(test.newMin, test.newMax)
			for name, call := range versionCalls {
				for _, adapter := range adapters {
					err := call(adapter, ctx)
					require.Error(t, err, name)
					assert.True(t, exec.IsTemporary(err), "%s, %s: %v", test.name, name, err)
				}
			}
			if test.opts != nil { // a version that is known to be fixed is not asked about again
				assert.Equal(t, 3, engine.pings, test.name)
			}
			require.Len(t, lines(), 1, test.name)
			assert.True(t, strings.HasPrefix(lines()[0], test.want), lines()[0])
			assert.Equal(t, before, client.ClientVersion())

			// Once there is one again, the calls succeed.
			engine.speaks(test.min, test.max)
			for _, adapter := range adapters {
				require.NoError(t, adapter.Start(ctx))
			}
		})
	}
}

// The interface has no way to raise a version.
func TestAWrappedClientIsOnlyLowered(t *testing.T) {
	t.Parallel()
	engine := &rangedEngine{min: "1.24", max: "1.51"}
	wrapped := wrappedClient{engine.client(t)}
	first, second := NewEngine(wrapped, WithWrappedClient()), NewEngine(wrapped, WithWrappedClient())
	require.NoError(t, startOn(t, first))
	require.NoError(t, startOn(t, second))
	engine.speaks("1.12", "1.41")
	engine.taken()
	require.NoError(t, startOn(t, first))
	require.NoError(t, startOn(t, second))
	assert.Equal(t, []string{"POST /v1.51" + startPath, "POST /v1.41" + startPath, "POST /v1.41" + startPath}, engine.taken())

	engine.speaks("1.44", "1.54")
	ctx, lines := linesOf(t.Context())
	adapter, err := first.Adapter(nil, plainTask(), nil)
	require.NoError(t, err)
	for range 2 {
		err = adapter.Start(ctx)
		require.ErrorContains(t, err, "client version 1.41 is too old")
		assert.True(t, exec.IsTemporary(err))
	}
	assert.Equal(t, "1.41", wrapped.ClientVersion())
	require.Len(t, lines(), 1)
	assert.Contains(t, lines()[0], "no other version can be agreed on: only a *client.Client can go to a newer one; ")
}

// A task of a running container, upgraded under its controller.
func TestAControllerOutlivesAnUpgrade(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		engine := &rangedEngine{min: "1.12", max: "1.43"}
		var streams []context.CancelFunc
		var ended bool
		engine.before = func(r *http.Request) (*http.Response, error) {
			switch {
			case strings.HasSuffix(r.URL.Path, "/events"):
				ctx, cancel := context.WithCancel(r.Context())
				streams = append(streams, cancel)
				return &http.Response{StatusCode: http.StatusOK, Request: r, Body: silentBody{ctx}}, nil
			case strings.HasSuffix(r.URL.Path, "/stop"):
				ended = true
			case strings.HasSuffix(r.URL.Path, "/json") && ended:
				return &http.Response{StatusCode: http.StatusOK, Request: r, Body: io.NopCloser(strings.NewReader(
					`{"Id": "c1", "Config": {"Labels": {"com.docker.swarm.task.id": "taskid"}}, "State": {"Status": "exited", "ExitCode": 3, "FinishedAt": "2026-01-02T03:04:05Z"}}`))}, nil
			}
			return nil, nil
		}
		ctlr, err := NewEngine(engine.client(t)).Controller(nil, taskAt(plainTask(), api.TaskStateRunning), nil)
		require.NoError(t, err)
		defer ctlr.Close()
		wait := asynchronously(func() error { return ctlr.Wait(t.Context()) })
		settled()
		engine.taken()

		engine.speaks("1.44", "1.54")
		streams[0]()
		time.Sleep(10 * time.Second)
		assert.Equal(t, []string{"GET /v1.43/events", "GET /v1.51/events"}, engine.taken()[:2])
		require.NoError(t, ctlr.Shutdown(t.Context()))
		time.Sleep(10 * time.Minute) // by the inspects that need no hint
		require.EqualError(t, wait(), "task: non-zero exit (3)")
		require.NoError(t, ctlr.Remove(t.Context()))
	})
}

// hanging has requests of a path wait for released, or for their contexts.
func hanging(suffix string, released <-chan struct{}, obedient bool) func(*http.Request) (*http.Response, error) {
	return func(r *http.Request) (*http.Response, error) {
		if !strings.HasSuffix(r.URL.Path, suffix) {
			return nil, nil
		}
		done := r.Context().Done()
		if !obedient {
			done = nil
		}
		select {
		case <-released:
			return nil, nil
		case <-done:
			return nil, r.Context().Err()
		}
	}
}

// Requests under way read the client's version. They have five seconds to end.
func TestRequestsUnderWayMakeRoomForAnotherVersion(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name     string
		released time.Duration // after the upgrade
		obedient bool
		want     string        // the error of the request under way
		took     time.Duration // of the request that was refused
		version  string
	}{
		{"one that ends in time", 4 * time.Second, true, "", 4 * time.Second, "1.51"},
		{"one that does not", time.Hour, true, "stop container web.1.taskid: cut short, because the client changes to another API version", 5 * time.Second, "1.51"},
		{"one that ends once it is cut", 7 * time.Second, false, "", 7 * time.Second, "1.51"},
	} {
		bubble(t, func(t *testing.T) {
			released := make(chan struct{})
			engine := &rangedEngine{min: "1.12", max: "1.43", before: hanging("/stop", released, test.obedient)} //nolint:bodyclose // it returns a function
			e := NewEngine(engine.client(t))
			adapter, err := e.Adapter(nil, plainTask(), nil)
			require.NoError(t, err)
			stop := asynchronously(func() error { return adapter.Shutdown(t.Context()) })
			body, err := adapter.Logs(t.Context(), api.LogSubscriptionOptions{})
			require.NoError(t, err)
			synctest.Wait()
			engine.speaks("1.44", "1.54")
			began := time.Now()
			time.AfterFunc(test.released, func() { close(released) })
			var held sync.WaitGroup
			for range 3 { // one finds the refusal, the others are held
				held.Go(func() {
					_, err := adapter.Inspect(t.Context())
					assert.NoError(t, err, test.name)
				})
			}
			held.Wait()
			assert.Equal(t, test.took, time.Since(began), test.name)
			err = stop()
			if test.want == "" {
				require.NoError(t, err, test.name)
			} else {
				require.EqualError(t, err, test.want)
				assert.True(t, exec.IsTemporary(err))
			}
			// A stream that was open before is read to its end.
			text, err := io.ReadAll(body)
			require.NoError(t, err)
			assert.Contains(t, string(text), "line")
			require.NoError(t, body.Close())
		})
	}
}

// A transport that ignores contexts keeps the version as it is. Nothing waits for it
// longer than ten seconds, and the version changes once it has returned.
func TestARequestThatDoesNotEndKeepsTheVersion(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		released := make(chan struct{})
		engine := &rangedEngine{min: "1.12", max: "1.43", before: hanging("/stop", released, false)} //nolint:bodyclose // it returns a function
		e := NewEngine(engine.client(t))
		adapter, err := e.Adapter(nil, plainTask(), nil)
		require.NoError(t, err)
		stop := asynchronously(func() error { return adapter.Shutdown(t.Context()) })
		synctest.Wait()
		engine.speaks("1.44", "1.54")
		began := time.Now()
		err = adapter.Start(t.Context())
		require.ErrorContains(t, err, "start container web.1.taskid: Error response from daemon: client version 1.43 is too old")
		assert.True(t, exec.IsTemporary(err))
		assert.Equal(t, 10*time.Second, time.Since(began))
		close(released)
		require.NoError(t, stop())
		require.NoError(t, adapter.Start(t.Context()))
	})
}

// While the version is changed, a call obeys its context and the request time-out.
func TestACallThatIsHeldObeysItsLimits(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		engine := &rangedEngine{min: "1.12", max: "1.43", before: hanging("/stop", nil, true)} //nolint:bodyclose // it returns a function
		client := engine.client(t)
		adapter, err := NewEngine(client).Adapter(nil, plainTask(), nil)
		require.NoError(t, err)
		hurried, err := NewEngine(client, WithRequestTimeout(time.Second)).Adapter(nil, plainTask(), nil)
		require.NoError(t, err)
		require.NoError(t, hurried.Start(t.Context()))
		stop := asynchronously(func() error { return adapter.Shutdown(t.Context()) })
		synctest.Wait()
		engine.speaks("1.44", "1.54")
		start := asynchronously(func() error { return adapter.Start(t.Context()) })
		synctest.Wait()
		began := time.Now()
		err = hurried.Start(t.Context())
		require.EqualError(t, err, "inspect container web.1.taskid: the engine did not answer within 1s") // it has started it before
		assert.Equal(t, time.Second, time.Since(began))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		assert.Equal(t, context.DeadlineExceeded, adapter.Start(ctx))
		require.NoError(t, start())
		require.Error(t, stop())
	})
}

// For the race detector: the client's version is read by each request.
func TestManyCallsWhileTheEngineMoves(t *testing.T) {
	t.Parallel()
	engine := &rangedEngine{min: "1.12", max: "1.43"}
	client := engine.client(t)
	moved := make(chan struct{})
	go func() {
		defer close(moved)
		for range 20 {
			engine.speaks("1.44", "1.54")
			runtime.Gosched()
			engine.speaks("1.12", "1.43")
			time.Sleep(time.Millisecond)
		}
	}()
	var all sync.WaitGroup
	for range 8 {
		e := NewEngine(client, WithPullAttempts(1))
		adapter, err := e.Adapter(nil, versionTask(), nil)
		require.NoError(t, err)
		for _, call := range versionCalls {
			all.Go(func() {
				for range 5 {
					err := call(adapter, t.Context())
					if err != nil && err != exec.ErrTaskStarted { // a Start sees that, if a Create comes in between
						assert.True(t, exec.IsTemporary(err), err)
					}
				}
			})
		}
		all.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			defer cancel()
			_, err := adapter.Wait(ctx)
			assert.Equal(t, context.DeadlineExceeded, err)
		})
	}
	all.Wait()
	<-moved
	adapter, err := NewEngine(client).Adapter(nil, plainTask(), nil)
	require.NoError(t, err)
	require.NoError(t, adapter.Start(t.Context()))
}

// What belongs to a client goes with it.
func TestTheVersionOfAClientIsForgotten(t *testing.T) {
	t.Parallel()
	table := versionsByClient{byClient: map[any]*clientVersion{}, engines: map[any]int{}}
	func() {
		engine := &rangedEngine{min: "1.12", max: "1.43"}
		client := engine.client(t)
		wrapped := wrappedClient{engine.client(t)}
		a, b := &Engine{given: client}, &Engine{given: client}
		c, d := &Engine{given: wrapped}, &Engine{given: wrapped}
		assert.Same(t, table.of(a), table.of(b))
		assert.Same(t, table.of(c), table.of(d))
		assert.NotSame(t, table.of(a), table.of(c))
		assert.Len(t, table.byClient, 2)
		runtime.KeepAlive([]*Engine{a, b, c, d})
	}()
	require.Eventually(t, func() bool {
		runtime.GC()
		table.mu.Lock()
		defer table.mu.Unlock()
		return len(table.byClient) == 0 && len(table.engines) == 0
	}, 10*time.Second, time.Millisecond)
}

// A create is translated for the version that it is sent with.
func TestACreateIsTranslatedForTheNewVersion(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		max, newMin, newMax string
		want                []string
	}{
		{"1.43", "1.44", "1.54", []string{"POST /v1.43/containers/create", "POST /v1.51/containers/create"}},
		{"1.51", "1.12", "1.41", []string{"POST /v1.51/containers/create", "POST /v1.41/containers/create", "POST /v1.41/networks/front/connect"}},
	} {
		task := plainTask()
		attach(task, "back", "10.1.0.0/24")
		attach(task, "front", "10.2.0.0/24")
		engine := &rangedEngine{min: "1.12", max: test.max}
		e := NewEngine(engine.client(t))
		require.NoError(t, startOn(t, e))
		adapter, err := e.Adapter(nil, task, nil)
		require.NoError(t, err)
		engine.taken()
		engine.speaks(test.newMin, test.newMax)
		require.NoError(t, adapter.Create(t.Context()))
		assert.Equal(t, test.want, engine.taken())
	}
}

// A version that lacks a field of the task refuses the task, also in the middle of a
// create.
func TestATaskThatTheNewVersionLacksIsRefused(t *testing.T) {
	t.Parallel()
	task := plainTask()
	spec(task).Mounts = []api.Mount{{Type: api.MountTypeVolume, Source: "data", Target: "/data",
		VolumeOptions: &api.Mount_VolumeOptions{Subpath: "a"}}}
	engine := &rangedEngine{min: "1.12", max: "1.51"}
	e := NewEngine(engine.client(t))
	require.NoError(t, startOn(t, e))
	adapter, err := e.Adapter(nil, task, nil)
	require.NoError(t, err)
	engine.speaks("1.12", "1.41")
	err = adapter.Create(t.Context())
	var refusal *FieldError
	require.ErrorAs(t, err, &refusal)
	assert.Equal(t, "Spec.Container.Mounts[0].VolumeOptions.Subpath", refusal.Path)
}

// What Podman does otherwise than Docker, and is made up for.
func TestOnPodman(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]func(t *testing.T, engine *dockerexectest.Engine, adapter func(change func(*api.Task)) *ContainerAdapter){
		"an end is seen by its event": func(t *testing.T, _ *dockerexectest.Engine, adapter func(func(*api.Task)) *ContainerAdapter) {
			a := adapter(nil)
			messages, _, err := a.Events(t.Context())
			require.NoError(t, err)
			require.NoError(t, a.Create(t.Context()))
			require.NoError(t, a.Start(t.Context()))
			time.AfterFunc(time.Minute, func() { assert.NoError(t, a.Terminate(t.Context())) })
			began := time.Now()
			answer, err := a.Wait(t.Context())
			require.NoError(t, err)
			assert.Equal(t, container.StateExited, answer.State.Status)
			assert.Equal(t, 137, answer.State.ExitCode)
			assert.Less(t, time.Since(began), time.Minute+time.Second)
			require.NoError(t, a.Remove(t.Context()))
			settled()
			assert.Equal(t, []string{"create", "start", "kill", "die", "destroy"}, read(messages))
		},
		"a stop without a grace period sends the signal, and waits": func(t *testing.T, _ *dockerexectest.Engine, adapter func(func(*api.Task)) *ContainerAdapter) {
			require.NoError(t, adapter(nil).Create(t.Context()))
			require.NoError(t, adapter(nil).Start(t.Context()))
			settled()
			began := time.Now()
			require.NoError(t, adapter(nil).Shutdown(t.Context()))
			assert.GreaterOrEqual(t, time.Since(began), 3*time.Second)
			answer, err := adapter(nil).Inspect(t.Context())
			require.NoError(t, err)
			assert.Equal(t, 0, answer.State.ExitCode)
		},
		"a network stays that a container of another process needs": func(t *testing.T, engine *dockerexectest.Engine, adapter func(func(*api.Task)) *ContainerAdapter) {
			onBackend := func(id string) *ContainerAdapter {
				return adapter(func(task *api.Task) {
					task.ID = id
					attach(task, "backend", "10.1.0.0/24")
				})
			}
			for _, a := range []*ContainerAdapter{onBackend("runs"), onBackend("paused")} {
				require.NoError(t, a.CreateNetworks(t.Context()))
				require.NoError(t, a.Create(t.Context()))
				require.NoError(t, a.Start(t.Context()))
			}
			require.NoError(t, engine.Client().ContainerPause(t.Context(), onBackend("paused").ContainerName()))
			for _, id := range []string{"paused", "runs"} {
				require.NoError(t, onBackend("third").RemoveNetworks(t.Context()))
				require.NoError(t, onBackend(id).RemoveNetworks(t.Context()), "its own container runs")
				assert.Contains(t, engine.Networks(), "backend", id)
				require.NoError(t, onBackend(id).Remove(t.Context()))
			}
			require.NoError(t, onBackend("third").RemoveNetworks(t.Context()))
			assert.NotContains(t, engine.Networks(), "backend")
		},
		"the files of secrets are found by another process": func(t *testing.T, _ *dockerexectest.Engine, adapter func(func(*api.Task)) *ContainerAdapter) {
			withSecret := func(task *api.Task) {
				spec(task).Secrets = []*api.SecretReference{secretFile("s1", ownFile("password", 0o400))}
			}
			first := adapter(withSecret)
			require.NoError(t, first.Create(t.Context()))
			folder := first.engine.files.folder("changing-id", "taskid")
			assert.DirExists(t, folder)
			require.NoError(t, first.removeFiles(), "as after a restart of the host")
			require.NoError(t, adapter(withSecret).Start(t.Context()))
			assert.DirExists(t, folder)
			require.NoError(t, adapter(withSecret).Remove(t.Context()))
			assert.NoDirExists(t, folder)
		},
		"bridge is joined beside another network, whose name comes later": func(t *testing.T, _ *dockerexectest.Engine, adapter func(func(*api.Task)) *ContainerAdapter) {
			a := adapter(func(task *api.Task) {
				attach(task, "frontend", "10.1.0.0/24")
				task.Networks = append(task.Networks, attachment(namedNetwork("bridge")))
			})
			require.NoError(t, a.CreateNetworks(t.Context()))
			require.NoError(t, a.Create(t.Context()))
			require.NoError(t, a.Start(t.Context()))
			answer, err := a.Inspect(t.Context())
			require.NoError(t, err)
			assert.Len(t, answer.NetworkSettings.Networks, 2)
		},
		"a network that vanishes within a Prepare is made again": func(t *testing.T, engine *dockerexectest.Engine, _ func(func(*api.Task)) *ContainerAdapter) {
			task := plainTask()
			attach(task, "backend", "10.1.0.0/24")
			ctlr, err := NewEngine(engine.Client()).Controller(nil, taskAt(task, api.TaskStateAccepted), nil)
			require.NoError(t, err)
			engine.FailNext("POST /containers/create", dockerexectest.Refuse(http.StatusInternalServerError, "container create: unable to find network with name or ID backend: network not found"))
			require.NoError(t, ctlr.Prepare(t.Context()))
			assert.Equal(t, 2, engine.Requests().Count("POST /networks/create"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			files := newTestStore(t)
			bubble(t, func(t *testing.T) {
				engine := dockerexectest.New(t, dockerexectest.WithDialect(dockerexectest.PodmanV4))
				engine.Image(spec(plainTask()).Image, dockerexectest.UntilStopped(3*time.Second))
				test(t, engine, func(change func(*api.Task)) *ContainerAdapter {
					task := plainTask()
					if change != nil {
						change(task)
					}
					e := NewEngine(engine.Client(engineapi.WithHost("unix:///run/podman.sock")))
					e.files = files
					a, err := e.Adapter(nil, task, stores())
					require.NoError(t, err)
					require.NoError(t, a.PullImage(t.Context()))
					return a
				})
			})
		})
	}
}

// Podman drops the labels of a volume that it makes with a container. Docker keeps them, so it
// gets no request more.
func TestVolumesWithLabelsAreMadeBeforehandOnPodmanAlone(t *testing.T) {
	t.Parallel()
	for dialect, want := range map[dockerexectest.Dialect]int{dockerexectest.DockerV20: 0, dockerexectest.DockerV29: 0, dockerexectest.PodmanV4: 1} {
		bubble(t, func(t *testing.T) {
			engine := dockerexectest.New(t, dockerexectest.WithDialect(dialect))
			engine.LocalImage("example/web:1", nil)
			task := plainTask()
			withMount(api.Mount{Type: api.MountTypeVolume, Source: "data", Target: "/data",
				VolumeOptions: &api.Mount_VolumeOptions{Labels: map[string]string{"team": "blue"}}})(task)
			adapter := adapterOn(t, engine, task)
			require.NoError(t, adapter.CreateVolumes(t.Context()))
			assert.Equal(t, want, engine.Requests().Count("POST /volumes/create"), dialect)
			require.NoError(t, adapter.Create(t.Context()))
			found, err := engine.Client().VolumeInspect(t.Context(), "data")
			require.NoError(t, err)
			assert.Equal(t, map[string]string{"team": "blue"}, found.Labels, dialect)
		})
	}
}
