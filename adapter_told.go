package dockerexec

import (
	"context"

	"github.com/moby/swarmkit/v2/api"
	"github.com/moby/swarmkit/v2/log"
	"go.opentelemetry.io/otel/attribute"
)

// scrubber returns a scrubber for all values of the task that are known by now.
func (a *ContainerAdapter) scrubber() scrubber { return a.secrets.scrubber(a.values, a.fullTask) }

// hide takes the secrets of the task out of an error of the engine.
func (a *ContainerAdapter) hide(err error) error {
	if err == nil {
		return nil
	}
	return a.scrubber().hide(err)
}

// logContext returns ctx with a logger that has the fields of the task.
func (a *ContainerAdapter) logContext(ctx context.Context) context.Context {
	return withFields(ctx, log.Fields{
		"task.id":    a.taskID,
		"service.id": a.serviceID,
		"node.id":    a.nodeID,
	})
}

// begin begins a call of m, which is measured. The caller must call end with its error.
func (a *ContainerAdapter) begin(ctx context.Context, m *method) (spanCtx context.Context, end func(*error)) {
	return a.engine.telemetry.begin(ctx, m, a.spanAttributes)
}

func (a *ContainerAdapter) spanAttributes() []attribute.KeyValue {
	return filledAttributes(
		attribute.String("dockerexec.task.id", a.taskID),
		attribute.String("dockerexec.service.id", a.serviceID),
		attribute.String("dockerexec.node.id", a.nodeID),
		attribute.String("container.name", a.name),
		attribute.String("container.id", a.knownID()),
		attribute.String("container.image.name", a.image),
	)
}

// waits counts the task as one that waits, until done is called.
func (a *ContainerAdapter) waits(ctx context.Context, what wait) (done func()) {
	return a.engine.telemetry.waits(ctx, what)
}

// noteEnd counts the end of the task's container, once. An empty cause is no end.
func (a *ContainerAdapter) noteEnd(ctx context.Context, cause endCause) {
	if cause != "" {
		a.endOnce.Do(func() { a.engine.telemetry.ends.Add(ctx, 1, endCauses[cause]) })
	}
}

// logMessageContext says whose log a message is of.
func (a *ContainerAdapter) logMessageContext() api.LogContext {
	return api.LogContext{ServiceID: a.serviceID, NodeID: a.nodeID, TaskID: a.taskID}
}
