package dockerexec

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/events"
	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/api/types/volume"
	gogotypes "github.com/gogo/protobuf/types"
	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/moby/swarmkit/v2/api"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockerexec/dockerexec/dockerexectest"
)

// The first table of docs/engine-calls.md: what each method asks of the engine for a task that uses
// nothing beyond the reference's features. Users' fakes rely on it.
func TestEachMethodCallsOnlyItsNamesake(t *testing.T) {
	t.Parallel()
	task := plainTask()
	attach(task, "backend", "10.1.0.0/24")
	spec(task).Mounts = []api.Mount{{Type: api.MountTypeVolume, Source: "data", Target: "/data",
		VolumeOptions: &api.Mount_VolumeOptions{DriverConfig: &api.Driver{Name: "local"}}}}

	for _, test := range []struct {
		name string
		set  func(*fakeClient)
		do   func(context.Context, *ContainerAdapter) error
		want []string
	}{
		{
			"PullImage",
			func(f *fakeClient) {
				f.imagePull = func(context.Context, string, image.PullOptions) (io.ReadCloser, error) {
					return io.NopCloser(strings.NewReader("")), nil
				}
			},
			func(ctx context.Context, a *ContainerAdapter) error { return a.PullImage(ctx) },
			[]string{"ImagePull example/web:1"},
		},
		{
			"CreateNetworks and RemoveNetworks",
			func(f *fakeClient) {
				f.networkCreate = func(context.Context, string, network.CreateOptions) (network.CreateResponse, error) {
					return network.CreateResponse{ID: "n0"}, nil
				}
				f.networkRemove = func(context.Context, string) error { return nil }
			},
			func(ctx context.Context, a *ContainerAdapter) error {
				if err := a.CreateNetworks(ctx); err != nil {
					return err
				}
				return a.RemoveNetworks(ctx)
			},
			[]string{"NetworkCreate backend", "NetworkRemove n0"},
		},
		{
			"CreateVolumes",
			func(f *fakeClient) {
				f.volumeCreate = func(context.Context, volume.CreateOptions) (volume.Volume, error) { return volume.Volume{}, nil }
			},
			func(ctx context.Context, a *ContainerAdapter) error { return a.CreateVolumes(ctx) },
			[]string{"VolumeCreate data"},
		},
		{
			"Create",
			func(f *fakeClient) {
				f.containerCreate = func(context.Context, *container.Config, *container.HostConfig, *network.NetworkingConfig, *ocispec.Platform, string) (container.CreateResponse, error) {
					return container.CreateResponse{ID: "c0"}, nil
				}
			},
			func(ctx context.Context, a *ContainerAdapter) error { return a.Create(ctx) },
			[]string{"ContainerCreate web.1.taskid"},
		},
		{
			"Start",
			func(f *fakeClient) {
				f.containerStart = func(context.Context, string, container.StartOptions) error { return nil }
			},
			func(ctx context.Context, a *ContainerAdapter) error { return a.Start(ctx) },
			[]string{"ContainerStart web.1.taskid"},
		},
		{
			"Inspect",
			func(f *fakeClient) {
				f.containerInspect = func(context.Context, string) (container.InspectResponse, error) {
					return inspected("c0", container.StateRunning, nil), nil
				}
			},
			func(ctx context.Context, a *ContainerAdapter) error { _, err := a.Inspect(ctx); return err },
			[]string{"ContainerInspect web.1.taskid"},
		},
		{
			"Shutdown",
			func(f *fakeClient) {
				f.containerStop = func(context.Context, string, container.StopOptions) error { return nil }
			},
			func(ctx context.Context, a *ContainerAdapter) error { return a.Shutdown(ctx) },
			[]string{"ContainerStop web.1.taskid"},
		},
		{
			"Terminate",
			func(f *fakeClient) { f.containerKill = func(context.Context, string, string) error { return nil } },
			func(ctx context.Context, a *ContainerAdapter) error { return a.Terminate(ctx) },
			[]string{"ContainerKill web.1.taskid"},
		},
		{
			"Remove",
			func(f *fakeClient) {
				f.containerRemove = func(context.Context, string, container.RemoveOptions) error { return nil }
			},
			func(ctx context.Context, a *ContainerAdapter) error { return a.Remove(ctx) },
			[]string{"ContainerRemove web.1.taskid"},
		},
		{
			"Logs",
			func(f *fakeClient) {
				f.containerLogs = func(context.Context, string, container.LogsOptions) (io.ReadCloser, error) {
					return io.NopCloser(strings.NewReader("")), nil
				}
			},
			func(ctx context.Context, a *ContainerAdapter) error {
				body, err := a.Logs(ctx, api.LogSubscriptionOptions{})
				if err != nil {
					return err
				}
				return body.Close()
			},
			[]string{"ContainerLogs web.1.taskid"},
		},
		{
			"Events",
			func(f *fakeClient) {
				f.events = func(context.Context, events.ListOptions) (<-chan events.Message, <-chan error) {
					return make(chan events.Message), make(chan error)
				}
			},
			func(ctx context.Context, a *ContainerAdapter) error { _, _, err := a.Events(ctx); return err },
			[]string{"Events"},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			client := newFakeClient(t)
			test.set(client)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			require.NoError(t, test.do(ctx, newTestAdapter(t, client, task)))
			var calls []string
			for _, call := range client.called() {
				if strings.HasPrefix(call, "Events ") {
					call = "Events" // what follows is a time
				}
				calls = append(calls, call)
			}
			assert.Equal(t, test.want, calls)
		})
	}
}

// Whatever the operation, a fault of the engine that passes is temporary, and a
// context that ended is what comes back, bare.
func TestEachMethodReportsPassingFaultsAndCancellation(t *testing.T) {
	t.Parallel()
	for request, operation := range map[string]func(*ContainerAdapter, context.Context) error{
		"POST /networks/create": (*ContainerAdapter).CreateNetworks,
		"GET /networks/backend": (*ContainerAdapter).RemoveNetworks,
		"POST /volumes/create":  (*ContainerAdapter).CreateVolumes,
		createRequest:           (*ContainerAdapter).Create,
		startRequest:            (*ContainerAdapter).Start,
		inspectRequest:          func(a *ContainerAdapter, ctx context.Context) error { _, err := a.Inspect(ctx); return err },
		stopRequest:             (*ContainerAdapter).Shutdown,
		killRequest:             (*ContainerAdapter).Terminate,
		removeRequest:           (*ContainerAdapter).Remove,
		"GET /containers/*/logs": func(a *ContainerAdapter, ctx context.Context) error {
			_, err := a.Logs(ctx, api.LogSubscriptionOptions{})
			return err
		},
	} {
		t.Run(request, func(t *testing.T) {
			t.Parallel()
			engine := dockerexectest.New(t)
			engine.FailNext(request, dockerexectest.Drop())
			err := operation(adapterOn(t, engine, versionTask()), t.Context())
			require.ErrorContains(t, err, "EOF")
			assert.True(t, exec.IsTemporary(err), err)

			engine.FailNext(request, dockerexectest.Refuse(http.StatusInternalServerError, "boom"))
			err = operation(adapterOn(t, engine, versionTask()), t.Context())
			require.ErrorContains(t, err, "Error response from daemon: boom")
			assert.False(t, exec.IsTemporary(err), err)

			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			assert.Equal(t, context.Canceled, operation(adapterOn(t, engine, versionTask()), ctx))
		})
	}
}

func TestRequestTimeoutIsTemporaryAndSaysSo(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		engine, adapter := onFakeEngine(t, nil)
		engine.FailNext(startRequest, dockerexectest.Slow(time.Hour))
		begin := time.Now()
		err := adapter().Start(t.Context())
		require.EqualError(t, err, "start container web.1.taskid: the engine did not answer within 2m0s")
		assert.True(t, exec.IsTemporary(err))
		assert.Equal(t, 2*time.Minute, time.Since(begin))
	})
}

// An engine that answers nonsense gets an error, not a panic.
func TestInspectOfNonsenseIsAnError(t *testing.T) {
	t.Parallel()
	for _, answer := range []string{"{}", `{"Id": "c0"}`} {
		engine, adapter := onFakeEngine(t, nil)
		engine.FailNext(inspectRequest, dockerexectest.Answer(http.StatusOK, answer))
		_, err := adapter().Inspect(t.Context())
		require.EqualError(t, err, "inspect container web.1.taskid: the engine's answer has no state")
	}
}

func TestNewContainerAdapterStandsAlone(t *testing.T) {
	t.Parallel()
	adapter, err := NewContainerAdapter(dockerexectest.New(t).Client(), nil, plainTask(), nil)
	require.NoError(t, err)
	require.NotNil(t, adapter)

	_, err = NewContainerAdapter(nil, nil, plainTask(), nil)
	require.EqualError(t, err, "dockerexec: the engine's client is nil")
}

// The text of every engine since 1.13 is a name conflict, and a container
// of the same task is the task's own, in whatever words the conflict comes.
func TestCreateRecognisesTheContainerOfItsTask(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		dialect dockerexectest.Dialect
		status  int // of the conflict; 0: the engine's own
		text    string
	}{
		"29":                    {dockerexectest.DockerV29, 0, ""},
		"20.10":                 {dockerexectest.DockerV20, 0, ""},
		"Podman":                {dockerexectest.PodmanV4, 0, ""},
		"with a wrong class":    {dockerexectest.DockerV29, http.StatusInternalServerError, nameTaken.text},
		"the reference's tests": {dockerexectest.DockerV29, http.StatusInternalServerError, "Conflict. The name"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			engine := dockerexectest.New(t, dockerexectest.WithDialect(test.dialect))
			engine.LocalImage("example/web:1", dockerexectest.Exit(0))
			require.NoError(t, adapterOn(t, engine, plainTask()).Create(t.Context()))
			if test.status != 0 {
				engine.FailNext(createRequest, dockerexectest.Refuse(test.status, test.text))
			}
			engine.ForgetRequests()
			assert.Equal(t, exec.ErrTaskPrepared, adapterOn(t, engine, plainTask()).Create(t.Context()))
			assert.Equal(t, []string{"POST /containers/create web.1.taskid", "GET /containers/web.1.taskid/json"}, asked(engine))
		})
	}
}

// A container of that name which is not the task's is neither adopted nor
// touched.
func TestCreateRefusesAStrangersContainer(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		labels map[string]string
		shown  string // of the container; empty: all
		want   string
	}{
		"no label":             {nil, "", "a container (%s) that belongs to no task has its name; rename or remove that one: "},
		"another task's label": {map[string]string{LabelTaskID: "other"}, "", "the container (%s) of task other has its name; remove that task first: "},
		"an empty answer":      {nil, "{}", "a container (of unknown ID) that belongs to no task has its name; rename or remove that one: "},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			engine, newAdapter := onFakeEngine(t, nil)
			stranger := engine.AddContainer(taskName, test.labels)
			if test.shown != "" {
				engine.FailNext(inspectRequest, dockerexectest.Answer(http.StatusOK, test.shown))
			}
			adapter := newAdapter()
			err := adapter.Create(t.Context())
			conflict := fmt.Sprintf(`Error response from daemon: Conflict. The container name "/web.1.taskid" is already in use by container "%s". You have to remove (or rename) that container to be able to reuse that name.`, stranger.ID())
			require.EqualError(t, err, "create container web.1.taskid: "+strings.ReplaceAll(test.want, "%s", stranger.ID()[:12])+conflict)
			assert.True(t, IsContainerCreateNameConflict(err))
			assert.False(t, exec.IsTemporary(err))

			engine.ForgetRequests()
			require.NoError(t, adapter.Shutdown(t.Context()))
			require.NoError(t, adapter.Terminate(t.Context()))
			require.NoError(t, adapter.Remove(t.Context()))
			assert.Empty(t, engine.Requests(), "the stranger's container was touched")
		})
	}
}

// The holder of the name may be gone by the time that it is looked for. A create is tried
// three times. Any other conflict comes back in its own words, that of a volume's name too.
func TestCreateAfterAConflictThatIsNone(t *testing.T) {
	t.Parallel()
	const create, look = "POST /containers/create web.1.taskid", "GET /containers/web.1.taskid/json"
	const volume = "create v: driver 'local' already has volume 'v': volume name must be unique"
	for name, test := range map[string]struct {
		text      string
		conflicts int
		want      string // the error
		temporary bool
		calls     []string
	}{
		"the holder is gone": {nameTaken.text, 1, "", false, []string{create, look, create}},
		"nobody holds it":    {nameTaken.text, 3, "create container web.1.taskid, 3 times, while the engine shows no container of that name: " + nameTaken.Error(), true, []string{create, look, create, look, create, look}},
		"a volume's":         {volume, 1, "create container web.1.taskid: Error response from daemon: " + volume, false, []string{create}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T) {
				engine, adapter := onFakeEngine(t, nil)
				for range test.conflicts {
					engine.FailNext(createRequest, dockerexectest.Refuse(http.StatusConflict, test.text))
				}
				err := adapter().Create(t.Context())
				if test.want == "" {
					require.NoError(t, err)
				} else {
					require.EqualError(t, err, test.want)
				}
				assert.Equal(t, test.temporary, exec.IsTemporary(err))
				assert.Equal(t, test.calls, asked(engine))
			})
		})
	}
}

// networksTask has the networks back, front and mid.
func networksTask() *api.Task {
	task := plainTask()
	attach(task, "front", "10.1.0.0/24")
	attach(task, "back", "10.2.0.0/24")
	attach(task, "mid", "10.3.0.0/24")
	return task
}

// Below API 1.44 a create takes one network; the others are connected before the start.
func TestCreateJoinsSeveralNetworks(t *testing.T) {
	t.Parallel()
	for version, want := range map[string][]string{
		"1.44": {"POST /containers/create web.1.taskid"},
		"1.43": {"POST /containers/create web.1.taskid", "POST /networks/front/connect", "POST /networks/mid/connect"},
	} {
		engine := dockerexectest.New(t, dockerexectest.WithAPIVersion(version))
		engine.LocalImage("example/web:1", nil)
		adapter := adapterOn(t, engine, networksTask())
		require.NoError(t, adapter.CreateNetworks(t.Context()))
		engine.ForgetRequests()
		require.NoError(t, adapter.Create(t.Context()))
		assert.Equal(t, want, asked(engine))
		assert.Equal(t, []string{"back", "front", "mid"}, slices.Sorted(maps.Keys(engine.Container(taskName).Inspect().NetworkSettings.Networks)))
		for _, connect := range engine.Requests()[1:] {
			assert.Contains(t, string(connect.Body), `"EndpointConfig":{`)
		}
	}
}

// An adopted container gets the networks that it lacks: whoever made it may have spoken an
// older version, and ended in between.
func TestCreateConnectsAnAdoptedContainer(t *testing.T) {
	t.Parallel()
	for _, version := range []string{"1.41", "1.51"} {
		engine := dockerexectest.New(t, dockerexectest.WithAPIVersion(version))
		engine.LocalImage("example/web:1", nil)
		adapter, client := adapterOn(t, engine, networksTask()), engine.Client()
		require.NoError(t, adapter.CreateNetworks(t.Context()))
		_, err := client.ContainerCreate(t.Context(), &container.Config{Image: "example/web:1", Labels: ofThisTask}, &container.HostConfig{NetworkMode: "back"}, nil, nil, taskName)
		require.NoError(t, err)
		require.NoError(t, client.NetworkConnect(t.Context(), "front", taskName, nil))
		engine.ForgetRequests()
		assert.Equal(t, exec.ErrTaskPrepared, adapter.Create(t.Context()))
		assert.Equal(t, []string{"POST /containers/create web.1.taskid", "GET /containers/web.1.taskid/json", "POST /networks/mid/connect"}, asked(engine), version)
	}

	silent := newFakeClient(t) // a user's fake
	silent.creating(nameTaken)
	holder := inspected("c0", container.StateCreated, ofThisTask)
	holder.NetworkSettings = &container.NetworkSettings{}
	silent.inspecting(holder, nil)
	assert.Equal(t, exec.ErrTaskPrepared, newTestAdapter(t, silent, networksTask()).Create(t.Context()))
	assert.Equal(t, []string{"ContainerCreate web.1.taskid", "ContainerInspect web.1.taskid"}, silent.called())
}

// What is warned about is said once a task: a limit above the cores of the engine, which
// is capped to them, and ports of the routing mesh.
func TestCreateWarnsOnce(t *testing.T) {
	t.Parallel()
	for want, test := range map[string]struct {
		change func(*api.Task)
		calls  []string // of one create
	}{
		"task field Spec.Resources.Limits.NanoCPUs: the engine has only 2 cores, the limit is capped to them": {withLimits(api.Resources{NanoCPUs: 64e9}),
			[]string{"POST /containers/create web.1.taskid", "GET /info", "POST /containers/create web.1.taskid"}},
		"the routing mesh exists only inside a swarm engine: port 80/tcp is not published": {withPort(&api.PortConfig{TargetPort: 80, PublishedPort: 8080, PublishMode: api.PublishModeIngress}),
			[]string{"POST /containers/create web.1.taskid"}},
	} {
		task := plainTask()
		test.change(task)
		engine, _ := onFakeEngine(t, nil)
		ctx, logged := logged(t)
		adapter := adapterOn(t, engine, task)
		for range 2 {
			engine.ForgetRequests()
			require.NoError(t, adapter.Create(ctx))
			assert.Equal(t, test.calls, asked(engine))
			if made := engine.Container(taskName); len(test.calls) > 1 {
				assert.EqualValues(t, 2e9, made.Inspect().HostConfig.NanoCPUs)
			}
			engine.Container(taskName).RemoveByHand()
		}
		assert.Equal(t, []string{want}, logged(logrus.WarnLevel))
	}
}

// A stranger that has gone is forgotten: the container that is made then is the
// task's own.
func TestCreateForgetsAStrangerThatHasGone(t *testing.T) {
	t.Parallel()
	engine, newAdapter := onFakeEngine(t, dockerexectest.UntilStopped(0))
	stranger, adapter := engine.AddContainer(taskName, nil), newAdapter()
	require.Error(t, adapter.Create(t.Context()))
	require.EqualError(t, adapter.Start(t.Context()),
		"start container web.1.taskid: a container that is not this task's has its name; create it first")
	stranger.RemoveByHand()
	require.NoError(t, adapter.Create(t.Context()))
	require.NoError(t, adapter.Start(t.Context()))
	require.NoError(t, adapter.Remove(t.Context()))
	assert.Equal(t, []string{"POST /containers/create web.1.taskid", "GET /containers/web.1.taskid/json",
		"POST /containers/create web.1.taskid", "POST /containers/ID/start", "DELETE /containers/ID"}, asked(engine))
}

// warningCreate has the next create of an engine succeed with warnings.
func warningCreate(t *testing.T, engine *dockerexectest.Engine, warnings ...string) {
	t.Helper()
	text, err := json.Marshal(container.CreateResponse{ID: "c0", Warnings: warnings})
	require.NoError(t, err)
	engine.FailNext(createRequest, dockerexectest.Answer(http.StatusCreated, string(text)))
}

// What an engine does not do of a request it says only here. The words are those of
// Docker, 20.10 and 29.
func TestCreateWarnsOfWhatTheEngineWillNotDo(t *testing.T) {
	t.Parallel()
	swap := func(task *api.Task) {
		withLimits(api.Resources{MemoryBytes: 64 << 20})(task)
		task.Spec.Resources.SwapBytes = &gogotypes.Int64Value{Value: 1 << 20}
	}
	const limited = "Your kernel does not support swap limit capabilities or the cgroup is not mounted. Memory limited without swap."
	for _, test := range []struct {
		change  func(*api.Task)
		warning string
		want    string
	}{
		{nil, "Your kernel does not support memory swappiness capabilities or the cgroup is not mounted. Memory swappiness discarded.",
			"task field Spec.Resources.MemorySwappiness: the engine warns: Your kernel does not support memory swappiness capabilities or the cgroup is not mounted. Memory swappiness discarded."},
		{nil, "The requested image's platform (linux/arm64/v8) does not match the detected host platform (linux/amd64) and no specific platform was requested",
			"task field Spec.Placement.Platforms: the engine warns: The requested image's platform (linux/arm64/v8) does not match the detected host platform (linux/amd64) and no specific platform was requested"},
		{swap, limited, "task field Spec.Resources.SwapBytes: the engine warns: " + limited},
		{withLimits(api.Resources{MemoryBytes: 64 << 20}), limited, "task field Spec.Resources.Limits.MemoryBytes: the engine warns: " + limited},
		{nil, "Your kernel does not support memory limit capabilities or the cgroup is not mounted. Limitation discarded.",
			"task field Spec.Resources.Limits.MemoryBytes: the engine warns: Your kernel does not support memory limit capabilities or the cgroup is not mounted. Limitation discarded."},
		{nil, "Your kernel does not support PIDs limit capabilities or the cgroup is not mounted. PIDs limit discarded.",
			"task field Spec.Container.PidsLimit: the engine warns: Your kernel does not support PIDs limit capabilities or the cgroup is not mounted. PIDs limit discarded."},
		{nil, "Your kernel does not support CPU CFS scheduler. CPU period/quota discarded.",
			"task field Spec.Resources.Limits.NanoCPUs: the engine warns: Your kernel does not support CPU CFS scheduler. CPU period/quota discarded."},
		{nil, "Published ports are discarded when using host network mode",
			"task field Endpoint.Ports: the engine warns: Published ports are discarded when using host network mode"},
		{nil, "IPv4 forwarding is disabled. Networking will not work.", "the engine warns: IPv4 forwarding is disabled. Networking will not work."},
		{nil, "\n two\nlines \x1b", "the engine warns: two lines"},
	} {
		task := plainTask()
		if test.change != nil {
			test.change(task)
		}
		engine := dockerexectest.New(t)
		warningCreate(t, engine, test.warning)
		ctx, hook := hooked(t)
		require.NoError(t, adapterOn(t, engine, task).Create(ctx))
		var warnings []string
		for _, entry := range hook.AllEntries() {
			if entry.Level == logrus.WarnLevel {
				warnings = append(warnings, entry.Message)
				assert.Equal(t, "c0", entry.Data["container.id"])
				assert.Equal(t, "taskid", entry.Data["task.id"])
			}
		}
		assert.Equal(t, []string{test.want}, warnings)
	}
}

// A create may be made again. What the engine says then is known.
func TestAWarningOfTheEngineComesOnceATask(t *testing.T) {
	t.Parallel()
	engine, newAdapter := onFakeEngine(t, nil)
	ctx, lines := logged(t)
	adapter := newAdapter()
	warningCreate(t, engine, "one", "two", "one", "")
	require.NoError(t, adapter.Create(ctx))
	warningCreate(t, engine, "two", "three")
	require.NoError(t, adapter.Create(ctx))
	assert.Equal(t, []string{"the engine warns: one", "the engine warns: two", "the engine warns: three"}, lines(logrus.WarnLevel))
}

// An engine that floods does not fill the log.
func TestWarningsOfTheEngineAreBounded(t *testing.T) {
	t.Parallel()
	engine, adapter := onFakeEngine(t, nil)
	ctx, lines := logged(t)
	var flood []string
	for i := range 200 {
		flood = append(flood, fmt.Sprint(i, strings.Repeat("x", 10_000)))
	}
	warningCreate(t, engine, flood...)
	require.NoError(t, adapter().Create(ctx))
	warnings := lines(logrus.WarnLevel)
	assert.Len(t, warnings, 50)
	assert.Less(t, len(strings.Join(warnings, "")), 60_000)
}

// An engine may quote the task in a warning.
func TestAWarningOfTheEngineShowsNoSecret(t *testing.T) {
	t.Parallel()
	engine := dockerexectest.New(t)
	ctx, lines := logged(t)
	warningCreate(t, engine, "PIDs limit discarded, as variable DB=Sup3rS3cret asks")
	task := plainTask()
	spec(task).Env = []string{"DB=Sup3rS3cret"}
	require.NoError(t, adapterOn(t, engine, task).Create(ctx))
	assert.Equal(t, []string{"task field Spec.Container.PidsLimit: the engine warns: PIDs limit discarded, as variable DB=xxxxx asks"}, lines(logrus.WarnLevel))
}

// So does the answer to the create of a network.
func TestCreateNetworksWarnsOfWhatTheEngineWarns(t *testing.T) {
	t.Parallel()
	const warning = "Network with name n1 (id : 4711) already exists"
	engine := dockerexectest.New(t)
	engine.FailAll("POST /networks/create", dockerexectest.Answer(http.StatusCreated, `{"Id": "id-of-n1", "Warning": "`+warning+`"}`))
	task := plainTask()
	attach(task, "n1", "10.1.0.0/24")
	ctx, hook := hooked(t)
	adapter := adapterOn(t, engine, task)
	require.NoError(t, adapter.CreateNetworks(ctx))
	require.NoError(t, adapter.CreateNetworks(ctx))
	var warnings []string
	for _, entry := range hook.AllEntries() {
		if entry.Level == logrus.WarnLevel {
			warnings = append(warnings, entry.Message)
			assert.Equal(t, "n1", entry.Data["network.name"])
		}
	}
	assert.Equal(t, []string{"the engine warns: " + warning}, warnings)
}

// A grace period is rounded up to whole seconds; less than one second must not become an
// immediate kill. Without one, image and daemon decide. A stop may take that long, and the
// request time-out on top.
func TestShutdownHasTheGracePeriod(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name  string
		grace *gogotypes.Duration
		asked string
		takes time.Duration // at most
	}{
		{"unset", nil, "", 11 * time.Second},
		{"500ms", &gogotypes.Duration{Nanos: 5e8}, "1", 2 * time.Second},
		{"1ns", &gogotypes.Duration{Nanos: 1}, "1", 2 * time.Second},
		{"1.999s", &gogotypes.Duration{Seconds: 1, Nanos: 999e6}, "2", 3 * time.Second},
		{"300s", &gogotypes.Duration{Seconds: 300}, "300", 301 * time.Second},
		{"0", &gogotypes.Duration{}, "0", time.Second},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T) {
				engine := dockerexectest.New(t)
				engine.FailNext(stopRequest, dockerexectest.Slow(time.Hour))
				task := plainTask()
				spec(task).StopGracePeriod = test.grace
				adapter := adapterOn(t, engine, task, WithRequestTimeout(time.Second))
				begin := time.Now()
				err := adapter.Shutdown(t.Context())
				assert.True(t, exec.IsTemporary(err), err)
				assert.Equal(t, test.takes, time.Since(begin))
				query := engine.Requests()[len(engine.Requests())-1].Query
				assert.Equal(t, test.asked, query.Get("t"))
				assert.Equal(t, test.grace != nil, query.Has("t"))
			})
		})
	}
}

// Over HTTP a stop of a stopped container is a nil error; the text of an
// engine's inside is one too. Nor is there anything to stop, kill or remove when
// the container is gone.
func TestStoppingAndRemovingWhatIsNotThereSucceeds(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		status int // of all answers; 0: the engine's own, which has no container
		text   string
		isGone bool
	}{
		"unknown container":         {0, "", true},
		"not found, in other words": {http.StatusNotFound, "it is not here", true},
		"not found, without words":  {http.StatusNotFound, "", true},
		"not running":               {http.StatusConflict, "cannot kill container: web.1.taskid: container 0123 is not running", false},
		"already stopped":           {http.StatusInternalServerError, "Container is already stopped", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			engine, newAdapter := onFakeEngine(t, nil)
			if test.status != 0 {
				engine.FailAll("POST *", dockerexectest.Refuse(test.status, test.text))
			}
			adapter := newAdapter()
			require.NoError(t, adapter.Shutdown(t.Context()))
			require.NoError(t, adapter.Terminate(t.Context()))
			if test.isGone {
				if test.status != 0 {
					engine.FailNext(removeRequest, dockerexectest.Refuse(test.status, test.text))
				}
				require.NoError(t, adapter.Remove(t.Context()))
			}
		})
	}
}

// A removal is forced and takes anonymous volumes. Somebody else's removal is waited for:
// networks go only after the container. One that never ends is given up.
func TestAnAdaptersRemovalDuringAnother(t *testing.T) {
	t.Parallel()
	for takes, want := range map[time.Duration]string{
		5 * time.Second: "", time.Hour: "remove container web.1.taskid: the engine did not answer within 10s",
	} {
		t.Run(takes.String(), func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T) {
				engine, _ := onFakeEngine(t, nil)
				adapter := adapterOn(t, engine, plainTask(), WithRequestTimeout(10*time.Second))
				require.NoError(t, adapter.Create(t.Context()))
				engine.FailNext(removeRequest, dockerexectest.Slow(takes))
				other := asynchronously(func() error { return engine.Client().ContainerRemove(t.Context(), taskName, container.RemoveOptions{}) })
				synctest.Wait()
				engine.ForgetRequests()
				begin := time.Now()
				err := adapter.Remove(t.Context())
				assert.Equal(t, url.Values{"force": {"1"}, "v": {"1"}}, engine.Requests()[0].Query)
				if want == "" {
					require.NoError(t, err)
					require.NoError(t, other())
					assert.Less(t, len(engine.Requests()), 20)
					return
				}
				require.EqualError(t, err, want)
				assert.True(t, exec.IsTemporary(err))
				assert.Equal(t, 10*time.Second, time.Since(begin))
			})
		})
	}
}

// An engine that fails to remove or to kill a container may say of something else
// that it is not there.
func TestAFailureThatNamesAMissingThingIsNoSuccess(t *testing.T) {
	t.Parallel()
	engine, newAdapter := onFakeEngine(t, nil)
	adapter := newAdapter()
	const noDataSet = `cannot remove container "/web": container 12ab: driver "zfs" failed to remove root filesystem: dataset does not exist`
	engine.FailNext(removeRequest, dockerexectest.Refuse(http.StatusInternalServerError, noDataSet))
	require.ErrorContains(t, adapter.Remove(t.Context()), noDataSet)
	const noFile = "cannot kill container: web: open /run/x: file not found"
	engine.FailNext(killRequest, dockerexectest.Refuse(http.StatusInternalServerError, noFile))
	require.ErrorContains(t, adapter.Terminate(t.Context()), noFile)
}

// A container without the label is the task's own if its name has the task's ID
// in it, whoever asks; but it is never taken for what a create was to make.
func TestOneAnswerToWhoseAContainerIs(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, named string
		labels      map[string]string
		own         bool
		adopted     bool
	}{
		{"labelled", "", map[string]string{LabelTaskID: "taskid"}, true, true},
		{"labelled, named", "web", map[string]string{LabelTaskID: "taskid"}, true, true},
		{"no label", "", map[string]string{"x": "y"}, true, false},
		{"no labels", "", map[string]string{}, true, false},
		{"no label, named", "web", map[string]string{"x": "y"}, false, false},
		{"another task's", "", map[string]string{LabelTaskID: "other"}, false, false},
		{"another task's, named", "web", map[string]string{LabelTaskID: "other"}, false, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T) {
				ctx := t.Context()
				engine := webEngine(t, dockerexectest.UntilStopped(0))
				engine.LocalImage("example/web:1", dockerexectest.UntilStopped(0))
				task := plainTask()
				task.Annotations.Name = test.named
				name := taskName
				if test.named != "" {
					name = test.named
				}
				put := func(state container.ContainerState) (*controller, *dockerexectest.Container) {
					if there := engine.Container(name); there != nil {
						there.RemoveByHand()
					}
					found := another(t, engine, name, "example/web:1", test.labels)
					switch state {
					case container.StateCreated:
						found.AlterInspect(func(answer *container.InspectResponse) {
							answer.State = &container.State{Status: container.StateCreated}
						})
					case container.StateExited:
						found.Exit(0)
					}
					return controllerOn(t, engine, taskAt(task, api.TaskStatePreparing)), found
				}
				accepted := func(what string, err error) {
					if test.own {
						assert.NoError(t, err, what)
					} else {
						assert.Error(t, err, what)
					}
				}
				ctlr, _ := put(container.StateCreated)
				if err := ctlr.Prepare(ctx); test.adopted {
					require.Equal(t, exec.ErrTaskPrepared, err)
				} else {
					require.ErrorContains(t, err, "has its name")
				}
				ctlr, _ = put(container.StateCreated)
				accepted("Start", ctlr.Start(ctx))
				ctlr, _ = put(container.StateExited)
				accepted("Wait", ctlr.Wait(ctx))
				ctlr, found := put(container.StateExited)
				accepted("Logs", ctlr.adapter.checkLogOwner(found.Inspect()))
				status, err := ctlr.ContainerStatus(ctx)
				require.NoError(t, err)
				assert.Equal(t, test.own, status != nil, "ContainerStatus")
				if test.own || test.named != "" {
					ctlr, found = put(container.StateRunning)
					require.NoError(t, ctlr.Shutdown(ctx))
					assert.Equal(t, test.own, !found.Inspect().State.Running, "Shutdown")
				}
				ctlr, _ = put(container.StateRunning)
				require.NoError(t, ctlr.Remove(ctx))
				assert.Equal(t, test.own, len(leftOn(engine)) == 0, "Remove")
			})
		})
	}
}
