package dockerexec

import (
	"context"
	"testing"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/api/types/system"
	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/moby/swarmkit/v2/api"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var nameTaken = answer{`Conflict. The container name "/web.1.taskid" is already in use by container "c0". You have to remove (or rename) that container to be able to reuse that name.`, cerrdefs.ErrConflict}

// creating has the fake answer each ContainerCreate with the next of errs, nil
// standing for success, and the last one for ever.
func (f *fakeClient) creating(errs ...error) {
	f.containerCreate = func(context.Context, *container.Config, *container.HostConfig, *network.NetworkingConfig, *ocispec.Platform, string) (container.CreateResponse, error) {
		err := errs[0]
		if len(errs) > 1 {
			errs = errs[1:]
		}
		if err != nil {
			return container.CreateResponse{}, err
		}
		return container.CreateResponse{ID: "c0"}, nil
	}
}

func (f *fakeClient) inspecting(answer container.InspectResponse, err error) {
	f.containerInspect = func(context.Context, string) (container.InspectResponse, error) { return answer, err }
}

var ofThisTask = map[string]string{"com.docker.swarm.task.id": "taskid"}

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

// What an engine does not do of a request it says only here.
func TestCreateLogsTheEnginesWarnings(t *testing.T) {
	t.Parallel()
	client := newFakeClient(t)
	client.containerCreate = func(context.Context, *container.Config, *container.HostConfig, *network.NetworkingConfig, *ocispec.Platform, string) (container.CreateResponse, error) {
		return container.CreateResponse{ID: "c0", Warnings: []string{"Your kernel does not support memory swappiness capabilities or the cgroup is not mounted. Memory swappiness discarded."}}, nil
	}
	ctx, lines := logged(t)
	require.NoError(t, newTestAdapter(t, client, plainTask()).Create(ctx))
	assert.Equal(t, []string{
		"container created",
		"the engine warns: Your kernel does not support memory swappiness capabilities or the cgroup is not mounted. Memory swappiness discarded.",
	}, lines(logrus.DebugLevel))
	assert.Empty(t, lines(logrus.InfoLevel))
}
