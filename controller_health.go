package dockerexec

import (
	"context"

	"github.com/docker/docker/api/types/container"
	"github.com/moby/swarmkit/v2/agent/exec"
)

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
