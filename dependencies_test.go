package dockerexec

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/docker/docker/api/types/mount"
	engineapi "github.com/docker/docker/client"
	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/moby/swarmkit/v2/api"
	"github.com/moby/swarmkit/v2/identity"
	"github.com/pkg/errors"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockerexec/dockerexec/dockerexectest"
)

func testPayloads(t testing.TB, node *api.NodeDescription, task *api.Task, deps exec.DependencyGetter) payloads {
	t.Helper()
	config, err := newContainerConfig(node, task)
	require.NoError(t, err)
	p, err := newPayloads(deps, config)
	require.NoError(t, err)
	return p
}

// filesTask references secret s1, config c1 and a template of each.
func filesTask() *api.Task {
	task := plainTask()
	spec(task).Env = []string{"SERVICE={{.Service.Name}}"}
	spec(task).Secrets = []*api.SecretReference{secretFile("s1", &api.FileTarget{Name: "s1"}), secretFile("template", &api.FileTarget{Name: "st"})}
	spec(task).Configs = []*api.ConfigReference{configFile("c1", &api.FileTarget{Name: "c1"}), configFile("template", &api.FileTarget{Name: "ct"})}
	return task
}

func TestPayloads(t *testing.T) {
	t.Parallel()
	const text = `{{.Node.Hostname}} {{.Node.Platform.OS}} {{.Service.Name}} {{.Task.Slot}} {{env "SERVICE"}} {{config "c1"}}`
	for name, test := range map[string]struct {
		node *api.NodeDescription
		want string
	}{
		"node":           {goldenNode(), "node-1 linux web 1 web payload of c1"},
		"half a node":    {&api.NodeDescription{Hostname: "node-1"}, "node-1  web 1 web payload of c1"},
		"a node unknown": {nil, "  web 1 web payload of c1"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := testPayloads(t, test.node, filesTask(), stores(text))
			for d, want := range map[dependency]string{
				{id: "s1"}:                       "payload of s1",
				{id: "c1", isConfig: true}:       "payload of c1",
				{id: "template"}:                 test.want,
				{id: "template", isConfig: true}: test.want,
			} {
				got, err := p.get(d)
				require.NoError(t, err)
				assert.Equal(t, want, string(got))
			}
		})
	}
}

// The node description is the caller's to change.
func TestPayloadsKeepTheNode(t *testing.T) {
	t.Parallel()
	node := goldenNode()
	p := testPayloads(t, node, filesTask(), stores("{{.Node.Hostname}} {{.Node.Platform.OS}}"))
	node.Hostname, node.Platform.OS = "changed", "changed"
	got, err := p.get(dependency{id: "template"})
	require.NoError(t, err)
	assert.Equal(t, "node-1 linux", string(got))
}

// A payload in a config's template comes of a secret that the task has too.
func TestPayloadOfASecretInAConfig(t *testing.T) {
	t.Parallel()
	p := testPayloads(t, nil, filesTask(), stores(`password={{secret "s1"}}`))
	got, err := p.get(dependency{id: "template", isConfig: true})
	require.NoError(t, err)
	assert.Equal(t, "password=payload of s1", string(got))
}

// A secret driver may make a payload for one task alone; SwarmKit's view writes
// to what it gets, which is shared.
func TestPayloadForOneTask(t *testing.T) {
	t.Parallel()
	deps := stores()
	own := identity.CombineTwoIDs("s1", "taskid")
	deps.secrets.(exec.SecretsManager).Add(api.Secret{ID: own, Spec: api.SecretSpec{Data: []byte("for this task")}})
	p := testPayloads(t, nil, filesTask(), deps)
	got, err := p.get(dependency{id: "s1"})
	require.NoError(t, err)
	assert.Equal(t, "for this task", string(got))
	shared, err := deps.secrets.Get(own)
	require.NoError(t, err)
	assert.Equal(t, own, shared.ID)
}

func TestPayloadsThatAreNotThere(t *testing.T) {
	t.Parallel()
	nothing := getters{
		secrets: secretFunc(func(string) (*api.Secret, error) { return nil, nil }),
		configs: configFunc(func(string) (*api.Config, error) { return nil, nil }),
	}
	failing := getters{
		secrets: secretFunc(func(string) (*api.Secret, error) { return nil, errors.New("vault sealed") }),
		configs: configFunc(func(string) (*api.Config, error) { return nil, errors.New("vault sealed") }),
	}
	late := stores(`{{secret "s1"}}{{config "c1"}}`)
	late.secrets.(exec.SecretsManager).Remove([]string{"s1"})
	late.configs.(exec.ConfigsManager).Remove([]string{"c1"})
	for _, test := range []struct {
		name string
		deps exec.DependencyGetter
		d    dependency
		want string
	}{
		{"secret nil", nothing, dependency{id: "s1", name: "db"}, `secret "db" (s1) is not there yet: the getter of secrets does not have s1`},
		{"config nil", nothing, dependency{id: "c1", isConfig: true}, `config "c1" is not there yet: the getter of configs does not have c1`},
		{"secret failing", failing, dependency{id: "s1"}, `secret "s1" is not there yet: vault sealed`},
		{"config failing", failing, dependency{id: "c1", isConfig: true}, `config "c1" is not there yet: vault sealed`},
		{"secret late", late, dependency{id: "s1"}, `secret "s1" is not there yet: secret s1 not found`},
		{"config late", late, dependency{id: "c1", isConfig: true}, `config "c1" is not there yet: config c1 not found`},
		{"in a template", late, dependency{id: "template"}, `secret "template" is not there yet: secret s1 not found`},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			_, err := testPayloads(t, nil, filesTask(), test.deps).get(test.d)
			require.EqualError(t, err, test.want)
			assert.True(t, exec.IsTemporary(err))
		})
	}
}

// What a template's error says may be the secret.
func TestPayloadTemplatesThatCannotBeExpanded(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"syntax":           "canary {{",
		"field":            `{{.Canary}}`,
		"function":         `{{canary "x"}}`,
		"no such target":   `canary {{secret "canary"}}`,
		"others' secret":   `canary {{secret "other"}}`,
		"missing argument": `canary {{index .Service.Labels 1}}`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := testPayloads(t, nil, filesTask(), stores(text))
			_, err := p.get(dependency{path: "Spec.Container.Secrets[1]", id: "template"})
			require.EqualError(t, err, `dockerexec: task field Spec.Container.Secrets[1]: secret "template": its template cannot be expanded (the payload is not shown)`)
			assert.False(t, exec.IsTemporary(err))
		})
	}
	deps := stores()
	deps.secrets.(exec.SecretsManager).Add(api.Secret{ID: "template", Spec: api.SecretSpec{Data: []byte("canary"), Templating: &api.Driver{Name: "canary"}}})
	_, err := testPayloads(t, nil, filesTask(), deps).get(dependency{path: "Spec.Container.Secrets[1]", id: "template"})
	require.ErrorContains(t, err, "Secrets[1]")
	assert.NotContains(t, err.Error(), "canary")
}

func TestReferencesWithoutAGetter(t *testing.T) {
	t.Parallel()
	withSecret, withConfig := plainTask(), plainTask()
	spec(withSecret).Secrets = []*api.SecretReference{secretFile("s1", &api.FileTarget{Name: "s"})}
	spec(withConfig).Configs = []*api.ConfigReference{{ConfigID: "c1", Target: &api.ConfigReference_File{File: &api.FileTarget{Name: "c"}}}}
	const noSecret = `dockerexec: task field Spec.Container.Secrets[0]: secret "name-of-s1" (s1): the adapter was given no getter of secrets`
	const noConfig = `dockerexec: task field Spec.Container.Configs[0]: config "c1": the adapter was given no getter of configs`
	client := dockerexectest.New(t).Client()
	for _, test := range []struct {
		task *api.Task
		deps exec.DependencyGetter
		want string
	}{
		{withSecret, nil, noSecret},
		{withSecret, getters{configs: stores().configs}, noSecret},
		{withConfig, nil, noConfig},
		{withConfig, getters{secrets: stores().secrets}, noConfig},
	} {
		_, err := NewEngine(client).Adapter(nil, test.task, test.deps)
		require.EqualError(t, err, test.want)
	}
	_, err := NewContainerAdapter(client, nil, withConfig, stores().secrets)
	require.EqualError(t, err, noConfig)
	_, err = NewContainerAdapter(client, nil, withSecret, nil)
	require.EqualError(t, err, noSecret)
	_, err = NewContainerAdapter(client, nil, withSecret, stores().secrets)
	require.NoError(t, err)
}

func TestFilesOfATask(t *testing.T) {
	t.Parallel()
	assert.Equal(t, []taskFile{
		{dependency{"Spec.Container.Secrets[0]", false, "s1", "db-password"}, "secret.0", "/run/secrets/password", 1000, 2000, 0o400},
		{dependency{"Spec.Container.Secrets[1]", false, "s2", ""}, "secret.1", "/run/secrets/tls/key.pem", 0, 0, 0o444},
		{dependency{"Spec.Container.Secrets[2]", false, "s1", ""}, "secret.2", "/etc/app/password", 0, 0, 0},
	}, newTestConfig(t, goldenTask(t, "secrets")).files)
	assert.Equal(t, []taskFile{
		{dependency{"Spec.Container.Configs[0]", true, "c1", "web-conf"}, "config.0", "/web.conf", 1000, 2000, 0o640},
		{dependency{"Spec.Container.Configs[1]", true, "c1", ""}, "config.1", "/etc/web/web.conf", 0, 0, 0o444},
	}, newTestConfig(t, goldenTask(t, "configs")).files)

	for name, want := range map[string]string{
		"a..b": "/run/secrets/a..b", "...": "/run/secrets/...", "a/../b": "/run/secrets/b", "./a": "/run/secrets/a",
		"//a/": "/a", "/../a": "/a", "/run/secrets/a/": "/run/secrets/a", "C:": "/run/secrets/C:",
	} {
		task := plainTask()
		spec(task).Secrets = []*api.SecretReference{secretFile("s", &api.FileTarget{Name: name})}
		assert.Equal(t, want, newTestConfig(t, task).files[0].target, name)
	}
}

func TestFilesThatAreRefused(t *testing.T) {
	t.Parallel()
	withSecrets := func(files ...*api.FileTarget) func(*api.Task) {
		return func(task *api.Task) {
			for _, f := range files {
				spec(task).Secrets = append(spec(task).Secrets, secretFile("s", f))
			}
		}
	}
	withConfig := func(name string) func(*api.Task) {
		return func(task *api.Task) {
			spec(task).Configs = append(spec(task).Configs, configFile("c", &api.FileTarget{Name: name}))
		}
	}
	both := func(changes ...func(*api.Task)) func(*api.Task) {
		return func(task *api.Task) {
			for _, change := range changes {
				change(task)
			}
		}
	}
	withCredential := func(id string) func(*api.Task) {
		return func(task *api.Task) {
			spec(task).Privileges = &api.Privileges{CredentialSpec: &api.Privileges_CredentialSpec{Source: &api.Privileges_CredentialSpec_Config{Config: id}}}
		}
	}
	named := func(name string) *api.FileTarget { return &api.FileTarget{Name: name} }
	for _, test := range []struct {
		name   string
		change func(*api.Task)
		want   string
	}{
		{"secret ID", func(task *api.Task) {
			spec(task).Secrets = []*api.SecretReference{secretFile("", named("a"))}
		}, "Spec.Container.Secrets[0].SecretID: is empty"},
		{"config ID", func(task *api.Task) {
			spec(task).Configs = []*api.ConfigReference{configFile("", named("a"))}
		}, "Spec.Container.Configs[0].ConfigID: is empty"},
		{"secret nil", func(task *api.Task) { spec(task).Secrets = []*api.SecretReference{nil} }, "Spec.Container.Secrets[0]: is nil"},
		{"config nil", func(task *api.Task) { spec(task).Configs = []*api.ConfigReference{nil} }, "Spec.Container.Configs[0]: is nil"},
		{"secret without target", func(task *api.Task) {
			spec(task).Secrets = []*api.SecretReference{{SecretID: "s"}}
		}, "Spec.Container.Secrets[0].Target: is not set: a secret arrives as a file, or not at all"},
		{"config without target", func(task *api.Task) {
			spec(task).Configs = []*api.ConfigReference{{ConfigID: "c"}}
		}, "Spec.Container.Configs[0].Target: is not set: a config arrives as a file or by another field, or not at all"},
		{"runtime target that nothing uses", func(task *api.Task) {
			spec(task).Configs = []*api.ConfigReference{{ConfigID: "c", Target: &api.ConfigReference_Runtime{Runtime: &api.RuntimeTarget{}}}}
		}, "Spec.Container.Configs[0].Target: is for a container's CredentialSpec, and the task's names another config or none"},
		{"target nil", func(task *api.Task) {
			spec(task).Secrets = []*api.SecretReference{{SecretID: "s", Target: &api.SecretReference_File{}}}
		}, "Spec.Container.Secrets[0].File: is nil"},
		{"target typed nil", func(task *api.Task) {
			spec(task).Configs = []*api.ConfigReference{{ConfigID: "c", Target: (*api.ConfigReference_Runtime)(nil)}}
		}, "Spec.Container.Configs[0].Target: is nil"},

		{"name", withSecrets(named("")), "Spec.Container.Secrets[0].File.Name: is empty"},
		{"name of the base", withSecrets(named(".")), `Spec.Container.Secrets[0].File.Name: "." is a folder`},
		{"name of the base, cleaned", withSecrets(named("a/..")), `Spec.Container.Secrets[0].File.Name: "a/.." is a folder`},
		{"name of the base, absolute", withSecrets(named("/run/secrets/")), `Spec.Container.Secrets[0].File.Name: "/run/secrets/" is a folder`},
		{"root", withSecrets(named("/")), `Spec.Container.Secrets[0].File.Name: "/" is a folder`},
		{"root, cleaned", withSecrets(named("/a/../..")), `Spec.Container.Secrets[0].File.Name: "/a/../.." is a folder`},
		{"config at the root", withConfig("."), `Spec.Container.Configs[0].File.Name: "." is a folder`},
		{"secret out of its base", withSecrets(named("../a")), `Spec.Container.Secrets[0].File.Name: "../a" leads out of /run/secrets`},
		{"secret out of its base, hidden", withSecrets(named("a/../../secrets/b")), `Spec.Container.Secrets[0].File.Name: "a/../../secrets/b" leads out of /run/secrets`},
		{"config out of its base", withConfig("../a"), `Spec.Container.Configs[0].File.Name: "../a" leads out of /`},
		{"backslash", withSecrets(named(`..\a`)), `Spec.Container.Secrets[0].File.Name: "..\\a" is no path: parts are separated by slashes`},
		{"NUL", withSecrets(named("a\x00")), `Spec.Container.Secrets[0].File.Name: "a\x00" is no path: parts are separated by slashes`},

		{"UID", withSecrets(&api.FileTarget{Name: "a", UID: "tester"}), `Spec.Container.Secrets[0].File.UID: "tester" is no number of a user or group`},
		{"UID negative", withSecrets(&api.FileTarget{Name: "a", UID: "-1"}), `Spec.Container.Secrets[0].File.UID: "-1" is no number of a user or group`},
		{"GID of no change", withSecrets(&api.FileTarget{Name: "a", GID: "4294967295"}), `Spec.Container.Secrets[0].File.GID: "4294967295" is no number of a user or group`},
		{"GID large", withSecrets(&api.FileTarget{Name: "a", GID: "4294967296"}), `Spec.Container.Secrets[0].File.GID: "4294967296" is no number of a user or group`},
		{"mode", withSecrets(&api.FileTarget{Name: "a", Mode: 0o4755}), "Spec.Container.Secrets[0].File.Mode: 04755 is more than 0777"},

		{"two secrets in one place", withSecrets(named("a"), named("b/../a")), "Spec.Container.Secrets[1].File.Name: /run/secrets/a is also the target of Secrets[0]"},
		{"secret and config in one place", both(withConfig("run/secrets/a"), withSecrets(named("a"))), "Spec.Container.Configs[0].File.Name: /run/secrets/a is also the target of Secrets[0]"},
		{"in the place of a mount", both(withMount(api.Mount{Type: api.MountTypeTmpfs, Target: "/data/"}), withConfig("data")), "Spec.Container.Configs[0].File.Name: /data is also the target of Mounts[0]"},
		{"in the place of a tmpfs with options", both(withMount(api.Mount{Type: api.MountTypeTmpfs, Target: "/{{.Service.Name}}", TmpfsOptions: &api.Mount_TmpfsOptions{Options: "exec"}}), withConfig("web")), "Spec.Container.Configs[0].File.Name: /web is also the target of Mounts[0]"},
		{"a mount below", both(withMount(api.Mount{Type: api.MountTypeTmpfs, Target: "/data/a/b"}), withConfig("data")), "Spec.Container.Configs[0].File.Name: /data is a file, and Mounts[0] is to be below it"},
		{"a secret below", withSecrets(named("a"), named("a/b")), "Spec.Container.Secrets[0].File.Name: /run/secrets/a is a file, and Secrets[1] is to be below it"},
		{"secrets below a config", both(withSecrets(named("a")), withConfig("run")), "Spec.Container.Configs[0].File.Name: /run is a file, and Secrets[0] is to be below it"},

		{"task ID", both(func(task *api.Task) { task.Annotations.Name, task.ID = "web", ".." }, withConfig("a")), `ID: ".." cannot name the folder of the task's secrets and configs: up to 100 letters, digits and then _.- are allowed`},
		{"task ID with slash", both(func(task *api.Task) { task.Annotations.Name, task.ID = "web", "a/b" }, withConfig("a")), `ID: "a/b" cannot name the folder of the task's secrets and configs: up to 100 letters, digits and then _.- are allowed`},
		{"task ID long", both(func(task *api.Task) { task.ID = strings.Repeat("a", 101) }, withConfig("a")), `ID: "` + strings.Repeat("a", 101) + `" cannot name the folder of the task's secrets and configs: up to 100 letters, digits and then _.- are allowed`},

		{"credential config", withCredential("c"), `Spec.Container.Privileges.CredentialSpec.Config: "c" is none of the task's Configs`},
		{"credential config empty", withCredential(""), "Spec.Container.Privileges.CredentialSpec.Config: is empty"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			task := plainTask()
			test.change(task)
			_, err := newContainerConfig(goldenNode(), task)
			require.EqualError(t, err, "dockerexec: task field "+test.want)
			checkNamesField(t, err)
		})
	}
}

// A mount above a file is no conflict: the engine mounts it first.
func TestFilesBelowAMount(t *testing.T) {
	t.Parallel()
	task := plainTask()
	spec(task).Mounts = []api.Mount{{Type: api.MountTypeTmpfs, Target: "/run"}}
	spec(task).Secrets = []*api.SecretReference{secretFile("s", &api.FileTarget{Name: "a"})}
	mounts := newTestConfig(t, task).hostConfig().Mounts
	require.Len(t, mounts, 2)
	assert.Equal(t, "/run", mounts[0].Target)
	assert.Equal(t, "/run/secrets/a", mounts[1].Target)
}

// volumeTask has a cluster volume, which it may only read.
func volumeTask() *api.Task {
	task := plainTask()
	withMount(api.Mount{Type: api.MountTypeCluster, Source: "shared", Target: "/shared", ReadOnly: true})(task)
	task.Volumes = []*api.VolumeAttachment{{ID: "v1", Source: "shared", Target: "/shared"}}
	return task
}

// A cluster volume is a bind mount of the path at which it is published. Until then nothing
// is made, and no image is pulled.
func TestAClusterVolumeIsAwaited(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		host := newHost(t)
		var path string
		var pathErr error
		var asked []string
		deps := getters{volumes: pathGetter(func(id string) (string, error) {
			asked = append(asked, id)
			return path, pathErr
		})}
		a, err := NewEngine(host.Client(engineapi.WithHost("unix:///run/docker.sock")), WithPullPolicy(PullNever)).Adapter(nil, volumeTask(), deps)
		require.NoError(t, err)
		require.Empty(t, asked, "not before it is needed")
		for _, unready := range []error{nil, exec.ErrDependencyNotReady, errors.New("volume being removed")} {
			pathErr = unready
			for name, call := range map[string]func(context.Context) error{"CreateNetworks": a.CreateNetworks, "CreateVolumes": a.CreateVolumes, "Create": a.Create, "Start": a.Start} {
				err := call(t.Context())
				require.ErrorContains(t, err, `cluster volume "shared" (v1) is not published on this node: `, name)
				require.True(t, exec.IsTemporary(err), name)
			}
		}
		assert.Empty(t, host.Requests().Count("POST /**"))
		assert.Empty(t, host.Containers())
		path, pathErr = "/published/v1", nil
		require.NoError(t, a.Create(t.Context()))
		require.NoError(t, a.Start(t.Context()))
		mounts := host.Container(taskName).Inspect().HostConfig.Mounts
		assert.Equal(t, []mount.Mount{{Type: mount.TypeBind, Source: "/published/v1", Target: "/shared", ReadOnly: true}}, mounts)
		slices.Sort(asked)
		assert.Equal(t, []string{"v1"}, slices.Compact(asked))
		require.NoError(t, a.Remove(t.Context()))
	})
}

func TestAClusterVolumeIsRefused(t *testing.T) {
	t.Parallel()
	const noGetter = "dockerexec: task field Spec.Container.Mounts[0].Type: CLUSTER: the adapter was given no getter of volumes"
	client := dockerexectest.New(t).Client()
	for _, deps := range []exec.DependencyGetter{nil, stores()} {
		_, err := NewEngine(client).Adapter(nil, volumeTask(), deps)
		require.EqualError(t, err, noGetter)
	}
	_, err := NewContainerAdapter(client, nil, volumeTask(), stores().secrets)
	require.EqualError(t, err, noGetter)
	_, err = NewExecutor(client, nil).Controller(volumeTask())
	require.EqualError(t, err, noGetter)
	bubble(t, func(t *testing.T) {
		host := newHost(t)
		a, err := NewEngine(host.Client()).Adapter(nil, volumeTask(), anyPayload(""))
		require.NoError(t, err)
		const elsewhere = "dockerexec: task field Spec.Container.Mounts[0].Type: CLUSTER: the engine at tcp://engine.test:2375 is on another host, and the volume is published on this one"
		require.EqualError(t, a.CreateNetworks(t.Context()), elsewhere)
		require.EqualError(t, a.Create(t.Context()), elsewhere)
		assert.Empty(t, host.Containers())
	})
}
