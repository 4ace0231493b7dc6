package cluster

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/docker/docker/api/types/events"
	"github.com/docker/docker/api/types/filters"
	engineapi "github.com/docker/docker/client"
)

// recorder notes when the containers of tasks run on one engine. It reads the engine's
// events from the beginning, over the engine's socket, which no cable belongs to.
type recorder struct {
	mu    sync.Mutex
	lives map[string]*life // by the ID of the container
	known map[string]bool  // the events that were noted
	last  int64            // the time of the last one, in nanoseconds
}

// life is what is known of one container.
type life struct {
	task, slot   string // slot: service and slot, or service and node
	starts, ends []time.Time
}

func newRecorder() *recorder { return &recorder{lives: map[string]*life{}, known: map[string]bool{}} }

// record notes until ctx ends. An engine that is away is asked again.
func (r *recorder) record(ctx context.Context, engine *engineapi.Client) {
	for ctx.Err() == nil {
		r.mu.Lock()
		since := fmt.Sprintf("%d.%09d", r.last/1e9, r.last%1e9)
		r.mu.Unlock()
		r.read(ctx, engine, since)
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
		}
	}
}

func (r *recorder) read(ctx context.Context, engine *engineapi.Client, since string) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	messages, broken := engine.Events(ctx, events.ListOptions{Since: since, Filters: filters.NewArgs(filters.Arg("type", "container"))})
	for {
		select {
		case m := <-messages:
			r.note(m)
		case <-broken:
			return
		}
	}
}

func (r *recorder) note(m events.Message) {
	task := m.Actor.Attributes["com.docker.swarm.task.id"]
	isEnd := m.Action == events.ActionDie || m.Action == "died" // Podman's word
	if task == "" || !isEnd && m.Action != events.ActionStart {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	event := strconv.FormatInt(m.TimeNano, 10) + string(m.Action) + m.Actor.ID
	if r.known[event] {
		return
	}
	r.known[event] = true
	r.last = max(r.last, m.TimeNano)
	one := r.lives[m.Actor.ID]
	if one == nil {
		one = &life{task: task, slot: strings.TrimSuffix(m.Actor.Attributes["com.docker.swarm.task.name"], "."+task)}
		r.lives[m.Actor.ID] = one
	}
	if at := time.Unix(0, m.TimeNano); isEnd {
		one.ends = append(one.ends, at)
	} else {
		one.starts = append(one.starts, at)
	}
}

// allEnded notes that all that runs has ended without the engine.
func (r *recorder) allEnded(at time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, one := range r.lives {
		if len(one.ends) < len(one.starts) {
			one.ends = append(one.ends, at)
		}
	}
}

// all returns a copy of what is known, by the ID of the container.
func (r *recorder) all() map[string]life {
	r.mu.Lock()
	defer r.mu.Unlock()
	copied := map[string]life{}
	for id, one := range r.lives {
		copied[id] = life{one.task, one.slot, slices.Clone(one.starts), slices.Clone(one.ends)}
	}
	return copied
}

// has says whether a container was seen to start.
func (r *recorder) has(container string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.lives[container] != nil && len(r.lives[container].starts) > 0
}

// run is a stretch of time in which a container of a task ran on a host.
type run struct {
	host            *host
	task, container string
	span
}

// doubles says which tasks ran twice, and which ran beside another one of their slot although
// the swarm did not ask for that. It asks for that where it has lost sight of a host, since it
// cannot wait for the end of the tasks there, and where mayRunBeside says so.
func doubles(hosts []*host, mayRunBeside func(slot string, later run) bool) (wrong []string) {
	bySlot, byTask := map[string][]run{}, map[string]string{}
	for _, h := range hosts {
		for id, one := range h.seen.all() {
			if other := byTask[one.task]; other != "" {
				wrong = append(wrong, fmt.Sprintf("task %s has had two containers: %s and %s", one.task, other, h.name+" "+id))
			}
			byTask[one.task] = h.name + " " + id
			if len(one.starts) > 1 {
				wrong = append(wrong, fmt.Sprintf("container %s of task %s was started %d times", id, one.task, len(one.starts)))
			}
			if len(one.starts) == 0 { // the end of what was never seen to start
				continue
			}
			r := run{h, one.task, id, span{begin: one.starts[0]}}
			if len(one.ends) > 0 {
				r.end = one.ends[0]
			}
			bySlot[one.slot] = append(bySlot[one.slot], r)
		}
	}
	for _, slot := range slices.Sorted(maps.Keys(bySlot)) {
		runs := bySlot[slot]
		slices.SortFunc(runs, func(a, b run) int { return a.begin.Compare(b.begin) })
		for i, later := range runs {
			for _, earlier := range runs[:i] {
				if earlier.holds(later.begin) && !earlier.host.wasAwayAt(later.begin) && !mayRunBeside(slot, later) {
					wrong = append(wrong, fmt.Sprintf("slot %s: task %s began on %s at %s, while task %s ran on %s, which was not away",
						slot, later.task, later.host.name, later.begin.Format(time.StampMilli), earlier.task, earlier.host.name))
				}
			}
		}
	}
	return wrong
}
