package dockerexectest_test

import (
	"testing"
	"testing/synctest"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/api/types/volume"
	engineapi "github.com/docker/docker/client"
	"github.com/docker/go-connections/nat"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockerexec/dockerexec/dockerexectest"
)

func createNetwork(t testing.TB, c *engineapi.Client, name string, options network.CreateOptions) string {
	t.Helper()
	made, err := c.NetworkCreate(t.Context(), name, options)
	require.NoError(t, err)
	return made.ID
}

func on(name string) func(*container.Config, *container.HostConfig) {
	return func(_ *container.Config, h *container.HostConfig) { h.NetworkMode = container.NetworkMode(name) }
}

func TestNetworkIsRefused(t *testing.T) {
	eachDialect(t, func(t *testing.T, e *dockerexectest.Engine, c *engineapi.Client, d dockerexectest.Dialect) {
		swarm := `This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this node to swarm and try again.`
		createNetwork(t, c, "net", network.CreateOptions{IPAM: &network.IPAM{Config: []network.IPAMConfig{{Subnet: "10.1.0.0/16"}}}})
		for _, test := range []struct {
			name    string
			options network.CreateOptions
			want    string
		}{
			{"net", network.CreateOptions{}, each(d, "network with name net already exists", "network with name net already exists", "network name net already used: network already exists")},
			{"bridge", network.CreateOptions{}, "operation is not permitted on predefined bridge network"},
			{"other", network.CreateOptions{Driver: "nosuch"}, `plugin "nosuch" not found`},
			{"other", network.CreateOptions{Driver: "overlay"}, swarm},
			{"other", network.CreateOptions{ConfigFrom: &network.ConfigReference{Network: "nosuch"}}, `configuration network "nosuch" does not exist`},
			{"other", network.CreateOptions{ConfigFrom: &network.ConfigReference{Network: "net"}}, `configuration network "net" does not exist`},
			{"other", network.CreateOptions{IPAM: &network.IPAM{Config: []network.IPAMConfig{{Subnet: "10.1.2.0/24"}}}}, each(d,
				"invalid pool request: Pool overlaps with other one on this address space", "Pool overlaps with other one on this address space",
				"invalid pool request: Pool overlaps with other one on this address space")},
		} {
			_, err := c.NetworkCreate(t.Context(), test.name, test.options)
			require.EqualError(t, err, "Error response from daemon: "+test.want)
		}
		require.EqualError(t, c.NetworkRemove(t.Context(), "host"), "Error response from daemon: host is a pre-defined network and cannot be removed")
		require.ErrorContains(t, c.NetworkRemove(t.Context(), "nosuch"), each(d, "network nosuch not found", "network nosuch not found", "network not found"))
		assert.Equal(t, []string{"net"}, e.Networks())
	})
}

func TestNetworkInUse(t *testing.T) {
	eachDialect(t, func(t *testing.T, e *dockerexectest.Engine, c *engineapi.Client, d dockerexectest.Dialect) {
		id := createNetwork(t, c, "net", network.CreateOptions{})
		running(t, e, c, "web", dockerexectest.UntilStopped(0), on("net"))
		answer, err := c.ContainerInspect(t.Context(), "web")
		require.NoError(t, err)
		place := answer.NetworkSettings.Networks["net"]
		assert.Equal(t, id, place.NetworkID)
		assert.Equal(t, "172.18.0.2", place.IPAddress)
		assert.Equal(t, "172.18.0.1", place.Gateway)
		assert.Equal(t, 16, place.IPPrefixLen)
		inspected, err := c.NetworkInspect(t.Context(), "net", network.InspectOptions{})
		require.NoError(t, err)
		assert.Equal(t, "web", inspected.Containers[answer.ID].Name)
		assert.Equal(t, "172.18.0.2/16", inspected.Containers[answer.ID].IPv4Address)

		require.EqualError(t, c.NetworkRemove(t.Context(), "net"), "Error response from daemon: "+each(d,
			`error while removing network: network net has active endpoints (name:"web" id:"`+place.EndpointID[:12]+`")`,
			"error while removing network: network net id "+id+" has active endpoints",
			`"net" has associated containers with it. Use -f to forcibly delete containers and pods: network is being used`))
		if d == dockerexectest.PodmanV4 { // it asks names alone
			require.NoError(t, c.NetworkRemove(t.Context(), id))
			return
		}
		require.NoError(t, c.ContainerStop(t.Context(), "web", container.StopOptions{}))
		require.NoError(t, c.NetworkRemove(t.Context(), "net")) // while the container exists
		// The container knows the network by its ID from its first start on.
		createNetwork(t, c, "net", network.CreateOptions{})
		require.EqualError(t, c.ContainerStart(t.Context(), "web", container.StartOptions{}), "Error response from daemon: "+each(d, "failed to set up container networking: ", "", "")+"network "+id+" not found")
		assert.Equal(t, 128, state(t, c, "web").ExitCode)
		assert.Equal(t, "exited", state(t, c, "web").Status)
	})
}

// A container that never ran knows it by name.
func TestAVanishedNetwork(t *testing.T) {
	eachDialect(t, func(t *testing.T, e *dockerexectest.Engine, c *engineapi.Client, d dockerexectest.Dialect) {
		e.LocalImage("example/web:1", dockerexectest.UntilStopped(0))
		id := createNetwork(t, c, "net", network.CreateOptions{})
		create(t, c, "web", "example/web:1", on("net"))
		require.NoError(t, c.NetworkRemove(t.Context(), id))
		require.EqualError(t, c.ContainerStart(t.Context(), "web", container.StartOptions{}), "Error response from daemon: "+each(d,
			"failed to set up container networking: network net not found", "network net not found", "unable to find network with name or ID net: network not found"))
		createNetwork(t, c, "net", network.CreateOptions{})
		start(t, c, "web")
	})
}

func TestSeveralNetworks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := dockerexectest.New(t)
		c := e.Client()
		e.LocalImage("example/web:1", dockerexectest.UntilStopped(0))
		createNetwork(t, c, "one", network.CreateOptions{IPAM: &network.IPAM{Config: []network.IPAMConfig{{Subnet: "10.1.0.0/16"}}}})
		two := createNetwork(t, c, "two", network.CreateOptions{})
		three := createNetwork(t, c, "three", network.CreateOptions{})
		_, err := c.ContainerCreate(t.Context(), &container.Config{Image: "example/web:1"}, nil, &network.NetworkingConfig{EndpointsConfig: map[string]*network.EndpointSettings{
			"one": {IPAMConfig: &network.EndpointIPAMConfig{IPv4Address: "10.1.2.3"}, Aliases: []string{"alias"}}, "two": {},
		}}, nil, "web")
		require.NoError(t, err)
		for range 2 { // repeated: nothing happens
			require.NoError(t, c.NetworkConnect(t.Context(), three, "web", nil))
		}
		start(t, c, "web")
		answer, err := c.ContainerInspect(t.Context(), "web")
		require.NoError(t, err)
		require.Len(t, answer.NetworkSettings.Networks, 3)
		assert.Equal(t, "10.1.2.3", answer.NetworkSettings.Networks["one"].IPAddress)
		assert.Equal(t, []string{"web", "alias", answer.ID[:12]}, answer.NetworkSettings.Networks["one"].DNSNames)
		assert.Equal(t, two, answer.NetworkSettings.Networks["two"].NetworkID)
		require.EqualError(t, c.NetworkConnect(t.Context(), "two", "web", nil), "Error response from daemon: endpoint with name web already exists in network two")
		require.NoError(t, c.NetworkDisconnect(t.Context(), "two", "web", false))
		require.ErrorContains(t, c.NetworkDisconnect(t.Context(), "two", "web", false), "is not connected to the network two")
		require.EqualError(t, c.NetworkConnect(t.Context(), "one", e.AddContainer("other", nil).ID(), &network.EndpointSettings{IPAMConfig: &network.EndpointIPAMConfig{IPv4Address: "10.1.2.3"}}),
			"Error response from daemon: Address already in use")
		require.EqualError(t, c.NetworkConnect(t.Context(), "host", "web", nil), "Error response from daemon: cannot connect container to host network - container must be created in host network mode")

		// An engine before API 1.44 makes a container with one network alone.
		_, err = e.Client(engineapi.WithVersion("1.43")).ContainerCreate(t.Context(), &container.Config{Image: "example/web:1"}, nil,
			&network.NetworkingConfig{EndpointsConfig: map[string]*network.EndpointSettings{"one": {}, "two": {}}}, nil, "late")
		require.EqualError(t, err, "Error response from daemon: Container cannot be created with multiple network endpoints: one, two")
	})
}

func TestNetworksOfOneName(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := dockerexectest.New(t, dockerexectest.WithDialect(dockerexectest.DockerV20))
		c := e.Client()
		createNetwork(t, c, "net", network.CreateOptions{})
		_, err := c.NetworkCreate(t.Context(), "net", network.CreateOptions{}) // the client asks for a check
		require.EqualError(t, err, "Error response from daemon: network with name net already exists")
		assert.Equal(t, 201, post(t, c, "/v1.41/networks/create", `{"Name":"net"}`))
		_, err = c.NetworkInspect(t.Context(), "net", network.InspectOptions{})
		require.EqualError(t, err, "Error response from daemon: 2 matches found based on name: network net is ambiguous")
		require.EqualError(t, c.NetworkRemove(t.Context(), "net"), "Error response from daemon: network net is ambiguous (2 matches found based on name)")
		list, err := c.NetworkList(t.Context(), network.ListOptions{Filters: filters.NewArgs(filters.Arg("name", "net"))})
		require.NoError(t, err)
		require.Len(t, list, 2)
		require.NoError(t, c.NetworkRemove(t.Context(), list[0].ID))
		_, err = c.NetworkInspect(t.Context(), "net", network.InspectOptions{})
		require.NoError(t, err)
	})
}

func TestConfigFrom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := dockerexectest.New(t)
		c := e.Client()
		createNetwork(t, c, "config", network.CreateOptions{ConfigOnly: true, Options: map[string]string{"o": "1"}, IPAM: &network.IPAM{Config: []network.IPAMConfig{{Subnet: "10.99.0.0/24"}}}})
		createNetwork(t, c, "net", network.CreateOptions{ConfigFrom: &network.ConfigReference{Network: "config"}})
		inspected, err := c.NetworkInspect(t.Context(), "net", network.InspectOptions{})
		require.NoError(t, err)
		assert.Equal(t, "config", inspected.ConfigFrom.Network)
		assert.Equal(t, "bridge", inspected.Driver)
		assert.Equal(t, []network.IPAMConfig{{Subnet: "10.99.0.0/24", Gateway: "10.99.0.1"}}, inspected.IPAM.Config)
		assert.Equal(t, map[string]string{"o": "1"}, inspected.Options)
		require.EqualError(t, c.NetworkRemove(t.Context(), "config"), `Error response from daemon: error while removing network: configuration network "config" is in use`)
		require.NoError(t, c.NetworkRemove(t.Context(), "net"))
		require.NoError(t, c.NetworkRemove(t.Context(), "config"))
	})
}

func TestPorts(t *testing.T) {
	eachDialect(t, func(t *testing.T, e *dockerexectest.Engine, c *engineapi.Client, d dockerexectest.Dialect) {
		change := func(c *container.Config, h *container.HostConfig) {
			c.ExposedPorts = nat.PortSet{"80/tcp": {}, "81/tcp": {}, "82/udp": {}}
			h.PortBindings = nat.PortMap{"80/tcp": {{HostPort: "8080"}}, "82/udp": {{}}}
		}
		running(t, e, c, "web", dockerexectest.UntilStopped(0), change)
		want := nat.PortMap{"80/tcp": {{HostIP: "0.0.0.0", HostPort: "8080"}}, "81/tcp": nil, "82/udp": {{HostIP: "0.0.0.0", HostPort: "32768"}}}
		if d != dockerexectest.PodmanV4 {
			want["80/tcp"] = append(want["80/tcp"], nat.PortBinding{HostIP: "::", HostPort: "8080"})
			want["82/udp"] = append(want["82/udp"], nat.PortBinding{HostIP: "::", HostPort: "32768"})
		}
		assert.Equal(t, want, e.Container("web").Inspect().NetworkSettings.Ports)
		e.LocalImage("example/other:1", dockerexectest.UntilStopped(0))
		create(t, c, "other", "example/other:1", change)
		require.ErrorContains(t, c.ContainerStart(t.Context(), "other", container.StartOptions{}), each(d,
			"Bind for 0.0.0.0:8080 failed: port is already allocated", "Bind for 0.0.0.0:8080 failed: port is already allocated", "address already in use"))
		require.NoError(t, c.ContainerKill(t.Context(), "web", ""))
		assert.Empty(t, e.Container("web").Inspect().NetworkSettings.Ports)
		start(t, c, "other")
		if d == dockerexectest.DockerV29 {
			want = nat.PortMap{} // it has lost its networks
		}
		assert.Equal(t, want, e.Container("other").Inspect().NetworkSettings.Ports)
	})
}

func TestVolumes(t *testing.T) {
	eachDialect(t, func(t *testing.T, e *dockerexectest.Engine, c *engineapi.Client, d dockerexectest.Dialect) {
		made, err := c.VolumeCreate(t.Context(), volume.CreateOptions{Name: "data", Labels: map[string]string{"a": "b"}})
		require.NoError(t, err)
		assert.Equal(t, "local", made.Driver)
		again, err := c.VolumeCreate(t.Context(), volume.CreateOptions{Name: "data", DriverOpts: map[string]string{"type": "x"}})
		require.NoError(t, err)
		assert.Equal(t, made, again)
		_, err = c.VolumeCreate(t.Context(), volume.CreateOptions{Name: "data", Driver: "nosuch"})
		require.EqualError(t, err, `Error response from daemon: create data: error looking up volume plugin nosuch: plugin "nosuch" not found`)
		_, err = c.VolumeInspect(t.Context(), "nosuch")
		require.EqualError(t, err, "Error response from daemon: "+each(d, "get nosuch: no such volume", "get nosuch: no such volume", "volume with name nosuch not found: no such volume"))

		e.LocalImage("example/web:1", nil, dockerexectest.WithVolumes("/cache"))
		id := create(t, c, "web", "example/web:1", func(_ *container.Config, h *container.HostConfig) { h.Binds = []string{"data:/data:ro", "made:/made"} })
		assert.Len(t, e.Volumes(), 3)
		answer, err := c.ContainerInspect(t.Context(), "web")
		require.NoError(t, err)
		require.Len(t, answer.Mounts, 3)
		assert.Equal(t, "/data", answer.Mounts[0].Destination)
		assert.False(t, answer.Mounts[0].RW)
		require.EqualError(t, c.VolumeRemove(t.Context(), "data", false), "Error response from daemon: remove data: volume is in use - ["+id+"]")
		require.NoError(t, c.ContainerRemove(t.Context(), "web", container.RemoveOptions{RemoveVolumes: true}))
		assert.Equal(t, []string{"data", "made"}, e.Volumes()) // the anonymous one went
		require.NoError(t, c.VolumeRemove(t.Context(), "data", false))
		list, err := c.VolumeList(t.Context(), volume.ListOptions{})
		require.NoError(t, err)
		require.Len(t, list.Volumes, 1)
	})
}
