package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/docker/go-units"
	"github.com/dockerexec/dockerexec"
	"github.com/moby/swarmkit/v2/api"
)

// printer prints one line for each thing that happens; the first word says
// which kind: state, pull, log, exit. On a terminal the progress of a pull is a
// bar instead of lines.
type printer struct {
	mu       sync.Mutex
	w        io.Writer
	terminal bool
	bar      bool // the cursor stands behind a bar

	last  dockerexec.PullProgress // printed last
	lastT time.Time
}

func newPrinter(w io.Writer) *printer {
	p := &printer{w: w}
	if f, ok := w.(*os.File); ok {
		info, err := f.Stat()
		p.terminal = err == nil && info.Mode()&os.ModeCharDevice != 0
	}
	return p
}

func (p *printer) line(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.clear()
	fmt.Fprintf(p.w, format+"\n", args...)
}

// clear takes the bar away.
func (p *printer) clear() {
	if p.bar {
		fmt.Fprint(p.w, "\r\x1b[K")
		p.bar = false
	}
}

// pull is the package's pull observer. The package calls it at most ten times a
// second, which suits a bar; lines are printed once a second and when a layer is done.
func (p *printer) pull(_ context.Context, now dockerexec.PullProgress) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.terminal {
		p.clear()
		fmt.Fprintf(p.w, "pull [%-20s] %s", strings.Repeat("=", share(now, 20)), describe(now))
		p.bar = true
		return
	}
	if now.Status == p.last.Status && now.LayersDone == p.last.LayersDone && time.Since(p.lastT) < time.Second {
		return
	}
	p.last, p.lastT = now, time.Now()
	fmt.Fprintf(p.w, "pull %s\n", describe(now))
}

// describe puts progress into words: "Downloading, 1 of 3 layers, 4.2MB of 10MB, 2MB/s, 3s left".
func describe(p dockerexec.PullProgress) string {
	if p.Status == "" {
		p.Status = "Waiting" // the engine has not answered yet
	}
	parts := []string{p.Status}
	if p.LayersTotal > 0 {
		parts = append(parts, fmt.Sprintf("%d of %d layers", p.LayersDone, p.LayersTotal))
	}
	switch {
	case p.BytesTotal > 0:
		parts = append(parts, units.HumanSize(float64(p.BytesDone))+" of "+units.HumanSize(float64(p.BytesTotal)))
	case p.BytesDone > 0:
		parts = append(parts, units.HumanSize(float64(p.BytesDone)))
	}
	if p.BytesPerSecond > 0 {
		parts = append(parts, units.HumanSize(float64(p.BytesPerSecond))+"/s")
	}
	if p.Remaining > 0 {
		parts = append(parts, fmt.Sprintf("%v left", p.Remaining.Round(time.Second)))
	}
	if p.Attempt > 1 {
		parts = append(parts, fmt.Sprintf("attempt %d", p.Attempt))
	}
	return strings.Join(parts, ", ")
}

// share says how many of so many parts are done.
func share(p dockerexec.PullProgress, of int64) int {
	if p.BytesTotal <= 0 {
		return 0
	}
	return int(min(max(p.BytesDone, 0), p.BytesTotal) * of / p.BytesTotal)
}

// status prints each state of the task.
func (p *printer) status(_ context.Context, status api.TaskStatus) {
	p.line("state %s", strings.ToLower(status.State.String()))
}

// Publish prints the container's log.
func (p *printer) Publish(_ context.Context, message api.LogMessage) error {
	mark := "|"
	if message.Stream == api.LogStreamStderr {
		mark = "!"
	}
	p.line("log %s %s", mark, bytes.TrimRight(message.Data, "\r\n"))
	return nil
}
