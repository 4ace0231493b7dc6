package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/events"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/volume"
	engineapi "github.com/docker/docker/client"
	"github.com/dockerexec/dockerexec"
	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/moby/swarmkit/v2/api"
)

const (
	labelVolume  = "runtask.task"   // on the volumes that a task made: the task's ID
	cleanupTime  = 30 * time.Second // for each kind of thing that is removed
	lastMessages = 2 * time.Second  // for the last log lines and events to arrive
)

// runner runs one task.
type runner struct {
	client      engineapi.APIClient
	task        *api.Task
	out         *printer
	keepVolumes bool
	patience    time.Duration

	adapter *dockerexec.ContainerAdapter
	left    []error // why something could not be removed
}

// run takes the task through its life and returns the exit code. The end of
// first stops the container within its grace period, the end of second kills
// it. Whatever was made is removed on every path.
func (r *runner) run(first, second context.Context) (code int, err error) {
	r.labelVolumes()
	// A program that runs many tasks makes one Engine and takes an adapter from
	// it for each of them.
	engine := dockerexec.NewEngine(r.client, dockerexec.WithPullObserver(r.out.pull))
	if r.adapter, err = engine.Adapter(nodeDescription(), r.task, nil); err != nil {
		return ownFailure, err
	}

	defer func() {
		if errors.Is(err, context.Canceled) {
			err = errors.New("interrupted before the task had started")
		}
		if len(r.left) > 0 {
			err = errors.Join(append([]error{err}, r.left...)...)
			if code == 0 {
				code = ownFailure
			}
		}
	}()
	if err := r.pull(first); err != nil {
		return ownFailure, err
	}
	// From here on there may be something to remove, also after a call that
	// failed: the engine may have done it all the same.
	if !r.keepVolumes {
		defer r.undo(r.removeVolumes)
	}
	defer r.undo(r.adapter.RemoveNetworks)
	if err := r.retry(first, r.adapter.CreateNetworks); err != nil {
		return ownFailure, err
	}
	if err := r.retry(first, r.adapter.CreateVolumes); err != nil {
		return ownFailure, err
	}

	// asked ends when the container is to be stopped: by the user, or because
	// its health check failed.
	asked, ask := context.WithCancelCause(first)
	defer ask(nil)
	watching, created := r.watch(ask), false
	defer func() { watching.end(created) }()
	defer r.undo(r.adapter.Remove)
	select {
	case <-watching.ready:
	case <-watching.done:
	case <-first.Done():
	}
	if err := r.retry(first, r.adapter.Create); err != nil && !errors.Is(err, exec.ErrTaskPrepared) {
		return ownFailure, err // ErrTaskPrepared: it is there already, so go on
	}
	created = true
	if first.Err() != nil {
		return ownFailure, first.Err()
	}
	if err := r.retry(second, r.adapter.Start); err != nil {
		return ownFailure, err
	}

	ended, err := r.untilEnd(asked, second)
	if err != nil {
		return ownFailure, err
	}
	var cause error
	if errors.Is(context.Cause(asked), dockerexec.ErrContainerUnhealthy) {
		cause = dockerexec.ErrContainerUnhealthy
	}
	r.out.line("exit code %d", ended.State.ExitCode)
	err = dockerexec.ExitError(ended, cause)
	code = ended.State.ExitCode
	if err != nil && code == 0 {
		code = ownFailure
	}
	return code, err
}

// pull pulls the image. After a failure an image that is on the engine already
// will do: credentials expire, and registries are away, while tasks run on.
func (r *runner) pull(ctx context.Context) error {
	begin, image := time.Now(), r.task.Spec.GetContainer().Image
	r.out.line("pull %s", image)
	err := r.retry(ctx, r.adapter.PullImage)
	if err == nil {
		r.out.line("pull done in %v", time.Since(begin).Round(time.Millisecond))
		return nil
	}
	r.out.line("pull failed")
	if ctx.Err() != nil {
		return err
	}
	if _, inspectErr := r.client.ImageInspect(ctx, image); inspectErr != nil {
		return err
	}
	r.out.line("pull not needed, the image is on the engine: %v", err)
	return nil
}

// untilEnd prints the log of the started container until it has ended, and
// stops it when asked to.
func (r *runner) untilEnd(asked, second context.Context) (container.InspectResponse, error) {
	waiting, giveUp := context.WithCancelCause(context.Background())
	defer giveUp(nil)
	over := make(chan struct{})
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		select {
		case <-over:
			return
		case <-asked.Done():
		}
		r.out.line("stop %v", context.Cause(asked))
		err := r.retry(second, r.adapter.Shutdown)
		if second.Err() != nil {
			r.out.line("kill")
			err = r.bounded(r.adapter.Terminate)
		}
		if err != nil {
			giveUp(err)
		}
	}()

	logging, endLog := context.WithCancel(context.Background())
	logged := make(chan struct{})
	go func() {
		defer close(logged)
		if err := r.log(logging); err != nil && logging.Err() == nil {
			r.out.line("log failed: %v", err)
		}
	}()

	var ended container.InspectResponse
	err := r.retry(waiting, func(ctx context.Context) (err error) {
		ended, err = r.adapter.Wait(ctx)
		return err
	})
	if waiting.Err() != nil {
		err = context.Cause(waiting)
	}
	close(over)
	<-stopped
	// The log of a container that has ended comes to an end by itself.
	soon(logged)
	endLog()
	<-logged
	return ended, err
}

// watcher prints the events of the container.
type watcher struct {
	ready chan struct{} // closed once no event can be missed any more
	done  chan struct{} // closed after the last event
	stop  context.CancelFunc
}

// watch begins to print events and asks for a stop when the container's health
// check has failed.
func (r *runner) watch(ask context.CancelCauseFunc) *watcher {
	ctx, stop := context.WithCancel(context.Background())
	w := &watcher{ready: make(chan struct{}), done: make(chan struct{}), stop: stop}
	go func() {
		defer close(w.done)
		for again := false; ctx.Err() == nil; again = true {
			messages, lost, err := r.adapter.Events(ctx)
			if err != nil {
				return // ctx ended
			}
			if !again {
				close(w.ready)
			} else if now, err := r.adapter.Inspect(ctx); err == nil && now.State.Health != nil && now.State.Health.Status == container.Unhealthy {
				ask(dockerexec.ErrContainerUnhealthy) // that event may have been lost
			}
			for more := true; more; {
				select {
				case <-lost:
					more = false
				case m := <-messages:
					r.out.line("event %s", m.Action)
					if m.Action == events.ActionHealthStatusUnhealthy {
						ask(dockerexec.ErrContainerUnhealthy)
					}
					if m.Action == events.ActionDestroy {
						return
					}
				}
			}
		}
	}()
	return w
}

// end waits a moment for the last event, if there is a container.
func (w *watcher) end(created bool) {
	if created {
		soon(w.done)
	}
	w.stop()
	<-w.done
}

// soon waits for done, but not for long.
func soon(done <-chan struct{}) {
	select {
	case <-done:
	case <-time.After(lastMessages):
	}
}

// retry calls again what failed for a passing reason: the engine restarts, or
// is overloaded. SwarmKit's agent does so for ever.
func (r *runner) retry(ctx context.Context, call func(context.Context) error) error {
	for deadline := time.Now().Add(r.patience); ; {
		err := call(ctx)
		if !exec.IsTemporary(err) || time.Now().After(deadline) {
			return err
		}
		r.out.line("retry %v", err)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Second):
		}
	}
}

// undo removes something. It has a context of its own: the task's may be the
// very reason for the removal.
func (r *runner) undo(remove func(context.Context) error) {
	if err := r.bounded(remove); err != nil {
		r.left = append(r.left, err)
	}
}

func (r *runner) bounded(call func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), cleanupTime)
	defer cancel()
	return r.retry(ctx, call)
}

// labelVolumes marks the volumes that the task will make. An engine gives labels
// only to a volume that it makes, so one that was there before stays unmarked.
func (r *runner) labelVolumes() {
	spec := r.task.Spec.GetContainer()
	if spec == nil {
		return
	}
	for i := range spec.Mounts {
		m := &spec.Mounts[i]
		if m.Type != api.MountTypeVolume || m.Source == "" {
			continue // an anonymous volume goes with its container
		}
		if m.VolumeOptions == nil {
			m.VolumeOptions = &api.Mount_VolumeOptions{}
		}
		if m.VolumeOptions.Labels == nil {
			m.VolumeOptions.Labels = map[string]string{}
		}
		m.VolumeOptions.Labels[labelVolume] = r.task.ID
	}
}

// removeVolumes removes the volumes that the task made. A swarm keeps them, so
// the adapter has no call for it.
func (r *runner) removeVolumes(ctx context.Context) error {
	ours, err := r.client.VolumeList(ctx, volume.ListOptions{
		Filters: filters.NewArgs(filters.Arg("label", labelVolume+"="+r.task.ID)),
	})
	if err != nil {
		return fmt.Errorf("list the task's volumes: %w", err)
	}
	var failed []error
	for _, v := range ours.Volumes {
		if err := r.client.VolumeRemove(ctx, v.Name, false); err != nil {
			failed = append(failed, fmt.Errorf("remove volume %s: %w", v.Name, err))
		}
	}
	return errors.Join(failed...)
}

// nodeDescription is what templates such as {{.Node.Hostname}} are filled from.
func nodeDescription() *api.NodeDescription {
	hostname, err := os.Hostname()
	if err != nil {
		hostname = "localhost"
	}
	return &api.NodeDescription{
		Hostname: hostname,
		Platform: &api.Platform{OS: runtime.GOOS, Architecture: runtime.GOARCH},
	}
}
