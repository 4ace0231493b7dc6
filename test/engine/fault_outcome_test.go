package engine_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"

	"github.com/dockerexec/dockerexec"
	"github.com/moby/swarmkit/v2/agent/exec"
	pkgerrors "github.com/pkg/errors"
)

// outcome is the way in which an operation ends, as one letter of the table that a
// run shows; see outcomesExplained.
type outcome byte

const (
	temporary  outcome = 't'
	final      outcome = 'f'
	canceled   outcome = 'c'
	success    outcome = 's'
	repeated   outcome = 'r'
	believed   outcome = 'b'
	either     outcome = 'i'
	prepared   outcome = 'p'
	started    outcome = 'S'
	destroyed  outcome = 'd'
	noStatus   outcome = 'n'
	unreadable outcome = 'e'
	strangers  outcome = 'o'
	unexpected outcome = '?'
	notHere    outcome = '-'
	wrong      outcome = '!'
	notChosen  outcome = ' '
)

// outcomesExplained says what each of them is.
const outcomesExplained = `  t  a temporary error
  f  a final error
  c  the bare error of the context, which had ended
  s  success
  r  success, after it had asked again by itself
  b  wanted instead of s or r, where the engine's answer says that there is nothing to do
  i  wanted instead of s or r, where an inspect may tell before it asks again
  p  exec.ErrTaskPrepared     S  exec.ErrTaskStarted     d  ErrContainerDestroyed
  n  no status and no error: the agent keeps what it knows
  e  an error of the raw reader
  o  a final error which says that the container is somebody else's
  -  does not apply: an answer without a body, a request without a time-out, or an API version without the request
  !  wrong`

// outcomes say how an operation ends, by fault.
type outcomes map[fault]outcome

// always is the same for all faults, but the caller's own end.
func always(o outcome) outcomes {
	all := outcomes{}
	for _, f := range faults {
		all[f] = o
	}
	all[faultCancel] = canceled
	return all
}

// once is how an operation ends that asks once: what may pass is temporary.
var once = always(temporary).but(outcomes{faultGarbled: final, fault403: final, fault404: final, fault409: final, fault500: final})

// stoppedOnce is how an operation ends that stops a container and waits for its end. It
// asks again only if the request got no connection.
var stoppedOnce = always(success).but(outcomes{faultRefused: repeated})

// unlessInspected is how an operation ends that waits for events. While there is no
// stream, or no answer to the request for it, inspects tell as well.
var unlessInspected = always(repeated).but(outcomes{fault403: either, faultNever: either, faultSlow: either})

// but returns the same outcomes except for some.
func (o outcomes) but(others outcomes) outcomes {
	all := maps.Clone(o)
	maps.Copy(all, others)
	return all
}

// logFaultTable shows the outcomes that were seen.
func logFaultTable(t *testing.T, rows []*faultRow, table [][]outcome) {
	var text strings.Builder
	fmt.Fprintf(&text, "\n%-52s", "operation: request")
	for _, f := range faults {
		fmt.Fprintf(&text, " %s", f)
	}
	for i, row := range rows {
		marks := string(table[i])
		if strings.Contains(marks, string(notChosen)) && strings.Trim(marks, string(notChosen)+string(notHere)) == "" {
			continue
		}
		fmt.Fprintf(&text, "\n%-52s", row.name)
		for j, f := range faults {
			fmt.Fprintf(&text, " %-*s", len(f), marks[j:j+1])
		}
	}
	t.Logf("%s\n%s", text.String(), outcomesExplained)
}

// outcomeOf is how an operation ended.
func (c *faultCell) outcomeOf(ctx context.Context, err error, seen []string) outcome {
	var reading *readingError
	switch {
	case err == nil:
		asked := 0
		for _, request := range seen {
			if matchesPattern(c.target(), request) {
				asked++
			}
		}
		if asked > c.nth() {
			return repeated
		}
		return success
	case err == exec.ErrTaskPrepared:
		return prepared
	case err == exec.ErrTaskStarted:
		return started
	case err == dockerexec.ErrContainerDestroyed:
		return destroyed
	case err == errNoStatus:
		return noStatus
	case err == errStranger:
		return strangers
	case errors.As(err, &reading):
		return unreadable
	case err == context.Canceled || err == context.DeadlineExceeded:
		if ctx.Err() != nil {
			return canceled
		}
		return unexpected
	}
	if cause := pkgerrors.Cause(err); cause == context.Canceled || cause == context.DeadlineExceeded {
		return unexpected // the agent would take it for a reason to try again, whatever it is
	}
	if exec.IsTemporary(err) {
		return temporary
	}
	return final
}

// errNoStatus is what a status operation ends with that has nothing to say.
var errNoStatus = errors.New("no status")

// errStranger is what an operation ends with that leaves somebody else's
// container alone, and says so.
var errStranger = errors.New("not the task's container")

// readingError is one of a reader that an operation returned.
type readingError struct{ error }
