package dockerexectest_test

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/events"
	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/api/types/network"
	engineapi "github.com/docker/docker/client"
	"github.com/stretchr/testify/assert"

	"github.com/dockerexec/dockerexec/dockerexectest"
)

// Clients that hang up at any time, containers that end by themselves and by hand,
// faults and outages, all at once, and the end of the test in the middle of it.
// Nothing hangs, panics or outlives the engine.
func TestStorm(t *testing.T) {
	seeds := 10
	if isRace || testing.Short() {
		seeds = 2
	}
	for seed := range seeds {
		bubble(t, fmt.Sprint(seed), func(t *testing.T) {
			e := dockerexectest.New(t, dockerexectest.WithDialect(dialects[seed%3]))
			e.LocalImage("example/web:1", func(p *dockerexectest.Process) int {
				for p.Sleep(100 * time.Millisecond) {
					fmt.Fprintln(p.Stdout, "a line")
					select {
					case s := <-p.Signals:
						return int(s)
					default:
					}
				}
				return 1
			}, dockerexectest.WithHealthcheck(container.HealthConfig{Interval: time.Second}))
			e.Image("example/slow:1", nil, dockerexectest.WithPullTime(5*time.Second))
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			var all sync.WaitGroup
			for worker := range 10 {
				random := rand.New(rand.NewPCG(uint64(seed), uint64(worker)))
				c := e.Client()
				all.Go(func() {
					for ctx.Err() == nil {
						gust(ctx, c, random)
					}
				})
			}
			random := rand.New(rand.NewPCG(uint64(seed), 100))
			for ctx.Err() == nil {
				weather(e, random)
				time.Sleep(time.Duration(random.IntN(3000)) * time.Millisecond)
			}
			e.Up()
			e.Resume()
			all.Wait()
			_, err := e.Client().Info(t.Context())
			assert.NoError(t, err)
			e.Down()
		})
	}
}

// gust is one request of a client that may hang up.
func gust(ctx context.Context, c *engineapi.Client, random *rand.Rand) {
	ctx, cancel := context.WithTimeout(ctx, time.Duration(random.IntN(4000))*time.Millisecond)
	defer cancel()
	name, grace := fmt.Sprint("web", random.IntN(4)), random.IntN(3)
	switch random.IntN(13) {
	case 0, 1:
		_, _ = c.ContainerCreate(ctx, &container.Config{Image: "example/web:1"}, nil, nil, nil, name)
	case 2, 3:
		_ = c.ContainerStart(ctx, name, container.StartOptions{})
	case 4:
		_ = c.ContainerStop(ctx, name, container.StopOptions{Timeout: &grace})
	case 5:
		_ = c.ContainerRemove(ctx, name, container.RemoveOptions{Force: true})
	case 6:
		_ = c.ContainerRestart(ctx, name, container.StopOptions{Timeout: &grace})
	case 7:
		if body, err := c.ContainerLogs(ctx, name, container.LogsOptions{ShowStdout: true, Follow: true}); err == nil {
			_, _ = io.CopyN(io.Discard, body, int64(random.IntN(200)))
			_ = body.Close()
		}
	case 8:
		messages, errs := c.Events(ctx, events.ListOptions{Since: "0"})
		for range random.IntN(50) {
			select {
			case <-messages:
			case <-errs:
				return
			}
		}
	case 9:
		if body, err := c.ImagePull(ctx, "example/slow:1", image.PullOptions{}); err == nil {
			_, _ = io.Copy(io.Discard, body)
			_ = body.Close()
		}
	case 10:
		ended, failed := c.ContainerWait(ctx, name, container.WaitConditionNextExit)
		select {
		case <-ended:
		case <-failed:
		}
	case 11:
		_, _ = c.NetworkCreate(ctx, "net", network.CreateOptions{})
		_ = c.NetworkConnect(ctx, "net", name, nil)
		_ = c.NetworkRemove(ctx, "net")
	case 12:
		_, _ = c.ContainerList(ctx, container.ListOptions{All: true})
		_ = c.ContainerKill(ctx, name, []string{"USR1", "KILL", "TERM"}[random.IntN(3)])
	}
	time.Sleep(time.Duration(random.IntN(300)) * time.Millisecond)
}

// weather is what happens around the clients.
func weather(e *dockerexectest.Engine, random *rand.Rand) {
	c := e.Container(fmt.Sprint("web", random.IntN(4)))
	switch random.IntN(12) {
	case 0:
		e.Down()
	case 1, 2:
		e.Up()
	case 3:
		e.Hang()
	case 4, 5:
		e.Resume()
	case 6:
		e.Restart(dockerexectest.RestartOptions{LiveRestore: random.IntN(2) == 0, Away: time.Second})
	case 7:
		stop := e.FailAll("*", []dockerexectest.Fault{dockerexectest.LoseAnswer(), dockerexectest.Drop(), dockerexectest.Slow(time.Second),
			dockerexectest.CutBody(random.IntN(300)), dockerexectest.Garble(), dockerexectest.Refuse(503, "not now")}[random.IntN(6)])
		e.Up()
		e.Resume()
		_, _ = e.Client().Info(context.Background()) // so that the fault is used
		time.Sleep(time.Second)
		stop()
	case 8:
		if c != nil {
			c.Exit(random.IntN(256))
		}
	case 9:
		if c != nil {
			c.OOM()
		}
	case 10:
		if c != nil {
			c.Pause()
			time.Sleep(time.Second)
			c.Unpause()
		}
	case 11:
		if c != nil {
			c.SetHealth("unhealthy")
			c.RemoveByHand()
		}
	}
}
