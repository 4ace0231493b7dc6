package dockerexec

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/distribution/reference"
	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/moby/swarmkit/v2/api"
	"github.com/moby/swarmkit/v2/api/naming"
	"github.com/moby/swarmkit/v2/template"
	"github.com/pkg/errors"
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

// checkName refuses a container name that engines do not allow. A slash in the name
// would also change the path of the request.
func checkName(task *api.Task) error {
	if task.ID == "" {
		return refuse("ID", "is empty: the container could not be told from those of other tasks")
	}
	if name := task.Annotations.Name; name != "" {
		if !restrictedName(name) {
			return refuse("Annotations.Name", "%q is no container name: letters, digits and then _.- are allowed, and at least two of them", name)
		}
		return nil
	}
	// Without a service the name begins with a dot. An engine refuses that, but a user's
	// fake may take it.
	if service := task.ServiceAnnotations.Name; service != "" && !restrictedName(service+".") {
		return refuse("ServiceAnnotations.Name", "%q cannot begin a container name: letters, digits and then _.- are allowed", task.ServiceAnnotations.Name)
	}
	const part = "%q cannot be part of a container name: letters, digits and _.- are allowed"
	if !restrictedName("x." + task.ID) {
		return refuse("ID", part, task.ID)
	}
	if task.Slot == 0 && !restrictedName("x."+task.NodeID) {
		return refuse("NodeID", part, task.NodeID)
	}
	return nil
}

// addTask adds the values of a task that may be secret. It also adds the task's names,
// which must stay readable. Labels are no secrets. Parts of the task may be nil.
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

// taskSecrets makes the scrubber of a task when it is first needed. When more secrets
// of the task are known, it makes a new one.
type taskSecrets struct {
	mu      sync.Mutex
	learned secretList // what the task itself does not hold
	isFull  bool       // the scrubber in made also knows the values that templates expand to
	made    *scrubber
}

// learn notes a secret that the task itself does not hold: the payload of a secret or
// config that was read, or credentials that the caller was asked for.
func (s *taskSecrets) learn(kind valueKind, value string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !slices.Contains(s.learned.values, taskValue{kind, "", value}) {
		s.learned.add(kind, "", value)
		s.made = nil
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
	all.values = append(all.values, s.learned.values...)
	made := all.scrubber()
	s.made = &made
	return made
}

// fullTask returns what the task's container is made from, or why nothing can be made
// now. After the first call without an error, every call returns the same.
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

// expandTemplates expands the templates of a task in place, so task is the package's own
// copy. Templates are the values of environment variables, the hostname, and four parts
// of a mount: its source, its target, the values of its volume labels and the values of
// its driver options. If the node is not known and a template uses it, the error is
// errNodeUnknown, bare.
//
// NOTE: template.ExpandContainerSpec does the same, but its errors show the
// values of environment variables.
func expandTemplates(node *api.NodeDescription, known bool, task *api.Task) error {
	x := expander{template.NewContext(node, task), known}
	spec := task.Spec.GetContainer()
	for i, entry := range spec.Env {
		name, value, found := strings.Cut(entry, "=")
		if !found {
			continue
		}
		path := fmt.Sprintf("Spec.Container.Env[%d]", i)
		switch err := x.expand(path, &value); {
		case err == errNodeUnknown: //nolint:errorlint // bare
			return err
		case err != nil:
			return refuse(path, "the template of variable %s cannot be expanded (the value is not shown); write {{ in a value as {{\"{{\"}}", name)
		}
		spec.Env[i] = name + "=" + value
	}
	for i := range spec.Mounts {
		m, path := &spec.Mounts[i], mountPath(i)
		named := m.Source != ""
		if err := x.expand(path+".Source", &m.Source); err != nil {
			return err
		}
		if named && m.Source == "" && m.Type == api.MountTypeVolume {
			return refuse(path+".Source", "its template expands to nothing, and the volume would be another one each time")
		}
		if err := x.expand(path+".Target", &m.Target); err != nil {
			return err
		}
		if m.VolumeOptions == nil {
			continue
		}
		if err := x.expandMap(path+".VolumeOptions.Labels", m.VolumeOptions.Labels); err != nil {
			return err
		}
		if driver := m.VolumeOptions.DriverConfig; driver != nil {
			if err := x.expandMap(path+".VolumeOptions.DriverConfig.Options", driver.Options); err != nil {
				return err
			}
		}
	}
	return x.expand("Spec.Container.Hostname", &spec.Hostname)
}

// templateNode returns the part of a node that templates may use. nil stays nil.
func templateNode(node *api.NodeDescription) *api.NodeDescription {
	if node == nil {
		return nil
	}
	platform := &api.Platform{} // SwarmKit's templates would panic at a nil platform
	if node.Platform != nil {
		platform = node.Platform.Copy()
	}
	return &api.NodeDescription{Hostname: node.Hostname, Platform: platform}
}

type expander struct {
	template.Context
	known bool // whether the node is known
}

// errNodeUnknown is the error of a task whose templates, secrets or configs use the node,
// before the engine has described the node.
var errNodeUnknown = errors.New("dockerexec: the task's templates say something of the node, and the engine has not described it yet")

// usesNode reports whether a template uses more of the node than its ID, which is in the
// task itself.
func (x *expander) usesNode(value string) bool {
	if !strings.Contains(value, "{{") {
		return false
	}
	if strings.Contains(strings.ReplaceAll(value, ".Node.ID", ""), ".Node") {
		return true
	}
	other := x.Context
	other.Node.Hostname = "another than " + x.Node.Hostname
	here, err := x.Expand(value)
	there, otherErr := other.Expand(value)
	return err == nil && otherErr == nil && here != there // {{.}}, for example, shows the whole node
}

func (x *expander) expand(path string, value *string) error {
	if !x.known && x.usesNode(*value) {
		return errNodeUnknown
	}
	expanded, err := x.Expand(*value)
	if err != nil {
		return refuse(path, "its template cannot be expanded: %v", err)
	}
	if !utf8.ValidString(expanded) { // for example {{"\xff"}}
		return refuse(path, "its template expands to what is not valid UTF-8")
	}
	*value = expanded
	return nil
}

// expandHidden expands a value that may be a secret. The parser's errors quote the value,
// so they are not shown.
func (x *expander) expandHidden(path string, value *string) error {
	err := x.expand(path, value)
	if err != nil && err != errNodeUnknown { //nolint:errorlint // bare
		return refuse(path, "its template cannot be expanded (the value is not shown)")
	}
	return err
}

// expandMap expands the values of m. Driver options may hold passwords.
func (x *expander) expandMap(path string, m map[string]string) error {
	for _, key := range slices.Sorted(maps.Keys(m)) {
		value := m[key]
		if err := x.expandHidden(fmt.Sprintf("%s[%s]", path, key), &value); err != nil {
			return err
		}
		m[key] = value
	}
	return nil
}
