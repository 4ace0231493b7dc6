package dockerexectest_test

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockerexec/dockerexec/dockerexectest"
)

func TestAProgramThatPanics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &recorder{TB: t}
		e := dockerexectest.New(r)
		c := e.Client()
		running(t, e, c, "web", func(*dockerexectest.Process) int { panic("of the test") })
		assert.EqualValues(t, 2, untilEnd(t, c, "web"))
		require.Len(t, r.errors, 1)
		assert.True(t, strings.HasPrefix(r.errors[0], "dockerexectest: the program of container web panicked: of the test\n"), r.errors[0])
		assert.Contains(t, r.errors[0], "programs_test.go")
		r.end()
	})
}

// A health check that panics fails the test as well, and has found no health.
func TestACheckThatPanics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &recorder{TB: t}
		e := dockerexectest.New(r)
		c := e.Client()
		e.LocalImage("example/web:1", dockerexectest.UntilStopped(0), dockerexectest.WithHealthcheck(container.HealthConfig{Interval: time.Second, Retries: 1}),
			dockerexectest.WithProbe(func(*dockerexectest.Process) int { panic("of the check") }))
		create(t, c, "web", "example/web:1")
		start(t, c, "web")
		time.Sleep(time.Second)
		synctest.Wait()
		health := state(t, c, "web").Health
		assert.Equal(t, "unhealthy", health.Status)
		assert.Equal(t, 2, health.Log[0].ExitCode)
		require.Len(t, r.errors, 1)
		assert.True(t, strings.HasPrefix(r.errors[0], "dockerexectest: the program of container web panicked: of the check\n"), r.errors[0])
		r.end()
	})
}

func TestPrograms(t *testing.T) {
	for name, test := range map[string]struct {
		program dockerexectest.Program
		takes   time.Duration
		code    int64
	}{
		"nil":                      {},
		"exit":                     {program: dockerexectest.Exit(3), code: 3},
		"a code that is too great": {program: dockerexectest.Exit(256 + 7), code: 7},
		"a negative code":          {program: dockerexectest.Exit(-1), code: 255},
		"later":                    {program: dockerexectest.ExitAfter(time.Hour, 4), takes: time.Hour, code: 4},
		"prints alone":             {program: dockerexectest.Print(nil, "x")},
		"ends its goroutine":       {program: func(*dockerexectest.Process) int { runtime.Goexit(); return 0 }, code: 2},
		"takes too much memory":    {program: func(p *dockerexectest.Process) int { p.OOM(); return 0 }, code: 137},
		"does not sleep when ended": {program: func(p *dockerexectest.Process) int {
			p.Container.Exit(9)
			return map[bool]int{true: 1}[p.Sleep(time.Hour)]
		}, code: 9},
	} {
		bubble(t, name, func(t *testing.T) {
			e := dockerexectest.New(t)
			c := e.Client()
			began := time.Now()
			running(t, e, c, "web", test.program)
			assert.Equal(t, test.code, untilEnd(t, c, "web"))
			assert.Equal(t, test.takes, time.Since(began))
			assert.Equal(t, name == "takes too much memory", state(t, c, "web").OOMKilled)
		})
	}
}

func TestWhatAProgramSees(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := dockerexectest.New(t)
		c := e.Client()
		e.LocalImage("example/web:1", func(p *dockerexectest.Process) int {
			count, _ := p.Files.Read("/count")
			p.Files.Write("/count", count+"x")
			fmt.Fprintln(p.Stdout, p.Args, p.Env, p.Config.Labels["a"], p.HostConfig.NetworkMode, p.Container.Name(), count)
			s := <-p.Signals
			fmt.Fprintln(p.Stderr, int(s))
			return int(s)
		}, dockerexectest.WithConfig(func(c *container.Config) { c.Entrypoint, c.Cmd = []string{"/web"}, []string{"serve"} }))
		create(t, c, "web", "example/web:1", func(c *container.Config, h *container.HostConfig) {
			c.Cmd, c.Env, c.Labels, h.NetworkMode = []string{"now"}, []string{"A=1"}, map[string]string{"a": "b"}, "host"
		})
		for range 2 {
			start(t, c, "web")
			require.NoError(t, c.ContainerKill(t.Context(), "web", "SIGUSR2"))
			assert.EqualValues(t, 12, untilEnd(t, c, "web"))
		}
		assert.Equal(t, "[/web now] [A=1] b host web \n12\n[/web now] [A=1] b host web x\n12\n", e.Container("web").Log())
	})
}

// What a program does after the end of its container is not seen.
func TestAProgramThatGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := dockerexectest.New(t)
		c := e.Client()
		var late error
		running(t, e, c, "web", func(p *dockerexectest.Process) int {
			<-p.Killed
			_, late = fmt.Fprintln(p.Stdout, "late")
			return 3
		})
		require.NoError(t, c.ContainerKill(t.Context(), "web", ""))
		synctest.Wait()
		require.Error(t, late)
		assert.Empty(t, e.Container("web").Log())
		assert.Equal(t, 137, state(t, c, "web").ExitCode)
	})
}

// A program that is deaf to its end is named.
func TestAProgramThatDoesNotEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &recorder{TB: t}
		e := dockerexectest.New(r)
		running(t, e, e.Client(), "deaf", func(*dockerexectest.Process) int { time.Sleep(time.Minute); return 0 })
		began := time.Now()
		r.end()
		assert.Equal(t, 10*time.Second, time.Since(began))
		assert.Equal(t, []string{"dockerexectest: a program does not end although it is killed: [deaf]"}, r.errors)
		time.Sleep(time.Minute) // until it has ended all the same
	})
}
