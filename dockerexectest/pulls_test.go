package dockerexectest_test

import (
	"context"
	"encoding/base64"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/image"
	engineapi "github.com/docker/docker/client"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockerexec/dockerexec/dockerexectest"
)

func auth(user, password string) string {
	return base64.URLEncoding.EncodeToString([]byte(`{"username":"` + user + `","password":"` + password + `"}`))
}

// The statuses of a pull, without its numbers.
func statuses(stream string) []string {
	var list []string
	for line := range strings.Lines(stream) {
		_, rest, _ := strings.Cut(line, `"status":"`)
		status, _, _ := strings.Cut(rest, `"`)
		if status, _, isDigest := strings.Cut(status, " sha256:"); isDigest {
			list = append(list, status)
			continue
		}
		list = append(list, status)
	}
	return list
}

func TestPull(t *testing.T) {
	eachDialect(t, func(t *testing.T, e *dockerexectest.Engine, c *engineapi.Client, d dockerexectest.Dialect) {
		e.Image("example/web:1", nil)
		stream, err := pull(t, c, "example/web:1", image.PullOptions{})
		require.NoError(t, err)
		assert.Equal(t, [][]string{
			{"Pulling from example/web", "Pulling fs layer", "Download complete", "Extracting", "Pull complete", "Digest:", "Status: Downloaded newer image for example/web:1"},
			{"Pulling from example/web", "Pulling fs layer", "Verifying Checksum", "Download complete", "Extracting", "Extracting", "Pull complete", "Digest:", "Status: Downloaded newer image for example/web:1"},
			{"Pulling from example/web", "Pulling fs layer", "Download complete", "Extracting", "Pull complete", "Digest:", "Status: Downloaded newer image for example/web:1"},
		}[d], statuses(stream))
		stream, err = pull(t, c, "example/web:1", image.PullOptions{})
		require.NoError(t, err)
		assert.Equal(t, []string{"Pulling from example/web", "Digest:", "Status: Image is up to date for example/web:1"}, statuses(stream))

		inspected, err := c.ImageInspect(t.Context(), "example/web:1")
		require.NoError(t, err)
		require.Len(t, inspected.RepoDigests, 1)
		assert.Equal(t, []string{"example/web:1"}, inspected.RepoTags)
		assert.Equal(t, d == dockerexectest.DockerV29, strings.HasSuffix(inspected.RepoDigests[0], inspected.ID)) // the containerd store's IDs
		for _, ref := range []string{inspected.ID, inspected.RepoDigests[0], "docker.io/example/web:1", strings.TrimPrefix(inspected.ID, "sha256:")[:12]} {
			same, err := c.ImageInspect(t.Context(), ref)
			require.NoError(t, err, ref)
			assert.Equal(t, inspected.ID, same.ID)
		}
		_, err = pull(t, c, inspected.RepoDigests[0], image.PullOptions{})
		require.NoError(t, err)
		assert.Equal(t, []string{"example/web:1"}, e.Images())
	})
}

func TestAMovedTag(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := dockerexectest.New(t)
		c := e.Client()
		e.Image("example/web:1", dockerexectest.Exit(1))
		_, err := pull(t, c, "example/web:1", image.PullOptions{})
		require.NoError(t, err)
		create(t, c, "old", "example/web:1")
		e.Image("example/web:1", dockerexectest.Exit(2))
		create(t, c, "older", "example/web:1")
		stream, err := pull(t, c, "example/web:1", image.PullOptions{})
		require.NoError(t, err)
		assert.Contains(t, stream, "Downloaded newer image")
		create(t, c, "new", "example/web:1")
		for name, code := range map[string]int64{"old": 1, "older": 1, "new": 2} {
			start(t, c, name)
			assert.Equal(t, code, untilEnd(t, c, name))
		}
		assert.Len(t, e.Images(), 2)
	})
}

// A local image that comes twice is the later one; what was made of the first stays.
func TestALocalImageTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := dockerexectest.New(t)
		c := e.Client()
		e.LocalImage("example/web:1", dockerexectest.Exit(1))
		create(t, c, "old", "example/web:1")
		e.LocalImage("example/web:1", dockerexectest.Exit(2))
		create(t, c, "new", "example/web:1")
		for name, code := range map[string]int64{"old": 1, "new": 2} {
			start(t, c, name)
			assert.Equal(t, code, untilEnd(t, c, name))
		}
	})
}

func TestPullIsRefused(t *testing.T) {
	eachDialect(t, func(t *testing.T, e *dockerexectest.Engine, c *engineapi.Client, d dockerexectest.Dialect) {
		e.Image("registry.test/web:1", nil)
		e.Image("example/web:1", nil)
		e.Image("registry.test/private:1", nil, dockerexectest.WithCredentials("me", "secret"))
		e.Image("registry.test/limited:1", nil, dockerexectest.WithRateLimit(1))
		e.Image("registry.test/multi:1", nil, dockerexectest.WithPlatforms("linux/amd64", "linux/s390x"))
		for _, test := range []struct {
			ref     string
			options image.PullOptions
			want    [3]string
		}{
			{"registry.test/web:nosuch", image.PullOptions{}, [3]string{
				`failed to resolve reference "registry.test/web:nosuch": registry.test/web:nosuch: not found`,
				"manifest for registry.test/web:nosuch not found: manifest unknown: manifest unknown",
				"initializing source docker://registry.test/web:nosuch: reading manifest nosuch in registry.test/web: manifest unknown"}},
			{"example/nosuch:1", image.PullOptions{}, [3]string{
				"pull access denied for example/nosuch, repository does not exist or may require 'docker login'",
				"pull access denied for example/nosuch, repository does not exist or may require 'docker login': denied: requested access to the resource is denied",
				"initializing source docker://docker.io/example/nosuch:1: reading manifest 1 in docker.io/example/nosuch: manifest unknown"}},
			{"registry.test/private:1", image.PullOptions{}, [3]string{
				`failed to resolve reference "registry.test/private:1": pull access denied, repository does not exist or may require authorization: authorization failed: no basic auth credentials`,
				`Head "https://registry.test/v2/private/manifests/1": no basic auth credentials`,
				"initializing source docker://registry.test/private:1: unable to retrieve auth token: invalid username/password: unauthorized: authentication required"}},
			{"registry.test/private:1", image.PullOptions{RegistryAuth: auth("me", "wrong")}, [3]string{
				`unknown: failed to resolve reference "registry.test/private:1": unexpected status from HEAD request to https://registry.test/v2/private/manifests/1: 401 Unauthorized`,
				"unauthorized: authentication required",
				"initializing source docker://registry.test/private:1: unable to retrieve auth token: invalid username/password: unauthorized: authentication required"}},
			{"registry.test/private:1", image.PullOptions{RegistryAuth: auth("me", "secret")}, [3]string{}},
			{"registry.test/limited:1", image.PullOptions{}, [3]string{
				`unknown: failed to resolve reference "registry.test/limited:1": unexpected status from HEAD request to https://registry.test/v2/limited/manifests/1: 429 Too Many Requests`,
				"toomanyrequests: You have reached your pull rate limit.",
				"initializing source docker://registry.test/limited:1: reading manifest 1 in registry.test/limited: toomanyrequests: You have reached your pull rate limit."}},
			{"registry.test/limited:1", image.PullOptions{}, [3]string{}},
			{"registry.test/multi:1", image.PullOptions{Platform: "linux/arm64"}, [3]string{
				"no matching manifest for linux/arm64 in the manifest list entries: no match for platform in manifest: not found",
				"no matching manifest for linux/arm64 in the manifest list entries",
				"choosing image instance: no image found in image index for architecture linux/arm64"}},
			{"registry.test/multi:1", image.PullOptions{Platform: "amd64"}, [3]string{}},
			{"registry.test/multi:1", image.PullOptions{Platform: "linux/s390x"}, [3]string{}},
		} {
			stream, err := pull(t, c, test.ref, test.options)
			want := test.want[d]
			inStream := d == dockerexectest.PodmanV4 || d == dockerexectest.DockerV20 && strings.HasPrefix(want, "no matching")
			switch {
			case want == "":
				require.NoError(t, err)
				assert.NotContains(t, stream, `"error"`)
			case inStream:
				require.NoError(t, err)
				assert.Contains(t, stream, `"error":"`+want+`"`)
			default:
				require.EqualError(t, err, "Error response from daemon: "+want)
			}
		}
		inspected, err := c.ImageInspect(t.Context(), "registry.test/multi:1")
		require.NoError(t, err)
		assert.Equal(t, "s390x", inspected.Architecture)
	})
}

// Progress over ten seconds: the graph drivers' engine draws, the containerd store
// does not.
func TestPullProgress(t *testing.T) {
	eachDialect(t, func(t *testing.T, e *dockerexectest.Engine, c *engineapi.Client, d dockerexectest.Dialect) {
		e.Image("example/big:1", nil, dockerexectest.WithLayers(6<<20, 4<<20), dockerexectest.WithPullTime(10*time.Second))
		began := time.Now()
		stream, err := pull(t, c, "example/big:1", image.PullOptions{})
		require.NoError(t, err)
		assert.Equal(t, 10*time.Second, time.Since(began))
		assert.Equal(t, 100, strings.Count(stream, `"status":"Downloading"`))
		assert.Equal(t, d == dockerexectest.DockerV20, strings.Contains(stream, `"progress":"[=`))
		if d == dockerexectest.DockerV20 {
			assert.Contains(t, stream, `{"status":"Downloading","progressDetail":{"current":104858,"total":6291456},"progress":"[\u003e                                                  ]  104.9kB/6.291MB","id":"`)
		}
	})
}

func TestAPullThatStalls(t *testing.T) {
	eachDialect(t, func(t *testing.T, e *dockerexectest.Engine, c *engineapi.Client, d dockerexectest.Dialect) {
		e.Image("example/big:1", nil, dockerexectest.WithLayers(6<<20), dockerexectest.WithStall(3<<20))
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute+time.Millisecond)
		defer cancel()
		body, err := c.ImagePull(ctx, "example/big:1", image.PullOptions{})
		require.NoError(t, err)
		stream, err := io.ReadAll(body)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.NoError(t, body.Close())
		assert.Equal(t, []int{601, 1, 1}[d], strings.Count(string(stream), `"current":3145728`)) // one store repeats itself
		assert.Empty(t, e.Images())
	})
}

func TestTheStreamOfAPull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := dockerexectest.New(t)
		c := e.Client()
		e.Image("example/web:1", nil)
		e.Pull("example/web:1", `{"status":"one"}`, `{"errorDetail":{"message":"no"},"error":"no"}`)
		e.Pull("docker.io/example/web:1", `{"status":"two"}`)
		stream, err := pull(t, c, "example/web:1", image.PullOptions{})
		require.NoError(t, err)
		assert.Equal(t, `{"status":"one"}`+"\n"+`{"errorDetail":{"message":"no"},"error":"no"}`+"\n", stream)
		assert.Empty(t, e.Images())
		stream, err = pull(t, c, "example/web:1", image.PullOptions{})
		require.NoError(t, err)
		assert.Equal(t, `{"status":"two"}`+"\n", stream)
		assert.Equal(t, []string{"example/web:1"}, e.Images())
		stream, err = pull(t, c, "example/web:1", image.PullOptions{})
		require.NoError(t, err)
		assert.Contains(t, stream, "Image is up to date")
	})
}

func TestImages(t *testing.T) {
	eachDialect(t, func(t *testing.T, e *dockerexectest.Engine, c *engineapi.Client, d dockerexectest.Dialect) {
		e.LocalImage("example/web:1", nil)
		e.LocalImage("example/other", nil)
		create(t, c, "web", "example/web:1")
		list, err := c.ImageList(t.Context(), image.ListOptions{Filters: filters.NewArgs(filters.Arg("reference", "example/web"))})
		require.NoError(t, err)
		require.Len(t, list, 1)
		assert.Equal(t, []string{"example/web:1"}, list[0].RepoTags)
		_, err = c.ImageInspect(t.Context(), "nosuch")
		require.EqualError(t, err, "Error response from daemon: "+each(d, "No such image: nosuch:latest", "no such image: nosuch: No such image: nosuch:latest", "failed to find image nosuch: docker.io/library/nosuch:latest: No such image"))
		_, err = c.ImageRemove(t.Context(), "example/web:1", image.RemoveOptions{})
		require.ErrorContains(t, err, "is using its referenced image")
		require.NoError(t, c.ContainerRemove(t.Context(), "web", container.RemoveOptions{}))
		_, err = c.ImageRemove(t.Context(), "example/web:1", image.RemoveOptions{})
		require.NoError(t, err)
		assert.Equal(t, []string{"example/other:latest"}, e.Images())
	})
}
