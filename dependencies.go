package dockerexec

import (
	stderrors "errors"
	"fmt"
	"io/fs"
	"maps"
	"math"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/docker/docker/api/types/mount"
	"github.com/moby/swarmkit/v2/agent/configs"
	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/moby/swarmkit/v2/agent/secrets"
	"github.com/moby/swarmkit/v2/api"
	"github.com/moby/swarmkit/v2/template"
	"github.com/pkg/errors"
)

// getters is an [exec.DependencyGetter]. Each of its getters may be nil.
type getters struct {
	secrets exec.SecretGetter
	configs exec.ConfigGetter
	volumes exec.VolumeGetter
}

func (g getters) Secrets() exec.SecretGetter { return g.secrets }
func (g getters) Configs() exec.ConfigGetter { return g.configs }
func (g getters) Volumes() exec.VolumeGetter { return g.volumes }

// dependency is the reference of a task to one secret or config.
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

// payloads returns the payloads of the secrets and configs that one task references,
// with their templates expanded, and the paths of its cluster volumes. It returns no others.
type payloads struct {
	getter exec.DependencyGetter
}

// newPayloads refuses a task that references secrets if deps has no getter of secrets. The
// same holds for configs and for cluster volumes. newPayloads calls no getter yet.
func newPayloads(deps exec.DependencyGetter, c *containerConfig) (payloads, error) {
	var given getters
	if deps != nil {
		given = getters{deps.Secrets(), deps.Configs(), deps.Volumes()}
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
	if mounts := c.clusterMounts(); len(mounts) > 0 && given.volumes == nil {
		return payloads{}, refuse(mountPath(mounts[0])+".Type", "%s: the adapter was given no getter of volumes", api.MountTypeCluster)
	}
	restricted := getters{
		secrets: secrets.Restrict(sureSecrets{given.secrets}, c.task),
		configs: configs.Restrict(sureConfigs{given.configs}, c.task),
		volumes: given.volumes, // only c.clusterMounts asks it, for volumes of the task
	}
	return payloads{template.NewTemplatedDependencyGetter(restricted, c.task, c.node)}, nil
}

// get returns a payload, which must not be changed. If the getter does not have it, the
// error is temporary: the managers may still be sending it to the agent.
func (p payloads) get(d dependency) ([]byte, error) {
	payload, err := p.find(d)
	if err == nil {
		return payload, nil
	}
	var missing missingError
	if stderrors.As(err, &missing) {
		return nil, exec.MakeTemporary(errors.Wrapf(missing.cause, "%v is not there yet", d))
	}
	// The template's error quotes the payload.
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

// volumePaths returns where the cluster volumes of the task are on this host, by their IDs.
// While a volume is not published, or is being removed, the error is temporary.
func (p payloads) volumePaths(c *containerConfig) (map[string]string, error) {
	paths := map[string]string{}
	for _, i := range c.clusterMounts() {
		id := c.volumeIDs[i]
		path, err := p.getter.Volumes().Get(id)
		if err == nil && path == "" {
			err = errors.New("the getter of volumes has no path of it")
		}
		if err != nil {
			return nil, exec.MakeTemporary(errors.Wrapf(err, "cluster volume %q (%s) is not published on this node", c.spec().Mounts[i].Source, id))
		}
		paths[id] = path
	}
	return paths, nil
}

// clusterMounts returns the indices of the mounts of type cluster.
func (c *containerConfig) clusterMounts() []int { return slices.Sorted(maps.Keys(c.volumeIDs)) }

// clusterVolumes returns the IDs of the cluster volumes of a task, by the index of their
// mounts. The swarm's scheduler picks a volume for each mount and writes it down with the
// mount's source and target, before the templates in them are expanded.
func clusterVolumes(task *api.Task) (map[int]string, error) {
	volumes, used := map[int]string{}, map[int]bool{}
	for i := range task.Spec.GetContainer().Mounts {
		m := &task.Spec.GetContainer().Mounts[i]
		if m.Type != api.MountTypeCluster {
			continue
		}
		j := slices.IndexFunc(task.Volumes, func(v *api.VolumeAttachment) bool { return v.Source == m.Source && v.Target == m.Target })
		if j < 0 {
			return nil, refuse(mountPath(i)+".Source", "the swarm has given the task no volume for it: none of its Volumes has source %q and target %q", m.Source, m.Target)
		}
		if task.Volumes[j].ID == "" {
			return nil, refuse(fmt.Sprintf("Volumes[%d].ID", j), "is empty")
		}
		volumes[i], used[j] = task.Volumes[j].ID, true
	}
	for j := range task.Volumes {
		if !used[j] {
			return nil, refuse(fmt.Sprintf("Volumes[%d]", j), "no mount of type cluster has its source and target")
		}
	}
	return volumes, nil
}

// missingError says that a getter does not have a secret or config. The task or a
// template may have asked for it.
type missingError struct{ cause error }

func (e missingError) Error() string { return e.cause.Error() }

// sureSecrets adapts a getter to SwarmKit's wrappers. They do not expect nil without an
// error. They write to the secret that they get, so Get returns a copy.
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

// sureConfigs does for configs what sureSecrets does for secrets.
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

// Relative names of secrets and configs are paths below these folders.
const (
	secretsBase = "/run/secrets"
	configsBase = "/"
)

// taskFile is a secret or config that the container sees as a file.
type taskFile struct {
	dependency
	source   string // name in the folder of the task
	target   string // in the container
	uid, gid int
	mode     fs.FileMode
}

// translateFiles returns the secrets that are files, and then the configs, in the order
// of the task.
func (c *containerConfig) translateFiles() ([]taskFile, error) {
	var files []taskFile
	add := func(d dependency, source, base string, target *api.FileTarget) error {
		f, err := translateFile(d, base, target)
		if err != nil {
			return err
		}
		f.source = source
		files = append(files, f)
		return nil
	}
	for i, ref := range c.spec().Secrets {
		d := secretOf(i, ref)
		if d.id == "" {
			return nil, refuse(d.path+".SecretID", "is empty")
		}
		if ref.GetFile() == nil {
			return nil, refuse(d.path+".Target", "is not set: a secret arrives as a file, or not at all")
		}
		if err := add(d, "secret."+strconv.Itoa(i), secretsBase, ref.GetFile()); err != nil {
			return nil, err
		}
	}
	for i, ref := range c.spec().Configs {
		d := configOf(i, ref)
		if d.id == "" {
			return nil, refuse(d.path+".ConfigID", "is empty")
		}
		if ref.GetRuntime() != nil { // the engine itself reads it; see credentialConfig
			if used, err := c.credentialConfig(); err != nil {
				return nil, err
			} else if used == nil || used.id != d.id {
				return nil, refuse(d.path+".Target", "is for a container's CredentialSpec, and the task's names another config or none")
			}
			continue
		}
		if ref.GetFile() == nil {
			return nil, refuse(d.path+".Target", "is not set: a config arrives as a file or by another field, or not at all")
		}
		if err := add(d, "config."+strconv.Itoa(i), configsBase, ref.GetFile()); err != nil {
			return nil, err
		}
	}
	if len(files) > 0 && !namesFolder(c.task.ID) {
		return nil, refuse("ID", "%q cannot name the folder of the task's secrets and configs: up to 100 letters, digits and then _.- are allowed", c.task.ID)
	}
	return files, c.checkTargets(files)
}

func translateFile(d dependency, base string, target *api.FileTarget) (taskFile, error) {
	f, at := taskFile{dependency: d}, d.path+".File"
	switch name := target.Name; {
	case name == "":
		return f, refuse(at+".Name", "is empty")
	case strings.ContainsAny(name, "\\\x00"):
		return f, refuse(at+".Name", "%q is no path: parts are separated by slashes", name)
	case path.IsAbs(name):
		f.target = path.Clean(name)
	case !isLocal(name):
		return f, refuse(at+".Name", "%q leads out of %s", name, base)
	default:
		f.target = path.Join(base, name)
	}
	if f.target == "/" || f.target == secretsBase {
		return f, refuse(at+".Name", "%q is a folder", target.Name)
	}
	if target.Mode > 0o777 { // unix bits, not those of an os.FileMode
		return f, refuse(at+".Mode", "%#o is more than 0777", uint32(target.Mode))
	}
	f.mode = target.Mode
	var err error
	if f.uid, err = translateOwner(at+".UID", target.UID); err != nil {
		return f, err
	}
	f.gid, err = translateOwner(at+".GID", target.GID)
	return f, err
}

// translateOwner parses the number of a user or group. An empty one is root.
func translateOwner(path, number string) (int, error) {
	if number == "" {
		return 0, nil
	}
	n, err := strconv.ParseUint(number, 10, 32)
	if err != nil || n == math.MaxUint32 { // to a kernel this number means: do not change the owner
		return 0, refuse(path, "%q is no number of a user or group", number)
	}
	return int(n), nil
}

// checkTargets refuses a file that has the target of a mount or of another file. It also
// refuses a mount or a file whose target is below a file.
func (c *containerConfig) checkTargets(files []taskFile) error {
	type place struct{ target, what string }
	var places []place
	for i, m := range c.spec().Mounts {
		places = append(places, place{cleanPath(m.Target), strings.TrimPrefix(mountPath(i), "Spec.Container.")})
	}
	taken := map[string]string{}
	for _, p := range places {
		taken[p.target] = p.what
	}
	fileAt := map[string]taskFile{}
	for _, f := range files {
		if other, is := taken[f.target]; is {
			return refuse(f.path+".File.Name", "%s is also the target of %s", f.target, other)
		}
		what := strings.TrimPrefix(f.path, "Spec.Container.")
		taken[f.target], fileAt[f.target] = what, f
		places = append(places, place{f.target, what})
	}
	for _, p := range places {
		for above := path.Dir(p.target); len(above) > 1; above = path.Dir(above) {
			if f, is := fileAt[above]; is {
				return refuse(f.path+".File.Name", "%s is a file, and %s is to be below it", above, p.what)
			}
		}
	}
	return nil
}

// withDependencies returns the same task with the folder of its files on the engine's
// host, with the payload of its credentialConfig, and with the paths of its cluster volumes.
func (c *containerConfig) withDependencies(folder string, credential []byte, published map[string]string) *containerConfig {
	complete := *c
	complete.folder, complete.credential, complete.published = folder, string(credential), published
	return &complete
}

// fileMounts mounts each file on its own, so that the container does not see the folder.
// An engine refuses such a mount if its source does not exist.
func (c *containerConfig) fileMounts() []mount.Mount {
	var mounts []mount.Mount
	for _, f := range c.files {
		mounts = append(mounts, mount.Mount{
			Type:     mount.TypeBind,
			Source:   filepath.Join(c.folder, f.source),
			Target:   f.target,
			ReadOnly: true,
		})
	}
	return mounts
}
