package dockerexec

import (
	"context"

	"github.com/docker/docker/api/types/container"
)

// watch waits until the container has ended, or done says so of one that has
// not. The errors are those of Wait. What ends a watch ends the task, of which
// SwarmKit then stops nothing any more, so nothing ends it but what shows that
// the container does not run, and a refusal: any other answer is asked for again.
func (c *controller) watch(ctx context.Context, done func(container.InspectResponse) bool) (container.InspectResponse, error) {
	return c.adapter.watch(ctx, isOdd, func(answer container.InspectResponse) (bool, error) {
		if err := c.adapter.checkOwner(answer); err != nil {
			return false, err
		}
		if ended, err := atEnd(answer); ended || err != nil {
			return ended, err
		}
		return done(answer), nil
	})
}

// inspect inspects the container. What says nothing about it is a temporary
// error, for the agent to call again: the container may run.
func (c *controller) inspect(ctx context.Context) (container.InspectResponse, error) {
	answer, err := c.adapter.Inspect(ctx)
	if err != nil && !c.adapter.gone(err) {
		err = tryAgain(ctx, err)
	}
	return answer, err
}
