package dockerexec

import (
	"context"
	"crypto/sha256"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/distribution/reference"
	"github.com/docker/docker/api/types/image"
	"github.com/moby/swarmkit/v2/log"
)

// PullProgress says how far a pull has come. It adds up what the engine reports of each
// layer.
type PullProgress struct {
	// Image is the image as the task names it.
	Image string
	// Status is what the engine said last, such as "Downloading" or "Status: Image is
	// up to date for …". It is empty until the engine has answered.
	Status string
	// Attempt counts the attempts of this pull, from 1. All fields below are about this
	// attempt.
	Attempt int

	// LayersTotal is the number of layers that the engine has named so far. LayersDone
	// is the number of those that are on the engine. LayersActive is the number of
	// those that are being downloaded, verified or extracted.
	LayersDone, LayersActive, LayersTotal int

	// BytesDone is what has been downloaded, and BytesTotal what there is to download.
	// Both count compressed bytes, as the registry sends them. Layers that were on the
	// engine before count in neither. BytesTotal is 0 until the size of every layer is
	// known. Of some layers the engine never says the size.
	BytesDone, BytesTotal int64
	// BytesPerSecond is the rate of the download over the last ten seconds. 0 means
	// that it is not known.
	BytesPerSecond int64
	// Remaining is how long the rest of the download takes at that rate, without the
	// extraction. 0 means that it is not known.
	Remaining time.Duration
}

const (
	// observeInterval is the least time from one call of an observer to the next.
	observeInterval = time.Second / 10
	// leaveGrace bounds how long a caller whose context has ended waits for a client or
	// an observer that ignores contexts.
	leaveGrace = time.Second
)

// pullTarget is what to pull.
type pullTarget struct {
	image   string          // as the task names it
	ref     reference.Named // the same, parsed
	options image.PullOptions
	// scrubber knows the secrets of the first task that asks for the pull. The log lines
	// of the pull have the fields of that task.
	scrubber scrubber
}

// Pulls with the same pullKey are shared. The credentials are a part of it: nobody gets
// an image, or an error, with the rights of another task.
type pullKey struct {
	ref, platform string
	credentials   [sha256.Size]byte
}

func (t pullTarget) key() pullKey {
	return pullKey{
		ref:         reference.TagNameOnly(t.ref).String(),
		platform:    strings.ToLower(t.options.Platform),
		credentials: sha256.Sum256([]byte(t.options.RegistryAuth)),
	}
}

// openPull asks the engine to pull an image. The body has the pull's messages. hide takes
// secrets out of the error.
type openPull func(ctx context.Context, name string, options image.PullOptions, hide func(error) error) (io.ReadCloser, error)

// pulls are the pulls of one Engine that are in progress.
type pulls struct {
	open     openPull
	isFake   bool // an empty answer is a pull that succeeded
	attempts int
	stall    time.Duration // 0: no limit
	observer func(context.Context, PullProgress)

	mu       sync.Mutex
	inFlight map[pullKey]*sharedPull // until its goroutine has ended
	// advanced is when any download last advanced, in Unix nanoseconds.
	advanced atomic.Int64
}

func newPulls(open openPull, options options, isFake bool) *pulls {
	return &pulls{
		open: open, isFake: isFake,
		attempts: options.pullAttempts, stall: options.pullStallTimeout, observer: options.pullObserver,
	}
}

// sharedPull is a pull and all callers that wait for it. It has one goroutine. The last
// caller to leave cancels the goroutine and waits for its end.
type sharedPull struct {
	key     pullKey
	cancel  context.CancelFunc
	waiters int // guarded by pulls.mu; 0: cancelled, nobody may join

	ended  chan struct{} // closed when the goroutine has ended
	result pullResult    // may be read once ended is closed

	mu      sync.Mutex
	state   pullState
	wake    map[chan struct{}]struct{} // one channel for each observer, with room for one wake-up
	wakened time.Time                  // when the observers were last woken
}

// pull pulls target. Callers with an equal target share one pull. logCtx is ctx with the
// caller's log fields. The observer gets ctx itself.
func (s *pulls) pull(ctx, logCtx context.Context, target pullTarget) error {
	p, err := s.join(ctx, logCtx, target)
	if err != nil {
		return err
	}
	observed := p.observe(ctx, target.image, s.observer)

	select {
	case <-p.ended:
		s.leave(p)
		select {
		case <-observed:
		case <-ctx.Done():
			receiveWithin(leaveGrace, observed)
		}
		if p.result.err != nil && ctx.Err() != nil {
			return ctx.Err()
		}
		return p.result.errorFor(target.image)
	case <-ctx.Done():
		if last := s.leave(p); last {
			receiveWithin(leaveGrace, p.ended)
		}
		receiveWithin(leaveGrace, observed)
		return ctx.Err()
	}
}

// join makes the caller a waiter of the pull in progress, or starts one. If that pull
// is being cancelled, join waits for its end and then starts one: the engine never has
// two pulls for one key.
func (s *pulls) join(ctx, logCtx context.Context, target pullTarget) (*sharedPull, error) {
	key := target.key()
	for {
		p, how := s.tryJoin(logCtx, key, target)
		switch how {
		case pullJoined:
			log.G(logCtx).WithField("image", target.image).Debug("image is being pulled for another task; waiting for that pull")
			return p, nil
		case pullStarted:
			return p, nil
		case pullEnding:
		}
		select {
		case <-p.ended:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// pullFound is what tryJoin found.
type pullFound int

const (
	pullStarted pullFound = iota
	pullJoined
	pullEnding // it is being cancelled
)

func (s *pulls) tryJoin(logCtx context.Context, key pullKey, target pullTarget) (*sharedPull, pullFound) {
	s.mu.Lock()
	defer s.mu.Unlock() // also after a panic that a caller survives
	p := s.inFlight[key]
	switch {
	case p == nil:
		return s.start(logCtx, key, target), pullStarted
	case p.waiters > 0:
		p.waiters++
		return p, pullJoined
	default:
		return p, pullEnding
	}
}

// start starts a pull with one waiter. It needs s.mu. The pull keeps the values of the
// first waiter's context, such as the log fields, but does not end with that context.
func (s *pulls) start(logCtx context.Context, key pullKey, target pullTarget) *sharedPull {
	ctx, cancel := context.WithCancel(context.WithoutCancel(logCtx))
	p := &sharedPull{
		key: key, cancel: cancel, waiters: 1,
		ended: make(chan struct{}), wake: map[chan struct{}]struct{}{},
	}
	p.state.reset(1, time.Now())
	if s.inFlight == nil {
		s.inFlight = map[pullKey]*sharedPull{}
	}
	s.inFlight[key] = p
	r := newPullRun(s, p, target)
	go func() {
		defer cancel()
		p.result = r.run(ctx)
		s.mu.Lock()
		delete(s.inFlight, key)
		s.mu.Unlock()
		close(p.ended)
	}()
	return p
}

// leave takes one waiter away, and reports whether it was the last one. The last one
// cancels a pull that still runs.
func (s *pulls) leave(p *sharedPull) (last bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p.waiters--
	if p.waiters > 0 {
		return false
	}
	p.cancel()
	return true
}

// observe starts a goroutine that calls observer with the pull's state. The first call
// comes once there is something to show, see hasNews. Then a call follows each change of the state, but at most one in
// observeInterval. The last call has the final state. The goroutine ends with the pull or
// ctx. Then it closes the returned channel.
func (p *sharedPull) observe(ctx context.Context, image string, observer func(context.Context, PullProgress)) <-chan struct{} {
	done := make(chan struct{})
	if observer == nil {
		close(done)
		return done
	}
	o := &observation{pull: p, image: image, observer: observer, wake: make(chan struct{}, 1)}
	o.wake <- struct{}{}
	p.mu.Lock()
	p.wake[o.wake] = struct{}{}
	p.mu.Unlock()
	go func() {
		defer close(done)
		defer func() {
			p.mu.Lock()
			delete(p.wake, o.wake)
			p.mu.Unlock()
		}()
		o.run(ctx)
	}()
	return done
}

// observation is one waiter's observer of a pull, and what it was told.
type observation struct {
	pull     *sharedPull
	image    string
	observer func(context.Context, PullProgress)
	wake     chan struct{}

	last, now PullProgress // what the observer was told last, and will be told next
}

func (o *observation) run(ctx context.Context) {
	pause := time.NewTimer(0)
	defer pause.Stop()
	for final := false; !final; {
		select {
		case <-o.wake:
		case <-o.pull.ended:
			final = true
		case <-ctx.Done():
			return
		}
		if !o.look(final) {
			continue
		}
		select {
		case <-pause.C:
		case <-ctx.Done():
			return
		}
		select { // a change during the pause needs no call of its own
		case <-o.wake:
		case <-o.pull.ended:
			final = true
		default:
		}
		o.look(final)
		if ctx.Err() != nil {
			return
		}
		o.last = o.now
		pause.Reset(observeInterval)
		o.observer(ctx, o.now)
	}
}

// look reads the pull's state, and reports whether the observer must be told.
func (o *observation) look(final bool) bool {
	o.pull.mu.Lock()
	defer o.pull.mu.Unlock()
	o.now = o.pull.state.progress(o.image, time.Now())
	return o.now.hasNews() && o.now != o.last && !(final && o.now.sameAs(o.last))
}

// restart drops the state of an attempt that failed, and begins the next one.
func (p *sharedPull) restart(attempt int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	p.state.reset(attempt, now)
	p.wakeObservers(now)
}

// wakeObservers wakes every observer. It needs p.mu, and never blocks.
func (p *sharedPull) wakeObservers(now time.Time) {
	p.wakened = now
	for wake := range p.wake {
		select {
		case wake <- struct{}{}:
		default:
		}
	}
}
