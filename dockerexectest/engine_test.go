package dockerexectest_test

import (
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/image"
	engineapi "github.com/docker/docker/client"
	"github.com/dockerexec/dockerexec/dockerexectest"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestALife(t *testing.T) {
	eachDialect(t, func(t *testing.T, e *dockerexectest.Engine, c *engineapi.Client, _ dockerexectest.Dialect) {
		e.Image("example/web:1", dockerexectest.Print(dockerexectest.ExitAfter(10*time.Second, 3), "one", "two"))
		_, err := pull(t, c, "example/web:1", image.PullOptions{})
		require.NoError(t, err)
		create(t, c, "web", "example/web:1")
		assert.Equal(t, "created", state(t, c, "web").Status)
		began := time.Now()
		start(t, c, "web")
		assert.Equal(t, "running", state(t, c, "web").Status)
		assert.EqualValues(t, 3, untilEnd(t, c, "web"))
		assert.Equal(t, 10*time.Second, time.Since(began))
		time.Sleep(time.Second)
		ended := state(t, c, "web")
		assert.Equal(t, "exited", ended.Status)
		assert.Equal(t, 3, ended.ExitCode)
		text, err := logs(t, c, "web", container.LogsOptions{})
		require.NoError(t, err)
		assert.Equal(t, "out: one\nout: two\n", text)
		require.NoError(t, c.ContainerRemove(t.Context(), "web", container.RemoveOptions{}))
		assert.Empty(t, e.Containers())
		assert.Equal(t, 1, e.Requests().Count("POST /containers/*/start"))
	})
}
