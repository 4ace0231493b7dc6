// Package conformance is a table of statements about Docker Engines, each a small
// test. It holds for running engines and for the engine of package dockerexectest:
// that is how the latter is known to answer as the former do.
//
// It runs on any engine that a client reaches by a Unix socket, a named pipe or
// plain TCP:
//
//	func TestMyEngine(t *testing.T) {
//		conformance.Run(t, conformance.Fixture{
//			Client:  engine,                     // a *client.Client that has agreed on a version
//			Dialect: conformance.DockerV29,      // whose words it has
//			Image:   "example.com/testtask:1",   // is on the engine
//		})
//	}
//
// The image has one program, that of testdata/image in this repository, with the
// entrypoint /testtask, the command "print 3", and the environment PATH=/ and
// FROM_IMAGE=yes.
//
// All that is made on the engine has a name that begins with "conformance-", and is
// removed; [Run] fails if anything is left. It takes an engine about two minutes. A
// statement is skipped, by its name, if it does not hold for the dialect, or needs
// what the fixture does not have.
package conformance
