// Package control is a client of a SwarmKit node's control socket.
package control

import (
	"context"
	"crypto/tls"
	"math"

	"github.com/moby/swarmkit/v2/api"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
)

// Dial returns a connection to the control socket at path; the caller closes it.
// It serves SwarmKit's clients: [api.NewControlClient], [api.NewWatchClient],
// [api.NewLogsClient]. Dialing fails only for an impossible path: the calls on
// the connection say whether a node answers.
//
// The node speaks TLS on this socket too, with a certificate that names it by its
// ID. That is not checked, as SwarmKit itself does: whoever may open the socket
// is trusted, and only the node's user could have made it.
func Dial(path string) (*grpc.ClientConn, error) {
	return grpc.NewClient("unix:"+path,
		grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{InsecureSkipVerify: true})),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(math.MaxInt32)))
}

// WatchTasks calls changed with every task that the swarm has, and from then on
// with every task that is made, changed or removed, until ctx ends or the node is
// gone; it returns why. A task never goes back to an older version.
func WatchTasks(ctx context.Context, conn *grpc.ClientConn, changed func(action api.WatchActionKind, task *api.Task)) error {
	changes, err := api.NewWatchClient(conn).Watch(ctx, &api.WatchRequest{Entries: []*api.WatchRequest_WatchEntry{{
		Kind:   "task",
		Action: api.WatchActionKindCreate | api.WatchActionKindUpdate | api.WatchActionKindRemove,
	}}})
	if err != nil {
		return err
	}
	// The first answer is empty and says that nothing is missed from now on.
	if _, err := changes.Recv(); err != nil {
		return err
	}
	list, err := api.NewControlClient(conn).ListTasks(ctx, &api.ListTasksRequest{})
	if err != nil {
		return err
	}
	versions := map[string]uint64{}
	for _, task := range list.Tasks {
		versions[task.ID] = task.Meta.Version.Index
		changed(api.WatchActionKindCreate, task)
	}
	for {
		answer, err := changes.Recv()
		if err != nil {
			return err
		}
		for _, e := range answer.Events {
			task := e.Object.GetTask()
			if e.Action == api.WatchActionKindRemove {
				delete(versions, task.ID)
			} else if task.Meta.Version.Index <= versions[task.ID] {
				continue // from before the list
			} else {
				versions[task.ID] = task.Meta.Version.Index
			}
			changed(e.Action, task)
		}
	}
}
