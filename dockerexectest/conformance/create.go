package conformance

import (
	"bytes"
	"fmt"
	"regexp"
	"strings"
)

var createStatements = []Statement{
	{Name: "a create answers 201, an ID and a list of warnings", On: dockers, check: func(t *T) {
		var made M
		t.tryCreate("web", "exit 0").ok(201, &made)
		same(t, "the ID has 64 digits", true, regexp.MustCompile("^[0-9a-f]{64}$").MatchString(made["Id"].(string)))
		same(t, "Warnings", any([]any{}), made["Warnings"])
	}},
	{Name: "a created container has not run", check: func(t *T) {
		s := t.inspect(t.create("web", "exit 0")).State
		same(t, "Status", "created", s.Status)
		same(t, "Running", false, s.Running)
		same(t, "ExitCode", 0, s.ExitCode)
		same(t, "StartedAt", zeroTime, s.StartedAt)
		same(t, "FinishedAt", zeroTime, s.FinishedAt)
	}},
	{Name: "an inspect puts a slash before the name", check: func(t *T) {
		same(t, "Name", "/"+t.name("web"), t.inspect(t.create("web", "exit 0")).Name)
	}},
	{Name: "an inspect has the image's reference as it was asked for, and its ID", On: dockers, check: func(t *T) {
		i := t.inspect(t.create("web", "exit 0"))
		same(t, "Config.Image", t.f.Image, i.Config.Image)
		same(t, "Image", t.image(t.f.Image).ID, i.Image)
	}},
	{Name: "an image may be named by its ID, or the ID's beginning", On: dockers, check: func(t *T) {
		id := t.image(t.f.Image).ID
		for name, image := range map[string]string{"whole": id, "digits": strings.TrimPrefix(id, "sha256:"), "beginning": strings.TrimPrefix(id, "sha256:")[:12]} {
			i := t.inspect(t.create(name, "exit 0", M{"Image": image}))
			same(t, "Config.Image", image, i.Config.Image)
			same(t, "Image", id, i.Image)
		}
	}},
	{Name: "entrypoint and command become path and arguments", check: func(t *T) {
		i := t.inspect(t.create("web", "exit 0"))
		same(t, "Path", "/testtask", i.Path)
		same(t, "Args", []string{"exit", "0"}, i.Args)
	}},
	{Name: "the command of the image is used if none is asked for", check: func(t *T) {
		same(t, "Cmd", []string{"print", "3"}, []string(t.inspect(t.create("web", "")).Config.Cmd))
	}},
	{Name: "an entrypoint of one's own drops the image's command", check: func(t *T) {
		i := t.inspect(t.create("web", "", M{"Entrypoint": []string{"/testtask", "env"}}))
		same(t, "Path", "/testtask", i.Path)
		same(t, "Args", []string{"env"}, i.Args)
	}},
	{Name: "the environment is one's own, then the image's", On: dockers, check: func(t *T) {
		i := t.inspect(t.create("web", "exit 0", M{"Env": []string{"OWN=1", "FROM_IMAGE=no"}}))
		same(t, "Env", []string{"OWN=1", "FROM_IMAGE=no", "PATH=/"}, i.Config.Env)
	}},
	{Name: "the program sees the environment", On: dockers, check: func(t *T) {
		id := t.ended("web", "env", M{"Env": []string{"OWN=1"}})
		for _, line := range []string{"OWN=1\n", "FROM_IMAGE=yes\n", "PATH=/\n"} {
			same(t, line+" is in the log", true, strings.Contains(t.log(id, "stdout=1"), line))
		}
	}},
	{Name: "labels are kept", check: func(t *T) {
		i := t.inspect(t.create("web", "exit 0", M{"Labels": M{"a": "1", "b": ""}}))
		same(t, "a", "1", i.Config.Labels["a"])
		_, has := i.Config.Labels["b"]
		same(t, "b is there", true, has)
	}},
	{Name: "the host name is the beginning of the ID", check: func(t *T) {
		id := t.create("web", "exit 0")
		same(t, "Hostname", id[:12], t.inspect(id).Config.Hostname)
	}},
	{Name: "a host name of one's own is kept", check: func(t *T) {
		same(t, "Hostname", "own", t.inspect(t.create("web", "exit 0", M{"Hostname": "own"})).Config.Hostname)
	}},
	{Name: "in the host's network the host name is the host's", On: dockers, check: func(t *T) {
		same(t, "Hostname", t.info().Name, t.inspect(t.create("web", "exit 0", host(M{"NetworkMode": "host"}))).Config.Hostname)
	}},
	{Name: "an inspect has the platform, the storage driver, and the log's path once there is one", On: dockers, check: func(t *T) {
		id := t.create("web", "exit 0")
		i := t.inspect(id)
		same(t, "Platform", "linux", i.Platform)
		same(t, "Driver", t.info().Driver, i.Driver)
		same(t, "LogPath of a created one", "", i.LogPath)
		t.start(id)
		same(t, "LogPath", t.info().DockerRootDir+"/containers/"+id+"/"+id+"-json.log", t.inspect(id).LogPath)
		same(t, "LogPath without a log", "", t.inspect(t.ended("none", "exit 0", host(M{"LogConfig": M{"Type": "none"}}))).LogPath)
	}},
	{Name: "what nobody asked for has the defaults of the engine", On: dockers, check: func(t *T) {
		i := t.inspect(t.create("web", "exit 0"))
		same(t, "NetworkMode", by(t, "bridge", "default", ""), string(i.HostConfig.NetworkMode))
		same(t, "RestartPolicy", by(t, "no", "", ""), string(i.HostConfig.RestartPolicy.Name))
		same(t, "LogConfig", "json-file", i.HostConfig.LogConfig.Type)
		same(t, "no StopTimeout", true, i.Config.StopTimeout == nil)
		same(t, "no health", true, i.State.Health == nil)
	}},
	{Name: "Podman stores a grace period of 0 where none was asked for", On: podmans, check: func(t *T) {
		same(t, "StopTimeout", 0, *t.inspect(t.create("web", "exit 0")).Config.StopTimeout)
	}},
	{Name: "a container without a name gets one of two words", On: dockers, check: func(t *T) {
		name := t.inspect(t.create("", "exit 0")).Name
		same(t, "Name", true, regexp.MustCompile("^/[a-z]+_[a-z0-9_]+$").MatchString(name))
	}},
	{Name: "a name may be asked for with a slash, but not by Podman", check: func(t *T) {
		if t.v == PodmanV4 {
			t.do("POST /containers/create?name=/"+t.name("web"), M{"Image": t.f.Image}).is(podman(500, "container create: running container create option: names must match [a-zA-Z0-9][a-zA-Z0-9_.-]*: invalid argument"))
			return
		}
		t.do("POST /containers/create?name=/"+t.name("web"), M{"Image": t.f.Image}).ok(201)
		same(t, "Name", "/"+t.name("web"), t.inspect(t.name("web")).Name)
	}},
	{Name: "what was asked for is kept", On: dockers, check: func(t *T) {
		i := t.inspect(t.create("web", "exit 0", M{"User": "1:2", "WorkingDir": "/work", "StopSignal": "SIGUSR1", "StopTimeout": 7, "Tty": true, "OpenStdin": true,
			"ExposedPorts": M{"80/tcp": M{}}, "Healthcheck": M{"Test": []string{"CMD", "/x"}, "Interval": 3e9, "Timeout": 2e9, "Retries": 5}},
			host(M{"Memory": 64 << 20, "NanoCpus": 5e8, "ReadonlyRootfs": true, "CapAdd": []string{"CAP_NET_ADMIN"}, "Dns": []string{"192.0.2.1"}, "ExtraHosts": []string{"other:192.0.2.2"}, "GroupAdd": []string{"5"},
				"Init": true, "Sysctls": M{"net.core.somaxconn": "100"}, "RestartPolicy": M{"Name": "on-failure", "MaximumRetryCount": 4}})))
		c, h := i.Config, i.HostConfig
		same(t, "User and WorkingDir", "1:2 /work", c.User+" "+c.WorkingDir)
		same(t, "StopSignal and StopTimeout", "SIGUSR1 7", fmt.Sprint(c.StopSignal, " ", *c.StopTimeout))
		same(t, "Tty and OpenStdin", true, c.Tty && c.OpenStdin)
		same(t, "ExposedPorts", 1, len(c.ExposedPorts))
		same(t, "Healthcheck", "[CMD /x] 3s 2s 5", fmt.Sprint(c.Healthcheck.Test, " ", c.Healthcheck.Interval, " ", c.Healthcheck.Timeout, " ", c.Healthcheck.Retries))
		same(t, "Memory and NanoCPUs", "67108864 500000000", fmt.Sprint(h.Memory, " ", h.NanoCPUs))
		same(t, "ReadonlyRootfs and Init", true, h.ReadonlyRootfs && *h.Init)
		same(t, "the lists", "[CAP_NET_ADMIN] [192.0.2.1] [other:192.0.2.2] [5]", fmt.Sprint(h.CapAdd, h.DNS, h.ExtraHosts, h.GroupAdd))
		same(t, "Sysctls", map[string]string{"net.core.somaxconn": "100"}, h.Sysctls)
		same(t, "RestartPolicy", "on-failure 4", fmt.Sprint(h.RestartPolicy.Name, " ", h.RestartPolicy.MaximumRetryCount))
	}},
	{Name: "a container without labels has an empty object of them", On: dockers, check: func(t *T) {
		var i struct{ Config M }
		t.do("GET /containers/"+t.create("web", "exit 0")+"/json", nil).ok(200, &i)
		same(t, "Labels", any(M{}), i.Config["Labels"])
	}},
	{Name: "a create is told by an event with image, name and labels", On: dockers, check: func(t *T) {
		m := t.told(t.create("web", "exit 0", M{"Labels": M{"own": "1"}}), "create")[0]
		same(t, "the attributes", map[string]string{"image": t.f.Image, "name": t.name("web"), "own": "1"}, m.Actor.Attributes)
	}},
	{Name: "the beginning of two IDs names neither", On: dockers, check: func(t *T) {
		known := map[string]bool{}
		digit := t.create("", "exit 0")[:1]
		for !known[digit] {
			known[digit] = true
			digit = t.create("", "exit 0")[:1]
		}
		t.do("GET /containers/"+digit+"/json", nil).is(v20(500, "Multiple IDs found with provided prefix: "+digit), v29(400, "multiple IDs found with provided prefix: "+digit))
	}},
	{Name: "a rename changes the name and nothing else", check: func(t *T) {
		id := t.ready("web", "sleep 1h")
		t.do("POST /containers/"+id+"/rename?name="+t.name("other"), nil).is(all(204, ""))
		same(t, "Name", "/"+t.name("other"), t.inspect(id).Name)
		same(t, "the ID of the new name", id, t.inspect(t.name("other")).ID)
		same(t, "the status of the old name", 404, t.do("GET /containers/"+t.name("web")+"/json", nil).status)
		same(t, "Status", "running", t.inspect(id).State.Status)
	}},
	{Name: "a rename is told by an event with the old name", On: dockers, check: func(t *T) {
		id := t.create("web", "exit 0")
		t.do("POST /containers/"+id+"/rename?name="+t.name("other"), nil).ok(204)
		list := t.told(id, "rename")
		same(t, "oldName", "/"+t.name("web"), list[len(list)-1].Actor.Attributes["oldName"])
		same(t, "name", t.name("other"), list[len(list)-1].Actor.Attributes["name"])
	}},
	{Name: "a rename of an unknown container is 404", check: func(t *T) {
		t.do("POST /containers/nosuch/rename?name="+t.name("other"), nil).is(docker(404, "No such container: nosuch"), podman(404, `no container with name or ID "nosuch" found: no such container`))
	}},
	{Name: "a rename to a name that is taken is refused", On: dockers, check: func(t *T) {
		holder := t.create("other", "exit 0")
		t.do("POST /containers/"+t.create("web", "exit 0")+"/rename?name="+t.name("other"), nil).is(all(409,
			`Error when allocating new name: Conflict. The container name "/`+t.name("other")+`" is already in use by container "`+holder+
				`". You have to remove (or rename) that container to be able to reuse that name.`))
	}},
	{Name: "a rename to the same name is refused", On: dockers, check: func(t *T) {
		t.do("POST /containers/"+t.create("web", "exit 0")+"/rename?name="+t.name("web"), nil).is(all(400, "Renaming a container with the same name as its current name"))
	}},
	{Name: "a rename to no name is refused", On: dockers, check: func(t *T) {
		t.do("POST /containers/"+t.create("web", "exit 0")+"/rename?name=", nil).is(all(400, "Neither old nor new names may be empty"))
	}},
	{Name: "a rename to what is no name is refused", On: dockers, check: func(t *T) {
		t.do("POST /containers/"+t.create("web", "exit 0")+"/rename?name=a+b", nil).is(all(400,
			"Error when allocating new name: Invalid container name (/a b), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"))
	}},
}

// refusedCreate is the statement that a create is refused.
func refusedCreate(name string, body func(*T) M, want ...words) Statement {
	return Statement{Name: "a create is refused: " + name, On: dockers, check: func(t *T) {
		t.tryCreate("web", "", body(t)).is(want...)
		same(t, "the status of an inspect", 404, t.do("GET /containers/"+t.name("web")+"/json", nil).status)
	}}
}

// with is fields that need nothing of the check.
func with(fields M) func(*T) M { return func(*T) M { return fields } }

var refusedCreates = []Statement{
	{Name: "a name that is taken is refused with its holder", check: func(t *T) {
		holder := t.create("web", "exit 0")
		t.tryCreate("web", "exit 0").is(
			docker(409, `Conflict. The container name "/`+t.name("web")+`" is already in use by container "`+holder+`". You have to remove (or rename) that container to be able to reuse that name.`),
			podman(500, `container create: creating container storage: the container name "`+t.name("web")+`" is already in use by `+holder+`. You have to remove that container to be able to reuse that name: that name is already in use`))
	}},
	{Name: "a create is refused: what is no name", On: dockers, check: func(t *T) {
		t.do("POST /containers/create?name=a+b", M{"Image": t.f.Image}).is(all(400, "Invalid container name (a b), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"))
	}},
	{Name: "a create is refused: a name of one letter", On: dockers, check: func(t *T) {
		t.do("POST /containers/create?name=x", M{"Image": t.f.Image}).is(all(400, "Invalid container name (x), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"))
	}},
	{Name: "an image that is not on the engine is 404", check: func(t *T) {
		t.do("POST /containers/create", M{"Image": "conformance/nosuch:1"}).is(docker(404, "No such image: conformance/nosuch:1"), podman(404, "no such image: docker.io/conformance/nosuch:1: image not known"))
	}},
	{Name: "an image without a tag means latest", On: dockers, check: func(t *T) {
		t.do("POST /containers/create", M{"Image": "conformance/nosuch"}).is(all(404, "No such image: conformance/nosuch:latest"))
	}},
	{Name: "an image of another platform is 404", On: dockers, check: func(t *T) {
		own := t.image(t.f.Image)
		t.do("POST /containers/create?name="+t.name("web")+"&platform=linux/s390x", M{"Image": t.f.Image}).is(
			v20(404, "image with reference "+t.f.Image+" was found but does not match the specified platform: wanted linux/s390x, actual: linux/"+own.Architecture),
			v29(404, "image with reference "+t.f.Image+" was found but does not provide the specified platform (linux/s390x)"))
	}},
	{Name: "a create is refused: no configuration", On: dockers, check: func(t *T) {
		t.do("POST /containers/create", "null").is(
			v20(400, "Config cannot be empty in order to create a container"), v29(400, "config cannot be empty in order to create a container"))
	}},
	{Name: "a create is refused: a body that is no JSON", On: dockers, check: func(t *T) {
		t.do("POST /containers/create", "{").is(v20(500, "unexpected EOF"), v29(400, "invalid JSON: unexpected EOF"))
	}},
	{Name: "a create is refused: no image", On: dockers, check: func(t *T) {
		t.do("POST /containers/create", "{}").is(
			v20(400, "Config cannot be empty in order to create a container"), v29(400, "config cannot be empty in order to create a container"))
	}},
	refusedCreate("a mount of no type", with(host(M{"Mounts": []M{{"Target": "/x", "Type": "nosuch"}}})), all(400, `invalid mount config for type "nosuch": mount type unknown`)),
	refusedCreate("a mount without a target", with(host(M{"Mounts": []M{{"Type": "volume"}}})), all(400, `invalid mount config for type "volume": field Target must not be empty`)),
	refusedCreate("a bind mount without a source", with(host(M{"Mounts": []M{{"Target": "/x", "Type": "bind"}}})), all(400, `invalid mount config for type "bind": field Source must not be empty`)),
	refusedCreate("a tmpfs with a source", with(host(M{"Mounts": []M{{"Target": "/x", "Source": "/y", "Type": "tmpfs"}}})), all(400, `invalid mount config for type "tmpfs": field Source must not be specified`)),
	refusedCreate("a mount at the root", with(host(M{"Mounts": []M{{"Target": "/", "Type": "tmpfs"}}})), all(400, `invalid mount config for type "tmpfs": invalid specification: destination can't be '/'`)),
	refusedCreate("two mounts at one target", with(host(M{"Mounts": []M{{"Target": "/x", "Type": "tmpfs"}, {"Target": "/x", "Type": "tmpfs"}}})), all(400, "Duplicate mount point: /x")),
	refusedCreate("a bind that is none", with(host(M{"Binds": []string{"/x:/y:/z:rw"}})), all(500, "invalid volume specification: '/x:/y:/z:rw'")),
	refusedCreate("a bind at a path that is relative", with(host(M{"Binds": []string{"/x:y"}})), all(500, "invalid volume specification: '/x:y': invalid mount config for type \"bind\": invalid mount path: 'y' mount path must be absolute")),
	refusedCreate("a bind with a mode that is none", with(host(M{"Binds": []string{"/x:/y:nosuch"}})), all(500, "invalid mode: nosuch")),
	refusedCreate("a log driver that is not there", with(host(M{"LogConfig": M{"Type": "nosuch"}})), all(400, `error looking up logging plugin nosuch: plugin "nosuch" not found`)),
	refusedCreate("an option that the log driver does not know", with(host(M{"LogConfig": M{"Type": "json-file", "Config": M{"nosuch": "1"}}})), all(400, "unknown log opt 'nosuch' for json-file log driver")),
	refusedCreate("a removal at the end, with a restart policy", with(host(M{"AutoRemove": true, "RestartPolicy": M{"Name": "always"}})), all(400, "can't create 'AutoRemove' container with restart policy")),
	refusedCreate("a restart policy that is none", with(host(M{"RestartPolicy": M{"Name": "nosuch"}})),
		v20(400, "invalid restart policy 'nosuch'"), v29(400, "invalid restart policy: unknown policy 'nosuch'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'")),
	refusedCreate("a number of restarts without on-failure", with(host(M{"RestartPolicy": M{"Name": "always", "MaximumRetryCount": 3}})),
		v20(400, "maximum retry count cannot be used with restart policy 'always'"), v29(400, "invalid restart policy: maximum retry count can only be used with 'on-failure'")),
	refusedCreate("a negative number of restarts", with(host(M{"RestartPolicy": M{"Name": "on-failure", "MaximumRetryCount": -1}})),
		v20(400, "maximum retry count cannot be negative"), v29(400, "invalid restart policy: maximum retry count cannot be negative")),
	refusedCreate("a stop signal that is none", with(M{"StopSignal": "nosuch"}), v20(400, "Invalid signal: nosuch"), v29(400, "invalid signal: nosuch")),
	refusedCreate("a health check that is too frequent", with(M{"Healthcheck": M{"Test": []string{"CMD", "/x"}, "Interval": 1000}}), all(400, "Interval in Healthcheck cannot be less than 1ms")),
	refusedCreate("a health check of negative retries", with(M{"Healthcheck": M{"Test": []string{"CMD", "/x"}, "Retries": -1}}), all(400, "Retries in Healthcheck cannot be negative")),
	refusedCreate("less memory than an engine needs", with(host(M{"Memory": 1 << 20})), v20(400, "Minimum memory limit allowed is 6MB"), v29(400, "Minimum memory limit allowed is 6MB")),
	{Name: "a create is refused: a driver of volumes that is not there", On: dockers, check: func(t *T) { // engines look for it for 15 seconds
		t.tryCreate("web", "", host(M{"Mounts": []M{{"Target": "/x", "Source": t.name("data"), "Type": "volume", "VolumeOptions": M{"DriverConfig": M{"Name": "nosuch"}}}}})).is(
			all(404, "create "+t.name("data")+`: error looking up volume plugin nosuch: plugin "nosuch" not found`))
	}},
	{Name: "a create is refused: more cores than there are", On: dockers, check: func(t *T) {
		cores := t.info().NCPU
		t.tryCreate("web", "", host(M{"NanoCpus": int64(cores+1) * 1e9})).is(
			v20(400, fmt.Sprintf("Range of CPUs is from 0.01 to %d.00, as there are only %d CPUs available", cores, cores)),
			v29(400, fmt.Sprintf("range of CPUs is from 0.01 to %d.00, as there are only %d CPUs available", cores, cores)))
	}},
	{Name: "several networks at a create are refused below API 1.44", On: dockers, check: func(t *T) {
		path := "POST /containers/create"
		if t.v == DockerV29 {
			path = "POST bare:/v1.43/containers/create"
		}
		a := t.do(path, M{"Image": t.f.Image, "NetworkingConfig": M{"EndpointsConfig": M{"a": M{}, "b": M{}}}})
		a.body = bytes.Replace(a.body, []byte("b, a"), []byte("a, b"), 1) // 20.10 has them in any order
		a.is(v20(400, "Container cannot be connected to network endpoints: a, b"),
			v29(400, "Container cannot be created with multiple network endpoints: a, b"))
	}},
	{Name: "bridge among the networks of a create without a mode is refused by Podman", On: podmans, check: func(t *T) {
		t.tryCreate("web", "", M{"NetworkingConfig": M{"EndpointsConfig": M{"bridge": M{}}}}).is(podman(500, "container create: unable to find network with name or ID bridge: network not found"))
	}},
}
