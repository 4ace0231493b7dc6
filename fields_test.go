package dockerexec

import (
	"fmt"
	"math"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	gogotypes "github.com/gogo/protobuf/types"
	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/moby/swarmkit/v2/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// leafFields lists every field of a message that holds no further message, by
// the path that the table of fields uses.
func leafFields(t reflect.Type, path string) []string {
	switch {
	case isLeaf(t) && t.Kind() != reflect.Interface:
		return []string{path}
	case t.Kind() == reflect.Pointer, t.Kind() == reflect.Slice, t.Kind() == reflect.Map:
		return leafFields(t.Elem(), path)
	}
	var leaves []string
	for i := range t.NumField() {
		f := t.Field(i)
		switch {
		case strings.HasPrefix(f.Name, "XXX_"):
		case f.Type.Kind() == reflect.Interface:
			// A oneof: the generated code lists the wrappers of its choices.
			message := reflect.New(t).Interface().(interface{ XXX_OneofWrappers() []any })
			for _, w := range message.XXX_OneofWrappers() {
				if wrapper := reflect.TypeOf(w); wrapper.Implements(f.Type) {
					choice := wrapper.Elem().Field(0)
					leaves = append(leaves, leafFields(choice.Type, join(path, choice.Name))...)
				}
			}
		default:
			leaves = append(leaves, leafFields(f.Type, join(path, f.Name))...)
		}
	}
	return leaves
}

func TestEveryFieldIsClassified(t *testing.T) {
	t.Parallel()
	leaves := leafFields(reflect.TypeFor[api.Task](), "")
	require.Greater(t, len(leaves), 180, "the walk has lost its way")
	require.Contains(t, leaves, "Spec.Container.Privileges.Seccomp.Profile")
	require.Contains(t, leaves, "Networks.Network.Spec.Network")
	matched := map[string]int{}
	for _, leaf := range leaves {
		var rows []string
		for _, f := range fields {
			if group, ok := strings.CutSuffix(f.path, ".*"); f.path == leaf || ok && strings.HasPrefix(leaf, group+".") {
				rows = append(rows, f.path)
				matched[f.path]++
			}
		}
		assert.Len(t, rows, 1, "rows for field %s: %v", leaf, rows)
	}
	for _, f := range fields {
		assert.Positive(t, matched[f.path], "row %s matches no field of a task", f.path)
		assert.Contains(t, []class{mapped, scheduler, refused, warned}, f.class, f.path)
		assert.NotEmpty(t, f.note, f.path)
		if strings.HasSuffix(f.path, ".*") {
			assert.Contains(t, []class{scheduler, refused}, f.class, "row %s: a new field below it would be taken for translated", f.path)
		}
	}
}

// Every field that arrives is in a golden request.
func TestEveryMappedFieldIsInAGoldenTask(t *testing.T) {
	t.Parallel()
	set := map[string]bool{}
	for _, name := range goldenNames(t) {
		setFields(reflect.ValueOf(goldenTask(t, name)).Elem(), "", set)
	}
	for _, f := range fields {
		if f.class == mapped || f.class == warned {
			assert.True(t, set[f.path], "no golden task sets %s", f.path)
		}
	}
}

// setFields collects the leaf fields of v that are not zero.
func setFields(v reflect.Value, path string, set map[string]bool) {
	switch {
	case v.Kind() == reflect.Interface: // a oneof
		if !v.IsNil() {
			choice := v.Elem().Elem()
			setFields(choice.Field(0), join(path[:max(strings.LastIndex(path, "."), 0)], choice.Type().Field(0).Name), set)
		}
	case isLeaf(v.Type()):
		set[path] = set[path] || !v.IsZero()
	case v.Kind() == reflect.Pointer:
		if !v.IsNil() {
			setFields(v.Elem(), path, set)
		}
	case v.Kind() == reflect.Slice:
		for i := range v.Len() {
			setFields(v.Index(i), path, set)
		}
	case v.Kind() == reflect.Map:
		for _, key := range v.MapKeys() {
			setFields(v.MapIndex(key), path, set)
		}
	default:
		for i := range v.NumField() {
			setFields(v.Field(i), join(path, v.Type().Field(i).Name), set)
		}
	}
}

// The table of docs/fields.md is the package's own.
func TestFieldsPageHasTheTableOfFields(t *testing.T) {
	t.Parallel()
	const page = "docs/fields.md"
	const begin, end = "<!-- fields: from fields.go, by go test -run FieldsPage -update -->\n", "<!-- end of fields -->\n"
	var table strings.Builder
	table.WriteString("\n| field | | arrives as, or why it does not arrive |\n|---|---|---|\n")
	for _, f := range fields {
		since := ""
		if f.since != "" {
			since = ", API " + f.since
		}
		fmt.Fprintf(&table, "| `%s` | %s%s | %s |\n", f.path, f.class, since, f.note)
	}
	table.WriteString("\n")

	text, err := os.ReadFile(page)
	require.NoError(t, err)
	before, rest, ok := strings.Cut(string(text), begin)
	require.True(t, ok, "%s has no line %s", page, begin)
	has, after, ok := strings.Cut(rest, end)
	require.True(t, ok, "%s has no line %s", page, end)
	if *update {
		rewrite(t, page, []byte(before+begin+table.String()+end+after))
		return
	}
	assert.Equal(t, table.String(), has, "go test -run FieldsPage -update writes it anew")
}

// One task may use all that is mapped at once, but for what excludes each other.
func TestATaskMayUseEveryMappedField(t *testing.T) {
	t.Parallel()
	excluded := map[string]string{
		"Spec.Container.Privileges.CredentialSpec.Config":   "File is set",
		"Spec.Container.Privileges.CredentialSpec.Registry": "File is set",
		"Spec.Container.Privileges.SELinuxContext.Disable":  "the context has labels",
	}
	set := map[string]bool{}
	setFields(reflect.ValueOf(goldenTask(t, "all-fields")).Elem(), "", set)
	for _, f := range fields {
		if f.class == mapped || f.class == warned {
			assert.Equal(t, excluded[f.path] == "", set[f.path], f.path)
		}
	}
}

func TestCheckVersion(t *testing.T) {
	t.Parallel()
	tests := []struct{ task, version, want string }{
		{"plain", "1.24", ""},
		{"healthcheck-start-interval", "1.43", "dockerexec: task field Spec.Container.Healthcheck.StartInterval: needs API version 1.44 of the engine, in use is 1.43"},
		{"healthcheck-start-interval", "1.44", ""},
		{"healthcheck-start-interval", "", ""},
		{"mount-bind-create", "1.41", "dockerexec: task field Spec.Container.Mounts[0].BindOptions.CreateMountpoint: needs API version 1.42 of the engine, in use is 1.41"},
		{"mount-bind-read-only-recursive", "1.43", "dockerexec: task field Spec.Container.Mounts[0].BindOptions.ReadOnlyForceRecursive: needs API version 1.44 of the engine, in use is 1.43"},
		{"mount-bind-read-only-non-recursive", "1.41", ""},
		{"mount-volume-subpath", "1.44", "dockerexec: task field Spec.Container.Mounts[0].VolumeOptions.Subpath: needs API version 1.45 of the engine, in use is 1.44"},
		{"mount-tmpfs-options-json", "1.41", ""},
		{"networks", "1.41", ""}, // the adapter connects what one create cannot
		{"platform", "1.40", "dockerexec: task field Spec.Placement.Platforms: needs API version 1.41 of the engine, in use is 1.40"},
		{"platform-of-choice", "1.40", ""},
	}
	for _, tt := range tests {
		t.Run(fmt.Sprint(tt.task, "@", tt.version), func(t *testing.T) {
			t.Parallel()
			config, err := newContainerConfig(nil, goldenTask(t, tt.task))
			require.NoError(t, err)
			if err := config.checkVersion(tt.version); tt.want == "" {
				require.NoError(t, err)
			} else {
				require.EqualError(t, err, tt.want)
			}
		})
	}
	var versioned []string
	for _, f := range fields {
		if f.since != "" {
			versioned = append(versioned, f.path)
		}
	}
	assert.Len(t, slices.Compact(slices.Sorted(slices.Values(versioned))), 4, "each has a case above")
}

func seconds(s int64, nanos int32) *gogotypes.Duration {
	return &gogotypes.Duration{Seconds: s, Nanos: nanos}
}

func withAttachment(a *api.NetworkAttachment) func(*api.Task) {
	return func(task *api.Task) { task.Networks = []*api.NetworkAttachment{a} }
}

func withPredefined(change func(*api.Network)) func(*api.Task) { return withOwn("bridge", change) }

// withOwn has the task join a network of the engine's own.
func withOwn(name string, change func(*api.Network)) func(*api.Task) {
	n := namedNetwork(name)
	change(n)
	return withAttachment(attachment(n))
}

// withConfigured has the task join a network that is made as network c says.
func withConfigured(change func(*api.Network)) func(*api.Task) {
	n := namedNetwork("n")
	n.Spec.ConfigFrom = &api.NetworkSpec_Network{Network: "c"}
	change(n)
	return withAttachment(attachment(n))
}

func withIPAM(c *api.IPAMConfig) func(*api.Task) {
	n := namedNetwork("n")
	n.IPAM = &api.IPAMOptions{Configs: []*api.IPAMConfig{c}}
	return withAttachment(attachment(n))
}

func withHealth(h api.HealthConfig) func(*api.Task) {
	return func(task *api.Task) { spec(task).Healthcheck = &h }
}

// Each task is refused, by an error that begins with the field's path.
func TestRefusals(t *testing.T) {
	t.Parallel()
	tmpfs := func(options string) func(*api.Task) {
		return withMount(api.Mount{Type: api.MountTypeTmpfs, Target: "/t", TmpfsOptions: &api.Mount_TmpfsOptions{Options: options}})
	}
	const notest = "Spec.Container.Healthcheck.Test: is neither NONE nor CMD or CMD-SHELL with a command"
	tests := []struct {
		name   string
		change func(*api.Task)
		want   string // without the beginning that all have
	}{
		{"container nil", func(task *api.Task) { task.Spec.Runtime = &api.TaskSpec_Container{} }, "Spec.Container: is nil"},
		{"runtime typed nil", func(task *api.Task) { task.Spec.Runtime = (*api.TaskSpec_Container)(nil) }, "Spec.Container: is nil"},
		{"service name", func(task *api.Task) { task.ServiceAnnotations.Name = "a/b" }, `ServiceAnnotations.Name: "a/b" cannot begin a container name: letters, digits and then _.- are allowed`},
		{"task name", func(task *api.Task) { task.Annotations.Name = "../networks" }, `Annotations.Name: "../networks" is no container name: letters, digits and then _.- are allowed, and at least two of them`},
		{"task ID", func(task *api.Task) { task.ID = "a b" }, `ID: "a b" cannot be part of a container name: letters, digits and _.- are allowed`},
		{"no ID", func(task *api.Task) { task.ID = "" }, "ID: is empty: the container could not be told from those of other tasks"},
		{"node ID", func(task *api.Task) { task.Slot, task.NodeID = 0, "a?" }, `NodeID: "a?" cannot be part of a container name: letters, digits and _.- are allowed`},
		{"not UTF-8", func(task *api.Task) { spec(task).Dir = "/\xff" }, "Spec.Container.Dir: is not valid UTF-8"},
		{"key not UTF-8", func(task *api.Task) { spec(task).Labels = map[string]string{"\xff": "v"} }, `Spec.Container.Labels: has the key "\xff", which is not valid UTF-8`},
		{"label not UTF-8", func(task *api.Task) { spec(task).Labels = map[string]string{"k": "\xff"} }, "Spec.Container.Labels[k]: is not valid UTF-8"},

		{"volume without a mount", func(task *api.Task) {
			withMount(api.Mount{Type: api.MountTypeVolume, Source: "s", Target: "/a"})(task)
			task.Volumes = []*api.VolumeAttachment{{ID: "v", Source: "s", Target: "/a"}}
		}, "Volumes[0]: no mount of type cluster has its source and target"},
		{"volume without an ID", func(task *api.Task) {
			withMount(api.Mount{Type: api.MountTypeCluster, Source: "s", Target: "/a"})(task)
			task.Volumes = []*api.VolumeAttachment{{Source: "s", Target: "/a"}}
		}, "Volumes[0].ID: is empty"},
		{"mount without a volume", func(task *api.Task) {
			withMount(api.Mount{Type: api.MountTypeCluster, Source: "s", Target: "/a"})(task)
			task.Volumes = []*api.VolumeAttachment{{ID: "v", Source: "s", Target: "/b"}}
		}, `Spec.Container.Mounts[0].Source: the swarm has given the task no volume for it: none of its Volumes has source "s" and target "/a"`},
		{"mount cluster without a source", func(task *api.Task) {
			withMount(api.Mount{Type: api.MountTypeCluster, Target: "/a"})(task)
			task.Volumes = []*api.VolumeAttachment{{ID: "v", Target: "/a"}}
		}, "Spec.Container.Mounts[0].Source: is empty"},
		{"two volumes for one mount", func(task *api.Task) {
			withMount(api.Mount{Type: api.MountTypeCluster, Source: "s", Target: "/a"})(task)
			task.Volumes = []*api.VolumeAttachment{{ID: "v", Source: "s", Target: "/a"}, {ID: "w", Source: "s", Target: "/a"}}
		}, "Volumes[1]: no mount of type cluster has its source and target"},

		{"image in capitals", func(task *api.Task) { spec(task).Image = "example/Case:1" }, "Spec.Container.Image: is no image reference"},
		{"image with a space", func(task *api.Task) { spec(task).Image = "a b" }, "Spec.Container.Image: is no image reference"},
		{"image that is a URL", func(task *api.Task) { spec(task).Image = "https://user:secret{{@reg/x" }, "Spec.Container.Image: is no image reference"},
		{"image with another digest", func(task *api.Task) { spec(task).Image = "x@sha256:00" }, "Spec.Container.Image: is no image reference"},

		{"env empty", func(task *api.Task) { spec(task).Env = []string{"A=1", ""} }, "Spec.Container.Env[1]: names no variable"},
		{"env without name", func(task *api.Task) { spec(task).Env = []string{"=secret"} }, "Spec.Container.Env[0]: names no variable"},
		{"env template", func(task *api.Task) { spec(task).Env = []string{"A=secret{{.No"} }, "Spec.Container.Env[0]: the template of variable A cannot be expanded (the value is not shown); write {{ in a value as {{\"{{\"}}"},
		{"env template field", func(task *api.Task) { spec(task).Env = []string{"A={{.Secret}}"} }, "Spec.Container.Env[0]: the template of variable A cannot be expanded (the value is not shown); write {{ in a value as {{\"{{\"}}"},
		{"env template not UTF-8", func(task *api.Task) { spec(task).Env = []string{`A={{"\xff"}}`} }, "Spec.Container.Env[0]: the template of variable A cannot be expanded (the value is not shown); write {{ in a value as {{\"{{\"}}"},
		{"hostname template not UTF-8", func(task *api.Task) { spec(task).Hostname = `{{"\xff"}}` }, "Spec.Container.Hostname: its template expands to what is not valid UTF-8"},
		{"hostname template", func(task *api.Task) { spec(task).Hostname = "{{" }, "Spec.Container.Hostname: its template cannot be expanded: template: expansion:1: unclosed action"},
		{"mount source template", withMount(api.Mount{Source: "{{", Target: "/a"}), "Spec.Container.Mounts[0].Source: its template cannot be expanded: template: expansion:1: unclosed action"},
		{"mount target template", withMount(api.Mount{Source: "/a", Target: "{{"}), "Spec.Container.Mounts[0].Target: its template cannot be expanded: template: expansion:1: unclosed action"},
		{"volume label template", withMount(api.Mount{Type: api.MountTypeVolume, Target: "/a", VolumeOptions: &api.Mount_VolumeOptions{Labels: map[string]string{"k": "{{"}}}), "Spec.Container.Mounts[0].VolumeOptions.Labels[k]: its template cannot be expanded (the value is not shown)"},
		{"volume option template", withMount(api.Mount{Type: api.MountTypeVolume, Target: "/a", VolumeOptions: &api.Mount_VolumeOptions{DriverConfig: &api.Driver{Options: map[string]string{"o": "password=secret{{"}}}}), "Spec.Container.Mounts[0].VolumeOptions.DriverConfig.Options[o]: its template cannot be expanded (the value is not shown)"},
		{"resource nil", func(task *api.Task) { task.AssignedGenericResources = []*api.GenericResource{nil} }, "AssignedGenericResources[0]: is nil"},
		{"resource empty", func(task *api.Task) { task.AssignedGenericResources = []*api.GenericResource{{}} }, "AssignedGenericResources[0]: names no resource"},
		{"resource half-filled", func(task *api.Task) {
			task.AssignedGenericResources = []*api.GenericResource{{Resource: &api.GenericResource_NamedResourceSpec{}}}
		}, "AssignedGenericResources[0].NamedResourceSpec: is nil"},
		{"resource kind", func(task *api.Task) {
			task.AssignedGenericResources = []*api.GenericResource{{Resource: &api.GenericResource_DiscreteResourceSpec{DiscreteResourceSpec: &api.DiscreteGenericResource{Kind: "a=b"}}}}
		}, `AssignedGenericResources[0].DiscreteResourceSpec.Kind: "a=b" cannot be part of the name of a variable`},

		{"grace out of range", func(task *api.Task) { spec(task).StopGracePeriod = seconds(315576000001, 0) }, "Spec.Container.StopGracePeriod: 315576000001 seconds and 0 nanoseconds are no duration"},
		{"grace signs", func(task *api.Task) { spec(task).StopGracePeriod = seconds(1, -1) }, "Spec.Container.StopGracePeriod: 1 seconds and -1 nanoseconds are no duration"},
		{"grace negative", func(task *api.Task) { spec(task).StopGracePeriod = seconds(-1, 0) }, "Spec.Container.StopGracePeriod: -1s is negative"},
		{"grace too long", func(task *api.Task) { spec(task).StopGracePeriod = seconds(2147483647, 1) }, "Spec.Container.StopGracePeriod: 596523h14m7.000000001s is more than an engine can count"},
		{"health interval", withHealth(api.HealthConfig{Interval: seconds(400000000000, 0)}), "Spec.Container.Healthcheck.Interval: 400000000000 seconds and 0 nanoseconds are no duration"},
		{"health timeout", withHealth(api.HealthConfig{Timeout: seconds(-3, 0)}), "Spec.Container.Healthcheck.Timeout: -3s is negative"},
		{"health start", withHealth(api.HealthConfig{StartPeriod: seconds(0, 999999)}), "Spec.Container.Healthcheck.StartPeriod: 999.999µs is less than 1ms"},
		{"health start interval", withHealth(api.HealthConfig{StartInterval: seconds(0, 1)}), "Spec.Container.Healthcheck.StartInterval: 1ns is less than 1ms"},
		{"health test without a command", withHealth(api.HealthConfig{Test: []string{"CMD"}}), notest},
		{"health test with an empty command", withHealth(api.HealthConfig{Test: []string{"CMD", ""}}), notest},
		{"health test without a shell's command", withHealth(api.HealthConfig{Test: []string{"CMD-SHELL"}}), notest},
		{"health test without its kind", withHealth(api.HealthConfig{Test: []string{"curl -f localhost"}}), notest},
		{"health test of nothing", withHealth(api.HealthConfig{Test: []string{""}}), notest},
		{"health retries", withHealth(api.HealthConfig{Retries: -1}), "Spec.Container.Healthcheck.Retries: -1 is negative"},
		{"credentials", func(task *api.Task) {
			spec(task).PullOptions = &api.ContainerSpec_PullOptions{RegistryAuth: "secret"}
		}, "Spec.Container.PullOptions.RegistryAuth: is not the base64url-encoded JSON of the X-Registry-Auth header (the value is not shown)"},
		{"credentials that are a list", func(task *api.Task) {
			spec(task).PullOptions = &api.ContainerSpec_PullOptions{RegistryAuth: "W10="}
		}, "Spec.Container.PullOptions.RegistryAuth: is not the base64url-encoded JSON of the X-Registry-Auth header (the value is not shown)"},
		{"credentials that are a text", func(task *api.Task) {
			spec(task).PullOptions = &api.ContainerSpec_PullOptions{RegistryAuth: "InNlY3JldCI="}
		}, "Spec.Container.PullOptions.RegistryAuth: is not the base64url-encoded JSON of the X-Registry-Auth header (the value is not shown)"},
		{"credentials that are null", func(task *api.Task) {
			spec(task).PullOptions = &api.ContainerSpec_PullOptions{RegistryAuth: "bnVsbA=="}
		}, "Spec.Container.PullOptions.RegistryAuth: is not the base64url-encoded JSON of the X-Registry-Auth header (the value is not shown)"},
		{"credentials that are a number", func(task *api.Task) {
			spec(task).PullOptions = &api.ContainerSpec_PullOptions{RegistryAuth: "NQ"}
		}, "Spec.Container.PullOptions.RegistryAuth: is not the base64url-encoded JSON of the X-Registry-Auth header (the value is not shown)"},
		{"credentials that are a password of the wrong type", func(task *api.Task) {
			spec(task).PullOptions = &api.ContainerSpec_PullOptions{RegistryAuth: "eyJwYXNzd29yZCI6NX0="}
		}, "Spec.Container.PullOptions.RegistryAuth: is not the base64url-encoded JSON of the X-Registry-Auth header (the value is not shown)"},
		{"credentials with more behind", func(task *api.Task) {
			spec(task).PullOptions = &api.ContainerSpec_PullOptions{RegistryAuth: "e30=\x00"}
		}, "Spec.Container.PullOptions.RegistryAuth: is not the base64url-encoded JSON of the X-Registry-Auth header (the value is not shown)"},

		{"isolation", func(task *api.Task) { spec(task).Isolation = 9 }, "Spec.Container.Isolation: has the unknown value 9"},
		{"OOM score", func(task *api.Task) { spec(task).OomScoreAdj = 1 << 32 }, "Spec.Container.OomScoreAdj: 4294967296 is not between -1000 and 1000"},
		{"capability added", func(task *api.Task) { spec(task).CapabilityAdd = []string{"CAP_KILL", ""} }, "Spec.Container.CapabilityAdd[1]: is empty"},
		{"capability dropped", func(task *api.Task) { spec(task).CapabilityDrop = []string{""} }, "Spec.Container.CapabilityDrop[0]: is empty"},
		{"sysctl", func(task *api.Task) { spec(task).Sysctls = map[string]string{"": "1"} }, "Spec.Container.Sysctls: has a value without a name"},
		{"sysctl of which network", func(task *api.Task) {
			spec(task).Sysctls = map[string]string{"net.ipv4.conf.eth0.forwarding": "1"}
			task.Networks = []*api.NetworkAttachment{attachment(namedNetwork("a")), attachment(namedNetwork("b"))}
		}, "Spec.Container.Sysctls[net.ipv4.conf.eth0.forwarding]: which of several networks has the interface eth0 is not known beforehand; set com.docker.network.endpoint.sysctls in Networks.DriverAttachmentOpts"},
		{"sysctl of a second interface", func(task *api.Task) {
			spec(task).Sysctls = map[string]string{"net.ipv6.conf.eth1.forwarding": "1"}
		}, "Spec.Container.Sysctls[net.ipv6.conf.eth1.forwarding]: the task has no interface eth1, only eth0"},
		{"sysctl without an interface", func(task *api.Task) {
			spec(task).Sysctls = map[string]string{"net.ipv6.conf.eth0.forwarding": "1"}
			task.Networks = []*api.NetworkAttachment{attachment(namedNetwork("none"))}
		}, "Spec.Container.Sysctls[net.ipv6.conf.eth0.forwarding]: network none has no interface eth0"},
		{"name server", func(task *api.Task) {
			spec(task).DNSConfig = &api.ContainerSpec_DNSConfig{Nameservers: []string{"10.0.0.1", "dns"}}
		}, `Spec.Container.DNSConfig.Nameservers[1]: "dns" is no IP address`},
		{"host without name", func(task *api.Task) { spec(task).Hosts = []string{"10.0.0.1 a", "10.0.0.1 # b"} }, "Spec.Container.Hosts[1]: is not an address with one name or more"},
		{"host without address", func(task *api.Task) { spec(task).Hosts = []string{"a 10.0.0.1"} }, `Spec.Container.Hosts[0]: "a" is no IP address`},
		{"host with colon", func(task *api.Task) { spec(task).Hosts = []string{"10.0.0.1 a:b"} }, `Spec.Container.Hosts[0]: "a:b" is no host name`},
		{"pids", func(task *api.Task) { spec(task).PidsLimit = -2 }, "Spec.Container.PidsLimit: -2 is less than -1, which is no limit"},
		{"ulimit nil", func(task *api.Task) { spec(task).Ulimits = []*api.ContainerSpec_Ulimit{nil} }, "Spec.Container.Ulimits[0]: is nil"},
		{"ulimit name", func(task *api.Task) { spec(task).Ulimits = []*api.ContainerSpec_Ulimit{{Name: "files"}} }, `Spec.Container.Ulimits[0].Name: "files" is unknown, or is there twice`},
		{"ulimit twice", func(task *api.Task) {
			spec(task).Ulimits = []*api.ContainerSpec_Ulimit{{Name: "cpu"}, {Name: "cpu"}}
		}, `Spec.Container.Ulimits[1].Name: "cpu" is unknown, or is there twice`},
		{"ulimit values", func(task *api.Task) {
			spec(task).Ulimits = []*api.ContainerSpec_Ulimit{{Name: "cpu", Soft: 2, Hard: 1}}
		}, "Spec.Container.Ulimits[0].Soft: the limits 2 (soft) and 1 (hard) do not go together"},

		{"CPU too little", withLimits(api.Resources{NanoCPUs: 5e6}), "Spec.Resources.Limits.NanoCPUs: 5000000 is less than 0.01 CPUs (10000000), the least that an engine takes"},
		{"CPU negative", withLimits(api.Resources{NanoCPUs: -1}), "Spec.Resources.Limits.NanoCPUs: -1 is less than 0.01 CPUs (10000000), the least that an engine takes"},
		{"memory", withLimits(api.Resources{MemoryBytes: -1}), "Spec.Resources.Limits.MemoryBytes: -1 is negative"},
		{"swap alone", func(task *api.Task) {
			task.Spec.Resources = &api.ResourceRequirements{SwapBytes: &gogotypes.Int64Value{Value: 1}}
		}, "Spec.Resources.SwapBytes: an engine limits swap only beside memory: set Spec.Resources.Limits.MemoryBytes"},
		{"swap negative", func(task *api.Task) {
			task.Spec.Resources = &api.ResourceRequirements{SwapBytes: &gogotypes.Int64Value{Value: -2}}
		}, "Spec.Resources.SwapBytes: -2 is less than -1, which is no limit"},
		{"swap overflows", func(task *api.Task) {
			task.Spec.Resources = &api.ResourceRequirements{Limits: &api.Resources{MemoryBytes: 1 << 62}, SwapBytes: &gogotypes.Int64Value{Value: 1 << 62}}
		}, "Spec.Resources.SwapBytes: 4611686018427387904 and the memory limit are too much to count"},
		{"swappiness", func(task *api.Task) {
			task.Spec.Resources = &api.ResourceRequirements{MemorySwappiness: &gogotypes.Int64Value{Value: 101}}
		}, "Spec.Resources.MemorySwappiness: 101 is neither between 0 and 100 nor -1"},
		{"platform nil", func(task *api.Task) { task.Spec.Placement = &api.Placement{Platforms: []*api.Platform{nil}} }, "Spec.Placement.Platforms[0]: is nil"},

		{"credential empty", func(task *api.Task) {
			spec(task).Privileges = &api.Privileges{CredentialSpec: &api.Privileges_CredentialSpec{Source: &api.Privileges_CredentialSpec_File{}}}
		}, "Spec.Container.Privileges.CredentialSpec.File: is empty"},
		{"SELinux", func(task *api.Task) {
			spec(task).Privileges = &api.Privileges{SELinuxContext: &api.Privileges_SELinuxContext{Disable: true, Role: "r"}}
		}, "Spec.Container.Privileges.SELinuxContext.Disable: the context has labels that would have no effect"},
		{"seccomp mode", func(task *api.Task) {
			spec(task).Privileges = &api.Privileges{Seccomp: &api.Privileges_SeccompOpts{Mode: 7}}
		}, "Spec.Container.Privileges.Seccomp.Mode: has the unknown value 7"},
		{"seccomp without profile", func(task *api.Task) {
			spec(task).Privileges = &api.Privileges{Seccomp: &api.Privileges_SeccompOpts{Mode: api.Privileges_SeccompOpts_CUSTOM}}
		}, "Spec.Container.Privileges.Seccomp.Profile: is no JSON object"},
		{"seccomp profile not UTF-8", func(task *api.Task) {
			spec(task).Privileges = &api.Privileges{Seccomp: &api.Privileges_SeccompOpts{Mode: api.Privileges_SeccompOpts_CUSTOM, Profile: []byte("{\"a\":\"\xff\"}")}}
		}, "Spec.Container.Privileges.Seccomp.Profile: is not valid UTF-8"},
		{"seccomp profile unused", func(task *api.Task) {
			spec(task).Privileges = &api.Privileges{Seccomp: &api.Privileges_SeccompOpts{Profile: []byte("{}")}}
		}, "Spec.Container.Privileges.Seccomp.Profile: would have no effect: Mode is DEFAULT"},
		{"AppArmor mode", func(task *api.Task) {
			spec(task).Privileges = &api.Privileges{Apparmor: &api.Privileges_AppArmorOpts{Mode: 2}}
		}, "Spec.Container.Privileges.Apparmor.Mode: has the unknown value 2"},

		{"mount type", withMount(api.Mount{Type: 9, Target: "/a"}), "Spec.Container.Mounts[0].Type: has the unknown value 9"},
		{"mount empty", withMount(api.Mount{}), "Spec.Container.Mounts[0].Target: is empty"},
		{"mount target relative", withMount(api.Mount{Source: "/a", Target: "a"}), `Spec.Container.Mounts[0].Target: "a" is not an absolute path`},
		{"mount target root", withMount(api.Mount{Source: "/a", Target: "/x/.."}), `Spec.Container.Mounts[0].Target: "/x/.." is the root folder`},
		{"mount target twice", func(task *api.Task) {
			spec(task).Mounts = []api.Mount{{Type: api.MountTypeTmpfs, Target: "/a"}, {Source: "/b", Target: "/x/../a/"}}
		}, `Spec.Container.Mounts[1].Target: "/x/../a/" is also that of Mounts[0]`},
		{"mount propagation", withMount(api.Mount{Source: "/a", Target: "/a", BindOptions: &api.Mount_BindOptions{Propagation: 6}}), "Spec.Container.Mounts[0].BindOptions.Propagation: has the unknown value 6"},
		{"mount consistency", withMount(api.Mount{Source: "/a", Target: "/a", Consistency: 4}), "Spec.Container.Mounts[0].Consistency: has the unknown value 4"},
		{"bind source", withMount(api.Mount{Target: "/a"}), `Spec.Container.Mounts[0].Source: "" is not an absolute path`},
		{"bind with volume options", withMount(api.Mount{Source: "/a", Target: "/a", VolumeOptions: &api.Mount_VolumeOptions{}}), "Spec.Container.Mounts[0].VolumeOptions: a mount of type BIND has none"},
		{"volume with bind options", withMount(api.Mount{Type: api.MountTypeVolume, Target: "/a", BindOptions: &api.Mount_BindOptions{}}), "Spec.Container.Mounts[0].BindOptions: a mount of type VOLUME has none"},
		{"volume with tmpfs options", withMount(api.Mount{Type: api.MountTypeVolume, Target: "/a", TmpfsOptions: &api.Mount_TmpfsOptions{}}), "Spec.Container.Mounts[0].TmpfsOptions: a mount of type VOLUME has none"},
		{"volume source", withMount(api.Mount{Type: api.MountTypeVolume, Source: "/a", Target: "/a"}), `Spec.Container.Mounts[0].Source: "/a" is a path, not the name of a volume`},
		{"volume read-only without name", withMount(api.Mount{Type: api.MountTypeVolume, Target: "/a", ReadOnly: true}), "Spec.Container.Mounts[0].ReadOnly: a volume without a name is empty and must be writable"},
		{"subpath without name", withMount(api.Mount{Type: api.MountTypeVolume, Target: "/a", VolumeOptions: &api.Mount_VolumeOptions{Subpath: "a"}}), "Spec.Container.Mounts[0].VolumeOptions.Subpath: a volume without a name has no folders"},
		{"subpath leads out", withMount(api.Mount{Type: api.MountTypeVolume, Source: "v", Target: "/a", VolumeOptions: &api.Mount_VolumeOptions{Subpath: "a/../../b"}}), `Spec.Container.Mounts[0].VolumeOptions.Subpath: "a/../../b" leads out of the volume`},
		{"volume twice", func(task *api.Task) {
			options := func(o string) *api.Mount_VolumeOptions {
				return &api.Mount_VolumeOptions{DriverConfig: &api.Driver{Name: "local", Options: map[string]string{"o": o}}}
			}
			spec(task).Mounts = []api.Mount{
				{Type: api.MountTypeVolume, Source: "v", Target: "/a", VolumeOptions: options("x")},
				{Type: api.MountTypeVolume, Source: "v", Target: "/b", VolumeOptions: options("y")},
			}
		}, "Spec.Container.Mounts[1].VolumeOptions: volume v has another driver or labels in Mounts[0]"},
		{"volume template that expands to nothing", withMount(api.Mount{Type: api.MountTypeVolume, Source: "{{with .Task.Name}}{{end}}", Target: "/a"}), "Spec.Container.Mounts[0].Source: its template expands to nothing, and the volume would be another one each time"},
		{"tmpfs consistency", withMount(api.Mount{Type: api.MountTypeTmpfs, Target: "/a", Consistency: api.MountConsistencyCached, TmpfsOptions: &api.Mount_TmpfsOptions{Options: "exec"}}), "Spec.Container.Mounts[0].Consistency: a mount of type TMPFS with Options has none"},
		{"pipe source", withMount(api.Mount{Type: api.MountTypeNamedPipe, Target: `\\.\pipe\p`}), "Spec.Container.Mounts[0].Source: is empty"},
		{"tmpfs source", withMount(api.Mount{Type: api.MountTypeTmpfs, Source: "/a", Target: "/a"}), "Spec.Container.Mounts[0].Source: a mount of type TMPFS has none"},
		{"tmpfs size", withMount(api.Mount{Type: api.MountTypeTmpfs, Target: "/a", TmpfsOptions: &api.Mount_TmpfsOptions{SizeBytes: -1024}}), "Spec.Container.Mounts[0].TmpfsOptions.SizeBytes: -1024 is negative"},
		{"tmpfs mode", withMount(api.Mount{Type: api.MountTypeTmpfs, Target: "/a", TmpfsOptions: &api.Mount_TmpfsOptions{Mode: 1<<20 | 0o777}}), "Spec.Container.Mounts[0].TmpfsOptions.Mode: 04000777 is more than 07777"},
		{"tmpfs options JSON", tmpfs(`[["exec"`), `Spec.Container.Mounts[0].TmpfsOptions.Options: "[[\"exec\"" is no JSON list of lists: unexpected end of JSON input`},
		{"tmpfs options length", tmpfs(`[["uid","1","2"]]`), `Spec.Container.Mounts[0].TmpfsOptions.Options: "[[\"uid\",\"1\",\"2\"]]" has an option that is not a name, or a name and a value`},
		{"tmpfs options comma", tmpfs(`[["mpol","bind:0,2"]]`), `Spec.Container.Mounts[0].TmpfsOptions.Options: "[[\"mpol\",\"bind:0,2\"]]" has an option with a comma, which an engine does not take`},
		{"tmpfs options empty", tmpfs("exec,,uid=1"), `Spec.Container.Mounts[0].TmpfsOptions.Options: "exec,,uid=1" has an empty option`},
		{"tmpfs options read-only", tmpfs("ro"), "Spec.Container.Mounts[0].TmpfsOptions.Options: ro contradicts ReadOnly"},
		{"tmpfs size twice", withMount(api.Mount{Type: api.MountTypeTmpfs, Target: "/a", TmpfsOptions: &api.Mount_TmpfsOptions{SizeBytes: 1, Options: "size=2"}}), "Spec.Container.Mounts[0].TmpfsOptions.Options: size is given in SizeBytes too"},
		{"tmpfs mode twice", withMount(api.Mount{Type: api.MountTypeTmpfs, Target: "/a", TmpfsOptions: &api.Mount_TmpfsOptions{Mode: 1, Options: "mode=2"}}), "Spec.Container.Mounts[0].TmpfsOptions.Options: mode is given in Mode too"},

		{"port nil", withPort(nil), "Endpoint.Ports[0]: is nil"},
		{"port target 0", withPort(&api.PortConfig{}), "Endpoint.Ports[0].TargetPort: 0 is not between 1 and 65535"},
		{"port target", withPort(&api.PortConfig{TargetPort: 65536}), "Endpoint.Ports[0].TargetPort: 65536 is not between 1 and 65535"},
		{"port published", withPort(&api.PortConfig{TargetPort: 80, PublishedPort: 65536}), "Endpoint.Ports[0].PublishedPort: 65536 is more than 65535"},
		{"port protocol", withPort(&api.PortConfig{TargetPort: 80, Protocol: 9}), "Endpoint.Ports[0].Protocol: has the unknown value 9"},
		{"port mode", withPort(&api.PortConfig{TargetPort: 80, PublishMode: 2}), "Endpoint.Ports[0].PublishMode: has the unknown value 2"},
		{"port twice", func(task *api.Task) {
			task.Endpoint = &api.Endpoint{Ports: []*api.PortConfig{
				{TargetPort: 80, PublishedPort: 8080, PublishMode: api.PublishModeHost},
				{TargetPort: 81, PublishedPort: 8080, PublishMode: api.PublishModeHost},
			}}
		}, "Endpoint.Ports[1].PublishedPort: 8080/tcp is published by Endpoint.Ports[0] already"},

		{"port of network none", func(task *api.Task) {
			withPort(&api.PortConfig{TargetPort: 80, PublishMode: api.PublishModeHost})(task)
			task.Networks = []*api.NetworkAttachment{attachment(namedNetwork("none"))}
		}, "Endpoint.Ports[0].PublishMode: network none publishes nothing"},
		{"another port of network host", func(task *api.Task) {
			withPort(&api.PortConfig{TargetPort: 80, PublishedPort: 8080, PublishMode: api.PublishModeHost})(task)
			task.Networks = []*api.NetworkAttachment{attachment(namedNetwork("host"))}
		}, "Endpoint.Ports[0].PublishedPort: network host publishes each port under its own number, not 80 under 8080"},

		{"attachment nil", withAttachment(nil), "Networks[0]: is nil"},
		{"attachment empty", withAttachment(&api.NetworkAttachment{}), "Networks[0].Network: is nil"},
		{"network without name", withAttachment(attachment(&api.Network{})), "Networks[0].Network.Spec.Annotations.Name: is empty"},
		{"network with slash", withAttachment(attachment(namedNetwork("a/../b"))), `Networks[0].Network.Spec.Annotations.Name: "a/../b" cannot be used as the name of a network`},
		{"network of a container", func(task *api.Task) {
			n := namedNetwork("container:db")
			n.Spec.Annotations.Labels = map[string]string{"com.docker.swarm.predefined": "true"}
			task.Networks = []*api.NetworkAttachment{attachment(n)}
		}, `Networks[0].Network.Spec.Annotations.Name: "container:db" cannot be used as the name of a network`},
		{"network twice", func(task *api.Task) {
			task.Networks = []*api.NetworkAttachment{attachment(namedNetwork("a")), attachment(namedNetwork("b")), attachment(namedNetwork("a"))}
		}, "Networks[2].Network.Spec.Annotations.Name: a is also that of Networks[0]"},
		{"network host with another", func(task *api.Task) {
			task.Networks = []*api.NetworkAttachment{attachment(namedNetwork("a")), attachment(namedNetwork("host"))}
		}, "Networks[1].Network: network host cannot be joined together with another one"},
		{"network none with another", func(task *api.Task) {
			task.Networks = []*api.NetworkAttachment{attachment(namedNetwork("none")), attachment(namedNetwork("bridge"))}
		}, "Networks[0].Network: network none cannot be joined together with another one"},
		{"network alias empty", withAttachment(&api.NetworkAttachment{Network: namedNetwork("n"), Aliases: []string{""}}), "Networks[0].Aliases[0]: is empty"},
		{"network predefined with alias", withAttachment(&api.NetworkAttachment{Network: namedNetwork("bridge"), Aliases: []string{"a"}}), "Networks[0].Aliases: network bridge is the engine's own, which has none"},
		{"network predefined with address", withAttachment(&api.NetworkAttachment{Network: namedNetwork("bridge"), Addresses: []string{"10.0.0.1/24"}}), "Networks[0].Addresses: network bridge is the engine's own, which gives the addresses itself"},
		{"network predefined and internal", withPredefined(func(n *api.Network) { n.Spec.Internal = true }), "Networks[0].Network.Spec.Internal: network bridge is the engine's own and used as it is"},
		{"network predefined with IPv6", withPredefined(func(n *api.Network) { n.Spec.Ipv6Enabled = true }), "Networks[0].Network.Spec.Ipv6Enabled: network bridge is the engine's own and used as it is"},
		{"network predefined with a configuration", withPredefined(func(n *api.Network) { n.Spec.ConfigFrom = &api.NetworkSpec_Network{Network: "c"} }), "Networks[0].Network.Spec.Network: network bridge is the engine's own and used as it is"},
		{"network bridge of another driver", withPredefined(func(n *api.Network) { n.DriverState = &api.Driver{Name: "overlay"} }), `Networks[0].Network.DriverState.Name: network bridge is the engine's own, of the driver bridge and not overlay`},
		{"network host of another driver", withOwn("host", func(n *api.Network) { n.DriverState = &api.Driver{Name: "bridge"} }), `Networks[0].Network.DriverState.Name: network host is the engine's own, of the driver host and not bridge`},
		{"network none of another driver", withOwn("none", func(n *api.Network) { n.DriverState = &api.Driver{Name: "none"} }), `Networks[0].Network.DriverState.Name: network none is the engine's own, of the driver null and not none`},
		{"network default of another driver", withOwn("default", func(n *api.Network) { n.DriverState = &api.Driver{Name: "default"} }), `Networks[0].Network.DriverState.Name: network default is the engine's own, of the driver bridge and not default`},
		{"network predefined and attachable", withPredefined(func(n *api.Network) { n.Spec.Attachable = true }), "Networks[0].Network.Spec.Attachable: network bridge is the engine's own and used as it is"},
		{"network predefined with an address driver", withPredefined(func(n *api.Network) { n.IPAM = &api.IPAMOptions{Driver: &api.Driver{Name: "dhcp"}} }), "Networks[0].Network.IPAM.Driver.Name: network bridge is the engine's own and used as it is"},
		{"network predefined with options of an address driver", withPredefined(func(n *api.Network) {
			n.IPAM = &api.IPAMOptions{Driver: &api.Driver{Name: "default", Options: map[string]string{"a": "b"}}}
		}), "Networks[0].Network.IPAM.Driver.Options: network bridge is the engine's own and used as it is"},
		{"network predefined with driver options", withPredefined(func(n *api.Network) {
			n.DriverState = &api.Driver{Name: "bridge", Options: map[string]string{"a": "b"}}
		}), "Networks[0].Network.DriverState.Options: network bridge is the engine's own and used as it is"},
		{"network predefined with a subnet", withPredefined(func(n *api.Network) { n.IPAM = &api.IPAMOptions{Configs: []*api.IPAMConfig{{Subnet: "10.0.0.0/24"}}} }), "Networks[0].Network.IPAM.Configs: network bridge is the engine's own and used as it is"},
		{"network of a configuration with labels", withConfigured(func(n *api.Network) { n.Spec.Annotations.Labels = map[string]string{"a": "b"} }), "Networks[0].Network.Spec.Annotations.Labels: network n takes this from the network c, its Spec.Network, and an engine takes nothing beside it"},
		{"network of a configuration with IPv6", withConfigured(func(n *api.Network) { n.Spec.Ipv6Enabled = true }), "Networks[0].Network.Spec.Ipv6Enabled: network n takes this from the network c, its Spec.Network, and an engine takes nothing beside it"},
		{"network of a configuration with driver options", withConfigured(func(n *api.Network) {
			n.DriverState = &api.Driver{Name: "bridge", Options: map[string]string{"a": "b"}}
		}), "Networks[0].Network.DriverState.Options: network n takes this from the network c, its Spec.Network, and an engine takes nothing beside it"},
		{"network of a configuration with an address driver", withConfigured(func(n *api.Network) { n.IPAM = &api.IPAMOptions{Driver: &api.Driver{Name: "dhcp"}} }), "Networks[0].Network.IPAM.Driver.Name: network n takes this from the network c, its Spec.Network, and an engine takes nothing beside it"},
		{"network of a configuration with options of an address driver", withConfigured(func(n *api.Network) {
			n.IPAM = &api.IPAMOptions{Driver: &api.Driver{Options: map[string]string{"a": "b"}}}
		}), "Networks[0].Network.IPAM.Driver.Options: network n takes this from the network c, its Spec.Network, and an engine takes nothing beside it"},
		{"network of a configuration with a subnet", withConfigured(func(n *api.Network) { n.IPAM = &api.IPAMOptions{Configs: []*api.IPAMConfig{{Subnet: "10.0.0.0/24"}}} }), "Networks[0].Network.IPAM.Configs: network n takes this from the network c, its Spec.Network, and an engine takes nothing beside it"},
		{"network host with options", withAttachment(&api.NetworkAttachment{Network: namedNetwork("host"), DriverAttachmentOpts: map[string]string{"a": "b"}}), "Networks[0].DriverAttachmentOpts: network host has none"},
		{"address", withAttachment(&api.NetworkAttachment{Network: namedNetwork("n"), Addresses: []string{"10.0.0.1"}}), `Networks[0].Addresses[0]: "10.0.0.1" is no address with the length of its subnet, as in 10.0.0.2/24`},
		{"addresses", withAttachment(&api.NetworkAttachment{Network: namedNetwork("n"), Addresses: []string{"10.0.0.1/24", "fd00::1/64", "::ffff:10.0.0.2/120"}}), "Networks[0].Addresses[2]: 10.0.0.2 is a second IPv4 address; an engine gives one"},
		{"IPAM config nil", withIPAM(nil), "Networks[0].Network.IPAM.Configs[0]: is nil"},
		{"subnet", withIPAM(&api.IPAMConfig{Subnet: "10.0.0.0"}), `Networks[0].Network.IPAM.Configs[0].Subnet: "10.0.0.0" is no subnet`},
		{"gateway without subnet", withIPAM(&api.IPAMConfig{Gateway: "10.0.0.1"}), `Networks[0].Network.IPAM.Configs[0].Subnet: "" is no subnet`},
		{"subnet without IPv6", withIPAM(&api.IPAMConfig{Subnet: "fd00::/64"}), "Networks[0].Network.IPAM.Configs[0].Subnet: fd00::/64 has no effect in a network without Ipv6Enabled"},
		{"subnet family", withIPAM(&api.IPAMConfig{Family: api.IPAMConfig_IPV6, Subnet: "10.0.0.0/24"}), "Networks[0].Network.IPAM.Configs[0].Family: IPV6 is not that of subnet 10.0.0.0/24"},
		{"subnet family unknown", withIPAM(&api.IPAMConfig{Family: 5, Subnet: "10.0.0.0/24"}), "Networks[0].Network.IPAM.Configs[0].Family: has the unknown value 5"},
		{"range", withIPAM(&api.IPAMConfig{Subnet: "10.0.0.0/24", Range: "10.0.0.0/16"}), `Networks[0].Network.IPAM.Configs[0].Range: "10.0.0.0/16" is no part of subnet 10.0.0.0/24`},
		{"gateway", withIPAM(&api.IPAMConfig{Subnet: "10.0.0.0/24", Gateway: "10.0.1.1"}), `Networks[0].Network.IPAM.Configs[0].Gateway: "10.0.1.1" is no address in subnet 10.0.0.0/24`},
		{"reserved", withIPAM(&api.IPAMConfig{Subnet: "10.0.0.0/24", Reserved: map[string]string{"r": "x"}}), `Networks[0].Network.IPAM.Configs[0].Reserved[r]: "x" is no address in subnet 10.0.0.0/24`},
		{"nil where only schedulers read", func(task *api.Task) {
			task.Status.PortStatus = &api.PortStatus{Ports: []*api.PortConfig{nil}}
		}, "Status.PortStatus.Ports[0]: is nil"},

		// What no engine carries out, found only when the container is made or started
		// (tried on 20.10 and 29).
		{"hostname too long", func(task *api.Task) { spec(task).Hostname = strings.Repeat("x", 65) }, "Spec.Container.Hostname: has 65 bytes, a system takes 64"},
		{"hostname too long by its template", func(task *api.Task) {
			spec(task).Hostname = "{{.Service.Name}}-{{.Node.Hostname}}-{{.Task.ID}}"
			task.ServiceAnnotations.Name = strings.Repeat("s", 64)
		}, "Spec.Container.Hostname: has 78 bytes, a system takes 64"},
		{"hostname too long in bytes", func(task *api.Task) { spec(task).Hostname = strings.Repeat("ä", 33) }, "Spec.Container.Hostname: has 66 bytes, a system takes 64"},
		{"hostname with a NUL", func(task *api.Task) { spec(task).Hostname = `a{{"\x00"}}` }, "Spec.Container.Hostname: has a NUL byte"},
		{"env with a NUL", func(task *api.Task) { spec(task).Env = []string{"A=1", "B=secret\x00"} }, "Spec.Container.Env[1]: has a NUL byte"},
		{"env template with a NUL", func(task *api.Task) { spec(task).Env = []string{`A={{"\x00"}}`} }, "Spec.Container.Env[0]: has a NUL byte"},
		{"command with a NUL", func(task *api.Task) { spec(task).Command = []string{"run", "a\x00b"} }, "Spec.Container.Command[1]: has a NUL byte"},
		{"argument with a NUL", func(task *api.Task) { spec(task).Args = []string{"\x00"} }, "Spec.Container.Args[0]: has a NUL byte"},
		{"user with a NUL", func(task *api.Task) { spec(task).User = "\x00" }, "Spec.Container.User: has a NUL byte"},
		{"folder with a NUL", func(task *api.Task) { spec(task).Dir = "/\x00" }, "Spec.Container.Dir: has a NUL byte"},
		{"group with a NUL", func(task *api.Task) { spec(task).Groups = []string{"\x00"} }, "Spec.Container.Groups[0]: has a NUL byte"},
		{"health test with a NUL", withHealth(api.HealthConfig{Test: []string{"CMD", "\x00"}}), "Spec.Container.Healthcheck.Test[1]: has a NUL byte"},
		{"mount source with a NUL", withMount(api.Mount{Source: `/{{"\x00"}}`, Target: "/a"}), "Spec.Container.Mounts[0].Source: has a NUL byte"},
		{"mount target with a NUL", withMount(api.Mount{Source: "/a", Target: "/\x00"}), "Spec.Container.Mounts[0].Target: has a NUL byte"},
		{"command that is empty", func(task *api.Task) { spec(task).Command = []string{"", "run"} }, "Spec.Container.Command[0]: is empty"},
		{"folder", func(task *api.Task) { spec(task).Dir = "work" }, `Spec.Container.Dir: "work" is not an absolute path`},
		{"group", func(task *api.Task) { spec(task).Groups = []string{"wheel", ""} }, "Spec.Container.Groups[1]: is empty"},
		{"stop signal", func(task *api.Task) { spec(task).StopSignal = "SIGSTOPP" }, `Spec.Container.StopSignal: "SIGSTOPP" is no signal`},
		{"stop signal 0", func(task *api.Task) { spec(task).StopSignal = "0" }, `Spec.Container.StopSignal: "0" is no signal`},
		{"stop signal of no number", func(task *api.Task) { spec(task).StopSignal = "SIG9" }, `Spec.Container.StopSignal: "SIG9" is no signal`},
		{"stop signal in real time", func(task *api.Task) { spec(task).StopSignal = "SIGRTMIN+16" }, `Spec.Container.StopSignal: "SIGRTMIN+16" is no signal`},
		{"memory too little", withLimits(api.Resources{MemoryBytes: 6<<20 - 1}), "Spec.Resources.Limits.MemoryBytes: 6291455 is less than 6 MiB (6291456), the least that an engine takes"},
		{"pids too many", func(task *api.Task) { spec(task).PidsLimit = math.MaxInt64 }, "Spec.Container.PidsLimit: 9223372036854775807 is more than 4194304, the most that a system counts; 0 is no limit"},
		{"sysctl of the host's network", func(task *api.Task) {
			spec(task).Sysctls = map[string]string{"net.core.somaxconn": "1024"}
			task.Networks = []*api.NetworkAttachment{attachment(namedNetwork("host"))}
		}, "Spec.Container.Sysctls[net.core.somaxconn]: network host has the host's own settings"},
		{"sysctl of the host's interface", func(task *api.Task) {
			spec(task).Sysctls = map[string]string{"net/ipv4/conf/eth0/forwarding": "1"}
			task.Networks = []*api.NetworkAttachment{attachment(namedNetwork("host"))}
		}, "Spec.Container.Sysctls[net/ipv4/conf/eth0/forwarding]: network host has the host's own settings"},
		{"bind, recursively read-only and writable", withMount(api.Mount{Source: "/a", Target: "/a", BindOptions: &api.Mount_BindOptions{ReadOnlyForceRecursive: true}}), "Spec.Container.Mounts[0].BindOptions.ReadOnlyForceRecursive: the mount is not ReadOnly"},
		{"bind, not recursively read-only and writable", withMount(api.Mount{Source: "/a", Target: "/a", BindOptions: &api.Mount_BindOptions{ReadOnlyNonRecursive: true}}), "Spec.Container.Mounts[0].BindOptions.ReadOnlyNonRecursive: the mount is not ReadOnly"},
		{"bind, read-only in both ways", withMount(api.Mount{Source: "/a", Target: "/a", ReadOnly: true, BindOptions: &api.Mount_BindOptions{ReadOnlyNonRecursive: true, ReadOnlyForceRecursive: true}}), "Spec.Container.Mounts[0].BindOptions.ReadOnlyForceRecursive: contradicts ReadOnlyNonRecursive"},
		{"tmpfs on Windows", withMount(api.Mount{Type: api.MountTypeTmpfs, Target: `C:\t`}), `Spec.Container.Mounts[0].Target: "C:\\t" is a path of Windows, which has no mounts of type TMPFS`},
		{"tmpfs size in words", tmpfs("size=1mb"), `Spec.Container.Mounts[0].TmpfsOptions.Options: "size=1mb" has no valid value`},
		{"tmpfs size without value", tmpfs("exec,size"), `Spec.Container.Mounts[0].TmpfsOptions.Options: "size" has no valid value`},
		{"tmpfs mode that is not octal", tmpfs(`[["mode","789"]]`), `Spec.Container.Mounts[0].TmpfsOptions.Options: "mode=789" has no valid value`},
		{"tmpfs owner by name", tmpfs("uid=tester"), `Spec.Container.Mounts[0].TmpfsOptions.Options: "uid=tester" has no valid value`},
		{"volume name of the local driver", withMount(api.Mount{Type: api.MountTypeVolume, Source: "a/{{.Service.Name}}", Target: "/a", VolumeOptions: &api.Mount_VolumeOptions{DriverConfig: &api.Driver{Name: "local"}}}), `Spec.Container.Mounts[0].Source: "a/web" is no volume name for the driver local: letters, digits and then _.- are allowed`},
		{"address outside of the subnets", withAttachment(&api.NetworkAttachment{
			Network:   &api.Network{Spec: api.NetworkSpec{Annotations: api.Annotations{Name: "n"}}, IPAM: &api.IPAMOptions{Configs: []*api.IPAMConfig{{Subnet: "10.0.0.0/24"}, {Subnet: "10.0.2.0/24"}}}},
			Addresses: []string{"10.0.1.7/24"},
		}), "Networks[0].Addresses[0]: 10.0.1.7 is in no subnet of network n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			task := plainTask()
			tt.change(task)
			config, err := newContainerConfig(goldenNode(), task)
			require.EqualError(t, err, "dockerexec: task field "+tt.want)
			path, reason, _ := strings.Cut(tt.want, ": ")
			var refused *FieldError
			require.ErrorAs(t, err, &refused)
			assert.Equal(t, FieldError{Path: path, Reason: reason}, *refused)
			require.Nil(t, config)
			require.NotContains(t, err.Error(), "secret{{")
		})
	}
}

// What lies just inside of the limits, or what only some engines refuse, is left to the
// engine.
func TestWhatIsNotRefused(t *testing.T) {
	t.Parallel()
	tmpfs := func(options string) func(*api.Task) {
		return withMount(api.Mount{Type: api.MountTypeTmpfs, Target: "/t", TmpfsOptions: &api.Mount_TmpfsOptions{Options: options}})
	}
	signal := func(name string) func(*api.Task) { return func(task *api.Task) { spec(task).StopSignal = name } }
	for name, change := range map[string]func(*api.Task){
		"hostname of 64 bytes": func(task *api.Task) { spec(task).Hostname = strings.Repeat("ä", 32) },
		"hostname that is short in the end": func(task *api.Task) {
			spec(task).Hostname = `{{if eq .Service.Name "web"}}x{{else}}another name{{end}}-{{.Task.Slot}}`
		},
		"command that only resets":        func(task *api.Task) { spec(task).Command = []string{""} },
		"argument that is empty":          func(task *api.Task) { spec(task).Args = []string{"", "a"} },
		"folder of Windows":               func(task *api.Task) { spec(task).Dir = `\work` },
		"folder of another drive":         func(task *api.Task) { spec(task).Dir = `D:\work` },
		"user by number":                  func(task *api.Task) { spec(task).User = "-5:99999999999" },
		"signal":                          signal("SIGTERM"),
		"signal in small letters":         signal("sigusr1"),
		"signal without SIG":              signal("WINCH"),
		"signal by number":                signal("37"),
		"signal in real time":             signal("SIGRTMIN+15"),
		"signal in real time, from above": signal("rtmax-14"),
		"least memory":                    withLimits(api.Resources{MemoryBytes: 6 << 20}),
		"most pids":                       func(task *api.Task) { spec(task).PidsLimit = 4194304 },
		"sysctl of the host, elsewhere": func(task *api.Task) {
			spec(task).Sysctls = map[string]string{"kernel.msgmax": "1"}
			task.Networks = []*api.NetworkAttachment{attachment(namedNetwork("host"))}
		},
		"sysctl that a runtime may know":      func(task *api.Task) { spec(task).Sysctls = map[string]string{"vm.max_map_count": "1"} },
		"capability that is new":              func(task *api.Task) { spec(task).CapabilityAdd = []string{"CAP_NEW"} },
		"tmpfs sizes":                         tmpfs("size=10%,nr_inodes=0x10k,nr_blocks=1G"),
		"tmpfs owner and mode":                tmpfs("uid=0x10,gid=0,mode=1777"),
		"tmpfs option of a newer engine":      tmpfs("huge=always"),
		"volume name of any driver":           withMount(api.Mount{Type: api.MountTypeVolume, Source: "pool/a b", Target: "/a"}),
		"volume name of another driver":       withMount(api.Mount{Type: api.MountTypeVolume, Source: "pool/a", Target: "/a", VolumeOptions: &api.Mount_VolumeOptions{DriverConfig: &api.Driver{Name: "nfs"}}}),
		"volume name of one letter":           withMount(api.Mount{Type: api.MountTypeVolume, Source: "a", Target: "/a", VolumeOptions: &api.Mount_VolumeOptions{DriverConfig: &api.Driver{Name: "local"}}}),
		"bind, read-only and recursively":     withMount(api.Mount{Source: "/a", Target: "/a", ReadOnly: true, BindOptions: &api.Mount_BindOptions{NonRecursive: true, ReadOnlyForceRecursive: true}}),
		"address in a network that may exist": withAttachment(&api.NetworkAttachment{Network: namedNetwork("n"), Addresses: []string{"10.0.0.7/24"}}),
		"address of a family without subnet": withAttachment(&api.NetworkAttachment{
			Network:   &api.Network{Spec: api.NetworkSpec{Annotations: api.Annotations{Name: "n"}, Ipv6Enabled: true}, IPAM: &api.IPAMOptions{Configs: []*api.IPAMConfig{{Subnet: "10.0.0.0/24"}}}},
			Addresses: []string{"10.0.0.7/8", "fd00::7/64"},
		}),
		"address that another allocator gives": withAttachment(&api.NetworkAttachment{
			Network:   &api.Network{Spec: api.NetworkSpec{Annotations: api.Annotations{Name: "n"}}, IPAM: &api.IPAMOptions{Driver: &api.Driver{Name: "dhcp"}, Configs: []*api.IPAMConfig{{Subnet: "10.0.0.0/24"}}}},
			Addresses: []string{"10.9.0.7/24"},
		}),
	} {
		task := plainTask()
		change(task)
		_, err := newContainerConfig(goldenNode(), task)
		require.NoError(t, err, name)
	}
}

func TestRefusalsWithoutField(t *testing.T) {
	t.Parallel()
	_, err := newContainerConfig(nil, nil)
	require.EqualError(t, err, "dockerexec: the task is nil")
	var refused *FieldError
	require.ErrorAs(t, err, &refused)
	assert.Equal(t, FieldError{Reason: "is nil"}, *refused)

	for _, runtime := range []*api.TaskSpec{
		{},
		{Runtime: &api.TaskSpec_Attachment{Attachment: &api.NetworkAttachmentSpec{ContainerID: "c"}}},
		{Runtime: &api.TaskSpec_Generic{Generic: &api.GenericRuntimeSpec{Kind: "plugin"}}},
		{Runtime: (*api.TaskSpec_Attachment)(nil)},
	} {
		_, err = newContainerConfig(nil, &api.Task{Spec: *runtime})
		require.Equal(t, exec.ErrRuntimeUnsupported, err, "bare")
	}
	_, err = newContainerConfig(nil, &api.Task{Spec: api.TaskSpec{Runtime: &api.TaskSpec_Container{Container: &api.ContainerSpec{}}}})
	require.Equal(t, ErrImageRequired, err, "bare")
}
