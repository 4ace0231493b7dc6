package dockerexec

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A Remove that comes once a step has returned stops the container itself, and the
// step does not take it away before.
func TestAStepReturnsOnceItIsUndone(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		sim := newSimEngine(t)
		sim.latency = time.Second
		ctlr := newSimController(t, sim, plainTask())
		require.NoError(t, ctlr.step(t.Context(), func(ctx context.Context) error {
			err := ctlr.adapter.Create(ctx)
			ctlr.mu.Lock()
			defer ctlr.mu.Unlock()
			ctlr.removed = true
			return err
		}))
		sim.mu.Lock()
		defer sim.mu.Unlock()
		assert.Contains(t, sim.calls, "ContainerCreate web.1.taskid")
		assert.Empty(t, sim.containers)
	})
}
