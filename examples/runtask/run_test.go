package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/docker/cli/cli/config"
	"github.com/docker/docker/api/types/container"
	"github.com/dockerexec/dockerexec"
	"github.com/dockerexec/dockerexec/dockerexectest"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const webImage = "registry.test/web:1"

// outcome is what is seen of a run.
type outcome struct {
	code   int
	err    error
	output string
	engine *dockerexectest.Engine
}

// runOn runs a task with a network and two volumes, one of which exists before, on
// an engine for tests, whose faults set up sets. It expects that nothing is left.
func runOn(t *testing.T, ctx context.Context, p dockerexectest.Program, setUp func(*dockerexectest.Engine), flags ...string) (o outcome) {
	t.Helper()
	o.engine = dockerexectest.New(t)
	o.engine.Image(webImage, p)
	if setUp != nil {
		setUp(o.engine)
	}
	client := o.engine.Client()
	file := write(t, `{"id": "task1"}`)
	parsed, err := parseFlags(append([]string{"-f", file, "-image", webImage, "-name", "web", "-volume", "data:/data", "-network", "net", "-grace", "7s"}, flags...), io.Discard)
	require.NoError(t, err)
	task, err := parsed.task()
	require.NoError(t, err)
	var out bytes.Buffer
	o.code, o.err = run(ctx, client, task, newPrinter(&out), parsed.keepVolumes)
	o.output = out.String()
	assert.Empty(t, o.engine.Containers())
	assert.NotContains(t, o.engine.Networks(), "net")
	return o
}

// inBubble runs a test in fake time.
func inBubble(t *testing.T, test func(t *testing.T)) { t.Helper(); synctest.Test(t, test) }

func TestRunGivesTheContainersExitCode(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		o := runOn(t, t.Context(), func(p *dockerexectest.Process) int {
			io.WriteString(p.Stdout, "hello world\n")
			io.WriteString(p.Stderr, "oops\n")
			p.Sleep(time.Minute)
			return 3
		}, nil)
		assert.Equal(t, 3, o.code)
		require.EqualError(t, o.err, "task: non-zero exit (3)")
		for _, line := range []string{"state starting", "state running", "log | hello world", "log ! oops", "state failed", "exit code 3"} {
			assert.Contains(t, o.output, "\n"+line+"\n")
		}
		assert.Empty(t, o.engine.Volumes())
	})
}

func TestRunOfATaskThatSucceeds(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		o := runOn(t, t.Context(), dockerexectest.Exit(0), nil, "-keep-volumes")
		require.NoError(t, o.err)
		assert.Zero(t, o.code)
		assert.Equal(t, []string{"data"}, o.engine.Volumes())
	})
}

func TestRunLogsInAsDockerDoes(t *testing.T) {
	config.SetDir(t.TempDir())
	auth := base64.StdEncoding.EncodeToString([]byte("alice:secret"))
	require.NoError(t, os.WriteFile(filepath.Join(config.Dir(), "config.json"), []byte(`{"auths": {"registry.test": {"auth": "`+auth+`"}}}`), 0o600))
	inBubble(t, func(t *testing.T) {
		o := runOn(t, t.Context(), dockerexectest.Exit(0), func(e *dockerexectest.Engine) {
			e.Image(webImage, dockerexectest.Exit(0), dockerexectest.WithCredentials("alice", "secret"))
		})
		require.NoError(t, o.err)
	})
	assert.Equal(t, "https://index.docker.io/v1/", registryKey("nginx:alpine"))
}

// A volume that was there before is somebody else's.
func TestRunKeepsVolumesThatItDidNotMake(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		o := runOn(t, t.Context(), dockerexectest.Exit(0), func(e *dockerexectest.Engine) {
			code, err := runtaskOn(t, e, "-image", webImage, "-volume", "data:/data", "-keep-volumes")
			require.NoError(t, err)
			require.Zero(t, code)
		})
		require.NoError(t, o.err)
		assert.Equal(t, []string{"data"}, o.engine.Volumes())
	})
}

func runtaskOn(t *testing.T, e *dockerexectest.Engine, flags ...string) (int, error) {
	t.Helper()
	o, err := parseFlags(flags, io.Discard)
	require.NoError(t, err)
	task, err := o.task()
	require.NoError(t, err)
	return run(t.Context(), e.Client(), task, newPrinter(io.Discard), o.keepVolumes)
}

func TestRunSaysWhichVolumeStays(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		o := runOn(t, t.Context(), dockerexectest.Exit(0), func(e *dockerexectest.Engine) {
			e.FailNext("DELETE /volumes/data", dockerexectest.Refuse(http.StatusInternalServerError, "no"))
		})
		assert.Equal(t, 125, o.code)
		require.ErrorContains(t, o.err, "remove volume data: ")
	})
}

func TestTaskThatIsNotStarted(t *testing.T) {
	for name, fail := range map[string]string{"pull": "POST /images/create", "create": "POST /containers/create", "start": "POST /containers/*/start"} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				o := runOn(t, t.Context(), dockerexectest.Exit(0), func(e *dockerexectest.Engine) {
					e.FailAll(fail, dockerexectest.Refuse(http.StatusBadRequest, "this cannot be"))
				})
				assert.Equal(t, 125, o.code)
				require.ErrorContains(t, o.err, "this cannot be")
				assert.Contains(t, o.output, "state rejected\n")
				assert.NotContains(t, o.output, "exit code")
				assert.Empty(t, o.engine.Volumes())
			})
		})
	}
}

func TestInterruptStopsTheContainer(t *testing.T) {
	for name, tt := range map[string]struct {
		program dockerexectest.Program
		code    int
		err     string // empty: nil
	}{
		"it ends with 0":            {dockerexectest.UntilStopped(time.Second), 0, ""},
		"it does not heed the stop": {dockerexectest.IgnoreStop(), 137, "task: non-zero exit (137): context canceled"},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				first, interrupt := context.WithCancel(t.Context())
				time.AfterFunc(time.Minute, interrupt)
				o := runOn(t, first, tt.program, nil)
				assert.Equal(t, tt.code, o.code)
				if tt.err == "" {
					require.NoError(t, o.err)
				} else {
					require.EqualError(t, o.err, tt.err)
				}
				assert.Contains(t, o.output, "\nstate shutdown\n")
			})
		})
	}
}

func TestInterruptBeforeTheStart(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		first, interrupt := context.WithCancel(t.Context())
		interrupt()
		o := runOn(t, first, dockerexectest.Exit(0), nil)
		assert.Equal(t, 125, o.code)
		require.EqualError(t, o.err, "interrupted before the task had started: context canceled")
	})
}

func TestUnhealthyContainerIsStopped(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		o := runOn(t, t.Context(), dockerexectest.UntilStopped(0), func(e *dockerexectest.Engine) {
			e.Image(webImage, dockerexectest.UntilStopped(0), dockerexectest.WithProbe(dockerexectest.Exit(1)),
				dockerexectest.WithHealthcheck(container.HealthConfig{Test: []string{"CMD", "check"}, Interval: time.Second, Retries: 2}))
		})
		assert.Equal(t, 125, o.code, "its own code is 0")
		require.ErrorIs(t, o.err, dockerexec.ErrContainerUnhealthy)
		assert.Contains(t, o.output, "\nstate failed\n")
	})
}
