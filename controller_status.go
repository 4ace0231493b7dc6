package dockerexec

import (
	"cmp"
	"context"
	stderrors "errors"
	"slices"
	"strconv"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/moby/swarmkit/v2/api"
	"github.com/moby/swarmkit/v2/log"
)

// ContainerStatus returns the container's ID, process and exit code. It returns
// nil and no error, for which the agent keeps what it knows, if there is no
// container of the task or the engine is away.
func (c *controller) ContainerStatus(ctx context.Context) (*api.ContainerStatus, error) {
	answer, err := c.look(ctx)
	if answer == nil {
		return nil, err
	}
	return containerStatus(*answer), nil
}

// portsAge is how long the PortStatus that follows a ContainerStatus uses what that
// saw, or does without when that got no answer. The agent calls them in a row.
const portsAge = time.Second

// PortStatus returns the container's published ports, sorted, each once
// whatever the number of addresses it is published at. It returns nil if there
// is no container of the task. If the engine is away, or ctx has ended, it
// returns what it saw last: the agent drops what it is not told.
func (c *controller) PortStatus(ctx context.Context) (*api.PortStatus, error) {
	if ports, fresh := c.takePorts(); fresh {
		err := c.run(ctx, opAsking, func(context.Context) error { return nil })
		return ports, err
	}
	_, err := c.look(ctx)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.portsAt = time.Time{}
	return c.ports.Copy(), err
}

// look inspects the container for its status. nil is none, or none that can be
// seen now.
func (c *controller) look(ctx context.Context) (seen *container.InspectResponse, err error) {
	err = c.run(ctx, opAsking, func(ctx context.Context) error {
		answer, err := c.adapter.Inspect(ctx)
		switch {
		case err == nil && c.adapter.checkOwner(answer) == nil:
			c.notePorts(answer)
			seen = &answer
			return nil
		case err == nil, isContainerGone(err):
			c.setPorts(nil, time.Time{})
			return nil
		case ctx.Err() == nil && exec.IsTemporary(err): // a deadline says that it is, too
			log.G(c.adapter.logContext(ctx)).WithError(err).Debug("container not seen")
			if late := requestTimeoutError(0); stderrors.As(err, &late) {
				c.mu.Lock()
				c.portsAt = time.Now() // PortStatus would run into the time-out, too
				c.mu.Unlock()
			}
			return nil
		default:
			return err
		}
	})
	return seen, err
}

// notePorts takes note of a container that was just seen, for the PortStatus that
// follows.
func (c *controller) notePorts(answer container.InspectResponse) {
	c.setPorts(publishedPorts(answer), time.Now())
}

// setPorts takes note of the ports. A PortStatus that follows within portsAge of at uses
// them instead of asking the engine.
func (c *controller) setPorts(ports *api.PortStatus, at time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ports, c.portsAt = ports, at
}

// takePorts returns the ports if they were looked for just now, once.
func (c *controller) takePorts() (ports *api.PortStatus, fresh bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	at := c.portsAt
	c.portsAt = time.Time{}
	if at.IsZero() || time.Since(at) > portsAge {
		return nil, false
	}
	return c.ports.Copy(), true
}

var swarmProtocols = map[string]api.PortConfig_Protocol{
	"tcp": api.ProtocolTCP, "udp": api.ProtocolUDP, "sctp": api.ProtocolSCTP,
}

// publishedPorts lists the ports that the host has for the container, in one
// order. A port without a host's port is not published: an engine lists those
// that the image exposes too, and those that are routed to.
func publishedPorts(answer container.InspectResponse) *api.PortStatus {
	status := &api.PortStatus{}
	if answer.NetworkSettings == nil {
		return status
	}
	var ports []api.PortConfig
	for port, bindings := range answer.NetworkSettings.Ports {
		protocol, known := swarmProtocols[port.Proto()]
		if !known {
			continue // SwarmKit has no word for it
		}
		for _, binding := range bindings {
			published, err := strconv.ParseUint(binding.HostPort, 10, 16)
			if err != nil || published == 0 {
				continue
			}
			ports = append(ports, api.PortConfig{
				Protocol:      protocol,
				TargetPort:    uint32(port.Int()),
				PublishedPort: uint32(published),
				PublishMode:   api.PublishModeHost,
			})
		}
	}
	slices.SortFunc(ports, func(a, b api.PortConfig) int {
		return cmp.Or(cmp.Compare(a.TargetPort, b.TargetPort), cmp.Compare(a.Protocol, b.Protocol), cmp.Compare(a.PublishedPort, b.PublishedPort))
	})
	for _, port := range slices.Compact(ports) {
		status.Ports = append(status.Ports, &port)
	}
	return status
}
