package main

import (
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	gogotypes "github.com/gogo/protobuf/types"
	"github.com/moby/swarmkit/v2/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The node is killed at each stage at which its tasks have containers, and starts
// again: it goes on with these, makes no other, and meets no name that is taken.
func TestEngineNodeIsKilled(t *testing.T) {
	sharesEngine(t)
	const replicas = 3
	for _, tt := range []struct {
		name     string
		state    api.TaskState
		method   string // the call that is held; empty: none
		suffix   string
		answered bool
		health   bool
		status   string // of the container, when the node is killed
	}{
		{"preparing, container created", api.TaskStatePreparing, "POST", "containers/create", true, false, container.StateCreated},
		{"starting, container not started", api.TaskStateStarting, "POST", "/start", false, false, container.StateCreated},
		{"starting, container started", api.TaskStateStarting, "POST", "/start", true, false, container.StateRunning},
		{"starting, not healthy", api.TaskStateStarting, "", "", false, true, container.StateRunning},
		{"running", api.TaskStateRunning, "", "", false, false, container.StateRunning},
	} {
		if tt.health && isPodman() { // runs no health checks
			continue
		}
		t.Run(tt.name, func(t *testing.T) {
			proxy := newEngineProxy(t)
			s := newSwarm(t, "-host", proxy.host)
			spec := s.service("killed", replicas, "sleep", "1h")
			if tt.health {
				spec.Task.GetContainer().Healthcheck = &api.HealthConfig{
					Test: []string{"CMD", "/testtask", "health", "/tmp/ok"}, Retries: 1000,
					Interval: gogotypes.DurationProto(200 * time.Millisecond), Timeout: gogotypes.DurationProto(10 * time.Second),
				}
			}
			spec.Task.Restart = &api.RestartPolicy{Condition: api.RestartOnNone}
			held := make(<-chan struct{})
			if tt.method != "" {
				held = proxy.hold(tt.method, tt.suffix, tt.answered)
			}
			service := s.create(spec)
			if tt.method != "" {
				for range replicas {
					select {
					case <-held:
					case <-time.After(patience):
						t.Fatal("the tasks do not come so far")
					}
				}
			}
			s.await(service, "tasks at that stage", func(tasks []*api.Task) bool {
				return len(in(tasks, func(task *api.Task) bool { return task.Status.State == tt.state })) == replicas
			})
			require.Eventually(t, func() bool {
				list := s.containers(service)
				for _, c := range list {
					if c.State != tt.status {
						return false
					}
				}
				return len(list) == replicas
			}, patience, 20*time.Millisecond)
			before, started := ids(s.containers(service)), s.processes(service)
			s.kill()
			proxy.callerIsGone()
			assert.Equal(t, before, ids(s.containers(service)), "while the node is away")

			begin := time.Now()
			s.start()
			if tt.health {
				for _, id := range before {
					s.inside(id, "/testtask", "write", "/tmp/ok", "1")
				}
			}
			s.awaitRunning(service, replicas)
			took := time.Since(begin)
			assert.Equal(t, before, ids(s.containers(service)), "the same containers and no others")
			if len(started) > 0 {
				assert.Equal(t, started, s.processes(service), "none is started again")
			}
			assert.Len(t, s.tasks.History(service), replicas, "the same tasks and no others")
			assert.Empty(t, s.ended(service))
			creates, starts := proxy.made("POST", "containers/create"), proxy.made("POST", "/start")
			assert.Len(t, creates, replicas)
			assert.Len(t, starts, replicas)
			assert.Empty(t, proxy.conflicts())
			t.Logf("killed in %v: %d tasks run %v after the node's start; in all %d creates, %d starts, %d conflicts",
				tt.state, replicas, took.Round(time.Millisecond), len(creates), len(starts), len(proxy.conflicts()))

			for _, id := range before {
				require.NoError(t, s.engine.ContainerKill(t.Context(), id, "KILL"))
			}
			s.await(service, "their ends, which the node has waited for", func([]*api.Task) bool { return len(s.ended(service)) == replicas })
			for _, task := range s.ended(service) {
				assert.EqualValues(t, 137, task.Status.GetContainer().ExitCode, describe(task))
			}
		})
	}
}

// inside runs a command in a container.
func (s *swarm) inside(id string, command ...string) {
	s.t.Helper()
	made, err := s.engine.ContainerExecCreate(s.t.Context(), id, container.ExecOptions{Cmd: command})
	require.NoError(s.t, err)
	require.NoError(s.t, s.engine.ContainerExecStart(s.t.Context(), made.ID, container.ExecStartOptions{}))
	require.Eventually(s.t, func() bool {
		answer, err := s.engine.ContainerExecInspect(s.t.Context(), made.ID)
		return err == nil && !answer.Running && answer.ExitCode == 0
	}, patience, 20*time.Millisecond)
}
