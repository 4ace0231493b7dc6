package dockerexec

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/events"
	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/api/types/registry"
	engineapi "github.com/docker/docker/client"
	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/moby/swarmkit/v2/api"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/pkg/errors"
	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockerexec/dockerexec/dockerexectest"
)

// job is one Run on an engine for tests, and what its caller saw.
type job struct {
	engine *dockerexectest.Engine
	task   *api.Task
	client *Engine
	result RunResult
	err    error
	states []api.TaskState
	last   api.TaskStatus
	log    lines
	// removals is how many removals the engine had been asked for when the caller got the
	// last state.
	removals int
}

// lines keeps what is published.
type lines struct {
	takes time.Duration // for each line
	mu    sync.Mutex
	text  []string
}

func (l *lines) Publish(_ context.Context, m api.LogMessage) error {
	time.Sleep(l.takes)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text = append(l.text, string(m.Data))
	return nil
}

func newJob(t *testing.T, program dockerexectest.Program, opts ...Option) *job {
	engine := dockerexectest.New(t)
	engine.Image(spec(plainTask()).Image, program)
	task := plainTask()
	attach(task, "backend", "10.1.0.0/24")
	return &job{engine: engine, task: task, client: NewEngine(engine.Client(), opts...)}
}

func (j *job) run(ctx context.Context) *job {
	j.result, j.err = j.client.Run(ctx, j.task, RunOptions{Logs: &j.log, OnStatus: func(_ context.Context, s api.TaskStatus) {
		j.states = append(j.states, s.State)
		j.last = s
		j.removals = j.engine.Requests().Count("DELETE /containers/*")
	}})
	return j
}

// assertNothingLeft checks that the engine has no container and no network of the task,
// also an hour later.
func (j *job) assertNothingLeft(t *testing.T) {
	t.Helper()
	time.Sleep(time.Hour)
	assert.Empty(t, j.engine.Containers())
	assert.NotContains(t, j.engine.Networks(), "backend")
}

var lifeOfATask = []api.TaskState{api.TaskStatePreparing, api.TaskStateStarting, api.TaskStateRunning}

func TestRunTellsHowATaskEnded(t *testing.T) {
	t.Parallel()
	unhealthy := dockerexectest.WithHealthcheck(container.HealthConfig{Test: []string{"CMD", "check"}, Interval: time.Second, Retries: 2})
	for name, test := range map[string]struct {
		program  dockerexectest.Program
		image    []dockerexectest.ImageOption
		before   func(e *dockerexectest.Engine)
		result   RunResult // but for the times
		err      string    // empty: nil
		exitCode int       // of the error; -1: it has none
		states   []api.TaskState
		log      []string
		started  bool
	}{
		"it succeeds": {
			program: dockerexectest.Print(dockerexectest.ExitAfter(time.Minute, 0), "one", "two"),
			result:  RunResult{State: api.TaskStateCompleted, Reason: "exit code 0"},
			states:  append(lifeOfATask[:3:3], api.TaskStateCompleted), log: []string{"one\n", "two\n"}, started: true,
		},
		"it fails": {
			program: dockerexectest.Print(dockerexectest.ExitAfter(time.Minute, 3), "one"),
			result:  RunResult{State: api.TaskStateFailed, ExitCode: 3, Reason: "exit code 3"}, err: "task: non-zero exit (3)", exitCode: 3,
			states: append(lifeOfATask[:3:3], api.TaskStateFailed), log: []string{"one\n"}, started: true,
		},
		"it has no memory": {
			program: func(p *dockerexectest.Process) int { p.OOM(); return 0 },
			result:  RunResult{State: api.TaskStateFailed, ExitCode: 137, OOMKilled: true, Reason: "out of memory"}, err: "task: non-zero exit (137)", exitCode: 137,
			states: append(lifeOfATask[:3:3], api.TaskStateFailed), started: true,
		},
		"it is unhealthy": {
			program: dockerexectest.UntilStopped(0), image: []dockerexectest.ImageOption{unhealthy, dockerexectest.WithProbe(dockerexectest.Exit(1))},
			result: RunResult{State: api.TaskStateFailed, Reason: "unhealthy"}, err: "unhealthy container", exitCode: 0,
			states: append(lifeOfATask[:2:2], api.TaskStateFailed), started: true,
		},
		"the image is not there": {
			program: dockerexectest.Exit(0), before: func(e *dockerexectest.Engine) {
				e.FailAll("POST /images/create", dockerexectest.Refuse(http.StatusNotFound, "manifest unknown"))
			},
			result: RunResult{State: api.TaskStateRejected, Reason: "pull image example/web:1, attempt 1 of 3: Error response from daemon: manifest unknown"}, err: "manifest unknown", exitCode: -1,
			states: []api.TaskState{api.TaskStatePreparing, api.TaskStateRejected},
		},
		"the engine has lost its start": {
			program: dockerexectest.Exit(0), before: func(e *dockerexectest.Engine) {
				e.FailNext(startRequest, dockerexectest.Refuse(500, "id already in use"))
			},
			result: RunResult{State: api.TaskStateFailed, Reason: "start container web.1.taskid: Error response from daemon: id already in use"}, err: "id already in use", exitCode: -1,
			states: append(lifeOfATask[:2:2], api.TaskStateFailed),
		},
		"the engine refuses the start": {
			program: dockerexectest.Exit(0), before: func(e *dockerexectest.Engine) {
				e.FailAll(startRequest, dockerexectest.Refuse(http.StatusBadRequest, "exec: no such program"))
			},
			result: RunResult{State: api.TaskStateRejected, Reason: "start container web.1.taskid: Error response from daemon: exec: no such program"}, err: "exec: no such program", exitCode: -1,
			states: append(lifeOfATask[:2:2], api.TaskStateRejected),
		},
		"the engine ends within the start and loses it": {
			program: dockerexectest.Exit(0), before: func(e *dockerexectest.Engine) {
				e.FailNext(startRequest, dockerexectest.Drop())
				e.FailNext(startRequest, dockerexectest.Refuse(http.StatusInternalServerError, "id already in use"))
			},
			result: RunResult{State: api.TaskStateFailed, Reason: "start container web.1.taskid: Error response from daemon: id already in use"}, err: "id already in use", exitCode: -1,
			states: append(lifeOfATask[:2:2], api.TaskStateFailed),
		},
		"the engine refuses to show it": {
			program: dockerexectest.UntilStopped(0), before: func(e *dockerexectest.Engine) {
				time.AfterFunc(time.Minute, func() {
					e.FailAll("GET /containers/*/json", dockerexectest.Refuse(http.StatusForbidden, "forbidden by a proxy"))
				})
			},
			result: RunResult{State: api.TaskStateFailed, Reason: "inspect container web.1.taskid: Error response from daemon: forbidden by a proxy"}, err: "forbidden by a proxy", exitCode: -1,
			states: append(lifeOfATask[:3:3], api.TaskStateFailed),
		},
		"somebody removes the container": {
			program: dockerexectest.UntilStopped(0), before: func(e *dockerexectest.Engine) {
				time.AfterFunc(time.Minute, func() { e.Container(taskName).RemoveByHand() })
			},
			result: RunResult{State: api.TaskStateFailed, Reason: "the container was removed: nobody knows how it ended"}, err: "container destroyed", exitCode: -1,
			states: append(lifeOfATask[:3:3], api.TaskStateFailed),
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T) {
				j := newJob(t, test.program)
				j.engine.Image(spec(j.task).Image, test.program, test.image...)
				if test.before != nil {
					test.before(j.engine)
				}
				j.run(t.Context())
				if test.err == "" {
					require.NoError(t, j.err)
				} else {
					require.ErrorContains(t, j.err, test.err)
					assert.Contains(t, j.last.Err, test.err)
					var exit exec.ExitCoder
					if errors.As(j.err, &exit) {
						assert.Equal(t, test.exitCode, exit.ExitCode())
					} else {
						assert.Equal(t, -1, test.exitCode)
					}
				}
				assert.Equal(t, test.started, !j.result.Started.IsZero())
				assert.Equal(t, test.started, !j.result.Finished.IsZero())
				j.result.Started, j.result.Finished = time.Time{}, time.Time{}
				assert.Equal(t, test.result, j.result)
				assert.Equal(t, test.states, j.states)
				assert.Equal(t, test.log, j.log.text)
				assert.Zero(t, j.removals, "nothing is removed before the caller knows the end")
				j.assertNothingLeft(t)
			})
		})
	}
}

// noTimes is a fake that does not say when its container started, and whose log takes a
// second to begin.
type noTimes struct{ engineapi.APIClient }

func (c noTimes) ContainerInspect(ctx context.Context, name string) (container.InspectResponse, error) {
	answer, err := c.APIClient.ContainerInspect(ctx, name)
	if err == nil {
		answer.State.StartedAt, answer.State.FinishedAt = "", ""
	}
	return answer, err
}

func (c noTimes) ContainerLogs(ctx context.Context, name string, o container.LogsOptions) (io.ReadCloser, error) {
	select {
	case <-time.After(time.Second):
	case <-ctx.Done():
	}
	return c.APIClient.ContainerLogs(ctx, name, o)
}

// odd is a client whose container has ended oddly.
type odd struct {
	engineapi.APIClient
	change func(*container.State)
}

func (c odd) ContainerInspect(ctx context.Context, name string) (container.InspectResponse, error) {
	answer, err := c.APIClient.ContainerInspect(ctx, name)
	if err == nil && answer.State.Status == container.StateExited {
		c.change(answer.State)
	}
	return answer, err
}

// The reason says no more than is known: the kernel may have killed a child of the program
// only, and a code of 0 is no reason to fail.
func TestRunTellsAReasonThatIsTrue(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		code   int
		change func(*container.State)
		reason string
	}{
		"a child is killed":        {2, func(s *container.State) { s.OOMKilled = true }, "exit code 2: a process of the container ran out of memory"},
		"the program is killed":    {137, func(s *container.State) { s.OOMKilled = true }, "out of memory"},
		"the engine has an error":  {0, func(s *container.State) { s.Error = "disk is full" }, "task: ended with exit code 0: disk is full"},
		"that, and a code":         {3, func(s *container.State) { s.Error = "disk is full" }, "exit code 3"},
		"a child is killed, and 0": {0, func(s *container.State) { s.OOMKilled = true }, "exit code 0"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T) {
				j := newJob(t, dockerexectest.Exit(test.code))
				j.client = NewEngine(odd{j.engine.Client(), test.change})
				j.run(t.Context())
				assert.Equal(t, test.reason, j.result.Reason)
				assert.Equal(t, test.code, j.result.ExitCode)
			})
		})
	}
}

func TestRunWaitsForTheLogOfAFakeWithoutTimes(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		j := newJob(t, dockerexectest.Print(dockerexectest.Exit(3), "one"))
		j.client = NewEngine(noTimes{j.engine.Client()})
		j.run(t.Context())
		require.EqualError(t, j.err, "task: non-zero exit (3)")
		assert.Equal(t, []string{"one\n"}, j.log.text)
	})
}

// A task that is refused is rejected before anything is asked of the engine.
func TestRunRefusesATask(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		j := newJob(t, dockerexectest.Exit(0))
		spec(j.task).Image = ""
		j.run(t.Context())
		assert.Equal(t, ErrImageRequired, j.err)
		assert.Equal(t, RunResult{State: api.TaskStateRejected, Reason: "dockerexec: image required"}, j.result)
		assert.Equal(t, []api.TaskState{api.TaskStateRejected}, j.states)
		assert.Empty(t, j.engine.Requests())

		none, err := (*Engine)(nil).Run(t.Context(), j.task, RunOptions{})
		require.Error(t, err)
		assert.Equal(t, api.TaskStateRejected, none.State)
	})
}

// faultsOfARequest are what may happen to any one request.
var faultsOfARequest = map[string]dockerexectest.Fault{
	"its answer is lost": dockerexectest.LoseAnswer(),
	"it is dropped":      dockerexectest.Drop(),
	"503":                dockerexectest.Refuse(http.StatusServiceUnavailable, "busy"),
	"429":                dockerexectest.Refuse(http.StatusTooManyRequests, "too many requests"),
	"it takes a minute":  dockerexectest.Slow(time.Minute),
	"it takes 3 minutes": dockerexectest.Slow(3 * time.Minute),
}

// A container that has ended is not stopped. So a stop is asked for where a Run is cut short.
func TestRunThatIsCutShortSurvivesEachFaultOfTheStop(t *testing.T) {
	t.Parallel()
	for what, fault := range faultsOfARequest {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T) {
				j := newJob(t, obedient)
				j.engine.FailNext(stopRequest, fault)
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				defer cancel()
				j.run(ctx)
				require.ErrorIs(t, j.err, context.DeadlineExceeded)
				j.assertNothingLeft(t)
			})
		})
	}
}

// Each request of a task gets each fault once. The task ends as it would without the fault,
// its program has run once, and nothing is left.
func TestRunSurvivesEachFaultOfEachRequest(t *testing.T) {
	t.Parallel()
	requests := []string{
		"GET /events", "POST /networks/create", "POST /images/create", "POST /containers/create",
		"POST /containers/*/start", "GET /containers/*/json", "GET /containers/*/logs",
		"DELETE /containers/*", "DELETE /networks/*",
	}
	for _, request := range requests {
		for what, fault := range faultsOfARequest {
			if what == "it takes 3 minutes" && request == "POST /networks/create" {
				continue // the task is over when the network comes, and nobody removes it
			}
			t.Run(request+" "+what, func(t *testing.T) {
				t.Parallel()
				bubble(t, func(t *testing.T) {
					starts := 0
					var mu sync.Mutex
					j := newJob(t, func(p *dockerexectest.Process) int {
						mu.Lock()
						starts++
						mu.Unlock()
						fmt.Fprintln(p.Stdout, "ran")
						p.Sleep(10 * time.Second)
						return 3
					})
					j.engine.FailNext(request, fault)
					j.run(t.Context())
					require.EqualError(t, j.err, "task: non-zero exit (3)")
					assert.Equal(t, api.TaskStateFailed, j.result.State)
					assert.Equal(t, 3, j.result.ExitCode)
					assert.Equal(t, []string{"ran\n"}, j.log.text)
					mu.Lock()
					assert.Equal(t, 1, starts)
					mu.Unlock()
					j.assertNothingLeft(t)
				})
			})
		}
	}
}

// The caller's context ends at each moment of a task's life, by steps of half a second,
// while every request takes a second. Nothing is left, and no error names a leftover.
func TestRunLeavesNothingWhenItsContextEnds(t *testing.T) {
	t.Parallel()
	for half := range 60 {
		t.Run(fmt.Sprint(time.Duration(half)*time.Second/2), func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T) {
				j := newJob(t, dockerexectest.UntilStopped(2*time.Second))
				if half > 0 {
					j.engine.FailAll("*", dockerexectest.Slow(time.Second))
				}
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(half)*time.Second/2)
				defer cancel()
				j.run(ctx)
				require.ErrorIs(t, j.err, context.DeadlineExceeded)
				assert.NotContains(t, j.err.Error(), "left")
				assert.Equal(t, api.TaskStateShutdown, j.result.State)
				assert.Equal(t, "stopped", j.result.Reason)
				assert.Equal(t, api.TaskStateShutdown, j.states[len(j.states)-1])
				j.assertNothingLeft(t)
			})
		})
	}
}

// A context that ends stops the container. What the container exits with is in the error.
func TestRunStopsTheContainerAtTheEndOfItsContext(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		j := newJob(t, dockerexectest.IgnoreStop())
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		began := time.Now()
		j.run(ctx)
		assert.InDelta(t, 70, time.Since(began).Seconds(), 5, "the grace period is 10 s")
		require.ErrorIs(t, j.err, context.DeadlineExceeded)
		var exit exec.ExitCoder
		require.ErrorAs(t, j.err, &exit)
		assert.Equal(t, 137, exit.ExitCode())
		assert.Equal(t, 137, j.result.ExitCode)
		j.assertNothingLeft(t)
	})
}

// A container that has ended before the context keeps its own result, also if nobody knew.
func TestRunTellsTheEndThatCameBeforeItsContext(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		j := newJob(t, dockerexectest.ExitAfter(30*time.Second, 3))
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		time.AfterFunc(20*time.Second, j.engine.Down)
		time.AfterFunc(90*time.Second, j.engine.Up)
		j.run(ctx)
		require.EqualError(t, j.err, "task: non-zero exit (3)")
		assert.Equal(t, api.TaskStateFailed, j.result.State)
		assert.Zero(t, j.engine.Requests().Count("POST /containers/*/kill"))
		j.assertNothingLeft(t)
	})
}

// An engine that stays away after the end of the context: Run gives up two minutes after
// the grace period, and names what is left.
func TestRunGivesUpOnAnEngineThatStaysAway(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		j := newJob(t, dockerexectest.UntilStopped(0))
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		time.AfterFunc(30*time.Second, j.engine.Down)
		began := time.Now()
		j.run(ctx)
		assert.InDelta(t, 190, time.Since(began).Seconds(), 5)
		require.ErrorIs(t, j.err, context.DeadlineExceeded)
		require.ErrorContains(t, j.err, "container web.1.taskid, its networks or the files of its secrets may be left on the engine: not removed within 2m10s after the end of the context")
		require.NotErrorIs(t, j.err, context.Canceled)
		assert.Equal(t, api.TaskStateShutdown, j.result.State)
		j.engine.Up()
	})
}

// A second process goes on where the first one ended. The program runs once.
func TestRunGoesOnForAnotherProcess(t *testing.T) {
	t.Parallel()
	for name, killedAt := range map[string]time.Duration{
		"the container runs": 30 * time.Second, "it has ended": 2 * time.Minute,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T) {
				j := newJob(t, dockerexectest.Print(dockerexectest.ExitAfter(time.Minute, 3), "one"))
				first, err := j.client.Adapter(nil, j.task, nil) // a process that was killed
				require.NoError(t, err)
				require.NoError(t, first.CreateNetworks(t.Context()))
				require.NoError(t, first.PullImage(t.Context()))
				require.NoError(t, first.Create(t.Context()))
				require.NoError(t, first.Start(t.Context()))
				time.Sleep(killedAt)
				starts := j.engine.Container(taskName).Starts()
				j.engine.ForgetRequests()
				j.run(t.Context())
				require.EqualError(t, j.err, "task: non-zero exit (3)")
				assert.Equal(t, []string{"one\n"}, j.log.text)
				assert.Equal(t, 1, starts)
				assert.Zero(t, j.engine.Requests().Count(startRequest))
				assert.Zero(t, j.engine.Requests().Count("POST /images/create"), "no pull")
				j.assertNothingLeft(t)
			})
		})
	}
}

// KeepContainer leaves what has ended, and only that.
func TestRunKeepsTheContainer(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		j := newJob(t, dockerexectest.Exit(0))
		_, err := j.client.Run(t.Context(), j.task, RunOptions{KeepContainer: true})
		require.NoError(t, err)
		assert.Len(t, j.engine.Containers(), 1)
		assert.Contains(t, j.engine.Networks(), "backend")

		rejected := newJob(t, dockerexectest.Exit(0))
		rejected.engine.FailAll(startRequest, dockerexectest.Refuse(http.StatusBadRequest, "exec: no such program"))
		_, err = rejected.client.Run(t.Context(), rejected.task, RunOptions{KeepContainer: true})
		require.Error(t, err)
		rejected.assertNothingLeft(t)
	})
}

// While the engine is away there is one warning, and the log is complete afterwards.
func TestRunWaitsForTheEngine(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		ctx, warned := logged(t)
		j := newJob(t, dockerexectest.Print(dockerexectest.ExitAfter(time.Minute, 0), "one"))
		j.engine.Down()
		time.AfterFunc(10*time.Minute, j.engine.Up)
		j.run(ctx)
		require.NoError(t, j.err)
		assert.Equal(t, []string{"the task waits for the engine"}, warned(logrus.WarnLevel))
		assert.Equal(t, []string{"one\n"}, j.log.text)
	})
}

// A log that cannot be read does not fail the task.
func TestRunWithoutALog(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		ctx, warned := logged(t)
		j := newJob(t, dockerexectest.ExitAfter(time.Minute, 0))
		j.engine.FailAll("GET /containers/*/logs", dockerexectest.Refuse(http.StatusNotImplemented, "configured logging driver does not support reading"))
		j.run(ctx)
		require.NoError(t, j.err)
		assert.Equal(t, []string{"the log of the container is not read to its end"}, warned(logrus.WarnLevel))
		j.assertNothingLeft(t)
	})
}

// A publisher that fails ends the log, not the task.
func TestRunWithAPublisherThatFails(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		j := newJob(t, dockerexectest.Print(dockerexectest.ExitAfter(time.Minute, 0), "one"))
		publish := exec.LogPublisherFunc(func(context.Context, api.LogMessage) error { return io.ErrClosedPipe })
		result, err := j.client.Run(t.Context(), j.task, RunOptions{Logs: publish})
		require.NoError(t, err)
		assert.Equal(t, api.TaskStateCompleted, result.State)
	})
}

func TestPullPolicy(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		policy  PullPolicy
		local   bool
		pulls   int
		refused string
	}{
		"always, image there":      {PullAlways, true, 1, ""},
		"if missing, image there":  {PullIfMissing, true, 0, ""},
		"if missing, image absent": {PullIfMissing, false, 1, ""},
		"never, image there":       {PullNever, true, 0, ""},
		"never, image absent":      {PullNever, false, 0, "No such image"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T) {
				j := newJob(t, dockerexectest.Exit(0), WithPullPolicy(test.policy))
				if test.local {
					j.engine.LocalImage(spec(j.task).Image, dockerexectest.Exit(0))
				}
				j.run(t.Context())
				if test.refused == "" {
					require.NoError(t, j.err)
				} else {
					require.ErrorContains(t, j.err, test.refused)
					assert.Equal(t, api.TaskStateRejected, j.result.State)
				}
				assert.Equal(t, test.pulls, j.engine.Requests().Count("POST /images/create"))
			})
		})
	}
	_, err := NewEngine(dockerexectest.New(t).Client(), WithPullPolicy(7)).Adapter(nil, plainTask(), nil)
	require.EqualError(t, err, "dockerexec: option WithPullPolicy: there is no policy 7")
}

func TestCredentialsAreAskedForTasksThatBringNone(t *testing.T) {
	t.Parallel()
	const password = "s3cret-of-the-registry"
	for name, test := range map[string]struct {
		given registry.AuthConfig
		fails error
		own   bool
		asked int
		err   string
	}{
		"right":           {given: registry.AuthConfig{Username: "alice", Password: password}, asked: 1},
		"wrong":           {given: registry.AuthConfig{Username: "alice", Password: "wr0ng-" + password}, asked: 1, err: "denied"},
		"none":            {asked: 1, err: "denied"},
		"fails":           {fails: errors.New("no helper"), asked: 1, err: "pull image example/web:1: ask for its credentials: no helper"},
		"the task's own":  {own: true, asked: 0},
		"a passing fault": {fails: exec.MakeTemporary(errors.New("vault is sealed")), asked: 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T) {
				asked := 0
				j := newJob(t, dockerexectest.Exit(0), WithCredentials(func(_ context.Context, image string) (registry.AuthConfig, error) {
					assert.Equal(t, "example/web:1", image)
					asked++
					if exec.IsTemporary(test.fails) && asked == 2 {
						return registry.AuthConfig{Username: "alice", Password: password}, nil
					}
					return test.given, test.fails
				}))
				j.engine.Image(spec(j.task).Image, dockerexectest.Exit(0), dockerexectest.WithCredentials("alice", password))
				if test.own {
					header, err := registry.EncodeAuthConfig(registry.AuthConfig{Username: "alice", Password: password})
					require.NoError(t, err)
					spec(j.task).PullOptions = &api.ContainerSpec_PullOptions{RegistryAuth: header}
				}
				j.run(t.Context())
				if test.err == "" {
					require.NoError(t, j.err)
				} else {
					require.ErrorContains(t, j.err, test.err)
					assert.NotContains(t, j.err.Error(), password)
				}
				assert.Equal(t, test.asked, asked)
			})
		})
	}
}

// Credentials that the caller was asked for are secrets, also where the engine quotes them.
func TestAskedCredentialsAreNotShown(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		j := newJob(t, dockerexectest.Exit(0), WithCredentials(func(context.Context, string) (registry.AuthConfig, error) {
			return registry.AuthConfig{Username: "alice", Password: "s3cret-of-the-registry"}, nil
		}))
		j.engine.FailAll("POST /containers/create", dockerexectest.Refuse(http.StatusBadRequest, "bad login s3cret-of-the-registry"))
		j.run(t.Context())
		require.ErrorContains(t, j.err, "bad login")
		assert.NotContains(t, j.err.Error(), "s3cret")
		assert.NotContains(t, fmt.Sprintf("%+v %#v", j.result, j.last), "s3cret")
	})
}

func TestHooks(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		creates := 0
		j := newJob(t, dockerexectest.Exit(0),
			WithCreateHook(func(_ context.Context, task *api.Task, config *container.Config, host *container.HostConfig) error {
				creates++
				assert.Equal(t, "taskid", task.ID)
				task.ID = "changed"
				host.Privileged = true
				config.Env = append(config.Env, "GPU=1")
				return nil
			}))
		j.engine.FailNext("POST /containers/create", dockerexectest.Drop())
		j.run(t.Context())
		require.NoError(t, j.err)
		assert.Equal(t, 2, creates, "a repeated create is changed too")
		bodies := 0
		for _, r := range j.engine.Requests() {
			if r.String() == "POST /containers/create" {
				bodies++
				assert.Contains(t, string(r.Body), `"Privileged":true`)
				assert.Contains(t, string(r.Body), `GPU=1`)
			}
		}
		assert.Equal(t, 2, bodies)
	})
}

func TestTheStartHookNamesACheckpoint(t *testing.T) {
	t.Parallel()
	client := newFakeClient(t)
	var got []container.StartOptions
	client.containerStart = func(_ context.Context, _ string, options container.StartOptions) error {
		got = append(got, options)
		return nil
	}
	adapter, err := NewEngine(client, WithStartHook(func(_ context.Context, task *api.Task, options *container.StartOptions) error {
		assert.Equal(t, "taskid", task.ID)
		options.CheckpointID = "saved"
		return nil
	})).Adapter(nil, plainTask(), nil)
	require.NoError(t, err)
	require.NoError(t, adapter.Start(t.Context()))
	assert.Equal(t, []container.StartOptions{{CheckpointID: "saved"}}, got)
}

// An error of a hook is final, whatever it looks like, and nothing is left.
func TestHooksThatFail(t *testing.T) {
	t.Parallel()
	fault := exec.MakeTemporary(errors.New("connection refused"))
	for name, test := range map[string]struct {
		option Option
		err    string
		cause  error
	}{
		"create": {WithCreateHook(func(context.Context, *api.Task, *container.Config, *container.HostConfig) error { return fault }),
			"create container web.1.taskid: the create hook failed: connection refused", fault},
		"start": {WithStartHook(func(context.Context, *api.Task, *container.StartOptions) error { return fault }),
			"start container web.1.taskid: the start hook failed: connection refused", fault},
		"a label is lost": {WithCreateHook(func(_ context.Context, _ *api.Task, c *container.Config, _ *container.HostConfig) error {
			delete(c.Labels, LabelTaskID)
			return nil
		}), "create container web.1.taskid: the create hook failed: it changed the label com.docker.swarm.task.id, by which the container is found", nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T) {
				j := newJob(t, dockerexectest.Exit(0), test.option)
				j.run(t.Context())
				require.EqualError(t, j.err, test.err)
				assert.False(t, exec.IsTemporary(j.err))
				if test.cause != nil {
					require.ErrorIs(t, j.err, test.cause)
				}
				assert.Equal(t, api.TaskStateRejected, j.result.State)
				j.assertNothingLeft(t)
			})
		})
	}
}

// commandFailed is the error of a program that a hook has run. It has an exit code, and that
// is not the container's.
type commandFailed struct{}

func (commandFailed) Error() string { return "exit status 4" }
func (commandFailed) ExitCode() int { return 4 }

func TestAnExitCodeOfAHookIsNotTheContainers(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		j := newJob(t, dockerexectest.Exit(0), WithStartHook(func(context.Context, *api.Task, *container.StartOptions) error { return commandFailed{} }))
		j.run(t.Context())
		assert.Equal(t, RunResult{State: api.TaskStateRejected, Reason: "start container web.1.taskid: the start hook failed: exit status 4"}, j.result)
	})
}

// A look that fails once does not end a job that an earlier process has begun.
func TestRunTakesAJobOverInSpiteOfOddAnswers(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]dockerexectest.Fault{
		"500": dockerexectest.Refuse(http.StatusInternalServerError, "odd"), "garbled": dockerexectest.Garble(),
	} {
		for nth := range 4 {
			t.Run(fmt.Sprint(name, " ", nth), func(t *testing.T) {
				t.Parallel()
				bubble(t, func(t *testing.T) {
					j := newJob(t, dockerexectest.ExitAfter(time.Minute, 3))
					first, err := j.client.Adapter(nil, j.task, nil)
					require.NoError(t, err)
					require.NoError(t, first.CreateNetworks(t.Context()))
					require.NoError(t, first.PullImage(t.Context()))
					require.NoError(t, first.Create(t.Context()))
					require.NoError(t, first.Start(t.Context()))
					j.engine.FailNext("GET /containers/*/json", fault)
					for range nth {
						j.engine.FailNext("GET /containers/*/json", fault)
					}
					j.run(t.Context())
					require.EqualError(t, j.err, "task: non-zero exit (3)")
					assert.Equal(t, "exit code 3", j.result.Reason)
					j.assertNothingLeft(t)
				})
			})
		}
	}
}

// The end of the context counts, also beside a fault that would have been waited out.
func TestRunIsStoppedInTheMiddleOfAPassingFault(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		j := newJob(t, dockerexectest.Exit(0), WithCredentials(func(context.Context, string) (registry.AuthConfig, error) {
			cancel()
			return registry.AuthConfig{}, exec.MakeTemporary(errors.New("vault is sealed"))
		}))
		j.run(ctx)
		require.ErrorIs(t, j.err, context.Canceled)
		assert.Equal(t, api.TaskStateShutdown, j.result.State)
		j.assertNothingLeft(t)
	})
}

// What the caller's functions quote of the task's secrets is not shown.
func TestErrorsOfTheCallersFunctionsShowNoSecret(t *testing.T) {
	t.Parallel()
	const secret = "hunter2-very-secret"
	leak := errors.New("cannot use " + secret)
	for name, option := range map[string]Option{
		"create": WithCreateHook(func(context.Context, *api.Task, *container.Config, *container.HostConfig) error { return leak }),
		"start":  WithStartHook(func(context.Context, *api.Task, *container.StartOptions) error { return leak }),
		"credentials": WithCredentials(func(context.Context, string) (registry.AuthConfig, error) {
			return registry.AuthConfig{}, leak
		}),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T) {
				j := newJob(t, dockerexectest.Exit(0), option)
				spec(j.task).Env = []string{"PASSWORD=" + secret}
				j.run(t.Context())
				require.ErrorContains(t, j.err, "cannot use")
				assert.NotContains(t, j.err.Error()+j.result.Reason+j.last.Err, secret)
			})
		})
	}
}

// A publisher that blocks until its context ends leaves time for the removal.
func TestRunRemovesInSpiteOfAPublisherThatBlocks(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		j := newJob(t, dockerexectest.Print(dockerexectest.UntilStopped(0), "one"))
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		_, err := j.client.Run(ctx, j.task, RunOptions{Logs: exec.LogPublisherFunc(func(ctx context.Context, _ api.LogMessage) error {
			<-ctx.Done()
			return ctx.Err()
		})})
		require.Equal(t, context.DeadlineExceeded, err)
		j.assertNothingLeft(t)
	})
}

// A start hook that waits for its context ends with the request time-out.
func TestAStartHookThatHangsEndsWithTheRequestTimeOut(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		j := newJob(t, dockerexectest.Exit(0), WithStartHook(func(ctx context.Context, _ *api.Task, _ *container.StartOptions) error {
			<-ctx.Done()
			return ctx.Err()
		}))
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		j.run(ctx)
		require.ErrorIs(t, j.err, context.DeadlineExceeded)
		assert.Equal(t, api.TaskStateShutdown, j.result.State)
		j.assertNothingLeft(t)
	})
}

// Somebody removes the created container before its start. It is made again, and its log is
// whole.
func TestRunMakesAContainerAgainThatVanishesBeforeItsStart(t *testing.T) {
	t.Parallel()
	completed := []api.TaskState{api.TaskStateRunning, api.TaskStateCompleted}
	for vanishes, want := range map[int][]api.TaskState{1: completed, 3: completed, 4: {api.TaskStateRejected}} {
		t.Run(fmt.Sprint(vanishes), func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T) {
				var j *job
				times := 0
				j = newJob(t, dockerexectest.Print(dockerexectest.ExitAfter(time.Minute, 0), "one"), WithStartHook(func(context.Context, *api.Task, *container.StartOptions) error {
					if times++; times <= vanishes {
						j.engine.Container(taskName).RemoveByHand()
					}
					return nil
				}))
				if vanishes == 3 { // this process has made the container, so an earlier one has not started it
					j.task.Status.State = api.TaskStateStarting
				}
				j.run(t.Context())
				assert.Equal(t, append(lifeOfATask[:2:2], want...), j.states)
				if vanishes <= 3 {
					require.NoError(t, j.err)
					assert.Equal(t, []string{"one\n"}, j.log.text)
				} else {
					require.ErrorContains(t, j.err, "No such container")
				}
				j.assertNothingLeft(t)
			})
		})
	}
}

// The requests for the log get no answer, and the context never ends. The result is known,
// so Run ends without the log.
func TestRunEndsWithoutALogThatHangs(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		ctx, warned := logged(t)
		j := newJob(t, dockerexectest.Print(dockerexectest.ExitAfter(time.Minute, 3), "one"), WithRequestTimeout(time.Minute))
		j.engine.FailAll("GET /containers/*/logs", dockerexectest.Slow(1000*time.Hour))
		began := time.Now()
		j.run(ctx)
		assert.InDelta(t, 3.3, time.Since(began).Minutes(), 0.4, "a minute of the job, and two silences")
		require.EqualError(t, j.err, "task: non-zero exit (3)")
		assert.Equal(t, "exit code 3", j.result.Reason)
		assert.Equal(t, []string{"log stream lost; it will be resumed", "the log of the container is not read to its end"}, warned(logrus.WarnLevel))
		j.assertNothingLeft(t)
	})
}

// While the container runs, a log that is silent is no log that hangs. Nor is the log of an
// engine that is away.
func TestRunWaitsForASilentLog(t *testing.T) {
	t.Parallel()
	const logs = "GET /containers/*/logs"
	for name, disturb := range map[string]func(j *job){
		"the container is silent": func(*job) {},
		"the engine is away": func(j *job) {
			time.AfterFunc(59*time.Minute, j.engine.Down)
			time.AfterFunc(70*time.Minute, j.engine.Up)
		},
		"the engine hangs": func(j *job) {
			time.AfterFunc(59*time.Minute, j.engine.Hang)
			time.AfterFunc(70*time.Minute, j.engine.Resume)
		},
		"an answer takes one minute": func(j *job) { j.engine.FailAll(logs, dockerexectest.Slow(time.Minute)) },
		"there is no time-out": func(j *job) {
			j.client = NewEngine(j.engine.Client(), WithRequestTimeout(0))
			j.engine.FailNext(logs, dockerexectest.Slow(9*time.Hour))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T) {
				j := newJob(t, func(p *dockerexectest.Process) int {
					fmt.Fprintln(p.Stdout, "one")
					p.Sleep(time.Hour)
					fmt.Fprintln(p.Stdout, "two")
					fmt.Fprintln(p.Stdout, "three")
					return 3
				})
				disturb(j)
				j.run(t.Context())
				require.EqualError(t, j.err, "task: non-zero exit (3)")
				assert.Equal(t, []string{"one\n", "two\n", "three\n"}, j.log.text)
			})
		})
	}
}

// A publisher may take longer for each line than a request may take. Nothing is read
// meanwhile, so no log hangs.
func TestRunWaitsForASlowPublisher(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		ctx, warned := logged(t)
		j := newJob(t, dockerexectest.Print(dockerexectest.Exit(3), slices.Repeat([]string{strings.Repeat("x", 4000)}, 40)...),
			WithRequestTimeout(time.Minute))
		j.log.takes = time.Hour
		j.run(ctx)
		require.EqualError(t, j.err, "task: non-zero exit (3)")
		assert.Len(t, j.log.text, 40)
		assert.Empty(t, warned(logrus.WarnLevel))
	})
}

// stuckLogs is an engine whose answers with a log stand still after some bytes.
type stuckLogs struct {
	engineapi.APIClient
	after int64
	all   bool // false: only those with a log that is followed
}

func (c stuckLogs) ContainerLogs(ctx context.Context, name string, o container.LogsOptions) (io.ReadCloser, error) {
	body, err := c.APIClient.ContainerLogs(ctx, name, o)
	if err != nil || !o.Follow && !c.all {
		return body, err
	}
	reader, writer := io.Pipe()
	go func() { _, _ = io.Copy(writer, io.LimitReader(body, c.after)) }()
	return struct {
		io.Reader
		io.Closer
	}{reader, closers{reader, body}}, nil
}

type closers []io.Closer

func (all closers) Close() error {
	for _, c := range all {
		c.Close()
	}
	return nil
}

// An answer that is followed stands still, and never ends. The container's end shows that no
// more must come; a new request brings the rest of the log, and no line twice.
func TestRunReadsTheRestOfALogThatStandsStill(t *testing.T) {
	t.Parallel()
	for _, after := range []int64{1, 20, 60, 1 << 20} {
		t.Run(fmt.Sprint(after), func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T) {
				j := newJob(t, dockerexectest.Print(dockerexectest.ExitAfter(time.Minute, 3), "one", "two", "three"))
				j.client = NewEngine(stuckLogs{j.engine.Client(), after, false}, WithRequestTimeout(time.Minute))
				began := time.Now()
				j.run(t.Context())
				assert.Less(t, time.Since(began), 4*time.Minute)
				require.EqualError(t, j.err, "task: non-zero exit (3)")
				assert.Equal(t, []string{"one\n", "two\n", "three\n"}, j.log.text)
				j.assertNothingLeft(t)
			})
		})
	}
}

// Each answer brings the log's first line again, and then stands still.
func TestRunEndsWithoutTheRestOfALogThatStandsStill(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		ctx, warned := logged(t)
		j := newJob(t, dockerexectest.Print(dockerexectest.ExitAfter(time.Minute, 3), "one", "two", "three"))
		j.client = NewEngine(stuckLogs{j.engine.Client(), 50, true}, WithRequestTimeout(time.Minute))
		began := time.Now()
		j.run(ctx)
		assert.InDelta(t, 3.3, time.Since(began).Minutes(), 0.4)
		require.EqualError(t, j.err, "task: non-zero exit (3)")
		assert.Equal(t, []string{"one\n"}, j.log.text)
		assert.Equal(t, []string{"log stream lost; it will be resumed", "the log of the container is not read to its end"}, warned(logrus.WarnLevel))
	})
}

// What docs/engine-calls.md says that a fake needs for Run, and nothing else.
func TestRunCallsOnlyWhatThePageSays(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		client := newFakeClient(t)
		state := "" // of the container; empty: there is none
		started := container.StateExited
		client.containerInspect = func(context.Context, string) (container.InspectResponse, error) {
			if state == "" {
				return container.InspectResponse{}, cerrdefs.ErrNotFound
			}
			return inspected("c0", state, map[string]string{LabelTaskID: "taskid"}), nil
		}
		client.imagePull = func(context.Context, string, image.PullOptions) (io.ReadCloser, error) {
			return io.NopCloser(strings.NewReader("")), nil
		}
		client.containerCreate = func(context.Context, *container.Config, *container.HostConfig, *network.NetworkingConfig, *ocispec.Platform, string) (container.CreateResponse, error) {
			state = container.StateCreated
			return container.CreateResponse{ID: "c0"}, nil
		}
		client.containerStart = func(context.Context, string, container.StartOptions) error {
			state = started
			return nil
		}
		client.events = func(context.Context, events.ListOptions) (<-chan events.Message, <-chan error) { return nil, nil }
		client.containerStop = func(context.Context, string, container.StopOptions) error {
			state = container.StateExited
			return nil
		}
		client.containerRemove = func(context.Context, string, container.RemoveOptions) error {
			state = ""
			return nil
		}
		result, err := NewEngine(client).Run(t.Context(), plainTask(), RunOptions{})
		require.NoError(t, err)
		assert.Equal(t, api.TaskStateCompleted, result.State)

		started = container.StateRunning // only a container that runs is stopped
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		_, err = NewEngine(client).Run(ctx, plainTask(), RunOptions{})
		require.ErrorIs(t, err, context.DeadlineExceeded)

		var called []string
		for _, call := range client.called() {
			name, _, _ := strings.Cut(call, " ")
			if !slices.Contains(called, name) {
				called = append(called, name)
			}
		}
		assert.Equal(t, []string{
			"ContainerInspect", "ImagePull", "ContainerCreate", "ContainerStart", "Events", "ContainerRemove", "ContainerStop",
		}, called)
	})
}

// One refused look ends the task, and its container runs on. Run does not wait for the rest of
// its log.
func TestRunDoesNotWaitForTheLogOfAContainerThatRuns(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		j := newJob(t, dockerexectest.Print(dockerexectest.ExitAfter(10*time.Hour, 0), "one"))
		time.AfterFunc(time.Minute, func() {
			j.engine.FailNext("GET /containers/*/json", dockerexectest.Refuse(http.StatusForbidden, "forbidden by a proxy"))
		})
		began := time.Now()
		j.run(t.Context())
		assert.Less(t, time.Since(began), 7*time.Minute, "a look comes at least every five minutes and a half")
		require.ErrorContains(t, j.err, "forbidden by a proxy")
		assert.Equal(t, api.TaskStateFailed, j.result.State)
		assert.Equal(t, []string{"one\n"}, j.log.text)
		j.assertNothingLeft(t)
	})
}
