package dockerexec

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/network"
	engineapi "github.com/docker/docker/client"
	gogotypes "github.com/gogo/protobuf/types"
	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/moby/swarmkit/v2/api"
	"github.com/sirupsen/logrus"
	logrustest "github.com/sirupsen/logrus/hooks/test"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockerexec/dockerexec/dockerexectest"
)

// sweptNode calls an executor as SwarmKit's agent does.
type sweptNode struct {
	t        *testing.T
	host     *dockerexectest.Engine
	engine   *Engine
	executor exec.Executor
	ctx      context.Context
	hook     *logrustest.Hook
}

// startNode starts an agent, which is connected and has no tasks yet.
func startNode(t *testing.T, host *dockerexectest.Engine, opts ...Option) *sweptNode {
	t.Helper()
	n := &sweptNode{t: t, host: host, engine: NewEngine(host.Client(), opts...)}
	n.executor = n.engine.Executor(nil)
	ctx, cancel := context.WithCancel(t.Context())
	n.ctx, n.hook = logHook(ctx)
	t.Cleanup(func() { cancel(); synctest.Wait() })
	n.configure("nodeid", api.NodeRoleWorker)
	return n
}

func (n *sweptNode) configure(id string, role api.NodeRole) {
	n.t.Helper()
	require.NoError(n.t, n.executor.Configure(n.ctx, &api.Node{ID: id, Role: role, Description: &api.NodeDescription{Hostname: "h"}}))
}

// assign is a complete set of tasks.
func (n *sweptNode) assign(tasks ...*api.Task) (controllers []exec.Controller) {
	n.t.Helper()
	n.executor.(exec.SecretsProvider).Secrets().Reset()
	for _, task := range tasks {
		ctlr, err := n.executor.Controller(task)
		if err == nil {
			controllers = append(controllers, ctlr)
		}
	}
	return controllers
}

// pass lets time pass. Every 20 seconds the agent calls Describe.
func (n *sweptNode) pass(d time.Duration) {
	n.t.Helper()
	for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(20 * time.Second) {
		began := time.Now()
		_, err := n.executor.Describe(n.ctx)
		require.NoError(n.t, err)
		require.Zero(n.t, time.Since(began), "Describe does not wait")
		synctest.Wait()
	}
}

// lines are the lines that were logged at a level, with the fields of an orphan.
func (n *sweptNode) lines(level logrus.Level) (lines []string) {
	for _, entry := range n.hook.AllEntries() {
		if entry.Level == level {
			line := entry.Message
			for _, field := range []string{"task.id", "service.id", "node.id", "network.name"} {
				if value, is := entry.Data[field]; is {
					line += fmt.Sprint(" ", field, "=", value)
				}
			}
			lines = append(lines, line)
		}
	}
	return lines
}

// takenOver is a task that the agent takes over from an earlier process.
func takenOver(task *api.Task) *api.Task {
	task.Status.State, task.DesiredState = api.TaskStateRunning, api.TaskStateRunning
	return task
}

// startNodeBeside starts an agent on a host that has the container of an orphan, and gives it
// another task: an executor that was asked for no controller removes nothing.
func startNodeBeside(t *testing.T, host *dockerexectest.Engine, orphan *api.Task, opts ...Option) *sweptNode {
	t.Helper()
	leftBehind(t, host, orphan)
	n := startNode(t, host, opts...)
	n.assign(takenOver(numberedTask(100)))
	return n
}

const grace = 5 * time.Minute

var removing = WithOrphans(OrphansRemove, grace)

// Each bystander lives through all of it; the orphan alone goes.
func TestAnOrphanGoesAndBystandersLive(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		host := newHost(t)
		other := plainTask()
		other.ID, other.NodeID = "others", "another"
		leftBehind(t, host, other)
		host.AddContainer("web.1.mine", nil)
		host.LocalImage("copy:1", dockerexectest.UntilStopped(0), dockerexectest.WithConfig(func(c *container.Config) {
			c.Labels = map[string]string{LabelTaskID: "copied", LabelNodeID: "nodeid"}
		}))
		create(t, host, "web.1.copied", "copy:1", nil)
		leftBehind(t, host, numberedTask(1))
		leftBehind(t, host, numberedTask(2)).Rename("renamed")
		refused := numberedTask(3)
		leftBehind(t, host, refused)
		spec(refused).Image = "" // cannot have a controller
		before := namesOn(host)
		orphan := leftBehind(t, host, plainTask())

		n := startNode(t, host, removing)
		n.assign(takenOver(numberedTask(1)), takenOver(numberedTask(2)), takenOver(refused))
		n.pass(grace)
		assert.True(t, orphan.Inspect().State.Running, "not before the grace")
		assert.Zero(t, host.Requests().Count("POST /containers/*/stop"))
		n.pass(20 * time.Second)
		assert.Equal(t, before, namesOn(host))
		n.pass(2 * grace)
		assert.Equal(t, before, namesOn(host))
		assert.Equal(t, 1, host.Requests().Count("POST /containers/*/stop"))
		assert.Equal(t, []string{"container web.1.taskid was left behind by a task that the swarm no longer has, and is removed task.id=taskid service.id=serviceid node.id=nodeid"}, n.lines(logrus.InfoLevel))
		assert.Empty(t, n.lines(logrus.WarnLevel))
	})
}

func TestAnOrphanIsReported(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		host := newHost(t)
		n := startNodeBeside(t, host, plainTask())
		orphan := host.Container(taskName)
		n.pass(5 * time.Minute)
		assert.Empty(t, n.lines(logrus.WarnLevel))
		n.pass(grace)
		time.Sleep(time.Hour)
		n.pass(2 * grace)
		assert.Equal(t, []string{"container web.1.taskid is left behind by a task that the swarm no longer has; remove it with: docker rm --force --volumes " + orphan.ID()[:12] +
			", or have such containers removed with the option WithOrphans(OrphansRemove, …) task.id=taskid service.id=serviceid node.id=nodeid"}, n.lines(logrus.WarnLevel), "once")
		assert.True(t, orphan.Inspect().State.Running)
	})
}

func TestOrphansAreIgnored(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		host := newHost(t)
		orphan := leftBehind(t, host, plainTask())
		n := startNode(t, host, WithOrphans(OrphansIgnore, 0))
		refused := plainTask()
		spec(refused).Image = ""
		n.assign(takenOver(numberedTask(1)), refused)
		host.ForgetRequests()
		n.pass(2 * grace)
		assert.Zero(t, host.Requests().Count("GET /containers/json"))
		assert.True(t, orphan.Inspect().State.Running)
		assert.Empty(t, n.lines(logrus.WarnLevel))
		assert.False(t, n.engine.tasks.knows("taskid"), "what was refused is not kept for ever")
	})
}

// A fake need not implement ContainerList.
func TestNobodyLooksForOrphansOnAFake(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		engine := describedEngine(t)
		e := NewExecutor(wrappedClient{engine.Client()}, nil)
		require.NoError(t, e.Configure(t.Context(), &api.Node{ID: "nodeid"}))
		e.(exec.SecretsProvider).Secrets().Reset()
		_, err := e.Describe(t.Context())
		require.NoError(t, err)
		synctest.Wait()
		assert.Zero(t, engine.Requests().Count("GET /containers/json"))
	})
}

// What happens around the assignments, and why it loses no container of a task.
func TestTheSweepWaitsForTheAgentsTasks(t *testing.T) {
	t.Parallel()
	tasks := func() []*api.Task { return []*api.Task{takenOver(numberedTask(1)), takenOver(numberedTask(2))} }
	for name, test := range map[string]struct {
		do   func(t *testing.T, n *sweptNode)
		gone bool // the orphan goes within one grace and a look more
	}{
		"no set of tasks, for an hour": {func(t *testing.T, n *sweptNode) {
			n.host.ForgetRequests()
			n.pass(time.Hour)
			assert.Zero(t, n.host.Requests().Count("GET /containers/json"))
		}, false},
		"the agent's task store was deleted, and the set comes after twenty minutes": {func(_ *testing.T, n *sweptNode) {
			n.pass(4 * grace)
			n.assign(tasks()...)
		}, true},
		"the manager is away for an hour after the session": {func(_ *testing.T, n *sweptNode) {
			n.pass(20 * time.Second)
			time.Sleep(time.Hour) // without a session the agent does not describe the node
			n.pass(4 * grace)
			n.assign(tasks()...)
		}, true},
		"the manager is away for a day after the set": {func(t *testing.T, n *sweptNode) {
			n.assign(tasks()...)
			n.pass(grace - time.Minute)
			time.Sleep(24 * time.Hour)
			n.pass(grace)
			assert.Len(t, n.host.Containers(), 3, "the grace begins anew")
		}, true},
		"two Describes a minute apart": {func(t *testing.T, n *sweptNode) {
			n.assign(tasks()...)
			n.pass(grace - 20*time.Second)
			time.Sleep(40*time.Second - time.Millisecond)
			n.pass(20 * time.Second)
			time.Sleep(time.Second)
			synctest.Wait()
			assert.Len(t, n.host.Containers(), 2, "the grace goes on")
		}, true},
		"the tasks come one by one after an empty set": {func(_ *testing.T, n *sweptNode) {
			n.assign()
			for _, task := range tasks() {
				n.pass(grace/2 - 20*time.Second)
				_, _ = n.executor.Controller(task)
			}
		}, true},
		"the node is demoted and promoted": {func(_ *testing.T, n *sweptNode) {
			n.assign(tasks()...)
			for _, role := range []api.NodeRole{api.NodeRoleManager, api.NodeRoleWorker, api.NodeRoleManager} {
				n.configure("nodeid", role)
				n.assign()
				n.pass(time.Minute)
			}
		}, true},
		"the node gets another ID": {func(_ *testing.T, n *sweptNode) {
			n.configure("another", api.NodeRoleWorker)
			n.assign(tasks()...)
			n.pass(2 * grace)
			n.configure("nodeid", api.NodeRoleWorker)
		}, false},
		"the node's ID is not known": {func(_ *testing.T, n *sweptNode) {
			n.executor = n.engine.Executor(nil)
			n.assign(tasks()...)
			_ = n.executor.Configure(n.ctx, nil)
			_ = n.executor.Configure(n.ctx, &api.Node{})
		}, false},
		"no controller was asked for": {func(t *testing.T, n *sweptNode) {
			n.assign()
			n.pass(2 * grace)
			assert.Len(t, n.lines(logrus.WarnLevel), 3)
			assert.True(t, strings.HasPrefix(n.lines(logrus.WarnLevel)[0], "container web.1.task1 is left behind by a task that the swarm no longer has; it is not removed, because this executor was not asked for any controller yet"))
		}, false},
		"the first controller is asked for late": {func(_ *testing.T, n *sweptNode) {
			n.assign()
			n.pass(2 * grace)
			n.assign(tasks()...)
		}, true},
		"the list fails": {func(_ *testing.T, n *sweptNode) {
			n.assign(tasks()...)
			n.host.FailAll("GET /containers/json", dockerexectest.Refuse(500, "no"))
		}, false},
		"the list is garbled": {func(_ *testing.T, n *sweptNode) {
			n.assign(tasks()...)
			n.host.FailAll("GET /containers/json", dockerexectest.Garble())
		}, false},
		"the list is refused": {func(t *testing.T, n *sweptNode) {
			n.assign(tasks()...)
			n.host.FailAll("GET /containers/json", dockerexectest.Refuse(403, "no"))
			n.pass(2 * grace)
			assert.Equal(t, []string{"the engine, or a proxy in front of it, refuses GET /containers/json; what was left behind is not looked for"}, n.lines(logrus.WarnLevel))
		}, false},
		"the list fails once": {func(t *testing.T, n *sweptNode) {
			n.assign(tasks()...)
			n.pass(time.Minute)
			n.host.FailNext("GET /containers/json", dockerexectest.Drop())
			n.pass(grace - time.Minute)
			n.pass(20 * time.Second)
			assert.Len(t, n.host.Containers(), 2)
		}, true},
		"the list fails for two minutes": {func(t *testing.T, n *sweptNode) {
			n.assign(tasks()...)
			n.pass(time.Minute)
			stop := n.host.FailAll("GET /containers/json", dockerexectest.Drop())
			n.pass(2 * time.Minute)
			stop()
			n.pass(grace)
			assert.Len(t, n.host.Containers(), 3, "the grace begins anew")
		}, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T) {
				host := newHost(t)
				for _, task := range append(tasks(), plainTask()) {
					leftBehind(t, host, task)
				}
				n := startNode(t, host, removing)
				test.do(t, n)
				n.pass(grace + 40*time.Second)
				want := []string{"web.1.task1", "web.1.task2", "web.1.taskid"}
				if test.gone {
					want = want[:2]
				}
				assert.Equal(t, want, namesOn(host))
				for _, c := range host.Containers() {
					assert.True(t, c.Inspect().State.Running)
				}
			})
		})
	}
}

// A removal that failed, a controller that was closed: then the container is an orphan.
func TestAClosedControllersContainerIsAnOrphan(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		host := newHost(t)
		leftBehind(t, host, plainTask())
		n := startNode(t, host, removing)
		ctlrs := n.assign(takenOver(plainTask()))
		n.pass(2 * grace)
		require.Len(t, host.Containers(), 1)
		require.NoError(t, ctlrs[0].Close())
		n.pass(grace)
		require.Len(t, host.Containers(), 1)
		n.pass(20 * time.Second)
		assert.Empty(t, host.Containers())
	})
}

// A task that comes while its container is about to be removed keeps it.
func TestATaskThatComesDuringTheSweep(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		host := newHost(t)
		n := startNodeBeside(t, host, plainTask(), removing)
		n.pass(grace)
		host.FailNext("GET /containers/*/json", dockerexectest.Slow(time.Second)) // the removal's look
		_, err := n.executor.Describe(n.ctx)
		require.NoError(t, err)
		synctest.Wait()
		ctlr, err := n.executor.Controller(takenOver(plainTask()))
		require.NoError(t, err)
		time.Sleep(2 * time.Second)
		n.pass(2 * grace)
		assert.True(t, host.Container(taskName).Inspect().State.Running)
		assert.Empty(t, n.lines(logrus.WarnLevel))
		require.NoError(t, ctlr.Close())
	})
}

// Four removals run at the same time. They hold up neither Describe nor the next look.
func TestOrphansAreRemovedFourAtATime(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		host := dockerexectest.New(t)
		host.LocalImage("example/web:1", dockerexectest.UntilStopped(9*time.Second))
		for i := range 9 {
			leftBehind(t, host, numberedTask(i))
		}
		n := startNodeBeside(t, host, numberedTask(9), removing)
		n.pass(grace)
		host.ForgetRequests()
		_, err := n.executor.Describe(n.ctx)
		require.NoError(t, err)
		for _, stops := range []int{4, 8, 10} {
			time.Sleep(8 * time.Second)
			assert.Equal(t, stops, host.Requests().Count("POST /containers/*/stop"))
			time.Sleep(time.Second)
			synctest.Wait()
		}
		time.Sleep(time.Minute)
		assert.Empty(t, host.Containers())
	})
}

// A removal that takes longer than the time between two looks is not begun again.
func TestAnOrphanIsRemovedOnce(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		host := dockerexectest.New(t)
		host.LocalImage("example/web:1", dockerexectest.UntilStopped(50*time.Second))
		task := plainTask()
		spec(task).StopGracePeriod = gogotypes.DurationProto(time.Minute)
		n := startNodeBeside(t, host, task, removing)
		n.pass(grace + 2*time.Minute)
		assert.Empty(t, host.Containers())
		assert.Len(t, n.lines(logrus.InfoLevel), 1)
		assert.NotContains(t, n.lines(logrus.DebugLevel), "a container that was left behind is not removed task.id=taskid service.id=serviceid node.id=nodeid")
	})
}

// One look at a time; it ends with the agent.
func TestALookThatHangs(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		host := newHost(t)
		n := startNodeBeside(t, host, plainTask(), removing, WithRequestTimeout(0))
		host.FailNext("GET /containers/json", dockerexectest.Slow(time.Hour))
		host.ForgetRequests()
		ctx, cancel := context.WithCancel(n.ctx)
		_, err := n.executor.Describe(ctx)
		require.NoError(t, err)
		n.pass(10 * time.Minute)
		assert.Equal(t, 1, host.Requests().Count("GET /containers/json"))
		cancel()
		synctest.Wait()
		n.pass(20 * time.Second)
		assert.Equal(t, 2, host.Requests().Count("GET /containers/json"), "the next one")
		time.Sleep(time.Hour)
	})
}

// A removal that fails is tried again at each look, and warned of once.
func TestAnOrphanThatCannotBeRemoved(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		host := newHost(t)
		n := startNodeBeside(t, host, plainTask(), removing)
		stop := host.FailAll("DELETE /containers/*", dockerexectest.Refuse(500, "device or resource busy"))
		n.pass(grace + time.Minute)
		assert.Equal(t, []string{"a container that was left behind is not removed, it is tried again task.id=taskid service.id=serviceid node.id=nodeid"}, n.lines(logrus.WarnLevel))
		assert.Equal(t, 3, host.Requests().Count("DELETE /containers/*"))
		stop()
		n.pass(20 * time.Second)
		assert.Empty(t, host.Containers())
	})
}

// A process may end after it has removed the container, and before the rest.
func TestNetworksAndFilesWithoutAContainerGo(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		host, store := newHost(t), newTestStore(t)
		client := func() engineapi.APIClient { return host.Client(engineapi.WithHost("unix:///run/docker.sock")) }
		task := ownedTask()
		attach(task, "backend", "10.1.0.0/24")
		begin(t, newFilesEngine(t, client(), store), task)
		host.Container(taskName).RemoveByHand()
		known := ownedTask() // its container is not made again yet
		known.ID = "known"
		begin(t, newFilesEngine(t, client(), store), known)
		host.Container("web.1.known").RemoveByHand()
		createdOnly := numberedTask(1) // its container is created and not started
		attach(createdOnly, "frontend", "10.2.0.0/24")
		a, err := NewEngine(host.Client()).Adapter(nil, createdOnly, nil)
		require.NoError(t, err)
		require.NoError(t, a.CreateNetworks(t.Context()))
		require.NoError(t, a.Create(t.Context()))
		_, err = host.Client().NetworkCreate(t.Context(), "somebodys", network.CreateOptions{Driver: "bridge"})
		require.NoError(t, err)

		n := startNode(t, host, removing)
		n.engine = newFilesEngine(t, client(), store)
		n.engine.options = newOptions([]Option{removing, WithSecretsDir(store.dir)})
		n.executor = n.engine.Executor(nil)
		n.configure("nodeid", api.NodeRoleWorker)
		planned := numberedTask(2) // has made its network, and is pulling
		attach(planned, "planned", "10.3.0.0/24")
		mine, err := n.engine.Adapter(nil, planned, nil)
		require.NoError(t, err)
		require.NoError(t, mine.CreateNetworks(t.Context()))
		n.assign(takenOver(createdOnly), takenOver(known))
		n.pass(grace)
		assert.Equal(t, []string{"backend", "frontend", "somebodys", "planned"}, host.Networks())
		n.pass(2 * grace)
		assert.Equal(t, []string{"frontend", "somebodys", "planned"}, host.Networks())
		files := strings.Join(tree(t, store.dir), "\n")
		assert.NotContains(t, files, "/taskid")
		assert.Contains(t, files, "/known/secret.0")
		assert.Equal(t, []string{"a network of this package had no user any more, and is removed network.name=backend"}, n.lines(logrus.InfoLevel))
	})
}

func TestNothingElseIsRemovedWhereOrphansAreReported(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		host := newHost(t)
		task := plainTask()
		attach(task, "backend", "10.1.0.0/24")
		leftBehind(t, host, task).RemoveByHand()
		n := startNode(t, host)
		n.assign(takenOver(numberedTask(1)))
		n.pass(2 * grace)
		assert.Equal(t, []string{"backend"}, host.Networks())
		assert.Zero(t, host.Requests().Count("GET /networks"))
	})
}
