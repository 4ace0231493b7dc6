package main

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/volume"
	gogotypes "github.com/gogo/protobuf/types"
	"github.com/moby/swarmkit/v2/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// onEngine are the containers of tasks.
func (k *soak) onEngine() []container.Summary {
	k.t.Helper()
	ctx, cancel := context.WithTimeout(k.t.Context(), patience) // an engine that hangs fails the soak
	defer cancel()
	list, err := k.engine.ContainerList(ctx, container.ListOptions{All: true, Filters: ofTasks()})
	require.NoError(k.t, err)
	slices.SortFunc(list, func(a, b container.Summary) int { return cmp.Compare(a.ID, b.ID) })
	return list
}

func (k *soak) onEngineRunning() []container.Summary {
	return slices.DeleteFunc(k.onEngine(), func(c container.Summary) bool { return c.State != container.StateRunning })
}

func taskOf(c container.Summary) string { return c.Labels["com.docker.swarm.task.id"] }

// known are SwarmKit's tasks by their IDs.
func (k *soak) known() map[string]*api.Task {
	k.t.Helper()
	var answer *api.ListTasksResponse
	require.Eventually(k.t, func() (listed bool) {
		var err error
		answer, err = k.api.ListTasks(k.t.Context(), &api.ListTasksRequest{})
		if status.Code(err) == codes.Unavailable {
			return false
		}
		require.NoError(k.t, err)
		return true
	}, patience, 50*time.Millisecond)
	known := map[string]*api.Task{}
	for _, task := range answer.Tasks {
		known[task.ID] = task
	}
	return known
}

// converge lets jobs be services, and waits until each service has its tasks. Those
// with a health check are made anew, since engine 20.10 never again checks a
// container that ran when it was restarted: one that was not healthy stays so.
func (k *soak) converge() {
	k.t.Helper()
	for _, name := range []string{"checked", "sickens"} {
		k.persistently(k.services[name], func(spec *api.ServiceSpec) { spec.Task.ForceUpdate++ })
	}
	k.persistently(k.services["jobs"], func(spec *api.ServiceSpec) { spec.Task.GetContainer().Args = []string{"sleep", "1h"} })
	for _, name := range soakNames {
		id := k.services[name]
		k.awaitRunning(id, int(k.get(id).Spec.GetReplicated().Replicas))
	}
}

// awaitExact waits until the engine has what SwarmKit says: a running container for
// each task that runs, at most one that does not for each that has ended, and none
// besides.
func (k *soak) awaitExact() {
	k.t.Helper()
	k.untilRight("between SwarmKit and the engine", func(ctx context.Context) []string {
		for {
			wrong := k.differences(ctx)
			if len(wrong) == 0 && k.freeHung() { // of what it hangs on, its list is not true
				wrong = []string{hangOfEngine}
			}
			if len(wrong) == 0 || ctx.Err() != nil {
				return wrong
			}
			time.Sleep(100 * time.Millisecond)
		}
	})
}

func (k *soak) differences(ctx context.Context) (wrong []string) {
	known, seen, orphans := k.known(), map[string]bool{}, 0
	for _, c := range k.onEngine() {
		task := known[taskOf(c)]
		switch {
		case task == nil && k.orphans[c.ID] != "" && (c.State != container.StateRunning || k.forgotten(c)):
			orphans++
		case task == nil:
			wrong = append(wrong, fmt.Sprintf("container %v %s of no task, %q, left by an end of the node: %v; its task was: %s; it is: %s",
				c.Names, c.State, k.hit[taskOf(c)], k.orphans[c.ID] != "", k.past(c.Labels["com.docker.swarm.service.id"], taskOf(c)), k.inspected(ctx, c.ID)))
		case seen[task.ID]:
			wrong = append(wrong, fmt.Sprintf("two containers of task %s", task.ID))
		case running(task) != (c.State == container.StateRunning):
			wrong = append(wrong, fmt.Sprintf("container %v %s of task %s", c.Names, c.State, describe(task)))
		}
		if task != nil {
			seen[task.ID] = true
		}
	}
	k.left = orphans
	for id, task := range known {
		had := task.Status.GetContainer() != nil && task.Status.GetContainer().ContainerID != ""
		if !seen[id] && (running(task) || had && k.hit[id] != removalOfContainer && k.hit[id] != hangOfEngine) {
			wrong = append(wrong, fmt.Sprintf("no container of task %s %s, after %q; it was: %s", id, describe(task), k.hit[id], k.past(task.ServiceID, id)))
		}
	}
	return wrong
}

// forgotten reports whether SwarmKit forgot a container's task before it knew that
// the task had ended, as far as was seen: while the node starts, versions are missed.
func (k *soak) forgotten(c container.Summary) bool {
	versions := k.versions(c.Labels["com.docker.swarm.service.id"], taskOf(c))
	return len(versions) > 0 && versions[len(versions)-1].Status.State <= api.TaskStateRunning
}

// inspected is the state of a container.
func (k *soak) inspected(ctx context.Context, id string) string {
	k.t.Helper()
	answer, err := k.engine.ContainerInspect(ctx, id)
	if err != nil {
		return err.Error()
	}
	return fmt.Sprintf("created %s, %+v", answer.Created, *answer.State)
}

// past are the states that a task of a service was in.
func (k *soak) past(service, task string) string {
	var states []string
	for _, version := range k.versions(service, task) {
		states = append(states, version.Status.Timestamp.String()+" "+describe(version))
	}
	return strings.Join(states, "; ")
}

// versions are those of a task of a service, as far as they were seen.
func (k *soak) versions(service, task string) []*api.Task {
	for _, versions := range k.tasks.History(service) {
		if versions[0].ID == task {
			return versions
		}
	}
	return nil
}

// cameToLife is what a task ends with whose container ran, unknown to the engine.
const cameToLife = ": the engine ended within it; the container ran without network and log, and was stopped"

// lostStart is how an engine refuses to start what runs already, unknown to it.
var lostStart = regexp.MustCompile(`: (already exists|id already in use|mkdir \S+: file exists)$`)

// lostCreate is how an engine of version 29 refuses a create while what is left of
// another, within which it was killed, is in the way.
var lostCreate = regexp.MustCompile(`: failed to rename: rename \S+ \S+/snapshots/\d+: file exists$`)

// checkEnds sees that no task has ended but those that were made to, and these as
// what was done to them has it.
func (k *soak) checkEnds() {
	k.t.Helper()
	tasks, ends := 0, map[string]int{}
	for _, id := range k.ever {
		tasks += len(k.tasks.History(id))
		for _, task := range k.ended(id) {
			cause := k.cause(task)
			if cause == "" {
				assert.Fail(k.t, "a task has ended without cause", "%s of service %s, after %q: %s; it was: %s",
					task.ID, task.ServiceAnnotations.Name, k.hit[task.ID], describe(task), k.past(task.ServiceID, task.ID))
			}
			ends[fmt.Sprintf("%v after %s", task.Status.State, cause)]++
		}
	}
	k.t.Logf("of %d tasks so far: %v; containers that ends of the node left: %d", tasks, ends, k.left)
}

// cause is why a task has ended as it did; empty: there is no reason.
func (k *soak) cause(task *api.Task) string {
	code, failed := int32(0), task.Status.State == api.TaskStateFailed
	if c := task.Status.GetContainer(); c != nil {
		code = c.ExitCode
	}
	hit, near := k.hit[task.ID], k.nearAnEnd(task)
	isJob := task.ServiceAnnotations.Name == "jobs" && !slices.Contains(task.Spec.GetContainer().Args, "1h")
	switch {
	case hit == killOfContainer && failed && code == 137,
		// A removal by force kills first, which may be seen before the removal is.
		hit == removalOfContainer && failed && (code == 137 || task.Status.Err == "dockerexec: container destroyed"),
		hit == sickening && failed && strings.HasSuffix(task.Status.Err, ": dockerexec: unhealthy container"):
		return hit
	case hit == hangOfEngine && failed: // with the code of whatever ended it
		return hit
	case isJob && (task.Status.State == api.TaskStateCompleted || failed && code == 3):
		return "end of a job"
	case task.Status.State == api.TaskStateCompleted && k.wasToEnd(task):
		// After an operation that is to be tried again, SwarmKit's agent can run two
		// at once: one that waits may then see the end that the other brought about.
		return "its stop"
	case failed && code == 255 && near && (isJob || hit == killOfContainer):
		// The code that an engine gives what ended while it was away.
		return "an end without the engine"
	case near && failed && (code == 128 && lostStart.MatchString(task.Status.Err) || strings.HasSuffix(task.Status.Err, cameToLife)):
		// The engine ended while it started the container, and lost sight of it: it
		// refuses another start, now or later, or finds the container later, which
		// is stopped then.
		return "end of the engine within its start"
	case near && task.Status.State == api.TaskStateRejected && lostCreate.MatchString(task.Status.Err):
		return "end of the engine within a create"
	}
	return ""
}

// wasToEnd reports whether a task was told to end while it ran.
func (k *soak) wasToEnd(task *api.Task) bool {
	return slices.ContainsFunc(k.versions(task.ServiceID, task.ID), func(version *api.Task) bool {
		return running(version) && !wantedToRun(version)
	})
}

// nearAnEnd reports whether a task ended within half a minute of an end or start of
// the engine, or of the node, which notices then what it has missed.
func (k *soak) nearAnEnd(task *api.Task) bool {
	at, err := gogotypes.TimestampFromProto(task.Status.Timestamp)
	require.NoError(k.t, err)
	return slices.ContainsFunc(k.moments, func(m time.Time) bool { return at.Sub(m).Abs() <= 30*time.Second })
}

// end removes all and sees what is left.
func (k *soak) end() {
	k.t.Helper()
	k.follower.stop()
	k.t.Logf("%d lines followed in %d subscriptions", k.follower.lines, k.follower.subscriptions)
	if len(k.follower.kept) > 0 {
		k.t.Logf("the engine's own logs are out of order for %d tasks: %v", len(k.follower.kept), k.follower.kept)
	}
	assert.Empty(k.t, k.follower.wrong)
	assert.NotZero(k.t, k.follower.lines)
	for _, id := range k.services {
		k.remove(id)
	}
	k.awaitExact()
	attached := k.removeOrphans()
	assert.Empty(k.t, k.onEngine())
	k.checkFiles()
	volumes, err := k.engine.VolumeList(k.t.Context(), volume.ListOptions{})
	require.NoError(k.t, err)
	for _, v := range volumes.Volumes {
		assert.True(k.t, strings.HasPrefix(v.Name, "dockerexec-soak-"), "volume %s is of no task", v.Name)
		require.NoError(k.t, k.engine.VolumeRemove(k.t.Context(), v.Name, false))
	}
	err = k.engine.NetworkRemove(context.Background(), "dockerexec-soak")
	if !attached {
		assert.True(k.t, cerrdefs.IsNotFound(err), "the network is left, though no container is")
	}
}

// removeOrphans removes the containers that ends of the node have left, and reports
// whether one of them was attached to the services' network.
func (k *soak) removeOrphans() (attached bool) {
	k.t.Helper()
	for _, c := range k.onEngine() {
		if k.orphans[c.ID] == "" {
			continue
		}
		if _, is := c.NetworkSettings.Networks["dockerexec-soak"]; is {
			attached = true
		}
		require.NoError(k.t, k.removeByForce(c.ID))
	}
	return attached
}

// checkFiles sees that no secret is left but those of orphans, which the package
// removes when it first has files to do with after it was started.
func (k *soak) checkFiles() {
	k.t.Helper()
	const dir = "/run/dockerexec/secrets" // the default of WithSecretsDir
	folders, err := filepath.Glob(dir + "/*/*")
	require.NoError(k.t, err)
	tasks := slices.Collect(maps.Values(k.orphans))
	for _, folder := range folders {
		assert.Contains(k.t, tasks, filepath.Base(folder), "secrets of no task are left")
	}
	assert.NoError(k.t, os.RemoveAll(dir))
}
