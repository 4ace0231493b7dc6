package main

import (
	"context"
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/moby/swarmkit/v2/api"
	"github.com/stretchr/testify/require"
)

// 27 MB of log arrive complete and in order through the node's log subscription,
// as they are written and afterwards, at the default rate and without limit.
func TestEngineNodeLogs(t *testing.T) {
	const lines, size = 300_000, 90
	for _, tt := range []struct {
		name  string
		flags []string
	}{
		{"default rate", nil},
		{"no limit", []string{"-log-rate", "0"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newSwarm(t, tt.flags...)
			spec := s.service("logs", 1, "lines", fmt.Sprint(lines), fmt.Sprint(size), "0")
			spec.Task.Restart = &api.RestartPolicy{Condition: api.RestartOnNone}
			service := s.create(spec)
			for _, follow := range []bool{true, false} {
				begin, memory := time.Now(), s.memory()
				n, err := s.readLog(service, follow, lines, size)
				require.NoError(t, err)
				require.Equal(t, lines, n)
				t.Logf("%s, follow %t: %d lines of %d bytes in %.1f s; the node's memory %d MiB, %d MiB before", tt.name, follow,
					n, size, time.Since(begin).Seconds(), s.memory()>>20, memory>>20)
				s.await(service, "a task that is done", func(tasks []*api.Task) bool {
					return len(tasks) == 1 && tasks[0].Status.State == api.TaskStateCompleted
				})
			}
		})
	}
}

// readLog subscribes to a service's log and returns how many lines of the test
// program's "lines" command came. It ends with the log, or when following with the
// last of the lines.
func (s *swarm) readLog(service string, follow bool, lines, size int) (n int, err error) {
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
			if len(m.Data) != size || string(m.Data[:10]) != fmt.Sprintf("%010d", n) || m.Data[size-1] != '\n' || m.Stream != api.LogStreamStdout {
				return n, fmt.Errorf("line %d is %q on %v", n, m.Data, m.Stream)
			}
		}
	}
	return n, nil
}
