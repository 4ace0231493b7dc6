package dockerexec

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/events"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/api/types/network"
	engineapi "github.com/docker/docker/client"
	gogotypes "github.com/gogo/protobuf/types"
	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/moby/swarmkit/v2/api"
	"github.com/moby/swarmkit/v2/template"
	"github.com/stretchr/testify/require"
)

// compare measures ours and a baseline in turn, which each return what one unit
// costs, and reports both and their ratio. Of each the best value but a tenth
// counts: others use the machine too. A ratio above limit fails the benchmark.
//
// hack/bench.sh makes a table of what the benchmarks report so.
func compare(b *testing.B, unit string, limit float64, ours, baseline func() float64) {
	b.Helper()
	compareAt(b, 0.1, unit, limit, ours, baseline)
}

// compareCounts is compare for what others on the machine do not change, such as
// bytes and requests: the median counts.
func compareCounts(b *testing.B, unit string, limit float64, ours, baseline func() float64) {
	b.Helper()
	compareAt(b, 0.5, unit, limit, ours, baseline)
}

func compareAt(b *testing.B, quantile float64, unit string, limit float64, ours, baseline func() float64) {
	b.Helper()
	var values [2][]float64
	for b.Loop() {
		values[0] = append(values[0], ours())
		values[1] = append(values[1], baseline())
	}
	for _, v := range values {
		slices.Sort(v)
	}
	at := int(quantile * float64(len(values[0])))
	report(b, unit, limit, values[0][at], values[1][at])
}

func report(b *testing.B, unit string, limit, ours, baseline float64) {
	b.Helper()
	b.ReportMetric(ours, unit)
	b.ReportMetric(baseline, unit+"-baseline")
	b.ReportMetric(ours/baseline, "ratio")
	b.ReportMetric(0, "ns/op")
	if ours <= 0 || baseline <= 0 || ours/baseline > limit {
		b.Errorf("%.0f %s, %.2f times the baseline of %.0f; the limit is %.2f", ours, unit, ours/baseline, baseline, limit)
	}
}

// BenchmarkTranslation is the way from a task that uses nearly every field to its
// create request, all checks among it, beside what SwarmKit's expansion of the
// templates in a copy of the task alone takes, which every executor has to do.
// The rest is mostly the look at each field, so that none is dropped in silence.
func BenchmarkTranslation(b *testing.B) {
	const rounds = 20
	node, task := goldenNode(), goldenTask(b, "everything")
	each := func(do func()) func() float64 {
		return func() float64 {
			begin := time.Now()
			for range rounds {
				do()
			}
			return float64(time.Since(begin).Nanoseconds()) / rounds
		}
	}
	compare(b, "ns/task", 6, each(func() {
		config, err := newContainerConfig(node, task)
		require.NoError(b, err)
		config.config()
		config.hostConfig()
		config.networkingConfig()
	}), each(func() {
		_, err := template.ExpandContainerSpec(node, task.Copy())
		require.NoError(b, err)
	}))
}

// referenceCalls is the baseline for requests: a controller that asks the
// engine what the reference's asks it in the life of a plain task.
type referenceCalls struct {
	exec.StubController // for Update, Terminate and Close

	client engineapi.APIClient
	config *containerConfig
}

func (r *referenceCalls) Prepare(ctx context.Context) error {
	body, err := r.client.ImagePull(ctx, r.config.image(), image.PullOptions{})
	if err != nil {
		return err
	}
	defer body.Close()
	if _, err := io.Copy(io.Discard, body); err != nil {
		return err
	}
	_, err = r.client.ContainerCreate(ctx, r.config.config(), r.config.hostConfig(), &network.NetworkingConfig{}, nil, r.config.name())
	return err
}

func (r *referenceCalls) Start(ctx context.Context) error {
	if _, err := r.inspect(ctx); err != nil {
		return err
	}
	return r.client.ContainerStart(ctx, r.config.name(), container.StartOptions{})
}

func (r *referenceCalls) Wait(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	messages, errs := r.client.Events(ctx, events.ListOptions{Since: "0", Filters: filters.NewArgs(
		filters.Arg("type", string(events.ContainerEventType)), filters.Arg("name", r.config.name()))})
	if _, err := r.inspect(ctx); err != nil {
		return err
	}
	for {
		select {
		case m := <-messages:
			if m.Action != events.ActionDie || m.Actor.Attributes["name"] != r.config.name() {
				continue
			}
			_, err := r.inspect(ctx)
			return err
		case err := <-errs:
			return err
		}
	}
}

func (r *referenceCalls) Remove(ctx context.Context) error {
	if err := r.client.ContainerStop(ctx, r.config.name(), container.StopOptions{}); err != nil {
		return err
	}
	return r.client.ContainerRemove(ctx, r.config.name(), container.RemoveOptions{RemoveVolumes: true, Force: true})
}

func (r *referenceCalls) ContainerStatus(ctx context.Context) (*api.ContainerStatus, error) {
	answer, err := r.inspect(ctx)
	return containerStatus(answer), err
}

func (r *referenceCalls) PortStatus(ctx context.Context) (*api.PortStatus, error) {
	_, err := r.inspect(ctx)
	return &api.PortStatus{}, err
}

func (r *referenceCalls) inspect(ctx context.Context) (container.InspectResponse, error) {
	return r.client.ContainerInspect(ctx, r.config.name())
}

// requestsOfTasks has count tasks run at the same time on one engine, each for two
// seconds and until it is removed, and returns the number of requests.
func requestsOfTasks(b *testing.B, count int, controllers func(engineapi.APIClient) func(*api.Task) exec.Controller) int {
	b.Helper()
	engine := webEngine(b, obedient)
	controller := controllers(engine.Client())
	var running, ended sync.WaitGroup
	for n := range count {
		task := taskAt(numberedTask(n), api.TaskStateAccepted)
		ctlr := controller(task)
		running.Add(1)
		ended.Go(func() {
			drive(b.Context(), b, task, ctlr, api.TaskStateRunning)
			running.Done()
			drive(b.Context(), b, task, ctlr, api.TaskStateCompleted)
			if err := ctlr.Remove(b.Context()); err != nil || task.Status.State != api.TaskStateCompleted {
				b.Errorf("the task ends in %v: %v", task.Status.State, err)
			}
		})
	}
	running.Wait()
	// Every one waits once the engine has not been asked for a while.
	for asked, since := -1, time.Now(); time.Since(since) < 100*time.Millisecond; time.Sleep(time.Millisecond) {
		if now := len(engine.Requests()); now != asked {
			asked, since = now, time.Now()
		}
	}
	time.Sleep(2 * settleWindow)
	for _, c := range engine.Containers() {
		c.Exit(0)
	}
	ended.Wait()
	if left := leftOn(engine); len(left) > 0 {
		b.Errorf("left: %v", left)
	}
	return len(engine.Requests())
}

// BenchmarkTaskRequests counts what ten tasks on a warm image ask of the engine
// from ACCEPTED through SwarmKit's exec.Do to their exit and removal, requests for
// events among it. They run for two seconds, so the inspect one second after the
// stream was opened is counted: an engine answers before it subscribes, and an end
// in between has no event. Each further five minutes of a task cost one inspect,
// which finds an end that no event has told of; the baseline makes none, and waits
// for ever then.
func BenchmarkTaskRequests(b *testing.B) {
	const tasks = 10
	compareCounts(b, "requests/task", 0.9, func() float64 {
		return float64(requestsOfTasks(b, tasks, func(client engineapi.APIClient) func(*api.Task) exec.Controller {
			executor := NewExecutor(client, nil)
			return func(task *api.Task) exec.Controller {
				ctlr, err := executor.Controller(task)
				require.NoError(b, err)
				return ctlr
			}
		})) / tasks
	}, func() float64 {
		return float64(requestsOfTasks(b, tasks, func(client engineapi.APIClient) func(*api.Task) exec.Controller {
			return func(task *api.Task) exec.Controller {
				config, err := newContainerConfig(nil, task)
				require.NoError(b, err)
				return &referenceCalls{client: client, config: config}
			}
		})) / tasks
	})
}

// memoryOfWaits returns by how much heap and stacks are larger while count tasks
// wait. wait runs until its context ends, and calls waits when it has begun.
func memoryOfWaits(b *testing.B, count int, wait func(ctx context.Context, n int, waits func())) float64 {
	b.Helper()
	used := func() uint64 {
		runtime.GC()
		runtime.GC()
		var stats runtime.MemStats
		runtime.ReadMemStats(&stats)
		return stats.HeapAlloc + stats.StackInuse
	}
	before := used()
	ctx, cancel := context.WithCancel(b.Context())
	var begun, ended sync.WaitGroup
	begun.Add(count)
	for n := range count {
		ended.Go(func() { wait(ctx, n, sync.OnceFunc(begun.Done)) })
	}
	begun.Wait()
	each := (float64(used()) - float64(before)) / float64(count)
	cancel()
	ended.Wait()
	return each
}

// BenchmarkWaitingTask is the memory of a task whose exit is waited for, beside
// that of a request for events a task, as the reference makes it. The adapter is
// not counted, nor is what a connection costs.
func BenchmarkWaitingTask(b *testing.B) {
	const tasks = 500
	client, err := engineapi.NewClientWithOpts(engineapi.WithHost("http://engine"), engineapi.WithHTTPClient(&http.Client{Transport: silentTransport{}}))
	require.NoError(b, err)
	engine := NewEngine(client)
	adapters := numberedAdapters(b, engine, tasks)
	_, err = adapters[0].Inspect(b.Context()) // agrees on the API version
	require.NoError(b, err)
	compareCounts(b, "bytes/task", 0.6, func() float64 {
		return memoryOfWaits(b, tasks, func(ctx context.Context, n int, waits func()) {
			_, _ = adapters[n].watch(ctx, nil, func(container.InspectResponse) (bool, error) {
				waits()
				return false, nil
			})
		})
	}, func() float64 {
		return memoryOfWaits(b, tasks, func(ctx context.Context, n int, waits func()) {
			messages, errs := client.Events(ctx, events.ListOptions{Since: "0", Filters: filters.NewArgs(filters.Arg("name", adapters[n].name))})
			_, _ = client.ContainerInspect(ctx, adapters[n].name)
			waits()
			select {
			case <-messages:
			case <-errs:
			}
		})
	})
}

// dispatchBench sends events through the run of an Engine with subscribers, as
// its goroutine does.
type dispatchBench struct {
	run    *streamRun
	subs   []subscribed
	ids    []string
	names  []string
	nano   int64
	cancel context.CancelFunc
}

func newDispatchBench(b *testing.B, count int) *dispatchBench {
	client := newFakeClient(b)
	silentEvents(client)
	engine := NewEngine(client)
	ctx, cancel := context.WithCancel(b.Context())
	d := &dispatchBench{nano: at, cancel: cancel}
	for _, adapter := range numberedAdapters(b, engine, count) {
		d.subs = append(d.subs, subscribe(ctx, b, adapter))
		d.ids = append(d.ids, adapter.taskID)
		d.names = append(d.names, adapter.name)
	}
	// The goroutine of the stream has a reader of its own.
	d.run = &streamRun{stream: &engine.stream, byTask: engine.stream.run.byTask, byName: engine.stream.run.byName}
	return d
}

func (d *dispatchBench) end() {
	d.cancel()
	for _, sub := range d.subs {
		<-sub.closed
	}
}

// batch is how many events are dispatched between two looks at the clock: what
// the queues of ten subscribers hold.
const batch = 10 * eventQueue

// events dispatches number events to count subscribers of all, in an order of no
// pattern, and returns the nanoseconds of one. The events are fresh, as if just
// decoded, so their strings are copied before the clock runs; and the readers
// take them out when it has stopped.
func (d *dispatchBench) events(ctx context.Context, number, count int) float64 {
	targets := rand.New(rand.NewPCG(1, 2)).Perm(len(d.subs))[:count]
	messages := make([]events.Message, batch)
	for i := range messages {
		messages[i] = event(numberedTask(0), "pause", 0)
	}
	var took time.Duration
	for first := 0; first < number; first += batch {
		for i := range messages {
			n := targets[(first+i)%count]
			d.nano++
			messages[i].TimeNano = d.nano
			messages[i].Actor.Attributes[LabelTaskID] = strings.Clone(d.ids[n])
			messages[i].Actor.Attributes["name"] = strings.Clone(d.names[n])
		}
		begin := time.Now()
		for i := range messages {
			d.run.receive(ctx, messages[i])
		}
		took += time.Since(begin)
		for i := range messages {
			<-d.subs[targets[(first+i)%count]].messages
		}
	}
	return float64(took.Nanoseconds()) / float64(number)
}

// BenchmarkEventDispatch is the way of an event from the client's channel into
// the queue of its one subscriber, with 10 and with 10,000 subscribers side by
// side: the baseline is that of 10. As many subscribers get the events, so the
// ratio shows what the others cost. In "spread" each of the 10,000 gets one in
// turn, so that all that an event touches has to come from memory: a queue holds
// 1 KiB, which no longer fits into a processor's cache 10,000 times.
func BenchmarkEventDispatch(b *testing.B) {
	b.Run("10,000 beside 10", func(b *testing.B) { // the table shows it
		few, many := newDispatchBench(b, 10), newDispatchBench(b, 10_000)
		defer few.end()
		defer many.end()
		spread := math.Inf(1)
		compare(b, "ns/event", 1.5, func() float64 {
			spread = min(spread, many.events(b.Context(), 10_000, 10_000))
			return many.events(b.Context(), 10_000, 10)
		}, func() float64 { return few.events(b.Context(), 10_000, 10) })
		b.ReportMetric(spread, "ns/event-spread")
		if spread > 1000 {
			b.Errorf("an event takes %.0f ns where all 10,000 subscribers get some", spread)
		}
	})
}

// benchLog is an answer of n lines of 90 bytes.
func benchLog(n int) []byte {
	var log bytes.Buffer
	for i := range n {
		at := time.Unix(1767323045, int64(i)*1000).UTC().Format(engineTime)
		log.Write(frame(1, fmt.Sprintf("%s %010d%s\n", at, i, strings.Repeat(".", 79))))
	}
	return log.Bytes()
}

// referenceLoop is the baseline: the loop that the reference's Logs has, without
// its limiter. For each line it reads the header as one number, allocates the
// payload, splits it at the first space, has the time package parse the time and
// converts that.
func referenceLoop(ctx context.Context, body io.Reader, context api.LogContext, publisher exec.LogPublisher) error {
	in := bufio.NewReader(body)
	for {
		var header uint64
		if err := binary.Read(in, binary.BigEndian, &header); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		payload := make([]byte, header&(1<<56-1))
		if _, err := io.ReadFull(in, payload); err != nil {
			return err
		}
		parts := bytes.SplitN(payload, []byte(" "), 2)
		if len(parts) != 2 {
			return fmt.Errorf("no time in %q", payload)
		}
		at, err := time.Parse(time.RFC3339Nano, string(parts[0]))
		if err != nil {
			return err
		}
		stamp, err := gogotypes.TimestampProto(at)
		if err != nil {
			return err
		}
		if err := publisher.Publish(ctx, api.LogMessage{Context: context, Timestamp: stamp, Stream: api.LogStream(header >> 56), Data: parts[1]}); err != nil {
			return err
		}
	}
}

// BenchmarkLogLines takes the way of a line from the engine's answer to the
// publisher: this package's, and as a baseline the reference's.
func BenchmarkLogLines(b *testing.B) {
	const lines = 10_000
	text := benchLog(lines)
	count := 0
	publisher := exec.LogPublisherFunc(func(context.Context, api.LogMessage) error { count++; return nil })

	client := newFakeClient(b)
	client.containerInspect = func(context.Context, string) (container.InspectResponse, error) { return logContainer("exited"), nil }
	client.containerLogs = func(context.Context, string, container.LogsOptions) (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(text)), nil
	}
	adapter := newTestAdapter(b, client, plainTask(), WithLogRate(0))
	ours := func() error {
		return adapter.PublishLogs(b.Context(), api.LogSubscriptionOptions{}, publisher)
	}
	reference := func() error {
		return referenceLoop(b.Context(), bytes.NewReader(text), api.LogContext{}, publisher)
	}
	// measure returns how long one answer takes.
	measure := func(b *testing.B, publish func() error) time.Duration {
		count = 0
		begin := time.Now()
		err := publish()
		took := time.Since(begin)
		require.NoError(b, err)
		require.Equal(b, lines, count)
		return took
	}

	b.Run("line", func(b *testing.B) {
		each := func(publish func() error) func() float64 {
			return func() float64 { return float64(measure(b, publish).Nanoseconds()) / lines }
		}
		compare(b, "ns/line", 0.5, each(ours), each(reference))
	})
	b.Run("allocations", func(b *testing.B) {
		each := func(publish func() error) func() float64 {
			return func() float64 { return testing.AllocsPerRun(5, func() { measure(b, publish) }) / lines }
		}
		compareCounts(b, "allocs/line", 0.5, each(ours), each(reference))
	})
}

// benchmarkStream is what an engine sends for a layer of 500 MB, many times.
func benchmarkStream(messages int) *repeated {
	return &repeated{n: messages, text: `{"status":"Downloading","progressDetail":{"current":104857600,"total":524288000},` +
		`"progress":"[==========\u003e                                        ]  104.9MB/524.3MB","id":"76e444d9b893"}` + "\r\n"}
}

// BenchmarkPullMillion is the same with a million messages in each round.
func BenchmarkPullMillion(b *testing.B) {
	var most uint64
	for b.Loop() {
		most = max(most, pullManyMessages(b, 1_000_000))
	}
	b.ReportMetric(float64(most), "heap-bytes")
}

// BenchmarkPullDecode decodes a pull's stream, and beside it does so into a map
// that is used for all of them, which is how the reference does it.
func BenchmarkPullDecode(b *testing.B) {
	const messages = 10_000
	ours := func() {
		stream := newPullStream(benchmarkStream(messages))
		for range messages {
			_, err := stream.next()
			require.NoError(b, err)
		}
	}
	baseline := func() {
		message := map[string]any{}
		decoder := json.NewDecoder(benchmarkStream(messages))
		decoder.UseNumber()
		for range messages {
			require.NoError(b, decoder.Decode(&message))
		}
	}
	b.Run("message", func(b *testing.B) {
		each := func(decode func()) func() float64 {
			return func() float64 {
				begin := time.Now()
				decode()
				return float64(time.Since(begin).Nanoseconds()) / messages
			}
		}
		compare(b, "ns/message", 1, each(ours), each(baseline))
	})
	b.Run("allocations", func(b *testing.B) {
		each := func(decode func()) func() float64 {
			return func() float64 { return testing.AllocsPerRun(5, decode) / messages }
		}
		compareCounts(b, "allocs/message", 0.2, each(ours), each(baseline))
	})
}

// BenchmarkPull is all of a pull, by message.
func BenchmarkPull(b *testing.B) {
	b.ReportAllocs()
	client := pulling(b, func(context.Context) (io.ReadCloser, error) { return benchmarkStream(b.N), nil })
	adapter := newTestAdapter(b, client, pullTask("x"), WithPullObserver(func(context.Context, PullProgress) {}))
	ctx, _ := logHook(b.Context())
	b.ResetTimer()
	if err := adapter.PullImage(ctx); err != nil {
		b.Fatal(err)
	}
}
