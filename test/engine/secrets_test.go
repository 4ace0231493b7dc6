package engine_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/moby/swarmkit/v2/api"
	pkgerrors "github.com/pkg/errors"
	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Engines quote the options of a volume whose mount fails. There is no such server, or
// the kernel does not know the file system: either way the engine says so with all of
// them.
func TestEngineErrorOfAMountShowsNoPassword(t *testing.T) {
	sharesEngine(t)
	client := engineClient(t)
	for kind, options := range map[string]map[string]string{
		"cifs": {"type": "cifs", "device": "//127.0.0.1/share", "o": "addr=127.0.0.1,username=alice,password=Sup3rS3cret"},
		"nfs":  {"type": "nfs", "device": ":/share", "o": "addr=127.0.0.1,nolock,soft,retry=0,timeo=1,secret=Sup3rS3cret"},
	} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			task := engineTask(t, "sleep", "1m")
			name := "share-" + kind + "-" + task.ID
			spec(task).Mounts = []api.Mount{{Type: api.MountTypeVolume, Source: name, Target: "/share",
				VolumeOptions: &api.Mount_VolumeOptions{NoCopy: true, DriverConfig: &api.Driver{Name: "local", Options: options}}}}
			t.Cleanup(func() { assert.NoError(t, client.VolumeRemove(context.WithoutCancel(t.Context()), name, true)) })
			adapter := engineAdapter(t, client, task)
			ctx, lines := logged(t)

			var failed []error
			for _, step := range []func() error{
				func() error { return adapter.CreateVolumes(ctx) },
				func() error { return adapter.PullImage(ctx) },
				func() error { return adapter.Create(ctx) },
				func() error { return adapter.Start(ctx) },
			} {
				if err := step(); err != nil {
					failed = append(failed, err)
				}
			}
			require.NotEmpty(t, failed, "the mount has failed")
			for _, err := range failed {
				t.Logf("%v", err)
				said := fmt.Sprintf("%v %+v %#v %v", err, err, err, pkgerrors.Cause(err))
				for e := err; e != nil; e = errors.Unwrap(e) {
					said += fmt.Sprintf(" %v %+v", e, e)
				}
				assert.NotContains(t, said, "Sup3rS3cret")
				assert.NotContains(t, said, "alice")
				assert.False(t, exec.IsTemporary(err))
			}
			last := failed[len(failed)-1].Error()
			if isPodman() { // does not name the device
				assert.Contains(t, last, "mounting volume "+name+" for container ")
			} else {
				assert.Contains(t, last, "failed to mount local volume: mount ")
				assert.Contains(t, last, options["device"], "paths stay readable")
			}
			assert.Contains(t, last, "data: ")
			assert.NotContains(t, fmt.Sprint(lines.at(logrus.DebugLevel)), "Sup3rS3cret")
		})
	}
}
