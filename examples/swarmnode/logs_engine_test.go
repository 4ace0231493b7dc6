package main

import (
	"context"
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/pkg/stdcopy"
	"github.com/moby/swarmkit/v2/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const loggedLine = 90 // bytes

// 27 MB of log arrive complete and in order through the node's log subscription,
// as they are written and afterwards, at the default rate.
func TestEngineNodeLogs(t *testing.T) {
	sharesEngine(t)
	s := newSwarm(t)
	const lines = 300_000
	s.readLogWhole(s.createLogging(lines), lines, true)
}

// A third of that without limit, in at most 1.5 times what a node takes for it whose
// executor reads logs with the engine's own client. (That client alone, into
// nothing, is faster than both: SwarmKit sends each line as a message, twice.)
func TestEngineNodeLogsWithoutLimit(t *testing.T) {
	ours, theirs := newSwarm(t, "-log-rate", "0"), newClientLogsSwarm(t)
	const lines = 100_000
	ourService, theirService := ours.createLogging(lines), theirs.createLogging(lines)
	ours.readLogWhole(ourService, lines, true)
	theirs.awaitLogged(theirService)

	const limit = 1.5
	var us, them, alone time.Duration
	for round := range 3 { // in turn, and the best of each: the machine may be busy
		us = best(us, ours.readLogWhole(ourService, lines, false))
		them = best(them, theirs.readLogWhole(theirService, lines, false))
		alone = best(alone, ours.copyLog(ourService, lines))
		ratio := us.Seconds() / them.Seconds()
		t.Logf("through a node: %v, through one with the engine's client: %v, ratio %.2f; by that client into nothing: %v", us, them, ratio, alone)
		if ratio <= limit {
			return
		}
		assert.Less(t, round, 2, "the ratio is over %v", limit)
	}
}

func best(so, now time.Duration) time.Duration {
	if so == 0 {
		return now
	}
	return min(so, now)
}

// createLogging makes a service of one task that logs the lines and ends.
func (s *swarm) createLogging(lines int) (service string) {
	s.t.Helper()
	spec := s.service("logs", 1, "lines", fmt.Sprint(lines), fmt.Sprint(loggedLine), "0")
	spec.Task.Restart = &api.RestartPolicy{Condition: api.RestartOnNone}
	return s.create(spec)
}

// readLogWhole reads a service's log and returns how long that took. The task has
// ended then.
func (s *swarm) readLogWhole(service string, lines int, follow bool) time.Duration {
	s.t.Helper()
	begin, memory := time.Now(), s.memory()
	n, err := s.readLog(service, lines, follow)
	took := time.Since(begin)
	require.NoError(s.t, err)
	require.Equal(s.t, lines, n)
	s.t.Logf("follow %t: %d lines of %d bytes in %.1f s; the node's memory %d MiB, %d MiB before",
		follow, n, loggedLine, took.Seconds(), s.memory()>>20, memory>>20)
	s.awaitLogged(service)
	return took
}

// awaitLogged waits until the service's task has ended.
func (s *swarm) awaitLogged(service string) {
	s.t.Helper()
	s.await(service, "a task that is done", func(tasks []*api.Task) bool {
		return len(tasks) == 1 && tasks[0].Status.State == api.TaskStateCompleted
	})
}

// readLog subscribes to a service's log and returns how many lines of the test
// program's "lines" command came. It ends with the log, or when following with the
// last of the lines.
func (s *swarm) readLog(service string, lines int, follow bool) (n int, err error) {
	ctx, cancel := context.WithTimeout(s.t.Context(), 5*time.Minute) // a loaded machine takes its time
	defer cancel()
	log, err := api.NewLogsClient(s.conn).SubscribeLogs(ctx, &api.SubscribeLogsRequest{
		Selector: &api.LogSelector{ServiceIDs: []string{service}},
		Options:  &api.LogSubscriptionOptions{Follow: follow},
	})
	if err != nil {
		return 0, err
	}
	for !follow || n < lines {
		answer, err := log.Recv()
		if err == io.EOF && !follow {
			return n, nil
		}
		if err != nil {
			return n, fmt.Errorf("after %d lines: %w", n, err)
		}
		for _, m := range answer.Messages {
			n++
			if len(m.Data) != loggedLine || string(m.Data[:10]) != fmt.Sprintf("%010d", n) || m.Data[loggedLine-1] != '\n' || m.Stream != api.LogStreamStdout {
				return n, fmt.Errorf("line %d is %q on %v", n, m.Data, m.Stream)
			}
		}
	}
	return n, nil
}

// copyLog reads the log of a service's only container with the engine's own client,
// and returns how long that took.
func (s *swarm) copyLog(service string, lines int) time.Duration {
	s.t.Helper()
	containers := s.containers(service)
	require.Len(s.t, containers, 1)
	begin := time.Now()
	for _, c := range containers {
		body, err := s.engine.ContainerLogs(s.t.Context(), c.ID, container.LogsOptions{ShowStdout: true, ShowStderr: true, Timestamps: true})
		require.NoError(s.t, err)
		defer body.Close()
		written, err := stdcopy.StdCopy(io.Discard, io.Discard, body)
		require.NoError(s.t, err)
		require.Equal(s.t, int64(lines*(len("2006-01-02T15:04:05.000000000Z ")+loggedLine)), written)
	}
	return time.Since(begin)
}
