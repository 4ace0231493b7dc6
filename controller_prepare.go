package dockerexec

import (
	"context"

	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/moby/swarmkit/v2/log"
)

// Prepare makes the task's networks and volumes, pulls the image and creates
// the container. It returns [exec.ErrTaskPrepared] if the container is there
// already. When the pull fails and the image is on the engine, that one is used,
// and a warning has the pull's error.
func (c *controller) Prepare(ctx context.Context) error {
	return c.run(ctx, opMaking, func(ctx context.Context) error {
		if err := c.settle(ctx); err != nil {
			return err
		}
		if err := c.findPrepared(ctx); err != nil {
			return err
		}
		if err := c.step(ctx, c.adapter.CreateNetworks); err != nil {
			return err
		}
		if err := c.step(ctx, c.adapter.CreateVolumes); err != nil {
			return err
		}
		if err := c.pull(ctx); err != nil {
			return err
		}
		return c.stepWithNetworks(ctx, func(ctx context.Context) error {
			c.adapter.createSent.Store(false)
			return c.created(c.adapter.Create(ctx))
		})
	})
}

// created takes note of what a create did.
func (c *controller) created(err error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.begun = true // also after an error: the engine may not have told all
	switch {
	case err == nil, err == exec.ErrTaskPrepared: //nolint:errorlint // bare
		c.own, c.createLost = true, false
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
	begun := c.begun
	c.mu.Unlock()
	if !begun {
		return nil
	}
	answer, err := c.adapter.Inspect(ctx)
	if c.adapter.gone(err) || err == nil && labelOf(answer) != c.adapter.config.task.ID {
		return nil // Create says what is wrong with another one
	}
	if err != nil {
		return err
	}
	return c.stepWithNetworks(ctx, func(ctx context.Context) error {
		version, err := c.adapter.ready(ctx)
		if err != nil {
			return err
		}
		return c.created(c.adapter.adopt(ctx, version, answer))
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
	log.G(c.adapter.logContext(ctx)).WithField("image", c.adapter.config.image()).WithError(pullErr).
		Warn("pull failed, the image on the engine is used instead")
	return nil
}
