package dockerexec

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/network"
	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/moby/swarmkit/v2/log"
	"github.com/pkg/errors"
)

// CreateNetworks creates the task's networks in sorted order. A network that exists is
// used, whoever made it, if it is as the task asks. CreateNetworks compares the driver,
// the subnets, IPv6, and whether the network is internal. The driver counts only if the
// task names one, and IPv6 only if the task asks for it. IPv4 subnets count only if the
// task names an IPv4 subnet. The same holds for IPv6 subnets. If the network differs,
// the error says how. The engine's own networks (bridge, host, none) are used and never
// created. Networks made here carry the label [LabelNetwork], except those with a
// ConfigFrom. [ContainerAdapter.RemoveNetworks] recognises a network by the label. Only
// adapters of the same Engine recognise a network without the label.
func (a *ContainerAdapter) CreateNetworks(ctx context.Context) error {
	return a.createNetworks(ctx, false)
}

// shareNetworks is CreateNetworks for a caller that calls CreateNetworks once the engine
// says that a network is gone. So the engine is not asked for a network that another task
// of the Engine uses with the same options.
func (a *ContainerAdapter) shareNetworks(ctx context.Context) error {
	return a.createNetworks(ctx, true)
}

func (a *ContainerAdapter) createNetworks(ctx context.Context, share bool) (err error) {
	ctx, end := a.begin(ctx, methodCreateNetworks)
	defer end(&err)
	config, _, err := a.ready(ctx)
	if err != nil {
		return err
	}
	for _, wanted := range config.networks() {
		if wanted.predefined {
			continue
		}
		joined := a.engine.networks.join(wanted.name, a.taskID)
		err := a.engine.networks.withNetworkLock(ctx, wanted.name, a.engine.options.requestTimeout, func() error {
			if share && a.engine.networks.hasFor(a.taskID, wanted) {
				return nil
			}
			return a.createNetwork(ctx, config, wanted)
		})
		if err != nil {
			if joined { // otherwise an earlier call registered the task
				a.engine.networks.leave(wanted.name, a.taskID)
			}
			return err
		}
	}
	return nil
}

func (a *ContainerAdapter) createNetwork(ctx context.Context, config *containerConfig, wanted networkConfig) error {
	answer, err := request(ctx, a, 0, func(ctx context.Context) (network.CreateResponse, error) {
		return a.engine.client.NetworkCreate(ctx, wanted.name, wanted.options)
	})
	switch {
	case err == nil:
		a.engine.networks.learn(wanted, networkOwner{id: cmp.Or(answer.ID, wanted.name), ours: true})
		about := log.WithFields(a.logContext(ctx), log.Fields{"network.name": wanted.name})
		log.G(about).Debug("network created")
		a.passOn(about, config, answer.Warning)
		return nil
	case ctx.Err() == nil && IsNetworkExistError(err, wanted.name):
		return a.useNetwork(ctx, wanted, err)
	case mayBeDone(ctx, err):
		a.networkLost.Store(true)
	}
	return engineError(ctx, err, "create network %s", wanted.name)
}

// useNetwork accepts an existing network if it is as the task asks. exists is the
// engine's answer to the create.
func (a *ContainerAdapter) useNetwork(ctx context.Context, wanted networkConfig, exists error) error {
	found, err := a.findNetwork(ctx, wanted.name)
	if err == errNetworkUnseen { //nolint:errorlint // bare
		return nil
	}
	if err != nil {
		return err
	}
	if found == nil {
		// It was removed in between. The next try creates it.
		return exec.MakeTemporary(errors.Wrapf(exists, "create network %s, which is gone when looked at", wanted.name))
	}
	if difference := wanted.difference(found); difference != "" {
		return errors.Errorf("create network %s: the engine has a network %s (%s) that differs: %s; remove or rename one of the two",
			wanted.name, found.Name, shortID(found.ID), difference)
	}
	a.engine.networks.learn(wanted, ownerOf(found))
	return nil
}

// errNetworkUnseen is the error of findNetwork if inspects of networks are forbidden.
var errNetworkUnseen = errors.New("the network may not be looked at")

// findNetwork returns the network with exactly this name; nil means that there is none.
// An engine also finds a network whose ID begins with name: findNetwork ignores that one.
func (a *ContainerAdapter) findNetwork(ctx context.Context, name string) (*network.Inspect, error) {
	found, err := request(ctx, a, 0, func(ctx context.Context) (network.Inspect, error) {
		return a.engine.client.NetworkInspect(ctx, name, network.InspectOptions{})
	})
	if cerrdefs.IsNotFound(err) || err == nil && found.Name != name {
		return nil, nil
	}
	if err != nil && ctx.Err() == nil && isForbidden(err) {
		a.engine.optional.without(a.logContext(ctx), "GET /networks/…", err, "networks that exist are used as they are, and not removed")
		return nil, errNetworkUnseen
	}
	if err != nil {
		return nil, engineError(ctx, err, "inspect network %s", name)
	}
	a.engine.optional.answered("GET /networks/…")
	return &found, nil
}

// severalNetworks is the API version from which a create joins any number of networks. With
// an older version, a create joins only the first network. connectRest connects the others.
const severalNetworks = "1.44"

// firstNetworks returns the networks that the create joins.
func firstNetworks(task *containerConfig, version string) *network.NetworkingConfig {
	config := task.networkingConfig()
	if names := task.endpointNames(); len(names) > 1 && !atLeast(version, severalNetworks) {
		for _, name := range names[1:] {
			delete(config.EndpointsConfig, name)
		}
	}
	return config
}

// connectRest connects the container id to the task's networks that it has not joined.
// joined holds the networks of a container that existed before, perhaps made with an
// older API version. For a new container, joined is nil. If joined is not nil and lists no
// networks, a fake has answered the inspect. Then it is not known which networks the
// container has joined.
func (a *ContainerAdapter) connectRest(ctx context.Context, config *containerConfig, version, id string, joined *container.NetworkSettings) error {
	names := config.endpointNames()
	unknown := joined == nil || len(joined.Networks) == 0
	if len(names) < 2 || unknown && atLeast(version, severalNetworks) {
		return nil
	}
	endpoints := config.networkingConfig().EndpointsConfig
	if unknown { // else the create may have joined another one: an earlier version had another order
		names = names[1:]
	}
	for _, name := range names {
		if joined != nil && joined.Networks[name] != nil {
			continue
		}
		err := do(ctx, a, 0, func(ctx context.Context) error {
			return a.engine.client.NetworkConnect(ctx, name, id, endpoints[name])
		})
		if err != nil {
			return engineError(ctx, err, "connect container %s to network %s", a.name, name)
		}
	}
	return nil
}

// RemoveNetworks removes the task's networks that this package made and that nobody
// uses, in sorted order. It skips, without an error, a network that is gone, predefined
// or made by somebody else. It also skips a network that is in use:
//
//   - A container that has been started, and has not ended, is attached to it.
//   - A container that needs it is created and not yet started.
//   - Another task of the same [Engine] uses it. A task uses its networks from its
//     CreateNetworks to its RemoveNetworks. The last task to leave removes the network.
//
// Remove the container first. Call RemoveNetworks once for each task for which
// CreateNetworks was called, even if that failed.
func (a *ContainerAdapter) RemoveNetworks(ctx context.Context) (err error) {
	ctx, end := a.begin(ctx, methodRemoveNetworks)
	defer end(&err)
	for _, name := range a.taskIdentity.networks {
		if err := a.engine.networks.withNetworkLock(ctx, name, a.engine.options.requestTimeout, func() error { return a.leaveNetwork(ctx, name) }); err != nil {
			return err
		}
	}
	return nil
}

// leaveNetwork ends the task's use of the network. If no other task uses it, it removes
// the network. After a failure it keeps what is known of the network, for the next try.
func (a *ContainerAdapter) leaveNetwork(ctx context.Context, name string) error {
	owner, others := a.engine.networks.leave(name, a.taskID)
	if others {
		return nil
	}
	if owner == nil {
		found, err := a.findNetwork(ctx, name)
		for began := time.Now(); err == nil && found == nil && a.networkLost.Load() && time.Since(began) < lostCreateTime; {
			if err := sleep(ctx, lostCreatePause); err != nil {
				return err
			}
			found, err = a.findNetwork(ctx, name)
		}
		if err == nil && found == nil {
			a.networkLost.Store(false)
		}
		if err != nil && err != errNetworkUnseen { //nolint:errorlint // bare
			return err
		}
		if found != nil {
			asked := ownerOf(found)
			owner = &asked
		}
	}
	gone := false
	if owner != nil && owner.ours {
		var err error
		if gone, err = a.removeNetwork(ctx, name, *owner); err != nil {
			return err
		}
	}
	a.engine.networks.forget(name, gone)
	return nil
}

// removeNetwork removes a network that nobody needs. It reports whether the network is gone.
func (a *ContainerAdapter) removeNetwork(ctx context.Context, name string, owner networkOwner) (gone bool, err error) {
	needed, err := a.neededByContainer(ctx, name)
	if err != nil {
		return false, engineError(ctx, err, "remove network %s: list the containers that count on it", name)
	}
	if needed {
		return false, nil
	}
	err = do(ctx, a, 0, func(ctx context.Context) error {
		return a.engine.client.NetworkRemove(ctx, owner.id)
	})
	switch {
	case err == nil, ctx.Err() == nil && cerrdefs.IsNotFound(err):
		return true, nil
	case ctx.Err() == nil && IsActiveEndpointError(err):
		return false, nil
	}
	return false, engineError(ctx, err, "remove network %s", name)
}

// neededByContainer reports whether a container needs the network. Docker refuses to remove
// the network of a container that runs. It does not count a container that is created and
// not yet started. Podman counts neither, if it gets the network's ID. The task's own
// container does not need the network before its start.
// For a fake, the result is false: a fake need not implement ContainerList.
func (a *ContainerAdapter) neededByContainer(ctx context.Context, name string) (bool, error) {
	if a.engine.api.isFake {
		return false, nil
	}
	// Filter by name: until the start, the engine does not know the ID of the
	// container's network.
	users, err := request(ctx, a, 0, func(ctx context.Context) ([]container.Summary, error) {
		return a.engine.client.ContainerList(ctx, container.ListOptions{All: true,
			Filters: filters.NewArgs(filters.Arg("network", name))})
	})
	switch {
	case err != nil && ctx.Err() == nil && (isForbidden(err) || cerrdefs.IsNotFound(err)):
		a.engine.optional.without(a.logContext(ctx), "GET /containers/json", err, "networks are removed even if a container that was not started yet needs them")
		return false, nil
	case err != nil:
		return false, err
	}
	a.engine.optional.answered("GET /containers/json")
	return slices.ContainsFunc(users, func(c container.Summary) bool {
		switch c.State {
		case container.StateExited, container.StateDead, container.StateRemoving, stateStopped:
			return false
		case container.StateCreated:
			return c.Labels[LabelTaskID] != a.taskID
		}
		return true // also Podman's "stopping"
	}), nil
}

func ownerOf(found *network.Inspect) networkOwner {
	_, ours := found.Labels[LabelNetwork]
	return networkOwner{id: found.ID, ours: ours}
}

// difference says how the network that was found differs from the wanted one. It is empty if the
// network does not differ. The driver counts only if the task names one: the default
// depends on the engine's system. Subnets count only for a family (IPv4 or IPv6) for
// which the task names a subnet. For the other family the engine picks one.
func (n networkConfig) difference(found *network.Inspect) string {
	var differences []string
	if driver := n.options.Driver; driver != "" && found.Driver != driver {
		differences = append(differences, fmt.Sprintf("driver %s, the task wants %s", found.Driver, driver))
	}
	if n.options.IPAM != nil && len(n.options.IPAM.Config) > 0 {
		wanted := subnetsOf(n.options.IPAM.Config, nil)
		has := subnetsOf(found.IPAM.Config, wanted)
		if !slices.Equal(wanted, has) {
			differences = append(differences, fmt.Sprintf("subnets %v, the task wants %v", has, wanted))
		}
	}
	if n.options.Internal != found.Internal {
		differences = append(differences, fmt.Sprintf("internal %t, the task wants %t", found.Internal, n.options.Internal))
	}
	if n.options.EnableIPv6 != nil && *n.options.EnableIPv6 && !found.EnableIPv6 {
		differences = append(differences, "IPv6 false, the task wants true")
	}
	return strings.Join(differences, "; ")
}

// subnetsOf returns the subnets of an address configuration, in one spelling and order.
// The parameter families is a list of subnets. If it is not empty, subnetsOf returns only the
// subnets of an address family (IPv4 or IPv6) of which families has at least one.
func subnetsOf(configs []network.IPAMConfig, families []string) []string {
	var all []string
	for _, c := range configs {
		subnet := c.Subnet
		if prefix, err := netip.ParsePrefix(subnet); err == nil {
			subnet = prefix.Masked().String()
		}
		sameFamily := func(other string) bool { return strings.Contains(other, ":") == strings.Contains(subnet, ":") }
		if subnet != "" && (len(families) == 0 || slices.ContainsFunc(families, sameFamily)) {
			all = append(all, subnet)
		}
	}
	slices.Sort(all)
	return all
}
