package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/api/types/volume"
	engineapi "github.com/docker/docker/client"
	"github.com/moby/swarmkit/v2/log"
	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

// The engine tests, named TestEngine…, run the built swarmnode on the engine at
// DOCKEREXEC_TEST_HOST; hack/with-engine.sh brings one up and says what else it
// sets. Without one they are skipped, or fail if DOCKEREXEC_TEST_REQUIRED is set.

func TestMain(m *testing.M) {
	if path := os.Getenv(measuresAt); path != "" {
		mainMeasured(path)
		return
	}
	if path := os.Getenv(countsAt); path != "" {
		mainCounted(path)
		return
	}
	if path := os.Getenv(tracesTo); path != "" {
		mainTraced(path)
		return
	}
	if os.Getenv(withClientLogs) != "" {
		mainWithClientLogs()
		return
	}
	flag.Parse()
	isSet := false
	flag.Visit(func(f *flag.Flag) { isSet = isSet || f.Name == "test.parallel" })
	if !isSet { // the default is for tests that compute
		if err := flag.Set("test.parallel", strconv.Itoa(sharersAtOnce)); err != nil {
			panic(err)
		}
	}
	log.L.Logger.SetLevel(logrus.WarnLevel) // SwarmKit has gRPC's lines there too
	goleak.VerifyTestMain(leavesNothing{m})
}

// sharersAtOnce is how many tests that share the engine run at a time. Most of them wait.
const sharersAtOnce = 4

// sharers are the names of the tests that share the engine.
var sharers sync.Map

// sharesEngine is the first call of a test that may have others beside it on the engine. All
// such tests run at the same time, after the others. A test that does not call it has the engine
// for itself: it may stop the engine, count what is there, and measure. Those of Podman, which is
// slow, all run one at a time.
func sharesEngine(t *testing.T) {
	t.Helper()
	fromHarness(t, "DOCKEREXEC_TEST_HOST")
	if !isPodman() {
		sharers.Store(t.Name(), true)
		t.Parallel()
	}
}

// needsEngineAlone fails a test that shares the engine, and is to be called before what others
// would notice, or would disturb.
func needsEngineAlone(t testing.TB) {
	t.Helper()
	name, _, _ := strings.Cut(t.Name(), "/")
	if _, shares := sharers.Load(name); shares {
		t.Fatal(name + " calls sharesEngine, and does what a test may do that has the engine for itself")
	}
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
	networks, err := client.NetworkList(ctx, network.ListOptions{Filters: ofExecutors()})
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

// ofExecutors picks the networks that executors made.
func ofExecutors() filters.Args {
	return filters.NewArgs(filters.Arg("label", "com.dockerexec.network"))
}

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

// isPodman reports whether the engine is the private Podman.
func isPodman() bool { return os.Getenv("DOCKEREXEC_TEST_PODMAN") != "" }

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
	needsEngineAlone(t)
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
