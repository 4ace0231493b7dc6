package dockerexectest

import (
	"bytes"
	"io"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/docker/go-units"
)

// The numbers of the streams in a log's frames.
const (
	stdout = byte(1)
	stderr = byte(2)
)

// pieceSize is the longest text that an engine keeps as one message.
const pieceSize = 16 << 10

// logStore is what a container has printed, as its log driver keeps it. The
// engine's mu guards it.
type logStore struct {
	entries  []logEntry
	dropped  int // how many entries rotation has dropped
	grown    signal
	details  string // sent before each line, if the client asks for them
	capacity int64  // bytes of a file; 0: no limit
	files    []int  // how many entries each file has, the oldest first
	maxFiles int
	size     int64 // of the newest file
}

// logEntry is a message: a line with its newline, or a piece without a newline.
type logEntry struct {
	stream byte
	at     int64 // nanoseconds
	text   []byte
}

// configure reads the options of the log driver.
func (l *logStore) configure(c *Container) {
	options := c.hostConfig.LogConfig.Config
	l.maxFiles = 1
	if size, err := units.FromHumanSize(options["max-size"]); err == nil {
		l.capacity = size
	}
	if n, err := strconv.Atoi(options["max-file"]); err == nil && n > 0 {
		l.maxFiles = n
	}
	l.files = []int{0}

	attributes := map[string]string{}
	for _, name := range strings.Split(options["labels"], ",") {
		if value, exists := c.config.Labels[name]; exists {
			attributes[name] = value
		}
	}
	for _, name := range strings.Split(options["env"], ",") {
		for _, pair := range c.config.Env {
			if key, value, _ := strings.Cut(pair, "="); key == name && name != "" {
				attributes[name] = value
			}
		}
	}
	if tag := options["tag"]; tag != "" {
		attributes["tag"] = tag
	}
	var pairs []string
	for name, value := range attributes {
		pairs = append(pairs, url.QueryEscape(name)+"="+url.QueryEscape(value))
	}
	slices.Sort(pairs)
	l.details = strings.Join(pairs, ",")
}

// isReadable reports whether the log driver keeps the log.
func (c *Container) isReadable() bool { return c.hostConfig.LogConfig.Type != "none" }

// logPath is the file of the log. It is empty until the first start.
func (c *Container) logPath() string {
	if c.hostConfig.LogConfig.Type != "json-file" || c.starts == 0 {
		return ""
	}
	return c.engine.info.DockerRootDir + "/containers/" + c.id + "/" + c.id + "-json.log"
}

func (l *logStore) add(entry logEntry) {
	size := int64(len(entry.text)) + int64(len(`{"log":"","stream":"stdout","time":"2006-01-02T15:04:05.000000000Z"}`))
	if l.capacity > 0 && l.size >= l.capacity { // checked before a write, so a file may become larger
		l.files, l.size = append(l.files, 0), 0
		if len(l.files) > l.maxFiles {
			l.entries = slices.Clone(l.entries[l.files[0]:])
			l.dropped += l.files[0]
			l.files = slices.Clone(l.files[1:])
		}
	}
	l.size += size
	l.files[len(l.files)-1]++
	l.entries = append(l.entries, entry)
	l.grown.raise()
}

func (l *logStore) text() string {
	var text bytes.Buffer
	for _, entry := range l.entries {
		text.Write(entry.text)
	}
	return text.String()
}

// lineWriter cuts what a program prints into lines, and long lines into pieces.
type lineWriter struct {
	container *Container
	run       *run
	stream    byte
	buffer    []byte
	lineAt    int64 // the time of the line's first piece; 0: no piece yet
}

// writer returns the writer of a run's stream. With a TTY, both streams have the same
// writer. The caller holds mu.
func (c *Container) writer(r *run, stream byte) io.Writer {
	if c.config.Tty {
		stream = stdout
	}
	for _, w := range r.writers {
		if w.stream == stream {
			return w
		}
	}
	w := &lineWriter{container: c, run: r, stream: stream}
	r.writers = append(r.writers, w)
	return w
}

// Write blocks while the container is paused, and fails if the run has ended.
func (w *lineWriter) Write(p []byte) (int, error) {
	c, e := w.container, w.container.engine
	e.mu.Lock()
	defer e.mu.Unlock()
	for c.paused && !w.run.hasEnded && !w.run.isKilled {
		unpaused := c.changed.wait()
		e.mu.Unlock()
		select {
		case <-unpaused:
		case <-w.run.killed:
		}
		e.mu.Lock()
	}
	if w.run.hasEnded || w.run.isKilled {
		return 0, io.ErrClosedPipe
	}
	text := p
	if c.config.Tty {
		text = bytes.ReplaceAll(p, []byte("\n"), []byte("\r\n"))
	}
	w.buffer = append(w.buffer, text...)
	for {
		end := bytes.IndexByte(w.buffer, '\n')
		switch {
		case end >= 0 && end < pieceSize:
			w.keep(w.buffer[:end+1], true)
			w.buffer = w.buffer[end+1:]
		case len(w.buffer) >= pieceSize:
			w.keep(w.buffer[:pieceSize], false)
			w.buffer = w.buffer[pieceSize:]
		default:
			w.buffer = slices.Clone(w.buffer)
			return len(p), nil
		}
	}
}

// keep logs a message. All pieces of a line have the time of the first.
func (w *lineWriter) keep(text []byte, endsLine bool) {
	c := w.container
	at := w.lineAt
	if at == 0 {
		at = c.engine.now().UnixNano()
	}
	w.lineAt = at
	if endsLine {
		w.lineAt = 0
	}
	if c.isReadable() {
		if c.engine.dialect == PodmanV4 {
			at -= at % int64(time.Second)
		}
		c.log.add(logEntry{stream: w.stream, at: at, text: slices.Clone(text)})
	}
}

// flush logs the rest that has no newline. The caller holds mu.
func (w *lineWriter) flush() {
	if len(w.buffer) > 0 {
		w.keep(w.buffer, false)
		w.buffer = nil
	}
}
