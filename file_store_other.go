//go:build !linux

package dockerexec

import (
	"io/fs"
	"os"
)

// No other system has files that containers could mount: the engine runs in a
// virtual machine, or its containers do not take a file for a mount.
func inMemory(*os.File) (bool, error) { return false, nil }

const onlyFolders = 0

func uidOf(fs.FileInfo) int { return -1 }
