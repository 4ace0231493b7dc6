package dockerexec

import (
	"maps"
	"slices"
)

// cloneList and cloneMap return nil for what is empty, as an engine would read it.
func cloneList(list []string) []string {
	if len(list) == 0 {
		return nil
	}
	return slices.Clone(list)
}

func cloneMap(m map[string]string) map[string]string {
	if len(m) == 0 {
		return nil
	}
	return maps.Clone(m)
}
