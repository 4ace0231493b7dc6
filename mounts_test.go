package dockerexec

import (
	"context"
	"testing"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/mount"
	"github.com/docker/docker/api/types/volume"
	"github.com/moby/swarmkit/v2/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestVolumeWithoutName(t *testing.T) {
	t.Parallel()
	task := plainTask()
	options := func() *api.Mount_VolumeOptions {
		return &api.Mount_VolumeOptions{DriverConfig: &api.Driver{Name: "local"}}
	}
	spec(task).Mounts = []api.Mount{
		{Type: api.MountTypeVolume, Target: "/a", VolumeOptions: options()},
		{Type: api.MountTypeVolume, Source: "z", Target: "/z", VolumeOptions: options()},
		{Type: api.MountTypeVolume, Source: "y", Target: "/y", VolumeOptions: options()},
		{Type: api.MountTypeVolume, Source: "z", Target: "/z2", VolumeOptions: options()},
		{Type: api.MountTypeVolume, Source: "plain", Target: "/p"},
	}
	config := newTestConfig(t, task)
	assert.Equal(t, []volume.CreateOptions{{Name: "y", Driver: "local"}, {Name: "z", Driver: "local"}}, config.volumes())
	assert.Len(t, config.hostConfig().Mounts, 5)
}

func TestTmpfs(t *testing.T) {
	t.Parallel()
	for options, want := range map[string]string{
		"":                            "",
		"exec":                        "size=1024,exec",
		" NOEXEC , uid=1000":          "size=1024,noexec,uid=1000",
		`[["exec"],["gid","2000"]]`:   "size=1024,exec,gid=2000",
		` [["nosuid"],["mode","5"]] `: "size=1024,nosuid,mode=5",
		"[]":                          "size=1024",
	} {
		task := plainTask()
		withMount(api.Mount{Type: api.MountTypeTmpfs, Target: "/t", TmpfsOptions: &api.Mount_TmpfsOptions{SizeBytes: 1024, Options: options}})(task)
		host := newTestConfig(t, task).hostConfig()
		if want == "" {
			assert.Equal(t, []mount.Mount{{Type: mount.TypeTmpfs, Target: "/t", TmpfsOptions: &mount.TmpfsOptions{SizeBytes: 1024}}}, host.Mounts)
			assert.Nil(t, host.Tmpfs)
		} else {
			assert.Nil(t, host.Mounts, options)
			assert.Equal(t, map[string]string{"/t": want}, host.Tmpfs)
		}
	}
}

// An error about a volume names the driver where the task does.
func TestErrorOfAVolume(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{
		"nfs": "create volume data with driver nfs: Error response from daemon: no",
		"":    "create volume data: Error response from daemon: no",
	} {
		task := plainTask()
		spec(task).Mounts = []api.Mount{{Type: api.MountTypeVolume, Source: "data", Target: "/data",
			VolumeOptions: &api.Mount_VolumeOptions{DriverConfig: &api.Driver{Name: name, Options: map[string]string{"o": "x"}}}}}
		client := newFakeClient(t)
		client.volumeCreate = func(context.Context, volume.CreateOptions) (volume.Volume, error) {
			return volume.Volume{}, answer{"no", cerrdefs.ErrInvalidArgument}
		}
		require.EqualError(t, newTestAdapter(t, client, task).CreateVolumes(t.Context()), want)
	}
}
