package dockerexec

import (
	"testing"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/network"
	"github.com/moby/swarmkit/v2/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// What makes an existing network another one than the task wants.
func TestNetworkDifference(t *testing.T) {
	t.Parallel()
	task := plainTask()
	attach(task, "backend", "10.1.0.0/24")
	plain := newTestConfig(t, task).networks()[0]
	task.Networks[0].Network.Spec.Ipv6Enabled = true
	task.Networks[0].Network.Spec.Internal = true
	task.Networks[0].Network.IPAM.Configs = append(task.Networks[0].Network.IPAM.Configs, &api.IPAMConfig{Subnet: "FD00:0::/64"})
	strict := newTestConfig(t, task).networks()[0]
	bare := newTestConfig(t, goldenTask(t, "network-bare")).networks()[0]

	ipam := func(subnets ...string) network.IPAM {
		var i network.IPAM
		for _, s := range subnets {
			i.Config = append(i.Config, network.IPAMConfig{Subnet: s})
		}
		return i
	}
	tests := []struct {
		name   string
		wanted networkConfig
		found  network.Inspect
		want   string
	}{
		{"same", plain, network.Inspect{Driver: "bridge", IPAM: ipam("10.1.0.0/24")}, ""},
		{"same, IPv6 on top", plain, network.Inspect{Driver: "bridge", EnableIPv6: true, IPAM: ipam("10.1.0.0/24")}, ""},
		{"driver", plain, network.Inspect{Driver: "macvlan", IPAM: ipam("10.1.0.0/24")}, "driver macvlan, the task wants bridge"},
		{"subnet", plain, network.Inspect{Driver: "bridge", IPAM: ipam("10.2.0.0/24")}, "subnets [10.2.0.0/24], the task wants [10.1.0.0/24]"},
		{"internal", plain, network.Inspect{Driver: "bridge", Internal: true, IPAM: ipam("10.1.0.0/24")}, "internal true, the task wants false"},
		{"same in another order and spelling", strict, network.Inspect{Driver: "bridge", Internal: true, EnableIPv6: true, IPAM: ipam("fd00::/64", "10.1.0.0/24")}, ""},
		{"IPv6", strict, network.Inspect{Driver: "bridge", Internal: true, IPAM: ipam("10.1.0.0/24", "fd00::/64")}, "IPv6 false, the task wants true"},
		{"nothing asked", bare, network.Inspect{Driver: "bridge", IPAM: ipam("172.18.0.0/16")}, ""},
		{"the default driver of Linux", bare, network.Inspect{Driver: "bridge"}, ""},
		{"the default driver of Windows", bare, network.Inspect{Driver: "nat"}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			assert.Equal(t, tt.want, tt.wanted.difference(&tt.found))
		})
	}
}

// The engine's own networks are joined and never created.
func TestPredefinedNetworks(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"bridge", "host", "none", "default"} {
		task := plainTask()
		task.Networks = []*api.NetworkAttachment{attachment(namedNetwork(name))}
		config := newTestConfig(t, task)
		assert.Equal(t, []networkConfig{{name: name, predefined: true}}, config.networks())
		assert.Equal(t, container.NetworkMode(name), config.hostConfig().NetworkMode)
		assert.Empty(t, config.networkingConfig().EndpointsConfig)
		assert.Empty(t, config.endpointNames())
	}
	task := plainTask()
	task.Networks = []*api.NetworkAttachment{{Network: namedNetwork("bridge"), DriverAttachmentOpts: map[string]string{"a": "b"}}}
	assert.Equal(t, []string{"bridge"}, newTestConfig(t, task).endpointNames())
}

// The options of a network arrive.
func TestNetworkOptions(t *testing.T) {
	t.Parallel()
	yes := true
	task := plainTask()
	task.Networks = []*api.NetworkAttachment{attachment(&api.Network{
		ID: "nid1",
		Spec: api.NetworkSpec{
			Annotations: api.Annotations{Name: "n", Labels: map[string]string{"k": "v"}},
			Ipv6Enabled: true, Internal: true, Attachable: true,
		},
		DriverState: &api.Driver{Name: "bridge", Options: map[string]string{"d": "1"}},
		IPAM: &api.IPAMOptions{
			Driver:  &api.Driver{Name: "default", Options: map[string]string{"i": "1"}},
			Configs: []*api.IPAMConfig{{Subnet: "10.0.0.0/24", Range: "10.0.0.0/25", Gateway: "10.0.0.1", Reserved: map[string]string{"r": "10.0.0.2"}}},
		},
	})}
	assert.Equal(t, network.CreateOptions{
		Driver: "bridge", Options: map[string]string{"d": "1"},
		EnableIPv6: &yes, Internal: true, Attachable: true,
		Labels: map[string]string{"k": "v", "com.dockerexec.network": "nid1"},
		IPAM: &network.IPAM{
			Driver: "default", Options: map[string]string{"i": "1"},
			Config: []network.IPAMConfig{{Subnet: "10.0.0.0/24", IPRange: "10.0.0.0/25", Gateway: "10.0.0.1", AuxAddress: map[string]string{"r": "10.0.0.2"}}},
		},
	}, newTestConfig(t, task).networks()[0].options)

	from := namedNetwork("n")
	from.Spec.ConfigFrom = &api.NetworkSpec_Network{Network: "from"}
	task.Networks = []*api.NetworkAttachment{attachment(from)}
	assert.Equal(t, network.CreateOptions{ConfigFrom: &network.ConfigReference{Network: "from"}},
		newTestConfig(t, task).networks()[0].options)
}

// Networks have one order, whatever that of the task.
func TestNetworksAreSorted(t *testing.T) {
	t.Parallel()
	for _, order := range [][]string{{"b", "c", "a"}, {"c", "b", "a"}, {"a", "b", "c"}} {
		task := plainTask()
		for _, name := range order {
			task.Networks = append(task.Networks, attachment(namedNetwork(name)))
		}
		config := newTestConfig(t, task)
		assert.Equal(t, []string{"a", "b", "c"}, config.endpointNames())
		var names []string
		for _, n := range config.networks() {
			names = append(names, n.name)
		}
		assert.Equal(t, []string{"a", "b", "c"}, names)
	}
}

// Two attachments of one name do not become one.
func TestNetworkTwice(t *testing.T) {
	t.Parallel()
	task := plainTask()
	task.Networks = []*api.NetworkAttachment{
		{Network: namedNetwork("a"), Addresses: []string{"10.0.0.1/24"}},
		{Network: namedNetwork("a"), Addresses: []string{"10.0.0.2/24"}},
	}
	_, err := newContainerConfig(nil, task)
	require.EqualError(t, err, "dockerexec: task field Networks[1].Network.Spec.Annotations.Name: a is also that of Networks[0]")
}

// Managers attach the routing mesh's network to each task with an ingress port.
func TestIngressIsWarnedAbout(t *testing.T) {
	t.Parallel()
	mesh := namedNetwork("ingress")
	mesh.Spec.Ingress = true
	old := namedNetwork("ingress")
	old.Spec.Annotations.Labels = map[string]string{"com.docker.swarm.internal": "true"}
	for _, ingress := range []*api.Network{mesh, old} {
		task := plainTask()
		withPort(&api.PortConfig{TargetPort: 80, Protocol: api.ProtocolUDP})(task)
		task.Networks = []*api.NetworkAttachment{attachment(ingress), attachment(namedNetwork("backend"))}
		config := newTestConfig(t, task)
		assert.Equal(t, []string{"the routing mesh exists only inside a swarm engine: port 80/udp is not published, network ingress is not joined"}, config.warnings())
		assert.Equal(t, []string{"backend"}, config.endpointNames())
	}
	assert.Empty(t, newTestConfig(t, plainTask()).warnings())
}

// What managers say of the engine's own networks is accepted.
func TestNetworksOfTheEnginesOwn(t *testing.T) {
	t.Parallel()
	for name, driver := range map[string]string{"bridge": "bridge", "host": "host", "none": "null", "default": "bridge", "nat": "nat"} {
		for _, ipam := range []*api.IPAMOptions{nil, {}, {Driver: &api.Driver{}}, {Driver: &api.Driver{Name: "default"}}} {
			task := plainTask()
			n := namedNetwork(name)
			n.Spec.Annotations.Labels = map[string]string{"com.docker.swarm.predefined": "true", "a": "b"}
			n.DriverState, n.IPAM = &api.Driver{Name: driver}, ipam
			task.Networks = []*api.NetworkAttachment{attachment(n)}
			config := newTestConfig(t, task)
			assert.Equal(t, container.NetworkMode(name), config.hostConfig().NetworkMode)
			assert.Equal(t, []networkConfig{{name: name, predefined: true}}, config.networks())
		}
	}
}

// An engine picks the subnets of a family for which the task names none, and
// lists them with the others.
func TestDifferenceLooksAtTheFamiliesThatTheTaskNames(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		wanted, found []string
		want          string
	}{
		{[]string{"10.1.0.0/24"}, []string{"10.1.0.0/24", "fd12:3456::/64"}, ""},
		{[]string{"10.1.0.0/24"}, []string{"fd12:3456::/64", "10.2.0.0/24"}, "subnets [10.2.0.0/24], the task wants [10.1.0.0/24]"},
		{[]string{"10.1.0.0/24"}, []string{"10.1.0.0/24", "10.2.0.0/24"}, "subnets [10.1.0.0/24 10.2.0.0/24], the task wants [10.1.0.0/24]"},
		{[]string{"10.1.0.0/24"}, []string{"fd12:3456::/64"}, "subnets [], the task wants [10.1.0.0/24]"},
		{[]string{"fd00::/64"}, []string{"10.1.0.0/24", "fd00::/64"}, ""},
		{[]string{"fd00::/64"}, []string{"10.1.0.0/24", "fd12:3456::/64"}, "subnets [fd12:3456::/64], the task wants [fd00::/64]"},
		{[]string{"10.1.0.0/24", "fd00::/64"}, []string{"10.1.0.0/24", "fd12:3456::/64"},
			"subnets [10.1.0.0/24 fd12:3456::/64], the task wants [10.1.0.0/24 fd00::/64]"},
	} {
		task := plainTask()
		attach(task, "n", test.wanted[0])
		n := task.Networks[0].Network
		n.Spec.Ipv6Enabled = true
		for _, subnet := range test.wanted[1:] {
			n.IPAM.Configs = append(n.IPAM.Configs, &api.IPAMConfig{Subnet: subnet})
		}
		found := &network.Inspect{Driver: "bridge", EnableIPv6: true}
		for _, subnet := range test.found {
			found.IPAM.Config = append(found.IPAM.Config, network.IPAMConfig{Subnet: subnet})
		}
		assert.Equal(t, test.want, newTestConfig(t, task).networks()[0].difference(found), "%v beside %v", test.wanted, test.found)
	}
}

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
