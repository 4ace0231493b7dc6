package main

import (
	"github.com/moby/swarmkit/v2/api"
	"github.com/moby/swarmkit/v2/manager/allocator/networkallocator"
)

// noNetworks is the managers' network provider: the tasks here have no networks. SwarmKit
// still joins each node to the network of the routing mesh. Its own provider without
// networks refuses that, and the managers then try it again at every change.
type noNetworks struct {
	networkallocator.InertProvider
	networkallocator.Inert
}

func (n noNetworks) NewAllocator(*networkallocator.Config) (networkallocator.NetworkAllocator, error) {
	return n, nil
}
func (noNetworks) AllocateAttachment(*api.Node, *api.NetworkAttachment) error   { return nil }
func (noNetworks) IsAttachmentAllocated(*api.Node, *api.NetworkAttachment) bool { return true }
