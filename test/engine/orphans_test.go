package engine_test

import (
	"context"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/image"
	"github.com/dockerexec/dockerexec"
	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/moby/swarmkit/v2/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// An executor removes the container of an orphan. Each bystander beside it lives on.
func TestEngineOrphanGoesAndBystandersLive(t *testing.T) {
	sharesEngine(t)
	client := engineClient(t)
	warmImage(t, client)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	node := "node-of-" + engineTask(t).ID
	started := map[string]string{} // by ID: when each bystander was started
	remember := func(nameOrID string) string {
		answer, err := client.ContainerInspect(ctx, nameOrID)
		require.NoError(t, err)
		started[answer.ID] = answer.State.StartedAt
		t.Cleanup(func() {
			assert.NoError(t, client.ContainerRemove(context.WithoutCancel(ctx), answer.ID, container.RemoveOptions{Force: true}))
		})
		return answer.ID
	}
	ofNode := func() *api.Task {
		task := taskAt(engineTask(t, "sleep", "1h"), api.TaskStateRunning)
		task.NodeID = node
		return task
	}
	// An earlier process has started the task's container.
	begun := func(task *api.Task) string {
		adapter := engineTwin(t, client, task)
		require.NoError(t, adapter.Create(ctx))
		require.NoError(t, adapter.Start(ctx))
		return adapter.ContainerName()
	}
	other := func(name, image string, labels map[string]string) string {
		made, err := client.ContainerCreate(ctx, &container.Config{Image: image, Cmd: []string{"sleep", "1h"}, Labels: labels}, nil, nil, nil, name)
		require.NoError(t, err)
		require.NoError(t, client.ContainerStart(ctx, made.ID, container.StartOptions{}))
		return made.ID
	}

	orphan := ofNode()
	orphanName := begun(orphan)
	anothers := ofNode()
	anothers.NodeID = "another-node"
	remember(begun(anothers))
	running, renamed, refused, copied := ofNode(), ofNode(), ofNode(), ofNode()
	remember(begun(running))
	remember(begun(refused))
	require.NoError(t, client.ContainerRename(ctx, remember(begun(renamed)), "renamed-"+renamed.ID))
	require.NoError(t, client.ContainerRename(ctx, remember(begun(ofNode())), "dockerexec-taken")) // of no task now
	remember(other("web.1."+engineTask(t).ID, spec(orphan).Image, nil))                            // without labels
	copyOf := begun(copied)
	committed, err := client.ContainerCommit(ctx, copyOf, container.CommitOptions{Reference: "dockerexec-copy:1", Config: &container.Config{}}) // Podman wants one
	require.NoError(t, err)
	t.Cleanup(func() {
		_, err := client.ImageRemove(context.WithoutCancel(ctx), "dockerexec-copy:1", image.RemoveOptions{})
		assert.NoError(t, err)
	})
	require.NoError(t, engineTwin(t, client, copied).Remove(ctx))
	remember(other("web.1."+copied.ID, committed.ID, nil)) // it has all labels of the task
	require.Len(t, started, 7)

	executor := dockerexec.NewExecutor(client, nil, dockerexec.WithOrphans(dockerexec.OrphansRemove, 2*time.Second))
	require.NoError(t, executor.Configure(ctx, &api.Node{ID: node, Description: &api.NodeDescription{}}))
	executor.(exec.SecretsProvider).Secrets().Reset() // the agent's complete set of tasks follows
	for _, task := range []*api.Task{running, renamed} {
		ctlr, err := executor.Controller(task)
		require.NoError(t, err)
		defer ctlr.Close()
	}
	spec(refused).Image = ""
	_, err = executor.Controller(refused)
	require.Error(t, err)
	isThere := func() bool {
		_, err := executor.Describe(ctx)
		require.NoError(t, err)
		_, err = client.ContainerInspect(ctx, orphanName)
		return err == nil
	}
	for limit := time.Now().Add(time.Minute); isThere(); time.Sleep(time.Second) {
		require.True(t, time.Now().Before(limit), "the orphan is not removed")
	}
	for id, at := range started {
		answer, err := client.ContainerInspect(ctx, id)
		require.NoError(t, err)
		assert.True(t, answer.State.Running, answer.Name)
		assert.Equal(t, at, answer.State.StartedAt, answer.Name)
	}
}
