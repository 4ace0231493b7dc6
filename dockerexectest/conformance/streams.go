package conformance

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/docker/docker/api/types/events"
)

// frame is a piece of a log: 1 is stdout, 2 stderr.
type frame struct {
	stream byte
	text   string
}

// frames are those of a log that is no TTY's.
func (t *T) frames(id, query string) (list []frame) {
	t.Helper()
	body := bytes.NewReader(t.do("GET /containers/"+id+"/logs?"+query, nil).ok(200).body)
	for body.Len() > 0 {
		var head [8]byte
		_, err := io.ReadFull(body, head[:])
		t.must(err)
		text := make([]byte, binary.BigEndian.Uint32(head[4:]))
		_, err = io.ReadFull(body, text)
		t.must(err)
		list = append(list, frame{head[0], string(text)})
	}
	return list
}

// log is the text of a log that is no TTY's.
func (t *T) log(id, query string) string {
	t.Helper()
	var text strings.Builder
	for _, f := range t.frames(id, query) {
		text.WriteString(f.text)
	}
	return text.String()
}

// stamp is a time as a query has it.
func stamp(at time.Time) string { return fmt.Sprintf("%d.%09d", at.Unix(), at.Nanosecond()) }

// events are the past ones, from the check's begin on.
func (t *T) events(query string) []events.Message {
	t.Helper()
	return t.eventsSince(t.began, query)
}

func (t *T) eventsSince(since time.Time, query string) []events.Message {
	t.Helper()
	if query != "" {
		query = "&" + query
	}
	if t.v == PodmanV4 {
		// At the time of until Podman stops to read its file of events, wherever it is.
		return t.readEvents("stream=false&since=" + stamp(since) + query)
	}
	return t.readEvents("since=" + stamp(since) + "&until=" + stamp(time.Now().Add(5*time.Millisecond)) + query)
}

func (t *T) readEvents(query string) (list []events.Message) {
	t.Helper()
	decoder := json.NewDecoder(bytes.NewReader(t.do("GET /events?"+query, nil).ok(200).body))
	for {
		var m events.Message
		err := decoder.Decode(&m)
		if err == io.EOF {
			return list
		}
		t.must(err)
		list = append(list, m)
	}
}

// told are the events of an actor up to the first with the action.
func (t *T) told(id, last string) (list []events.Message) {
	t.Helper()
	t.until("the event "+last, func() bool {
		list = nil
		for _, m := range t.events("") {
			if m.Actor.ID == id {
				list = append(list, m)
				if string(m.Action) == last {
					return true
				}
			}
		}
		return false
	})
	return list
}

// actions are those of told.
// Podman tells of a cleanup once, twice, or not at all, and seldom of a stop: both are left out.
func (t *T) actions(id, last string) []string {
	t.Helper()
	return slices.DeleteFunc(actionsOf(t.told(id, last)), func(action string) bool {
		return t.v == PodmanV4 && (action == "cleanup" || action == "stop")
	})
}

// actionsOfStop are those up to the end and the stop, of which 29 tells in any
// order: stop, die here.
func (t *T) actionsOfStop(id, last string) []string {
	t.Helper()
	t.told(id, by(t, "stop", "stop", "die"))
	list := t.actions(id, last)
	if stop := slices.Index(list, "stop"); t.v == DockerV29 && last == "die" && stop < 0 {
		list = slices.Insert(list, len(list)-1, "stop")
	} else if stop > 0 && t.v == DockerV29 && list[stop-1] == "die" {
		list[stop-1], list[stop] = "stop", "die"
	}
	return list
}

func actionsOf(list []events.Message) (actions []string) {
	for _, m := range list {
		actions = append(actions, string(m.Action))
	}
	return actions
}

// stream is an answer that is read as it comes.
type stream struct {
	t      *T
	lines  chan string // closed at the answer's end
	cancel context.CancelFunc
}

// follow sends a request, checks for 200, and reads lines. The answer of a log is
// read without its frames.
func (t *T) follow(request string) *stream {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	response, err := t.open(ctx, request, nil) //nolint:bodyclose // what reads it closes it
	t.must(err)
	if response.StatusCode != 200 {
		defer cancel()
		text, _ := io.ReadAll(response.Body)
		t.Fatalf("%s: %d %s", request, response.StatusCode, text)
	}
	s := &stream{t: t, lines: make(chan string, 1000), cancel: cancel}
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer close(s.lines)
		defer response.Body.Close()
		scanner := bufio.NewScanner(response.Body)
		for scanner.Scan() {
			line := scanner.Text()
			if strings.Contains(request, "/logs?") && len(line) >= 8 {
				line = line[8:]
			}
			s.lines <- line
		}
	}()
	t.Cleanup(func() { cancel(); <-done })
	return s
}

// next is the next line; "" if the answer has ended.
func (s *stream) next() string {
	s.t.Helper()
	limit := time.NewTimer(30 * time.Second)
	defer limit.Stop()
	select {
	case line := <-s.lines:
		return line
	case <-limit.C:
		s.t.Fatal("no line has come")
		return ""
	}
}

// rest are the lines to the answer's end.
func (s *stream) rest() (lines []string) {
	s.t.Helper()
	for line := s.next(); line != ""; line = s.next() {
		lines = append(lines, line)
	}
	return lines
}

// event is the next event.
func (s *stream) event() (m events.Message) {
	s.t.Helper()
	s.t.must(json.Unmarshal([]byte(s.next()), &m))
	return m
}

// isQuiet fails if a line comes within a moment.
func (s *stream) isQuiet() {
	s.t.Helper()
	moment := time.NewTimer(50 * time.Millisecond)
	defer moment.Stop()
	select {
	case line := <-s.lines:
		s.t.Fatalf("a line has come: %q", line)
	case <-moment.C:
	}
}

func contains(list []string, value string) bool { return slices.Contains(list, value) }
