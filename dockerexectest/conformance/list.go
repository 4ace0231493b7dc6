package conformance

import (
	"slices"
	"strings"
	"time"

	"github.com/docker/docker/api/types/container"
)

var listStatements = []Statement{
	{Name: "a list has the running containers alone, unless all are asked for", check: func(t *T) {
		t.create("created", "exit 0")
		t.ready("running", "sleep 1h")
		t.ended("ended", "exit 0")
		same(t, "the running", []string{"running"}, t.listed(""))
		names := t.listed("all=1")
		if t.v == PodmanV4 { // has them in any order
			slices.Sort(names)
		}
		same(t, "all, the newest first", by(t, []string{"ended", "running", "created"}, []string{"ended", "running", "created"}, []string{"created", "ended", "running"}), names)
	}},
	{Name: "a paused container is in the list of the running, but not of Podman's", check: func(t *T) {
		t.pause(t.ready("web", "sleep 1h"))
		list := t.list("")
		same(t, "how many", by(t, 1, 1, 0), len(list))
		same(t, "the state", "paused", t.list("all=1")[0].State)
	}},
	{Name: "a list tells names, state, image and labels", check: func(t *T) {
		id := t.ready("web", "sleep 1h", M{"Labels": M{"own": "1"}})
		c := t.list("")[0]
		same(t, "ID", id, c.ID)
		same(t, "Names", []string{"/" + t.name("web")}, c.Names)
		same(t, "State", "running", c.State)
		same(t, "Image", t.f.Image, c.Image)
		same(t, "Command", by(t, "/testtask sleep 1h", "/testtask sleep 1h", "sleep 1h"), c.Command)
		same(t, "the label", "1", c.Labels["own"])
		same(t, "Status begins with Up", true, strings.HasPrefix(c.Status, "Up "))
	}},
	{Name: "what a container has not is empty in a list, and not null", On: dockers, check: func(t *T) {
		id := t.create("web", "exit 0")
		var list []M
		t.do("GET /containers/json?all=1&"+filters("id", id), nil).ok(200, &list)
		same(t, "Labels", any(M{}), list[0]["Labels"])
		same(t, "Ports", any([]any{}), list[0]["Ports"])
		same(t, "Mounts", any([]any{}), list[0]["Mounts"])
	}},
	{Name: "a list tells the code of an end", On: dockers, check: func(t *T) {
		t.ended("web", "exit 3")
		c := t.list("all=1")[0]
		same(t, "State", "exited", c.State)
		same(t, "Status", true, strings.HasPrefix(c.Status, "Exited (3) "))
	}},
	{Name: "a list tells networks, volumes, and when a container was made", On: dockers, check: func(t *T) {
		n := t.network("net", nil)
		t.volume("data")
		id := t.ready("web", "sleep 1h", host(M{"NetworkMode": t.name("net"), "Binds": []string{t.name("data") + ":/data"}}))
		c := t.list("")[0]
		same(t, "NetworkMode", t.name("net"), c.HostConfig.NetworkMode)
		same(t, "NetworkID", n, c.NetworkSettings.Networks[t.name("net")].NetworkID)
		same(t, "IPAddress", t.endpoint(id, "net").IPAddress, c.NetworkSettings.Networks[t.name("net")].IPAddress)
		same(t, "the volume", t.name("data"), c.Mounts[0].Name)
		same(t, "its place", "/data", c.Mounts[0].Destination)
		made, err := time.Parse(time.RFC3339Nano, t.inspect(id).Created)
		t.must(err)
		same(t, "Created", made.Unix(), c.Created)
		same(t, "ImageID", t.image(t.f.Image).ID, c.ImageID)
	}},
	{Name: "a list's status tells pauses and health", On: dockers, check: func(t *T) {
		id := t.run("web", "write /tmp/ok 1 -- sleep 1h", check(probe("/tmp/ok"), 5000, 30))
		same(t, "at first", true, strings.HasSuffix(t.list("")[0].Status, " (health: starting)"))
		t.untilHealth(id, "healthy")
		same(t, "then", true, strings.HasSuffix(t.list("")[0].Status, " (healthy)"))
		t.pause(id)
		same(t, "paused", true, strings.HasSuffix(t.list("")[0].Status, " (Paused)"))
	}},
	{Name: "a list says Created of what has not run", check: func(t *T) {
		t.create("web", "exit 0")
		same(t, "Status", "Created", t.list("all=1")[0].Status)
	}},
	{Name: "the filter by status needs no all", On: dockers, check: func(t *T) {
		t.create("created", "exit 0")
		t.ended("ended", "exit 3")
		same(t, "created", []string{"created"}, t.listed(filters("status", "created")))
		same(t, "exited", []string{"ended"}, t.listed(filters("status", "exited")))
		same(t, "either", []string{"ended", "created"}, t.listed(filters("status", "exited", "status", "created")))
	}},
	{Name: "the filter by exit code needs all", On: dockers, check: func(t *T) {
		t.ended("three", "exit 3")
		t.ended("four", "exit 4")
		same(t, "3", []string{"three"}, t.listed("all=1&"+filters("exited", "3")))
		same(t, "of the running", []string(nil), t.listed(filters("exited", "3")))
	}},
	{Name: "what has not run has no exit code for the filter", On: dockers, check: func(t *T) {
		t.create("created", "exit 0")
		t.ended("ended", "exit 0")
		same(t, "0", []string{"ended"}, t.listed("all=1&"+filters("exited", "0")))
	}},
	{Name: "no container is one of a swarm's tasks", On: dockers, check: func(t *T) {
		t.create("web", "exit 0")
		same(t, "tasks", []string(nil), t.listed("all=1&"+filters("is-task", "true")))
		same(t, "others", []string{"web"}, t.listed("all=1&"+filters("is-task", "false")))
	}},
	{Name: "the filter by label takes a name, or a name and a value", On: dockers, check: func(t *T) {
		t.create("a", "exit 0", M{"Labels": M{t.name("own"): "1"}})
		t.create("b", "exit 0", M{"Labels": M{t.name("own"): ""}})
		same(t, "the name", []string{"b", "a"}, t.listed("all=1&"+filters("label", t.name("own"))))
		same(t, "the value", []string{"a"}, t.listed("all=1&"+filters("label", t.name("own")+"=1")))
		same(t, "the empty value", []string{"b"}, t.listed("all=1&"+filters("label", t.name("own")+"=")))
		same(t, "several are all wanted", []string(nil), t.listed("all=1&"+filters("label", t.name("own")+"=1", "label", "nosuch")))
	}},
	{Name: "the filter by name takes a part of it, and an expression", On: dockers, check: func(t *T) {
		t.create("web", "exit 0")
		t.create("web2", "exit 0")
		same(t, "a part", []string{"web2", "web"}, t.listed("all=1&"+filters("name", t.name("we"))))
		same(t, "an expression", []string{"web"}, t.listed("all=1&"+filters("name", "^/"+t.name("web")+"$")))
		same(t, "one without the slash", []string{"web"}, t.listed("all=1&"+filters("name", "^"+t.name("web")+"$")))
	}},
	{Name: "the filter by ID takes its beginning", On: dockers, check: func(t *T) {
		id := t.create("web", "exit 0")
		same(t, "the list", []string{"web"}, t.listed("all=1&"+filters("id", id[:12])))
	}},
	{Name: "the filters by age take a container", On: dockers, check: func(t *T) {
		first := t.create("first", "exit 0")
		t.create("second", "exit 0")
		third := t.create("third", "exit 0")
		same(t, "since", []string{"third", "second"}, t.listed("all=1&"+filters("since", first)))
		same(t, "before", []string{"second", "first"}, t.listed("all=1&"+filters("before", third)))
	}},
	{Name: "the filter by age refuses an unknown container", On: dockers, check: func(t *T) {
		t.do("GET /containers/json?all=1&"+filters("since", "nosuch"), nil).is(v20(500, "no such container nosuch"), v29(404, "No such container: nosuch"))
	}},
	{Name: "the filter by network takes a name or an ID", On: dockers, check: func(t *T) {
		n := t.network("net", nil)
		t.create("web", "exit 0", host(M{"NetworkMode": t.name("net")}))
		t.create("other", "exit 0")
		same(t, "the name", []string{"web"}, t.listed("all=1&"+filters("network", t.name("net"))))
		t.start(t.name("web"))
		t.untilStatus(t.name("web"), "exited")
		same(t, "the ID", []string{"web"}, t.listed("all=1&"+filters("network", n)))
	}},
	{Name: "the filter by volume takes a name or a path", On: dockers, check: func(t *T) {
		t.volume("data")
		t.create("web", "exit 0", host(M{"Binds": []string{t.name("data") + ":/" + t.name("path")}}))
		t.create("other", "exit 0")
		same(t, "the name", []string{"web"}, t.listed("all=1&"+filters("volume", t.name("data"))))
		same(t, "the path", []string{"web"}, t.listed("all=1&"+filters("volume", "/"+t.name("path"))))
	}},
	{Name: "the filter by image takes its reference", On: dockers, check: func(t *T) {
		t.create("web", "exit 0")
		same(t, "it is in", true, contains(t.listed("all=1&"+filters("ancestor", t.f.Image)), "web"))
		same(t, "another", []string(nil), t.listed("all=1&"+filters("ancestor", "nosuch:1")))
	}},
	{Name: "the filter by image takes an ID", On: dockers, check: func(t *T) {
		t.create("web", "exit 0")
		id := t.image(t.f.Image).ID
		same(t, "the ID", []string{"web"}, t.listed("all=1&"+filters("ancestor", id)))
		same(t, "its beginning", []string{"web"}, t.listed("all=1&"+filters("ancestor", strings.TrimPrefix(id, "sha256:")[:12])))
	}},
	{Name: "the filter by health finds what has no check", On: dockers, check: func(t *T) {
		t.create("web", "exit 0")
		same(t, "none", []string{"web"}, t.listed("all=1&"+filters("health", "none")))
		same(t, "healthy", []string(nil), t.listed("all=1&"+filters("health", "healthy")))
	}},
	{Name: "a filter that is none is refused", On: dockers, check: func(t *T) {
		t.do("GET /containers/json?"+filters("nosuch", "1"), nil).is(v20(400, "Invalid filter 'nosuch'"), v29(400, "invalid filter 'nosuch'"))
	}},
	{Name: "a status that is none is refused", On: dockers, check: func(t *T) {
		t.do("GET /containers/json?"+filters("status", "nosuch"), nil).is(v20(400, "Invalid filter 'status=nosuch'"),
			v29(400, "invalid filter 'status=nosuch': invalid value for state (nosuch): must be one of created, running, paused, restarting, removing, exited, dead"))
	}},
	{Name: "filters that are no JSON are refused", On: dockers, check: func(t *T) {
		t.do("GET /containers/json?filters=nosuch", nil).is(v20(500, "invalid character 'o' in literal null (expecting 'u')"), v29(400, "invalid filter"))
	}},
	{Name: "a limit that is no number is refused", On: dockers, check: func(t *T) {
		t.do("GET /containers/json?limit=many", nil).is(v20(500, `strconv.Atoi: parsing "many": invalid syntax`), v29(400, `strconv.Atoi: parsing "many": invalid syntax`))
	}},
	{Name: "a limit takes the newest, whatever their state", Alone: true, On: dockers, check: func(t *T) {
		t.create("first", "exit 0")
		t.create("second", "exit 0")
		t.create("third", "exit 0")
		same(t, "two", []string{"third", "second"}, t.listed("limit=2"))
	}},
	{Name: "a list that finds nothing is an empty list", check: func(t *T) {
		t.do("GET /containers/json?"+filters("label", t.name("nosuch")+"=1"), nil).is(all(200, "[]"))
	}},
}

// list is a list of containers, as far as they are the check's.
func (t *T) list(query string) (own []container.Summary) {
	t.Helper()
	var list []container.Summary
	t.do("GET /containers/json?"+query, nil).ok(200, &list)
	for _, c := range list {
		if slices.ContainsFunc(c.Names, func(name string) bool { return strings.HasPrefix(name, "/"+t.prefix) }) {
			own = append(own, c)
		}
	}
	return own
}

// listed are the names of list, without what makes them the check's own.
func (t *T) listed(query string) (names []string) {
	t.Helper()
	for _, c := range t.list(query) {
		names = append(names, strings.TrimPrefix(c.Names[0], "/"+t.prefix))
	}
	return names
}
