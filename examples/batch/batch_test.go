package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockerexec/dockerexec"
	"github.com/dockerexec/dockerexec/dockerexectest"
)

// desk is a list of jobs and an engine for tests, on which batches run one after the other.
type desk struct {
	t      *testing.T
	engine *dockerexectest.Engine
	file   string

	mu        sync.Mutex
	starts    map[string]int // of each job
	now, most int            // how many run
}

// newDesk makes a list of jobs that have these names. Each takes a minute, and ends with
// what exit says about its n-th start.
func newDesk(t *testing.T, exit func(name string, n int) int, names ...string) *desk {
	d := &desk{t: t, engine: dockerexectest.New(t), file: filepath.Join(t.TempDir(), "jobs"), starts: map[string]int{}}
	d.engine.Image("example/job:1", func(p *dockerexectest.Process) int {
		d.mu.Lock()
		d.starts[p.Args[1]]++
		n := d.starts[p.Args[1]]
		d.now++
		d.most = max(d.most, d.now)
		d.mu.Unlock()
		defer func() {
			d.mu.Lock()
			defer d.mu.Unlock()
			d.now--
		}()
		fmt.Fprintln(p.Stdout, "start", n)
		select {
		case <-time.After(time.Minute):
			return exit(p.Args[1], n)
		case <-p.Signals:
			return 0
		}
	})
	var text strings.Builder
	for _, name := range names {
		fmt.Fprintf(&text, `{"serviceAnnotations": {"name": %[1]q}, "spec": {"container": {"image": "example/job:1", "command": ["job", %[1]q]}}}`+"\n", name)
	}
	require.NoError(t, os.WriteFile(d.file, []byte(text.String()), 0o600))
	return d
}

// run runs a batch to its end, and returns its table and what it printed before that.
func (d *desk) run(ctx context.Context) (table, output string, err error) {
	d.t.Helper()
	out, fileErr := os.CreateTemp(d.t.TempDir(), "")
	require.NoError(d.t, fileErr)
	b := &batch{attempts: 2}
	err = b.run(ctx, d.engine.Client(), d.file, out)
	require.NoError(d.t, b.journal.Close())
	text, fileErr := os.ReadFile(out.Name())
	require.NoError(d.t, fileErr)
	require.NoError(d.t, out.Close())
	assert.Empty(d.t, d.engine.Containers())
	output, table, _ = strings.Cut(string(text), "JOB ")
	return "JOB " + table, output, err
}

// note writes into the journal, as a process does that is killed afterwards.
func (d *desk) note(name string, attempt int, state string) {
	b := &batch{}
	_, err := b.read(d.file)
	require.NoError(d.t, err)
	b.note(record{ID: b.taskID(name, attempt), Name: name, Attempt: attempt}, state, "")
	require.NoError(d.t, b.journal.Close())
}

func succeed(string, int) int { return 0 }

func TestBatchRunsEachJobOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t, func(name string, n int) int {
			return map[string]int{"good": 0, "bad": 3, "moody": 2 - n}[name]
		}, "good", "bad", "moody")
		const want = `JOB    STATE     ATTEMPT  CAUSE
good   complete  1        
bad    failed    2        task: non-zero exit (3)
moody  complete  2        
`
		starts := map[string]int{"good": 1, "bad": 2, "moody": 2}
		table, output, err := d.run(t.Context())
		require.EqualError(t, err, "the job bad is failed")
		assert.Equal(t, want, table)
		assert.Equal(t, starts, d.starts)
		assert.Contains(t, output, "moody | start 2\n")

		table, _, err = d.run(t.Context())
		require.Error(t, err)
		assert.Equal(t, want, table)
		assert.Equal(t, starts, d.starts, "what has ended is not run again")
	})
}

func TestBatchRunsFourJobsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t, succeed, "a", "b", "c", "d", "e", "f")
		_, _, err := d.run(t.Context())
		require.NoError(t, err)
		assert.Equal(t, 4, d.most)
	})
}

// A job that was stopped has not ended, though its container exited with 0.
func TestBatchRunsAnewWhatWasStopped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t, succeed, "a", "b", "c", "d", "e")
		ctx, interrupt := context.WithTimeout(t.Context(), 30*time.Second)
		defer interrupt()
		table, _, err := d.run(ctx)
		require.Error(t, err)
		assert.Contains(t, table, "a    stopped  1        context canceled\n")
		assert.Contains(t, table, "e    not run  0        \n")

		table, _, err = d.run(t.Context())
		require.NoError(t, err)
		assert.Contains(t, table, "a    complete  1        \n")
		assert.Equal(t, map[string]int{"a": 2, "b": 2, "c": 2, "d": 2, "e": 1}, d.starts)
	})
}

// What a process leaves that is killed in the middle of a stop.
func TestBatchIsKilledWhileItStopsAJob(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t, succeed, "a")
		d.leave("a", 0)
		d.note("a", 1, "stopped")
		table, _, err := d.run(t.Context())
		require.NoError(t, err)
		assert.Contains(t, table, "a    complete  1        \n")
		assert.Equal(t, map[string]int{"a": 1}, d.starts, "that of the killed process is not counted")
	})
}

// A batch that begins while the engine is away waits for it.
func TestBatchWaitsForTheEngine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t, succeed, "a")
		d.engine.Down()
		time.AfterFunc(30*time.Second, d.engine.Up)
		table, _, err := d.run(t.Context())
		require.NoError(t, err)
		assert.Contains(t, table, "a    complete  1        \n")
	})
}

// What a process leaves that is killed after it has written an end down.
func TestBatchIsKilledBeforeARemoval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t, succeed, "a")
		d.leave("a", 0)
		d.note("a", 1, "complete")
		table, _, err := d.run(t.Context()) // it expects that no container is left
		require.NoError(t, err)
		assert.Contains(t, table, "a    complete  1        \n")
		assert.Empty(t, d.starts)
	})
}

// leave puts a container of a job's first attempt on the engine that has ended.
func (d *desk) leave(name string, code int) {
	b := &batch{}
	tasks, err := b.read(d.file)
	require.NoError(d.t, err)
	require.NoError(d.t, b.journal.Close())
	require.Equal(d.t, name, tasks[0].ServiceAnnotations.Name)
	id := b.taskID(name, 1)
	d.engine.AddContainer(name+".1."+id, map[string]string{"com.docker.swarm.task": "", "com.docker.swarm.task.id": id}).Exit(code)
}

func TestBatchDoesNotRunAJobTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t, succeed, "a", "b")
		d.note("a", 1, "running") // and somebody has removed its container
		for range 2 {
			table, _, err := d.run(t.Context())
			require.EqualError(t, err, "the job a is unknown")
			assert.Contains(t, table, "a    unknown   1        ")
			assert.Contains(t, table, "somebody removed its container")
			assert.Contains(t, table, "b    complete  1        \n")
		}
		assert.Equal(t, map[string]int{"b": 1}, d.starts)
	})
}

func TestBatchTakesOverAContainer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t, succeed, "a")
		d.leave("a", 4)
		d.note("a", 1, "running")
		d.note("a", 2, "complete")
		table, _, err := d.run(t.Context())
		require.NoError(t, err)
		assert.Contains(t, table, "a    complete  2        \n", "the second attempt, after the 4 of the first")
		assert.Empty(t, d.starts)
	})
}

func TestBatchRefusesAList(t *testing.T) {
	for name, tt := range map[string]struct{ text, want string }{
		"no JSON":         {"jobs", "invalid character"},
		"unknown field":   {`{"spec": {"container": {"imag": "x"}}}`, `unknown field "imag"`},
		"no name":         {`{}`, `a job has no name of its own: ""`},
		"two of one name": {`{"serviceAnnotations": {"name": "a"}} {"serviceAnnotations": {"name": "a"}}`, `a job has no name of its own: "a"`},
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "jobs")
			require.NoError(t, os.WriteFile(file, []byte(tt.text), 0o600))
			_, err := (&batch{}).read(file)
			require.ErrorContains(t, err, tt.want)
		})
	}
	_, err := (&batch{}).read("/nonexistent")
	require.ErrorContains(t, err, "/nonexistent")
}

func TestBatchReadsSecrets(t *testing.T) {
	b := &batch{file: filepath.Join(t.TempDir(), "jobs")}
	require.NoError(t, os.Mkdir(b.file+".secrets", 0o700))
	require.NoError(t, os.WriteFile(b.file+".secrets/password", []byte("canary"), 0o600))
	secret, err := b.Secrets().Get("password")
	require.NoError(t, err)
	assert.Equal(t, "canary", string(secret.Spec.Data))
	require.NoError(t, os.WriteFile(b.file, nil, 0o600))
	_, err = b.Secrets().Get("../jobs")
	require.ErrorIs(t, err, os.ErrNotExist, "it is outside of the folder")
	_, err = b.Secrets().Get("other")
	require.ErrorIs(t, err, os.ErrNotExist)
}

// A run was killed, and a job was taken off the list since. The next run removes the job's
// container, and nobody else's.
func TestBatchRemovesWhatAKilledRunHasLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t, succeed, "gone", "kept")
		b := &batch{}
		tasks, err := b.read(d.file)
		require.NoError(t, err)
		require.NoError(t, b.journal.Close())
		others := tasks[0].Copy()
		others.ID, others.NodeID = "other", "another-list"
		for _, task := range append(tasks, others) {
			if task != others {
				task.ID = b.taskID(task.ServiceAnnotations.Name, 1)
			}
			a, err := dockerexec.NewEngine(d.engine.Client()).Adapter(nil, task, nil)
			require.NoError(t, err)
			require.NoError(t, a.PullImage(t.Context()))
			require.NoError(t, a.Create(t.Context()))
			require.NoError(t, a.Start(t.Context()))
		}
		jobs, err := os.ReadFile(d.file)
		require.NoError(t, err)
		_, jobs, _ = bytes.Cut(jobs, []byte("\n"))
		require.NoError(t, os.WriteFile(d.file, jobs, 0o600))

		out, err := os.CreateTemp(t.TempDir(), "")
		require.NoError(t, err)
		b = &batch{attempts: 2}
		require.NoError(t, b.run(t.Context(), d.engine.Client(), d.file, out))
		require.NoError(t, b.journal.Close())
		text, err := os.ReadFile(out.Name())
		require.NoError(t, err)
		require.NoError(t, out.Close())
		assert.Contains(t, string(text), "gone.1."+tasks[0].ID+": removed, it is no job any more\n")
		assert.Equal(t, 1, strings.Count(string(text), "removed"))
		assert.Equal(t, map[string]int{"gone": 2, "kept": 1}, d.starts, "the container of the job that is kept went on")
		left := d.engine.Containers()
		require.Len(t, left, 1)
		assert.Equal(t, "gone.1.other", left[0].Name())
		left[0].RemoveByHand()
	})
}
