package dockerexec

import (
	"cmp"
	"context"
	stderrors "errors"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/moby/swarmkit/v2/log"
	"github.com/pkg/errors"
)

// Start starts the container, once. Before the start, it writes the files of secrets and
// configs that are missing. It fails if the last Create found the name taken by a container
// that is not this task's.
//
// A container that has been started is not started again, whether it runs or has ended.
// If this adapter has sent the start of the container, Start returns nil, also if that start
// got no answer. If an earlier process has sent it, Start returns [exec.ErrTaskStarted],
// bare. Start inspects the container first in two cases only: the last Create returned
// [exec.ErrTaskPrepared], or this adapter has already sent a start. So, in a second
// process, call Create before Start: otherwise Start would send the start again. A start
// that the engine refused does not count: the next Start sends it again.
//
// If the engine ends within a start, the container may run without network and log. It is
// stopped then, and the error says so.
func (a *ContainerAdapter) Start(ctx context.Context) (err error) {
	ctx, end := a.begin(ctx, methodStart)
	defer end(&err)
	if _, _, err := a.ready(ctx); err != nil {
		return err
	}
	starts := a.starts.Load()
	if a.isPrepared.Load() || a.isStarted.Load() {
		if mayStart, err := a.lookBeforeStart(ctx); !mayStart {
			return err
		}
	}
	return a.resolveStart(ctx, a.sendStart(ctx, starts), a.Shutdown)
}

// lookBeforeStart reports whether a start may be sent. If not, err is the result of Start.
func (a *ContainerAdapter) lookBeforeStart(ctx context.Context) (mayStart bool, err error) {
	answer, err := a.Inspect(ctx)
	switch {
	case isContainerGone(err):
		return true, nil // the answer to the start says so
	case err != nil:
		return false, err
	case a.checkOwner(answer) != nil:
		return false, a.checkOwner(answer)
	case runsUnknownToEngine(answer):
		return false, a.endLostStart(ctx, a.Shutdown)
	case isUnstarted(answer):
		return true, nil
	case a.isStarted.Load():
		return false, nil
	default:
		return false, exec.ErrTaskStarted
	}
}

// resolveStart returns the error of a start that ended with err. If err says that the engine
// lost an earlier start, resolveStart waits until it is known whether the container runs. If
// the container runs, resolveStart stops it with stop.
func (a *ContainerAdapter) resolveStart(ctx context.Context, err error, stop func(context.Context) error) error {
	if !isLostStart(err) {
		return err
	}
	stray, awaitErr := a.awaitLostStart(ctx)
	switch {
	case awaitErr != nil:
		return awaitErr
	case stray != nil:
		return a.endLostStart(ctx, stop)
	}
	return err
}

// sendStart sends one start request. It notes whether the start may be lost. starts is the
// value of a.starts from before the caller looked at the container. If a.starts has grown
// since, sendStart looks at the container again.
func (a *ContainerAdapter) sendStart(ctx context.Context, starts int64) error {
	config, _, err := a.ready(ctx)
	if err != nil {
		return err
	}
	if err := passGate(ctx, a.starting, a.engine.options.requestTimeout); err != nil {
		return engineError(ctx, err, "start container %s: another call to start it comes first", a.name)
	}
	defer leaveGate(a.starting)
	if a.starts.Load() != starts {
		if mayStart, err := a.lookBeforeStart(ctx); !mayStart {
			return err
		}
	}
	if a.nameTaken.Load() {
		return errors.Errorf("start container %s: a container that is not this task's has its name; create it first", a.name)
	}
	if err := a.provideMissing(ctx, config.files); err != nil {
		return err
	}
	sent := false
	var refusal error // of the hook
	err = a.onContainer(ctx, func(nameOrID string) error {
		return do(ctx, a, 0, func(ctx context.Context) error {
			var options container.StartOptions
			if hook := a.engine.options.startHook; hook != nil {
				if refusal = hook(ctx, config.task.Copy(), &options); refusal != nil {
					return cmp.Or(ctx.Err(), errHook)
				}
			}
			sent = true
			a.startedAt.Store(nil)
			return a.engine.client.ContainerStart(ctx, nameOrID, options)
		})
	})
	if stderrors.Is(err, errHook) {
		return hookError{"start container " + a.name + ": the start hook failed", a.hide(refusal)}
	}
	if sent {
		defer a.starts.Add(1) // after the switch has noted the result
	}
	switch {
	case err == nil:
		a.engine.telemetry.starts.Add(ctx, 1)
		a.isStarted.Store(true)
		a.startLost.Store(false)
		a.forgetStop(nil) // a stop was for an earlier run
	case sent && mayBeDone(ctx, err):
		a.isStarted.Store(true)
		a.startLost.Store(true)
	case isLostStart(err):
		a.startLost.Store(true)
	case sent && err != nil && !isAnswer(err):
		a.isStarted.Store(true) // the answer cannot be read: the container may have been started
	case IsUnknownContainer(err):
		_ = a.removeFiles() // the start's error counts
	}
	return engineError(ctx, a.explain(err, config.files), "start container %s", a.name)
}

// A start is lost if the engine ends after it has asked containerd for the process, and before
// it has noted that the process runs. After its restart the engine shows a container that was
// created and never started. Later, containerd's shim may deliver its event that the process has
// started. From then on the engine shows the container as running, without StartedAt and log.

// lostStartTime is how long a container that may have been started is watched. The shim
// sends its event up to five more times, 1, 2, 3, 4 and 5 seconds apart: 15 seconds in
// all.
const lostStartTime = 20 * time.Second

// awaitLostStart waits until it is certain what became of a start that may be lost, for
// at most lostStartTime. stray is the container, if it runs; otherwise nil. If no start may be
// lost, awaitLostStart makes no request.
func (a *ContainerAdapter) awaitLostStart(ctx context.Context) (stray *container.InspectResponse, err error) {
	for began := time.Now(); a.startLost.Load(); {
		answer, err := a.Inspect(ctx)
		switch {
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case isContainerGone(err):
			a.startLost.Store(false)
		case err != nil:
			return nil, tryAgain(ctx, err)
		case !isUnstarted(answer):
			a.startLost.Store(false)
			if hasEnded(answer) {
				return nil, nil
			}
			return &answer, nil
		case time.Since(began) >= lostStartTime:
			a.startLost.Store(false)
		default:
			if err := sleep(ctx, time.Second); err != nil {
				return nil, err
			}
		}
	}
	return nil, nil
}

// endLostStart stops a container whose start was lost. If the stop fails, it returns the
// error of the stop. Otherwise it returns an error which says that the start has failed.
func (a *ContainerAdapter) endLostStart(ctx context.Context, stop func(context.Context) error) error {
	log.G(a.logContext(ctx)).Debug("a container whose start was lost runs, stopping it")
	if err := stop(ctx); err != nil {
		return err
	}
	a.noteEnd(ctx, endLost)
	return errors.Errorf("start container %s: the engine ended within it; the container ran without network and log, and was stopped", a.name)
}
