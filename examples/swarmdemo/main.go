// Command swarmdemo shows a service's life on a swarm of one node: it starts
// swarmnode, drives its control API, prints a line for each change of a task's
// state, and checks each step. It exits with 1 if a check fails.
//
// It takes engine, registry and image from the DOCKEREXEC_TEST_… variables that
// hack/with-engine.sh sets.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	engineapi "github.com/docker/docker/client"
	"github.com/dockerexec/dockerexec/examples/control"
	"github.com/moby/swarmkit/v2/api"
	"github.com/moby/swarmkit/v2/log"
	"github.com/sirupsen/logrus"
)

// patience is how long the whole story may take; it takes a fraction of that.
const patience = 3 * time.Minute

func main() {
	binary := flag.String("node", "swarmnode", "the built swarmnode")
	dir := flag.String("dir", ".", "empty folder for the node's state, socket and log")
	flag.Parse()
	log.L.Logger.SetLevel(logrus.WarnLevel) // SwarmKit has gRPC's lines there too

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := play(ctx, *binary, *dir); err != nil {
		fmt.Fprintln(os.Stderr, "\nswarmdemo FAILED:", err)
		os.Exit(1)
	}
}

// demo is the running node and what is known of its tasks.
type demo struct {
	engine  *engineapi.Client
	swarm   api.ControlClient
	logs    api.LogsClient
	tasks   *control.Tasks
	service string // the ID
	begin   time.Time
	states  map[string]api.TaskState // as printed
}

func play(ctx context.Context, binary, dir string) (err error) {
	heading("1. A swarm of one node")
	// The demo's own client: the node has another one, whose version the package agrees on.
	engine, err := engineapi.NewClientWithOpts(engineapi.WithHost(os.Getenv("DOCKEREXEC_TEST_HOST")), engineapi.WithAPIVersionNegotiation())
	if err != nil {
		return err
	}
	defer engine.Close()
	socket := filepath.Join(dir, "control")
	stopNode, err := startNode(binary, dir, socket)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stopNode()) }()
	conn, err := control.Dial(socket)
	if err != nil {
		return err
	}
	defer conn.Close()
	d := &demo{engine: engine, swarm: api.NewControlClient(conn), logs: api.NewLogsClient(conn),
		tasks: control.NewTasks(), begin: time.Now(), states: map[string]api.TaskState{}}

	watching, unwatch := context.WithCancel(context.WithoutCancel(ctx))
	defer unwatch()
	ended, err := d.tasks.Watch(watching, conn, d.print)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	go func() { cancel(fmt.Errorf("the watch of the tasks: %w", <-ended)) }()
	defer func() {
		if err == nil {
			return
		}
		if cause := context.Cause(ctx); ctx.Err() != nil && !errors.Is(cause, ctx.Err()) {
			err = errors.Join(err, cause)
		}
		err = errors.Join(err, d.remove(context.WithoutCancel(ctx))) // leave nothing on the engine
	}()
	for _, step := range []func(context.Context) error{d.create, d.showLogs, d.kill, d.scale, d.update, d.remove} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}
