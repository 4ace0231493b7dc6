package engine_test

import (
	"context"

	"github.com/dockerexec/dockerexec"
	"github.com/stretchr/testify/assert"
)

// orphanFaultRows are those of what an earlier process has left behind.
func orphanFaultRows() []*faultRow {
	return []*faultRow{
		{
			name: "Orphans: list", target: "GET containers/json",
			ends:  once,
			setup: func(c *faultCell) { c.useStarted(); c.about = "list orphans: containers" }, op: listOrphan,
		},
		{
			name: "Orphans: inspect image", target: "GET images/*",
			ends:  once.but(outcomes{faultGarbled: success, fault403: success, fault404: success, fault409: success, fault500: success}),
			setup: func(c *faultCell) { c.useStarted(); c.about = "list orphans: the image" }, op: listOrphan,
		},
		{
			name: "RemoveOrphan: list", target: "GET containers/json",
			ends:  once,
			setup: (*faultCell).useLingering, done: isGone, op: removeOrphan, stops: true,
		},
		{
			name: "RemoveOrphan: inspect", target: "GET containers/*/json",
			ends:  once.but(outcomes{fault404: believed}),
			setup: (*faultCell).useLingering, done: isGone, op: removeOrphan, stops: true,
			says: map[fault]string{fault404: noContainer},
		},
		{
			name: "RemoveOrphan: stop", target: "POST containers/*/stop", bodiless: true,
			ends:  once.but(outcomes{fault403: success, fault404: success, fault409: success, fault500: success, faultNever: success, faultSlow: success}),
			setup: (*faultCell).useLingering, done: isGone, op: removeOrphan, stops: true,
			says: map[fault]string{fault404: noContainer},
		},
		{
			name: "RemoveOrphan: remove", target: "DELETE containers/*", bodiless: true,
			ends:  once.but(outcomes{fault404: believed, fault409: temporary}),
			setup: (*faultCell).useLingering, done: isGone, op: removeOrphan, stops: true, waits: true,
			says: map[fault]string{fault404: noContainer, fault409: beingRemoved},
		},
	}
}

// laterEngine is that of a process which knows nothing of the cell's task.
func (c *faultCell) laterEngine() *dockerexec.Engine {
	if c.later == nil {
		c.later = dockerexec.NewEngine(c.client, c.options()...)
	}
	return c.later
}

func listOrphan(ctx context.Context, c *faultCell) error {
	orphans, err := c.laterEngine().Orphans(ctx, c.task.NodeID, func(id string) bool { return id != c.task.ID })
	for _, o := range orphans {
		assert.Equal(c, dockerexec.Orphan{ContainerID: c.seen().ID, Name: c.name, TaskID: c.task.ID, ServiceID: c.task.ServiceID, NodeID: c.task.NodeID, State: "running"}, o)
	}
	return err
}

func removeOrphan(ctx context.Context, c *faultCell) error {
	return c.laterEngine().RemoveOrphan(ctx, dockerexec.Orphan{ContainerID: c.id, Name: c.name, TaskID: c.task.ID, NodeID: c.task.NodeID})
}
