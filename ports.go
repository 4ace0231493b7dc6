package dockerexec

import (
	"fmt"
	"math"
	"strings"

	"github.com/docker/go-connections/nat"
	"github.com/moby/swarmkit/v2/api"
)

// ports returns what the container exposes and what of it the host publishes.
// One port may be published several times. Ingress ports are left out.
func (c *containerConfig) ports() (nat.PortSet, nat.PortMap, error) {
	var exposed nat.PortSet
	var bound nat.PortMap
	taken := map[string]int{}
	var only networkConfig
	if networks := c.networks(); len(networks) == 1 {
		only = networks[0]
	}
	for i, p := range c.endpointPorts() {
		path := fmt.Sprintf("Endpoint.Ports[%d]", i)
		if p.TargetPort < 1 || p.TargetPort > math.MaxUint16 {
			return nil, nil, refuse(path+".TargetPort", "%d is not between 1 and 65535", p.TargetPort)
		}
		if p.PublishedPort > math.MaxUint16 {
			return nil, nil, refuse(path+".PublishedPort", "%d is more than 65535", p.PublishedPort)
		}
		if p.PublishMode != api.PublishModeHost {
			continue
		}
		// An engine drops both in silence.
		if only.isNone() {
			return nil, nil, refuse(path+".PublishMode", "network %s publishes nothing", only.name)
		}
		if only.isHost() && p.PublishedPort != 0 && p.PublishedPort != p.TargetPort {
			return nil, nil, refuse(path+".PublishedPort", "network %s publishes each port under its own number, not %d under %d", only.name, p.TargetPort, p.PublishedPort)
		}
		binding := nat.PortBinding{} // a port of the engine's choice
		if p.PublishedPort > 0 {
			binding.HostPort = fmt.Sprint(p.PublishedPort)
			host := binding.HostPort + "/" + protocol(p)
			if other, is := taken[host]; is {
				return nil, nil, refuse(path+".PublishedPort", "%s is published by Endpoint.Ports[%d] already", host, other)
			}
			taken[host] = i
		}
		if exposed == nil {
			exposed, bound = nat.PortSet{}, nat.PortMap{}
		}
		port := nat.Port(targetPort(p))
		exposed[port] = struct{}{}
		bound[port] = append(bound[port], binding)
	}
	return exposed, bound, nil
}

func (c *containerConfig) endpointPorts() []*api.PortConfig {
	if c.task.Endpoint == nil {
		return nil
	}
	return c.task.Endpoint.Ports
}

func protocol(p *api.PortConfig) string   { return strings.ToLower(p.Protocol.String()) }
func targetPort(p *api.PortConfig) string { return fmt.Sprintf("%d/%s", p.TargetPort, protocol(p)) }
