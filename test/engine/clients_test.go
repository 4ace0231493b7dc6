package engine_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/docker/docker/api/types/registry"
	engineapi "github.com/docker/docker/client"
	"github.com/stretchr/testify/require"
)

// engineTransport leads to the running engine, whatever the host of a request.
// Its idle connections are the caller's to close.
func engineTransport(t testing.TB) *http.Transport {
	t.Helper()
	socket := strings.TrimPrefix(fromHarness(t, "DOCKEREXEC_TEST_HOST"), "unix://")
	return &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}
}

// engineClient returns a client of the running engine, which has agreed on an
// API version with it.
func engineClient(t testing.TB) *engineapi.Client {
	t.Helper()
	client, err := engineapi.NewClientWithOpts(engineapi.WithHost(fromHarness(t, "DOCKEREXEC_TEST_HOST")))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, client.Close()) })
	ping, err := client.Ping(t.Context())
	require.NoError(t, err)
	client.NegotiateAPIVersionPing(ping)
	return client
}

// plainClient is a client as swarmd makes it, which has agreed on no version.
func plainClient(t testing.TB) (*engineapi.Client, *countingTransport) {
	t.Helper()
	transport := engineTransport(t)
	counting := &countingTransport{RoundTripper: transport}
	client, err := engineapi.NewClientWithOpts(engineapi.WithHost("tcp://engine:2375"), engineapi.WithHTTPClient(&http.Client{Transport: counting}))
	require.NoError(t, err)
	t.Cleanup(transport.CloseIdleConnections)
	return client, counting
}

// countingTransport counts the requests that go over the engine's socket.
type countingTransport struct {
	http.RoundTripper
	mu       sync.Mutex
	requests []string
	point    *requestPoint // nil: none is waited for
}

// requestPoint is the sending of a request, or the coming of its answer.
type requestPoint struct {
	before   int // requests
	answered bool
	reached  chan struct{}
}

func (c *countingTransport) RoundTrip(request *http.Request) (*http.Response, error) {
	c.mu.Lock()
	c.requests = append(c.requests, asked(request))
	point := c.point
	if point != nil {
		if point.before == 0 {
			c.point = nil
		}
		if point.before--; point.before >= 0 {
			point = nil
		}
	}
	c.mu.Unlock()
	if point == nil {
		return c.RoundTripper.RoundTrip(request)
	}
	if !point.answered {
		close(point.reached)
		return c.RoundTripper.RoundTrip(request)
	}
	defer close(point.reached)
	return c.RoundTripper.RoundTrip(request)
}

// reach returns a channel that is closed when a request is sent, or when its
// answer has come, after so many others from now on.
func (c *countingTransport) reach(before int, answered bool) <-chan struct{} {
	point := &requestPoint{before: before, answered: answered, reached: make(chan struct{})}
	c.mu.Lock()
	c.point = point
	c.mu.Unlock()
	return point.reached
}

// counted returns the requests so far but pings and events.
func (c *countingTransport) counted() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var counted []string
	for _, request := range c.requests {
		if !strings.Contains(request, "_ping") && !strings.HasSuffix(request, "events") {
			counted = append(counted, request)
		}
	}
	c.requests = nil
	return counted
}

// registryAuth is the form in which the API takes credentials.
func registryAuth(t testing.TB, user, password string) string {
	t.Helper()
	text, err := json.Marshal(registry.AuthConfig{Username: user, Password: password})
	require.NoError(t, err)
	return base64.URLEncoding.EncodeToString(text)
}

// engineAuth is what the test registry asks for.
func engineAuth(t testing.TB) string {
	t.Helper()
	return registryAuth(t, fromHarness(t, "DOCKEREXEC_TEST_USER"), fromHarness(t, "DOCKEREXEC_TEST_PASSWORD"))
}
