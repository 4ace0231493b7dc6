package dockerexec

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/image"
	engineapi "github.com/docker/docker/client"
	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/moby/swarmkit/v2/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

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

// pulling is a fake that answers each pull with the next of answers, and the
// last one again when there are no more.
func pulling(t testing.TB, answers ...func(ctx context.Context) (io.ReadCloser, error)) *fakeClient {
	client := newFakeClient(t)
	var pulls atomic.Int64
	client.imagePull = func(ctx context.Context, _ string, _ image.PullOptions) (io.ReadCloser, error) {
		return answers[min(int(pulls.Add(1)), len(answers))-1](ctx)
	}
	return client
}

// stream answers a pull with messages.
func stream(messages ...string) func(context.Context) (io.ReadCloser, error) {
	return func(context.Context) (io.ReadCloser, error) {
		return io.NopCloser(strings.NewReader(strings.Join(messages, "\n"))), nil
	}
}

// refusal answers a pull with an error.
func refusal(err error) func(context.Context) (io.ReadCloser, error) {
	return func(context.Context) (io.ReadCloser, error) { return nil, err }
}

// closing is a body that knows whether it was closed.
type closing struct {
	io.Reader
	closed chan struct{}
}

func (c *closing) Close() error {
	close(c.closed) // panics if it is closed twice
	return nil
}

// unending reads nothing until it is closed.
type unending struct{ closed chan struct{} }

func (u unending) Read([]byte) (int, error) {
	<-u.closed
	return 0, errors.New("read on a closed body")
}

// TestPullClosesTheBody: a body that is not closed holds its
// connection for ever.
func TestPullClosesTheBody(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		body     string
		end      error // nil: the body does not end
		mentions string
	}{
		"whole":                {`{"status":"Digest: sha256:1"}`, io.EOF, ""},
		"garbage":              {`{"status":"x"}garbage`, io.EOF, "cannot be read"},
		"an error in it":       {`{"error":"boom"}` + "\n" + `{"status":"x"}`, io.EOF, "boom"},
		"early end":            {`{"status":"x"}`, io.ErrUnexpectedEOF, "ends early"},
		"reset":                {`{"status":"x"}`, syscall.ECONNRESET, "breaks off"},
		"nothing more to come": {`{"status":"x"}`, nil, "stalled"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				body := &closing{closed: make(chan struct{})}
				end := io.Reader(unending{body.closed})
				if test.end != nil {
					end = endWith{test.end}
				}
				body.Reader = io.MultiReader(strings.NewReader(test.body), end)
				client := pulling(t, func(context.Context) (io.ReadCloser, error) { return body, nil })
				err := newTestAdapter(t, client, pullTask("x"), WithPullAttempts(1)).PullImage(t.Context())
				if test.mentions == "" {
					require.NoError(t, err)
				} else {
					require.ErrorContains(t, err, test.mentions)
				}
				synctest.Wait()
				select {
				case <-body.closed:
				default:
					t.Error("the body is open")
				}
			})
		})
	}

	t.Run("the caller leaves", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			body := &closing{closed: make(chan struct{})}
			body.Reader = unending{body.closed}
			client := pulling(t, func(context.Context) (io.ReadCloser, error) { return body, nil })
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			assert.Equal(t, context.DeadlineExceeded, newTestAdapter(t, client, pullTask("x")).PullImage(ctx))
			<-body.closed
		})
	})
}

type endWith struct{ err error }

func (e endWith) Read([]byte) (int, error) { return 0, e.err }

// TestPullMessagesAreFresh: nothing of a message is seen in the next one.
func TestPullMessagesAreFresh(t *testing.T) {
	t.Parallel()
	messages := newPullStream(strings.NewReader(`
		{"status":"Downloading","progressDetail":{"current":1,"total":2,"units":"s"},"id":"a","errorDetail":{"code":5}}
		{"status":"Digest: sha256:1"}`))
	m, err := messages.next()
	require.NoError(t, err)
	assert.Equal(t, int64(2), m.Progress.Total)
	assert.Equal(t, &pullFailure{text: "the engine gives no reason", code: 5}, m.failure())
	m, err = messages.next()
	require.NoError(t, err)
	assert.Equal(t, &pullMessage{Status: "Digest: sha256:1"}, m)
	_, err = messages.next()
	assert.Equal(t, io.EOF, err)
}

// TestPullKeepsTheFirstErrorAndItsCode: the error is that of the
// stream, with its code, and what follows it changes nothing.
func TestPullKeepsTheFirstErrorAndItsCode(t *testing.T) {
	t.Parallel()
	client := pulling(t, stream(
		`{"errorDetail":{"code":401,"message":"go away"},"error":"go away"}`,
		`{"error":"a consequence"}`,
		`{"status":"Status: Downloaded newer image for x:latest"}`))
	err := newTestAdapter(t, client, pullTask("x")).PullImage(t.Context())
	require.EqualError(t, err, "pull image x, attempt 1 of 3: access denied: go away (code 401)")
	assert.True(t, cerrdefs.IsUnauthorized(err))
	assert.False(t, exec.IsTemporary(err))
}

// TestPullDoesNotGoOnAnonymously: a client that is asked for other
// credentials tries without any, and hides the first answer.
func TestPullDoesNotGoOnAnonymously(t *testing.T) {
	t.Parallel()
	var pulls atomic.Int64
	client, err := engineapi.NewClientWithOpts(engineapi.WithHost("tcp://engine:2375"), engineapi.WithVersion("1.41"),
		engineapi.WithHTTPClient(&http.Client{Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
			answer := &http.Response{StatusCode: http.StatusOK, Header: http.Header{"Api-Version": {"1.41"}}, Body: http.NoBody, Request: r}
			if strings.HasSuffix(r.URL.Path, "/images/create") {
				answer.StatusCode = http.StatusUnauthorized
				answer.Body = io.NopCloser(strings.NewReader(fmt.Sprintf("answer %d to %q", pulls.Add(1), r.Header.Get("X-Registry-Auth"))))
			}
			return answer, nil
		})}))
	require.NoError(t, err)
	adapter, err := NewEngine(client).Adapter(nil, pullTask("x"), nil)
	require.NoError(t, err)
	require.EqualError(t, adapter.PullImage(t.Context()),
		`pull image x, attempt 1 of 3: access denied: Error response from daemon: answer 1 to ""`)
	assert.EqualValues(t, 1, pulls.Load())
}

// TestPullReturnsItsErrorAndRemembersNothing: the error is the
// caller's to see, and the next pull is a new one.
func TestPullReturnsItsErrorAndRemembersNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		blocked := func(ctx context.Context) (io.ReadCloser, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}
		client := pulling(t, refusal(answer{"manifest unknown", cerrdefs.ErrNotFound}), blocked, stream())
		adapter := newTestAdapter(t, client, pullTask("x"))

		err := adapter.PullImage(t.Context())
		require.EqualError(t, err, "pull image x, attempt 1 of 3: Error response from daemon: manifest unknown")
		assert.True(t, cerrdefs.IsNotFound(err))

		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		assert.Equal(t, context.DeadlineExceeded, adapter.PullImage(ctx))
		assert.NoError(t, adapter.PullImage(t.Context()))
		assert.NoError(t, adapter.PullImage(t.Context()), "a tag may have moved")
		assert.Len(t, client.called(), 4)
	})
}

// TestPullOnlyWhatMayBeMissing: an image ID can only be on the
// engine, and a digest never changes.
func TestPullOnlyWhatMayBeMissing(t *testing.T) {
	t.Parallel()
	hex := strings.Repeat("0123456789abcdef", 4)
	arm := []*api.Platform{{Architecture: "arm64", OS: "linux"}}
	here := image.InspectResponse{Os: "linux", Architecture: "amd64"}
	for name, test := range map[string]struct {
		image     string
		platforms []*api.Platform
		inspect   error
		calls     []string
	}{
		"ID":                   {image: "sha256:" + hex},
		"ID without algorithm": {image: hex},
		"tag":                  {image: "x:1", calls: []string{"ImagePull x:1"}},
		"no tag":               {image: "x", calls: []string{"ImagePull x"}},
		"digest, present":      {image: "x@sha256:" + hex, calls: []string{"ImageInspect x@sha256:" + hex}},
		"tag and digest":       {image: "x:1@sha256:" + hex, calls: []string{"ImageInspect x:1@sha256:" + hex}},
		"digest, missing": {image: "x@sha256:" + hex, inspect: cerrdefs.ErrNotFound,
			calls: []string{"ImageInspect x@sha256:" + hex, "ImagePull x@sha256:" + hex}},
		"digest, unknown": {image: "x@sha256:" + hex, inspect: answer{"boom", cerrdefs.ErrInternal},
			calls: []string{"ImageInspect x@sha256:" + hex, "ImagePull x@sha256:" + hex}},
		"digest, of another platform": {image: "x@sha256:" + hex, platforms: arm,
			calls: []string{"ImageInspect x@sha256:" + hex, "ImagePull x@sha256:" + hex}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			client := pulling(t, stream())
			client.imageInspect = func(context.Context, string) (image.InspectResponse, error) { return here, test.inspect }
			task := pullTask(test.image)
			if test.platforms != nil {
				task.Spec.Placement = &api.Placement{Platforms: test.platforms}
			}
			require.NoError(t, newTestAdapter(t, client, task).PullImage(t.Context()))
			assert.Equal(t, test.calls, client.called())
		})
	}
}

func TestPullOfADigestWhileTheEngineIsAway(t *testing.T) {
	t.Parallel()
	client := newFakeClient(t)
	client.failEverything(io.ErrUnexpectedEOF)
	err := newTestAdapter(t, client, pullTask("x@sha256:"+strings.Repeat("0", 64))).PullImage(t.Context())
	require.ErrorIs(t, err, io.ErrUnexpectedEOF)
	assert.True(t, exec.IsTemporary(err))
}

func TestPullWithAnEndedContextCallsNothing(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	client := newFakeClient(t)
	assert.Equal(t, context.Canceled, newTestAdapter(t, client, pullTask("x")).PullImage(ctx))
	assert.Empty(t, client.called())
}

// Fakes may answer with next to nothing.
func TestPullOfAnEmptyAnswerSucceeds(t *testing.T) {
	t.Parallel()
	for name, body := range map[string]io.ReadCloser{"empty": io.NopCloser(strings.NewReader("")), "blank": io.NopCloser(strings.NewReader(" \r\n")), "nil": nil} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			client := pulling(t, func(context.Context) (io.ReadCloser, error) { return body, nil })
			assert.NoError(t, newTestAdapter(t, client, pullTask("x"), WithPullObserver(func(context.Context, PullProgress) {
				t.Error("nothing was said")
			})).PullImage(t.Context()))
		})
	}
}
