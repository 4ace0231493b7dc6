package dockerexec

import (
	"fmt"
	"maps"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/versions"
	gogotypes "github.com/gogo/protobuf/types"
	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/moby/swarmkit/v2/api"
	"github.com/moby/swarmkit/v2/api/naming"
)

// config returns the part of the create request that does not depend on the host.
func (c *containerConfig) config() *container.Config {
	config, _ := c.translateConfig() // checked by translateTask
	return config
}

func (c *containerConfig) translateConfig() (*container.Config, error) {
	spec := c.spec()
	if err := checkProcess(spec); err != nil {
		return nil, err
	}
	env, err := c.env()
	if err != nil {
		return nil, err
	}
	exposed, _, err := c.ports()
	if err != nil {
		return nil, err
	}
	health, err := c.healthcheck()
	if err != nil {
		return nil, err
	}
	timeout, err := stopTimeout(c.spec())
	if err != nil {
		return nil, err
	}
	config := &container.Config{
		Image:        spec.Image,
		Hostname:     spec.Hostname,
		Env:          env,
		WorkingDir:   spec.Dir,
		User:         spec.User,
		Tty:          spec.TTY,
		OpenStdin:    spec.OpenStdin,
		StopSignal:   spec.StopSignal,
		StopTimeout:  timeout,
		Labels:       c.labels(),
		ExposedPorts: exposed,
		Healthcheck:  health,
	}
	if len(spec.Command) > 0 {
		config.Entrypoint = slices.Clone(spec.Command)
	}
	if len(spec.Args) > 0 {
		config.Cmd = slices.Clone(spec.Args)
	}
	return config, nil
}

// longestHostname is what Linux takes, in bytes.
const longestHostname = 64

// checkProcess refuses what no engine can start. Engines find it late, when the image is
// pulled and the container is made (seen with 20.10 and 29).
func checkProcess(spec *api.ContainerSpec) error {
	const path = "Spec.Container."
	if err := checkNUL(spec); err != nil {
		return err
	}
	if n := len(spec.Hostname); n > longestHostname {
		return refuse(path+"Hostname", "has %d bytes, a system takes %d", n, longestHostname)
	}
	if len(spec.Command) > 1 && spec.Command[0] == "" { // a command of just one empty word is allowed: it removes the image's entrypoint
		return refuse(path+"Command[0]", "is empty")
	}
	if dir := spec.Dir; dir != "" && !isAbsolute(dir) && !strings.HasPrefix(dir, `\`) {
		return refuse(path+"Dir", "%q is not an absolute path", dir)
	}
	if i := slices.Index(spec.Groups, ""); i >= 0 {
		return refuse(fmt.Sprintf(path+"Groups[%d]", i), "is empty")
	}
	if spec.StopSignal != "" && !isSignal(spec.StopSignal) {
		return refuse(path+"StopSignal", "%q is no signal", spec.StopSignal)
	}
	return nil
}

// checkNUL refuses a NUL byte in what reaches the system, where a NUL ends a text.
func checkNUL(spec *api.ContainerSpec) error {
	const path = "Spec.Container."
	type text struct{ path, value string }
	texts := []text{{path + "Hostname", spec.Hostname}, {path + "User", spec.User}, {path + "Dir", spec.Dir}}
	addAll := func(name string, values []string) {
		for i, value := range values {
			texts = append(texts, text{fmt.Sprintf("%s%s[%d]", path, name, i), value})
		}
	}
	addAll("Command", spec.Command)
	addAll("Args", spec.Args)
	addAll("Env", spec.Env)
	addAll("Groups", spec.Groups)
	if spec.Healthcheck != nil {
		addAll("Healthcheck.Test", spec.Healthcheck.Test)
	}
	for i := range spec.Mounts {
		texts = append(texts, text{mountPath(i) + ".Source", spec.Mounts[i].Source}, text{mountPath(i) + ".Target", spec.Mounts[i].Target})
	}
	for _, t := range texts {
		if strings.Contains(t.value, "\x00") {
			return refuse(t.path, "has a NUL byte")
		}
	}
	return nil
}

// signals are the names of signals on Linux, without the prefix SIG. The real-time signals
// are in realTimeSignal.
var signals = strings.Fields("ABRT ALRM BUS CHLD CLD CONT FPE HUP ILL INT IO IOT KILL PIPE POLL PROF PWR QUIT " +
	"SEGV STKFLT STOP SYS TERM TRAP TSTP TTIN TTOU URG USR1 USR2 VTALRM WINCH XCPU XFSZ EMT")

var realTimeSignal = regexp.MustCompile(`^RTM(?:IN(?:\+(?:[1-9]|1[0-5]))?|AX(?:-(?:[1-9]|1[0-4]))?)$`)

// isSignal reports whether an engine may know the signal. It takes any number but 0.
func isSignal(signal string) bool {
	if n, err := strconv.Atoi(signal); err == nil {
		return n != 0
	}
	name := strings.TrimPrefix(strings.ToUpper(signal), "SIG")
	return slices.Contains(signals, name) || realTimeSignal.MatchString(name)
}

func (c *containerConfig) labels() map[string]string {
	labels := map[string]string{}
	maps.Copy(labels, c.spec().Labels)
	maps.Copy(labels, c.task.Annotations.Labels)
	maps.Copy(labels, map[string]string{
		labelTask:        "",
		LabelTaskID:      c.task.ID,
		labelTaskName:    c.name(),
		LabelNodeID:      c.task.NodeID,
		labelServiceID:   c.task.ServiceID,
		labelServiceName: c.task.ServiceAnnotations.Name,
	})
	return labels
}

// env returns the environment of the spec, in its order, followed by the generic
// resources of the task, sorted.
func (c *containerConfig) env() ([]string, error) {
	env := slices.Clone(c.spec().Env)
	for i, entry := range env {
		if name, _, _ := strings.Cut(entry, "="); name == "" {
			return nil, refuse(fmt.Sprintf("Spec.Container.Env[%d]", i), "names no variable")
		}
	}
	resources := map[string][]string{}
	for i, r := range c.task.AssignedGenericResources {
		path := fmt.Sprintf("AssignedGenericResources[%d]", i)
		var kind, value string
		switch r := r.Resource.(type) {
		case *api.GenericResource_NamedResourceSpec:
			path += ".NamedResourceSpec.Kind"
			kind, value = r.NamedResourceSpec.Kind, r.NamedResourceSpec.Value
		case *api.GenericResource_DiscreteResourceSpec:
			path += ".DiscreteResourceSpec.Kind"
			kind, value = r.DiscreteResourceSpec.Kind, fmt.Sprint(r.DiscreteResourceSpec.Value)
		default:
			return nil, refuse(path, "names no resource")
		}
		if kind == "" || strings.Contains(kind, "=") {
			return nil, refuse(path, "%q cannot be part of the name of a variable", kind)
		}
		name := strings.ToUpper("DOCKER_RESOURCE_" + kind)
		resources[name] = append(resources[name], value)
	}
	for _, name := range slices.Sorted(maps.Keys(resources)) {
		env = append(env, name+"="+strings.Join(resources[name], ","))
	}
	return env, nil
}

// healthcheck returns nil if the image decides.
func (c *containerConfig) healthcheck() (*container.HealthConfig, error) {
	spec := c.spec().Healthcheck
	if spec == nil {
		return nil, nil
	}
	const path = "Spec.Container.Healthcheck"
	health := &container.HealthConfig{Test: slices.Clone(spec.Test), Retries: int(spec.Retries)}
	if !isHealthTest(spec.Test) {
		return nil, refuse(path+".Test", "is neither NONE nor CMD or CMD-SHELL with a command")
	}
	if spec.Retries < 0 {
		return nil, refuse(path+".Retries", "%d is negative", spec.Retries)
	}
	for _, d := range []struct {
		name string
		from *gogotypes.Duration
		to   *time.Duration
	}{
		{"Interval", spec.Interval, &health.Interval},
		{"Timeout", spec.Timeout, &health.Timeout},
		{"StartPeriod", spec.StartPeriod, &health.StartPeriod},
		{"StartInterval", spec.StartInterval, &health.StartInterval},
	} {
		value, err := duration(path+"."+d.name, d.from)
		if err != nil {
			return nil, err
		}
		if value > 0 && value < time.Millisecond { // the engine's own limit
			return nil, refuse(path+"."+d.name, "%v is less than 1ms", value)
		}
		*d.to = value
	}
	return health, nil
}

// isHealthTest reports whether engines understand the test. They do understand an empty
// test: then they run the test of the image. NONE turns the check off. CMD without a
// command crashes older engines. If the first word is unknown, engines run nothing.
func isHealthTest(test []string) bool {
	switch {
	case len(test) == 0 || test[0] == "NONE":
		return true
	case test[0] == "CMD":
		return len(test) > 1 && test[1] != ""
	}
	return test[0] == "CMD-SHELL" && len(test) > 1
}

// stopTimeout returns the grace period in seconds, rounded up. 0 kills at once. With
// nil the image or the engine decides.
func stopTimeout(spec *api.ContainerSpec) (*int, error) {
	const path = "Spec.Container.StopGracePeriod"
	grace := spec.StopGracePeriod
	if grace == nil {
		return nil, nil
	}
	value, err := duration(path, grace)
	if err != nil {
		return nil, err
	}
	seconds := int64(value / time.Second)
	if value%time.Second > 0 {
		seconds++
	}
	if seconds > math.MaxInt32 {
		return nil, refuse(path, "%v is more than an engine can count", value)
	}
	timeout := int(seconds)
	return &timeout, nil
}

// duration translates a duration that must not be negative. nil is 0.
func duration(path string, d *gogotypes.Duration) (time.Duration, error) {
	if d == nil {
		return 0, nil
	}
	value, err := gogotypes.DurationFromProto(d)
	if err != nil {
		return 0, refuse(path, "%d seconds and %d nanoseconds are no duration", d.Seconds, d.Nanos)
	}
	if value < 0 {
		return 0, refuse(path, "%v is negative", value)
	}
	return value, nil
}

// AttrLogGap is the key of an attribute of a log message. It says that messages may be
// missing right before this message. The value is the time of the last message before the
// gap, in the form of [time.RFC3339Nano], or empty if there was none; see [ContainerAdapter.PublishLogs].
const AttrLogGap = "com.dockerexec.log.gap"

// The labels of every container of a task. They replace labels of the same name that
// the task has.
const (
	labelTask        = "com.docker.swarm.task" // always empty: marks the container as a task's
	LabelTaskID      = "com.docker.swarm.task.id"
	labelTaskName    = "com.docker.swarm.task.name"
	LabelNodeID      = "com.docker.swarm.node.id"
	labelServiceID   = "com.docker.swarm.service.id"
	labelServiceName = "com.docker.swarm.service.name"
)

// containerConfig translates a task into requests to the engine, without I/O. It has its
// own copy of the task, which never changes. A method returns an equal result at every
// call, and the results share no memory. It is safe for concurrent use.
type containerConfig struct {
	task       *api.Task            // a copy, templates expanded
	node       *api.NodeDescription // a copy, for the templates of secrets and configs; nil: not known
	needs      []need               // the fields that need an API version
	files      []taskFile           // the secrets and configs that are files
	maxCPUs    int                  // cap of the CPU limit; 0: none
	oldSysctls bool                 // for an engine below the API version interfaceSysctls
	volumeIDs  map[int]string       // the IDs of cluster volumes, by the index of their mounts

	// What withDependencies adds.
	folder     string            // of the files on the engine's host
	credential string            // the payload of credentialConfig
	published  map[string]string // the paths of cluster volumes on the engine's host, by their IDs
}

// translateTask translates a task of node. Everything that can be checked without an engine
// is checked here, so that the methods of the result cannot fail. known says whether node is
// known. If it is not and the task depends on it, the error is errNodeUnknown, bare.
func translateTask(node *api.NodeDescription, known bool, task *api.Task) (*containerConfig, error) {
	if task == nil {
		return nil, refuse("", "is nil")
	}
	if err := checkRuntime(task); err != nil {
		return nil, err
	}
	needs, err := checkFields(task)
	if err != nil {
		return nil, err
	}
	if err := checkName(task); err != nil {
		return nil, err
	}
	c := &containerConfig{task: task.Copy(), needs: needs}
	if c.volumeIDs, err = clusterVolumes(c.task); err != nil {
		return nil, err
	}
	if err := c.expand(node, known); err != nil {
		return nil, err
	}
	return c, nil
}

// checkRuntime refuses a task that is not a container, or has no image.
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

// expand expands the templates of the task, and then checks the task.
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
	if spec := c.spec(); !known && len(spec.Secrets)+len(spec.Configs) > 0 { // their payloads may be templates, which are not known yet
		return errNodeUnknown
	}
	return nil
}

func (c *containerConfig) spec() *api.ContainerSpec { return c.task.Spec.GetContainer() }

// checkVersion refuses a task that needs a newer API version than the one in use. The
// empty version is the newest. The refusal is final.
func (c *containerConfig) checkVersion(version string) error {
	for _, n := range c.needs {
		if !atLeast(version, n.since) {
			return refuse(n.path, "needs API version %s of the engine, in use is %s", n.since, version)
		}
	}
	return nil
}

// warnings says what the task asks for and does not get. The adapter logs each warning
// once.
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

// forVersion returns the same task, translated for an API version that checkVersion
// allows. The empty version is the newest.
func (c *containerConfig) forVersion(version string) *containerConfig {
	old := *c
	old.oldSysctls = !atLeast(version, interfaceSysctls)
	return &old
}

// name returns the name of the container.
func (c *containerConfig) name() string { return naming.Task(c.task) }

// image returns the image reference of the task.
func (c *containerConfig) image() string { return c.spec().Image }

// atLeast reports whether version is wanted or newer. The empty version is the newest.
func atLeast(version, wanted string) bool {
	return version == "" || versions.GreaterThanOrEqualTo(version, wanted)
}

// labelOf returns the ID of the task that a container was made for, or "".
func labelOf(answer container.InspectResponse) string {
	if answer.Config == nil {
		return ""
	}
	return answer.Config.Labels[LabelTaskID]
}
