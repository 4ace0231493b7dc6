package dockerexec

import (
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// testSeed is for a test's random choices. A test that fails shows it, and
// DOCKEREXEC_TEST_SEED repeats it, though not the timing.
func testSeed(t testing.TB) uint64 {
	t.Helper()
	seed := uint64(time.Now().UnixNano())
	if text := os.Getenv("DOCKEREXEC_TEST_SEED"); text != "" {
		var err error
		seed, err = strconv.ParseUint(text, 10, 64)
		require.NoError(t, err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("DOCKEREXEC_TEST_SEED=%d", seed)
		}
	})
	return seed
}
