package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"testing"

	engineapi "github.com/docker/docker/client"
	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/moby/swarmkit/v2/api"
	"github.com/moby/swarmkit/v2/log"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/stdout/stdouttrace"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"github.com/dockerexec/dockerexec"
)

// tracesTo is the variable that makes the test binary a node, which writes its spans to
// the file that it names. Each task has a span of its own, and all calls of the agent for
// this task are below it.
const tracesTo = "SWARMNODE_TEST_TRACES_TO"

func mainTraced(path string) {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	if err := runTraced(ctx, path); err != nil {
		fmt.Fprintln(os.Stderr, "swarmnode:", err)
		os.Exit(1)
	}
}

func runTraced(ctx context.Context, path string) error {
	o, err := parseFlags(os.Args[1:], os.Stderr)
	if err != nil {
		return err
	}
	log.L.Logger.SetLevel(o.logLevel)
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	defer file.Close()
	exporter, err := stdouttrace.New(stdouttrace.WithWriter(file))
	if err != nil {
		return err
	}
	spans := sdktrace.NewTracerProvider(sdktrace.WithSyncer(exporter))
	defer func() { _ = spans.Shutdown(context.WithoutCancel(ctx)) }()
	client, err := engineapi.NewClientWithOpts(engineapi.WithHost(o.host), engineapi.WithAPIVersionNegotiation(),
		engineapi.WithTraceProvider(spans))
	if err != nil {
		return err
	}
	defer client.Close()
	m, err := newMonitor(client)
	if err != nil {
		return err
	}
	ended, err := m.serve(ctx, o.metrics)
	if err != nil {
		return err
	}
	defer ended()
	executor := dockerexec.NewExecutor(client, nil, append(m.options(), dockerexec.WithTracerProvider(spans),
		dockerexec.WithOrphans(o.orphans, o.grace))...)
	return runNode(ctx, o, tracedExecutor{executor, executor.(stores), spans.Tracer("agent")}, os.Stdout)
}

// stores are what the agent fills.
type stores interface {
	exec.SecretsProvider
	exec.ConfigsProvider
}

type tracedExecutor struct {
	exec.Executor
	stores
	tracer trace.Tracer
}

func (e tracedExecutor) Controller(task *api.Task) (exec.Controller, error) {
	controller, err := e.Executor.Controller(task)
	if err != nil {
		return nil, err
	}
	_, span := e.tracer.Start(context.Background(), "task", trace.WithAttributes(attribute.String("dockerexec.task.id", task.ID)))
	return tracedController{controller, span}, nil
}

// tracedController is a controller whose calls are below the span of its task.
type tracedController struct {
	exec.Controller
	task trace.Span
}

func (c tracedController) below(ctx context.Context) context.Context {
	return trace.ContextWithSpan(ctx, c.task)
}

func (c tracedController) Prepare(ctx context.Context) error {
	return c.Controller.Prepare(c.below(ctx))
}
func (c tracedController) Start(ctx context.Context) error { return c.Controller.Start(c.below(ctx)) }
func (c tracedController) Wait(ctx context.Context) error  { return c.Controller.Wait(c.below(ctx)) }
func (c tracedController) Shutdown(ctx context.Context) error {
	return c.Controller.Shutdown(c.below(ctx))
}
func (c tracedController) Terminate(ctx context.Context) error {
	return c.Controller.Terminate(c.below(ctx))
}
func (c tracedController) Remove(ctx context.Context) error { return c.Controller.Remove(c.below(ctx)) }
func (c tracedController) Close() error {
	c.task.End()
	return c.Controller.Close()
}

func (c tracedController) ContainerStatus(ctx context.Context) (*api.ContainerStatus, error) {
	return c.Controller.(exec.ContainerStatuser).ContainerStatus(c.below(ctx))
}

// writtenSpan is a span in the file.
type writtenSpan struct {
	Name                string
	SpanContext, Parent struct{ TraceID, SpanID string }
	Attributes          []struct {
		Key   string
		Value struct{ Value any }
	}
}

func (s writtenSpan) attribute(key string) any {
	for _, a := range s.Attributes {
		if a.Key == key {
			return a.Value.Value
		}
	}
	return nil
}

func readSpans(t testing.TB, path string) []writtenSpan {
	t.Helper()
	file, err := os.Open(path)
	require.NoError(t, err)
	defer file.Close()
	var spans []writtenSpan
	for decoder := json.NewDecoder(file); ; {
		var s writtenSpan
		err := decoder.Decode(&s)
		if errors.Is(err, io.EOF) {
			return spans
		}
		require.NoError(t, err)
		spans = append(spans, s)
	}
}
