package outage

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/docker/docker/api/types/events"
	"github.com/docker/docker/api/types/filters"
	engineapi "github.com/docker/docker/client"
	"github.com/moby/swarmkit/v2/api"
	"github.com/moby/swarmkit/v2/log"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/dockerexec/dockerexec"
	"github.com/dockerexec/dockerexec/dockerexectest"
)

// The measurement: as many tasks wait for their containers' exits, and the engine goes
// away and comes back.
const (
	waiting    = 20
	away, back = 5 * time.Second, 15 * time.Second
	end        = 25 * time.Second
	every      = 250 * time.Millisecond // between two samples
)

// Variables of the benchmark. A process with the first one is measured: it waits at the
// socket that this names. The second says how. The third is the file to draw to.
const (
	socketOf = "OUTAGE_SOCKET"
	waitsAs  = "OUTAGE_WAITS_AS"
	drawTo   = "OUTAGE_SVG"
)

func TestMain(m *testing.M) {
	if socket := os.Getenv(socketOf); socket != "" {
		if err := waitMeasured(socket, os.Getenv(waitsAs)); err != nil {
			fmt.Fprintln(os.Stderr, "outage:", err)
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m)
}

// BenchmarkOutage is what an engine that is away for ten seconds costs a process of
// which 20 tasks wait: requests, also those that get no connection, and CPU. The
// baseline waits as the reference does: a request for events a task, which is made
// again at once when it breaks. (It does not log each try, as the reference does.)
func BenchmarkOutage(b *testing.B) {
	ours := measure(b, "dockerexec")
	baseline := measure(b, "reference")
	ourRequests, ourCPU := ours.Between(away, back)
	requests, cpu := baseline.Between(away, back)
	report := func(name, unit string, limit, value, base float64) {
		b.Run(name, func(b *testing.B) {
			b.ReportMetric(value, unit)
			b.ReportMetric(base, unit+"-baseline")
			b.ReportMetric(value/base, "ratio")
			b.ReportMetric(0, "ns/op")
			if value/base > limit || base <= 0 {
				b.Errorf("%g %s; the baseline has %g, and the limit of the ratio is %g", value, unit, base, limit)
			}
		})
	}
	report("requests", "requests", 0.01, float64(ourRequests), float64(requests))
	report("CPU", "ms", 0.1, float64(ourCPU.Milliseconds()), float64(cpu.Milliseconds()))

	if file := os.Getenv(drawTo); file != "" && !b.Failed() {
		var drawn strings.Builder
		ours.Color, baseline.Color = "#1f6f3f", "#b3352b"
		baseline.Name = "the reference's loop"
		require.NoError(b, Plot{
			Title: "The engine is away for ten seconds",
			Note: fmt.Sprintf("One process with %d waiting tasks on a machine with %d cores. Measured each quarter of a second.",
				waiting, runtime.NumCPU()),
			Lost: away, Back: back, End: end, Runs: []Run{baseline, ours},
		}.Draw(&drawn))
		require.NoError(b, os.WriteFile(file, []byte(drawn.String()), 0o644))
	}
}

// measure has a process wait in its way while the engine goes away.
func measure(b *testing.B, way string) Run {
	b.Helper()
	dir, err := shortDir()
	require.NoError(b, err)
	defer os.RemoveAll(dir)
	socket := filepath.Join(dir, "s")
	engine := dockerexectest.New(b)
	defer engine.Close()
	engine.Image("example/web:1", func(p *dockerexectest.Process) int { <-p.Killed; return 137 })
	stop := serve(b, engine, socket)
	defer func() { stop() }()

	process := exec.Command(os.Args[0])
	process.Env = append(os.Environ(), socketOf+"="+socket, waitsAs+"="+way)
	process.Stderr = os.Stderr
	in, err := process.StdinPipe()
	require.NoError(b, err)
	out, err := process.StdoutPipe()
	require.NoError(b, err)
	require.NoError(b, process.Start())
	lines := bufio.NewScanner(out)
	require.True(b, lines.Scan(), "the process does not begin")

	begin := time.Now()
	pause := func(until time.Duration) { time.Sleep(time.Until(begin.Add(until))) }
	go func() {
		pause(end)
		in.Close()
	}()
	ended := make(chan []Sample)
	go func() {
		var samples []Sample
		for lines.Scan() {
			var s Sample
			if json.Unmarshal(lines.Bytes(), &s) == nil {
				samples = append(samples, s)
			}
		}
		ended <- samples
	}()
	pause(away)
	stop()
	pause(back)
	stop = serve(b, engine, socket)
	samples := <-ended
	require.NoError(b, process.Wait())
	require.GreaterOrEqual(b, len(samples), int(end/every)/2)
	return Run{Name: way, Samples: samples}
}

// shortDir makes a folder for a socket, whose path must be short: a test's own is not.
func shortDir() (string, error) { return os.MkdirTemp("", "outage") }

// serve serves the engine at the socket. stop is what SIGKILL does to an engine: its
// connections break, and the file of its socket stays.
func serve(b *testing.B, engine *dockerexectest.Engine, socket string) (stop func()) {
	b.Helper()
	if err := os.Remove(socket); err != nil && !os.IsNotExist(err) {
		require.NoError(b, err)
	}
	listener, err := net.Listen("unix", socket)
	require.NoError(b, err)
	listener.(*net.UnixListener).SetUnlinkOnClose(false)
	server := &http.Server{Handler: engine.Handler()}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = server.Serve(listener)
	}()
	return sync.OnceFunc(func() {
		_ = server.Close()
		<-ended
	})
}

// counted counts what is tried.
type counted struct {
	http.RoundTripper
	n atomic.Int64
}

func (c *counted) RoundTrip(r *http.Request) (*http.Response, error) {
	c.n.Add(1)
	return c.RoundTripper.RoundTrip(r)
}

// waitMeasured runs the tasks, waits for their ends in that way, and prints a line and then samples,
// until its input ends.
func waitMeasured(socket, way string) error {
	log.L.Logger.SetOutput(io.Discard)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	requests := &counted{RoundTripper: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}}
	client, err := engineapi.NewClientWithOpts(engineapi.WithHost("http://engine"),
		engineapi.WithHTTPClient(&http.Client{Transport: requests}), engineapi.WithAPIVersionNegotiation())
	if err != nil {
		return err
	}
	defer client.Close()
	engine := dockerexec.NewEngine(client)
	var ended sync.WaitGroup
	for n := range waiting {
		task := &api.Task{ID: fmt.Sprint("task", n), Slot: uint64(n + 1), NodeID: "node", ServiceAnnotations: api.Annotations{Name: "web"}}
		task.Spec.Runtime = &api.TaskSpec_Container{Container: &api.ContainerSpec{Image: "example/web:1"}}
		controller, err := engine.Controller(nil, task, nil)
		if err != nil {
			return err
		}
		if err := controller.Prepare(ctx); err != nil {
			return err
		}
		if err := controller.Start(ctx); err != nil {
			return err
		}
		ended.Go(func() {
			if way == "reference" {
				waitAsReference(ctx, client, fmt.Sprintf("web.%d.%s", task.Slot, task.ID))
			} else {
				_ = controller.Wait(ctx)
			}
		})
	}
	time.Sleep(3 * time.Second) // what the start has set off is over
	stopped := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		close(stopped)
	}()
	begin, first := time.Now(), requests.n.Load()
	cpu := ownCPU()
	fmt.Println("begin")
	for ticks := time.NewTicker(every); ; {
		select {
		case <-ticks.C:
			line, err := json.Marshal(Sample{At: time.Since(begin), Requests: requests.n.Load() - first, CPU: ownCPU() - cpu})
			if err != nil {
				return err
			}
			fmt.Println(string(line))
		case <-stopped:
			cancel()
			ended.Wait()
			return nil
		}
	}
}

// waitAsReference asks for the events of one container, and asks again whenever that ends.
func waitAsReference(ctx context.Context, client engineapi.APIClient, container string) {
	for ctx.Err() == nil {
		messages, errs := client.Events(ctx, events.ListOptions{Since: "0", Filters: filters.NewArgs(
			filters.Arg("type", string(events.ContainerEventType)), filters.Arg("name", container))})
		for open := true; open; {
			select {
			case <-messages:
			case <-errs:
				open = false
			}
		}
	}
}

func ownCPU() time.Duration {
	var use syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &use); err != nil {
		return 0
	}
	return time.Duration(use.Utime.Nano() + use.Stime.Nano())
}
