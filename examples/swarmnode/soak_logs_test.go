package main

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/moby/swarmkit/v2/api"
)

// follower follows the log of a service, and sees that each of its tasks' lines
// come in their order and once. What it has found is to be read once it has stopped.
type follower struct {
	cancel context.CancelFunc // nil: it does not follow
	ended  sync.WaitGroup

	subscriptions, lines int
	wrong                []string
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
			k.follower.subscribe(ctx, logs, service)
			select {
			case <-time.After(200 * time.Millisecond): // the node is not ready, or has ended
			case <-ctx.Done():
			}
		}
	})
}

// subscribe reads one subscription to its end.
func (f *follower) subscribe(ctx context.Context, logs api.LogsClient, service string) {
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
			number, err := strconv.Atoi(string(m.Data[:min(10, len(m.Data))]))
			if before := last[m.Context.TaskID]; (err != nil || number <= before) && len(f.wrong) < 10 {
				f.wrong = append(f.wrong, fmt.Sprintf("after line %d of task %s: %q", before, m.Context.TaskID, m.Data))
			}
			last[m.Context.TaskID] = number
		}
	}
}
