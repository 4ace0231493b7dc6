package dockerexec

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// An engine that picks the IPv6 subnet itself lists it with the task's.
func TestEngineSecondTaskOnADualStackNetwork(t *testing.T) {
	e := NewEngine(engineClient(t))
	for i := range 2 {
		task := engineTask(t, "exit", "0")
		attach(task, "dockerexec-dual-stack", "10.213.21.0/24")
		task.Networks[0].Network.Spec.Ipv6Enabled = true
		adapter, err := e.Adapter(nil, task, nil)
		require.NoError(t, err)
		err = adapter.CreateNetworks(t.Context())
		if i == 0 && err != nil && strings.Contains(err.Error(), "IPv6") {
			require.False(t, atLeast(e.client.ClientVersion(), "1.47"), err)
			skip(t, cannotPickIPv6)
		}
		require.NoError(t, err)
		defer func() { require.NoError(t, adapter.RemoveNetworks(t.Context())) }()
	}
}
