package dockerexec

import (
	"context"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestThePausesOfAWaitBeginAnewAfterAnAnswer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		client := newFakeClient(t)
		source := newEventSource(client)
		task := newFakeContainer(client, "")
		overloaded := answer{"overloaded", cerrdefs.ErrUnavailable}
		task.become(container.InspectResponse{}, overloaded)
		ctx, _ := linesOf(t.Context())
		wait := startWait(ctx, newTestAdapter(t, client, plainTask()))
		time.Sleep(10 * time.Minute)
		task.become(containerIs("running"), nil)
		time.Sleep(time.Minute)
		task.become(container.InspectResponse{}, overloaded)
		source.latest().send(event(plainTask(), "oom", at))
		time.Sleep(20 * time.Millisecond)
		synctest.Wait()
		task.become(exitedWith(2), nil)
		failed := time.Now()
		<-wait.done
		assert.LessOrEqual(t, time.Since(failed), 120*time.Millisecond)
	})
}

// A hundred waits that began together inspect at a hundred times.
func TestWaitsThatBeganTogetherInspectApart(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		client := newFakeClient(t)
		newEventSource(client)
		var mu sync.Mutex
		var times []time.Duration
		began := time.Now()
		client.containerInspect = func(context.Context, string) (container.InspectResponse, error) {
			mu.Lock()
			defer mu.Unlock()
			times = append(times, time.Since(began))
			return containerIs("running"), nil
		}
		ctx, _ := linesOf(t.Context())
		for _, adapter := range numberedAdapters(t, NewEngine(client), 100) {
			startWait(ctx, adapter)
		}
		time.Sleep(4 * time.Minute)
		mu.Lock()
		times = nil
		mu.Unlock()
		time.Sleep(2 * time.Minute)

		mu.Lock()
		defer mu.Unlock()
		require.Len(t, times, 100)
		assert.GreaterOrEqual(t, slices.Min(times), 4*time.Minute+30*time.Second)
		assert.LessOrEqual(t, slices.Max(times), 5*time.Minute+32*time.Second, "five and a half minutes after the inspect that follows the stream's opening")
		assert.Greater(t, slices.Max(times)-slices.Min(times), 30*time.Second)
		slices.Sort(times)
		assert.Len(t, slices.Compact(times), 100)
	})
}
