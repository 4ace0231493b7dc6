package dockerexec

import (
	"context"
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
		left = slices.DeleteFunc(left, func(task string) bool { return task == c.Labels[labelTaskID] })
	}
	for _, task := range left {
		if err := e.files.remove(engineID, task); err != nil {
			log.G(ctx).WithError(err).Debug("files of an ended task not removed")
			continue
		}
		log.G(ctx).WithField("task.id", task).Debug("files of a task without a container removed")
	}
	return nil
}
