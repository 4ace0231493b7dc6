// Package cluster holds the tests of three hosts: `make test-cluster` makes the hosts and
// runs them. They show that what SwarmKit does for more than one machine holds with this
// executor.
package cluster

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/moby/swarmkit/v2/log"
	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/require"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(ordersFor); dir != "" {
		if err := takeOrders(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
		os.Exit(1)
	}
	log.L.Logger.SetLevel(logrus.ErrorLevel) // gRPC warns there of each node that is not up yet
	os.Exit(m.Run())
}

// patience is how long the swarm may take to get where it should be. The longest way is that
// over the election of a leader, while two cores run three hosts.
const patience = 3 * time.Minute

// cluster is three hosts with a swarm. Its methods end the scene that runs if something fails.
type cluster struct {
	t        *testing.T // that of the scene
	hosts    []*host
	managers int   // one, or all three
	seat     *host // the manager that is asked
	begin    time.Time
	image    map[string]string // what hack/session.sh tells of the image, the same on all hosts
	web      string            // a service of twelve tasks, for all scenes
	twice    []string          // the names of jobs whose runs SwarmKit may have begun twice

	made      map[string]time.Time // when the swarm made each task
	elections elections
}

// newCluster switches three hosts on and makes a swarm of their nodes, with as many managers.
func newCluster(t *testing.T, managers int) *cluster {
	t.Helper()
	kinds := strings.Fields(os.Getenv("DOCKEREXEC_TEST_ENGINES"))
	if len(kinds) == 0 {
		t.Skip("DOCKEREXEC_TEST_ENGINES is not set: use make test-cluster")
	}
	c := &cluster{t: t, managers: managers, begin: time.Now(), made: map[string]time.Time{}}
	heading("Three hosts on one bridge, with the engines %s", strings.Join(kinds, ", "))
	dir := os.Getenv("DOCKEREXEC_TEST_DIR")
	ctx, cancel := context.WithCancel(context.Background())
	var recorders, starts sync.WaitGroup
	t.Cleanup(recorders.Wait)
	t.Cleanup(cancel)
	for i, name := range []string{"one", "two", "three"} {
		h := newHost(t, dir, name, kinds[i], i+1)
		c.hosts = append(c.hosts, h)
		t.Cleanup(func() { c.switchOff(t, h) })
		starts.Go(func() { h.switchOn(t) })
	}
	starts.Wait()
	require.False(t, t.Failed())
	for _, h := range c.hosts {
		version, err := h.engine.ServerVersion(t.Context()) // negotiates: no other request may run beside that
		require.NoError(t, err)
		recorders.Go(func() { h.seen.record(ctx, h.engine) })
		c.say("host %s is up, its engine is %s", h.name, version.Version)
	}
	c.image = c.hosts[0].environment(t)
	c.makeSwarm()
	c.web = c.create(c.service("web", 12, "sleep", "1h"))
	c.awaitAll(c.web, 12)
	c.holds()
	return c
}

// switchOff ends a host and removes its disk, also after a scene that failed.
func (c *cluster) switchOff(t *testing.T, h *host) {
	if h.process != nil {
		h.kill(t)
	}
	h.checkLog(t, c.image["DOCKEREXEC_TEST_PASSWORD"])
	if t.Failed() {
		text, _ := os.ReadFile(filepath.Join(h.dir, "engine.log"))
		text = bytes.Join(worthReading.FindAll(text, -1), []byte("\n"))
		t.Logf("the end of what the engine of host %s warns of:\n%s", h.name, text[max(0, len(text)-3000):])
	}
	_ = h.engine.Close()
	require.NoError(t, os.RemoveAll(h.dir))
}

// worthReading finds an engine's warnings and errors.
var worthReading = regexp.MustCompile(`(?m)^.*level=(warning|error).*$`)

// heading begins a chapter of the story.
func heading(format string, args ...any) { fmt.Printf("\n== "+format+"\n", args...) }

// say tells what happens.
func (c *cluster) say(format string, args ...any) {
	fmt.Printf("%7.1fs  %s\n", time.Since(c.begin).Seconds(), fmt.Sprintf(format, args...))
}

// until waits until nothing is wrong any more. What was wrong last is the failure's text.
func (c *cluster) until(what string, wrong func(context.Context) string) {
	c.t.Helper()
	late := time.Now().Add(patience)
	for {
		ctx, cancel := context.WithTimeout(c.t.Context(), time.Second)
		_, _ = c.nodes(ctx) // notes who leads
		cancel()
		ctx, cancel = context.WithTimeout(c.t.Context(), 10*time.Second) // one that is cut off does not answer
		last := wrong(ctx)
		cancel()
		if last == "" {
			return
		}
		if time.Now().After(late) {
			c.t.Fatalf("waiting for %s: %s", what, last)
		}
		time.Sleep(100 * time.Millisecond)
	}
}
