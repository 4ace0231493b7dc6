//go:build never

package dockerexec

// The engine's client has no go.mod, and `go mod tidy` of whoever imports this
// package and that client looks at the client's tests too. What those need it
// would take at the newest version, which may want a newer Go than this module;
// and of google.golang.org/genproto at a version from before it was split, which
// has the packages of its parts too, so that tidy fails. So the requirements of
// this module name a version of each.
import (
	_ "github.com/Azure/go-ansiterm"
	_ "github.com/moby/sys/sequential"
	_ "go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	_ "go.opentelemetry.io/proto/otlp/trace/v1"
	_ "google.golang.org/genproto/googleapis/type/date"
)
