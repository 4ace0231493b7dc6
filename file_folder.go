package dockerexec

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/pkg/errors"
)

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
