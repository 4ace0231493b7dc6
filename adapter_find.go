package dockerexec

import (
	"context"
	"fmt"
	"slices"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/image"
	"github.com/moby/swarmkit/v2/log"
	"github.com/pkg/errors"
)

// A container may get another name, and its own name may then be another container's.
// So a name that is gone does not prove that the container is. A container that the
// adapter has made or seen is known by its ID. Any other one is looked for by its label.

// noteContainer notes the ID of the task's container.
func (a *ContainerAdapter) noteContainer(id string) {
	if id != "" {
		a.containerID.Store(&id)
		a.isRemoved.Store(false)
	}
}

// knownID returns the ID of the task's container. It is empty if the adapter has neither
// made nor seen the container, or has removed it.
func (a *ContainerAdapter) knownID() string {
	if id := a.containerID.Load(); id != nil && !a.isRemoved.Load() {
		return *id
	}
	return ""
}

// onContainer makes a call on the task's container. The call gets the container's name or
// its ID. If there is no such container, it may be made again with another ID.
//
// A container that is known is called by its ID, so that no other container of its name
// is touched. A fake may know its containers by their names alone: it gets the name first.
func (a *ContainerAdapter) onContainer(ctx context.Context, call func(nameOrID string) error) error {
	known := a.knownID()
	first := a.name
	if known != "" && !a.engine.api.isFake {
		first = known
	}
	isGone := func(err error) bool {
		return ctx.Err() == nil && isContainerGone(err) && !networkVanished.matches(err) // a start's 404 may be about a network
	}
	err := call(first)
	if isGone(err) && known != first && known != "" {
		err = call(known)
	}
	if !isGone(err) {
		return err
	}
	id, findErr := a.findByLabel(ctx, known)
	if findErr != nil {
		return findErr
	}
	if id == "" {
		return err
	}
	return call(id)
}

// inspect inspects the task's container: by its name, and if that is gone or another
// container's, by its ID or its label.
func (a *ContainerAdapter) inspect(ctx context.Context) (container.InspectResponse, error) {
	known := a.knownID()
	named, err := a.inspectAs(ctx, a.name)
	isOther := err == nil && known != "" && idOf(named) != "" && idOf(named) != known
	isStrange := err == nil && known == "" && a.checkOwner(named) != nil
	if ctx.Err() != nil || !isContainerGone(err) && !isOther && !isStrange {
		return named, err
	}
	if isOther {
		err = fmt.Errorf("no such container: %s (the name %s is that of container %s): %w", shortID(known), a.name, shortID(idOf(named)), cerrdefs.ErrNotFound)
	}
	if known != "" {
		if answer, byID := a.inspectAs(ctx, known); byID != nil && !isContainerGone(byID) || idOf(answer) == known {
			return answer, byID
		}
	}
	id, findErr := a.findByLabel(ctx, known)
	switch {
	case findErr != nil:
		return container.InspectResponse{}, findErr
	case id != "":
		return a.inspectAs(ctx, id)
	case isStrange:
		return named, nil
	}
	return container.InspectResponse{}, err
}

func (a *ContainerAdapter) inspectAs(ctx context.Context, nameOrID string) (container.InspectResponse, error) {
	return request(ctx, a.engine, 0, func(ctx context.Context) (container.InspectResponse, error) {
		return a.engine.client.ContainerInspect(ctx, nameOrID)
	})
}

// findByLabel returns the ID of the container that has the task's label, and notes it. It
// is empty if there is none, or if several have the label. known is the ID of a container
// that is gone, or empty. If there is one, a container with the task's name is another's.
//
// Skipped for fakes, which need not implement ContainerList.
func (a *ContainerAdapter) findByLabel(ctx context.Context, known string) (id string, err error) {
	if a.engine.api.isFake {
		return "", nil
	}
	list, err := request(ctx, a.engine, 0, func(ctx context.Context) ([]container.Summary, error) {
		return a.engine.client.ContainerList(ctx, container.ListOptions{All: true, Filters: filters.NewArgs(filters.Arg("label", LabelTaskID+"="+a.taskID))})
	})
	switch {
	case err == nil:
	case ctx.Err() == nil && (isRefusal(err) || cerrdefs.IsNotFound(err)):
		a.unlistedOnce.Do(func() {
			log.G(a.logContext(ctx)).WithError(err).Warn("containers are not listed: a container that has another name is not found")
		})
		return "", nil
	default:
		return "", errors.Wrap(err, "look for it under another name")
	}
	for _, c := range list {
		if c.ID == known || known != "" && slices.Contains(c.Names, "/"+a.name) {
			continue
		}
		isCopy, err := a.isCopy(ctx, c)
		switch {
		case err != nil:
			return "", errors.Wrap(err, "look for it under another name")
		case isCopy:
		case id == "":
			id = c.ID
		default:
			a.doubtOnce.Do(func() {
				log.G(a.logContext(ctx)).Warnf("containers %s and %s have the label of this task: it is not certain which one is the task's, none is touched", shortID(id), shortID(c.ID))
			})
			return "", nil
		}
	}
	a.noteContainer(id)
	return id, nil
}

// isCopy reports whether a container has the task's label from its image: somebody has
// committed the task's container, and runs the copy. An image that the engine does not
// show may have the label too.
func (a *ContainerAdapter) isCopy(ctx context.Context, c container.Summary) (bool, error) {
	answer, err := request(ctx, a.engine, 0, func(ctx context.Context) (image.InspectResponse, error) {
		return a.engine.client.ImageInspect(ctx, c.ImageID)
	})
	switch {
	case err == nil:
		return answer.Config != nil && answer.Config.Labels[LabelTaskID] == a.taskID, nil
	case ctx.Err() != nil, isPassing(err) && !cerrdefs.IsNotFound(err):
		return false, err
	}
	return true, nil
}
