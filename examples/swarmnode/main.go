// Command swarmnode is a whole node of a SwarmKit swarm, manager and agent in one
// process, which runs its tasks on a Docker Engine. It is the start of a swarm
// agent of your own: the agent's part is the executor in run, all else is
// SwarmKit's.
//
// Without -join it is the first manager of a swarm of its own, and its control
// socket takes services; package control of this module connects to it. Run
// again with the same -state-dir, also after it was killed, it goes on where it
// stopped. Run it with -h for its flags.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"syscall"
	"time"

	engineapi "github.com/docker/docker/client"
	"github.com/moby/swarmkit/v2/agent"
	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/moby/swarmkit/v2/log"
	"github.com/moby/swarmkit/v2/node"
	"github.com/sirupsen/logrus"

	"github.com/dockerexec/dockerexec"
)

func main() {
	o, err := parseFlags(os.Args[1:], os.Stderr)
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "swarmnode:", err)
		os.Exit(2)
	}
	log.L.Logger.SetOutput(os.Stderr)
	log.L.Logger.SetLevel(o.logLevel)

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	if err := run(ctx, o, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "swarmnode:", err)
		os.Exit(1)
	}
}

// options are the flags.
type options struct {
	stateDir string
	control  string
	listen   string
	hostname string
	join     string
	token    string
	host     string
	logRate  int
	logLevel logrus.Level
	orphans  dockerexec.OrphanPolicy
	grace    time.Duration
	plugins  csiPlugins
}

func parseFlags(args []string, usage io.Writer) (options, error) {
	o := options{plugins: csiPlugins{}}
	flags := flag.NewFlagSet("swarmnode", flag.ContinueOnError)
	flags.SetOutput(usage)
	flags.StringVar(&o.stateDir, "state-dir", "/var/lib/swarmnode", "folder for certificates, swarm and tasks; one node's alone")
	flags.StringVar(&o.control, "control", "/run/swarmnode.sock", "unix socket for the swarm's control API")
	flags.StringVar(&o.listen, "listen", "127.0.0.1:4242", "address for the swarm's other nodes, as IP:PORT; the same at every start")
	flags.StringVar(&o.hostname, "hostname", "", "name of the node (default: the engine's)")
	flags.StringVar(&o.join, "join", "", "address of a manager whose swarm to join (default: a swarm of its own)")
	flags.StringVar(&o.token, "token", "", "join token of that swarm")
	flags.StringVar(&o.host, "host", "", "Docker Engine, such as unix:///run/docker.sock (default: DOCKER_HOST)")
	flags.IntVar(&o.logRate, "log-rate", 10<<20, "bytes a second that each task's log is read with; 0: no limit")
	orphans := flags.String("orphans", "report", "what is done with containers that an earlier process left behind: report, remove or ignore")
	flags.DurationVar(&o.grace, "orphan-grace", 5*time.Minute, "how long they must have been left behind before that")
	flags.Func("csi", "a CSI plugin for cluster volumes, as name=unix:///path; its paths are below the socket's folder; may be repeated", o.plugins.add)
	level := flags.String("log-level", "warning", "error, warning, info or debug")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	if flags.NArg() > 0 {
		return o, fmt.Errorf("unknown argument %q", flags.Arg(0))
	}
	if _, _, err := net.SplitHostPort(o.listen); err != nil {
		return o, fmt.Errorf("-listen: %w", err)
	}
	if (o.join == "") != (o.token == "") {
		return o, errors.New("-join and -token go together")
	}
	var known bool
	if o.orphans, known = orphanPolicies[*orphans]; !known {
		return o, fmt.Errorf("-orphans: unknown policy %q", *orphans)
	}
	var err error
	if o.logLevel, err = logrus.ParseLevel(*level); err != nil {
		return o, fmt.Errorf("-log-level: %w", err)
	}
	return o, nil
}

var orphanPolicies = map[string]dockerexec.OrphanPolicy{
	"report": dockerexec.OrphansReport, "remove": dockerexec.OrphansRemove, "ignore": dockerexec.OrphansIgnore,
}

// run runs the node until ctx ends. The executor is the whole of this package's
// part in it.
func run(ctx context.Context, o options, out io.Writer) error {
	settings := []engineapi.Opt{engineapi.FromEnv}
	if o.host != "" {
		settings = append(settings, engineapi.WithHost(o.host))
	}
	client, err := engineapi.NewClientWithOpts(settings...)
	if err != nil {
		return err
	}
	defer client.Close()
	var stores exec.DependencyManager // nil: no cluster volumes
	if len(o.plugins) > 0 {
		stores = agent.NewDependencyManager(o.plugins)
	}
	return runNode(ctx, o, dockerexec.NewExecutor(client, nil, dockerexec.WithLogRate(o.logRate),
		dockerexec.WithOrphans(o.orphans, o.grace), dockerexec.WithDependencies(stores)), out)
}

// runNode runs a node with the executor until ctx ends, and prints a line once it
// is ready. Its containers go on: a node that starts again with the same state
// takes them over.
func runNode(ctx context.Context, o options, executor exec.Executor, out io.Writer) error {
	n, err := newNode(o, executor)
	if err != nil {
		return err
	}
	// The end of ctx and not n.Stop ends the node: Stop means to leave the swarm,
	// so it removes all tasks with their containers.
	if err := n.Start(ctx); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- n.Err(context.WithoutCancel(ctx)) }()
	select {
	case err := <-ended:
		return err
	case <-n.Ready():
		fmt.Fprintf(out, "node %s is ready%s\n", n.NodeID(), controlSocket(n, o))
	}
	return <-ended
}

// controlSocket says where the control API is, which only managers serve.
func controlSocket(n *node.Node, o options) string {
	if n.Manager() == nil {
		return ""
	}
	return ", control socket " + o.control
}

func newNode(o options, executor exec.Executor) (*node.Node, error) {
	return node.New(&node.Config{
		Executor:           executor,
		Hostname:           o.hostname,
		StateDir:           o.stateDir,
		ListenControlAPI:   o.control,
		ListenRemoteAPI:    o.listen,
		AdvertiseRemoteAPI: o.listen,
		JoinAddr:           o.join,
		JoinToken:          o.token,
		NetworkProvider:    localNetworks{},
		PluginGetter:       o.plugins,
	})
}
