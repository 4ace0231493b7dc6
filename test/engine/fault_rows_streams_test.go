package engine_test

import "github.com/stretchr/testify/assert"

// streamFaultRows are those of the adapter's events and logs.
func streamFaultRows() []*faultRow {
	return []*faultRow{
		{
			name: "Events: events", target: "GET events",
			ends:  always(repeated),
			setup: func(c *faultCell) { c.share(c.bench.running) }, op: untilAnEvent, endless: true, sample: anEvent,
		},
		{
			name: "Events: ping", target: "* _ping", nth: 2, before: true, bodiless: true,
			ends:  always(repeated).but(outcomes{fault403: believed}), // of the client's newest version; 20.10 refuses it and is pinged again
			setup: func(c *faultCell) { c.share(c.bench.running) }, op: untilAnEvent,
		},
		{
			name: "Wait: ping", target: "* _ping", nth: 2, before: true, bodiless: true,
			ends:  always(repeated).but(outcomes{fault403: success}),
			setup: (*faultCell).useStarted, op: waitFor137, onHit: kill,
		},
		{
			name: "Wait: events", target: "GET events", endless: true, sample: anEvent,
			ends:  unlessInspected,
			setup: func(c *faultCell) { c.useStarted(); c.awaitLook() }, op: waitFor137, onHit: killOnceLooked,
		},
		{
			name: "Wait: inspect", target: "GET containers/*/json",
			ends:  always(repeated).but(outcomes{fault403: final, faultGarbled: final, fault404: repeated, fault409: final, fault500: final}),
			setup: (*faultCell).useStarted, op: waitFor137, onHit: kill,
			says: map[fault]string{fault404: noContainer},
		},
		{
			name: "Wait: inspect again", target: "GET containers/*/json", nth: 2,
			ends:  always(repeated).but(outcomes{faultGarbled: final, fault403: final, fault409: final, fault500: final}),
			setup: (*faultCell).useStarted, op: waitFor137, onHit: kill,
			says: map[fault]string{fault404: noContainer},
		},
		{
			name: "Wait, renamed: inspect by ID", target: "GET containers/<ID>/json",
			ends:  always(repeated).but(outcomes{faultGarbled: final, fault403: final, fault404: destroyed, fault409: final, fault500: final}),
			setup: func(c *faultCell) { c.useStarted(); c.id = c.seen().ID }, op: waitRenamed, onHit: killByID,
			says: map[fault]string{fault404: noContainer},
		},
		{
			name: "Logs: logs", target: "GET containers/*/logs", untimed: true,
			ends:  once.but(outcomes{fault404: repeated, faultBody: unreadable, faultCut: unreadable, faultGarbled: believed, faultEmpty: believed}),
			setup: func(c *faultCell) { c.share(c.bench.logged) }, op: readRawLogs,
			says: map[fault]string{fault404: noContainer},
		},
		{
			name: "PublishLogs: inspect", target: "GET containers/*/json",
			ends:  once.but(outcomes{fault404: repeated}),
			setup: func(c *faultCell) { c.share(c.bench.logged) }, op: publishLogs(false), done: allPublished,
			says: map[fault]string{fault404: noContainer},
		},
		{
			name: "PublishLogs: logs", target: "GET containers/*/logs", untimed: true,
			ends:  once.but(outcomes{faultEmpty: repeated}),
			setup: func(c *faultCell) { c.share(c.bench.logged) }, op: publishLogs(false), done: allPublished,
			says: map[fault]string{fault404: noContainer},
		},
		{
			name: "PublishLogs: last entry", target: "GET containers/*/logs", nth: 2, untimed: true,
			ends:  always(temporary).but(outcomes{faultGarbled: believed, faultEmpty: believed, fault403: believed, fault404: believed, fault409: believed, fault500: believed}),
			setup: func(c *faultCell) { c.share(c.bench.logged) }, op: publishLogs(false), done: allPublished,
		},
		{
			name: "PublishLogs, followed: inspect", target: "GET containers/*/json",
			ends:  always(repeated).but(outcomes{faultGarbled: final, fault403: final, fault409: final, fault500: final}),
			setup: func(c *faultCell) { c.share(c.bench.logged) }, op: publishLogs(true), done: allPublished,
			says: map[fault]string{fault404: noContainer},
		},
		{
			name: "PublishLogs, followed: logs", target: "GET containers/*/logs", untimed: true,
			ends:  always(repeated).but(outcomes{faultGarbled: final, fault403: final, fault404: believed, fault409: believed, fault500: final}),
			setup: func(c *faultCell) { c.share(c.bench.logged) }, op: publishLogs(true), done: allPublished,
			says: map[fault]string{fault404: noContainer, fault409: "can not get logs from container which is dead or marked for removal"},
		},
		{
			name: "PublishLogs, followed while it runs: logs", target: "GET containers/*/logs", nth: 3, endless: true, untimed: true,
			ends: always(repeated).but(outcomes{faultGarbled: final, fault403: final, fault404: believed, fault409: believed, fault500: final}),
			setup: func(c *faultCell) {
				spec(c.task).Args = []string{"print", "5", "line", "--", "sleep", "1h"}
				c.useStarted()
				c.untilReady()
			},
			op: publishLogs(true), done: allPublishedAndReady, onHit: kill,
			says: map[fault]string{fault404: noContainer, fault409: "can not get logs from container which is dead or marked for removal"},
		},
		{
			name: "PublishLogs, followed: events", target: "GET events", endless: true, sample: anEvent,
			ends:  unlessInspected,
			setup: func(c *faultCell) { spec(c.task).Args = []string{"print", "5", "line"}; c.use() }, op: publishLogs(true), done: allPublished,
			onHit: func(c *faultCell) {
				adapter := c.fresh()
				assert.NoError(c, adapter.Create(c.ctx()))
				assert.NoError(c, adapter.Start(c.ctx()))
			},
		},
	}
}
