package dockerexec

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/image"
	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/moby/swarmkit/v2/log"
	"github.com/pkg/errors"
)

// Orphan is a container of a task that nobody runs any more. [Engine.Orphans] finds it.
type Orphan struct {
	ContainerID string
	Name        string // the container's, without a slash
	TaskID      string
	ServiceID   string // empty: the task belongs to no service
	NodeID      string
	State       string // as the engine's list says: "running", "exited", "created", …
}

// Orphans lists the containers that an earlier process has left behind. They carry nodeID
// in their label [LabelNodeID], and in their label [LabelTaskID] the ID of a task that
// nobody runs. They are sorted by name. nodeID must not be empty: containers of different
// programs on one engine are told apart by it. It is the NodeID of the tasks.
//
// known reports whether a task is still wanted, for example because it has not been begun
// yet, or because it was refused. It may be called several times for one task. nil: no
// further tasks are known.
//
// These containers are never in the list:
//
//   - The container of a task that known reports.
//   - The container of a task that has a controller of this Engine, until its Close.
//   - The container of a task that has an adapter of this Engine, until its Remove has
//     succeeded.
//   - A container whose name does not end in the ID of its task: somebody has renamed it,
//     or the task chose the name.
//   - A container whose image carries the same label of the task, or is not shown by the
//     engine: somebody runs a copy of a task's container.
//   - Each of several containers of one task: nobody can tell which one is the task's. One
//     warning in the log names two of them.
//
// Orphans changes nothing. While a list is made, a task may be made in another process. So
// remove an orphan only if it was in the lists for some minutes. The client must not be a
// fake without ContainerList and ImageInspect. The errors are as for [ContainerAdapter].
func (e *Engine) Orphans(ctx context.Context, nodeID string, known func(taskID string) bool) (orphans []Orphan, err error) {
	if err := e.usable(); err != nil {
		return nil, err
	}
	ctx, end := e.telemetry.begin(ctx, methodOrphans, nil)
	defer end(&err)
	if nodeID == "" {
		return nil, errors.New("dockerexec: list orphans: the node's ID is empty")
	}
	began := time.Now()
	byTask, err := e.taskContainers(ctx, e, filters.Arg("label", LabelTaskID))
	if err != nil {
		return nil, engineError(ctx, err, "list orphans: containers (GET /containers/json)")
	}
	e.tasks.forgetWithout(began, byTask)
	for task, containers := range byTask {
		if known != nil && known(task) || e.tasks.knows(task) {
			continue
		}
		own, err := e.leftOf(ctx, e, containers, nodeID)
		if err != nil {
			return nil, engineError(ctx, err, "list orphans: the image of a container of task %s", task)
		}
		if len(own) > 1 && e.tasks.doubt(task) {
			ctx := withFields(ctx, log.Fields{"task.id": task, "service.id": own[0].Labels[labelServiceID], "node.id": nodeID})
			warnOfDoubt(ctx, own[0].ID, own[1].ID)
		}
		if o := onlyOrphan(own, nodeID); o != nil {
			orphans = append(orphans, *o)
		}
	}
	slices.SortFunc(orphans, func(a, b Orphan) int { return strings.Compare(a.Name, b.Name) })
	return orphans, nil
}

// taskContainers lists the containers of tasks, by their tasks' IDs.
func (e *Engine) taskContainers(ctx context.Context, by caller, filter filters.KeyValuePair) (map[string][]container.Summary, error) {
	list, err := request(ctx, by, 0, func(ctx context.Context) ([]container.Summary, error) {
		return e.client.ContainerList(ctx, container.ListOptions{All: true, Filters: filters.NewArgs(filter)})
	})
	byTask := map[string][]container.Summary{}
	for _, c := range list {
		if task := c.Labels[LabelTaskID]; task != "" {
			byTask[task] = append(byTask[task], c)
		}
	}
	return byTask, err
}

// leftOf returns the containers of a task that nobody runs, without those that run a copy of
// its image. There are none if none of them is of the node.
func (e *Engine) leftOf(ctx context.Context, by caller, containers []container.Summary, nodeID string) (own []container.Summary, err error) {
	isNodes := func(c container.Summary) bool { return orphanOf(c, nodeID) != nil }
	if !slices.ContainsFunc(containers, isNodes) {
		return nil, nil
	}
	for _, c := range containers {
		isCopy, err := e.isCopy(ctx, by, c.Labels[LabelTaskID], c.ImageID)
		if err != nil {
			return nil, err
		}
		if !isCopy {
			own = append(own, c)
		}
	}
	return own, nil
}

// onlyOrphan returns the orphan if a task has one container. It is nil if there are several:
// nobody can tell which one is the task's.
func onlyOrphan(own []container.Summary, nodeID string) *Orphan {
	if len(own) != 1 {
		return nil
	}
	return orphanOf(own[0], nodeID)
}

// orphanOf returns a container as an orphan of the node. It is nil if the container's
// labels and name do not say that it is a container of the node's tasks.
func orphanOf(c container.Summary, nodeID string) *Orphan {
	o := Orphan{ContainerID: c.ID, TaskID: c.Labels[LabelTaskID], ServiceID: c.Labels[labelServiceID], NodeID: nodeID, State: c.State}
	if c.Labels[LabelNodeID] != nodeID || c.ID == "" {
		return nil
	}
	for _, name := range c.Names { // the others are aliases in another container: /other/alias
		if name = strings.TrimPrefix(name, "/"); !strings.Contains(name, "/") && o.isNamed(name) {
			o.Name = name
			return &o
		}
	}
	return nil
}

// isNamed reports whether the name of a container ends in the ID of the orphan's task.
func (o Orphan) isNamed(name string) bool {
	return o.TaskID != "" && strings.HasSuffix(name, "."+o.TaskID)
}

// isCopy reports whether a container of the image has the task's label from the image. Then
// somebody has committed the task's container to an image, and runs that image. If the
// engine does not show the image, the container counts as a copy too: the image may have
// the label.
func (e *Engine) isCopy(ctx context.Context, by caller, taskID, imageID string) (bool, error) {
	answer, err := request(ctx, by, 0, func(ctx context.Context) (image.InspectResponse, error) {
		return e.client.ImageInspect(ctx, imageID)
	})
	switch {
	case err == nil:
		return answer.Config != nil && answer.Config.Labels[LabelTaskID] == taskID, nil
	case ctx.Err() != nil, isPassing(err) && !cerrdefs.IsNotFound(err):
		return false, err
	}
	return true, nil
}

// orphanOvertime is how long RemoveOrphan may take beside the grace period. In this time an
// engine can restart.
const orphanOvertime = 2 * time.Minute

// errWanted says that the task of an orphan is wanted again, or that its orphan is being
// removed by another call.
var errWanted = errors.New("its task has a controller or an adapter, or another call removes it")

// RemoveOrphan stops a container that [Engine.Orphans] has listed, with the grace period
// that the container was made with. Then it removes the container, its anonymous volumes,
// its networks that this package made and that nobody uses, and the files of its secrets
// and configs. A container that is gone is no error. RemoveOrphan takes at most the grace
// period and two minutes more. It may be called again after a failure.
//
// RemoveOrphan looks at the container first. It returns an error, and has touched nothing,
// if the container is no orphan any more. That includes a container whose task got a
// controller or an adapter of this Engine before the stop was sent. A controller that is
// made later waits in Prepare, Start and Wait until RemoveOrphan has returned. An adapter
// does not wait.
func (e *Engine) RemoveOrphan(ctx context.Context, o Orphan) (err error) {
	if err := e.usable(); err != nil {
		return err
	}
	if o.ContainerID == "" || o.NodeID == "" || !o.isNamed(o.Name) {
		return errors.Errorf("dockerexec: remove orphan %s: it is none that Orphans has listed", cmp.Or(o.Name, o.ContainerID))
	}
	claim := e.tasks.claim(o.TaskID)
	if claim == nil {
		return errors.Wrapf(errWanted, "remove orphan %s", o.Name)
	}
	defer e.tasks.release(o.TaskID, claim)
	a := newContainerAdapter(e, taskIdentity{taskID: o.TaskID, serviceID: o.ServiceID, nodeID: o.NodeID, name: o.Name},
		makesNothing(errors.New("the task of an orphan makes nothing")))
	ctx, end := a.begin(ctx, methodRemoveOrphan)
	defer end(&err)
	found, err := a.lookAtOrphan(ctx, o)
	if err != nil || !found {
		return err
	}
	if !e.tasks.beginStop(claim) {
		return errors.Wrapf(errWanted, "remove orphan %s", o.Name)
	}
	limit := orphanOvertime + max(0, a.grace())
	limited, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if err = a.removeOrphan(limited); err != nil && limited.Err() != nil && ctx.Err() == nil {
		return exec.MakeTemporary(errors.Errorf("remove orphan %s: not done within %v", o.Name, limit))
	}
	return err
}

// lookAtOrphan looks at an orphan again, and notes what belongs to it. If it is gone, found
// is false. If it is no orphan any more, the error says so.
func (a *ContainerAdapter) lookAtOrphan(ctx context.Context, o Orphan) (found bool, err error) {
	byTask, err := a.engine.taskContainers(ctx, a, filters.Arg("label", LabelTaskID+"="+o.TaskID))
	if err != nil {
		return false, engineError(ctx, err, "remove orphan %s: list containers", o.Name)
	}
	containers := byTask[o.TaskID]
	if !slices.ContainsFunc(containers, func(c container.Summary) bool { return c.ID == o.ContainerID }) {
		return false, nil
	}
	left, err := a.engine.leftOf(ctx, a, containers, o.NodeID)
	if err != nil {
		return false, engineError(ctx, err, "remove orphan %s: inspect its image", o.Name)
	}
	if now := onlyOrphan(left, o.NodeID); now == nil || now.ContainerID != o.ContainerID {
		return false, errors.Errorf("remove orphan %s: it is none any more: its name has changed, or another container has the label of its task", o.Name)
	}
	answer, err := a.inspectAs(ctx, o.ContainerID)
	if ctx.Err() == nil && isContainerGone(err) {
		return false, nil
	}
	if err != nil {
		return false, engineError(ctx, err, "remove orphan %s: inspect it", o.Name)
	}
	if answer.ContainerJSONBase == nil || answer.State == nil || answer.Config == nil {
		return false, errors.Errorf("remove orphan %s: the engine's answer about it is not complete", o.Name)
	}
	a.noteContainer(o.ContainerID)
	a.startLost.Store(isUnstarted(answer)) // nobody knows how the process that made it has ended
	own := ownGrace(answer)
	a.ownGrace.Store(own)
	if own != nil && *own != 0 {
		a.stopTimeout = own // with nil the engine takes the container's own
	}
	if answer.NetworkSettings != nil {
		for name := range answer.NetworkSettings.Networks {
			a.taskIdentity.networks = append(a.taskIdentity.networks, name)
		}
		slices.Sort(a.taskIdentity.networks)
	}
	a.hasFiles = true
	a.noteFiles(answer)
	a.hasFiles = a.mountedUnder.Load() != nil
	return true, nil
}

// removeOrphan stops and removes the container, and then what belongs to it.
func (a *ContainerAdapter) removeOrphan(ctx context.Context) error {
	if err := a.Shutdown(ctx); unfinished(ctx, err) {
		return err
	} else if err != nil { // the removal kills the container
		log.G(a.logContext(ctx)).WithError(err).Debug("container not stopped before its removal")
	}
	if err := a.Remove(ctx); err != nil {
		return err
	}
	return a.RemoveNetworks(ctx)
}

// taskTable is what an Engine knows of tasks: which ones have controllers or adapters, and
// the container of which one is being removed as an orphan. The zero value is ready for use.
type taskTable struct {
	mu      sync.Mutex
	tasks   map[string]*taskUse // by the task's ID
	doubted map[string]bool     // IDs of tasks with several containers, which a warning has named
}

type taskUse struct {
	controllers int // that are not closed
	// When an adapter was made or has created the container, or an executor has refused the
	// task. Zero: neither, or the container was removed since.
	noted time.Time
	claim *orphanClaim // nil: no removal of an orphan runs
}

func (u *taskUse) isKnown() bool { return u.controllers > 0 || !u.noted.IsZero() }

// orphanClaim is one removal of an orphan. Before the stop, a controller or an adapter that
// is made for the task cancels it. From the stop on, controllers wait for its end.
type orphanClaim struct {
	canceled bool
	stopping bool
	ended    chan struct{}
}

// change calls do with what is known of a task. Then it drops what says nothing.
func (t *taskTable) change(taskID string, do func(*taskUse)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	u := t.tasks[taskID]
	if u == nil {
		u = &taskUse{}
	}
	do(u)
	if u.claim != nil && !u.claim.stopping && u.isKnown() {
		u.claim.canceled = true
	}
	if !u.isKnown() && u.claim == nil {
		delete(t.tasks, taskID)
		return
	}
	if t.tasks == nil {
		t.tasks = map[string]*taskUse{}
	}
	t.tasks[taskID] = u
}

// enter notes a controller of the task, until leave.
func (t *taskTable) enter(taskID string) { t.change(taskID, func(u *taskUse) { u.controllers++ }) }
func (t *taskTable) leave(taskID string) { t.change(taskID, func(u *taskUse) { u.controllers-- }) }

// note notes a task that has no controller which could be closed. It is forgotten when its
// container is removed, or when a list shows no container of it.
func (t *taskTable) note(taskID string) {
	t.change(taskID, func(u *taskUse) { u.noted = time.Now() })
}
func (t *taskTable) forget(taskID string) {
	t.change(taskID, func(u *taskUse) { u.noted = time.Time{} })
}

// doubt notes a task that has several containers, as long as a list shows several. It reports
// whether that is new.
func (t *taskTable) doubt(taskID string) (isNew bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.doubted == nil {
		t.doubted = map[string]bool{}
	}
	isNew = !t.doubted[taskID]
	t.doubted[taskID] = true
	return isNew
}

// forgetWithout forgets the noted tasks that have no container in a list. The list began at
// the given time: a task that was noted later may have a container since.
func (t *taskTable) forgetWithout(began time.Time, containers map[string][]container.Summary) {
	t.mu.Lock()
	maps.DeleteFunc(t.doubted, func(id string, _ bool) bool { return len(containers[id]) < 2 })
	var gone []string
	for id, u := range t.tasks {
		if !u.noted.IsZero() && u.noted.Before(began) && len(containers[id]) == 0 {
			gone = append(gone, id)
		}
	}
	t.mu.Unlock()
	for _, id := range gone {
		t.change(id, func(u *taskUse) {
			if u.noted.Before(began) {
				u.noted = time.Time{}
			}
		})
	}
}

// knows reports whether the task has a controller or was noted.
func (t *taskTable) knows(taskID string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	u := t.tasks[taskID]
	return u != nil && u.isKnown()
}

// claim begins the removal of the task's orphan. It is nil if the task is known, or if
// another removal runs. The caller must call release.
func (t *taskTable) claim(taskID string) (claim *orphanClaim) {
	t.change(taskID, func(u *taskUse) {
		if !u.isKnown() && u.claim == nil {
			claim = &orphanClaim{ended: make(chan struct{})}
			u.claim = claim
		}
	})
	return claim
}

// beginStop reports whether the removal may stop the container. From then on nobody cancels
// the removal.
func (t *taskTable) beginStop(claim *orphanClaim) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	claim.stopping = !claim.canceled
	return claim.stopping
}

func (t *taskTable) release(taskID string, claim *orphanClaim) {
	t.change(taskID, func(u *taskUse) { u.claim = nil })
	close(claim.ended)
}

// await waits while the removal of the task's orphan stops and removes its container.
func (t *taskTable) await(ctx context.Context, taskID string) error {
	t.mu.Lock()
	var claim *orphanClaim
	if u := t.tasks[taskID]; u != nil && u.claim != nil && u.claim.stopping {
		claim = u.claim
	}
	t.mu.Unlock()
	if claim == nil {
		return nil
	}
	select {
	case <-claim.ended:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
