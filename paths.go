package dockerexec

import (
	"path"
	"strings"
)

// isAbsolute reports whether p is an absolute path on Linux or Windows: the
// engine need not run on the agent's system.
func isAbsolute(p string) bool {
	drive := len(p) >= 3 && p[1] == ':' && (p[2] == '\\' || p[2] == '/')
	return path.IsAbs(p) || drive || strings.HasPrefix(p, `\\`)
}

// namesFolder reports whether a task's ID may be the name of the folder of its
// files: one with a slash would lead to those of another task.
func namesFolder(id string) bool { return restrictedName(id+"x") && len(id) <= 100 }

// cleanPath is p in the form in which two paths are compared.
func cleanPath(p string) string {
	return path.Clean(strings.ReplaceAll(p, `\`, "/"))
}

// isLocal reports whether the relative path p stays under its base.
func isLocal(p string) bool {
	clean := cleanPath(p)
	return !isAbsolute(p) && clean != ".." && !strings.HasPrefix(clean, "../")
}

// restrictedName reports whether name is one that engines allow for containers,
// which also is safe in the path of a request.
func restrictedName(name string) bool {
	for i, r := range name {
		letter := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
		if !letter && (i == 0 || !strings.ContainsRune("_.-", r)) {
			return false
		}
	}
	return len(name) > 1
}
