package dockerexec

import (
	stderrors "errors"
	"fmt"

	"github.com/moby/swarmkit/v2/agent/configs"
	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/moby/swarmkit/v2/agent/secrets"
	"github.com/moby/swarmkit/v2/api"
	"github.com/moby/swarmkit/v2/template"
	"github.com/pkg/errors"
)

// getters are an [exec.DependencyGetter]; either may be nil.
type getters struct {
	secrets exec.SecretGetter
	configs exec.ConfigGetter
}

func (g getters) Secrets() exec.SecretGetter { return g.secrets }
func (g getters) Configs() exec.ConfigGetter { return g.configs }
func (g getters) Volumes() exec.VolumeGetter { return nil }

// dependency is what a task says of one secret or config.
type dependency struct {
	path     string // in the task
	isConfig bool
	id, name string
}

func (d dependency) String() string {
	kind := "secret"
	if d.isConfig {
		kind = "config"
	}
	if d.name == "" {
		return fmt.Sprintf("%s %q", kind, d.id)
	}
	return fmt.Sprintf("%s %q (%s)", kind, d.name, d.id)
}

func secretOf(i int, ref *api.SecretReference) dependency {
	return dependency{path: fmt.Sprintf("Spec.Container.Secrets[%d]", i), id: ref.SecretID, name: ref.SecretName}
}

func configOf(i int, ref *api.ConfigReference) dependency {
	return dependency{path: fmt.Sprintf("Spec.Container.Configs[%d]", i), isConfig: true, id: ref.ConfigID, name: ref.ConfigName}
}

// payloads hands out what is in the secrets and configs of one task, with their
// templates expanded, and in no others.
type payloads struct {
	getter exec.DependencyGetter
}

// newPayloads refuses a task that references what deps cannot have. It gets
// nothing yet.
func newPayloads(deps exec.DependencyGetter, c *containerConfig) (payloads, error) {
	var given getters
	if deps != nil {
		given = getters{deps.Secrets(), deps.Configs()}
	}
	const why = "%v: the adapter was given no getter of %ss"
	if refs := c.spec().Secrets; len(refs) > 0 && given.secrets == nil {
		d := secretOf(0, refs[0])
		return payloads{}, refuse(d.path, why, d, "secret")
	}
	if refs := c.spec().Configs; len(refs) > 0 && given.configs == nil {
		d := configOf(0, refs[0])
		return payloads{}, refuse(d.path, why, d, "config")
	}
	restricted := getters{
		secrets: secrets.Restrict(sureSecrets{given.secrets}, c.task),
		configs: configs.Restrict(sureConfigs{given.configs}, c.task),
	}
	return payloads{template.NewTemplatedDependencyGetter(restricted, c.task, c.node)}, nil
}

// get returns a payload, which is not to be changed. One that is not there yet
// is a passing fault: it is on its way to the agent.
func (p payloads) get(d dependency) ([]byte, error) {
	payload, err := p.find(d)
	if err == nil {
		return payload, nil
	}
	var missing missingError
	if stderrors.As(err, &missing) {
		return nil, exec.MakeTemporary(errors.Wrapf(missing.cause, "%v is not there yet", d))
	}
	// The error of a template quotes it.
	return nil, refuse(d.path, "%v: its template cannot be expanded (the payload is not shown)", d)
}

func (p payloads) find(d dependency) ([]byte, error) {
	if d.isConfig {
		config, err := p.getter.Configs().Get(d.id)
		if err != nil {
			return nil, err
		}
		return config.Spec.Data, nil
	}
	secret, err := p.getter.Secrets().Get(d.id)
	if err != nil {
		return nil, err
	}
	return secret.Spec.Data, nil
}

// missingError says that a getter does not have what it was asked for, however
// deep in a template it was.
type missingError struct{ cause error }

func (e missingError) Error() string { return e.cause.Error() }

// sureSecrets is a getter as SwarmKit's wrappers need it: never nil without an
// error, and what it returns is theirs to write to.
type sureSecrets struct{ getter exec.SecretGetter }

func (s sureSecrets) Get(id string) (*api.Secret, error) {
	secret, err := s.getter.Get(id)
	if err == nil && secret == nil {
		err = errors.Errorf("the getter of secrets does not have %s", id)
	}
	if err != nil {
		return nil, missingError{err}
	}
	own := *secret
	return &own, nil
}

// sureConfigs is the same for configs.
type sureConfigs struct{ getter exec.ConfigGetter }

func (s sureConfigs) Get(id string) (*api.Config, error) {
	config, err := s.getter.Get(id)
	if err == nil && config == nil {
		err = errors.Errorf("the getter of configs does not have %s", id)
	}
	if err != nil {
		return nil, missingError{err}
	}
	own := *config
	return &own, nil
}
