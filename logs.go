package dockerexec

import (
	"fmt"
	"strconv"

	"github.com/docker/docker/api/types/container"
	"github.com/moby/swarmkit/v2/api"
	"github.com/pkg/errors"
)

// logsOptions translates a log subscription into the engine's options. Streams:
// none named means both. Tail: 0 is the whole log, -1 nothing of it, -n-1 the
// last n lines; more than 0, counted from the start, does not exist in the
// engine's API.
func logsOptions(options api.LogSubscriptionOptions) (container.LogsOptions, error) {
	o := container.LogsOptions{Follow: options.Follow, Timestamps: true}
	for _, stream := range options.Streams {
		switch stream {
		case api.LogStreamStdout:
			o.ShowStdout = true
		case api.LogStreamStderr:
			o.ShowStderr = true
		case api.LogStreamUnknown: // the zero value, which names none
		}
	}
	if !o.ShowStdout && !o.ShowStderr {
		if len(options.Streams) > 0 {
			return o, errors.Errorf("log option Streams: %v names neither stdout nor stderr", options.Streams)
		}
		o.ShowStdout, o.ShowStderr = true, true
	}
	if since := options.Since; since != nil {
		if since.Nanos < 0 || since.Nanos >= 1e9 || since.Seconds < 0 {
			return o, errors.Errorf("log option Since: %d seconds and %d nanoseconds are no time after 1970", since.Seconds, since.Nanos)
		}
		o.Since = fmt.Sprintf("%d.%09d", since.Seconds, since.Nanos)
	}
	switch {
	case options.Tail > 0:
		return o, errors.New("tail relative to start of logs not supported via docker API")
	case options.Tail < 0:
		o.Tail = strconv.FormatInt(-(options.Tail + 1), 10)
	}
	return o, nil
}
