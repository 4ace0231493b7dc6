package dockerexec

import (
	"context"

	"github.com/docker/docker/api/types/container"
	"github.com/moby/swarmkit/v2/agent/exec"
)

// hasHealthcheck reports whether the engine checks the container's health: a
// check of the image counts, and the task may have turned that off.
func hasHealthcheck(answer container.InspectResponse) bool {
	if answer.Config == nil || answer.Config.Healthcheck == nil {
		return false
	}
	test := answer.Config.Healthcheck.Test
	return len(test) > 0 && test[0] != "NONE"
}

// untilHealthy waits until the container is healthy. One that has ended, or is
// stopped for being unhealthy, is [exec.ErrTaskStarted] or its exit error.
func (c *controller) untilHealthy(ctx context.Context) error {
	answer, err := c.watch(ctx, func(answer container.InspectResponse) bool {
		return isWell(answer) || c.isSick(answer)
	})
	if err != nil {
		return err
	}
	if !hasEnded(answer) && !c.isSick(answer) {
		return nil
	}
	if err := c.finish(ctx, answer); err != nil {
		return err
	}
	return exec.ErrTaskStarted
}

// isWell reports whether the container runs and is healthy, or not checked.
func isWell(answer container.InspectResponse) bool {
	health := answer.State.Health
	return answer.State.Status == container.StateRunning &&
		(health == nil || health.Status != container.Starting && health.Status != container.Unhealthy)
}

// isSick reports whether the container is to be stopped for its health. Once it
// is, that is not taken back. Only one that runs is judged: nobody checks it
// while it is paused.
func (c *controller) isSick(answer container.InspectResponse) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if answer.State.Status == container.StateRunning && failedChecks(answer) {
		c.sick = true
	}
	return c.sick
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
