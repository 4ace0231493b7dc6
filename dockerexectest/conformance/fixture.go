package conformance

import (
	"fmt"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/image"
	engineapi "github.com/docker/docker/client"
)

// Dialect is whose words, status codes and order of events an engine has.
type Dialect int

const (
	// DockerV29 is Docker 29 with the containerd image store.
	DockerV29 Dialect = iota
	// DockerV20 is Docker 20.10 with a graph driver.
	DockerV20
	// PodmanV4 is Podman 4 behind its Docker-compatible API.
	PodmanV4
)

// String returns the engine's name.
func (d Dialect) String() string {
	return [...]string{"Docker 29", "Docker 20.10", "Podman 4"}[d]
}

// Fixture is an engine, and what statements need beside it. It is safe for
// concurrent use if its functions are.
type Fixture struct {
	// Client speaks to the engine. It has agreed on an API version.
	Client *engineapi.Client
	// Dialect is that of the engine.
	Dialect Dialect
	// Image is on the engine, by this reference. See the package's documentation.
	Image string
	// Registry has more images. Nil: what needs it is skipped.
	Registry *Registry
	// Wait returns true as soon as the condition holds, false if it never does.
	// Nil: it asks every few milliseconds, for half a minute.
	Wait func(condition func() bool) bool
	// Restart ends the engine's process and starts it again, with its containers
	// stopped. It returns when the engine is back. Nil: what needs it is skipped.
	Restart func()
}

// Registry is one from which the engine can pull.
type Registry struct {
	// Private asks for Username and Password, has one manifest, for the engine's own
	// platform, and may be on the engine. No other tag of its repository exists.
	Private, Username, Password string
	// Fresh is another image with one layer. It is not on the engine, and asks for
	// the same password.
	Fresh string
}

// Statement is one sentence about engines.
type Statement struct {
	Name string
	// On are the dialects for which it holds; nil: all.
	On []Dialect
	// Alone is whether nothing else may happen on the engine meanwhile.
	Alone bool

	check         func(*T)
	needsRegistry bool
	needsRestart  bool
}

// Statements returns the table. Names are unique.
func Statements() []Statement {
	return slices.Concat(systemStatements, createStatements, refusedCreates, startStatements, stopStatements, pauseStatements, removeStatements, waitStatements, listStatements, healthStatements, logStatements, eventStatements, imageStatements, pullStatements, networkStatements, endpointStatements, portStatements, volumeStatements, restartStatements)
}

// Run checks every statement as a subtest: several at a time, those that are to
// be alone after them.
func Run(t *testing.T, f Fixture) {
	t.Helper()
	const atOnce = 8 // most of them wait for the engine
	statements := make(chan Statement)
	var workers sync.WaitGroup
	for range atOnce {
		workers.Go(func() {
			for s := range statements {
				t.Run(s.Name, func(t *testing.T) { s.Check(t, f) })
			}
		})
	}
	var alone []Statement
	for _, s := range Statements() {
		if s.Alone {
			alone = append(alone, s)
			continue
		}
		statements <- s
	}
	close(statements)
	workers.Wait()
	for _, s := range alone {
		t.Run(s.Name, func(t *testing.T) { s.Check(t, f) })
	}
	if list := left(&T{TB: t, f: f, v: f.Dialect}); len(list) > 0 {
		t.Errorf("left on the engine: %q", list)
	}
}

// namePrefix begins the names of all that is made.
const namePrefix = "conformance-"

// checked numbers the checks of this process, so that each has names of its own.
var (
	checked atomic.Int64
	process = strconv.FormatInt(time.Now().UnixNano()%1e9, 36)
)

// Skips returns why the statement is not checked on an engine, "" if it is.
func (s Statement) Skips(f Fixture) string {
	switch {
	case s.On != nil && !slices.Contains(s.On, f.Dialect):
		return "says nothing about " + f.Dialect.String()
	case s.needsRegistry && f.Registry == nil:
		return "needs a registry"
	case s.needsRestart && f.Restart == nil:
		return "needs an engine that can be restarted"
	}
	return ""
}

// Check checks the statement, or skips tb. In a bubble of testing/synctest, where
// no test can be skipped, ask [Statement.Skips] before it.
func (s Statement) Check(tb testing.TB, f Fixture) {
	tb.Helper()
	if why := s.Skips(f); why != "" {
		tb.Skip(why)
	}
	if f.Wait == nil {
		f.Wait = poll
	}
	t := &T{TB: tb, f: f, v: f.Dialect, began: time.Now(), number: checked.Add(1)}
	t.prefix = fmt.Sprint(namePrefix, process, "-", t.number, "-")
	tb.Cleanup(t.cleanUp)
	defer func() { // an answer that lacks what is looked at fails this statement alone
		if reason := recover(); reason != nil {
			tb.Errorf("panic: %v\n%s", reason, debug.Stack())
		}
	}()
	s.check(t)
}

// poll asks until the condition holds, less and less often.
func poll(condition func() bool) bool {
	pause := time.NewTimer(0)
	defer pause.Stop()
	began, next := time.Now(), 2*time.Millisecond
	for !condition() {
		if time.Since(began) > 30*time.Second {
			return false
		}
		pause.Reset(next)
		<-pause.C
		next = min(next*3/2, 100*time.Millisecond)
	}
	return true
}

// left lists what is on the engine that has a name of a check.
func left(t *T) (list []string) {
	t.Helper()
	add := func(kind string, names ...string) {
		for _, name := range names {
			if strings.HasPrefix(strings.TrimPrefix(name, "/"), namePrefix) {
				list = append(list, kind+" "+name)
			}
		}
	}
	var containers []container.Summary
	t.do("GET /containers/json?all=1", nil).ok(200, &containers)
	for _, c := range containers {
		add("container", c.Names...)
	}
	var images []image.Summary
	t.do("GET /images/json", nil).ok(200, &images)
	for _, i := range images {
		add("image", i.RepoTags...)
	}
	add("network", t.networks("")...)
	add("volume", t.volumes("")...)
	return list
}
