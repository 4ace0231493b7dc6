package cluster

import (
	"bytes"
	"context"
	"fmt"
	"sync"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/pkg/stdcopy"
	"github.com/moby/swarmkit/v2/api"
	"github.com/stretchr/testify/require"
)

// The log of a service is followed over all hosts, through a cut. The follower has all lines of
// the hosts that are left, of the tasks too that come to them. SwarmKit's agents take a
// subscription up once: the host that is back is heard by a new follower. That one has all that
// the engines have, also what was written during the cut.
func (c *cluster) aLogIsFollowedThroughACut() {
	h := c.follower()
	service := c.create(c.service("talks", 6, "lines", "100000", "40", "10"))
	c.awaitAll(service, 6)
	f := c.follow(service)
	c.awaitLines(f, service, c.hosts...)
	c.say("the follower has the lines of all hosts")
	h.goesAway()
	h.unplug(c.t)
	c.awaitDown(h)
	c.awaitRunning(service, 6, c.others(h)...)
	c.awaitLines(f, service, c.others(h)...)
	c.say("host %s is unplugged, and the follower has all lines of the others, where all tasks run", h.name)
	f.stop() // a manager that leads no more ends it, and a host that is back can cause an election
	h.plugIn(c.t)
	c.awaitReady(h)
	c.holds()
	c.seat = c.leader()
	again := c.follow(service)
	c.awaitLines(again, service, c.hosts...)
	again.stop()
	require.Empty(c.t, append(f.wrong, again.wrong...), "a line that is none")
	c.say("host %s is plugged in; a new follower has its lines too, also those that were written during the cut", h.name)
	c.remove(service)
}

// lineSet has the lines of tasks that have come, by task.
type lineSet struct {
	stop func()

	mu    sync.Mutex
	lines map[string]map[string]bool
	wrong []string
	ended error // of the subscription
}

// follow follows the log of a service, until stop or the scene's end.
func (c *cluster) follow(service string) *lineSet {
	c.t.Helper()
	ctx, cancel := context.WithCancel(c.t.Context())
	stream, err := c.seat.logs.SubscribeLogs(ctx, &api.SubscribeLogsRequest{
		Selector: &api.LogSelector{ServiceIDs: []string{service}},
		Options:  &api.LogSubscriptionOptions{Follow: true},
	})
	require.NoError(c.t, err)
	f := &lineSet{lines: map[string]map[string]bool{}}
	var ended sync.WaitGroup
	ended.Go(func() {
		for {
			answer, err := stream.Recv()
			if err != nil {
				f.mu.Lock()
				f.ended = err
				f.mu.Unlock()
				return
			}
			f.add(answer.Messages)
		}
	})
	f.stop = func() { cancel(); ended.Wait() }
	c.t.Cleanup(f.stop)
	return f
}

func (f *lineSet) add(messages []api.LogMessage) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, m := range messages {
		if len(m.Data) != 40 {
			f.wrong = append(f.wrong, string(m.Data))
		}
		task := m.Context.TaskID
		if f.lines[task] == nil {
			f.lines[task] = map[string]bool{}
		}
		f.lines[task][string(m.Data[:min(10, len(m.Data))])] = true
	}
}

// awaitLines waits until all lines have come that the engines of these hosts have now. Each task
// must have written some.
func (c *cluster) awaitLines(f *lineSet, service string, hosts ...*host) {
	c.t.Helper()
	written := map[string][]string{}
	c.until("lines of each task", func(ctx context.Context) string {
		clear(written)
		for _, h := range hosts {
			list, err := h.containers(ctx)
			if err != nil {
				return err.Error()
			}
			for _, one := range list {
				if one.Labels["com.docker.swarm.service.id"] != service {
					continue
				}
				lines, err := h.log(ctx, one.ID)
				if err != nil || len(lines) == 0 {
					return fmt.Sprintf("host %s, %v: %d lines, %v", h.name, one.Names, len(lines), err)
				}
				written[taskOf(one)] = lines
			}
		}
		return ""
	})
	c.until("the follower", func(context.Context) string {
		f.mu.Lock()
		defer f.mu.Unlock()
		for task, lines := range written {
			for _, line := range lines {
				if !f.lines[task][line] {
					return fmt.Sprintf("line %s of %d of task %s has not come, the subscription's end: %v", line, len(lines), task, f.ended)
				}
			}
		}
		return ""
	})
}

// log returns the numbers of the lines that the engine has of a container's log.
func (h *host) log(ctx context.Context, id string) (lines []string, err error) {
	body, err := h.engine.ContainerLogs(ctx, id, container.LogsOptions{ShowStdout: true})
	if err != nil {
		return nil, err
	}
	defer body.Close()
	var text bytes.Buffer
	if _, err := stdcopy.StdCopy(&text, &text, body); err != nil {
		return nil, err
	}
	for line := range bytes.Lines(text.Bytes()) {
		lines = append(lines, string(line[:min(10, len(line))]))
	}
	return lines, nil
}
