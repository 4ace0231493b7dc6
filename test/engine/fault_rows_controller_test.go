package engine_test

import (
	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/moby/swarmkit/v2/api"
	"github.com/stretchr/testify/require"

	"github.com/dockerexec/dockerexec"
)

// controllerFaultRows are those of the executor and its controllers.
func controllerFaultRows() []*faultRow {
	return []*faultRow{
		{
			name: "Describe: ping", target: "* _ping", every: true, bodiless: true,
			ends:  always(temporary).but(outcomes{fault403: repeated}),
			setup: func(c *faultCell) { c.shared, c.about = true, pingFault }, op: describeIt,
		},
		{
			name: "Describe: information", target: "GET info",
			ends:  once,
			setup: func(c *faultCell) { c.shared, c.about = true, "describe the node: engine information" }, op: describeIt,
		},
		{
			name: "Describe: plugins", target: "GET plugins", needs: servesPlugins,
			ends:  once.but(outcomes{faultGarbled: success, fault403: success, fault404: success, fault409: success, fault500: success}),
			setup: func(c *faultCell) { c.shared, c.about = true, "describe the node: plugins" }, op: describeIt,
		},
		{
			name: "controller Prepare: create network", target: "POST networks/create",
			ends:  once.but(outcomes{fault409: temporary}),
			setup: func(c *faultCell) { c.join(1); c.mount(1); c.control(api.TaskStateAccepted); c.about = c.network(0) },
			op:    onController(exec.Controller.Prepare), done: isPrepared, again: exec.ErrTaskPrepared,
			says: map[fault]string{fault409: "network with name NAME already exists"},
		},
		{
			name: "controller Prepare: inspect network", target: "GET networks/*",
			ends: once.but(outcomes{fault403: success, fault404: temporary}),
			setup: func(c *faultCell) {
				c.join(1)
				c.control(api.TaskStateAccepted)
				require.NoError(c, c.fresh().CreateNetworks(c.ctx()))
				c.about = c.network(0)
			},
			op: onController(exec.Controller.Prepare), done: isPrepared, again: exec.ErrTaskPrepared,
			says: map[fault]string{fault404: noNetwork},
		},
		{
			name: "controller Prepare: create volume", target: "POST volumes/create",
			ends:  once.but(outcomes{fault403: success}),
			setup: func(c *faultCell) { c.join(1); c.mount(1); c.control(api.TaskStateAccepted); c.about = c.volumes[0] },
			op:    onController(exec.Controller.Prepare), done: isPrepared, again: exec.ErrTaskPrepared,
		},
		{
			name: "controller Prepare: pull", target: "POST images/create",
			ends:  always(repeated).but(outcomes{faultGarbled: success, fault403: final, fault404: final, faultNever: final, faultSlow: success}),
			setup: func(c *faultCell) { c.push(); c.control(api.TaskStateAccepted); c.about = c.pushed },
			op:    onController(exec.Controller.Prepare), done: isPrepared, again: exec.ErrTaskPrepared,
			says:    map[fault]string{fault404: "manifest for NAME not found: manifest unknown: manifest unknown"},
			options: []dockerexec.Option{dockerexec.WithPullAttempts(2)},
		},
		{
			name: "controller Prepare: inspect image", target: "GET images/*",
			ends: once.but(outcomes{fault403: success}),
			setup: func(c *faultCell) {
				spec(c.task).Image = fromHarness(c.tb(), "DOCKEREXEC_TEST_IMAGE")
				c.control(api.TaskStateAccepted)
				c.about = spec(c.task).Image
			},
			op: onController(exec.Controller.Prepare), done: isPrepared, again: exec.ErrTaskPrepared,
			others: map[string]answerInstead{"POST images/create": {404, "manifest for NAME not found: manifest unknown: manifest unknown"}},
		},
		{
			name: "controller Prepare: inspect image by digest", target: "GET images/*",
			ends: once.but(outcomes{faultGarbled: success, fault403: success, fault404: success, fault409: success, fault500: success}),
			setup: func(c *faultCell) {
				spec(c.task).Image = c.bench.reference
				c.control(api.TaskStateAccepted)
				c.about = c.bench.reference
			},
			op: onController(exec.Controller.Prepare), done: isPrepared, again: exec.ErrTaskPrepared,
		},
		{
			name: "controller Prepare: create", target: "POST containers/create",
			ends:  once.but(outcomes{fault409: repeated}),
			setup: func(c *faultCell) { c.control(api.TaskStateAccepted) },
			op:    onController(exec.Controller.Prepare), done: isPrepared, made: exec.ErrTaskPrepared, again: exec.ErrTaskPrepared,
			says: map[fault]string{fault404: "No such image: nosuch:1", fault409: sameName},
		},
		{
			name: "controller Prepare: create, the image can be pulled", target: "POST containers/create",
			ends:  once.but(outcomes{fault404: repeated, fault409: repeated}),
			setup: func(c *faultCell) { c.push(); c.control(api.TaskStateAccepted) },
			op:    onController(exec.Controller.Prepare), done: isPrepared, made: exec.ErrTaskPrepared, again: exec.ErrTaskPrepared,
			says: map[fault]string{fault404: "No such image: nosuch:1", fault409: sameName},
		},
		{
			name: "controller Prepare: inspect the holder", target: "GET containers/*/json",
			ends:  once.but(outcomes{fault404: prepared}),
			setup: func(c *faultCell) { c.useCreated(); c.control(api.TaskStateAccepted) },
			op:    onController(exec.Controller.Prepare), done: isPrepared,
			unmade: exec.ErrTaskPrepared, made: exec.ErrTaskPrepared, again: exec.ErrTaskPrepared,
			says: map[fault]string{fault404: noContainer},
		},
		{
			name: "controller Prepare: connect", target: "POST networks/*/connect", bodiless: true, needs: oneNetworkAtATime,
			ends:  once.but(outcomes{fault404: prepared}),
			setup: func(c *faultCell) { c.join(2); c.control(api.TaskStateAccepted); c.about = c.network(1) },
			op:    onController(exec.Controller.Prepare), done: isConnected,
			unmade: exec.ErrTaskPrepared, made: exec.ErrTaskPrepared, again: exec.ErrTaskPrepared,
			says: map[fault]string{fault404: "No such container: 0123456789ab"},
		},
		{
			name: "controller Prepare: cores", target: "GET info", needs: refusesManyCores,
			ends:  once.but(outcomes{fault403: success, fault404: success}),
			setup: func(c *faultCell) { c.useManyCores(); c.control(api.TaskStateAccepted) },
			op:    onController(exec.Controller.Prepare), done: isPrepared, left: exec.ErrTaskPrepared, again: exec.ErrTaskPrepared,
		},
		{
			name: "controller Prepare: create with all cores", target: "POST containers/create", nth: 2, needs: refusesManyCores,
			ends:  once.but(outcomes{fault409: repeated}),
			setup: func(c *faultCell) { c.useManyCores(); c.control(api.TaskStateAccepted) },
			op:    onController(exec.Controller.Prepare), done: isPrepared, made: exec.ErrTaskPrepared, again: exec.ErrTaskPrepared,
			says: map[fault]string{fault404: "No such image: nosuch:1", fault409: sameName},
		},
		{
			name: "controller Prepare, again: inspect", target: "GET containers/*/json",
			ends:  always(temporary).but(outcomes{fault403: final, fault404: prepared}),
			setup: func(c *faultCell) { c.useCreated(); c.control(api.TaskStatePreparing) },
			op:    onController(exec.Controller.Prepare), done: isPrepared,
			unmade: exec.ErrTaskPrepared, made: exec.ErrTaskPrepared, again: exec.ErrTaskPrepared,
			says: map[fault]string{fault404: noContainer},
		},
		{
			name: "controller Prepare, again: connect", target: "POST networks/*/connect", bodiless: true,
			ends: once.but(outcomes{fault404: prepared}),
			setup: func(c *faultCell) {
				c.join(2)
				c.use()
				c.createHalfConnected()
				c.control(api.TaskStatePreparing)
				c.about = c.network(1)
			},
			op: onController(exec.Controller.Prepare), done: isConnected,
			unmade: exec.ErrTaskPrepared, made: exec.ErrTaskPrepared, again: exec.ErrTaskPrepared,
			says: map[fault]string{fault404: noNetwork},
		},
		{
			name: "controller Start: ping", target: "* _ping", every: true, bodiless: true,
			ends:  always(temporary).but(outcomes{fault403: repeated}),
			setup: func(c *faultCell) { c.useCreated(); c.control(api.TaskStateStarting); c.about = pingFault },
			op:    onController(exec.Controller.Start), done: startedOnce, again: exec.ErrTaskStarted,
		},
		{
			name: "controller Start: inspect", target: "GET containers/*/json",
			ends:  always(temporary).but(outcomes{fault403: final, fault404: repeated}),
			setup: func(c *faultCell) { c.useCreated(); c.control(api.TaskStateStarting) },
			op:    onController(exec.Controller.Start), done: startedOnce, again: exec.ErrTaskStarted,
			says: map[fault]string{fault404: noContainer},
		},
		{
			name: "controller Start: start", target: "POST containers/*/start", bodiless: true,
			ends:  once,
			setup: func(c *faultCell) { c.useCreated(); c.control(api.TaskStateStarting) },
			op:    onController(exec.Controller.Start), done: startedOnce, made: exec.ErrTaskStarted, again: exec.ErrTaskStarted,
			says: map[fault]string{fault404: noContainer, fault409: "container is marked for removal and cannot be started"},
		},
		{
			name: "controller Start: create a vanished network", target: "POST networks/create",
			ends:  once.but(outcomes{fault409: temporary}),
			setup: func(c *faultCell) { c.controlVanishedNetwork(); c.about = c.network(0) },
			op:    onController(exec.Controller.Start), done: startedOnce, again: exec.ErrTaskStarted,
			says: map[fault]string{fault409: "network with name NAME already exists"},
		},
		{
			name: "controller Start: start after a vanished network", target: "POST containers/*/start", nth: 2, bodiless: true,
			ends:  once,
			setup: (*faultCell).controlVanishedNetwork,
			op:    onController(exec.Controller.Start), done: startedOnce, made: exec.ErrTaskStarted, again: exec.ErrTaskStarted,
			says: map[fault]string{fault404: noContainer, fault409: "container is marked for removal and cannot be started"},
		},
		{
			name: "controller Start, health: events", target: "GET events", endless: true, sample: anEvent, needs: checksHealth,
			ends:  always(either),
			setup: func(c *faultCell) { c.checkHealth("/etc/passwd"); c.useCreated(); c.control(api.TaskStateStarting) },
			op:    onController(exec.Controller.Start), done: startedOnce,
			unmade: exec.ErrTaskStarted, made: exec.ErrTaskStarted, again: exec.ErrTaskStarted,
		},
		{
			name: "controller Start, health: inspect", target: "GET containers/*/json", nth: 2, needs: checksHealth,
			ends:  always(repeated).but(outcomes{fault403: final, fault404: repeated}),
			setup: func(c *faultCell) { c.checkHealth("/etc/passwd"); c.useCreated(); c.control(api.TaskStateStarting) },
			op:    onController(exec.Controller.Start), done: startedOnce,
			unmade: exec.ErrTaskStarted, made: exec.ErrTaskStarted, again: exec.ErrTaskStarted,
			says: map[fault]string{fault404: noContainer},
		},
		{
			name: "controller Start, health: stop", target: "POST containers/*/stop", bodiless: true, needs: checksHealth,
			ends: stoppedOnce.but(outcomes{fault403: final, fault404: believed}),
			setup: func(c *faultCell) {
				c.linger()
				c.checkHealth("/nosuch")
				c.useCreated()
				c.control(api.TaskStateStarting)
			},
			op: controllerStartSick, done: isStopped, onHit: killIfGone, stops: true,
			says: map[fault]string{fault404: noContainer},
		},
		{
			name: "controller Start, a stray: stop", target: "POST containers/*/stop", bodiless: true, needs: besideContainerd,
			ends:  stoppedOnce.but(outcomes{fault403: final, fault404: believed}),
			setup: (*faultCell).controlStray, op: controllerStartStray, done: runsNoMore, onHit: killIfGone,
			made: exec.ErrTaskStarted, again: exec.ErrTaskStarted,
			says: map[fault]string{fault404: noContainer},
		},
		{
			name: "controller Wait: events", target: "GET events", endless: true, sample: anEvent,
			ends:  unlessInspected,
			setup: func(c *faultCell) { c.useStarted(); c.control(api.TaskStateRunning); c.awaitLook() }, op: controllerWait, onHit: killOnceLooked,
		},
		{
			name: "controller Wait: inspect", target: "GET containers/*/json",
			ends:  always(repeated).but(outcomes{fault403: final, fault404: repeated}),
			setup: func(c *faultCell) { c.useStarted(); c.control(api.TaskStateRunning) }, op: controllerWait, onHit: kill,
			says: map[fault]string{fault404: noContainer},
		},
		{
			name: "controller Wait, health: stop", target: "POST containers/*/stop", bodiless: true, needs: checksHealth,
			ends:  stoppedOnce.but(outcomes{fault403: final, fault404: believed}),
			setup: func(c *faultCell) { c.checkHealth("/nosuch"); c.useLingering(); c.control(api.TaskStateRunning) },
			op:    controllerWait, done: isStopped, onHit: killIfGone, stops: true,
			says: map[fault]string{fault404: noContainer},
		},
		{
			name: "controller Shutdown: stop", target: "POST containers/*/stop", bodiless: true,
			ends:  always(temporary).but(outcomes{fault403: final, fault404: believed, faultNever: success, faultSlow: success}),
			setup: func(c *faultCell) { c.useLingering(); c.control(api.TaskStateRunning) }, done: isStopped, stops: true,
			op:   onController(exec.Controller.Shutdown),
			says: map[fault]string{fault404: noContainer},
		},
		{
			name: "controller Shutdown: inspect for a lost start", target: "GET containers/*/json",
			ends:  always(temporary).but(outcomes{fault403: final, fault404: repeated}),
			setup: func(c *faultCell) { c.useLingering(); c.control(api.TaskStateRunning) }, done: isStopped, stops: true,
			op:   onController(exec.Controller.Shutdown),
			says: map[fault]string{fault404: noContainer},
		},
		{
			name: "controller Shutdown, the stop fails: inspect", target: "GET containers/*/json", nth: 2,
			ends:  always(temporary),
			setup: func(c *faultCell) { c.useLingering(); c.control(api.TaskStateRunning) }, done: isStopped, stops: true,
			op:     onController(exec.Controller.Shutdown),
			others: map[string]answerInstead{"POST containers/*/stop": {500, "cannot stop container: NAME: permission denied"}},
			says:   map[fault]string{fault404: noContainer},
		},
		{
			name: "controller Shutdown, named: inspect", target: "GET containers/*/json",
			ends:  always(temporary).but(outcomes{fault403: final, fault404: believed}),
			setup: func(c *faultCell) { c.rename(); c.useLingering(); c.control(api.TaskStateRunning) }, done: isStopped, stops: true,
			op:   onController(exec.Controller.Shutdown),
			says: map[fault]string{fault404: noContainer},
		},
		{
			name: "controller Terminate: kill", target: "POST containers/*/kill", bodiless: true,
			ends:  always(temporary).but(outcomes{fault403: final, fault404: believed, fault409: believed}),
			setup: func(c *faultCell) { c.useStarted(); c.control(api.TaskStateRunning) }, done: isStopped,
			op:   onController(exec.Controller.Terminate),
			says: map[fault]string{fault404: noContainer, fault409: "Cannot kill container: NAME: Container 0123456789ab is not running"},
		},
		{
			name: "controller Terminate, named: inspect", target: "GET containers/*/json",
			ends:  always(temporary).but(outcomes{fault403: final, fault404: believed}),
			setup: func(c *faultCell) { c.rename(); c.useStarted(); c.control(api.TaskStateRunning) }, done: isStopped,
			op:   onController(exec.Controller.Terminate),
			says: map[fault]string{fault404: noContainer},
		},
		{
			name: "controller Remove: ping", target: "* _ping", nth: 2, before: true, bodiless: true,
			ends:  always(repeated).but(outcomes{fault403: success}),
			setup: (*faultCell).controlAnew, op: onController(exec.Controller.Remove), done: allGone,
		},
		{
			name: "controller Remove: stop", target: "POST containers/*/stop", bodiless: true,
			ends:  stoppedOnce,
			setup: (*faultCell).controlLingering, stops: true, op: onController(exec.Controller.Remove), done: allGone,
			says: map[fault]string{fault404: noContainer},
		},
		{
			name: "controller Remove: remove", target: "DELETE containers/*", bodiless: true,
			ends:  always(repeated).but(outcomes{fault403: final, fault404: believed}),
			setup: (*faultCell).controlStarted, op: onController(exec.Controller.Remove), done: allGone, waits: true,
			says: map[fault]string{fault404: noContainer, fault409: beingRemoved},
		},
		{
			name: "controller Remove: inspect until gone", target: "GET containers/*/json",
			ends:  always(repeated).but(outcomes{faultGarbled: final, fault403: final, fault404: believed}),
			setup: (*faultCell).controlStarted, op: onController(exec.Controller.Remove), done: allGone, onHit: removeIt,
			others: map[string]answerInstead{"DELETE containers/*": {409, beingRemoved}},
			says:   map[fault]string{fault404: noContainer},
		},
		{
			name: "controller Remove: list who needs a network", target: "GET containers/json",
			ends:  always(repeated).but(outcomes{faultGarbled: final, fault403: success, fault404: success}),
			setup: func(c *faultCell) { c.controlStarted(); c.about = c.network(0) }, op: onController(exec.Controller.Remove), done: allGone,
		},
		{
			name: "controller Remove: remove network", target: "DELETE networks/*", bodiless: true,
			ends:  always(repeated).but(outcomes{fault403: final, fault404: believed}),
			setup: func(c *faultCell) { c.controlStarted(); c.about = c.network(0) }, op: onController(exec.Controller.Remove), done: allGone,
			says: map[fault]string{fault404: noNetwork},
		},
		{
			name: "controller Remove, anew: inspect", target: "GET containers/*/json",
			ends:  always(repeated).but(outcomes{faultGarbled: final, fault403: final, fault404: believed}),
			setup: (*faultCell).controlAnew, op: onController(exec.Controller.Remove), done: allGone,
			says: map[fault]string{fault404: noContainer},
		},
		{
			name: "controller Remove, anew: inspect for a lost start", target: "GET containers/*/json", nth: 2,
			ends:  always(repeated),
			setup: (*faultCell).controlAnew, op: onController(exec.Controller.Remove), done: allGone,
			says: map[fault]string{fault404: noContainer},
		},
		{
			name: "controller Remove, after a lost create: inspect", target: "GET containers/*/json",
			ends:  always(repeated).but(outcomes{faultGarbled: final, fault403: final}),
			setup: func(c *faultCell) { c.join(1); c.control(api.TaskStateAccepted); c.loseCreate() },
			op:    onController(exec.Controller.Remove), done: allGone,
			says: map[fault]string{fault404: noContainer},
		},
		{
			name: "controller Remove, anew: inspect network", target: "GET networks/*",
			ends:  always(repeated).but(outcomes{faultGarbled: final, fault403: believed, fault404: believed}),
			setup: func(c *faultCell) { c.controlAnew(); c.about = c.network(0) }, op: onController(exec.Controller.Remove), done: allGone,
			says: map[fault]string{fault404: noNetwork},
		},
		{
			name: "controller Shutdown, a stranger's: inspect", target: "GET containers/*/json",
			ends:  always(temporary).but(outcomes{fault403: final, fault404: believed}),
			setup: (*faultCell).controlStranger, op: onController(exec.Controller.Shutdown), done: strangerRuns,
			says: map[fault]string{fault404: noContainer},
		},
		{
			name: "controller Remove, a stranger's: inspect", target: "GET containers/*/json",
			ends:  always(repeated).but(outcomes{faultGarbled: final, fault403: final, fault404: believed}),
			setup: (*faultCell).controlStranger, op: onController(exec.Controller.Remove), done: strangerRuns,
			says: map[fault]string{fault404: noContainer},
		},
		{
			name: "controller ContainerStatus: inspect", target: "GET containers/*/json",
			ends:  always(noStatus).but(outcomes{fault403: final, fault404: repeated, faultGarbled: final, fault409: final, fault500: final}),
			setup: func(c *faultCell) { c.share(c.bench.running); c.control(api.TaskStateRunning) }, op: containerStatusOf,
			says: map[fault]string{fault404: noContainer},
		},
		{
			name: "controller PortStatus: inspect", target: "GET containers/*/json",
			ends:  always(noStatus).but(outcomes{fault403: final, fault404: repeated, faultGarbled: final, fault409: final, fault500: final}),
			setup: func(c *faultCell) { c.share(c.bench.running); c.control(api.TaskStateRunning) }, op: portStatusOf,
			says: map[fault]string{fault404: noContainer},
		},
		{
			name: "controller Logs: inspect", target: "GET containers/*/json",
			ends:  once.but(outcomes{fault404: believed}),
			setup: func(c *faultCell) { c.share(c.bench.logged); c.control(api.TaskStateRunning) }, op: controllerLogs, done: allPublished,
		},
		{
			name: "controller Logs: logs", target: "GET containers/*/logs", untimed: true,
			ends:  once.but(outcomes{faultEmpty: repeated, fault404: believed}),
			setup: func(c *faultCell) { c.share(c.bench.logged); c.control(api.TaskStateRunning) }, op: controllerLogs, done: allPublished,
		},
	}
}
