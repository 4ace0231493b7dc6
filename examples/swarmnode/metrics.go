package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"

	engineapi "github.com/docker/docker/client"
	"github.com/moby/swarmkit/v2/log"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	otelprometheus "go.opentelemetry.io/otel/exporters/prometheus"
	"go.opentelemetry.io/otel/sdk/metric"

	"github.com/dockerexec/dockerexec"
)

// monitor tells how the node is: /metrics in Prometheus' text, this package's metrics
// and SwarmKit's own, and /healthz, which says whether the engine answers.
type monitor struct {
	engine   engineapi.APIClient
	meters   *metric.MeterProvider
	gatherer prometheus.Gatherer

	mu   sync.Mutex
	lost *engineLoss // nil: no task misses the engine
}

// engineLoss is an outage that the executor has told of.
type engineLoss struct {
	since time.Time
	event dockerexec.EngineEvent
}

func newMonitor(engine engineapi.APIClient) (*monitor, error) {
	registry := prometheus.NewRegistry()
	exporter, err := otelprometheus.New(otelprometheus.WithRegisterer(registry), otelprometheus.WithoutScopeInfo(),
		otelprometheus.WithoutTargetInfo())
	if err != nil {
		return nil, err
	}
	return &monitor{
		engine: engine, meters: metric.NewMeterProvider(metric.WithReader(exporter)),
		gatherer: prometheus.Gatherers{registry, prometheus.DefaultGatherer}, // SwarmKit's own are in the second
	}, nil
}

// options are what the executor needs to be watched.
func (m *monitor) options() []dockerexec.Option {
	return []dockerexec.Option{dockerexec.WithMeterProvider(m.meters), dockerexec.WithEngineObserver(m.observe)}
}

// observe notes whether tasks miss the engine. When no task needs it any more, ctx ends,
// and nobody tells of the outage's end.
func (m *monitor) observe(ctx context.Context, event dockerexec.EngineEvent) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if event.Kind == dockerexec.EngineRestored {
		m.lost = nil
		return
	}
	loss := &engineLoss{since: time.Now(), event: event}
	if m.lost != nil {
		loss.since = m.lost.since
	}
	m.lost = loss
	context.AfterFunc(ctx, func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		if m.lost == loss {
			m.lost = nil
		}
	})
}

func (m *monitor) handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(m.gatherer, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /healthz", m.serveHealth)
	return mux
}

// serveHealth answers 200 if the engine answers, and 503 with the reason if not. Tasks may
// miss an engine that answers, for the seconds until its events are read again. An engine
// whose events are refused answers: its tasks go on.
func (m *monitor) serveHealth(w http.ResponseWriter, r *http.Request) {
	m.mu.Lock()
	lost := m.lost
	m.mu.Unlock()
	ctx, cancel := context.WithTimeout(r.Context(), 5*time.Second)
	defer cancel()
	_, err := m.engine.Ping(ctx)
	switch {
	case err != nil:
		http.Error(w, fmt.Sprint("the engine does not answer: ", err), http.StatusServiceUnavailable)
	case lost == nil:
		fmt.Fprintln(w, "ok")
	case lost.event.Kind == dockerexec.EngineLost:
		http.Error(w, fmt.Sprintf("the engine answers, and tasks wait for its events since %s: %v",
			lost.since.UTC().Format(time.RFC3339), lost.event.Err), http.StatusServiceUnavailable)
	default:
		fmt.Fprintf(w, "ok, but the engine refuses its events since %s: %v\n", lost.since.UTC().Format(time.RFC3339), lost.event.Err)
	}
}

// serve serves at an address until ctx ends. It returns once it listens; ended waits
// until all is over.
func (m *monitor) serve(ctx context.Context, address string) (ended func(), err error) {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return nil, err
	}
	server := &http.Server{Handler: m.handler(), ReadHeaderTimeout: 10 * time.Second}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			log.G(ctx).WithError(err).Error("metrics are no longer served")
		}
	}()
	return func() {
		if stop() {
			_ = server.Close()
		}
		<-done
		_ = m.meters.Shutdown(context.WithoutCancel(ctx))
	}, nil
}
