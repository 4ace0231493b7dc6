package dockerexec

import (
	"context"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/moby/swarmkit/v2/api"
	"github.com/moby/swarmkit/v2/log"
	"github.com/pkg/errors"
)

// Prepare makes the task's networks and volumes, pulls the image and creates
// the container. It returns [exec.ErrTaskPrepared] if the container is there
// already. When the pull fails and the image is on the engine, that one is used,
// and a warning has the pull's error.
func (c *controller) Prepare(ctx context.Context) error {
	return c.run(ctx, opMaking, func(ctx context.Context) error {
		if err := c.adapter.engine.options.err; err != nil {
			return exec.MakeTemporary(err)
		}
		if err := c.waitIdle(ctx); err != nil {
			return err
		}
		if err := c.findPrepared(ctx); err != nil {
			return err
		}
		if err := c.detached(ctx, c.adapter.CreateNetworks); err != nil {
			return err
		}
		if err := c.detached(ctx, c.adapter.CreateVolumes); err != nil {
			return err
		}
		if err := c.pull(ctx); err != nil {
			return err
		}
		return c.detachedWithNetworks(ctx, func(ctx context.Context) error {
			c.adapter.createSent.Store(false)
			return c.created(c.adapter.Create(ctx))
		})
	})
}

// created takes note of what a create did.
func (c *controller) created(err error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mayExist = true // also after an error: the engine may not have told all
	switch {
	case err == nil, err == exec.ErrTaskPrepared: //nolint:errorlint // bare
		c.ownershipProven, c.createLost = true, false
	case exec.IsTemporary(err) && c.adapter.createSent.Load():
		c.createLost = true
	}
	return err
}

// findPrepared returns [exec.ErrTaskPrepared] if an earlier Prepare, perhaps of
// another process, has created the container. The first Prepare of a new task
// does not look.
func (c *controller) findPrepared(ctx context.Context) error {
	c.mu.Lock()
	begun := c.mayExist
	c.mu.Unlock()
	if !begun {
		return nil
	}
	answer, err := c.adapter.Inspect(ctx)
	if isContainerGone(err) || err == nil && labelOf(answer) != c.adapter.taskID {
		return nil // Create says what is wrong with another one
	}
	if err != nil {
		return err
	}
	return c.detachedWithNetworks(ctx, func(ctx context.Context) error {
		config, version, err := c.adapter.ready(ctx)
		if err != nil {
			return err
		}
		return c.created(c.adapter.adopt(ctx, config, version, answer))
	})
}

// pull pulls the image, or finds after a failure that it is on the engine.
func (c *controller) pull(ctx context.Context) error {
	pullErr := c.adapter.PullImage(ctx)
	if pullErr == nil || ctx.Err() != nil || exec.IsTemporary(pullErr) {
		return pullErr
	}
	present, err := c.adapter.imagePresent(ctx)
	if err != nil {
		return err
	}
	if !present {
		return pullErr
	}
	log.G(c.adapter.logContext(ctx)).WithField("image", c.adapter.image).WithError(pullErr).
		Warn("pull failed, the image on the engine is used instead")
	return nil
}

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
		if err := c.adapter.engine.options.err; err != nil {
			return exec.MakeTemporary(err)
		}
		if err := c.waitIdle(ctx); err != nil {
			return err
		}
		answer, err := c.inspect(ctx)
		if err != nil {
			return err
		}
		if err := c.adapter.checkOwner(answer); err != nil {
			return err
		}
		if runsUnknownToEngine(answer) {
			return c.endStray(ctx)
		}
		if !isUnstarted(answer) {
			// A Start that was interrupted, perhaps with its process, goes on
			// waiting.
			if answer.State.Status == container.StateRunning && !isHealthy(answer) {
				if err := c.untilHealthy(ctx); err != nil {
					return err
				}
			}
			return exec.ErrTaskStarted
		}
		if err := c.detachedWithNetworks(ctx, c.startContainer); err != nil {
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
	if err != nil && !isContainerGone(err) {
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
	sick := c.unhealthy
	c.mu.Unlock()
	if sick || failedChecks(answer) {
		return ExitError(answer, ErrContainerUnhealthy)
	}
	return ExitError(answer, nil)
}

// untilHealthy waits until the container is healthy. One that has ended, or is
// stopped for being unhealthy, is [exec.ErrTaskStarted] or its exit error.
func (c *controller) untilHealthy(ctx context.Context) error {
	answer, err := c.watch(ctx, func(answer container.InspectResponse) bool {
		return isHealthy(answer) || c.markUnhealthy(answer)
	})
	if err != nil {
		return err
	}
	if !hasEnded(answer) && !c.markUnhealthy(answer) {
		return nil
	}
	if err := c.finish(ctx, answer); err != nil {
		return err
	}
	return exec.ErrTaskStarted
}

// markUnhealthy reports whether the container is to be stopped for its health. Once it
// is, that is not taken back. Only one that runs is judged: nobody checks it
// while it is paused.
func (c *controller) markUnhealthy(answer container.InspectResponse) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if answer.State.Status == container.StateRunning && failedChecks(answer) {
		c.unhealthy = true
	}
	return c.unhealthy
}

// A start is lost when the engine ends after it has asked containerd for the
// process and before it has noted that it runs. Back again, the engine has a
// container that was created and never started. It stays so until containerd's
// shim gets rid of its event that the process has started; then the container is
// running, without a time of its start, network and log.

// lostStartTime is how long a container that may have been started is watched.
// The shim sends its event again five times, 1, 2, 3, 4 and 5 s apart.
const lostStartTime = 20 * time.Second

// startMayBeLost reports whether a start of a task that has come as far as state
// may have been sent by an earlier process, and not been answered.
func startMayBeLost(state api.TaskState) bool {
	return state >= api.TaskStateStarting && state < api.TaskStateCompleted
}

// startContainer is the adapter's Start, and takes note of whether it may be lost.
func (c *controller) startContainer(ctx context.Context) error {
	c.adapter.startSent.Store(false)
	err := c.adapter.Start(ctx)
	switch {
	case err == nil:
		c.setStartLost(false)
	case isLostStart(err), exec.IsTemporary(err) && c.adapter.startSent.Load(): // a client's words do not tell what arrived
		c.setStartLost(true)
	}
	return err
}

func (c *controller) setStartLost(lost bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.startLost = lost
}

// awaitLostStart waits until it is certain what became of a start that may be
// lost, and reports whether the container runs. If no start may be lost it makes
// no request and reports false.
func (c *controller) awaitLostStart(ctx context.Context) (runs bool, err error) {
	for began := time.Now(); ; {
		c.mu.Lock()
		lost := c.startLost
		c.mu.Unlock()
		if !lost {
			return false, nil
		}
		answer, err := c.adapter.Inspect(ctx)
		switch {
		case ctx.Err() != nil:
			return false, ctx.Err()
		case isContainerGone(err):
			c.setStartLost(false)
		case err != nil:
			return false, tryAgain(ctx, err)
		case !isUnstarted(answer):
			c.setStartLost(false)
			return !hasEnded(answer), nil
		case time.Since(began) >= lostStartTime:
			c.setStartLost(false)
		default:
			if err := sleep(ctx, time.Second); err != nil {
				return false, err
			}
		}
	}
}

// endStray stops a container of which the start was lost, and returns why that
// failed, or that the start did.
func (c *controller) endStray(ctx context.Context) error {
	log.G(c.adapter.logContext(ctx)).Debug("container of a lost start runs, stopping it")
	if err := c.persist(ctx, c.end); err != nil {
		return err
	}
	return errors.Errorf("start container %s: the engine ended within it; the container ran without network and log, and was stopped", c.adapter.name)
}
