package cluster

import "testing"

// scene is something that happens to the cluster. Its last line is holds.
type scene struct {
	name, story string
	play        func(*cluster)
}

var scenes = []scene{
	{"a follower is cut off", "A host loses its network, and gets it back", (*cluster).aFollowerIsCutOff},
	{"the leader is cut off", "The host of the leader loses its network, and gets it back", (*cluster).theLeaderIsCutOff},
	{"an agent is killed", "The node of a host is killed", (*cluster).anAgentIsKilled},
	{"the leader is killed", "The node that leads is killed", (*cluster).theLeaderIsKilled},
	{"an engine is killed", "The engine of a host is killed", (*cluster).anEngineIsKilled},
	{"a host is killed", "A host loses its power, and gets it back", (*cluster).aHostIsKilled},
	{"a host is drained", "A host is drained, and active again", (*cluster).aHostIsDrained},
	{"an update misses a host", "A rolling update while a host is cut off", (*cluster).anUpdateMissesAHost},
	{"an update waits for a host", "A rolling update that begins before the swarm misses a host", (*cluster).anUpdateWaitsForAHost},
	{"a node changes its role", "A node is promoted and demoted", (*cluster).aNodeChangesItsRole},
	{"a node is removed and joins anew", "A node is removed from the swarm, and joins it anew", (*cluster).aNodeIsRemovedAndJoinsAnew},
	{"a global service sees a cut", "A task on each host, and one host is cut off", (*cluster).aGlobalServiceSeesACut},
	{"jobs go on through a cut", "Jobs that end while their host is cut off", (*cluster).jobsGoOnThroughACut},
	{"a secret is rotated", "A secret is rotated while a host is cut off", (*cluster).aSecretIsRotated},
	{"a log is followed through a cut", "The log of a service, followed over all hosts, through a cut", (*cluster).aLogIsFollowedThroughACut},
	{"clocks are apart", "Clocks that are five seconds apart", (*cluster).clocksAreApart},
}

// Three hosts on one kernel have one wall clock: a time namespace shifts the monotonic clock and
// the one since boot, and no other.
func (c *cluster) clocksAreApart() {
	c.t.Skip("the kernel has one wall clock for all hosts: CLOCK_REALTIME is in no namespace")
}

// Three managers: each one can be lost.
func TestThreeManagers(t *testing.T) { play(t, newCluster(t, 3)) }

// One manager and two workers: while the manager is away, the workers go on alone.
func TestOneManager(t *testing.T) { play(t, newCluster(t, 1)) }

// play plays the scenes one after the other, up to the first that fails: after that one,
// nothing is certain.
func play(t *testing.T, c *cluster) {
	played := 0
	for _, one := range scenes {
		if t.Failed() {
			return
		}
		t.Run(one.name, func(t *testing.T) {
			c.t = t
			played++
			heading("%s", one.story)
			one.play(c)
		})
	}
	if played == 0 {
		t.Error("no scene has such a name")
	}
}
