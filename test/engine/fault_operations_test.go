package engine_test

import (
	"context"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/dockerexec/dockerexec"
	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/moby/swarmkit/v2/api"
	pkgerrors "github.com/pkg/errors"
	"github.com/stretchr/testify/assert"
)

// The operations.

func onAdapter(method func(*dockerexec.ContainerAdapter, context.Context) error) func(context.Context, *faultCell) error {
	return func(ctx context.Context, c *faultCell) error { return method(c.adapter, ctx) }
}

func onController(method func(exec.Controller, context.Context) error) func(context.Context, *faultCell) error {
	return func(ctx context.Context, c *faultCell) error { return method(c.ctlr, ctx) }
}

func createBesideStranger(ctx context.Context, c *faultCell) error {
	err := c.adapter.Create(ctx)
	if err != nil && strings.Contains(err.Error(), "belongs to no task has its name; rename or remove that one") && !exec.IsTemporary(err) {
		return errStranger
	}
	return err
}

func inspectIt(ctx context.Context, c *faultCell) error {
	answer, err := c.adapter.Inspect(ctx)
	if err == nil {
		assert.Equal(c, "/"+c.name, answer.Name)
	}
	if c.fault == fault404 && err != nil && c.row.says != nil {
		assert.True(c, dockerexec.IsUnknownContainer(err), err)
	}
	return err
}

// untilAnEvent does what Events says: after a loss it subscribes again.
func untilAnEvent(ctx context.Context, c *faultCell) error {
	for {
		subscribed, cancel := context.WithCancel(ctx)
		messages, closed, err := c.adapter.Events(subscribed)
		if err != nil {
			cancel()
			return err
		}
		arrived := func() bool {
			defer func() {
				cancel()
				<-closed
			}()
			for {
				assert.NoError(c, c.bench.client.ContainerKill(c.ctx(), c.name, "CONT"))
				select {
				case m := <-messages:
					assert.Equal(c, c.task.ID, m.Actor.Attributes[dockerexec.LabelTaskID])
					return true
				case <-closed:
					return false
				case <-time.After(100 * time.Millisecond):
				}
			}
		}()
		// The stream may have broken after the event, or be about to.
		if arrived || ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

func kill(c *faultCell) {
	assert.NoError(c, c.bench.client.ContainerKill(c.ctx(), c.name, "KILL"))
}

// killOnceLooked ends the container. After some faults of the event stream a wait
// inspects before it opens the stream again. It must not find the end then, so the
// container runs until that inspect is answered.
func killOnceLooked(c *faultCell) {
	switch c.fault {
	case faultBody, faultCut, faultGarbled, faultEmpty, fault404, fault409, fault500:
		select {
		case <-c.looked:
		case <-time.After(cellTimeout):
			c.Errorf("the container is not inspected")
		}
	default: // the wait opens the stream first
	}
	kill(c)
}

func killByID(c *faultCell) {
	assert.NoError(c, c.bench.client.ContainerKill(c.ctx(), c.id, "KILL"))
}

// killIfGone ends a container of which the engine's answer says that it is gone,
// so that its end is waited for.
func killIfGone(c *faultCell) {
	if c.fault == fault404 {
		kill(c)
	}
}

// removeIt is another caller's removal.
func removeIt(c *faultCell) {
	assert.NoError(c, c.bench.client.ContainerRemove(c.ctx(), c.name, container.RemoveOptions{Force: true}))
}

// waitRenamed is a wait during which the container gets another name.
func waitRenamed(ctx context.Context, c *faultCell) error {
	seen := c.proxy.whenAnswered("GET containers/" + c.name + "/json") // the wait has seen which container it is
	ended := make(chan struct{})
	var renaming sync.WaitGroup
	renamed := false
	renaming.Go(func() {
		select {
		case <-seen:
		case <-ended:
			return
		}
		renamed = assert.NoError(c, c.bench.client.ContainerRename(c.ctx(), c.id, c.name+"-renamed"))
	})
	err := waitFor137(ctx, c)
	close(ended)
	renaming.Wait()
	if renamed {
		assert.NoError(c, c.bench.client.ContainerRename(c.ctx(), c.id, c.name))
	}
	return err
}

func waitFor137(ctx context.Context, c *faultCell) error {
	answer, err := c.adapter.Wait(ctx)
	if err != nil {
		return err
	}
	assert.Equal(c, 137, answer.State.ExitCode)
	return nil
}

func controllerWait(ctx context.Context, c *faultCell) error {
	err := c.ctlr.Wait(ctx)
	coded, ended := err.(exec.ExitCoder)
	switch {
	case !ended:
		return err
	case spec(c.task).Healthcheck != nil:
		assert.Equal(c, dockerexec.ErrContainerUnhealthy, pkgerrors.Cause(err))
	default:
		assert.Equal(c, 137, coded.ExitCode())
	}
	return nil
}

// controllerStartSick starts what turns out unhealthy, or finds that it was
// stopped for that before.
func controllerStartSick(ctx context.Context, c *faultCell) error {
	stopped := c.seen().State.Status == container.StateExited
	err := c.ctlr.Start(ctx)
	if stopped && err == exec.ErrTaskStarted {
		return nil
	}
	if _, ended := err.(exec.ExitCoder); ended {
		assert.Equal(c, dockerexec.ErrContainerUnhealthy, pkgerrors.Cause(err))
		return nil
	}
	return err
}

// controllerStartStray ends the stray, which is a start that has failed.
func controllerStartStray(ctx context.Context, c *faultCell) error {
	err := c.ctlr.Start(ctx)
	if err != nil && strings.HasSuffix(err.Error(), "the container ran without network and log, and was stopped") && !exec.IsTemporary(err) {
		return nil
	}
	return err
}

func readRawLogs(ctx context.Context, c *faultCell) error {
	body, err := c.adapter.Logs(ctx, api.LogSubscriptionOptions{})
	if err != nil {
		return err
	}
	defer body.Close()
	text, err := io.ReadAll(body)
	if err != nil {
		return &readingError{err}
	}
	if c.want != believed {
		assert.Contains(c, string(text), "line on stderr")
	}
	return nil
}

func publishLogs(follow bool) func(ctx context.Context, c *faultCell) error {
	return func(ctx context.Context, c *faultCell) error {
		c.sink = &logSink{}
		return c.adapter.PublishLogs(ctx, api.LogSubscriptionOptions{Follow: follow}, c.sink)
	}
}

func controllerLogs(ctx context.Context, c *faultCell) error {
	c.sink = &logSink{}
	return c.ctlr.Logs(ctx, c.sink, api.LogSubscriptionOptions{})
}

func describeIt(ctx context.Context, c *faultCell) error {
	node, err := c.executor.Describe(ctx)
	if err == nil {
		assert.NotEmpty(c, node.Hostname)
		assert.Contains(c, node.Engine.Plugins, api.PluginDescription{Type: "Log", Name: defaultLogDriver()})
	} else {
		assert.Nil(c, node)
	}
	return err
}

func containerStatusOf(ctx context.Context, c *faultCell) error {
	status, err := c.ctlr.ContainerStatus(ctx)
	if err == nil && status == nil {
		return errNoStatus
	}
	if err == nil {
		assert.NotEmpty(c, status.ContainerID)
	}
	return err
}

func portStatusOf(ctx context.Context, c *faultCell) error {
	status, err := c.ctlr.PortStatus(ctx)
	if err == nil && status == nil {
		return errNoStatus
	}
	return err
}
