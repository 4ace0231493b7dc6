package dockerexec

import (
	"context"
	"reflect"
	"sync"
	"time"
)

// networkOwner is what is known about a network: its ID on the engine, and whether this
// package made it.
type networkOwner struct {
	id   string
	ours bool
}

// sharedNetworks is what the adapters of one Engine know about networks, by name: which
// tasks use a network, and what the last CreateNetworks found. A task uses a network
// from its CreateNetworks to its RemoveNetworks. The zero value is ready for use.
type sharedNetworks struct {
	mu       sync.Mutex
	networks map[string]*sharedNetwork
}

type sharedNetwork struct {
	tasks map[string]bool // the IDs of those that use it
	owner *networkOwner   // nil: not known
	as    networkConfig   // how a task wanted the network that the engine has; valid if owner is set
	gate  chan struct{}   // see passGate; its holder creates or removes the network
	users int             // how many calls hold or await the gate
}

// at returns what is known of a network. The caller must hold s.mu.
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

// join registers the task as a user of the network, before the network is created.
// Otherwise another task that leaves in the meantime could remove the network. It
// reports whether the task was not registered before.
func (s *sharedNetworks) join(name, task string) (joined bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.at(name)
	joined = !n.tasks[task]
	n.tasks[task] = true
	return joined
}

// withNetworkLock calls do while no other task creates or removes the network. There
// are two reasons:
//
//   - Engine 20.10 looks for the name only when it begins to create a network. If it
//     gets several creates at once, it makes several networks of one name, or it
//     refuses some because of their subnet.
//   - A network must not be removed just after a task has found it.
//
// The wait for the lock is bounded by timeout, the limit of one engine call.
func (s *sharedNetworks) withNetworkLock(ctx context.Context, name string, timeout time.Duration, do func() error) error {
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

// learn notes what is known of the network that the engine has as wanted. A network that
// was made here stays noted as made here if owner has the same ID: a network with a
// ConfigFrom has no label that would tell.
func (s *sharedNetworks) learn(wanted networkConfig, owner networkOwner) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.at(wanted.name)
	n.as = wanted
	if n.owner != nil && n.owner.id == owner.id && n.owner.ours {
		return
	}
	n.owner = &owner
}

// hasFor reports whether another task uses the network, and the engine had it with the same
// options.
func (s *sharedNetworks) hasFor(task string, wanted networkConfig) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.at(wanted.name)
	isAlone := len(n.tasks) == 0 || len(n.tasks) == 1 && n.tasks[task]
	return !isAlone && n.owner != nil && reflect.DeepEqual(n.as.options, wanted.options)
}

// leave ends the task's use of the network. owner is what is known of the network; nil:
// nothing. others says whether other tasks use the network.
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

// isUsed reports whether a task uses the network.
func (s *sharedNetworks) isUsed(name string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.networks[name]
	return n != nil && len(n.tasks) > 0
}

// forget drops what is known of the network. If the network is not gone, forget keeps it for
// a task that has joined in the meantime. The caller must hold the network's lock.
func (s *sharedNetworks) forget(name string, gone bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := s.networks[name]; n != nil && (gone || len(n.tasks) == 0) {
		n.owner = nil
	}
}

// dropLocked drops the entry of a network if no task uses the network, no call holds or
// awaits the gate, and nothing is known of the network.
func (s *sharedNetworks) dropLocked(name string) {
	if n := s.networks[name]; n.users == 0 && n.owner == nil && len(n.tasks) == 0 {
		delete(s.networks, name)
	}
}
