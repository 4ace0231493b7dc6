package main

import (
	"context"
	"errors"
	"strings"

	gogotypes "github.com/gogo/protobuf/types"
	"github.com/moby/swarmkit/v2/api"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// The images that the engines can pull. The update is from the first to the second.
const (
	firstImage  = "example/web:1"
	secondImage = "example/web:2"
)

// service is the one service of the swarm.
type service struct {
	api api.ControlClient
	id  string
}

// create makes the service without tasks. An update of it takes so many tasks at a time that it needs
// about as many rounds as the plan says.
func (s *service) create(ctx context.Context, p plan) error {
	soon := gogotypes.DurationProto(p.heartbeat / 5)
	answer, err := s.api.CreateService(ctx, &api.CreateServiceRequest{Spec: &api.ServiceSpec{
		Annotations: api.Annotations{Name: "web"},
		Mode:        &api.ServiceSpec_Replicated{Replicated: &api.ReplicatedService{}},
		Task: api.TaskSpec{
			Runtime: &api.TaskSpec_Container{Container: &api.ContainerSpec{Image: firstImage}},
			Restart: &api.RestartPolicy{Condition: api.RestartOnAny, Delay: soon},
		},
		Update: &api.UpdateConfig{
			Parallelism: uint64(max(p.total()/p.rounds, 1)), FailureAction: api.UpdateConfig_PAUSE, Monitor: soon,
		},
	}})
	if err != nil {
		return err
	}
	s.id = answer.Service.ID
	return nil
}

func (s *service) update(ctx context.Context) error {
	return s.change(ctx, func(spec *api.ServiceSpec) { spec.Task.GetContainer().Image = secondImage })
}

func (s *service) scale(ctx context.Context, replicas int) error {
	return s.change(ctx, func(spec *api.ServiceSpec) { spec.GetReplicated().Replicas = uint64(replicas) })
}

// change changes the service, also if it has just changed by itself.
func (s *service) change(ctx context.Context, how func(*api.ServiceSpec)) error {
	for {
		answer, err := s.api.GetService(ctx, &api.GetServiceRequest{ServiceID: s.id})
		if err != nil {
			return err
		}
		spec := answer.Service.Spec.Copy()
		how(spec)
		_, err = s.api.UpdateService(ctx, &api.UpdateServiceRequest{ServiceID: s.id, ServiceVersion: &answer.Service.Meta.Version, Spec: spec})
		if !isOutOfSequence(err) {
			return err
		}
	}
}

// isUpdated reports whether the update is complete. A paused one is an error.
func (s *service) isUpdated(ctx context.Context) (bool, error) {
	answer, err := s.api.GetService(ctx, &api.GetServiceRequest{ServiceID: s.id})
	if err != nil || answer.Service.UpdateStatus == nil {
		return false, err
	}
	switch state := answer.Service.UpdateStatus; state.State {
	case api.UpdateStatus_COMPLETED:
		return true, nil
	case api.UpdateStatus_UPDATING:
		return false, nil
	default:
		return false, errors.New(state.Message)
	}
}

func (s *service) remove(ctx context.Context) error {
	_, err := s.api.RemoveService(ctx, &api.RemoveServiceRequest{ServiceID: s.id})
	return err
}

// running is how many tasks run, as the managers know it. It costs them little: no task
// is sent.
func (s *service) running(ctx context.Context) (int, error) {
	answer, err := s.api.ListServiceStatuses(ctx, &api.ListServiceStatusesRequest{Services: []string{s.id}})
	if err != nil {
		return 0, err
	}
	return int(answer.Statuses[0].RunningTasks), nil
}

// isOutOfSequence reports whether an object has changed since it was read.
func isOutOfSequence(err error) bool {
	return err != nil && status.Code(err) == codes.Unknown && strings.Contains(err.Error(), "update out of sequence")
}
