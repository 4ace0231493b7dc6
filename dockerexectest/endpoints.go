package dockerexectest

import (
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"github.com/docker/docker/api/types/events"
	"github.com/docker/docker/api/types/network"
)

// endpoint is a container's place in a network. The engine's mu guards it.
type endpoint struct {
	network  string // its name
	known    string // the network's ID, from the first join on; later joins look the network up by this ID
	settings network.EndpointSettings
	joined   *networkState // nil unless the container runs
	id, ip   string
	mac      string
}

func (p *endpoint) leave() { p.joined, p.id, p.ip, p.mac = nil, "", "", "" }

// cidr returns the address with the length of its subnet's prefix; empty without an address.
func (p *endpoint) cidr() string {
	if p.ip == "" {
		return ""
	}
	for _, config := range p.joined.IPAM.Config {
		if prefix, err := netip.ParsePrefix(config.Subnet); err == nil && prefix.Contains(netip.MustParseAddr(p.ip)) {
			return netip.PrefixFrom(netip.MustParseAddr(p.ip), prefix.Bits()).String()
		}
	}
	return p.ip + "/32"
}

// report returns the endpoint in the form of a container's inspect.
func (p *endpoint) report(c *Container) *network.EndpointSettings {
	report := p.settings
	switch own := p.network != "bridge" && p.network != "host" && p.network != "none"; {
	case own && c.engine.dialect == DockerV29 && p.known != "":
		report.DNSNames = slices.Concat([]string{c.name}, report.Aliases, []string{c.id[:12]})
	case own && c.engine.dialect == DockerV20 && p.known != "":
		report.Aliases = append(slices.Clone(report.Aliases), c.id[:12])
	}
	report.NetworkID = p.known
	if p.joined == nil {
		return &report
	}
	report.EndpointID, report.IPAddress, report.MacAddress = p.id, p.ip, p.mac
	if prefix, err := netip.ParsePrefix(p.cidr()); err == nil {
		report.IPPrefixLen = prefix.Bits()
	}
	for _, config := range p.joined.IPAM.Config {
		if addr, err := netip.ParseAddr(gatewayOf(config)); err == nil && addr.Is4() {
			report.Gateway = addr.String()
		}
	}
	return &report
}

// endpointOn returns the container's endpoint that has joined a network, or nil.
func (c *Container) endpointOn(n *networkState) *endpoint {
	for _, p := range c.endpoints {
		if p.joined == n {
			return p
		}
	}
	return nil
}

// planNetworks notes which networks a container joins when it starts. Podman checks now
// whether they exist; Docker checks at the start. The caller holds mu.
func (e *Engine) planNetworks(r *request, c *Container, config *network.NetworkingConfig) error {
	var wanted map[string]*network.EndpointSettings
	if config != nil {
		wanted = config.EndpointsConfig
	}
	names := slices.Sorted(maps.Keys(wanted))
	if len(names) > 1 && (e.dialect == DockerV20 || e.dialect == DockerV29 && !r.atLeast("1.44")) {
		verb := "created with multiple"
		if e.dialect == DockerV20 {
			verb = "connected to"
		}
		return badRequest("Container cannot be %s network endpoints: %s", verb, strings.Join(names, ", "))
	}
	mode := c.hostConfig.NetworkMode
	if mode.IsContainer() {
		return nil
	}
	for _, name := range names {
		settings := wanted[name]
		if settings == nil {
			settings = &network.EndpointSettings{}
		}
		if n, err := e.findNetwork(name); err == nil {
			if e.dialect == DockerV29 && settings.IPAMConfig != nil && !n.holds(settings.IPAMConfig.IPv4Address) {
				return badRequest("invalid config for network %s: %s", name, outside29(settings.IPAMConfig.IPv4Address))
			}
			name = n.Name
		}
		c.endpoints = append(c.endpoints, &endpoint{network: name, settings: *settings})
	}
	own := string(mode)
	if mode.IsDefault() {
		own = "bridge"
	}
	if n, err := e.findNetwork(own); err == nil {
		own = n.Name
	}
	isIn := slices.ContainsFunc(c.endpoints, func(p *endpoint) bool { return p.network == own })
	if !isIn && (len(c.endpoints) == 0 || mode.IsUserDefined()) {
		c.endpoints = append(c.endpoints, &endpoint{network: own})
	}
	if e.dialect == PodmanV4 {
		for _, p := range c.endpoints {
			if n, _ := e.findNetwork(p.network); n == nil {
				return e.dialect.noNetworkToCreate(p.network)
			}
		}
	}
	return nil
}

// joinNetworks lets a container that starts join its networks. The caller holds mu.
func (e *Engine) joinNetworks(c *Container) *apiError {
	if err := e.publishPorts(c); err != nil {
		if e.dialect == DockerV29 {
			c.endpoints = nil // the next start joins no networks
		}
		return err
	}
	for _, p := range c.endpoints {
		n, err := e.findNetwork(orDefault(p.known, p.network))
		if err != nil {
			return e.dialect.startNetworking(err)
		}
		if len(c.endpoints) > 1 {
			switch n.Driver {
			case "host":
				return e.dialect.startNetworking(badRequest("container sharing network namespace with another container or host cannot be connected to any other network"))
			case "null":
				return e.dialect.startNetworking(badRequest("container cannot be connected to multiple networks with one of the networks in private (none) mode"))
			}
		}
		if err := e.join(c, p, n); err != nil {
			return e.dialect.startNetworking(err)
		}
	}
	return nil
}

// join gives an endpoint its address. The caller holds mu.
func (e *Engine) join(c *Container, p *endpoint, n *networkState) *apiError {
	if n.ConfigOnly {
		return forbidden("cannot create endpoint on configuration-only network")
	}
	p.id = e.newID("endpoint")
	p.joined, p.known = n, n.ID
	if n.Driver != "host" && n.Driver != "null" {
		wanted := ""
		if p.settings.IPAMConfig != nil {
			wanted = p.settings.IPAMConfig.IPv4Address
		}
		ip, err := e.address(n, wanted)
		if err != nil {
			p.leave()
			return err
		}
		p.ip = ip
		p.mac = "02:42:" + macOf(ip)
	}
	e.emitNetwork(n, events.ActionConnect, c.id)
	return nil
}

// leaveNetworks takes a container that has ended out of its networks. The caller holds mu.
func (e *Engine) leaveNetworks(c *Container) {
	for _, p := range c.endpoints {
		if p.joined != nil {
			e.emitNetwork(p.joined, events.ActionDisconnect, c.id)
			p.leave()
		}
	}
	e.freePorts(c)
}

// address returns a free address of a network: wanted, or the first free one if wanted is
// empty. The caller holds mu.
func (e *Engine) address(n *networkState, wanted string) (string, *apiError) {
	taken := map[string]bool{}
	for _, c := range e.order {
		if p := c.endpointOn(n); p != nil && p.ip != "" {
			taken[p.ip] = true
		}
	}
	if wanted != "" {
		for _, config := range n.IPAM.Config {
			taken[gatewayOf(config)] = true
		}
		switch {
		case !n.holds(wanted):
			return "", e.dialect.say(http.StatusInternalServerError, "Invalid address "+wanted+": It does not belong to any of this network's subnets", outside29(wanted))
		case taken[wanted]:
			return "", forbidden("Address already in use")
		}
		return wanted, nil
	}
	for _, config := range n.IPAM.Config {
		prefix, err := netip.ParsePrefix(config.Subnet)
		if err != nil || !prefix.Addr().Is4() {
			continue
		}
		for addr := prefix.Masked().Addr().Next(); prefix.Contains(addr); addr = addr.Next() {
			if text := addr.String(); text != gatewayOf(config) && !taken[text] {
				return text, nil
			}
		}
	}
	if len(n.IPAM.Config) == 0 {
		return "", nil
	}
	return "", forbidden("no available IPv4 addresses on this network's address pools: %s (%s)", n.Name, n.ID)
}

// holds reports whether a subnet of the network contains address. For an empty address, and
// for a network without subnets, it returns true.
func (n *networkState) holds(address string) bool {
	return address == "" || len(n.IPAM.Config) == 0 || slices.ContainsFunc(n.IPAM.Config, func(config network.IPAMConfig) bool {
		prefix, prefixErr := netip.ParsePrefix(config.Subnet)
		addr, addrErr := netip.ParseAddr(address)
		return prefixErr == nil && addrErr == nil && prefix.Contains(addr)
	})
}

// outside29 returns Docker 29's words for an address that is in no subnet.
func outside29(address string) string {
	return "invalid endpoint settings:\nno configured subnet contains IP address " + address
}

// gatewayOf returns the subnet's gateway. If none is set, it is the first address.
func gatewayOf(config network.IPAMConfig) string {
	if prefix, err := netip.ParsePrefix(config.Subnet); err == nil && config.Gateway == "" {
		return prefix.Masked().Addr().Next().String()
	}
	return config.Gateway
}

func macOf(ip string) string {
	addr := net.ParseIP(ip).To4()
	if addr == nil {
		addr = net.IPv4zero.To4()
	}
	return net.HardwareAddr(addr).String()
}

// giveSubnets checks the subnets of a new network. For IPv4, and for IPv6, it picks a
// subnet if the network needs one and has none. The caller holds mu.
func (e *Engine) giveSubnets(n *networkState) *apiError {
	overlaps := func(prefix netip.Prefix) bool {
		for _, other := range e.networks {
			for _, config := range other.IPAM.Config {
				if known, err := netip.ParsePrefix(config.Subnet); err == nil && !other.ConfigOnly && known.Overlaps(prefix) {
					return true
				}
			}
		}
		return false
	}
	hasV4, hasV6 := false, false
	for i, config := range n.IPAM.Config {
		if config.Subnet == "" {
			continue
		}
		prefix, err := netip.ParsePrefix(config.Subnet)
		if err != nil {
			return e.dialect.say(http.StatusInternalServerError, "Invalid subnet "+config.Subnet+" : invalid CIDR address: "+config.Subnet,
				fmt.Sprintf("invalid JSON: netip.ParsePrefix(%q): no '/'", config.Subnet))
		}
		if overlaps(prefix) {
			if e.dialect == DockerV20 {
				return forbidden("Pool overlaps with other one on this address space")
			}
			return forbidden("invalid pool request: Pool overlaps with other one on this address space")
		}
		hasV4 = hasV4 || prefix.Addr().Is4()
		hasV6 = hasV6 || prefix.Addr().Is6()
		if config.Gateway == "" && e.dialect != DockerV20 {
			n.IPAM.Config[i].Gateway = prefix.Masked().Addr().Next().String()
		}
	}
	add := func(prefix netip.Prefix) {
		n.IPAM.Config = append(n.IPAM.Config, network.IPAMConfig{Subnet: prefix.String(), Gateway: prefix.Addr().Next().String()})
	}
	if !hasV4 && n.EnableIPv4 {
		free := slices.IndexFunc(pools, func(pool netip.Prefix) bool { return !overlaps(pool) })
		if free < 0 {
			if e.dialect == DockerV20 {
				return notFound("could not find an available, non-overlapping IPv4 address pool among the defaults to assign to the network")
			}
			return badRequest("all predefined address pools have been fully subnetted")
		}
		add(pools[free])
	}
	if n.EnableIPv6 && !hasV6 {
		if e.dialect == DockerV20 {
			return notFound("could not find an available, non-overlapping IPv6 address pool among the defaults to assign to the network")
		}
		e.made++
		add(netip.PrefixFrom(netip.AddrFrom16([16]byte{0xfd, 0, 0, 0, 0, 0, byte(e.made >> 8), byte(e.made)}), 64))
	}
	return nil
}

// pools are the subnets that an engine picks from.
var pools = func() (list []netip.Prefix) {
	for n := byte(17); n < 32; n++ {
		list = append(list, netip.PrefixFrom(netip.AddrFrom4([4]byte{172, n, 0, 0}), 16))
	}
	for n := 0; n < 256; n += 16 {
		list = append(list, netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 168, byte(n), 0}), 20))
	}
	return list
}()

// connectNetwork is POST /networks/{id}/connect.
func connectNetwork(e *Engine, r *request) (answer, error) {
	var body network.ConnectOptions
	if err := e.decode(r, &body); err != nil {
		return answer{}, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	n, networkErr := e.findNetwork(r.name)
	c, err := e.find(body.Container)
	switch {
	case networkErr != nil && (err != nil || c.running || e.dialect == PodmanV4):
		return answer{}, networkErr
	case err != nil:
		return answer{}, err
	case networkErr != nil: // looked for when the container starts
		n = &networkState{Inspect: network.Inspect{Name: r.name}}
	}
	if c.removing || c.dead {
		return answer{}, forbidden("Container %s is marked for removal and cannot be connected or disconnected to the network", c.id)
	}
	settings := network.EndpointSettings{}
	if body.EndpointConfig != nil {
		settings = *body.EndpointConfig
	}
	for _, p := range c.endpoints {
		switch {
		case p.network == n.Name && p.joined != nil:
			return answer{}, forbidden("endpoint with name %s already exists in network %s", c.name, n.Name)
		case p.network == n.Name && !c.running:
			return answer{status: http.StatusOK}, nil
		case p.network == n.Name: // a connect that was refused has left this endpoint
			p.settings = settings
			return answer{status: http.StatusOK}, orNil(e.join(c, p, n))
		case p.network == "host":
			return answer{}, badRequest("container sharing network namespace with another container or host cannot be connected to any other network")
		case p.network == "none" || n.Driver == "null":
			return answer{}, badRequest("container cannot be connected to multiple networks with one of the networks in private (none) mode")
		}
	}
	if n.Driver == "host" {
		return answer{}, e.dialect.say(http.StatusBadRequest, "container cannot be disconnected from host network or connected to host network",
			"cannot connect container to host network - container must be created in host network mode")
	}
	p := &endpoint{network: n.Name, settings: settings}
	isSound := settings.IPAMConfig == nil || n.holds(settings.IPAMConfig.IPv4Address)
	var refused *apiError
	if c.running {
		refused = e.join(c, p, n)
	}
	if refused == nil || e.dialect == DockerV20 || e.dialect == DockerV29 && isSound { // kept even if the join was refused
		c.endpoints = append(c.endpoints, p)
		slices.SortFunc(c.endpoints, func(a, b *endpoint) int { return strings.Compare(a.network, b.network) })
	}
	return answer{status: http.StatusOK}, orNil(refused)
}

// orNil returns err as an error. A nil *apiError becomes a nil error.
func orNil(err *apiError) error {
	if err == nil {
		return nil
	}
	return err
}

// disconnectNetwork is POST /networks/{id}/disconnect.
func disconnectNetwork(e *Engine, r *request) (answer, error) {
	var body network.DisconnectOptions
	if err := e.decode(r, &body); err != nil {
		return answer{}, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	n, networkErr := e.findNetwork(r.name)
	if networkErr != nil {
		return answer{}, networkErr
	}
	c, err := e.find(body.Container)
	if err != nil {
		return answer{}, err
	}
	at := slices.IndexFunc(c.endpoints, func(p *endpoint) bool { return p.network == n.Name })
	if at < 0 {
		return answer{}, internal("", "container %s is not connected to the network %s", c.id, n.Name)
	}
	c.endpoints[at].leave()
	c.endpoints = slices.Delete(c.endpoints, at, at+1)
	e.emitNetwork(n, events.ActionDisconnect, c.id)
	return answer{status: http.StatusOK}, nil
}
