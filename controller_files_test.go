package dockerexec

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/system"
	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/moby/swarmkit/v2/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// filesSim is an engine with state that tells who it is.
type filesSim struct{ *simEngine }

func (e filesSim) DaemonHost() string { return "unix:///run/docker.sock" }

func (e filesSim) Info(ctx context.Context) (system.Info, error) {
	return simCall(ctx, e.simEngine, "Info", "", func() (system.Info, error) { return system.Info{ID: "engine-1"}, nil })
}

func (e filesSim) ContainerList(ctx context.Context, _ container.ListOptions) ([]container.Summary, error) {
	return simCall(ctx, e.simEngine, "ContainerList", "", func() ([]container.Summary, error) {
		var list []container.Summary
		for _, c := range e.containers {
			list = append(list, container.Summary{Labels: c.config.Labels})
		}
		return list, nil
	})
}

// filesController is a controller of ownedTask, as a new process has it.
func filesController(t testing.TB, sim *simEngine, store fileStore, task *api.Task) *controller {
	t.Helper()
	made := NewExecutor(filesSim{sim}, nil, WithSecretsDir(store.dir))
	made.(*executor).engine.files = store
	require.NoError(t, made.Configure(t.Context(), &api.Node{Description: &api.NodeDescription{Hostname: "host-1"}}))
	made.(exec.SecretsProvider).Secrets().Add(api.Secret{ID: "s1", Spec: api.SecretSpec{Data: []byte("payload of s1")}})
	made.(exec.ConfigsProvider).Configs().Add(api.Config{ID: "c1", Spec: api.ConfigSpec{Data: []byte("payload of c1")}})
	ctlr, err := made.Controller(task)
	require.NoError(t, err)
	return ctlr.(*controller)
}

// The agent calls Remove while Prepare and Start run, and then forgets the task.
func TestRemoveMeanwhileLeavesNoFiles(t *testing.T) {
	t.Parallel()
	for point := range 28 {
		t.Run(fmt.Sprint("point ", point), func(t *testing.T) {
			t.Parallel()
			store := newTestStore(t)
			bubble(t, func(t *testing.T) {
				sim := newSimEngine(t)
				sim.latency = time.Second
				ctlr := filesController(t, sim, store, ownedTask())
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				run := asynchronously(func() error {
					if err := ctlr.Prepare(ctx); err != nil {
						return err
					}
					return ctlr.Start(ctx)
				})
				time.Sleep(time.Duration(point) * 500 * time.Millisecond)
				if point%2 == 1 { // the agent ends the operation as well, at about the same time
					time.AfterFunc(time.Millisecond, cancel)
				}
				require.NoError(t, ctlr.Remove(t.Context()))
				_ = run() // fails, or was done before
				time.Sleep(time.Hour)
				assert.Empty(t, sim.left())
				assert.Empty(t, tree(t, store.dir))
			})
		})
	}
}

// A new process finds the container created, the host's memory empty, and the
// engine away for a while.
func TestControllerGoesOnAfterTheHostsRestart(t *testing.T) {
	t.Parallel()
	store := newTestStore(t)
	bubble(t, func(t *testing.T) {
		sim := newSimEngine(t)
		require.NoError(t, filesController(t, sim, store, ownedTask()).Prepare(t.Context()))
		require.NoError(t, store.remove("engine-1", "taskid"))

		task := taskAt(ownedTask(), api.TaskStateStarting)
		ctlr := filesController(t, sim, store, task)
		sim.fails(func(string) error { return errAway })
		time.AfterFunc(time.Minute, func() { sim.fails(nil) })
		drive(t.Context(), t, task, ctlr, api.TaskStateRunning)
		assert.Equal(t, written, tree(t, store.dir))
		require.NoError(t, ctlr.Remove(t.Context()))
		assert.Empty(t, tree(t, store.dir))
		assert.Empty(t, sim.left())
	})
}
