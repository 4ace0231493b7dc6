package dockerexec

import (
	"testing"

	"github.com/docker/go-connections/nat"
	"github.com/moby/swarmkit/v2/api"
	"github.com/stretchr/testify/assert"
)

func TestCPULimit(t *testing.T) {
	t.Parallel()
	for _, limit := range []int64{1e7, 15e8, 100_000e9} {
		task := plainTask()
		withLimits(api.Resources{NanoCPUs: limit})(task)
		host := newTestConfig(t, task).hostConfig()
		assert.Equal(t, limit, host.NanoCPUs)
		assert.Zero(t, host.CPUQuota)
		assert.Zero(t, host.CPUPeriod)
	}
}

func TestWithCPUs(t *testing.T) {
	t.Parallel()
	config := newTestConfig(t, goldenTask(t, "cpus")) // 1.5
	assert.Equal(t, int64(1e9), config.withCPUs(1).hostConfig().NanoCPUs)
	assert.Equal(t, int64(15e8), config.withCPUs(2).hostConfig().NanoCPUs)
	assert.Equal(t, int64(15e8), config.hostConfig().NanoCPUs, "the task itself is as it was")
	assert.Zero(t, newTestConfig(t, plainTask()).withCPUs(2).hostConfig().NanoCPUs)
}

func TestPortsOfOneTarget(t *testing.T) {
	t.Parallel()
	host := newTestConfig(t, goldenTask(t, "ports-of-one-target")).hostConfig()
	assert.Equal(t, []nat.PortBinding{{HostPort: "8081"}, {HostPort: "8080"}}, host.PortBindings["80/tcp"])
}
