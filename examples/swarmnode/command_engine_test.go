package main

import (
	"bytes"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The command that makes services: it ends with exit code 1 if a service cannot come
// up, and scales, lists, logs and removes one that does.
func TestEngineServiceCommand(t *testing.T) {
	sharesEngine(t)
	s := newSwarm(t)
	command := serviceCommand(t, filepath.Join(s.dir, "control"))
	image := fromHarness(t, "DOCKEREXEC_TEST_IMAGE")
	s.awaitRunning(s.create(s.service("puller", 1, "sleep", "1h")), 1) // the command has no credentials, the engine has the image now

	_, errors, code := command("-name", "typo", "-image", strings.Replace(image, "testtask", "typo", 1))
	assert.Equal(t, 1, code)
	assert.Regexp(t, regexp.MustCompile(`^swarmservice: the service typo does not come up, and stays: 3 tasks of slot 1 have ended\. `+
		`The last error: pull image .*typo:1`), errors)
	out, _, code := command("-name", "typo", "-ps")
	assert.Equal(t, 0, code)
	assert.GreaterOrEqual(t, strings.Count(out, "REJECTED"), 3, out)
	_, _, code = command("-name", "typo", "-remove")
	assert.Equal(t, 0, code)

	out, errors, code = command("-name", "web", "-image", image, "--", "print", "2", "--", "sleep", "1h")
	require.Equal(t, 0, code, errors)
	assert.Contains(t, out, " RUNNING ")
	out, errors, code = command("-name", "web", "-scale", "3")
	require.Equal(t, 0, code, errors)
	assert.Equal(t, 2, strings.Count(out, " STARTING "), out)
	out, _, code = command("-name", "web", "-ps")
	require.Equal(t, 0, code)
	assert.Equal(t, 3, strings.Count(out, "RUNNING  RUNNING"), out)
	out, _, code = command("-name", "web", "-logs")
	require.Equal(t, 0, code)
	assert.Equal(t, 6, strings.Count(out, " | line "), out)
	_, _, code = command("-name", "web", "-remove")
	assert.Equal(t, 0, code)
}

// serviceCommand builds swarmservice, and returns how to run it at a control socket.
func serviceCommand(t *testing.T, socket string) func(args ...string) (out, errors string, code int) {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "swarmservice")
	made, err := exec.Command("go", "build", "-buildvcs=false", "-o", binary, "../swarmservice").CombinedOutput()
	require.NoError(t, err, "%s", made)
	return func(args ...string) (string, string, int) {
		var out, errors bytes.Buffer
		run := exec.CommandContext(t.Context(), binary, append([]string{"-control", socket}, args...)...)
		run.Stdout, run.Stderr = &out, &errors
		err := run.Run()
		if run.ProcessState == nil {
			require.NoError(t, err)
		}
		t.Logf("swarmservice %q: %v\n%s%s", args, run.ProcessState, &out, &errors)
		return out.String(), errors.String(), run.ProcessState.ExitCode()
	}
}
