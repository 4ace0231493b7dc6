package dockerexec

import (
	"context"
	"time"

	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/moby/swarmkit/v2/log"
)

// Shutdown stops the container, after it has ended a running Prepare or Start. A
// container that is not there, or does not run, is no error; one that may have
// been started without the engine's knowledge is watched first. A stop that fails
// while the container runs is a temporary error, unless the engine refuses it:
// once a task has ended, the agent asks for no stop.
func (c *controller) Shutdown(ctx context.Context) error {
	return c.stop(ctx, c.adapter.Shutdown)
}

// Terminate is Shutdown without grace.
func (c *controller) Terminate(ctx context.Context) error {
	return c.stop(ctx, c.adapter.Terminate)
}

func (c *controller) stop(ctx context.Context, stop func(context.Context) error) error {
	return c.run(ctx, opAsking, func(ctx context.Context) error {
		c.mu.Lock()
		c.interruptLocked(opMaking, context.Canceled)
		c.portsAt = time.Time{}
		c.mu.Unlock()
		if err := c.waitIdle(ctx); err != nil {
			return err
		}
		if c.adapter.isNamed {
			answer, err := c.adapter.Inspect(ctx)
			if isContainerGone(err) || err == nil && c.adapter.checkOwner(answer) != nil {
				return nil
			}
			if err != nil {
				return tryAgain(ctx, err)
			}
		}
		if _, err := c.awaitLostStart(ctx); err != nil {
			return err
		}
		return c.stopped(ctx, stop(ctx))
	})
}

// end stops the container of a task that goes on until it has ended.
func (c *controller) end(ctx context.Context) error {
	return c.stopped(ctx, c.adapter.Shutdown(ctx))
}

// stopped returns what a stop that ended with err comes to. The engine may fail
// to see an end that it has brought about.
func (c *controller) stopped(ctx context.Context, err error) error {
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	case exec.IsTemporary(err), isRefusal(err):
		return err
	}
	answer, inspectErr := c.adapter.Inspect(ctx)
	if isContainerGone(inspectErr) || inspectErr == nil && (hasEnded(answer) || isUnstarted(answer)) {
		return nil
	}
	return tryAgain(ctx, err)
}

// Remove removes the container, whatever it does, and then those of the task's
// networks that nobody else uses. It ends a running Prepare, Start and Wait with
// context.Canceled; after it, nothing is made any more. Whatever the engine fails to
// do is tried again until ctx ends, with pauses, unless the engine refuses it: the
// agent calls Remove once. What it did not finish it does when it is called again.
// After a create without an answer it looks for the container for five seconds.
//
// A container that may have been started without the engine's knowledge is watched
// before: the engine would only forget it, and leave its process. A container that
// is not proven to be the task's is left alone.
func (c *controller) Remove(ctx context.Context) error {
	c.mu.Lock()
	c.removed = true
	c.portsAt = time.Time{}
	c.interruptLocked(opWaiting, context.Canceled) // another error would fail the task
	c.mu.Unlock()
	return c.run(ctx, opAsking, func(ctx context.Context) error {
		if err := c.lock(ctx); err != nil {
			return err
		}
		defer c.unlock()
		stopped := false
		return c.persist(ctx, func(ctx context.Context) error { return c.remove(ctx, &stopped) })
	})
}

// remove is one try to remove container and networks. stopped says whether the container
// has been stopped before: that is done once, however many tries a removal takes.
func (c *controller) remove(ctx context.Context, stopped *bool) error {
	removable, err := c.removable(ctx)
	if err != nil {
		return err
	}
	if removable {
		if _, err := c.awaitLostStart(ctx); err != nil {
			return err
		}
		if !*stopped {
			if err := c.adapter.Shutdown(ctx); unfinished(ctx, err) {
				return err
			} else if err != nil { // the removal kills it
				log.G(c.adapter.logContext(ctx)).WithError(err).Debug("container not stopped before its removal")
			}
			*stopped = true
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

// lostCreateTime is how long a removal looks for the container of a create of
// which the answer was lost. An engine shows one only when its volumes have been
// filled from the image, and the agent asks for no second removal.
const lostCreateTime = 5 * time.Second

// removable reports whether there is a container, and whether it is the task's.
func (c *controller) removable(ctx context.Context) (bool, error) {
	for began := time.Now(); ; {
		c.mu.Lock()
		own, lost := c.ownershipProven, c.createLost
		c.mu.Unlock()
		if own && !c.adapter.isNamed {
			return true, nil
		}
		answer, err := c.adapter.Inspect(ctx)
		if !isContainerGone(err) {
			return err == nil && c.adapter.checkOwner(answer) == nil, err
		}
		if !lost {
			return false, nil
		}
		if time.Since(began) >= lostCreateTime {
			c.mu.Lock()
			c.createLost = false
			c.mu.Unlock()
			return false, nil
		}
		if err := sleep(ctx, time.Second); err != nil {
			return false, err
		}
	}
}
