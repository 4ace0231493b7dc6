package dockerexec

import (
	"context"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	engineapi "github.com/docker/docker/client"
	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/moby/swarmkit/v2/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
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
}

func TestAWrongOptionIsReportedByName(t *testing.T) {
	t.Parallel()
	for _, test := range wrongOptions {
		client := newFakeClient(t)
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
		assert.Empty(t, client.called())
	}
	// Of several, the first one counts, also if the same option is right later.
	_, err := NewEngine(newFakeClient(t), WithLogRate(-1), WithPullAttempts(-7), WithLogRate(1)).Adapter(nil, plainTask(), nil)
	require.EqualError(t, err, "dockerexec: option WithLogRate: -1 is negative; 0 means no limit")
}

// An agent is restarted with a wrong option. Tasks that run are not lost for it.
func TestAWrongOptionFailsNoRunningTask(t *testing.T) {
	t.Parallel()
	for _, test := range wrongOptions {
		bubble(t, func(t *testing.T) {
			sim := newSimEngine(t)
			_, task := runningTask(t, sim, plainTask())
			sim.forgetCalls()
			ctlr, status, err := exec.Resolve(t.Context(), task, NewExecutor(sim, nil, test.option))
			require.NoError(t, err)
			require.Equal(t, api.TaskStateRunning, status.State)
			for _, make := range []func(context.Context) error{ctlr.Prepare, ctlr.Start} {
				err := make(t.Context())
				require.EqualError(t, err, test.want)
				assert.True(t, exec.IsTemporary(err))
			}
			assert.Empty(t, sim.called())
			wait := asynchronously(func() error { return ctlr.Wait(t.Context()) })
			synctest.Wait()
			require.NoError(t, ctlr.Shutdown(t.Context()))
			require.EqualError(t, wait(), "task: non-zero exit (143)")
			require.NoError(t, ctlr.Remove(t.Context()))
			assert.Empty(t, sim.left())
		})
	}
}

// A fresh task of the same agent is refused before it makes anything, and tried again.
func TestAWrongOptionIsTriedAgainInPreparing(t *testing.T) {
	t.Parallel()
	client := newFakeClient(t)
	ctlr, err := NewEngine(client, WithPullAttempts(-7)).Controller(nil, taskAt(plainTask(), api.TaskStatePreparing), nil)
	require.NoError(t, err)
	err = ctlr.Prepare(t.Context())
	require.EqualError(t, err, "dockerexec: option WithPullAttempts: -7 is less than 1; 1 means that a pull is not tried again")
	assert.True(t, exec.IsTemporary(err))
	assert.Empty(t, client.called())
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
