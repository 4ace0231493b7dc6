// Command simulation runs swarms that are too large for one machine's engines, in one
// process: three managers of SwarmKit with their raft, and many agents of SwarmKit. Each
// agent has this package's executor over an engine of dockerexectest. All of it is real
// but the engines.
//
// It starts a service, updates it, loses a tenth of the engines and of the hosts, gets
// them back, and removes the service. After each scene every engine must hold exactly
// the containers that the managers list for its node; if not, the program fails. It
// prints what each scene took, as tables. Run it with -h for its flags.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/moby/swarmkit/v2/log"
	"github.com/sirupsen/logrus"
)

func main() {
	runtime.MemProfileRate = 64 << 10 // finer than the default: a small swarm has a small heap
	debug.SetGCPercent(300)           // one heap for 1,000 machines: its collection is no machine's cost
	o, err := parseFlags(os.Args[1:], os.Stderr)
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "simulation:", err)
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	if err := simulate(ctx, o, os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "simulation:", err)
		os.Exit(1)
	}
}

// options are the flags.
type options struct {
	agents   []int
	tasks    int
	log      string
	profiles string
}

func parseFlags(args []string, usage io.Writer) (options, error) {
	o := options{}
	flags := flag.NewFlagSet("simulation", flag.ContinueOnError)
	flags.SetOutput(usage)
	agents := flags.String("agents", "100,300,1000", "sizes of the swarms, in agents; they run one after the other")
	flags.IntVar(&o.tasks, "tasks", 10, "tasks for each agent")
	flags.StringVar(&o.log, "log", "", "file for the warnings and errors of SwarmKit and of the package (default: none)")
	flags.StringVar(&o.profiles, "profiles", "", "folder for the CPU profile of each scene, for go tool pprof (default: none)")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	if flags.NArg() > 0 {
		return o, fmt.Errorf("unknown argument %q", flags.Arg(0))
	}
	for _, text := range strings.Split(*agents, ",") {
		n, err := strconv.Atoi(strings.TrimSpace(text))
		if err != nil || n < 1 {
			return o, fmt.Errorf("-agents: %q is no number of agents", text)
		}
		o.agents = append(o.agents, n)
	}
	if o.tasks < 1 {
		return o, errors.New("-tasks: less than one task")
	}
	return o, nil
}

// simulate runs a swarm of each size and prints the tables to out.
func simulate(ctx context.Context, o options, out, progress io.Writer) error {
	log.L.Logger.SetLevel(logrus.PanicLevel) // a line that nobody reads costs CPU too
	if o.log != "" {
		file, err := os.Create(o.log)
		if err != nil {
			return err
		}
		defer file.Close()
		log.L.Logger.SetOutput(file)
		log.L.Logger.SetLevel(logrus.WarnLevel)
	}
	began := time.Now()
	var all []result
	for _, agents := range o.agents {
		r, err := simulateOne(ctx, plan{agents: agents, tasks: o.tasks, rounds: 10, heartbeat: 5 * time.Second, quiet: 15 * time.Second,
			outage: 10 * time.Second, limit: 10 * time.Minute, profiles: o.profiles}, progress)
		if err != nil {
			return fmt.Errorf("%d agents: %w", agents, err)
		}
		all = append(all, r)
	}
	printTables(out, all)
	fmt.Fprintf(out, "\n%d cores, %s, %.0f s in all.\n", runtime.GOMAXPROCS(0), runtime.Version(), time.Since(began).Seconds())
	return nil
}
