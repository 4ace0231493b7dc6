package dockerexec

import (
	"context"
	"sync"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/moby/swarmkit/v2/log"
	"github.com/pkg/errors"
)

// defaultGrace is how long an engine waits before it kills a container, if neither the
// task nor the image sets a time.
const defaultGrace = 10 * time.Second

// killDelay is the time from the end of the grace period to the kill, if a stop has no answer.
const killDelay = 2 * time.Second

// Shutdown stops the container. The engine kills it after the task's grace period,
// rounded up to whole seconds. If the task sets none, the engine uses that of the image,
// or its own default. Podman 4.3 has no default: there it is ten seconds. A container that
// is gone or does not run is no error.
//
// Shutdown may be called again, also while it runs: the container gets one stop signal. If
// a stop may have reached the container, the next call sends no second one. It inspects the
// container until the container has ended. Two seconds after the grace period, Shutdown
// kills the container. The grace period begins when the stop is sent. If the stop got no
// connection, or the answer says that the engine did nothing (400, 401, 403 or 501), the
// next call sends the stop again. If a start may be lost, Shutdown takes up to 20 seconds
// more: see [WithRequestTimeout].
func (a *ContainerAdapter) Shutdown(ctx context.Context) (err error) {
	ctx, end := a.begin(ctx, methodShutdown)
	defer end(&err)
	if a.nameTaken.Load() {
		return nil
	}
	if _, err := a.awaitLostStart(ctx); err != nil {
		return err
	}
	for {
		s, isNew := a.joinStop()
		if isNew {
			if err := a.sendStop(ctx, s); err != errNoStopAnswer { //nolint:errorlint // bare
				return err
			}
		}
		select {
		case <-s.answered:
		case <-ctx.Done():
			return ctx.Err()
		}
		if s.over {
			return nil
		}
		if s.sent.IsZero() {
			continue
		}
		if err := a.awaitStop(ctx, s); err != errOtherRun { //nolint:errorlint // bare
			return err
		}
	}
}

// stop is a stop of the container. A run of the container has at most one.
type stop struct {
	startedAt string // when the run began, as last seen before the stop; empty: not known

	// The call that sends the stop sets these, and then closes answered.
	answered chan struct{}
	sent     time.Time // zero: the stop was not sent
	seconds  *int      // the grace period that the stop names; nil: none
	over     bool      // the engine says that the container has ended

	told sync.Once // that the container is killed
}

// stops holds the stops that are under way. The adapters of one Engine share them: a task
// may have got another adapter since its stop was sent. The zero value is ready for use.
type stops struct {
	mu     sync.Mutex
	byTask map[string]*stop // by the task's ID
}

// joinStop returns the stop that is under way. If there is none, it begins one: the
// caller must send it.
func (a *ContainerAdapter) joinStop() (s *stop, isNew bool) {
	stops := &a.engine.stops
	stops.mu.Lock()
	defer stops.mu.Unlock()
	if s = stops.byTask[a.taskID]; s != nil {
		return s, false
	}
	s = &stop{answered: make(chan struct{})}
	if at := a.startedAt.Load(); at != nil {
		s.startedAt = *at
	}
	if stops.byTask == nil {
		stops.byTask = map[string]*stop{}
	}
	stops.byTask[a.taskID] = s
	return s, true
}

// forgetStop forgets the stop s, if it is still the task's: the next Shutdown sends another
// one. If s is nil, it forgets any stop: the container is new, gone, or started again.
func (a *ContainerAdapter) forgetStop(s *stop) {
	stops := &a.engine.stops
	stops.mu.Lock()
	defer stops.mu.Unlock()
	if s == nil || stops.byTask[a.taskID] == s {
		delete(stops.byTask, a.taskID)
	}
}

var (
	// errNoStopAnswer says that a stop was sent, and that the container should have
	// ended by now.
	errNoStopAnswer = errors.New("the engine has not answered the stop in time")

	// errOtherRun says that the container has been started again since its stop.
	errOtherRun = errors.New("the container has been started again")
)

// grace returns the task's grace period, or the default of engines.
func (a *ContainerAdapter) grace() time.Duration {
	if a.stopTimeout == nil {
		return defaultGrace
	}
	return time.Duration(*a.stopTimeout) * time.Second
}

// stopSeconds returns the grace period that a stop names: the task's. If the task sets none,
// a stop names none, and the container's own counts. But Podman 4.3 makes a container without
// a grace period with 0, and a stop then kills at once: there a stop names defaultGrace.
func (a *ContainerAdapter) stopSeconds(ctx context.Context, nameOrID string) (*int, error) {
	if a.stopTimeout != nil {
		return a.stopTimeout, nil
	}
	if _, err := a.engine.api.get(ctx, a.engine.options.requestTimeout); err != nil {
		return nil, a.hide(err)
	}
	own, maker := a.ownGrace.Load(), a.engine.api.madeBy()
	if own == nil && maker == madeByPodman {
		answer, err := a.inspectAs(ctx, nameOrID)
		if err != nil {
			return nil, err
		}
		own = ownGrace(answer)
	}
	if own == nil || *own != 0 || maker == madeByDocker { // there a create hook has set the 0
		return nil, nil
	}
	seconds := int(defaultGrace / time.Second)
	return &seconds, nil
}

// sendStop sends the stop s. A container that has ended or is gone is no error. sendStop
// waits for the engine's answer for the grace period and killDelay. If there is no answer
// by then, the error is errNoStopAnswer, bare.
func (a *ContainerAdapter) sendStop(ctx context.Context, s *stop) error {
	grace := a.grace()
	var connection connectionTrace
	late := false
	err := a.onContainer(ctx, func(nameOrID string) (err error) {
		if s.seconds, err = a.stopSeconds(ctx, nameOrID); err != nil {
			return err
		}
		return do(ctx, a, grace, func(ctx context.Context) error {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			s.sent = time.Now()
			limited, cancel := context.WithTimeout(connection.follow(ctx), grace+killDelay)
			defer cancel()
			err := a.engine.client.ContainerStop(limited, nameOrID, container.StopOptions{Timeout: s.seconds})
			if isContainerGone(err) {
				s.sent = time.Time{}
			}
			if late = err != nil && limited.Err() != nil && ctx.Err() == nil; late {
				return requestTimeoutError(grace + killDelay)
			}
			return err
		})
	})
	s.over = err == nil || isContainerGone(err) || IsStoppedContainer(err)
	if !s.over && (connection.failed(err) || isUndone(err)) {
		s.sent = time.Time{}
	}
	if s.over || s.sent.IsZero() {
		a.forgetStop(s)
	}
	close(s.answered)
	switch {
	case s.over:
		return nil
	case late && !s.sent.IsZero():
		return errNoStopAnswer
	}
	return engineError(ctx, err, "stop container %s", a.name)
}

// awaitStop waits until the container has ended, after the stop s was sent. Two seconds
// after the grace period, awaitStop kills the container, even if no inspect was answered.
// If the container has been started again, the error is errOtherRun, bare.
func (a *ContainerAdapter) awaitStop(ctx context.Context, s *stop) error {
	looks, tries := backoff{longest: time.Second, atLeastHalf: true}, backoff{atLeastHalf: true}
	grace := s.seconds
	for {
		answer, err := a.inspectUntilKill(ctx, s.sent, grace)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case isContainerGone(err), err == nil && (hasEnded(answer) || isUnstarted(answer)):
			a.forgetStop(s)
			return nil
		case err == nil && s.isOther(answer.State.StartedAt):
			a.forgetStop(s)
			return errOtherRun
		}
		if grace == nil && err == nil && answer.Config != nil {
			grace = answer.Config.StopTimeout
		}
		left, never := untilKill(s.sent, grace)
		if left <= 0 && !never {
			s.told.Do(func() { log.G(a.logContext(ctx)).Warn("stop not answered, the container is killed") })
			if err := a.kill(ctx); err != nil {
				return err
			}
			a.forgetStop(s)
			return nil
		}
		pauses := &looks
		if err != nil {
			pauses = &tries
			log.G(a.logContext(ctx)).WithError(err).Debug("container not inspected, trying again")
		}
		pause := pauses.next()
		if !never {
			pause = min(pause, left)
		}
		if err := sleep(ctx, pause); err != nil {
			return err
		}
	}
}

// inspectUntilKill is Inspect with a limit: the time until the kill, but at least a
// second. So an inspect that hangs delays the kill by at most a second.
func (a *ContainerAdapter) inspectUntilKill(ctx context.Context, sent time.Time, grace *int) (container.InspectResponse, error) {
	if left, never := untilKill(sent, grace); !never {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, max(left, time.Second))
		defer cancel()
	}
	return a.Inspect(ctx)
}

// untilKill returns the time that is left until the container must be killed. sent is when
// the stop was sent. seconds is the grace period; nil: defaultGrace. If the grace period is
// negative, the container is never killed.
func untilKill(sent time.Time, seconds *int) (left time.Duration, never bool) {
	grace := defaultGrace
	if seconds != nil {
		grace = time.Duration(*seconds) * time.Second
	}
	return time.Until(sent.Add(grace + killDelay)), grace < 0
}

// isOther reports whether the run that began at startedAt is another one than the run that
// was stopped. A different start time alone does not prove that: s.startedAt may be out of
// date. So startedAt must also be later than the stop.
func (s *stop) isOther(startedAt string) bool {
	began, err := time.Parse(time.RFC3339Nano, startedAt)
	return err == nil && s.startedAt != "" && s.startedAt != startedAt && began.After(s.sent)
}

// Terminate kills the container at once. A container that is gone or does not run is no
// error. If a start may be lost, Terminate takes up to 20 seconds more, as Shutdown does.
func (a *ContainerAdapter) Terminate(ctx context.Context) (err error) {
	ctx, end := a.begin(ctx, methodTerminate)
	defer end(&err)
	if a.nameTaken.Load() {
		return nil
	}
	if _, err := a.awaitLostStart(ctx); err != nil {
		return err
	}
	return a.kill(ctx)
}

func (a *ContainerAdapter) kill(ctx context.Context) error {
	err := a.onContainer(ctx, func(nameOrID string) error {
		return do(ctx, a, 0, func(ctx context.Context) error {
			return a.engine.client.ContainerKill(ctx, nameOrID, "")
		})
	})
	if isContainerGone(err) || IsStoppedContainer(err) {
		return nil
	}
	return engineError(ctx, err, "kill container %s", a.name)
}
