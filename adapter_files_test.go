package dockerexec

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/mount"
	engineapi "github.com/docker/docker/client"
	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/moby/swarmkit/v2/api"
	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockerexec/dockerexec/dockerexectest"
)

func TestFilesLiveWithTheContainer(t *testing.T) {
	t.Parallel()
	host, client := localEngine(t)
	store := newTestStore(t)
	var atCreate, atRemoval []string
	host.FailNext(createRequest, dockerexectest.Call(func() { atCreate = tree(t, store.dir) }))
	host.FailNext(removeRequest, dockerexectest.Call(func() { atRemoval = tree(t, store.dir) }))
	engine := newFilesEngine(t, client, store)
	adapter, err := engine.Adapter(nil, ownedTask(), stores())
	require.NoError(t, err)
	assert.Empty(t, host.Requests())
	require.NoError(t, adapter.Create(t.Context()))
	assert.Equal(t, written, atCreate, "they are there before their container")
	assert.Equal(t, []mount.Mount{
		{Type: "bind", Source: store.dir + "/engine-1/taskid/secret.0", Target: "/run/secrets/password", ReadOnly: true},
		{Type: "bind", Source: store.dir + "/engine-1/taskid/config.0", Target: "/etc/web.conf", ReadOnly: true},
	}, host.Container(taskName).Inspect().HostConfig.Mounts)
	require.NoError(t, adapter.Start(t.Context()))
	assert.Equal(t, written, tree(t, store.dir))
	require.NoError(t, adapter.Remove(t.Context()))
	assert.Equal(t, written, atRemoval, "they go after their container")
	assert.Empty(t, tree(t, store.dir))
	require.NoError(t, adapter.Remove(t.Context()), "again")

	// The engine is asked once, and for such tasks alone.
	second := ownedTask()
	second.ID = "second"
	adapter, err = engine.Adapter(nil, second, stores())
	require.NoError(t, err)
	require.NoError(t, adapter.Create(t.Context()))
	require.NoError(t, adapter.Remove(t.Context()))
	assert.Equal(t, []string{
		"GET /info", "POST /containers/create web.1.taskid", "POST /containers/ID/start", "DELETE /containers/ID",
		"DELETE /containers/web.1.taskid", "GET /containers/json", // it may have another name
		"POST /containers/create web.1.second", "DELETE /containers/ID",
	}, asked(host))
}

// Each step may fail, and what this call has written goes.
func TestCreateThatFailsLeavesNoFiles(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name      string
		task      func(*api.Task)
		set       func(*dockerexectest.Engine, *fileStore)
		deps      exec.DependencyGetter
		want      string // STRANGER is the ID of the container that has the task's name
		temporary bool
	}{
		{name: "secret not there yet", deps: getters{secrets: secretFunc(func(string) (*api.Secret, error) { return nil, nil }), configs: stores().configs},
			want: `secret "name-of-s1" (s1) is not there yet: the getter of secrets does not have s1`, temporary: true},
		{name: "config not there yet", deps: getters{secrets: stores().secrets, configs: configFunc(func(string) (*api.Config, error) { return nil, nil })},
			want: `config "name-of-c1" (c1) is not there yet: the getter of configs does not have c1`, temporary: true},
		{name: "engine away", set: func(e *dockerexectest.Engine, _ *fileStore) {
			e.FailNext(infoRequest, dockerexectest.Drop())
		}, want: "secrets and configs: engine information (GET /info): ", temporary: true},
		{name: "information refused", set: func(e *dockerexectest.Engine, _ *fileStore) {
			e.FailNext(infoRequest, dockerexectest.Refuse(403, "no"))
		}, want: "secrets and configs: engine information (GET /info): Error response from daemon: no"},
		{name: "owner", set: func(_ *dockerexectest.Engine, s *fileStore) {
			s.chown = func(*os.File, int, int) error { return syscall.EPERM }
		}, want: `secret "name-of-s1" (s1): operation not permitted`},
		{name: "no rights", set: func(_ *dockerexectest.Engine, s *fileStore) {
			s.user, s.inMemory = 1000, func(*os.File) (bool, error) { return false, syscall.EACCES }
		}, want: "dockerexec: task field Spec.Container.Secrets[0]: user 1000 is not root; run the executor as root, or name a folder of this user's on a tmpfs with WithSecretsDir"},
		{name: "too many files open", set: func(_ *dockerexectest.Engine, s *fileStore) {
			s.inMemory = func(*os.File) (bool, error) { return false, syscall.EMFILE }
		}, want: "too many open files", temporary: true},
		{name: "on a disk", set: func(_ *dockerexectest.Engine, s *fileStore) {
			s.inMemory = func(*os.File) (bool, error) { return false, nil }
		}, want: "dockerexec: task field Spec.Container.Secrets[0]: "},
		{name: "on a disk by the time of the write", set: func(_ *dockerexectest.Engine, s *fileStore) {
			looks := 0
			s.inMemory = func(*os.File) (bool, error) { looks++; return looks == 1, nil }
		}, want: "is not on a memory file system"},
		{name: "create refused", set: func(e *dockerexectest.Engine, _ *fileStore) {
			e.FailNext(createRequest, dockerexectest.Refuse(400, "no space left on device for the container"))
		}, want: "create container web.1.taskid: Error response from daemon: no space left on device for the container"},
		{name: "engine away at the create", set: func(e *dockerexectest.Engine, _ *fileStore) {
			e.FailNext(createRequest, dockerexectest.Drop())
		}, want: "create container web.1.taskid: ", temporary: true},
		{name: "name taken", set: func(e *dockerexectest.Engine, _ *fileStore) { e.AddContainer(taskName, nil) },
			want: "a container (STRANGER) that belongs to no task has its name"},
		{name: "name taken, engine away", set: func(e *dockerexectest.Engine, _ *fileStore) {
			e.AddContainer(taskName, nil)
			e.FailNext(inspectRequest, dockerexectest.Drop())
		}, want: "its name is taken; inspect the holder", temporary: true},
		{name: "too many CPUs, engine away", task: func(task *api.Task) {
			task.Spec.Resources = &api.ResourceRequirements{Limits: &api.Resources{NanoCPUs: 9e9}}
		}, set: func(e *dockerexectest.Engine, _ *fileStore) {
			e.FailNext(infoRequest, dockerexectest.Fault{}) // the first one is answered
			e.FailNext(infoRequest, dockerexectest.Drop())
		}, want: "ask for their number", temporary: true},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			engine, client := localEngine(t)
			store, task := newTestStore(t), ownedTask()
			if test.set != nil {
				test.set(engine, &store)
			}
			if test.task != nil {
				test.task(task)
			}
			if test.deps == nil {
				test.deps = stores()
			}
			if stranger := engine.Container(taskName); stranger != nil {
				test.want = strings.Replace(test.want, "STRANGER", stranger.ID()[:12], 1)
			}
			ctx, lines := logged(t)
			err := newFilesAdapter(t, client, store, task, test.deps).Create(ctx)
			require.ErrorContains(t, err, test.want)
			assert.Equal(t, test.temporary, exec.IsTemporary(err))
			assert.Empty(t, tree(t, store.dir))
			assert.NotContains(t, err.Error(), "payload of")
			assert.NotContains(t, strings.Join(lines(logrus.DebugLevel), "\n"), "payload of")
		})
	}
}

// The limit is capped, and the files stay in the request.
func TestFilesOfATaskWithTooManyCPUs(t *testing.T) {
	t.Parallel()
	engine, client := localEngine(t)
	store, task := newTestStore(t), ownedTask()
	task.Spec.Resources = &api.ResourceRequirements{Limits: &api.Resources{NanoCPUs: 9e9}}
	require.NoError(t, newFilesAdapter(t, client, store, task, stores()).Create(t.Context()))
	host := engine.Container(taskName).Inspect().HostConfig
	assert.Equal(t, int64(2e9), host.NanoCPUs)
	assert.Equal(t, store.dir+"/engine-1/taskid/secret.0", host.Mounts[0].Source)
	assert.Equal(t, 2, engine.Requests().Count(createRequest))
	assert.Equal(t, written, tree(t, store.dir))
}

func TestCreateThatIsCancelledLeavesNoFiles(t *testing.T) {
	t.Parallel()
	engine, client := localEngine(t)
	store := newTestStore(t)
	ctx, cancel := context.WithCancel(t.Context())
	returned := make(chan struct{})
	engine.FailNext(createRequest, dockerexectest.Call(func() {
		assert.Equal(t, written, tree(t, store.dir))
		cancel()
		<-returned
	}))
	err := newFilesAdapter(t, client, store, ownedTask(), stores()).Create(ctx)
	close(returned)
	assert.Equal(t, context.Canceled, err)
	assert.Empty(t, tree(t, store.dir))
}

// The container that the files are for may be there: made by a call whose answer
// was lost, or by another process.
func TestCreateKeepsTheFilesOfAnEarlierOne(t *testing.T) {
	t.Parallel()
	engine, client := localEngine(t)
	store := newTestStore(t)
	adapter := newFilesAdapter(t, client, store, ownedTask(), stores())
	createByHand(t, engine)
	assert.Equal(t, exec.ErrTaskPrepared, adapter.Create(t.Context()))
	assert.Equal(t, written, tree(t, store.dir))

	engine.Down()
	require.True(t, exec.IsTemporary(adapter.Create(t.Context())))
	assert.Equal(t, written, tree(t, store.dir))
}

// createByHand makes the container of plainTask, with bind mounts from these paths, as
// another program could do it.
func createByHand(t *testing.T, engine *dockerexectest.Engine, paths ...string) {
	t.Helper()
	host := &container.HostConfig{}
	for i, path := range paths {
		host.Mounts = append(host.Mounts, mount.Mount{Type: mount.TypeBind, Source: path, Target: fmt.Sprint("/mnt/", i)})
	}
	_, err := engine.Client().ContainerCreate(t.Context(), &container.Config{Image: "example/web:1", Labels: ofThisTask}, host, nil, nil, taskName)
	require.NoError(t, err)
}

// A create writes what the task has now, also over what a container removed by
// hand has left.
func TestCreateWritesAnew(t *testing.T) {
	t.Parallel()
	_, client := localEngine(t)
	store := newTestStore(t)
	old := testFile("secret.0", "of another time", 0o444)
	_, err := store.write("engine-1", "taskid", []filePayload{old})
	require.NoError(t, err)
	require.NoError(t, newFilesAdapter(t, client, store, ownedTask(), stores()).Create(t.Context()))
	assert.Equal(t, written, tree(t, store.dir))
}

// After a restart of the host a container is there and its files are not. A
// new process starts it.
func TestStartWritesMissingFiles(t *testing.T) {
	t.Parallel()
	engine, client := localEngine(t)
	store := newTestStore(t)
	require.NoError(t, newFilesAdapter(t, client, store, ownedTask(), stores()).Create(t.Context()))

	var asked []string
	deps := getters{
		secrets: secretFunc(func(id string) (*api.Secret, error) { asked = append(asked, id); return stores().secrets.Get(id) }),
		configs: configFunc(func(id string) (*api.Config, error) { asked = append(asked, id); return stores().configs.Get(id) }),
	}
	start := func() error { return newFilesAdapter(t, client, store, ownedTask(), deps).Start(t.Context()) }
	require.NoError(t, start())
	assert.Empty(t, asked, "all files are there")

	kept, err := os.Stat(filepath.Join(store.dir, "engine-1/taskid/secret.0"))
	require.NoError(t, err)
	require.NoError(t, os.Remove(filepath.Join(store.dir, "engine-1/taskid/config.0")))
	require.NoError(t, start())
	assert.Equal(t, []string{"c1"}, asked)
	assert.Equal(t, written, tree(t, store.dir))
	now, err := os.Stat(filepath.Join(store.dir, "engine-1/taskid/secret.0"))
	require.NoError(t, err)
	assert.True(t, os.SameFile(kept, now), "what is there is left alone")

	require.NoError(t, os.RemoveAll(store.dir))
	require.NoError(t, start())
	assert.Equal(t, written, tree(t, store.dir))

	// The agent is up before the managers have sent the secret.
	require.NoError(t, os.RemoveAll(store.dir))
	engine.ForgetRequests()
	late := newFilesAdapter(t, client, store, ownedTask(), getters{secrets: secretFunc(func(string) (*api.Secret, error) { return nil, nil }), configs: stores().configs})
	require.True(t, exec.IsTemporary(late.Start(t.Context())))
	assert.Zero(t, engine.Requests().Count(startRequest))
	assert.Empty(t, tree(t, store.dir))
}

func TestStartWithoutAContainerLeavesNoFiles(t *testing.T) {
	t.Parallel()
	engine, client := localEngine(t)
	store := newTestStore(t)
	for _, test := range []struct {
		fault dockerexectest.Fault
		left  []string
	}{
		{dockerexectest.Fault{}, nil},                                // the engine says that there is no such container
		{dockerexectest.Drop(), written},                             // it may run by now
		{dockerexectest.Refuse(404, "network x not found"), written}, // it is there
	} {
		engine.FailNext(startRequest, test.fault)
		err := newFilesAdapter(t, client, store, ownedTask(), stores()).Start(t.Context())
		require.ErrorContains(t, err, "start container web.1.taskid: ")
		assert.Equal(t, test.left, tree(t, store.dir), err)
		require.NoError(t, os.RemoveAll(store.dir))
	}
}

// The agent has a container of its own, and the folder of the files is not the
// host's.
func TestFilesThatTheEngineDoesNotSee(t *testing.T) {
	t.Parallel()
	engine, client := localEngine(t)
	store := newTestStore(t)
	unseen := store.dir + "/engine-1/taskid/secret.0"
	want := " container web.1.taskid: the engine does not see the files in " + store.dir + "/engine-1/taskid; if this process has a container of its own, mount the host's " +
		store.dir + " there at the same path, or name a folder that both see with WithSecretsDir: " + noSourcePath + unseen
	adapter := newFilesAdapter(t, client, store, ownedTask(), stores())
	engine.RemoveHostPath(unseen)
	err := adapter.Create(t.Context())
	require.EqualError(t, err, "create"+want)
	assert.False(t, exec.IsTemporary(err))
	assert.True(t, cerrdefs.IsInvalidArgument(err))
	assert.Empty(t, tree(t, store.dir))
	engine.FailNext(startRequest, noSource400(unseen))
	err = adapter.Start(t.Context())
	require.EqualError(t, err, "start"+want)
	assert.False(t, exec.IsTemporary(err))

	// A sweep of another process took them for left over: then a new try helps.
	engine.FailNext(createRequest, dockerexectest.Call(func() { assert.NoError(t, store.remove("engine-1", "taskid")) }))
	err = adapter.Create(t.Context())
	require.ErrorContains(t, err, "create container web.1.taskid: the files in "+store.dir+"/engine-1/taskid were removed meanwhile: ")
	assert.True(t, exec.IsTemporary(err))

	// A mount of the task's own, and the same words about a task without files.
	engine.FailAll(createRequest, noSource400("/data"))
	require.EqualError(t, adapter.Create(t.Context()), "create container web.1.taskid: "+noSourcePath+"/data")
	require.EqualError(t, newFilesAdapter(t, client, store, plainTask(), nil).Create(t.Context()), "create container web.1.taskid: "+noSourcePath+"/data")
}

// noSourcePath is what an engine says of a mount from a path that it does not have.
const noSourcePath = `Error response from daemon: invalid mount config for type "bind": bind source path does not exist: `

// noSource400 is a refusal with these words.
func noSource400(path string) dockerexectest.Fault {
	return dockerexectest.Refuse(400, strings.TrimPrefix(noSourcePath, "Error response from daemon: ")+path)
}

func TestCredentialSpecFromAConfig(t *testing.T) {
	t.Parallel()
	task := plainTask()
	spec(task).Configs = []*api.ConfigReference{{ConfigID: "c1", Target: &api.ConfigReference_Runtime{Runtime: &api.RuntimeTarget{}}}}
	spec(task).Privileges = &api.Privileges{CredentialSpec: &api.Privileges_CredentialSpec{Source: &api.Privileges_CredentialSpec_Config{Config: "c1"}}}
	engine, client := localEngine(t)
	adapter, err := NewEngine(client).Adapter(nil, task, anyPayload(`{"canary":1}`))
	require.NoError(t, err)
	require.NoError(t, adapter.Create(t.Context()))
	assert.Equal(t, []string{`credentialspec=raw://{"canary":1}`}, engine.Container(taskName).Inspect().HostConfig.SecurityOpt)
	require.NoError(t, adapter.Start(t.Context()))
	require.NoError(t, adapter.Remove(t.Context()))
	assert.Equal(t, []string{"POST /containers/create web.1.taskid", "POST /containers/ID/start", "DELETE /containers/ID"},
		asked(engine), "there is no file, so the engine is asked nothing for it")

	// An engine on Linux quotes the option.
	engine.FailNext(createRequest, dockerexectest.Refuse(400, `invalid --security-opt 2: "credentialspec=raw://{\"canary\":1}"`))
	err = adapter.Create(t.Context())
	require.EqualError(t, err, `create container web.1.taskid: Error response from daemon: invalid --security-opt 2: "credentialspec=raw://(the payload is not shown)`)
	assert.NotContains(t, fmt.Sprintf("%+v", err), "canary")
	assert.True(t, cerrdefs.IsInvalidArgument(err))
	assert.False(t, exec.IsTemporary(err))
	for e := err; e != nil; e = errors.Unwrap(e) {
		assert.NotContains(t, e.Error(), "canary")
	}
	engine.FailNext(createRequest, dockerexectest.Refuse(503, `away, with "credentialspec=raw://{\"canary\":1}"`))
	err = adapter.Create(t.Context())
	assert.True(t, exec.IsTemporary(err))
	assert.NotContains(t, fmt.Sprintf("%+v", err), "canary")

	engine.ForgetRequests()
	for name, payload := range map[string]string{"empty": "", "no text": "canary\xff"} {
		adapter, err = NewEngine(client).Adapter(nil, task, anyPayload(payload))
		require.NoError(t, err)
		require.EqualError(t, adapter.Create(t.Context()), `dockerexec: task field Spec.Container.Configs[0]: config "c1" is no credential spec (the payload is not shown)`, name)
	}
	adapter, err = NewEngine(client).Adapter(nil, task, getters{configs: configFunc(func(string) (*api.Config, error) { return nil, nil })})
	require.NoError(t, err)
	require.True(t, exec.IsTemporary(adapter.Create(t.Context())))
	assert.Empty(t, asked(engine))
}

// A container from before WithSecretsDir was changed looks for its files where
// they were.
func TestFilesInTheFolderOfBefore(t *testing.T) {
	t.Parallel()
	engine, client := localEngine(t)
	store := newTestStore(t)
	adapter := newFilesAdapter(t, client, store, ownedTask(), stores())
	start := func(unseen string) error {
		engine.FailNext(startRequest, noSource400(unseen))
		return adapter.Start(t.Context())
	}
	moved := "start container web.1.taskid: the container was made with its files in another folder than " + store.dir +
		", and they are gone there; name that folder with WithSecretsDir again, or have the task replaced: " + noSourcePath
	err := start("/run/before/engine-1/taskid/secret.0")
	require.EqualError(t, err, moved+"/run/before/engine-1/taskid/secret.0")
	assert.False(t, exec.IsTemporary(err))

	// One whose path ends as this one, and one of another task.
	alike := "/mnt" + store.dir + "/engine-1/taskid/secret.0"
	require.EqualError(t, start(alike), moved+alike)
	others := store.dir + "/engine-1/taskid2/secret.0"
	require.EqualError(t, start(others), "start container web.1.taskid: "+noSourcePath+others)
}

// A process that takes over knows nothing of what the one before it wrote.
func TestRemoveOfAnotherProcessRemovesTheFiles(t *testing.T) {
	t.Parallel()
	for name, isGone := range map[string]bool{"container there": false, "container gone": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			engine, client := localEngine(t)
			store := newTestStore(t)
			require.NoError(t, newFilesAdapter(t, client, store, ownedTask(), stores()).Create(t.Context()))
			if isGone {
				engine.Container(taskName).RemoveByHand()
			}
			require.NoError(t, newFilesAdapter(t, client, store, ownedTask(), stores()).Remove(t.Context()))
			assert.Empty(t, engine.Containers())
			assert.Empty(t, tree(t, store.dir))
		})
	}
}

func TestRemoveKeepsTheFilesOfWhatIsNotRemoved(t *testing.T) {
	t.Parallel()
	engine, client := localEngine(t)
	store := newTestStore(t)
	adapter := newFilesAdapter(t, client, store, ownedTask(), stores())
	require.NoError(t, adapter.Create(t.Context()))
	engine.Down()
	require.True(t, exec.IsTemporary(adapter.Remove(t.Context())))
	assert.Equal(t, written, tree(t, store.dir))
	engine.Up()
	require.NoError(t, adapter.Remove(t.Context()))
	assert.Empty(t, tree(t, store.dir))
}

// The files go, whatever ID the engine has by now: it is not asked for it.
func TestRemoveFindsFilesUnderEachID(t *testing.T) {
	t.Parallel()
	engine, client := localEngine(t)
	store := newTestStore(t)
	require.NoError(t, newFilesAdapter(t, client, store, ownedTask(), stores()).Create(t.Context()))
	_, err := store.write("B77S:VOG2", "taskid", []filePayload{testFile("secret.0", "older", 0o400)})
	require.NoError(t, err)
	_, err = store.write("engine-1", "other", []filePayload{testFile("secret.0", "other", 0o400)})
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(store.dir, "taskid"), nil, 0o600))
	require.NoError(t, os.Symlink("engine-1", filepath.Join(store.dir, "link")))
	engine.ForgetRequests()
	require.NoError(t, newFilesAdapter(t, client, store, ownedTask(), stores()).Remove(t.Context()))
	assert.Equal(t, []string{"engine-1 drwx------", "engine-1/other drwx------", "engine-1/other/secret.0 -r-------- other",
		"link Lrwxrwxrwx", "taskid -rw------- "}, tree(t, store.dir))
	assert.Equal(t, []string{"DELETE /containers/web.1.taskid"}, asked(engine))
}

// The directory on this host has nothing of an engine elsewhere. It may not even be
// readable.
func TestRemoveOfATaskOnAnotherHostLooksAtNoFiles(t *testing.T) {
	t.Parallel()
	engine, client := localEngine(t)
	store := newTestStore(t)
	require.NoError(t, os.MkdirAll(filepath.Dir(store.dir), 0o700))
	require.NoError(t, os.WriteFile(store.dir, nil, 0o600))
	require.EqualError(t, newFilesAdapter(t, client, store, ownedTask(), stores()).Remove(t.Context()),
		"remove the files of secrets and configs of task taskid in "+store.dir+": "+store.dir+" is no folder, or a link to one")
	elsewhere := engine.Client(engineapi.WithHost("tcp://10.0.0.1:2376"))
	require.NoError(t, newFilesAdapter(t, elsewhere, store, ownedTask(), stores()).Remove(t.Context()))
}

// A container knows where it mounts its files, whatever ID the engine has by now.
func TestFilesAreWhereTheContainerMountsThem(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		source func(dir string) string // of a secret
		take   func(context.Context, *ContainerAdapter) error
		under  string
	}{
		"inspect": {func(dir string) string { return dir + "/engine-1/taskid/secret.0" },
			func(ctx context.Context, a *ContainerAdapter) error { _, err := a.Inspect(ctx); return err }, "engine-1"},
		"create": {func(dir string) string { return dir + "/engine-1/taskid/secret.0" },
			func(ctx context.Context, a *ContainerAdapter) error {
				if err := a.Create(ctx); err != exec.ErrTaskPrepared {
					return err
				}
				return nil
			}, "engine-1"},
		"another directory": {func(string) string { return "/run/before/engine-1/taskid/secret.0" },
			func(ctx context.Context, a *ContainerAdapter) error { _, err := a.Inspect(ctx); return err }, "engine-2"},
		"another task": {func(dir string) string { return dir + "/engine-1/other/secret.0" },
			func(ctx context.Context, a *ContainerAdapter) error { _, err := a.Inspect(ctx); return err }, "engine-2"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			engine, client := localEngine(t)
			store := newTestStore(t) // the host has been restarted: nothing is there
			sayID(engine, "engine-2")
			createByHand(t, engine, "/data", test.source(store.dir))
			adapter := newFilesAdapter(t, client, store, ownedTask(), stores())
			require.NoError(t, test.take(t.Context(), adapter))
			require.NoError(t, adapter.Start(t.Context()))
			assert.Contains(t, tree(t, store.dir), test.under+"/taskid/secret.0 -r-------- payload of s1")
			assert.Contains(t, tree(t, store.dir), test.under+"/taskid/engine -r-------- unix:///run/docker.sock host-1")

			// What the engine says of them is about that folder.
			engine.Container(taskName).RemoveByHand()
			createByHand(t, engine, "/data", test.source(store.dir))
			engine.FailNext(startRequest, noSource400(store.dir+"/"+test.under+"/taskid/secret.0"))
			require.ErrorContains(t, adapter.Start(t.Context()), "the engine does not see the files in "+store.dir+"/"+test.under+"/taskid; ")

			require.NoError(t, adapter.Remove(t.Context()))
			assert.Empty(t, tree(t, store.dir))
		})
	}
}

// A stranger has the name of the task's container; the task's files are its own.
func TestRemoveBesideAStrangersContainer(t *testing.T) {
	t.Parallel()
	engine, client := localEngine(t)
	store := newTestStore(t)
	adapter := newFilesAdapter(t, client, store, ownedTask(), stores())
	require.NoError(t, adapter.Create(t.Context()))
	engine.Container(taskName).RemoveByHand()
	engine.AddContainer(taskName, nil)
	require.Error(t, adapter.Create(t.Context()))
	assert.Equal(t, written, tree(t, store.dir))
	require.NoError(t, adapter.Remove(t.Context()))
	assert.Zero(t, engine.Requests().Count(removeRequest))
	assert.Empty(t, tree(t, store.dir))
}

// A controller that finds no container, or a stranger's, removes the files too.
func TestControllerRemovesFilesWithoutAContainer(t *testing.T) {
	t.Parallel()
	for name, isTaken := range map[string]bool{"no container": false, "a stranger's container": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			engine, client := localEngine(t)
			store := newTestStore(t)
			if isTaken {
				engine.AddContainer(taskName, map[string]string{LabelTaskID: "other"})
			}
			_, err := store.write("engine-1", "taskid", []filePayload{testFile("secret.0", "a", 0o400)})
			require.NoError(t, err)
			ctlr := newController(newFilesAdapter(t, client, store, ownedTask(), stores()), api.TaskStateRunning)
			require.NoError(t, ctlr.Remove(t.Context()))
			assert.Zero(t, engine.Requests().Count(infoRequest))
			assert.Zero(t, engine.Requests().Count(removeRequest))
			assert.Empty(t, tree(t, store.dir))
		})
	}
}

// Engines whose tasks cannot have files. Nothing is written, and a Remove is
// nothing to do.
func TestFilesOnEnginesThatCannotHaveThem(t *testing.T) {
	t.Parallel()
	const before = "dockerexec: task field Spec.Container.Secrets[0]: "
	for _, test := range []struct {
		name    string
		address string
		info    string // what the engine says of itself
		want    string
	}{
		{name: "on another host", address: "tcp://user:canary@10.0.0.1:2376",
			want: "the engine at tcp://10.0.0.1:2376 is on another host, and an engine's API has no way to hand it a file that stays in memory; run the executor on the engine's host"},
		{name: "rootless", info: `{"ID": "engine-1", "SecurityOptions": ["name=seccomp,profile=default", "name=rootless", "name=cgroupns"]}`,
			want: "the engine is rootless, and runs beside other mounts and users than those of this host"},
		{name: "remapped users", info: `{"ID": "engine-1", "SecurityOptions": ["name=userns"]}`,
			want: "the engine maps the users of containers to others (userns-remap): a file would have another owner inside"},
		{name: "SELinux", info: `{"ID": "engine-1", "SecurityOptions": ["name=selinux"]}`,
			want: "the engine labels containers (SELinux), and would keep them from reading a file that it has not labelled"},
		{name: "no ID", info: `{}`, want: "the engine has no ID that could name the folder of its files"},
		{name: "odd ID", info: `{"ID": "../etc"}`, want: "the engine has no ID that could name the folder of its files"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			engine, client := localEngine(t)
			store, want := newTestStore(t), []string{"GET /info", "DELETE /containers/web.1.taskid", "GET /containers/json"}
			if test.address != "" {
				client, want = engine.Client(engineapi.WithHost(test.address)), want[1:]
			} else {
				engine.FailNext(infoRequest, dockerexectest.Answer(200, test.info))
			}
			require.NoError(t, os.MkdirAll(store.dir, 0o700))
			adapter := newFilesAdapter(t, client, store, ownedTask(), stores())
			require.EqualError(t, adapter.CreateNetworks(t.Context()), before+test.want)
			require.EqualError(t, adapter.CreateVolumes(t.Context()), before+test.want)
			for range 2 {
				err := adapter.Create(t.Context())
				require.EqualError(t, err, before+test.want)
				assert.False(t, exec.IsTemporary(err))
				require.EqualError(t, adapter.Start(t.Context()), before+test.want)
			}
			require.NoError(t, adapter.Remove(t.Context()))
			assert.Equal(t, want, asked(engine))
			assert.Empty(t, tree(t, store.dir))
		})
	}
}

// 20.10's IDs have colons.
func TestFilesOfAnEngineIDWithColons(t *testing.T) {
	t.Parallel()
	engine, client := localEngine(t)
	store := newTestStore(t)
	sayID(engine, "B77S:VOG2")
	require.NoError(t, newFilesAdapter(t, client, store, ownedTask(), stores()).Create(t.Context()))
	assert.Contains(t, tree(t, store.dir), "B77S:VOG2/taskid drwx------")
}

// sayID has the engine say that it has another ID.
func sayID(engine *dockerexectest.Engine, id string) {
	engine.FailAll(infoRequest, dockerexectest.Answer(200, fmt.Sprintf(`{"ID": %q, "Name": "host-1"}`, id)))
}

func TestOnThisHost(t *testing.T) {
	t.Parallel()
	for address, want := range map[string]bool{
		"unix:///run/docker.sock": true, "npipe:////./pipe/docker_engine": true, "unix://@abstract": true,
		"tcp://localhost:2375": true, "tcp://127.0.0.1:2375": true, "http://127.1.2.3": true, "https://[::1]:2376": true,
		"tcp://10.0.0.1:2375": false, "http://docker.example.com": false, "tcp://[fd00::1]:2375": false, "tcp://localhost.example.com:1": false,
		"ssh://localhost": false, "": false, "fd://": false, "tcp://[": false,
	} {
		assert.Equal(t, want, onThisHost(address), address)
	}
}

// One asks the engine; the others wait for it, each as long as its context lasts.
func TestFirstTasksWithFilesAtOnce(t *testing.T) {
	t.Parallel()
	store := newTestStore(t)
	synctest.Test(t, func(t *testing.T) {
		host, client := localEngine(t)
		host.FailAll(infoRequest, dockerexectest.Slow(time.Minute))
		engine := newFilesEngine(t, client, store)
		var all sync.WaitGroup
		for i := range 20 {
			all.Go(func() {
				task := ownedTask()
				task.ID = fmt.Sprint("task", i)
				adapter, err := engine.Adapter(nil, task, stores())
				if !assert.NoError(t, err) {
					return
				}
				ctx, cancel := t.Context(), context.CancelFunc(func() {})
				if i == 19 {
					time.Sleep(time.Second) // so that another one asks
					ctx, cancel = context.WithTimeout(ctx, time.Second)
				}
				defer cancel()
				begin := time.Now()
				err = adapter.Create(ctx)
				if i == 19 {
					assert.Equal(t, context.DeadlineExceeded, err)
					assert.Equal(t, time.Second, time.Since(begin))
					return
				}
				assert.NoError(t, err)
				assert.NoError(t, adapter.Start(ctx))
				assert.NoError(t, adapter.Remove(ctx))
			})
		}
		all.Wait()
		assert.Equal(t, 1, host.Requests().Count(infoRequest))
		assert.Len(t, asked(host), 1+19*3)
		assert.Empty(t, tree(t, store.dir))
	})
}

// Nor do the others take their time-outs one after the other.
func TestTasksBehindAnEngineThatNeverTellsAreBounded(t *testing.T) {
	t.Parallel()
	store := newTestStore(t)
	synctest.Test(t, func(t *testing.T) {
		host, client := localEngine(t)
		host.FailAll(infoRequest, dockerexectest.Slow(time.Hour))
		engine := newFilesEngine(t, client, store)
		engine.options.requestTimeout = time.Minute
		begin := time.Now()
		var all sync.WaitGroup
		for n := range 100 {
			all.Go(func() {
				time.Sleep(time.Duration(n) * time.Millisecond)
				task := ownedTask()
				task.ID = fmt.Sprint("task", n)
				adapter, err := engine.Adapter(nil, task, stores())
				if !assert.NoError(t, err) {
					return
				}
				err = adapter.Create(t.Context())
				assert.True(t, exec.IsTemporary(err), err)
				assert.ErrorContains(t, err, "secrets and configs: ")
				assert.ErrorContains(t, err, "the engine did not answer within 1m0s")
			})
		}
		all.Wait()
		assert.LessOrEqual(t, time.Since(begin), 2*time.Minute+time.Second)
	})
}
