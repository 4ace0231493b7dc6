package main

import (
	"slices"
	"testing"
	"time"

	gogotypes "github.com/gogo/protobuf/types"
	"github.com/moby/swarmkit/v2/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A service is created, scaled, updated, updated in vain and removed: its tasks
// and the engine's containers are what they should be after each step.
func TestEngineNodeServiceLife(t *testing.T) {
	sharesEngine(t)
	s := newSwarm(t)
	begin := time.Now()
	step := func(what string) {
		t.Logf("%s after %v", what, time.Since(begin).Round(time.Millisecond))
		begin = time.Now()
	}

	service := s.create(s.service("life", 1, "sleep", "1h"))
	s.awaitRunning(service, 1)
	step("1 task runs")

	scale := func(replicas uint64) []*api.Task {
		s.update(service, func(spec *api.ServiceSpec) { spec.GetReplicated().Replicas = replicas })
		return s.awaitRunning(service, int(replicas))
	}
	scale(20)
	step("20 tasks run")
	require.Len(t, s.containers(service), 20)

	scale(3)
	s.await(service, "no task but 3", func(tasks []*api.Task) bool { return len(tasks) == 3 })
	s.awaitContainers(service, 3)
	step("3 tasks run, the 17 others are gone")
	require.Empty(t, s.ended(service), "tasks that have failed")

	s.update(service, func(spec *api.ServiceSpec) {
		spec.Task.GetContainer().Args = []string{"sleep", "2h"}
		spec.Update = &api.UpdateConfig{Parallelism: 1, FailureAction: api.UpdateConfig_ROLLBACK, Monitor: gogotypes.DurationProto(2 * time.Second)}
		spec.Rollback = &api.UpdateConfig{Parallelism: 3, Monitor: gogotypes.DurationProto(time.Second)}
	})
	s.awaitUpdate(service, api.UpdateStatus_COMPLETED)
	step("a rolling update is done")
	now := s.awaitRunning(service, 3)
	for _, task := range now {
		assert.Equal(t, []string{"sleep", "2h"}, task.Spec.GetContainer().Args)
		assert.Contains(t, s.containers(service)[task.ID].Command, "sleep 2h")
	}
	before := s.await(service, "3 tasks shut down", func(tasks []*api.Task) bool { return len(in(tasks, shutDown)) == 3 })
	for _, task := range in(before, shutDown) {
		assert.Equal(t, []string{"sleep", "1h"}, task.Spec.GetContainer().Args)
		assert.Equal(t, "exited", s.containers(service)[task.ID].State)
	}
	require.Empty(t, s.ended(service), "tasks that have failed")

	s.update(service, func(spec *api.ServiceSpec) { spec.Task.GetContainer().Args = []string{"exit", "1"} })
	s.awaitUpdate(service, api.UpdateStatus_ROLLBACK_COMPLETED)
	step("a failed update is rolled back")
	for _, task := range s.awaitRunning(service, 3) {
		assert.Equal(t, []string{"sleep", "2h"}, task.Spec.GetContainer().Args)
	}
	failed := s.ended(service)
	require.NotEmpty(t, failed)
	for _, task := range failed {
		assert.Equal(t, []string{"exit", "1"}, task.Spec.GetContainer().Args)
		assert.Equal(t, api.TaskStateFailed, task.Status.State)
		assert.Equal(t, "task: non-zero exit (1)", task.Status.Err)
		assert.EqualValues(t, 1, task.Status.GetContainer().ExitCode)
	}

	s.remove(service)
	step("the service is gone")
}

func shutDown(task *api.Task) bool { return task.Status.State == api.TaskStateShutdown }

// ownEnds are the states of tasks that were not asked to end.
var ownEnds = []api.TaskState{api.TaskStateCompleted, api.TaskStateFailed, api.TaskStateRejected, api.TaskStateOrphaned}

// ended is the last version of each task, removed ones too, that ended of itself.
func (s *swarm) ended(service string) []*api.Task {
	var tasks []*api.Task
	for _, versions := range s.tasks.History(service) {
		last := versions[len(versions)-1]
		if slices.Contains(ownEnds, last.Status.State) {
			tasks = append(tasks, last)
		}
	}
	return tasks
}

// awaitUpdate waits until a service's update has come to an end, and expects which.
func (s *swarm) awaitUpdate(service string, want api.UpdateStatus_UpdateState) {
	s.t.Helper()
	over := []api.UpdateStatus_UpdateState{api.UpdateStatus_COMPLETED, api.UpdateStatus_PAUSED,
		api.UpdateStatus_ROLLBACK_COMPLETED, api.UpdateStatus_ROLLBACK_PAUSED}
	var status *api.UpdateStatus
	require.Eventually(s.t, func() bool {
		status = s.get(service).UpdateStatus
		return status != nil && slices.Contains(over, status.State)
	}, patience, 50*time.Millisecond)
	require.Equal(s.t, want, status.State, status.Message)
}

// Tasks end with their exit codes, and are started again as their service's
// restart policy has it.
func TestEngineNodeRestartPolicies(t *testing.T) {
	sharesEngine(t)
	s := newSwarm(t)
	tests := []struct {
		name      string
		condition api.RestartPolicy_RestartCondition
		attempts  uint64
		code      string
		tasks     int // 0: they are started again for ever
		state     api.TaskState
		exitCode  int32
		err       string
	}{
		{"none-0", api.RestartOnNone, 0, "0", 1, api.TaskStateCompleted, 0, ""},
		{"none-3", api.RestartOnNone, 0, "3", 1, api.TaskStateFailed, 3, "task: non-zero exit (3)"},
		{"on-failure-0", api.RestartOnFailure, 2, "0", 1, api.TaskStateCompleted, 0, ""},
		{"on-failure-3", api.RestartOnFailure, 2, "3", 3, api.TaskStateFailed, 3, "task: non-zero exit (3)"},
		{"any-0", api.RestartOnAny, 0, "0", 0, api.TaskStateCompleted, 0, ""},
		{"any-3", api.RestartOnAny, 0, "3", 0, api.TaskStateFailed, 3, "task: non-zero exit (3)"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			begin := time.Now()
			spec := s.service(tt.name, 1, "exit", tt.code)
			spec.Task.Restart = &api.RestartPolicy{Condition: tt.condition, MaxAttempts: tt.attempts, Delay: gogotypes.DurationProto(100 * time.Millisecond)}
			service := s.create(spec)
			if tt.tasks == 0 {
				s.await(service, "4 tasks that have ended", func([]*api.Task) bool { return len(s.ended(service)) >= 4 })
			} else {
				// The swarm gives a task up and makes its successor in one step: with all
				// of them given up there is none to come.
				tasks := s.await(service, "all tasks given up", func(tasks []*api.Task) bool {
					return len(tasks) >= tt.tasks && len(in(tasks, wantedToRun)) == 0 && len(s.ended(service)) == len(tasks)
				})
				require.Len(t, tasks, tt.tasks)
				require.Len(t, s.containers(service), tt.tasks)
			}
			ended := s.ended(service)
			for _, task := range ended {
				assert.Equal(t, tt.state, task.Status.State)
				assert.Equal(t, tt.err, task.Status.Err)
				assert.Equal(t, tt.exitCode, task.Status.GetContainer().ExitCode)
			}
			t.Logf("%d tasks %v with exit code %d within %v", len(ended), tt.state, tt.exitCode, time.Since(begin).Round(time.Millisecond))
			s.remove(service)
		})
	}
}

// The ports that a task publishes on its host are in its status, those that the
// engine chose too.
func TestEngineNodeHostPorts(t *testing.T) {
	sharesEngine(t)
	s := newSwarm(t)
	spec := s.service("ports", 1, "serve", ":80")
	spec.Endpoint = &api.EndpointSpec{Ports: []*api.PortConfig{
		{Protocol: api.ProtocolUDP, TargetPort: 53, PublishedPort: 18053, PublishMode: api.PublishModeHost},
		{Protocol: api.ProtocolTCP, TargetPort: 80, PublishedPort: 18080, PublishMode: api.PublishModeHost},
		{Protocol: api.ProtocolTCP, TargetPort: 81, PublishMode: api.PublishModeHost},
	}}
	service := s.create(spec)
	tasks := s.await(service, "a running task with ports", func(tasks []*api.Task) bool {
		return len(tasks) == 1 && running(tasks[0]) && tasks[0].Status.PortStatus != nil
	})
	ports := tasks[0].Status.PortStatus.Ports
	require.Len(t, ports, 3)
	t.Log("ports: ", ports)
	assert.Equal(t, &api.PortConfig{Protocol: api.ProtocolUDP, TargetPort: 53, PublishedPort: 18053, PublishMode: api.PublishModeHost}, ports[0])
	assert.Equal(t, &api.PortConfig{Protocol: api.ProtocolTCP, TargetPort: 80, PublishedPort: 18080, PublishMode: api.PublishModeHost}, ports[1])
	assert.NotZero(t, ports[2].PublishedPort)
	ports[2].PublishedPort = 0
	assert.Equal(t, &api.PortConfig{Protocol: api.ProtocolTCP, TargetPort: 81, PublishMode: api.PublishModeHost}, ports[2])
}
