package engine_test

import (
	"context"
	"fmt"
	"io"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	engineapi "github.com/docker/docker/client"
	"github.com/docker/docker/pkg/stdcopy"
	"github.com/dockerexec/dockerexec"
	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/moby/swarmkit/v2/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// startLogging starts a container of the test image's program with args.
func startLogging(t *testing.T, client *engineapi.Client, task *api.Task, opts ...dockerexec.Option) *dockerexec.ContainerAdapter {
	t.Helper()
	adapter, err := dockerexec.NewContainerAdapter(client, nil, task, nil, opts...)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, adapter.Remove(context.WithoutCancel(t.Context()))) })
	require.NoError(t, adapter.PullImage(t.Context()))
	require.NoError(t, adapter.Create(t.Context()))
	require.NoError(t, adapter.Start(t.Context()))
	return adapter
}

// numberedLines expects the lines of the test program's "lines" command.
type numberedLines struct {
	t    *testing.T
	size int
	n    int
}

func (l *numberedLines) Publish(_ context.Context, m api.LogMessage) error {
	l.n++
	if want := fmt.Sprintf("%010d", l.n); len(m.Data) != l.size || string(m.Data[:10]) != want || m.Data[l.size-1] != '\n' {
		return fmt.Errorf("line %s of %d bytes is %q", want, l.size, m.Data)
	}
	return nil
}

// 300,000 lines arrive complete and in order, at the default rate and without
// limit, and then in at most 1.5 times what the engine's own client takes to copy them.
func TestEngineLogsOfAnyLength(t *testing.T) {
	const size = 90
	lines := 300_000
	if isPodman() { // needs a minute or more to send so many
		lines = 20_000
	}
	client := engineClient(t)
	task := engineTask(t, "lines", fmt.Sprint(lines), fmt.Sprint(size), "0")
	adapter := startLogging(t, client, task)
	_, err := adapter.Wait(t.Context())
	require.NoError(t, err)

	sink := &numberedLines{t: t, size: size}
	begin := time.Now()
	require.NoError(t, adapter.PublishLogs(t.Context(), api.LogSubscriptionOptions{}, sink))
	took := time.Since(begin)
	require.Equal(t, lines, sink.n)
	t.Logf("at the default rate: %v", took)
	if !isPodman() {
		assert.Greater(t, took, 1500*time.Millisecond) // 27 MB, of which 10 MiB come at once
	}

	unlimited, err := dockerexec.NewContainerAdapter(client, nil, task, nil, dockerexec.WithLogRate(0))
	require.NoError(t, err)
	const limit, rounds = 1.5, 5
	var ours, theirs time.Duration
	for round := range rounds { // in turn, and the best of each: the machine may be busy
		for _, follow := range []bool{false, true} {
			sink = &numberedLines{t: t, size: size}
			begin = time.Now()
			require.NoError(t, unlimited.PublishLogs(t.Context(), api.LogSubscriptionOptions{Follow: follow}, sink))
			took = time.Since(begin)
			require.Equal(t, lines, sink.n)
			if ours == 0 || took < ours {
				ours = took
			}
		}

		begin = time.Now()
		body, err := client.ContainerLogs(t.Context(), adapter.ContainerName(), container.LogsOptions{ShowStdout: true, ShowStderr: true, Timestamps: true})
		require.NoError(t, err)
		written, err := stdcopy.StdCopy(io.Discard, io.Discard, body)
		took = time.Since(begin)
		require.NoError(t, err)
		require.NoError(t, body.Close())
		if isPodman() { // parts some lines, each piece with a time of its own
			require.Greater(t, written, int64(lines*(len("2006-01-02T15:04:05Z")+1+size)))
		} else {
			require.Equal(t, int64(lines*(len("2006-01-02T15:04:05.000000000Z")+1+size)), written)
		}
		if theirs == 0 || took < theirs {
			theirs = took
		}
		ratio := float64(ours) / float64(theirs)
		t.Logf("without limit: %v, the engine's client: %v, ratio %.2f", ours, theirs, ratio)
		if ratio <= limit {
			return
		}
		assert.Less(t, round, rounds-1, "the ratio is over %v", limit)
	}
}

// timeWithinALine is what Podman puts into a line of a TTY wherever one of its reads has ended.
var timeWithinALine = regexp.MustCompile(`[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:]{8}Z `)

// A follow that begins before the container is made gets every line of it; of a
// TTY too.
func TestEngineFollowedLogsBeforeTheStart(t *testing.T) {
	sharesEngine(t)
	client := engineClient(t)
	for _, tty := range []bool{false, true} {
		size := 40_000
		if tty && isPodman() {
			size = 1000
		}
		task := engineTask(t, "lines", "3", fmt.Sprint(size), "0")
		spec(task).TTY = tty
		adapter, err := dockerexec.NewContainerAdapter(client, nil, task, nil)
		require.NoError(t, err)
		t.Cleanup(func() { assert.NoError(t, adapter.Remove(context.WithoutCancel(t.Context()))) })
		var sink logSink
		done := make(chan error, 1)
		go func() {
			done <- adapter.PublishLogs(t.Context(), api.LogSubscriptionOptions{Follow: true}, &sink)
		}()
		require.NoError(t, adapter.PullImage(t.Context()))
		require.NoError(t, adapter.Create(t.Context()))
		time.Sleep(100 * time.Millisecond) // let it see the container before it is started
		require.NoError(t, adapter.Start(t.Context()))
		require.NoError(t, <-done)

		end := "\n"
		if tty {
			end = "\r\n"
		}
		require.Len(t, sink.messages, 3)
		for i, m := range sink.messages {
			// Three pieces of the engine's are one line again.
			want, got := fmt.Sprintf("%010d", i+1)+strings.Repeat(".", size-11)+end, string(m.Data)
			if tty && isPodman() {
				got = timeWithinALine.ReplaceAllString(got, "")
			}
			assert.True(t, want == got, "line %d, TTY %t: %d bytes", i, tty, len(got))
			assert.Equal(t, api.LogStreamStdout, m.Stream)
			assert.WithinDuration(t, time.Now(), time.Unix(m.Timestamp.Seconds, 0), time.Hour)
		}
	}
}

// A line that is written in parts, seconds apart, is one line.
func TestEngineLogOfALineInParts(t *testing.T) {
	sharesEngine(t)
	client := engineClient(t)
	adapter := startLogging(t, client, engineTask(t, "parts", "1100ms", "one ", "two ", "three", "--", "lines", "2", "5000", "0"))
	for _, follow := range []bool{true, false} {
		var sink logSink
		require.NoError(t, adapter.PublishLogs(t.Context(), api.LogSubscriptionOptions{Follow: follow}, &sink))
		end := strings.Repeat(".", 5000-11) + "\n"
		assert.Equal(t, []string{"stdout one two three\n", "stdout 0000000001" + end, "stdout 0000000002" + end}, sink.lines())
	}
}

func TestEngineLogDetails(t *testing.T) {
	sharesEngine(t)
	client := engineClient(t)
	task := engineTask(t, "print", "1")
	spec(task).Labels = map[string]string{"a": "x y,=z%", "b": "2", "not": "asked for"}
	spec(task).Env = []string{"E=é&"}
	task.Spec.LogDriver = &api.Driver{Name: "json-file", Options: map[string]string{"labels": "a,b", "env": "E"}}
	adapter := startLogging(t, client, task)
	_, err := adapter.Wait(t.Context())
	require.NoError(t, err)
	var sink logSink
	require.NoError(t, adapter.PublishLogs(t.Context(), api.LogSubscriptionOptions{}, &sink))
	assert.ElementsMatch(t, []string{"stdout line 1\n", "stderr line on stderr\n"}, sink.lines())
	want := []api.LogAttr{{Key: "E", Value: "é&"}, {Key: "a", Value: "x y,=z%"}, {Key: "b", Value: "2"}}
	if isPodman() { // which sends none
		want = nil
	}
	for _, m := range sink.messages {
		assert.Equal(t, want, m.Attrs)
	}
}

func TestEngineLogOptions(t *testing.T) {
	sharesEngine(t)
	client := engineClient(t)
	adapter := startLogging(t, client, engineTask(t, "lines", "10", "20", "0"))
	_, err := adapter.Wait(t.Context())
	require.NoError(t, err)
	var all logSink
	require.NoError(t, adapter.PublishLogs(t.Context(), api.LogSubscriptionOptions{}, &all))
	require.Len(t, all.messages, 10)
	sinceTheNinth := all.lines()[8:]
	if isPodman() { // whose times are whole seconds
		sinceTheNinth = nil
		for _, m := range all.messages {
			if m.Timestamp.Seconds == all.messages[8].Timestamp.Seconds {
				sinceTheNinth = append(sinceTheNinth, "stdout "+string(m.Data))
			}
		}
	}
	for _, test := range []struct {
		options api.LogSubscriptionOptions
		want    []string
	}{
		{api.LogSubscriptionOptions{Streams: []api.LogStream{api.LogStreamStderr}}, nil},
		{api.LogSubscriptionOptions{Streams: []api.LogStream{api.LogStreamStdout}, Tail: -3}, []string{"stdout 0000000009.........\n", "stdout 0000000010.........\n"}},
		{api.LogSubscriptionOptions{Tail: -1}, nil},
		{api.LogSubscriptionOptions{Since: all.messages[8].Timestamp}, sinceTheNinth},
	} {
		for _, follow := range []bool{false, true} {
			test.options.Follow = follow
			var sink logSink
			require.NoError(t, adapter.PublishLogs(t.Context(), test.options, &sink))
			assert.Equal(t, test.want, sink.lines(), "%+v", test.options)
		}
	}
}

func TestEngineLogDriverThatCannotBeRead(t *testing.T) {
	sharesEngine(t)
	client := engineClient(t)
	task := engineTask(t, "print", "1")
	task.Spec.LogDriver = &api.Driver{Name: "none"}
	adapter := startLogging(t, client, task)
	want := "configured logging driver does not support reading"
	if isPodman() {
		want = "this container is using the 'none' log driver, cannot read logs"
	}
	for _, follow := range []bool{false, true} {
		err := adapter.PublishLogs(t.Context(), api.LogSubscriptionOptions{Follow: follow}, &logSink{})
		require.ErrorContains(t, err, want)
		assert.False(t, exec.IsTemporary(err))
	}
}
