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
	limited     int      // how many pulls the rate limit still refuses
	pullTime    time.Duration
	stallAfter  int64 // bytes; negative: never
}

// WithLayers sets the sizes of the layers, in bytes. The default is one layer of 1 MiB.
func WithLayers(sizes ...int64) ImageOption { return func(s *imageSpec) { s.layers = sizes } }

// WithPlatforms sets the platforms of the image, such as "linux/arm64". The default is
// linux/amd64, the engine's own.
func WithPlatforms(platforms ...string) ImageOption {
	return func(s *imageSpec) { s.platforms = platforms }
}

// WithHealthcheck sets the image's health check. An empty Test becomes CMD /health.
func WithHealthcheck(check container.HealthConfig) ImageOption {
	return func(s *imageSpec) {
		if len(check.Test) == 0 {
			check.Test = []string{"CMD", "/health"}
		}
		s.config.Healthcheck = &check
	}
}

// WithProbe sets the program of health checks, both the image's and the container's own.
// The check's command is in [Process.Args]. The program returns 0 if the container is
// healthy. The default always returns 0.
func WithProbe(p Program) ImageOption { return func(s *imageSpec) { s.probe = p } }

// WithStopSignal sets the signal that a stop sends, such as "SIGUSR1".
func WithStopSignal(name string) ImageOption {
	return func(s *imageSpec) { s.config.StopSignal = name }
}

// WithVolumes sets the paths at which each container gets an anonymous volume.
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

// WithRateLimit makes the registry refuse the first pulls because of a rate limit. refused
// is their number.
func WithRateLimit(refused int) ImageOption { return func(s *imageSpec) { s.limited = refused } }

// WithPullTime sets how long a pull downloads. The default is no time.
func WithPullTime(d time.Duration) ImageOption { return func(s *imageSpec) { s.pullTime = d } }

// WithStall makes each pull stand still after that many bytes, until its client leaves.
func WithStall(after int64) ImageOption { return func(s *imageSpec) { s.stallAfter = after } }
