package dockerexectest_test

import (
	"testing"
	"testing/synctest"

	"github.com/docker/docker/api/types/container"
	"github.com/dockerexec/dockerexec/dockerexectest"
	"github.com/dockerexec/dockerexec/dockerexectest/conformance"
)

// What the statements say of running engines, it says of this one.
func TestConformance(t *testing.T) {
	t.Parallel()
	for fake, dialect := range map[dockerexectest.Dialect]conformance.Dialect{
		dockerexectest.DockerV29: conformance.DockerV29, dockerexectest.DockerV20: conformance.DockerV20, dockerexectest.PodmanV4: conformance.PodmanV4,
	} {
		t.Run(dialect.String(), func(t *testing.T) {
			t.Parallel()
			for _, s := range conformance.Statements() {
				t.Run(s.Name, func(t *testing.T) {
					if why := s.Skips(conformance.Fixture{Dialect: dialect}); why != "" {
						t.Skip(why)
					}
					synctest.Test(t, func(t *testing.T) {
						s.Check(t, conformanceFixture(dockerexectest.New(t, dockerexectest.WithDialect(fake)), dialect))
					})
				})
			}
		})
	}
}

const conformanceImage = "registry.test/testtask:1"

func conformanceFixture(e *dockerexectest.Engine, d conformance.Dialect) conformance.Fixture {
	isTesttask := []dockerexectest.ImageOption{dockerexectest.WithProbe(testtask), dockerexectest.WithExecutables("/testtask"),
		dockerexectest.WithConfig(func(c *container.Config) {
			c.Entrypoint, c.Cmd, c.Env = []string{"/testtask"}, []string{"print", "3"}, []string{"PATH=/", "FROM_IMAGE=yes"}
		})}
	e.LocalImage(conformanceImage, testtask, isTesttask...)
	return conformance.Fixture{Client: e.Client(), Dialect: d, Image: conformanceImage}
}
