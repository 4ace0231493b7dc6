package dockerexectest

import (
	"net/http"

	"github.com/docker/docker/api/types"
	"github.com/docker/docker/api/types/registry"
	"github.com/docker/docker/api/types/swarm"
	"github.com/docker/docker/api/types/system"
)

// fillInfo sets the defaults of the fields that are empty.
func (e *Engine) fillInfo() {
	i := &e.info
	set := func(field *string, value string) {
		if *field == "" {
			*field = value
		}
	}
	id, driver := "11111111-2222-3333-4444-555555555555", "overlayfs"
	if e.dialect != DockerV29 {
		driver = "overlay2"
	}
	if e.dialect == DockerV20 {
		id = "ABCD:EFGH:IJKL:MNOP:QRST:UVWX:YZ23:4567:ABCD:EFGH:IJKL:MNOP"
	}
	set(&i.ID, id)
	set(&i.Name, "engine.test")
	set(&i.OSType, "linux")
	set(&i.Architecture, "x86_64")
	set(&i.OperatingSystem, "Debian GNU/Linux 12 (bookworm)")
	set(&i.KernelVersion, "6.1.0")
	set(&i.Driver, driver)
	if e.dialect != PodmanV4 {
		set(&i.LoggingDriver, "json-file")
		set(&i.IndexServerAddress, "https://index.docker.io/v1/")
	}
	set(&i.CgroupDriver, "cgroupfs")
	set(&i.DockerRootDir, "/var/lib/docker")
	set(&i.ServerVersion, e.dialect.release())
	set(&i.DefaultRuntime, "runc")
	if i.NCPU == 0 {
		i.NCPU = 2
	}
	if i.MemTotal == 0 {
		i.MemTotal = 4 << 30
	}
	if i.Plugins.Volume == nil {
		i.Plugins.Volume = []string{"local"}
	}
	if i.Plugins.Network == nil {
		i.Plugins.Network = []string{"bridge", "host", "ipvlan", "macvlan", "null", "overlay"}
	}
	if i.Plugins.Log == nil {
		i.Plugins.Log = []string{"awslogs", "fluentd", "gcplogs", "gelf", "journald", "json-file", "local", "splunk", "syslog"}
	}
	if i.RegistryConfig == nil {
		i.RegistryConfig = &registry.ServiceConfig{}
	}
	if i.Swarm.LocalNodeState == "" {
		i.Swarm.LocalNodeState = swarm.LocalNodeStateInactive
	}
}

// serveInfo is GET /info.
func serveInfo(e *Engine, _ *request) (answer, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	info := e.info
	info.Images = len(e.images)
	for _, c := range e.order {
		info.Containers++
		switch {
		case c.paused:
			info.ContainersPaused++
		case c.running:
			info.ContainersRunning++
		case c.startedAt.IsZero() && e.dialect == PodmanV4: // Podman does not count it
		default:
			info.ContainersStopped++
		}
	}
	if e.dialect == PodmanV4 {
		info.ID = e.newID("engine")[:36] // Podman answers with a new ID each time
	}
	return answer{status: http.StatusOK, body: info}, nil
}

// Info returns the answer of /info, without the numbers of containers and images.
func (e *Engine) Info() system.Info {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.info
}

// serveVersion is GET /version.
func serveVersion(e *Engine, _ *request) (answer, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	name := "Engine"
	if e.dialect == PodmanV4 {
		name = "Podman Engine"
	}
	return answer{status: http.StatusOK, body: types.Version{
		Version: e.dialect.release(), APIVersion: e.apiVersion, MinAPIVersion: e.minAPIVersion,
		Os: "linux", Arch: "amd64", KernelVersion: e.info.KernelVersion,
		Components: []types.ComponentVersion{{Name: name, Version: e.dialect.release()}},
	}}, nil
}

// servePing is GET and HEAD /_ping.
func servePing(e *Engine, _ *request) (answer, error) {
	header := map[string]string{"Content-Type": "text/plain; charset=utf-8",
		"Cache-Control": "no-cache, no-store, must-revalidate", "Pragma": "no-cache"}
	switch e.dialect {
	case DockerV29:
		header["Builder-Version"], header["Swarm"] = "2", "inactive"
	case PodmanV4:
		header["Cache-Control"], header["Docker-Experimental"] = "no-cache", "true"
	case DockerV20:
	}
	return answer{status: http.StatusOK, body: "OK", header: header}, nil
}

// servePlugins is GET /plugins. It lists managed plugins only: there are none.
func servePlugins(e *Engine, r *request) (answer, error) {
	if _, err := e.filters(r); err != nil {
		return answer{}, err
	}
	if e.dialect == PodmanV4 {
		return answer{}, e.dialect.unsupported(r)
	}
	return answer{status: http.StatusOK, body: types.PluginsListResponse{}}, nil
}
