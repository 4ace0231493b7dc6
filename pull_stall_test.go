package dockerexec

import (
	"context"
	"fmt"
	"io"
	"testing"
	"testing/synctest"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// message is one of an engine's.
func layerMessage(id, status string, current, total int, units string) string {
	return fmt.Sprintf(`{"status":%q,"progressDetail":{"current":%d,"total":%d,"units":%q},"id":%q}`, status, current, total, units, id)
}

func TestPullStall(t *testing.T) {
	t.Parallel()
	const limit = 3 * time.Second
	type write func(format string, args ...any)
	every := func(n int, interval time.Duration, each func(i int)) {
		for i := range n {
			each(i)
			time.Sleep(interval)
		}
	}
	for name, test := range map[string]struct {
		script func(w write)
		after  time.Duration // the pull is cut; 0: it is not
		err    string
	}{
		"nothing is ever said": {
			script: func(write) { time.Sleep(time.Hour) },
			after:  limit,
			err:    "stalled: no answer from the engine for 3s",
		},
		"a byte now and then": {
			script: func(w write) {
				every(100, 2900*time.Millisecond, func(i int) { w(layerMessage("a", "Downloading", i, 1000, "")) })
			},
		},
		"an offset said over and over": {
			script: func(w write) {
				every(20, 100*time.Millisecond, func(i int) { w(layerMessage("a", "Downloading", i<<20, 100<<20, "")) })
				every(1000, 100*time.Millisecond, func(int) { w(layerMessage("a", "Downloading", 19<<20, 100<<20, "")) })
			},
			after: 1900*time.Millisecond + limit,
			err:   "stalled: no advance for 3s; it came to 0 of 1 layers, 19.92MB of 104.9MB",
		},
		"a slow layer, told by the MiB": {
			script: func(w write) {
				w(layerMessage("a", "Pulling fs layer", 0, 0, ""))
				time.Sleep(16 * time.Second)
				every(320, 100*time.Millisecond, func(i int) { w(layerMessage("a", "Downloading", (i/160+1)<<20, 3<<20, "")) })
			},
		},
		"a slow layer, told by the MiB, beside a quick one": {
			script: func(w write) {
				every(330, 100*time.Millisecond, func(i int) {
					w(layerMessage("a", "Downloading", min(i, 9)<<20, 9<<20, ""))
					w(layerMessage("b", "Downloading", i/160<<20, 3<<20, ""))
				})
			},
		},
		"a layer that is announced and never begins": {
			script: func(w write) {
				w(layerMessage("a", "Pulling fs layer", 0, 0, ""))
				time.Sleep(time.Hour)
			},
			after: 20 * time.Second,
			err:   "stalled: no advance for 20s; it came to 0 of 1 layers, 0B",
		},
		"a layer, told by the MiB, that never begins": {
			script: func(w write) {
				every(1000, 100*time.Millisecond, func(int) { w(layerMessage("a", "Downloading", 0, 3<<20, "")) })
			},
			after: 20 * time.Second,
			err:   "stalled: no advance for 20s; it came to 0 of 1 layers, 0B of 3.146MB",
		},
		"a layer, told by the MiB, that had to wait and hangs": {
			script: func(w write) {
				every(110, 10*time.Second, func(i int) {
					w(layerMessage("b", "Downloading", i+1, 1000, ""))
					if i == 0 {
						w(layerMessage("a", "Pulling fs layer", 0, 0, ""))
					}
				})
				w(layerMessage("b", "Pull complete", 0, 0, ""))
				every(1000, 100*time.Millisecond, func(int) { w(layerMessage("a", "Downloading", 1<<20, 3<<20, "")) })
			},
			after: 1100*time.Second + 40*time.Second,
			err:   "stalled: no advance for 40s; it came to 1 of 2 layers, 1.05MB of 3.147MB",
		},
		"a layer, told by the MiB, that was slow and hangs": {
			script: func(w write) {
				every(1000, 100*time.Millisecond, func(i int) { w(layerMessage("a", "Downloading", min(i/50, 1)<<20, 3<<20, "")) })
			},
			after: 5*time.Second + 10*time.Second,
			err:   "stalled: no advance for 10s; it came to 0 of 1 layers, 1.049MB of 3.146MB",
		},
		"a countdown said over and over": {
			script: func(w write) {
				w(layerMessage("a", "Downloading", 5, 9, ""))
				every(100, time.Second, func(i int) { w(layerMessage("a", fmt.Sprintf("Retrying in %d seconds", 100-i), 0, 0, "")) })
			},
			after: limit,
			err:   "stalled: no advance for 3s; it came to 0 of 1 layers, 0B of 9B",
		},
		"a status of its own for each message": {
			script: func(w write) {
				every(10000, time.Second, func(i int) { w(`{"status":"still at it: %d"}`, i) })
			},
			after: (maxTurns-1)*time.Second + limit,
			err:   "stalled: no advance for 3s; it came to 0 of 0 layers, 0B",
		},
		"two offsets by turns": {
			script: func(w write) {
				every(1000, time.Second, func(i int) { w(layerMessage("a", "Downloading", 5+i%2, 9, "")) })
			},
			after: (2*maxTurns+1)*time.Second + limit,
			err:   "stalled: no advance for 3s; it came to 0 of 1 layers, 6B of 9B",
		},
		"seconds of extraction": {
			script: func(w write) {
				w(layerMessage("a", "Download complete", 0, 0, ""))
				every(3500, time.Second, func(i int) { w(layerMessage("a", "Extracting", i+1, 0, "s")) })
				w(layerMessage("a", "Pull complete", 0, 0, ""))
			},
		},
		"seconds of an extraction without end": {
			script: func(w write) {
				every(4000, time.Second, func(i int) { w(layerMessage("a", "Extracting", i+1, 0, "s")) })
			},
			after: time.Hour,
			err:   "stalled: no advance for 1h0m0s; it came to 0 of 1 layers, 0B",
		},
		"bytes of extraction": {
			script: func(w write) {
				every(100, 59*time.Minute, func(i int) { w(layerMessage("a", "Extracting", i+1, 100, "")) })
			},
		},
		"silence between download and extraction, as with older engines": {
			script: func(w write) {
				w(layerMessage("a", "Download complete", 0, 0, ""))
				time.Sleep(59 * time.Minute)
			},
		},
		"a download that hangs beside an extraction": {
			script: func(w write) {
				w(layerMessage("b", "Downloading", 5, 9, ""))
				every(100, time.Second, func(i int) { w(layerMessage("a", "Extracting", i+1, 100, "")) })
			},
			after: limit,
			err:   "stalled: no advance for 3s; it came to 0 of 2 layers, 5B of 9B",
		},
		"a layer in the engine's queue": {
			script: func(w write) {
				w(layerMessage("a", "Pulling fs layer", 0, 0, ""))
				w(layerMessage("a", "Waiting", 0, 0, ""))
				time.Sleep(59 * time.Minute)
			},
		},
		"a last word that never comes": {
			script: func(w write) {
				w(layerMessage("a", "Already exists", 0, 0, ""))
				time.Sleep(time.Hour)
			},
			after: limit,
			err:   "stalled: no advance for 3s; it came to 1 of 1 layers, 0B",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				body, script := scripted()
				scriptEnded := make(chan struct{})
				defer func() { <-scriptEnded }()
				go func() {
					defer close(scriptEnded)
					defer script.Close()
					test.script(func(format string, args ...any) { fmt.Fprintf(script, format+"\n", args...) })
				}()
				client := pulling(t, func(context.Context) (io.ReadCloser, error) { return body, nil })
				started := time.Now()
				err := newTestAdapter(t, client, pullTask("x"), WithPullStallTimeout(limit)).PullImage(t.Context())
				if test.after == 0 {
					assert.NoError(t, err)
					return
				}
				require.EqualError(t, err, "pull image x, attempt 1 of 3: "+test.err)
				assert.False(t, exec.IsTemporary(err))
				assert.True(t, cerrdefs.IsUnavailable(err))
				assert.Equal(t, test.after, time.Since(started))
			})
		})
	}
}

func TestPullStallBeforeTheAnswer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		client := pulling(t, func(ctx context.Context) (io.ReadCloser, error) { <-ctx.Done(); return nil, ctx.Err() })
		started := time.Now()
		err := newTestAdapter(t, client, pullTask("x")).PullImage(t.Context())
		require.EqualError(t, err, "pull image x, attempt 1 of 3: stalled: no answer from the engine for 5m0s")
		assert.Equal(t, defaultPullStallTimeout, time.Since(started))
	})
}

func TestPullStallTimeoutOff(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		client := pulling(t, func(ctx context.Context) (io.ReadCloser, error) { time.Sleep(1000 * time.Hour); return stream()(ctx) })
		assert.NoError(t, newTestAdapter(t, client, pullTask("x"), WithPullStallTimeout(0)).PullImage(t.Context()))
	})
}

// An engine downloads a few layers at a time, of all pulls together.
func TestPullBehindOthersIsNotStalled(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		bodies := make(chan io.ReadCloser, 2)
		client := pulling(t, func(context.Context) (io.ReadCloser, error) { return <-bodies, nil })
		engine := NewEngine(client, WithPullStallTimeout(3*time.Second))

		long, longScript := scripted()
		bodies <- long
		first := make(chan error)
		adapter := adapterOf(t, engine, pullTask("long"))
		go func() { first <- adapter.PullImage(t.Context()) }()
		go download(longScript, 100, time.Second)
		synctest.Wait()

		queued, queuedScript := scripted()
		bodies <- queued
		go fmt.Fprintln(queuedScript, layerMessage("b", "Pulling fs layer", 0, 0, ""))
		started := time.Now()
		err := adapterOf(t, engine, pullTask("queued")).PullImage(t.Context())
		require.ErrorContains(t, err, "no advance for 20s")
		assert.Equal(t, 99*time.Second+20*time.Second, time.Since(started), "its own time counts from when nothing gets on")
		assert.NoError(t, <-first)
	})
}
