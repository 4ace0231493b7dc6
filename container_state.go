package dockerexec

import (
	"time"

	"github.com/docker/docker/api/types/container"
)

// hasEnded reports whether the container has run and will not run on.
//
// An engine that was killed within a start and takes the container up when it is
// back has not seen when that was. Such a container is running while it runs,
// and then created again, with the time of its end, which no other created
// container has: a start that failed leaves an exit code and an error, and no
// time (seen of 20.10 and 29).
func hasEnded(answer container.InspectResponse) bool {
	switch answer.State.Status {
	case container.StateExited, container.StateDead:
		return true
	case container.StateCreated:
		finished, err := time.Parse(time.RFC3339Nano, answer.State.FinishedAt)
		return err == nil && finished.Year() > 1 // the zero time, in whatever zone
	default: // running, paused, restarting, removing
		return false
	}
}

// isUnstarted reports whether the container has yet to be started. One whose
// start failed is, too.
func isUnstarted(answer container.InspectResponse) bool {
	return answer.State.Status == container.StateCreated && !hasEnded(answer)
}

// atEnd is what a watch looks for that waits for the end of the container: see
// [ContainerAdapter.Wait].
func atEnd(answer container.InspectResponse) (bool, error) {
	if answer.State.Status == container.StateRemoving {
		return false, ErrContainerDestroyed
	}
	return hasEnded(answer), nil
}
