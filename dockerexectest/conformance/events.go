package conformance

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/docker/docker/api/types/events"
)

var eventStatements = []Statement{
	{Name: "the events of a life that ends by itself", check: func(t *T) {
		id := t.ended("web", "exit 3")
		t.do("DELETE /containers/"+id, nil).ok(204)
		same(t, "the events", by(t, []string{"create", "start", "die", "destroy"}, []string{"create", "start", "die", "destroy"},
			[]string{"create", "init", "start", "die", "remove"}), t.actions(id, by(t, "destroy", "destroy", "remove")))
	}},
	{Name: "the events of a stop", check: func(t *T) {
		id := t.ready("web", "sleep 1h")
		t.do("POST /containers/"+id+"/stop?t=20", nil).ok(204)
		same(t, "the events", by(t, []string{"create", "start", "kill", "stop", "die"}, []string{"create", "start", "kill", "die", "stop"},
			[]string{"create", "init", "start", "die"}), t.actionsOfStop(id, by(t, "die", "stop", "die")))
	}},
	{Name: "the events of a kill", check: func(t *T) {
		id := t.ready("web", "sleep 1h")
		t.do("POST /containers/"+id+"/kill", nil).ok(204)
		list := t.told(id, "die")
		docker := []string{"create", "start", "kill", "die"}
		same(t, "the events", by(t, docker, docker, []string{"create", "init", "start", "kill", "die"}), actionsOf(list))
		same(t, "the signal", by(t, "9", "9", ""), list[len(list)-2].Actor.Attributes["signal"])
		same(t, "the code", "137", list[len(list)-1].Actor.Attributes["exitCode"])
	}},
	{Name: "the events of a restart", On: dockers, check: func(t *T) {
		id := t.ready("web", "sleep 1h")
		t.do("POST /containers/"+id+"/restart?t=20", nil).ok(204)
		same(t, "the events", by(t, []string{"create", "start", "kill", "stop", "die", "start", "restart"},
			[]string{"create", "start", "kill", "die", "stop", "start", "restart"}, nil), t.actionsOfStop(id, "restart"))
	}},
	{Name: "the event of an end has the code, and 29 the seconds", On: dockers, check: func(t *T) {
		id := t.ended("web", "exit 3", M{"Labels": M{"own": "1"}})
		list := t.told(id, "die")
		got := list[len(list)-1].Actor.Attributes
		same(t, "execDuration is a number", t.v == DockerV29, regexp.MustCompile("^[0-9]+$").MatchString(got["execDuration"]))
		delete(got, "execDuration")
		same(t, "the others", map[string]string{"exitCode": "3", "image": t.f.Image, "name": t.name("web"), "own": "1"}, got)
	}},
	{Name: "29 tells how many seconds a run took", On: only29, check: func(t *T) {
		list := t.told(t.ended("web", "sleep 300ms"), "die")
		took, err := strconv.Atoi(list[len(list)-1].Actor.Attributes["execDuration"])
		t.must(err)
		same(t, "it is less than a minute", true, took < 60)
		list = t.told(t.ended("long", "sleep 2s"), "die")
		same(t, "it is not 0 after two seconds", true, list[len(list)-1].Actor.Attributes["execDuration"] != "0")
	}},
	{Name: "a label overrides an attribute of its name", On: dockers, check: func(t *T) {
		list := t.told(t.ended("web", "exit 3", M{"Labels": M{"exitCode": "99"}}), "die")
		same(t, "exitCode", "99", list[len(list)-1].Actor.Attributes["exitCode"])
	}},
	{Name: "a label does not override name and image", On: dockers, check: func(t *T) {
		m := t.told(t.create("web", "exit 3", M{"Labels": M{"name": "other", "image": "other"}}), "create")[0]
		same(t, "name", t.name("web"), m.Actor.Attributes["name"])
		same(t, "image", t.f.Image, m.Actor.Attributes["image"])
	}},
	{Name: "an event has the fields of older clients too", On: dockers, check: func(t *T) {
		id := t.create("web", "exit 3")
		t.told(id, "create")
		a := t.do("GET /events?since="+stamp(t.began)+"&until="+stamp(time.Now().Add(5*time.Millisecond))+"&"+filters("container", id), nil)
		var m M
		a.ok(200, &m)
		same(t, "id", any(id), m["id"])
		same(t, "status", any("create"), m["status"])
		same(t, "from", any(t.f.Image), m["from"])
		same(t, "scope", any("local"), m["scope"])
		same(t, "time", any(float64(int64(m["timeNano"].(float64))/1e9)), m["time"])
	}},
	{Name: "the events of a container come in the order of their times", check: func(t *T) {
		// An engine takes the time of an event before it stores it, so those of two containers may change places.
		last := int64(0)
		for i, m := range t.told(t.ended("web", "exit 0"), "die") {
			same(t, fmt.Sprintf("event %d is not before the last one", i), true, m.TimeNano >= last)
			last = m.TimeNano
		}
	}},
	{Name: "29 rounds the times of events below API 1.52 to what a float of 64 bits holds, 20.10 does not", On: dockers, check: func(t *T) {
		id := t.create("web", "exit 0")
		for i := range 9 {
			t.do("POST /containers/"+id+"/rename?name="+t.name(fmt.Sprint(i)), nil).ok(204)
		}
		t.told(id, "rename")
		exact := 0
		for _, m := range t.events(filters("container", id)) {
			if strconv.FormatFloat(float64(m.TimeNano), 'f', -1, 64) != strconv.FormatInt(m.TimeNano, 10) {
				exact++
			}
		}
		same(t, "some are exact", t.v == DockerV20, exact > 0)
	}},
	{Name: "since is inclusive for events, to the nanosecond", On: only20, check: func(t *T) {
		id := t.ended("web", "exit 0")
		at := t.told(id, "die")[1]
		of := filters("container", id)
		same(t, "at the start", []string{"start", "die"}, actionsOf(t.eventsSince(time.Unix(0, at.TimeNano), of)))
		same(t, "just after it", []string{"die"}, actionsOf(t.eventsSince(time.Unix(0, at.TimeNano+1), of)))
	}},
	{Name: "since is inclusive for events of 29, as far as their times are told", On: only29, check: func(t *T) {
		id := t.ended("web", "exit 0")
		at := t.told(id, "die")[1]
		of := filters("container", id)
		same(t, "a rounding before the start", []string{"start", "die"}, actionsOf(t.eventsSince(time.Unix(0, at.TimeNano-256), of)))
		same(t, "a rounding after it", []string{"die"}, actionsOf(t.eventsSince(time.Unix(0, at.TimeNano+256), of)))
	}},
	{Name: "until is inclusive for events", On: only20, check: func(t *T) {
		id := t.ended("web", "exit 0")
		at := t.told(id, "die")[1]
		between := func(until int64) []string {
			return actionsOf(t.readEvents("since=" + stamp(t.began) + "&until=" + stamp(time.Unix(0, until)) + "&" + filters("container", id)))
		}
		same(t, "at the start", []string{"create", "start"}, between(at.TimeNano))
		same(t, "just before it", []string{"create"}, between(at.TimeNano-1))
	}},
	{Name: "a request that is not to stream has the past alone", On: podmans, check: func(t *T) {
		id := t.create("web", "exit 3")
		same(t, "the events", []string{"create"}, actionsOf(t.readEvents("stream=false&since="+stamp(t.began)+"&"+filters("container", id))))
	}},
	{Name: "until alone has what was before it", On: dockers, check: func(t *T) {
		id := t.ended("web", "exit 0")
		t.told(id, "die")
		same(t, "the events", []string{"create", "start", "die"}, actionsOf(t.readEvents("until="+stamp(time.Now().Add(5*time.Millisecond))+"&"+filters("container", id))))
	}},
	{Name: "a stream without since has nothing of before", On: dockers, check: func(t *T) {
		id := t.ended("web", "exit 0")
		t.told(id, "die")
		s := t.follow("GET /events?" + filters("container", id))
		t.until("the next event", func() bool {
			t.do("POST /containers/"+id+"/rename?name="+t.name("a"), nil)
			t.do("POST /containers/"+id+"/rename?name="+t.name("b"), nil)
			return len(s.lines) > 0
		})
		same(t, "the event", events.Action("rename"), s.event().Action)
	}},
	{Name: "a stream has what happens after its answer", check: func(t *T) {
		s := t.follow("GET /events?since=" + stamp(t.began) + "&" + filters("type", "container"))
		id := t.ended("web", "exit 3")
		for _, want := range []events.Action{"create", "start", "die"} {
			m := s.event()
			for m.Actor.ID != id || m.Action == "init" {
				m = s.event()
			}
			same(t, "the event", want, m.Action)
		}
	}},
	{Name: "a stream with an until to come ends then", On: dockers, check: func(t *T) {
		began := time.Now()
		s := t.follow("GET /events?until=" + stamp(began.Add(500*time.Millisecond)) + "&" + filters("container", "nosuch"))
		same(t, "the end", "", s.next())
		same(t, "it took half a second", true, time.Since(began) >= 490*time.Millisecond)
	}},
	{Name: "the filter by container takes a name or an ID", On: dockers, check: func(t *T) {
		id := t.create("web", "exit 0")
		t.create("other", "exit 0")
		t.told(id, "create")
		same(t, "the name", []string{"create"}, actionsOf(t.events(filters("container", t.name("web")))))
		same(t, "the ID", []string{"create"}, actionsOf(t.events(filters("container", id))))
		same(t, "the ID's beginning", []string{"create"}, actionsOf(t.events(filters("container", id[:12]))))
	}},
	{Name: "the filter by event takes several", On: dockers, check: func(t *T) {
		id := t.ended("web", "exit 0")
		t.told(id, "die")
		same(t, "the events", []string{"create", "die"}, actionsOf(t.events(filters("container", id, "event", "create", "event", "die"))))
	}},
	{Name: "Podman's filter by event knows died, and tells die", On: podmans, check: func(t *T) {
		died := t.follow("GET /events?" + filters("event", "died", "label", t.name("own")+"="))
		die := t.follow("GET /events?" + filters("event", "die", "label", t.name("own")+"="))
		t.ended("web", "sleep 100ms", M{"Labels": M{t.name("own"): ""}})
		same(t, "died", events.Action("die"), died.event().Action)
		die.isQuiet()
	}},
	{Name: "the filter by label takes a name, or a name and a value, of events", On: dockers, check: func(t *T) {
		t.told(t.create("web", "exit 0", M{"Labels": M{t.name("own"): "", t.name("two"): "2"}}), "create")
		for _, label := range []string{t.name("own"), t.name("own") + "=", t.name("two") + "=2"} {
			same(t, label, []string{"create"}, actionsOf(t.events(filters("type", "container", "label", label))))
		}
		same(t, "another value", []string(nil), actionsOf(t.events(filters("type", "container", "label", t.name("two")+"=3"))))
	}},
	{Name: "Podman's filter by label wants a value, which may be empty", On: podmans, check: func(t *T) {
		value := t.follow("GET /events?" + filters("label", t.name("own")+"="))
		name := t.follow("GET /events?" + filters("label", t.name("own")))
		t.create("web", "exit 0", M{"Labels": M{t.name("own"): ""}})
		same(t, "the value", events.Action("create"), value.event().Action)
		name.isQuiet()
	}},
	{Name: "the filter by type takes those of one kind", On: dockers, check: func(t *T) {
		t.volume("data")
		t.told(t.create("web", "exit 0"), "create")
		seen := map[events.Type]bool{}
		for _, m := range t.events(filters("type", "volume")) {
			seen[m.Type] = true
		}
		same(t, "the types", map[events.Type]bool{"volume": true}, seen)
	}},
	{Name: "the filter by health takes any status", On: dockers, check: func(t *T) {
		id := t.run("web", "sleep 1h", check(probe(isNotThere), 300, 1))
		t.told(id, "health_status: unhealthy")
		same(t, "the events", []string{"health_status: unhealthy"}, actionsOf(t.events(filters("container", id, "event", "health_status"))))
	}},
	{Name: "the filter by exec_create and exec_start takes any command", On: dockers, check: func(t *T) {
		id := t.run("web", "sleep 1h", check(probe(isNotThere), 300, 1))
		t.told(id, "health_status: unhealthy")
		list := actionsOf(t.events(filters("container", id, "event", "exec_create", "event", "exec_start")))
		same(t, "the events", []string{"exec_create: /testtask health /nosuch", "exec_start: /testtask health /nosuch"}, list[:2])
	}},
	{Name: "the filters by network and volume take a name or an ID", On: dockers, check: func(t *T) {
		n := t.network("net", nil)
		t.network("other", nil)
		t.volume("data")
		t.volume("more")
		t.told(t.name("more"), "create")
		same(t, "the network's name", []string{"create"}, actionsOf(t.events(filters("type", "network", "network", t.name("net")))))
		same(t, "the network's ID", []string{"create"}, actionsOf(t.events(filters("type", "network", "network", n))))
		same(t, "the volume's name", []string{"create"}, actionsOf(t.events(filters("type", "volume", "volume", t.name("data")))))
		same(t, "nobody's service", []string(nil), actionsOf(t.events(filters("service", t.name("nosuch")))))
	}},
	{Name: "events of an engine alone are of its own scope", On: dockers, check: func(t *T) {
		id := t.create("web", "exit 0")
		t.told(id, "create")
		same(t, "local", []string{"create"}, actionsOf(t.events(filters("container", id, "scope", "local"))))
		same(t, "swarm", []string(nil), actionsOf(t.events(filters("container", id, "scope", "swarm"))))
	}},
	{Name: "the filter of events by image takes its repository", On: dockers, check: func(t *T) {
		t.told(t.create("web", "exit 0"), "create")
		found := false
		for _, m := range t.events(filters("image", repositoryOf(t.f.Image))) {
			found = found || m.Actor.Attributes["name"] == t.name("web")
		}
		same(t, "it is found", true, found)
	}},
	{Name: "the filter of events by image takes its reference", On: dockers, check: func(t *T) {
		t.told(t.create("web", "exit 0"), "create")
		found := false
		for _, m := range t.events(filters("image", t.f.Image)) {
			found = found || m.Actor.Attributes["name"] == t.name("web")
		}
		same(t, "it is found", true, found)
	}},
	{Name: "a since after the until is refused", On: dockers, check: func(t *T) {
		t.do("GET /events?since=200&until=100", nil).is(all(400, "`since` time (200) cannot be after `until` time (100)"))
	}},
	{Name: "a since of events that is no time is refused", On: dockers, check: func(t *T) {
		t.do("GET /events?since=soon", nil).is(
			v20(500, `strconv.ParseInt: parsing "soon": invalid syntax`), v29(400, `invalid value for 'since': invalid timestamp "soon": invalid seconds "soon": invalid syntax`))
	}},
	{Name: "a filter of events that is none lets all through", On: dockers, check: func(t *T) {
		id := t.create("web", "exit 0")
		t.told(id, "create")
		same(t, "the events", []string{"create"}, actionsOf(t.events(filters("container", id, "nosuch", "1"))))
	}},
	{Name: "filters of events that are no JSON are refused", On: dockers, check: func(t *T) {
		t.do("GET /events?filters=nosuch", nil).is(v20(500, "invalid character 'o' in literal null (expecting 'u')"), v29(400, "invalid filter"))
	}},
	{Name: "an engine keeps 256 events, of all kinds", On: dockers, Alone: true, check: func(t *T) {
		first := t.create("web", "exit 0")
		t.told(first, "create")
		for i := range 300 {
			t.do("POST /containers/"+first+"/rename?name="+t.name(fmt.Sprint(i)), nil).ok(204)
		}
		list := t.readEvents("since=0&until=" + stamp(time.Now().Add(50*time.Millisecond)))
		same(t, "the events", 256, len(list))
		same(t, "the last one", t.name("299"), list[255].Actor.Attributes["name"])
		same(t, "the first one", t.name("44"), list[0].Actor.Attributes["name"])
	}},
	{Name: "what a start cannot do is told by no start", On: dockers, check: func(t *T) {
		id := t.create("web", "", M{"Entrypoint": []string{"/nosuch"}})
		t.do("POST /containers/"+id+"/start", nil).ok(400)
		t.do("DELETE /containers/"+id, nil).ok(204)
		same(t, "the events", by(t, []string{"create", "destroy"}, []string{"create", "destroy"}, nil), t.actions(id, "destroy"))
	}},
	{Name: "the networks of a start and an end are told", On: dockers, check: func(t *T) {
		id := t.ended("web", "exit 3")
		t.told(id, "die")
		same(t, "the events", by(t, "container create, network connect, container start, network disconnect, container die",
			"container create, network connect, container start, container die, network disconnect", ""), t.allOf(id, 5))
	}},
	{Name: "the networks of a start that fails are told", On: dockers, check: func(t *T) {
		id := t.create("web", "", M{"Entrypoint": []string{"/nosuch"}})
		t.do("POST /containers/"+id+"/start", nil).ok(400)
		same(t, "the events", by(t, "container create, network disconnect", "container create, network connect, network disconnect", ""), t.allOf(id, by(t, 2, 3, 0)))
	}},
}

// allOf are the events of a container, its networks and volumes, once there are so many.
func (t *T) allOf(id string, n int) string {
	t.Helper()
	var list []string
	t.until(fmt.Sprint(n, " events"), func() bool {
		list = nil
		for _, m := range t.events("") {
			if m.Actor.ID == id || m.Actor.Attributes["container"] == id {
				list = append(list, string(m.Type)+" "+string(m.Action))
			}
		}
		return len(list) >= n
	})
	return strings.Join(list, ", ")
}
