package dockerexec

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// Each error says what was being done, and where.
func TestStoreErrorsNameTheFolder(t *testing.T) {
	t.Parallel()
	s := newTestStore(t)
	require.NoError(t, os.MkdirAll(s.dir, 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(s.dir, "engine"), nil, 0o600))
	const why = "engine is no folder, or a link to one"
	_, err := s.missing("engine", "t1", nil)
	require.EqualError(t, err, "look for the files of secrets and configs in "+s.dir+"/engine/t1: "+s.dir+"/"+why)
	require.EqualError(t, s.remove("engine", "t1"), "remove the files of secrets and configs in "+s.dir+"/engine/t1: "+s.dir+"/"+why)
	for _, id := range []string{"", ".", "..", "a/b", "/a"} {
		const odd = " cannot name a folder"
		_, err = s.write("engine", id, nil)
		require.ErrorContains(t, err, odd)
		_, err = s.missing("engine", id, nil)
		require.ErrorContains(t, err, odd)
		require.ErrorContains(t, s.remove("engine", id), odd)
	}
	_, err = s.tasks("engine")
	require.EqualError(t, err, "list the tasks with files of secrets and configs in "+s.dir+"/engine: "+s.dir+"/"+why)
}
