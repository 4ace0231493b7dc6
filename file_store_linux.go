package dockerexec

import (
	"io/fs"
	"os"
	"syscall"
)

// The file systems that are in memory, by their numbers in linux/magic.h. A tmpfs may
// still be swapped to a disk.
const (
	tmpfsMagic = 0x01021994
	ramfsMagic = 0x858458f6
)

// onlyFolders makes an open fail at once if the path is not a folder. Without it, the
// open of a pipe waits for a writer.
const onlyFolders = syscall.O_DIRECTORY

func inMemory(f *os.File) (bool, error) {
	var stat syscall.Statfs_t
	if err := syscall.Fstatfs(int(f.Fd()), &stat); err != nil {
		return false, &fs.PathError{Op: "fstatfs", Path: f.Name(), Err: err}
	}
	kind := uint32(stat.Type)
	return kind == tmpfsMagic || kind == ramfsMagic, nil
}

// uidOf returns the owner of a file, or -1 if it is not known.
func uidOf(info fs.FileInfo) int {
	if stat, is := info.Sys().(*syscall.Stat_t); is {
		return int(stat.Uid)
	}
	return -1
}
