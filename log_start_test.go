package dockerexec

import (
	"context"
	"io"
	"sync/atomic"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/moby/swarmkit/v2/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Where the engine refuses the event stream a follower looks for the start by
// itself.
func TestFollowedLogsWaitForTheStartWithoutTheEventStream(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		l := &fakeLog{records: twoLines}
		client := newFakeClient(t)
		newEventSource(client).refuse(errNoEvents)
		var status atomic.Value
		status.Store("created")
		client.containerInspect = func(context.Context, string) (container.InspectResponse, error) {
			return logContainer(status.Load().(string)), nil
		}
		client.containerLogs = func(_ context.Context, _ string, o container.LogsOptions) (io.ReadCloser, error) {
			status.Store("exited")
			return l.open(o, -1, nil), nil
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		var sink logSink
		publish := asynchronously(func() error {
			return newTestAdapter(t, client, plainTask()).PublishLogs(ctx, api.LogSubscriptionOptions{Follow: true}, &sink)
		})
		time.Sleep(time.Minute)
		status.Store("running")
		started := time.Now()
		require.NoError(t, publish())
		assert.Less(t, time.Since(started), 12*time.Second)
		assert.Len(t, sink.messages, 2)
	})
}
