package dockerexec

import (
	"testing"

	engineapi "github.com/docker/docker/client"
	"github.com/moby/swarmkit/v2/api"
	"github.com/stretchr/testify/require"
)

// An interface's setting arrives at each API version of the engine, whatever the
// network. The versions are those at which engines take it in another way.
func TestEngineSysctlsOfAnInterface(t *testing.T) {
	warmImage(t, engineClient(t))
	tried := 0
	for _, version := range []string{"1.41", "1.44", "1.45", "1.46", "1.47", "1.48"} {
		client, err := engineapi.NewClientWithOpts(engineapi.WithHost(fromHarness(t, "DOCKEREXEC_TEST_HOST")), engineapi.WithVersion(version))
		require.NoError(t, err)
		defer client.Close()
		if _, err := client.ServerVersion(t.Context()); err != nil {
			t.Logf("the engine does not have %s: %v", version, err)
			continue
		}
		tried++
		in := &insider{client: client, engine: NewEngine(client)}
		for name, networks := range map[string]func(*api.Task){
			"no network": func(*api.Task) {},
			"bridge":     func(task *api.Task) { task.Networks = []*api.NetworkAttachment{attachment(namedNetwork("bridge"))} },
			"a network":  func(task *api.Task) { attach(task, "dockerexec-sysctls", "10.213.22.0/24") },
			"with an option": func(task *api.Task) {
				attach(task, "dockerexec-sysctls", "10.213.22.0/24")
				task.Networks[0].DriverAttachmentOpts = map[string]string{"a": "b"}
			},
		} {
			t.Run(version+" "+name, func(t *testing.T) {
				in.see(t, in.run(t, func(task *api.Task) {
					networks(task)
					spec(task).Sysctls = map[string]string{"net.ipv4.conf.eth0.log_martians": "1", "net.core.somaxconn": "1234"}
				}, "show", "/proc/sys/net/ipv4/conf/eth0/log_martians", "/proc/sys/net/core/somaxconn"), []sight{
					{"the interface's", `/proc/sys/net/ipv4/conf/eth0/log_martians = 1`},
					{"another", `/proc/sys/net/core/somaxconn = 1234`},
				})
			})
		}
	}
	require.Positive(t, tried)
}
