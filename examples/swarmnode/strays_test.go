package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/docker/docker/api/types/container"
	engineapi "github.com/docker/docker/client"
	"github.com/stretchr/testify/require"
)

// hostProcess is a process of a container, as the host sees it.
type hostProcess struct {
	pid       int
	container string // its ID, from the process' control group
	command   string // its command line; "runc init" stands for one that waits for its start
}

func (p hostProcess) String() string {
	return fmt.Sprintf("process %d of container %.12s: %s", p.pid, p.container, p.command)
}

// groupOfContainer finds the ID of a container in the names of a process' control groups.
var groupOfContainer = regexp.MustCompile(`/([0-9a-f]{64})(?m:$)`)

// containerProcesses are the processes of all containers on this host, whether the engine
// knows them or not.
func containerProcesses(t testing.TB) []hostProcess {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cgroup")
	require.NoError(t, err)
	var found []hostProcess
	for _, file := range files {
		groups, err := os.ReadFile(file)
		if err != nil {
			continue // it has ended
		}
		id := groupOfContainer.FindSubmatch(groups)
		if id == nil {
			continue
		}
		line, err := os.ReadFile(filepath.Join(filepath.Dir(file), "cmdline"))
		if err != nil || len(line) == 0 { // a zombie has none
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		require.NoError(t, err)
		found = append(found, hostProcess{pid, string(id[1]), strings.Join(strings.Split(strings.TrimRight(string(line), "\x00"), "\x00"), " ")})
	}
	return found
}

// strays are the processes of containers that do not run, as far as the engine knows.
func strays(t testing.TB, client *engineapi.Client) []hostProcess {
	t.Helper()
	processes := containerProcesses(t) // first: a container that ends meanwhile is none
	list, err := client.ContainerList(context.Background(), container.ListOptions{})
	require.NoError(t, err)
	runs := map[string]bool{}
	for _, c := range list {
		runs[c.ID] = true
	}
	var found []hostProcess
	for _, p := range processes {
		if !runs[p.container] {
			found = append(found, p)
		}
	}
	return found
}

// engineAnswers asks hack/engine.sh something, and returns what it prints.
func engineAnswers(t testing.TB, args ...string) (string, error) {
	t.Helper()
	out, err := exec.Command(fromHarness(t, "DOCKEREXEC_TEST_ENGINE"), args...).Output()
	return strings.TrimSpace(string(out)), err
}

func engineSays(t testing.TB, args ...string) string {
	t.Helper()
	answer, err := engineAnswers(t, args...)
	require.NoError(t, err)
	return answer
}

// clearShims ends all that containerd has left of containers that are gone, for the
// measurements after this one: each shim makes the engine's next start slower.
func clearShims(t testing.TB) {
	t.Helper()
	controlEngine(t, "stop")
	names, err := filepath.Glob("/proc/[0-9]*/comm")
	require.NoError(t, err)
	shims := 0
	for _, name := range names {
		if text, err := os.ReadFile(name); err == nil && strings.HasPrefix(string(text), "containerd-shim") {
			killAt(t, filepath.Dir(name))
			shims++
		}
	}
	left := containerProcesses(t)
	for _, p := range left {
		killAt(t, fmt.Sprint("/proc/", p.pid))
	}
	bundles, err := filepath.Glob("/run/docker/containerd/daemon/io.containerd.runtime.v2.task/moby/*")
	require.NoError(t, err)
	for _, bundle := range bundles {
		require.NoError(t, os.RemoveAll(bundle))
	}
	t.Logf("shims left behind: %d, with %d processes of containers", shims, len(left))
	controlEngine(t, "start")
}

// killAt kills the process of a folder of /proc.
func killAt(t testing.TB, folder string) {
	t.Helper()
	pid, err := strconv.Atoi(filepath.Base(folder))
	require.NoError(t, err)
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		require.ErrorIs(t, err, syscall.ESRCH)
	}
}
