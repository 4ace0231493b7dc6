package main

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/volume"
	"github.com/moby/swarmkit/v2/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Sixty services of two replicas, each replica with a volume, come and go.
// Then the node has not one goroutine, descriptor or connection more than before
// the first of them, and not 5 % more memory than after the first twenty.
//
// Memory is what is live on the heap of the whole node, manager and agent, after a
// garbage collection. Of all that, one thing grows on purpose: a manager keeps its
// raft log in memory too, by default until it has 10,000 entries. So the swarm is
// told to keep fewer; nothing is left out of the measure.
func TestEngineNodeStaysFlat(t *testing.T) {
	const batches, services, replicas = 3, 20, 2
	sharesEngine(t)
	s := newMeasuredSwarm(t)
	s.keepShortLog()
	before := s.settledMeasures()
	t.Logf("before: %v", before)
	removeVolumes := func() int {
		list, err := s.engine.VolumeList(t.Context(), volume.ListOptions{Filters: filters.NewArgs(filters.Arg("name", "dockerexec-flat-"))})
		require.NoError(t, err)
		for _, v := range list.Volumes {
			require.NoError(t, s.engine.VolumeRemove(t.Context(), v.Name, false))
		}
		return len(list.Volumes)
	}

	var warm, now measures
	for batch := range batches {
		begin := time.Now()
		var made []string
		for i := range services {
			name := fmt.Sprintf("dockerexec-flat-%d-%d", batch, i)
			spec := s.service(name, replicas, "sleep", "1h")
			spec.Task.GetContainer().Env = []string{"SEEN_IF_KEPT=" + strings.Repeat("x", 8<<10)}
			spec.Task.GetContainer().Mounts = []api.Mount{{
				Type: api.MountTypeVolume, Source: name + "-{{.Task.Slot}}", Target: "/data",
				VolumeOptions: &api.Mount_VolumeOptions{DriverConfig: &api.Driver{Name: "local"}},
			}}
			made = append(made, s.create(spec))
		}
		for _, service := range made {
			s.awaitRunning(service, replicas)
		}
		for _, service := range made {
			require.Empty(t, s.ended(service))
			_, err := s.api.RemoveService(t.Context(), &api.RemoveServiceRequest{ServiceID: service})
			require.NoError(t, err)
		}
		for _, service := range made {
			s.await(service, "no task", func(tasks []*api.Task) bool { return len(tasks) == 0 })
			s.awaitContainers(service, 0)
		}
		require.Equal(t, services*replicas, removeVolumes(), "volumes, which are nobody's to remove but the user's")
		s.shortenLog()
		now = s.measures()
		if batch == 0 {
			warm = now
		}
		t.Logf("%d services made and removed, the last %d in %v: %v", (batch+1)*services, services, time.Since(begin).Round(time.Millisecond), now)
	}

	growth := 100 * (float64(now.Heap)/float64(warm.Heap) - 1)
	t.Logf("the heap has grown by %.1f %% since the first %d services", growth, services)
	assert.Less(t, growth, 5.0)
	left, err := s.leftContainers()
	require.NoError(t, err)
	assert.Empty(t, left)
	s.awaitMeasures(before)
}

// keepShortLog has the manager snapshot, and forget its log, after every 10 changes.
func (s *swarm) keepShortLog() {
	s.t.Helper()
	list, err := s.api.ListClusters(s.t.Context(), &api.ListClustersRequest{})
	require.NoError(s.t, err)
	require.Len(s.t, list.Clusters, 1)
	cluster := list.Clusters[0]
	cluster.Spec.Raft.SnapshotInterval = 10
	cluster.Spec.Raft.LogEntriesForSlowFollowers = 1
	_, err = s.api.UpdateCluster(s.t.Context(), &api.UpdateClusterRequest{
		ClusterID: cluster.ID, ClusterVersion: &cluster.Meta.Version, Spec: &cluster.Spec,
	})
	require.NoError(s.t, err)
}

// shortenLog makes small changes, until those of before are gone from the log.
func (s *swarm) shortenLog() {
	s.t.Helper()
	for range 20 {
		made, err := s.api.CreateConfig(s.t.Context(), &api.CreateConfigRequest{Spec: &api.ConfigSpec{
			Annotations: api.Annotations{Name: "small"}, Data: []byte("small"),
		}})
		require.NoError(s.t, err)
		_, err = s.api.RemoveConfig(s.t.Context(), &api.RemoveConfigRequest{ConfigID: made.Config.ID})
		require.NoError(s.t, err)
	}
}

// settledMeasures are the measures once they do not change any more.
func (s *swarm) settledMeasures() measures {
	s.t.Helper()
	now := s.measures()
	for late := time.Now().Add(patience); ; {
		last := now
		time.Sleep(time.Second)
		if now = s.measures(); now.within(last) && last.within(now) {
			return now
		}
		require.Less(s.t, time.Now(), late, "the node does not settle: %v, then %v", last, now)
	}
}

// awaitMeasures waits until the node has in use what it had before and no more, but
// for memory. A client keeps connections for half a minute after their last use.
func (s *swarm) awaitMeasures(before measures) {
	s.t.Helper()
	now := s.measures()
	for late := time.Now().Add(time.Minute); !now.within(before) && time.Now().Before(late); now = s.measures() {
		time.Sleep(time.Second)
	}
	s.t.Logf("in the end: %v", now)
	if !now.within(before) {
		assert.Fail(s.t, "the node has more in use than before", "before: %v\nnow: %v\n%s", before, now, s.ask("/profile?of=goroutine"))
	}
}
