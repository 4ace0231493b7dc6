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
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/api/types/system"
	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/moby/swarmkit/v2/api"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestFilesLiveWithTheContainer(t *testing.T) {
	t.Parallel()
	client, store := newFilesClient(t), newTestStore(t)
	var mounts []mount.Mount
	var seen, atRemoval []string
	client.containerCreate = func(_ context.Context, _ *container.Config, host *container.HostConfig, _ *network.NetworkingConfig, _ *ocispec.Platform, _ string) (container.CreateResponse, error) {
		mounts, seen = host.Mounts, tree(t, store.dir)
		return container.CreateResponse{ID: "c0"}, nil
	}
	client.containerRemove = func(context.Context, string, container.RemoveOptions) error {
		atRemoval = tree(t, store.dir)
		return nil
	}
	engine := newFilesEngine(t, client, store)
	adapter, err := engine.Adapter(nil, ownedTask(), stores())
	require.NoError(t, err)
	assert.Empty(t, client.called())
	require.NoError(t, adapter.Create(t.Context()))
	assert.Equal(t, written, seen, "they are there before their container")
	assert.Equal(t, []mount.Mount{
		{Type: "bind", Source: store.dir + "/engine-1/taskid/secret.0", Target: "/run/secrets/password", ReadOnly: true},
		{Type: "bind", Source: store.dir + "/engine-1/taskid/config.0", Target: "/etc/web.conf", ReadOnly: true},
	}, mounts)
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
		"Info ", "ContainerCreate web.1.taskid", "ContainerStart web.1.taskid", "ContainerRemove web.1.taskid", "ContainerRemove web.1.taskid",
		"ContainerCreate web.1.second", "ContainerRemove web.1.second",
	}, client.called())
}

// Each step may fail, and what this call has written goes.
func TestCreateThatFailsLeavesNoFiles(t *testing.T) {
	t.Parallel()
	refusal := answer{"no space left on device for the container", cerrdefs.ErrInvalidArgument}
	stranger := inspected("c9", container.StateRunning, nil)
	for _, test := range []struct {
		name      string
		task      func(*api.Task)
		set       func(*filesClient, *fileStore)
		deps      exec.DependencyGetter
		want      string
		temporary bool
	}{
		{name: "secret not there yet", deps: getters{secrets: secretFunc(func(string) (*api.Secret, error) { return nil, nil }), configs: stores().configs},
			want: `secret "name-of-s1" (s1) is not there yet: the getter of secrets does not have s1`, temporary: true},
		{name: "config not there yet", deps: getters{secrets: stores().secrets, configs: configFunc(func(string) (*api.Config, error) { return nil, nil })},
			want: `config "name-of-c1" (c1) is not there yet: the getter of configs does not have c1`, temporary: true},
		{name: "engine away", set: func(c *filesClient, _ *fileStore) {
			c.info = func(context.Context) (system.Info, error) { return system.Info{}, errAway }
		}, want: "secrets and configs: engine information (GET /info): ", temporary: true},
		{name: "information refused", set: func(c *filesClient, _ *fileStore) {
			c.info = func(context.Context) (system.Info, error) {
				return system.Info{}, answer{"no", cerrdefs.ErrPermissionDenied}
			}
		}, want: "secrets and configs: engine information (GET /info): Error response from daemon: no"},
		{name: "owner", set: func(_ *filesClient, s *fileStore) {
			s.chown = func(*os.File, int, int) error { return syscall.EPERM }
		}, want: `secret "name-of-s1" (s1): operation not permitted`},
		{name: "no rights", set: func(_ *filesClient, s *fileStore) {
			s.user, s.inMemory = 1000, func(*os.File) (bool, error) { return false, syscall.EACCES }
		}, want: "dockerexec: task field Spec.Container.Secrets[0]: user 1000 is not root; run the executor as root, or name a folder of this user's on a tmpfs with WithSecretsDir"},
		{name: "too many files open", set: func(_ *filesClient, s *fileStore) {
			s.inMemory = func(*os.File) (bool, error) { return false, syscall.EMFILE }
		}, want: "too many open files", temporary: true},
		{name: "on a disk", set: func(_ *filesClient, s *fileStore) {
			s.inMemory = func(*os.File) (bool, error) { return false, nil }
		}, want: "dockerexec: task field Spec.Container.Secrets[0]: "},
		{name: "on a disk by the time of the write", set: func(_ *filesClient, s *fileStore) {
			looks := 0
			s.inMemory = func(*os.File) (bool, error) { looks++; return looks == 1, nil }
		}, want: "is not on a memory file system"},
		{name: "create refused", set: func(c *filesClient, _ *fileStore) { c.creating(refusal) },
			want: "create container web.1.taskid: " + refusal.Error()},
		{name: "engine away at the create", set: func(c *filesClient, _ *fileStore) { c.creating(errAway) },
			want: "create container web.1.taskid: ", temporary: true},
		{name: "name taken", set: func(c *filesClient, _ *fileStore) {
			c.creating(nameTaken)
			c.inspecting(stranger, nil)
		}, want: "a container (c9) that belongs to no task has its name"},
		{name: "name taken, engine away", set: func(c *filesClient, _ *fileStore) {
			c.creating(nameTaken)
			c.inspecting(container.InspectResponse{}, errAway)
		}, want: "its name is taken; inspect the holder", temporary: true},
		{name: "too many CPUs, engine away", task: func(task *api.Task) {
			task.Spec.Resources = &api.ResourceRequirements{Limits: &api.Resources{NanoCPUs: 9e9}}
		}, set: func(c *filesClient, _ *fileStore) {
			c.creating(answer{"range of CPUs is from 0.01 to 2.00, as there are only 2 CPUs available", cerrdefs.ErrInvalidArgument})
			first := true
			c.info = func(context.Context) (system.Info, error) {
				if first {
					first = false
					return system.Info{ID: "engine-1", Name: "host-1"}, nil
				}
				return system.Info{}, errAway
			}
		}, want: "ask for their number", temporary: true},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			client, store, task := newFilesClient(t), newTestStore(t), ownedTask()
			if test.set != nil {
				test.set(client, &store)
			}
			if test.task != nil {
				test.task(task)
			}
			if test.deps == nil {
				test.deps = stores()
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
	client, store, task := newFilesClient(t), newTestStore(t), ownedTask()
	task.Spec.Resources = &api.ResourceRequirements{Limits: &api.Resources{NanoCPUs: 9e9}}
	client.info = func(context.Context) (system.Info, error) {
		return system.Info{ID: "engine-1", Name: "host-1", NCPU: 2}, nil
	}
	client.containerCreate = func(_ context.Context, _ *container.Config, host *container.HostConfig, _ *network.NetworkingConfig, _ *ocispec.Platform, _ string) (container.CreateResponse, error) {
		assert.Equal(t, store.dir+"/engine-1/taskid/secret.0", host.Mounts[0].Source)
		if host.NanoCPUs > 2e9 {
			return container.CreateResponse{}, answer{"range of CPUs is from 0.01 to 2.00, as there are only 2 CPUs available", cerrdefs.ErrInvalidArgument}
		}
		return container.CreateResponse{ID: "c0"}, nil
	}
	require.NoError(t, newFilesAdapter(t, client, store, task, stores()).Create(t.Context()))
	assert.Equal(t, written, tree(t, store.dir))
}

func TestCreateThatIsCancelledLeavesNoFiles(t *testing.T) {
	t.Parallel()
	client, store := newFilesClient(t), newTestStore(t)
	ctx, cancel := context.WithCancel(t.Context())
	client.containerCreate = func(ctx context.Context, _ *container.Config, _ *container.HostConfig, _ *network.NetworkingConfig, _ *ocispec.Platform, _ string) (container.CreateResponse, error) {
		assert.Equal(t, written, tree(t, store.dir))
		cancel()
		return container.CreateResponse{}, ctx.Err()
	}
	assert.Equal(t, context.Canceled, newFilesAdapter(t, client, store, ownedTask(), stores()).Create(ctx))
	assert.Empty(t, tree(t, store.dir))
}

// The container that the files are for may be there: made by a call whose answer
// was lost, or by another process.
func TestCreateKeepsTheFilesOfAnEarlierOne(t *testing.T) {
	t.Parallel()
	client, store := newFilesClient(t), newTestStore(t)
	adapter := newFilesAdapter(t, client, store, ownedTask(), stores())
	client.creating(nameTaken)
	client.inspecting(inspected("c0", container.StateCreated, ofThisTask), nil)
	assert.Equal(t, exec.ErrTaskPrepared, adapter.Create(t.Context()))
	assert.Equal(t, written, tree(t, store.dir))

	client.creating(errAway)
	require.True(t, exec.IsTemporary(adapter.Create(t.Context())))
	assert.Equal(t, written, tree(t, store.dir))
}

// A create writes what the task has now, also over what a container removed by
// hand has left.
func TestCreateWritesAnew(t *testing.T) {
	t.Parallel()
	client, store := newFilesClient(t), newTestStore(t)
	old := testFile("secret.0", "of another time", 0o444)
	_, err := store.write("engine-1", "taskid", []filePayload{old})
	require.NoError(t, err)
	client.containerList = func(context.Context, container.ListOptions) ([]container.Summary, error) {
		return []container.Summary{{Labels: ofThisTask}}, nil
	}
	require.NoError(t, newFilesAdapter(t, client, store, ownedTask(), stores()).Create(t.Context()))
	assert.Equal(t, written, tree(t, store.dir))
}

// After a restart of the host a container is there and its files are not. A
// new process starts it.
func TestStartWritesMissingFiles(t *testing.T) {
	t.Parallel()
	client, store := newFilesClient(t), newTestStore(t)
	require.NoError(t, newFilesAdapter(t, client, store, ownedTask(), stores()).Create(t.Context()))
	client.containerList = func(context.Context, container.ListOptions) ([]container.Summary, error) {
		return []container.Summary{{Labels: ofThisTask}}, nil
	}

	var asked []string
	deps := getters{
		secrets: secretFunc(func(id string) (*api.Secret, error) { asked = append(asked, id); return stores().secrets.Get(id) }),
		configs: configFunc(func(id string) (*api.Config, error) { asked = append(asked, id); return stores().configs.Get(id) }),
	}
	adapter := newFilesAdapter(t, client, store, ownedTask(), deps)
	require.NoError(t, adapter.Start(t.Context()))
	assert.Empty(t, asked, "all files are there")

	kept, err := os.Stat(filepath.Join(store.dir, "engine-1/taskid/secret.0"))
	require.NoError(t, err)
	require.NoError(t, os.Remove(filepath.Join(store.dir, "engine-1/taskid/config.0")))
	running(client.fakeClient, container.StateCreated) // somebody made it anew
	require.NoError(t, adapter.Start(t.Context()))
	assert.Equal(t, []string{"c1"}, asked)
	assert.Equal(t, written, tree(t, store.dir))
	now, err := os.Stat(filepath.Join(store.dir, "engine-1/taskid/secret.0"))
	require.NoError(t, err)
	assert.True(t, os.SameFile(kept, now), "what is there is left alone")

	require.NoError(t, os.RemoveAll(store.dir))
	require.NoError(t, adapter.Start(t.Context()))
	assert.Equal(t, written, tree(t, store.dir))

	// The agent is up before the managers have sent the secret.
	require.NoError(t, os.RemoveAll(store.dir))
	client.containerStart = nil // is not called
	late := newFilesAdapter(t, client, store, ownedTask(), getters{secrets: secretFunc(func(string) (*api.Secret, error) { return nil, nil }), configs: stores().configs})
	require.True(t, exec.IsTemporary(late.Start(t.Context())))
	assert.Empty(t, tree(t, store.dir))
}

func TestStartWithoutAContainerLeavesNoFiles(t *testing.T) {
	t.Parallel()
	client, store := newFilesClient(t), newTestStore(t)
	for _, test := range []struct {
		err  error
		left []string
	}{
		{answer{"No such container: web.1.taskid", cerrdefs.ErrNotFound}, nil},
		{errAway, written}, // it may run by now
		{answer{"network x not found", cerrdefs.ErrNotFound}, written}, // it is there
	} {
		client.containerStart = func(context.Context, string, container.StartOptions) error { return test.err }
		err := newFilesAdapter(t, client, store, ownedTask(), stores()).Start(t.Context())
		require.ErrorContains(t, err, "start container web.1.taskid: ")
		assert.Equal(t, test.left, tree(t, store.dir), test.err)
		require.NoError(t, os.RemoveAll(store.dir))
	}
}

// The agent has a container of its own, and the folder of the files is not the
// host's.
func TestFilesThatTheEngineDoesNotSee(t *testing.T) {
	t.Parallel()
	client, store := newFilesClient(t), newTestStore(t)
	unseen := answer{`invalid mount config for type "bind": bind source path does not exist: ` + store.dir + "/engine-1/taskid/secret.0", cerrdefs.ErrInvalidArgument}
	want := " container web.1.taskid: the engine does not see the files in " + store.dir + "/engine-1/taskid; if this process has a container of its own, mount the host's " +
		store.dir + " there at the same path, or name a folder that both see with WithSecretsDir: " + unseen.Error()
	client.creating(unseen)
	client.containerStart = func(context.Context, string, container.StartOptions) error { return unseen }
	adapter := newFilesAdapter(t, client, store, ownedTask(), stores())
	err := adapter.Create(t.Context())
	require.EqualError(t, err, "create"+want)
	assert.False(t, exec.IsTemporary(err))
	assert.True(t, cerrdefs.IsInvalidArgument(err))
	assert.Empty(t, tree(t, store.dir))
	err = adapter.Start(t.Context())
	require.EqualError(t, err, "start"+want)
	assert.False(t, exec.IsTemporary(err))

	// A sweep of another process took them for left over: then a new try helps.
	client.containerCreate = func(context.Context, *container.Config, *container.HostConfig, *network.NetworkingConfig, *ocispec.Platform, string) (container.CreateResponse, error) {
		require.NoError(t, store.remove("engine-1", "taskid"))
		return container.CreateResponse{}, unseen
	}
	err = adapter.Create(t.Context())
	require.ErrorContains(t, err, "create container web.1.taskid: the files in "+store.dir+"/engine-1/taskid were removed meanwhile: ")
	assert.True(t, exec.IsTemporary(err))

	// A mount of the task's own, and the same words about a task without files.
	other := answer{`invalid mount config for type "bind": bind source path does not exist: /data`, cerrdefs.ErrInvalidArgument}
	client.creating(other)
	require.EqualError(t, adapter.Create(t.Context()), "create container web.1.taskid: "+other.Error())
	require.EqualError(t, newFilesAdapter(t, client, store, plainTask(), nil).Create(t.Context()), "create container web.1.taskid: "+other.Error())
}

func TestCredentialSpecFromAConfig(t *testing.T) {
	t.Parallel()
	task := plainTask()
	spec(task).Configs = []*api.ConfigReference{{ConfigID: "c1", Target: &api.ConfigReference_Runtime{Runtime: &api.RuntimeTarget{}}}}
	spec(task).Privileges = &api.Privileges{CredentialSpec: &api.Privileges_CredentialSpec{Source: &api.Privileges_CredentialSpec_Config{Config: "c1"}}}
	client := newFakeClient(t) // there is no file, so nothing is asked of the engine
	var options []string
	client.containerCreate = func(_ context.Context, _ *container.Config, host *container.HostConfig, _ *network.NetworkingConfig, _ *ocispec.Platform, _ string) (container.CreateResponse, error) {
		options = host.SecurityOpt
		return container.CreateResponse{ID: "c0"}, nil
	}
	client.containerStart = func(context.Context, string, container.StartOptions) error { return nil }
	client.containerRemove = func(context.Context, string, container.RemoveOptions) error { return nil }
	adapter, err := NewEngine(client).Adapter(nil, task, anyPayload(`{"canary":1}`))
	require.NoError(t, err)
	require.NoError(t, adapter.Create(t.Context()))
	assert.Equal(t, []string{`credentialspec=raw://{"canary":1}`}, options)
	require.NoError(t, adapter.Start(t.Context()))
	require.NoError(t, adapter.Remove(t.Context()))

	// An engine on Linux quotes the option.
	client.creating(answer{`invalid --security-opt 2: "credentialspec=raw://{\"canary\":1}"`, cerrdefs.ErrInvalidArgument})
	err = adapter.Create(t.Context())
	require.EqualError(t, err, `create container web.1.taskid: Error response from daemon: invalid --security-opt 2: "credentialspec=raw://(the payload is not shown)`)
	assert.NotContains(t, fmt.Sprintf("%+v", err), "canary")
	assert.True(t, cerrdefs.IsInvalidArgument(err))
	assert.False(t, exec.IsTemporary(err))
	for e := err; e != nil; e = errors.Unwrap(e) {
		assert.NotContains(t, e.Error(), "canary")
	}
	client.creating(answer{`away, with "credentialspec=raw://{\"canary\":1}"`, cerrdefs.ErrUnavailable})
	err = adapter.Create(t.Context())
	assert.True(t, exec.IsTemporary(err))
	assert.NotContains(t, fmt.Sprintf("%+v", err), "canary")

	for name, payload := range map[string]string{"empty": "", "no text": "canary\xff"} {
		adapter, err = NewEngine(newFakeClient(t)).Adapter(nil, task, anyPayload(payload))
		require.NoError(t, err)
		require.EqualError(t, adapter.Create(t.Context()), `dockerexec: task field Spec.Container.Configs[0]: config "c1" is no credential spec (the payload is not shown)`, name)
	}
	adapter, err = NewEngine(newFakeClient(t)).Adapter(nil, task, getters{configs: configFunc(func(string) (*api.Config, error) { return nil, nil })})
	require.NoError(t, err)
	require.True(t, exec.IsTemporary(adapter.Create(t.Context())))
}

// A container from before WithSecretsDir was changed looks for its files where
// they were.
func TestFilesInTheFolderOfBefore(t *testing.T) {
	t.Parallel()
	client, store := newFilesClient(t), newTestStore(t)
	unseen := answer{`invalid mount config for type "bind": bind source path does not exist: /run/before/engine-1/taskid/secret.0`, cerrdefs.ErrInvalidArgument}
	client.containerStart = func(context.Context, string, container.StartOptions) error { return unseen }
	adapter := newFilesAdapter(t, client, store, ownedTask(), stores())
	err := adapter.Start(t.Context())
	require.EqualError(t, err, "start container web.1.taskid: the container was made with its files in another folder than "+store.dir+
		", and they are gone there; name that folder with WithSecretsDir again, or have the task replaced: "+unseen.Error())
	assert.False(t, exec.IsTemporary(err))

	// One whose path ends as this one, and one of another task.
	unseen.text = "bind source path does not exist: /mnt" + store.dir + "/engine-1/taskid/secret.0"
	err = adapter.Start(t.Context())
	require.ErrorContains(t, err, ": the container was made with its files in another folder than "+store.dir+", ")
	unseen.text = "bind source path does not exist: " + store.dir + "/engine-1/taskid2/secret.0"
	err = adapter.Start(t.Context())
	require.EqualError(t, err, "start container web.1.taskid: "+unseen.Error())
}

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

// The files go although the engine, or its ID, has gone since.
func TestRemoveFindsFilesUnderEachID(t *testing.T) {
	t.Parallel()
	again := 0
	for name, info := range map[string]func(context.Context) (system.Info, error){
		"same ID":    func(context.Context) (system.Info, error) { return system.Info{ID: "engine-1"}, nil },
		"another ID": func(context.Context) (system.Info, error) { return system.Info{ID: "engine-2"}, nil },
		"no ID":      func(context.Context) (system.Info, error) { return system.Info{}, nil },
		"a new one each time": func(context.Context) (system.Info, error) {
			again++
			return system.Info{ID: fmt.Sprint("engine-", again)}, nil
		},
		"engine away": func(context.Context) (system.Info, error) { return system.Info{}, errAway },
		"not told": func(context.Context) (system.Info, error) {
			return system.Info{}, answer{"no", cerrdefs.ErrPermissionDenied}
		},
	} {
		t.Run(name, func(t *testing.T) {
			client, store := newFilesClient(t), newTestStore(t)
			require.NoError(t, newFilesAdapter(t, client, store, ownedTask(), stores()).Create(t.Context()))
			_, err := store.write("B77S:VOG2", "taskid", []filePayload{testFile("secret.0", "older", 0o400)})
			require.NoError(t, err)
			_, err = store.write("engine-1", "other", []filePayload{testFile("secret.0", "other", 0o400)})
			require.NoError(t, err)
			require.NoError(t, os.WriteFile(filepath.Join(store.dir, "taskid"), nil, 0o600))
			require.NoError(t, os.Symlink("engine-1", filepath.Join(store.dir, "link")))
			client.info = info
			require.NoError(t, newFilesAdapter(t, client, store, ownedTask(), stores()).Remove(t.Context()))
			assert.Equal(t, []string{"engine-1 drwx------", "engine-1/other drwx------", "engine-1/other/secret.0 -r-------- other",
				"link Lrwxrwxrwx", "taskid -rw------- "}, tree(t, store.dir))
			assert.Equal(t, []string{"Info ", "ContainerCreate web.1.taskid", "ContainerRemove web.1.taskid"}, client.called())
		})
	}
}

// The directory on this host has nothing of an engine elsewhere. It may not even be
// readable.
func TestRemoveOfATaskOnAnotherHostLooksAtNoFiles(t *testing.T) {
	t.Parallel()
	client, store := newFilesClient(t), newTestStore(t)
	require.NoError(t, os.MkdirAll(filepath.Dir(store.dir), 0o700))
	require.NoError(t, os.WriteFile(store.dir, nil, 0o600))
	require.EqualError(t, newFilesAdapter(t, client, store, ownedTask(), stores()).Remove(t.Context()),
		"remove the files of secrets and configs of task taskid in "+store.dir+": "+store.dir+" is no folder, or a link to one")
	client.address = "tcp://10.0.0.1:2376"
	require.NoError(t, newFilesAdapter(t, client, store, ownedTask(), stores()).Remove(t.Context()))
}

// A container knows where it mounts its files, whatever ID the engine has by now.
func TestFilesAreWhereTheContainerMountsThem(t *testing.T) {
	t.Parallel()
	mounting := func(source string) container.InspectResponse {
		answer := inspected("c0", container.StateCreated, ofThisTask)
		answer.Mounts = []container.MountPoint{{Source: "/data"}, {Source: source}}
		return answer
	}
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
			client, store := newFilesClient(t), newTestStore(t) // the host has been restarted: nothing is there
			client.isEngine("engine-2")
			client.creating(nameTaken)
			client.inspecting(mounting(test.source(store.dir)), nil)
			adapter := newFilesAdapter(t, client, store, ownedTask(), stores())
			require.NoError(t, test.take(t.Context(), adapter))
			require.NoError(t, adapter.Start(t.Context()))
			assert.Contains(t, tree(t, store.dir), test.under+"/taskid/secret.0 -r-------- payload of s1")
			assert.Contains(t, tree(t, store.dir), test.under+"/taskid/engine -r-------- unix:///run/docker.sock host-1")

			// What the engine says of them is about that folder.
			unseen := answer{`invalid mount config for type "bind": bind source path does not exist: ` + store.dir + "/" + test.under + "/taskid/secret.0", cerrdefs.ErrInvalidArgument}
			client.containerStart = func(context.Context, string, container.StartOptions) error { return unseen }
			require.ErrorContains(t, adapter.Start(t.Context()), "the engine does not see the files in "+store.dir+"/"+test.under+"/taskid; ")

			require.NoError(t, adapter.Remove(t.Context()))
			assert.Empty(t, tree(t, store.dir))
		})
	}
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
			client.info, client.containerRemove = nil, nil // are not called
			ctlr := newController(newFilesAdapter(t, client, store, ownedTask(), stores()), api.TaskStateRunning)
			require.NoError(t, ctlr.Remove(t.Context()))
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
		name  string
		set   func(*filesClient)
		want  string
		calls []string
	}{
		{name: "on another host", set: func(c *filesClient) { c.address = "tcp://user:canary@10.0.0.1:2376" },
			want: "the engine at tcp://10.0.0.1:2376 is on another host, and an engine's API has no way to hand it a file that stays in memory; run the executor on the engine's host"},
		{name: "rootless", set: withSecurity("name=seccomp,profile=default", "name=rootless", "name=cgroupns"), calls: []string{"Info "},
			want: "the engine is rootless, and runs beside other mounts and users than those of this host"},
		{name: "remapped users", set: withSecurity("name=userns"), calls: []string{"Info "},
			want: "the engine maps the users of containers to others (userns-remap): a file would have another owner inside"},
		{name: "SELinux", set: withSecurity("name=selinux"), calls: []string{"Info "},
			want: "the engine labels containers (SELinux), and would keep them from reading a file that it has not labelled"},
		{name: "no ID", set: func(c *filesClient) {
			c.info = func(context.Context) (system.Info, error) { return system.Info{}, nil }
		}, calls: []string{"Info "}, want: "the engine has no ID that could name the folder of its files"},
		{name: "odd ID", set: func(c *filesClient) {
			c.info = func(context.Context) (system.Info, error) { return system.Info{ID: "../etc"}, nil }
		}, calls: []string{"Info "}, want: "the engine has no ID that could name the folder of its files"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			client, store := newFilesClient(t), newTestStore(t)
			if test.set != nil {
				test.set(client)
			}
			require.NoError(t, os.MkdirAll(store.dir, 0o700))
			client.containerCreate, client.containerStart = nil, nil // are not called
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
			assert.Equal(t, append(test.calls, "ContainerRemove web.1.taskid"), client.called())
			assert.Empty(t, tree(t, store.dir))
		})
	}
}

func withSecurity(options ...string) func(*filesClient) {
	return func(c *filesClient) {
		c.info = func(context.Context) (system.Info, error) {
			return system.Info{ID: "engine-1", SecurityOptions: options}, nil
		}
	}
}

// 20.10's IDs have colons.
func TestFilesOfAnEngineIDWithColons(t *testing.T) {
	t.Parallel()
	client, store := newFilesClient(t), newTestStore(t)
	client.info = func(context.Context) (system.Info, error) { return system.Info{ID: "B77S:VOG2"}, nil }
	require.NoError(t, newFilesAdapter(t, client, store, ownedTask(), stores()).Create(t.Context()))
	assert.Contains(t, tree(t, store.dir), "B77S:VOG2/taskid drwx------")
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
		client := newFilesClient(t)
		client.info = func(context.Context) (system.Info, error) {
			time.Sleep(time.Minute)
			return system.Info{ID: "engine-1"}, nil
		}
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
		assert.Len(t, client.called(), 1+19*3)
		assert.Empty(t, tree(t, store.dir))
	})
}

// Nor do the others take their time-outs one after the other.
func TestTasksBehindAnEngineThatNeverTellsAreBounded(t *testing.T) {
	t.Parallel()
	store := newTestStore(t)
	synctest.Test(t, func(t *testing.T) {
		client := newFilesClient(t)
		client.info = func(ctx context.Context) (system.Info, error) {
			<-ctx.Done()
			return system.Info{}, ctx.Err()
		}
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
