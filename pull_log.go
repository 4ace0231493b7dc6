package dockerexec

import (
	"context"
	"time"

	"github.com/moby/swarmkit/v2/log"
	"golang.org/x/time/rate"
)

// pullLog decides on the log lines of one attempt: one for each change of a
// layer's status, and of the rest at most one a second. Never one for each message.
type pullLog struct {
	limiter *rate.Limiter
}

func newPullLog() *pullLog {
	return &pullLog{limiter: rate.NewLimiter(rate.Every(time.Second), 1)}
}

// due reports whether the change is worth a line now.
func (l *pullLog) due(now time.Time, change pullChange) bool {
	return change.turned || l.limiter.AllowN(now, 1)
}

func (l *pullLog) write(ctx context.Context, change pullChange, progress string) {
	fields := log.Fields{"status": change.status, "progress": progress}
	if change.layer != "" {
		fields["layer"] = change.layer
	}
	log.G(ctx).WithFields(fields).Debug("pulling image")
}
