//go:build unix

package engine_test

import (
	"bytes"
	"context"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/events"
	engineapi "github.com/docker/docker/client"
	"github.com/dockerexec/dockerexec"
	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// countingDialer is the way of a client to the running engine's socket.
type countingDialer struct {
	dials  atomic.Int64
	events atomic.Int64 // open connections that a request for events went out on
}

func (d *countingDialer) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	d.dials.Add(1)
	conn, err := new(net.Dialer).DialContext(ctx, "unix", strings.TrimPrefix(os.Getenv("DOCKEREXEC_TEST_HOST"), "unix://"))
	if err != nil {
		return nil, err
	}
	return &countingConn{Conn: conn, dialer: d}, nil
}

type countingConn struct {
	net.Conn
	dialer *countingDialer
	events bool // the transport writes a request before it closes
	closed sync.Once
}

func (c *countingConn) Write(p []byte) (int, error) {
	if !c.events && bytes.HasPrefix(p, []byte("GET ")) && bytes.Contains(p, []byte("/events?")) {
		c.events = true
		c.dialer.events.Add(1)
	}
	return c.Conn.Write(p)
}

func (c *countingConn) Close() error {
	c.closed.Do(func() {
		if c.events {
			c.dialer.events.Add(-1)
		}
	})
	return c.Conn.Close()
}

// countedEngine is an Engine on a client whose dials are counted.
func countedEngine(t *testing.T) (*dockerexec.Engine, *countingDialer) {
	t.Helper()
	host := fromHarness(t, "DOCKEREXEC_TEST_HOST")
	if !strings.HasPrefix(host, "unix://") {
		skip(t, "the engine is not on a Unix socket")
	}
	dialer := &countingDialer{}
	client, err := engineapi.NewClientWithOpts(engineapi.WithHost(host), engineapi.WithDialContext(dialer.dial))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, client.Close()) })
	return dockerexec.NewEngine(client), dialer
}

// startedTask creates and starts a task, and has it removed at the end.
func startedTask(t *testing.T, engine *dockerexec.Engine, args ...string) *dockerexec.ContainerAdapter {
	t.Helper()
	adapter, err := engine.Adapter(nil, engineTask(t, args...), nil)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, adapter.Remove(context.WithoutCancel(t.Context()))) })
	require.NoError(t, adapter.PullImage(t.Context()))
	require.NoError(t, adapter.Create(t.Context()))
	require.NoError(t, adapter.Start(t.Context()))
	return adapter
}

// exit is what came of a Wait.
type exit struct {
	code int
	err  error
	when time.Time
}

func waitFor(ctx context.Context, adapter *dockerexec.ContainerAdapter) <-chan exit {
	done := make(chan exit, 1)
	go func() {
		answer, err := adapter.Wait(ctx)
		over := exit{err: err, when: time.Now()}
		if err == nil {
			over.code = answer.State.ExitCode
		}
		done <- over
	}()
	return done
}

func (e exit) check(t *testing.T, code int, back time.Time, limit time.Duration) {
	t.Helper()
	if assert.NoError(t, e.err) {
		assert.Equal(t, code, e.code)
		assert.LessOrEqual(t, e.when.Sub(back), limit)
	}
}

func processorTime(t testing.TB) time.Duration {
	t.Helper()
	needsEngineAlone(t)
	var usage syscall.Rusage
	require.NoError(t, syscall.Getrusage(syscall.RUSAGE_SELF, &usage))
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

func TestEngineEventsOfALife(t *testing.T) {
	sharesEngine(t)
	engine, _ := countedEngine(t)
	task := engineTask(t, "exit", "3")
	adapter, err := engine.Adapter(nil, task, nil)
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	require.NoError(t, adapter.PullImage(ctx))
	messages, closed, err := adapter.Events(ctx)
	require.NoError(t, err)
	require.NoError(t, adapter.Create(ctx))
	require.NoError(t, adapter.Start(ctx))
	_, err = adapter.Wait(ctx)
	require.NoError(t, err)
	require.NoError(t, adapter.Remove(ctx))
	var actions []events.Action
	for !slices.Contains(actions, events.ActionDestroy) {
		select {
		case m := <-messages:
			actions = append(actions, m.Action)
			assert.Equal(t, task.ID, m.Actor.Attributes[dockerexec.LabelTaskID])
		case <-closed:
			t.Fatal("closed after ", actions)
		}
	}
	assert.Equal(t, []events.Action{"create", "start", "die", "destroy"}, actions)
}

// endless is a task that runs until end is called for it, and exits with code then. Its
// program is ready for the signal.
func endless(t *testing.T, engine *dockerexec.Engine, code int) *dockerexec.ContainerAdapter {
	t.Helper()
	adapter := startedTask(t, engine, "sleep", "1h", "--", "exit", strconv.Itoa(code))
	awaitReady(t, adapter)
	return adapter
}

// endlessOnes are several such tasks, with a code each. Four start at a time.
func endlessOnes(t *testing.T, engine *dockerexec.Engine, codes ...int) []*dockerexec.ContainerAdapter {
	t.Helper()
	adapters := make([]*dockerexec.ContainerAdapter, len(codes))
	var starting sync.WaitGroup
	gate := make(chan struct{}, 4)
	for i, code := range codes {
		starting.Go(func() {
			gate <- struct{}{}
			defer func() { <-gate }()
			adapters[i] = endless(t, engine, code)
		})
	}
	starting.Wait()
	require.False(t, t.Failed(), "all have started")
	return adapters
}

// processOf returns the container's process, with which end works while the
// engine is away too.
func processOf(t *testing.T, adapter *dockerexec.ContainerAdapter) int {
	t.Helper()
	answer, err := adapter.Inspect(t.Context())
	require.NoError(t, err)
	require.NotZero(t, answer.State.Pid)
	return answer.State.Pid
}

func end(t *testing.T, pid int) {
	t.Helper()
	require.NoError(t, syscall.Kill(pid, syscall.SIGTERM))
}

const waits = 40

// waitsAreUnderWay lets waits come to their second inspect, a second after the
// stream was opened; after it they rely on events alone.
func waitsAreUnderWay() { time.Sleep(2 * time.Second) }

// While the engine is away for ten seconds there is one quiet loop; after that
// every exit of the time is reported with its code.
func TestEngineAwayWithFortyWaits(t *testing.T) {
	fromHarness(t, "DOCKEREXEC_TEST_ENGINE")
	engine, dialer := countedEngine(t)
	ctx, lines := logged(t)
	ctx, cancel := context.WithCancel(ctx)
	dones, pids := make([]<-chan exit, waits), make([]int, waits)
	var codes []int
	for n := range waits {
		codes = append(codes, n+1)
	}
	for n, adapter := range endlessOnes(t, engine, codes...) {
		pids[n] = processOf(t, adapter)
		dones[n] = waitFor(ctx, adapter)
	}
	waitsAreUnderWay()
	assert.EqualValues(t, 1, dialer.events.Load())
	t.Logf("%d waits: %d connection for events", waits, dialer.events.Load())

	controlEngine(t, "stop")
	begin, dials, processor := time.Now(), dialer.dials.Load(), processorTime(t)
	for _, pid := range pids[:waits/2] {
		end(t, pid)
	}
	time.Sleep(10*time.Second - time.Since(begin))
	away, used, dialled := time.Since(begin), processorTime(t)-processor, dialer.dials.Load()-dials
	controlEngine(t, "start")
	back := time.Now()
	var latest time.Duration
	for n, done := range dones[:waits/2] {
		over := <-done
		over.check(t, n+1, back, 6*time.Second)
		latest = max(latest, over.when.Sub(back))
	}
	warnings := len(lines.at(logrus.WarnLevel))
	t.Logf("away for %v with %d waits: %d connections dialled, %d warnings, %.2f %% of a core; the last of %d exits reported %v after the engine was back; %d dials in all",
		away.Round(time.Millisecond), waits, dialled, warnings, 100*float64(used)/float64(away), waits/2, latest.Round(time.Millisecond), dialer.dials.Load()-dials)
	assert.LessOrEqual(t, dialled, int64(15))
	assert.LessOrEqual(t, warnings, 20)
	assert.Less(t, float64(used)/float64(away), 0.02)

	for n, done := range dones[waits/2:] {
		assert.Empty(t, done)
		died := time.Now()
		end(t, pids[waits/2+n])
		over := <-done
		over.check(t, waits/2+n+1, died, 5*time.Second)
	}
	cancel()
}

// Containers run and exit while the engine is killed and comes back, time after
// time.
func TestEngineKilledWhileContainersRun(t *testing.T) {
	fromHarness(t, "DOCKEREXEC_TEST_ENGINE")
	engine, dialer := countedEngine(t)
	ctx, _ := logged(t)
	survivor := endless(t, engine, 99)
	survives := waitFor(ctx, survivor)
	last := processOf(t, survivor)
	var latest time.Duration
	forgotten := 0
	rounds := fewerOnPodman(20, 6)
	for round := range rounds {
		three := endlessOnes(t, engine, 1+round, 50+round, 150+round)
		before, meanwhile, after := three[0], three[1], three[2]
		pids := []int{processOf(t, before), processOf(t, meanwhile), processOf(t, after)}
		dones := []<-chan exit{waitFor(ctx, before), waitFor(ctx, meanwhile), waitFor(ctx, after)}
		end(t, pids[0]) // as the engine is killed: its event may or may not come, and the engine may lose its code
		controlEngine(t, "kill")
		end(t, pids[1])
		time.Sleep(time.Duration(round%5) * 300 * time.Millisecond)
		controlEngine(t, "start")
		back := time.Now()
		over := <-dones[0]
		record, err := before.Inspect(ctx)
		require.NoError(t, err)
		over.check(t, record.State.ExitCode, back, 6*time.Second)
		if over.code != 1+round {
			t.Logf("the engine has lost code %d: it shows %d, finished at %s", 1+round, over.code, record.State.FinishedAt)
			if over.code != 0 || isPodman() || atLeast(engineClient(t).ClientVersion(), "1.42") { // only 20.10 may show 0
				assert.Equal(t, 255, over.code)
			}
			forgotten++
		}
		latest = max(latest, over.when.Sub(back))
		over = <-dones[1]
		over.check(t, 50+round, back, 6*time.Second)
		latest = max(latest, over.when.Sub(back))
		died := time.Now()
		end(t, pids[2])
		over = <-dones[2]
		over.check(t, 150+round, died, 6*time.Second)
		latest = max(latest, over.when.Sub(died))
		assert.Empty(t, survives)
		for _, adapter := range []*dockerexec.ContainerAdapter{before, meanwhile, after} {
			require.NoError(t, adapter.Remove(ctx))
		}
		require.False(t, t.Failed(), "round %d", round)
	}
	end(t, last)
	over := <-survives
	over.check(t, 99, time.Now(), time.Second)
	t.Logf("%d times killed and restored: %d exits reported as the engine has them, the latest %v after it was back; of those that happened as it was killed it had lost the code of %d; %d dials in all",
		rounds, 3*rounds+1, latest.Round(time.Millisecond), forgotten, dialer.dials.Load())
}

// Nothing that another container says of itself in its labels changes anything
// for a task, and a task's own label does not change its exit code.
func TestEngineForgedLabels(t *testing.T) {
	sharesEngine(t)
	engine, _ := countedEngine(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	task := engineTask(t, "sleep", "1h", "--", "exit", "4")
	spec(task).Labels = map[string]string{"exitCode": "99", "name": "forged"}
	adapter, err := engine.Adapter(nil, task, nil)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, adapter.Remove(context.WithoutCancel(t.Context()))) })
	require.NoError(t, adapter.PullImage(ctx))
	require.NoError(t, adapter.Create(ctx))
	messages, _, err := adapter.Events(ctx)
	require.NoError(t, err)
	require.NoError(t, adapter.Start(ctx))
	done := waitFor(ctx, adapter)

	client := engineClient(t)
	forger, err := client.ContainerCreate(ctx, &container.Config{
		Image: spec(task).Image, Cmd: []string{"exit", "7"},
		Labels: map[string]string{"com.docker.swarm.task": "", dockerexec.LabelTaskID: task.ID, "name": adapter.ContainerName(), "exitCode": "99"},
	}, nil, nil, nil, "dockerexec-forger")
	require.NoError(t, err)
	require.NoError(t, client.ContainerStart(ctx, forger.ID, container.StartOptions{}))
	ended, failed := client.ContainerWait(ctx, forger.ID, container.WaitConditionNotRunning)
	select {
	case <-ended:
	case err := <-failed:
		require.NoError(t, err)
	}
	require.NoError(t, client.ContainerRemove(ctx, forger.ID, container.RemoveOptions{Force: true}))
	time.Sleep(time.Second)
	assert.Empty(t, done)

	end(t, processOf(t, adapter))
	over := <-done
	over.check(t, 4, time.Now(), time.Second)
	own, err := adapter.Inspect(ctx)
	require.NoError(t, err)
	for _, want := range []events.Action{"create", "start", "die"} { // the first from shortly before
		select {
		case m := <-messages:
			assert.Equal(t, want, m.Action)
			assert.Equal(t, own.ID, m.Actor.ID)
			if want == "die" {
				t.Logf("exitCode in the event: %s, in the inspect: %d", m.Actor.Attributes["exitCode"], own.State.ExitCode)
			}
		case <-ctx.Done():
			t.Fatal("no event ", want)
		}
	}
	assert.Empty(t, messages)
}

// A task whose container is renamed by hand is still waited for.
func TestEngineRename(t *testing.T) {
	sharesEngine(t)
	engine, _ := countedEngine(t)
	client := engineClient(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	adapter := endless(t, engine, 6)
	pid := processOf(t, adapter)
	done := waitFor(ctx, adapter)
	waitsAreUnderWay()
	renamed := "renamed-" + adapter.ContainerName()
	require.NoError(t, client.ContainerRename(ctx, adapter.ContainerName(), renamed))
	time.Sleep(time.Second)
	assert.Empty(t, done)
	died := time.Now()
	end(t, pid)
	over := <-done
	over.check(t, 6, died, 5*time.Second)
	require.NoError(t, client.ContainerRemove(ctx, renamed, container.RemoveOptions{Force: true}))
}

// A proxy holds back the header of /events. The end of a container is seen all the same.
func TestEngineEventsWhoseHeaderIsHeldBack(t *testing.T) {
	sharesEngine(t)
	transport := engineTransport(t)
	t.Cleanup(transport.CloseIdleConnections)
	proxy := httptest.NewServer(&httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(&url.URL{Scheme: "http", Host: "engine"}) },
		Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
			if strings.HasSuffix(r.URL.Path, "/events") {
				<-r.Context().Done()
				return nil, r.Context().Err()
			}
			return transport.RoundTrip(r)
		}),
		ErrorLog: log.New(io.Discard, "", 0),
	})
	t.Cleanup(proxy.Close)
	client, err := engineapi.NewClientWithOpts(engineapi.WithHost("tcp://" + proxy.Listener.Addr().String()))
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, client.Close()) })
	warmImage(t, engineClient(t))
	adapter := startedTask(t, dockerexec.NewEngine(client), "sleep", "7s")
	began := time.Now()
	ended, err := adapter.Wait(t.Context())
	require.NoError(t, err)
	assert.Zero(t, ended.State.ExitCode)
	assert.GreaterOrEqual(t, time.Since(began), 5*time.Second)
	assert.LessOrEqual(t, time.Since(began), 20*time.Second)
}

type roundTrip func(*http.Request) (*http.Response, error)

func (do roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return do(r) }
