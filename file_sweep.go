package dockerexec

import (
	"context"
	"maps"
	"slices"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	"github.com/moby/swarmkit/v2/log"
)

// sweepFiles removes the folders of tasks that have no container on the engine:
// those of a process that ended before it could. It is for the time before this
// Engine writes its first file, and removes nothing if the engine does not list
// its containers.
func (e *Engine) sweepFiles(ctx context.Context, engineID string) error {
	defer sweeping()()
	// Before the containers: a task that gets folder and container meanwhile
	// must not have the one without the other.
	left, err := e.files.tasks(engineID)
	if err != nil {
		log.G(ctx).WithError(err).Debug("files of ended tasks not looked for")
		return nil
	}
	if len(left) == 0 {
		return nil
	}
	containers, err := request(ctx, e, 0, func(ctx context.Context) ([]container.Summary, error) {
		return e.client.ContainerList(ctx, container.ListOptions{All: true, Filters: filters.NewArgs(filters.Arg("label", labelTask))})
	})
	if err := engineError(ctx, err, "secrets and configs: list of containers"); unfinished(ctx, err) {
		return err
	} else if err != nil {
		log.G(ctx).WithError(err).Debug("files of ended tasks not removed")
		return nil
	}
	for _, c := range containers {
		left = slices.DeleteFunc(left, func(task string) bool { return task == c.Labels[LabelTaskID] })
	}
	for _, task := range left {
		removed, err := e.files.removeLeft(engineID, task)
		if !removed && err == nil {
			continue
		}
		if err != nil {
			log.G(ctx).WithError(err).Debug("files of an ended task not removed")
			continue
		}
		log.G(ctx).WithField("task.id", task).Debug("files of a task without a container removed")
	}
	return nil
}

// creations are the creates of tasks with files that are under way in this
// process, by folder, and while a sweep is under way also those that have ended.
// Other Engines of this process, which may have the same folders, must not take
// them for left over. Both are guarded by changingFiles.
var (
	creations = map[string]int{}
	sweeps    int // under way
)

// creating notes that a task is created whose files are in folder, until the
// returned function is called.
func creating(folder string) (ended func()) {
	changingFiles.Lock()
	defer changingFiles.Unlock()
	creations[folder]++
	return func() {
		changingFiles.Lock()
		defer changingFiles.Unlock()
		creations[folder]--
		forgetCreations()
	}
}

// sweeping notes that a sweep is under way, until the returned function is called.
func sweeping() (ended func()) {
	changingFiles.Lock()
	defer changingFiles.Unlock()
	sweeps++
	return func() {
		changingFiles.Lock()
		defer changingFiles.Unlock()
		sweeps--
		forgetCreations()
	}
}

// forgetCreations drops those that have ended and that no sweep could still take
// for left over. It needs changingFiles.
func forgetCreations() {
	if sweeps == 0 {
		maps.DeleteFunc(creations, func(_ string, running int) bool { return running == 0 })
	}
}

// removeLeft removes the folder of a task that had no container when the sweep
// looked, unless it has been created since.
func (s fileStore) removeLeft(engineID, taskID string) (removed bool, err error) {
	changingFiles.Lock()
	defer changingFiles.Unlock()
	if _, created := creations[s.folder(engineID, taskID)]; created {
		return false, nil
	}
	return true, s.removeLocked(engineID, taskID)
}
