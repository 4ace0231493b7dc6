package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/moby/swarmkit/v2/api"

	"github.com/dockerexec/dockerexec"
)

// want is what must hold after a scene.
type want struct {
	tasks int    // as many run and are to run
	image string // all of them
}

// check compares the tasks that the managers list with the containers that the engines
// hold. Each engine must hold exactly the containers of its node's tasks. Nothing but a
// host that is lost may have a task that is to end.
func check(tasks []*api.Task, hosts []*host, w want) error {
	var wrong []string
	say := func(format string, args ...any) { wrong = append(wrong, fmt.Sprintf(format, args...)) }
	byNode := map[string]map[string]*api.Task{}
	for _, h := range hosts {
		byNode[h.id] = map[string]*api.Task{}
	}
	running := 0
	for _, task := range tasks {
		node := byNode[task.NodeID]
		if node == nil {
			say("task %s (%s, to be %s) is on no host: %s", task.ID, task.Status.State, task.DesiredState, task.Status.Err)
			continue
		}
		node[task.ID] = task
		if isWanted(task) {
			running++
		}
	}
	if running != w.tasks {
		say("%d tasks run and are to run, want %d", running, w.tasks)
	}
	for _, h := range hosts {
		checkHost(h, byNode[h.id], w.image, say)
	}
	if len(wrong) == 0 {
		return nil
	}
	slices.Sort(wrong)
	return errors.New(strings.Join(append([]string{fmt.Sprintf("%d differences", len(wrong))}, wrong[:min(len(wrong), 5)]...), "; "))
}

// isWanted reports whether a task runs and is to run.
func isWanted(task *api.Task) bool {
	return task.Status.State == api.TaskStateRunning && task.DesiredState == api.TaskStateRunning
}

// checkHost compares one node's tasks with the containers of its engine.
func checkHost(h *host, tasks map[string]*api.Task, image string, say func(format string, args ...any)) {
	name := h.config.Hostname
	held := map[string]bool{}
	for _, c := range h.engine.Containers() {
		shown := c.Inspect()
		id := shown.Config.Labels[dockerexec.LabelTaskID]
		task := tasks[id]
		switch {
		case task == nil:
			say("%s: container %s is of no task that is listed", name, c.Name())
		case held[id]:
			say("%s: task %s has a second container", name, id)
		case shown.State.Running != (task.Status.State == api.TaskStateRunning):
			say("%s: the container of task %s is %s, and the task is %s", name, id, shown.State.Status, task.Status.State)
		case isWanted(task) && shown.Config.Image != image:
			say("%s: the container of task %s has the image %s, want %s", name, id, shown.Config.Image, image)
		}
		held[id] = true
	}
	for id, task := range tasks {
		// Of a task that is only assigned, a lost host never got to know.
		if !held[id] && !(h.lost && task.Status.State == api.TaskStateAssigned) {
			say("%s: task %s (%s) has no container", name, id, task.Status.State)
		}
		if !h.lost && !isWanted(task) {
			say("%s: task %s is %s and is to be %s", name, id, task.Status.State, task.DesiredState)
		}
	}
}
