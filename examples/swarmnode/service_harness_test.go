package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/api/types/registry"
	"github.com/moby/swarmkit/v2/api"
	"github.com/stretchr/testify/require"

	"github.com/dockerexec/dockerexec/examples/control"
)

// service is the spec of a service that runs the test image's program.
func (s *swarm) service(name string, replicas uint64, args ...string) *api.ServiceSpec {
	s.t.Helper()
	auth, err := registry.EncodeAuthConfig(registry.AuthConfig{
		Username:      fromHarness(s.t, "DOCKEREXEC_TEST_USER"),
		Password:      fromHarness(s.t, "DOCKEREXEC_TEST_PASSWORD"),
		ServerAddress: fromHarness(s.t, "DOCKEREXEC_TEST_REGISTRY"),
	})
	require.NoError(s.t, err)
	return &api.ServiceSpec{
		Annotations: api.Annotations{Name: name},
		Task: api.TaskSpec{Runtime: &api.TaskSpec_Container{Container: &api.ContainerSpec{
			Image:       fromHarness(s.t, "DOCKEREXEC_TEST_IMAGE"),
			Args:        args,
			PullOptions: &api.ContainerSpec_PullOptions{RegistryAuth: auth},
		}}},
		Mode: &api.ServiceSpec_Replicated{Replicated: &api.ReplicatedService{Replicas: replicas}},
	}
}

// create creates a service and returns its ID.
func (s *swarm) create(spec *api.ServiceSpec) string {
	s.t.Helper()
	answer, err := s.api.CreateService(s.t.Context(), &api.CreateServiceRequest{Spec: spec})
	require.NoError(s.t, err)
	return answer.Service.ID
}

// update changes a service.
func (s *swarm) update(service string, change func(*api.ServiceSpec)) {
	s.t.Helper()
	now := s.get(service)
	change(&now.Spec)
	_, err := s.api.UpdateService(s.t.Context(), &api.UpdateServiceRequest{
		ServiceID: service, ServiceVersion: &now.Meta.Version, Spec: &now.Spec,
	})
	require.NoError(s.t, err)
}

func (s *swarm) get(service string) *api.Service {
	s.t.Helper()
	answer, err := s.api.GetService(s.t.Context(), &api.GetServiceRequest{ServiceID: service})
	require.NoError(s.t, err)
	return answer.Service
}

// remove removes a service and waits until its tasks and containers are gone.
func (s *swarm) remove(service string) {
	s.t.Helper()
	s.removeOnly(service)
	s.await(service, "no task", noTasks)
	s.awaitContainers(service, 0)
}

// removeOnly removes a service; its tasks and containers end later.
func (s *swarm) removeOnly(service string) {
	s.t.Helper()
	_, err := s.api.RemoveService(context.Background(), &api.RemoveServiceRequest{ServiceID: service})
	require.NoError(s.t, err)
}

// patience is how long a service may take to get where it should be.
const patience = 2 * time.Minute

// await waits until reached is true for a service's tasks, in the order in which
// they were made, and returns these.
func (s *swarm) await(service, what string, reached func([]*api.Task) bool) []*api.Task {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	tasks, err := s.tasks.Await(ctx, service, reached)
	if err != nil {
		for _, task := range tasks {
			s.t.Logf("%s: %s", task.ID, describe(task))
		}
	}
	require.NoError(s.t, err, "want %s", what)
	return tasks
}

// awaitRunning waits until a service has as many running tasks, and no others that
// should run, and returns them.
func (s *swarm) awaitRunning(service string, replicas int) []*api.Task {
	s.t.Helper()
	tasks := s.await(service, fmt.Sprint(replicas, " running tasks"), control.AllRun(replicas))
	return in(tasks, running)
}

func in(tasks []*api.Task, picks func(*api.Task) bool) []*api.Task {
	var picked []*api.Task
	for _, task := range tasks {
		if picks(task) {
			picked = append(picked, task)
		}
	}
	return picked
}

func noTasks(tasks []*api.Task) bool  { return len(tasks) == 0 }
func running(task *api.Task) bool     { return task.Status.State == api.TaskStateRunning }
func wantedToRun(task *api.Task) bool { return task.DesiredState <= api.TaskStateRunning }

// describe puts a task's state into words: "slot 1 FAILED, exit code 3, wanted SHUTDOWN: task: non-zero exit (3)".
func describe(task *api.Task) string {
	text := fmt.Sprintf("slot %d %v", task.Slot, task.Status.State)
	if c := task.Status.GetContainer(); c != nil && task.Status.State > api.TaskStateRunning {
		text += fmt.Sprintf(", exit code %d", c.ExitCode)
	}
	text += fmt.Sprintf(", wanted %v", task.DesiredState)
	if task.Status.Err != "" {
		text += ": " + task.Status.Err
	}
	return text
}

// containers are those of a service's tasks on the engine, by the ID of the task.
func (s *swarm) containers(service string) map[string]container.Summary {
	s.t.Helper()
	list, err := s.engine.ContainerList(context.Background(), container.ListOptions{All: true, Filters: ofService(service)})
	require.NoError(s.t, err)
	byTask := map[string]container.Summary{}
	for _, c := range list {
		byTask[c.Labels["com.docker.swarm.task.id"]] = c
	}
	require.Len(s.t, byTask, len(list), "two containers of one task: %v", list)
	return byTask
}

// awaitContainers waits until a service has as many containers: the swarm forgets a
// task before its container is removed.
func (s *swarm) awaitContainers(service string, want int) {
	s.t.Helper()
	for late := time.Now().Add(patience); len(s.containers(service)) != want; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(late) {
			require.Len(s.t, s.containers(service), want)
		}
	}
}

// awaitNoContainers waits until the engine has no container of the node.
func (s *swarm) awaitNoContainers() {
	s.t.Helper()
	if s.nodeID == "" {
		return
	}
	for late := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		left, err := s.leftContainers()
		require.NoError(s.t, err)
		if len(left) == 0 {
			return
		}
		require.True(s.t, time.Now().Before(late), "containers that stay: %v", left)
	}
}

// networksMade are the networks of this swarm that an executor has made.
func (s *swarm) networksMade() []network.Summary {
	s.t.Helper()
	known, err := s.api.ListNetworks(context.Background(), &api.ListNetworksRequest{})
	require.NoError(s.t, err)
	list, err := s.engine.NetworkList(context.Background(), network.ListOptions{Filters: ofExecutors()})
	require.NoError(s.t, err)
	return slices.DeleteFunc(list, func(made network.Summary) bool {
		return !slices.ContainsFunc(known.Networks, func(n *api.Network) bool { return n.Spec.Annotations.Name == made.Name })
	})
}

// awaitNoNetworks waits until the engine has no network that the executor made.
func (s *swarm) awaitNoNetworks() {
	s.t.Helper()
	for late := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		left := s.networksMade()
		if len(left) == 0 {
			return
		}
		require.True(s.t, time.Now().Before(late), "networks that stay: %v", left)
	}
}
