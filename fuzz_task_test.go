package dockerexec

import (
	"encoding/base64"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"sync"
	"testing"

	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/moby/swarmkit/v2/api"
	"github.com/stretchr/testify/require"
)

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
	config = config.withDependencies("/files", []byte("{}"))
	request := requestOf(config)
	second, err := newContainerConfig(goldenNode(), task)
	require.NoError(t, err)
	for _, other := range []*containerConfig{config, second.withDependencies("/files", []byte("{}"))} {
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
		c.volumes(), c.platform(), c.pullOptions().Platform, c.stopOptions(), c.warnings(), c.needs,
	}
}

// checkNamesField checks that a refusal begins with the path of a field that a
// task has.
func checkNamesField(t *testing.T, err error) {
	t.Helper()
	rest, ok := strings.CutPrefix(err.Error(), "dockerexec: task field ")
	require.True(t, ok, "%v", err)
	typ := reflect.TypeFor[api.Task]()
	for part := range strings.SplitSeq(rest, ".") {
		name := part[:strings.IndexFunc(part+":", func(r rune) bool { return r == ':' || r == '[' })]
		next := fieldType(typ, name)
		require.NotNil(t, next, "%v: %s has no field %q", err, typ, name)
		if typ = next; name != part { // an index or the end of the path: what follows may be anything
			if end := strings.Index(part, "]"); strings.HasPrefix(part[len(name):], "[") && end == len(part)-1 {
				continue
			}
			return
		}
	}
}

// fieldType is the type of a message's field, without pointers and slices; a
// choice of a oneof counts as a field.
func fieldType(message reflect.Type, name string) reflect.Type {
	if message.Kind() != reflect.Struct {
		return nil
	}
	f, ok := message.FieldByName(name)
	if !ok {
		oneof, is := reflect.New(message).Interface().(interface{ XXX_OneofWrappers() []any })
		if !is {
			return nil
		}
		for _, w := range oneof.XXX_OneofWrappers() {
			if choice := reflect.TypeOf(w).Elem().Field(0); choice.Name == name {
				f, ok = choice, true
			}
		}
	}
	for ok && (f.Type.Kind() == reflect.Pointer || f.Type.Kind() == reflect.Slice) {
		f.Type = f.Type.Elem()
	}
	return f.Type
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
