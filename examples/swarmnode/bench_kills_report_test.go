package main

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// mostOfBack is how much later than with the baseline all tasks may run again.
const mostOfBack = 1.1

// killsReport is what came of the kills of an engine, by executor.
type killsReport struct {
	Engine string
	Cores  int
	Kills  map[string][]killedStarts
}

func (r killsReport) back(who string) spread {
	var lives []lifeOfTasks
	for _, k := range r.Kills[who] {
		lives = append(lives, lifeOfTasks{Up: k.Back})
	}
	return spreadOf(lives, up)
}

// counts are a number of each kill, as words.
func (r killsReport) counts(who string, of func(killedStarts) int) string {
	var words []string
	for _, k := range r.Kills[who] {
		words = append(words, fmt.Sprint(of(k)))
	}
	return strings.Join(words, ", ")
}

func left(k killedStarts) int      { return len(k.Strays) }
func leftShown(k killedStarts) int { return k.Shown }

func (r killsReport) table() string {
	var b strings.Builder
	fmt.Fprintf(&b, "Engine %s, %d cores, %d kills with each; in brackets the least and the most.\n\n", r.Engine, r.Cores, len(r.Kills[ours]))
	b.WriteString("| | dockerexec | baseline |\n|---|---|---|\n")
	fmt.Fprintf(&b, "| seconds until 30 tasks run again, median | %v | %v |\n", r.back(ours), r.back(baseline))
	line := func(what string, of func(killedStarts) int) {
		fmt.Fprintf(&b, "| %s, by kill | %s | %s |\n", what, r.counts(ours, of), r.counts(baseline, of))
	}
	line("processes that the engine does not know a minute after the last task", left)
	line("among them, such that it had shown as running", leftShown)
	return b.String()
}

func (r killsReport) faults() (faults []string) {
	if mine, most := r.back(ours).median, mostOfBack*r.back(baseline).median; mine > most {
		faults = append(faults, fmt.Sprintf("seconds until all tasks run again: %.1f; the limit is %.1f", mine, most))
	}
	// No client ends a process that the engine never shows: see "Lost starts" in docs/operations.md.
	if slices.ContainsFunc(r.Kills[ours], func(k killedStarts) bool { return k.Shown > 0 }) {
		faults = append(faults, "processes that the engine had shown as running, and that were left, by kill: "+r.counts(ours, leftShown))
	}
	return faults
}

func TestTheReportOfTheKills(t *testing.T) {
	report := killsReport{Engine: "20.10.24", Cores: 2, Kills: map[string][]killedStarts{
		ours:     {{Back: 8 * time.Second}, {Back: 9 * time.Second, Strays: make([]hostProcess, 1)}},
		baseline: {{Back: 8 * time.Second}, {Back: 8 * time.Second, Strays: make([]hostProcess, 2)}},
	}}
	require.Empty(t, report.faults())
	require.Equal(t, `Engine 20.10.24, 2 cores, 2 kills with each; in brackets the least and the most.

| | dockerexec | baseline |
|---|---|---|
| seconds until 30 tasks run again, median | 8.5 (8.0–9.0) | 8.0 (8.0–8.0) |
| processes that the engine does not know a minute after the last task, by kill | 0, 1 | 0, 2 |
| among them, such that it had shown as running, by kill | 0, 0 | 0, 0 |
`, report.table())
	report.Kills[ours] = []killedStarts{{Back: 9 * time.Second, Strays: make([]hostProcess, 1), Shown: 1}}
	require.Equal(t, []string{
		"seconds until all tasks run again: 9.0; the limit is 8.8",
		"processes that the engine had shown as running, and that were left, by kill: 1",
	}, report.faults())
}
