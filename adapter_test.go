package dockerexec

import (
	"context"
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
	"github.com/docker/docker/api/types/volume"
	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/moby/swarmkit/v2/api"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// plainTask uses nothing beyond an image.
func plainTask() *api.Task {
	return &api.Task{
		ID:                 "taskid",
		ServiceID:          "serviceid",
		NodeID:             "nodeid",
		Slot:               1,
		ServiceAnnotations: api.Annotations{Name: "web"},
		Spec: api.TaskSpec{Runtime: &api.TaskSpec_Container{
			Container: &api.ContainerSpec{Image: "example/web:1"},
		}},
	}
}

// taskName is how the engine calls the container of plainTask.
const taskName = "web.1.taskid"

func spec(task *api.Task) *api.ContainerSpec { return task.Spec.GetContainer() }

// attach gives the task a bridge network with a subnet of its own.
func attach(task *api.Task, name, subnet string) {
	task.Networks = append(task.Networks, &api.NetworkAttachment{Network: &api.Network{
		ID:          "id-of-" + name,
		Spec:        api.NetworkSpec{Annotations: api.Annotations{Name: name}},
		DriverState: &api.Driver{Name: "bridge"},
		IPAM:        &api.IPAMOptions{Configs: []*api.IPAMConfig{{Subnet: subnet}}},
	}})
}

func newTestAdapter(t testing.TB, client *fakeClient, task *api.Task, opts ...Option) *ContainerAdapter {
	t.Helper()
	adapter, err := NewEngine(client, opts...).Adapter(nil, task, nil)
	require.NoError(t, err)
	return adapter
}

func inspected(id, status string, labels map[string]string) container.InspectResponse {
	return container.InspectResponse{
		ContainerJSONBase: &container.ContainerJSONBase{ID: id, Name: "/" + taskName, State: &container.State{Status: status}},
		Config:            &container.Config{Labels: labels},
	}
}

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
