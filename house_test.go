package dockerexec

import (
	"encoding/json"
	"fmt"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The package is one folder, and this table is its floor plan. A file may use what is
// declared in its own wing and in the wings that its wing stands on; nothing else.
// Wings that stand side by side do not know each other: they are given what they need.
//
// A new file goes into the wing of its concern. If it needs something from above,
// hand it in as a function, an interface or a value.
var wings = []struct {
	name     string
	standsOn []string // and on whatever these stand on
	files    []string
}{
	{"ground", nil, []string{"backoff.go", "classifiers.go", "container_state.go", "errors.go", "options.go", "scrub.go", "secrets.go"}},
	// From a task to requests: pure, without a context and without I/O.
	{"translation", []string{"ground"}, []string{
		"container.go", "deferred_task.go", "dependencies.go", "fields.go", "host_config.go", "image.go", "mounts.go", "networks.go", "templates.go",
	}},
	{"pulls", []string{"translation"}, []string{"pull.go", "pull_errors.go", "pull_progress.go", "pull_run.go"}},
	{"events", []string{"translation"}, []string{"event_reader.go", "events.go"}},
	{"logs", []string{"translation"}, []string{"log_decode.go", "log_resume.go", "logs.go"}},
	{"files", []string{"translation"}, []string{"file_store.go", "file_store_linux.go", "file_store_other.go"}},
	// Joins the wings above one client.
	{"engine", []string{"pulls", "events", "logs", "files"}, []string{"engine.go"}},
	// One task's operations: thin methods that call into the wings.
	{"adapter", []string{"engine"}, []string{
		"adapter.go", "adapter_create.go", "adapter_files.go", "adapter_logs.go", "adapter_networks.go", "wait.go",
	}},
	{"controller", []string{"adapter"}, []string{
		"controller.go", "controller_start.go", "controller_status.go", "controller_stop.go", "executor.go",
	}},
}

// upward are the references that go up or sideways all the same, each with its reason.
var upward = map[string]string{
	"options.go: PullProgress":  "an option takes an observer of it; a reader looks for the type beside the pull",
	"engine.go: fileHosts":      "the adapters of an Engine share what they know of the host; only adapter files use it",
	"engine.go: newFileHosts":   "as fileHosts",
	"engine.go: sharedNetworks": "the adapters of an Engine share which tasks use a network; only adapter files use it",
}

const mostUpward = 10

func TestEachFileUsesOnlyWhatItsWingStandsOn(t *testing.T) {
	t.Parallel()
	wingOf, below := floorPlan(t)
	assert.LessOrEqual(t, len(upward), mostUpward, "references upward")
	seen := map[string]bool{}
	for _, r := range referencesBetweenFiles(t) {
		from, to := wingOf[r.from], wingOf[r.to]
		if from == to || slices.Contains(below[from], to) {
			continue
		}
		seen[r.key()] = true
		if upward[r.key()] == "" {
			t.Errorf("%s: %s (wing %s) uses %s, which is declared in %s (wing %s)", r.at, r.from, from, r.object, r.to, to)
		}
	}
	for key := range upward {
		assert.True(t, seen[key], "the reference %q is listed, and is gone", key)
	}
}

// floorPlan returns the wing of each file, and the wings below each wing.
func floorPlan(t *testing.T) (wingOf map[string]string, below map[string][]string) {
	t.Helper()
	wingOf, below = map[string]string{}, map[string][]string{}
	for _, wing := range wings {
		for _, on := range wing.standsOn {
			require.Contains(t, below, on, "the table goes from the ground up")
			below[wing.name] = append(append(below[wing.name], on), below[on]...)
		}
		if wing.standsOn == nil {
			below[wing.name] = []string{}
		}
		for _, file := range wing.files {
			require.NotContains(t, wingOf, file, "in two wings")
			wingOf[file] = wing.name
		}
	}
	for _, file := range packageFiles(t) {
		if file != "doc.go" {
			require.Contains(t, wingOf, file, "%s is in no wing: add it to the table", file)
		}
	}
	for file := range wingOf {
		require.FileExists(t, file)
	}
	return wingOf, below
}

func packageFiles(t *testing.T) []string {
	t.Helper()
	all, err := filepath.Glob("*.go")
	require.NoError(t, err)
	return slices.DeleteFunc(all, func(file string) bool { return strings.HasSuffix(file, "_test.go") })
}

// fileReference is the use, in one file, of what another file declares.
type fileReference struct {
	from, to, object string
	at               token.Position
}

func (r fileReference) key() string { return r.from + ": " + r.object }

// referencesBetweenFiles type-checks the package, for the system that the test runs
// on, and returns each use across files once.
func referencesBetweenFiles(t *testing.T) []fileReference {
	t.Helper()
	fset := token.NewFileSet()
	var files []*ast.File
	for _, name := range strings.Fields(goList(t, "-f", "{{range .GoFiles}}{{.}} {{end}}", ".")) {
		file, err := parser.ParseFile(fset, name, nil, parser.SkipObjectResolution)
		require.NoError(t, err)
		files = append(files, file)
	}
	info := &types.Info{Uses: map[*ast.Ident]types.Object{}}
	config := types.Config{Importer: importer.ForCompiler(fset, "gc", exportData(t))}
	pkg, err := config.Check("dockerexec", fset, files, info)
	require.NoError(t, err)

	var references []fileReference
	found := map[string]bool{}
	for ident, object := range info.Uses {
		if object.Pkg() != pkg || !object.Pos().IsValid() {
			continue
		}
		at := fset.Position(ident.Pos())
		r := fileReference{from: at.Filename, to: fset.Position(object.Pos()).Filename, object: object.Name(), at: at}
		if r.from != r.to && !found[r.key()] {
			found[r.key()] = true
			references = append(references, r)
		}
	}
	require.NotEmpty(t, references)
	return references
}

// exportData returns how to read what the compiler knows of a package.
func exportData(t *testing.T) importer.Lookup {
	t.Helper()
	exports := map[string]string{}
	decoder := json.NewDecoder(strings.NewReader(goList(t, "-export", "-deps", "-json=ImportPath,Export", ".")))
	for decoder.More() {
		var p struct{ ImportPath, Export string }
		require.NoError(t, decoder.Decode(&p))
		exports[p.ImportPath] = p.Export
	}
	return func(path string) (io.ReadCloser, error) {
		if exports[path] == "" {
			return nil, fmt.Errorf("no export data of %s", path)
		}
		return os.Open(exports[path])
	}
}

func goList(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", append([]string{"list"}, args...)...).Output()
	require.NoError(t, err)
	return string(out)
}
