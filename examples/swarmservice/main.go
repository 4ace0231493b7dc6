// Command swarmservice makes a service on a SwarmKit node, over the node's control
// socket, and waits until its tasks run. It also removes services, and prints the
// tokens with which other nodes join. Arguments after the flags are those of the
// image's entrypoint. Run it with -h for its flags.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"

	"github.com/dockerexec/dockerexec/examples/control"
	"github.com/moby/swarmkit/v2/api"
	"google.golang.org/grpc"
)

func main() {
	socket := flag.String("control", "/run/swarmnode.sock", "control socket of the node, which must be a manager")
	name := flag.String("name", "", "name of the service")
	image := flag.String("image", "", "image of its tasks")
	replicas := flag.Uint64("replicas", 1, "number of its tasks")
	remove := flag.Bool("remove", false, "remove the service")
	tokens := flag.Bool("tokens", false, "print the tokens for other nodes")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	conn, err := control.Dial(*socket)
	if err != nil {
		fail(err)
	}
	defer conn.Close()
	switch {
	case *tokens:
		err = printTokens(ctx, conn)
	case *name == "" || *image == "" && !*remove:
		err = errors.New("-tokens, or -name and one of -image and -remove are needed")
	case *remove:
		err = removeService(ctx, conn, *name)
	default:
		err = createService(ctx, conn, *name, *image, flag.Args(), *replicas)
	}
	if err != nil {
		fail(err)
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "swarmservice:", err)
	os.Exit(1)
}

func createService(ctx context.Context, conn *grpc.ClientConn, name, image string, args []string, replicas uint64) error {
	answer, err := api.NewControlClient(conn).CreateService(ctx, &api.CreateServiceRequest{Spec: &api.ServiceSpec{
		Annotations: api.Annotations{Name: name},
		Mode:        &api.ServiceSpec_Replicated{Replicated: &api.ReplicatedService{Replicas: replicas}},
		Task: api.TaskSpec{Runtime: &api.TaskSpec_Container{Container: &api.ContainerSpec{
			Image: image, Args: args,
		}}},
	}})
	if err != nil {
		return err
	}
	fmt.Println("service", answer.Service.ID)

	tasks := control.NewTasks()
	ended, err := tasks.Watch(ctx, conn, func(task *api.Task) {
		if task.ServiceID == answer.Service.ID {
			fmt.Println("task", task.ID, task.Status.State, task.Status.Err)
		}
	})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	go func() { cancel(<-ended) }()
	if _, err := tasks.Await(ctx, answer.Service.ID, control.AllRun(int(replicas))); err != nil {
		return context.Cause(ctx)
	}
	return nil
}

func removeService(ctx context.Context, conn *grpc.ClientConn, name string) error {
	swarm := api.NewControlClient(conn)
	list, err := swarm.ListServices(ctx, &api.ListServicesRequest{
		Filters: &api.ListServicesRequest_Filters{Names: []string{name}},
	})
	if err != nil {
		return err
	}
	if len(list.Services) == 0 {
		return fmt.Errorf("there is no service %s", name)
	}
	_, err = swarm.RemoveService(ctx, &api.RemoveServiceRequest{ServiceID: list.Services[0].ID})
	return err
}

func printTokens(ctx context.Context, conn *grpc.ClientConn) error {
	list, err := api.NewControlClient(conn).ListClusters(ctx, &api.ListClustersRequest{})
	if err != nil {
		return err
	}
	for _, cluster := range list.Clusters {
		fmt.Println("worker ", cluster.RootCA.JoinTokens.Worker)
		fmt.Println("manager", cluster.RootCA.JoinTokens.Manager)
	}
	return nil
}
