package outage

import (
	"encoding/xml"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func seconds(n float64) time.Duration { return time.Duration(n * float64(time.Second)) }

func TestDrawHasAxesFromZeroAndTheTotals(t *testing.T) {
	var drawn strings.Builder
	err := Plot{Title: "An outage & its cost", Note: "a note", Lost: seconds(5), Back: seconds(15), End: seconds(20), Runs: []Run{
		{Name: "quiet", Color: "green", Samples: []Sample{{0, 0, 0}, {seconds(5), 10, seconds(1)}, {seconds(15), 14, seconds(1.5)}, {seconds(20), 30, seconds(2)}}},
		{Name: "loud", Color: "red", Samples: []Sample{{0, 0, 0}, {seconds(5), 0, 0}, {seconds(15), 40000, seconds(12)}, {seconds(20), 40000, seconds(12)}}},
	}}.Draw(&drawn)
	require.NoError(t, err)
	svg := drawn.String()
	for _, want := range []string{
		"An outage &amp; its cost", "a note", "engine away",
		`>0</text>`, `>1000</text>`, `>4000</text>`, // requests a second
		`>50</text>`, `>150</text>`, // per cent
		`stroke="green"`, `stroke="red"`,
		"quiet: 4 requests and 0.50 s of CPU within the outage",
		"loud: 40000 requests and 12.00 s of CPU within the outage",
		// The second run's rates in the middle of 0..5, 5..15 and 15..20 s: 0, 4000 (the axis' end) and 0.
		`points="178.0,242.0 460.0,92.0 742.0,242.0"`,
	} {
		assert.Contains(t, svg, want)
	}
	assert.NotContains(t, svg, `>5000</text>`)
	decoder := xml.NewDecoder(strings.NewReader(svg))
	for err == nil {
		_, err = decoder.Token()
	}
	assert.ErrorIs(t, err, io.EOF, "it is XML to its end")
}
