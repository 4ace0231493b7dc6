package dockerexec

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/events"
	"github.com/docker/docker/api/types/image"
	engineapi "github.com/docker/docker/client"
	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/moby/swarmkit/v2/api"
	"github.com/stretchr/testify/require"
)

// eventSource is the events side of a fake engine. Each request that it does not
// refuse is a sourceStream, on which the test sends.
//
// It is kept for events that no engine sends, for the moment at which a client takes an
// event, and for clients that do not heed their context.
type eventSource struct {
	mu      sync.Mutex
	refusal error // not nil: what requests end with
	opened  []*sourceStream
	since   []string    // of each request
	times   []time.Time // of each request
}

type sourceStream struct {
	ctx      context.Context
	messages chan events.Message
	errs     chan error
}

// newEventSource gives a fake client an event source.
func newEventSource(client *fakeClient) *eventSource {
	s := &eventSource{}
	client.events = s.events
	return s
}

func (s *eventSource) events(ctx context.Context, options events.ListOptions) (<-chan events.Message, <-chan error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.since = append(s.since, options.Since)
	s.times = append(s.times, time.Now())
	stream := &sourceStream{ctx: ctx, messages: make(chan events.Message), errs: make(chan error, 1)}
	if s.refusal != nil {
		stream.errs <- s.refusal
		close(stream.errs)
		return stream.messages, stream.errs
	}
	s.opened = append(s.opened, stream)
	return stream.messages, stream.errs
}

// refuse has requests fail from now on; with nil they succeed.
func (s *eventSource) refuse(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refusal = err
}

func (s *eventSource) requests() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.since)
}

// asked returns where a request began and when it came.
func (s *eventSource) asked(n int) (since string, when time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.since[n], s.times[n]
}

func (s *eventSource) opens() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.opened)
}

// latest is the stream of the last request that was not refused.
func (s *eventSource) latest() *sourceStream {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.opened[len(s.opened)-1]
}

// send returns when all that comes of the events has been done.
func (s *sourceStream) send(messages ...events.Message) {
	for _, m := range messages {
		select {
		case s.messages <- m:
		case <-s.ctx.Done():
		}
	}
	synctest.Wait()
}

// end breaks the stream.
func (s *sourceStream) end(err error) {
	s.errs <- err
	close(s.errs)
	synctest.Wait()
}

// errEngineAway is what the client says when nothing listens.
var errEngineAway = func() error {
	client, err := engineapi.NewClientWithOpts(engineapi.WithHost("unix:///run/engine.sock"))
	if err != nil {
		panic(err)
	}
	defer client.Close()
	_, err = client.Ping(context.Background())
	return err
}()

// frame is a message as an engine multiplexes it.
func frame(stream byte, payload string) []byte {
	header := []byte{stream, 0, 0, 0, 0, 0, 0, 0}
	binary.BigEndian.PutUint32(header[4:], uint32(len(payload)))
	return append(header, payload...)
}

// logRecord is a message as an engine keeps it: a line, or a piece of one
// without a newline.
type logRecord struct {
	stream byte
	at     string
	text   string
}

// readLogRecords reads a file of testdata/logs: in each line stream, time and
// text; "\" at the end stands for a piece, which has no newline.
func readLogRecords(t testing.TB, path string) []logRecord {
	t.Helper()
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	var records []logRecord
	for line := range strings.Lines(string(text)) {
		fields := strings.SplitN(line, " ", 3)
		require.Len(t, fields, 3, line)
		if piece, ok := strings.CutSuffix(fields[2], "\\\n"); ok {
			fields[2] = piece
		}
		records = append(records, logRecord{fields[0][0] - '0', fields[1], fields[2]})
	}
	return records
}

// readRawLog reads what an engine has sent, with frames unless it is of a TTY.
func readRawLog(t testing.TB, path string, tty bool) []logRecord {
	t.Helper()
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	var records []logRecord
	if tty {
		starts := append(regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z `).FindAllIndex(text, -1), []int{len(text)})
		for i, start := range starts[:len(starts)-1] {
			records = append(records, logRecord{1, string(text[start[0] : start[1]-1]), string(text[start[1]:starts[i+1][0]])})
		}
		return records
	}
	for len(text) > 0 {
		size := binary.BigEndian.Uint32(text[4:])
		at, line, _ := strings.Cut(string(text[8:8+size]), " ")
		records = append(records, logRecord{text[0], at, line})
		text = text[8+size:]
	}
	return records
}

// fakeLog answers logs requests from its records as engines do: since is
// inclusive.
//
// It is kept for logs that dockerexectest does not make: recorded ones, times that step back,
// damaged files, lines that are thrown away between two answers, and an answer that is cut
// at each of its bytes.
type fakeLog struct {
	records []logRecord
	tty     bool
	details string // in front of each line, if asked for
	// skips is how many records it leaves out behind a damaged one, which is the zero
	// record, as engine 20.10 does. 0: it ends the answer there, as engines from 23 on do.
	skips int
	// endsWhole is whether it ends an answer there all the same if no tail is asked for.
	endsWhole bool
	// dropsSince is whether it stops to look at since after the first message
	// that passes, as engines from 23 on do.
	dropsSince bool

	mu       sync.Mutex
	requests []container.LogsOptions
	bodies   []*fakeBody
}

func (l *fakeLog) answer(o container.LogsOptions) []byte {
	records := l.records
	if o.Tail != "" {
		n, err := strconv.Atoi(o.Tail)
		if err != nil {
			panic(err)
		}
		records = records[max(len(records)-n, 0):]
	}
	var since time.Time
	if o.Since != "" {
		var sec, nsec int64
		if _, err := fmt.Sscanf(o.Since, "%d.%09d", &sec, &nsec); err != nil {
			panic(err)
		}
		since = time.Unix(sec, nsec)
	}
	var out []byte
	for len(records) > 0 {
		r := records[0]
		records = records[1:]
		if r == (logRecord{}) {
			if l.skips == 0 || l.endsWhole && o.Tail == "" {
				break
			}
			records = records[min(l.skips, len(records)):]
			continue
		}
		at, err := time.Parse(time.RFC3339Nano, r.at)
		if err != nil {
			panic(err)
		}
		if at.Before(since) {
			continue
		}
		if l.dropsSince {
			since = time.Time{}
		}
		if r.stream == 1 && !o.ShowStdout || r.stream == 2 && !o.ShowStderr {
			continue
		}
		message := r.at + " "
		if o.Details {
			message += l.details + " "
		}
		message += r.text
		if l.tty {
			out = append(out, message...)
		} else {
			out = append(out, frame(r.stream, message)...)
		}
	}
	return out
}

// open notes the request and returns a body with the answer cut after n bytes
// (-1: whole), and then err (nil: io.EOF).
func (l *fakeLog) open(o container.LogsOptions, n int, err error) io.ReadCloser {
	text := l.answer(o)
	if n >= 0 && n < len(text) {
		text = text[:n]
	}
	if err == nil {
		err = io.EOF
	}
	body := &fakeBody{text: bytes.NewReader(text), end: err}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.requests = append(l.requests, o)
	l.bodies = append(l.bodies, body)
	return body
}

// fakeBody is a response body that ends with the error of the test's choice and
// knows how often it was closed.
type fakeBody struct {
	text   *bytes.Reader
	end    error
	mu     sync.Mutex
	closed int
}

func (b *fakeBody) Read(p []byte) (int, error) {
	if b.text.Len() == 0 {
		return 0, b.end
	}
	return b.text.Read(p)
}

func (b *fakeBody) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed++
	return nil
}

// blockingBody has text to read and then nothing until it is closed.
type blockingBody struct {
	text   *bytes.Reader
	once   sync.Once
	closed chan struct{}
}

func newBlockingBody(text []byte) *blockingBody {
	return &blockingBody{text: bytes.NewReader(text), closed: make(chan struct{})}
}

func (b *blockingBody) Read(p []byte) (int, error) {
	if b.text.Len() > 0 {
		return b.text.Read(p)
	}
	<-b.closed
	return 0, os.ErrClosed
}

func (b *blockingBody) Close() error {
	b.once.Do(func() { close(b.closed) })
	return nil
}

// logSink keeps what is published.
type logSink struct {
	mu       sync.Mutex
	messages []api.LogMessage
	onLine   func(int) error // called with the count so far
}

var _ exec.LogPublisher = (*logSink)(nil)

func (s *logSink) Publish(_ context.Context, m api.LogMessage) error {
	s.mu.Lock()
	s.messages = append(s.messages, m)
	n, onLine := len(s.messages), s.onLine
	s.mu.Unlock()
	if onLine != nil {
		return onLine(n)
	}
	return nil
}

// lines returns what is published, each as "stdout text".
func (s *logSink) lines() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var lines []string
	for _, m := range s.messages {
		lines = append(lines, map[api.LogStream]string{api.LogStreamStdout: "stdout ", api.LogStreamStderr: "stderr "}[m.Stream]+string(m.Data))
	}
	return lines
}

// logContainer is the engine's record of the task's container.
func logContainer(status string) container.InspectResponse {
	return inspected("c1", status, map[string]string{LabelTaskID: "taskid"})
}

// statuses has the fake's inspect answer with one status after the other, and
// go on with the last one.
func statuses(f *fakeClient, list ...string) {
	var mu sync.Mutex
	f.containerInspect = func(context.Context, string) (container.InspectResponse, error) {
		mu.Lock()
		defer mu.Unlock()
		status := list[0]
		if len(list) > 1 {
			list = list[1:]
		}
		return logContainer(status), nil
	}
}

// recorded is an engine's answer.
type recorded struct {
	status      int
	contentType string
	end         string
	body        []byte
}

func readRecorded(t testing.TB, file string) recorded {
	t.Helper()
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	head, body, _ := bytes.Cut(text, []byte("\n"))
	words := strings.Fields(string(head))
	status, err := strconv.Atoi(words[0])
	require.NoError(t, err)
	r := recorded{status: status, contentType: words[1], body: body}
	if len(words) > 2 {
		r.end = words[2]
	}
	return r
}

// pulling is a fake that answers each pull with the next of answers, and the
// last one again when there are no more.
//
// It is kept for errors as clients make them, for bodies that say when they are read and
// closed, and for messages that a test sends one by one.
func pulling(t testing.TB, answers ...func(ctx context.Context) (io.ReadCloser, error)) *fakeClient {
	client := newFakeClient(t)
	var pulls atomic.Int64
	client.imagePull = func(ctx context.Context, _ string, _ image.PullOptions) (io.ReadCloser, error) {
		return answers[min(int(pulls.Add(1)), len(answers))-1](ctx)
	}
	return client
}

// stream answers a pull with messages.
func stream(messages ...string) func(context.Context) (io.ReadCloser, error) {
	return func(context.Context) (io.ReadCloser, error) {
		return io.NopCloser(strings.NewReader(strings.Join(messages, "\n"))), nil
	}
}

// refusal answers a pull with an error.
func refusal(err error) func(context.Context) (io.ReadCloser, error) {
	return func(context.Context) (io.ReadCloser, error) { return nil, err }
}

// closing is a body that knows whether it was closed.
type closing struct {
	io.Reader
	closed chan struct{}
}

func (c *closing) Close() error {
	close(c.closed) // panics if it is closed twice
	return nil
}

// unending reads nothing until it is closed.
type unending struct{ closed chan struct{} }

func (u unending) Read([]byte) (int, error) {
	<-u.closed
	return 0, errors.New("read on a closed body")
}

type endWith struct{ err error }

func (e endWith) Read([]byte) (int, error) { return 0, e.err }

// scripted is a body that a test writes to. It takes messages only when read.
func scripted() (*io.PipeReader, *io.PipeWriter) { return io.Pipe() }

// download writes n messages, one every interval, and ends the stream.
func download(w *io.PipeWriter, n int, interval time.Duration) {
	for i := range n {
		fmt.Fprintf(w, `{"status":"Downloading","progressDetail":{"current":%d,"total":%d},"id":"a"}`+"\n", i+1, n)
		time.Sleep(interval)
	}
	w.Close()
}

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

// anEvent is how an event stream begins.
const anEvent = `{"Type":"container","Action":"start","Actor":{"ID":"0123456789ab","Attributes":{"name":"nobody"}},"scope":"local","time":1700000000,"timeNano":1700000000000000000}` + "\n"
