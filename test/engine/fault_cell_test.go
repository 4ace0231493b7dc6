package engine_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/image"
	engineapi "github.com/docker/docker/client"
	"github.com/dockerexec/dockerexec"
	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/moby/swarmkit/v2/api"
	"github.com/moby/swarmkit/v2/log"
	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// faultRow is one request of one operation.
type faultRow struct {
	name   string   // "operation: request"
	target string   // the request, as faultPlan has it; <ID> is the container's
	nth    int      // the how many-th of those; 0: the first
	every  bool     // all of them
	before bool     // also those before
	ends   outcomes // how the operation ends

	bodiless bool // the answer has no body to cut, garble or leave out
	// untimed: no time-out applies to the request, so the caller's context alone
	// ends the wait for an answer that comes never, or slowly. That is faultCancel
	// once more, and no cell of its own.
	untimed bool

	setup func(c *faultCell)                            // what comes before the operation
	op    func(ctx context.Context, c *faultCell) error // the operation
	onHit func(c *faultCell)                            // what happens then; nil: nothing
	done  func(c *faultCell)                            // asserts what the operation promises; nil: nothing
	// What the operation, called again, ends with: after a request that was not
	// carried out, after one that was, and after success.
	unmade, made, again error
	// The same after its caller has left it, if a step that goes on makes more than
	// the request; nil: as made.
	left error

	says    map[fault]string // what an engine says with a status here; NAME is c.about
	endless bool             // the answer has no end
	sample  string           // how it begins, if not with what comes at once
	others  map[string]answerInstead
	options []dockerexec.Option
	waits   bool                     // a 409 is waited for, as long as the request time-out
	runs    bool                     // the operation is a Run: it goes on after the end of its caller's context, and needs the answer
	stops   bool                     // the operation stops the container
	needs   func(b *faultBench) bool // what the engine must be for this row; nil: any
}

// has reports whether the fault can come about there, and is a case of its own.
func (r *faultRow) has(f fault) bool {
	switch f {
	case faultBody, faultGarbled, faultEmpty:
		return !r.bodiless
	case faultNever, faultSlow:
		return !r.untimed
	default:
		return true
	}
}

// faultCell is one cell of the matrix while it runs.
type faultCell struct {
	bench  *faultBench
	row    *faultRow
	fault  fault
	want   outcome
	got    outcome
	at     *outcome // where in the table
	number int

	proxy     *faultProxy
	client    *engineapi.Client
	engine    *dockerexec.Engine
	later     *dockerexec.Engine // see laterEngine
	executor  exec.Executor
	task      *api.Task
	deps      exec.DependencyGetter // the task's secrets
	files     string                // a folder of the cell's own for them
	adapter   *dockerexec.ContainerAdapter
	ctlr      taskController
	name      string          // of the task's container
	about     string          // what the errors must name
	id        string          // the container's, for rows that need it
	looked    <-chan struct{} // closed when the operation has inspected the container
	pushed    string          // an image of the cell's own
	volumes   []string
	shared    bool     // the task is another cell's too
	stranger  string   // a container of somebody else's that has the task's name
	startedAt string   // when the container was seen to have been started first
	sink      *logSink // of the last operation
	runs      int      // how often the job's program must have run so far
	isOver    bool     // the job has ended
	isMute    bool     // its log is not read
	callers   []context.CancelFunc
	problems  []string
	mu        sync.Mutex
}

func (c *faultCell) String() string { return fmt.Sprintf("%s, %s", c.row.name, c.fault) }

// Errorf and FailNow make a cell a test for assert and require.
func (c *faultCell) Errorf(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.problems = append(c.problems, fmt.Sprintf(format, args...))
}

// FailNow ends the cell.
func (c *faultCell) FailNow() { runtime.Goexit() }

// cellTB has helpers of tests fail the cell instead.
type cellTB struct {
	testing.TB
	cell *faultCell
}

func (t cellTB) Errorf(format string, args ...any) { t.cell.Errorf(format, args...) }
func (t cellTB) FailNow()                          { t.cell.FailNow() }

func (t cellTB) Fatalf(format string, args ...any) {
	t.Errorf(format, args...)
	t.FailNow()
}

// tb is for helpers that want a whole test. Only the test's own goroutine may end
// that.
func (c *faultCell) tb() testing.TB { return cellTB{c.bench.t, c} }

// ctx is for what must succeed. It logs, too.
func (c *faultCell) ctx() context.Context {
	return c.logContext(context.WithoutCancel(c.bench.t.Context()))
}

func (c *faultCell) logContext(ctx context.Context) context.Context {
	return log.WithLogger(ctx, logrus.NewEntry(c.bench.logger))
}

// impatient reports whether the cell would wait for the whole request time-out.
func (c *faultCell) impatient() bool {
	return c.fault == faultNever || c.fault == faultSlow || c.fault == fault409 && c.row.waits || c.fault == faultCancel && c.row.runs
}

func (c *faultCell) run() {
	*c.at = wrong
	defer c.tidy()
	c.proxy = newFaultProxy(c.bench.transport, c.bench.dead, rand.New(rand.NewPCG(c.bench.seed, uint64(c.number))))
	defer c.proxy.close()
	var err error
	c.client, err = c.proxy.client()
	require.NoError(c, err)
	c.engine = dockerexec.NewEngine(c.client, c.options()...)
	c.executor = dockerexec.NewExecutor(c.client, nil, c.options()...)
	c.task = c.bench.task(c.tb(), "sleep", "1h")
	c.row.setup(c)
	if c.row.stops && c.id == "" {
		c.id = c.seen().ID
	}

	defer func() {
		for _, end := range c.callers {
			end()
		}
	}()
	c.again(c.underFault())
	c.remove()
	if left := c.proxy.settled(5 * time.Second); left > 0 {
		c.Errorf("%d connections are left", left)
	}
	if len(c.problems) == 0 {
		*c.at = c.got
	}
}

// options are those of the cell's engines.
func (c *faultCell) options() []dockerexec.Option {
	options := append([]dockerexec.Option{dockerexec.WithSecretsDir(c.secretsDir())}, c.row.options...)
	if c.impatient() {
		options = append(options, dockerexec.WithRequestTimeout(c.bench.timeout), dockerexec.WithPullStallTimeout(c.bench.timeout))
	}
	return options
}

// secretsDir is the folder for the task's secrets. It is made with the first of them.
func (c *faultCell) secretsDir() string { return fmt.Sprintf("/run/dockerexec-fault-%d", c.number) }

// caller is the context of a call. It goes on after the call, as an agent's does,
// so what a call leaves behind is still there when it is looked for.
func (c *faultCell) caller() (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithTimeout(c.ctx(), cellTimeout)
	c.callers = append(c.callers, cancel)
	return ctx, cancel
}

// underFault has the operation meet the fault, and returns what it is to end with
// when it is called again.
func (c *faultCell) underFault() (next error) {
	ctx, cancel := c.caller()
	hit := c.proxy.arm(&faultPlan{
		fault: c.fault, target: c.target(), nth: c.nth(), before: c.row.before, message: c.message(), others: c.others(),
		endless: c.row.endless, sample: c.row.sample,
	})
	var onHit sync.WaitGroup
	onHit.Go(func() {
		select {
		case <-hit:
		case <-ctx.Done():
			return
		}
		if c.fault == faultCancel {
			cancel()
		}
		if c.row.onHit != nil {
			c.row.onHit(c)
		}
	})
	began := time.Now()
	err := c.row.op(ctx, c)
	took := time.Since(began)
	hung := ctx.Err() == context.DeadlineExceeded
	select { // an engine may be slower than the caller is patient
	case <-hit:
	case <-time.After(20 * time.Second):
	}
	seen, where, unfit := c.proxy.disarm()
	if unfit != nil {
		cancel()
	}
	onHit.Wait()
	require.NoError(c, unfit, "the operation ended with: %v", err)
	assert.False(c, hung, "it hangs; requests: %q", seen)

	got := c.outcomeOf(ctx, err, seen)
	c.got = got
	trusting := (c.want == believed || c.want == either) && (got == success || got == repeated)
	if got != c.want && !trusting && !(c.want == unreadable && got == temporary) {
		c.Errorf("ended as %q, want %q: %v (%T)\nafter %v; requests %q %s", got, c.want, err, err, took, seen, where)
	}
	c.checkError(err, got)
	switch {
	case !trusting && slices.Contains([]outcome{success, repeated, prepared, started}, got):
		c.check("at once")
		return c.row.again
	case trusting: // there is nothing left to do
		return c.row.again
	case c.fault == faultCancel && c.row.left != nil:
		return c.row.left
	case c.fault.carriedOut():
		return c.row.made
	}
	return c.row.unmade
}

// again calls the operation without a fault.
func (c *faultCell) again(want error) {
	ctx, _ := c.caller()
	if err := c.row.op(ctx, c); err != want {
		c.Errorf("called again: %v, want %v", err, want)
	}
	c.check("after it was called again")
}

func (c *faultCell) check(when string) {
	if c.row.done == nil {
		return
	}
	before := len(c.problems)
	c.row.done(c)
	if len(c.problems) > before {
		c.Errorf("so not all is as it should be %s", when)
	}
}

func (c *faultCell) message() string {
	if words, special := c.row.says[c.fault]; special {
		return c.words(words)
	}
	return map[fault]string{
		fault403: "forbidden", fault404: "page not found", fault409: "conflict", fault429: "slow down", fault500: "something went wrong", fault503: "not now",
	}[c.fault]
}

func (c *faultCell) nth() int {
	if c.row.every {
		return 0
	}
	return max(c.row.nth, 1)
}

func (c *faultCell) target() string { return strings.ReplaceAll(c.row.target, "<ID>", c.id) }

func (c *faultCell) words(text string) string { return strings.ReplaceAll(text, "NAME", c.about) }

func (c *faultCell) others() map[string]answerInstead {
	others := map[string]answerInstead{}
	for pattern, other := range c.row.others {
		others[pattern] = answerInstead{other.status, c.words(other.message)}
	}
	return others
}

func (c *faultCell) checkError(err error, got outcome) {
	if err == nil {
		return
	}
	c.bench.mu.Lock()
	c.bench.errorCount++
	c.bench.lookLocked(fmt.Sprintf("%+v", err))
	c.bench.mu.Unlock()
	if (got == temporary || got == final) && c.about != "" {
		assert.ErrorContains(c, err, c.about)
	}
}

// fresh is an adapter of the task in a process of its own, so to speak, with
// the time-outs that users have.
func (c *faultCell) fresh() *dockerexec.ContainerAdapter {
	adapter, err := dockerexec.NewContainerAdapter(c.client, nil, c.task, nil)
	require.NoError(c, err)
	return adapter
}

// remove takes the task away, as an agent does, and asserts that nothing is left.
// What saw the fault does it, with what that made it believe.
func (c *faultCell) remove() {
	if c.shared {
		return
	}
	ctx, cancel := context.WithTimeout(c.ctx(), cellTimeout)
	defer cancel()
	if c.ctlr != nil {
		assert.NoError(c, c.ctlr.Remove(ctx))
		assert.NoError(c, c.ctlr.Close())
	} else {
		assert.NoError(c, c.adapter.Remove(ctx))
		assert.NoError(c, c.adapter.RemoveNetworks(ctx))
	}
	for _, volume := range c.volumes {
		assert.NoError(c, c.bench.client.VolumeRemove(ctx, volume, false))
	}
	if c.stranger != "" {
		strangerRuns(c)
		assert.NoError(c, c.bench.client.ContainerRemove(ctx, c.stranger, container.RemoveOptions{Force: true}))
	}
	c.nothingLeft()
	if c.row.stops {
		c.stoppedOnce()
	}
}

// nothingLeft asserts that the engine has neither the task's container nor its networks, and
// that its files are gone.
func (c *faultCell) nothingLeft() {
	if c.files != "" {
		left, err := filepath.Glob(filepath.Join(c.files, "*", c.task.ID))
		assert.NoError(c, err)
		assert.Empty(c, left)
	}
	assert.Empty(c, leftOfTask(c.tb(), c.bench.client, c.tasksOwn()))
}

// tasksOwn is the task without the engine's own network, which stays, and without
// what its adapter would have to be given.
func (c *faultCell) tasksOwn() *api.Task {
	task := c.task.Copy()
	spec(task).Secrets = nil
	if c.task.Networks[0].Network.Spec.Annotations.Name == "none" {
		task.Networks = nil
	}
	return task
}

// tidy leaves nothing of a cell that failed.
func (c *faultCell) tidy() {
	client, ctx := c.bench.client, c.ctx()
	if c.pushed != "" {
		_, err := client.ImageRemove(ctx, c.pushed, image.RemoveOptions{Force: true, PruneChildren: true})
		if !cerrdefs.IsNotFound(err) { // the pull may have failed
			assert.NoError(c, err)
		}
	}
	if c.files != "" {
		assert.NoError(c, os.RemoveAll(c.files))
	}
	if c.shared || c.task == nil || len(c.problems) == 0 {
		return
	}
	if adapter, err := dockerexec.NewContainerAdapter(client, nil, c.task, nil); err == nil {
		_ = client.ContainerRemove(ctx, adapter.ContainerName(), container.RemoveOptions{Force: true, RemoveVolumes: true})
		_ = adapter.RemoveNetworks(ctx)
	}
	for _, volume := range c.volumes {
		_ = client.VolumeRemove(ctx, volume, true)
	}
}
