package dockerexec

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/events"
	"github.com/docker/docker/api/types/registry"
	"github.com/docker/docker/api/types/system"
	engineapi "github.com/docker/docker/client"
	"github.com/gogo/protobuf/jsonpb"
	gogotypes "github.com/gogo/protobuf/types"
	"github.com/moby/swarmkit/v2/agent/configs"
	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/moby/swarmkit/v2/agent/secrets"
	"github.com/moby/swarmkit/v2/api"
	"github.com/moby/swarmkit/v2/log"
	"github.com/sirupsen/logrus"
	logrustest "github.com/sirupsen/logrus/hooks/test"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/dockerexec/dockerexec/dockerexectest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// registryAuth is the form in which the API takes credentials.
func registryAuth(t testing.TB, user, password string) string {
	t.Helper()
	text, err := json.Marshal(registry.AuthConfig{Username: user, Password: password})
	require.NoError(t, err)
	return base64.URLEncoding.EncodeToString(text)
}

// plainTask uses nothing beyond an image.
func plainTask() *api.Task {
	return &api.Task{
		ID:                 "taskid",
		ServiceID:          "serviceid",
		NodeID:             "nodeid",
		Slot:               1,
		ServiceAnnotations: api.Annotations{Name: "web"},
		Spec: api.TaskSpec{Runtime: &api.TaskSpec_Container{
			Container: &api.ContainerSpec{Image: "example/web:1"},
		}},
	}
}

// taskName is how the engine calls the container of plainTask.
const taskName = "web.1.taskid"

var ofThisTask = map[string]string{"com.docker.swarm.task.id": "taskid"}

func spec(task *api.Task) *api.ContainerSpec { return task.Spec.GetContainer() }

// attach gives the task a bridge network with a subnet of its own.
func attach(task *api.Task, name, subnet string) {
	task.Networks = append(task.Networks, &api.NetworkAttachment{Network: &api.Network{
		ID:          "id-of-" + name,
		Spec:        api.NetworkSpec{Annotations: api.Annotations{Name: name}},
		DriverState: &api.Driver{Name: "bridge"},
		IPAM:        &api.IPAMOptions{Configs: []*api.IPAMConfig{{Subnet: subnet}}},
	}})
}

func attachment(n *api.Network) *api.NetworkAttachment { return &api.NetworkAttachment{Network: n} }

func namedNetwork(name string) *api.Network {
	return &api.Network{Spec: api.NetworkSpec{Annotations: api.Annotations{Name: name}}}
}

func withMount(m api.Mount) func(*api.Task) {
	return func(task *api.Task) { spec(task).Mounts = []api.Mount{m} }
}

func withPort(p *api.PortConfig) func(*api.Task) {
	return func(task *api.Task) { task.Endpoint = &api.Endpoint{Ports: []*api.PortConfig{p}} }
}

func withLimits(l api.Resources) func(*api.Task) {
	return func(task *api.Task) { task.Spec.Resources = &api.ResourceRequirements{Limits: &l} }
}

// numberedTask is plainTask with an ID of its own.
func numberedTask(n int) *api.Task {
	task := plainTask()
	task.ID = fmt.Sprintf("task%d", n)
	return task
}

// networkedTask has two networks and a volume of its own, so that a Prepare of
// it makes five calls.
func networkedTask() *api.Task {
	task := plainTask()
	attach(task, "backend", "10.1.0.0/24")
	attach(task, "frontend", "10.2.0.0/24")
	spec(task).Mounts = []api.Mount{{Type: api.MountTypeVolume, Source: "data", Target: "/data",
		VolumeOptions: &api.Mount_VolumeOptions{DriverConfig: &api.Driver{Name: "local"}}}}
	return task
}

// ownedTask has a secret and a config that belong to this process's user.
func ownedTask() *api.Task {
	task := plainTask()
	spec(task).Secrets = []*api.SecretReference{secretFile("s1", ownFile("password", 0o400))}
	spec(task).Configs = []*api.ConfigReference{configFile("c1", ownFile("/etc/web.conf", 0o444))}
	return task
}

// pullTask is a task of which only the image matters.
func pullTask(image string) *api.Task {
	task := plainTask()
	spec(task).Image = image
	return task
}

// canaryAuth are credentials that must be seen nowhere.
func canaryAuth(t testing.TB) string {
	t.Helper()
	return base64.URLEncoding.EncodeToString([]byte(
		`{"username":"canary-user","password":"canary-password","identitytoken":"canary-identity-token"}`))
}

// Golden requests: testdata/tasks/<concern>.task.json is a task, in protobuf's
// JSON with SwarmKit's field names, and <concern>.request.json, written by hand,
// is everything that an engine is asked for it. Fields that say nothing are left out.

var update = flag.Bool("update", false, "write testdata/tasks/*.request.json and the table of docs/fields.md anew; read the difference before you commit it")

// goldenNode is the node that all golden tasks run on.
func goldenNode() *api.NodeDescription {
	return &api.NodeDescription{Hostname: "node-1", Platform: &api.Platform{Architecture: "x86_64", OS: "linux"}}
}

// goldenNames lists the concerns.
func goldenNames(t testing.TB) []string {
	t.Helper()
	files, err := filepath.Glob("testdata/tasks/*.task.json")
	require.NoError(t, err)
	var names []string
	for _, f := range files {
		names = append(names, strings.TrimSuffix(filepath.Base(f), ".task.json"))
	}
	require.GreaterOrEqual(t, len(names), 40)
	requests, err := filepath.Glob("testdata/tasks/*.request.json")
	require.NoError(t, err)
	for _, f := range requests {
		require.Contains(t, names, strings.TrimSuffix(filepath.Base(f), ".request.json"), "a request without its task")
	}
	return names
}

func goldenTask(t testing.TB, name string) *api.Task {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata/tasks", name+".task.json"))
	require.NoError(t, err)
	return taskFromJSON(t, text)
}

// taskFromJSON decodes a task; encoding/json alone cannot fill a oneof.
func taskFromJSON(t testing.TB, text []byte) *api.Task {
	t.Helper()
	task := &api.Task{}
	require.NoError(t, jsonpb.Unmarshal(bytes.NewReader(text), task))
	return task
}

// rewrite writes a file of expectations anew.
func rewrite(t *testing.T, file string, content []byte) {
	t.Helper()
	require.Empty(t, os.Getenv("CI"), "-update is for people, who read what changed")
	require.NoError(t, os.WriteFile(file, content, 0o644))
}

// answer is an error as the client makes it of an engine's answer: a text and a
// class that are told apart.
type answer struct {
	text  string
	class error
}

func (a answer) Error() string        { return "Error response from daemon: " + a.text }
func (a answer) Is(target error) bool { return target == a.class }

// errAway is what the client says of an engine that does not run.
var errAway = &url.Error{Op: "Post", URL: "http://engine", Err: syscall.ECONNREFUSED}

var nameTaken = answer{`Conflict. The container name "/web.1.taskid" is already in use by container "c0". You have to remove (or rename) that container to be able to reuse that name.`, cerrdefs.ErrConflict}

// What a proxy before the engine says that lets no events through.
var errNoEvents = answer{"the path /events is not allowed", cerrdefs.ErrPermissionDenied}

// classesOf names the classes of errdefs that err has.
func classesOf(err error) (classes []string) {
	for _, class := range []error{
		cerrdefs.ErrUnknown, cerrdefs.ErrInvalidArgument, cerrdefs.ErrNotFound, cerrdefs.ErrPermissionDenied, cerrdefs.ErrUnauthenticated,
		cerrdefs.ErrResourceExhausted, cerrdefs.ErrInternal, cerrdefs.ErrUnavailable, cerrdefs.ErrDataLoss,
	} {
		if errors.Is(err, class) {
			classes = append(classes, class.Error())
		}
	}
	return classes
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

// logged returns a context with a logger of its own, down to debug, and what was
// logged to it at a level or above.
func logged(t testing.TB) (context.Context, func(logrus.Level) []string) {
	logger, hook := logrustest.NewNullLogger()
	logger.SetLevel(logrus.DebugLevel)
	return log.WithLogger(t.Context(), logrus.NewEntry(logger)), func(level logrus.Level) []string {
		var lines []string
		for _, entry := range hook.AllEntries() {
			if entry.Level <= level {
				lines = append(lines, entry.Message)
			}
		}
		return lines
	}
}

// logHook gives ctx a logger on level debug whose entries the hook has.
func logHook(ctx context.Context) (context.Context, *logrustest.Hook) {
	logger, hook := logrustest.NewNullLogger()
	logger.SetLevel(logrus.DebugLevel)
	return log.WithLogger(ctx, logrus.NewEntry(logger)), hook
}

// hooked returns a context with a logger of its own, and what it logs.
func hooked(t testing.TB) (context.Context, *logrustest.Hook) {
	logger, hook := logrustest.NewNullLogger()
	return log.WithLogger(t.Context(), logrus.NewEntry(logger)), hook
}

// linesOf gives ctx a logger of its own and returns what it logs at info or
// above, each line with its level.
func linesOf(ctx context.Context) (context.Context, func() []string) {
	logger, hook := logrustest.NewNullLogger()
	ctx = log.WithLogger(ctx, logrus.NewEntry(logger))
	return ctx, func() []string {
		var lines []string
		for _, entry := range hook.AllEntries() {
			line := entry.Level.String() + ": " + entry.Message
			for _, field := range []string{"gap", "error", "task.id"} {
				if value, ok := entry.Data[field]; ok {
					line += fmt.Sprintf(" %s=%v", field, value)
				}
			}
			lines = append(lines, line)
		}
		return lines
	}
}

// newContainerConfig translates a task of a node that is known.
func newContainerConfig(node *api.NodeDescription, task *api.Task) (*containerConfig, error) {
	return translateTask(node, true, task)
}

// bubble is synctest.Test with time for steps to end after the test. It fails if
// any goroutine does not.
func bubble(t *testing.T, test func(*testing.T)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		t.Cleanup(func() { time.Sleep(24 * time.Hour) })
		test(t)
	})
}

// asynchronously runs do and returns how to get its error.
func asynchronously(do func() error) func() error {
	done := make(chan error, 1)
	go func() { done <- do() }()
	return func() error { return <-done }
}

func isClosed(closed <-chan struct{}) bool {
	select {
	case <-closed:
		return true
	default:
		return false
	}
}

// cutStreams breaks an engine's streams of events, and waits until that is noticed.
func cutStreams(engine *dockerexectest.Engine) {
	engine.Down()
	engine.Up()
	synctest.Wait()
}

// settled lets the stream open and the inspects that belong to it pass.
func settled() {
	time.Sleep(2 * settleWindow)
	synctest.Wait()
}

func newTestConfig(t testing.TB, task *api.Task) *containerConfig {
	t.Helper()
	config, err := newContainerConfig(goldenNode(), task)
	require.NoError(t, err)
	return config
}

func newTestAdapter(t testing.TB, client *fakeClient, task *api.Task, opts ...Option) *ContainerAdapter {
	t.Helper()
	adapter, err := NewEngine(client, opts...).Adapter(nil, task, nil)
	require.NoError(t, err)
	return adapter
}

func adapterOf(t testing.TB, engine *Engine, task *api.Task) *ContainerAdapter {
	t.Helper()
	adapter, err := engine.Adapter(nil, task, nil)
	require.NoError(t, err)
	return adapter
}

// onFakeEngine returns an engine for tests that has the image of plainTask, and a function
// that makes one more adapter of that task, as another process would.
func onFakeEngine(t testing.TB, program dockerexectest.Program) (engine *dockerexectest.Engine, adapter func(...Option) *ContainerAdapter) {
	t.Helper()
	engine = dockerexectest.New(t)
	engine.LocalImage("example/web:1", program)
	return engine, func(opts ...Option) *ContainerAdapter { return adapterOn(t, engine, plainTask(), opts...) }
}

// adapterOn makes an adapter of a task as another process would.
func adapterOn(t testing.TB, engine *dockerexectest.Engine, task *api.Task, opts ...Option) *ContainerAdapter {
	t.Helper()
	return adapterOf(t, NewEngine(engine.Client(), opts...), task)
}

// through makes a client of an engine whose requests go through trip. next sends a
// request to the engine.
func through(t testing.TB, engine *dockerexectest.Engine, trip func(r *http.Request, next http.RoundTripper) (*http.Response, error), opts ...engineapi.Opt) *engineapi.Client {
	t.Helper()
	next := engine.Client().HTTPClient().Transport
	return engine.Client(append(opts, engineapi.WithHTTPClient(&http.Client{Transport: roundTrip(func(r *http.Request) (*http.Response, error) { return trip(r, next) })}))...)
}

// localInfo is what an engine says of itself that has a task's files.
var localInfo = system.Info{ID: "engine-1", Name: "host-1"}

// localEngine is an engine with the image of plainTask and its client, which is on this
// host as far as the client knows.
func localEngine(t testing.TB) (*dockerexectest.Engine, *engineapi.Client) {
	t.Helper()
	engine := dockerexectest.New(t, dockerexectest.WithInfo(localInfo))
	engine.LocalImage("example/web:1", dockerexectest.UntilStopped(0))
	return engine, engine.Client(engineapi.WithHost("unix:///run/docker.sock"))
}

// another has another client create and start a container.
func another(t testing.TB, engine *dockerexectest.Engine, name, image string, labels map[string]string) *dockerexectest.Container {
	t.Helper()
	client := engine.Client()
	_, err := client.ContainerCreate(t.Context(), &container.Config{Image: image, Labels: labels}, nil, nil, nil, name)
	require.NoError(t, err)
	require.NoError(t, client.ContainerStart(t.Context(), name, container.StartOptions{}))
	return engine.Container(name)
}

// bubbleBegan is where the clock of a bubble begins.
var bubbleBegan = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

// signalLog is what containers have got, each with the time since the bubble began.
type signalLog struct {
	mu   sync.Mutex
	list []string
}

// program is one that ends so long after its first signal, with 143.
func (s *signalLog) program(ending time.Duration) dockerexectest.Program {
	note := func(signal string) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.list = append(s.list, fmt.Sprint(signal, " ", time.Since(bubbleBegan)))
	}
	return func(p *dockerexectest.Process) int {
		var end <-chan time.Time
		for {
			select {
			case <-p.Signals:
				note("TERM")
				if end == nil {
					end = time.After(ending)
				}
			case <-end:
				return 143
			case <-p.Killed:
				if p.Container.Inspect().State.ExitCode == 137 {
					note("KILL")
				}
				return 137
			}
		}
	}
}

// got is for a bubble: it waits until nothing goes on.
func (s *signalLog) got() []string {
	synctest.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.list)
}

func inspected(id, status string, labels map[string]string) container.InspectResponse {
	return container.InspectResponse{
		ContainerJSONBase: &container.ContainerJSONBase{ID: id, Name: "/" + taskName, State: &container.State{Status: status}},
		Config:            &container.Config{Labels: labels},
	}
}

func exitedWith(code int) container.InspectResponse {
	answer := containerIs("exited")
	answer.State.ExitCode = code
	return answer
}

// containerIs is what an engine says about the container of plainTask.
func containerIs(status container.ContainerState) container.InspectResponse {
	return container.InspectResponse{ContainerJSONBase: &container.ContainerJSONBase{
		ID: "id-of-" + taskName, Name: "/" + taskName, State: &container.State{Status: status},
	}}
}

// running has every inspect answer with one status.
func running(client *fakeClient, status container.ContainerState) {
	client.containerInspect = func(context.Context, string) (container.InspectResponse, error) {
		return containerIs(status), nil
	}
}

// waiting is a Wait in its own goroutine.
type waiting struct {
	answer container.InspectResponse
	err    error
	took   time.Duration
	done   chan struct{}
}

func (w *waiting) over() bool { return isClosed(w.done) }

func startWait(ctx context.Context, adapter *ContainerAdapter) *waiting {
	w := &waiting{done: make(chan struct{})}
	begin := time.Now()
	go func() {
		defer close(w.done)
		w.answer, w.err = adapter.Wait(ctx)
		w.took = time.Since(begin)
	}()
	return w
}

// Requests that tests let fail or count.
const (
	pullRequest    = "POST /images/create"
	createRequest  = "POST /containers/create"
	startRequest   = "POST /containers/*/start"
	inspectRequest = "GET /containers/*/json"
	stopRequest    = "POST /containers/*/stop"
	killRequest    = "POST /containers/*/kill"
	removeRequest  = "DELETE /containers/*"
	eventsRequest  = "GET /events"
	infoRequest    = "GET /info"
	listRequest    = "GET /containers/json"
)

// webEngine is an engine for tests, with the image of plainTask in its registry.
func webEngine(t testing.TB, program dockerexectest.Program, image ...dockerexectest.ImageOption) *dockerexectest.Engine {
	t.Helper()
	engine := dockerexectest.New(t)
	engine.Image("example/web:1", program, image...)
	return engine
}

// obedient is a program that ends at a stop signal, with 128 and its number.
func obedient(p *dockerexectest.Process) int {
	select {
	case signal := <-p.Signals:
		return 128 + int(signal)
	case <-p.Killed:
		return 137
	}
}

// noExitEvent is what an engine says of a stop or kill whose end it has not seen.
const noExitEvent = "cannot stop container: web.1.taskid: tried to kill container, but did not receive an exit event"

// controllerOn is the controller of a task in a new process.
func controllerOn(t testing.TB, engine *dockerexectest.Engine, task *api.Task, opts ...Option) *controller {
	t.Helper()
	made, err := NewExecutor(engine.Client(), nil, opts...).Controller(task)
	require.NoError(t, err)
	return made.(*controller)
}

// reached takes a new task to a state.
func reached(t testing.TB, engine *dockerexectest.Engine, task *api.Task, state api.TaskState, opts ...Option) (*controller, *api.Task) {
	t.Helper()
	taskAt(task, api.TaskStateAccepted)
	ctlr := controllerOn(t, engine, task, opts...)
	drive(t.Context(), t, task, ctlr, state)
	require.Equal(t, state, task.Status.State, task.Status.Err)
	return ctlr, task
}

// runningWeb takes plainTask to RUNNING.
func runningWeb(t testing.TB, engine *dockerexectest.Engine) (*controller, *api.Task, *dockerexectest.Container) {
	t.Helper()
	ctlr, task := reached(t, engine, plainTask(), api.TaskStateRunning)
	return ctlr, task, engine.Container(taskName)
}

var engineID = regexp.MustCompile("[0-9a-f]{64}")

// asked lists what the engine was asked, but for pings and events: the name of what is made
// comes last, and ID stands for an ID.
func asked(engine *dockerexectest.Engine) []string {
	var list []string
	for _, r := range engine.Requests() {
		if r.Path == "/_ping" || r.Path == "/events" {
			continue
		}
		var body struct{ Name string }
		_ = json.Unmarshal(r.Body, &body)
		text := r.String() + " " + r.Query.Get("name") + body.Name
		list = append(list, strings.TrimSpace(engineID.ReplaceAllString(text, "ID")))
	}
	return list
}

// leftOn lists the containers and networks on the engine.
func leftOn(engine *dockerexectest.Engine) []string {
	var left []string
	for _, c := range engine.Containers() {
		left = append(left, "container "+c.Name())
	}
	for _, name := range engine.Networks() {
		left = append(left, "network "+name)
	}
	return left
}

// taskAt is a task that has come as far as state, and is wanted to run.
func taskAt(task *api.Task, state api.TaskState) *api.Task {
	task.Status.State, task.DesiredState = state, api.TaskStateRunning
	return task
}

// drive does with a task what SwarmKit's agent does, until it is in state or
// cannot go on.
func drive(ctx context.Context, t testing.TB, task *api.Task, ctlr exec.Controller, state api.TaskState) {
	t.Helper()
	for range 100 {
		if task.Status.State >= state {
			return
		}
		status, err := exec.Do(ctx, task, ctlr)
		require.NotNil(t, status)
		task.Status = *status
		switch err {
		case nil:
		case exec.ErrTaskRetry:
			time.Sleep(time.Second)
		case exec.ErrTaskNoop:
			return
		default:
			require.NoError(t, err)
		}
	}
	t.Errorf("the task stays in %v: %s", task.Status.State, task.Status.Err)
}

// rareCheck is a health check that does not run within a test.
func rareCheck() *api.HealthConfig {
	return &api.HealthConfig{Test: []string{"CMD", "check"}, Interval: gogotypes.DurationProto(10000 * time.Hour)}
}

// starting is a container with a health check that has just been created.
func starting(t *testing.T, image ...dockerexectest.ImageOption) (*dockerexectest.Engine, *controller, *api.Task) {
	t.Helper()
	engine, task := webEngine(t, obedient, image...), plainTask()
	spec(task).Healthcheck = rareCheck()
	ctlr, _ := reached(t, engine, task, api.TaskStateStarting)
	return engine, ctlr, task
}

// methods are those that end with their context and with Close.
var methods = []struct {
	name string
	call func(context.Context, *controller) error
}{
	{"Update", func(ctx context.Context, c *controller) error { return c.Update(ctx, plainTask()) }},
	{"Prepare", func(ctx context.Context, c *controller) error { return c.Prepare(ctx) }},
	{"Start", func(ctx context.Context, c *controller) error { return c.Start(ctx) }},
	{"Wait", func(ctx context.Context, c *controller) error { return c.Wait(ctx) }},
	{"Shutdown", func(ctx context.Context, c *controller) error { return c.Shutdown(ctx) }},
	{"Terminate", func(ctx context.Context, c *controller) error { return c.Terminate(ctx) }},
	{"Remove", func(ctx context.Context, c *controller) error { return c.Remove(ctx) }},
	{"Logs", func(ctx context.Context, c *controller) error {
		return c.Logs(ctx, exec.LogPublisherFunc(func(context.Context, api.LogMessage) error { return nil }), api.LogSubscriptionOptions{Follow: true})
	}},
	{"ContainerStatus", func(ctx context.Context, c *controller) error { _, err := c.ContainerStatus(ctx); return err }},
	{"PortStatus", func(ctx context.Context, c *controller) error { _, err := c.PortStatus(ctx); return err }},
}

// anyPayload has every secret and config, all with itself as the payload.
type anyPayload string

func (p anyPayload) Secrets() exec.SecretGetter {
	return secretFunc(func(id string) (*api.Secret, error) {
		return &api.Secret{ID: id, Spec: api.SecretSpec{Data: []byte(p)}}, nil
	})
}

func (p anyPayload) Configs() exec.ConfigGetter {
	return configFunc(func(id string) (*api.Config, error) {
		return &api.Config{ID: id, Spec: api.ConfigSpec{Data: []byte(p)}}, nil
	})
}

func (p anyPayload) Volumes() exec.VolumeGetter {
	return pathGetter(func(id string) (string, error) { return "/published/" + id, nil })
}

type pathGetter func(id string) (string, error)

func (get pathGetter) Get(id string) (string, error) { return get(id) }

type secretFunc func(id string) (*api.Secret, error)

func (f secretFunc) Get(id string) (*api.Secret, error) { return f(id) }

type configFunc func(id string) (*api.Config, error)

func (f configFunc) Get(id string) (*api.Config, error) { return f(id) }

func secretFile(id string, file *api.FileTarget) *api.SecretReference {
	return &api.SecretReference{SecretID: id, SecretName: "name-of-" + id, Target: &api.SecretReference_File{File: file}}
}

func configFile(id string, file *api.FileTarget) *api.ConfigReference {
	return &api.ConfigReference{ConfigID: id, ConfigName: "name-of-" + id, Target: &api.ConfigReference_File{File: file}}
}

// stores are an agent's, with two secrets and two configs.
func stores(templates ...string) getters {
	s, c := secrets.NewManager(), configs.NewManager()
	s.Add(api.Secret{ID: "s1", Spec: api.SecretSpec{Data: []byte("payload of s1")}},
		api.Secret{ID: "other", Spec: api.SecretSpec{Data: []byte("payload of other")}})
	c.Add(api.Config{ID: "c1", Spec: api.ConfigSpec{Data: []byte("payload of c1")}},
		api.Config{ID: "other", Spec: api.ConfigSpec{Data: []byte("payload of other")}})
	for _, text := range templates {
		s.Add(api.Secret{ID: "template", Spec: api.SecretSpec{Data: []byte(text), Templating: &api.Driver{Name: "golang"}}})
		c.Add(api.Config{ID: "template", Spec: api.ConfigSpec{Data: []byte(text), Templating: &api.Driver{Name: "golang"}}})
	}
	return getters{secrets: s, configs: c}
}

// newTestStore is a store in a folder that is still to be made, of which it
// believes that it is in memory.
func newTestStore(t testing.TB) fileStore {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("files of tasks need Linux")
	}
	s := newFileStore(filepath.Join(t.TempDir(), "a", "secrets"))
	s.inMemory = func(*os.File) (bool, error) { return true, nil }
	return s
}

// ownFile is a file's target with this process's user as its owner.
func ownFile(name string, mode fs.FileMode) *api.FileTarget {
	return &api.FileTarget{Name: name, UID: strconv.Itoa(os.Getuid()), GID: strconv.Itoa(os.Getgid()), Mode: mode}
}

func testFile(source, payload string, mode fs.FileMode) filePayload {
	return filePayload{taskFile{dependency: dependency{id: "id-of-" + source}, source: source, uid: os.Getuid(), gid: os.Getgid(), mode: mode}, []byte(payload)}
}

// tree lists all below a folder as "PATH MODE CONTENT", or nothing if it is not
// there. A link is not followed.
func tree(t testing.TB, dir string) []string {
	t.Helper()
	var list []string
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		name, err := filepath.Rel(dir, path)
		require.NoError(t, err)
		info, err := os.Lstat(path)
		require.NoError(t, err)
		line := name + " " + info.Mode().String()
		if info.Mode().IsRegular() {
			content, err := os.ReadFile(path)
			require.NoError(t, err)
			line += " " + string(content)
		}
		list = append(list, line)
		return nil
	})
	if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ENOTDIR) {
		require.NoError(t, err)
	}
	return list
}

// newFilesEngine is an Engine with its files in a folder that counts as memory.
func newFilesEngine(t testing.TB, client engineapi.APIClient, store fileStore) *Engine {
	t.Helper()
	engine := NewEngine(client, WithSecretsDir(store.dir))
	engine.files = store
	return engine
}

func newFilesAdapter(t testing.TB, client engineapi.APIClient, store fileStore, task *api.Task, deps exec.DependencyGetter) *ContainerAdapter {
	t.Helper()
	adapter, err := newFilesEngine(t, client, store).Adapter(goldenNode(), task, deps)
	require.NoError(t, err)
	return adapter
}

// written is what ownedTask has in its store.
var written = []string{
	"engine-1 drwx------",
	"engine-1/taskid drwx------",
	"engine-1/taskid/config.0 -r--r--r-- payload of c1",
	"engine-1/taskid/engine -r-------- unix:///run/docker.sock host-1",
	"engine-1/taskid/secret.0 -r-------- payload of s1",
}

// at is a nanosecond of 1 January 2001.
const at = int64(978307200_000000000)

// event is one that an engine sends about a task's container, at a nanosecond.
func event(task *api.Task, action events.Action, nano int64) events.Message {
	name := "web.1." + task.ID
	return events.Message{
		Type: events.ContainerEventType, Action: action, TimeNano: nano, Time: nano / 1e9,
		Actor: events.Actor{ID: "id-of-" + name, Attributes: map[string]string{
			"com.docker.swarm.task": "", "com.docker.swarm.task.id": task.ID, "name": name, "image": "example/web:1",
		}},
	}
}

// subscribed is one subscription of a test.
type subscribed struct {
	messages <-chan events.Message
	closed   <-chan struct{}
}

func subscribe(ctx context.Context, t testing.TB, adapter *ContainerAdapter) subscribed {
	t.Helper()
	messages, closed, err := adapter.Events(ctx)
	require.NoError(t, err)
	return subscribed{messages, closed}
}

// silentEvents has every request for events established, and no event come.
func silentEvents(client *fakeClient) {
	client.events = func(context.Context, events.ListOptions) (<-chan events.Message, <-chan error) {
		return make(chan events.Message), make(chan error)
	}
}

func numberedAdapters(t testing.TB, engine *Engine, count int) []*ContainerAdapter {
	adapters := make([]*ContainerAdapter, count)
	for n := range adapters {
		adapter, err := engine.Adapter(nil, numberedTask(n), nil)
		require.NoError(t, err)
		adapters[n] = adapter
	}
	return adapters
}

// readLogs returns what r hands out, each as "1:payload", and how it ended.
func readLogs(r logReader) (messages []string, err error) {
	for {
		stream, payload, err := r.next()
		if err != nil {
			return messages, err
		}
		messages = append(messages, string('0'+rune(stream))+":"+string(payload))
	}
}

// plainTime is 31 bytes, with the space.
const plainTime = "2026-01-02T03:04:05.000000006Z "

// twoLines is a log of one line on each stream.
var twoLines = []logRecord{
	{1, "2026-01-02T03:04:05.000000006Z", "one\n"},
	{2, "2026-01-02T03:04:06.000000000Z", "two\n"},
}

// publishing makes an adapter whose container has the statuses, one for each
// inspect, and the log l.
func publishing(t *testing.T, l *fakeLog, list []string, opts ...Option) (*fakeClient, *ContainerAdapter) {
	client := newFakeClient(t)
	statuses(client, list...)
	client.containerLogs = func(_ context.Context, _ string, o container.LogsOptions) (io.ReadCloser, error) {
		return l.open(o, -1, nil), nil
	}
	return client, newTestAdapter(t, client, plainTask(), opts...)
}

// testSeed is for a test's random choices. A test that fails shows it, and
// DOCKEREXEC_TEST_SEED repeats it, though not the timing.
func testSeed(t testing.TB) uint64 {
	t.Helper()
	seed := uint64(time.Now().UnixNano())
	if text := os.Getenv("DOCKEREXEC_TEST_SEED"); text != "" {
		var err error
		seed, err = strconv.ParseUint(text, 10, 64)
		require.NoError(t, err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("DOCKEREXEC_TEST_SEED=%d", seed)
		}
	})
	return seed
}
