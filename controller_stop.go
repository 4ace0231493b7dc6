package dockerexec

import (
	"context"
	"time"

	"github.com/moby/swarmkit/v2/agent/exec"
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
		if err := c.settle(ctx); err != nil {
			return err
		}
		if c.adapter.config.isNamed() {
			answer, err := c.adapter.Inspect(ctx)
			if c.adapter.gone(err) || err == nil && c.adapter.checkOwner(answer) != nil {
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
	if c.adapter.gone(inspectErr) || inspectErr == nil && (hasEnded(answer) || isUnstarted(answer)) {
		return nil
	}
	return tryAgain(ctx, err)
}
