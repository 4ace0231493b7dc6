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

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/network"
	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/moby/swarmkit/v2/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockerexec/dockerexec/dockerexectest"
)

// ours is the label of a network that the package made.
var ours = map[string]string{"com.dockerexec.network": "id-of-backend"}

func backendTask() *api.Task {
	task := plainTask()
	attach(task, "backend", "10.1.0.0/24")
	return task
}

// What a test of networks is asked.
const (
	makesNetwork   = "POST /networks/create backend"
	looksAtNetwork = "GET /networks/backend"
	looksWhoUsesIt = "GET /containers/json"
	dropsNetwork   = "DELETE /networks/ID"
)

// addNetwork has somebody make a network and returns its ID.
func addNetwork(t testing.TB, engine *dockerexectest.Engine, name, driver, subnet string, labels map[string]string) string {
	t.Helper()
	made, err := engine.Client().NetworkCreate(t.Context(), name, network.CreateOptions{Driver: driver, Labels: labels,
		IPAM: &network.IPAM{Config: []network.IPAMConfig{{Subnet: subnet}}}})
	require.NoError(t, err)
	return made.ID
}

// The same order every time, so that a failure leaves the same behind. Each has the label.
func TestNetworksAreCreatedAndRemovedInSortedOrder(t *testing.T) {
	t.Parallel()
	task := plainTask()
	attach(task, "c", "10.3.0.0/24")
	attach(task, "a", "10.1.0.0/24")
	attach(task, "b", "10.2.0.0/24")
	engine := dockerexectest.New(t)
	adapter := adapterOn(t, engine, task)
	require.NoError(t, adapter.CreateNetworks(t.Context()))
	assert.Equal(t, []string{"a", "b", "c"}, engine.Networks())
	var removals []string
	for _, name := range []string{"a", "b", "c"} {
		made, err := engine.Client().NetworkInspect(t.Context(), name, network.InspectOptions{})
		require.NoError(t, err)
		assert.Equal(t, map[string]string{"com.dockerexec.network": "id-of-" + name}, made.Labels)
		removals = append(removals, "GET /containers/json", "DELETE /networks/"+made.ID)
	}
	engine.ForgetRequests()
	require.NoError(t, adapter.RemoveNetworks(t.Context()))
	var requests []string
	for _, request := range engine.Requests() {
		requests = append(requests, request.String())
	}
	assert.Equal(t, removals, requests)
	assert.Empty(t, engine.Networks())
}

// A network of the same driver and subnets is used; one that differs
// is an error, whatever class the conflict has.
func TestAnExistingNetworkIsUsedOnlyIfItIsTheSame(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		driver, subnet string
		status         int // of the conflict; 0: the engine's own
		want           string
	}{
		"the same":                               {"bridge", "10.1.0.0/24", 0, ""},
		"the same, the conflict without a class": {"bridge", "10.1.0.0/24", http.StatusInternalServerError, ""},
		"another driver": {"macvlan", "10.1.0.0/24", 0,
			"create network backend: the engine has a network backend (%s) that differs: driver macvlan, the task wants bridge; remove or rename one of the two"},
		"another subnet": {"bridge", "10.9.0.0/24", 0,
			"create network backend: the engine has a network backend (%s) that differs: subnets [10.9.0.0/24], the task wants [10.1.0.0/24]; remove or rename one of the two"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			engine := dockerexectest.New(t)
			id := addNetwork(t, engine, "backend", test.driver, test.subnet, nil)
			if test.status != 0 {
				engine.FailNext("POST /networks/create", dockerexectest.Refuse(test.status, "network with name backend already exists"))
			}
			err := adapterOn(t, engine, backendTask()).CreateNetworks(t.Context())
			assert.Equal(t, []string{"backend"}, engine.Networks())
			if test.want == "" {
				require.NoError(t, err)
				return
			}
			require.EqualError(t, err, fmt.Sprintf(test.want, id[:12]))
			assert.False(t, exec.IsTemporary(err))
		})
	}
}

func TestANetworkThatVanishesBetweenConflictAndLookIsTriedAgainLater(t *testing.T) {
	t.Parallel()
	engine := dockerexectest.New(t)
	engine.FailNext("POST /networks/create", dockerexectest.Refuse(http.StatusConflict, "network with name backend already exists"))
	err := adapterOn(t, engine, backendTask()).CreateNetworks(t.Context())
	require.ErrorContains(t, err, "create network backend")
	assert.True(t, exec.IsTemporary(err))
}

// The engine's own networks are used, never created or removed.
func TestPredefinedNetworksAreLeftAlone(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"bridge", "host", "none"} {
		task := plainTask()
		task.Networks = []*api.NetworkAttachment{attachment(namedNetwork(name))}
		engine := dockerexectest.New(t)
		adapter := adapterOn(t, engine, task)
		require.NoError(t, adapter.CreateNetworks(t.Context()))
		require.NoError(t, adapter.RemoveNetworks(t.Context()))
		assert.Empty(t, asked(engine), name)
	}
}

// A network that is gone or in use does not keep the rest from going.
func TestRemoveNetworksTakesGoneAndInUseForDone(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		dialect dockerexectest.Dialect
		happens func(*testing.T, *dockerexectest.Engine)
		left    []string
	}{
		"removed": {dockerexectest.DockerV29, func(*testing.T, *dockerexectest.Engine) {}, nil},
		"gone": {dockerexectest.DockerV29, func(t *testing.T, e *dockerexectest.Engine) {
			e.FailNext(looksWhoUsesIt, dockerexectest.Call(func() { assert.NoError(t, e.Client().NetworkRemove(context.Background(), "backend")) }))
		}, nil},
		"in use":        {dockerexectest.DockerV29, runsOnBackend, []string{"backend"}},
		"in use, 20.10": {dockerexectest.DockerV20, runsOnBackend, []string{"backend"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			task := backendTask()
			attach(task, "zone", "10.2.0.0/24")
			engine := dockerexectest.New(t, dockerexectest.WithDialect(test.dialect))
			engine.LocalImage("example/web:1", dockerexectest.UntilStopped(0))
			require.NoError(t, adapterOn(t, engine, task).CreateNetworks(t.Context()))
			test.happens(t, engine)
			engine.ForgetRequests()
			require.NoError(t, adapterOn(t, engine, task).RemoveNetworks(t.Context()))
			assert.Equal(t, test.left, engine.Networks())
			requests := engine.Requests()
			assert.Equal(t, 1, requests.Count("GET /networks/backend"))
			assert.Equal(t, 1, requests.Count("GET /networks/zone"))
		})
	}
}

func runsOnBackend(t *testing.T, engine *dockerexectest.Engine) {
	t.Helper()
	another(t, engine, "user", "example/web:1", nil)
	require.NoError(t, engine.Client().NetworkConnect(t.Context(), "backend", "user", nil))
}

// Only what the package made goes, by its label and its ID; a user's own
// network of that name stays, also when it was used.
func TestRemoveNetworksLeavesWhatOthersMade(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		used bool // by this task
		want []string
	}{
		"no label": {false, []string{looksAtNetwork}}, "used by this task": {true, []string{makesNetwork, looksAtNetwork}},
	} {
		engine := dockerexectest.New(t)
		addNetwork(t, engine, "backend", "bridge", "10.1.0.0/24", nil)
		engine.ForgetRequests()
		adapter := adapterOn(t, engine, backendTask())
		if test.used {
			require.NoError(t, adapter.CreateNetworks(t.Context()))
		}
		require.NoError(t, adapter.RemoveNetworks(t.Context()))
		assert.Equal(t, test.want, asked(engine), name)
	}

	// A name may be how another one's ID begins.
	engine := dockerexectest.New(t)
	beginning := addNetwork(t, engine, "other", "bridge", "10.1.0.0/24", ours)[:12]
	engine.ForgetRequests()
	task := plainTask()
	attach(task, beginning, "10.1.0.0/24")
	require.NoError(t, adapterOn(t, engine, task).RemoveNetworks(t.Context()))
	assert.Equal(t, []string{"GET /networks/" + beginning}, asked(engine))
}

func sharer(t *testing.T, e *Engine, id string, change ...func(*api.Task)) *ContainerAdapter {
	t.Helper()
	task := backendTask()
	task.ID = id
	for _, c := range change {
		c(task)
	}
	return adapterOf(t, e, task)
}

// The tasks of an Engine share a network, and the last one takes it.
func TestANetworkStaysWhileATaskOfTheEngineCountsOnIt(t *testing.T) {
	t.Parallel()
	fromConfig := func(task *api.Task) { // carries no label
		task.Networks[0].Network = namedNetwork("backend")
		task.Networks[0].Network.Spec.ConfigFrom = &api.NetworkSpec_Network{Network: "config"}
	}
	internal := func(task *api.Task) { task.Networks[0].Network.Spec.Internal = true }
	shared := []string{makesNetwork, makesNetwork, looksAtNetwork, looksWhoUsesIt, dropsNetwork}
	for name, test := range map[string]struct {
		do   func(ctx context.Context, t *testing.T, kit *dockerexectest.Engine, e *Engine)
		want []string
	}{
		"the last one takes it": {func(ctx context.Context, t *testing.T, _ *dockerexectest.Engine, e *Engine) {
			a, b := sharer(t, e, "a"), sharer(t, e, "b")
			require.NoError(t, a.CreateNetworks(ctx))
			require.NoError(t, b.CreateNetworks(ctx))
			require.NoError(t, a.RemoveNetworks(ctx))
			require.NoError(t, a.RemoveNetworks(ctx), "it has left already")
			require.NoError(t, b.RemoveNetworks(ctx))
		}, shared},
		"the other way round": {func(ctx context.Context, t *testing.T, _ *dockerexectest.Engine, e *Engine) {
			a, b := sharer(t, e, "a"), sharer(t, e, "b")
			require.NoError(t, a.CreateNetworks(ctx))
			require.NoError(t, b.CreateNetworks(ctx))
			require.NoError(t, b.RemoveNetworks(ctx))
			require.NoError(t, a.RemoveNetworks(ctx))
		}, shared},
		"a network without a label": {func(ctx context.Context, t *testing.T, kit *dockerexectest.Engine, e *Engine) {
			_, err := kit.Client().NetworkCreate(ctx, "config", network.CreateOptions{ConfigOnly: true})
			require.NoError(t, err)
			kit.ForgetRequests()
			a, b := sharer(t, e, "a", fromConfig), sharer(t, e, "b", fromConfig)
			require.NoError(t, a.CreateNetworks(ctx))
			require.NoError(t, b.CreateNetworks(ctx))
			require.NoError(t, a.RemoveNetworks(ctx))
			require.NoError(t, b.RemoveNetworks(ctx))
		}, shared},
		"a task that counts goes on to, whatever becomes of its next call": {func(ctx context.Context, t *testing.T, kit *dockerexectest.Engine, e *Engine) {
			a, b := sharer(t, e, "a"), sharer(t, e, "b")
			require.NoError(t, a.CreateNetworks(ctx))
			require.NoError(t, b.CreateNetworks(ctx))
			kit.Down()
			require.ErrorContains(t, a.CreateNetworks(ctx), "Cannot connect")
			kit.Up()
			require.NoError(t, b.RemoveNetworks(ctx))
			require.NoError(t, a.RemoveNetworks(ctx))
			kit.Down()
			require.ErrorContains(t, a.CreateNetworks(ctx), "Cannot connect")
			assert.Empty(t, e.networks.networks, "one that never got it does not count")
		}, shared},
		"a task counts once": {func(ctx context.Context, t *testing.T, _ *dockerexectest.Engine, e *Engine) {
			require.NoError(t, sharer(t, e, "a").CreateNetworks(ctx))
			require.NoError(t, sharer(t, e, "a").CreateNetworks(ctx))
			require.NoError(t, sharer(t, e, "a").RemoveNetworks(ctx))
		}, shared},
		"a task that could not use it": {func(ctx context.Context, t *testing.T, _ *dockerexectest.Engine, e *Engine) {
			a := sharer(t, e, "a")
			require.NoError(t, a.CreateNetworks(ctx))
			require.ErrorContains(t, sharer(t, e, "b", internal).CreateNetworks(ctx), "internal false, the task wants true")
			require.NoError(t, a.RemoveNetworks(ctx))
		}, shared},
		"two Engines know nothing of each other": {func(ctx context.Context, t *testing.T, kit *dockerexectest.Engine, e *Engine) {
			a, b := sharer(t, e, "a"), sharer(t, NewEngine(kit.Client()), "b")
			require.NoError(t, a.CreateNetworks(ctx))
			require.NoError(t, b.CreateNetworks(ctx))
			require.NoError(t, a.RemoveNetworks(ctx))
		}, shared},
		"one that was removed and made again, and a user's": {func(ctx context.Context, t *testing.T, kit *dockerexectest.Engine, e *Engine) {
			a, b, other := sharer(t, e, "a"), sharer(t, e, "b"), kit.Client()
			require.NoError(t, a.CreateNetworks(ctx))
			require.NoError(t, other.NetworkRemove(ctx, "backend"))
			kit.ForgetRequests()
			require.NoError(t, b.CreateNetworks(ctx), "the network was gone, and is made again")
			require.NoError(t, a.RemoveNetworks(ctx))
			require.NoError(t, b.RemoveNetworks(ctx))
			assert.Equal(t, []string{makesNetwork, looksWhoUsesIt, dropsNetwork}, asked(kit))
			addNetwork(t, kit, "backend", "bridge", "10.1.0.0/24", nil)
			kit.ForgetRequests()
			require.NoError(t, a.CreateNetworks(ctx), "a user's now")
			require.NoError(t, b.CreateNetworks(ctx))
			require.NoError(t, a.RemoveNetworks(ctx))
			require.NoError(t, b.RemoveNetworks(ctx))
			assert.Equal(t, []string{"backend"}, kit.Networks())
		}, []string{makesNetwork, looksAtNetwork, makesNetwork, looksAtNetwork}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			kit := dockerexectest.New(t)
			test.do(t.Context(), t, kit, NewEngine(kit.Client()))
			assert.Equal(t, test.want, asked(kit))
		})
	}
}

// The controllers of an Engine ask once for a network that their tasks share.
func TestControllersShareANetwork(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		change func(t *testing.T, kit *dockerexectest.Engine, second *api.Task)
		want   []string // what the second task asks of networks
		err    string
	}{
		"the same": {func(*testing.T, *dockerexectest.Engine, *api.Task) {}, nil, ""},
		"another subnet": {func(_ *testing.T, _ *dockerexectest.Engine, second *api.Task) {
			second.Networks[0].Network.IPAM.Configs[0].Subnet = "10.2.0.0/24"
		}, []string{makesNetwork, looksAtNetwork}, "subnets [10.1.0.0/24], the task wants [10.2.0.0/24]"},
		"it is gone": {func(t *testing.T, kit *dockerexectest.Engine, _ *api.Task) {
			kit.Container("web.1.a").Exit(0)
			require.NoError(t, kit.Client().NetworkRemove(t.Context(), "backend"))
		}, []string{makesNetwork}, ""},
		"its task has left": {func(_ *testing.T, kit *dockerexectest.Engine, _ *api.Task) {
			kit.Container("web.1.a").RemoveByHand()
		}, nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T) {
				kit := webEngine(t, obedient)
				executor := NewExecutor(kit.Client(), nil)
				first, second := taskAt(backendTask(), api.TaskStateAccepted), taskAt(backendTask(), api.TaskStateAccepted)
				first.ID, second.ID = "a", "b"
				ctlr, err := executor.Controller(first)
				require.NoError(t, err)
				drive(t.Context(), t, first, ctlr, api.TaskStateRunning)
				test.change(t, kit, second)
				kit.ForgetRequests()
				other, err := executor.Controller(second)
				require.NoError(t, err)
				drive(t.Context(), t, second, other, api.TaskStateRunning)
				assert.Equal(t, test.err != "", second.Status.State == api.TaskStateRejected)
				assert.Contains(t, second.Status.Err, test.err)
				var networks []string
				for _, request := range asked(kit) {
					if strings.Contains(request, "/networks/") {
						networks = append(networks, request)
					}
				}
				assert.Equal(t, test.want, networks)
			})
		})
	}
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
	for name, test := range map[string]struct {
		created map[string]map[string]string // containers on the network with their labels
		isBusy  bool                         // whether the engine is
		left    []string
	}{
		"nobody's":            {nil, false, nil},
		"the task's own":      {map[string]map[string]string{"own": ofThisTask}, false, nil},
		"another task's":      {map[string]map[string]string{"own": ofThisTask, "other": {LabelTaskID: "other"}}, false, []string{"backend"}},
		"a user's":            {map[string]map[string]string{"user": nil}, false, []string{"backend"}},
		"the engine restarts": {nil, true, []string{"backend"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			engine, _ := onFakeEngine(t, nil)
			adapter := adapterOn(t, engine, backendTask())
			require.NoError(t, adapter.CreateNetworks(t.Context()))
			for name, labels := range test.created {
				_, err := engine.Client().ContainerCreate(t.Context(), &container.Config{Image: "example/web:1", Labels: labels}, &container.HostConfig{NetworkMode: "backend"}, nil, nil, name)
				require.NoError(t, err)
			}
			engine.ForgetRequests()
			if test.isBusy {
				engine.FailNext(looksWhoUsesIt, dockerexectest.Refuse(http.StatusServiceUnavailable, "not now"))
			}
			err := adapter.RemoveNetworks(t.Context())
			if test.isBusy {
				require.EqualError(t, err, "remove network backend: list the containers that count on it: Error response from daemon: not now")
				assert.True(t, exec.IsTemporary(err))
			} else {
				require.NoError(t, err)
			}
			assert.Equal(t, test.left, engine.Networks())
			assert.Equal(t, url.Values{"all": {"1"}, "filters": {`{"network":{"backend":true}}`}}, engine.Requests()[0].Query)
		})
	}
}

// Engine 20.10 looks for a network of that name when it begins to make one, and not
// again: several that are asked for at once become several networks of one name, or
// all but one are refused for their subnet.
func TestTasksOfTheEngineCreateANetworkOneAfterTheOther(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		kit := dockerexectest.New(t, dockerexectest.WithDialect(dockerexectest.DockerV20))
		kit.FailAll("POST /networks/create", dockerexectest.Slow(time.Second))
		e := NewEngine(kit.Client())
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
		assert.ElementsMatch(t, []string{"backend", "other"}, kit.Networks())
		assert.Equal(t, 3*time.Second, time.Since(begin))
		require.NoError(t, sharer(t, e, "f").CreateNetworks(t.Context()), "nobody holds the others up for ever")
	})
}

// Tasks that wait for one's call about a network do not take their time-outs one
// after the other: a controller's step has no other end.
func TestTasksBehindANetworkThatIsNeverAnsweredAreBounded(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		kit := dockerexectest.New(t)
		kit.FailAll("POST /networks/create", dockerexectest.Slow(24*time.Hour))
		engine := NewEngine(kit.Client(), WithRequestTimeout(time.Minute))
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
func TestANetworkIsThereForTasksThatJoinDuringItsRemoval(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		kit := dockerexectest.New(t)
		release := make(chan struct{})
		kit.FailNext("DELETE /networks/*", dockerexectest.Call(func() { <-release }))
		engine := NewEngine(kit.Client())
		a, b, c := sharer(t, engine, "a"), sharer(t, engine, "b"), sharer(t, engine, "c")
		require.NoError(t, a.CreateNetworks(t.Context()))
		left := asynchronously(func() error { return a.RemoveNetworks(t.Context()) })
		synctest.Wait()
		joined := asynchronously(func() error { return b.shareNetworks(t.Context()) })
		joinedToo := asynchronously(func() error { return c.shareNetworks(t.Context()) })
		synctest.Wait()
		close(release)
		require.NoError(t, left())
		require.NoError(t, joined())
		require.NoError(t, joinedToo())
		assert.Equal(t, []string{"backend"}, kit.Networks())
		assert.Equal(t, 2, kit.Requests().Count("POST /networks/create"))

		require.NoError(t, b.RemoveNetworks(t.Context()))
		require.NoError(t, c.RemoveNetworks(t.Context()))
		assert.Empty(t, kit.Networks())
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
