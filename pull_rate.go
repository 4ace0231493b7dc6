package dockerexec

import "time"

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
