package dockerexectest_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/docker/docker/api/types/build"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/api/types/system"
	engineapi "github.com/docker/docker/client"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockerexec/dockerexec/dockerexectest"
)

func TestARequestThatIsNotServedFailsTheTest(t *testing.T) {
	r := &recorder{TB: t}
	e := dockerexectest.New(r)
	c := e.Client()
	_, err := c.ImageBuild(t.Context(), nil, build.ImageBuildOptions{})
	require.EqualError(t, err, "Error response from daemon: dockerexectest: POST /build is not served")
	assert.Equal(t, []string{"dockerexectest: POST /build is not served"}, r.errors)

	r.errors = nil
	assert.Equal(t, http.StatusNotImplemented, get(t, c, http.MethodGet, "/v1.51/containers/json?all=1&nosuch=1"))
	assert.Equal(t, []string{"dockerexectest: GET /containers/json is not served with the query parameter nosuch"}, r.errors)

	r.errors = nil
	_, err = c.ContainerList(t.Context(), container.ListOptions{Filters: filters.NewArgs(filters.Arg("publish", "80"))})
	require.EqualError(t, err, "Error response from daemon: dockerexectest: GET /containers/json is not served with the filter publish")
	_, err = c.ImageList(t.Context(), image.ListOptions{Filters: filters.NewArgs(filters.Arg("dangling", "true"))})
	require.EqualError(t, err, "Error response from daemon: dockerexectest: GET /images/json is not served with the filter dangling")
	assert.Equal(t, []string{"dockerexectest: GET /containers/json is not served with the filter publish", "dockerexectest: GET /images/json is not served with the filter dangling"}, r.errors)
	r.end()
}

// get asks what no method of the client asks, and returns the status.
func get(t testing.TB, c *engineapi.Client, method, path string) int {
	t.Helper()
	return send(t, c, method, path, http.NoBody)
}

func send(t testing.TB, c *engineapi.Client, method, path string, body io.Reader) int {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, "http://engine.test"+path, body)
	require.NoError(t, err)
	answer, err := c.HTTPClient().Do(r)
	require.NoError(t, err)
	require.NoError(t, answer.Body.Close())
	return answer.StatusCode
}

// post sends what no method of the client sends, and returns the status.
func post(t testing.TB, c *engineapi.Client, path, body string) int {
	t.Helper()
	return send(t, c, http.MethodPost, path, strings.NewReader(body))
}

func TestAPIVersions(t *testing.T) {
	bubble(t, "both ways", func(t *testing.T) {
		e := dockerexectest.New(t, dockerexectest.WithAPIVersion("1.44"), dockerexectest.WithMinAPIVersion("1.40"))
		assert.Equal(t, "1.44", e.Client().ClientVersion())
		_, err := e.Client(engineapi.WithVersion("1.45")).Info(t.Context())
		require.EqualError(t, err, "Error response from daemon: client version 1.45 is too new. Maximum supported API version is 1.44")
		_, err = e.Client(engineapi.WithVersion("1.39")).Info(t.Context())
		require.EqualError(t, err, "Error response from daemon: client version 1.39 is too old. Minimum supported API version is 1.40, please upgrade your client to a newer version")
		_, err = e.Client(engineapi.WithVersion("1.40")).Info(t.Context())
		require.NoError(t, err)
		ping, err := e.Client().Ping(t.Context())
		require.NoError(t, err)
		assert.Equal(t, "1.44", ping.APIVersion)
	})
	eachDialect(t, func(t *testing.T, _ *dockerexectest.Engine, c *engineapi.Client, d dockerexectest.Dialect) {
		assert.Equal(t, each(d, "1.51", "1.41", "1.41"), c.ClientVersion())
		version, err := c.ServerVersion(t.Context())
		require.NoError(t, err)
		assert.Equal(t, each(d, "29.0.0", "20.10.24", "4.3.1"), version.Version)
	})
}

func TestInfo(t *testing.T) {
	eachDialect(t, func(t *testing.T, e *dockerexectest.Engine, c *engineapi.Client, d dockerexectest.Dialect) {
		running(t, e, c, "web", dockerexectest.UntilStopped(0))
		first, err := c.Info(t.Context())
		require.NoError(t, err)
		second, err := c.Info(t.Context())
		require.NoError(t, err)
		assert.Equal(t, "engine.test", first.Name)
		assert.Equal(t, 2, first.NCPU)
		assert.Equal(t, 1, first.ContainersRunning)
		assert.Equal(t, d == dockerexectest.PodmanV4, first.ID != second.ID)
		plugins, err := c.PluginList(t.Context(), filters.Args{})
		if d == dockerexectest.PodmanV4 {
			require.EqualError(t, err, "Error response from daemon: Path /v1.41/plugins is not supported")
			return
		}
		require.NoError(t, err)
		assert.Empty(t, plugins)
	})
	bubble(t, "of the test", func(t *testing.T) {
		e := dockerexectest.New(t, dockerexectest.WithInfo(system.Info{Name: "mine", NCPU: 8}))
		info, err := e.Client().Info(t.Context())
		require.NoError(t, err)
		assert.Equal(t, "mine", info.Name)
		assert.Equal(t, 8, info.NCPU)
		assert.Equal(t, "linux", info.OSType)
	})
}

func TestAClientKeepsTheHostThatItIsGiven(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := dockerexectest.New(t)
		c := e.Client(engineapi.WithHost("unix:///run/nosuch.sock"))
		assert.Equal(t, "unix:///run/nosuch.sock", c.DaemonHost())
		_, err := c.Info(t.Context())
		require.NoError(t, err)
	})
}

func TestRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := dockerexectest.New(t)
		c := e.Client()
		e.LocalImage("example/web:1", nil)
		create(t, c, "web", "example/web:1")
		start(t, c, "web")
		_ = c.ContainerStop(t.Context(), "web", container.StopOptions{Signal: "SIGINT"})
		requests := e.Requests()
		require.Len(t, requests, 3)
		assert.Equal(t, "POST /containers/create", requests[0].String())
		assert.Contains(t, string(requests[0].Body), `"Image":"example/web:1"`)
		assert.Equal(t, "SIGINT", requests[2].Query.Get("signal"))
		assert.Equal(t, 2, requests.Count("POST /containers/web/*"))
		assert.Equal(t, 3, requests.Count("*"))
		assert.Equal(t, 0, requests.Count("GET *"))
		e.ForgetRequests()
		assert.Empty(t, e.Requests())
	})
}

// A user's own socket: the same engine.
func TestHandler(t *testing.T) {
	e := dockerexectest.New(t)
	server := httptest.NewServer(e.Handler())
	defer server.Close()
	c, err := engineapi.NewClientWithOpts(engineapi.WithHost("tcp://"+server.Listener.Addr().String()), engineapi.WithAPIVersionNegotiation())
	require.NoError(t, err)
	defer c.Close()
	e.LocalImage("example/web:1", dockerexectest.Print(dockerexectest.UntilStopped(0), "one"))
	create(t, c, "web", "example/web:1")
	start(t, c, "web")
	body, err := c.ContainerLogs(t.Context(), "web", container.LogsOptions{ShowStdout: true, Follow: true})
	require.NoError(t, err)
	first := make([]byte, 12)
	_, err = io.ReadFull(body, first)
	require.NoError(t, err)
	assert.Equal(t, "one\n", string(first[8:]))
	e.Down()
	_, err = body.Read(first)
	require.ErrorIs(t, err, io.ErrUnexpectedEOF)
	require.NoError(t, body.Close())
	_, err = c.Info(t.Context())
	require.ErrorContains(t, err, "EOF")
	e.Up()
	_, err = c.Info(t.Context())
	require.NoError(t, err)
	require.NoError(t, c.ContainerRemove(t.Context(), "web", container.RemoveOptions{Force: true}))
}

// Without a test the engine ends by Close.
func TestAnEngineWithoutATest(t *testing.T) {
	for _, tb := range []testing.TB{nil, (*testing.T)(nil)} {
		e := dockerexectest.New(tb)
		e.LocalImage("example/web:1", dockerexectest.IgnoreStop())
		c := e.Client()
		create(t, c, "web", "example/web:1")
		start(t, c, "web")
		e.Close()
		e.Close()
		_, err := c.Info(t.Context())
		require.True(t, engineapi.IsErrConnectionFailed(err), err)
	}
}

// Whatever the client of a request does, what it has asked for is done once the
// engine has the whole request.
func TestAClientThatHangsUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := dockerexectest.New(t)
		e.LocalImage("example/web:1", dockerexectest.UntilStopped(0))
		c := e.Client()
		e.FailNext("POST /containers/create", dockerexectest.Slow(time.Minute))
		ctx, cancel := contextWithTimeout(t, time.Second)
		defer cancel()
		_, err := c.ContainerCreate(ctx, &container.Config{Image: "example/web:1"}, nil, nil, nil, "web")
		require.ErrorIs(t, err, ctx.Err())
		assert.Nil(t, e.Container("web"))
		time.Sleep(time.Minute)
		require.NotNil(t, e.Container("web"))

		// A body that does not come whole is no request.
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://engine.test/v1.51/containers/create?name=half", &halfBody{})
		require.NoError(t, err)
		r.ContentLength = 1000
		answer, err := c.HTTPClient().Do(r)
		if err == nil {
			_ = answer.Body.Close()
		}
		require.Error(t, err)
		synctest.Wait()
		assert.Nil(t, e.Container("half"))
		assert.Equal(t, 1, e.Requests().Count("POST /containers/create"))
	})
}

type halfBody struct{ once sync.Once }

func (b *halfBody) Read(p []byte) (n int, err error) {
	err = io.ErrUnexpectedEOF
	b.once.Do(func() { n, err = copy(p, `{"Image":`), nil })
	return n, err
}

func TestProblemsOfTheTestItself(t *testing.T) {
	r := &recorder{TB: t}
	e := dockerexectest.New(r)
	e.Image("Not A Reference", nil)
	e.LocalImage("", nil)
	e.Pull("Not A Reference")
	e.AddContainer("web", nil)
	e.AddContainer("web", nil)
	e.Container("web").Print("nosuch", "line")
	e.FailNext("POST /containers/*/start", dockerexectest.Drop())
	e.FailAll("GET /nosuch", dockerexectest.Drop())()
	r.end()
	require.Len(t, r.errors, 7)
	for i, want := range []string{`image "Not A Reference": invalid reference format`, `image "": invalid reference format`, `pull of "Not A Reference"`,
		`the container name "web" is taken`, `no stream "nosuch"`, `no request matched the fault for "POST /containers/*/start"`, `no request matched the fault for "GET /nosuch"`} {
		assert.True(t, strings.HasPrefix(r.errors[i], "dockerexectest: "+want), r.errors[i])
	}
}
