package main

import (
	"fmt"
	"os"
	"strconv"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The variables of the measurement, which hack/bench-node.sh sets: how often each thing is
// measured, how often the engine is killed, and the files to write to.
const (
	benchRounds = "SWARMNODE_TEST_BENCH_ROUNDS"
	benchKills  = "SWARMNODE_TEST_BENCH_KILLS"
	benchPage   = "SWARMNODE_TEST_BENCH_PAGE"
	benchSVG    = "SWARMNODE_TEST_BENCH_SVG"
)

// rounds returns the number in a variable, and skips the test if that is not set.
func rounds(t *testing.T, name string) int {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		t.Skip(name + " is not set: `make bench-node` sets it")
	}
	n, err := strconv.Atoi(text)
	require.NoError(t, err)
	return n
}

// TestBenchNode measures how long a node takes for its tasks, and what it uses for that,
// beside the baseline and beside the engine's own limit, in turn. It fails if a limit is
// not held. The table and the drawing are written in any case.
func TestBenchNode(t *testing.T) {
	n := rounds(t, benchRounds)
	t.Run("warm up", func(t *testing.T) { liveTasks(t, ours, 2, "", false) }) // the image is on the engine now
	info, err := engineClient(t).Info(t.Context())
	require.NoError(t, err)
	report := nodeReport{Engine: info.ServerVersion, Cores: info.NCPU, Rounds: n}
	for _, size := range []int{20, 50, 100} {
		row := sizeReport{Tasks: size, Lives: map[string][]lifeOfTasks{}}
		for round := range n {
			for _, who := range []string{limit, ours, baseline} {
				t.Run(fmt.Sprintf("%d tasks, round %d, %s", size, round+1, who), func(t *testing.T) {
					var l lifeOfTasks
					if who == limit {
						l = liveContainers(t, size)
					} else {
						l = liveTasks(t, who, size, "", size == 100)
					}
					t.Logf("%+v", l)
					row.Lives[who] = append(row.Lives[who], l)
				})
			}
		}
		report.Sizes = append(report.Sizes, row)
	}
	// Not the baseline: as the reference, it leaves containers whose network another task has removed.
	t.Run("50 tasks with a network", func(t *testing.T) {
		report.Shared = append(report.Shared, liveTasks(t, ours, 50, "10.219.12.0/24", false))
	})
	if t.Failed() {
		return
	}
	table := report.table()
	t.Log("\n" + table)
	writeBetween(t, os.Getenv(benchPage), "node", table)
	writeDrawing(t, os.Getenv(benchSVG), report)
	for _, fault := range report.faults() {
		assert.Fail(t, fault)
	}
}

// The names of what is compared.
const ours, baseline, limit = "dockerexec", "reference", "limit"
