package dockerexec

import (
	"net/http"
	"net/http/httptest"
	"testing"

	engineapi "github.com/docker/docker/client"
	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A proxy that does not reach the engine is an engine that is away.
func TestAGatewaysErrorsAreTemporary(t *testing.T) {
	t.Parallel()
	for status, temporary := range map[int]bool{
		http.StatusInternalServerError:     false,
		http.StatusNotImplemented:          false,
		http.StatusBadGateway:              true,
		http.StatusServiceUnavailable:      true,
		http.StatusGatewayTimeout:          true,
		http.StatusHTTPVersionNotSupported: false,
	} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Api-Version", "1.51")
			if r.URL.Path != "/_ping" {
				w.WriteHeader(status)
			}
		}))
		t.Cleanup(server.Close)
		client, err := engineapi.NewClientWithOpts(engineapi.WithHost(server.URL), engineapi.WithVersion("1.51"))
		require.NoError(t, err)
		t.Cleanup(func() { assert.NoError(t, client.Close()) })
		adapter, err := NewContainerAdapter(client, nil, plainTask(), nil)
		require.NoError(t, err)
		err = adapter.Start(t.Context())
		require.Error(t, err)
		assert.Equal(t, temporary, exec.IsTemporary(err), "%d: %v", status, err)
	}
}
