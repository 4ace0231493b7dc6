package dockerexec

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/docker/docker/api/types/events"
	"github.com/moby/swarmkit/v2/api"
	"github.com/moby/swarmkit/v2/log"
	"github.com/sirupsen/logrus"
	logrustest "github.com/sirupsen/logrus/hooks/test"
	"github.com/stretchr/testify/require"
)

// eventSource is the events side of a fake engine. Each request that it does not
// refuse is a sourceStream, on which the test sends.
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

// numberedTask is plainTask with an ID of its own.
func numberedTask(n int) *api.Task {
	task := plainTask()
	task.ID = fmt.Sprintf("task%d", n)
	return task
}

// event is one that an engine sends about a task's container, at a nanosecond.
func event(task *api.Task, action events.Action, nano int64) events.Message {
	name := "web.1." + task.ID
	return events.Message{
		Type: events.ContainerEventType, Action: action, TimeNano: nano, Time: nano / 1e9,
		Actor: events.Actor{ID: "id-of-" + name, Attributes: map[string]string{
			"com.docker.swarm.task": "", "com.docker.swarm.task.id": task.ID, "name": name, "image": "example/web:1",
		}},
	}
}

// linesOf gives ctx a logger of its own and returns what it logs at info or
// above, each line with its level.
func linesOf(ctx context.Context) (context.Context, func() []string) {
	logger, hook := logrustest.NewNullLogger()
	ctx = log.WithLogger(ctx, logrus.NewEntry(logger))
	return ctx, func() []string {
		var lines []string
		for _, entry := range hook.AllEntries() {
			line := entry.Level.String() + ": " + entry.Message
			for _, field := range []string{"gap", "error", "task.id"} {
				if value, ok := entry.Data[field]; ok {
					line += fmt.Sprintf(" %s=%v", field, value)
				}
			}
			lines = append(lines, line)
		}
		return lines
	}
}

// read takes the events that have arrived, as "action" each.
func read(messages <-chan events.Message) []string {
	var actions []string
	for {
		select {
		case m := <-messages:
			actions = append(actions, string(m.Action))
		default:
			return actions
		}
	}
}

func isClosed(closed <-chan struct{}) bool {
	select {
	case <-closed:
		return true
	default:
		return false
	}
}

// subscribed is one subscription of a test.
type subscribed struct {
	messages <-chan events.Message
	closed   <-chan struct{}
}

func subscribe(ctx context.Context, t testing.TB, adapter *ContainerAdapter) subscribed {
	t.Helper()
	messages, closed, err := adapter.Events(ctx)
	require.NoError(t, err)
	return subscribed{messages, closed}
}

// engineAway is what the client says when nothing listens.
type engineAway struct{}

func (engineAway) Error() string {
	return strings.Join([]string{"Cannot connect to the Docker daemon at unix:///run/engine.sock.", "Is the docker daemon running?"}, " ")
}
