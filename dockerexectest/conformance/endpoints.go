package conformance

import (
	"strconv"
	"strings"

	"github.com/docker/docker/api/types/network"
)

var endpointStatements = []Statement{
	{Name: "a start gives a container its place in the network", On: dockers, check: func(t *T) {
		n := t.network("net", M{"IPAM": M{"Config": []M{{"Subnet": t.subnet("0/24"), "Gateway": t.subnet("1")}}}})
		e := t.endpoint(t.ready("web", "sleep 1h", inNetwork(t)), "net")
		same(t, "NetworkID", n, e.NetworkID)
		same(t, "IPAddress", t.subnet("2"), e.IPAddress)
		same(t, "IPPrefixLen", 24, e.IPPrefixLen)
		same(t, "Gateway", t.subnet("1"), e.Gateway)
		same(t, "EndpointID is given", true, e.EndpointID != "")
		same(t, "MacAddress is given", true, strings.HasPrefix(e.MacAddress, "02:42:") || t.v == DockerV29 && len(e.MacAddress) == 17)
	}},
	{Name: "each container of a network has an address of its own", On: dockers, check: func(t *T) {
		t.network("net", M{"IPAM": M{"Config": []M{{"Subnet": t.subnet("0/24"), "Gateway": t.subnet("1")}}}})
		for n, name := range []string{"a", "b", "c"} {
			same(t, "IPAddress", t.subnet(strconv.Itoa(n+2)), t.endpoint(t.ready(name, "sleep 1h", inNetwork(t)), "net").IPAddress)
		}
	}},
	{Name: "a network that was asked for by its ID is known by its name", On: dockers, check: func(t *T) {
		n := t.network("net", nil)
		i := t.inspect(t.ready("web", "sleep 1h", host(M{"NetworkMode": n})))
		same(t, "how many", 1, len(i.NetworkSettings.Networks))
		same(t, "NetworkID", n, i.NetworkSettings.Networks[t.name("net")].NetworkID)
		same(t, "NetworkMode", n, string(i.HostConfig.NetworkMode))
	}},
	{Name: "a created container has the network and no address", On: dockers, check: func(t *T) {
		t.network("net", nil)
		e := t.endpoint(t.create("web", "sleep 1h", inNetwork(t)), "net")
		same(t, "IPAddress", "", e.IPAddress)
		same(t, "EndpointID", "", e.EndpointID)
		same(t, "NetworkID", "", e.NetworkID)
	}},
	{Name: "an ended container has no address, and knows the network", On: dockers, check: func(t *T) {
		n := t.network("net", nil)
		e := t.endpoint(t.ended("web", "exit 0", inNetwork(t)), "net")
		same(t, "IPAddress", "", e.IPAddress)
		same(t, "EndpointID", "", e.EndpointID)
		same(t, "NetworkID", n, e.NetworkID)
	}},
	{Name: "a network tells who runs in it", check: func(t *T) {
		t.network("net", nil)
		id := t.ready("web", "sleep 1h", inNetwork(t))
		in := t.inspectNetwork(t.name("net")).Containers
		same(t, "how many", 1, len(in))
		same(t, "Name", t.name("web"), in[id].Name)
		same(t, "the address", t.endpoint(id, "net").IPAddress, strings.Split(in[id].IPv4Address, "/")[0])
		t.do("POST /containers/"+id+"/kill", nil).ok(204)
		t.untilStatus(id, "exited")
		same(t, "how many after the end", by(t, 0, 0, 1), len(t.inspectNetwork(t.name("net")).Containers))
	}},
	{Name: "a network that was asked for is among the container's", check: func(t *T) {
		t.network("net", nil)
		networks := t.inspect(t.create("web", "sleep 1h", inNetwork(t))).NetworkSettings.Networks
		same(t, "how many", 1, len(networks))
	}},
	{Name: "the network of nobody's asking is bridge", On: dockers, check: func(t *T) {
		i := t.inspect(t.ready("web", "sleep 1h"))
		same(t, "how many", 1, len(i.NetworkSettings.Networks))
		same(t, "it has an address", true, i.NetworkSettings.Networks["bridge"].IPAddress != "")
	}},
	{Name: "host and none are networks without an address", On: dockers, check: func(t *T) {
		for _, name := range []string{"host", "none"} {
			i := t.inspect(t.ready(name, "sleep 1h", host(M{"NetworkMode": name})))
			same(t, "it has "+name, true, i.NetworkSettings.Networks[name] != nil)
			same(t, "IPAddress", "", i.NetworkSettings.Networks[name].IPAddress)
		}
	}},
	{Name: "a fixed address is given", On: dockers, check: func(t *T) {
		t.network("net", M{"IPAM": M{"Config": []M{{"Subnet": t.subnet("0/24")}}}})
		same(t, "IPAddress", t.subnet("77"), t.endpoint(t.ready("web", "sleep 1h", inNetworkAt(t, t.subnet("77"))), "net").IPAddress)
	}},
	{Name: "a fixed address that another has is refused at the start", On: dockers, check: func(t *T) {
		t.network("net", M{"IPAM": M{"Config": []M{{"Subnet": t.subnet("0/24")}}}})
		t.ready("web", "sleep 1h", inNetworkAt(t, t.subnet("77")))
		id := t.create("other", "sleep 1h", inNetworkAt(t, t.subnet("77")))
		t.do("POST /containers/"+id+"/start", nil).is(v20(403, "Address already in use"), v29(403, "failed to set up container networking: Address already in use"))
		same(t, "Status", "created", t.inspect(id).State.Status)
		same(t, "ExitCode", 128, t.inspect(id).State.ExitCode)
	}},
	{Name: "a fixed address outside the subnet is refused by 29 at the create, by 20.10 at the start", On: dockers, check: func(t *T) {
		t.network("net", M{"IPAM": M{"Config": []M{{"Subnet": t.subnet("0/24")}}}})
		made := t.tryCreate("web", "sleep 1h", inNetworkAt(t, "10.99.0.1"))
		if t.v == DockerV29 {
			made.is(v29(400, "invalid config for network "+t.name("net")+": invalid endpoint settings:\nno configured subnet contains IP address 10.99.0.1"))
			return
		}
		made.ok(201)
		t.do("POST /containers/"+t.name("web")+"/start", nil).is(v20(500, "Invalid address 10.99.0.1: It does not belong to any of this network's subnets"))
	}},
	{Name: "aliases are kept, and the short ID is one of them in 20.10", On: dockers, check: func(t *T) {
		t.network("net", nil)
		id := t.ready("web", "sleep 1h", inNetwork(t), M{"NetworkingConfig": M{"EndpointsConfig": M{t.name("net"): M{"Aliases": []string{"other"}}}}})
		e := t.endpoint(id, "net")
		same(t, "Aliases", by(t, []string{"other"}, []string{"other", id[:12]}, nil), e.Aliases)
		same(t, "DNSNames", by(t, []string{t.name("web"), "other", id[:12]}, nil, nil), e.DNSNames)
	}},
	{Name: "a network that is not there is seen at the start", On: dockers, check: func(t *T) {
		id := t.create("web", "sleep 1h", host(M{"NetworkMode": "nosuch"}))
		t.do("POST /containers/"+id+"/start", nil).is(v20(404, "network nosuch not found"), v29(404, "failed to set up container networking: network nosuch not found"))
		s := t.inspect(id).State
		same(t, "Status", "created", s.Status)
		same(t, "ExitCode", 128, s.ExitCode)
	}},
	{Name: "a network that is not there is seen by Podman at the create", On: podmans, check: func(t *T) {
		t.tryCreate("web", "sleep 1h", host(M{"NetworkMode": "nosuch"})).is(podman(500, "container create: unable to find network with name or ID nosuch: network not found"))
	}},
	{Name: "a network that was removed and made again serves a container that has not run", On: dockers, check: func(t *T) {
		t.network("net", nil)
		id := t.create("web", "sleep 1h", inNetwork(t))
		t.do("DELETE /networks/"+t.name("net"), nil).ok(204)
		t.do("POST /containers/"+id+"/start", nil).ok(404)
		again := t.network("net", nil)
		t.start(id)
		same(t, "NetworkID", again, t.endpoint(id, "net").NetworkID)
	}},
	{Name: "a network that was removed and made again does not serve a container that has run", On: dockers, check: func(t *T) {
		first := t.network("net", nil)
		id := t.ended("web", "exit 0", inNetwork(t))
		t.do("DELETE /networks/"+t.name("net"), nil).ok(204)
		t.network("net", nil)
		t.do("POST /containers/"+id+"/start", nil).is(v20(404, "network "+first+" not found"), v29(404, "failed to set up container networking: network "+first+" not found"))
	}},
	{Name: "a container that has run may be taken out of a removed network's successor and put in again", On: dockers, check: func(t *T) {
		t.network("net", nil)
		id := t.ended("web", "exit 0", inNetwork(t))
		t.do("DELETE /networks/"+t.name("net"), nil).ok(204)
		again := t.network("net", nil)
		t.do("POST /networks/"+again+"/disconnect", M{"Container": id}).ok(200)
		t.do("POST /networks/"+again+"/connect", M{"Container": id}).ok(200)
		t.start(id)
		same(t, "NetworkID", again, t.endpoint(id, "net").NetworkID)
	}},
	{Name: "a running container joins another network at once", On: dockers, check: func(t *T) {
		n := t.network("net", nil)
		id := t.ready("web", "sleep 1h")
		t.do("POST /networks/"+n+"/connect", M{"Container": id}).is(all(200, ""))
		same(t, "it has an address", true, t.endpoint(id, "net").IPAddress != "")
		t.do("POST /networks/"+n+"/disconnect", M{"Container": id}).is(all(200, ""))
		same(t, "it is there", true, t.endpoint(id, "net") == nil)
		same(t, "how many are in it", 0, len(t.inspectNetwork(n).Containers))
	}},
	{Name: "a connect and a disconnect are told by the network's events", On: dockers, check: func(t *T) {
		n := t.network("net", nil)
		id := t.ready("web", "sleep 1h")
		t.do("POST /networks/"+n+"/connect", M{"Container": id}).ok(200)
		t.do("POST /networks/"+n+"/disconnect", M{"Container": id}).ok(200)
		list := t.told(n, "disconnect")
		same(t, "the events", []string{"create", "connect", "disconnect"}, actionsOf(list))
		same(t, "the attributes", map[string]string{"container": id, "name": t.name("net"), "type": "bridge"}, list[2].Actor.Attributes)
	}},
	{Name: "a connect gives the address and the aliases that were asked for", On: dockers, check: func(t *T) {
		t.network("net", M{"IPAM": M{"Config": []M{{"Subnet": t.subnet("0/24")}}}})
		id := t.ready("web", "sleep 1h")
		t.do("POST /networks/"+t.name("net")+"/connect", M{"Container": id, "EndpointConfig": M{"Aliases": []string{"other"}, "IPAMConfig": M{"IPv4Address": t.subnet("77")}}}).ok(200)
		same(t, "IPAddress", t.subnet("77"), t.endpoint(id, "net").IPAddress)
		same(t, "it has the alias", true, contains(t.endpoint(id, "net").Aliases, "other"))
	}},
	{Name: "a container in another's network has none of its own", On: dockers, check: func(t *T) {
		other := t.ready("other", "sleep 1h")
		i := t.inspect(t.ready("web", "sleep 1h", host(M{"NetworkMode": "container:" + other})))
		same(t, "how many", 0, len(i.NetworkSettings.Networks))
		same(t, "NetworkMode", "container:"+other, string(i.HostConfig.NetworkMode))
	}},
	{Name: "a connect of a running container that is in is refused", On: dockers, check: func(t *T) {
		t.network("net", nil)
		id := t.ready("web", "sleep 1h", inNetwork(t))
		t.do("POST /networks/"+t.name("net")+"/connect", M{"Container": id}).is(all(403, "endpoint with name "+t.name("web")+" already exists in network "+t.name("net")))
	}},
	{Name: "a connect of a created container may be repeated", On: dockers, check: func(t *T) {
		t.network("net", nil)
		id := t.create("web", "sleep 1h")
		t.do("POST /networks/"+t.name("net")+"/connect", M{"Container": id}).is(all(200, ""))
		t.do("POST /networks/"+t.name("net")+"/connect", M{"Container": id}).is(all(200, ""))
		t.start(id)
		same(t, "how many networks", 2, len(t.inspect(id).NetworkSettings.Networks))
	}},
	{Name: "a connect with an address outside the subnet is refused, and 20.10 keeps the network", On: dockers, check: func(t *T) {
		t.network("net", M{"IPAM": M{"Config": []M{{"Subnet": t.subnet("0/24")}}}})
		id := t.ready("web", "sleep 1h")
		t.do("POST /networks/"+t.name("net")+"/connect", M{"Container": id, "EndpointConfig": M{"IPAMConfig": M{"IPv4Address": "10.99.0.1"}}}).is(
			v20(500, "Invalid address 10.99.0.1: It does not belong to any of this network's subnets"),
			v29(400, "invalid endpoint settings:\nno configured subnet contains IP address 10.99.0.1"))
		same(t, "the network is kept", t.v == DockerV20, t.endpoint(id, "net") != nil)
	}},
	{Name: "a connect with an address that another has is refused, the network is kept, and the next connect joins it", On: dockers, check: func(t *T) {
		t.network("net", M{"IPAM": M{"Config": []M{{"Subnet": t.subnet("0/24")}}}})
		t.ready("other", "sleep 1h", inNetworkAt(t, t.subnet("77")))
		id := t.ready("web", "sleep 1h")
		t.do("POST /networks/"+t.name("net")+"/connect", M{"Container": id, "EndpointConfig": M{"IPAMConfig": M{"IPv4Address": t.subnet("77")}}}).is(all(403, "Address already in use"))
		same(t, "IPAddress", "", t.endpoint(id, "net").IPAddress)
		t.do("POST /networks/"+t.name("net")+"/connect", M{"Container": id}).is(all(200, ""))
		same(t, "it has an address", true, t.endpoint(id, "net").IPAddress != "")
	}},
	{Name: "a connect of a running container to an unknown network is 404", On: dockers, check: func(t *T) {
		t.do("POST /networks/nosuch/connect", M{"Container": t.ready("web", "sleep 1h")}).is(all(404, "network nosuch not found"))
	}},
	{Name: "a connect of a created container to an unknown network is taken, and seen at the start", On: dockers, check: func(t *T) {
		id := t.create("web", "exit 0")
		t.do("POST /networks/nosuch/connect", M{"Container": id}).is(all(200, ""))
		t.do("POST /containers/"+id+"/start", nil).is(v20(404, "network nosuch not found"), v29(404, "failed to set up container networking: network nosuch not found"))
	}},
	{Name: "a connect of an unknown container is 404", On: dockers, check: func(t *T) {
		t.network("net", nil)
		t.do("POST /networks/"+t.name("net")+"/connect", M{"Container": "nosuch"}).is(all(404, "No such container: nosuch"))
	}},
	{Name: "a disconnect of a container that is not in is refused", On: dockers, check: func(t *T) {
		t.network("net", nil)
		id := t.create("web", "exit 0")
		t.do("POST /networks/"+t.name("net")+"/disconnect", M{"Container": id}).is(all(500, "container "+id+" is not connected to the network "+t.name("net")))
	}},
	{Name: "host takes no second network", On: dockers, check: func(t *T) {
		t.network("net", nil)
		id := t.create("web", "exit 0", host(M{"NetworkMode": "host"}))
		t.do("POST /networks/"+t.name("net")+"/connect", M{"Container": id}).is(all(400, "container sharing network namespace with another container or host cannot be connected to any other network"))
	}},
	{Name: "none takes no second network", On: dockers, check: func(t *T) {
		t.network("net", nil)
		id := t.create("web", "exit 0", host(M{"NetworkMode": "none"}))
		t.do("POST /networks/"+t.name("net")+"/connect", M{"Container": id}).is(all(400, "container cannot be connected to multiple networks with one of the networks in private (none) mode"))
	}},
	{Name: "host is no second network", On: dockers, check: func(t *T) {
		t.do("POST /networks/host/connect", M{"Container": t.create("web", "exit 0")}).is(
			v20(400, "container cannot be disconnected from host network or connected to host network"),
			v29(400, "cannot connect container to host network - container must be created in host network mode"))
	}},
	{Name: "joins and leaves are told by the network's events", On: dockers, check: func(t *T) {
		n := t.network("net", nil)
		id := t.ended("web", "exit 0", inNetwork(t))
		list := t.told(n, "disconnect")
		same(t, "the events", []string{"create", "connect", "disconnect"}, actionsOf(list))
		same(t, "the attributes", map[string]string{"container": id, "name": t.name("net"), "type": "bridge"}, list[1].Actor.Attributes)
	}},
	{Name: "a start that finds one of its networks gone leaves the others", On: dockers, check: func(t *T) {
		n := t.network("a", nil)
		t.network("b", nil)
		id := t.create("web", "sleep 1h", host(M{"NetworkMode": t.name("a")}))
		t.do("POST /networks/"+t.name("b")+"/connect", M{"Container": id}).ok(200)
		t.do("DELETE /networks/"+t.name("b"), nil).ok(204)
		t.do("POST /containers/"+id+"/start", nil).is(v20(404, "network "+t.name("b")+" not found"), v29(404, "failed to set up container networking: network "+t.name("b")+" not found"))
		same(t, "who is in the other one", 0, len(t.inspectNetwork(n).Containers))
		t.do("DELETE /networks/"+n, nil).ok(204)
	}},
	{Name: "several networks at a create are joined from API 1.44 on", On: only29, check: func(t *T) {
		t.network("a", nil)
		t.network("b", nil)
		id := t.ready("web", "sleep 1h", M{"NetworkingConfig": M{"EndpointsConfig": M{t.name("a"): M{}, t.name("b"): M{}}}}, host(M{"NetworkMode": t.name("a")}))
		same(t, "a has an address", true, t.endpoint(id, "a").IPAddress != "")
		same(t, "b has an address", true, t.endpoint(id, "b").IPAddress != "")
	}},
}

// inNetwork is the option of a create to be in the check's network net.
func inNetwork(t *T) M { return host(M{"NetworkMode": t.name("net")}) }

func inNetworkAt(t *T, address string) M {
	return M{"HostConfig": M{"NetworkMode": t.name("net")},
		"NetworkingConfig": M{"EndpointsConfig": M{t.name("net"): M{"IPAMConfig": M{"IPv4Address": address}}}}}
}

// endpoint is a container's place in a network of the check's, nil if it has none.
func (t *T) endpoint(id, name string) *network.EndpointSettings {
	t.Helper()
	return t.inspect(id).NetworkSettings.Networks[t.name(name)]
}
