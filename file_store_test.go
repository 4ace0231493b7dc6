package dockerexec

import (
	"context"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	engineapi "github.com/docker/docker/client"
	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockerexec/dockerexec/dockerexectest"
)

func TestStoreWritesAndRemoves(t *testing.T) {
	t.Parallel()
	s := newTestStore(t)
	made, err := s.write("engine", "t1", []filePayload{testFile("secret.0", "first", 0o400), testFile("config.0", "", 0o755)})
	require.NoError(t, err)
	assert.True(t, made)
	made, err = s.write("engine", "t2", []filePayload{testFile("secret.0", "second", 0o444)})
	require.NoError(t, err)
	assert.True(t, made)
	assert.Equal(t, []string{
		"engine drwx------",
		"engine/t1 drwx------",
		"engine/t1/config.0 -rwxr-xr-x ",
		"engine/t1/secret.0 -r-------- first",
		"engine/t2 drwx------",
		"engine/t2/secret.0 -r--r--r-- second",
	}, tree(t, s.dir))
	info, err := os.Stat(s.dir)
	require.NoError(t, err)
	assert.Equal(t, fs.FileMode(0o700), info.Mode().Perm())

	tasks, err := s.tasks("engine")
	require.NoError(t, err)
	assert.Equal(t, []string{"t1", "t2"}, tasks)
	tasks, err = s.tasks("other")
	require.NoError(t, err)
	assert.Empty(t, tasks)

	// Again, and over what is there.
	made, err = s.write("engine", "t1", []filePayload{testFile("secret.0", "new", 0o440)})
	require.NoError(t, err)
	assert.False(t, made)
	assert.Contains(t, tree(t, s.dir), "engine/t1/secret.0 -r--r----- new")

	require.NoError(t, s.remove("engine", "t1"))
	assert.Equal(t, []string{"engine drwx------", "engine/t2 drwx------", "engine/t2/secret.0 -r--r--r-- second"}, tree(t, s.dir))
	require.NoError(t, s.remove("engine", "t1"), "again")
	require.NoError(t, s.remove("engine", "t2"))
	assert.Empty(t, tree(t, s.dir))
	require.NoError(t, s.remove("engine", "t2"))
	require.NoError(t, os.RemoveAll(s.dir))
	require.NoError(t, s.remove("engine", "t2"), "nothing was ever there")
}

func TestStoreMissing(t *testing.T) {
	t.Parallel()
	s := newTestStore(t)
	a, b := testFile("secret.0", "a", 0o400), testFile("config.0", "b", 0o400)
	missing := func() []string {
		files, err := s.missing("engine", "t1", []taskFile{a.taskFile, b.taskFile})
		require.NoError(t, err)
		var names []string
		for _, f := range files {
			names = append(names, f.source)
		}
		return names
	}
	assert.Equal(t, []string{"secret.0", "config.0"}, missing(), "no folder at all")
	_, err := s.write("engine", "t1", []filePayload{a, b})
	require.NoError(t, err)
	assert.Empty(t, missing())
	require.NoError(t, os.Remove(filepath.Join(s.dir, "engine/t1/config.0")))
	assert.Equal(t, []string{"config.0"}, missing())
	require.NoError(t, os.Symlink("secret.0", filepath.Join(s.dir, "engine/t1/config.0")))
	assert.Equal(t, []string{"config.0"}, missing(), "a link is no file")
	_, err = s.write("engine", "t1", []filePayload{b})
	require.NoError(t, err)
	assert.Contains(t, tree(t, s.dir), "engine/t1/config.0 -r-------- b", "the link is replaced")
	assert.Contains(t, tree(t, s.dir), "engine/t1/secret.0 -r-------- a", "and not followed")
	require.NoError(t, s.remove("engine", "t1"))
	assert.Equal(t, []string{"secret.0", "config.0"}, missing())
}

// What fails half-way leaves what was there before.
func TestStoreFailures(t *testing.T) {
	t.Parallel()
	at := func(s fileStore, change func(path string) error) func(string) {
		return func(path string) {
			if err := change(filepath.Join(s.dir, path)); err != nil {
				panic(err)
			}
		}
	}
	for _, test := range []struct {
		name   string
		before func(t *testing.T, s *fileStore)
		want   string
		left   []string
	}{
		{"not in memory", func(_ *testing.T, s *fileStore) {
			s.inMemory = func(*os.File) (bool, error) { return false, nil }
		}, "is not on a memory file system, and secrets must not reach a disk; name a folder on a tmpfs with WithSecretsDir", nil},
		{"not known whether in memory", func(_ *testing.T, s *fileStore) {
			s.inMemory = func(*os.File) (bool, error) { return false, syscall.EIO }
		}, "input/output error", nil},
		{"owner", func(_ *testing.T, s *fileStore) {
			s.chown = func(*os.File, int, int) error { return syscall.EPERM }
		}, `secret "id-of-secret.0": operation not permitted`, nil},
		{"owner of the second", func(_ *testing.T, s *fileStore) {
			calls := 0
			s.chown = func(*os.File, int, int) error {
				if calls++; calls == 2 {
					return syscall.ENOSPC
				}
				return nil
			}
		}, `secret "id-of-secret.1": no space left on device`, nil},
		{"owner, task there before", func(t *testing.T, s *fileStore) {
			_, err := s.write("engine", "t1", []filePayload{testFile("secret.0", "before", 0o400)})
			require.NoError(t, err)
			s.chown = func(*os.File, int, int) error { return syscall.EPERM }
		}, "operation not permitted", []string{"engine drwx------", "engine/t1 drwx------", "engine/t1/secret.0 -r-------- before"}},
		{"a file above", func(t *testing.T, s *fileStore) {
			s.dir = filepath.Join(t.TempDir(), "file", "secrets")
			require.NoError(t, os.WriteFile(filepath.Dir(s.dir), nil, 0o600))
		}, "not a directory", nil},
		{"the folder is a link", func(t *testing.T, s *fileStore) {
			require.NoError(t, os.Mkdir(filepath.Dir(s.dir), 0o700))
			require.NoError(t, os.Symlink(t.TempDir(), s.dir))
		}, "secrets is no folder, or a link to one", nil},
		{"others may write", func(t *testing.T, s *fileStore) {
			require.NoError(t, os.MkdirAll(s.dir, 0o700))
			at(*s, func(path string) error { return os.Chmod(path, 0o770) })("")
		}, "others may replace what is in ", nil},
		{"others may write above it", func(t *testing.T, s *fileStore) {
			require.NoError(t, os.MkdirAll(s.dir, 0o700))
			require.NoError(t, os.Chmod(filepath.Dir(s.dir), 0o777)) //nolint:gosec // that is the point
		}, "others may replace what is in ", nil},
		{"the engine's folder is a link", func(t *testing.T, s *fileStore) {
			require.NoError(t, os.MkdirAll(filepath.Join(s.dir, "elsewhere"), 0o700))
			at(*s, func(path string) error { return os.Symlink("elsewhere", path) })("engine")
		}, "secrets/engine is no folder, or a link to one", []string{"elsewhere drwx------", "engine Lrwxrwxrwx"}},
		{"the task's folder is a link", func(t *testing.T, s *fileStore) {
			require.NoError(t, os.MkdirAll(filepath.Join(s.dir, "engine"), 0o700))
			at(*s, func(path string) error { return os.Symlink("/tmp", path) })("engine/t1")
		}, "engine/t1 is no folder, or a link to one", []string{"engine drwx------", "engine/t1 Lrwxrwxrwx"}},
		{"the engine's folder is open", func(t *testing.T, s *fileStore) {
			require.NoError(t, os.MkdirAll(filepath.Join(s.dir, "engine"), 0o700))
			at(*s, func(path string) error { return os.Chmod(path, 0o755) })("engine")
		}, "secrets/engine is open to others, or another user's; executors of several users need a folder each, see WithSecretsDir", []string{"engine drwxr-xr-x"}},
		{"a folder in the file's place", func(t *testing.T, s *fileStore) {
			require.NoError(t, os.MkdirAll(filepath.Join(s.dir, "engine/t1/secret.0"), 0o700))
		}, "file exists", []string{"engine drwx------", "engine/t1 drwx------", "engine/t1/secret.0 drwx------"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := newTestStore(t)
			test.before(t, &s)
			_, err := s.write("engine", "t1", []filePayload{testFile("secret.0", "canary", 0o400), testFile("secret.1", "canary", 0o400)})
			require.ErrorContains(t, err, "write the files of secrets and configs to "+s.dir+"/engine/t1: ")
			require.ErrorContains(t, err, test.want)
			assert.NotContains(t, err.Error(), "canary")
			assert.Equal(t, test.left, tree(t, s.dir))
		})
	}
}

// A folder on a disk is refused before anything is made there.
func TestStoreMakesNothingOnADisk(t *testing.T) {
	t.Parallel()
	s := newTestStore(t)
	looked := ""
	s.inMemory = func(f *os.File) (bool, error) { looked = f.Name(); return false, nil }
	_, err := s.write("engine", "t1", []filePayload{testFile("secret.0", "a", 0o400)})
	require.Error(t, err)
	above := filepath.Dir(filepath.Dir(s.dir))
	assert.Equal(t, above, looked)
	assert.Empty(t, tree(t, above))
}

func TestStoreInAFolderForAll(t *testing.T) {
	t.Parallel()
	s := newTestStore(t)
	require.NoError(t, os.MkdirAll(s.dir, 0o700))
	require.NoError(t, os.Chmod(s.dir, 0o777|fs.ModeSticky)) // as /dev/shm is
	_, err := s.write("engine", "t1", []filePayload{testFile("secret.0", "a", 0o400)})
	require.NoError(t, err)
	require.NoError(t, s.remove("engine", "t1"))
	assert.Empty(t, tree(t, s.dir))
}

// Removing does not follow links either.
func TestStoreRemovesALinkOnly(t *testing.T) {
	t.Parallel()
	s := newTestStore(t)
	other := filepath.Join(t.TempDir(), "other")
	require.NoError(t, os.MkdirAll(filepath.Join(other, "t1"), 0o700))
	require.NoError(t, os.MkdirAll(filepath.Join(s.dir, "engine"), 0o700))
	require.NoError(t, os.Symlink(other, filepath.Join(s.dir, "engine/t1")))
	tasks, err := s.tasks("engine")
	require.NoError(t, err)
	assert.Empty(t, tasks)
	require.NoError(t, s.remove("engine", "t1"))
	assert.Equal(t, []string{"t1 drwx------"}, tree(t, other))

	require.NoError(t, os.Symlink(other, filepath.Join(s.dir, "engine")))
	require.ErrorContains(t, s.remove("engine", "t1"), "engine is no folder, or a link to one")
	_, err = s.tasks("engine")
	require.ErrorContains(t, err, "engine is no folder, or a link to one")
	_, err = s.missing("engine", "t1", nil)
	require.ErrorContains(t, err, "engine is no folder, or a link to one")
	assert.Equal(t, []string{"t1 drwx------"}, tree(t, other))
}

// Another process may remove the folder of the engine while it is empty.
func TestStoreBeginsAnew(t *testing.T) {
	t.Parallel()
	s := newTestStore(t)
	calls := 0
	s.chown = func(*os.File, int, int) error {
		if calls++; calls < 3 {
			return os.RemoveAll(filepath.Join(s.dir, "engine"))
		}
		return nil
	}
	made, err := s.write("engine", "t1", []filePayload{testFile("secret.0", "a", 0o400)})
	require.NoError(t, err)
	assert.True(t, made)
	assert.Equal(t, []string{"engine drwx------", "engine/t1 drwx------", "engine/t1/secret.0 -r-------- a"}, tree(t, s.dir))

	calls = -100
	_, err = s.write("engine", "t2", []filePayload{testFile("secret.0", "a", 0o400)})
	require.ErrorContains(t, err, "no such file or directory")
	assert.Equal(t, -97, calls)
	assert.Empty(t, tree(t, s.dir))
}

// Tasks come and go at once, and the folder of the engine with them.
func TestStoreAtOnce(t *testing.T) {
	t.Parallel()
	s := newTestStore(t)
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			task := fmt.Sprint("t", i)
			for range 50 {
				_, err := s.write("engine", task, []filePayload{testFile("secret.0", strings.Repeat("a", 4096), 0o400)})
				assert.NoError(t, err)
				assert.NoError(t, s.remove("engine", task))
			}
		})
	}
	all.Wait()
	assert.Empty(t, tree(t, s.dir))
}

// What is opened is what was looked at.
func TestEnterFindsAReplacedFolder(t *testing.T) {
	t.Parallel()
	a, b := t.TempDir(), t.TempDir()
	info, err := os.Lstat(a)
	require.NoError(t, err)
	folder, err := enter("", a, info, os.OpenRoot)
	require.NoError(t, err)
	require.NoError(t, folder.Close())
	_, err = enter("", b, info, os.OpenRoot)
	require.ErrorIs(t, err, errReplaced)
}

func TestSecretsDir(t *testing.T) {
	t.Parallel()
	client := dockerexectest.New(t).Client()
	for dir, want := range map[string]string{"": "/run/dockerexec/secrets", "/x//y/": "/x/y"} {
		assert.Equal(t, want, filepath.ToSlash(NewEngine(client, WithSecretsDir(dir)).files.dir))
	}
	assert.Equal(t, "/run/dockerexec/secrets", filepath.ToSlash(NewEngine(client).files.dir))
}

// tmpfs and proc are where every Linux has them.
func TestInMemory(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("files of tasks need Linux")
	}
	for path, want := range map[string]bool{"/dev/shm": true, "/proc": false, ".": false} {
		folder, err := os.Open(path)
		require.NoError(t, err)
		got, err := inMemory(folder)
		require.NoError(t, err)
		require.NoError(t, folder.Close())
		assert.Equal(t, want, got, path)
	}
}

// Each error says what was being done, and where.
func TestStoreErrorsNameTheFolder(t *testing.T) {
	t.Parallel()
	s := newTestStore(t)
	require.NoError(t, os.MkdirAll(s.dir, 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(s.dir, "engine"), nil, 0o600))
	const why = "engine is no folder, or a link to one"
	_, err := s.missing("engine", "t1", nil)
	require.EqualError(t, err, "look for the files of secrets and configs in "+s.dir+"/engine/t1: "+s.dir+"/"+why)
	require.EqualError(t, s.remove("engine", "t1"), "remove the files of secrets and configs in "+s.dir+"/engine/t1: "+s.dir+"/"+why)
	for _, id := range []string{"", ".", "..", "a/b", "/a"} {
		const odd = " cannot name a folder"
		_, err = s.write("engine", id, nil)
		require.ErrorContains(t, err, odd)
		_, err = s.missing("engine", id, nil)
		require.ErrorContains(t, err, odd)
		require.ErrorContains(t, s.remove("engine", id), odd)
	}
	_, err = s.removeLeftover("engine", "t1", leftoverAge)
	require.EqualError(t, err, "look at the files of secrets and configs in "+s.dir+"/engine/t1: "+s.dir+"/"+why)
	_, err = s.tasks("engine")
	require.EqualError(t, err, "list the tasks with files of secrets and configs in "+s.dir+"/engine: "+s.dir+"/"+why)
}

// makeOlder sets the time of a folder to that long ago.
func makeOlder(t *testing.T, folder string, age time.Duration) {
	t.Helper()
	then := time.Now().Add(-age)
	require.NoError(t, os.Chtimes(folder, then, then))
}

func TestLeftoverAge(t *testing.T) {
	t.Parallel()
	for age, removed := range map[time.Duration]bool{
		0: false, 9 * time.Minute: false, 10 * time.Minute: true, 48 * time.Hour: true,
		-9 * time.Minute: false, -11 * time.Minute: true, // the clock was set back
	} {
		s := newTestStore(t)
		_, err := s.write("engine", "t1", []filePayload{testFile("secret.0", "", 0o400)})
		require.NoError(t, err)
		makeOlder(t, s.folder("engine", "t1"), age)
		got, err := s.removeLeftover("engine", "t1", leftoverAge)
		require.NoError(t, err)
		assert.Equal(t, removed, got, age)
		tasks, err := s.tasks("engine")
		require.NoError(t, err)
		assert.Equal(t, removed, len(tasks) == 0, age)
	}

	// A file that is written, also over an older one, makes the folder new.
	s := newTestStore(t)
	for range 2 {
		_, err := s.write("engine", "t1", []filePayload{testFile("secret.0", "", 0o400)})
		require.NoError(t, err)
		got, err := s.removeLeftover("engine", "t1", leftoverAge)
		require.NoError(t, err)
		assert.False(t, got)
		makeOlder(t, s.folder("engine", "t1"), time.Hour)
	}
}

func TestSweep(t *testing.T) {
	t.Parallel()
	withLeftovers := func(t *testing.T) fileStore {
		store := newTestStore(t)
		for _, task := range []string{"ended", "running", "ours"} {
			_, err := store.write("engine-1", task, []filePayload{testFile("secret.0", task, 0o400)})
			require.NoError(t, err)
			makeOlder(t, store.folder("engine-1", task), leftoverAge)
		}
		_, err := store.write("engine-2", "ended", []filePayload{testFile("secret.0", "other", 0o400)})
		require.NoError(t, err)
		makeOlder(t, store.folder("engine-2", "ended"), leftoverAge)
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
	task := ownedTask()
	task.ID = "ours"
	// The engine has the container of a task that runs, and another one of no task.
	host := func(t *testing.T) (*dockerexectest.Engine, *engineapi.Client) {
		engine, client := localEngine(t)
		engine.AddContainer("web.1.running", map[string]string{LabelTaskID: "running", "com.docker.swarm.task": ""})
		engine.AddContainer("somebodys", map[string]string{"com.docker.swarm.task": ""})
		engine.AddContainer("without-labels", nil)
		return engine, client
	}
	const ask, list, created = "GET /info", listRequest, "POST /containers/create web.1.ours"

	t.Run("before the first task", func(t *testing.T) {
		t.Parallel()
		engine, client := host(t)
		store := withLeftovers(t)
		engine.FailNext(listRequest, dockerexectest.Call(func() {
			assert.Equal(t, []string{"ended", "ours", "running"}, left(t, store))
			// Another process's task comes, and its container with it.
			_, err := store.write("engine-1", "meanwhile", []filePayload{testFile("secret.0", "", 0o400)})
			assert.NoError(t, err)
		}))
		ctx, lines := logged(t)
		require.NoError(t, newFilesAdapter(t, client, store, task, stores()).Create(ctx))
		assert.Equal(t, []string{"meanwhile", "ours", "running"}, left(t, store))
		assert.Equal(t, []string{ask, list, created}, asked(engine))
		listed := engine.Requests()[slices.IndexFunc(engine.Requests(), func(r dockerexectest.Request) bool { return r.String() == list })].Query
		assert.Equal(t, url.Values{"all": {"1"}, "filters": {`{"label":{"com.docker.swarm.task":true}}`}}, listed)
		assert.Contains(t, lines(logrus.DebugLevel), "files of a task without a container removed")
		assert.Empty(t, lines(logrus.InfoLevel))
	})
	t.Run("beside the create of another Engine", func(t *testing.T) {
		t.Parallel()
		engine, client := localEngine(t)
		store := newTestStore(t)
		ours := func() []string {
			_, sweeper := localEngine(t)
			assert.NoError(t, newFilesAdapter(t, sweeper, store, task, stores()).Create(t.Context()))
			tasks, err := store.tasks("engine-1")
			assert.NoError(t, err)
			return tasks
		}
		engine.FailNext(createRequest, dockerexectest.Call(func() { assert.Equal(t, []string{"ours", "taskid"}, ours()) }))
		require.NoError(t, newFilesAdapter(t, client, store, ownedTask(), stores()).Create(t.Context()))
		assert.Equal(t, written[1:], tree(t, store.dir)[5:], "the files are whole")

		// Later, and without a container, they are left over.
		makeOlder(t, store.folder("engine-1", "taskid"), leftoverAge)
		assert.Equal(t, []string{"ours"}, ours())
	})
	t.Run("written again during the list", func(t *testing.T) {
		t.Parallel()
		engine, client := host(t)
		store := withLeftovers(t)
		engine.FailNext(listRequest, dockerexectest.Call(func() {
			// Another process creates the container, in the folder that was left.
			_, err := store.write("engine-1", "ended", []filePayload{testFile("secret.0", "new", 0o400)})
			assert.NoError(t, err)
		}))
		require.NoError(t, newFilesAdapter(t, client, store, task, stores()).Create(t.Context()))
		assert.Equal(t, []string{"ended", "ours", "running"}, left(t, store))
	})
	t.Run("again, if a folder was too new", func(t *testing.T) {
		t.Parallel()
		store := withLeftovers(t)
		synctest.Test(t, func(t *testing.T) {
			host, client := host(t)
			makeOlder(t, store.folder("engine-1", "ended"), 0)
			engine := newFilesEngine(t, client, store)
			create := func() []string {
				adapter, err := engine.Adapter(nil, task, stores())
				require.NoError(t, err)
				require.NoError(t, adapter.Create(t.Context()))
				host.Container("web.1.ours").RemoveByHand()
				return left(t, store)
			}
			assert.Equal(t, []string{"ended", "ours", "running"}, create())
			time.Sleep(10 * time.Minute)
			assert.Equal(t, []string{"ended", "ours", "running"}, create())
			time.Sleep(time.Second)
			assert.Equal(t, []string{"ours", "running"}, create())
			time.Sleep(time.Hour)
			assert.Equal(t, []string{"ours", "running"}, create())
			assert.Equal(t, []string{ask, list, created, created, ask, list, created, created}, asked(host))
		})
	})
	t.Run("once an Engine", func(t *testing.T) {
		t.Parallel()
		host, client := host(t)
		store := withLeftovers(t)
		engine := newFilesEngine(t, client, store)
		for range 2 {
			adapter, err := engine.Adapter(nil, task, stores())
			require.NoError(t, err)
			require.NoError(t, adapter.Create(t.Context()))
			host.Container("web.1.ours").RemoveByHand()
			_, err = store.write("engine-1", "later", []filePayload{testFile("secret.0", "", 0o400)})
			require.NoError(t, err)
			makeOlder(t, store.folder("engine-1", "later"), leftoverAge)
		}
		assert.Equal(t, []string{"later", "ours", "running"}, left(t, store))
	})
	t.Run("nothing without files", func(t *testing.T) {
		t.Parallel()
		engine, client := host(t)
		store := withLeftovers(t)
		require.NoError(t, newFilesAdapter(t, client, store, plainTask(), nil).Create(t.Context()))
		assert.Equal(t, []string{"POST /containers/create web.1.taskid"}, asked(engine))
		assert.Equal(t, []string{"ended", "ours", "running"}, left(t, store))
	})
	t.Run("engine away", func(t *testing.T) {
		t.Parallel()
		engine, client := host(t)
		store := withLeftovers(t)
		engine.FailNext(listRequest, dockerexectest.Drop())
		adapter := newFilesAdapter(t, client, store, task, stores())
		err := adapter.Create(t.Context())
		require.ErrorContains(t, err, "secrets and configs: list of containers: ")
		require.True(t, exec.IsTemporary(err))
		assert.Equal(t, []string{"ended", "ours", "running"}, left(t, store))
		require.NoError(t, adapter.Create(t.Context()))
		assert.Equal(t, []string{"ours", "running"}, left(t, store))
	})
	t.Run("list refused", func(t *testing.T) {
		t.Parallel()
		engine, client := host(t)
		store := withLeftovers(t)
		engine.FailNext(listRequest, dockerexectest.Refuse(403, "no"))
		require.NoError(t, newFilesAdapter(t, client, store, task, stores()).Create(t.Context()))
		assert.Equal(t, []string{"ended", "ours", "running"}, left(t, store))
	})
	t.Run("cancelled", func(t *testing.T) {
		t.Parallel()
		engine, client := host(t)
		store := withLeftovers(t)
		ctx, cancel := context.WithCancel(t.Context())
		returned := make(chan struct{})
		engine.FailNext(listRequest, dockerexectest.Call(func() { cancel(); <-returned }))
		err := newFilesAdapter(t, client, store, task, stores()).Create(ctx)
		close(returned)
		assert.Equal(t, context.Canceled, err)
		assert.Equal(t, []string{"ended", "ours", "running"}, left(t, store))
	})
}

// Two engines and their executors share one directory. Each has a task that runs, one that
// has ended, and files from before its ID changed.
func TestSweepOfADirectoryThatEnginesShare(t *testing.T) {
	t.Parallel()
	const ours, theirs = "unix:///run/docker.sock host-1", "unix:///run/other.sock host-1"
	folders := []struct {
		engine, task, note string
		stays              bool
	}{
		{"engine-1", "ended", ours, false},
		{"engine-1", "running", ours, true},
		{"engine-1", "ended-without-note", "", false},
		{"engine-1", "running-without-note", "", true},
		{"engine-1", "same-id", theirs, true}, // engines of 20.10 on one host have one ID
		{"engine-0", "ended-before", ours, false},
		{"engine-0", "running-before", ours, true},
		{"engine-0", "before-without-note", "", true},
		{"engine-0", "theirs", theirs, true},
		{"engine-2", "their-ended", theirs, true},
		{"engine-2", "their-running", theirs, true},
		{"engine-2", "their-without-note", "", true},
		{"engine-3", "same-address", "unix:///run/docker.sock host-2", true}, // in a container of its own
		{"engine-3", "longer", ours + "1", true},
	}
	engine, client := localEngine(t)
	for _, id := range []string{"running", "running-without-note", "running-before"} {
		engine.AddContainer("web.1."+id, map[string]string{LabelTaskID: id, "com.docker.swarm.task": ""})
	}
	store := newTestStore(t)
	var want []string
	for _, f := range folders {
		files := []filePayload{testFile("secret.0", f.task, 0o400)}
		if f.note != "" {
			files = append(files, testFile("engine", f.note, 0o400))
		}
		_, err := store.write(f.engine, f.task, files)
		require.NoError(t, err)
		makeOlder(t, store.folder(f.engine, f.task), leftoverAge)
		if f.stays {
			want = append(want, f.engine+"/"+f.task+"/secret.0 -r-------- "+f.task)
		}
	}
	_, err := store.write("engine-0", "young", []filePayload{testFile("secret.0", "young", 0o400), testFile("engine", ours, 0o400)})
	require.NoError(t, err)
	want = append(want, "engine-0/young/secret.0 -r-------- young", "engine-1/ours/secret.0 -r-------- payload of s1")
	task := ownedTask()
	task.ID = "ours"
	require.NoError(t, newFilesAdapter(t, client, store, task, stores()).Create(t.Context()))
	var left []string
	for _, line := range tree(t, store.dir) {
		if strings.Contains(line, "/secret.0 ") {
			left = append(left, line)
		}
	}
	assert.ElementsMatch(t, want, left)
}

// The note is written, and read, by the process's user alone.
func TestSweepHeedsNoNoteOfAnotherUser(t *testing.T) {
	t.Parallel()
	s := newTestStore(t)
	_, err := s.write("engine-0", "theirs", []filePayload{testFile("secret.0", "", 0o400), testFile("engine", "ours", 0o400)})
	require.NoError(t, err)
	_, client := localEngine(t)
	engine := newFilesEngine(t, client, s)
	for _, user := range []int{s.user, s.user + 1} {
		engine.files.owner = func(fs.FileInfo) int { return user }
		folders, err := engine.taskFolders(fileHost{engineID: "engine-1", note: "ours"})
		require.NoError(t, err)
		if user == s.user {
			assert.Equal(t, []taskFolder{{"engine-0", "theirs"}}, folders)
		} else {
			assert.Empty(t, folders)
			require.NoError(t, engine.files.removeTask("theirs"))
			assert.Contains(t, tree(t, s.dir), "engine-0/theirs/secret.0 -r-------- ")
		}
	}
}
