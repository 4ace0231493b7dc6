package dockerexec

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/docker/docker/api/types/container"
	"github.com/moby/swarmkit/v2/api"
	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// mixedLines is what testdata/logs/mixed.txt holds, by stream.
var mixedLines = struct{ stdout, stderr, both []string }{
	stdout: []string{
		"stdout alone\n",
		"stdout same time, first\n",
		"stdout same time, second\n",
		"stdout same time, third\n",
		"stdout a long line, in three pieces\n",
		"stdout another line of that time\n",
		"stdout also long\n",
		"stdout \n",
		"stdout read earlier, kept later\n",
		"stdout a minute later\n",
		"stdout never finished",
	},
	stderr: []string{
		"stderr same time, on stderr\n",
		"stderr between the pieces, and earlier\n",
		"stderr long on stderr\n",
		"stderr late\n",
		"stderr a minute later\n",
		"stderr a minute later\n",
	},
	both: []string{
		"stdout alone\n",
		"stdout same time, first\n",
		"stdout same time, second\n",
		"stderr same time, on stderr\n",
		"stdout same time, third\n",
		"stderr between the pieces, and earlier\n",
		"stdout a long line, in three pieces\n",
		"stdout another line of that time\n",
		"stderr long on stderr\n",
		"stdout also long\n",
		"stdout \n",
		"stderr late\n",
		"stdout read earlier, kept later\n",
		"stdout a minute later\n",
		"stderr a minute later\n",
		"stderr a minute later\n",
		"stdout never finished",
	},
}

// A stream with lines of equal times, lines in pieces and times that step back
// is cut at every byte, resumed, cut once more and resumed: the lines are those
// of an uncut one. Both ways in which engines treat since, and a TTY.
func TestLogsCutAtEveryByteAreComplete(t *testing.T) {
	t.Parallel()
	records := readLogRecords(t, "testdata/logs/mixed.txt")
	for _, test := range []struct {
		name    string
		streams []api.LogStream
		want    []string
		log     *fakeLog
	}{
		{"both", nil, mixedLines.both, &fakeLog{}},
		{"both, newer engine", nil, mixedLines.both, &fakeLog{dropsSince: true}},
		{"stdout", []api.LogStream{api.LogStreamStdout}, mixedLines.stdout, &fakeLog{}},
		{"stdout, newer engine", []api.LogStream{api.LogStreamStdout}, mixedLines.stdout, &fakeLog{dropsSince: true}},
		{"stderr", []api.LogStream{api.LogStreamStderr}, mixedLines.stderr, &fakeLog{}},
		{"stderr, newer engine", []api.LogStream{api.LogStreamStderr}, mixedLines.stderr, &fakeLog{dropsSince: true}},
		{"details", nil, mixedLines.both, &fakeLog{details: "a=b"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			test.log.records = records
			cutEverywhere(t, test.log, test.streams, test.want, 1)
		})
	}
}

// The same with what a running engine (20.10) has sent, a line of 40,000 bytes
// among it; also of a TTY, where nothing but its own time parts the pieces of such
// a line. It is cut at every byte around each header and time, and in its long line
// here and there.
func TestRecordedLogsCutAreComplete(t *testing.T) {
	t.Parallel()
	long := "stdout 0000000001" + strings.Repeat(".", 39989)
	frames := []string{"stderr line on stderr\n", "stderr line on stderr\n", // kept first, as it happened
		"stdout line 1\n", "stdout line 2\n", "stdout line 3\n", long + "\n", "stdout line 1\n", "stdout line 2\n"}
	tty := []string{"stdout line 1\r\n", "stdout line 2\r\n", "stdout line 3\r\n", "stdout line on stderr\r\n",
		long + "\r\n", "stdout line 1\r\n", "stdout line 2\r\n", "stdout line on stderr\r\n"}
	for _, test := range []struct {
		name string
		log  *fakeLog
		want []string
	}{
		{"frames", &fakeLog{records: readRawLog(t, "testdata/logs/frames.raw", false)}, frames},
		{"TTY", &fakeLog{records: readRawLog(t, "testdata/logs/tty.raw", true), tty: true}, tty},
		{"TTY with details", &fakeLog{records: readRawLog(t, "testdata/logs/tty.raw", true), tty: true, details: "a=b"}, tty},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			cutEverywhere(t, test.log, nil, test.want, 491)
		})
	}
}

// cutEverywhere follows the log once for each step bytes of it, and for each byte from
// 20 before to 60 behind where a message begins: the first answer ends there, the
// second one a little further, the third and the last one whole.
func cutEverywhere(t *testing.T, l *fakeLog, streams []api.LogStream, want []string, step int) {
	all := container.LogsOptions{ShowStdout: true, ShowStderr: true, Details: l.details != ""}
	whole := len(l.answer(all))
	require.NotZero(t, whole)
	near := map[int]bool{}
	for n := range l.records {
		begin := len((&fakeLog{records: l.records[:n], tty: l.tty, details: l.details}).answer(all))
		for i := range 80 {
			near[begin+i-20] = true
		}
	}
	synctest.Test(t, func(t *testing.T) {
		ctx, _ := logged(t)
		for cut := 0; cut <= whole; cut++ {
			if cut%step != 0 && !near[cut] {
				continue
			}
			client := newFakeClient(t)
			tries := 0
			client.containerInspect = func(context.Context, string) (container.InspectResponse, error) {
				answer := logContainer("running")
				if tries >= 3 {
					answer = logContainer("exited")
				}
				answer.Config.Tty = l.tty
				if l.details != "" {
					answer.HostConfig = &container.HostConfig{LogConfig: container.LogConfig{Config: map[string]string{"labels": "a"}}}
				}
				return answer, nil
			}
			client.containerLogs = func(_ context.Context, _ string, o container.LogsOptions) (io.ReadCloser, error) {
				switch tries++; tries {
				case 1:
					return l.open(o, cut, io.ErrUnexpectedEOF), nil
				case 2:
					return l.open(o, cut+cut/3, io.ErrUnexpectedEOF), nil
				}
				return l.open(o, -1, nil), nil
			}
			var sink logSink
			err := newTestAdapter(t, client, plainTask()).PublishLogs(ctx, api.LogSubscriptionOptions{Follow: true, Streams: streams}, &sink)
			require.NoError(t, err)
			if got := sink.lines(); !slices.Equal(want, got) {
				require.Equal(t, abridged(want), abridged(got), "cut after %d bytes", cut)
			}
		}
	})
	for _, body := range l.bodies {
		require.Equal(t, 1, body.closed)
	}
}

// abridged has the lengths of long lines in place of their middles.
func abridged(lines []string) []string {
	lines = slices.Clone(lines)
	for i, line := range lines {
		if len(line) > 80 {
			lines[i] = fmt.Sprintf("%s… (%d) …%s", line[:30], len(line), line[len(line)-30:])
		}
	}
	return lines
}

// follow publishes the log of a container that runs until its log has been asked
// for n times, the first time cut after that many bytes.
func follow(t *testing.T, l *fakeLog, cut, n int, options api.LogSubscriptionOptions) (lines []api.LogMessage, requests []container.LogsOptions, logs func(logrus.Level) []string) {
	ctx, logs := logged(t)
	client := newFakeClient(t)
	var sink logSink
	client.containerInspect = func(context.Context, string) (container.InspectResponse, error) {
		if len(l.requests) >= n {
			return logContainer("exited"), nil
		}
		return logContainer("running"), nil
	}
	client.containerLogs = func(_ context.Context, _ string, o container.LogsOptions) (io.ReadCloser, error) {
		if len(l.requests) == 0 {
			return l.open(o, cut, io.ErrUnexpectedEOF), nil
		}
		return l.open(o, -1, nil), nil
	}
	options.Follow = true
	require.NoError(t, newTestAdapter(t, client, plainTask()).PublishLogs(ctx, options, &sink))
	return sink.messages, l.requests, logs
}

func TestResumedLogRequestAsksForAllSinceTheLastLine(t *testing.T) {
	t.Parallel()
	l := &fakeLog{records: []logRecord{
		{1, "2026-01-02T03:04:00.000000001Z", "one\n"},
		{1, "2026-01-02T03:04:10.000000002Z", "two\n"},
		{1, "2026-01-02T03:04:20.000000003Z", "three\n"},
	}}
	synctest.Test(t, func(t *testing.T) {
		messages, requests, _ := follow(t, l, 60, 2, api.LogSubscriptionOptions{Tail: -3})
		both := container.LogsOptions{ShowStdout: true, ShowStderr: true, Timestamps: true}
		want := []container.LogsOptions{both, both, both}
		want[0].Follow, want[0].Tail = true, "2"
		want[1].Follow, want[1].Since = true, "1767323050.000000002" // what the tail left out stays out
		want[2].Since = "1767323055.000000003"                       // five seconds before the last line
		assert.Equal(t, want, requests)
		assert.Equal(t, []string{"stdout two\n", "stdout three\n"}, (&logSink{messages: messages}).lines())
	})
}

// With a tail of nothing and a stream that breaks before the first line, what
// came meanwhile is not lost.
func TestResumedLogWithoutTailBeginsWhereItWasOpened(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) { // the bubble's clock begins in 2000
		l := &fakeLog{records: []logRecord{{1, "1999-12-31T23:59:59.999999999Z", "old\n"}}}
		client := newFakeClient(t)
		statuses(client, "running", "running", "exited")
		client.containerLogs = func(_ context.Context, _ string, o container.LogsOptions) (io.ReadCloser, error) {
			body := l.open(o, -1, io.ErrUnexpectedEOF)
			if len(l.requests) == 1 {
				l.records = append(l.records, logRecord{1, "2000-01-01T00:00:00.000000000Z", "new\n"})
			} else {
				body.(*fakeBody).end = io.EOF
			}
			return body, nil
		}
		var sink logSink
		ctx, _ := logged(t)
		require.NoError(t, newTestAdapter(t, client, plainTask()).PublishLogs(ctx, api.LogSubscriptionOptions{Follow: true, Tail: -1}, &sink))
		assert.Equal(t, []string{"stdout new\n"}, sink.lines())
	})
}

// What the engine has thrown away meanwhile is reported, to the publisher and in
// the log, and a line whose rest is lost is handed on as far as it is known.
func TestGapInLogsIsReported(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := &fakeLog{records: []logRecord{
			{1, "2026-01-02T03:04:00.000000001Z", "one\n"},
			{1, "2026-01-02T03:04:00.000000002Z", "half a "},
			{1, "2026-01-02T03:04:00.000000002Z", "line\n"},
		}}
		ctx, logged := logged(t)
		client := newFakeClient(t)
		statuses(client, "running", "exited")
		client.containerLogs = func(_ context.Context, _ string, o container.LogsOptions) (io.ReadCloser, error) {
			if len(l.requests) == 0 {
				body := l.open(o, 8+35+8+38, io.ErrUnexpectedEOF) // two messages
				l.records = []logRecord{                          // rotated
					{1, "2026-01-02T03:04:03.000000000Z", "nine\n"},
					{2, "2026-01-02T03:04:03.000000001Z", "ten\n"},
				}
				return body, nil
			}
			return l.open(o, -1, nil), nil
		}
		var sink logSink
		require.NoError(t, newTestAdapter(t, client, plainTask()).PublishLogs(ctx, api.LogSubscriptionOptions{Follow: true}, &sink))
		assert.Equal(t, []string{"stdout one\n", "stdout half a ", "stdout nine\n", "stderr ten\n"}, sink.lines())
		assert.Equal(t, [][]api.LogAttr{nil, nil, {{Key: "com.dockerexec.log.gap", Value: "2026-01-02T03:04:00.000000002Z"}}, nil},
			[][]api.LogAttr{sink.messages[0].Attrs, sink.messages[1].Attrs, sink.messages[2].Attrs, sink.messages[3].Attrs})
		assert.Equal(t, []string{"log stream lost; it will be resumed",
			"log lines after 2026-01-02T03:04:00.000000002Z and before 2026-01-02T03:04:03Z may be missing: the engine no longer has the last one"}, logged(logrus.WarnLevel))
	})
}

// Lines that come late, from a stream that has not been seen before, are no gap.
func TestNoGapWhereTheLastLineComesAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := &fakeLog{records: []logRecord{
			{1, "2026-01-02T03:04:00.000000009Z", "one\n"},
			{2, "2026-01-02T03:04:00.000000001Z", "read earlier\n"},
		}}
		messages, _, logged := follow(t, l, 8+35, 2, api.LogSubscriptionOptions{})
		assert.Equal(t, []string{"stdout one\n", "stderr read earlier\n"}, (&logSink{messages: messages}).lines())
		assert.Equal(t, []string{"log stream lost; it will be resumed"}, logged(logrus.WarnLevel))
		require.Len(t, logged(logrus.InfoLevel), 2)
		assert.Regexp(t, `^log stream restored after \d+`, logged(logrus.InfoLevel)[1])
	})
}
