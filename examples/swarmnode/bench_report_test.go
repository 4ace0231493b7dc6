package main

import (
	"cmp"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dockerexec/dockerexec/examples/chart"
)

// What must hold, see docs/benchmarks.md.
const (
	mostOfLimit       = 1.15 // times the engine's own limit, until 50 tasks run
	mostOfBaseline    = 1.05 // times the baseline
	mostRequests      = 9.5  // a task, over its whole life
	mostRequestsOfUp  = 6.4  // a task that shares a network, until all run
	tasksOfTheLimit   = 50
	benchNote         = "Medians of %d rounds, taken in turn on %d cores with engine %s. The thin lines go from the least to the most."
	unitOfIdle        = "%.1f %%"
	colorOfOurs       = "#1f6f3f"
	colorOfBaseline   = "#b3352b"
	colorOfTheirLimit = "#8a8a8a"
)

// nodeReport is what was measured.
type nodeReport struct {
	Engine        string
	Cores, Rounds int
	Sizes         []sizeReport
	Shared        []lifeOfTasks // of 50 tasks of this package's executor that share a network
}

// sizeReport is what was measured of a number of tasks: each round, by who ran them.
type sizeReport struct {
	Tasks int
	Lives map[string][]lifeOfTasks
}

// spread is a median, with the least and the most.
type spread struct{ median, least, most float64 }

func (s spread) String() string { return fmt.Sprintf("%.1f (%.1f–%.1f)", s.median, s.least, s.most) }

// spreadOf is the spread of one figure over the rounds.
func spreadOf(lives []lifeOfTasks, figure func(lifeOfTasks) float64) spread {
	var values []float64
	for _, l := range lives {
		values = append(values, figure(l))
	}
	if len(values) == 0 {
		return spread{}
	}
	slices.Sort(values)
	return spread{(values[(len(values)-1)/2] + values[len(values)/2]) / 2, values[0], values[len(values)-1]}
}

func up(l lifeOfTasks) float64          { return l.Up.Seconds() }
func down(l lifeOfTasks) float64        { return l.Down.Seconds() }
func requests(l lifeOfTasks) float64    { return l.Requests }
func requestsUp(l lifeOfTasks) float64  { return l.UpRequests }
func connections(l lifeOfTasks) float64 { return float64(l.Connections) }
func cpu(l lifeOfTasks) float64         { return l.CPU.Seconds() }
func memory(l lifeOfTasks) float64      { return float64(l.Memory) / (1 << 20) }
func idle(l lifeOfTasks) float64        { return l.Idle }

// table is the report in Markdown.
func (r nodeReport) table() string {
	var b strings.Builder
	fmt.Fprintf(&b, "Engine %s, %d cores, medians of %d rounds; in brackets the least and the most.\n\n", r.Engine, r.Cores, r.Rounds)
	b.WriteString("| tasks | | the engine's limit | dockerexec | baseline |\n|---|---|---|---|---|\n")
	for _, size := range r.Sizes {
		line := func(what string, figure func(lifeOfTasks) float64, format string, ofLimit bool) {
			cell := func(who string) string {
				s := spreadOf(size.Lives[who], figure)
				if who == limit && !ofLimit {
					return ""
				}
				if format != "" {
					return fmt.Sprintf(format, s.median)
				}
				return s.String()
			}
			fmt.Fprintf(&b, "| %d | %s | %s | %s | %s |\n", size.Tasks, what, cell(limit), cell(ours), cell(baseline))
		}
		line("seconds until all run", up, "", true)
		line("seconds until none is left", down, "", true)
		line("requests a task", requests, "%.1f", false)
		line("connections while all run", connections, "%.0f", false)
		line("CPU of the node, seconds", cpu, "%.1f", false)
		line("memory of the node, MiB", memory, "%.0f", false)
		if spreadOf(size.Lives[ours], idle).median > 0 {
			line("CPU while nothing happens, of a core", idle, unitOfIdle, false)
		}
	}
	fmt.Fprintf(&b, "| 50, one network | requests a task until all run | | %.1f | |\n", spreadOf(r.Shared, requestsUp).median)
	return b.String()
}

// faults are the limits that are not held, each in a sentence.
func (r nodeReport) faults() (faults []string) {
	holds := func(what string, value, most float64) {
		if value > most || value <= 0 {
			faults = append(faults, fmt.Sprintf("%s: %.2f; the limit is %.2f", what, value, most))
		}
	}
	for _, size := range r.Sizes {
		median := func(who string, figure func(lifeOfTasks) float64) float64 {
			return spreadOf(size.Lives[who], figure).median
		}
		if size.Tasks == tasksOfTheLimit {
			holds(fmt.Sprintf("seconds until %d tasks run, beside the engine's limit", size.Tasks), median(ours, up), mostOfLimit*median(limit, up))
		}
		holds(fmt.Sprintf("seconds until %d tasks run, beside the baseline", size.Tasks), median(ours, up), mostOfBaseline*median(baseline, up))
		holds(fmt.Sprintf("seconds until none of %d tasks is left, beside the baseline", size.Tasks), median(ours, down), mostOfBaseline*median(baseline, down))
		holds(fmt.Sprintf("requests a task of %d", size.Tasks), median(ours, requests), mostRequests)
	}
	holds("requests a task that shares a network, until all run", spreadOf(r.Shared, requestsUp).median, mostRequestsOfUp)
	return faults
}

// drawing is the report as bars.
func (r nodeReport) drawing() chart.Bars {
	panel := func(title, format string, figure func(lifeOfTasks) float64, series ...chart.Series) chart.Panel {
		p := chart.Panel{Title: title, Format: format}
		for _, size := range r.Sizes {
			p.Groups = append(p.Groups, fmt.Sprint(size.Tasks, " tasks"))
		}
		for _, s := range series {
			name := s.Name
			for _, size := range r.Sizes {
				of := spreadOf(size.Lives[name], figure)
				s.Bars = append(s.Bars, chart.Bar{Value: of.median, Least: of.least, Most: of.most})
			}
			s.Name = cmp.Or(map[string]string{limit: "the engine's own limit", baseline: "the reference's calls"}[name], name)
			p.Series = append(p.Series, s)
		}
		return p
	}
	of := []chart.Series{{Name: limit, Color: colorOfTheirLimit}, {Name: ours, Color: colorOfOurs}, {Name: baseline, Color: colorOfBaseline}}
	return chart.Bars{
		Title: "From the creation of a service until all its tasks run, and back",
		Note:  fmt.Sprintf(benchNote, r.Rounds, r.Cores, r.Engine),
		Panels: []chart.Panel{
			panel("seconds until all run", "%.1f", up, of...),
			panel("seconds until none is left", "%.1f", down, of...),
			panel("connections to the engine while all run", "%.0f", connections, of[1:]...),
		},
	}
}

func writeDrawing(t *testing.T, file string, r nodeReport) {
	t.Helper()
	var drawn strings.Builder
	require.NoError(t, r.drawing().Draw(&drawn))
	if file != "" {
		require.NoError(t, os.WriteFile(file, []byte(drawn.String()), 0o644))
	}
}

// writeBetween puts text between the marks of that name in a page. An empty path is none.
func writeBetween(t *testing.T, page, name, text string) {
	t.Helper()
	if page == "" {
		return
	}
	begin, end := "<!-- "+name+": written by make bench-node -->\n", "<!-- end of "+name+" -->\n"
	old, err := os.ReadFile(page)
	require.NoError(t, err)
	before, rest, found := strings.Cut(string(old), begin)
	_, after, closed := strings.Cut(rest, end)
	require.True(t, found && closed, "%s has no marks for %s", page, name)
	require.NoError(t, os.WriteFile(page, []byte(before+begin+text+end+after), 0o644))
}

func TestTheReportOfTheNode(t *testing.T) {
	lives := func(up, down time.Duration, requests float64) []lifeOfTasks {
		l := lifeOfTasks{Up: up, Down: down, Requests: requests, Connections: 21, CPU: 3200 * time.Millisecond, Memory: 70 << 20}
		slow := l
		slow.Up *= 2
		return []lifeOfTasks{slow, l, l}
	}
	report := nodeReport{Engine: "20.10.24", Cores: 2, Rounds: 3, Sizes: []sizeReport{{50, map[string][]lifeOfTasks{
		limit: lives(5*time.Second, 4*time.Second, 0), ours: lives(5500*time.Millisecond, 4*time.Second, 9.4), baseline: lives(6*time.Second, 4*time.Second, 17),
	}}}, Shared: []lifeOfTasks{{UpRequests: 6.3}}}
	require.Empty(t, report.faults())
	require.Equal(t, `Engine 20.10.24, 2 cores, medians of 3 rounds; in brackets the least and the most.

| tasks | | the engine's limit | dockerexec | baseline |
|---|---|---|---|---|
| 50 | seconds until all run | 5.0 (5.0–10.0) | 5.5 (5.5–11.0) | 6.0 (6.0–12.0) |
| 50 | seconds until none is left | 4.0 (4.0–4.0) | 4.0 (4.0–4.0) | 4.0 (4.0–4.0) |
| 50 | requests a task |  | 9.4 | 17.0 |
| 50 | connections while all run |  | 21 | 21 |
| 50 | CPU of the node, seconds |  | 3.2 | 3.2 |
| 50 | memory of the node, MiB |  | 70 | 70 |
| 50, one network | requests a task until all run | | 6.3 | |
`, report.table())

	report.Sizes[0].Lives[ours] = lives(6500*time.Millisecond, 5*time.Second, 11.2)
	report.Shared = []lifeOfTasks{{UpRequests: 8.46}}
	require.Equal(t, []string{
		"seconds until 50 tasks run, beside the engine's limit: 6.50; the limit is 5.75",
		"seconds until 50 tasks run, beside the baseline: 6.50; the limit is 6.30",
		"seconds until none of 50 tasks is left, beside the baseline: 5.00; the limit is 4.20",
		"requests a task of 50: 11.20; the limit is 9.50",
		"requests a task that shares a network, until all run: 8.46; the limit is 6.40",
	}, report.faults())
}
