package conformance

import (
	"strings"
	"time"

	"github.com/docker/docker/api/types/events"
)

var pauseStatements = []Statement{
	{Name: "a paused container says so, and runs", check: func(t *T) {
		id := t.ready("web", "sleep 1h")
		t.pause(id).is(all(204, ""))
		s := t.inspect(id).State
		same(t, "Status", "paused", s.Status)
		same(t, "Paused", true, s.Paused)
		same(t, "Running", true, s.Running)
	}},
	{Name: "an unpaused container runs on", check: func(t *T) {
		id := t.ready("web", "sleep 1h")
		t.pause(id)
		t.do("POST /containers/"+id+"/unpause", nil).is(all(204, ""))
		same(t, "Status", "running", t.inspect(id).State.Status)
	}},
	{Name: "a paused program does nothing until it runs on", On: dockers, check: func(t *T) {
		id := t.ready("web", "sleep 5s -- print 1")
		t.pause(id)
		t.ended("other", "sleep 6s")
		same(t, "the log", "ready\n", t.log(id, "stdout=1"))
		t.do("POST /containers/"+id+"/unpause", nil).ok(204)
		t.untilStatus(id, "exited")
		same(t, "the log then", "ready\nline 1\n", t.log(id, "stdout=1"))
	}},
	{Name: "pause and unpause are told by events", On: dockers, check: func(t *T) {
		id := t.ready("web", "sleep 1h")
		t.pause(id)
		t.do("POST /containers/"+id+"/unpause", nil).ok(204)
		same(t, "the events", []string{"create", "start", "pause", "unpause"}, t.actions(id, "unpause"))
	}},
	{Name: "a pause of a paused container is refused", On: dockers, check: func(t *T) {
		id := t.ready("web", "sleep 1h")
		t.pause(id)
		t.do("POST /containers/"+id+"/pause", nil).is(v20(409, "Container "+id+" is already paused"), v29(409, "container "+id+" is already paused"))
	}},
	{Name: "a pause of a container that does not run is refused", On: dockers, check: func(t *T) {
		id := t.create("web", "exit 0")
		t.do("POST /containers/"+id+"/pause", nil).is(v20(409, "Container "+id+" is not running"), v29(409, "container "+id+" is not running"))
	}},
	{Name: "an unpause of a container that is not paused is refused", On: dockers, check: func(t *T) {
		id := t.ready("web", "sleep 1h")
		t.do("POST /containers/"+id+"/unpause", nil).is(all(500, "Container "+id+" is not paused"))
	}},
	{Name: "a pause of an unknown container is 404", check: func(t *T) {
		t.do("POST /containers/nosuch/pause", nil).is(docker(404, "No such container: nosuch"), podman(404, `no container with name or ID "nosuch" found: no such container`))
	}},
	{Name: "an unpause of an unknown container is 404", check: func(t *T) {
		t.do("POST /containers/nosuch/unpause", nil).is(docker(404, "No such container: nosuch"), podman(404, `no container with name or ID "nosuch" found: no such container`))
	}},
	{Name: "a stop of a paused container ends it", On: dockers, check: func(t *T) {
		id := t.ready("web", "sleep 1h")
		t.pause(id)
		t.do("POST /containers/"+id+"/stop?t=20", nil).ok(204)
		same(t, "ExitCode", 0, t.inspect(id).State.ExitCode)
		same(t, "the events", by(t, []string{"create", "start", "pause", "kill", "unpause", "stop", "die"}, []string{"create", "start", "pause", "kill", "unpause", "die", "stop"}, nil),
			t.actionsOfStop(id, by(t, "die", "stop", "")))
	}},
	{Name: "a kill of a paused container ends it", On: dockers, check: func(t *T) {
		id := t.ready("web", "sleep 1h")
		t.pause(id)
		t.do("POST /containers/"+id+"/kill", nil).ok(204)
		t.untilStatus(id, "exited")
		same(t, "ExitCode", 137, t.inspect(id).State.ExitCode)
		same(t, "the events", []string{"create", "start", "pause", "kill", "die"}, t.actions(id, "die"))
	}},
}

var removeStatements = []Statement{
	{Name: "a removal is 204, and a second one is 404", check: func(t *T) {
		id := t.ended("web", "exit 0")
		t.do("DELETE /containers/"+id, nil).is(all(204, ""))
		t.do("DELETE /containers/"+id, nil).is(docker(404, "No such container: "+id), podman(404, `no container with name or ID "`+id+`" found: no such container`))
	}},
	{Name: "a removed container is known by no name", check: func(t *T) {
		t.do("DELETE /containers/"+t.create("web", "exit 0"), nil).ok(204)
		t.do("GET /containers/"+t.name("web")+"/json", nil).is(docker(404, "No such container: "+t.name("web")), podman(404, `no container with name or ID "`+t.name("web")+`" found: no such container`))
	}},
	{Name: "a removed container's name is free", check: func(t *T) {
		first := t.create("web", "exit 0")
		t.do("DELETE /containers/"+first, nil).ok(204)
		same(t, "the ID is another", true, t.create("web", "exit 0") != first)
	}},
	{Name: "a removal of a running container is refused", check: func(t *T) {
		id := t.ready("web", "sleep 1h")
		t.do("DELETE /containers/"+t.name("web"), nil).is(
			v20(409, "You cannot remove a running container "+id+". Stop the container before attempting removal or force remove"),
			v29(409, `cannot remove container "`+t.name("web")+`": container is running: stop the container before removing or force remove`),
			podman(500, "cannot remove container "+id+" as it is running - running or paused containers cannot be removed without force: container state improper"))
		same(t, "Status", "running", t.inspect(id).State.Status)
	}},
	{Name: "a removal of a paused container is refused", On: dockers, check: func(t *T) {
		id := t.ready("web", "sleep 1h")
		t.pause(id)
		t.do("DELETE /containers/"+t.name("web"), nil).is(
			v20(409, "You cannot remove a paused container "+id+". Unpause and then stop the container before attempting removal or force remove"),
			v29(409, `cannot remove container "`+t.name("web")+`": container is paused and must be unpaused first`))
	}},
	{Name: "a forced removal kills a running container", check: func(t *T) {
		id := t.ready("web", "sleep 1h")
		t.do("DELETE /containers/"+id+"?force=1", nil).is(all(204, ""))
		last := by(t, "destroy", "destroy", "remove")
		same(t, "the events", by(t, []string{"create", "start", "kill", "die", "destroy"}, []string{"create", "start", "kill", "die", "destroy"},
			[]string{"create", "init", "start", "die", "remove"}), t.actions(id, last))
	}},
	{Name: "a forced removal removes a paused container", On: dockers, check: func(t *T) {
		id := t.ready("web", "sleep 1h")
		t.pause(id)
		t.do("DELETE /containers/"+id+"?force=1", nil).ok(204)
		t.do("GET /containers/"+id+"/json", nil).ok(404)
	}},
	{Name: "a forced removal of an unknown container is 404", On: dockers, check: func(t *T) {
		t.do("DELETE /containers/nosuch?force=1", nil).is(all(404, "No such container: nosuch"))
	}},
	{Name: "a container that removes itself at its end is gone", On: dockers, check: func(t *T) {
		id := t.run("web", "exit 3", host(M{"AutoRemove": true}))
		t.until("its removal", func() bool { return t.do("GET /containers/"+id+"/json", nil).status == 404 })
		same(t, "the events", []string{"create", "start", "die", "destroy"}, t.actions(id, "destroy"))
	}},
	{Name: "a container that removes itself takes its volumes without a name along", On: dockers, check: func(t *T) {
		id := t.create("web", "exit 3", host(M{"AutoRemove": true, "Binds": []string{"/anonymous"}}))
		volume := t.anonymous(id)
		t.start(id)
		t.until("its removal", func() bool { return t.do("GET /containers/"+id+"/json", nil).status == 404 })
		t.until("the volume's removal", func() bool { return t.do("GET /volumes/"+volume, nil).status == 404 })
	}},
	{Name: "a removal whose client has left is carried out", check: func(t *T) {
		id := t.ready("web", "sleep 1h")
		t.leave("DELETE /containers/"+id+"?force=1", "").leaves()
		t.until("its removal", func() bool { return t.do("GET /containers/"+id+"/json", nil).status == 404 })
	}},
}

var waitStatements = []Statement{
	{Name: "a wait for an ended container answers its code", check: func(t *T) {
		id := t.ended("web", "exit 3")
		t.do("POST /containers/"+id+"/wait", nil).is(v20(200, `{"Error":null,"StatusCode":3}`), v29(200, `{"StatusCode":3}`), podman(200, `{"StatusCode":3,"Error":null}`))
	}},
	{Name: "a wait for a container that never ran answers 0", On: dockers, check: func(t *T) {
		t.do("POST /containers/"+t.create("web", "exit 3")+"/wait", nil).is(v20(200, `{"Error":null,"StatusCode":0}`), all(200, `{"StatusCode":0}`))
	}},
	{Name: "a wait for a running container answers at its end", check: func(t *T) {
		id := t.ready("web", "sleep 300ms")
		t.do("POST /containers/"+id+"/wait?condition=not-running", nil).ok(200)
		same(t, "Running", false, t.inspect(id).State.Running)
	}},
	{Name: "the headers of a wait come before the end", check: func(t *T) {
		id := t.ready("web", "sleep 1h")
		w := t.follow("POST /containers/" + id + "/wait")
		w.isQuiet()
		t.do("POST /containers/"+id+"/kill", nil).ok(204)
		same(t, "the answer", by(t, `{"StatusCode":137}`, `{"Error":null,"StatusCode":137}`, `{"StatusCode":137,"Error":null}`), w.next())
	}},
	{Name: "a wait for the next exit waits for one that has not begun", On: dockers, check: func(t *T) {
		id := t.ended("web", "exit 3")
		w := t.follow("POST /containers/" + id + "/wait?condition=next-exit")
		w.isQuiet()
		t.start(id)
		same(t, "the answer", by(t, `{"StatusCode":3}`, `{"Error":null,"StatusCode":3}`, ""), w.next())
	}},
	{Name: "a wait for the next exit of a running container answers at its end", On: dockers, check: func(t *T) {
		id := t.ready("web", "sleep 1h")
		w := t.follow("POST /containers/" + id + "/wait?condition=next-exit")
		w.isQuiet()
		t.do("POST /containers/"+id+"/kill", nil).ok(204)
		same(t, "the answer", by(t, `{"StatusCode":137}`, `{"Error":null,"StatusCode":137}`, ""), w.next())
	}},
	{Name: "a wait answers at the end of a run, also if there will be another", On: dockers, check: func(t *T) {
		id := t.run("web", "sleep 300ms -- exit 3", host(M{"RestartPolicy": M{"Name": "always"}}))
		t.do("POST /containers/"+id+"/wait", nil).is(v20(200, `{"Error":null,"StatusCode":3}`), v29(200, `{"StatusCode":3}`))
	}},
	{Name: "a wait between two runs answers when somebody stops the container", On: dockers, check: func(t *T) {
		id := t.betweenRuns("web")
		w := t.follow("POST /containers/" + id + "/wait")
		w.isQuiet()
		t.do("POST /containers/"+id+"/stop", nil).ok(204)
		same(t, "the answer", by(t, `{"StatusCode":3}`, `{"Error":null,"StatusCode":3}`, ""), w.next())
	}},
	{Name: "a wait for the removal of a container that removes itself answers with its code", On: dockers, check: func(t *T) {
		id := t.create("web", "exit 3", host(M{"AutoRemove": true}))
		w := t.follow("POST /containers/" + id + "/wait?condition=removed")
		t.start(id)
		same(t, "the answer", by(t, `{"StatusCode":3}`, `{"Error":null,"StatusCode":3}`, ""), w.next())
	}},
	{Name: "a wait for a removal answers with the code when the container is gone", On: dockers, check: func(t *T) {
		id := t.ended("web", "exit 3")
		w := t.follow("POST /containers/" + id + "/wait?condition=removed")
		w.isQuiet()
		t.do("DELETE /containers/"+id, nil).ok(204)
		same(t, "the answer", by(t, `{"StatusCode":3}`, `{"Error":null,"StatusCode":3}`, ""), w.next())
	}},
	{Name: "a wait with a condition that is none is refused by 29", On: dockers, check: func(t *T) {
		id := t.ended("web", "exit 3")
		t.do("POST /containers/"+id+"/wait?condition=nosuch", nil).is(v20(200, `{"Error":null,"StatusCode":3}`), v29(400, `invalid condition: "nosuch"`))
	}},
	{Name: "a wait for an unknown container is 404", check: func(t *T) {
		t.do("POST /containers/nosuch/wait", nil).is(docker(404, "No such container: nosuch"), podman(404, "no such container"))
	}},
}

var restartStatements = []Statement{
	{Name: "on-failure restarts so often and no more", On: dockers, check: func(t *T) {
		id := t.run("web", "exit 3", host(M{"RestartPolicy": M{"Name": "on-failure", "MaximumRetryCount": 2}}))
		t.until("the last end", func() bool { i := t.inspect(id); return i.RestartCount == 2 && i.State.Status == "exited" })
		same(t, "ExitCode", 3, t.inspect(id).State.ExitCode)
		starts := 0
		for _, m := range t.events("") {
			if m.Actor.ID == id && m.Action == "start" {
				starts++
			}
			same(t, "no restart is told", false, m.Actor.ID == id && m.Action == "restart")
		}
		same(t, "the starts", 3, starts)
	}},
	{Name: "a start by hand begins to count restarts anew", On: dockers, check: func(t *T) {
		id := t.run("web", "exit 3", host(M{"RestartPolicy": M{"Name": "on-failure", "MaximumRetryCount": 1}}))
		t.until("the last end", func() bool { i := t.inspect(id); return i.RestartCount == 1 && i.State.Status == "exited" })
		t.start(id)
		t.until("four starts", func() bool {
			return len(t.events(filters("container", id, "event", "start"))) == 4 && t.inspect(id).State.Status == "exited"
		})
		same(t, "RestartCount", 1, t.inspect(id).RestartCount)
	}},
	{Name: "on-failure does not restart what ended well", On: dockers, check: func(t *T) {
		id := t.ended("web", "exit 0", host(M{"RestartPolicy": M{"Name": "on-failure", "MaximumRetryCount": 2}}))
		same(t, "RestartCount", 0, t.inspect(id).RestartCount)
	}},
	{Name: "always restarts, until somebody stops it", On: dockers, check: func(t *T) {
		id := t.run("web", "exit 0", host(M{"RestartPolicy": M{"Name": "always"}}))
		t.until("two restarts", func() bool { return t.inspect(id).RestartCount >= 2 })
		t.do("POST /containers/"+id+"/stop", nil).ok(204)
		s := t.inspect(id).State
		same(t, "Restarting", false, s.Restarting)
		same(t, "Running", false, s.Running)
	}},
	{Name: "between two runs the status is restarting, and Running is true", On: dockers, check: func(t *T) {
		id := t.run("web", "exit 3", host(M{"RestartPolicy": M{"Name": "always"}}))
		t.until("a pause between two runs", func() bool {
			s := t.inspect(id).State
			return s.Status == "restarting" && s.Running && s.Restarting && s.ExitCode == 3
		})
	}},
	{Name: "between two runs a start is 304, and a pause and a removal are refused", On: dockers, check: func(t *T) {
		id := t.betweenRuns("web")
		t.do("POST /containers/"+id+"/start", nil).is(all(304, ""))
		t.do("POST /containers/"+id+"/pause", nil).is(all(409, "Container "+id+" is restarting, wait until the container is running"))
		t.do("DELETE /containers/"+t.name("web"), nil).is(v20(409, "You cannot remove a restarting container "+id+". Stop the container before attempting removal or force remove"),
			v29(409, `cannot remove container "`+t.name("web")+`": container is restarting: stop the container before removing or force remove`))
		same(t, "Status in the list", true, strings.HasPrefix(t.list("")[0].Status, "Restarting (3) "))
	}},
	{Name: "a kill between two runs ends the restarts", On: dockers, check: func(t *T) {
		id := t.betweenRuns("web")
		t.do("POST /containers/"+id+"/kill", nil).is(all(204, ""))
		t.untilStatus(id, "exited")
		same(t, "Running", false, t.inspect(id).State.Running)
	}},
	{Name: "a restart between two runs begins another run", On: dockers, check: func(t *T) {
		id := t.betweenRuns("web")
		t.do("POST /containers/"+id+"/restart", nil).is(all(204, ""))
		t.told(id, "restart")
	}},
	{Name: "a stop between two runs is told, and no end", On: dockers, check: func(t *T) {
		id := t.betweenRuns("web")
		t.do("POST /containers/"+id+"/stop", nil).is(all(204, ""))
		list := t.actions(id, "stop")
		same(t, "the end before it is that of the last run", []string{"start", "die", "stop"}, list[len(list)-3:])
		same(t, "Status", "exited", t.inspect(id).State.Status)
	}},
	{Name: "the pauses between restarts begin with 100 ms and double", On: dockers, check: func(t *T) {
		id := t.run("web", "exit 3", host(M{"RestartPolicy": M{"Name": "on-failure"}}))
		var starts []events.Message
		t.until("six starts", func() bool {
			starts = t.events(filters("container", id, "event", "start"))
			return len(starts) >= 6
		})
		took := time.Duration(starts[5].TimeNano - starts[0].TimeNano)
		same(t, "the pauses are not shorter", true, took > 3*time.Second) // 100 + 200 + 400 + 800 + 1600 ms
	}},
	{Name: "unless-stopped restarts what ends by itself", On: dockers, check: func(t *T) {
		id := t.run("web", "exit 0", host(M{"RestartPolicy": M{"Name": "unless-stopped"}}))
		t.until("a restart", func() bool { return t.inspect(id).RestartCount >= 1 })
	}},
	{Name: "what a kill ends is not restarted, what another signal ends is", On: dockers, check: func(t *T) {
		killed := t.ready("killed", "sleep 1h", host(M{"RestartPolicy": M{"Name": "always"}}))
		t.do("POST /containers/"+killed+"/kill", nil).ok(204)
		signalled := t.ready("signalled", "signal", host(M{"RestartPolicy": M{"Name": "always"}}), M{"StopSignal": "SIGTERM"})
		t.do("POST /containers/"+signalled+"/kill?signal=USR1", nil).ok(204)
		t.until("a restart", func() bool { return t.inspect(signalled).RestartCount >= 1 })
		t.untilStatus(killed, "exited")
		same(t, "RestartCount", 0, t.inspect(killed).RestartCount)
	}},
	{Name: "a forced removal ends the restarts", On: dockers, check: func(t *T) {
		id := t.run("web", "exit 3", host(M{"RestartPolicy": M{"Name": "always"}}))
		t.until("a restart", func() bool { return t.inspect(id).RestartCount >= 1 })
		t.do("DELETE /containers/"+id+"?force=1", nil).ok(204)
		t.do("GET /containers/"+id+"/json", nil).ok(404)
	}},
	{Name: "a restart of the engine forgets the events of before", Alone: true, needsRestart: true, check: func(t *T) {
		id := t.create("web", "exit 0")
		t.told(id, "create")
		t.f.Restart()
		for _, m := range t.events("") {
			same(t, "it is another's event", true, m.Actor.ID != id)
		}
	}},
	{Name: "a restart of the engine stops its containers, and starts those that are always to run", On: dockers, Alone: true, needsRestart: true, check: func(t *T) {
		plain := t.ready("plain", "sleep 1h")
		always := t.ready("always", "sleep 1h", host(M{"RestartPolicy": M{"Name": "always"}}))
		stopped := t.ready("stopped", "sleep 1h", host(M{"RestartPolicy": M{"Name": "unless-stopped"}}))
		t.do("POST /containers/"+stopped+"/stop", nil).ok(204)
		unless := t.ready("unless", "sleep 1h", host(M{"RestartPolicy": M{"Name": "unless-stopped"}}))
		removed := t.ready("removed", "sleep 1h", host(M{"AutoRemove": true}))
		before := t.inspect(always).State.StartedAt
		t.f.Restart()
		t.untilStatus(unless, "running")
		t.until("a removal", func() bool { return t.do("GET /containers/"+removed+"/json", nil).status == 404 })
		t.untilStatus(plain, "exited")
		same(t, "ExitCode", 0, t.inspect(plain).State.ExitCode)
		t.untilStatus(always, "running")
		same(t, "StartedAt is another", true, t.inspect(always).State.StartedAt != before)
		same(t, "the status of the stopped one", "exited", t.inspect(stopped).State.Status)
	}},
}

// betweenRuns makes a container that is always to run, and waits until it has ended
// and a pause of seconds is before its next run.
func (t *T) betweenRuns(name string) string {
	t.Helper()
	id := t.run(name, "exit 3", host(M{"RestartPolicy": M{"Name": "always"}}))
	t.until("a long pause between two runs", func() bool { i := t.inspect(id); return i.RestartCount >= 6 && i.State.Status == "restarting" })
	return id
}
