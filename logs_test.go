package dockerexec

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/events"
	gogotypes "github.com/gogo/protobuf/types"
	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/moby/swarmkit/v2/api"
	"github.com/sirupsen/logrus"
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

// The rate is that of bytes a second, for as long as it takes, and not one
// byte a second after the first burst.
func TestLogRateIsSustained(t *testing.T) {
	t.Parallel()
	line := strings.Repeat("x", 999) + "\n"
	l := &fakeLog{records: slices.Repeat([]logRecord{{1, "2026-01-02T03:04:05.000000000Z", line}}, 1000)}
	for _, test := range []struct {
		name string
		opts []Option
		want time.Duration
	}{
		{"10 kB a second", []Option{WithLogRate(10_000)}, 99 * time.Second}, // 1 MB less the first second's 10 kB
		{"500 kB a second", []Option{WithLogRate(500_000)}, time.Second},
		{"the default", nil, 0}, // 10 MiB: all in the first second
		{"none", []Option{WithLogRate(0)}, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				_, adapter := publishing(t, l, []string{"exited"}, test.opts...)
				begin := time.Now()
				var sink logSink
				require.NoError(t, adapter.PublishLogs(t.Context(), api.LogSubscriptionOptions{}, &sink))
				assert.Len(t, sink.messages, 1000)
				assert.InDelta(t, test.want.Seconds(), time.Since(begin).Seconds(), 0.2)
			})
		})
	}
}

// A line greater than what the rate allows at once is waited for in slices.
func TestLogLineGreaterThanTheRate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := &fakeLog{records: []logRecord{{1, "2026-01-02T03:04:05.000000000Z", strings.Repeat("x", 9999) + "\n"}}}
		_, adapter := publishing(t, l, []string{"exited"}, WithLogRate(1000))
		begin := time.Now()
		var sink logSink
		require.NoError(t, adapter.PublishLogs(t.Context(), api.LogSubscriptionOptions{}, &sink))
		assert.Len(t, sink.messages, 1)
		assert.InDelta(t, 9, time.Since(begin).Seconds(), 0.1)
	})
}

// A wait for the rate ends with its context: at once, and not before.
func TestLogRateWaitEndsWithTheContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := &fakeLog{records: []logRecord{{1, "2026-01-02T03:04:05.000000000Z", strings.Repeat("x", 9999) + "\n"}}}
		_, adapter := publishing(t, l, []string{"exited"}, WithLogRate(1000))
		begin := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 1500*time.Millisecond)
		defer cancel()
		require.Equal(t, context.DeadlineExceeded, adapter.PublishLogs(ctx, api.LogSubscriptionOptions{}, &logSink{}))
		assert.Equal(t, 1500*time.Millisecond, time.Since(begin))
	})
}

// Following waits until the container is created and started, without
// asking again and again; also one that is created already.
func TestFollowedLogsWaitForTheStart(t *testing.T) {
	t.Parallel()
	for name, first := range map[string]string{"unknown": "", "created": "created"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { followFromBeforeTheStart(t, first) })
		})
	}
}

func followFromBeforeTheStart(t *testing.T, status string) {
	l := &fakeLog{records: twoLines}
	client := newFakeClient(t)
	var mu sync.Mutex
	set := func(to string) { mu.Lock(); status = to; mu.Unlock() }
	client.containerInspect = func(context.Context, string) (container.InspectResponse, error) {
		mu.Lock()
		defer mu.Unlock()
		if status == "" {
			return container.InspectResponse{}, errors.New("Error response from daemon: No such container: " + taskName)
		}
		return logContainer(status), nil
	}
	stream := make(chan events.Message)
	client.events = func(context.Context, events.ListOptions) (<-chan events.Message, <-chan error) {
		return stream, make(chan error)
	}
	client.containerLogs = func(_ context.Context, _ string, o container.LogsOptions) (io.ReadCloser, error) {
		set("exited")
		return l.open(o, -1, nil), nil
	}
	event := func(action events.Action) {
		stream <- events.Message{Type: events.ContainerEventType, Action: action, TimeNano: time.Now().UnixNano(),
			Actor: events.Actor{ID: "c1", Attributes: map[string]string{"name": taskName, LabelTaskID: "taskid"}}}
	}
	var sink logSink
	done := make(chan error)
	go func() {
		done <- newTestAdapter(t, client, plainTask()).PublishLogs(t.Context(), api.LogSubscriptionOptions{Follow: true}, &sink)
	}()
	time.Sleep(time.Minute)
	assert.Less(t, len(client.called()), 6)
	set("created")
	event(events.ActionCreate)
	time.Sleep(time.Minute)
	assert.Less(t, len(client.called()), 10)
	assert.Empty(t, l.requests)
	set("running")
	event(events.ActionStart)
	require.NoError(t, <-done)
	assert.Equal(t, []string{"stdout one\n", "stderr two\n"}, sink.lines())
}

// Ending its context ends a follow at once, whatever the body does, and the
// body is closed.
func TestFollowedLogsEndWithTheContext(t *testing.T) {
	t.Parallel()
	client := newFakeClient(t)
	statuses(client, "running")
	body := newBlockingBody(frame(1, plainTime+"one\n"))
	client.containerLogs = func(context.Context, string, container.LogsOptions) (io.ReadCloser, error) { return body, nil }
	ctx, cancel := context.WithCancel(t.Context())
	sink := logSink{onLine: func(int) error { cancel(); return nil }}
	require.Equal(t, context.Canceled, newTestAdapter(t, client, plainTask()).PublishLogs(ctx, api.LogSubscriptionOptions{Follow: true}, &sink))
	<-body.closed
	assert.Len(t, sink.messages, 1)
}

// A stream that ends while the container runs is asked for again, with
// growing pauses; a fault that passes ends nothing and is reported once.
func TestFollowedLogsSurviveTheEngine(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := &fakeLog{records: twoLines}
		client := newFakeClient(t)
		begin := time.Now()
		away := func() bool { return time.Since(begin) < time.Minute }
		client.containerInspect = func(context.Context, string) (container.InspectResponse, error) {
			if len(l.requests) > 0 && away() {
				return container.InspectResponse{}, errDown
			}
			if len(l.requests) < 20 {
				return logContainer("running"), nil
			}
			return logContainer("exited"), nil
		}
		client.containerLogs = func(_ context.Context, _ string, o container.LogsOptions) (io.ReadCloser, error) {
			switch len(l.requests) {
			case 0:
				return l.open(o, 8+31+4, io.ErrUnexpectedEOF), nil
			case 10:
				l.records = append(l.records[:2:2], logRecord{1, "2026-01-02T03:04:07.000000000Z", "three\n"})
			}
			return l.open(o, -1, nil), nil
		}
		var sink logSink
		ctx, logged := logged(t)
		require.NoError(t, newTestAdapter(t, client, plainTask()).PublishLogs(ctx, api.LogSubscriptionOptions{Follow: true}, &sink))
		assert.Equal(t, []string{"stdout one\n", "stderr two\n", "stdout three\n"}, sink.lines())
		assert.Equal(t, []string{"log stream lost; it will be resumed",
			"the engine ends the log although the container runs; it is asked again"}, logged(logrus.WarnLevel))
		require.Len(t, logged(logrus.InfoLevel), 3)
		assert.Regexp(t, `^log stream restored after 1m\d`, logged(logrus.InfoLevel)[1])
		inspects := 0
		for _, call := range client.called() {
			if strings.HasPrefix(call, "ContainerInspect") {
				inspects++
			}
		}
		assert.Less(t, inspects, 120) // an idle minute and 20 requests
		assert.Greater(t, time.Since(begin), time.Minute)
	})
}

// Following ends when the container is gone, or another one has its name.
func TestFollowedLogsEndWithTheContainer(t *testing.T) {
	t.Parallel()
	unknown := errors.New("Error response from daemon: No such container: " + taskName)
	other := logContainer("running")
	other.ContainerJSONBase.ID = "c2"
	dying := answer{"can not get logs from container which is dead or marked for removal", cerrdefs.ErrConflict}
	for _, test := range []struct {
		name    string
		inspect func() (container.InspectResponse, error)
		logs    error
	}{
		{"removed", func() (container.InspectResponse, error) { return container.InspectResponse{}, unknown }, nil},
		{"another in its place", func() (container.InspectResponse, error) { return other, nil }, nil},
		{"removed after the inspect", func() (container.InspectResponse, error) { return logContainer("running"), nil }, unknown},
		{"being removed", func() (container.InspectResponse, error) { return logContainer("dead"), nil }, dying},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				l := &fakeLog{records: []logRecord{twoLines[0], {1, "2026-01-02T03:04:07.000000000Z", "unfinished"}}}
				client := newFakeClient(t)
				client.containerInspect = func(context.Context, string) (container.InspectResponse, error) {
					if len(l.requests) == 0 {
						return logContainer("running"), nil
					}
					return test.inspect()
				}
				client.containerLogs = func(_ context.Context, _ string, o container.LogsOptions) (io.ReadCloser, error) {
					if len(l.requests) > 0 {
						return nil, test.logs
					}
					return l.open(o, -1, nil), nil
				}
				var sink logSink
				require.NoError(t, newTestAdapter(t, client, plainTask()).PublishLogs(t.Context(), api.LogSubscriptionOptions{Follow: true}, &sink))
				assert.Equal(t, []string{"stdout one\n", "stdout unfinished"}, sink.lines())
			})
		})
	}
}

// A container that is renamed while it is followed is followed on, by its ID.
func TestFollowedLogsOutlastARename(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := &fakeLog{records: twoLines}
		client := newFakeClient(t)
		client.containerInspect = func(_ context.Context, name string) (container.InspectResponse, error) {
			answer := logContainer("running")
			if len(l.requests) > 0 {
				if name != "c1" {
					return container.InspectResponse{}, cerrdefs.ErrNotFound
				}
				answer = logContainer("exited")
				answer.Name = "/renamed"
			}
			return answer, nil
		}
		client.containerLogs = func(_ context.Context, _ string, o container.LogsOptions) (io.ReadCloser, error) {
			return l.open(o, len(l.requests)*1000+50, nil), nil
		}
		var sink logSink
		ctx, _ := logged(t)
		require.NoError(t, newTestAdapter(t, client, plainTask()).PublishLogs(ctx, api.LogSubscriptionOptions{Follow: true}, &sink))
		assert.Equal(t, []string{"stdout one\n", "stderr two\n"}, sink.lines())
		assert.Equal(t, []string{"ContainerInspect " + taskName, "ContainerLogs " + taskName,
			"ContainerInspect " + taskName, "ContainerInspect c1", "ContainerLogs c1"}, client.called())
	})
}

// While it waits for the start, a lost event stream or an engine that is away
// ends nothing.
func TestFollowedLogsWaitForTheStartOfAnEngineThatIsAway(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := &fakeLog{records: twoLines}
		client := newFakeClient(t)
		begin := time.Now()
		client.containerInspect = func(context.Context, string) (container.InspectResponse, error) {
			switch since := time.Since(begin); {
			case since < 10*time.Second:
				return logContainer("created"), nil
			case since < time.Minute:
				return container.InspectResponse{}, errDown
			case since < 2*time.Minute:
				return logContainer("running"), nil
			}
			return logContainer("exited"), nil
		}
		client.events = func(_ context.Context, _ events.ListOptions) (<-chan events.Message, <-chan error) {
			errs := make(chan error, 1)
			if since := time.Since(begin); since < time.Minute {
				time.AfterFunc(20*time.Second, func() { errs <- io.ErrUnexpectedEOF })
			}
			return make(chan events.Message), errs
		}
		client.containerLogs = func(_ context.Context, _ string, o container.LogsOptions) (io.ReadCloser, error) {
			return l.open(o, -1, nil), nil
		}
		var sink logSink
		ctx, _ := logged(t)
		require.NoError(t, newTestAdapter(t, client, plainTask()).PublishLogs(ctx, api.LogSubscriptionOptions{Follow: true}, &sink))
		assert.Equal(t, []string{"stdout one\n", "stderr two\n"}, sink.lines())
		assert.Less(t, time.Since(begin), 3*time.Minute)
	})
}
