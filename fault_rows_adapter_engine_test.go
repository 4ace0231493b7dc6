package dockerexec

import (
	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/stretchr/testify/require"
)

// adapterFaultRows are those of calls of the adapter that end with an answer.
func adapterFaultRows() []*faultRow {
	return []*faultRow{
		{
			name: "Inspect: ping", target: "* _ping", every: true, kinds: "ttt-t -- ttttt ttt c",
			setup: func(c *faultCell) { c.share(c.bench.running); c.about = pingFault },
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
			setup: func(c *faultCell) { c.mount(1); c.use(); c.about = c.volumes[0] },
			op:    onAdapter((*ContainerAdapter).CreateVolumes), done: volumesThere,
		},
		{
			name: "CreateVolumes: create second", target: "POST volumes/create", nth: 2, kinds: "ttttt ft fftft ttt c",
			setup: func(c *faultCell) { c.mount(2); c.use(); c.about = c.volumes[1] },
			op:    onAdapter((*ContainerAdapter).CreateVolumes), done: volumesThere,
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
			name: "Create, adopting: connect", target: "POST networks/*/connect", kinds: "ttt-t -- fftft ttt c",
			setup: func(c *faultCell) { c.join(2); c.use(); c.createHalfConnected(); c.about = c.network(1) },
			op:    onAdapter((*ContainerAdapter).Create), done: isConnected,
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
			name: "Create, with a secret: information", target: "GET info", kinds: "ttttt ft fftft ttt c", needs: besideUs,
			setup: func(c *faultCell) { c.useSecret(); c.about = "secrets and configs: engine information" },
			op:    onAdapter((*ContainerAdapter).Create), done: isCreatedWithFiles, again: exec.ErrTaskPrepared,
		},
		{
			name: "Create, with a secret: list of containers", target: "GET containers/json", kinds: "ttttt st sstst ttt c", needs: besideUs,
			setup: func(c *faultCell) {
				c.useSecret()
				c.leaveFiles()
				c.about = "secrets and configs: list of containers"
			},
			op: onAdapter((*ContainerAdapter).Create), done: isCreatedWithFiles, again: exec.ErrTaskPrepared,
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
	}
}
