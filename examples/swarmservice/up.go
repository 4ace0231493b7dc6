package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/moby/swarmkit/v2/api"

	"github.com/dockerexec/dockerexec/examples/control"
)

// When a service counts as one that cannot come up. The usage says so too.
const (
	attempts = 3 // tasks of one slot that have ended
	patience = 10 * time.Minute
)

// awaitUp waits until as many of a service's tasks run, and prints each state of its
// tasks meanwhile. Tasks in old do not count: they had ended before.
func (s *swarm) awaitUp(ctx context.Context, service *api.Service, replicas uint64, old map[string]bool) error {
	name := service.Spec.Annotations.Name
	ctx, cancel := context.WithCancelCause(ctx)
	tasks := control.NewTasks()
	said := map[string]string{}
	gone, err := tasks.Watch(ctx, s.conn, func(task *api.Task) {
		line := fmt.Sprintln("task", task.ID, task.Status.State, task.Status.Err)
		if task.ServiceID != service.ID || old[task.ID] || said[task.ID] == line {
			return
		}
		said[task.ID] = line
		fmt.Fprint(s.out, line)
	})
	if err != nil {
		cancel(nil)
		return err
	}
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		cancel(<-gone)
	}()
	defer func() {
		cancel(nil)
		<-watched // nothing is printed after this
	}()

	late := errors.New("late")
	ctx, stop := context.WithTimeoutCause(ctx, patience, late)
	defer stop()
	var dead error
	_, err = tasks.Await(ctx, service.ID, func(now []*api.Task) bool {
		dead = deadSlot(name, tasks.History(service.ID), old)
		return dead != nil || control.AllRun(int(replicas))(now)
	})
	switch {
	case err == nil:
		return dead
	case errors.Is(context.Cause(ctx), late):
		return fmt.Errorf("the service %s is not up after %v, and stays. The last error: %s",
			name, patience, lastError(tasks.History(service.ID), old))
	default:
		return context.Cause(ctx)
	}
}

// deadSlot says of which slot as many tasks have ended as are allowed; nil: of none.
// Each element of tasks has all versions of one task.
func deadSlot(name string, tasks [][]*api.Task, old map[string]bool) error {
	ended := map[uint64]int{}
	for _, versions := range tasks {
		last := versions[len(versions)-1]
		if old[last.ID] || !hasEnded(last) {
			continue
		}
		if ended[last.Slot]++; ended[last.Slot] == attempts {
			return fmt.Errorf("the service %s does not come up, and stays: %d tasks of slot %d have ended. The last error: %s",
				name, attempts, last.Slot, lastError(tasks, old))
		}
	}
	return nil
}

// lastError is the error that a task has had last, of those that do not run.
func lastError(tasks [][]*api.Task, old map[string]bool) string {
	var last *api.Task
	for _, versions := range tasks {
		task := versions[len(versions)-1]
		if old[task.ID] || task.Status.State == api.TaskStateRunning || task.Status.Err == "" && !hasEnded(task) {
			continue
		}
		if last == nil || task.Status.Timestamp.Compare(last.Status.Timestamp) > 0 {
			last = task
		}
	}
	if last == nil {
		return "none"
	}
	return cmp.Or(last.Status.Err, fmt.Sprint("none, the task is ", last.Status.State))
}

// hasEnded says whether a task has come to an end by itself.
func hasEnded(task *api.Task) bool {
	switch task.Status.State {
	case api.TaskStateCompleted, api.TaskStateFailed, api.TaskStateRejected, api.TaskStateOrphaned:
		return true
	default:
		return false
	}
}
