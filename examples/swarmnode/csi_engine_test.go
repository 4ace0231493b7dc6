package main

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/moby/swarmkit/v2/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A cluster volume, made through the swarm's control API, is in both tasks of a service. It
// survives a kill of the node, and is unpublished when the service goes.
func TestEngineNodeHasClusterVolumes(t *testing.T) {
	sharesEngine(t)
	engineClient(t) // or skip
	plugin, socket := startFolderPlugin(t)
	s := newSwarm(t, "-csi", "folders=unix://"+socket)
	made, err := s.api.CreateVolume(t.Context(), &api.CreateVolumeRequest{Spec: &api.VolumeSpec{
		Annotations: api.Annotations{Name: "shared"},
		Driver:      &api.Driver{Name: "folders"},
		AccessMode: &api.VolumeAccessMode{
			Scope: api.VolumeScopeMultiNode, Sharing: api.VolumeSharingAll,
			AccessType: &api.VolumeAccessMode_Mount{Mount: &api.VolumeAccessMode_MountVolume{}},
		},
	}})
	require.NoError(t, err)
	spec := s.service("volumes", 2, "sleep", "1h")
	spec.Task.GetContainer().Mounts = []api.Mount{{Type: api.MountTypeCluster, Source: "shared", Target: "/shared"}}
	service := s.create(spec)
	reading := s.service("readers", 1, "sleep", "1h")
	reading.Task.GetContainer().Mounts = []api.Mount{{Type: api.MountTypeCluster, Source: "shared", Target: "/shared", ReadOnly: true}}
	readers := s.create(reading)
	s.awaitRunning(service, 2)
	onlyReads := s.containers(readers)[s.awaitRunning(readers, 1)[0].ID].ID
	before := ids(s.containers(service))
	var writer, reader string
	for _, id := range before {
		writer, reader = id, writer
	}
	s.inside(writer, "/testtask", "write", "/shared/from-one", "1")
	content, err := os.ReadFile(filepath.Join(plugin.folder("folder-shared"), "from-one"))
	require.NoError(t, err)
	assert.Equal(t, "1\n", string(content), "it is in the plugin's folder")
	s.inside(reader, "/testtask", "cat", "/shared/from-one")
	s.inside(onlyReads, "/testtask", "cat", "/shared/from-one")
	assert.NotZero(t, s.insideCode(onlyReads, "/testtask", "write", "/shared/refused", "1"), "it may only be read")
	assert.NoFileExists(t, filepath.Join(plugin.folder("folder-shared"), "refused"))

	s.kill()
	s.start()
	s.awaitRunning(service, 2)
	assert.Equal(t, before, ids(s.containers(service)), "the same containers")
	s.inside(reader, "/testtask", "cat", "/shared/from-one")
	s.update(service, func(spec *api.ServiceSpec) { spec.GetReplicated().Replicas = 3 })
	for _, task := range s.awaitRunning(service, 3) { // the volume is published for the new process, too
		s.inside(s.containers(service)[task.ID].ID, "/testtask", "cat", "/shared/from-one")
	}

	require.Len(t, plugin.targets(), 1)
	s.remove(service)
	require.Len(t, plugin.targets(), 1, "another service has it")
	s.remove(readers)
	require.Eventually(t, func() bool { return len(plugin.targets()) == 0 }, patience, 100*time.Millisecond, "it is unpublished")
	// SwarmKit's manager ends with a fault if a node reports of a volume that was removed by force.
	require.Eventually(t, func() bool {
		answer, err := s.api.GetVolume(t.Context(), &api.GetVolumeRequest{VolumeID: made.Volume.ID})
		return err == nil && len(answer.Volume.PublishStatus) == 0
	}, patience, 100*time.Millisecond, "the swarm knows that it is unpublished")
	_, err = s.api.RemoveVolume(t.Context(), &api.RemoveVolumeRequest{VolumeID: made.Volume.ID, Force: true})
	require.NoError(t, err)
}

// insideCode runs a command in a container, and returns its exit code.
func (s *swarm) insideCode(id string, command ...string) (code int) {
	s.t.Helper()
	made, err := s.engine.ContainerExecCreate(s.t.Context(), id, container.ExecOptions{Cmd: command})
	require.NoError(s.t, err)
	require.NoError(s.t, s.engine.ContainerExecStart(s.t.Context(), made.ID, container.ExecStartOptions{}))
	require.Eventually(s.t, func() bool {
		answer, err := s.engine.ContainerExecInspect(s.t.Context(), made.ID)
		code = answer.ExitCode
		return err == nil && !answer.Running
	}, patience, 20*time.Millisecond)
	return code
}
