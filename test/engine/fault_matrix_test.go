package engine_test

import (
	"context"
	"encoding/base64"
	"io"
	"net/http"
	"os"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	engineapi "github.com/docker/docker/client"
	"github.com/dockerexec/dockerexec"
	"github.com/moby/swarmkit/v2/api"
	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The fault matrix: every remote operation, hit at each of its engine requests,
// by every fault, on the running engine through a faultProxy. A cell is one
// operation, one request and one fault. It is right if
//
//   - the operation ends as its row in faultRows says;
//   - what it calls done is done;
//   - the same operation, called again without the fault, ends as it should, and
//     then what it promises is so;
//   - a container that it stops gets one stop signal at most, and has ended two seconds
//     after its grace period;
//   - a job's program has run once for each Run that tells of a start, as a file in a
//     volume shows, and when Run returns, nothing of the job is left;
//   - the task can be removed, and then neither container, network nor volume is
//     left, nor a connection once the client's idle ones are closed.
//
// Over all cells no canary may come up in a log line or an error, and no
// goroutine or descriptor may be left. DOCKEREXEC_TEST_FAULTS is a regular
// expression for the names of the cells, "operation: request, fault"; empty is
// the shorter form, some faults for each row.
func TestEngineFaults(t *testing.T) {
	fromHarness(t, "DOCKEREXEC_TEST_HOST")
	goroutines, descriptors := runtime.NumGoroutine(), openDescriptors(t)
	bench := newFaultBench(t)
	chosen := regexp.MustCompile(os.Getenv("DOCKEREXEC_TEST_FAULTS"))
	rows := faultRows()
	table := make([][]outcome, len(rows))
	var cells []*faultCell
	for i, row := range rows {
		require.Len(t, row.ends, len(faults), row.name)
		table[i] = slices.Repeat([]outcome{notChosen}, len(faults))
		for j, f := range faults {
			cell := &faultCell{bench: bench, row: row, fault: f, want: row.ends[f], at: &table[i][j], number: len(cells)}
			every := 5
			if row.runs { // they take long
				every = 10
			}
			short := f == faultLost || (i+j)%every == 0
			switch {
			case !row.has(f) || row.needs != nil && !row.needs(bench):
				*cell.at = notHere
			case chosen.String() == "" && short, chosen.String() != "" && chosen.MatchString(cell.String()):
				cells = append(cells, cell)
			}
		}
	}
	require.NotEmpty(t, cells, "no cell is called like DOCKEREXEC_TEST_FAULTS")
	if all := chosen.String(); all == "" || all == "." {
		assert.GreaterOrEqual(t, len(cells), 200)
	}
	began := time.Now()
	queue := make(chan *faultCell, len(cells))
	for _, cell := range cells {
		queue <- cell
	}
	close(queue)
	var workers sync.WaitGroup
	for range faultWorkers {
		workers.Go(func() {
			for cell := range queue {
				var one sync.WaitGroup // a cell that fails ends its goroutine
				one.Go(cell.run)
				one.Wait()
			}
		})
	}
	workers.Wait()
	took := time.Since(began)
	bench.close()

	wrong := 0
	for _, cell := range cells {
		if len(cell.problems) > 0 {
			wrong++
			t.Errorf("%s\n%s", cell, strings.Join(cell.problems, "\n"))
		}
	}
	assert.Empty(t, bench.leaks(), "canaries in log lines and errors")
	logFaultTable(t, rows, table)
	t.Logf("%d cells in %v, %d of them wrong; %d log lines and %d errors without a canary",
		len(cells), took.Round(time.Second), wrong, bench.lineCount, bench.errorCount)
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if runtime.NumGoroutine() <= goroutines && openDescriptors(t) <= descriptors {
			break
		}
	}
	assert.LessOrEqual(t, runtime.NumGoroutine(), goroutines, "goroutines")
	assert.LessOrEqual(t, openDescriptors(t), descriptors, "descriptors")
}

const (
	// faultWorkers is how many cells run at a time. Most of them wait.
	faultWorkers = 8
	// faultTimeout stands for time-outs of minutes; faultBench.timeout is longer
	// on a machine that is slow. All workers at once make it slower still.
	faultTimeout = 5 * time.Second
	// cellTimeout ends a cell that hangs.
	cellTimeout = time.Minute
)

func openDescriptors(t *testing.T) int {
	needsEngineAlone(t)
	entries, err := os.ReadDir("/proc/self/fd")
	require.NoError(t, err)
	return len(entries)
}

// faultBench is what the cells share.
type faultBench struct {
	t         *testing.T
	client    *engineapi.Client // to the engine itself
	transport *http.Transport   // its, and the proxies'
	dead      string
	seed      uint64
	image     string        // the test image's ID
	reference string        // the test image, with its digest
	timeout   time.Duration // for a request, or a pull, that is never answered
	canaries  []string
	logger    *logrus.Logger

	fates    *fates                         // of the containers
	running  *api.Task                      // for cells that only look
	logged   *api.Task                      // has ended, with loggedLines
	adapters []*dockerexec.ContainerAdapter // of both

	mu                    sync.Mutex
	leaked                []string
	lineCount, errorCount int
}

const (
	canaryValue    = "canary-environment-value"
	canaryArgument = "canary-argument"
	canaryOption   = "canary-driver-option"
	canaryPayload  = "canary-secret-payload"
)

var loggedLines = []string{
	"stdout line 1\n", "stdout line 2\n", "stdout line 3\n", "stdout line 4\n", "stdout line 5\n", "stderr line on stderr\n",
}

func newFaultBench(t *testing.T) *faultBench {
	b := &faultBench{t: t, seed: testSeed(t), dead: deadSocket(t), transport: engineTransport(t), logger: logrus.New()}
	password := fromHarness(t, "DOCKEREXEC_TEST_PASSWORD")
	b.canaries = []string{
		canaryValue, canaryArgument, canaryOption, canaryPayload,
		password, engineAuth(t), base64.StdEncoding.EncodeToString([]byte(fromHarness(t, "DOCKEREXEC_TEST_USER") + ":" + password)),
	}
	b.logger.SetOutput(io.Discard)
	b.logger.SetLevel(logrus.DebugLevel)
	b.logger.AddHook(b)

	var err error
	b.client, err = engineapi.NewClientWithOpts(engineapi.WithHost(faultHost), engineapi.WithHTTPClient(&http.Client{Transport: b.transport}))
	require.NoError(t, err)
	ping, err := b.client.Ping(t.Context())
	require.NoError(t, err)
	b.client.NegotiateAPIVersionPing(ping)
	warmImage(t, b.client)
	b.fates = watchFates(t, b.client)
	inspected, err := b.client.ImageInspect(t.Context(), fromHarness(t, "DOCKEREXEC_TEST_IMAGE"))
	require.NoError(t, err)
	require.NotEmpty(t, inspected.RepoDigests)
	b.image, b.reference = inspected.ID, inspected.RepoDigests[0]

	start := func(args ...string) (*api.Task, *dockerexec.ContainerAdapter) {
		task := b.task(t, args...)
		adapter, err := dockerexec.NewContainerAdapter(b.client, nil, task, nil)
		require.NoError(t, err)
		require.NoError(t, adapter.Create(t.Context()))
		require.NoError(t, adapter.Start(t.Context()))
		b.adapters = append(b.adapters, adapter)
		return task, adapter
	}
	began := time.Now()
	b.running, _ = start("sleep", "1h")
	b.timeout = max(faultTimeout, 10*time.Since(began))
	logged, adapter := start("print", "5", "line")
	b.logged = logged
	_, err = adapter.Wait(t.Context())
	require.NoError(t, err)
	return b
}

// task is a task that needs no pull and joins no network, for speed, with a
// canary wherever a task may have something to hide.
func (b *faultBench) task(t testing.TB, args ...string) *api.Task {
	task := engineTask(t, append(args, canaryArgument)...)
	spec(task).Image = b.image
	spec(task).Env = []string{"SECRET=" + canaryValue}
	attachTo(task, "none")
	return task
}

func (b *faultBench) close() {
	b.fates.close()
	for _, adapter := range b.adapters {
		assert.NoError(b.t, adapter.Remove(context.WithoutCancel(b.t.Context())))
	}
	b.transport.CloseIdleConnections()
}

// Levels and Fire have the bench read every log line.
func (b *faultBench) Levels() []logrus.Level { return logrus.AllLevels }

// Fire looks for canaries in a log line.
func (b *faultBench) Fire(entry *logrus.Entry) error {
	line, err := entry.String()
	b.mu.Lock()
	defer b.mu.Unlock()
	b.lineCount++
	b.lookLocked(line)
	return err
}

func (b *faultBench) lookLocked(text string) {
	for _, canary := range b.canaries {
		if strings.Contains(text, canary) {
			b.leaked = append(b.leaked, text)
		}
	}
}

func (b *faultBench) leaks() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.leaked
}

// What engines say with a status; the others of the matrix are a proxy's.
var (
	noContainer  = "No such container: NAME"
	noNetwork    = "network NAME not found"
	sameName     = `Conflict. The container name "/NAME" is already in use by container "0123456789ab". You have to remove (or rename) that container to be able to reuse that name.`
	beingRemoved = "removal of container NAME is already in progress"
)

// pingFault is how the errors of a ping begin, of which each comes twice: the
// client asks with GET where its HEAD fails.
const pingFault = "ping the engine at " + faultHost

// anEvent is how an event stream begins.
const anEvent = `{"Type":"container","Action":"start","Actor":{"ID":"0123456789ab","Attributes":{"name":"nobody"}},"scope":"local","time":1700000000,"timeNano":1700000000000000000}` + "\n"

// faultRows is the matrix. How the operations end follows from the package's
// documentation of errors.
func faultRows() []*faultRow {
	return slices.Concat(adapterFaultRows(), streamFaultRows(), controllerFaultRows(), runFaultRows(), orphanFaultRows())
}
