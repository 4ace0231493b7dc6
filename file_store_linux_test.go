package dockerexec

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// asUser calls f as a user who is not root, and returns who that is: another one
// if these tests run as root. Only what f does itself is done as that user.
func asUser(f func(user int)) {
	if user := os.Geteuid(); user != 0 {
		f(user)
		return
	}
	const nobody = 65534
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	_ = syscall.Setfsuid(nobody)
	defer syscall.Setfsuid(0) //nolint:errcheck // it has no error
	f(nobody)
}

// folderForAll is a folder in which each user may make others, as in /dev/shm.
func folderForAll(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "dockerexec-test") //nolint:usetesting // a test's own folder keeps others out
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, os.RemoveAll(dir)) })
	require.NoError(t, os.Chmod(dir, 0o777|fs.ModeSticky))
	return dir
}

// Whose folders the store trusts: each row has the owner of those that are not
// root's, by name. The link leads to the folder beside.
func TestStoreOwners(t *testing.T) {
	t.Parallel()
	const (
		replace = "; make it the folder of this process's user or root, and writable to nobody else"
		theirs  = " is open to others, or another user's; executors of several users need a folder each, see WithSecretsDir"
	)
	for _, test := range []struct {
		name   string
		user   int
		owners map[string]int
		dir    string // below a temporary folder; empty: a/secrets
		want   string // empty: files are written
	}{
		{name: "root's", user: 0},
		{name: "a user's", user: 1000, owners: map[string]int{"a": 1000, "secrets": 1000, "engine": 1000, "t1": 1000}},
		{name: "a user's, below root's", user: 1000, owners: map[string]int{"secrets": 1000, "engine": 1000, "t1": 1000}},
		{name: "another user's", user: 1000, owners: map[string]int{"secrets": 1001, "engine": 1000, "t1": 1000},
			want: "others may replace what is in TOP/a/secrets" + replace},
		{name: "below another user's", user: 1000, owners: map[string]int{"a": 1001, "secrets": 1000, "engine": 1000, "t1": 1000},
			want: "others may replace what is in TOP/a" + replace},
		{name: "a user's, for root", user: 0, owners: map[string]int{"secrets": 1000},
			want: "others may replace what is in TOP/a/secrets" + replace},
		{name: "below a user's, for root", user: 0, owners: map[string]int{"a": 1000},
			want: "others may replace what is in TOP/a" + replace},
		{name: "by a link", user: 0, dir: "link/secrets"},
		{name: "by a link to another user's", user: 0, dir: "link/secrets", owners: map[string]int{"beside": 1000},
			want: "others may replace what is in TOP/beside" + replace},
		{name: "by another user's link", user: 1000, dir: "link/secrets", owners: map[string]int{"link": 1001, "secrets": 1000, "engine": 1000, "t1": 1000},
			want: "others may replace TOP/link, a link; make it this process's user's or root's"},
		{name: "by a link that leads through another user's", user: 0, dir: "links/secrets", owners: map[string]int{"link": 1001},
			want: "others may replace TOP/link, a link; make it this process's user's or root's"},
		{name: "by a link in another user's folder", user: 0, dir: "links/secrets", owners: map[string]int{"hers": 1001},
			want: "others may replace what is in TOP/hers" + replace},
		{name: "by links", user: 0, dir: "links/secrets"},
		{name: "another user's engine", user: 1000, owners: map[string]int{"secrets": 1000, "engine": 1001, "t1": 1000},
			want: "TOP/a/secrets/engine" + theirs},
		{name: "root's engine", user: 1000, owners: map[string]int{"secrets": 1000, "t1": 1000},
			want: "TOP/a/secrets/engine" + theirs},
		{name: "another user's task", user: 1000, owners: map[string]int{"secrets": 1000, "engine": 1000, "t1": 1001},
			want: "TOP/a/secrets/engine/t1" + theirs},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := newTestStore(t)
			top := filepath.Dir(filepath.Dir(s.dir))
			require.NoError(t, os.Mkdir(filepath.Join(top, "beside"), 0o700))
			require.NoError(t, os.Symlink("beside", filepath.Join(top, "link")))
			require.NoError(t, os.Mkdir(filepath.Join(top, "hers"), 0o700))
			require.NoError(t, os.Symlink(filepath.Join(top, "link"), filepath.Join(top, "hers", "there")))
			require.NoError(t, os.Symlink("hers/../hers/there", filepath.Join(top, "links")))
			if test.dir != "" {
				s.dir = filepath.Join(top, test.dir)
			}
			s.user, s.owner = test.user, func(info fs.FileInfo) int { return test.owners[info.Name()] }
			_, err := s.write("engine", "t1", []filePayload{testFile("secret.0", "a", 0o400)})
			if test.want == "" {
				require.NoError(t, err)
				assert.Contains(t, tree(t, s.dir), "engine/t1/secret.0 -r-------- a")
				return
			}
			want := strings.Replace(test.want, "TOP", top, 1)
			require.EqualError(t, err, "write the files of secrets and configs to "+s.dir+"/engine/t1: "+want)
			assert.NotContains(t, tree(t, s.dir), "engine/t1/secret.0 -r-------- a")
		})
	}
}

// What is there already is trusted no more than what is written.
func TestStoreDoesNotTakeAnothersFilesForItsOwn(t *testing.T) {
	t.Parallel()
	for path, whose := range map[string]string{
		"..": "others may replace what is in ", "": "others may replace what is in ", "engine/t1": "is open to others, or another user's",
	} {
		s := newTestStore(t)
		file := testFile("secret.0", "a", 0o400)
		_, err := s.write("engine", "t1", []filePayload{file})
		require.NoError(t, err)
		theirs, err := os.Lstat(filepath.Join(s.dir, path))
		require.NoError(t, err)
		s.owner = func(info fs.FileInfo) int {
			if os.SameFile(info, theirs) {
				return s.user + 1
			}
			return s.user
		}
		_, err = s.missing("engine", "t1", []taskFile{file.taskFile})
		require.ErrorContains(t, err, "look for the files of secrets and configs in "+s.dir+"/engine/t1: ", path)
		require.ErrorContains(t, err, whose, path)
	}
}

func TestOwnerOfAFolder(t *testing.T) {
	t.Parallel()
	dir := folderForAll(t)
	var user int
	asUser(func(is int) { user = is; require.NoError(t, os.Mkdir(filepath.Join(dir, "theirs"), 0o700)) })
	info, err := os.Lstat(filepath.Join(dir, "theirs"))
	require.NoError(t, err)
	assert.Equal(t, user, uidOf(info))
	s := newFileStore(dir)
	assert.Equal(t, user, s.owner(info))
	assert.Equal(t, os.Geteuid(), s.user)
}

// Without root's rights the error says what to do, whatever it is that fails.
func TestStoreTellsAUserWhatItTakes(t *testing.T) {
	t.Parallel()
	const hint = " is not root; run the executor as root, or name a folder of this user's on a tmpfs with WithSecretsDir and have each file owned by this user in its reference: "
	closed := newTestStore(t) // below a folder of mode 0
	require.NoError(t, os.Mkdir(filepath.Dir(closed.dir), 0))
	own := newTestStore(t)
	foreign := testFile("secret.0", "a", 0o400)
	foreign.uid = 4242
	asUser(func(user int) {
		closed.user = user
		who := fmt.Sprint("user ", user, hint)
		require.EqualError(t, closed.check(), who+"open "+closed.dir+": permission denied")
		_, err := closed.write("engine", "t1", []filePayload{testFile("secret.0", "a", 0o400)})
		require.EqualError(t, err, "write the files of secrets and configs to "+closed.dir+"/engine/t1: "+who+"open "+closed.dir+": permission denied")
		_, err = closed.missing("engine", "t1", []taskFile{foreign.taskFile})
		require.EqualError(t, err, "look for the files of secrets and configs in "+closed.dir+"/engine/t1: "+who+"lstat "+closed.dir+": permission denied")
		err = closed.remove("engine", "t1")
		require.EqualError(t, err, "remove the files of secrets and configs in "+closed.dir+"/engine/t1: "+who+"lstat "+closed.dir+": permission denied")
	})
	t.Run("file of another user", func(t *testing.T) {
		own.dir = filepath.Join(folderForAll(t), "own")
		asUser(func(user int) {
			own.user = user
			require.NoError(t, os.Mkdir(own.dir, 0o700))
			_, err := own.write("engine", "t1", []filePayload{foreign})
			require.ErrorContains(t, err, fmt.Sprint("write the files of secrets and configs to ", own.dir, "/engine/t1: user ", user, hint, `secret "id-of-secret.0": chown `))
			require.ErrorContains(t, err, ": operation not permitted")
			foreign.uid, foreign.gid = user, os.Getegid()
			_, err = own.write("engine", "t1", []filePayload{foreign})
			require.NoError(t, err)
			require.NoError(t, own.remove("engine", "t1"))
		})
	})
	t.Run("root is told nothing", func(t *testing.T) {
		own.user = 0
		own.inMemory = func(*os.File) (bool, error) { return false, syscall.EPERM }
		require.EqualError(t, own.check(), "operation not permitted")
	})
}

// A pipe in the folder's place is told as what it is, and not waited on.
func TestStoreAtAPipe(t *testing.T) {
	t.Parallel()
	s := newTestStore(t)
	s.dir = filepath.Join(t.TempDir(), "pipe")
	require.NoError(t, syscall.Mkfifo(s.dir, 0o600))
	require.EqualError(t, s.check(), "open "+s.dir+": not a directory")
	_, err := s.write("engine", "t1", []filePayload{testFile("secret.0", "a", 0o400)})
	require.EqualError(t, err, "write the files of secrets and configs to "+s.dir+"/engine/t1: open "+s.dir+": not a directory")
}
