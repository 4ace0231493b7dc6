package dockerexec

import (
	"context"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/moby/swarmkit/v2/log"
)

// step makes one call that makes something on the engine. If ctx ends it
// returns at once, while the call goes on, within the limits that each engine
// call has; whoever comes next waits for it. A call that ends after Remove was
// called is undone here, because that Remove may have given up waiting.
func (c *controller) step(ctx context.Context, call func(context.Context) error) error {
	if err := c.take(ctx); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() {
		defer c.release()
		ctx := context.WithoutCancel(ctx)
		err := call(ctx)
		c.undo(ctx)
		ended <- err // last: a Remove after the answer does its work itself, with a stop first
	}()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// take waits for the step that runs, if any, and keeps others from beginning.
func (c *controller) take(ctx context.Context) error {
	select {
	case c.gate <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	if ctx.Err() != nil { // both were possible
		c.release()
		return ctx.Err()
	}
	return nil
}

func (c *controller) release() { <-c.gate }

// settle waits for the step that runs, if any.
func (c *controller) settle(ctx context.Context) error {
	if err := c.take(ctx); err != nil {
		return err
	}
	c.release()
	return nil
}

// undoTimeout bounds how long a step tries to remove what it made too late. It
// leaves an engine the time to restart.
const undoTimeout = 2 * time.Minute

func (c *controller) undo(ctx context.Context) {
	c.mu.Lock()
	removed := c.removed
	c.mu.Unlock()
	if !removed {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, undoTimeout)
	defer cancel()
	if err := c.persist(ctx, func(ctx context.Context) error { return c.remove(ctx, false) }); err != nil {
		log.G(c.adapter.logContext(ctx)).WithError(err).Debug("not undone what was made after the removal")
	}
}

// networkRepairs is how often a step is tried again because a network of the
// task had vanished.
const networkRepairs = 3

// stepWithNetworks is step for a call that needs the task's networks. Another
// task's removal may have taken one that no container was attached to: then
// they are made again.
func (c *controller) stepWithNetworks(ctx context.Context, call func(context.Context) error) error {
	for repairs := 0; ; repairs++ {
		err := c.step(ctx, call)
		if repairs == networkRepairs || !cerrdefs.IsNotFound(err) || !networkVanished.in(normalize(err.Error()), "") {
			return err
		}
		log.G(c.adapter.logContext(ctx)).WithError(err).Debug("a network vanished, making it again")
		if err := c.step(ctx, c.adapter.CreateNetworks); err != nil {
			return err
		}
	}
}

// persist calls call until it succeeds, fails for good, or ctx ends.
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
		if err := sleep(ctx, coalesceTime+pauses.next()); err != nil {
			return err
		}
	}
}
