package dockerexec

import (
	"fmt"
	"os"
	"runtime"
	"strings"
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

func measure() measures {
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
