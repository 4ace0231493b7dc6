package dockerexec

import (
	"context"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/network"
	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/moby/swarmkit/v2/log"
	"github.com/pkg/errors"
)

// networkOwner says what is known about a network of the task: its ID on the
// engine, and whether this package made it.
type networkOwner struct {
	id   string
	ours bool
}

// CreateNetworks creates the task's networks in sorted order. One that exists
// with the same driver and subnets is used, whoever made it; one that differs is
// an error which names both. The engine's own networks (bridge, host, none) are
// used and never created. Networks made here carry a label, by which
// [ContainerAdapter.RemoveNetworks] knows them again.
func (a *ContainerAdapter) CreateNetworks(ctx context.Context) error {
	if _, err := a.ready(ctx); err != nil {
		return err
	}
	for _, wanted := range a.config.networks() {
		if wanted.predefined {
			continue
		}
		answer, err := request(ctx, a.engine, 0, func(ctx context.Context) (network.CreateResponse, error) {
			return a.engine.client.NetworkCreate(ctx, wanted.name, wanted.options)
		})
		switch {
		case err == nil:
			a.learn(wanted.name, networkOwner{id: answer.ID, ours: true})
			log.G(a.logContext(ctx)).WithField("network.name", wanted.name).Debug("network created")
		case ctx.Err() == nil && IsNetworkExistError(err, wanted.name):
			if err := a.useNetwork(ctx, wanted, err); err != nil {
				return err
			}
		default:
			return engineError(ctx, err, "create network %s", wanted.name)
		}
	}
	return nil
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
	a.learn(wanted.name, ownerOf(found))
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

// RemoveNetworks removes those of the task's networks that this package made
// and that no container is attached to, in sorted order. A network that is in
// use, gone, predefined or made by somebody else is left, without an error.
// Remove the container first.
func (a *ContainerAdapter) RemoveNetworks(ctx context.Context) error {
	for _, n := range a.config.networks() {
		if n.predefined {
			continue
		}
		owner, known := a.known(n.name)
		if !known {
			found, err := a.findNetwork(ctx, n.name)
			if err != nil {
				return err
			}
			if found == nil {
				continue
			}
			owner = ownerOf(found)
		}
		if !owner.ours {
			continue
		}
		err := do(ctx, a.engine, 0, func(ctx context.Context) error {
			return a.engine.client.NetworkRemove(ctx, owner.id)
		})
		switch {
		case err == nil, ctx.Err() == nil && (cerrdefs.IsNotFound(err) || IsActiveEndpointError(err)):
			a.forget(n.name)
		default:
			return engineError(ctx, err, "remove network %s", n.name)
		}
	}
	return nil
}

func ownerOf(found *network.Inspect) networkOwner {
	_, ours := found.Labels[labelNetwork]
	return networkOwner{id: found.ID, ours: ours}
}

func (a *ContainerAdapter) learn(name string, owner networkOwner) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.networks[name] = owner
}

func (a *ContainerAdapter) known(name string) (networkOwner, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	owner, known := a.networks[name]
	return owner, known
}

func (a *ContainerAdapter) forget(name string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.networks, name)
}
