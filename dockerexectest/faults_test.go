package dockerexectest_test

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/events"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/api/types/network"
	engineapi "github.com/docker/docker/client"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockerexec/dockerexec/dockerexectest"
)

func contextWithTimeout(t testing.TB, d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(t.Context(), d)
}

func TestFaults(t *testing.T) {
	for name, test := range map[string]struct {
		fault   dockerexectest.Fault
		want    error  // io.EOF or nil
		text    string // of another error
		started int
		takes   time.Duration
	}{
		"none":           {started: 1},
		"lost answer":    {fault: dockerexectest.LoseAnswer(), want: io.EOF, started: 1},
		"drop":           {fault: dockerexectest.Drop(), want: io.EOF},
		"refuse":         {fault: dockerexectest.Refuse(http.StatusServiceUnavailable, "not now"), text: "Error response from daemon: not now"},
		"slow":           {fault: dockerexectest.Slow(time.Hour), started: 1, takes: time.Hour},
		"cut body":       {fault: dockerexectest.CutBody(0), started: 1}, // there is none
		"garbled":        {fault: dockerexectest.Garble(), started: 1},
		"the zero value": {started: 1},
	} {
		bubble(t, name, func(t *testing.T) {
			e := dockerexectest.New(t)
			c := e.Client()
			e.LocalImage("example/web:1", dockerexectest.UntilStopped(0))
			create(t, c, "web", "example/web:1")
			e.FailNext("POST /containers/*/start", test.fault)
			began := time.Now()
			err := c.ContainerStart(t.Context(), "web", container.StartOptions{})
			assert.Equal(t, test.takes, time.Since(began))
			switch {
			case test.text != "":
				require.EqualError(t, err, test.text)
			case test.want != nil:
				require.ErrorIs(t, err, test.want)
			default:
				require.NoError(t, err)
			}
			assert.Equal(t, test.started, e.Container("web").Starts())
			require.NoError(t, c.ContainerStart(t.Context(), "web", container.StartOptions{})) // the next one is fine
			assert.Equal(t, 1, e.Container("web").Starts())
		})
	}
}

// A removal is as slow as another request, whatever it removes.
func TestASlowRemoval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := dockerexectest.New(t)
		c := e.Client()
		e.LocalImage("example/web:1", nil)
		create(t, c, "web", "example/web:1")
		_, err := c.NetworkCreate(t.Context(), "backend", network.CreateOptions{})
		require.NoError(t, err)
		e.FailAll("DELETE *", dockerexectest.Slow(time.Minute))
		began := time.Now()
		require.NoError(t, c.ContainerRemove(t.Context(), "web", container.RemoveOptions{}))
		assert.Equal(t, time.Minute, time.Since(began))
		require.NoError(t, c.NetworkRemove(t.Context(), "backend"))
		assert.Equal(t, 2*time.Minute, time.Since(began))
		assert.Empty(t, e.Containers())
		assert.NotContains(t, e.Networks(), "backend")
	})
}

// The client does not repeat a request by itself: a GET that is dropped fails.
func TestADroppedGet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := dockerexectest.New(t)
		c := e.Client()
		_, err := c.Info(t.Context())
		require.NoError(t, err)
		e.FailNext("GET /info", dockerexectest.Drop())
		_, err = c.Info(t.Context())
		require.ErrorIs(t, err, io.EOF)
		assert.Equal(t, 2, e.Requests().Count("GET /info"))
	})
}

func TestFaultsQueueUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := dockerexectest.New(t)
		c := e.Client()
		stop := e.FailAll("GET *", dockerexectest.Refuse(500, "always"))
		e.FailNext("GET /info", dockerexectest.Refuse(500, "first"))
		e.FailNext("* /info", dockerexectest.Refuse(500, "second"))
		for _, want := range []string{"first", "second", "always", "always"} {
			_, err := c.Info(t.Context())
			require.EqualError(t, err, "Error response from daemon: "+want)
		}
		stop()
		stop()
		_, err := c.Info(t.Context())
		require.NoError(t, err)
	})
}

func TestAnswersThatAreBroken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := dockerexectest.New(t)
		c := e.Client()
		running(t, e, c, "web", dockerexectest.Print(dockerexectest.UntilStopped(0), "0123456789"))
		e.FailNext("GET /containers/web/json", dockerexectest.Garble())
		_, err := c.ContainerInspect(t.Context(), "web")
		var syntax *json.SyntaxError
		require.ErrorAs(t, err, &syntax)
		e.FailNext("GET /containers/web/json", dockerexectest.CutBody(20))
		_, err = c.ContainerInspect(t.Context(), "web")
		require.ErrorIs(t, err, io.ErrUnexpectedEOF)
		e.FailNext("GET /containers/web/json", dockerexectest.CutBody(1<<20))
		_, err = c.ContainerInspect(t.Context(), "web")
		require.NoError(t, err)

		e.FailNext("GET /containers/web/logs", dockerexectest.CutBody(11))
		body, err := c.ContainerLogs(t.Context(), "web", container.LogsOptions{ShowStdout: true})
		require.NoError(t, err)
		text, err := io.ReadAll(body)
		require.ErrorIs(t, err, io.ErrUnexpectedEOF)
		assert.Equal(t, "\x01\x00\x00\x00\x00\x00\x00\x0b012", string(text))
		require.NoError(t, body.Close())
		e.FailNext("GET /containers/web/logs", dockerexectest.Garble())
		_, err = logs(t, c, "web", container.LogsOptions{})
		require.ErrorContains(t, err, "Unrecognized input header")

		e.FailNext("GET /events", dockerexectest.CutBody(30))
		messages, errs := c.Events(t.Context(), events.ListOptions{Since: "0"})
		require.ErrorIs(t, <-errs, io.ErrUnexpectedEOF)
		assert.Empty(t, messages)

		e.Image("example/big:1", nil, dockerexectest.WithLayers(1<<20))
		e.FailNext("POST /images/create", dockerexectest.CutBody(100))
		said, err := pull(t, c, "example/big:1", image.PullOptions{})
		require.ErrorIs(t, err, io.ErrUnexpectedEOF)
		assert.Contains(t, said, "Pulling from example/big")
		e.FailNext("POST /images/create", dockerexectest.LoseAnswer())
		_, err = pull(t, c, "example/big:1", image.PullOptions{})
		require.ErrorIs(t, err, io.EOF)
		assert.Equal(t, []string{"example/web:1", "example/big:1"}, e.Images())
	})
}

func TestDownAndUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := dockerexectest.New(t)
		c := e.Client()
		running(t, e, c, "web", dockerexectest.ExitAfter(10*time.Second, 4))
		messages, errs := c.Events(t.Context(), events.ListOptions{})
		body, err := c.ContainerLogs(t.Context(), "web", container.LogsOptions{ShowStdout: true, Follow: true})
		require.NoError(t, err)
		defer body.Close()
		synctest.Wait()
		e.Down()
		e.Down()
		require.ErrorIs(t, <-errs, io.ErrUnexpectedEOF)
		assert.Empty(t, messages)
		_, err = io.ReadAll(body)
		require.ErrorIs(t, err, io.ErrUnexpectedEOF)
		_, err = c.ContainerInspect(t.Context(), "web")
		require.True(t, engineapi.IsErrConnectionFailed(err))
		require.EqualError(t, err, "Cannot connect to the Docker daemon at tcp://engine.test:2375. Is the docker daemon running?")
		time.Sleep(time.Hour)
		e.Up()
		assert.Equal(t, 4, state(t, c, "web").ExitCode)
		messages, errs = c.Events(t.Context(), events.ListOptions{Since: "0"})
		assert.Equal(t, []events.Action{"create", "connect", "start", "disconnect", "die"}, eventsUntil(t, messages, errs, "die")) // none is forgotten
	})
}

// What the engine has been asked goes on while nobody reaches it.
func TestDownInTheMiddle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := dockerexectest.New(t)
		c := e.Client()
		running(t, e, c, "web", dockerexectest.IgnoreStop())
		stopped := make(chan error, 1)
		go func() { stopped <- c.ContainerStop(t.Context(), "web", container.StopOptions{}) }()
		time.Sleep(3 * time.Second)
		e.Down()
		require.ErrorIs(t, <-stopped, io.EOF)
		time.Sleep(6 * time.Second)
		assert.True(t, e.Container("web").Inspect().State.Running)
		time.Sleep(time.Second + time.Millisecond)
		assert.Equal(t, 137, e.Container("web").Inspect().State.ExitCode)
		e.Up()

		e.Image("example/slow:1", nil, dockerexectest.WithPullTime(time.Minute))
		pulled := make(chan error, 1)
		go func() {
			_, err := pull(t, c, "example/slow:1", image.PullOptions{})
			pulled <- err
		}()
		time.Sleep(30 * time.Second)
		e.Down()
		require.ErrorIs(t, <-pulled, io.ErrUnexpectedEOF)
		time.Sleep(time.Minute)
		assert.Equal(t, []string{"example/web:1"}, e.Images()) // a pull ends with its client
	})
}

func TestHangAndResume(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := dockerexectest.New(t)
		c := e.Client()
		running(t, e, c, "web", dockerexectest.ExitAfter(time.Minute, 0))
		create(t, c, "other", "example/web:1")
		messages, errs := c.Events(t.Context(), events.ListOptions{})
		synctest.Wait()
		e.Hang()
		e.Hang()
		e.Container("web").Exit(3)
		ctx, cancel := contextWithTimeout(t, time.Second)
		defer cancel()
		require.ErrorIs(t, c.ContainerRemove(ctx, "other", container.RemoveOptions{}), context.DeadlineExceeded)
		waiting := make(chan error, 1)
		go func() {
			_, err := c.Info(t.Context())
			waiting <- err
		}()
		time.Sleep(time.Hour)
		assert.Empty(t, messages)
		assert.Empty(t, waiting)
		assert.NotNil(t, e.Container("other"))
		e.Resume()
		e.Resume()
		require.NoError(t, <-waiting)
		assert.Equal(t, []events.Action{"disconnect", "die"}, eventsUntil(t, messages, errs, "die"))
		assert.Nil(t, e.Container("other")) // also for the client that has left
	})
}

// The engine comes back and has forgotten its events, and the stop that it was
// asked for; not its containers.
func TestRestartWithLiveRestore(t *testing.T) {
	eachDialect(t, func(t *testing.T, e *dockerexectest.Engine, c *engineapi.Client, _ dockerexectest.Dialect) {
		running(t, e, c, "stays", dockerexectest.UntilStopped(0))
		running(t, e, c, "ends", dockerexectest.ExitAfter(10*time.Second, 11))
		running(t, e, c, "ignores", dockerexectest.IgnoreStop())
		stopped, grace := make(chan error, 1), 5
		go func() {
			stopped <- c.ContainerStop(t.Context(), "ignores", container.StopOptions{Timeout: &grace})
		}()
		time.Sleep(time.Second)
		began := time.Now()
		go e.Restart(dockerexectest.RestartOptions{LiveRestore: true, Away: 20 * time.Second})
		require.ErrorIs(t, <-stopped, io.EOF)
		_, err := c.Info(t.Context())
		require.True(t, engineapi.IsErrConnectionFailed(err))
		time.Sleep(20*time.Second - time.Since(began))
		synctest.Wait()
		assert.True(t, state(t, c, "stays").Running)
		assert.True(t, state(t, c, "ignores").Running)
		assert.Equal(t, 11, state(t, c, "ends").ExitCode)
		past, _ := c.Events(t.Context(), events.ListOptions{Since: "0"})
		synctest.Wait()
		assert.Empty(t, past)
	})
}

func TestRestartWithoutLiveRestore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := dockerexectest.New(t)
		c := e.Client()
		policy := func(name container.RestartPolicyMode) func(*container.Config, *container.HostConfig) {
			return func(_ *container.Config, h *container.HostConfig) { h.RestartPolicy.Name = name }
		}
		running(t, e, c, "heeds", dockerexectest.UntilStopped(2*time.Second))
		running(t, e, c, "ignores", dockerexectest.IgnoreStop(), func(config *container.Config, _ *container.HostConfig) {
			grace := 7
			config.StopTimeout = &grace
		})
		running(t, e, c, "always", dockerexectest.UntilStopped(0), policy(container.RestartPolicyAlways))
		running(t, e, c, "unless", dockerexectest.UntilStopped(0), policy(container.RestartPolicyUnlessStopped))
		began := time.Now()
		e.Restart(dockerexectest.RestartOptions{Away: time.Second})
		assert.Equal(t, 8*time.Second, time.Since(began))
		assert.Equal(t, "exited", state(t, c, "heeds").Status)
		assert.Equal(t, 0, state(t, c, "heeds").ExitCode)
		assert.Equal(t, 137, state(t, c, "ignores").ExitCode)
		assert.True(t, state(t, c, "always").Running)
		assert.True(t, state(t, c, "unless").Running)
	})
}

func TestRestartWithOtherVersions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := dockerexectest.New(t)
		c := e.Client()
		e.Restart(dockerexectest.RestartOptions{APIVersion: "1.45", MinAPIVersion: "1.44"})
		_, err := c.Info(t.Context())
		require.EqualError(t, err, "Error response from daemon: client version 1.51 is too new. Maximum supported API version is 1.45")
		_, err = e.Client(engineapi.WithVersion("1.43")).Info(t.Context())
		require.ErrorContains(t, err, "client version 1.43 is too old. Minimum supported API version is 1.44")
		_, err = e.Client().Info(t.Context())
		require.NoError(t, err)
	})
}

// As with engines, a create has the name from its beginning, and shows the container at its
// end.
func TestASlowCreateHasItsName(t *testing.T) {
	eachDialect(t, func(t *testing.T, e *dockerexectest.Engine, c *engineapi.Client, d dockerexectest.Dialect) {
		e.LocalImage("example/web:1", dockerexectest.Exit(0))
		create(t, c, "other", "example/web:1")
		e.FailNext("POST /containers/create", dockerexectest.Slow(time.Minute))
		ctx, cancel := contextWithTimeout(t, time.Second)
		defer cancel()
		_, err := c.ContainerCreate(ctx, &container.Config{Image: "example/web:1"}, nil, nil, nil, "web")
		require.ErrorIs(t, err, context.DeadlineExceeded)

		_, err = c.ContainerCreate(t.Context(), &container.Config{Image: "example/web:1"}, nil, nil, nil, "web")
		require.ErrorContains(t, err, each(d, `Conflict. The container name "/web" is already in use by container`,
			`Conflict. The container name "/web" is already in use by container`, "that name is already in use"))
		require.ErrorContains(t, c.ContainerRename(t.Context(), "other", "web"), "in use")
		_, err = c.ContainerInspect(t.Context(), "web")
		assert.True(t, cerrdefs.IsNotFound(err), err)
		assert.Nil(t, e.Container("web"))

		time.Sleep(time.Minute)
		assert.Equal(t, "created", state(t, c, "web").Status)
	})
}

// What Call does comes before the request is carried out, and may be anything.
func TestCall(t *testing.T) {
	for name, test := range map[string]struct {
		do     func(e *dockerexectest.Engine)
		want   string // the error of the start
		starts int
	}{
		"nothing":       {nil, "", 1},
		"sleeps":        {func(*dockerexectest.Engine) { time.Sleep(time.Hour) }, "", 1},
		"removes":       {func(e *dockerexectest.Engine) { e.Container("web").RemoveByHand() }, "No such container: web", 0},
		"goes down":     {func(e *dockerexectest.Engine) { e.Down(); e.Up() }, "EOF", 1},
		"another fault": {func(e *dockerexectest.Engine) { e.FailNext("POST *", dockerexectest.Drop()) }, "", 1}, // of the next request
	} {
		bubble(t, name, func(t *testing.T) {
			e := dockerexectest.New(t)
			c := e.Client()
			e.LocalImage("example/web:1", dockerexectest.UntilStopped(0))
			create(t, c, "web", "example/web:1")
			web := e.Container("web")
			var do func()
			if test.do != nil {
				do = func() { test.do(e) }
			}
			e.FailNext("POST /containers/*/start", dockerexectest.Call(do))
			if err := c.ContainerStart(t.Context(), "web", container.StartOptions{}); test.want == "" {
				require.NoError(t, err)
			} else {
				require.ErrorContains(t, err, test.want)
			}
			assert.Equal(t, test.starts, web.Starts())
			if name == "another fault" {
				require.ErrorIs(t, c.ContainerStop(t.Context(), "web", container.StopOptions{}), io.EOF)
			}
		})
	}
}

// An answer of the test's own comes as it is, and nothing is carried out for it.
func TestAnswer(t *testing.T) {
	e := dockerexectest.New(t)
	c := e.Client()
	e.LocalImage("example/web:1", nil)
	e.FailNext("POST /containers/create", dockerexectest.Answer(http.StatusCreated, `{"Id": "c0", "Warnings": ["one", "two"]}`))
	made, err := c.ContainerCreate(t.Context(), &container.Config{Image: "example/web:1"}, nil, nil, nil, "web")
	require.NoError(t, err)
	assert.Equal(t, container.CreateResponse{ID: "c0", Warnings: []string{"one", "two"}}, made)
	assert.Empty(t, e.Containers())
	e.FailNext("GET /info", dockerexectest.Answer(http.StatusOK, `{"ID": "another"}`))
	for _, want := range []string{"another", "11111111-2222-3333-4444-555555555555"} {
		info, err := c.Info(t.Context())
		require.NoError(t, err)
		assert.Equal(t, want, info.ID)
	}
	e.FailNext("GET /info", dockerexectest.Answer(http.StatusTeapot, `{"message": "odd"}`))
	_, err = c.Info(t.Context())
	require.ErrorContains(t, err, "odd")
}

// The engine shows and tells what a test wants, and is the same as before.
func TestWhatIsNotSo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := dockerexectest.New(t)
		c := e.Client()
		running(t, e, c, "web", dockerexectest.UntilStopped(0))
		web := e.Container("web")
		messages, errs := c.Events(t.Context(), events.ListOptions{})
		web.AlterInspect(func(answer *container.InspectResponse) {
			answer.State.Status, answer.State.ExitCode = "exited", 3
			answer.Config.Labels["by"] = "hand"
			answer.HostConfig = nil
		})
		for range 2 {
			shown, err := c.ContainerInspect(t.Context(), "web")
			require.NoError(t, err)
			assert.Equal(t, "exited", shown.State.Status)
			assert.Equal(t, 3, shown.State.ExitCode)
			assert.Equal(t, map[string]string{"by": "hand"}, shown.Config.Labels)
			assert.Nil(t, shown.HostConfig)
			assert.Equal(t, "exited", web.Inspect().State.Status)
		}
		list, err := c.ContainerList(t.Context(), container.ListOptions{Filters: filters.NewArgs(filters.Arg("label", "by"))})
		require.NoError(t, err)
		assert.Empty(t, list)
		web.AlterInspect(func(answer *container.InspectResponse) { answer.ContainerJSONBase = nil })
		shown, err := c.ContainerInspect(t.Context(), "web")
		require.NoError(t, err)
		assert.Nil(t, shown.ContainerJSONBase)
		web.AlterInspect(nil)
		assert.Equal(t, "running", state(t, c, "web").Status)

		web.Emit(events.ActionDie)
		assert.Equal(t, []events.Action{"die"}, eventsUntil(t, messages, errs, "die"))
		assert.Equal(t, "running", state(t, c, "web").Status)
	})
}

// No goroutine of the engine outlives it, whatever goes on at its end.
func TestAnEndInTheMiddle(t *testing.T) {
	for name, before := range map[string]func(e *dockerexectest.Engine){
		"up": func(*dockerexectest.Engine) {}, "down": (*dockerexectest.Engine).Down, "hung": (*dockerexectest.Engine).Hang,
	} {
		t.Run(name, func(t *testing.T) {
			e := dockerexectest.New(t)
			c := e.Client()
			running(t, e, c, "web", dockerexectest.IgnoreStop())
			running(t, e, c, "paused", dockerexectest.Print(dockerexectest.IgnoreStop(), "x"))
			e.Container("paused").Pause()
			e.Image("example/stalls:1", nil, dockerexectest.WithStall(10))
			e.FailNext("POST /containers/create", dockerexectest.Slow(time.Hour))
			calls := []func(){
				func() { _ = c.ContainerStop(t.Context(), "web", container.StopOptions{}) },
				func() { _, _ = pull(t, c, "example/stalls:1", image.PullOptions{}) },
				func() { _, _ = logs(t, c, "web", container.LogsOptions{Follow: true}) },
				func() {
					_, _ = c.ContainerCreate(t.Context(), &container.Config{Image: "example/web:1"}, nil, nil, nil, "late")
				},
				func() {
					ended, failed := c.ContainerWait(t.Context(), "web", "")
					select {
					case <-ended:
					case <-failed:
					}
				},
				func() {
					messages, errs := c.Events(t.Context(), events.ListOptions{})
					for {
						select {
						case <-messages:
						case <-errs:
							return
						}
					}
				},
			}
			done := make(chan struct{}, len(calls))
			for _, call := range calls {
				go func() {
					call()
					done <- struct{}{}
				}()
			}
			for e.Requests().Count("*") < 4+len(calls) {
				time.Sleep(time.Millisecond)
			}
			before(e)
			e.Close()
			for range calls {
				<-done
			}
		})
	}
}
