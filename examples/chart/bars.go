package chart

import (
	"fmt"
	"io"
	"math"
	"strings"
)

// Bar is a value, and the least and the most that was measured.
type Bar struct{ Value, Least, Most float64 }

// Series is what is compared: a bar in each group.
type Series struct {
	Name, Color string
	Bars        []Bar
}

// Panel is one pair of axes. Each group has a bar of each series.
type Panel struct {
	Title  string // with the unit
	Format string // of the value above a bar, as for fmt
	Groups []string
	Series []Series
}

// Bars is a drawing of panels, one below the other. The legend is that of the first panel.
type Bars struct {
	Title, Note string
	Panels      []Panel
}

// The drawing's measures, in pixels.
const (
	width       = 860
	left, right = 84, 24
	top         = 92
	panel, gap  = 170, 76
	legend      = 34
)

// Draw writes the drawing as SVG. All axes begin at 0 and are linear. A thin line on a bar
// goes from the least to the most.
func (b Bars) Draw(w io.Writer) error {
	var svg strings.Builder
	height := top + len(b.Panels)*(panel+gap) + legend
	Begin(&svg, width, height, left, b.Title, b.Note)
	for i, p := range b.Panels {
		p.draw(&svg, top+i*(panel+gap))
	}
	if len(b.Panels) > 0 {
		for i, s := range b.Panels[0].Series {
			x := left + i*240
			fmt.Fprintf(&svg, `<rect x="%d" y="%d" width="14" height="14" fill="%s"/>`+"\n", x, height-40, s.Color)
			Text(&svg, x+22, height-28, "start", "13", s.Name)
		}
	}
	svg.WriteString("</svg>\n")
	_, err := io.WriteString(w, svg.String())
	return err
}

func (p Panel) draw(svg *strings.Builder, y int) {
	most := 0.0
	for _, s := range p.Series {
		for _, bar := range s.Bars {
			most = max(most, bar.Most)
		}
	}
	step := RoundStep(most)
	full := step * math.Max(1, math.Ceil(most/step))
	at := func(value float64) float64 { return float64(y+panel) - panel*value/full }

	Text(svg, left, y-24, "start", "13", p.Title)
	for value := 0.0; value <= full; value += step {
		fmt.Fprintf(svg, `<line x1="%d" y1="%.1f" x2="%d" y2="%.1f" stroke="#d0d0d0"/>`+"\n", left, at(value), width-right, at(value))
		Text(svg, left-8, int(at(value))+4, "end", "12", fmt.Sprintf("%.0f", value))
	}
	group := float64(width-left-right) / float64(max(1, len(p.Groups)))
	bar := group * 0.8 / float64(max(1, len(p.Series)))
	for g, name := range p.Groups {
		begin := left + group*(float64(g)+0.1)
		Text(svg, int(begin+group*0.4), y+panel+18, "middle", "13", name)
		for i, s := range p.Series {
			if g >= len(s.Bars) {
				continue
			}
			x, b := begin+bar*float64(i), s.Bars[g]
			fmt.Fprintf(svg, `<rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" fill="%s"/>`+"\n", x, at(b.Value), bar*0.86, panel*b.Value/full, s.Color)
			middle := x + bar*0.43
			fmt.Fprintf(svg, `<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" stroke="#202020"/>`+"\n", middle, at(b.Least), middle, at(b.Most))
			Text(svg, int(middle), int(at(b.Most))-4, "middle", "11", fmt.Sprintf(p.Format, b.Value))
		}
	}
}
