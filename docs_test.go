package dockerexec_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockerexec/dockerexec"
)

// What the README shows of the Examples is their code, which is run.
func TestReadmeHasTheCodeOfTheExamples(t *testing.T) {
	t.Parallel()
	readme := readText(t, "README.md")
	for function, file := range map[string]string{"run": "example_test.go"} {
		code := regexp.MustCompile(`(?ms)^func ` + function + `\(.*?^}$`).FindString(readText(t, file))
		require.NotEmpty(t, code, function)
		assert.Contains(t, readme, code, "func %s of %s", function, file)
	}
}

// Who reads the README's program sees that an executor is short.
func TestReadmeProgramIsShort(t *testing.T) {
	t.Parallel()
	program := regexp.MustCompile("(?s)```go\npackage main\n.*?\n(func main\\(\\).*?)```").FindStringSubmatch(readText(t, "README.md"))
	require.NotNil(t, program)
	assert.LessOrEqual(t, strings.Count(strings.TrimSpace(program[1]), "\n")+1, 25, "lines beside the imports")
}

// A page that grows for ever is not read.
func TestDocsAreShort(t *testing.T) {
	t.Parallel()
	assert.LessOrEqual(t, len(readText(t, "README.md")), 12<<10, "bytes of README.md; docs/ has room")
	assert.LessOrEqual(t, strings.Count(readText(t, "doc.go"), "\n"), 160, "lines of doc.go; docs/ has room")
}

// Who writes a fake looks up what each method asks of it.
func TestEngineCallsHaveEachMethod(t *testing.T) {
	t.Parallel()
	page := readText(t, "docs/engine-calls.md")
	engine := dockerexec.NewEngine(&fakeEngine{})
	controller, err := engine.Controller(nil, task(), nil)
	require.NoError(t, err)
	for _, has := range []struct {
		value  any
		prefix string
	}{{&dockerexec.ContainerAdapter{}, ""}, {controller, ""}, {engine, "Engine."}} {
		methods := reflect.TypeOf(has.value)
		for i := range methods.NumMethod() {
			assert.Contains(t, page, "`"+has.prefix+methods.Method(i).Name+"`")
		}
	}
}

func readText(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	return string(text)
}

// docPages are the pages that people read, by path.
func docPages(t *testing.T) map[string]string {
	t.Helper()
	pages := map[string]string{}
	for _, pattern := range []string{"*.md", "docs/*.md", ".github/*.md", "examples/*.md"} {
		files, err := filepath.Glob(pattern)
		require.NoError(t, err)
		require.NotEmpty(t, files, pattern)
		for _, file := range files {
			pages[filepath.ToSlash(file)] = readText(t, file)
		}
	}
	return pages
}

var (
	docLink       = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	docHeading    = regexp.MustCompile(`(?m)^#+ (.*)$`)
	docTarget     = regexp.MustCompile("(?:`|\\$ )make ([a-z -]+)")
	docScript     = regexp.MustCompile(`hack/[a-z-]+\.sh`)
	docFence      = regexp.MustCompile("(?ms)^```.*?^```$")
	notInAnAnchor = regexp.MustCompile(`[^\p{L}\p{N}\-_ ]`)
)

// Every link of a page to the tree leads to a file, and to a heading of it.
func TestDocsLinkToWhatExists(t *testing.T) {
	t.Parallel()
	pages, links := docPages(t), 0
	for page, text := range pages {
		for _, link := range docLink.FindAllStringSubmatch(docFence.ReplaceAllString(text, ""), -1) {
			if strings.Contains(link[1], "://") {
				continue
			}
			links++
			path, anchor, _ := strings.Cut(link[1], "#")
			target := page
			if path != "" {
				target = filepath.ToSlash(filepath.Join(filepath.Dir(page), filepath.FromSlash(path)))
			}
			_, err := os.Stat(target)
			assert.NoError(t, err, "%s links to %s", page, link[1])
			if anchor != "" {
				assert.Contains(t, anchorsOf(pages[target]), anchor, "%s links to %s", page, link[1])
			}
		}
	}
	assert.Greater(t, links, 20, "the pages' links are not found")
}

// anchorsOf are what GitHub makes of a page's headings.
func anchorsOf(text string) []string {
	var anchors []string
	for _, heading := range docHeading.FindAllStringSubmatch(docFence.ReplaceAllString(text, ""), -1) {
		anchor := notInAnAnchor.ReplaceAllString(strings.ToLower(heading[1]), "")
		anchors = append(anchors, strings.ReplaceAll(anchor, " ", "-"))
	}
	return anchors
}

// Every target of make and every script that a page names exists.
func TestDocsNameCommandsThatExist(t *testing.T) {
	t.Parallel()
	makefile, targets, scripts := readText(t, "Makefile"), 0, 0
	for page, text := range docPages(t) {
		for _, command := range docTarget.FindAllStringSubmatch(text, -1) {
			for _, target := range strings.Fields(command[1]) {
				targets++
				assert.Contains(t, makefile, "\n"+target+":", "%s names make %s", page, target)
			}
		}
		for _, script := range docScript.FindAllString(text, -1) {
			scripts++
			_, err := os.Stat(script)
			assert.NoError(t, err, "%s names %s", page, script)
		}
	}
	assert.Greater(t, targets, 10)
	assert.Positive(t, scripts)
}

// The page of operations lists every line that the package logs, and no other.
func TestDocsHaveEveryLogLine(t *testing.T) {
	t.Parallel()
	page := readText(t, "docs/operations.md")
	_, page, ok := strings.Cut(page, "\n## Log lines\n")
	require.True(t, ok)
	page, _, ok = strings.Cut(page, "\n### Fields\n")
	require.True(t, ok)
	listed := map[string]bool{} // those of a level: "Warnings: text"
	for _, section := range strings.Split(page, "\n### ")[1:] {
		level, rows, _ := strings.Cut(section, "\n")
		for _, row := range regexp.MustCompile("(?m)^\\| `([^`]+)`").FindAllStringSubmatch(rows, -1) {
			listed[level+": "+row[1]] = true
		}
	}

	logged := loggedLines(t)
	assert.Greater(t, len(logged), 30, "the calls of the logger are not found")
	for line := range logged {
		assert.True(t, listed[line], "docs/operations.md does not list %q", line)
	}
	// Texts and levels that a variable holds.
	for _, line := range []string{
		"Warnings: the routing mesh exists only inside a swarm engine: …",
		"Warnings: stop or removal failed, trying again",
		"Debugging: stop or removal failed, trying again",
	} {
		assert.True(t, listed[line], "docs/operations.md does not list %q", line)
		logged[line] = true
	}
	for line := range listed {
		assert.True(t, logged[line], "docs/operations.md lists %q, which is not logged", line)
	}
}

// loggedLines are the texts that the package's sources hand to a logger's method, by
// level, with an ellipsis for what varies.
func loggedLines(t *testing.T) map[string]bool {
	t.Helper()
	levels := map[string]string{"Debug": "Debugging", "Info": "Information", "Warn": "Warnings", "Error": "Errors"}
	verb := regexp.MustCompile(`%[a-z]`)
	lines := map[string]bool{}
	files, err := filepath.Glob("*.go")
	require.NoError(t, err)
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		tree, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
		require.NoError(t, err)
		ast.Inspect(tree, func(node ast.Node) bool {
			call, ok := node.(*ast.CallExpr)
			if !ok || len(call.Args) == 0 {
				return true
			}
			method, ok := call.Fun.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			level := levels[strings.TrimSuffix(method.Sel.Name, "f")]
			if receiver, ok := method.X.(*ast.Ident); level == "" || ok && (receiver.Name == "errors" || receiver.Name == "fmt") {
				return true
			}
			rest := ""
			text := call.Args[0]
			if sum, ok := text.(*ast.BinaryExpr); ok {
				text, rest = sum.X, "…"
			}
			if literal, ok := text.(*ast.BasicLit); ok && literal.Kind == token.STRING {
				value, err := strconv.Unquote(literal.Value)
				require.NoError(t, err)
				lines[fmt.Sprint(level, ": ", verb.ReplaceAllString(value, "…"), rest)] = true
			}
			return true
		})
	}
	return lines
}
