package dockerexec

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/docker/docker/api/types/container"
	gogotypes "github.com/gogo/protobuf/types"
	"github.com/moby/swarmkit/v2/api"
	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// resumed follows a log of which each answer breaks off behind what there is, and
// then there is more: parts are what is added for each. What the last one added is
// read with the container's end.
func resumed(t *testing.T, l *fakeLog, options api.LogSubscriptionOptions, parts ...[]logRecord) (sink *logSink, warnings []string) {
	t.Helper()
	ctx, logged := logged(t)
	client := newFakeClient(t)
	client.containerInspect = func(context.Context, string) (container.InspectResponse, error) {
		if len(parts) == 1 {
			return logContainer("exited"), nil
		}
		return logContainer("running"), nil
	}
	client.containerLogs = func(_ context.Context, _ string, o container.LogsOptions) (io.ReadCloser, error) {
		l.records = append(l.records[:len(l.records):len(l.records)], parts[0]...)
		if parts = parts[1:]; len(parts) > 0 {
			return l.open(o, -1, io.ErrUnexpectedEOF), nil
		}
		return l.open(o, -1, nil), nil
	}
	options.Follow = true
	sink = &logSink{}
	require.NoError(t, newTestAdapter(t, client, plainTask()).PublishLogs(ctx, options, sink))
	return sink, logged(logrus.WarnLevel)
}

func record(second string, stream byte, text string) logRecord {
	return logRecord{stream, "2026-01-02T03:04:" + second + "Z", text}
}

const lostWarning = "log stream lost; it will be resumed"

func TestResumedLogs(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name    string
		options api.LogSubscriptionOptions
		parts   [][]logRecord
		want    []string
	}{
		{
			name: "the clock is set back, long before the breaks",
			parts: [][]logRecord{
				{record("40.000000000", 1, "a\n"), record("49.000000000", 1, "b\n"), record("59.000000000", 1, "c\n"), record("20.000000000", 1, "d\n"), record("48.000000000", 1, "e\n")},
				{record("48.500000000", 1, "f\n")},
				{record("49.500000000", 1, "g\n")},
			},
			want: []string{"stdout a\n", "stdout b\n", "stdout c\n", "stdout d\n", "stdout e\n", "stdout f\n", "stdout g\n"},
		},
		{
			name:    "the clock is set back behind a tail",
			options: api.LogSubscriptionOptions{Tail: -3},
			parts: [][]logRecord{
				{record("39.000000000", 1, "left out\n"), record("40.000000000", 1, "a\n"), record("20.000000000", 1, "b\n")},
				{record("25.000000000", 1, "c\n"), record("26.000000000", 1, "d\n")},
			},
			want: []string{"stdout a\n", "stdout b\n", "stdout c\n", "stdout d\n"},
		},
		{
			name:    "a tail whose last line is a little older than its first",
			options: api.LogSubscriptionOptions{Tail: -3},
			parts: [][]logRecord{
				{record("09.000000000", 1, "left out\n"), record("10.000000002", 1, "a\n"), record("10.000000001", 2, "b\n")},
				{record("20.000000000", 1, "c\n")},
			},
			want: []string{"stdout a\n", "stderr b\n", "stdout c\n"},
		},
		{
			name:    "what since leaves out stays out",
			options: api.LogSubscriptionOptions{Since: &gogotypes.Timestamp{Seconds: 1767323050}}, // 03:04:10
			parts: [][]logRecord{
				{record("08.000000000", 2, "left out\n"), record("10.000000000", 1, "a\n")},
				{record("11.000000000", 1, "b\n")},
			},
			want: []string{"stdout a\n", "stdout b\n"},
		},
	} {
		for _, dropsSince := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, newer engine %t", test.name, dropsSince), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					sink, warnings := resumed(t, &fakeLog{dropsSince: dropsSince}, test.options, test.parts...)
					assert.Equal(t, test.want, sink.lines())
					for _, warning := range warnings {
						assert.Equal(t, lostWarning, warning)
					}
				})
			})
		}
	}
}

// What is new comes, with a gap, though the engine's clock was once an hour ahead and
// the last line is lost: after what the engine sends again, nothing is taken for it.
func TestNewLogLinesAfterALostOneOfAClockSetBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var cursor logCursor
		take := func(sec int64) (taken, gap bool) { return cursor.take(api.LogStreamStdout, logTime{sec: sec}) }
		cursor.begin()
		cursor.answered(time.Now())
		take(4600)
		take(1000)
		cursor.begin()
		cursor.answered(time.Now())
		taken, _ := take(2000) // perhaps of before the clock was set back
		assert.False(t, taken)
		time.Sleep(time.Minute)
		taken, gap := take(2060)
		assert.True(t, taken)
		assert.True(t, gap)
		taken, gap = take(2061)
		assert.True(t, taken)
		assert.False(t, gap)
	})
}

// Nothing of before the call comes, however often the stream breaks before the
// first line.
func TestLogsOfNothingBeforeGoOnFromTheFirstAnswer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) { // the bubble's clock begins in 2000
		sink, _ := resumed(t, &fakeLog{}, api.LogSubscriptionOptions{Tail: -1},
			[]logRecord{{1, "1999-12-31T23:59:59.999999999Z", "old\n"}},
			[]logRecord{},
			[]logRecord{{1, "2000-01-01T00:00:00.050000000Z", "new\n"}}) // between the first break and the second answer
		assert.Equal(t, []string{"stdout new\n"}, sink.lines())
	})
}

// A gap is behind the last message of both streams, and is seen where the lines of
// the other one come again.
func TestGapInLogsOfTwoStreams(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := &fakeLog{details: "k=v"}
		ctx, logged := logged(t)
		client := newFakeClient(t)
		client.containerInspect = func(context.Context, string) (container.InspectResponse, error) {
			answer := logContainer("running")
			if len(l.requests) > 0 {
				answer = logContainer("exited")
			}
			answer.HostConfig = &container.HostConfig{LogConfig: container.LogConfig{Config: map[string]string{"labels": "k"}}}
			return answer, nil
		}
		client.containerLogs = func(_ context.Context, _ string, o container.LogsOptions) (io.ReadCloser, error) {
			if len(l.requests) == 0 {
				l.records = []logRecord{record("10.000000009", 2, "b\n"), record("10.000000003", 1, "a\n")}
				return l.open(o, -1, io.ErrUnexpectedEOF), nil
			}
			l.records = []logRecord{record("10.000000009", 2, "b\n"), record("12.000000000", 2, "c\n")}
			return l.open(o, -1, nil), nil
		}
		var sink logSink
		require.NoError(t, newTestAdapter(t, client, plainTask()).PublishLogs(ctx, api.LogSubscriptionOptions{Follow: true}, &sink))
		assert.Equal(t, []string{"stderr b\n", "stdout a\n", "stderr c\n"}, sink.lines())
		assert.Equal(t, []api.LogAttr{{Key: "com.dockerexec.log.gap", Value: "2026-01-02T03:04:10.000000003Z"}, {Key: "k", Value: "v"}}, sink.messages[2].Attrs)
		assert.Equal(t, []string{lostWarning,
			"log lines after 2026-01-02T03:04:10.000000003Z and before 2026-01-02T03:04:12Z may be missing: the engine no longer has the last one"}, logged(logrus.WarnLevel))
	})
}

// Fewer pieces than were taken are left of the last time: what is behind them is
// behind a gap.
func TestGapBehindPiecesOfWhichSomeAreLost(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := &fakeLog{}
		ctx, logged := logged(t)
		client := newFakeClient(t)
		statuses(client, "running", "exited")
		client.containerLogs = func(_ context.Context, _ string, o container.LogsOptions) (io.ReadCloser, error) {
			if len(l.requests) == 0 {
				l.records = []logRecord{record("10.000000000", 1, "one, "), record("10.000000000", 1, "two, ")}
				return l.open(o, -1, io.ErrUnexpectedEOF), nil
			}
			l.records = []logRecord{record("10.000000000", 1, "three\n"), record("11.000000000", 1, "next\n")}
			return l.open(o, -1, nil), nil
		}
		var sink logSink
		require.NoError(t, newTestAdapter(t, client, plainTask()).PublishLogs(ctx, api.LogSubscriptionOptions{Follow: true}, &sink))
		assert.Equal(t, []string{"stdout one, two, ", "stdout next\n"}, sink.lines())
		assert.Len(t, logged(logrus.WarnLevel), 2)
	})
}

// Answers that all break off after as many bytes get on, though they begin with
// what has come before.
func TestResumedLogsOfShortAnswersGetOn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := &fakeLog{}
		for i := range 100 {
			l.records = append(l.records, record(fmt.Sprintf("10.%09d", i), 1, "x\n"))
		}
		ctx, _ := logged(t)
		ctx, cancel := context.WithTimeout(ctx, time.Hour)
		defer cancel()
		client := newFakeClient(t)
		statuses(client, "running")
		client.containerLogs = func(_ context.Context, _ string, o container.LogsOptions) (io.ReadCloser, error) {
			return l.open(o, 410, io.ErrUnexpectedEOF), nil // ten lines
		}
		sink := logSink{onLine: func(n int) error {
			if n == 100 {
				cancel()
			}
			return nil
		}}
		require.Equal(t, context.Canceled, newTestAdapter(t, client, plainTask()).PublishLogs(ctx, api.LogSubscriptionOptions{Follow: true}, &sink))
		assert.Less(t, len(l.requests), 200)
	})
}

// A message resets the pauses between the requests.
func TestResumedLogsAreAskedForSoonAfterALine(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := &fakeLog{}
		ctx, _ := logged(t)
		client := newFakeClient(t)
		statuses(client, "running")
		var last time.Time
		var longest time.Duration
		client.containerLogs = func(_ context.Context, _ string, o container.LogsOptions) (io.ReadCloser, error) {
			if n := len(l.requests); n >= 20 { // the pauses had grown to seconds, then a line came each time
				longest = max(longest, time.Since(last))
			}
			if n := len(l.requests); n >= 19 {
				l.records = append(l.records, record(fmt.Sprintf("%02d.000000000", n), 1, "x\n"))
			}
			last = time.Now()
			return l.open(o, -1, io.ErrUnexpectedEOF), nil
		}
		sink := logSink{onLine: func(n int) error {
			if n == 20 {
				return errors.New("enough")
			}
			return nil
		}}
		require.EqualError(t, newTestAdapter(t, client, plainTask()).PublishLogs(ctx, api.LogSubscriptionOptions{Follow: true}, &sink), "enough")
		assert.Positive(t, longest)
		assert.LessOrEqual(t, longest, 100*time.Millisecond)
	})
}

// The beginning of a line is handed on before the error that ends the log, but not
// to a publisher that has refused.
func TestUnfinishedLogLineBeforeAnError(t *testing.T) {
	t.Parallel()
	client := newFakeClient(t)
	statuses(client, "running")
	text := bytes.Join([][]byte{frame(1, plainTime+"half a line"), frame(2, plainTime+"half another"), frame(3, "Error grabbing logs: bad file\n")}, nil)
	client.containerLogs = func(context.Context, string, container.LogsOptions) (io.ReadCloser, error) {
		return &fakeBody{text: bytes.NewReader(text), end: io.EOF}, nil
	}
	for _, follow := range []bool{false, true} {
		var sink logSink
		err := newTestAdapter(t, client, plainTask()).PublishLogs(t.Context(), api.LogSubscriptionOptions{Follow: follow}, &sink)
		require.EqualError(t, err, "logs of container "+taskName+": Error grabbing logs: bad file")
		assert.Equal(t, []string{"stdout half a line", "stderr half another"}, sink.lines())

		refusing := logSink{onLine: func(int) error { return errors.New("no more") }}
		err = newTestAdapter(t, client, plainTask()).PublishLogs(t.Context(), api.LogSubscriptionOptions{Follow: follow}, &refusing)
		require.EqualError(t, err, "logs of container "+taskName+": Error grabbing logs: bad file")
		assert.Equal(t, []string{"stdout half a line"}, refusing.lines())
	}
}

// A publisher that has refused a line gets no other, a held one neither.
func TestNothingIsPublishedBehindARefusal(t *testing.T) {
	t.Parallel()
	l := &fakeLog{records: []logRecord{{2, "2026-01-02T03:04:05.000000006Z", "half a line"}, {1, "2026-01-02T03:04:05.000000007Z", "one\n"}}}
	_, adapter := publishing(t, l, []string{"exited"})
	sink := logSink{onLine: func(int) error { return errors.New("no more") }}
	require.EqualError(t, adapter.PublishLogs(t.Context(), api.LogSubscriptionOptions{}, &sink), "no more")
	assert.Equal(t, []string{"stdout one\n"}, sink.lines())
}

// Nothing is published after the end of the context, though it is there to be read.
func TestLogsBehindTheEndOfTheContextAreNotPublished(t *testing.T) {
	t.Parallel()
	client := newFakeClient(t)
	statuses(client, "exited")
	client.containerLogs = func(context.Context, string, container.LogsOptions) (io.ReadCloser, error) {
		return &fakeBody{text: bytes.NewReader(bytes.Repeat(frame(1, plainTime+"one\n"), 5)), end: io.EOF}, nil
	}
	ctx, cancel := context.WithCancel(t.Context())
	sink := logSink{onLine: func(n int) error {
		if n == 2 {
			cancel()
		}
		return nil
	}}
	require.Equal(t, context.Canceled, newTestAdapter(t, client, plainTask()).PublishLogs(ctx, api.LogSubscriptionOptions{}, &sink))
	assert.Len(t, sink.messages, 2)
}

// A container that is removed before it was started, or made again, is not waited for.
func TestFollowedLogsOfAContainerThatNeverStarts(t *testing.T) {
	t.Parallel()
	for name, next := range map[string]string{"removed": "", "made again": "c2"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T) {
				client := newFakeClient(t)
				newEventSource(client)
				inspects := 0
				client.containerInspect = func(_ context.Context, id string) (container.InspectResponse, error) {
					if inspects++; inspects <= 2 {
						return logContainer("created"), nil
					}
					if next == "" || id == "c1" {
						return container.InspectResponse{}, errors.New("Error response from daemon: No such container: " + id)
					}
					answer := logContainer("created")
					answer.ContainerJSONBase.ID = next
					return answer, nil
				}
				ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
				defer cancel()
				require.NoError(t, newTestAdapter(t, client, plainTask()).PublishLogs(ctx, api.LogSubscriptionOptions{Follow: true}, &logSink{}))
			})
		})
	}
}

// A container that is being removed is read to the end of its log.
func TestLogsOfAContainerThatIsBeingRemovedAreNotFollowed(t *testing.T) {
	t.Parallel()
	l := &fakeLog{records: twoLines}
	_, adapter := publishing(t, l, []string{"removing", "exited"})
	var sink logSink
	require.NoError(t, adapter.PublishLogs(t.Context(), api.LogSubscriptionOptions{Follow: true}, &sink))
	assert.Equal(t, []string{"stdout one\n", "stderr two\n"}, sink.lines())
	assert.False(t, l.requests[0].Follow)
}

// An engine that ends each answer though the container runs is reported, once.
func TestLogsThatTheEngineEndsAgainAndAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := &fakeLog{records: twoLines}
		ctx, logged := logged(t)
		ctx, cancel := context.WithTimeout(ctx, time.Hour)
		defer cancel()
		_, adapter := publishing(t, l, []string{"running"})
		var sink logSink
		require.Equal(t, context.DeadlineExceeded, adapter.PublishLogs(ctx, api.LogSubscriptionOptions{Follow: true}, &sink))
		assert.Equal(t, []string{"stdout one\n", "stderr two\n"}, sink.lines())
		assert.Equal(t, []string{"the engine ends the log although the container runs; it is asked again"}, logged(logrus.WarnLevel))
	})
}

// A line of a TTY beyond the cap is refused wherever the reads part it.
func TestLogLineOfATTYBeyondTheCap(t *testing.T) {
	t.Parallel()
	for _, size := range []int{maxLogMessage - len(plainTime), 3 << 19} {
		reader := newPlainReader(strings.NewReader(plainTime+strings.Repeat("x", size)+"\n"), false)
		_, _, err := reader.next()
		require.EqualError(t, err, "log line of more than 1048576 bytes on a TTY", size)
	}
}
