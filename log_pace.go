package dockerexec

import (
	"context"
	"time"

	"golang.org/x/time/rate"
)

// logPace spreads bytes over time. nil is no limit.
type logPace struct {
	limiter *rate.Limiter
	owed    int // bytes that have not been waited for yet
	slice   int // from so many on they are
}

func newLogPace(bytesPerSecond int) *logPace {
	if bytesPerSecond <= 0 {
		return nil
	}
	return &logPace{
		limiter: rate.NewLimiter(rate.Limit(bytesPerSecond), bytesPerSecond),
		slice:   min(max(bytesPerSecond/16, 1), 64<<10), // to ask the limiter for each line would cost more than the line
	}
}

// wait returns when n bytes more may go out, or ctx has ended.
func (p *logPace) wait(ctx context.Context, n int) error {
	if p == nil {
		return nil
	}
	p.owed += n
	for p.owed >= p.slice {
		take := min(p.owed, p.limiter.Burst())
		p.owed -= take
		// WaitN would fail at once where ctx has a deadline before the end.
		if delay := p.limiter.ReserveN(time.Now(), take).Delay(); delay > 0 {
			if err := sleep(ctx, delay); err != nil {
				return err
			}
		}
	}
	return nil
}
