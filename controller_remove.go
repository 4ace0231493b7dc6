package dockerexec

import (
	"context"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/moby/swarmkit/v2/log"
	"github.com/pkg/errors"
)

// Remove removes the container, whatever it does, and then those of the task's
// networks that nobody else uses. It ends a running Prepare, Start and Wait;
// after it, nothing is made any more. Whatever the engine fails to do is tried
// again until ctx ends, with pauses, unless the engine refuses it: the agent calls
// Remove once. What it did not finish it does when it is called again.
//
// A container that may have been started without the engine's knowledge is watched
// before: the engine would only forget it, and leave its process. A container that
// is not proven to be the task's is left alone.
func (c *controller) Remove(ctx context.Context) error {
	c.mu.Lock()
	c.removed = true
	c.portsAt = time.Time{}
	c.interruptLocked(opWaiting, exec.ErrControllerClosed)
	c.mu.Unlock()
	return c.run(ctx, opAsking, func(ctx context.Context) error {
		if err := c.take(ctx); err != nil {
			return err
		}
		defer c.release()
		return c.persist(ctx, func(ctx context.Context) error { return c.remove(ctx, true) })
	})
}

// remove is one try to remove container and networks.
func (c *controller) remove(ctx context.Context, graceful bool) error {
	removable, err := c.removable(ctx)
	if err != nil {
		return err
	}
	if removable {
		if _, err := c.awaitLostStart(ctx); err != nil {
			return err
		}
		if graceful {
			if err := c.adapter.Shutdown(ctx); unfinished(ctx, err) {
				return err
			} else if err != nil { // the removal kills it
				log.G(c.adapter.logContext(ctx)).WithError(err).Debug("container not stopped before its removal")
			}
		}
		err = c.adapter.Remove(ctx)
	} else {
		err = c.adapter.removeFiles(ctx)
	}
	if err != nil && (ctx.Err() != nil || mayMend(err)) {
		return err // the networks go after the container
	}
	if networksErr := c.adapter.RemoveNetworks(ctx); err == nil {
		err = networksErr
	}
	return err
}

// unfinished reports whether err leaves more to try than the next call.
func unfinished(ctx context.Context, err error) bool {
	return err != nil && (ctx.Err() != nil || exec.IsTemporary(err))
}

// removable reports whether there is a container, and whether it is the task's:
// this controller made it under a name that only the task has, or its label
// says so.
func (c *controller) removable(ctx context.Context) (bool, error) {
	c.mu.Lock()
	own := c.own
	c.mu.Unlock()
	if own && !c.named {
		return true, nil
	}
	answer, err := c.adapter.Inspect(ctx)
	if c.adapter.gone(err) {
		return false, nil
	}
	return err == nil && c.labelOf(answer) == c.adapter.config.task.ID, err
}

// labelOf is the ID of the task that a container belongs to, or empty.
func (c *controller) labelOf(answer container.InspectResponse) string {
	if answer.Config == nil {
		return ""
	}
	return answer.Config.Labels[labelTaskID]
}

// checkOwner refuses a container that is not the task's. Without a label the
// name decides, which usually has the task's ID in it.
func (c *controller) checkOwner(answer container.InspectResponse) error {
	switch owner := c.labelOf(answer); {
	case owner == c.adapter.config.task.ID, owner == "" && !c.named:
		return nil
	case owner == "":
		return errors.Errorf("container %s (%s) belongs to no task", c.adapter.config.name(), shortID(answer.ID))
	default:
		return errors.Errorf("container %s (%s) belongs to task %s", c.adapter.config.name(), shortID(answer.ID), owner)
	}
}
