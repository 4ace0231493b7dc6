package dockerexec

import (
	"context"
	"testing"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/network"
	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/moby/swarmkit/v2/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func networkTaken(name string) error {
	return answer{"network with name " + name + " already exists", cerrdefs.ErrConflict}
}

func engineNetwork(name, id, driver, subnet string, labels map[string]string) network.Inspect {
	return network.Inspect{Name: name, ID: id, Driver: driver, Labels: labels,
		IPAM: network.IPAM{Config: []network.IPAMConfig{{Subnet: subnet, Gateway: "10.1.0.1"}}}}
}

// ours is the label of a network that the package made.
var ours = map[string]string{"com.dockerexec.network": "id-of-backend"}

func backendTask() *api.Task {
	task := plainTask()
	attach(task, "backend", "10.1.0.0/24")
	return task
}

// The same order every time, so that a failure leaves the same behind.
func TestNetworksAreCreatedAndRemovedInSortedOrder(t *testing.T) {
	t.Parallel()
	task := plainTask()
	for _, name := range []string{"c", "a", "b"} {
		attach(task, name, "10.1.0.0/24")
	}
	client := newFakeClient(t)
	client.networkCreate = func(_ context.Context, name string, _ network.CreateOptions) (network.CreateResponse, error) {
		return network.CreateResponse{ID: "id-" + name}, nil
	}
	client.networkRemove = func(context.Context, string) error { return nil }
	adapter := newTestAdapter(t, client, task)
	require.NoError(t, adapter.CreateNetworks(t.Context()))
	require.NoError(t, adapter.RemoveNetworks(t.Context()))
	assert.Equal(t, []string{"NetworkCreate a", "NetworkCreate b", "NetworkCreate c",
		"NetworkRemove id-a", "NetworkRemove id-b", "NetworkRemove id-c"}, client.called())
}

// A network of the same driver and subnets is used; one that differs
// is an error, whatever class the conflict has.
func TestAnExistingNetworkIsUsedOnlyIfItIsTheSame(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name  string
		taken error
		found network.Inspect
		want  string
	}{
		{"the same", networkTaken("backend"), engineNetwork("backend", "n0", "bridge", "10.1.0.0/24", nil), ""},
		{"the same, the conflict without a class", answer{"network with name backend already exists", cerrdefs.ErrInternal}, engineNetwork("backend", "n0", "bridge", "10.1.0.0/24", nil), ""},
		{"another driver", networkTaken("backend"), engineNetwork("backend", "0123456789abcdef", "macvlan", "10.1.0.0/24", nil),
			"create network backend: the engine has a network backend (0123456789ab) that differs: driver macvlan, the task wants bridge; remove or rename one of the two"},
		{"another subnet", networkTaken("backend"), engineNetwork("backend", "0123456789abcdef", "bridge", "10.9.0.0/24", nil),
			"create network backend: the engine has a network backend (0123456789ab) that differs: subnets [10.9.0.0/24], the task wants [10.1.0.0/24]; remove or rename one of the two"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			client := newFakeClient(t)
			client.networkCreate = func(context.Context, string, network.CreateOptions) (network.CreateResponse, error) {
				return network.CreateResponse{}, test.taken
			}
			client.networkInspect = func(context.Context, string) (network.Inspect, error) { return test.found, nil }
			err := newTestAdapter(t, client, backendTask()).CreateNetworks(t.Context())
			if test.want == "" {
				require.NoError(t, err)
				return
			}
			require.EqualError(t, err, test.want)
			assert.False(t, exec.IsTemporary(err))
		})
	}
}

func TestANetworkThatVanishesBetweenConflictAndLookIsTriedAgainLater(t *testing.T) {
	t.Parallel()
	client := newFakeClient(t)
	client.networkCreate = func(context.Context, string, network.CreateOptions) (network.CreateResponse, error) {
		return network.CreateResponse{}, networkTaken("backend")
	}
	client.networkInspect = func(context.Context, string) (network.Inspect, error) {
		return network.Inspect{}, answer{"network backend not found", cerrdefs.ErrNotFound}
	}
	err := newTestAdapter(t, client, backendTask()).CreateNetworks(t.Context())
	require.ErrorContains(t, err, "create network backend")
	assert.True(t, exec.IsTemporary(err))
}

// The engine's own networks are used, never created or removed.
func TestPredefinedNetworksAreLeftAlone(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"bridge", "host", "none"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			task := plainTask()
			task.Networks = []*api.NetworkAttachment{{Network: &api.Network{Spec: api.NetworkSpec{Annotations: api.Annotations{Name: name}}}}}
			client := newFakeClient(t)
			adapter := newTestAdapter(t, client, task)
			require.NoError(t, adapter.CreateNetworks(t.Context()))
			require.NoError(t, adapter.RemoveNetworks(t.Context()))
			assert.Empty(t, client.called())
		})
	}
}

// A network that is gone or in use does not keep the rest from going.
func TestRemoveNetworksTakesGoneAndInUseForDone(t *testing.T) {
	t.Parallel()
	for name, answered := range map[string]error{
		"removed":             nil,
		"gone":                answer{"network n0 not found", cerrdefs.ErrNotFound},
		"in use":              answer{"error while removing network: network backend id n0 has active endpoints", cerrdefs.ErrPermissionDenied},
		"in use, 28.1 and up": answer{`error while removing network: network backend has active endpoints (name:"c" id:"0123")`, cerrdefs.ErrPermissionDenied},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			task := backendTask()
			attach(task, "zone", "10.2.0.0/24")
			client := newFakeClient(t)
			client.networkInspect = func(_ context.Context, name string) (network.Inspect, error) {
				return engineNetwork(name, "id-"+name, "bridge", "", ours), nil
			}
			client.networkRemove = func(_ context.Context, id string) error {
				if id == "id-backend" {
					return answered
				}
				return nil
			}
			require.NoError(t, newTestAdapter(t, client, task).RemoveNetworks(t.Context()))
			assert.Equal(t, []string{"NetworkInspect backend", "NetworkRemove id-backend", "NetworkInspect zone", "NetworkRemove id-zone"}, client.called())
		})
	}
}

// Only what the package made goes, by its label and its ID; a user's own
// network of that name stays, also when it was used.
func TestRemoveNetworksLeavesWhatOthersMade(t *testing.T) {
	t.Parallel()
	for name, found := range map[string]network.Inspect{
		"no label":                    engineNetwork("backend", "n0", "bridge", "10.1.0.0/24", nil),
		"an ID that begins like that": engineNetwork("other", "backend0123", "bridge", "10.1.0.0/24", ours),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			client := newFakeClient(t)
			client.networkInspect = func(context.Context, string) (network.Inspect, error) { return found, nil }
			require.NoError(t, newTestAdapter(t, client, backendTask()).RemoveNetworks(t.Context()))
			assert.Equal(t, []string{"NetworkInspect backend"}, client.called())
		})
	}

	t.Run("used by this task", func(t *testing.T) {
		t.Parallel()
		client := newFakeClient(t)
		client.networkCreate = func(context.Context, string, network.CreateOptions) (network.CreateResponse, error) {
			return network.CreateResponse{}, networkTaken("backend")
		}
		client.networkInspect = func(context.Context, string) (network.Inspect, error) {
			return engineNetwork("backend", "n0", "bridge", "10.1.0.0/24", nil), nil
		}
		adapter := newTestAdapter(t, client, backendTask())
		require.NoError(t, adapter.CreateNetworks(t.Context()))
		require.NoError(t, adapter.RemoveNetworks(t.Context()))
		assert.Equal(t, []string{"NetworkCreate backend", "NetworkInspect backend"}, client.called())
	})
}

func TestNetworksMadeHereCarryTheLabel(t *testing.T) {
	t.Parallel()
	client := newFakeClient(t)
	client.networkCreate = func(_ context.Context, _ string, options network.CreateOptions) (network.CreateResponse, error) {
		assert.Contains(t, options.Labels, "com.dockerexec.network")
		return network.CreateResponse{ID: "n0"}, nil
	}
	require.NoError(t, newTestAdapter(t, client, backendTask()).CreateNetworks(t.Context()))
}
