package dockerexectest

import (
	"context"
	"io"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/events"
	"github.com/docker/docker/api/types/image"
	engineapi "github.com/docker/docker/client"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A client may leave in any state of its request. What the engine has been asked to
// do, it does; then nothing of the request is left, and the next one is served.
func TestAClientThatLeavesInAnyState(t *testing.T) {
	type ask = func(context.Context, *engineapi.Client) error
	read := func(body io.ReadCloser, err error) error {
		if err != nil {
			return err
		}
		defer body.Close()
		_, err = io.Copy(io.Discard, body)
		return err
	}
	pull := func(ctx context.Context, c *engineapi.Client) error {
		return read(c.ImagePull(ctx, "example/slow:1", image.PullOptions{}))
	}
	wait := func(condition container.WaitCondition) ask {
		return func(ctx context.Context, c *engineapi.Client) error {
			_, failed := c.ContainerWait(ctx, "web", condition)
			return <-failed
		}
	}
	info := func(ctx context.Context, c *engineapi.Client) error {
		_, err := c.Info(ctx)
		return err
	}
	for state, test := range map[string]struct {
		before func(*Engine)
		ask    ask
		goesOn time.Duration // how long the engine is at it after the client has left
		ended  bool          // whether the container has ended then
	}{
		"the engine hangs":    {before: (*Engine).Hang, ask: info},
		"the request is slow": {before: func(e *Engine) { e.FailNext("GET /info", Slow(time.Hour)) }, ask: info, goesOn: time.Hour - time.Second},
		"a stop waits for the end": {ask: func(ctx context.Context, c *engineapi.Client) error {
			return c.ContainerStop(ctx, "web", container.StopOptions{})
		}, goesOn: 9 * time.Second, ended: true},
		"a restart waits for the end": {ask: func(ctx context.Context, c *engineapi.Client) error {
			return c.ContainerRestart(ctx, "web", container.StopOptions{})
		}, goesOn: 9 * time.Second},
		"a removal is slow": {before: func(e *Engine) { e.FailNext("DELETE *", Slow(time.Minute)) }, goesOn: 59 * time.Second, ended: true,
			ask: func(ctx context.Context, c *engineapi.Client) error {
				return c.ContainerRemove(ctx, "web", container.RemoveOptions{Force: true})
			}},
		"a wait for the end":         {ask: wait(container.WaitConditionNotRunning)},
		"a wait for the next exit":   {ask: wait(container.WaitConditionNextExit)},
		"a wait for the removal":     {ask: wait(container.WaitConditionRemoved)},
		"a pull downloads":           {before: func(e *Engine) { e.Image("example/slow:1", nil, WithPullTime(time.Hour)) }, ask: pull},
		"a pull stands still":        {before: func(e *Engine) { e.Image("example/slow:1", nil, WithStall(10)) }, ask: pull},
		"a pull stands at its begin": {before: func(e *Engine) { e.Image("example/slow:1", nil, WithStall(0)) }, ask: pull},
		"events are followed": {ask: func(ctx context.Context, c *engineapi.Client) error {
			_, failed := c.Events(ctx, events.ListOptions{})
			return <-failed
		}},
		"events are followed to a time": {ask: func(ctx context.Context, c *engineapi.Client) error {
			_, failed := c.Events(ctx, events.ListOptions{Until: strconv.FormatInt(time.Now().Add(time.Hour).Unix(), 10)})
			return <-failed
		}},
		"a log is followed": {ask: func(ctx context.Context, c *engineapi.Client) error {
			return read(c.ContainerLogs(ctx, "web", container.LogsOptions{ShowStdout: true, Follow: true}))
		}},
		"a log is followed, and the engine hangs": {ask: func(ctx context.Context, c *engineapi.Client) error {
			return read(c.ContainerLogs(ctx, "web", container.LogsOptions{ShowStdout: true, Follow: true}))
		}, before: func(e *Engine) { time.AfterFunc(500*time.Millisecond, e.Hang) }},
		"the log of a paused container is followed": {before: func(e *Engine) { e.Container("web").Pause() }, ask: func(ctx context.Context, c *engineapi.Client) error {
			return read(c.ContainerLogs(ctx, "web", container.LogsOptions{ShowStdout: true, Follow: true}))
		}},
	} {
		t.Run(state, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := New(t)
				e.LocalImage("example/web:1", IgnoreStop())
				c := e.Client()
				_, err := c.ContainerCreate(t.Context(), &container.Config{Image: "example/web:1"}, nil, nil, nil, "web")
				require.NoError(t, err)
				require.NoError(t, c.ContainerStart(t.Context(), "web", container.StartOptions{}))
				web := e.Container("web")
				if test.before != nil {
					test.before(e)
				}
				began := time.Now()
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				require.ErrorIs(t, test.ask(ctx, c), context.DeadlineExceeded)
				assert.Equal(t, time.Second, time.Since(began))

				e.Resume()
				synctest.Wait()
				if test.goesOn > 0 {
					assert.Equal(t, 1, e.openRequests())
					time.Sleep(test.goesOn)
					synctest.Wait()
				}
				assert.Equal(t, 0, e.openRequests())
				assert.Equal(t, !test.ended, web.Inspect().State.Running)
				require.NoError(t, info(t.Context(), c))
			})
		})
	}
}

func (e *Engine) openRequests() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.inflight)
}
