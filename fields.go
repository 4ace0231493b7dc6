package dockerexec

import (
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	gogotypes "github.com/gogo/protobuf/types"
	"github.com/moby/swarmkit/v2/api"
)

// need is a field that a task sets, and the first API version that has it.
type need struct{ path, since string }

// checkFields checks every field that the task sets, with the table of fields. It refuses
// a nil element, a field of the class refused, an unknown value of an enum, and a string
// that is not valid UTF-8. It returns the fields that need an API version.
func checkFields(task *api.Task) ([]need, error) {
	c := fieldChecker{}
	err := c.message(reflect.ValueOf(task).Elem(), "", "", field{})
	return c.needs, err
}

type fieldChecker struct{ needs []need }

// message checks the fields of a struct. path is the path of the struct in the task. name
// is path without indices. group is the row that covers the whole struct, if there is one.
func (c *fieldChecker) message(v reflect.Value, path, name string, group field) error {
	for i := range v.NumField() {
		f := v.Type().Field(i)
		if strings.HasPrefix(f.Name, "XXX_") {
			continue
		}
		child := v.Field(i)
		if child.Kind() == reflect.Interface { // a oneof: the path names the only field of its wrapper
			if child.IsNil() {
				continue
			}
			wrapper := child.Elem()
			if wrapper.IsNil() {
				return refuse(join(path, f.Name), "is nil")
			}
			child, f = wrapper.Elem().Field(0), wrapper.Elem().Type().Field(0)
			if child.Kind() == reflect.Pointer && child.IsNil() {
				return refuse(join(path, f.Name), "is nil")
			}
		}
		if err := c.value(child, join(path, f.Name), join(name, f.Name), group); err != nil {
			return err
		}
	}
	return nil
}

// value checks the value of a field, or one element of it.
func (c *fieldChecker) value(v reflect.Value, path, name string, group field) error {
	if row, ok := fieldByPath[name+".*"]; ok {
		group = row
	}
	if isLeaf(v.Type()) {
		return c.leaf(v, path, name, group)
	}
	switch v.Kind() {
	case reflect.Pointer:
		if v.IsNil() {
			return nil
		}
		return c.value(v.Elem(), path, name, group)
	case reflect.Slice:
		for i := range v.Len() {
			element, elementPath := v.Index(i), fmt.Sprintf("%s[%d]", path, i)
			if element.Kind() == reflect.Pointer && element.IsNil() {
				return refuse(elementPath, "is nil")
			}
			if group.class == refused {
				return refuse(elementPath, "%s", group.note)
			}
			if err := c.value(element, elementPath, name, group); err != nil {
				return err
			}
		}
		return nil
	case reflect.Map:
		keys := v.MapKeys() // strings, in all of SwarmKit's messages
		slices.SortFunc(keys, func(a, b reflect.Value) int { return strings.Compare(a.String(), b.String()) })
		for _, k := range keys {
			key, value := k.String(), v.MapIndex(k)
			if !utf8.ValidString(key) {
				return refuse(path, "has the key %q, which is not valid UTF-8", key)
			}
			if err := c.value(value, fmt.Sprintf("%s[%s]", path, key), name, group); err != nil {
				return err
			}
		}
		return nil
	}
	return c.message(v, path, name, group)
}

func (c *fieldChecker) leaf(v reflect.Value, path, name string, row field) error {
	if own, ok := fieldByPath[name]; ok {
		row = own
	}
	if row.class == scheduler || isUnset(v) {
		return nil
	}
	if row.class == refused {
		return refuse(path, "%s", row.note)
	}
	if row.since != "" {
		c.needs = append(c.needs, need{path, row.since})
	}
	if v.Kind() == reflect.String && !utf8.ValidString(v.String()) {
		return refuse(path, "is not valid UTF-8")
	}
	if isEnum(v.Type()) && v.Interface().(fmt.Stringer).String() == strconv.FormatInt(v.Int(), 10) {
		return refuse(path, "has the unknown value %d", v.Int())
	}
	return nil
}

// isLeaf reports whether values of the type are checked as a whole. That is so for
// scalars, bytes, and protobuf's well-known messages that stand for a scalar.
func isLeaf(t reflect.Type) bool {
	if t.Kind() == reflect.Pointer {
		return t.Elem().PkgPath() == reflect.TypeFor[gogotypes.Any]().PkgPath()
	}
	if t.Kind() == reflect.Slice {
		return t.Elem().Kind() == reflect.Uint8
	}
	return t.Kind() != reflect.Map && t.Kind() != reflect.Struct
}

func isEnum(t reflect.Type) bool {
	_, is := reflect.Zero(t).Interface().(interface{ EnumDescriptor() ([]byte, []int) })
	return is
}

// isUnset reports whether a leaf has no value, or a value that asks for nothing.
func isUnset(v reflect.Value) bool {
	if d, ok := v.Interface().(*gogotypes.Duration); ok {
		return d == nil || d.Seconds == 0 && d.Nanos == 0
	}
	return v.IsZero()
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

// refuse is the error of a task that cannot run as asked; see [FieldError].
func refuse(path, format string, args ...any) error {
	return &FieldError{Path: path, Reason: fmt.Sprintf(format, args...)}
}

// class says what happens to a field of a task.
type class string

const (
	mapped    class = "mapped"    // reaches the engine
	scheduler class = "scheduler" // read by managers and the agent only; nothing for an engine
	refused   class = "refused"   // a task that sets it is refused
	warned    class = "warned"    // reaches the engine in part; a warning names the rest
)

// field is one row of the table of all fields of a task.
type field struct {
	path  string // without indices; ".*" at the end stands for all fields below
	class class
	since string // the first API version that has it; empty: every supported engine has it
	note  string // where a mapped field arrives; otherwise why it does not
}

// Why whole groups of fields are refused.
const (
	whyRuntime = "only container tasks can be run"
)

// fields classifies every field of SwarmKit's task. The table decides which fields are
// refused, which need an API version, and which strings and enums are checked.
// TestEveryFieldIsClassified fails if a field is missing in it.
var fields = []field{
	{"ID", mapped, "", "name; label com.docker.swarm.task.id; templates"},
	{"Meta.*", scheduler, "", "bookkeeping of the managers"},
	{"SpecVersion.*", scheduler, "", "bookkeeping of the managers"},
	{"ServiceID", mapped, "", "label com.docker.swarm.service.id; templates"},
	{"Slot", mapped, "", "name; templates"},
	{"NodeID", mapped, "", "name of a task without slot; label com.docker.swarm.node.id; templates"},
	{"Annotations.Name", mapped, "", "name; label com.docker.swarm.task.name; templates"},
	{"Annotations.Labels", mapped, "", "Config.Labels, over those of the spec"},
	{"Annotations.Indices.*", scheduler, "", "index of the managers' store"},
	{"ServiceAnnotations.Name", mapped, "", "name; label com.docker.swarm.service.name; templates"},
	{"ServiceAnnotations.Labels", mapped, "", "templates only: they are not the container's"},
	{"ServiceAnnotations.Indices.*", scheduler, "", "index of the managers' store"},
	{"Status.*", scheduler, "", "what the agent reports"},
	{"DesiredState", scheduler, "", "drives the agent"},
	{"JobIteration.*", scheduler, "", "bookkeeping of the managers"},
	{"Volumes.ID", mapped, "", "HostConfig.Mounts: the path at which the agent's CSI plugin has published the volume"},
	{"Volumes.Source", mapped, "", "finds the mount of type cluster"},
	{"Volumes.Target", mapped, "", "finds the mount of type cluster"},
	{"AssignedGenericResources.NamedResourceSpec.Kind", mapped, "", "Config.Env DOCKER_RESOURCE_KIND"},
	{"AssignedGenericResources.NamedResourceSpec.Value", mapped, "", "Config.Env"},
	{"AssignedGenericResources.DiscreteResourceSpec.Kind", mapped, "", "Config.Env DOCKER_RESOURCE_KIND"},
	{"AssignedGenericResources.DiscreteResourceSpec.Value", mapped, "", "Config.Env"},
	{"LogDriver.Name", mapped, "", "HostConfig.LogConfig.Type"},
	{"LogDriver.Options", mapped, "", "HostConfig.LogConfig.Config"},

	{"Networks.Network.ID", mapped, "", "value of the label of networks that this package makes; the engine chooses its own ID"},
	{"Networks.Network.Meta.*", scheduler, "", "bookkeeping of the managers"},
	{"Networks.Network.Spec.Annotations.Name", mapped, "", "network name; EndpointsConfig or HostConfig.NetworkMode"},
	{"Networks.Network.Spec.Annotations.Labels", mapped, "", "network Labels; com.docker.swarm.predefined marks one of the engine's own, which keeps its own labels"},
	{"Networks.Network.Spec.Annotations.Indices.*", scheduler, "", "index of the managers' store"},
	{"Networks.Network.Spec.DriverConfig.*", scheduler, "", "what was asked for; DriverState is the result"},
	{"Networks.Network.Spec.Ipv6Enabled", mapped, "", "network EnableIPv6"},
	{"Networks.Network.Spec.Internal", mapped, "", "network Internal"},
	{"Networks.Network.Spec.IPAM.*", scheduler, "", "what was asked for; Network.IPAM is the result"},
	{"Networks.Network.Spec.Attachable", mapped, "", "network Attachable; refused for one of the engine's own"},
	{"Networks.Network.Spec.Ingress", warned, "", "the routing mesh's network exists only inside a swarm engine: it is not joined"},
	{"Networks.Network.Spec.Network", mapped, "", "network ConfigFrom; an engine then takes no labels, IPv6, addresses or driver options"},
	{"Networks.Network.DriverState.Name", mapped, "", "network Driver"},
	{"Networks.Network.DriverState.Options", mapped, "", "network Options"},
	{"Networks.Network.IPAM.Driver.Name", mapped, "", "network IPAM.Driver"},
	{"Networks.Network.IPAM.Driver.Options", mapped, "", "network IPAM.Options"},
	{"Networks.Network.IPAM.Configs.Family", mapped, "", "part of Subnet, which must agree with it"},
	{"Networks.Network.IPAM.Configs.Subnet", mapped, "", "network IPAM.Config.Subnet"},
	{"Networks.Network.IPAM.Configs.Range", mapped, "", "network IPAM.Config.IPRange"},
	{"Networks.Network.IPAM.Configs.Gateway", mapped, "", "network IPAM.Config.Gateway"},
	{"Networks.Network.IPAM.Configs.Reserved", mapped, "", "network IPAM.Config.AuxiliaryAddresses"},
	{"Networks.Network.PendingDelete", scheduler, "", "bookkeeping of the managers"},
	{"Networks.Network.Extra", scheduler, "", "bookkeeping of the managers"},
	{"Networks.Addresses", mapped, "", "EndpointsConfig.IPAMConfig"},
	{"Networks.Aliases", mapped, "", "EndpointsConfig.Aliases"},
	{"Networks.DriverAttachmentOpts", mapped, "", "EndpointsConfig.DriverOpts"},

	{"Endpoint.Spec.*", scheduler, "", "what was asked for; Endpoint.Ports is the result"},
	{"Endpoint.VirtualIPs.*", scheduler, "", "for the load balancer inside a swarm engine"},
	{"Endpoint.Ports.Name", scheduler, "", "names the port to users"},
	{"Endpoint.Ports.Protocol", mapped, "", "Config.ExposedPorts, HostConfig.PortBindings"},
	{"Endpoint.Ports.TargetPort", mapped, "", "Config.ExposedPorts, HostConfig.PortBindings"},
	{"Endpoint.Ports.PublishedPort", mapped, "", "HostConfig.PortBindings; 0 is a port of the engine's choice"},
	{"Endpoint.Ports.PublishMode", warned, "", "host ports are published; ingress ports need the routing mesh, which exists only inside a swarm engine"},

	{"Spec.Attachment.*", refused, "", whyRuntime},
	{"Spec.Generic.*", refused, "", whyRuntime},
	{"Spec.Resources.Limits.NanoCPUs", warned, "", "HostConfig.NanoCPUs; capped at the host's CPUs"},
	{"Spec.Resources.Limits.MemoryBytes", mapped, "", "HostConfig.Memory"},
	{"Spec.Resources.Limits.Generic.*", scheduler, "", "placement"},
	{"Spec.Resources.Reservations.*", scheduler, "", "placement"},
	{"Spec.Resources.SwapBytes", mapped, "", "HostConfig.MemorySwap, which counts memory and swap"},
	{"Spec.Resources.MemorySwappiness", mapped, "", "HostConfig.MemorySwappiness; -1 is the engine's default"},
	{"Spec.Restart.*", scheduler, "", "the orchestrator restarts tasks, the engine must not"},
	{"Spec.Placement.Constraints", scheduler, "", "placement"},
	{"Spec.Placement.Preferences.*", scheduler, "", "placement"},
	{"Spec.Placement.Platforms.Architecture", mapped, "", "platform of pull and create, where it is the only one and has an architecture"},
	{"Spec.Placement.Platforms.OS", mapped, "", "platform of pull and create, where it is the only one and has an architecture"},
	{"Spec.Placement.MaxReplicas", scheduler, "", "placement"},
	{"Spec.LogDriver.Name", mapped, "", "HostConfig.LogConfig.Type of a task without LogDriver"},
	{"Spec.LogDriver.Options", mapped, "", "HostConfig.LogConfig.Config of a task without LogDriver"},
	{"Spec.Networks.*", scheduler, "", "what was asked for; Task.Networks is the result"},
	{"Spec.ForceUpdate", scheduler, "", "bookkeeping of the managers"},
	{"Spec.ResourceReferences.*", scheduler, "", "what the managers send along"},

	{"Spec.Container.Image", mapped, "", "Config.Image; the reference that is pulled"},
	{"Spec.Container.Labels", mapped, "", "Config.Labels"},
	{"Spec.Container.Command", mapped, "", "Config.Entrypoint"},
	{"Spec.Container.Args", mapped, "", "Config.Cmd"},
	{"Spec.Container.Hostname", mapped, "", "Config.Hostname; a template, of 64 bytes at most in the end"},
	{"Spec.Container.Env", mapped, "", "Config.Env; the values are templates"},
	{"Spec.Container.Dir", mapped, "", "Config.WorkingDir"},
	{"Spec.Container.User", mapped, "", "Config.User"},
	{"Spec.Container.Groups", mapped, "", "HostConfig.GroupAdd"},
	{"Spec.Container.Privileges.CredentialSpec.File", mapped, "", "HostConfig.SecurityOpt credentialspec=file://"},
	{"Spec.Container.Privileges.CredentialSpec.Registry", mapped, "", "HostConfig.SecurityOpt credentialspec=registry://"},
	{"Spec.Container.Privileges.CredentialSpec.Config", mapped, "", "HostConfig.SecurityOpt credentialspec=raw://, the config's payload"},
	{"Spec.Container.Privileges.SELinuxContext.Disable", mapped, "", "HostConfig.SecurityOpt label=disable"},
	{"Spec.Container.Privileges.SELinuxContext.User", mapped, "", "HostConfig.SecurityOpt label=user:"},
	{"Spec.Container.Privileges.SELinuxContext.Role", mapped, "", "HostConfig.SecurityOpt label=role:"},
	{"Spec.Container.Privileges.SELinuxContext.Type", mapped, "", "HostConfig.SecurityOpt label=type:"},
	{"Spec.Container.Privileges.SELinuxContext.Level", mapped, "", "HostConfig.SecurityOpt label=level:"},
	{"Spec.Container.Privileges.Seccomp.Mode", mapped, "", "HostConfig.SecurityOpt seccomp="},
	{"Spec.Container.Privileges.Seccomp.Profile", mapped, "", "HostConfig.SecurityOpt seccomp=, the profile's text"},
	{"Spec.Container.Privileges.Apparmor.Mode", mapped, "", "HostConfig.SecurityOpt apparmor=unconfined"},
	{"Spec.Container.Privileges.NoNewPrivileges", mapped, "", "HostConfig.SecurityOpt no-new-privileges=true"},
	{"Spec.Container.Init", mapped, "", "HostConfig.Init"},
	{"Spec.Container.TTY", mapped, "", "Config.Tty"},
	{"Spec.Container.OpenStdin", mapped, "", "Config.OpenStdin"},
	{"Spec.Container.ReadOnly", mapped, "", "HostConfig.ReadonlyRootfs"},
	{"Spec.Container.StopSignal", mapped, "", "Config.StopSignal"},
	{"Spec.Container.StopGracePeriod", mapped, "", "Config.StopTimeout and the time-out of a stop, rounded up to seconds"},
	{"Spec.Container.PullOptions.RegistryAuth", mapped, "", "credentials of the pull"},
	{"Spec.Container.Secrets.SecretID", mapped, "", "content of a file on the engine's host; HostConfig.Mounts.Source"},
	{"Spec.Container.Secrets.SecretName", scheduler, "", "names the secret to users"},
	{"Spec.Container.Secrets.File.Name", mapped, "", "HostConfig.Mounts.Target; under /run/secrets if relative"},
	{"Spec.Container.Secrets.File.UID", mapped, "", "owner of the file"},
	{"Spec.Container.Secrets.File.GID", mapped, "", "group of the file"},
	{"Spec.Container.Secrets.File.Mode", mapped, "", "mode of the file"},
	{"Spec.Container.Configs.ConfigID", mapped, "", "content of a file on the engine's host; HostConfig.Mounts.Source"},
	{"Spec.Container.Configs.ConfigName", scheduler, "", "names the config to users"},
	{"Spec.Container.Configs.File.Name", mapped, "", "HostConfig.Mounts.Target; under / if relative"},
	{"Spec.Container.Configs.File.UID", mapped, "", "owner of the file"},
	{"Spec.Container.Configs.File.GID", mapped, "", "group of the file"},
	{"Spec.Container.Configs.File.Mode", mapped, "", "mode of the file"},
	{"Spec.Container.Hosts", mapped, "", "HostConfig.ExtraHosts, one for each name"},
	{"Spec.Container.DNSConfig.Nameservers", mapped, "", "HostConfig.DNS"},
	{"Spec.Container.DNSConfig.Search", mapped, "", "HostConfig.DNSSearch"},
	{"Spec.Container.DNSConfig.Options", mapped, "", "HostConfig.DNSOptions"},
	{"Spec.Container.Healthcheck.Test", mapped, "", "Config.Healthcheck.Test"},
	{"Spec.Container.Healthcheck.Interval", mapped, "", "Config.Healthcheck.Interval"},
	{"Spec.Container.Healthcheck.Timeout", mapped, "", "Config.Healthcheck.Timeout"},
	{"Spec.Container.Healthcheck.Retries", mapped, "", "Config.Healthcheck.Retries"},
	{"Spec.Container.Healthcheck.StartPeriod", mapped, "", "Config.Healthcheck.StartPeriod"},
	{"Spec.Container.Healthcheck.StartInterval", mapped, "1.44", "Config.Healthcheck.StartInterval"},
	{"Spec.Container.Isolation", mapped, "", "HostConfig.Isolation"},
	{"Spec.Container.PidsLimit", mapped, "", "HostConfig.PidsLimit"},
	{"Spec.Container.Sysctls", mapped, "", "HostConfig.Sysctls; from API 1.46 on those of eth0 in EndpointsConfig.DriverOpts"},
	{"Spec.Container.CapabilityAdd", mapped, "", "HostConfig.CapAdd"},
	{"Spec.Container.CapabilityDrop", mapped, "", "HostConfig.CapDrop"},
	{"Spec.Container.Ulimits.Name", mapped, "", "HostConfig.Ulimits"},
	{"Spec.Container.Ulimits.Soft", mapped, "", "HostConfig.Ulimits"},
	{"Spec.Container.Ulimits.Hard", mapped, "", "HostConfig.Ulimits"},
	{"Spec.Container.OomScoreAdj", mapped, "", "HostConfig.OomScoreAdj"},

	{"Spec.Container.Mounts.Type", mapped, "", "HostConfig.Mounts; a cluster volume becomes a bind mount, and needs a getter of volumes"},
	{"Spec.Container.Mounts.Source", mapped, "", "HostConfig.Mounts; a template"},
	{"Spec.Container.Mounts.Target", mapped, "", "HostConfig.Mounts; a template"},
	{"Spec.Container.Mounts.ReadOnly", mapped, "", "HostConfig.Mounts"},
	{"Spec.Container.Mounts.Consistency", mapped, "", "HostConfig.Mounts"},
	{"Spec.Container.Mounts.BindOptions.Propagation", mapped, "", "HostConfig.Mounts.BindOptions; RPRIVATE, the zero value, is left to the engine"},
	{"Spec.Container.Mounts.BindOptions.NonRecursive", mapped, "", "HostConfig.Mounts.BindOptions"},
	{"Spec.Container.Mounts.BindOptions.CreateMountpoint", mapped, "1.42", "HostConfig.Mounts.BindOptions"},
	// Below 1.44 every read-only mount is non-recursive, as ReadOnlyNonRecursive asks.
	{"Spec.Container.Mounts.BindOptions.ReadOnlyNonRecursive", mapped, "", "HostConfig.Mounts.BindOptions"},
	{"Spec.Container.Mounts.BindOptions.ReadOnlyForceRecursive", mapped, "1.44", "HostConfig.Mounts.BindOptions"},
	{"Spec.Container.Mounts.VolumeOptions.NoCopy", mapped, "", "HostConfig.Mounts.VolumeOptions"},
	{"Spec.Container.Mounts.VolumeOptions.Labels", warned, "", "HostConfig.Mounts.VolumeOptions, volume Labels; the values are templates; a volume that exists keeps its own"},
	{"Spec.Container.Mounts.VolumeOptions.DriverConfig.Name", mapped, "", "HostConfig.Mounts.VolumeOptions, volume Driver"},
	{"Spec.Container.Mounts.VolumeOptions.DriverConfig.Options", warned, "", "HostConfig.Mounts.VolumeOptions, volume DriverOpts; the values are templates; a volume that exists keeps its own"},
	{"Spec.Container.Mounts.VolumeOptions.Subpath", mapped, "1.45", "HostConfig.Mounts.VolumeOptions"},
	{"Spec.Container.Mounts.TmpfsOptions.SizeBytes", mapped, "", "HostConfig.Mounts.TmpfsOptions or HostConfig.Tmpfs"},
	{"Spec.Container.Mounts.TmpfsOptions.Mode", mapped, "", "HostConfig.Mounts.TmpfsOptions or HostConfig.Tmpfs"},
	{"Spec.Container.Mounts.TmpfsOptions.Options", mapped, "", "HostConfig.Tmpfs, where every engine takes them"},
}

// warnedFields says which field an engine's warning at a create is about. words are a part of
// the warning in lower case, as Docker 20.10 to 29 write it.
var warnedFields = []struct{ words, path string }{
	{"memory swappiness", "Spec.Resources.MemorySwappiness"},
	{"memory limited without swap", "Spec.Resources.SwapBytes"},
	{"does not support memory limit", "Spec.Resources.Limits.MemoryBytes"},
	{"cpu period/quota discarded", "Spec.Resources.Limits.NanoCPUs"},
	{"pids limit", "Spec.Container.PidsLimit"},
	{"requested image's platform", "Spec.Placement.Platforms"},
	{"published ports are discarded", "Endpoint.Ports"},
	{"migrated sysctl", "Spec.Container.Sysctls"},
}

// warnedField returns the path of the field that an engine's warning is about. It is
// empty if that cannot be told.
func (c *containerConfig) warnedField(warning string) string {
	warning = strings.ToLower(warning)
	for _, f := range warnedFields {
		if !strings.Contains(warning, f.words) {
			continue
		}
		if resources := c.task.Spec.Resources; f.path == "Spec.Resources.SwapBytes" && (resources == nil || resources.SwapBytes == nil) {
			return "Spec.Resources.Limits.MemoryBytes" // with a memory limit an engine also limits swap, even if the task does not ask for it
		}
		return f.path
	}
	return ""
}

// platformSince is the API version from which a create takes a platform.
const platformSince = "1.41"

var fieldByPath = func() map[string]field {
	rows := make(map[string]field, len(fields))
	for _, f := range fields {
		rows[f.path] = f
	}
	return rows
}()
