package dockerexec

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/moby/swarmkit/v2/api"
)

// controller runs one task for SwarmKit's agent. Every method may be called at any
// time, from several goroutines, and again after it failed. In a new process, which
// takes over tasks, any method may be the first.
//
// Each method runs with its caller's context. Close ends all methods early. Remove,
// Shutdown and Terminate end some methods early: see run. Only a detached call, which makes
// something on the engine, outlives its caller's context. It is never given up half-way:
// the engine would carry it out all the same, and a Remove in the meantime would miss the
// result. lock and waitIdle wait for a detached call.
type controller struct {
	adapter *ContainerAdapter
	busy    chan struct{} // full while a detached call or a Remove runs; see lock
	remade  func()        // Start calls it when it has made the container again; nil: nothing is called

	looks       sync.WaitGroup // those of endStray
	failedStops atomic.Int32   // those after which the agent is to call again

	mu              sync.Mutex
	operations      map[*operation]struct{} // the calls that run now
	closed          bool
	removed         bool // Remove was called: nothing is made any more
	mayExist        bool // a container of the task may exist
	mayHaveRun      bool // an earlier process may have started a container of the task
	ownershipProven bool // the container with the task's name is certainly the task's
	unhealthy       bool // the container was unhealthy and must be stopped
	ended           bool // the container has ended, as last seen: Remove need not stop it
	checksStopped   bool // the engine no longer runs the container's health checks, and a warning has said so

	lasting *api.ContainerStatus // of a container that was created and not started, or has ended; nil: the engine must be asked
	ports   *api.PortStatus      // as last seen
	portsAt time.Time            // when they were read, or a time-out prevented that; zero: the next PortStatus must ask the engine
}

var (
	_ exec.Controller        = (*controller)(nil)
	_ exec.ControllerLogs    = (*controller)(nil)
	_ exec.ContainerStatuser = (*controller)(nil)
	_ exec.PortStatuser      = (*controller)(nil)
)

// startMayBeLost reports whether an earlier process may have sent a start of the task
// without an answer. state is the state that the task has reached.
func startMayBeLost(state api.TaskState) bool {
	return state >= api.TaskStateStarting && state < api.TaskStateCompleted
}

// newController makes the controller of the adapter's task. state is the state that the
// task has reached.
func newController(adapter *ContainerAdapter, state api.TaskState) *controller {
	adapter.startLost.Store(startMayBeLost(state))
	adapter.engine.tasks.enter(adapter.taskID)
	return &controller{
		adapter:    adapter,
		busy:       make(chan struct{}, 1),
		operations: map[*operation]struct{}{},
		mayExist:   state >= api.TaskStatePreparing,
		mayHaveRun: state >= api.TaskStateStarting,
	}
}

// operation is a call of a method that runs now.
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

// run calls do, an operation of the given kind. It hands do a context that ends with ctx.
// That context also ends early when Close, Remove, Shutdown or Terminate ends operations
// of this kind. Then the error is the bare error of ctx if ctx has ended; otherwise
// [exec.ErrControllerClosed] after Close, and context.Canceled after the others.
//
// After Close, run refuses every operation. After Remove, it refuses the kinds opMaking
// and opWaiting. The error of a refusal is [exec.ErrControllerClosed].
//
// The call is measured as the method m; nil: it is not measured.
func (c *controller) run(ctx context.Context, kind operationKind, m *method, do func(context.Context) error) (err error) {
	if m != nil {
		var end func(*error)
		ctx, end = c.adapter.begin(ctx, m)
		defer end(&err)
	}
	opCtx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	op := &operation{kind: kind, cancel: cancel}
	if err := c.enter(op); err != nil {
		return err
	}
	defer c.leave(op)
	err = opCtx.Err()
	if err == nil && kind != opAsking {
		err = c.adapter.engine.tasks.await(opCtx, c.adapter.taskID)
	}
	if err == nil {
		err = do(opCtx)
	}
	switch {
	case opCtx.Err() == nil, err != context.Canceled && err != context.DeadlineExceeded: //nolint:errorlint // the end of a context is bare; all else is an answer
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

// interruptLocked ends the operations of all kinds up to last. They return cause.
func (c *controller) interruptLocked(last operationKind, cause error) {
	for op := range c.operations {
		if op.kind <= last {
			op.cancel(cause)
		}
	}
}

// Update does nothing: the controller uses the task's spec, and that never changes.
func (c *controller) Update(ctx context.Context, _ *api.Task) error {
	return c.run(ctx, opAsking, nil, func(context.Context) error { return nil })
}

// Wait waits until the container has ended. It returns nil if the container exited with
// 0. Otherwise the error is that of [ExitError], with the exit code and the status. An
// unhealthy container is stopped; then [ErrContainerUnhealthy] is the cause of the
// error. It is also the cause if the container ended with its last checks failed. If
// the container is gone or is being removed, the error is [ErrContainerDestroyed]. An
// engine that is away does not end Wait. If an inspect fails with an error that says
// nothing about the container, Wait inspects again. A refusal of the inspect ends Wait.
func (c *controller) Wait(ctx context.Context) error {
	return c.run(ctx, opWaiting, nil, func(ctx context.Context) error {
		defer c.adapter.waits(ctx, waitExit)()
		answer, err := c.watch(ctx, c.markUnhealthy)
		if err == nil {
			err = c.finish(ctx, answer)
		}
		c.adapter.noteEnd(ctx, endCauseOf(err))
		return err
	})
}

// watch waits until the container has ended, or until done reports true for a container
// that has not ended. The errors are those of Wait.
//
// An error of watch ends the task, and SwarmKit stops no container of a task that has
// ended. So watch ends only with an answer which shows that the container has ended, is
// gone or is not the task's; with a refusal; or with ctx. After any other answer or error
// it asks again.
func (c *controller) watch(ctx context.Context, done func(container.InspectResponse) bool) (container.InspectResponse, error) {
	var checks checkRecord
	began := time.Now()
	mayRepeat := func(err error) bool {
		checks.forget() // nobody knows whether checks run meanwhile
		return tellsNothing(err)
	}
	return c.adapter.watch(ctx, mayRepeat, func(answer container.InspectResponse) (bool, error) {
		if err := c.adapter.checkOwner(answer); err != nil {
			return false, err
		}
		if ended, err := atEnd(answer); ended || err != nil {
			return ended, err
		}
		c.setLasting(nil) // perhaps somebody has started it again
		c.noteChecks(ctx, &checks, answer, time.Since(began)-c.adapter.engine.stream.awayTime())
		return done(answer), nil
	})
}

// Logs publishes the container's log; see [ContainerAdapter.PublishLogs]. It ends with
// ctx and with Close. If there is no container, it publishes nothing and returns nil: a
// service's log is requested of all its tasks, and SwarmKit would take an error for a
// failure.
func (c *controller) Logs(ctx context.Context, publisher exec.LogPublisher, options api.LogSubscriptionOptions) error {
	return c.run(ctx, opAsking, nil, func(ctx context.Context) error {
		err := c.adapter.PublishLogs(ctx, options, publisher)
		if isContainerGone(err) {
			return nil
		}
		return err
	})
}

// Close ends all calls that run. From then on every other method returns
// [exec.ErrControllerClosed]. It may be called again. The container is left alone: a
// new controller of the task finds it.
func (c *controller) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closed {
		c.adapter.engine.tasks.leave(c.adapter.taskID)
	}
	c.closed = true
	c.interruptLocked(opAsking, exec.ErrControllerClosed)
	return nil
}

// detached makes one call that makes something on the engine. If ctx ends, detached
// returns at once and the call goes on, within the request time-out of each engine
// call. Methods that use lock or waitIdle then wait for it. If Remove is called before
// the call ends, the call's result is removed here, because that Remove may have given
// up waiting.
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
		// Send err only after undo. Otherwise the caller could call Remove before undo
		// looks, and undo would remove the container without a stop.
		ended <- err
	}()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// lock waits for the detached call or the Remove that runs, and keeps others from
// beginning. The caller must call unlock.
func (c *controller) lock(ctx context.Context) error {
	select {
	case c.busy <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	if ctx.Err() != nil { // the lock and the end of ctx came together
		c.unlock()
		return ctx.Err()
	}
	return nil
}

func (c *controller) unlock() { <-c.busy }

// waitIdle waits for the detached call or the Remove that runs, if any.
func (c *controller) waitIdle(ctx context.Context) error {
	if err := c.lock(ctx); err != nil {
		return err
	}
	c.unlock()
	return nil
}
