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
		answer, err := c.adapter.Inspect(ctx)
		if err != nil {
			return err
		}
		if err := c.adapter.checkOwner(answer); err != nil {
			return err
		}
		if isStray(answer) {
			return c.endStray(ctx)
		}
		if answer.State.Status != container.StateCreated {
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

// hasHealthcheck reports whether the engine checks the container's health: a
// check of the image counts, and the task may have turned that off.
func hasHealthcheck(answer container.InspectResponse) bool {
	if answer.Config == nil || answer.Config.Healthcheck == nil {
		return false
	}
	test := answer.Config.Healthcheck.Test
	return len(test) > 0 && test[0] != "NONE"
}

func (c *controller) untilHealthy(ctx context.Context) error {
	answer, err := c.adapter.watch(ctx, func(answer container.InspectResponse) (bool, error) {
		switch answer.State.Status {
		case container.StateExited, container.StateDead:
			return true, nil
		case container.StateRemoving:
			return false, ErrContainerDestroyed
		case container.StateRunning:
			return isWell(answer) || c.isSick(answer), nil
		default: // created, paused, restarting
			return false, nil
		}
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

// isWell reports whether a running container is healthy, or not checked.
func isWell(answer container.InspectResponse) bool {
	health := answer.State.Health
	return health == nil || health.Status != container.Starting && health.Status != container.Unhealthy
}

// isSick reports whether the container is to be stopped for its health. Once it
// is, that is not taken back.
func (c *controller) isSick(answer container.InspectResponse) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if health := answer.State.Health; health != nil && health.Status == container.Unhealthy {
		c.sick = true
	}
	return c.sick
}

func hasEnded(answer container.InspectResponse) bool {
	return answer.State.Status == container.StateExited || answer.State.Status == container.StateDead
}

// finish makes the exit error of a container that has ended. One that has not
// is unhealthy, and stopped.
func (c *controller) finish(ctx context.Context, answer container.InspectResponse) error {
	if !hasEnded(answer) {
		log.G(c.adapter.logContext(ctx)).WithField("container.id", answer.ID).Debug("container unhealthy, stopping it")
		if err := c.persist(ctx, c.end); err != nil {
			return err
		}
		var err error
		if answer, err = c.adapter.Wait(ctx); err != nil {
			return err
		}
	}
	c.notePorts(answer)
	c.mu.Lock()
	sick := c.sick
	c.mu.Unlock()
	if sick {
		return ExitError(answer, ErrContainerUnhealthy)
	}
	return ExitError(answer, nil)
}
