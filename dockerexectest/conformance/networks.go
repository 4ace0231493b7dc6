package conformance

import (
	"fmt"
	"slices"
	"strings"

	"github.com/docker/docker/api/types/network"
)

var networkStatements = []Statement{
	{Name: "a network is made with an ID", check: func(t *T) {
		var made M
		t.tryNetwork("net", nil).ok(201, &made)
		same(t, "Warning", any(""), made["Warning"])
		same(t, "the ID has 64 digits", 64, len(made["Id"].(string)))
	}},
	{Name: "a network has the defaults of the engine", On: dockers, check: func(t *T) {
		t.network("net", nil)
		n := t.inspectNetwork(t.name("net"))
		same(t, "Driver", "bridge", n.Driver)
		same(t, "Scope", "local", n.Scope)
		same(t, "Internal", false, n.Internal)
		same(t, "IPAM", "default", n.IPAM.Driver)
		same(t, "a subnet", 1, len(n.IPAM.Config))
		same(t, "it has a gateway", true, n.IPAM.Config[0].Gateway != "")
		same(t, "nobody is in it", 0, len(n.Containers))
		same(t, "Created is given", true, n.Created.Year() >= 2000)
	}},
	{Name: "a network keeps its labels, options and subnet", On: dockers, check: func(t *T) {
		t.network("net", M{"Labels": M{"own": "1"}, "Options": M{"com.docker.network.driver.mtu": "1400"}, "Internal": true,
			"IPAM": M{"Config": []M{{"Subnet": t.subnet("0/24"), "Gateway": t.subnet("9")}}}})
		n := t.inspectNetwork(t.name("net"))
		same(t, "Labels", map[string]string{"own": "1"}, n.Labels)
		same(t, "Options", "1400", n.Options["com.docker.network.driver.mtu"])
		same(t, "Internal", true, n.Internal)
		same(t, "Subnet", t.subnet("0/24"), n.IPAM.Config[0].Subnet)
		same(t, "Gateway", t.subnet("9"), n.IPAM.Config[0].Gateway)
	}},
	{Name: "a subnet without a gateway has one in 29, and tells none in 20.10", On: dockers, check: func(t *T) {
		t.network("net", M{"IPAM": M{"Config": []M{{"Subnet": t.subnet("0/24")}}}})
		same(t, "Gateway", by(t, t.subnet("1"), "", ""), t.inspectNetwork(t.name("net")).IPAM.Config[0].Gateway)
	}},
	{Name: "a network's name that is taken is refused", check: func(t *T) {
		t.network("net", nil)
		t.tryNetwork("net", nil).is(docker(409, "network with name "+t.name("net")+" already exists"),
			podman(500, "network name "+t.name("net")+" already used: network already exists"))
	}},
	{Name: "20.10 makes a second network of a name unless it is told to look", On: dockers, check: func(t *T) {
		first := t.network("net", nil)
		a := t.tryNetwork("net", M{"CheckDuplicate": false})
		if t.v == DockerV29 {
			a.is(all(409, "network with name "+t.name("net")+" already exists"))
			return
		}
		var made struct{ Warning string }
		a.ok(201, &made)
		same(t, "Warning", "Network with name "+t.name("net")+" (id : "+first+") already exists", made.Warning)
		t.do("GET /networks/"+t.name("net"), nil).is(v20(400, "2 matches found based on name: network "+t.name("net")+" is ambiguous"))
		t.do("DELETE /networks/"+t.name("net"), nil).is(v20(400, "network "+t.name("net")+" is ambiguous (2 matches found based on name)"))
	}},
	{Name: "a name of the engine's own networks is refused", On: dockers, check: func(t *T) {
		for _, name := range []string{"bridge", "host", "none"} {
			t.do("POST /networks/create", M{"Name": name, "CheckDuplicate": true}).is(all(403, "operation is not permitted on predefined "+name+" network "))
		}
	}},
	{Name: "a network without a name is refused", On: dockers, check: func(t *T) {
		t.do("POST /networks/create", M{"Name": ""}).is(v20(500, "invalid name: "), v29(400, "invalid name: name is empty"))
	}},
	{Name: "a network of a driver that is not there is 404", On: dockers, check: func(t *T) { // engines look for it for 15 seconds
		t.tryNetwork("net", M{"Driver": "nosuch"}).is(all(404, `plugin "nosuch" not found`))
	}},
	{Name: "an overlay network needs a swarm", On: dockers, check: func(t *T) {
		const text = `This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this node to swarm and try again.`
		t.tryNetwork("net", M{"Driver": "overlay"}).is(v20(500, text), v29(403, text))
	}},
	{Name: "a subnet that another network has is refused", On: dockers, check: func(t *T) {
		t.network("net", M{"IPAM": M{"Config": []M{{"Subnet": t.subnet("0/24")}}}})
		t.tryNetwork("other", M{"IPAM": M{"Config": []M{{"Subnet": t.subnet("0/25")}}}}).is(
			v20(403, "Pool overlaps with other one on this address space"), v29(403, "invalid pool request: Pool overlaps with other one on this address space"))
	}},
	{Name: "the engine picks a subnet that no other network has", On: dockers, check: func(t *T) {
		seen := map[string]bool{t.inspectNetwork("bridge").IPAM.Config[0].Subnet: true}
		for _, name := range []string{"a", "b"} {
			t.network(name, nil)
			seen[t.inspectNetwork(t.name(name)).IPAM.Config[0].Subnet] = true
		}
		same(t, "how many", 3, len(seen))
	}},
	{Name: "a subnet that is none is refused", On: dockers, check: func(t *T) {
		t.tryNetwork("net", M{"IPAM": M{"Config": []M{{"Subnet": "nosuch"}}}}).is(
			v20(500, "Invalid subnet nosuch : invalid CIDR address: nosuch"), v29(400, `invalid JSON: netip.ParsePrefix("nosuch"): no '/'`))
	}},
	{Name: "an unknown network is 404", check: func(t *T) {
		t.do("GET /networks/nosuch", nil).is(docker(404, "network nosuch not found"), podman(404, "unable to find network with name or ID nosuch: network not found"))
	}},
	{Name: "a network is found by its name, its ID, and the ID's beginning", check: func(t *T) {
		id := t.network("net", nil)
		same(t, "by the name", id, t.inspectNetwork(t.name("net")).ID)
		same(t, "by the ID", id, t.inspectNetwork(id).ID)
		same(t, "by its beginning", id, t.inspectNetwork(id[:12]).ID)
	}},
	{Name: "a network may be attachable, and a list does not tell who is in", On: dockers, check: func(t *T) {
		t.network("net", M{"Attachable": true})
		t.ready("web", "sleep 1h", inNetwork(t))
		same(t, "Attachable", true, t.inspectNetwork(t.name("net")).Attachable)
		var list []network.Inspect
		t.do("GET /networks?"+filters("name", t.name("net")), nil).ok(200, &list)
		same(t, "how many", 1, len(list))
		same(t, "Attachable in the list", true, list[0].Attachable)
		same(t, "who is in", 0, len(list[0].Containers))
		same(t, "20.10 takes it for unused", t.v == DockerV20, contains(t.networks(filters("dangling", "true")), t.name("net")))
	}},
	{Name: "a list of networks is filtered", On: dockers, check: func(t *T) {
		id := t.network("net", M{"Labels": M{t.name("own"): "1"}})
		for _, by := range [][2]string{{"name", t.name("ne")}, {"id", id[:12]}, {"label", t.name("own")}, {"label", t.name("own") + "=1"}} {
			same(t, "by "+by[0], []string{t.name("net")}, t.networks(filters(by[0], by[1])))
		}
		for _, by := range [][2]string{{"driver", "bridge"}, {"type", "custom"}, {"scope", "local"}, {"dangling", "true"}} {
			same(t, "by "+by[0], true, contains(t.networks(filters(by[0], by[1])), t.name("net")))
		}
		same(t, "by another driver", []string(nil), t.networks(filters("driver", "macvlan", "name", t.name("net"))))
	}},
	{Name: "a filter of networks that is none is refused", On: dockers, check: func(t *T) {
		t.do("GET /networks?"+filters("nosuch", "1"), nil).is(v20(400, "Invalid filter 'nosuch'"), v29(400, "invalid filter 'nosuch'"))
	}},
	{Name: "what a network has not is an empty object", On: dockers, check: func(t *T) {
		t.network("net", nil)
		var n M
		t.do("GET /networks/"+t.name("net"), nil).ok(200, &n)
		same(t, "Labels", any(M{}), n["Labels"])
		same(t, "Options", any(M{}), n["Options"])
		same(t, "Containers", any(M{}), n["Containers"])
	}},
	{Name: "the engine's own networks are bridge, host and none", On: dockers, check: func(t *T) {
		list := t.networks(filters("type", "builtin"))
		slices.Sort(list)
		same(t, "the list", []string{"bridge", "host", "none"}, list)
	}},
	{Name: "a removal of a network is 204, and a second one is 404", check: func(t *T) {
		t.network("net", nil)
		t.do("DELETE /networks/"+t.name("net"), nil).is(all(204, ""))
		t.do("DELETE /networks/"+t.name("net"), nil).is(docker(404, "network "+t.name("net")+" not found"),
			podman(404, "network not found"))
	}},
	{Name: "the engine's own networks cannot be removed", On: dockers, check: func(t *T) {
		t.do("DELETE /networks/host", nil).is(all(403, "host is a pre-defined network and cannot be removed"))
	}},
	{Name: "a network of a running container cannot be removed", check: func(t *T) {
		n := t.network("net", nil)
		id := t.ready("web", "sleep 1h", host(M{"NetworkMode": t.name("net")}))
		endpoint := t.inspect(id).NetworkSettings.Networks[t.name("net")].EndpointID
		t.do("DELETE /networks/"+t.name("net"), nil).is(
			v20(403, "error while removing network: network "+t.name("net")+" id "+n+" has active endpoints"),
			v29(403, "error while removing network: network "+t.name("net")+` has active endpoints (name:"`+t.name("web")+`" id:"`+(endpoint + strings.Repeat(" ", 12))[:12]+`")`),
			podman(500, `"`+t.name("net")+`" has associated containers with it. Use -f to forcibly delete containers and pods: network is being used`))
	}},
	{Name: "a network of a created container can be removed, unless it is Podman's", check: func(t *T) {
		t.network("net", nil)
		t.create("web", "sleep 1h", host(M{"NetworkMode": t.name("net")}))
		same(t, "the status", by(t, 204, 204, 500), t.do("DELETE /networks/"+t.name("net"), nil).status)
	}},
	{Name: "Podman removes a network that is in use if it is asked by its ID", On: podmans, check: func(t *T) {
		n := t.network("net", nil)
		t.ready("web", "sleep 1h", host(M{"NetworkMode": t.name("net")}))
		t.do("DELETE /networks/"+n, nil).ok(204)
	}},
	{Name: "a network is told by events of its making and removal", On: dockers, check: func(t *T) {
		id := t.network("net", nil)
		t.do("DELETE /networks/"+id, nil).ok(204)
		list := t.told(id, "destroy")
		same(t, "the events", []string{"create", "destroy"}, actionsOf(list))
		same(t, "the attributes", map[string]string{"name": t.name("net"), "type": "bridge"}, list[0].Actor.Attributes)
	}},
	{Name: "a network takes its configuration from another", On: dockers, check: func(t *T) {
		t.network("conf", M{"ConfigOnly": true, "IPAM": M{"Config": []M{{"Subnet": t.subnet("0/24")}}}})
		same(t, "the driver of a configuration", "null", t.inspectNetwork(t.name("conf")).Driver)
		t.network("net", M{"ConfigFrom": M{"Network": t.name("conf")}})
		n := t.inspectNetwork(t.name("net"))
		same(t, "Subnet", t.subnet("0/24"), n.IPAM.Config[0].Subnet)
		same(t, "ConfigFrom", t.name("conf"), n.ConfigFrom.Network)
		t.do("DELETE /networks/"+t.name("conf"), nil).is(all(403, `error while removing network: configuration network "`+t.name("conf")+`" is in use`))
	}},
	{Name: "a configuration is no network for a container, depends on no other, and takes no second one", On: dockers, check: func(t *T) {
		t.network("conf", M{"ConfigOnly": true, "IPAM": M{"Config": []M{{"Subnet": t.subnet("0/24")}}}})
		id := t.create("web", "exit 0", host(M{"NetworkMode": t.name("conf")}))
		t.do("POST /containers/"+id+"/start", nil).is(v20(403, "cannot create endpoint on configuration-only network"),
			v29(403, "failed to set up container networking: cannot create endpoint on configuration-only network"))
		t.tryNetwork("other", M{"ConfigOnly": true, "ConfigFrom": M{"Network": t.name("conf")}}).is(all(403, "a configuration network cannot depend on another configuration network"))
		t.tryNetwork("net", M{"ConfigFrom": M{"Network": t.name("conf")}, "IPAM": M{"Config": []M{{"Subnet": t.subnet("0/25")}}}}).is(
			v20(403, "user specified configurations are not supported if the network depends on a configuration network"),
			v29(403, "user-specified configurations are not supported if the network depends on a configuration network"))
	}},
	{Name: "a configuration that is not there is refused", On: dockers, check: func(t *T) {
		t.tryNetwork("net", M{"ConfigFrom": M{"Network": "nosuch"}}).is(all(404, `configuration network "nosuch" does not exist`))
	}},
}

// subnet is an address, or a subnet, of the check's own.
func (t *T) subnet(end string) string {
	return fmt.Sprintf("10.%d.%d.%s", 100+t.number/250%100, t.number%250, end)
}

func (t *T) inspectNetwork(name string) (n network.Inspect) {
	t.Helper()
	t.do("GET /networks/"+name, nil).ok(200, &n)
	return n
}

// networks are the names of a list.
func (t *T) networks(query string) (names []string) {
	t.Helper()
	var list []network.Inspect
	t.do("GET /networks?"+query, nil).ok(200, &list)
	for _, n := range list {
		names = append(names, n.Name)
	}
	return names
}
