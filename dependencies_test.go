package dockerexec

import (
	"testing"

	"github.com/moby/swarmkit/v2/agent/configs"
	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/moby/swarmkit/v2/agent/secrets"
	"github.com/moby/swarmkit/v2/api"
	"github.com/moby/swarmkit/v2/identity"
	"github.com/pkg/errors"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// anyPayload has every secret and config, all with itself as the payload.
type anyPayload string

func (p anyPayload) Secrets() exec.SecretGetter {
	return secretFunc(func(id string) (*api.Secret, error) {
		return &api.Secret{ID: id, Spec: api.SecretSpec{Data: []byte(p)}}, nil
	})
}

func (p anyPayload) Configs() exec.ConfigGetter {
	return configFunc(func(id string) (*api.Config, error) {
		return &api.Config{ID: id, Spec: api.ConfigSpec{Data: []byte(p)}}, nil
	})
}

func (p anyPayload) Volumes() exec.VolumeGetter { return nil }

type secretFunc func(id string) (*api.Secret, error)

func (f secretFunc) Get(id string) (*api.Secret, error) { return f(id) }

type configFunc func(id string) (*api.Config, error)

func (f configFunc) Get(id string) (*api.Config, error) { return f(id) }

func secretFile(id string, file *api.FileTarget) *api.SecretReference {
	return &api.SecretReference{SecretID: id, SecretName: "name-of-" + id, Target: &api.SecretReference_File{File: file}}
}

func configFile(id string, file *api.FileTarget) *api.ConfigReference {
	return &api.ConfigReference{ConfigID: id, ConfigName: "name-of-" + id, Target: &api.ConfigReference_File{File: file}}
}

// stores are an agent's, with two secrets and two configs.
func stores(templates ...string) getters {
	s, c := secrets.NewManager(), configs.NewManager()
	s.Add(api.Secret{ID: "s1", Spec: api.SecretSpec{Data: []byte("payload of s1")}},
		api.Secret{ID: "other", Spec: api.SecretSpec{Data: []byte("payload of other")}})
	c.Add(api.Config{ID: "c1", Spec: api.ConfigSpec{Data: []byte("payload of c1")}},
		api.Config{ID: "other", Spec: api.ConfigSpec{Data: []byte("payload of other")}})
	for _, text := range templates {
		s.Add(api.Secret{ID: "template", Spec: api.SecretSpec{Data: []byte(text), Templating: &api.Driver{Name: "golang"}}})
		c.Add(api.Config{ID: "template", Spec: api.ConfigSpec{Data: []byte(text), Templating: &api.Driver{Name: "golang"}}})
	}
	return getters{s, c}
}

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
		secretFunc(func(string) (*api.Secret, error) { return nil, nil }),
		configFunc(func(string) (*api.Config, error) { return nil, nil }),
	}
	failing := getters{
		secretFunc(func(string) (*api.Secret, error) { return nil, errors.New("vault sealed") }),
		configFunc(func(string) (*api.Config, error) { return nil, errors.New("vault sealed") }),
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
		_, err := NewEngine(newFakeClient(t)).Adapter(nil, test.task, test.deps)
		require.EqualError(t, err, test.want)
	}
	_, err := NewContainerAdapter(newFakeClient(t), nil, withConfig, stores().secrets)
	require.EqualError(t, err, noConfig)
	_, err = NewContainerAdapter(newFakeClient(t), nil, withSecret, nil)
	require.EqualError(t, err, noSecret)
	_, err = NewContainerAdapter(newFakeClient(t), nil, withSecret, stores().secrets)
	require.NoError(t, err)
}
