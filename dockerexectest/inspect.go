package dockerexectest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/go-units"
)

// inspectContainer is GET /containers/{name}/json.
func inspectContainer(e *Engine, r *request) (answer, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	c, err := e.find(r.name)
	if err != nil {
		return answer{}, err
	}
	return answer{status: http.StatusOK, body: c.shown()}, nil
}

// shown is what the engine says of a container. The caller holds mu.
func (c *Container) shown() container.InspectResponse {
	answer := c.inspect()
	if c.alter == nil {
		return answer
	}
	var copied container.InspectResponse // what the answer points to is the container's own
	if text, err := json.Marshal(answer); err != nil || json.Unmarshal(text, &copied) != nil {
		return answer
	}
	c.alter(&copied)
	return copied
}

// inspect returns the answer to an inspect of the container. The caller holds mu.
func (c *Container) inspect() container.InspectResponse {
	config, hostConfig := c.config, c.hostConfig
	config.Labels = labels(config.Labels)
	args := slices.Concat([]string(config.Entrypoint), []string(config.Cmd))
	base := &container.ContainerJSONBase{
		ID: c.id, Created: stamp(c.created), Name: "/" + c.name, Image: c.image.id, RestartCount: c.restarts,
		Driver: c.engine.info.Driver, Platform: c.platform, HostConfig: &hostConfig,
		LogPath: c.logPath(),
		State: &container.State{
			Status: c.status(), Running: c.running || c.restarting, Paused: c.paused, Restarting: c.restarting, OOMKilled: c.oomKilled,
			Dead: c.dead, Pid: c.pid, ExitCode: c.exitCode, Error: c.errorText,
			StartedAt: stamp(c.startedAt), FinishedAt: stamp(c.finishedAt), Health: c.health.report(),
		},
	}
	if len(args) > 0 {
		base.Path, base.Args = args[0], args[1:]
	}
	settings := &container.NetworkSettings{Networks: map[string]*network.EndpointSettings{}}
	settings.Ports = c.portMap()
	for _, p := range c.endpoints {
		settings.Networks[p.network] = p.report(c)
	}
	return container.InspectResponse{ContainerJSONBase: base, Config: &config, Mounts: c.mountPoints(), NetworkSettings: settings}
}

// mountPoints returns the mounts in the form of an inspect. The caller holds mu.
func (c *Container) mountPoints() []container.MountPoint {
	mounts := append([]container.MountPoint{}, c.mounts...)
	for i, m := range mounts {
		if c.engine.dialect == DockerV29 && slices.Contains(c.hostConfig.Binds, m.Destination) { // only a path, no source
			mounts[i].Name = ""
		}
	}
	return mounts
}

// listContainers is GET /containers/json.
func listContainers(e *Engine, r *request) (answer, error) {
	args, err := e.filtersOf(r, "ancestor before exited health id is-task label name network since status volume", "expose isolation publish")
	if err != nil {
		return answer{}, err
	}
	for _, status := range args.Get("status") {
		if err := container.ValidateContainerState(status); err != nil {
			return answer{}, e.dialect.say(http.StatusBadRequest, "Invalid filter 'status="+status+"'", "invalid filter 'status="+status+"': "+err.Error())
		}
	}
	limit := -1
	if text := r.query.Get("limit"); text != "" {
		if limit, err = strconv.Atoi(text); err != nil {
			return answer{}, e.dialect.badNumber(err)
		}
	}
	all := r.flag("all") || args.Contains("status") || limit > 0

	e.mu.Lock()
	defer e.mu.Unlock()
	since, before := args.Get("since"), args.Get("before")
	for _, name := range slices.Concat(since, before) {
		if _, err := e.find(name); err != nil {
			if e.dialect == DockerV20 {
				err = internal("", "no such container %s", name)
			}
			return answer{}, err
		}
	}
	list := []container.Summary{}
	for _, c := range slices.Backward(e.order) { // the newest first
		if limit > 0 && len(list) == limit {
			break
		}
		if (all || c.isListed()) && e.passesList(c, args, since, before) {
			list = append(list, c.summary())
		}
	}
	return answer{status: http.StatusOK, body: list}, nil
}

// isListed reports whether a list without the parameter all has the container. The caller
// holds mu.
func (c *Container) isListed() bool {
	return (c.running || c.restarting) && !(c.paused && c.engine.dialect == PodmanV4)
}

func (e *Engine) passesList(c *Container, args filters.Args, since, before []string) bool {
	for _, name := range since {
		if other, _ := e.find(name); !c.created.After(other.created) {
			return false
		}
	}
	for _, name := range before {
		if other, _ := e.find(name); !c.created.Before(other.created) {
			return false
		}
	}
	anyOf := func(key string, matches func(value string) bool) bool {
		return !args.Contains(key) || slices.ContainsFunc(args.Get(key), matches)
	}
	health := container.NoHealthcheck
	if report := c.health.report(); report != nil {
		health = report.Status
	}
	return (args.Match("name", "/"+c.name) || args.Match("name", c.name)) && args.Match("id", c.id) &&
		args.MatchKVList("label", c.config.Labels) && args.Match("status", c.status()) && args.ExactMatch("health", health) &&
		anyOf("exited", func(v string) bool {
			return v == strconv.Itoa(c.exitCode) && !c.running && !c.startedAt.IsZero()
		}) &&
		anyOf("is-task", func(v string) bool { return v == "false" || v == "0" }) &&
		anyOf("ancestor", func(v string) bool { return c.image.is(v) }) &&
		anyOf("volume", func(v string) bool {
			return slices.ContainsFunc(c.mounts, func(m container.MountPoint) bool { return m.Name == v || m.Destination == v })
		}) &&
		anyOf("network", func(v string) bool {
			return slices.ContainsFunc(c.endpoints, func(p *endpoint) bool {
				return p.network == v || p.known != "" && strings.HasPrefix(p.known, v)
			})
		})
}

// summary returns the container in the form of a list. The caller holds mu.
func (c *Container) summary() container.Summary {
	s := container.Summary{
		ID: c.id, Names: []string{"/" + c.name}, Image: c.config.Image, ImageID: c.image.id, Created: c.created.Unix(),
		Command: strings.Join(slices.Concat([]string(c.config.Entrypoint), []string(c.config.Cmd)), " "),
		Labels:  labels(c.config.Labels), State: c.status(), Status: c.statusText(), Mounts: c.mountPoints(),
		NetworkSettings: &container.NetworkSettingsSummary{Networks: map[string]*network.EndpointSettings{}},
		Ports:           c.portList(),
	}
	if c.engine.dialect == PodmanV4 {
		s.Command = strings.Join(c.config.Cmd, " ")
	}
	s.HostConfig.NetworkMode = string(c.hostConfig.NetworkMode)
	if i := c.engine.findImage(c.config.Image); c.image.id != "" && i != c.image {
		s.Image = c.image.id // now the reference names another image, or none
	}
	for _, p := range c.endpoints {
		s.NetworkSettings.Networks[p.network] = p.report(c)
	}
	return s
}

func (c *Container) statusText() string {
	ago := func(t time.Time) string { return units.HumanDuration(time.Since(t)) }
	switch {
	case c.paused:
		return "Up " + ago(c.startedAt) + " (Paused)"
	case c.restarting:
		return fmt.Sprintf("Restarting (%d) %s ago", c.exitCode, ago(c.finishedAt))
	case c.running:
		if report := c.health.report(); report != nil {
			text := report.Status
			if text == container.Starting {
				text = "health: starting"
			}
			return "Up " + ago(c.startedAt) + " (" + text + ")"
		}
		return "Up " + ago(c.startedAt)
	case c.removing:
		return "Removal In Progress"
	case c.dead:
		return "Dead"
	case c.startedAt.IsZero():
		return "Created"
	}
	return fmt.Sprintf("Exited (%d) %s ago", c.exitCode, ago(c.finishedAt))
}
