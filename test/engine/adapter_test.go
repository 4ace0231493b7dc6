package engine_test

import (
	"bytes"
	"context"
	"strings"
	"testing"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/mount"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/pkg/stdcopy"
	"github.com/dockerexec/dockerexec"
	gogotypes "github.com/gogo/protobuf/types"
	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/moby/swarmkit/v2/api"
	"github.com/moby/swarmkit/v2/identity"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestEngineRunsATaskToItsEnd(t *testing.T) {
	sharesEngine(t)
	client := engineClient(t)
	task := engineTask(t, "print", "3", "hello")
	attach(task, "dockerexec-life", "10.213.1.0/24")
	spec(task).Mounts = []api.Mount{{Type: api.MountTypeVolume, Source: "dockerexec-life", Target: "/data",
		VolumeOptions: &api.Mount_VolumeOptions{DriverConfig: &api.Driver{Name: "local"}}}}
	adapter := engineAdapter(t, client, task)
	ctx := t.Context()

	require.NoError(t, adapter.PullImage(ctx))
	require.NoError(t, adapter.CreateNetworks(ctx))
	require.NoError(t, adapter.CreateVolumes(ctx))
	t.Cleanup(func() {
		assert.NoError(t, client.VolumeRemove(context.WithoutCancel(ctx), "dockerexec-life", false))
	})
	require.NoError(t, adapter.Create(ctx))
	assert.Equal(t, exec.ErrTaskPrepared, engineTwin(t, client, task).Create(ctx))
	require.NoError(t, adapter.Start(ctx))
	ended, err := adapter.Wait(ctx)
	require.NoError(t, err)
	assert.Equal(t, container.StateExited, ended.State.Status)
	assert.Equal(t, 0, ended.State.ExitCode)
	require.NoError(t, dockerexec.ExitError(ended, nil))

	body, err := adapter.Logs(ctx, api.LogSubscriptionOptions{Streams: []api.LogStream{api.LogStreamStdout}})
	require.NoError(t, err)
	var stdout, stderr bytes.Buffer
	_, err = stdcopy.StdCopy(&stdout, &stderr, body)
	require.NoError(t, err)
	require.NoError(t, body.Close())
	assert.Equal(t, 3, bytes.Count(stdout.Bytes(), []byte("\n")), stdout.String())
	assert.Contains(t, stdout.String(), "hello")
	assert.Empty(t, stderr.String())

	require.NoError(t, adapter.Remove(ctx))
	_, err = adapter.Inspect(ctx)
	assert.True(t, dockerexec.IsUnknownContainer(err), err)
	require.NoError(t, engineTwin(t, client, task).RemoveNetworks(ctx))
	_, err = client.NetworkInspect(ctx, "dockerexec-life", network.InspectOptions{})
	assert.True(t, cerrdefs.IsNotFound(err), err)
}

func TestEngineExitCodeOfAFailedTask(t *testing.T) {
	sharesEngine(t)
	client := engineClient(t)
	adapter := engineAdapter(t, client, engineTask(t, "exit", "3"))
	ctx := t.Context()
	require.NoError(t, adapter.PullImage(ctx))
	require.NoError(t, adapter.Create(ctx))
	require.NoError(t, adapter.Start(ctx))
	ended, err := adapter.Wait(ctx)
	require.NoError(t, err)
	require.EqualError(t, dockerexec.ExitError(ended, nil), "task: non-zero exit (3)")
}

// The classifiers on what the running engine really answers.
func TestEngineAnswersAreClassified(t *testing.T) {
	sharesEngine(t)
	client := engineClient(t)
	ctx := t.Context()
	task := engineTask(t, "exit", "0")
	attach(task, "dockerexec-answers", "10.213.2.0/24")
	adapter := engineAdapter(t, client, task)
	name := adapter.ContainerName()

	_, err := client.ContainerInspect(ctx, name)
	assert.True(t, dockerexec.IsUnknownContainer(err), err)
	err = client.ContainerStart(ctx, name, container.StartOptions{})
	assert.True(t, dockerexec.IsUnknownContainer(err), err)
	err = client.ContainerStop(ctx, name, container.StopOptions{})
	assert.True(t, dockerexec.IsUnknownContainer(err), err)
	err = client.ContainerKill(ctx, name, "")
	assert.True(t, dockerexec.IsUnknownContainer(err), err)
	err = client.ContainerRemove(ctx, name, container.RemoveOptions{})
	assert.True(t, dockerexec.IsUnknownContainer(err), err)

	_, err = client.ContainerCreate(ctx, &container.Config{Image: "example/none:1"}, nil, nil, nil, name)
	require.Error(t, err)
	assert.False(t, dockerexec.IsUnknownContainer(err), err)
	assert.False(t, dockerexec.IsContainerCreateNameConflict(err), err)

	require.NoError(t, adapter.PullImage(ctx))
	require.NoError(t, adapter.CreateNetworks(ctx))
	_, err = client.NetworkCreate(ctx, "dockerexec-answers", network.CreateOptions{Driver: "bridge"})
	assert.True(t, dockerexec.IsNetworkExistError(err, "dockerexec-answers"), err)
	assert.False(t, dockerexec.IsNetworkExistError(err, "dockerexec"), err)
	assert.False(t, dockerexec.IsContainerCreateNameConflict(err) && !dockerexec.IsNetworkExistError(err, "dockerexec-answers"), err)

	require.NoError(t, adapter.Create(ctx))
	_, err = client.ContainerCreate(ctx, &container.Config{Image: spec(task).Image}, nil, nil, nil, name)
	assert.True(t, dockerexec.IsContainerCreateNameConflict(err), err)
	assert.False(t, dockerexec.IsUnknownContainer(err), err)

	err = client.ContainerKill(ctx, name, "")
	assert.True(t, dockerexec.IsStoppedContainer(err), err)
	require.NoError(t, client.ContainerStop(ctx, name, container.StopOptions{}), "a 304 is a nil error")

	spec(task).Args = []string{"sleep", "1m"}
	running := engineTask(t, "sleep", "1m")
	running.Networks = task.Networks
	second := engineAdapter(t, client, running)
	require.NoError(t, second.CreateNetworks(ctx))
	require.NoError(t, second.Create(ctx))
	require.NoError(t, second.Start(ctx))
	err = client.NetworkRemove(ctx, "dockerexec-answers")
	assert.True(t, dockerexec.IsActiveEndpointError(err), err)
	err = client.NetworkRemove(ctx, "bridge")
	require.Error(t, err)
	assert.False(t, dockerexec.IsActiveEndpointError(err), err)
	err = client.NetworkRemove(ctx, "dockerexec-none")
	require.Error(t, err)
	assert.False(t, dockerexec.IsUnknownContainer(err), err)
	assert.False(t, dockerexec.IsActiveEndpointError(err), err)

	// Two tasks of one network: the first removal leaves it, the last one takes it.
	require.NoError(t, adapter.Remove(ctx))
	require.NoError(t, adapter.RemoveNetworks(ctx))
	_, err = client.NetworkInspect(ctx, "dockerexec-answers", network.InspectOptions{})
	require.NoError(t, err)
	require.NoError(t, second.Remove(ctx))
	require.NoError(t, second.RemoveNetworks(ctx))
	_, err = client.NetworkInspect(ctx, "dockerexec-answers", network.InspectOptions{})
	assert.True(t, cerrdefs.IsNotFound(err), err)
}

func TestEngineLeavesAStrangersContainerAlone(t *testing.T) {
	sharesEngine(t)
	client := engineClient(t)
	ctx := t.Context()
	task := engineTask(t, "exit", "0")
	task.Annotations.Name = "dockerexec-strangers"
	adapter := engineAdapter(t, client, task)
	require.NoError(t, adapter.PullImage(ctx))

	created, err := client.ContainerCreate(ctx, &container.Config{Image: spec(task).Image}, nil, nil, nil, "dockerexec-strangers")
	require.NoError(t, err)
	t.Cleanup(func() {
		assert.NoError(t, client.ContainerRemove(context.WithoutCancel(ctx), created.ID, container.RemoveOptions{}))
	})

	err = adapter.Create(ctx)
	assert.True(t, dockerexec.IsContainerCreateNameConflict(err), err)
	require.NoError(t, adapter.Remove(ctx))
	_, err = client.ContainerInspect(ctx, created.ID)
	require.NoError(t, err)
}

func TestEngineStopsWithinTheGracePeriod(t *testing.T) {
	sharesEngine(t)
	client := engineClient(t)
	ctx := t.Context()
	task := engineTask(t, "ignore-term")
	spec(task).StopGracePeriod = &gogotypes.Duration{Nanos: 500e6}
	adapter := engineAdapter(t, client, task)
	require.NoError(t, adapter.PullImage(ctx))
	require.NoError(t, adapter.Create(ctx))
	require.NoError(t, adapter.Start(ctx))
	awaitReady(t, adapter)
	require.NoError(t, adapter.Shutdown(ctx))
	require.NoError(t, adapter.Shutdown(ctx), "a stopped container")
	require.NoError(t, adapter.Terminate(ctx), "a stopped container")
	ended, err := adapter.Wait(ctx)
	require.NoError(t, err)
	assert.Equal(t, 137, ended.State.ExitCode)
}

// What the package refuses beforehand no engine carries out: it refuses the create or
// the start, or the program cannot be run.
func TestEngineRefusesWhatIsRefusedBeforehand(t *testing.T) {
	sharesEngine(t)
	client := engineClient(t)
	warmImage(t, client)
	long := strings.Repeat("x", 65)
	no := int64(4194305)
	tmpfs := func(options string) func(*container.Config, *container.HostConfig) {
		return func(_ *container.Config, h *container.HostConfig) { h.Tmpfs = map[string]string{"/t": options} }
	}
	config := func(change func(*container.Config)) func(*container.Config, *container.HostConfig) {
		return func(c *container.Config, _ *container.HostConfig) { change(c) }
	}
	for name, change := range map[string]func(*container.Config, *container.HostConfig){
		"hostname":          config(func(c *container.Config) { c.Hostname = long }),
		"hostname in bytes": config(func(c *container.Config) { c.Hostname = strings.Repeat("ä", 33) }),
		"hostname with NUL": config(func(c *container.Config) { c.Hostname = "a\x00" }),
		"variable with NUL": config(func(c *container.Config) { c.Env = []string{"A=\x00"} }),
		"command with NUL":  config(func(c *container.Config) { c.Entrypoint = []string{"/testtask\x00"} }),
		"argument with NUL": config(func(c *container.Config) { c.Cmd = []string{"exit", "0", "\x00"} }),
		"user with NUL":     config(func(c *container.Config) { c.User = "0\x00" }),
		"folder with NUL":   config(func(c *container.Config) { c.WorkingDir = "/\x00" }),
		"empty command":     config(func(c *container.Config) { c.Entrypoint = []string{"", "/testtask"} }),
		"folder":            config(func(c *container.Config) { c.WorkingDir = "work" }),
		"signal":            config(func(c *container.Config) { c.StopSignal = "SIGSTOPP" }),
		"signal 0":          config(func(c *container.Config) { c.StopSignal = "0" }),
		"real-time signal":  config(func(c *container.Config) { c.StopSignal = "SIGRTMIN+16" }),
		"group":             func(_ *container.Config, h *container.HostConfig) { h.GroupAdd = []string{""} },
		"group with NUL":    func(_ *container.Config, h *container.HostConfig) { h.GroupAdd = []string{"0\x00"} },
		"memory":            func(_ *container.Config, h *container.HostConfig) { h.Memory = 6<<20 - 1 },
		"pids":              func(_ *container.Config, h *container.HostConfig) { h.PidsLimit = &no },
		"sysctl of the host": func(_ *container.Config, h *container.HostConfig) {
			h.NetworkMode, h.Sysctls = "host", map[string]string{"net.core.somaxconn": "1024"}
		},
		"size":  tmpfs("size=1mb"),
		"mode":  tmpfs("mode=789"),
		"owner": tmpfs("uid=tester"),
		"tmpfs on Windows": func(_ *container.Config, h *container.HostConfig) {
			h.Mounts = []mount.Mount{{Type: mount.TypeTmpfs, Target: `C:\t`}}
		},
		"volume name": func(_ *container.Config, h *container.HostConfig) {
			h.Mounts = []mount.Mount{{Type: mount.TypeVolume, Source: "a/b", Target: "/t", VolumeOptions: &mount.VolumeOptions{DriverConfig: &mount.Driver{Name: "local"}}}}
		},
	} {
		c, h := &container.Config{Image: fromHarness(t, "DOCKEREXEC_TEST_IMAGE"), Cmd: []string{"exit", "0"}}, &container.HostConfig{}
		change(c, h)
		made, err := client.ContainerCreate(t.Context(), c, h, nil, nil, "")
		if err != nil {
			continue
		}
		err = client.ContainerStart(t.Context(), made.ID, container.StartOptions{})
		if err == nil && name == "argument with NUL" {
			ended, errs := client.ContainerWait(t.Context(), made.ID, container.WaitConditionNotRunning)
			select {
			case answer := <-ended:
				assert.NotZero(t, answer.StatusCode, name)
			case err := <-errs:
				assert.NoError(t, err, name)
			}
		} else {
			assert.Error(t, err, name)
		}
		require.NoError(t, client.ContainerRemove(t.Context(), made.ID, container.RemoveOptions{Force: true}))
	}

	// The longest host name, the least memory and the most processes.
	task := engineTask(t, "exit", "0")
	spec(task).Hostname, spec(task).PidsLimit = long[:64], no-1
	task.Spec.Resources = &api.ResourceRequirements{Limits: &api.Resources{MemoryBytes: 6 << 20}}
	require.NoError(t, engineAdapter(t, client, task).Create(t.Context()))
	task = task.Copy()
	task.ID, task.Spec.Resources = identity.NewID(), nil // that is too little for some runtimes
	adapter := engineAdapter(t, client, task)
	require.NoError(t, adapter.Create(t.Context()))
	require.NoError(t, adapter.Start(t.Context()))
}
