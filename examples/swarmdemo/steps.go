package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/registry"
	"github.com/dockerexec/dockerexec/examples/control"
	gogotypes "github.com/gogo/protobuf/types"
	"github.com/moby/swarmkit/v2/api"
)

// create makes the service of three tasks.
func (d *demo) create(ctx context.Context) error {
	heading("2. A service of three tasks, its image pulled with credentials")
	image := os.Getenv("DOCKEREXEC_TEST_IMAGE")
	if _, err := d.engine.ImageInspect(ctx, image); !cerrdefs.IsNotFound(err) {
		return fmt.Errorf("image %s should not be on the engine yet: %w", image, err)
	}
	auth, err := registry.EncodeAuthConfig(registry.AuthConfig{
		Username:      os.Getenv("DOCKEREXEC_TEST_USER"),
		Password:      os.Getenv("DOCKEREXEC_TEST_PASSWORD"),
		ServerAddress: os.Getenv("DOCKEREXEC_TEST_REGISTRY"),
	})
	if err != nil {
		return err
	}
	answer, err := d.swarm.CreateService(ctx, &api.CreateServiceRequest{Spec: &api.ServiceSpec{
		Annotations: api.Annotations{Name: "web"},
		Mode:        &api.ServiceSpec_Replicated{Replicated: &api.ReplicatedService{Replicas: 3}},
		Task: api.TaskSpec{
			Runtime: &api.TaskSpec_Container{Container: &api.ContainerSpec{
				Image:       image,
				Args:        []string{"env", "--", "sleep", "1h"},
				Env:         []string{"HELLO=version 1 of {{.Service.Name}}.{{.Task.Slot}} on {{.Node.Hostname}}"},
				PullOptions: &api.ContainerSpec_PullOptions{RegistryAuth: auth},
			}},
			Restart: &api.RestartPolicy{Condition: api.RestartOnAny, Delay: gogotypes.DurationProto(time.Second)},
		},
		Update: &api.UpdateConfig{Parallelism: 1, Monitor: gogotypes.DurationProto(time.Second)},
	}})
	if err != nil {
		return err
	}
	d.service = answer.Service.ID
	if err := d.run(ctx, 3); err != nil {
		return err
	}
	_, err = d.engine.ImageInspect(ctx, image)
	return err
}

// run waits until the service has as many running tasks, each in its container.
func (d *demo) run(ctx context.Context, replicas int) error {
	all, rejected := control.AllRun(replicas), ""
	tasks, err := d.tasks.Await(ctx, d.service, func(tasks []*api.Task) bool {
		for _, task := range tasks {
			if task.Status.State == api.TaskStateRejected {
				rejected = name(task)
			}
		}
		return rejected != "" || all(tasks)
	})
	if err != nil {
		return fmt.Errorf("waiting for %d running tasks: %w", replicas, err)
	}
	if rejected != "" {
		return fmt.Errorf("task %s is rejected", rejected)
	}
	running, err := d.containers(ctx, false)
	if err != nil {
		return err
	}
	for _, task := range tasks {
		if task.Status.State == api.TaskStateRunning && running[task.ID] == "" {
			return fmt.Errorf("task %s has no running container", name(task))
		}
	}
	if len(running) != replicas {
		return fmt.Errorf("%d containers run instead of %d", len(running), replicas)
	}
	checked("%d tasks run, and as many containers", replicas)
	return nil
}

// containers are the IDs of the service's containers by the ID of their task:
// those that run, or all.
func (d *demo) containers(ctx context.Context, all bool) (map[string]string, error) {
	list, err := d.engine.ContainerList(ctx, container.ListOptions{All: all,
		Filters: filters.NewArgs(filters.Arg("label", "com.docker.swarm.service.id="+d.service))})
	ids := map[string]string{}
	for _, c := range list {
		ids[c.Labels["com.docker.swarm.task.id"]] = c.ID
	}
	return ids, err
}

// showLogs prints what the tasks have logged, through the manager.
func (d *demo) showLogs(ctx context.Context) error {
	heading("3. Their log, through the node's log subscription")
	lines, err := d.logs.SubscribeLogs(ctx, &api.SubscribeLogsRequest{
		Selector: &api.LogSelector{ServiceIDs: []string{d.service}},
		Options:  &api.LogSubscriptionOptions{},
	})
	if err != nil {
		return err
	}
	want := map[string]bool{}
	for slot := 1; slot <= 3; slot++ {
		want[fmt.Sprintf("HELLO=version 1 of web.%d on demo-node", slot)] = true
	}
	for {
		answer, err := lines.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		for _, m := range answer.Messages {
			text := strings.TrimSpace(string(m.Data))
			fmt.Printf("  %s | %s\n", m.Context.TaskID[:5], text)
			delete(want, text)
		}
	}
	if len(want) > 0 {
		return fmt.Errorf("the log lacks %v", want)
	}
	checked("each task's environment, with its template filled in")
	return nil
}

// kill kills one container behind the swarm's back.
func (d *demo) kill(ctx context.Context) error {
	heading("4. One container is killed from outside")
	running, err := d.containers(ctx, false)
	if err != nil {
		return err
	}
	var victim string
	for victim = range running {
		break
	}
	if err := d.engine.ContainerKill(ctx, running[victim], "KILL"); err != nil {
		return err
	}
	_, err = d.tasks.Await(ctx, d.service, func(tasks []*api.Task) bool {
		for _, task := range tasks {
			if task.ID == victim && task.Status.State == api.TaskStateFailed {
				return task.Status.GetContainer().ExitCode == 137
			}
		}
		return false
	})
	if err != nil {
		return fmt.Errorf("waiting for task %.5s to fail with exit code 137: %w", victim, err)
	}
	checked("task %.5s has failed with exit code 137", victim)
	return d.run(ctx, 3)
}

// scale makes them five.
func (d *demo) scale(ctx context.Context) error {
	heading("5. Scaled to five")
	err := d.change(ctx, func(spec *api.ServiceSpec) { spec.GetReplicated().Replicas = 5 })
	if err != nil {
		return err
	}
	return d.run(ctx, 5)
}

// change changes the service's spec.
func (d *demo) change(ctx context.Context, change func(*api.ServiceSpec)) error {
	now, err := d.swarm.GetService(ctx, &api.GetServiceRequest{ServiceID: d.service})
	if err != nil {
		return err
	}
	change(&now.Service.Spec)
	_, err = d.swarm.UpdateService(ctx, &api.UpdateServiceRequest{
		ServiceID: d.service, ServiceVersion: &now.Service.Meta.Version, Spec: &now.Service.Spec,
	})
	return err
}

// update puts a new version in place, one task after the other.
func (d *demo) update(ctx context.Context) error {
	heading("6. A rolling update, two tasks at a time")
	const env = "HELLO=version 2"
	err := d.change(ctx, func(spec *api.ServiceSpec) {
		spec.Task.GetContainer().Env = []string{env}
		spec.Update.Parallelism = 2
	})
	if err != nil {
		return err
	}
	least := 5
	_, err = d.tasks.Await(ctx, d.service, func(tasks []*api.Task) bool {
		running, updated := 0, 0
		for _, task := range tasks {
			if task.Status.State != api.TaskStateRunning {
				continue
			}
			running++
			if task.Spec.GetContainer().Env[0] == env {
				updated++
			}
		}
		least = min(least, running)
		return updated == 5
	})
	if err != nil {
		return fmt.Errorf("waiting for 5 updated tasks: %w", err)
	}
	if least < 3 {
		return fmt.Errorf("only %d tasks ran for a while", least)
	}
	checked("all tasks are of version 2, and never fewer than %d ran", least)
	return d.run(ctx, 5)
}

// remove removes the service and waits until nothing of it is left.
func (d *demo) remove(ctx context.Context) error {
	if d.service == "" {
		return nil
	}
	heading("7. Removed")
	ctx, cancel := context.WithTimeout(ctx, patience/2)
	defer cancel()
	if _, err := d.swarm.RemoveService(ctx, &api.RemoveServiceRequest{ServiceID: d.service}); err != nil {
		return err
	}
	if _, err := d.tasks.Await(ctx, d.service, func(tasks []*api.Task) bool { return len(tasks) == 0 }); err != nil {
		return fmt.Errorf("waiting for the tasks to go: %w", err)
	}
	for { // the swarm forgets a task before its container is removed
		left, err := d.containers(ctx, true)
		if err != nil {
			return err
		}
		if len(left) == 0 {
			checked("no task and no container is left")
			return nil
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("containers that are left: %v: %w", left, ctx.Err())
		}
	}
}
