package dockerexec

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
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

	"github.com/dockerexec/dockerexec/dockerexectest"
)

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
	engine := dockerexectest.New(t)
	engine.Pull("x",
		`{"errorDetail":{"code":401,"message":"go away"},"error":"go away"}`,
		`{"error":"a consequence"}`,
		`{"status":"Status: Downloaded newer image for x:latest"}`)
	err := adapterOn(t, engine, pullTask("x")).PullImage(t.Context())
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
	bubble(t, func(t *testing.T) {
		engine := webEngine(t, obedient)
		engine.FailNext(pullRequest, dockerexectest.Refuse(404, "manifest unknown"))
		engine.FailNext(pullRequest, dockerexectest.Slow(time.Hour))
		adapter := adapterOn(t, engine, plainTask())

		err := adapter.PullImage(t.Context())
		require.EqualError(t, err, "pull image example/web:1, attempt 1 of 3: Error response from daemon: manifest unknown")
		assert.True(t, cerrdefs.IsNotFound(err))

		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		assert.Equal(t, context.DeadlineExceeded, adapter.PullImage(ctx))
		assert.NoError(t, adapter.PullImage(t.Context()))
		assert.NoError(t, adapter.PullImage(t.Context()), "a tag may have moved")
		assert.Equal(t, 4, engine.Requests().Count(pullRequest))
	})
}

// Some tools write the credentials in another base64 than that of the engine's header.
func TestPullSendsCredentialsAsTheHeaderNeedsThem(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ given, sent string }{
		"as the header":     {"eyJwYXNzd29yZCI6Ij8_Pz4-PiJ9", "eyJwYXNzd29yZCI6Ij8_Pz4-PiJ9"}, // {"password":"???>>>"}
		"standard alphabet": {"eyJwYXNzd29yZCI6Ij8/Pz4+PiJ9", "eyJwYXNzd29yZCI6Ij8_Pz4-PiJ9"},
		"no padding":        {"eyJwYXNzd29yZCI6IngifQ", "eyJwYXNzd29yZCI6IngifQ=="}, // {"password":"x"}
		"in lines":          {"eyJwYXNzd29y\r\nZCI6IngifQ==\r\n", "eyJwYXNzd29yZCI6IngifQ=="},
		"an empty object":   {"e30", "e30="},
		"with spaces":       {"IHsgfSA=", "IHsgfSA="},
		"none":              {"", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			task := pullTask("x")
			spec(task).PullOptions = &api.ContainerSpec_PullOptions{RegistryAuth: c.given}
			engine := dockerexectest.New(t)
			engine.FailAll(pullRequest, dockerexectest.Refuse(403, "refused: "+c.given+" "+c.sent+" ???>>>"))
			var sent []string
			client := through(t, engine, func(r *http.Request, next http.RoundTripper) (*http.Response, error) {
				if strings.HasSuffix(r.URL.Path, "/images/create") {
					sent = append(sent, r.Header.Get("X-Registry-Auth"))
				}
				return next.RoundTrip(r)
			})
			err := adapterOf(t, NewEngine(client), task).PullImage(t.Context())
			assert.Equal(t, []string{c.sent}, sent)
			require.ErrorContains(t, err, "refused: ")
			if len(c.given) > 6 {
				assert.NotContains(t, err.Error(), c.given)
				assert.NotContains(t, err.Error(), c.sent)
			}
		})
	}
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
	engine := dockerexectest.New(t)
	engine.FailNext("GET /images/*/json", dockerexectest.Drop())
	err := adapterOn(t, engine, pullTask("x@sha256:"+strings.Repeat("0", 64))).PullImage(t.Context())
	require.ErrorContains(t, err, "EOF")
	assert.Zero(t, engine.Requests().Count(pullRequest))
	assert.True(t, exec.IsTemporary(err))
}

func TestPullWithAnEndedContextCallsNothing(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	engine := dockerexectest.New(t)
	assert.Equal(t, context.Canceled, adapterOn(t, engine, pullTask("x")).PullImage(ctx))
	assert.Empty(t, engine.Requests())
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

// credentials gives task credentials for a user of its own.
func withCredentials(t testing.TB, task *api.Task, user string) *api.Task {
	spec(task).PullOptions = &api.ContainerSpec_PullOptions{RegistryAuth: registryAuth(t, user, "password of "+user)}
	return task
}

func TestPullIsShared(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		requests := map[string]int{}
		client := newFakeClient(t)
		client.imagePull = func(ctx context.Context, _ string, options image.PullOptions) (io.ReadCloser, error) {
			mu.Lock()
			requests[options.RegistryAuth+" "+options.Platform]++
			mu.Unlock()
			time.Sleep(time.Second)
			if options.RegistryAuth == registryAuth(t, "mallory", "password of mallory") {
				return nil, answer{"unauthorized: authentication required", cerrdefs.ErrInternal}
			}
			return stream(`{"status":"Pulling from x","id":"1"}`)(ctx)
		}
		type waiter struct{}
		seen := map[any]bool{}
		engine := NewEngine(client, WithPullObserver(func(ctx context.Context, _ PullProgress) {
			mu.Lock()
			defer mu.Unlock()
			seen[ctx.Value(waiter{})] = true
		}))

		errs := make([]error, 53)
		var all sync.WaitGroup
		for i := range errs {
			task := withCredentials(t, pullTask([]string{"x:1", "library/x:1", "docker.io/library/x:1"}[i%3]), "alice")
			switch i {
			case 50:
				task = withCredentials(t, task, "bob")
			case 51:
				task = withCredentials(t, task, "mallory")
			case 52:
				task.Spec.Placement = &api.Placement{Platforms: []*api.Platform{{OS: "linux", Architecture: "arm64"}}}
			}
			adapter := adapterOf(t, engine, task)
			all.Go(func() { errs[i] = adapter.PullImage(context.WithValue(t.Context(), waiter{}, i)) })
		}
		all.Wait()
		for i, err := range errs {
			if i == 51 {
				assert.ErrorContains(t, err, "denied")
				continue
			}
			assert.NoError(t, err)
			assert.True(t, seen[i], "observer of waiter %d", i)
		}
		assert.Len(t, requests, 4)
		for what, n := range requests {
			assert.Equal(t, 1, n, what)
		}
	})
}

func TestPullOfADetachedAdapterIsItsOwn(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		engine := webEngine(t, obedient, dockerexectest.WithPullTime(time.Second))
		client := engine.Client()
		began := time.Now()
		var both sync.WaitGroup
		for range 2 {
			adapter, err := NewContainerAdapter(client, nil, plainTask(), nil)
			require.NoError(t, err)
			both.Go(func() { assert.NoError(t, adapter.PullImage(t.Context())) })
		}
		both.Wait()
		assert.Equal(t, 2, engine.Requests().Count(pullRequest))
		assert.Equal(t, time.Second, time.Since(began), "at the same time")
	})
}

// The first one's end is not the others'; the last one's ends the request.
func TestPullEndsWithItsLastWaiter(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		type key struct{}
		var cancelled time.Time
		client := pulling(t, func(ctx context.Context) (io.ReadCloser, error) {
			assert.Equal(t, "first", ctx.Value(key{}), "the values are the first waiter's")
			<-ctx.Done()
			cancelled = time.Now()
			return nil, ctx.Err()
		})
		engine := NewEngine(client)
		started := time.Now()
		var all sync.WaitGroup
		for i, value := range []string{"first", "second", "third"} {
			adapter := adapterOf(t, engine, pullTask("x"))
			all.Go(func() {
				time.Sleep(time.Duration(i) * time.Millisecond)
				ctx, cancel := context.WithTimeout(context.WithValue(t.Context(), key{}, value), time.Duration(i+1)*time.Minute)
				defer cancel()
				assert.Equal(t, context.DeadlineExceeded, adapter.PullImage(ctx))
				assert.Equal(t, time.Duration(i+1)*time.Minute+time.Duration(i)*time.Millisecond, time.Since(started), "returns at once")
			})
		}
		all.Wait()
		assert.Equal(t, 3*time.Minute+2*time.Millisecond, cancelled.Sub(started))
		assert.Len(t, client.called(), 1)
		assert.Empty(t, engine.pulls.inFlight)
	})
}

// The engine never has two requests for one image: who comes while one is being
// cancelled waits for its end.
func TestPullAfterACancelledOneWaitsForItsEnd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var open atomic.Int64
		client := pulling(t, func(ctx context.Context) (io.ReadCloser, error) {
			assert.EqualValues(t, 1, open.Add(1))
			defer open.Add(-1)
			<-ctx.Done()
			time.Sleep(10 * time.Second) // it takes no notice
			return nil, ctx.Err()
		}, func(ctx context.Context) (io.ReadCloser, error) {
			assert.EqualValues(t, 0, open.Load())
			return stream()(ctx)
		})
		engine := NewEngine(client)
		started := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		assert.Equal(t, context.DeadlineExceeded, adapterOf(t, engine, pullTask("x")).PullImage(ctx))
		assert.Equal(t, 2*time.Second, time.Since(started), "a client that takes no notice is not waited for")

		ctx, cancel = context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		assert.Equal(t, context.DeadlineExceeded, adapterOf(t, engine, pullTask("x")).PullImage(ctx))
		assert.Equal(t, 3*time.Second, time.Since(started))

		assert.NoError(t, adapterOf(t, engine, pullTask("x")).PullImage(t.Context()))
		assert.Equal(t, 11*time.Second, time.Since(started))
	})
}

func TestPullStormLeavesNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var open atomic.Int64
		client := pulling(t, func(ctx context.Context) (io.ReadCloser, error) {
			assert.EqualValues(t, 1, open.Add(1))
			defer open.Add(-1)
			select {
			case <-ctx.Done():
				time.Sleep(time.Millisecond)
				return nil, ctx.Err()
			case <-time.After(20 * time.Millisecond):
				return stream(`{"status":"x"}`)(ctx)
			}
		})
		engine := NewEngine(client, WithPullObserver(func(context.Context, PullProgress) {}))
		var all sync.WaitGroup
		for range 300 {
			adapter := adapterOf(t, engine, pullTask("x"))
			all.Go(func() {
				time.Sleep(rand.N(500 * time.Millisecond))
				ctx, cancel := context.WithTimeout(t.Context(), rand.N(30*time.Millisecond))
				defer cancel()
				if err := adapter.PullImage(ctx); err != nil {
					assert.Equal(t, context.DeadlineExceeded, err)
				}
			})
		}
		all.Wait()
		synctest.Wait()
		assert.Empty(t, engine.pulls.inFlight)
	})
}

func TestPullObserverIsCalledInTurnAndNotTooOften(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		body, script := scripted()
		client := pulling(t, func(context.Context) (io.ReadCloser, error) { return body, nil })
		var calls []time.Duration
		var bytes []int64
		var busy atomic.Bool
		started := time.Now()
		engine := NewEngine(client, WithPullObserver(func(_ context.Context, p PullProgress) {
			assert.True(t, busy.CompareAndSwap(false, true), "two calls at once")
			defer busy.Store(false)
			calls, bytes = append(calls, time.Since(started)), append(bytes, p.BytesDone)
			time.Sleep(30 * time.Millisecond)
		}))
		go download(script, 1000, time.Millisecond)
		require.NoError(t, adapterOf(t, engine, pullTask("x")).PullImage(t.Context()))
		returned := time.Since(started)
		time.Sleep(time.Minute)

		assert.GreaterOrEqual(t, len(calls), 10)
		assert.LessOrEqual(t, len(calls), 12)
		for i := range calls[1:] {
			assert.GreaterOrEqual(t, calls[i+1]-calls[i], observeInterval)
		}
		assert.EqualValues(t, 1000, bytes[len(bytes)-1], "the last state is told")
		assert.LessOrEqual(t, calls[len(calls)-1]+30*time.Millisecond, returned, "no call is open when PullImage returns")
		assert.LessOrEqual(t, returned, 1130*time.Millisecond)
	})
}

func TestPullObserverThatBlocksHoldsUpNobodyElse(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		body, script := scripted()
		client := pulling(t, func(context.Context) (io.ReadCloser, error) { return body, nil })
		type blocks struct{}
		release := make(chan struct{})
		engine := NewEngine(client, WithPullObserver(func(ctx context.Context, _ PullProgress) {
			if ctx.Value(blocks{}) != nil {
				<-release
			}
		}))
		go download(script, 10, time.Second)
		ended := make(chan error)
		slow := adapterOf(t, engine, pullTask("x"))
		go func() { ended <- slow.PullImage(context.WithValue(t.Context(), blocks{}, true)) }()

		var others sync.WaitGroup
		started := time.Now()
		for range 49 {
			adapter := adapterOf(t, engine, pullTask("x"))
			others.Go(func() { assert.NoError(t, adapter.PullImage(t.Context())) })
		}
		others.Wait()
		assert.LessOrEqual(t, time.Since(started), 10*time.Second+observeInterval)
		synctest.Wait()
		select {
		case <-ended:
			t.Error("PullImage returned while its observer ran")
		default:
		}
		close(release)
		assert.NoError(t, <-ended)
	})
}

// An observer that does not heed its context cannot hold up a caller who leaves.
func TestPullDoesNotWaitForABlockedObserverWhenTheContextEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		for name, end := range map[string]bool{"during the pull": false, "after it": true} {
			body, script := scripted()
			client := pulling(t, func(context.Context) (io.ReadCloser, error) { return body, nil })
			release := make(chan struct{})
			var calls atomic.Int64
			engine := NewEngine(client, WithPullObserver(func(context.Context, PullProgress) { calls.Add(1); <-release }))
			go func() {
				fmt.Fprintln(script, `{"status":"x"}`)
				if end {
					script.Close()
				}
			}()
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			started := time.Now()
			err := adapterOf(t, engine, pullTask("x")).PullImage(ctx)
			cancel()
			if end {
				assert.NoError(t, err, name)
			} else {
				assert.Equal(t, context.DeadlineExceeded, err, name)
			}
			assert.Equal(t, 6*time.Second, time.Since(started), name)
			close(release)
			synctest.Wait()
			assert.EqualValues(t, 1, calls.Load(), name)
		}
	})
}
