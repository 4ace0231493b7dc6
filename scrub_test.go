package dockerexec

import (
	"bytes"
	"context"
	"encoding/json"
	stderrors "errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	engineapi "github.com/docker/docker/client"
	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/moby/swarmkit/v2/api"
	"github.com/pkg/errors"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockerexec/dockerexec/dockerexectest"
)

// mountTask has a volume of the local driver with these options.
func mountTask(options map[string]string) *api.Task {
	task := plainTask()
	spec(task).Mounts = []api.Mount{{Type: api.MountTypeVolume, Source: "share", Target: "/share",
		VolumeOptions: &api.Mount_VolumeOptions{DriverConfig: &api.Driver{Name: "local", Options: options}}}}
	return task
}

var cifs = map[string]string{"type": "cifs", "device": "//10.9.8.7/share", "o": "addr=10.9.8.7,username=alice,password=Sup3rS3cret"}

func TestAnEnginesErrorShowsNoOptionOfAVolume(t *testing.T) {
	t.Parallel()
	nfs := map[string]string{"type": "nfs", "device": ":/export/data", "o": "addr=nas,sec=krb5,token=a"}
	for name, c := range map[string]struct {
		options    map[string]string
		says, want string
	}{
		"cifs, 20.10": {cifs,
			"error while mounting volume '/var/lib/docker/volumes/share/_data': failed to mount local volume: mount //10.9.8.7/share:/var/lib/docker/volumes/share/_data, data: addr=10.9.8.7,username=alice,password=Sup3rS3cret: permission denied",
			"error while mounting volume '/var/lib/docker/volumes/share/_data': failed to mount local volume: mount //10.9.8.7/share:/var/lib/docker/volumes/share/_data, data: xxxxx: permission denied"},
		"the address in another form": {cifs,
			"mount //10.9.8.7/share:/x, data: username=alice,password=Sup3rS3cret,addr=fd00::1: permission denied",
			"mount //10.9.8.7/share:/x, data: username=xxxxx,addr=fd00::1: permission denied"},
		"masked by the engine": {cifs,
			"mount //10.9.8.7/share:/x, data: addr=10.9.8.7,username=alice,password=****: permission denied",
			"mount //10.9.8.7/share:/x, data: addr=10.9.8.7,username=xxxxx,password=****: permission denied"},
		"the volume has an older password": {cifs,
			"mount //10.9.8.7/share:/x, data: addr=10.9.8.7,username=bob,password=0lder: permission denied",
			"mount //10.9.8.7/share:/x, data: addr=10.9.8.7,username=bob,password=xxxxx: permission denied"},
		"a comma in a password": {map[string]string{"type": "cifs", "device": "//nas/share", "o": "password=Sup3r,S3cret,vers=3.0"},
			"bad option in password=Sup3r,S3cret,vers=3.0,addr=10.9.8.7", "bad option in xxxxx,addr=10.9.8.7"},
		"nfs": {nfs,
			"failed to mount local volume: mount :/export/data:/var/lib/docker/volumes/share/_data, data: addr=10.9.8.7,sec=krb5,token=a: connection refused",
			"failed to mount local volume: mount :/export/data:/var/lib/docker/volumes/share/_data, data: addr=10.9.8.7,sec=krb5,token=xxxxx: connection refused"},
		"a folder of the host": {map[string]string{"type": "none", "device": "/srv/application/data", "o": "bind"},
			"failed to mount local volume: mount /srv/application/data:/x, flags: 0x1000: no such file or directory",
			"failed to mount local volume: mount /srv/application/data:/x, flags: 0x1000: no such file or directory"},
		"a user in the device": {map[string]string{"type": "davfs", "device": "https://alice:Sup3rS3cret@dav.example/x"},
			"mount https://alice:Sup3rS3cret@dav.example/x:/y failed for Sup3rS3cret",
			"mount https://dav.example/x:/y failed for xxxxx"},
		"in XML, with both names of the quotes": {map[string]string{"secret-access-key": `wJalr&F<M'I"/K7`},
			"<Message>the key wJalr&amp;F&lt;M&#39;I&#34;/K7 is not valid</Message>, wJalr&amp;F&lt;M&apos;I&quot;/K7", "<Message>the key xxxxx is not valid</Message>, xxxxx"},
		"another driver, quoted": {map[string]string{"passphrase": `pa"ss\w`, "bucket": "private-bucket-1"},
			`VolumeDriver.Create: bad options map[bucket:private-bucket-1 passphrase:pa"ss\w], {"Opts":{"passphrase":"pa\"ss\\w"}}, -o 'pa"ss\w', -o pa\"ss\\w, passphrase=pa%22ss%5Cw`,
			`VolumeDriver.Create: bad options map[bucket:xxxxx passphrase:xxxxx], {"Opts":{"passphrase":"xxxxx"}}, -o 'xxxxx', -o xxxxx, passphrase=xxxxx`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			engine := dockerexectest.New(t)
			engine.FailAll("POST *", dockerexectest.Refuse(http.StatusInternalServerError, c.says))
			adapter := adapterOn(t, engine, mountTask(c.options))
			require.EqualError(t, adapter.CreateVolumes(t.Context()), "create volume share with driver local: Error response from daemon: "+c.want)
			require.EqualError(t, adapter.Create(t.Context()), "create container web.1.taskid: Error response from daemon: "+c.want)
			err := adapter.Start(t.Context())
			require.EqualError(t, err, "start container web.1.taskid: Error response from daemon: "+c.want)
			assert.True(t, cerrdefs.IsInternal(err))
			assert.False(t, exec.IsTemporary(err))
		})
	}
}

func TestAnEnginesErrorShowsNoVariable(t *testing.T) {
	t.Parallel()
	task := plainTask()
	spec(task).Env = []string{
		"LEVEL=error", "HOST=localhost", "PEER=localhost:5432", "IP=10.20.30.40", "MODE=production", "NAME=web.1.taskid",
		"SHORT=abc1234", "TOKEN=abc12345", "DSN=postgres://app:s3cr3t-pw@db/x?sslmode=off", "OPTS=a=1,key=opensesame", `JSON={"a":"b c"}`,
		"EMPTY=", "UNSET", "SCOPE=connection", "DRIVER=journald",
		"PEM=first line of it\nc2VjcmV0LW9uZQ==\nlast", "KEYS=a2V5LW9uZS4=,a2V5LXR3by4uLg==", "AMQP=amqp://u:Tr0ub4d%263@mq",
	}
	attach(task, "backend-net", "10.1.0.0/24")
	engine := dockerexectest.New(t)
	adapter := adapterOn(t, engine, task)
	for says, want := range map[string]string{
		"error: dial tcp localhost:5432: lookup localhost":          "error: dial tcp localhost:5432: lookup localhost",
		"no route to 10.20.30.40 in production":                     "no route to 10.20.30.40 in production",
		"network backend-net of web.1.taskid: abc1234":              "network backend-net of web.1.taskid: abc1234",
		"connection refused by journald":                            "connection refused by journald",
		"line 2 is c2VjcmV0LW9uZQ==":                                "line 2 is xxxxx",
		"neither a2V5LW9uZS4= nor a2V5LXR3by4uLg== is known":        "neither xxxxx nor xxxxx is known",
		"Tr0ub4d%263, which is Tr0ub4d&3":                           "xxxxx, which is xxxxx",
		"invalid environment variable: TOKEN=abc12345":              "invalid environment variable: TOKEN=xxxxx",
		`env ["TOKEN=abc12345" "HOST=localhost"]`:                   `env ["TOKEN=xxxxx" "HOST=localhost"]`,
		"it was abc12345.":                                          "it was xxxxx.",
		"/srv/abc12345/x, abc12345-x, xabc12345, abc12345.web":      "/srv/abc12345/x, abc12345-x, xabc12345, abc12345.web",
		`line "x\nabc12345"`:                                        `line "x\nxxxxx"`,
		"q=%3Dabc12345%26":                                          "q=%3Dxxxxx%26",
		"app:abc12345@tcp(db)":                                      "app:xxxxx@tcp(db)",
		"DSN=postgres://app:s3cr3t-pw@db/x?sslmode=off refused":     "DSN=xxxxx refused",
		"connect app s3cr3t-pw: no":                                 "connect app xxxxx: no",
		"postgres%3A%2F%2Fapp%3As3cr3t-pw%40db%2Fx%3Fsslmode%3Doff": "xxxxx",
		"unknown opensesame":                                        "unknown xxxxx",
		`sh -c "echo {\"a\":\"b c\"}"`:                              `sh -c "echo xxxxx"`,
		`Get "https://s3.example/x?X-Amz-Signature=0123": EOF`:      `Get "https://s3.example/x": EOF`,
	} {
		engine.FailNext(startRequest, dockerexectest.Refuse(http.StatusInternalServerError, says))
		require.EqualError(t, adapter.Start(t.Context()), "start container web.1.taskid: Error response from daemon: "+want)
	}
}

// The regular expressions are applied to words, because they are slow. What they find in the
// whole text is the same.
func TestSecretsAreFoundInWordsAsInTheWholeText(t *testing.T) {
	t.Parallel()
	inAll := func(text string) string {
		text = anyPassword.ReplaceAllStringFunc(text, func(pair string) string {
			key, value, _ := strings.Cut(pair, "=")
			if strings.Trim(value, "*") == "" {
				return pair
			}
			return key + "=xxxxx"
		})
		return anyQuery.ReplaceAllString(anyURL.ReplaceAllStringFunc(text, cleanURL), "")
	}
	pieces := []string{" ", " ", "\t", "\n", "\r", "\v", `"`, "'", ",", ";", "&", ".", ":", "\\", "/", "//", "?", "=", "=", "**", "-", "_", "@", "#", "x", "1", "é",
		"\xff", "password", "PASSWD", "passphrase", "pass", "Pwd", "paſſ", "toKen", "token", "secret", "ſecret", "http:", "a=b", "user"}
	random := rand.New(rand.NewPCG(testSeed(t), 0))
	changed := 0
	for range 5_000 {
		var text string
		for range 1 + random.IntN(20) {
			text += pieces[random.IntN(len(pieces))]
		}
		want := inAll(text)
		if want != text {
			changed++
		}
		require.Equal(t, want, scrubber{}.hideIn(text, ""), "%q", text)
	}
	assert.Greater(t, changed, 300)
}

// The words of the classifiers are looked for in what the engine said, also where they
// are a task's secret.
func TestAnErrorIsJudgedByWhatTheEngineSaid(t *testing.T) {
	t.Parallel()
	task := plainTask()
	spec(task).Env = []string{"A=No such container", "B=is already in use", "C=reset by peer: 0123456789"}
	adapter := adapterOn(t, dockerexectest.New(t), task)
	_, err := adapter.Inspect(t.Context())
	require.EqualError(t, err, "inspect container web.1.taskid: Error response from daemon: xxxxx: web.1.taskid")
	assert.True(t, IsUnknownContainer(err))
	assert.True(t, cerrdefs.IsNotFound(err))
	assert.NoError(t, adapter.Remove(t.Context()))

	client := newFakeClient(t) // a user's fake hands out its errors as they are
	adapter = newTestAdapter(t, client, task)
	client.killing(&net.OpError{Op: "read", Net: "unix", Err: fmt.Errorf("reset by peer: 0123456789: %w", syscall.ECONNRESET)})
	err = adapter.Terminate(t.Context())
	require.EqualError(t, err, "kill container web.1.taskid: read unix: xxxxx: connection reset by peer")
	assert.True(t, exec.IsTemporary(err))
	assert.ErrorIs(t, err, syscall.ECONNRESET)
	var number syscall.Errno
	require.ErrorAs(t, err, &number)
	assert.Equal(t, syscall.ECONNRESET, number)
	var whole *net.OpError
	assert.False(t, errors.As(err, &whole), "it shows the secret")

	client.killing(slowAnswer("0123456789: reset by peer: 0123456789"))
	err = adapter.Terminate(t.Context())
	require.EqualError(t, err, "kill container web.1.taskid: 0123456789: xxxxx")
	assert.True(t, exec.IsTemporary(err), "a time-out passes")
}

// slowAnswer is a time-out that says so by its type alone.
type slowAnswer string

func (s slowAnswer) Error() string { return string(s) }
func (slowAnswer) Timeout() bool   { return true }
func (slowAnswer) Temporary() bool { return false }

// What shows no secret stays as it is, with all that is behind it. The query of the
// client's own request is no signed one.
func TestAnErrorWithoutASecretStaysAsItIs(t *testing.T) {
	t.Parallel()
	task := plainTask()
	spec(task).Env = []string{"TOKEN=abc12345"}
	client := newFakeClient(t)
	own := &url.Error{Op: "Get", URL: "http://engine/v1.41/containers/x/json?size=0", Err: syscall.ECONNREFUSED}
	client.killing(own)
	err := newTestAdapter(t, client, task).Terminate(t.Context())
	require.EqualError(t, err, `kill container web.1.taskid: Get "http://engine/v1.41/containers/x/json?size=0": connection refused`)
	assert.Same(t, own, errors.Cause(err))
}

// The values of templates and of payloads are known once they are read.
func TestAnEnginesErrorShowsNoPayload(t *testing.T) {
	t.Parallel()
	task := ownedTask()
	spec(task).Env = []string{"A={{.Node.Hostname}}-{{.Service.Name}}-pw"}
	engine, client := localEngine(t)
	adapter := newFilesAdapter(t, client, newTestStore(t), task, anyPayload("{\"first\": \"line of it\",\n\"password\":\"pay-L0ad\"}\n"))
	require.NoError(t, adapter.Create(t.Context()))
	engine.FailNext(killRequest, dockerexectest.Refuse(http.StatusInternalServerError, `it is node-1-web-pw, line of it, pay-L0ad, "{\"first\": \"line of it\",\n\"password\":\"pay-L0ad\"}\n", {"first":"line of it","password":"pay-L0ad"}`))
	require.EqualError(t, adapter.Terminate(t.Context()), `kill container web.1.taskid: Error response from daemon: it is xxxxx, xxxxx, xxxxx, "xxxxx", xxxxx`)
}

// A task that is refused, or that waits for its node, may have a container.
func TestTheSecretsOfATaskThatMakesNothing(t *testing.T) {
	t.Parallel()
	refused, waits := plainTask(), plainTask()
	spec(refused).Env = []string{"TOKEN=abc12345"}
	spec(refused).Secrets = []*api.SecretReference{nil, {SecretID: "s1"}}
	spec(refused).Mounts = []api.Mount{{Type: api.MountTypeCluster}}
	refused.Networks = []*api.NetworkAttachment{nil, {}}
	spec(waits).Env = []string{"TOKEN=abc12345", "NODE={{.Node.Hostname}}"}
	for name, task := range map[string]*api.Task{"refused": refused, "waits": waits} {
		kit := dockerexectest.New(t)
		kit.FailNext(stopRequest, dockerexectest.Refuse(http.StatusBadRequest, "no abc12345"))
		engine := NewEngine(kit.Client())
		adapter, err := engine.deferredAdapter(func() *api.NodeDescription { return nil }, task, nil)
		if err != nil {
			adapter, err = engine.refusedAdapter(task, err)
		}
		require.NoError(t, err, name)
		require.EqualError(t, adapter.Shutdown(t.Context()), "stop container web.1.taskid: Error response from daemon: no xxxxx", name)
	}
}

// canary is part of every secret of canaryTask, and stays as it is in every form of it.
const canary = "cAnArY"

const canaryPayload = "payload-" + canary + " of all"

// canaryTask has a secret wherever a task can have one. The values are all that must be
// seen nowhere.
func canaryTask(t *testing.T) (task *api.Task, values []string) {
	value := func(text string) string {
		text = fmt.Sprintf(text, canary)
		values = append(values, text)
		return text
	}
	options := func(kind string) map[string]string {
		return map[string]string{
			kind + "-password": value(kind + `-%s"pw$\é`),
			kind + "-endpoint": value("https://" + kind + ":pw%s@host.example/x?sig=1"),
			"o":                "addr=10.9.8.7,username=" + value(kind+"user%s") + ",password=" + value(kind+"%s'pass word"),
		}
	}
	task = ownedTask()
	attach(task, "backend", "10.1.0.0/24")
	attach(task, "frontend", "10.2.0.0/24")
	s := spec(task)
	s.Env = []string{"A=" + value("variable-%s <&>"), "B=" + value("two\nlines-%s"), "C=a=b,key=" + value("piece%s1")}
	s.PullOptions = &api.ContainerSpec_PullOptions{RegistryAuth: registryAuth(t, value("user%s"), value("registry-%s\"'"))}
	values = append(values, s.PullOptions.RegistryAuth)
	s.Mounts = []api.Mount{{Type: api.MountTypeVolume, Source: "data", Target: "/data",
		VolumeOptions: &api.Mount_VolumeOptions{DriverConfig: &api.Driver{Name: "local", Options: options("volume")}}}}
	task.Spec.LogDriver = &api.Driver{Name: "syslog", Options: options("log")}
	task.Networks[0].DriverAttachmentOpts = options("endpoint")
	n := task.Networks[0].Network
	n.Spec.DriverConfig = &api.Driver{Name: "bridge", Options: options("network")}
	n.IPAM.Driver = &api.Driver{Name: "default", Options: options("ipam")}
	n.Spec.IPAM = &api.IPAMOptions{Driver: &api.Driver{Name: "default", Options: options("range")}}
	n.DriverState = &api.Driver{Options: options("state")}
	return task, values
}

// quotes are the forms in which an error may quote a value.
var quotes = []func(string) string{
	func(v string) string { return v },
	strconv.Quote,
	strconv.QuoteToASCII,
	inJSON,
	func(v string) string { return strconv.Quote(inJSON(v)) },
	func(v string) string { return "'" + strings.ReplaceAll(v, "'", `'\''`) + "'" },
	url.QueryEscape,
	url.PathEscape,
}

func inJSON(v string) string {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(text)
}

// quotations has the values in one form.
func quotations(values []string, quote func(string) string) string {
	all := []string{`Get "https://signed.example/x?Signature=` + canary + `"`, "https://user:" + canary + "@proxy.example/?" + canary}
	for _, v := range values {
		all = append(all, quote(v))
	}
	return strings.Join(all, " | ")
}

// canaryClient makes a client of an engine each of whose answers, of the requests that
// fail, quotes the secrets, and so do its warnings and the end of a log.
func canaryClient(t *testing.T, engine *dockerexectest.Engine, fail func(request string) error, quoted error) *engineapi.Client {
	t.Helper()
	return through(t, engine, func(r *http.Request, next http.RoundTripper) (*http.Response, error) {
		request := r.Method + " " + strings.TrimPrefix(r.URL.Path, "/v1.43")
		if err := fail(request); err != nil {
			quote := answer{}
			if !errors.As(err, &quote) {
				return nil, err
			}
			text, _ := json.Marshal(map[string]string{"message": strings.TrimPrefix(err.Error(), "Error response from daemon: ")})
			return &http.Response{StatusCode: statusOf[quote.class], Request: r, Header: http.Header{"Content-Type": {"application/json"}},
				Body: io.NopCloser(bytes.NewReader(text))}, nil
		}
		response, err := next.RoundTrip(r)
		switch {
		case err != nil:
		case request == createRequest && response.StatusCode == http.StatusCreated:
			var made container.CreateResponse
			assert.NoError(t, json.NewDecoder(response.Body).Decode(&made))
			made.Warnings = []string{quoted.Error()}
			text, _ := json.Marshal(made)
			response.Body, response.ContentLength = io.NopCloser(bytes.NewReader(text)), int64(len(text))
		case strings.HasSuffix(request, "/logs"):
			response.Body = failingBody{response.Body, quoted}
		}
		return response, err
	}, engineapi.WithHost("unix:///run/docker.sock"))
}

var statusOf = map[error]int{
	cerrdefs.ErrInternal: 500, cerrdefs.ErrInvalidArgument: 400, cerrdefs.ErrNotFound: 404, cerrdefs.ErrConflict: 409, cerrdefs.ErrUnavailable: 503,
}

type failingBody struct {
	io.Closer
	err error
}

func (b failingBody) Read([]byte) (int, error) { return 0, b.err }

// isRequest reports whether a request is one of a pattern, in which "*" is any text.
func isRequest(request, pattern string) bool {
	begin, end, isOpen := strings.Cut(pattern, "*")
	return request == pattern || isOpen && len(request) > len(begin)+len(end) && strings.HasPrefix(request, begin) && strings.HasSuffix(request, end)
}

// errorForms are how a client may hand out an engine's answer, or the lack of one.
var errorForms = []struct {
	name string
	of   func(text string) error
	only string // the request that is answered so; empty: any
}{
	{"internal", func(text string) error { return answer{text, cerrdefs.ErrInternal} }, ""},
	{"refused", func(text string) error { return answer{text, cerrdefs.ErrInvalidArgument} }, ""},
	{"missing", func(text string) error { return answer{"No such container: " + text, cerrdefs.ErrNotFound} }, inspectRequest},
	{"no network", func(text string) error { return answer{"network " + text + " not found", cerrdefs.ErrNotFound} }, startRequest},
	{"taken", func(text string) error { return answer{"Conflict. The container name " + text, cerrdefs.ErrConflict} }, createRequest},
	{"exists", func(text string) error {
		return answer{"network with name backend already exists " + text, cerrdefs.ErrConflict}
	}, "POST /networks/create"},
	{"CPUs", func(text string) error {
		return answer{"range of CPUs is from 0.01 to 1.00, as there are only 1 CPUs available " + text, cerrdefs.ErrInvalidArgument}
	}, createRequest},
	{"lost start", func(text string) error { return answer{"task " + text + ": already exists", cerrdefs.ErrInternal} }, startRequest},
	{"too new", func(text string) error {
		return answer{"client version 1.43 is too new. Maximum supported API version is 1.43 " + text, cerrdefs.ErrInvalidArgument}
	}, ""},
	{"overloaded", func(text string) error { return errors.Wrap(answer{text, cerrdefs.ErrUnavailable}, text) }, ""},
	{"unreachable", func(text string) error {
		return &url.Error{Op: "Post", URL: "http://engine/?q=1", Err: fmt.Errorf("%s: %w", text, syscall.ECONNRESET)}
	}, ""},
	{"joined", func(text string) error { return stderrors.Join(errors.New("one"), errors.WithStack(errors.New(text))) }, ""},
	{"temporary", func(text string) error { return exec.MakeTemporary(errors.New(text)) }, ""},
}

// everyOperation calls all that an adapter and a controller can do, whatever fails.
var everyOperation = []struct {
	name string
	call func(context.Context, *ContainerAdapter, *controller) error
}{
	{"CreateNetworks", func(ctx context.Context, a *ContainerAdapter, _ *controller) error { return a.CreateNetworks(ctx) }},
	{"CreateVolumes", func(ctx context.Context, a *ContainerAdapter, _ *controller) error { return a.CreateVolumes(ctx) }},
	{"PullImage", func(ctx context.Context, a *ContainerAdapter, _ *controller) error { return a.PullImage(ctx) }},
	{"Create", func(ctx context.Context, a *ContainerAdapter, _ *controller) error { return a.Create(ctx) }},
	{"Prepare", func(ctx context.Context, _ *ContainerAdapter, c *controller) error { return c.Prepare(ctx) }},
	{"Start", func(ctx context.Context, a *ContainerAdapter, _ *controller) error { return a.Start(ctx) }},
	{"controller's Start", func(ctx context.Context, _ *ContainerAdapter, c *controller) error { return c.Start(ctx) }},
	{"Inspect", func(ctx context.Context, a *ContainerAdapter, _ *controller) error {
		_, err := a.Inspect(ctx)
		return err
	}},
	{"Events", func(ctx context.Context, a *ContainerAdapter, _ *controller) error {
		_, _, err := a.Events(ctx)
		return err
	}},
	{"Wait", func(ctx context.Context, a *ContainerAdapter, _ *controller) error { _, err := a.Wait(ctx); return err }},
	{"controller's Wait", func(ctx context.Context, _ *ContainerAdapter, c *controller) error { return c.Wait(ctx) }},
	{"ContainerStatus", func(ctx context.Context, _ *ContainerAdapter, c *controller) error {
		_, err := c.ContainerStatus(ctx)
		return err
	}},
	{"PortStatus", func(ctx context.Context, _ *ContainerAdapter, c *controller) error {
		_, err := c.PortStatus(ctx)
		return err
	}},
	{"Logs", func(ctx context.Context, a *ContainerAdapter, _ *controller) error {
		body, err := a.Logs(ctx, api.LogSubscriptionOptions{})
		if err == nil {
			body.Close()
		}
		return err
	}},
	{"PublishLogs", func(ctx context.Context, a *ContainerAdapter, _ *controller) error {
		return a.PublishLogs(ctx, api.LogSubscriptionOptions{}, exec.LogPublisherFunc(func(context.Context, api.LogMessage) error { return nil }))
	}},
	{"controller's Logs", func(ctx context.Context, _ *ContainerAdapter, c *controller) error {
		return c.Logs(ctx, exec.LogPublisherFunc(func(context.Context, api.LogMessage) error { return nil }), api.LogSubscriptionOptions{Follow: true})
	}},
	{"Shutdown", func(ctx context.Context, a *ContainerAdapter, _ *controller) error { return a.Shutdown(ctx) }},
	{"controller's Shutdown", func(ctx context.Context, _ *ContainerAdapter, c *controller) error { return c.Shutdown(ctx) }},
	{"Terminate", func(ctx context.Context, a *ContainerAdapter, _ *controller) error { return a.Terminate(ctx) }},
	{"controller's Terminate", func(ctx context.Context, _ *ContainerAdapter, c *controller) error { return c.Terminate(ctx) }},
	{"controller's Remove", func(ctx context.Context, _ *ContainerAdapter, c *controller) error { return c.Remove(ctx) }},
	{"Remove", func(ctx context.Context, a *ContainerAdapter, _ *controller) error { return a.Remove(ctx) }},
	{"RemoveNetworks", func(ctx context.Context, a *ContainerAdapter, _ *controller) error { return a.RemoveNetworks(ctx) }},
}

// TestSecretsCanary has an engine quote every secret of a task, in every form, in the
// answer to each request, and looks for them in every error and log line.
func TestSecretsCanary(t *testing.T) {
	t.Parallel()
	const both = "before and after the start"
	for request, when := range map[string]string{
		"*/_ping": "before", "GET /info": both, "POST /networks/create": "before", "GET /networks/*": "before", "POST /networks/*/connect": "before",
		"DELETE /networks/*": "after", "POST /volumes/create": "before", pullRequest: "before", "GET /images/*/json": "before", createRequest: "before",
		inspectRequest: both, startRequest: "before", stopRequest: "after", killRequest: "after", removeRequest: "after", "GET /containers/json": both,
		"GET /containers/*/logs": "after", eventsRequest: both,
	} {
		t.Run(request, func(t *testing.T) {
			t.Parallel()
			reached := false
			for i, form := range errorForms {
				for _, running := range []bool{false, true} {
					if when != both && running != (when == "after") || form.only != "" && form.only != request {
						continue
					}
					name := fmt.Sprintf("%s, %s, running %t", request, form.name, running)
					reached = canaryRun(t, request, name, running, func(values []string) error {
						var some []string // all in one text would take long to look through
						for j := i % 3; j < len(values); j += 3 {
							some = append(some, values[j])
						}
						return form.of("it broke here: " + quotations(some, quotes[i%len(quotes)]))
					}) || reached
				}
			}
			assert.True(t, reached, "no error of %s is shown", request)
		})
	}
}

// shownCanary is what stands around a secret in text, or nothing.
func shownCanary(text string) string {
	at := strings.Index(text, canary)
	if at < 0 {
		return ""
	}
	return text[max(0, at-100):min(len(text), at+60)]
}

// canaryRun calls every operation while a request fails, and reports whether its error is
// shown. If running is set, it fails only once the container runs.
func canaryRun(t *testing.T, request, name string, running bool, failure func(values []string) error) (reached bool) {
	synctest.Test(t, func(t *testing.T) {
		task, values := canaryTask(t)
		if running { // by then the files are written
			values = append(values, canaryPayload)
		}
		kit := dockerexectest.New(t, dockerexectest.WithAPIVersion("1.43"), dockerexectest.WithInfo(localInfo))
		kit.LocalImage("example/web:1", dockerexectest.UntilStopped(0))
		var fails atomic.Bool
		fails.Store(!running)
		client := canaryClient(t, kit, func(made string) error {
			if fails.Load() && (isRequest(made, request) || request == "GET /images/*/json" && made == pullRequest) {
				return failure(values)
			}
			return nil
		}, failure(values))
		ctx, hook := logHook(t.Context())
		var said strings.Builder
		note := func(operation string, err error) {
			fmt.Fprintf(&said, "%s: %v\n%+v\n%#v\n", operation, err, err, err)
			for _, e := range chain(err) {
				fmt.Fprintf(&said, "%v\n%+v\n%#v\n", e, e, e)
			}
		}
		store := newTestStore(t)
		engine := NewEngine(client, WithSecretsDir(store.dir), WithPullAttempts(2))
		engine.files = store
		deps := anyPayload(canaryPayload)
		adapter, err := engine.Adapter(goldenNode(), task, deps)
		require.NoError(t, err)
		ctlr := newController(adapter, api.TaskStatePreparing)
		for _, operation := range everyOperation {
			if running && operation.name == "Inspect" {
				fails.Store(true)
			}
			opCtx, cancel := context.WithTimeout(ctx, 5*time.Second)
			note(operation.name, operation.call(opCtx, adapter, ctlr))
			cancel()
			synctest.Wait()
		}
		status := taskAt(task.Copy(), api.TaskStateStarting)
		resolved, err := exec.Do(ctx, status, newController(adapter, api.TaskStateStarting))
		note("exec.Do", err)
		fmt.Fprintf(&said, "%s %s\n", resolved.Err, resolved.Message)
		for _, entry := range hook.AllEntries() {
			line, err := entry.String()
			require.NoError(t, err)
			said.WriteString(line)
			for _, field := range entry.Data {
				fmt.Fprintf(&said, "%v %+v\n", field, field)
			}
		}
		text := said.String()
		assert.Empty(t, shownCanary(text), name)
		reached = strings.Contains(text, "it broke here: ")
		time.Sleep(time.Hour) // what runs on ends
	})
	return reached
}

// chain is all that anybody finds behind err.
func chain(err error) (all []error) {
	if err == nil {
		return nil
	}
	if cause := errors.Cause(err); cause != err {
		all = append(all, cause)
	}
	for _, child := range behind(err) {
		all = append(append(all, child), chain(child)...)
	}
	for _, target := range []any{new(*url.Error), new(net.Error), new(exec.Temporary), new(answer), new(interface{ Cause() error })} {
		if errors.As(err, target) {
			all = append(all, fmt.Errorf("as %+v", target))
			switch target := target.(type) {
			case *net.Error:
				all = append(all, *target)
			case **url.Error:
				all = append(all, *target)
			case *answer:
				all = append(all, *target)
			}
		}
	}
	return all
}

// An engine's own error about a container is the text of its exit error.
func TestAnExitErrorShowsNoSecret(t *testing.T) {
	t.Parallel()
	task, values := canaryTask(t)
	client := newFakeClient(t)
	silentEvents(client)
	exited := exitedWith(127)
	exited.State.Error = "OCI runtime create failed: exec: "
	for _, quote := range quotes {
		exited.State.Error += quotations(append(values, canaryPayload), quote) + ": not found "
	}
	client.inspecting(exited, nil)
	adapter, err := NewEngine(client).Adapter(nil, task, anyPayload(canaryPayload))
	require.NoError(t, err)
	adapter.secrets.learn(valuePayload, canaryPayload)
	for name, wait := range map[string]func() error{
		"adapter": func() error {
			ended, err := adapter.Wait(t.Context())
			require.NoError(t, err)
			return ExitError(ended, nil)
		},
		"controller": func() error { return newController(adapter, api.TaskStateRunning).Wait(t.Context()) },
	} {
		err := wait()
		require.ErrorContains(t, err, "task: non-zero exit (127): OCI runtime create failed: exec: ", name)
		assert.Empty(t, shownCanary(err.Error()+" "+errors.Cause(err).Error()), name)
	}
	assert.Contains(t, exited.State.Error, canary, "the client's own answer is not changed")
}
