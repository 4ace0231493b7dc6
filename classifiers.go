package dockerexec

import (
	stderrors "errors"
	"regexp"
	"slices"
	"strings"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/docker/docker/api/types"
	"github.com/docker/docker/api/types/events"
)

// phrase is what one family of engines says in one situation.
type phrase struct {
	engine string // the engine, or its versions
	text   string // in lower case, without quoted text; ^ is the beginning, * is any text, NAME is the object's name
}

// classifier recognises one situation by its error. All classifiers follow one rule:
// see matches.
type classifier struct {
	class func(error) bool // the class that every engine gives the error; nil: engines differ
	says  []phrase

	bare   []error // a bare error of one of these classes needs no phrase; fakes return them
	object string  // the kind of object that the error is about, one of objects
}

// Answers that methods of the package look for.
var (
	// After the API version was agreed, the engine was replaced by an older version.
	tooNewClient = classifier{
		class: cerrdefs.IsInvalidArgument,
		says:  []phrase{{"20.10 to 29", "^client version * is too new"}},
	}
	// An engine was upgraded after the API version was agreed.
	tooOldClient = classifier{
		class: cerrdefs.IsInvalidArgument,
		says:  []phrase{{"25 to 29", "^client version * is too old"}},
	}
	// A create or start of a container. The source of a bind mount does not exist.
	noSource = classifier{
		class: cerrdefs.IsInvalidArgument,
		says: []phrase{
			{"20.10 to 29", "^invalid mount config for type * bind source path does not exist"},
			{"20.10 to 29", "^bind source path does not exist"},
		},
	}
	// A create whose image is not on the engine, or no longer for the task's platform, or
	// not with all its parts.
	imageMissing = classifier{
		class: cerrdefs.IsNotFound,
		says: []phrase{
			{"20.10 to 29", "^no such image"},
			{"20.10 to 29", "^image with reference * was found but does not * the specified platform"},
			{"29", "content digest * not found"},
		},
	}
	// A CPU limit above the host's cores.
	tooManyCPUs = classifier{
		class: cerrdefs.IsInvalidArgument,
		says:  []phrase{{"20.10 to 29", "^range of cpus is from * cpus available"}},
	}
	// A create or start of a container. One of its networks does not exist.
	networkVanished = classifier{
		class: cerrdefs.IsNotFound,
		says: []phrase{
			{"20.10 to 29", "^network * not found"},
			{"28 to 29", "^failed to set up container networking: network * not found"},
		},
	}
	// The same, in Podman's words.
	networkVanishedElsewhere = classifier{
		class: cerrdefs.IsInternal,
		says: []phrase{
			{"podman, to a start", "^unable to find network with name or id *: network not found"},
			{"podman, to a create", "^container create: unable to find network with name or id *: network not found"},
		},
	}
	// A removal of a container that has ended a moment before. Podman wants to kill it then.
	removalTooEarly = classifier{
		class: cerrdefs.IsInternal,
		says:  []phrase{{"podman", "^cannot remove container * as it could not be stopped: *container state improper"}},
	}
	// A removal of a container that the engine is already removing.
	removalInProgress = classifier{
		class: cerrdefs.IsConflict,
		says:  []phrase{{"20.10 to 29", "^removal of container * is already in progress"}},
	}
	// A request for the log of a container that is about to be removed.
	logOfDying = classifier{
		class: cerrdefs.IsConflict,
		says:  []phrase{{"20.10 to 29", "^can not get logs from container which is dead or marked for removal"}},
	}
	// The engine's file of a log is damaged. The error comes in the log itself.
	logDamaged = classifier{
		says: []phrase{
			{"20.10", "error grabbing logs: unexpected eof"},
			{"20.10", "error grabbing logs: invalid character"},
			{"20.10", "error grabbing logs: json: cannot unmarshal"},
		},
	}
	// The engine lost its containerd, or the engine is stopping. Newer engines answer
	// some calls with 503 then. The phrases are for answers with 500, of any engine.
	lostContainerd = classifier{
		class: cerrdefs.IsInternal,
		says: []phrase{
			{"29", "unavailable: error reading from server: "},
			{"29", "unavailable: connection error: desc = "},
			{"20.10", "connection error: desc = *: unavailable"},
			{"20.10", "transport is closing: unavailable"},
			{"29", "grpc: the client connection is closing"},
			{"29, of a network while the engine stops", ": database not open"},
			{"20.10, of a network while the engine stops", "failed to update store for object type *: open : no such file or directory"},
		},
	}
	// An answer to Info that was cut short. Only the text tells, because the client wraps
	// no error here. In all other calls the client wraps one.
	lostInfo = classifier{
		says: []phrase{
			{"the client", "^error reading remote info:* eof"},
			{"the client", "^error reading remote info:* connection reset by peer"},
		},
	}
	// A start of a container. The engine has lost an earlier start of it.
	lostStart = classifier{
		class: cerrdefs.IsInternal,
		says: []phrase{
			{"20.10 to 29", "task *: already exists"},
			{"20.10", "id already in use"},
			{"20.10 to 29", "mkdir */io.containerd.runtime.*: file exists"},
		},
	}
)

var (
	activeEndpointAnswer = classifier{
		object: "network", bare: []error{cerrdefs.ErrPermissionDenied},
		says: []phrase{
			{"20.10 to 29", "has active endpoints"},
			{"podman", "network is being used"},
			{"podman", "has associated containers with it"},
		},
	}
	networkExistAnswer = classifier{
		object: "network", bare: []error{cerrdefs.ErrConflict, cerrdefs.ErrAlreadyExists},
		says: []phrase{
			{"20.10 to 29", "network with name NAME already exists"},
			{"podman", "network name NAME already used"},
		},
	}
	nameConflictAnswer = classifier{
		object: "container", bare: []error{cerrdefs.ErrConflict, cerrdefs.ErrAlreadyExists},
		says: []phrase{
			{"before 1.13, and the reference's tests", "conflict. the name"},
			{"1.13 to 29", "conflict. the container name"},
			{"podman", "container name*already in use"},
			{"podman", "that name is already in use"},
		},
	}
	unknownContainerAnswer = classifier{
		object: "container", bare: []error{cerrdefs.ErrNotFound},
		says: []phrase{
			{"20.10 to 29, podman", "no such container"},
			{"podman", "no container with*found"},
		},
	}
	stoppedContainerAnswer = classifier{
		object: "container", bare: []error{cerrdefs.ErrNotModified},
		says: []phrase{
			{"20.10 to 29, within the engine", "is already stopped"},
			{"20.10 to 29, to a kill", "container*is not running"},
			{"podman, to a kill", "can only kill running containers"},
		},
	}
)

// actionDied is what Podman calls the end of a container in a filter. Podman 4.3 sends "die"
// for it, and knows no "die" in a filter. Newer versions know both.
const actionDied events.Action = "died"

// maker is whose engine answers, as far as its ping tells.
type maker int32

const (
	madeByUnknown maker = iota // a fake, or a proxy that forbids the ping or drops its headers
	madeByDocker
	madeByPodman
)

// makerOf reads the answer to a ping. Every answer of Docker names the operating system; no
// ping of Podman does, and it always says that the engine is experimental. The version of the
// builder does not tell them apart: engine 20.10 names none.
func makerOf(ping types.Ping) maker {
	switch {
	case ping.OSType != "":
		return madeByDocker
	case ping.Experimental:
		return madeByPodman
	}
	return madeByUnknown
}

// dockerAction returns what Docker calls an action of a container.
func dockerAction(action events.Action) events.Action {
	switch {
	case action == actionDied:
		return events.ActionDie
	case action == events.ActionRemove:
		return events.ActionDestroy
	}
	return action
}

// IsActiveEndpointError reports whether the engine refused to remove a network
// because containers are attached to it. It is false for nil.
func IsActiveEndpointError(err error) bool {
	return activeEndpointAnswer.matches(err)
}

// IsNetworkExistError reports whether the engine refused to create a network called
// name because a network of that name exists. It is false for nil. With an empty name, it
// matches only a bare ErrConflict or ErrAlreadyExists of github.com/containerd/errdefs.
func IsNetworkExistError(err error, name string) bool {
	return networkExistAnswer.of(name).matches(err)
}

// IsContainerCreateNameConflict reports whether the engine refused to create a
// container because one of that name exists. It is false for nil.
func IsContainerCreateNameConflict(err error) bool {
	return nameConflictAnswer.matches(err)
}

// IsUnknownContainer reports whether the engine has no container of the name or
// ID that it was asked about. It is false for nil.
func IsUnknownContainer(err error) bool {
	return unknownContainerAnswer.matches(err)
}

// IsStoppedContainer reports whether the engine had nothing to stop or to kill
// because the container does not run. It is false for nil. Engines answer a stop of
// a stopped container with 304, which the client returns as success.
func IsStoppedContainer(err error) bool {
	return stoppedContainerAnswer.matches(err)
}

// isLostStart reports whether the error of a start says that containerd already has a
// process of the container.
func isLostStart(err error) bool {
	return lostStart.matches(err)
}

// isNetworkVanished reports whether the error of a create or start says that a network of
// the container does not exist.
func isNetworkVanished(err error) bool {
	return networkVanished.matches(err) || networkVanishedElsewhere.matches(err)
}

// matches is the one rule of all classifiers. If c has a class, err must have that class.
// In addition, one of these must be true:
//
//   - The engine's own words in err contain one of the phrases.
//   - err is a bare error of one of the classes in bare, see isBare. A method may have
//     wrapped it. Then the method's words must not name another kind of object.
func (c classifier) matches(err error) bool {
	if err == nil || c.class != nil && !c.class(err) {
		return false
	}
	words := engineWords(err)
	if slices.ContainsFunc(c.says, func(p phrase) bool { return p.in(words) }) {
		return true
	}
	isOther := func(word string) bool { return word != c.object && slices.Contains(objects, word) }
	return isBare(err, c.bare) && !slices.ContainsFunc(strings.Fields(words), isOther)
}

// objects are the words for kinds of objects in the errors of this package's methods.
var objects = []string{"container", "image", "network", "volume"}

// of returns the classifier for an object of that name. If name is empty, the result has
// no phrases.
func (c classifier) of(name string) classifier {
	var says []phrase
	for _, p := range c.says {
		if name != "" {
			says = append(says, phrase{p.engine, strings.ReplaceAll(p.text, "NAME", strings.ToLower(name))})
		}
	}
	c.says = says
	return c
}

// clientSays is what the client puts before an engine's answer.
const clientSays = "error response from daemon: "

// quoted matches text in quotes. Engines quote a command, a path or a name. Text in
// double quotes may hold escaped quotes. An apostrophe within a word is no quote.
var quoted = regexp.MustCompile(`(?s)"(?:[^"\\]|\\.)*(?:"|$)|\B'.*?'\B`)

// userFollows are phrases of engines (20.10 to 29) after which they repeat a user's text, without
// quotes, to the end.
var userFollows = []string{
	"path does not exist: ", "mount source path ", "unable to find user ", "unable to find group ",
	"failed to mount local volume: ", "invalid environment variable: ", "failed to initialize logging driver: ",
}

// engineWords returns the engine's own words in err, in lower case. It leaves out the
// text before the engine's answer. It also leaves out a user's text that the engine
// repeats: a command, a path, an option. It returns nothing for the page of a proxy, and
// nothing for an error of the runtime, which may repeat any words of a process.
func engineWords(err error) string {
	text := strings.ToLower(rawText(err))
	if _, answer, found := strings.Cut(text, clientSays); found {
		text = answer
	}
	if strings.ContainsAny(text, `"'`) { // the regular expression is slow
		text = quoted.ReplaceAllString(text, "")
	}
	end := len(text)
	for _, phrase := range userFollows {
		if at := strings.Index(text, phrase); at >= 0 {
			end = min(end, at+len(phrase))
		}
	}
	text = text[:end]
	if strings.HasPrefix(text, "<") || strings.Contains(text, "oci runtime") {
		return ""
	}
	return text
}

// in reports whether words contain the phrase. A phrase without ^ must stand in one line.
func (p phrase) in(words string) bool {
	text, first := strings.CutPrefix(p.text, "^")
	parts := strings.Split(text, "*")
	if first {
		return strings.HasPrefix(words, parts[0]) && inOrder(words, parts)
	}
	for line := range strings.Lines(words) {
		if inOrder(line, parts) {
			return true
		}
	}
	return false
}

func inOrder(line string, parts []string) bool {
	for _, part := range parts {
		var found bool
		if _, line, found = strings.Cut(line, part); !found {
			return false
		}
	}
	return true
}

// isBare reports whether err, or an error that it wraps, has one of the classes and no
// other text than that of the class.
func isBare(err error, classes []error) bool {
	switch e := err.(type) { //nolint:errorlint // the tree itself is walked
	case *scrubbedError:
		return isBare(e.raw(), classes)
	case interface{ Unwrap() []error }:
		for _, child := range e.Unwrap() {
			if isBare(child, classes) {
				return true
			}
		}
		return false
	case interface{ Unwrap() error }:
		if child := e.Unwrap(); child != nil && isBare(child, classes) {
			return true
		}
	}
	for _, class := range classes {
		if stderrors.Is(err, class) && strings.EqualFold(err.Error(), class.Error()) {
			return true
		}
	}
	return false
}
