package dockerexec

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/moby/swarmkit/v2/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

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

// The engine's fixed form, what else RFC 3339 allows, and what is no time.
func TestParseLogTime(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]logTime{
		"1970-01-01T00:00:00.000000000Z":      {0, 0},
		"2026-11-23T19:43:01.779723584Z":      {1795462981, 779723584},
		"2024-02-29T23:59:59.999999999Z":      {1709251199, 999999999},
		"2000-03-01T00:00:00.000000001Z":      {951868800, 1},
		"1969-12-31T23:59:59.000000000Z":      {-1, 0},
		"2026-11-23T21:43:01.779723584+02:00": {1795462981, 779723584},
		"2026-11-23T19:43:01Z":                {1795462981, 0},
		"2026-11-23T19:43:01.5Z":              {1795462981, 500000000},
	} {
		got, ok := parseLogTime([]byte(text))
		assert.True(t, ok, text)
		assert.Equal(t, want, got, text)
	}
	for _, text := range []string{
		"", " ", "hello", "2026-11-23",
		"2026-13-23T19:43:01.779723584Z", "2026-00-23T19:43:01.779723584Z", "2026-11-31T19:43:01.779723584Z",
		"2026-02-29T19:43:01.779723584Z", "2026-11-00T19:43:01.779723584Z", "2026-11-23T24:43:01.779723584Z",
		"2026-11-23T19:60:01.779723584Z", "2026-11-23T19:43:60.779723584Z", "2026-11-23T19:43:01.77972358xZ",
		"2026-11-23 19:43:01.779723584Z", strings.Repeat("1", 1000),
	} {
		_, ok := parseLogTime([]byte(text))
		assert.False(t, ok, text)
	}
}

// The engine's form is read by hand: the standard library is the oracle.
func TestParseEngineTimeAgreesWithTheStandardLibrary(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(1, 2))
	for day := time.Date(0, 1, 1, 0, 0, 0, 0, time.UTC); day.Year() < 10000; day = day.AddDate(0, 0, 1+random.IntN(200)) {
		want := day.Add(time.Duration(random.Int64N(int64(24 * time.Hour))))
		got, ok := parseEngineTime([]byte(want.Format(engineTime)))
		require.True(t, ok, want)
		require.Equal(t, logTimeOf(want), got, want)
		require.True(t, want.Equal(got.time()))
	}
}

// A message without a space, or without a time, is handed on as it is.
func TestLogClock(t *testing.T) {
	t.Parallel()
	var clock logClock
	for _, test := range []struct {
		message, rest string
		ok            bool
	}{
		{plainTime + "one\n", "one\n", true},
		{plainTime + "\n", "\n", true},
		{plainTime, "", true},
		{plainTime + "  two spaces\n", "  two spaces\n", true},
		{"2026-01-02T03:04:05Z one\n", "one\n", true},
		{"2026-01-02T03:04:05.000000006+00:00 one\n", "one\n", true},
		{"Error grabbing logs: EOF\n", "Error grabbing logs: EOF\n", false},
		{"nospace\n", "nospace\n", false},
		{" \n", " \n", false},
		{"", "", false},
		{strings.TrimSpace(plainTime), strings.TrimSpace(plainTime), false},
	} {
		_, rest, ok := clock.cut([]byte(test.message))
		assert.Equal(t, test.rest, string(rest), test.message)
		assert.Equal(t, test.ok, ok, test.message)
	}
}

// The details become attributes, unescaped and sorted; without any there is
// one more space.
func TestLogDetails(t *testing.T) {
	t.Parallel()
	var details logDetails
	for _, test := range []struct {
		rest  string
		attrs []api.LogAttr
		line  string
	}{
		{" line\n", nil, "line\n"},
		{"  indented line\n", nil, " indented line\n"},
		{" \n", nil, "\n"},
		{"a=b line\n", []api.LogAttr{{Key: "a", Value: "b"}}, "line\n"},
		{"E=%C3%A9%26,a=x+y%2C%3Dz%25,b=2 line 1\n",
			[]api.LogAttr{{Key: "E", Value: "é&"}, {Key: "a", Value: "x y,=z%"}, {Key: "b", Value: "2"}}, "line 1\n"},
		{"z=1,a%3Db=2,m= line\n", []api.LogAttr{{Key: "a=b", Value: "2"}, {Key: "m"}, {Key: "z", Value: "1"}}, "line\n"},
		{"lonely,bad=%zz line\n", []api.LogAttr{{Key: "bad", Value: "%zz"}, {Key: "lonely"}}, "line\n"},
		{"nothing else", nil, "nothing"}, // key without value
		{"nospace\n", nil, "nospace\n"},
	} {
		if test.rest == "nothing else" {
			test.attrs, test.line = []api.LogAttr{{Key: "nothing"}}, "else"
		}
		attrs, line := details.cut([]byte(test.rest))
		assert.Equal(t, test.attrs, attrs, test.rest)
		assert.Equal(t, test.line, string(line), test.rest)
	}
	// What is handed out is the receiver's own.
	first, _ := details.cut([]byte("a=b one\n"))
	first[0].Value = "changed"
	second, _ := details.cut([]byte("a=b two\n"))
	assert.Equal(t, []api.LogAttr{{Key: "a", Value: "b"}}, second)
}

func TestLogDetailsAreAskedForWhereThereAreAny(t *testing.T) {
	t.Parallel()
	assert.False(t, hasLogDetails(container.InspectResponse{}))
	assert.False(t, hasLogDetails(logContainer("running")))
	for options, want := range map[string]bool{"": false, "max-size=1m": false, "labels=": false, "labels=a": true,
		"labels-regex=a.*": true, "env=A": true, "env-regex=A.*": true, "tag={{.Name}}": true} {
		answer := logContainer("running")
		key, value, _ := strings.Cut(options, "=")
		answer.HostConfig = &container.HostConfig{LogConfig: container.LogConfig{Config: map[string]string{key: value}}}
		assert.Equal(t, want, hasLogDetails(answer), options)
	}
}
