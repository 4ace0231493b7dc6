package dockerexec

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	osexec "os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	engineapi "github.com/docker/docker/client"
	"github.com/docker/docker/pkg/stdcopy"
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
	engine *Engine
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
func (in *insider) adapter(t *testing.T, change func(*api.Task), args ...string) *ContainerAdapter {
	t.Helper()
	task := engineTask(t, args...)
	if change != nil {
		change(task)
	}
	adapter, err := in.engine.Adapter(goldenNode(), task, nil)
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
func (in *insider) start(t *testing.T, change func(*api.Task), args ...string) *ContainerAdapter {
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
func (in *insider) output(t *testing.T, adapter *ContainerAdapter, details bool) string {
	t.Helper()
	body, err := in.client.ContainerLogs(t.Context(), adapter.config.name(), container.LogsOptions{ShowStdout: true, ShowStderr: true, Details: details})
	require.NoError(t, err)
	defer body.Close()
	var output bytes.Buffer
	if adapter.config.spec().TTY {
		_, err = output.ReadFrom(body)
	} else {
		_, err = stdcopy.StdCopy(&output, &output, body)
	}
	require.NoError(t, err)
	return strings.ReplaceAll(output.String(), "\r\n", "\n")
}

// untilReady waits until the task has printed a line.
func (in *insider) untilReady(t *testing.T, adapter *ContainerAdapter, line string) {
	t.Helper()
	require.Eventually(t, func() bool { return strings.Contains(in.output(t, adapter, false), line) }, time.Minute, 20*time.Millisecond)
}

// command runs a command on the engine's host.
func command(t *testing.T, name string, args ...string) {
	t.Helper()
	output, err := osexec.Command(name, args...).CombinedOutput()
	require.NoError(t, err, "%s %v: %s", name, args, output)
}

// isPrivate reports whether the tests run beside the engine, as root, so that
// they may mount, and make interfaces, where it sees them.
func isPrivate() bool { return os.Getenv("DOCKEREXEC_TEST_ENGINE") != "" }

// Limits are in other files for each version of control groups; the expressions
// know both.
func TestEngineTaskSeesWhatWasAsked(t *testing.T) {
	client := engineClient(t)
	warmImage(t, client)
	in := &insider{client: client, engine: NewEngine(client)}
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
			task.Networks = []*api.NetworkAttachment{attachment(namedNetwork("none"))}
		},
			"interfaces -- try dial 127.0.0.1:1",
			[]sight{
				{"the loop-back interface", `lo .*`},
				{"no other", `!eth.*`},
			}},
		{"network of the host", func(task *api.Task) {
			task.Networks = []*api.NetworkAttachment{attachment(namedNetwork("host"))}
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

// testMounts mounts folders of the host: /outer, and /outer/inner in it, are
// mounts of their own that are shared with whoever binds them so.
func (in *insider) testMounts(t *testing.T) {
	if !isPrivate() {
		t.Skip("the engine is not of the tests' own")
	}
	outer := filepath.Join(fromHarness(t, "DOCKEREXEC_TEST_DIR"), "outer")
	inner := filepath.Join(outer, "inner")
	for _, dir := range []string{outer, inner} {
		require.NoError(t, os.Mkdir(dir, 0o755))
		command(t, "mount", "-t", "tmpfs", "tmpfs", dir)
		t.Cleanup(func() { command(t, "umount", "--lazy", dir) })
	}
	command(t, "mount", "--make-rshared", outer)
	bind := func(target string, o *api.Mount_BindOptions) api.Mount {
		return api.Mount{Source: outer, Target: target, BindOptions: o}
	}
	mounts := []api.Mount{
		bind("/plain", nil),
		bind("/rshared", &api.Mount_BindOptions{Propagation: api.MountPropagationRShared}),
		bind("/shared", &api.Mount_BindOptions{Propagation: api.MountPropagationShared}),
		bind("/rslave", &api.Mount_BindOptions{Propagation: api.MountPropagationRSlave}),
		bind("/slave", &api.Mount_BindOptions{Propagation: api.MountPropagationSlave}),
		bind("/private", &api.Mount_BindOptions{Propagation: api.MountPropagationPrivate}),
		bind("/flat", &api.Mount_BindOptions{NonRecursive: true}),
		{Source: outer, Target: "/ro", ReadOnly: true},
	}
	// A line of mountinfo: flags are empty for a private mount.
	propagated := func(target, flags string) string {
		return `\S+ \S+ \S+ \S+ /` + target + ` rw,\S+ ` + flags + `- tmpfs tmpfs .*`
	}
	sees := []sight{
		{"bind, private unless asked", propagated("plain", "")},
		{"bind, with what is mounted in it", propagated("plain/inner", "")},
		{"bind, rshared", propagated("rshared", `shared:\d+ `)},
		{"bind, rshared, and in it", propagated("rshared/inner", `shared:\d+ `)},
		{"bind, shared", propagated("shared", `shared:\d+ `)},
		{"bind, rslave", propagated("rslave", `master:\d+ `)},
		{"bind, rslave, and in it", propagated("rslave/inner", `master:\d+ `)},
		{"bind, slave", propagated("slave", `master:\d+ `)},
		{"bind, private", propagated("private", "")},
		{"bind, not recursive", propagated("flat", "")},
		{"bind, not recursive, without what is mounted in it", `!.* /flat/inner .*`},
		{"bind, read-only", `failed: write /ro/x 1: .*read-only file system`},
		{"bind, written to", `done: write /plain/x 1`},
	}
	asks := "mounts -- try write /ro/x 1 -- try write /plain/x 1"
	created := bind("/created", &api.Mount_BindOptions{CreateMountpoint: true})
	created.Source = filepath.Join(outer, "made")
	deep := bind("/deep", &api.Mount_BindOptions{ReadOnlyForceRecursive: true})
	deep.ReadOnly = true
	shallow := bind("/shallow", &api.Mount_BindOptions{ReadOnlyNonRecursive: true})
	shallow.ReadOnly = true
	mounts = append(mounts, shallow)
	sees = append(sees, sight{"bind, read-only, not what is mounted in it", `.* /shallow/inner rw,.*`})
	for _, m := range []struct {
		since string
		mount api.Mount
		why   string
		sight
	}{
		{"1.42", created, "CreateMountpoint: needs API version 1.42 of the engine", sight{"bind, source made", `.* /created rw,.*`}},
		{"1.44", deep, "ReadOnlyForceRecursive: needs API version 1.44 of the engine", sight{"bind, read-only with all in it", `.* /deep/inner ro,.*`}},
	} {
		if atLeast(in.client.ClientVersion(), m.since) {
			mounts, sees = append(mounts, m.mount), append(sees, m.sight)
			continue
		}
		err := in.adapter(t, withMount(m.mount)).Create(t.Context())
		require.ErrorContains(t, err, "task field Spec.Container.Mounts[0].BindOptions."+m.why)
		in.seen++
	}
	in.see(t, in.run(t, func(task *api.Task) { spec(task).Mounts = mounts }, strings.Fields(asks)...), sees)
}

// testVolumes has one task fill volumes and another one look at them.
func (in *insider) testVolumes(t *testing.T) {
	mount := func(name, target string, o *api.Mount_VolumeOptions) api.Mount {
		m := api.Mount{Type: api.MountTypeVolume, Source: "dockerexec-inside-" + name, Target: target, VolumeOptions: o}
		t.Cleanup(func() {
			assert.NoError(t, in.client.VolumeRemove(context.WithoutCancel(t.Context()), m.Source, true))
		})
		return m
	}
	driver := &api.Driver{Name: "local", Options: map[string]string{"type": "tmpfs", "device": "tmpfs", "o": "size=1m,mode=750,uid={{.Task.Slot}}000"}}
	in.see(t, in.run(t, func(task *api.Task) {
		spec(task).Mounts = []api.Mount{
			mount("data", "/data", &api.Mount_VolumeOptions{Labels: map[string]string{"of": "{{.Service.Name}}"}}),
			mount("copy", "/etc", nil),
			mount("memory", "/memory", &api.Mount_VolumeOptions{DriverConfig: driver, Labels: map[string]string{"a": "b"}}),
			{Type: api.MountTypeVolume, Target: "/anonymous"},
		}
	}, strings.Fields("try write /data/a/b 1 -- show /etc/group -- mounts -- stat /memory -- try write /anonymous/x 1")...), []sight{
		{"volume, written to", `done: write /data/a/b 1`},
		{"volume, filled from the image", `/etc/group = root:x:0: .*`},
		{"volume, driver options", `.* /memory .*- tmpfs tmpfs rw,size=1024k.*`},
		{"volume, driver options with a template", `/memory 0750 1000 0 \d+`},
		{"volume, without a name", `done: write /anonymous/x 1`},
	})
	labels := func(name string) map[string]string {
		found, err := in.client.VolumeInspect(t.Context(), "dockerexec-inside-"+name)
		require.NoError(t, err)
		return found.Labels
	}
	assert.Equal(t, map[string]string{"of": "testenginetaskseeswhatwasasked-volumes"}, labels("data"), "made with the container")
	assert.Equal(t, map[string]string{"a": "b"}, labels("memory"), "made ahead of it")
	in.seen += 2

	mounts := []api.Mount{
		{Type: api.MountTypeVolume, Source: "dockerexec-inside-data", Target: "/ro", ReadOnly: true},
		mount("empty", "/etc", &api.Mount_VolumeOptions{NoCopy: true}),
	}
	sees := []sight{
		{"volume of another task", `/ro/a/b = 1`},
		{"volume, read-only", `failed: write /ro/c 1: .*read-only file system`},
		{"volume, not filled from the image", `open /etc/group: no such file or directory`},
	}
	part := api.Mount{Type: api.MountTypeVolume, Source: "dockerexec-inside-data", Target: "/part", VolumeOptions: &api.Mount_VolumeOptions{Subpath: "a"}}
	if atLeast(in.client.ClientVersion(), "1.45") {
		mounts, sees = append(mounts, part), append(sees, sight{"volume, a folder of it", `/part/b = 1`})
	} else {
		err := in.adapter(t, withMount(part)).Create(t.Context())
		require.ErrorContains(t, err, "task field Spec.Container.Mounts[0].VolumeOptions.Subpath: needs API version 1.45 of the engine, in use is "+in.client.ClientVersion())
		in.seen++
	}
	in.see(t, in.run(t, func(task *api.Task) { spec(task).Mounts = mounts },
		strings.Fields("show /ro/a/b /part/b /etc/group -- try write /ro/c 1")...), sees)
}

// testNetworks has one task serve on two networks and others look for it.
func (in *insider) testNetworks(t *testing.T) {
	first := &api.Network{
		Spec:        api.NetworkSpec{Annotations: api.Annotations{Name: "dockerexec-inside-a"}, Ipv6Enabled: true},
		DriverState: &api.Driver{Name: "bridge", Options: map[string]string{"com.docker.network.driver.mtu": "1380"}},
		IPAM: &api.IPAMOptions{Configs: []*api.IPAMConfig{
			{Subnet: "10.213.11.0/24", Range: "10.213.11.64/26", Gateway: "10.213.11.254", Reserved: map[string]string{"taken": "10.213.11.64"}},
			{Family: api.IPAMConfig_IPV6, Subnet: "fd00:213:11::/64"},
		}},
	}
	second := &api.Network{
		Spec:        api.NetworkSpec{Annotations: api.Annotations{Name: "dockerexec-inside-b"}},
		DriverState: &api.Driver{Name: "bridge"},
		IPAM:        &api.IPAMOptions{Configs: []*api.IPAMConfig{{Subnet: "10.213.12.0/24"}}},
	}
	server := in.start(t, func(task *api.Task) {
		task.Networks = []*api.NetworkAttachment{
			{Network: second, Addresses: []string{"10.213.12.9/24"}, Aliases: []string{"cache", "store"}},
			{Network: first, Addresses: []string{"10.213.11.9/24", "fd00:213:11::9/64"}, Aliases: []string{"db"}},
		}
	}, "interfaces", "--", "serve", ":8080")
	in.untilReady(t, server, "serving on")
	in.see(t, in.output(t, server, false), []sight{
		{"fixed addresses of both families", `eth\d mtu=1380 10\.213\.11\.9/24 fd00:213:11::9/64.*`},
		{"fixed address on the other network", `eth\d mtu=1500 10\.213\.12\.9/24.*`},
	})

	in.see(t, in.run(t, func(task *api.Task) {
		task.Networks = []*api.NetworkAttachment{{Network: first}, {Network: second}}
	}, strings.Fields("interfaces -- resolve db -- resolve cache -- resolve store -- dial db:8080 -- dial cache:8080 -- dial [fd00:213:11::9]:8080")...), []sight{
		{"alias, both addresses", `10\.213\.11\.9\nfd00:213:11::9`},
		{"alias and second alias on the other network", `10\.213\.12\.9\n10\.213\.12\.9`},
		{"another task over the first network", `connected to (?:10\.213\.11\.9|\[fd00:213:11::9\]):8080`},
		{"another task over the second network", `connected to 10\.213\.12\.9:8080`},
		{"another task over IPv6", `connected to \[fd00:213:11::9\]:8080`},
	})
	in.see(t, in.run(t, func(task *api.Task) {
		task.Networks = []*api.NetworkAttachment{{Network: first}}
		spec(task).DNSConfig = &api.ContainerSpec_DNSConfig{Options: []string{"timeout:1", "attempts:1"}} // nobody else answers
	}, strings.Fields("interfaces -- cat /proc/net/route -- resolve db -- try resolve cache -- cat /etc/resolv.conf")...), []sight{
		{"address of the range, not the reserved one", `eth0 mtu=1380 10\.213\.11\.(?:6[5-9]|[7-9]\d|1[01]\d|12[0-7])/24 .*`},
		{"gateway 10.213.11.254", `eth0\t00000000\tFE0BD50A\t.*`},
		{"alias", `10\.213\.11\.9`},
		{"no alias of a network that it is not in", `failed: resolve cache: .*`},
		{"the engine's name server", `nameserver 127\.0\.0\.11`},
		{"the other network's interface", `!eth1 .*`},
	})
}

// testInternal compares a network with an internal one: outside is a namespace
// of its own, beyond the host.
func (in *insider) testInternal(t *testing.T) {
	if !isPrivate() {
		t.Skip("the engine is not of the tests' own")
	}
	const address = "198.51.100.2"
	outside := in.start(t, func(task *api.Task) {
		task.Networks = []*api.NetworkAttachment{attachment(namedNetwork("none"))}
	}, "serve", ":8080")
	in.untilReady(t, outside, "serving on")
	running, err := outside.Inspect(t.Context())
	require.NoError(t, err)
	pid := fmt.Sprint(running.State.Pid)
	command(t, "ip", "link", "add", "dxoutside", "type", "veth", "peer", "name", "dxinside", "netns", pid)
	command(t, "ip", "addr", "add", "198.51.100.1/24", "dev", "dxoutside")
	command(t, "ip", "link", "set", "dxoutside", "up")
	command(t, "nsenter", "--target", pid, "--net", "ip", "addr", "add", address+"/24", "dev", "dxinside")
	command(t, "nsenter", "--target", pid, "--net", "ip", "link", "set", "dxinside", "up")

	for i, sees := range [][]sight{
		{{"a way out", "connected to " + address + ":8080"}},
		{
			{"no way out", "failed: dial " + address + ":8080 2s: .*"},
			{"its own network", `eth0 mtu=\d+ 10\.213\.14\..*`},
		},
	} {
		in.see(t, in.run(t, func(task *api.Task) {
			attach(task, fmt.Sprintf("dockerexec-inside-%d", i), fmt.Sprintf("10.213.%d.0/24", 13+i))
			task.Networks[0].Network.Spec.Internal = i == 1
		}, "interfaces", "--", "try", "dial", address+":8080", "2s"), sees)
	}
}

func (in *insider) testHostPort(t *testing.T) {
	server := in.start(t, func(task *api.Task) {
		task.Endpoint = &api.Endpoint{Ports: []*api.PortConfig{{TargetPort: 8080, PublishedPort: 18090, PublishMode: api.PublishModeHost}}}
	}, "serve", ":8080")
	in.untilReady(t, server, "serving on")
	connection, err := net.Dial("tcp", "127.0.0.1:18090")
	require.NoError(t, err)
	require.NoError(t, connection.Close())
	in.seen++
}

// testHealth looks at what the health check printed, inside the container.
func (in *insider) testHealth(t *testing.T) {
	adapter := in.start(t, func(task *api.Task) {
		spec(task).Healthcheck = &api.HealthConfig{Test: []string{"CMD", "/testtask", "health", "/tmp/ok"},
			Interval: seconds(0, 2e8), Timeout: seconds(5, 0), Retries: 50}
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
