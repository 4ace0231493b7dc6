package dockerexec

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/docker/docker/api/types/network"
	"github.com/moby/swarmkit/v2/api"
)

func translateIPAM(path string, ipam *api.IPAMOptions, ipv6 bool) (*network.IPAM, error) {
	if ipam == nil {
		return nil, nil
	}
	result := &network.IPAM{}
	if ipam.Driver != nil { // else the engine's default
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
