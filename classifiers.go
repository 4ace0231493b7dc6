package dockerexec

import (
	stderrors "errors"
	"regexp"
	"slices"
	"strings"

	cerrdefs "github.com/containerd/errdefs"
)

// phrase is what one family of engines says in one situation.
type phrase struct {
	engine string // the versions or the engine that say it
	text   string // lower case, without what is in quotes; ^ is the beginning, * is any text, NAME is the name that is asked about
}

// classifier is how one situation is known by an error. All classifiers have one
// rule: see matches.
type classifier struct {
	class func(error) bool // the class that all engines give it; nil: they give several
	says  []phrase

	bare   []error // a fake's errors of these classes say it without a phrase
	object string  // what they are about
}

// Answers that methods of the package look for.
var (
	// An engine went back to an older version after the API version was agreed.
	tooNewClient = classifier{
		class: cerrdefs.IsInvalidArgument,
		says:  []phrase{{"20.10 to 29", "^client version * is too new"}},
	}
	// A create or start of a container with a bind mount of what is not there.
	noSource = classifier{
		class: cerrdefs.IsInvalidArgument,
		says: []phrase{
			{"20.10 to 29", "^invalid mount config for type * bind source path does not exist"},
			{"20.10 to 29", "^bind source path does not exist"},
		},
	}
	// A CPU limit above the host's cores.
	tooManyCPUs = classifier{
		class: cerrdefs.IsInvalidArgument,
		says:  []phrase{{"20.10 to 29", "^range of cpus is from * cpus available"}},
	}
	// A network of a container that is created or started is not there.
	networkVanished = classifier{
		class: cerrdefs.IsNotFound,
		says: []phrase{
			{"20.10 to 29", "^network * not found"},
			{"28 to 29", "^failed to set up container networking: network * not found"},
		},
	}
	// A removal while the engine removes the container already.
	removalInProgress = classifier{
		class: cerrdefs.IsConflict,
		says:  []phrase{{"20.10 to 29", "^removal of container * is already in progress"}},
	}
	// A request for the log of a container that is about to be removed.
	logOfDying = classifier{
		class: cerrdefs.IsConflict,
		says:  []phrase{{"20.10 to 29", "^can not get logs from container which is dead or marked for removal"}},
	}
	// The engine's containerd has gone, or the engine ends itself. Newer engines say so
	// with 503 where they notice, and with 500 elsewhere.
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
	// An answer to Info that was cut short. It is the client's one call whose error has
	// nothing behind it.
	lostInfo = classifier{
		says: []phrase{
			{"the client", "^error reading remote info:* eof"},
			{"the client", "^error reading remote info:* connection reset by peer"},
		},
	}
	// A start of a container whose earlier start the engine has lost.
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

// IsActiveEndpointError reports whether the engine refused to remove a network
// because containers are attached to it. It is false for nil.
func IsActiveEndpointError(err error) bool {
	return activeEndpointAnswer.matches(err)
}

// IsNetworkExistError reports whether the engine refused to create the network
// name because one of that name exists. It is false for nil. An empty name matches
// only an error that says no more than its class.
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

// isLostStart reports whether err, a start's, says that containerd has the
// container's process already.
func isLostStart(err error) bool {
	return lostStart.matches(err)
}

// matches is the one rule of all classifiers: the engine's own words in err hold one
// of the phrases, and err has the class that all engines give it; or err is a bare
// error of one of the classes, which says no more than its class, as fakes return it.
// If a method has wrapped that one, its words name the object.
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

// objects are what the methods of this package make, as their errors name them.
var objects = []string{"container", "image", "network", "volume"}

// of returns the classifier for an object of that name. Without a name no phrase is left.
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

// quoted is text in quotes, which engines put around a command, a path or a name. The
// one in double quotes may hold escaped quotes. An apostrophe within a word is no quote.
var quoted = regexp.MustCompile(`(?s)"(?:[^"\\]|\\.)*(?:"|$)|\B'.*?'\B`)

// userFollows are words of engines of 20.10 to 29 behind which the user's own stand
// without quotes.
var userFollows = regexp.MustCompile(`(?s)(path does not exist: |mount source path |unable to find (?:user|group) |` +
	`failed to mount local volume: |invalid environment variable: |failed to initialize logging driver: ).*`)

// engineWords returns, in lower case, what the engine itself says in err: without what
// stands before its answer, and without what it repeats of the user's (a command, a
// path, an option). There are none in an answer of a runtime, which may hold any words
// of a container's process, and none in the page of a proxy.
func engineWords(err error) string {
	text := strings.ToLower(rawText(err))
	if _, answer, found := strings.Cut(text, clientSays); found {
		text = answer
	}
	text = userFollows.ReplaceAllString(quoted.ReplaceAllString(text, ""), "$1")
	if strings.HasPrefix(text, "<") || strings.Contains(text, "oci runtime") {
		return ""
	}
	return text
}

// in reports whether words hold the phrase, within one line.
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

// isBare reports whether a leaf of err's tree is one of the classes itself, or
// says nothing but the class's own words.
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
