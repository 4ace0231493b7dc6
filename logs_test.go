package dockerexec

import (
	"context"
	"io"
	"math"
	"strings"
	"testing"

	"github.com/docker/docker/api/types/container"
	gogotypes "github.com/gogo/protobuf/types"
	"github.com/moby/swarmkit/v2/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestLogsOptions(t *testing.T) {
	t.Parallel()
	both := container.LogsOptions{ShowStdout: true, ShowStderr: true, Timestamps: true}
	with := func(set func(*container.LogsOptions)) container.LogsOptions {
		o := both
		set(&o)
		return o
	}
	for _, test := range []struct {
		name string
		in   api.LogSubscriptionOptions
		want container.LogsOptions
		err  string
	}{
		{"zero", api.LogSubscriptionOptions{}, both, ""},
		{"follow", api.LogSubscriptionOptions{Follow: true}, with(func(o *container.LogsOptions) { o.Follow = true }), ""},
		{"stdout", api.LogSubscriptionOptions{Streams: []api.LogStream{api.LogStreamStdout}},
			with(func(o *container.LogsOptions) { o.ShowStderr = false }), ""},
		{"stderr", api.LogSubscriptionOptions{Streams: []api.LogStream{api.LogStreamStderr}},
			with(func(o *container.LogsOptions) { o.ShowStdout = false }), ""},
		{"unknown beside stdout", api.LogSubscriptionOptions{Streams: []api.LogStream{api.LogStreamUnknown, api.LogStreamStdout}},
			with(func(o *container.LogsOptions) { o.ShowStderr = false }), ""},
		// The engine's 400 would come late and say less.
		{"unknown alone", api.LogSubscriptionOptions{Streams: []api.LogStream{api.LogStreamUnknown}}, container.LogsOptions{},
			"log option Streams: [LOG_STREAM_UNKNOWN] names neither stdout nor stderr"},
		{"since", api.LogSubscriptionOptions{Since: &gogotypes.Timestamp{Seconds: 1700000000, Nanos: 5}},
			with(func(o *container.LogsOptions) { o.Since = "1700000000.000000005" }), ""},
		{"since out of range", api.LogSubscriptionOptions{Since: &gogotypes.Timestamp{Seconds: 1, Nanos: 1e9}}, container.LogsOptions{},
			"log option Since: 1 seconds and 1000000000 nanoseconds are no time after 1970"},
		// 0 is the whole log, -1 none of it, -n-1 the last n lines.
		{"tail -1", api.LogSubscriptionOptions{Tail: -1}, with(func(o *container.LogsOptions) { o.Tail = "0" }), ""},
		{"tail -6", api.LogSubscriptionOptions{Tail: -6}, with(func(o *container.LogsOptions) { o.Tail = "5" }), ""},
		{"tail, the least", api.LogSubscriptionOptions{Tail: math.MinInt64}, with(func(o *container.LogsOptions) { o.Tail = "9223372036854775807" }), ""},
		{"tail from the start", api.LogSubscriptionOptions{Tail: 1}, container.LogsOptions{},
			"tail relative to start of logs not supported via docker API"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			got, err := logsOptions(test.in)
			if test.err != "" {
				require.EqualError(t, err, test.err)
				return
			}
			require.NoError(t, err)
			assert.Equal(t, test.want, got)
		})
	}
}

// A container with a TTY has logs like any other; the stream comes as the
// engine sends it.
func TestLogsOfATTYContainerAreNotRefused(t *testing.T) {
	t.Parallel()
	client := newFakeClient(t)
	client.containerLogs = func(_ context.Context, _ string, options container.LogsOptions) (io.ReadCloser, error) {
		assert.Equal(t, container.LogsOptions{ShowStdout: true, ShowStderr: true, Timestamps: true, Follow: true}, options)
		return io.NopCloser(strings.NewReader("2026-01-01T00:00:00.000000000Z plain\r\n")), nil
	}
	task := plainTask()
	spec(task).TTY = true
	body, err := newTestAdapter(t, client, task).Logs(t.Context(), api.LogSubscriptionOptions{Follow: true})
	require.NoError(t, err)
	text, err := io.ReadAll(body)
	require.NoError(t, err)
	assert.Equal(t, "2026-01-01T00:00:00.000000000Z plain\r\n", string(text))
	require.NoError(t, body.Close())
}

func TestBadLogOptionsReachNoEngine(t *testing.T) {
	t.Parallel()
	client := newFakeClient(t)
	_, err := newTestAdapter(t, client, plainTask()).Logs(t.Context(), api.LogSubscriptionOptions{Tail: 5})
	require.EqualError(t, err, "tail relative to start of logs not supported via docker API")
	assert.Empty(t, client.called())
}
