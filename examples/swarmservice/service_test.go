package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/moby/swarmkit/v2/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
)

// command runs swarmservice with the flags and returns what it prints.
func command(ctx context.Context, t *testing.T, conn *grpc.ClientConn, args ...string) (out, errors string, err error) {
	t.Helper()
	o, err := parseFlags(args, io.Discard)
	require.NoError(t, err)
	var stdout, stderr bytes.Buffer
	err = newSwarm(conn, &stdout, &stderr).run(ctx, o)
	return stdout.String(), stderr.String(), err
}

// runs is a schedule of tasks that run at once.
func runs(_ uint64, _ int, state func(api.TaskState, string)) { state(api.TaskStateRunning, "") }

func TestCreateWaitsUntilAllTasksRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake, conn := newFakeSwarm(t, func(_ uint64, n int, state func(api.TaskState, string)) {
			time.Sleep(time.Second) // the command watches by then
			state(api.TaskStatePreparing, "")
			time.Sleep(time.Minute)
			if n < 3 { // two ends are not yet too many
				state(api.TaskStateFailed, "task: non-zero exit (1)")
				return
			}
			state(api.TaskStateRunning, "")
		})
		begin := time.Now()
		out, _, err := command(t.Context(), t, conn, "-name", "web", "-image", "example/web:1", "-replicas", "1", "--", "serve", "-v")
		require.NoError(t, err)
		assert.Equal(t, 3*time.Minute+3*time.Second, time.Since(begin))
		assert.Equal(t, `service service-1
task task-1 NEW 
task task-1 PREPARING 
task task-1 FAILED task: non-zero exit (1)
task task-2 NEW 
task task-2 PREPARING 
task task-2 FAILED task: non-zero exit (1)
task task-3 NEW 
task task-3 PREPARING 
task task-3 RUNNING 
`, out)
		spec := fake.service.Spec.Task.GetContainer()
		assert.Equal(t, "example/web:1", spec.Image)
		assert.Equal(t, []string{"serve", "-v"}, spec.Args)
	})
}

// An image that cannot be pulled is not waited for: the third task of a slot is the last.
func TestCreateEndsWithTheLastErrorOfADeadSlot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, conn := newFakeSwarm(t, func(slot uint64, n int, state func(api.TaskState, string)) {
			if slot == 1 {
				state(api.TaskStateRunning, "")
				return
			}
			time.Sleep(5 * time.Second)
			state(api.TaskStateRejected, fmt.Sprint("no such image, try ", n))
		})
		begin := time.Now()
		_, _, err := command(t.Context(), t, conn, "-name", "web", "-image", "example/typo:1", "-replicas", "2")
		require.EqualError(t, err, "the service web does not come up, and stays: "+
			"3 tasks of slot 2 have ended. The last error: no such image, try 3")
		assert.Equal(t, 15*time.Second, time.Since(begin))
	})
}

// Three tasks of three slots are no dead slot. One that has no error to tell has a state.
func TestCreateCountsEachSlotApart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, conn := newFakeSwarm(t, func(slot uint64, _ int, state func(api.TaskState, string)) {
			time.Sleep(time.Duration(slot) * time.Second)
			state(api.TaskStateCompleted, "")
		})
		begin := time.Now()
		_, _, err := command(t.Context(), t, conn, "-name", "job", "-image", "hello-world", "-replicas", "3")
		require.EqualError(t, err, "the service job does not come up, and stays: "+
			"3 tasks of slot 1 have ended. The last error: none, the task is COMPLETE")
		assert.Equal(t, 3*time.Second, time.Since(begin))
	})
}

func TestCreateEndsAfterTenMinutes(t *testing.T) {
	for _, tt := range []struct{ name, status, want string }{
		{"with an error", "no suitable node", "no suitable node"},
		{"without one", "", "none"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				_, conn := newFakeSwarm(t, func(_ uint64, _ int, state func(api.TaskState, string)) {
					state(api.TaskStatePending, tt.status)
				})
				begin := time.Now()
				_, _, err := command(t.Context(), t, conn, "-name", "web", "-image", "example/web:1")
				require.EqualError(t, err, "the service web is not up after 10m0s, and stays. The last error: "+tt.want)
				assert.Equal(t, 10*time.Minute, time.Since(begin))
			})
		})
	}
}

func TestCreateEndsWithCtrlC(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, conn := newFakeSwarm(t, func(_ uint64, _ int, state func(api.TaskState, string)) {
			state(api.TaskStatePending, "")
		})
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Minute, cancel)
		_, _, err := command(ctx, t, conn, "-name", "web", "-image", "example/web:1")
		require.ErrorIs(t, err, context.Canceled)
	})
}

// What ended before the service was scaled is no reason to give up.
func TestScaleWaitsForTheNewNumber(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake, conn := newFakeSwarm(t, func(slot uint64, n int, state func(api.TaskState, string)) {
			time.Sleep(time.Second) // the command watches by then
			if slot == 1 && n < 3 {
				state(api.TaskStateFailed, "an old error")
				return
			}
			state(api.TaskStateRunning, "")
			if slot == 1 && n == 3 {
				time.Sleep(time.Hour)
				state(api.TaskStateFailed, "an old error")
			}
		})
		_, _, err := command(t.Context(), t, conn, "-name", "web", "-image", "example/web:1")
		require.NoError(t, err)
		time.Sleep(2 * time.Hour) // its fourth task runs

		out, _, err := command(t.Context(), t, conn, "-name", "web", "-scale", "2")
		require.NoError(t, err)
		assert.EqualValues(t, 2, fake.service.Spec.GetReplicated().Replicas)
		assert.Equal(t, "task task-4 RUNNING \ntask task-5 NEW \ntask task-5 RUNNING \n", out)
	})
}

func TestPsListsTheTasks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, conn := newFakeSwarm(t, func(slot uint64, n int, state func(api.TaskState, string)) {
			time.Sleep(time.Duration(2-slot) * time.Second) // slot 2 first
			if slot == 1 && n == 1 {
				state(api.TaskStateFailed, "task: non-zero exit (1)")
				return
			}
			state(api.TaskStateRunning, "")
		})
		_, _, err := command(t.Context(), t, conn, "-name", "web", "-image", "example/web:1", "-replicas", "2")
		require.NoError(t, err)
		out, _, err := command(t.Context(), t, conn, "-name", "web", "-ps")
		require.NoError(t, err)
		assert.Regexp(t, `^SLOT  TASK    NODE    WANTED    STATE    SINCE                 ERROR
1     task-\d  host-1  SHUTDOWN  FAILED   2000-01-01T00:00:01Z  task: non-zero exit \(1\)
1     task-3  host-1  RUNNING   RUNNING  2000-01-01T00:00:02Z  -
2     task-\d  host-1  RUNNING   RUNNING  2000-01-01T00:00:00Z  -
$`, out)
	})
}

func TestLogsSayWhichTaskWroteThem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake, conn := newFakeSwarm(t, runs)
		_, _, err := command(t.Context(), t, conn, "-name", "web", "-image", "example/web:1")
		require.NoError(t, err)
		fake.log = []api.LogMessage{
			{Context: api.LogContext{TaskID: "task-1"}, Stream: api.LogStreamStdout, Data: []byte("ready\n")},
			{Context: api.LogContext{TaskID: "task-1"}, Stream: api.LogStreamStderr, Data: []byte("no newline")},
		}
		out, errors, err := command(t.Context(), t, conn, "-name", "web", "-logs")
		require.NoError(t, err)
		assert.Equal(t, "task-1 | ready\n", out)
		assert.Equal(t, "task-1 | no newline\n", errors)
	})
}

func TestRemoveAndTokens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake, conn := newFakeSwarm(t, runs)
		_, _, err := command(t.Context(), t, conn, "-name", "web", "-image", "example/web:1")
		require.NoError(t, err)
		_, _, err = command(t.Context(), t, conn, "-name", "web", "-remove")
		require.NoError(t, err)
		assert.Nil(t, fake.service)
		_, _, err = command(t.Context(), t, conn, "-name", "web", "-remove")
		require.EqualError(t, err, "there is no service web")
		out, _, err := command(t.Context(), t, conn, "-tokens")
		require.NoError(t, err)
		assert.Equal(t, "worker  token-w\nmanager token-m\n", out)
	})
}

func TestOnlyOneThingIsDone(t *testing.T) {
	for _, args := range [][]string{{}, {"-name", "web"}, {"-ps"}, {"-name", "web", "-ps", "-logs"},
		{"-name", "web", "-image", "a", "-scale", "2"}, {"-name", "web", "-tokens", "-remove"}} {
		_, err := parseFlags(args, io.Discard)
		assert.EqualError(t, err, "-tokens, or -name and one of -image, -scale, -ps, -logs and -remove are needed", "%q", args)
	}
	o, err := parseFlags([]string{"-name", "web", "-scale", "0"}, io.Discard)
	require.NoError(t, err)
	assert.EqualValues(t, 0, *o.scale)
}

func TestUsageSaysWhenItGivesUp(t *testing.T) {
	var usage bytes.Buffer
	_, err := parseFlags([]string{"-h"}, &usage)
	require.EqualError(t, err, "flag: help requested")
	assert.Contains(t, usage.String(), "once 3 tasks of one slot have ended, or 10m0s have passed.")
}
