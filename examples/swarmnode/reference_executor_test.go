package main

import (
	"context"

	"github.com/docker/docker/api/types/filters"
	engineapi "github.com/docker/docker/client"
	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/moby/swarmkit/v2/api"
)

// referenceExecutor is the baseline of the measurements. Of each task it asks the engine
// what SwarmKit's own swarmd/dockerexec asks, in the same order, with a request for events a
// task. It carries out as much of a task as the measured services have: an image,
// arguments and networks.
type referenceExecutor struct {
	client engineapi.APIClient
}

var _ exec.Executor = referenceExecutor{}

func (e referenceExecutor) Describe(ctx context.Context) (*api.NodeDescription, error) {
	info, err := e.client.Info(ctx)
	if err != nil {
		return nil, err
	}
	if _, err := e.client.PluginList(ctx, filters.NewArgs()); err != nil {
		return nil, err
	}
	description := &api.NodeDescription{
		Hostname:  info.Name,
		Platform:  &api.Platform{Architecture: info.Architecture, OS: info.OSType},
		Engine:    &api.EngineDescription{EngineVersion: info.ServerVersion},
		Resources: &api.Resources{NanoCPUs: int64(info.NCPU) * 1e9, MemoryBytes: info.MemTotal},
	}
	for kind, names := range map[string][]string{"Volume": info.Plugins.Volume, "Network": info.Plugins.Network} {
		for _, name := range names {
			description.Engine.Plugins = append(description.Engine.Plugins, api.PluginDescription{Type: kind, Name: name})
		}
	}
	return description, nil
}

func (referenceExecutor) Configure(context.Context, *api.Node) error { return nil }

func (e referenceExecutor) Controller(task *api.Task) (exec.Controller, error) {
	return newReferenceController(e.client, task), nil
}

func (referenceExecutor) SetNetworkBootstrapKeys([]*api.EncryptionKey) error { return nil }
