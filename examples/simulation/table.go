package main

import (
	"fmt"
	"io"
)

// printTables prints the results of all sizes, the smallest first, as Markdown. A number
// in brackets is the ratio to the row above, if that is the same scene.
func printTables(out io.Writer, all []result) {
	fmt.Fprintln(out, "| scene | agents | concerned: agents, tasks | time, s | CPU, s | of agents | of managers | of engines | raft writes | requests an agent | of them failed | requests a task | events an agent |")
	fmt.Fprintln(out, "|---|---|---|---|---|---|---|---|---|---|---|---|---|")
	for i := range all[0].scenes {
		var above *figures
		for _, r := range all {
			f := &r.scenes[i]
			printScene(out, r.plan, f, above)
			above = f
		}
	}
	fmt.Fprintln(out, "\n| agents | tasks | heap an agent, KiB | goroutines an agent | heap a waiting task, KiB | goroutines a waiting task | heap of the managers, MiB | heap of the managers a task, KiB | heap of connections an agent, KiB | heap of an engine, KiB | stacks an agent, KiB |")
	fmt.Fprintln(out, "|---|---|---|---|---|---|---|---|---|---|---|")
	for _, r := range all {
		printMemory(out, r)
	}
}

func printScene(out io.Writer, p plan, f, above *figures) {
	ratio := func(format string, of func(*figures) float64) string {
		text := fmt.Sprintf(format, of(f))
		if above != nil && of(above) > 0 {
			text += fmt.Sprintf(" (%.1f)", of(f)/of(above))
		}
		return text
	}
	per := func(n int64, by int) string {
		if by == 0 {
			return ""
		}
		return fmt.Sprintf("%.1f", float64(n)/float64(by))
	}
	cpuOf := func(part string) func(*figures) float64 {
		return func(f *figures) float64 { return f.cpuOf[part].Seconds() }
	}
	fmt.Fprintf(out, "| %s | %d | %d, %d | %s | %s | %s | %s | %s | %s | %s | %s | %s | %s |\n", f.scene, p.agents, f.agents, f.tasks,
		ratio("%.1f", func(f *figures) float64 { return f.took.Seconds() }),
		ratio("%.1f", func(f *figures) float64 { return f.cpu.Seconds() }),
		ratio("%.1f", cpuOf(agentsPart)), ratio("%.1f", cpuOf(managersPart)), ratio("%.1f", cpuOf(enginesPart)),
		ratio("%.0f", func(f *figures) float64 { return float64(f.writes) }),
		per(f.traffic.requests, f.agents), per(f.traffic.failed, f.agents), per(f.traffic.requests, f.tasks), per(f.traffic.events, f.agents))
}

func printMemory(out io.Writer, r result) {
	agents, tasks := float64(r.plan.agents), float64(r.plan.total())
	joined, upped := r.idle.minus(r.empty), r.busy.minus(r.idle)
	const kib = 1 << 10
	fmt.Fprintf(out, "| %d | %d | %.0f | %.0f | %.1f | %.1f | %.1f | %.1f | %.0f | %.0f | %.0f |\n", r.plan.agents, r.plan.total(),
		float64(joined.heap[agentsPart])/agents/kib, float64(joined.goroutines[agentsPart])/agents,
		float64(upped.heap[agentsPart])/tasks/kib, float64(upped.goroutines[agentsPart])/tasks,
		float64(r.busy.heap[managersPart])/(1<<20), float64(upped.heap[managersPart])/tasks/kib,
		float64(r.busy.heap[wirePart]-r.empty.heap[wirePart])/agents/kib,
		float64(r.busy.heap[enginesPart]-r.empty.heap[enginesPart])/agents/kib,
		float64(r.busy.stacks-r.empty.stacks)/agents/kib)
}
