package dockerexectest

import (
	"fmt"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/events"
	"github.com/docker/docker/api/types/mount"
)

// Container is a container of the engine. Its methods are safe for concurrent
// use, also after its removal.
type Container struct {
	engine  *Engine
	id      string
	created time.Time
	program Program
	image   *localImage
	files   *Files

	// The engine's mu guards what follows.
	name       string
	config     container.Config
	hostConfig container.HostConfig
	endpoints  []*endpoint // by name
	mounts     []container.MountPoint
	platform   string

	isRemoved  bool
	running    bool
	paused     bool
	restarting bool
	removing   bool
	dead       bool
	oomKilled  bool
	exitCode   int
	errorText  string
	pid        int
	startedAt  time.Time
	finishedAt time.Time
	starts     int
	restarts   int
	ends       int           // ends of runs, and restarts that were given up
	endCode    int           // exit code of the latest run that ended
	backOff    time.Duration // of the restart policy
	byHand     bool          // somebody has stopped the container: its end restarts nothing
	health     *health
	alter      func(*container.InspectResponse) // by AlterInspect; nil: none
	ports      []publishedPort
	run        *run // not nil while it runs
	log        logStore
	changed    signal // raised when the container's state changes
}

// find finds a container by its name, its ID, or the beginning of its ID. The caller
// holds mu.
func (e *Engine) find(name string) (*Container, error) {
	if c := e.containers[name]; c != nil {
		return c, nil
	}
	if c := e.names[strings.TrimPrefix(name, "/")]; c != nil {
		return c, nil
	}
	var found *Container
	for id, c := range e.containers {
		if name == "" || !strings.HasPrefix(id, name) {
			continue
		}
		if found != nil {
			return nil, e.dialect.say(http.StatusInternalServerError, "Multiple IDs found with provided prefix: "+name, "multiple IDs found with provided prefix: "+name)
		}
		found = c
	}
	if found == nil {
		return nil, e.dialect.noSuchContainer(name)
	}
	return found, nil
}

// status returns the container's state in the words of an inspect. The caller holds mu.
func (c *Container) status() container.ContainerState {
	switch {
	case c.paused:
		return container.StatePaused
	case c.restarting:
		return container.StateRestarting
	case c.running:
		return container.StateRunning
	case c.removing:
		return container.StateRemoving
	case c.dead:
		return container.StateDead
	case c.startedAt.IsZero():
		return container.StateCreated
	case c.engine.dialect == PodmanV4 && time.Since(c.finishedAt) < podmanStopped:
		return "stopped"
	}
	return container.StateExited
}

// podmanStopped is how long Podman says "stopped" before it says "exited".
const podmanStopped = 100 * time.Millisecond

var nameChars = regexp.MustCompile(`^/?[a-zA-Z0-9][a-zA-Z0-9_.-]+$`)

// createContainer is POST /containers/create.
func createContainer(e *Engine, r *request) (answer, error) {
	if e.givesUp(r) {
		return answer{}, internal("", "context canceled")
	}
	var body container.CreateRequest
	if err := e.decode(r, &body); err != nil {
		return answer{}, err
	}
	if body.Config == nil {
		return answer{}, e.dialect.say(http.StatusBadRequest, "Config cannot be empty in order to create a container", "config cannot be empty in order to create a container")
	}
	if body.HostConfig == nil {
		body.HostConfig = &container.HostConfig{}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	name := r.query.Get("name")
	if e.dialect == PodmanV4 && strings.HasPrefix(name, "/") {
		return answer{}, internal("invalid argument", "container create: running container create option: names must match [a-zA-Z0-9][a-zA-Z0-9_.-]*: invalid argument")
	}
	name = strings.TrimPrefix(name, "/")
	if name != "" && !nameChars.MatchString(name) {
		return answer{}, badRequest("Invalid container name (%s), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed", name)
	}
	if err := e.checkHostConfig(body.HostConfig); err != nil {
		return answer{}, err
	}
	if err := e.checkConfig(body.Config); err != nil {
		return answer{}, err
	}
	image, err := e.imageToRun(body.Image, r.query.Get("platform"))
	if err != nil {
		return answer{}, err
	}
	if name == "" {
		name = fmt.Sprintf("nameless_engine_%d", e.made+1)
	}
	if holder := e.holderOf(name); holder != "" {
		return answer{}, e.dialect.nameTaken(name, holder)
	}
	if n := body.NetworkingConfig; e.dialect == PodmanV4 && body.HostConfig.NetworkMode == "" && n != nil {
		if _, wants := n.EndpointsConfig["bridge"]; wants {
			return answer{}, e.dialect.noNetworkToCreate("bridge")
		}
	}
	c := e.newContainer(name, image, *body.Config, *body.HostConfig)
	if r.fault.kind == slow {
		e.reserved[name] = c.id
		e.mu.Unlock()
		isAlive := e.sleep(r.fault.wait, r.life)
		e.mu.Lock()
		delete(e.reserved, name)
		if !isAlive {
			panic(http.ErrAbortHandler)
		}
	}
	if err := e.planNetworks(r, c, body.NetworkingConfig); err != nil {
		return answer{}, err
	}
	warnings, err := e.planVolumes(c)
	if err != nil {
		return answer{}, err
	}
	e.register(c)
	return answer{status: http.StatusCreated, body: container.CreateResponse{ID: c.id, Warnings: warnings}}, nil
}

// holderOf returns the ID of the container that has a name, also while its create takes
// its time; empty: the name is free. The caller holds mu.
func (e *Engine) holderOf(name string) string {
	if holder := e.names[name]; holder != nil {
		return holder.id
	}
	return e.reserved[name]
}

// newContainer makes a container that the engine does not know yet. The caller
// holds mu.
func (e *Engine) newContainer(name string, image *localImage, config container.Config, hostConfig container.HostConfig) *Container {
	c := &Container{engine: e, id: e.newID("container"), name: name, created: e.now(), files: &Files{}, image: image,
		config: config, hostConfig: hostConfig, platform: "linux"}
	c.program = image.program
	image.fill(&c.config)
	switch {
	case c.config.Hostname != "":
	case hostConfig.NetworkMode != "host":
		c.config.Hostname = c.id[:12]
	case e.dialect != PodmanV4:
		c.config.Hostname = e.info.Name
	}
	if c.hostConfig.LogConfig.Type == "" {
		c.hostConfig.LogConfig.Type = e.info.LoggingDriver
	}
	if c.hostConfig.LogConfig.Config == nil {
		c.hostConfig.LogConfig.Config = map[string]string{}
	}
	if c.hostConfig.NetworkMode == "" || c.hostConfig.NetworkMode == "default" {
		c.hostConfig.NetworkMode = "bridge"
		if e.dialect == DockerV20 {
			c.hostConfig.NetworkMode = "default"
		}
	}
	if c.hostConfig.RestartPolicy.Name == "" && e.dialect != DockerV20 {
		c.hostConfig.RestartPolicy.Name = container.RestartPolicyDisabled
	}
	if e.dialect == PodmanV4 && c.config.StopTimeout == nil {
		none := 0
		c.config.StopTimeout = &none
	}
	c.log.configure(c)
	return c
}

// register adds the container to the engine. The caller holds mu.
func (e *Engine) register(c *Container) {
	e.containers[c.id], e.names[c.name] = c, c
	e.order = append(e.order, c)
	c.emit(events.ActionCreate, nil)
}

// checkHostConfig refuses what the dialect's engine refuses. The caller holds mu.
func (e *Engine) checkHostConfig(h *container.HostConfig) error {
	if h.NanoCPUs > int64(e.info.NCPU)*1e9 && e.dialect != PodmanV4 {
		return e.dialect.tooManyCPUs(e.info.NCPU)
	}
	if h.Memory > 0 && h.Memory < 6<<20 && e.dialect != PodmanV4 {
		return badRequest("Minimum memory limit allowed is 6MB")
	}
	if h.AutoRemove && !h.RestartPolicy.IsNone() {
		return badRequest("can't create 'AutoRemove' container with restart policy")
	}
	if err := container.ValidateRestartPolicy(h.RestartPolicy); err != nil && e.dialect != PodmanV4 {
		return e.dialect.say(http.StatusBadRequest, restartPolicy20(h.RestartPolicy), err.Error())
	}
	if driver := h.LogConfig.Type; driver != "" && driver != "none" && !slices.Contains(e.info.Plugins.Log, driver) {
		return badRequest("error looking up logging plugin %s: plugin %q not found", driver, driver)
	} else if driver == "json-file" || driver == "" && e.info.LoggingDriver == "json-file" {
		for _, name := range slices.Sorted(maps.Keys(h.LogConfig.Config)) {
			if !slices.Contains(strings.Fields("max-file max-size compress labels labels-regex env env-regex tag"), name) {
				return badRequest("unknown log opt '%s' for json-file log driver", name)
			}
		}
	}
	for _, m := range h.Mounts {
		switch m.Type {
		case mount.TypeBind, mount.TypeVolume, mount.TypeTmpfs, mount.TypeNamedPipe, mount.TypeCluster, mount.TypeImage:
		default:
			return badRequest("invalid mount config for type %q: mount type unknown", m.Type)
		}
		if m.Target == "" {
			return badRequest("invalid mount config for type %q: field Target must not be empty", m.Type)
		}
		if m.Type == mount.TypeTmpfs && m.Source != "" {
			return badRequest("invalid mount config for type %q: field Source must not be specified", m.Type)
		}
		if m.Type == mount.TypeVolume && m.Source == "" && m.ReadOnly && e.dialect == DockerV20 {
			return badRequest("invalid mount config for type %q: must not set ReadOnly mode when using anonymous volumes", m.Type)
		}
		if m.Target == "/" {
			return badRequest("invalid mount config for type %q: invalid specification: destination can't be '/'", m.Type)
		}
		if m.Type == mount.TypeBind && m.Source == "" {
			return badRequest("invalid mount config for type %q: field Source must not be empty", m.Type)
		}
		if err := e.checkHostPath(m); err != nil {
			return err
		}
	}
	return nil
}

// restartPolicy20 returns the words with which Docker 20.10 refuses a restart policy.
func restartPolicy20(p container.RestartPolicy) string {
	switch {
	case p.IsNone() || p.IsAlways() || p.IsUnlessStopped():
		return fmt.Sprintf("maximum retry count cannot be used with restart policy '%s'", p.Name)
	case p.IsOnFailure():
		return "maximum retry count cannot be negative"
	}
	return fmt.Sprintf("invalid restart policy '%s'", p.Name)
}

func noSuchHostPath(path string) *apiError {
	return badRequest("invalid mount config for type \"bind\": bind source path does not exist: %s", path)
}

// checkConfig refuses what engines refuse. The caller holds mu.
func (e *Engine) checkConfig(c *container.Config) error {
	if h := c.Healthcheck; h != nil {
		for _, d := range []struct {
			name string
			d    time.Duration
		}{{"Interval", h.Interval}, {"Timeout", h.Timeout}, {"StartPeriod", h.StartPeriod}, {"StartInterval", h.StartInterval}} {
			if d.d != 0 && d.d < container.MinimumDuration {
				return badRequest("%s in Healthcheck cannot be less than %s", d.name, container.MinimumDuration)
			}
		}
		if h.Retries < 0 {
			return badRequest("Retries in Healthcheck cannot be negative")
		}
	}
	if _, ok := parseSignal(c.StopSignal); c.StopSignal != "" && !ok {
		return e.dialect.badSignal(c.StopSignal)
	}
	return nil
}

// checkHostPath refuses a bind mount of a path that the host does not have. Docker 29 makes
// the path of a mount that has CreateMountpoint; Docker 20.10 does not know this option. The
// caller holds mu.
func (e *Engine) checkHostPath(m mount.Mount) *apiError {
	isMade := e.dialect == DockerV29 && m.BindOptions != nil && m.BindOptions.CreateMountpoint
	if m.Type != mount.TypeBind || !e.missing[m.Source] || isMade || e.dialect == PodmanV4 {
		return nil
	}
	return noSuchHostPath(m.Source)
}

// RemoveHostPath removes a path from the engine's host. From then on, engines of Docker
// refuse a create or a start with a bind mount from that path. All other paths exist.
func (e *Engine) RemoveHostPath(path string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.missing[path] = true
}

// renameContainer is POST /containers/{name}/rename.
func renameContainer(e *Engine, r *request) (answer, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	c, err := e.find(r.name)
	if err != nil {
		return answer{}, err
	}
	to := strings.TrimPrefix(r.query.Get("name"), "/")
	if to == "" {
		return answer{}, badRequest("Neither old nor new names may be empty")
	}
	return answer{}, c.rename(to)
}

// rename gives the container another name. The caller holds mu.
func (c *Container) rename(to string) error {
	e := c.engine
	switch holder := e.holderOf(to); {
	case holder == c.id:
		return badRequest("Renaming a container with the same name as its current name")
	case holder != "":
		why := e.dialect.nameTaken(to, holder)
		why.message = "Error when allocating new name: " + why.message
		return why
	case !nameChars.MatchString(to):
		return badRequest("Error when allocating new name: Invalid container name (/%s), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed", to)
	}
	old := c.name
	delete(e.names, old)
	e.names[to], c.name = c, to
	c.emit(events.ActionRename, map[string]string{"oldName": "/" + old})
	return nil
}

// removeContainer is DELETE /containers/{name}.
func removeContainer(e *Engine, r *request) (answer, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	c, err := e.find(r.name)
	if err != nil {
		return answer{}, err
	}
	if c.removing {
		return answer{}, conflict("removal of container %s is already in progress", r.name)
	}
	c.removing = true
	defer func() { c.removing = false }()
	if c.running || c.restarting {
		if !r.flag("force") {
			return answer{}, e.dialect.removeRunning(r.name, c)
		}
		c.killNow()
	}
	if r.fault.kind == slow {
		e.mu.Unlock()
		isAlive := e.sleep(r.fault.wait, r.life)
		e.mu.Lock()
		if !isAlive {
			panic(http.ErrAbortHandler)
		}
	}
	c.remove(r.flag("v"))
	return answer{}, nil
}

// remove removes the container from the engine. If withVolumes is set, it also removes
// the container's anonymous volumes. The caller holds mu.
func (c *Container) remove(withVolumes bool) {
	e := c.engine
	if c.isRemoved {
		return
	}
	c.isRemoved = true
	if c.run != nil || c.restarting { // a start has come during the removal
		c.killNow()
	}
	delete(e.containers, c.id)
	delete(e.names, c.name)
	e.order = slices.DeleteFunc(e.order, func(other *Container) bool { return other == c })
	action := events.ActionDestroy
	if e.dialect == PodmanV4 {
		action = events.ActionRemove
	}
	e.leaveVolumes(c, withVolumes)
	c.emit(action, nil)
	c.log.grown.raise()
	c.changed.raise()
}

// labels returns a copy that is never nil.
func labels(of map[string]string) map[string]string {
	if of == nil {
		return map[string]string{}
	}
	return maps.Clone(of)
}
