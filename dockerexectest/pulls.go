package dockerexectest

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/distribution/reference"
	"github.com/docker/docker/api/types/events"
	"github.com/docker/docker/api/types/registry"
	"github.com/docker/go-units"
)

// pullScript is the stream of one pull that a test has set.
type pullScript struct{ messages []string }

// Pull sets the exact stream of the next pull of a reference. Each message is sent as it
// is, with a line end. Calls queue up: each is for one more pull. If no message has an
// error, the pull puts the registry's image on the engine. The test fails if ref is not
// valid.
func (e *Engine) Pull(ref string, messages ...string) {
	named, err := parseRef(ref)
	if err != nil {
		e.helper()
		e.failf("dockerexectest: pull of %q: %v", ref, err)
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.pulls[named.String()] = append(e.pulls[named.String()], pullScript{messages})
}

// pullImage is POST /images/create.
func pullImage(e *Engine, r *request) (answer, error) {
	named, err := pullRef(r.query.Get("fromImage"), r.query.Get("tag"))
	if err != nil {
		return answer{}, e.dialect.badReference(http.StatusBadRequest, err)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	p := &pull{engine: e, request: r, named: named, familiar: reference.FamiliarString(named)}
	p.from, p.content = e.inRegistry(named, r.query.Get("platform"))
	if scripts := e.pulls[named.String()]; len(scripts) > 0 {
		e.pulls[named.String()] = scripts[1:]
		p.script = &scripts[0]
		return answer{stream: p.play, carriesOut: true}, nil
	}
	if refused := p.refusal(r.query.Get("platform")); refused != nil {
		switch {
		case e.dialect == PodmanV4:
			return answer{stream: p.saysError(refused.message)}, nil
		case e.dialect == DockerV20 && p.from != nil && p.content == nil: // Docker 20.10 has begun the stream when it sees that
			return answer{stream: p.saysError(refused.message, p.begins())}, nil
		}
		return answer{}, refused
	}
	return answer{stream: p.run, carriesOut: true}, nil
}

// pullRef joins the name and the tag or digest, which the client sends apart.
func pullRef(name, tag string) (reference.Named, error) {
	named, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return nil, err
	}
	switch {
	case tag == "":
		return reference.TagNameOnly(named), nil
	case strings.Contains(tag, ":"):
		return reference.ParseNormalizedNamed(reference.TrimNamed(named).String() + "@" + tag)
	}
	return reference.WithTag(reference.TrimNamed(named), tag)
}

// inRegistry returns the image that a reference names in the registry, and the image's
// content for a platform (empty: the engine's own). What does not exist is nil. The caller
// holds mu.
func (e *Engine) inRegistry(named reference.Named, platform string) (*registryImage, *content) {
	if platform = fullPlatform(platform); platform == "" {
		platform = "linux/amd64"
	}
	from := e.registry[named.String()]
	if digested, ok := named.(reference.Digested); ok {
		for _, candidate := range e.registry {
			if candidate.named.Name() == named.Name() && candidate.digest == digested.Digest().String() {
				from = candidate
			}
		}
	}
	if from == nil {
		return nil, nil
	}
	for _, c := range from.contents {
		if c.platform == platform {
			return from, c
		}
	}
	if len(from.contents) == 1 && e.dialect != PodmanV4 { // engines do not check the platform of a single manifest
		return from, from.contents[0]
	}
	return from, nil
}

// pull is one request for an image.
type pull struct {
	engine   *Engine
	request  *request
	named    reference.Named
	familiar string
	from     *registryImage // nil: the registry does not know it
	content  *content       // nil: none for this platform
	script   *pullScript
	out      *json.Encoder
}

// refusal returns the error of a pull that downloads nothing, or nil. The caller holds mu.
func (p *pull) refusal(platform string) *apiError {
	d := p.engine.dialect
	host, path := reference.Domain(p.named), reference.Path(p.named)
	manifest := fmt.Sprintf("https://%s/v2/%s/manifests/%s", host, path, p.tag())
	if host == "docker.io" {
		manifest = fmt.Sprintf("https://registry-1.docker.io/v2/%s/manifests/%s", path, p.tag())
	}
	head := func(status string) *apiError {
		return internal("", "unknown: failed to resolve reference %q: unexpected status from HEAD request to %s: %s", p.named, manifest, status)
	}
	podman := func(why string) *apiError { return internal("", "initializing source docker://%s: %s", p.named, why) }
	isKnown := p.from != nil
	if isKnown && p.from.spec.limited > 0 {
		p.from.spec.limited--
		switch {
		case d == DockerV20:
			return internal("", "toomanyrequests: You have reached your pull rate limit.")
		case d == PodmanV4:
			return podman("reading manifest " + p.tag() + " in " + p.named.Name() + ": toomanyrequests: You have reached your pull rate limit.")
		}
		return head("429 Too Many Requests")
	}
	if isKnown && len(p.from.spec.credentials) > 0 {
		user, password, hasAny := p.credentials()
		switch right := p.from.spec.credentials; {
		case !hasAny && d == DockerV20:
			return internal("", "Head %q: no basic auth credentials", manifest)
		case !hasAny && d == PodmanV4:
			return podman("unable to retrieve auth token: invalid username/password: unauthorized: authentication required")
		case !hasAny:
			return internal("", "failed to resolve reference %q: pull access denied, repository does not exist or may require authorization: authorization failed: no basic auth credentials", p.named)
		case user == right[0] && password == right[1]:
		case d == DockerV20:
			return internal("", "unauthorized: authentication required")
		case d == PodmanV4:
			return podman("unable to retrieve auth token: invalid username/password: unauthorized: authentication required")
		default:
			return head("401 Unauthorized")
		}
	}
	if !isKnown {
		isDenied := host == "docker.io" && !p.hasRepository()
		switch {
		case d == PodmanV4:
			return podman("reading manifest " + p.tag() + " in " + p.named.Name() + ": manifest unknown")
		case isDenied && d == DockerV20:
			return notFound("pull access denied for %s, repository does not exist or may require 'docker login': denied: requested access to the resource is denied", reference.FamiliarName(p.named))
		case isDenied:
			return notFound("pull access denied for %s, repository does not exist or may require 'docker login'", reference.FamiliarName(p.named))
		case d == DockerV20:
			return notFound("manifest for %s not found: manifest unknown: manifest unknown", p.familiar)
		default:
			return notFound("failed to resolve reference %q: %s: not found", p.named, p.named)
		}
	}
	if p.content == nil {
		text := "no matching manifest for " + orDefault(platform, "linux/amd64") + " in the manifest list entries"
		switch {
		case d == DockerV20:
			return notFound("%s", text)
		case d == PodmanV4:
			return internal("", "choosing image instance: no image found in image index for architecture %s", platform)
		}
		return notFound("%s: no match for platform in manifest: not found", text)
	}
	return nil
}

func orDefault(text, fallback string) string {
	if text == "" {
		return fallback
	}
	return text
}

// tag returns the reference's tag or digest.
func (p *pull) tag() string {
	switch named := p.named.(type) {
	case reference.Digested:
		return named.Digest().String()
	case reference.Tagged:
		return named.Tag()
	}
	return "latest"
}

func (p *pull) hasRepository() bool {
	for _, known := range p.engine.registry {
		if known.named.Name() == p.named.Name() {
			return true
		}
	}
	return false
}

// credentials returns what the client has sent as its user and password.
func (p *pull) credentials() (user, password string, hasAny bool) {
	text := p.request.header.Get(registry.AuthHeader)
	raw, err := base64.URLEncoding.DecodeString(text)
	if err != nil {
		raw, err = base64.RawURLEncoding.DecodeString(text)
	}
	var auth registry.AuthConfig
	if err != nil || len(raw) == 0 || json.Unmarshal(raw, &auth) != nil {
		return "", "", false
	}
	if auth.Auth != "" && auth.Username == "" {
		if pair, err := base64.StdEncoding.DecodeString(auth.Auth); err == nil {
			auth.Username, auth.Password, _ = strings.Cut(string(pair), ":")
		}
	}
	return auth.Username, auth.Password, auth.Username != "" || auth.Password != ""
}

// pullMessage is one message of the stream. Its fields have the order that an engine with
// graph drivers sends.
type pullMessage struct {
	Status      string       `json:"status,omitempty"`
	Detail      *pullDetail  `json:"progressDetail,omitempty"`
	Progress    string       `json:"progress,omitempty"`
	ID          string       `json:"id,omitempty"`
	ErrorDetail *errorDetail `json:"errorDetail,omitempty"`
	Error       string       `json:"error,omitempty"`
}

type pullDetail struct {
	Current    int64  `json:"current,omitempty"`
	Total      int64  `json:"total,omitempty"`
	HideCounts bool   `json:"hidecounts,omitempty"`
	Units      string `json:"units,omitempty"`
}

type errorDetail struct {
	Message string `json:"message"`
}

func (p *pull) begins() pullMessage {
	id := p.tag()
	if _, isDigest := p.named.(reference.Digested); isDigest {
		id = p.familiar
	}
	return pullMessage{Status: "Pulling from " + reference.Path(p.named), ID: id}
}

// saysError returns a stream that ends in an error.
func (p *pull) saysError(text string, before ...pullMessage) func(io.Writer) error {
	return func(w io.Writer) error {
		encoder := json.NewEncoder(crlf{w})
		for _, m := range append(before, pullMessage{ErrorDetail: &errorDetail{text}, Error: text}) {
			if err := encoder.Encode(m); err != nil {
				return err
			}
		}
		return nil
	}
}

// crlf ends lines as engines do.
type crlf struct{ to io.Writer }

func (c crlf) Write(p []byte) (int, error) {
	if _, err := c.to.Write(append(p[:len(p)-1:len(p)-1], '\r', '\n')); err != nil {
		return 0, err
	}
	return len(p), nil
}

// play sends a test's own stream.
func (p *pull) play(w io.Writer) error {
	fails := false
	for _, message := range p.script.messages {
		if _, err := io.WriteString(w, message+"\r\n"); err != nil {
			return err
		}
		var m pullMessage
		fails = fails || json.Unmarshal([]byte(message), &m) == nil && (m.Error != "" || m.ErrorDetail != nil)
	}
	if !fails && p.content != nil {
		p.settle()
	}
	return nil
}

// settle puts the image on the engine, and reports whether the image is new there.
func (p *pull) settle() bool {
	e := p.engine
	e.mu.Lock()
	defer e.mu.Unlock()
	isNew := e.store(p.from, p.content, p.named)
	e.emit(events.ImageEventType, events.ActionPull, p.familiar, map[string]string{"name": reference.FamiliarName(p.named)})
	return isNew
}

// bar draws a progress bar as engines with graph drivers do.
func bar(current, total int64) string {
	done := min(int(float64(current)/float64(total)*100)/2, 50)
	size := func(n int64) string { return units.HumanSize(float64(n)) }
	return fmt.Sprintf("[%s>%s] %8v/%v", strings.Repeat("=", done), strings.Repeat(" ", 50-done), size(current), size(total))
}

var errLeft = apiErrorf(http.StatusRequestTimeout, "the client has left")
