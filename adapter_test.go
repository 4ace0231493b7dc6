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
	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/api/types/system"
	"github.com/docker/docker/api/types/volume"
	gogotypes "github.com/gogo/protobuf/types"
	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/moby/swarmkit/v2/api"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/pkg/errors"
	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
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
	task := plainTask()
	attach(task, "backend", "10.1.0.0/24")
	spec(task).Mounts = []api.Mount{{Type: api.MountTypeVolume, Source: "data", Target: "/data",
		VolumeOptions: &api.Mount_VolumeOptions{DriverConfig: &api.Driver{Name: "local"}}}}

	for name, operation := range map[string]func(context.Context, *ContainerAdapter) error{
		"create networks": func(ctx context.Context, a *ContainerAdapter) error { return a.CreateNetworks(ctx) },
		"remove networks": func(ctx context.Context, a *ContainerAdapter) error { return a.RemoveNetworks(ctx) },
		"create volumes":  func(ctx context.Context, a *ContainerAdapter) error { return a.CreateVolumes(ctx) },
		"create":          func(ctx context.Context, a *ContainerAdapter) error { return a.Create(ctx) },
		"start":           func(ctx context.Context, a *ContainerAdapter) error { return a.Start(ctx) },
		"inspect":         func(ctx context.Context, a *ContainerAdapter) error { _, err := a.Inspect(ctx); return err },
		"shutdown":        func(ctx context.Context, a *ContainerAdapter) error { return a.Shutdown(ctx) },
		"terminate":       func(ctx context.Context, a *ContainerAdapter) error { return a.Terminate(ctx) },
		"remove":          func(ctx context.Context, a *ContainerAdapter) error { return a.Remove(ctx) },
		"logs": func(ctx context.Context, a *ContainerAdapter) error {
			_, err := a.Logs(ctx, api.LogSubscriptionOptions{})
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			client := newFakeClient(t)
			client.failEverything(io.ErrUnexpectedEOF)
			adapter := newTestAdapter(t, client, task)
			err := operation(t.Context(), adapter)
			require.ErrorIs(t, err, io.ErrUnexpectedEOF)
			assert.True(t, exec.IsTemporary(err), err)

			client.failEverything(answer{"boom", cerrdefs.ErrInternal})
			err = operation(t.Context(), adapter)
			require.ErrorIs(t, err, answer{"boom", cerrdefs.ErrInternal})
			assert.False(t, exec.IsTemporary(err), err)

			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			assert.Equal(t, context.Canceled, operation(ctx, adapter))
		})
	}
}

func TestRequestTimeoutIsTemporaryAndSaysSo(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		client := newFakeClient(t)
		client.containerStart = func(ctx context.Context, _ string, _ container.StartOptions) error {
			<-ctx.Done()
			return ctx.Err()
		}
		begin := time.Now()
		err := newTestAdapter(t, client, plainTask()).Start(t.Context())
		require.EqualError(t, err, "start container web.1.taskid: the engine did not answer within 2m0s")
		assert.True(t, exec.IsTemporary(err))
		assert.Equal(t, 2*time.Minute, time.Since(begin))
	})
}

// An engine that answers nonsense gets an error, not a panic.
func TestInspectOfNonsenseIsAnError(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]container.InspectResponse{
		"empty":    {},
		"no state": {ContainerJSONBase: &container.ContainerJSONBase{ID: "c0"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			client := newFakeClient(t)
			client.containerInspect = func(context.Context, string) (container.InspectResponse, error) { return answer, nil }
			_, err := newTestAdapter(t, client, plainTask()).Inspect(t.Context())
			require.EqualError(t, err, "inspect container web.1.taskid: the engine's answer has no state")
		})
	}
}

func TestNewContainerAdapterStandsAlone(t *testing.T) {
	t.Parallel()
	adapter, err := NewContainerAdapter(newFakeClient(t), nil, plainTask(), nil)
	require.NoError(t, err)
	require.NotNil(t, adapter)

	_, err = NewContainerAdapter(nil, nil, plainTask(), nil)
	require.EqualError(t, err, "dockerexec: the engine's client is nil")
}

// The text of every engine since 1.13 is a name conflict, and a container
// of the same task is the task's own, in whatever words the conflict comes.
func TestCreateRecognisesTheContainerOfItsTask(t *testing.T) {
	t.Parallel()
	for name, conflict := range map[string]error{
		"1.13 to 29":            nameTaken,
		"with a wrong class":    answer{nameTaken.text, cerrdefs.ErrInternal},
		"the reference's tests": assert.AnError,
		"bare":                  cerrdefs.ErrConflict,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if conflict == assert.AnError {
				conflict = answer{"Conflict. The name", nil}
			}
			client := newFakeClient(t)
			client.creating(conflict)
			client.inspecting(inspected("c0", container.StateCreated, ofThisTask), nil)
			err := newTestAdapter(t, client, plainTask()).Create(t.Context())
			assert.Equal(t, exec.ErrTaskPrepared, err)
			assert.Equal(t, []string{"ContainerCreate web.1.taskid", "ContainerInspect web.1.taskid"}, client.called())
		})
	}
}

// A container of that name which is not the task's is neither adopted nor
// touched.
func TestCreateRefusesAStrangersContainer(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		holder container.InspectResponse
		want   string
	}{
		{"no label", inspected("0123456789abcdef", container.StateRunning, nil),
			"create container web.1.taskid: a container (0123456789ab) that belongs to no task has its name; rename or remove that one: " + nameTaken.Error()},
		{"another task's label", inspected("0123456789abcdef", container.StateRunning, map[string]string{"com.docker.swarm.task.id": "other"}),
			"create container web.1.taskid: the container (0123456789ab) of task other has its name; remove that task first: " + nameTaken.Error()},
		{"an empty answer", container.InspectResponse{},
			"create container web.1.taskid: a container (of unknown ID) that belongs to no task has its name; rename or remove that one: " + nameTaken.Error()},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			client := newFakeClient(t)
			client.creating(nameTaken)
			client.inspecting(test.holder, nil)
			adapter := newTestAdapter(t, client, plainTask())
			err := adapter.Create(t.Context())
			require.EqualError(t, err, test.want)
			assert.True(t, IsContainerCreateNameConflict(err))
			assert.False(t, exec.IsTemporary(err))

			before := len(client.called())
			require.NoError(t, adapter.Shutdown(t.Context()))
			require.NoError(t, adapter.Terminate(t.Context()))
			require.NoError(t, adapter.Remove(t.Context()))
			assert.Len(t, client.called(), before, "the stranger's container was touched")
		})
	}
}

func TestCreateTriesAgainWhenTheHolderIsGone(t *testing.T) {
	t.Parallel()
	client := newFakeClient(t)
	client.creating(nameTaken, nil)
	client.inspecting(container.InspectResponse{}, answer{"No such container: web.1.taskid", cerrdefs.ErrNotFound})
	require.NoError(t, newTestAdapter(t, client, plainTask()).Create(t.Context()))
	assert.Equal(t, []string{"ContainerCreate web.1.taskid", "ContainerInspect web.1.taskid", "ContainerCreate web.1.taskid"}, client.called())
}

func TestCreateGivesUpOnANameThatNobodyHolds(t *testing.T) {
	t.Parallel()
	client := newFakeClient(t)
	client.creating(nameTaken)
	client.inspecting(container.InspectResponse{}, answer{"No such container: web.1.taskid", cerrdefs.ErrNotFound})
	err := newTestAdapter(t, client, plainTask()).Create(t.Context())
	require.ErrorIs(t, err, nameTaken)
	require.ErrorContains(t, err, "create container web.1.taskid, 3 times, while the engine shows no container of that name")
	assert.True(t, exec.IsTemporary(err))
	assert.Len(t, client.called(), 6)
}

// A volume's 409 is not a name conflict, and its own words come back.
func TestCreateReportsOtherConflictsAsTheyAre(t *testing.T) {
	t.Parallel()
	client := newFakeClient(t)
	conflict := answer{"create v: driver 'local' already has volume 'v': volume name must be unique", cerrdefs.ErrConflict}
	client.creating(conflict)
	err := newTestAdapter(t, client, plainTask()).Create(t.Context())
	require.EqualError(t, err, "create container web.1.taskid: "+conflict.Error())
	assert.Equal(t, []string{"ContainerCreate web.1.taskid"}, client.called())
}

func TestCreateJoinsSeveralNetworksAtOnce(t *testing.T) {
	t.Parallel()
	task := plainTask()
	attach(task, "front", "10.1.0.0/24")
	attach(task, "back", "10.2.0.0/24")
	client := newFakeClient(t)
	var joined []string
	client.containerCreate = func(_ context.Context, _ *container.Config, _ *container.HostConfig, config *network.NetworkingConfig, _ *ocispec.Platform, _ string) (container.CreateResponse, error) {
		for name := range config.EndpointsConfig {
			joined = append(joined, name)
		}
		return container.CreateResponse{ID: "c0"}, nil
	}
	require.NoError(t, newTestAdapter(t, client, task).Create(t.Context()))
	assert.ElementsMatch(t, []string{"back", "front"}, joined)
	assert.Equal(t, []string{"ContainerCreate web.1.taskid"}, client.called())
}

// Below API 1.44 a create takes one network; the others are connected before the
// start, and an adopted container gets those it lacks.
func TestCreateConnectsFurtherNetworksOnAnOlderEngine(t *testing.T) {
	t.Parallel()
	task := plainTask()
	attach(task, "front", "10.1.0.0/24")
	attach(task, "back", "10.2.0.0/24")
	attach(task, "mid", "10.3.0.0/24")

	client := newFakeClient(t)
	var joined []string
	client.containerCreate = func(_ context.Context, _ *container.Config, _ *container.HostConfig, config *network.NetworkingConfig, _ *ocispec.Platform, _ string) (container.CreateResponse, error) {
		for name := range config.EndpointsConfig {
			joined = append(joined, name)
		}
		return container.CreateResponse{ID: "c0"}, nil
	}
	client.networkConnect = func(_ context.Context, _, id string, endpoint *network.EndpointSettings) error {
		assert.Equal(t, "c0", id)
		assert.NotNil(t, endpoint)
		return nil
	}
	adapter := newTestAdapter(t, client, task)
	adapter.engine.api.fix("1.41")
	require.NoError(t, adapter.Create(t.Context()))
	assert.Equal(t, []string{"back"}, joined)
	assert.Equal(t, []string{"ContainerCreate web.1.taskid", "NetworkConnect front", "NetworkConnect mid"}, client.called())

	// Whoever made it may have spoken an older version, and ended in between.
	for _, version := range []string{"1.41", "1.51"} {
		adopting := newFakeClient(t)
		adopting.creating(nameTaken)
		holder := inspected("c0", container.StateCreated, ofThisTask)
		holder.NetworkSettings = &container.NetworkSettings{Networks: map[string]*network.EndpointSettings{"back": {}, "front": {}}}
		adopting.inspecting(holder, nil)
		adopting.networkConnect = client.networkConnect
		adapter = newTestAdapter(t, adopting, task)
		adapter.engine.api.fix(version)
		assert.Equal(t, exec.ErrTaskPrepared, adapter.Create(t.Context()))
		assert.Equal(t, []string{"ContainerCreate web.1.taskid", "ContainerInspect web.1.taskid", "NetworkConnect mid"}, adopting.called(), version)
	}

	silent := newFakeClient(t) // a user's fake
	silent.creating(nameTaken)
	holder := inspected("c0", container.StateCreated, ofThisTask)
	holder.NetworkSettings = &container.NetworkSettings{}
	silent.inspecting(holder, nil)
	assert.Equal(t, exec.ErrTaskPrepared, newTestAdapter(t, silent, task).Create(t.Context()))
	assert.Equal(t, []string{"ContainerCreate web.1.taskid", "ContainerInspect web.1.taskid"}, silent.called())
}

// The two things that are warned about, once a task.
func TestCreateCapsACPULimitAboveTheCores(t *testing.T) {
	t.Parallel()
	task := plainTask()
	task.Spec.Resources = &api.ResourceRequirements{Limits: &api.Resources{NanoCPUs: 64e9}}
	client := newFakeClient(t)
	var asked []int64
	client.containerCreate = func(_ context.Context, _ *container.Config, config *container.HostConfig, _ *network.NetworkingConfig, _ *ocispec.Platform, _ string) (container.CreateResponse, error) {
		asked = append(asked, config.NanoCPUs)
		if config.NanoCPUs > 2e9 {
			return container.CreateResponse{}, answer{"Range of CPUs is from 0.01 to 2.00, as there are only 2 CPUs available", cerrdefs.ErrInvalidArgument}
		}
		return container.CreateResponse{ID: "c0"}, nil
	}
	client.info = func(context.Context) (system.Info, error) { return system.Info{NCPU: 2}, nil }

	ctx, logged := logged(t)
	adapter := newTestAdapter(t, client, task)
	require.NoError(t, adapter.Create(ctx))
	require.NoError(t, adapter.Create(ctx))
	assert.Equal(t, []int64{64e9, 2e9, 64e9, 2e9}, asked)
	assert.Equal(t, []string{"ContainerCreate web.1.taskid", "Info ", "ContainerCreate web.1.taskid"}, client.called()[:3])
	assert.Equal(t, []string{"task field Spec.Resources.Limits.NanoCPUs: the engine has only 2 cores, the limit is capped to them"}, logged(logrus.WarnLevel))
}

func TestCreateWarnsOnceOfIngressPorts(t *testing.T) {
	t.Parallel()
	task := plainTask()
	task.Endpoint = &api.Endpoint{Ports: []*api.PortConfig{{TargetPort: 80, PublishedPort: 8080, PublishMode: api.PublishModeIngress}}}
	client := newFakeClient(t)
	client.creating(nil)
	ctx, logged := logged(t)
	adapter := newTestAdapter(t, client, task)
	require.NoError(t, adapter.Create(ctx))
	require.NoError(t, adapter.Create(ctx))
	assert.Equal(t, []string{"the routing mesh exists only inside a swarm engine: port 80/tcp is not published"}, logged(logrus.WarnLevel))
}

// A stranger that has gone is forgotten: the container that is made then is the
// task's own.
func TestCreateForgetsAStrangerThatHasGone(t *testing.T) {
	t.Parallel()
	client := newFakeClient(t)
	client.creating(nameTaken, nil)
	client.inspecting(inspected("c1", container.StateRunning, nil), nil)
	client.containerStart = func(context.Context, string, container.StartOptions) error { return nil }
	client.containerRemove = func(context.Context, string, container.RemoveOptions) error { return nil }
	adapter := newTestAdapter(t, client, plainTask())
	require.Error(t, adapter.Create(t.Context()))
	require.EqualError(t, adapter.Start(t.Context()),
		"start container web.1.taskid: a container that is not this task's has its name; create it first")
	require.NoError(t, adapter.Create(t.Context()))
	require.NoError(t, adapter.Start(t.Context()))
	require.NoError(t, adapter.Remove(t.Context()))
	assert.Equal(t, []string{"ContainerCreate web.1.taskid", "ContainerInspect web.1.taskid",
		"ContainerCreate web.1.taskid", "ContainerStart web.1.taskid", "ContainerRemove web.1.taskid"}, client.called())
}

// warningCreate answers a create with warnings.
func warningCreate(client *fakeClient, warnings ...string) {
	client.containerCreate = func(context.Context, *container.Config, *container.HostConfig, *network.NetworkingConfig, *ocispec.Platform, string) (container.CreateResponse, error) {
		return container.CreateResponse{ID: "c0", Warnings: warnings}, nil
	}
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
		client := newFakeClient(t)
		warningCreate(client, test.warning)
		ctx, hook := hooked(t)
		require.NoError(t, newTestAdapter(t, client, task).Create(ctx))
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
	client := newFakeClient(t)
	ctx, lines := logged(t)
	adapter := newTestAdapter(t, client, plainTask())
	warningCreate(client, "one", "two", "one", "")
	require.NoError(t, adapter.Create(ctx))
	warningCreate(client, "two", "three")
	require.NoError(t, adapter.Create(ctx))
	assert.Equal(t, []string{"the engine warns: one", "the engine warns: two", "the engine warns: three"}, lines(logrus.WarnLevel))
}

// An engine that floods does not fill the log.
func TestWarningsOfTheEngineAreBounded(t *testing.T) {
	t.Parallel()
	client := newFakeClient(t)
	ctx, lines := logged(t)
	var flood []string
	for i := range 1000 {
		flood = append(flood, fmt.Sprint(i, strings.Repeat("x", 100_000)))
	}
	warningCreate(client, flood...)
	require.NoError(t, newTestAdapter(t, client, plainTask()).Create(ctx))
	warnings := lines(logrus.WarnLevel)
	assert.Len(t, warnings, 50)
	assert.Less(t, len(strings.Join(warnings, "")), 60_000)
}

// An engine may quote the task in a warning.
func TestAWarningOfTheEngineShowsNoSecret(t *testing.T) {
	t.Parallel()
	client := newFakeClient(t)
	ctx, lines := logged(t)
	warningCreate(client, "PIDs limit discarded, as variable DB=Sup3rS3cret asks")
	task := plainTask()
	spec(task).Env = []string{"DB=Sup3rS3cret"}
	require.NoError(t, newTestAdapter(t, client, task).Create(ctx))
	assert.Equal(t, []string{"task field Spec.Container.PidsLimit: the engine warns: PIDs limit discarded, as variable DB=xxxxx asks"}, lines(logrus.WarnLevel))
}

// So does the answer to the create of a network.
func TestCreateNetworksWarnsOfWhatTheEngineWarns(t *testing.T) {
	t.Parallel()
	client := newFakeClient(t)
	client.networkCreate = func(_ context.Context, name string, _ network.CreateOptions) (network.CreateResponse, error) {
		return network.CreateResponse{ID: "id-of-" + name, Warning: "Network with name " + name + " (id : 4711) already exists"}, nil
	}
	task := plainTask()
	attach(task, "n1", "10.1.0.0/24")
	ctx, hook := hooked(t)
	adapter := newTestAdapter(t, client, task)
	require.NoError(t, adapter.CreateNetworks(ctx))
	require.NoError(t, adapter.CreateNetworks(ctx))
	var warnings []string
	for _, entry := range hook.AllEntries() {
		if entry.Level == logrus.WarnLevel {
			warnings = append(warnings, entry.Message)
			assert.Equal(t, "n1", entry.Data["network.name"])
		}
	}
	assert.Equal(t, []string{"the engine warns: Network with name n1 (id : 4711) already exists"}, warnings)
}

// A stop may take the grace period and the request time-out on top.
func TestShutdownMayTakeTheGracePeriod(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name  string
		grace *gogotypes.Duration
		want  time.Duration
	}{
		{"the task's", &gogotypes.Duration{Seconds: 300}, 301 * time.Second},
		{"the engine's default", nil, 11 * time.Second},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				client := newFakeClient(t)
				client.containerStop = func(ctx context.Context, _ string, _ container.StopOptions) error {
					<-ctx.Done()
					return ctx.Err()
				}
				task := plainTask()
				spec(task).StopGracePeriod = test.grace
				begin := time.Now()
				err := newTestAdapter(t, client, task, WithRequestTimeout(time.Second)).Shutdown(t.Context())
				assert.True(t, exec.IsTemporary(err), err)
				assert.Equal(t, test.want, time.Since(begin))
			})
		})
	}
}

// A grace period is rounded up to whole seconds; less than one second must
// not become an immediate kill. Without one, image and daemon decide.
func TestShutdownGraceIsRoundedUpAndUnsetStaysUnset(t *testing.T) {
	t.Parallel()
	seconds := func(n int) *int { return &n }
	for _, test := range []struct {
		name  string
		grace *gogotypes.Duration
		want  *int
	}{
		{"unset", nil, nil},
		{"500ms", &gogotypes.Duration{Nanos: 5e8}, seconds(1)},
		{"1ns", &gogotypes.Duration{Nanos: 1}, seconds(1)},
		{"1.999s", &gogotypes.Duration{Seconds: 1, Nanos: 999e6}, seconds(2)},
		{"10s", &gogotypes.Duration{Seconds: 10}, seconds(10)},
		{"0", &gogotypes.Duration{}, seconds(0)},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			client := newFakeClient(t)
			var got container.StopOptions
			client.containerStop = func(_ context.Context, _ string, options container.StopOptions) error {
				got = options
				return nil
			}
			task := plainTask()
			spec(task).StopGracePeriod = test.grace
			require.NoError(t, newTestAdapter(t, client, task).Shutdown(t.Context()))
			assert.Equal(t, container.StopOptions{Timeout: test.want}, got)
		})
	}
}

// Over HTTP a stop of a stopped container is a nil error; the text of an
// engine's inside is one too. Nor is there anything to stop, kill or remove when
// the container is gone.
func TestStoppingAndRemovingWhatIsNotThereSucceeds(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name string
		err  error
	}{
		{"unknown container", answer{"No such container: web.1.taskid", cerrdefs.ErrNotFound}},
		{"not found, in other words", answer{"it is not here", cerrdefs.ErrNotFound}},
		{"bare not found", cerrdefs.ErrNotFound},
		{"not running", answer{"cannot kill container: web.1.taskid: container 0123 is not running", cerrdefs.ErrConflict}},
		{"already stopped", errors.New("Container is already stopped")},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			client := newFakeClient(t)
			client.failEverything(test.err)
			adapter := newTestAdapter(t, client, plainTask())
			require.NoError(t, adapter.Shutdown(t.Context()))
			require.NoError(t, adapter.Terminate(t.Context()))
			if !IsStoppedContainer(test.err) {
				require.NoError(t, adapter.Remove(t.Context()))
			}
		})
	}
}

func TestRemoveForcesAndTakesAnonymousVolumes(t *testing.T) {
	t.Parallel()
	client := newFakeClient(t)
	client.containerRemove = func(_ context.Context, _ string, options container.RemoveOptions) error {
		assert.Equal(t, container.RemoveOptions{RemoveVolumes: true, Force: true}, options)
		return nil
	}
	require.NoError(t, newTestAdapter(t, client, plainTask()).Remove(t.Context()))
}

// Somebody else's removal is waited for: networks go only after the container.
func TestRemoveWaitsForARemovalInProgress(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		client := newFakeClient(t)
		client.containerRemove = func(context.Context, string, container.RemoveOptions) error {
			return answer{"removal of container web.1.taskid is already in progress", cerrdefs.ErrConflict}
		}
		begin := time.Now()
		client.containerInspect = func(context.Context, string) (container.InspectResponse, error) {
			if time.Since(begin) < 5*time.Second {
				return inspected("c0", container.StateRemoving, nil), nil
			}
			return container.InspectResponse{}, answer{"No such container: web.1.taskid", cerrdefs.ErrNotFound}
		}
		require.NoError(t, newTestAdapter(t, client, plainTask()).Remove(t.Context()))
		assert.Less(t, len(client.called()), 20)
	})
}

func TestRemoveGivesUpOnARemovalThatNeverEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		client := newFakeClient(t)
		client.containerRemove = func(context.Context, string, container.RemoveOptions) error {
			return answer{"removal of container web.1.taskid is already in progress", cerrdefs.ErrConflict}
		}
		client.containerInspect = func(context.Context, string) (container.InspectResponse, error) {
			return inspected("c0", container.StateRemoving, nil), nil
		}
		begin := time.Now()
		err := newTestAdapter(t, client, plainTask(), WithRequestTimeout(10*time.Second)).Remove(t.Context())
		require.EqualError(t, err, "remove container web.1.taskid: the engine did not answer within 10s")
		assert.True(t, exec.IsTemporary(err))
		assert.Equal(t, 10*time.Second, time.Since(begin))
	})
}

// An engine that fails to remove or to kill a container may say of something else
// that it is not there.
func TestAFailureThatNamesAMissingThingIsNoSuccess(t *testing.T) {
	t.Parallel()
	client := newFakeClient(t)
	noDataSet := answer{`cannot remove container "/web": container 12ab: driver "zfs" failed to remove root filesystem: dataset does not exist`, cerrdefs.ErrInternal}
	client.containerRemove = func(context.Context, string, container.RemoveOptions) error { return noDataSet }
	noFile := answer{"cannot kill container: web: open /run/x: file not found", cerrdefs.ErrInternal}
	client.containerKill = func(context.Context, string, string) error { return noFile }
	adapter := newTestAdapter(t, client, plainTask())
	require.ErrorIs(t, adapter.Remove(t.Context()), noDataSet)
	require.ErrorIs(t, adapter.Terminate(t.Context()), noFile)
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
				sim := newSimEngine(t)
				task := plainTask()
				task.Annotations.Name = test.named
				name := taskName
				if test.named != "" {
					name = test.named
				}
				put := func(status string) *controller {
					sim.mu.Lock()
					sim.containers[name] = &simContainer{id: "found", name: name, config: container.Config{Labels: test.labels},
						state: container.State{Status: status, Running: status == container.StateRunning}}
					sim.mu.Unlock()
					return newSimController(t, sim, taskAt(task, api.TaskStatePreparing))
				}
				accepted := func(what string, err error) {
					if test.own {
						assert.NoError(t, err, what)
					} else {
						assert.Error(t, err, what)
					}
				}
				if err := put(container.StateCreated).Prepare(ctx); test.adopted {
					require.Equal(t, exec.ErrTaskPrepared, err)
				} else {
					require.ErrorContains(t, err, "has its name")
				}
				accepted("Start", put(container.StateCreated).Start(ctx))
				accepted("Wait", put(container.StateExited).Wait(ctx))
				ctlr := put(container.StateExited)
				accepted("Logs", ctlr.adapter.checkLogOwner(container.InspectResponse{
					ContainerJSONBase: &container.ContainerJSONBase{ID: "found"}, Config: &container.Config{Labels: test.labels}}))
				status, err := ctlr.ContainerStatus(ctx)
				require.NoError(t, err)
				assert.Equal(t, test.own, status != nil, "ContainerStatus")
				if test.own || test.named != "" {
					require.NoError(t, put(container.StateRunning).Shutdown(ctx))
					sim.with(name, func(c *simContainer) { assert.Equal(t, test.own, !c.state.Running, "Shutdown") })
				}
				require.NoError(t, put(container.StateRunning).Remove(ctx))
				assert.Equal(t, test.own, len(sim.left()) == 0, "Remove")
			})
		})
	}
}
