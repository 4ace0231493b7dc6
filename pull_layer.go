package dockerexec

import (
	"strings"
	"time"
)

const (
	// firstStep is how long a layer may take to begin: the containerd store says
	// nothing of it before it has a whole MiB, which comes to 52 KiB/s. Then each
	// may take slowerBy times as long as the one before, of which firstStep counts
	// at most.
	firstStep = 20 * time.Second
	slowerBy  = 2
)

// layerPhase is where a layer is on its way to the engine, in order.
type layerPhase int

const (
	layerUnknown layerPhase = iota
	layerPending
	layerQueued // the engine loads others first
	layerRetrying
	layerDownloading
	layerVerifying
	layerDownloaded
	layerExtracting
	layerDone
)

// phaseOf tells the phase from what engines of both stores say, and podman.
func phaseOf(m *pullMessage) layerPhase {
	switch m.Status {
	case "Pulling fs layer", "Preparing":
		return layerPending
	case "Waiting":
		return layerQueued
	case "Downloading":
		return layerDownloading
	case "Verifying Checksum":
		return layerVerifying
	case "Download complete":
		return layerDownloaded
	case "Extracting":
		return layerExtracting
	case "Pull complete", "Already exists":
		return layerDone
	}
	switch {
	case strings.HasPrefix(m.Status, "Retrying in "):
		return layerRetrying
	case m.Progress.Units == "" && m.Progress.Current > 0: // in the words of another engine
		return layerDownloading
	}
	return layerUnknown
}

type layer struct {
	phase, furthest layerPhase
	status          string
	bytes, size     int64 // of the download
	extracted       int64 // bytes; never the seconds that the containerd store counts
	restarts, turns int

	lastOffset int64         // of its last message
	moved      time.Time     // when its download got on last
	step       time.Duration // how long that took
	repeated   bool          // an offset was told twice, as the containerd store does, by the MiB
}

// advance takes in a message of the layer and reports whether it got on: to a
// phase it has not been in, or by a byte.
func (l *layer) advance(now time.Time, phase layerPhase, m *pullMessage) (advanced bool) {
	again := phase == layerDownloading && l.phase == phase
	if !again && l.phase != layerPending {
		l.moved = now
	}
	l.phase = phase
	if phase > l.furthest {
		l.furthest = phase
		advanced = true
	}
	current, total := max(m.Progress.Current, 0), max(m.Progress.Total, 0)
	switch {
	case m.Progress.Units != "":
	case phase == layerRetrying:
		// 20.10 reports all bytes when a download breaks; what it has it says when
		// it goes on.
		l.startAnew(0)
	case phase == layerDownloading:
		l.repeated = l.repeated || again && current == l.lastOffset
		l.lastOffset = current
		// After a break, total is what is left, and current is of that.
		l.size = max(l.size, total)
		if total > 0 {
			current = saturatingAdd(current, l.size-total)
		}
		if current < l.bytes {
			l.startAnew(current)
		}
		if current > l.bytes {
			l.bytes = current
			l.step, l.moved = min(now.Sub(l.moved), firstStep), now
			advanced = true
		}
	case phase == layerExtracting && current > l.extracted:
		l.extracted = current
		advanced = true
	}
	if phase >= layerVerifying {
		l.bytes = max(l.bytes, l.size)
	}
	return advanced
}

// patience is how long the layer's download may go on without an advance, where
// limit alone would be too short to see one.
func (l *layer) patience(limit time.Duration) time.Duration {
	switch {
	case l.bytes == 0 && (l.phase == layerPending || l.phase == layerDownloading):
		return max(limit, firstStep)
	case l.phase == layerDownloading && l.repeated:
		return max(limit, slowerBy*l.step)
	}
	return limit
}

// startAnew takes back what the layer had, as often as an engine may do so.
func (l *layer) startAnew(bytes int64) {
	if l.restarts < maxTurns {
		l.restarts++
		l.bytes = bytes
	}
}
