//go:build linux

package engine_test

import (
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"

	"github.com/dockerexec/dockerexec"
	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The process has a container of its own, and the folder of the files there is
// not the host's.
func TestEngineThatIsElsewhereDoesNotSeeTheFiles(t *testing.T) {
	sharesEngine(t)
	client, dir := engineClient(t), secretsDir(t)
	task := engineTask(t, "exit", "0")
	addFiles(task)
	adapter := filesAdapter(t, client, dir, task, filesDeps())
	require.NoError(t, adapter.PullImage(t.Context()))

	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlock it: the thread ends, and its mounts with it
		done <- func() error {
			if err := os.MkdirAll(dir, 0o700); err != nil {
				return err
			}
			if err := syscall.Unshare(syscall.CLONE_FS | syscall.CLONE_NEWNS); err != nil {
				return err
			}
			if err := syscall.Mount("none", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
				return err
			}
			if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "mode=700"); err != nil {
				return err
			}
			return adapter.Create(t.Context())
		}()
	}()
	err := <-done
	require.ErrorContains(t, err, "the engine does not see the files in "+dir+"/")
	require.ErrorContains(t, err, "mount the host's "+dir+" there at the same path, or name a folder that both see with WithSecretsDir: ")
	assert.False(t, exec.IsTemporary(err), err)
	t.Log(err)
	_, err = adapter.Inspect(t.Context())
	assert.True(t, dockerexec.IsUnknownContainer(err), err)
	assert.Empty(t, tree(t, dir), "the engine has made nothing in the place of a file")
}

func TestEngineRefusesFilesOnADisk(t *testing.T) {
	sharesEngine(t)
	client := engineClient(t)
	task := engineTask(t, "exit", "0")
	addFiles(task)
	dir := filepath.Join(fromHarness(t, "DOCKEREXEC_TEST_DIR"), "secrets")
	err := filesAdapter(t, client, dir, task, filesDeps()).Create(t.Context())
	require.ErrorContains(t, err, "is not on a memory file system")
	assert.NoDirExists(t, dir)
}

// A container from before WithSecretsDir was changed starts as long as its files
// are where they were.
func TestEngineStartsAContainerWithFilesInTheFolderOfBefore(t *testing.T) {
	sharesEngine(t)
	client, before, now := engineClient(t), secretsDir(t), secretsDir(t)
	info, err := client.Info(t.Context())
	require.NoError(t, err)
	for _, gone := range []bool{false, true} {
		task := engineTask(t, "cat", "/run/secrets/password")
		addFiles(task)
		first := filesAdapter(t, client, before, task, filesDeps())
		require.NoError(t, first.PullImage(t.Context()))
		require.NoError(t, first.Create(t.Context()))
		if gone {
			require.NoError(t, os.RemoveAll(before))
		}
		second := filesAdapter(t, client, now, task, filesDeps())
		err := second.Start(t.Context())
		if !gone {
			require.NoError(t, err)
			_, err := second.Wait(t.Context())
			require.NoError(t, err)
			stdout, _ := output(t, client, second.ContainerName())
			assert.Equal(t, canary+" secret\n", stdout)
			continue
		}
		t.Log(err)
		assert.False(t, exec.IsTemporary(err))
		if isPodman() { // does not say what the file is
			require.ErrorContains(t, err, "no such file or directory")
			continue
		}
		require.ErrorContains(t, err, "the container was made with its files in another folder than "+now+
			", and they are gone there; name that folder with WithSecretsDir again, or have the task replaced: ")
		require.ErrorContains(t, err, before+"/"+info.ID+"/"+task.ID+"/")
	}
}
