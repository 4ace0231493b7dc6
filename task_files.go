package dockerexec

import (
	"io/fs"
	"math"
	"path"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/docker/docker/api/types/mount"
	"github.com/moby/swarmkit/v2/api"
)

// Where the names of secrets and configs begin that are no absolute paths.
const (
	secretsBase = "/run/secrets"
	configsBase = "/"
)

// taskFile is a secret or config that the container sees as a file.
type taskFile struct {
	dependency
	source   string // its name in the folder of the task
	target   string // in the container
	uid, gid int
	mode     fs.FileMode
}

// translateFiles returns the secrets and then the configs that are files, in
// the order of the task.
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
		if ref.GetRuntime() != nil { // it is for the engine, see credentialConfig
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

// translateOwner reads the number of a user or group. Empty is root.
func translateOwner(path, number string) (int, error) {
	if number == "" {
		return 0, nil
	}
	n, err := strconv.ParseUint(number, 10, 32)
	if err != nil || n == math.MaxUint32 { // which a kernel takes for no change
		return 0, refuse(path, "%q is no number of a user or group", number)
	}
	return int(n), nil
}

// checkTargets refuses files in one place with a mount or another file, and
// what would be below a file.
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

// withDependencies returns the same task with its files in folder on the
// engine's host, and with the payload of credentialConfig.
func (c *containerConfig) withDependencies(folder string, credential []byte) *containerConfig {
	complete := *c
	complete.folder, complete.credential = folder, string(credential)
	return &complete
}

// fileMounts are the files one by one, so that nothing else of the folder is
// seen. An engine refuses a mount of this form whose source is not there.
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
