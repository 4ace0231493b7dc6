package dockerexec

import (
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/docker/go-units"
)

const (
	// maxLayers bounds the layers that are followed. An engine allows 127 in an image.
	// Further layers are pulled, but do not count.
	maxLayers = 1024
	// maxStatusLength bounds how much is kept of a status, an ID or a name, in bytes.
	maxStatusLength = 256
	// A layer may start again maxTurns times. After that, the bytes that it downloads
	// again are no progress. A status may change maxTurns times. After that, a change
	// gets no log line of its own. An engine tries a layer five times.
	maxTurns = 16
	// extractStall is the limit for an extraction without progress, and for a layer that
	// waits for others. Disks may be slow, and engines with the containerd store do not
	// say how far an extraction is.
	extractStall = time.Hour
)

// pullState is what is known of one attempt. Its sharedPull's mu guards it.
type pullState struct {
	attempt     int
	status      string
	turns       int // changes of the status by messages that belong to no layer
	layers      map[string]*layer
	heard       bool      // the engine has sent a message
	advanced    time.Time // when anything last advanced
	downloading time.Time // when a download last advanced
	rate        rateWindow
}

func (s *pullState) reset(attempt int, now time.Time) {
	*s = pullState{attempt: attempt, layers: map[string]*layer{}, advanced: now, downloading: now}
}

// pullChange is what one message changed.
type pullChange struct {
	layer, status string
	turned        bool // the status has changed
	download      bool // a download advanced
	visible       bool // observers must be told
}

// add updates the state with a message.
func (s *pullState) add(now time.Time, m *pullMessage, scrub scrubber) pullChange {
	if !s.heard {
		s.heard, s.advanced, s.downloading = true, now, now
	}
	phase := phaseOf(m)
	if m.ID == "" || phase == layerUnknown {
		return s.addStatus(now, m, scrub)
	}
	id := scrub.clean(m.ID, maxStatusLength)
	l := s.layers[id]
	if l == nil {
		if len(s.layers) >= maxLayers {
			return pullChange{layer: id, status: s.status}
		}
		l = &layer{}
		s.layers[id] = l
	}
	change := pullChange{layer: id, status: m.Status}
	if phase == layerRetrying {
		change.status = "Retrying" // without the countdown, which would change it every second
	} else if phase == layerDownloading && m.Status != "Downloading" {
		change.status = scrub.clean(m.Status, maxStatusLength)
	}
	if l.status != change.status {
		l.status = change.status
		l.turns++
		change.turned = l.turns <= maxTurns
		change.visible = true
	}
	s.status = change.status
	downloaded := l.furthest >= layerDownloaded // before this message
	advanced := l.advance(now, phase, m)
	if advanced {
		s.advanced = now
		change.visible = true
		// Usually an extraction is no progress of a download. But an engine may leave out
		// "Download complete". Then the first later phase shows that the download ended.
		if phase <= layerDownloaded || !downloaded {
			s.downloading = now
			change.download = true
		}
	}
	if s.rate.due(now) {
		s.rate.add(now, s.bytesDone())
	}
	return change
}

// addStatus updates the state with a message that belongs to no layer, such as the
// image's digest.
func (s *pullState) addStatus(now time.Time, m *pullMessage, scrub scrubber) pullChange {
	if m.Status == "" {
		return pullChange{status: s.status}
	}
	status := scrub.clean(m.Status, maxStatusLength)
	change := pullChange{status: status, visible: status != s.status}
	if change.visible && s.turns < maxTurns {
		s.turns++
		change.turned = true
		s.advanced = now
	}
	s.status = status
	return change
}

// untilStalled returns how long the attempt may still go on without progress, and the
// whole limit. While anything downloads, only download progress resets the time. A
// download that the engine has not started may wait for other pulls: others is when a
// download of any pull of this Engine last advanced.
func (s *pullState) untilStalled(now time.Time, limit time.Duration, others time.Time) (left, whole time.Duration) {
	var pending, loading, slow bool
	download := limit
	for _, l := range s.layers {
		download = max(download, l.patience(limit))
		switch l.phase {
		case layerPending:
			pending = true
		case layerRetrying, layerDownloading, layerVerifying:
			loading = true
		case layerQueued, layerDownloaded, layerExtracting:
			slow = true
		case layerUnknown, layerDone:
		}
	}
	since := s.advanced
	switch {
	case loading:
		since, limit = s.downloading, download
	case pending:
		since, limit = s.downloading, download
		if others.After(since) {
			since = others
		}
	case slow:
		limit = max(limit, extractStall)
	}
	return since.Add(limit).Sub(now), limit
}

// far says how far the attempt has come, for an error. It is empty if the engine has
// sent nothing.
func (s *pullState) far() string {
	if !s.heard {
		return ""
	}
	return s.progress("", s.advanced).short()
}

// progress returns the state as an observer sees it.
func (s *pullState) progress(image string, now time.Time) PullProgress {
	p := PullProgress{Image: image, Status: s.status, Attempt: s.attempt, LayersTotal: len(s.layers)}
	known := len(s.layers) > 0
	for _, l := range s.layers {
		switch phase := l.phase; {
		case phase == layerDone:
			p.LayersDone++
		case phase == layerDownloading || phase == layerVerifying || phase == layerExtracting:
			p.LayersActive++
		}
		p.BytesTotal = saturatingAdd(p.BytesTotal, max(l.size, l.bytes))
		if l.size == 0 && l.phase < layerDownloaded {
			known = false
		}
	}
	p.BytesDone = s.bytesDone()
	if !known {
		p.BytesTotal = 0
	}
	p.BytesPerSecond = s.rate.perSecond(now, p.BytesDone)
	if left := p.BytesTotal - p.BytesDone; left > 0 && p.BytesPerSecond > 0 {
		if seconds := float64(left) / float64(p.BytesPerSecond); seconds < math.MaxInt64/float64(time.Second) {
			p.Remaining = time.Duration(seconds * float64(time.Second))
		}
	}
	return p
}

// hasNews reports whether there is anything to show: the engine has said something, or an
// attempt has failed.
func (p PullProgress) hasNews() bool { return p.Status != "" || p.LayersTotal > 0 || p.Attempt > 1 }

// sameAs reports whether p and other are equal except for the rate and the remaining
// time.
func (p PullProgress) sameAs(other PullProgress) bool {
	p.BytesPerSecond, p.Remaining = other.BytesPerSecond, other.Remaining
	return p == other
}

// short returns the progress in a few words, such as "2 of 3 layers, 4.1MB of 12.5MB".
func (p PullProgress) short() string {
	text := fmt.Sprintf("%d of %d layers, %s", p.LayersDone, p.LayersTotal, units.HumanSize(float64(p.BytesDone)))
	if p.BytesTotal > 0 {
		text += " of " + units.HumanSize(float64(p.BytesTotal))
	}
	return text
}

func (s *pullState) bytesDone() (done int64) {
	for _, l := range s.layers {
		done = saturatingAdd(done, l.bytes)
	}
	return done
}

// saturatingAdd adds two numbers that are not negative.
func saturatingAdd(a, b int64) int64 {
	if a > math.MaxInt64-b {
		return math.MaxInt64
	}
	return a + b
}

const (
	// firstStep is how long a layer may take to begin. The containerd store reports
	// nothing of a layer before it has a whole MiB. A MiB in this time is 51 KiB/s.
	firstStep = 20 * time.Second
	// A later MiB may take slowerBy times as long as the one before. A time above
	// firstStep counts as firstStep.
	slowerBy = 2
)

// layerPhase is where a layer is on its way to the engine, in order.
type layerPhase int

const (
	layerUnknown layerPhase = iota
	layerPending
	layerQueued // the engine loads other layers first
	layerRetrying
	layerDownloading
	layerVerifying
	layerDownloaded
	layerExtracting
	layerDone
)

// phaseOf returns the phase that a message reports. It knows the words of both image
// stores of Docker, and of Podman.
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
	case m.Progress.Units == "" && m.Progress.Current > 0: // of another engine, whose words are unknown
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

	lastOffset int64         // in the last message of the layer
	moved      time.Time     // when the download began or last advanced
	step       time.Duration // how long that advance took, at most firstStep
	repeated   bool          // an offset came twice: the containerd store does that, and counts whole MiB
}

// advance updates the layer with a message. It reports whether the layer advanced: by a
// byte, or to a phase that is later than all its phases before.
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
		// When a download breaks, 20.10 reports all bytes as downloaded. The true count
		// comes when the download goes on.
		l.startAnew(0)
	case phase == layerDownloading:
		l.repeated = l.repeated || again && current == l.lastOffset
		l.lastOffset = current
		// After a break, total is the size of the rest, and current is a part of that.
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

// patience is how long the layer's download may go on without an advance. It is limit,
// or longer if the engine may take longer than limit to report an advance.
func (l *layer) patience(limit time.Duration) time.Duration {
	switch {
	case l.bytes == 0 && (l.phase == layerPending || l.phase == layerDownloading):
		return max(limit, firstStep)
	case l.phase == layerDownloading && l.repeated:
		return max(limit, slowerBy*l.step)
	}
	return limit
}

// startAnew sets the downloaded bytes back. That is allowed maxTurns times.
func (l *layer) startAnew(bytes int64) {
	if l.restarts < maxTurns {
		l.restarts++
		l.bytes = bytes
	}
}

// rateWindow holds the downloaded bytes at some moments of the last ten seconds.
type rateWindow struct {
	at   [21]time.Time
	done [21]int64
	used int
}

const (
	rateSpan     = 10 * time.Second
	rateInterval = 500 * time.Millisecond
	rateLeast    = time.Second // a shorter time gives no rate
)

func (w *rateWindow) due(now time.Time) bool {
	return w.used == 0 || now.Sub(w.at[w.used-1]) >= rateInterval
}

func (w *rateWindow) add(now time.Time, done int64) {
	if w.used == len(w.at) {
		copy(w.at[:], w.at[1:])
		copy(w.done[:], w.done[1:])
		w.used--
	}
	w.at[w.used], w.done[w.used] = now, done
	w.used++
}

// perSecond returns the rate up to now, with done bytes downloaded; 0 if it is not
// known.
func (w *rateWindow) perSecond(now time.Time, done int64) int64 {
	for i := range w.used {
		if age := now.Sub(w.at[i]); age <= rateSpan {
			if age < rateLeast || done <= w.done[i] {
				return 0
			}
			return int64(float64(done-w.done[i]) / age.Seconds())
		}
	}
	return 0
}
