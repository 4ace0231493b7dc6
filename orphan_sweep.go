package dockerexec

import (
	"context"
	"sync"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/network"
	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/moby/swarmkit/v2/log"
	"github.com/pkg/errors"
)

// orphanSweep finds what the agent of an executor has left behind on the engine, and reports
// or removes it. SwarmKit's agent forgets a removed task before the task's container is
// removed. So if the agent ends in between, nobody asks for that removal again.
//
// The agent calls Describe every 20 seconds. Each successful Describe starts one look, unless
// one still runs. A look and the removals that it starts are goroutines of their own, because
// the agent stands still during Describe. They end with the context of that Describe, which
// is the agent's.
//
// Nothing is looked for before it is certain which tasks the agent has. That is so once the
// agent has got a complete set of its tasks. (The agent makes the controllers of all tasks
// of the set within the same call, before it writes them down.)
type orphanSweep struct {
	engine *Engine

	mu         sync.Mutex
	nodeID     string // in the swarm; empty: Configure was not called yet
	assigned   bool   // the agent has got a complete set of tasks
	controlled bool   // Controller was called: the tasks of the node are in the hands of this executor
	looking    bool
	removing   map[string]bool // by the container's ID
	due        []Orphan        // of the last look, not being removed yet
	containers sightings
	networks   sightings
	counted    int // how many containers the metrics show as left behind
}

// mostRemovals bounds the removals of one executor that run at the same time.
const mostRemovals = 4

// longestBlink is how far apart two looks may be. If they are further apart, the grace begins
// anew: nobody knows what has happened in between, for example while the process was stopped.
const longestBlink = time.Minute

// sightings notes since when each look has found something. The zero value is ready for use.
type sightings struct {
	looked time.Time
	byID   map[string]*sighting
}

type sighting struct {
	since            time.Time
	reported, failed bool // a warning has said so
}

// look takes the IDs of what a look has found. It returns those that each look has found for
// the grace, in the same order.
func (s *sightings) look(grace time.Duration, found []string) (due []string) {
	now, byID := time.Now(), map[string]*sighting{}
	isAnew := now.Sub(s.looked) > longestBlink
	for _, id := range found {
		seen := s.byID[id]
		if seen == nil {
			seen = &sighting{since: now}
		}
		if isAnew {
			seen.since = now
		}
		byID[id] = seen
		if now.Sub(seen.since) >= grace {
			due = append(due, id)
		}
	}
	s.looked, s.byID = now, byID
	return due
}

// assignedSecrets is the executor's store of secrets. It tells the sweep of each complete set
// of tasks: the agent then resets the store.
type assignedSecrets struct {
	exec.SecretsManager
	sweep *orphanSweep
}

func (s assignedSecrets) Reset() {
	s.SecretsManager.Reset()
	s.sweep.mu.Lock()
	defer s.sweep.mu.Unlock()
	s.sweep.assigned = true
}

// configured notes the ID of the node. If the node gets another ID, all begins anew.
func (s *orphanSweep) configured(nodeID string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if nodeID == "" || nodeID == s.nodeID {
		return
	}
	if s.nodeID != "" {
		s.assigned = false // it was the set of the other node
	}
	s.nodeID, s.containers, s.networks = nodeID, sightings{}, sightings{}
}

// asked notes that the agent has asked for the controller of a task, and that the task was
// refused.
func (s *orphanSweep) asked(taskID string, isRefused bool) {
	s.mu.Lock()
	s.controlled = true
	s.mu.Unlock()
	if isRefused && s.engine.options.orphanPolicy != OrphansIgnore {
		s.engine.tasks.note(taskID)
	}
}

// start starts a look, if it is time for one. It never waits. A fake is not looked at: it
// need not implement ContainerList.
func (s *orphanSweep) start(ctx context.Context) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.engine.options.orphanPolicy == OrphansIgnore || s.engine.api.isFake || s.nodeID == "" || !s.assigned || s.looking {
		return
	}
	s.looking = true
	go s.look(ctx, s.nodeID)
}

func (s *orphanSweep) look(ctx context.Context, nodeID string) {
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.looking = false
	}()
	if err := s.lookAtContainers(ctx, nodeID); err != nil {
		s.notLooked(ctx, "GET /containers/json", err)
		return
	}
	if !s.removes() {
		return
	}
	if err := s.lookAtNetworks(ctx); err != nil {
		s.notLooked(ctx, "GET /networks", err)
	}
	if err := s.engine.removeLeftFiles(ctx, s.engine.options.orphanGrace); err != nil {
		s.notLooked(ctx, "GET /info", err)
	}
}

// notLooked logs why a look has failed. The next Describe starts another one.
func (s *orphanSweep) notLooked(ctx context.Context, request string, err error) {
	switch {
	case ctx.Err() != nil:
	case isForbidden(err) || cerrdefs.IsNotFound(err):
		s.engine.optional.without(ctx, request, err, "what was left behind is not looked for")
	default:
		log.G(ctx).WithError(err).Debug("what was left behind is not looked for")
	}
}

// removes reports whether the sweep may remove something. It only reports as long as no
// controller was asked for: then somebody else may have the node's tasks.
func (s *orphanSweep) removes() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.controlled && s.engine.options.orphanPolicy == OrphansRemove
}

func (s *orphanSweep) lookAtContainers(ctx context.Context, nodeID string) error {
	orphans, err := s.engine.Orphans(ctx, nodeID, nil)
	if err != nil {
		return err
	}
	byID, found := map[string]Orphan{}, []string{}
	for _, o := range orphans {
		byID[o.ContainerID] = o
		found = append(found, o.ContainerID)
	}
	removes := s.removes()
	s.mu.Lock()
	defer s.mu.Unlock()
	if nodeID != s.nodeID || !s.assigned {
		return nil // the node has got another ID meanwhile
	}
	s.due = nil
	due := s.containers.look(s.engine.options.orphanGrace, found)
	s.engine.telemetry.orphans.Add(ctx, int64(len(due)-s.counted))
	s.counted = len(due)
	for _, id := range due {
		switch o := byID[id]; {
		case !removes:
			s.reportLocked(ctx, o)
		case !s.removing[id]:
			s.due = append(s.due, o)
		}
	}
	s.startRemovalsLocked(ctx)
	return nil
}

// startRemovalsLocked removes as many of the orphans that are due as may be removed at the
// same time. The end of each removal starts the next one.
func (s *orphanSweep) startRemovalsLocked(ctx context.Context) {
	for len(s.due) > 0 && len(s.removing) < mostRemovals {
		o := s.due[0]
		s.due = s.due[1:]
		if s.removing == nil {
			s.removing = map[string]bool{}
		}
		s.removing[o.ContainerID] = true
		go s.remove(ctx, o)
	}
}

func orphanContext(ctx context.Context, o Orphan) context.Context {
	return withFields(ctx, log.Fields{"task.id": o.TaskID, "service.id": o.ServiceID, "node.id": o.NodeID, "container.id": o.ContainerID})
}

// reportLocked logs one warning for each orphan.
func (s *orphanSweep) reportLocked(ctx context.Context, o Orphan) {
	seen := s.containers.byID[o.ContainerID]
	if seen.reported {
		return
	}
	seen.reported = true
	if s.engine.options.orphanPolicy == OrphansRemove {
		log.G(orphanContext(ctx, o)).Warnf("container %s is left behind by a task that the swarm no longer has; it is not removed, because this executor was not asked for any controller yet", o.Name)
		return
	}
	log.G(orphanContext(ctx, o)).Warnf("container %s is left behind by a task that the swarm no longer has; remove it with: docker rm --force --volumes %s, or have such containers removed with the option WithOrphans(OrphansRemove, …)", o.Name, shortID(o.ContainerID))
}

// remove removes an orphan. If that fails, the next look tries again.
func (s *orphanSweep) remove(ctx context.Context, o Orphan) {
	err := s.engine.RemoveOrphan(ctx, o)
	logger := log.G(orphanContext(ctx, o))
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.removing, o.ContainerID)
	if ctx.Err() == nil {
		s.startRemovalsLocked(ctx)
	}
	seen := s.containers.byID[o.ContainerID]
	isFirst := seen != nil && !seen.failed
	switch {
	case err == nil:
		logger.Infof("container %s was left behind by a task that the swarm no longer has, and is removed", o.Name)
	case ctx.Err() != nil:
	case errors.Is(err, errWanted) || !isFirst:
		logger.WithError(err).Debug("a container that was left behind is not removed")
	default:
		seen.failed = true
		logger.WithError(err).Warn("a container that was left behind is not removed, it is tried again")
	}
}

// lookAtNetworks removes the networks of this package that no container has used for the
// grace. Their last task may have been removed by a process that ended before it removed the
// network.
func (s *orphanSweep) lookAtNetworks(ctx context.Context) error {
	list, err := request(ctx, s.engine, 0, func(ctx context.Context) ([]network.Summary, error) {
		return s.engine.client.NetworkList(ctx, network.ListOptions{Filters: filters.NewArgs(filters.Arg("label", LabelNetwork), filters.Arg("dangling", "true"))})
	})
	if err != nil {
		return err
	}
	names, found := map[string]string{}, []string{}
	for _, n := range list {
		if _, ours := n.Labels[LabelNetwork]; ours && n.ID != "" {
			names[n.ID] = n.Name
			found = append(found, n.ID)
		}
	}
	s.mu.Lock()
	due := s.networks.look(s.engine.options.orphanGrace, found)
	s.mu.Unlock()
	for _, id := range due {
		removed, err := s.engine.removeUnused(ctx, names[id], id)
		if err != nil {
			return err
		}
		if removed {
			log.G(ctx).WithField("network.name", names[id]).Info("a network of this package had no user any more, and is removed")
		}
	}
	return nil
}

// removeUnused removes a network, unless a task of this Engine uses it or a container has it,
// in whatever state.
func (e *Engine) removeUnused(ctx context.Context, name, id string) (removed bool, err error) {
	err = e.networks.withNetworkLock(ctx, name, e.options.requestTimeout, func() error {
		if e.networks.isUsed(name) {
			return nil
		}
		users, err := request(ctx, e, 0, func(ctx context.Context) ([]container.Summary, error) {
			return e.client.ContainerList(ctx, container.ListOptions{All: true, Filters: filters.NewArgs(filters.Arg("network", name))})
		})
		if err != nil || len(users) > 0 {
			return err
		}
		err = do(ctx, e, 0, func(ctx context.Context) error { return e.client.NetworkRemove(ctx, id) })
		if ctx.Err() == nil && (cerrdefs.IsNotFound(err) || IsActiveEndpointError(err)) {
			return nil
		}
		if removed = err == nil; removed {
			e.networks.forget(name, true)
		}
		return err
	})
	return removed, err
}
