// Package dockerexectest is an in-memory Docker Engine for tests.
//
// It serves the Engine API over in-memory connections to a real client, so that
// versions, headers, errors and streams are the client's own work. It runs no
// process and opens no port. It ends with its test.
//
//	func TestJob(t *testing.T) {
//		synctest.Test(t, func(t *testing.T) { // fake time: an hour takes no time
//			engine := dockerexectest.New(t)
//			engine.Image("example/job:1", dockerexectest.ExitAfter(time.Hour, 3))
//			client := engine.Client()
//			// … pull, create, start, wait: it exits with 3 an hour later
//		})
//	}
//
// # Programs
//
// A container runs a [Program], a Go function that its image brings:
// [Exit], [ExitAfter], [UntilStopped], [IgnoreStop], [Print], or your own. It
// sees its arguments, environment and signals in a [Process]; its return is the
// exit code. [Engine.Image] puts an image into the registry, from which it can be
// pulled; [Engine.LocalImage] puts it on the engine. An [ImageOption] says how
// large it is, for which platform, who may pull it, how its health is checked.
//
// # Containers
//
// [Engine.Container] finds a container by its name, and lets a test play the
// world around it: [Container.Exit], [Container.OOM], [Container.Print],
// [Container.SetHealth], [Container.Pause], [Container.Rename],
// [Container.RemoveByHand]. [Engine.AddContainer] adds one of somebody else's, in
// the way of a name, say. [Container.AlterInspect] and [Container.Emit] have the engine
// say what is not so. [Container.Starts], [Container.Inspect] and
// [Container.Log] tell what came of it, and [Engine.Requests] what was asked.
//
// # Faults
//
// [Engine.FailNext] and [Engine.FailAll] have requests fail, by a pattern such as
// "POST /containers/*/start": [LoseAnswer], [Drop], [Refuse], [Slow], [CutBody],
// [Garble]. [Call] has something else happen when one comes, and [Answer] answers one
// with what the test says. A pattern that no request matches fails the test at its end.
// [Engine.Down] and [Engine.Up] are an outage, [Engine.Hang] and [Engine.Resume]
// an engine that does not answer, [Engine.Restart] one that is killed or upgraded.
// Containers go on running through all of it.
//
//	time.AfterFunc(5*time.Second, engine.Down)
//	time.AfterFunc(30*time.Second, engine.Up)
//	engine.FailNext("POST /containers/create", dockerexectest.LoseAnswer())
//
// # What it answers
//
// It answers as a [Dialect]: Docker 29 by default, Docker 20.10, Podman 4. The
// table of package [github.com/dockerexec/dockerexec/dockerexectest/conformance]
// says what that is; it holds for running engines too, those of Docker. Where
// engines do one of two things by chance, it does one always: no two events, and no
// two lines of a log, have the same time; an event stream begins before its request
// is answered; a start whose client leaves during it is carried out.
//
// It serves containers, images, networks, volumes, events, info, version, plugins
// and ping. It does not serve exec, attach, copies, builds, updates, statistics,
// swarm and prunes: such a request fails the test by its name, and so does a query
// parameter that it does not know, so that no option is ignored in silence.
//
// A request is carried out once its body has been read, also if its client has
// left by then. A pull ends with its client, and Docker 29 does not begin a create
// or a start whose client has left, unless its fault is [Slow] or [Call]. There are no files
// of a host: every path for a bind mount exists, unless [Engine.RemoveHostPath] was
// called. A paused program stands still when it prints or ends; what it computes
// goes on.
package dockerexectest
