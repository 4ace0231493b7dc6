package main

import (
	"os"
	"testing"

	"github.com/docker/docker/api/types/versions"
	"github.com/moby/swarmkit/v2/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// upgraded is a service whose tasks run on while their engine speaks other versions of
// its API, under one and the same agent.
type upgraded struct {
	*swarm
	service  string
	replicas int
	before   map[string]process // of the first tasks
}

func newUpgraded(s *swarm) *upgraded {
	s.t.Helper()
	u := &upgraded{swarm: s, replicas: 5}
	u.service = s.create(s.service("steady", uint64(u.replicas), "sleep", "1h"))
	s.awaitRunning(u.service, u.replicas)
	u.before = s.processes(u.service)
	require.Len(s.t, u.before, u.replicas)
	return u
}

// goesOn checks that the tasks run on in their containers, that new ones start, and
// that others are stopped and removed.
func (u *upgraded) goesOn(name string) {
	t := u.t
	t.Helper()
	u.replicas++
	u.update(u.service, func(spec *api.ServiceSpec) { spec.GetReplicated().Replicas = uint64(u.replicas) })
	u.awaitRunning(u.service, u.replicas)
	now := u.processes(u.service)
	require.Len(t, now, u.replicas)
	for task, p := range u.before {
		assert.Equal(t, p, now[task], "the same container, started once")
	}
	require.Len(t, u.tasks.History(u.service), u.replicas, "no task is replaced")
	require.Empty(t, u.ended(u.service))

	u.remove(u.create(u.brief(name)))
}

func (u *upgraded) brief(name string) *api.ServiceSpec {
	return u.swarm.service(name, 1, "sleep", "1h")
}

// end checks that the end of each task is still seen.
func (u *upgraded) end() {
	t := u.t
	t.Helper()
	for _, p := range u.processes(u.service) {
		require.NoError(t, u.engine.ContainerKill(t.Context(), p.container, "KILL"))
	}
	u.await(u.service, "the ends", func([]*api.Task) bool { return len(u.ended(u.service)) >= u.replicas })
	for _, task := range u.ended(u.service)[:u.replicas] {
		assert.EqualValues(t, 137, task.Status.GetContainer().ExitCode, describe(task))
	}
	log, err := os.ReadFile(u.log)
	require.NoError(t, err)
	assert.NotContains(t, string(log), "no other version can be agreed on")
}

// A proxy in front of the engine moves the range of its API, up and down.
func TestEngineNodeOutlivesOtherAPIVersions(t *testing.T) {
	sharesEngine(t)
	proxy := newEngineProxy(t)
	proxy.speaks("1.12", "1.40")
	u := newUpgraded(newSwarm(t, "-host", proxy.host))
	own := u.engine.ClientVersion() // the newest that both speak
	for _, to := range []struct{ name, min, max string }{{"up", "1.41", own}, {"down", "1.12", "1.40"}, {"up-again", own, own}} {
		proxy.speaks(to.min, to.max)
		u.goesOn(to.name)
		assert.Positive(t, proxy.refusedSince(), "requests of the version from before")
	}
	u.end()
}

// The engine is upgraded from 20.10 to the newest, which has raised its least version,
// on the same data and with running containers.
func TestEngineNodeOutlivesAnUpgrade(t *testing.T) {
	latest := os.Getenv("DOCKEREXEC_TEST_LATEST")
	if latest == "" {
		fromHarness(t, "DOCKEREXEC_TEST_ENGINE")
		t.Skip("this engine is the newest, or that one is not built: hack/latest-engine.sh builds it")
	}
	t.Cleanup(func() {
		controlEngine(t, "stop")
		controlEngine(t, "use", "")
		controlEngine(t, "start")
	})
	u := newUpgraded(newSwarm(t))
	require.True(t, versions.LessThan(u.engine.ClientVersion(), "1.44"), u.engine.ClientVersion())
	controlEngine(t, "stop")
	controlEngine(t, "use", latest)
	t.Setenv("DOCKER_MIN_API_VERSION", "1.44") // as Docker 29 has it
	controlEngine(t, "start")
	u.engine = engineClient(t)
	answer, err := u.engine.ServerVersion(t.Context())
	require.NoError(t, err)
	require.Equal(t, "1.44", answer.MinAPIVersion)
	u.goesOn("later")
	u.end()
}
