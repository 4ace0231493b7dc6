package dockerexec

import (
	"context"
	"slices"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	"github.com/moby/swarmkit/v2/log"
)

// sweepFiles removes the folders of tasks that have no container on the engine:
// those of a process that ended before it could. It is for the time before this
// Engine writes its first file, and removes nothing if the engine does not list
// its containers.
func (e *Engine) sweepFiles(ctx context.Context, engineID string) error {
	// Before the containers: a task that gets folder and container meanwhile
	// must not have the one without the other.
	began := time.Now()
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
		left = slices.DeleteFunc(left, func(task string) bool { return task == c.Labels[labelTaskID] })
	}
	for _, task := range left {
		removed, err := e.files.removeLeft(engineID, task, began)
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
// process, and those that have ended, by folder. Other Engines of this process,
// which may have the same folders, must not take them for left over. It is
// guarded by changingFiles.
var creations = map[string]creation{}

type creation struct {
	running int
	ended   time.Time // the last one
}

// creating notes that a task is created whose files are in folder, until the
// returned function is called.
func creating(folder string) (ended func()) {
	count := func(by int) {
		changingFiles.Lock()
		defer changingFiles.Unlock()
		creations[folder] = creation{running: creations[folder].running + by, ended: time.Now()}
	}
	count(1)
	return func() { count(-1) }
}

// removeLeft removes the folder of a task that had no container some time after
// began, unless it has been created since.
func (s fileStore) removeLeft(engineID, taskID string, began time.Time) (removed bool, err error) {
	changingFiles.Lock()
	defer changingFiles.Unlock()
	if c := creations[s.folder(engineID, taskID)]; c.running > 0 || !c.ended.Before(began) {
		return false, nil
	}
	return true, s.removeLocked(engineID, taskID)
}
