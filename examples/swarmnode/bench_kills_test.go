package main

import (
	"fmt"
	"maps"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/events"
	"github.com/docker/docker/api/types/filters"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// killedStarts is what came of an engine that was killed within the starts of tasks.
type killedStarts struct {
	Back   time.Duration // until all tasks ran again, since the engine was back
	Strays []hostProcess // processes that the engine did not know, a minute after the last task
	Shown  int           // how many of them the engine had shown as running: a client could have ended these
}

// TestBenchNodeKills kills the engine within the starts of 30 tasks that have no mounts and
// no ports, with each of the executors in turn.
func TestBenchNodeKills(t *testing.T) {
	n := rounds(t, benchKills)
	info, err := engineClient(t).Info(t.Context())
	require.NoError(t, err)
	report := killsReport{Engine: info.ServerVersion, Cores: info.NCPU, Kills: map[string][]killedStarts{}}
	t.Run("warm up", func(t *testing.T) { liveTasks(t, ours, 2, "", false) }) // the image is on the engine now
	for kill := range n {
		for _, who := range []string{ours, baseline} {
			t.Run(fmt.Sprintf("kill %d, %s", kill+1, who), func(t *testing.T) {
				report.Kills[who] = append(report.Kills[who], killWithinStarts(t, who, 30, 3+5*(kill%5)))
			})
		}
	}
	if t.Failed() {
		return
	}
	t.Log("\n" + report.table())
	writeBetween(t, os.Getenv(benchPage), "kills", report.table())
	for _, fault := range report.faults() {
		assert.Fail(t, fault)
	}
}

// killWithinStarts kills the engine once as many of a service's containers run.
func killWithinStarts(t *testing.T, executor string, replicas, running int) (k killedStarts) {
	t.Cleanup(func() { clearShims(t) })
	s := newCountedSwarm(t, executor)
	pid, err := strconv.Atoi(engineSays(t, "pid"))
	require.NoError(t, err)
	process, err := os.FindProcess(pid)
	require.NoError(t, err)
	service := s.create(s.service("kills", uint64(replicas), "sleep", "1h"))
	require.Eventually(t, func() bool {
		list, err := s.engine.ContainerList(t.Context(), container.ListOptions{Filters: ofService(service)})
		return err == nil && len(list) >= running
	}, patience, 5*time.Millisecond)
	require.NoError(t, process.Kill())
	require.Eventually(t, func() bool { _, err := engineAnswers(t, "pid"); return err != nil }, patience, 10*time.Millisecond)
	controlEngine(t, "start")
	began := time.Now()
	shown := shownRunning(t)
	s.awaitRunning(service, replicas)
	k.Back = time.Since(began)
	s.remove(service)
	for late := time.Now().Add(time.Minute); ; time.Sleep(time.Second) {
		k.Strays = strays(t, s.engine)
		if len(k.Strays) == 0 || time.Now().After(late) {
			break
		}
	}
	t.Logf("killed when %d of %d ran: all run %.1f s after the engine is back; %d processes that it does not know",
		running, replicas, k.Back.Seconds(), len(k.Strays))
	for _, p := range k.Strays {
		t.Log(p)
		if shown()[p.container] {
			k.Shown++
		}
	}
	return k
}

// shownRunning returns which containers the engine has told to be started, since its own
// start.
func shownRunning(t *testing.T) (shown func() map[string]bool) {
	var mu sync.Mutex
	started := map[string]bool{}
	messages, errs := engineClient(t).Events(t.Context(), events.ListOptions{Since: "0", Filters: filters.NewArgs(filters.Arg("event", "start"))})
	go func() {
		for {
			select {
			case m := <-messages:
				mu.Lock()
				started[m.Actor.ID] = true
				mu.Unlock()
			case <-errs:
				return
			}
		}
	}()
	return func() map[string]bool {
		mu.Lock()
		defer mu.Unlock()
		return maps.Clone(started)
	}
}
