package dockerexec

import (
	"context"

	"github.com/docker/docker/api/types/container"
	"github.com/moby/swarmkit/v2/api"
	"github.com/moby/swarmkit/v2/log"
	"github.com/pkg/errors"
)

// logDamage is what is known of damage to the engine's file of the log: an incomplete record,
// or zeros. Engines end every answer there, mostly without an error. Engine 20.10 may leave
// out a part of the log instead. Only a request for the last entries is answered from behind it.
type logDamage struct {
	isAhead bool // the next answer begins right after a damaged place, so lines before it may be missing
	behind  int  // at least this many entries that were taken are behind the last damage; 0: no damage is known
	count   int  // how many damaged places were passed
}

// reserve is how many of the last entries taken can be asked for again.
func (d logDamage) reserve() int { return min(d.behind, tailReserve) }

// errBeginsLate is the error of a request for the last entries whose answer begins later than
// asked for: the container has logged since they were counted. Nothing of it was published.
var errBeginsLate = errors.New("the answer begins later than asked for")

// mostLate is how often such a request is made again, for more entries. A container that logs
// faster than the engine answers is then read from where the answer begins, and the gap is marked.
// oldestNear asks as often.
const mostLate = 20

// entryLimit bounds the number of entries that are asked for.
const entryLimit = 1 << 28

// tailReserve is how many entries more are asked for, as a container that runs may log more.
const tailReserve = 10_000

// catchUp reads all that the engine has. If the engine's file is damaged, the end of an answer
// is not the end of the log. So after each answer catchUp asks for the log's last entry. If no
// answer has brought it, catchUp goes on behind the damage, until a round brings nothing new.
func (p *logPublication) catchUp(ctx context.Context, answer container.InspectResponse, follow bool) (done bool, err error) {
	var goal logTime // the time of the log's last entry, as asked for after the first answer; zero: not asked for yet
	var by logTime   // the time of the entry with which the next answer is to begin at the latest; zero: with any
	last := 0        // how many of the last entries to ask for; 0: all
	late := 0
	for {
		before := p.cursor.newest()
		done, readErr := p.read(ctx, answer, false, last, by)
		if readErr == errBeginsLate { //nolint:errorlint // bare
			if late++; late >= mostLate {
				by = logTime{}
			}
			last++ // not more: engine 20.10 may leave out lines, and not tell, if the answer begins before the damage
			continue
		}
		isDamaged := readErr != nil && logDamaged.matches(readErr)
		if last > 0 && p.damage.isAhead && (readErr == nil || isDamaged || p.entries > 0) {
			p.damage = logDamage{behind: p.entries, count: p.damage.count + 1}
		}
		if readErr != nil && !isDamaged {
			return done, readErr
		}
		newest := p.cursor.newest()
		if goal != (logTime{}) && newest.compare(goal) >= 0 {
			return true, nil
		}
		isFirst := goal == logTime{}
		latest, err := p.entryAt(ctx, answer, 1)
		switch {
		case err != nil && (isPassing(err) || ctx.Err() != nil):
			return false, engineError(ctx, err, "logs of container %s", p.target.ContainerName())
		case err != nil, !p.cursor.isNewer(latest):
			if isDamaged && !follow {
				return done, readErr
			} else if isDamaged { // the log's last record is damaged; what comes behind it can be followed
				p.damage.behind = max(p.entries, 1)
			}
			p.checkEntries(ctx, answer)
			return true, nil
		case isFirst:
			goal = latest.at
		}
		switch {
		case last == 0 && (isFirst || newest != before): // the container may have logged the last entry only now
			continue
		case last > 0 && newest == before:
			return true, nil
		}
		late = 0
		if last, by, err = p.findBehind(ctx, answer, latest); err != nil {
			return !isPassing(err), engineError(ctx, err, "logs of container %s", p.target.ContainerName())
		}
	}
}

// checkEntries logs a warning if the last answer left out entries after its first entry.
// Engine 20.10 leaves out a part behind damage, and newer engines leave out the rest of a
// rotated file. An answer to a request with Since is not checked: it leaves out old entries.
func (p *logPublication) checkEntries(ctx context.Context, answer container.InspectResponse) {
	if p.begin == (logEntry{}) || p.damage.behind > 0 || p.tail.counts != nil || !hasEnded(answer) || isPodmansLog(answer) {
		return
	}
	begin, err := p.entryAt(ctx, answer, p.entries)
	if err == nil && begin != p.begin && ctx.Err() == nil {
		log.G(withFields(p.target.logContext(ctx), log.Fields{"container.id": p.container})).Warn("log lines are missing: the engine's file of the log is damaged")
	}
}

// findBehind returns how many of the last entries to ask for, so that the next answer begins
// behind the damage at which the last answer ended, and the time by which it is to begin. latest
// is the log's last entry.
//
// If n is small, the first of the last n entries is newer than all messages that were taken.
// findBehind looks for the greatest such n: it doubles n, and then halves the range. As the
// container may log meanwhile, it does so until n stays the same, at most ten times.
func (p *logPublication) findBehind(ctx context.Context, answer container.InspectResponse, latest logEntry) (n int, by logTime, err error) {
	// good is a number n that is small enough, and first is the first of the last n entries.
	// edge is the entry before first; none: that entry is damaged. oldest is the log's first entry;
	// none: it was not asked for.
	good, first := 1, latest
	var edge, oldest logEntry
	p.damage.isAhead = false
	for range 10 {
		begin := good
		bad := 0
		for step := 1; bad == 0; step *= 2 {
			entry, err := p.entryAt(ctx, answer, good+step)
			switch {
			case err != nil:
				return 0, by, err
			case !p.cursor.isNewer(entry):
				bad, edge = good+step, entry
			case good+step > entryLimit:
				return good + step, by, nil
			case entry == first: // the whole log is newer, or the container has logged step entries since
				if oldest.stream == api.LogStreamUnknown {
					if oldest, err = p.entryAt(ctx, answer, entryLimit); err != nil {
						return 0, by, err
					}
				}
				if oldest == first {
					return entryLimit, first.at, nil
				}
				good += step
			default:
				good, first = good+step, entry
			}
		}
		for bad-good > 1 {
			middle := good + (bad-good)/2
			entry, err := p.entryAt(ctx, answer, middle)
			switch {
			case err != nil:
				return 0, by, err
			case p.cursor.isNewer(entry):
				good, first = middle, entry
			default:
				bad, edge = middle, entry
			}
		}
		if good == begin {
			break
		}
	}
	if edge.stream == api.LogStreamUnknown {
		p.damage.isAhead = true
		good, first, err = p.oldestNear(ctx, answer, good, first)
		return good, first.at, err
	}
	if good > 1 {
		// Engine 20.10 may have left out a part of the log: it does so if an answer begins with a
		// damaged record, and does not end the answer there. Then the answer to a request for one
		// entry less begins with the same entry or an older one.
		next, err := p.entryAt(ctx, answer, good-1)
		if err != nil {
			return 0, by, err
		}
		if next == first || next.stream == first.stream && next.at.compare(first.at) < 0 {
			p.damage.isAhead = true
			good, first, err = p.oldestNear(ctx, answer, good-1, next)
			return good, first.at, err
		}
	}
	if by = p.cursor.newest(); p.cursor.last == api.LogStreamUnknown {
		by = first.at
	}
	return good + max(p.damage.reserve(), 1), by, nil // the last message taken too, so that there is no gap
}

// oldestNear looks for an older entry than first, which was the first of the last n, among those
// that the container has pushed back since: it asks for more entries than n while that finds one.
func (p *logPublication) oldestNear(ctx context.Context, answer container.InspectResponse, n int, first logEntry) (int, logEntry, error) {
	step := 1
	for range mostLate {
		entry, err := p.entryAt(ctx, answer, n+step)
		switch {
		case err != nil:
			return 0, first, err
		case entry == first: // the container logs as fast as it is asked
			n, step = n+step, 2*step
		case p.cursor.isNewer(entry) && entry.at.compare(first.at) < 0:
			n, first, step = n+step, entry, 1
		case step > 1:
			step = 1
		default:
			return n, first, nil
		}
	}
	return n, first, nil
}
