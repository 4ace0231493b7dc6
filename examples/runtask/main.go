// Command runtask runs one SwarmKit task on a Docker Engine and exits with the
// exit code of its container. It is Engine.Run of package dockerexec with flags:
// task.go makes the task, run.go runs it, and output.go prints what happens. Run
// it with -h for its flags.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	engineapi "github.com/docker/docker/client"
	"github.com/moby/swarmkit/v2/log"
	"github.com/sirupsen/logrus"
)

// ownFailure is the exit code when runtask, and not the container, has failed.
// It is the one of docker run.
const ownFailure = 125

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the program at once
	code, err := runtask(ctx, os.Args[1:], os.Stdout, os.Stderr)
	if err != nil {
		fmt.Fprintln(os.Stderr, "runtask:", err)
	}
	os.Exit(code)
}

func runtask(ctx context.Context, args []string, stdout, stderr io.Writer) (int, error) {
	o, err := parseFlags(args, stderr)
	if errors.Is(err, flag.ErrHelp) {
		return 0, nil
	}
	if err != nil {
		return ownFailure, err
	}
	task, err := o.task()
	if err != nil {
		return ownFailure, err
	}

	// The package logs through the logger of the context, which is SwarmKit's
	// log.L as long as no other is put there.
	log.L.Logger.SetOutput(stderr)
	log.L.Logger.SetLevel(logrus.WarnLevel)
	if o.debug {
		log.L.Logger.SetLevel(logrus.DebugLevel)
	}

	// No API version negotiation: the package does it, once, before its first request.
	settings := []engineapi.Opt{engineapi.FromEnv}
	if o.host != "" {
		settings = append(settings, engineapi.WithHost(o.host))
	}
	client, err := engineapi.NewClientWithOpts(settings...)
	if err != nil {
		return ownFailure, err
	}
	defer client.Close()
	return run(ctx, client, task, newPrinter(stdout), o.keepVolumes)
}
