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
	logtest "github.com/sirupsen/logrus/hooks/test"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Recorded pulls: testdata/pull/<engine>/<case>.http is an engine's answer to a
// pull: a line with status, content type and how the body ends ("cut": the
// connection breaks, "stalls": nothing more comes), then the body. <case>.want
// beside it, checked by hand, is what an observer and a log see of it, and how
// PullImage ends. The cases of "odd" are made up.

var updatePulls = flag.Bool("update-pulls", false, "write testdata/pull/*/*.want anew; read the difference before you commit it")

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

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// logHook gives ctx a logger on level debug whose entries the hook has.
func logHook(ctx context.Context) (context.Context, *logtest.Hook) {
	logger, hook := logtest.NewNullLogger()
	logger.SetLevel(logrus.DebugLevel)
	return log.WithLogger(ctx, logrus.NewEntry(logger)), hook
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

// classesOf names the classes of errdefs that err has.
func classesOf(err error) (classes []string) {
	for _, class := range []error{
		cerrdefs.ErrUnknown, cerrdefs.ErrInvalidArgument, cerrdefs.ErrNotFound, cerrdefs.ErrPermissionDenied, cerrdefs.ErrUnauthenticated,
		cerrdefs.ErrResourceExhausted, cerrdefs.ErrInternal, cerrdefs.ErrUnavailable, cerrdefs.ErrDataLoss,
	} {
		if errors.Is(err, class) {
			classes = append(classes, class.Error())
		}
	}
	return classes
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
