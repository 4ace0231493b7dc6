package dockerexec

import (
	"crypto/rand"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/pkg/errors"
)

// fileStore keeps the secrets and configs of tasks as files of this host, at
// <dir>/<engine ID>/<task ID>/<source>. The folders are this process's user's
// alone, and no link in them is followed. Nothing is remembered: what is there
// is looked up each time, also by other processes.
type fileStore struct {
	dir      string
	user     int // that this process acts as; 0 is root
	inMemory func(*os.File) (bool, error)
	chown    func(f *os.File, uid, gid int) error
	owner    func(fs.FileInfo) int
}

func newFileStore(dir string) fileStore {
	return fileStore{dir: filepath.Clean(dir), user: os.Geteuid(), inMemory: inMemory, chown: (*os.File).Chown, owner: uidOf}
}

// filePayload is a file and what is in it.
type filePayload struct {
	taskFile
	payload []byte
}

// folder is where the files of a task are.
func (s fileStore) folder(engineID, taskID string) string {
	return filepath.Join(s.dir, engineID, taskID)
}

// changingFiles guards the folders while tasks come and go, also those of other
// Engines, which may have the same.
var changingFiles sync.Mutex

// writeTries bounds how often write begins anew because another process has
// removed a folder under it, as remove does with one that is empty.
const writeTries = 3

// write writes files of a task, each at once or not at all, also over those that
// are there; made says whether the task had no folder. After an error it has
// none if it had none.
func (s fileStore) write(engineID, taskID string, files []filePayload) (made bool, err error) {
	changingFiles.Lock()
	defer changingFiles.Unlock()
	for try := 1; ; try++ {
		made, err = s.tryWrite(engineID, taskID, files)
		if err == nil {
			return made, nil
		}
		if made {
			_ = s.removeLocked(engineID, taskID) // the first error counts
		}
		if try == writeTries || !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, errReplaced) {
			break
		}
	}
	return false, errors.Wrapf(s.explain(err), "write the files of secrets and configs to %s", s.folder(engineID, taskID))
}

// explain tells a user who is not root what it takes to do without.
func (s fileStore) explain(err error) error {
	if s.user == 0 || !errors.Is(err, fs.ErrPermission) {
		return err
	}
	return errors.Wrapf(err, "user %d is not root; run the executor as root, or name a folder of this user's on a tmpfs with WithSecretsDir and have each file owned by this user in its reference", s.user)
}

// checkID refuses a task whose folder would not be its own alone.
func checkID(taskID string) error {
	if !namesFolder(taskID) {
		return errors.Errorf("the task's ID %q cannot name a folder", taskID)
	}
	return nil
}

func (s fileStore) tryWrite(engineID, taskID string, files []filePayload) (made bool, err error) {
	if err := checkID(taskID); err != nil {
		return false, err
	}
	top, err := s.makeTop()
	if err != nil {
		return false, err
	}
	defer top.Close()
	engine, _, err := s.makeFolder(top, engineID)
	if err != nil {
		return false, err
	}
	defer engine.Close()
	task, made, err := s.makeFolder(engine, taskID)
	if err != nil {
		return made, err
	}
	defer task.Close()
	for _, f := range files {
		if err := s.writeFile(task, f); err != nil {
			return made, errors.Wrapf(err, "%v", f.dependency)
		}
	}
	return made, nil
}

// writeFile gives the file its name last, so that under it there is never half
// a file.
func (s fileStore) writeFile(folder *os.Root, f filePayload) error {
	name := "new." + rand.Text()
	file, err := folder.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer folder.Remove(name) //nolint:errcheck // gone if all went well
	_, err = file.Write(f.payload)
	if err == nil {
		err = s.chown(file, f.uid, f.gid)
	}
	if err == nil {
		err = file.Chmod(f.mode)
	}
	if closeErr := file.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = folder.Rename(name, f.source)
	}
	return err
}

// missing returns those of a task's files that are not there.
func (s fileStore) missing(engineID, taskID string, files []taskFile) ([]taskFile, error) {
	if err := checkID(taskID); err != nil {
		return nil, err
	}
	folder, err := s.open(engineID, taskID)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, errReplaced) { // write begins anew
		return files, nil
	}
	if err == nil {
		defer folder.Close()
		err = s.checkOwners()
	}
	if err == nil { // as another user may have made it, in a folder for all
		var info fs.FileInfo
		if info, err = folder.Stat("."); err == nil {
			err = s.checkOwn(folder, info)
		}
	}
	if err != nil {
		return nil, errors.Wrapf(s.explain(err), "look for the files of secrets and configs in %s", s.folder(engineID, taskID))
	}
	var missing []taskFile
	for _, f := range files {
		if info, err := folder.Lstat(f.source); err != nil || !info.Mode().IsRegular() {
			missing = append(missing, f)
		}
	}
	return missing, nil
}

// remove removes the folder of a task, if there is one, and that of the engine
// if it was the last.
func (s fileStore) remove(engineID, taskID string) error {
	changingFiles.Lock()
	defer changingFiles.Unlock()
	return s.removeLocked(engineID, taskID)
}

func (s fileStore) removeLocked(engineID, taskID string) error {
	if err := checkID(taskID); err != nil {
		return err
	}
	engine, err := s.open(engineID)
	for try := 1; try < writeTries && errors.Is(err, errReplaced); try++ {
		engine, err = s.open(engineID)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = engine.RemoveAll(taskID)
		engine.Close()
	}
	if err != nil {
		return errors.Wrapf(s.explain(err), "remove the files of secrets and configs in %s", s.folder(engineID, taskID))
	}
	if top, err := s.open(); err == nil {
		_ = top.Remove(engineID) // fails while it has other tasks
		top.Close()
	}
	return nil
}

// leftoverAge is how long the folder of a task that has no container is left alone.
// Another Engine, also one of another process, may have written the files for a
// create that the engine is still at. Each write into a folder sets its time anew.
const leftoverAge = 10 * time.Minute

// removeLeftover removes the folder of a task that has no container, unless
// something was written into it a short time ago. A time far in the future counts
// as old: the clock was set back.
func (s fileStore) removeLeftover(engineID, taskID string) (removed bool, err error) {
	changingFiles.Lock()
	defer changingFiles.Unlock()
	var info fs.FileInfo
	engine, err := s.open(engineID)
	if err == nil {
		info, err = engine.Lstat(taskID)
		engine.Close()
	}
	if err != nil {
		return false, errors.Wrapf(err, "look at the files of secrets and configs in %s", s.folder(engineID, taskID))
	}
	if time.Since(info.ModTime()).Abs() < leftoverAge {
		return false, nil
	}
	return true, s.removeLocked(engineID, taskID)
}

// tasks lists the tasks that have a folder, in the order of their IDs.
func (s fileStore) tasks(engineID string) ([]string, error) {
	engine, err := s.open(engineID)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var entries []fs.DirEntry
	if err == nil {
		defer engine.Close()
		entries, err = fs.ReadDir(engine.FS(), ".")
	}
	if err != nil {
		return nil, errors.Wrapf(err, "list the tasks with files of secrets and configs in %s", filepath.Join(s.dir, engineID))
	}
	var tasks []string
	for _, entry := range entries {
		if entry.IsDir() {
			tasks = append(tasks, entry.Name())
		}
	}
	slices.Sort(tasks)
	return tasks, nil
}

// errReplaced says that another process was at work.
var errReplaced = errors.New("it was replaced while it was opened")

// open opens the store's folder, or the one below it that names lead to.
func (s fileStore) open(names ...string) (*os.Root, error) {
	info, err := os.Lstat(s.dir)
	if err != nil {
		return nil, err
	}
	folder, err := enter("", s.dir, info, os.OpenRoot)
	for _, name := range names {
		if err != nil {
			return nil, err
		}
		above := folder
		if info, err = above.Lstat(name); err == nil {
			folder, err = enter(above.Name(), name, info, above.OpenRoot)
		}
		above.Close()
	}
	return folder, err
}

// enter opens the folder that info is about, and nothing that took its place.
func enter(above, name string, info fs.FileInfo, open func(string) (*os.Root, error)) (*os.Root, error) {
	if !info.IsDir() {
		return nil, errors.Errorf("%s is no folder, or a link to one", filepath.Join(above, name))
	}
	folder, err := open(name)
	if err != nil {
		return nil, err
	}
	if opened, err := folder.Stat("."); err != nil || !os.SameFile(info, opened) {
		folder.Close()
		return nil, errors.Wrap(errReplaced, filepath.Join(above, name))
	}
	return folder, nil
}

// makeTop opens the store's folder and makes what lacks of it. Nothing is made
// on what is not a memory file system.
func (s fileStore) makeTop() (*os.Root, error) {
	if err := s.checkMemory(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return nil, err
	}
	if err := s.checkOwners(); err != nil {
		return nil, err
	}
	return s.open() // in whose place nobody else could put anything meanwhile
}

// maxLinks bounds the links on the way to the store's folder, as kernels do.
const maxLinks = 40

// checkOwners refuses a folder that somebody else could put another one in the
// place of, or in the place of one above it, or of a link on the way to it.
func (s fileStore) checkOwners() error {
	const separator = string(filepath.Separator)
	at, links := separator, 0
	for rest := strings.Split(s.dir, separator); ; rest = rest[1:] {
		info, err := os.Lstat(at)
		if err != nil {
			return err
		}
		owner := s.owner(info)
		others := owner != 0 && owner != s.user
		if info.Mode().Type() == fs.ModeSymlink {
			if others { // what the link is in has been looked at
				return errors.Errorf("others may replace %s, a link; make it this process's user's or root's", at)
			}
			to, err := os.Readlink(at)
			if links++; err == nil && links > maxLinks {
				err = &fs.PathError{Op: "readlink", Path: at, Err: syscall.ELOOP}
			}
			if err != nil {
				return err
			}
			at = filepath.Dir(at)
			if filepath.IsAbs(to) {
				at = separator
			}
			rest = append(strings.Split(to, separator), rest...)
		} else if others || info.Mode().Perm()&0o022 != 0 && info.Mode()&fs.ModeSticky == 0 {
			return errors.Errorf("others may replace what is in %s; make it the folder of this process's user or root, and writable to nobody else", at)
		}
		if len(rest) == 0 {
			return nil
		}
		at = filepath.Join(at, rest[0])
	}
}

// check tells early that nothing could be written, as far as a look can tell.
func (s fileStore) check() error { return s.explain(s.checkMemory()) }

// checkMemory looks at the folder, or at the first above it that is there.
func (s fileStore) checkMemory() error {
	for at := s.dir; ; at = filepath.Dir(at) {
		folder, err := os.OpenFile(at, os.O_RDONLY|onlyFolders, 0)
		if errors.Is(err, fs.ErrNotExist) && at != filepath.Dir(at) {
			continue
		}
		if err != nil {
			return err
		}
		defer folder.Close()
		is, err := s.inMemory(folder)
		if err == nil && !is {
			err = errors.Errorf("%s is not on a memory file system, and secrets must not reach a disk; name a folder on a tmpfs with WithSecretsDir", at)
		}
		return err
	}
}

// makeFolder opens a folder that is this process's user's alone, and makes it if
// it is not there.
func (s fileStore) makeFolder(above *os.Root, name string) (folder *os.Root, made bool, err error) {
	if err := above.Mkdir(name, 0o700); err == nil {
		made = true
	} else if !errors.Is(err, fs.ErrExist) {
		return nil, false, err
	}
	info, err := above.Lstat(name)
	if err != nil {
		return nil, made, err
	}
	if folder, err = enter(above.Name(), name, info, above.OpenRoot); err != nil {
		return nil, made, err
	}
	if err := s.checkOwn(folder, info); err != nil {
		folder.Close()
		return nil, made, err
	}
	return folder, made, nil
}

func (s fileStore) checkOwn(folder *os.Root, info fs.FileInfo) error {
	if info.Mode().Perm() != 0o700 || s.owner(info) != s.user {
		return errors.Errorf("%s is open to others, or another user's; executors of several users need a folder each, see WithSecretsDir", folder.Name())
	}
	return nil
}
