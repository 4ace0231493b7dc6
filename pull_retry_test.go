package dockerexec

import (
	"context"
	"errors"
	"io"
	"net"
	"net/url"
	"os"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	engineapi "github.com/docker/docker/client"
	"github.com/moby/swarmkit/v2/agent/exec"
	pkgerrors "github.com/pkg/errors"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
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
		"unknown, in stream":    {inStream("boom"), 1, false, nil},
		"unknown, plain":        {refusal(errors.New("boom")), 1, false, nil},
		"unknown, bad request":  {refusal(answer{"boom", cerrdefs.ErrInvalidArgument}), 1, false, cerrdefs.IsInvalidArgument},
		"garbage":               {stream("<html>"), 1, false, nil},

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

func TestPullSucceedsAfterAPassingFault(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var attempts []int
		client := pulling(t, cut(io.ErrUnexpectedEOF), inStream("toomanyrequests: slow down"), stream(`{"status":"x"}`))
		ctx, hook := logHook(t.Context())
		err := newTestAdapter(t, client, pullTask("x"), WithPullObserver(func(_ context.Context, p PullProgress) {
			attempts = append(attempts, p.Attempt)
		})).PullImage(ctx)
		require.NoError(t, err)
		assert.Equal(t, []int{1, 2, 3}, attempts)
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
	assert.Equal(t, []string{"/_ping", "/v1.41/images/create"}, old.paths)

	require.NoError(t, newTestAdapter(t, pulling(t, stream()), pullTask("x")).PullImage(t.Context()))
}

func TestPullAttempts(t *testing.T) {
	t.Parallel()
	for option, want := range map[int]int{-1: 1, 0: 1, 1: 1, 5: 5} {
		synctest.Test(t, func(t *testing.T) {
			client := pulling(t, inStream("toomanyrequests"))
			assert.Error(t, newTestAdapter(t, client, pullTask("x"), WithPullAttempts(option)).PullImage(t.Context()))
			assert.Len(t, client.called(), want)
		})
	}
}

// A caller who leaves between two attempts ends them.
func TestPullLeftBetweenAttempts(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		client := pulling(t, inStream("toomanyrequests"))
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		assert.Equal(t, context.DeadlineExceeded, newTestAdapter(t, client, pullTask("x")).PullImage(ctx))
		assert.Len(t, client.called(), 1)
	})
}
