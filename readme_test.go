package dockerexec_test

import (
	"os"
	"regexp"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// What the README shows of the Examples is their code, which is run.
func TestReadmeHasTheCodeOfTheExamples(t *testing.T) {
	t.Parallel()
	readme, err := os.ReadFile("README.md")
	require.NoError(t, err)
	for function, file := range map[string]string{"run": "example_test.go", "startAgain": "example_more_test.go"} {
		source, err := os.ReadFile(file)
		require.NoError(t, err)
		code := regexp.MustCompile(`(?ms)^func ` + function + `\(.*?^}$`).Find(source)
		require.NotEmpty(t, code, function)
		assert.Contains(t, string(readme), string(code), "func %s of %s", function, file)
	}
}
