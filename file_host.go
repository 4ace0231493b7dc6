package dockerexec

import (
	"context"
	"net"
	"net/url"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"

	"github.com/docker/docker/api/types/system"
)

// fileHost is what decides where an Engine's tasks have their secrets and
// configs as files, or why they cannot have them.
type fileHost struct {
	engineID string // empty: it has none, or cannot have files here at any time
	refusal  string // empty: they can
}

// fileHosts asks for it once, before the first task that has files.
type fileHosts struct {
	gate  chan struct{} // full while somebody asks
	known atomic.Pointer[fileHost]
}

// fileHost returns what is known, after asking the engine and after the sweep
// if it is the first call that gets that far.
func (e *Engine) fileHost(ctx context.Context) (fileHost, error) {
	if known := e.hosts.known.Load(); known != nil {
		return *known, nil
	}
	if err := passGate(ctx, e.hosts.gate, e.options.requestTimeout); err != nil {
		return fileHost{}, engineError(ctx, err, "secrets and configs: another task's look at the engine comes first")
	}
	defer leaveGate(e.hosts.gate)
	if known := e.hosts.known.Load(); known != nil {
		return *known, nil
	}
	host, err := e.askFileHost(ctx)
	if err == nil && host.engineID != "" {
		err = e.sweepFiles(ctx, host.engineID)
	}
	if err != nil {
		return fileHost{}, err
	}
	e.hosts.known.Store(&host)
	return host, nil
}

func (e *Engine) askFileHost(ctx context.Context) (fileHost, error) {
	switch address := e.client.DaemonHost(); {
	case runtime.GOOS != "linux":
		return fileHost{refusal: "secrets and configs need an executor on Linux, on the engine's own host"}, nil
	case !onThisHost(address):
		return fileHost{refusal: "the engine at " + cleanURL(address) + " is on another host, and an engine's API has no way to hand it a file that stays in memory; run the executor on the engine's host"}, nil
	case !filepath.IsAbs(e.files.dir):
		return fileHost{refusal: "WithSecretsDir names " + e.files.dir + ", which is not an absolute path"}, nil
	}
	info, err := request(ctx, e, 0, func(ctx context.Context) (system.Info, error) { return e.client.Info(ctx) })
	if err != nil {
		return fileHost{}, engineError(ctx, err, "secrets and configs: engine information")
	}
	host := fileHost{engineID: info.ID}
	if !restrictedName(strings.ReplaceAll(info.ID, ":", ".")) { // it becomes a folder's name
		return fileHost{refusal: "the engine has no ID that could name the folder of its files"}, nil
	}
	for _, option := range info.SecurityOptions {
		switch name, _, _ := strings.Cut(option, ","); name {
		case "name=rootless":
			host.refusal = "the engine is rootless, and runs beside other mounts and users than those of this host"
		case "name=userns":
			host.refusal = "the engine maps the users of containers to others (userns-remap): a file would have another owner inside"
		case "name=selinux":
			host.refusal = "the engine labels containers (SELinux), and would keep them from reading a file that it has not labelled"
		}
	}
	return host, nil
}

// onThisHost reports whether an engine's address is one of this host. A loopback
// address counts, since an engine behind a tunnel is found out by the create: it
// does not see the files.
func onThisHost(address string) bool {
	u, err := url.Parse(address)
	if err != nil {
		return false
	}
	switch u.Scheme {
	case "unix", "npipe":
		return true
	case "tcp", "http", "https":
		ip := net.ParseIP(u.Hostname())
		return u.Hostname() == "localhost" || ip != nil && ip.IsLoopback()
	}
	return false
}
