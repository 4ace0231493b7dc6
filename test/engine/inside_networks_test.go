package engine_test

import (
	"fmt"
	"net"
	"strings"
	"testing"

	engineapi "github.com/docker/docker/client"
	"github.com/dockerexec/dockerexec"
	"github.com/moby/swarmkit/v2/api"
	"github.com/stretchr/testify/require"
)

// testNetworks has one task serve on two networks and others look for it.
func (in *insider) testNetworks(t *testing.T) {
	first := &api.Network{
		Spec:        api.NetworkSpec{Annotations: api.Annotations{Name: "dockerexec-inside-a"}, Ipv6Enabled: true},
		DriverState: &api.Driver{Name: "bridge", Options: map[string]string{"com.docker.network.driver.mtu": "1380"}},
		IPAM: &api.IPAMOptions{Configs: []*api.IPAMConfig{
			{Subnet: "10.213.11.0/24", Range: "10.213.11.64/26", Gateway: "10.213.11.254", Reserved: map[string]string{"taken": "10.213.11.64"}},
			{Family: api.IPAMConfig_IPV6, Subnet: "fd00:213:11::/64"},
		}},
	}
	second := &api.Network{
		Spec:        api.NetworkSpec{Annotations: api.Annotations{Name: "dockerexec-inside-b"}},
		DriverState: &api.Driver{Name: "bridge"},
		IPAM:        &api.IPAMOptions{Configs: []*api.IPAMConfig{{Subnet: "10.213.12.0/24"}}},
	}
	server := in.start(t, func(task *api.Task) {
		task.Networks = []*api.NetworkAttachment{
			{Network: second, Addresses: []string{"10.213.12.9/24"}, Aliases: []string{"cache", "store"}},
			{Network: first, Addresses: []string{"10.213.11.9/24", "fd00:213:11::9/64"}, Aliases: []string{"db"}},
		}
	}, "interfaces", "--", "serve", ":8080")
	in.untilReady(t, server, "serving on")
	in.see(t, in.output(t, server, false), []sight{
		{"fixed addresses of both families", `eth\d mtu=1380 10\.213\.11\.9/24 fd00:213:11::9/64.*`},
		{"fixed address on the other network", `eth\d mtu=1500 10\.213\.12\.9/24.*`},
	})

	in.see(t, in.run(t, func(task *api.Task) {
		task.Networks = []*api.NetworkAttachment{{Network: first}, {Network: second}}
	}, strings.Fields("interfaces -- resolve db -- resolve cache -- resolve store -- dial db:8080 -- dial cache:8080 -- dial [fd00:213:11::9]:8080")...), []sight{
		{"alias, both addresses", `10\.213\.11\.9\nfd00:213:11::9`},
		{"alias and second alias on the other network", `10\.213\.12\.9\n10\.213\.12\.9`},
		{"another task over the first network", `connected to (?:10\.213\.11\.9|\[fd00:213:11::9\]):8080`},
		{"another task over the second network", `connected to 10\.213\.12\.9:8080`},
		{"another task over IPv6", `connected to \[fd00:213:11::9\]:8080`},
	})
	in.see(t, in.run(t, func(task *api.Task) {
		task.Networks = []*api.NetworkAttachment{{Network: first}}
		spec(task).DNSConfig = &api.ContainerSpec_DNSConfig{Options: []string{"timeout:1", "attempts:1"}} // nobody else answers
	}, strings.Fields("interfaces -- cat /proc/net/route -- resolve db -- try resolve cache -- cat /etc/resolv.conf")...), []sight{
		{"address of the range, not the reserved one", `eth0 mtu=1380 10\.213\.11\.(?:6[5-9]|[7-9]\d|1[01]\d|12[0-7])/24 .*`},
		{"gateway 10.213.11.254", `eth0\t00000000\tFE0BD50A\t.*`},
		{"alias", `10\.213\.11\.9`},
		{"no alias of a network that it is not in", `failed: resolve cache: .*`},
		{"the engine's name server", `nameserver 127\.0\.0\.11`},
		{"the other network's interface", `!eth1 .*`},
	})
}

// testInternal compares a network with an internal one: outside is a namespace
// of its own, beyond the host.
func (in *insider) testInternal(t *testing.T) {
	if !isPrivate() {
		skip(t, "the engine is not of the tests' own")
	}
	const address = "198.51.100.2"
	outside := in.start(t, func(task *api.Task) {
		attachTo(task, "none")
	}, "serve", ":8080")
	in.untilReady(t, outside, "serving on")
	running, err := outside.Inspect(t.Context())
	require.NoError(t, err)
	pid := fmt.Sprint(running.State.Pid)
	command(t, "ip", "link", "add", "dxoutside", "type", "veth", "peer", "name", "dxinside", "netns", pid)
	command(t, "ip", "addr", "add", "198.51.100.1/24", "dev", "dxoutside")
	command(t, "ip", "link", "set", "dxoutside", "up")
	command(t, "nsenter", "--target", pid, "--net", "ip", "addr", "add", address+"/24", "dev", "dxinside")
	command(t, "nsenter", "--target", pid, "--net", "ip", "link", "set", "dxinside", "up")

	for i, sees := range [][]sight{
		{{"a way out", "connected to " + address + ":8080"}},
		{
			{"no way out", "failed: dial " + address + ":8080 2s: .*"},
			{"its own network", `eth0 mtu=\d+ 10\.213\.14\..*`},
		},
	} {
		in.see(t, in.run(t, func(task *api.Task) {
			attach(task, fmt.Sprintf("dockerexec-inside-%d", i), fmt.Sprintf("10.213.%d.0/24", 13+i))
			task.Networks[0].Network.Spec.Internal = i == 1
		}, "interfaces", "--", "try", "dial", address+":8080", "2s"), sees)
	}
}

func (in *insider) testHostPort(t *testing.T) {
	server := in.start(t, func(task *api.Task) {
		task.Endpoint = &api.Endpoint{Ports: []*api.PortConfig{{TargetPort: 8080, PublishedPort: 18090, PublishMode: api.PublishModeHost}}}
	}, "serve", ":8080")
	in.untilReady(t, server, "serving on")
	connection, err := net.Dial("tcp", "127.0.0.1:18090")
	require.NoError(t, err)
	require.NoError(t, connection.Close())
	in.seen++
}

// An interface's setting arrives at each API version of the engine, whatever the
// network. The versions are those at which engines take it in another way.
func TestEngineSysctlsOfAnInterface(t *testing.T) {
	sharesEngine(t)
	warmImage(t, engineClient(t))
	tried := 0
	for _, version := range []string{"1.41", "1.44", "1.45", "1.46", "1.47", "1.48"} {
		client, err := engineapi.NewClientWithOpts(engineapi.WithHost(fromHarness(t, "DOCKEREXEC_TEST_HOST")), engineapi.WithVersion(version))
		require.NoError(t, err)
		defer client.Close()
		if _, err := client.ServerVersion(t.Context()); err != nil {
			t.Logf("the engine does not have %s: %v", version, err)
			continue
		}
		if isPodman() && version != "1.41" {
			continue // it answers to any version, and has 1.41
		}
		tried++
		in := &insider{client: client, engine: dockerexec.NewEngine(client)}
		for name, networks := range map[string]func(*api.Task){
			"no network": func(*api.Task) {},
			"bridge":     func(task *api.Task) { attachTo(task, "bridge") },
			"a network":  func(task *api.Task) { attach(task, "dockerexec-sysctls", "10.213.22.0/24") },
			"with an option": func(task *api.Task) {
				attach(task, "dockerexec-sysctls", "10.213.22.0/24")
				task.Networks[0].DriverAttachmentOpts = map[string]string{"a": "b"}
			},
		} {
			t.Run(version+" "+name, func(t *testing.T) {
				in.see(t, in.run(t, func(task *api.Task) {
					networks(task)
					spec(task).Sysctls = map[string]string{"net.ipv4.conf.eth0.log_martians": "1", "net.core.somaxconn": "1234"}
				}, "show", "/proc/sys/net/ipv4/conf/eth0/log_martians", "/proc/sys/net/core/somaxconn"), []sight{
					{"the interface's", `/proc/sys/net/ipv4/conf/eth0/log_martians = 1`},
					{"another", `/proc/sys/net/core/somaxconn = 1234`},
				})
			})
		}
	}
	require.Positive(t, tried)
}

// On a bridge that tasks share, the names of their containers resolve, and the aliases
// that the tasks ask for. The name of their service does not: an alias takes its place.
func TestEngineNamesOnASharedNetwork(t *testing.T) {
	sharesEngine(t)
	client := engineClient(t)
	warmImage(t, client)
	in := &insider{client: client, engine: dockerexec.NewEngine(client)}
	const service = "dockerexec-names"
	join := func(slot uint64, aliases ...string) func(*api.Task) {
		return func(task *api.Task) {
			task.ServiceAnnotations.Name, task.Slot = service, slot
			attach(task, "dockerexec-names-net", "10.213.18.0/24")
			task.Networks[0].Aliases = aliases
			task.Networks[0].Addresses = []string{fmt.Sprintf("10.213.18.%d/24", 10+slot)}
			spec(task).DNSConfig = &api.ContainerSpec_DNSConfig{Options: []string{"timeout:1", "attempts:1"}} // nobody else answers
		}
	}
	for _, test := range []struct {
		name    string
		aliases []string
		sees    sight
	}{
		{"without an alias", nil, sight{"no name of the service", "failed: resolve " + service + ": .*"}},
		{"with an alias", []string{service}, sight{"an alias for both tasks", `10\.213\.18\.11\n10\.213\.18\.12`}},
	} {
		t.Run(test.name, func(t *testing.T) {
			var names []string
			for slot := range uint64(2) {
				server := in.start(t, join(slot+1, test.aliases...), "serve", ":8080")
				in.untilReady(t, server, "serving on")
				names = append(names, server.ContainerName())
			}
			in.see(t, in.run(t, join(3), "resolve", names[0], "--", "resolve", names[1], "--", "try", "resolve", service), []sight{
				{"the tasks' containers", `10\.213\.18\.11\n10\.213\.18\.12`}, test.sees,
			})
		})
	}
}
