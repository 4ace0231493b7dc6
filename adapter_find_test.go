package dockerexec

import (
	"context"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/moby/swarmkit/v2/api"
	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockerexec/dockerexec/dockerexectest"
)

// renamed is an engine on which the container of plainTask has got the name old since it
// runs, and that container.
func renamed(t *testing.T) (engine *dockerexectest.Engine, old *dockerexectest.Container) {
	t.Helper()
	engine = webEngine(t, dockerexectest.UntilStopped(0))
	reached(t, engine, plainTask(), api.TaskStateRunning)
	old = engine.Container(taskName)
	old.Rename("old")
	return engine, old
}

// freshController is a controller of plainTask that has never seen its container. It looks
// for no lost start, so that each method has to find the container itself.
func freshController(t *testing.T, engine *dockerexectest.Engine) *controller {
	t.Helper()
	ctlr := controllerOn(t, engine, taskAt(plainTask(), api.TaskStateRunning))
	ctlr.adapter.startLost.Store(false)
	return ctlr
}

// A container that somebody has renamed is still the task's: for the controller that
// made it, and for one that has never seen it. Another container that has its name by
// now is not.
func TestARenamedContainerIsStillTheTasks(t *testing.T) {
	t.Parallel()
	for operation, do := range map[string]func(*testing.T, *dockerexectest.Engine, *dockerexectest.Container, *controller){
		"Shutdown": func(t *testing.T, _ *dockerexectest.Engine, old *dockerexectest.Container, ctlr *controller) {
			require.NoError(t, ctlr.Shutdown(t.Context()))
			assert.Equal(t, "exited 0", stateOf(old))
		},
		"Terminate": func(t *testing.T, _ *dockerexectest.Engine, old *dockerexectest.Container, ctlr *controller) {
			require.NoError(t, ctlr.Terminate(t.Context()))
			assert.Equal(t, "exited 137", stateOf(old))
		},
		"Remove": func(t *testing.T, engine *dockerexectest.Engine, _ *dockerexectest.Container, ctlr *controller) {
			require.NoError(t, ctlr.Remove(t.Context()))
			assert.Nil(t, engine.Container("old"))
		},
		"Wait": func(t *testing.T, _ *dockerexectest.Engine, old *dockerexectest.Container, ctlr *controller) {
			time.AfterFunc(time.Minute, func() { old.Exit(5) })
			require.EqualError(t, ctlr.Wait(t.Context()), "task: non-zero exit (5)")
		},
		"Start": func(t *testing.T, _ *dockerexectest.Engine, old *dockerexectest.Container, ctlr *controller) {
			require.NoError(t, ctlr.Start(t.Context()))
			assert.Equal(t, "running 0", stateOf(old))
		},
		"ContainerStatus": func(t *testing.T, _ *dockerexectest.Engine, old *dockerexectest.Container, ctlr *controller) {
			seen, err := ctlr.ContainerStatus(t.Context())
			require.NoError(t, err)
			require.NotNil(t, seen)
			assert.Equal(t, old.ID(), seen.ContainerID)
		},
		"Logs": func(t *testing.T, engine *dockerexectest.Engine, old *dockerexectest.Container, ctlr *controller) {
			_, err := ctlr.ContainerStatus(t.Context())
			require.NoError(t, err)
			body, err := ctlr.adapter.Logs(t.Context(), api.LogSubscriptionOptions{})
			require.NoError(t, err)
			body.Close()
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			assert.Equal(t, context.DeadlineExceeded, ctlr.Logs(ctx, &logSink{}, api.LogSubscriptionOptions{Follow: true}))
			requests := engine.Requests()
			assert.GreaterOrEqual(t, requests.Count("GET /containers/"+old.ID()+"/logs"), 2)
			assert.Equal(t, requests.Count("GET /containers/"+old.ID()+"/logs"), requests.Count("GET /containers/*/logs"))
		},
		"Prepare": func(t *testing.T, _ *dockerexectest.Engine, _ *dockerexectest.Container, ctlr *controller) {
			assert.Equal(t, exec.ErrTaskPrepared, ctlr.Prepare(t.Context()))
		},
	} {
		for name, successor := range map[string]map[string]string{
			"": nil, ", another task's has its name": {LabelTaskID: "other"}, ", a copy has its name and label": ofThisTask,
		} {
			for _, isNew := range []bool{false, true} {
				if isNew && successor[LabelTaskID] == "taskid" {
					continue // a new controller cannot tell
				}
				t.Run(fmt.Sprint(operation, name, ", by a new controller: ", isNew), func(t *testing.T) {
					t.Parallel()
					bubble(t, func(t *testing.T) {
						engine := webEngine(t, dockerexectest.UntilStopped(0))
						state := api.TaskStateRunning
						if operation == "Start" {
							state = api.TaskStateReady
						}
						ctlr, _ := reached(t, engine, plainTask(), state)
						old := engine.Container(taskName)
						old.Rename("old")
						if successor != nil {
							another(t, engine, taskName, "example/web:1", successor)
						}
						if isNew {
							ctlr = freshController(t, engine)
						}
						if isNew && successor != nil && (operation == "Shutdown" || operation == "Terminate") {
							// The adapter's stop alone does not look first.
							_, err := ctlr.ContainerStatus(t.Context())
							require.NoError(t, err)
						}
						engine.ForgetRequests()
						do(t, engine, old, ctlr)
						if successor != nil {
							assert.Equal(t, "running 0", stateOf(engine.Container(taskName)))
						}
					})
				})
			}
		}
	}
}

// stateOf is a container's state with its exit code; nil: it is gone.
func stateOf(c *dockerexectest.Container) string {
	if c == nil {
		return "gone"
	}
	state := c.Inspect().State
	return fmt.Sprint(state.Status, " ", state.ExitCode)
}

// A container that is gone is not looked for under its own name: another one has it now.
func TestASuccessorOfARemovedContainerIsNotTheTasks(t *testing.T) {
	t.Parallel()
	for name, labels := range map[string]map[string]string{"with its label": ofThisTask, "without": {}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T) {
				engine := webEngine(t, dockerexectest.UntilStopped(0))
				ctlr, _ := reached(t, engine, plainTask(), api.TaskStateRunning)
				engine.Container(taskName).RemoveByHand()
				successor := another(t, engine, taskName, "example/web:1", labels)
				assert.Equal(t, ErrContainerDestroyed, ctlr.Wait(t.Context()))
				require.NoError(t, ctlr.Shutdown(t.Context()))
				require.NoError(t, ctlr.Terminate(t.Context()))
				require.NoError(t, ctlr.Remove(t.Context()))
				assert.Same(t, successor, engine.Container(taskName))
				assert.Equal(t, "running 0", stateOf(successor))
			})
		})
	}
}

// What has the task's label is not always the task's.
func TestWhatTheLabelProves(t *testing.T) {
	t.Parallel()
	type kit struct {
		*testing.T
		*dockerexectest.Engine
		old *dockerexectest.Container // the task's
	}
	for name, test := range map[string]struct {
		happens func(kit)
		left    []string // after a removal by a new controller
		warns   bool
	}{
		"the container alone":        {func(kit) {}, nil, false},
		"a copy of it alone":         {func(k kit) { k.old.RemoveByHand(); another(k, k.Engine, "a-copy", "example/copy:1", nil) }, []string{"a-copy"}, false},
		"its image is not shown":     {func(k kit) { k.FailAll("GET /images/*/json", dockerexectest.Refuse(404, "No such image")) }, []string{"old"}, false},
		"a copy beside it":           {func(k kit) { another(k, k.Engine, "a-copy", "example/copy:1", nil) }, []string{"a-copy"}, false},
		"one of which nobody knows":  {func(k kit) { k.AddContainer("a-copy", ofThisTask) }, []string{"a-copy"}, false}, // its image is not there
		"another one with the label": {func(k kit) { another(k, k.Engine, "a-second", "example/web:1", ofThisTask) }, []string{"old", "a-second"}, true},
		"another task's": {func(k kit) {
			another(k, k.Engine, "theirs", "example/web:1", map[string]string{LabelTaskID: "taskid2"})
		}, []string{"theirs"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T) {
				engine, old := renamed(t)
				engine.LocalImage("example/copy:1", dockerexectest.UntilStopped(0), dockerexectest.WithConfig(func(c *container.Config) { c.Labels = ofThisTask }))
				test.happens(kit{t, engine, old})
				ctlr := freshController(t, engine)
				ctx, lines := logged(t)
				require.NoError(t, ctlr.Shutdown(ctx))
				require.NoError(t, ctlr.Terminate(ctx))
				require.NoError(t, ctlr.Remove(ctx))
				var left []string
				for _, c := range engine.Containers() {
					left = append(left, c.Name())
					assert.Equal(t, "running 0", stateOf(c))
				}
				assert.Equal(t, test.left, left)
				var warnings []string
				if test.warns {
					warnings = []string{fmt.Sprintf("containers %s and %s have the label of this task: it is not certain which one is the task's, none is touched",
						engine.Container("a-second").ID()[:12], old.ID()[:12])}
				}
				assert.Equal(t, warnings, lines(logrus.WarnLevel))
			})
		})
	}
}

// While the containers cannot be listed, a 404 is not believed. A list that is refused is
// done without.
func TestARenamedContainerWithoutAList(t *testing.T) {
	t.Parallel()
	const list, image = "GET /containers/json", "GET /images/*/json"
	for name, test := range map[string]struct {
		request   string
		fault     dockerexectest.Fault
		temporary bool // else there is no error
	}{
		"the list is cut off":         {list, dockerexectest.Drop(), true},
		"the list cannot be read":     {list, dockerexectest.Garble(), true},
		"the engine is busy":          {list, dockerexectest.Refuse(http.StatusServiceUnavailable, "busy"), true},
		"the list fails":              {list, dockerexectest.Refuse(http.StatusInternalServerError, "something is wrong"), true},
		"the list is forbidden":       {list, dockerexectest.Refuse(http.StatusForbidden, "authorization denied by plugin guard: no"), false},
		"lists are not allowed":       {list, dockerexectest.Refuse(http.StatusMethodNotAllowed, "Method Not Allowed"), false},
		"there is no such page":       {list, dockerexectest.Refuse(http.StatusNotFound, "page not found"), false},
		"the image is cut off":        {image, dockerexectest.Drop(), true},
		"the image is forbidden":      {image, dockerexectest.Refuse(http.StatusForbidden, "authorization denied by plugin guard: no"), false},
		"the image cannot be told":    {image, dockerexectest.Refuse(http.StatusInternalServerError, "something is wrong"), false},
		"the image's answer is cut":   {image, dockerexectest.CutBody(10), true},
		"the engine is busy, a while": {image, dockerexectest.Refuse(http.StatusServiceUnavailable, "busy"), true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T) {
				engine, old := renamed(t)
				ctlr := freshController(t, engine)
				mend := engine.FailAll(test.request, test.fault)
				ctx, lines := logged(t)
				err := ctlr.Shutdown(ctx)
				if test.temporary {
					assert.True(t, exec.IsTemporary(err), err)
					require.ErrorContains(t, err, "stop container web.1.taskid: look for it under another name: ")
				} else {
					require.NoError(t, err)
				}
				assert.Equal(t, "running 0", stateOf(old))
				var warnings []string
				if test.request == list && !test.temporary {
					warnings = []string{"containers are not listed (GET /containers/json): a container that has another name is not found"}
				}
				assert.Equal(t, warnings, lines(logrus.WarnLevel))
				mend()
				require.NoError(t, ctlr.Shutdown(ctx))
				assert.Equal(t, "exited 0", stateOf(old))
				assert.Equal(t, 1, engine.Requests().Count("POST /containers/"+old.ID()+"/stop"))
			})
		})
	}
}

// A fake is asked for no list. It is told the name first, and then the ID that it gave.
func TestAFakesRenamedContainer(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		engine, _ := onFakeEngine(t, dockerexectest.UntilStopped(0))
		adapter := adapterOf(t, NewEngine(wrappedClient{engine.Client()}), plainTask())
		require.NoError(t, adapter.Create(t.Context()))
		require.NoError(t, adapter.Start(t.Context()))
		old := engine.Container(taskName)
		old.Rename("old")
		engine.ForgetRequests()
		require.NoError(t, adapter.Shutdown(t.Context()))
		assert.Equal(t, []string{"POST /containers/web.1.taskid/stop", "POST /containers/ID/stop"}, asked(engine))
		assert.Equal(t, "exited 0", stateOf(old))
		require.NoError(t, adapter.Remove(t.Context()))
		assert.Empty(t, engine.Containers())
	})
}
