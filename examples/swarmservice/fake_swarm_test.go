package main

import (
	"context"
	"fmt"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	gogotypes "github.com/gogo/protobuf/types"
	"github.com/moby/swarmkit/v2/api"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"
)

// fakeSwarm is a manager with a node "host-1" and at most one service, whose tasks are
// as the test says. It is safe for concurrent use.
type fakeSwarm struct {
	api.ControlServer // what no test needs

	// schedule is called for each task of a slot, the n-th from 1. It calls state with
	// the states of the task. Once it returns after an end, the next task begins.
	schedule func(slot uint64, n int, state func(api.TaskState, string))

	ctx     context.Context // of the test
	running sync.WaitGroup  // the slots

	mu      sync.Mutex
	made    int // tasks
	slots   uint64
	service *api.Service
	all     []*api.Task
	events  chan *api.WatchMessage
	log     []api.LogMessage
}

// newFakeSwarm serves a fake swarm in the test's bubble, and returns a connection to it.
func newFakeSwarm(t *testing.T, schedule func(slot uint64, n int, state func(api.TaskState, string))) (*fakeSwarm, *grpc.ClientConn) {
	t.Helper()
	f := &fakeSwarm{ctx: t.Context(), schedule: schedule, events: make(chan *api.WatchMessage, 1000)}
	server := grpc.NewServer()
	api.RegisterControlServer(server, f)
	api.RegisterWatchServer(server, f)
	api.RegisterLogsServer(server, f)
	listener := bufconn.Listen(1 << 20)
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()
	conn, err := grpc.NewClient("passthrough:swarm", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }))
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, conn.Close())
		server.Stop()
		require.NoError(t, <-ended)
		f.running.Wait()
	})
	return f, conn
}

func (f *fakeSwarm) CreateService(_ context.Context, r *api.CreateServiceRequest) (*api.CreateServiceResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.service = &api.Service{ID: "service-1", Spec: *r.Spec}
	f.grow()
	return &api.CreateServiceResponse{Service: f.service.Copy()}, nil
}

func (f *fakeSwarm) UpdateService(_ context.Context, r *api.UpdateServiceRequest) (*api.UpdateServiceResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.service.Spec = *r.Spec
	f.grow()
	return &api.UpdateServiceResponse{Service: f.service.Copy()}, nil
}

func (f *fakeSwarm) RemoveService(_ context.Context, r *api.RemoveServiceRequest) (*api.RemoveServiceResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.service.ID == r.ServiceID {
		f.service = nil
	}
	return &api.RemoveServiceResponse{}, nil
}

func (f *fakeSwarm) ListServices(_ context.Context, r *api.ListServicesRequest) (*api.ListServicesResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	answer := &api.ListServicesResponse{}
	if f.service != nil && slices.Contains(r.Filters.Names, f.service.Spec.Annotations.Name) {
		answer.Services = append(answer.Services, f.service.Copy())
	}
	return answer, nil
}

func (f *fakeSwarm) ListTasks(context.Context, *api.ListTasksRequest) (*api.ListTasksResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	answer := &api.ListTasksResponse{}
	for _, task := range f.all {
		answer.Tasks = append(answer.Tasks, task.Copy())
	}
	return answer, nil
}

func (f *fakeSwarm) ListNodes(context.Context, *api.ListNodesRequest) (*api.ListNodesResponse, error) {
	return &api.ListNodesResponse{Nodes: []*api.Node{{ID: "node-1", Description: &api.NodeDescription{Hostname: "host-1"}}}}, nil
}

func (f *fakeSwarm) ListClusters(context.Context, *api.ListClustersRequest) (*api.ListClustersResponse, error) {
	return &api.ListClustersResponse{Clusters: []*api.Cluster{{
		RootCA: api.RootCA{JoinTokens: api.JoinTokens{Worker: "token-w", Manager: "token-m"}},
	}}}, nil
}

func (f *fakeSwarm) Watch(_ *api.WatchRequest, stream api.Watch_WatchServer) error {
	if err := stream.Send(&api.WatchMessage{}); err != nil {
		return err
	}
	for {
		select {
		case event := <-f.events:
			if err := stream.Send(event); err != nil {
				return err
			}
		case <-stream.Context().Done():
			return nil
		}
	}
}

func (f *fakeSwarm) SubscribeLogs(_ *api.SubscribeLogsRequest, stream api.Logs_SubscribeLogsServer) error {
	return stream.Send(&api.SubscribeLogsMessage{Messages: f.log})
}

// grow begins the tasks of slots that have none. f.mu is locked.
func (f *fakeSwarm) grow() {
	for f.slots < f.service.Spec.GetReplicated().Replicas {
		f.slots++
		slot := f.slots
		f.running.Go(func() { f.runSlot(slot) })
	}
}

func (f *fakeSwarm) runSlot(slot uint64) {
	for n := 1; f.ctx.Err() == nil; n++ {
		task := f.newTask(slot)
		f.schedule(slot, n, func(state api.TaskState, why string) {
			f.mu.Lock()
			defer f.mu.Unlock()
			task.Status.State, task.Status.Err = state, why
			if state > api.TaskStateRunning {
				task.DesiredState = api.TaskStateShutdown
			}
			f.tell(api.WatchActionKindUpdate, task)
		})
		if !hasEnded(task) {
			return
		}
	}
}

func (f *fakeSwarm) newTask(slot uint64) *api.Task {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.made++
	task := &api.Task{ID: fmt.Sprint("task-", f.made), ServiceID: f.service.ID, Slot: slot, NodeID: "node-1",
		ServiceAnnotations: f.service.Spec.Annotations, DesiredState: api.TaskStateRunning}
	task.Meta.CreatedAt = gogotypes.TimestampNow()
	f.all = append(f.all, task)
	f.tell(api.WatchActionKindCreate, task)
	return task
}

// tell tells the watch of a task as it is. f.mu is locked.
func (f *fakeSwarm) tell(action api.WatchActionKind, task *api.Task) {
	task.Meta.Version.Index++
	at, _ := gogotypes.TimestampProto(time.Now())
	task.Status.Timestamp = at
	f.events <- &api.WatchMessage{Events: []*api.WatchMessage_Event{{
		Action: action, Object: &api.Object{Object: &api.Object_Task{Task: task.Copy()}},
	}}}
}
