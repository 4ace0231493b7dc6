package main

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	osexec "os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/api/types/registry"
	"github.com/docker/docker/api/types/volume"
	engineapi "github.com/docker/docker/client"
	"github.com/gogo/protobuf/jsonpb"
	gogotypes "github.com/gogo/protobuf/types"
	"github.com/moby/swarmkit/v2/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"
)

// The engine tests, named TestEngine…, run this program on the engine at
// DOCKEREXEC_TEST_HOST; hack/with-engine.sh brings one up and says what else it
// sets. Without one they are skipped, or fail if DOCKEREXEC_TEST_REQUIRED is set.

// asBatch has the test's program be batch. It has the race detector if the test has.
const asBatch = "DOCKEREXEC_TEST_AS_BATCH"

// patience bounds what takes a moment.
const patience = 2 * time.Minute

func TestMain(m *testing.M) {
	if os.Getenv(asBatch) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

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

// process is a running batch.
type process struct {
	*osexec.Cmd
	ended    chan struct{}
	longRuns chan struct{} // closed when a long job runs

	mu     sync.Mutex
	output bytes.Buffer
}

// longRuns is what a long job prints once it has written to its volume.
const longRuns = "/new/begun = bytes\n"

func (p *process) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	before := strings.Contains(p.output.String(), longRuns)
	p.output.Write(b)
	if !before && strings.Contains(p.output.String(), longRuns) {
		close(p.longRuns)
	}
	return len(b), nil
}

func (p *process) text() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.output.String()
}

// start starts batch on a list of jobs.
func start(t testing.TB, file string) (*process, error) {
	p := &process{ended: make(chan struct{}), longRuns: make(chan struct{})}
	p.Cmd = osexec.CommandContext(t.Context(), os.Args[0], "-attempts", "1", file)
	// By default a program with the race detector takes a second to exit.
	p.Env = append(os.Environ(), asBatch+"=1", "DOCKER_HOST="+os.Getenv("DOCKEREXEC_TEST_HOST"), "GORACE=atexit_sleep_ms=100")
	p.Stdout, p.Stderr = p, p
	if err := p.Start(); err != nil {
		return nil, err
	}
	go func() {
		defer close(p.ended)
		_ = p.Wait() // ProcessState has the result
	}()
	return p, nil
}

// wait waits for the end of the process, and returns its output.
func (p *process) wait() (string, error) {
	select {
	case <-p.ended:
	case <-time.After(patience):
		_ = p.Process.Kill()
		<-p.ended
		return p.text(), fmt.Errorf("does not end:\n%s", p.text())
	}
	if text := p.text(); strings.Contains(text, "DATA RACE") || strings.Contains(text, "panic") || strings.Contains(text, "may be left") {
		return text, fmt.Errorf("has a fault:\n%s", text)
	}
	return p.text(), nil
}

// job is a task of the test image.
func job(name string, args ...string) *api.Task {
	auth, err := registry.EncodeAuthConfig(registry.AuthConfig{
		Username: os.Getenv("DOCKEREXEC_TEST_USER"), Password: os.Getenv("DOCKEREXEC_TEST_PASSWORD"), ServerAddress: os.Getenv("DOCKEREXEC_TEST_REGISTRY"),
	})
	if err != nil {
		panic(err)
	}
	return &api.Task{
		ServiceAnnotations: api.Annotations{Name: name},
		Spec: api.TaskSpec{Runtime: &api.TaskSpec_Container{Container: &api.ContainerSpec{
			Image: os.Getenv("DOCKEREXEC_TEST_IMAGE"), Args: args, StopGracePeriod: gogotypes.DurationProto(5 * time.Second),
			PullOptions: &api.ContainerSpec_PullOptions{RegistryAuth: auth},
		}}},
	}
}

// list writes a list of jobs.
func list(t testing.TB, tasks ...*api.Task) (file string) {
	t.Helper()
	var text strings.Builder
	for _, task := range tasks {
		require.NoError(t, new(jsonpb.Marshaler).Marshal(&text, task))
	}
	file = filepath.Join(t.TempDir(), "jobs")
	require.NoError(t, os.WriteFile(file, []byte(text.String()), 0o600))
	return file
}

// counter counts what processes of a job begin: each connects to it, over the network
// of the host, so that an engine that is away does not hide one.
type counter struct {
	listener net.Listener
	n        atomic.Int32
}

func newCounter(t testing.TB) *counter {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	c := &counter{listener: listener}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			connection, err := listener.Accept()
			if err != nil {
				return
			}
			c.n.Add(1)
			connection.Close()
		}
	}()
	t.Cleanup(func() { listener.Close(); <-done })
	return c
}

// job is a job that is counted before it does anything else.
func (c *counter) job(name string, args ...string) *api.Task {
	task := job(name, append([]string{"dial", c.listener.Addr().String(), "--"}, args...)...)
	task.Networks = []*api.NetworkAttachment{{Network: &api.Network{Spec: api.NetworkSpec{Annotations: api.Annotations{Name: "host"}}}}}
	return task
}

// assertNothingLeft expects no container, network, anonymous volume and file of a task on
// the engine, and returns the named volumes.
func assertNothingLeft(t testing.TB, client *engineapi.Client) (volumes []string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	containers, err := client.ContainerList(ctx, container.ListOptions{All: true})
	require.NoError(t, err)
	for _, c := range containers {
		t.Errorf("a container is left: %v, %s", c.Names, c.Status)
	}
	networks, err := client.NetworkList(ctx, network.ListOptions{Filters: filters.NewArgs(filters.Arg("label", "com.dockerexec.network"))})
	require.NoError(t, err)
	for _, n := range networks {
		t.Errorf("a network is left: %s", n.Name)
	}
	all, err := client.VolumeList(ctx, volume.ListOptions{})
	require.NoError(t, err)
	anonymous := regexp.MustCompile(`^[0-9a-f]{64}$`)
	for _, v := range all.Volumes {
		if anonymous.MatchString(v.Name) {
			t.Errorf("an anonymous volume is left: %s", v.Name)
		} else {
			volumes = append(volumes, v.Name)
		}
	}
	files, err := filepath.Glob("/run/dockerexec/secrets/*/*") // the default of WithSecretsDir
	require.NoError(t, err)
	assert.Empty(t, files, "files of tasks are left")
	return volumes
}

// pathIn returns where a volume has a file, on this machine.
func pathIn(t testing.TB, client *engineapi.Client, name, file string) string {
	t.Helper()
	v, err := client.VolumeInspect(t.Context(), name)
	require.NoError(t, err)
	return filepath.Join(v.Mountpoint, file)
}

// Batches are interrupted, each at a random moment. Nothing is left but named volumes.
func TestEngineBatchIsInterrupted(t *testing.T) {
	client := engineClient(t)
	const batches, atOnce, old = 60, 6, "dockerexec-batch-old"
	seed := rand.Uint64()
	t.Log("the seed of the moments is ", seed)
	random := rand.New(rand.NewPCG(seed, 0))

	_, err := client.VolumeCreate(t.Context(), volume.CreateOptions{Name: old})
	require.NoError(t, err)
	defer func() { require.NoError(t, client.VolumeRemove(context.Background(), old, false)) }()
	require.NoError(t, os.WriteFile(pathIn(t, client, old, "kept"), []byte("from before"), 0o600))

	// What a batch has printed by the time it is interrupted is how far it has come. The
	// first one is interrupted once its long job runs. The others are interrupted within
	// half as long again as that took the last time.
	var began, ended [batches]bool
	var took atomic.Int64
	var group errgroup.Group
	group.SetLimit(atOnce)
	for i := range batches {
		if i == 1 {
			require.NoError(t, group.Wait())
		}
		share := 1.5 * random.Float64()
		long := job("long", "write", "/new/begun", "bytes", "--", "show", "/new/begun", "/run/secrets/password", "--", "sleep", "1h")
		spec := long.Spec.GetContainer()
		spec.Mounts = []api.Mount{
			{Type: api.MountTypeVolume, Source: newVolume(i), Target: "/new"},
			{Type: api.MountTypeVolume, Source: old, Target: "/old"},
			{Type: api.MountTypeVolume, Target: "/anonymous"},
		}
		spec.Secrets = []*api.SecretReference{{SecretID: "password", SecretName: "password",
			Target: &api.SecretReference_File{File: &api.FileTarget{Name: "password", Mode: 0o400}}}}
		long.Networks = []*api.NetworkAttachment{{Network: &api.Network{Spec: api.NetworkSpec{Annotations: api.Annotations{Name: fmt.Sprint("batch-", i)}}}}}
		short := job("short", "exit", "3")
		short.Spec.GetContainer().Mounts = spec.Mounts[2:]
		file := list(t, long, short)
		require.NoError(t, os.Mkdir(file+".secrets", 0o700))
		require.NoError(t, os.WriteFile(file+".secrets/password", []byte("canary"), 0o600))
		group.Go(func() error {
			p, err := start(t, file)
			if err != nil {
				return err
			}
			begin, moment := time.Now(), time.After(time.Duration(share*float64(took.Load())))
			if i == 0 {
				moment = nil
			}
			select {
			case <-moment:
			case <-p.longRuns:
				took.Store(int64(min(time.Since(begin), 2*time.Second))) // the bound keeps the test short
				if i > 0 {
					<-moment
				}
			case <-p.ended:
			}
			if err := p.Process.Signal(os.Interrupt); err != nil {
				return fmt.Errorf("batch %d, at %v: %w\n%s", i, time.Since(begin), err, p.text())
			}
			text, err := p.wait()
			if err != nil {
				return fmt.Errorf("batch %d: %w", i, err)
			}
			began[i] = strings.Contains(text, longRuns)
			ended[i] = strings.Contains(text, "short: failed ")
			return nil
		})
	}
	assert.NoError(t, group.Wait())

	volumes := assertNothingLeft(t, client)
	assert.Contains(t, volumes, old)
	text, err := os.ReadFile(pathIn(t, client, old, "kept"))
	require.NoError(t, err)
	assert.Equal(t, "from before", string(text))
	runs, ends := 0, 0
	for i := range batches {
		if began[i] {
			runs++
			text, err := os.ReadFile(pathIn(t, client, newVolume(i), "begun"))
			require.NoError(t, err)
			assert.Equal(t, "bytes\n", string(text))
		}
		if ended[i] {
			ends++
		}
	}
	for _, name := range volumes {
		if name != old {
			assert.NoError(t, client.VolumeRemove(t.Context(), name, false))
		}
	}
	t.Logf("of %d batches, %d had their long job run, and %d their short one end", batches, runs, ends)
	assert.NotZero(t, runs)
	assert.NotEqual(t, batches, runs, "none was interrupted early")
}

func newVolume(i int) string { return fmt.Sprint("dockerexec-batch-new-", i) }

// Batches are killed, each at a random moment, and run again: each job has run once.
func TestEngineBatchIsKilled(t *testing.T) {
	client := engineClient(t)
	seed := rand.Uint64()
	t.Log("the seed of the moments is ", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	const batches = 8
	var counters [batches][5]*counter
	var group errgroup.Group
	group.SetLimit(4)
	for i := range batches {
		moment := time.Duration(random.Int64N(int64(3 * time.Second)))
		for n := range counters[i] {
			counters[i][n] = newCounter(t)
		}
		c := counters[i]
		file := list(t, c[0].job("good", "sleep", "500ms"), c[1].job("bad", "exit", "3"), c[2].job("slow", "sleep", "2s", "--", "exit", "4"),
			c[3].job("quick", "exit", "0"), c[4].job("last", "sleep", "200ms"))
		group.Go(func() error {
			first, err := start(t, file)
			if err != nil {
				return err
			}
			time.Sleep(moment)
			_ = first.Process.Kill()
			<-first.ended
			second, err := start(t, file)
			if err != nil {
				return err
			}
			text, err := second.wait()
			for _, line := range []string{`good +complete +1 *`, `bad +failed +1 +task: non-zero exit \(3\)`, `slow +failed +1 +task: non-zero exit \(4\)`,
				`quick +complete +1 *`, `last +complete +1 *`} {
				if err == nil && !regexp.MustCompile(`(?m)^`+line+`$`).MatchString(text) {
					err = fmt.Errorf("no line is %q", line)
				}
			}
			if err != nil {
				return fmt.Errorf("batch %d, killed at %v: %w\n%s\nthen\n%s", i, moment, err, first.text(), text)
			}
			return nil
		})
	}
	assert.NoError(t, group.Wait())
	for i, c := range counters {
		for n := range c {
			assert.EqualValues(t, 1, c[n].n.Load(), "runs of job %d of batch %d", n, i)
		}
	}
	assertNothingLeft(t, client)
}

// The engine is killed while four jobs run, and a fifth waits. A second batch begins while
// the engine is away. Each job runs once, and has its right end.
func TestEngineBatchGoesOnWithoutTheEngine(t *testing.T) {
	client := engineClient(t)
	var c [6]*counter
	for n := range c {
		c[n] = newCounter(t)
	}
	file := list(t, c[0].job("ends-meanwhile", "sleep", "3s"), c[1].job("fails-meanwhile", "sleep", "3s", "--", "exit", "3"),
		c[2].job("ends-later", "sleep", "9s"), c[3].job("fails-later", "sleep", "9s", "--", "exit", "4"), c[4].job("begins-later", "exit", "5"))
	p, err := start(t, file)
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		running, err := client.ContainerList(t.Context(), container.ListOptions{})
		return err == nil && len(running) == 4 && c[0].n.Load()+c[1].n.Load()+c[2].n.Load()+c[3].n.Load() == 4
	}, patience, 10*time.Millisecond)
	controlEngine(t, "kill")
	second, err := start(t, list(t, c[5].job("begins-meanwhile", "exit", "0")))
	require.NoError(t, err)
	time.Sleep(6 * time.Second) // this test is about such an outage
	controlEngine(t, "start")
	text, err := second.wait()
	require.NoError(t, err)
	assert.Regexp(t, `(?m)^begins-meanwhile +complete +1 `, text)
	text, err = p.wait()
	require.NoError(t, err)
	_, table, _ := strings.Cut(text, "JOB ")
	table = table[:strings.LastIndex(strings.TrimRight(table, "\n"), "\n")+1] // the last line is the error
	assert.Equal(t, `             STATE     ATTEMPT  CAUSE
ends-meanwhile   complete  1        
fails-meanwhile  failed    1        task: non-zero exit (3)
ends-later       complete  1        
fails-later      failed    1        task: non-zero exit (4)
begins-later     failed    1        task: non-zero exit (5)
`, table)
	for n := range c {
		assert.EqualValues(t, 1, c[n].n.Load(), "runs of job %d", n)
	}
	assertNothingLeft(t, client)
}

// controlEngine stops, kills or starts the engine, see hack/engine.sh.
func controlEngine(t testing.TB, args ...string) {
	t.Helper()
	out, err := osexec.Command(fromHarness(t, "DOCKEREXEC_TEST_ENGINE"), args...).CombinedOutput()
	require.NoError(t, err, "engine %v: %s", args, out)
}
