package dockerexec

import (
	"slices"
	"sync"

	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/moby/swarmkit/v2/api"
)

// A container may be there of a task that cannot be made, or not now. Then the
// adapter's own config is only what finds, stops and removes the container, with
// its networks and files, and making has the rest, or says why not.

// lateAdapter is Adapter for a node that may not be known yet, which is nil. If
// the task depends on it, what makes something fails for the time being, and
// looks again the next time.
func (e *Engine) lateAdapter(node func() *api.NodeDescription, task *api.Task, deps exec.DependencyGetter) (*ContainerAdapter, error) {
	if known := node(); known != nil {
		return e.Adapter(known, task, deps)
	}
	if e.client == nil {
		return nil, errNoClient
	}
	named, err := newNamedConfig(task)
	if err != nil {
		return nil, err
	}
	config, given, err := named.expanded(nil, deps)
	if err == nil {
		return newContainerAdapter(e, config, given), nil
	}
	if err != errNodeUnknown { //nolint:errorlint // bare
		return nil, err
	}
	files, filesErr := named.translateFiles() // making has the error
	named.files, named.maybeFiles = files, filesErr != nil
	adapter := newContainerAdapter(e, named, payloads{})
	var mu sync.Mutex
	adapter.late = func() (*containerConfig, payloads, error) {
		mu.Lock()
		defer mu.Unlock()
		if err != nil { // else it was expanded before, and stays what it was
			config, given, err = named.expanded(node(), deps)
		}
		if err == errNodeUnknown { //nolint:errorlint // bare
			return nil, payloads{}, exec.MakeTemporary(err)
		}
		return config, given, err
	}
	return adapter, nil
}

// expanded returns the whole task of c, which stays as it is. A node of nil is not
// known.
func (c *containerConfig) expanded(node *api.NodeDescription, deps exec.DependencyGetter) (*containerConfig, payloads, error) {
	whole := &containerConfig{task: c.task.Copy(), needs: slices.Clone(c.needs)}
	if err := whole.expand(node, node != nil); err != nil {
		return nil, payloads{}, err
	}
	given, err := newPayloads(deps, whole)
	return whole, given, err
}

// refusedAdapter is the adapter of a task that is refused and may have a
// container, which another version of this package or another executor made. It
// makes nothing, for the refusal. A task of which no engine can have a container
// is refused for good.
func (e *Engine) refusedAdapter(task *api.Task, refusal error) (*ContainerAdapter, error) {
	if e.client == nil || checkRuntime(task) != nil {
		return nil, refusal
	}
	config := remainsOf(task)
	if config.checkName() != nil {
		return nil, refusal
	}
	adapter := newContainerAdapter(e, config, payloads{})
	adapter.late = func() (*containerConfig, payloads, error) { return nil, payloads{}, refusal }
	return adapter, nil
}

// remainsOf is as much of a refused task as its end needs.
func remainsOf(task *api.Task) *containerConfig {
	spec := task.Spec.GetContainer()
	remains := &api.Task{
		ID:                 task.ID,
		NodeID:             task.NodeID,
		ServiceID:          task.ServiceID,
		Slot:               task.Slot,
		Annotations:        task.Annotations,
		ServiceAnnotations: task.ServiceAnnotations,
		Networks:           task.Networks,
		Spec: api.TaskSpec{Runtime: &api.TaskSpec_Container{Container: &api.ContainerSpec{
			Image:           spec.Image,
			StopGracePeriod: spec.StopGracePeriod,
		}}},
	}
	if _, err := checkFields(remains); err != nil { // an element may be nil
		remains.Networks = nil
	}
	return &containerConfig{
		task: remains.Copy(),
		maybeFiles: slices.ContainsFunc(spec.Secrets, func(ref *api.SecretReference) bool { return ref != nil }) ||
			slices.ContainsFunc(spec.Configs, func(ref *api.ConfigReference) bool { return ref != nil }),
	}
}
