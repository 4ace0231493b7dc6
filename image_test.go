package dockerexec

import (
	"testing"

	"github.com/moby/swarmkit/v2/api"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/assert"
)

func TestPlatforms(t *testing.T) {
	t.Parallel()
	for given, want := range map[api.Platform]*ocispec.Platform{
		{Architecture: "x86_64", OS: "Linux"}:  {Architecture: "amd64", OS: "linux"},
		{Architecture: "amd64", OS: "windows"}: {Architecture: "amd64", OS: "windows"},
		{Architecture: "aarch64", OS: "linux"}: {Architecture: "arm64", OS: "linux"},
		{Architecture: "i686", OS: "linux"}:    {Architecture: "386", OS: "linux"},
		{Architecture: "armv7l", OS: "linux"}:  {Architecture: "arm", Variant: "v7", OS: "linux"},
		{Architecture: "armel", OS: "linux"}:   {Architecture: "arm", Variant: "v6", OS: "linux"},
		{Architecture: "riscv64", OS: "linux"}: {Architecture: "riscv64", OS: "linux"},
		{Architecture: "arm64", OS: "macos"}:   {Architecture: "arm64", OS: "darwin"},
		{OS: "linux"}:                          {OS: "linux"},
		{Architecture: "arm", OS: "linux"}:     nil,
		{}:                                     nil,
	} {
		task := plainTask()
		task.Spec.Placement = &api.Placement{Platforms: []*api.Platform{&given}}
		config := newTestConfig(t, task)
		assert.Equal(t, want, config.platform(), given)
		if want == nil {
			assert.Empty(t, config.pullOptions().Platform)
		}
	}
	task := plainTask()
	task.Spec.Placement = &api.Placement{Platforms: []*api.Platform{{Architecture: "armhf", OS: "linux"}}}
	assert.Equal(t, "linux/arm/v7", newTestConfig(t, task).pullOptions().Platform)
}
