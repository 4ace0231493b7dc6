package dockerexec

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/docker/docker/api/types"
	"github.com/docker/docker/api/types/container"
	gogotypes "github.com/gogo/protobuf/types"
	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/moby/swarmkit/v2/api"
	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockerexec/dockerexec/dockerexectest"
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
		adapter := newTestAdapter(t, client, plainTask())
		gaps, bytes, lines := &countedSteps{}, &countedSteps{}, &countedSteps{}
		adapter.engine.telemetry.logGaps, adapter.engine.telemetry.logBytes, adapter.engine.telemetry.logLines = gaps, bytes, lines
		require.NoError(t, adapter.PublishLogs(ctx, api.LogSubscriptionOptions{Follow: true}, &sink))
		assert.Equal(t, []string{"stdout one\n", "stdout half a ", "stdout nine\n", "stderr ten\n"}, sink.lines())
		assert.Equal(t, []string{"1 "}, gaps.counted)
		assert.Equal(t, []string{"4 ", "16 "}, bytes.counted, "half a line is published with what comes after it")
		assert.Equal(t, []string{"1 ", "3 "}, lines.counted)
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
		take := func(sec int64) (taken, gap bool) { return cursor.take(api.LogStreamStdout, logTime{sec: sec}, nil) }
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

// Podman's times are whole seconds. It may leave out lines of an answer that is followed, and
// the next answer has them. Each answer is a word, each letter a line of one second.
func TestLinesOfOneSecondAreTakenOnce(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		answers []string
		want    string // - is a gap
		tail    bool   // the first line that came is the first of the tail
	}{
		"all came":                           {[]string{"abc", "abcde"}, "abcde", false},
		"nothing is new":                     {[]string{"abc", "abc", "abc"}, "abc", false},
		"one was left out":                   {[]string{"abd", "abcde"}, "abd-ce", false},
		"the same text, and one left out":    {[]string{"aab", "aaabc"}, "aab-ac", false},
		"the first ones were left out":       {[]string{"cd", "abcde"}, "cd-abe", false},
		"the first ones are before the tail": {[]string{"cd", "abcde"}, "cde", true},
		"an answer breaks within the second": {[]string{"abd", "abc", "abcde", "abcdef"}, "abd-cef", false},
		"the engine has dropped them":        {[]string{"abc", "xyz"}, "abc-xyz", false},
		"the engine has dropped the first":   {[]string{"abc", "bcd"}, "abcd", false},
		"it leaves out some that came":       {[]string{"abcdef", "cdfg", "cfgh", "abcdefghi"}, "abcdefghi", false},
	} {
		var cursor logCursor
		if test.tail {
			cursor.first.Tail = "2"
		}
		var got strings.Builder
		for _, answer := range test.answers {
			cursor.begin()
			for _, line := range answer {
				taken, gap := cursor.take(api.LogStreamStdout, logTime{sec: 1000}, []byte(string(line)))
				if gap {
					got.WriteString("-")
				}
				if taken {
					got.WriteRune(line)
				}
			}
		}
		assert.Equal(t, test.want, got.String(), name)
	}
}

// Nothing of before the call comes, however often the stream breaks before the
// first line.
func TestLogsOfNothingBeforeGoOnFromTheFirstAnswer(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		engine, adapter := logging(t, func(p *dockerexectest.Process) int {
			fmt.Fprintln(p.Stdout, "old")
			p.Sleep(2*time.Minute + 15*time.Second)
			fmt.Fprintln(p.Stdout, "new")
			return obedient(p)
		}, plainTask())
		ctx, _ := logged(t)
		var sink logSink
		publish := asynchronously(func() error {
			return adapter.PublishLogs(ctx, api.LogSubscriptionOptions{Follow: true, Tail: -1}, &sink)
		})
		for range 4 { // the new line comes while the engine is away for the last time
			time.Sleep(10 * time.Second)
			engine.Down()
			time.Sleep(10 * time.Second)
			engine.Up()
		}
		engine.Container(taskName).Exit(0)
		require.NoError(t, publish())
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
				l.records = []logRecord{record("10.000000001", 1, "one, "), record("10.000000001", 1, "two, ")}
				return l.open(o, -1, io.ErrUnexpectedEOF), nil
			}
			l.records = []logRecord{record("10.000000001", 1, "three\n"), record("11.000000000", 1, "next\n")}
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
	bubble(t, func(t *testing.T) {
		engine, adapter := logging(t, func(p *dockerexectest.Process) int {
			fmt.Fprint(p.Stdout, strings.Repeat("x\n", 100))
			return obedient(p)
		}, plainTask())
		engine.FailAll(logsRequest, dockerexectest.CutBody(410)) // ten lines
		ctx, _ := logged(t)
		ctx, cancel := context.WithTimeout(ctx, time.Hour)
		defer cancel()
		sink := logSink{onLine: func(n int) error {
			if n == 100 {
				cancel()
			}
			return nil
		}}
		require.Equal(t, context.Canceled, adapter.PublishLogs(ctx, api.LogSubscriptionOptions{Follow: true}, &sink))
		assert.Len(t, sink.messages, 100)
		assert.Less(t, len(logQueries(engine)), 200)
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
	bubble(t, func(t *testing.T) {
		_, adapter := logging(t, printing(strings.Repeat("one\n", 5)), plainTask())
		ctx, cancel := context.WithCancel(t.Context())
		sink := logSink{onLine: func(n int) error {
			if n == 2 {
				cancel()
			}
			return nil
		}}
		require.Equal(t, context.Canceled, adapter.PublishLogs(ctx, api.LogSubscriptionOptions{}, &sink))
		assert.Len(t, sink.messages, 2)
	})
}

// A container that is removed before it was started, or made again, is not waited for.
func TestFollowedLogsOfAContainerThatNeverStarts(t *testing.T) {
	t.Parallel()
	for name, isMadeAgain := range map[string]bool{"removed": false, "made again": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T) {
				engine, adapter := onFakeEngine(t, obedient)
				createByHand(t, engine)
				ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
				defer cancel()
				publish := asynchronously(func() error {
					return adapter().PublishLogs(ctx, api.LogSubscriptionOptions{Follow: true}, &logSink{})
				})
				time.Sleep(time.Minute)
				engine.Container(taskName).RemoveByHand()
				if isMadeAgain {
					createByHand(t, engine)
				}
				require.NoError(t, publish())
			})
		})
	}
}

// A container that is being removed is read to the end of its log.
func TestLogsOfAContainerThatIsBeingRemovedAreNotFollowed(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		engine, adapter := logging(t, onBothStreams(obedient), plainTask())
		status := "removing"
		engine.Container(taskName).AlterInspect(func(answer *container.InspectResponse) {
			answer.State.Status, answer.State.Running = status, false
			status = "exited"
		})
		var sink logSink
		require.NoError(t, adapter.PublishLogs(t.Context(), api.LogSubscriptionOptions{Follow: true}, &sink))
		assert.Equal(t, []string{"stdout one\n", "stderr two\n"}, sink.lines())
		assert.NotEmpty(t, logQueries(engine))
		assert.NotContains(t, strings.Join(logQueries(engine), " "), "follow")
	})
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

// runningEngine is behind a client that is no fake.
type runningEngine struct{ *fakeClient }

func (runningEngine) Ping(context.Context) (types.Ping, error) {
	return types.Ping{APIVersion: "1.51"}, nil
}
func (runningEngine) NegotiateAPIVersionPing(types.Ping) {}
func (runningEngine) ClientVersion() string              { return "1.51" }
func (runningEngine) DaemonHost() string                 { return "unix:///run/docker.sock" }

// loggedBy returns a container whose log a running engine keeps with the driver, and an
// adapter for it. statuses are those of one inspect after the other.
func loggedBy(t *testing.T, l *fakeLog, driver string, statuses ...string) (*fakeClient, *ContainerAdapter) {
	client := newFakeClient(t)
	client.containerInspect = func(context.Context, string) (container.InspectResponse, error) {
		answer := logContainer(statuses[0])
		if len(statuses) > 1 {
			statuses = statuses[1:]
		}
		answer.Config.Tty = l.tty
		answer.HostConfig = &container.HostConfig{LogConfig: container.LogConfig{Type: driver}}
		return answer, nil
	}
	client.containerLogs = func(_ context.Context, _ string, o container.LogsOptions) (io.ReadCloser, error) {
		return l.open(o, -1, nil), nil
	}
	adapter, err := NewEngine(runningEngine{client}, WithWrappedClient()).Adapter(nil, plainTask(), nil)
	require.NoError(t, err)
	return client, adapter
}

// Where an engine keeps a container's log.
const (
	dockersLog = "/var/lib/docker/containers/1/1-json.log"
	podmansLog = "/var/lib/containers/storage/overlay-containers/1/userdata/ctr.log"
)

// keepLogAt has the engine name that file of the log.
func keepLogAt(client *fakeClient, path string) {
	inspect := client.containerInspect
	client.containerInspect = func(ctx context.Context, name string) (container.InspectResponse, error) {
		answer, err := inspect(ctx, name)
		answer.LogPath = path
		return answer, err
	}
}

// numbered are records of the lines from first to last, one each 10 ms.
func numbered(first, last int) (records []logRecord) {
	for i := first; i <= last; i++ {
		records = append(records, record(fmt.Sprintf("%02d.%09d", i/100, i%100*10_000_000), 1, fmt.Sprintf("%d\n", i)))
	}
	return records
}

// runsOf abridges published numbers: "1-42", and "gap TIME" where a gap is marked.
func runsOf(t *testing.T, sink *logSink) (runs []string) {
	t.Helper()
	begin, last := 0, 0
	end := func() {
		if begin > 0 {
			runs = append(runs, fmt.Sprintf("%d-%d", begin, last))
		}
	}
	for _, m := range sink.messages {
		n, err := strconv.Atoi(strings.TrimSpace(string(m.Data)))
		require.NoError(t, err)
		if begin == 0 || n != last+1 || len(m.Attrs) > 0 {
			end()
			begin = n
		}
		for _, attr := range m.Attrs {
			runs = append(runs, "gap "+attr.Value)
		}
		last = n
	}
	end()
	return runs
}

// A damaged record ends each answer of the engine without an error. What is behind it
// comes all the same, and the gap is marked.
func TestLogBehindADamagedRecord(t *testing.T) {
	t.Parallel()
	damaged := logRecord{}
	const ends20 = -20 // leaves out 20 records, and ends an answer without a tail
	for _, test := range []struct {
		name     string
		records  []logRecord
		skips    int
		options  api.LogSubscriptionOptions
		want     []string
		warnings int
		requests int
	}{
		{"none", numbered(1, 400), 0, api.LogSubscriptionOptions{}, []string{"1-400"}, 0, 3},
		{"empty", nil, 0, api.LogSubscriptionOptions{}, nil, 0, 2},
		{"in the midst", slices.Concat(numbered(1, 42), []logRecord{damaged}, numbered(44, 400)), 0, api.LogSubscriptionOptions{},
			[]string{"1-42", "gap 2026-01-02T03:04:00.42Z", "44-400"}, 1, 30},
		{"before the last", slices.Concat(numbered(1, 42), []logRecord{damaged}, numbered(44, 44)), 0, api.LogSubscriptionOptions{},
			[]string{"1-42", "gap 2026-01-02T03:04:00.42Z", "44-44"}, 1, 8},
		{"at the end", slices.Concat(numbered(1, 42), []logRecord{damaged}), 0, api.LogSubscriptionOptions{}, []string{"1-42"}, 1, 3},
		{"at the begin", slices.Concat([]logRecord{damaged}, numbered(2, 400)), 0, api.LogSubscriptionOptions{}, []string{"gap ", "2-400"}, 1, 30},
		{"three", slices.Concat(numbered(1, 10), []logRecord{damaged, damaged}, numbered(13, 40), []logRecord{damaged}, numbered(42, 99)), 0, api.LogSubscriptionOptions{},
			[]string{"1-10", "gap 2026-01-02T03:04:00.1Z", "13-40", "gap 2026-01-02T03:04:00.4Z", "42-99"}, 2, 50},
		{"a since behind it", slices.Concat(numbered(1, 42), []logRecord{damaged}, numbered(44, 400)), 0,
			api.LogSubscriptionOptions{Since: &gogotypes.Timestamp{Seconds: 1767323043}}, []string{"300-400"}, 0, 30}, // 03:04:03
		{"in the tail", slices.Concat(numbered(1, 390), []logRecord{damaged}, numbered(392, 400)), 0, api.LogSubscriptionOptions{Tail: -21},
			[]string{"380-390", "gap 2026-01-02T03:04:03.9Z", "392-400"}, 1, 30},
		{"20.10, the answer ends", slices.Concat(numbered(1, 42), []logRecord{damaged}, numbered(44, 100)), ends20, api.LogSubscriptionOptions{},
			[]string{"1-42", "gap 2026-01-02T03:04:00.42Z", "44-100"}, 1, 30},
		{"20.10, it goes on", slices.Concat(numbered(1, 42), []logRecord{damaged}, numbered(44, 100)), 20, api.LogSubscriptionOptions{},
			[]string{"1-42", "64-100"}, 1, 3},
	} {
		for _, follow := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, follow %t", test.name, follow), func(t *testing.T) {
				t.Parallel()
				l := &fakeLog{records: test.records, skips: max(test.skips, -test.skips), endsWhole: test.skips < 0}
				_, adapter := loggedBy(t, l, "json-file", "exited")
				options := test.options
				options.Follow = follow
				ctx, logged := logged(t)
				var sink logSink
				require.NoError(t, adapter.PublishLogs(ctx, options, &sink))
				assert.Equal(t, test.want, runsOf(t, &sink))
				assert.Len(t, logged(logrus.WarnLevel), test.warnings)
				assert.LessOrEqual(t, len(l.requests), test.requests)
				for _, body := range l.bodies {
					assert.Equal(t, 1, body.closed)
				}
			})
		}
	}
}

// The container logs on between the requests, as it does on an engine that answers slowly: no
// line behind the damage is missing, and none but the damage is a gap. If it logs as fast as the
// engine answers, a few lines may be missing there.
func TestLogBehindADamagedRecordOfAContainerThatLogs(t *testing.T) {
	t.Parallel()
	for _, behind := range []int{1, 2, 8, 9, 100} {
		for every := 1; every <= 4; every++ { // one line is logged after so many requests
			for _, skips := range []int{0, 20} {
				t.Run(fmt.Sprintf("%d lines behind, one in %d requests, skips %d", behind, every, skips), func(t *testing.T) {
					t.Parallel()
					l := &fakeLog{records: slices.Concat(numbered(1, 42), []logRecord{{}}, numbered(44, 43+behind)), skips: skips, endsWhole: true}
					client, adapter := loggedBy(t, l, "json-file", "running", "exited")
					next, isFollowed := 44+behind, false
					client.containerLogs = func(_ context.Context, _ string, o container.LogsOptions) (io.ReadCloser, error) {
						body := l.open(o, -1, nil)
						isFollowed = isFollowed || o.Follow
						if len(l.requests)%every == 0 && !isFollowed {
							l.records = append(l.records, numbered(next, next)...)
							next++
						}
						return body, nil
					}
					var sink logSink
					require.NoError(t, adapter.PublishLogs(t.Context(), api.LogSubscriptionOptions{Follow: true}, &sink))
					runs := runsOf(t, &sink)
					if every == 1 && assert.Len(t, runs, 3) {
						var begin int
						_, err := fmt.Sscanf(runs[2], "%d-", &begin)
						require.NoError(t, err)
						assert.LessOrEqual(t, begin, 44+4)
						runs[2] = "44" + strings.TrimLeft(runs[2], "0123456789")
					}
					assert.Equal(t, []string{"1-42", "gap 2026-01-02T03:04:00.42Z", fmt.Sprintf("44-%d", next-1)}, runs)
					assert.Less(t, len(l.requests), 250)
				})
			}
		}
	}
}

// The log is empty at first, or quiet, and the container logs much between two requests: no line is
// missing, and nothing is taken for damage.
func TestLogThatBeginsBetweenTwoRequests(t *testing.T) {
	t.Parallel()
	for _, before := range []int{0, 5} {
		for burst := 2; burst <= 9; burst++ { // the request before which 20 lines are logged; one line before request 2
			for _, since := range []int64{0, 1767323040} { // 03:04:00
				l := &fakeLog{records: numbered(1, before)}
				client, adapter := loggedBy(t, l, "json-file", "running", "exited")
				next := before + 1
				writes := func(n int) {
					l.records = append(l.records, numbered(next, next+n-1)...)
					next += n
				}
				client.containerLogs = func(_ context.Context, _ string, o container.LogsOptions) (io.ReadCloser, error) {
					switch len(l.requests) + 1 {
					case 2:
						writes(1)
					case burst:
						writes(20)
					}
					return l.open(o, -1, nil), nil
				}
				options := api.LogSubscriptionOptions{Follow: true}
				if since > 0 {
					options.Since = &gogotypes.Timestamp{Seconds: since}
				}
				ctx, logged := logged(t)
				var sink logSink
				require.NoError(t, adapter.PublishLogs(ctx, options, &sink))
				assert.Equal(t, []string{fmt.Sprintf("1-%d", next-1)}, runsOf(t, &sink), "%d before, burst at request %d", before, burst)
				assert.Empty(t, logged(logrus.WarnLevel))
			}
		}
	}
}

// The container logs more lines than are known behind the damage before it is followed: it is
// followed once they have been read.
func TestLogThatGrowsBeforeItIsFollowedBehindDamage(t *testing.T) {
	t.Parallel()
	l := &fakeLog{records: slices.Concat(numbered(1, 42), []logRecord{{}}, numbered(44, 44))}
	client, adapter := loggedBy(t, l, "json-file", "running", "exited")
	follows, next := 0, 45
	client.containerLogs = func(_ context.Context, _ string, o container.LogsOptions) (io.ReadCloser, error) {
		if o.Follow {
			follows++
			l.records = append(l.records, numbered(next, next+4)...)
			next += 5
		}
		return l.open(o, -1, nil), nil
	}
	var sink logSink
	require.NoError(t, adapter.PublishLogs(t.Context(), api.LogSubscriptionOptions{Follow: true}, &sink))
	assert.Equal(t, []string{"1-42", "gap 2026-01-02T03:04:00.42Z", "44-54"}, runsOf(t, &sink))
	assert.Equal(t, 2, follows)
	for _, body := range l.bodies {
		assert.Equal(t, 1, body.closed)
	}
}

// A container that runs is followed behind the damage, which an engine from 23 on does
// not do by itself, and after an outage too.
func TestLogBehindADamagedRecordIsFollowed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := &fakeLog{records: slices.Concat(numbered(1, 42), []logRecord{{}}, numbered(44, 60))}
		client, adapter := loggedBy(t, l, "json-file", "running", "running", "exited")
		follows, next := 0, 61
		client.containerLogs = func(_ context.Context, _ string, o container.LogsOptions) (io.ReadCloser, error) {
			if !o.Follow {
				return l.open(o, -1, nil), nil
			}
			follows++
			n, err := strconv.Atoi(o.Tail)
			assert.NoError(t, err)
			assert.LessOrEqual(t, n, next-44, "it begins behind the damage")
			l.records = append(l.records, numbered(next, next+4)...)
			o.Tail = strconv.Itoa(n + 5)
			body := l.open(o, -1, io.ErrUnexpectedEOF)
			l.records = append(l.records, numbered(next+5, next+9)...) // during the outage
			next += 10
			return body, nil
		}
		ctx, logged := logged(t)
		var sink logSink
		require.NoError(t, adapter.PublishLogs(ctx, api.LogSubscriptionOptions{Follow: true}, &sink))
		assert.Equal(t, 2, follows)
		assert.Equal(t, []string{"1-42", "gap 2026-01-02T03:04:00.42Z", "44-80"}, runsOf(t, &sink))
		assert.Equal(t, []string{"log lines after 2026-01-02T03:04:00.42Z and before 2026-01-02T03:04:00.44Z are missing: the engine's file of the log is damaged there",
			lostWarning, lostWarning}, logged(logrus.WarnLevel))
	})
}

// An engine that never sends what it says it has is not asked for ever.
func TestLogWhoseLastEntryNeverComes(t *testing.T) {
	t.Parallel()
	l := &fakeLog{records: numbered(1, 10)}
	client, adapter := loggedBy(t, l, "json-file", "exited")
	asked := 0
	client.containerLogs = func(_ context.Context, _ string, o container.LogsOptions) (io.ReadCloser, error) {
		if asked++; o.Tail == "1" {
			return (&fakeLog{records: numbered(99, 99)}).open(o, -1, nil), nil
		}
		return l.open(o, -1, nil), nil
	}
	var sink logSink
	require.NoError(t, adapter.PublishLogs(t.Context(), api.LogSubscriptionOptions{}, &sink))
	assert.Equal(t, []string{"1-10"}, runsOf(t, &sink))
	assert.Less(t, asked, 30)
}

// An answer that lacks entries after its first one is told. Podman counts lines and not
// entries, so there an answer with a long line would seem to lack some.
func TestLogThatLacksEntries(t *testing.T) {
	t.Parallel()
	for path, want := range map[string][]string{
		dockersLog: {"log lines are missing: the engine's file of the log is damaged"},
		podmansLog: nil,
	} {
		l := &fakeLog{records: numbered(1, 10)}
		client, adapter := loggedBy(t, l, "json-file", "exited")
		keepLogAt(client, path)
		client.containerLogs = func(_ context.Context, _ string, o container.LogsOptions) (io.ReadCloser, error) {
			if o.Tail == "10" {
				o.Tail = "9"
			}
			return l.open(o, -1, nil), nil
		}
		ctx, lines := logged(t)
		var sink logSink
		require.NoError(t, adapter.PublishLogs(ctx, api.LogSubscriptionOptions{}, &sink))
		assert.Equal(t, want, lines(logrus.WarnLevel), path)
		assert.Equal(t, []string{"1-10"}, runsOf(t, &sink))
	}
}

// Podman gives each piece of a line the time of its own read, which may be another second.
func TestLogLineInPiecesOfDifferentTimes(t *testing.T) {
	t.Parallel()
	for path, want := range map[string][]string{
		dockersLog: {"stdout one ", "stdout two\n", "stdout three\n"},
		podmansLog: {"stdout one two\n", "stdout three\n"},
	} {
		l := &fakeLog{records: []logRecord{
			{1, "2026-01-02T03:04:05Z", "one "}, {1, "2026-01-02T03:04:06Z", "two\n"}, {1, "2026-01-02T03:04:07Z", "three\n"},
		}}
		client, adapter := loggedBy(t, l, "json-file", "exited")
		keepLogAt(client, path)
		var sink logSink
		require.NoError(t, adapter.PublishLogs(t.Context(), api.LogSubscriptionOptions{}, &sink))
		assert.Equal(t, want, sink.lines(), path)
		assert.Equal(t, int64(1767323045), sink.messages[0].Timestamp.Seconds, path) // 03:04:05
	}
}

// Whether there is more may stay unknown: then the end of the answer is believed, unless
// the fault passes.
func TestLogWhoseEndIsNotKnown(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		err       error
		temporary bool
	}{{errors.New("forbidden"), false}, {errDown, true}} {
		l := &fakeLog{records: numbered(1, 10)}
		client, adapter := loggedBy(t, l, "json-file", "exited")
		client.containerLogs = func(_ context.Context, _ string, o container.LogsOptions) (io.ReadCloser, error) {
			if o.Tail != "" {
				return nil, test.err
			}
			return l.open(o, -1, nil), nil
		}
		var sink logSink
		err := adapter.PublishLogs(t.Context(), api.LogSubscriptionOptions{}, &sink)
		assert.Equal(t, test.temporary, exec.IsTemporary(err), "%v", err)
		assert.Equal(t, test.temporary, err != nil)
		assert.Len(t, sink.messages, 10)
	}
}

// Engine 20.10 reports an incomplete record at the end of the file. Where there is more
// behind it, and where the container runs, that is no end.
func TestLogWithAnErrorOfDamage(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		for _, follow := range []bool{false, true} {
			l := &fakeLog{records: numbered(1, 10)}
			client, adapter := loggedBy(t, l, "json-file", "running", "exited")
			client.containerLogs = func(_ context.Context, _ string, o container.LogsOptions) (io.ReadCloser, error) {
				text := l.answer(o)
				if o.Follow {
					assert.Equal(t, "10", o.Tail)
					l.records = numbered(1, 20)
					text = l.answer(container.LogsOptions{ShowStdout: true})
				}
				if o.Tail == "" && len(l.records) == 10 {
					text = append(text, frame(3, "Error grabbing logs: unexpected EOF\n")...)
				}
				return &fakeBody{text: bytes.NewReader(text), end: io.EOF}, nil
			}
			var sink logSink
			err := adapter.PublishLogs(t.Context(), api.LogSubscriptionOptions{Follow: follow}, &sink)
			if follow {
				require.NoError(t, err)
				assert.Equal(t, []string{"1-20"}, runsOf(t, &sink))
			} else {
				require.EqualError(t, err, "logs of container "+taskName+": Error grabbing logs: unexpected EOF")
				assert.Equal(t, []string{"1-10"}, runsOf(t, &sink))
			}
		}
	})
}

// Only a file of the driver json-file is looked at behind the end: such requests may
// crash engine 20.10 if the driver is "local". A user's fake gets no request more.
func TestLogIsBelievedToEnd(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		task := plainTask()
		task.Spec.LogDriver = &api.Driver{Name: "local"}
		engine, adapter := logging(t, printing("one\ntwo\n"), task)
		var sink logSink
		require.NoError(t, adapter.PublishLogs(t.Context(), api.LogSubscriptionOptions{}, &sink))
		assert.Len(t, sink.messages, 2)
		assert.Len(t, logQueries(engine), 1)
	})
}

// Engines count pieces of lines, of both streams; a tail has whole lines of the streams
// that are wanted.
func TestTailsHaveWholeLines(t *testing.T) {
	t.Parallel()
	long := func(second string, stream byte, name string) []logRecord {
		return []logRecord{record(second, stream, name+strings.Repeat("x", engineChunk-1)), record(second, stream, strings.Repeat("y", engineChunk)), record(second, stream, name+"\n")}
	}
	var rare, pieces, tens []logRecord
	for _, n := range []string{"1", "2"} {
		tens = append(tens, slices.Repeat([]logRecord{record("0"+n+".000000000", 1, strings.Repeat("z", engineChunk))}, 9)...)
		tens = append(tens, record("0"+n+".000000000", 1, n+"\n"))
	}
	for i := range 100 {
		rare = append(rare, record(fmt.Sprintf("20.%09d", i), 1, "often\n"))
	}
	for i := range 40 {
		pieces = append(pieces, long(fmt.Sprintf("30.%09d", i), 1, string(rune('A'+i)))...)
	}
	mixed := slices.Concat(long("10.000000000", 1, "a"), long("11.000000000", 2, "b")[:2], long("12.000000000", 1, "c")[:1],
		long("11.000000000", 2, "b")[2:], long("12.000000000", 1, "c")[1:], []logRecord{record("13.000000000", 1, "d\n")})
	both, out, stderr := []api.LogStream(nil), []api.LogStream{api.LogStreamStdout}, []api.LogStream{api.LogStreamStderr}
	line := func(name string) string {
		return name + strings.Repeat("x", engineChunk-1) + strings.Repeat("y", engineChunk) + name + "\n"
	}
	for _, test := range []struct {
		name    string
		records []logRecord
		streams []api.LogStream
		tail    int64
		since   int64
		want    []string
	}{
		{"the last line is long", long("10.000000000", 1, "a"), both, -2, 0, []string{"stdout " + line("a")}},
		{"of two streams, both cut", mixed, both, -3, 0, []string{"stdout " + line("c"), "stdout d\n"}},
		{"of two streams, three", mixed, both, -4, 0, []string{"stderr " + line("b"), "stdout " + line("c"), "stdout d\n"}},
		{"as many as there are, of ten pieces each", tens, both, -3, 0, []string{"stdout " + strings.Repeat("z", 9*engineChunk) + "1\n", "stdout " + strings.Repeat("z", 9*engineChunk) + "2\n"}},
		{"more than there are", mixed, both, -100, 0, []string{"stdout " + line("a"), "stderr " + line("b"), "stdout " + line("c"), "stdout d\n"}},
		{"one stream", mixed, stderr, -2, 0, []string{"stderr " + line("b")}},
		{"the other one", mixed, out, -3, 0, []string{"stdout " + line("c"), "stdout d\n"}},
		{"many pieces", pieces, both, -25, 0, nil},
		{"a rare stream, long ago", slices.Concat([]logRecord{record("01.000000000", 2, "rare\n")}, rare), stderr, -2, 0, []string{"stderr rare\n"}},
		{"none", mixed, both, -1, 0, nil},
		{"since", mixed, both, -4, 946684812, []string{"stdout " + line("c"), "stdout d\n"}}, // 00:00:12
		{"the least", mixed, both, math.MinInt64, 0, []string{"stdout " + line("a"), "stderr " + line("b"), "stdout " + line("c"), "stdout d\n"}},
	} {
		if test.name == "many pieces" {
			for i := 16; i < 40; i++ {
				test.want = append(test.want, "stdout "+line(string(rune('A'+i))))
			}
		}
		for _, driver := range []string{"json-file", "local"} {
			for _, follow := range []bool{false, true} {
				if follow && test.tail == -1 { // new lines come then
					continue
				}
				t.Run(fmt.Sprintf("%s, %s, follow %t", test.name, driver, follow), func(t *testing.T) {
					t.Parallel()
					bubble(t, func(t *testing.T) {
						task := plainTask()
						task.Spec.LogDriver = &api.Driver{Name: driver}
						engine, adapter := logging(t, printingRecords(test.records), task)
						if end := engine.Container(taskName).Exit; follow {
							time.AfterFunc(time.Minute, func() { end(0) })
						} else {
							end(0)
						}
						options := api.LogSubscriptionOptions{Tail: test.tail, Streams: test.streams, Follow: follow}
						if test.since > 0 {
							options.Since = &gogotypes.Timestamp{Seconds: test.since}
						}
						var sink logSink
						require.NoError(t, adapter.PublishLogs(t.Context(), options, &sink))
						if got := sink.lines(); !slices.Equal(test.want, got) {
							assert.Equal(t, abridged(test.want), abridged(got))
						}
						assert.LessOrEqual(t, len(logQueries(engine)), 12)
					})
				})
			}
		}
	}
}

// printingRecords writes records at their times, counted from 03:04:00, and runs on. Pieces
// are as long as an engine makes them.
func printingRecords(records []logRecord) dockerexectest.Program {
	return func(p *dockerexectest.Process) int {
		for _, r := range records {
			at, err := time.Parse(time.RFC3339Nano, r.at)
			if err != nil {
				panic(err)
			}
			p.Sleep(time.Until(bubbleBegan.Add(at.Sub(time.Date(2026, 1, 2, 3, 4, 0, 0, time.UTC)))))
			_, _ = io.WriteString(map[byte]io.Writer{1: p.Stdout, 2: p.Stderr}[r.stream], r.text)
		}
		return obedient(p)
	}
}

// A container that logs between the requests moves its last entries.
func TestTailOfAContainerThatLogs(t *testing.T) {
	t.Parallel()
	for _, more := range []int{1, 300} {
		bubble(t, func(t *testing.T) {
			task := plainTask()
			task.Spec.LogDriver = &api.Driver{Name: "local"}
			last := 0
			engine, adapter := logging(t, obedient, task)
			logs := func(count int) {
				for range count {
					last++
					engine.Container(taskName).Print("stdout", strconv.Itoa(last))
				}
			}
			logs(1000)
			engine.FailNext(logsRequest, dockerexectest.Fault{})
			engine.FailAll(logsRequest, dockerexectest.Call(func() { logs(more) }))
			var sink logSink
			require.NoError(t, adapter.PublishLogs(t.Context(), api.LogSubscriptionOptions{Tail: -6}, &sink))
			assert.Equal(t, []string{fmt.Sprintf("996-%d", 1000+more)}, runsOf(t, &sink))
		})
	}
}
