package dockerexec

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/docker/docker/api/types/container"
	"github.com/moby/swarmkit/v2/api"
)

// hostConfig is the part of the request that depends on the host.
func (c *containerConfig) hostConfig() *container.HostConfig {
	config, _ := c.translateHostConfig() // checked by newContainerConfig
	return config
}

func (c *containerConfig) translateHostConfig() (*container.HostConfig, error) {
	spec := c.spec()
	config := &container.HostConfig{
		NetworkMode:    c.networkMode(),
		ReadonlyRootfs: spec.ReadOnly,
		GroupAdd:       cloneList(spec.Groups),
		CapAdd:         cloneList(spec.CapabilityAdd),
		CapDrop:        cloneList(spec.CapabilityDrop),
		Isolation:      isolations[spec.Isolation],
		OomScoreAdj:    int(spec.OomScoreAdj),
		LogConfig:      c.logConfig(),
	}
	if spec.OomScoreAdj < -1000 || spec.OomScoreAdj > 1000 {
		return nil, refuse("Spec.Container.OomScoreAdj", "%d is not between -1000 and 1000", spec.OomScoreAdj)
	}
	if i := slices.Index(spec.CapabilityAdd, ""); i >= 0 {
		return nil, refuse(fmt.Sprintf("Spec.Container.CapabilityAdd[%d]", i), "is empty")
	}
	if i := slices.Index(spec.CapabilityDrop, ""); i >= 0 {
		return nil, refuse(fmt.Sprintf("Spec.Container.CapabilityDrop[%d]", i), "is empty")
	}
	if spec.Init != nil {
		init := spec.Init.Value
		config.Init = &init
	}
	if dns := spec.DNSConfig; dns != nil {
		for i, server := range dns.Nameservers {
			if !isIP(server) {
				return nil, refuse(fmt.Sprintf("Spec.Container.DNSConfig.Nameservers[%d]", i), "%q is no IP address", server)
			}
		}
		config.DNS, config.DNSSearch, config.DNSOptions = cloneList(dns.Nameservers), cloneList(dns.Search), cloneList(dns.Options)
	}
	var err error
	if config.Sysctls, _, err = c.sysctls(); err != nil {
		return nil, err
	}
	if config.ExtraHosts, err = c.extraHosts(); err != nil {
		return nil, err
	}
	if config.SecurityOpt, err = c.securityOpt(); err != nil {
		return nil, err
	}
	if config.Mounts, config.Tmpfs, err = c.mounts(); err != nil {
		return nil, err
	}
	if _, config.PortBindings, err = c.ports(); err != nil {
		return nil, err
	}
	config.Resources, err = c.resources()
	return config, err
}

var isolations = map[api.ContainerSpec_Isolation]container.Isolation{
	api.ContainerIsolationDefault: container.IsolationDefault,
	api.ContainerIsolationProcess: container.IsolationProcess,
	api.ContainerIsolationHyperV:  container.IsolationHyperV,
}

// logConfig is the zero value where the engine decides. Without a name, options
// are for the engine's default driver.
func (c *containerConfig) logConfig() container.LogConfig {
	driver := c.task.LogDriver
	if driver == nil {
		driver = c.task.Spec.LogDriver
	}
	if driver == nil {
		return container.LogConfig{}
	}
	return container.LogConfig{Type: driver.Name, Config: cloneMap(driver.Options)}
}

// extraHosts translates lines of a hosts file: an address, names, a comment.
func (c *containerConfig) extraHosts() ([]string, error) {
	var hosts []string
	for i, line := range c.spec().Hosts {
		path := fmt.Sprintf("Spec.Container.Hosts[%d]", i)
		line, _, _ = strings.Cut(line, "#")
		words := strings.Fields(line)
		if len(words) < 2 {
			return nil, refuse(path, "is not an address with one name or more")
		}
		address := words[0]
		if address != "host-gateway" && !isIP(address) { // the engine puts its own address there
			return nil, refuse(path, "%q is no IP address", address)
		}
		for _, name := range words[1:] {
			if strings.Contains(name, ":") {
				return nil, refuse(path, "%q is no host name", name)
			}
			hosts = append(hosts, name+":"+address)
		}
	}
	return hosts, nil
}

// isIP reports whether s is an IP address.
func isIP(s string) bool {
	_, err := netip.ParseAddr(s)
	return err == nil
}

// cloneList and cloneMap return nil for what is empty, as an engine would read it.
func cloneList(list []string) []string {
	if len(list) == 0 {
		return nil
	}
	return slices.Clone(list)
}

func cloneMap(m map[string]string) map[string]string {
	if len(m) == 0 {
		return nil
	}
	return maps.Clone(m)
}
