package dockerexec

import (
	stderrors "errors"
	"slices"
	"strings"

	cerrdefs "github.com/containerd/errdefs"
)

// phrase is what one family of engines says in one situation.
type phrase struct {
	engine string   // who says it
	parts  []string // lower case, no quotes; all of them stand in one line, in this order
}

// Answers that methods of the package look for.
var (
	// The 400 of an engine that went back to an older version after the API
	// version was agreed.
	tooNewClient = phrase{"20.10 to 29", []string{"client version", "is too new"}}
	// The 400 to the create or the start of a container with a bind mount of what is
	// not there.
	noSource = phrase{"20.10 to 29", []string{"bind source path does not exist"}}
	// What a runtime says, with any words of a container's own process behind it.
	ofRuntime = phrase{"20.10 to 29", []string{"oci runtime"}}
	// The client's Info is its one call whose error has nothing behind it.
	lostInfo = phrase{"the client", []string{"error reading remote info: "}}
	// The 400 to a CPU limit above the host's cores.
	tooManyCPUs = phrase{"20.10 to 29", []string{"range of cpus is from", "cpus available"}}
	// The 404 to the create or start of a container about a network of its.
	networkVanished = phrase{"20.10 to 29", []string{"network", "not found"}}
	// The 409 to a removal while the engine is at it already.
	removalInProgress = phrase{"20.10 to 29", []string{"removal of container", "is already in progress"}}
	// The 409 to a request for the log of a container that is about to be removed.
	logOfDying = phrase{"20.10 to 29", []string{"can not get logs from container which is dead or marked for removal"}}
)

// classifier is how one situation is known by an error. All classifiers have one
// rule: see matches.
type classifier struct {
	says    []phrase // what engines say; NAME stands for the name that is asked about
	guesses []phrase // what others may say: two parts, with a word or a name between them, or one
	about   int      // the object
	classes []error  // that say it bare
}

var (
	activeEndpointAnswer = classifier{
		about: aNetwork, classes: []error{cerrdefs.ErrPermissionDenied},
		says: []phrase{
			{"20.10 to 29", []string{"has active endpoints"}},
			{"podman", []string{"network is being used"}},
			{"podman", []string{"has associated containers with it"}},
		},
		guesses: []phrase{
			{"others", []string{"network", "in use"}},
			{"others", []string{"network", "is in use"}},
		},
	}
	networkExistAnswer = classifier{
		about: aNetwork, classes: []error{cerrdefs.ErrConflict, cerrdefs.ErrAlreadyExists},
		says: []phrase{
			{"20.10 to 29", []string{"network with name NAME already exists"}},
			{"podman", []string{"network name NAME already used"}},
		},
		guesses: []phrase{
			{"others", []string{"network NAME already exists"}},
		},
	}
	nameConflictAnswer = classifier{
		about: aContainer, classes: []error{cerrdefs.ErrConflict, cerrdefs.ErrAlreadyExists},
		says: []phrase{
			{"before 1.13, and the reference's tests", []string{"conflict. the name"}},
			{"1.13 to 29", []string{"conflict. the container name"}},
			{"podman", []string{"container name", "already in use"}},
			{"podman", []string{"that name is already in use"}},
		},
		guesses: []phrase{
			{"others", []string{"container", "already exists"}},
		},
	}
	unknownContainerAnswer = classifier{
		about: aContainer, classes: []error{cerrdefs.ErrNotFound},
		says: []phrase{
			{"20.10 to 29, podman", []string{"no such container"}},
			{"podman", []string{"no container with", "found"}},
		},
		guesses: []phrase{
			{"others", []string{"container", "not found"}},
			{"others", []string{"container", "does not exist"}},
		},
	}
	stoppedContainerAnswer = classifier{
		about: aContainer, classes: []error{cerrdefs.ErrNotModified},
		says: []phrase{
			{"20.10 to 29, within the engine", []string{"is already stopped"}},
			{"20.10 to 29, to a kill", []string{"container", "is not running"}},
			{"podman, to a kill", []string{"can only kill running containers"}},
		},
	}
	// The 500 of an engine whose containerd has gone, or that ends itself.
	lostContainerd = classifier{
		says: []phrase{
			{"29", []string{"unavailable: error reading from server: "}},
			{"29", []string{"unavailable: connection error: desc = "}},
			{"20.10", []string{"connection error: desc = transport: ", ": unavailable"}},
			{"20.10", []string{"transport is closing: unavailable"}},
			{"29", []string{"grpc: the client connection is closing"}},
			{"29, of a network while the engine stops", []string{": database not open"}},
			{"20.10, of a network while the engine stops", []string{"failed to update store for object type", ": open : no such file or directory"}},
		},
	}
	// The 500 to the start of a container whose earlier start the engine has lost.
	lostStart = classifier{
		says: []phrase{
			{"20.10 to 29", []string{"task ", ": already exists"}},
			{"20.10", []string{"id already in use"}},
			{"20.10 to 29", []string{"mkdir ", "/containerd/", ": file exists"}},
		},
	}
)

// Words for the objects of an engine. An error about one of them is not about
// another, however alike the rest of its words.
const (
	aContainer = 1 << iota
	aNetwork
	another
)

var objectWords = map[string]int{
	"container": aContainer, "containers": aContainer,
	"network": aNetwork, "networks": aNetwork, "networking": aNetwork,
	"image": another, "volume": another, "plugin": another, "manifest": another, "repository": another,
	// What a runtime says of the process in a container, which is there.
	"runc": another, "runtime": another, "shim": another, "process": another, "exec": another,
}

// IsActiveEndpointError reports whether the engine refused to remove a network
// because containers are attached to it. It is false for nil.
func IsActiveEndpointError(err error) bool {
	return activeEndpointAnswer.matches(err, "")
}

// IsNetworkExistError reports whether the engine refused to create the network
// name because one of that name exists. It is false for nil. An empty name matches
// only an error that says no more than its class.
func IsNetworkExistError(err error, name string) bool {
	return networkExistAnswer.matches(err, name)
}

// IsContainerCreateNameConflict reports whether the engine refused to create a
// container because one of that name exists. It is false for nil.
func IsContainerCreateNameConflict(err error) bool {
	return nameConflictAnswer.matches(err, "")
}

// IsUnknownContainer reports whether the engine has no container of the name or
// ID that it was asked about. It is false for nil.
func IsUnknownContainer(err error) bool {
	return unknownContainerAnswer.matches(err, "")
}

// IsStoppedContainer reports whether the engine had nothing to stop or to kill
// because the container does not run. It is false for nil. Engines answer a stop of
// a stopped container with 304, which the client returns as success.
func IsStoppedContainer(err error) bool {
	return stoppedContainerAnswer.matches(err, "")
}

// isLostStart reports whether err, a start's, says that containerd has the
// container's process already.
func isLostStart(err error) bool {
	return lostStart.matches(err, "")
}

// matches is the one rule of all classifiers: err says one of the phrases,
// ignoring case and quotes and whatever its class; or it is a bare error of one
// of the classes, which says no more than its class, as fakes return it. Neither a
// guess nor that holds when the words are about another object.
func (c classifier) matches(err error, name string) bool {
	if err == nil {
		return false
	}
	text, name := normalize(err.Error()), strings.ToLower(name)
	for line := range strings.Lines(text) {
		if slices.ContainsFunc(c.says, func(p phrase) bool { return p.in(line, name) }) {
			return true
		}
		if !aboutOther(line, c.about) && slices.ContainsFunc(c.guesses, func(p phrase) bool { return p.guessedIn(line, name) }) {
			return true
		}
	}
	return !aboutOther(text, c.about) && isBare(err, c.classes)
}

var withoutQuotes = strings.NewReplacer(`"`, "", "'", "", "`", "")

func normalize(text string) string { return withoutQuotes.Replace(strings.ToLower(text)) }

// in reports whether line says the phrase.
func (p phrase) in(line, name string) bool {
	for _, part := range p.parts {
		if strings.Contains(part, "NAME") {
			if name == "" {
				return false
			}
			part = strings.ReplaceAll(part, "NAME", name)
		}
		_, rest, found := strings.Cut(line, part)
		if !found {
			return false
		}
		line = rest
	}
	return true
}

// guessedIn reports whether line says the phrase of somebody whose words are not
// known. What stands between its two parts is one word or name at most: more would
// tell of something else, say a layer of the container that does not exist.
func (p phrase) guessedIn(line, name string) bool {
	if len(p.parts) == 1 {
		return p.in(line, name)
	}
	words := strings.Fields(line)
	for i, word := range words {
		if trimWord(word) != p.parts[0] {
			continue
		}
		for next := i + 1; next <= min(i+2, len(words)); next++ {
			if strings.HasPrefix(strings.Join(words[next:], " "), p.parts[1]) {
				return true
			}
		}
	}
	return false
}

func trimWord(word string) string { return strings.Trim(word, ":,.;()") }

// aboutOther reports whether text names an object and not the wanted one, or
// one that neither classifier is about. Only whole words count: a container may
// be called my-network.
func aboutOther(text string, wanted int) bool {
	named := 0
	for _, word := range strings.Fields(text) {
		named |= objectWords[trimWord(word)]
	}
	return named&^wanted != 0
}

// isBare reports whether a leaf of err's tree is one of the classes itself, or
// says nothing but the class's own words.
func isBare(err error, classes []error) bool {
	switch e := err.(type) { //nolint:errorlint // the tree itself is walked
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
