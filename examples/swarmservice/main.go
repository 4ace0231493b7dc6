// Command swarmservice makes a service on a SwarmKit node, over the node's control
// socket, and waits until its tasks run. It also scales, lists and removes services,
// prints their logs, and prints the tokens with which other nodes join. Arguments
// after the flags are those of the image's entrypoint. Run it with -h for its flags.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"

	"github.com/dockerexec/dockerexec/examples/control"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	o, err := parseFlags(os.Args[1:], os.Stderr)
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err != nil {
		fail(err, 2)
	}
	conn, err := control.Dial(o.socket)
	if err != nil {
		fail(err, 1)
	}
	defer conn.Close()
	if err := newSwarm(conn, os.Stdout, os.Stderr).run(ctx, o); err != nil {
		fail(err, 1)
	}
}

func fail(err error, code int) {
	fmt.Fprintln(os.Stderr, "swarmservice:", err)
	os.Exit(code)
}

// options are the flags. Exactly one of tokens, image, scale, ps, logs and remove
// is set: it is what is to be done.
type options struct {
	socket   string
	name     string
	image    string
	args     []string
	replicas uint64
	scale    *uint64
	ps       bool
	logs     bool
	remove   bool
	tokens   bool
}

func parseFlags(args []string, usage io.Writer) (options, error) {
	var o options
	flags := flag.NewFlagSet("swarmservice", flag.ContinueOnError)
	flags.SetOutput(usage)
	flags.StringVar(&o.socket, "control", "/run/swarmnode.sock", "control socket of the node, which must be a manager")
	flags.StringVar(&o.name, "name", "", "name of the service")
	flags.StringVar(&o.image, "image", "", "make the service, with this image")
	flags.Uint64Var(&o.replicas, "replicas", 1, "number of its tasks")
	scale := flags.Uint64("scale", 0, "change the number of the service's tasks")
	flags.BoolVar(&o.ps, "ps", false, "list the service's tasks, those too that have ended")
	flags.BoolVar(&o.logs, "logs", false, "print what the service's tasks have logged so far")
	flags.BoolVar(&o.remove, "remove", false, "remove the service")
	flags.BoolVar(&o.tokens, "tokens", false, "print the tokens for other nodes")
	flags.Usage = func() {
		fmt.Fprintf(usage, `Usage: swarmservice [FLAG...] [ARG...]

-image and -scale wait until all tasks run. They end with exit code 1 and the last
error once %d tasks of one slot have ended, or %v have passed. The service stays
then, and the swarm goes on trying.

`, attempts, patience)
		flags.PrintDefaults()
	}
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	o.args = flags.Args()
	flags.Visit(func(f *flag.Flag) {
		if f.Name == "scale" {
			o.scale = scale
		}
	})
	commands := 0
	for _, chosen := range []bool{o.tokens, o.image != "", o.scale != nil, o.ps, o.logs, o.remove} {
		if chosen {
			commands++
		}
	}
	if commands != 1 || o.name == "" && !o.tokens {
		return o, errors.New("-tokens, or -name and one of -image, -scale, -ps, -logs and -remove are needed")
	}
	return o, nil
}
