package dockerexec

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/docker/docker/api/types/container"
	gogotypes "github.com/gogo/protobuf/types"
	"github.com/moby/swarmkit/v2/api"
)

// config is the part of the request that would run anywhere.
func (c *containerConfig) config() *container.Config {
	config, _ := c.translateConfig() // checked by newContainerConfig
	return config
}

func (c *containerConfig) translateConfig() (*container.Config, error) {
	spec := c.spec()
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
	timeout, err := c.stopTimeout()
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

// env is the environment of the spec, in its order, and after it the generic
// resources that the task got, sorted.
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

// healthcheck is nil where the image decides.
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

// isHealthTest reports whether engines run the test as it says. Of CMD alone
// older ones die, of an unknown first word they run nothing. Empty is the image's.
func isHealthTest(test []string) bool {
	switch {
	case len(test) == 0 || test[0] == "NONE":
		return true
	case test[0] == "CMD":
		return len(test) > 1 && test[1] != ""
	}
	return test[0] == "CMD-SHELL" && len(test) > 1
}

// stopTimeout is the grace period in seconds, rounded up; nil where image and
// engine decide. 0 kills at once.
func (c *containerConfig) stopTimeout() (*int, error) {
	const path = "Spec.Container.StopGracePeriod"
	grace := c.spec().StopGracePeriod
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

// stopOptions are those of a graceful stop. The signal is the container's own.
func (c *containerConfig) stopOptions() container.StopOptions {
	timeout, _ := c.stopTimeout() // checked by newContainerConfig
	return container.StopOptions{Timeout: timeout}
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
