package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/moby/swarmkit/v2/api"
	"google.golang.org/grpc/status"
)

// scene is a part of a swarm's life. do returns once it is over; then the check must hold.
type scene struct {
	name string
	do   func(context.Context) (concerned, error)
}

// concerned is what a scene is about: its requests are those of these hosts, and its tasks
// are those that are made, ended or left alone there.
type concerned struct {
	hosts []*host
	tasks int
}

// scenes are the life of the swarm, in order.
func (s *simulation) scenes() []scene {
	return []scene{
		{"agents join", s.join},
		{"all up", s.up},
		{"nothing happens", s.rest},
		{"rolling update", s.update},
		{"engines lost", s.loseEngines},
		{"engines back", s.enginesBack},
		{"hosts lost", s.loseHosts},
		{"hosts back", s.hostsBack},
		{"all removed", s.remove},
	}
}

func (s *simulation) join(ctx context.Context) (concerned, error) {
	if err := each(s.agents, func(h *host) error { return h.start(ctx) }); err != nil {
		return concerned{}, err
	}
	return concerned{hosts: s.agents}, s.await(ctx, func() (bool, error) {
		list, err := s.swarm.api.ListNodes(ctx, &api.ListNodesRequest{})
		if err != nil {
			return false, err
		}
		ready := 0
		for _, node := range list.Nodes {
			if node.Status.State == api.NodeStatus_READY {
				ready++
			}
		}
		return ready == len(s.agents)+len(s.swarm.managers), nil
	})
}

func (s *simulation) up(ctx context.Context) (concerned, error) {
	if err := s.service.create(ctx, s.plan); err != nil {
		return concerned{}, err
	}
	s.want = want{s.plan.total(), firstImage}
	return s.all(), s.scaleTo(ctx, 1, s.plan.rounds)
}

// scaleTo scales the service step by step, in tenths of all tasks if the plan has ten
// rounds. All agents share the cores here: if each of them started all of its tasks at
// once, the managers would get no CPU, which no real swarm does to its managers.
func (s *simulation) scaleTo(ctx context.Context, from, to int) error {
	step := 1
	if from > to {
		step = -1
	}
	for round := from; round != to+step; round += step {
		tasks := s.plan.total() * round / s.plan.rounds
		if err := s.service.scale(ctx, tasks); err != nil {
			return err
		}
		if err := s.awaitRunning(ctx, tasks); err != nil {
			return err
		}
	}
	return nil
}

func (s *simulation) rest(ctx context.Context) (concerned, error) {
	return s.all(), pause(ctx, s.plan.quiet)
}

func (s *simulation) update(ctx context.Context) (concerned, error) {
	if err := s.service.update(ctx); err != nil {
		return concerned{}, err
	}
	s.want.image = secondImage
	return s.all(), s.await(ctx, func() (bool, error) { return s.service.isUpdated(ctx) })
}

// loseEngines makes a tenth of the engines unreachable, while their containers run on.
// The agents are still there, so the managers see no change and move no task.
func (s *simulation) loseEngines(ctx context.Context) (concerned, error) {
	for _, h := range s.tenth() {
		h.engine.Down()
	}
	return s.onTenth(), pause(ctx, s.plan.outage)
}

// enginesBack ends one container on each lost engine, which the agents must find once the
// engine is back, although they got no event of it. The managers replace these tasks.
func (s *simulation) enginesBack(context.Context) (concerned, error) {
	ended := concerned{hosts: s.tenth()}
	for _, h := range s.tenth() {
		if held := h.engine.Containers(); len(held) > 0 {
			held[0].Exit(1)
			ended.tasks++
		}
		h.engine.Up()
	}
	return ended, nil // the check does not hold until the exits are found and all tasks run again
}

// loseHosts loses a tenth of the hosts, agent and engine. Once the managers have missed
// three heartbeats of an agent, they put its tasks on other hosts. The lost containers run
// on, and the managers still list them.
func (s *simulation) loseHosts(ctx context.Context) (concerned, error) {
	moved := concerned{s.agents[len(s.tenth()):], s.onTenth().tasks}
	if err := each(s.tenth(), (*host).lose); err != nil {
		return moved, err
	}
	return moved, s.awaitRunning(ctx, s.plan.total()+moved.tasks)
}

// hostsBack starts the lost hosts again. Their old tasks end there.
func (s *simulation) hostsBack(ctx context.Context) (concerned, error) {
	back := s.onTenth()
	if err := each(s.tenth(), func(h *host) error { return h.comeBack(ctx) }); err != nil {
		return back, err
	}
	return back, s.awaitRunning(ctx, s.plan.total())
}

func (s *simulation) remove(ctx context.Context) (concerned, error) {
	if err := s.scaleTo(ctx, s.plan.rounds-1, 0); err != nil {
		return concerned{}, err
	}
	s.want.tasks = 0
	return s.all(), s.service.remove(ctx)
}

// tenth is the tenth of the hosts that the scenes lose.
func (s *simulation) tenth() []*host { return s.agents[:max(len(s.agents)/10, 1)] }

func (s *simulation) all() concerned { return concerned{s.agents, s.plan.total()} }

// onTenth is the tenth with the containers that it holds.
func (s *simulation) onTenth() concerned {
	c := concerned{hosts: s.tenth()}
	for _, h := range c.hosts {
		c.tasks += len(h.engine.Containers())
	}
	return c
}

func (s *simulation) awaitRunning(ctx context.Context, tasks int) error {
	running := 0
	err := s.await(ctx, func() (bool, error) {
		var err error
		running, err = s.service.running(ctx)
		return running == tasks, err
	})
	if err != nil {
		return fmt.Errorf("%d tasks run, want %d: %w", running, tasks, err)
	}
	return nil
}

// await asks again and again until what it waits for is so. A call that fails is repeated
// too: the managers may be choosing a leader.
func (s *simulation) await(ctx context.Context, isSo func() (bool, error)) error {
	for {
		began := time.Now()
		so, err := isSo()
		if _, ofCall := status.FromError(err); so || !ofCall {
			return err
		}
		// The question costs CPU too, which is to be measured as little as possible.
		if ended := pause(ctx, max(s.plan.heartbeat/20, 2*time.Since(began))); ended != nil {
			return errors.Join(err, ended)
		}
	}
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
