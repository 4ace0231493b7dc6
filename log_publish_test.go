package dockerexec

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"syscall"
	"testing"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	gogotypes "github.com/gogo/protobuf/types"
	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/moby/swarmkit/v2/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// twoLines is a log of one line on each stream.
var twoLines = []logRecord{
	{1, "2026-01-02T03:04:05.000000006Z", "one\n"},
	{2, "2026-01-02T03:04:06.000000000Z", "two\n"},
}

// publishing makes an adapter whose container has the statuses, one for each
// inspect, and the log l.
func publishing(t *testing.T, l *fakeLog, list []string, opts ...Option) (*fakeClient, *ContainerAdapter) {
	client := newFakeClient(t)
	statuses(client, list...)
	client.containerLogs = func(_ context.Context, _ string, o container.LogsOptions) (io.ReadCloser, error) {
		return l.open(o, -1, nil), nil
	}
	return client, newTestAdapter(t, client, plainTask(), opts...)
}

func TestPublishLogs(t *testing.T) {
	t.Parallel()
	l := &fakeLog{records: twoLines}
	client, adapter := publishing(t, l, []string{"running"})
	var sink logSink
	require.NoError(t, adapter.PublishLogs(t.Context(), api.LogSubscriptionOptions{}, &sink))
	from := api.LogContext{ServiceID: "serviceid", NodeID: "nodeid", TaskID: "taskid"}
	assert.Equal(t, []api.LogMessage{
		{Context: from, Timestamp: &gogotypes.Timestamp{Seconds: 1767323045, Nanos: 6}, Stream: api.LogStreamStdout, Data: []byte("one\n")},
		{Context: from, Timestamp: &gogotypes.Timestamp{Seconds: 1767323046}, Stream: api.LogStreamStderr, Data: []byte("two\n")},
	}, sink.messages)
	assert.Equal(t, []string{"ContainerInspect " + taskName, "ContainerLogs " + taskName}, client.called())
	assert.Equal(t, []container.LogsOptions{{ShowStdout: true, ShowStderr: true, Timestamps: true}}, l.requests)
	assert.Equal(t, 1, l.bodies[0].closed)
}

func TestPublishLogsRefusesBadOptionsWithoutACall(t *testing.T) {
	t.Parallel()
	client := newFakeClient(t)
	adapter := newTestAdapter(t, client, plainTask())
	require.EqualError(t, adapter.PublishLogs(t.Context(), api.LogSubscriptionOptions{Tail: 5}, &logSink{}),
		"tail relative to start of logs not supported via docker API")
	require.EqualError(t, adapter.PublishLogs(t.Context(), api.LogSubscriptionOptions{}, nil), "dockerexec: the log publisher is nil")
	assert.Empty(t, client.called())
}

// The engine's error in the midst of the log is what is returned.
func TestErrorFrameInTheLog(t *testing.T) {
	t.Parallel()
	for _, following := range []bool{false, true} {
		client := newFakeClient(t)
		statuses(client, "running")
		body := &fakeBody{text: bytes.NewReader(append(frame(1, plainTime+"one\n"), frame(3, "Error grabbing logs: bad file\n")...)), end: io.EOF}
		client.containerLogs = func(context.Context, string, container.LogsOptions) (io.ReadCloser, error) { return body, nil }
		var sink logSink
		err := newTestAdapter(t, client, plainTask()).PublishLogs(t.Context(), api.LogSubscriptionOptions{Follow: following}, &sink)
		require.EqualError(t, err, "logs of container "+taskName+": Error grabbing logs: bad file")
		assert.False(t, exec.IsTemporary(err))
		assert.Equal(t, []string{"stdout one\n"}, sink.lines())
		assert.Equal(t, 1, body.closed)
	}
}

// Without following nobody waits for a container that is not started or not
// running.
func TestLogsOfAContainerThatDoesNotRun(t *testing.T) {
	t.Parallel()
	for _, status := range []string{"created", "paused", "restarting", "removing", "exited", "dead"} {
		l := &fakeLog{records: twoLines}
		_, adapter := publishing(t, l, []string{status})
		var sink logSink
		require.NoError(t, adapter.PublishLogs(t.Context(), api.LogSubscriptionOptions{}, &sink), status)
		assert.Len(t, sink.messages, 2, status)
	}
	client := newFakeClient(t)
	client.containerInspect = func(context.Context, string) (container.InspectResponse, error) {
		return container.InspectResponse{}, cerrdefs.ErrNotFound
	}
	err := newTestAdapter(t, client, plainTask()).PublishLogs(t.Context(), api.LogSubscriptionOptions{}, &logSink{})
	assert.True(t, IsUnknownContainer(err), "%v", err)
}

// Labels and variables become attributes, and are asked for where the
// container's log options name some.
func TestLogDetailsBecomeAttributes(t *testing.T) {
	t.Parallel()
	l := &fakeLog{records: []logRecord{twoLines[0], {1, "2026-01-02T03:04:07.000000000Z", " half "},
		{1, "2026-01-02T03:04:07.000000000Z", "and half\n"}}, details: "b=x+y%2C,a=1"}
	client, adapter := publishing(t, l, nil)
	client.containerInspect = func(context.Context, string) (container.InspectResponse, error) {
		answer := logContainer("exited")
		answer.HostConfig = &container.HostConfig{LogConfig: container.LogConfig{Type: "json-file", Config: map[string]string{"labels": "a,b"}}}
		return answer, nil
	}
	var sink logSink
	require.NoError(t, adapter.PublishLogs(t.Context(), api.LogSubscriptionOptions{}, &sink))
	assert.True(t, l.requests[0].Details)
	assert.Equal(t, []string{"stdout one\n", "stdout  half and half\n"}, sink.lines())
	for _, m := range sink.messages {
		assert.Equal(t, []api.LogAttr{{Key: "a", Value: "1"}, {Key: "b", Value: "x y,"}}, m.Attrs)
	}
}

// A message without a time does not end the log; it has the time of the one
// before it.
func TestLogMessageWithoutATime(t *testing.T) {
	t.Parallel()
	client := newFakeClient(t)
	statuses(client, "exited")
	text := slices.Concat(frame(1, plainTime+"one\n"), frame(1, "nospace\n"), frame(1, "no time\n"), frame(1, ""), frame(1, plainTime+"two\n"))
	client.containerLogs = func(context.Context, string, container.LogsOptions) (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(text)), nil
	}
	var sink logSink
	require.NoError(t, newTestAdapter(t, client, plainTask()).PublishLogs(t.Context(), api.LogSubscriptionOptions{}, &sink))
	assert.Equal(t, []string{"stdout one\n", "stdout nospace\n", "stdout no time\n", "stdout two\n"}, sink.lines())
	for _, m := range sink.messages {
		assert.Equal(t, &gogotypes.Timestamp{Seconds: 1767323045, Nanos: 6}, m.Timestamp)
	}
}

// Whether there is a TTY is told by the container and not by the spec.
func TestLogsAreReadAsTheContainerHasThem(t *testing.T) {
	t.Parallel()
	for _, tty := range []bool{false, true} {
		l := &fakeLog{records: []logRecord{twoLines[0]}, tty: tty}
		client, _ := publishing(t, l, nil)
		client.containerInspect = func(context.Context, string) (container.InspectResponse, error) {
			answer := logContainer("exited")
			answer.Config.Tty = tty
			return answer, nil
		}
		task := plainTask()
		spec(task).TTY = !tty
		var sink logSink
		require.NoError(t, newTestAdapter(t, client, task).PublishLogs(t.Context(), api.LogSubscriptionOptions{}, &sink))
		assert.Equal(t, []string{"stdout one\n"}, sink.lines())
	}
}

// A line beyond 1 MiB comes in several messages, of which the last one has the
// newline. Not a byte is lost.
func TestLogLineBeyondTheCap(t *testing.T) {
	t.Parallel()
	piece := strings.Repeat("x", engineChunk)
	l := &fakeLog{records: slices.Repeat([]logRecord{{1, "2026-01-02T03:04:05.000000000Z", piece}}, 100)}
	l.records = append(l.records, logRecord{1, "2026-01-02T03:04:05.000000000Z", "end\n"}, logRecord{1, "2026-01-02T03:04:06.000000000Z", "next\n"})
	_, adapter := publishing(t, l, []string{"exited"})
	var sink logSink
	require.NoError(t, adapter.PublishLogs(t.Context(), api.LogSubscriptionOptions{}, &sink))
	require.Len(t, sink.messages, 3)
	assert.Len(t, sink.messages[0].Data, 1<<20)
	assert.Equal(t, strings.Repeat(piece, 36)+"end\n", string(sink.messages[1].Data))
	assert.Equal(t, "next\n", string(sink.messages[2].Data))
}

// What ends without a newline is not joined to the next line: its time is another.
func TestUnfinishedLogLineIsNotJoinedToTheNext(t *testing.T) {
	t.Parallel()
	l := &fakeLog{records: []logRecord{{1, "2026-01-02T03:04:05.000000000Z", "prompt>"}, {1, "2026-01-02T03:04:06.000000000Z", "next\n"}}}
	_, adapter := publishing(t, l, []string{"exited"})
	var sink logSink
	require.NoError(t, adapter.PublishLogs(t.Context(), api.LogSubscriptionOptions{}, &sink))
	assert.Equal(t, []string{"stdout prompt>", "stdout next\n"}, sink.lines())
}

func TestPublishLogsErrors(t *testing.T) {
	t.Parallel()
	notReadable := errors.New("Error response from daemon: configured logging driver does not support reading")
	refused := errors.New("no more")
	for _, test := range []struct {
		name      string
		follow    bool
		logs      error // of the request
		end       error // of the stream
		publisher error
		label     string
		want      string
		temporary bool
	}{
		{name: "log driver cannot be read", logs: notReadable, want: "logs of container " + taskName + ": " + notReadable.Error()},
		{name: "log driver cannot be read, following", follow: true, logs: notReadable, want: "logs of container " + taskName + ": " + notReadable.Error()},
		{name: "engine away", logs: errDown, want: "logs of container " + taskName + ": " + errDown.Error(), temporary: true},
		{name: "stream broken", end: io.ErrUnexpectedEOF, want: "logs of container " + taskName + ": unexpected EOF", temporary: true},
		{name: "publisher's", publisher: refused, want: "no more"},
		{name: "publisher's, following", follow: true, publisher: io.EOF, want: "EOF"},
		{name: "another task's container", label: "other", want: "logs of container " + taskName + `: it (c1) is not this task's: its label com.docker.swarm.task.id is "other"`},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			l := &fakeLog{records: twoLines}
			client := newFakeClient(t)
			client.containerInspect = func(context.Context, string) (container.InspectResponse, error) {
				answer := logContainer("running")
				if test.label != "" {
					answer.Config.Labels = map[string]string{LabelTaskID: test.label}
				}
				return answer, nil
			}
			client.containerLogs = func(_ context.Context, _ string, o container.LogsOptions) (io.ReadCloser, error) {
				if test.logs != nil {
					return nil, test.logs
				}
				return l.open(o, -1, test.end), nil
			}
			sink := logSink{onLine: func(int) error { return test.publisher }}
			err := newTestAdapter(t, client, plainTask()).PublishLogs(t.Context(), api.LogSubscriptionOptions{Follow: test.follow}, &sink)
			require.EqualError(t, err, test.want)
			assert.Equal(t, test.temporary, exec.IsTemporary(err))
			if test.publisher != nil {
				assert.Equal(t, test.publisher, err)
			}
			for _, body := range l.bodies {
				assert.Equal(t, 1, body.closed)
			}
		})
	}
}

// A container that a fake describes with next to nothing has a log all the same.
func TestLogsOfASparselyDescribedContainer(t *testing.T) {
	t.Parallel()
	l := &fakeLog{records: twoLines}
	client, adapter := publishing(t, l, nil)
	client.containerInspect = func(context.Context, string) (container.InspectResponse, error) {
		return container.InspectResponse{ContainerJSONBase: &container.ContainerJSONBase{State: &container.State{}}}, nil
	}
	var sink logSink
	require.NoError(t, adapter.PublishLogs(t.Context(), api.LogSubscriptionOptions{}, &sink))
	assert.Len(t, sink.messages, 2)
}

// errDown is an engine that is away.
var errDown = &net.OpError{Op: "dial", Net: "unix", Err: syscall.ECONNREFUSED}
