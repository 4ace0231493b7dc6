package dockerexectest

import (
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/events"
	"github.com/docker/docker/api/types/mount"
	"github.com/docker/docker/api/types/volume"
)

// volumeState is a volume of the engine. The engine's mu guards it.
type volumeState struct {
	volume.Volume
	isAnonymous bool
}

// Volumes returns the volumes' names, sorted.
func (e *Engine) Volumes() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Sorted(maps.Keys(e.volumes))
}

// makeVolume returns the volume with a name. If there is none, it makes the volume, with
// own as its labels. The caller holds mu.
func (e *Engine) makeVolume(name, driver string, options, own map[string]string) (*volumeState, *apiError) {
	isAnonymous := name == ""
	if isAnonymous {
		name = e.newID("volume")
	}
	if driver != "" && !slices.Contains(e.info.Plugins.Volume, driver) {
		return nil, notFound("create %s: error looking up volume plugin %s: plugin %q not found", name, driver, driver)
	}
	if v := e.volumes[name]; v != nil {
		if driver != "" && driver != v.Driver {
			return nil, conflict("create %s: driver '%s' already has volume '%s': volume name must be unique", name, v.Driver, name)
		}
		if e.dialect == DockerV20 {
			e.emit(events.VolumeEventType, events.ActionCreate, name, map[string]string{"driver": v.Driver})
		}
		return v, nil // even if it has other options
	}
	if driver == "" {
		driver = "local"
	}
	if isAnonymous && e.dialect == DockerV29 {
		own = labels(own)
		own["com.docker.volume.anonymous"] = ""
	}
	v := &volumeState{isAnonymous: isAnonymous, Volume: volume.Volume{
		Name: name, Driver: driver, Options: options, Labels: own, Scope: "local",
		Mountpoint: "/var/lib/docker/volumes/" + name + "/_data", CreatedAt: e.now().Format("2006-01-02T15:04:05Z07:00"),
	}}
	e.volumes[name] = v
	e.emit(events.VolumeEventType, events.ActionCreate, name, map[string]string{"driver": driver})
	return v, nil
}

// planVolumes makes the volumes of a container that is created. The caller holds mu.
func (e *Engine) planVolumes(c *Container) (warnings []string, err error) {
	warnings = []string{}
	named := func(mode, target, name, driver string, options, own map[string]string, isWritable bool) error {
		v, err := e.makeVolume(name, driver, options, own)
		if err != nil {
			return err
		}
		c.mounts = append(c.mounts, container.MountPoint{Type: mount.TypeVolume, Name: v.Name, Source: v.Mountpoint,
			Destination: target, Driver: v.Driver, Mode: mode, RW: isWritable})
		return nil
	}
	for _, bind := range c.hostConfig.Binds {
		parts := strings.Split(bind, ":")
		if len(parts) == 1 { // a volume without a name
			parts = []string{"", bind, "z"}
		}
		mode := strings.Join(parts[2:], "")
		switch {
		case len(parts) > 3:
			return nil, internal("", "invalid volume specification: '%s'", bind)
		case !strings.HasPrefix(parts[1], "/"):
			return nil, internal("", "invalid volume specification: '%s': invalid mount config for type \"bind\": invalid mount path: '%s' mount path must be absolute", bind, parts[1])
		case mode != "" && slices.ContainsFunc(strings.Split(mode, ","), func(m string) bool { return !slices.Contains(bindModes, m) }):
			return nil, internal("", "invalid mode: %s", mode)
		}
		isWritable := mode == "" || !slices.Contains(strings.Split(mode, ","), "ro")
		if strings.HasPrefix(parts[0], "/") {
			c.mounts = append(c.mounts, container.MountPoint{Type: mount.TypeBind, Source: parts[0], Destination: parts[1], Mode: mode, RW: isWritable, Propagation: mount.PropagationRPrivate})
			continue
		}
		if err := named(mode, parts[1], parts[0], "", nil, nil, isWritable); err != nil {
			return nil, err
		}
	}
	for _, m := range c.hostConfig.Mounts {
		if slices.ContainsFunc(c.mounts, func(other container.MountPoint) bool { return other.Destination == m.Target }) {
			return nil, badRequest("Duplicate mount point: %s", m.Target)
		}
		switch m.Type {
		case mount.TypeVolume:
			driver, options, own := "", map[string]string(nil), map[string]string(nil)
			if m.VolumeOptions != nil {
				own = m.VolumeOptions.Labels
				if m.VolumeOptions.DriverConfig != nil {
					driver, options = m.VolumeOptions.DriverConfig.Name, m.VolumeOptions.DriverConfig.Options
				}
				if e.dialect == PodmanV4 && driver == "" {
					own = nil // Podman ignores the labels
				}
			}
			if err := named("z", m.Target, m.Source, driver, options, own, !m.ReadOnly); err != nil {
				return nil, err
			}
		default:
			c.mounts = append(c.mounts, container.MountPoint{Type: m.Type, Source: m.Source, Destination: m.Target, RW: !m.ReadOnly})
		}
	}
	for _, path := range slices.Sorted(maps.Keys(c.config.Volumes)) {
		if slices.ContainsFunc(c.mounts, func(m container.MountPoint) bool { return m.Destination == path }) {
			continue
		}
		if err := named("", path, "", "", nil, nil, true); err != nil {
			return nil, err
		}
	}
	return warnings, nil
}

// bindModes are the modes that an entry of Binds may have.
var bindModes = strings.Fields("ro rw z Z nocopy shared rshared slave rslave private rprivate consistent cached delegated")

// emitMounts emits an event for each volume of a container. The caller holds mu.
func (e *Engine) emitMounts(c *Container, action events.Action) {
	if e.dialect == PodmanV4 {
		return
	}
	for _, m := range c.mounts {
		if m.Type != mount.TypeVolume {
			continue
		}
		attributes := map[string]string{"container": c.id, "driver": m.Driver}
		if action == events.ActionMount {
			attributes["destination"], attributes["propagation"], attributes["read/write"] = m.Destination, "", strconv.FormatBool(m.RW)
		}
		e.emit(events.VolumeEventType, action, m.Name, attributes)
	}
}

// leaveVolumes removes the anonymous volumes of a removed container if withVolumes is set.
// A volume that another container uses stays. The caller holds mu.
func (e *Engine) leaveVolumes(c *Container, withVolumes bool) {
	if !withVolumes {
		return
	}
	for _, m := range c.mounts {
		if v := e.volumes[m.Name]; m.Type == mount.TypeVolume && v != nil && v.isAnonymous && len(e.usersOf(v.Name)) == 0 {
			e.dropVolume(v)
		}
	}
}

func (e *Engine) dropVolume(v *volumeState) {
	delete(e.volumes, v.Name)
	e.emit(events.VolumeEventType, events.ActionDestroy, v.Name, map[string]string{"driver": v.Driver})
}

// usersOf lists the IDs of the containers that have a volume. The caller holds mu.
func (e *Engine) usersOf(name string) []string {
	var users []string
	for _, c := range e.order {
		if slices.ContainsFunc(c.mounts, func(m container.MountPoint) bool { return m.Type == mount.TypeVolume && m.Name == name }) {
			users = append(users, c.id)
		}
	}
	return users
}

// createVolume is POST /volumes/create.
func createVolume(e *Engine, r *request) (answer, error) {
	var body volume.CreateOptions
	if err := e.decode(r, &body); err != nil {
		return answer{}, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	v, err := e.makeVolume(body.Name, body.Driver, body.DriverOpts, body.Labels)
	if err != nil {
		return answer{}, err
	}
	return answer{status: http.StatusCreated, body: v.Volume}, nil
}

// inspectVolume is GET /volumes/{name}.
func inspectVolume(e *Engine, r *request) (answer, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	v := e.volumes[r.name]
	if v == nil {
		return answer{}, e.dialect.noSuchVolume(r.name)
	}
	return answer{status: http.StatusOK, body: v.Volume}, nil
}

// listVolumes is GET /volumes.
func listVolumes(e *Engine, r *request) (answer, error) {
	args, err := e.filtersOf(r, "dangling driver label name", "")
	if err != nil {
		return answer{}, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	list := volume.ListResponse{Volumes: []*volume.Volume{}}
	for _, name := range slices.Sorted(maps.Keys(e.volumes)) {
		v := e.volumes[name].Volume
		used := len(e.usersOf(name)) > 0
		dangling := !args.Contains("dangling") || used == (args.Get("dangling")[0] == "false" || args.Get("dangling")[0] == "0")
		if args.Match("name", name) && args.ExactMatch("driver", v.Driver) && dangling && (!args.Contains("label") || args.MatchKVList("label", v.Labels)) {
			list.Volumes = append(list.Volumes, &v)
		}
	}
	return answer{status: http.StatusOK, body: list}, nil
}

// removeVolume is DELETE /volumes/{name}.
func removeVolume(e *Engine, r *request) (answer, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	v := e.volumes[r.name]
	if v == nil {
		if r.flag("force") && e.dialect != PodmanV4 {
			return answer{}, nil
		}
		if e.dialect == PodmanV4 {
			return answer{}, notFound("no volume with name %q found: no such volume", r.name)
		}
		return answer{}, e.dialect.noSuchVolume(r.name)
	}
	if users := e.usersOf(r.name); len(users) > 0 {
		return answer{}, conflict("remove %s: volume is in use - [%s]", r.name, strings.Join(users, ", "))
	}
	e.dropVolume(v)
	return answer{}, nil
}
