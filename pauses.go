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

// backoff spaces tries: each pause is a random part of a limit, which doubles
// from firstPause to longestPause. The zero value is ready for use.
type backoff struct{ limit time.Duration }

func (b *backoff) next() time.Duration {
	b.limit = min(max(2*b.limit, firstPause), longestPause)
	return rand.N(b.limit)
}
