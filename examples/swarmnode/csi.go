package main

import (
	"fmt"
	"net"
	"path/filepath"
	"strings"

	"github.com/moby/swarmkit/v2/node/plugin"
)

// csiPlugins are the CSI plugins of the flag -csi, by name. They serve the manager, which
// makes volumes, and the agent, which publishes them on the node.
type csiPlugins map[string]csiPlugin

// add takes one value of the flag: name=unix:///path.
func (p csiPlugins) add(value string) error {
	name, address, _ := strings.Cut(value, "=")
	socket, isUnix := strings.CutPrefix(address, "unix://")
	if name == "" || !isUnix || !filepath.IsAbs(socket) {
		return fmt.Errorf("%q is not name=unix:///path", value)
	}
	p[name] = csiPlugin{name, socket}
	return nil
}

// Get returns a plugin by its name. Without a getter, the manager would panic.
func (p csiPlugins) Get(name, capability string) (plugin.Plugin, error) {
	if found, is := p[name]; is {
		return found, nil
	}
	return nil, fmt.Errorf("plugin %s (%s): swarmnode has no such plugin; see its flag -csi", name, capability)
}

// GetAllManagedPluginsByCap returns all plugins, if the capability is one of CSI.
func (p csiPlugins) GetAllManagedPluginsByCap(capability string) (all []plugin.Plugin) {
	if capability == "csinode" || capability == "csicontroller" {
		for _, found := range p {
			all = append(all, found)
		}
	}
	return all
}

type csiPlugin struct{ name, socket string }

func (p csiPlugin) Name() string          { return p.name }
func (p csiPlugin) Addr() net.Addr        { return &net.UnixAddr{Net: "unix", Name: p.socket} }
func (p csiPlugin) Client() plugin.Client { return nil } // of Docker's own plugin protocol

// ScopedPath returns where the host has a path of the plugin: below the folder of its socket.
func (p csiPlugin) ScopedPath(path string) string {
	return filepath.Join(filepath.Dir(p.socket), path)
}
