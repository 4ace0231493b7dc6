package engine_test

import (
	"context"
	"flag"
	"fmt"
	"os"
	osexec "os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/api/types/volume"
	engineapi "github.com/docker/docker/client"
	"github.com/dockerexec/dockerexec"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

// The engine tests, named TestEngine…, run on the engine at
// DOCKEREXEC_TEST_HOST; hack/with-engine.sh brings one up and says what else it
// sets. Without one they are skipped, or fail if DOCKEREXEC_TEST_REQUIRED is set.

func TestMain(m *testing.M) {
	flag.Parse()
	// All tests that share the engine may begin: slots bounds how many run.
	if err := flag.Set("test.parallel", "1000"); err != nil {
		panic(err)
	}
	goleak.VerifyTestMain(leavesNothing{m})
}

// Who has the engine: a test for itself, or several at the same time.
var (
	sharers sync.Map                 // names of tests that share the engine
	slots   = make(chan struct{}, 8) // taken by tests that share it; most of them wait
	firsts  sync.WaitGroup           // tests that have it before those
	first   = make(chan struct{}, 1) // taken by one of these
)

// sharesEngine is the first call of a test that may have others beside it on the engine. All
// such tests run at the same time, after the others. A test that does not call it has the engine,
// and this process, for itself: it may stop the engine, remove the test image, count
// what is there, and measure time. Those of Podman, which is slow, all run one at a time.
//
// hack/test.sh finds who calls this, or beginsAlone: the call stands on a line of the test's own.
func sharesEngine(t *testing.T) {
	t.Helper()
	fromHarness(t, "DOCKEREXEC_TEST_HOST")
	if isPodman() {
		return
	}
	sharers.Store(t.Name(), true)
	t.Parallel()
	firsts.Wait()
	if t.Name() == testOf(t) { // a subtest has no slot of its own: its test keeps one
		slots <- struct{}{}
		t.Cleanup(func() { <-slots })
	}
}

// beginsAlone is sharesEngine for a test that has the engine for itself until it calls share. It
// runs before all that share the engine from their begin.
func beginsAlone(t *testing.T) (share func()) {
	t.Helper()
	fromHarness(t, "DOCKEREXEC_TEST_HOST")
	if isPodman() {
		return func() {}
	}
	firsts.Add(1)
	share = sync.OnceFunc(func() {
		sharers.Store(t.Name(), true)
		<-first
		firsts.Done()
	})
	t.Parallel()
	first <- struct{}{}
	t.Cleanup(share)
	return share
}

// testOf returns the name of a test without its subtests' names.
func testOf(t testing.TB) string {
	name, _, _ := strings.Cut(t.Name(), "/")
	return name
}

// needsEngineAlone fails a test that shares the engine, and is to be called before what others
// would notice, or would disturb.
func needsEngineAlone(t testing.TB) {
	t.Helper()
	if _, shares := sharers.Load(testOf(t)); shares {
		t.Fatal(testOf(t) + " shares the engine, and does what a test may do that has it for itself")
	}
}

// leavesNothing fails a run of which anything is left on the engine.
type leavesNothing struct{ tests *testing.M }

func (l leavesNothing) Run() int {
	code := l.tests.Run()
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

// leftOn lists the tasks' containers, the package's networks and files, and the
// tests' volumes on an engine.
func leftOn(host string) ([]string, error) {
	client, err := engineapi.NewClientWithOpts(engineapi.WithHost(host), engineapi.WithAPIVersionNegotiation())
	if err != nil {
		return nil, err
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	label := func(name string) filters.Args { return filters.NewArgs(filters.Arg("label", name)) }
	var left []string
	containers, err := client.ContainerList(ctx, container.ListOptions{All: true, Filters: label("com.docker.swarm.task")})
	if err != nil {
		return nil, err
	}
	for _, c := range containers {
		left = append(left, fmt.Sprint("container ", c.Names))
	}
	networks, err := client.NetworkList(ctx, network.ListOptions{Filters: label(dockerexec.LabelNetwork)})
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
	files, err := filepath.Glob("/run/dockerexec/secrets/*")
	return append(left, files...), err
}

// fromHarness returns a variable that hack/with-engine.sh sets.
func fromHarness(t testing.TB, name string) string {
	t.Helper()
	value := os.Getenv(name)
	if value == "" {
		skip(t, name+" is not set: no running engine")
	}
	return value
}

// cannot are reasons to skip a test also where all are required: what no change
// here would mend.
const (
	cannotPickIPv6 = "the engine picks no IPv6 subnet" // below 27
	cannotTell     = "too fast to tell"
)

// skip skips a test, or fails it if DOCKEREXEC_TEST_REQUIRED is set, as it is on the
// private engines: there every test must run, but for those that cannot.
func skip(t testing.TB, why string) {
	t.Helper()
	switch {
	case os.Getenv("DOCKEREXEC_TEST_REQUIRED") == "", why == cannotPickIPv6, why == cannotTell:
		t.Skip(why)
	case isGiven():
		t.Skip(why + "; the engine is a given one")
	}
	t.Fatal(why + ", and every test is required to run")
}

// isGiven reports whether the engine is not the tests' own, so that they cannot
// stop it, nor count on its host.
func isGiven() bool {
	return os.Getenv("DOCKEREXEC_TEST_HOST") != "" && os.Getenv("DOCKEREXEC_TEST_ENGINE") == ""
}

// isPrivate reports whether the tests run beside the engine, as root, so that
// they may mount, and make interfaces, where it sees them.
func isPrivate() bool { return os.Getenv("DOCKEREXEC_TEST_ENGINE") != "" }

// isPodman reports whether the engine is the private Podman.
func isPodman() bool { return os.Getenv("DOCKEREXEC_TEST_PODMAN") != "" }

// fewerOnPodman is how often a test does what takes Podman several times as long as Docker.
func fewerOnPodman(docker, podman int) int {
	if isPodman() {
		return podman
	}
	return docker
}

// controlEngine stops and starts the engine.
func controlEngine(t testing.TB, args ...string) {
	t.Helper()
	needsEngineAlone(t)
	control := os.Getenv("DOCKEREXEC_TEST_ENGINE")
	if control == "" {
		skip(t, "this engine is not ours to stop")
	}
	out, err := osexec.Command(control, args...).CombinedOutput()
	require.NoError(t, err, string(out))
}
