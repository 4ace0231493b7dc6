package dockerexec

import (
	"context"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/events"
	engineapi "github.com/docker/docker/client"
	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/moby/swarmkit/v2/api"
	"github.com/pkg/errors"
	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The pull's error decides, unless the image is on the engine.
func TestPullFallback(t *testing.T) {
	t.Parallel()
	denied := errors.New("pull access denied for example/web")
	linux := []*api.Platform{{OS: "linux", Architecture: "arm64"}}
	for _, test := range []struct {
		name    string
		present bool
		inspect error
		on      []*api.Platform
		want    string
		warned  bool
	}{
		{name: "image on the engine", present: true, warned: true},
		{name: "image not on the engine", want: "pull access denied for example/web"},
		{name: "image of another platform", present: true, on: linux, want: "pull access denied for example/web"},
		{name: "image of the only system, any architecture", present: true, on: []*api.Platform{{OS: "linux"}}, warned: true},
		{name: "image of one of two platforms", present: true, on: []*api.Platform{{Architecture: "arm64"}, {Architecture: "x86_64"}}, warned: true},
		{name: "image not inspected", present: true, inspect: errFinal, want: "pull access denied for example/web"},
		{name: "engine gone", present: true, inspect: errAway, want: "inspect image example/web:1: "},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T) {
				sim := newSimEngine(t)
				sim.pulling = func(context.Context) error { return denied }
				if !test.present {
					delete(sim.images, "example/web:1")
				}
				sim.fails(func(call string) error {
					if strings.HasPrefix(call, "ImageInspect") {
						return test.inspect
					}
					return nil
				})
				task := plainTask()
				task.Spec.Placement = &api.Placement{Platforms: test.on}
				ctlr := newSimController(t, sim, task)
				ctx, lines := logged(t)
				err := ctlr.Prepare(ctx)
				if test.want == "" {
					require.NoError(t, err)
				} else {
					require.ErrorContains(t, err, test.want)
					assert.Equal(t, test.inspect == errAway, exec.IsTemporary(err))
				}
				var warnings []string
				if test.warned {
					warnings = []string{"pull failed, the image on the engine is used instead"}
				}
				assert.Equal(t, warnings, lines(logrus.WarnLevel))
			})
		})
	}
}

func TestPullFallbackSaysWhy(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		sim := newSimEngine(t)
		sim.pulling = func(context.Context) error { return errors.New("unauthorized: token expired") }
		ctlr := newSimController(t, sim, plainTask())
		ctx, hook := hooked(t)
		require.NoError(t, ctlr.Prepare(ctx))
		var warned []*logrus.Entry
		for _, entry := range hook.AllEntries() {
			if entry.Level <= logrus.WarnLevel {
				warned = append(warned, entry)
			}
		}
		require.Len(t, warned, 1)
		assert.ErrorContains(t, warned[0].Data[logrus.ErrorKey].(error), "unauthorized: token expired")
		assert.Equal(t, "example/web:1", warned[0].Data["image"])
		assert.Equal(t, "taskid", warned[0].Data["task.id"])
		assert.Equal(t, "serviceid", warned[0].Data["service.id"])
		assert.Equal(t, "nodeid", warned[0].Data["node.id"])
	})
}

// A network that another task's removal took away is made again, a bounded
// number of times.
func TestVanishedNetworksAreMadeAgain(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name     string
		vanishes int
		want     string
		creates  int
	}{
		{"once", 1, "", 1},
		{"three times", 3, "", 3},
		{"always", 100, "start container web.1.taskid: Error response from daemon: failed to set up container networking: network backend not found", 3},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T) {
				sim := newSimEngine(t)
				ctlr, task := inState(t, sim, api.TaskStateStarting, nil)
				left := test.vanishes
				sim.fails(func(call string) error {
					if strings.HasPrefix(call, "ContainerStart") && left > 0 {
						left--
						sim.mu.Lock()
						delete(sim.networks, "backend")
						sim.mu.Unlock()
					}
					return nil
				})
				sim.forgetCalls()
				err := ctlr.Start(t.Context())
				if test.want == "" {
					require.NoError(t, err)
				} else {
					require.EqualError(t, err, test.want)
				}
				creates := 0
				for _, call := range sim.called() {
					if call == "NetworkCreate backend" {
						creates++
					}
				}
				assert.Equal(t, test.creates, creates)
				task.Status.State = api.TaskStateRunning
				require.NoError(t, ctlr.Remove(t.Context()))
				assert.Empty(t, sim.left())
			})
		})
	}
}

// The same for a container that an interrupted Prepare left without one of its
// networks, as below API 1.44 it may: to the engine that network was not in use.
func TestAVanishedNetworkIsMadeAgainForAnAdoptedContainer(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		sim := newSimEngine(t)
		require.NoError(t, newSimController(t, sim, networkedTask()).Prepare(t.Context()))
		sim.with("web.1.taskid", func(c *simContainer) {
			c.networks = []string{"backend"}
			delete(sim.networks, "frontend")
		})
		sim.forgetCalls()
		ctlr := newSimController(t, sim, taskAt(networkedTask(), api.TaskStatePreparing))
		assert.Equal(t, exec.ErrTaskPrepared, ctlr.Prepare(t.Context()))
		assert.Equal(t, []string{
			"ContainerInspect web.1.taskid", "NetworkConnect frontend",
			"NetworkCreate backend", "NetworkInspect backend", "NetworkCreate frontend",
			"NetworkConnect frontend",
		}, sim.called())
		require.NoError(t, ctlr.Start(t.Context()))
		require.NoError(t, ctlr.Remove(t.Context()))
		assert.Empty(t, sim.left())
	})
}

// An image that somebody has removed since its pull is pulled again, a bounded number of
// times.
func TestAVanishedImageIsPulledAgain(t *testing.T) {
	t.Parallel()
	const digest = "example/web@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	const id = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	for _, test := range []struct {
		name     string
		image    string
		vanishes int
		pullErr  error // of the pulls after the first
		want     string
		pulls    int
		creates  int
		says     string // what the engine says; empty: "No such image"
	}{
		{"once", "example/web:1", 1, nil, "", 2, 2, ""},
		{"a digest", digest, 1, nil, "", 2, 2, ""},
		{"three times", "example/web:1", 3, nil, "", 4, 4, ""},
		{"always", "example/web:1", 100, nil, "create container web.1.taskid: Error response from daemon: No such image: example/web:1", 4, 4, ""},
		{"an ID", id, 100, nil, "create container web.1.taskid: Error response from daemon: No such image: " + id, 0, 1, ""},
		{"and the registry refuses", "example/web:1", 1, simError{"pull access denied for example/web", cerrdefs.ErrPermissionDenied},
			"pull access denied for example/web", 2, 1, ""},
		{"29, its manifest", "example/web:1", 1, nil, "", 2, 2, "NotFound: content digest sha256:64a937f093a1: not found"},
		{"29, its configuration", "example/web:1", 1, nil, "", 2, 2, "failed to read config content: NotFound: content digest sha256:1065bd351a79: not found"},
		{"20.10, pulled for another platform", "example/web:1", 1, nil, "", 2, 2, "image with reference example/web:1 was found but does not match the specified platform: wanted linux/amd64, actual: linux/arm64"},
		{"29, pulled for another platform", "example/web:1", 1, nil, "", 2, 2, "image with reference example/web:1 was found but does not provide the specified platform (linux/amd64)"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T) {
				sim := newSimEngine(t)
				task := networkedTask()
				spec(task).Image = test.image
				ctlr := newSimController(t, sim, taskAt(task, api.TaskStateAccepted))
				pulls, left := 0, test.vanishes
				sim.fails(func(call string) error {
					switch {
					case strings.HasPrefix(call, "ImagePull"):
						if pulls++; pulls > 1 {
							return test.pullErr
						}
					case strings.HasPrefix(call, "ContainerCreate") && left > 0:
						left--
						if test.says != "" {
							return notFound("%s", test.says)
						}
						sim.mu.Lock()
						clear(sim.images)
						sim.mu.Unlock()
					}
					return nil
				})
				err := ctlr.Prepare(t.Context())
				if test.want == "" {
					require.NoError(t, err)
				} else {
					require.ErrorContains(t, err, test.want)
					assert.False(t, exec.IsTemporary(err))
				}
				assert.Equal(t, test.pulls, pulls)
				assert.Equal(t, test.creates, sim.count("ContainerCreate"))
				sim.fails(nil)
				require.NoError(t, ctlr.Remove(t.Context()))
				assert.Empty(t, sim.left())
			})
		})
	}
}

// All that a prune takes at once is made again.
func TestAPruneWithinPrepare(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		sim := newSimEngine(t)
		ctlr := newSimController(t, sim, taskAt(networkedTask(), api.TaskStateAccepted))
		pruned := false
		sim.fails(func(call string) error {
			if strings.HasPrefix(call, "ContainerCreate") && !pruned {
				pruned = true
				sim.mu.Lock()
				clear(sim.images)
				clear(sim.networks)
				sim.mu.Unlock()
			}
			return nil
		})
		require.NoError(t, ctlr.Prepare(t.Context()))
		require.NoError(t, ctlr.Start(t.Context()))
		require.NoError(t, ctlr.Remove(t.Context()))
		assert.Empty(t, sim.left())
	})
}

// A container that vanishes before it has joined its networks is created again; in each
// case below it is removed at the first connect.
func TestAContainerThatVanishesWithinPrepareIsCreatedAgain(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name  string
		state api.TaskState
	}{{"found by the create", api.TaskStateAccepted}, {"found before the create", api.TaskStatePreparing}} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T) {
				sim := newSimEngine(t)
				require.NoError(t, newSimController(t, sim, networkedTask()).Prepare(t.Context()))
				sim.with(taskName, func(c *simContainer) { c.networks = []string{"backend"} })
				sim.fails(func(call string) error {
					if strings.HasPrefix(call, "NetworkConnect") {
						sim.mu.Lock()
						defer sim.mu.Unlock()
						clear(sim.containers)
					}
					return nil
				})
				ctlr := newSimController(t, sim, taskAt(networkedTask(), test.state))
				require.NoError(t, ctlr.Prepare(t.Context()))
				sim.with(taskName, func(c *simContainer) { assert.Equal(t, []string{"backend", "frontend"}, c.networks) })
				require.NoError(t, ctlr.Start(t.Context()))
				require.NoError(t, ctlr.Remove(t.Context()))
				assert.Empty(t, sim.left())
			})
		})
	}
}

// A container that somebody removes before its start is made again with all that it needs,
// a bounded number of times.
func TestAContainerThatVanishesBeforeItsStartIsMadeAgain(t *testing.T) {
	t.Parallel()
	for _, call := range []string{"ContainerInspect", "ContainerStart"} {
		for vanishes, want := range map[int]api.TaskState{1: api.TaskStateRunning, 3: api.TaskStateRunning, 100: api.TaskStateFailed} {
			t.Run(fmt.Sprint(call, " ", vanishes), func(t *testing.T) {
				t.Parallel()
				bubble(t, func(t *testing.T) {
					sim := newSimEngine(t)
					ctlr, task := inState(t, sim, api.TaskStateStarting, nil)
					left := vanishes
					sim.fails(func(made string) error {
						sim.mu.Lock()
						defer sim.mu.Unlock()
						if strings.HasPrefix(made, call) && left > 0 && len(sim.containers) > 0 {
							left--
							clear(sim.containers)
							clear(sim.images)
							clear(sim.networks)
						}
						return nil
					})
					status, err := exec.Do(t.Context(), task, ctlr)
					require.NoError(t, err)
					assert.Equal(t, want, status.State)
					if want == api.TaskStateFailed {
						assert.Contains(t, status.Err, "container web.1.taskid: Error response from daemon: No such container: ")
					}
					assert.Equal(t, min(vanishes, 3)+1, sim.count("ContainerCreate"))
					sim.fails(nil)
					require.NoError(t, ctlr.Remove(t.Context()))
					assert.Empty(t, sim.left())
				})
			})
		}
	}
}

// A task runs once: what may have been started is not made again.
func TestAContainerThatVanishesAfterAStartIsNotMadeAgain(t *testing.T) {
	t.Parallel()
	for name, begin := range map[string]func(*testing.T, *simEngine) *controller{
		"an earlier process may have started it": func(t *testing.T, sim *simEngine) *controller {
			_, task := inState(t, sim, api.TaskStateStarting, nil)
			return newSimController(t, sim, task)
		},
		"its start had no answer": func(t *testing.T, sim *simEngine) *controller {
			ctlr, _ := inState(t, sim, api.TaskStateStarting, nil)
			sim.fails(failing("ContainerStart", io.ErrUnexpectedEOF))
			require.ErrorIs(t, ctlr.Start(t.Context()), io.ErrUnexpectedEOF)
			return ctlr
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T) {
				sim := newSimEngine(t)
				ctlr := begin(t, sim)
				sim.fails(nil)
				sim.mu.Lock()
				clear(sim.containers)
				sim.mu.Unlock()
				require.EqualError(t, ctlr.Start(t.Context()), "inspect container web.1.taskid: Error response from daemon: No such container: web.1.taskid")
				assert.Equal(t, 1, sim.count("ContainerCreate"))
			})
		})
	}
}

// The start's 404 is about a network or about the container only if it says so.
func TestAStartThatMissesSomethingElseIsNotRepaired(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		sim := newSimEngine(t)
		ctlr, _ := inState(t, sim, api.TaskStateStarting, nil)
		sim.fails(failing("ContainerStart", notFound("get data: no such volume")))
		sim.forgetCalls()
		err := ctlr.Start(t.Context())
		require.EqualError(t, err, "start container web.1.taskid: Error response from daemon: get data: no such volume")
		assert.Equal(t, []string{"ContainerInspect web.1.taskid", "ContainerStart web.1.taskid", "ContainerStart container-00000002"}, sim.called())
	})
}

// slowCreate has the engine reserve the container's name at the first create, not
// answer that in time, and show the container only after a time.
func slowCreate(sim *simEngine, after time.Duration) {
	began := false
	sim.fails(func(call string) error {
		if !strings.HasPrefix(call, "ContainerCreate") {
			return nil
		}
		if began {
			return conflict(`Conflict. The container name "/%s" is already in use by container "0123456789ab". You have to remove (or rename) that container to be able to reuse that name.`, taskName)
		}
		began = true
		time.AfterFunc(after, func() {
			sim.mu.Lock()
			defer sim.mu.Unlock()
			sim.containers[taskName] = &simContainer{id: "0123456789ab", name: taskName,
				config: container.Config{Labels: map[string]string{LabelTaskID: "taskid"}},
				state:  container.State{Status: container.StateCreated}}
		})
		time.Sleep(2 * time.Minute) // as long as a request may take
		return context.DeadlineExceeded
	})
}

// An engine shows a container only at the end of its create, which may copy much
// into volumes.
func TestACreateThatTakesLongerThanARequest(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		sim := newSimEngine(t)
		task := taskAt(plainTask(), api.TaskStateAccepted)
		ctlr := newSimController(t, sim, task)
		slowCreate(sim, 3*time.Minute)
		began := time.Now()
		drive(t.Context(), t, task, ctlr, api.TaskStateReady)
		assert.Equal(t, api.TaskStateReady, task.Status.State, task.Status.Err)
		assert.GreaterOrEqual(t, time.Since(began), 3*time.Minute)
		assert.Less(t, time.Since(began), 3*time.Minute+10*time.Second)
		require.NoError(t, ctlr.Remove(t.Context()))
		assert.Empty(t, sim.left())
	})
}

func TestTheTriesOfACreateAreSpaced(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		sim := newSimEngine(t)
		ctlr := newSimController(t, sim, plainTask())
		sim.fails(failing("ContainerCreate", conflict(`Conflict. The container name "/web.1.taskid" is already in use by container "abc".`)))
		began := time.Now()
		err := ctlr.adapter.Create(t.Context())
		assert.True(t, exec.IsTemporary(err))
		assert.GreaterOrEqual(t, time.Since(began), 2*burstWindow)
		assert.LessOrEqual(t, time.Since(began), 2*burstWindow+300*time.Millisecond)
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		assert.Equal(t, context.DeadlineExceeded, ctlr.adapter.Create(ctx))
	})
}

// What fails before the engine is asked leaves nothing to look for.
func TestRemoveLooksForNoCreateThatWasNotSent(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		sim := newSimEngine(t)
		ctlr := newSimController(t, sim, plainTask())
		known := ctlr.adapter.fullTask
		ctlr.adapter.fullTask = func() (*containerConfig, payloads, error) {
			if len(sim.called()) == 0 {
				return known()
			}
			return nil, payloads{}, exec.MakeTemporary(errNodeUnknown)
		}
		require.True(t, exec.IsTemporary(ctlr.Prepare(t.Context())))
		sim.forgetCalls()
		began := time.Now()
		require.NoError(t, ctlr.Remove(t.Context()))
		assert.Zero(t, time.Since(began))
		assert.NotContains(t, sim.called(), "ContainerCreate web.1.taskid")
	})
}

// A removal that is tried again does not look for the container each time.
func TestRemoveLooksForALostCreateOnce(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		sim := newSimEngine(t)
		task := plainTask()
		attach(task, "n1", "10.1.0.0/24")
		ctlr := newSimController(t, sim, task)
		slowCreate(sim, 1000*time.Hour)
		require.True(t, exec.IsTemporary(ctlr.Prepare(t.Context())))
		tries := 0
		sim.fails(func(call string) error {
			if strings.HasPrefix(call, "NetworkRemove ") {
				if tries++; tries <= 3 {
					return errAway
				}
			}
			return nil
		})
		began := time.Now()
		require.NoError(t, ctlr.Remove(t.Context()))
		assert.Equal(t, 4, tries)
		assert.GreaterOrEqual(t, time.Since(began), 5*time.Second)
		assert.Less(t, time.Since(began), 9*time.Second) // with the pauses between the tries
	})
}

func TestRemoveLooksForALostCreate(t *testing.T) {
	t.Parallel()
	lose := func(t *testing.T, sim *simEngine, after time.Duration) *controller {
		ctlr := newSimController(t, sim, plainTask())
		slowCreate(sim, after)
		err := ctlr.Prepare(t.Context())
		require.True(t, exec.IsTemporary(err), err)
		return ctlr
	}
	t.Run("comes", func(t *testing.T) {
		t.Parallel()
		bubble(t, func(t *testing.T) {
			sim := newSimEngine(t)
			ctlr := lose(t, sim, 2*time.Minute+4500*time.Millisecond)
			began := time.Now()
			require.NoError(t, ctlr.Remove(t.Context()))
			assert.Equal(t, 5*time.Second, time.Since(began))
			time.Sleep(time.Hour)
			assert.Empty(t, sim.left())
		})
	})
	t.Run("does not come", func(t *testing.T) {
		t.Parallel()
		bubble(t, func(t *testing.T) {
			sim := newSimEngine(t)
			ctlr := lose(t, sim, 1000*time.Hour)
			began := time.Now()
			require.NoError(t, ctlr.Remove(t.Context()))
			assert.Equal(t, 5*time.Second, time.Since(began))
		})
	})
	t.Run("the context ends", func(t *testing.T) {
		t.Parallel()
		bubble(t, func(t *testing.T) {
			sim := newSimEngine(t)
			ctlr := lose(t, sim, 1000*time.Hour)
			ctx, cancel := context.WithTimeout(t.Context(), 1500*time.Millisecond)
			defer cancel()
			assert.Equal(t, context.DeadlineExceeded, ctlr.Remove(ctx))
		})
	})
	t.Run("the create was refused", func(t *testing.T) {
		t.Parallel()
		bubble(t, func(t *testing.T) {
			sim := newSimEngine(t)
			ctlr := newSimController(t, sim, plainTask())
			sim.fails(failing("ContainerCreate", errRefused))
			require.Error(t, ctlr.Prepare(t.Context()))
			sim.fails(nil)
			began := time.Now()
			require.NoError(t, ctlr.Remove(t.Context()))
			assert.Zero(t, time.Since(began))
		})
	})
	t.Run("a later create was answered", func(t *testing.T) {
		t.Parallel()
		bubble(t, func(t *testing.T) {
			sim := newSimEngine(t)
			task := plainTask()
			task.Annotations.Name = "web"
			ctlr := newSimController(t, sim, task)
			sim.fails(failing("ContainerCreate", io.ErrUnexpectedEOF))
			require.Error(t, ctlr.Prepare(t.Context()))
			sim.fails(nil)
			require.NoError(t, ctlr.Prepare(t.Context()))
			require.NoError(t, ctlr.adapter.Remove(t.Context()))
			began := time.Now()
			require.NoError(t, ctlr.Remove(t.Context()))
			assert.Zero(t, time.Since(began))
		})
	})
}

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
		ctlr.adapter.fullTask = func() (*containerConfig, payloads, error) {
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

// An engine that does not speak the client's version has carried out nothing: neither a
// start nor a create is looked for.
func TestACallOfARefusedVersionIsNotLost(t *testing.T) {
	t.Parallel()
	tooOld := simError{"client version 1.43 is too old. Minimum supported API version is 1.44, please upgrade your client to a newer version", cerrdefs.ErrInvalidArgument}
	for _, call := range []string{"ContainerCreate", "ContainerStart"} {
		bubble(t, func(t *testing.T) {
			sim := newSimEngine(t)
			ctlr := newSimController(t, sim, plainTask())
			sim.fails(failing(call, tooOld))
			err := ctlr.Prepare(t.Context())
			if call == "ContainerStart" {
				require.NoError(t, err)
				err = ctlr.Start(t.Context())
			}
			require.True(t, exec.IsTemporary(err), err)
			sim.fails(nil)
			began := time.Now()
			require.NoError(t, ctlr.Remove(t.Context()))
			assert.Zero(t, time.Since(began), call)
		})
	}
}
