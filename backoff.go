package dockerexec

import (
	"cmp"
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

// jittered is d, give or take a tenth. It keeps many waiters from acting at once.
func jittered(d time.Duration) time.Duration { return d*9/10 + rand.N(d/5) }

// What a backoff begins and ends with, if it does not say.
const (
	firstPause   = 100 * time.Millisecond
	longestPause = 5 * time.Second
)

// backoff spaces tries: each pause is a random part of a limit, which doubles from
// first to longest. The zero value is ready for use.
type backoff struct {
	first, longest time.Duration // 0: firstPause, longestPause
	// atLeastHalf makes each pause at least half of its limit. Otherwise a pause may be
	// close to nothing.
	atLeastHalf bool

	limit time.Duration // of the last pause
}

// next returns how long to pause.
func (b *backoff) next() time.Duration {
	b.limit = min(max(2*b.limit, cmp.Or(b.first, firstPause)), cmp.Or(b.longest, longestPause))
	if b.atLeastHalf {
		return b.limit/2 + rand.N(b.limit/2)
	}
	return rand.N(b.limit)
}

// reset has the next pause begin at first again.
func (b *backoff) reset() { b.limit = 0 }

func withTimeout(ctx context.Context, timeout time.Duration) (context.Context, context.CancelFunc) {
	if timeout <= 0 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, timeout)
}

// passGate waits for its turn at a gate, a channel with room for one token. It waits at
// most for timeout, the limit of one engine call: the holder of the token makes such a
// call. Without this limit the time-outs of those that wait would add up.
func passGate(ctx context.Context, gate chan struct{}, timeout time.Duration) error {
	waitCtx, cancel := withTimeout(ctx, timeout)
	defer cancel()
	select {
	case gate <- struct{}{}:
		if waitCtx.Err() == nil {
			return nil
		}
		leaveGate(gate) // the turn came together with the end
	case <-waitCtx.Done():
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return requestTimeoutError(timeout)
}

func leaveGate(gate chan struct{}) { <-gate }
