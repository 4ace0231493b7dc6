package dockerexec

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/distribution/reference"
	"github.com/docker/docker/api/types/container"
	engineapi "github.com/docker/docker/client"
	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/moby/swarmkit/v2/api"
	"github.com/stretchr/testify/require"
)

// readWithinBounds reads in, and fails if a byte of it is lost, or if a reader holds
// more memory than it may.
func readWithinBounds(t *testing.T, in []byte, tty, details bool) {
	if tty {
		reader := newPlainReader(bytes.NewReader(in), details)
		messages, err := readLogs(reader)
		require.LessOrEqual(t, cap(reader.buf), 4<<20)
		read := 0
		for _, m := range messages {
			require.LessOrEqual(t, len(m)-2, 1<<20)
			require.Equal(t, string(in[read:read+len(m)-2]), m[2:])
			read += len(m) - 2
		}
		require.True(t, read == len(in) || err != io.EOF, "read %d of %d bytes", read, len(in))
		return
	}
	reader := newFrameReader(bytes.NewReader(in))
	messages, err := readLogs(reader)
	require.LessOrEqual(t, cap(reader.large), 1<<20)
	read := 0
	for _, m := range messages {
		read += 8
		require.Equal(t, string(in[read:read+len(m)-2]), m[2:])
		read += len(m) - 2
	}
	require.True(t, read == len(in) || err != io.EOF, "read %d of %d bytes", read, len(in))
}

// FuzzTask makes tasks from bytes. None panics, none is changed, each becomes
// the same request twice, and every refusal names a field of the task.
func FuzzTask(f *testing.F) {
	f.Add([]byte{}, byte(filledTask))
	f.Add([]byte(strings.Repeat("\x01\x02\xff\x07", 100)), byte(filledTask))
	f.Add([]byte("\x07\x01\x05\x02\x03\x11\x02\x31\x01"), byte(changedTask))
	for _, wire := range goldenWires(f) {
		f.Add(wire, byte(wireTask))
		f.Add(wire, byte(filledTask))
		f.Add(wire, byte(changedTask))
	}
	f.Fuzz(func(t *testing.T, data []byte, kind byte) {
		task, again := fuzzTask(t, data, kind), fuzzTask(t, data, kind)
		checkTranslation(t, task)
		require.True(t, reflect.DeepEqual(again, task), "the task was changed")
	})
}

// How a task is made of bytes.
const (
	wireTask    = iota // decoded, as it comes from a manager
	filledTask         // field by field, half-filled, as only Go code can make it
	changedTask        // a golden task, changed in a few places
	taskKinds
)

// fuzzTask makes the same task from the same bytes.
func fuzzTask(t *testing.T, data []byte, kind byte) *api.Task {
	task := &api.Task{}
	maker := taskMaker{data: data}
	switch kind % taskKinds {
	case wireTask:
		if task.Unmarshal(data) != nil {
			return plainTask()
		}
	case filledTask:
		maker.fill(reflect.ValueOf(task).Elem())
	case changedTask:
		wires := goldenWires(t)
		require.NoError(t, task.Unmarshal(wires[maker.next()%len(wires)]))
		for range 1 + maker.next()%4 {
			maker.change(reflect.ValueOf(task).Elem())
		}
	}
	return task
}

var goldenWire struct {
	once  sync.Once
	wires [][]byte
}

// goldenWires are the golden tasks as they come from a manager.
func goldenWires(t testing.TB) [][]byte {
	goldenWire.once.Do(func() {
		for _, name := range goldenNames(t) {
			wire, err := goldenTask(t, name).Marshal()
			require.NoError(t, err)
			goldenWire.wires = append(goldenWire.wires, wire)
		}
	})
	return goldenWire.wires
}

var randomTasks = flag.Int("tasks", 3000, "how many tasks TestRandomTasks makes")

// The same as FuzzTask, without its search: far more tasks in the same time.
func TestRandomTasks(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(1, 2))
	accepted := 0
	for i := range *randomTasks {
		data := make([]byte, random.IntN(200))
		for i := range data {
			data[i] = byte(random.Uint32())
		}
		kind := byte(i)
		if kind%taskKinds == wireTask { // bytes alone are hardly ever a task
			wires := goldenWires(t)
			data = append([]byte(nil), wires[random.IntN(len(wires))]...)
			for range random.IntN(4) {
				data[random.IntN(len(data))] = byte(random.Uint32())
			}
		}
		task, again := fuzzTask(t, data, kind), fuzzTask(t, data, kind)
		if checkTranslation(t, task) {
			accepted++
		}
		require.True(t, reflect.DeepEqual(again, task), "the task was changed: %d", i)
	}
	require.Greater(t, accepted, *randomTasks/10, "few tasks get past the checks")
}

// checkTranslation reports whether the task was accepted.
func checkTranslation(t *testing.T, task *api.Task) bool {
	t.Helper()
	config, err := newContainerConfig(goldenNode(), task)
	if err != nil {
		if err != ErrImageRequired && err != exec.ErrRuntimeUnsupported {
			checkNamesField(t, err)
		}
		return false
	}
	for _, version := range []string{"1.24", "1.41", ""} {
		if err := config.checkVersion(version); err != nil {
			checkNamesField(t, err)
		}
	}
	config = config.withDependencies("/files", []byte("{}"), nil)
	request := requestOf(config)
	second, err := newContainerConfig(goldenNode(), task)
	require.NoError(t, err)
	for _, other := range []*containerConfig{config, second.withDependencies("/files", []byte("{}"), nil)} {
		require.True(t, reflect.DeepEqual(request, requestOf(other)), "%v\nis not\n%v", requestOf(other), request)
	}
	_, err = json.Marshal(request)
	require.NoError(t, err)
	newScrubber(config.pullOptions().RegistryAuth).clean("denied", 100)
	return true
}

// requestOf is everything that an engine is asked for the task.
func requestOf(c *containerConfig) []any {
	return []any{
		c.name(), c.image(), c.config(), c.hostConfig(), c.networkingConfig(), c.endpointNames(), c.networks(),
		c.forVersion("1.41").hostConfig(), c.forVersion("1.41").networkingConfig(),
		c.volumes(false), c.platform(), c.pullOptions().Platform, identityOf(c.task), c.warnings(), c.needs,
	}
}

// taskMaker fills a task with what its bytes say, and with zeros at their end.
type taskMaker struct{ data []byte }

func (m *taskMaker) next() int {
	if len(m.data) == 0 {
		return 0
	}
	b := m.data[0]
	m.data = m.data[1:]
	return int(b)
}

var fuzzStrings = []string{
	"", "a", "web", "example/web:1", "A=1", "=", "B={{.Task.ID}}", "C={{", "{{.Service.Name}}", "/a", "/a/../b", "/", "..", "10.0.0.1", "10.0.0.1/24", "10.0.0.0/24",
	"fd00::1/64", "fd00::/64", "10.0.0.1 a b", "bridge", "host", "none", "ingress", "nofile", "local", "exec,uid=1", `[["exec"]]`, `[["`, "e30=", "s1", "../a", "1000", "x86_64", "linux", "\xff",
	"net.ipv4.conf.eth0.forwarding",
}

var fuzzNumbers = []int64{0, 1, 2, 80, 8080, 1000, 1e7, 1e9, 64 << 20, 65535, 65536, -1, -2, 1 << 31, 1 << 62, -1 << 63}

// credentials are in the form of the engine's header. A password in it is any
// bytes, which need be no text.
func (m *taskMaker) credentials() string {
	password := make([]byte, m.next()%9)
	for i := range password {
		password[i] = byte(m.next())
	}
	pair := base64.StdEncoding.EncodeToString(append([]byte("user:"), password...))
	return base64.URLEncoding.EncodeToString([]byte(`{"auth":"` + pair + `"}`))
}

func (m *taskMaker) fill(v reflect.Value) {
	switch v.Kind() {
	case reflect.String:
		if i := m.next() % (len(fuzzStrings) + 1); i < len(fuzzStrings) {
			v.SetString(fuzzStrings[i])
		} else {
			v.SetString(m.credentials())
		}
	case reflect.Bool:
		v.SetBool(m.next()%2 == 1)
	case reflect.Int32, reflect.Int64:
		n := fuzzNumbers[m.next()%len(fuzzNumbers)]
		if isEnum(v.Type()) {
			n = int64(m.next() % 8)
		}
		v.SetInt(n)
	case reflect.Uint8, reflect.Uint32, reflect.Uint64:
		v.SetUint(uint64(fuzzNumbers[m.next()%len(fuzzNumbers)]))
	case reflect.Pointer:
		if m.next()%4 > 0 {
			v.Set(reflect.New(v.Type().Elem()))
			m.fill(v.Elem())
		}
	case reflect.Slice:
		for range m.next() % 4 {
			element := reflect.New(v.Type().Elem()).Elem()
			m.fill(element)
			v.Set(reflect.Append(v, element))
		}
	case reflect.Map:
		for range m.next() % 3 {
			if v.IsNil() {
				v.Set(reflect.MakeMap(v.Type()))
			}
			key, element := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
			m.fill(key)
			m.fill(element)
			v.SetMapIndex(key, element)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			f := v.Type().Field(i)
			switch {
			case strings.HasPrefix(f.Name, "XXX_"):
			case f.Type.Kind() == reflect.Interface:
				m.choose(v, v.Field(i))
			default:
				m.fill(v.Field(i))
			}
		}
	default:
		panic(fmt.Sprint("no value for ", v.Type()))
	}
}

// change fills one field, somewhere below v.
func (m *taskMaker) change(v reflect.Value) {
	switch {
	case isLeaf(v.Type()) && v.Kind() != reflect.Interface:
		m.fill(v)
	case v.Kind() == reflect.Pointer && !v.IsNil() && m.next()%16 > 0:
		m.change(v.Elem())
	case v.Kind() == reflect.Slice && v.Len() > 0 && m.next()%4 > 0:
		m.change(v.Index(m.next() % v.Len()))
	case v.Kind() == reflect.Slice:
		element := reflect.New(v.Type().Elem()).Elem()
		m.fill(element)
		v.Set(reflect.Append(v, element))
	case v.Kind() == reflect.Struct && v.NumField() > 0:
		i := m.next() % v.NumField()
		f := v.Field(i)
		switch {
		case f.Kind() != reflect.Interface:
			m.change(f)
		case !f.IsNil() && !f.Elem().IsNil() && m.next()%16 > 0:
			m.change(f.Elem().Elem().Field(0))
		default:
			m.choose(v, f)
		}
	default:
		m.fill(v)
	}
}

// choose sets a oneof: to nothing, to a typed nil, or to one of its choices.
func (m *taskMaker) choose(message, oneof reflect.Value) {
	wrappers := message.Addr().Interface().(interface{ XXX_OneofWrappers() []any }).XXX_OneofWrappers()
	var choices []reflect.Type
	for _, w := range wrappers {
		if t := reflect.TypeOf(w); t.Implements(oneof.Type()) {
			choices = append(choices, t)
		}
	}
	n := m.next() % (3*len(choices) + 2)
	if n == 0 {
		return
	}
	choice := choices[n%len(choices)]
	if n == 3*len(choices)+1 {
		oneof.Set(reflect.Zero(choice))
		return
	}
	wrapper := reflect.New(choice.Elem())
	m.fill(wrapper.Elem())
	oneof.Set(wrapper)
}

// eventBody answers the first request for events with a body and the others with
// silence.
type eventBody struct {
	first  *closing
	sinces []string // of the requests, which come one at a time
}

func (e *eventBody) RoundTrip(request *http.Request) (*http.Response, error) {
	if strings.HasSuffix(request.URL.Path, "/events") {
		e.sinces = append(e.sinces, request.URL.Query().Get("since"))
		if len(e.sinces) == 1 {
			return &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, Body: e.first, Request: request}, nil
		}
	}
	return silentTransport{}.RoundTrip(request)
}

// sinceForm is what an engine takes for a time with its nanoseconds.
var sinceForm = regexp.MustCompile(`^\d+\.\d{9}$`)

// FuzzEvents feeds the event stream with anything, and then with nothing. Nothing
// panics, a subscriber gets no event of another task or container and none twice,
// the stream is opened again at a time that an engine understands, and in the end
// the subscriber is told that events may be lost, since none came back. The bubble
// fails if a goroutine is left.
func FuzzEvents(f *testing.F) {
	files, err := filepath.Glob("testdata/events/*.jsonl")
	require.NoError(f, err)
	require.NotEmpty(f, files)
	for _, file := range files {
		text, err := os.ReadFile(file)
		require.NoError(f, err)
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		synctest.Test(t, func(t *testing.T) {
			engine := &eventBody{first: &closing{
				Reader: io.MultiReader(strings.NewReader(anEvent), bytes.NewReader(body)), closed: make(chan struct{}),
			}}
			client, err := engineapi.NewClientWithOpts(engineapi.WithHost("http://engine"), engineapi.WithHTTPClient(&http.Client{Transport: engine}))
			require.NoError(t, err)
			adapter, err := NewEngine(client).Adapter(nil, plainTask(), nil)
			require.NoError(t, err)
			id := "0123456789ab"
			adapter.containerID.Store(&id)
			ctx, lines := linesOf(t.Context())
			ctx, cancel := context.WithCancel(ctx)
			defer cancel()
			sub := subscribe(ctx, t, adapter)
			time.Sleep(time.Minute)
			select {
			case <-sub.closed:
			default:
				t.Error("not told that events may be lost")
			}
			<-engine.first.closed
			cancel()
			synctest.Wait()

			seen := map[eventKey]bool{}
			for len(sub.messages) > 0 {
				m := <-sub.messages
				task, labelled := m.Actor.Attributes["com.docker.swarm.task.id"]
				name := m.Actor.Attributes["name"]
				if labelled && task != "taskid" || !labelled && name != taskName || name != taskName && m.Actor.ID != id {
					t.Errorf("somebody else's event: %+v", m)
				}
				key := keyOf(m)
				if key.timeNano != 0 && seen[key] {
					t.Errorf("twice: %+v", m)
				}
				seen[key] = true
			}
			for _, since := range engine.sinces {
				if !sinceForm.MatchString(since) {
					t.Errorf("since %q", since)
				}
			}
			if len(engine.sinces) > 2 {
				t.Errorf("%d requests", len(engine.sinces))
			}
			if n := len(lines()); n > 2 {
				t.Errorf("%d lines: %q", n, lines())
			}
			if adapter.engine.stream.run != nil {
				t.Error("the stream goes on")
			}
		})
	})
}

// FuzzLogFrames: whatever arrives, nothing panics, no message is greater than the
// caps, no byte is made up, and the body is closed.
func FuzzLogFrames(f *testing.F) {
	for mode, path := range []string{"testdata/logs/frames.raw", "testdata/logs/tty.raw"} {
		text, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text[:150], uint8(mode))
	}
	piece := bytes.Repeat([]byte("x"), engineChunk)
	f.Add([]byte(plainTime+"X"+plainTime+"end\n"), uint8(1))
	f.Add([]byte(plainTime+"a=b X"+plainTime+"a=b X"+plainTime+"a=b end\n"), uint8(3))
	f.Fuzz(func(t *testing.T, in []byte, mode uint8) {
		in = bytes.Replace(in, []byte("X"), piece, 80) // so that inputs can stay short and lines get long
		readWithinBounds(t, in, mode&1 > 0, mode&2 > 0)
		body := &fakeBody{text: bytes.NewReader(in), end: io.EOF}
		client := newFakeClient(t)
		client.containerInspect = func(context.Context, string) (container.InspectResponse, error) {
			answer := logContainer("exited")
			answer.Config.Tty = mode&1 > 0
			if mode&2 > 0 {
				answer.HostConfig = &container.HostConfig{LogConfig: container.LogConfig{Config: map[string]string{"labels": "a"}}}
			}
			return answer, nil
		}
		client.containerLogs = func(context.Context, string, container.LogsOptions) (io.ReadCloser, error) { return body, nil }
		var sink logSink
		err := newTestAdapter(t, client, plainTask(), WithLogRate(0)).PublishLogs(t.Context(), api.LogSubscriptionOptions{}, &sink)
		total := 0
		for _, m := range sink.messages {
			require.Contains(t, []api.LogStream{api.LogStreamStdout, api.LogStreamStderr}, m.Stream)
			require.NotEmpty(t, m.Data)
			require.LessOrEqual(t, len(m.Data), maxLogLine)
			require.LessOrEqual(t, len(m.Attrs), len(in))
			total += len(m.Data)
		}
		require.LessOrEqual(t, total, len(in))
		if mode&1 > 0 && err != nil { // all of a TTY's is text
			require.ErrorContains(t, err, "log line of more than 1048576 bytes on a TTY")
		}
		require.Equal(t, 1, body.closed)
	})
}

// FuzzScrubber makes scrubbers of any credentials. None panics, and no text
// becomes longer than it may be, or is no text any more.
func FuzzScrubber(f *testing.F) {
	f.Add([]byte(`{"auth":"dTr//g=="}`), "u:\xff\xfe") // a password that is no UTF-8
	f.Add([]byte(`{"username":"bob","password":"p/w+d=x","registrytoken":"abc"}`), "bob: https://bob:p/w+d=x@r/?a=b")
	f.Add([]byte(`{"Username":"(","PASSWORD":"[a-"}`), "( [a-")
	f.Fuzz(func(t *testing.T, credentials []byte, text string) {
		scrub := newScrubber(base64.URLEncoding.EncodeToString(credentials))
		for _, limit := range []int{3, 256} {
			cleaned := scrub.clean(text, limit)
			require.LessOrEqual(t, len(cleaned), limit)
			require.True(t, utf8.ValidString(cleaned))
		}
	})
}

// FuzzPull feeds a pull with anything.
func FuzzPull(f *testing.F) {
	files, err := filepath.Glob("testdata/pull/*/*.http")
	require.NoError(f, err)
	for _, file := range files {
		f.Add(readRecorded(f, file).body)
	}
	ref, err := reference.ParseNormalizedNamed("x")
	require.NoError(f, err)
	f.Fuzz(func(t *testing.T, body []byte) {
		closed := &closing{Reader: bytes.NewReader(body), closed: make(chan struct{})}
		client := pulling(t, func(context.Context) (io.ReadCloser, error) { return closed, nil })
		ctx, hook := logHook(t.Context())
		// Without an observer, whose calls take their time.
		shared := &sharedPull{}
		shared.state.reset(1, time.Now())
		result := newPullRun(NewEngine(client, WithPullAttempts(1)).pulls, shared, pullTarget{image: "x", ref: ref}).run(ctx)
		<-closed.closed
		err, last := result.errorFor("x"), shared.state.progress("x", time.Now())

		if err != nil && len(err.Error()) > maxErrorLength+100 {
			t.Error("a long error")
		}
		if len(last.Status) > maxStatusLength || last.LayersTotal > maxLayers || last.LayersDone+last.LayersActive > last.LayersTotal ||
			last.BytesDone < 0 || last.BytesTotal < 0 || last.BytesTotal > 0 && last.BytesDone > last.BytesTotal ||
			last.BytesPerSecond < 0 || last.Remaining < 0 {
			t.Errorf("%+v", last)
		}
		if lines := len(hook.AllEntries()); lines > maxTurns*(last.LayersTotal+1)+3 {
			t.Errorf("%d lines", lines)
		}
	})
}
