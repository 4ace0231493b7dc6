package engine_test

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/image"
	gogotypes "github.com/gogo/protobuf/types"
	"github.com/moby/swarmkit/v2/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// What a cell's task has, and how far it has come.

func (c *faultCell) use() {
	var err error
	c.adapter, err = c.engine.Adapter(nil, c.task, c.deps)
	require.NoError(c, err)
	c.name = c.adapter.ContainerName()
	c.about = c.name
}

func (c *faultCell) useCreated() {
	c.use()
	require.NoError(c, c.fresh().Create(c.ctx()))
}

func (c *faultCell) useStarted() {
	c.useCreated()
	require.NoError(c, c.fresh().Start(c.ctx()))
}

// awaitLook is for operations whose onHit is killOnceLooked.
func (c *faultCell) awaitLook() {
	c.looked = c.proxy.whenAnswered("GET containers/" + c.name + "/json")
}

// stopGrace is the grace period of a container that lingers.
const stopGrace = 5 * time.Second

// useLingering starts a container that ends a second after its first stop signal, so
// that it would get a second one too.
func (c *faultCell) useLingering() {
	c.linger()
	c.useStarted()
	c.noteLingering()
}

// linger has the task's container linger when it is stopped.
func (c *faultCell) linger() {
	spec(c.task).Args = []string{"linger", "1s", canaryArgument}
	spec(c.task).StopGracePeriod = gogotypes.DurationProto(stopGrace)
}

// noteLingering waits until the container would notice a signal.
func (c *faultCell) noteLingering() {
	c.id = c.seen().ID
	require.Eventually(c, func() bool {
		sink := &logSink{}
		return c.adapter.PublishLogs(c.ctx(), api.LogSubscriptionOptions{}, sink) == nil && slices.Contains(sink.lines(), "stdout ready\n")
	}, time.Minute, 10*time.Millisecond)
}

// untilReady waits until the container has logged all that it will.
func (c *faultCell) untilReady() {
	require.Eventually(c, func() bool {
		sink := &logSink{}
		return c.adapter.PublishLogs(c.ctx(), api.LogSubscriptionOptions{}, sink) == nil && len(sink.lines()) == len(loggedLines)+1
	}, time.Minute, 10*time.Millisecond)
}

// share has the cell look at a task that others look at too.
func (c *faultCell) share(task *api.Task) {
	c.shared, c.task = true, task.Copy()
	c.use()
}

// control makes the controller of a task that has come as far as state.
func (c *faultCell) control(state api.TaskState) {
	made, err := c.executor.Controller(taskAt(c.task, state))
	require.NoError(c, err)
	c.ctlr = made.(taskController)
	c.use()
}

// controlStarted makes a controller that has made its task's container.
func (c *faultCell) controlStarted() {
	c.join(1)
	c.control(api.TaskStateAccepted)
	require.NoError(c, c.ctlr.Prepare(c.ctx()))
	require.NoError(c, c.ctlr.Start(c.ctx()))
}

// controlLingering makes one whose container lingers when it is stopped.
func (c *faultCell) controlLingering() {
	c.linger()
	c.controlStarted()
	c.noteLingering()
}

// controlAnew makes one that has not.
func (c *faultCell) controlAnew() {
	c.join(1)
	require.NoError(c, c.fresh().CreateNetworks(c.ctx()))
	c.useStarted()
	c.control(api.TaskStateRunning)
}

// createHalfConnected makes the container without its last network, as an engine
// that joins one network at a time does when the connect is lost.
func (c *faultCell) createHalfConnected() {
	require.NoError(c, c.fresh().CreateNetworks(c.ctx()))
	require.NoError(c, c.fresh().Create(c.ctx()))
	last := c.network(len(c.task.Networks) - 1)
	require.NoError(c, c.bench.client.NetworkDisconnect(c.ctx(), last, c.name, false))
	require.NotContains(c, c.seen().NetworkSettings.Networks, last)
}

// controlVanishedNetwork makes the controller of a container whose network is gone.
func (c *faultCell) controlVanishedNetwork() {
	c.join(1)
	require.NoError(c, c.fresh().CreateNetworks(c.ctx()))
	c.useCreated()
	require.NoError(c, c.bench.client.NetworkRemove(c.ctx(), withoutItsUsers(c.tb(), c.bench.client, c.network(0))))
	c.control(api.TaskStateStarting)
}

// startStranger has somebody else's container have the task's name.
func (c *faultCell) startStranger() {
	made, err := c.bench.client.ContainerCreate(c.ctx(), &container.Config{Image: c.bench.image, Cmd: []string{"sleep", "1h"}},
		&container.HostConfig{NetworkMode: "none"}, nil, nil, c.name)
	require.NoError(c, err)
	c.stranger = made.ID
	require.NoError(c, c.bench.client.ContainerStart(c.ctx(), c.name, container.StartOptions{}))
}

func (c *faultCell) controlStranger() {
	c.rename()
	c.control(api.TaskStateRunning)
	c.startStranger()
}

func (c *faultCell) network(i int) string { return fmt.Sprintf("dockerexec-fault-%d-%d", c.number, i) }

// join has the task join networks of its own.
func (c *faultCell) join(networks int) {
	c.task.Networks = nil
	for i := range networks {
		n := 2*c.number + i
		attach(c.task, c.network(i), fmt.Sprintf("10.%d.%d.0/24", 224+n>>8, n&255))
	}
}

func (c *faultCell) useNetworks() {
	c.join(2)
	c.use()
	require.NoError(c, c.fresh().CreateNetworks(c.ctx()))
	c.about = c.network(0)
}

// mount gives the task volumes of its own.
func (c *faultCell) mount(volumes int) {
	for i := range volumes {
		name := fmt.Sprintf("dockerexec-fault-%d-%d", c.number, i)
		c.volumes = append(c.volumes, name)
		spec(c.task).Mounts = append(spec(c.task).Mounts, api.Mount{
			Type: api.MountTypeVolume, Source: name, Target: "/data/" + name,
			VolumeOptions: &api.Mount_VolumeOptions{DriverConfig: &api.Driver{
				Name: "local", Options: map[string]string{"type": "tmpfs", "device": "tmpfs", "o": canaryOption},
			}},
		})
	}
}

// useSecret gives the task a secret, in a folder of the cell's own.
func (c *faultCell) useSecret() {
	deps := newStores()
	deps.secrets.Add(api.Secret{ID: "s1", Spec: api.SecretSpec{Data: []byte(canaryPayload)}})
	c.deps = deps
	spec(c.task).Secrets = []*api.SecretReference{secretFile("s1", &api.FileTarget{Name: "password", Mode: 0o400})}
	c.files = c.secretsDir()
	c.use()
}

// leaveFiles has the folder hold what an earlier process has left of another task,
// so that the engine's containers are listed.
func (c *faultCell) leaveFiles() {
	info, err := c.bench.client.Info(c.ctx())
	require.NoError(c, err)
	engine := info.ID
	if isPodman() { // its ID is another one in each answer
		engine = "changing-id"
	}
	left := filepath.Join(c.files, engine, "left")
	require.NoError(c, os.MkdirAll(left, 0o700))
	before := time.Now().Add(-time.Hour)
	require.NoError(c, os.Chtimes(left, before, before)) // newer ones stay
}

// loseCreate has the engine make the controller's container and its answer be lost.
func (c *faultCell) loseCreate() {
	c.proxy.arm(&faultPlan{fault: faultLost, target: "POST containers/create", nth: 1})
	assert.Error(c, c.ctlr.Prepare(c.ctx()))
	_, _, err := c.proxy.disarm()
	require.NoError(c, err)
	isCreated(c)
}

// controlStray makes the controller of a container that runs without its engine
// having seen the start.
func (c *faultCell) controlStray() {
	c.useCreated()
	startBehindTheEngine(c.tb(), c.bench.client, c.seen().ID, "sleep", "1h")
	// containerd tells the engine a little later.
	require.Eventually(c, func() bool { return c.seen().State.Running }, time.Minute, 10*time.Millisecond)
	c.control(api.TaskStateStarting)
}

func (c *faultCell) rename() { c.task.Annotations.Name = fmt.Sprintf("dockerexec-fault-%d", c.number) }

func (c *faultCell) useManyCores() {
	c.task.Spec.Resources = &api.ResourceRequirements{Limits: &api.Resources{NanoCPUs: 1e12}}
	c.use()
}

// checkHealth has the container be healthy as long as it has the file.
func (c *faultCell) checkHealth(file string) {
	spec(c.task).Healthcheck = &api.HealthConfig{
		Test: []string{"CMD", "/testtask", "health", file}, Retries: 1,
		Interval: gogotypes.DurationProto(100 * time.Millisecond), Timeout: gogotypes.DurationProto(10 * time.Second),
	}
}

// push gives the task an image of its own that is in the registry and not on the
// engine.
func (c *faultCell) push() {
	c.pushAs(func(ref string) {
		c.read(c.bench.client.ImageImport(c.ctx(), image.ImportSource{Source: bytes.NewReader(randomTar(c.tb(), 1<<10)), SourceName: "-"}, ref, image.ImportOptions{}))
	})
}

// pushProgram is push, and the image has the test image's program.
func (c *faultCell) pushProgram() {
	c.pushAs(func(ref string) { require.NoError(c, c.bench.client.ImageTag(c.ctx(), c.bench.image, ref)) })
}

func (c *faultCell) pushAs(tag func(ref string)) {
	ref := fmt.Sprintf("%s/dockerexec-fault-%d:1", fromHarness(c.tb(), "DOCKEREXEC_TEST_REGISTRY"), c.number)
	tag(ref)
	c.pushed = ref
	c.read(c.bench.client.ImagePush(c.ctx(), ref, image.PushOptions{RegistryAuth: engineAuth(c.tb())}))
	_, err := c.bench.client.ImageRemove(c.ctx(), ref, image.RemoveOptions{Force: true, PruneChildren: true})
	require.NoError(c, err)
	spec(c.task).Image = ref
}

// read reads the answer to an import or a push.
func (c *faultCell) read(body io.ReadCloser, err error) {
	require.NoError(c, err)
	defer body.Close()
	text, err := io.ReadAll(body)
	require.NoError(c, err)
	require.NotContains(c, string(text), `"error"`)
}

// besideUs is an engine whose host the tests are on, as root.
func besideUs(*faultBench) bool { return isPrivate() }

// besideContainerd is an engine that takes up what its containerd starts.
func besideContainerd(b *faultBench) bool { return besideUs(b) && !isPodman() }

// checksHealth is an engine that runs health checks: Podman leaves them to systemd.
func checksHealth(*faultBench) bool { return !isPodman() }

// servesPlugins is an engine that can be asked for its plugins.
func servesPlugins(*faultBench) bool { return !isPodman() }

// refusesManyCores is an engine that refuses a CPU limit above its cores.
func refusesManyCores(*faultBench) bool { return !isPodman() }

// oneNetworkAtATime is an engine at whose API version a create joins one network.
func oneNetworkAtATime(b *faultBench) bool {
	return !atLeast(b.client.ClientVersion(), "1.44")
}

// useRenamed starts a container that lingers, and that somebody has renamed.
func (c *faultCell) useRenamed() {
	c.useLingering()
	c.name += "-renamed"
	require.NoError(c, c.bench.client.ContainerRename(c.ctx(), c.id, c.name))
	// An adapter that has never seen it.
	var err error
	c.adapter, err = c.engine.Adapter(nil, c.task, nil)
	require.NoError(c, err)
}
