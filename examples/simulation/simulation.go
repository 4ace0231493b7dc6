package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/moby/swarmkit/v2/api"
)

// plan says how large a swarm is, and how long things take.
type plan struct {
	agents, tasks int           // tasks: for each agent
	rounds        int           // of the rolling update
	heartbeat     time.Duration // a host without one is lost after three of these
	quiet, outage time.Duration
	limit         time.Duration // for a scene
	profiles      string        // folder; empty: none
}

func (p plan) total() int { return p.agents * p.tasks }

// result is what a swarm of one size took.
type result struct {
	plan              plan
	scenes            []figures
	empty, idle, busy footprint // the managers alone; with engines and agents; with all tasks
}

// simulation is one swarm.
type simulation struct {
	plan    plan
	faults  faults
	swarm   swarm
	agents  []*host
	service service
	want    want
}

// simulateOne runs a swarm of one size through all scenes.
func simulateOne(ctx context.Context, p plan, progress io.Writer) (r result, err error) {
	dir, err := stateDir()
	if err != nil {
		return r, err
	}
	s := &simulation{plan: p}
	defer func() { err = errors.Join(err, s.end(), os.RemoveAll(dir)) }()
	if err := startSwarm(ctx, &s.swarm, dir, p.heartbeat, &s.faults); err != nil {
		return r, err
	}
	s.service.api = s.swarm.api
	r.plan = p
	if r.empty, err = takeFootprint(); err != nil {
		return r, err
	}
	for i := range p.agents {
		config, err := s.swarm.agentConfig(dir, i)
		if err != nil {
			return r, err
		}
		s.agents = append(s.agents, newHost(agentsPart, config, &s.faults))
	}
	for _, next := range s.scenes() {
		f, err := s.play(ctx, next)
		if err != nil {
			return r, fmt.Errorf("%s: %w", next.name, err)
		}
		r.scenes = append(r.scenes, f)
		fmt.Fprintf(progress, "%5d agents, %s: %.1f s, %.1f s of CPU\n", p.agents, f.scene, f.took.Seconds(), f.cpu.Seconds())
		switch next.name {
		case "agents join":
			r.idle, err = takeFootprint()
		case "all up":
			r.busy, err = takeFootprint()
		}
		if err != nil {
			return r, err
		}
	}
	return r, nil
}

// play runs and measures a scene, the check included.
func (s *simulation) play(ctx context.Context, next scene) (figures, error) {
	ctx, cancel := context.WithTimeout(ctx, s.plan.limit)
	defer cancel()
	for _, h := range s.hosts() {
		h.engine.ForgetRequests() // they take memory, and nobody looks at them
	}
	before := map[*host]counts{}
	for _, h := range s.agents {
		before[h] = h.traffic.now()
	}
	m, err := startMeter()
	if err != nil {
		return figures{}, err
	}
	about, err := next.do(ctx)
	if err == nil {
		err = s.settle(ctx)
	}
	f, stopped := m.stop(s.plan.profiles, fmt.Sprintf("%d-%s", s.plan.agents, strings.ReplaceAll(next.name, " ", "-")))
	f.scene, f.agents, f.tasks = next.name, len(about.hosts), about.tasks
	for _, h := range about.hosts {
		f.traffic = f.traffic.plus(h.traffic.now().minus(before[h]))
	}
	return f, errors.Join(err, stopped, s.faults.err())
}

// settle waits until the check holds. If it never does, the last differences are the error.
func (s *simulation) settle(ctx context.Context) error {
	var wrong error
	err := s.await(ctx, func() (bool, error) {
		list, err := s.swarm.api.ListTasks(ctx, &api.ListTasksRequest{})
		if err != nil {
			return false, err
		}
		wrong = check(list.Tasks, s.hosts(), s.want)
		return wrong == nil, nil
	})
	if err != nil && wrong != nil {
		return wrong
	}
	return err
}

func (s *simulation) hosts() []*host {
	return append(append([]*host(nil), s.swarm.managers...), s.agents...)
}

// end ends all nodes, and then the engines.
func (s *simulation) end() error {
	err := errors.Join(each(s.agents, (*host).stop), s.swarm.stop())
	for _, h := range s.hosts() {
		h.engine.Close()
	}
	return errors.Join(err, s.faults.err())
}

// stateDir makes a folder for a swarm, whose path is short: a socket will be in it.
func stateDir() (string, error) {
	// Each node's database syncs its file at each change of a task. In memory that costs as
	// little as on 1,000 machines with a disk each.
	if dir, err := os.MkdirTemp("/dev/shm", "simulation"); err == nil {
		return dir, nil
	}
	return os.MkdirTemp("", "simulation")
}
