package conformance

import (
	"net/http"
	"strings"

	"github.com/docker/docker/api/types"
	"github.com/docker/docker/api/types/system"
)

var systemStatements = []Statement{
	{Name: "a ping says OK", check: func(t *T) {
		a := t.do("GET bare:/_ping", nil).is(all(200, "OK"))
		same(t, "Content-Type", "text/plain; charset=utf-8", a.header.Get("Content-Type"))
		same(t, "Cache-Control", by(t, "no-cache, no-store, must-revalidate", "no-cache, no-store, must-revalidate", "no-cache"), a.header.Get("Cache-Control"))
		same(t, "Pragma", "no-cache", a.header.Get("Pragma"))
	}},
	{Name: "a ping names the newest API version and the system", check: func(t *T) {
		a := t.do("GET bare:/_ping", nil)
		same(t, "Api-Version", t.version().APIVersion, a.header.Get("Api-Version"))
		same(t, "Ostype", by(t, "linux", "linux", ""), a.header.Get("Ostype"))
		same(t, "Docker-Experimental", by(t, "false", "false", "true"), a.header.Get("Docker-Experimental"))
	}},
	{Name: "a ping of 29 names the builder and the swarm, one of 20.10 does not", On: dockers, check: func(t *T) {
		a := t.do("GET bare:/_ping", nil)
		same(t, "Builder-Version", by(t, "2", "", ""), a.header.Get("Builder-Version"))
		same(t, "Swarm", by(t, "inactive", "", ""), a.header.Get("Swarm"))
	}},
	{Name: "a ping by HEAD has the headers and no body", check: func(t *T) {
		a := t.do("HEAD bare:/_ping", nil).is(all(200, ""))
		same(t, "Api-Version", t.version().APIVersion, a.header.Get("Api-Version"))
	}},
	{Name: "a ping is answered in any served version", check: func(t *T) {
		t.do("GET /_ping", nil).is(all(200, "OK"))
	}},
	{Name: "every answer names the engine and its newest API version", On: dockers, check: func(t *T) {
		a := t.do("GET /containers/nosuch/json", nil).ok(404)
		same(t, "Api-Version", t.version().APIVersion, a.header.Get("Api-Version"))
		if server := a.header.Get("Server"); !strings.HasPrefix(server, "Docker/") || !strings.HasSuffix(server, " (linux)") {
			t.Errorf("Server is %q", server)
		}
	}},
	{Name: "an error is JSON with a message", On: dockers, check: func(t *T) {
		a := t.do("GET /containers/nosuch/json", nil)
		same(t, "Content-Type", "application/json", a.header.Get("Content-Type"))
		same(t, "the body", `{"message":"No such container: nosuch"}`, strings.TrimSpace(string(a.body)))
	}},
	{Name: "an error of Podman has a cause and its status beside the message", On: podmans, check: func(t *T) {
		var e M
		t.do("GET /containers/nosuch/json", nil).ok(404, &e)
		same(t, "the body", M{"cause": "no such container", "message": `no container with name or ID "nosuch" found: no such container`, "response": 404.0}, e)
	}},
	{Name: "the version names the engine, the system and the API versions", check: func(t *T) {
		v := t.version()
		same(t, "the system", "linux", v.Os)
		same(t, "the oldest API version", by(t, "1.40", "1.12", "1.24"), v.MinAPIVersion)
		same(t, "the first component", by(t, "Engine", "Engine", "Podman Engine"), v.Components[0].Name)
		same(t, "its version", v.Version, v.Components[0].Version)
	}},
	{Name: "version and info name the machine", On: dockers, check: func(t *T) {
		v, i := t.version(), t.info()
		same(t, "Arch is given", true, v.Arch != "")
		same(t, "KernelVersion", i.KernelVersion, v.KernelVersion)
		same(t, "KernelVersion is given", true, v.KernelVersion != "")
		for what, text := range map[string]string{"Architecture": i.Architecture, "OperatingSystem": i.OperatingSystem, "Driver": i.Driver,
			"CgroupDriver": i.CgroupDriver, "DockerRootDir": i.DockerRootDir, "DefaultRuntime": i.DefaultRuntime, "ID": i.ID} {
			same(t, what+" is given", true, text != "")
		}
		same(t, "there is an image", true, i.Images >= 1)
	}},
	{Name: "the newest API version of 20.10 and of Podman 4 is 1.41", On: []Dialect{DockerV20, PodmanV4}, check: func(t *T) {
		same(t, "the version", "1.41", t.version().APIVersion)
	}},
	{Name: "a version that is too new is refused", On: dockers, check: func(t *T) {
		t.do("GET bare:/v9.99/info", nil).is(all(400, "client version 9.99 is too new. Maximum supported API version is "+t.version().APIVersion))
	}},
	{Name: "a version that is too old is refused", On: dockers, check: func(t *T) {
		v := t.version()
		a := t.do("GET bare:/v1.1/info", nil).is(all(400, "client version 1.1 is too old. Minimum supported API version is "+v.MinAPIVersion+", please upgrade your client to a newer version"))
		same(t, "the type of so old an answer", "text/plain; charset=utf-8", a.header.Get("Content-Type"))
	}},
	{Name: "a request without a version is served", check: func(t *T) {
		t.do("GET bare:/info", nil).ok(200)
	}},
	{Name: "the oldest and the newest API version are served", check: func(t *T) {
		v := t.version()
		t.do("GET bare:/v"+v.MinAPIVersion+"/version", nil).ok(200)
		t.do("GET bare:/v"+v.APIVersion+"/version", nil).ok(200)
	}},
	{Name: "info tells the host's system, cores and memory", check: func(t *T) {
		i := t.info()
		same(t, "the system", "linux", i.OSType)
		same(t, "Name is given", true, i.Name != "")
		same(t, "NCPU is given", true, i.NCPU > 0)
		same(t, "MemTotal is given", true, i.MemTotal > 1<<20)
		same(t, "the version", t.version().Version, i.ServerVersion)
	}},
	{Name: "info lists the drivers of volumes, networks and logs", On: dockers, check: func(t *T) {
		plugins := t.info().Plugins
		same(t, "volumes", []string{"local"}, plugins.Volume)
		same(t, "networks", []string{"bridge", "host", "ipvlan", "macvlan", "null", "overlay"}, plugins.Network)
		for _, driver := range []string{"json-file", "local", "syslog"} {
			same(t, driver, true, contains(plugins.Log, driver))
		}
		same(t, "LoggingDriver", "json-file", t.info().LoggingDriver)
	}},
	{Name: "info says that the engine is in no swarm", check: func(t *T) {
		same(t, "the state", "inactive", string(t.info().Swarm.LocalNodeState))
	}},
	{Name: "the engine's ID stays, that of Podman is another each time", check: func(t *T) {
		same(t, "it stays", t.v != PodmanV4, t.info().ID == t.info().ID) //nolint:staticcheck // two requests
	}},
	{Name: "info has the address of Docker's index, but not of Podman", check: func(t *T) {
		same(t, "the address", by(t, "https://index.docker.io/v1/", "https://index.docker.io/v1/", ""), t.info().IndexServerAddress)
	}},
	{Name: "info counts containers by their state", Alone: true, check: func(t *T) {
		before := t.info()
		t.create("created", "exit 0")
		t.ended("ended", "exit 0")
		t.ready("running", "sleep 1h")
		t.pause(t.ready("paused", "sleep 1h"))
		after := t.info()
		same(t, "all", before.Containers+4, after.Containers)
		same(t, "running", before.ContainersRunning+1, after.ContainersRunning)
		same(t, "paused", before.ContainersPaused+1, after.ContainersPaused)
		same(t, "stopped; Podman counts the created nowhere", before.ContainersStopped+by(t, 2, 2, 1), after.ContainersStopped)
	}},
	{Name: "there are no plugins, and Podman does not serve them", check: func(t *T) {
		t.do("GET /plugins", nil).is(docker(200, "[]"), podman(http.StatusNotFound, "Path /v"+t.f.Client.ClientVersion()+"/plugins is not supported"))
	}},
}

func (t *T) version() (v types.Version) {
	t.Helper()
	t.do("GET /version", nil).ok(200, &v)
	return v
}

func (t *T) info() (i system.Info) {
	t.Helper()
	t.do("GET /info", nil).ok(200, &i)
	return i
}
