package conformance

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/image"
)

// M is a JSON object.
type M = map[string]any

// T is the check of one statement on one engine.
type T struct {
	testing.TB
	f      Fixture
	v      Dialect
	number int64     // of the check
	prefix string    // of the names of all that it makes
	began  time.Time // by the engine's clock, if that is the test's

	mu       sync.Mutex
	toRemove []string // paths
}

// name is a name of this check's own.
func (t *T) name(of string) string { return t.prefix + of }

// answer is what an engine has answered.
type answer struct {
	t       *T
	request string
	status  int
	header  http.Header
	body    []byte
}

// words are what the engines of some dialects say.
type words struct {
	on     []Dialect
	status int
	text   string
}

// The status and the text of an answer, by dialect.
func all(status int, text string) words {
	return words{[]Dialect{DockerV29, DockerV20, PodmanV4}, status, text}
}
func docker(status int, text string) words {
	return words{[]Dialect{DockerV29, DockerV20}, status, text}
}
func v29(status int, text string) words    { return words{[]Dialect{DockerV29}, status, text} }
func v20(status int, text string) words    { return words{[]Dialect{DockerV20}, status, text} }
func podman(status int, text string) words { return words{[]Dialect{PodmanV4}, status, text} }

// Dialects for which a statement holds.
var (
	dockers = []Dialect{DockerV29, DockerV20}
	only29  = []Dialect{DockerV29}
	only20  = []Dialect{DockerV20}
	podmans = []Dialect{PodmanV4}
)

// by picks a value by the dialect.
func by[V any](t *T, for29, for20, forPodman V) V { return [...]V{for29, for20, forPodman}[t.v] }

// open sends a request, such as "GET /info", whose body may be nil, a string, or
// a value to encode. The caller reads the answer's body and closes it.
func (t *T) open(ctx context.Context, request string, body any, header ...string) (*http.Response, error) {
	t.Helper()
	method, target, _ := strings.Cut(request, " ")
	var content io.Reader
	switch b := body.(type) {
	case nil:
	case string:
		content = strings.NewReader(b)
	default:
		text, err := json.Marshal(b)
		t.must(err)
		content = bytes.NewReader(text)
	}
	host := "engine.test"
	if u, err := url.Parse(t.f.Client.DaemonHost()); err == nil && u.Scheme == "tcp" {
		host = u.Host
	}
	if path, isBare := strings.CutPrefix(target, "bare:"); isBare { // without a version
		target = path
	} else {
		target = "/v" + t.f.Client.ClientVersion() + target
	}
	r, err := http.NewRequestWithContext(ctx, method, "http://"+host+target, content)
	t.must(err)
	if content != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	return t.f.Client.HTTPClient().Do(r)
}

// do sends a request and reads its answer. What it makes is removed at the end.
func (t *T) do(request string, body any, header ...string) answer {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 2*time.Minute)
	defer cancel()
	response, err := t.open(ctx, request, body, header...)
	t.must(err)
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	t.must(err)
	a := answer{t, request, response.StatusCode, response.Header, text}
	t.remember(a)
	return a
}

// remember notes what an answer says was made.
func (t *T) remember(a answer) {
	var made struct{ ID, Name string }
	path := ""
	switch _ = json.Unmarshal(a.body, &made); {
	case a.status != http.StatusCreated:
		return
	case strings.Contains(a.request, " /containers/create"):
		path = "/containers/" + made.ID + "?force=1&v=1"
	case strings.Contains(a.request, " /networks/create"):
		path = "/networks/" + made.ID
	case strings.Contains(a.request, " /volumes/create"):
		path = "/volumes/" + made.Name
	case strings.Contains(a.request, "/tag?"):
		u, _ := url.Parse(strings.TrimPrefix(a.request, "POST "))
		path = "/images/" + u.Query().Get("repo") + ":" + u.Query().Get("tag")
	default:
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.toRemove = append(t.toRemove, path)
}

// cleanUp removes what was made, the latest first, containers before all else.
func (t *T) cleanUp() {
	slices.Reverse(t.toRemove)
	for _, isContainer := range []bool{true, false} {
		for _, path := range t.toRemove {
			if strings.HasPrefix(path, "/containers/") != isContainer {
				continue
			}
			var a answer
			if !t.f.Wait(func() bool {
				a = t.do("DELETE "+path, nil)
				return a.status < 300 || a.status == http.StatusNotFound
			}) {
				t.Errorf("%s: not removed: %d %s", path, a.status, a.body)
			}
		}
	}
}

// is checks the status and the message, or of an answer that is no error the
// whole body. The first words that are of the dialect count.
func (a answer) is(want ...words) answer {
	a.t.Helper()
	at := slices.IndexFunc(want, func(w words) bool { return slices.Contains(w.on, a.t.v) })
	if at < 0 {
		a.t.Fatalf("%s: nothing is expected of %v: %d %s", a.request, a.t.v, a.status, a.body)
	}
	text := strings.TrimSpace(string(a.body))
	if a.status >= 400 {
		var e struct{ Message string }
		if json.Unmarshal(a.body, &e) == nil { // the oldest API versions have plain text
			text = e.Message
		}
	}
	if a.status != want[at].status || text != want[at].text {
		a.t.Fatalf("%s\n  has answered %d %s\n  and is to answer %d %s", a.request, a.status, text, want[at].status, want[at].text)
	}
	return a
}

// ok checks the status alone, and decodes the body.
func (a answer) ok(status int, into ...any) answer {
	a.t.Helper()
	if a.status != status {
		a.t.Fatalf("%s\n  has answered %d %s\n  and is to answer %d", a.request, a.status, a.body, status)
	}
	for _, v := range into {
		if err := json.Unmarshal(a.body, v); err != nil {
			a.t.Fatalf("%s: %s: %v", a.request, a.body, err)
		}
	}
	return a
}

func (t *T) must(err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// same fails unless both are equal.
func same[V any](t *T, what string, want, got V) {
	t.Helper()
	if !reflect.DeepEqual(want, got) {
		t.Fatalf("%s is %#v, and is to be %#v", what, got, want)
	}
}

// until waits for a condition.
func (t *T) until(what string, condition func() bool) {
	t.Helper()
	if !t.f.Wait(condition) {
		t.Fatalf("has not come: %s", what)
	}
}

// pause pauses a container. On a busy machine runc may be unable to freeze one in which a
// process begins; then the container runs on, and is paused by another request.
//
// A health check that begins meanwhile may be frozen half-way. Then a request for the
// container may hang for minutes. So a container with checks is paused right after one,
// with seconds to the next.
func (t *T) pause(id string) (a answer) {
	t.Helper()
	t.until("the pause of "+id, func() bool {
		a = t.do("POST /containers/"+id+"/pause", nil)
		return a.status != http.StatusInternalServerError || !strings.Contains(string(a.body), "unable to freeze")
	})
	return a.ok(http.StatusNoContent)
}

// create makes a container of the image and returns its ID. The command are words
// of the image's program; none: the image's own. The options are fields of the
// request that are set beside image and command.
func (t *T) create(name, command string, options ...M) string {
	t.Helper()
	var made struct{ ID string }
	t.tryCreate(name, command, options...).ok(http.StatusCreated, &made)
	return made.ID
}

// tryCreate is create with whatever answer.
func (t *T) tryCreate(name, command string, options ...M) answer {
	t.Helper()
	body := M{"Image": t.f.Image}
	if command != "" {
		body["Cmd"] = strings.Fields(command)
	}
	for _, o := range options {
		for key, value := range o {
			body[key] = value
		}
	}
	query := ""
	if name != "" {
		query = "?name=" + url.QueryEscape(t.name(name))
	}
	return t.do("POST /containers/create"+query, body)
}

// host is options of the host's side.
func host(fields M) M { return M{"HostConfig": fields} }

// run creates and starts a container, and returns its ID.
func (t *T) run(name, command string, options ...M) string {
	t.Helper()
	id := t.create(name, command, options...)
	t.start(id)
	return id
}

// ready runs a container and waits for the line "ready".
func (t *T) ready(name, command string, options ...M) string {
	t.Helper()
	id := t.run(name, command, options...)
	t.until("ready", func() bool { return strings.Contains(t.log(id, "stdout=1"), "ready") })
	return id
}

func (t *T) start(id string) {
	t.Helper()
	t.do("POST /containers/"+id+"/start", nil).is(all(204, ""))
}

// ended runs a container until its end.
func (t *T) ended(name, command string, options ...M) string {
	t.Helper()
	id := t.run(name, command, options...)
	t.untilStatus(id, "exited")
	return id
}

func (t *T) inspect(id string) container.InspectResponse {
	t.Helper()
	var found container.InspectResponse
	t.do("GET /containers/"+id+"/json", nil).ok(200, &found)
	return found
}

func (t *T) untilStatus(id, status string) {
	t.Helper()
	last := ""
	if !t.f.Wait(func() bool { last = t.inspect(id).State.Status; return last == status }) {
		t.Fatalf("the container is %s, and is to be %s", last, status)
	}
}

// leaver is a client that does not wait for its answer.
type leaver struct {
	t    *T
	conn net.Conn
}

// leave sends a request. The body may be empty.
func (t *T) leave(request, body string) leaver {
	t.Helper()
	conn, err := t.f.Client.Dialer()(t.Context())
	t.must(err)
	method, path, _ := strings.Cut(request, " ")
	_, err = conn.Write([]byte(method + " /v" + t.f.Client.ClientVersion() + path + " HTTP/1.1\r\nHost: engine.test\r\nContent-Type: application/json\r\nContent-Length: " +
		strconv.Itoa(len(body)) + "\r\n\r\n" + body))
	t.must(err)
	return leaver{t, conn}
}

// leaves closes the connection.
func (l leaver) leaves() {
	l.t.Helper()
	l.t.must(l.conn.Close())
}

// quote is a text as a part of a URL's query.
func quote(text string) string { return url.QueryEscape(text) }

// filters is the query parameter of some, as "key", "value", ….
func filters(pairs ...string) string {
	m := map[string][]string{}
	for i := 0; i+1 < len(pairs); i += 2 {
		m[pairs[i]] = append(m[pairs[i]], pairs[i+1])
	}
	text, _ := json.Marshal(m)
	return "filters=" + quote(string(text))
}

// image is an inspect of an image.
func (t *T) image(ref string) (i image.InspectResponse) {
	t.Helper()
	t.do("GET /images/"+ref+"/json", nil).ok(200, &i)
	return i
}

// network makes a network and returns its ID.
func (t *T) network(name string, options M) string {
	t.Helper()
	var made struct{ ID string }
	t.tryNetwork(name, options).ok(http.StatusCreated, &made)
	return made.ID
}

func (t *T) tryNetwork(name string, options M) answer {
	t.Helper()
	body := M{"Name": t.name(name), "CheckDuplicate": true}
	for key, value := range options {
		body[key] = value
	}
	return t.do("POST /networks/create", body)
}

// volume makes a volume.
func (t *T) volume(name string) {
	t.Helper()
	t.do("POST /volumes/create", M{"Name": t.name(name)}).ok(http.StatusCreated)
}
