package dockerexec

import (
	"testing"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/network"
	"github.com/moby/swarmkit/v2/api"
	"github.com/stretchr/testify/assert"
)

// Settings of no interface leave the mode alone.
func TestSysctlsOfNoInterface(t *testing.T) {
	t.Parallel()
	task := plainTask()
	spec(task).Sysctls = map[string]string{"net.ipv4.conf.all.forwarding": "1"}
	task.Networks = []*api.NetworkAttachment{attachment(namedNetwork("a"))}
	assert.Empty(t, newTestConfig(t, task).forVersion("1.45").hostConfig().NetworkMode)
}

// An interface's settings go with the rest below API 1.46, and with the network
// from there on.
func TestSysctlsOfAnInterface(t *testing.T) {
	t.Parallel()
	all := map[string]string{
		"net.core.somaxconn": "1024", "net.ipv4.conf.all.forwarding": "1",
		"net.ipv4.conf.eth0.log_martians": "1", "net.ipv4.conf.eth0.forwarding": "0",
	}
	common := map[string]string{"net.core.somaxconn": "1024", "net.ipv4.conf.all.forwarding": "1"}
	const option = "com.docker.network.endpoint.sysctls"
	const own, given = "net.ipv4.conf.IFNAME.forwarding=0,net.ipv4.conf.IFNAME.log_martians=1", "net.ipv4.conf.IFNAME.rp_filter=1"
	for _, test := range []struct {
		name, version string
		networks      []*api.NetworkAttachment
		mode          container.NetworkMode
		plain         map[string]string
		endpoints     map[string]*network.EndpointSettings
	}{
		{"old", "1.45", nil, "", all, nil},
		{"no network", "1.46", nil, "", common, map[string]*network.EndpointSettings{"bridge": {DriverOpts: map[string]string{option: own}}}},
		{"the newest", "", nil, "", common, map[string]*network.EndpointSettings{"bridge": {DriverOpts: map[string]string{option: own}}}},
		{"bridge", "1.46", []*api.NetworkAttachment{attachment(namedNetwork("bridge"))}, "bridge", common, map[string]*network.EndpointSettings{"bridge": {DriverOpts: map[string]string{option: own}}}},
		{"a network", "1.46", []*api.NetworkAttachment{attachment(namedNetwork("a"))}, "", common, map[string]*network.EndpointSettings{"a": {DriverOpts: map[string]string{option: own}}}},
		{"a network, old", "1.45", []*api.NetworkAttachment{attachment(namedNetwork("a"))}, "a", all, map[string]*network.EndpointSettings{"a": {}}},
		{"a network whose name is no mode, old", "1.45", []*api.NetworkAttachment{attachment(namedNetwork("container:a"))}, "", all, map[string]*network.EndpointSettings{"container:a": {}}},
		{"with settings of the network's own", "1.46", []*api.NetworkAttachment{{Network: namedNetwork("a"), DriverAttachmentOpts: map[string]string{option: given, "x": "y"}}},
			"", common, map[string]*network.EndpointSettings{"a": {DriverOpts: map[string]string{option: own + "," + given, "x": "y"}}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			task := plainTask()
			spec(task).Sysctls, task.Networks = all, test.networks
			config := newTestConfig(t, task).forVersion(test.version)
			assert.Equal(t, test.mode, config.hostConfig().NetworkMode)
			assert.Equal(t, test.plain, config.hostConfig().Sysctls)
			assert.Equal(t, test.endpoints, config.networkingConfig().EndpointsConfig)
		})
	}
}
