package engine_test

import (
	"archive/tar"
	"bytes"
	"io"
	"testing"

	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/api/types/versions"
	engineapi "github.com/docker/docker/client"
	"github.com/dockerexec/dockerexec/dockerexectest/conformance"
	"github.com/moby/swarmkit/v2/identity"
	"github.com/stretchr/testify/require"
)

// The engine for tests is held to the same statements, in its own unit tests.
func TestEngineConformance(t *testing.T) {
	client := engineClient(t)
	warmImage(t, client)
	f := conformance.Fixture{Client: client, Dialect: conformance.DockerV29, Image: fromHarness(t, "DOCKEREXEC_TEST_IMAGE"),
		Registry: &conformance.Registry{
			Private: fromHarness(t, "DOCKEREXEC_TEST_IMAGE"), Fresh: freshImage(t, client),
			Username: fromHarness(t, "DOCKEREXEC_TEST_USER"), Password: fromHarness(t, "DOCKEREXEC_TEST_PASSWORD"),
		}}
	switch {
	case isPodman():
		f.Dialect = conformance.PodmanV4
	case versions.LessThan(client.ClientVersion(), "1.42"):
		f.Dialect = conformance.DockerV20
	}
	if isPrivate() && !isPodman() {
		f.Restart = func() { controlEngine(t, "restart", "--no-live-restore") }
		t.Cleanup(func() { controlEngine(t, "restart") })
	}
	conformance.Run(t, f)
}

// freshImage puts an image of one layer into the registry, which is not on the
// engine then, and returns its reference.
func freshImage(t *testing.T, client *engineapi.Client) string {
	t.Helper()
	var layer bytes.Buffer
	w := tar.NewWriter(&layer)
	content := []byte(identity.NewID())
	require.NoError(t, w.WriteHeader(&tar.Header{Name: "fresh", Mode: 0o644, Size: int64(len(content))}))
	_, err := w.Write(content)
	require.NoError(t, err)
	require.NoError(t, w.Close())
	ref := fromHarness(t, "DOCKEREXEC_TEST_REGISTRY") + "/conformance/fresh:1"
	whole := func(body io.ReadCloser, err error) {
		t.Helper()
		require.NoError(t, err)
		text, err := io.ReadAll(body)
		require.NoError(t, err)
		require.NoError(t, body.Close())
		require.NotContains(t, string(text), "errorDetail")
	}
	whole(client.ImageImport(t.Context(), image.ImportSource{Source: &layer, SourceName: "-"}, ref, image.ImportOptions{Changes: []string{`CMD ["/fresh"]`}}))
	whole(client.ImagePush(t.Context(), ref, image.PushOptions{RegistryAuth: engineAuth(t)}))
	_, err = client.ImageRemove(t.Context(), ref, image.RemoveOptions{Force: true})
	require.NoError(t, err)
	return ref
}
