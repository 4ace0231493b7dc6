package dockerexec

import (
	"context"
	"fmt"
	"time"

	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/pkg/errors"
)

var (
	// ErrImageRequired is returned, bare, for a task that names no image.
	ErrImageRequired = errors.New("dockerexec: image required")

	// ErrContainerDestroyed is returned, bare, by Wait when the container of a
	// task is gone, is being removed, or another one has taken its name. A
	// controller's Start returns it too, while it waits for the health check.
	ErrContainerDestroyed = errors.New("dockerexec: container destroyed")

	// ErrContainerUnhealthy is the cause of the exit error of a task whose
	// health check failed: errors.Is finds it.
	ErrContainerUnhealthy = errors.New("dockerexec: unhealthy container")
)

// engineError turns the error of an engine call into what the methods of this
// package return: the bare error of a context that has ended; a temporary error,
// outermost, for a fault that will pass; any other error wrapped with what was
// being done. nil stays nil.
//
// errors.Wrap and not %w: SwarmKit's agent asks errors.Cause, which does not see
// through %w, and would take a cancelled call for a failed task.
func engineError(ctx context.Context, err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	wrapped := errors.Wrapf(err, format, args...)
	if isPassing(err) {
		return exec.MakeTemporary(wrapped)
	}
	return wrapped
}

// requestTimeoutError says that the engine did not answer in time.
type requestTimeoutError time.Duration

func (e requestTimeoutError) Error() string {
	return fmt.Sprintf("the engine did not answer within %v", time.Duration(e))
}

// Temporary has the agent try again.
func (requestTimeoutError) Temporary() bool { return true }
