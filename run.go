package dockerexec

import (
	"context"
	stderrors "errors"
	"io"
	"sync"
	"time"

	"github.com/docker/docker/api/types/container"
	gogotypes "github.com/gogo/protobuf/types"
	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/moby/swarmkit/v2/api"
	"github.com/moby/swarmkit/v2/log"
	"github.com/pkg/errors"
)

// RunOptions are the options of [Engine.Run]. The zero value is ready for use.
type RunOptions struct {
	// Node describes the node for templates, as for [Engine.Adapter]. It may be nil.
	Node *api.NodeDescription
	// Deps hands out secrets and configs, as for [Engine.Adapter]. It may be nil.
	Deps exec.DependencyGetter
	// Logs gets the container's log, from its first line to its last. If another process
	// has begun the task, the lines from before come again. The publisher and OnStatus may
	// be called at the same time. Run returns only after the publisher's last call has
	// returned. The publisher is called for one message at a time, also if several Runs of
	// the Engine have the same one: see [ContainerAdapter.PublishLogs]. Nil: the log is not
	// read.
	//
	// Run does not wait for ever for a log that hangs. A request for the log may bring nothing
	// for as long as [WithRequestTimeout] after the container has ended. Then the request is
	// made again, once. If the second one brings nothing either, there is a warning, and Run
	// goes on without the rest of the log.
	Logs exec.LogPublisher
	// OnStatus is called for each change of the task's state, one call after the other:
	// PREPARING, STARTING, RUNNING, and the state of the result. Nothing is removed before the
	// call for the last state has returned: so the result can be written down first. It may be
	// nil.
	OnStatus func(context.Context, api.TaskStatus)
	// KeepContainer leaves a container that has ended, with its networks and the files of
	// its secrets and configs.
	KeepContainer bool
}

// RunResult says how a task has ended. [Engine.Run] fills it on every path.
type RunResult struct {
	// State is one of these:
	//
	//   - COMPLETE: the container exited with 0.
	//   - FAILED: it exited with another code, was unhealthy, or nobody knows how it ended:
	//     it was removed, or the engine has lost its start.
	//   - REJECTED: the container was never started.
	//   - SHUTDOWN: the caller's context ended first. If Started is zero, nobody
	//     knows of a start.
	State    api.TaskState
	ExitCode int // 0 also if the container did not end; a failed start may leave a code such as 127
	// OOMKilled: the kernel ended a process of the container because memory ran out.
	OOMKilled bool
	// Reason says for a person how the task ended: "exit code 3", "out of memory",
	// "unhealthy", "stopped". For a task that was rejected it is the text of the error.
	Reason string
	// Started and Finished are the engine's times. Zero: the container has not started, or
	// has not ended, as far as is known.
	Started, Finished time.Time
}

// runOvertime is how long Run goes on after the end of its context and the grace period. In
// this time an engine can restart.
const runOvertime = 2 * time.Minute

// Run runs one task once, from its pull to its removal. It waits out faults that pass, such
// as an engine that is away: bound it with ctx. The container is started once. If an earlier
// process has begun the task, Run goes on from there; a container that has ended is not
// started again, its result is returned. A container that somebody removes before its start
// is made again. Do not run the same task twice at the same time.
//
// The error is nil only if the container exited with 0, as for an [os/exec.Cmd]. If the
// container exited with another code, Run returns the error of [ExitError], which is an
// [exec.ExitCoder]. The error of a task that never started says why. Run does not change
// the task.
//
// When ctx ends, Run stops the container within its grace period, and returns the error of
// ctx. But if the container then exits with another code than 0, Run returns an exit error
// whose cause is the error of ctx. A container that had ended before keeps its own result.
//
// At its end, Run removes the container, its anonymous volumes, its networks and the files
// of its secrets and configs. Named volumes and the image stay. After the end of ctx all of
// this may take the grace period and two minutes more. What is left then, or cannot be
// removed, is named in the error, beside the error of the task: errors.As finds both.
//
// After its return, Run has no background work, with one exception: a call to the engine
// that has no answer yet goes on until [WithRequestTimeout]. Run is safe for concurrent use.
func (e *Engine) Run(ctx context.Context, task *api.Task, o RunOptions) (RunResult, error) {
	r := &run{options: o}
	adapter, err := e.controllersAdapter(o.Node, task, o.Deps)
	if err != nil {
		r.result = RunResult{State: api.TaskStateRejected, Reason: err.Error()}
		r.say(ctx, nil, err)
		return r.result, err
	}
	// From PREPARING on, a controller first looks for what an earlier process has made.
	state := max(task.Status.State, api.TaskStatePreparing)
	if state > api.TaskStateRunning {
		state = api.TaskStatePreparing
	}
	r.adapter, r.controller = adapter, newController(adapter, state)
	defer r.controller.looks.Wait()
	defer r.controller.Close()

	overtime := runOvertime
	if grace := adapter.grace(); grace > 0 {
		overtime += grace
	}
	longer, cancel := outlive(ctx, overtime)
	defer cancel()
	// The context of the caller's functions ends earlier: the rest of the time is for the removal.
	callers, cancelCallers := outlive(ctx, overtime-runOvertime/2)
	defer cancelCallers()
	err = r.live(ctx, longer, callers)
	if o.KeepContainer && r.ended {
		return r.result, err
	}
	if removeErr := r.repeat(longer, r.controller.Remove); removeErr != nil {
		if longer.Err() != nil {
			removeErr = errors.Errorf("not removed within %v after the end of the context", overtime)
		}
		left := errors.Wrapf(removeErr, "container %s, its networks or the files of its secrets may be left on the engine", adapter.name)
		err = stderrors.Join(err, left)
	}
	return r.result, err
}

// outlive returns a context that ends at the time d after the end of ctx.
func outlive(ctx context.Context, d time.Duration) (longer context.Context, cancel context.CancelFunc) {
	longer, end := context.WithCancelCause(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		timer := time.AfterFunc(d, func() { end(context.DeadlineExceeded) })
		context.AfterFunc(longer, func() { timer.Stop() })
	})
	return longer, func() { stop(); end(nil) }
}

// run is one call of Engine.Run.
type run struct {
	options    RunOptions
	adapter    *ContainerAdapter
	controller *controller
	result     RunResult
	ended      bool // the container has ended
}

// live takes the task to its end, and fills the result. longer and callers end later than
// ctx; callers is for the caller's functions.
func (r *run) live(ctx, longer, callers context.Context) error {
	endLog := func(bool) {}
	err := r.steps(ctx, func() { endLog(false); endLog = r.followLog(callers) })
	stopped := err != nil && err == ctx.Err() //nolint:errorlint // bare
	if stopped {
		stopped, err = r.stop(ctx, longer)
	}
	answer := r.look(longer)
	if answer != nil {
		r.ended = hasEnded(*answer)
		r.result.Started, r.result.Finished = timeOf(answer.State.StartedAt), timeOf(answer.State.FinishedAt)
		r.result.ExitCode, r.result.OOMKilled = answer.State.ExitCode, answer.State.OOMKilled
	}
	r.conclude(answer, stopped, err)
	if stopped && answer != nil && hasEnded(*answer) && answer.State.ExitCode != 0 {
		err = ExitError(*answer, ctx.Err())
	}
	endLog(answer != nil && hasEnded(*answer))
	r.say(callers, answer, err)
	return err
}

// steps takes the task from its pull to its end. It calls beforeStart before each start of
// the container.
func (r *run) steps(ctx context.Context, beforeStart func()) error {
	r.result.State = api.TaskStatePreparing
	r.say(ctx, nil, nil)
	if err := r.repeat(ctx, r.controller.Prepare); err != nil && err != exec.ErrTaskPrepared { //nolint:errorlint // bare
		return err
	}
	r.result.State = api.TaskStateStarting
	r.say(ctx, nil, nil)
	beforeStart()
	r.controller.remade = beforeStart
	if err := r.repeat(ctx, r.controller.Start); err != nil && err != exec.ErrTaskStarted { //nolint:errorlint // bare
		return err
	}
	r.result.State = api.TaskStateRunning
	r.say(ctx, nil, nil)
	return r.repeat(ctx, r.controller.Wait)
}

// stop stops the container because ctx has ended. If the container has ended by itself
// before, stopped is false, and err is the result of Wait. Otherwise err is the error of
// ctx.
func (r *run) stop(ctx, longer context.Context) (stopped bool, err error) {
	if answer := r.look(longer); answer != nil && hasEnded(*answer) {
		return false, r.repeat(longer, r.controller.Wait)
	}
	if err := r.repeat(longer, r.controller.Shutdown); err != nil {
		log.G(r.adapter.logContext(ctx)).WithError(err).Debug("container not stopped, its removal kills it")
	}
	return true, ctx.Err()
}

// repeat makes one step of the task. While the step fails with a temporary error, repeat
// makes it again.
func (r *run) repeat(ctx context.Context, step func(context.Context) error) error {
	var pauses backoff
	for warned := false; ; warned = true {
		err := step(ctx)
		if err == nil || !exec.IsTemporary(err) {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if !warned {
			log.G(r.adapter.logContext(ctx)).WithError(err).Warn("the task waits for the engine")
			defer r.adapter.waits(ctx, waitEngine)()
		}
		if err := sleep(ctx, pauses.next()); err != nil {
			return err
		}
	}
}

// look inspects the container. It returns nil if the task has no container, or if the
// engine does not show it.
func (r *run) look(ctx context.Context) *container.InspectResponse {
	var answer container.InspectResponse
	err := r.repeat(ctx, func(ctx context.Context) (err error) {
		if answer, err = r.adapter.Inspect(ctx); err != nil && !isContainerGone(err) {
			err = tryAgain(ctx, err)
		}
		return err
	})
	if err != nil || r.adapter.checkOwner(answer) != nil {
		return nil
	}
	return &answer
}

// conclude fills in how the task has ended. answer is the last look at its container; err
// is the error of its last step.
func (r *run) conclude(answer *container.InspectResponse, stopped bool, err error) {
	var exit *exitError // not any exec.ExitCoder: the error of a hook may be one
	isExit := stderrors.As(err, &exit)
	if isExit {
		r.result.ExitCode = exit.code
	}
	switch {
	case stopped:
		r.result.State, r.result.Reason = api.TaskStateShutdown, "stopped"
	case err == nil:
		r.result.State, r.result.Reason = api.TaskStateCompleted, "exit code 0"
	case stderrors.Is(err, ErrContainerDestroyed):
		r.result.State, r.result.Reason = api.TaskStateFailed, "the container was removed: nobody knows how it ended"
	case stderrors.Is(err, ErrContainerUnhealthy):
		r.result.State, r.result.Reason = api.TaskStateFailed, "unhealthy"
	case stderrors.Is(err, errUnseenRun):
		r.result.State, r.result.Reason = api.TaskStateFailed, errUnseenRun.Error()
	case isExit:
		r.result.State, r.result.Reason = api.TaskStateFailed, exit.reason()
	case isLostStart(err): // the program may have run, or may yet
		r.result.State, r.result.Reason = api.TaskStateFailed, err.Error()
	case !r.adapter.isStarted.Load() && r.result.State < api.TaskStateRunning && (answer == nil || isUnstarted(*answer)):
		r.result.State, r.result.Reason = api.TaskStateRejected, err.Error()
	default:
		r.result.State, r.result.Reason = api.TaskStateFailed, err.Error()
	}
}

// statusMessages are the words of SwarmKit's agent for the states of a task.
var statusMessages = map[api.TaskState]string{
	api.TaskStatePreparing: "preparing", api.TaskStateStarting: "starting", api.TaskStateRunning: "started",
	api.TaskStateCompleted: "finished", api.TaskStateFailed: "failed", api.TaskStateRejected: "rejected", api.TaskStateShutdown: "shutdown",
}

// say reports the state of the task to the caller.
func (r *run) say(ctx context.Context, answer *container.InspectResponse, err error) {
	if r.options.OnStatus == nil {
		return
	}
	status := api.TaskStatus{State: r.result.State, Message: statusMessages[r.result.State], Timestamp: gogotypes.TimestampNow()}
	if err != nil {
		status.Err = err.Error()
	}
	if answer != nil {
		status.RuntimeStatus = &api.TaskStatus_Container{Container: containerStatus(*answer)}
	}
	r.options.OnStatus(ctx, status)
}

// followLog begins to publish the container's log. end returns once the publishing has
// ended. If wait is set, end waits for the log's last line; otherwise it cancels the
// publishing.
func (r *run) followLog(ctx context.Context) (end func(wait bool)) {
	if r.options.Logs == nil {
		return func(bool) {}
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	target := &runLog{ContainerAdapter: r.adapter}
	go func() {
		defer close(done)
		err := r.adapter.publishLogsOf(ctx, target, api.LogSubscriptionOptions{Follow: true}, r.options.Logs)
		if err != nil && ctx.Err() == nil {
			log.G(r.adapter.logContext(ctx)).WithError(err).Warn("the log of the container is not read to its end")
		}
	}()
	return func(wait bool) {
		if wait {
			target.awaitEnd(done, r.adapter.engine.options.requestTimeout)
		}
		cancel()
		<-done
	}
}

// runLog is the container's log, as one Run reads it. No time-out applies to a request for a
// log, because a container may be silent for days. But once the container has ended, the
// engine has no reason to be silent.
type runLog struct {
	*ContainerAdapter

	mu    sync.Mutex
	since time.Time               // since when a request, or a read of its answer, has brought nothing; zero: none is under way
	cut   context.CancelCauseFunc // cuts it
	cuts  int                     // how many requests were cut
}

// awaitEnd waits until the publishing is done. The container has ended. A request that brings
// nothing for as long as the time-out is cut, once: then the log goes on with a new request.
// When that happens a second time, the publishing fails. 0 is no time-out.
func (l *runLog) awaitEnd(done <-chan struct{}, timeout time.Duration) {
	if timeout == 0 {
		<-done
		return
	}
	for ended := time.Now(); ; {
		select {
		case <-done:
			return
		case <-time.After(timeout / 4):
		}
		l.mu.Lock()
		if !l.since.IsZero() && time.Since(l.since) >= timeout && time.Since(ended) >= timeout {
			var err error = requestTimeoutError(timeout)
			if l.cuts++; l.cuts == 2 {
				err = errors.Errorf("the engine has sent nothing for %v, twice", timeout)
			}
			l.cut(err)
			l.since = time.Time{}
		}
		l.mu.Unlock()
	}
}

func (l *runLog) waits(cut context.CancelCauseFunc) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.since, l.cut = time.Now(), cut
}

// got notes that the engine has answered, or that err has ended the request whose context is
// ctx. If the request was cut, got returns the reason.
func (l *runLog) got(ctx context.Context, err error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.since = time.Time{}
	if cause := context.Cause(ctx); err != nil && cause != nil && cause != ctx.Err() { //nolint:errorlint // the same value
		return cause
	}
	return err
}

func (l *runLog) openLogs(ctx context.Context, nameOrID string, options container.LogsOptions) (io.ReadCloser, error) {
	ctx, cut := context.WithCancelCause(ctx)
	l.waits(cut)
	body, err := l.ContainerAdapter.openLogs(ctx, nameOrID, options)
	if err = l.got(ctx, err); err != nil || body == nil {
		cut(nil)
		return body, err
	}
	context.AfterFunc(ctx, func() { body.Close() }) // so that a blocked read ends
	return &runLogBody{body, ctx, cut, l}, nil
}

// runLogBody is an answer with a log.
type runLogBody struct {
	io.ReadCloser
	ctx context.Context // of its request
	cut context.CancelCauseFunc
	log *runLog
}

func (b *runLogBody) Read(p []byte) (int, error) {
	b.log.waits(b.cut)
	n, err := b.ReadCloser.Read(p)
	return n, b.log.got(b.ctx, err)
}

func (b *runLogBody) Close() error {
	defer b.cut(nil)
	return b.ReadCloser.Close()
}

// timeOf reads a time in an engine's answer. It is zero if the time is not set.
func timeOf(text string) time.Time {
	if set, _ := isSet(text); !set {
		return time.Time{}
	}
	t, _ := time.Parse(time.RFC3339Nano, text) // isSet has parsed it
	return t
}
