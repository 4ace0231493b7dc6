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

// Prepare makes the task's networks and volumes, pulls the image and creates the
// container. It returns [exec.ErrTaskPrepared] if the container exists already. If the
// pull fails with a final error and the image is on the engine, that image is used. Then
// a warning shows the error of the pull.
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
		unseen, err := c.pull(ctx)
		if err != nil {
			return err
		}
		return c.repaired(ctx, func(ctx context.Context) error {
			c.adapter.createSent.Store(false)
			err := c.created(c.adapter.Create(ctx))
			if unseen != nil && imageMissing.matches(errors.Cause(err)) {
				return unseen
			}
			return err
		})
	})
}

// created notes the result of a create.
func (c *controller) created(err error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mayExist = true // also after an error: perhaps the engine created it all the same
	switch {
	case err == nil, err == exec.ErrTaskPrepared: //nolint:errorlint // bare
		c.ownershipProven, c.createLost = true, false
	case exec.IsTemporary(err) && c.adapter.createSent.Load() && !isUndone(err):
		c.createLost = true
	}
	return err
}

// findPrepared returns [exec.ErrTaskPrepared] if an earlier Prepare, perhaps of another
// process, has created the container. At the first Prepare of a new task it makes no
// request.
func (c *controller) findPrepared(ctx context.Context) error {
	c.mu.Lock()
	mayExist := c.mayExist
	c.mu.Unlock()
	if !mayExist {
		return nil
	}
	answer, err := c.adapter.Inspect(ctx)
	if isContainerGone(err) || err == nil && labelOf(answer) != c.adapter.taskID {
		return nil // Create reports a container that is not the task's
	}
	if err != nil {
		return err
	}
	err = c.repaired(ctx, func(ctx context.Context) error {
		config, version, err := c.adapter.ready(ctx)
		if err != nil {
			return err
		}
		return c.created(c.adapter.adopt(ctx, config, version, answer))
	})
	if IsUnknownContainer(err) {
		return nil // it has vanished since, so it is created again
	}
	return err
}

// pull pulls the image. If that fails and the image is on the engine, it succeeds with
// a warning. A temporary error is returned: then the agent tries again. If it is not
// known whether the image is on the engine, unseen is the error of the pull: the create
// shows whether the image is there.
func (c *controller) pull(ctx context.Context) (unseen, err error) {
	pullErr := c.adapter.PullImage(ctx)
	if pullErr == nil || ctx.Err() != nil || exec.IsTemporary(pullErr) {
		return nil, pullErr
	}
	present, err := c.adapter.imagePresent(ctx)
	switch {
	case err == errImageUnseen: //nolint:errorlint // bare
		unseen = pullErr
	case err != nil:
		return nil, err
	case !present:
		return nil, pullErr
	}
	log.G(c.adapter.logContext(ctx)).WithField("image", c.adapter.image).WithError(pullErr).
		Warn("pull failed, the image on the engine is used instead")
	return unseen, nil
}

// Start starts the container. If the container has a health check, it waits until the
// container is healthy. It returns [exec.ErrTaskStarted] if the container was started
// before; a container that runs must be healthy first. An unhealthy container is
// stopped: the error has its exit code, and [ErrContainerUnhealthy] as its cause. If the
// engine has ceased to check the container, Start does not wait for its health.
//
// If the container ends before it was healthy, its exit code counts. Any code but 0
// fails the task. With 0 the container has done its work: the answer is
// [exec.ErrTaskStarted], and the Wait that follows completes the task.
//
// If the engine lost an earlier start, the container may begin to run by itself,
// without network and log. It is stopped, and the start has failed.
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
			return c.endLostStart(ctx)
		}
		if !isUnstarted(answer) {
			// An earlier Start may have ended before the container was healthy,
			// perhaps because the agent's process ended. This Start goes on waiting.
			if answer.State.Status == container.StateRunning && !isHealthy(answer) {
				if err := c.untilHealthy(ctx); err != nil {
					return err
				}
			}
			return exec.ErrTaskStarted
		}
		if err := c.repaired(ctx, c.startContainer); err != nil {
			if !isLostStart(err) {
				return err
			}
			runs, awaitErr := c.awaitLostStart(ctx)
			if awaitErr != nil {
				return awaitErr
			}
			if runs {
				return c.endLostStart(ctx)
			}
			return err
		}
		if !hasHealthcheck(answer) {
			return nil
		}
		return c.untilHealthy(ctx)
	})
}

// inspect inspects the container. An error that says nothing about the container is
// temporary, so that the agent calls again: the container may run.
func (c *controller) inspect(ctx context.Context) (container.InspectResponse, error) {
	answer, err := c.adapter.Inspect(ctx)
	if err != nil && !isContainerGone(err) {
		err = tryAgain(ctx, err)
	}
	return answer, err
}

// finish returns the exit error of a container that has ended. If it has not ended, it
// is unhealthy: finish stops it and waits for the end. Another process may have stopped
// it for its health. failedChecks finds that out from the engine's record of the checks.
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
	unhealthy := c.unhealthy
	c.mu.Unlock()
	if unhealthy || failedChecks(answer) {
		return ExitError(answer, ErrContainerUnhealthy)
	}
	return ExitError(answer, nil)
}

// untilHealthy waits until the container is healthy, or until its health checks have
// stopped: then nobody will ever know whether it is healthy. If it ends first with exit code 0, the
// error is [exec.ErrTaskStarted]. If it ends with another code, the error is the exit error.
// A container whose health checks failed is stopped. Then the error is the exit error,
// whatever the code.
func (c *controller) untilHealthy(ctx context.Context) error {
	answer, err := c.watch(ctx, func(answer container.InspectResponse) bool {
		return isHealthy(answer) || c.markUnhealthy(answer) || c.haveChecksStopped()
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

// markUnhealthy reports whether the container must be stopped for its health, and notes
// that. Once that is so, it stays so. Only a running container is judged: a paused one
// is not checked.
func (c *controller) markUnhealthy(answer container.InspectResponse) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if answer.State.Status == container.StateRunning && failedChecks(answer) {
		c.unhealthy = true
	}
	return c.unhealthy
}

// noteChecks logs a warning, once, if the engine no longer runs the container's health
// checks. checks is what was seen of them before, and now is the time on its clock. A
// nil log of the checks comes from a fake, or from an engine that has not checked yet.
func (c *controller) noteChecks(ctx context.Context, checks *checkRecord, answer container.InspectResponse, now time.Duration) {
	if health := answer.State.Health; health != nil && health.Log == nil && c.adapter.engine.api.isFake {
		return // a fake that has only a status
	}
	silence, stopped := checks.look(answer, now)
	if !stopped {
		return
	}
	c.mu.Lock()
	known := c.checksStopped
	c.checksStopped = true
	c.mu.Unlock()
	if !known {
		log.G(c.adapter.logContext(ctx)).WithField("container.id", answer.ID).
			Warnf("the engine has run no health check of the container for %v; the container counts as started, and is not stopped for its health", silence.Round(time.Second))
	}
}

func (c *controller) haveChecksStopped() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.checksStopped
}

// A start is lost if the engine ends after it has asked containerd for the process, and
// before it has noted that the process runs. After its restart the engine shows a
// container that was created and never started. Later, containerd's shim may deliver its
// event that the process has started. From then on the engine shows the container as
// running, without StartedAt, network and log.

// lostStartTime is how long a container that may have been started is watched. The shim
// sends its event up to five more times, 1, 2, 3, 4 and 5 seconds apart: 15 seconds in
// all.
const lostStartTime = 20 * time.Second

// startMayBeLost reports whether an earlier process may have sent a start of the task
// without an answer. state is the state that the task has reached.
func startMayBeLost(state api.TaskState) bool {
	return state >= api.TaskStateStarting && state < api.TaskStateCompleted
}

// startContainer is the adapter's Start. It notes whether the start may be lost.
func (c *controller) startContainer(ctx context.Context) error {
	c.adapter.startSent.Store(false)
	err := c.adapter.Start(ctx)
	switch {
	case err == nil:
		c.setStartLost(false)
	case isLostStart(err), exec.IsTemporary(err) && c.adapter.startSent.Load() && !isUndone(err): // the client's error does not tell whether the request arrived
		c.setStartLost(true)
	}
	return err
}

func (c *controller) setStartLost(lost bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.startLost = lost
}

// awaitLostStart waits until it is certain what became of a start that may be lost, for
// at most lostStartTime. It reports whether the container runs. If no start may be
// lost, it makes no request and reports false.
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

// endLostStart stops a container whose start was lost. It returns the error of the
// stop; if the stop succeeds, an error which says that the start has failed.
func (c *controller) endLostStart(ctx context.Context) error {
	log.G(c.adapter.logContext(ctx)).Debug("a container whose start was lost runs, stopping it")
	if err := c.persist(ctx, c.end); err != nil {
		return err
	}
	return errors.Errorf("start container %s: the engine ended within it; the container ran without network and log, and was stopped", c.adapter.name)
}

// mostRepairs is how often a call is tried again because what an earlier step had made
// has vanished.
const mostRepairs = 3

// repaired is detached, for a call that needs what earlier steps have made. What has
// vanished since is made again:
//
//   - A network. Another task's removal may have taken one to which no container was
//     attached.
//   - The image. Somebody may have removed all images that no container uses.
//
// The engine itself makes a volume again when it creates the container. A container that
// has vanished before its start is not made again: the start fails, and SwarmKit replaces
// the task.
func (c *controller) repaired(ctx context.Context, call func(context.Context) error) error {
	for repairs := 0; ; repairs++ {
		err := c.detached(ctx, call)
		if repairs == mostRepairs {
			return err
		}
		logger := log.G(c.adapter.logContext(ctx)).WithError(err)
		switch cause := errors.Cause(err); {
		case networkVanished.matches(cause):
			logger.Debug("a network vanished, making it again")
			err = c.detached(ctx, c.adapter.CreateNetworks)
		case imageMissing.matches(cause) && !imageID.MatchString(c.adapter.image): // an ID cannot be pulled
			logger.Debug("the image vanished, pulling it again")
			var unseen error
			if unseen, err = c.pull(ctx); unseen != nil {
				return unseen // the pull failed, and nobody can tell whether the image is there
			}
		default:
			return err
		}
		if err != nil {
			return err
		}
	}
}
