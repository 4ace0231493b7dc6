package dockerexectest_test

import (
	"encoding/json"
	"testing"
	"testing/synctest"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/mount"
	engineapi "github.com/docker/docker/client"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockerexec/dockerexec/dockerexectest"
)

func TestCreateIsRefused(t *testing.T) {
	eachDialect(t, func(t *testing.T, e *dockerexectest.Engine, c *engineapi.Client, d dockerexectest.Dialect) {
		e.LocalImage("example/web:1", nil)
		taken := e.AddContainer("taken", nil).ID()
		e.RemoveHostPath("/nosuch")
		for _, test := range []struct {
			name, ref string
			change    func(*container.Config, *container.HostConfig)
			want      [3]string // by dialect; empty: it succeeds
		}{
			{"taken", "example/web:1", nil, [3]string{
				`Conflict. The container name "/taken" is already in use by container "` + taken + `". You have to remove (or rename) that container to be able to reuse that name.`,
				`Conflict. The container name "/taken" is already in use by container "` + taken + `". You have to remove (or rename) that container to be able to reuse that name.`,
				`container create: creating container storage: the container name "taken" is already in use by ` + taken + `. You have to remove that container to be able to reuse that name: that name is already in use`,
			}},
			{"x", "example/web:1", nil, [3]string{
				"Invalid container name (x), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed", "Invalid container name (x), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed", "Invalid container name (x), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"}},
			{"web", "nosuch", nil, [3]string{"No such image: nosuch:latest", "No such image: nosuch:latest", "no such image: docker.io/library/nosuch:latest: image not known"}},
			{"web", "example/web:1", func(_ *container.Config, h *container.HostConfig) { h.NanoCPUs = 3e9 }, [3]string{
				"range of CPUs is from 0.01 to 2.00, as there are only 2 CPUs available", "Range of CPUs is from 0.01 to 2.00, as there are only 2 CPUs available", ""}},
			{"web", "example/web:1", func(_ *container.Config, h *container.HostConfig) {
				h.Mounts = []mount.Mount{{Type: "x", Target: "/x"}}
			}, [3]string{
				`invalid mount config for type "x": mount type unknown`, `invalid mount config for type "x": mount type unknown`, `invalid mount config for type "x": mount type unknown`}},
			{"web", "example/web:1", func(_ *container.Config, h *container.HostConfig) {
				h.Mounts = []mount.Mount{{Type: mount.TypeTmpfs, Target: "/x"}, {Type: mount.TypeTmpfs, Target: "/x"}}
			}, [3]string{"Duplicate mount point: /x", "Duplicate mount point: /x", "Duplicate mount point: /x"}},
			{"web", "example/web:1", func(_ *container.Config, h *container.HostConfig) {
				h.Mounts = []mount.Mount{{Type: mount.TypeBind, Source: "/nosuch", Target: "/x"}}
			}, [3]string{`invalid mount config for type "bind": bind source path does not exist: /nosuch`, `invalid mount config for type "bind": bind source path does not exist: /nosuch`, ""}},
			{"web", "example/web:1", func(_ *container.Config, h *container.HostConfig) {
				h.Mounts = []mount.Mount{{Type: mount.TypeBind, Source: "/nosuch", Target: "/x", BindOptions: &mount.BindOptions{CreateMountpoint: true}}}
			}, [3]string{"", `invalid mount config for type "bind": bind source path does not exist: /nosuch`, ""}},
			{"web", "example/web:1", func(c *container.Config, _ *container.HostConfig) { c.StopSignal = "NOSUCH" }, [3]string{"invalid signal: NOSUCH", "Invalid signal: NOSUCH", "invalid signal: NOSUCH"}},
			{"web", "example/web:1", func(_ *container.Config, h *container.HostConfig) { h.RestartPolicy.Name = "nosuch" }, [3]string{
				"invalid restart policy: unknown policy 'nosuch'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'", "invalid restart policy 'nosuch'", ""}},
		} {
			config, hostConfig := &container.Config{Image: test.ref}, &container.HostConfig{}
			if test.change != nil {
				test.change(config, hostConfig)
			}
			_, err := c.ContainerCreate(t.Context(), config, hostConfig, nil, nil, test.name)
			if test.want[d] == "" {
				require.NoError(t, err)
				require.NoError(t, c.ContainerStart(t.Context(), test.name, container.StartOptions{}))
				require.NoError(t, c.ContainerRemove(t.Context(), test.name, container.RemoveOptions{Force: true}))
				continue
			}
			require.EqualError(t, err, "Error response from daemon: "+test.want[d])
		}
		assert.Len(t, e.Containers(), 1)
		if d != dockerexectest.PodmanV4 {
			_, err := c.ContainerCreate(t.Context(), &container.Config{Image: "example/web:1"}, nil, nil, &ocispec.Platform{OS: "linux", Architecture: "arm64"}, "web")
			require.EqualError(t, err, "Error response from daemon: image with reference example/web:1 was found but does not "+each(d,
				"provide the specified platform (linux/arm64)", "match the specified platform: wanted linux/arm64, actual: linux/amd64", ""))
			require.True(t, cerrdefs.IsNotFound(err))
			e.LocalImage("example/arm:1", nil, dockerexectest.WithPlatforms("linux/arm"))
			for _, fits := range []struct {
				image    string
				platform ocispec.Platform
			}{{"example/web:1", ocispec.Platform{Architecture: "amd64"}}, {"example/arm:1", ocispec.Platform{OS: "linux", Architecture: "arm", Variant: "v7"}}} {
				_, err := c.ContainerCreate(t.Context(), &container.Config{Image: fits.image}, nil, nil, &fits.platform, "")
				require.NoError(t, err, fits.image)
			}
		}
	})
}

func TestNamesAndIDs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := dockerexectest.New(t)
		c := e.Client()
		e.LocalImage("example/web:1", nil)
		id := create(t, c, "web", "example/web:1")
		other := create(t, c, "other", "example/web:1")
		unnamed := create(t, c, "", "example/web:1")
		assert.Len(t, id, 64)
		for _, name := range []string{"web", id, id[:12], "/web"} {
			answer, err := c.ContainerInspect(t.Context(), name)
			require.NoError(t, err)
			assert.Equal(t, "/web", answer.Name)
			assert.Equal(t, id, answer.ID)
		}
		require.EqualError(t, c.ContainerRename(t.Context(), "web", "other"), `Error response from daemon: Error when allocating new name: Conflict. The container name "/other" is already in use by container "`+other+`". You have to remove (or rename) that container to be able to reuse that name.`)
		require.EqualError(t, c.ContainerRename(t.Context(), "web", "web"), "Error response from daemon: Renaming a container with the same name as its current name")
		require.NoError(t, c.ContainerRename(t.Context(), "web", "renamed"))
		assert.Nil(t, e.Container("web"))
		assert.Equal(t, id, e.Container("renamed").ID())
		e.Container("renamed").Rename("again")
		assert.Equal(t, "/again", e.Container("again").Inspect().Name)
		answer, err := c.ContainerInspect(t.Context(), unnamed)
		require.NoError(t, err)
		assert.NotEqual(t, "/", answer.Name)
		assert.Len(t, e.Containers(), 3)
	})
}

func TestInspect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := dockerexectest.New(t)
		c := e.Client()
		e.LocalImage("example/web:1", dockerexectest.ExitAfter(time.Second, 0), dockerexectest.WithConfig(func(c *container.Config) {
			c.Entrypoint, c.Cmd, c.Env, c.Labels = []string{"/web"}, []string{"serve"}, []string{"A=1", "B=2"}, map[string]string{"of": "image", "both": "image"}
		}))
		create(t, c, "web", "example/web:1", func(config *container.Config, _ *container.HostConfig) {
			config.Env, config.Labels = []string{"B=3", "C=4"}, map[string]string{"both": "container"}
		})
		created, err := c.ContainerInspect(t.Context(), "web")
		require.NoError(t, err)
		assert.Equal(t, "/web", created.Path)
		assert.Equal(t, []string{"serve"}, created.Args)
		assert.Equal(t, []string{"B=3", "C=4", "A=1"}, created.Config.Env)
		assert.Equal(t, map[string]string{"of": "image", "both": "container"}, created.Config.Labels)
		assert.Equal(t, created.ID[:12], created.Config.Hostname)
		assert.Equal(t, "0001-01-01T00:00:00Z", created.State.StartedAt)
		assert.Equal(t, "0001-01-01T00:00:00Z", created.State.FinishedAt)
		assert.EqualValues(t, "bridge", created.HostConfig.NetworkMode)
		assert.EqualValues(t, "no", created.HostConfig.RestartPolicy.Name)
		assert.Nil(t, created.State.Health)
		start(t, c, "web")
		assert.Equal(t, "0001-01-01T00:00:00Z", state(t, c, "web").FinishedAt)
		untilEnd(t, c, "web")
		ended := state(t, c, "web")
		started, err := time.Parse(time.RFC3339Nano, ended.StartedAt)
		require.NoError(t, err)
		finished, err := time.Parse(time.RFC3339Nano, ended.FinishedAt)
		require.NoError(t, err)
		assert.Equal(t, time.Second, finished.Sub(started).Round(time.Millisecond))
		own, err := json.Marshal(e.Container("web").Inspect().State)
		require.NoError(t, err)
		asked, err := json.Marshal(ended)
		require.NoError(t, err)
		assert.Equal(t, string(asked), string(own))
	})
}

func TestList(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := dockerexectest.New(t)
		c := e.Client()
		running(t, e, c, "runs", dockerexectest.UntilStopped(0))
		running(t, e, c, "ended", dockerexectest.Exit(4), func(c *container.Config, _ *container.HostConfig) {
			c.Labels = map[string]string{"x": "1", "empty": ""}
		})
		synctest.Wait()
		create(t, c, "created", "example/runs:1")
		for _, test := range []struct {
			options container.ListOptions
			want    []string
		}{
			{container.ListOptions{}, []string{"/runs"}},
			{container.ListOptions{All: true}, []string{"/created", "/ended", "/runs"}},
			{container.ListOptions{Limit: 2}, []string{"/created", "/ended"}},
			{container.ListOptions{Filters: filters.NewArgs(filters.Arg("status", "exited"))}, []string{"/ended"}},
			{container.ListOptions{All: true, Filters: filters.NewArgs(filters.Arg("label", "x"))}, []string{"/ended"}},
			{container.ListOptions{All: true, Filters: filters.NewArgs(filters.Arg("label", "x=2"))}, nil},
			{container.ListOptions{All: true, Filters: filters.NewArgs(filters.Arg("label", "empty="))}, []string{"/ended"}},
			{container.ListOptions{Filters: filters.NewArgs(filters.Arg("exited", "4"))}, nil},
			{container.ListOptions{All: true, Filters: filters.NewArgs(filters.Arg("exited", "4"))}, []string{"/ended"}},
			{container.ListOptions{All: true, Filters: filters.NewArgs(filters.Arg("name", "e"), filters.Arg("ancestor", "example/runs:1"))}, []string{"/created"}},
			{container.ListOptions{All: true, Filters: filters.NewArgs(filters.Arg("before", "ended"))}, []string{"/runs"}},
			{container.ListOptions{All: true, Filters: filters.NewArgs(filters.Arg("since", "ended"))}, []string{"/created"}},
			{container.ListOptions{All: true, Filters: filters.NewArgs(filters.Arg("network", "bridge"), filters.Arg("health", "none"))}, []string{"/created", "/ended", "/runs"}},
			{container.ListOptions{All: true, Filters: filters.NewArgs(filters.Arg("is-task", "true"))}, nil},
		} {
			list, err := c.ContainerList(t.Context(), test.options)
			require.NoError(t, err)
			var names []string
			for _, s := range list {
				names = append(names, s.Names[0])
			}
			assert.Equal(t, test.want, names, "%+v", test.options)
		}
		_, err := c.ContainerList(t.Context(), container.ListOptions{Filters: filters.NewArgs(filters.Arg("nosuch", "x"))})
		require.EqualError(t, err, "Error response from daemon: invalid filter 'nosuch'")
		list, err := c.ContainerList(t.Context(), container.ListOptions{All: true, Filters: filters.NewArgs(filters.Arg("name", "ended"))})
		require.NoError(t, err)
		require.Len(t, list, 1)
		assert.Equal(t, "Exited (4) Less than a second ago", list[0].Status)
		assert.Equal(t, "example/ended:1", list[0].Image)
	})
}
