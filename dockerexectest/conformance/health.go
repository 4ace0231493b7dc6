package conformance

import "github.com/docker/docker/api/types/events"

// check is a health check, with times in milliseconds.
func check(test []string, interval, retries int, more ...M) M {
	h := M{"Test": test, "Interval": interval * 1e6, "Timeout": 10e9, "Retries": retries}
	for _, m := range more {
		for key, value := range m {
			h[key] = value
		}
	}
	return M{"Healthcheck": h}
}

func probe(path string) []string { return []string{"CMD", "/testtask", "health", path} }

const isThere, isNotThere = "/etc/passwd", "/nosuch"

var healthStatements = []Statement{
	{Name: "a container with a check is starting at first", On: dockers, check: func(t *T) {
		h := t.inspect(t.run("web", "sleep 1h", check(probe(isThere), 600_000, 3))).State.Health
		same(t, "Status", "starting", h.Status)
		same(t, "FailingStreak", 0, h.FailingStreak)
		same(t, "no result", 0, len(h.Log))
	}},
	{Name: "a check that finds health is told and noted", On: dockers, check: func(t *T) {
		id := t.run("web", "write /tmp/ok 1 -- sleep 1h", check(probe("/tmp/ok"), 300, 3))
		t.untilHealth(id, "healthy")
		h := t.inspect(id).State.Health
		same(t, "FailingStreak", 0, h.FailingStreak)
		last := h.Log[len(h.Log)-1]
		same(t, "ExitCode", 0, last.ExitCode)
		same(t, "Output", "healthy\n", last.Output)
		same(t, "the end is after the start", true, !last.End.Before(last.Start))
		t.told(id, "health_status: healthy")
	}},
	{Name: "a check that fails so often makes a container unhealthy, which runs on", On: dockers, check: func(t *T) {
		id := t.run("web", "sleep 1h", check(probe(isNotThere), 300, 2))
		t.untilHealth(id, "unhealthy")
		s := t.inspect(id).State
		same(t, "Status", "running", s.Status)
		same(t, "the streak", true, s.Health.FailingStreak >= 2)
		checks := 0
		for _, m := range t.told(id, "health_status: unhealthy") {
			if m.Action == events.ActionExecDie {
				checks++
			}
		}
		same(t, "the checks before it", 2, checks)
		same(t, "ExitCode of a check", 1, s.Health.Log[0].ExitCode)
		same(t, "Output of a check", "testtask: health: stat /nosuch: no such file or directory\n", s.Health.Log[0].Output)
	}},
	{Name: "without a number three failures make a container unhealthy", On: dockers, check: func(t *T) {
		id := t.run("web", "sleep 1h", check(probe(isNotThere), 300, 0))
		checks := 0
		for _, m := range t.told(id, "health_status: unhealthy") {
			if m.Action == events.ActionExecDie {
				checks++
			}
		}
		same(t, "the checks before it", 3, checks)
	}},
	{Name: "within the start period a failure does not count", On: dockers, check: func(t *T) {
		id := t.run("web", "sleep 1h", check(probe(isNotThere), 200, 1, M{"StartPeriod": 3600e9, "StartInterval": 200e6}))
		t.until("two results", func() bool { return len(t.inspect(id).State.Health.Log) >= 2 })
		h := t.inspect(id).State.Health
		same(t, "Status", "starting", h.Status)
		same(t, "FailingStreak", 0, h.FailingStreak)
	}},
	{Name: "no more than five results are kept", On: dockers, check: func(t *T) {
		id := t.run("web", "sleep 1h", check(probe(isNotThere), 50, 1))
		t.until("seven failures", func() bool { return t.inspect(id).State.Health.FailingStreak >= 7 })
		same(t, "the results", 5, len(t.inspect(id).State.Health.Log))
	}},
	{Name: "the list tells the health", On: dockers, check: func(t *T) {
		id := t.run("web", "write /tmp/ok 1 -- sleep 1h", check(probe("/tmp/ok"), 300, 3))
		same(t, "starting", []string{"web"}, t.listed(filters("health", "starting")))
		t.untilHealth(id, "healthy")
		same(t, "healthy", []string{"web"}, t.listed(filters("health", "healthy")))
	}},
	{Name: "a check that finds health again ends the streak", On: dockers, check: func(t *T) {
		id := t.create("web", "sleep 5s -- write /tmp/ok 1 -- sleep 1h", check(probe("/tmp/ok"), 200, 1))
		told := t.follow("GET /events?" + filters("container", id, "event", "health_status"))
		t.start(id)
		same(t, "the first event", "health_status: unhealthy", string(told.event().Action))
		same(t, "the streak", true, t.inspect(id).State.Health.FailingStreak >= 1)
		same(t, "the second event", "health_status: healthy", string(told.event().Action))
		same(t, "FailingStreak", 0, t.inspect(id).State.Health.FailingStreak)
	}},
	{Name: "a paused container is unhealthy, no event says so, and it is checked again when it runs on", On: dockers, check: func(t *T) {
		id := t.run("web", "write /tmp/ok 1 -- sleep 1h", check(probe("/tmp/ok"), 5000, 3))
		t.untilHealth(id, "healthy")
		t.pause(id)
		same(t, "Status", "unhealthy", t.inspect(id).State.Health.Status)
		t.do("POST /containers/"+id+"/unpause", nil).ok(204)
		t.untilHealth(id, "healthy")
		same(t, "the events", []string{"health_status: healthy", "health_status: healthy"}, actionsOf(t.events(filters("container", id, "event", "health_status"))))
	}},
	{Name: "the output of a check is kept to 4096 bytes", On: dockers, check: func(t *T) {
		id := t.run("web", "sleep 1h", check([]string{"CMD", "/testtask", "lines", "1", "5000", "0"}, 200, 3))
		t.untilHealth(id, "healthy")
		output := t.inspect(id).State.Health.Log[0].Output
		same(t, "the length", 4096+len("..."), len(output))
		same(t, "the end", "....", output[len(output)-4:])
	}},
	{Name: "within the start period the start interval counts, for 29", On: dockers, check: func(t *T) {
		id := t.run("web", "write /tmp/ok 1 -- sleep 5s", check(probe("/tmp/ok"), 3600_000, 3, M{"StartPeriod": 3600e9, "StartInterval": 200e6}))
		if t.v == DockerV29 {
			t.untilHealth(id, "healthy")
			return
		}
		t.untilStatus(id, "exited")
		same(t, "no result", 0, len(t.inspect(id).State.Health.Log))
	}},
	{Name: "each check is told by events of its own", On: dockers, check: func(t *T) {
		id := t.run("web", "sleep 1h", check(probe(isNotThere), 300, 3))
		list := t.told(id, "exec_die")
		same(t, "the events", []string{"create", "start", "exec_create: /testtask health /nosuch", "exec_start: /testtask health /nosuch", "exec_die"}, actionsOf(list))
		same(t, "exitCode", "1", list[4].Actor.Attributes["exitCode"])
		same(t, "execID", list[2].Actor.Attributes["execID"], list[4].Actor.Attributes["execID"])
	}},
	{Name: "a check that takes too long fails with -1", On: dockers, check: func(t *T) {
		id := t.run("web", "sleep 1h", check([]string{"CMD", "/testtask", "sleep", "1h"}, 300, 1, M{"Timeout": 400e6}))
		t.untilHealth(id, "unhealthy")
		result := t.inspect(id).State.Health.Log[0]
		same(t, "ExitCode", -1, result.ExitCode)
		same(t, "Output", by(t, "Health check exceeded timeout (400ms): ready\n", "Health check exceeded timeout (400ms)", ""), result.Output)
	}},
	{Name: "the end of a check that took too long is told with 127 or 137, by chance, or not at all", On: dockers, check: func(t *T) {
		id := t.run("web", "sleep 1h", check([]string{"CMD", "/testtask", "sleep", "1h"}, 300, 1, M{"Timeout": 400e6}))
		t.untilHealth(id, "unhealthy")
		for _, m := range t.events(filters("container", id, "event", "exec_die")) {
			same(t, "exitCode is one of them", true, contains([]string{"127", "137"}, m.Actor.Attributes["exitCode"]))
		}
	}},
	{Name: "an ended container keeps its last health as unhealthy", On: dockers, check: func(t *T) {
		id := t.run("web", "write /tmp/ok 1 -- sleep 1h", check(probe("/tmp/ok"), 300, 3))
		t.untilHealth(id, "healthy")
		t.do("POST /containers/"+id+"/kill", nil).ok(204)
		t.untilStatus(id, "exited")
		same(t, "Status", "unhealthy", t.inspect(id).State.Health.Status)
		for _, m := range t.events("") {
			same(t, "no event says so", false, m.Actor.ID == id && m.Action == "health_status: unhealthy")
		}
	}},
	{Name: "another run begins as starting, and keeps the results of before", On: dockers, check: func(t *T) {
		id := t.run("web", "sleep 1h", check(probe(isNotThere), 300, 1))
		t.untilHealth(id, "unhealthy")
		t.do("POST /containers/"+id+"/kill", nil).ok(204)
		t.untilStatus(id, "exited")
		t.start(id)
		h := t.inspect(id).State.Health
		same(t, "Status", "starting", h.Status)
		same(t, "FailingStreak", 0, h.FailingStreak)
		same(t, "there are results", true, len(h.Log) >= 1)
	}},
	{Name: "a check of NONE is no check", On: dockers, check: func(t *T) {
		same(t, "there is no health", true, t.inspect(t.run("web", "sleep 1h", check([]string{"NONE"}, 100, 1))).State.Health == nil)
	}},
	{Name: "Podman runs no checks", On: podmans, check: func(t *T) {
		id := t.ended("web", "sleep 2s", check(probe(isNotThere), 100, 1))
		for _, m := range t.events("") {
			same(t, "it is no check", false, m.Actor.ID == id && m.Action == "exec_die")
		}
	}},
}

func (t *T) untilHealth(id, status string) {
	t.Helper()
	t.until("the health "+status, func() bool { return t.inspect(id).State.Health.Status == status })
}
