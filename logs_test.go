package dockerexec

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/docker/docker/api/types/container"
	gogotypes "github.com/gogo/protobuf/types"
	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/moby/swarmkit/v2/api"
	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockerexec/dockerexec/dockerexectest"
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
	bubble(t, func(t *testing.T) {
		engine, _ := onFakeEngine(t, func(p *dockerexectest.Process) int {
			p.Sleep(5 * time.Second)
			fmt.Fprintln(p.Stdout, "plain")
			return 0
		})
		task := plainTask()
		spec(task).TTY = true
		adapter := adapterOn(t, engine, task)
		require.NoError(t, adapter.Create(t.Context()))
		require.NoError(t, adapter.Start(t.Context()))
		body, err := adapter.Logs(t.Context(), api.LogSubscriptionOptions{Follow: true})
		require.NoError(t, err)
		text, err := io.ReadAll(body)
		require.NoError(t, err)
		assert.Equal(t, "2000-01-01T00:00:05.000000000Z plain\r\n", string(text))
		require.NoError(t, body.Close())
		assert.Equal(t, []string{"follow=1&stderr=1&stdout=1&tail=&timestamps=1"}, logQueries(engine))
	})
}

const logsRequest = "GET /containers/*/logs"

// logQueries are the parameters of the requests for logs.
func logQueries(engine *dockerexectest.Engine) (queries []string) {
	for _, r := range engine.Requests() {
		if strings.HasSuffix(r.Path, "/logs") {
			queries = append(queries, r.Query.Encode())
		}
	}
	return queries
}

// logging is an engine with the container of a task, which has been started a minute ago,
// and an adapter of another process.
func logging(t testing.TB, program dockerexectest.Program, task *api.Task, opts ...Option) (*dockerexectest.Engine, *ContainerAdapter) {
	t.Helper()
	engine, _ := onFakeEngine(t, program)
	first := adapterOn(t, engine, task)
	require.NoError(t, first.Create(t.Context()))
	require.NoError(t, first.Start(t.Context()))
	time.Sleep(time.Minute)
	engine.ForgetRequests()
	return engine, adapterOn(t, engine, task, opts...)
}

// onBothStreams prints "one" to stdout and "two" to stderr, six seconds after its start and
// a second later. Then it runs next.
func onBothStreams(next dockerexectest.Program) dockerexectest.Program {
	return func(p *dockerexectest.Process) int {
		p.Sleep(6*time.Second + 6)
		fmt.Fprintln(p.Stdout, "one")
		p.Sleep(time.Second)
		fmt.Fprintln(p.Stderr, "two")
		return next(p)
	}
}

// printing prints a text at once, and ends.
func printing(text string) dockerexectest.Program {
	return func(p *dockerexectest.Process) int {
		fmt.Fprint(p.Stdout, text)
		return 0
	}
}

func TestBadLogOptionsReachNoEngine(t *testing.T) {
	t.Parallel()
	engine := dockerexectest.New(t)
	_, err := adapterOn(t, engine, plainTask()).Logs(t.Context(), api.LogSubscriptionOptions{Tail: 5})
	require.EqualError(t, err, "tail relative to start of logs not supported via docker API")
	assert.Empty(t, engine.Requests())
}

func TestPublishLogs(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		engine, adapter := logging(t, onBothStreams(obedient), plainTask())
		var sink logSink
		require.NoError(t, adapter.PublishLogs(t.Context(), api.LogSubscriptionOptions{}, &sink))
		from := api.LogContext{ServiceID: "serviceid", NodeID: "nodeid", TaskID: "taskid"}
		assert.Equal(t, []api.LogMessage{
			{Context: from, Timestamp: &gogotypes.Timestamp{Seconds: 946684806, Nanos: 6}, Stream: api.LogStreamStdout, Data: []byte("one\n")},
			{Context: from, Timestamp: &gogotypes.Timestamp{Seconds: 946684807, Nanos: 6}, Stream: api.LogStreamStderr, Data: []byte("two\n")},
		}, sink.messages)
		const inspect, logs = "GET /containers/web.1.taskid/json", "GET /containers/web.1.taskid/logs"
		assert.Equal(t, []string{inspect, logs, logs}, asked(engine))
		assert.Equal(t, []string{"stderr=1&stdout=1&tail=&timestamps=1", "stderr=1&stdout=1&tail=1&timestamps=1"},
			logQueries(engine), "the second one asks whether there is more behind the answer")
	})
}

func TestPublishLogsRefusesBadOptionsWithoutACall(t *testing.T) {
	t.Parallel()
	engine := dockerexectest.New(t)
	adapter := adapterOn(t, engine, plainTask())
	require.EqualError(t, adapter.PublishLogs(t.Context(), api.LogSubscriptionOptions{Tail: 5}, &logSink{}),
		"tail relative to start of logs not supported via docker API")
	require.EqualError(t, adapter.PublishLogs(t.Context(), api.LogSubscriptionOptions{}, nil), "dockerexec: the log publisher is nil")
	assert.Empty(t, engine.Requests())
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
	bubble(t, func(t *testing.T) {
		engine, adapter := logging(t, onBothStreams(obedient), plainTask())
		for _, status := range []string{"created", "paused", "restarting", "removing", "exited", "dead"} {
			engine.Container(taskName).AlterInspect(func(answer *container.InspectResponse) { answer.State.Status = status })
			var sink logSink
			began := time.Now()
			require.NoError(t, adapter.PublishLogs(t.Context(), api.LogSubscriptionOptions{}, &sink), status)
			assert.Len(t, sink.messages, 2, status)
			assert.Zero(t, time.Since(began), status)
		}
		engine.Container(taskName).RemoveByHand()
		err := adapter.PublishLogs(t.Context(), api.LogSubscriptionOptions{}, &logSink{})
		assert.True(t, IsUnknownContainer(err), "%v", err)
	})
}

// Labels and variables become attributes, and are asked for where the
// container's log options name some.
func TestLogDetailsBecomeAttributes(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		task := plainTask()
		task.Spec.LogDriver = &api.Driver{Name: "json-file", Options: map[string]string{"labels": "a,b"}}
		spec(task).Labels = map[string]string{"a": "1", "b": "x y,"}
		half := " half " + strings.Repeat("x", engineChunk-6)
		engine, adapter := logging(t, printing("one\n"+half+"and half\n"), task)
		var sink logSink
		require.NoError(t, adapter.PublishLogs(t.Context(), api.LogSubscriptionOptions{}, &sink))
		assert.Contains(t, logQueries(engine)[0], "details=1")
		assert.Equal(t, []string{"stdout one\n", "stdout " + half + "and half\n"}, sink.lines())
		for _, m := range sink.messages {
			assert.Equal(t, []api.LogAttr{{Key: "a", Value: "1"}, {Key: "b", Value: "x y,"}}, m.Attrs)
		}
	})
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
	for tty, want := range map[bool]string{false: "stdout one\n", true: "stdout one\r\n"} {
		bubble(t, func(t *testing.T) {
			task := plainTask()
			spec(task).TTY = tty
			engine, _ := logging(t, printing("one\n"), task)
			spec(task).TTY = !tty
			var sink logSink
			require.NoError(t, adapterOn(t, engine, task).PublishLogs(t.Context(), api.LogSubscriptionOptions{}, &sink))
			assert.Equal(t, []string{want}, sink.lines())
		})
	}
}

// A line beyond 1 MiB comes in several messages, of which the last one has the
// newline. Not a byte is lost.
func TestLogLineBeyondTheCap(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		_, adapter := logging(t, printing(strings.Repeat("x", 100*engineChunk)+"end\nnext\n"), plainTask())
		var sink logSink
		require.NoError(t, adapter.PublishLogs(t.Context(), api.LogSubscriptionOptions{}, &sink))
		require.Len(t, sink.messages, 3)
		assert.Len(t, sink.messages[0].Data, 1<<20)
		assert.Equal(t, strings.Repeat("x", 36*engineChunk)+"end\n", string(sink.messages[1].Data))
		assert.Equal(t, "next\n", string(sink.messages[2].Data))
	})
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
	const notReadable = "configured logging driver does not support reading"
	refused := errors.New("no more")
	for _, test := range []struct {
		name      string
		follow    bool
		fault     dockerexectest.Fault // of the request
		publisher error
		label     string
		want      string
		temporary bool
	}{
		{name: "log driver cannot be read", fault: dockerexectest.Refuse(501, notReadable), want: "logs of container " + taskName + ": Error response from daemon: " + notReadable},
		{name: "log driver cannot be read, following", follow: true, fault: dockerexectest.Refuse(501, notReadable), want: "logs of container " + taskName + ": Error response from daemon: " + notReadable},
		{name: "engine away", fault: dockerexectest.Drop(), want: "logs of container " + taskName + `: error during connect: Get "http://engine.test:2375/v1.51/containers/web.1.taskid/logs?stderr=1&stdout=1&tail=&timestamps=1": EOF`, temporary: true},
		{name: "stream broken", fault: dockerexectest.CutBody(8 + 31 + 4), want: "logs of container " + taskName + ": unexpected EOF", temporary: true},
		{name: "publisher's", publisher: refused, want: "no more"},
		{name: "publisher's, following", follow: true, publisher: io.EOF, want: "EOF"},
		{name: "another task's container", label: "other", want: "logs of container " + taskName + `: it (ID) is not this task's: its label com.docker.swarm.task.id is "other"`},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T) {
				engine, adapter := logging(t, onBothStreams(obedient), plainTask())
				if test.label != "" {
					engine.Container(taskName).RemoveByHand()
					stranger := engine.AddContainer(taskName, map[string]string{LabelTaskID: test.label})
					test.want = strings.Replace(test.want, "ID", stranger.ID()[:12], 1)
				} else {
					engine.FailNext(logsRequest, test.fault)
				}
				sink := logSink{onLine: func(int) error { return test.publisher }}
				err := adapter.PublishLogs(t.Context(), api.LogSubscriptionOptions{Follow: test.follow}, &sink)
				require.EqualError(t, err, test.want)
				assert.Equal(t, test.temporary, exec.IsTemporary(err))
				if test.publisher != nil {
					assert.Equal(t, test.publisher, err)
				}
			})
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
		engine, adapter := onFakeEngine(t, dockerexectest.Print(dockerexectest.Exit(0), "one", "two"))
		engine.FailAll(eventsRequest, dockerexectest.Refuse(403, "the path /events is not allowed"))
		require.NoError(t, adapter().Create(t.Context()))
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		var sink logSink
		publish := asynchronously(func() error {
			return adapter().PublishLogs(ctx, api.LogSubscriptionOptions{Follow: true}, &sink)
		})
		time.Sleep(time.Minute)
		require.NoError(t, engine.Client().ContainerStart(t.Context(), taskName, container.StartOptions{}))
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
			bubble(t, func(t *testing.T) {
				_, adapter := logging(t, printing(strings.Repeat(line, 1000)), plainTask(), test.opts...)
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
	bubble(t, func(t *testing.T) {
		_, adapter := logging(t, printing(strings.Repeat("x", 9999)+"\n"), plainTask(), WithLogRate(1000))
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
	bubble(t, func(t *testing.T) {
		_, adapter := logging(t, printing(strings.Repeat("x", 9999)+"\n"), plainTask(), WithLogRate(1000))
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
	for name, isCreated := range map[string]bool{"unknown": false, "created": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T) {
				engine, adapter := onFakeEngine(t, dockerexectest.Print(dockerexectest.Exit(0), "one", "two"))
				other := adapterOn(t, engine, plainTask())
				if isCreated {
					require.NoError(t, other.Create(t.Context()))
				}
				follower := adapter()
				engine.ForgetRequests()
				var sink logSink
				publish := asynchronously(func() error {
					return follower.PublishLogs(t.Context(), api.LogSubscriptionOptions{Follow: true}, &sink)
				})
				time.Sleep(time.Minute)
				assert.Less(t, engine.Requests().Count(inspectRequest), 5)
				if !isCreated {
					require.NoError(t, other.Create(t.Context()))
				}
				time.Sleep(time.Minute)
				assert.Less(t, engine.Requests().Count(inspectRequest), 9)
				assert.Empty(t, logQueries(engine))
				require.NoError(t, other.Start(t.Context()))
				require.NoError(t, publish())
				assert.Equal(t, []string{"stdout one\n", "stdout two\n"}, sink.lines())
			})
		})
	}
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
	for name, end := range map[string]func(*dockerexectest.Engine){
		"removed": func(e *dockerexectest.Engine) { e.Container(taskName).RemoveByHand() },
		"another in its place": func(e *dockerexectest.Engine) {
			e.Container(taskName).RemoveByHand()
			e.AddContainer(taskName, ofThisTask)
		},
		"removed after the inspect": func(e *dockerexectest.Engine) {
			e.FailNext(logsRequest, dockerexectest.Refuse(404, "No such container: "+taskName))
			e.Container(taskName).Exit(0)
		},
		"being removed": func(e *dockerexectest.Engine) { e.Container(taskName).SetDead() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T) {
				engine, adapter := logging(t, func(p *dockerexectest.Process) int {
					fmt.Fprint(p.Stdout, "one\nunfinished")
					return obedient(p)
				}, plainTask())
				var sink logSink
				publish := asynchronously(func() error {
					return adapter.PublishLogs(t.Context(), api.LogSubscriptionOptions{Follow: true}, &sink)
				})
				time.Sleep(time.Minute)
				end(engine)
				require.NoError(t, publish())
				assert.Equal(t, []string{"stdout one\n", "stdout unfinished"}, sink.lines())
			})
		})
	}
}

// A container that is renamed while it is followed is followed on, by its ID.
func TestFollowedLogsOutlastARename(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		engine, _ := onFakeEngine(t, onBothStreams(dockerexectest.ExitAfter(time.Minute, 0)))
		first := adapterOn(t, engine, plainTask())
		require.NoError(t, first.Create(t.Context()))
		require.NoError(t, first.Start(t.Context()))
		engine.ForgetRequests()
		for _, fault := range []dockerexectest.Fault{{}, {}, dockerexectest.CutBody(50)} { // the one that follows, inside the second message
			engine.FailNext(logsRequest, fault)
		}
		renamed := engine.Container(taskName)
		time.AfterFunc(6500*time.Millisecond, func() { renamed.Rename("renamed") })
		var sink logSink
		ctx, _ := logged(t)
		require.NoError(t, adapterOn(t, engine, plainTask()).PublishLogs(ctx, api.LogSubscriptionOptions{Follow: true}, &sink))
		assert.Equal(t, []string{"stdout one\n", "stderr two\n"}, sink.lines())
		const byName = "GET /containers/web.1.taskid"
		assert.Equal(t, []string{byName + "/json", byName + "/logs", byName + "/logs", byName + "/logs",
			byName + "/json", "GET /containers/ID/json", "GET /containers/ID/logs"}, asked(engine)[:7])
	})
}

// While it waits for the start, a lost event stream or an engine that is away
// ends nothing.
func TestFollowedLogsWaitForTheStartOfAnEngineThatIsAway(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		engine, adapter := onFakeEngine(t, onBothStreams(dockerexectest.ExitAfter(time.Minute, 0)))
		require.NoError(t, adapter().Create(t.Context()))
		begin := time.Now()
		time.AfterFunc(10*time.Second, func() { engine.Restart(dockerexectest.RestartOptions{Away: 50 * time.Second}) })
		time.AfterFunc(time.Minute+time.Second, func() { assert.NoError(t, adapter().Start(t.Context())) })
		var sink logSink
		ctx, _ := logged(t)
		require.NoError(t, adapter().PublishLogs(ctx, api.LogSubscriptionOptions{Follow: true}, &sink))
		assert.Equal(t, []string{"stdout one\n", "stderr two\n"}, sink.lines())
		assert.Less(t, time.Since(begin), 3*time.Minute)
	})
}
