package dockerexec

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/api/types/mount"
	"github.com/docker/go-connections/nat"
	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/moby/swarmkit/v2/api"
	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockerexec/dockerexec/dockerexectest"
)

// The pull's error decides, unless the image is on the engine.
func TestPullFallback(t *testing.T) {
	t.Parallel()
	const denied = "pull access denied for example/web"
	for _, test := range []struct {
		name    string
		absent  bool
		inspect dockerexectest.Fault
		on      []*api.Platform
		want    string // empty: a warning that has the pull's error
		passing bool
	}{
		{name: "image on the engine"},
		{name: "image not on the engine", absent: true, want: denied},
		{name: "image of another platform", on: []*api.Platform{{OS: "linux", Architecture: "arm64"}}, want: denied},
		{name: "image of the only system, any architecture", on: []*api.Platform{{OS: "linux"}}},
		{name: "image of one of two platforms", on: []*api.Platform{{Architecture: "arm64"}, {Architecture: "x86_64"}}},
		{name: "image not inspected", inspect: dockerexectest.Refuse(500, "something is wrong"), want: denied},
		{name: "engine gone", inspect: dockerexectest.Drop(), want: "inspect image example/web:1: ", passing: true},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T) {
				engine := dockerexectest.New(t)
				if !test.absent {
					engine.LocalImage("example/web:1", obedient)
				}
				engine.FailAll("GET /images/*/json", test.inspect)
				task := plainTask()
				task.Spec.Placement = &api.Placement{Platforms: test.on}
				ctx, hook := hooked(t)
				err := controllerOn(t, engine, task).Prepare(ctx)
				warned := slices.DeleteFunc(hook.AllEntries(), func(e *logrus.Entry) bool { return e.Level > logrus.WarnLevel })
				if test.want != "" {
					require.ErrorContains(t, err, test.want)
					assert.Equal(t, test.passing, exec.IsTemporary(err))
					assert.Empty(t, warned)
					return
				}
				require.NoError(t, err)
				require.Len(t, warned, 1)
				assert.Equal(t, "pull failed, the image on the engine is used instead", warned[0].Message)
				require.ErrorContains(t, warned[0].Data[logrus.ErrorKey].(error), denied)
				delete(warned[0].Data, logrus.ErrorKey)
				assert.Equal(t, logrus.Fields{"image": "example/web:1", "task.id": "taskid", "service.id": "serviceid", "node.id": "nodeid"}, warned[0].Data)
			})
		})
	}
}

// A network that another task's removal took away is made again, a bounded number of times.
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
		{"always", 4, "start container web.1.taskid: Error response from daemon: failed to set up container networking: network backend not found", 3},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T) {
				engine, task := webEngine(t, obedient), plainTask()
				attach(task, "backend", "10.1.0.0/24")
				ctlr, _ := reached(t, engine, task, api.TaskStateStarting)
				for range test.vanishes {
					engine.FailNext(startRequest, dockerexectest.Call(func() {
						assert.NoError(t, engine.Client().NetworkRemove(t.Context(), "backend"))
					}))
				}
				engine.ForgetRequests()
				err := ctlr.Start(t.Context())
				if test.want == "" {
					require.NoError(t, err)
				} else {
					require.EqualError(t, err, test.want)
				}
				assert.Equal(t, test.creates, engine.Requests().Count("POST /networks/create"))
				require.NoError(t, ctlr.Remove(t.Context()))
				assert.Empty(t, leftOn(engine))
			})
		})
	}
}

// leaveFrontend takes a container off one of its networks.
func leaveFrontend(t *testing.T, engine *dockerexectest.Engine) {
	require.NoError(t, engine.Client().NetworkDisconnect(t.Context(), "frontend", taskName, false))
}

// The same for a container that an interrupted Prepare left without one of its
// networks, as below API 1.44 it may: to the engine that network was not in use. Docker
// notices at the start.
func TestAVanishedNetworkIsMadeAgainForAnAdoptedContainer(t *testing.T) {
	t.Parallel()
	found := []string{"GET /containers/web.1.taskid/json", "POST /networks/frontend/connect"}
	again := []string{"POST /networks/create backend", "GET /networks/backend", "POST /networks/create frontend"}
	for name, test := range map[string]struct{ prepare, start []string }{
		"the connect is refused": {slices.Concat(found, again, found[1:]), []string{found[0], "POST /containers/ID/start"}},
		"the start is refused":   {found, slices.Concat(found[:1], []string{"POST /containers/ID/start"}, again, found[:1], []string{"POST /containers/ID/start"})},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T) {
				engine := webEngine(t, obedient)
				reached(t, engine, networkedTask(), api.TaskStateReady)
				leaveFrontend(t, engine)
				require.NoError(t, engine.Client().NetworkRemove(t.Context(), "frontend"))
				if name == "the connect is refused" {
					engine.FailNext("POST /networks/*/connect", dockerexectest.Refuse(404, "network frontend not found"))
				}
				engine.ForgetRequests()
				ctlr := controllerOn(t, engine, taskAt(networkedTask(), api.TaskStatePreparing))
				assert.Equal(t, exec.ErrTaskPrepared, ctlr.Prepare(t.Context()))
				assert.Equal(t, test.prepare, asked(engine))
				engine.ForgetRequests()
				require.NoError(t, ctlr.Start(t.Context()))
				assert.Equal(t, test.start, asked(engine))
				require.NoError(t, ctlr.Remove(t.Context()))
				assert.Empty(t, leftOn(engine))
			})
		})
	}
}

// An image that somebody has removed since its pull is pulled again, a bounded number of
// times.
func TestAVanishedImageIsPulledAgain(t *testing.T) {
	t.Parallel()
	const id = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	var fine dockerexectest.Fault
	for _, test := range []struct {
		name     string
		image    string
		vanishes int
		pulls    []dockerexectest.Fault // of each pull; nil: all succeed
		want     string
		asked    []int  // for pulls and creates
		says     string // what the engine says; empty: No such image
	}{
		{"once", "example/web:1", 1, nil, "", []int{2, 2}, ""},
		{"a digest", "", 1, nil, "", []int{2, 2}, ""},
		{"three times", "example/web:1", 3, nil, "", []int{4, 4}, ""},
		{"always", "example/web:1", 4, nil, "create container web.1.taskid: Error response from daemon: No such image: example/web:1", []int{4, 4}, ""},
		{"an ID", id, 0, nil, "create container web.1.taskid: Error response from daemon: No such image: " + id, []int{0, 1}, ""},
		{"and the registry refuses", "example/web:1", 1, []dockerexectest.Fault{fine, dockerexectest.Refuse(403, "pull access denied for example/web")},
			"pull access denied for example/web", []int{2, 1}, ""},
		{"29, its manifest", "example/web:1", 1, nil, "", []int{2, 2}, "NotFound: content digest sha256:64a937f093a1: not found"},
		{"29, its configuration", "example/web:1", 1, nil, "", []int{2, 2}, "failed to read config content: NotFound: content digest sha256:1065bd351a79: not found"},
		{"20.10, pulled for another platform", "example/web:1", 1, nil, "", []int{2, 2}, "image with reference example/web:1 was found but does not match the specified platform: wanted linux/amd64, actual: linux/arm64"},
		{"29, pulled for another platform", "example/web:1", 1, nil, "", []int{2, 2}, "image with reference example/web:1 was found but does not provide the specified platform (linux/amd64)"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T) {
				engine, task := webEngine(t, obedient), networkedTask()
				if test.image == "" {
					require.NoError(t, controllerOn(t, engine, task).adapter.PullImage(t.Context()))
					web, err := engine.Client().ImageInspect(t.Context(), "example/web:1")
					require.NoError(t, err)
					removeImage(t, engine, "example/web:1")
					test.image = web.RepoDigests[0]
					engine.ForgetRequests()
				}
				spec(task).Image = test.image
				for _, fault := range test.pulls {
					engine.FailNext(pullRequest, fault)
				}
				for range test.vanishes {
					fault := dockerexectest.Call(func() { removeImage(t, engine, test.image) })
					if test.says != "" {
						fault = dockerexectest.Refuse(404, test.says)
					}
					engine.FailNext(createRequest, fault)
				}
				ctlr := controllerOn(t, engine, task)
				err := ctlr.Prepare(t.Context())
				if test.want == "" {
					require.NoError(t, err)
				} else {
					require.ErrorContains(t, err, test.want)
					assert.False(t, exec.IsTemporary(err))
				}
				assert.Equal(t, test.asked, []int{engine.Requests().Count(pullRequest), engine.Requests().Count(createRequest)})
				require.NoError(t, ctlr.Remove(t.Context()))
				assert.Empty(t, leftOn(engine))
			})
		})
	}
}

func removeImage(t *testing.T, engine *dockerexectest.Engine, ref string) {
	_, err := engine.Client().ImageRemove(t.Context(), ref, image.RemoveOptions{})
	assert.NoError(t, err)
}

// prune removes the image and all networks.
func prune(t *testing.T, engine *dockerexectest.Engine) {
	removeImage(t, engine, "example/web:1")
	for _, name := range engine.Networks() {
		assert.NoError(t, engine.Client().NetworkRemove(t.Context(), name))
	}
}

// All that a prune takes at once is made again.
func TestAPruneWithinPrepare(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		engine := webEngine(t, obedient)
		ctlr := controllerOn(t, engine, networkedTask())
		engine.FailNext(createRequest, dockerexectest.Call(func() { prune(t, engine) }))
		require.NoError(t, ctlr.Prepare(t.Context()))
		require.NoError(t, ctlr.Start(t.Context()))
		require.NoError(t, ctlr.Remove(t.Context()))
		assert.Empty(t, leftOn(engine))
	})
}

// removal has the container vanish when a request comes.
func removal(engine *dockerexectest.Engine) dockerexectest.Fault {
	return dockerexectest.Call(func() { engine.Container(taskName).RemoveByHand() })
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
				engine := webEngine(t, obedient)
				reached(t, engine, networkedTask(), api.TaskStateReady)
				leaveFrontend(t, engine)
				engine.FailNext("POST /networks/*/connect", removal(engine))
				ctlr := controllerOn(t, engine, taskAt(networkedTask(), test.state))
				require.NoError(t, ctlr.Prepare(t.Context()))
				joined := engine.Container(taskName).Inspect().NetworkSettings.Networks
				assert.Equal(t, []string{"backend", "frontend"}, slices.Sorted(maps.Keys(joined)))
				require.NoError(t, ctlr.Start(t.Context()))
				require.NoError(t, ctlr.Remove(t.Context()))
				assert.Empty(t, leftOn(engine))
			})
		})
	}
}

// The same for a container that this Prepare has just created. Below API 1.44 it joins its
// other networks only then.
func TestAContainerThatVanishesBeforeItJoinsItsNetworksIsCreatedAgain(t *testing.T) {
	t.Parallel()
	for vanishes, want := range map[int]string{1: "", 2: "", 10: "No such container: "} {
		t.Run(fmt.Sprint(vanishes), func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T) {
				engine := dockerexectest.New(t, dockerexectest.WithAPIVersion("1.41"))
				engine.Image("example/web:1", obedient)
				var left atomic.Int32
				left.Store(int32(vanishes))
				engine.FailAll("POST /networks/*/connect", dockerexectest.Call(func() {
					if web := engine.Container(taskName); web != nil && left.Add(-1) >= 0 {
						web.RemoveByHand()
					}
				}))
				ctlr := controllerOn(t, engine, networkedTask())
				err := ctlr.Prepare(t.Context())
				if want != "" {
					require.ErrorContains(t, err, want)
					assert.LessOrEqual(t, engine.Requests().Count(createRequest), 10)
				} else {
					require.NoError(t, err)
					assert.Equal(t, vanishes+1, engine.Requests().Count(createRequest))
					joined := engine.Container(taskName).Inspect().NetworkSettings.Networks
					assert.Equal(t, []string{"backend", "frontend"}, slices.Sorted(maps.Keys(joined)))
					require.NoError(t, ctlr.Start(t.Context()))
				}
				require.NoError(t, ctlr.Remove(t.Context()))
				assert.Empty(t, leftOn(engine))
			})
		})
	}
}

// A container that somebody removes before its start is made again with all that it needs,
// a bounded number of times.
func TestAContainerThatVanishesBeforeItsStartIsMadeAgain(t *testing.T) {
	t.Parallel()
	for _, request := range []string{inspectRequest, startRequest} {
		for vanishes, want := range map[int32]api.TaskState{1: api.TaskStateRunning, 3: api.TaskStateRunning, 100: api.TaskStateFailed} {
			t.Run(fmt.Sprint(request, " ", vanishes), func(t *testing.T) {
				t.Parallel()
				bubble(t, func(t *testing.T) {
					engine, task := webEngine(t, obedient), networkedTask()
					ctlr, _ := reached(t, engine, task, api.TaskStateStarting)
					var left atomic.Int32
					left.Store(vanishes)
					mends := engine.FailAll(request, dockerexectest.Call(func() {
						if web := engine.Container(taskName); web != nil && left.Add(-1) >= 0 {
							web.RemoveByHand()
							prune(t, engine)
						}
					}))
					status, err := exec.Do(t.Context(), task, ctlr)
					require.NoError(t, err)
					assert.Equal(t, want, status.State)
					if want == api.TaskStateFailed {
						assert.Contains(t, status.Err, "container web.1.taskid: Error response from daemon: No such container: ")
					}
					assert.Equal(t, int(min(vanishes, 3)+1), engine.Requests().Count(createRequest))
					mends()
					require.NoError(t, ctlr.Remove(t.Context()))
					assert.Empty(t, leftOn(engine))
				})
			})
		}
	}
}

// A task runs once: what may have been started is not made again.
func TestAContainerThatVanishesAfterAStartIsNotMadeAgain(t *testing.T) {
	t.Parallel()
	for name, begin := range map[string]func(*testing.T, *dockerexectest.Engine, *controller) *controller{
		"an earlier process may have started it": func(t *testing.T, engine *dockerexectest.Engine, _ *controller) *controller {
			return controllerOn(t, engine, taskAt(plainTask(), api.TaskStateStarting))
		},
		"its start had no answer": func(t *testing.T, engine *dockerexectest.Engine, ctlr *controller) *controller {
			engine.FailNext(startRequest, dockerexectest.Drop())
			require.ErrorIs(t, ctlr.Start(t.Context()), io.EOF)
			return ctlr
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T) {
				engine := webEngine(t, obedient)
				first, _ := reached(t, engine, plainTask(), api.TaskStateStarting)
				ctlr := begin(t, engine, first)
				engine.Container(taskName).RemoveByHand()
				require.EqualError(t, ctlr.Start(t.Context()), "inspect container web.1.taskid: Error response from daemon: No such container: web.1.taskid")
				assert.Equal(t, 1, engine.Requests().Count(createRequest))
			})
		})
	}
}

// The start's 404 is about a network or about the container only if it says so.
func TestAStartThatMissesSomethingElseIsNotRepaired(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		engine := webEngine(t, obedient)
		ctlr, _ := reached(t, engine, plainTask(), api.TaskStateStarting)
		engine.FailAll(startRequest, dockerexectest.Refuse(404, "get data: no such volume"))
		engine.ForgetRequests()
		require.EqualError(t, ctlr.Start(t.Context()), "start container web.1.taskid: Error response from daemon: get data: no such volume")
		assert.Equal(t, []string{"GET /containers/web.1.taskid/json", "POST /containers/ID/start", "GET /containers/json"}, asked(engine))
	})
}

// An engine shows a container only at the end of its create, which may copy much
// into volumes.
func TestACreateThatTakesLongerThanARequest(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		engine := webEngine(t, obedient)
		engine.FailNext(createRequest, dockerexectest.Slow(3*time.Minute))
		began := time.Now()
		ctlr, _ := reached(t, engine, plainTask(), api.TaskStateReady)
		assert.GreaterOrEqual(t, time.Since(began), 3*time.Minute)
		assert.Less(t, time.Since(began), 3*time.Minute+10*time.Second)
		require.NoError(t, ctlr.Remove(t.Context()))
		assert.Empty(t, leftOn(engine))
	})
}

func TestTheTriesOfACreateAreSpaced(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		engine := webEngine(t, obedient)
		adapter := controllerOn(t, engine, plainTask()).adapter
		engine.FailAll(createRequest, dockerexectest.Refuse(409, `Conflict. The container name "/web.1.taskid" is already in use by container "abc".`))
		began := time.Now()
		assert.True(t, exec.IsTemporary(adapter.Create(t.Context())))
		assert.GreaterOrEqual(t, time.Since(began), 2*burstWindow)
		assert.LessOrEqual(t, time.Since(began), 2*burstWindow+300*time.Millisecond)
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		assert.Equal(t, context.DeadlineExceeded, adapter.Create(ctx))
	})
}

// unknownNode is what a task is that has lost its node.
func unknownNode() (*containerConfig, payloads, error) {
	return nil, payloads{}, exec.MakeTemporary(errNodeUnknown)
}

// What fails before the engine is asked leaves nothing to look for.
func TestNothingIsLookedForThatWasNotSent(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		engine := webEngine(t, obedient)
		ctlr := controllerOn(t, engine, plainTask())
		known := ctlr.adapter.fullTask
		ctlr.adapter.fullTask = func() (*containerConfig, payloads, error) {
			if len(asked(engine)) == 0 {
				return known()
			}
			return unknownNode()
		}
		require.True(t, exec.IsTemporary(ctlr.Prepare(t.Context())))
		began := time.Now()
		require.NoError(t, ctlr.Remove(t.Context()))
		assert.Zero(t, time.Since(began))
		assert.Equal(t, 1, engine.Requests().Count(pullRequest))
		assert.Zero(t, engine.Requests().Count(createRequest))
	})
	bubble(t, func(t *testing.T) {
		engine, ctlr := preparedTask(t)
		ctlr.adapter.fullTask = unknownNode
		require.True(t, exec.IsTemporary(ctlr.Start(t.Context())))
		began := time.Now()
		require.NoError(t, ctlr.Shutdown(t.Context()))
		assert.Zero(t, time.Since(began))
		assert.Zero(t, engine.Requests().Count(startRequest))
	})
}

// A container whose create got no answer is looked for by its removal, but not for ever.
func TestRemoveLooksForALostCreate(t *testing.T) {
	t.Parallel()
	const never = 1000 * time.Hour
	for name, test := range map[string]struct {
		create dockerexectest.Fault
		always bool // it fails each create of the Prepare
		then   func(t *testing.T, ctlr *controller)
		limit  time.Duration
		want   error
		took   time.Duration
	}{
		"comes":               {create: dockerexectest.Slow(2*time.Minute + 4500*time.Millisecond), took: 5 * time.Second},
		"does not come":       {create: dockerexectest.Slow(never), took: 5 * time.Second},
		"the context ends":    {create: dockerexectest.Slow(never), limit: 1500 * time.Millisecond, want: context.DeadlineExceeded, took: 1500 * time.Millisecond},
		"refused":             {create: dockerexectest.Refuse(403, "authorization denied by plugin guard: no")},
		"of an older version": {create: dockerexectest.Refuse(400, tooOldClientAnswer), always: true},
		"answered later": {create: dockerexectest.Drop(), then: func(t *testing.T, ctlr *controller) {
			require.NoError(t, ctlr.Prepare(t.Context()))
			require.NoError(t, ctlr.adapter.Remove(t.Context()))
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T) {
				engine, task := webEngine(t, obedient), plainTask()
				task.Annotations.Name = "web" // so that its container is looked at anyway
				ctlr := controllerOn(t, engine, task)
				mends := func() {}
				if test.always {
					mends = engine.FailAll(createRequest, test.create)
				} else {
					engine.FailNext(createRequest, test.create)
				}
				require.Error(t, ctlr.Prepare(t.Context()))
				mends()
				if test.then != nil {
					test.then(t, ctlr)
				}
				ctx := t.Context()
				if test.limit > 0 {
					var cancel context.CancelFunc
					ctx, cancel = context.WithTimeout(ctx, test.limit)
					defer cancel()
				}
				began := time.Now()
				assert.Equal(t, test.want, ctlr.Remove(ctx))
				assert.Equal(t, test.took, time.Since(began))
				time.Sleep(time.Hour)
				assert.Empty(t, leftOn(engine))
			})
		})
	}
}

// A removal that is tried again does not look for the container each time.
func TestRemoveLooksForALostCreateOnce(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		engine, task := webEngine(t, obedient), plainTask()
		attach(task, "n1", "10.1.0.0/24")
		ctlr := controllerOn(t, engine, task)
		engine.FailNext(createRequest, dockerexectest.Slow(1000*time.Hour))
		require.True(t, exec.IsTemporary(ctlr.Prepare(t.Context())))
		for range 3 {
			engine.FailNext("DELETE /networks/*", dockerexectest.Drop())
		}
		began := time.Now()
		require.NoError(t, ctlr.Remove(t.Context()))
		assert.Equal(t, 4, engine.Requests().Count("DELETE /networks/*"))
		assert.GreaterOrEqual(t, time.Since(began), 5*time.Second)
		assert.Less(t, time.Since(began), 9*time.Second) // with the pauses between the tries
	})
}

const tooOldClientAnswer = "client version 1.43 is too old. Minimum supported API version is 1.44, please upgrade your client to a newer version"

// What engines answer to the start of a container whose earlier start they lost.
var lostStartAnswers = map[string]string{
	"29, a task that did not start":    "failed to create task for container: AlreadyExists: task f05456eb9f936ff0f0dc3122173aedffef4e9cfe5959d26b0db651a5c3138e37: already exists",
	"20.10, a task that did not start": "task cf4c5151fe16ae8cd35bb0e8086af6b463070232b5337b14b61f9576afd7b1e8: already exists",
	"20.10, a task that runs":          "id already in use",
	"a bundle that is there":           "mkdir /run/docker/containerd/daemon/io.containerd.runtime.v2.task/moby/cf4c5151fe16: file exists",
}

// An ordinary answer that has words of a lost start in it.
func TestAnAnswerThatIsNoLostStart(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		"error while creating mount source path '/mnt/x': mkdir /mnt/x: file exists",
		"network web already exists",
	} {
		assert.False(t, isLostStart(answer{text, cerrdefs.ErrInternal}), text)
	}
}

// comesToLife has the engine hear of a lost start after a time.
func comesToLife(t *testing.T, engine *dockerexectest.Engine, after time.Duration) {
	time.AfterFunc(after, func() {
		web := engine.Container(taskName)
		if web == nil {
			return
		}
		web.AlterInspect(func(answer *container.InspectResponse) { answer.State.StartedAt = "0001-01-01T00:00:00Z" })
		assert.NoError(t, engine.Client().ContainerStart(t.Context(), web.ID(), container.StartOptions{}))
	})
}

// preparedTask is one that is about to be started.
func preparedTask(t *testing.T) (*dockerexectest.Engine, *controller) {
	t.Helper()
	return prepared(t, plainTask())
}

func prepared(t *testing.T, task *api.Task) (*dockerexectest.Engine, *controller) {
	t.Helper()
	engine := webEngine(t, obedient)
	ctlr := controllerOn(t, engine, task)
	require.NoError(t, ctlr.Prepare(t.Context()))
	engine.ForgetRequests()
	return engine, ctlr
}

// writingTask is one whose replacement must not run beside it.
func writingTask() *api.Task {
	task := plainTask()
	spec(task).Mounts = []api.Mount{{Type: api.MountTypeVolume, Source: "data", Target: "/data"}}
	return task
}

func runsNot(t *testing.T, engine *dockerexectest.Engine) {
	t.Helper()
	time.Sleep(time.Hour)
	for _, c := range engine.Containers() {
		assert.False(t, c.Inspect().State.Running, c.Name())
	}
}

const strayStopped = "start container web.1.taskid: the engine ended within it; the container ran without network and log, and was stopped"

// A task that shares volumes or ports with its replacement ends only once no process of
// its container can come to life.
func TestAStartThatTheEngineLost(t *testing.T) {
	t.Parallel()
	inUse := dockerexectest.Refuse(500, "id already in use")
	for name, text := range lostStartAnswers {
		t.Run(name+", comes to life", func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T) {
				engine, ctlr := prepared(t, writingTask())
				engine.FailNext(startRequest, dockerexectest.Refuse(500, text))
				comesToLife(t, engine, 14500*time.Millisecond)
				began := time.Now()
				require.EqualError(t, ctlr.Start(t.Context()), strayStopped)
				assert.Equal(t, 15*time.Second, time.Since(began))
				assert.Equal(t, container.StateExited, engine.Container(taskName).Inspect().State.Status)
			})
		})
		t.Run(name+", does not", func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T) {
				engine, ctlr := prepared(t, writingTask())
				engine.FailNext(startRequest, dockerexectest.Refuse(500, text))
				began := time.Now()
				require.EqualError(t, ctlr.Start(t.Context()), "start container web.1.taskid: Error response from daemon: "+text)
				assert.Equal(t, 20*time.Second, time.Since(began))
				began = time.Now()
				require.NoError(t, ctlr.Shutdown(t.Context())) // does not wait again
				assert.Zero(t, time.Since(began))
			})
		})
	}
	for name, test := range map[string]func(t *testing.T, engine *dockerexectest.Engine, ctlr *controller){
		"the context ends": func(t *testing.T, engine *dockerexectest.Engine, ctlr *controller) {
			engine.FailNext(startRequest, inUse)
			ctx, cancel := context.WithTimeout(t.Context(), 1500*time.Millisecond)
			defer cancel()
			began := time.Now()
			assert.Equal(t, context.DeadlineExceeded, ctlr.Start(ctx))
			assert.Equal(t, 1500*time.Millisecond, time.Since(began))
		},
		"the engine goes away meanwhile": func(t *testing.T, engine *dockerexectest.Engine, ctlr *controller) {
			engine.FailNext(startRequest, inUse)
			time.AfterFunc(5500*time.Millisecond, engine.Down)
			assert.True(t, exec.IsTemporary(ctlr.Start(t.Context())))
			engine.Up()
			comesToLife(t, engine, 15*time.Second)
			require.NoError(t, ctlr.Shutdown(t.Context()))
		},
		"it is stopped whatever that takes": func(t *testing.T, engine *dockerexectest.Engine, ctlr *controller) {
			comesToLife(t, engine, 0)
			time.Sleep(time.Second)
			mends := engine.FailAll(stopRequest, dockerexectest.Refuse(500, noExitEvent))
			kills := engine.FailAll(killRequest, dockerexectest.Refuse(500, noExitEvent))
			time.AfterFunc(time.Minute, func() { mends(); kills() })
			began := time.Now()
			require.EqualError(t, ctlr.Start(t.Context()), strayStopped)
			assert.GreaterOrEqual(t, time.Since(began), time.Minute)
		},
		"it came to life before the second start": func(t *testing.T, engine *dockerexectest.Engine, ctlr *controller) {
			comesToLife(t, engine, 0)
			time.Sleep(time.Second)
			require.EqualError(t, ctlr.Start(t.Context()), strayStopped)
		},
		"another error does not wait": func(t *testing.T, engine *dockerexectest.Engine, ctlr *controller) {
			engine.FailNext(startRequest, dockerexectest.Refuse(500, "driver failed programming external connectivity: port is already allocated"))
			began := time.Now()
			require.Error(t, ctlr.Start(t.Context()))
			require.NoError(t, ctlr.Shutdown(t.Context()))
			assert.Zero(t, time.Since(began))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T) {
				engine, ctlr := prepared(t, writingTask())
				test(t, engine, ctlr)
				if name != "the context ends" {
					runsNot(t, engine)
				}
			})
		})
	}
}

// A task whose replacement may run beside it fails at once. What comes to life of it then is
// stopped all the same.
func TestAStartThatTheEngineLostIsLookedForBesideTheReplacement(t *testing.T) {
	t.Parallel()
	state := func(engine *dockerexectest.Engine) container.ContainerState {
		return engine.Container(taskName).Inspect().State.Status
	}
	failsAtOnce := func(t *testing.T, engine *dockerexectest.Engine, ctlr *controller, text string) {
		t.Helper()
		engine.FailNext(startRequest, dockerexectest.Refuse(500, text))
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel() // as the agent does
		began := time.Now()
		require.EqualError(t, ctlr.Start(ctx), "start container web.1.taskid: Error response from daemon: "+text)
		assert.Zero(t, time.Since(began))
	}
	for name, text := range lostStartAnswers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T) { // it comes to life
				engine, ctlr := preparedTask(t)
				comesToLife(t, engine, 14500*time.Millisecond)
				failsAtOnce(t, engine, ctlr, text)
				time.Sleep(14900 * time.Millisecond)
				assert.Equal(t, container.StateRunning, state(engine))
				time.Sleep(200 * time.Millisecond)
				assert.Equal(t, container.StateExited, state(engine))
				assert.Equal(t, 1, engine.Requests().Count(stopRequest))
			})
			bubble(t, func(t *testing.T) { // nothing comes
				engine, ctlr := preparedTask(t)
				failsAtOnce(t, engine, ctlr, text)
				time.Sleep(20500 * time.Millisecond)
				engine.ForgetRequests()
				time.Sleep(time.Hour)
				assert.Empty(t, asked(engine), "the look has ended")
				began := time.Now()
				require.NoError(t, ctlr.Shutdown(t.Context())) // does not wait again
				assert.Zero(t, time.Since(began))
			})
		})
	}
	for name, test := range map[string]func(t *testing.T, engine *dockerexectest.Engine, ctlr *controller){
		"the engine goes away meanwhile": func(t *testing.T, engine *dockerexectest.Engine, _ *controller) {
			time.Sleep(5500 * time.Millisecond)
			engine.Down()
			time.Sleep(time.Minute)
			engine.Up()
			comesToLife(t, engine, 15*time.Second)
			time.Sleep(time.Minute)
			assert.Equal(t, container.StateExited, state(engine))
		},
		"the stop fails": func(t *testing.T, engine *dockerexectest.Engine, _ *controller) {
			mends := engine.FailAll(stopRequest, dockerexectest.Refuse(500, noExitEvent))
			kills := engine.FailAll(killRequest, dockerexectest.Refuse(500, noExitEvent))
			comesToLife(t, engine, 0)
			time.Sleep(time.Minute)
			assert.Equal(t, container.StateRunning, state(engine))
			mends()
			kills()
		},
		"the container is removed by hand": func(t *testing.T, engine *dockerexectest.Engine, _ *controller) {
			time.Sleep(5500 * time.Millisecond)
			engine.Container(taskName).RemoveByHand()
			time.Sleep(time.Second)
			engine.ForgetRequests()
			time.Sleep(time.Hour)
			assert.Empty(t, asked(engine), "the look has ended")
		},
		"Shutdown": func(t *testing.T, engine *dockerexectest.Engine, ctlr *controller) {
			comesToLife(t, engine, 14500*time.Millisecond)
			time.Sleep(5500 * time.Millisecond)
			require.NoError(t, ctlr.Shutdown(t.Context()))
			assert.Equal(t, container.StateExited, state(engine))
		},
		"Remove": func(t *testing.T, engine *dockerexectest.Engine, ctlr *controller) {
			comesToLife(t, engine, 14500*time.Millisecond)
			time.Sleep(5500 * time.Millisecond)
			require.NoError(t, ctlr.Remove(t.Context()))
			assert.Empty(t, leftOn(engine))
		},
		"Remove, nothing comes": func(t *testing.T, engine *dockerexectest.Engine, ctlr *controller) {
			time.Sleep(5500 * time.Millisecond)
			began := time.Now()
			require.NoError(t, ctlr.Remove(t.Context()))
			assert.LessOrEqual(t, time.Since(began), 15500*time.Millisecond, "the look began before")
			assert.Empty(t, leftOn(engine))
		},
		"Close": func(t *testing.T, engine *dockerexectest.Engine, ctlr *controller) {
			time.Sleep(5500 * time.Millisecond)
			require.NoError(t, ctlr.Close())
			engine.ForgetRequests()
			time.Sleep(time.Hour)
			assert.Empty(t, asked(engine), "the look has ended")
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T) {
				engine, ctlr := preparedTask(t)
				failsAtOnce(t, engine, ctlr, "id already in use")
				test(t, engine, ctlr)
				runsNot(t, engine)
			})
		})
	}
}

// The task has failed by then, so the log alone tells what became of its program.
func TestWhatBecameOfALostStartIsTold(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		pattern string // of the requests that are refused; empty: none is
		lines   []string
	}{
		"it is stopped":           {"", []string{"a program ran although the engine had lost its start"}},
		"its stop is refused":     {stopRequest, []string{"a program ran although the engine had lost its start"}},
		"the inspect is refused":  {"GET /containers/*/json", []string{"it is not known whether a program runs whose start the engine lost"}},
		"nothing comes":           {"nothing", nil},
		"the controller is ended": {"close", nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T) {
				engine, ctlr := preparedTask(t)
				ctx, lines := logged(t)
				engine.FailNext(startRequest, dockerexectest.Refuse(500, "id already in use"))
				require.ErrorContains(t, ctlr.Start(ctx), "id already in use")
				time.Sleep(500 * time.Millisecond)
				switch test.pattern {
				case "nothing":
				case "close":
					require.NoError(t, ctlr.Close())
				case "":
					comesToLife(t, engine, 5*time.Second)
				default:
					comesToLife(t, engine, 5*time.Second)
					engine.FailAll(test.pattern, guardRefuses)
				}
				time.Sleep(time.Hour)
				assert.Equal(t, test.lines, lines(logrus.WarnLevel))
			})
		})
	}
}

// A start that the engine carries out is no lost one, also before its answer has come.
func TestAContainerThatIsStartedAgainIsNoStray(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		engine, _ := preparedTask(t)
		client := through(t, engine, func(r *http.Request, next http.RoundTripper) (*http.Response, error) {
			answer, err := next.RoundTrip(r)
			if strings.HasSuffix(r.URL.Path, "/start") {
				time.Sleep(5 * time.Second)
			}
			return answer, err
		})
		ctlr := newController(adapterOf(t, NewEngine(client), plainTask()), api.TaskStateReady)
		engine.FailNext(startRequest, dockerexectest.Refuse(500, "id already in use"))
		require.ErrorContains(t, ctlr.Start(t.Context()), "id already in use")
		require.NoError(t, ctlr.Start(t.Context()))
		time.Sleep(time.Hour)
		assert.Equal(t, container.StateRunning, engine.Container(taskName).Inspect().State.Status)
		require.NoError(t, ctlr.Shutdown(t.Context()))
	})
}

// Whether a second container like one may run beside it.
func TestWhetherAReplacementMayRunBeside(t *testing.T) {
	t.Parallel()
	const volume, bind, tmpfs = mount.TypeVolume, mount.TypeBind, mount.TypeTmpfs
	for name, test := range map[string]struct {
		host *container.HostConfig
		want bool
	}{
		"not known, of a fake":  {nil, false},
		"nothing of the host":   {&container.HostConfig{NetworkMode: "web"}, true},
		"a read-only bind":      {&container.HostConfig{Mounts: []mount.Mount{{Type: bind, Source: "/a", Target: "/a", ReadOnly: true}}}, true},
		"a bind":                {&container.HostConfig{Mounts: []mount.Mount{{Type: bind, Source: "/a", Target: "/a"}}}, false},
		"a read-only volume":    {&container.HostConfig{Mounts: []mount.Mount{{Type: volume, Source: "data", Target: "/a", ReadOnly: true}}}, true},
		"a volume":              {&container.HostConfig{Mounts: []mount.Mount{{Type: volume, Source: "data", Target: "/a"}}}, false},
		"a volume of its own":   {&container.HostConfig{Mounts: []mount.Mount{{Type: volume, Target: "/a"}}}, true},
		"a tmpfs":               {&container.HostConfig{Mounts: []mount.Mount{{Type: tmpfs, Target: "/a"}}}, true},
		"a pipe":                {&container.HostConfig{Mounts: []mount.Mount{{Type: mount.TypeNamedPipe, Source: `\\.\pipe\a`, Target: `\\.\pipe\a`}}}, false},
		"one of two":            {&container.HostConfig{Mounts: []mount.Mount{{Type: tmpfs, Target: "/a"}, {Type: bind, Source: "/b", Target: "/b"}}}, false},
		"binds of a hook":       {&container.HostConfig{Binds: []string{"/a:/a"}}, false},
		"another's volumes":     {&container.HostConfig{VolumesFrom: []string{"db"}}, false},
		"a port of the host":    {&container.HostConfig{PortBindings: nat.PortMap{"80/tcp": {{HostPort: "8080"}}}}, false},
		"all ports":             {&container.HostConfig{PublishAllPorts: true}, false},
		"the host's network":    {&container.HostConfig{NetworkMode: "host"}, false},
		"a container's network": {&container.HostConfig{NetworkMode: "container:db"}, false},
		"the host's processes":  {&container.HostConfig{PidMode: "host"}, false},
		"another's memory":      {&container.HostConfig{IpcMode: "container:db"}, false},
		"a device":              {&container.HostConfig{Resources: container.Resources{Devices: []container.DeviceMapping{{PathOnHost: "/dev/sda"}}}}, false},
		"a GPU":                 {&container.HostConfig{Resources: container.Resources{DeviceRequests: []container.DeviceRequest{{Count: -1}}}}, false},
		"all devices":           {&container.HostConfig{Privileged: true}, false},
	} {
		answer := container.InspectResponse{ContainerJSONBase: &container.ContainerJSONBase{HostConfig: test.host}}
		assert.Equal(t, test.want, mayRunBeside(answer), name)
	}
	assert.False(t, mayRunBeside(container.InspectResponse{}))
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

// startsNot is a controller whose starts do not reach the engine: each ends as lost says.
func startsNot(t *testing.T, engine *dockerexectest.Engine, lost func(context.Context) error) *controller {
	t.Helper()
	client := through(t, engine, func(r *http.Request, next http.RoundTripper) (*http.Response, error) {
		if strings.HasSuffix(r.URL.Path, "/start") {
			return nil, lost(r.Context())
		}
		return next.RoundTrip(r)
	})
	return newController(adapterOf(t, NewEngine(client), plainTask()), api.TaskStateReady)
}

// Nothing comes to life under a task that has ended or was removed.
func TestAnEndWatchesForALostStart(t *testing.T) {
	t.Parallel()
	lost := func(fault dockerexectest.Fault) func(*testing.T, *dockerexectest.Engine, *controller) *controller {
		return func(t *testing.T, engine *dockerexectest.Engine, ctlr *controller) *controller {
			engine.FailNext(startRequest, fault)
			assert.True(t, exec.IsTemporary(ctlr.Start(t.Context())))
			return ctlr
		}
	}
	notSent := func(err func(context.Context) error) func(*testing.T, *dockerexectest.Engine, *controller) *controller {
		return func(t *testing.T, engine *dockerexectest.Engine, _ *controller) *controller {
			ctlr := startsNot(t, engine, err)
			assert.True(t, exec.IsTemporary(ctlr.Start(t.Context())))
			return ctlr
		}
	}
	earlier := func(state api.TaskState) func(*testing.T, *dockerexectest.Engine, *controller) *controller {
		return func(t *testing.T, engine *dockerexectest.Engine, _ *controller) *controller {
			return controllerOn(t, engine, taskAt(plainTask(), state))
		}
	}
	for _, end := range ends {
		for name, begin := range map[string]func(*testing.T, *dockerexectest.Engine, *controller) *controller{
			"the start was cut off": lost(dockerexectest.Drop()),
			"the engine may never have heard of it": notSent(func(context.Context) error {
				return &net.OpError{Op: "dial", Net: "unix", Err: syscall.ECONNREFUSED}
			}),
			"containerd ended within the start": lost(dockerexectest.Refuse(503, "Unavailable: error reading from server: EOF")),
			"then the engine was away": func(t *testing.T, engine *dockerexectest.Engine, ctlr *controller) *controller {
				lost(dockerexectest.Drop())(t, engine, ctlr)
				engine.Down()
				assert.True(t, exec.IsTemporary(ctlr.Start(t.Context())))
				engine.Up()
				return ctlr
			},
			"it was answered too late": notSent(func(ctx context.Context) error {
				<-ctx.Done()
				return ctx.Err()
			}),
			"an earlier process was starting it": earlier(api.TaskStateStarting),
			"an earlier process has started it":  earlier(api.TaskStateRunning),
		} {
			t.Run(end.name+", "+name, func(t *testing.T) {
				t.Parallel()
				bubble(t, func(t *testing.T) {
					engine, first := preparedTask(t)
					ctlr := begin(t, engine, first)
					comesToLife(t, engine, 14500*time.Millisecond)
					began := time.Now()
					require.NoError(t, end.call(ctlr, t.Context()))
					assert.Equal(t, 15*time.Second, time.Since(began))
					runsNot(t, engine)
					assert.Equal(t, end.left, leftOn(engine))
				})
				bubble(t, func(t *testing.T) { // nothing comes
					engine, first := preparedTask(t)
					ctlr := begin(t, engine, first)
					began := time.Now()
					require.NoError(t, end.call(ctlr, t.Context()))
					assert.Equal(t, 20*time.Second, time.Since(began))
					assert.Equal(t, end.left, leftOn(engine))
				})
			})
		}
		for name, test := range map[string]func(t *testing.T, engine *dockerexectest.Engine, ctlr *controller){
			"gone meanwhile": func(t *testing.T, engine *dockerexectest.Engine, ctlr *controller) {
				time.AfterFunc(5500*time.Millisecond, func() { engine.Container(taskName).RemoveByHand() })
				began := time.Now()
				require.NoError(t, end.call(ctlr, t.Context()))
				assert.Equal(t, 6*time.Second, time.Since(began))
			},
			"it has come to life and ended": func(t *testing.T, engine *dockerexectest.Engine, ctlr *controller) {
				engine.Container(taskName).AlterInspect(func(answer *container.InspectResponse) { // as engines have it then
					answer.State.FinishedAt = "2026-11-24T02:37:48.188748557Z"
				})
				began := time.Now()
				require.NoError(t, end.call(ctlr, t.Context()))
				assert.Zero(t, time.Since(began))
			},
			"ended with its context": func(t *testing.T, engine *dockerexectest.Engine, ctlr *controller) {
				ctx, cancel := context.WithTimeout(t.Context(), 1500*time.Millisecond)
				defer cancel()
				assert.Equal(t, context.DeadlineExceeded, end.call(ctlr, ctx))
				began := time.Now()
				require.NoError(t, end.call(ctlr, t.Context()))
				assert.Equal(t, 20*time.Second, time.Since(began))
				assert.Equal(t, end.left, leftOn(engine))
			},
			"within a start": func(t *testing.T, engine *dockerexectest.Engine, _ *controller) {
				ctlr := startsNot(t, engine, func(context.Context) error {
					time.Sleep(time.Minute)
					return io.ErrUnexpectedEOF
				})
				start := asynchronously(func() error { return ctlr.Start(t.Context()) })
				time.Sleep(time.Second)
				comesToLife(t, engine, time.Minute+10*time.Second)
				require.NoError(t, end.call(ctlr, t.Context()))
				assert.Equal(t, context.Canceled, start())
				runsNot(t, engine)
				assert.Equal(t, end.left, leftOn(engine))
			},
		} {
			t.Run(end.name+", "+name, func(t *testing.T) {
				t.Parallel()
				bubble(t, func(t *testing.T) {
					engine, _ := preparedTask(t)
					test(t, engine, controllerOn(t, engine, taskAt(plainTask(), api.TaskStateStarting)))
				})
			})
		}
	}
}

// What was surely not started is not watched.
func TestAnEndDoesNotWaitInVain(t *testing.T) {
	t.Parallel()
	refused := func(t *testing.T, engine *dockerexectest.Engine, ctlr *controller, fault dockerexectest.Fault) {
		mends := engine.FailAll(startRequest, fault)
		assert.True(t, exec.IsTemporary(ctlr.Start(t.Context())))
		mends()
	}
	for _, end := range ends {
		for name, ctlr := range map[string]func(*testing.T, *dockerexectest.Engine, *controller) *controller{
			"never started": func(_ *testing.T, _ *dockerexectest.Engine, ctlr *controller) *controller { return ctlr },
			"started": func(t *testing.T, engine *dockerexectest.Engine, ctlr *controller) *controller {
				require.NoError(t, ctlr.Start(t.Context()))
				engine.Container(taskName).Exit(0)
				return ctlr
			},
			"started after a start that was cut off": func(t *testing.T, engine *dockerexectest.Engine, ctlr *controller) *controller {
				refused(t, engine, ctlr, dockerexectest.Drop())
				require.NoError(t, ctlr.Start(t.Context()))
				return ctlr
			},
			// An engine that does not speak the client's version has carried out nothing.
			"refused for its version": func(t *testing.T, engine *dockerexectest.Engine, ctlr *controller) *controller {
				refused(t, engine, ctlr, dockerexectest.Refuse(400, tooOldClientAnswer))
				return ctlr
			},
			"taken up before its start": func(t *testing.T, engine *dockerexectest.Engine, _ *controller) *controller {
				return controllerOn(t, engine, taskAt(plainTask(), api.TaskStateReady))
			},
			"taken up after its end": func(t *testing.T, engine *dockerexectest.Engine, _ *controller) *controller {
				return controllerOn(t, engine, taskAt(plainTask(), api.TaskStateFailed))
			},
		} {
			t.Run(end.name+", "+name, func(t *testing.T) {
				t.Parallel()
				bubble(t, func(t *testing.T) {
					engine, first := preparedTask(t)
					ctlr := ctlr(t, engine, first)
					engine.ForgetRequests()
					began := time.Now()
					require.NoError(t, end.call(ctlr, t.Context()))
					assert.Zero(t, time.Since(began))
					if end.name != "Remove" {
						assert.Len(t, asked(engine), 1)
					}
				})
			})
		}
	}
}
