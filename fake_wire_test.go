package dockerexec

import (
	"bytes"
	"context"
	"encoding/json"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/docker/docker/api/types/events"
	engineapi "github.com/docker/docker/client"
	"github.com/stretchr/testify/require"
)

// wireEngine is the events side of an engine on the wire, for the real client:
// it keeps the last 256 events of all kinds, replays inclusively from since,
// answers before it subscribes, loses all with a restart, and is cut off after
// so many bytes. Its connections are pipes, so it runs on fake time.
type wireEngine struct {
	mu        sync.Mutex
	down      bool
	ring      []events.Message
	followers map[chan events.Message]bool
	conns     map[net.Conn]bool
	budgets   []int  // bytes that each next stream sends before it is cut; none left: no limit
	recorded  []byte // what streams begin with, a line each millisecond
	refusal   int    // not 0: the status that requests for events are answered with
	streams   int
	dials     int

	accepted chan net.Conn
	closed   chan struct{}
}

const keptByEngine = 256

// newWireEngine starts an engine and a client of it.
func newWireEngine(t *testing.T) (*wireEngine, *engineapi.Client) {
	t.Helper()
	e := &wireEngine{
		followers: map[chan events.Message]bool{}, conns: map[net.Conn]bool{},
		accepted: make(chan net.Conn), closed: make(chan struct{}),
	}
	server := &http.Server{
		Handler: e,
		ConnContext: func(ctx context.Context, conn net.Conn) context.Context {
			return context.WithValue(ctx, wireEngine{}.accepted, conn)
		},
	}
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(e) })
	client, err := engineapi.NewClientWithOpts(
		engineapi.WithHost("tcp://engine"), engineapi.WithHTTPClient(&http.Client{Transport: &http.Transport{DialContext: e.dial}}))
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, client.Close())
		require.NoError(t, server.Close())
		serving.Wait()
	})
	return e, client
}

func (e *wireEngine) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	e.mu.Lock()
	e.dials++
	down := e.down
	e.mu.Unlock()
	if down {
		return nil, &net.OpError{Op: "dial", Net: "unix", Err: syscall.ECONNREFUSED}
	}
	near, far := net.Pipe()
	conn := &wireConn{Conn: far, left: -1}
	e.mu.Lock()
	e.conns[conn] = true
	e.mu.Unlock()
	select {
	case e.accepted <- conn:
		return near, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (e *wireEngine) Accept() (net.Conn, error) {
	select {
	case conn := <-e.accepted:
		return conn, nil
	case <-e.closed:
		return nil, net.ErrClosed
	}
}

func (e *wireEngine) Close() error {
	close(e.closed)
	return nil
}

func (e *wireEngine) Addr() net.Addr { return &net.UnixAddr{Name: "engine", Net: "unix"} }

// wireConn is cut after so many bytes.
type wireConn struct {
	net.Conn
	mu   sync.Mutex
	left int // negative: no limit
}

func (c *wireConn) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.left < 0 {
		return c.Conn.Write(p)
	}
	n, err := c.Conn.Write(p[:min(len(p), c.left)])
	if c.left -= n; c.left == 0 {
		_ = c.Conn.Close()
	}
	return n, err
}

func (e *wireEngine) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if strings.HasSuffix(r.URL.Path, "/_ping") {
		w.Header().Set("Api-Version", "1.41")
		return
	}
	var filter map[string]map[string]bool
	if err := json.Unmarshal([]byte(r.FormValue("filters")), &filter); err != nil || !strings.HasSuffix(r.URL.Path, "/v1.41/events") {
		http.Error(w, "unexpected request "+r.URL.String(), http.StatusTeapot)
		return
	}
	e.mu.Lock()
	refusal := e.refusal
	e.mu.Unlock()
	if refusal != 0 {
		http.Error(w, `{"message": "not now"}`, refusal)
		return
	}
	sec, nano, _ := strings.Cut(r.FormValue("since"), ".")
	since, _ := strconv.ParseInt(sec+nano, 10, 64)

	e.mu.Lock()
	e.streams++
	if len(e.budgets) > 0 {
		conn := r.Context().Value(wireEngine{}.accepted).(*wireConn)
		conn.mu.Lock()
		conn.left, e.budgets = e.budgets[0], e.budgets[1:]
		conn.mu.Unlock()
	}
	e.mu.Unlock()
	_ = http.NewResponseController(w).Flush()

	e.mu.Lock()
	var replay []events.Message
	for i := len(e.ring) - 1; i >= 0 && e.ring[i].TimeNano >= since; i-- {
		if passes(filter, e.ring[i]) {
			replay = append(replay, e.ring[i])
		}
	}
	slices.Reverse(replay)
	follower := make(chan events.Message, 1024)
	e.followers[follower] = true
	e.mu.Unlock()
	defer func() {
		e.mu.Lock()
		delete(e.followers, follower)
		e.mu.Unlock()
	}()

	for line := range bytes.Lines(e.recorded) {
		time.Sleep(time.Millisecond)
		_, _ = w.Write(line)
		_ = http.NewResponseController(w).Flush()
	}
	encoder := json.NewEncoder(w)
	for {
		var next events.Message
		if len(replay) > 0 {
			next, replay = replay[0], replay[1:]
		} else {
			select {
			case next = <-follower:
			case <-r.Context().Done():
				return
			}
		}
		if passes(filter, next) {
			if encoder.Encode(next) != nil || http.NewResponseController(w).Flush() != nil {
				return
			}
		}
	}
}

func passes(filter map[string]map[string]bool, m events.Message) bool {
	action, _, _ := strings.Cut(string(m.Action), ":")
	_, labelled := m.Actor.Attributes[labelTask]
	return filter["type"][string(m.Type)] && filter["event"][action] && (labelled || !filter["label"][labelTask])
}

// publish has an event happen.
func (e *wireEngine) publish(m events.Message) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.ring) == keptByEngine {
		e.ring = e.ring[1:]
	}
	e.ring = append(e.ring, m)
	for follower := range e.followers {
		select {
		case follower <- m:
		default: // the engine waits 100 ms, and drops it then
		}
	}
}

// stop breaks every connection and forgets every event.
func (e *wireEngine) stop() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.down, e.ring = true, nil
	for conn := range e.conns {
		_ = conn.Close()
	}
	clear(e.conns)
}

func (e *wireEngine) start() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.down = false
}

func (e *wireEngine) opened() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.streams
}
