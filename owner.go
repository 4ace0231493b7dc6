package dockerexec

import (
	"github.com/docker/docker/api/types/container"
	"github.com/pkg/errors"
)

// labelOf is the ID of the task that a container was made for, or empty.
func labelOf(answer container.InspectResponse) string {
	if answer.Config == nil {
		return ""
	}
	return answer.Config.Labels[LabelTaskID]
}

// isNamed reports whether the task has a name of its own, which others may have
// too. Else its container's name has the task's ID in it.
func (c *containerConfig) isNamed() bool { return c.task.Annotations.Name != "" }

// checkOwner refuses a container under the task's name that is not the task's: of
// another task, or without a label under a name that anybody may choose. Only to
// adopt one that was there before a create takes the label itself.
func (a *ContainerAdapter) checkOwner(answer container.InspectResponse) error {
	switch owner := labelOf(answer); {
	case owner == a.config.task.ID, owner == "" && !a.config.isNamed():
		return nil
	case owner == "":
		return errors.Errorf("container %s (%s) belongs to no task", a.config.name(), shortID(answer.ID))
	default:
		return errors.Errorf("container %s (%s) belongs to task %s", a.config.name(), shortID(answer.ID), owner)
	}
}
