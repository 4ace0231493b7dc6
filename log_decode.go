package dockerexec

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"io"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/docker/docker/api/types/container"
	gogotypes "github.com/gogo/protobuf/types"
	"github.com/moby/swarmkit/v2/api"
	"github.com/pkg/errors"
)

const (
	// maxLogMessage bounds one message of the engine with its time, in bytes. Engines
	// cut lines into pieces of 16 KiB. Some log drivers ask for larger pieces, up to
	// 256 KiB.
	maxLogMessage = 1 << 20

	// engineChunk is the size of the pieces into which engines cut a line. A log driver
	// may ask for larger pieces; none asks for smaller ones.
	engineChunk = 16 << 10

	logFrameHeader = 8
	logReadBuffer  = 64 << 10
	maxInBandError = 4 << 10
)

// logReader splits an engine's answer to a logs request into messages. A message is its
// time, then perhaps its details, and then a line or a piece of a line.
type logReader interface {
	// next returns the next message, which is valid until the following call. io.EOF
	// means that the answer ended after a message, io.ErrUnexpectedEOF that it ended
	// inside one.
	next() (api.LogStream, []byte, error)
}

// logEntry is a message as the engine keeps it: a line, or a piece of one.
type logEntry struct {
	stream api.LogStream // unknown: there is no entry
	at     logTime
	text   string // with its time
}

// entryAt returns the first of the last n entries. It returns the zero value if the engine
// sends nothing, because the log is empty or the n-th last record is damaged.
func (p *logPublication) entryAt(ctx context.Context, answer container.InspectResponse, n int) (logEntry, error) {
	options := p.cursor.first
	options.Follow, options.Since, options.Tail = false, "", strconv.Itoa(n)
	reader, end, err := p.open(ctx, answer, options)
	if err != nil {
		return logEntry{}, err
	}
	defer end()
	stream, message, err := reader.next()
	if err != nil {
		if err == io.EOF || logDamaged.matches(err) { //nolint:errorlint // an error that wraps io.EOF is no clean end
			err = nil
		}
		return logEntry{}, p.target.hide(err)
	}
	at, _, _ := p.clock.cut(message)
	return logEntry{stream, at, string(message)}, nil
}

// frameReader reads the log of a container without a TTY. That log is multiplexed: each
// message has a header with the number of its stream, three bytes of padding and its
// size.
type frameReader struct {
	in    *bufio.Reader
	taken int    // bytes of the buffer that the last message occupies
	large []byte // holds a message that is larger than the buffer
}

func newFrameReader(r io.Reader) *frameReader {
	return &frameReader{in: bufio.NewReaderSize(r, logReadBuffer)}
}

func (f *frameReader) next() (api.LogStream, []byte, error) {
	if f.taken > 0 {
		f.in.Discard(f.taken) // cannot fail: Peek has returned these bytes
		f.taken = 0
	}
	header, err := f.in.Peek(logFrameHeader)
	if err != nil {
		return 0, nil, brokenOff(err, len(header), "the header of a frame")
	}
	kind, size := header[0], binary.BigEndian.Uint32(header[4:])
	if size > maxLogMessage {
		return 0, nil, errors.Errorf("log frame of %d bytes on stream %d; at most %d are allowed", size, kind, maxLogMessage)
	}
	payload, err := f.payload(int(size))
	if err != nil {
		return 0, nil, err
	}
	switch kind {
	case 0, 1: // 0 is stdin; the engine's own client treats it as stdout
		return api.LogStreamStdout, payload, nil
	case 2:
		return api.LogStreamStderr, payload, nil
	case 3: // an error of the engine after it answered 200
		return 0, nil, errors.New(string(bytes.TrimSpace(payload[:min(len(payload), maxInBandError)])))
	}
	return 0, nil, errors.Errorf("log frame of %d bytes on the unknown stream %d", size, kind)
}

// payload reads the message behind the header, which is still in the buffer. size is in bytes.
func (f *frameReader) payload(size int) ([]byte, error) {
	if whole := logFrameHeader + size; whole <= f.in.Size() {
		frame, err := f.in.Peek(whole)
		if err != nil {
			return nil, brokenOff(err, len(frame), "a frame")
		}
		f.taken = whole
		return frame[logFrameHeader:], nil
	}
	f.in.Discard(logFrameHeader)
	if cap(f.large) < size {
		f.large = make([]byte, size)
	}
	if _, err := io.ReadFull(f.in, f.large[:size]); err != nil {
		return nil, brokenOff(err, size, "a frame")
	}
	return f.large[:size], nil
}

// brokenOff returns the error of a read that failed with err. The read was inside a thing if
// got is more than 0; what names that thing.
func brokenOff(err error, got int, what string) error {
	if got > 0 && (errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)) {
		return errors.Wrapf(io.ErrUnexpectedEOF, "the log stream broke off inside %s", what)
	}
	return err
}

// plainReader reads the log of a container with a TTY: lines without frames. The pieces
// of a long line follow each other without a newline. All of them begin with the same
// prefix: the time and the details. So the prefix shows where the next piece begins.
type plainReader struct {
	in         io.Reader
	details    bool
	buf        []byte
	start, end int
	err        error // of the last read
}

func newPlainReader(r io.Reader, details bool) *plainReader {
	return &plainReader{in: r, details: details, buf: make([]byte, logReadBuffer)}
}

func (p *plainReader) next() (api.LogStream, []byte, error) {
	searched := 0
	for {
		data := p.buf[p.start:p.end]
		if i := bytes.IndexByte(data[searched:], '\n'); i >= 0 {
			return p.take(pieceEnd(data[:searched+i+1], p.details))
		}
		searched = len(data)
		if i := pieceEnd(data, p.details); i < len(data) {
			return p.take(i)
		}
		switch {
		case len(data) > maxLogMessage:
			return p.take(len(data)) // take refuses it
		case p.err == io.EOF && len(data) > 0: //nolint:errorlint // an error that wraps io.EOF is no clean end
			// The last line has no newline yet.
			return p.take(len(data))
		case p.err != nil:
			return 0, nil, p.err
		}
		p.fill()
	}
}

func (p *plainReader) take(n int) (api.LogStream, []byte, error) {
	if n > maxLogMessage {
		return 0, nil, errors.Errorf("log line of more than %d bytes on a TTY", maxLogMessage)
	}
	message := p.buf[p.start : p.start+n]
	p.start += n
	return api.LogStreamStdout, message, nil
}

// fill reads more bytes and appends them to those that have not been taken yet.
func (p *plainReader) fill() {
	if p.start > 0 {
		p.end = copy(p.buf, p.buf[p.start:p.end])
		p.start = 0
	}
	if p.end == len(p.buf) {
		p.buf = append(p.buf, make([]byte, len(p.buf))...)
	}
	for range 100 { // as many empty reads as bufio allows
		n, err := p.in.Read(p.buf[p.end:])
		p.end += n
		p.err = err
		if n > 0 || err != nil {
			return
		}
	}
	p.err = io.ErrNoProgress
}

// pieceEnd returns the length of the first piece in line. The next piece begins where
// the prefix of line comes again. If the prefix does not come again, the first piece is
// all of line.
func pieceEnd(line []byte, details bool) int {
	if len(line) <= engineChunk {
		return len(line)
	}
	prefix := bytes.IndexByte(line, ' ') + 1
	if _, ok := parseLogTime(line[:max(prefix-1, 0)]); !ok {
		return len(line)
	}
	if details {
		prefix += bytes.IndexByte(line[prefix:], ' ') + 1
	}
	if from := prefix + engineChunk; from < len(line) {
		if i := bytes.Index(line[from:], line[:prefix]); i >= 0 {
			return from + i
		}
	}
	return len(line)
}

// logTime is the time of a log message. The zero value means that there is no time.
type logTime struct {
	sec  int64 // since 1970
	nsec int32
}

func logTimeOf(t time.Time) logTime { return logTime{t.Unix(), int32(t.Nanosecond())} }

func (t logTime) time() time.Time { return time.Unix(t.sec, int64(t.nsec)).UTC() }

// text returns nothing for the zero value.
func (t logTime) text() string {
	if t == (logTime{}) {
		return ""
	}
	return t.time().Format(time.RFC3339Nano)
}

func (t logTime) compare(u logTime) int {
	if c := cmp.Compare(t.sec, u.sec); c != 0 {
		return c
	}
	return cmp.Compare(t.nsec, u.nsec)
}

func (t logTime) add(d time.Duration) logTime { return logTimeOf(t.time().Add(d)) }

// engineTime is the one form in which engines write the time of a message.
const engineTime = "2006-01-02T15:04:05.000000000Z"

// parseLogTime parses the time of a message, without the space after it. It also takes
// other forms of RFC 3339 than the engine's.
func parseLogTime(text []byte) (logTime, bool) {
	if t, ok := parseEngineTime(text); ok {
		return t, true
	}
	if len(text) > len("2006-01-02T15:04:05.000000000+00:00") {
		return logTime{}, false
	}
	t, err := time.Parse(time.RFC3339Nano, string(text))
	if err != nil {
		return logTime{}, false
	}
	return logTimeOf(t), true
}

// parseEngineTime parses only the engine's form. It is fast.
func parseEngineTime(text []byte) (logTime, bool) {
	if len(text) != len(engineTime) || text[29] != 'Z' {
		return logTime{}, false
	}
	sec, ok1 := parseSeconds(text[:20])
	nano, ok2 := digits(text[20:29])
	return logTime{sec, int32(nano)}, ok1 && ok2
}

var daysBeforeMonth = [...]int64{0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334, 365}

// parseSeconds parses "2006-01-02T15:04:05.".
func parseSeconds(text []byte) (int64, bool) {
	if text[4] != '-' || text[7] != '-' || text[10] != 'T' || text[13] != ':' || text[16] != ':' || text[19] != '.' {
		return 0, false
	}
	year, ok1 := digits(text[0:4])
	month, ok2 := digits(text[5:7])
	day, ok3 := digits(text[8:10])
	hour, ok4 := digits(text[11:13])
	minute, ok5 := digits(text[14:16])
	second, ok6 := digits(text[17:19])
	if !(ok1 && ok2 && ok3 && ok4 && ok5 && ok6) ||
		month < 1 || month > 12 || hour > 23 || minute > 59 || second > 59 {
		return 0, false
	}
	leap := year%4 == 0 && (year%100 != 0 || year%400 == 0)
	last := daysBeforeMonth[month] - daysBeforeMonth[month-1]
	if leap && month == 2 {
		last++
	}
	if day < 1 || day > last {
		return 0, false
	}
	// Days since the first of January of the year 0, which was a leap year.
	days := 365*year + (year+3)/4 - (year+99)/100 + (year+399)/400 + daysBeforeMonth[month-1] + day - 1
	if leap && month > 2 {
		days++
	}
	const daysTo1970 = 719528
	return (days-daysTo1970)*86400 + hour*3600 + minute*60 + second, true
}

func digits(text []byte) (n int64, ok bool) {
	for _, c := range text {
		c -= '0'
		if c > 9 {
			return 0, false
		}
		n = n*10 + int64(c)
	}
	return n, true
}

// logClock parses the times of messages. It remembers the last second, because most
// messages have the same second as the one before.
type logClock struct {
	second [20]byte // "2006-01-02T15:04:05."
	sec    int64
}

// cut splits a message into its time and the rest. If the message does not begin with
// a time and a space, ok is false and rest is the whole message.
func (c *logClock) cut(message []byte) (t logTime, rest []byte, ok bool) {
	const space = len(engineTime)
	if len(message) > space && message[space] == ' ' && message[space-1] == 'Z' {
		if string(message[:20]) == string(c.second[:]) {
			if nano, ok := digits(message[20:29]); ok {
				return logTime{c.sec, int32(nano)}, message[space+1:], true
			}
		}
		if t, ok := parseEngineTime(message[:space]); ok {
			copy(c.second[:], message)
			c.sec = t.sec
			return t, message[space+1:], true
		}
	}
	if i := bytes.IndexByte(message, ' '); i > 0 {
		if t, ok := parseLogTime(message[:i]); ok {
			return t, message[i+1:], true
		}
	}
	return logTime{}, message, false
}

// logDetails parses the details between the time and the line: key=value,key=value and
// a space. Keys and values are escaped as in a URL. Without details the space is there
// too. All messages of a container have the same details, so the last ones are kept.
type logDetails struct {
	raw   []byte
	attrs []api.LogAttr // sorted
}

// cut splits the details from the line. The caller may change attrs.
func (d *logDetails) cut(rest []byte) (attrs []api.LogAttr, line []byte) {
	raw, line, found := bytes.Cut(rest, []byte{' '})
	if !found {
		return nil, rest
	}
	if !bytes.Equal(raw, d.raw) {
		d.raw, d.attrs = bytes.Clone(raw), parseLogDetails(string(raw))
	}
	return slices.Clone(d.attrs), line
}

func parseLogDetails(raw string) []api.LogAttr {
	var attrs []api.LogAttr
	for pair := range strings.SplitSeq(raw, ",") {
		if pair == "" {
			continue
		}
		key, value, _ := strings.Cut(pair, "=")
		attrs = append(attrs, api.LogAttr{Key: unescape(key), Value: unescape(value)})
	}
	sortLogAttrs(attrs)
	return attrs
}

func sortLogAttrs(attrs []api.LogAttr) {
	slices.SortFunc(attrs, func(a, b api.LogAttr) int {
		return cmp.Or(cmp.Compare(a.Key, b.Key), cmp.Compare(a.Value, b.Value))
	})
}

// unescape returns text as it is if its escapes are wrong.
func unescape(text string) string {
	if plain, err := url.QueryUnescape(text); err == nil {
		return plain
	}
	return text
}

// logArena allocates the memory of messages. Many lines share one allocation; this
// costs less than half as much as one for each line. The price: a publisher that keeps
// one message keeps up to arenaSize bytes of other messages in memory.
type logArena struct {
	data  []byte
	times []gogotypes.Timestamp
}

const arenaSize = 4 << 10

// clone returns a copy of line.
func (a *logArena) clone(line []byte) []byte {
	n := len(line)
	if n > arenaSize/4 {
		return bytes.Clone(line)
	}
	if n > len(a.data) {
		a.data = make([]byte, arenaSize)
	}
	own := a.data[:n:n] // the capacity ends here, so an append cannot change the next line
	a.data = a.data[n:]
	copy(own, line)
	return own
}

// timestamp returns t in SwarmKit's type.
func (a *logArena) timestamp(t logTime) *gogotypes.Timestamp {
	if len(a.times) == 0 {
		a.times = make([]gogotypes.Timestamp, 32)
	}
	stamp := &a.times[0]
	a.times = a.times[1:]
	stamp.Seconds, stamp.Nanos = t.sec, t.nsec
	return stamp
}
