package main

import (
	"context"
	"runtime/pprof"
	"strings"
)

// The parts of the simulation that a figure is told for.
const (
	agentsPart   = "agents"   // SwarmKit's agent, this package's executor, the engine's client
	managersPart = "managers" // SwarmKit's managers, with raft and the servers' ends of connections
	enginesPart  = "engines"  // dockerexectest
	otherPart    = "other"    // collection of garbage, the scheduler of Go, the simulation itself
	wirePart     = "wire"     // of the heap: connections between agents and managers, both ends
)

const partLabel = "part"

// inPart runs do. Its goroutines count for the part, and so do those that they start.
func inPart(part string, do func()) {
	pprof.Do(context.Background(), pprof.Labels(partLabel, part), func(context.Context) { do() })
}

// byLabel adds up the samples of a profile that has labels.
func byLabel(samples []sample) map[string]int64 {
	sums := map[string]int64{}
	for _, s := range samples {
		part := s.part
		if part == "" {
			part = otherPart
		}
		sums[part] += s.value
	}
	return sums
}

// byStack adds up the samples of a profile of the heap, which has no labels.
func byStack(samples []sample) map[string]int64 {
	sums := map[string]int64{}
	for _, s := range samples {
		sums[partOf(s.stack)] += s.value
	}
	return sums
}

// owners say whose an allocation is: the first that matches a function on its stack.
var owners = []struct{ function, part string }{
	{"dockerexec/dockerexectest.", enginesPart},
	{"swarmkit/v2/manager", managersPart},
	{"go.etcd.io/", managersPart},
	{"swarmkit/v2/agent", agentsPart},
	{"swarmkit/v2/node", agentsPart},
	{"dockerexec/dockerexec.", agentsPart},
	{"net/http.(*conn)", enginesPart}, // only engines serve HTTP/1
	{"net/http.", agentsPart},
	{"docker/go-events.", managersPart}, // queues of those who watch a manager's store
	{"google.golang.org/grpc", wirePart},
	{"crypto/tls.", wirePart},
}

func partOf(stack []string) string {
	for _, owner := range owners {
		for _, function := range stack {
			if strings.Contains(function, owner.function) {
				return owner.part
			}
		}
	}
	return otherPart
}
