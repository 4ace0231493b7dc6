package main

import (
	"io"
	"testing"
	"time"

	"github.com/docker/docker/api/types/events"
	"github.com/moby/swarmkit/v2/node"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Goroutines count for the part that started them, and for that of who started these.
func TestGoroutinesOfAPart(t *testing.T) {
	end, begun := make(chan struct{}), make(chan struct{})
	defer close(end)
	wait := func() { begun <- struct{}{}; <-end }
	inPart("a part", func() {
		go wait()
		go func() {
			go wait()
			wait()
		}()
	})
	for range 3 {
		<-begun
	}
	counts, err := profiled("goroutine", byLabel)
	require.NoError(t, err)
	assert.Equal(t, int64(3), counts["a part"])
	assert.Positive(t, counts[otherPart], "this one")
}

func TestOwnersOfMemory(t *testing.T) {
	tests := []struct {
		name, want string
		stack      []string
	}{
		{"a container", enginesPart, []string{"maps.clone", "github.com/dockerexec/dockerexec/dockerexectest.(*Engine).newContainer", "net/http.(*conn).serve"}},
		{"an engine's server", enginesPart, []string{"bufio.NewReaderSize", "net/http.(*conn).serve"}},
		{"a client of an engine", agentsPart, []string{"bufio.NewReaderSize", "net/http.(*Transport).dialConn"}},
		{"the executor", agentsPart, []string{"context.WithCancel", "github.com/dockerexec/dockerexec.(*controller).Wait"}},
		{"the agent", agentsPart, []string{"context.WithCancel", "github.com/moby/swarmkit/v2/agent.(*session).run"}},
		{"the store", managersPart, []string{"github.com/moby/swarmkit/v2/api.(*Task).Copy", "github.com/moby/swarmkit/v2/manager/state/store.CreateTask"}},
		{"a call to a manager", managersPart, []string{"make", "github.com/moby/swarmkit/v2/manager/dispatcher.(*Dispatcher).Tasks", "google.golang.org/grpc.(*Server).handleStream"}},
		{"a connection", wirePart, []string{"bufio.NewWriterSize", "google.golang.org/grpc/internal/transport.newHTTP2Client"}},
		{"anything", otherPart, []string{"runtime.malg"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) { assert.Equal(t, test.want, partOf(test.stack)) })
	}
}

func TestNoProfile(t *testing.T) {
	_, err := readProfile([]byte("no profile"))
	require.EqualError(t, err, "gzip: invalid header")
}

// Requests and events are counted, also requests that get no connection.
func TestTraffic(t *testing.T) {
	var f faults
	h := newHost(agentsPart, node.Config{Hostname: "a"}, &f)
	t.Cleanup(h.engine.Close)
	messages, _ := h.client.Events(t.Context(), events.ListOptions{})
	for h.engine.Requests().Count("GET /events") == 0 {
		time.Sleep(time.Millisecond)
	}
	h.engine.AddContainer("a", nil)
	for range 2 { // created and started
		<-messages
	}
	h.engine.Down()
	_, err := h.client.Info(t.Context())
	require.Error(t, err)
	assert.Equal(t, int64(2), h.traffic.requests.Load())
	assert.Equal(t, int64(1), h.traffic.failed.Load())
	assert.GreaterOrEqual(t, h.traffic.events.Load(), int64(2))
	assert.NoError(t, f.err())
}

func TestFlags(t *testing.T) {
	o, err := parseFlags([]string{"-agents", "1, 20", "-tasks", "3", "-log", "a", "-profiles", "b"}, io.Discard)
	require.NoError(t, err)
	assert.Equal(t, options{agents: []int{1, 20}, tasks: 3, log: "a", profiles: "b"}, o)
	for _, test := range []struct{ flag, want string }{
		{"-agents=0", `-agents: "0" is no number of agents`},
		{"-agents=5,", `-agents: "" is no number of agents`},
		{"-tasks=0", "-tasks: less than one task"},
		{"more", `unknown argument "more"`},
	} {
		_, err := parseFlags([]string{test.flag}, io.Discard)
		assert.EqualError(t, err, test.want)
	}
}
