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
		come, _ := hasCome(answer.State.FinishedAt)
		return come
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

// hasCome reports whether an engine's time has come: it has the zero time, in
// whatever zone, for one that has not. What is no time at all, as fakes leave it, is
// not known.
func hasCome(text string) (come, known bool) {
	t, err := time.Parse(time.RFC3339Nano, text)
	return err == nil && t.Year() > 1, err == nil
}

// isStray reports whether the container runs although the engine does not know
// that it was started.
func isStray(answer container.InspectResponse) bool {
	started, known := hasCome(answer.State.StartedAt)
	return answer.State.Status == container.StateRunning && known && !started
}

// hasHealthcheck reports whether the engine checks the container's health: a
// check of the image counts, and the task may have turned that off.
func hasHealthcheck(answer container.InspectResponse) bool {
	if answer.Config == nil || answer.Config.Healthcheck == nil {
		return false
	}
	test := answer.Config.Healthcheck.Test
	return len(test) > 0 && test[0] != "NONE"
}

// isWell reports whether the container runs and is healthy, or not checked.
func isWell(answer container.InspectResponse) bool {
	health := answer.State.Health
	return answer.State.Status == container.StateRunning &&
		(health == nil || health.Status != container.Starting && health.Status != container.Unhealthy)
}

// defaultRetries is how often a check fails, for engines, before the container
// is unhealthy, where neither task nor image says.
const defaultRetries = 3

// failedChecks reports whether the container is unhealthy because its checks
// failed, or was when it ended.
//
// Its status alone does not say so. Engines call a container unhealthy, "for
// compatibility", whenever they do not check it: while it is paused, afterwards
// until the next check, and once it has ended. They keep how many checks have
// failed in a row (seen of 20.10 and 29). Whoever has no log of the checks, not
// even an empty one, is no such engine; then the status is all there is.
func failedChecks(answer container.InspectResponse) bool {
	health := answer.State.Health
	if health == nil || health.Status != container.Unhealthy {
		return false
	}
	retries := defaultRetries
	if answer.Config != nil && answer.Config.Healthcheck != nil && answer.Config.Healthcheck.Retries > 0 {
		retries = answer.Config.Healthcheck.Retries
	}
	return health.Log == nil || health.FailingStreak >= retries
}
