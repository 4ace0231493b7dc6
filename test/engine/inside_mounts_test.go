package engine_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/docker/docker/api/types/volume"
	"github.com/moby/swarmkit/v2/api"
	"github.com/moby/swarmkit/v2/identity"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// testMounts mounts folders of the host: /outer, and /outer/inner in it, are
// mounts of their own that are shared with whoever binds them so.
func (in *insider) testMounts(t *testing.T) {
	if !isPrivate() {
		skip(t, "the engine is not of the tests' own")
	}
	outer := filepath.Join(fromHarness(t, "DOCKEREXEC_TEST_DIR"), "outer-"+identity.NewID())
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
		{Source: "/", Target: "/host", BindOptions: &api.Mount_BindOptions{NonRecursive: true}},
		{Source: in.rootDir(t), Target: "/engine", BindOptions: &api.Mount_BindOptions{}},
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
		{"bind of the root folder", `.* /host rw.*`},
		{"bind of the engine's own folder", `.* /engine rw.*`},
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

// rootDir is the engine's own folder.
func (in *insider) rootDir(t *testing.T) string {
	t.Helper()
	info, err := in.client.Info(t.Context())
	require.NoError(t, err)
	return info.DockerRootDir
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

func withMount(m api.Mount) func(*api.Task) {
	return func(task *api.Task) { spec(task).Mounts = []api.Mount{m} }
}

// A volume that exists is used, and a warning names what differs. Nothing of its options
// is shown. The engine itself refuses another driver.
func TestEngineVolumeThatExistsWithOtherOptions(t *testing.T) {
	sharesEngine(t)
	client := engineClient(t)
	const name = "dockerexec-other-options"
	_, err := client.VolumeCreate(t.Context(), volume.CreateOptions{Name: name, Labels: map[string]string{"team": "a"},
		DriverOpts: map[string]string{"type": "tmpfs", "device": "tmpfs", "o": "mode=700"}})
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, client.VolumeRemove(context.WithoutCancel(t.Context()), name, true)) })
	asks := func(labels, options map[string]string) *api.Task {
		task := engineTask(t, "exit", "0")
		spec(task).Mounts = []api.Mount{{Type: api.MountTypeVolume, Source: name, Target: "/data",
			VolumeOptions: &api.Mount_VolumeOptions{Labels: labels, DriverConfig: &api.Driver{Name: "local", Options: options}}}}
		return task
	}
	same := map[string]string{"type": "tmpfs", "device": "tmpfs", "o": "mode=700"}
	for _, test := range []struct {
		task *api.Task
		want []string
	}{
		{asks(map[string]string{"team": "a"}, same), nil},
		{asks(map[string]string{"team": "b"}, map[string]string{"type": "tmpfs", "device": "tmpfs", "o": "mode=750,password=Sup3rS3cret"}),
			[]string{"task field Spec.Container.Mounts[0].VolumeOptions: volume " + name + " exists and differs: driver options o; labels team; it is used as it is"}},
		{asks(nil, nil),
			[]string{"task field Spec.Container.Mounts[0].VolumeOptions: volume " + name + " exists and differs: driver options device, o, type; it is used as it is"}},
	} {
		ctx, lines := logged(t)
		adapter := engineAdapter(t, client, test.task)
		require.NoError(t, adapter.CreateVolumes(ctx))
		require.NoError(t, adapter.CreateVolumes(ctx))
		assert.Equal(t, test.want, lines.warnings())
	}
	if isPodman() { // which uses the volume there too
		return
	}
	other := asks(nil, nil)
	spec(other).Mounts[0].VolumeOptions.DriverConfig.Name = "nosuch"
	require.ErrorContains(t, engineAdapter(t, client, other).CreateVolumes(t.Context()), "create volume "+name+" with driver nosuch: ")
}
