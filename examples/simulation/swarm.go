package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	gogotypes "github.com/gogo/protobuf/types"
	"github.com/moby/swarmkit/v2/api"
	"github.com/moby/swarmkit/v2/node"
	"google.golang.org/grpc"

	"github.com/dockerexec/dockerexec/examples/control"
)

// swarm is the managers. They have engines too, and run no tasks.
type swarm struct {
	managers []*host
	conn     *grpc.ClientConn
	api      api.ControlClient
	token    string // for agents
}

const managersOfSwarm = 3

// startSwarm starts the managers. If it fails, the caller still calls stop.
func startSwarm(ctx context.Context, s *swarm, dir string, heartbeat time.Duration, faults *faults) error {
	var token string
	for i := range managersOfSwarm {
		name := fmt.Sprintf("manager-%d", i+1)
		config := node.Config{
			Hostname: name, StateDir: filepath.Join(dir, name), Availability: api.NodeAvailabilityDrain,
			ListenControlAPI: filepath.Join(dir, name+".sock"), ListenRemoteAPI: "127.0.0.1:0", NetworkProvider: noNetworks{},
		}
		if i > 0 {
			address, err := s.managers[0].node.RemoteAPIAddr()
			if err != nil {
				return err
			}
			config.JoinAddr, config.JoinToken = address, token
		}
		manager := newHost(managersPart, config, faults)
		s.managers = append(s.managers, manager)
		if err := manager.start(ctx); err != nil {
			return err
		}
		if i > 0 {
			continue
		}
		var err error
		if s.conn, err = control.Dial(config.ListenControlAPI); err != nil {
			return err
		}
		s.api = api.NewControlClient(s.conn)
		cluster, err := s.configure(ctx, heartbeat)
		if err != nil {
			return err
		}
		token, s.token = cluster.RootCA.JoinTokens.Manager, cluster.RootCA.JoinTokens.Worker
	}
	return nil
}

// configure sets the heartbeats, and has the managers forget a task that has ended, so that
// its container goes too.
func (s *swarm) configure(ctx context.Context, heartbeat time.Duration) (*api.Cluster, error) {
	for {
		list, err := s.api.ListClusters(ctx, &api.ListClustersRequest{})
		if err != nil {
			return nil, err
		}
		if len(list.Clusters) != 1 {
			return nil, errors.New("a manager has not one cluster")
		}
		cluster := list.Clusters[0]
		cluster.Spec.Dispatcher.HeartbeatPeriod = gogotypes.DurationProto(heartbeat)
		cluster.Spec.Orchestration.TaskHistoryRetentionLimit = 0
		answer, err := s.api.UpdateCluster(ctx, &api.UpdateClusterRequest{
			ClusterID: cluster.ID, ClusterVersion: &cluster.Meta.Version, Spec: &cluster.Spec,
		})
		if isOutOfSequence(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		return answer.Cluster, nil
	}
}

// agentConfig is the node of an agent. Agents join at all managers in turn.
func (s *swarm) agentConfig(dir string, number int) (node.Config, error) {
	address, err := s.managers[number%len(s.managers)].node.RemoteAPIAddr()
	name := fmt.Sprintf("agent-%d", number)
	return node.Config{Hostname: name, StateDir: filepath.Join(dir, name), JoinAddr: address, JoinToken: s.token}, err
}

func (s *swarm) stop() error {
	if s.conn != nil {
		_ = s.conn.Close()
	}
	return each(s.managers, (*host).stop)
}
