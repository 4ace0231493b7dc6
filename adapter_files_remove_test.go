package dockerexec

import (
	"context"
	"testing"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/system"
	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/moby/swarmkit/v2/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A process that takes over knows nothing of what the one before it wrote.
func TestRemoveOfAnotherProcessRemovesTheFiles(t *testing.T) {
	t.Parallel()
	gone := answer{"No such container: web.1.taskid", cerrdefs.ErrNotFound}
	for name, removal := range map[string]error{"container there": nil, "container gone": gone} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			client, store := newFilesClient(t), newTestStore(t)
			require.NoError(t, newFilesAdapter(t, client, store, ownedTask(), stores()).Create(t.Context()))
			client.containerRemove = func(context.Context, string, container.RemoveOptions) error { return removal }
			client.containerList = func(context.Context, container.ListOptions) ([]container.Summary, error) {
				return []container.Summary{{Labels: ofThisTask}}, nil // so that no sweep removes them
			}
			require.NoError(t, newFilesAdapter(t, client, store, ownedTask(), stores()).Remove(t.Context()))
			assert.Empty(t, tree(t, store.dir))
		})
	}
}

func TestRemoveKeepsTheFilesOfWhatIsNotRemoved(t *testing.T) {
	t.Parallel()
	client, store := newFilesClient(t), newTestStore(t)
	adapter := newFilesAdapter(t, client, store, ownedTask(), stores())
	require.NoError(t, adapter.Create(t.Context()))
	client.containerRemove = func(context.Context, string, container.RemoveOptions) error { return errAway }
	require.True(t, exec.IsTemporary(adapter.Remove(t.Context())))
	assert.Equal(t, written, tree(t, store.dir))
	client.containerRemove = func(context.Context, string, container.RemoveOptions) error { return nil }
	require.NoError(t, adapter.Remove(t.Context()))
	assert.Empty(t, tree(t, store.dir))
}

// The engine goes away between the container's removal and that of the files.
func TestRemoveOfFilesIsTriedAgain(t *testing.T) {
	t.Parallel()
	client, store := newFilesClient(t), newTestStore(t)
	require.NoError(t, newFilesAdapter(t, client, store, ownedTask(), stores()).Create(t.Context()))
	client.info = func(context.Context) (system.Info, error) { return system.Info{}, errAway }
	adapter := newFilesAdapter(t, client, store, ownedTask(), stores())
	require.True(t, exec.IsTemporary(adapter.Remove(t.Context())))
	assert.Equal(t, written, tree(t, store.dir))
	client.info = func(context.Context) (system.Info, error) { return system.Info{ID: "engine-1"}, nil }
	client.containerList = func(context.Context, container.ListOptions) ([]container.Summary, error) { return nil, errAway }
	require.True(t, exec.IsTemporary(adapter.Remove(t.Context())))
	assert.Equal(t, written, tree(t, store.dir))
	client.containerList = func(context.Context, container.ListOptions) ([]container.Summary, error) {
		return []container.Summary{{Labels: ofThisTask}}, nil
	}
	require.NoError(t, adapter.Remove(t.Context()))
	assert.Empty(t, tree(t, store.dir))
}

// A stranger has the name of the task's container; the task's files are its own.
func TestRemoveBesideAStrangersContainer(t *testing.T) {
	t.Parallel()
	client, store := newFilesClient(t), newTestStore(t)
	adapter := newFilesAdapter(t, client, store, ownedTask(), stores())
	require.NoError(t, adapter.Create(t.Context()))
	client.creating(nameTaken)
	client.inspecting(inspected("c9", container.StateRunning, nil), nil)
	require.Error(t, adapter.Create(t.Context()))
	client.containerRemove = nil // is not called
	require.NoError(t, adapter.Remove(t.Context()))
	assert.Empty(t, tree(t, store.dir))
}

// A controller that finds no container, or a stranger's, removes the files too.
func TestControllerRemovesFilesWithoutAContainer(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]func() (container.InspectResponse, error){
		"no container": func() (container.InspectResponse, error) {
			return container.InspectResponse{}, notFound("No such container: web.1.taskid")
		},
		"a stranger's container": func() (container.InspectResponse, error) {
			return inspected("c9", container.StateRunning, map[string]string{LabelTaskID: "other"}), nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			client, store := newFilesClient(t), newTestStore(t)
			client.inspecting(answer())
			_, err := store.write("engine-1", "taskid", []filePayload{testFile("secret.0", "a", 0o400)})
			require.NoError(t, err)
			lists := 0
			client.containerList = func(context.Context, container.ListOptions) ([]container.Summary, error) {
				if lists++; lists == 1 {
					return nil, errAway // and is tried again
				}
				return []container.Summary{{Labels: ofThisTask}}, nil
			}
			client.containerRemove = nil // is not called
			ctlr := newController(newFilesAdapter(t, client, store, ownedTask(), stores()), api.TaskStateRunning)
			require.NoError(t, ctlr.Remove(t.Context()))
			assert.Empty(t, tree(t, store.dir))
		})
	}
}
