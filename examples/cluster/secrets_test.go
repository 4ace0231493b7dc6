package cluster

import (
	"bytes"
	"context"
	"fmt"
	"strings"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/pkg/stdcopy"
	"github.com/moby/swarmkit/v2/api"
	"github.com/stretchr/testify/require"
)

// A secret that is rotated while a host is cut off: all tasks of the service have the new one
// in the end, and no file of the old one is left on any host.
func (c *cluster) aSecretIsRotated() {
	h := c.follower()
	old := c.secret("key-1", "first")
	spec := c.service("keeper", 6, "sleep", "1h")
	spec.Task.GetContainer().Secrets = []*api.SecretReference{old}
	service := c.create(spec)
	c.awaitAll(service, 6)
	c.awaitSecret(service, "first")
	require.Len(c.t, c.secretFiles(), 12, "for each task its secret, and a note of the engine")

	h.goesAway()
	h.unplug(c.t)
	c.awaitDown(h) // else the update waits for the host
	rotated := c.secret("key-2", "second")
	c.update(service, func(spec *api.ServiceSpec) { spec.Task.GetContainer().Secrets = []*api.SecretReference{rotated} })
	c.say("host %s is unplugged, and the secret is rotated", h.name)
	c.awaitRunning(service, 6, c.others(h)...)
	h.plugIn(c.t)
	c.awaitReady(h)
	c.holds()
	c.awaitSecret(service, "second")
	c.until("the removal of the old secret", func(ctx context.Context) string {
		_, err := c.seat.swarm.RemoveSecret(ctx, &api.RemoveSecretRequest{SecretID: old.SecretID})
		return text(err)
	})
	c.remove(service)
	c.until("no file of a secret to be left", func(context.Context) string { return strings.Join(c.secretFiles(), "\n") })
	c.say("all tasks have had the new secret, and no file of one is left")
}

// secretFiles are all files in the folders of tasks with secrets, of all hosts.
func (c *cluster) secretFiles() (files []string) {
	c.t.Helper()
	for _, h := range c.hosts {
		found := h.do(c.t, "find", "/run", "-mindepth", "5", "-path", "/run/dockerexec/*") // secrets/ENGINE/TASK/FILE
		for _, file := range strings.Fields(found) {
			files = append(files, "host "+h.name+": "+file)
		}
	}
	return files
}

// secret makes a secret, and returns what a task says that uses it as /run/secrets/key.
func (c *cluster) secret(name, data string) *api.SecretReference {
	c.t.Helper()
	answer, err := c.seat.swarm.CreateSecret(c.t.Context(), &api.CreateSecretRequest{Spec: &api.SecretSpec{
		Annotations: api.Annotations{Name: name}, Data: []byte(data),
	}})
	require.NoError(c.t, err)
	return &api.SecretReference{SecretID: answer.Secret.ID, SecretName: name,
		Target: &api.SecretReference_File{File: &api.FileTarget{Name: "key", UID: "0", GID: "0", Mode: 0o400}}}
}

// awaitSecret waits until each running container of a service reads that secret.
func (c *cluster) awaitSecret(service, want string) {
	c.t.Helper()
	c.until("the secret "+want, func(ctx context.Context) string {
		n := 0
		for _, h := range c.hosts {
			list, err := h.containers(ctx)
			if err != nil {
				return err.Error()
			}
			for _, one := range list {
				if one.State != container.StateRunning || one.Labels["com.docker.swarm.service.id"] != service {
					continue
				}
				got, err := h.inside(ctx, one.ID, "/testtask", "cat", "/run/secrets/key")
				if err != nil || got != want {
					return fmt.Sprintf("host %s, %v: %q %v", h.name, one.Names, got, err)
				}
				n++
			}
		}
		if n != 6 {
			return fmt.Sprint(n, " containers run")
		}
		return ""
	})
}

// inside runs a command in a container, and returns its output.
func (h *host) inside(ctx context.Context, id string, command ...string) (string, error) {
	made, err := h.engine.ContainerExecCreate(ctx, id, container.ExecOptions{Cmd: command, AttachStdout: true, AttachStderr: true})
	if err != nil {
		return "", err
	}
	stream, err := h.engine.ContainerExecAttach(ctx, made.ID, container.ExecAttachOptions{})
	if err != nil {
		return "", err
	}
	defer stream.Close()
	var out bytes.Buffer
	_, err = stdcopy.StdCopy(&out, &out, stream.Reader)
	return strings.TrimSpace(out.String()), err
}
