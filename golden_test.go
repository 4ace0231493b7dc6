package dockerexec

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/api/types/volume"
	"github.com/gogo/protobuf/jsonpb"
	"github.com/moby/swarmkit/v2/api"
	"github.com/stretchr/testify/require"
)

// Golden requests: testdata/tasks/<concern>.task.json is a task, in protobuf's
// JSON with SwarmKit's field names, and <concern>.request.json, written by hand,
// is everything that an engine is asked for it. Fields that say nothing are left out.

var update = flag.Bool("update", false, "write testdata/tasks/*.request.json and the table of docs/fields.md anew; read the difference before you commit it")

// goldenNode is the node that all golden tasks run on.
func goldenNode() *api.NodeDescription {
	return &api.NodeDescription{Hostname: "node-1", Platform: &api.Platform{Architecture: "x86_64", OS: "linux"}}
}

// goldenNames lists the concerns.
func goldenNames(t testing.TB) []string {
	t.Helper()
	files, err := filepath.Glob("testdata/tasks/*.task.json")
	require.NoError(t, err)
	var names []string
	for _, f := range files {
		names = append(names, strings.TrimSuffix(filepath.Base(f), ".task.json"))
	}
	require.GreaterOrEqual(t, len(names), 40)
	requests, err := filepath.Glob("testdata/tasks/*.request.json")
	require.NoError(t, err)
	for _, f := range requests {
		require.Contains(t, names, strings.TrimSuffix(filepath.Base(f), ".request.json"), "a request without its task")
	}
	return names
}

func goldenTask(t testing.TB, name string) *api.Task {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata/tasks", name+".task.json"))
	require.NoError(t, err)
	return taskFromJSON(t, text)
}

// taskFromJSON decodes a task; encoding/json alone cannot fill a oneof.
func taskFromJSON(t testing.TB, text []byte) *api.Task {
	t.Helper()
	task := &api.Task{}
	require.NoError(t, jsonpb.Unmarshal(bytes.NewReader(text), task))
	return task
}

func TestGoldenRequests(t *testing.T) {
	t.Parallel()
	for _, name := range goldenNames(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			config, err := newContainerConfig(goldenNode(), goldenTask(t, name))
			require.NoError(t, err)
			got := requestJSON(t, config.withDependencies("/run/dockerexec/secrets/engine-1/t1", []byte(`{"DomainJoinConfig":{}}`)))
			file := filepath.Join("testdata/tasks", name+".request.json")
			if *update {
				rewrite(t, file, got)
			}
			want, err := os.ReadFile(file)
			require.NoError(t, err)
			require.JSONEq(t, string(want), string(got))
		})
	}
}

// rewrite writes a file of expectations anew.
func rewrite(t *testing.T, file string, content []byte) {
	t.Helper()
	require.Empty(t, os.Getenv("CI"), "-update is for people, who read what changed")
	require.NoError(t, os.WriteFile(file, content, 0o644))
}

// requestJSON is all that a task becomes, without the fields that say nothing.
func requestJSON(t testing.TB, c *containerConfig) []byte {
	t.Helper()
	request := map[string]any{
		"name":       c.name(),
		"Config":     stated(t, *c.config()),
		"HostConfig": stated(t, *c.hostConfig()),
	}
	if p := c.platform(); p != nil {
		request["platform"] = p
	}
	if o := c.pullOptions(); o.RegistryAuth != "" || o.Platform != "" {
		request["pull"] = map[string]any{"RegistryAuth": o.RegistryAuth, "Platform": o.Platform}
	}
	if timeout := c.stopOptions().Timeout; timeout != nil {
		request["stopTimeout"] = *timeout
	}
	if w := c.warnings(); w != nil {
		request["warnings"] = w
	}
	var needs []string
	for _, n := range c.needs {
		needs = append(needs, n.path+" "+n.since)
	}
	if needs != nil {
		request["needs"] = needs
	}
	if endpoints := c.networkingConfig().EndpointsConfig; endpoints != nil {
		m := map[string]any{}
		for name, e := range endpoints {
			m[name] = stated(t, *e)
		}
		request["NetworkingConfig"] = map[string]any{"EndpointsConfig": m}
	}
	var networks, volumes []any
	for _, n := range c.networks() {
		m := stated(t, n.options)
		m["name"] = n.name
		if n.predefined {
			m["predefined"] = true
		}
		networks = append(networks, m)
	}
	for _, v := range c.volumes() {
		volumes = append(volumes, stated(t, v))
	}
	if networks != nil {
		request["networks"] = networks
	}
	if volumes != nil {
		request["volumes"] = volumes
	}
	text, err := json.MarshalIndent(request, "", "  ")
	require.NoError(t, err)
	return append(text, '\n')
}

// stated is v as JSON without those fields that the zero value has just so.
func stated[T container.Config | container.HostConfig | network.EndpointSettings | network.CreateOptions | volume.CreateOptions](t testing.TB, v T) map[string]any {
	t.Helper()
	fields, zeros := map[string]any{}, map[string]any{}
	var zero T
	for value, into := range map[*T]*map[string]any{&v: &fields, &zero: &zeros} {
		text, err := json.Marshal(value)
		require.NoError(t, err)
		require.NoError(t, json.Unmarshal(text, into))
	}
	for name, value := range zeros {
		if reflect.DeepEqual(fields[name], value) {
			delete(fields, name)
		}
	}
	return fields
}
