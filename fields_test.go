package dockerexec

import (
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

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
