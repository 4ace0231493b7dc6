package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// measuresAt is the variable that makes the test binary a node, which tells at
// the socket that it names what it has in use.
const measuresAt = "SWARMNODE_TEST_MEASURES_AT"

// newMeasuredSwarm is newSwarm with a node that can be measured.
func newMeasuredSwarm(t testing.TB, flags ...string) *swarm {
	t.Helper()
	dir, err := shortDir()
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	return newSwarmOf(t, os.Executable, []string{measuresAt + "=" + filepath.Join(dir, "measures")}, flags...)
}

// mainMeasured is main of a node that can be measured at a socket.
func mainMeasured(path string) {
	if err := serveMeasures(path); err != nil {
		fmt.Fprintln(os.Stderr, "swarmnode:", err)
		os.Exit(1)
	}
	main()
}

// serveMeasures serves them as long as the process lives.
func serveMeasures(path string) error {
	if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
		return err
	}
	listener, err := net.Listen("unix", path)
	if err != nil {
		return err
	}
	http.HandleFunc("/measures", func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(ownMeasures())
	})
	http.HandleFunc("/profile", func(w http.ResponseWriter, r *http.Request) {
		_ = pprof.Lookup(r.FormValue("of")).WriteTo(w, 1)
	})
	go func() { _ = http.Serve(listener, nil) }()
	return nil
}

// measures are what a process has in use.
type measures struct {
	Goroutines int // but for those of Retries and Updates
	// Own are those within a call of this package's, from SwarmKit's agent or on
	// their own.
	Own int
	// Retries are goroutines that SwarmKit's agent leaves for ever when a task is
	// removed within the second before an operation of it is to be tried again.
	Retries int
	// Updates are goroutines of the manager that update services, each with one for
	// what it watches. They outlast the service if that is removed meanwhile.
	Updates     int
	Descriptors int
	Connections int    // among the descriptors
	Heap        uint64 // bytes of live objects, once all garbage is collected
}

func (m measures) String() string {
	return fmt.Sprintf("%d goroutines, %d of them within the package (and %d lost by SwarmKit's agent, %d in updates), %d descriptors of which %d connections, heap %.2f MiB",
		m.Goroutines, m.Own, m.Retries, m.Updates, m.Descriptors, m.Connections, float64(m.Heap)/(1<<20))
}

// within says whether nothing is more than in other, but for heap and retries.
func (m measures) within(other measures) bool {
	return m.Goroutines <= other.Goroutines && m.Descriptors <= other.Descriptors && m.Connections <= other.Connections
}

func ownMeasures() measures {
	// Finalizers and pools let go of theirs at the second collection.
	runtime.GC()
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	m := measures{Goroutines: runtime.NumGoroutine(), Heap: stats.HeapAlloc}
	var stacks strings.Builder
	_ = pprof.Lookup("goroutine").WriteTo(&stacks, 2)
	m.Retries = strings.Count(stacks.String(), "github.com/moby/swarmkit/v2/agent.(*taskManager).run.func3()")
	const updater = "github.com/moby/swarmkit/v2/manager/orchestrator/update.(*Updater)."
	m.Updates = 2*strings.Count(stacks.String(), updater+"updateTask(") + strings.Count(stacks.String(), updater+"Run(")
	m.Goroutines -= m.Retries + m.Updates
	for stack := range strings.SplitSeq(stacks.String(), "\n\n") {
		if strings.Contains(stack, "github.com/dockerexec/dockerexec.") {
			m.Own++
		}
	}
	entries, _ := os.ReadDir("/proc/self/fd")
	for _, e := range entries {
		m.Descriptors++
		if target, _ := os.Readlink("/proc/self/fd/" + e.Name()); strings.HasPrefix(target, "socket:") {
			m.Connections++
		}
	}
	return m
}

// ask asks the node at its socket.
func (s *swarm) ask(path string) []byte {
	s.t.Helper()
	_, socket, _ := strings.Cut(s.env[0], "=")
	client := http.Client{Timeout: time.Minute, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		},
	}}
	answer, err := client.Get("http://node" + path)
	require.NoError(s.t, err)
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	require.NoError(s.t, err)
	return body
}

func (s *swarm) measures() (m measures) {
	s.t.Helper()
	require.NoError(s.t, json.Unmarshal(s.ask("/measures"), &m))
	return m
}
