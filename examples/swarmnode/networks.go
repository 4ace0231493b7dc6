package main

import (
	"github.com/moby/swarmkit/v2/api"
	"github.com/moby/swarmkit/v2/manager/allocator/networkallocator"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// localNetworks is the manager's network provider for a swarm whose networks are
// each node's own, of the drivers of its engine: the engine chooses addresses and
// knows names, on each node apart. Without a provider a manager refuses every
// network, and its tasks get no host ports. There is no routing mesh and there are
// no virtual IPs.
//
// All that the manager is to remember is in the objects that it stores, so a
// provider has no state to restore.
type localNetworks struct{ networkallocator.Inert }

var (
	_ networkallocator.Provider         = localNetworks{}
	_ networkallocator.NetworkAllocator = localNetworks{}
)

func (n localNetworks) NewAllocator(*networkallocator.Config) (networkallocator.NetworkAllocator, error) {
	return n, nil
}

// PredefinedNetworks are those that every engine has.
func (localNetworks) PredefinedNetworks() []networkallocator.PredefinedNetworkData {
	return []networkallocator.PredefinedNetworkData{{Name: "bridge", Driver: "bridge"}, {Name: "host", Driver: "host"}}
}

func (localNetworks) SetDefaultVXLANUDPPort(uint32) error              { return nil }
func (localNetworks) ValidateIPAMDriver(*api.Driver) error             { return nil }
func (localNetworks) ValidateIngressNetworkDriver(d *api.Driver) error { return localDriver(d) }
func (localNetworks) ValidateNetworkDriver(d *api.Driver) error        { return localDriver(d) }
func localDriver(d *api.Driver) error {
	if d != nil && d.Name == "overlay" {
		return status.Error(codes.InvalidArgument, "overlay networks need nodes that share keys and addresses: use a driver such as bridge")
	}
	return nil
}

func (localNetworks) IsAllocated(n *api.Network) bool { return n.DriverState != nil }

// Allocate takes over what is asked for, for the engine to carry out.
func (localNetworks) Allocate(n *api.Network) error {
	n.DriverState = &api.Driver{Name: "bridge"}
	if d := n.Spec.DriverConfig; d != nil && d.Name != "" {
		n.DriverState = d.Copy()
	}
	n.IPAM = &api.IPAMOptions{}
	if n.Spec.IPAM != nil {
		n.IPAM = n.Spec.IPAM.Copy()
	}
	return nil
}

func (localNetworks) IsServiceAllocated(*api.Service, ...func(*networkallocator.ServiceAllocationOpts)) bool {
	return true
}
func (localNetworks) AllocateService(*api.Service) error { return nil }

// IsTaskAllocated is false for a new task, which makes the manager hand the task
// its service's ports and its networks.
func (localNetworks) IsTaskAllocated(t *api.Task) bool {
	return t.Status.State >= api.TaskStatePending
}
func (localNetworks) AllocateTask(*api.Task) error { return nil }

// A node needs no address of its own in a network.

func (localNetworks) IsAttachmentAllocated(*api.Node, *api.NetworkAttachment) bool { return true }
func (localNetworks) AllocateAttachment(*api.Node, *api.NetworkAttachment) error   { return nil }
