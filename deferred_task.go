package dockerexec

import (
	"bytes"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/distribution/reference"
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
	values      secretList // what an error of the engine may quote of the task
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
	i.values.addTask(task)
	return i
}

// addTask adds the values that a task brings, and its names. Labels are no secrets. Parts
// of the task may be nil.
func (l *secretList) addTask(task *api.Task) {
	spec := task.Spec.GetContainer()
	if spec.PullOptions != nil {
		l.add(valueCredentials, "", spec.PullOptions.RegistryAuth)
	}
	for _, variable := range spec.Env {
		_, value, _ := strings.Cut(variable, "=")
		l.add(valueEnvironment, "", value)
	}
	l.addDriver(task.Spec.LogDriver)
	l.addDriver(task.LogDriver)
	for i := range spec.Mounts {
		m := &spec.Mounts[i]
		l.addNames(m.Source, m.Target)
		if m.VolumeOptions != nil {
			l.addDriver(m.VolumeOptions.DriverConfig)
		}
	}
	for _, attachment := range task.Networks {
		if attachment != nil {
			l.addOptions(attachment.DriverAttachmentOpts)
			l.addNames(attachment.Aliases...)
			l.addNetwork(attachment.Network)
		}
	}
	for _, wanted := range task.Spec.Networks {
		if wanted != nil {
			l.addOptions(wanted.DriverAttachmentOpts)
			l.addNames(append(wanted.Aliases, wanted.Target)...)
		}
	}
	l.addNames(task.ID, task.ServiceID, task.NodeID, naming.Task(task), task.ServiceAnnotations.Name, task.Annotations.Name)
	l.addNames(spec.Image, spec.Hostname, spec.User, spec.Dir)
	if ref, err := reference.ParseNormalizedNamed(spec.Image); err == nil {
		l.addNames(ref.Name(), reference.FamiliarName(ref), reference.Path(ref))
	}
	for _, ref := range spec.Secrets {
		if ref != nil {
			l.addNames(ref.SecretID, ref.SecretName)
		}
	}
	for _, ref := range spec.Configs {
		if ref != nil {
			l.addNames(ref.ConfigID, ref.ConfigName)
		}
	}
}

func (l *secretList) addNames(names ...string) {
	for _, name := range names {
		l.add(valueName, "", name)
	}
}

func (l *secretList) addOptions(options map[string]string) {
	for _, key := range slices.Sorted(maps.Keys(options)) {
		l.add(valueOption, key, options[key])
	}
}

func (l *secretList) addDriver(driver *api.Driver) {
	if driver != nil {
		l.addNames(driver.Name)
		l.addOptions(driver.Options)
	}
}

func (l *secretList) addNetwork(n *api.Network) {
	if n == nil {
		return
	}
	l.addNames(n.ID, n.Spec.Annotations.Name)
	l.addDriver(n.Spec.DriverConfig)
	l.addDriver(n.DriverState)
	for _, ipam := range []*api.IPAMOptions{n.Spec.IPAM, n.IPAM} {
		if ipam != nil {
			l.addDriver(ipam.Driver)
		}
	}
}

// taskSecrets makes the scrubber of a task: when the first error comes, and again once
// more is known.
type taskSecrets struct {
	mu       sync.Mutex
	payloads [][]byte // of secrets and configs that were read
	isFull   bool     // made knows the values that templates expand to
	made     *scrubber
}

// learn notes a payload that was read. It must not be changed.
func (s *taskSecrets) learn(payload []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !slices.ContainsFunc(s.payloads, func(known []byte) bool { return bytes.Equal(known, payload) }) {
		s.payloads, s.made = append(s.payloads, payload), nil
	}
}

func (s *taskSecrets) scrubber(given secretList, full fullTask) scrubber {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.made != nil && s.isFull {
		return *s.made
	}
	config, _, err := full()
	if s.made != nil && err != nil {
		return *s.made
	}
	all := secretList{values: slices.Clone(given.values)}
	if s.isFull = err == nil; s.isFull {
		all.addTask(config.task)
	}
	for _, payload := range s.payloads {
		all.add(valuePayload, "", string(payload))
	}
	made := all.scrubber()
	s.made = &made
	return made
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
