package dockerexec

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/network"
	engineapi "github.com/docker/docker/client"
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

// sharing is a fake engine with one network, which it lets go however many
// created containers count on it.
func sharing(t *testing.T, options *network.CreateOptions) *fakeClient {
	client := newFakeClient(t)
	there := false
	client.networkCreate = func(_ context.Context, name string, made network.CreateOptions) (network.CreateResponse, error) {
		if there {
			return network.CreateResponse{}, networkTaken(name)
		}
		there, *options = true, made
		return network.CreateResponse{ID: "n0"}, nil
	}
	client.networkInspect = func(_ context.Context, name string) (network.Inspect, error) {
		if !there {
			return network.Inspect{}, answer{"network " + name + " not found", cerrdefs.ErrNotFound}
		}
		found := engineNetwork(name, "n0", "bridge", "10.1.0.0/24", options.Labels)
		found.Internal = options.Internal
		return found, nil
	}
	client.networkRemove = func(context.Context, string) error {
		there = false
		return nil
	}
	return client
}

func sharer(t *testing.T, e *Engine, id string, change ...func(*api.Task)) *ContainerAdapter {
	t.Helper()
	task := backendTask()
	task.ID = id
	for _, c := range change {
		c(task)
	}
	adapter, err := e.Adapter(nil, task, nil)
	require.NoError(t, err)
	return adapter
}

// The tasks of an Engine share a network, and the last one takes it.
func TestANetworkStaysWhileATaskOfTheEngineCountsOnIt(t *testing.T) {
	t.Parallel()
	fromConfig := func(task *api.Task) { // carries no label
		task.Networks[0].Network = namedNetwork("backend")
		task.Networks[0].Network.Spec.ConfigFrom = &api.NetworkSpec_Network{Network: "config"}
	}
	internal := func(task *api.Task) { task.Networks[0].Network.Spec.Internal = true }
	const create, inspect, remove = "NetworkCreate backend", "NetworkInspect backend", "NetworkRemove n0"
	for _, test := range []struct {
		name string
		do   func(ctx context.Context, t *testing.T, e *Engine)
		want []string
	}{
		{"the last one takes it", func(ctx context.Context, t *testing.T, e *Engine) {
			a, b := sharer(t, e, "a"), sharer(t, e, "b")
			require.NoError(t, a.CreateNetworks(ctx))
			require.NoError(t, b.CreateNetworks(ctx))
			require.NoError(t, a.RemoveNetworks(ctx))
			require.NoError(t, a.RemoveNetworks(ctx), "it has left already")
			require.NoError(t, b.RemoveNetworks(ctx))
		}, []string{create, create, inspect, remove}},
		{"the other way round", func(ctx context.Context, t *testing.T, e *Engine) {
			a, b := sharer(t, e, "a"), sharer(t, e, "b")
			require.NoError(t, a.CreateNetworks(ctx))
			require.NoError(t, b.CreateNetworks(ctx))
			require.NoError(t, b.RemoveNetworks(ctx))
			require.NoError(t, a.RemoveNetworks(ctx))
		}, []string{create, create, inspect, remove}},
		{"a network without a label", func(ctx context.Context, t *testing.T, e *Engine) {
			a, b := sharer(t, e, "a", fromConfig), sharer(t, e, "b", fromConfig)
			require.NoError(t, a.CreateNetworks(ctx))
			require.NoError(t, b.CreateNetworks(ctx))
			require.NoError(t, a.RemoveNetworks(ctx))
			require.NoError(t, b.RemoveNetworks(ctx))
		}, []string{create, create, inspect, remove}},
		{"a task that counts goes on to, whatever becomes of its next call", func(ctx context.Context, t *testing.T, e *Engine) {
			a, b := sharer(t, e, "a"), sharer(t, e, "b")
			require.NoError(t, a.CreateNetworks(ctx))
			require.NoError(t, b.CreateNetworks(ctx))
			client := e.client.(*fakeClient)
			client.networkCreate = func(context.Context, string, network.CreateOptions) (network.CreateResponse, error) {
				return network.CreateResponse{}, errAway
			}
			require.ErrorIs(t, a.CreateNetworks(ctx), errAway)
			require.NoError(t, b.RemoveNetworks(ctx))
			require.NoError(t, a.RemoveNetworks(ctx))
			require.ErrorIs(t, a.CreateNetworks(ctx), errAway)
			assert.Empty(t, e.networks.networks, "one that never got it does not count")
		}, []string{create, create, inspect, create, remove, create}},
		{"a task counts once", func(ctx context.Context, t *testing.T, e *Engine) {
			require.NoError(t, sharer(t, e, "a").CreateNetworks(ctx))
			require.NoError(t, sharer(t, e, "a").CreateNetworks(ctx))
			require.NoError(t, sharer(t, e, "a").RemoveNetworks(ctx))
		}, []string{create, create, inspect, remove}},
		{"a task that could not use it", func(ctx context.Context, t *testing.T, e *Engine) {
			a := sharer(t, e, "a")
			require.NoError(t, a.CreateNetworks(ctx))
			require.ErrorContains(t, sharer(t, e, "b", internal).CreateNetworks(ctx), "internal false, the task wants true")
			require.NoError(t, a.RemoveNetworks(ctx))
		}, []string{create, create, inspect, remove}},
		{"two Engines know nothing of each other", func(ctx context.Context, t *testing.T, e *Engine) {
			a, b := sharer(t, e, "a"), sharer(t, NewEngine(e.client), "b")
			require.NoError(t, a.CreateNetworks(ctx))
			require.NoError(t, b.CreateNetworks(ctx))
			require.NoError(t, a.RemoveNetworks(ctx))
		}, []string{create, create, inspect, remove}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			var made network.CreateOptions
			client := sharing(t, &made)
			test.do(t.Context(), t, NewEngine(client))
			assert.Equal(t, test.want, client.called())
		})
	}
}

// A user's network stays whoever counts on it, and one that was made again is
// removed as what it is now.
func TestWhatAnEngineKnowsOfANetworkIsKeptUpToDate(t *testing.T) {
	t.Parallel()
	client := newFakeClient(t)
	ids := []string{"n1", "n2"}
	client.networkCreate = func(context.Context, string, network.CreateOptions) (network.CreateResponse, error) {
		if len(ids) == 0 {
			return network.CreateResponse{}, networkTaken("backend")
		}
		id := ids[0]
		ids = ids[1:]
		return network.CreateResponse{ID: id}, nil
	}
	client.networkInspect = func(context.Context, string) (network.Inspect, error) {
		return engineNetwork("backend", "n3", "bridge", "10.1.0.0/24", nil), nil
	}
	client.networkRemove = func(context.Context, string) error { return nil }
	e := NewEngine(client)
	a, b := sharer(t, e, "a"), sharer(t, e, "b")
	require.NoError(t, a.CreateNetworks(t.Context()))
	require.NoError(t, b.CreateNetworks(t.Context()), "the network was gone, and is made again")
	require.NoError(t, a.RemoveNetworks(t.Context()))
	require.NoError(t, b.RemoveNetworks(t.Context()))
	require.NoError(t, a.CreateNetworks(t.Context()), "a user's now")
	require.NoError(t, b.CreateNetworks(t.Context()))
	require.NoError(t, a.RemoveNetworks(t.Context()))
	require.NoError(t, b.RemoveNetworks(t.Context()))
	assert.Equal(t, []string{"NetworkCreate backend", "NetworkCreate backend", "NetworkRemove n2",
		"NetworkCreate backend", "NetworkInspect backend", "NetworkCreate backend", "NetworkInspect backend"}, client.called())
}

// A user's fake may answer a create with nothing at all.
func TestANetworkWithoutAnIDIsRemovedByItsName(t *testing.T) {
	t.Parallel()
	client := newFakeClient(t)
	client.networkCreate = func(context.Context, string, network.CreateOptions) (network.CreateResponse, error) {
		return network.CreateResponse{}, nil
	}
	client.networkRemove = func(context.Context, string) error { return nil }
	adapter := newTestAdapter(t, client, backendTask())
	require.NoError(t, adapter.CreateNetworks(t.Context()))
	require.NoError(t, adapter.RemoveNetworks(t.Context()))
	assert.Equal(t, []string{"NetworkCreate backend", "NetworkRemove backend"}, client.called())
}

// Containers of other processes' tasks count too, once they are created. The
// engine lets the network go that they need for their start.
func TestANetworkStaysWhileACreatedContainerCountsOnIt(t *testing.T) {
	t.Parallel()
	const own = `{"Id": "c1", "Labels": {"com.docker.swarm.task.id": "taskid"}}`
	const other = `{"Id": "c2", "Labels": {"com.docker.swarm.task.id": "other"}}`
	for _, test := range []struct {
		name    string
		list    string
		status  int
		removed bool
		want    string
	}{
		{"nobody's", `[]`, http.StatusOK, true, ""},
		{"the task's own", "[" + own + "]", http.StatusOK, true, ""},
		{"another task's", "[" + own + "," + other + "]", http.StatusOK, false, ""},
		{"a user's", `[{"Id": "c3", "Labels": null}]`, http.StatusOK, false, ""},
		{"the engine restarts", `{"message": "not now"}`, http.StatusServiceUnavailable, false,
			"remove network backend: list the containers that count on it: Error response from daemon: not now"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			var requests []string
			client, err := engineapi.NewClientWithOpts(engineapi.WithHost("tcp://engine"), engineapi.WithVersion("1.41"),
				engineapi.WithHTTPClient(&http.Client{Transport: answering(func(r *http.Request) (int, string) {
					if strings.HasSuffix(r.URL.Path, "/_ping") {
						return http.StatusOK, ""
					}
					query, err := url.QueryUnescape(r.URL.RawQuery)
					require.NoError(t, err)
					requests = append(requests, r.Method+" "+r.URL.Path+" "+query)
					switch {
					case strings.HasSuffix(r.URL.Path, "/networks/create"):
						return http.StatusCreated, `{"Id": "n0"}`
					case strings.HasSuffix(r.URL.Path, "/containers/json"):
						return test.status, test.list
					default:
						return http.StatusNoContent, ""
					}
				})}))
			require.NoError(t, err)
			e := NewEngine(client)
			e.api.fix("1.41")
			adapter, err := e.Adapter(nil, backendTask(), nil)
			require.NoError(t, err)
			require.NoError(t, adapter.CreateNetworks(t.Context()))
			err = adapter.RemoveNetworks(t.Context())
			if test.want == "" {
				require.NoError(t, err)
			} else {
				require.EqualError(t, err, test.want)
				assert.True(t, exec.IsTemporary(err))
			}
			want := []string{"POST /v1.41/networks/create ",
				`GET /v1.41/containers/json all=1&filters={"network":{"backend":true},"status":{"created":true,"paused":true,"running":true}}`}
			if test.removed {
				want = append(want, "DELETE /v1.41/networks/n0 ")
			}
			assert.Equal(t, want, requests)
		})
	}
}

// Engine 20.10 looks for a network of that name when it begins to make one, and not
// again: several that are asked for at once become several networks of one name, or
// all but one are refused for their subnet.
func TestTasksOfTheEngineCreateANetworkOneAfterTheOther(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		made := map[string]int{}
		client := newFakeClient(t)
		client.networkCreate = func(_ context.Context, name string, _ network.CreateOptions) (network.CreateResponse, error) {
			mu.Lock()
			there := made[name] > 0
			mu.Unlock()
			if there {
				return network.CreateResponse{}, networkTaken(name)
			}
			time.Sleep(time.Second)
			mu.Lock()
			defer mu.Unlock()
			made[name]++
			return network.CreateResponse{ID: "id-" + name}, nil
		}
		client.networkInspect = func(_ context.Context, name string) (network.Inspect, error) {
			return engineNetwork(name, "id-"+name, "bridge", "10.1.0.0/24", ours), nil
		}
		e := NewEngine(client)
		var group sync.WaitGroup
		begin := time.Now()
		for _, id := range []string{"a", "b", "c"} {
			group.Go(func() { assert.NoError(t, sharer(t, e, id).CreateNetworks(t.Context())) })
		}
		group.Go(func() {
			other := sharer(t, e, "d", func(task *api.Task) { task.Networks[0].Network = namedNetwork("other") })
			assert.NoError(t, other.CreateNetworks(t.Context()))
			assert.Equal(t, time.Second, time.Since(begin), "another network waits for none of them")
		})
		impatient, cancel := context.WithTimeout(t.Context(), time.Second/2)
		defer cancel()
		group.Go(func() {
			time.Sleep(time.Millisecond)
			assert.Equal(t, context.DeadlineExceeded, sharer(t, e, "e").CreateNetworks(impatient))
		})
		group.Wait()
		assert.Equal(t, map[string]int{"backend": 1, "other": 1}, made)
		require.NoError(t, sharer(t, e, "f").CreateNetworks(t.Context()), "nobody holds the others up for ever")
	})
}

// Tasks that wait for one's call about a network do not take their time-outs one
// after the other: a controller's step has no other end.
func TestTasksBehindANetworkThatIsNeverAnsweredAreBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		client := newFakeClient(t)
		client.networkCreate = func(ctx context.Context, _ string, _ network.CreateOptions) (network.CreateResponse, error) {
			<-ctx.Done()
			return network.CreateResponse{}, ctx.Err()
		}
		engine := NewEngine(client, WithRequestTimeout(time.Minute))
		begin := time.Now()
		var group sync.WaitGroup
		for n := range 100 {
			group.Go(func() {
				time.Sleep(time.Duration(n) * time.Millisecond)
				err := sharer(t, engine, fmt.Sprint(n)).CreateNetworks(t.Context())
				assert.True(t, exec.IsTemporary(err), err)
				assert.ErrorContains(t, err, "network backend: ")
				assert.ErrorContains(t, err, "the engine did not answer within 1m0s")
			})
		}
		group.Wait()
		assert.LessOrEqual(t, time.Since(begin), 2*time.Minute+time.Second)
	})
}

// A task that joins while the last one before it removes the network has one in
// the end.
func TestANetworkIsThereForATaskThatJoinsDuringItsRemoval(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var options network.CreateOptions
		client := sharing(t, &options)
		remove, release := client.networkRemove, make(chan struct{})
		client.networkRemove = func(ctx context.Context, id string) error {
			<-release
			return remove(ctx, id)
		}
		engine := NewEngine(client)
		a, b := sharer(t, engine, "a"), sharer(t, engine, "b")
		require.NoError(t, a.CreateNetworks(t.Context()))
		left := asynchronously(func() error { return a.RemoveNetworks(t.Context()) })
		synctest.Wait()
		joined := asynchronously(func() error { return b.CreateNetworks(t.Context()) })
		synctest.Wait()
		close(release)
		require.NoError(t, left())
		require.NoError(t, joined())
		_, err := client.NetworkInspect(t.Context(), "backend", network.InspectOptions{})
		require.NoError(t, err)

		require.NoError(t, b.RemoveNetworks(t.Context()))
		assert.Empty(t, engine.networks.networks, "nothing is remembered of a network that is gone")
	})
}

// What makes an existing network another one than the task wants.
func TestNetworkDifference(t *testing.T) {
	t.Parallel()
	task := plainTask()
	attach(task, "backend", "10.1.0.0/24")
	plain := newTestConfig(t, task).networks()[0]
	task.Networks[0].Network.Spec.Ipv6Enabled = true
	task.Networks[0].Network.Spec.Internal = true
	task.Networks[0].Network.IPAM.Configs = append(task.Networks[0].Network.IPAM.Configs, &api.IPAMConfig{Subnet: "FD00:0::/64"})
	strict := newTestConfig(t, task).networks()[0]
	bare := newTestConfig(t, goldenTask(t, "network-bare")).networks()[0]

	ipam := func(subnets ...string) network.IPAM {
		var i network.IPAM
		for _, s := range subnets {
			i.Config = append(i.Config, network.IPAMConfig{Subnet: s})
		}
		return i
	}
	tests := []struct {
		name   string
		wanted networkConfig
		found  network.Inspect
		want   string
	}{
		{"same", plain, network.Inspect{Driver: "bridge", IPAM: ipam("10.1.0.0/24")}, ""},
		{"same, IPv6 on top", plain, network.Inspect{Driver: "bridge", EnableIPv6: true, IPAM: ipam("10.1.0.0/24")}, ""},
		{"driver", plain, network.Inspect{Driver: "macvlan", IPAM: ipam("10.1.0.0/24")}, "driver macvlan, the task wants bridge"},
		{"subnet", plain, network.Inspect{Driver: "bridge", IPAM: ipam("10.2.0.0/24")}, "subnets [10.2.0.0/24], the task wants [10.1.0.0/24]"},
		{"internal", plain, network.Inspect{Driver: "bridge", Internal: true, IPAM: ipam("10.1.0.0/24")}, "internal true, the task wants false"},
		{"same in another order and spelling", strict, network.Inspect{Driver: "bridge", Internal: true, EnableIPv6: true, IPAM: ipam("fd00::/64", "10.1.0.0/24")}, ""},
		{"IPv6", strict, network.Inspect{Driver: "bridge", Internal: true, IPAM: ipam("10.1.0.0/24", "fd00::/64")}, "IPv6 false, the task wants true"},
		{"nothing asked", bare, network.Inspect{Driver: "bridge", IPAM: ipam("172.18.0.0/16")}, ""},
		{"the default driver of Linux", bare, network.Inspect{Driver: "bridge"}, ""},
		{"the default driver of Windows", bare, network.Inspect{Driver: "nat"}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			assert.Equal(t, tt.want, tt.wanted.difference(&tt.found))
		})
	}
}

// The engine's own networks are joined and never created.
func TestPredefinedNetworks(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"bridge", "host", "none", "default"} {
		task := plainTask()
		task.Networks = []*api.NetworkAttachment{attachment(namedNetwork(name))}
		config := newTestConfig(t, task)
		assert.Equal(t, []networkConfig{{name: name, predefined: true}}, config.networks())
		assert.Equal(t, container.NetworkMode(name), config.hostConfig().NetworkMode)
		assert.Empty(t, config.networkingConfig().EndpointsConfig)
		assert.Empty(t, config.endpointNames())
	}
	task := plainTask()
	task.Networks = []*api.NetworkAttachment{{Network: namedNetwork("bridge"), DriverAttachmentOpts: map[string]string{"a": "b"}}}
	assert.Equal(t, []string{"bridge"}, newTestConfig(t, task).endpointNames())
}

// The options of a network arrive.
func TestNetworkOptions(t *testing.T) {
	t.Parallel()
	yes := true
	task := plainTask()
	task.Networks = []*api.NetworkAttachment{attachment(&api.Network{
		ID: "nid1",
		Spec: api.NetworkSpec{
			Annotations: api.Annotations{Name: "n", Labels: map[string]string{"k": "v"}},
			Ipv6Enabled: true, Internal: true, Attachable: true,
		},
		DriverState: &api.Driver{Name: "bridge", Options: map[string]string{"d": "1"}},
		IPAM: &api.IPAMOptions{
			Driver:  &api.Driver{Name: "default", Options: map[string]string{"i": "1"}},
			Configs: []*api.IPAMConfig{{Subnet: "10.0.0.0/24", Range: "10.0.0.0/25", Gateway: "10.0.0.1", Reserved: map[string]string{"r": "10.0.0.2"}}},
		},
	})}
	assert.Equal(t, network.CreateOptions{
		Driver: "bridge", Options: map[string]string{"d": "1"},
		EnableIPv6: &yes, Internal: true, Attachable: true,
		Labels: map[string]string{"k": "v", "com.dockerexec.network": "nid1"},
		IPAM: &network.IPAM{
			Driver: "default", Options: map[string]string{"i": "1"},
			Config: []network.IPAMConfig{{Subnet: "10.0.0.0/24", IPRange: "10.0.0.0/25", Gateway: "10.0.0.1", AuxAddress: map[string]string{"r": "10.0.0.2"}}},
		},
	}, newTestConfig(t, task).networks()[0].options)

	from := namedNetwork("n")
	from.Spec.ConfigFrom = &api.NetworkSpec_Network{Network: "from"}
	task.Networks = []*api.NetworkAttachment{attachment(from)}
	assert.Equal(t, network.CreateOptions{ConfigFrom: &network.ConfigReference{Network: "from"}},
		newTestConfig(t, task).networks()[0].options)
}

// Networks have one order, whatever that of the task.
func TestNetworksAreSorted(t *testing.T) {
	t.Parallel()
	for _, order := range [][]string{{"b", "c", "a"}, {"c", "b", "a"}, {"a", "b", "c"}} {
		task := plainTask()
		for _, name := range order {
			task.Networks = append(task.Networks, attachment(namedNetwork(name)))
		}
		config := newTestConfig(t, task)
		assert.Equal(t, []string{"a", "b", "c"}, config.endpointNames())
		var names []string
		for _, n := range config.networks() {
			names = append(names, n.name)
		}
		assert.Equal(t, []string{"a", "b", "c"}, names)
	}
}

// Two attachments of one name do not become one.
func TestNetworkTwice(t *testing.T) {
	t.Parallel()
	task := plainTask()
	task.Networks = []*api.NetworkAttachment{
		{Network: namedNetwork("a"), Addresses: []string{"10.0.0.1/24"}},
		{Network: namedNetwork("a"), Addresses: []string{"10.0.0.2/24"}},
	}
	_, err := newContainerConfig(nil, task)
	require.EqualError(t, err, "dockerexec: task field Networks[1].Network.Spec.Annotations.Name: a is also that of Networks[0]")
}

// Managers attach the routing mesh's network to each task with an ingress port.
func TestIngressIsWarnedAbout(t *testing.T) {
	t.Parallel()
	mesh := namedNetwork("ingress")
	mesh.Spec.Ingress = true
	old := namedNetwork("ingress")
	old.Spec.Annotations.Labels = map[string]string{"com.docker.swarm.internal": "true"}
	for _, ingress := range []*api.Network{mesh, old} {
		task := plainTask()
		withPort(&api.PortConfig{TargetPort: 80, Protocol: api.ProtocolUDP})(task)
		task.Networks = []*api.NetworkAttachment{attachment(ingress), attachment(namedNetwork("backend"))}
		config := newTestConfig(t, task)
		assert.Equal(t, []string{"the routing mesh exists only inside a swarm engine: port 80/udp is not published, network ingress is not joined"}, config.warnings())
		assert.Equal(t, []string{"backend"}, config.endpointNames())
	}
	assert.Empty(t, newTestConfig(t, plainTask()).warnings())
}

// What managers say of the engine's own networks is accepted.
func TestNetworksOfTheEnginesOwn(t *testing.T) {
	t.Parallel()
	for name, driver := range map[string]string{"bridge": "bridge", "host": "host", "none": "null", "default": "bridge", "nat": "nat"} {
		for _, ipam := range []*api.IPAMOptions{nil, {}, {Driver: &api.Driver{}}, {Driver: &api.Driver{Name: "default"}}} {
			task := plainTask()
			n := namedNetwork(name)
			n.Spec.Annotations.Labels = map[string]string{"com.docker.swarm.predefined": "true", "a": "b"}
			n.DriverState, n.IPAM = &api.Driver{Name: driver}, ipam
			task.Networks = []*api.NetworkAttachment{attachment(n)}
			config := newTestConfig(t, task)
			assert.Equal(t, container.NetworkMode(name), config.hostConfig().NetworkMode)
			assert.Equal(t, []networkConfig{{name: name, predefined: true}}, config.networks())
		}
	}
}

// An engine picks the subnets of a family for which the task names none, and
// lists them with the others.
func TestDifferenceLooksAtTheFamiliesThatTheTaskNames(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		wanted, found []string
		want          string
	}{
		{[]string{"10.1.0.0/24"}, []string{"10.1.0.0/24", "fd12:3456::/64"}, ""},
		{[]string{"10.1.0.0/24"}, []string{"fd12:3456::/64", "10.2.0.0/24"}, "subnets [10.2.0.0/24], the task wants [10.1.0.0/24]"},
		{[]string{"10.1.0.0/24"}, []string{"10.1.0.0/24", "10.2.0.0/24"}, "subnets [10.1.0.0/24 10.2.0.0/24], the task wants [10.1.0.0/24]"},
		{[]string{"10.1.0.0/24"}, []string{"fd12:3456::/64"}, "subnets [], the task wants [10.1.0.0/24]"},
		{[]string{"fd00::/64"}, []string{"10.1.0.0/24", "fd00::/64"}, ""},
		{[]string{"fd00::/64"}, []string{"10.1.0.0/24", "fd12:3456::/64"}, "subnets [fd12:3456::/64], the task wants [fd00::/64]"},
		{[]string{"10.1.0.0/24", "fd00::/64"}, []string{"10.1.0.0/24", "fd12:3456::/64"},
			"subnets [10.1.0.0/24 fd12:3456::/64], the task wants [10.1.0.0/24 fd00::/64]"},
	} {
		task := plainTask()
		attach(task, "n", test.wanted[0])
		n := task.Networks[0].Network
		n.Spec.Ipv6Enabled = true
		for _, subnet := range test.wanted[1:] {
			n.IPAM.Configs = append(n.IPAM.Configs, &api.IPAMConfig{Subnet: subnet})
		}
		found := &network.Inspect{Driver: "bridge", EnableIPv6: true}
		for _, subnet := range test.found {
			found.IPAM.Config = append(found.IPAM.Config, network.IPAMConfig{Subnet: subnet})
		}
		assert.Equal(t, test.want, newTestConfig(t, task).networks()[0].difference(found), "%v beside %v", test.wanted, test.found)
	}
}

// Settings of no interface leave the mode alone.
func TestSysctlsOfNoInterface(t *testing.T) {
	t.Parallel()
	task := plainTask()
	spec(task).Sysctls = map[string]string{"net.ipv4.conf.all.forwarding": "1"}
	task.Networks = []*api.NetworkAttachment{attachment(namedNetwork("a"))}
	assert.Empty(t, newTestConfig(t, task).forVersion("1.45").hostConfig().NetworkMode)
}

// An interface's settings go with the rest below API 1.46, and with the network
// from there on.
func TestSysctlsOfAnInterface(t *testing.T) {
	t.Parallel()
	all := map[string]string{
		"net.core.somaxconn": "1024", "net.ipv4.conf.all.forwarding": "1",
		"net.ipv4.conf.eth0.log_martians": "1", "net.ipv4.conf.eth0.forwarding": "0",
	}
	common := map[string]string{"net.core.somaxconn": "1024", "net.ipv4.conf.all.forwarding": "1"}
	const option = "com.docker.network.endpoint.sysctls"
	const own, given = "net.ipv4.conf.IFNAME.forwarding=0,net.ipv4.conf.IFNAME.log_martians=1", "net.ipv4.conf.IFNAME.rp_filter=1"
	for _, test := range []struct {
		name, version string
		networks      []*api.NetworkAttachment
		mode          container.NetworkMode
		plain         map[string]string
		endpoints     map[string]*network.EndpointSettings
	}{
		{"old", "1.45", nil, "", all, nil},
		{"no network", "1.46", nil, "", common, map[string]*network.EndpointSettings{"bridge": {DriverOpts: map[string]string{option: own}}}},
		{"the newest", "", nil, "", common, map[string]*network.EndpointSettings{"bridge": {DriverOpts: map[string]string{option: own}}}},
		{"bridge", "1.46", []*api.NetworkAttachment{attachment(namedNetwork("bridge"))}, "bridge", common, map[string]*network.EndpointSettings{"bridge": {DriverOpts: map[string]string{option: own}}}},
		{"a network", "1.46", []*api.NetworkAttachment{attachment(namedNetwork("a"))}, "", common, map[string]*network.EndpointSettings{"a": {DriverOpts: map[string]string{option: own}}}},
		{"a network, old", "1.45", []*api.NetworkAttachment{attachment(namedNetwork("a"))}, "a", all, map[string]*network.EndpointSettings{"a": {}}},
		{"a network whose name is no mode, old", "1.45", []*api.NetworkAttachment{attachment(namedNetwork("container:a"))}, "", all, map[string]*network.EndpointSettings{"container:a": {}}},
		{"with settings of the network's own", "1.46", []*api.NetworkAttachment{{Network: namedNetwork("a"), DriverAttachmentOpts: map[string]string{option: given, "x": "y"}}},
			"", common, map[string]*network.EndpointSettings{"a": {DriverOpts: map[string]string{option: own + "," + given, "x": "y"}}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			task := plainTask()
			spec(task).Sysctls, task.Networks = all, test.networks
			config := newTestConfig(t, task).forVersion(test.version)
			assert.Equal(t, test.mode, config.hostConfig().NetworkMode)
			assert.Equal(t, test.plain, config.hostConfig().Sysctls)
			assert.Equal(t, test.endpoints, config.networkingConfig().EndpointsConfig)
		})
	}
}
