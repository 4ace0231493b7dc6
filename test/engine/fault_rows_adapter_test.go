package engine_test

import (
	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/stretchr/testify/require"

	"github.com/dockerexec/dockerexec"
)

// adapterFaultRows are those of calls of the adapter that end with an answer.
func adapterFaultRows() []*faultRow {
	return []*faultRow{
		{
			name: "Inspect: ping", target: "* _ping", every: true, bodiless: true,
			ends:  always(temporary).but(outcomes{fault403: repeated}),
			setup: func(c *faultCell) { c.share(c.bench.running); c.about = pingFault },
			op:    inspectIt,
		},
		{
			name: "PullImage: pull", target: "POST images/create",
			ends:  once.but(outcomes{fault429: final, faultNever: final, faultSlow: final}),
			setup: func(c *faultCell) { c.push(); c.use(); c.about = c.pushed },
			op:    onAdapter((*dockerexec.ContainerAdapter).PullImage), done: imagePresent,
			says:    map[fault]string{fault404: "manifest for NAME not found: manifest unknown: manifest unknown"},
			options: []dockerexec.Option{dockerexec.WithPullAttempts(1)},
		},
		{
			name: "PullImage: inspect image", target: "GET images/*",
			ends: once.but(outcomes{faultGarbled: success, fault403: success, fault404: success, fault409: success, fault500: success}),
			setup: func(c *faultCell) {
				spec(c.task).Image = c.bench.reference
				c.use()
				c.about = c.bench.reference
			},
			op: onAdapter((*dockerexec.ContainerAdapter).PullImage),
		},
		{
			name: "CreateNetworks: create first", target: "POST networks/create",
			ends:  once.but(outcomes{fault409: temporary}),
			setup: func(c *faultCell) { c.join(2); c.use(); c.about = c.network(0) },
			op:    onAdapter((*dockerexec.ContainerAdapter).CreateNetworks), done: networksThere,
			says: map[fault]string{fault409: "network with name NAME already exists"},
		},
		{
			name: "CreateNetworks: create second", target: "POST networks/create", nth: 2,
			ends:  once.but(outcomes{fault409: temporary}),
			setup: func(c *faultCell) { c.join(2); c.use(); c.about = c.network(1) },
			op:    onAdapter((*dockerexec.ContainerAdapter).CreateNetworks), done: networksThere,
			says: map[fault]string{fault409: "network with name NAME already exists"},
		},
		{
			name: "CreateNetworks: inspect", target: "GET networks/*",
			ends: once.but(outcomes{fault403: success, fault404: temporary}),
			setup: func(c *faultCell) {
				c.join(1)
				c.use()
				require.NoError(c, c.fresh().CreateNetworks(c.ctx()))
				c.about = c.network(0)
			},
			op: onAdapter((*dockerexec.ContainerAdapter).CreateNetworks), done: networksThere,
			says: map[fault]string{fault404: noNetwork},
		},
		{
			name: "CreateVolumes: create", target: "POST volumes/create",
			ends:  once.but(outcomes{fault403: success}), // the create of the container makes it
			setup: func(c *faultCell) { c.mount(1); c.use(); c.about = c.volumes[0] },
			op:    onAdapter((*dockerexec.ContainerAdapter).CreateVolumes), done: volumesMade,
		},
		{
			name: "CreateVolumes: create second", target: "POST volumes/create", nth: 2,
			ends:  once.but(outcomes{fault403: success}),
			setup: func(c *faultCell) { c.mount(2); c.use(); c.about = c.volumes[1] },
			op:    onAdapter((*dockerexec.ContainerAdapter).CreateVolumes), done: volumesMade,
		},
		{
			name: "Create: create", target: "POST containers/create",
			ends:  once.but(outcomes{fault409: repeated}),
			setup: (*faultCell).use, op: onAdapter((*dockerexec.ContainerAdapter).Create), done: isCreated,
			made: exec.ErrTaskPrepared, again: exec.ErrTaskPrepared,
			says: map[fault]string{fault404: "No such image: nosuch:1", fault409: sameName},
		},
		{
			name: "Create: inspect the holder", target: "GET containers/*/json",
			ends:  once.but(outcomes{fault404: prepared}),
			setup: (*faultCell).useCreated, op: onAdapter((*dockerexec.ContainerAdapter).Create), done: isCreated,
			unmade: exec.ErrTaskPrepared, made: exec.ErrTaskPrepared, again: exec.ErrTaskPrepared,
			says: map[fault]string{fault404: noContainer},
		},
		{
			name: "Create, the name is a stranger's: inspect", target: "GET containers/*/json",
			ends:  once.but(outcomes{fault404: strangers}),
			setup: func(c *faultCell) { c.use(); c.startStranger() }, op: createBesideStranger, done: strangerRuns,
			unmade: errStranger, made: errStranger,
			says: map[fault]string{fault404: noContainer},
		},
		{
			name: "Create: connect", target: "POST networks/*", bodiless: true, needs: oneNetworkAtATime,
			ends: once,
			setup: func(c *faultCell) {
				c.join(2)
				c.use()
				require.NoError(c, c.fresh().CreateNetworks(c.ctx()))
				c.about = c.network(1)
			},
			op: onAdapter((*dockerexec.ContainerAdapter).Create), done: isConnected,
			unmade: exec.ErrTaskPrepared, made: exec.ErrTaskPrepared, again: exec.ErrTaskPrepared,
			says: map[fault]string{fault404: noNetwork},
		},
		{
			name: "Create, adopting: connect", target: "POST networks/*/connect", bodiless: true,
			ends:  once,
			setup: func(c *faultCell) { c.join(2); c.use(); c.createHalfConnected(); c.about = c.network(1) },
			op:    onAdapter((*dockerexec.ContainerAdapter).Create), done: isConnected,
			unmade: exec.ErrTaskPrepared, made: exec.ErrTaskPrepared, again: exec.ErrTaskPrepared,
			says: map[fault]string{fault404: noNetwork},
		},
		{
			name: "Create: cores", target: "GET info", needs: refusesManyCores,
			ends:  once.but(outcomes{fault403: success, fault404: success}),
			setup: (*faultCell).useManyCores, op: onAdapter((*dockerexec.ContainerAdapter).Create), done: isCreated, again: exec.ErrTaskPrepared,
		},
		{
			name: "Create: create with all cores", target: "POST containers/create", nth: 2, needs: refusesManyCores,
			ends:  once.but(outcomes{fault409: repeated}),
			setup: (*faultCell).useManyCores, op: onAdapter((*dockerexec.ContainerAdapter).Create), done: isCreated, made: exec.ErrTaskPrepared, again: exec.ErrTaskPrepared,
			says: map[fault]string{fault404: "No such image: nosuch:1", fault409: sameName},
		},
		{
			name: "Create, with a secret: information", target: "GET info", needs: besideUs,
			ends:  once,
			setup: func(c *faultCell) { c.useSecret(); c.about = "secrets and configs: engine information" },
			op:    onAdapter((*dockerexec.ContainerAdapter).Create), done: isCreatedWithFiles, again: exec.ErrTaskPrepared,
		},
		{
			name: "Create, with a secret: list of containers", target: "GET containers/json", needs: besideUs,
			ends: once.but(outcomes{faultGarbled: success, fault403: success, fault404: success, fault409: success, fault500: success}),
			setup: func(c *faultCell) {
				c.useSecret()
				c.leaveFiles()
				c.about = "secrets and configs: list of containers"
			},
			op: onAdapter((*dockerexec.ContainerAdapter).Create), done: isCreatedWithFiles, again: exec.ErrTaskPrepared,
		},
		{
			name: "Start: start", target: "POST containers/*/start", bodiless: true,
			ends:  once.but(outcomes{fault404: repeated}),
			setup: (*faultCell).useCreated, done: startedOnce,
			op:   onAdapter((*dockerexec.ContainerAdapter).Start),
			says: map[fault]string{fault404: noContainer, fault409: "container is marked for removal and cannot be started"},
		},
		{
			name: "Inspect: inspect", target: "GET containers/*/json",
			ends:  once.but(outcomes{fault404: repeated}),
			setup: func(c *faultCell) { c.share(c.bench.running) }, op: inspectIt,
			says: map[fault]string{fault404: noContainer},
		},
		{
			name: "Shutdown: stop", target: "POST containers/*/stop", bodiless: true,
			ends:  once.but(outcomes{fault404: believed, faultNever: success, faultSlow: success}),
			setup: (*faultCell).useLingering, done: isStopped, stops: true,
			op:   onAdapter((*dockerexec.ContainerAdapter).Shutdown),
			says: map[fault]string{fault404: noContainer},
		},
		{
			name: "Shutdown, renamed: list", target: "GET containers/json",
			ends:  once.but(outcomes{fault403: believed, fault404: believed}),
			setup: (*faultCell).useRenamed, done: isStopped, stops: true,
			op: onAdapter((*dockerexec.ContainerAdapter).Shutdown),
		},
		{
			name: "Shutdown, renamed: inspect image", target: "GET images/*",
			ends:  once.but(outcomes{faultGarbled: believed, fault403: believed, fault404: believed, fault409: believed, fault500: believed}),
			setup: (*faultCell).useRenamed, done: isStopped, stops: true,
			op: onAdapter((*dockerexec.ContainerAdapter).Shutdown),
		},
		{
			name: "Terminate: kill", target: "POST containers/*/kill", bodiless: true,
			ends:  once.but(outcomes{fault404: believed, fault409: believed}),
			setup: (*faultCell).useStarted, done: isStopped,
			op:   onAdapter((*dockerexec.ContainerAdapter).Terminate),
			says: map[fault]string{fault404: noContainer, fault409: "Cannot kill container: NAME: Container 0123456789ab is not running"},
		},
		{
			name: "Remove: remove", target: "DELETE containers/*", bodiless: true,
			ends:  once.but(outcomes{fault404: believed, fault409: temporary}),
			setup: (*faultCell).useStarted, done: isGone, op: onAdapter((*dockerexec.ContainerAdapter).Remove), waits: true,
			says: map[fault]string{fault404: noContainer, fault409: beingRemoved},
		},
		{
			name: "Remove: inspect until gone", target: "GET containers/*/json",
			ends:  once.but(outcomes{fault404: believed}),
			setup: (*faultCell).useCreated, done: isGone, op: onAdapter((*dockerexec.ContainerAdapter).Remove),
			others: map[string]answerInstead{"DELETE containers/*": {409, beingRemoved}},
			says:   map[fault]string{fault404: noContainer},
		},
		{
			name: "RemoveNetworks: inspect", target: "GET networks/*",
			ends:  once.but(outcomes{fault403: believed, fault404: believed}),
			setup: (*faultCell).useNetworks, done: networksGone, op: onAdapter((*dockerexec.ContainerAdapter).RemoveNetworks),
			says: map[fault]string{fault404: noNetwork},
		},
		{
			name: "RemoveNetworks: list who needs them", target: "GET containers/json",
			ends:  once.but(outcomes{fault403: repeated, fault404: repeated}),
			setup: (*faultCell).useNetworks, done: networksGone, op: onAdapter((*dockerexec.ContainerAdapter).RemoveNetworks),
		},
		{
			name: "RemoveNetworks: remove first", target: "DELETE networks/*", bodiless: true,
			ends:  once.but(outcomes{fault404: believed}),
			setup: (*faultCell).useNetworks, done: networksGone, op: onAdapter((*dockerexec.ContainerAdapter).RemoveNetworks),
			says: map[fault]string{fault404: noNetwork},
		},
		{
			name: "RemoveNetworks: remove second", target: "DELETE networks/*", nth: 2, bodiless: true,
			ends:  once.but(outcomes{fault404: believed}),
			setup: func(c *faultCell) { c.useNetworks(); c.about = c.network(1) }, done: networksGone, op: onAdapter((*dockerexec.ContainerAdapter).RemoveNetworks),
			says: map[fault]string{fault404: noNetwork},
		},
	}
}
