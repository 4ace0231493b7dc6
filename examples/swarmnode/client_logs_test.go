package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	engineapi "github.com/docker/docker/client"
	"github.com/docker/docker/pkg/stdcopy"
	gogotypes "github.com/gogo/protobuf/types"
	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/moby/swarmkit/v2/api"
	"github.com/moby/swarmkit/v2/api/naming"

	"github.com/dockerexec/dockerexec"
)

// withClientLogs is the variable that makes the test binary a node which reads logs
// with the engine's own client.
const withClientLogs = "SWARMNODE_TEST_CLIENT_LOGS"

// newClientLogsSwarm is newSwarm with such a node: what SwarmKit takes for a log by
// itself, to measure the package's against.
func newClientLogsSwarm(t testing.TB) *swarm {
	t.Helper()
	return newSwarmOf(t, os.Executable, []string{withClientLogs + "=1"})
}

func mainWithClientLogs() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	err := func() error {
		o, err := parseFlags(os.Args[1:], os.Stderr)
		if err != nil {
			return err
		}
		client, err := engineapi.NewClientWithOpts(engineapi.WithHost(o.host), engineapi.WithAPIVersionNegotiation())
		if err != nil {
			return err
		}
		defer client.Close()
		return runNode(ctx, o, clientLogsExecutor{dockerexec.NewExecutor(client, nil), client}, os.Stdout)
	}()
	if err != nil {
		fmt.Fprintln(os.Stderr, "swarmnode:", err)
		os.Exit(1)
	}
}

// clientLogsExecutor has controllers that are the package's but for their logs.
type clientLogsExecutor struct {
	exec.Executor
	client *engineapi.Client
}

func (e clientLogsExecutor) Controller(task *api.Task) (exec.Controller, error) {
	controller, err := e.Executor.Controller(task)
	return clientLogsController{controller, e.client, task}, err
}

type clientLogsController struct {
	exec.Controller
	client *engineapi.Client
	task   *api.Task
}

// Logs does what the engine's client offers and no more: it copies the log message
// by message, each of which has a line of the tests.
func (c clientLogsController) Logs(ctx context.Context, publisher exec.LogPublisher, options api.LogSubscriptionOptions) error {
	body, err := c.client.ContainerLogs(ctx, naming.Task(c.task), container.LogsOptions{
		ShowStdout: true, ShowStderr: true, Timestamps: true, Follow: options.Follow,
	})
	if err != nil {
		return err
	}
	defer body.Close()
	publish := func(stream api.LogStream) publishing {
		return func(message []byte) error {
			stamp, line, _ := bytes.Cut(message, []byte{' '})
			at, err := time.Parse(time.RFC3339Nano, string(stamp))
			if err != nil {
				return err
			}
			timestamp, err := gogotypes.TimestampProto(at)
			if err != nil {
				return err
			}
			return publisher.Publish(ctx, api.LogMessage{
				Context:   api.LogContext{ServiceID: c.task.ServiceID, NodeID: c.task.NodeID, TaskID: c.task.ID},
				Timestamp: timestamp, Stream: stream, Data: bytes.Clone(line),
			})
		}
	}
	_, err = stdcopy.StdCopy(publish(api.LogStreamStdout), publish(api.LogStreamStderr), body)
	return err
}

// publishing is a writer that gets a message at a time.
type publishing func(message []byte) error

func (p publishing) Write(message []byte) (int, error) { return len(message), p(message) }
