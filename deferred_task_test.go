package dockerexec

import (
	"context"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/moby/swarmkit/v2/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// whyRefused is what is wrong with refusedTask.
const whyRefused = "dockerexec: task field Spec.Container.Hosts[0]: is not an address with one name or more"

// refusedTask is one that another version may have run.
func refusedTask(state api.TaskState) *api.Task {
	task := taskAt(plainTask(), state)
	attach(task, "n1", "10.1.0.0/24")
	spec(task).Hosts = []string{"odd"}
	return task
}

// other has the sim a container of refusedTask, as another version made it.
func other(t *testing.T, sim *simEngine) {
	t.Helper()
	task := plainTask()
	attach(task, "n1", "10.1.0.0/24")
	runningTask(t, sim, task)
	sim.forgetCalls()
}

func TestRefusedTaskThatRunsIsWaitedFor(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		sim := newSimEngine(t)
		other(t, sim)
		task := refusedTask(api.TaskStateRunning)
		ctlr, status, err := exec.Resolve(t.Context(), task, NewExecutor(sim, nil))
		require.NoError(t, err)
		require.Equal(t, api.TaskStateRunning, status.State)
		run := asynchronously(func() error {
			status, err := exec.Do(t.Context(), task, ctlr)
			task.Status = *status
			return err
		})
		time.Sleep(time.Minute)
		sim.exit(taskName, 3)
		require.NoError(t, run())
		assert.Equal(t, api.TaskStateFailed, task.Status.State)
		assert.Equal(t, "task: non-zero exit (3)", task.Status.Err)
		assert.Equal(t, int32(3), task.Status.GetContainer().ExitCode)
		require.NoError(t, ctlr.Remove(t.Context()))
		assert.Empty(t, sim.left())
	})
}

func TestRefusedTaskThatRunsIsShutDown(t *testing.T) {
	t.Parallel()
	for name, stop := range map[string]func(context.Context, exec.Controller) error{
		"shutdown":  func(ctx context.Context, c exec.Controller) error { return c.Shutdown(ctx) },
		"terminate": func(ctx context.Context, c exec.Controller) error { return c.Terminate(ctx) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T) {
				sim := newSimEngine(t)
				other(t, sim)
				ctlr := newSimController(t, sim, refusedTask(api.TaskStateRunning))
				require.NoError(t, stop(t.Context(), ctlr))
				sim.with(taskName, func(c *simContainer) { assert.Equal(t, container.StateExited, c.state.Status) })
				status, err := ctlr.ContainerStatus(t.Context())
				require.NoError(t, err)
				assert.NotEmpty(t, status.ContainerID)
				require.NoError(t, ctlr.Remove(t.Context()))
				assert.Empty(t, sim.left())
			})
		})
	}
}

// A container that runs is not left to itself because the agent ended between
// its start and the note of it.
func TestRefusedTaskThatStartedGoesOn(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		sim := newSimEngine(t)
		other(t, sim)
		task := refusedTask(api.TaskStateStarting)
		drive(t.Context(), t, task, newSimController(t, sim, task), api.TaskStateRunning)
		assert.Equal(t, api.TaskStateRunning, task.Status.State, task.Status.Err)
	})
}

func TestRefusedTaskMakesNothing(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ from, to api.TaskState }{
		{api.TaskStatePreparing, api.TaskStateRejected},
		{api.TaskStateStarting, api.TaskStateFailed},
	} {
		t.Run(test.from.String(), func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T) {
				sim := newSimEngine(t)
				plain := taskAt(plainTask(), api.TaskStateAccepted)
				attach(plain, "n1", "10.1.0.0/24")
				drive(t.Context(), t, plain, newSimController(t, sim, plain), api.TaskStateReady)
				sim.forgetCalls()
				task := refusedTask(test.from)
				ctlr := newSimController(t, sim, task)
				drive(t.Context(), t, task, ctlr, test.to)
				assert.Equal(t, test.to, task.Status.State)
				assert.Equal(t, whyRefused, task.Status.Err)
				for _, call := range sim.called() {
					assert.Equal(t, "ContainerInspect web.1.taskid", call)
				}
				require.NoError(t, ctlr.Remove(t.Context()))
				assert.Empty(t, sim.left())
			})
		})
	}
}

// Where no container can be there the agent hears of it at once, as it does of a
// name that would make other requests than it should.
func TestRefusedTaskWithoutContainer(t *testing.T) {
	t.Parallel()
	sim := newSimEngine(t)
	_, err := NewExecutor(sim, nil).Controller(refusedTask(api.TaskStateAccepted))
	require.EqualError(t, err, whyRefused)
	for name, change := range map[string]func(*api.Task){
		"no ID":      func(task *api.Task) { task.ID = "" },
		"odd name":   func(task *api.Task) { task.Annotations.Name = "../images" },
		"no image":   func(task *api.Task) { spec(task).Image = "" },
		"no runtime": func(task *api.Task) { task.Spec.Runtime = nil },
		"nil spec":   func(task *api.Task) { task.Spec.Runtime = &api.TaskSpec_Container{} },
		"typed nil":  func(task *api.Task) { task.Spec.Runtime = (*api.TaskSpec_Container)(nil) },
	} {
		task := refusedTask(api.TaskStateRunning)
		change(task)
		_, err := NewExecutor(sim, nil).Controller(task)
		require.Error(t, err, name)
		_, err = NewExecutor(nil, nil).Controller(task)
		require.EqualError(t, err, "dockerexec: the engine's client is nil", name)
	}
}

// What is no task at all is taken up for its end, too.
func TestRefusedTaskWithNilElements(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		sim := newSimEngine(t)
		runningTask(t, sim, plainTask())
		task := taskAt(plainTask(), api.TaskStateRunning)
		task.Networks = []*api.NetworkAttachment{nil}
		task.Endpoint = &api.Endpoint{Ports: []*api.PortConfig{nil}}
		spec(task).Secrets = []*api.SecretReference{nil}
		spec(task).Configs = []*api.ConfigReference{nil}
		spec(task).Ulimits = []*api.ContainerSpec_Ulimit{nil}
		ctlr := newSimController(t, sim, task)
		require.Error(t, ctlr.Prepare(t.Context()))
		require.NoError(t, ctlr.Shutdown(t.Context()))
		require.NoError(t, ctlr.Remove(t.Context()))
		assert.Empty(t, sim.left())
	})
}

// The files of a refused task go with its container, whatever its references are
// refused for.
func TestRefusedTaskLeavesNoFiles(t *testing.T) {
	t.Parallel()
	client, store := newFilesClient(t), newTestStore(t)
	require.NoError(t, newFilesAdapter(t, client, store, ownedTask(), stores()).Create(t.Context()))
	require.NotEmpty(t, tree(t, store.dir))
	client.containerList = func(context.Context, container.ListOptions) ([]container.Summary, error) {
		return []container.Summary{{Labels: ofThisTask}}, nil // so that no sweep removes them
	}
	task := ownedTask()
	spec(task).Secrets = append(spec(task).Secrets, secretFile("s2", ownFile("odd", 0o4755)))
	engine := newFilesEngine(t, client, store)
	_, refusal := engine.Adapter(goldenNode(), task, stores())
	require.Error(t, refusal)
	adapter, err := engine.refusedAdapter(task, refusal)
	require.NoError(t, err)
	require.NoError(t, adapter.Remove(t.Context()))
	assert.Empty(t, tree(t, store.dir))
}

// A task may be called as another one's file is; the name is refused, and
// nothing of the other one's goes with it.
func TestRefusedTaskRemovesNoFilesOfAnother(t *testing.T) {
	t.Parallel()
	client, store := newFilesClient(t), newTestStore(t)
	require.NoError(t, newFilesAdapter(t, client, store, ownedTask(), stores()).Create(t.Context()))
	client.containerList = func(context.Context, container.ListOptions) ([]container.Summary, error) {
		return []container.Summary{{Labels: ofThisTask}}, nil
	}
	engine := newFilesEngine(t, client, store)
	for _, id := range []string{"taskid/secret.0", ".", "..", "../engine-1/taskid"} {
		task := ownedTask()
		task.ID, task.Annotations.Name = id, "another"
		_, refusal := engine.Adapter(goldenNode(), task, stores())
		require.ErrorContains(t, refusal, "dockerexec: task field ID: ")
		adapter, err := engine.refusedAdapter(task, refusal)
		require.NoError(t, err)
		require.NoError(t, adapter.Remove(t.Context()))
		assert.Equal(t, written, tree(t, store.dir), id)
	}
}

// nodeTask is one whose request depends on the node.
func nodeTask(state api.TaskState) *api.Task {
	task := taskAt(plainTask(), state)
	attach(task, "n1", "10.1.0.0/24")
	spec(task).Hostname = "on-{{.Node.Hostname}}-{{.Node.Platform.OS}}"
	return task
}

const whyUnknown = "dockerexec: the task's templates say something of the node, and the engine has not described it yet"

// The agent starts while the engine is away, so that nothing has described the
// node when it takes up its tasks.
func TestTaskWaitsForTheNodesDescription(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		sim := newSimEngine(t)
		executor := NewExecutor(sim, nil)
		task := nodeTask(api.TaskStatePreparing)
		made, err := executor.Controller(task)
		require.NoError(t, err)
		ctlr := made.(*controller)
		for range 2 {
			err = ctlr.Prepare(t.Context())
			require.EqualError(t, err, whyUnknown)
			assert.True(t, exec.IsTemporary(err))
		}
		assert.Empty(t, sim.left())

		require.NoError(t, executor.Configure(t.Context(), &api.Node{Description: &api.NodeDescription{
			Hostname: "host-1", Platform: &api.Platform{OS: "linux"}}}))
		require.NoError(t, ctlr.Prepare(t.Context()))
		sim.with(taskName, func(c *simContainer) { assert.Equal(t, "on-host-1-linux", c.config.Hostname) })
		// What it was made as it stays.
		require.NoError(t, executor.Configure(t.Context(), &api.Node{Description: &api.NodeDescription{Hostname: "host-2"}}))
		whole, _, err := ctlr.adapter.fullTask()
		require.NoError(t, err)
		assert.Equal(t, "on-host-1-linux", whole.config().Hostname)
		require.NoError(t, ctlr.Start(t.Context()))
		require.NoError(t, ctlr.Remove(t.Context()))
		assert.Empty(t, sim.left())
		assert.Equal(t, "on-{{.Node.Hostname}}-{{.Node.Platform.OS}}", spec(task).Hostname)
	})
}

// What the description says may be no good.
func TestTaskIsRefusedOnceTheNodeIsDescribed(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		sim := newSimEngine(t)
		executor := NewExecutor(sim, nil)
		task := taskAt(plainTask(), api.TaskStatePreparing)
		spec(task).Mounts = []api.Mount{{Type: api.MountTypeBind, Source: "{{.Node.Hostname}}", Target: "/data"}}
		ctlr, err := executor.Controller(task)
		require.NoError(t, err)
		require.True(t, exec.IsTemporary(ctlr.Prepare(t.Context())))
		require.NoError(t, executor.Configure(t.Context(), &api.Node{Description: &api.NodeDescription{Hostname: "host-1"}}))
		drive(t.Context(), t, task, ctlr, api.TaskStateRejected)
		assert.Equal(t, `dockerexec: task field Spec.Container.Mounts[0].Source: "host-1" is not an absolute path`, task.Status.Err)
		require.NoError(t, ctlr.Remove(t.Context()))
		assert.Empty(t, sim.left())
	})
}

// An agent that is started anew while the engine is away has to stop and remove
// what runs.
func TestTaskThatRunsIsEndedWithoutTheNodesDescription(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		sim := newSimEngine(t)
		other(t, sim)
		task := nodeTask(api.TaskStateRunning)
		spec(task).Mounts = []api.Mount{{Type: api.MountTypeVolume, Source: "{{.Node.Hostname}}", Target: "/data"}}
		ctlr, status, err := exec.Resolve(t.Context(), task, NewExecutor(sim, nil))
		require.NoError(t, err)
		require.Equal(t, api.TaskStateRunning, status.State)
		wait := asynchronously(func() error { return ctlr.Wait(t.Context()) })
		time.Sleep(time.Minute)
		require.NoError(t, ctlr.Shutdown(t.Context()))
		require.EqualError(t, wait(), "task: non-zero exit (143)")
		require.NoError(t, ctlr.Remove(t.Context()))
		assert.Empty(t, sim.left())
	})
}

func TestOnlyTemplatesOfTheNodeWaitForIt(t *testing.T) {
	t.Parallel()
	secret := []*api.SecretReference{{SecretID: "s1", Target: &api.SecretReference_File{File: &api.FileTarget{Name: "s"}}}}
	for _, test := range []struct {
		name   string
		change func(*api.ContainerSpec)
		waits  bool
	}{
		{"none", func(*api.ContainerSpec) {}, false},
		{"the task's own", func(s *api.ContainerSpec) { s.Hostname = "{{.Task.Slot}}-{{.Node.ID}}" }, false},
		{"all that a template can show", func(s *api.ContainerSpec) { s.Env = []string{"A={{.}}"} }, true},
		{"no template", func(s *api.ContainerSpec) { s.Env = []string{"A=.Node.Hostname"} }, false},
		{"labels, which are not expanded", func(s *api.ContainerSpec) { s.Labels = map[string]string{"a": "{{.Node.Hostname}}"} }, false},
		{"env", func(s *api.ContainerSpec) { s.Env = []string{"A=1", "B={{.Node.ID}}{{.Node.Hostname}}"} }, true},
		{"a block", func(s *api.ContainerSpec) { s.Hostname = "{{with .Node}}{{.Hostname}}{{end}}" }, true},
		{"a variable", func(s *api.ContainerSpec) { s.Hostname = "{{$x := .}}{{$x.Node.Platform.OS}}" }, true},
		{"driver options", func(s *api.ContainerSpec) {
			s.Mounts = []api.Mount{{Type: api.MountTypeVolume, Source: "v", Target: "/v", VolumeOptions: &api.Mount_VolumeOptions{
				DriverConfig: &api.Driver{Name: "d", Options: map[string]string{"o": "{{.Node.Hostname}}"}}}}}
		}, true},
		{"a secret, which may have one", func(s *api.ContainerSpec) { s.Secrets = secret }, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			task := plainTask()
			test.change(spec(task))
			ctlr, err := NewExecutor(newFakeClient(t), nil).Controller(task)
			require.NoError(t, err)
			_, _, err = ctlr.(*controller).adapter.fullTask()
			assert.Equal(t, test.waits, err != nil)
		})
	}
}
