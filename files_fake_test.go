package dockerexec

import (
	"context"
	"fmt"
	"testing"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/system"
	engineapi "github.com/docker/docker/client"
	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/moby/swarmkit/v2/api"
	"github.com/stretchr/testify/require"
)

// filesClient is a client of an engine of this host with the ID engine-1.
type filesClient struct {
	*fakeClient
	address       string
	containerList func(ctx context.Context, options container.ListOptions) ([]container.Summary, error)
}

func newFilesClient(t testing.TB) *filesClient {
	client := &filesClient{fakeClient: newFakeClient(t), address: "unix:///run/docker.sock"}
	client.info = func(context.Context) (system.Info, error) { return system.Info{ID: "engine-1"}, nil }
	client.containerStart = func(context.Context, string, container.StartOptions) error { return nil }
	client.containerRemove = func(context.Context, string, container.RemoveOptions) error { return nil }
	client.creating(nil)
	return client
}

func (c *filesClient) DaemonHost() string { return c.address }

func (c *filesClient) ContainerList(ctx context.Context, options container.ListOptions) ([]container.Summary, error) {
	c.record("ContainerList", fmt.Sprint(options.All, " ", options.Filters.Get("label")), c.containerList != nil)
	return c.containerList(ctx, options)
}

// newFilesEngine is an Engine with its files in a folder that counts as memory.
func newFilesEngine(t testing.TB, client engineapi.APIClient, store fileStore) *Engine {
	t.Helper()
	engine := NewEngine(client, WithSecretsDir(store.dir))
	engine.files = store
	return engine
}

func newFilesAdapter(t testing.TB, client engineapi.APIClient, store fileStore, task *api.Task, deps exec.DependencyGetter) *ContainerAdapter {
	t.Helper()
	adapter, err := newFilesEngine(t, client, store).Adapter(goldenNode(), task, deps)
	require.NoError(t, err)
	return adapter
}

// ownedTask has a secret and a config that belong to this process's user.
func ownedTask() *api.Task {
	task := plainTask()
	spec(task).Secrets = []*api.SecretReference{secretFile("s1", ownFile("password", 0o400))}
	spec(task).Configs = []*api.ConfigReference{configFile("c1", ownFile("/etc/web.conf", 0o444))}
	return task
}

// written is what ownedTask has in its store.
var written = []string{
	"engine-1 drwx------",
	"engine-1/taskid drwx------",
	"engine-1/taskid/config.0 -r--r--r-- payload of c1",
	"engine-1/taskid/secret.0 -r-------- payload of s1",
}
