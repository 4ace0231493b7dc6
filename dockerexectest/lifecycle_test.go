package dockerexectest_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/events"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/image"
	engineapi "github.com/docker/docker/client"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockerexec/dockerexec/dockerexectest"
)

// told collects the container's events from here on, until stop is called.
func told(t *testing.T, c *engineapi.Client) (stop func() []events.Action) {
	t.Helper()
	messages, errs := c.Events(t.Context(), events.ListOptions{Filters: filters.NewArgs(filters.Arg("type", "container"))})
	actions, quit, done := []events.Action(nil), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case m := <-messages:
				actions = append(actions, m.Action)
			case <-errs:
				return
			case <-quit:
				return
			}
		}
	}()
	synctest.Wait()
	return func() []events.Action {
		synctest.Wait()
		close(quit)
		<-done
		return actions
	}
}

func TestALife(t *testing.T) {
	eachDialect(t, func(t *testing.T, e *dockerexectest.Engine, c *engineapi.Client, _ dockerexectest.Dialect) {
		e.Image("example/web:1", dockerexectest.Print(dockerexectest.ExitAfter(10*time.Second, 3), "one", "two"))
		_, err := pull(t, c, "example/web:1", image.PullOptions{})
		require.NoError(t, err)
		create(t, c, "web", "example/web:1")
		assert.Equal(t, "created", state(t, c, "web").Status)
		began := time.Now()
		start(t, c, "web")
		assert.Equal(t, "running", state(t, c, "web").Status)
		assert.EqualValues(t, 3, untilEnd(t, c, "web"))
		assert.Equal(t, 10*time.Second, time.Since(began))
		time.Sleep(time.Second)
		ended := state(t, c, "web")
		assert.Equal(t, "exited", ended.Status)
		assert.Equal(t, 3, ended.ExitCode)
		text, err := logs(t, c, "web", container.LogsOptions{})
		require.NoError(t, err)
		assert.Equal(t, "out: one\nout: two\n", text)
		require.NoError(t, c.ContainerRemove(t.Context(), "web", container.RemoveOptions{}))
		assert.Empty(t, e.Containers())
		assert.Equal(t, 1, e.Requests().Count("POST /containers/*/start"))
	})
}

func TestStop(t *testing.T) {
	seconds := func(n int) *int { return &n }
	for name, test := range map[string]struct {
		program dockerexectest.Program
		change  func(*container.Config, *container.HostConfig)
		options container.StopOptions
		takes   time.Duration
		code    int
	}{
		"heeded":                   {program: dockerexectest.UntilStopped(2 * time.Second), takes: 2 * time.Second},
		"ignored":                  {program: dockerexectest.IgnoreStop(), takes: 10 * time.Second, code: 137},
		"by a process 1":           {program: dockerexectest.ExitAfter(time.Hour, 0), takes: 10 * time.Second, code: 137},
		"its own grace period":     {program: dockerexectest.IgnoreStop(), change: func(c *container.Config, _ *container.HostConfig) { c.StopTimeout = seconds(3) }, takes: 3 * time.Second, code: 137},
		"the request's":            {program: dockerexectest.IgnoreStop(), options: container.StopOptions{Timeout: seconds(7)}, takes: 7 * time.Second, code: 137},
		"none":                     {program: dockerexectest.IgnoreStop(), options: container.StopOptions{Timeout: seconds(0)}, code: 137},
		"for ever":                 {program: dockerexectest.ExitAfter(time.Hour, 4), options: container.StopOptions{Timeout: seconds(-1)}, takes: time.Hour, code: 4},
		"a signal that it ignores": {program: dockerexectest.UntilStopped(0), options: container.StopOptions{Signal: "SIGUSR1"}, takes: 10 * time.Second, code: 137},
		"its own signal":           {program: dockerexectest.UntilStopped(0), change: func(c *container.Config, _ *container.HostConfig) { c.StopSignal = "SIGUSR1" }},
		"ended meanwhile":          {program: dockerexectest.ExitAfter(time.Second, 5), takes: time.Second, code: 5},
	} {
		bubble(t, name, func(t *testing.T) {
			e := dockerexectest.New(t)
			c := e.Client()
			change := test.change
			if change == nil {
				change = func(*container.Config, *container.HostConfig) {}
			}
			running(t, e, c, "web", test.program, change)
			began := time.Now()
			require.NoError(t, c.ContainerStop(t.Context(), "web", test.options))
			assert.Equal(t, test.takes, time.Since(began))
			assert.Equal(t, test.code, state(t, c, "web").ExitCode)
			require.NoError(t, c.ContainerStop(t.Context(), "web", test.options)) // 304
		})
	}
}

// Podman kept 0 as the grace period of a container that was made without one.
func TestUnsetGracePeriod(t *testing.T) {
	eachDialect(t, func(t *testing.T, e *dockerexectest.Engine, c *engineapi.Client, d dockerexectest.Dialect) {
		running(t, e, c, "web", dockerexectest.UntilStopped(time.Second))
		began := time.Now()
		require.NoError(t, c.ContainerStop(t.Context(), "web", container.StopOptions{}))
		if d == dockerexectest.PodmanV4 {
			assert.Equal(t, time.Duration(0), time.Since(began))
			assert.Equal(t, "stopped", state(t, c, "web").Status)
			assert.Equal(t, 137, state(t, c, "web").ExitCode)
			time.Sleep(time.Second)
		} else {
			assert.Equal(t, time.Second, time.Since(began))
			assert.Equal(t, 0, state(t, c, "web").ExitCode)
		}
		assert.Equal(t, "exited", state(t, c, "web").Status)
	})
}

func TestEventsOfALife(t *testing.T) {
	eachDialect(t, func(t *testing.T, e *dockerexectest.Engine, c *engineapi.Client, d dockerexectest.Dialect) {
		e.LocalImage("example/web:1", dockerexectest.UntilStopped(0))
		life := func(end func()) []events.Action {
			stop := told(t, c)
			create(t, c, "web", "example/web:1")
			start(t, c, "web")
			end()
			require.NoError(t, c.ContainerRemove(t.Context(), "web", container.RemoveOptions{Force: true}))
			return stop()
		}
		assert.Equal(t, [][]events.Action{
			{"create", "start", "die", "destroy"}, {"create", "start", "die", "destroy"}, {"create", "init", "start", "die", "cleanup", "remove"},
		}[d], life(func() { e.Container("web").Exit(3) }))
		assert.Equal(t, [][]events.Action{
			{"create", "start", "kill", "stop", "die", "destroy"}, {"create", "start", "kill", "die", "stop", "destroy"},
			{"create", "init", "start", "die", "cleanup", "remove"},
		}[d], life(func() { require.NoError(t, c.ContainerStop(t.Context(), "web", container.StopOptions{})) }))
		assert.Equal(t, [][]events.Action{
			{"create", "start", "kill", "die", "destroy"}, {"create", "start", "kill", "die", "destroy"},
			{"create", "init", "start", "die", "cleanup", "remove"},
		}[d], life(func() {})) // by the removal
		assert.Equal(t, [][]events.Action{
			{"create", "start", "oom", "die", "destroy"}, {"create", "start", "oom", "die", "destroy"}, {"create", "init", "start", "die", "cleanup", "remove"},
		}[d], life(func() {
			e.Container("web").OOM()
			assert.Equal(t, d != dockerexectest.PodmanV4, state(t, c, "web").OOMKilled)
			assert.Equal(t, 137, state(t, c, "web").ExitCode)
		}))
	})
}

func TestKill(t *testing.T) {
	eachDialect(t, func(t *testing.T, e *dockerexectest.Engine, c *engineapi.Client, d dockerexectest.Dialect) {
		running(t, e, c, "web", dockerexectest.UntilStopped(0))
		id := e.Container("web").ID()
		require.NoError(t, c.ContainerKill(t.Context(), "web", "USR1"))
		synctest.Wait()
		assert.True(t, state(t, c, "web").Running)
		require.NoError(t, c.ContainerKill(t.Context(), "web", "15"))
		synctest.Wait()
		time.Sleep(time.Second)
		assert.Equal(t, 0, state(t, c, "web").ExitCode)
		require.EqualError(t, c.ContainerKill(t.Context(), "web", ""), "Error response from daemon: "+each(d,
			"cannot kill container: web: container "+id+" is not running",
			"Cannot kill container: web: Container "+id+" is not running",
			"can only kill running containers. "+id+" is in state exited: container state improper"))
		require.EqualError(t, c.ContainerKill(t.Context(), "nosuch", ""), "Error response from daemon: "+each(d,
			"cannot kill container: nosuch: No such container: nosuch", "Cannot kill container: nosuch: No such container: nosuch",
			`no container with name or ID "nosuch" found: no such container`))
		start(t, c, "web")
		require.NoError(t, c.ContainerKill(t.Context(), id[:10], "SIGKILL"))
		assert.Equal(t, 137, state(t, c, "web").ExitCode)
		assert.Equal(t, 2, e.Container("web").Starts())
	})
}

func TestStartOfAStartedOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := dockerexectest.New(t)
		c := e.Client()
		running(t, e, c, "web", dockerexectest.UntilStopped(0))
		assert.Equal(t, 304, get(t, c, "POST", "/v1.51/containers/web/start"))
		assert.Equal(t, 204, get(t, c, "POST", "/v1.51/containers/web/stop"))
		assert.Equal(t, 304, get(t, c, "POST", "/v1.51/containers/web/stop"))
		assert.Equal(t, 204, get(t, c, "POST", "/v1.51/containers/web/start"))
		assert.Equal(t, 2, e.Container("web").Starts())
		e.Container("web").SetDead()
		assert.Equal(t, "dead", state(t, c, "web").Status)
		require.EqualError(t, c.ContainerStart(t.Context(), "web", container.StartOptions{}), "Error response from daemon: container is marked for removal and cannot be started")
	})
}

func TestAStartThatFails(t *testing.T) {
	eachDialect(t, func(t *testing.T, e *dockerexectest.Engine, c *engineapi.Client, d dockerexectest.Dialect) {
		e.LocalImage("example/web:1", dockerexectest.Exit(0), dockerexectest.WithExecutables("/web"))
		create(t, c, "web", "example/web:1", func(config *container.Config, _ *container.HostConfig) { config.Cmd = []string{"/nosuch"} })
		require.ErrorContains(t, c.ContainerStart(t.Context(), "web", container.StartOptions{}), `exec: "/nosuch": stat /nosuch: no such file or directory`)
		assert.Equal(t, "created", state(t, c, "web").Status)
		assert.Equal(t, map[bool]int{false: 127, true: 0}[d == dockerexectest.PodmanV4], state(t, c, "web").ExitCode)
		assert.NotEmpty(t, state(t, c, "web").Error)
		assert.Equal(t, 0, e.Container("web").Starts())
	})
}

func TestPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := dockerexectest.New(t)
		c := e.Client()
		running(t, e, c, "web", dockerexectest.ExitAfter(time.Minute, 3))
		require.ErrorContains(t, c.ContainerUnpause(t.Context(), "web"), "is not paused")
		require.NoError(t, c.ContainerPause(t.Context(), "web"))
		require.ErrorContains(t, c.ContainerPause(t.Context(), "web"), "is already paused")
		require.EqualError(t, c.ContainerStart(t.Context(), "web", container.StartOptions{}), "Error response from daemon: cannot start a paused container, try unpause instead")
		require.EqualError(t, c.ContainerRemove(t.Context(), "web", container.RemoveOptions{}), `Error response from daemon: cannot remove container "web": container is paused and must be unpaused first`)
		time.Sleep(time.Hour)
		assert.Equal(t, "paused", state(t, c, "web").Status)
		assert.True(t, state(t, c, "web").Running)
		require.NoError(t, c.ContainerUnpause(t.Context(), "web"))
		synctest.Wait()
		assert.Equal(t, 3, state(t, c, "web").ExitCode)
		require.ErrorContains(t, c.ContainerPause(t.Context(), "web"), "is not running")
	})
}

func TestAStopUnpauses(t *testing.T) {
	eachDialect(t, func(t *testing.T, e *dockerexectest.Engine, c *engineapi.Client, d dockerexectest.Dialect) {
		grace := 10
		running(t, e, c, "web", dockerexectest.UntilStopped(0))
		e.Container("web").Pause()
		stop := told(t, c)
		require.NoError(t, c.ContainerStop(t.Context(), "web", container.StopOptions{Timeout: &grace}))
		assert.Equal(t, [][]events.Action{{"kill", "unpause", "stop", "die"}, {"kill", "unpause", "die", "stop"}, {"unpause", "die", "cleanup"}}[d], stop())
	})
}

func TestRemove(t *testing.T) {
	eachDialect(t, func(t *testing.T, e *dockerexectest.Engine, c *engineapi.Client, d dockerexectest.Dialect) {
		running(t, e, c, "web", dockerexectest.IgnoreStop())
		id := e.Container("web").ID()
		require.EqualError(t, c.ContainerRemove(t.Context(), "web", container.RemoveOptions{}), "Error response from daemon: "+each(d,
			`cannot remove container "web": container is running: stop the container before removing or force remove`,
			"You cannot remove a running container "+id+". Stop the container before attempting removal or force remove",
			"cannot remove container "+id+" as it is running - running or paused containers cannot be removed without force: container state improper"))

		e.FailNext("DELETE /containers/web", dockerexectest.Slow(time.Minute))
		removed := make(chan error, 1)
		go func() { removed <- c.ContainerRemove(t.Context(), "web", container.RemoveOptions{Force: true}) }()
		synctest.Wait()
		assert.Equal(t, "removing", state(t, c, "web").Status)
		require.EqualError(t, c.ContainerRemove(t.Context(), "web", container.RemoveOptions{Force: true}), "Error response from daemon: removal of container web is already in progress")
		require.EqualError(t, c.ContainerStart(t.Context(), "web", container.StartOptions{}), "Error response from daemon: container is marked for removal and cannot be started")
		began := time.Now()
		require.NoError(t, <-removed)
		assert.Equal(t, time.Minute, time.Since(began))
		_, err := c.ContainerInspect(t.Context(), "web")
		require.EqualError(t, err, "Error response from daemon: "+each(d, "No such container: web", "No such container: web", `no container with name or ID "web" found: no such container`))
		assert.Nil(t, e.Container("web"))
	})
}

func TestRestartPolicy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := dockerexectest.New(t)
		c := e.Client()
		stop := told(t, c)
		running(t, e, c, "web", dockerexectest.Exit(5), func(_ *container.Config, h *container.HostConfig) {
			h.RestartPolicy = container.RestartPolicy{Name: container.RestartPolicyOnFailure, MaximumRetryCount: 2}
		})
		synctest.Wait()
		assert.Equal(t, "restarting", state(t, c, "web").Status)
		time.Sleep(time.Second)
		assert.Equal(t, "exited", state(t, c, "web").Status)
		assert.Equal(t, 3, e.Container("web").Starts())
		assert.Equal(t, []events.Action{"create", "start", "die", "start", "die", "start", "die"}, stop())

		stop = told(t, c)
		running(t, e, c, "gone", dockerexectest.Exit(0), func(_ *container.Config, h *container.HostConfig) { h.AutoRemove = true })
		synctest.Wait()
		assert.Nil(t, e.Container("gone"))
		assert.Equal(t, []events.Action{"create", "start", "die", "destroy"}, stop())
	})
}

func TestRestartRequest(t *testing.T) {
	eachDialect(t, func(t *testing.T, e *dockerexectest.Engine, c *engineapi.Client, d dockerexectest.Dialect) {
		grace := 1
		running(t, e, c, "web", dockerexectest.UntilStopped(0))
		stop := told(t, c)
		require.NoError(t, c.ContainerRestart(t.Context(), "web", container.StopOptions{Timeout: &grace}))
		assert.Equal(t, [][]events.Action{
			{"kill", "stop", "die", "start", "restart"}, {"kill", "die", "stop", "start", "restart"}, {"die", "cleanup", "init", "start", "restart"},
		}[d], stop())
		assert.True(t, state(t, c, "web").Running)
	})
}

func TestWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := dockerexectest.New(t)
		c := e.Client()
		e.LocalImage("example/web:1", dockerexectest.ExitAfter(time.Second, 4))
		create(t, c, "web", "example/web:1")
		assert.EqualValues(t, 0, untilEnd(t, c, "web")) // it does not run
		next, _ := c.ContainerWait(t.Context(), "web", container.WaitConditionNextExit)
		gone, _ := c.ContainerWait(t.Context(), "web", container.WaitConditionRemoved)
		time.Sleep(time.Minute)
		assert.Empty(t, next)
		start(t, c, "web")
		assert.EqualValues(t, 4, (<-next).StatusCode)
		time.Sleep(time.Minute)
		assert.Empty(t, gone)
		require.NoError(t, c.ContainerRemove(t.Context(), "web", container.RemoveOptions{}))
		assert.EqualValues(t, 4, (<-gone).StatusCode)
		_, errs := c.ContainerWait(t.Context(), "web", "")
		require.EqualError(t, <-errs, "Error response from daemon: No such container: web")
	})
}
