package dockerexec

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"

	cerrdefs "github.com/containerd/errdefs"
	engineapi "github.com/docker/docker/client"
	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// notFoundTransport is a proxy that has no engine to ask.
type notFoundTransport struct{}

func (notFoundTransport) RoundTrip(request *http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: http.StatusNotFound, Header: http.Header{}, Request: request,
		Body: io.NopCloser(strings.NewReader("404 page not found"))}, nil
}

// What is answered to the ping is no word on the container or the network that is
// asked for after it, which nobody has removed.
func TestNothingIsGoneForAPingThatIsNotFound(t *testing.T) {
	t.Parallel()
	client, err := engineapi.NewClientWithOpts(engineapi.WithHost("http://engine"), engineapi.WithHTTPClient(&http.Client{Transport: notFoundTransport{}}))
	require.NoError(t, err)
	task := plainTask()
	attach(task, "n", "10.1.0.0/24")
	for name, call := range map[string]func(*ContainerAdapter, context.Context) error{
		"Shutdown":       (*ContainerAdapter).Shutdown,
		"Terminate":      (*ContainerAdapter).Terminate,
		"Remove":         (*ContainerAdapter).Remove,
		"CreateNetworks": (*ContainerAdapter).CreateNetworks,
		"RemoveNetworks": (*ContainerAdapter).RemoveNetworks,
	} {
		adapter, err := NewEngine(client).Adapter(nil, task, nil)
		require.NoError(t, err)
		err = call(adapter, t.Context())
		require.ErrorContains(t, err, "ping the engine at http://engine: ", name)
		assert.True(t, exec.IsTemporary(err), name)
		assert.False(t, cerrdefs.IsNotFound(err), name)
	}
}
