package dockerexec

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	gogotypes "github.com/gogo/protobuf/types"
	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/pkg/errors"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A stop may take the grace period and the request time-out on top.
func TestShutdownMayTakeTheGracePeriod(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name  string
		grace *gogotypes.Duration
		want  time.Duration
	}{
		{"the task's", &gogotypes.Duration{Seconds: 300}, 301 * time.Second},
		{"the engine's default", nil, 11 * time.Second},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				client := newFakeClient(t)
				client.containerStop = func(ctx context.Context, _ string, _ container.StopOptions) error {
					<-ctx.Done()
					return ctx.Err()
				}
				task := plainTask()
				spec(task).StopGracePeriod = test.grace
				begin := time.Now()
				err := newTestAdapter(t, client, task, WithRequestTimeout(time.Second)).Shutdown(t.Context())
				assert.True(t, exec.IsTemporary(err), err)
				assert.Equal(t, test.want, time.Since(begin))
			})
		})
	}
}

// A grace period is rounded up to whole seconds; less than one second must
// not become an immediate kill. Without one, image and daemon decide.
func TestShutdownGraceIsRoundedUpAndUnsetStaysUnset(t *testing.T) {
	t.Parallel()
	seconds := func(n int) *int { return &n }
	for _, test := range []struct {
		name  string
		grace *gogotypes.Duration
		want  *int
	}{
		{"unset", nil, nil},
		{"500ms", &gogotypes.Duration{Nanos: 5e8}, seconds(1)},
		{"1ns", &gogotypes.Duration{Nanos: 1}, seconds(1)},
		{"1.999s", &gogotypes.Duration{Seconds: 1, Nanos: 999e6}, seconds(2)},
		{"10s", &gogotypes.Duration{Seconds: 10}, seconds(10)},
		{"0", &gogotypes.Duration{}, seconds(0)},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			client := newFakeClient(t)
			var got container.StopOptions
			client.containerStop = func(_ context.Context, _ string, options container.StopOptions) error {
				got = options
				return nil
			}
			task := plainTask()
			spec(task).StopGracePeriod = test.grace
			require.NoError(t, newTestAdapter(t, client, task).Shutdown(t.Context()))
			assert.Equal(t, container.StopOptions{Timeout: test.want}, got)
		})
	}
}

// Over HTTP a stop of a stopped container is a nil error; the text of an
// engine's inside is one too. Nor is there anything to stop, kill or remove when
// the container is gone.
func TestStoppingAndRemovingWhatIsNotThereSucceeds(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name string
		err  error
	}{
		{"unknown container", answer{"No such container: web.1.taskid", cerrdefs.ErrNotFound}},
		{"not found, in other words", answer{"it is not here", cerrdefs.ErrNotFound}},
		{"bare not found", cerrdefs.ErrNotFound},
		{"not running", answer{"cannot kill container: web.1.taskid: container 0123 is not running", cerrdefs.ErrConflict}},
		{"already stopped", errors.New("Container is already stopped")},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			client := newFakeClient(t)
			client.failEverything(test.err)
			adapter := newTestAdapter(t, client, plainTask())
			require.NoError(t, adapter.Shutdown(t.Context()))
			require.NoError(t, adapter.Terminate(t.Context()))
			if !IsStoppedContainer(test.err) {
				require.NoError(t, adapter.Remove(t.Context()))
			}
		})
	}
}

func TestRemoveForcesAndTakesAnonymousVolumes(t *testing.T) {
	t.Parallel()
	client := newFakeClient(t)
	client.containerRemove = func(_ context.Context, _ string, options container.RemoveOptions) error {
		assert.Equal(t, container.RemoveOptions{RemoveVolumes: true, Force: true}, options)
		return nil
	}
	require.NoError(t, newTestAdapter(t, client, plainTask()).Remove(t.Context()))
}

// Somebody else's removal is waited for: networks go only after the container.
func TestRemoveWaitsForARemovalInProgress(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		client := newFakeClient(t)
		client.containerRemove = func(context.Context, string, container.RemoveOptions) error {
			return answer{"removal of container web.1.taskid is already in progress", cerrdefs.ErrConflict}
		}
		begin := time.Now()
		client.containerInspect = func(context.Context, string) (container.InspectResponse, error) {
			if time.Since(begin) < 5*time.Second {
				return inspected("c0", container.StateRemoving, nil), nil
			}
			return container.InspectResponse{}, answer{"No such container: web.1.taskid", cerrdefs.ErrNotFound}
		}
		require.NoError(t, newTestAdapter(t, client, plainTask()).Remove(t.Context()))
		assert.Less(t, len(client.called()), 20)
	})
}

func TestRemoveGivesUpOnARemovalThatNeverEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		client := newFakeClient(t)
		client.containerRemove = func(context.Context, string, container.RemoveOptions) error {
			return answer{"removal of container web.1.taskid is already in progress", cerrdefs.ErrConflict}
		}
		client.containerInspect = func(context.Context, string) (container.InspectResponse, error) {
			return inspected("c0", container.StateRemoving, nil), nil
		}
		begin := time.Now()
		err := newTestAdapter(t, client, plainTask(), WithRequestTimeout(10*time.Second)).Remove(t.Context())
		require.EqualError(t, err, "remove container web.1.taskid: the engine did not answer within 10s")
		assert.True(t, exec.IsTemporary(err))
		assert.Equal(t, 10*time.Second, time.Since(begin))
	})
}
