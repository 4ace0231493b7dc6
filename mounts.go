package dockerexec

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/docker/docker/api/types/mount"
	"github.com/docker/docker/api/types/volume"
	"github.com/moby/swarmkit/v2/api"
)

func mountPath(i int) string { return fmt.Sprintf("Spec.Container.Mounts[%d]", i) }

// mounts returns the mounts of the task in their order, followed by its secrets and
// configs. A tmpfs mount that has options is in the map instead, by its target. There an
// engine of any API version takes all options.
func (c *containerConfig) mounts() ([]mount.Mount, map[string]string, error) {
	var mounts []mount.Mount
	var tmpfs map[string]string
	targets := map[string]int{}
	for i := range c.spec().Mounts {
		m, path := &c.spec().Mounts[i], mountPath(i)
		if err := checkMount(path, m); err != nil {
			return nil, nil, err
		}
		target := cleanPath(m.Target)
		if other, is := targets[target]; is {
			return nil, nil, refuse(path+".Target", "%q is also that of Mounts[%d]", m.Target, other)
		}
		targets[target] = i
		if m.Type == api.MountTypeTmpfs && m.TmpfsOptions != nil && m.TmpfsOptions.Options != "" {
			options, err := tmpfsOptions(path+".TmpfsOptions", m)
			if err != nil {
				return nil, nil, err
			}
			if tmpfs == nil {
				tmpfs = map[string]string{}
			}
			tmpfs[m.Target] = options
			continue
		}
		source := m.Source
		if m.Type == api.MountTypeCluster {
			source = c.published[c.volumeIDs[i]]
		}
		mounts = append(mounts, mount.Mount{
			Type:          mountTypes[m.Type],
			Source:        source,
			Target:        m.Target,
			ReadOnly:      m.ReadOnly,
			Consistency:   consistencies[m.Consistency],
			BindOptions:   bindOptions(m.BindOptions),
			VolumeOptions: volumeOptions(m.VolumeOptions),
			TmpfsOptions:  plainTmpfsOptions(m.TmpfsOptions),
		})
	}
	return append(mounts, c.fileMounts()...), tmpfs, nil
}

var mountTypes = map[api.Mount_MountType]mount.Type{
	api.MountTypeBind:      mount.TypeBind,
	api.MountTypeVolume:    mount.TypeVolume,
	api.MountTypeTmpfs:     mount.TypeTmpfs,
	api.MountTypeNamedPipe: mount.TypeNamedPipe,
	api.MountTypeCluster:   mount.TypeBind, // of the path at which the agent's plugin has published it
}

var consistencies = map[api.Mount_MountConsistency]mount.Consistency{
	api.MountConsistencyDefault:   "",
	api.MountConsistencyFull:      mount.ConsistencyFull,
	api.MountConsistencyCached:    mount.ConsistencyCached,
	api.MountConsistencyDelegated: mount.ConsistencyDelegated,
}

// propagations does not name rprivate, the zero value: a task that asks for rprivate looks
// like a task that asks for nothing. Without a name the engine chooses rprivate itself. For
// a source that holds the engine's own folder, the engine chooses another propagation and
// refuses rprivate.
var propagations = map[api.Mount_BindOptions_MountPropagation]mount.Propagation{
	api.MountPropagationRPrivate: "",
	api.MountPropagationPrivate:  mount.PropagationPrivate,
	api.MountPropagationRShared:  mount.PropagationRShared,
	api.MountPropagationShared:   mount.PropagationShared,
	api.MountPropagationRSlave:   mount.PropagationRSlave,
	api.MountPropagationSlave:    mount.PropagationSlave,
}

// checkMount refuses a mount that no engine accepts, or that engines accept and ignore.
func checkMount(path string, m *api.Mount) error {
	switch {
	case m.Target == "":
		return refuse(path+".Target", "is empty")
	case !isAbsolute(m.Target):
		return refuse(path+".Target", "%q is not an absolute path", m.Target)
	case cleanPath(m.Target) == "/":
		return refuse(path+".Target", "%q is the root folder", m.Target)
	case m.BindOptions != nil && m.Type != api.MountTypeBind:
		return refuse(path+".BindOptions", "a mount of type %s has none", m.Type)
	case m.VolumeOptions != nil && m.Type != api.MountTypeVolume:
		return refuse(path+".VolumeOptions", "a mount of type %s has none", m.Type)
	case m.TmpfsOptions != nil && m.Type != api.MountTypeTmpfs:
		return refuse(path+".TmpfsOptions", "a mount of type %s has none", m.Type)
	}
	switch m.Type {
	case api.MountTypeBind:
		return checkBind(path, m)
	case api.MountTypeNamedPipe, api.MountTypeCluster:
		if m.Source == "" {
			return refuse(path+".Source", "is empty")
		}
	case api.MountTypeVolume:
		return checkVolume(path, m)
	case api.MountTypeTmpfs:
		return checkTmpfs(path, m)
	}
	return nil
}

func checkBind(path string, m *api.Mount) error {
	if !isAbsolute(m.Source) {
		return refuse(path+".Source", "%q is not an absolute path", m.Source)
	}
	path += ".BindOptions"
	switch o := cmp.Or(m.BindOptions, &api.Mount_BindOptions{}); {
	case o.ReadOnlyForceRecursive && !m.ReadOnly:
		return refuse(path+".ReadOnlyForceRecursive", "the mount is not ReadOnly")
	case o.ReadOnlyNonRecursive && !m.ReadOnly:
		return refuse(path+".ReadOnlyNonRecursive", "the mount is not ReadOnly")
	case o.ReadOnlyForceRecursive && o.ReadOnlyNonRecursive:
		return refuse(path+".ReadOnlyForceRecursive", "contradicts ReadOnlyNonRecursive")
	}
	return nil
}

func checkVolume(path string, m *api.Mount) error {
	if isAbsolute(m.Source) {
		return refuse(path+".Source", "%q is a path, not the name of a volume", m.Source)
	}
	if m.ReadOnly && m.Source == "" {
		return refuse(path+".ReadOnly", "a volume without a name is empty and must be writable")
	}
	if m.VolumeOptions == nil {
		return nil
	}
	// The name of an existing volume of another driver may have any form.
	if d := m.VolumeOptions.DriverConfig; d != nil && d.Name == "local" && m.Source != "" && !restrictedName(m.Source+"x") {
		return refuse(path+".Source", "%q is no volume name for the driver local: letters, digits and then _.- are allowed", m.Source)
	}
	if m.VolumeOptions.Subpath == "" {
		return nil
	}
	if m.Source == "" {
		return refuse(path+".VolumeOptions.Subpath", "a volume without a name has no folders")
	}
	if !isLocal(m.VolumeOptions.Subpath) {
		return refuse(path+".VolumeOptions.Subpath", "%q leads out of the volume", m.VolumeOptions.Subpath)
	}
	return nil
}

func checkTmpfs(path string, m *api.Mount) error {
	if m.Source != "" {
		return refuse(path+".Source", "a mount of type %s has none", m.Type)
	}
	if !strings.HasPrefix(m.Target, "/") {
		return refuse(path+".Target", "%q is a path of Windows, which has no mounts of type %s", m.Target, m.Type)
	}
	if o := m.TmpfsOptions; o != nil {
		if o.Options != "" && m.Consistency != api.MountConsistencyDefault {
			return refuse(path+".Consistency", "a mount of type %s with Options has none", m.Type)
		}
		if o.SizeBytes < 0 {
			return refuse(path+".TmpfsOptions.SizeBytes", "%d is negative", o.SizeBytes)
		}
		if o.Mode > 0o7777 { // unix bits, not those of an os.FileMode
			return refuse(path+".TmpfsOptions.Mode", "%#o is more than 07777", uint32(o.Mode))
		}
	}
	return nil
}

func bindOptions(o *api.Mount_BindOptions) *mount.BindOptions {
	if o == nil {
		return nil
	}
	return &mount.BindOptions{
		Propagation:            propagations[o.Propagation],
		NonRecursive:           o.NonRecursive,
		CreateMountpoint:       o.CreateMountpoint,
		ReadOnlyNonRecursive:   o.ReadOnlyNonRecursive,
		ReadOnlyForceRecursive: o.ReadOnlyForceRecursive,
	}
}

func volumeOptions(o *api.Mount_VolumeOptions) *mount.VolumeOptions {
	if o == nil {
		return nil
	}
	options := &mount.VolumeOptions{NoCopy: o.NoCopy, Labels: cloneMap(o.Labels), Subpath: o.Subpath}
	if d := o.DriverConfig; d != nil {
		options.DriverConfig = &mount.Driver{Name: d.Name, Options: cloneMap(d.Options)}
	}
	return options
}

func plainTmpfsOptions(o *api.Mount_TmpfsOptions) *mount.TmpfsOptions {
	if o == nil {
		return nil
	}
	return &mount.TmpfsOptions{SizeBytes: o.SizeBytes, Mode: o.Mode}
}

// tmpfsOptions joins all settings of a tmpfs mount into the options of a mount command.
// The engine checks the names of the options.
func tmpfsOptions(path string, m *api.Mount) (string, error) {
	o := m.TmpfsOptions
	var options []string
	if m.ReadOnly {
		options = append(options, "ro")
	}
	if o.SizeBytes > 0 {
		options = append(options, "size="+strconv.FormatInt(o.SizeBytes, 10))
	}
	if o.Mode > 0 {
		options = append(options, "mode="+strconv.FormatUint(uint64(o.Mode), 8))
	}
	more, err := splitTmpfsOptions(o.Options)
	if err != nil {
		return "", refuse(path+".Options", "%v", err)
	}
	for _, option := range more {
		switch name, _, _ := strings.Cut(option, "="); {
		case name == "size" && o.SizeBytes > 0:
			return "", refuse(path+".Options", "size is given in SizeBytes too")
		case name == "mode" && o.Mode > 0:
			return "", refuse(path+".Options", "mode is given in Mode too")
		case (name == "rw" || name == "ro") && m.ReadOnly != (name == "ro"):
			return "", refuse(path+".Options", "%s contradicts ReadOnly", name)
		case !isTmpfsOption(option):
			return "", refuse(path+".Options", "%q has no valid value", option)
		}
		options = append(options, option)
	}
	return strings.Join(options, ","), nil
}

// The values of some options, as Linux reads them.
var (
	tmpfsNumber = regexp.MustCompile(`^(?:[0-9]+|0[xX][0-9a-fA-F]+)$`)
	tmpfsSize   = regexp.MustCompile(`^(?:[0-9]+|0[xX][0-9a-fA-F]+)(?:[kKmMgGtTpPeE]?|%)$`)
	tmpfsValues = map[string]*regexp.Regexp{
		"size": tmpfsSize, "nr_blocks": tmpfsSize, "nr_inodes": tmpfsSize,
		"mode": regexp.MustCompile("^[0-7]+$"),
		"uid":  tmpfsNumber, "gid": tmpfsNumber,
	}
)

// isTmpfsOption reports whether the value of a well-known option is valid. Any other option
// passes: an engine knows the options of its version.
func isTmpfsOption(option string) bool {
	name, value, _ := strings.Cut(option, "=")
	valid := tmpfsValues[name]
	return valid == nil || valid.MatchString(value)
}

// splitTmpfsOptions understands both encodings in use. The engine's own service API
// stores a JSON list of lists ([["exec"],["uid","1000"]]). swarmctl stores a list with
// commas (exec,uid=1000).
func splitTmpfsOptions(s string) ([]string, error) {
	var options []string
	if !strings.HasPrefix(strings.TrimSpace(s), "[") {
		for _, option := range strings.Split(s, ",") {
			name, value, hasValue := strings.Cut(strings.TrimSpace(option), "=")
			if name == "" {
				return nil, fmt.Errorf("%q has an empty option", s)
			}
			if name = strings.ToLower(name); hasValue {
				name += "=" + value
			}
			options = append(options, name)
		}
		return options, nil
	}
	var lists [][]string
	if err := json.Unmarshal([]byte(s), &lists); err != nil {
		return nil, fmt.Errorf("%q is no JSON list of lists: %v", s, err)
	}
	for _, list := range lists {
		if len(list) < 1 || len(list) > 2 || list[0] == "" {
			return nil, fmt.Errorf("%q has an option that is not a name, or a name and a value", s)
		}
		option := strings.Join(list, "=")
		if strings.Contains(option, ",") { // the option would become two options
			return nil, fmt.Errorf("%q has an option with a comma, which an engine does not take", s)
		}
		options = append(options, option)
	}
	return options, nil
}

// volumes returns the volumes to create before the container, sorted by name: those that
// have a name and a driver configuration, even one that names no driver. The engine makes
// the others with the container. forLabels adds those that have a name and labels: Podman
// drops the labels of a volume that it makes with the container.
func (c *containerConfig) volumes(forLabels bool) []volume.CreateOptions {
	volumes, _ := c.translateVolumes() // checked by translateTask
	if forLabels {
		return volumes
	}
	made := c.madeVolumes()
	return slices.DeleteFunc(volumes, func(v volume.CreateOptions) bool { return !hasDriver(&c.spec().Mounts[made[v.Name]]) })
}

func (c *containerConfig) translateVolumes() ([]volume.CreateOptions, error) {
	var volumes []volume.CreateOptions
	first := c.madeVolumes()
	for i := range c.spec().Mounts {
		m := &c.spec().Mounts[i]
		at, is := first[m.Source]
		switch {
		case !is || m.Type != api.MountTypeVolume:
		case at == i:
			driver := cmp.Or(m.VolumeOptions.DriverConfig, &api.Driver{})
			volumes = append(volumes, volume.CreateOptions{
				Name:       m.Source,
				Driver:     driver.Name,
				DriverOpts: cloneMap(driver.Options),
				Labels:     cloneMap(m.VolumeOptions.Labels),
			})
		case hasDriver(m) && !sameVolume(m.VolumeOptions, c.spec().Mounts[at].VolumeOptions):
			return nil, refuse(mountPath(i)+".VolumeOptions", "volume %s has another driver or labels in Mounts[%d]", m.Source, at)
		}
	}
	slices.SortFunc(volumes, func(a, b volume.CreateOptions) int { return cmp.Compare(a.Name, b.Name) })
	return volumes, nil
}

// madeVolumes returns the volumes to create before the container, each with the index of the
// mount that says how. That is the first mount with a driver configuration, or with labels if
// no mount of the volume has a driver configuration.
func (c *containerConfig) madeVolumes() map[string]int {
	first := map[string]int{}
	for _, decides := range []func(*api.Mount) bool{hasDriver, hasLabels} {
		for i := range c.spec().Mounts {
			m := &c.spec().Mounts[i]
			if _, is := first[m.Source]; !is && m.Type == api.MountTypeVolume && m.Source != "" && decides(m) {
				first[m.Source] = i
			}
		}
	}
	return first
}

func hasDriver(m *api.Mount) bool {
	return m.VolumeOptions != nil && m.VolumeOptions.DriverConfig != nil
}

func hasLabels(m *api.Mount) bool { return m.VolumeOptions != nil && len(m.VolumeOptions.Labels) > 0 }

// volumePath returns the path of the mount that a volume is made for.
func (c *containerConfig) volumePath(name string) string { return mountPath(c.madeVolumes()[name]) }

// volumeDifference says how the volume that an engine answered with differs from the
// wanted one. It names options and labels, and shows no value: a value may be a password.
// It is empty if the volume does not differ, or if a fake answered without a volume.
//
// An engine or a plugin may add labels that nobody asked for to a new volume. So labels
// count only if the task asks for them. Options always count: a volume with options is
// another one than a volume without.
func volumeDifference(wanted volume.CreateOptions, found volume.Volume) string {
	if found.Name == "" {
		return ""
	}
	var options, labels []string
	for _, name := range slices.Sorted(maps.Keys(wanted.DriverOpts)) {
		if value, is := found.Options[name]; !is || value != wanted.DriverOpts[name] {
			options = append(options, name)
		}
	}
	for name := range found.Options {
		if _, is := wanted.DriverOpts[name]; !is {
			options = append(options, name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(wanted.Labels)) {
		if value, is := found.Labels[name]; !is || value != wanted.Labels[name] {
			labels = append(labels, name)
		}
	}
	slices.Sort(options)
	var differences []string
	if len(options) > 0 {
		differences = append(differences, "driver options "+strings.Join(options, ", "))
	}
	if len(labels) > 0 {
		differences = append(differences, "labels "+strings.Join(labels, ", "))
	}
	return strings.Join(differences, "; ")
}

func sameVolume(a, b *api.Mount_VolumeOptions) bool {
	return a.DriverConfig.Name == b.DriverConfig.Name &&
		maps.Equal(a.DriverConfig.Options, b.DriverConfig.Options) && maps.Equal(a.Labels, b.Labels)
}

// isAbsolute reports whether p is an absolute path on Linux or Windows. The engine may run
// on another system than the agent.
func isAbsolute(p string) bool {
	drive := len(p) >= 3 && p[1] == ':' && (p[2] == '\\' || p[2] == '/')
	return path.IsAbs(p) || drive || strings.HasPrefix(p, `\\`)
}

// namesFolder reports whether a task's ID can be the name of the folder of its files. An
// ID with a slash would lead to the files of another task.
func namesFolder(id string) bool { return restrictedName(id+"x") && len(id) <= 100 }

// cleanPath returns p in a form in which two paths can be compared.
func cleanPath(p string) string {
	return path.Clean(strings.ReplaceAll(p, `\`, "/"))
}

// isLocal reports whether the relative path p stays under its base.
func isLocal(p string) bool {
	clean := cleanPath(p)
	return !isAbsolute(p) && clean != ".." && !strings.HasPrefix(clean, "../")
}

// restrictedName reports whether engines allow name as the name of a container. Such a
// name is also safe in the path of a request.
func restrictedName(name string) bool {
	for i, r := range name {
		letter := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
		if !letter && (i == 0 || !strings.ContainsRune("_.-", r)) {
			return false
		}
	}
	return len(name) > 1
}
