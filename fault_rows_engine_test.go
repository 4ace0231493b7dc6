package dockerexec

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/api/types/network"
	gogotypes "github.com/gogo/protobuf/types"
	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/moby/swarmkit/v2/api"
	pkgerrors "github.com/pkg/errors"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// What engines say with a status; the others of the matrix are a proxy's.
var (
	noContainer  = "No such container: NAME"
	noNetwork    = "network NAME not found"
	sameName     = `Conflict. The container name "/NAME" is already in use by container "0123456789ab". You have to remove (or rename) that container to be able to reuse that name.`
	beingRemoved = "removal of container NAME is already in progress"
)

// anEvent is how an event stream begins.
const anEvent = `{"Type":"container","Action":"start","Actor":{"ID":"0123456789ab","Attributes":{"name":"nobody"}},"scope":"local","time":1700000000,"timeNano":1700000000000000000}` + "\n"

// faultRows is the matrix. The kinds are in the order of faults, grouped:
// refused reset header body cut, garbled empty, 404 409 429 500 503, never slow
// lost, cancel. They follow from the package's documentation of errors.
func faultRows() []*faultRow {
	return []*faultRow{
		{
			name: "Inspect: ping", target: "* _ping", every: true, kinds: "ttt-t -- ttttt ttt c",
			setup: func(c *faultCell) { c.share(c.bench.running); c.about = "ping the engine at tcp://engine:2375" },
			op:    inspectIt,
		},
		{
			name: "PullImage: pull", target: "POST images/create", kinds: "ttttt ft fffft fft c",
			setup: func(c *faultCell) { c.push(); c.use(); c.about = c.pushed },
			op:    onAdapter((*ContainerAdapter).PullImage), done: imagePresent,
			says:    map[fault]string{fault404: "manifest for NAME not found: manifest unknown: manifest unknown"},
			options: []Option{WithPullAttempts(1)},
		},
		{
			name: "PullImage: inspect image", target: "GET images/*", kinds: "ttttt st sstst ttt c",
			setup: func(c *faultCell) {
				spec(c.task).Image = c.bench.reference
				c.use()
				c.about = c.bench.reference
			},
			op: onAdapter((*ContainerAdapter).PullImage),
		},
		{
			name: "CreateNetworks: create first", target: "POST networks/create", kinds: "ttttt ft fttft ttt c",
			setup: func(c *faultCell) { c.join(2); c.use(); c.about = c.network(0) },
			op:    onAdapter((*ContainerAdapter).CreateNetworks), done: networksThere,
			says: map[fault]string{fault409: "network with name NAME already exists"},
		},
		{
			name: "CreateNetworks: create second", target: "POST networks/create", nth: 2, kinds: "ttttt ft fttft ttt c",
			setup: func(c *faultCell) { c.join(2); c.use(); c.about = c.network(1) },
			op:    onAdapter((*ContainerAdapter).CreateNetworks), done: networksThere,
			says: map[fault]string{fault409: "network with name NAME already exists"},
		},
		{
			name: "CreateNetworks: inspect", target: "GET networks/*", kinds: "ttttt ft tftft ttt c",
			setup: func(c *faultCell) {
				c.join(1)
				c.use()
				require.NoError(c, c.fresh().CreateNetworks(c.ctx()))
				c.about = c.network(0)
			},
			op: onAdapter((*ContainerAdapter).CreateNetworks), done: networksThere,
			says: map[fault]string{fault404: noNetwork},
		},
		{
			name: "CreateVolumes: create", target: "POST volumes/create", kinds: "ttttt ft fftft ttt c",
			setup: func(c *faultCell) { c.mount(); c.use(); c.about = c.volume },
			op:    onAdapter((*ContainerAdapter).CreateVolumes), done: volumeThere,
		},
		{
			name: "Create: create", target: "POST containers/create", kinds: "ttttt ft frtft ttt c",
			setup: (*faultCell).use, op: onAdapter((*ContainerAdapter).Create), done: isCreated,
			made: exec.ErrTaskPrepared, again: exec.ErrTaskPrepared,
			says: map[fault]string{fault404: "No such image: nosuch:1", fault409: sameName},
		},
		{
			name: "Create: inspect the holder", target: "GET containers/*/json", kinds: "ttttt ft pftft ttt c",
			setup: (*faultCell).useCreated, op: onAdapter((*ContainerAdapter).Create), done: isCreated,
			unmade: exec.ErrTaskPrepared, made: exec.ErrTaskPrepared, again: exec.ErrTaskPrepared,
			says: map[fault]string{fault404: noContainer},
		},
		{
			name: "Create, the name is a stranger's: inspect", target: "GET containers/*/json", kinds: "ttttt ft oftft ttt c",
			setup: func(c *faultCell) { c.use(); c.startStranger() }, op: createBesideStranger, done: strangerRuns,
			unmade: errStranger, made: errStranger,
			says: map[fault]string{fault404: noContainer},
		},
		{
			name: "Create: connect", target: "POST networks/*", kinds: "ttt-t -- fftft ttt c", needs: oneNetworkAtATime,
			setup: func(c *faultCell) {
				c.join(2)
				c.use()
				require.NoError(c, c.fresh().CreateNetworks(c.ctx()))
				c.about = c.network(1)
			},
			op: onAdapter((*ContainerAdapter).Create), done: isConnected,
			unmade: exec.ErrTaskPrepared, made: exec.ErrTaskPrepared, again: exec.ErrTaskPrepared,
			says: map[fault]string{fault404: noNetwork},
		},
		{
			name: "Create: cores", target: "GET info", kinds: "ttttt ft fftft ttt c",
			setup: (*faultCell).useManyCores, op: onAdapter((*ContainerAdapter).Create), done: isCreated, again: exec.ErrTaskPrepared,
		},
		{
			name: "Create: create with all cores", target: "POST containers/create", nth: 2, kinds: "ttttt ft frtft ttt c",
			setup: (*faultCell).useManyCores, op: onAdapter((*ContainerAdapter).Create), done: isCreated, made: exec.ErrTaskPrepared, again: exec.ErrTaskPrepared,
			says: map[fault]string{fault404: "No such image: nosuch:1", fault409: sameName},
		},
		{
			name: "Start: start", target: "POST containers/*/start", kinds: "ttt-t -- fftft ttt c",
			setup: (*faultCell).useCreated, done: startedOnce,
			op:   onAdapter((*ContainerAdapter).Start),
			says: map[fault]string{fault404: noContainer, fault409: "container is marked for removal and cannot be started"},
		},
		{
			name: "Inspect: inspect", target: "GET containers/*/json", kinds: "ttttt ft fftft ttt c",
			setup: func(c *faultCell) { c.share(c.bench.running) }, op: inspectIt,
			says: map[fault]string{fault404: noContainer},
		},
		{
			name: "Events: events", target: "GET events", kinds: "rrrrr rr rrrrr rrr c",
			setup: func(c *faultCell) { c.share(c.bench.running) }, op: untilAnEvent, endless: true, sample: anEvent,
		},
		{
			name: "Wait: events", target: "GET events", kinds: "rrrrr rr rrrrr rrr c",
			setup: (*faultCell).useStarted, op: waitFor137, onHit: kill, endless: true, sample: anEvent,
		},
		{
			name: "Wait: inspect", target: "GET containers/*/json", kinds: "rrrrr fr dfrfr rrr c",
			setup: (*faultCell).useStarted, op: waitFor137, onHit: kill,
			says: map[fault]string{fault404: noContainer},
		},
		{
			name: "Wait: inspect again", target: "GET containers/*/json", nth: 2, kinds: "rrrrr fr rfrfr rrr c",
			setup: (*faultCell).useStarted, op: waitFor137, onHit: kill,
			says: map[fault]string{fault404: noContainer},
		},
		{
			name: "Shutdown: stop", target: "POST containers/*/stop", kinds: "ttt-t -- bftft ttt c",
			setup: (*faultCell).useStarted, done: isStopped,
			op:   onAdapter((*ContainerAdapter).Shutdown),
			says: map[fault]string{fault404: noContainer},
		},
		{
			name: "Terminate: kill", target: "POST containers/*/kill", kinds: "ttt-t -- bbtft ttt c",
			setup: (*faultCell).useStarted, done: isStopped,
			op:   onAdapter((*ContainerAdapter).Terminate),
			says: map[fault]string{fault404: noContainer, fault409: "Cannot kill container: NAME: Container 0123456789ab is not running"},
		},
		{
			name: "Remove: remove", target: "DELETE containers/*", kinds: "ttt-t -- bttft ttt c",
			setup: (*faultCell).useStarted, done: isGone, op: onAdapter((*ContainerAdapter).Remove), waits: true,
			says: map[fault]string{fault404: noContainer, fault409: beingRemoved},
		},
		{
			name: "Remove: inspect until gone", target: "GET containers/*/json", kinds: "ttttt ft bftft ttt c",
			setup: (*faultCell).useCreated, done: isGone, op: onAdapter((*ContainerAdapter).Remove),
			others: map[string]answerInstead{"DELETE containers/*": {409, beingRemoved}},
			says:   map[fault]string{fault404: noContainer},
		},
		{
			name: "RemoveNetworks: inspect", target: "GET networks/*", kinds: "ttttt ft bftft ttt c",
			setup: (*faultCell).useNetworks, done: networksGone, op: onAdapter((*ContainerAdapter).RemoveNetworks),
			says: map[fault]string{fault404: noNetwork},
		},
		{
			name: "RemoveNetworks: list who needs them", target: "GET containers/json", kinds: "ttttt ft fftft ttt c",
			setup: (*faultCell).useNetworks, done: networksGone, op: onAdapter((*ContainerAdapter).RemoveNetworks),
		},
		{
			name: "RemoveNetworks: remove first", target: "DELETE networks/*", kinds: "ttt-t -- bftft ttt c",
			setup: (*faultCell).useNetworks, done: networksGone, op: onAdapter((*ContainerAdapter).RemoveNetworks),
			says: map[fault]string{fault404: noNetwork},
		},
		{
			name: "RemoveNetworks: remove second", target: "DELETE networks/*", nth: 2, kinds: "ttt-t -- bftft ttt c",
			setup: func(c *faultCell) { c.useNetworks(); c.about = c.network(1) }, done: networksGone, op: onAdapter((*ContainerAdapter).RemoveNetworks),
			says: map[fault]string{fault404: noNetwork},
		},
		{
			name: "Logs: logs", target: "GET containers/*/logs", kinds: "tttee bb fftft cct c", untimed: true,
			setup: func(c *faultCell) { c.share(c.bench.logged) }, op: readRawLogs,
			says: map[fault]string{fault404: noContainer},
		},
		{
			name: "PublishLogs: inspect", target: "GET containers/*/json", kinds: "ttttt ft fftft ttt c",
			setup: func(c *faultCell) { c.share(c.bench.logged) }, op: publishLogs(false), done: allPublished,
			says: map[fault]string{fault404: noContainer},
		},
		{
			name: "PublishLogs: logs", target: "GET containers/*/logs", kinds: "ttttt fb fftft cct c", untimed: true,
			setup: func(c *faultCell) { c.share(c.bench.logged) }, op: publishLogs(false), done: allPublished,
			says: map[fault]string{fault404: noContainer},
		},
		{
			name: "PublishLogs, followed: inspect", target: "GET containers/*/json", kinds: "rrrrr fr rfrfr rrr c",
			setup: func(c *faultCell) { c.share(c.bench.logged) }, op: publishLogs(true), done: allPublished,
			says: map[fault]string{fault404: noContainer},
		},
		{
			name: "PublishLogs, followed: logs", target: "GET containers/*/logs", kinds: "rrrrr fb bbrfr ccr c", untimed: true,
			setup: func(c *faultCell) { c.share(c.bench.logged) }, op: publishLogs(true), done: allPublished,
			says: map[fault]string{fault404: noContainer, fault409: "can not get logs from container which is dead or marked for removal"},
		},
		{
			name: "PublishLogs, followed while it runs: logs", target: "GET containers/*/logs", kinds: "rrrrr fr bbrfr ccr c", endless: true, untimed: true,
			setup: func(c *faultCell) {
				spec(c.task).Args = []string{"print", "5", "line", "--", "sleep", "1h"}
				c.useStarted()
				c.untilReady()
			},
			op: publishLogs(true), done: allPublishedAndReady, onHit: kill,
			says: map[fault]string{fault404: noContainer, fault409: "can not get logs from container which is dead or marked for removal"},
		},
		{
			name: "PublishLogs, followed: events", target: "GET events", kinds: "rrrrr rr rrrrr rrr c", endless: true, sample: anEvent,
			setup: func(c *faultCell) { spec(c.task).Args = []string{"print", "5", "line"}; c.use() }, op: publishLogs(true), done: allPublished,
			onHit: func(c *faultCell) {
				adapter := c.fresh()
				assert.NoError(c, adapter.Create(c.ctx()))
				assert.NoError(c, adapter.Start(c.ctx()))
			},
		},
		{
			name: "Describe: information", target: "GET info", kinds: "ttttt ft fftft ttt c",
			setup: func(c *faultCell) { c.shared, c.about = true, "describe the node: engine information" }, op: describeIt,
		},
		{
			name: "Describe: plugins", target: "GET plugins", kinds: "ttttt ft sftft ttt c",
			setup: func(c *faultCell) { c.shared, c.about = true, "describe the node: plugins" }, op: describeIt,
		},
		{
			name: "controller Prepare: create network", target: "POST networks/create", kinds: "ttttt ft fttft ttt c",
			setup: func(c *faultCell) { c.join(1); c.mount(); c.control(api.TaskStateAccepted); c.about = c.network(0) },
			op:    onController((*controller).Prepare), done: isPrepared, again: exec.ErrTaskPrepared,
			says: map[fault]string{fault409: "network with name NAME already exists"},
		},
		{
			name: "controller Prepare: inspect network", target: "GET networks/*", kinds: "ttttt ft tftft ttt c",
			setup: func(c *faultCell) {
				c.join(1)
				c.control(api.TaskStateAccepted)
				require.NoError(c, c.fresh().CreateNetworks(c.ctx()))
				c.about = c.network(0)
			},
			op: onController((*controller).Prepare), done: isPrepared, again: exec.ErrTaskPrepared,
			says: map[fault]string{fault404: noNetwork},
		},
		{
			name: "controller Prepare: create volume", target: "POST volumes/create", kinds: "ttttt ft fftft ttt c",
			setup: func(c *faultCell) { c.join(1); c.mount(); c.control(api.TaskStateAccepted); c.about = c.volume },
			op:    onController((*controller).Prepare), done: isPrepared, again: exec.ErrTaskPrepared,
		},
		{
			name: "controller Prepare: pull", target: "POST images/create", kinds: "rrrrr sr ffrrr fsr c",
			setup: func(c *faultCell) { c.push(); c.control(api.TaskStateAccepted); c.about = c.pushed },
			op:    onController((*controller).Prepare), done: isPrepared, again: exec.ErrTaskPrepared,
			says:    map[fault]string{fault404: "manifest for NAME not found: manifest unknown: manifest unknown"},
			options: []Option{WithPullAttempts(2)},
		},
		{
			name: "controller Prepare: inspect image", target: "GET images/*", kinds: "ttttt ft fftft ttt c",
			setup: func(c *faultCell) {
				spec(c.task).Image = fromHarness(c.bench.t, "DOCKEREXEC_TEST_IMAGE")
				c.control(api.TaskStateAccepted)
				c.about = spec(c.task).Image
			},
			op: onController((*controller).Prepare), done: isPrepared, again: exec.ErrTaskPrepared,
			others: map[string]answerInstead{"POST images/create": {404, "manifest for NAME not found: manifest unknown: manifest unknown"}},
		},
		{
			name: "controller Prepare: create", target: "POST containers/create", kinds: "ttttt ft frtft ttt c",
			setup: func(c *faultCell) { c.control(api.TaskStateAccepted) },
			op:    onController((*controller).Prepare), done: isPrepared, made: exec.ErrTaskPrepared, again: exec.ErrTaskPrepared,
			says: map[fault]string{fault404: "No such image: nosuch:1", fault409: sameName},
		},
		{
			name: "controller Prepare: inspect the holder", target: "GET containers/*/json", kinds: "ttttt ft pftft ttt c",
			setup: func(c *faultCell) { c.useCreated(); c.control(api.TaskStateAccepted) },
			op:    onController((*controller).Prepare), done: isPrepared,
			unmade: exec.ErrTaskPrepared, made: exec.ErrTaskPrepared, again: exec.ErrTaskPrepared,
			says: map[fault]string{fault404: noContainer},
		},
		{
			name: "controller Prepare: connect", target: "POST networks/*/connect", kinds: "ttt-t -- fftft ttt c", needs: oneNetworkAtATime,
			setup: func(c *faultCell) { c.join(2); c.control(api.TaskStateAccepted); c.about = c.network(1) },
			op:    onController((*controller).Prepare), done: isConnected,
			unmade: exec.ErrTaskPrepared, made: exec.ErrTaskPrepared, again: exec.ErrTaskPrepared,
			says: map[fault]string{fault404: "No such container: 0123456789ab"},
		},
		{
			name: "controller Prepare, again: inspect", target: "GET containers/*/json", kinds: "ttttt ft pftft ttt c",
			setup: func(c *faultCell) { c.useCreated(); c.control(api.TaskStatePreparing) },
			op:    onController((*controller).Prepare), done: isPrepared,
			unmade: exec.ErrTaskPrepared, made: exec.ErrTaskPrepared, again: exec.ErrTaskPrepared,
			says: map[fault]string{fault404: noContainer},
		},
		{
			name: "controller Start: inspect", target: "GET containers/*/json", kinds: "ttttt tt ftttt ttt c",
			setup: func(c *faultCell) { c.useCreated(); c.control(api.TaskStateStarting) },
			op:    onController((*controller).Start), done: startedOnce, again: exec.ErrTaskStarted,
			says: map[fault]string{fault404: noContainer},
		},
		{
			name: "controller Start: start", target: "POST containers/*/start", kinds: "ttt-t -- fftft ttt c",
			setup: func(c *faultCell) { c.useCreated(); c.control(api.TaskStateStarting) },
			op:    onController((*controller).Start), done: startedOnce, made: exec.ErrTaskStarted, again: exec.ErrTaskStarted,
			says: map[fault]string{fault404: noContainer, fault409: "container is marked for removal and cannot be started"},
		},
		{
			name: "controller Start: create a vanished network", target: "POST networks/create", kinds: "ttttt ft fttft ttt c",
			setup: func(c *faultCell) {
				c.join(1)
				require.NoError(c, c.fresh().CreateNetworks(c.ctx()))
				c.useCreated()
				require.NoError(c, c.bench.client.NetworkRemove(c.ctx(), c.network(0)))
				c.control(api.TaskStateStarting)
				c.about = c.network(0)
			},
			op: onController((*controller).Start), done: startedOnce, again: exec.ErrTaskStarted,
			says: map[fault]string{fault409: "network with name NAME already exists"},
		},
		{
			name: "controller Start, health: events", target: "GET events", kinds: "rrrrr rr rrrrr rrr c", endless: true, sample: anEvent,
			setup: func(c *faultCell) { c.checkHealth("/etc/passwd"); c.useCreated(); c.control(api.TaskStateStarting) },
			op:    onController((*controller).Start), done: startedOnce,
			unmade: exec.ErrTaskStarted, made: exec.ErrTaskStarted, again: exec.ErrTaskStarted,
		},
		{
			name: "controller Start, health: inspect", target: "GET containers/*/json", nth: 2, kinds: "rrrrr rr drrrr rrr c",
			setup: func(c *faultCell) { c.checkHealth("/etc/passwd"); c.useCreated(); c.control(api.TaskStateStarting) },
			op:    onController((*controller).Start), done: startedOnce,
			unmade: exec.ErrTaskStarted, made: exec.ErrTaskStarted, again: exec.ErrTaskStarted,
			says: map[fault]string{fault404: noContainer},
		},
		{
			name: "controller Wait: events", target: "GET events", kinds: "rrrrr rr rrrrr rrr c", endless: true, sample: anEvent,
			setup: func(c *faultCell) { c.useStarted(); c.control(api.TaskStateRunning) }, op: controllerWait, onHit: kill,
		},
		{
			name: "controller Wait: inspect", target: "GET containers/*/json", kinds: "rrrrr rr drrrr rrr c",
			setup: func(c *faultCell) { c.useStarted(); c.control(api.TaskStateRunning) }, op: controllerWait, onHit: kill,
			says: map[fault]string{fault404: noContainer},
		},
		{
			name: "controller Wait, health: stop", target: "POST containers/*/stop", kinds: "rrr-r -- bfrfr rrr c",
			setup: func(c *faultCell) { c.checkHealth("/nosuch"); c.useStarted(); c.control(api.TaskStateRunning) },
			op:    controllerWait, done: isStopped,
			onHit: func(c *faultCell) {
				if c.fault == fault404 { // which says that it is gone, so its end is waited for
					kill(c)
				}
			},
			says: map[fault]string{fault404: noContainer},
		},
		{
			name: "controller Shutdown: stop", target: "POST containers/*/stop", kinds: "ttt-t -- bftft ttt c",
			setup: func(c *faultCell) { c.useStarted(); c.control(api.TaskStateRunning) }, done: isStopped,
			op:   onController((*controller).Shutdown),
			says: map[fault]string{fault404: noContainer},
		},
		{
			name: "controller Shutdown, named: inspect", target: "GET containers/*/json", kinds: "ttttt ft bftft ttt c",
			setup: func(c *faultCell) { c.rename(); c.useStarted(); c.control(api.TaskStateRunning) }, done: isStopped,
			op:   onController((*controller).Shutdown),
			says: map[fault]string{fault404: noContainer},
		},
		{
			name: "controller Terminate: kill", target: "POST containers/*/kill", kinds: "ttt-t -- bbtft ttt c",
			setup: func(c *faultCell) { c.useStarted(); c.control(api.TaskStateRunning) }, done: isStopped,
			op:   onController((*controller).Terminate),
			says: map[fault]string{fault404: noContainer, fault409: "Cannot kill container: NAME: Container 0123456789ab is not running"},
		},
		{
			name: "controller Remove: stop", target: "POST containers/*/stop", kinds: "rrr-r -- ssrsr rrr c",
			setup: (*faultCell).controlStarted, op: onController((*controller).Remove), done: allGone,
			says: map[fault]string{fault404: noContainer},
		},
		{
			name: "controller Remove: remove", target: "DELETE containers/*", kinds: "rrr-r -- brrfr rrr c",
			setup: (*faultCell).controlStarted, op: onController((*controller).Remove), done: allGone, waits: true,
			says: map[fault]string{fault404: noContainer, fault409: beingRemoved},
		},
		{
			name: "controller Remove: list who needs a network", target: "GET containers/json", kinds: "rrrrr fr ffrfr rrr c",
			setup: func(c *faultCell) { c.controlStarted(); c.about = c.network(0) }, op: onController((*controller).Remove), done: allGone,
		},
		{
			name: "controller Remove: remove network", target: "DELETE networks/*", kinds: "rrr-r -- bfrfr rrr c",
			setup: func(c *faultCell) { c.controlStarted(); c.about = c.network(0) }, op: onController((*controller).Remove), done: allGone,
			says: map[fault]string{fault404: noNetwork},
		},
		{
			name: "controller Remove, anew: inspect", target: "GET containers/*/json", kinds: "rrrrr fr bfrfr rrr c",
			setup: (*faultCell).controlAnew, op: onController((*controller).Remove), done: allGone,
			says: map[fault]string{fault404: noContainer},
		},
		{
			name: "controller Remove, anew: inspect network", target: "GET networks/*", kinds: "rrrrr fr bfrfr rrr c",
			setup: func(c *faultCell) { c.controlAnew(); c.about = c.network(0) }, op: onController((*controller).Remove), done: allGone,
			says: map[fault]string{fault404: noNetwork},
		},
		{
			name: "controller Shutdown, a stranger's: inspect", target: "GET containers/*/json", kinds: "ttttt ft bftft ttt c",
			setup: (*faultCell).controlStranger, op: onController((*controller).Shutdown), done: strangerRuns,
			says: map[fault]string{fault404: noContainer},
		},
		{
			name: "controller Remove, a stranger's: inspect", target: "GET containers/*/json", kinds: "rrrrr fr bfrfr rrr c",
			setup: (*faultCell).controlStranger, op: onController((*controller).Remove), done: strangerRuns,
			says: map[fault]string{fault404: noContainer},
		},
		{
			name: "controller ContainerStatus: inspect", target: "GET containers/*/json", kinds: "nnnnn fn nfnfn nnn c",
			setup: func(c *faultCell) { c.share(c.bench.running); c.control(api.TaskStateRunning) }, op: containerStatusOf,
			says: map[fault]string{fault404: noContainer},
		},
		{
			name: "controller PortStatus: inspect", target: "GET containers/*/json", kinds: "nnnnn fn nfnfn nnn c",
			setup: func(c *faultCell) { c.share(c.bench.running); c.control(api.TaskStateRunning) }, op: portStatusOf,
			says: map[fault]string{fault404: noContainer},
		},
		{
			name: "controller Logs: inspect", target: "GET containers/*/json", kinds: "ttttt ft fftft ttt c",
			setup: func(c *faultCell) { c.share(c.bench.logged); c.control(api.TaskStateRunning) }, op: controllerLogs, done: allPublished,
			says: map[fault]string{fault404: noContainer},
		},
		{
			name: "controller Logs: logs", target: "GET containers/*/logs", kinds: "ttttt fb fftft cct c", untimed: true,
			setup: func(c *faultCell) { c.share(c.bench.logged); c.control(api.TaskStateRunning) }, op: controllerLogs, done: allPublished,
			says: map[fault]string{fault404: noContainer},
		},
	}
}

// What a cell's task has, and how far it has come.

func (c *faultCell) use() {
	var err error
	c.adapter, err = c.engine.Adapter(nil, c.task, nil)
	require.NoError(c, err)
	c.about = c.adapter.config.name()
}

func (c *faultCell) useCreated() {
	c.use()
	require.NoError(c, c.fresh().Create(c.ctx()))
}

func (c *faultCell) useStarted() {
	c.useCreated()
	require.NoError(c, c.fresh().Start(c.ctx()))
}

// untilReady waits until the container has logged all that it will.
func (c *faultCell) untilReady() {
	require.Eventually(c, func() bool {
		sink := &logSink{}
		return c.adapter.PublishLogs(c.ctx(), api.LogSubscriptionOptions{}, sink) == nil && len(sink.lines()) == len(loggedLines)+1
	}, time.Minute, 10*time.Millisecond)
}

// share has the cell look at a task that others look at too.
func (c *faultCell) share(adapter *ContainerAdapter) {
	c.shared, c.task = true, adapter.config.task.Copy()
	c.use()
}

// control makes the controller of a task that has come as far as state.
func (c *faultCell) control(state api.TaskState) {
	made, err := c.executor.Controller(taskAt(c.task, state))
	require.NoError(c, err)
	c.ctlr = made.(*controller)
	c.adapter = c.ctlr.adapter
	c.about = c.adapter.config.name()
}

// controlStarted makes a controller that has made its task's container.
func (c *faultCell) controlStarted() {
	c.join(1)
	c.control(api.TaskStateAccepted)
	require.NoError(c, c.ctlr.Prepare(c.ctx()))
	require.NoError(c, c.ctlr.Start(c.ctx()))
}

// controlAnew makes one that has not.
func (c *faultCell) controlAnew() {
	c.join(1)
	require.NoError(c, c.fresh().CreateNetworks(c.ctx()))
	c.useStarted()
	c.control(api.TaskStateRunning)
}

// startStranger has somebody else's container have the task's name.
func (c *faultCell) startStranger() {
	name := c.adapter.config.name()
	made, err := c.bench.client.ContainerCreate(c.ctx(), &container.Config{Image: c.bench.image, Cmd: []string{"sleep", "1h"}},
		&container.HostConfig{NetworkMode: "none"}, nil, nil, name)
	require.NoError(c, err)
	c.stranger = made.ID
	require.NoError(c, c.bench.client.ContainerStart(c.ctx(), name, container.StartOptions{}))
}

func (c *faultCell) controlStranger() {
	c.rename()
	c.control(api.TaskStateRunning)
	c.startStranger()
}

func (c *faultCell) network(i int) string { return fmt.Sprintf("dockerexec-fault-%d-%d", c.number, i) }

// join has the task join networks of its own.
func (c *faultCell) join(networks int) {
	c.task.Networks = nil
	for i := range networks {
		n := 2*c.number + i
		attach(c.task, c.network(i), fmt.Sprintf("10.%d.%d.0/24", 224+n>>8, n&255))
	}
}

func (c *faultCell) useNetworks() {
	c.join(2)
	c.use()
	require.NoError(c, c.fresh().CreateNetworks(c.ctx()))
	c.about = c.network(0)
}

// mount gives the task a volume of its own.
func (c *faultCell) mount() {
	c.volume = fmt.Sprintf("dockerexec-fault-%d", c.number)
	spec(c.task).Mounts = []api.Mount{{
		Type: api.MountTypeVolume, Source: c.volume, Target: "/data",
		VolumeOptions: &api.Mount_VolumeOptions{DriverConfig: &api.Driver{
			Name: "local", Options: map[string]string{"type": "tmpfs", "device": "tmpfs", "o": canaryOption},
		}},
	}}
}

func (c *faultCell) rename() { c.task.Annotations.Name = fmt.Sprintf("dockerexec-fault-%d", c.number) }

func (c *faultCell) useManyCores() {
	c.task.Spec.Resources = &api.ResourceRequirements{Limits: &api.Resources{NanoCPUs: 1e12}}
	c.use()
}

// checkHealth has the container be healthy as long as it has the file.
func (c *faultCell) checkHealth(file string) {
	spec(c.task).Healthcheck = &api.HealthConfig{
		Test: []string{"CMD", "/testtask", "health", file}, Retries: 1,
		Interval: gogotypes.DurationProto(100 * time.Millisecond), Timeout: gogotypes.DurationProto(10 * time.Second),
	}
}

// push gives the task an image of its own that is in the registry and not on the
// engine.
func (c *faultCell) push() {
	ref := fmt.Sprintf("%s/dockerexec-fault-%d:1", fromHarness(c.bench.t, "DOCKEREXEC_TEST_REGISTRY"), c.number)
	read := func(body io.ReadCloser, err error) {
		require.NoError(c, err)
		defer body.Close()
		text, err := io.ReadAll(body)
		require.NoError(c, err)
		require.NotContains(c, string(text), `"error"`)
	}
	client := c.bench.client
	read(client.ImageImport(c.ctx(), image.ImportSource{Source: bytes.NewReader(randomTar(c.bench.t, 1<<10)), SourceName: "-"}, ref, image.ImportOptions{}))
	c.pushed = ref
	read(client.ImagePush(c.ctx(), ref, image.PushOptions{RegistryAuth: engineAuth(c.bench.t)}))
	_, err := client.ImageRemove(c.ctx(), ref, image.RemoveOptions{Force: true, PruneChildren: true})
	require.NoError(c, err)
	spec(c.task).Image = ref
}

// oneNetworkAtATime is an engine at whose API version a create joins one network.
func oneNetworkAtATime(b *faultBench) bool {
	return !atLeast(b.client.ClientVersion(), severalNetworks)
}

// The operations.

func onAdapter(method func(*ContainerAdapter, context.Context) error) func(context.Context, *faultCell) error {
	return func(ctx context.Context, c *faultCell) error { return method(c.adapter, ctx) }
}

func onController(method func(*controller, context.Context) error) func(context.Context, *faultCell) error {
	return func(ctx context.Context, c *faultCell) error { return method(c.ctlr, ctx) }
}

func createBesideStranger(ctx context.Context, c *faultCell) error {
	err := c.adapter.Create(ctx)
	if err != nil && strings.Contains(err.Error(), "belongs to no task has its name; rename or remove that one") && !exec.IsTemporary(err) {
		return errStranger
	}
	return err
}

func inspectIt(ctx context.Context, c *faultCell) error {
	answer, err := c.adapter.Inspect(ctx)
	if err == nil {
		assert.Equal(c, "/"+c.adapter.config.name(), answer.Name)
	}
	if c.fault == fault404 && err != nil && c.row.says != nil {
		assert.True(c, IsUnknownContainer(err), err)
	}
	return err
}

// untilAnEvent does what Events says: after a loss it subscribes again.
func untilAnEvent(ctx context.Context, c *faultCell) error {
	for {
		subscribed, cancel := context.WithCancel(ctx)
		messages, closed, err := c.adapter.Events(subscribed)
		if err != nil {
			cancel()
			return err
		}
		arrived := func() bool {
			defer func() {
				cancel()
				<-closed
			}()
			for {
				assert.NoError(c, c.bench.client.ContainerKill(c.ctx(), c.adapter.config.name(), "CONT"))
				select {
				case m := <-messages:
					assert.Equal(c, c.task.ID, m.Actor.Attributes[labelTaskID])
					return true
				case <-closed:
					return false
				case <-time.After(100 * time.Millisecond):
				}
			}
		}()
		// The stream may have broken after the event, or be about to.
		if arrived || ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

func kill(c *faultCell) {
	assert.NoError(c, c.bench.client.ContainerKill(c.ctx(), c.adapter.config.name(), "KILL"))
}

func waitFor137(ctx context.Context, c *faultCell) error {
	answer, err := c.adapter.Wait(ctx)
	if err != nil {
		return err
	}
	assert.Equal(c, 137, answer.State.ExitCode)
	return nil
}

func controllerWait(ctx context.Context, c *faultCell) error {
	err := c.ctlr.Wait(ctx)
	coded, ended := err.(exec.ExitCoder)
	switch {
	case !ended:
		return err
	case spec(c.task).Healthcheck != nil:
		assert.Equal(c, ErrContainerUnhealthy, pkgerrors.Cause(err))
	default:
		assert.Equal(c, 137, coded.ExitCode())
	}
	return nil
}

func readRawLogs(ctx context.Context, c *faultCell) error {
	body, err := c.adapter.Logs(ctx, api.LogSubscriptionOptions{})
	if err != nil {
		return err
	}
	defer body.Close()
	text, err := io.ReadAll(body)
	if err != nil {
		return &readingError{err}
	}
	if c.want != 'b' {
		assert.Contains(c, string(text), "line on stderr")
	}
	return nil
}

func publishLogs(follow bool) func(ctx context.Context, c *faultCell) error {
	return func(ctx context.Context, c *faultCell) error {
		c.sink = &logSink{}
		return c.adapter.PublishLogs(ctx, api.LogSubscriptionOptions{Follow: follow}, c.sink)
	}
}

func controllerLogs(ctx context.Context, c *faultCell) error {
	c.sink = &logSink{}
	return c.ctlr.Logs(ctx, c.sink, api.LogSubscriptionOptions{})
}

func describeIt(ctx context.Context, c *faultCell) error {
	node, err := c.executor.Describe(ctx)
	if err == nil {
		assert.NotEmpty(c, node.Hostname)
		assert.Contains(c, node.Engine.Plugins, api.PluginDescription{Type: "Log", Name: "json-file"})
	} else {
		assert.Nil(c, node)
	}
	return err
}

func containerStatusOf(ctx context.Context, c *faultCell) error {
	status, err := c.ctlr.ContainerStatus(ctx)
	if err == nil && status == nil {
		return errNoStatus
	}
	if err == nil {
		assert.NotEmpty(c, status.ContainerID)
	}
	return err
}

func portStatusOf(ctx context.Context, c *faultCell) error {
	status, err := c.ctlr.PortStatus(ctx)
	if err == nil && status == nil {
		return errNoStatus
	}
	return err
}

// What they promise, as the engine itself says.

func imagePresent(c *faultCell) {
	_, err := c.bench.client.ImageInspect(c.ctx(), c.pushed)
	assert.NoError(c, err)
}

// networksNamed lists the networks of the task that are there. Engines may have
// several of one name.
func (c *faultCell) networksNamed() []network.Summary {
	all, err := c.bench.client.NetworkList(c.ctx(), network.ListOptions{Filters: filters.NewArgs(filters.Arg("name", fmt.Sprintf("dockerexec-fault-%d-", c.number)))})
	assert.NoError(c, err)
	return all
}

func networksThere(c *faultCell) {
	all := c.networksNamed()
	assert.Len(c, all, len(c.task.Networks))
	for _, n := range all {
		assert.Contains(c, n.Labels, labelNetwork)
	}
}

func networksGone(c *faultCell) { assert.Empty(c, c.networksNamed()) }

func volumeThere(c *faultCell) {
	_, err := c.bench.client.VolumeInspect(c.ctx(), c.volume)
	assert.NoError(c, err)
}

// seen is the engine's record of the container, which has the task's name. It is
// empty if there is none.
func (c *faultCell) seen() container.InspectResponse {
	answer, err := c.bench.client.ContainerInspect(c.ctx(), c.adapter.config.name())
	if err != nil {
		assert.True(c, IsUnknownContainer(err), err)
		return container.InspectResponse{ContainerJSONBase: &container.ContainerJSONBase{State: &container.State{}}}
	}
	assert.Equal(c, c.task.ID, answer.Config.Labels[labelTaskID])
	return answer
}

func strangerRuns(c *faultCell) {
	answer, err := c.bench.client.ContainerInspect(c.ctx(), c.stranger)
	if assert.NoError(c, err, "the stranger's container") {
		assert.True(c, answer.State.Running, "the stranger's container runs")
	}
}

func isCreated(c *faultCell) { assert.EqualValues(c, "created", c.seen().State.Status) }

func isPrepared(c *faultCell) {
	isCreated(c)
	if c.volume != "" {
		volumeThere(c)
	}
	if c.pushed != "" {
		imagePresent(c)
	}
	if c.task.Networks[0].Network.Spec.Annotations.Name != "none" {
		networksThere(c)
	}
}

func isConnected(c *faultCell) {
	isCreated(c)
	networksThere(c)
	assert.Contains(c, c.seen().NetworkSettings.Networks, c.network(0))
	assert.Contains(c, c.seen().NetworkSettings.Networks, c.network(1))
}

func startedOnce(c *faultCell) {
	seen := c.seen()
	assert.EqualValues(c, "running", seen.State.Status)
	if spec(c.task).Healthcheck != nil && assert.NotNil(c, seen.State.Health) {
		assert.EqualValues(c, "healthy", seen.State.Health.Status)
	}
	if c.startedAt == "" {
		c.startedAt = seen.State.StartedAt
	}
	assert.Equal(c, c.startedAt, seen.State.StartedAt)
}

func isStopped(c *faultCell) { assert.EqualValues(c, "exited", c.seen().State.Status) }

func isGone(c *faultCell) { assert.Empty(c, c.seen().State.Status) }

func allGone(c *faultCell) {
	isGone(c)
	networksGone(c)
}

func allPublished(c *faultCell) { assert.Equal(c, loggedLines, c.published()) }

func allPublishedAndReady(c *faultCell) {
	assert.Equal(c, slices.Insert(slices.Clone(loggedLines), 5, "stdout ready\n"), c.published())
}

// published has what was published by stream: an engine reads one beside the other.
func (c *faultCell) published() (lines []string) {
	for _, stream := range []string{"stdout", "stderr"} {
		for _, line := range c.sink.lines() {
			if strings.HasPrefix(line, stream) {
				lines = append(lines, line)
			}
		}
	}
	return lines
}
