package engine_test

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/docker/docker/api/types/image"
	engineapi "github.com/docker/docker/client"
	"github.com/dockerexec/dockerexec"
	"github.com/moby/swarmkit/v2/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// loadImage puts an image of a platform on the engine, which no registry has. It holds
// nothing that runs.
func loadImage(t *testing.T, client *engineapi.Client, architecture, variant string) (name string) {
	t.Helper()
	name = "127.0.0.1:1/platform:" + architecture + variant // nothing listens there
	tarOf := func(files ...string) []byte {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		for i := 0; i < len(files); i += 2 {
			require.NoError(t, w.WriteHeader(&tar.Header{Name: files[i], Mode: 0o644, Size: int64(len(files[i+1]))}))
			_, err := w.Write([]byte(files[i+1]))
			require.NoError(t, err)
		}
		require.NoError(t, w.Close())
		return b.Bytes()
	}
	inJSON := func(value any) string {
		text, err := json.Marshal(value)
		require.NoError(t, err)
		return string(text)
	}
	layer := tarOf("file", name)
	config := inJSON(map[string]any{"os": "linux", "architecture": architecture, "variant": variant, "config": map[string]any{},
		"rootfs": map[string]any{"type": "layers", "diff_ids": []string{fmt.Sprintf("sha256:%x", sha256.Sum256(layer))}}})
	manifest := inJSON([]any{map[string]any{"Config": "config.json", "RepoTags": []string{name}, "Layers": []string{"layer.tar"}}})
	loaded, err := client.ImageLoad(t.Context(), bytes.NewReader(tarOf("config.json", config, "layer.tar", string(layer), "manifest.json", manifest)))
	require.NoError(t, err)
	_, err = io.Copy(io.Discard, loaded.Body)
	require.NoError(t, err)
	require.NoError(t, loaded.Body.Close())
	t.Cleanup(func() {
		_, err := client.ImageRemove(context.WithoutCancel(t.Context()), name, image.RemoveOptions{Force: true})
		assert.NoError(t, err)
	})
	return name
}

// An image that only the engine has is used where it is for the task's platform, and the
// engine then creates the container.
func TestEnginePlatformOfAnImageThatIsThere(t *testing.T) {
	sharesEngine(t)
	client := engineClient(t)
	for _, c := range []struct {
		architecture, variant string
		fits, not             []*api.Platform
	}{
		{"arm64", "v8", []*api.Platform{{OS: "linux"}, {Architecture: "aarch64"}, {OS: "linux", Architecture: "arm64"}},
			[]*api.Platform{{OS: "linux", Architecture: "x86_64"}, {OS: "linux", Architecture: "armhf"}}},
		{"arm", "", []*api.Platform{{OS: "linux"}, {OS: "linux", Architecture: "armv7l"}, {Architecture: "armv7l"}, {OS: "linux", Architecture: "arm"}},
			[]*api.Platform{{OS: "linux", Architecture: "x86_64"}}},
		{"arm", "v7", []*api.Platform{{OS: "linux", Architecture: "armv7l"}, {OS: "linux", Architecture: "aarch64"}},
			[]*api.Platform{{OS: "linux", Architecture: "armv6l"}}},
		{"386", "", []*api.Platform{{OS: "linux"}, {OS: "linux", Architecture: "x86_64"}, {OS: "linux", Architecture: "i686"}},
			[]*api.Platform{{OS: "linux", Architecture: "aarch64"}}},
	} {
		name := loadImage(t, client, c.architecture, c.variant)
		prepare := func(platforms ...*api.Platform) error {
			task := engineTask(t, "sleep", "1m")
			spec(task).Image, spec(task).PullOptions = name, nil
			task.Spec.Placement = &api.Placement{Platforms: platforms}
			controller, err := dockerexec.NewEngine(client, dockerexec.WithPullAttempts(1)).Controller(testNode(), task, nil)
			require.NoError(t, err)
			err = controller.Prepare(t.Context())
			require.NoError(t, controller.Remove(t.Context()))
			return err
		}
		for _, p := range c.fits {
			if err := prepare(p); p.Architecture != "aarch64" && p.Architecture != "x86_64" || c.architecture == "arm64" {
				assert.NoError(t, err, "%s for %v", name, p)
			} else if err != nil { // an engine with containerd's store takes no older architecture: only it can tell
				assert.ErrorContains(t, err, "does not provide the specified platform", "%s for %v", name, p)
			}
		}
		assert.NoError(t, prepare(append(c.not, c.fits[0])...), "%s for one of several", name)
		for _, p := range c.not {
			if isPodman() && c.variant != "" && p.Architecture == "armv6l" {
				continue // its images do not tell their variant
			}
			err := prepare(p)
			require.Error(t, err, "%s for %v", name, p)
			assert.True(t, strings.HasPrefix(err.Error(), "pull image "+name), "%v", err)
		}
	}
}

// What the engine says at a create that it will not do, is a warning with the field.
func TestEngineWarnsAtACreate(t *testing.T) {
	sharesEngine(t)
	client := engineClient(t)
	image := loadImage(t, client, "s390x", "")
	for name, test := range map[string]struct {
		change func(*api.Task)
		want   string
	}{
		"an image of another platform": {func(task *api.Task) { spec(task).Image = image },
			"task field Spec.Placement.Platforms: the engine warns: The requested image's platform (linux/s390x) does not match the detected host platform ("},
		"ports in the network host": {func(task *api.Task) {
			attachTo(task, "host")
			task.Endpoint = &api.Endpoint{Ports: []*api.PortConfig{{TargetPort: 18091, PublishedPort: 18091, PublishMode: api.PublishModeHost}}}
		}, "task field Endpoint.Ports: the engine warns: Published ports are discarded when using host network mode"},
	} {
		t.Run(name, func(t *testing.T) {
			warmImage(t, client)
			task := engineTask(t, "exit", "0")
			test.change(task)
			ctx, lines := logged(t)
			require.NoError(t, engineAdapter(t, client, task).Create(ctx))
			if isPodman() {
				require.Empty(t, lines.warnings())
				return
			}
			require.Len(t, lines.warnings(), 1)
			assert.Contains(t, lines.warnings()[0], test.want)
		})
	}
}
