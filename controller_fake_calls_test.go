package dockerexec

import (
	"context"
	"io"
	"slices"
	"strings"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/docker/docker/api/types"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/events"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/api/types/system"
	"github.com/docker/docker/api/types/volume"
	engineapi "github.com/docker/docker/client"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func (e *simEngine) ImagePull(ctx context.Context, ref string, _ image.PullOptions) (io.ReadCloser, error) {
	if e.pulling != nil {
		e.mu.Lock()
		e.calls = append(e.calls, "ImagePull "+ref)
		e.mu.Unlock()
		if err := e.pulling(ctx); err != nil {
			return nil, err
		}
		return io.NopCloser(strings.NewReader("")), nil
	}
	return simCall(ctx, e, "ImagePull", ref, func() (io.ReadCloser, error) {
		e.images[ref] = image.InspectResponse{ID: "sha256:web", Os: "linux", Architecture: "amd64"}
		return io.NopCloser(strings.NewReader(`{"status":"Status: Image is up to date"}`)), nil
	})
}

func (e *simEngine) ImageInspect(ctx context.Context, ref string, _ ...engineapi.ImageInspectOption) (image.InspectResponse, error) {
	return simCall(ctx, e, "ImageInspect", ref, func() (image.InspectResponse, error) {
		if found, there := e.images[ref]; there {
			return found, nil
		}
		return image.InspectResponse{}, notFound("No such image: %s", ref)
	})
}

func (e *simEngine) NetworkCreate(ctx context.Context, name string, options network.CreateOptions) (network.CreateResponse, error) {
	return simCall(ctx, e, "NetworkCreate", name, func() (network.CreateResponse, error) {
		if _, exists := e.networks[name]; exists {
			return network.CreateResponse{}, conflict("network with name %s already exists", name)
		}
		made := network.Inspect{ID: e.id("network"), Name: name, Driver: options.Driver, Labels: options.Labels, Internal: options.Internal}
		if options.IPAM != nil {
			made.IPAM = *options.IPAM
		}
		e.networks[name] = made
		return network.CreateResponse{ID: made.ID}, nil
	})
}

func (e *simEngine) NetworkInspect(ctx context.Context, name string, _ network.InspectOptions) (network.Inspect, error) {
	return simCall(ctx, e, "NetworkInspect", name, func() (network.Inspect, error) {
		if found, there := e.networks[name]; there {
			return found, nil
		}
		return network.Inspect{}, notFound("network %s not found", name)
	})
}

func (e *simEngine) NetworkRemove(ctx context.Context, id string) error {
	_, err := simCall(ctx, e, "NetworkRemove", id, func() (struct{}, error) {
		for name, n := range e.networks {
			if n.ID != id {
				continue
			}
			for _, c := range e.containers {
				if c.state.Running && slices.Contains(c.networks, name) {
					return struct{}{}, simError{"error while removing network: network " + name + " has active endpoints", cerrdefs.ErrPermissionDenied}
				}
			}
			delete(e.networks, name)
			return struct{}{}, nil
		}
		return struct{}{}, notFound("network %s not found", id)
	})
	return err
}

func (e *simEngine) NetworkConnect(ctx context.Context, name, id string, _ *network.EndpointSettings) error {
	_, err := simCall(ctx, e, "NetworkConnect", name, func() (struct{}, error) {
		c, err := e.find(id)
		if err != nil {
			return struct{}{}, err
		}
		if _, there := e.networks[name]; !there {
			return struct{}{}, notFound("network %s not found", name)
		}
		c.networks = append(c.networks, name)
		return struct{}{}, nil
	})
	return err
}

func (e *simEngine) VolumeCreate(ctx context.Context, options volume.CreateOptions) (volume.Volume, error) {
	return simCall(ctx, e, "VolumeCreate", options.Name, func() (volume.Volume, error) { return volume.Volume{Name: options.Name}, nil })
}

func (e *simEngine) ContainerCreate(ctx context.Context, config *container.Config, _ *container.HostConfig, networking *network.NetworkingConfig, _ *ocispec.Platform, name string) (container.CreateResponse, error) {
	return simCall(ctx, e, "ContainerCreate", name, func() (container.CreateResponse, error) {
		if holder, err := e.find(name); err == nil {
			return container.CreateResponse{}, conflict(`Conflict. The container name "/%s" is already in use by container "%s". You have to remove (or rename) that container to be able to reuse that name.`, name, holder.id)
		}
		if _, there := e.images[config.Image]; !there {
			return container.CreateResponse{}, notFound("No such image: %s", config.Image)
		}
		c := &simContainer{id: e.id("container"), name: name, config: *config, state: container.State{Status: container.StateCreated}}
		for n := range networking.EndpointsConfig {
			c.networks = append(c.networks, n)
		}
		slices.Sort(c.networks)
		e.containers[name] = c
		e.emit(c, events.ActionCreate)
		return container.CreateResponse{ID: c.id}, nil
	})
}

func (e *simEngine) ContainerStart(ctx context.Context, name string, _ container.StartOptions) error {
	_, err := simCall(ctx, e, "ContainerStart", name, func() (struct{}, error) {
		c, err := e.find(name)
		if err != nil || c.state.Running {
			return struct{}{}, err
		}
		for _, n := range c.networks {
			if _, there := e.networks[n]; !there {
				return struct{}{}, notFound("failed to set up container networking: network %s not found", n)
			}
		}
		c.state = container.State{Status: container.StateRunning, Running: true, Pid: 4711}
		if h := c.config.Healthcheck; h != nil && len(h.Test) > 0 && h.Test[0] != "NONE" {
			c.state.Health = &container.Health{Status: container.Starting}
		}
		e.emit(c, events.ActionStart)
		if e.started != nil {
			e.started(c)
		}
		return struct{}{}, nil
	})
	return err
}

func (e *simEngine) ContainerInspect(ctx context.Context, name string) (container.InspectResponse, error) {
	return simCall(ctx, e, "ContainerInspect", name, func() (container.InspectResponse, error) {
		c, err := e.find(name)
		if err != nil {
			return container.InspectResponse{}, err
		}
		state, config, settings := c.state, c.config, c.ports
		settings.Networks = map[string]*network.EndpointSettings{}
		for _, n := range c.networks {
			settings.Networks[n] = &network.EndpointSettings{}
		}
		return container.InspectResponse{
			ContainerJSONBase: &container.ContainerJSONBase{ID: c.id, Name: "/" + c.name, State: &state},
			Config:            &config,
			NetworkSettings:   &settings,
		}, nil
	})
}

func (e *simEngine) ContainerStop(ctx context.Context, name string, _ container.StopOptions) error {
	_, err := simCall(ctx, e, "ContainerStop", name, func() (struct{}, error) {
		c, err := e.find(name)
		if err == nil && c.state.Running {
			e.exitLocked(c, 143)
		}
		return struct{}{}, err
	})
	return err
}

func (e *simEngine) ContainerKill(ctx context.Context, name, _ string) error {
	_, err := simCall(ctx, e, "ContainerKill", name, func() (struct{}, error) {
		c, err := e.find(name)
		if err != nil {
			return struct{}{}, err
		}
		if !c.state.Running {
			return struct{}{}, conflict("cannot kill container: %s: container %s is not running", name, c.id)
		}
		e.exitLocked(c, 137)
		return struct{}{}, nil
	})
	return err
}

func (e *simEngine) ContainerRemove(ctx context.Context, name string, options container.RemoveOptions) error {
	_, err := simCall(ctx, e, "ContainerRemove", name, func() (struct{}, error) {
		c, err := e.find(name)
		if err != nil {
			return struct{}{}, err
		}
		if c.state.Running && !options.Force {
			return struct{}{}, conflict("cannot remove container %q: container is running", name)
		}
		delete(e.containers, c.name)
		e.emit(c, events.ActionDestroy)
		return struct{}{}, nil
	})
	return err
}

func (e *simEngine) ContainerLogs(ctx context.Context, name string, _ container.LogsOptions) (io.ReadCloser, error) {
	return simCall(ctx, e, "ContainerLogs", name, func() (io.ReadCloser, error) {
		if _, err := e.find(name); err != nil {
			return nil, err
		}
		reader, writer := io.Pipe()
		context.AfterFunc(ctx, func() { writer.CloseWithError(ctx.Err()) })
		return reader, nil
	})
}

func (e *simEngine) Events(ctx context.Context, _ events.ListOptions) (<-chan events.Message, <-chan error) {
	messages, errs := make(chan events.Message, 1024), make(chan error, 1)
	e.mu.Lock()
	e.calls = append(e.calls, "Events")
	fault := e.fault
	e.mu.Unlock()
	if fault != nil {
		if err := fault("Events"); err != nil {
			errs <- err
			return messages, errs
		}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.streams[messages] = errs
	context.AfterFunc(ctx, func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		delete(e.streams, messages)
	})
	return messages, errs
}

func (e *simEngine) Info(ctx context.Context) (system.Info, error) {
	return simCall(ctx, e, "Info", "", func() (system.Info, error) { return system.Info{Name: "engine-host"}, nil })
}

func (e *simEngine) PluginList(ctx context.Context, _ filters.Args) (types.PluginsListResponse, error) {
	return simCall(ctx, e, "PluginList", "", func() (types.PluginsListResponse, error) { return nil, nil })
}
