package dockerexec

import (
	"context"
	stderrors "errors"
	"io"
	"math/rand/v2"
	"sync"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	engineapi "github.com/docker/docker/client"
	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/moby/swarmkit/v2/log"
	"github.com/pkg/errors"
)

const (
	// The pauses between the attempts of a pull double from the first one and
	// are spread by half, so that the engines of a cluster do not keep step.
	pullFirstPause   = time.Second
	pullLongestPause = 30 * time.Second
	// rateLimitPauses is how much longer they are after a registry's 429: it
	// counts requests over minutes.
	rateLimitPauses = 5
)

// pullResult is how a pull ended.
type pullResult struct {
	attempt, attempts int
	err               *pullError // nil: it succeeded
}

// errorFor is the result as PullImage returns it for an image of that name.
func (r pullResult) errorFor(name string) error {
	if r.err == nil {
		return nil
	}
	err := errors.Wrapf(r.err, "pull image %s, attempt %d of %d", name, r.attempt, r.attempts)
	if r.err.engine && r.err.passing {
		return exec.MakeTemporary(err)
	}
	return err
}

// pullRun does the work of one shared pull.
type pullRun struct {
	client engineapi.APIClient
	pulls  *pulls
	shared *sharedPull
	target pullTarget
	fake   bool // the client is no *client.Client: it need not say anything

	attempts int
	stall    time.Duration
	words    wording
	scrubber scrubber
}

func newPullRun(e *Engine, shared *sharedPull, target pullTarget) *pullRun {
	return &pullRun{
		client: e.client, pulls: &e.pulls, shared: shared, target: target, fake: e.api.client == nil,
		attempts: e.options.pullAttempts, stall: e.options.pullStallTimeout,
		words: newWording(target), scrubber: newScrubber(target.options.RegistryAuth),
	}
}

// run pulls until an attempt succeeds, fails for good, or was the last one. An
// attempt that stalls is the last one; see untilStalled for how long it may take.
func (r *pullRun) run(ctx context.Context) pullResult {
	started := time.Now()
	for attempt := 1; ; attempt++ {
		ctx := log.WithFields(ctx, log.Fields{"image": r.target.image, "attempt": attempt})
		err := r.once(ctx)
		result := pullResult{attempt: attempt, attempts: r.attempts, err: err}
		if err == nil {
			log.G(ctx).WithField("took", time.Since(started).Round(time.Millisecond)).Debug("image pulled")
			return result
		}
		if ctx.Err() != nil || !err.passing || attempt >= r.attempts {
			return result
		}
		pause := pullPause(attempt)
		if err.rateLimited() {
			pause *= rateLimitPauses
		}
		log.G(ctx).WithFields(log.Fields{"error": err.Error(), "pause": pause.Round(time.Millisecond)}).Debug("image pull failed: trying again")
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return result
		}
		r.shared.restart(attempt + 1)
	}
}

// pullPause is the pause after an attempt, counted from 1.
func pullPause(attempt int) time.Duration {
	pause := min(pullFirstPause<<min(attempt-1, 10), pullLongestPause)
	return pause/2 + rand.N(pause)
}

// once is one attempt.
func (r *pullRun) once(ctx context.Context) *pullError {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer r.watch(cancel)()

	body, err := r.client.ImagePull(ctx, r.target.image, r.target.options)
	if stalled := stallOf(ctx); stalled != nil && err != nil {
		return stalled
	}
	if err != nil {
		return r.words.requestError(err).scrubbed(r.scrubber)
	}
	if body == nil { // as a fake may return it
		return nil
	}
	closeBody := sync.OnceFunc(func() { body.Close() })
	defer closeBody()
	defer context.AfterFunc(ctx, closeBody)() // for a body that does not know ctx

	messages, lines := newPullStream(body), newPullLog()
	for spoken := r.fake; ; spoken = true {
		message, err := messages.next()
		if stalled := stallOf(ctx); stalled != nil {
			return stalled
		}
		switch {
		case ctx.Err() != nil:
			return &pullError{text: ctx.Err().Error()} // nobody waits for it
		case err == io.EOF && !spoken: //nolint:errorlint // as below
			return &pullError{text: "the engine's answer is empty", class: cerrdefs.ErrUnavailable, passing: true, engine: true}
		case err == io.EOF: //nolint:errorlint // only the bare one is the end of a whole body
			return nil
		case err != nil:
			return r.words.bodyError(err).scrubbed(r.scrubber)
		}
		if failure := message.failure(); failure != nil {
			return r.words.streamError(failure).scrubbed(r.scrubber)
		}
		r.take(ctx, message, lines)
	}
}

// take takes in one message.
func (r *pullRun) take(ctx context.Context, m *pullMessage, lines *pullLog) {
	s := r.shared
	s.mu.Lock()
	now := time.Now()
	change := s.state.add(now, m, r.scrubber)
	if change.visible || now.Sub(s.wakened) >= time.Second { // the rate changes by itself
		s.wakeObservers(now)
	}
	due := lines.due(now, change)
	var progress string
	if due {
		progress = s.state.progress("", now).short()
	}
	s.mu.Unlock()

	if change.download {
		r.pulls.advanced.Store(now.UnixNano())
	}
	if due {
		lines.write(ctx, change, progress)
	}
}

// watch cancels the attempt with a stall's error when it does not get on. It
// ends when the returned function is called.
func (r *pullRun) watch(cancel context.CancelCauseFunc) (stop func()) {
	if r.stall <= 0 {
		return func() {}
	}
	s := r.shared
	s.mu.Lock()
	defer s.mu.Unlock()
	stopped := false
	var timer *time.Timer
	timer = time.AfterFunc(r.stall, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if stopped {
			return
		}
		left, limit := s.state.untilStalled(time.Now(), r.stall, time.Unix(0, r.pulls.advanced.Load()))
		if left > 0 {
			timer.Reset(min(left, r.stall)) // the limit can become shorter
			return
		}
		cancel(stallError(limit, s.state.far()))
	})
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		stopped = true
		timer.Stop()
	}
}

// stallOf returns the error of the stall that cancelled ctx, or nil.
func stallOf(ctx context.Context) *pullError {
	var stalled *pullError
	stderrors.As(context.Cause(ctx), &stalled)
	return stalled
}
