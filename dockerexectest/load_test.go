package dockerexectest_test

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/events"
	"github.com/docker/docker/api/types/filters"
	engineapi "github.com/docker/docker/client"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockerexec/dockerexec/dockerexectest"
)

// many is how many containers the test of a load runs in each of its ten rounds:
// 10,000 in all, fewer where that takes too long.
func many() int {
	switch {
	case isRace:
		return 50
	case testing.Short():
		return 100
	}
	return 1000
}

// Ten rounds of containers that run to their end on one engine, 50 at once, while
// a client follows the events. No round takes more memory than the first ones.
func TestManyContainers(t *testing.T) {
	rounds, n := 10, many()
	synctest.Test(t, func(t *testing.T) {
		e := dockerexectest.New(t)
		e.LocalImage("example/web:1", dockerexectest.Print(dockerexectest.ExitAfter(time.Second, 3), "a line"))
		c := e.Client()
		var deaths atomic.Int64
		messages, errs := c.Events(t.Context(), events.ListOptions{Filters: filters.NewArgs(filters.Arg("event", "die"))})
		go func() {
			for {
				select {
				case <-messages:
					deaths.Add(1)
				case <-errs:
					return
				}
			}
		}()
		var heaps []uint64
		for round := range rounds {
			began := time.Now()
			var workers sync.WaitGroup
			for worker := range 50 {
				workers.Go(func() {
					for i := worker; i < n; i += 50 {
						lifeOf(t, c, fmt.Sprintf("task-%d-%d", round, i))
					}
				})
			}
			workers.Wait()
			synctest.Wait()
			assert.EqualValues(t, n*(round+1), deaths.Load())
			assert.Empty(t, e.Containers())
			assert.Equal(t, time.Duration(n/50)*time.Second, time.Since(began))
			runtime.GC()
			var stats runtime.MemStats
			runtime.ReadMemStats(&stats)
			heaps = append(heaps, stats.HeapAlloc)
		}
		t.Logf("%d containers a round; heap after each round, in KiB: %v", n, inKiB(heaps))
		if n >= 1000 { // else the requests that are kept still grow
			assert.Less(t, heaps[9], heaps[4]+4<<20)
		}
	})
}

func inKiB(sizes []uint64) []uint64 {
	list := make([]uint64, len(sizes))
	for i, size := range sizes {
		list[i] = size >> 10
	}
	return list
}

func lifeOf(t *testing.T, c *engineapi.Client, name string) {
	ctx := context.WithoutCancel(t.Context())
	made, err := c.ContainerCreate(ctx, &container.Config{Image: "example/web:1", Labels: map[string]string{"name": name}}, nil, nil, nil, name)
	if !assert.NoError(t, err) {
		return
	}
	assert.NoError(t, c.ContainerStart(ctx, made.ID, container.StartOptions{}))
	ended, failed := c.ContainerWait(ctx, name, container.WaitConditionNotRunning)
	select {
	case over := <-ended:
		assert.EqualValues(t, 3, over.StatusCode)
	case err := <-failed:
		assert.NoError(t, err)
	}
	answer, err := c.ContainerInspect(ctx, name)
	require.NoError(t, err)
	assert.Equal(t, 3, answer.State.ExitCode)
	assert.NoError(t, c.ContainerRemove(ctx, name, container.RemoveOptions{RemoveVolumes: true}))
}
