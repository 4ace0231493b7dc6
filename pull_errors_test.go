package dockerexec

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errhttp"
	engineapi "github.com/docker/docker/client"
	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/moby/swarmkit/v2/api"
	pkgerrors "github.com/pkg/errors"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockerexec/dockerexec/dockerexectest"
)

// cut answers a pull with a body that its transport breaks off.
func cut(err error) func(context.Context) (io.ReadCloser, error) {
	return func(context.Context) (io.ReadCloser, error) {
		return io.NopCloser(io.MultiReader(strings.NewReader(`{"status":"x"}`), endWith{err})), nil
	}
}

func inStream(text string) func(context.Context) (io.ReadCloser, error) {
	return stream(`{"error":"` + text + `"}`)
}

func TestPullRetries(t *testing.T) {
	t.Parallel()
	internal, notFound := cerrdefs.ErrInternal, cerrdefs.ErrNotFound
	for name, test := range map[string]struct {
		answer    func(context.Context) (io.ReadCloser, error)
		tries     int
		temporary bool
		class     func(error) bool
	}{
		// Faults of the registry, in the words of running engines.
		"20.10, denied":         {refusal(answer{"unauthorized: authentication required", internal}), 1, false, cerrdefs.IsUnauthorized},
		"29, denied":            {refusal(answer{`unknown: failed to resolve reference "r/x:1": unexpected status from HEAD request to http://r/v2/x/manifests/1: 401 Unauthorized`, internal}), 1, false, cerrdefs.IsUnauthorized},
		"20.10, no credentials": {refusal(answer{`Head "http://r/v2/x/manifests/1": no basic auth credentials`, internal}), 1, false, cerrdefs.IsUnauthorized},
		"28, denied":            {refusal(answer{"pull access denied for x, repository does not exist or may require 'docker login': denied: requested access to the resource is denied", notFound}), 1, false, cerrdefs.IsPermissionDenied},
		"29, forbidden":         {refusal(answer{"error from registry: denied\ndenied", internal}), 1, false, cerrdefs.IsPermissionDenied},
		"20.10, no such tag":    {refusal(answer{"manifest for r/x:1 not found: manifest unknown: manifest unknown", notFound}), 1, false, cerrdefs.IsNotFound},
		"29, no such tag":       {refusal(answer{`failed to resolve reference "r/x:1": r/x:1: not found`, notFound}), 1, false, cerrdefs.IsNotFound},
		"20.10, platform":       {inStream("no matching manifest for linux/arm64 in the manifest list entries"), 1, false, cerrdefs.IsNotFound},
		"bad platform":          {refusal(answer{`"x": cannot parse platform specifier: invalid argument`, cerrdefs.ErrInvalidArgument}), 1, false, cerrdefs.IsInvalidArgument},
		"bad reference":         {refusal(errors.New("invalid reference format: repository name must be lowercase")), 1, false, cerrdefs.IsInvalidArgument},
		"certificate":           {refusal(answer{`Get "https://r/v2/": x509: certificate signed by unknown authority`, internal}), 1, false, cerrdefs.IsInternal},
		"disk full":             {inStream("failed to register layer: write /x: no space left on device"), 1, false, nil},
		"disk full, odd path":   {inStream("failed to register layer: write /srv/http/500.html: no space left on device"), 1, false, nil},
		"a number in a path":    {inStream("failed to register layer: open /var/www/http/404 page: no such file"), 3, false, nil},
		"garbage":               {stream("<html>"), 1, false, nil},
		"unknown, bad request":  {refusal(answer{"boom", cerrdefs.ErrInvalidArgument}), 1, false, cerrdefs.IsInvalidArgument},
		"unknown, not found":    {refusal(answer{"boom", notFound}), 1, false, cerrdefs.IsNotFound},
		"disk quota":            {inStream("failed to register layer: write /x: disk quota exceeded"), 1, false, nil},
		"read-only disk":        {inStream("mkdir /x: read-only file system"), 1, false, nil},
		"another system's":      {inStream(`image operating system \"windows\" cannot be used on this platform`), 1, false, cerrdefs.IsNotFound},

		// Refusals as a page, or bare: the status decides.
		"a page, 401":                {refusal(answer{`error parsing HTTP 401 response body: invalid character '<' looking for beginning of value: "<html>try later</html>"`, internal}), 1, false, cerrdefs.IsUnauthorized},
		"a page, 403":                {refusal(answer{`error parsing HTTP 403 response body: invalid character '<' looking for beginning of value: "<html>\"timeout\"</html>"`, internal}), 1, false, cerrdefs.IsPermissionDenied},
		"a page, 404":                {refusal(answer{`error parsing HTTP 404 response body: invalid character '<' looking for beginning of value: "<html>"`, internal}), 1, false, cerrdefs.IsNotFound},
		"a page, 402":                {refusal(answer{`error parsing HTTP 402 response body: invalid character '<' looking for beginning of value: "<html>the plan has ended</html>"`, internal}), 1, false, cerrdefs.IsPermissionDenied},
		"a page, 405, in stream":     {inStream(`error parsing HTTP 405 response body: invalid character '<' looking for beginning of value: \"<html>blocked</html>\"`), 1, false, cerrdefs.IsPermissionDenied},
		"a page, 407":                {refusal(answer{`error parsing HTTP 407 response body: invalid character '<' looking for beginning of value: "<!DOCTYPE html>"`, internal}), 1, false, cerrdefs.IsUnauthorized},
		"a page, 410, in stream":     {inStream(`error parsing HTTP 410 response body: invalid character '<' looking for beginning of value: \"<h1>moved</h1>\"`), 1, false, cerrdefs.IsNotFound},
		"bare, 402":                  {refusal(answer{`Head "https://r/v2/x/manifests/1": Payment Required`, internal}), 1, false, cerrdefs.IsPermissionDenied},
		"a proxy's, 405":             {refusal(answer{"Method Not Allowed", errhttp.ToNative(http.StatusMethodNotAllowed)}), 1, false, cerrdefs.IsPermissionDenied},
		"a page, 403, in stream":     {inStream(`error parsing HTTP 403 response body: invalid character '<' looking for beginning of value: \"<html>\"`), 1, false, cerrdefs.IsPermissionDenied},
		"bare, 401":                  {refusal(answer{`Get "https://r/v2/": Unauthorized`, internal}), 1, false, cerrdefs.IsUnauthorized},
		"bare, 403":                  {refusal(answer{`Get "https://r/v2/": Forbidden`, internal}), 1, false, cerrdefs.IsPermissionDenied},
		"bare, 404":                  {refusal(answer{`Get "https://r/v2/": Not Found`, internal}), 1, false, cerrdefs.IsNotFound},
		"a word, 403, in stream":     {inStream("Forbidden"), 1, false, cerrdefs.IsPermissionDenied},
		"a word, 502, in stream":     {inStream("Bad Gateway"), 3, false, cerrdefs.IsUnavailable},
		"XML of a store, 403":        {inStream(`error pulling image configuration: download failed after attempts=1: error parsing HTTP 403 response body: invalid character '<' looking for beginning of value: \"<?xml version='1.0'?><Error>\"`), 1, false, cerrdefs.IsPermissionDenied},
		"a proxy's words for 401":    {refusal(answer{`Get "https://r/v2/": Authorization Required`, internal}), 1, false, cerrdefs.IsUnauthorized},
		"a proxy's, 407":             {refusal(answer{`Get "https://r/v2/": Proxy Authentication Required`, internal}), 1, false, cerrdefs.IsUnauthorized},
		"29, a status of a token":    {refusal(answer{`failed to resolve reference "r/x:1": failed to authorize: failed to fetch anonymous token: unexpected status from GET request to https://r/token?scope=500: 403 Forbidden`, internal}), 1, false, cerrdefs.IsPermissionDenied},
		"a refusal by law":           {refusal(answer{"received unexpected HTTP status: 451 Unavailable For Legal Reasons", internal}), 1, false, cerrdefs.IsPermissionDenied},
		"29, a status code":          {inStream("failed to copy: httpReadSeeker: failed open: unexpected status code https://r/v2/x/blobs/sha256:0: 410 Gone - Server message: none"), 1, false, cerrdefs.IsNotFound},
		"20.10, a bad request":       {refusal(answer{"received unexpected HTTP status: 400 Bad Request", internal}), 1, false, cerrdefs.IsInvalidArgument},
		"a code of 403, in stream":   {stream(`{"errorDetail":{"code":403,"message":"boom"}}`), 1, false, cerrdefs.IsPermissionDenied},
		"a code of 404, in stream":   {stream(`{"errorDetail":{"code":404,"message":"boom"}}`), 1, false, cerrdefs.IsNotFound},
		"a page, 503, of a registry": {refusal(answer{`error parsing HTTP 503 response body: invalid character '<' looking for beginning of value: "<html>404 not found</html>"`, internal}), 3, false, cerrdefs.IsUnavailable},
		"a page, 502, of a registry": {refusal(answer{`error parsing HTTP 502 response body: invalid character '<' looking for beginning of value: "<html>502 Bad Gateway</html>"`, internal}), 3, false, cerrdefs.IsUnavailable},
		"bare, 502, of a registry":   {refusal(answer{`Get "https://r/v2/": Bad Gateway`, internal}), 3, false, cerrdefs.IsUnavailable},
		"a limit with a 403":         {refusal(answer{"unexpected status from HEAD request to https://r/v2/x/manifests/1: 403 Forbidden: rate limit exceeded", internal}), 3, false, cerrdefs.IsResourceExhausted},
		"a code of 429, in stream":   {stream(`{"errorDetail":{"code":429,"message":"boom"}}`), 3, false, cerrdefs.IsResourceExhausted},

		// Faults of the transport, and what nobody knows: the attempts bound them.
		"unknown, in stream":       {inStream("boom"), 3, false, nil},
		"unknown, plain":           {refusal(errors.New("boom")), 3, false, nil},
		"unknown, conflict":        {refusal(answer{"boom", cerrdefs.ErrConflict}), 3, false, cerrdefs.IsConflict},
		"HTTP/2 goes away":         {inStream(`http2: server sent GOAWAY and closed the connection; LastStreamID=1, ErrCode=NO_ERROR, debug=\"\"`), 3, false, cerrdefs.IsUnavailable},
		"a stream is reset":        {inStream("stream error: stream ID 5; INTERNAL_ERROR; received from peer"), 3, false, cerrdefs.IsUnavailable},
		"TLS":                      {inStream("local error: tls: bad record MAC"), 3, false, cerrdefs.IsUnavailable},
		"a closed connection":      {inStream("read tcp 1.2.3.4:404->6.7.8.9:403: use of closed network connection"), 3, false, cerrdefs.IsUnavailable},
		"a reset while it is read": {inStream("read tcp 1.2.3.4:5->6.7.8.9:443: read: connection reset by peer"), 3, false, cerrdefs.IsUnavailable},
		"a broken pipe":            {inStream("write tcp 1.2.3.4:5->6.7.8.9:443: write: broken pipe"), 3, false, cerrdefs.IsUnavailable},
		"a reset, bare":            {inStream("connection reset by peer"), 3, false, cerrdefs.IsUnavailable},
		"a pipe, bare":             {inStream("failed to copy: broken pipe"), 3, false, cerrdefs.IsUnavailable},
		"a server closes":          {refusal(answer{`Get "https://r/v2/": http: server closed idle connection`, internal}), 3, false, cerrdefs.IsUnavailable},
		"a closed one, bare":       {inStream("use of closed network connection"), 3, false, cerrdefs.IsUnavailable},
		"containerd, in its code":  {inStream("rpc error: code = Unavailable desc = transport is closing"), 3, false, cerrdefs.IsUnavailable},
		"a slow request, 408":      {refusal(answer{`error parsing HTTP 408 response body: unexpected end of JSON input: ""`, internal}), 3, false, cerrdefs.IsUnavailable},
		"a firewall is in the way": {inStream(`Get \"https://r/v2/\": dial tcp 6.7.8.9:443: connect: permission denied`), 3, false, cerrdefs.IsUnavailable},
		"an odd resolver":          {inStream("dial tcp: lookup r: host not found"), 3, false, cerrdefs.IsUnavailable},
		"no route":                 {inStream("dial tcp 6.7.8.9:443: connect: no route to host"), 3, false, cerrdefs.IsUnavailable},
		"a time-out":               {inStream(`Get \"https://r/v2/\": context deadline exceeded`), 3, false, cerrdefs.IsUnavailable},
		"containerd":               {inStream("Unavailable: error reading from server: connection reset by peer"), 3, false, cerrdefs.IsUnavailable},
		"29, an odd size":          {inStream(`failed commit on ref \"layer-sha256:0\": unexpected commit size 404, expected 500: failed precondition`), 3, false, cerrdefs.IsDataLoss},
		"29, an odd digest":        {inStream("unexpected commit digest sha256:0, expected sha256:1: failed precondition"), 3, false, cerrdefs.IsDataLoss},
		"29, a status of a CDN":    {inStream("unexpected status from GET request to https://r/v2/x/blobs/sha256:0: 520"), 3, false, cerrdefs.IsUnavailable},
		"numbers":                  {inStream("write /x/404: input/output error after 403 of 500 bytes"), 3, false, nil},
		"an address":               {inStream("status unknown of proxy :403"), 3, false, nil},

		"unknown, 500":             {refusal(answer{"boom", internal}), 3, false, cerrdefs.IsInternal},
		"20.10, rate limit":        {refusal(answer{"toomanyrequests: You have reached your pull rate limit.", internal}), 3, false, cerrdefs.IsResourceExhausted},
		"20.10, rate limit, plain": {refusal(answer{`error parsing HTTP 429 response body: invalid character 's' looking for beginning of value: "slow down"`, internal}), 3, false, cerrdefs.IsResourceExhausted},
		"29, rate limit":           {refusal(answer{`unknown: failed to resolve reference "r/x:1": unexpected status from HEAD request to http://r/v2/x/manifests/1: 429 Too Many Requests`, internal}), 3, false, cerrdefs.IsResourceExhausted},
		"29, rate limit of a blob": {inStream("error from registry: You have reached your pull rate limit."), 3, false, cerrdefs.IsResourceExhausted},
		"a bare rate limit":        {refusal(cerrdefs.ErrResourceExhausted), 3, false, cerrdefs.IsResourceExhausted},
		"20.10, registry's 503":    {refusal(answer{"received unexpected HTTP status: 503 Service Unavailable", internal}), 3, false, cerrdefs.IsUnavailable},
		"29, registry's 503":       {refusal(answer{`failed to resolve reference "r/x:1": unexpected status from HEAD request to http://r/v2/x/manifests/1: 503 Service Unavailable`, cerrdefs.ErrUnavailable}), 3, false, cerrdefs.IsUnavailable},
		"20.10, registry's 500":    {inStream("error pulling image configuration: download failed after attempts=6: received unexpected HTTP status: 500 Internal Server Error"), 3, false, cerrdefs.IsUnavailable},
		"registry down":            {refusal(answer{`Get "http://r/v2/": dial tcp 127.0.0.1:1: connect: connection refused`, internal}), 3, false, cerrdefs.IsUnavailable},
		"registry's EOF":           {refusal(answer{`Head "http://r/v2/x/manifests/1": EOF`, internal}), 3, false, cerrdefs.IsUnavailable},
		"no name":                  {refusal(answer{`Get "https://r/v2/": dial tcp: lookup r on 1.1.1.1:53: no such host`, internal}), 3, false, cerrdefs.IsUnavailable},
		"time-out, in stream":      {inStream("net/http: TLS handshake timeout"), 3, false, cerrdefs.IsUnavailable},
		"corrupt":                  {inStream("filesystem layer verification failed for digest sha256:0"), 3, false, cerrdefs.IsDataLoss},
		"a code, in stream":        {stream(`{"errorDetail":{"code":502,"message":"boom"}}`), 3, false, cerrdefs.IsUnavailable},
		"named after a fault":      {refusal(answer{`Head "http://r/v2/denied/not-found/manifests/unauthorized": EOF`, internal}), 3, false, cerrdefs.IsUnavailable},

		// Faults of the engine and of the way to it.
		"engine away":           {refusal(engineapi.ErrorConnectionFailed("unix:///x")), 3, true, cerrdefs.IsUnavailable}, //nolint:staticcheck // what the client returns has no other maker
		"engine's EOF":          {refusal(&url.Error{Op: "Post", URL: "http://d/images/create", Err: io.EOF}), 3, true, cerrdefs.IsUnavailable},
		"engine refuses":        {refusal(&net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}), 3, true, cerrdefs.IsUnavailable},
		"engine's 503":          {refusal(answer{"starting up", cerrdefs.ErrUnavailable}), 3, true, cerrdefs.IsUnavailable},
		"a bare 503":            {refusal(cerrdefs.ErrUnavailable), 3, true, cerrdefs.IsUnavailable},
		"a gateway before it":   {refusal(answer{"<h1>502 Bad Gateway</h1>", internal}), 3, true, cerrdefs.IsUnavailable},
		"an answer without one": {refusal(answer{"request returned 503 Service Unavailable for API route and version http://d/v1.41/images/create?fromImage=x, check if the server supports the requested API version", cerrdefs.ErrUnavailable}), 3, true, cerrdefs.IsUnavailable},
		"too new":               {refusal(answer{"client version 1.51 is too new. Maximum supported API version is 1.41", cerrdefs.ErrInvalidArgument}), 3, true, cerrdefs.IsUnavailable},
		"too old":               {refusal(answer{"client version 1.43 is too old. Minimum supported API version is 1.44, please upgrade your client to a newer version", cerrdefs.ErrInvalidArgument}), 3, true, cerrdefs.IsUnavailable},
		"a fake's":              {refusal(exec.MakeTemporary(errors.New("boom"))), 3, true, nil},
		"body ends early":       {cut(io.ErrUnexpectedEOF), 3, true, cerrdefs.IsUnavailable},
		"body resets":           {cut(&net.OpError{Op: "read", Err: syscall.ECONNRESET}), 3, true, cerrdefs.IsUnavailable},
		"body times out":        {cut(os.ErrDeadlineExceeded), 3, true, cerrdefs.IsUnavailable},
		"no right to connect":   {refusal(&net.OpError{Op: "dial", Err: syscall.EACCES}), 1, false, cerrdefs.IsPermissionDenied},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				client := pulling(t, test.answer)
				started := time.Now()
				err := newTestAdapter(t, client, pullTask("x")).PullImage(t.Context())
				require.Error(t, err)
				assert.Len(t, client.called(), test.tries)
				assert.Equal(t, test.temporary, exec.IsTemporary(err), err)
				if test.class != nil {
					assert.True(t, test.class(err), err)
				} else {
					assert.Empty(t, classesOf(err))
				}
				assert.NotErrorIs(t, err, context.Canceled)
				assert.NotErrorIs(t, pkgerrors.Cause(err), context.DeadlineExceeded)
				assert.LessOrEqual(t, time.Since(started), 25*time.Second)
				if test.tries > 1 {
					assert.GreaterOrEqual(t, time.Since(started), 1500*time.Millisecond)
					assert.ErrorContains(t, err, "pull image x, attempt 3 of 3: ")
				} else {
					assert.ErrorContains(t, err, "pull image x, attempt 1 of 3: ")
				}
			})
		})
	}
}

// A refusal is called denied, also where it came as a page, or bare.
func TestPullErrorOfARefusalSaysDenied(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		`error parsing HTTP 403 response body: invalid character '<' looking for beginning of value: "<html>"`: `pull image x, attempt 1 of 3: access denied: Error response from daemon: error parsing HTTP 403 response body: invalid character '<' looking for beginning of value: "<html>"`,
		`Head "https://r/v2/x/manifests/1": Payment Required`:                                                  `pull image x, attempt 1 of 3: access denied: Error response from daemon: Head "https://r/v2/x/manifests/1": Payment Required`,
		`Get "https://r/v2/": Unauthorized`:                                                                    `pull image x, attempt 1 of 3: access denied: Error response from daemon: Get "https://r/v2/": Unauthorized`,
	} {
		engine := dockerexectest.New(t)
		engine.FailAll(pullRequest, dockerexectest.Refuse(500, text))
		assert.EqualError(t, adapterOn(t, engine, pullTask("x")).PullImage(t.Context()), want)
	}
}

func TestPullSucceedsAfterAPassingFault(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		var attempts []int
		engine := dockerexectest.New(t)
		engine.Pull("x", `{"status":"x"}`, `{"status":"y"}`)
		engine.FailNext(pullRequest, dockerexectest.CutBody(20)) // inside the second message
		engine.Pull("x", `{"error":"toomanyrequests: slow down"}`)
		engine.Pull("x", `{"status":"x"}`)
		ctx, hook := logHook(t.Context())
		err := adapterOn(t, engine, pullTask("x"), WithPullObserver(func(_ context.Context, p PullProgress) {
			attempts = append(attempts, p.Attempt)
		})).PullImage(ctx)
		require.NoError(t, err)
		assert.Equal(t, []int{1, 2, 3}, slices.Compact(attempts))
		var lines []string
		for _, e := range hook.AllEntries() {
			assert.Equal(t, "debug", e.Level.String())
			assert.Equal(t, "x", e.Data["image"])
			assert.Equal(t, "taskid", e.Data["task.id"])
			lines = append(lines, e.Message)
		}
		assert.Equal(t, []string{
			"pulling image", "image pull failed: trying again", "image pull failed: trying again", "pulling image", "image pulled",
		}, lines)
	})
}

// Whatever broke the transport within the stream, the next attempt pulls the image.
func TestPullSucceedsAfterAFaultOfTheTransportInItsStream(t *testing.T) {
	t.Parallel()
	for _, fault := range []string{
		`http2: server sent GOAWAY and closed the connection; LastStreamID=1999, ErrCode=ENHANCE_YOUR_CALM, debug=\"\"`,
		"stream error: stream ID 17; REFUSED_STREAM; received from peer",
		"lookup cdn.example on 127.0.0.53:53: server misbehaving",
		"read tcp 10.0.0.7:51234->104.16.1.1:443: read: connection timed out",
		`Get \"https://cdn.example/blobs/sha256/0\": proxyconnect tcp: EOF`,
		"failed to copy: httpReadSeeker: failed open: failed to do request: net/http: request canceled (Client.Timeout exceeded while awaiting headers)",
		"gzip: invalid checksum",
	} {
		bubble(t, func(t *testing.T) {
			engine := webEngine(t, obedient)
			engine.Pull("example/web:1", `{"status":"Pulling fs layer","id":"0123456789ab"}`, `{"errorDetail":{"message":"`+fault+`"},"error":"`+fault+`"}`)
			require.NoError(t, adapterOn(t, engine, plainTask()).PullImage(t.Context()), fault)
			assert.Equal(t, 2, engine.Requests().Count(pullRequest), fault)
			assert.Equal(t, []string{"example/web:1"}, engine.Images())
		})
	}
}

// An engine always has something to say about a pull, so one that says nothing
// has pulled nothing. A fake need not.
func TestPullWithAnEmptyAnswer(t *testing.T) {
	t.Parallel()
	old := &oldEngine{version: "1.41"}
	adapter, err := NewEngine(old.client(t), WithPullAttempts(1)).Adapter(nil, pullTask("x"), nil)
	require.NoError(t, err)
	err = adapter.PullImage(t.Context())
	require.EqualError(t, err, "pull image x, attempt 1 of 1: the engine's answer is empty")
	assert.True(t, exec.IsTemporary(err))
	assert.True(t, cerrdefs.IsUnavailable(err))
	require.NotErrorIs(t, err, ErrPullStalled)
	assert.Equal(t, []string{"/_ping", "/v1.41/images/create"}, old.paths)

	require.NoError(t, newTestAdapter(t, pulling(t, stream()), pullTask("x")).PullImage(t.Context()))
}

func TestPullAttempts(t *testing.T) {
	t.Parallel()
	for option, want := range map[int]int{1: 1, 5: 5} {
		bubble(t, func(t *testing.T) {
			engine := webEngine(t, obedient, dockerexectest.WithRateLimit(9))
			assert.Error(t, adapterOn(t, engine, plainTask(), WithPullAttempts(option)).PullImage(t.Context()))
			assert.Equal(t, want, engine.Requests().Count(pullRequest))
		})
	}
}

// A caller who leaves between two attempts ends them.
func TestPullLeftBetweenAttempts(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		engine := webEngine(t, obedient, dockerexectest.WithRateLimit(9))
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		assert.Equal(t, context.DeadlineExceeded, adapterOn(t, engine, plainTask()).PullImage(ctx))
		assert.Equal(t, 1, engine.Requests().Count(pullRequest))
	})
}

// Pauses are one second and two, spread by half, and five times that once a
// registry limits the rate.
func TestPullPausesLongerWhereTheRateIsLimited(t *testing.T) {
	t.Parallel()
	for text, pauses := range map[string][2]time.Duration{
		"toomanyrequests: You have reached your pull rate limit.": {7500 * time.Millisecond, 22500 * time.Millisecond},
		"received unexpected HTTP status: 502 Bad Gateway":        {1500 * time.Millisecond, 4500 * time.Millisecond},
	} {
		for range 20 {
			bubble(t, func(t *testing.T) {
				engine := dockerexectest.New(t)
				engine.FailAll(pullRequest, dockerexectest.Refuse(500, text))
				began := time.Now()
				require.Error(t, adapterOn(t, engine, pullTask("x")).PullImage(t.Context()))
				require.Equal(t, 3, engine.Requests().Count(pullRequest))
				assert.GreaterOrEqual(t, time.Since(began), pauses[0], text)
				assert.LessOrEqual(t, time.Since(began), pauses[1], text)
			})
		}
	}
}

func TestScrubber(t *testing.T) {
	t.Parallel()
	auth := base64.URLEncoding.EncodeToString([]byte(
		`{"username":"bob","password":"p/w+d=x","auth":"` + base64.StdEncoding.EncodeToString([]byte("bob:other-secret")) + `","registrytoken":"abc","serveraddress":"registry.example"}`))
	for text, want := range map[string]string{
		"nothing to hide":                                        "nothing to hide",
		"manifest for bob/x:1 at r:5000 lost":                    "manifest for bob/x:1 at r:5000 lost",
		`Get "https://r/v2/": EOF`:                               `Get "https://r/v2/": EOF`,
		`Get "https://u:p@r/v2/x": EOF`:                          `Get "https://r/v2/x": EOF`,
		"https://u@r:5000/?a=b: 403 Forbidden":                   "https://r:5000/: 403 Forbidden",
		"HTTPS://u:a@b@r/p#f, and more":                          "HTTPS://r/p, and more",
		"https://u:a/b@r/p":                                      "https://r/p",
		"https://[::1]:5000/x@sha256:0":                          "https://[::1]:5000/x@sha256:0",
		`{"u":"https://r/t?a=1\u0026s=2<'3"}`:                    `{"u":"https://r/t"}`,
		"//u@r/x":                                                "//r/x",
		"/v2/token?scope=x&s=y z":                                "/v2/token z",
		"what? nothing":                                          "what? nothing",
		"password p/w+d=x of bob, bob: no":                       "password xxxxx of xxxxx, xxxxx: no",
		"p%2Fw%2Bd%3Dx":                                          "xxxxx",
		"other-secret, abc, abcd":                                "xxxxx, xxxxx, abcd",
		base64.StdEncoding.EncodeToString([]byte("bob:p/w+d=x")): "xxxxx",
		auth:                      "xxxxx",
		"registry.example":        "registry.example",
		"a\nb\tc\x1b[31m\u0085":   "a b c [31m ",
		strings.Repeat("é", 1025): strings.Repeat("é", 1022) + "…",
	} {
		assert.Equal(t, want, newScrubber(auth).clean(text, 2048), text)
	}
	assert.Equal(t, "the header xxxxx", newScrubber("not base64!").clean("the header not base64!", 99))
	for limit := 3; limit < 20; limit++ {
		text := newScrubber("").clean("aé日本語𝄞 and so on and on", limit)
		assert.True(t, utf8.ValidString(text) && len(text) <= limit, text)
	}
}

// A password may be any bytes, and short ones are looked for by an expression,
// which takes none that are not UTF-8.
func TestScrubberOfAPasswordThatIsNoText(t *testing.T) {
	t.Parallel()
	const auth = "eyJhdXRoIjoiZFRyLy9nPT0ifQ==" // {"auth":"dTr//g=="}, which is u:\xff\xfe
	assert.Equal(t, "it was xxxxx, or xxxxx, or xxxxx of bob", newScrubber(auth).clean("it was \xff\xfe, or %FF%FE, or dTr//g== of bob", 99))
}

// What quotes a password escapes it: JSON, with and without the escapes for HTML, Go's
// quotes, and quotes around JSON.
func TestScrubberOfAPasswordThatIsEscaped(t *testing.T) {
	t.Parallel()
	long := registryHeader(t, `{"username":"bob","password":"pa\"s<s\\&\u0007é"}`) // pa"s<s\&, a bell, é
	short := registryHeader(t, `{"username":"bob","password":"\"<\\"}`)
	for text, want := range map[string]string{
		`{"password":"pa\"s\u003cs\\\u0026\u0007é"}`:                `{"password":"xxxxx"}`,
		`{"password":"pa\"s<s\\&\u0007é"}`:                          `{"password":"xxxxx"}`,
		`bad password "pa\"s<s\\&\aé"`:                              `bad password "xxxxx"`,
		`bad body "{\"p\":\"pa\\\"s\\u003cs\\\\\\u0026\\u0007é\"}"`: `bad body "{\"p\":\"xxxxx\"}"`,
		`bad body "{\"p\":\"pa\\\"s<s\\\\&\\u0007é\"}"`:             `bad body "{\"p\":\"xxxxx\"}"`,
		"it was pa\"s<s\\&\aé":                                      `it was xxxxx`,
	} {
		assert.Equal(t, want, newScrubber(long).clean(text, 99), text)
	}
	for text, want := range map[string]string{
		`{"password":"\"<\\"}`:      `{"password":"xxxxx"}`,
		`{"password":"\"\u003c\\"}`: `{"password":"xxxxx"}`,
		`"{\"p\":\"\\\"<\\\\\"}"`:   `"{\"p\":\"xxxxx\"}"`,
	} {
		assert.Equal(t, want, newScrubber(short).clean(text, 99), text)
	}
}

func registryHeader(t *testing.T, text string) string {
	t.Helper()
	require.True(t, json.Valid([]byte(text)))
	return base64.URLEncoding.EncodeToString([]byte(text))
}

// An engine takes the header's fields in any case.
func TestScrubberTakesFieldsInAnyCase(t *testing.T) {
	t.Parallel()
	auth := base64.URLEncoding.EncodeToString([]byte(`{"UserName":"bob","PASSWORD":"p/w+d=x"}`))
	for text, want := range map[string]string{
		"p/w+d=x of bob: no": "xxxxx of xxxxx: no",
		"Ym9iOnAvdytkPXg=":   "xxxxx", // bob:p/w+d=x
	} {
		assert.Equal(t, want, newScrubber(auth).clean(text, 99))
	}
}

// Secrets are cut out before a text is cut off: half of one is a secret too.
func TestScrubberCutsOutBeforeItCutsOff(t *testing.T) {
	t.Parallel()
	scrub := newScrubber(canaryAuth(t))
	for limit := 3; limit < 60; limit++ {
		assert.NotContains(t, scrub.clean("it said canary-password and https://canary@host/x?canary", limit), "cana")
	}
}

// TestPullCanary looks for what must be seen nowhere in all that a pull says.
func TestPullCanary(t *testing.T) {
	t.Parallel()
	leaks := `Get "https://canary-user:canary-password@r/v2/x?canary=1": bearer canary-identity-token, ` + canaryAuth(t)
	quoted := strings.ReplaceAll(leaks, `"`, `\"`)
	for name, reply := range map[string]func(context.Context) (io.ReadCloser, error){
		"request":           refusal(errors.New(leaks)),
		"request, denied":   refusal(answer{"denied: " + leaks, cerrdefs.ErrInternal}),
		"request, passing":  refusal(answer{leaks + ": EOF", cerrdefs.ErrInternal}),
		"request, engine":   refusal(fmt.Errorf("%s: %w", leaks, io.ErrUnexpectedEOF)),
		"body":              cut(errors.New(leaks)),
		"body, engine":      cut(fmt.Errorf("%s: %w", leaks, io.ErrUnexpectedEOF)),
		"stream":            stream(`{"status":"`+quoted+`"}`, `{"status":"Downloading","id":"`+quoted+`"}`, `{"status":"`+quoted+`","id":"a","progressDetail":{"current":1}}`),
		"stream, error":     inStream(quoted),
		"stream, error 429": inStream("toomanyrequests: " + quoted),
		"stream, detail":    stream(`{"errorDetail":{"message":"` + quoted + `","code":401}}`),
		"stream, no string": stream(`{"error":{"x":"` + quoted + `"}}`),
		"stream, stall":     stalling(`{"status":"` + quoted + `","id":"` + quoted + `","progressDetail":{"current":1}}`),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				task := pullTask("registry/x")
				spec(task).PullOptions = &api.ContainerSpec_PullOptions{RegistryAuth: canaryAuth(t)}
				spec(task).Env = []string{"SECRET=canary-environment"}
				ctx, hook := logHook(t.Context())
				var said strings.Builder
				engine := NewEngine(pulling(t, reply), WithPullObserver(func(_ context.Context, p PullProgress) { fmt.Fprintf(&said, "%+v\n", p) }))
				err := adapterOf(t, engine, task).PullImage(ctx)
				fmt.Fprintf(&said, "%v\n%+v\n%#v\n", err, err, err)
				for e := err; e != nil; e = errors.Unwrap(e) {
					fmt.Fprintf(&said, "%v\n", e)
				}
				for _, e := range hook.AllEntries() {
					line, err := e.String()
					require.NoError(t, err)
					said.WriteString(line)
				}
				assert.NotContains(t, said.String(), "canary")
				assert.NotContains(t, said.String(), canaryAuth(t))
				assert.Contains(t, said.String(), "registry/x")
			})
		})
	}
}

// stalling answers a pull with messages and then with nothing more.
func stalling(messages string) func(context.Context) (io.ReadCloser, error) {
	return func(context.Context) (io.ReadCloser, error) {
		body := &closing{closed: make(chan struct{})}
		body.Reader = io.MultiReader(strings.NewReader(messages), unending{body.closed})
		return body, nil
	}
}
