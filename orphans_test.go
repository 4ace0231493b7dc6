package dockerexec

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/docker/docker/api/types/container"
	engineapi "github.com/docker/docker/client"
	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/moby/swarmkit/v2/api"
	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockerexec/dockerexec/dockerexectest"
)

// newHost is an engine whose containers stop at once.
func newHost(t *testing.T) *dockerexectest.Engine {
	t.Helper()
	host := dockerexectest.New(t)
	host.LocalImage(spec(plainTask()).Image, dockerexectest.UntilStopped(0))
	return host
}

// begin makes and starts the container of a task on an Engine.
func begin(t *testing.T, e *Engine, task *api.Task) {
	t.Helper()
	a, err := e.Adapter(nil, task, stores())
	require.NoError(t, err)
	require.NoError(t, a.CreateNetworks(t.Context()))
	require.NoError(t, a.Create(t.Context()))
	require.NoError(t, a.Start(t.Context()))
}

// leftBehind has an earlier process run a task, and returns the task's container.
func leftBehind(t *testing.T, host *dockerexectest.Engine, task *api.Task) *dockerexectest.Container {
	t.Helper()
	begin(t, NewEngine(host.Client()), task)
	return host.Container("web.1." + task.ID)
}

// create makes a container of a program that is not this package, and starts it.
func create(t *testing.T, host *dockerexectest.Engine, name, image string, labels map[string]string) {
	t.Helper()
	c := host.Client()
	_, err := c.ContainerCreate(t.Context(), &container.Config{Image: image, Labels: labels}, nil, nil, nil, name)
	require.NoError(t, err)
	require.NoError(t, c.ContainerStart(t.Context(), name, container.StartOptions{}))
}

func namesOn(host *dockerexectest.Engine) (names []string) {
	for _, c := range host.Containers() {
		names = append(names, c.Name())
	}
	return names
}

var ofThisNode = map[string]string{LabelTaskID: "taskid", LabelNodeID: "nodeid"}

func TestAnOrphanIsListedAndRemoved(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		host, e := newHost(t), (*Engine)(nil)
		task := plainTask()
		attach(task, "backend", "10.1.0.0/24")
		id := leftBehind(t, host, task).ID()
		leftBehind(t, host, numberedTask(2)).Exit(3)
		e = NewEngine(host.Client())
		orphans, err := e.Orphans(t.Context(), "nodeid", nil)
		require.NoError(t, err)
		require.Len(t, orphans, 2)
		assert.Equal(t, Orphan{ContainerID: id, Name: "web.1.taskid", TaskID: "taskid", ServiceID: "serviceid", NodeID: "nodeid", State: "running"}, orphans[1])
		assert.Equal(t, "web.1.task2 exited", orphans[0].Name+" "+orphans[0].State)
		wanted, err := e.Orphans(t.Context(), "nodeid", func(id string) bool { return id == "taskid" })
		require.NoError(t, err)
		assert.Equal(t, orphans[:1], wanted, "the caller knows the other")

		require.NoError(t, e.RemoveOrphan(t.Context(), orphans[1]))
		assert.Equal(t, []string{"web.1.task2"}, namesOn(host))
		assert.Empty(t, host.Networks(), "its network")
		assert.Equal(t, 1, host.Requests().Count("POST /containers/*/stop"))
		require.NoError(t, e.RemoveOrphan(t.Context(), orphans[1]), "it is gone")
		assert.Equal(t, []string{"web.1.task2"}, namesOn(host))
		assert.Empty(t, e.tasks.tasks, "nothing is kept of it")
	})
}

// Each of these has a reason why it is no orphan.
func TestWhatIsNoOrphan(t *testing.T) {
	t.Parallel()
	for name, prepare := range map[string]func(t *testing.T, host *dockerexectest.Engine, e *Engine){
		"of another node": func(t *testing.T, host *dockerexectest.Engine, _ *Engine) {
			task := plainTask()
			task.NodeID = "another"
			leftBehind(t, host, task)
		},
		"without labels": func(_ *testing.T, host *dockerexectest.Engine, _ *Engine) { host.AddContainer("web.1.taskid", nil) },
		"without a task": func(t *testing.T, host *dockerexectest.Engine, _ *Engine) {
			create(t, host, "web.1.taskid", "example/web:1", map[string]string{LabelNodeID: "nodeid", LabelTaskID: ""})
		},
		"without a node": func(t *testing.T, host *dockerexectest.Engine, _ *Engine) {
			create(t, host, "web.1.taskid", "example/web:1", ofThisTask)
		},
		"renamed": func(t *testing.T, host *dockerexectest.Engine, _ *Engine) {
			leftBehind(t, host, plainTask()).Rename("mine")
		},
		"renamed to a name that has the task's ID in it": func(t *testing.T, host *dockerexectest.Engine, _ *Engine) {
			leftBehind(t, host, plainTask()).Rename("web.1.taskid.old")
		},
		"named by its task": func(t *testing.T, host *dockerexectest.Engine, _ *Engine) {
			task := plainTask()
			task.Annotations.Name = "mine"
			begin(t, NewEngine(host.Client()), task)
		},
		"a copy of a committed container": func(t *testing.T, host *dockerexectest.Engine, _ *Engine) {
			host.LocalImage("copy:1", dockerexectest.UntilStopped(0), dockerexectest.WithConfig(func(c *container.Config) { c.Labels = ofThisNode }))
			create(t, host, "web.1.taskid", "copy:1", nil)
		},
		"of an image that the engine does not show": func(_ *testing.T, host *dockerexectest.Engine, _ *Engine) {
			host.AddContainer("web.1.taskid", ofThisNode)
		},
		"one of two": func(t *testing.T, host *dockerexectest.Engine, _ *Engine) {
			leftBehind(t, host, plainTask())
			create(t, host, "mine", "example/web:1", ofThisTask)
		},
		"one of two that are named alike": func(t *testing.T, host *dockerexectest.Engine, _ *Engine) {
			leftBehind(t, host, plainTask())
			create(t, host, "web.2.taskid", "example/web:1", ofThisNode)
		},
		"of a controller": func(t *testing.T, host *dockerexectest.Engine, e *Engine) {
			leftBehind(t, host, plainTask())
			ctlr, err := e.Controller(nil, plainTask(), nil)
			require.NoError(t, err)
			t.Cleanup(func() { ctlr.Close() })
		},
		"of the second of two controllers": func(t *testing.T, host *dockerexectest.Engine, e *Engine) {
			leftBehind(t, host, plainTask())
			for range 2 {
				ctlr, err := e.Controller(nil, plainTask(), nil)
				require.NoError(t, err)
				defer ctlr.Close()
				ctlr.Close() // again: it counts once
			}
			ctlr, err := e.Controller(nil, plainTask(), nil)
			require.NoError(t, err)
			t.Cleanup(func() { ctlr.Close() })
		},
		"of an adapter": func(t *testing.T, _ *dockerexectest.Engine, e *Engine) { begin(t, e, plainTask()) },
		"of an adapter that a list came before": func(t *testing.T, _ *dockerexectest.Engine, e *Engine) {
			a, err := e.Adapter(nil, plainTask(), nil)
			require.NoError(t, err)
			time.Sleep(time.Second)
			none, err := e.Orphans(t.Context(), "nodeid", nil)
			require.NoError(t, err)
			require.Empty(t, none)
			require.Empty(t, e.tasks.tasks, "a task without a container is forgotten")
			require.NoError(t, a.Create(t.Context()))
		},
		"of a refused controller": func(t *testing.T, host *dockerexectest.Engine, e *Engine) {
			leftBehind(t, host, plainTask())
			task := plainTask()
			task.Status.State = api.TaskStateRunning
			spec(task).Mounts = []api.Mount{{Type: api.MountTypeNamedPipe, Source: "x"}}
			ctlr, err := e.Controller(nil, task, nil)
			require.NoError(t, err)
			t.Cleanup(func() { ctlr.Close() })
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T) {
				host := newHost(t)
				e := NewEngine(host.Client())
				prepare(t, host, e)
				before := namesOn(host)
				require.NotEmpty(t, before)
				for range 3 {
					orphans, err := e.Orphans(t.Context(), "nodeid", nil)
					require.NoError(t, err)
					assert.Empty(t, orphans)
					time.Sleep(time.Hour)
				}
				for _, c := range host.Containers() { // also if a caller insists
					err := e.RemoveOrphan(t.Context(), Orphan{ContainerID: c.ID(), Name: "web.1.taskid", TaskID: "taskid", NodeID: "nodeid"})
					assert.Equal(t, c.Inspect().Config.Labels[LabelTaskID] == "", err == nil, "a container without a task counts as gone: %v", err)
				}
				assert.Equal(t, before, namesOn(host))
				assert.Zero(t, host.Requests().Count("POST /containers/*/stop"))
			})
		})
	}
}

// One warning names the containers of a task, as long as there are several.
func TestOrphansWarnsOfSeveralContainersOfATask(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		host := newHost(t)
		first := leftBehind(t, host, plainTask()).ID()
		create(t, host, "mine", "example/web:1", ofThisNode)
		second := host.Container("mine").ID()
		ctx, lines := logged(t)
		e := NewEngine(host.Client())
		look := func() []string {
			for range 3 {
				_, err := e.Orphans(ctx, "nodeid", nil)
				require.NoError(t, err)
				_, err = e.Orphans(ctx, "another", nil)
				require.NoError(t, err)
			}
			return lines(logrus.WarnLevel)
		}
		require.Len(t, look(), 1)
		assert.ElementsMatch(t, strings.Fields("containers and have the label of this task: it is not certain which one is the task's, none is touched "+first[:12]+" "+second[:12]), strings.Fields(lines(logrus.WarnLevel)[0]))
		require.NoError(t, host.Client().ContainerRemove(ctx, "mine", container.RemoveOptions{Force: true}))
		require.Len(t, look(), 1, "it is the only one")
		assert.Empty(t, e.tasks.doubted)
		create(t, host, "mine", "example/web:1", ofThisNode)
		require.Len(t, look(), 2, "there are several again")
	})
}

// The controller or adapter has ended its task, but the container is there again.
func TestAnOrphanOfAnEndedTask(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(t *testing.T, e *Engine){
		"closed": func(t *testing.T, e *Engine) {
			ctlr, err := e.Controller(nil, plainTask(), nil)
			require.NoError(t, err)
			require.NoError(t, ctlr.Close())
		},
		"removed by its adapter": func(t *testing.T, e *Engine) {
			a, err := e.Adapter(nil, plainTask(), nil)
			require.NoError(t, err)
			require.NoError(t, a.Remove(t.Context()))
		},
		"run": func(t *testing.T, e *Engine) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			_, err := e.Run(ctx, plainTask(), RunOptions{})
			require.Error(t, err)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T) {
				host := newHost(t)
				e := NewEngine(host.Client(), WithPullPolicy(PullNever))
				end(t, e)
				leftBehind(t, host, plainTask())
				orphans, err := e.Orphans(t.Context(), "nodeid", nil)
				require.NoError(t, err)
				require.Len(t, orphans, 1)
				require.NoError(t, e.RemoveOrphan(t.Context(), orphans[0]))
				assert.Empty(t, namesOn(host))
			})
		})
	}
}

func TestOrphansErrors(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		host := newHost(t)
		e := NewEngine(host.Client())
		_, err := e.Orphans(t.Context(), "", nil)
		require.EqualError(t, err, "dockerexec: list orphans: the node's ID is empty")
		_, err = NewEngine(nil).Orphans(t.Context(), "nodeid", nil)
		require.Equal(t, errNoClient, err)
		require.Equal(t, errNoClient, NewEngine(nil).RemoveOrphan(t.Context(), Orphan{}))
		for _, o := range []Orphan{{}, {Name: "web.1.taskid", TaskID: "taskid", NodeID: "nodeid"}, {ContainerID: "c", Name: "mine", TaskID: "taskid", NodeID: "nodeid"}, {ContainerID: "c", Name: "web.1."}} {
			require.ErrorContains(t, e.RemoveOrphan(t.Context(), o), "it is none that Orphans has listed")
		}

		leftBehind(t, host, plainTask())
		for request, faults := range map[string][]dockerexectest.Fault{
			"GET /containers/json": {dockerexectest.Garble(), dockerexectest.Drop(), dockerexectest.Refuse(503, "busy"), dockerexectest.Refuse(403, "no")},
			"GET /images/*/json":   {dockerexectest.Drop(), dockerexectest.Refuse(503, "busy")}, // after a refusal it counts as a copy
		} {
			for _, fault := range faults {
				host.FailNext(request, fault)
				orphans, err := e.Orphans(t.Context(), "nodeid", nil)
				require.Error(t, err, request)
				require.Nil(t, orphans)
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err = e.Orphans(ctx, "nodeid", nil)
		require.Equal(t, context.Canceled, err)
	})
}

// A step that fails leaves the rest for the next call.
func TestRemoveOrphanGoesOnAfterAFault(t *testing.T) {
	t.Parallel()
	for _, request := range []string{
		"GET /containers/*/json", "GET /images/*/json", "POST /containers/*/stop", "DELETE /containers/*", "GET /networks/*", "GET /containers/json", "DELETE /networks/*",
	} {
		t.Run(request, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T) {
				host := newHost(t)
				task := plainTask()
				attach(task, "backend", "10.1.0.0/24")
				leftBehind(t, host, task)
				e := NewEngine(host.Client())
				orphans, err := e.Orphans(t.Context(), "nodeid", nil)
				require.NoError(t, err)
				host.FailNext(request, dockerexectest.Refuse(503, "busy"))
				err = e.RemoveOrphan(t.Context(), orphans[0])
				require.ErrorContains(t, err, "busy")
				require.True(t, exec.IsTemporary(err))
				require.False(t, e.tasks.knows("taskid"))
				require.NoError(t, e.RemoveOrphan(t.Context(), orphans[0]))
				assert.Empty(t, namesOn(host))
				assert.LessOrEqual(t, host.Requests().Count("POST /containers/*/stop"), 2)
			})
		})
	}
}

// The grace period is the container's own, and a container that never ends is given up.
func TestRemoveOrphanIsBounded(t *testing.T) {
	t.Parallel()
	for grace, want := range map[int]time.Duration{30: 30 * time.Second, -1: 2 * time.Minute} {
		bubble(t, func(t *testing.T) {
			host := dockerexectest.New(t)
			host.LocalImage("example/web:1", dockerexectest.IgnoreStop())
			c := host.Client()
			_, err := c.ContainerCreate(t.Context(), &container.Config{Image: "example/web:1", Labels: ofThisNode, StopTimeout: &grace}, nil, nil, nil, "web.1.taskid")
			require.NoError(t, err)
			require.NoError(t, c.ContainerStart(t.Context(), "web.1.taskid", container.StartOptions{}))
			e := NewEngine(host.Client())
			orphans, err := e.Orphans(t.Context(), "nodeid", nil)
			require.NoError(t, err)
			began := time.Now()
			err = e.RemoveOrphan(t.Context(), orphans[0])
			assert.InDelta(t, want, time.Since(began), float64(time.Second))
			if grace > 0 {
				require.NoError(t, err)
				assert.Empty(t, namesOn(host))
				return
			}
			require.EqualError(t, err, "remove orphan web.1.taskid: not done within 2m0s")
			assert.True(t, exec.IsTemporary(err))
			assert.True(t, host.Container("web.1.taskid").Inspect().State.Running)
			host.Container("web.1.taskid").RemoveByHand()
		})
	}
}

// Podman 4.3 stores a grace period of 0 for a task that sets none: the stop names ten seconds.
func TestAnOrphanOnPodmanIsNotKilledAtOnce(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		host := dockerexectest.New(t, dockerexectest.WithDialect(dockerexectest.PodmanV4))
		host.LocalImage("example/web:1", dockerexectest.UntilStopped(3*time.Second))
		c := host.Client()
		_, err := c.ContainerCreate(t.Context(), &container.Config{Image: "example/web:1", Labels: ofThisNode}, nil, nil, nil, "web.1.taskid")
		require.NoError(t, err)
		require.NoError(t, c.ContainerStart(t.Context(), "web.1.taskid", container.StartOptions{}))
		e := NewEngine(host.Client())
		orphans, err := e.Orphans(t.Context(), "nodeid", nil)
		require.NoError(t, err)
		host.ForgetRequests()
		began := time.Now()
		require.NoError(t, e.RemoveOrphan(t.Context(), orphans[0]))
		assert.GreaterOrEqual(t, time.Since(began), 3*time.Second)
		assert.Equal(t, 1, host.Requests().Count("GET /containers/*/json"))
	})
}

// The container of an orphan may run although the engine has lost its start.
func TestRemoveOrphanWaitsForALostStart(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		host := newHost(t)
		a, err := NewEngine(host.Client()).Adapter(nil, plainTask(), nil)
		require.NoError(t, err)
		require.NoError(t, a.Create(t.Context()))
		e := NewEngine(host.Client())
		orphans, err := e.Orphans(t.Context(), "nodeid", nil)
		require.NoError(t, err)
		began := time.Now()
		require.NoError(t, e.RemoveOrphan(t.Context(), orphans[0]))
		assert.InDelta(t, 20*time.Second, time.Since(began), float64(time.Second))
		assert.Empty(t, namesOn(host))
	})
}

func TestRemoveOrphanRemovesItsFiles(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		host, store := newHost(t), newTestStore(t)
		begin(t, newFilesEngine(t, host.Client(engineapi.WithHost("unix:///run/docker.sock")), store), ownedTask())
		require.NotEmpty(t, tree(t, store.dir))
		e := newFilesEngine(t, host.Client(engineapi.WithHost("unix:///run/docker.sock")), store)
		orphans, err := e.Orphans(t.Context(), "nodeid", nil)
		require.NoError(t, err)
		require.Len(t, orphans, 1)
		require.NoError(t, e.RemoveOrphan(t.Context(), orphans[0]))
		assert.Empty(t, tree(t, store.dir))
		assert.Empty(t, namesOn(host))
	})
}

// A controller that is made before the stop cancels the removal; one that is made after it
// waits for the removal's end in Prepare, Start and Wait, and in nothing else.
func TestAControllerOfAnOrphan(t *testing.T) {
	t.Parallel()
	controllers := func(t *testing.T, e *Engine) exec.Controller {
		task := plainTask()
		task.Status.State = api.TaskStateRunning
		ctlr, err := e.Controller(nil, task, nil)
		require.NoError(t, err)
		t.Cleanup(func() { ctlr.Close() })
		return ctlr
	}
	start := func(t *testing.T) (*dockerexectest.Engine, *Engine, func() error) {
		host := dockerexectest.New(t)
		host.LocalImage("example/web:1", dockerexectest.UntilStopped(5*time.Second))
		leftBehind(t, host, plainTask())
		e := NewEngine(host.Client(), WithPullPolicy(PullNever))
		orphans, err := e.Orphans(t.Context(), "nodeid", nil)
		require.NoError(t, err)
		host.FailNext("GET /containers/*/json", dockerexectest.Slow(time.Second)) // the look
		removed := asynchronously(func() error { return e.RemoveOrphan(t.Context(), orphans[0]) })
		synctest.Wait()
		return host, e, removed
	}
	t.Run("made before the stop", func(t *testing.T) {
		t.Parallel()
		bubble(t, func(t *testing.T) {
			host, e, removed := start(t)
			ctlr := controllers(t, e)
			require.ErrorIs(t, removed(), errWanted)
			assert.Zero(t, host.Requests().Count("POST /containers/*/stop"))
			assert.True(t, host.Container(taskName).Inspect().State.Running)
			wait := asynchronously(func() error { return ctlr.Wait(t.Context()) })
			host.Container(taskName).Exit(0)
			require.NoError(t, wait())
		})
	})
	t.Run("made before the stop, and closed", func(t *testing.T) {
		t.Parallel()
		bubble(t, func(t *testing.T) {
			_, e, removed := start(t)
			require.NoError(t, controllers(t, e).Close())
			require.ErrorIs(t, removed(), errWanted, "the container must be seen as an orphan anew")
		})
	})
	t.Run("an adapter made before the stop", func(t *testing.T) {
		t.Parallel()
		bubble(t, func(t *testing.T) {
			host, e, removed := start(t)
			_, err := e.Adapter(nil, plainTask(), nil)
			require.NoError(t, err)
			require.ErrorIs(t, removed(), errWanted)
			assert.Zero(t, host.Requests().Count("POST /containers/*/stop"))
		})
	})
	for name, call := range map[string]func(exec.Controller, context.Context) error{
		"Prepare": exec.Controller.Prepare, "Start": exec.Controller.Start, "Wait": exec.Controller.Wait,
	} {
		t.Run("made after the stop: "+name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T) {
				host, e, removed := start(t)
				time.Sleep(2 * time.Second) // the container is being stopped
				require.Equal(t, 1, host.Requests().Count("POST /containers/*/stop"))
				ctlr := controllers(t, e)
				requests := len(host.Requests())
				began := time.Now()
				ended := asynchronously(func() error { return call(ctlr, t.Context()) })
				synctest.Wait()
				assert.Len(t, host.Requests(), requests, "it asks nothing yet")
				_, err := ctlr.(exec.ContainerStatuser).ContainerStatus(t.Context())
				require.NoError(t, err, "this one does not wait")
				assert.Zero(t, time.Since(began))
				require.NoError(t, removed())
				err = ended()
				assert.Equal(t, 4*time.Second, time.Since(began).Round(time.Second))
				switch name {
				case "Prepare":
					require.NoError(t, err)
					assert.Equal(t, "created", host.Container(taskName).Inspect().State.Status)
				case "Start":
					require.True(t, IsUnknownContainer(err), "%v", err)
				default:
					require.Equal(t, ErrContainerDestroyed, err)
				}
			})
		})
	}
	t.Run("made after the stop, and given up", func(t *testing.T) {
		t.Parallel()
		bubble(t, func(t *testing.T) {
			_, e, removed := start(t)
			time.Sleep(2 * time.Second)
			ctlr := controllers(t, e)
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			require.Equal(t, context.DeadlineExceeded, ctlr.Prepare(ctx))
			wait := asynchronously(func() error { return ctlr.Wait(t.Context()) })
			synctest.Wait()
			require.NoError(t, ctlr.Close())
			require.Equal(t, exec.ErrControllerClosed, wait())
			require.NoError(t, removed())
		})
	})
	t.Run("two removals at once", func(t *testing.T) {
		t.Parallel()
		bubble(t, func(t *testing.T) {
			host, e, removed := start(t)
			orphans, err := e.Orphans(t.Context(), "nodeid", nil)
			require.NoError(t, err)
			require.ErrorIs(t, e.RemoveOrphan(t.Context(), orphans[0]), errWanted)
			require.NoError(t, removed())
			assert.Equal(t, 1, host.Requests().Count("POST /containers/*/stop"))
		})
	})
}
