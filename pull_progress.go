package dockerexec

import (
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/docker/go-units"
)

const (
	// maxLayers bounds the layers that are followed; an engine allows 127 of an
	// image. Any beyond are pulled, but do not count.
	maxLayers = 1024
	// maxStatusLength bounds what is kept of a status, an ID or a name, in bytes.
	maxStatusLength = 256
	// maxTurns bounds what a layer may do over and over and still be news: start
	// anew, change its status. An engine tries a layer five times.
	maxTurns = 16
	// extractStall is how long an extraction may go on without any advance, and
	// so may an engine that loads others first. It writes to a slow disk, and
	// engines with the containerd store say nothing of how far it is.
	extractStall = time.Hour
)

// pullState is what is known of one attempt. It is guarded by its sharedPull.
type pullState struct {
	attempt     int
	status      string
	turns       int // of the status that is no layer's
	layers      map[string]*layer
	heard       bool      // of the engine
	advanced    time.Time // when anything got on last
	downloading time.Time // when a download got on last
	rate        rateWindow
}

func (s *pullState) reset(attempt int, now time.Time) {
	*s = pullState{attempt: attempt, layers: map[string]*layer{}, advanced: now, downloading: now}
}

// pullChange is what one message changed.
type pullChange struct {
	layer, status string
	turned        bool // the layer's status is another one
	download      bool // a download got on
	visible       bool // an observer would see it
}

// add takes in a message.
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
		change.status = "Retrying" // its countdown is not news
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
	advanced := l.advance(now, phase, m)
	if advanced {
		s.advanced = now
		change.visible = true
		if phase <= layerDownloaded || phase == layerDone && l.bytes == 0 {
			s.downloading = now
			change.download = true
		}
	}
	if s.rate.due(now) {
		s.rate.add(now, s.bytesDone())
	}
	return change
}

// addStatus takes in a message that is no layer's, such as the image's digest.
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

// untilStalled returns how long the attempt may go on from now without any
// advance, and the whole limit that it is part of. Downloads are watched by the
// advance of downloads alone. A download that the engine has not started may wait for
// others: others is when any of this client's pulls got on last.
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

// far says how far the attempt has come, for an error.
func (s *pullState) far() string {
	if !s.heard {
		return ""
	}
	return s.progress("", s.advanced).short()
}

// progress is the state as an observer sees it.
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

// hasNews reports whether the engine has said anything yet, in any attempt.
func (p PullProgress) hasNews() bool { return p.Status != "" || p.LayersTotal > 0 || p.Attempt > 1 }

// sameAs reports whether other differs in the rate at most.
func (p PullProgress) sameAs(other PullProgress) bool {
	p.BytesPerSecond, p.Remaining = other.BytesPerSecond, other.Remaining
	return p == other
}

// short says it in a few words: "2 of 3 layers, 4.1MB of 12.5MB".
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

// rateWindow holds what was done at some moments of the last ten seconds.
type rateWindow struct {
	at   [21]time.Time
	done [21]int64
	used int
}

const (
	rateSpan     = 10 * time.Second
	rateInterval = 500 * time.Millisecond
	rateLeast    = time.Second // what is needed to tell a rate
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

// perSecond is the rate up to now, where done is done; 0 if it cannot be told.
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
