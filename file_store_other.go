//go:build !linux

package dockerexec

import (
	"io/fs"
	"os"
)

// On other systems, containers cannot mount a file of this host's memory: the engine
// runs in a virtual machine, or its containers cannot mount single files.
func inMemory(*os.File) (bool, error) { return false, nil }

const onlyFolders = 0

func uidOf(fs.FileInfo) int { return -1 }
