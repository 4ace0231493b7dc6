package main

import (
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/docker/docker/api/types/registry"
	gogotypes "github.com/gogo/protobuf/types"
	"github.com/moby/swarmkit/v2/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func taskOf(t *testing.T, args ...string) (*api.Task, error) {
	t.Helper()
	o, err := parseFlags(args, io.Discard)
	require.NoError(t, err)
	return o.task()
}

// noIDs checks that the IDs are there and takes them out: they are random.
func noIDs(t *testing.T, task *api.Task) *api.Task {
	t.Helper()
	for _, id := range []*string{&task.ID, &task.ServiceID, &task.NodeID} {
		assert.Len(t, *id, 25)
		*id = ""
	}
	for _, n := range task.Networks {
		n.Network.ID = ""
	}
	return task
}

func write(t *testing.T, content string) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
	return path
}

func TestTaskFromFlags(t *testing.T) {
	task, err := taskOf(t, "-image", "registry.test/web:1", "-name", "web", "-e", "A=1", "-e", "B=2",
		"-volume", "data:/data", "-volume", "/etc/hosts:/hosts:ro", "-p", "8080:80", "-p", "0:53/udp",
		"-network", "front,10.1.0.0/24", "-network", "host", "-health", "/check it", "-health-interval", "2s",
		"-grace", "1500ms", "--", "serve", "-v")
	require.NoError(t, err)
	assert.Equal(t, &api.Task{
		ServiceAnnotations: api.Annotations{Name: "web"},
		Slot:               1,
		Spec: api.TaskSpec{Runtime: &api.TaskSpec_Container{Container: &api.ContainerSpec{
			Image: "registry.test/web:1",
			Args:  []string{"serve", "-v"},
			Env:   []string{"A=1", "B=2"},
			Mounts: []api.Mount{
				{Type: api.MountTypeVolume, Source: "data", Target: "/data",
					VolumeOptions: &api.Mount_VolumeOptions{DriverConfig: &api.Driver{Name: "local"}}},
				{Type: api.MountTypeBind, Source: "/etc/hosts", Target: "/hosts", ReadOnly: true},
			},
			Healthcheck:     &api.HealthConfig{Test: []string{"CMD", "/check", "it"}, Interval: &gogotypes.Duration{Seconds: 2}},
			StopGracePeriod: &gogotypes.Duration{Seconds: 1, Nanos: 500000000},
		}}},
		Endpoint: &api.Endpoint{Ports: []*api.PortConfig{
			{Protocol: api.ProtocolTCP, PublishedPort: 8080, TargetPort: 80, PublishMode: api.PublishModeHost},
			{Protocol: api.ProtocolUDP, PublishedPort: 0, TargetPort: 53, PublishMode: api.PublishModeHost},
		}},
		Networks: []*api.NetworkAttachment{
			{Network: &api.Network{Spec: api.NetworkSpec{Annotations: api.Annotations{Name: "front"}},
				IPAM: &api.IPAMOptions{Configs: []*api.IPAMConfig{{Subnet: "10.1.0.0/24"}}}}},
			{Network: &api.Network{Spec: api.NetworkSpec{Annotations: api.Annotations{Name: "host"}}}},
		},
	}, noIDs(t, task))
}

func TestTaskFromJSON(t *testing.T) {
	file := write(t, `{
		"id": "task1", "serviceId": "service1", "node_id": "node1", "slot": 3,
		"service_annotations": {"name": "web", "labels": {"a": "b"}},
		"spec": {"container": {
			"image": "registry.test/web:1",
			"command": ["/bin/web"],
			"init": true,
			"pidsLimit": "100",
			"stopGracePeriod": "1.5s",
			"mounts": [
				{"type": "TMPFS", "target": "/run", "tmpfsOptions": {"sizeBytes": 65536, "mode": 1023}},
				{"type": "VOLUME", "source": "data", "target": "/data"}
			],
			"pullOptions": {"registryAuth": "e30="}
		}, "resources": {"limits": {"nanoCpus": 500000000}}},
		"endpoint": {"ports": [{"protocol": "UDP", "targetPort": 53, "publishMode": "HOST"}]}
	}`)
	task, err := taskOf(t, "-f", file, "-e", "A=1")
	require.NoError(t, err)
	assert.Equal(t, &api.Task{
		ID: "task1", ServiceID: "service1", NodeID: "node1", Slot: 3,
		ServiceAnnotations: api.Annotations{Name: "web", Labels: map[string]string{"a": "b"}},
		Spec: api.TaskSpec{
			Runtime: &api.TaskSpec_Container{Container: &api.ContainerSpec{
				Image:           "registry.test/web:1",
				Command:         []string{"/bin/web"},
				Env:             []string{"A=1"},
				Init:            &gogotypes.BoolValue{Value: true},
				PidsLimit:       100,
				StopGracePeriod: &gogotypes.Duration{Seconds: 1, Nanos: 500000000},
				Mounts: []api.Mount{
					{Type: api.MountTypeTmpfs, Target: "/run", TmpfsOptions: &api.Mount_TmpfsOptions{SizeBytes: 65536, Mode: 0o1777}},
					{Type: api.MountTypeVolume, Source: "data", Target: "/data"},
				},
				PullOptions: &api.ContainerSpec_PullOptions{RegistryAuth: "e30="},
			}},
			Resources: &api.ResourceRequirements{Limits: &api.Resources{NanoCPUs: 500000000}},
		},
		Endpoint: &api.Endpoint{Ports: []*api.PortConfig{
			{Protocol: api.ProtocolUDP, TargetPort: 53, PublishMode: api.PublishModeHost},
		}},
	}, task)
}

func TestTaskIsRefused(t *testing.T) {
	tests := []struct{ name, flag, value, want string }{
		{"unknown field", "-f", write(t, `{"spec": {"container": {"imag": "x"}}}`), `unknown field "imag"`},
		{"unknown enum value", "-f", write(t, `{"endpoint": {"ports": [{"publishMode": "ROUTED"}]}}`), "ROUTED"},
		{"text after the task", "-f", write(t, `{} {}`), "there is more after the task"},
		{"no file", "-f", "/nonexistent", "/nonexistent"},
		{"volume without target", "-volume", "data", "-volume data: want SOURCE:TARGET[:ro]"},
		{"volume with unknown mode", "-volume", "data:/data:rx", "-volume data:/data:rx: want SOURCE:TARGET[:ro]"},
		{"port without target", "-p", "80", "-p 80: want PUBLISHED:TARGET[/PROTOCOL]"},
		{"port above 65535", "-p", "0:65536", "-p 0:65536: want PUBLISHED:TARGET[/PROTOCOL]"},
		{"port with unknown protocol", "-p", "1:1/icmp", "-p 1:1/icmp: want PUBLISHED:TARGET[/PROTOCOL]"},
		{"no password file", "-password-file", "/nonexistent", "/nonexistent"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := taskOf(t, "-user", "me", tt.flag, tt.value)
			require.ErrorContains(t, err, tt.want)
		})
	}
}

func TestRegistryAuth(t *testing.T) {
	t.Setenv("RUNTASK_PASSWORD", "from the environment")
	tests := []struct {
		name string
		args []string
		want registry.AuthConfig
	}{
		{"from a file", []string{"-image", "registry.test:5000/web:1", "-password-file", write(t, "from a file\n")},
			registry.AuthConfig{Username: "me", Password: "from a file", ServerAddress: "registry.test:5000"}},
		{"from the environment", []string{"-image", "localhost/web:1"},
			registry.AuthConfig{Username: "me", Password: "from the environment", ServerAddress: "localhost"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			task, err := taskOf(t, append(tt.args, "-user", "me")...)
			require.NoError(t, err)
			auth, err := registry.DecodeAuthConfig(task.Spec.GetContainer().PullOptions.RegistryAuth)
			require.NoError(t, err)
			assert.Equal(t, &tt.want, auth)
		})
	}
}

func TestFlagsHaveDefaults(t *testing.T) {
	o, err := parseFlags([]string{"-image", "web"}, io.Discard)
	require.NoError(t, err)
	task, err := o.task()
	require.NoError(t, err)
	assert.Equal(t, "runtask", task.ServiceAnnotations.Name)
	assert.Equal(t, uint64(1), task.Slot)
	assert.Nil(t, task.Spec.GetContainer().PullOptions)
	assert.Nil(t, task.Endpoint)
}
