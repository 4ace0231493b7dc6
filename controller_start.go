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
	return c.run(ctx, opMaking, methodPrepareTask, func(ctx context.Context) error {
		if err := c.adapter.engine.options.err; err != nil {
			return exec.MakeTemporary(err)
		}
		if err := c.waitIdle(ctx); err != nil {
			return err
		}
		if err := c.findPrepared(ctx); err != nil {
			return err
		}
		return c.make(ctx)
	})
}

// make makes all that the container needs, and creates the container.
func (c *controller) make(ctx context.Context) error {
	if err := c.detached(ctx, c.adapter.shareNetworks); err != nil {
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
		err := c.created(c.adapter.Create(ctx))
		if unseen != nil && imageMissing.matches(errors.Cause(err)) {
			return unseen
		}
		return err
	})
}

// created notes the result of a create.
func (c *controller) created(err error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lasting = nil
	c.mayExist = true                              // also after an error: perhaps the engine created it all the same
	if err == nil || err == exec.ErrTaskPrepared { //nolint:errorlint // bare
		c.ownershipProven = true
	}
	if err == nil {
		c.mayHaveRun = false
		if id := c.adapter.knownID(); id != "" { // a fake's create may answer without one
			c.lasting, c.ports = &api.ContainerStatus{ContainerID: id}, &api.PortStatus{}
		}
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
		return tryAgain(ctx, err) // the container may run
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
// container is healthy. If the container was started before, Start returns
// [exec.ErrTaskStarted]; if the container still runs, Start first waits until it is
// healthy. An unhealthy container is stopped: the error has its exit code, and
// [ErrContainerUnhealthy] as its cause. If the engine no longer checks the container,
// Start does not wait for its health.
//
// If the container ends before it is healthy, its exit code counts. Any code but 0
// fails the task. With 0 the container has done its work: the answer is
// [exec.ErrTaskStarted], and the Wait that follows completes the task.
//
// If the engine lost an earlier start, the start has failed, and the container may begin to run
// by itself within 20 seconds, without network and log. Then the container is stopped. If it
// shares volumes or ports with the task's replacement, Start waits for that before it returns.
// Otherwise Start returns at once.
//
// A container that somebody has removed since Prepare is made again, if it has certainly
// not been started.
func (c *controller) Start(ctx context.Context) error {
	return c.run(ctx, opMaking, methodStartTask, func(ctx context.Context) error {
		if err := c.adapter.engine.options.err; err != nil {
			return exec.MakeTemporary(err)
		}
		if err := c.waitIdle(ctx); err != nil {
			return err
		}
		for repairs := 0; ; repairs++ {
			err := c.startMade(ctx)
			if !IsUnknownContainer(err) || !c.mayMakeAgain() || repairs == mostRepairs {
				return err
			}
			log.G(c.adapter.logContext(ctx)).WithError(err).Debug("the container vanished before its start, making it again")
			if err := c.make(ctx); err != nil && err != exec.ErrTaskPrepared { //nolint:errorlint // bare
				return err
			}
			if c.remade != nil {
				c.remade()
			}
		}
	})
}

// mayMakeAgain reports whether the task has been prepared, and its container has certainly
// not been started.
func (c *controller) mayMakeAgain() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mayExist && !c.mayHaveRun && !c.adapter.isStarted.Load()
}

// startMade starts the container that Prepare has made.
func (c *controller) startMade(ctx context.Context) error {
	c.mu.Lock()
	c.ended, c.lasting = false, nil
	c.mu.Unlock()
	starts := c.adapter.starts.Load()
	answer, err := c.inspect(ctx)
	if err != nil {
		return err
	}
	if err := c.adapter.checkOwner(answer); err != nil {
		return err
	}
	if runsUnknownToEngine(answer) {
		return c.adapter.endLostStart(ctx, c.persistEnd)
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
	if err := c.repaired(ctx, func(ctx context.Context) error { return c.adapter.sendStart(ctx, starts) }); err != nil {
		if isLostStart(err) && mayRunBeside(answer) {
			c.looks.Go(func() { c.endStray(context.WithoutCancel(ctx)) })
			return err
		}
		return c.adapter.resolveStart(ctx, err, c.persistEnd)
	}
	c.mu.Lock()
	c.ended, c.lasting = false, nil // a Shutdown or a ContainerStatus may have come between
	c.mu.Unlock()
	if !hasHealthcheck(answer) {
		return nil
	}
	return c.untilHealthy(ctx)
}

// endStray stops the container if it comes to life after its start was lost. The task has
// failed already, so the log alone tells of it. A container that was started since is no
// stray. endStray ends with Close.
func (c *controller) endStray(ctx context.Context) {
	_ = c.run(ctx, opAsking, nil, func(ctx context.Context) error {
		var pauses backoff
		for {
			stray, err := c.adapter.awaitLostStart(ctx)
			if err == nil {
				if stray == nil || !runsUnknownToEngine(*stray) {
					return nil
				}
				if err := c.adapter.endLostStart(ctx, c.persistEnd); ctx.Err() == nil {
					log.G(c.adapter.logContext(ctx)).WithError(err).Warn("a program ran although the engine had lost its start")
				}
				return nil
			}
			if !exec.IsTemporary(err) {
				if ctx.Err() == nil {
					log.G(c.adapter.logContext(ctx)).WithError(err).Warn("it is not known whether a program runs whose start the engine lost")
				}
				return nil
			}
			if err := sleep(ctx, pauses.next()); err != nil {
				return err
			}
		}
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

// finish returns the exit error of a container that has ended or is unhealthy. It stops an
// unhealthy container and waits for its end. If another process has stopped the container
// for its health, failedChecks finds that out from the engine's record of the checks.
func (c *controller) finish(ctx context.Context, answer container.InspectResponse) error {
	if !hasEnded(answer) {
		log.G(c.adapter.logContext(ctx)).WithField("container.id", answer.ID).Debug("container unhealthy, stopping it")
		if err := c.persistEnd(ctx); err != nil {
			return err
		}
		var err error
		if answer, err = c.watch(ctx, func(container.InspectResponse) bool { return false }); err != nil {
			return err
		}
	}
	c.notePorts(answer)
	c.noteEnded(answer)
	c.mu.Lock()
	c.ended = true
	unhealthy := c.unhealthy
	c.mu.Unlock()
	return exitOf(answer, unhealthy)
}

// untilHealthy waits until the container is healthy, or until its health checks have
// stopped: then its health can never be known. If the container ends first with exit code
// 0, the error is [exec.ErrTaskStarted]. With another code it is the exit error. A container
// whose health checks failed is stopped. Then the error is the exit error, whatever the code.
func (c *controller) untilHealthy(ctx context.Context) (err error) {
	defer c.adapter.waits(ctx, waitHealth)()
	defer func() {
		if err != nil {
			c.adapter.noteEnd(ctx, endCauseOf(err))
		}
	}()
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

// markUnhealthy reports whether the container must be stopped for its health. Once it has
// reported true, it always does. Only a running container is judged: the engine does not
// check a paused one.
func (c *controller) markUnhealthy(answer container.InspectResponse) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if answer.State.Status == container.StateRunning && failedChecks(answer) {
		c.unhealthy = true
	}
	return c.unhealthy
}

// noteChecks logs a warning, once, if the engine no longer runs the container's health
// checks. checks is the record of the answers before this one. now is what
// [checkRecord.look] needs: the time on a clock that stands still while the engine is away.
func (c *controller) noteChecks(ctx context.Context, checks *checkRecord, answer container.InspectResponse, now time.Duration) {
	silence, stopped := checks.look(answer, now)
	if !stopped {
		return
	}
	c.mu.Lock()
	known := c.checksStopped
	c.checksStopped = true
	c.mu.Unlock()
	if !known {
		c.adapter.engine.telemetry.unchecked.Add(ctx, 1)
		log.G(c.adapter.logContext(ctx)).WithField("container.id", answer.ID).
			Warnf("the engine has run no health check of the container for %v; the container counts as started, and is not stopped for its health", silence.Round(time.Second))
	}
}

func (c *controller) haveChecksStopped() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.checksStopped
}

// mostRepairs is how often a call is tried again because what an earlier step had made
// has vanished.
const mostRepairs = 3

// repaired makes a detached call that needs what earlier steps have made. What has
// vanished since is made again:
//
//   - A network. Another task's removal may have taken one to which no container was
//     attached.
//   - The image. Somebody may have removed all images that no container uses, or pulled
//     the same name for another platform.
//
// The engine itself makes a volume again when it creates the container. Start makes the
// container itself again.
func (c *controller) repaired(ctx context.Context, call func(context.Context) error) error {
	for repairs := 0; ; repairs++ {
		err := c.detached(ctx, call)
		if repairs == mostRepairs {
			return err
		}
		logger := log.G(c.adapter.logContext(ctx)).WithError(err)
		switch cause := errors.Cause(err); {
		case isNetworkVanished(cause):
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
