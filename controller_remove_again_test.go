package dockerexec

import (
	"context"
	"strings"
	"testing"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Each call of a Remove that the engine fails to carry out is made again until
// it does: nobody else would.
func TestRemoveOutlastsWhatTheEngineFailsToDo(t *testing.T) {
	t.Parallel()
	for _, fault := range []simError{
		{`cannot remove container "web": unable to remove filesystem: device or resource busy`, cerrdefs.ErrInternal},
		{"something is in the way", cerrdefs.ErrConflict},
	} {
		for _, faulty := range []string{"ContainerInspect", "ContainerRemove", "NetworkInspect", "NetworkRemove"} {
			t.Run(faulty+" "+fault.class.Error(), func(t *testing.T) {
				t.Parallel()
				bubble(t, func(t *testing.T) {
					sim := newSimEngine(t)
					_, task := runningTask(t, sim, networkedTask())
					anew := newSimController(t, sim, task)
					sim.fails(failing(faulty, fault))
					sim.forgetCalls()
					time.AfterFunc(time.Hour, func() { sim.fails(nil) })
					began := time.Now()
					ctx, lines := logged(t)
					require.NoError(t, anew.Remove(ctx))
					assert.Less(t, time.Since(began), time.Hour+6*time.Second)
					assert.Greater(t, time.Since(began), time.Hour-time.Nanosecond)
					tries := strings.Count(strings.Join(sim.called(), "\n"), faulty)
					assert.Greater(t, tries, 700) // 5 s apart at most
					assert.Less(t, tries, 3000)
					if faulty == "ContainerRemove" { // the networks wait for it
						assert.Equal(t, 2, strings.Count(strings.Join(sim.called(), "\n"), "NetworkInspect"))
					}
					assert.Empty(t, sim.left())
					assert.Equal(t, []string{"stop or removal failed, trying again"}, lines(logrus.WarnLevel))
				})
			})
		}
	}
}

func TestRemoveEndsAtOnce(t *testing.T) {
	t.Parallel()
	t.Run("with its context", func(t *testing.T) {
		t.Parallel()
		bubble(t, func(t *testing.T) {
			sim := newSimEngine(t)
			ctlr, _ := runningTask(t, sim, plainTask())
			sim.fails(failing("ContainerRemove", errFinal))
			ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
			defer cancel()
			began := time.Now()
			assert.Equal(t, context.DeadlineExceeded, ctlr.Remove(ctx))
			assert.Equal(t, time.Hour, time.Since(began))
		})
	})
	for name, test := range map[string]struct {
		err  error
		want string
	}{
		"400":                       {simError{"bad parameter", cerrdefs.ErrInvalidArgument}, "Error response from daemon: bad parameter"},
		"401":                       {simError{"who are you", cerrdefs.ErrUnauthenticated}, "Error response from daemon: who are you"},
		"403":                       {errRefused, "Error response from daemon: authorization denied by plugin guard: no"},
		"501":                       {simError{"not here", cerrdefs.ErrNotImplemented}, "Error response from daemon: not here"},
		"a fake's, without a class": {assert.AnError, "assert.AnError general error for testing"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T) {
				sim := newSimEngine(t)
				ctlr, _ := runningTask(t, sim, plainTask())
				sim.fails(failing("ContainerRemove", test.err))
				began := time.Now()
				require.EqualError(t, ctlr.Remove(t.Context()), "remove container web.1.taskid: "+test.want)
				assert.Zero(t, time.Since(began))
			})
		})
	}
}

// What is made after a Remove that could not wait is removed by the step that
// made it, also if that does not succeed at once.
func TestAnUndoOutlastsWhatTheEngineFailsToDo(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		sim := newSimEngine(t)
		ctlr := newSimController(t, sim, plainTask())
		sim.slow = time.Minute
		prepare := asynchronously(func() error { return ctlr.Prepare(t.Context()) })
		time.Sleep(time.Second)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		assert.Equal(t, context.DeadlineExceeded, ctlr.Remove(ctx))
		sim.fails(failing("ContainerRemove", errFinal))
		time.Sleep(90 * time.Second)
		assert.Equal(t, []string{"container web.1.taskid"}, sim.left())
		sim.fails(nil)
		assert.Error(t, prepare())
		time.Sleep(time.Minute)
		assert.Empty(t, sim.left())
	})
}
