package dockerexec

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/docker/docker/api/types/image"
	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/moby/swarmkit/v2/api"
	"github.com/moby/swarmkit/v2/log"
	"github.com/pkg/errors"
	"github.com/sirupsen/logrus"
	logrustest "github.com/sirupsen/logrus/hooks/test"
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

// The start's 404 is about a network only if it says so.
func TestAStartWithoutAContainerIsNotRepaired(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		sim := newSimEngine(t)
		sim.images["example/web:1"] = image.InspectResponse{}
		ctlr, _ := inState(t, sim, api.TaskStateStarting, nil)
		sim.fails(func(call string) error {
			if strings.HasPrefix(call, "ContainerStart") {
				return notFound("No such container: web.1.taskid")
			}
			return nil
		})
		sim.forgetCalls()
		err := ctlr.Start(t.Context())
		require.EqualError(t, err, "start container web.1.taskid: Error response from daemon: No such container: web.1.taskid")
		assert.Equal(t, []string{"ContainerInspect web.1.taskid", "ContainerStart web.1.taskid"}, sim.called())
	})
}

// hooked returns a context with a logger of its own, and what it logs.
func hooked(t testing.TB) (context.Context, *logrustest.Hook) {
	logger, hook := logrustest.NewNullLogger()
	return log.WithLogger(t.Context(), logrus.NewEntry(logger)), hook
}
