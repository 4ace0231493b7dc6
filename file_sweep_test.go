package dockerexec

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/network"
	"github.com/moby/swarmkit/v2/agent/exec"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestSweep(t *testing.T) {
	t.Parallel()
	withLeftovers := func(t *testing.T) fileStore {
		store := newTestStore(t)
		for _, task := range []string{"ended", "running", "ours"} {
			_, err := store.write("engine-1", task, []filePayload{testFile("secret.0", task, 0o400)})
			require.NoError(t, err)
		}
		_, err := store.write("engine-2", "ended", []filePayload{testFile("secret.0", "other", 0o400)})
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(store.dir, "engine-1", "note"), nil, 0o600))
		return store
	}
	left := func(t *testing.T, store fileStore) []string {
		tasks, err := store.tasks("engine-1")
		require.NoError(t, err)
		others, err := store.tasks("engine-2")
		require.NoError(t, err)
		assert.Equal(t, []string{"ended"}, others)
		assert.FileExists(t, filepath.Join(store.dir, "engine-1", "note"))
		return tasks
	}
	running := []container.Summary{{Labels: map[string]string{"com.docker.swarm.task.id": "running"}}, {Labels: map[string]string{"com.docker.swarm.task": ""}}, {}}
	task := ownedTask()
	task.ID = "ours"

	t.Run("before the first task", func(t *testing.T) {
		t.Parallel()
		client, store := newFilesClient(t), withLeftovers(t)
		client.containerList = func(context.Context, container.ListOptions) ([]container.Summary, error) {
			assert.Equal(t, []string{"ended", "ours", "running"}, left(t, store))
			// Another process's task comes, and its container with it.
			_, err := store.write("engine-1", "meanwhile", []filePayload{testFile("secret.0", "", 0o400)})
			require.NoError(t, err)
			return running, nil
		}
		ctx, lines := logged(t)
		require.NoError(t, newFilesAdapter(t, client, store, task, stores()).Create(ctx))
		assert.Equal(t, []string{"meanwhile", "ours", "running"}, left(t, store))
		assert.Equal(t, []string{"Info ", "ContainerList true [com.docker.swarm.task]", "ContainerCreate web.1.ours"}, client.called())
		assert.Contains(t, lines(logrus.DebugLevel), "files of a task without a container removed")
		assert.Empty(t, lines(logrus.InfoLevel))
	})
	t.Run("beside the create of another Engine", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			store, release := newTestStore(t), make(chan struct{})
			other := newFilesClient(t)
			create := other.containerCreate
			other.containerCreate = func(ctx context.Context, config *container.Config, hostConfig *container.HostConfig, networking *network.NetworkingConfig, platform *ocispec.Platform, name string) (container.CreateResponse, error) {
				<-release
				return create(ctx, config, hostConfig, networking, platform, name)
			}
			created := asynchronously(func() error {
				return newFilesAdapter(t, other, store, ownedTask(), stores()).Create(t.Context())
			})
			synctest.Wait() // the other Engine's create is under way
			client := newFilesClient(t)
			client.containerList = func(context.Context, container.ListOptions) ([]container.Summary, error) {
				if release != nil { // and ends before the sweep removes
					close(release)
					release = nil
					synctest.Wait()
				}
				return nil, nil
			}
			require.NoError(t, newFilesAdapter(t, client, store, task, stores()).Create(t.Context()))
			require.NoError(t, created())
			tasks, err := store.tasks("engine-1")
			require.NoError(t, err)
			assert.Equal(t, []string{"ours", "taskid"}, tasks)

			// Later, and without its container, they are left over.
			time.Sleep(time.Second)
			require.NoError(t, newFilesAdapter(t, client, store, task, stores()).Create(t.Context()))
			tasks, err = store.tasks("engine-1")
			require.NoError(t, err)
			assert.Equal(t, []string{"ours"}, tasks)
		})
	})
	t.Run("once an Engine", func(t *testing.T) {
		t.Parallel()
		client, store := newFilesClient(t), withLeftovers(t)
		client.containerList = func(context.Context, container.ListOptions) ([]container.Summary, error) { return running, nil }
		engine := newFilesEngine(t, client, store)
		for range 2 {
			adapter, err := engine.Adapter(nil, task, stores())
			require.NoError(t, err)
			require.NoError(t, adapter.Create(t.Context()))
			_, err = store.write("engine-1", "later", []filePayload{testFile("secret.0", "", 0o400)})
			require.NoError(t, err)
		}
		assert.Equal(t, []string{"later", "ours", "running"}, left(t, store))
	})
	t.Run("nothing without files", func(t *testing.T) {
		t.Parallel()
		client, store := newFilesClient(t), withLeftovers(t)
		require.NoError(t, newFilesAdapter(t, client, store, plainTask(), nil).Create(t.Context()))
		assert.Equal(t, []string{"ContainerCreate web.1.taskid"}, client.called())
		assert.Equal(t, []string{"ended", "ours", "running"}, left(t, store))
	})
	t.Run("engine away", func(t *testing.T) {
		t.Parallel()
		client, store := newFilesClient(t), withLeftovers(t)
		client.containerList = func(context.Context, container.ListOptions) ([]container.Summary, error) { return nil, errAway }
		adapter := newFilesAdapter(t, client, store, task, stores())
		err := adapter.Create(t.Context())
		require.ErrorContains(t, err, "secrets and configs: list of containers: ")
		require.True(t, exec.IsTemporary(err))
		assert.Equal(t, []string{"ended", "ours", "running"}, left(t, store))
		client.containerList = func(context.Context, container.ListOptions) ([]container.Summary, error) { return running, nil }
		require.NoError(t, adapter.Create(t.Context()))
		assert.Equal(t, []string{"ours", "running"}, left(t, store))
	})
	t.Run("list refused", func(t *testing.T) {
		t.Parallel()
		client, store := newFilesClient(t), withLeftovers(t)
		client.containerList = func(context.Context, container.ListOptions) ([]container.Summary, error) {
			return running, answer{"no", cerrdefs.ErrPermissionDenied}
		}
		require.NoError(t, newFilesAdapter(t, client, store, task, stores()).Create(t.Context()))
		assert.Equal(t, []string{"ended", "ours", "running"}, left(t, store))
	})
	t.Run("cancelled", func(t *testing.T) {
		t.Parallel()
		client, store := newFilesClient(t), withLeftovers(t)
		ctx, cancel := context.WithCancel(t.Context())
		client.containerList = func(ctx context.Context, _ container.ListOptions) ([]container.Summary, error) {
			cancel()
			return nil, ctx.Err()
		}
		assert.Equal(t, context.Canceled, newFilesAdapter(t, client, store, task, stores()).Create(ctx))
		assert.Equal(t, []string{"ended", "ours", "running"}, left(t, store))
	})
}

// What is known of creates is bounded by those that run, though nobody removes
// their tasks.
func TestCreationsAreForgotten(t *testing.T) {
	t.Parallel()
	client, store := newFilesClient(t), newTestStore(t)
	known := func() bool {
		changingFiles.Lock()
		defer changingFiles.Unlock()
		_, known := creations[store.folder("engine-1", "taskid")]
		return known
	}
	create := client.containerCreate
	client.containerCreate = func(ctx context.Context, config *container.Config, hostConfig *container.HostConfig, networking *network.NetworkingConfig, platform *ocispec.Platform, name string) (container.CreateResponse, error) {
		assert.True(t, known())
		return create(ctx, config, hostConfig, networking, platform, name)
	}
	require.NoError(t, newFilesAdapter(t, client, store, ownedTask(), stores()).Create(t.Context()))
	require.Eventually(t, func() bool { return !known() }, 10*time.Second, time.Millisecond, "a sweep of another test may still need it")
}
