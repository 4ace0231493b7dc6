package dockerexec

import (
	"context"
	"time"

	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/moby/swarmkit/v2/log"
	"github.com/pkg/errors"
)

// Shutdown ends a running Prepare or Start, and then stops the container. A container
// that does not exist, or does not run, is no error. If a start may be lost, Shutdown
// first watches for up to 20 seconds whether the container begins to run.
//
// If a stop fails while the container runs, the error is temporary, so that the agent
// calls again: a final error would end the task, and the agent stops no container of a
// task that has ended. A refusal of the engine is final all the same.
func (c *controller) Shutdown(ctx context.Context) error {
	return c.stop(ctx, methodShutdownTask, c.adapter.Shutdown)
}

// Terminate is Shutdown without a grace period.
func (c *controller) Terminate(ctx context.Context) error {
	return c.stop(ctx, methodTerminateTask, c.adapter.Terminate)
}

func (c *controller) stop(ctx context.Context, m *method, stop func(context.Context) error) error {
	return c.run(ctx, opAsking, m, func(ctx context.Context) error {
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
		err := c.stopResult(ctx, stop(ctx))
		if err == nil {
			c.mu.Lock()
			c.ended = true
			c.mu.Unlock()
		}
		if exec.IsTemporary(err) && c.failedStops.Add(1) == 2 {
			log.G(c.adapter.logContext(ctx)).WithError(err).Warn("stop failed again, the agent is to repeat it")
		}
		return err
	})
}

// end stops the container of a task that fails. persist repeats it until the container
// has ended.
func (c *controller) end(ctx context.Context) error {
	return c.stopResult(ctx, c.adapter.Shutdown(ctx))
}

// persistEnd stops the container of a task that fails, again and again until it has ended.
func (c *controller) persistEnd(ctx context.Context) error { return c.persist(ctx, c.end) }

// stopResult returns the error of a stop that ended with err. If err is neither temporary nor
// a refusal, stopResult looks at the container: the engine may not notice that its own stop
// has ended the container.
func (c *controller) stopResult(ctx context.Context, err error) error {
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	case exec.IsTemporary(err), isRefusal(err):
		return err
	}
	// An inspect that hangs must not delay the kill, which the next call may send.
	limited, cancel := context.WithTimeout(ctx, killDelay)
	defer cancel()
	answer, inspectErr := c.adapter.Inspect(limited)
	if isContainerGone(inspectErr) || inspectErr == nil && (hasEnded(answer) || isUnstarted(answer)) {
		return nil
	}
	return tryAgain(ctx, err)
}

// Remove removes the container, running or not, and then the task's networks that
// nobody else uses. First it ends a running Prepare, Start and Wait with
// context.Canceled. From then on the controller makes nothing any more.
//
// The agent calls Remove only once. So Remove tries again after a passing fault, a 409
// and a 500, until ctx ends. The pauses grow: to five seconds after a passing fault,
// and to a minute after an answer that may stay the same, such as a 500. Any other error
// is final. Remove stops the container and then removes it. It does not stop a container
// that Wait has seen end, or that Shutdown or Terminate has stopped. A stop that succeeded
// is not repeated. A second call of Remove does what the first call left undone.
//
// After a create without an answer, Remove looks for the container for five seconds. If a
// start may be lost, Remove first watches for up to 20 seconds whether the container begins
// to run: without a stop, the engine would forget the container and leave its process.
// A container that is not proven to be the task's is left alone.
func (c *controller) Remove(ctx context.Context) error {
	c.mu.Lock()
	c.removed = true
	c.portsAt = time.Time{}
	c.interruptLocked(opWaiting, context.Canceled) // any other error would fail the task
	c.mu.Unlock()
	return c.run(ctx, opAsking, methodRemoveTask, func(ctx context.Context) error {
		if err := c.lock(ctx); err != nil {
			return err
		}
		defer c.unlock()
		c.mu.Lock()
		stopped := c.ended && !c.adapter.startLost.Load() // a lost start may run yet
		c.mu.Unlock()
		return c.persist(ctx, func(ctx context.Context) error { return c.remove(ctx, &stopped) })
	})
}

// remove tries once to remove the container and the networks. stopped says that no stop is
// to be tried any more. remove sets it once a stop has succeeded, or has failed for good.
func (c *controller) remove(ctx context.Context, stopped *bool) error {
	removable, err := c.removable(ctx)
	if err != nil {
		return err
	}
	if removable {
		if !*stopped {
			if err := c.adapter.Shutdown(ctx); unfinished(ctx, err) {
				return err
			} else if err != nil { // the removal kills the container
				log.G(c.adapter.logContext(ctx)).WithError(err).Debug("container not stopped before its removal")
			}
			*stopped = true
		}
		err = c.adapter.Remove(ctx)
	} else {
		err = c.adapter.removeFiles()
	}
	if err != nil && (ctx.Err() != nil || mayMend(err)) {
		return err // the networks can only be removed after the container
	}
	if networksErr := c.adapter.RemoveNetworks(ctx); err == nil {
		err = networksErr
	}
	return err
}

// removable reports whether there is a container that is the task's.
func (c *controller) removable(ctx context.Context) (bool, error) {
	c.mu.Lock()
	proven := c.ownershipProven
	c.mu.Unlock()
	if proven && !c.adapter.isNamed {
		return true, nil
	}
	if c.adapter.createLost.Load() {
		return c.adapter.awaitLostCreate(ctx)
	}
	answer, err := c.adapter.Inspect(ctx)
	if isContainerGone(err) {
		return false, nil
	}
	return err == nil && c.adapter.checkOwner(answer) == nil, err
}

// undoTimeout bounds how long a detached call tries to remove what it made too late. In
// this time an engine can restart.
const undoTimeout = 2 * time.Minute

// undo removes what a detached call has made, if Remove was called in the meantime.
func (c *controller) undo(ctx context.Context) {
	c.mu.Lock()
	removed := c.removed
	c.mu.Unlock()
	if !removed {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, undoTimeout)
	defer cancel()
	stopped := true // no stop: the task is over, so the removal may kill the container
	if err := c.persist(ctx, func(ctx context.Context) error { return c.remove(ctx, &stopped) }); err != nil {
		log.G(c.adapter.logContext(ctx)).WithError(err).Debug("what a call made during the removal of its task was not removed")
	}
}

// longestBusyPause bounds the pauses after an answer that may stay the same for ever,
// such as a 500 to a removal. Without it, one container would cause thousands of
// requests an hour.
const longestBusyPause = time.Minute

// persist calls call until it succeeds, fails for good, or ctx ends. The pauses grow:
// to longestPause after a passing fault, otherwise to longestBusyPause. The first failure
// is logged as a warning, the others only for debugging.
func (c *controller) persist(ctx context.Context, call func(context.Context) error) error {
	var pauses backoff
	for warned := false; ; warned = true {
		err := call(ctx)
		if ctx.Err() != nil && err != nil {
			return ctx.Err()
		}
		if err == nil || !mayMend(err) {
			return err
		}
		logger := log.G(c.adapter.logContext(ctx)).WithError(err)
		say := logger.Warn
		if warned {
			say = logger.Debug
		}
		say("stop or removal failed, trying again")
		pauses.longest = longestBusyPause
		if isPassing(errors.Cause(err)) { // without the wrapping, which may make it temporary
			pauses.longest = longestPause
		}
		if err := sleep(ctx, burstWindow+pauses.next()); err != nil {
			return err
		}
	}
}
