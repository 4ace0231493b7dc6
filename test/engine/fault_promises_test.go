package engine_test

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/events"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/network"
	engineapi "github.com/docker/docker/client"
	"github.com/dockerexec/dockerexec"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// What they promise, as the engine itself says.

func imagePresent(c *faultCell) {
	_, err := c.bench.client.ImageInspect(c.ctx(), c.pushed)
	assert.NoError(c, err)
}

// networksNamed lists the networks of the task that are there. Engines may have
// several of one name.
func (c *faultCell) networksNamed() []network.Summary {
	all, err := c.bench.client.NetworkList(c.ctx(), network.ListOptions{Filters: filters.NewArgs(filters.Arg("name", fmt.Sprintf("dockerexec-fault-%d-", c.number)))})
	assert.NoError(c, err)
	return all
}

func networksThere(c *faultCell) {
	all := c.networksNamed()
	assert.Len(c, all, len(c.task.Networks))
	for _, n := range all {
		assert.Contains(c, n.Labels, dockerexec.LabelNetwork)
	}
}

func networksGone(c *faultCell) { assert.Empty(c, c.networksNamed()) }

// volumesMade asserts that the volumes are there, unless a proxy has forbidden to make them.
func volumesMade(c *faultCell) {
	if c.fault != fault403 {
		volumesThere(c)
	}
}

func volumesThere(c *faultCell) {
	for _, volume := range c.volumes {
		_, err := c.bench.client.VolumeInspect(c.ctx(), volume)
		assert.NoError(c, err)
	}
}

// seen is the engine's record of the container, which has the task's name. It is
// empty if there is none.
func (c *faultCell) seen() container.InspectResponse {
	answer, err := c.bench.client.ContainerInspect(c.ctx(), c.name)
	if err != nil {
		assert.True(c, dockerexec.IsUnknownContainer(err), err)
		return container.InspectResponse{ContainerJSONBase: &container.ContainerJSONBase{State: &container.State{}}}
	}
	assert.Equal(c, c.task.ID, answer.Config.Labels[dockerexec.LabelTaskID])
	return answer
}

func strangerRuns(c *faultCell) {
	answer, err := c.bench.client.ContainerInspect(c.ctx(), c.stranger)
	if assert.NoError(c, err, "the stranger's container") {
		assert.True(c, answer.State.Running, "the stranger's container runs")
	}
}

func isCreated(c *faultCell) { assert.EqualValues(c, "created", c.seen().State.Status) }

func isPrepared(c *faultCell) {
	isCreated(c)
	volumesThere(c)
	if c.pushed != "" {
		imagePresent(c)
	}
	if c.task.Networks[0].Network.Spec.Annotations.Name != "none" {
		networksThere(c)
	}
}

func isConnected(c *faultCell) {
	isCreated(c)
	networksThere(c)
	assert.Contains(c, c.seen().NetworkSettings.Networks, c.network(0))
	assert.Contains(c, c.seen().NetworkSettings.Networks, c.network(1))
}

func startedOnce(c *faultCell) {
	seen := c.seen()
	assert.EqualValues(c, "running", seen.State.Status)
	if spec(c.task).Healthcheck != nil && assert.NotNil(c, seen.State.Health) {
		assert.EqualValues(c, "healthy", seen.State.Health.Status)
	}
	if c.startedAt == "" {
		c.startedAt = seen.State.StartedAt
	}
	assert.Equal(c, c.startedAt, seen.State.StartedAt)
}

// isCreatedWithFiles is a container whose secret is where it mounts it.
func isCreatedWithFiles(c *faultCell) {
	isCreated(c)
	files, err := filepath.Glob(filepath.Join(c.files, "*", c.task.ID, "secret.0"))
	assert.NoError(c, err)
	assert.Len(c, files, 1)
}

func runsNoMore(c *faultCell) { assert.False(c, c.seen().State.Running) }

func isStopped(c *faultCell) { assert.EqualValues(c, "exited", c.seen().State.Status) }

// stoppedOnce asserts, of a container that is gone, that it got one stop signal at most,
// and had ended two seconds after its grace period.
func (c *faultCell) stoppedOnce() {
	signals, ended, gone := c.bench.fates.of(c.id)
	require.Eventually(c, func() bool {
		signals, ended, gone = c.bench.fates.of(c.id)
		return gone
	}, 20*time.Second, 10*time.Millisecond, "no event tells that the container is gone")
	assert.LessOrEqual(c, signals, 1, "stop signals")
	const slow = 3 * time.Second // the machine may be
	stopped := c.proxy.firstAsked("POST containers/" + c.id + "/stop")
	if stopped.IsZero() { // an adapter that has not seen the container names it
		stopped = c.proxy.firstAsked("POST containers/*/stop")
	}
	assert.Less(c, ended.Sub(stopped), stopGrace+2*time.Second+slow, "from the stop to the end")
}

func isGone(c *faultCell) { assert.Empty(c, c.seen().State.Status) }

func allGone(c *faultCell) {
	isGone(c)
	networksGone(c)
}

func allPublished(c *faultCell) { assert.Equal(c, loggedLines, c.published()) }

func allPublishedAndReady(c *faultCell) {
	assert.Equal(c, slices.Insert(slices.Clone(loggedLines), 5, "stdout ready\n"), c.published())
}

// published has what was published by stream: an engine reads one beside the other.
func (c *faultCell) published() (lines []string) {
	for _, stream := range []string{"stdout", "stderr"} {
		for _, line := range c.sink.lines() {
			if strings.HasPrefix(line, stream) {
				lines = append(lines, line)
			}
		}
	}
	return lines
}

// fates are what an engine tells of the ends of its containers, by ID.
type fates struct {
	mu     sync.Mutex
	terms  map[string]int // stop signals; Podman tells of none
	ends   map[string]time.Time
	gone   map[string]bool
	cancel context.CancelFunc
	ended  sync.WaitGroup
}

func watchFates(t testing.TB, client *engineapi.Client) *fates {
	t.Helper()
	f := &fates{terms: map[string]int{}, ends: map[string]time.Time{}, gone: map[string]bool{}}
	var ctx context.Context
	ctx, f.cancel = context.WithCancel(context.WithoutCancel(t.Context()))
	messages, errs := client.Events(ctx, events.ListOptions{Filters: filters.NewArgs(filters.Arg("type", "container"),
		filters.Arg("event", "kill"), filters.Arg("event", "die"), filters.Arg("event", "destroy"),
		filters.Arg("event", "died"), filters.Arg("event", "remove"))}) // Podman's
	f.ended.Go(func() {
		for {
			select {
			case m := <-messages:
				f.note(m)
			case err := <-errs:
				assert.ErrorIs(t, err, context.Canceled)
				return
			}
		}
	})
	return f
}

func (f *fates) note(m events.Message) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case m.Action == events.ActionKill && m.Actor.Attributes["signal"] == "15":
		f.terms[m.Actor.ID]++
	case m.Action == events.ActionDie:
		f.ends[m.Actor.ID] = time.Unix(0, m.TimeNano)
	case m.Action == events.ActionDestroy, m.Action == events.ActionRemove:
		f.gone[m.Actor.ID] = true
	}
}

func (f *fates) of(id string) (terms int, end time.Time, gone bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.terms[id], f.ends[id], f.gone[id]
}

func (f *fates) close() {
	f.cancel()
	f.ended.Wait()
}
