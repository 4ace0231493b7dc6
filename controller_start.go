package dockerexec

import (
	"context"

	"github.com/docker/docker/api/types/container"
	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/moby/swarmkit/v2/log"
)

// Start starts the container, and if it has a health check waits until it is
// healthy. If the container was started before it returns [exec.ErrTaskStarted],
// once the container is healthy or has ended. A container that turns out
// unhealthy is stopped; the error has its exit code, and [ErrContainerUnhealthy]
// as its cause.
//
// A container of which the engine lost an earlier start may come to life by
// itself, without network and log. It is stopped, and the start has failed.
//
// A container that ends before it was healthy is a failed task if its exit code
// is not 0. With 0 it has done its work, so the answer is [exec.ErrTaskStarted],
// and the Wait that follows completes the task.
func (c *controller) Start(ctx context.Context) error {
	return c.run(ctx, opMaking, func(ctx context.Context) error {
		if err := c.settle(ctx); err != nil {
			return err
		}
		answer, err := c.inspect(ctx)
		if err != nil {
			return err
		}
		if err := c.adapter.checkOwner(answer); err != nil {
			return err
		}
		if isStray(answer) {
			return c.endStray(ctx)
		}
		if !isUnstarted(answer) {
			// A Start that was interrupted, perhaps with its process, goes on
			// waiting.
			if answer.State.Status == container.StateRunning && !isWell(answer) {
				if err := c.untilHealthy(ctx); err != nil {
					return err
				}
			}
			return exec.ErrTaskStarted
		}
		if err := c.stepWithNetworks(ctx, c.startContainer); err != nil {
			if !isLostStart(err) {
				return err
			}
			runs, awaitErr := c.awaitLostStart(ctx)
			if awaitErr != nil {
				return awaitErr
			}
			if runs {
				return c.endStray(ctx)
			}
			return err
		}
		if !hasHealthcheck(answer) {
			return nil
		}
		return c.untilHealthy(ctx)
	})
}

// inspect inspects the container. What says nothing about it is a temporary
// error, for the agent to call again: the container may run.
func (c *controller) inspect(ctx context.Context) (container.InspectResponse, error) {
	answer, err := c.adapter.Inspect(ctx)
	if err != nil && !c.adapter.gone(err) {
		err = tryAgain(ctx, err)
	}
	return answer, err
}

// finish makes the exit error of a container that has ended. One that has not
// is unhealthy, and stopped. Another process may have done that: what the engine
// keeps of the checks tells.
func (c *controller) finish(ctx context.Context, answer container.InspectResponse) error {
	if !hasEnded(answer) {
		log.G(c.adapter.logContext(ctx)).WithField("container.id", answer.ID).Debug("container unhealthy, stopping it")
		if err := c.persist(ctx, c.end); err != nil {
			return err
		}
		var err error
		if answer, err = c.watch(ctx, func(container.InspectResponse) bool { return false }); err != nil {
			return err
		}
	}
	c.notePorts(answer)
	c.mu.Lock()
	sick := c.sick
	c.mu.Unlock()
	if sick || failedChecks(answer) {
		return ExitError(answer, ErrContainerUnhealthy)
	}
	return ExitError(answer, nil)
}
