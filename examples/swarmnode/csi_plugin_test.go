package main

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// folderPlugin is a CSI plugin with both of its services. A volume is a folder. It is
// published on the node by a bind mount. It lives as long as the test, whatever becomes of
// the node.
type folderPlugin struct {
	csi.UnimplementedIdentityServer
	csi.UnimplementedControllerServer
	csi.UnimplementedNodeServer

	root string // of all its paths; the socket is in it

	mu        sync.Mutex
	published map[string]string // targets on the node, by the volume's ID
	attached  map[string]bool   // by the volume's ID: the controller service has published it
}

// startFolderPlugin serves a plugin, and returns its socket.
func startFolderPlugin(t testing.TB) (p *folderPlugin, socket string) {
	t.Helper()
	root, err := shortDir()
	require.NoError(t, err)
	p = &folderPlugin{root: root, published: map[string]string{}, attached: map[string]bool{}}
	socket = filepath.Join(root, "csi.sock")
	listener, err := net.Listen("unix", socket)
	require.NoError(t, err)
	server := grpc.NewServer()
	csi.RegisterIdentityServer(server, p)
	csi.RegisterControllerServer(server, p)
	csi.RegisterNodeServer(server, p)
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	t.Cleanup(func() {
		server.Stop()
		assert.NoError(t, <-served)
		assert.Empty(t, p.targets(), "volumes that are still published on the node")
		for _, target := range p.targets() {
			assert.NoError(t, syscall.Unmount(target, syscall.MNT_DETACH))
		}
		assert.NoError(t, os.RemoveAll(root))
	})
	return p, socket
}

func (p *folderPlugin) targets() (all []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, target := range p.published {
		all = append(all, target)
	}
	return all
}

func (p *folderPlugin) folder(id string) string { return filepath.Join(p.root, "volumes", id) }

// The identity service.

func (*folderPlugin) GetPluginInfo(context.Context, *csi.GetPluginInfoRequest) (*csi.GetPluginInfoResponse, error) {
	return &csi.GetPluginInfoResponse{Name: "folders", VendorVersion: "1"}, nil
}

func (*folderPlugin) Probe(context.Context, *csi.ProbeRequest) (*csi.ProbeResponse, error) {
	return &csi.ProbeResponse{}, nil
}

func (*folderPlugin) GetPluginCapabilities(context.Context, *csi.GetPluginCapabilitiesRequest) (*csi.GetPluginCapabilitiesResponse, error) {
	return &csi.GetPluginCapabilitiesResponse{Capabilities: []*csi.PluginCapability{{Type: &csi.PluginCapability_Service_{
		Service: &csi.PluginCapability_Service{Type: csi.PluginCapability_Service_CONTROLLER_SERVICE},
	}}}}, nil
}

// The controller service.

func (*folderPlugin) ControllerGetCapabilities(context.Context, *csi.ControllerGetCapabilitiesRequest) (*csi.ControllerGetCapabilitiesResponse, error) {
	answer := &csi.ControllerGetCapabilitiesResponse{}
	for _, kind := range []csi.ControllerServiceCapability_RPC_Type{
		csi.ControllerServiceCapability_RPC_CREATE_DELETE_VOLUME, csi.ControllerServiceCapability_RPC_PUBLISH_UNPUBLISH_VOLUME,
	} {
		answer.Capabilities = append(answer.Capabilities, &csi.ControllerServiceCapability{
			Type: &csi.ControllerServiceCapability_Rpc{Rpc: &csi.ControllerServiceCapability_RPC{Type: kind}},
		})
	}
	return answer, nil
}

func (p *folderPlugin) CreateVolume(_ context.Context, r *csi.CreateVolumeRequest) (*csi.CreateVolumeResponse, error) {
	id := "folder-" + r.Name
	if err := os.MkdirAll(p.folder(id), 0o755); err != nil {
		return nil, err
	}
	return &csi.CreateVolumeResponse{Volume: &csi.Volume{VolumeId: id}}, nil
}

func (p *folderPlugin) DeleteVolume(_ context.Context, r *csi.DeleteVolumeRequest) (*csi.DeleteVolumeResponse, error) {
	return &csi.DeleteVolumeResponse{}, os.RemoveAll(p.folder(r.VolumeId))
}

func (p *folderPlugin) ControllerPublishVolume(_ context.Context, r *csi.ControllerPublishVolumeRequest) (*csi.ControllerPublishVolumeResponse, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.attached[r.VolumeId] = true
	return &csi.ControllerPublishVolumeResponse{}, nil
}

func (p *folderPlugin) ControllerUnpublishVolume(_ context.Context, r *csi.ControllerUnpublishVolumeRequest) (*csi.ControllerUnpublishVolumeResponse, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.published[r.VolumeId] != "" {
		return nil, status.Error(codes.FailedPrecondition, "still published on the node")
	}
	delete(p.attached, r.VolumeId)
	return &csi.ControllerUnpublishVolumeResponse{}, nil
}

// The node service.

func (*folderPlugin) NodeGetCapabilities(context.Context, *csi.NodeGetCapabilitiesRequest) (*csi.NodeGetCapabilitiesResponse, error) {
	return &csi.NodeGetCapabilitiesResponse{}, nil
}

func (*folderPlugin) NodeGetInfo(context.Context, *csi.NodeGetInfoRequest) (*csi.NodeGetInfoResponse, error) {
	return &csi.NodeGetInfoResponse{NodeId: "folders-node"}, nil
}

// NodePublishVolume may be called again, as by an agent that was restarted.
func (p *folderPlugin) NodePublishVolume(_ context.Context, r *csi.NodePublishVolumeRequest) (*csi.NodePublishVolumeResponse, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	target := filepath.Join(p.root, r.TargetPath)
	if !p.attached[r.VolumeId] {
		return nil, status.Error(codes.FailedPrecondition, "the controller service has not published it")
	}
	if p.published[r.VolumeId] == target {
		return &csi.NodePublishVolumeResponse{}, nil
	}
	if err := os.MkdirAll(target, 0o755); err != nil {
		return nil, err
	}
	if err := syscall.Mount(p.folder(r.VolumeId), target, "", syscall.MS_BIND, ""); err != nil {
		return nil, err
	}
	p.published[r.VolumeId] = target
	return &csi.NodePublishVolumeResponse{}, nil
}

func (p *folderPlugin) NodeUnpublishVolume(_ context.Context, r *csi.NodeUnpublishVolumeRequest) (*csi.NodeUnpublishVolumeResponse, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	target := p.published[r.VolumeId]
	if target == "" {
		return &csi.NodeUnpublishVolumeResponse{}, nil
	}
	if err := syscall.Unmount(target, 0); err != nil {
		return nil, err
	}
	delete(p.published, r.VolumeId)
	return &csi.NodeUnpublishVolumeResponse{}, os.Remove(target)
}
