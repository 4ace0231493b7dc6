package dockerexec

import (
	"context"
	"sync"
	"time"
)

// networkOwner says what is known about a network: its ID on the engine, and
// whether this package made it.
type networkOwner struct {
	id   string
	ours bool
}

// sharedNetworks is what the adapters of one Engine know about networks, by
// name: which tasks count on it, and what the last CreateNetworks found. A task
// counts from its CreateNetworks to its RemoveNetworks. The zero value is ready.
type sharedNetworks struct {
	mu       sync.Mutex
	networks map[string]*sharedNetwork
}

type sharedNetwork struct {
	tasks map[string]bool // their IDs
	owner *networkOwner   // nil: not known
	gate  chan struct{}   // full while one of the tasks creates or removes it
	users int             // of the gate
}

func (s *sharedNetworks) at(name string) *sharedNetwork {
	n := s.networks[name]
	if n == nil {
		if s.networks == nil {
			s.networks = map[string]*sharedNetwork{}
		}
		n = &sharedNetwork{tasks: map[string]bool{}, gate: make(chan struct{}, 1)}
		s.networks[name] = n
	}
	return n
}

// join has the task count on the network, before it asks for it: whoever leaves
// meanwhile must not take the network away. It reports whether the task did not
// count on it before.
func (s *sharedNetworks) join(name, task string) (joined bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.at(name)
	joined = !n.tasks[task]
	n.tasks[task] = true
	return joined
}

// alone calls do while no other task creates or removes the network. Engine
// 20.10 looks for a network of that name when it begins to create one, and not
// again: of several that are asked for at once it makes several, or refuses them
// for their subnet. And a network must not go under a task that has just been
// told that it is there.
//
// The wait is bounded by timeout, that of an engine call.
func (s *sharedNetworks) alone(ctx context.Context, name string, timeout time.Duration, do func() error) error {
	s.mu.Lock()
	n := s.at(name)
	n.users++
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		n.users--
		s.dropLocked(name)
		s.mu.Unlock()
	}()
	if err := passGate(ctx, n.gate, timeout); err != nil {
		return engineError(ctx, err, "network %s: another task's call comes first", name)
	}
	defer leaveGate(n.gate)
	return do()
}

// learn notes what the network is. One that was made here stays so, also where
// no label says it.
func (s *sharedNetworks) learn(name string, owner networkOwner) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.at(name)
	if n.owner != nil && n.owner.id == owner.id && n.owner.ours {
		return
	}
	n.owner = &owner
}

// leave ends what the task counts on. It returns what is known of the network,
// or nil, and whether other tasks count on it.
func (s *sharedNetworks) leave(name, task string) (owner *networkOwner, others bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.networks[name]
	if n == nil {
		return nil, false
	}
	delete(n.tasks, task)
	s.dropLocked(name)
	return n.owner, len(n.tasks) > 0
}

// forget drops what is known of the network, unless a task has joined meanwhile.
func (s *sharedNetworks) forget(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := s.networks[name]; n != nil && len(n.tasks) == 0 {
		n.owner = nil
	}
}

// dropLocked drops a network of which nothing is known or waited for.
func (s *sharedNetworks) dropLocked(name string) {
	if n := s.networks[name]; n.users == 0 && n.owner == nil && len(n.tasks) == 0 {
		delete(s.networks, name)
	}
}
