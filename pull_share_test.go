package dockerexec

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/image"
	"github.com/moby/swarmkit/v2/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// credentials gives task credentials for a user of its own.
func withCredentials(t testing.TB, task *api.Task, user string) *api.Task {
	spec(task).PullOptions = &api.ContainerSpec_PullOptions{RegistryAuth: registryAuth(t, user, "password of "+user)}
	return task
}

// scripted is a body that a test writes to. It takes messages only when read.
func scripted() (*io.PipeReader, *io.PipeWriter) { return io.Pipe() }

func adapterOf(t testing.TB, engine *Engine, task *api.Task) *ContainerAdapter {
	t.Helper()
	adapter, err := engine.Adapter(nil, task, nil)
	require.NoError(t, err)
	return adapter
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
	synctest.Test(t, func(t *testing.T) {
		client := pulling(t, func(ctx context.Context) (io.ReadCloser, error) { time.Sleep(time.Second); return stream()(ctx) })
		var both sync.WaitGroup
		for range 2 {
			adapter, err := NewContainerAdapter(client, nil, pullTask("x"), nil)
			require.NoError(t, err)
			both.Go(func() { assert.NoError(t, adapter.PullImage(t.Context())) })
		}
		both.Wait()
		assert.Len(t, client.called(), 2)
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

// download writes n messages, one every interval, and ends the stream.
func download(w *io.PipeWriter, n int, interval time.Duration) {
	for i := range n {
		fmt.Fprintf(w, `{"status":"Downloading","progressDetail":{"current":%d,"total":%d},"id":"a"}`+"\n", i+1, n)
		time.Sleep(interval)
	}
	w.Close()
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
