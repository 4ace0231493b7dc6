package main

import (
	"bytes"
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
