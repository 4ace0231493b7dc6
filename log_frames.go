package dockerexec

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"io"

	"github.com/moby/swarmkit/v2/api"
	"github.com/pkg/errors"
)

const (
	// maxLogMessage bounds, in bytes, one message off the engine with its time.
	// Engines cut lines at 16 KiB; the greatest piece that a log driver asks for
	// is 256 KiB.
	maxLogMessage = 1 << 20

	// engineChunk is where engines cut a line in pieces. A driver may ask for
	// greater pieces, none for smaller ones.
	engineChunk = 16 << 10

	logFrameHeader = 8
	logReadBuffer  = 64 << 10
	maxInBandError = 4 << 10
)

// logReader hands out an engine's answer to a logs request message by message: a
// line or a piece of one, with the time and perhaps the details in front.
type logReader interface {
	// next returns the next message. It is valid until the following call.
	// io.EOF means that the answer ended where it may; io.ErrUnexpectedEOF that
	// it broke off inside a message.
	next() (api.LogStream, []byte, error)
}

// frameReader reads the multiplexed form, which containers without a TTY have:
// before each message its stream, three bytes of padding and its size.
type frameReader struct {
	in    *bufio.Reader
	taken int    // bytes of the buffer that the last message is made of
	large []byte // holds a message that is greater than the buffer
}

func newFrameReader(r io.Reader) *frameReader {
	return &frameReader{in: bufio.NewReaderSize(r, logReadBuffer)}
}

func (f *frameReader) next() (api.LogStream, []byte, error) {
	if f.taken > 0 {
		f.in.Discard(f.taken) // cannot fail: all of it has been peeked at
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
	case 0, 1: // 0 is stdin, which the engine's own client takes for stdout
		return api.LogStreamStdout, payload, nil
	case 2:
		return api.LogStreamStderr, payload, nil
	case 3: // what the engine has to say after it has answered 200
		return 0, nil, errors.New(string(bytes.TrimSpace(payload[:min(len(payload), maxInBandError)])))
	}
	return 0, nil, errors.Errorf("log frame of %d bytes on the unknown stream %d", size, kind)
}

// payload reads the size bytes after the header that has been peeked at.
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

// brokenOff is the error of a read that got only a part, of got bytes, of what.
func brokenOff(err error, got int, what string) error {
	if got > 0 && (errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)) {
		return errors.Wrapf(io.ErrUnexpectedEOF, "the log stream broke off inside %s", what)
	}
	return err
}

// plainReader reads the form that containers with a TTY have: lines and nothing
// else. There the pieces of a long line follow each other without a newline, and
// what parts them is the prefix, time and details, which they have in common.
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
			return p.take(len(data)) // refused there
		case p.err == io.EOF && len(data) > 0: //nolint:errorlint // an error that wraps io.EOF is no clean end
			// A line that is not finished yet.
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

// fill reads more behind what has not been taken yet.
func (p *plainReader) fill() {
	if p.start > 0 {
		p.end = copy(p.buf, p.buf[p.start:p.end])
		p.start = 0
	}
	if p.end == len(p.buf) {
		p.buf = append(p.buf, make([]byte, len(p.buf))...)
	}
	for range 100 { // as many empty reads as bufio forgives
		n, err := p.in.Read(p.buf[p.end:])
		p.end += n
		p.err = err
		if n > 0 || err != nil {
			return
		}
	}
	p.err = io.ErrNoProgress
}

// pieceEnd returns the length of the first piece in line: up to where the
// prefix that line begins with stands once more, else all of it.
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
