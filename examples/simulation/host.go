package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"github.com/docker/docker/api/types/system"
	engineapi "github.com/docker/docker/client"
	"github.com/moby/swarmkit/v2/node"

	"github.com/dockerexec/dockerexec"
	"github.com/dockerexec/dockerexec/dockerexectest"
)

// host is one machine of the swarm: an engine, and a node that uses it. Its methods are
// not for concurrent use.
type host struct {
	config  node.Config // but for the executor
	part    string
	engine  *dockerexectest.Engine
	client  *engineapi.Client
	traffic traffic

	id   string // of the node, once it has run
	node *node.Node
	end  context.CancelFunc
	lost bool // the host is away: no agent, and an engine that nobody reaches
}

// newHost makes a host whose engine runs and whose node does not.
func newHost(part string, config node.Config, faults *faults) *host {
	h := &host{config: config, part: part}
	inPart(enginesPart, func() {
		h.engine = dockerexectest.New(faults, dockerexectest.WithInfo(system.Info{Name: config.Hostname, NCPU: 8, MemTotal: 16 << 30}))
		for _, image := range []string{firstImage, secondImage} {
			h.engine.Image(image, dockerexectest.UntilStopped(0))
		}
	})
	inPart(part, func() { h.client = h.engine.Client(counted(&h.traffic)) })
	return h
}

// start starts the node, and returns once it is part of the swarm. A node that starts
// again is the same node.
func (h *host) start(ctx context.Context) error {
	config := h.config
	config.Executor = dockerexec.NewExecutor(h.client, nil, dockerexec.WithSecretsDir(filepath.Join(config.StateDir, "secrets")))
	made, err := node.New(&config)
	if err != nil {
		return err
	}
	var nodeCtx context.Context
	nodeCtx, h.end = context.WithCancel(context.Background())
	inPart(h.part, func() { err = made.Start(nodeCtx) })
	if err != nil {
		return err
	}
	h.node = made
	ended := make(chan error, 1)
	go func() { ended <- made.Err(nodeCtx) }()
	select {
	case <-made.Ready():
		h.id = made.NodeID()
		return nil
	case err := <-ended:
		return fmt.Errorf("node %s: %w", config.Hostname, err)
	case <-ctx.Done():
		return fmt.Errorf("node %s is not ready: %w", config.Hostname, ctx.Err())
	}
}

// stop ends the node, as the end of its process would: its containers run on.
func (h *host) stop() error {
	if h.node == nil {
		return nil
	}
	h.end()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	err := h.node.Err(ctx)
	h.node = nil
	if err != nil && !errors.Is(err, context.Canceled) {
		return fmt.Errorf("the end of node %s: %w", h.config.Hostname, err)
	}
	return nil
}

// lose cuts the whole host off.
func (h *host) lose() error {
	h.engine.Down()
	h.lost = true
	return h.stop()
}

// comeBack ends what lose began.
func (h *host) comeBack(ctx context.Context) error {
	h.engine.Up()
	h.lost = false
	return h.start(ctx)
}

// each calls do for the hosts, many at once, and returns the first error.
func each(hosts []*host, do func(*host) error) error {
	const atOnce = 32
	var workers sync.WaitGroup
	todo, failed := make(chan *host), make(chan error, len(hosts))
	for range atOnce {
		workers.Go(func() {
			for h := range todo {
				if err := do(h); err != nil {
					failed <- err
				}
			}
		})
	}
	for _, h := range hosts {
		todo <- h
	}
	close(todo)
	workers.Wait()
	close(failed)
	return <-failed
}
