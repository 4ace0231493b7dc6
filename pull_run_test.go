package dockerexec

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	engineapi "github.com/docker/docker/client"
	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/moby/swarmkit/v2/api"
	"github.com/moby/swarmkit/v2/log"
	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockerexec/dockerexec/dockerexectest"
)

func TestPullMessageSize(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		body string
		err  string
	}{
		"1 MiB, status":       {`{"status":"` + strings.Repeat("x", 1<<20) + `"}{"status":"end"}`, ""},
		"1 MiB, aux":          {`{"aux":{"x":"` + strings.Repeat("x", 1<<20) + `"}}{"status":"end"}`, ""},
		"1 MiB, error":        {`{"error":"denied: ` + strings.Repeat("x", 1<<20) + `"}`, "denied: " + strings.Repeat("x", maxErrorLength-11) + "…"},
		"too much":            {`{"status":"` + strings.Repeat("x", 5<<20) + `"}`, "the engine's answer cannot be read: a message is longer than 4194304 bytes"},
		"too much, of spaces": {strings.Repeat(" ", 5<<20) + `{"status":"end"}`, "the engine's answer cannot be read: a message is longer than 4194304 bytes"},
	} {
		for how, read := range map[string]func(body string) io.Reader{
			"": func(body string) io.Reader { return strings.NewReader(body) }, ", a byte at a time": byteAtATime,
			", by halves": func(body string) io.Reader { return iotest.HalfReader(strings.NewReader(body)) },
		} {
			t.Run(name+how, func(t *testing.T) {
				t.Parallel()
				client := pulling(t, func(context.Context) (io.ReadCloser, error) {
					return io.NopCloser(read(test.body)), nil
				})
				var last PullProgress
				err := newTestAdapter(t, client, pullTask("x"), WithPullObserver(func(_ context.Context, p PullProgress) { last = p })).PullImage(t.Context())
				if test.err == "" {
					require.NoError(t, err)
					assert.Equal(t, "end", last.Status)
					return
				}
				require.EqualError(t, err, "pull image x, attempt 1 of 3: "+test.err)
				assert.LessOrEqual(t, len(last.Status), maxStatusLength)
			})
		}
	}
}

// byteAtATime reads the body a byte at a time where something may depend on it: for 1,000 bytes at its
// begin, at its end, and on both sides of the limit of a message.
func byteAtATime(body string) io.Reader {
	var parts []io.Reader
	cut := func(length int) string {
		part := body[:min(length, len(body))]
		body = body[len(part):]
		return part
	}
	slowly := func(length int) { parts = append(parts, iotest.OneByteReader(strings.NewReader(cut(length)))) }
	fast := func(length int) { parts = append(parts, strings.NewReader(cut(length))) }
	slowly(1000)
	if len(body) > maxMessageSize {
		fast(maxMessageSize - 2000)
		slowly(2000)
	}
	fast(len(body) - 1000)
	slowly(1000)
	return io.MultiReader(parts...)
}

// A pull's memory depends neither on how many messages it has nor on how many
// layers they name.
func TestPullMemoryIsConstant(t *testing.T) {
	pullManyMessages(t, 100_000)
}

// pullManyMessages pulls with a stream of messages, each of a layer of its own or
// with a status of its own, and returns by how much the heap grew during it.
func pullManyMessages(t testing.TB, messages int) (grown uint64) {
	heap := func() uint64 {
		runtime.GC()
		var stats runtime.MemStats
		runtime.ReadMemStats(&stats)
		return stats.HeapAlloc
	}
	before := heap()
	most, n := before, 0
	body := &messageSource{next: func() string {
		if n == messages {
			return ""
		}
		if n%(messages/10) == 0 {
			most = max(most, heap())
		}
		n += 2
		number := strconv.Itoa(n)
		return `{"status":"Downloading","progressDetail":{"current":` + number + `},"id":"` + number + `"}{"status":"` + number + `"}`
	}}
	client := pulling(t, func(context.Context) (io.ReadCloser, error) { return io.NopCloser(body), nil })
	ctx, hook := logHook(t.Context())
	started := time.Now()
	var last PullProgress
	err := newTestAdapter(t, client, pullTask("x"), WithPullObserver(func(_ context.Context, p PullProgress) { last = p })).PullImage(ctx)
	require.NoError(t, err)
	assert.Equal(t, maxLayers, last.LayersTotal)
	assert.Less(t, most-before, uint64(8<<20))
	// A line for each layer that is followed, and for some statuses; else one a second.
	assert.LessOrEqual(t, len(hook.AllEntries()), maxLayers+maxTurns+2+int(time.Since(started)/time.Second))
	return most - before
}

// messageSource reads what next returns, until that is empty.
type messageSource struct {
	next func() string
	rest string
}

func (s *messageSource) Read(p []byte) (int, error) {
	if s.rest == "" {
		if s.rest = s.next(); s.rest == "" {
			return 0, io.EOF
		}
	}
	n := copy(p, s.rest)
	s.rest = s.rest[n:]
	return n, nil
}

func TestPullLogLines(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		body, script := scripted()
		go func() {
			defer script.Close()
			for i := range 1000 {
				status := "Downloading"
				if i >= 500 {
					status = "Extracting"
				}
				fmt.Fprintln(script, layerMessage(fmt.Sprint("layer", i%8), status, i, 1000, ""))
				time.Sleep(10 * time.Millisecond)
			}
		}()
		client := pulling(t, func(context.Context) (io.ReadCloser, error) { return body, nil })
		ctx, hook := logHook(t.Context())
		require.NoError(t, newTestAdapter(t, client, pullTask("x")).PullImage(ctx))
		turns, others := 0, 0
		status := map[any]any{}
		for _, e := range hook.AllEntries() {
			assert.Equal(t, "debug", e.Level.String())
			if e.Message != "pulling image" {
				assert.Equal(t, "image pulled", e.Message)
			} else if status[e.Data["layer"]] != e.Data["status"] {
				status[e.Data["layer"]] = e.Data["status"]
				turns++
			} else {
				others++
			}
		}
		assert.Equal(t, 16, turns)
		assert.LessOrEqual(t, others, 10)
		assert.GreaterOrEqual(t, others, 9)
	})
}

// Recorded pulls: testdata/pull/<engine>/<case>.http is an engine's answer to a
// pull: a line with status, content type and how the body ends ("cut": the
// connection breaks, "stalls": nothing more comes), then the body. <case>.want
// beside it, checked by hand, is what an observer and a log see of it, and how
// PullImage ends. The cases of "odd" are made up.

var updatePulls = flag.Bool("update-pulls", false, "write testdata/pull/*/*.want anew; read the difference before you commit it")

// messageInterval is the time between two messages of a replayed answer, longer
// than that between two calls of an observer.
const messageInterval = 150 * time.Millisecond

// replayBody is an answer's body, a message at a time.
type replayBody struct {
	recorded
	unread []byte
	closed chan struct{}
	close  func()
}

func newReplayBody(r recorded) *replayBody {
	b := &replayBody{recorded: r, closed: make(chan struct{})}
	b.close = sync.OnceFunc(func() { close(b.closed) })
	return b
}

func (b *replayBody) Read(p []byte) (int, error) {
	if len(b.unread) == 0 {
		select {
		case <-time.After(messageInterval):
		case <-b.closed:
			return 0, errors.New("read on a closed body")
		}
		end := bytes.IndexByte(b.body, '\n') + 1
		if end == 0 {
			end = len(b.body)
		}
		b.unread, b.body = b.body[:end], b.body[end:]
	}
	if len(b.unread) > 0 {
		n := copy(p, b.unread)
		b.unread = b.unread[n:]
		return n, nil
	}
	switch b.end {
	case "cut":
		return 0, io.ErrUnexpectedEOF
	case "stalls":
		<-b.closed
		return 0, errors.New("read on a closed body")
	}
	return 0, io.EOF
}

func (b *replayBody) Close() error {
	b.close()
	return nil
}

// replayClient is a real client of an engine that answers every pull with r.
func replayClient(t testing.TB, r recorded, wrap func(io.Reader) io.Reader) *engineapi.Client {
	t.Helper()
	transport := roundTrip(func(request *http.Request) (*http.Response, error) {
		answer := &http.Response{StatusCode: http.StatusOK, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: http.Header{}, Request: request}
		if strings.HasSuffix(request.URL.Path, "/_ping") {
			answer.Header.Set("Api-Version", "1.41")
			answer.Body = http.NoBody
			return answer, nil
		}
		assert.True(t, strings.HasSuffix(request.URL.Path, "/images/create"), request.URL.Path)
		answer.StatusCode = r.status
		answer.Header.Set("Content-Type", r.contentType)
		body := newReplayBody(r)
		answer.Body = struct {
			io.Reader
			io.Closer
		}{wrap(body), body}
		return answer, nil
	})
	client, err := engineapi.NewClientWithOpts(engineapi.WithHost("tcp://engine:2375"), engineapi.WithHTTPClient(&http.Client{Transport: transport}))
	require.NoError(t, err)
	return client
}

// replay pulls from a client that replays r and returns all that is to be seen.
func replay(t *testing.T, r recorded, wrap func(io.Reader) io.Reader) string {
	t.Helper()
	var progress, lines, end strings.Builder // each written by one goroutine
	synctest.Test(t, func(t *testing.T) {
		note := func(to *strings.Builder, format string, args ...any) { fmt.Fprintf(to, format+"\n", args...) }
		started := time.Now()
		since := func() string { return fmt.Sprintf("%5.2fs", time.Since(started).Seconds()) }

		logger := logrus.New()
		logger.SetOutput(io.Discard)
		logger.SetLevel(logrus.DebugLevel)
		logger.AddHook(hookFunc(func(e *logrus.Entry) {
			var fields []string
			for key, value := range e.Data {
				if strings.HasSuffix(key, ".id") {
					continue // of task, service and node; always the same
				}
				fields = append(fields, fmt.Sprintf("%s=%q", key, fmt.Sprint(value)))
			}
			slices.Sort(fields)
			note(&lines, "%s log %s %q %s", since(), e.Level, e.Message, strings.Join(fields, " "))
		}))
		ctx := log.WithLogger(t.Context(), logrus.NewEntry(logger))

		task := pullTask("registry/x:1")
		spec(task).PullOptions = &api.ContainerSpec_PullOptions{RegistryAuth: canaryAuth(t)}
		engine := NewEngine(replayClient(t, r, wrap), WithPullAttempts(1), WithPullStallTimeout(3100*time.Millisecond),
			WithPullObserver(func(_ context.Context, p PullProgress) {
				note(&progress, "%s progress %q layers %d+%d of %d, bytes %d of %d, %d a second, %v left", since(), p.Status,
					p.LayersDone, p.LayersActive, p.LayersTotal, p.BytesDone, p.BytesTotal, p.BytesPerSecond, p.Remaining.Round(time.Millisecond))
				assert.Equal(t, "registry/x:1", p.Image)
				assert.Equal(t, 1, p.Attempt)
			}))
		adapter, err := engine.Adapter(nil, task, nil)
		require.NoError(t, err)
		err = adapter.PullImage(ctx)
		note(&end, "%s error %v", since(), err)
		if err != nil {
			note(&end, "temporary %v, class %v", exec.IsTemporary(err), classesOf(err))
		}
	})
	return progress.String() + lines.String() + end.String()
}

type hookFunc func(*logrus.Entry)

func (hookFunc) Levels() []logrus.Level { return logrus.AllLevels }

func (f hookFunc) Fire(e *logrus.Entry) error {
	f(e)
	return nil
}

func TestPullRecorded(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/pull/*/*.http")
	require.NoError(t, err)
	require.GreaterOrEqual(t, len(files), 30)
	for _, file := range files {
		name := strings.TrimSuffix(strings.TrimPrefix(file, "testdata/pull/"), ".http")
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			answer := readRecorded(t, file)
			seen := replay(t, answer, func(r io.Reader) io.Reader { return r })
			assert.NotContains(t, seen, "canary")

			want := strings.TrimSuffix(file, ".http") + ".want"
			if *updatePulls {
				require.Empty(t, os.Getenv("CI"), "-update-pulls is for people, who read what changed")
				require.NoError(t, os.WriteFile(want, []byte(seen), 0o644))
			}
			expected, err := os.ReadFile(want)
			require.NoError(t, err)
			assert.Equal(t, string(expected), seen)
			assert.Equal(t, string(expected), replay(t, answer, iotest.OneByteReader), "a byte at a time")
		})
	}
}

// message is one of an engine's.
func layerMessage(id, status string, current, total int, units string) string {
	return fmt.Sprintf(`{"status":%q,"progressDetail":{"current":%d,"total":%d,"units":%q},"id":%q}`, status, current, total, units, id)
}

func TestPullStall(t *testing.T) {
	t.Parallel()
	const limit = 3 * time.Second
	type write func(format string, args ...any)
	every := func(n int, interval time.Duration, each func(i int)) {
		for i := range n {
			each(i)
			time.Sleep(interval)
		}
	}
	for name, test := range map[string]struct {
		script func(w write)
		after  time.Duration // the pull is cut; 0: it is not
		err    string
	}{
		"nothing is ever said": {
			script: func(write) { time.Sleep(time.Hour) },
			after:  limit,
			err:    "stalled: no answer from the engine for 3s",
		},
		"a byte now and then": {
			script: func(w write) {
				every(100, 2900*time.Millisecond, func(i int) { w(layerMessage("a", "Downloading", i, 1000, "")) })
			},
		},
		"an offset said over and over": {
			script: func(w write) {
				every(20, 100*time.Millisecond, func(i int) { w(layerMessage("a", "Downloading", i<<20, 100<<20, "")) })
				every(1000, 100*time.Millisecond, func(int) { w(layerMessage("a", "Downloading", 19<<20, 100<<20, "")) })
			},
			after: 1900*time.Millisecond + limit,
			err:   "stalled: no advance for 3s; it came to 0 of 1 layers, 19.92MB of 104.9MB",
		},
		"a slow layer, told by the MiB": {
			script: func(w write) {
				w(layerMessage("a", "Pulling fs layer", 0, 0, ""))
				time.Sleep(16 * time.Second)
				every(320, 100*time.Millisecond, func(i int) { w(layerMessage("a", "Downloading", (i/160+1)<<20, 3<<20, "")) })
			},
		},
		"a slow layer, told by the MiB, beside a quick one": {
			script: func(w write) {
				every(330, 100*time.Millisecond, func(i int) {
					w(layerMessage("a", "Downloading", min(i, 9)<<20, 9<<20, ""))
					w(layerMessage("b", "Downloading", i/160<<20, 3<<20, ""))
				})
			},
		},
		"a layer that is announced and never begins": {
			script: func(w write) {
				w(layerMessage("a", "Pulling fs layer", 0, 0, ""))
				time.Sleep(time.Hour)
			},
			after: 20 * time.Second,
			err:   "stalled: no advance for 20s; it came to 0 of 1 layers, 0B",
		},
		"a layer, told by the MiB, that never begins": {
			script: func(w write) {
				every(1000, 100*time.Millisecond, func(int) { w(layerMessage("a", "Downloading", 0, 3<<20, "")) })
			},
			after: 20 * time.Second,
			err:   "stalled: no advance for 20s; it came to 0 of 1 layers, 0B of 3.146MB",
		},
		"a layer, told by the MiB, that had to wait and hangs": {
			script: func(w write) {
				every(110, 10*time.Second, func(i int) {
					w(layerMessage("b", "Downloading", i+1, 1000, ""))
					if i == 0 {
						w(layerMessage("a", "Pulling fs layer", 0, 0, ""))
					}
				})
				w(layerMessage("b", "Pull complete", 0, 0, ""))
				every(1000, 100*time.Millisecond, func(int) { w(layerMessage("a", "Downloading", 1<<20, 3<<20, "")) })
			},
			after: 1100*time.Second + 40*time.Second,
			err:   "stalled: no advance for 40s; it came to 1 of 2 layers, 1.05MB of 3.147MB",
		},
		"a layer, told by the MiB, that was slow and hangs": {
			script: func(w write) {
				every(1000, 100*time.Millisecond, func(i int) { w(layerMessage("a", "Downloading", min(i/50, 1)<<20, 3<<20, "")) })
			},
			after: 5*time.Second + 10*time.Second,
			err:   "stalled: no advance for 10s; it came to 0 of 1 layers, 1.049MB of 3.146MB",
		},
		"a countdown said over and over": {
			script: func(w write) {
				w(layerMessage("a", "Downloading", 5, 9, ""))
				every(100, time.Second, func(i int) { w(layerMessage("a", fmt.Sprintf("Retrying in %d seconds", 100-i), 0, 0, "")) })
			},
			after: limit,
			err:   "stalled: no advance for 3s; it came to 0 of 1 layers, 0B of 9B",
		},
		"a status of its own for each message": {
			script: func(w write) {
				every(10000, time.Second, func(i int) { w(`{"status":"still at it: %d"}`, i) })
			},
			after: (maxTurns-1)*time.Second + limit,
			err:   "stalled: no advance for 3s; it came to 0 of 0 layers, 0B",
		},
		"two offsets by turns": {
			script: func(w write) {
				every(1000, time.Second, func(i int) { w(layerMessage("a", "Downloading", 5+i%2, 9, "")) })
			},
			after: (2*maxTurns+1)*time.Second + limit,
			err:   "stalled: no advance for 3s; it came to 0 of 1 layers, 6B of 9B",
		},
		"seconds of extraction": {
			script: func(w write) {
				w(layerMessage("a", "Download complete", 0, 0, ""))
				every(3500, time.Second, func(i int) { w(layerMessage("a", "Extracting", i+1, 0, "s")) })
				w(layerMessage("a", "Pull complete", 0, 0, ""))
			},
		},
		"seconds of an extraction without end": {
			script: func(w write) {
				every(4000, time.Second, func(i int) { w(layerMessage("a", "Extracting", i+1, 0, "s")) })
			},
			after: time.Hour,
			err:   "stalled: no advance for 1h0m0s; it came to 0 of 1 layers, 0B",
		},
		"bytes of extraction": {
			script: func(w write) {
				every(100, 59*time.Minute, func(i int) { w(layerMessage("a", "Extracting", i+1, 100, "")) })
			},
		},
		"silence between download and extraction, as with older engines": {
			script: func(w write) {
				w(layerMessage("a", "Download complete", 0, 0, ""))
				time.Sleep(59 * time.Minute)
			},
		},
		"a download that hangs beside an extraction": {
			script: func(w write) {
				w(layerMessage("b", "Downloading", 5, 9, ""))
				every(100, time.Second, func(i int) { w(layerMessage("a", "Extracting", i+1, 100, "")) })
			},
			after: limit,
			err:   "stalled: no advance for 3s; it came to 0 of 2 layers, 5B of 9B",
		},
		"a layer in the engine's queue": {
			script: func(w write) {
				w(layerMessage("a", "Pulling fs layer", 0, 0, ""))
				w(layerMessage("a", "Waiting", 0, 0, ""))
				time.Sleep(59 * time.Minute)
			},
		},
		"a last word that never comes": {
			script: func(w write) {
				w(layerMessage("a", "Already exists", 0, 0, ""))
				time.Sleep(time.Hour)
			},
			after: limit,
			err:   "stalled: no advance for 3s; it came to 1 of 1 layers, 0B",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				body, script := scripted()
				scriptEnded := make(chan struct{})
				defer func() { <-scriptEnded }()
				go func() {
					defer close(scriptEnded)
					defer script.Close()
					test.script(func(format string, args ...any) { fmt.Fprintf(script, format+"\n", args...) })
				}()
				client := pulling(t, func(context.Context) (io.ReadCloser, error) { return body, nil })
				started := time.Now()
				err := newTestAdapter(t, client, pullTask("x"), WithPullStallTimeout(limit)).PullImage(t.Context())
				if test.after == 0 {
					assert.NoError(t, err)
					return
				}
				require.EqualError(t, err, "pull image x, attempt 1 of 3: "+test.err)
				assert.False(t, exec.IsTemporary(err))
				assert.True(t, cerrdefs.IsUnavailable(err))
				require.ErrorIs(t, err, ErrPullStalled)
				assert.Equal(t, test.after, time.Since(started))
			})
		})
	}
}

func TestPullStallBeforeTheAnswer(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		engine := webEngine(t, obedient)
		engine.FailAll(pullRequest, dockerexectest.Slow(time.Hour))
		started := time.Now()
		err := adapterOn(t, engine, plainTask()).PullImage(t.Context())
		require.EqualError(t, err, "pull image example/web:1, attempt 1 of 3: stalled: no answer from the engine for 5m0s")
		require.ErrorIs(t, err, ErrPullStalled)
		assert.Equal(t, 5*time.Minute, time.Since(started))
	})
}

func TestPullStallTimeoutOff(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		engine := webEngine(t, obedient)
		engine.FailNext(pullRequest, dockerexectest.Slow(1000*time.Hour))
		started := time.Now()
		assert.NoError(t, adapterOn(t, engine, plainTask(), WithPullStallTimeout(0)).PullImage(t.Context()))
		assert.Equal(t, 1000*time.Hour, time.Since(started))
	})
}

// An engine downloads a few layers at a time, of all pulls together.
func TestPullBehindOthersIsNotStalled(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		bodies := make(chan io.ReadCloser, 2)
		client := pulling(t, func(context.Context) (io.ReadCloser, error) { return <-bodies, nil })
		engine := NewEngine(client, WithPullStallTimeout(3*time.Second))

		long, longScript := scripted()
		bodies <- long
		first := make(chan error)
		adapter := adapterOf(t, engine, pullTask("long"))
		go func() { first <- adapter.PullImage(t.Context()) }()
		go download(longScript, 100, time.Second)
		synctest.Wait()

		queued, queuedScript := scripted()
		bodies <- queued
		go fmt.Fprintln(queuedScript, layerMessage("b", "Pulling fs layer", 0, 0, ""))
		started := time.Now()
		err := adapterOf(t, engine, pullTask("queued")).PullImage(t.Context())
		require.ErrorContains(t, err, "no advance for 20s")
		assert.Equal(t, 99*time.Second+20*time.Second, time.Since(started), "its own time counts from when nothing gets on")
		assert.NoError(t, <-first)
	})
}

// What a layer does after its download is no progress of the other downloads.
func TestPullDownloadThatHangsBesideAnExtraction(t *testing.T) {
	t.Parallel()
	type message struct {
		wait   time.Duration // before it
		id     string
		status string
		bytes  int
		units  string
	}
	hangs := message{id: "last", status: "Downloading", bytes: 1}
	extraction := func(units string) (messages []message) {
		for i := range 40 {
			messages = append(messages, message{time.Minute, "big", "Extracting", i + 1, units})
		}
		return append(messages, message{wait: time.Minute, id: "big", status: "Pull complete"})
	}
	big := []message{{id: "big", status: "Downloading", bytes: 100}, {id: "big", status: "Download complete"}}
	for name, test := range map[string]struct {
		messages []message
		stalled  time.Duration // after the start; 0: it is not
	}{
		"bytes are extracted":        {slices.Concat(big, []message{hangs}, extraction("")), 5 * time.Minute},
		"seconds are extracted":      {slices.Concat(big, []message{hangs}, extraction("s")), 5 * time.Minute},
		"the download does not hang": {slices.Concat(big, []message{hangs, {status: "Download complete", id: "last"}}, extraction("")), 0},
		"a small layer is extracted": {[]message{
			{id: "small", status: "Download complete"}, hangs,
			{4 * time.Minute, "small", "Extracting", 1, ""}, {id: "small", status: "Pull complete"},
			{wait: 4 * time.Minute, id: "last", status: "Downloading", bytes: 2},
		}, 5 * time.Minute},
		"a layer exists already": {[]message{
			{id: "other", status: "Pulling fs layer"}, hangs,
			{wait: 4 * time.Minute, id: "other", status: "Already exists"},
			{wait: 4 * time.Minute, id: "last", status: "Downloading", bytes: 2},
		}, 0},
		"a download ends with its extraction": {[]message{
			big[0], hangs,
			{4 * time.Minute, "big", "Extracting", 1, ""},
			{wait: 4 * time.Minute, id: "last", status: "Downloading", bytes: 2},
		}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				body, script := scripted()
				var engine sync.WaitGroup
				defer engine.Wait()
				engine.Go(func() {
					defer script.Close()
					for _, m := range test.messages {
						time.Sleep(m.wait)
						if _, err := fmt.Fprintln(script, layerMessage(m.id, m.status, m.bytes, 100, m.units)); err != nil {
							return // the pull has ended
						}
					}
				})
				client := pulling(t, func(context.Context) (io.ReadCloser, error) { return body, nil })
				started := time.Now()
				err := newTestAdapter(t, client, pullTask("x")).PullImage(t.Context())
				if test.stalled == 0 {
					require.NoError(t, err)
					return
				}
				require.ErrorIs(t, err, ErrPullStalled)
				require.ErrorContains(t, err, "no advance for 5m0s")
				assert.Equal(t, test.stalled, time.Since(started))
			})
		})
	}
}
