package conformance

import (
	"fmt"
	"path"
	"regexp"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/volume"
	"github.com/docker/go-connections/nat"
)

var portStatements = []Statement{
	{Name: "a published port has one of the host while the container runs", On: dockers, check: func(t *T) {
		id := t.create("web", "sleep 1h", published("8080/tcp", ""))
		same(t, "of the created", 0, len(t.inspect(id).NetworkSettings.Ports))
		t.start(id)
		ports := t.inspect(id).NetworkSettings.Ports["8080/tcp"]
		same(t, "HostIP", "0.0.0.0", ports[0].HostIP)
		same(t, "HostPort is given", true, ports[0].HostPort > "1024" || len(ports[0].HostPort) == 5)
		t.do("POST /containers/"+id+"/kill", nil).ok(204)
		t.untilStatus(id, "exited")
		same(t, "of the ended", 0, len(t.inspect(id).NetworkSettings.Ports))
	}},
	{Name: "a port that was asked for is given", On: dockers, check: func(t *T) {
		ports := t.inspect(t.ready("web", "sleep 1h", published("8080/tcp", t.port()))).NetworkSettings.Ports["8080/tcp"]
		same(t, "HostPort", t.port(), ports[0].HostPort)
	}},
	{Name: "a port is published for IPv4, and where the engine does it for IPv6 after that", On: dockers, check: func(t *T) {
		ports := t.inspect(t.ready("web", "sleep 1h", published("8080/tcp", t.port()))).NetworkSettings.Ports["8080/tcp"]
		want := []nat.PortBinding{{HostIP: "0.0.0.0", HostPort: t.port()}, {HostIP: "::", HostPort: t.port()}}
		same(t, "the bindings", want[:min(max(len(ports), 1), 2)], ports)
	}},
	{Name: "a port is published for the address that was asked for, and no other", On: dockers, check: func(t *T) {
		ports := t.inspect(t.ready("web", "sleep 1h", M{"ExposedPorts": M{"8080/tcp": M{}}}, host(M{"PortBindings": M{"8080/tcp": []M{{"HostIp": "127.0.0.1", "HostPort": t.port()}}}}))).NetworkSettings.Ports["8080/tcp"]
		same(t, "the bindings", []nat.PortBinding{{HostIP: "127.0.0.1", HostPort: t.port()}}, ports)
	}},
	{Name: "a port that is taken is refused at the start", On: dockers, check: func(t *T) {
		first := t.ready("web", "sleep 1h", published("8080/tcp", t.port()))
		id := t.create("other", "sleep 1h", published("8080/tcp", t.port()))
		a := t.do("POST /containers/"+id+"/start", nil).ok(500)
		var e struct{ Message string }
		a.ok(500, &e)
		same(t, "the message", by(t, "failed to set up container networking: ", "", "")+"driver failed programming external connectivity on endpoint "+t.name("other")+
			" (ENDPOINT): Bind for 0.0.0.0:"+t.port()+" failed: port is already allocated", endpointID.ReplaceAllString(e.Message, "(ENDPOINT)"))
		same(t, "Status", "created", t.inspect(id).State.Status)
		same(t, "ExitCode", 128, t.inspect(id).State.ExitCode)
		t.do("POST /containers/"+first+"/kill", nil).ok(204)
		t.untilStatus(first, "exited")
		t.start(id)
		same(t, "29 has lost the networks, and so the port", t.v == DockerV20, len(t.inspect(id).NetworkSettings.Networks) == 1)
		same(t, "it has the port", t.v == DockerV20, len(t.inspect(id).NetworkSettings.Ports["8080/tcp"]) > 0)
	}},
	{Name: "a port of TCP is none of UDP", On: dockers, check: func(t *T) {
		t.ready("web", "sleep 1h", published("8080/tcp", t.port()))
		ports := t.inspect(t.ready("other", "sleep 1h", published("8080/udp", t.port()))).NetworkSettings.Ports["8080/udp"]
		same(t, "HostPort", t.port(), ports[0].HostPort)
	}},
	{Name: "the engine picks ports from its range, each once", On: dockers, check: func(t *T) {
		seen := map[string]bool{}
		for _, name := range []string{"a", "b", "c"} {
			port := t.inspect(t.ready(name, "sleep 1h", published("8080/tcp", ""))).NetworkSettings.Ports["8080/tcp"][0].HostPort
			same(t, port+" is in the range", true, len(port) == 5 && port >= "32768")
			seen[port] = true
		}
		same(t, "how many ports", 3, len(seen))
	}},
	{Name: "a port that is exposed and not published has no binding", On: dockers, check: func(t *T) {
		ports := t.inspect(t.ready("web", "sleep 1h", M{"ExposedPorts": M{"8080/tcp": M{}}})).NetworkSettings.Ports
		same(t, "the ports", nat.PortMap{"8080/tcp": nil}, ports)
	}},
	{Name: "all exposed ports are published if that is asked for", On: dockers, check: func(t *T) {
		ports := t.inspect(t.ready("web", "sleep 1h", M{"ExposedPorts": M{"8080/tcp": M{}, "53/udp": M{}}}, host(M{"PublishAllPorts": true}))).NetworkSettings.Ports
		same(t, "the ports", 2, len(ports))
		same(t, "53/udp has one", true, len(ports["53/udp"]) > 0)
	}},
	{Name: "the list tells published ports", On: dockers, check: func(t *T) {
		t.ready("web", "sleep 1h", published("8080/tcp", t.port()))
		p := t.list("")[0].Ports[0]
		same(t, "the port", "0.0.0.0 8080 "+t.port()+" tcp", fmt.Sprint(p.IP, " ", p.PrivatePort, " ", p.PublicPort, " ", p.Type))
	}},
	{Name: "in the host's network no port is published", On: dockers, check: func(t *T) {
		ports := t.inspect(t.ready("web", "sleep 1h", M{"ExposedPorts": M{"8080/tcp": M{}}},
			host(M{"NetworkMode": "host", "PortBindings": M{"8080/tcp": []M{{"HostPort": t.port()}}}}))).NetworkSettings.Ports
		same(t, "the ports", 0, len(ports))
	}},
}

var volumeStatements = []Statement{
	{Name: "a volume is made with the engine's defaults", check: func(t *T) {
		var v volume.Volume
		t.do("POST /volumes/create", M{"Name": t.name("data")}).ok(201, &v)
		same(t, "Name", t.name("data"), v.Name)
		same(t, "Driver", "local", v.Driver)
		same(t, "Scope", "local", v.Scope)
		same(t, "Mountpoint is given", true, v.Mountpoint != "")
		same(t, "CreatedAt is given", true, v.CreatedAt != "")
	}},
	{Name: "a volume that is there is answered again, with its own options", check: func(t *T) {
		t.do("POST /volumes/create", M{"Name": t.name("data"), "Labels": M{"own": "1"}}).ok(201)
		var v volume.Volume
		t.do("POST /volumes/create", M{"Name": t.name("data"), "Labels": M{"own": "2"}}).ok(201, &v)
		same(t, "Labels", map[string]string{"own": "1"}, v.Labels)
	}},
	{Name: "what a volume has not is null", On: dockers, check: func(t *T) {
		var v M
		t.do("POST /volumes/create", M{"Name": t.name("data")}).ok(201, &v)
		same(t, "Labels", any(nil), v["Labels"])
		same(t, "Options", any(nil), v["Options"])
		var list M
		t.do("GET /volumes?"+filters("name", t.name("nosuch")), nil).ok(200, &list)
		same(t, "Volumes", any([]any{}), list["Volumes"])
		same(t, "Warnings", any(nil), list["Warnings"])
	}},
	{Name: "a volume keeps its options", On: dockers, check: func(t *T) {
		var v volume.Volume
		options := map[string]string{"type": "tmpfs", "device": "tmpfs", "o": "size=1m"}
		t.do("POST /volumes/create", M{"Name": t.name("data"), "DriverOpts": options}).ok(201)
		t.do("GET /volumes/"+t.name("data"), nil).ok(200, &v)
		same(t, "Options", options, v.Options)
	}},
	{Name: "a volume without a name gets one of 64 digits", On: dockers, check: func(t *T) {
		var v volume.Volume
		t.do("POST /volumes/create", M{}).ok(201, &v)
		same(t, "the length", 64, len(v.Name))
		_, has := v.Labels["com.docker.volume.anonymous"]
		same(t, "29 marks it", t.v == DockerV29, has)
	}},
	{Name: "a volume of a driver that is not there is 404", On: dockers, check: func(t *T) { // engines look for it for 15 seconds
		t.do("POST /volumes/create", M{"Name": t.name("data"), "Driver": "nosuch"}).is(all(404, "create "+t.name("data")+`: error looking up volume plugin nosuch: plugin "nosuch" not found`))
	}},
	{Name: "an unknown volume is 404", check: func(t *T) {
		t.do("GET /volumes/nosuch", nil).is(docker(404, "get nosuch: no such volume"), podman(404, "volume with name nosuch not found: no such volume"))
	}},
	{Name: "a removal of a volume is 204, and a second one is 404", check: func(t *T) {
		t.volume("data")
		t.do("DELETE /volumes/"+t.name("data"), nil).is(all(204, ""))
		t.do("DELETE /volumes/"+t.name("data"), nil).is(docker(404, "get "+t.name("data")+": no such volume"), podman(404, `no volume with name "`+t.name("data")+`" found: no such volume`))
	}},
	{Name: "a forced removal of an unknown volume is 204", On: dockers, check: func(t *T) {
		t.do("DELETE /volumes/nosuch?force=1", nil).is(all(204, ""))
	}},
	{Name: "a volume of a created container cannot be removed", On: dockers, check: func(t *T) {
		t.volume("data")
		id := t.create("web", "exit 0", host(M{"Binds": []string{t.name("data") + ":/data"}}))
		t.do("DELETE /volumes/"+t.name("data"), nil).is(all(409, "remove "+t.name("data")+": volume is in use - ["+id+"]"))
		t.do("DELETE /volumes/"+t.name("data")+"?force=1", nil).is(all(409, "remove "+t.name("data")+": volume is in use - ["+id+"]"))
	}},
	{Name: "a create makes the volumes that it names", On: dockers, check: func(t *T) {
		t.create("web", "exit 0", host(M{"Mounts": []M{{"Type": "volume", "Source": t.name("data"), "Target": "/data", "VolumeOptions": M{"Labels": M{"own": "1"}}}}}))
		t.toRemove = append(t.toRemove, "/volumes/"+t.name("data"))
		var v volume.Volume
		t.do("GET /volumes/"+t.name("data"), nil).ok(200, &v)
		same(t, "Labels", map[string]string{"own": "1"}, v.Labels)
	}},
	{Name: "Podman forgets the labels of a volume that a create makes without a driver", On: podmans, check: func(t *T) {
		t.create("web", "exit 0", host(M{"Mounts": []M{{"Type": "volume", "Source": t.name("data"), "Target": "/data", "VolumeOptions": M{"Labels": M{"own": "1"}}}}}))
		t.toRemove = append(t.toRemove, "/volumes/"+t.name("data"))
		var v volume.Volume
		t.do("GET /volumes/"+t.name("data"), nil).ok(200, &v)
		same(t, "Labels", 0, len(v.Labels))
	}},
	{Name: "a container tells its volume", On: dockers, check: func(t *T) {
		t.volume("data")
		m := t.inspect(t.create("web", "exit 0", host(M{"Binds": []string{t.name("data") + ":/data:ro"}}))).Mounts
		same(t, "how many", 1, len(m))
		same(t, "Type", "volume", string(m[0].Type))
		same(t, "Name", t.name("data"), m[0].Name)
		same(t, "Destination", "/data", m[0].Destination)
		same(t, "RW", false, m[0].RW)
	}},
	{Name: "a container tells its bind of a path, and its memory", On: dockers, check: func(t *T) {
		m := t.inspect(t.create("web", "exit 0", host(M{"Binds": []string{"/etc:/host:ro"}}))).Mounts
		same(t, "the bind", []container.MountPoint{{Type: "bind", Source: "/etc", Destination: "/host", Mode: "ro", Propagation: "rprivate"}}, m)
		m = t.inspect(t.create("memory", "exit 0", host(M{"Mounts": []M{{"Type": "tmpfs", "Target": "/memory"}}}))).Mounts
		same(t, "the memory", []container.MountPoint{{Type: "tmpfs", Destination: "/memory", RW: true}}, m)
	}},
	{Name: "a mount without a name is a volume with one, and may be read-only in 29", On: dockers, check: func(t *T) {
		readOnly := t.v == DockerV29
		if !readOnly {
			t.tryCreate("web", "exit 0", host(M{"Mounts": []M{{"Type": "volume", "Target": "/data", "ReadOnly": true}}})).is(
				v20(400, `invalid mount config for type "volume": must not set ReadOnly mode when using anonymous volumes`))
		}
		m := t.inspect(t.create("web", "exit 0", host(M{"Mounts": []M{{"Type": "volume", "Target": "/data", "ReadOnly": readOnly}}}))).Mounts
		same(t, "how many", 1, len(m))
		same(t, "the length of Name", 64, len(m[0].Name))
		same(t, "Destination", "/data", m[0].Destination)
		same(t, "RW", !readOnly, m[0].RW)
		t.toRemove = append(t.toRemove, "/volumes/"+m[0].Name)
	}},
	{Name: "a removal with v takes the volumes without a name, and leaves the others", On: dockers, check: func(t *T) {
		t.volume("data")
		id := t.create("web", "exit 0", host(M{"Binds": []string{t.name("data") + ":/data", "/anonymous"}}))
		anonymous := t.anonymous(id)
		t.do("GET /volumes/"+anonymous, nil).ok(200)
		t.do("DELETE /containers/"+id+"?v=1", nil).ok(204)
		t.do("GET /volumes/"+anonymous, nil).ok(404)
		t.do("GET /volumes/"+t.name("data"), nil).ok(200)
	}},
	{Name: "a removal without v leaves the volumes", On: dockers, check: func(t *T) {
		id := t.create("web", "exit 0", host(M{"Binds": []string{"/anonymous"}}))
		name := t.anonymous(id)
		t.toRemove = append(t.toRemove, "/volumes/"+name)
		t.do("DELETE /containers/"+id, nil).ok(204)
		t.do("GET /volumes/"+name, nil).ok(200)
	}},
	{Name: "a removal with v tells of the volume before the container", On: dockers, check: func(t *T) {
		id := t.create("web", "exit 0", host(M{"Mounts": []M{{"Type": "volume", "Target": "/data"}}}))
		volume := t.inspect(id).Mounts[0].Name
		t.do("DELETE /containers/"+id+"?v=1", nil).ok(204)
		t.told(id, "destroy")
		t.told(volume, "destroy")
		var order []string
		for _, m := range t.events(filters("event", "destroy")) {
			if m.Actor.ID == id || m.Actor.ID == volume {
				order = append(order, string(m.Type))
			}
		}
		same(t, "the order", []string{"volume", "container"}, order)
	}},
	{Name: "a list of volumes is filtered", On: dockers, check: func(t *T) {
		t.do("POST /volumes/create", M{"Name": t.name("data"), "Labels": M{t.name("own"): "1"}}).ok(201)
		for _, by := range [][2]string{{"name", t.name("dat")}, {"label", t.name("own")}, {"label", t.name("own") + "=1"}} {
			same(t, "by "+by[0], []string{t.name("data")}, t.volumes(filters(by[0], by[1])))
		}
		same(t, "by dangling", true, contains(t.volumes(filters("dangling", "true")), t.name("data")))
		t.create("web", "exit 0", host(M{"Binds": []string{t.name("data") + ":/data"}}))
		same(t, "by dangling, once it is used", false, contains(t.volumes(filters("dangling", "true")), t.name("data")))
		same(t, "by driver", true, contains(t.volumes(filters("driver", "local")), t.name("data")))
		same(t, "by another driver", false, contains(t.volumes(filters("driver", "nosuch")), t.name("data")))
	}},
	{Name: "a filter of volumes that is none is refused", On: dockers, check: func(t *T) {
		t.do("GET /volumes?"+filters("nosuch", "1"), nil).is(v20(400, "Invalid filter 'nosuch'"), v29(400, "invalid filter 'nosuch'"))
	}},
	{Name: "a volume is told by events of its making, its use and its removal", On: dockers, check: func(t *T) {
		t.volume("data")
		id := t.ended("web", "exit 0", host(M{"Binds": []string{t.name("data") + ":/data"}}))
		t.told(t.name("data"), "unmount")
		t.do("DELETE /containers/"+id, nil).ok(204)
		t.do("DELETE /volumes/"+t.name("data"), nil).ok(204)
		list := t.told(t.name("data"), "destroy")
		same(t, "the events", by(t, []string{"create", "mount", "unmount", "destroy"}, []string{"create", "create", "mount", "unmount", "destroy"}, nil), actionsOf(list))
		same(t, "of the making", map[string]string{"driver": "local"}, list[0].Actor.Attributes)
		list = list[by(t, 0, 1, 0):] // 20.10 tells of each create, also of one that finds it
		same(t, "of the use", map[string]string{"container": id, "destination": "/data", "driver": "local", "propagation": "", "read/write": "true"}, list[1].Actor.Attributes)
		same(t, "of its end", map[string]string{"container": id, "driver": "local"}, list[2].Actor.Attributes)
	}},
}

// anonymous is the name of a container's volume at /anonymous.
func (t *T) anonymous(id string) string {
	t.Helper()
	for _, m := range t.inspect(id).Mounts {
		if m.Destination == "/anonymous" {
			same(t, "Name is told", t.v == DockerV20, m.Name != "")
			return path.Base(path.Dir(m.Source))
		}
	}
	t.Fatal("there is no volume")
	return ""
}

func published(port, hostPort string) M {
	return M{"ExposedPorts": M{port: M{}}, "HostConfig": M{"PortBindings": M{port: []M{{"HostPort": hostPort}}}}}
}

// endpointID is what differs in an error.
var endpointID = regexp.MustCompile(`\([0-9a-f]{64}\)`)

// port is one of the host for the check alone.
func (t *T) port() string { return fmt.Sprint(20000 + t.number%10000) }

// volumes are the names of a list.
func (t *T) volumes(query string) (names []string) {
	t.Helper()
	var list volume.ListResponse
	t.do("GET /volumes?"+query, nil).ok(200, &list)
	for _, v := range list.Volumes {
		names = append(names, v.Name)
	}
	return names
}
