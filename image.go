package dockerexec

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/distribution/reference"
	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/api/types/registry"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// pullOptions returns the credentials and the platform of the pull.
func (c *containerConfig) pullOptions() image.PullOptions {
	var options image.PullOptions
	if o := c.spec().PullOptions; o != nil {
		options.RegistryAuth, _ = authHeader(o.RegistryAuth) // checked by translateTask
	}
	if p := c.platform(); p != nil {
		options.Platform = formatPlatform(p)
	}
	return options
}

// imageID matches the ID of an image. An ID cannot be pulled: the engine has the image or
// not.
var imageID = regexp.MustCompile(`^(?:sha256:)?[a-f0-9]{64}$`)

// checkImage refuses an image that can neither be pulled nor be found on an engine. The
// error does not show the name of the image: it may be a URL with a password.
func (c *containerConfig) checkImage() error {
	if imageID.MatchString(c.image()) {
		return nil
	}
	if _, err := reference.ParseNormalizedNamed(c.image()); err != nil {
		return refuse("Spec.Container.Image", "is no image reference")
	}
	return nil
}

// authHeader returns the credentials as the engine's header needs them: a JSON object
// in base64url with padding. Some tools write another base64. An engine cannot read that,
// and would pull without credentials. isCredentials is false if the parameter given is
// not empty and holds no credentials. There is no error, because its text could quote the
// credentials.
func authHeader(given string) (header string, isCredentials bool) {
	if given == "" {
		return "", true
	}
	data, err := decodeBase64(given)
	if err != nil {
		return "", false
	}
	var object map[string]any
	if json.NewDecoder(bytes.NewReader(data)).Decode(&object) != nil || object == nil {
		return "", false
	}
	header = base64.URLEncoding.EncodeToString(data)
	_, err = registry.DecodeAuthConfig(header) // refuses a field of the wrong type, which an engine cannot read
	return header, err == nil
}

// checkRegistryAuth refuses credentials that no engine can read.
func (c *containerConfig) checkRegistryAuth() error {
	if o := c.spec().PullOptions; o != nil {
		if _, ok := authHeader(o.RegistryAuth); !ok {
			return refuse("Spec.Container.PullOptions.RegistryAuth", "is not the base64url-encoded JSON of the X-Registry-Auth header (the value is not shown)")
		}
	}
	return nil
}

// platform returns the platform that a pull and a create name: the task's, if the task
// has only one and engines read it as SwarmKit's scheduler does. nil leaves the choice to
// the engine.
func (c *containerConfig) platform() *ocispec.Platform {
	allowed := c.platforms()
	if len(allowed) != 1 {
		return nil
	}
	p := allowed[0]
	switch {
	case p.Architecture == "": // an engine would take its own architecture, the scheduler takes any
		return nil
	case p.Architecture == "arm" && p.Variant == "": // an engine would take v7, even on a machine of another variant
		return nil
	case p.OS == "" && p.Variant != "": // an engine would read the architecture as the operating system
		return nil
	}
	return &p
}

// platforms returns the platforms that the task allows. None means any.
func (c *containerConfig) platforms() []ocispec.Platform {
	var allowed []ocispec.Platform
	if placement := c.task.Spec.Placement; placement != nil {
		for _, p := range placement.Platforms {
			allowed = append(allowed, normalizePlatform(p.OS, p.Architecture))
		}
	}
	return allowed
}

// normalizePlatform translates a kernel's names into the names that images have, as
// containerd does.
func normalizePlatform(system, architecture string) ocispec.Platform {
	n := ocispec.Platform{OS: strings.ToLower(system), Architecture: strings.ToLower(architecture)}
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
	}
	return n
}

func formatPlatform(p *ocispec.Platform) string {
	return path.Join(p.OS, p.Architecture, p.Variant)
}

// runsOn reports whether an image is for one of the allowed platforms. No allowed platform
// means any.
func runsOn(answer image.InspectResponse, allowed []ocispec.Platform) bool {
	has := normalizePlatform(answer.Os, answer.Architecture)
	if answer.Variant != "" {
		has.Variant = strings.ToLower(answer.Variant)
	}
	return len(allowed) == 0 || slices.ContainsFunc(allowed, func(p ocispec.Platform) bool { return fits(p, has) })
}

// fits reports whether an image may be used for a task. has is the platform of the image.
// wanted is a platform that the task allows. An empty part of wanted matches anything, as
// for SwarmKit's scheduler. All else is compared as engines do at a create. An image without a
// variant fits, and so does an older variant. An image of the older architecture (386 for
// amd64, arm for arm64) fits too. An engine with the containerd image store refuses that
// one at the create.
func fits(wanted, has ocispec.Platform) bool {
	if wanted.OS != "" && wanted.OS != has.OS {
		return false
	}
	switch {
	case wanted.Architecture == "",
		wanted.Architecture == "amd64" && has.Architecture == "386",
		wanted.Architecture == "arm64" && has.Architecture == "arm":
		return true
	case wanted.Architecture != has.Architecture:
		return false
	}
	return wanted.Variant == "" || has.Variant <= wanted.Variant // the order of the texts is v5, v6, v7
}
