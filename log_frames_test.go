package dockerexec

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/docker/docker/api/types/container"
	"github.com/moby/swarmkit/v2/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// readLogs returns what r hands out, each as "1:payload", and how it ended.
func readLogs(r logReader) (messages []string, err error) {
	for {
		stream, payload, err := r.next()
		if err != nil {
			return messages, err
		}
		messages = append(messages, string('0'+rune(stream))+":"+string(payload))
	}
}

func TestFrameReader(t *testing.T) {
	t.Parallel()
	join := func(frames ...[]byte) []byte { return bytes.Join(frames, nil) }
	large := strings.Repeat("x", logReadBuffer)
	for _, test := range []struct {
		name string
		in   []byte
		want []string
		err  string // "": io.EOF
	}{
		{"nothing", nil, nil, ""},
		{"both streams", join(frame(1, "one\n"), frame(2, "two\n")), []string{"1:one\n", "2:two\n"}, ""},
		{"empty frame", join(frame(1, ""), frame(1, "one\n")), []string{"1:", "1:one\n"}, ""},
		{"around the buffer", join(frame(1, large[:logReadBuffer-8]), frame(1, large[:logReadBuffer-7]), frame(2, "end")),
			[]string{"1:" + large[:logReadBuffer-8], "1:" + large[:logReadBuffer-7], "2:end"}, ""},
		{"of 1 MiB", frame(1, strings.Repeat("x", 1<<20)), []string{"1:" + strings.Repeat("x", 1<<20)}, ""},
		// Only the last four bytes are the size; the three before are padding.
		{"padding", []byte{1, 1, 2, 3, 0, 0, 0, 5, 'h', 'e', 'l', 'l', 'o'}, []string{"1:hello"}, ""},
		// No allocation sized by a number off the wire.
		{"too large", []byte{2, 0, 0, 0, 0x80, 0, 0, 1, 'x'}, nil,
			"log frame of 2147483649 bytes on stream 2; at most 1048576 are allowed"},
		{"a byte too large", frame(1, strings.Repeat("x", 1<<20+1)), nil,
			"log frame of 1048577 bytes on stream 1; at most 1048576 are allowed"},
		// An error of the engine has no time; stream 0 counts as stdout.
		{"engine error", join(frame(1, "one\n"), frame(3, "Error grabbing logs: invalid character 'x'\n"), frame(1, "two\n")),
			[]string{"1:one\n"}, "Error grabbing logs: invalid character 'x'"},
		{"long engine error", frame(3, strings.Repeat("e", 5000)), nil, strings.Repeat("e", 4096)},
		{"stream 0", frame(0, "one\n"), []string{"1:one\n"}, ""},
		{"unknown stream", frame(4, "one\n"), nil, "log frame of 4 bytes on the unknown stream 4"},
		{"cut in a header", join(frame(1, "one\n"), []byte{1, 0, 0}), []string{"1:one\n"},
			"the log stream broke off inside the header of a frame: unexpected EOF"},
		{"cut behind a header", frame(1, "one\n")[:8], nil, "the log stream broke off inside a frame: unexpected EOF"},
		{"cut in a frame", frame(1, "one\n")[:10], nil, "the log stream broke off inside a frame: unexpected EOF"},
		{"cut in a large frame", frame(1, large+large)[:logReadBuffer+100], nil, "the log stream broke off inside a frame: unexpected EOF"},
		{"cut behind the header of a large frame", frame(1, large+large)[:8], nil, "the log stream broke off inside a frame: unexpected EOF"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			for _, in := range []io.Reader{
				bytes.NewReader(test.in),
				iotest.OneByteReader(bytes.NewReader(test.in)),
				iotest.DataErrReader(bytes.NewReader(test.in)),
			} {
				got, err := readLogs(newFrameReader(in))
				assert.Equal(t, test.want, got)
				if test.err == "" {
					require.Equal(t, io.EOF, err)
				} else {
					require.EqualError(t, err, test.err)
				}
				assert.Equal(t, strings.Contains(test.err, "broke off"), errors.Is(err, io.ErrUnexpectedEOF))
				assert.Equal(t, strings.Contains(test.err, "broke off"), isPassing(err) && err != io.EOF)
			}
		})
	}
}

func TestFrameReaderReturnsTheErrorOfTheStream(t *testing.T) {
	t.Parallel()
	reset := errors.New("connection reset")
	for cut := range len(frame(1, "one\n")) {
		_, err := readLogs(newFrameReader(io.MultiReader(bytes.NewReader(frame(1, "one\n")[:cut]), iotest.ErrReader(reset))))
		require.Equal(t, reset, err, "after %d bytes", cut)
	}
}

// plainTime is 31 bytes, with the space.
const plainTime = "2026-01-02T03:04:05.000000006Z "

func TestPlainReader(t *testing.T) {
	t.Parallel()
	piece := strings.Repeat("x", engineChunk)
	endless := plainTime + strings.Repeat("x", maxLogMessage)
	for _, test := range []struct {
		name    string
		details bool
		in      string
		want    []string
		err     string
	}{
		{"nothing", false, "", nil, ""},
		{"lines", false, plainTime + "one\r\n" + plainTime + "\n" + plainTime + "two\n",
			[]string{"1:" + plainTime + "one\r\n", "1:" + plainTime + "\n", "1:" + plainTime + "two\n"}, ""},
		{"a long line in pieces", false, plainTime + piece + plainTime + piece + plainTime + "end\n" + plainTime + "two\n",
			[]string{"1:" + plainTime + piece, "1:" + plainTime + piece, "1:" + plainTime + "end\n", "1:" + plainTime + "two\n"}, ""},
		{"in greater pieces", false, plainTime + piece + piece + plainTime + piece + "end\n",
			[]string{"1:" + plainTime + piece + piece, "1:" + plainTime + piece + "end\n"}, ""},
		{"with details", true, plainTime + "a=b " + piece + plainTime + "a=b end\n",
			[]string{"1:" + plainTime + "a=b " + piece, "1:" + plainTime + "a=b end\n"}, ""},
		{"with empty details", true, plainTime + " " + piece + plainTime + " end\n",
			[]string{"1:" + plainTime + " " + piece, "1:" + plainTime + " end\n"}, ""},
		{"its own time in a short line", false, plainTime + plainTime + "one\n", []string{"1:" + plainTime + plainTime + "one\n"}, ""},
		{"a long line without a time", false, piece + piece + " x\n", []string{"1:" + piece + piece + " x\n"}, ""},
		{"a long line without a space", false, piece + piece + "\n", []string{"1:" + piece + piece + "\n"}, ""},
		{"not finished", false, plainTime + "one\n" + plainTime + "two", []string{"1:" + plainTime + "one\n", "1:" + plainTime + "two"}, ""},
		{"without an end", false, endless, nil, "log line of more than 1048576 bytes on a TTY"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			for _, in := range []io.Reader{
				strings.NewReader(test.in),
				iotest.HalfReader(strings.NewReader(test.in)),
				iotest.DataErrReader(strings.NewReader(test.in)),
			} {
				got, err := readLogs(newPlainReader(in, test.details))
				assert.Equal(t, test.want, got)
				if test.err == "" {
					require.Equal(t, io.EOF, err)
				} else {
					require.EqualError(t, err, test.err)
				}
			}
		})
	}
}

// What is not finished when the stream breaks comes again with the next request.
func TestPlainReaderDropsWhatIsCutOff(t *testing.T) {
	t.Parallel()
	in := io.MultiReader(strings.NewReader(plainTime+"one\n"+plainTime+"tw"), iotest.ErrReader(io.ErrUnexpectedEOF))
	got, err := readLogs(newPlainReader(in, false))
	assert.Equal(t, []string{"1:" + plainTime + "one\n"}, got)
	require.Equal(t, io.ErrUnexpectedEOF, err)
}

func TestPlainReaderGivesUpOnEmptyReads(t *testing.T) {
	t.Parallel()
	_, err := readLogs(newPlainReader(emptyReader{}, false))
	require.Equal(t, io.ErrNoProgress, err)
}

type emptyReader struct{}

func (emptyReader) Read([]byte) (int, error) { return 0, nil }

// endlessFrames gives the same frames over and over, left bytes of them.
type endlessFrames struct {
	frames []byte
	offset int
	left   int
}

func (e *endlessFrames) Read(p []byte) (int, error) {
	if e.left == 0 {
		return 0, io.EOF
	}
	n := copy(p[:min(len(p), e.left)], e.frames[e.offset:])
	e.offset = (e.offset + n) % len(e.frames)
	e.left -= n
	return n, nil
}

// 1 GB goes through the frame reader in constant memory. Not parallel: it looks
// at what the process allocates.
func TestFrameReaderNeedsConstantMemory(t *testing.T) {
	frames := append(frame(1, strings.Repeat("x", 90)), frame(2, strings.Repeat("y", 16415))...)
	frames = append(frames, frame(1, strings.Repeat("z", 100_000))...)
	times := 1_000_000_000/len(frames) + 1
	reader := newFrameReader(&endlessFrames{frames: frames, left: times * len(frames)})
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	var bytes, count int
	for {
		_, payload, err := reader.next()
		if err == io.EOF {
			break
		}
		require.NoError(t, err)
		bytes += len(payload)
		count++
	}
	runtime.ReadMemStats(&after)
	assert.Equal(t, 3*times, count)
	assert.Equal(t, times*(90+16415+100_000), bytes)
	assert.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(1<<20))
}

// FuzzLogFrames: whatever arrives, nothing panics, no message is greater than the
// caps, no byte is made up, and the body is closed.
func FuzzLogFrames(f *testing.F) {
	for mode, path := range []string{"testdata/logs/frames.raw", "testdata/logs/tty.raw"} {
		text, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text[:150], uint8(mode))
	}
	piece := bytes.Repeat([]byte("x"), engineChunk)
	f.Add([]byte(plainTime+"X"+plainTime+"end\n"), uint8(1))
	f.Add([]byte(plainTime+"a=b X"+plainTime+"a=b X"+plainTime+"a=b end\n"), uint8(3))
	f.Fuzz(func(t *testing.T, in []byte, mode uint8) {
		in = bytes.Replace(in, []byte("X"), piece, 80) // so that inputs can stay short and lines get long
		readWithinBounds(t, in, mode&1 > 0, mode&2 > 0)
		body := &fakeBody{text: bytes.NewReader(in), end: io.EOF}
		client := newFakeClient(t)
		client.containerInspect = func(context.Context, string) (container.InspectResponse, error) {
			answer := logContainer("exited")
			answer.Config.Tty = mode&1 > 0
			if mode&2 > 0 {
				answer.HostConfig = &container.HostConfig{LogConfig: container.LogConfig{Config: map[string]string{"labels": "a"}}}
			}
			return answer, nil
		}
		client.containerLogs = func(context.Context, string, container.LogsOptions) (io.ReadCloser, error) { return body, nil }
		var sink logSink
		err := newTestAdapter(t, client, plainTask(), WithLogRate(0)).PublishLogs(t.Context(), api.LogSubscriptionOptions{}, &sink)
		total := 0
		for _, m := range sink.messages {
			require.Contains(t, []api.LogStream{api.LogStreamStdout, api.LogStreamStderr}, m.Stream)
			require.NotEmpty(t, m.Data)
			require.LessOrEqual(t, len(m.Data), maxLogLine)
			require.LessOrEqual(t, len(m.Attrs), len(in))
			total += len(m.Data)
		}
		require.LessOrEqual(t, total, len(in))
		if mode&1 > 0 && err != nil { // all of a TTY's is text
			require.ErrorContains(t, err, "log line of more than 1048576 bytes on a TTY")
		}
		require.Equal(t, 1, body.closed)
	})
}

// readWithinBounds reads in, and fails if a byte of it is lost, or if a reader holds
// more memory than it may.
func readWithinBounds(t *testing.T, in []byte, tty, details bool) {
	if tty {
		reader := newPlainReader(bytes.NewReader(in), details)
		messages, err := readLogs(reader)
		require.LessOrEqual(t, cap(reader.buf), 4<<20)
		read := 0
		for _, m := range messages {
			require.LessOrEqual(t, len(m)-2, 1<<20)
			require.Equal(t, string(in[read:read+len(m)-2]), m[2:])
			read += len(m) - 2
		}
		require.True(t, read == len(in) || err != io.EOF, "read %d of %d bytes", read, len(in))
		return
	}
	reader := newFrameReader(bytes.NewReader(in))
	messages, err := readLogs(reader)
	require.LessOrEqual(t, cap(reader.large), 1<<20)
	read := 0
	for _, m := range messages {
		read += 8
		require.Equal(t, string(in[read:read+len(m)-2]), m[2:])
		read += len(m) - 2
	}
	require.True(t, read == len(in) || err != io.EOF, "read %d of %d bytes", read, len(in))
}
