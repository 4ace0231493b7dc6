package dockerexec

import (
	"context"
	"io"
	"slices"
	"time"

	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/moby/swarmkit/v2/log"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"
	"go.opentelemetry.io/otel/trace"
)

// telemetryScope is the name of this package for OpenTelemetry.
const telemetryScope = "github.com/dockerexec/dockerexec"

// telemetry has all instruments of an Engine, and makes its spans. docs/operations.md
// lists them; a test compares that page with this file.
//
// What is measured for each line of a log or each event has no attribute at all. All options
// with attributes are made once, except those of requests.
type telemetry struct {
	tracer trace.Tracer

	operations   metric.Float64Histogram
	requests     metric.Int64Counter
	outages      metric.Int64Counter
	outageTimes  metric.Float64Histogram
	away         metric.Int64UpDownCounter
	resyncs      metric.Int64Counter
	pulls        metric.Float64Histogram
	pullAttempts metric.Int64Counter
	pullBytes    metric.Int64Counter
	waiting      metric.Int64UpDownCounter
	starts       metric.Int64Counter
	ends         metric.Int64Counter
	uninspected  metric.Int64UpDownCounter
	unchecked    metric.Int64Counter
	logBytes     metric.Int64Counter
	logLines     metric.Int64Counter
	logGaps      metric.Int64Counter
	orphans      metric.Int64UpDownCounter
}

// secondsBuckets are the bounds of the histograms, from a quick request to a long pull.
var secondsBuckets = metric.WithExplicitBucketBoundaries(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800)

// newTelemetry makes the instruments. A provider that is nil is the global one.
func newTelemetry(meters metric.MeterProvider, tracers trace.TracerProvider) *telemetry {
	if meters == nil {
		meters = otel.GetMeterProvider()
	}
	if tracers == nil {
		tracers = otel.GetTracerProvider()
	}
	m := instruments{meters.Meter(telemetryScope)}
	t := &telemetry{
		tracer: tracers.Tracer(telemetryScope),

		operations:   m.seconds("dockerexec.operation.duration", "Operations of adapters, controllers and Engines"),
		requests:     m.counter("dockerexec.engine.requests", "{request}", "Requests to the engine"),
		outages:      m.counter("dockerexec.event_stream.outages", "{outage}", "Outages of the event stream"),
		outageTimes:  m.seconds("dockerexec.event_stream.outage.duration", "Outages of the event stream that have ended"),
		away:         m.upDown("dockerexec.event_stream.away", "{stream}", "Event streams that are away now"),
		resyncs:      m.counter("dockerexec.event_stream.resyncs", "{resync}", "How often events may have been lost"),
		pulls:        m.seconds("dockerexec.pull.duration", "Pulls, with all their attempts"),
		pullAttempts: m.counter("dockerexec.pull.attempts", "{attempt}", "Attempts of pulls"),
		pullBytes:    m.counter("dockerexec.pull.io", "By", "Compressed bytes that pulls have downloaded"),
		waiting:      m.upDown("dockerexec.task.waiting", "{task}", "Tasks that wait now"),
		starts:       m.counter("dockerexec.container.starts", "{start}", "Containers that were started"),
		ends:         m.counter("dockerexec.container.ends", "{end}", "Containers that have ended"),
		uninspected:  m.upDown("dockerexec.container.uninspected", "{container}", "Containers that are waited for, and that the engine does not show"),
		unchecked:    m.counter("dockerexec.container.unchecked", "{container}", "Containers whose health checks have stopped"),
		logBytes:     m.counter("dockerexec.log.io", "By", "Bytes of log lines that were published"),
		logLines:     m.counter("dockerexec.log.lines", "{line}", "Log lines that were published"),
		logGaps:      m.counter("dockerexec.log.gaps", "{gap}", "Places in logs where lines may be missing"),
		orphans:      m.upDown("dockerexec.orphan.containers", "{container}", "Containers that are left behind"),
	}
	t.zero()
	return t
}

// zero makes every counter begin at 0. Otherwise a counter would appear with its first
// step, and an alert on its growth would not see that step. Of the requests only some begin
// at 0: those that a node repeats by itself, for an engine that hangs, and those that end a
// container.
func (t *telemetry) zero() {
	ctx := context.Background()
	for _, c := range []metric.Int64Counter{t.outages, t.pullBytes, t.starts, t.unchecked, t.logBytes, t.logLines, t.logGaps} {
		c.Add(ctx, 0)
	}
	for _, c := range []metric.Int64UpDownCounter{t.uninspected, t.orphans} {
		c.Add(ctx, 0)
	}
	for _, request := range []string{"Info", "ContainerInspect", "ContainerStop", "ContainerKill", "ContainerRemove"} {
		t.requests.Add(ctx, 0, metric.WithAttributes(keyRequest.String(request), keyErrorType.String(errorTypes[kindTimedOut])))
	}
	for _, request := range []string{"ContainerStop", "ContainerKill", "ContainerRemove"} {
		t.requests.Add(ctx, 0, metric.WithAttributes(keyRequest.String(request), keyErrorType.String(errorTypes[kindBusy])))
	}
	for _, of := range awayStates {
		t.away.Add(ctx, 0, of)
	}
	for _, of := range waits {
		t.waiting.Add(ctx, 0, of)
	}
	for _, of := range resyncCauses {
		t.resyncs.Add(ctx, 0, of)
	}
	for _, of := range outcomes {
		t.pullAttempts.Add(ctx, 0, of)
	}
	for _, of := range endCauses {
		t.ends.Add(ctx, 0, of)
	}
}

// instruments makes instruments. A provider that cannot make one costs that one alone.
type instruments struct{ meter metric.Meter }

func (i instruments) counter(name, unit, description string) metric.Int64Counter {
	c, err := i.meter.Int64Counter(name, metric.WithUnit(unit), metric.WithDescription(description))
	if err != nil {
		otel.Handle(err)
		return noop.Int64Counter{}
	}
	return c
}

func (i instruments) upDown(name, unit, description string) metric.Int64UpDownCounter {
	c, err := i.meter.Int64UpDownCounter(name, metric.WithUnit(unit), metric.WithDescription(description))
	if err != nil {
		otel.Handle(err)
		return noop.Int64UpDownCounter{}
	}
	return c
}

func (i instruments) seconds(name, description string) metric.Float64Histogram {
	h, err := i.meter.Float64Histogram(name, metric.WithUnit("s"), metric.WithDescription(description), secondsBuckets)
	if err != nil {
		otel.Handle(err)
		return noop.Float64Histogram{}
	}
	return h
}

// labels makes the option of each value of an attribute.
func labels[V ~string](key attribute.Key, values ...V) map[V]metric.MeasurementOption {
	options := map[V]metric.MeasurementOption{}
	for _, value := range values {
		options[value] = metric.WithAttributeSet(attribute.NewSet(key.String(string(value))))
	}
	return options
}

// outcome is how an operation has ended.
type outcome string

const (
	outcomeOK        outcome = "ok"
	outcomeTemporary outcome = "temporary"
	outcomeFinal     outcome = "final"
	outcomeCancelled outcome = "cancelled"

	keyOutcome attribute.Key = "dockerexec.outcome"
)

var outcomes = labels(keyOutcome, outcomeOK, outcomeTemporary, outcomeFinal, outcomeCancelled)

// outcomeOf returns the outcome of an operation that returned err. The errors of contexts
// and the sentinels are bare.
func outcomeOf(err error) outcome {
	switch {
	case err == nil, err == exec.ErrTaskPrepared, err == exec.ErrTaskStarted: //nolint:errorlint // bare
		return outcomeOK
	case err == context.Canceled, err == context.DeadlineExceeded, err == exec.ErrControllerClosed: //nolint:errorlint // bare
		return outcomeCancelled
	case exec.IsTemporary(err):
		return outcomeTemporary
	default:
		return outcomeFinal
	}
}

// method is a method whose calls are measured. Each call has a span of that name.
type method struct {
	name     string
	outcomes map[outcome]metric.MeasurementOption
}

var (
	methodPullImage       = newMethod("ContainerAdapter.PullImage")
	methodCreateNetworks  = newMethod("ContainerAdapter.CreateNetworks")
	methodCreateVolumes   = newMethod("ContainerAdapter.CreateVolumes")
	methodCreate          = newMethod("ContainerAdapter.Create")
	methodStart           = newMethod("ContainerAdapter.Start")
	methodInspect         = newMethod("ContainerAdapter.Inspect")
	methodShutdown        = newMethod("ContainerAdapter.Shutdown")
	methodTerminate       = newMethod("ContainerAdapter.Terminate")
	methodRemove          = newMethod("ContainerAdapter.Remove")
	methodRemoveNetworks  = newMethod("ContainerAdapter.RemoveNetworks")
	methodPrepareTask     = newMethod("Controller.Prepare")
	methodStartTask       = newMethod("Controller.Start")
	methodShutdownTask    = newMethod("Controller.Shutdown")
	methodTerminateTask   = newMethod("Controller.Terminate")
	methodRemoveTask      = newMethod("Controller.Remove")
	methodContainerStatus = newMethod("Controller.ContainerStatus")
	methodPortStatus      = newMethod("Controller.PortStatus")
	methodOrphans         = newMethod("Engine.Orphans")
	methodRemoveOrphan    = newMethod("Engine.RemoveOrphan")
)

func newMethod(name string) *method {
	m := &method{name, map[outcome]metric.MeasurementOption{}}
	for of := range outcomes {
		m.outcomes[of] = metric.WithAttributeSet(attribute.NewSet(attribute.String("dockerexec.operation", name), keyOutcome.String(string(of))))
	}
	return m
}

// begin begins a call of m. The caller must call end with the error of the call. of
// returns the attributes of the span; nil: there are none. It is only called if somebody
// records the span, and at the end: then most is known.
func (t *telemetry) begin(ctx context.Context, m *method, of func() []attribute.KeyValue) (spanCtx context.Context, end func(*error)) {
	began := time.Now()
	ctx, span := t.tracer.Start(ctx, m.name)
	return ctx, func(err *error) {
		how := outcomeOf(*err)
		t.operations.Record(ctx, time.Since(began).Seconds(), m.outcomes[how])
		if span.IsRecording() {
			span.SetAttributes(keyOutcome.String(string(how)))
			if of != nil {
				span.SetAttributes(of()...)
			}
			isAnswer := m == methodInspect && isContainerGone(*err) // many an inspect only asks whether it is there
			if (how == outcomeTemporary || how == outcomeFinal) && !isAnswer {
				span.SetStatus(codes.Error, (*err).Error())
			}
		}
		span.End()
	}
}

// logCounts adds up what of a log was published. The sums go to the counters before each
// read of the engine's answer, and at the end. So a line costs next to nothing.
type logCounts struct {
	telemetry    *telemetry
	bytes, lines int64
}

func (c *logCounts) add(bytes int, endsLine bool) {
	c.bytes += int64(bytes)
	if endsLine {
		c.lines++
	}
}

// flush hands the sums to the counters.
func (c *logCounts) flush(ctx context.Context) {
	if c.bytes > 0 {
		c.telemetry.logBytes.Add(ctx, c.bytes)
		c.telemetry.logLines.Add(ctx, c.lines)
		c.bytes, c.lines = 0, 0
	}
}

// countedBody is an answer with a log. Each read of it flushes the counts first: it may wait
// for long.
type countedBody struct {
	io.Reader
	ctx    context.Context // of the publication
	counts *logCounts
}

func (b countedBody) Read(p []byte) (int, error) {
	b.counts.flush(b.ctx)
	return b.Reader.Read(p)
}

// wait is what a task waits for.
type wait string

const (
	waitPull   wait = "pull"
	waitHealth wait = "health"
	waitExit   wait = "exit"
	waitEngine wait = "engine"
)

var waits = labels("dockerexec.wait", waitPull, waitHealth, waitExit, waitEngine)

// waits counts a task as one that waits, until done is called.
func (t *telemetry) waits(ctx context.Context, what wait) (done func()) {
	t.waiting.Add(ctx, 1, waits[what])
	return func() { t.waiting.Add(ctx, -1, waits[what]) }
}

// endCause is why a container has ended.
type endCause string

const (
	endExit      endCause = "exit"
	endOOM       endCause = "oom"
	endUnhealthy endCause = "unhealthy"
	endLost      endCause = "lost"
)

var endCauses = labels("dockerexec.end.cause", endExit, endOOM, endUnhealthy, endLost)

// awayState is how an event stream is away. The empty one is a stream that is not away.
type awayState string

const (
	awayLost       awayState = "lost"
	awayUnanswered awayState = "unanswered"
	awayRefused    awayState = "refused"
)

var awayStates = labels("dockerexec.away", awayLost, awayUnanswered, awayRefused)

// resyncCause is why events may be lost.
type resyncCause string

const (
	resyncLost resyncCause = "lost"
	resyncSlow resyncCause = "slow"
)

var resyncCauses = labels("dockerexec.resync.cause", resyncLost, resyncSlow)

const (
	keyRequest   attribute.Key = "dockerexec.request"
	keyErrorType attribute.Key = "error.type"
)

// errorTypes are the values of error.type.
var errorTypes = map[errorKind]string{
	kindUnreachable: "unreachable",
	kindTimedOut:    "timed_out",
	kindOverloaded:  "overloaded",
	kindBusy:        "busy",
	kindRefused:     "refused",
	kindMissing:     "missing",
	kindOtherAnswer: "other_answer",
	kindOther:       "other",
}

// withFields gives ctx a logger with further fields. It leaves out those that are empty.
func withFields(ctx context.Context, fields log.Fields) context.Context {
	return log.WithFields(ctx, filledFields(fields))
}

// filledFields leaves out fields of a log line that are empty.
func filledFields(fields log.Fields) log.Fields {
	for name, value := range fields {
		if value == "" {
			delete(fields, name)
		}
	}
	return fields
}

// filledAttributes leaves out attributes of a span that are empty.
func filledAttributes(attributes ...attribute.KeyValue) []attribute.KeyValue {
	return slices.DeleteFunc(attributes, func(a attribute.KeyValue) bool { return a.Value.AsString() == "" })
}
