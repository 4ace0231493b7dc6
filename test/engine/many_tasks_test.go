package engine_test

import (
	"fmt"
	"net/http"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dockerexec/dockerexec"
	"github.com/moby/swarmkit/v2/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// measures are what the process has in use.
type measures struct {
	goroutines  int
	descriptors int
	connections int    // among the descriptors
	heap        uint64 // bytes of live objects, once all garbage is collected
}

func (m measures) String() string {
	return fmt.Sprintf("%d goroutines, %d descriptors of which %d connections, heap %.2f MiB",
		m.goroutines, m.descriptors, m.connections, float64(m.heap)/(1<<20))
}

// within says whether nothing is more than in other, but for the heap.
func (m measures) within(other measures) bool {
	return m.goroutines <= other.goroutines && m.descriptors <= other.descriptors && m.connections <= other.connections
}

func measure(t testing.TB) measures {
	t.Helper()
	needsEngineAlone(t)
	// Finalizers and pools let go of theirs at the second collection.
	runtime.GC()
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	m := measures{goroutines: runtime.NumGoroutine(), heap: stats.HeapAlloc}
	entries, _ := os.ReadDir("/proc/self/fd")
	for _, entry := range entries {
		m.descriptors++
		if target, _ := os.Readlink("/proc/self/fd/" + entry.Name()); strings.HasPrefix(target, "socket:") {
			m.connections++
		}
	}
	return m
}

// Sixty tasks (forty on Podman) with two networks each come and go. Then there is no container,
// network, goroutine, descriptor or connection more than before them, and not 5 %
// more live heap than after the first twenty.
func TestEngineManyTasksLeaveNothing(t *testing.T) {
	client, counting := plainClient(t)
	executor := dockerexec.NewExecutor(client, nil)
	warmImage(t, client)
	transport := counting.RoundTripper.(*http.Transport)
	transport.CloseIdleConnections()
	before := measure(t)
	t.Logf("before: %v", before)
	var warm, now measures
	for batch := range fewerOnPodman(3, 2) {
		began := time.Now()
		var group sync.WaitGroup
		slots := make(chan struct{}, 8)
		for i := 20 * batch; i < 20*(batch+1); i++ {
			slots <- struct{}{}
			group.Go(func() {
				defer func() { <-slots }()
				task := taskAt(engineTask(t, "exit", "0"), api.TaskStateAccepted)
				spec(task).Env = []string{"SEEN_IF_KEPT=" + strings.Repeat("x", 4<<10)}
				attach(task, fmt.Sprintf("dockerexec-many-%d-a", i), fmt.Sprintf("10.215.%d.0/24", i))
				attach(task, fmt.Sprintf("dockerexec-many-%d-b", i), fmt.Sprintf("10.216.%d.0/24", i))
				made, err := executor.Controller(task)
				if !assert.NoError(t, err) {
					return
				}
				drive(t.Context(), t, task, made, api.TaskStateCompleted)
				assert.Equal(t, api.TaskStateCompleted, task.Status.State, task.Status.Err)
				assert.NoError(t, made.Remove(t.Context()))
				assert.NoError(t, made.Close())
			})
		}
		group.Wait()
		counting.counted() // which are the test's own memory
		now = measure(t)
		if batch == 0 {
			warm = now
		}
		t.Logf("%d tasks, the last 20 in %v: %v", 20*(batch+1), time.Since(began).Round(time.Millisecond), now)
	}
	growth := 100 * (float64(now.heap)/float64(warm.heap) - 1)
	t.Logf("the heap has grown by %.1f %% since the first 20 tasks", growth)
	assert.Less(t, growth, 5.0)
	left, err := leftOn(fromHarness(t, "DOCKEREXEC_TEST_HOST"))
	require.NoError(t, err)
	assert.Empty(t, left)
	transport.CloseIdleConnections()
	for late := time.Now().Add(10 * time.Second); !now.within(before) && time.Now().Before(late); now = measure(t) {
		time.Sleep(100 * time.Millisecond)
	}
	t.Logf("in the end: %v", now)
	assert.True(t, now.within(before))
}
