package main

import (
	"context"
	"slices"
	"time"

	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/moby/swarmkit/v2/api"
)

// nodeID is a label of the containers of this FILE, which tells them from those of others.
func (b *batch) nodeID() string { return b.taskID("", 0) }

// cleanUp removes the containers that a killed run has left of jobs which FILE no longer
// has. Nobody else runs jobs of this FILE, because the journal is locked. So it need not wait.
func (b *batch) cleanUp(ctx context.Context, tasks []*api.Task) error {
	var wanted []string
	for _, task := range tasks {
		for n := 1; n <= b.attempts; n++ {
			wanted = append(wanted, b.taskID(task.ServiceAnnotations.Name, n))
		}
	}
	for {
		err := b.removeLeft(ctx, func(id string) bool { return slices.Contains(wanted, id) })
		if !exec.IsTemporary(err) {
			return err
		}
		select { // the engine is away
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Second):
		}
	}
}

func (b *batch) removeLeft(ctx context.Context, isWanted func(taskID string) bool) error {
	left, err := b.engine.Orphans(ctx, b.nodeID(), isWanted)
	for _, o := range left {
		if err := b.engine.RemoveOrphan(ctx, o); err != nil {
			return err
		}
		b.lines.Printf("%s: removed, it is no job any more", o.Name)
	}
	return err
}
