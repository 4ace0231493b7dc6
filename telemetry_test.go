package dockerexec

import (
	"context"
	stderrors "errors"
	"fmt"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/containerd/errdefs/pkg/errhttp"
	"github.com/docker/docker/api/types/container"
	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/moby/swarmkit/v2/log"
	"github.com/pkg/errors"
	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	metricnoop "go.opentelemetry.io/otel/metric/noop"
	tracenoop "go.opentelemetry.io/otel/trace/noop"

	"github.com/dockerexec/dockerexec/dockerexectest"
)

// listedMeters notes each instrument as a row of the table in docs/operations.md begins. If
// err is set, it makes no instrument.
type listedMeters struct {
	metricnoop.Meter
	rows []string
	err  error
}

// provider has one meter.
type provider struct {
	metricnoop.MeterProvider
	meter metric.Meter
}

func (p provider) Meter(string, ...metric.MeterOption) metric.Meter { return p.meter }

func (l *listedMeters) add(name, kind, unit, description string) {
	if description == "" {
		kind = "without a description"
	}
	l.rows = append(l.rows, fmt.Sprintf("| `%s` | %s, `%s` |", name, kind, unit))
}

func (l *listedMeters) Int64Counter(name string, opts ...metric.Int64CounterOption) (metric.Int64Counter, error) {
	config := metric.NewInt64CounterConfig(opts...)
	l.add(name, "counter", config.Unit(), config.Description())
	if l.err != nil {
		return nil, l.err
	}
	return metricnoop.Int64Counter{}, nil
}

func (l *listedMeters) Int64UpDownCounter(name string, opts ...metric.Int64UpDownCounterOption) (metric.Int64UpDownCounter, error) {
	config := metric.NewInt64UpDownCounterConfig(opts...)
	l.add(name, "up-down counter", config.Unit(), config.Description())
	if l.err != nil {
		return nil, l.err
	}
	return metricnoop.Int64UpDownCounter{}, nil
}

func (l *listedMeters) Float64Histogram(name string, opts ...metric.Float64HistogramOption) (metric.Float64Histogram, error) {
	config := metric.NewFloat64HistogramConfig(opts...)
	l.add(name, "histogram", config.Unit(), config.Description())
	if l.err != nil {
		return nil, l.err
	}
	return metricnoop.Float64Histogram{}, nil
}

// section is a part of docs/operations.md, up to the next heading.
func section(t *testing.T, heading string) string {
	t.Helper()
	page, err := os.ReadFile("docs/operations.md")
	require.NoError(t, err)
	_, text, found := strings.Cut(string(page), "\n"+heading+"\n")
	require.True(t, found, heading)
	text, _, _ = strings.Cut(text, "\n#")
	return text
}

// An operator finds every metric in the page, and none that is not there.
func TestDocsHaveEachMetric(t *testing.T) {
	t.Parallel()
	meters := &listedMeters{}
	newTelemetry(provider{meter: meters}, nil)
	listed := regexp.MustCompile("(?m)^\\| `dockerexec\\.[^|]*` \\| (?:counter|up-down counter|histogram), [^|]* \\|").FindAllString(section(t, "### Metrics"), -1)
	require.NotEmpty(t, listed)
	assert.ElementsMatch(t, listed, meters.rows)
}

// So with the values of each attribute.
func TestDocsHaveEachValueOfAnAttribute(t *testing.T) {
	t.Parallel()
	types := []string{"cancelled"}
	for _, name := range errorTypes {
		types = append(types, name)
	}
	for attribute, values := range map[string][]string{
		"dockerexec.outcome":      keysOf(outcomes),
		"dockerexec.wait":         keysOf(waits),
		"dockerexec.end.cause":    keysOf(endCauses),
		"dockerexec.away":         keysOf(awayStates),
		"dockerexec.resync.cause": keysOf(resyncCauses),
		"error.type":              types,
	} {
		row := regexp.MustCompile("(?m)^\\| `" + regexp.QuoteMeta(attribute) + "` \\| (.*) \\|$").FindStringSubmatch(section(t, "### Metrics"))
		require.NotNil(t, row, attribute)
		var listed []string
		for _, value := range regexp.MustCompile("`([a-z_]+)`").FindAllStringSubmatch(row[1], -1) {
			listed = append(listed, value[1])
		}
		assert.ElementsMatch(t, listed, values, attribute)
	}
	for kind := range verdicts {
		assert.Equal(t, kind != noError, errorTypes[kind] != "", "the kind of error %d", kind)
	}
}

func keysOf[V ~string](options map[V]metric.MeasurementOption) (keys []string) {
	for key := range options {
		keys = append(keys, string(key))
	}
	return keys
}

func TestDocsHaveEachSpan(t *testing.T) {
	t.Parallel()
	var made, listed []string
	for _, m := range regexp.MustCompile(`= newMethod\("([^"]+)"\)`).FindAllStringSubmatch(fileText(t, "telemetry.go"), -1) {
		made = append(made, m[1])
	}
	for _, row := range regexp.MustCompile("(?m)^\\| `([^`]+)` \\|").FindAllStringSubmatch(section(t, "### Spans"), -1) {
		listed = append(listed, row[1])
	}
	require.NotEmpty(t, made)
	assert.ElementsMatch(t, listed, made)
}

func fileText(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(name)
	require.NoError(t, err)
	return string(text)
}

// A request that the package makes, and that countedClient does not know, would not count.
func TestEachRequestIsCounted(t *testing.T) {
	t.Parallel()
	client := fileText(t, "counted_client.go")
	var counted []string
	for _, m := range regexp.MustCompile(`(?s)\nfunc \(c countedClient\) ([A-Z]\w+)\(.*?\n}\n`).FindAllStringSubmatch(client, -1) {
		assert.Contains(t, m[0], "c.APIClient."+m[1]+"(", "it makes the request of its name")
		assert.Contains(t, m[0], `c.count(ctx, "`+m[1]+`", `, "it counts under its name")
		counted = append(counted, m[1])
	}
	var made []string
	comments := regexp.MustCompile(`(?s)//[^\n]*|/\*.*?\*/`)
	for _, file := range packageFiles(t) {
		code := comments.ReplaceAllString(fileText(t, file), "")
		for _, m := range regexp.MustCompile(`\b(?:client|pinger)\.([A-Z]\w+)\b`).FindAllStringSubmatch(code, -1) {
			made = append(made, m[1])
		}
	}
	for _, local := range []string{"Client", "DaemonHost", "ClientVersion", "NegotiateAPIVersionPing"} { // a type, and methods that make no request
		require.Contains(t, made, local)
		made = slices.DeleteFunc(made, func(name string) bool { return name == local })
	}
	slices.Sort(made)
	assert.ElementsMatch(t, slices.Compact(made), counted)
}

func TestOutcomes(t *testing.T) {
	t.Parallel()
	for want, errs := range map[outcome][]error{
		outcomeOK:        {nil, exec.ErrTaskPrepared, exec.ErrTaskStarted},
		outcomeTemporary: {exec.MakeTemporary(errors.New("away")), requestTimeoutError(1), errors.Wrap(exec.MakeTemporary(errors.New("away")), "start")},
		outcomeFinal:     {errors.New("refused"), ErrContainerDestroyed, ErrImageRequired, &exitError{code: 1}},
		outcomeCancelled: {context.Canceled, context.DeadlineExceeded, exec.ErrControllerClosed},
	} {
		for _, err := range errs {
			assert.Equal(t, want, outcomeOf(err), "%v", err)
		}
	}
}

func TestEndCauses(t *testing.T) {
	t.Parallel()
	ended := func(code int, oom bool) container.InspectResponse {
		answer := exitedWith(code)
		answer.State.OOMKilled = oom
		return answer
	}
	for _, test := range []struct {
		name string
		err  error
		want endCause
	}{
		{"exit code 0", ExitError(ended(0, false), nil), endExit},
		{"exit code 3", ExitError(ended(3, false), nil), endExit},
		{"killed", ExitError(ended(137, false), nil), endExit},
		{"out of memory", ExitError(ended(137, true), nil), endOOM},
		{"a process of it ran out of memory", ExitError(ended(3, true), nil), endExit},
		{"unhealthy", ExitError(ended(137, false), ErrContainerUnhealthy), endUnhealthy},
		{"unhealthy, and out of memory", ExitError(ended(137, true), ErrContainerUnhealthy), endUnhealthy},
		{"removed", ErrContainerDestroyed, endLost},
		{"its start was lost", errors.Wrap(errUnseenRun, "x"), endLost},
		{"the caller left", context.Canceled, ""},
		{"the engine is away", exec.MakeTemporary(errors.New("away")), ""},
		{"the engine refuses", errors.New("no"), ""},
	} {
		assert.Equal(t, test.want, endCauseOf(test.err), test.name)
	}
}

// countedSteps is a counter that notes its steps, each with its attributes.
type countedSteps struct {
	metricnoop.Int64Counter
	counted []string
}

func (c *countedSteps) Add(_ context.Context, n int64, opts ...metric.AddOption) {
	set := metric.NewAddConfig(opts).Attributes()
	c.counted = append(c.counted, fmt.Sprint(n, " ", set.Encoded(attribute.DefaultEncoder())))
}

func TestARequestThatFailsCountsByItsFault(t *testing.T) {
	t.Parallel()
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	late, cancelLate := context.WithTimeout(t.Context(), 0)
	defer cancelLate()
	for _, test := range []struct {
		ctx  context.Context
		err  error
		want string
	}{
		{t.Context(), nil, "1 dockerexec.request=Info"},
		{t.Context(), syscall.ECONNREFUSED, "1 dockerexec.request=Info,error.type=unreachable"},
		{t.Context(), requestTimeoutError(1), "1 dockerexec.request=Info,error.type=timed_out"},
		{t.Context(), errhttp.ToNative(http.StatusServiceUnavailable), "1 dockerexec.request=Info,error.type=overloaded"},
		{t.Context(), errhttp.ToNative(http.StatusConflict), "1 dockerexec.request=Info,error.type=busy"},
		{t.Context(), errhttp.ToNative(http.StatusForbidden), "1 dockerexec.request=Info,error.type=refused"},
		{t.Context(), errhttp.ToNative(http.StatusNotFound), "1 dockerexec.request=Info,error.type=missing"},
		{t.Context(), errhttp.ToNative(http.StatusTeapot), "1 dockerexec.request=Info,error.type=other_answer"},
		{t.Context(), errors.New("a hook's"), "1 dockerexec.request=Info,error.type=other"},
		{ended, context.Canceled, "1 dockerexec.request=Info,error.type=cancelled"},
		{late, context.DeadlineExceeded, "1 dockerexec.request=Info,error.type=timed_out"},
	} {
		counter := &countedSteps{}
		countedClient{telemetry: &telemetry{requests: counter}}.count(test.ctx, "Info", test.err)
		assert.Equal(t, []string{test.want}, counter.counted, "%v", test.err)
	}
}

// Whatever the providers are, tasks run.
func TestTelemetryWithoutAProvider(t *testing.T) {
	t.Parallel()
	for name, opts := range map[string][]Option{
		"none":                   nil,
		"nil":                    {WithMeterProvider(nil), WithTracerProvider(nil), WithEngineObserver(nil)},
		"one without an effect":  {WithMeterProvider(metricnoop.NewMeterProvider()), WithTracerProvider(tracenoop.NewTracerProvider())},
		"one that always fails":  {WithMeterProvider(provider{meter: &listedMeters{err: stderrors.New("no instruments")}})},
		"a nil Option beside it": {nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T) {
				j := newJob(t, dockerexectest.Print(dockerexectest.Exit(3), "one"), opts...).run(t.Context())
				assert.Equal(t, "exit code 3", j.result.Reason)
				assert.Equal(t, []string{"one\n"}, j.log.text)
			})
		})
	}
}

// A line of a log costs no allocation where nobody listens.
func TestALogLineIsCountedWithoutAnAllocation(t *testing.T) {
	counts, ctx := logCounts{telemetry: newTelemetry(nil, nil)}, t.Context()
	assert.Zero(t, testing.AllocsPerRun(1000, func() { counts.add(80, true); counts.flush(ctx) }))
}

// A part of a long line is no line.
func TestTheEndOfALineCounts(t *testing.T) {
	t.Parallel()
	bytes, lines := &countedSteps{}, &countedSteps{}
	counts := logCounts{telemetry: &telemetry{logBytes: bytes, logLines: lines}}
	counts.flush(t.Context())
	counts.add(9, false)
	counts.flush(t.Context())
	counts.add(5, true)
	counts.add(4, true)
	counts.flush(t.Context())
	counts.flush(t.Context())
	assert.Equal(t, []string{"9 ", "9 "}, bytes.counted)
	assert.Equal(t, []string{"0 ", "2 "}, lines.counted)
}

// A field without a value tells nothing.
func TestLogFieldsThatAreEmptyAreLeftOut(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		engine := dockerexectest.New(t)
		engine.Image(spec(plainTask()).Image, dockerexectest.Exit(0))
		task := plainTask()
		task.ServiceID, task.NodeID = "", ""
		ctx, hook := logHook(t.Context())
		_, err := NewEngine(engine.Client()).Run(ctx, task, RunOptions{})
		require.NoError(t, err)
		withTask := 0
		for _, entry := range hook.AllEntries() {
			for field, value := range entry.Data {
				assert.NotEqual(t, "", value, "%s of %q", field, entry.Message)
			}
			assert.NotContains(t, entry.Data, "service.id")
			if entry.Data["task.id"] == "taskid" {
				withTask++
			}
		}
		assert.Positive(t, withTask)
		assert.Equal(t, logrus.Fields{"a": "b", "n": 0}, logrus.Fields(filledFields(logrus.Fields{"a": "b", "empty": "", "n": 0})))
		assert.Equal(t, logrus.Fields{"task.id": "t"}, log.G(orphanContext(t.Context(), Orphan{TaskID: "t"})).Data)
		assert.Equal(t, logrus.Fields{"n": 1}, log.G(withFields(t.Context(), log.Fields{"n": 1, "empty": ""})).Data)
	})
}
