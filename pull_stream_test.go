package dockerexec

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/distribution/reference"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// repeated reads one text n times over.
type repeated struct {
	text string
	n    int
	rest string
}

func (r *repeated) Read(p []byte) (n int, err error) {
	for n < len(p) {
		if r.rest == "" {
			if r.n == 0 {
				return n, io.EOF
			}
			r.n--
			r.rest = r.text
		}
		moved := copy(p[n:], r.rest)
		n += moved
		r.rest = r.rest[moved:]
	}
	return n, nil
}

func (r *repeated) Close() error { return nil }

func TestPullMessageSize(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		body string
		err  string
	}{
		"1 MiB, status":       {`{"status":"` + strings.Repeat("x", 1<<20) + `"}{"status":"end"}`, ""},
		"1 MiB, aux":          {`{"aux":{"x":"` + strings.Repeat("x", 1<<20) + `"}}{"status":"end"}`, ""},
		"1 MiB, error":        {`{"error":"` + strings.Repeat("x", 1<<20) + `"}`, strings.Repeat("x", maxErrorLength-3) + "…"},
		"too much":            {`{"status":"` + strings.Repeat("x", 5<<20) + `"}`, "the engine's answer cannot be read: a message is longer than 4194304 bytes"},
		"too much, of spaces": {strings.Repeat(" ", 5<<20) + `{"status":"end"}`, "the engine's answer cannot be read: a message is longer than 4194304 bytes"},
	} {
		for how, wrap := range map[string]func(io.Reader) io.Reader{
			"": func(r io.Reader) io.Reader { return r }, ", a byte at a time": iotest.OneByteReader, ", by halves": iotest.HalfReader,
		} {
			t.Run(name+how, func(t *testing.T) {
				t.Parallel()
				client := pulling(t, func(context.Context) (io.ReadCloser, error) {
					return io.NopCloser(wrap(strings.NewReader(test.body))), nil
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

// A pull's memory depends neither on how many messages it has nor on how many
// layers they name.
func TestPullMemoryIsConstant(t *testing.T) {
	pullManyMessages(t, 100_000)
}

// BenchmarkPullMillion is the same with a million messages in each round.
func BenchmarkPullMillion(b *testing.B) {
	var most uint64
	for b.Loop() {
		most = max(most, pullManyMessages(b, 1_000_000))
	}
	b.ReportMetric(float64(most), "heap-bytes")
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

// FuzzPull feeds a pull with anything.
func FuzzPull(f *testing.F) {
	files, err := filepath.Glob("testdata/pull/*/*.http")
	require.NoError(f, err)
	for _, file := range files {
		f.Add(readRecorded(f, file).body)
	}
	ref, err := reference.ParseNormalizedNamed("x")
	require.NoError(f, err)
	f.Fuzz(func(t *testing.T, body []byte) {
		closed := &closing{Reader: bytes.NewReader(body), closed: make(chan struct{})}
		client := pulling(t, func(context.Context) (io.ReadCloser, error) { return closed, nil })
		ctx, hook := logHook(t.Context())
		// Without an observer, whose calls take their time.
		shared := &sharedPull{}
		shared.state.reset(1, time.Now())
		result := newPullRun(NewEngine(client, WithPullAttempts(1)).pulls, shared, pullTarget{image: "x", ref: ref}).run(ctx)
		<-closed.closed
		err, last := result.errorFor("x"), shared.state.progress("x", time.Now())

		if err != nil && len(err.Error()) > maxErrorLength+100 {
			t.Error("a long error")
		}
		if len(last.Status) > maxStatusLength || last.LayersTotal > maxLayers || last.LayersDone+last.LayersActive > last.LayersTotal ||
			last.BytesDone < 0 || last.BytesTotal < 0 || last.BytesTotal > 0 && last.BytesDone > last.BytesTotal ||
			last.BytesPerSecond < 0 || last.Remaining < 0 {
			t.Errorf("%+v", last)
		}
		if lines := len(hook.AllEntries()); lines > maxTurns*(last.LayersTotal+1)+3 {
			t.Errorf("%d lines", lines)
		}
	})
}

// benchmarkStream is what an engine sends for a layer of 500 MB, many times.
func benchmarkStream(messages int) *repeated {
	return &repeated{n: messages, text: `{"status":"Downloading","progressDetail":{"current":104857600,"total":524288000},` +
		`"progress":"[==========\u003e                                        ]  104.9MB/524.3MB","id":"76e444d9b893"}` + "\r\n"}
}

// BenchmarkPullDecode decodes a pull's stream, and beside it does so into a map
// that is used for all of them, which is how the reference does it.
func BenchmarkPullDecode(b *testing.B) {
	const messages = 10_000
	ours := func() {
		stream := newPullStream(benchmarkStream(messages))
		for range messages {
			_, err := stream.next()
			require.NoError(b, err)
		}
	}
	baseline := func() {
		message := map[string]any{}
		decoder := json.NewDecoder(benchmarkStream(messages))
		decoder.UseNumber()
		for range messages {
			require.NoError(b, decoder.Decode(&message))
		}
	}
	b.Run("message", func(b *testing.B) {
		each := func(decode func()) func() float64 {
			return func() float64 {
				begin := time.Now()
				decode()
				return float64(time.Since(begin).Nanoseconds()) / messages
			}
		}
		compare(b, "ns/message", 1, each(ours), each(baseline))
	})
	b.Run("allocations", func(b *testing.B) {
		each := func(decode func()) func() float64 {
			return func() float64 { return testing.AllocsPerRun(5, decode) / messages }
		}
		compareCounts(b, "allocs/message", 0.2, each(ours), each(baseline))
	})
}

// BenchmarkPull is all of a pull, by message.
func BenchmarkPull(b *testing.B) {
	b.ReportAllocs()
	client := pulling(b, func(context.Context) (io.ReadCloser, error) { return benchmarkStream(b.N), nil })
	adapter := newTestAdapter(b, client, pullTask("x"), WithPullObserver(func(context.Context, PullProgress) {}))
	ctx, _ := logHook(b.Context())
	b.ResetTimer()
	if err := adapter.PullImage(ctx); err != nil {
		b.Fatal(err)
	}
}
