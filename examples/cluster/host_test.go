package cluster

import (
	"context"
	"errors"
	"fmt"
	"net/rpc"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	engineapi "github.com/docker/docker/client"
	"github.com/moby/swarmkit/v2/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"

	"github.com/dockerexec/dockerexec/examples/control"
)

// host is one of the three: namespaces that hack/host.sh makes, with an engine, a registry
// and a swarm node in them. Its folder is its disk.
type host struct {
	name, address, kind, dir string
	engine                   *engineapi.Client
	seen                     *recorder

	process *exec.Cmd // nil: the host is off
	orders  *rpc.Client
	conn    *grpc.ClientConn // to the node's control socket; nil: the node does not run
	swarm   api.ControlClient
	logs    api.LogsClient
	id      string // of the node, in the swarm

	mu   sync.Mutex
	away []span // when the swarm did not hear of it, or not well
}

// span is a stretch of time. It has not ended yet if its end is zero.
type span struct{ begin, end time.Time }

func (s span) holds(t time.Time) bool {
	return !t.Before(s.begin) && (s.end.IsZero() || t.Before(s.end))
}

// newHost returns the host of that number, which is off, with an empty disk.
func newHost(t *testing.T, dir, name, kind string, number int) *host {
	t.Helper()
	h := &host{name: name, kind: kind, dir: filepath.Join(dir, name), address: fmt.Sprint("10.0.0.", number), seen: newRecorder()}
	var err error
	h.engine, err = engineapi.NewClientWithOpts(engineapi.WithHost("unix://"+filepath.Join(h.dir, "docker.sock")), engineapi.WithAPIVersionNegotiation())
	require.NoError(t, err)
	return h
}

// switchOn starts the host with the disk that it has, and returns once its engine answers.
func (h *host) switchOn(t *testing.T) {
	t.Helper()
	require.NoError(t, os.MkdirAll(h.dir, 0o755))
	socket := filepath.Join(h.dir, "orders")
	require.NoError(t, removeIfThere(socket))
	program, err := os.Executable()
	require.NoError(t, err)
	output, err := os.OpenFile(filepath.Join(h.dir, "host.log"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	require.NoError(t, err)
	defer output.Close()
	h.process = exec.Command("../../hack/host.sh", h.dir, h.kind, h.address, program)
	h.process.Env = append(os.Environ(), ordersFor+"="+h.dir)
	h.process.Stdout, h.process.Stderr = output, output
	require.NoError(t, h.process.Start())
	require.Eventually(t, func() bool {
		var err error
		h.orders, err = rpc.Dial("unix", socket)
		return err == nil
	}, patience, 50*time.Millisecond, "host %s does not come up", h.name)
}

// kill ends all processes of the host at once, as a power cut does.
func (h *host) kill(t *testing.T) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(h.dir, "session.pid"))
	require.NoError(t, err)
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	require.NoError(t, err)
	require.NoError(t, syscall.Kill(pid, syscall.SIGKILL))
	h.seen.allEnded(time.Now())
	_ = h.process.Wait() // the kernel lets go of the first process last
	h.process = nil
	h.disconnect(t)
	_ = h.orders.Close()
}

// do has the host run a program, and returns its output.
func (h *host) do(t *testing.T, args ...string) string {
	t.Helper()
	var output string
	require.NoError(t, h.orders.Call("Orders.Run", args, &output), "on host %s", h.name)
	return output
}

// controlEngine stops, kills or starts the engine, see hack/engine.sh.
func (h *host) controlEngine(t *testing.T, args ...string) {
	t.Helper()
	h.do(t, append([]string{filepath.Join(h.dir, "engine")}, args...)...)
}

// environment returns what hack/session.sh tells of engine, registry and image.
func (h *host) environment(t *testing.T) map[string]string {
	t.Helper()
	var environment map[string]string
	require.NoError(t, h.orders.Call("Orders.Environment", 0, &environment))
	return environment
}

// startNode starts the host's node, with the state that it has, and returns once it says that it
// is ready: the swarm may count one as ready that was killed just now.
func (h *host) startNode(t *testing.T, flags ...string) {
	t.Helper()
	args := append([]string{filepath.Join(h.dir, "node.log"), filepath.Join(filepath.Dir(h.dir), "swarmnode"),
		"-state-dir", h.state(), "-control", filepath.Join(h.dir, "control"), "-listen", h.address + ":4242",
		"-hostname", h.name, "-host", "unix://" + filepath.Join(h.dir, "docker.sock"), "-log-level", "error"}, flags...)
	require.NoError(t, removeIfThere(filepath.Join(h.dir, "control"))) // of a killed one
	before := h.timesReady()
	require.NoError(t, h.orders.Call("Orders.Start", args, new(bool)), "on host %s", h.name)
	require.Eventually(t, func() bool { return h.timesReady() > before }, patience, 20*time.Millisecond, "the node of host %s does not get ready", h.name)
	var err error
	h.conn, err = control.Dial(filepath.Join(h.dir, "control"))
	require.NoError(t, err)
	h.swarm, h.logs = api.NewControlClient(h.conn), api.NewLogsClient(h.conn)
}

// timesReady counts how often the node has said that it is ready.
func (h *host) timesReady() int {
	text, _ := os.ReadFile(filepath.Join(h.dir, "node.log")) // there is none before the first start
	return strings.Count(string(text), " is ready")
}

// state is the folder with all that the node knows.
func (h *host) state() string { return filepath.Join(h.dir, "state") }

// endNode ends the node with a signal; containers go on.
func (h *host) endNode(t *testing.T, signal syscall.Signal) {
	t.Helper()
	h.disconnect(t)
	var how string
	require.NoError(t, h.orders.Call("Orders.End", int(signal), &how), "on host %s", h.name)
	want := "exit status 0"
	if signal == syscall.SIGKILL {
		want = "signal: killed"
	}
	require.Equal(t, want, how, "on host %s", h.name)
}

func (h *host) disconnect(t *testing.T) {
	t.Helper()
	if h.conn != nil {
		require.NoError(t, h.conn.Close())
		h.conn = nil
	}
}

// unplug pulls the host's cable, and plugIn puts it back.
func (h *host) unplug(t *testing.T) { t.Helper(); h.cable(t, "down") }
func (h *host) plugIn(t *testing.T) { t.Helper(); h.cable(t, "up") }

func (h *host) cable(t *testing.T, is string) {
	t.Helper()
	out, err := exec.Command("ip", "link", "set", h.name, is).CombinedOutput()
	require.NoError(t, err, "%s", out)
}

// goesAway notes that the swarm may run the host's tasks elsewhere from now on; isBack ends that.
func (h *host) goesAway() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.away = append(h.away, span{begin: time.Now()})
}

func (h *host) isBack() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if n := len(h.away); n > 0 && h.away[n-1].end.IsZero() {
		h.away[n-1].end = time.Now()
	}
}

func (h *host) wasAwayAt(t time.Time) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, s := range h.away {
		if s.holds(t) {
			return true
		}
	}
	return false
}

// containers are those of tasks, of whatever state.
func (h *host) containers(ctx context.Context) ([]container.Summary, error) {
	list, err := h.engine.ContainerList(ctx, container.ListOptions{All: true, Filters: filters.NewArgs(filters.Arg("label", "com.docker.swarm.task"))})
	if err != nil {
		return nil, fmt.Errorf("host %s: %w", h.name, err)
	}
	return list, nil
}

func taskOf(c container.Summary) string { return c.Labels["com.docker.swarm.task.id"] }

// race is how a report of the race detector begins, and panicked how the end of a program does.
var (
	race     = regexp.MustCompile(`(?s)WARNING: DATA RACE.{0,1000}`)
	panicked = regexp.MustCompile(`(?s)\n(panic:|fatal error:).{0,1000}`)
)

// checkLog looks at what the node has written.
func (h *host) checkLog(t *testing.T, password string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(h.dir, "node.log"))
	if !errors.Is(err, os.ErrNotExist) {
		require.NoError(t, err)
	}
	assert.Empty(t, race.FindString(string(text)), "host %s", h.name)
	assert.Empty(t, panicked.FindString(string(text)), "host %s", h.name)
	if password != "" {
		assert.NotContains(t, string(text), password, "host %s", h.name)
	}
	if t.Failed() {
		t.Logf("the end of the log of the node of host %s:\n%s", h.name, text[max(0, len(text)-6000):])
	}
}

func removeIfThere(path string) error {
	if err := os.Remove(path); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}
