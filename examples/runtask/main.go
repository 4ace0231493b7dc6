// Command runtask runs one SwarmKit task on a Docker Engine and exits with the
// exit code of its container. It is an executor as small as one can be, on the
// adapter of package dockerexec: task.go makes the task, run.go runs it, and
// output.go prints what happens. Run it with -h for its flags.
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
	code, err := runtask(os.Args[1:], os.Stdout, os.Stderr)
	if err != nil {
		fmt.Fprintln(os.Stderr, "runtask:", err)
	}
	os.Exit(code)
}

func runtask(args []string, stdout, stderr io.Writer) (int, error) {
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

	first, second, stop := interrupts()
	defer stop()
	r := &runner{client: client, task: task, out: newPrinter(stdout), keepVolumes: o.keepVolumes, patience: o.patience}
	return r.run(first, second)
}

// interrupts returns a context that ends with the first Ctrl-C or SIGTERM, which
// is its cause, and one that ends with the second. A third ends the program at
// once.
func interrupts() (first, second context.Context, stop func()) {
	first, endFirst := context.WithCancelCause(context.Background())
	second, endSecond := context.WithCancelCause(context.Background())
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		for _, end := range []context.CancelCauseFunc{endFirst, endSecond} {
			select {
			case s := <-signals:
				end(fmt.Errorf("on signal %v", s))
			case <-second.Done():
			}
		}
		signal.Stop(signals)
	}()
	return first, second, func() { endSecond(nil); endFirst(nil) }
}
