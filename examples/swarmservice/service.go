package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"

	gogotypes "github.com/gogo/protobuf/types"
	"github.com/moby/swarmkit/v2/api"
	"google.golang.org/grpc"
)

// swarm is the swarm of a node, and where its services' output goes.
type swarm struct {
	conn     *grpc.ClientConn
	api      api.ControlClient
	out, err io.Writer
}

func newSwarm(conn *grpc.ClientConn, out, err io.Writer) *swarm {
	return &swarm{conn: conn, api: api.NewControlClient(conn), out: out, err: err}
}

// run does what the flags ask for.
func (s *swarm) run(ctx context.Context, o options) error {
	if o.tokens {
		return s.printTokens(ctx)
	}
	if o.image != "" {
		return s.create(ctx, o)
	}
	service, err := s.find(ctx, o.name)
	if err != nil {
		return err
	}
	switch {
	case o.scale != nil:
		return s.scale(ctx, service, *o.scale)
	case o.ps:
		return s.list(ctx, service)
	case o.logs:
		return s.printLogs(ctx, service)
	default:
		_, err := s.api.RemoveService(ctx, &api.RemoveServiceRequest{ServiceID: service.ID})
		return err
	}
}

func (s *swarm) create(ctx context.Context, o options) error {
	answer, err := s.api.CreateService(ctx, &api.CreateServiceRequest{Spec: &api.ServiceSpec{
		Annotations: api.Annotations{Name: o.name},
		Mode:        &api.ServiceSpec_Replicated{Replicated: &api.ReplicatedService{Replicas: o.replicas}},
		Task: api.TaskSpec{Runtime: &api.TaskSpec_Container{Container: &api.ContainerSpec{
			Image: o.image, Args: o.args,
		}}},
	}})
	if err != nil {
		return err
	}
	fmt.Fprintln(s.out, "service", answer.Service.ID)
	return s.awaitUp(ctx, answer.Service, o.replicas, nil)
}

func (s *swarm) scale(ctx context.Context, service *api.Service, replicas uint64) error {
	if service.Spec.GetReplicated() == nil {
		return fmt.Errorf("the service %s has no number of tasks: it is not replicated", service.Spec.Annotations.Name)
	}
	tasks, err := s.tasks(ctx, service)
	if err != nil {
		return err
	}
	old := map[string]bool{}
	for _, task := range tasks {
		old[task.ID] = hasEnded(task)
	}
	service.Spec.GetReplicated().Replicas = replicas
	if _, err := s.api.UpdateService(ctx, &api.UpdateServiceRequest{
		ServiceID: service.ID, ServiceVersion: &service.Meta.Version, Spec: &service.Spec,
	}); err != nil {
		return err
	}
	return s.awaitUp(ctx, service, replicas, old)
}

func (s *swarm) find(ctx context.Context, name string) (*api.Service, error) {
	list, err := s.api.ListServices(ctx, &api.ListServicesRequest{
		Filters: &api.ListServicesRequest_Filters{Names: []string{name}},
	})
	if err != nil {
		return nil, err
	}
	if len(list.Services) == 0 {
		return nil, fmt.Errorf("there is no service %s", name)
	}
	return list.Services[0], nil
}

// tasks are a service's tasks by slot, in the order in which they were made.
func (s *swarm) tasks(ctx context.Context, service *api.Service) ([]*api.Task, error) {
	list, err := s.api.ListTasks(ctx, &api.ListTasksRequest{
		Filters: &api.ListTasksRequest_Filters{ServiceIDs: []string{service.ID}},
	})
	if err != nil {
		return nil, err
	}
	slices.SortFunc(list.Tasks, func(a, b *api.Task) int {
		return cmp.Or(cmp.Compare(a.Slot, b.Slot), a.Meta.CreatedAt.Compare(b.Meta.CreatedAt))
	})
	return list.Tasks, nil
}

// list prints a service's tasks.
func (s *swarm) list(ctx context.Context, service *api.Service) error {
	tasks, err := s.tasks(ctx, service)
	if err != nil {
		return err
	}
	nodes, err := s.api.ListNodes(ctx, &api.ListNodesRequest{})
	if err != nil {
		return err
	}
	hosts := map[string]string{}
	for _, node := range nodes.Nodes {
		if node.Description != nil {
			hosts[node.ID] = node.Description.Hostname
		}
	}
	table := tabwriter.NewWriter(s.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "SLOT\tTASK\tNODE\tWANTED\tSTATE\tSINCE\tERROR")
	for _, task := range tasks {
		node := cmp.Or(hosts[task.NodeID], task.NodeID, "-")
		fmt.Fprintf(table, "%d\t%s\t%s\t%v\t%v\t%s\t%s\n", task.Slot, task.ID, node, task.DesiredState,
			task.Status.State, since(task.Status.Timestamp), cmp.Or(task.Status.Err, "-"))
	}
	return table.Flush()
}

func since(timestamp *gogotypes.Timestamp) string {
	at, err := gogotypes.TimestampFromProto(timestamp)
	if err != nil {
		return "-"
	}
	return at.UTC().Format(time.RFC3339)
}

// printLogs prints what a service's tasks have logged, each line with its task.
func (s *swarm) printLogs(ctx context.Context, service *api.Service) error {
	log, err := api.NewLogsClient(s.conn).SubscribeLogs(ctx, &api.SubscribeLogsRequest{
		Selector: &api.LogSelector{ServiceIDs: []string{service.ID}},
		Options:  &api.LogSubscriptionOptions{},
	})
	if err != nil {
		return err
	}
	for {
		answer, err := log.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		for _, m := range answer.Messages {
			out := s.out
			if m.Stream == api.LogStreamStderr {
				out = s.err
			}
			if _, err := fmt.Fprintf(out, "%s | %s\n", m.Context.TaskID, bytes.TrimRight(m.Data, "\r\n")); err != nil {
				return err
			}
		}
	}
}

func (s *swarm) printTokens(ctx context.Context) error {
	list, err := s.api.ListClusters(ctx, &api.ListClustersRequest{})
	if err != nil {
		return err
	}
	for _, cluster := range list.Clusters {
		fmt.Fprintln(s.out, "worker ", cluster.RootCA.JoinTokens.Worker)
		fmt.Fprintln(s.out, "manager", cluster.RootCA.JoinTokens.Manager)
	}
	return nil
}
