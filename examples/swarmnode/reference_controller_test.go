package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/api/types/network"
	engineapi "github.com/docker/docker/client"
	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/moby/swarmkit/v2/api"
	"github.com/moby/swarmkit/v2/api/naming"
	"github.com/moby/swarmkit/v2/log"
	pkgerrors "github.com/pkg/errors"
)

// referenceController runs one task as the reference does: see [referenceExecutor].
type referenceController struct {
	client engineapi.APIClient
	task   *api.Task
	name   string

	mu         sync.Mutex
	closed     bool
	pulled     chan struct{} // closed when the pull has ended; nil: it has not begun
	pullErr    error
	cancelPull context.CancelFunc
}

var (
	_ exec.ContainerStatuser = (*referenceController)(nil)
	_ exec.PortStatuser      = (*referenceController)(nil)
)

func newReferenceController(client engineapi.APIClient, task *api.Task) *referenceController {
	return &referenceController{client: client, task: task, name: naming.Task(task), cancelPull: func() {}}
}

func (c *referenceController) Update(context.Context, *api.Task) error { return c.checkClosed() }

// Prepare makes the networks, pulls the image once, and creates the container. An error of
// the pull is only logged.
func (c *referenceController) Prepare(ctx context.Context) error {
	if err := c.checkClosed(); err != nil {
		return err
	}
	for _, attachment := range c.task.Networks {
		if err := c.createNetwork(ctx, attachment.Network); err != nil {
			return err
		}
	}
	select {
	case <-c.pullOnce():
	case <-ctx.Done():
		return ctx.Err()
	}
	if c.pullErr != nil {
		log.G(ctx).WithError(c.pullErr).Error("pulling image failed")
	}
	spec := c.task.Spec.GetContainer()
	networks := &network.NetworkingConfig{EndpointsConfig: map[string]*network.EndpointSettings{}}
	for _, attachment := range c.task.Networks {
		networks.EndpointsConfig[attachment.Network.Spec.Annotations.Name] = &network.EndpointSettings{}
	}
	_, err := c.client.ContainerCreate(ctx, &container.Config{
		Image: spec.Image, Cmd: spec.Args, Env: spec.Env, Hostname: spec.Hostname,
		Labels: map[string]string{
			"com.docker.swarm.task": "", "com.docker.swarm.task.id": c.task.ID, "com.docker.swarm.task.name": c.name,
			"com.docker.swarm.node.id": c.task.NodeID, "com.docker.swarm.service.id": c.task.ServiceID,
			"com.docker.swarm.service.name": c.task.ServiceAnnotations.Name,
		},
	}, &container.HostConfig{}, networks, nil, c.name)
	return err
}

func (c *referenceController) createNetwork(ctx context.Context, n *api.Network) error {
	options := network.CreateOptions{Driver: n.DriverState.Name, IPAM: &network.IPAM{Driver: "default"}}
	for _, config := range n.IPAM.Configs {
		options.IPAM.Config = append(options.IPAM.Config, network.IPAMConfig{Subnet: config.Subnet, Gateway: config.Gateway, IPRange: config.Range})
	}
	_, err := c.client.NetworkCreate(ctx, n.Spec.Annotations.Name, options)
	if err != nil && strings.Contains(err.Error(), "network with name "+n.Spec.Annotations.Name+" already exists") {
		return nil
	}
	return err
}

// pullOnce begins the pull, if it has not begun. The pull does not end with any caller.
func (c *referenceController) pullOnce() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.pulled == nil {
		c.pulled = make(chan struct{})
		var ctx context.Context
		ctx, c.cancelPull = context.WithCancel(context.Background())
		go func() {
			c.pullErr = c.pull(ctx)
			close(c.pulled)
		}()
	}
	return c.pulled
}

func (c *referenceController) pull(ctx context.Context) error {
	spec := c.task.Spec.GetContainer()
	var options image.PullOptions
	if spec.PullOptions != nil {
		options.RegistryAuth = spec.PullOptions.RegistryAuth
	}
	body, err := c.client.ImagePull(ctx, spec.Image, options)
	if err != nil {
		return err
	}
	defer body.Close()
	for messages := json.NewDecoder(body); ; {
		var message struct{ Error string }
		err := messages.Decode(&message)
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		case message.Error != "":
			return errors.New(message.Error)
		}
	}
}

// Start starts the container. The measured services have no health checks to wait for.
func (c *referenceController) Start(ctx context.Context) error {
	if err := c.checkClosed(); err != nil {
		return err
	}
	answer, err := c.client.ContainerInspect(ctx, c.name)
	if err != nil {
		return err
	}
	if answer.State.Status != container.StateCreated {
		return exec.ErrTaskStarted
	}
	return pkgerrors.Wrap(c.client.ContainerStart(ctx, c.name, container.StartOptions{}), "starting container failed")
}

func (c *referenceController) Shutdown(ctx context.Context) error {
	if err := c.checkClosed(); err != nil {
		return err
	}
	c.mu.Lock()
	c.cancelPull()
	c.mu.Unlock()
	seconds := 10
	return withoutUnknown(c.client.ContainerStop(ctx, c.name, container.StopOptions{Timeout: &seconds}))
}

func (c *referenceController) Terminate(ctx context.Context) error {
	if err := c.checkClosed(); err != nil {
		return err
	}
	return withoutUnknown(c.client.ContainerKill(ctx, c.name, ""))
}

// Remove stops the container, and then removes the networks and the container.
func (c *referenceController) Remove(ctx context.Context) error {
	if err := c.Shutdown(ctx); err != nil {
		log.G(ctx).WithError(err).Debug("shutdown failed on removal")
	}
	for _, attachment := range c.task.Networks {
		err := c.client.NetworkRemove(ctx, attachment.Network.Spec.Annotations.Name)
		if err != nil && !strings.Contains(err.Error(), "has active endpoints") {
			return err
		}
	}
	return withoutUnknown(c.client.ContainerRemove(ctx, c.name, container.RemoveOptions{RemoveVolumes: true, Force: true}))
}

func (c *referenceController) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cancelPull()
	c.closed = true
	return nil
}

func (c *referenceController) checkClosed() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return exec.ErrControllerClosed
	}
	return nil
}

// ContainerStatus and PortStatus inspect the container, each for itself.
func (c *referenceController) ContainerStatus(ctx context.Context) (*api.ContainerStatus, error) {
	answer, err := c.client.ContainerInspect(ctx, c.name)
	if err != nil {
		return nil, withoutUnknown(err)
	}
	return &api.ContainerStatus{ContainerID: answer.ID, PID: int32(answer.State.Pid), ExitCode: int32(answer.State.ExitCode)}, nil
}

func (c *referenceController) PortStatus(ctx context.Context) (*api.PortStatus, error) {
	_, err := c.client.ContainerInspect(ctx, c.name)
	if err != nil {
		return nil, withoutUnknown(err)
	}
	return &api.PortStatus{}, nil
}

// withoutUnknown drops the error that the container does not exist.
func withoutUnknown(err error) error {
	if err != nil && strings.Contains(err.Error(), "No such container:") {
		return nil
	}
	return err
}

// referenceExit is the error of a container that has ended with another code than 0.
type referenceExit struct{ code int }

func (e referenceExit) Error() string { return fmt.Sprintf("task: non-zero exit (%d)", e.code) }
func (e referenceExit) ExitCode() int { return e.code }
