package main

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/moby/swarmkit/v2/api"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"
)

// lifeOfTasks is what the life of a number of tasks has taken, from the creation of their
// service until nothing of them is left.
type lifeOfTasks struct {
	Up, Down    time.Duration // until all run; from the service's removal until no container is left
	UpRequests  float64       // to the engine until all ran, a task
	Requests    float64       // to the engine over the whole life, a task
	Connections int64         // to the engine while all ran
	CPU         time.Duration // of the node until all ran and back
	Memory      int64         // of the node while all ran, in bytes
	Idle        float64       // CPU while all ran and nothing happened, in per cent of a core; 0: not measured
}

// The time in which nothing happens, after the time in which what the starts have set off ends.
const settleTime, idleTime = 5 * time.Second, 15 * time.Second

// liveTasks has a new node with an executor of that name run tasks. network, if not empty,
// is the subnet of a network that all of them share.
func liveTasks(t *testing.T, executor string, n int, network string, idle bool) (l lifeOfTasks) {
	s := newCountedSwarm(t, executor)
	spec := s.service("bench", uint64(n), "sleep", "1h")
	if network != "" {
		made, err := s.api.CreateNetwork(t.Context(), &api.CreateNetworkRequest{Spec: &api.NetworkSpec{
			Annotations:  api.Annotations{Name: "dockerexec-bench"},
			DriverConfig: &api.Driver{Name: "bridge"},
			IPAM:         &api.IPAMOptions{Configs: []*api.IPAMConfig{{Subnet: network}}},
		}})
		require.NoError(t, err)
		spec.Task.Networks = []*api.NetworkAttachmentConfig{{Target: made.Network.ID}}
	}
	first, began := s.use(), time.Now()
	service := s.create(spec)
	s.awaitRunning(service, n)
	l.Up = time.Since(began)
	up := s.use()
	l.UpRequests = float64(up.Requests-first.Requests) / float64(n)
	if idle {
		time.Sleep(settleTime)
		before := s.use()
		time.Sleep(idleTime)
		l.Idle = 100 * (s.use().CPU - before.CPU).Seconds() / idleTime.Seconds()
	}
	l.Connections, l.Memory = s.use().Connections, s.memory()
	began, before := time.Now(), s.use()
	s.removeOnly(service)
	s.await(service, "no task", noTasks)
	s.awaitContainers(service, 0)
	l.Down = time.Since(began)
	last := s.use()
	l.CPU = up.CPU - first.CPU + last.CPU - before.CPU
	l.Requests = float64(up.Requests-first.Requests+last.Requests-before.Requests) / float64(n)
	return l
}

// liveContainers has the engine do by itself what it can: the plain client creates and
// starts as many containers, all at once, and then stops and removes them, all at once.
func liveContainers(t *testing.T, n int) (l lifeOfTasks) {
	client := engineClient(t)
	image := fromHarness(t, "DOCKEREXEC_TEST_IMAGE")
	at := func(i int) string { return fmt.Sprint("dockerexec-limit-", i) }
	all := func(do func(ctx context.Context, name string) error) time.Duration {
		began := time.Now()
		group, ctx := errgroup.WithContext(t.Context())
		for i := range n {
			group.Go(func() error { return do(ctx, at(i)) })
		}
		require.NoError(t, group.Wait())
		return time.Since(began)
	}
	l.Up = all(func(ctx context.Context, name string) error {
		_, err := client.ContainerCreate(ctx, &container.Config{Image: image, Cmd: []string{"sleep", "1h"}}, nil, nil, nil, name)
		if err != nil {
			return err
		}
		return client.ContainerStart(ctx, name, container.StartOptions{})
	})
	l.Down = all(func(ctx context.Context, name string) error {
		if err := client.ContainerStop(ctx, name, container.StopOptions{}); err != nil {
			return err
		}
		return client.ContainerRemove(ctx, name, container.RemoveOptions{RemoveVolumes: true, Force: true})
	})
	return l
}
