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

// ContainerStatus returns the container's ID, process and exit code. It does not ask the
// engine for a container that this controller has just created, or has seen end: the agent asks
// after each step. Else, if there is no container of the task, or the engine is away, it returns
// nil and no error: the agent then keeps the status that it has.
func (c *controller) ContainerStatus(ctx context.Context) (*api.ContainerStatus, error) {
	if known := c.knownStatus(); known != nil {
		if err := c.run(ctx, opAsking, methodContainerStatus, func(context.Context) error { return nil }); err != nil {
			return nil, err
		}
		return known, nil
	}
	answer, err := c.look(ctx, methodContainerStatus)
	if answer == nil {
		return nil, err
	}
	return containerStatus(*answer), nil
}

// knownStatus returns the status of a container that nothing changes, or nil.
func (c *controller) knownStatus() *api.ContainerStatus {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.lasting == nil || c.removed {
		return nil
	}
	c.portsAt = time.Now() // the ports do not change either
	return c.lasting.Copy()
}

// portsAge is how long PortStatus may use the ports that the last ContainerStatus has
// seen. The agent calls the two one after the other. If ContainerStatus got no answer in
// time, PortStatus does not ask the engine either.
const portsAge = time.Second

// PortStatus returns the container's published ports, sorted. Each comes once, even if
// it is published at several addresses. It returns nil if there is no container of the
// task. If the engine is away, or ctx has ended, it returns what it saw last: the agent
// forgets ports that are missing in an answer.
func (c *controller) PortStatus(ctx context.Context) (*api.PortStatus, error) {
	if ports, fresh := c.takePorts(); fresh {
		err := c.run(ctx, opAsking, methodPortStatus, func(context.Context) error { return nil })
		return ports, err
	}
	_, err := c.look(ctx, methodPortStatus)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.portsAt = time.Time{}
	return c.ports.Copy(), err
}

// look inspects the container for its status. It returns nil if there is no container
// of the task, or if the engine is away.
func (c *controller) look(ctx context.Context, m *method) (seen *container.InspectResponse, err error) {
	err = c.run(ctx, opAsking, m, func(ctx context.Context) error {
		answer, err := c.adapter.Inspect(ctx)
		switch {
		case err == nil && c.adapter.checkOwner(answer) == nil:
			c.notePorts(answer)
			c.noteEnded(answer)
			seen = &answer
			return nil
		case err == nil, isContainerGone(err):
			c.setLasting(nil)
			c.setPorts(nil, time.Time{})
			return nil
		case ctx.Err() == nil && exec.IsTemporary(err): // context.DeadlineExceeded calls itself temporary, too
			log.G(c.adapter.logContext(ctx)).WithError(err).Debug("status of the container not read")
			if late := requestTimeoutError(0); stderrors.As(err, &late) {
				c.mu.Lock()
				c.portsAt = time.Now() // PortStatus would run into the time-out too
				c.mu.Unlock()
			}
			return nil
		default:
			return err
		}
	})
	return seen, err
}

// noteEnded keeps the status of a container that was just seen, if it has ended.
func (c *controller) noteEnded(answer container.InspectResponse) {
	if !hasEnded(answer) {
		return
	}
	status := containerStatus(answer)
	status.PID = 0 // Podman may show it for a moment longer
	c.setLasting(status)
}

// setLasting keeps a status that nothing changes; nil: there is none.
func (c *controller) setLasting(status *api.ContainerStatus) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lasting = status
}

// notePorts keeps the ports of a container that was just seen, for the PortStatus that
// follows. An answer that is older than the container's end is too late.
func (c *controller) notePorts(answer container.InspectResponse) {
	ports := publishedPorts(answer)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.lasting == nil || hasEnded(answer) {
		c.ports, c.portsAt = ports, time.Now()
	}
}

// setPorts keeps the ports. at is when they were seen; zero: the next PortStatus must
// ask the engine.
func (c *controller) setPorts(ports *api.PortStatus, at time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ports, c.portsAt = ports, at
}

// takePorts returns the kept ports if portsAt is at most portsAge ago. It does so once: the
// next PortStatus asks the engine.
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

// publishedPorts returns the container's ports that are published on the host, sorted.
// An engine also lists ports that the image only exposes. Those have no host port, and
// are left out.
func publishedPorts(answer container.InspectResponse) *api.PortStatus {
	status := &api.PortStatus{}
	if answer.NetworkSettings == nil {
		return status
	}
	var ports []api.PortConfig
	for port, bindings := range answer.NetworkSettings.Ports {
		protocol, known := swarmProtocols[port.Proto()]
		if !known {
			continue // SwarmKit does not know it
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
