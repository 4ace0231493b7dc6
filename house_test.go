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
	"regexp"
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
	files    []houseFile
}{
	{"ground", nil, []houseFile{
		{"classifiers.go", "the words of engines, and what each means"},
		{"container_state.go", "what an inspect says: has ended, is healthy, is still checked, exit error"},
		{"errors.go", "sentinels, FieldError; whether an error is final, temporary or repeated; waits: pauses between tries, gates, the rate of a log"},
		{"options.go", "every With…, with its default"},
		{"scrub.go", "takes secrets out of texts and errors"},
		{"telemetry.go", "the instruments and spans, what their attributes may be; log fields that are not empty"},
		{"secrets.go", "which values of a task are secrets, and in which forms a text may quote them"},
	}},
	// From a task to requests: pure, without a context and without I/O.
	{"translation", []string{"ground"}, []houseFile{
		{"container.go", "the container's configuration: labels, environment, health check, grace period"},
		{"deferred_task.go", "the identity of a task's container; {{…}} in a task; tasks that wait for the node, or are refused"},
		{"dependencies.go", "secrets and configs of a task, and the files they become"},
		{"fields.go", "what becomes of each field of a task"},
		{"host_config.go", "limits, ports, privileges"},
		{"image.go", "image reference, credentials, platform"},
		{"mounts.go", "mounts and volumes"},
		{"networks.go", "networks, addresses, sysctls"},
	}},
	{"pulls", []string{"translation"}, []houseFile{
		{"pull.go", "PullProgress; one request for all that want the same image; observers"},
		{"pull_errors.go", "what a registry's fault is, and whether it is tried again"},
		{"pull_progress.go", "how far a pull is, layer by layer, and whether it has stalled"},
		{"pull_run.go", "the attempts of one pull, and its stream"},
	}},
	{"events", []string{"translation"}, []houseFile{
		{"event_reader.go", "reads the shared stream, opens it again, hands events on"},
		{"events.go", "who is subscribed to the shared stream"},
		{"outages.go", "EngineEvent; when an outage begins and ends, who is told, how long the engine was away"},
	}},
	{"logs", []string{"translation"}, []houseFile{
		{"log_damage.go", "what is behind a damaged record of a log"},
		{"log_decode.go", "frames and lines of an engine's log"},
		{"log_resume.go", "where a log goes on after the stream broke"},
		{"log_tail.go", "the last lines of a log, where engines count pieces of lines"},
		{"log_turns.go", "one publisher for the logs of several tasks, which take turns"},
		{"logs.go", "PublishLogs: options, pieces of lines, rate"},
	}},
	{"files", []string{"translation"}, []houseFile{
		{"file_store.go", "writes and removes the files of secrets, also leftovers"},
		{"file_store_linux.go", "what only Linux can tell of a file"},
		{"file_store_other.go", "the same elsewhere"},
	}},
	// Joins the wings above one client.
	{"engine", []string{"pulls", "events", "logs", "files"}, []houseFile{
		{"api_version.go", "agrees on an API version, and again when the engine refuses it"},
		{"counted_client.go", "counts the requests to the engine by kind, and says why they failed"},
		{"engine.go", "Engine; the limit of each request; requests that are made again, and those that may be refused"},
	}},
	// One task's operations: thin methods that call into the wings.
	{"adapter", []string{"engine"}, []houseFile{
		{"adapter.go", "the ContainerAdapter: pull, remove; whose container it is"},
		{"adapter_create.go", "Create, and the container that has the name already; finds a renamed container"},
		{"adapter_files.go", "which files of secrets a task needs; which are left over"},
		{"adapter_networks.go", "makes and removes networks; connects a container to its networks"},
		{"shared_networks.go", "knows which tasks of an Engine share a network, and what the engine has"},
		{"adapter_start.go", "Start: one start, also if it is lost"},
		{"adapter_stop.go", "Shutdown and Terminate: one stop signal, then a kill"},
		{"adapter_streams.go", "Inspect, Wait, Events, Logs and PublishLogs; the watch of a container"},
		{"adapter_told.go", "what is told of a task: the fields of its log lines, its spans, the counts of its waits and its end; without secrets"},
		{"orphans.go", "finds and removes what an earlier process has left behind; which tasks an Engine knows"},
	}},
	{"controller", []string{"adapter"}, []houseFile{
		{"controller.go", "the controller: its operations, calls that outlive them, Wait and Logs"},
		{"controller_start.go", "Prepare and Start, what vanished before them, health, starts that were lost"},
		{"controller_status.go", "ContainerStatus and PortStatus, and what they need not ask for"},
		{"controller_stop.go", "Shutdown, Terminate and Remove, and how they are repeated"},
		{"executor.go", "NewExecutor, Describe, Controller"},
		{"orphan_sweep.go", "the executor's looks for what was left behind: when, and what is done about it"},
		{"run.go", "Run: one task from its pull to its removal, and how it ended"},
	}},
}

type houseFile struct{ name, concern string }

// upward are the references that go up or sideways all the same, each with its reason.
var upward = map[string]string{
	"options.go: PullProgress":  "an option takes an observer of it; a reader looks for the type beside the pull",
	"options.go: EngineEvent":   "as PullProgress: the type is beside the outages",
	"engine.go: fileHosts":      "the adapters of an Engine share what they know of the host; only adapter files use it",
	"engine.go: newFileHosts":   "as fileHosts",
	"engine.go: sharedNetworks": "the adapters of an Engine share which tasks use a network; only adapter files use it",
	"engine.go: taskTable":      "the controllers and the removals of orphans of an Engine share which tasks are known; it is not used in this wing",
	"engine.go: stops":          "the adapters of an Engine share the stop of a task; only adapter files use it",
}

// More references upward than this, and the wings are not the right ones any more.
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

// The table "Where is it decided?" names what is declared in the files that it names.
func TestEachDecisionIsWhereTheTableSays(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(".github/CONTRIBUTING.md")
	require.NoError(t, err)
	_, table, found := strings.Cut(string(text), "### Where is it decided?")
	require.True(t, found)
	table, _, _ = strings.Cut(table, "\n## ")
	rows := regexp.MustCompile("(?m)^\\| .* \\| `([a-z_]+\\.go)`: (.*) \\|$").FindAllStringSubmatch(table, -1)
	require.Greater(t, len(rows), 10)
	for _, row := range rows {
		declared := declaredIn(t, row[1])
		for _, name := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(row[2], -1) {
			assert.Contains(t, declared, name[1], row[1])
		}
	}
}

// declaredIn returns the names that a file declares at the top level.
func declaredIn(t *testing.T, name string) (names []string) {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
	require.NoError(t, err)
	for _, declaration := range file.Decls {
		switch d := declaration.(type) {
		case *ast.FuncDecl:
			names = append(names, d.Name.Name)
		case *ast.GenDecl:
			for _, spec := range d.Specs {
				switch s := spec.(type) {
				case *ast.TypeSpec:
					names = append(names, s.Name.Name)
				case *ast.ValueSpec:
					for _, ident := range s.Names {
						names = append(names, ident.Name)
					}
				}
			}
		}
	}
	return names
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
			require.NotContains(t, wingOf, file.name, "in two wings")
			require.NotEmpty(t, file.concern, file.name)
			wingOf[file.name] = wing.name
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
