package cluster

import (
	"context"
	"fmt"
	"os"
	"slices"
	"syscall"
	"time"

	"github.com/moby/swarmkit/v2/api"
	"github.com/stretchr/testify/require"
)

// makeSwarm starts the nodes: the first host's begins the swarm, the others join it.
func (c *cluster) makeSwarm() {
	c.t.Helper()
	c.seat = c.hosts[0]
	c.startNode(c.seat)
	c.awaitReady(c.seat)
	for _, h := range c.hosts[1:] {
		c.join(h)
	}
	c.say("a swarm of %d managers and %d workers", c.managers, len(c.hosts)-c.managers)
}

// join starts the node of a host that knows nothing of the swarm yet.
func (c *cluster) join(h *host) {
	c.t.Helper()
	c.startNode(h, "-join", c.seat.address+":4242", "-token", c.token())
	c.awaitReady(h)
}

// startNode starts the node of a host in a new process.
func (c *cluster) startNode(h *host, flags ...string) {
	c.t.Helper()
	c.elections.ended(h.id)
	h.startNode(c.t, flags...)
}

// token is that with which nodes join: as managers, if all are.
func (c *cluster) token() (token string) {
	c.t.Helper()
	c.until("the tokens", func(ctx context.Context) string {
		answer, err := c.seat.swarm.ListClusters(ctx, &api.ListClustersRequest{})
		if err != nil || len(answer.Clusters) != 1 {
			return fmt.Sprint(answer, err)
		}
		tokens := answer.Clusters[0].RootCA.JoinTokens
		if token = tokens.Worker; c.managers > 1 {
			token = tokens.Manager
		}
		return ""
	})
	return token
}

// nodes are all that the swarm has, by the name of their host.
func (c *cluster) nodes(ctx context.Context) (map[string]*api.Node, error) {
	asked := time.Now()
	answer, err := c.seat.swarm.ListNodes(ctx, &api.ListNodesRequest{})
	if err != nil {
		return nil, err
	}
	byHost := map[string]*api.Node{}
	for _, node := range answer.Nodes {
		if node.Description != nil {
			byHost[node.Description.Hostname] = node
		}
		if node.ManagerStatus != nil && node.ManagerStatus.Leader {
			c.elections.saw(node.ID, asked, time.Now())
		}
	}
	return byHost, nil
}

// elections are when a manager began to lead, as far as the scenes have seen it.
type elections struct {
	leader string    // the ID of the node that leads; empty: none was seen yet
	last   time.Time // when it was seen to lead
	begins []span    // from when a manager was last seen to lead until one was again

	led map[string]int // how often each node began to lead, since its process began
}

// An election takes ten seconds or more. Somebody looks ten times a second.
const shortestElection = 5 * time.Second

// saw notes which node led between two times. The manager that leads may be elected again.
func (e *elections) saw(leader string, asked, answered time.Time) {
	if e.leader != "" && (e.leader != leader || answered.Sub(e.last) > shortestElection) {
		e.begins = append(e.begins, span{e.last, answered})
		e.leader = ""
	}
	if e.leader == "" {
		if e.led == nil {
			e.led = map[string]int{}
		}
		e.led[leader]++
	}
	e.leader, e.last = leader, asked
}

// ended notes that the process of a node has ended.
func (e *elections) ended(node string) { delete(e.led, node) }

// leadsAgain reports whether the manager that leads has led before. It then has what begins the
// runs of jobs twice: becomeFollower in SwarmKit's manager/manager.go does not stop that.
func (e *elections) leadsAgain() bool { return e.led[e.leader] > 1 }

// wereSince reports whether a manager began to lead after a time.
func (e *elections) wereSince(begin time.Time) bool {
	return slices.ContainsFunc(e.begins, func(s span) bool { return s.end.After(begin) })
}

// mayHurry reports whether a task may have begun beside the one that it replaces. It waits for
// the other's end, but a manager that begins to lead does not know that: it starts at once what
// it finds waiting (CheckTasks in SwarmKit's manager/orchestrator/taskinit).
func (e *elections) mayHurry(made, began time.Time) bool {
	return slices.ContainsFunc(e.begins, func(s span) bool {
		return !made.IsZero() && made.Before(s.end) && !began.Before(s.begin) && began.Before(s.end.Add(time.Minute))
	})
}

// awaitNode waits until the swarm says something of a host's node.
func (c *cluster) awaitNode(h *host, what string, is func(*api.Node) bool) (node *api.Node) {
	c.t.Helper()
	c.until(fmt.Sprintf("the node of host %s to be %s", h.name, what), func(ctx context.Context) string {
		nodes, err := c.nodes(ctx)
		if err != nil {
			return err.Error()
		}
		if node = nodes[h.name]; node == nil || !is(node) {
			return fmt.Sprint("it is ", describeNode(node))
		}
		return ""
	})
	return node
}

func describeNode(node *api.Node) string {
	if node == nil {
		return "unknown"
	}
	return fmt.Sprintf("%v %q, %v, wanted as %v, manager: %v", node.Status.State, node.Status.Message, node.Role, node.Spec.DesiredRole, node.ManagerStatus)
}

// awaitReady waits until a host's node runs tasks, and is the manager that it should be.
func (c *cluster) awaitReady(h *host) {
	c.t.Helper()
	node := c.awaitNode(h, "ready", func(node *api.Node) bool {
		isManager := node.ManagerStatus != nil && node.ManagerStatus.Reachability == api.RaftMemberStatus_REACHABLE
		return node.Status.State == api.NodeStatus_READY && isManager == (node.Spec.DesiredRole == api.NodeRoleManager)
	})
	h.id = node.ID
}

func (c *cluster) awaitDown(h *host) {
	c.t.Helper()
	c.awaitNode(h, "down", func(node *api.Node) bool { return node.Status.State == api.NodeStatus_DOWN })
}

// leader is the host whose manager leads.
func (c *cluster) leader() (leader *host) {
	c.t.Helper()
	c.until("a leader", func(ctx context.Context) string {
		nodes, err := c.nodes(ctx)
		if err != nil {
			return err.Error()
		}
		for _, h := range c.hosts {
			if node := nodes[h.name]; node != nil && node.ManagerStatus != nil && node.ManagerStatus.Leader {
				leader = h
				return ""
			}
		}
		return "there is none"
	})
	return leader
}

// follower is a host whose node does not lead: a worker, or with three managers another manager.
// A seat is taken on another host, so that what happens to this one does not end the talk.
func (c *cluster) follower() *host {
	c.t.Helper()
	leader := c.leader()
	c.seat = leader
	return c.others(leader)[1]
}

// others are all hosts but that one.
func (c *cluster) others(not *host) []*host {
	return slices.DeleteFunc(slices.Clone(c.hosts), func(h *host) bool { return h == not })
}

// changeNode changes what is wanted of a host's node.
func (c *cluster) changeNode(h *host, change func(*api.NodeSpec)) {
	c.t.Helper()
	c.until("the change of a node", func(ctx context.Context) string {
		now, err := c.seat.swarm.GetNode(ctx, &api.GetNodeRequest{NodeID: h.id})
		if err != nil {
			return err.Error()
		}
		change(&now.Node.Spec)
		_, err = c.seat.swarm.UpdateNode(ctx, &api.UpdateNodeRequest{NodeID: h.id, NodeVersion: &now.Node.Meta.Version, Spec: &now.Node.Spec})
		return text(err)
	})
}

// text is that of an error, or empty.
func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// forget makes a host forget the swarm: its node is ended, if it runs, and its state removed.
func (c *cluster) forget(h *host) {
	c.t.Helper()
	if h.conn != nil {
		h.endNode(c.t, syscall.SIGTERM)
	}
	require.NoError(c.t, os.RemoveAll(h.state()))
}
