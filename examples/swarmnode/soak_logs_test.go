package main

import (
	"bytes"
	"context"
	"fmt"
	"strconv"
	"sync"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	engineapi "github.com/docker/docker/client"
	"github.com/docker/docker/pkg/stdcopy"
	"github.com/moby/swarmkit/v2/api"
)

// follower follows the log of a service, and sees that each of its tasks' lines
// come in their order and once, unless the engine itself keeps them otherwise. What
// it has found is to be read once it has stopped.
type follower struct {
	cancel context.CancelFunc // nil: it does not follow
	ended  sync.WaitGroup

	subscriptions, lines int
	wrong                []string
	// kept is the same by task, where the engine's own log has it too, as that of
	// version 29 can after a lost start. More is not looked at of such a task.
	kept map[string]string
}

func (f *follower) stop() {
	if f.cancel != nil {
		f.cancel()
		f.ended.Wait()
		f.cancel = nil
	}
}

// follow has the log of the service be followed from the beginning, from the node
// that runs now. The one before ends with it.
func (k *soak) follow() {
	k.follower.stop()
	logs, service := api.NewLogsClient(k.conn), k.services["logs"]
	var ctx context.Context
	ctx, k.follower.cancel = context.WithCancel(k.t.Context())
	k.follower.ended.Go(func() {
		for ctx.Err() == nil {
			k.follower.subscribe(ctx, k.engine, logs, service)
			select {
			case <-time.After(200 * time.Millisecond): // the node is not ready, or has ended
			case <-ctx.Done():
			}
		}
	})
}

// subscribe reads one subscription to its end.
func (f *follower) subscribe(ctx context.Context, engine *engineapi.Client, logs api.LogsClient, service string) {
	stream, err := logs.SubscribeLogs(ctx, &api.SubscribeLogsRequest{
		Selector: &api.LogSelector{ServiceIDs: []string{service}},
		Options:  &api.LogSubscriptionOptions{Follow: true},
	})
	if err != nil {
		return
	}
	f.subscriptions++
	last := map[string]int{} // by task
	for {
		answer, err := stream.Recv()
		if err != nil {
			return
		}
		for _, m := range answer.Messages {
			f.lines++
			task := m.Context.TaskID
			number, ok := lineNumber(m.Data)
			if before := last[task]; (!ok || number <= before) && f.kept[task] == "" && len(f.wrong) < 10 {
				what := fmt.Sprintf("after line %d of task %s: %q", before, task, m.Data)
				switch ordered := keepsInOrder(ctx, engine, task); {
				case ctx.Err() != nil: // the next subscription will see it again
					return
				case ordered:
					f.wrong = append(f.wrong, what)
				default:
					f.kept[task] = what
				}
			}
			last[task] = number
		}
	}
}

// lineNumber is that of a line of the test program's "lines" command.
func lineNumber(line []byte) (number int, ok bool) {
	number, err := strconv.Atoi(string(line[:min(10, len(line))]))
	return number, err == nil
}

// keepsInOrder reports whether the log that the engine itself has of a task's
// container is in order. It asks until the engine answers, or ctx ends. A log that is
// gone was in order.
func keepsInOrder(ctx context.Context, engine *engineapi.Client, task string) bool {
	for ctx.Err() == nil {
		text, err := engineLog(ctx, engine, task)
		if err == nil {
			return inOrder(text)
		}
		time.Sleep(200 * time.Millisecond)
	}
	return true
}

// engineLog is what the engine has of the log of a task's container, if there is one.
func engineLog(ctx context.Context, engine *engineapi.Client, task string) ([]byte, error) {
	list, err := engine.ContainerList(ctx, container.ListOptions{All: true, Filters: filters.NewArgs(filters.Arg("label", "com.docker.swarm.task.id="+task))})
	if err != nil || len(list) == 0 {
		return nil, err
	}
	body, err := engine.ContainerLogs(ctx, list[0].ID, container.LogsOptions{ShowStdout: true})
	if cerrdefs.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer body.Close()
	var text bytes.Buffer
	_, err = stdcopy.StdCopy(&text, &text, body)
	return text.Bytes(), err
}

func inOrder(text []byte) bool {
	last := 0
	for line := range bytes.Lines(text) {
		number, ok := lineNumber(line)
		if !ok || number <= last {
			return false
		}
		last = number
	}
	return true
}
