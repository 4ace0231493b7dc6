package dockerexectest

import (
	"cmp"
	"slices"
	"strconv"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/go-connections/nat"
)

// publishedPort is a port of the host that leads to a port of a container.
type publishedPort struct {
	port     nat.Port // of the container
	hostIP   string
	hostPort string
}

// firstPort is where engines begin to look for a free port.
const firstPort = 32768

// publishPorts publishes the ports of a container that starts. The caller holds mu.
func (e *Engine) publishPorts(c *Container) *apiError {
	if !c.hasPorts() {
		return nil
	}
	wanted := nat.PortMap{}
	for port, bindings := range c.hostConfig.PortBindings {
		if _, isExposed := c.config.ExposedPorts[port]; isExposed || e.dialect != DockerV20 {
			wanted[port] = bindings
		}
	}
	if c.hostConfig.PublishAllPorts {
		for port := range c.config.ExposedPorts {
			if len(wanted[port]) == 0 {
				wanted[port] = []nat.PortBinding{{}}
			}
		}
	}
	for _, port := range sortedPorts(wanted) {
		for _, binding := range wanted[port] {
			hostPort := binding.HostPort
			for n := firstPort; hostPort == "" || hostPort == "0"; n++ {
				if free := strconv.Itoa(n); e.ports[free+"/"+port.Proto()] == nil {
					hostPort = free
				}
			}
			key := hostPort + "/" + port.Proto()
			if holder := e.ports[key]; holder != nil {
				return e.dialect.portTaken(c, e.newID("endpoint"), hostPort)
			}
			e.ports[key] = c
			ips := []string{binding.HostIP}
			if binding.HostIP == "" {
				ips = []string{"0.0.0.0"}
				if e.dialect != PodmanV4 { // with the engine's own proxy, as by default
					ips = append(ips, "::")
				}
			}
			for _, ip := range ips {
				c.ports = append(c.ports, publishedPort{port: port, hostIP: ip, hostPort: hostPort})
			}
		}
	}
	return nil
}

// hasPorts reports whether the container's networks can publish ports. The caller holds
// mu.
func (c *Container) hasPorts() bool {
	mode := c.hostConfig.NetworkMode
	return len(c.endpoints) > 0 && !mode.IsHost() && !mode.IsNone() && !mode.IsContainer()
}

// freePorts takes the container's ports back. The caller holds mu.
func (e *Engine) freePorts(c *Container) {
	for _, p := range c.ports {
		key := p.hostPort + "/" + p.port.Proto()
		if e.ports[key] == c {
			delete(e.ports, key)
		}
	}
	c.ports = nil
}

func sortedPorts(m nat.PortMap) []nat.Port {
	ports := make([]nat.Port, 0, len(m))
	for port := range m {
		ports = append(ports, port)
	}
	slices.SortFunc(ports, func(a, b nat.Port) int {
		return cmp.Or(cmp.Compare(a.Int(), b.Int()), cmp.Compare(a.Proto(), b.Proto()))
	})
	return ports
}

// portMap returns the ports in the form of an inspect. Only a running container has any. A
// port that is exposed and not published has the value nil. The caller holds mu.
func (c *Container) portMap() nat.PortMap {
	m := nat.PortMap{}
	if !c.running || !c.hasPorts() {
		return m
	}
	for port := range c.config.ExposedPorts {
		m[port] = nil
	}
	for _, p := range c.ports {
		m[p.port] = append(m[p.port], nat.PortBinding{HostIP: p.hostIP, HostPort: p.hostPort})
	}
	return m
}

// portList returns the ports in the form of a list.
func (c *Container) portList() []container.Port {
	list := []container.Port{}
	m := c.portMap()
	for _, port := range sortedPorts(m) {
		private := uint16(port.Int()) //nolint:gosec // a port
		if len(m[port]) == 0 {
			list = append(list, container.Port{PrivatePort: private, Type: port.Proto()})
		}
		for _, binding := range m[port] {
			public, _ := strconv.ParseUint(binding.HostPort, 10, 16)
			list = append(list, container.Port{IP: binding.HostIP, PrivatePort: private, PublicPort: uint16(public), Type: port.Proto()})
		}
	}
	return list
}
