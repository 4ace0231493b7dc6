package main

import (
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
)

// races are the race detector's reports in a log, but for races that SwarmKit's
// agent has with itself: about variables of its taskManager, between that one's loop
// and the operations and timers that it starts.
func races(log string) (reports []string) {
	for _, report := range strings.Split(log, "==================\n") {
		if strings.Contains(report, "WARNING: DATA RACE") && !isTaskManagers(report) {
			reports = append(reports, report)
		}
	}
	return reports
}

// accesses finds the two accesses of a report, each with the function that made it.
var accesses = regexp.MustCompile(`(?i)(?:read|write) at 0x[0-9a-f]+ by [^\n]*:\n\s*(\S+)`)

func isTaskManagers(report string) bool {
	found := accesses.FindAllStringSubmatch(report, -1)
	for _, access := range found {
		if !strings.HasPrefix(access[1], "github.com/moby/swarmkit/v2/agent.(*taskManager).run") {
			return false
		}
	}
	return len(found) == 2
}

func TestRaces(t *testing.T) {
	report := func(one, other string) string {
		return "==================\nWARNING: DATA RACE\nRead at 0x00c000d60a88 by goroutine 6928:\n  " + one +
			"\n      task.go:173 +0x34\n\nPrevious write at 0x00c000d60a88 by main goroutine:\n  " + other +
			"\n      task.go:234 +0x4dc\n\nGoroutine 6928 (running) created at:\n  time.goFunc()\n==================\n"
	}
	const theirs, ours = "github.com/moby/swarmkit/v2/agent.(*taskManager).run.func3()", "github.com/dockerexec/dockerexec.(*controller).Wait()"
	assert.Empty(t, races("level=info\n"+report(theirs, theirs)+"level=info\n"))
	for _, report := range []string{report(theirs, ours), report(ours, theirs), report(ours, ours), "WARNING: DATA RACE\nunreadable"} {
		assert.Len(t, races("level=info\n"+report+"level=info\n"), 1)
	}
}
