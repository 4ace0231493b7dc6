package dockerexec

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/moby/swarmkit/v2/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// newTestStore is a store in a folder that is still to be made, of which it
// believes that it is in memory.
func newTestStore(t testing.TB) fileStore {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("files of tasks need Linux")
	}
	s := newFileStore(filepath.Join(t.TempDir(), "a", "secrets"))
	s.inMemory = func(*os.File) (bool, error) { return true, nil }
	return s
}

// ownFile is a file's target with this process's user as its owner.
func ownFile(name string, mode fs.FileMode) *api.FileTarget {
	return &api.FileTarget{Name: name, UID: strconv.Itoa(os.Getuid()), GID: strconv.Itoa(os.Getgid()), Mode: mode}
}

func testFile(source, payload string, mode fs.FileMode) filePayload {
	return filePayload{taskFile{dependency: dependency{id: "id-of-" + source}, source: source, uid: os.Getuid(), gid: os.Getgid(), mode: mode}, []byte(payload)}
}

// tree lists all below a folder as "PATH MODE CONTENT", or nothing if it is not
// there. A link is not followed.
func tree(t testing.TB, dir string) []string {
	t.Helper()
	var list []string
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		name, err := filepath.Rel(dir, path)
		require.NoError(t, err)
		info, err := os.Lstat(path)
		require.NoError(t, err)
		line := name + " " + info.Mode().String()
		if info.Mode().IsRegular() {
			content, err := os.ReadFile(path)
			require.NoError(t, err)
			line += " " + string(content)
		}
		list = append(list, line)
		return nil
	})
	if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ENOTDIR) {
		require.NoError(t, err)
	}
	return list
}

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
	for dir, want := range map[string]string{"": "/run/dockerexec/secrets", "/x//y/": "/x/y"} {
		assert.Equal(t, want, filepath.ToSlash(NewEngine(newFakeClient(t), WithSecretsDir(dir)).files.dir))
	}
	assert.Equal(t, "/run/dockerexec/secrets", filepath.ToSlash(NewEngine(newFakeClient(t)).files.dir))
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
