package main

import (
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
)

// races are the race detector's reports in a log, but for those of SwarmKit's agent
// with itself: about variables of its taskManager, between that one's loop and the
// operations and timers that it starts, and about the contexts that it hands them in
// such a variable; about its task, which a subscription to logs looks at; and about
// the publisher that such a subscription waits for. And but for those of its manager,
// between what allocates and what schedules: it has nothing of the package in hand.
func races(log string) (reports []string) {
	for _, report := range strings.Split(log, "==================\n") {
		if strings.Contains(report, "WARNING: DATA RACE") && !isTaskManagers(report) {
			reports = append(reports, report)
		}
	}
	return reports
}

// access finds where a report tells of an access.
var access = regexp.MustCompile(`(?i)(?:read|write) at 0x[0-9a-f]+ by [^\n]*:\n`)

func isTaskManagers(report string) bool {
	found := access.FindAllStringIndex(report, -1)
	if len(found) != 2 {
		return false
	}
	theirs, contexts := 0, 0
	for _, end := range found {
		stack, _, _ := strings.Cut(report[end[1]:], "\n\n")
		within, caller := accessIn(stack)
		switch {
		case strings.HasPrefix(caller, "github.com/moby/swarmkit/v2/agent.(*taskManager).run"),
			strings.HasPrefix(caller, "github.com/moby/swarmkit/v2/agent.(*worker).Subscribe"),
			strings.HasPrefix(caller, "github.com/moby/swarmkit/v2/agent.(*Agent).Publisher"),
			strings.HasPrefix(caller, "github.com/moby/swarmkit/v2/manager/"):
			theirs++
		case within == "context":
		default:
			return false
		}
		if within == "context" {
			contexts++
		}
	}
	return theirs == 2 || theirs == 1 && contexts == 2
}

// accessIn tells of an access by its stack whether it was in package context, and
// the first function that is neither of a package of Go's own for contexts and what
// they are made of, nor of a type of SwarmKit's API.
func accessIn(stack string) (within, caller string) {
	for line := range strings.Lines(stack) {
		switch {
		case strings.HasPrefix(line, "   "): // a file
		case strings.HasPrefix(line, "  context."):
			within = "context"
		case !strings.HasPrefix(line, "  sync") && !strings.HasPrefix(line, "  github.com/moby/swarmkit/v2/api.") &&
			!strings.HasPrefix(line, "  github.com/moby/swarmkit/v2/api/"):
			return within, strings.TrimSpace(line)
		}
	}
	return within, ""
}

func TestRaces(t *testing.T) {
	report := func(one, other string) string {
		stack := func(functions string) (lines string) {
			for function := range strings.SplitSeq(functions, " < ") {
				lines += "  " + function + "\n      file.go:173 +0x34\n"
			}
			return lines
		}
		return "==================\nWARNING: DATA RACE\nRead at 0x00c000d60a88 by goroutine 6928:\n" + stack(one) +
			"\nPrevious write at 0x00c000d60a88 by main goroutine:\n" + stack(other) +
			"\nGoroutine 6928 (running) created at:\n  time.goFunc()\n==================\n"
	}
	const (
		loop      = "github.com/moby/swarmkit/v2/agent.(*taskManager).run.func3()"
		store     = "github.com/moby/swarmkit/v2/manager/state/store.readTx.get()"
		schedules = "github.com/moby/swarmkit/v2/manager/scheduler.(*NodeInfo).addTask()"
		publisher = "github.com/moby/swarmkit/v2/agent.(*Agent).Publisher"
		logs      = "github.com/moby/swarmkit/v2/agent.(*worker).Subscribe()"
		ours      = "github.com/dockerexec/dockerexec.(*controller).Wait()"
		copies    = "github.com/moby/swarmkit/v2/api.(*Task).CopyFrom() < github.com/moby/swarmkit/v2/api.(*Task).Copy() < "
		claims    = "github.com/moby/swarmkit/v2/api/genericresource.ClaimResources() < "
		makes     = "context.withCancel() < context.WithCancel() < " + loop
		uses      = "sync/atomic.LoadInt64() < context.(*cancelCtx).propagateCancel() < " + ours
	)
	for _, report := range []string{report(loop, loop), report(uses, makes), report(makes, uses), report(loop, makes), report(logs, loop),
		report(logs, copies+loop), report(publisher+".func1()", publisher+"()"),
		report(copies+store, schedules), report(copies+store, claims+schedules)} {
		assert.Empty(t, races("level=info\n"+report+"level=info\n"))
	}
	for _, report := range []string{
		report(loop, ours), report(logs, ours), report(ours, loop), report(ours, ours), report(uses, uses), report(ours, makes), report(uses, loop),
		report(copies+ours, loop), report(ours, schedules), report(ours, claims+schedules), report(copies+store, claims+ours),
		report("sync/atomic.LoadInt64() < "+ours, makes),
		"WARNING: DATA RACE\nunreadable",
	} {
		assert.Len(t, races("level=info\n"+report+"level=info\n"), 1, report)
	}
}
