package main

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/dockerexec/dockerexec"
	"github.com/stretchr/testify/assert"
)

func TestPullProgressAsLines(t *testing.T) {
	var out bytes.Buffer
	p := newPrinter(&out)
	p.pull(t.Context(), dockerexec.PullProgress{})
	p.pull(t.Context(), dockerexec.PullProgress{Status: "Pulling"})
	p.pull(t.Context(), dockerexec.PullProgress{Status: "Pulling"}) // nothing new
	p.pull(t.Context(), dockerexec.PullProgress{Status: "Downloading", LayersDone: 1, LayersTotal: 3, Attempt: 2,
		BytesDone: 4_200_000, BytesTotal: 10_000_000, BytesPerSecond: 2_000_000, Remaining: 2900 * time.Millisecond})
	assert.Equal(t, "pull Waiting\npull Pulling\npull Downloading, 1 of 3 layers, 4.2MB of 10MB, 2MB/s, 3s left, attempt 2\n", out.String())
}

func TestPullProgressAsABar(t *testing.T) {
	var out bytes.Buffer
	p := newPrinter(&out)
	p.terminal = true
	p.pull(t.Context(), dockerexec.PullProgress{Status: "Downloading", BytesDone: 5, BytesTotal: 10})
	p.line("pull done")
	assert.Equal(t, "pull [==========          ] Downloading, 5B of 10B\r\x1b[Kpull done\n", out.String())
}

func TestLinesOfALog(t *testing.T) {
	tests := []struct {
		name, in string
		want     []string
	}{
		{"time left out", "2026-01-02T03:04:05.000000006Z a b\n2026-01-02T03:04:05Z \n", []string{"a b", ""}},
		{"no time", "a b\n", []string{"a b"}},
		{"terminal's line end", "2026-01-02T03:04:05Z a\r\n", []string{"a"}},
		{"no line end", "2026-01-02T03:04:05Z a", []string{"a"}},
		{"endless", strings.Repeat("x", longestLine+1), []string{strings.Repeat("x", longestLine+1)}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for _, piece := range []int{1, 7, 1 << 20} {
				var got []string
				w := &lineWriter{print: func(line string) { got = append(got, line) }}
				for in := []byte(tt.in); len(in) > 0; in = in[min(piece, len(in)):] {
					w.Write(in[:min(piece, len(in))])
				}
				w.flush()
				assert.Equal(t, tt.want, got)
			}
		})
	}
}
