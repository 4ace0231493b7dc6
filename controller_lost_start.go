package dockerexec

import (
	"context"
	"time"

	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/moby/swarmkit/v2/api"
	"github.com/moby/swarmkit/v2/log"
	"github.com/pkg/errors"
)

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
		case c.adapter.gone(err):
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
	return errors.Errorf("start container %s: the engine ended within it; the container ran without network and log, and was stopped", c.adapter.config.name())
}
