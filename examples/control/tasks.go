package control

import (
	"context"
	"slices"
	"sync"

	"github.com/moby/swarmkit/v2/api"
	"google.golang.org/grpc"
)

// Tasks is what a node has said of its swarm's tasks. It is safe for concurrent
// use; the tasks that it hands out are shared and must not be changed.
type Tasks struct {
	mu      sync.Mutex
	now     map[string]*api.Task   // those that there are
	history map[string][]*api.Task // each version of each, removed ones too
	changed chan struct{}          // closed and replaced with each change
}

// NewTasks returns an empty Tasks; Watch fills it.
func NewTasks() *Tasks {
	return &Tasks{now: map[string]*api.Task{}, history: map[string][]*api.Task{}, changed: make(chan struct{})}
}

// Watch returns once t has all the swarm's tasks. From then on t is kept up to date
// until ctx ends or the node is gone; why is sent on the channel, which need not be
// read. After that Watch can be called again. Each version of a task is handed to
// seen too, in order, if that is not nil; it must not call t.
func (t *Tasks) Watch(ctx context.Context, conn *grpc.ClientConn, seen func(*api.Task)) (<-chan error, error) {
	changes, err := api.NewWatchClient(conn).Watch(ctx, &api.WatchRequest{Entries: []*api.WatchRequest_WatchEntry{{
		Kind:   "task",
		Action: api.WatchActionKindCreate | api.WatchActionKindUpdate | api.WatchActionKindRemove,
	}}})
	if err != nil {
		return nil, err
	}
	// The first answer is empty and says that nothing is missed from now on.
	if _, err := changes.Recv(); err != nil {
		return nil, err
	}
	list, err := api.NewControlClient(conn).ListTasks(ctx, &api.ListTasksRequest{})
	if err != nil {
		return nil, err
	}
	t.begin(list.Tasks, seen)
	ended := make(chan error, 1)
	go func() {
		for {
			answer, err := changes.Recv()
			if err != nil {
				ended <- err
				return
			}
			for _, e := range answer.Events {
				t.change(e.Action, e.Object.GetTask(), seen)
			}
		}
	}()
	return ended, nil
}

// begin makes list all that there is.
func (t *Tasks) begin(list []*api.Task, seen func(*api.Task)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	clear(t.now)
	for _, task := range list {
		t.add(task, seen)
	}
	t.tell()
}

func (t *Tasks) change(action api.WatchActionKind, task *api.Task, seen func(*api.Task)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if action == api.WatchActionKindRemove {
		delete(t.now, task.ID)
	} else {
		t.add(task, seen)
	}
	t.tell()
}

// add adds a version, unless it is from before the list.
func (t *Tasks) add(task *api.Task, seen func(*api.Task)) {
	versions := t.history[task.ID]
	t.now[task.ID] = task
	if n := len(versions); n > 0 && task.Meta.Version.Index <= versions[n-1].Meta.Version.Index {
		t.now[task.ID] = versions[n-1]
		return
	}
	t.history[task.ID] = append(versions, task)
	if seen != nil {
		seen(task)
	}
}

func (t *Tasks) tell() {
	close(t.changed)
	t.changed = make(chan struct{})
}

// Await waits until reached is true for a service's tasks, in the order in which
// they were made, and returns these; with the error of ctx if that ends first.
func (t *Tasks) Await(ctx context.Context, service string, reached func([]*api.Task) bool) ([]*api.Task, error) {
	for {
		tasks, changed := t.of(service)
		if reached(tasks) {
			return tasks, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return tasks, ctx.Err()
		}
	}
}

// of are a service's tasks, and what is closed when that is not true any more.
func (t *Tasks) of(service string) ([]*api.Task, <-chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	var tasks []*api.Task
	for _, task := range t.now {
		if task.ServiceID == service {
			tasks = append(tasks, task)
		}
	}
	slices.SortFunc(tasks, func(a, b *api.Task) int { return a.Meta.CreatedAt.Compare(b.Meta.CreatedAt) })
	return tasks, t.changed
}

// History is each version of each of a service's tasks, removed ones too, as far
// as it was seen: while no watch is on, versions are missed.
func (t *Tasks) History(service string) [][]*api.Task {
	t.mu.Lock()
	defer t.mu.Unlock()
	var tasks [][]*api.Task
	for _, versions := range t.history {
		if versions[0].ServiceID == service {
			tasks = append(tasks, slices.Clone(versions))
		}
	}
	return tasks
}

// AllRun says whether a service has as many running tasks, and none besides that
// are to run.
func AllRun(replicas int) func([]*api.Task) bool {
	return func(tasks []*api.Task) bool {
		n := 0
		for _, task := range tasks {
			runs, wanted := task.Status.State == api.TaskStateRunning, task.DesiredState <= api.TaskStateRunning
			if runs != wanted {
				return false
			}
			if runs {
				n++
			}
		}
		return n == replicas
	}
}
