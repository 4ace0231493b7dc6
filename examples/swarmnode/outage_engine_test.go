package main

import (
	"maps"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/moby/swarmkit/v2/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The engine is killed under 20 running tasks and comes back with its containers,
// five times: none of the tasks notices. Those that end while the engine is away
// are reported with their codes.
func TestEngineNodeOutlivesTheEngine(t *testing.T) {
	fromHarness(t, "DOCKEREXEC_TEST_ENGINE")
	s := newSwarm(t)
	const replicas, rounds, each = 20, 5, 2
	steady := s.create(s.service("steady", replicas, "sleep", "1h"))
	ending := map[string]string{}
	for _, code := range []string{"0", "3"} {
		spec := s.service("ends-with-"+code, each*rounds, "sleep", "1h", "--", "exit", code)
		spec.Task.Restart = &api.RestartPolicy{Condition: api.RestartOnNone}
		ending[code] = s.create(spec)
	}
	s.awaitRunning(steady, replicas)
	var toEnd [rounds][]container.Summary
	for _, service := range ending {
		s.awaitRunning(service, each*rounds)
		list := slices.Collect(maps.Values(s.containers(service)))
		for i := range toEnd {
			toEnd[i] = append(toEnd[i], list[i*each:(i+1)*each]...)
		}
	}
	before := s.processes(steady)
	require.Len(t, before, replicas)

	for i, containers := range toEnd {
		var pids []int
		for _, c := range containers {
			pids = append(pids, s.inspect(c.ID).State.Pid)
		}
		controlEngine(t, "kill")
		away := time.Now()
		for _, pid := range pids {
			require.NoError(t, syscall.Kill(pid, syscall.SIGTERM))
		}
		require.Eventually(t, func() bool {
			return !slices.ContainsFunc(pids, func(pid int) bool { return syscall.Kill(pid, 0) == nil })
		}, patience, 10*time.Millisecond, "the processes end while the engine is away")
		controlEngine(t, "start")
		back := time.Now()
		for code, service := range ending {
			exitCode, err := strconv.Atoi(code)
			require.NoError(t, err)
			reached := s.await(service, "the tasks that ended meanwhile", func(tasks []*api.Task) bool {
				return len(in(tasks, hasEnded)) >= (i+1)*each
			})
			ended := in(reached, hasEnded)
			require.Len(t, ended, (i+1)*each)
			for _, task := range ended {
				want, message := api.TaskStateCompleted, ""
				if exitCode != 0 {
					want, message = api.TaskStateFailed, "task: non-zero exit (3)"
				}
				assert.Equal(t, want, task.Status.State, describe(task))
				assert.Equal(t, message, task.Status.Err)
				assert.EqualValues(t, exitCode, task.Status.GetContainer().ExitCode)
			}
		}
		t.Logf("engine away for %v; %d exits are reported %v after its return", back.Sub(away).Round(time.Millisecond),
			len(pids), time.Since(back).Round(time.Millisecond))
	}

	require.Equal(t, before, s.processes(steady), "the same containers, started once")
	history := s.tasks.History(steady)
	require.Len(t, history, replicas, "no task is replaced")
	for _, versions := range history {
		for _, task := range versions {
			assert.LessOrEqual(t, task.Status.State, api.TaskStateRunning, describe(task))
			assert.Equal(t, api.TaskStateRunning, task.DesiredState, describe(task))
		}
	}
	for code, service := range ending {
		require.Len(t, s.tasks.History(service), each*rounds, "tasks that end with %s", code)
	}
	t.Logf("%d tasks run on in their containers after %d kills of the engine", len(before), rounds)

	// Nor has any been forgotten.
	for _, p := range before {
		require.NoError(t, syscall.Kill(s.inspect(p.container).State.Pid, syscall.SIGKILL))
	}
	s.await(steady, "the end of each", func(tasks []*api.Task) bool {
		for task := range before {
			if !slices.ContainsFunc(tasks, func(t *api.Task) bool {
				return t.ID == task && t.Status.State == api.TaskStateFailed && t.Status.GetContainer().ExitCode == 137
			}) {
				return false
			}
		}
		return true
	})
}

// process says which container a task has, and when that was last started.
type process struct{ container, started string }

// processes are those of a service's running containers, by the ID of the task.
func (s *swarm) processes(service string) map[string]process {
	s.t.Helper()
	running := map[string]process{}
	for task, c := range s.containers(service) {
		if answer := s.inspect(c.ID); answer.State.Running {
			running[task] = process{answer.ID, answer.State.StartedAt}
		}
	}
	return running
}

func (s *swarm) inspect(id string) container.InspectResponse {
	s.t.Helper()
	answer, err := s.engine.ContainerInspect(s.t.Context(), id)
	require.NoError(s.t, err)
	return answer
}

func hasEnded(task *api.Task) bool { return task.Status.State > api.TaskStateRunning }

// Without live-restore the containers end with the engine, at its stop or, if it
// was killed, at its next start. Each task ends and is replaced, once.
func TestEngineNodeOutlivesTheContainers(t *testing.T) {
	fromHarness(t, "DOCKEREXEC_TEST_ENGINE")
	controlEngine(t, "restart", "--no-live-restore")
	t.Cleanup(func() { controlEngine(t, "restart") })
	for _, end := range []string{"stop", "kill"} {
		t.Run(end, func(t *testing.T) {
			const replicas = 10
			s := newSwarm(t)
			service := s.create(s.service(end, replicas, "sleep", "1h"))
			s.awaitRunning(service, replicas)
			before := s.processes(service)
			require.Len(t, before, replicas)

			begin := time.Now()
			controlEngine(t, end)
			controlEngine(t, "start", "--no-live-restore")
			back := time.Now()
			tasks := s.await(service, "all tasks ended and replaced", func(tasks []*api.Task) bool {
				return len(tasks) >= 2*replicas && len(in(tasks, hasEnded)) >= replicas && len(in(tasks, running)) >= replicas
			})
			replaced := time.Since(back)
			ended := in(tasks, hasEnded)
			require.Len(t, ended, replicas)
			codes := map[int32]int{}
			for _, task := range ended {
				assert.Contains(t, before, task.ID)
				assert.Contains(t, []api.TaskState{api.TaskStateCompleted, api.TaskStateFailed}, task.Status.State, describe(task))
				codes[task.Status.GetContainer().ExitCode]++
			}
			t.Logf("engine away for %v; %d tasks ended (number by exit code: %v) and were replaced %v after its return",
				back.Sub(begin).Round(time.Millisecond), len(ended), codes, replaced.Round(time.Millisecond))
			// One task more, which comes after whatever the outage has set off.
			s.update(service, func(spec *api.ServiceSpec) { spec.GetReplicated().Replicas = replicas + 1 })
			s.awaitRunning(service, replicas+1)
			require.Len(t, s.tasks.History(service), 2*replicas+1, "each task is replaced once")
			require.Len(t, s.processes(service), replicas+1)
		})
	}
}
