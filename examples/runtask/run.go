package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"time"

	"github.com/distribution/reference"
	"github.com/docker/cli/cli/config"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/registry"
	"github.com/docker/docker/api/types/volume"
	engineapi "github.com/docker/docker/client"
	"github.com/dockerexec/dockerexec"
	"github.com/moby/swarmkit/v2/api"
)

const (
	labelVolume = "runtask.task"   // on the volumes that a task made: the task's ID
	cleanupTime = 30 * time.Second // for the removal of the volumes
)

// run runs a task and returns the exit code. The end of ctx stops the container
// within its grace period. Whatever was made is removed on every path.
func run(ctx context.Context, client engineapi.APIClient, task *api.Task, out *printer, keepVolumes bool) (int, error) {
	labelVolumes(task)
	// A program that runs many tasks makes one Engine for all of them.
	engine := dockerexec.NewEngine(client, dockerexec.WithPullObserver(out.pull), dockerexec.WithCredentials(dockerLogin))
	result, err := engine.Run(ctx, task, dockerexec.RunOptions{Node: nodeDescription(), Logs: out, OnStatus: out.status})

	code, ended := ownFailure, !result.Finished.IsZero()
	switch {
	case ended && err == ctx.Err(): //nolint:errorlint // bare: nothing is left, and the container ended with 0
		code, err = 0, nil
	case ended && (err == nil || result.ExitCode != 0):
		code = result.ExitCode
	case result.State == api.TaskStateShutdown && result.Started.IsZero():
		err = fmt.Errorf("interrupted before the task had started: %w", err)
	}
	if ended {
		out.line("exit code %d", result.ExitCode)
	}
	if !keepVolumes {
		if left := removeVolumes(client, task); left != nil {
			err = errors.Join(err, left)
			if code == 0 {
				code = ownFailure
			}
		}
	}
	return code, err
}

// dockerLogin returns what "docker login" has stored, in docker's own configuration or
// in a helper. It is asked if the task brings no credentials.
func dockerLogin(_ context.Context, image string) (registry.AuthConfig, error) {
	auth, err := config.LoadDefaultConfigFile(os.Stderr).GetAuthConfig(registryKey(image))
	return registry.AuthConfig{Username: auth.Username, Password: auth.Password, ServerAddress: auth.ServerAddress, IdentityToken: auth.IdentityToken, RegistryToken: auth.RegistryToken}, err
}

// registryKey is the name under which docker stores the credentials of an image.
func registryKey(image string) string {
	ref, err := reference.ParseNormalizedNamed(image)
	if err != nil || reference.Domain(ref) == "docker.io" {
		return "https://index.docker.io/v1/"
	}
	return reference.Domain(ref)
}

// labelVolumes marks the volumes that the task will make. An engine gives labels
// only to a volume that it makes, so one that was there before stays unmarked.
func labelVolumes(task *api.Task) {
	spec := task.Spec.GetContainer()
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
		m.VolumeOptions.Labels[labelVolume] = task.ID
	}
}

// removeVolumes removes the volumes that the task made. A swarm keeps them, and
// so does the package. It has a context of its own: the task's may have ended.
func removeVolumes(client engineapi.APIClient, task *api.Task) error {
	ctx, cancel := context.WithTimeout(context.Background(), cleanupTime)
	defer cancel()
	ours, err := client.VolumeList(ctx, volume.ListOptions{
		Filters: filters.NewArgs(filters.Arg("label", labelVolume+"="+task.ID)),
	})
	if err != nil {
		return fmt.Errorf("list the task's volumes: %w", err)
	}
	var failed []error
	for _, v := range ours.Volumes {
		if err := client.VolumeRemove(ctx, v.Name, false); err != nil {
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
