package dockerexectest

import (
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/docker/docker/api/types/events"
	"github.com/docker/docker/api/types/network"
)

// networkState is a network of the engine. The engine's mu guards it.
type networkState struct {
	network.Inspect
	isPredefined bool
}

// Networks returns the names of all networks except the predefined ones, in the order of
// their creation.
func (e *Engine) Networks() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	var names []string
	for _, n := range e.networks {
		if !n.isPredefined {
			names = append(names, n.Name)
		}
	}
	return names
}

func (e *Engine) makePredefinedNetworks() {
	for _, predefined := range [][2]string{{"bridge", "bridge"}, {"host", "host"}, {"none", "null"}} {
		n := &networkState{isPredefined: true, Inspect: network.Inspect{
			Name: predefined[0], Driver: predefined[1], ID: e.newID("network"), Created: e.now(), Scope: "local",
			EnableIPv4: true, IPAM: network.IPAM{Driver: "default"}, Options: map[string]string{}, Labels: map[string]string{},
		}}
		if predefined[0] == "bridge" {
			n.IPAM.Config = []network.IPAMConfig{{Subnet: "172.17.0.0/16", Gateway: "172.17.0.1"}}
		}
		e.networks = append(e.networks, n)
	}
}

// findNetwork finds a network by its ID, its name, or the beginning of its ID. The caller
// holds mu.
func (e *Engine) findNetwork(term string) (*networkState, *apiError) {
	var byName, byPrefix []*networkState
	for _, n := range e.networks {
		switch {
		case n.ID == term:
			return n, nil
		case n.Name == term:
			byName = append(byName, n)
		case term != "" && strings.HasPrefix(n.ID, term):
			byPrefix = append(byPrefix, n)
		}
	}
	switch {
	case len(byName) == 1:
		return byName[0], nil
	case len(byName) > 1:
		how := "on name"
		if e.dialect == DockerV20 {
			how = "based on name"
		}
		return nil, badRequest("network %s is ambiguous (%d matches found %s)", term, len(byName), how)
	case len(byPrefix) == 1:
		return byPrefix[0], nil
	case len(byPrefix) > 1:
		return nil, badRequest("network %s is ambiguous (%d matches found based on ID prefix)", term, len(byPrefix))
	}
	return nil, e.dialect.noSuchNetwork(term)
}

// createNetwork is POST /networks/create.
func createNetwork(e *Engine, r *request) (answer, error) {
	var body network.CreateRequest
	if err := e.decode(r, &body); err != nil {
		return answer{}, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if strings.TrimSpace(body.Name) == "" {
		return answer{}, e.dialect.say(http.StatusInternalServerError, "invalid name: "+body.Name, "invalid name: name is empty")
	}
	mayRepeat := e.dialect == DockerV20 && (body.CheckDuplicate == nil || !*body.CheckDuplicate) //nolint:staticcheck // older clients send it
	for _, n := range e.networks {
		switch {
		case n.Name != body.Name:
		case n.isPredefined:
			return answer{}, forbidden("operation is not permitted on predefined %s network ", body.Name)
		case !mayRepeat:
			return answer{}, e.dialect.networkExists(body.Name)
		}
	}
	if body.Driver == "" {
		body.Driver = "bridge"
	}
	if body.ConfigOnly {
		body.Driver = "null"
	}
	if body.Driver == "overlay" || body.Scope == "swarm" {
		text := `This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this node to swarm and try again.`
		if e.dialect == DockerV20 {
			return answer{}, internal("", "%s", text)
		}
		return answer{}, forbidden("%s", text)
	}
	if !slices.Contains(e.info.Plugins.Network, body.Driver) {
		return answer{}, notFound("plugin %q not found", body.Driver)
	}
	n := &networkState{Inspect: network.Inspect{
		Name: body.Name, Driver: body.Driver, Scope: "local", Internal: body.Internal, Attachable: body.Attachable, Ingress: body.Ingress,
		ConfigOnly: body.ConfigOnly, Options: labels(body.Options), Labels: labels(body.Labels), EnableIPv4: true,
	}}
	if body.EnableIPv4 != nil {
		n.EnableIPv4 = *body.EnableIPv4
	}
	if body.EnableIPv6 != nil {
		n.EnableIPv6 = *body.EnableIPv6
	}
	n.IPAM = network.IPAM{Driver: "default"}
	if body.IPAM != nil {
		n.IPAM = *body.IPAM
		n.IPAM.Config = slices.Clone(n.IPAM.Config)
		if n.IPAM.Driver == "" {
			n.IPAM.Driver = "default"
		}
	}
	if body.ConfigFrom != nil && body.ConfigFrom.Network != "" {
		from, _ := e.findNetwork(body.ConfigFrom.Network)
		switch {
		case from == nil || !from.ConfigOnly:
			return answer{}, notFound("configuration network %q does not exist", body.ConfigFrom.Network)
		case body.ConfigOnly:
			return answer{}, forbidden("a configuration network cannot depend on another configuration network")
		case body.IPAM != nil && len(body.IPAM.Config) > 0 || body.EnableIPv6 != nil && *body.EnableIPv6:
			return answer{}, e.dialect.notBesideConfigFrom()
		}
		n.ConfigFrom = *body.ConfigFrom
		n.IPAM, n.EnableIPv6 = from.IPAM, from.EnableIPv6
		n.IPAM.Config = slices.Clone(from.IPAM.Config)
		for key, value := range from.Options {
			n.Options[key] = value
		}
	}
	if !n.ConfigOnly && (body.Driver == "bridge" || body.Driver == "macvlan" || body.Driver == "ipvlan") {
		if err := e.giveSubnets(n); err != nil {
			return answer{}, err
		}
	}
	n.ID, n.Created = e.newID("network"), e.now()
	e.networks = append(e.networks, n)
	e.emitNetwork(n, events.ActionCreate, "")
	warning := ""
	if mayRepeat && len(e.networksNamed(n.Name)) > 1 {
		warning = fmt.Sprintf("Network with name %s (id : %s) already exists", n.Name, e.networksNamed(n.Name)[0].ID)
	}
	return answer{status: http.StatusCreated, body: network.CreateResponse{ID: n.ID, Warning: warning}}, nil
}

func (e *Engine) networksNamed(name string) []*networkState {
	var found []*networkState
	for _, n := range e.networks {
		if n.Name == name {
			found = append(found, n)
		}
	}
	return found
}

// emitNetwork emits an event of a network. The caller holds mu.
func (e *Engine) emitNetwork(n *networkState, action events.Action, containerID string) {
	attributes := map[string]string{"name": n.Name, "type": n.Driver}
	if containerID != "" {
		attributes["container"] = containerID
	}
	e.emit(events.NetworkEventType, action, n.ID, attributes)
}

// inspectNetwork is GET /networks/{id}.
func inspectNetwork(e *Engine, r *request) (answer, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	n, err := e.findNetwork(r.name)
	if err != nil {
		if e.dialect == PodmanV4 {
			err = notFound("%s", err.message)
		}
		if named := len(e.networksNamed(r.name)); named > 1 {
			err = e.dialect.ambiguous(r.name, named)
		}
		return answer{}, err
	}
	return answer{status: http.StatusOK, body: e.reportNetwork(n)}, nil
}

// reportNetwork returns a network with the containers in it. The caller holds mu.
func (e *Engine) reportNetwork(n *networkState) network.Inspect {
	report := n.Inspect
	report.Containers = map[string]network.EndpointResource{}
	for _, c := range e.order {
		for _, p := range c.endpoints {
			if p.joined == n || e.dialect == PodmanV4 && p.known == n.ID { // Podman also names containers that have ended
				report.Containers[c.id] = network.EndpointResource{Name: c.name, EndpointID: p.id, MacAddress: p.mac, IPv4Address: p.cidr()}
			}
		}
	}
	return report
}

// listNetworks is GET /networks.
func listNetworks(e *Engine, r *request) (answer, error) {
	args, err := e.filtersOf(r, "dangling driver id label name scope type", "")
	if err != nil {
		return answer{}, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	list := []network.Inspect{}
	for _, n := range e.networks {
		kind := "custom"
		if n.isPredefined {
			kind = "builtin"
		}
		used := e.dialect != DockerV20 && // Docker 20.10 takes every network for unused
			slices.ContainsFunc(e.order, func(c *Container) bool { return c.endpointOn(n) != nil })
		dangling := !args.Contains("dangling") || !n.isPredefined && used == (args.Get("dangling")[0] == "false" || args.Get("dangling")[0] == "0")
		if args.Match("name", n.Name) && args.FuzzyMatch("id", n.ID) && args.ExactMatch("driver", n.Driver) && args.ExactMatch("scope", n.Scope) &&
			args.ExactMatch("type", kind) && dangling && (!args.Contains("label") || args.MatchKVList("label", n.Labels)) {
			listed := n.Inspect
			listed.Containers = map[string]network.EndpointResource{}
			list = append(list, listed)
		}
	}
	return answer{status: http.StatusOK, body: list}, nil
}

// removeNetwork is DELETE /networks/{id}.
func removeNetwork(e *Engine, r *request) (answer, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	n, err := e.findNetwork(r.name)
	if err != nil {
		if e.dialect == PodmanV4 {
			err = notFound("network not found")
		}
		return answer{}, err
	}
	if n.isPredefined {
		return answer{}, forbidden("%s is a pre-defined network and cannot be removed", n.Name)
	}
	var inside []string
	for _, c := range e.order {
		for _, p := range c.endpoints {
			if p.joined == n {
				inside = append(inside, fmt.Sprintf("name:%q id:%q", c.name, p.id[:12]))
			} else if e.dialect == PodmanV4 && p.network == n.Name {
				inside = append(inside, c.name) // for Podman a container counts before its start
			}
		}
	}
	byID := e.dialect == PodmanV4 && r.name != n.Name // Podman looks for users by the network's name only
	if len(inside) > 0 && !byID {
		return answer{}, e.dialect.networkInUse(n, strings.Join(inside, ", "))
	}
	for _, other := range e.networks {
		if other.ConfigFrom.Network == n.Name && n.ConfigOnly {
			return answer{}, forbidden("error while removing network: configuration network %q is in use", n.Name)
		}
	}
	for _, c := range e.order {
		if p := c.endpointOn(n); p != nil {
			p.leave()
		}
	}
	e.networks = slices.DeleteFunc(e.networks, func(other *networkState) bool { return other == n })
	e.emitNetwork(n, events.ActionDestroy, "")
	return answer{}, nil
}
