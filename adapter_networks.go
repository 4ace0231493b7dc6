package dockerexec

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/network"
	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/moby/swarmkit/v2/log"
	"github.com/pkg/errors"
)

// CreateNetworks creates the task's networks in sorted order. A network that exists
// is used, whoever made it, if it is as the task asks: the driver, the subnets of
// each family for which the task names some, IPv6 if asked for, and whether it is
// internal. If it differs, the error says in what. The engine's own networks
// (bridge, host, none) are used and never created. Networks made here carry a label,
// by which [ContainerAdapter.RemoveNetworks] recognises them.
func (a *ContainerAdapter) CreateNetworks(ctx context.Context) error {
	config, _, err := a.ready(ctx)
	if err != nil {
		return err
	}
	for _, wanted := range config.networks() {
		if wanted.predefined {
			continue
		}
		joined := a.engine.networks.join(wanted.name, a.taskID)
		if err := a.engine.networks.withNetworkLock(ctx, wanted.name, a.engine.options.requestTimeout, func() error { return a.createNetwork(ctx, wanted) }); err != nil {
			if joined { // else an earlier call has it count
				a.engine.networks.leave(wanted.name, a.taskID)
			}
			return err
		}
	}
	return nil
}

func (a *ContainerAdapter) createNetwork(ctx context.Context, wanted networkConfig) error {
	answer, err := request(ctx, a.engine, 0, func(ctx context.Context) (network.CreateResponse, error) {
		return a.engine.client.NetworkCreate(ctx, wanted.name, wanted.options)
	})
	switch {
	case err == nil:
		a.engine.networks.learn(wanted.name, networkOwner{id: cmp.Or(answer.ID, wanted.name), ours: true})
		log.G(a.logContext(ctx)).WithField("network.name", wanted.name).Debug("network created")
		return nil
	case ctx.Err() == nil && IsNetworkExistError(err, wanted.name):
		return a.useNetwork(ctx, wanted, err)
	default:
		return engineError(ctx, err, "create network %s", wanted.name)
	}
}

// useNetwork accepts an existing network if it is as the task wants it. exists
// is what the engine said to the create.
func (a *ContainerAdapter) useNetwork(ctx context.Context, wanted networkConfig, exists error) error {
	found, err := a.findNetwork(ctx, wanted.name)
	if err != nil {
		return err
	}
	if found == nil {
		// Removed since; the agent's next try creates it.
		return exec.MakeTemporary(errors.Wrapf(exists, "create network %s, which is gone when looked at", wanted.name))
	}
	if difference := wanted.difference(found); difference != "" {
		return errors.Errorf("create network %s: the engine has a network %s (%s) that differs: %s; remove or rename one of the two",
			wanted.name, found.Name, shortID(found.ID), difference)
	}
	a.engine.networks.learn(wanted.name, ownerOf(found))
	return nil
}

// findNetwork looks a network up by its exact name; nil means that there is
// none. The engine would also answer to the start of an ID.
func (a *ContainerAdapter) findNetwork(ctx context.Context, name string) (*network.Inspect, error) {
	found, err := request(ctx, a.engine, 0, func(ctx context.Context) (network.Inspect, error) {
		return a.engine.client.NetworkInspect(ctx, name, network.InspectOptions{})
	})
	if cerrdefs.IsNotFound(err) || err == nil && found.Name != name {
		return nil, nil
	}
	if err != nil {
		return nil, engineError(ctx, err, "inspect network %s", name)
	}
	return &found, nil
}

// RemoveNetworks removes those of the task's networks that this package made and
// that nobody uses, in sorted order. A network that is gone, predefined or made by
// somebody else is skipped without an error. So is one that is in use: by a container
// that is attached to it, by one that is created and not yet started, or by another
// task of the same [Engine] between its CreateNetworks and its RemoveNetworks. The
// last task to leave removes it.
//
// Remove the container first. Call RemoveNetworks once for each task for which
// CreateNetworks was called, even if that failed.
func (a *ContainerAdapter) RemoveNetworks(ctx context.Context) error {
	for _, name := range a.taskIdentity.networks {
		if err := a.engine.networks.withNetworkLock(ctx, name, a.engine.options.requestTimeout, func() error { return a.leaveNetwork(ctx, name) }); err != nil {
			return err
		}
	}
	return nil
}

// leaveNetwork ends what the task counts on, and removes the network if it was
// the last one.
func (a *ContainerAdapter) leaveNetwork(ctx context.Context, name string) error {
	owner, others := a.engine.networks.leave(name, a.taskID)
	if others {
		return nil
	}
	if owner == nil {
		found, err := a.findNetwork(ctx, name)
		if err != nil {
			return err
		}
		if found != nil {
			asked := ownerOf(found)
			owner = &asked
		}
	}
	if owner != nil && owner.ours {
		if err := a.removeNetwork(ctx, name, *owner); err != nil {
			return err
		}
	}
	a.engine.networks.forget(name)
	return nil
}

func (a *ContainerAdapter) removeNetwork(ctx context.Context, name string, owner networkOwner) error {
	awaited, err := a.isAwaited(ctx, name)
	if err != nil {
		return engineError(ctx, err, "remove network %s: list the containers that count on it", name)
	}
	if awaited {
		return nil
	}
	err = do(ctx, a.engine, 0, func(ctx context.Context) error {
		return a.engine.client.NetworkRemove(ctx, owner.id)
	})
	if ctx.Err() == nil && (cerrdefs.IsNotFound(err) || IsActiveEndpointError(err)) {
		return nil
	}
	return engineError(ctx, err, "remove network %s", name)
}

// isAwaited reports whether a container that is created and not yet started,
// and is not this task's, needs the network: to the engine it is not in use.
// Users' fakes are not asked, as they know the calls of the reference alone.
func (a *ContainerAdapter) isAwaited(ctx context.Context, name string) (bool, error) {
	if a.engine.api.isFake {
		return false, nil
	}
	// The engine does not yet know the network of such a container by its ID.
	created, err := request(ctx, a.engine, 0, func(ctx context.Context) ([]container.Summary, error) {
		return a.engine.client.ContainerList(ctx, container.ListOptions{All: true,
			Filters: filters.NewArgs(filters.Arg("network", name), filters.Arg("status", container.StateCreated))})
	})
	return slices.ContainsFunc(created, func(c container.Summary) bool {
		return c.Labels[LabelTaskID] != a.taskID
	}), err
}

func ownerOf(found *network.Inspect) networkOwner {
	_, ours := found.Labels[LabelNetwork]
	return networkOwner{id: found.ID, ours: ours}
}

// difference says in what found is not the network that is wanted, and is empty
// when it is. Driver and subnets count only where the task names some, subnets for
// each family by itself: an engine's default driver depends on its system, and it
// picks a subnet for each family that has none.
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

// subnetsOf returns the subnets of an address configuration, in one spelling and
// order; of those families alone that the subnets in families have, if there are any.
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

// networkOwner says what is known about a network: its ID on the engine, and
// whether this package made it.
type networkOwner struct {
	id   string
	ours bool
}

// sharedNetworks is what the adapters of one Engine know about networks, by
// name: which tasks count on it, and what the last CreateNetworks found. A task
// counts from its CreateNetworks to its RemoveNetworks. The zero value is ready.
type sharedNetworks struct {
	mu       sync.Mutex
	networks map[string]*sharedNetwork
}

type sharedNetwork struct {
	tasks map[string]bool // their IDs
	owner *networkOwner   // nil: not known
	gate  chan struct{}   // full while one of the tasks creates or removes it
	users int             // of the gate
}

func (s *sharedNetworks) at(name string) *sharedNetwork {
	n := s.networks[name]
	if n == nil {
		if s.networks == nil {
			s.networks = map[string]*sharedNetwork{}
		}
		n = &sharedNetwork{tasks: map[string]bool{}, gate: make(chan struct{}, 1)}
		s.networks[name] = n
	}
	return n
}

// join has the task count on the network, before it asks for it: whoever leaves
// meanwhile must not take the network away. It reports whether the task did not
// count on it before.
func (s *sharedNetworks) join(name, task string) (joined bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.at(name)
	joined = !n.tasks[task]
	n.tasks[task] = true
	return joined
}

// withNetworkLock calls do while no other task creates or removes the network. Engine
// 20.10 looks for a network of that name when it begins to create one, and not
// again: of several that are asked for at once it makes several, or refuses them
// for their subnet. And a network must not go under a task that has just been
// told that it is there.
//
// The wait is bounded by timeout, that of an engine call.
func (s *sharedNetworks) withNetworkLock(ctx context.Context, name string, timeout time.Duration, do func() error) error {
	s.mu.Lock()
	n := s.at(name)
	n.users++
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		n.users--
		s.dropLocked(name)
		s.mu.Unlock()
	}()
	if err := passGate(ctx, n.gate, timeout); err != nil {
		return engineError(ctx, err, "network %s: another task's call comes first", name)
	}
	defer leaveGate(n.gate)
	return do()
}

// learn notes what the network is. One that was made here stays so, also where
// no label says it.
func (s *sharedNetworks) learn(name string, owner networkOwner) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.at(name)
	if n.owner != nil && n.owner.id == owner.id && n.owner.ours {
		return
	}
	n.owner = &owner
}

// leave ends what the task counts on. It returns what is known of the network,
// or nil, and whether other tasks count on it.
func (s *sharedNetworks) leave(name, task string) (owner *networkOwner, others bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.networks[name]
	if n == nil {
		return nil, false
	}
	delete(n.tasks, task)
	s.dropLocked(name)
	return n.owner, len(n.tasks) > 0
}

// forget drops what is known of the network, unless a task has joined meanwhile.
func (s *sharedNetworks) forget(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := s.networks[name]; n != nil && len(n.tasks) == 0 {
		n.owner = nil
	}
}

// dropLocked drops a network of which nothing is known or waited for.
func (s *sharedNetworks) dropLocked(name string) {
	if n := s.networks[name]; n.users == 0 && n.owner == nil && len(n.tasks) == 0 {
		delete(s.networks, name)
	}
}
