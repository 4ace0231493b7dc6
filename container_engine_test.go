package dockerexec

import (
	"context"
	"io"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/api/types/volume"
	engineapi "github.com/docker/docker/client"
	"github.com/moby/swarmkit/v2/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// What an engine on Linux does not have, by golden request, and how it says so.
var notOnLinux = map[string]string{
	"isolation":                "hyperv",             // of Windows
	"isolation-process":        "process",            // of Windows
	"mount-named-pipe":         "mount type unknown", // of Windows
	"all-fields":               "hyperv",             // of Windows
	"credential-spec-file":     "credentialspec",     // of Windows
	"credential-spec-registry": "credentialspec",     // of Windows
	"credential-spec-config":   "credentialspec",     // of Windows
}

// TestEngineAcceptsGoldenRequests creates and removes each golden request. What
// this engine is too old for is refused before anything is made; what it does
// not have by its nature is in notOnLinux.
func TestEngineAcceptsGoldenRequests(t *testing.T) {
	client := engineClient(t)
	tagGoldenImage(t, client)
	for _, name := range goldenNames(t) {
		t.Run(name, func(t *testing.T) {
			task := goldenTask(t, name)
			adapter, err := NewEngine(client).Adapter(goldenNode(), task, anyPayload("payload"))
			require.NoError(t, err)
			if from := configNetwork(task); from != "" {
				_, err := client.NetworkCreate(t.Context(), from, network.CreateOptions{ConfigOnly: true})
				require.NoError(t, err)
				t.Cleanup(func() { assert.NoError(t, client.NetworkRemove(context.Background(), from)) })
			}
			t.Cleanup(func() { removeGolden(t, client, adapter) })

			config, _, err := adapter.fullTask()
			require.NoError(t, err)
			version := client.ClientVersion()
			if tooOld := config.checkVersion(version); tooOld != nil {
				assert.EqualError(t, adapter.CreateNetworks(t.Context()), tooOld.Error())
				assert.EqualError(t, adapter.Create(t.Context()), tooOld.Error())
				return
			}
			require.NoError(t, adapter.CreateNetworks(t.Context()))
			require.NoError(t, adapter.CreateVolumes(t.Context()))
			err = adapter.Create(t.Context())
			if why := notOnLinux[name]; why != "" {
				require.ErrorContains(t, err, why)
				return
			}
			require.NoError(t, err)

			// It is in its networks and in no other, whatever the API version.
			container, err := adapter.Inspect(t.Context())
			require.NoError(t, err)
			if joined := config.endpointNames(); len(joined) > 0 {
				assert.Equal(t, joined, slices.Sorted(maps.Keys(container.NetworkSettings.Networks)))
			}
		})
	}
}

func configNetwork(task *api.Task) string {
	for _, a := range task.Networks {
		if from := a.Network.Spec.GetNetwork(); from != "" {
			return from
		}
	}
	return ""
}

// tagGoldenImage gives the test image the name that the golden requests use.
func tagGoldenImage(t *testing.T, client *engineapi.Client) {
	t.Helper()
	ref := fromHarness(t, "DOCKEREXEC_TEST_IMAGE")
	body, err := client.ImagePull(t.Context(), ref, image.PullOptions{RegistryAuth: engineAuth(t)})
	require.NoError(t, err)
	_, err = io.Copy(io.Discard, body)
	require.NoError(t, err)
	require.NoError(t, body.Close())
	require.NoError(t, client.ImageTag(t.Context(), ref, "example/web:1"))
	t.Cleanup(func() {
		for _, name := range []string{"example/web:1", ref} {
			_, err := client.ImageRemove(context.Background(), name, image.RemoveOptions{})
			assert.NoError(t, err)
		}
	})
}

func removeGolden(t *testing.T, client *engineapi.Client, adapter *ContainerAdapter) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	assert.NoError(t, adapter.Remove(ctx))
	assert.NoError(t, adapter.RemoveNetworks(ctx))
	volumes, err := client.VolumeList(ctx, volume.ListOptions{})
	assert.NoError(t, err)
	config, _, err := adapter.fullTask()
	assert.NoError(t, err)
	for _, v := range volumes.Volumes {
		for _, m := range config.hostConfig().Mounts {
			if m.Source == v.Name {
				assert.NoError(t, client.VolumeRemove(ctx, v.Name, false))
			}
		}
	}
}
