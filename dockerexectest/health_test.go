package dockerexectest_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/events"
	engineapi "github.com/docker/docker/client"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockerexec/dockerexec/dockerexectest"
)

func checked(check container.HealthConfig) func(*container.Config, *container.HostConfig) {
	return func(c *container.Config, _ *container.HostConfig) { c.Healthcheck = &check }
}

// health runs a container of testtask with a check and returns how its health is
// at the end of each second.
func health(t *testing.T, e *dockerexectest.Engine, c *engineapi.Client, check container.HealthConfig, seconds int, args ...string) []string {
	t.Helper()
	e.LocalImage("example/task:1", testtask, dockerexectest.WithProbe(testtask))
	create(t, c, "task", "example/task:1", checked(check), func(c *container.Config, _ *container.HostConfig) { c.Cmd = args })
	start(t, c, "task")
	var list []string
	for range seconds {
		time.Sleep(time.Second)
		synctest.Wait()
		if h := state(t, c, "task").Health; h != nil {
			list = append(list, fmt.Sprint(h.Status, " ", h.FailingStreak))
		}
	}
	return list
}

func TestHealth(t *testing.T) {
	test := []string{"CMD", "health", "/ok"}
	for name, test := range map[string]struct {
		check container.HealthConfig
		args  []string
		want  []string
	}{
		"healthy": {container.HealthConfig{Test: test, Interval: 2 * time.Second}, []string{"write", "/ok", "1", "--", "sleep", "1h"},
			[]string{"starting 0", "healthy 0", "healthy 0"}},
		"unhealthy": {container.HealthConfig{Test: test, Interval: time.Second, Retries: 2}, []string{"sleep", "1h"},
			[]string{"starting 1", "unhealthy 2", "unhealthy 3"}},
		"three retries": {container.HealthConfig{Test: test, Interval: time.Second}, []string{"sleep", "1h"},
			[]string{"starting 1", "starting 2", "unhealthy 3"}},
		"start period": {container.HealthConfig{Test: test, Interval: time.Second, StartPeriod: 2500 * time.Millisecond, StartInterval: time.Second, Retries: 1}, []string{"sleep", "1h"},
			[]string{"starting 0", "starting 0", "unhealthy 1"}},
		"healthy late": {container.HealthConfig{Test: test, Interval: time.Second, Retries: 1}, []string{"sleep", "1500ms", "--", "write", "/ok", "1", "--", "sleep", "1h"},
			[]string{"unhealthy 1", "healthy 0", "healthy 0"}},
		"too slow": {container.HealthConfig{Test: []string{"CMD", "sleep", "1m"}, Interval: time.Second, Timeout: time.Second, Retries: 1}, []string{"sleep", "1h"},
			[]string{"starting 0", "unhealthy 1", "unhealthy 1"}},
		"none":  {container.HealthConfig{Test: []string{"NONE"}}, []string{"sleep", "1h"}, nil},
		"ended": {container.HealthConfig{Test: test, Interval: time.Second}, []string{"write", "/ok", "1", "--", "sleep", "1500ms"}, []string{"healthy 0", "unhealthy 0"}},
	} {
		bubble(t, name, func(t *testing.T) {
			e := dockerexectest.New(t)
			assert.Equal(t, test.want, health(t, e, e.Client(), test.check, max(len(test.want), 2), test.args...))
		})
	}
}

func TestEventsOfAHealthCheck(t *testing.T) {
	eachDialect(t, func(t *testing.T, e *dockerexectest.Engine, c *engineapi.Client, d dockerexectest.Dialect) {
		stop := told(t, c)
		got := health(t, e, c, container.HealthConfig{Test: []string{"CMD", "exit", "0"}, Interval: time.Second}, 2, "sleep", "1h")
		want := []events.Action{"create", "start", "exec_create: exit 0", "exec_start: exit 0", "exec_die", "health_status: healthy", "exec_create: exit 0", "exec_start: exit 0", "exec_die"}
		if d == dockerexectest.PodmanV4 { // nobody runs them
			assert.Empty(t, got)
			want = []events.Action{"create", "init", "start"}
		}
		assert.Equal(t, want, stop())
	})
}

// Without its monitor a container is unhealthy, and no event says so.
func TestHealthOfAPausedContainer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := dockerexectest.New(t)
		c := e.Client()
		health(t, e, c, container.HealthConfig{Test: []string{"CMD", "print", "1"}, Interval: time.Second}, 1, "sleep", "1h")
		assert.Equal(t, "line 1\nline on stderr\n", state(t, c, "task").Health.Log[0].Output)
		stop := told(t, c)
		require.NoError(t, c.ContainerPause(t.Context(), "task"))
		assert.Equal(t, "unhealthy", state(t, c, "task").Health.Status)
		require.NoError(t, c.ContainerUnpause(t.Context(), "task"))
		assert.Equal(t, "unhealthy", state(t, c, "task").Health.Status)
		time.Sleep(time.Second)
		assert.Equal(t, []events.Action{"pause", "unpause", "exec_create: print 1", "exec_start: print 1", "exec_die", "health_status: healthy"}, stop())
		require.NoError(t, c.ContainerStop(t.Context(), "task", container.StopOptions{}))
		assert.Equal(t, "unhealthy", state(t, c, "task").Health.Status)
		start(t, c, "task")
		assert.Equal(t, "starting", state(t, c, "task").Health.Status)
	})
}

func TestSetHealth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := dockerexectest.New(t)
		c := e.Client()
		running(t, e, c, "web", dockerexectest.UntilStopped(0), checked(container.HealthConfig{Test: []string{"CMD", "check"}, Interval: time.Second}))
		assert.Equal(t, &container.Health{Status: "starting", Log: []*container.HealthcheckResult{}}, state(t, c, "web").Health) // no null
		e.Container("web").SetHealth("unhealthy")
		found := state(t, c, "web").Health
		assert.Equal(t, 3, found.FailingStreak)
		assert.Equal(t, 1, found.Log[0].ExitCode)
		stop := told(t, c)
		time.Sleep(1500 * time.Millisecond)
		found = state(t, c, "web").Health
		assert.Equal(t, "unhealthy", found.Status) // whatever the check says
		assert.Equal(t, 4, found.FailingStreak)    // three at once, and the check since
		assert.Len(t, found.Log, 2)
		e.Container("web").SetHealth("healthy")
		assert.Equal(t, []events.Action{"exec_create: check", "exec_start: check", "exec_die", "health_status: healthy"}, stop())
		running(t, e, c, "bare", dockerexectest.UntilStopped(0))
		e.Container("bare").SetHealth("healthy")
		assert.Equal(t, "healthy", state(t, c, "bare").Health.Status)
	})
}

// The end of a container ends the check that runs.
func TestAnEndDuringACheck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := dockerexectest.New(t)
		c := e.Client()
		health(t, e, c, container.HealthConfig{Test: []string{"CMD", "sleep", "1m"}, Interval: 500 * time.Millisecond}, 1, "sleep", "1h")
		stop := told(t, c)
		require.NoError(t, c.ContainerKill(t.Context(), "task", ""))
		assert.Equal(t, []events.Action{"kill", "exec_die", "die"}, stop())
		assert.Empty(t, state(t, c, "task").Health.Log)
	})
}

// What a container's check leaves open is taken from its image's.
func TestACheckIsCompletedByTheImages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := dockerexectest.New(t)
		c := e.Client()
		e.LocalImage("example/web:1", nil, dockerexectest.WithHealthcheck(container.HealthConfig{
			Interval: time.Second, Timeout: 2 * time.Second, StartPeriod: 3 * time.Second, StartInterval: 4 * time.Second, Retries: 5}))
		create(t, c, "web", "example/web:1", func(c *container.Config, _ *container.HostConfig) {
			c.Healthcheck = &container.HealthConfig{Interval: time.Minute}
		})
		assert.Equal(t, &container.HealthConfig{Test: []string{"CMD", "/health"},
			Interval: time.Minute, Timeout: 2 * time.Second, StartPeriod: 3 * time.Second, StartInterval: 4 * time.Second, Retries: 5},
			e.Container("web").Inspect().Config.Healthcheck)
	})
}
