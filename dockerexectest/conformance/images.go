package conformance

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"regexp"
	"slices"
	"strings"

	"github.com/docker/docker/api/types/image"
)

var imageStatements = []Statement{
	{Name: "an image is found by its reference, its ID, and the ID's beginning", On: dockers, check: func(t *T) {
		i := t.image(t.f.Image)
		same(t, "by the ID", i.ID, t.image(i.ID).ID)
		same(t, "by its digits", i.ID, t.image(strings.TrimPrefix(i.ID, "sha256:")).ID)
		same(t, "by its beginning", i.ID, t.image(strings.TrimPrefix(i.ID, "sha256:")[:12]).ID)
	}},
	{Name: "an image tells its references and its configuration", check: func(t *T) {
		i := t.image(t.f.Image)
		same(t, "it has the tag", true, contains(i.RepoTags, t.f.Image))
		same(t, "Entrypoint", []string{"/testtask"}, i.Config.Entrypoint)
		same(t, "Cmd", []string{"print", "3"}, i.Config.Cmd)
		same(t, "Env", []string{"PATH=/", "FROM_IMAGE=yes"}, i.Config.Env)
		same(t, "Os", "linux", i.Os)
		same(t, "RootFS", "layers", i.RootFS.Type)
		same(t, "a layer", 1, len(i.RootFS.Layers))
		same(t, "the size is given", true, i.Size > 0)
		same(t, "the ID is a digest", true, regexp.MustCompile("^sha256:[0-9a-f]{64}$").MatchString(i.ID))
	}},
	{Name: "an unknown image is 404", check: func(t *T) {
		t.do("GET /images/conformance/nosuch:1/json", nil).is(
			v20(404, "no such image: conformance/nosuch:1: No such image: conformance/nosuch:1"),
			v29(404, "No such image: conformance/nosuch:1"), podman(404, "failed to find image conformance/nosuch:1: docker.io/conformance/nosuch:1: No such image"))
	}},
	{Name: "an unknown image without a tag is looked for as latest", On: dockers, check: func(t *T) {
		t.do("GET /images/conformance/nosuch/json", nil).is(
			v20(404, "no such image: conformance/nosuch: No such image: conformance/nosuch:latest"), v29(404, "No such image: conformance/nosuch:latest"))
	}},
	{Name: "a tag is another name of an image", On: dockers, check: func(t *T) {
		t.tag("1").is(all(201, ""))
		i := t.image(t.name("tag") + ":1")
		same(t, "the ID", t.image(t.f.Image).ID, i.ID)
		same(t, "it has both", true, contains(i.RepoTags, t.f.Image) && contains(i.RepoTags, t.name("tag")+":1"))
	}},
	{Name: "a tag of a tag that is there is nothing new", On: dockers, check: func(t *T) {
		t.tag("1").ok(201)
		t.tag("1").ok(201)
		n := 0
		for _, tag := range t.image(t.f.Image).RepoTags {
			if tag == t.name("tag")+":1" {
				n++
			}
		}
		same(t, "how often it is there", 1, n)
	}},
	{Name: "a tag of an unknown image is 404", On: dockers, check: func(t *T) {
		t.do("POST /images/conformance/nosuch:1/tag?repo="+t.name("tag")+"&tag=1", nil).is(all(404, "No such image: conformance/nosuch:1"))
	}},
	{Name: "a tag that is no reference is refused", On: dockers, check: func(t *T) {
		t.do("POST /images/"+t.f.Image+"/tag?repo=UPPER&tag=1", nil).is(
			v20(500, "invalid reference format: repository name must be lowercase"), v29(400, "invalid reference format: repository name (library/UPPER) must be lowercase"))
	}},
	{Name: "a tag in another repository brings a digest there in 29, and none in 20.10", On: dockers, check: func(t *T) {
		t.tag("1").ok(201)
		has := false
		for _, d := range t.image(t.f.Image).RepoDigests {
			has = has || strings.HasPrefix(d, t.name("tag")+"@sha256:")
		}
		same(t, "it has the digest", t.v == DockerV29, has)
	}},
	{Name: "a tag is told by an event", On: dockers, check: func(t *T) {
		t.tag("1").ok(201)
		same(t, "the event", []string{"tag"}, t.imageEvents("tag"))
	}},
	{Name: "a removal of one of two tags removes that alone", On: dockers, check: func(t *T) {
		t.tag("1").ok(201)
		t.do("DELETE /images/"+t.name("tag")+":1", nil).is(all(200, `[{"Untagged":"`+t.name("tag")+`:1"}]`))
		t.do("GET /images/"+t.name("tag")+":1/json", nil).ok(404)
		t.do("GET /images/"+t.f.Image+"/json", nil).ok(200)
	}},
	{Name: "a tag may be removed while a container uses the image", On: dockers, check: func(t *T) {
		t.tag("1").ok(201)
		id := t.create("web", "exit 0", M{"Image": t.name("tag") + ":1"})
		t.do("DELETE /images/"+t.name("tag")+":1", nil).ok(200)
		same(t, "the container's image", t.image(t.f.Image).ID, t.inspect(id).Image)
		same(t, "the list has its ID", true, strings.HasPrefix(t.image(t.f.Image).ID, t.list("all=1")[0].Image))
	}},
	{Name: "a removal by ID of an image that runs is refused, also if it is forced, and of one with two names", On: dockers, Alone: true, check: func(t *T) {
		t.tag("1").ok(201)
		id := t.ready("web", "sleep 1h")
		short := strings.TrimPrefix(t.image(t.f.Image).ID, "sha256:")[:12]
		for _, query := range []string{"", "?force=1"} {
			t.do("DELETE /images/"+short+query, nil).is(all(409, "conflict: unable to delete "+short+" (cannot be forced) - image is being used by running container "+id[:12]))
		}
		t.do("DELETE /containers/"+id+"?force=1", nil).ok(204)
		t.do("DELETE /images/"+short, nil).is(all(409, "conflict: unable to delete "+short+" (must be forced) - image is referenced in multiple repositories"))
		same(t, "it has both tags", true, contains(t.image(t.f.Image).RepoTags, t.name("tag")+":1"))
	}},
	{Name: "a removal of an unknown image is 404", On: dockers, check: func(t *T) {
		t.do("DELETE /images/conformance/nosuch:1", nil).is(all(404, "No such image: conformance/nosuch:1"))
	}},
	{Name: "a list of images is filtered by reference", On: dockers, check: func(t *T) {
		t.tag("1").ok(201)
		for _, reference := range []string{t.name("tag") + ":1", t.name("tag")} {
			var list []image.Summary
			t.do("GET /images/json?"+filters("reference", reference), nil).ok(200, &list)
			same(t, "how many", 1, len(list))
			same(t, "the ID", t.image(t.f.Image).ID, list[0].ID)
			same(t, "it has the tag", true, contains(list[0].RepoTags, t.name("tag")+":1"))
		}
	}},
	{Name: "a filter of images that is none is refused", On: dockers, check: func(t *T) {
		t.do("GET /images/json?"+filters("nosuch", "1"), nil).is(v20(400, "Invalid filter 'nosuch'"), v29(400, "invalid filter 'nosuch'"))
	}},
	{Name: "a list of images that finds nothing is an empty list", On: dockers, check: func(t *T) {
		t.do("GET /images/json?"+filters("reference", "nosuch"), nil).is(all(200, "[]"))
	}},
}

var pullStatements = []Statement{
	{Name: "a pull of what is there says that it is up to date", On: dockers, needsRegistry: true, check: func(t *T) {
		list := t.pulled(t.f.Registry.Private, t.f.Registry.auth())
		digest := t.digest(t.f.Registry.Private)
		same(t, "the messages", []string{tagOf(t.f.Registry.Private) + ": Pulling from " + pathOf(t.f.Registry.Private),
			"Digest: " + digest, "Status: Image is up to date for " + t.f.Registry.Private}, list)
	}},
	{Name: "a pull without credentials is refused", On: dockers, needsRegistry: true, check: func(t *T) {
		t.pull(t.f.Registry.Private, "").is(
			v20(500, `Head "http://`+manifestOf(t.f.Registry.Private)+`": no basic auth credentials`),
			v29(500, `failed to resolve reference "`+t.f.Registry.Private+`": pull access denied, repository does not exist or may require authorization: authorization failed: no basic auth credentials`))
	}},
	{Name: "a pull with wrong credentials is refused", On: dockers, needsRegistry: true, check: func(t *T) {
		t.pull(t.f.Registry.Private, auth(t.f.Registry.Username, "wrong")).is(
			v20(500, "unauthorized: authentication required"),
			v29(500, `unknown: failed to resolve reference "`+t.f.Registry.Private+`": unexpected status from HEAD request to http://`+manifestOf(t.f.Registry.Private)+`: 401 Unauthorized`))
	}},
	{Name: "a pull of a tag that is not there is 404", On: dockers, needsRegistry: true, check: func(t *T) {
		ref := strings.TrimSuffix(t.f.Registry.Private, tagOf(t.f.Registry.Private)) + "nosuch"
		t.pull(ref, t.f.Registry.auth()).is(v20(404, "manifest for "+ref+" not found: manifest unknown: manifest unknown"),
			v29(404, `failed to resolve reference "`+ref+`": `+ref+`: not found`))
	}},
	{Name: "a pull of what is no reference is refused", On: dockers, check: func(t *T) {
		t.do("POST /images/create?fromImage=UPPER&tag=1", nil).is(
			v20(400, "invalid reference format: repository name must be lowercase"), v29(400, "invalid reference format: repository name (library/UPPER) must be lowercase"))
	}},
	{Name: "credentials that are no base64 are none", On: dockers, needsRegistry: true, check: func(t *T) {
		same(t, "the status", 500, t.pull(t.f.Registry.Private, "%%%").status)
	}},
	{Name: "an image of one manifest is pulled whatever the platform that is asked for", On: dockers, Alone: true, needsRegistry: true, check: func(t *T) {
		ref := t.fresh()
		own := t.image(t.f.Image).Architecture
		t.do("POST /images/create?fromImage="+quote(repositoryOf(ref))+"&tag="+tagOf(ref)+"&platform=linux/s390x", nil, "X-Registry-Auth", t.f.Registry.auth()).ok(200)
		same(t, "Architecture", own, t.image(ref).Architecture)
	}},
	{Name: "a pull by digest finds what the tag names", On: dockers, needsRegistry: true, check: func(t *T) {
		digest := t.digest(t.f.Registry.Private)
		list := t.pulled(repositoryOf(t.f.Registry.Private)+"@"+digest, t.f.Registry.auth())
		same(t, "the messages", []string{repositoryOf(t.f.Registry.Private) + "@" + digest + ": Pulling from " + pathOf(t.f.Registry.Private),
			"Digest: " + digest, "Status: Image is up to date for " + repositoryOf(t.f.Registry.Private) + "@" + digest}, list)
	}},
	{Name: "a pull is told by an event", On: dockers, needsRegistry: true, check: func(t *T) {
		t.pulled(t.f.Registry.Private, t.f.Registry.auth())
		t.until("the event", func() bool {
			for _, m := range t.events(filters("type", "image", "event", "pull")) {
				if m.Actor.ID == t.f.Registry.Private && m.Actor.Attributes["name"] == repositoryOf(t.f.Registry.Private) {
					return true
				}
			}
			return false
		})
	}},
	{Name: "a pull of what is not there tells of its layer, and has the image", On: dockers, Alone: true, needsRegistry: true, check: func(t *T) {
		ref := t.fresh()
		list := slices.Compact(t.pulled(ref, t.f.Registry.auth()))
		digest := t.digest(ref)
		layer, _, _ := strings.Cut(list[1], ":")
		for _, want := range []string{tagOf(ref) + ": Pulling from " + pathOf(ref), layer + ": Pulling fs layer", layer + ": Download complete",
			layer + ": Pull complete", "Digest: " + digest, "Status: Downloaded newer image for " + ref} {
			at := slices.Index(list, want)
			if at < 0 {
				t.Fatalf("%q does not come in this order: %q", want, list)
			}
			list = list[at:]
		}
		same(t, "it has the tag", []string{ref}, t.image(ref).RepoTags)
		same(t, "it has the digest", []string{repositoryOf(ref) + "@" + digest}, t.image(ref).RepoDigests)
	}},
	{Name: "an image is not removed while a container uses it", On: dockers, Alone: true, needsRegistry: true, check: func(t *T) {
		ref := t.fresh()
		t.pulled(ref, t.f.Registry.auth())
		id := t.create("web", "exit 0", M{"Image": ref})
		short := strings.TrimPrefix(t.image(ref).ID, "sha256:")[:12]
		t.do("DELETE /images/"+ref, nil).is(
			v20(409, `conflict: unable to remove repository reference "`+ref+`" (must force) - container `+id[:12]+" is using its referenced image "+short),
			v29(409, "conflict: unable to delete "+ref+" (must be forced) - container "+id[:12]+" is using its referenced image "+short))
		t.do("GET /images/"+ref+"/json", nil).ok(200)
		t.do("DELETE /images/"+ref+"?force=1", nil).ok(200)
		t.do("GET /images/"+ref+"/json", nil).ok(404)
		same(t, "the container is there", "created", t.inspect(id).State.Status)
	}},
	{Name: "a removal by ID of an image that a container has is refused unless it is forced", On: dockers, Alone: true, needsRegistry: true, check: func(t *T) {
		ref := t.fresh()
		t.pulled(ref, t.f.Registry.auth())
		id := t.create("web", "exit 0", M{"Image": ref})
		short := strings.TrimPrefix(t.image(ref).ID, "sha256:")[:12]
		t.do("DELETE /images/"+short, nil).is(all(409, "conflict: unable to delete "+short+" (must be forced) - image is being used by stopped container "+id[:12]))
		t.do("DELETE /images/"+short+"?force=1", nil).ok(200)
		t.do("GET /images/"+ref+"/json", nil).ok(404)
	}},
	{Name: "an image that was pulled by its digest has no tag in 20.10, and the digest for one in 29", On: dockers, Alone: true, needsRegistry: true, check: func(t *T) {
		ref := t.fresh()
		t.pulled(ref, t.f.Registry.auth())
		byDigest := repositoryOf(ref) + "@" + t.digest(ref)
		t.do("DELETE /images/"+ref, nil).ok(200)
		t.toRemove = append(t.toRemove, "/images/"+byDigest+"?force=1")
		t.pulled(byDigest, t.f.Registry.auth())
		i := t.image(byDigest)
		same(t, "RepoTags", by(t, []string{byDigest}, []string{}, nil), i.RepoTags)
		same(t, "RepoDigests", []string{byDigest}, i.RepoDigests)
		t.do("GET /images/"+ref+"/json", nil).ok(404)
		t.pulled(ref, t.f.Registry.auth())
		same(t, "RepoTags of both", by(t, []string{ref, byDigest}, []string{ref}, nil), t.image(ref).RepoTags)
		t.do("DELETE /images/"+ref, nil).ok(200)
		t.do("GET /images/"+byDigest+"/json", nil).ok(404)
	}},
	{Name: "a tag moves to the image that gets it last", On: dockers, Alone: true, needsRegistry: true, check: func(t *T) {
		ref := t.fresh()
		t.pulled(ref, t.f.Registry.auth())
		t.do("POST /images/"+ref+"/tag?repo="+t.name("tag")+"&tag=1", nil).ok(201)
		same(t, "the ID", t.image(ref).ID, t.image(t.name("tag")+":1").ID)
		t.tag("1").ok(201)
		same(t, "the ID then", t.image(t.f.Image).ID, t.image(t.name("tag")+":1").ID)
		same(t, "the tags of the first", []string{ref}, t.image(ref).RepoTags)
	}},
	{Name: "a removal of the last tag removes the image", On: dockers, Alone: true, needsRegistry: true, check: func(t *T) {
		ref := t.fresh()
		t.pulled(ref, t.f.Registry.auth())
		i := t.image(ref)
		var gone []image.DeleteResponse
		t.do("DELETE /images/"+ref, nil).ok(200, &gone)
		same(t, "the first", image.DeleteResponse{Untagged: ref}, gone[0])
		same(t, "it is deleted", true, slices.Contains(gone, image.DeleteResponse{Deleted: i.ID}))
		t.do("GET /images/"+i.ID+"/json", nil).ok(404)
		list := t.told(i.ID, "delete")
		same(t, "the events", []string{"untag", "delete"}, actionsOf(list))
		same(t, "the name of the tag's", by(t, ref, i.ID, ""), list[0].Actor.Attributes["name"])
		same(t, "the name of the image's", i.ID, list[1].Actor.Attributes["name"])
		if t.v == DockerV20 {
			same(t, "the digest", true, slices.Contains(gone, image.DeleteResponse{Untagged: i.RepoDigests[0]}))
		}
	}},
}

// tag gives the image a name of the check's own.
func (t *T) tag(tag string) answer {
	t.Helper()
	return t.do("POST /images/"+t.f.Image+"/tag?repo="+t.name("tag")+"&tag="+tag, nil)
}

// imageEvents are the events of images that name the check's own things, up to one.
func (t *T) imageEvents(last string) (actions []string) {
	t.Helper()
	t.until("the event "+last, func() bool {
		actions = nil
		for _, m := range t.events(filters("type", "image")) {
			if strings.HasPrefix(m.Actor.Attributes["name"], t.prefix) {
				actions = append(actions, string(m.Action))
			}
		}
		return contains(actions, last)
	})
	return actions
}

func auth(username, password string) string {
	text, _ := json.Marshal(M{"username": username, "password": password})
	return base64.URLEncoding.EncodeToString(text)
}

func (r *Registry) auth() string { return auth(r.Username, r.Password) }

// Parts of a reference with a registry and a tag.
func tagOf(ref string) string        { return ref[strings.LastIndex(ref, ":")+1:] }
func repositoryOf(ref string) string { return ref[:strings.LastIndex(ref, ":")] }
func pathOf(ref string) string       { _, path, _ := strings.Cut(repositoryOf(ref), "/"); return path }

// manifestOf is a manifest's URL without its scheme.
func manifestOf(ref string) string {
	registry, _, _ := strings.Cut(ref, "/")
	return registry + "/v2/" + pathOf(ref) + "/manifests/" + tagOf(ref)
}

// digest is that of an image on the engine in its repository.
func (t *T) digest(ref string) string {
	t.Helper()
	for _, d := range t.image(ref).RepoDigests {
		if digest, ok := strings.CutPrefix(d, repositoryOf(ref)+"@"); ok {
			return digest
		}
	}
	t.Fatalf("%s has no digest: %v", ref, t.image(ref).RepoDigests)
	return ""
}

// pull asks for an image. In the answer, a registry's scheme is http.
func (t *T) pull(ref, auth string) answer {
	t.Helper()
	query := "fromImage=" + quote(repositoryOf(ref)) + "&tag=" + quote(tagOf(ref))
	if name, digest, ok := strings.Cut(ref, "@"); ok {
		query = "fromImage=" + quote(name) + "&tag=" + quote(digest)
	}
	a := t.do("POST /images/create?"+query, nil, "X-Registry-Auth", auth)
	a.body = bytes.ReplaceAll(a.body, []byte("https://"), []byte("http://"))
	return a
}

// pulled are the messages of a pull that succeeds, as "ID: status".
func (t *T) pulled(ref, auth string) (list []string) {
	t.Helper()
	a := t.pull(ref, auth).ok(200)
	for _, line := range strings.Split(strings.TrimSpace(string(a.body)), "\r\n") {
		var m struct{ ID, Status, Error string }
		t.must(json.Unmarshal([]byte(line), &m))
		if m.Error != "" {
			t.Fatalf("%s: %s", a.request, m.Error)
		}
		if m.ID != "" {
			m.ID += ": "
		}
		list = append(list, m.ID+m.Status)
	}
	return list
}

// fresh is the reference of an image that is not on the engine, neither at the
// end.
func (t *T) fresh() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.toRemove = append(t.toRemove, "/images/"+t.f.Registry.Fresh+"?force=1")
	return t.f.Registry.Fresh
}
