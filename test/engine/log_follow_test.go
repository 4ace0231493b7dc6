package engine_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"github.com/docker/docker/api/types/container"
	engineapi "github.com/docker/docker/client"
	"github.com/dockerexec/dockerexec"
	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/moby/swarmkit/v2/api"
	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// keptLines reads the log that the engine itself keeps, whatever is torn in it
// left out.
func keptLines(t *testing.T, path string) (lines []string) {
	t.Helper()
	file, err := os.Open(path)
	require.NoError(t, err)
	defer file.Close()
	in, pieces := bufio.NewScanner(file), ""
	for in.Scan() {
		var kept struct{ Log, Stream string }
		if isPodman() { // TIME STREAM F LINE, or P for a piece of a line
			parts := strings.SplitN(in.Text(), " ", 4)
			require.Len(t, parts, 4)
			pieces += parts[3]
			if parts[2] == "F" {
				lines, pieces = append(lines, parts[1]+" "+pieces+"\n"), ""
			}
			continue
		}
		if json.Unmarshal(in.Bytes(), &kept) != nil {
			t.Logf("torn: %q", in.Text())
			continue
		}
		lines = append(lines, kept.Stream+" "+kept.Log)
	}
	require.NoError(t, in.Err())
	return lines
}

// The engine is killed and comes back, twice, while a container logs 1,000 lines
// a second: what it kept arrives, all of it and nothing twice.
func TestEngineLogsSurviveTheEngine(t *testing.T) {
	fromHarness(t, "DOCKEREXEC_TEST_ENGINE")
	client := engineClient(t)
	adapter := startLogging(t, client, engineTask(t, "lines", "12000", "90", "1000"))
	answer, err := adapter.Inspect(t.Context())
	require.NoError(t, err)

	var sink logSink
	done := make(chan error, 1)
	ctx, logLines := logged(t)
	go func() {
		done <- adapter.PublishLogs(ctx, api.LogSubscriptionOptions{Follow: true}, &sink)
	}()
	for range 2 {
		time.Sleep(2 * time.Second) // it logs
		controlEngine(t, "kill")
		controlEngine(t, "start")
	}
	_, err = adapter.Wait(t.Context())
	require.NoError(t, err)
	require.NoError(t, <-done)

	kept := keptLines(t, answer.LogPath)
	t.Logf("%d of 12000 lines kept by the engine", len(kept))
	assert.Greater(t, len(kept), 10_000)
	got := sink.lines()
	for i := range min(len(kept), len(got)) {
		require.Equal(t, kept[i], got[i], "line %d", i)
	}
	assert.Len(t, got, len(kept))
	warnings := logLines.at(logrus.WarnLevel) // one for both kills if the log was not resumed in between
	require.NotEmpty(t, warnings)
	assert.Equal(t, slices.Repeat([]string{"log stream lost; it will be resumed"}, min(len(warnings), 2)), warnings)
}

// 50 followers of 50 containers are closed at random: no goroutine, connection or
// descriptor is left.
func TestEngineLogFollowersLeaveNothing(t *testing.T) {
	engineClient(t)
	fds, goroutines := openDescriptors(t), runtime.NumGoroutine()

	client, err := engineapi.NewClientWithOpts(engineapi.WithHost(fromHarness(t, "DOCKEREXEC_TEST_HOST")))
	require.NoError(t, err)
	engine := dockerexec.NewEngine(client)
	const followers = 50
	var wg sync.WaitGroup
	var lines [followers]int
	var adapters [followers]*dockerexec.ContainerAdapter
	gate := make(chan struct{}, 4) // an engine starts containers slowly
	for i := range followers {
		adapters[i], err = engine.Adapter(nil, engineTask(t, "lines", "1000000", "90", "50"), nil)
		require.NoError(t, err)
		wg.Go(func() {
			gate <- struct{}{}
			defer func() { <-gate }()
			if assert.NoError(t, adapters[i].PullImage(t.Context())) && assert.NoError(t, adapters[i].Create(t.Context())) {
				assert.NoError(t, adapters[i].Start(t.Context()))
			}
		})
	}
	wg.Wait()
	for i, adapter := range adapters {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			last := 1 + rand.N(100) // 50 come in a second
			err := adapter.PublishLogs(ctx, api.LogSubscriptionOptions{Follow: true},
				exec.LogPublisherFunc(func(context.Context, api.LogMessage) error {
					if lines[i]++; lines[i] == last {
						cancel()
					}
					return nil
				}))
			assert.Equal(t, context.Canceled, err)
		})
	}
	wg.Wait()
	for _, n := range lines {
		assert.Positive(t, n)
	}
	for _, adapter := range adapters {
		wg.Go(func() {
			gate <- struct{}{}
			defer func() { <-gate }()
			assert.NoError(t, adapter.Remove(t.Context()))
		})
	}
	wg.Wait()
	require.NoError(t, client.Close())
	assert.Eventually(t, func() bool { return openDescriptors(t) <= fds && runtime.NumGoroutine() <= goroutines+1 }, 10*time.Second, 50*time.Millisecond,
		"%d descriptors and %d goroutines before", fds, goroutines)
}

// What rotation throws away while nobody reads is a gap, and is told to the
// publisher. (Engine 20.10 repeats some lines at each rotation of a log that is
// followed, so here nobody follows then.)
func TestEngineLogGap(t *testing.T) {
	sharesEngine(t)
	client := engineClient(t)
	task := engineTask(t, "lines", "5000", "90", "5000")
	task.Spec.LogDriver = &api.Driver{Name: "json-file", Options: map[string]string{"max-size": "100k", "max-file": "2"}}
	adapter := startLogging(t, client, task)
	cutting := &cuttingClient{Client: client, beforeSecond: func() {
		_, err := adapter.Wait(t.Context())
		assert.NoError(t, err)
	}}
	reader, err := dockerexec.NewContainerAdapter(cutting, nil, task, nil)
	require.NoError(t, err)
	var sink logSink
	ctx, logLines := logged(t)
	require.NoError(t, reader.PublishLogs(ctx, api.LogSubscriptionOptions{Follow: true}, &sink))
	var gaps int
	last := 0
	for i, line := range sink.lines() {
		var n int
		_, err := fmt.Sscanf(line, "stdout %d", &n)
		require.NoError(t, err)
		require.Greater(t, n, last)
		marked := len(sink.messages[i].Attrs) > 0
		if marked {
			gaps++
		}
		require.Equal(t, last > 0 && n != last+1, marked, "line %d after %d", n, last)
		last = n
	}
	assert.Equal(t, 5000, last)
	assert.Equal(t, 1, gaps)
	assert.Len(t, logLines.at(logrus.WarnLevel), 2)
}

// cuttingClient breaks the first log off.
type cuttingClient struct {
	*engineapi.Client
	requests     int
	beforeSecond func()
}

func (c *cuttingClient) ContainerLogs(ctx context.Context, name string, options container.LogsOptions) (io.ReadCloser, error) {
	c.requests++
	switch c.requests {
	case 1:
		body, err := c.Client.ContainerLogs(ctx, name, options)
		if err != nil {
			return nil, err
		}
		defer body.Close()
		text := make([]byte, 10_000)
		n, err := io.ReadFull(body, text)
		return io.NopCloser(io.MultiReader(bytes.NewReader(text[:n]), iotest.ErrReader(io.ErrUnexpectedEOF))), err
	case 2:
		c.beforeSecond()
	}
	return c.Client.ContainerLogs(ctx, name, options)
}

// The clock was set back between the third and the fourth line, and the stream breaks
// behind the fifth. Asked again, the engine sends lines of before; they are not taken
// for new ones.
func TestEngineLogsOfAClockThatWasSetBack(t *testing.T) {
	sharesEngine(t)
	client := engineClient(t)
	task := engineTask(t, "lines", "5", "20", "0")
	task.Spec.LogDriver = &api.Driver{Name: "json-file"}
	adapter := startLogging(t, client, task)
	answer, err := adapter.Wait(t.Context())
	require.NoError(t, err)
	kept, err := os.ReadFile(answer.LogPath)
	require.NoError(t, err)
	var changed []byte
	for i, line := range bytes.Split(bytes.TrimSpace(kept), []byte("\n")) {
		var entry map[string]string
		require.NoError(t, json.Unmarshal(line, &entry))
		entry["time"] = "2026-01-02T03:04:" + []string{"40", "49", "59", "20", "48"}[i] + ".000000001Z"
		line, err = json.Marshal(entry)
		require.NoError(t, err)
		changed = append(append(changed, line...), '\n')
	}
	require.NoError(t, os.WriteFile(answer.LogPath, changed, 0o640))

	breaking := &breakingClient{Client: client}
	reader, err := dockerexec.NewContainerAdapter(breaking, nil, task, nil)
	require.NoError(t, err)
	var sink logSink
	ctx, warned := logged(t)
	require.NoError(t, reader.PublishLogs(ctx, api.LogSubscriptionOptions{Follow: true}, &sink))
	assert.Len(t, sink.lines(), 5)
	assert.Equal(t, []string{"log stream lost; it will be resumed"}, warned.at(logrus.WarnLevel))
	require.Len(t, breaking.answers, 2)
	assert.Contains(t, string(breaking.answers[1]), "03:04:59.000000001Z", "of before the clock was set back")
}

// breakingClient notes what the engine sends, and breaks the first log off at its end.
type breakingClient struct {
	*engineapi.Client
	answers [][]byte
}

func (c *breakingClient) ContainerLogs(ctx context.Context, name string, options container.LogsOptions) (io.ReadCloser, error) {
	body, err := c.Client.ContainerLogs(ctx, name, options)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	text, err := io.ReadAll(body)
	c.answers = append(c.answers, text)
	ends := io.Reader(bytes.NewReader(text))
	if len(c.answers) == 1 {
		ends = io.MultiReader(ends, iotest.ErrReader(io.ErrUnexpectedEOF))
	}
	return io.NopCloser(ends), err
}

// damagedLog starts a container that logs 400 lines, and damages the engine's file of
// them with damage, which gets the records of the lines.
func damagedLog(t *testing.T, tty bool, damage func(records [][]byte) []byte) (*api.Task, *dockerexec.ContainerAdapter) {
	t.Helper()
	task := engineTask(t, "lines", "400", "90", "0")
	spec(task).TTY = tty
	task.Spec.LogDriver = &api.Driver{Name: "json-file"}
	adapter := startLogging(t, engineClient(t), task)
	answer, err := adapter.Wait(t.Context())
	require.NoError(t, err)
	kept, err := os.ReadFile(answer.LogPath)
	require.NoError(t, err)
	records := bytes.SplitAfter(kept, []byte("\n"))
	require.Len(t, records, 401)
	require.NoError(t, os.WriteFile(answer.LogPath, damage(records[:400]), 0o640))
	return task, adapter
}

// numbersOf returns the numbers of the lines, in runs, and "gap" for each that is marked.
func numbersOf(t *testing.T, sink *logSink) (runs []string) {
	t.Helper()
	begin, last := 0, 0
	end := func() {
		if begin > 0 {
			runs = append(runs, fmt.Sprintf("%d-%d", begin, last))
		}
	}
	for i, line := range sink.lines() {
		var n int
		_, err := fmt.Sscanf(line, "stdout %d", &n)
		require.NoError(t, err)
		isGap := len(sink.messages[i].Attrs) > 0
		if begin == 0 || n != last+1 || isGap {
			end()
			begin = n
		}
		if isGap {
			assert.Equal(t, dockerexec.AttrLogGap, sink.messages[i].Attrs[0].Key)
			runs = append(runs, "gap")
		}
		last = n
	}
	end()
	return runs
}

// A record that was torn as the host was killed, and the one that was written behind it,
// cannot be read. All others come, and where some are missing is marked.
func TestEngineLogOfADamagedFile(t *testing.T) {
	sharesEngine(t)
	torn := func(at int, records [][]byte) { records[at] = records[at][:50] } // with the next record behind it
	for _, test := range []struct {
		name   string
		tty    bool
		damage func(records [][]byte)
		tail   int64
		want   []string
	}{
		{name: "torn", damage: func(r [][]byte) { torn(42, r) }, want: []string{"1-42", "gap", "45-400"}},
		{name: "torn-TTY", tty: true, damage: func(r [][]byte) { torn(42, r) }, want: []string{"1-42", "gap", "45-400"}},
		{name: "torn-near-the-end", damage: func(r [][]byte) { torn(397, r) }, want: []string{"1-397", "gap", "400-400"}},
		{name: "torn-twice", damage: func(r [][]byte) { torn(42, r); torn(300, r) }, want: []string{"1-42", "gap", "45-300", "gap", "303-400"}},
		{name: "torn-a-tail-behind-it", damage: func(r [][]byte) { torn(42, r) }, tail: -6, want: []string{"396-400"}},
		{name: "torn-within-the-tail", damage: func(r [][]byte) { torn(390, r) }, tail: -21, want: []string{"379-390", "gap", "393-400"}},
		{name: "zeros", damage: func(r [][]byte) { r[100] = append(make([]byte, 1000), r[100]...) }, want: []string{"1-100", "gap", "102-400"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, adapter := damagedLog(t, test.tty, func(records [][]byte) []byte {
				test.damage(records)
				return bytes.Join(records, nil)
			})
			for _, follow := range []bool{false, true} {
				var sink logSink
				ctx, warned := logged(t)
				require.NoError(t, adapter.PublishLogs(ctx, api.LogSubscriptionOptions{Follow: follow, Tail: test.tail}, &sink))
				got := numbersOf(t, &sink)
				warnings := strings.Join(warned.at(logrus.WarnLevel), "\n")
				if !slices.Equal(test.want, got) && !atLeast(engineClient(t).ClientVersion(), "1.42") {
					// It leaves out more behind the damage, and goes on; that is warned of.
					assert.Equal(t, test.want[0], got[0])
					assert.Regexp(t, "-400$", got[len(got)-1])
				} else {
					assert.Equal(t, test.want, got, "follow %t", follow)
				}
				assert.Equal(t, len(test.want) > 1, strings.Contains(warnings, "missing: the engine's file of the log is damaged"), warnings)
			}
		})
	}
}

// The engine is killed as it writes a record, and the container logs on. A follower that
// comes later gets all lines that can be read, and those that the container logs then.
func TestEngineLogsBehindATornRecordAreFollowed(t *testing.T) {
	fromHarness(t, "DOCKEREXEC_TEST_ENGINE")
	client := engineClient(t)
	task := engineTask(t, "lines", "100", "90", "0", "--", "lines", "40", "90", "10")
	task.Spec.LogDriver = &api.Driver{Name: "json-file"}
	adapter := startLogging(t, client, task)
	answer, err := adapter.Inspect(t.Context())
	require.NoError(t, err)
	require.Eventually(t, func() bool { return len(keptLines(t, answer.LogPath)) > 110 }, 10*time.Second, 10*time.Millisecond)
	controlEngine(t, "kill")
	text, err := os.ReadFile(answer.LogPath)
	require.NoError(t, err)
	require.NoError(t, os.Truncate(answer.LogPath, int64(len(text)-20)))
	controlEngine(t, "start")
	require.Eventually(t, func() bool {
		kept, err := os.ReadFile(answer.LogPath)
		return err == nil && bytes.Count(kept, []byte("\n")) > bytes.Count(text, []byte("\n"))+2
	}, 10*time.Second, 10*time.Millisecond)

	var sink logSink
	ctx, _ := logged(t)
	require.NoError(t, adapter.PublishLogs(ctx, api.LogSubscriptionOptions{Follow: true}, &sink))
	got := sink.lines()
	want := keptLines(t, answer.LogPath)
	assert.Equal(t, want, got)
	gaps := 0
	for _, m := range sink.messages {
		gaps += len(m.Attrs)
	}
	assert.Equal(t, 1, gaps)
}

// The last lines are lines, and not the pieces in which an engine keeps a long one.
func TestEngineTailsHaveWholeLines(t *testing.T) {
	sharesEngine(t)
	client := engineClient(t)
	for _, driver := range []string{"json-file", "local"} {
		for _, tty := range []bool{false, true} {
			for _, size := range []int{20, 40_000, 300_000} {
				if size > 16<<10 && tty && driver == "local" && !atLeast(client.ClientVersion(), "1.42") {
					continue // nothing parts such lines there: 20.10 keeps no newline of them
				}
				if size > 8<<10 && tty && isPodman() {
					continue // its lines have times inside
				}
				task := engineTask(t, "lines", "5", fmt.Sprint(size), "0")
				spec(task).TTY = tty
				task.Spec.LogDriver = &api.Driver{Name: driver}
				adapter := startLogging(t, client, task)
				_, err := adapter.Wait(t.Context())
				require.NoError(t, err)
				for tail, want := range map[int64][]string{-1: nil, -2: {"5-5"}, -3: {"4-5"}, -5: {"2-5"}, -6: {"1-5"}, -100: {"1-5"}} {
					for _, follow := range []bool{false, true} {
						var sink logSink
						require.NoError(t, adapter.PublishLogs(t.Context(), api.LogSubscriptionOptions{Tail: tail, Follow: follow}, &sink))
						assert.Equal(t, want, numbersOf(t, &sink), "%s, TTY %t, %d bytes, tail %d, follow %t", driver, tty, size, tail, follow)
						for _, m := range sink.messages {
							assert.GreaterOrEqual(t, len(m.Data), size-1) // as above
						}
					}
				}
			}
		}
	}
}

// The last lines of one stream are not those of both.
func TestEngineTailOfOneStream(t *testing.T) {
	sharesEngine(t)
	client := engineClient(t)
	task := engineTask(t, "print", "3", "before", "--", "lines", "300", "50", "0", "--", "sleep", "3s")
	adapter := startLogging(t, client, task)
	answer, err := adapter.Inspect(t.Context())
	require.NoError(t, err)
	require.Eventually(t, func() bool { return len(keptLines(t, answer.LogPath)) == 305 }, 10*time.Second, 10*time.Millisecond)
	for _, follow := range []bool{false, true} {
		var sink logSink
		require.NoError(t, adapter.PublishLogs(t.Context(), api.LogSubscriptionOptions{Tail: -2, Streams: []api.LogStream{api.LogStreamStderr}, Follow: follow}, &sink))
		assert.Equal(t, []string{"stderr before on stderr\n"}, sink.lines())
	}
}
