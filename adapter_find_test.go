package dockerexec

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errhttp"
	"github.com/docker/docker/api/types"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/image"
	engineapi "github.com/docker/docker/client"
	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/moby/swarmkit/v2/api"
	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// wrappedSim is an engine with state behind a client that is no fake: it lists its
// containers.
type wrappedSim struct {
	*simEngine
	labelled map[string]bool // images that have the task's label, by the container's ID
	unshown  map[string]bool // images that the engine does not show
}

func newWrappedSim(t testing.TB) wrappedSim {
	return wrappedSim{newSimEngine(t), map[string]bool{}, map[string]bool{}}
}

func (e wrappedSim) Ping(context.Context) (types.Ping, error) {
	return types.Ping{APIVersion: "1.51"}, nil
}
func (wrappedSim) NegotiateAPIVersionPing(types.Ping) {}
func (wrappedSim) ClientVersion() string              { return "1.51" }
func (wrappedSim) DaemonHost() string                 { return "unix:///run/docker.sock" }

func (e wrappedSim) ContainerList(ctx context.Context, options container.ListOptions) ([]container.Summary, error) {
	return simCall(ctx, e.simEngine, "ContainerList", strings.Join(options.Filters.Get("label"), ","), func() ([]container.Summary, error) {
		var list []container.Summary
		for _, c := range e.containers {
			wanted := options.Filters.Get("label")
			if len(wanted) == 1 && wanted[0] == LabelTaskID+"="+c.config.Labels[LabelTaskID] && options.All {
				list = append(list, container.Summary{ID: c.id, Names: []string{"/" + c.name}, Labels: c.config.Labels, ImageID: "image of " + c.id})
			}
		}
		return list, nil
	})
}

func (e wrappedSim) ImageInspect(ctx context.Context, ref string, options ...engineapi.ImageInspectOption) (image.InspectResponse, error) {
	of, isID := strings.CutPrefix(ref, "image of ")
	if !isID {
		return e.simEngine.ImageInspect(ctx, ref, options...)
	}
	return simCall(ctx, e.simEngine, "ImageInspect", ref, func() (image.InspectResponse, error) {
		if e.unshown[of] {
			return image.InspectResponse{}, notFound("No such image: %s", ref)
		}
		text := `{"Config": {"Labels": {"some": "label"}}}`
		if e.labelled[of] {
			text = `{"Config": {"Labels": {"com.docker.swarm.task.id": "taskid"}}}`
		}
		var answer image.InspectResponse
		err := json.Unmarshal([]byte(text), &answer)
		return answer, err
	})
}

// rename gives a container another name, and adds one more with the old name if labels
// are not nil.
func (e wrappedSim) rename(from, to string, labels map[string]string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	c := e.containers[from]
	delete(e.containers, from)
	c.name = to
	e.containers[to] = c
	if labels != nil {
		e.addLocked("successor", from, labels)
	}
}

func (e wrappedSim) addLocked(id, name string, labels map[string]string) {
	e.containers[name] = &simContainer{id: id, name: name, config: container.Config{Labels: labels},
		state: container.State{Status: container.StateRunning, Running: true}}
}

func (e wrappedSim) controller(t testing.TB, task *api.Task) *controller {
	t.Helper()
	made, err := NewEngine(e, WithWrappedClient()).Controller(goldenNode(), task, nil)
	require.NoError(t, err)
	return made.(*controller)
}

// A container that somebody has renamed is still the task's: for the controller that
// made it, and for one that has never seen it. Another container that has its name by
// now is not.
func TestARenamedContainerIsStillTheTasks(t *testing.T) {
	t.Parallel()
	status := func(sim wrappedSim, name string) (status container.ContainerState) {
		sim.with(name, func(c *simContainer) { status = c.state.Status })
		return status
	}
	for name, successor := range map[string]map[string]string{
		"": nil, ", another task's has its name": {LabelTaskID: "other"}, ", a copy has its name and label": ofThisTask,
	} {
		for _, isNew := range []bool{false, true} {
			if isNew && successor[LabelTaskID] == "taskid" {
				continue // a new controller cannot tell
			}
			on := func(operation string, do func(t *testing.T, sim wrappedSim, ctlr *controller)) {
				how := operation
				if isNew {
					how += ", by a new controller"
				}
				t.Run(how+name, func(t *testing.T) {
					t.Parallel()
					bubble(t, func(t *testing.T) {
						sim := newWrappedSim(t)
						task := taskAt(plainTask(), api.TaskStateAccepted)
						ctlr := sim.controller(t, task)
						state := api.TaskStateRunning
						if operation == "Start" {
							state = api.TaskStateReady
						}
						drive(t.Context(), t, task, ctlr, state)
						require.Equal(t, state, task.Status.State, task.Status.Err)
						sim.rename(taskName, "old", successor)
						if isNew {
							ctlr = sim.controller(t, task)
							ctlr.adapter.startLost.Store(false)
						}
						do(t, sim, ctlr)
						if successor != nil {
							assert.EqualValues(t, container.StateRunning, status(sim, taskName))
							sim.with(taskName, func(c *simContainer) { assert.Empty(t, c.signals) })
						}
					})
				})
			}
			on("Shutdown", func(t *testing.T, sim wrappedSim, ctlr *controller) {
				if isNew && successor != nil {
					// The adapter's stop alone does not look first.
					_, err := ctlr.ContainerStatus(t.Context())
					require.NoError(t, err)
				}
				require.NoError(t, ctlr.Shutdown(t.Context()))
				assert.EqualValues(t, container.StateExited, status(sim, "old"))
			})
			on("Terminate", func(t *testing.T, sim wrappedSim, ctlr *controller) {
				if isNew && successor != nil {
					_, err := ctlr.ContainerStatus(t.Context())
					require.NoError(t, err)
				}
				require.NoError(t, ctlr.Terminate(t.Context()))
				sim.with("old", func(c *simContainer) { assert.Len(t, c.signals, 1) })
			})
			on("Remove", func(t *testing.T, sim wrappedSim, ctlr *controller) {
				require.NoError(t, ctlr.Remove(t.Context()))
				assert.NotContains(t, sim.left(), "container old")
			})
			on("Wait", func(t *testing.T, sim wrappedSim, ctlr *controller) {
				time.AfterFunc(time.Minute, func() { sim.exit("old", 5) })
				require.EqualError(t, ctlr.Wait(t.Context()), "task: non-zero exit (5)")
			})
			on("Start", func(t *testing.T, sim wrappedSim, ctlr *controller) {
				require.NoError(t, ctlr.Start(t.Context()))
				assert.EqualValues(t, container.StateRunning, status(sim, "old"))
			})
			on("ContainerStatus", func(t *testing.T, sim wrappedSim, ctlr *controller) {
				seen, err := ctlr.ContainerStatus(t.Context())
				require.NoError(t, err)
				require.NotNil(t, seen)
				sim.with("old", func(c *simContainer) { assert.Equal(t, c.id, seen.ContainerID) })
			})
			on("Logs", func(t *testing.T, sim wrappedSim, ctlr *controller) {
				_, err := ctlr.ContainerStatus(t.Context())
				require.NoError(t, err)
				body, err := ctlr.adapter.Logs(t.Context(), api.LogSubscriptionOptions{})
				require.NoError(t, err)
				body.Close()
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				assert.Equal(t, context.DeadlineExceeded, ctlr.Logs(ctx, &logSink{}, api.LogSubscriptionOptions{Follow: true}))
				sim.with("old", func(c *simContainer) {
					asked := 0
					for _, call := range sim.calls {
						if strings.HasPrefix(call, "ContainerLogs ") {
							assert.Equal(t, "ContainerLogs "+c.id, call)
							asked++
						}
					}
					assert.GreaterOrEqual(t, asked, 2)
				})
			})
			on("Prepare", func(t *testing.T, _ wrappedSim, ctlr *controller) {
				assert.Equal(t, exec.ErrTaskPrepared, ctlr.Prepare(t.Context()))
			})
		}
	}
}

// A container that is gone is not looked for under its own name: another one has it now.
func TestASuccessorOfARemovedContainerIsNotTheTasks(t *testing.T) {
	t.Parallel()
	for name, labels := range map[string]map[string]string{"with its label": ofThisTask, "without": {}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T) {
				sim := newWrappedSim(t)
				task := taskAt(plainTask(), api.TaskStateAccepted)
				ctlr := sim.controller(t, task)
				drive(t.Context(), t, task, ctlr, api.TaskStateRunning)
				sim.rename(taskName, "old", labels)
				sim.mu.Lock()
				delete(sim.containers, "old")
				sim.mu.Unlock()
				assert.Equal(t, ErrContainerDestroyed, ctlr.Wait(t.Context()))
				require.NoError(t, ctlr.Shutdown(t.Context()))
				require.NoError(t, ctlr.Terminate(t.Context()))
				require.NoError(t, ctlr.Remove(t.Context()))
				assert.Equal(t, []string{"container " + taskName}, sim.left())
				sim.with(taskName, func(c *simContainer) { assert.Empty(t, c.signals) })
			})
		})
	}
}

// What has the task's label is not always the task's.
func TestWhatTheLabelProves(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name    string
		happens func(sim wrappedSim) // to the engine, after the container has got the name old
		left    []string             // after a removal by a new controller
		warns   []string
	}{
		{"the container alone", func(wrappedSim) {}, nil, nil},
		{"a copy of it alone", func(sim wrappedSim) { sim.labelled["container-00000001"] = true }, []string{"container old"}, nil},
		{"its image is not shown", func(sim wrappedSim) { sim.unshown["container-00000001"] = true }, []string{"container old"}, nil},
		{"a copy beside it", func(sim wrappedSim) {
			sim.labelled["copy"] = true
			sim.addLocked("copy", "a-copy", ofThisTask)
		}, []string{"container a-copy"}, nil},
		{"one of which nobody knows", func(sim wrappedSim) {
			sim.unshown["copy"] = true
			sim.addLocked("copy", "a-copy", ofThisTask)
		}, []string{"container a-copy"}, nil},
		{"another one with the label", func(sim wrappedSim) { sim.addLocked("container-00000001-too", "a-second", ofThisTask) },
			[]string{"container a-second", "container old"},
			[]string{"containers container-00 and container-00 have the label of this task: it is not certain which one is the task's, none is touched"}},
		{"another task's", func(sim wrappedSim) {
			sim.addLocked("copy", "b", map[string]string{LabelTaskID: "taskid2"})
		}, []string{"container b"}, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T) {
				sim := newWrappedSim(t)
				task := taskAt(plainTask(), api.TaskStateAccepted)
				drive(t.Context(), t, task, sim.controller(t, task), api.TaskStateRunning)
				sim.rename(taskName, "old", nil)
				sim.with("old", func(c *simContainer) { // one ID, whatever was made before
					c.id = "container-00000001"
				})
				sim.mu.Lock()
				test.happens(sim)
				sim.mu.Unlock()
				ctlr := sim.controller(t, task)
				ctlr.adapter.startLost.Store(false)
				ctx, lines := logged(t)
				require.NoError(t, ctlr.Shutdown(ctx))
				require.NoError(t, ctlr.Terminate(ctx))
				require.NoError(t, ctlr.Remove(ctx))
				assert.Equal(t, test.left, sim.left())
				assert.Equal(t, test.warns, lines(logrus.WarnLevel))
				for _, name := range test.left {
					sim.with(strings.TrimPrefix(name, "container "), func(c *simContainer) {
						assert.Empty(t, c.signals)
						assert.True(t, c.state.Running)
					})
				}
			})
		})
	}
}

// While the containers cannot be listed, a 404 is not believed. A list that is refused is
// done without.
func TestARenamedContainerWithoutAList(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		call      string
		err       error
		temporary bool // else there is no error
		warns     []string
	}{
		{"ContainerList", errAway, true, nil},
		{"ContainerList", io.ErrUnexpectedEOF, true, nil},
		{"ContainerList", simError{"busy", cerrdefs.ErrUnavailable}, true, nil},
		{"ContainerList", errFinal, true, nil},
		{"ContainerList", errRefused, false, []string{"containers are not listed (GET /containers/json): a container that has another name is not found"}},
		{"ContainerList", simError{"Method Not Allowed", errhttp.ToNative(http.StatusMethodNotAllowed)}, false, []string{"containers are not listed (GET /containers/json): a container that has another name is not found"}},
		{"ContainerList", notFound("page not found"), false, []string{"containers are not listed (GET /containers/json): a container that has another name is not found"}},
		{"ImageInspect", errAway, true, nil},
		{"ImageInspect", errRefused, false, nil},
		{"ImageInspect", errFinal, false, nil},
	} {
		t.Run(test.call+" "+test.err.Error(), func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T) {
				sim := newWrappedSim(t)
				task := taskAt(plainTask(), api.TaskStateAccepted)
				drive(t.Context(), t, task, sim.controller(t, task), api.TaskStateRunning)
				sim.rename(taskName, "old", nil)
				ctlr := sim.controller(t, task)
				ctlr.adapter.startLost.Store(false)
				sim.fails(failing(test.call, test.err))
				ctx, lines := logged(t)
				err := ctlr.Shutdown(ctx)
				if test.temporary {
					assert.True(t, exec.IsTemporary(err), err)
					require.ErrorContains(t, err, "stop container web.1.taskid: look for it under another name: ")
				} else {
					require.NoError(t, err)
				}
				sim.with("old", func(c *simContainer) { assert.True(t, c.state.Running) })
				assert.Equal(t, test.warns, lines(logrus.WarnLevel))
				sim.fails(nil)
				require.NoError(t, ctlr.Shutdown(ctx))
				sim.with("old", func(c *simContainer) {
					assert.False(t, c.state.Running)
					assert.Len(t, c.signals, 1)
				})
			})
		})
	}
}

// A fake is asked for no list. It is told the name first, and then the ID that it gave.
func TestAFakesRenamedContainer(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		sim := newSimEngine(t) // has no ContainerList
		ctlr, _ := runningTask(t, sim, plainTask())
		wrappedSim{simEngine: sim}.rename(taskName, "old", nil)
		sim.forgetCalls()
		require.NoError(t, ctlr.Shutdown(t.Context()))
		assert.Equal(t, []string{"ContainerStop web.1.taskid", "ContainerStop container-00000001"}, sim.called())
		sim.with("old", func(c *simContainer) { assert.False(t, c.state.Running) })
		require.NoError(t, ctlr.Remove(t.Context()))
		assert.Empty(t, sim.left())
	})
}
