package dockerexectest_test

import (
	"io"
	"testing"
	"testing/synctest"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/api/types/registry"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockerexec/dockerexec/dockerexectest"
	"github.com/dockerexec/dockerexec/dockerexectest/conformance"
)

// What the statements say of running engines, they say of this one.
func TestConformance(t *testing.T) {
	t.Parallel()
	for fake, dialect := range map[dockerexectest.Dialect]conformance.Dialect{
		dockerexectest.DockerV29: conformance.DockerV29, dockerexectest.DockerV20: conformance.DockerV20, dockerexectest.PodmanV4: conformance.PodmanV4,
	} {
		t.Run(dialect.String(), func(t *testing.T) {
			t.Parallel()
			for _, s := range conformance.Statements() {
				t.Run(s.Name, func(t *testing.T) {
					f := conformance.Fixture{Dialect: dialect, Registry: &conformance.Registry{}, Restart: func() {}}
					if why := s.Skips(f); why != "" {
						t.Skip(why)
					}
					synctest.Test(t, func(t *testing.T) {
						s.Check(t, conformanceFixture(t, dockerexectest.New(t, dockerexectest.WithDialect(fake)), dialect))
					})
				})
			}
		})
	}
}

// A name in a table tells one statement.
func TestStatementsHaveNamesOfTheirOwn(t *testing.T) {
	t.Parallel()
	known := map[string]bool{}
	for _, s := range conformance.Statements() {
		assert.False(t, known[s.Name], s.Name)
		known[s.Name] = true
	}
	assert.Greater(t, len(known), 400)
}

// conformanceFixture is what an engine for tests has to offer.
func conformanceFixture(t *testing.T, e *dockerexectest.Engine, d conformance.Dialect) conformance.Fixture {
	t.Helper()
	const private, fresh, password = "registry.test/testtask:1", "registry.test/fresh:1", "canary-password"
	options := []dockerexectest.ImageOption{
		dockerexectest.WithCredentials("tester", password), dockerexectest.WithProbe(testtask), dockerexectest.WithExecutables("/testtask"),
		dockerexectest.WithConfig(func(c *container.Config) {
			c.Entrypoint, c.Cmd, c.Env = []string{"/testtask"}, []string{"print", "3"}, []string{"PATH=/", "FROM_IMAGE=yes"}
		}),
	}
	e.Image(private, testtask, options...)
	e.Image(fresh, testtask, options...)
	c := e.Client()
	auth, err := registry.EncodeAuthConfig(registry.AuthConfig{Username: "tester", Password: password})
	require.NoError(t, err)
	body, err := c.ImagePull(t.Context(), private, image.PullOptions{RegistryAuth: auth})
	require.NoError(t, err)
	_, err = io.Copy(io.Discard, body)
	require.NoError(t, err)
	require.NoError(t, body.Close())
	return conformance.Fixture{
		Client: c, Dialect: d, Image: private,
		Registry: &conformance.Registry{Private: private, Username: "tester", Password: password, Fresh: fresh},
		Restart:  func() { e.Restart(dockerexectest.RestartOptions{}) },
	}
}
