package dockerexec

import (
	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/moby/swarmkit/v2/api"
	"github.com/moby/swarmkit/v2/api/naming"
	"github.com/pkg/errors"
)

// The labels of every container of a task, over those of the task itself.
const (
	labelTask        = "com.docker.swarm.task" // always empty: marks the container as a task's
	LabelTaskID      = "com.docker.swarm.task.id"
	labelTaskName    = "com.docker.swarm.task.name"
	LabelNodeID      = "com.docker.swarm.node.id"
	labelServiceID   = "com.docker.swarm.service.id"
	labelServiceName = "com.docker.swarm.service.name"
)

// containerConfig is a task as the engine is asked for it: pure translation,
// without I/O. It stands on its own copy of the task, which never changes, and
// makes each result anew, the same at every call. It is safe for concurrent use.
type containerConfig struct {
	task       *api.Task            // a copy, templates expanded
	node       *api.NodeDescription // a copy, for the templates of secrets and configs; nil: not known
	needs      []need               // what checkVersion checks
	files      []taskFile           // the secrets and configs that are files
	maybeFiles bool                 // files cannot tell, see late_task.go
	maxCPUs    int                  // cap of the CPU limit; 0: none
	oldSysctls bool                 // for an engine below the API version interfaceSysctls

	// What withDependencies adds.
	folder     string // of the files on the engine's host
	credential string // the payload of credentialConfig
}

// newContainerConfig translates a task that node runs. All that the task alone
// decides is checked here, so that the methods cannot fail.
func newContainerConfig(node *api.NodeDescription, task *api.Task) (*containerConfig, error) {
	c, err := newNamedConfig(task)
	if err != nil {
		return nil, err
	}
	if err := c.expand(node, true); err != nil {
		return nil, err
	}
	return c, nil
}

// newNamedConfig is the part of newContainerConfig that comes before the
// templates: what names the container is there, and no element is nil.
func newNamedConfig(task *api.Task) (*containerConfig, error) {
	if task == nil {
		return nil, errors.New("dockerexec: the task is nil")
	}
	if err := checkRuntime(task); err != nil {
		return nil, err
	}
	needs, err := checkFields(task)
	if err != nil {
		return nil, err
	}
	c := &containerConfig{task: task.Copy(), needs: needs}
	return c, c.checkName()
}

// checkRuntime refuses what is no container, and one without an image.
func checkRuntime(task *api.Task) error {
	switch runtime := task.Spec.Runtime.(type) {
	case *api.TaskSpec_Container:
		if runtime == nil || runtime.Container == nil {
			return refuse("Spec.Container", "is nil")
		}
		if runtime.Container.Image == "" {
			return ErrImageRequired
		}
		return nil
	default:
		return exec.ErrRuntimeUnsupported
	}
}

// expand is the rest of newContainerConfig: it expands the templates, and checks
// what the task is then. If the node is not known, and the task depends on it, the
// error is errNodeUnknown, bare.
func (c *containerConfig) expand(node *api.NodeDescription, known bool) error {
	c.node = templateNode(node)
	if err := expandTemplates(c.node, known, c.task); err != nil {
		return err
	}
	if c.platform() != nil {
		c.needs = append(c.needs, need{"Spec.Placement.Platforms", platformSince})
	}
	for _, check := range []func() error{
		c.checkImage,
		c.checkRegistryAuth,
		func() error { _, err := c.translateConfig(); return err },
		func() error { _, err := c.translateHostConfig(); return err },
		func() error { _, err := c.translateNetworks(); return err },
		func() error { _, err := c.translateVolumes(); return err },
		func() error { _, err := c.credentialConfig(); return err },
		func() (err error) { c.files, err = c.translateFiles(); return err },
	} {
		if err := check(); err != nil {
			return err
		}
	}
	if spec := c.spec(); !known && len(spec.Secrets)+len(spec.Configs) > 0 { // their templates are not here to look at
		return errNodeUnknown
	}
	return nil
}

func (c *containerConfig) spec() *api.ContainerSpec { return c.task.Spec.GetContainer() }

// checkVersion refuses, for good, a task that needs a later API version than the
// one in use. The empty version is the newest.
func (c *containerConfig) checkVersion(version string) error {
	for _, n := range c.needs {
		if !atLeast(version, n.since) {
			return refuse(n.path, "needs API version %s of the engine, in use is %s", n.since, version)
		}
	}
	return nil
}

// warnings returns what the task asks for and does not get. The adapter logs
// each once.
func (c *containerConfig) warnings() []string {
	var warnings []string
	if w := c.ingressWarning(); w != "" {
		warnings = append(warnings, w)
	}
	return warnings
}

// withCPUs returns the same task with its CPU limit capped at n CPUs.
func (c *containerConfig) withCPUs(n int) *containerConfig {
	capped := *c
	capped.maxCPUs = n
	return &capped
}

// forVersion returns the same task as an engine takes it at an API version that
// checkVersion allows. The empty version is the newest.
func (c *containerConfig) forVersion(version string) *containerConfig {
	old := *c
	old.oldSysctls = !atLeast(version, interfaceSysctls)
	return &old
}

// name is the container's name.
func (c *containerConfig) name() string { return naming.Task(c.task) }

// checkName refuses a name that engines do not take. One with a slash would
// also make another request than it should.
func (c *containerConfig) checkName() error {
	if c.task.ID == "" {
		return refuse("ID", "is empty: the container could not be told from those of other tasks")
	}
	if name := c.task.Annotations.Name; name != "" {
		if !restrictedName(name) {
			return refuse("Annotations.Name", "%q is no container name: letters, digits and then _.- are allowed, and at least two of them", name)
		}
		return nil
	}
	// An engine refuses the name of a task without a service; a user's fake need not.
	if service := c.task.ServiceAnnotations.Name; service != "" && !restrictedName(service+".") {
		return refuse("ServiceAnnotations.Name", "%q cannot begin a container name: letters, digits and then _.- are allowed", c.task.ServiceAnnotations.Name)
	}
	const part = "%q cannot be part of a container name: letters, digits and _.- are allowed"
	if !restrictedName("x." + c.task.ID) {
		return refuse("ID", part, c.task.ID)
	}
	if c.task.Slot == 0 && !restrictedName("x."+c.task.NodeID) {
		return refuse("NodeID", part, c.task.NodeID)
	}
	return nil
}

// image is the reference as the task has it.
func (c *containerConfig) image() string { return c.spec().Image }
