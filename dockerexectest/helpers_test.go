package dockerexectest_test

import (
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/events"
	"github.com/docker/docker/api/types/image"
	engineapi "github.com/docker/docker/client"
	"github.com/docker/docker/pkg/stdcopy"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/dockerexec/dockerexec/dockerexectest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var dialects = []dockerexectest.Dialect{dockerexectest.DockerV29, dockerexectest.DockerV20, dockerexectest.PodmanV4}

// bubble runs a test in fake time.
func bubble(t *testing.T, name string, test func(t *testing.T)) {
	t.Helper()
	t.Run(name, func(t *testing.T) { synctest.Test(t, test) })
}

// eachDialect runs a test in fake time against each dialect.
func eachDialect(t *testing.T, test func(t *testing.T, e *dockerexectest.Engine, c *engineapi.Client, d dockerexectest.Dialect)) {
	t.Helper()
	for _, d := range dialects {
		bubble(t, d.String(), func(t *testing.T) {
			e := dockerexectest.New(t, dockerexectest.WithDialect(d))
			test(t, e, e.Client(), d)
		})
	}
}

// each picks what a dialect says: of Docker 29, of Docker 20.10, of Podman.
func each(d dockerexectest.Dialect, v29, v20, podman string) string {
	return []string{v29, v20, podman}[d]
}

func create(t testing.TB, c *engineapi.Client, name, ref string, change ...func(*container.Config, *container.HostConfig)) string {
	t.Helper()
	config, hostConfig := &container.Config{Image: ref}, &container.HostConfig{}
	for _, f := range change {
		f(config, hostConfig)
	}
	made, err := c.ContainerCreate(t.Context(), config, hostConfig, nil, nil, name)
	require.NoError(t, err)
	return made.ID
}

func start(t testing.TB, c *engineapi.Client, name string) {
	t.Helper()
	require.NoError(t, c.ContainerStart(t.Context(), name, container.StartOptions{}))
}

func running(t testing.TB, e *dockerexectest.Engine, c *engineapi.Client, name string, p dockerexectest.Program, change ...func(*container.Config, *container.HostConfig)) {
	t.Helper()
	e.LocalImage("example/"+name+":1", p)
	create(t, c, name, "example/"+name+":1", change...)
	start(t, c, name)
}

func state(t testing.TB, c *engineapi.Client, name string) *container.State {
	t.Helper()
	answer, err := c.ContainerInspect(t.Context(), name)
	require.NoError(t, err)
	return answer.State
}

// untilEnd waits for the container's end and returns its code.
func untilEnd(t testing.TB, c *engineapi.Client, name string) int64 {
	t.Helper()
	ended, failed := c.ContainerWait(t.Context(), name, container.WaitConditionNotRunning)
	select {
	case over := <-ended:
		return over.StatusCode
	case err := <-failed:
		require.NoError(t, err)
		return -1
	}
}

func pull(t testing.TB, c *engineapi.Client, ref string, options image.PullOptions) (string, error) {
	t.Helper()
	body, err := c.ImagePull(t.Context(), ref, options)
	if err != nil {
		return "", err
	}
	defer body.Close()
	text, err := io.ReadAll(body)
	return strings.ReplaceAll(string(text), "\r\n", "\n"), err
}

// logs returns the lines of both streams, each as "out: …" or "err: …".
func logs(t testing.TB, c *engineapi.Client, name string, options container.LogsOptions) (string, error) {
	t.Helper()
	options.ShowStdout, options.ShowStderr = true, true
	body, err := c.ContainerLogs(t.Context(), name, options)
	if err != nil {
		return "", err
	}
	defer body.Close()
	var text strings.Builder
	_, err = stdcopy.StdCopy(prefixed{"out: ", &text}, prefixed{"err: ", &text}, body)
	return text.String(), err
}

type prefixed struct {
	prefix string
	to     *strings.Builder
}

func (p prefixed) Write(text []byte) (int, error) {
	p.to.WriteString(p.prefix)
	return p.to.Write(text)
}

// eventsUntil collects the actions up to one.
func eventsUntil(t testing.TB, messages <-chan events.Message, errs <-chan error, last events.Action) []events.Action {
	t.Helper()
	var actions []events.Action
	for {
		select {
		case m := <-messages:
			actions = append(actions, m.Action)
			if m.Action == last {
				return actions
			}
		case err := <-errs:
			t.Fatalf("after %v: %v", actions, err)
		case <-t.Context().Done():
			t.Fatal(t.Context().Err())
		}
	}
}

// recorder is a test that may fail without failing the real one.
type recorder struct {
	testing.TB
	cleanups []func()
	errors   []string
}

func (r *recorder) Helper()           {}
func (r *recorder) Cleanup(do func()) { r.cleanups = append(r.cleanups, do) }
func (r *recorder) Errorf(format string, args ...any) {
	r.errors = append(r.errors, strings.TrimSpace(fmt.Sprintf(format, args...)))
}
func (r *recorder) end() {
	for i := len(r.cleanups) - 1; i >= 0; i-- {
		r.cleanups[i]()
	}
	r.cleanups = nil
}
