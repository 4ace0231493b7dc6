// Command swarmdemo shows a service's life on a swarm of one node: it starts
// swarmnode, drives its control API, prints a line for each change of a task's
// state, and checks each step. It exits with 1 if a check fails.
//
// It takes engine, registry and image from the DOCKEREXEC_TEST_… variables that
// hack/with-engine.sh sets.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/registry"
	engineapi "github.com/docker/docker/client"
	"github.com/dockerexec/dockerexec/examples/control"
	gogotypes "github.com/gogo/protobuf/types"
	"github.com/moby/swarmkit/v2/api"
	"github.com/moby/swarmkit/v2/log"
	"github.com/sirupsen/logrus"
)

// patience is how long the whole story may take; it takes a fraction of that.
const patience = 3 * time.Minute

func main() {
	binary := flag.String("node", "swarmnode", "the built swarmnode")
	dir := flag.String("dir", ".", "empty folder for the node's state, socket and log")
	flag.Parse()
	log.L.Logger.SetLevel(logrus.WarnLevel) // SwarmKit has gRPC's lines there too

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := play(ctx, *binary, *dir); err != nil {
		fmt.Fprintln(os.Stderr, "\nswarmdemo FAILED:", err)
		os.Exit(1)
	}
}

// demo is the running node and what is known of its tasks.
type demo struct {
	engine  *engineapi.Client
	swarm   api.ControlClient
	logs    api.LogsClient
	tasks   *control.Tasks
	service string // the ID
	begin   time.Time
	states  map[string]api.TaskState // as printed
}

func play(ctx context.Context, binary, dir string) (err error) {
	heading("1. A swarm of one node")
	engine, err := engineapi.NewClientWithOpts(engineapi.WithHost(os.Getenv("DOCKEREXEC_TEST_HOST")), engineapi.WithAPIVersionNegotiation())
	if err != nil {
		return err
	}
	defer engine.Close()
	socket := filepath.Join(dir, "control")
	stopNode, err := startNode(binary, dir, socket)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stopNode()) }()
	conn, err := control.Dial(socket)
	if err != nil {
		return err
	}
	defer conn.Close()
	d := &demo{engine: engine, swarm: api.NewControlClient(conn), logs: api.NewLogsClient(conn),
		tasks: control.NewTasks(), begin: time.Now(), states: map[string]api.TaskState{}}

	watching, unwatch := context.WithCancel(context.WithoutCancel(ctx))
	defer unwatch()
	ended, err := d.tasks.Watch(watching, conn, d.print)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	go func() { cancel(fmt.Errorf("the watch of the tasks: %w", <-ended)) }()
	defer func() {
		if err == nil {
			return
		}
		if cause := context.Cause(ctx); ctx.Err() != nil && !errors.Is(cause, ctx.Err()) {
			err = errors.Join(err, cause)
		}
		err = errors.Join(err, d.remove(context.WithoutCancel(ctx))) // leave nothing on the engine
	}()
	for _, step := range []func(context.Context) error{d.create, d.showLogs, d.kill, d.scale, d.update, d.remove} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

func heading(text string) { fmt.Printf("\n== %s\n", text) }

func checked(format string, args ...any) { fmt.Printf("  ok: "+format+"\n", args...) }

// startNode returns once the node is ready; stop ends it and its output is in a file.
func startNode(binary, dir, socket string) (stop func() error, err error) {
	output, err := os.Create(filepath.Join(dir, "node.log"))
	if err != nil {
		return nil, err
	}
	node := exec.Command(binary, "-state-dir", filepath.Join(dir, "state"), "-control", socket, "-listen", "127.0.0.1:4242",
		"-hostname", "demo-node", "-host", os.Getenv("DOCKEREXEC_TEST_HOST"))
	node.Stderr = output
	out, err := node.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := node.Start(); err != nil {
		return nil, err
	}
	line := make([]byte, 4096)
	n, err := out.Read(line)
	if err != nil {
		text, _ := os.ReadFile(output.Name())
		return nil, fmt.Errorf("the node does not get ready: %w, its log:\n%s", node.Wait(), text)
	}
	fmt.Print(string(line[:n]))
	return func() error {
		defer output.Close()
		if err := node.Process.Signal(syscall.SIGTERM); err != nil {
			return err
		}
		if err := node.Wait(); err != nil {
			return fmt.Errorf("the node: %w", err)
		}
		checked("the node has ended cleanly")
		return nil
	}, nil
}

// print prints a line if the task's state has changed.
func (d *demo) print(task *api.Task) {
	if state, known := d.states[task.ID]; known && state == task.Status.State {
		return
	}
	d.states[task.ID] = task.Status.State
	text := ""
	if c := task.Status.GetContainer(); c != nil && c.ContainerID != "" && task.Status.State > api.TaskStateRunning {
		text = fmt.Sprintf(" exit code %d", c.ExitCode)
	}
	if task.Status.Err != "" {
		text += ": " + task.Status.Err
	}
	fmt.Printf("%6.2fs  %s  %v%s\n", time.Since(d.begin).Seconds(), name(task), task.Status.State, text)
}

// name is how the demo calls a task: service, slot and the begin of its ID.
func name(task *api.Task) string {
	return fmt.Sprintf("%s.%d.%s", task.ServiceAnnotations.Name, task.Slot, task.ID[:5])
}

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
