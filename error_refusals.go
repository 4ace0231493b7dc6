package dockerexec

import cerrdefs "github.com/containerd/errdefs"

// isRefusal reports whether the engine refused what it was asked for: asked
// again, it would answer the same.
func isRefusal(err error) bool {
	return cerrdefs.IsInvalidArgument(err) || cerrdefs.IsUnauthorized(err) ||
		cerrdefs.IsPermissionDenied(err) || cerrdefs.IsNotImplemented(err)
}
