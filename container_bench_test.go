package dockerexec

import (
	"testing"
	"time"

	"github.com/moby/swarmkit/v2/template"
	"github.com/stretchr/testify/require"
)

// BenchmarkTranslation is the way from a task that uses nearly every field to its
// create request, all checks among it, beside what SwarmKit's expansion of the
// templates in a copy of the task alone takes, which every executor has to do.
// The rest is mostly the look at each field, so that none is dropped in silence.
func BenchmarkTranslation(b *testing.B) {
	const rounds = 20
	node, task := goldenNode(), goldenTask(b, "everything")
	each := func(do func()) func() float64 {
		return func() float64 {
			begin := time.Now()
			for range rounds {
				do()
			}
			return float64(time.Since(begin).Nanoseconds()) / rounds
		}
	}
	compare(b, "ns/task", 6, each(func() {
		config, err := newContainerConfig(node, task)
		require.NoError(b, err)
		config.config()
		config.hostConfig()
		config.networkingConfig()
	}), each(func() {
		_, err := template.ExpandContainerSpec(node, task.Copy())
		require.NoError(b, err)
	}))
}
