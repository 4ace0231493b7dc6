package dockerexec

import (
	"context"
	"io"

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
	"go.opentelemetry.io/otel/metric"
)

// countedClient counts the requests that this package makes. Each of its methods makes one
// request. It must have a method for each request of the package: a test compares them.
type countedClient struct {
	engineapi.APIClient
	telemetry *telemetry
}

func (c countedClient) count(ctx context.Context, request string, err error) {
	if err == nil {
		c.telemetry.requests.Add(ctx, 1, metric.WithAttributes(keyRequest.String(request)))
		return
	}
	kind := errorTypes[classify(err)]
	switch {
	case ctx.Err() == context.DeadlineExceeded:
		kind = errorTypes[kindTimedOut]
	case ctx.Err() != nil:
		kind = "cancelled"
	}
	c.telemetry.requests.Add(ctx, 1, metric.WithAttributes(keyRequest.String(request), keyErrorType.String(kind)))
}

func (c countedClient) Ping(ctx context.Context) (types.Ping, error) {
	answer, err := c.APIClient.Ping(ctx)
	c.count(ctx, "Ping", err)
	return answer, err
}

func (c countedClient) Info(ctx context.Context) (system.Info, error) {
	answer, err := c.APIClient.Info(ctx)
	c.count(ctx, "Info", err)
	return answer, err
}

func (c countedClient) PluginList(ctx context.Context, filter filters.Args) (types.PluginsListResponse, error) {
	answer, err := c.APIClient.PluginList(ctx, filter)
	c.count(ctx, "PluginList", err)
	return answer, err
}

// Events counts a request that is sent: the client tells of its fault later, on a channel.
func (c countedClient) Events(ctx context.Context, options events.ListOptions) (<-chan events.Message, <-chan error) {
	messages, errs := c.APIClient.Events(ctx, options)
	c.count(ctx, "Events", nil)
	return messages, errs
}

func (c countedClient) ImagePull(ctx context.Context, ref string, options image.PullOptions) (io.ReadCloser, error) {
	body, err := c.APIClient.ImagePull(ctx, ref, options)
	c.count(ctx, "ImagePull", err)
	return body, err
}

func (c countedClient) ImageInspect(ctx context.Context, name string, options ...engineapi.ImageInspectOption) (image.InspectResponse, error) {
	answer, err := c.APIClient.ImageInspect(ctx, name, options...)
	c.count(ctx, "ImageInspect", err)
	return answer, err
}

func (c countedClient) VolumeCreate(ctx context.Context, options volume.CreateOptions) (volume.Volume, error) {
	answer, err := c.APIClient.VolumeCreate(ctx, options)
	c.count(ctx, "VolumeCreate", err)
	return answer, err
}

func (c countedClient) NetworkCreate(ctx context.Context, name string, options network.CreateOptions) (network.CreateResponse, error) {
	answer, err := c.APIClient.NetworkCreate(ctx, name, options)
	c.count(ctx, "NetworkCreate", err)
	return answer, err
}

func (c countedClient) NetworkInspect(ctx context.Context, name string, options network.InspectOptions) (network.Inspect, error) {
	answer, err := c.APIClient.NetworkInspect(ctx, name, options)
	c.count(ctx, "NetworkInspect", err)
	return answer, err
}

func (c countedClient) NetworkList(ctx context.Context, options network.ListOptions) ([]network.Summary, error) {
	answer, err := c.APIClient.NetworkList(ctx, options)
	c.count(ctx, "NetworkList", err)
	return answer, err
}

func (c countedClient) NetworkConnect(ctx context.Context, name, nameOrID string, endpoint *network.EndpointSettings) error {
	err := c.APIClient.NetworkConnect(ctx, name, nameOrID, endpoint)
	c.count(ctx, "NetworkConnect", err)
	return err
}

func (c countedClient) NetworkRemove(ctx context.Context, name string) error {
	err := c.APIClient.NetworkRemove(ctx, name)
	c.count(ctx, "NetworkRemove", err)
	return err
}

func (c countedClient) ContainerList(ctx context.Context, options container.ListOptions) ([]container.Summary, error) {
	answer, err := c.APIClient.ContainerList(ctx, options)
	c.count(ctx, "ContainerList", err)
	return answer, err
}

func (c countedClient) ContainerCreate(ctx context.Context, config *container.Config, host *container.HostConfig, networks *network.NetworkingConfig, platform *ocispec.Platform, name string) (container.CreateResponse, error) {
	answer, err := c.APIClient.ContainerCreate(ctx, config, host, networks, platform, name)
	c.count(ctx, "ContainerCreate", err)
	return answer, err
}

func (c countedClient) ContainerInspect(ctx context.Context, nameOrID string) (container.InspectResponse, error) {
	answer, err := c.APIClient.ContainerInspect(ctx, nameOrID)
	c.count(ctx, "ContainerInspect", err)
	return answer, err
}

func (c countedClient) ContainerStart(ctx context.Context, nameOrID string, options container.StartOptions) error {
	err := c.APIClient.ContainerStart(ctx, nameOrID, options)
	c.count(ctx, "ContainerStart", err)
	return err
}

func (c countedClient) ContainerStop(ctx context.Context, nameOrID string, options container.StopOptions) error {
	err := c.APIClient.ContainerStop(ctx, nameOrID, options)
	c.count(ctx, "ContainerStop", err)
	return err
}

func (c countedClient) ContainerKill(ctx context.Context, nameOrID, signal string) error {
	err := c.APIClient.ContainerKill(ctx, nameOrID, signal)
	c.count(ctx, "ContainerKill", err)
	return err
}

func (c countedClient) ContainerRemove(ctx context.Context, nameOrID string, options container.RemoveOptions) error {
	err := c.APIClient.ContainerRemove(ctx, nameOrID, options)
	c.count(ctx, "ContainerRemove", err)
	return err
}

func (c countedClient) ContainerLogs(ctx context.Context, nameOrID string, options container.LogsOptions) (io.ReadCloser, error) {
	body, err := c.APIClient.ContainerLogs(ctx, nameOrID, options)
	c.count(ctx, "ContainerLogs", err)
	return body, err
}
