package dockerexec

import (
	"testing"
	"testing/synctest"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Pauses are one second and two, spread by half, and five times that once a
// registry limits the rate.
func TestPullPausesLongerWhereTheRateIsLimited(t *testing.T) {
	t.Parallel()
	for text, pauses := range map[string][2]time.Duration{
		"toomanyrequests: You have reached your pull rate limit.": {7500 * time.Millisecond, 22500 * time.Millisecond},
		"received unexpected HTTP status: 502 Bad Gateway":        {1500 * time.Millisecond, 4500 * time.Millisecond},
	} {
		for range 20 {
			synctest.Test(t, func(t *testing.T) {
				client := pulling(t, refusal(answer{text, cerrdefs.ErrInternal}))
				began := time.Now()
				require.Error(t, newTestAdapter(t, client, pullTask("x")).PullImage(t.Context()))
				require.Len(t, client.called(), 3)
				assert.GreaterOrEqual(t, time.Since(began), pauses[0], text)
				assert.LessOrEqual(t, time.Since(began), pauses[1], text)
			})
		}
	}
}
