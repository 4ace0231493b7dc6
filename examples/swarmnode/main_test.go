package main

import (
	"io"
	"testing"

	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestFlags(t *testing.T) {
	o, err := parseFlags([]string{"-state-dir", "/state", "-control", "/c.sock", "-listen", "10.0.0.1:1", "-hostname", "a",
		"-join", "10.0.0.2:2", "-token", "SWMTKN", "-host", "unix:///engine.sock", "-log-rate", "0", "-log-level", "debug"}, io.Discard)
	require.NoError(t, err)
	assert.Equal(t, options{stateDir: "/state", control: "/c.sock", listen: "10.0.0.1:1", hostname: "a",
		join: "10.0.0.2:2", token: "SWMTKN", host: "unix:///engine.sock", logRate: 0, logLevel: logrus.DebugLevel}, o)
}

func TestFlagsHaveDefaults(t *testing.T) {
	o, err := parseFlags(nil, io.Discard)
	require.NoError(t, err)
	assert.Equal(t, options{stateDir: "/var/lib/swarmnode", control: "/run/swarmnode.sock", listen: "127.0.0.1:4242",
		logRate: 10485760, logLevel: logrus.WarnLevel}, o)
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
		{"unknown level", []string{"-log-level", "loud"}, `-log-level: not a valid logrus Level: "loud"`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := parseFlags(tt.args, io.Discard)
			require.EqualError(t, err, tt.want)
		})
	}
}
