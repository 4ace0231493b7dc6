package dockerexec

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/network"
	"github.com/moby/swarmkit/v2/api"
)

// LabelNetwork is the label of each network that this package makes, unless the network's Spec
// has a ConfigFrom. The value is the swarm's ID of the network, or its name if it has no ID.
const LabelNetwork = "com.dockerexec.network"

const (
	// labelPredefined marks, in a task, a network that every engine has.
	labelPredefined = "com.docker.swarm.predefined"
	// labelInternal marks the routing mesh's network if the network's name is ingress.
	// Managers that are older than the field Ingress use it.
	labelInternal = "com.docker.swarm.internal"
)

// networkConfig is one network of the task, translated into requests to the engine.
type networkConfig struct {
	name       string
	predefined bool // the engine's own: used, never created or removed
	options    network.CreateOptions
	endpoint   network.EndpointSettings // how the container joins it
}

// networks returns the networks that the container joins, sorted by name.
func (c *containerConfig) networks() []networkConfig {
	networks, _ := c.translateNetworks() // checked by translateTask
	return networks
}

// networkMode returns the name of the task's only network, if that network is predefined, or
// if sysctlsNeedMode is true and the name is made of restrictedName's characters. In all other cases it returns
// "". Then the container joins the networks of EndpointsConfig.
func (c *containerConfig) networkMode() container.NetworkMode {
	networks := c.networks()
	if len(networks) != 1 {
		return ""
	}
	// In NetworkMode a name such as container:x has another meaning.
	if n := networks[0]; n.predefined || c.sysctlsNeedMode() && restrictedName(n.name+"x") {
		return container.NetworkMode(n.name)
	}
	return ""
}

// networkingConfig says how the container joins each of its networks.
func (c *containerConfig) networkingConfig() *network.NetworkingConfig {
	config := &network.NetworkingConfig{}
	networks := c.networks()
	for _, n := range networks {
		if n.predefined && len(networks) == 1 && len(n.endpoint.DriverOpts) == 0 && len(n.endpoint.Aliases) == 0 {
			continue // NetworkMode says it all
		}
		if config.EndpointsConfig == nil {
			config.EndpointsConfig = map[string]*network.EndpointSettings{}
		}
		endpoint := n.endpoint
		config.EndpointsConfig[n.name] = &endpoint
	}
	config.EndpointsConfig = c.addSysctls(config.EndpointsConfig)
	return config
}

// endpointNames returns the names of the networks in networkingConfig, in the order in which the
// container joins them. bridge is the last: a create, which joins the first, knows none on Podman.
func (c *containerConfig) endpointNames() []string {
	names := slices.Sorted(maps.Keys(c.networkingConfig().EndpointsConfig))
	if i := slices.Index(names, network.NetworkBridge); i >= 0 { // no other one is joined beside others
		names = append(slices.Delete(names, i, i+1), network.NetworkBridge)
	}
	return names
}

func (c *containerConfig) translateNetworks() ([]networkConfig, error) {
	var networks []networkConfig
	first := map[string]int{}
	for i, attachment := range c.task.Networks {
		path := fmt.Sprintf("Networks[%d]", i)
		if attachment.Network == nil {
			return nil, refuse(path+".Network", "is nil")
		}
		if isIngress(attachment.Network) {
			continue // warned about, see ingressWarning
		}
		n, err := translateNetwork(path+".Network", attachment.Network)
		if err != nil {
			return nil, err
		}
		if other, is := first[n.name]; is {
			return nil, refuse(path+".Network.Spec.Annotations.Name", "%s is also that of Networks[%d]", n.name, other)
		}
		first[n.name] = i
		if n.endpoint, err = translateEndpoint(path, n, attachment); err != nil {
			return nil, err
		}
		networks = append(networks, n)
	}
	for _, n := range networks {
		if n.isAlone() && len(networks) > 1 {
			return nil, refuse(fmt.Sprintf("Networks[%d].Network", first[n.name]), "network %s cannot be joined together with another one", n.name)
		}
	}
	slices.SortFunc(networks, func(a, b networkConfig) int { return cmp.Compare(a.name, b.name) })
	return networks, nil
}

// predefinedDrivers has the networks that every engine has, with their drivers. The
// network nat of Windows is not among them, because on Linux a user may take that name.
// It is recognised by its label.
var predefinedDrivers = map[string]string{
	network.NetworkBridge:  "bridge",
	network.NetworkHost:    "host",
	network.NetworkNone:    "null",
	network.NetworkDefault: "bridge",
}

// isHost: a container in n has the host's own interfaces. isNone: it has no interfaces.
func (n networkConfig) isHost() bool { return n.predefined && n.name == network.NetworkHost }
func (n networkConfig) isNone() bool { return n.predefined && n.name == network.NetworkNone }

// isAlone reports whether a container in n cannot be in another network too.
func (n networkConfig) isAlone() bool {
	return n.isHost() || n.isNone() || n.predefined && n.name == network.NetworkDefault
}

// networkName returns the name of a network, and whether it is the engine's own.
func networkName(path string, n *api.Network) (name string, predefined bool, err error) {
	name = n.Spec.Annotations.Name
	_, known := predefinedDrivers[name]
	predefined = known || n.Spec.Annotations.Labels[labelPredefined] == "true"
	switch {
	case name == "":
		err = refuse(path+".Spec.Annotations.Name", "is empty")
	// The name of a predefined network becomes the NetworkMode. There container:x has another meaning.
	case predefined && !restrictedName(name), strings.Contains(name, "/"), name == ".", name == "..":
		err = refuse(path+".Spec.Annotations.Name", "%q cannot be used as the name of a network", name)
	}
	return name, predefined, err
}

func translateNetwork(path string, n *api.Network) (config networkConfig, err error) {
	spec := &n.Spec
	if config.name, config.predefined, err = networkName(path, n); err != nil {
		return config, err
	}
	if config.predefined {
		return config, checkPredefined(path, n)
	}
	config.options = network.CreateOptions{
		Internal:   spec.Internal,
		Attachable: spec.Attachable,
		Labels:     cloneMap(spec.Annotations.Labels),
	}
	if from := spec.GetNetwork(); from != "" {
		// With ConfigFrom an engine takes no labels. So only the Engine value that made the
		// network recognises it. After a restart of the agent nobody removes the network.
		if err := checkConfigured(path, n, from); err != nil {
			return config, err
		}
		config.options.ConfigFrom = &network.ConfigReference{Network: from}
	} else {
		if config.options.Labels == nil {
			config.options.Labels = map[string]string{}
		}
		config.options.Labels[LabelNetwork] = cmp.Or(n.ID, config.name)
	}
	if driver := n.DriverState; driver != nil { // nil: the engine's default
		config.options.Driver, config.options.Options = driver.Name, cloneMap(driver.Options)
	}
	if spec.Ipv6Enabled {
		enable := true
		config.options.EnableIPv6 = &enable
	}
	config.options.IPAM, err = translateIPAM(path+".IPAM", n.IPAM, spec.Ipv6Enabled)
	return config, err
}

// checkPredefined refuses settings of a predefined network: no task can change them.
func checkPredefined(path string, n *api.Network) error {
	name := n.Spec.Annotations.Name
	if own, known := predefinedDrivers[name]; known && n.DriverState != nil && n.DriverState.Name != "" && n.DriverState.Name != own {
		return refuse(path+".DriverState.Name", "network %s is the engine's own, of the driver %s and not %s", name, own, n.DriverState.Name)
	}
	for _, setting := range append([]networkSetting{
		{"Spec.Internal", n.Spec.Internal},
		{"Spec.Attachable", n.Spec.Attachable},
		{"Spec.Network", n.Spec.GetNetwork() != ""},
	}, settingsOf(n)...) {
		if setting.isSet {
			return refuse(path+"."+setting.field, "network %s is the engine's own and used as it is", name)
		}
	}
	return nil
}

// checkConfigured refuses settings that an engine does not take together with ConfigFrom.
func checkConfigured(path string, n *api.Network, from string) error {
	const why = "network %s takes this from the network %s, its Spec.Network, and an engine takes nothing beside it"
	for _, setting := range append([]networkSetting{
		{"Spec.Annotations.Labels", len(n.Spec.Annotations.Labels) > 0},
	}, settingsOf(n)...) {
		if setting.isSet {
			return refuse(path+"."+setting.field, why, n.Spec.Annotations.Name, from)
		}
	}
	return nil
}

// networkSetting says whether the task sets a field of a network.
type networkSetting struct {
	field string
	isSet bool
}

// settingsOf returns the settings that a task can give neither to a predefined network
// nor to a network with ConfigFrom.
func settingsOf(n *api.Network) []networkSetting {
	ipam := cmp.Or(n.IPAM, &api.IPAMOptions{})
	addresses := cmp.Or(ipam.Driver, &api.Driver{})
	return []networkSetting{
		{"Spec.Ipv6Enabled", n.Spec.Ipv6Enabled},
		{"DriverState.Options", n.DriverState != nil && len(n.DriverState.Options) > 0},
		{"IPAM.Driver.Name", addresses.Name != "" && addresses.Name != "default"},
		{"IPAM.Driver.Options", len(addresses.Options) > 0},
		{"IPAM.Configs", len(ipam.Configs) > 0},
	}
}

func translateEndpoint(path string, n networkConfig, attachment *api.NetworkAttachment) (network.EndpointSettings, error) {
	endpoint := network.EndpointSettings{
		Aliases:    cloneList(attachment.Aliases),
		DriverOpts: cloneMap(attachment.DriverAttachmentOpts),
	}
	_, own := predefinedDrivers[n.name]
	switch i := slices.Index(attachment.Aliases, ""); {
	case i >= 0:
		return endpoint, refuse(fmt.Sprintf("%s.Aliases[%d]", path, i), "is empty")
	case own && len(attachment.Aliases) > 0:
		return endpoint, refuse(path+".Aliases", "network %s is the engine's own, which has none", n.name)
	case n.predefined && len(attachment.Addresses) > 0:
		return endpoint, refuse(path+".Addresses", "network %s is the engine's own, which gives the addresses itself", n.name)
	case n.isAlone() && len(attachment.DriverAttachmentOpts) > 0:
		return endpoint, refuse(path+".DriverAttachmentOpts", "network %s has none", n.name)
	}
	for i, address := range attachment.Addresses {
		path := fmt.Sprintf("%s.Addresses[%d]", path, i)
		prefix, err := netip.ParsePrefix(address)
		if err != nil {
			return endpoint, refuse(path, "%q is no address with the length of its subnet, as in 10.0.0.2/24", address)
		}
		if endpoint.IPAMConfig == nil {
			endpoint.IPAMConfig = &network.EndpointIPAMConfig{}
		}
		to, family := &endpoint.IPAMConfig.IPv4Address, "IPv4"
		ip := prefix.Addr().Unmap()
		if ip.Is6() {
			to, family = &endpoint.IPAMConfig.IPv6Address, "IPv6"
		}
		if *to != "" {
			return endpoint, refuse(path, "%s is a second %s address; an engine gives one", ip, family)
		}
		if !n.mayHave(ip) {
			return endpoint, refuse(path, "%s is in no subnet of network %s", ip, n.name)
		}
		*to = ip.String()
	}
	return endpoint, nil
}

// mayHave reports whether an engine may give the address ip in n. If n has subnets of the
// family of ip, one of them must contain ip. An IPAM driver other than the engine's own
// decides for itself.
func (n networkConfig) mayHave(ip netip.Addr) bool {
	ipam := n.options.IPAM
	if ipam == nil || ipam.Driver != "" && ipam.Driver != "default" {
		return true
	}
	none := true
	for _, c := range ipam.Config {
		subnet := netip.MustParsePrefix(c.Subnet) // checked by translateIPAM
		if subnet.Contains(ip) {
			return true
		}
		none = none && subnet.Addr().Is6() != ip.Is6()
	}
	return none
}

func translateIPAM(path string, ipam *api.IPAMOptions, ipv6 bool) (*network.IPAM, error) {
	if ipam == nil {
		return nil, nil
	}
	result := &network.IPAM{}
	if ipam.Driver != nil { // nil: the engine's default
		result.Driver, result.Options = ipam.Driver.Name, cloneMap(ipam.Driver.Options)
	}
	for i, c := range ipam.Configs {
		path := fmt.Sprintf("%s.Configs[%d]", path, i)
		if c.Subnet == "" && c.Range == "" && c.Gateway == "" && len(c.Reserved) == 0 {
			continue // the engine chooses
		}
		subnet, err := netip.ParsePrefix(c.Subnet)
		if err != nil {
			return nil, refuse(path+".Subnet", "%q is no subnet", c.Subnet)
		}
		family := api.IPAMConfig_IPV4
		if subnet.Addr().Is6() {
			family = api.IPAMConfig_IPV6
		}
		if c.Family != api.IPAMConfig_UNKNOWN && c.Family != family {
			return nil, refuse(path+".Family", "%s is not that of subnet %s", c.Family, c.Subnet)
		}
		if family == api.IPAMConfig_IPV6 && !ipv6 {
			return nil, refuse(path+".Subnet", "%s has no effect in a network without Ipv6Enabled", c.Subnet)
		}
		if c.Range != "" {
			if r, err := netip.ParsePrefix(c.Range); err != nil || r.Bits() < subnet.Bits() || !subnet.Contains(r.Addr()) {
				return nil, refuse(path+".Range", "%q is no part of subnet %s", c.Range, c.Subnet)
			}
		}
		if c.Gateway != "" && !within(subnet, c.Gateway) {
			return nil, refuse(path+".Gateway", "%q is no address in subnet %s", c.Gateway, c.Subnet)
		}
		for _, name := range slices.Sorted(maps.Keys(c.Reserved)) {
			if !within(subnet, c.Reserved[name]) {
				return nil, refuse(fmt.Sprintf("%s.Reserved[%s]", path, name), "%q is no address in subnet %s", c.Reserved[name], c.Subnet)
			}
		}
		result.Config = append(result.Config, network.IPAMConfig{
			Subnet: c.Subnet, IPRange: c.Range, Gateway: c.Gateway, AuxAddress: cloneMap(c.Reserved),
		})
	}
	return result, nil
}

func within(subnet netip.Prefix, address string) bool {
	a, err := netip.ParseAddr(address)
	return err == nil && subnet.Contains(a)
}

const (
	// interfaceSysctls is the first API version that takes the settings (sysctls) of a
	// network interface as a driver option of the endpoint. From 1.48 on this is the only way.
	// Below 1.46 a request has them among the other sysctls. A newer engine then moves
	// them to the option. For that it needs the name of the network in NetworkMode.
	interfaceSysctls = "1.46"
	// optionSysctls is the name of that option. In its value the interface is written
	// as IFNAME.
	optionSysctls = "com.docker.network.endpoint.sysctls"
)

// sysctls returns the kernel settings of the container. option holds the settings of its
// network interface, as the value of optionSysctls.
//
// An engine numbers the interfaces in the order in which it happens to make them. With
// one network, eth0 is its interface. With several, no interface is known beforehand.
func (c *containerConfig) sysctls() (plain map[string]string, option string, err error) {
	var options []string
	networks := c.networks()
	for _, name := range slices.Sorted(maps.Keys(c.spec().Sysctls)) {
		path, value := fmt.Sprintf("Spec.Container.Sysctls[%s]", name), c.spec().Sysctls[name]
		if name == "" {
			return nil, "", refuse("Spec.Container.Sysctls", "has a value without a name")
		}
		if len(networks) == 1 && networks[0].isHost() && strings.HasPrefix(strings.ReplaceAll(name, "/", "."), "net.") {
			return nil, "", refuse(path, "network %s has the host's own settings", networks[0].name)
		}
		if parts := interfaceSysctl(name); parts != nil {
			switch {
			case len(networks) > 1:
				return nil, "", refuse(path, "which of several networks has the interface %s is not known beforehand; set %s in Networks.DriverAttachmentOpts", parts[3], optionSysctls)
			case len(networks) == 1 && networks[0].isNone():
				return nil, "", refuse(path, "network %s has no interface %s", networks[0].name, parts[3])
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

// interfaceSysctl splits the name of an interface's setting into its parts. The fourth
// part is the interface. It returns nil for any other setting.
func interfaceSysctl(name string) []string {
	parts := strings.SplitN(name, ".", 5)
	if len(parts) == 5 && parts[0] == "net" && strings.HasPrefix(parts[3], "eth") {
		return parts
	}
	return nil
}

// sysctlsNeedMode reports whether NetworkMode must name the network to whose interface
// the settings belong.
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

// addSysctls puts the settings of the interface into the driver option optionSysctls of the
// endpoint of the task's network. If the task itself sets that driver option, the task's
// settings come last and win.
func (c *containerConfig) addSysctls(endpoints map[string]*network.EndpointSettings) map[string]*network.EndpointSettings {
	_, option, _ := c.sysctls() // checked by translateTask
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
