package engine_test

import (
	"bytes"
	"context"
	osexec "os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	engineapi "github.com/docker/docker/client"
	"github.com/docker/docker/pkg/stdcopy"
	"github.com/dockerexec/dockerexec"
	gogotypes "github.com/gogo/protobuf/types"
	"github.com/moby/swarmkit/v2/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// sight is one thing that a task sees from inside: a line of its output that the
// expression matches as a whole. One that begins with "!" matches no line.
type sight struct{ what, line string }

// insider runs tasks and counts what they saw.
type insider struct {
	client *engineapi.Client
	engine *dockerexec.Engine
	seen   int
}

// see checks the sights in a task's output.
func (in *insider) see(t *testing.T, output string, sights []sight) {
	t.Helper()
	for _, s := range sights {
		line, absent := strings.CutPrefix(s.line, "!")
		matches := regexp.MustCompile("(?m)^(?:" + line + ")$").MatchString(output)
		assert.Equal(t, !absent, matches, "%s: %s", s.what, s.line)
		in.seen++
	}
	if t.Failed() {
		t.Logf("the task saw\n%s", output)
	}
}

// adapter makes the adapter of a task that begins with args, on a node with a
// name, and has all of the task removed at the end.
func (in *insider) adapter(t *testing.T, change func(*api.Task), args ...string) *dockerexec.ContainerAdapter {
	t.Helper()
	task := engineTask(t, args...)
	if change != nil {
		change(task)
	}
	adapter, err := in.engine.Adapter(testNode(), task, nil)
	require.NoError(t, err)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), time.Minute)
		defer cancel()
		assert.NoError(t, adapter.Remove(ctx))
		assert.NoError(t, adapter.RemoveNetworks(ctx))
	})
	return adapter
}

// start has the task running.
func (in *insider) start(t *testing.T, change func(*api.Task), args ...string) *dockerexec.ContainerAdapter {
	t.Helper()
	adapter := in.adapter(t, change, args...)
	require.NoError(t, adapter.CreateNetworks(t.Context()))
	require.NoError(t, adapter.CreateVolumes(t.Context()))
	require.NoError(t, adapter.Create(t.Context()))
	require.NoError(t, adapter.Start(t.Context()))
	return adapter
}

// run has the task end with 0, and returns its output.
func (in *insider) run(t *testing.T, change func(*api.Task), args ...string) string {
	t.Helper()
	adapter := in.start(t, change, args...)
	ended, err := adapter.Wait(t.Context())
	require.NoError(t, err)
	output := in.output(t, adapter, false)
	require.Zero(t, ended.State.ExitCode, output)
	return output
}

// output is what the task has printed so far, as lines.
func (in *insider) output(t *testing.T, adapter *dockerexec.ContainerAdapter, details bool) string {
	t.Helper()
	made, err := adapter.Inspect(t.Context())
	require.NoError(t, err)
	body, err := in.client.ContainerLogs(t.Context(), adapter.ContainerName(), container.LogsOptions{ShowStdout: true, ShowStderr: true, Details: details})
	require.NoError(t, err)
	defer body.Close()
	var output bytes.Buffer
	if made.Config.Tty {
		_, err = output.ReadFrom(body)
	} else {
		_, err = stdcopy.StdCopy(&output, &output, body)
	}
	require.NoError(t, err)
	return strings.ReplaceAll(output.String(), "\r\n", "\n")
}

// untilReady waits until the task has printed a line.
func (in *insider) untilReady(t *testing.T, adapter *dockerexec.ContainerAdapter, line string) {
	t.Helper()
	require.Eventually(t, func() bool { return strings.Contains(in.output(t, adapter, false), line) }, time.Minute, 20*time.Millisecond)
}

// command runs a command on the engine's host.
func command(t *testing.T, name string, args ...string) {
	t.Helper()
	output, err := osexec.Command(name, args...).CombinedOutput()
	require.NoError(t, err, "%s %v: %s", name, args, output)
}

// Limits are in other files for each version of control groups; the expressions
// know both.
func TestEngineTaskSeesWhatWasAsked(t *testing.T) {
	sharesEngine(t)
	client := engineClient(t)
	warmImage(t, client)
	in := &insider{client: client, engine: dockerexec.NewEngine(client)}
	for _, test := range []struct {
		name string
		task func(*api.Task)
		args string
		sees []sight
	}{
		{"nothing asked", nil,
			"ids -- status -- link /proc/self/cwd /proc/self/fd/0 /proc/1/exe -- try write /x/y 1 -- interfaces -- show /proc/self/oom_score_adj",
			[]sight{
				{"root", `uid=0 gid=0 groups=.*`},
				{"the engine's own capabilities", `CapEff:\t00000000a80425fb`},
				{"may get more privileges", `NoNewPrivs:\t0`},
				{"the engine's own seccomp profile", `Seccomp:\t2`},
				{"folder", `/proc/self/cwd -> /`},
				{"no stdin", `/proc/self/fd/0 -> /dev/null`},
				{"no init", `/proc/1/exe -> /testtask`},
				{"root folder may be written to", `done: write /x/y 1`},
				{"joined to the engine's bridge", `eth0 mtu=\d+ 172\..*`},
				{"OOM score", `/proc/self/oom_score_adj = 0`},
			}},
		{"a confined process", confined,
			"ids -- status -- ulimit -- env -- mounts -- cat /etc/hosts /etc/resolv.conf -- link /proc/self/cwd -- try write /x 1 -- try write /scratch/x 1 -- try write /run/x 1 -- stat /scratch /run -- " +
				"show /etc/hostname /proc/self/oom_score_adj /proc/sys/net/core/somaxconn /proc/sys/kernel/msgmax /proc/sys/net/ipv4/conf/eth0/log_martians /proc/sys/net/ipv4/conf/all/log_martians -- " +
				"show /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory/memory.swappiness /sys/fs/cgroup/memory/memory.memsw.limit_in_bytes /sys/fs/cgroup/memory.swap.max " +
				"/sys/fs/cgroup/cpu/cpu.cfs_quota_us /sys/fs/cgroup/cpu/cpu.cfs_period_us /sys/fs/cgroup/pids/pids.max " +
				"/sys/fs/cgroup/memory.max /sys/fs/cgroup/cpu.max /sys/fs/cgroup/pids.max",
			[]sight{
				{"user, group and groups", `uid=1000 gid=1001 groups=(?:1001,)?2000,3000`},
				{"capabilities", `CapBnd:\t0000000000000400`},
				{"no new privileges", `NoNewPrivs:\t1`},
				{"the engine's own seccomp profile", `Seccomp:\t2`},
				{"read-only root folder", `failed: write /x 1: .*read-only file system`},

				{"open files, of which Go's runtime raises the soft limit", `Max open files +\d+ +1024 +files +`},
				{"processes of the user", `Max processes +100 +200 +processes +`},
				{"core file", `Max core file size +0 +0 +bytes +`},
				{"stack without limit", `Max stack size +unlimited +unlimited +bytes +`},
				{"pids", `/sys/fs/cgroup/(?:pids/)?pids.max = 77`},
				{"memory", `/sys/fs/cgroup/memory(?:/memory.limit_in_bytes|.max) = 67108864`},
				{"swap, together with memory or apart, where the kernel counts it", `/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes = 100663296|/sys/fs/cgroup/memory.swap.max = 33554432|open .*/memory.memsw.*: no such file or directory\nopen .*/memory.swap.max: no such file or directory`},
				{"swappiness, which version 2 does not have", `/sys/fs/cgroup/memory/memory.swappiness = 33|open /sys/fs/cgroup/memory/memory.swappiness: no such file or directory`},
				{"CPU quota", `/sys/fs/cgroup/cpu/cpu.cfs_quota_us = 50000|/sys/fs/cgroup/cpu.max = 50000 100000`},
				{"CPU period", `/sys/fs/cgroup/cpu/cpu.cfs_period_us = 100000|/sys/fs/cgroup/cpu.max = 50000 100000`},
				{"OOM score", `/proc/self/oom_score_adj = 500`},

				{"sysctl", `/proc/sys/net/core/somaxconn = 1234`},
				{"sysctl outside of net", `/proc/sys/kernel/msgmax = 4321`},
				{"sysctl of the interface", `/proc/sys/net/ipv4/conf/eth0/log_martians = 1`},
				{"sysctl of no other interface", `/proc/sys/net/ipv4/conf/all/log_martians = 0`},

				{"host name", `/etc/hostname = node-1-1`},
				{"folder", `/proc/self/cwd -> /tmp`},
				{"variable", `PLAIN=1`},
				{"variable that is empty", `EMPTY=`},
				{"variable of the image", `FROM_IMAGE=yes`},
				{"template", `WHERE=node-1/inside-test/1`},
				{"generic resource, named", `DOCKER_RESOURCE_GPU=UUID1,UUID2`},
				{"generic resource, counted", `DOCKER_RESOURCE_SSD=3`},

				{"name server", `nameserver 10.9.8.7`},
				{"second name server", `nameserver 10.9.8.6`},
				{"search domains", `search a\.example b\.example`},
				{"resolver options", `options ndots:3 timeout:2`},
				{"host", `10\.1\.2\.3\s+alpha`},
				{"its second name", `10\.1\.2\.3\s+beta`},
				{"its third name", `10\.1\.2\.3\s+gamma`},
				{"host with an IPv6 address", `fd00::7\s+delta`},
				{"the engine's own address", `\S+\s+gateway`}, // <nil> from 20.10 after a restart with live-restore

				{"tmpfs size", `.* /scratch \S+ .*- tmpfs tmpfs rw,.*size=64k.*`},
				{"tmpfs with exec may run programs", `.* /scratch rw,nosuid,nodev,relatime .*`},
				{"tmpfs mode and owner", `/scratch 0700 1000 1001 \d+`},
				{"tmpfs may be written to", `done: write /scratch/x 1`},
				{"tmpfs, options as JSON", `.* /run ro,nosuid,nodev,noexec,relatime .*- tmpfs tmpfs .*size=1024k.*nr_inodes=100.*`},
				{"tmpfs mode", `/run 0711 0 0 \d+`},
				{"tmpfs, read-only", `failed: write /run/x 1: .*read-only file system`},
			}},
		{"an unconfined process", func(task *api.Task) {
			spec(task).Privileges = &api.Privileges{Seccomp: &api.Privileges_SeccompOpts{Mode: api.Privileges_SeccompOpts_UNCONFINED}}
			spec(task).Init = &gogotypes.BoolValue{Value: true}
			spec(task).TTY, spec(task).OpenStdin = true, true
			spec(task).CapabilityAdd, spec(task).CapabilityDrop = []string{"CAP_NET_ADMIN"}, []string{"CAP_CHOWN"}
		},
			"status -- link /proc/1/exe /proc/self/fd/0 /proc/self/fd/1 -- try write /tmp/new/x 1",
			[]sight{
				{"no seccomp", `Seccomp:\t0`},
				{"one capability more, one less", `CapEff:\t00000000a80435fa`},
				{"init is process 1", `/proc/1/exe -> .*/docker-init`},
				{"terminal", `/proc/self/fd/0 -> /dev/(?:pts/0|console)`},
				{"terminal", `/proc/self/fd/1 -> /dev/(?:pts/0|console)`},
				{"a folder can be made", `done: write /tmp/new/x 1`},
			}},
		{"a seccomp profile", func(task *api.Task) {
			spec(task).Privileges = &api.Privileges{Seccomp: &api.Privileges_SeccompOpts{Mode: api.Privileges_SeccompOpts_CUSTOM,
				Profile: []byte(`{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}]}`)}}
			spec(task).OpenStdin = true
		},
			"status -- link /proc/self/fd/0 -- try write /tmp/x 1 -- try write /tmp/new/x 1",
			[]sight{
				{"seccomp", `Seccomp:\t2`},
				{"a file can be made", `done: write /tmp/x 1`},
				{"no folder can be made", `failed: write /tmp/new/x 1: .*operation not permitted`},
				{"stdin is open", `/proc/self/fd/0 -> pipe:.*`},
			}},
		{"no network", func(task *api.Task) {
			attachTo(task, "none")
		},
			"interfaces -- try dial 127.0.0.1:1",
			[]sight{
				{"the loop-back interface", `lo .*`},
				{"no other", `!eth.*`},
			}},
		{"network of the host", func(task *api.Task) {
			attachTo(task, "host")
		},
			"interfaces",
			[]sight{{"the host's interfaces", `docker0 .*`}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			in.see(t, in.run(t, test.task, strings.Fields(test.args)...), test.sees)
		})
	}
	t.Run("mounts", in.testMounts)
	t.Run("volumes", in.testVolumes)
	t.Run("networks", in.testNetworks)
	t.Run("internal network", in.testInternal)
	t.Run("host port", in.testHostPort)
	t.Run("health", in.testHealth)
	t.Run("stop signal", in.testStopSignal)
	t.Run("log driver", in.testLogDriver)
	if t.Failed() {
		return
	}
	require.GreaterOrEqual(t, in.seen, 40)
	version, err := client.ServerVersion(t.Context())
	require.NoError(t, err)
	t.Logf("%d assertions on engine %s, API %s", in.seen, version.Version, client.ClientVersion())
}

// confined asks for as much at once as fits into one task.
func confined(task *api.Task) {
	task.ServiceAnnotations.Name = "inside-test"
	task.AssignedGenericResources = []*api.GenericResource{
		{Resource: &api.GenericResource_NamedResourceSpec{NamedResourceSpec: &api.NamedGenericResource{Kind: "gpu", Value: "UUID1"}}},
		{Resource: &api.GenericResource_DiscreteResourceSpec{DiscreteResourceSpec: &api.DiscreteGenericResource{Kind: "ssd", Value: 3}}},
		{Resource: &api.GenericResource_NamedResourceSpec{NamedResourceSpec: &api.NamedGenericResource{Kind: "gpu", Value: "UUID2"}}},
	}
	task.Spec.Resources = &api.ResourceRequirements{
		Limits:           &api.Resources{NanoCPUs: 5e8, MemoryBytes: 64 << 20},
		SwapBytes:        &gogotypes.Int64Value{Value: 32 << 20},
		MemorySwappiness: &gogotypes.Int64Value{Value: 33},
	}
	s := spec(task)
	s.User, s.Groups, s.ReadOnly, s.Dir = "1000:1001", []string{"2000", "3000"}, true, "/tmp"
	s.Hostname = "{{.Node.Hostname}}-{{.Task.Slot}}"
	s.Env = []string{"PLAIN=1", "EMPTY=", "WHERE={{.Node.Hostname}}/{{.Service.Name}}/{{.Task.Slot}}"}
	s.Privileges = &api.Privileges{NoNewPrivileges: true}
	s.CapabilityAdd, s.CapabilityDrop = []string{"CAP_NET_BIND_SERVICE"}, []string{"ALL"}
	s.Sysctls = map[string]string{"net.core.somaxconn": "1234", "kernel.msgmax": "4321", "net.ipv4.conf.eth0.log_martians": "1"}
	s.Ulimits = []*api.ContainerSpec_Ulimit{
		{Name: "nofile", Soft: 512, Hard: 1024}, {Name: "nproc", Soft: 100, Hard: 200}, {Name: "core"}, {Name: "stack", Soft: -1, Hard: -1},
	}
	s.PidsLimit, s.OomScoreAdj = 77, 500
	s.DNSConfig = &api.ContainerSpec_DNSConfig{
		Nameservers: []string{"10.9.8.7", "10.9.8.6"}, Search: []string{"a.example", "b.example"}, Options: []string{"ndots:3", "timeout:2"},
	}
	s.Hosts = []string{"10.1.2.3 alpha beta gamma", "fd00::7 delta # a comment", "host-gateway gateway"}
	// The image has neither folder: runc before 1.2 would give them the mode of the image's.
	s.Mounts = []api.Mount{
		{Type: api.MountTypeTmpfs, Target: "/scratch", TmpfsOptions: &api.Mount_TmpfsOptions{SizeBytes: 65536, Mode: 0o700, Options: "exec,uid=1000,gid=1001"}},
		{Type: api.MountTypeTmpfs, Target: "/run", ReadOnly: true, TmpfsOptions: &api.Mount_TmpfsOptions{SizeBytes: 1 << 20, Mode: 0o711, Options: `[["noexec"],["nr_inodes","100"]]`}},
	}
}

// testHealth looks at what the health check printed, inside the container.
func (in *insider) testHealth(t *testing.T) {
	adapter := in.start(t, func(task *api.Task) {
		spec(task).Healthcheck = &api.HealthConfig{Test: []string{"CMD", "/testtask", "health", "/tmp/ok"},
			Interval: &gogotypes.Duration{Nanos: 2e8}, Timeout: &gogotypes.Duration{Seconds: 5}, Retries: 50}
	}, "write", "/tmp/ok", "1", "--", "sleep", "1h")
	var health *container.Health
	require.Eventually(t, func() bool {
		running, err := adapter.Inspect(t.Context())
		require.NoError(t, err)
		health = running.State.Health
		require.NotNil(t, health)
		return health.Status == container.Healthy
	}, time.Minute, 20*time.Millisecond)
	in.see(t, health.Log[len(health.Log)-1].Output, []sight{{"health check", "healthy"}})
}

func (in *insider) testStopSignal(t *testing.T) {
	adapter := in.start(t, func(task *api.Task) { spec(task).StopSignal = "SIGUSR2" }, "signal")
	in.untilReady(t, adapter, "ready")
	require.NoError(t, adapter.Shutdown(t.Context()))
	in.see(t, in.output(t, adapter, false), []sight{{"stop signal", "signal: user defined signal 2"}})
}

// testLogDriver has the engine's default driver add a label and a variable to
// each line, as its options say.
func (in *insider) testLogDriver(t *testing.T) {
	for _, driver := range []string{"json-file", ""} {
		adapter := in.start(t, func(task *api.Task) {
			task.LogDriver = &api.Driver{Name: driver, Options: map[string]string{"labels": "tier", "env": "REGION"}}
			spec(task).Labels = map[string]string{"tier": "gold"}
			spec(task).Env = []string{"REGION=north"}
		}, "exit", "0", "--", "print", "1", "line")
		_, err := adapter.Wait(t.Context())
		require.NoError(t, err)
		in.see(t, in.output(t, adapter, true), []sight{{"options of log driver " + driver, "REGION=north,tier=gold line 1"}})
	}
	adapter := in.adapter(t, func(task *api.Task) { task.Spec.LogDriver = &api.Driver{Name: "none"} }, "exit", "0")
	require.NoError(t, adapter.Create(t.Context()))
	made, err := adapter.Inspect(t.Context())
	require.NoError(t, err)
	assert.Equal(t, "none", made.HostConfig.LogConfig.Type)
	in.seen++
}
