// Package control is a client of a SwarmKit node's control socket.
package control

import (
	"crypto/tls"
	"math"

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
