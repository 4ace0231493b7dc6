// Command batch runs the jobs of a FILE on a Docker Engine, four at once. Ctrl-C leaves nothing but named volumes. After
// a SIGKILL, run it again: each job runs once, and what is left of jobs that FILE no longer has is removed. FILE has
// SwarmKit's tasks in JSON, one after the other, each with a name in serviceAnnotations.name. FILE.secrets/ID is a
// secret. FILE.journal says how jobs ended: delete it to run all anew.
package main

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/docker/docker/api/types/container"
	engineapi "github.com/docker/docker/client"
	"github.com/dockerexec/dockerexec"
	"github.com/gogo/protobuf/jsonpb"
	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/moby/swarmkit/v2/api"
	swarmlog "github.com/moby/swarmkit/v2/log"
	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	"go.etcd.io/bbolt"
	"golang.org/x/sync/errgroup"
)

type batch struct {
	file     string
	attempts int
	engine   *dockerexec.Engine
	journal  *bbolt.DB // the end of the program closes it
	bars     *mpb.Progress
	lines    *log.Logger
}

func main() {
	b := &batch{}
	flag.IntVar(&b.attempts, "attempts", 2, "how often a job is run that fails")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	client, err := engineapi.NewClientWithOpts(engineapi.FromEnv)
	if err == nil {
		err = b.run(ctx, client, flag.Arg(0), os.Stdout)
	}
	if err != nil {
		log.Fatal("batch: ", err)
	}
}

func (b *batch) run(ctx context.Context, client engineapi.APIClient, file string, stdout *os.File) error {
	tasks, err := b.read(file)
	if err != nil {
		return err
	}
	b.bars, b.lines = mpb.New(mpb.WithOutput(nil)), log.New(stdout, "", 0)
	if info, err := stdout.Stat(); err == nil && info.Mode()&os.ModeCharDevice != 0 {
		b.bars = mpb.New(mpb.WithOutput(stdout))
		b.lines.SetOutput(b.bars) // above the bars
		swarmlog.L.Logger.SetOutput(b.bars)
	}
	b.engine = dockerexec.NewEngine(client, dockerexec.WithCreateHook(b.beforeCreate))
	if err := b.cleanUp(ctx, tasks); err != nil {
		return err
	}
	all := b.bars.AddBar(int64(len(tasks)), mpb.BarPriority(len(tasks)), mpb.PrependDecorators(decor.CountersNoUnit("%d of %d jobs")))
	ends, jobs := make([]record, len(tasks)), errgroup.Group{}
	jobs.SetLimit(4)
	for i, task := range tasks {
		jobs.Go(func() error {
			defer all.Increment()
			if ends[i] = b.job(ctx, task); ends[i].State != "complete" {
				return fmt.Errorf("the job %s is %s", ends[i].Name, ends[i].State)
			}
			return nil
		})
	}
	err = jobs.Wait()
	b.bars.Wait()
	table := tabwriter.NewWriter(stdout, 0, 0, 2, ' ', 0)
	defer table.Flush()
	fmt.Fprintln(table, "JOB\tSTATE\tATTEMPT\tCAUSE")
	for _, r := range ends {
		fmt.Fprintf(table, "%s\t%s\t%d\t%s\n", r.Name, r.State, r.Attempt, strings.ReplaceAll(r.Cause, "\n", "; "))
	}
	return err
}

// job runs a task until an attempt does not fail. The attempts of earlier processes count.
func (b *batch) job(ctx context.Context, task *api.Task) record {
	r, err := record{Name: task.ServiceAnnotations.Name, State: "not run"}, error(nil)
	bar := b.bars.AddBar(int64(api.TaskStateCompleted), mpb.PrependDecorators(decor.Name(r.Name)), mpb.AppendDecorators(decor.Elapsed(decor.ET_STYLE_GO)))
	defer bar.Abort(true)
	for n := 1; n <= b.attempts && (n == 1 || r.State == "failed") && ctx.Err() == nil; n++ {
		task.ID = b.taskID(r.Name, n)
		if r, err = b.attempt(ctx, task, record{ID: task.ID, Name: r.Name, Attempt: n}, bar); err != nil {
			r.Cause = err.Error()
		}
		b.lines.Printf("%s: %s %s", r.Name, r.State, r.Cause)
	}
	return r
}

// taskID is the same in each process: so the next one finds the container.
func (b *batch) taskID(job string, attempt int) string {
	return fmt.Sprintf("%x", sha256.Sum256(fmt.Append(nil, b.file, "\x00", job, "\x00", attempt)))[:25]
}

func (b *batch) attempt(ctx context.Context, task *api.Task, r record, bar *mpb.Bar) (record, error) {
	if before := b.note(r, "", ""); ended[before.State] || before.State == "stopped" {
		task.Status.State = api.TaskStateRunning // so the controller looks for what may be left
		controller, err := b.engine.Controller(nil, task, b)
		if err == nil {
			err = controller.Remove(ctx)
		}
		if err != nil || ended[before.State] {
			return before, err
		}
	}
	stoppable, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer context.AfterFunc(ctx, func() { b.note(r, "stopped", ""); stop() })() // the journal knows first
	_, err := b.engine.Run(stoppable, task, dockerexec.RunOptions{Deps: b,
		Logs: exec.LogPublisherFunc(func(_ context.Context, m api.LogMessage) error {
			return b.lines.Output(0, fmt.Sprintf("%s | %s", r.Name, strings.TrimRight(string(m.Data), "\r\n")))
		}),
		OnStatus: func(_ context.Context, s api.TaskStatus) {
			bar.SetCurrent(int64(s.State))
			if s.State > api.TaskStatePreparing && s.State != api.TaskStateShutdown {
				b.note(r, strings.ToLower(s.State.String()), s.Err) // nothing has been removed yet
			}
		},
	})
	return b.note(r, "", ""), err // err also says what is left
}

// beforeCreate refuses to make the container of a job again that was started.
func (b *batch) beforeCreate(_ context.Context, task *api.Task, _ *container.Config, _ *container.HostConfig) error {
	if r := b.note(record{ID: task.ID}, "", ""); r.State == "starting" || r.State == "running" {
		b.note(r, "unknown", "somebody removed its container")
		return fmt.Errorf("somebody removed its container: nobody knows how it ended")
	}
	return nil
}

func (b *batch) read(file string) (tasks []*api.Task, err error) {
	b.file, _ = filepath.Abs(file)
	text, err := os.ReadFile(b.file)
	names := map[string]int{"": 1}
	for decoder := json.NewDecoder(strings.NewReader(string(text))); err == nil && decoder.More(); {
		task := &api.Task{Slot: 1, NodeID: b.nodeID()}
		err = jsonpb.UnmarshalNext(decoder, task) // encoding/json does not know SwarmKit's choices and enums
		if names[task.ServiceAnnotations.Name]++; err == nil && names[task.ServiceAnnotations.Name] > 1 {
			err = fmt.Errorf("a job has no name of its own: %q", task.ServiceAnnotations.Name)
		}
		tasks = append(tasks, task)
	}
	if err == nil { // its lock keeps a second process from the same jobs
		b.journal, err = bbolt.Open(b.file+".journal", 0o600, &bbolt.Options{Timeout: time.Second})
	}
	return tasks, err
}

// Get reads a secret of the jobs from a file. Nothing else is handed out.
func (b *batch) Get(id string) (*api.Secret, error) {
	data, err := os.ReadFile(filepath.Join(b.file+".secrets", filepath.Base(id)))
	return &api.Secret{ID: id, Spec: api.SecretSpec{Data: data}}, err
}
func (b *batch) Secrets() exec.SecretGetter { return b }
func (b *batch) Configs() exec.ConfigGetter { return nil }
func (b *batch) Volumes() exec.VolumeGetter { return nil }
