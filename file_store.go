package dockerexec

import (
	"cmp"
	"crypto/rand"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/pkg/errors"
)

// fileStore keeps the secrets and configs of tasks as files on this host, at
// <dir>/<engine ID>/<task ID>/<source>. An engine's ID may change, so a task may have
// several folders. Only the user of this process can open them. Symbolic links below dir
// are not followed. Other processes may change the folders: the store looks each time.
type fileStore struct {
	dir      string
	user     int // the user that this process runs as; 0 is root
	inMemory func(*os.File) (bool, error)
	chown    func(f *os.File, uid, gid int) error
	owner    func(fs.FileInfo) int
}

func newFileStore(dir string) fileStore {
	return fileStore{dir: filepath.Clean(dir), user: os.Geteuid(), inMemory: inMemory, chown: (*os.File).Chown, owner: uidOf}
}

// filePayload is a file and its content.
type filePayload struct {
	taskFile
	payload []byte
}

// noteName is the file in a task's folder that says which engine the task is on. The
// engine's ID does not: it may change, and two engines may have the same one.
const noteName = "engine"

// folder returns the path of the folder with the files of a task.
func (s fileStore) folder(engineID, taskID string) string {
	return filepath.Join(s.dir, engineID, taskID)
}

// changingFiles is held while folders are changed. It is one for the whole process,
// because several Engines may use the same folders.
var changingFiles sync.Mutex

// writeTries is how often write and remove try in all. A try fails if another process
// removes or replaces a folder meanwhile: each process removes empty folders of engines.
const writeTries = 3

// write writes files of a task. Each file is written completely or not at all, and
// replaces an older one. made says that the task had no folder before. After an error,
// write removes the folder that it made.
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

// explain tells a user who is not root how to run without root.
func (s fileStore) explain(err error) error {
	if s.user == 0 || !errors.Is(err, fs.ErrPermission) {
		return err
	}
	return errors.Wrapf(err, "user %d is not root; run the executor as root, or name a folder of this user's on a tmpfs with WithSecretsDir and have each file owned by this user in its reference", s.user)
}

// checkID refuses an ID that would lead to another folder than the task's own.
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

// writeFile writes the file under another name and renames it at the end. So there is
// never half a file under the right name.
func (s fileStore) writeFile(folder *os.Root, f filePayload) error {
	name := "new." + rand.Text()
	file, err := folder.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer folder.Remove(name) //nolint:errcheck // already renamed if all went well
	_, err = file.Write(f.payload)
	if err == nil && f.source != noteName {
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

// missing returns the files that do not exist in the task's folder.
func (s fileStore) missing(engineID, taskID string, files []taskFile) ([]taskFile, error) {
	if err := checkID(taskID); err != nil {
		return nil, err
	}
	folder, err := s.open(engineID, taskID)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, errReplaced) { // write makes the folder again
		return files, nil
	}
	if err == nil {
		defer folder.Close()
		err = s.checkOwners()
	}
	if err == nil { // if all users may write to the folder above, another user may have made this folder
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

// remove removes the folder of a task, if there is one. It also removes the engine's
// folder if that is empty then.
func (s fileStore) remove(engineID, taskID string) error {
	changingFiles.Lock()
	defer changingFiles.Unlock()
	return s.removeLocked(engineID, taskID)
}

// removeLocked is remove for a caller that holds changingFiles.
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
		_ = top.Remove(engineID) // fails while the engine has other tasks
		top.Close()
	}
	return nil
}

// removeTask removes the folders of a task, under all IDs of engines.
func (s fileStore) removeTask(taskID string) error {
	if err := checkID(taskID); err != nil {
		return err
	}
	changingFiles.Lock()
	defer changingFiles.Unlock()
	engines, err := s.engines()
	if err != nil {
		return errors.Wrapf(s.explain(err), "remove the files of secrets and configs of task %s in %s", taskID, s.dir)
	}
	for _, id := range engines {
		err = cmp.Or(err, s.removeLocked(id, taskID))
	}
	return err
}

// leftoverAge is how old a folder must be before it is removed because its task has no
// container. A younger one may belong to a create that is not finished: the files are
// written first, perhaps by another process, and then the engine makes the container.
// Each write into a folder makes its age zero again.
const leftoverAge = 10 * time.Minute

// removeLeftover removes the folder of a task that has no container, if it is older
// than age. A time far in the future counts as old: then the clock was set back.
func (s fileStore) removeLeftover(engineID, taskID string, age time.Duration) (removed bool, err error) {
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
	if time.Since(info.ModTime()).Abs() < age {
		return false, nil
	}
	return true, s.removeLocked(engineID, taskID)
}

func (s fileStore) readNote(engineID, taskID string) (string, error) {
	folder, err := s.open(engineID, taskID)
	if err != nil {
		return "", err
	}
	defer folder.Close()
	note, err := folder.ReadFile(noteName)
	return string(note), err
}

// engines lists the IDs under which there are folders of this process's user, sorted.
func (s fileStore) engines() (ids []string, err error) {
	folders, err := s.list()
	for _, f := range folders {
		if s.owner(f) == s.user {
			ids = append(ids, f.Name())
		}
	}
	return ids, err
}

// tasks lists the tasks that have a folder, sorted by their IDs.
func (s fileStore) tasks(engineID string) (ids []string, err error) {
	folders, err := s.list(engineID)
	for _, f := range folders {
		ids = append(ids, f.Name())
	}
	return ids, errors.Wrapf(err, "list the tasks with files of secrets and configs in %s", filepath.Join(s.dir, engineID))
}

// list lists the folders in the folder that open(names...) opens, sorted by their names.
func (s fileStore) list(names ...string) (folders []fs.FileInfo, err error) {
	folder, err := s.open(names...)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var entries []fs.DirEntry
	if err == nil {
		defer folder.Close()
		entries, err = fs.ReadDir(folder.FS(), ".")
	}
	for _, entry := range entries {
		if info, err := entry.Info(); err == nil && info.IsDir() { // an error: the entry is gone
			folders = append(folders, info)
		}
	}
	return folders, err
}

// errReplaced says that another process replaced a folder while it was opened.
var errReplaced = errors.New("it was replaced while it was opened")

// open opens the store's folder or, with names, the folder at that path below it.
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

// enter opens a folder. info is what the caller has seen under that name. If another
// folder has taken its place since then, the error is errReplaced.
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

// makeTop opens the store's folder. It makes the folder, and those above it, if they
// do not exist, but only on a memory file system.
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
	return s.open() // checkOwners made sure that no other user can replace the folder
}

// maxLinks bounds the symbolic links on the path to the store's folder. Kernels have
// the same bound.
const maxLinks = 40

// checkOwners refuses the store's folder if another user could replace it, or could
// replace a folder above it or a symbolic link on the path to it.
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
			if others { // the folder that holds the link was checked before
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

// check finds out early whether files can be written. It writes nothing.
func (s fileStore) check() error { return s.explain(s.checkMemory()) }

// checkMemory refuses a folder that is not on a memory file system. If the folder does
// not exist, the nearest folder above it that exists decides.
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

// makeFolder opens a folder that only the user of this process can open. It makes the
// folder if it does not exist.
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

// checkOwn refuses a folder that other users can open, or that belongs to one of them.
func (s fileStore) checkOwn(folder *os.Root, info fs.FileInfo) error {
	if info.Mode().Perm() != 0o700 || s.owner(info) != s.user {
		return errors.Errorf("%s is open to others, or another user's; executors of several users need a folder each, see WithSecretsDir", folder.Name())
	}
	return nil
}
