package dockerexec

import (
	"context"
	"io"
	"strings"
	"testing"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/events"
	engineapi "github.com/docker/docker/client"
	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/moby/swarmkit/v2/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// What engines answer to the start of a container whose earlier start they lost.
var lostStartAnswers = map[string]string{
	"29, a task that did not start":    "failed to create task for container: AlreadyExists: task f05456eb9f936ff0f0dc3122173aedffef4e9cfe5959d26b0db651a5c3138e37: already exists",
	"20.10, a task that did not start": "task cf4c5151fe16ae8cd35bb0e8086af6b463070232b5337b14b61f9576afd7b1e8: already exists",
	"20.10, a task that runs":          "id already in use",
	"a bundle that is there":           "mkdir /run/docker/containerd/daemon/io.containerd.runtime.v2.task/moby/cf4c5151fe16: file exists",
}

// comesToLife has the engine hear of a lost start after a time.
func comesToLife(sim *simEngine, after time.Duration) {
	time.AfterFunc(after, func() {
		sim.mu.Lock()
		defer sim.mu.Unlock()
		c := sim.containers[taskName]
		if c == nil {
			return
		}
		c.state = container.State{Status: container.StateRunning, Running: true, StartedAt: "0001-01-01T00:00:00Z", FinishedAt: "0001-01-01T00:00:00Z"}
		sim.emit(c, events.ActionStart)
	})
}

// An ordinary answer that has words of a lost start in it.
func TestAnAnswerThatIsNoLostStart(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		"error while creating mount source path '/mnt/x': mkdir /mnt/x: file exists",
		"network web already exists",
	} {
		assert.False(t, isLostStart(simError{text, cerrdefs.ErrInternal}), text)
	}
}

// A Start that fails before the engine is asked leaves nothing to wait for.
func TestShutdownWaitsForNoStartThatWasNotSent(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		sim, ctlr := preparedTask(t)
		ctlr.adapter.late = func() (*containerConfig, payloads, error) {
			return nil, payloads{}, exec.MakeTemporary(errNodeUnknown)
		}
		require.True(t, exec.IsTemporary(ctlr.Start(t.Context())))
		assert.NotContains(t, sim.called(), "ContainerStart web.1.taskid")
		began := time.Now()
		require.NoError(t, ctlr.Shutdown(t.Context()))
		assert.Zero(t, time.Since(began))
	})
}

// preparedTask is one that is about to be started.
func preparedTask(t *testing.T) (*simEngine, *controller) {
	t.Helper()
	sim := newSimEngine(t)
	ctlr := newSimController(t, sim, plainTask())
	require.NoError(t, ctlr.Prepare(t.Context()))
	sim.forgetCalls()
	return sim, ctlr
}

func runsNot(t *testing.T, sim *simEngine) {
	t.Helper()
	time.Sleep(time.Hour)
	sim.busy.Wait()
	sim.mu.Lock()
	defer sim.mu.Unlock()
	for name, c := range sim.containers {
		assert.False(t, c.state.Running, name)
	}
}

const strayStopped = "start container web.1.taskid: the engine ended within it; the container ran without network and log, and was stopped"

func TestAStartThatTheEngineLost(t *testing.T) {
	t.Parallel()
	for name, answer := range lostStartAnswers {
		t.Run(name+", comes to life", func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T) {
				sim, ctlr := preparedTask(t)
				sim.fails(failing("ContainerStart", simError{answer, cerrdefs.ErrInternal}))
				comesToLife(sim, 15*time.Second)
				began := time.Now()
				require.EqualError(t, ctlr.Start(t.Context()), strayStopped)
				assert.GreaterOrEqual(t, time.Since(began), 15*time.Second)
				assert.LessOrEqual(t, time.Since(began), 16*time.Second)
				sim.with(taskName, func(c *simContainer) { assert.Equal(t, container.StateExited, c.state.Status) })
			})
		})
		t.Run(name+", does not", func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T) {
				sim, ctlr := preparedTask(t)
				sim.fails(failing("ContainerStart", simError{answer, cerrdefs.ErrInternal}))
				began := time.Now()
				require.EqualError(t, ctlr.Start(t.Context()), "start container web.1.taskid: Error response from daemon: "+answer)
				assert.Equal(t, 20*time.Second, time.Since(began))
				began = time.Now()
				require.NoError(t, ctlr.Shutdown(t.Context())) // does not wait again
				assert.Zero(t, time.Since(began))
			})
		})
	}
	t.Run("the context ends", func(t *testing.T) {
		t.Parallel()
		bubble(t, func(t *testing.T) {
			sim, ctlr := preparedTask(t)
			sim.fails(failing("ContainerStart", simError{"id already in use", cerrdefs.ErrInternal}))
			ctx, cancel := context.WithTimeout(t.Context(), 1500*time.Millisecond)
			defer cancel()
			began := time.Now()
			assert.Equal(t, context.DeadlineExceeded, ctlr.Start(ctx))
			assert.Equal(t, 1500*time.Millisecond, time.Since(began))
		})
	})
	t.Run("the engine goes away meanwhile", func(t *testing.T) {
		t.Parallel()
		bubble(t, func(t *testing.T) {
			sim, ctlr := preparedTask(t)
			sim.fails(failing("ContainerStart", simError{"id already in use", cerrdefs.ErrInternal}))
			time.AfterFunc(5500*time.Millisecond, func() { sim.fails(func(string) error { return errAway }) })
			assert.True(t, exec.IsTemporary(ctlr.Start(t.Context())))
			sim.fails(nil)
			comesToLife(sim, 15*time.Second)
			require.NoError(t, ctlr.Shutdown(t.Context()))
			runsNot(t, sim)
		})
	})
	t.Run("it is stopped whatever that takes", func(t *testing.T) {
		t.Parallel()
		bubble(t, func(t *testing.T) {
			sim, ctlr := preparedTask(t)
			comesToLife(sim, 0)
			time.Sleep(time.Second)
			sim.fails(failing("ContainerStop", errNoExitEvent))
			time.AfterFunc(time.Minute, func() { sim.fails(nil) })
			require.EqualError(t, ctlr.Start(t.Context()), strayStopped)
			runsNot(t, sim)
		})
	})
	t.Run("it came to life before the second start", func(t *testing.T) {
		t.Parallel()
		bubble(t, func(t *testing.T) {
			sim, ctlr := preparedTask(t)
			comesToLife(sim, 0)
			time.Sleep(time.Second)
			require.EqualError(t, ctlr.Start(t.Context()), strayStopped)
			runsNot(t, sim)
		})
	})
	t.Run("another error does not wait", func(t *testing.T) {
		t.Parallel()
		bubble(t, func(t *testing.T) {
			sim, ctlr := preparedTask(t)
			sim.fails(failing("ContainerStart", simError{"driver failed programming external connectivity: port is already allocated", cerrdefs.ErrInternal}))
			began := time.Now()
			require.Error(t, ctlr.Start(t.Context()))
			require.NoError(t, ctlr.Shutdown(t.Context()))
			assert.Zero(t, time.Since(began))
		})
	})
}

// ends are the ways to end a task.
var ends = []struct {
	name string
	call func(*controller, context.Context) error
	left []string
}{
	{"Shutdown", (*controller).Shutdown, []string{"container web.1.taskid"}},
	{"Terminate", (*controller).Terminate, []string{"container web.1.taskid"}},
	{"Remove", (*controller).Remove, nil},
}

// Nothing comes to life under a task that has ended or was removed.
func TestAnEndWatchesForALostStart(t *testing.T) {
	t.Parallel()
	noAnswer := simError{"Unavailable: error reading from server: EOF", cerrdefs.ErrUnavailable}
	for _, end := range ends {
		for _, test := range []struct {
			name string
			ctlr func(*testing.T, *simEngine, *controller) *controller
		}{
			{"the start was cut off", func(t *testing.T, sim *simEngine, ctlr *controller) *controller {
				sim.fails(failing("ContainerStart", io.ErrUnexpectedEOF))
				assert.True(t, exec.IsTemporary(ctlr.Start(t.Context())))
				return ctlr
			}},
			{"the engine may never have heard of it", func(t *testing.T, sim *simEngine, ctlr *controller) *controller {
				sim.fails(failing("ContainerStart", engineapi.ErrorConnectionFailed(""))) //nolint:staticcheck // as the client has it, also when an answer is cut off
				assert.True(t, exec.IsTemporary(ctlr.Start(t.Context())))
				return ctlr
			}},
			{"containerd ended within the start", func(t *testing.T, sim *simEngine, ctlr *controller) *controller {
				sim.fails(failing("ContainerStart", noAnswer))
				assert.True(t, exec.IsTemporary(ctlr.Start(t.Context())))
				return ctlr
			}},
			{"then the engine was away", func(t *testing.T, sim *simEngine, ctlr *controller) *controller {
				sim.fails(failing("ContainerStart", io.ErrUnexpectedEOF))
				assert.True(t, exec.IsTemporary(ctlr.Start(t.Context())))
				sim.fails(func(string) error { return errAway })
				assert.True(t, exec.IsTemporary(ctlr.Start(t.Context())))
				return ctlr
			}},
			{"it was answered too late", func(t *testing.T, sim *simEngine, ctlr *controller) *controller {
				sim.fails(func(call string) error {
					if strings.HasPrefix(call, "ContainerStart") {
						time.Sleep(time.Hour)
						return context.DeadlineExceeded
					}
					return nil
				})
				assert.True(t, exec.IsTemporary(ctlr.Start(t.Context())))
				return ctlr
			}},
			{"an earlier process was starting it", func(t *testing.T, sim *simEngine, _ *controller) *controller {
				return newSimController(t, sim, taskAt(plainTask(), api.TaskStateStarting))
			}},
			{"an earlier process has started it", func(t *testing.T, sim *simEngine, _ *controller) *controller {
				return newSimController(t, sim, taskAt(plainTask(), api.TaskStateRunning))
			}},
		} {
			t.Run(end.name+", "+test.name, func(t *testing.T) {
				t.Parallel()
				bubble(t, func(t *testing.T) {
					sim, first := preparedTask(t)
					ctlr := test.ctlr(t, sim, first)
					sim.fails(nil)
					comesToLife(sim, 15*time.Second)
					began := time.Now()
					require.NoError(t, end.call(ctlr, t.Context()))
					assert.GreaterOrEqual(t, time.Since(began), 15*time.Second)
					runsNot(t, sim)
					assert.Equal(t, end.left, sim.left())
				})
				bubble(t, func(t *testing.T) { // nothing comes
					sim, first := preparedTask(t)
					ctlr := test.ctlr(t, sim, first)
					sim.fails(nil)
					began := time.Now()
					require.NoError(t, end.call(ctlr, t.Context()))
					assert.Equal(t, 20*time.Second, time.Since(began))
					assert.Equal(t, end.left, sim.left())
				})
			})
		}
		t.Run(end.name+" within a start", func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T) {
				sim, ctlr := preparedTask(t)
				sim.fails(func(call string) error {
					if strings.HasPrefix(call, "ContainerStart") {
						time.Sleep(time.Minute)
						return io.ErrUnexpectedEOF
					}
					return nil
				})
				start := asynchronously(func() error { return ctlr.Start(t.Context()) })
				time.Sleep(time.Second)
				comesToLife(sim, time.Minute+10*time.Second)
				require.NoError(t, end.call(ctlr, t.Context()))
				assert.Equal(t, context.Canceled, start())
				runsNot(t, sim)
				assert.Equal(t, end.left, sim.left())
			})
		})
		t.Run(end.name+", gone meanwhile", func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T) {
				sim, _ := preparedTask(t)
				ctlr := newSimController(t, sim, taskAt(plainTask(), api.TaskStateStarting))
				time.AfterFunc(5500*time.Millisecond, func() {
					sim.mu.Lock()
					defer sim.mu.Unlock()
					delete(sim.containers, taskName)
				})
				began := time.Now()
				require.NoError(t, end.call(ctlr, t.Context()))
				assert.Equal(t, 6*time.Second, time.Since(began))
			})
		})
		t.Run(end.name+", it has come to life and ended", func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T) {
				sim, _ := preparedTask(t)
				ctlr := newSimController(t, sim, taskAt(plainTask(), api.TaskStateStarting))
				sim.with(taskName, func(c *simContainer) { // as engines have it then
					c.state = container.State{Status: container.StateCreated, StartedAt: "0001-01-01T00:00:00Z", FinishedAt: "2026-11-24T02:37:48.188748557Z"}
				})
				began := time.Now()
				require.NoError(t, end.call(ctlr, t.Context()))
				assert.Zero(t, time.Since(began))
			})
		})
		t.Run(end.name+", ended with its context", func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T) {
				sim, _ := preparedTask(t)
				ctlr := newSimController(t, sim, taskAt(plainTask(), api.TaskStateStarting))
				ctx, cancel := context.WithTimeout(t.Context(), 1500*time.Millisecond)
				defer cancel()
				assert.Equal(t, context.DeadlineExceeded, end.call(ctlr, ctx))
				began := time.Now()
				require.NoError(t, end.call(ctlr, t.Context()))
				assert.Equal(t, 20*time.Second, time.Since(began))
				assert.Equal(t, end.left, sim.left())
			})
		})
	}
}

// What was surely not started is not watched.
func TestAnEndDoesNotWaitInVain(t *testing.T) {
	t.Parallel()
	for _, end := range ends {
		for name, ctlr := range map[string]func(*testing.T, *simEngine, *controller) *controller{
			"never started": func(_ *testing.T, _ *simEngine, ctlr *controller) *controller { return ctlr },
			"started": func(t *testing.T, sim *simEngine, ctlr *controller) *controller {
				require.NoError(t, ctlr.Start(t.Context()))
				sim.exit(taskName, 0)
				return ctlr
			},
			"started after a start that was cut off": func(t *testing.T, sim *simEngine, ctlr *controller) *controller {
				sim.fails(failing("ContainerStart", io.ErrUnexpectedEOF))
				assert.True(t, exec.IsTemporary(ctlr.Start(t.Context())))
				sim.fails(nil)
				require.NoError(t, ctlr.Start(t.Context()))
				return ctlr
			},
			"taken up before its start": func(t *testing.T, sim *simEngine, _ *controller) *controller {
				return newSimController(t, sim, taskAt(plainTask(), api.TaskStateReady))
			},
			"taken up after its end": func(t *testing.T, sim *simEngine, _ *controller) *controller {
				return newSimController(t, sim, taskAt(plainTask(), api.TaskStateFailed))
			},
		} {
			t.Run(end.name+", "+name, func(t *testing.T) {
				t.Parallel()
				bubble(t, func(t *testing.T) {
					sim, first := preparedTask(t)
					ctlr := ctlr(t, sim, first)
					sim.forgetCalls()
					began := time.Now()
					require.NoError(t, end.call(ctlr, t.Context()))
					assert.Zero(t, time.Since(began))
					if end.name != "Remove" {
						assert.Len(t, sim.called(), 1)
					}
				})
			})
		}
	}
}
