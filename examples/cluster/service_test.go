package cluster

import (
	"context"
	"fmt"
	"time"

	"github.com/docker/docker/api/types/registry"
	gogotypes "github.com/gogo/protobuf/types"
	"github.com/moby/swarmkit/v2/api"
	"github.com/stretchr/testify/require"
)

// service is the spec of a service that runs the test image's program. Each host has the image
// in its own registry.
func (c *cluster) service(name string, replicas uint64, args ...string) *api.ServiceSpec {
	c.t.Helper()
	auth, err := registry.EncodeAuthConfig(registry.AuthConfig{
		Username:      c.image["DOCKEREXEC_TEST_USER"],
		Password:      c.image["DOCKEREXEC_TEST_PASSWORD"],
		ServerAddress: c.image["DOCKEREXEC_TEST_REGISTRY"],
	})
	require.NoError(c.t, err)
	return &api.ServiceSpec{
		Annotations: api.Annotations{Name: name},
		Task: api.TaskSpec{
			Runtime: &api.TaskSpec_Container{Container: &api.ContainerSpec{
				Image: c.image["DOCKEREXEC_TEST_IMAGE"], Args: args,
				PullOptions: &api.ContainerSpec_PullOptions{RegistryAuth: auth},
			}},
			Restart: &api.RestartPolicy{Condition: api.RestartOnAny, Delay: gogotypes.DurationProto(200 * time.Millisecond)},
		},
		Mode: &api.ServiceSpec_Replicated{Replicated: &api.ReplicatedService{Replicas: replicas}},
		// By default, SwarmKit pauses an update if a new task ends at once. One that was given to a lost host does.
		Update: &api.UpdateConfig{Parallelism: 3, FailureAction: api.UpdateConfig_CONTINUE, Monitor: gogotypes.DurationProto(100 * time.Millisecond)},
	}
}

// create creates a service and returns its ID.
func (c *cluster) create(spec *api.ServiceSpec) string {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), patience)
	defer cancel()
	answer, err := c.seat.swarm.CreateService(ctx, &api.CreateServiceRequest{Spec: spec})
	require.NoError(c.t, err)
	return answer.Service.ID
}

// update changes a service.
func (c *cluster) update(service string, change func(*api.ServiceSpec)) {
	c.t.Helper()
	c.until("the update of a service", func(ctx context.Context) string {
		now, err := c.seat.swarm.GetService(ctx, &api.GetServiceRequest{ServiceID: service})
		if err != nil {
			return err.Error()
		}
		change(&now.Service.Spec)
		_, err = c.seat.swarm.UpdateService(ctx, &api.UpdateServiceRequest{
			ServiceID: service, ServiceVersion: &now.Service.Meta.Version, Spec: &now.Service.Spec,
		})
		return text(err)
	})
}

// remove removes a service, and waits until its tasks and containers are gone.
func (c *cluster) remove(service string) {
	c.t.Helper()
	c.until("the removal of a service", func(ctx context.Context) string {
		_, err := c.seat.swarm.RemoveService(ctx, &api.RemoveServiceRequest{ServiceID: service})
		return text(err)
	})
	c.await(service, "no task", func(tasks []*api.Task) string {
		if len(tasks) > 0 {
			return fmt.Sprint(len(tasks), " are left")
		}
		return ""
	})
	c.holds()
}

// tasks are those of a service, or with an empty ID all.
func (c *cluster) tasks(ctx context.Context, service string) ([]*api.Task, error) {
	filters := &api.ListTasksRequest_Filters{}
	if service != "" {
		filters.ServiceIDs = []string{service}
	}
	answer, err := c.seat.swarm.ListTasks(ctx, &api.ListTasksRequest{Filters: filters})
	if err != nil {
		return nil, err
	}
	for _, task := range answer.Tasks {
		if made, err := gogotypes.TimestampFromProto(task.Meta.CreatedAt); err == nil {
			c.made[task.ID] = made
		}
	}
	return answer.Tasks, nil
}

// await waits until nothing is wrong any more with a service's tasks.
func (c *cluster) await(service, what string, wrong func([]*api.Task) string) {
	c.t.Helper()
	c.until(what, func(ctx context.Context) string {
		tasks, err := c.tasks(ctx, service)
		if err != nil {
			return err.Error()
		}
		return wrong(tasks)
	})
}

// awaitRunning waits until a service has as many running tasks, of its newest spec, and no
// other that should run. Those that the swarm has given up do not count. With hosts, all must
// run on these. It returns how many run on each host.
func (c *cluster) awaitRunning(service string, replicas int, on ...*host) (perHost map[string]int) {
	c.t.Helper()
	c.until(fmt.Sprint(replicas, " running tasks"), func(ctx context.Context) string {
		now, err := c.seat.swarm.GetService(ctx, &api.GetServiceRequest{ServiceID: service})
		if err != nil {
			return err.Error()
		}
		tasks, err := c.tasks(ctx, service)
		if err != nil {
			return err.Error()
		}
		var version *api.Version
		perHost, version = map[string]int{}, now.Service.SpecVersion
		n := 0
		for _, task := range tasks {
			if task.DesiredState > api.TaskStateRunning {
				continue
			}
			h := c.hostOf(task)
			if task.Status.State != api.TaskStateRunning || h == nil || task.SpecVersion == nil || task.SpecVersion.Index != version.Index {
				return describe(task)
			}
			if len(on) > 0 && !contains(on, h) {
				return "runs on host " + h.name + ": " + describe(task)
			}
			perHost[h.name]++
			n++
		}
		if n != replicas {
			return fmt.Sprint(n, " run")
		}
		return ""
	})
	return perHost
}

// awaitAll waits until a service runs on all hosts, and says where.
func (c *cluster) awaitAll(service string, replicas int) {
	c.t.Helper()
	perHost := c.awaitRunning(service, replicas)
	require.Len(c.t, perHost, len(c.hosts), "hosts with tasks: %v", perHost)
	c.say("%d tasks run: %v", replicas, perHost)
}

// spread has the service web run on all hosts again: tasks do not move by themselves.
func (c *cluster) spread() {
	c.t.Helper()
	if perHost := c.awaitRunning(c.web, 12); perHost["one"] == 4 && perHost["two"] == 4 {
		return
	}
	c.update(c.web, func(spec *api.ServiceSpec) { spec.Task.ForceUpdate++ })
	c.awaitAll(c.web, 12)
}

// hostOf is the host on whose node a task is; nil: on none that is known.
func (c *cluster) hostOf(task *api.Task) *host {
	for _, h := range c.hosts {
		if h.id == task.NodeID && h.id != "" {
			return h
		}
	}
	return nil
}

func contains(hosts []*host, h *host) bool {
	for _, one := range hosts {
		if one == h {
			return true
		}
	}
	return false
}

// describe puts a task's state into words.
func describe(task *api.Task) string {
	line := fmt.Sprintf("task %s, slot %d of %s, %v", task.ID, task.Slot, task.ServiceAnnotations.Name, task.Status.State)
	if code := exitCode(task); code != 0 {
		line += fmt.Sprintf(", exit code %d", code)
	}
	line += fmt.Sprintf(", wanted %v", task.DesiredState)
	if task.Status.Err != "" {
		line += ": " + task.Status.Err
	}
	return line
}

func exitCode(task *api.Task) int {
	if status := task.Status.GetContainer(); status != nil {
		return int(status.ExitCode)
	}
	return 0
}
