package dockerexec

import (
	"context"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/events"
	engineimage "github.com/docker/docker/api/types/image"
	"github.com/docker/docker/api/types/mount"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/api/types/volume"
	"github.com/docker/go-connections/nat"
	gogotypes "github.com/gogo/protobuf/types"
	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/moby/swarmkit/v2/api"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/pkg/errors"
	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockerexec/dockerexec/dockerexectest"
)

func namedResource(kind, value string) *api.GenericResource {
	return &api.GenericResource{Resource: &api.GenericResource_NamedResourceSpec{
		NamedResourceSpec: &api.NamedGenericResource{Kind: kind, Value: value},
	}}
}

// The caller's task stays as it is, so that a template which expands to a
// template is expanded once however often the task comes.
func TestTaskIsNotChanged(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"templates", "everything"} {
		task := goldenTask(t, name)
		first := requestJSON(t, newTestConfig(t, task))
		second := requestJSON(t, newTestConfig(t, task))
		assert.Equal(t, goldenTask(t, name), task)
		assert.JSONEq(t, string(first), string(second))
	}
	task := plainTask()
	spec(task).Env = []string{`A={{"{{"}}.Task.ID{{"}}"}}`}
	for range 3 {
		assert.Equal(t, []string{"A={{.Task.ID}}"}, newTestConfig(t, task).config().Env)
	}
}

// A node without a platform, and no node at all, leave template values empty.
func TestNodeHalfFilled(t *testing.T) {
	t.Parallel()
	task := plainTask()
	spec(task).Env = []string{"AT={{.Node.Hostname}}/{{.Node.Platform.OS}}"}
	for node, want := range map[*api.NodeDescription]string{
		nil:                  "AT=/",
		{}:                   "AT=/",
		{Hostname: "node-2"}: "AT=node-2/",
	} {
		config, err := newContainerConfig(node, task)
		require.NoError(t, err)
		assert.Equal(t, []string{want}, config.config().Env)
		if node != nil {
			assert.Nil(t, node.Platform, "the caller's node is left alone")
		}
	}
}

// An attachment without a network is refused, not a nil dereference.
func TestAttachmentWithoutNetwork(t *testing.T) {
	t.Parallel()
	task := plainTask()
	task.Networks = []*api.NetworkAttachment{{}}
	_, err := newContainerConfig(nil, task)
	require.EqualError(t, err, "dockerexec: task field Networks[0].Network: is nil")
}

// What a network leaves open is the engine's default.
func TestNetworkHalfFilled(t *testing.T) {
	t.Parallel()
	for _, ipam := range []*api.IPAMOptions{nil, {}, {Configs: []*api.IPAMConfig{{}}}, {Driver: &api.Driver{}}} {
		task := plainTask()
		n := namedNetwork("backend")
		n.IPAM = ipam
		task.Networks = []*api.NetworkAttachment{attachment(n)}
		networks := newTestConfig(t, task).networks()
		require.Len(t, networks, 1)
		assert.Empty(t, networks[0].options.Driver)
		if ipam != nil {
			assert.Equal(t, &network.IPAM{}, networks[0].options.IPAM)
		}
	}
}

// Calls at the same time share no memory, with resources to append or
// without; the race detector looks on.
func TestConcurrentTranslation(t *testing.T) {
	t.Parallel()
	for _, resources := range [][]*api.GenericResource{nil, {namedResource("gpu", "1"), namedResource("ssd", "2")}} {
		task := plainTask()
		spec(task).Env = append(make([]string, 0, 8), "A=1", "B=2", "C=3")
		task.AssignedGenericResources = resources
		want := []string{"A=1", "B=2", "C=3", "DOCKER_RESOURCE_GPU=1", "DOCKER_RESOURCE_SSD=2"}[:3+len(resources)]
		config := newTestConfig(t, task)
		var calls sync.WaitGroup
		for range 4 {
			calls.Go(func() {
				env := config.config().Env
				assert.Equal(t, want, env)
				for i := range env {
					env[i] = "scribble"
				}
			})
		}
		calls.Wait()
		assert.Equal(t, []string{"A=1", "B=2", "C=3", "", ""}, spec(task).Env[:5])
	}
}

// The environment has one order, call for call.
func TestEnvIsSorted(t *testing.T) {
	t.Parallel()
	task := plainTask()
	for _, kind := range []string{"h", "c", "GPU", "a", "f", "gpu", "b", "g", "e", "d"} {
		task.AssignedGenericResources = append(task.AssignedGenericResources, namedResource(kind, "of-"+kind))
	}
	for range 20 {
		assert.Equal(t, []string{
			"DOCKER_RESOURCE_A=of-a", "DOCKER_RESOURCE_B=of-b", "DOCKER_RESOURCE_C=of-c", "DOCKER_RESOURCE_D=of-d",
			"DOCKER_RESOURCE_E=of-e", "DOCKER_RESOURCE_F=of-f", "DOCKER_RESOURCE_G=of-g",
			"DOCKER_RESOURCE_GPU=of-GPU,of-gpu", "DOCKER_RESOURCE_H=of-h",
		}, newTestConfig(t, task).config().Env)
	}
}

// What a caller does to a request reaches neither the next request nor the task.
func TestRequestsShareNothing(t *testing.T) {
	t.Parallel()
	for _, name := range goldenNames(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			task := goldenTask(t, name)
			config := newTestConfig(t, task)
			want := requestJSON(t, config)
			parts := []any{
				config.config(), config.hostConfig(), config.networkingConfig(), config.volumes(false),
				config.platform(), identityOf(config.task).stopTimeout, config.warnings(), config.endpointNames(),
			}
			for _, n := range config.networks() {
				parts = append(parts, &n.options, &n.endpoint)
			}
			for _, part := range parts {
				scribble(reflect.ValueOf(part))
			}
			assert.JSONEq(t, string(want), string(requestJSON(t, config)))
			assert.Equal(t, goldenTask(t, name), task)

			scribble(reflect.ValueOf(task)) // nor does what happens to the task later
			assert.JSONEq(t, string(want), string(requestJSON(t, config)))
		})
	}
}

// scribble overwrites all that can be reached from v.
func scribble(v reflect.Value) {
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface:
		if !v.IsNil() {
			scribble(v.Elem())
		}
	case reflect.Struct:
		for i := range v.NumField() {
			scribble(v.Field(i))
		}
	case reflect.Slice:
		for i := range v.Len() {
			scribble(v.Index(i))
		}
	case reflect.Map:
		for _, key := range v.MapKeys() {
			scribble(v.MapIndex(key))
			v.SetMapIndex(key, reflect.Zero(v.Type().Elem()))
		}
	default:
		if v.CanSet() {
			v.SetZero()
		}
	}
}

// Durations that are out of range are refused, not taken for 0, which would
// kill at once; see TestRefusals for the others.
func TestDurationsOutOfRange(t *testing.T) {
	t.Parallel()
	task := plainTask()
	spec(task).StopGracePeriod = &gogotypes.Duration{Seconds: 315576000001}
	_, err := newContainerConfig(nil, task)
	require.ErrorContains(t, err, "dockerexec: task field Spec.Container.StopGracePeriod: ")

	spec(task).StopGracePeriod = nil
	spec(task).Healthcheck = &api.HealthConfig{Interval: &gogotypes.Duration{Seconds: 1, Nanos: -1}}
	_, err = newContainerConfig(nil, task)
	require.ErrorContains(t, err, "dockerexec: task field Spec.Container.Healthcheck.Interval: ")
}

func TestGracePeriodIsRoundedUp(t *testing.T) {
	t.Parallel()
	for grace, want := range map[time.Duration]int{
		0:                       0,
		1:                       1,
		500 * time.Millisecond:  1,
		time.Second:             1,
		time.Second + 1:         2,
		10 * time.Second:        10,
		9999 * time.Millisecond: 10,
	} {
		task := plainTask()
		spec(task).StopGracePeriod = gogotypes.DurationProto(grace)
		config := newTestConfig(t, task)
		require.NotNil(t, identityOf(config.task).stopTimeout, grace)
		assert.Equal(t, want, *identityOf(config.task).stopTimeout, grace)
		assert.Equal(t, want, *config.config().StopTimeout, grace)
	}
	unset := newTestConfig(t, plainTask())
	assert.Nil(t, identityOf(unset.task).stopTimeout)
	assert.Nil(t, unset.config().StopTimeout)
}

// What the reference drops arrives, or the task is refused.
func TestNothingIsDropped(t *testing.T) {
	t.Parallel()
	config := newTestConfig(t, goldenTask(t, "everything"))
	host := config.hostConfig()
	assert.Equal(t, []string{"label=disable", "seccomp=unconfined", "apparmor=unconfined", "no-new-privileges=true"}, host.SecurityOpt)
	assert.True(t, host.ReadonlyRootfs)
	assert.Equal(t, map[string]string{"net.core.somaxconn": "1024"}, host.Sysctls)
	assert.Equal(t, []string{"10.0.0.53"}, host.DNS)
	assert.Equal(t, int64(64<<20), host.MemorySwap)
	assert.Equal(t, mount.ConsistencyCached, host.Mounts[0].Consistency)
	networks := config.networks()
	assert.True(t, networks[0].options.Internal)
	assert.True(t, *networks[0].options.EnableIPv6)
	assert.Equal(t, "nid1", networks[0].options.Labels["com.dockerexec.network"])
	assert.Equal(t, []string{"db"}, config.networkingConfig().EndpointsConfig["backend"].Aliases)
	assert.Equal(t, map[string]string{"com.example.opt": "1"},
		newTestConfig(t, goldenTask(t, "network-endpoint")).networkingConfig().EndpointsConfig["backend"].DriverOpts)
	assert.Equal(t, int64(0), *newTestConfig(t, goldenTask(t, "swappiness")).hostConfig().MemorySwappiness)
	assert.Equal(t, "a/b", newTestConfig(t, goldenTask(t, "mount-volume-subpath")).hostConfig().Mounts[0].VolumeOptions.Subpath)
	assert.Len(t, newTestConfig(t, goldenTask(t, "ports-ingress")).warnings(), 1)
	for field, change := range map[string]func(*api.Task){
		"Spec.Container.Secrets[0].Target": func(task *api.Task) { spec(task).Secrets = []*api.SecretReference{{SecretID: "s"}} },
		"Spec.Container.Configs[0].Target": func(task *api.Task) { spec(task).Configs = []*api.ConfigReference{{ConfigID: "c"}} },
		"Spec.Container.Mounts[0].Source":  withMount(api.Mount{Type: api.MountTypeCluster, Source: "v", Target: "/v"}),
	} {
		task := plainTask()
		change(task)
		_, err := newContainerConfig(nil, task)
		assert.ErrorContains(t, err, "dockerexec: task field "+field+": ")
	}
}

// A volume without a name is made with the container, not ahead of it.
// A CPU limit neither overflows nor becomes a quota that is too small.
// One port of the container may be published several times.
// A tmpfs is one mount of its type, in one place of the request.
// The client rewrites the capabilities of the request that it is given.
func TestRequestSurvivesTheClient(t *testing.T) {
	t.Parallel()
	config := newTestConfig(t, goldenTask(t, "capabilities"))
	config.hostConfig().CapAdd[0] = "NET_ADMIN"
	text, err := json.Marshal(config.hostConfig().CapAdd)
	require.NoError(t, err)
	assert.JSONEq(t, `["CAP_NET_ADMIN","CAP_SYS_NICE"]`, string(text))
	assert.Equal(t, container.IsolationDefault, config.hostConfig().Isolation)
}

// A test of somebody's executor may have tasks without a service.
func TestTaskWithoutAServiceIsLeftToTheEngine(t *testing.T) {
	t.Parallel()
	task := plainTask()
	task.ServiceAnnotations.Name = ""
	config, err := newContainerConfig(nil, task)
	require.NoError(t, err)
	assert.Equal(t, ".1.taskid", config.name())
}

// Health checks that engines run, or that say that there is none.
func TestHealthChecksThatEnginesTake(t *testing.T) {
	t.Parallel()
	for _, test := range [][]string{{"NONE"}, {"NONE", "more"}, {"CMD", "check"}, {"CMD-SHELL", "check | grep ok"}, {"CMD-SHELL", ""}} {
		task := plainTask()
		spec(task).Healthcheck = &api.HealthConfig{Test: test}
		config, err := newContainerConfig(nil, task)
		require.NoError(t, err, test)
		health, err := config.healthcheck()
		require.NoError(t, err)
		assert.Equal(t, test, health.Test)
	}
}

func TestGoldenRequests(t *testing.T) {
	t.Parallel()
	for _, name := range goldenNames(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			config, err := newContainerConfig(goldenNode(), goldenTask(t, name))
			require.NoError(t, err)
			got := requestJSON(t, config.withDependencies("/run/dockerexec/secrets/engine-1/t1", []byte(`{"DomainJoinConfig":{}}`), map[string]string{"volumeid": "/published/volumeid", "otherid": "/published/otherid"}))
			file := filepath.Join("testdata/tasks", name+".request.json")
			if *update {
				rewrite(t, file, got)
			}
			want, err := os.ReadFile(file)
			require.NoError(t, err)
			require.JSONEq(t, string(want), string(got))
		})
	}
}

// requestJSON is all that a task becomes, without the fields that say nothing.
func requestJSON(t testing.TB, c *containerConfig) []byte {
	t.Helper()
	request := map[string]any{
		"name":       c.name(),
		"Config":     stated(t, *c.config()),
		"HostConfig": stated(t, *c.hostConfig()),
	}
	if p := c.platform(); p != nil {
		request["platform"] = p
	}
	if o := c.pullOptions(); o.RegistryAuth != "" || o.Platform != "" {
		request["pull"] = map[string]any{"RegistryAuth": o.RegistryAuth, "Platform": o.Platform}
	}
	if timeout := identityOf(c.task).stopTimeout; timeout != nil {
		request["stopTimeout"] = *timeout
	}
	if w := c.warnings(); w != nil {
		request["warnings"] = w
	}
	var needs []string
	for _, n := range c.needs {
		needs = append(needs, n.path+" "+n.since)
	}
	if needs != nil {
		request["needs"] = needs
	}
	if endpoints := c.networkingConfig().EndpointsConfig; endpoints != nil {
		m := map[string]any{}
		for name, e := range endpoints {
			m[name] = stated(t, *e)
		}
		request["NetworkingConfig"] = map[string]any{"EndpointsConfig": m}
	}
	var networks, volumes []any
	for _, n := range c.networks() {
		m := stated(t, n.options)
		m["name"] = n.name
		if n.predefined {
			m["predefined"] = true
		}
		networks = append(networks, m)
	}
	for _, v := range c.volumes(false) {
		volumes = append(volumes, stated(t, v))
	}
	if networks != nil {
		request["networks"] = networks
	}
	if volumes != nil {
		request["volumes"] = volumes
	}
	text, err := json.MarshalIndent(request, "", "  ")
	require.NoError(t, err)
	return append(text, '\n')
}

// stated is v as JSON without those fields that the zero value has just so.
func stated[T container.Config | container.HostConfig | network.EndpointSettings | network.CreateOptions | volume.CreateOptions](t testing.TB, v T) map[string]any {
	t.Helper()
	fields, zeros := map[string]any{}, map[string]any{}
	var zero T
	for value, into := range map[*T]*map[string]any{&v: &fields, &zero: &zeros} {
		text, err := json.Marshal(value)
		require.NoError(t, err)
		require.NoError(t, json.Unmarshal(text, into))
	}
	for name, value := range zeros {
		if reflect.DeepEqual(fields[name], value) {
			delete(fields, name)
		}
	}
	return fields
}

func TestCPULimit(t *testing.T) {
	t.Parallel()
	for _, limit := range []int64{1e7, 15e8, 100_000e9} {
		task := plainTask()
		withLimits(api.Resources{NanoCPUs: limit})(task)
		host := newTestConfig(t, task).hostConfig()
		assert.Equal(t, limit, host.NanoCPUs)
		assert.Zero(t, host.CPUQuota)
		assert.Zero(t, host.CPUPeriod)
	}
}

func TestWithCPUs(t *testing.T) {
	t.Parallel()
	config := newTestConfig(t, goldenTask(t, "cpus")) // 1.5
	assert.Equal(t, int64(1e9), config.withCPUs(1).hostConfig().NanoCPUs)
	assert.Equal(t, int64(15e8), config.withCPUs(2).hostConfig().NanoCPUs)
	assert.Equal(t, int64(15e8), config.hostConfig().NanoCPUs, "the task itself is as it was")
	assert.Zero(t, newTestConfig(t, plainTask()).withCPUs(2).hostConfig().NanoCPUs)
}

func TestPortsOfOneTarget(t *testing.T) {
	t.Parallel()
	host := newTestConfig(t, goldenTask(t, "ports-of-one-target")).hostConfig()
	assert.Equal(t, []nat.PortBinding{{HostPort: "8081"}, {HostPort: "8080"}}, host.PortBindings["80/tcp"])
}

func TestVolumeWithoutName(t *testing.T) {
	t.Parallel()
	task := plainTask()
	options := func() *api.Mount_VolumeOptions {
		return &api.Mount_VolumeOptions{DriverConfig: &api.Driver{Name: "local"}}
	}
	spec(task).Mounts = []api.Mount{
		{Type: api.MountTypeVolume, Target: "/a", VolumeOptions: options()},
		{Type: api.MountTypeVolume, Source: "z", Target: "/z", VolumeOptions: options()},
		{Type: api.MountTypeVolume, Source: "y", Target: "/y", VolumeOptions: options()},
		{Type: api.MountTypeVolume, Source: "z", Target: "/z2", VolumeOptions: options()},
		{Type: api.MountTypeVolume, Source: "plain", Target: "/p"},
	}
	config := newTestConfig(t, task)
	assert.Equal(t, []volume.CreateOptions{{Name: "y", Driver: "local"}, {Name: "z", Driver: "local"}}, config.volumes(false))
	assert.Len(t, config.hostConfig().Mounts, 5)
}

func TestTmpfs(t *testing.T) {
	t.Parallel()
	for options, want := range map[string]string{
		"":                            "",
		"exec":                        "size=1024,exec",
		" NOEXEC , uid=1000":          "size=1024,noexec,uid=1000",
		`[["exec"],["gid","2000"]]`:   "size=1024,exec,gid=2000",
		` [["nosuid"],["mode","5"]] `: "size=1024,nosuid,mode=5",
		"[]":                          "size=1024",
	} {
		task := plainTask()
		withMount(api.Mount{Type: api.MountTypeTmpfs, Target: "/t", TmpfsOptions: &api.Mount_TmpfsOptions{SizeBytes: 1024, Options: options}})(task)
		host := newTestConfig(t, task).hostConfig()
		if want == "" {
			assert.Equal(t, []mount.Mount{{Type: mount.TypeTmpfs, Target: "/t", TmpfsOptions: &mount.TmpfsOptions{SizeBytes: 1024}}}, host.Mounts)
			assert.Nil(t, host.Tmpfs)
		} else {
			assert.Nil(t, host.Mounts, options)
			assert.Equal(t, map[string]string{"/t": want}, host.Tmpfs)
		}
	}
}

// An engine takes rprivate where nothing is said, but for a source that its own folder
// lies in: there it takes rslave, and refuses rprivate.
func TestBindOptionsOfNothingLeaveThePropagationToTheEngine(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		asked *api.Mount_BindOptions
		want  *mount.BindOptions
	}{
		{nil, nil},
		{&api.Mount_BindOptions{}, &mount.BindOptions{}},
		{&api.Mount_BindOptions{NonRecursive: true}, &mount.BindOptions{NonRecursive: true}},
		{&api.Mount_BindOptions{CreateMountpoint: true}, &mount.BindOptions{CreateMountpoint: true}},
		{&api.Mount_BindOptions{Propagation: api.MountPropagationPrivate}, &mount.BindOptions{Propagation: "private"}},
		{&api.Mount_BindOptions{Propagation: api.MountPropagationRSlave, NonRecursive: true}, &mount.BindOptions{Propagation: "rslave", NonRecursive: true}},
	} {
		task := plainTask()
		withMount(api.Mount{Source: "/", Target: "/host", BindOptions: test.asked})(task)
		assert.Equal(t, []mount.Mount{{Type: mount.TypeBind, Source: "/", Target: "/host", BindOptions: test.want}}, newTestConfig(t, task).hostConfig().Mounts)
	}
}

// An error about a volume names the driver where the task does.
func TestErrorOfAVolume(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{
		"nfs": "create volume data with driver nfs: Error response from daemon: no",
		"":    "create volume data: Error response from daemon: no",
	} {
		task := plainTask()
		spec(task).Mounts = []api.Mount{{Type: api.MountTypeVolume, Source: "data", Target: "/data",
			VolumeOptions: &api.Mount_VolumeOptions{DriverConfig: &api.Driver{Name: name, Options: map[string]string{"o": "x"}}}}}
		engine := dockerexectest.New(t)
		engine.FailNext("POST /volumes/create", dockerexectest.Refuse(http.StatusBadRequest, "no"))
		require.EqualError(t, adapterOn(t, engine, task).CreateVolumes(t.Context()), want)
	}
}

// A volume that exists is used as it is, and one warning names what differs from what
// the task asks for. No value is shown.
func TestAVolumeThatExistsWithOtherOptions(t *testing.T) {
	t.Parallel()
	cifs := map[string]string{"type": "cifs", "device": "//nas/x", "o": "username=a,password=Sup3rS3cret"}
	const begins = "task field Spec.Container.Mounts[1].VolumeOptions: volume data exists and differs: "
	for name, test := range map[string]struct {
		options, labels map[string]string
		found           *volume.CreateOptions // nil: an answer that says nothing
		want            []string
	}{
		"new, or the same": {cifs, map[string]string{"a": "b"}, &volume.CreateOptions{Name: "data", DriverOpts: cifs, Labels: map[string]string{"a": "b"}}, nil},
		"another password": {cifs, nil, &volume.CreateOptions{Name: "data", DriverOpts: map[string]string{"type": "cifs", "device": "//nas/x", "o": "username=a,password=0therS3cret"}},
			[]string{begins + "driver options o; it is used as it is"}},
		"no options": {cifs, nil, &volume.CreateOptions{Name: "data"}, []string{begins + "driver options device, o, type; it is used as it is"}},
		"options where none are asked for": {nil, nil, &volume.CreateOptions{Name: "data", DriverOpts: map[string]string{"type": "nfs"}},
			[]string{begins + "driver options type; it is used as it is"}},
		"some of each": {map[string]string{"b": "1", "c": ""}, map[string]string{"x": "1", "y": "2"},
			&volume.CreateOptions{Name: "data", DriverOpts: map[string]string{"a": "", "b": "2"}, Labels: map[string]string{"x": "1", "z": "3"}},
			[]string{begins + "driver options a, b, c; labels y; it is used as it is"}},
		"labels of somebody else":     {nil, nil, &volume.CreateOptions{Name: "data", Labels: map[string]string{"z": "3"}}, nil},
		"an answer that says nothing": {cifs, map[string]string{"a": "b"}, nil, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			task := plainTask()
			spec(task).Mounts = []api.Mount{
				{Type: api.MountTypeVolume, Source: "data", Target: "/other"},
				{Type: api.MountTypeVolume, Source: "data", Target: "/data",
					VolumeOptions: &api.Mount_VolumeOptions{Labels: test.labels, DriverConfig: &api.Driver{Name: "local", Options: test.options}}},
			}
			engine := dockerexectest.New(t)
			if test.found != nil {
				_, err := engine.Client().VolumeCreate(t.Context(), *test.found)
				require.NoError(t, err)
			} else {
				engine.FailAll("POST /volumes/create", dockerexectest.Answer(http.StatusCreated, "{}"))
			}
			ctx, lines := logged(t)
			adapter := adapterOn(t, engine, task)
			require.NoError(t, adapter.CreateVolumes(ctx))
			require.NoError(t, adapter.CreateVolumes(ctx), "and a warning comes once")
			assert.Equal(t, test.want, lines(logrus.WarnLevel))
		})
	}
}

func TestPlatforms(t *testing.T) {
	t.Parallel()
	for given, want := range map[api.Platform]*ocispec.Platform{
		{Architecture: "x86_64", OS: "Linux"}:  {Architecture: "amd64", OS: "linux"},
		{Architecture: "amd64", OS: "windows"}: {Architecture: "amd64", OS: "windows"},
		{Architecture: "aarch64", OS: "linux"}: {Architecture: "arm64", OS: "linux"},
		{Architecture: "i686", OS: "linux"}:    {Architecture: "386", OS: "linux"},
		{Architecture: "armv7l", OS: "linux"}:  {Architecture: "arm", Variant: "v7", OS: "linux"},
		{Architecture: "armel", OS: "linux"}:   {Architecture: "arm", Variant: "v6", OS: "linux"},
		{Architecture: "riscv64", OS: "linux"}: {Architecture: "riscv64", OS: "linux"},
		{Architecture: "arm64", OS: "macos"}:   {Architecture: "arm64", OS: "darwin"},
		{Architecture: "arm64"}:                {Architecture: "arm64"},
		{OS: "linux"}:                          nil, // any architecture: an engine would put its own
		{Architecture: "armv7l"}:               nil, // an engine reads arm/v7 as the system arm
		{Architecture: "arm", OS: "linux"}:     nil,
		{}:                                     nil,
	} {
		task := plainTask()
		task.Spec.Placement = &api.Placement{Platforms: []*api.Platform{&given}}
		config := newTestConfig(t, task)
		assert.Equal(t, want, config.platform(), given)
		if want == nil {
			assert.Empty(t, config.pullOptions().Platform)
		}
	}
	task := plainTask()
	task.Spec.Placement = &api.Placement{Platforms: []*api.Platform{{Architecture: "armhf", OS: "linux"}}}
	assert.Equal(t, "linux/arm/v7", newTestConfig(t, task).pullOptions().Platform)
	task.Spec.Placement = &api.Placement{Platforms: []*api.Platform{{OS: "linux"}}}
	assert.NoError(t, newTestConfig(t, task).checkVersion("1.40"), "no platform is sent")
}

// What an empty part means is SwarmKit's, all else is as engine 20.10 takes an image for
// the platform of a create.
func TestAnImageIsForAPlatform(t *testing.T) {
	t.Parallel()
	for image, wanted := range map[string]struct{ fits, not []api.Platform }{
		"linux/amd64": {
			fits: []api.Platform{{OS: "linux"}, {}, {Architecture: "x86_64"}, {OS: "Linux", Architecture: "AMD64"}, {OS: "linux", Architecture: "x86-64"}},
			not:  []api.Platform{{OS: "windows"}, {Architecture: "aarch64"}, {OS: "linux", Architecture: "i686"}, {OS: "windows", Architecture: "amd64"}},
		},
		"linux/386":    {fits: []api.Platform{{OS: "linux", Architecture: "i386"}, {Architecture: "amd64"}}, not: []api.Platform{{Architecture: "arm64"}}},
		"linux/arm":    {fits: []api.Platform{{Architecture: "armv7l"}, {OS: "linux", Architecture: "armel"}, {Architecture: "arm"}, {Architecture: "arm64"}}},
		"linux/arm/v6": {fits: []api.Platform{{Architecture: "armhf"}, {Architecture: "armv6l"}, {OS: "linux"}}, not: []api.Platform{{Architecture: "amd64"}}},
		"linux/arm/v7": {fits: []api.Platform{{Architecture: "arm"}, {OS: "linux", Architecture: "armhf"}}, not: []api.Platform{{Architecture: "armv6l"}}},
		"linux/arm64/v8": {fits: []api.Platform{{OS: "linux", Architecture: "aarch64"}, {Architecture: "arm64"}, {OS: "linux"}},
			not: []api.Platform{{Architecture: "armhf"}, {Architecture: "arm"}}},
		"linux/x86_64": {fits: []api.Platform{{Architecture: "amd64"}}},
		"linux/":       {fits: []api.Platform{{OS: "linux"}}, not: []api.Platform{{Architecture: "amd64"}}},
	} {
		parts := append(strings.Split(image, "/"), "")
		check := func(wanted ...api.Platform) bool {
			task := plainTask()
			task.Spec.Placement = &api.Placement{}
			for _, p := range wanted {
				task.Spec.Placement.Platforms = append(task.Spec.Placement.Platforms, &p)
			}
			return runsOn(engineimage.InspectResponse{Os: parts[0], Architecture: parts[1], Variant: parts[2]}, newTestConfig(t, task).platforms())
		}
		assert.True(t, check(), "%s without a platform", image)
		for _, p := range wanted.fits {
			assert.True(t, check(p), "%s for %v", image, p)
			assert.True(t, check(api.Platform{OS: "plan9"}, p), "%s for one of two, %v", image, p)
		}
		for _, p := range wanted.not {
			assert.False(t, check(p), "%s for %v", image, p)
			assert.False(t, check(p, api.Platform{OS: "plan9"}), "%s for none of two, %v", image, p)
		}
	}
}

// The states are those that engines answered, 20.10 and the newest alike.
func TestWhetherAContainerHasEnded(t *testing.T) {
	t.Parallel()
	const never, then = "0001-01-01T00:00:00Z", "2026-11-24T02:34:00.457721431Z"
	for name, test := range map[string]struct {
		state            container.State
		ended, unstarted bool
	}{
		"created":                       {container.State{Status: "created", StartedAt: never, FinishedAt: never}, false, true},
		"created, of a fake":            {container.State{Status: "created"}, false, true},
		"a start that failed":           {container.State{Status: "created", StartedAt: never, FinishedAt: never, ExitCode: 127, Error: "exec: no such file"}, false, true},
		"a start that the engine lost":  {container.State{Status: "created", StartedAt: never, FinishedAt: then, ExitCode: 3}, true, false},
		"a time that is none":           {container.State{Status: "created", FinishedAt: "yesterday"}, false, true},
		"the zero time of another zone": {container.State{Status: "created", FinishedAt: "0001-01-01T00:00:00+01:00"}, false, true},
		"running":                       {container.State{Status: "running", Running: true, StartedAt: then, FinishedAt: never}, false, false},
		"running again":                 {container.State{Status: "running", Running: true, StartedAt: then, FinishedAt: then}, false, false},
		"paused":                        {container.State{Status: "paused", Running: true, Paused: true, StartedAt: then, FinishedAt: never}, false, false},
		"restarting":                    {container.State{Status: "restarting", Running: true, StartedAt: then, FinishedAt: then}, false, false},
		"removing":                      {container.State{Status: "removing", StartedAt: then, FinishedAt: then}, false, false},
		"exited":                        {container.State{Status: "exited", StartedAt: then, FinishedAt: then}, true, false},
		"exited, of a fake":             {container.State{Status: "exited"}, true, false},
		"dead":                          {container.State{Status: "dead", StartedAt: then, FinishedAt: then}, true, false},
		"nothing, of a fake":            {container.State{}, false, false},
	} {
		answer := container.InspectResponse{ContainerJSONBase: &container.ContainerJSONBase{State: &test.state}}
		assert.Equal(t, test.ended, hasEnded(answer), name)
		assert.Equal(t, test.unstarted, isUnstarted(answer), name)
	}
}

// endedUnseen is what an engine shows of a container that it took up while it ran,
// without having seen its start, once that has exited.
func endedUnseen(code int) container.State {
	return container.State{Status: container.StateCreated, StartedAt: "0001-01-01T00:00:00Z", FinishedAt: "2026-11-24T02:34:00.457721431Z", ExitCode: code}
}

// missTheStart has an engine show a container so.
func missTheStart(c *dockerexectest.Container, code int) {
	state := endedUnseen(code)
	c.AlterInspect(func(answer *container.InspectResponse) { answer.State = &state })
}

func TestTheEndOfAContainerOfWhichTheEngineMissedTheStart(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]func(context.Context, *testing.T, *dockerexectest.Engine){
		"Wait": func(ctx context.Context, t *testing.T, engine *dockerexectest.Engine) {
			ctlr, task, web := runningWeb(t, engine)
			time.AfterFunc(time.Hour, func() { missTheStart(web, 3); web.Emit(events.ActionDie) })
			drive(ctx, t, task, ctlr, api.TaskStateCompleted)
			assert.Equal(t, api.TaskStateFailed, task.Status.State)
			assert.Equal(t, "task: non-zero exit (3)", task.Status.Err)
			assert.EqualValues(t, 3, task.Status.GetContainer().ExitCode)
		},
		"Adapter.Wait": func(ctx context.Context, t *testing.T, engine *dockerexectest.Engine) {
			ctlr, _, web := runningWeb(t, engine)
			missTheStart(web, 4)
			answer, err := ctlr.adapter.Wait(ctx)
			require.NoError(t, err)
			assert.Equal(t, 4, answer.State.ExitCode)
		},
		"Start": func(ctx context.Context, t *testing.T, engine *dockerexectest.Engine) { // which does not run it again
			ctlr := controllerOn(t, engine, plainTask())
			require.NoError(t, ctlr.Prepare(ctx))
			missTheStart(engine.Container(taskName), 0)
			assert.Equal(t, exec.ErrTaskStarted, ctlr.Start(ctx))
			assert.Zero(t, engine.Requests().Count(startRequest))
			// Its program may never have run.
			assert.EqualError(t, ctlr.Wait(ctx), "task: ended with exit code 0: the engine ended within the start: nobody knows whether the program ran to its end")
		},
		"Start, waiting for health": func(ctx context.Context, t *testing.T, engine *dockerexectest.Engine) {
			task := plainTask()
			spec(task).Healthcheck = &api.HealthConfig{Test: []string{"CMD", "check"}, Interval: gogotypes.DurationProto(24 * time.Hour)}
			ctlr, _ := reached(t, engine, task, api.TaskStateStarting)
			web := engine.Container(taskName)
			time.AfterFunc(time.Hour, func() { missTheStart(web, 5); web.Emit(events.ActionDie) })
			assert.EqualError(t, ctlr.Start(ctx), "task: non-zero exit (5)")
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Hour)
				defer cancel()
				test(ctx, t, webEngine(t, dockerexectest.UntilStopped(0)))
			})
		})
	}
}

func TestTheLogOfAContainerOfWhichTheEngineMissedTheStart(t *testing.T) {
	t.Parallel()
	for _, looks := range []int{0, 2} { // before it has ended: nobody asks earlier, or its start is waited for
		bubble(t, func(t *testing.T) {
			engine, adapter := onFakeEngine(t, dockerexectest.Print(dockerexectest.Exit(0), "its only line"))
			web := another(t, engine, taskName, "example/web:1", ofThisTask)
			synctest.Wait()
			left := looks
			web.AlterInspect(func(answer *container.InspectResponse) {
				state := endedUnseen(0)
				if left > 0 {
					left--
					state = container.State{Status: container.StateCreated}
				}
				answer.State = &state
			})
			engine.ForgetRequests()
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Hour)
			defer cancel()
			sink := &logSink{}
			require.NoError(t, adapter().PublishLogs(ctx, api.LogSubscriptionOptions{Follow: true}, sink))
			assert.Equal(t, []string{"stdout its only line\n"}, sink.lines())
			reads := 0
			for _, request := range engine.Requests() {
				if strings.HasSuffix(request.Path, "/logs") {
					reads++
					assert.NotEqual(t, "1", request.Query.Get("follow")) // for it does not run
				}
			}
			assert.Positive(t, reads)
		})
	}
}

func TestExitError(t *testing.T) {
	t.Parallel()
	ended := func(code int, message string) container.InspectResponse {
		return container.InspectResponse{ContainerJSONBase: &container.ContainerJSONBase{
			State: &container.State{Status: container.StateExited, ExitCode: code, Error: message}}}
	}
	require.NoError(t, ExitError(ended(0, ""), nil))

	err := ExitError(ended(3, ""), nil)
	require.EqualError(t, err, "task: non-zero exit (3)")
	coder, ok := err.(exec.ExitCoder) // as the agent does: nothing may be wrapped around it
	require.True(t, ok)
	assert.Equal(t, 3, coder.ExitCode())

	err = errors.Wrap(ExitError(ended(137, ""), ErrContainerUnhealthy), "web")
	require.EqualError(t, err, "web: task: non-zero exit (137): dockerexec: unhealthy container")
	assert.ErrorIs(t, err, ErrContainerUnhealthy)
	assert.Equal(t, ErrContainerUnhealthy, errors.Cause(err))
	require.ErrorAs(t, err, &coder)
	assert.Equal(t, 137, coder.ExitCode())

	require.EqualError(t, ExitError(ended(0, ""), ErrContainerUnhealthy), "task: ended with exit code 0: dockerexec: unhealthy container")
	require.ErrorIs(t, ExitError(ended(0, ""), ErrContainerUnhealthy), ErrContainerUnhealthy)
	require.EqualError(t, ExitError(ended(0, "its cgroup is gone"), nil), "task: ended with exit code 0: its cgroup is gone")
	require.EqualError(t, ExitError(ended(127, "no such file"), nil), "task: non-zero exit (127): no such file")
	require.EqualError(t, ExitError(container.InspectResponse{}, nil), "dockerexec: the engine's answer about the container has no state")
}

// The kernel's kill is told from any other SIGKILL. An engine's mark stays when only a
// child was killed.
func TestExitErrorNamesAKillForMemory(t *testing.T) {
	t.Parallel()
	ended := func(code int, message string) container.InspectResponse {
		return container.InspectResponse{ContainerJSONBase: &container.ContainerJSONBase{
			State: &container.State{Status: container.StateExited, ExitCode: code, Error: message, OOMKilled: true}}}
	}
	err := ExitError(ended(137, ""), nil)
	require.EqualError(t, err, "task: non-zero exit (137): out of memory")
	coder, ok := err.(exec.ExitCoder)
	require.True(t, ok)
	assert.Equal(t, 137, coder.ExitCode())

	err = ExitError(ended(137, ""), ErrContainerUnhealthy)
	require.EqualError(t, err, "task: non-zero exit (137): out of memory: dockerexec: unhealthy container")
	require.ErrorIs(t, err, ErrContainerUnhealthy)
	require.EqualError(t, ExitError(ended(137, "gone"), nil), "task: non-zero exit (137): out of memory: gone")
	require.EqualError(t, ExitError(ended(2, ""), nil), "task: non-zero exit (2): a process of the container ran out of memory")
	require.EqualError(t, ExitError(ended(0, ""), ErrContainerUnhealthy), "task: ended with exit code 0: a process of the container ran out of memory: dockerexec: unhealthy container")
	require.NoError(t, ExitError(ended(0, ""), nil), "the container has done its work")
}

// A brace pair that shall stay is a template of its own.
func TestABracePairCanBeEscaped(t *testing.T) {
	t.Parallel()
	task := plainTask()
	spec(task).Env = []string{`FORMAT={{"{{"}}.Names}}`}
	config, err := newContainerConfig(nil, task)
	require.NoError(t, err)
	assert.Contains(t, config.config().Env, "FORMAT={{.Names}}")
}
