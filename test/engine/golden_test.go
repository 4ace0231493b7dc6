package engine_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/api/types/volume"
	engineapi "github.com/docker/docker/client"
	"github.com/dockerexec/dockerexec"
	"github.com/gogo/protobuf/jsonpb"
	"github.com/moby/swarmkit/v2/agent/exec"
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

// notOnPodman says how Podman refuses golden requests; empty: it takes what notOnLinux has.
var notOnPodman = map[string]string{
	"isolation":         "",
	"isolation-process": "",

	"mount-named-pipe":         `invalid filesystem type "npipe"`,
	"log-driver-of-spec":       "invalid log driver",
	"mount-tmpfs-options-json": `unknown mount option "uid=1000"`,
	"mount-tmpfs-options-list": `unknown mount option "uid=1000"`,
	"mount-volume-options":     "volume options size and inodes not supported",
	"templates":                "volume options size and inodes not supported",
	"network-predefined-label": "unable to find network with name or ID nat",
	"ports":                    "protocol SCTP is not allowed for exposed ports",
	"seccomp-custom":           "opening seccomp profile failed",
}

// TestEngineAcceptsGoldenRequests creates and removes each golden request. What
// this engine is too old for is refused before anything is made; what it does
// not have by its nature is in notOnLinux.
func TestEngineAcceptsGoldenRequests(t *testing.T) {
	client := engineClient(t)
	tagGoldenImage(t, client)
	for _, name := range goldenNames(t) {
		t.Run(name, func(t *testing.T) {
			task, request := readGolden(t, name)
			adapter, err := dockerexec.NewEngine(client).Adapter(testNode(), task, anyPayload{})
			require.NoError(t, err)
			if from := configNetwork(task); from != "" {
				_, err := client.NetworkCreate(t.Context(), from, network.CreateOptions{ConfigOnly: true})
				require.NoError(t, err)
				t.Cleanup(func() { assert.NoError(t, client.NetworkRemove(context.Background(), from)) })
			}
			t.Cleanup(func() { removeGolden(t, client, adapter, request) })

			if tooOld := request.refusal(t, client.ClientVersion()); tooOld != "" {
				assert.EqualError(t, adapter.CreateNetworks(t.Context()), tooOld)
				assert.EqualError(t, adapter.Create(t.Context()), tooOld)
				return
			}
			require.NoError(t, adapter.CreateNetworks(t.Context()))
			err = adapter.CreateVolumes(t.Context())
			if err == nil {
				err = adapter.Create(t.Context())
			}
			why := notOnLinux[name]
			if other, is := notOnPodman[name]; is && isPodman() {
				why = other
			}
			if why != "" {
				require.ErrorContains(t, err, why)
				return
			}
			require.NoError(t, err)

			// It is in its networks and in no other, whatever the API version.
			container, err := adapter.Inspect(t.Context())
			require.NoError(t, err)
			if joined := slices.Sorted(maps.Keys(request.NetworkingConfig.EndpointsConfig)); len(joined) > 0 {
				if i := slices.Index(joined, "bridge"); i >= 0 && isPodman() { // has another name there
					joined[i] = "podman"
				}
				assert.Equal(t, joined, slices.Sorted(maps.Keys(container.NetworkSettings.Networks)))
			}
		})
	}
}

// goldenTasks is the folder of the golden requests, which the package's unit tests
// describe and check.
const goldenTasks = "../../testdata/tasks/"

// goldenNames lists the concerns.
func goldenNames(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob(goldenTasks + "*.task.json")
	require.NoError(t, err)
	require.GreaterOrEqual(t, len(files), 40)
	var names []string
	for _, file := range files {
		names = append(names, strings.TrimSuffix(filepath.Base(file), ".task.json"))
	}
	return names
}

// goldenRequest is what this test needs of a request.
type goldenRequest struct {
	Needs            []string // of the engine: "FIELD VERSION" each
	NetworkingConfig struct{ EndpointsConfig map[string]any }
	HostConfig       struct{ Mounts []struct{ Source string } }
}

// refusal is the error of a task on an engine with that API version, or empty.
func (r goldenRequest) refusal(t *testing.T, version string) string {
	t.Helper()
	for _, need := range r.Needs {
		field, since, found := strings.Cut(need, " ")
		require.True(t, found, need)
		if !atLeast(version, since) {
			return "dockerexec: task field " + field + ": needs API version " + since + " of the engine, in use is " + version
		}
	}
	return ""
}

func readGolden(t *testing.T, name string) (*api.Task, goldenRequest) {
	t.Helper()
	text, err := os.ReadFile(goldenTasks + name + ".task.json")
	require.NoError(t, err)
	var task api.Task
	require.NoError(t, jsonpb.Unmarshal(bytes.NewReader(text), &task)) // encoding/json cannot fill a oneof
	text, err = os.ReadFile(goldenTasks + name + ".request.json")
	require.NoError(t, err)
	var request goldenRequest
	require.NoError(t, json.Unmarshal(text, &request))
	return &task, request
}

// anyPayload has every secret and config.
type anyPayload struct{}

func (anyPayload) Secrets() exec.SecretGetter { return anySecret{} }
func (anyPayload) Configs() exec.ConfigGetter { return anyConfig{} }
func (anyPayload) Volumes() exec.VolumeGetter { return anyVolume{} }

type anySecret struct{}

func (anySecret) Get(id string) (*api.Secret, error) {
	return &api.Secret{ID: id, Spec: api.SecretSpec{Data: []byte("payload")}}, nil
}

type anyConfig struct{}

func (anyConfig) Get(id string) (*api.Config, error) {
	return &api.Config{ID: id, Spec: api.ConfigSpec{Data: []byte("payload")}}, nil
}

// anyVolume says that every cluster volume is published at a path that each host has.
type anyVolume struct{}

func (anyVolume) Get(string) (string, error) { return "/etc", nil }

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

func removeGolden(t *testing.T, client *engineapi.Client, adapter *dockerexec.ContainerAdapter, request goldenRequest) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	assert.NoError(t, adapter.Remove(ctx))
	assert.NoError(t, adapter.RemoveNetworks(ctx))
	volumes, err := client.VolumeList(ctx, volume.ListOptions{})
	assert.NoError(t, err)
	for _, v := range volumes.Volumes {
		for _, m := range request.HostConfig.Mounts {
			if m.Source == v.Name {
				assert.NoError(t, client.VolumeRemove(ctx, v.Name, false))
			}
		}
	}
}
