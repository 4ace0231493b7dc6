package dockerexec

import (
	"context"
	"fmt"

	"github.com/docker/docker/api/types/container"
	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/moby/swarmkit/v2/api"
	"github.com/pkg/errors"
)

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
