package main

import (
	"context"
	"time"

	"github.com/dockerexec/dockerexec/examples/control"
)

// An engine of version 29 that ended within a start may hang on that container once
// its process has ended, see "Lost starts" in the package's documentation. No client
// can help that. The soak kills the engine then, as a user would have to.

// hangTime is how long an engine that does not hang may take to answer: it gives a
// kill up after 12 s.
const hangTime = 30 * time.Second

// freeHung kills and starts the engine if it hangs on a container, and reports
// whether it did. A list of containers comes even then.
func (k *soak) freeHung() bool {
	k.t.Helper()
	hangs := false
	for _, c := range k.onEngine() {
		ctx, cancel := context.WithTimeout(k.t.Context(), hangTime)
		if _, err := k.engine.ContainerInspect(ctx, c.ID); ctx.Err() != nil {
			hangs = true
			k.t.Logf("the engine hangs on container %v of task %s: %v", c.Names, taskOf(c), err)
		}
		cancel()
	}
	if hangs {
		k.did("hang of the engine")
		k.moment(func() { controlEngine(k.t, "kill") })
		k.moment(func() { controlEngine(k.t, "start") })
	}
	return hangs
}

// freely makes a call of the engine, and makes it again if that hung.
func (k *soak) freely(call func(context.Context) error) error {
	k.t.Helper()
	for {
		ctx, cancel := context.WithTimeout(k.t.Context(), hangTime)
		err := call(ctx)
		late := ctx.Err() != nil
		cancel()
		if !late || !k.freeHung() {
			return err
		}
	}
}

// unhang calls reached until it reports true, for as long as a service may take, and
// frees the engine meanwhile if that hangs.
func (k *soak) unhang(reached func(context.Context) bool) {
	k.t.Helper()
	for late := time.Now().Add(patience); time.Now().Before(late); k.freeHung() {
		ctx, cancel := context.WithTimeout(k.t.Context(), hangTime)
		is := reached(ctx)
		cancel()
		if is {
			return
		}
	}
}

// awaitRunning is the swarm's, on an engine that may hang.
func (k *soak) awaitRunning(service string, replicas int) {
	k.t.Helper()
	k.unhang(func(ctx context.Context) bool {
		_, err := k.tasks.Await(ctx, service, control.AllRun(replicas))
		return err == nil
	})
	k.swarm.awaitRunning(service, replicas)
}

// remove is the swarm's, on an engine that may hang.
func (k *soak) remove(service string) {
	k.t.Helper()
	k.removeOnly(service)
	k.unhang(func(ctx context.Context) bool {
		_, err := k.tasks.Await(ctx, service, none)
		for err == nil && len(k.containers(service)) > 0 {
			time.Sleep(100 * time.Millisecond)
			err = ctx.Err()
		}
		return err == nil
	})
	k.await(service, "no task", none)
	k.awaitContainers(service, 0)
}
