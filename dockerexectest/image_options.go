package dockerexectest

import (
	"time"

	"github.com/docker/docker/api/types/container"
)

// ImageOption describes an image.
type ImageOption func(*imageSpec)

type imageSpec struct {
	config      container.Config
	probe       Program
	platforms   []string
	layers      []int64
	executables []string
	credentials []string // user, password; empty: everybody may pull
	limited     int      // pulls that are refused for their number
	pullTime    time.Duration
	stallAfter  int64 // bytes; negative: never
}

// WithLayers sets the sizes of the layers, in bytes. The default is one of 1 MiB.
func WithLayers(sizes ...int64) ImageOption { return func(s *imageSpec) { s.layers = sizes } }

// WithPlatforms sets for which platforms the image is, such as "linux/arm64".
// The default is linux/amd64, the engine's own.
func WithPlatforms(platforms ...string) ImageOption {
	return func(s *imageSpec) { s.platforms = platforms }
}

// WithHealthcheck sets the image's health check. If its Test is empty, it is
// CMD /health.
func WithHealthcheck(check container.HealthConfig) ImageOption {
	return func(s *imageSpec) {
		if len(check.Test) == 0 {
			check.Test = []string{"CMD", "/health"}
		}
		s.config.Healthcheck = &check
	}
}

// WithProbe sets what health checks run, the image's and the container's own.
// Args is the check's command; 0 is healthy. The default finds health always.
func WithProbe(p Program) ImageOption { return func(s *imageSpec) { s.probe = p } }

// WithStopSignal sets the signal that a stop sends, such as "SIGUSR1".
func WithStopSignal(name string) ImageOption {
	return func(s *imageSpec) { s.config.StopSignal = name }
}

// WithVolumes sets the paths for which each container gets a volume.
func WithVolumes(paths ...string) ImageOption {
	return func(s *imageSpec) {
		s.config.Volumes = map[string]struct{}{}
		for _, path := range paths {
			s.config.Volumes[path] = struct{}{}
		}
	}
}

// WithConfig changes the image's configuration in other ways: Env, Entrypoint,
// Cmd, Labels, User, WorkingDir, ExposedPorts. The default has Cmd "/program".
func WithConfig(change func(*container.Config)) ImageOption {
	return func(s *imageSpec) { change(&s.config) }
}

// WithExecutables sets which programs the image has. A container that wants
// another one does not start. The default has every program.
func WithExecutables(paths ...string) ImageOption {
	return func(s *imageSpec) { s.executables = paths }
}

// WithCredentials sets who may pull the image.
func WithCredentials(user, password string) ImageOption {
	return func(s *imageSpec) { s.credentials = []string{user, password} }
}

// WithRateLimit has the registry refuse so many pulls, as too many, before it
// allows one.
func WithRateLimit(refused int) ImageOption { return func(s *imageSpec) { s.limited = refused } }

// WithPullTime sets how long a pull downloads. The default is no time.
func WithPullTime(d time.Duration) ImageOption { return func(s *imageSpec) { s.pullTime = d } }

// WithStall has each pull stand still after so many bytes, until its client leaves.
func WithStall(after int64) ImageOption { return func(s *imageSpec) { s.stallAfter = after } }
