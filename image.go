package dockerexec

import (
	"path"
	"regexp"
	"strings"

	"github.com/distribution/reference"
	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/api/types/registry"
	"github.com/moby/swarmkit/v2/api"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// pullOptions returns the credentials and the platform of the pull.
func (c *containerConfig) pullOptions() image.PullOptions {
	var options image.PullOptions
	if o := c.spec().PullOptions; o != nil {
		options.RegistryAuth = o.RegistryAuth
	}
	if p := c.platform(); p != nil {
		options.Platform = formatPlatform(p)
	}
	return options
}

// imageID matches the ID of an image. It cannot be pulled: the engine has it or not.
var imageID = regexp.MustCompile(`^(?:sha256:)?[a-f0-9]{64}$`)

// checkImage refuses an image that can neither be pulled nor be found on an engine. The
// error does not show it: it may be a URL with a password.
func (c *containerConfig) checkImage() error {
	if imageID.MatchString(c.image()) {
		return nil
	}
	if _, err := reference.ParseNormalizedNamed(c.image()); err != nil {
		return refuse("Spec.Container.Image", "is no image reference")
	}
	return nil
}

const base64URL = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_="

// checkRegistryAuth checks that the credentials are base64url-encoded JSON, as the
// engine's header requires. With anything else an engine pulls without credentials.
func (c *containerConfig) checkRegistryAuth() error {
	o := c.spec().PullOptions
	if o == nil {
		return nil
	}
	_, err := registry.DecodeAuthConfig(o.RegistryAuth)
	// The decoder skips line ends, and ignores what comes after the JSON.
	if err != nil || strings.Trim(o.RegistryAuth, base64URL) != "" {
		return refuse("Spec.Container.PullOptions.RegistryAuth", "is not the base64url-encoded JSON of the X-Registry-Auth header (the value is not shown)")
	}
	return nil
}

// platform returns the only platform of the task; nil if it allows any or several.
func (c *containerConfig) platform() *ocispec.Platform {
	placement := c.task.Spec.Placement
	if placement == nil || len(placement.Platforms) != 1 {
		return nil
	}
	return normalizePlatform(*placement.Platforms[0])
}

// normalizePlatform translates a kernel's name of an architecture into the name that
// images have, as containerd does. It returns nil if the platform says too little.
func normalizePlatform(p api.Platform) *ocispec.Platform {
	n := ocispec.Platform{OS: strings.ToLower(p.OS), Architecture: strings.ToLower(p.Architecture)}
	if n.OS == "macos" {
		n.OS = "darwin"
	}
	switch n.Architecture {
	case "x86_64", "x86-64":
		n.Architecture = "amd64"
	case "aarch64":
		n.Architecture = "arm64"
	case "i386", "i486", "i586", "i686":
		n.Architecture = "386"
	case "armhf", "armv7l":
		n.Architecture, n.Variant = "arm", "v7"
	case "armel", "armv6l":
		n.Architecture, n.Variant = "arm", "v6"
	case "arm":
		// A task cannot name the variant, and an engine reads a bare arm as v7. Without
		// a platform the engine takes its own variant.
		return nil
	}
	if n.OS == "" && n.Architecture == "" {
		return nil
	}
	return &n
}

func formatPlatform(p *ocispec.Platform) string {
	return path.Join(p.OS, p.Architecture, p.Variant)
}

// runsOn reports whether an image is for platform p. nil is any platform.
func runsOn(answer image.InspectResponse, p *ocispec.Platform) bool {
	return p == nil || p.OS == answer.Os && p.Architecture == answer.Architecture &&
		(p.Variant == "" || p.Variant == answer.Variant)
}
