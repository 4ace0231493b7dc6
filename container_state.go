package dockerexec

import (
	"context"
	"fmt"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/moby/swarmkit/v2/api"
	"github.com/pkg/errors"
)

// hasEnded reports whether the container has run and will not run on.
//
// An engine that was killed within a start and takes the container up when it is
// back has not seen when that was. Such a container is running while it runs,
// and then created again, with the time of its end, which no other created
// container has: a start that failed leaves an exit code and an error, and no
// time (seen of 20.10 and 29).
func hasEnded(answer container.InspectResponse) bool {
	switch answer.State.Status {
	case container.StateExited, container.StateDead:
		return true
	case container.StateCreated:
		come, _ := isSet(answer.State.FinishedAt)
		return come
	default: // running, paused, restarting, removing
		return false
	}
}

// isUnstarted reports whether the container has yet to be started. One whose
// start failed is, too.
func isUnstarted(answer container.InspectResponse) bool {
	return answer.State.Status == container.StateCreated && !hasEnded(answer)
}

// atEnd is what a watch looks for that waits for the end of the container: see
// [ContainerAdapter.Wait].
func atEnd(answer container.InspectResponse) (bool, error) {
	if answer.State.Status == container.StateRemoving {
		return false, ErrContainerDestroyed
	}
	return hasEnded(answer), nil
}

// isSet reports whether an engine's time has come: it has the zero time, in
// whatever zone, for one that has not. What is no time at all, as fakes leave it, is
// not known.
func isSet(text string) (come, known bool) {
	t, err := time.Parse(time.RFC3339Nano, text)
	return err == nil && t.Year() > 1, err == nil
}

// runsUnknownToEngine reports whether the container runs although the engine does not know
// that it was started.
func runsUnknownToEngine(answer container.InspectResponse) bool {
	started, known := isSet(answer.State.StartedAt)
	return answer.State.Status == container.StateRunning && known && !started
}

// hasHealthcheck reports whether the engine checks the container's health: a
// check of the image counts, and the task may have turned that off.
func hasHealthcheck(answer container.InspectResponse) bool {
	if answer.Config == nil || answer.Config.Healthcheck == nil {
		return false
	}
	test := answer.Config.Healthcheck.Test
	return len(test) > 0 && test[0] != "NONE"
}

// isHealthy reports whether the container runs and is healthy, or not checked.
func isHealthy(answer container.InspectResponse) bool {
	health := answer.State.Health
	return answer.State.Status == container.StateRunning &&
		(health == nil || health.Status != container.Starting && health.Status != container.Unhealthy)
}

// defaultRetries is how often a check fails, for engines, before the container
// is unhealthy, where neither task nor image says.
const defaultRetries = 3

// failedChecks reports whether the container is unhealthy because its checks
// failed, or was when it ended.
//
// Its status alone does not say so. Engines call a container unhealthy, "for
// compatibility", whenever they do not check it: while it is paused, afterwards
// until the next check, and once it has ended. They keep how many checks have
// failed in a row (seen of 20.10 and 29). Whoever has no log of the checks, not
// even an empty one, is no such engine; then the status is all there is.
func failedChecks(answer container.InspectResponse) bool {
	health := answer.State.Health
	if health == nil || health.Status != container.Unhealthy {
		return false
	}
	retries := defaultRetries
	if answer.Config != nil && answer.Config.Healthcheck != nil && answer.Config.Healthcheck.Retries > 0 {
		retries = answer.Config.Healthcheck.Retries
	}
	return health.Log == nil || health.FailingStreak >= retries
}

// ExitError returns the error that a SwarmKit controller's Wait reports for a
// container that has ended: nil if it exited with 0 and the engine reports no
// error of its own. The error implements [exec.ExitCoder] and
// [exec.ContainerStatuser]; return it unwrapped, because SwarmKit's agent looks no
// deeper.
//
// cause, which may be nil, is what errors.Is and errors.Cause find behind the error,
// such as [ErrContainerUnhealthy]. With a cause the error is never nil, whatever the
// code. An answer without a state, which does not say how the container ended, is an
// error without a code.
func ExitError(ended container.InspectResponse, cause error) error {
	if ended.ContainerJSONBase == nil || ended.State == nil {
		return errors.New("dockerexec: the engine's answer about the container has no state")
	}
	if cause == nil && ended.State.Error != "" {
		cause = errors.New(ended.State.Error)
	}
	if cause == nil && ended.State.ExitCode == 0 {
		return nil
	}
	return &exitError{code: ended.State.ExitCode, cause: cause, status: containerStatus(ended)}
}

// exitError is how a task that failed says with which code and why.
type exitError struct {
	code   int
	cause  error
	status *api.ContainerStatus
}

var (
	_ exec.ExitCoder         = (*exitError)(nil)
	_ exec.ContainerStatuser = (*exitError)(nil)
)

func (e *exitError) Error() string {
	if e.cause != nil {
		return fmt.Sprintf("task: non-zero exit (%d): %v", e.code, e.cause)
	}
	return fmt.Sprintf("task: non-zero exit (%d)", e.code)
}

// ExitCode returns the container's exit code.
func (e *exitError) ExitCode() int { return e.code }

// ContainerStatus returns what the container was when it had ended, which SwarmKit's
// agent then need not ask for.
func (e *exitError) ContainerStatus(context.Context) (*api.ContainerStatus, error) {
	return e.status.Copy(), nil
}

// Cause serves [errors.Cause], which SwarmKit's agent uses.
func (e *exitError) Cause() error { return e.cause }

// Unwrap serves the standard library's errors.Is and errors.As.
func (e *exitError) Unwrap() error { return e.cause }

func idOf(answer container.InspectResponse) string {
	if answer.ContainerJSONBase == nil {
		return ""
	}
	return answer.ID
}

// shortID is an engine's ID as its command line shows it.
func shortID(id string) string {
	if id == "" {
		return "of unknown ID"
	}
	return id[:min(len(id), 12)]
}

func containerStatus(answer container.InspectResponse) *api.ContainerStatus {
	return &api.ContainerStatus{
		ContainerID: answer.ID,
		PID:         int32(answer.State.Pid),
		ExitCode:    int32(answer.State.ExitCode),
	}
}
