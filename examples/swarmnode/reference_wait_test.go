package main

import (
	"context"
	"errors"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/events"
	"github.com/docker/docker/api/types/filters"
	"github.com/moby/swarmkit/v2/log"
)

// Wait looks at the container, and then reads events of it until it dies. The request for
// events is made again at once when it breaks, however often, and with no other look.
func (c *referenceController) Wait(ctx context.Context) error {
	if err := c.checkClosed(); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if ended, err := c.exit(ctx); ended || err != nil {
		return err
	}
	messages, broken := c.events(ctx)
	for {
		select {
		case message := <-messages:
			switch {
			case message.Actor.Attributes["name"] != c.name:
			case message.Action == events.ActionDie:
				_, err := c.exit(ctx)
				return err
			case message.Action == events.ActionDestroy:
				return errors.New("dockerexec: container destroyed")
			}
		case err := <-broken:
			if ctx.Err() != nil {
				return ctx.Err()
			}
			log.G(ctx).WithError(err).Error("error from events stream")
			messages, broken = c.events(ctx)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (c *referenceController) events(ctx context.Context) (<-chan events.Message, <-chan error) {
	return c.client.Events(ctx, events.ListOptions{Since: "0", Filters: filters.NewArgs(
		filters.Arg("type", string(events.ContainerEventType)), filters.Arg("name", c.name),
		filters.Arg("label", "com.docker.swarm.task.id="+c.task.ID))})
}

// exit reports whether the container has ended, and with which error.
func (c *referenceController) exit(ctx context.Context) (ended bool, err error) {
	answer, err := c.client.ContainerInspect(ctx, c.name)
	if err != nil {
		return false, err
	}
	switch answer.State.Status {
	case container.StateExited, container.StateDead:
		if answer.State.ExitCode != 0 {
			return true, referenceExit{answer.State.ExitCode}
		}
		return true, nil
	}
	return false, nil
}
