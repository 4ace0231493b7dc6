package dockerexec

import (
	"io/fs"
	"os"
	"syscall"
)

// The file systems without a disk, as linux/magic.h numbers them. A tmpfs may
// still be swapped out.
const (
	tmpfsMagic = 0x01021994
	ramfsMagic = 0x858458f6
)

// onlyFolders has an open fail at once for what is no folder: that of a pipe
// would wait for whoever writes to it.
const onlyFolders = syscall.O_DIRECTORY

func inMemory(f *os.File) (bool, error) {
	var stat syscall.Statfs_t
	if err := syscall.Fstatfs(int(f.Fd()), &stat); err != nil {
		return false, &fs.PathError{Op: "fstatfs", Path: f.Name(), Err: err}
	}
	kind := uint32(stat.Type)
	return kind == tmpfsMagic || kind == ramfsMagic, nil
}

// uidOf is the owner of a file.
func uidOf(info fs.FileInfo) int {
	if stat, is := info.Sys().(*syscall.Stat_t); is {
		return int(stat.Uid)
	}
	return -1
}
