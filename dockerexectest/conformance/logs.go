package conformance

import (
	"regexp"
	"strings"
	"time"
)

var logStatements = []Statement{
	{Name: "a log has both streams, in frames", check: func(t *T) {
		id := t.ended("web", "print 2")
		same(t, "stdout", []frame{{1, "line 1\n"}, {1, "line 2\n"}}, t.frames(id, "stdout=1"))
		same(t, "stderr", []frame{{2, "line on stderr\n"}}, t.frames(id, "stderr=1"))
		same(t, "the frames of both", 3, len(t.frames(id, "stdout=1&stderr=1")))
	}},
	{Name: "a log of no stream is refused", On: dockers, check: func(t *T) {
		t.do("GET /containers/"+t.create("web", "exit 0")+"/logs", nil).is(
			v20(400, "Bad parameters: you must choose at least one stream"), v29(400, "must specify at least one of 'stdout' or 'stderr'"))
	}},
	{Name: "a log of an unknown container is 404", check: func(t *T) {
		t.do("GET /containers/nosuch/logs?stdout=1", nil).is(docker(404, "No such container: nosuch"), podman(404, `no container with name or ID "nosuch" found: no such container`))
	}},
	{Name: "a log of what has not run is empty", On: dockers, check: func(t *T) {
		same(t, "the log", "", t.log(t.create("web", "print 2"), "stdout=1&stderr=1"))
	}},
	{Name: "a log that is followed of what has not run ends at once", On: dockers, check: func(t *T) {
		same(t, "the log", "", t.log(t.create("web", "print 2"), "stdout=1&stderr=1&follow=1"))
	}},
	{Name: "the type of a log is that of frames from API 1.42 on", On: dockers, check: func(t *T) {
		id := t.ended("web", "print 2")
		same(t, "the type", by(t, "application/vnd.docker.multiplexed-stream", "", ""), t.do("GET /containers/"+id+"/logs?stdout=1", nil).header.Get("Content-Type"))
	}},
	{Name: "a TTY's log has no frames, and ends lines with CR LF", On: dockers, check: func(t *T) {
		id := t.ended("web", "print 2", M{"Tty": true})
		a := t.do("GET /containers/"+id+"/logs?stdout=1", nil).is(all(200, "line 1\r\nline 2\r\nline on stderr"))
		same(t, "the type", by(t, "application/vnd.docker.raw-stream", "", ""), a.header.Get("Content-Type"))
	}},
	{Name: "tail takes the last lines", check: func(t *T) {
		id := t.ended("web", "lines 3 12 0")
		const everything = "0000000001.\n0000000002.\n0000000003.\n"
		same(t, "two", "0000000002.\n0000000003.\n", t.log(id, "stdout=1&tail=2"))
		same(t, "none", "", t.log(id, "stdout=1&tail=0"))
		same(t, "all", everything, t.log(id, "stdout=1&tail=all"))
		same(t, "more than there are", everything, t.log(id, "stdout=1&tail=100"))
	}},
	{Name: "a tail that is no number takes all", On: dockers, check: func(t *T) {
		same(t, "the log", "line 1\nline 2\n", t.log(t.ended("web", "print 2"), "stdout=1&tail=many"))
	}},
	{Name: "tail counts the lines of both streams", On: dockers, check: func(t *T) {
		id := t.ended("web", "print 2")
		same(t, "the frames", 2, len(t.frames(id, "stdout=1&stderr=1&tail=2")))
		same(t, "of stdout alone", true, len(t.frames(id, "stdout=1&tail=2")) < 3)
	}},
	{Name: "times are RFC 3339 with nine digits", On: dockers, check: func(t *T) {
		line := t.log(t.ended("web", "print 1"), "stdout=1&timestamps=1")
		same(t, "the line "+line, true, regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z line 1\n$`).MatchString(line))
	}},
	{Name: "times of Podman are whole seconds", On: podmans, check: func(t *T) {
		line := t.log(t.ended("web", "print 1"), "stdout=1&timestamps=1")
		same(t, "the line "+line, true, regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.0{9})?Z line 1\n$`).MatchString(line))
	}},
	{Name: "times grow from line to line", On: dockers, check: func(t *T) {
		at := t.times(t.ended("web", "print 5"))
		for i := 1; i < len(at); i++ {
			same(t, "it is later", true, !at[i].Before(at[i-1]))
		}
		same(t, "the lines", 5, len(at))
	}},
	{Name: "since is inclusive, to the nanosecond", On: dockers, check: func(t *T) {
		id := t.ended("web", "lines 3 12 20")
		at := t.times(id)
		same(t, "at the second line", "0000000002.\n0000000003.\n", t.log(id, "stdout=1&since="+stamp(at[1])))
		same(t, "just after it", "0000000003.\n", t.log(id, "stdout=1&since="+stamp(at[1].Add(1))))
	}},
	{Name: "a since in RFC 3339 is refused", On: dockers, check: func(t *T) {
		t.do("GET /containers/"+t.create("web", "exit 0")+"/logs?stdout=1&since=2026-01-02T03:04:05.5Z", nil).is(
			v20(500, `strconv.ParseInt: parsing "2026-01-02T03:04:05": invalid syntax`),
			v29(400, `invalid value for "since": invalid timestamp "2026-01-02T03:04:05.5Z": invalid seconds "2026-01-02T03:04:05": invalid syntax`))
	}},
	{Name: "since before tail: tail counts from the end, then since cuts", On: dockers, check: func(t *T) {
		id := t.ended("web", "lines 3 12 20")
		at := t.times(id)
		same(t, "the log", "0000000003.\n", t.log(id, "stdout=1&tail=1&since="+stamp(at[0])))
		same(t, "nothing that young", "", t.log(id, "stdout=1&tail=2&since="+stamp(at[2].Add(time.Hour))))
	}},
	{Name: "until is inclusive", On: dockers, check: func(t *T) {
		id := t.ended("web", "lines 3 12 20")
		at := t.times(id)
		same(t, "at the second line", "0000000001.\n0000000002.\n", t.log(id, "stdout=1&until="+stamp(at[1])))
		same(t, "just before it", "0000000001.\n", t.log(id, "stdout=1&until="+stamp(at[1].Add(-1))))
	}},
	{Name: "a since that is no time is refused", On: dockers, check: func(t *T) {
		t.do("GET /containers/"+t.create("web", "exit 0")+"/logs?stdout=1&since=soon", nil).is(
			v20(500, `strconv.ParseInt: parsing "soon": invalid syntax`), v29(400, `invalid value for "since": invalid timestamp "soon": invalid seconds "soon": invalid syntax`))
	}},
	{Name: "a log that is followed ends with the container", check: func(t *T) {
		id := t.ready("web", "linger 100ms")
		s := t.follow("GET /containers/" + id + "/logs?stdout=1&follow=1")
		same(t, "the first line", "ready", s.next())
		t.do("POST /containers/"+id+"/kill?signal=TERM", nil).ok(204)
		same(t, "the rest", []string{"signal"}, s.rest())
	}},
	{Name: "a log that is followed of an ended container is the log", check: func(t *T) {
		same(t, "the log", "line 1\nline 2\n", t.log(t.ended("web", "print 2"), "stdout=1&follow=1"))
	}},
	{Name: "a log that is followed with tail 0 has what comes", On: dockers, check: func(t *T) {
		id := t.ready("web", "linger 100ms")
		s := t.follow("GET /containers/" + id + "/logs?stdout=1&follow=1&tail=0")
		t.do("POST /containers/"+id+"/kill?signal=TERM", nil).ok(204)
		same(t, "the log", []string{"signal"}, s.rest())
	}},
	{Name: "a long line is kept in pieces of 16 KiB, which have one time", On: dockers, check: func(t *T) {
		id := t.ended("web", "lines 1 40000 0")
		list := t.frames(id, "stdout=1&timestamps=1")
		same(t, "the pieces", 3, len(list))
		var at, text []string
		for _, f := range list {
			before, after, _ := strings.Cut(f.text, " ")
			at, text = append(at, before), append(text, after)
		}
		same(t, "the first piece's bytes", 16384, len(text[0]))
		same(t, "the second piece's bytes", 16384, len(text[1]))
		same(t, "the last one's", 40000-2*16384, len(text[2]))
		same(t, "the times are one", []string{at[0], at[0], at[0]}, at)
		same(t, "the end of the line", true, strings.HasSuffix(text[2], ".\n") && !strings.Contains(text[0]+text[1], "\n"))
	}},
	{Name: "details are the labels and variables that the driver was asked for", On: dockers, check: func(t *T) {
		id := t.ended("web", "print 1", M{"Labels": M{"own": "a b", "other": "1"}, "Env": []string{"VAR=1"}},
			host(M{"LogConfig": M{"Type": "json-file", "Config": M{"labels": "own", "env": "VAR"}}}))
		same(t, "the line", "VAR=1,own=a+b line 1\n", t.log(id, "stdout=1&details=1"))
	}},
	{Name: "details follow the time", On: dockers, check: func(t *T) {
		id := t.ended("web", "print 1", M{"Env": []string{"VAR=1"}}, host(M{"LogConfig": M{"Type": "json-file", "Config": M{"env": "VAR"}}}))
		line := t.log(id, "stdout=1&details=1&timestamps=1")
		same(t, "the line "+line, true, regexp.MustCompile(`^\d{4}-\S+Z VAR=1 line 1\n$`).MatchString(line))
	}},
	{Name: "a since and an until of 0 are none", On: dockers, check: func(t *T) {
		same(t, "the log", "line 1\nline 2\n", t.log(t.ended("web", "print 2"), "stdout=1&since=0&until=0"))
	}},
	{Name: "a log that nobody keeps cannot be read", On: dockers, check: func(t *T) {
		id := t.ended("web", "print 1", host(M{"LogConfig": M{"Type": "none"}}))
		t.do("GET /containers/"+id+"/logs?stdout=1", nil).is(all(501, "configured logging driver does not support reading"))
	}},
	{Name: "a log that is rotated away is gone", On: dockers, check: func(t *T) {
		id := t.ended("web", "lines 300 100 0", host(M{"LogConfig": M{"Type": "json-file", "Config": M{"max-size": "8k"}}}))
		text := t.log(id, "stdout=1")
		same(t, "the first line is there", false, strings.Contains(text, "0000000001."))
		same(t, "the last one is there", true, strings.Contains(text, "0000000300."))
	}},
	{Name: "a log has so many files, and what is older is gone", On: dockers, check: func(t *T) {
		id := t.ended("web", "lines 300 100 0", host(M{"LogConfig": M{"Type": "json-file", "Config": M{"max-size": "8k", "max-file": "3"}}}))
		lines := strings.Count(t.log(id, "stdout=1"), "\n")
		same(t, "the lines are those of three files, the last in part", true, lines >= 2*40 && lines <= 3*52)
	}},
	{Name: "the tag of a log is among its details", On: dockers, check: func(t *T) {
		id := t.ended("web", "print 1", host(M{"LogConfig": M{"Type": "json-file", "Config": M{"tag": "own"}}}))
		same(t, "the line", "tag=own line 1\n", t.log(id, "stdout=1&details=1"))
	}},
	{Name: "a log goes on over starts", check: func(t *T) {
		id := t.ended("web", "lines 1 12 0")
		first := t.inspect(id).State.FinishedAt
		t.start(id)
		t.until("the second end", func() bool { s := t.inspect(id).State; return s.Status == "exited" && s.FinishedAt != first })
		same(t, "the log", "0000000001.\n0000000001.\n", t.log(id, "stdout=1"))
	}},
}

// times are those of a log's lines on stdout.
func (t *T) times(id string) (at []time.Time) {
	t.Helper()
	for _, f := range t.frames(id, "stdout=1&timestamps=1") {
		text, _, _ := strings.Cut(f.text, " ")
		one, err := time.Parse(time.RFC3339Nano, text)
		t.must(err)
		at = append(at, one)
	}
	return at
}
