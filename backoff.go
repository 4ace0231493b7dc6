package dockerexec

import (
	"cmp"
	"context"
	"math/rand/v2"
	"time"

	"golang.org/x/time/rate"
)

// sleep waits for d. If ctx ends first, it returns the error of ctx.
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

// receiveWithin receives from done. After limit it gives up and returns the zero value.
func receiveWithin[T any](limit time.Duration, done <-chan T) (received T) {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case received = <-done:
	case <-timer.C:
	}
	return received
}

// jittered returns d, plus or minus up to a tenth. It keeps many waiters from acting at
// the same moment.
func jittered(d time.Duration) time.Duration { return d*9/10 + rand.N(d/5) }

// The limits of a backoff that sets none of its own.
const (
	firstPause   = 100 * time.Millisecond
	longestPause = 5 * time.Second
)

// backoff computes the pauses between tries. A pause is random, between zero and a
// limit. The limit doubles from first to longest. The zero value is ready for use.
type backoff struct {
	first, longest time.Duration // 0: firstPause, longestPause
	// atLeastHalf makes each pause at least half of its limit.
	atLeastHalf bool

	limit time.Duration // of the last pause; 0: there was none
}

// next returns the length of the next pause.
func (b *backoff) next() time.Duration {
	b.limit = min(max(2*b.limit, cmp.Or(b.first, firstPause)), cmp.Or(b.longest, longestPause))
	if b.atLeastHalf {
		return b.limit/2 + rand.N(b.limit/2)
	}
	return rand.N(b.limit)
}

// reset makes the pauses begin at first again.
func (b *backoff) reset() { b.limit = 0 }

func withTimeout(ctx context.Context, timeout time.Duration) (context.Context, context.CancelFunc) {
	if timeout <= 0 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, timeout)
}

// passGate waits for the token of a gate, a channel with room for one token. Only one
// call holds the token, and that call returns it with leaveGate. passGate waits at most
// for timeout, the limit of one engine call. Without this limit, the last of many
// waiters would wait for the calls of all others, one after the other.
func passGate(ctx context.Context, gate chan struct{}, timeout time.Duration) error {
	waitCtx, cancel := withTimeout(ctx, timeout)
	defer cancel()
	select {
	case gate <- struct{}{}:
		if waitCtx.Err() == nil {
			return nil
		}
		leaveGate(gate) // the token and the end came together
	case <-waitCtx.Done():
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return requestTimeoutError(timeout)
}

func leaveGate(gate chan struct{}) { <-gate }

// logLimiter spreads bytes over time. A nil logLimiter has no limit.
type logLimiter struct {
	limiter *rate.Limiter
	owed    int // bytes that went out and have not been waited for yet
	slice   int // owed must reach this number of bytes before there is a wait
}

func newLogLimiter(bytesPerSecond int) *logLimiter {
	if bytesPerSecond <= 0 {
		return nil
	}
	return &logLimiter{
		limiter: rate.NewLimiter(rate.Limit(bytesPerSecond), bytesPerSecond),
		slice:   min(max(bytesPerSecond/16, 1), 64<<10), // asking the limiter for each line would cost more than the line itself
	}
}

// wait returns when n bytes more may go out, or ctx has ended.
func (p *logLimiter) wait(ctx context.Context, n int) error {
	if p == nil {
		return nil
	}
	p.owed += n
	for p.owed >= p.slice {
		take := min(p.owed, p.limiter.Burst())
		p.owed -= take
		// WaitN would fail at once if the deadline of ctx is earlier.
		if delay := p.limiter.ReserveN(time.Now(), take).Delay(); delay > 0 {
			if err := sleep(ctx, delay); err != nil {
				return err
			}
		}
	}
	return nil
}
