package dockerexec

import "github.com/stretchr/testify/assert"

// streamFaultRows are those of the adapter's events and logs.
func streamFaultRows() []*faultRow {
	return []*faultRow{
		{
			name: "Events: events", target: "GET events", kinds: "rrrrr rr rrrrr rrr c",
			setup: func(c *faultCell) { c.share(c.bench.running) }, op: untilAnEvent, endless: true, sample: anEvent,
		},
		{
			name: "Events: ping", target: "* _ping", nth: 2, before: true, kinds: "rrr-r -- rrrrr rrr c",
			setup: func(c *faultCell) { c.share(c.bench.running) }, op: untilAnEvent,
		},
		{
			name: "Wait: ping", target: "* _ping", nth: 2, before: true, kinds: "rrr-r -- rrrrr rrr c",
			setup: (*faultCell).useStarted, op: waitFor137, onHit: kill,
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
			name: "Wait, renamed: inspect by ID", target: "GET containers/<ID>/json", kinds: "rrrrr fr dfrfr rrr c",
			setup: func(c *faultCell) { c.useStarted(); c.id = c.seen().ID }, op: waitRenamed, onHit: killByID,
			says: map[fault]string{fault404: noContainer},
		},
		{
			name: "Logs: logs", target: "GET containers/*/logs", kinds: "tttee bb fftft --t c", untimed: true,
			setup: func(c *faultCell) { c.share(c.bench.logged) }, op: readRawLogs,
			says: map[fault]string{fault404: noContainer},
		},
		{
			name: "PublishLogs: inspect", target: "GET containers/*/json", kinds: "ttttt ft fftft ttt c",
			setup: func(c *faultCell) { c.share(c.bench.logged) }, op: publishLogs(false), done: allPublished,
			says: map[fault]string{fault404: noContainer},
		},
		{
			name: "PublishLogs: logs", target: "GET containers/*/logs", kinds: "ttttt fb fftft --t c", untimed: true,
			setup: func(c *faultCell) { c.share(c.bench.logged) }, op: publishLogs(false), done: allPublished,
			says: map[fault]string{fault404: noContainer},
		},
		{
			name: "PublishLogs, followed: inspect", target: "GET containers/*/json", kinds: "rrrrr fr rfrfr rrr c",
			setup: func(c *faultCell) { c.share(c.bench.logged) }, op: publishLogs(true), done: allPublished,
			says: map[fault]string{fault404: noContainer},
		},
		{
			name: "PublishLogs, followed: logs", target: "GET containers/*/logs", kinds: "rrrrr fb bbrfr --r c", untimed: true,
			setup: func(c *faultCell) { c.share(c.bench.logged) }, op: publishLogs(true), done: allPublished,
			says: map[fault]string{fault404: noContainer, fault409: "can not get logs from container which is dead or marked for removal"},
		},
		{
			name: "PublishLogs, followed while it runs: logs", target: "GET containers/*/logs", kinds: "rrrrr fr bbrfr --r c", endless: true, untimed: true,
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
	}
}
