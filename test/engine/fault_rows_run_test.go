package engine_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	gogotypes "github.com/gogo/protobuf/types"
	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/moby/swarmkit/v2/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockerexec/dockerexec"
)

// runFaultRows are those of Engine.Run. A fault that passes is waited out, so the job ends as
// its program does.
func runFaultRows() []*faultRow {
	waited := always(either)
	// Once the job has ended, the end of the caller's context changes nothing.
	afterwards := waited.but(outcomes{faultCancel: either})
	rows := []*faultRow{
		{
			name: "Run: ping", target: "* _ping", nth: 2, before: true, bodiless: true,
			ends:  waited,
			setup: (*faultCell).useJob,
		},
		{
			name: "Run: look for what is there", target: "GET containers/json",
			ends:  waited,
			setup: (*faultCell).useJob,
		},
		{
			name: "Run: create network", target: "POST networks/create",
			ends:  waited.but(outcomes{faultGarbled: final, fault403: final, fault404: final, fault500: final}),
			setup: func(c *faultCell) { c.useJob(); c.about = c.network(0) },
			says:  map[fault]string{fault409: "network with name NAME already exists"},
		},
		{
			name: "Run: create volume", target: "POST volumes/create",
			ends:  waited.but(outcomes{faultGarbled: final, fault403: success, fault404: final, fault409: final, fault500: final}),
			setup: func(c *faultCell) { c.useJob(); c.about = c.volumes[0] },
		},
		{
			name: "Run: pull", target: "POST images/create",
			ends:    waited.but(outcomes{fault403: final, fault404: final, faultNever: final}),
			setup:   func(c *faultCell) { c.pushProgram(); c.useJob(); c.about = c.pushed },
			says:    map[fault]string{fault404: "manifest for NAME not found: manifest unknown: manifest unknown"},
			options: []dockerexec.Option{dockerexec.WithPullAttempts(2)},
		},
		{
			name: "Run: inspect image", target: "GET images/*",
			ends: waited.but(outcomes{faultGarbled: final, fault404: final, fault409: final, fault500: final}),
			setup: func(c *faultCell) {
				spec(c.task).Image = fromHarness(c.tb(), "DOCKEREXEC_TEST_IMAGE")
				c.useJob()
				c.about = spec(c.task).Image
			},
			others:  map[string]answerInstead{"POST images/create": {404, "manifest for NAME not found: manifest unknown: manifest unknown"}},
			options: []dockerexec.Option{dockerexec.WithPullAttempts(1)},
		},
		{
			name: "Run: information for its secret", target: "GET info",
			ends:  waited.but(outcomes{faultGarbled: final, fault403: final, fault404: final, fault409: final, fault500: final}),
			setup: func(c *faultCell) { c.useJob(); c.about = "secrets and configs: engine information" },
		},
		{
			name: "Run: create", target: "POST containers/create",
			ends:  waited.but(outcomes{faultGarbled: final, fault403: final, fault404: final, fault500: final}),
			setup: (*faultCell).useJob,
			says:  map[fault]string{fault404: "No such image: nosuch:1", fault409: sameName},
		},
		{
			name: "Run: connect", target: "POST networks/*/connect", bodiless: true, needs: oneNetworkAtATime,
			ends:  waited.but(outcomes{fault403: final, fault409: final, fault500: final}),
			setup: func(c *faultCell) { c.join(2); c.useJob(); c.about = c.network(1) },
			says:  map[fault]string{fault404: noNetwork},
		},
		{
			name: "Run: inspect before the start", target: "GET containers/*/json", nth: 2,
			ends:  waited.but(outcomes{fault403: final}),
			setup: (*faultCell).useMuteJob,
			says:  map[fault]string{fault404: noContainer},
		},
		{
			name: "Run: start", target: "POST containers/*/start", bodiless: true,
			ends: waited.but(outcomes{fault403: final, fault409: final, fault500: final}),
			setup: func(c *faultCell) {
				if c.fault != faultCancel { // the job has ended before Run asks again
					c.jobRuns("0s")
				}
				c.useJob()
			},
			says: map[fault]string{fault404: noContainer, fault409: "container is marked for removal and cannot be started"},
		},
		{
			name: "Run: events", target: "GET events", endless: true, sample: anEvent,
			ends:  waited,
			setup: func(c *faultCell) { c.jobRuns("2s"); c.useJob() },
		},
		{
			name: "Run: inspect while it runs", target: "GET containers/*/json", nth: 3,
			ends:  waited.but(outcomes{fault403: final}),
			setup: func(c *faultCell) { c.jobRuns("2s"); c.useMuteJob() },
			says:  map[fault]string{fault404: noContainer},
		},
		{
			name: "Run, taken over: inspect", target: "GET containers/*/json",
			ends:  waited.but(outcomes{fault403: final}),
			setup: (*faultCell).takeJobOver,
			says:  map[fault]string{fault404: noContainer},
		},
		{
			name: "Run: logs", target: "GET containers/*/logs",
			ends:  waited.but(outcomes{faultGarbled: believed, fault403: believed, fault409: believed, fault500: believed}),
			setup: func(c *faultCell) { c.jobRuns("2s"); c.useJob() },
			says:  map[fault]string{fault404: noContainer},
		},
		{
			name: "Run: last entry of the log", target: "GET containers/*/logs", nth: 2,
			ends:  waited.but(outcomes{faultGarbled: believed, fault403: believed, fault409: believed, fault500: believed}),
			setup: func(c *faultCell) { c.jobRuns("2s"); c.useJob() },
			says:  map[fault]string{fault404: noContainer},
		},
		{
			name: "Run, its context ends: stop", target: "POST containers/*/stop", bodiless: true,
			ends:  afterwards,
			setup: (*faultCell).useLingeringJob, op: stopJob, stops: true,
			says: map[fault]string{fault404: noContainer},
		},
		{
			name: "Run: remove", target: "DELETE containers/*", bodiless: true, waits: true,
			ends:  afterwards.but(outcomes{fault403: final, fault404: believed}),
			setup: (*faultCell).useJob,
			says:  map[fault]string{fault404: noContainer, fault409: beingRemoved},
		},
		{
			name: "Run: list who needs a network", target: "GET containers/json", nth: 2,
			ends:  afterwards.but(outcomes{faultGarbled: final}),
			setup: func(c *faultCell) { c.useJob(); c.about = c.network(0) },
		},
		{
			name: "Run: remove network", target: "DELETE networks/*", bodiless: true,
			ends:  afterwards.but(outcomes{fault403: final, fault404: believed}),
			setup: func(c *faultCell) { c.useJob(); c.about = c.network(0) },
			says:  map[fault]string{fault404: noNetwork},
		},
	}
	for _, row := range rows {
		needs := row.needs
		row.needs = func(b *faultBench) bool { return besideUs(b) && (needs == nil || needs(b)) }
		row.runs, row.done = true, jobLogged
		if row.op == nil {
			row.op = runJob
		}
	}
	return rows
}

// runJob is a Run of the cell's job. It returns nil if the job has ended as its program
// did, and the error of the context if that ended first. A job that has ended is not run
// again.
func runJob(ctx context.Context, c *faultCell) error {
	if c.isOver {
		return nil
	}
	result, err := c.runJob(ctx, nil)
	var exit exec.ExitCoder
	switch {
	case ctx.Err() != nil && result.State == api.TaskStateShutdown:
		assert.ErrorIs(c, err, ctx.Err())
		return ctx.Err()
	case errors.As(err, &exit):
		c.isOver = true
		assert.Equal(c, 3, exit.ExitCode())
		assert.Equal(c, "exit code 3", result.Reason)
		assert.Equal(c, api.TaskStateFailed, result.State)
		assert.False(c, result.Finished.IsZero())
		if namesLeftovers(err) {
			return err
		}
		return nil
	case result.Started.IsZero():
		assert.Equal(c, api.TaskStateRejected, result.State)
	default: // a refusal, and nobody knows how it would have ended
		assert.Equal(c, api.TaskStateFailed, result.State)
	}
	if err == nil {
		return errors.New("no error, and the program exits with 3")
	}
	return err
}

// stopJob is a Run of a job that lingers. The context of Run ends while the job runs.
func stopJob(ctx context.Context, c *faultCell) error {
	if c.isOver {
		return nil
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	result, err := c.runJob(ctx, func(status api.TaskStatus) {
		if status.State == api.TaskStateRunning {
			c.noteLingering()
			cancel()
		}
	})
	assert.ErrorIs(c, err, context.Canceled)
	assert.Equal(c, api.TaskStateShutdown, result.State)
	assert.Equal(c, "stopped", result.Reason)
	c.isOver = true
	return nil
}

// runJob runs the job. It asserts that the program has run once for each start that Run tells
// of, and that Run leaves nothing that it does not name.
func (c *faultCell) runJob(ctx context.Context, said func(api.TaskStatus)) (dockerexec.RunResult, error) {
	wasStarted := hasStarted(c.seen())
	c.sink = &logSink{}
	options := dockerexec.RunOptions{Deps: c.deps, OnStatus: func(_ context.Context, status api.TaskStatus) {
		if said != nil {
			said(status)
		}
	}}
	if !c.isMute {
		options.Logs = c.sink
	}
	result, err := c.engine.Run(ctx, c.task, options)
	if !result.Started.IsZero() && !wasStarted {
		c.runs++
	}
	if result.State == api.TaskStateShutdown && c.timesRun() == c.runs-1 {
		c.runs-- // it was stopped before the program's first line
	}
	assert.Equal(c, c.runs, c.timesRun(), "how often the program has run: %+v, %v", result, err)
	switch lied := c.got == 0 && c.fault == fault404 && c.want == believed; {
	case lied: // the removal of what was left follows
	case namesLeftovers(err):
		assert.NotEmpty(c, leftOfTask(c.tb(), c.bench.client, c.tasksOwn()))
	default:
		c.nothingLeft()
	}
	return result, err
}

func namesLeftovers(err error) bool {
	return err != nil && strings.Contains(err.Error(), "may be left on the engine")
}

// jobLogged asserts that the whole log of a job that has ended was published, once, and that
// its volume has stayed.
func jobLogged(c *faultCell) {
	if c.isOver && !c.isMute && c.want != believed && !c.row.stops {
		allPublishedAndReady(c)
	}
	volumesThere(c)
}

// useJob gives the task a program that tells in a volume that it runs, and that ends with 3;
// and a network, a volume and a secret.
func (c *faultCell) useJob() {
	c.useJobWithoutSecret()
	c.useSecret()
}

func (c *faultCell) useJobWithoutSecret() {
	if spec(c.task).Args[0] != "append" { // what the bench has given it
		c.jobRuns("300ms")
	}
	if c.task.Networks[0].Network.Spec.Annotations.Name == "none" {
		c.join(1)
	}
	name := "dockerexec-fault-runs-" + c.task.ID
	c.volumes = []string{name}
	spec(c.task).Mounts = []api.Mount{{
		Type: api.MountTypeVolume, Source: name, Target: "/runs",
		VolumeOptions: &api.Mount_VolumeOptions{DriverConfig: &api.Driver{Name: "local"}},
	}}
	c.use()
}

// useMuteJob is useJob, and Run does not read the log. So all inspects are those of its own
// steps.
func (c *faultCell) useMuteJob() {
	c.isMute = true
	c.useJob()
}

// useLingeringJob is useJob with a program that ends a second after its first stop signal.
func (c *faultCell) useLingeringJob() {
	c.jobDoes("linger", "1s")
	spec(c.task).StopGracePeriod = gogotypes.DurationProto(stopGrace)
	c.useJob()
}

// takeJobOver has an earlier process have started the job.
func (c *faultCell) takeJobOver() {
	c.isMute = true
	c.jobRuns("2s")
	c.useJobWithoutSecret()
	earlier := c.fresh()
	require.NoError(c, earlier.CreateNetworks(c.ctx()))
	require.NoError(c, earlier.CreateVolumes(c.ctx()))
	require.NoError(c, earlier.Create(c.ctx()))
	require.NoError(c, earlier.Start(c.ctx()))
	c.runs = 1
}

func (c *faultCell) jobRuns(long string) {
	c.jobDoes("print", "5", "line", "--", "sleep", long)
}

func (c *faultCell) jobDoes(what ...string) {
	args := append([]string{"append", "/runs/runs", "it runs", "--"}, what...)
	spec(c.task).Args = append(args, "--", "exit", "3", canaryArgument)
}

// timesRun is how often the job's program has run, as it says itself.
func (c *faultCell) timesRun() int {
	volume, err := c.bench.client.VolumeInspect(c.ctx(), c.volumes[0])
	if err != nil {
		assert.True(c, cerrdefs.IsNotFound(err), err)
		return 0
	}
	text, err := os.ReadFile(filepath.Join(volume.Mountpoint, "runs"))
	if !os.IsNotExist(err) {
		assert.NoError(c, err)
	}
	return strings.Count(string(text), "it runs\n")
}

func hasStarted(answer container.InspectResponse) bool {
	started, err := time.Parse(time.RFC3339Nano, answer.State.StartedAt)
	return err == nil && !started.IsZero()
}
