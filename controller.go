package dockerexec

import (
	"context"
	"sync"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/moby/swarmkit/v2/api"
	"github.com/moby/swarmkit/v2/log"
	"github.com/pkg/errors"
)

// controller runs one task for SwarmKit's agent. Every method may be called at
// any time, from several goroutines, again after it failed, and first of all in
// a new process that takes a task up again.
//
// Each method runs on its caller's context, which Close and, for some, Remove
// and Shutdown end early; see run. Nothing outlives that context but a step, a
// call that makes something on the engine: it is never given up half-way, since
// the engine would carry it out all the same, and a Remove in between would miss
// it; see step.
type controller struct {
	adapter *ContainerAdapter
	busy    chan struct{} // full while a detached call, or Remove, is at work

	mu              sync.Mutex
	operations      map[*operation]struct{} // those that run
	closed          bool
	removed         bool // Remove was called: nothing is made any more
	mayExist        bool // a container of the task may be there
	ownershipProven bool // the container under the task's name is certain to be the task's
	unhealthy       bool // the container was unhealthy, and is stopped for that
	createLost      bool // a create was not answered, and the engine may be at it
	startLost       bool // the container may run without the engine's knowledge

	ports   *api.PortStatus // as last seen
	portsAt time.Time       // when they were looked for, for the PortStatus that follows; zero: too long ago
}

var (
	_ exec.Controller        = (*controller)(nil)
	_ exec.ControllerLogs    = (*controller)(nil)
	_ exec.ContainerStatuser = (*controller)(nil)
	_ exec.PortStatuser      = (*controller)(nil)
)

// newController makes the controller of the adapter's task, which has come as
// far as state.
func newController(adapter *ContainerAdapter, state api.TaskState) *controller {
	return &controller{
		adapter:    adapter,
		busy:       make(chan struct{}, 1),
		operations: map[*operation]struct{}{},
		mayExist:   state >= api.TaskStatePreparing,
		startLost:  startMayBeLost(state),
	}
}

// operation is one call of a method while it runs.
type operation struct {
	kind   operationKind
	cancel context.CancelCauseFunc
}

type operationKind int

const (
	opMaking  operationKind = iota // Prepare and Start: ended by Shutdown, Terminate, Remove and Close
	opWaiting                      // Wait: ended by Remove and Close
	opAsking                       // all others: ended by Close
)

// run runs do, which is an operation of a kind, with a context that ends with
// ctx or when the operation is to end. Its error is then the bare error of ctx,
// or else [exec.ErrControllerClosed] after Close, and context.Canceled after
// Remove, Shutdown and Terminate. What begins after Close is not run, nor what would
// make something or wait after Remove: [exec.ErrControllerClosed].
func (c *controller) run(ctx context.Context, kind operationKind, do func(context.Context) error) error {
	opCtx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	op := &operation{kind: kind, cancel: cancel}
	if err := c.enter(op); err != nil {
		return err
	}
	defer c.leave(op)
	err := opCtx.Err()
	if err == nil {
		err = do(opCtx)
	}
	switch {
	case opCtx.Err() == nil, err != context.Canceled && err != context.DeadlineExceeded: //nolint:errorlint // bare, or an answer
		return err
	case ctx.Err() != nil:
		return ctx.Err()
	default:
		return context.Cause(opCtx)
	}
}

func (c *controller) enter(op *operation) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed || c.removed && op.kind != opAsking {
		return exec.ErrControllerClosed
	}
	c.operations[op] = struct{}{}
	if op.kind == opMaking {
		c.portsAt = time.Time{}
	}
	return nil
}

func (c *controller) leave(op *operation) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.operations, op)
}

// interruptLocked ends the operations of the kinds up to last.
func (c *controller) interruptLocked(last operationKind, cause error) {
	for op := range c.operations {
		if op.kind <= last {
			op.cancel(cause)
		}
	}
}

// Update does nothing: what the controller works by, the task's spec, never
// changes.
func (c *controller) Update(ctx context.Context, _ *api.Task) error {
	return c.run(ctx, opAsking, func(context.Context) error { return nil })
}

// Wait waits until the container has ended and returns nil if it exited with 0,
// else an error with its code and status, as [ExitError] makes it. A container
// that is or becomes unhealthy is stopped, and the error has
// [ErrContainerUnhealthy] as its cause; so has that of one whose last checks had
// failed when it ended. A container that is gone or is being
// removed is [ErrContainerDestroyed]. An engine that is away ends nothing, nor
// does an answer that says nothing about the container, unless it is a refusal.
func (c *controller) Wait(ctx context.Context) error {
	return c.run(ctx, opWaiting, func(ctx context.Context) error {
		answer, err := c.watch(ctx, c.markUnhealthy)
		if err != nil {
			return err
		}
		return c.finish(ctx, answer)
	})
}

// watch waits until the container has ended, or done says so of one that has
// not. The errors are those of Wait. What ends a watch ends the task, of which
// SwarmKit then stops nothing any more, so nothing ends it but what shows that
// the container does not run, and a refusal: any other answer is asked for again.
func (c *controller) watch(ctx context.Context, done func(container.InspectResponse) bool) (container.InspectResponse, error) {
	return c.adapter.watch(ctx, tellsNothing, func(answer container.InspectResponse) (bool, error) {
		if err := c.adapter.checkOwner(answer); err != nil {
			return false, err
		}
		if ended, err := atEnd(answer); ended || err != nil {
			return ended, err
		}
		return done(answer), nil
	})
}

// Logs publishes the container's log; see [ContainerAdapter.PublishLogs]. It
// ends with ctx and with Close. A container that is not there has none: a service's
// log is asked of all its tasks, and SwarmKit takes an error for a failure.
func (c *controller) Logs(ctx context.Context, publisher exec.LogPublisher, options api.LogSubscriptionOptions) error {
	return c.run(ctx, opAsking, func(ctx context.Context) error {
		err := c.adapter.PublishLogs(ctx, options, publisher)
		if isContainerGone(err) {
			return nil
		}
		return err
	})
}

// Close ends whatever runs. From then on every other method returns
// [exec.ErrControllerClosed]. It may be called again. What runs on the engine
// goes on: a new controller of the task finds it.
func (c *controller) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	c.interruptLocked(opAsking, exec.ErrControllerClosed)
	return nil
}

// detached makes one call that makes something on the engine. If ctx ends it
// returns at once, while the call goes on, within the limits that each engine
// call has; whoever comes next waits for it. A call that ends after Remove was
// called is undone here, because that Remove may have given up waiting.
func (c *controller) detached(ctx context.Context, call func(context.Context) error) error {
	if err := c.lock(ctx); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() {
		defer c.unlock()
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

// lock waits for the step that runs, if any, and keeps others from beginning.
func (c *controller) lock(ctx context.Context) error {
	select {
	case c.busy <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	if ctx.Err() != nil { // both were possible
		c.unlock()
		return ctx.Err()
	}
	return nil
}

func (c *controller) unlock() { <-c.busy }

// waitIdle waits for the step that runs, if any.
func (c *controller) waitIdle(ctx context.Context) error {
	if err := c.lock(ctx); err != nil {
		return err
	}
	c.unlock()
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

// detachedWithNetworks is detached for a call that needs the task's networks. Another
// task's removal may have taken one that no container was attached to: then
// they are made again.
func (c *controller) detachedWithNetworks(ctx context.Context, call func(context.Context) error) error {
	for repairs := 0; ; repairs++ {
		err := c.detached(ctx, call)
		if repairs == networkRepairs || !networkVanished.matches(errors.Cause(err)) {
			return err
		}
		log.G(c.adapter.logContext(ctx)).WithError(err).Debug("a network vanished, making it again")
		if err := c.detached(ctx, c.adapter.CreateNetworks); err != nil {
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
		if err := sleep(ctx, burstWindow+pauses.next()); err != nil {
			return err
		}
	}
}
