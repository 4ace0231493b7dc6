package main

import (
	"io"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockerexec/dockerexec"
)

func TestFlags(t *testing.T) {
	o, err := parseFlags([]string{"-state-dir", "/state", "-control", "/c.sock", "-listen", "10.0.0.1:1", "-hostname", "a",
		"-join", "10.0.0.2:2", "-token", "SWMTKN", "-host", "unix:///engine.sock", "-log-rate", "0", "-log-level", "debug",
		"-orphans", "remove", "-orphan-grace", "1m", "-csi", "a=unix:///a.sock", "-csi", "b=unix:///b/c.sock"}, io.Discard)
	require.NoError(t, err)
	assert.Equal(t, options{stateDir: "/state", control: "/c.sock", listen: "10.0.0.1:1", hostname: "a",
		join: "10.0.0.2:2", token: "SWMTKN", host: "unix:///engine.sock", logRate: 0, logLevel: logrus.DebugLevel,
		orphans: dockerexec.OrphansRemove, grace: time.Minute,
		plugins: csiPlugins{"a": {"a", "/a.sock"}, "b": {"b", "/b/c.sock"}}}, o)
	assert.Equal(t, "/b/data/published/v", o.plugins["b"].ScopedPath("/data/published/v"))
	assert.Len(t, o.plugins.GetAllManagedPluginsByCap("csinode"), 2)
	assert.Empty(t, o.plugins.GetAllManagedPluginsByCap("secretprovider"))
}

func TestFlagsHaveDefaults(t *testing.T) {
	o, err := parseFlags(nil, io.Discard)
	require.NoError(t, err)
	assert.Equal(t, options{stateDir: "/var/lib/swarmnode", control: "/run/swarmnode.sock", listen: "127.0.0.1:4242",
		logRate: 10485760, logLevel: logrus.WarnLevel, grace: 5 * time.Minute, plugins: csiPlugins{}}, o)
	_, err = o.plugins.Get("a", "csinode")
	require.EqualError(t, err, "plugin a (csinode): swarmnode has no such plugin; see its flag -csi")
}

func TestFlagsAreRefused(t *testing.T) {
	tests := []struct {
		name string
		args []string
		want string
	}{
		{"argument", []string{"start"}, `unknown argument "start"`},
		{"address without port", []string{"-listen", "10.0.0.1"}, "-listen: address 10.0.0.1: missing port in address"},
		{"join without token", []string{"-join", "10.0.0.2:2"}, "-join and -token go together"},
		{"token without join", []string{"-token", "SWMTKN"}, "-join and -token go together"},
		{"unknown policy", []string{"-orphans", "keep"}, `-orphans: unknown policy "keep"`},
		{"plugin without a name", []string{"-csi", "=unix:///a"}, `invalid value "=unix:///a" for flag -csi: "=unix:///a" is not name=unix:///path`},
		{"plugin without a socket", []string{"-csi", "a=tcp://a"}, `invalid value "a=tcp://a" for flag -csi: "a=tcp://a" is not name=unix:///path`},
		{"unknown level", []string{"-log-level", "loud"}, `-log-level: not a valid logrus Level: "loud"`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := parseFlags(tt.args, io.Discard)
			require.EqualError(t, err, tt.want)
		})
	}
}
