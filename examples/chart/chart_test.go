package chart

import (
	"encoding/xml"
	"io"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestMarksOfAxes(t *testing.T) {
	for most, want := range map[float64]float64{0: 1, 4: 1, 9: 2, 120: 50, 4000: 1000, 4001: 1000, 5001: 2000, 22000: 5000, 0.5: 1} {
		assert.InDelta(t, want, RoundStep(most), 1e-9, "most %v", most)
	}
}

func TestBarsHaveAxesFromZeroAndTheirSpread(t *testing.T) {
	var drawn strings.Builder
	require.NoError(t, Bars{Title: "Tasks & time", Note: "a note", Panels: []Panel{{
		Title: "seconds", Format: "%.1f s", Groups: []string{"20", "50"},
		Series: []Series{
			{"ours", "green", []Bar{{2, 1.5, 2.5}, {5, 4, 8}}},
			{"limit", "grey", []Bar{{1, 1, 1}}}, // none of the second group
		},
	}}}.Draw(&drawn))
	svg := drawn.String()
	for _, want := range []string{
		"Tasks &amp; time", "a note", ">seconds</text>", ">20</text>", ">50</text>", ">2.0 s</text>", ">5.0 s</text>", ">1.0 s</text>",
		`>0</text>`, `>8</text>`, ">ours</text>", ">limit</text>",
		// The axis ends at 8, 170 pixels above 0 at 262: 2 is 42.5 pixels high, its spread from 1.5 to 2.5 is 31.9 to 53.1.
		`<rect x="121.6" y="219.5" width="129.3" height="42.5" fill="green"/>`,
		`y1="230.1" x2="186.3" y2="208.9"`,
	} {
		assert.Contains(t, svg, want)
	}
	assert.Equal(t, 3, strings.Count(svg, " s</text>"))
	decoder, err := xml.NewDecoder(strings.NewReader(svg)), error(nil)
	for err == nil {
		_, err = decoder.Token()
	}
	assert.ErrorIs(t, err, io.EOF, "it is XML to its end")
}
