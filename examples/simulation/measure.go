package main

import (
	"bytes"
	"os"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// figures are what a scene took.
type figures struct {
	scene         string
	agents, tasks int // that the scene was about
	took          time.Duration
	cpu           time.Duration
	cpuOf         map[string]time.Duration // by part
	writes        int64                    // to raft's log
	traffic       counts                   // of the agents that the scene was about
}

// meter measures a scene.
type meter struct {
	began   time.Time
	cpu     time.Duration
	writes  int64
	profile bytes.Buffer
}

func startMeter() (*meter, error) {
	m := &meter{began: time.Now(), cpu: cpuTime(), writes: raftWrites()}
	return m, pprof.StartCPUProfile(&m.profile)
}

// stop returns what was taken since the start. If folder is not empty, the profile of the
// CPU is written there.
func (m *meter) stop(folder, name string) (figures, error) {
	f := figures{took: time.Since(m.began), cpu: cpuTime() - m.cpu, writes: raftWrites() - m.writes}
	pprof.StopCPUProfile()
	samples, err := readProfile(m.profile.Bytes())
	if err != nil {
		return f, err
	}
	f.cpuOf = map[string]time.Duration{}
	for part, nanoseconds := range byLabel(samples) {
		f.cpuOf[part] = time.Duration(nanoseconds)
	}
	if folder != "" {
		err = os.WriteFile(filepath.Join(folder, name+".pprof"), m.profile.Bytes(), 0o644)
	}
	return f, err
}

// cpuTime is the CPU that the process has used.
func cpuTime() time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		return 0
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// raftWrites is how many proposals the leaders have made. SwarmKit counts them for all
// managers of the process.
func raftWrites() int64 {
	families, err := prometheus.DefaultGatherer.Gather()
	if err != nil {
		return 0
	}
	for _, family := range families {
		if family.GetName() == "swarm_raft_transaction_latency_seconds" {
			return int64(family.GetMetric()[0].GetHistogram().GetSampleCount())
		}
	}
	return 0
}

// footprint is the memory of the process at a moment.
type footprint struct {
	heap       map[string]int64 // bytes in use, by part
	goroutines map[string]int64 // by part
	stacks     int64            // bytes of goroutines' stacks
}

func takeFootprint() (footprint, error) {
	var f footprint
	var err error
	runtime.GC()
	runtime.GC() // the profile shows the heap as the collection before the last one left it
	if f.heap, err = profiled("heap", byStack); err != nil {
		return f, err
	}
	if f.goroutines, err = profiled("goroutine", byLabel); err != nil {
		return f, err
	}
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	f.stacks = int64(stats.StackInuse)
	return f, nil
}

func profiled(name string, by func([]sample) map[string]int64) (map[string]int64, error) {
	var data bytes.Buffer
	if err := pprof.Lookup(name).WriteTo(&data, 0); err != nil {
		return nil, err
	}
	samples, err := readProfile(data.Bytes())
	return by(samples), err
}

// minus returns what was added since an earlier moment.
func (f footprint) minus(earlier footprint) footprint {
	difference := footprint{heap: map[string]int64{}, goroutines: map[string]int64{}, stacks: f.stacks - earlier.stacks}
	for part, n := range f.heap {
		difference.heap[part] = n - earlier.heap[part]
	}
	for part, n := range f.goroutines {
		difference.goroutines[part] = n - earlier.goroutines[part]
	}
	return difference
}
