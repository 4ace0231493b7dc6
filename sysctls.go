package dockerexec

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/docker/docker/api/types/network"
)

const (
	// interfaceSysctls is the API version that brought settings of a network
	// interface as an option of the network; from 1.48 on it is the only way. Below
	// 1.46 they are settings like others. An engine that has the option moves them
	// there even then, and wants the network named in NetworkMode.
	interfaceSysctls = "1.46"
	// optionSysctls is the option of a network that holds them, the interface
	// written as IFNAME.
	optionSysctls = "com.docker.network.endpoint.sysctls"
)

// sysctls returns the kernel settings of the container, and apart from them those
// of its network interface as one option of the network.
//
// An engine names interfaces in the order in which it happens to make them. So
// eth0 is known only where there is one network, and others never.
func (c *containerConfig) sysctls() (plain map[string]string, option string, err error) {
	var options []string
	networks := c.networks()
	for _, name := range slices.Sorted(maps.Keys(c.spec().Sysctls)) {
		path, value := fmt.Sprintf("Spec.Container.Sysctls[%s]", name), c.spec().Sysctls[name]
		if name == "" {
			return nil, "", refuse("Spec.Container.Sysctls", "has a value without a name")
		}
		if parts := interfaceSysctl(name); parts != nil {
			switch {
			case len(networks) > 1:
				return nil, "", refuse(path, "which of several networks has the interface %s is not known beforehand; set %s in Networks.DriverAttachmentOpts", parts[3], optionSysctls)
			case len(networks) == 1 && networks[0].isNone():
				return nil, "", refuse(path, "network %s has no interface %s", networks[0].name, parts[3])
			case len(networks) == 1 && networks[0].isHost(): // the engine refuses what is the host's
			case parts[3] != "eth0":
				return nil, "", refuse(path, "the task has no interface %s, only eth0", parts[3])
			case !c.oldSysctls:
				parts[3] = "IFNAME"
				options = append(options, strings.Join(parts, ".")+"="+value)
				continue
			}
		}
		if plain == nil {
			plain = map[string]string{}
		}
		plain[name] = value
	}
	return plain, strings.Join(options, ","), nil
}

// interfaceSysctl returns the parts of the name of an interface's setting, which
// is the fourth of them; nil: it is no interface's.
func interfaceSysctl(name string) []string {
	parts := strings.SplitN(name, ".", 5)
	if len(parts) == 5 && parts[0] == "net" && strings.HasPrefix(parts[3], "eth") {
		return parts
	}
	return nil
}

// sysctlsNeedMode reports whether NetworkMode has to say to which network the
// settings of an interface belong.
func (c *containerConfig) sysctlsNeedMode() bool {
	if !c.oldSysctls {
		return false
	}
	for name := range c.spec().Sysctls {
		if interfaceSysctl(name) != nil {
			return true
		}
	}
	return false
}

// addSysctls adds the settings of the one interface to the endpoint that has it.
// What the task says there itself comes last, and counts.
func (c *containerConfig) addSysctls(endpoints map[string]*network.EndpointSettings) map[string]*network.EndpointSettings {
	_, option, _ := c.sysctls() // checked by newContainerConfig
	if option == "" {
		return endpoints
	}
	name := network.NetworkBridge // what a task without networks joins
	if networks := c.networks(); len(networks) == 1 {
		name = networks[0].name
	}
	if endpoints == nil {
		endpoints = map[string]*network.EndpointSettings{}
	}
	endpoint := cmp.Or(endpoints[name], &network.EndpointSettings{})
	if endpoint.DriverOpts == nil {
		endpoint.DriverOpts = map[string]string{}
	}
	if own := endpoint.DriverOpts[optionSysctls]; own != "" {
		option += "," + own
	}
	endpoint.DriverOpts[optionSysctls] = option
	endpoints[name] = endpoint
	return endpoints
}
