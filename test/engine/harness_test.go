package engine_test

import (
	"context"
	"fmt"
	"os"
	osexec "os/exec"
	"path/filepath"
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
	goleak.VerifyTestMain(leavesNothing{m})
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
	control := os.Getenv("DOCKEREXEC_TEST_ENGINE")
	if control == "" {
		skip(t, "this engine is not ours to stop")
	}
	out, err := osexec.Command(control, args...).CombinedOutput()
	require.NoError(t, err, string(out))
}
