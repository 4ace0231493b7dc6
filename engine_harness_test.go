package dockerexec

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/api/types/registry"
	"github.com/docker/docker/api/types/volume"
	engineapi "github.com/docker/docker/client"
	"github.com/moby/swarmkit/v2/api"
	"github.com/moby/swarmkit/v2/identity"
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
	networks, err := client.NetworkList(ctx, network.ListOptions{Filters: label(LabelNetwork)})
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
	files, err := filepath.Glob(defaultSecretsDir + "/*")
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

// engineTransport leads to the running engine, whatever the host of a request.
// Its idle connections are the caller's to close.
func engineTransport(t testing.TB) *http.Transport {
	t.Helper()
	socket := strings.TrimPrefix(fromHarness(t, "DOCKEREXEC_TEST_HOST"), "unix://")
	return &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}
}

// engineClient returns a client of the running engine, which has agreed on an
// API version with it.
func engineClient(t testing.TB) *engineapi.Client {
	t.Helper()
	client, err := engineapi.NewClientWithOpts(engineapi.WithHost(fromHarness(t, "DOCKEREXEC_TEST_HOST")))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, client.Close()) })
	ping, err := client.Ping(t.Context())
	require.NoError(t, err)
	client.NegotiateAPIVersionPing(ping)
	return client
}

// registryAuth is the form in which the API takes credentials.
func registryAuth(t testing.TB, user, password string) string {
	t.Helper()
	text, err := json.Marshal(registry.AuthConfig{Username: user, Password: password})
	require.NoError(t, err)
	return base64.URLEncoding.EncodeToString(text)
}

// engineAuth is what the test registry asks for.
func engineAuth(t testing.TB) string {
	t.Helper()
	return registryAuth(t, fromHarness(t, "DOCKEREXEC_TEST_USER"), fromHarness(t, "DOCKEREXEC_TEST_PASSWORD"))
}

// engineTask is a task with an ID of its own that runs the test image's program
// with args.
func engineTask(t testing.TB, args ...string) *api.Task {
	t.Helper()
	name := strings.NewReplacer("/", "-", "_", "-").Replace(strings.ToLower(t.Name()))
	return &api.Task{
		ID:                 identity.NewID(),
		ServiceID:          identity.NewID(),
		NodeID:             identity.NewID(),
		Slot:               1,
		ServiceAnnotations: api.Annotations{Name: name},
		Spec: api.TaskSpec{Runtime: &api.TaskSpec_Container{Container: &api.ContainerSpec{
			Image:       fromHarness(t, "DOCKEREXEC_TEST_IMAGE"),
			Args:        args,
			PullOptions: &api.ContainerSpec_PullOptions{RegistryAuth: engineAuth(t)},
		}}},
	}
}
