package dockerexectest

import (
	"net/http"
	"strings"
)

// route is a request that is served.
type route struct {
	method string
	prefix string // of the path; without suffix and without "/" at its end it is the whole path
	suffix string // of the path, after prefix and a name
	query  string // names of the query parameters that are served
	does   func(*Engine, *request) (answer, error)
}

var routes []route

func init() { // an initial value of routes would refer to routes itself, through the handlers
	const get, post, del = http.MethodGet, http.MethodPost, http.MethodDelete
	routes = []route{
		{get, "/_ping", "", "", servePing},
		{http.MethodHead, "/_ping", "", "", servePing},
		{get, "/info", "", "", serveInfo},
		{get, "/version", "", "", serveVersion},
		{get, "/plugins", "", "filters", servePlugins},
		{get, "/events", "", "since until filters stream", serveEvents},

		{get, "/containers/json", "", "all before filters limit since", listContainers},
		{post, "/containers/create", "", "name platform", createContainer},
		{get, "/containers/", "/json", "", inspectContainer},
		{get, "/containers/", "/logs", "stdout stderr timestamps details follow since until tail", serveLogs},
		{post, "/containers/", "/start", "", startContainer},
		{post, "/containers/", "/stop", "t signal", stopContainer},
		{post, "/containers/", "/restart", "t signal", restartContainer},
		{post, "/containers/", "/kill", "signal", killContainer},
		{post, "/containers/", "/pause", "", pauseContainer},
		{post, "/containers/", "/unpause", "", unpauseContainer},
		{post, "/containers/", "/rename", "name", renameContainer},
		{post, "/containers/", "/wait", "condition", waitContainer},
		{del, "/containers/", "", "v force", removeContainer},

		{post, "/images/create", "", "fromImage tag platform", pullImage},
		{get, "/images/json", "", "all filters", listImages},
		{get, "/images/", "/json", "", inspectImage},
		{post, "/images/", "/tag", "repo tag", tagImage},
		{del, "/images/", "", "force noprune", removeImage},

		{get, "/networks", "", "filters", listNetworks},
		{post, "/networks/create", "", "", createNetwork},
		{get, "/networks/", "", "verbose", inspectNetwork},
		{post, "/networks/", "/connect", "", connectNetwork},
		{post, "/networks/", "/disconnect", "", disconnectNetwork},
		{del, "/networks/", "", "", removeNetwork},

		{get, "/volumes", "", "filters", listVolumes},
		{post, "/volumes/create", "", "", createVolume},
		{get, "/volumes/", "", "", inspectVolume},
		{del, "/volumes/", "", "force", removeVolume},
	}
}

// findRoute returns the route of a request, and sets r.name to the name in the path.
func findRoute(r *request) *route {
	for i := range routes {
		if routes[i].matches(r) {
			return &routes[i]
		}
	}
	return nil
}

func (t *route) matches(r *request) bool {
	if t.method != r.method {
		return false
	}
	if t.suffix == "" && !strings.HasSuffix(t.prefix, "/") {
		return r.path == t.prefix
	}
	rest, ok := strings.CutPrefix(r.path, t.prefix)
	if !ok {
		return false
	}
	name, ok := strings.CutSuffix(rest, t.suffix)
	if !ok || name == "" || strings.Contains(name, "/") && t.prefix != "/images/" {
		return false
	}
	r.name = name
	return true
}
