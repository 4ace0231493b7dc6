package dockerexec

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	engineapi "github.com/docker/docker/client"
	"github.com/stretchr/testify/require"
)

// eventBody answers the first request for events with a body and the others with
// silence.
type eventBody struct {
	first  *closing
	sinces []string // of the requests, which come one at a time
}

func (e *eventBody) RoundTrip(request *http.Request) (*http.Response, error) {
	if strings.HasSuffix(request.URL.Path, "/events") {
		e.sinces = append(e.sinces, request.URL.Query().Get("since"))
		if len(e.sinces) == 1 {
			return &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, Body: e.first, Request: request}, nil
		}
	}
	return silentTransport{}.RoundTrip(request)
}

// sinceForm is what an engine takes for a time with its nanoseconds.
var sinceForm = regexp.MustCompile(`^\d+\.\d{9}$`)

// FuzzEvents feeds the event stream with anything, and then with nothing. Nothing
// panics, a subscriber gets no event of another task or container and none twice,
// the stream is opened again at a time that an engine understands, and in the end
// the subscriber is told that events may be lost, since none came back. The bubble
// fails if a goroutine is left.
func FuzzEvents(f *testing.F) {
	files, err := filepath.Glob("testdata/events/*.jsonl")
	require.NoError(f, err)
	require.NotEmpty(f, files)
	for _, file := range files {
		text, err := os.ReadFile(file)
		require.NoError(f, err)
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		synctest.Test(t, func(t *testing.T) {
			engine := &eventBody{first: &closing{
				Reader: io.MultiReader(strings.NewReader(anEvent), bytes.NewReader(body)), closed: make(chan struct{}),
			}}
			client, err := engineapi.NewClientWithOpts(engineapi.WithHost("http://engine"), engineapi.WithHTTPClient(&http.Client{Transport: engine}))
			require.NoError(t, err)
			adapter, err := NewEngine(client).Adapter(nil, plainTask(), nil)
			require.NoError(t, err)
			id := "0123456789ab"
			adapter.containerID.Store(&id)
			ctx, lines := linesOf(t.Context())
			ctx, cancel := context.WithCancel(ctx)
			defer cancel()
			sub := subscribe(ctx, t, adapter)
			time.Sleep(time.Minute)
			select {
			case <-sub.closed:
			default:
				t.Error("not told that events may be lost")
			}
			<-engine.first.closed
			cancel()
			synctest.Wait()

			seen := map[eventKey]bool{}
			for len(sub.messages) > 0 {
				m := <-sub.messages
				task, labelled := m.Actor.Attributes["com.docker.swarm.task.id"]
				name := m.Actor.Attributes["name"]
				if labelled && task != "taskid" || !labelled && name != taskName || name != taskName && m.Actor.ID != id {
					t.Errorf("somebody else's event: %+v", m)
				}
				key := keyOf(m)
				if key.timeNano != 0 && seen[key] {
					t.Errorf("twice: %+v", m)
				}
				seen[key] = true
			}
			for _, since := range engine.sinces {
				if !sinceForm.MatchString(since) {
					t.Errorf("since %q", since)
				}
			}
			if len(engine.sinces) > 2 {
				t.Errorf("%d requests", len(engine.sinces))
			}
			if n := len(lines()); n > 2 {
				t.Errorf("%d lines: %q", n, lines())
			}
			if adapter.engine.stream.run != nil {
				t.Error("the stream goes on")
			}
		})
	})
}
