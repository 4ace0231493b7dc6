package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	engineapi "github.com/docker/docker/client"
	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/moby/swarmkit/v2/log"
	"github.com/stretchr/testify/require"

	"github.com/dockerexec/dockerexec"
)

// countsAt is the variable that makes the test binary a node which counts what it asks of
// its engine, and tells at the socket that the variable names. executorOf names the node's
// executor.
const (
	countsAt   = "SWARMNODE_TEST_COUNTS_AT"
	executorOf = "SWARMNODE_TEST_EXECUTOR"
)

// executors are those that a counting node can have, by name.
var executors = map[string]func(*engineapi.Client) exec.Executor{
	"dockerexec": func(client *engineapi.Client) exec.Executor { return dockerexec.NewExecutor(client, nil) },
	"reference":  func(client *engineapi.Client) exec.Executor { return referenceExecutor{client} },
}

// newCountedSwarm is newSwarm with a node that counts, of one of [executors].
func newCountedSwarm(t testing.TB, executor string) *swarm {
	t.Helper()
	dir, err := shortDir()
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	return newSwarmOf(t, os.Executable, []string{countsAt + "=" + filepath.Join(dir, "counts"), executorOf + "=" + executor})
}

// mainCounted is main of a node that counts.
func mainCounted(socket string) {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	err := func() error {
		o, err := parseFlags(os.Args[1:], os.Stderr)
		if err != nil {
			return err
		}
		log.L.Logger.SetLevel(o.logLevel)
		c := &counter{}
		client, err := c.client(o.host)
		if err != nil {
			return err
		}
		defer client.Close()
		http.HandleFunc("/use", c.serve)
		if err := serveMeasures(socket); err != nil {
			return err
		}
		return runNode(ctx, o, executors[os.Getenv(executorOf)](client), os.Stdout)
	}()
	if err != nil {
		fmt.Fprintln(os.Stderr, "swarmnode:", err)
		os.Exit(1)
	}
}

// use is what a node has used so far.
type use struct {
	Requests    int64         // to the engine, also those that got no connection
	Connections int64         // to the engine, open now
	Most        int64         // the most connections that were open at once since the last look
	CPU         time.Duration // of all threads
}

// counter counts what a client asks of its engine.
type counter struct {
	http.RoundTripper
	requests, open, most atomic.Int64
}

// client is the engine's own client but for the counting.
func (c *counter) client(host string) (*engineapi.Client, error) {
	transport := &http.Transport{}
	counts := func(client *engineapi.Client) error { // after WithHost, which sets how to dial
		dial := transport.DialContext
		transport.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
			conn, err := dial(ctx, network, address)
			if err != nil {
				return nil, err
			}
			c.opened()
			return &countedConn{Conn: conn, closed: sync.OnceFunc(func() { c.open.Add(-1) })}, nil
		}
		c.RoundTripper = transport
		return engineapi.WithHTTPClient(&http.Client{Transport: c, CheckRedirect: engineapi.CheckRedirect})(client)
	}
	return engineapi.NewClientWithOpts(engineapi.WithHTTPClient(&http.Client{Transport: transport}),
		engineapi.WithHost(host), counts, engineapi.WithAPIVersionNegotiation())
}

func (c *counter) RoundTrip(r *http.Request) (*http.Response, error) {
	c.requests.Add(1)
	return c.RoundTripper.RoundTrip(r)
}

func (c *counter) opened() {
	now := c.open.Add(1)
	for {
		most := c.most.Load()
		if now <= most || c.most.CompareAndSwap(most, now) {
			return
		}
	}
}

func (c *counter) serve(w http.ResponseWriter, _ *http.Request) {
	var used syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &used)
	open := c.open.Load()
	_ = json.NewEncoder(w).Encode(use{
		Requests: c.requests.Load(), Connections: open, Most: c.most.Swap(open),
		CPU: time.Duration(used.Utime.Nano() + used.Stime.Nano()),
	})
}

// countedConn is a connection that tells once when it is closed.
type countedConn struct {
	net.Conn
	closed func()
}

func (c *countedConn) Close() error {
	c.closed()
	return c.Conn.Close()
}

// use asks a node that counts what it has used.
func (s *swarm) use() (u use) {
	s.t.Helper()
	require.NoError(s.t, json.Unmarshal(s.ask("/use"), &u))
	return u
}
