package dockerexec

import (
	"slices"
	"sync"

	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/moby/swarmkit/v2/api"
	"github.com/moby/swarmkit/v2/api/naming"
)

// A task has two parts. Its identity finds, stops and removes the container; it is
// known at once. The full task is what a container is made from; it may be unknown for
// now, or refused, while the task's container already exists.

// taskIdentity is the part of a task that finds, stops and removes its container.
type taskIdentity struct {
	taskID, serviceID, nodeID string

	name     string // the container's
	isNamed  bool   // the task chose the name, so others may have it too
	image    string
	networks []string // names of the networks that may have been made for the task, sorted
	hasFiles bool     // the task has secrets or configs that become files
	// stopTimeout is in seconds; nil: the image or the engine decides.
	stopTimeout *int
}

// identityOf returns the identity of a task that checkRuntime and checkName accept. All
// other fields of the task may be wrong.
func identityOf(task *api.Task) taskIdentity {
	spec := task.Spec.GetContainer()
	i := taskIdentity{
		taskID: task.ID, serviceID: task.ServiceID, nodeID: task.NodeID,
		name:    naming.Task(task),
		isNamed: task.Annotations.Name != "",
		image:   spec.Image,
		hasFiles: slices.ContainsFunc(spec.Secrets, func(ref *api.SecretReference) bool { return ref != nil }) ||
			slices.ContainsFunc(spec.Configs, func(ref *api.ConfigReference) bool { return ref != nil && ref.GetRuntime() == nil }),
	}
	for _, attachment := range task.Networks {
		if attachment == nil || attachment.Network == nil || isIngress(attachment.Network) {
			continue
		}
		if name, predefined, err := networkName("", attachment.Network); err == nil && !predefined {
			i.networks = append(i.networks, name)
		}
	}
	slices.Sort(i.networks)
	i.networks = slices.Compact(i.networks)
	i.stopTimeout, _ = stopTimeout(spec)
	return i
}

// fullTask returns what the task's container is made from, or why nothing can be made
// now. Every call returns the same once there is no error.
type fullTask func() (*containerConfig, payloads, error)

// makesNothing is the full task of a refused task: no container is made from it.
func makesNothing(refusal error) fullTask {
	return func() (*containerConfig, payloads, error) { return nil, payloads{}, refusal }
}

// deferredTask calls resolve each time until it succeeds once. While the node is not
// known, the error is temporary.
func deferredTask(resolve fullTask) fullTask {
	var (
		mu     sync.Mutex
		config *containerConfig
		given  payloads
	)
	return func() (*containerConfig, payloads, error) {
		mu.Lock()
		defer mu.Unlock()
		if config == nil {
			resolved, found, err := resolve()
			if err == errNodeUnknown { //nolint:errorlint // bare
				err = exec.MakeTemporary(err)
			}
			if err != nil {
				return nil, payloads{}, err
			}
			config, given = resolved, found
		}
		return config, given, nil
	}
}

// resolveTask translates a task of node. If the node is not known and the task depends on
// it, the error is errNodeUnknown, bare.
func resolveTask(node *api.NodeDescription, known bool, task *api.Task, deps exec.DependencyGetter) (*containerConfig, payloads, error) {
	config, err := translateTask(node, known, task)
	if err != nil {
		return nil, payloads{}, err
	}
	given, err := newPayloads(deps, config)
	if err != nil {
		return nil, payloads{}, err
	}
	return config, given, nil
}
