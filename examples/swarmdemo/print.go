package main

import (
	"fmt"
	"time"

	"github.com/moby/swarmkit/v2/api"
)

func heading(text string) { fmt.Printf("\n== %s\n", text) }

func checked(format string, args ...any) { fmt.Printf("  ok: "+format+"\n", args...) }

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
