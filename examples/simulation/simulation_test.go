package main

import (
	"testing"
	"time"

	"github.com/moby/swarmkit/v2/log"
	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A swarm of five agents goes through all scenes, and every figure of the tables is there.
func TestSmallSwarm(t *testing.T) {
	level := log.L.Logger.GetLevel()
	log.L.Logger.SetLevel(logrus.PanicLevel)
	t.Cleanup(func() { log.L.Logger.SetLevel(level) })
	r, err := simulateOne(t.Context(), plan{agents: 5, tasks: 4, rounds: 2, heartbeat: time.Second, quiet: 100 * time.Millisecond,
		outage: 100 * time.Millisecond, limit: 2 * time.Minute}, t.Output())
	require.NoError(t, err)
	require.Len(t, r.scenes, 9)
	up := r.scenes[1]
	assert.Equal(t, "all up", up.scene)
	assert.Equal(t, 20, up.tasks)
	assert.GreaterOrEqual(t, up.traffic.requests, int64(20*4), "a task is pulled, made, started and inspected")
	assert.GreaterOrEqual(t, up.traffic.events, int64(20*2), "a task is made and started")
	assert.Positive(t, up.writes)
	assert.Positive(t, up.cpu)
	assert.Zero(t, r.empty.goroutines[agentsPart])
	assert.GreaterOrEqual(t, r.busy.minus(r.idle).goroutines[agentsPart], int64(20), "of each task one waits for its exit")
	printTables(t.Output(), []result{r, r})
}
