package conformance

import (
	"fmt"
	"strings"
	"time"

	"github.com/docker/docker/api/types/container"
)

const (
	zeroTime = "0001-01-01T00:00:00Z"
	noShell  = `exec: "/nosuch": stat /nosuch: no such file or directory`
)

var startStatements = []Statement{
	{Name: "a start is 204 without a body", check: func(t *T) {
		t.do("POST /containers/"+t.create("web", "sleep 1h")+"/start", nil).is(all(204, ""))
	}},
	{Name: "a start of a running container is 304", check: func(t *T) {
		id := t.ready("web", "sleep 1h")
		began := t.inspect(id).State.StartedAt
		t.do("POST /containers/"+id+"/start", nil).is(all(304, ""))
		same(t, "StartedAt", began, t.inspect(id).State.StartedAt)
	}},
	{Name: "a start of an unknown container is 404", check: func(t *T) {
		t.do("POST /containers/nosuch/start", nil).is(docker(404, "No such container: nosuch"), podman(404, `no container with name or ID "nosuch" found: no such container`))
	}},
	{Name: "a start takes a name, an ID, and an ID's beginning", check: func(t *T) {
		id := t.create("web", "sleep 1h")
		t.do("POST /containers/"+t.name("web")+"/start", nil).ok(204)
		t.do("POST /containers/"+id+"/start", nil).ok(304)
		t.do("POST /containers/"+id[:12]+"/start", nil).ok(304)
	}},
	{Name: "a running container says so", check: func(t *T) {
		s := t.inspect(t.ready("web", "sleep 1h")).State
		same(t, "Status", "running", s.Status)
		same(t, "Running", true, s.Running)
		same(t, "Pid is given", true, s.Pid > 0)
		same(t, "ExitCode", 0, s.ExitCode)
		same(t, "StartedAt is given", true, s.StartedAt > "2000")
		same(t, "FinishedAt", zeroTime, s.FinishedAt)
	}},
	{Name: "an ended container keeps its exit code and its times", check: func(t *T) {
		s := t.inspect(t.ended("web", "sleep 50ms -- exit 3")).State // of one that ends at once, 20.10 may have the end before the start
		same(t, "Running", false, s.Running)
		same(t, "ExitCode", 3, s.ExitCode)
		same(t, "Pid", 0, s.Pid)
		same(t, "OOMKilled", false, s.OOMKilled)
		same(t, "Error", "", s.Error)
		began, err := time.Parse(time.RFC3339Nano, s.StartedAt)
		t.must(err)
		ended, err := time.Parse(time.RFC3339Nano, s.FinishedAt)
		t.must(err)
		same(t, "the end is after the start", true, !ended.Before(began))
	}},
	{Name: "an exit code of 255 stays 255", check: func(t *T) {
		same(t, "ExitCode", 255, t.inspect(t.ended("web", "exit 255")).State.ExitCode)
	}},
	{Name: "an ended container starts again, and forgets its code", check: func(t *T) {
		id := t.ended("web", "exit 3")
		first := t.inspect(id).State
		t.start(id)
		t.until("a second end", func() bool {
			s := t.inspect(id).State
			return s.Status == "exited" && s.FinishedAt != first.FinishedAt
		})
		same(t, "StartedAt is another", true, t.inspect(id).State.StartedAt != first.StartedAt)
		same(t, "the log", "", t.log(id, "stdout=1"))
	}},
	{Name: "while it runs again, the code is 0 and the end of before stays", On: dockers, check: func(t *T) {
		id := t.create("web", "sleep 1h")
		t.start(id)
		t.do("POST /containers/"+id+"/kill", nil).ok(204)
		t.untilStatus(id, "exited")
		ended := t.inspect(id).State
		same(t, "ExitCode", 137, ended.ExitCode)
		t.start(id)
		s := t.inspect(id).State
		same(t, "ExitCode", 0, s.ExitCode)
		same(t, "FinishedAt", ended.FinishedAt, s.FinishedAt)
	}},
	{Name: "a start of a paused container is refused", On: dockers, check: func(t *T) {
		id := t.ready("web", "sleep 1h")
		t.pause(id)
		t.do("POST /containers/"+id+"/start", nil).is(all(409, "cannot start a paused container, try unpause instead"))
	}},
	{Name: "a program that is not in the image does not start", On: dockers, check: func(t *T) {
		id := t.create("web", "", M{"Entrypoint": []string{"/nosuch"}})
		a := t.do("POST /containers/"+id+"/start", nil).ok(400)
		same(t, "the message names it", true, strings.Contains(string(a.body), `exec: \"/nosuch\": stat /nosuch: no such file or directory`))
	}},
	{Name: "a start that failed leaves a created container with 127 and the error", On: dockers, check: func(t *T) {
		id := t.create("web", "", M{"Entrypoint": []string{"/nosuch"}})
		t.do("POST /containers/"+id+"/start", nil).ok(400)
		s := t.inspect(id).State
		same(t, "Status", "created", s.Status)
		same(t, "ExitCode", 127, s.ExitCode)
		same(t, "StartedAt", zeroTime, s.StartedAt)
		same(t, "Error names it", true, strings.Contains(s.Error, noShell))
	}},
	{Name: "a start that failed may be sent again and fails again", On: dockers, check: func(t *T) {
		id := t.create("web", "", M{"Entrypoint": []string{"/nosuch"}})
		first := t.do("POST /containers/"+id+"/start", nil).ok(400)
		second := t.do("POST /containers/"+id+"/start", nil).ok(400)
		same(t, "the message", string(first.body), string(second.body))
	}},
	{Name: "a start whose client leaves at once is carried out", On: []Dialect{DockerV20, PodmanV4}, check: func(t *T) {
		id := t.create("web", "sleep 1h")
		t.leave("POST /containers/"+id+"/start", "").leaves()
		t.untilStatus(id, "running")
	}},
	{Name: "29 carries the start of a client that leaves out, or says that it gave up, and starts later", On: only29, check: func(t *T) {
		id := t.create("web", "sleep 1h")
		t.leave("POST /containers/"+id+"/start", "").leaves() // running engines give up in the first 20 ms
		var s *container.State
		t.until("a start, or an error", func() bool { s = t.inspect(id).State; return s.Running || s.Error != "" })
		if !s.Running {
			same(t, "Error", "Canceled: context canceled", s.Error)
			same(t, "Status", "created", s.Status)
			same(t, "ExitCode", 128, s.ExitCode)
			t.start(id)
			same(t, "Error of the next start", "", t.inspect(id).State.Error)
		}
	}},
	{Name: "a create whose client leaves at once is carried out", On: []Dialect{DockerV20, PodmanV4}, check: func(t *T) {
		t.leave("POST /containers/create?name="+t.name("web"), `{"Image":"`+t.f.Image+`"}`).leaves()
		t.toRemove = append(t.toRemove, "/containers/"+t.name("web"))
		t.until("the container", func() bool { return t.do("GET /containers/"+t.name("web")+"/json", nil).status == 200 })
	}},
	{Name: "a restart of a running container is another run", check: func(t *T) {
		id := t.ready("web", "sleep 1h")
		before := t.inspect(id).State
		t.do("POST /containers/"+id+"/restart?t=5", nil).is(all(204, ""))
		after := t.inspect(id).State
		same(t, "Status", "running", after.Status)
		same(t, "StartedAt is another", true, after.StartedAt != before.StartedAt)
		same(t, "RestartCount", 0, t.inspect(id).RestartCount)
	}},
	{Name: "a restart does not remove what removes itself at its end", On: dockers, check: func(t *T) {
		id := t.ready("web", "sleep 1h", host(M{"AutoRemove": true}))
		t.do("POST /containers/"+id+"/restart?t=20", nil).is(all(204, ""))
		same(t, "Status", "running", t.inspect(id).State.Status)
		same(t, "AutoRemove", true, t.inspect(id).HostConfig.AutoRemove)
	}},
	{Name: "a restart of a created container starts it", check: func(t *T) {
		id := t.create("web", "sleep 1h")
		t.do("POST /containers/"+id+"/restart", nil).ok(204)
		same(t, "Status", "running", t.inspect(id).State.Status)
	}},
	{Name: "a restart of an unknown container is 404", check: func(t *T) {
		t.do("POST /containers/nosuch/restart", nil).is(docker(404, "No such container: nosuch"), podman(404, `no container with name or ID "nosuch" found: no such container`))
	}},
	{Name: "a restart whose time is no number is refused", On: dockers, check: func(t *T) {
		t.do("POST /containers/"+t.create("web", "exit 0")+"/restart?t=soon", nil).is(all(500, `strconv.Atoi: parsing "soon": invalid syntax`))
	}},
	{Name: "OOM is 137, and is said so", On: dockers, check: func(t *T) {
		id := t.endedByOOM("oom 300")
		same(t, "ExitCode", 137, t.inspect(id).State.ExitCode)
		t.told(id, "die")
		t.told(id, "oom") // on a busy engine of 29 after the end
	}},
	{Name: "the next run forgets in 29 that the one before was killed for its memory, its end does in 20.10", On: dockers, check: func(t *T) {
		id := t.endedByOOM("sleep 1s -- oom 300")
		t.start(id)
		same(t, "OOMKilled of the next run", t.v == DockerV20, t.inspect(id).State.OOMKilled)
		t.do("POST /containers/"+id+"/kill", nil).ok(204)
		t.untilStatus(id, "exited")
		same(t, "OOMKilled of its end", false, t.inspect(id).State.OOMKilled)
	}},
}

var stopStatements = []Statement{
	{Name: "a stop waits for the end that its signal brings", check: func(t *T) {
		id := t.ready("web", "sleep 1h")
		t.do("POST /containers/"+id+"/stop?t=20", nil).is(all(204, ""))
		s := t.inspect(id).State
		same(t, "Running", false, s.Running)
		same(t, "ExitCode", 0, s.ExitCode)
		same(t, "the log", "ready\nterminated\n", t.log(id, "stdout=1"))
	}},
	{Name: "a stop without a time uses the container's own", On: dockers, check: func(t *T) {
		id := t.ready("web", "ignore-term", M{"StopTimeout": 1})
		began := time.Now()
		t.do("POST /containers/"+id+"/stop", nil).ok(204)
		took := time.Since(began)
		same(t, "about a second", true, took >= time.Second && took < 8*time.Second)
		same(t, "ExitCode", 137, t.inspect(id).State.ExitCode)
	}},
	{Name: "a stop without any time kills after ten seconds", On: dockers, check: func(t *T) {
		id := t.ready("web", "ignore-term")
		began := time.Now()
		t.do("POST /containers/"+id+"/stop", nil).ok(204)
		took := time.Since(began)
		same(t, "about ten seconds", true, took >= 10*time.Second && took < 25*time.Second)
		same(t, "ExitCode", 137, t.inspect(id).State.ExitCode)
	}},
	{Name: "a stop's own time wins over the container's", check: func(t *T) {
		id := t.ready("web", "ignore-term", M{"StopTimeout": 60})
		began := time.Now()
		t.do("POST /containers/"+id+"/stop?t=1", nil).ok(204)
		took := time.Since(began)
		same(t, "about a second", true, took >= time.Second && took < 20*time.Second)
		same(t, "ExitCode", 137, t.inspect(id).State.ExitCode)
	}},
	{Name: "a stop with a time of 0 sends the signal, and kills at once", On: dockers, check: func(t *T) {
		id := t.ready("web", "ignore-term")
		t.do("POST /containers/"+id+"/stop?t=0", nil).ok(204)
		same(t, "ExitCode", 137, t.inspect(id).State.ExitCode)
		t.untilKills(id, "15", "9")
	}},
	{Name: "a stop with a negative time waits for the end", On: dockers, check: func(t *T) {
		id := t.ready("web", "linger 100ms")
		t.do("POST /containers/"+id+"/stop?t=-1", nil).ok(204)
		same(t, "ExitCode", 0, t.inspect(id).State.ExitCode)
	}},
	{Name: "a stop sends the container's own signal", check: func(t *T) {
		id := t.ready("web", "signal", M{"StopSignal": "SIGUSR1"})
		t.do("POST /containers/"+id+"/stop?t=20", nil).ok(204)
		same(t, "the log", "ready\nsignal: user defined signal 1\n", t.log(id, "stdout=1"))
	}},
	{Name: "a stop's own signal is heeded by 29, and not by 20.10", On: dockers, check: func(t *T) {
		id := t.ready("web", "signal")
		t.do("POST /containers/"+id+"/stop?t=20&signal=SIGUSR2", nil).ok(204)
		same(t, "the log", by(t, "ready\nsignal: user defined signal 2\n", "ready\nsignal: terminated\n", ""), t.log(id, "stdout=1"))
	}},
	{Name: "a stop with what is no signal is refused by 29", On: only29, check: func(t *T) {
		id := t.ready("web", "sleep 1h")
		t.do("POST /containers/"+id+"/stop?signal=nosuch", nil).is(v29(500, "cannot stop container: "+id+": invalid signal: nosuch"))
		same(t, "Status", "running", t.inspect(id).State.Status)
	}},
	{Name: "a stop of a stopped container is 304", check: func(t *T) {
		t.do("POST /containers/"+t.ended("web", "exit 0")+"/stop", nil).is(all(304, ""))
	}},
	{Name: "a stop of a created container is 304, Podman's 204", check: func(t *T) {
		t.do("POST /containers/"+t.create("web", "exit 0")+"/stop", nil).is(docker(304, ""), podman(204, ""))
	}},
	{Name: "a stop of an unknown container is 404", check: func(t *T) {
		t.do("POST /containers/nosuch/stop", nil).is(docker(404, "No such container: nosuch"), podman(404, `no container with name or ID "nosuch" found: no such container`))
	}},
	{Name: "a stop whose time is no number is refused", On: dockers, check: func(t *T) {
		t.do("POST /containers/"+t.create("web", "exit 0")+"/stop?t=soon", nil).is(
			v20(500, `strconv.Atoi: parsing "soon": invalid syntax`), v29(400, `strconv.Atoi: parsing "soon": invalid syntax`))
	}},
	{Name: "a stop whose client has left still ends in a kill", On: dockers, check: func(t *T) {
		id := t.ready("web", "ignore-term")
		left := t.leave("POST /containers/"+id+"/stop?t=1", "")
		t.untilKills(id, "15")
		left.leaves()
		t.untilStatus(id, "exited")
		same(t, "ExitCode", 137, t.inspect(id).State.ExitCode)
	}},
	{Name: "two stops at once both wait, and send a signal each", On: dockers, check: func(t *T) {
		id := t.ready("web", "linger 300ms")
		done := make(chan int, 1)
		go func() { done <- t.do("POST /containers/"+id+"/stop?t=20", nil).status }()
		t.untilKills(id, "15")
		same(t, "the second", 204, t.do("POST /containers/"+id+"/stop?t=20", nil).status)
		same(t, "the first", 204, <-done)
		t.untilKills(id, "15", "15")
	}},
	{Name: "a kill is 204, and the end is 137", check: func(t *T) {
		id := t.ready("web", "ignore-term")
		t.do("POST /containers/"+id+"/kill", nil).is(all(204, ""))
		t.untilStatus(id, "exited")
		same(t, "ExitCode", 137, t.inspect(id).State.ExitCode)
	}},
	{Name: "a kill with another signal sends that", check: func(t *T) {
		id := t.ready("web", "signal")
		t.do("POST /containers/"+id+"/kill?signal=HUP", nil).ok(204)
		t.untilStatus(id, "exited")
		same(t, "the log", "ready\nsignal: hangup\n", t.log(id, "stdout=1"))
	}},
	{Name: "a kill takes a signal's number", check: func(t *T) {
		id := t.ready("web", "signal")
		t.do("POST /containers/"+id+"/kill?signal=10", nil).ok(204)
		t.untilStatus(id, "exited")
		same(t, "the log", "ready\nsignal: user defined signal 1\n", t.log(id, "stdout=1"))
	}},
	{Name: "a kill takes a signal's name in small letters, with SIG and without", On: dockers, check: func(t *T) {
		for name, signal := range map[string]string{"with": "sigusr1", "without": "usr1"} {
			id := t.ready(name, "signal")
			t.do("POST /containers/"+id+"/kill?signal="+signal, nil).ok(204)
			t.untilStatus(id, "exited")
			same(t, "the log", "ready\nsignal: user defined signal 1\n", t.log(id, "stdout=1"))
		}
	}},
	{Name: "a kill of a container that does not run is refused", check: func(t *T) {
		id := t.ended("web", "exit 0")
		t.do("POST /containers/"+t.name("web")+"/kill", nil).is(
			v20(409, "Cannot kill container: "+t.name("web")+": Container "+id+" is not running"),
			v29(409, "cannot kill container: "+t.name("web")+": container "+id+" is not running"),
			podman(500, "can only kill running containers. "+id+" is in state exited: container state improper"))
	}},
	{Name: "a kill of a created container is refused", check: func(t *T) {
		id := t.create("web", "exit 0")
		t.do("POST /containers/"+id+"/kill", nil).is(
			v20(409, "Cannot kill container: "+id+": Container "+id+" is not running"),
			v29(409, "cannot kill container: "+id+": container "+id+" is not running"),
			podman(500, "can only kill running containers. "+id+" is in state created: container state improper"))
	}},
	{Name: "a kill of an unknown container is 404", check: func(t *T) {
		t.do("POST /containers/nosuch/kill", nil).is(
			v20(404, "Cannot kill container: nosuch: No such container: nosuch"),
			v29(404, "cannot kill container: nosuch: No such container: nosuch"),
			podman(404, `no container with name or ID "nosuch" found: no such container`))
	}},
	{Name: "a kill with what is no signal is refused", On: dockers, check: func(t *T) {
		id := t.ready("web", "sleep 1h")
		t.do("POST /containers/"+id+"/kill?signal=nosuch", nil).is(
			v20(400, "Invalid signal: nosuch"), v29(400, "cannot kill container: "+id+": invalid signal: nosuch"))
	}},
	{Name: "a kill with a number that is no signal is refused", On: dockers, check: func(t *T) {
		id := t.ready("web", "sleep 1h")
		t.do("POST /containers/"+id+"/kill?signal=99", nil).is(
			v20(500, "Cannot kill container: "+id+": The linux daemon does not support signal 99"),
			v29(400, "cannot kill container: "+id+": the linux daemon does not support signal 99"))
	}},
	{Name: "a signal that the program ignores changes nothing", check: func(t *T) {
		id := t.ready("web", "ignore-term")
		t.do("POST /containers/"+id+"/kill?signal=INT", nil).ok(204)
		t.do("POST /containers/"+id+"/kill?signal=TERM", nil).ok(204)
		t.untilKills(id, "2", "15")
		same(t, "Status", "running", t.inspect(id).State.Status)
	}},
}

// untilKills waits for the events of so many kills, and checks their signals.
func (t *T) untilKills(id string, signals ...string) {
	t.Helper()
	var got []string
	t.until("the events of the kills", func() bool {
		got = nil
		for _, m := range t.events("") {
			if m.Actor.ID == id && m.Action == "kill" {
				got = append(got, m.Actor.Attributes["signal"])
			}
		}
		return len(got) >= len(signals)
	})
	if t.v == PodmanV4 { // does not tell them
		signals = make([]string, len(signals))
	}
	same(t, "the signals", signals, got)
}

// endedByOOM is a container whose end the engine lays to memory. A busy engine may hear of
// that after the end, or not at all: then another container is made.
func (t *T) endedByOOM(command string) (id string) {
	t.Helper()
	tries := 0
	t.until("an end that the engine lays to memory", func() bool {
		tries++
		id = t.ended(fmt.Sprint("oom", tries), command, host(M{"Memory": 32 << 20, "MemorySwap": 32 << 20}))
		return t.inspect(id).State.OOMKilled
	})
	return id
}
