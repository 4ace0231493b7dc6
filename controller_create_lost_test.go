package dockerexec

import (
	"context"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/moby/swarmkit/v2/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// slowCreate has the engine reserve the container's name at the first create, not
// answer that in time, and show the container only after a time.
func slowCreate(sim *simEngine, after time.Duration) {
	began := false
	sim.fails(func(call string) error {
		if !strings.HasPrefix(call, "ContainerCreate") {
			return nil
		}
		if began {
			return conflict(`Conflict. The container name "/%s" is already in use by container "0123456789ab". You have to remove (or rename) that container to be able to reuse that name.`, taskName)
		}
		began = true
		time.AfterFunc(after, func() {
			sim.mu.Lock()
			defer sim.mu.Unlock()
			sim.containers[taskName] = &simContainer{id: "0123456789ab", name: taskName,
				config: container.Config{Labels: map[string]string{LabelTaskID: "taskid"}},
				state:  container.State{Status: container.StateCreated}}
		})
		time.Sleep(2 * time.Minute) // as long as a request may take
		return context.DeadlineExceeded
	})
}

// An engine shows a container only at the end of its create, which may copy much
// into volumes.
func TestACreateThatTakesLongerThanARequest(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		sim := newSimEngine(t)
		task := taskAt(plainTask(), api.TaskStateAccepted)
		ctlr := newSimController(t, sim, task)
		slowCreate(sim, 3*time.Minute)
		began := time.Now()
		drive(t.Context(), t, task, ctlr, api.TaskStateReady)
		assert.Equal(t, api.TaskStateReady, task.Status.State, task.Status.Err)
		assert.GreaterOrEqual(t, time.Since(began), 3*time.Minute)
		assert.Less(t, time.Since(began), 3*time.Minute+10*time.Second)
		require.NoError(t, ctlr.Remove(t.Context()))
		assert.Empty(t, sim.left())
	})
}

func TestTheTriesOfACreateAreSpaced(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		sim := newSimEngine(t)
		ctlr := newSimController(t, sim, plainTask())
		sim.fails(failing("ContainerCreate", conflict(`Conflict. The container name "/web.1.taskid" is already in use by container "abc".`)))
		began := time.Now()
		err := ctlr.adapter.Create(t.Context())
		assert.True(t, exec.IsTemporary(err))
		assert.GreaterOrEqual(t, time.Since(began), 2*coalesceTime)
		assert.LessOrEqual(t, time.Since(began), 2*coalesceTime+300*time.Millisecond)
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		assert.Equal(t, context.DeadlineExceeded, ctlr.adapter.Create(ctx))
	})
}

// What fails before the engine is asked leaves nothing to look for.
func TestRemoveLooksForNoCreateThatWasNotSent(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		sim := newSimEngine(t)
		ctlr := newSimController(t, sim, plainTask())
		ctlr.adapter.late = func() (*containerConfig, payloads, error) {
			if len(sim.called()) == 0 {
				return ctlr.adapter.config, payloads{}, nil
			}
			return nil, payloads{}, exec.MakeTemporary(errNodeUnknown)
		}
		require.True(t, exec.IsTemporary(ctlr.Prepare(t.Context())))
		sim.forgetCalls()
		began := time.Now()
		require.NoError(t, ctlr.Remove(t.Context()))
		assert.Zero(t, time.Since(began))
		assert.NotContains(t, sim.called(), "ContainerCreate web.1.taskid")
	})
}

// A removal that is tried again does not look for the container each time.
func TestRemoveLooksForALostCreateOnce(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		sim := newSimEngine(t)
		task := plainTask()
		attach(task, "n1", "10.1.0.0/24")
		ctlr := newSimController(t, sim, task)
		slowCreate(sim, 1000*time.Hour)
		require.True(t, exec.IsTemporary(ctlr.Prepare(t.Context())))
		tries := 0
		sim.fails(func(call string) error {
			if strings.HasPrefix(call, "NetworkRemove ") {
				if tries++; tries <= 3 {
					return errAway
				}
			}
			return nil
		})
		began := time.Now()
		require.NoError(t, ctlr.Remove(t.Context()))
		assert.Equal(t, 4, tries)
		assert.GreaterOrEqual(t, time.Since(began), 5*time.Second)
		assert.Less(t, time.Since(began), 9*time.Second) // with the pauses between the tries
	})
}

func TestRemoveLooksForALostCreate(t *testing.T) {
	t.Parallel()
	lose := func(t *testing.T, sim *simEngine, after time.Duration) *controller {
		ctlr := newSimController(t, sim, plainTask())
		slowCreate(sim, after)
		err := ctlr.Prepare(t.Context())
		require.True(t, exec.IsTemporary(err), err)
		return ctlr
	}
	t.Run("comes", func(t *testing.T) {
		t.Parallel()
		bubble(t, func(t *testing.T) {
			sim := newSimEngine(t)
			ctlr := lose(t, sim, 2*time.Minute+4500*time.Millisecond)
			began := time.Now()
			require.NoError(t, ctlr.Remove(t.Context()))
			assert.Equal(t, 5*time.Second, time.Since(began))
			time.Sleep(time.Hour)
			assert.Empty(t, sim.left())
		})
	})
	t.Run("does not come", func(t *testing.T) {
		t.Parallel()
		bubble(t, func(t *testing.T) {
			sim := newSimEngine(t)
			ctlr := lose(t, sim, 1000*time.Hour)
			began := time.Now()
			require.NoError(t, ctlr.Remove(t.Context()))
			assert.Equal(t, 5*time.Second, time.Since(began))
		})
	})
	t.Run("the context ends", func(t *testing.T) {
		t.Parallel()
		bubble(t, func(t *testing.T) {
			sim := newSimEngine(t)
			ctlr := lose(t, sim, 1000*time.Hour)
			ctx, cancel := context.WithTimeout(t.Context(), 1500*time.Millisecond)
			defer cancel()
			assert.Equal(t, context.DeadlineExceeded, ctlr.Remove(ctx))
		})
	})
	t.Run("the create was refused", func(t *testing.T) {
		t.Parallel()
		bubble(t, func(t *testing.T) {
			sim := newSimEngine(t)
			ctlr := newSimController(t, sim, plainTask())
			sim.fails(failing("ContainerCreate", errRefused))
			require.Error(t, ctlr.Prepare(t.Context()))
			sim.fails(nil)
			began := time.Now()
			require.NoError(t, ctlr.Remove(t.Context()))
			assert.Zero(t, time.Since(began))
		})
	})
	t.Run("a later create was answered", func(t *testing.T) {
		t.Parallel()
		bubble(t, func(t *testing.T) {
			sim := newSimEngine(t)
			task := plainTask()
			task.Annotations.Name = "web"
			ctlr := newSimController(t, sim, task)
			sim.fails(failing("ContainerCreate", io.ErrUnexpectedEOF))
			require.Error(t, ctlr.Prepare(t.Context()))
			sim.fails(nil)
			require.NoError(t, ctlr.Prepare(t.Context()))
			require.NoError(t, ctlr.adapter.Remove(t.Context()))
			began := time.Now()
			require.NoError(t, ctlr.Remove(t.Context()))
			assert.Zero(t, time.Since(began))
		})
	})
}
