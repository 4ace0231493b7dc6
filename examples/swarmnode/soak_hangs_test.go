package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	gogotypes "github.com/gogo/protobuf/types"
	"github.com/moby/swarmkit/v2/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockerexec/dockerexec/examples/control"
)

// An engine of version 29 that ended during a start may hang on that container once
// its process has ended, see "Lost starts" in the package's documentation. No client
// can help that. The soak sees that the engine had this cause, and kills it.

const hangOfEngine = "hang of the engine"

// hangTime is how long an engine that does not hang may take to answer: it holds a
// container for up to 32 s, while containerd deletes the process.
const hangTime = time.Minute

// freeHung kills and starts the engine if it hangs on a container, and reports
// whether it did. A list of containers comes even then.
func (k *soak) freeHung() bool {
	k.t.Helper()
	list := k.onEngine()
	hangs := make([]bool, len(list))
	ctx, cancel := context.WithTimeout(k.t.Context(), hangTime)
	defer cancel()
	var looks sync.WaitGroup
	for i, c := range list {
		looks.Go(func() {
			_, err := k.engine.ContainerInspect(ctx, c.ID)
			hangs[i] = err != nil && ctx.Err() != nil
		})
	}
	looks.Wait()
	if !slices.Contains(hangs, true) {
		return false
	}
	version, err := k.engine.ServerVersion(k.t.Context())
	require.NoError(k.t, err)
	assert.False(k.t, strings.HasPrefix(version.Version, "20.10."), "engine %s hangs", version.Version)
	for i, c := range list {
		if hangs[i] {
			k.t.Logf("the engine hangs on container %v of task %s", c.Names, taskOf(c))
			assert.True(k.t, k.startMayBeLost(c), "the engine did not end during the start of container %v: %s",
				c.Names, k.past(c.Labels["com.docker.swarm.service.id"], taskOf(c)))
			k.hit[taskOf(c)] = hangOfEngine
		}
	}
	k.did(hangOfEngine)
	k.endOfEngine("kill")
	k.moment(func() { controlEngine(k.t, "start") })
	return true
}

// startMayBeLost reports whether an end of the engine came while a container's task
// was starting, give or take a second.
func (k *soak) startMayBeLost(c container.Summary) bool {
	versions := k.versions(c.Labels["com.docker.swarm.service.id"], taskOf(c))
	for i, version := range versions {
		if version.Status.State != api.TaskStateStarting {
			continue
		}
		begin, err := gogotypes.TimestampFromProto(version.Status.Timestamp)
		require.NoError(k.t, err)
		end := time.Now()
		if i+1 < len(versions) {
			end, err = gogotypes.TimestampFromProto(versions[i+1].Status.Timestamp)
			require.NoError(k.t, err)
		}
		if slices.ContainsFunc(k.engineEnds, func(e engineEnd) bool {
			return begin.Before(e.gone.Add(time.Second)) && end.After(e.ordered.Add(-time.Second))
		}) {
			return true
		}
	}
	return false
}

// untilRight calls look until nothing is wrong, for as long as a service may take,
// and so long again after the engine was freed.
func (k *soak) untilRight(what string, look func(context.Context) (wrong []string)) {
	k.t.Helper()
	frees := 0
	for late := time.Now().Add(patience); ; {
		freed := k.done[hangOfEngine]
		ctx, cancel := context.WithTimeout(k.t.Context(), hangTime)
		wrong := look(ctx)
		cancel()
		switch {
		case len(wrong) == 0:
			return
		case frees < 3 && (k.done[hangOfEngine] > freed || k.freeHung()):
			frees++
			late = time.Now().Add(patience)
		case time.Now().After(late):
			require.Empty(k.t, wrong, what)
		}
	}
}

// awaitRunning is the swarm's, on an engine that may hang.
func (k *soak) awaitRunning(service string, replicas int) {
	k.t.Helper()
	k.untilRight(fmt.Sprintf("service %s should have %d running tasks", service, replicas), func(ctx context.Context) []string {
		return k.unlike(ctx, service, control.AllRun(replicas))
	})
}

// remove is the swarm's, on an engine that may hang.
func (k *soak) remove(service string) {
	k.t.Helper()
	k.removeOnly(service)
	k.untilRight("tasks and containers of a removed service", func(ctx context.Context) []string {
		wrong := k.unlike(ctx, service, noTasks)
		for len(wrong) == 0 {
			left := len(k.containers(service))
			if left == 0 {
				return nil
			}
			if ctx.Err() != nil {
				return []string{fmt.Sprint(left, " containers")}
			}
			time.Sleep(100 * time.Millisecond)
		}
		return wrong
	})
}

// unlike waits until reached is true of a service's tasks, or until ctx ends: then it
// says what these are.
func (k *soak) unlike(ctx context.Context, service string, reached func([]*api.Task) bool) []string {
	tasks, err := k.tasks.Await(ctx, service, reached)
	if err == nil {
		return nil
	}
	wrong := []string{fmt.Sprint(len(tasks), " tasks")}
	for _, task := range tasks {
		wrong = append(wrong, task.ID+": "+describe(task))
	}
	return wrong
}

// removeByForce removes a container, on an engine that may hang.
func (k *soak) removeByForce(id string) error {
	k.t.Helper()
	for frees := 0; ; frees++ {
		ctx, cancel := context.WithTimeout(k.t.Context(), hangTime)
		err := k.engine.ContainerRemove(ctx, id, container.RemoveOptions{Force: true})
		late := ctx.Err() != nil
		cancel()
		if cerrdefs.IsNotFound(err) {
			return nil
		}
		if err == nil || !late || frees == 3 || !k.freeHung() {
			return err
		}
	}
}
