package main

import (
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/moby/swarmkit/v2/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A node that was stopped or killed starts again with its state: its containers
// have gone on and are taken over, and the swarm takes orders as before.
func TestEngineNodeStartsAgain(t *testing.T) {
	sharesEngine(t)
	s := newSwarm(t)
	service := s.create(s.service("again", 3, "sleep", "1h"))
	s.awaitRunning(service, 3)
	before := ids(s.containers(service))
	for _, end := range []struct {
		signal string
		node   func()
	}{{"SIGTERM", s.stop}, {"SIGKILL", s.kill}} {
		end.node()
		assert.Equal(t, before, ids(s.containers(service)), "while the node is away after %s", end.signal)
		begin := time.Now()
		s.start()
		s.awaitRunning(service, 3)
		t.Logf("after %s the node is there again within %v", end.signal, time.Since(begin).Round(time.Millisecond))
	}
	s.update(service, func(spec *api.ServiceSpec) { spec.GetReplicated().Replicas = 4 })
	for _, task := range s.awaitRunning(service, 4) {
		delete(before, task.ID)
	}
	require.Empty(t, before, "tasks that do not run any more")
	require.Empty(t, s.ended(service))
	require.Len(t, s.containers(service), 4)
}

// ids are the IDs of containers.
func ids(containers map[string]container.Summary) map[string]string {
	ids := map[string]string{}
	for task, c := range containers {
		ids[task] = c.ID
	}
	return ids
}

// What is removed while the engine is away is gone from it once it is back: running
// tasks, which the swarm still waits for, and ended ones, which it forgets at once.
func TestEngineNodeRemovedWhileAway(t *testing.T) {
	fromHarness(t, "DOCKEREXEC_TEST_ENGINE")
	for _, action := range []string{"stop", "kill"} {
		t.Run(action, func(t *testing.T) {
			const away = 10 * time.Second
			s := newSwarm(t)
			runs := s.create(s.service("runs", 5, "sleep", "1h"))
			spec := s.service("done", 3, "exit", "0")
			spec.Task.Restart = &api.RestartPolicy{Condition: api.RestartOnNone}
			done := s.create(spec)
			s.awaitRunning(runs, 5)
			s.await(done, "3 completed tasks", func([]*api.Task) bool { return len(s.ended(done)) == 3 })

			controlEngine(t, action)
			begin := time.Now()
			for _, service := range []string{runs, done} {
				_, err := s.api.RemoveService(t.Context(), &api.RemoveServiceRequest{ServiceID: service})
				require.NoError(t, err)
			}
			s.await(done, "no task", func(tasks []*api.Task) bool { return len(tasks) == 0 })
			time.Sleep(time.Until(begin.Add(away))) // the outage
			controlEngine(t, "start")
			begin = time.Now()
			s.await(runs, "no task", func(tasks []*api.Task) bool { return len(tasks) == 0 })
			s.awaitContainers(runs, 0)
			s.awaitContainers(done, 0)
			t.Logf("%v after the engine's return nothing is left", time.Since(begin).Round(time.Millisecond))
		})
	}
}
