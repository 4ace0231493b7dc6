package main

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
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
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/dockerexec/dockerexec/examples/control"
)

// swarm is a swarm of one node: a swarmnode process and what its control API says.
type swarm struct {
	t      testing.TB
	engine *engineapi.Client
	binary func() (string, error) // what the node runs
	env    []string               // and with which variables more
	api    api.ControlClient
	conn   *grpc.ClientConn
	flags  []string
	dir    string

	node    *exec.Cmd    // nil: it does not run
	nodeID  string       // empty: it has never run
	log     string       // the file with its output, of all its starts
	watched <-chan error // nil: nobody watches
	unwatch context.CancelFunc

	tasks *control.Tasks
}

// newSwarm starts a node with an empty state and more flags. The test's end
// removes all services, stops the node and checks that it leaves no container.
func newSwarm(t testing.TB, flags ...string) *swarm {
	t.Helper()
	return newSwarmOf(t, build, nil, flags...)
}

func newSwarmOf(t testing.TB, binary func() (string, error), env []string, flags ...string) *swarm {
	t.Helper()
	engine := engineClient(t)
	dir, err := shortDir()
	require.NoError(t, err)
	s := &swarm{
		t: t, engine: engine, binary: binary, env: env, dir: dir, log: filepath.Join(dir, "log"),
		flags: append([]string{"-state-dir", filepath.Join(dir, "state"), "-control", filepath.Join(dir, "control"),
			"-listen", freeAddress(t), "-host", fromHarness(t, "DOCKEREXEC_TEST_HOST")}, flags...),
		tasks: control.NewTasks(),
	}
	t.Cleanup(s.end)
	t.Cleanup(s.clear)
	s.start()
	return s
}

// shortDir makes a folder for a socket, whose path must be short: a test's own is not.
func shortDir() (string, error) { return os.MkdirTemp(os.Getenv("DOCKEREXEC_TEST_DIR"), "node") }

// freeAddress is an address that nobody listens on.
func freeAddress(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	return l.Addr().String()
}

// start starts the node, with the state that it has, and returns once it is ready.
func (s *swarm) start() {
	s.t.Helper()
	node, ready := s.launch(s.flags...)
	require.Regexp(s.t, `^node \w{25} is ready, control socket /`, ready)
	s.nodeID = strings.Fields(ready)[1]
	s.node = node
	// A connection from before would first have to learn that this is another process.
	var err error
	s.conn, err = control.Dial(filepath.Join(s.dir, "control"))
	require.NoError(s.t, err)
	s.api = api.NewControlClient(s.conn)
	var ctx context.Context
	ctx, s.unwatch = context.WithCancel(context.Background())
	s.watched, err = s.tasks.Watch(ctx, s.conn, nil)
	require.NoError(s.t, err)
}

// launch starts a swarmnode and returns what it says once it is ready.
func (s *swarm) launch(flags ...string) (node *exec.Cmd, ready string) {
	s.t.Helper()
	binary, err := s.binary()
	require.NoError(s.t, err)
	output, err := os.OpenFile(s.log, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	require.NoError(s.t, err)
	defer output.Close()
	out, in, err := os.Pipe()
	require.NoError(s.t, err)
	defer out.Close()
	node = exec.Command(binary, flags...)
	// end looks for races in the log. By default a program with the race detector takes a second to exit.
	node.Env = append(append(os.Environ(), "GORACE=exitcode=0 atexit_sleep_ms=100"), s.env...)
	node.Stdout, node.Stderr = in, output
	err = node.Start()
	in.Close()
	require.NoError(s.t, err)
	require.NoError(s.t, out.SetReadDeadline(time.Now().Add(time.Minute)))
	if ready, err = bufio.NewReader(out).ReadString('\n'); err != nil {
		_ = node.Process.Kill()
		require.NoError(s.t, err, "the node does not get ready (%v)", node.Wait())
	}
	return node, ready
}

// stop ends the node with SIGTERM; containers go on.
func (s *swarm) stop() { s.t.Helper(); require.NoError(s.t, s.signal(syscall.SIGTERM)) }

// kill ends the node with SIGKILL; containers go on.
func (s *swarm) kill() {
	s.t.Helper()
	require.EqualError(s.t, s.signal(syscall.SIGKILL), "signal: killed")
}

func (s *swarm) signal(signal os.Signal) error {
	if s.watched != nil {
		s.unwatch()
		assert.Equal(s.t, codes.Canceled, status.Code(<-s.watched), "how the watch of the tasks ends")
		s.watched = nil
	}
	assert.NoError(s.t, s.conn.Close())
	if err := s.node.Process.Signal(signal); err != nil {
		return err
	}
	err := s.node.Wait()
	s.node = nil
	return err
}

// clear removes all services, unless the test has failed: then nothing is certain. A node
// that ends before it has removed the last containers leaves them, also those of a service
// that the test itself has removed; and the last networks go after the containers.
func (s *swarm) clear() {
	if s.t.Failed() || s.node == nil {
		return
	}
	list, err := s.api.ListServices(context.Background(), &api.ListServicesRequest{})
	require.NoError(s.t, err)
	for _, service := range list.Services {
		s.remove(service.ID)
	}
	s.awaitNoContainers()
	s.awaitNoNetworks()
}

// end ends the node and looks at what it has written.
func (s *swarm) end() {
	if s.node != nil {
		assert.NoError(s.t, s.signal(syscall.SIGTERM))
	}
	output, err := os.ReadFile(s.log)
	assert.NoError(s.t, err)
	assert.Empty(s.t, races(string(output)))
	assert.NotContains(s.t, string(output), os.Getenv("DOCKEREXEC_TEST_PASSWORD"))
	if s.nodeID != "" && !s.t.Failed() {
		left, err := s.leftContainers()
		assert.NoError(s.t, err)
		assert.Empty(s.t, left, "containers that the node has left")
	}
	if s.t.Failed() {
		s.t.Logf("the end of the node's log:\n%s", output[max(0, len(output)-20_000):])
		s.sweep()
	}
	assert.NoError(s.t, os.RemoveAll(s.dir))
}

// leftContainers lists the containers of the node.
func (s *swarm) leftContainers() ([]container.Summary, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	return s.engine.ContainerList(ctx, container.ListOptions{All: true,
		Filters: filters.NewArgs(filters.Arg("label", "com.docker.swarm.node.id="+s.nodeID))})
}

// sweep removes the containers that a failed test leaves, for those after it.
func (s *swarm) sweep() {
	if s.nodeID == "" {
		return
	}
	list, err := s.leftContainers()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for _, c := range list {
		err = s.engine.ContainerRemove(ctx, c.ID, container.RemoveOptions{Force: true, RemoveVolumes: true})
	}
	s.t.Logf("containers removed: %d (%v)", len(list), err)
}

// memory is the node's resident memory in bytes.
func (s *swarm) memory() int64 {
	s.t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.node.Process.Pid))
	require.NoError(s.t, err)
	_, after, found := strings.Cut(string(status), "VmRSS:")
	require.True(s.t, found)
	var kB int64
	_, err = fmt.Sscan(after, &kB)
	require.NoError(s.t, err)
	return kB << 10
}
