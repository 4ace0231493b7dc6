//go:build linux

package engine_test

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/image"
	engineapi "github.com/docker/docker/client"
	"github.com/docker/docker/pkg/stdcopy"
	"github.com/dockerexec/dockerexec"
	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/moby/swarmkit/v2/api"
	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const canary = "canary-payload"

// secretsDir is a folder in memory that the engine sees.
func secretsDir(t testing.TB) string {
	t.Helper()
	fromHarness(t, "DOCKEREXEC_TEST_HOST")
	dir, err := os.MkdirTemp("/run", "dockerexec-test-") //nolint:usetesting // t.TempDir is on a disk
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, os.RemoveAll(dir)) })
	return filepath.Join(dir, "secrets") // which is still to be made
}

// filesAdapter is an adapter as a new process has it; its task is removed at the
// end, and must leave nothing.
func filesAdapter(t testing.TB, client *engineapi.Client, dir string, task *api.Task, deps exec.DependencyGetter) *dockerexec.ContainerAdapter {
	t.Helper()
	adapter, err := dockerexec.NewEngine(client, dockerexec.WithSecretsDir(dir)).Adapter(testNode(), task, deps)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, adapter.Remove(context.WithoutCancel(t.Context()))) })
	return adapter
}

// output is what a container has written to stdout and stderr, in that order. It
// comes from the client: an adapter adds times.
func output(t testing.TB, client *engineapi.Client, name string) (string, string) {
	t.Helper()
	body, err := client.ContainerLogs(t.Context(), name, container.LogsOptions{ShowStdout: true, ShowStderr: true})
	require.NoError(t, err)
	var stdout, stderr bytes.Buffer
	_, err = stdcopy.StdCopy(&stdout, &stderr, body)
	require.NoError(t, err)
	require.NoError(t, body.Close())
	return stdout.String(), stderr.String()
}

// runToEnd runs a task and returns its exit code.
func runToEnd(t testing.TB, adapter *dockerexec.ContainerAdapter) int {
	t.Helper()
	require.NoError(t, adapter.PullImage(t.Context()))
	require.NoError(t, adapter.Create(t.Context()))
	require.NoError(t, adapter.Start(t.Context()))
	ended, err := adapter.Wait(t.Context())
	require.NoError(t, err)
	return ended.State.ExitCode
}

// filesDeps have a payload with the canary each, and a template.
func filesDeps() exec.DependencyGetter {
	deps := newStores()
	deps.secrets.Add(
		api.Secret{ID: "s1", Spec: api.SecretSpec{Data: []byte(canary + " secret\n")}},
		api.Secret{ID: "template", Spec: api.SecretSpec{
			Data:       []byte(canary + ` on {{.Node.Hostname}} for {{.Service.Name}} with {{config "/etc/app/app.conf"}}`),
			Templating: &api.Driver{Name: "golang"},
		}})
	deps.configs.Add(api.Config{ID: "c1", Spec: api.ConfigSpec{Data: []byte(canary + " config\n")}})
	return deps
}

// tree lists the paths of all below a folder, or nothing if it is not there.
func tree(t testing.TB, dir string) []string {
	t.Helper()
	var list []string
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err == nil && path != dir {
			list = append(list, path)
		}
		return err
	})
	if !errors.Is(err, fs.ErrNotExist) {
		require.NoError(t, err)
	}
	return list
}

func addFiles(task *api.Task) {
	spec(task).Secrets = []*api.SecretReference{
		secretFile("s1", &api.FileTarget{Name: "password", UID: "1000", GID: "2000", Mode: 0o400}),
		secretFile("s1", &api.FileTarget{Name: "/etc/app/password", UID: "0", GID: "0", Mode: 0o444}),
		secretFile("template", &api.FileTarget{Name: "tls/template", UID: "1000", GID: "1000", Mode: 0o440}),
	}
	spec(task).Configs = []*api.ConfigReference{
		configFile("c1", &api.FileTarget{Name: "web.conf", UID: "1000", GID: "0", Mode: 0o640}),
		configFile("c1", &api.FileTarget{Name: "/etc/app/app.conf", UID: "4000000000", GID: "4000000001", Mode: 0o404}),
		configFile("c1", &api.FileTarget{Name: "/etc/hosts", Mode: 0o444}),
	}
}

// A process without rights in a container that is read-only sees each file as
// its reference has it, and nothing that outlives the task has a payload.
func TestEngineSecretsAndConfigsFromInside(t *testing.T) {
	sharesEngine(t)
	client, dir := engineClient(t), secretsDir(t)
	task := engineTask(t, "ids", "--", "stat",
		"/run/secrets/password", "/etc/app/password", "/run/secrets/tls/template", "/web.conf", "/etc/app/app.conf", "/etc/hosts",
		"--", "cat", "/run/secrets/password", "/run/secrets/tls/template", "/web.conf", "/etc/app/app.conf", "/etc/hosts", "--", "write", "/web.conf", "mine")
	task.ServiceAnnotations.Name = "web"
	spec(task).User, spec(task).ReadOnly = "1000:1000", true
	addFiles(task)
	adapter := filesAdapter(t, client, dir, task, filesDeps())
	ctx, lines := logged(t)
	require.NoError(t, adapter.PullImage(ctx))
	require.NoError(t, adapter.Create(ctx))
	require.NoError(t, adapter.Start(ctx))
	ended, err := adapter.Wait(ctx)
	require.NoError(t, err)
	assert.Equal(t, 1, ended.State.ExitCode, "the write")
	stdout, stderr := output(t, client, adapter.ContainerName())
	assert.Equal(t, `uid=1000 gid=1000 groups=1000
/run/secrets/password 0400 1000 2000 22
/etc/app/password 0444 0 0 22
/run/secrets/tls/template 0440 1000 1000 60
/web.conf 0640 1000 0 22
/etc/app/app.conf 0404 4000000000 4000000001 22
/etc/hosts 0444 0 0 22
canary-payload secret
canary-payload on node-1 for web with canary-payload config
canary-payload config
canary-payload config
canary-payload config
`, stdout)
	assert.Equal(t, "testtask: write: open /web.conf: read-only file system\n", stderr)
	assert.NotContains(t, strings.Join(lines.at(logrus.DebugLevel), "\n"), canary)

	// What is left on the engine.
	answer, raw, err := client.ContainerInspectWithRaw(ctx, ended.ID, true)
	require.NoError(t, err)
	assert.NotContains(t, string(raw), canary)
	if !isPodman() { // does not tell them
		assert.Len(t, answer.HostConfig.Mounts, 6)
	}
	changes, err := client.ContainerDiff(ctx, ended.ID)
	require.NoError(t, err)
	text, err := json.Marshal(changes)
	require.NoError(t, err)
	assert.NotContains(t, string(text), canary)
	exported, err := client.ContainerExport(ctx, ended.ID)
	require.NoError(t, err)
	sizes := sizesOf(t, exported)
	for _, name := range []string{"run/secrets/password", "etc/app/password", "run/secrets/tls/template", "web.conf", "etc/app/app.conf"} {
		size, is := sizes[name]
		assert.True(t, is || isPodman(), "the place of %s", name)
		assert.Zero(t, size, name)
	}
	commit, err := client.ContainerCommit(ctx, ended.ID, container.CommitOptions{Config: &container.Config{}}) // Podman wants one
	require.NoError(t, err)
	t.Cleanup(func() {
		_, err := client.ImageRemove(context.Background(), commit.ID, image.RemoveOptions{})
		assert.NoError(t, err)
	})
	saved, err := client.ImageSave(ctx, []string{commit.ID})
	require.NoError(t, err)
	everything, err := io.ReadAll(saved)
	require.NoError(t, err)
	require.NoError(t, saved.Close())
	assert.NotContains(t, string(everything), canary)

	assert.Len(t, tree(t, dir), 2+6+1)
	require.NoError(t, adapter.Remove(ctx))
	assert.Empty(t, tree(t, dir))
}

// sizesOf lists the files of a tar stream, none of which has the canary in it.
func sizesOf(t testing.TB, stream io.ReadCloser) map[string]int64 {
	t.Helper()
	defer stream.Close()
	sizes := map[string]int64{}
	for files := tar.NewReader(stream); ; {
		header, err := files.Next()
		if err == io.EOF {
			return sizes
		}
		require.NoError(t, err)
		sizes[header.Name] = header.Size
		content, err := io.ReadAll(files)
		require.NoError(t, err)
		assert.NotContains(t, string(content), canary, header.Name)
	}
}

// Mounts above the files come first, whatever their kind; a volume keeps an
// empty file.
func TestEngineSecretsBelowMounts(t *testing.T) {
	sharesEngine(t)
	client, dir := engineClient(t), secretsDir(t)
	for name, m := range map[string]api.Mount{
		"tmpfs":              {Type: api.MountTypeTmpfs, Target: "/run"},
		"tmpfs with options": {Type: api.MountTypeTmpfs, Target: "/run/secrets", TmpfsOptions: &api.Mount_TmpfsOptions{Options: "mode=755"}},
		"volume":             {Type: api.MountTypeVolume, Target: "/run/secrets"},
	} {
		t.Run(name, func(t *testing.T) {
			task := engineTask(t, "cat", "/run/secrets/s1")
			spec(task).Mounts = []api.Mount{m}
			spec(task).Secrets = []*api.SecretReference{secretFile("s1", &api.FileTarget{Name: "s1", Mode: 0o400})}
			adapter := filesAdapter(t, client, dir, task, filesDeps())
			assert.Equal(t, 0, runToEnd(t, adapter))
			stdout, _ := output(t, client, adapter.ContainerName())
			assert.Equal(t, canary+" secret\n", stdout)
		})
	}
}

// The host was restarted: the container is there and its files are not. A
// new process starts it.
func TestEngineStartsAContainerWhoseFilesAreGone(t *testing.T) {
	sharesEngine(t)
	client, dir := engineClient(t), secretsDir(t)
	task := engineTask(t, "cat", "/run/secrets/password", "/web.conf")
	addFiles(task)
	first := filesAdapter(t, client, dir, task, filesDeps())
	require.NoError(t, first.PullImage(t.Context()))
	require.NoError(t, first.Create(t.Context()))
	require.NoError(t, os.RemoveAll(dir))

	second := filesAdapter(t, client, dir, task, filesDeps())
	require.NoError(t, second.Start(t.Context()))
	ended, err := second.Wait(t.Context())
	require.NoError(t, err)
	assert.Equal(t, 0, ended.State.ExitCode)
	stdout, _ := output(t, client, second.ContainerName())
	assert.Equal(t, "canary-payload secret\ncanary-payload config\n", stdout)

	// The same by way of a create.
	require.NoError(t, os.RemoveAll(dir))
	third := filesAdapter(t, client, dir, task, filesDeps())
	assert.Equal(t, exec.ErrTaskPrepared, third.Create(t.Context()))
	assert.Len(t, tree(t, dir), 2+6+1)
	require.NoError(t, third.Remove(t.Context()))
	assert.Empty(t, tree(t, dir))
}

// makesWithASecret returns a function that creates a container with one secret.
func makesWithASecret(t *testing.T, client *engineapi.Client, dir string) func(args ...string) (*dockerexec.ContainerAdapter, *api.Task) {
	return func(args ...string) (*dockerexec.ContainerAdapter, *api.Task) {
		task := engineTask(t, args...)
		spec(task).Secrets = []*api.SecretReference{secretFile("s1", &api.FileTarget{Name: "s1", Mode: 0o400})}
		adapter := filesAdapter(t, client, dir, task, filesDeps())
		require.NoError(t, adapter.PullImage(t.Context()))
		require.NoError(t, adapter.Create(t.Context()))
		return adapter, task
	}
}

// A task that ran while its process was away has its files, and one that is gone
// has not.
func TestEngineSweepsFilesOfGoneTasks(t *testing.T) {
	sharesEngine(t)
	client, dir := engineClient(t), secretsDir(t)
	made := makesWithASecret(t, client, dir)
	_, created := made("exit", "0")
	runs, running := made("sleep", "1h")
	require.NoError(t, runs.Start(t.Context()))
	exits, exited := made("exit", "0")
	require.NoError(t, exits.Start(t.Context()))
	_, err := exits.Wait(t.Context())
	require.NoError(t, err)
	_, gone := made("exit", "0")
	require.NoError(t, client.ContainerRemove(t.Context(), "testenginesweepsfilesofgonetasks.1."+gone.ID, container.RemoveOptions{Force: true}))

	engines, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, engines, 1)
	engine := filepath.Join(dir, engines[0].Name())
	folders := func() []string {
		entries, err := os.ReadDir(engine)
		require.NoError(t, err)
		var names []string
		for _, entry := range entries {
			names = append(names, entry.Name())
		}
		return names
	}
	require.ElementsMatch(t, []string{created.ID, running.ID, exited.ID, gone.ID}, folders())
	_, second := made("exit", "0") // in a new Engine
	require.ElementsMatch(t, []string{created.ID, running.ID, exited.ID, gone.ID, second.ID}, folders(), "a folder of the last ten minutes stays")
	then := time.Now().Add(-10 * time.Minute)
	require.NoError(t, os.Chtimes(filepath.Join(engine, gone.ID), then, then))
	_, third := made("exit", "0")
	assert.ElementsMatch(t, []string{created.ID, running.ID, exited.ID, second.ID, third.ID}, folders())
}

// An engine of 20.10 has its ID from a file that not all hosts keep, and newer ones make
// theirs anew after an upgrade. The files are found under the ID from before.
func TestEngineThatChangesItsIDLeavesNoFiles(t *testing.T) {
	client, dir := engineClient(t), secretsDir(t)
	made := makesWithASecret(t, client, dir)
	runs, running := made("sleep", "1h")
	require.NoError(t, runs.Start(t.Context()))
	_, created := made("cat", "/run/secrets/s1")
	ended, gone := made("exit", "0")
	require.NoError(t, client.ContainerRemove(t.Context(), ended.ContainerName(), container.RemoveOptions{Force: true}))
	before, err := client.Info(t.Context())
	require.NoError(t, err)
	then := time.Now().Add(-10 * time.Minute)
	for _, task := range []*api.Task{running, gone} {
		require.NoError(t, os.Chtimes(filepath.Join(dir, before.ID, task.ID), then, then))
	}

	controlEngine(t, "stop")
	for _, file := range []string{"/etc/docker/key.json", filepath.Join(before.DockerRootDir, "engine-id")} {
		if err := os.Remove(file); err != nil {
			require.ErrorIs(t, err, fs.ErrNotExist)
		}
	}
	controlEngine(t, "start")
	after, err := client.Info(t.Context())
	require.NoError(t, err)
	t.Logf("engine %s: ID %s, then %s", after.ServerVersion, before.ID, after.ID)
	require.NotEqual(t, before.ID, after.ID)

	// The sweep before the first task, in a new process.
	made("exit", "0")
	files := strings.Join(tree(t, dir), "\n")
	assert.NotContains(t, files, gone.ID)
	assert.Contains(t, files, filepath.Join(before.ID, running.ID, "secret.0"))

	// The host was restarted, and the container mounts the files at the old path.
	require.NoError(t, os.RemoveAll(filepath.Join(dir, before.ID, created.ID)))
	again := filesAdapter(t, client, dir, created, filesDeps())
	require.Equal(t, exec.ErrTaskPrepared, again.Create(t.Context()))
	require.NoError(t, again.Start(t.Context()))
	end, err := again.Wait(t.Context())
	require.NoError(t, err)
	assert.Zero(t, end.State.ExitCode)
	stdout, _ := output(t, client, again.ContainerName())
	assert.Equal(t, canary+" secret\n", stdout)

	for _, task := range []*api.Task{running, created} {
		require.NoError(t, filesAdapter(t, client, dir, task, filesDeps()).Remove(t.Context()))
		assert.NotContains(t, strings.Join(tree(t, dir), "\n"), task.ID)
	}
}

// The engine stops before the removal and is back for the next try.
func TestEngineRemovesFilesOnceItIsBack(t *testing.T) {
	client, dir := engineClient(t), secretsDir(t)
	task := engineTask(t, "sleep", "1h")
	addFiles(task)
	adapter := filesAdapter(t, client, dir, task, filesDeps())
	require.NoError(t, adapter.PullImage(t.Context()))
	require.NoError(t, adapter.Create(t.Context()))
	require.NoError(t, adapter.Start(t.Context()))
	controlEngine(t, "stop")
	again := filesAdapter(t, client, dir, task, filesDeps()) // a process that was not there before
	for _, a := range []*dockerexec.ContainerAdapter{adapter, again} {
		require.True(t, exec.IsTemporary(a.Remove(t.Context())))
	}
	assert.Len(t, tree(t, dir), 2+6+1)
	controlEngine(t, "start")
	require.NoError(t, again.Remove(t.Context()))
	assert.Empty(t, tree(t, dir))
}

// As an agent has it: the task comes before its secret, and is driven to its end
// and removed.
func TestEngineExecutorDeliversSecrets(t *testing.T) {
	sharesEngine(t)
	client, dir := engineClient(t), secretsDir(t)
	executor := dockerexec.NewExecutor(client, nil, dockerexec.WithSecretsDir(dir))
	_, err := executor.Describe(t.Context())
	require.NoError(t, err)
	require.NoError(t, executor.Configure(t.Context(), &api.Node{Description: &api.NodeDescription{Hostname: "node-7"}}))
	task := engineTask(t, "cat", "/run/secrets/late", "/web.conf")
	spec(task).Secrets = []*api.SecretReference{secretFile("late", &api.FileTarget{Name: "late", Mode: 0o400})}
	spec(task).Configs = []*api.ConfigReference{configFile("c1", &api.FileTarget{Name: "web.conf", Mode: 0o400})}
	ctlr := engineController(t, executor, task)
	warmImage(t, client)
	executor.(exec.ConfigsProvider).Configs().Add(api.Config{ID: "c1", Spec: api.ConfigSpec{
		Data: []byte(`{{.Node.Hostname}} {{secret "late"}}`), Templating: &api.Driver{Name: "golang"}}})

	err = ctlr.Prepare(t.Context())
	require.ErrorContains(t, err, `secret "name-of-late" (late) is not there yet`)
	require.True(t, exec.IsTemporary(err))
	assert.Empty(t, tree(t, dir))
	executor.(exec.SecretsProvider).Secrets().Add(api.Secret{ID: "late", Spec: api.SecretSpec{Data: []byte("here\n")}})

	driven := taskAt(task.Copy(), api.TaskStateAccepted)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	drive(ctx, t, driven, ctlr, api.TaskStateCompleted)
	require.Equal(t, api.TaskStateCompleted, driven.Status.State, driven.Status.Err)
	stdout, _ := output(t, client, driven.Status.GetContainer().ContainerID)
	assert.Equal(t, "here\nnode-7 here\n", stdout)
	require.NoError(t, ctlr.Remove(ctx))
	assert.Empty(t, tree(t, dir))
}

// The reference, after this package, removes the container and knows of no files.
func TestEngineFilesStayWhereTheReferenceRemoves(t *testing.T) {
	sharesEngine(t)
	client, dir := engineClient(t), secretsDir(t)
	task := engineTask(t, "cat", "/run/secrets/password")
	addFiles(task)
	adapter := filesAdapter(t, client, dir, task, filesDeps())
	assert.Equal(t, 0, runToEnd(t, adapter))
	require.NoError(t, client.ContainerRemove(t.Context(), task.ServiceAnnotations.Name+".1."+task.ID, container.RemoveOptions{RemoveVolumes: true, Force: true}))
	assert.Len(t, tree(t, dir), 2+6+1)
	require.NoError(t, os.RemoveAll(dir))
}
