package engine_test

import (
	"testing"

	"github.com/docker/docker/api/types/versions"
	"github.com/dockerexec/dockerexec/dockerexectest/conformance"
)

// The engine for tests is held to the same statements.
func TestEngineConformance(t *testing.T) {
	client := engineClient(t)
	warmImage(t, client)
	f := conformance.Fixture{Client: client, Dialect: conformance.DockerV29, Image: fromHarness(t, "DOCKEREXEC_TEST_IMAGE")}
	if versions.LessThan(client.ClientVersion(), "1.42") {
		f.Dialect = conformance.DockerV20
	}
	conformance.Run(t, f)
}
