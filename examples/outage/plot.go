// Package outage measures what an outage of the engine costs a process with waiting
// tasks, and draws it: see its benchmark, and the script hack/bench.sh.
package outage

import (
	"fmt"
	"io"
	"math"
	"strings"
	"time"

	"github.com/dockerexec/dockerexec/examples/chart"
)

// Sample is what a process has used since its start.
type Sample struct {
	At       time.Duration // since the begin of the measurement
	Requests int64         // tried ones, also those that got no connection
	CPU      time.Duration // of all its threads
}

// Run is what was measured of one process, in order of time.
type Run struct {
	Name    string
	Color   string // of SVG
	Samples []Sample
}

// Plot is a drawing of several runs with the same outage.
type Plot struct {
	Title, Note string
	Lost, Back  time.Duration // the outage
	End         time.Duration // of the time axis
	Runs        []Run
}

// Between is what a run has used between two points of time, as far as its samples tell.
func (r Run) Between(from, to time.Duration) (requests int64, cpu time.Duration) {
	var first, last Sample
	for _, s := range r.Samples {
		if s.At <= from {
			first = s
		}
		if s.At <= to {
			last = s
		}
	}
	return last.Requests - first.Requests, last.CPU - first.CPU
}

// The drawing's measures, in pixels.
const (
	width, height   = 860, 552
	left, right     = 84, 24
	top, panel, gap = 92, 150, 62
)

// Draw writes the plot as SVG: requests a second above, and the share of one core below,
// over the same time. Both axes begin at 0 and are linear.
func (p Plot) Draw(w io.Writer) error {
	var svg strings.Builder
	chart.Begin(&svg, width, height, left, p.Title, p.Note)
	p.panel(&svg, top, "requests tried a second", "%.0f", func(a, b Sample) float64 {
		return float64(b.Requests-a.Requests) / (b.At - a.At).Seconds()
	})
	p.panel(&svg, top+panel+gap, "CPU, per cent of one core", "%.0f", func(a, b Sample) float64 {
		return 100 * (b.CPU - a.CPU).Seconds() / (b.At - a.At).Seconds()
	})
	chart.Text(&svg, left+(width-left-right)/2, top+2*panel+gap+36, "middle", "13", "seconds")
	for i, r := range p.Runs {
		requests, cpu := r.Between(p.Lost, p.Back)
		y := height - 20*(len(p.Runs)-i) + 6
		fmt.Fprintf(&svg, `<line x1="%d" y1="%d" x2="%d" y2="%d" stroke="%s" stroke-width="3"/>`+"\n", left, y-4, left+26, y-4, r.Color)
		chart.Text(&svg, left+34, y, "start", "13", fmt.Sprintf("%s: %d requests and %.2f s of CPU within the outage", r.Name, requests, cpu.Seconds()))
	}
	svg.WriteString("</svg>\n")
	_, err := io.WriteString(w, svg.String())
	return err
}

// panel draws one pair of axes, and in it the rate of each run between its samples.
func (p Plot) panel(svg *strings.Builder, y int, title, label string, rate func(a, b Sample) float64) {
	most := 0.0
	for _, r := range p.Runs {
		for i := 1; i < len(r.Samples); i++ {
			most = max(most, rate(r.Samples[i-1], r.Samples[i]))
		}
	}
	step := chart.RoundStep(most)
	full := step * math.Max(1, math.Ceil(most/step))
	x := func(at time.Duration) float64 {
		return left + float64(width-left-right)*at.Seconds()/p.End.Seconds()
	}
	at := func(value float64) float64 { return float64(y+panel) - panel*value/full }

	fmt.Fprintf(svg, `<rect x="%.1f" y="%d" width="%.1f" height="%d" fill="#f3e3c8"/>`+"\n", x(p.Lost), y, x(p.Back)-x(p.Lost), panel)
	chart.Text(svg, int(x(p.Lost+p.Back)+left)/2, y-6, "middle", "12", "engine away")
	chart.Text(svg, left, y-6, "start", "13", title)
	for value := 0.0; value <= full; value += step {
		fmt.Fprintf(svg, `<line x1="%d" y1="%.1f" x2="%d" y2="%.1f" stroke="#d0d0d0"/>`+"\n", left, at(value), width-right, at(value))
		chart.Text(svg, left-8, int(at(value))+4, "end", "12", fmt.Sprintf(label, value))
	}
	for second := time.Duration(0); second <= p.End; second += 5 * time.Second {
		chart.Text(svg, int(x(second)), y+panel+17, "middle", "12", fmt.Sprintf("%.0f", second.Seconds()))
	}
	for _, r := range p.Runs {
		var points []string
		for i := 1; i < len(r.Samples); i++ {
			a, b := r.Samples[i-1], r.Samples[i]
			points = append(points, fmt.Sprintf("%.1f,%.1f", x((a.At+b.At)/2), at(rate(a, b))))
		}
		fmt.Fprintf(svg, `<polyline fill="none" stroke="%s" stroke-width="2" points="%s"/>`+"\n", r.Color, strings.Join(points, " "))
	}
}
