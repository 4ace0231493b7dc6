package dockerexec

import (
	"testing"

	"github.com/docker/docker/api/types/network"
	"github.com/moby/swarmkit/v2/api"
	"github.com/stretchr/testify/assert"
)

// An engine picks the subnets of a family for which the task names none, and
// lists them with the others.
func TestDifferenceLooksAtTheFamiliesThatTheTaskNames(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		wanted, found []string
		want          string
	}{
		{[]string{"10.1.0.0/24"}, []string{"10.1.0.0/24", "fd12:3456::/64"}, ""},
		{[]string{"10.1.0.0/24"}, []string{"fd12:3456::/64", "10.2.0.0/24"}, "subnets [10.2.0.0/24], the task wants [10.1.0.0/24]"},
		{[]string{"10.1.0.0/24"}, []string{"10.1.0.0/24", "10.2.0.0/24"}, "subnets [10.1.0.0/24 10.2.0.0/24], the task wants [10.1.0.0/24]"},
		{[]string{"10.1.0.0/24"}, []string{"fd12:3456::/64"}, "subnets [], the task wants [10.1.0.0/24]"},
		{[]string{"fd00::/64"}, []string{"10.1.0.0/24", "fd00::/64"}, ""},
		{[]string{"fd00::/64"}, []string{"10.1.0.0/24", "fd12:3456::/64"}, "subnets [fd12:3456::/64], the task wants [fd00::/64]"},
		{[]string{"10.1.0.0/24", "fd00::/64"}, []string{"10.1.0.0/24", "fd12:3456::/64"},
			"subnets [10.1.0.0/24 fd12:3456::/64], the task wants [10.1.0.0/24 fd00::/64]"},
	} {
		task := plainTask()
		attach(task, "n", test.wanted[0])
		n := task.Networks[0].Network
		n.Spec.Ipv6Enabled = true
		for _, subnet := range test.wanted[1:] {
			n.IPAM.Configs = append(n.IPAM.Configs, &api.IPAMConfig{Subnet: subnet})
		}
		found := &network.Inspect{Driver: "bridge", EnableIPv6: true}
		for _, subnet := range test.found {
			found.IPAM.Config = append(found.IPAM.Config, network.IPAMConfig{Subnet: subnet})
		}
		assert.Equal(t, test.want, newTestConfig(t, task).networks()[0].difference(found), "%v beside %v", test.wanted, test.found)
	}
}
