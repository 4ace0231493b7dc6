package dockerexec

import "strings"

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
