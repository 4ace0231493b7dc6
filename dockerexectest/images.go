package dockerexectest

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/distribution/reference"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/events"
	"github.com/docker/docker/api/types/image"
)

// content is an image for one platform.
type content struct {
	id          string // of its configuration
	digest      string // of its manifest
	platform    string
	config      container.Config
	program     Program
	probe       Program
	layers      []layer
	executables []string
	created     time.Time
}

type layer struct {
	id   string
	size int64
}

// registryImage is what a reference names in the registry.
type registryImage struct {
	spec     imageSpec
	named    reference.Named
	digest   string // of the index, or of the only manifest
	contents []*content
}

// localImage is an image on the engine.
type localImage struct {
	*content
	id      string
	tags    []string
	digests []string
	pulled  []string // digests by which the image was pulled; Docker 29 lists them as tags
}

// Image puts an image into the registry, so that the engine can pull it. Its containers
// run p. If the registry has ref already, ref names the new image from now on, like a tag
// that is moved. The test fails if ref is not valid.
func (e *Engine) Image(ref string, p Program, opts ...ImageOption) {
	e.mu.Lock()
	_, err := e.publish(ref, p, opts)
	e.mu.Unlock()
	if err != nil {
		e.helper()
		e.failf("dockerexectest: image %q: %v", ref, err)
	}
}

// LocalImage puts an image on the engine. The registry does not have it. See
// [Engine.Image].
func (e *Engine) LocalImage(ref string, p Program, opts ...ImageOption) {
	e.mu.Lock()
	named, err := parseRef(ref)
	if err == nil {
		old := e.registry[named.String()]
		var made *registryImage
		made, err = e.publish(ref, p, opts)
		delete(e.registry, named.String())
		if old != nil {
			e.registry[named.String()] = old
		}
		if err == nil {
			e.store(made, made.contents[0], named)
		}
	}
	e.mu.Unlock()
	if err != nil {
		e.helper()
		e.failf("dockerexectest: image %q: %v", ref, err)
	}
}

// Images returns the references of the images on the engine: their tags, or the digests
// of an image without a tag.
func (e *Engine) Images() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	var refs []string
	for _, i := range e.images {
		if len(i.tags) == 0 {
			refs = append(refs, i.digests...)
		}
		refs = append(refs, i.tags...)
	}
	return refs
}

// publish makes an image and puts it into the registry. The caller holds mu.
func (e *Engine) publish(ref string, p Program, opts []ImageOption) (*registryImage, error) {
	named, err := parseRef(ref)
	if err != nil {
		return nil, err
	}
	made := &registryImage{named: named, spec: imageSpec{platforms: []string{"linux/amd64"}, layers: []int64{1 << 20}, stallAfter: -1}}
	made.spec.config.Cmd = []string{"/program"}
	for _, opt := range opts {
		if opt != nil {
			opt(&made.spec)
		}
	}
	if len(made.spec.platforms) == 0 {
		made.spec.platforms = []string{"linux/amd64"}
	}
	for _, platform := range made.spec.platforms {
		c := &content{id: "sha256:" + e.newID("image"), digest: "sha256:" + e.newID("manifest"), platform: platform,
			config: made.spec.config, program: p, probe: made.spec.probe, executables: made.spec.executables, created: e.now()}
		for _, size := range made.spec.layers {
			c.layers = append(c.layers, layer{id: e.newID("layer")[:12], size: max(size, 1)})
		}
		made.contents = append(made.contents, c)
	}
	made.digest = made.contents[0].digest
	if len(made.contents) > 1 {
		made.digest = "sha256:" + e.newID("index")
	}
	e.registry[named.String()] = made
	return made, nil
}

// parseRef normalises a reference. Without a tag and a digest it gets the tag latest.
func parseRef(ref string) (reference.Named, error) {
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return nil, err
	}
	return reference.TagNameOnly(named), nil
}

// store puts pulled content on the engine. It reports whether the content or its reference
// is new there. The caller holds mu.
func (e *Engine) store(from *registryImage, c *content, named reference.Named) bool {
	id := c.id
	if e.dialect == DockerV29 {
		id = from.digest // in the containerd store
	}
	familiar := reference.FamiliarString(named)
	if _, isDigest := named.(reference.Digested); isDigest {
		familiar = ""
	}
	digest := reference.FamiliarName(named) + "@" + from.digest
	var found *localImage
	isNew := true
	for _, i := range e.images {
		if i.id == id && i.content == c {
			found = i
			isNew = familiar != "" && !slices.Contains(i.tags, familiar) || !slices.Contains(i.digests, digest)
			continue
		}
		i.tags = slices.DeleteFunc(i.tags, func(tag string) bool { return tag == familiar })
	}
	if found == nil {
		found = &localImage{content: c, id: id}
		e.images = append(e.images, found)
	}
	if familiar != "" && !slices.Contains(found.tags, familiar) {
		found.tags = append(found.tags, familiar)
	}
	if !slices.Contains(found.digests, digest) {
		found.digests = append(found.digests, digest)
	}
	if familiar == "" && e.dialect == DockerV29 && !slices.Contains(found.pulled, digest) {
		found.pulled = append(found.pulled, digest)
	}
	return isNew
}

// repoTags are the tags as an answer has them.
func (i *localImage) repoTags() []string { return append(append([]string{}, i.tags...), i.pulled...) }

// is reports whether ref names the image: a reference, an ID, or the beginning of an ID.
func (i *localImage) is(ref string) bool {
	if i.id == "" {
		return false
	}
	if i.id == ref || len(ref) > 3 && strings.HasPrefix(strings.TrimPrefix(i.id, "sha256:"), strings.TrimPrefix(ref, "sha256:")) {
		return true
	}
	named, err := parseRef(ref)
	if err != nil {
		return false
	}
	if digested, ok := named.(reference.Digested); ok {
		return slices.Contains(i.digests, reference.FamiliarName(named)+"@"+digested.Digest().String())
	}
	return slices.Contains(i.tags, reference.FamiliarString(named))
}

// findImage returns the image on the engine that a reference names, or nil. The
// caller holds mu.
func (e *Engine) findImage(ref string) *localImage {
	for _, i := range e.images {
		if i.is(ref) {
			return i
		}
	}
	return nil
}

// fullPlatform completes a platform as engines do. A platform without a slash is an
// architecture of the engine's own system.
func fullPlatform(platform string) string {
	if platform == "" || strings.Contains(platform, "/") {
		return platform
	}
	return "linux/" + platform
}

// imageToRun finds the image of a create on the engine. The caller holds mu.
func (e *Engine) imageToRun(ref, platform string) (*localImage, error) {
	found := e.findImage(ref)
	if found == nil {
		if named, err := parseRef(ref); err == nil {
			ref = reference.FamiliarString(named)
		} else {
			return nil, e.dialect.badReference(http.StatusBadRequest, err)
		}
		return nil, e.dialect.noSuchImage(ref)
	}
	platform = fullPlatform(platform)
	if platform != "" && platform != found.platform && !strings.HasPrefix(platform, found.platform+"/") { // an image without a variant fits
		if e.dialect == DockerV29 {
			return nil, notFound("image with reference %s was found but does not provide the specified platform (%s)", ref, platform)
		}
		return nil, notFound("image with reference %s was found but does not match the specified platform: wanted %s, actual: %s", ref, platform, found.platform)
	}
	return found, nil
}

// fill completes a container's configuration from the image's.
func (i *localImage) fill(c *container.Config) {
	from := &i.config
	if len(c.Entrypoint) == 0 {
		if len(c.Cmd) == 0 {
			c.Cmd = from.Cmd
		}
		c.Entrypoint = from.Entrypoint
	}
	var env []string
	for _, pair := range from.Env {
		name, _, _ := strings.Cut(pair, "=")
		if !slices.ContainsFunc(c.Env, func(own string) bool { return strings.HasPrefix(own, name+"=") || own == name }) {
			env = append(env, pair)
		}
	}
	c.Env = append(slices.Clone(c.Env), env...)
	if len(from.Labels) > 0 {
		all := labels(from.Labels)
		for name, value := range c.Labels {
			all[name] = value
		}
		c.Labels = all
	}
	if len(from.Volumes) > 0 {
		all := map[string]struct{}{}
		for path := range from.Volumes {
			all[path] = struct{}{}
		}
		for path := range c.Volumes {
			all[path] = struct{}{}
		}
		c.Volumes = all
	}
	if len(from.ExposedPorts) > 0 && len(c.ExposedPorts) == 0 {
		c.ExposedPorts = from.ExposedPorts
	}
	if c.StopSignal == "" {
		c.StopSignal = from.StopSignal
	}
	if c.User == "" {
		c.User = from.User
	}
	if c.WorkingDir == "" {
		c.WorkingDir = from.WorkingDir
	}
	switch {
	case c.Healthcheck == nil:
		c.Healthcheck = from.Healthcheck
	case from.Healthcheck != nil:
		own := *c.Healthcheck
		if len(own.Test) == 0 {
			own.Test = from.Healthcheck.Test
		}
		for _, d := range []struct{ own, from *time.Duration }{
			{&own.Interval, &from.Healthcheck.Interval}, {&own.Timeout, &from.Healthcheck.Timeout},
			{&own.StartPeriod, &from.Healthcheck.StartPeriod}, {&own.StartInterval, &from.Healthcheck.StartInterval},
		} {
			if *d.own == 0 {
				*d.own = *d.from
			}
		}
		if own.Retries == 0 {
			own.Retries = from.Healthcheck.Retries
		}
		c.Healthcheck = &own
	}
}

func (i *localImage) size() int64 {
	var size int64
	for _, l := range i.layers {
		size += l.size
	}
	return size
}

// inspectImage is GET /images/{name}/json.
func inspectImage(e *Engine, r *request) (answer, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	i := e.findImage(r.name)
	if i == nil {
		err := e.dialect.noSuchImage(familiarOf(r.name))
		if e.dialect == DockerV20 {
			err.message = "no such image: " + r.name + ": " + err.message
		}
		if named, parseErr := parseRef(r.name); e.dialect == PodmanV4 && parseErr == nil {
			err.message = fmt.Sprintf("failed to find image %s: %s: No such image", r.name, named)
		}
		return answer{}, err
	}
	parts := strings.SplitN(i.platform+"//", "/", 4)
	sum := sha256.Sum256([]byte(i.id))
	return answer{status: http.StatusOK, body: map[string]any{
		"Id": i.id, "RepoTags": i.repoTags(), "RepoDigests": append([]string{}, i.digests...),
		"Created": stamp(i.created), "Config": i.config, "Os": parts[0], "Architecture": parts[1], "Variant": parts[2], "Size": i.size(),
		"RootFS": image.RootFS{Type: "layers", Layers: []string{"sha256:" + hex.EncodeToString(sum[:])}},
	}}, nil
}

// familiarOf returns a reference in the form of an engine's errors.
func familiarOf(ref string) string {
	if named, err := parseRef(ref); err == nil {
		return reference.FamiliarString(named)
	}
	return ref
}

// listImages is GET /images/json.
func listImages(e *Engine, r *request) (answer, error) {
	args, err := e.filtersOf(r, "label reference", "before containers dangling since until")
	if err != nil {
		return answer{}, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	list := []image.Summary{}
	for _, i := range slices.Backward(e.images) {
		named := !args.Contains("reference") || slices.ContainsFunc(args.Get("reference"), i.is) ||
			slices.ContainsFunc(i.tags, func(tag string) bool {
				return slices.Contains(args.Get("reference"), withoutTag(tag))
			})
		if named && (!args.Contains("label") || args.MatchKVList("label", i.config.Labels)) {
			list = append(list, image.Summary{ID: i.id, RepoTags: i.repoTags(), RepoDigests: append([]string{}, i.digests...),
				Created: i.created.Unix(), Size: i.size(), Labels: labels(i.config.Labels), Containers: -1, SharedSize: -1})
		}
	}
	return answer{status: http.StatusOK, body: list}, nil
}

// tagImage is POST /images/{name}/tag.
func tagImage(e *Engine, r *request) (answer, error) {
	named, err := reference.ParseNormalizedNamed(r.query.Get("repo"))
	if err == nil && r.query.Get("tag") != "" {
		named, err = reference.WithTag(reference.TrimNamed(named), r.query.Get("tag"))
	}
	if err != nil {
		return answer{}, e.dialect.badReference(http.StatusInternalServerError, err)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	i := e.findImage(r.name)
	if i == nil {
		return answer{}, e.dialect.noSuchImage(familiarOf(r.name))
	}
	tag := reference.FamiliarString(reference.TagNameOnly(named))
	for _, other := range e.images {
		other.tags = slices.DeleteFunc(other.tags, func(known string) bool { return known == tag })
	}
	i.tags = append(i.tags, tag)
	if digest := reference.FamiliarName(named) + "@" + i.id; e.dialect == DockerV29 && !slices.Contains(i.digests, digest) {
		i.digests = append(i.digests, digest)
	}
	e.emit(events.ImageEventType, events.ActionTag, i.id, map[string]string{"name": tag})
	return answer{status: http.StatusCreated}, nil
}

// removeImage is DELETE /images/{name}.
func removeImage(e *Engine, r *request) (answer, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	i := e.findImage(r.name)
	if i == nil {
		return answer{}, e.dialect.noSuchImage(familiarOf(r.name))
	}
	tag := familiarOf(r.name)
	if err := e.checkImageID(i, r, tag); err != nil {
		return answer{}, err
	}
	user := slices.IndexFunc(e.order, func(c *Container) bool { return c.image == i })
	if user >= 0 && len(i.tags) <= 1 && (!r.flag("force") || e.order[user].running) {
		format := "conflict: unable to delete %s (must be forced) - container %s is using its referenced image %s"
		if e.dialect == DockerV20 {
			format = "conflict: unable to remove repository reference %q (must force) - container %s is using its referenced image %s"
		}
		return answer{}, conflict(format, r.name, e.order[user].id[:12], strings.TrimPrefix(i.id, "sha256:")[:12])
	}
	var gone []image.DeleteResponse
	untag := func(tag string) {
		gone = append(gone, image.DeleteResponse{Untagged: tag})
		i.tags = slices.DeleteFunc(slices.Clone(i.tags), func(other string) bool { return other == tag })
		name := tag
		if e.dialect == DockerV20 {
			name = i.id
		}
		e.emit(events.ImageEventType, events.ActionUnTag, i.id, map[string]string{"name": name})
	}
	if slices.Contains(i.tags, tag) {
		untag(tag)
	} else {
		for _, tag := range slices.Clone(i.tags) {
			untag(tag)
		}
	}
	if len(i.tags) == 0 && (user < 0 || e.dialect == DockerV20) {
		e.images = slices.DeleteFunc(e.images, func(other *localImage) bool { return other == i })
		if e.dialect == DockerV20 {
			for _, digest := range i.digests {
				gone = append(gone, image.DeleteResponse{Untagged: digest})
			}
		}
		gone = append(gone, image.DeleteResponse{Deleted: i.id})
		e.emit(events.ImageEventType, events.ActionDelete, i.id, map[string]string{"name": i.id})
	}
	return answer{status: http.StatusOK, body: gone}, nil
}

// checkImageID refuses to remove an image by its ID if a container uses the image, or if
// the image has several tags. The caller holds mu.
func (e *Engine) checkImageID(i *localImage, r *request, tag string) error {
	if slices.Contains(i.tags, tag) || strings.Contains(r.name, "@") {
		return nil
	}
	refused := func(how, why string) error {
		return conflict("conflict: unable to delete %s (%s be forced) - image is %s", strings.TrimPrefix(i.id, "sha256:")[:12], how, why)
	}
	used := func(by string, isRunning bool) string {
		for _, c := range e.order {
			if c.image == i && c.running == isRunning {
				return "being used by " + by + " container " + c.id[:12]
			}
		}
		return ""
	}
	running, stopped := used("running", true), used("stopped", false)
	switch {
	case running != "":
		return refused("cannot", running)
	case r.flag("force"):
	case len(i.tags) > 1:
		return refused("must", "referenced in multiple repositories")
	case stopped != "":
		return refused("must", stopped)
	}
	return nil
}

// String names the image for a test's output.
func (i *localImage) String() string { return fmt.Sprintf("%s %v", i.id, i.tags) }
