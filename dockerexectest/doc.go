// Package dockerexectest is an in-memory Docker Engine for tests.
//
// A real client speaks to it over in-memory connections. So versions, headers, errors
// and streams pass through the client's own code. The engine runs no process and opens
// no port. It ends with its test.
//
//	func TestJob(t *testing.T) {
//		synctest.Test(t, func(t *testing.T) { // fake time: an hour takes no time
//			engine := dockerexectest.New(t)
//			engine.Image("example/job:1", dockerexectest.ExitAfter(time.Hour, 3))
//			client := engine.Client()
//			// … pull, create, start, wait: the container exits with 3 an hour later
//		})
//	}
//
// # Programs
//
// A container runs a [Program]: a Go function that belongs to its image. Take [Exit],
// [ExitAfter], [UntilStopped], [IgnoreStop], [Print], or a function of your own. The
// function gets its arguments, environment and signals in a [Process], and returns the
// exit code. [Engine.Image] puts an image into the registry, so that the engine can
// pull it. [Engine.LocalImage] puts an image on the engine. An [ImageOption] sets, for
// example, the image's size, its platforms, who may pull it, or its health check.
//
// # Containers
//
// [Engine.Container] finds a container by its name. Then a test can act on it from
// outside: [Container.Exit], [Container.OOM], [Container.Print],
// [Container.SetHealth], [Container.Pause], [Container.Rename],
// [Container.RemoveByHand]. [Engine.AddContainer] adds a container of somebody else,
// for example to occupy a name. [Container.AlterInspect] changes what the engine shows,
// and [Container.Emit] sends an event of what has not happened. [Container.Starts],
// [Container.Inspect] and [Container.Log] show the result. [Engine.Requests] lists the
// requests.
//
// # Faults
//
// [Engine.FailNext] and [Engine.FailAll] make requests fail that match a pattern, such
// as "POST /containers/*/start". The faults are [LoseAnswer], [Drop], [Refuse], [Slow],
// [CutBody] and [Garble]. [Call] calls a function of the test when the request comes.
// [Answer] sends an answer that the test gives. If no request matches a pattern, the
// test fails at its end.
// [Engine.Down] and [Engine.Up] begin and end an outage. Between [Engine.Hang] and
// [Engine.Resume] the engine does not answer. [Engine.Restart] restarts or upgrades the
// engine. Containers run on, except in a Restart without LiveRestore.
//
//	time.AfterFunc(5*time.Second, engine.Down)
//	time.AfterFunc(30*time.Second, engine.Up)
//	engine.FailNext("POST /containers/create", dockerexectest.LoseAnswer())
//
// # What it answers
//
// The engine answers as a [Dialect]: Docker 29 (the default), Docker 20.10 or Podman 4.
// The table of package [github.com/dockerexec/dockerexec/dockerexectest/conformance]
// lists the answers. Running Docker engines pass the same table. Where chance decides
// what an engine does, this engine always does the same:
//
//   - No two events, and no two lines of a log, have the same time.
//   - An event stream begins before its request is answered.
//   - A start is carried out even if its client leaves meanwhile.
//
// The engine serves containers, images, networks, volumes, events, info, version,
// plugins and ping. It does not serve exec, attach, copies, builds, updates, statistics,
// swarm and prunes. A request that is not served fails the test, with the request's
// name. So does a query parameter that is not known, and a filter of a list that Docker
// knows and this engine does not serve. No option is ignored in silence.
//
// A request is carried out once its body has been read, even if its client has left by
// then. There are two exceptions. A pull ends when its client leaves. And Docker 29 does
// not begin a create or a start whose client has left, unless its fault is [Slow] or
// [Call].
//
// The host has no files. For bind mounts every path exists, unless
// [Engine.RemoveHostPath] has removed it. A paused program goes on until it prints or
// ends. Only there it waits.
package dockerexectest
