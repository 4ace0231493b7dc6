package dockerexectest

import (
	"fmt"
	"net/http"
	"strings"

	"github.com/distribution/reference"
	"github.com/docker/docker/api"
	"github.com/docker/docker/api/types/events"
)

// Dialect says which engine's words, status codes and event names are used.
type Dialect int

const (
	// DockerV29 is Docker 29 with the containerd image store.
	DockerV29 Dialect = iota
	// DockerV20 is Docker 20.10 with a graph driver.
	DockerV20
	// PodmanV4 is Podman 4.3 behind its Docker-compatible API.
	PodmanV4
)

func (d Dialect) String() string {
	switch d {
	case DockerV20:
		return "Docker 20.10"
	case PodmanV4:
		return "Podman 4"
	default:
		return "Docker 29"
	}
}

// apiVersions are the newest and the oldest API version that are served.
func (d Dialect) apiVersions() (newest, oldest string) {
	switch d {
	case DockerV20:
		return "1.41", "1.12"
	case PodmanV4:
		return "1.41", "1.24"
	default:
		return api.DefaultVersion, "1.40"
	}
}

func (d Dialect) release() string {
	switch d {
	case DockerV20:
		return "20.10.24"
	case PodmanV4:
		return "4.3.1"
	default:
		return "29.0.0"
	}
}

func (d Dialect) server() string {
	if d == PodmanV4 {
		return "Libpod/4.3.1 (linux)"
	}
	return "Docker/" + d.release() + " (linux)"
}

// apiError is an error that the engine answers with.
type apiError struct {
	status  int
	message string
	cause   string // Podman sends this beside the message; empty: the same as message
}

func (e *apiError) Error() string { return e.message }

func apiErrorf(status int, format string, args ...any) *apiError {
	return &apiError{status: status, message: fmt.Sprintf(format, args...)}
}

func badRequest(format string, args ...any) *apiError {
	return apiErrorf(http.StatusBadRequest, format, args...)
}

func conflict(format string, args ...any) *apiError {
	return apiErrorf(http.StatusConflict, format, args...)
}

func notFound(format string, args ...any) *apiError {
	return apiErrorf(http.StatusNotFound, format, args...)
}

func forbidden(format string, args ...any) *apiError {
	return apiErrorf(http.StatusForbidden, format, args...)
}

// internal returns an error with the status 500.
func internal(cause, format string, args ...any) *apiError {
	e := apiErrorf(http.StatusInternalServerError, format, args...)
	e.cause = cause
	return e
}

var notModified = &apiError{status: http.StatusNotModified}

// errorBody returns the body of an answer with an error.
func (d Dialect) errorBody(e *apiError) any {
	if d != PodmanV4 {
		return map[string]any{"message": e.message}
	}
	cause := e.cause
	if cause == "" {
		cause = e.message
	}
	return map[string]any{"cause": cause, "message": e.message, "response": e.status}
}

// unsupported is the error for a path that the engine does not know.
func (d Dialect) unsupported(r *request) *apiError {
	return notFound("Path /v%s%s is not supported", r.version, r.path)
}

func (d Dialect) noSuchContainer(name string) *apiError {
	if d == PodmanV4 {
		e := notFound("no container with name or ID %q found: no such container", name)
		e.cause = "no such container"
		return e
	}
	return notFound("No such container: %s", name)
}

func (d Dialect) nameTaken(name, holder string) *apiError {
	if d == PodmanV4 {
		return internal("that name is already in use", "container create: creating container storage: the container name %q is already in use by %s. You have to remove that container to be able to reuse that name: that name is already in use", name, holder)
	}
	return conflict("Conflict. The container name %q is already in use by container %q. You have to remove (or rename) that container to be able to reuse that name.", "/"+name, holder)
}

// killFailed is the error of a kill that was refused. why is the reason.
func (d Dialect) killFailed(name string, why *apiError) *apiError {
	switch d {
	case DockerV20:
		return apiErrorf(why.status, "Cannot kill container: %s: %s", name, why.message)
	case PodmanV4:
		return why
	default:
		return apiErrorf(why.status, "cannot kill container: %s: %s", name, why.message)
	}
}

func (d Dialect) notRunning(c *Container) *apiError {
	switch d {
	case DockerV20:
		return conflict("Container %s is not running", c.id)
	case PodmanV4:
		return internal("container state improper", "can only kill running containers. %s is in state %s: container state improper", c.id, c.status())
	default:
		return conflict("container %s is not running", c.id)
	}
}

func (d Dialect) removeRunning(name string, c *Container) *apiError {
	switch d {
	case DockerV20:
		if c.paused {
			return conflict("You cannot remove a paused container %s. Unpause and then stop the container before attempting removal or force remove", c.id)
		}
		return conflict("You cannot remove a %s container %s. Stop the container before attempting removal or force remove", c.status(), c.id)
	case PodmanV4:
		return internal("container state improper", "cannot remove container %s as it is %s - running or paused containers cannot be removed without force: container state improper", c.id, c.status())
	default:
		if c.paused {
			return conflict("cannot remove container %q: container is paused and must be unpaused first", name)
		}
		return conflict("cannot remove container %q: container is %s: stop the container before removing or force remove", name, c.status())
	}
}

func (d Dialect) noSuchImage(ref string) *apiError {
	if d == PodmanV4 {
		if named, err := reference.ParseNormalizedNamed(ref); err == nil {
			ref = named.String()
		}
		return notFound("no such image: %s: image not known", ref)
	}
	return notFound("No such image: %s", ref)
}

func (d Dialect) noSuchNetwork(name string) *apiError {
	if d == PodmanV4 {
		return internal("network not found", "unable to find network with name or ID %s: network not found", name)
	}
	return notFound("network %s not found", name)
}

// noNetworkToCreate is Podman's error for a create whose network does not exist.
func (d Dialect) noNetworkToCreate(name string) *apiError {
	why := d.noSuchNetwork(name)
	why.message = "container create: " + why.message
	return why
}

// startNetworking is the error of a start that failed at the networks. why is the reason.
func (d Dialect) startNetworking(why *apiError) *apiError {
	if d == DockerV29 {
		return apiErrorf(why.status, "failed to set up container networking: %s", why.message)
	}
	return why
}

func (d Dialect) networkExists(name string) *apiError {
	if d == PodmanV4 {
		return internal("network already exists", "network name %s already used: network already exists", name)
	}
	return conflict("network with name %s already exists", name)
}

// networkInUse is the error for the removal of a network that has containers. endpoints
// lists them, each as name:"c" id:"…".
func (d Dialect) networkInUse(n *networkState, endpoints string) *apiError {
	switch d {
	case DockerV20:
		return forbidden("error while removing network: network %s id %s has active endpoints", n.Name, n.ID)
	case PodmanV4:
		return internal("network is being used", "%q has associated containers with it. Use -f to forcibly delete containers and pods: network is being used", n.Name)
	default:
		return forbidden("error while removing network: network %s has active endpoints (%s)", n.Name, endpoints)
	}
}

// notBesideConfigFrom refuses a network that has settings of its own and takes its
// configuration from another network.
func (d Dialect) notBesideConfigFrom() *apiError {
	how := "user-specified"
	if d == DockerV20 {
		how = "user specified"
	}
	return forbidden("%s configurations are not supported if the network depends on a configuration network", how)
}

func (d Dialect) noSuchVolume(name string) *apiError {
	if d == PodmanV4 {
		return notFound("volume with name %s not found: no such volume", name)
	}
	return notFound("get %s: no such volume", name)
}

// badReference is the error for a text that is no image reference. status20 is the status
// of Docker 20.10.
func (d Dialect) badReference(status20 int, err error) *apiError {
	text, _, _ := strings.Cut(err.Error(), " (")
	if strings.Contains(err.Error(), ") must be lowercase") {
		text += " must be lowercase"
	}
	return d.say(status20, text, err.Error())
}

// tooManyCPUs is the error for a create that wants more CPUs than the host has.
func (d Dialect) tooManyCPUs(cores int) *apiError {
	if d == DockerV20 {
		return badRequest("Range of CPUs is from 0.01 to %d.00, as there are only %d CPUs available", cores, cores)
	}
	return badRequest("range of CPUs is from 0.01 to %d.00, as there are only %d CPUs available", cores, cores)
}

// noSuchProgram is the error of a start if the image does not have the program.
func (d Dialect) noSuchProgram(path string) *apiError {
	switch d {
	case DockerV20:
		return badRequest("failed to create shim task: OCI runtime create failed: runc create failed: unable to start container process: exec: %q: stat %s: no such file or directory: unknown", path, path)
	case PodmanV4:
		return internal("OCI runtime attempted to invoke a command that was not found", "runc: runc create failed: unable to start container process: exec: %q: stat %s: no such file or directory: OCI runtime attempted to invoke a command that was not found", path, path)
	default:
		return badRequest("failed to create task for container: failed to create shim task: OCI runtime create failed: runc create failed: unable to start container process: error during container init: exec: %q: stat %s: no such file or directory: unknown", path, path)
	}
}

func (d Dialect) portTaken(c *Container, endpointID, port string) *apiError {
	why := fmt.Sprintf("Bind for 0.0.0.0:%s failed: port is already allocated", port)
	switch d {
	case DockerV20:
		return internal("", "driver failed programming external connectivity on endpoint %s (%s): %s", c.name, endpointID, why)
	case PodmanV4:
		return internal("address already in use", "rootlessport listen tcp 0.0.0.0:%s: bind: cannot listen on the TCP port: listen tcp4 :%s: bind: address already in use", port, port)
	default:
		return internal("", "failed to set up container networking: driver failed programming external connectivity on endpoint %s (%s): %s", c.name, endpointID, why)
	}
}

// tellsEnd lists the events of a container's end in their order. stops says whether a
// stop request waits for the end.
func (d Dialect) tellsEnd(stops bool) []events.Action {
	switch {
	case d == PodmanV4:
		return []events.Action{events.ActionDie, "cleanup"} // Podman sends cleanup once, twice, or not at all
	case d == DockerV29 && stops:
		return []events.Action{events.ActionStop, events.ActionDie}
	default:
		return []events.Action{events.ActionDie}
	}
}

// say returns an error in the words of the dialect: text20 with the status status20 for
// Docker 20.10, and text with the status 400 for all others.
func (d Dialect) say(status20 int, text20, text string) *apiError {
	if d == DockerV20 {
		return apiErrorf(status20, "%s", text20)
	}
	return badRequest("%s", text)
}

// badSignal is the error for a text that is no signal.
func (d Dialect) badSignal(text string) *apiError {
	return d.say(http.StatusBadRequest, "Invalid signal: "+text, "invalid signal: "+text)
}

// badJSON is the error for a body that cannot be decoded.
func (d Dialect) badJSON(err error) *apiError {
	return d.say(http.StatusInternalServerError, err.Error(), "invalid JSON: "+err.Error())
}

// badFilter is the error for a filter that is no JSON.
func (d Dialect) badFilter(err error) *apiError {
	return d.say(http.StatusInternalServerError, err.Error(), "invalid filter")
}

// badTime is the error for a text that is no time. field is the name of the parameter, with
// the quotes of the engine's text.
func (d Dialect) badTime(field, text, seconds string) *apiError {
	return d.say(http.StatusInternalServerError, fmt.Sprintf("strconv.ParseInt: parsing %q: invalid syntax", seconds),
		fmt.Sprintf("invalid value for %s: invalid timestamp %q: invalid seconds %q: invalid syntax", field, text, seconds))
}

// badNumber is the error for a text that is no number.
func (d Dialect) badNumber(err error) *apiError {
	return d.say(http.StatusInternalServerError, err.Error(), err.Error())
}

// ambiguous is the error for an inspect if several networks have the name.
func (d Dialect) ambiguous(name string, matches int) *apiError {
	return d.say(http.StatusBadRequest, fmt.Sprintf("%d matches found based on name: network %s is ambiguous", matches, name),
		fmt.Sprintf("network %s is ambiguous (%d matches found on name)", name, matches))
}
