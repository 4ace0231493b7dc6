package dockerexec

import (
	"context"
	"math/rand/v2"
	"time"
)

// sleep returns after d, or with the error of ctx when that ends.
func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// receiveWithin receives from done unless that takes longer than limit.
func receiveWithin[T any](limit time.Duration, done <-chan T) (received T) {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case received = <-done:
	case <-timer.C:
	}
	return received
}

// jittered is d, give or take a tenth, so that what many wait for does not come
// all at once.
func jittered(d time.Duration) time.Duration { return d*9/10 + rand.N(d/5) }

// The first limit and the last one of a backoff.
const (
	firstPause   = 100 * time.Millisecond
	longestPause = 5 * time.Second
)

// backoff spaces tries: each pause is a random part of a limit, which doubles
// from firstPause to longestPause. The zero value is ready for use.
type backoff struct{ limit time.Duration }

func (b *backoff) next() time.Duration {
	b.limit = min(max(2*b.limit, firstPause), longestPause)
	return rand.N(b.limit)
}

func withTimeout(ctx context.Context, timeout time.Duration) (context.Context, context.CancelFunc) {
	if timeout <= 0 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, timeout)
}

// passGate takes the one place behind a gate, for which it waits as long as an engine
// call may take: who is there makes such calls. Without a bound those that wait
// would take their time-outs one after the other.
func passGate(ctx context.Context, gate chan struct{}, timeout time.Duration) error {
	waitCtx, cancel := withTimeout(ctx, timeout)
	defer cancel()
	select {
	case gate <- struct{}{}:
		if waitCtx.Err() == nil {
			return nil
		}
		leaveGate(gate) // both were possible
	case <-waitCtx.Done():
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return requestTimeoutError(timeout)
}

func leaveGate(gate chan struct{}) { <-gate }
