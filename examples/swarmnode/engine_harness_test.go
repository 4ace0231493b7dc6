package main

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/api/types/registry"
	"github.com/docker/docker/api/types/volume"
	engineapi "github.com/docker/docker/client"
	"github.com/dockerexec/dockerexec/examples/control"
	"github.com/moby/swarmkit/v2/api"
	"github.com/moby/swarmkit/v2/log"
	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// The engine tests, named TestEngine…, run the built swarmnode on the engine at
// DOCKEREXEC_TEST_HOST; hack/with-engine.sh brings one up and says what else it
// sets. Without one they are skipped, or fail if DOCKEREXEC_TEST_REQUIRED is set.

func TestMain(m *testing.M) {
	if path := os.Getenv(measuresAt); path != "" {
		mainMeasured(path)
		return
	}
	log.L.Logger.SetLevel(logrus.WarnLevel) // SwarmKit has gRPC's lines there too
	goleak.VerifyTestMain(leavesNothing{m})
}

// leavesNothing fails a run of which anything is left on the engine.
type leavesNothing struct{ tests *testing.M }

func (l leavesNothing) Run() int {
	code := l.tests.Run()
	if builtIn != "" {
		os.RemoveAll(builtIn)
	}
	host := os.Getenv("DOCKEREXEC_TEST_HOST")
	if host == "" || code != 0 {
		return code
	}
	left, err := leftOn(host)
	if err != nil || len(left) > 0 {
		fmt.Fprintf(os.Stderr, "left on the engine after all tests: %v (%v)\n", left, err)
		return 1
	}
	return 0
}

// leftOn lists the tasks' containers, the executor's networks and the tests'
// volumes on an engine.
func leftOn(host string) ([]string, error) {
	client, err := engineapi.NewClientWithOpts(engineapi.WithHost(host), engineapi.WithAPIVersionNegotiation())
	if err != nil {
		return nil, err
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var left []string
	containers, err := client.ContainerList(ctx, container.ListOptions{All: true, Filters: ofTasks()})
	if err != nil {
		return nil, err
	}
	for _, c := range containers {
		left = append(left, fmt.Sprint("container ", c.Names))
	}
	networks, err := client.NetworkList(ctx, network.ListOptions{Filters: filters.NewArgs(filters.Arg("label", "com.dockerexec.network"))})
	if err != nil {
		return nil, err
	}
	for _, n := range networks {
		left = append(left, "network "+n.Name)
	}
	volumes, err := client.VolumeList(ctx, volume.ListOptions{Filters: filters.NewArgs(filters.Arg("name", "dockerexec"))})
	if err != nil {
		return nil, err
	}
	for _, v := range volumes.Volumes {
		left = append(left, "volume "+v.Name)
	}
	return left, nil
}

// ofTasks picks the containers of tasks.
func ofTasks() filters.Args { return filters.NewArgs(filters.Arg("label", "com.docker.swarm.task")) }

// ofService picks the containers of a service's tasks.
func ofService(service string) filters.Args {
	return filters.NewArgs(filters.Arg("label", "com.docker.swarm.service.id="+service))
}

// fromHarness returns a variable that hack/with-engine.sh sets.
func fromHarness(t testing.TB, name string) string {
	t.Helper()
	value := os.Getenv(name)
	if value == "" && os.Getenv("DOCKEREXEC_TEST_REQUIRED") != "" {
		t.Fatalf("%s is not set, and a running engine is required", name)
	}
	if value == "" {
		t.Skipf("%s is not set: no running engine", name)
	}
	return value
}

func engineClient(t testing.TB) *engineapi.Client {
	t.Helper()
	client, err := engineapi.NewClientWithOpts(engineapi.WithHost(fromHarness(t, "DOCKEREXEC_TEST_HOST")), engineapi.WithAPIVersionNegotiation())
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, client.Close()) })
	return client
}

// controlEngine stops, kills or starts the engine, see hack/engine.sh.
func controlEngine(t testing.TB, args ...string) {
	t.Helper()
	begin := time.Now()
	defer func() { t.Logf("engine %v took %v", args, time.Since(begin).Round(time.Millisecond)) }()
	out, err := exec.Command(fromHarness(t, "DOCKEREXEC_TEST_ENGINE"), args...).CombinedOutput()
	require.NoError(t, err, "engine %v: %s", args, out)
}

// build builds swarmnode, once, with the race detector if the tests have it.
var build = sync.OnceValues(func() (binary string, err error) {
	if builtIn, err = os.MkdirTemp("", "swarmnode"); err != nil {
		return "", err
	}
	binary = filepath.Join(builtIn, "swarmnode")
	args := []string{"build", "-buildvcs=false", "-o", binary}
	if info, ok := debug.ReadBuildInfo(); ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"}) {
		args = append(args, "-race")
	}
	if out, err := exec.Command("go", append(args, ".")...).CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	return binary, nil
})

// builtIn is the folder of the binary; empty: not built.
var builtIn string

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
	node.Env = append(append(os.Environ(), "GORACE=exitcode=0"), s.env...) // end looks for races in the log
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

// clear removes all services, unless the test has failed: then nothing is certain.
func (s *swarm) clear() {
	if s.t.Failed() || s.node == nil {
		return
	}
	list, err := s.api.ListServices(context.Background(), &api.ListServicesRequest{})
	require.NoError(s.t, err)
	for _, service := range list.Services {
		s.remove(service.ID)
	}
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
	if s.t.Failed() {
		s.t.Logf("the end of the node's log:\n%s", output[max(0, len(output)-20_000):])
		s.sweep()
	}
	assert.NoError(s.t, os.RemoveAll(s.dir))
}

// sweep removes the containers that a failed test leaves, for those after it.
func (s *swarm) sweep() {
	if s.nodeID == "" {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	list, err := s.engine.ContainerList(ctx, container.ListOptions{All: true,
		Filters: filters.NewArgs(filters.Arg("label", "com.docker.swarm.node.id="+s.nodeID))})
	for _, c := range list {
		err = s.engine.ContainerRemove(ctx, c.ID, container.RemoveOptions{Force: true, RemoveVolumes: true})
	}
	s.t.Logf("containers removed: %d (%v)", len(list), err)
}

// service is the spec of a service that runs the test image's program.
func (s *swarm) service(name string, replicas uint64, args ...string) *api.ServiceSpec {
	s.t.Helper()
	auth, err := registry.EncodeAuthConfig(registry.AuthConfig{
		Username:      fromHarness(s.t, "DOCKEREXEC_TEST_USER"),
		Password:      fromHarness(s.t, "DOCKEREXEC_TEST_PASSWORD"),
		ServerAddress: fromHarness(s.t, "DOCKEREXEC_TEST_REGISTRY"),
	})
	require.NoError(s.t, err)
	return &api.ServiceSpec{
		Annotations: api.Annotations{Name: name},
		Task: api.TaskSpec{Runtime: &api.TaskSpec_Container{Container: &api.ContainerSpec{
			Image:       fromHarness(s.t, "DOCKEREXEC_TEST_IMAGE"),
			Args:        args,
			PullOptions: &api.ContainerSpec_PullOptions{RegistryAuth: auth},
		}}},
		Mode: &api.ServiceSpec_Replicated{Replicated: &api.ReplicatedService{Replicas: replicas}},
	}
}

// create creates a service and returns its ID.
func (s *swarm) create(spec *api.ServiceSpec) string {
	s.t.Helper()
	answer, err := s.api.CreateService(s.t.Context(), &api.CreateServiceRequest{Spec: spec})
	require.NoError(s.t, err)
	return answer.Service.ID
}

// update changes a service.
func (s *swarm) update(service string, change func(*api.ServiceSpec)) {
	s.t.Helper()
	now := s.get(service)
	change(&now.Spec)
	_, err := s.api.UpdateService(s.t.Context(), &api.UpdateServiceRequest{
		ServiceID: service, ServiceVersion: &now.Meta.Version, Spec: &now.Spec,
	})
	require.NoError(s.t, err)
}

func (s *swarm) get(service string) *api.Service {
	s.t.Helper()
	answer, err := s.api.GetService(s.t.Context(), &api.GetServiceRequest{ServiceID: service})
	require.NoError(s.t, err)
	return answer.Service
}

// remove removes a service and waits until its tasks and containers are gone.
func (s *swarm) remove(service string) {
	s.t.Helper()
	_, err := s.api.RemoveService(context.Background(), &api.RemoveServiceRequest{ServiceID: service})
	require.NoError(s.t, err)
	s.await(service, "no task", func(tasks []*api.Task) bool { return len(tasks) == 0 })
	s.awaitContainers(service, 0)
}

// patience is how long a service may take to get where it should be.
const patience = 2 * time.Minute

// await waits until reached is true for a service's tasks, in the order in which
// they were made, and returns these.
func (s *swarm) await(service, what string, reached func([]*api.Task) bool) []*api.Task {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	tasks, err := s.tasks.Await(ctx, service, reached)
	if err != nil {
		for _, task := range tasks {
			s.t.Logf("%s: %s", task.ID, describe(task))
		}
	}
	require.NoError(s.t, err, "want %s", what)
	return tasks
}

// awaitRunning waits until a service has as many running tasks, and no others that
// should run, and returns them.
func (s *swarm) awaitRunning(service string, replicas int) []*api.Task {
	s.t.Helper()
	tasks := s.await(service, fmt.Sprint(replicas, " running tasks"), control.AllRun(replicas))
	return in(tasks, running)
}

func in(tasks []*api.Task, picks func(*api.Task) bool) []*api.Task {
	var picked []*api.Task
	for _, task := range tasks {
		if picks(task) {
			picked = append(picked, task)
		}
	}
	return picked
}

func running(task *api.Task) bool     { return task.Status.State == api.TaskStateRunning }
func wantedToRun(task *api.Task) bool { return task.DesiredState <= api.TaskStateRunning }

// describe puts a task's state into words: "slot 1 FAILED, exit code 3, wanted SHUTDOWN: task: non-zero exit (3)".
func describe(task *api.Task) string {
	text := fmt.Sprintf("slot %d %v", task.Slot, task.Status.State)
	if c := task.Status.GetContainer(); c != nil && task.Status.State > api.TaskStateRunning {
		text += fmt.Sprintf(", exit code %d", c.ExitCode)
	}
	text += fmt.Sprintf(", wanted %v", task.DesiredState)
	if task.Status.Err != "" {
		text += ": " + task.Status.Err
	}
	return text
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

// containers are those of a service's tasks on the engine, by the ID of the task.
func (s *swarm) containers(service string) map[string]container.Summary {
	s.t.Helper()
	list, err := s.engine.ContainerList(context.Background(), container.ListOptions{All: true, Filters: ofService(service)})
	require.NoError(s.t, err)
	byTask := map[string]container.Summary{}
	for _, c := range list {
		byTask[c.Labels["com.docker.swarm.task.id"]] = c
	}
	require.Len(s.t, byTask, len(list), "two containers of one task: %v", list)
	return byTask
}

// awaitContainers waits until a service has as many containers: the swarm forgets a
// task before its container is removed.
func (s *swarm) awaitContainers(service string, want int) {
	s.t.Helper()
	for late := time.Now().Add(patience); len(s.containers(service)) != want; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(late) {
			require.Len(s.t, s.containers(service), want)
		}
	}
}
