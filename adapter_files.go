package dockerexec

import (
	"context"
	stderrors "errors"
	"maps"
	"net"
	"net/url"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"unicode/utf8"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/system"
	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/moby/swarmkit/v2/log"
	"github.com/pkg/errors"
)

// provide gets and writes what the task's references need, and returns the task
// as the container is created for it. created is to be called after the create;
// it removes what was made if that has failed.
func (a *ContainerAdapter) provide(ctx context.Context) (config *containerConfig, created func(failed bool), err error) {
	created = func(bool) {}
	whole, payloads, err := a.fullTask()
	if err != nil {
		return nil, nil, err
	}
	var credential []byte
	if d, _ := whole.credentialConfig(); d != nil { // checked by newContainerConfig
		if credential, err = payloads.get(*d); err != nil {
			return nil, nil, err
		}
		if len(credential) == 0 || !utf8.Valid(credential) {
			return nil, nil, refuse(d.path, "%v is no credential spec (the payload is not shown)", *d)
		}
	}
	var folder string
	if len(whole.files) > 0 {
		engineID, err := a.fileEngine(ctx, whole.files)
		if err != nil {
			return nil, nil, err
		}
		folder = a.engine.files.folder(engineID, a.taskID)
		ended := creating(folder)
		made, err := a.writeFiles(engineID, whole.files, payloads)
		if err != nil {
			ended()
			return nil, nil, err
		}
		created = func(failed bool) {
			ended()
			if failed && made {
				_ = a.engine.files.remove(engineID, a.taskID) // the create's error counts
			}
		}
	}
	return whole.withDependencies(folder, credential), created, nil
}

// provideMissing writes those files of the task again that have gone, as all
// have after the host's restart: the container mounts them where they were.
func (a *ContainerAdapter) provideMissing(ctx context.Context, files []taskFile) error {
	if len(files) == 0 {
		return nil
	}
	engineID, err := a.fileEngine(ctx, files)
	if err != nil {
		return err
	}
	missing, err := a.engine.files.missing(engineID, a.taskID, files)
	if err != nil || len(missing) == 0 {
		return err
	}
	_, payloads, err := a.fullTask()
	if err != nil {
		return err
	}
	_, err = a.writeFiles(engineID, missing, payloads)
	return err
}

// checkFiles refuses a task whose files could not be made.
func (a *ContainerAdapter) checkFiles(ctx context.Context, files []taskFile) error {
	if len(files) == 0 {
		return nil
	}
	if _, err := a.fileEngine(ctx, files); err != nil {
		return err
	}
	if err := a.engine.files.check(); exec.IsTemporary(err) { // too many open files, say
		return err
	} else if err != nil {
		return refuse(files[0].path, "%v", err)
	}
	return nil
}

// fileEngine returns the ID of the engine, or why the task cannot have files
// there.
func (a *ContainerAdapter) fileEngine(ctx context.Context, files []taskFile) (string, error) {
	host, err := a.engine.fileHost(ctx)
	if err == nil && host.refusal != "" {
		err = refuse(files[0].path, "%s", host.refusal)
	}
	return host.engineID, err
}

// writeFiles writes nothing before it has all payloads.
func (a *ContainerAdapter) writeFiles(engineID string, files []taskFile, payloads payloads) (made bool, err error) {
	var complete []filePayload
	for _, f := range files {
		payload, err := payloads.get(f.dependency)
		if err != nil {
			return false, err
		}
		complete = append(complete, filePayload{f, payload})
	}
	return a.engine.files.write(engineID, a.taskID, complete)
}

// removeFiles removes the task's files. The container is gone before.
func (a *ContainerAdapter) removeFiles(ctx context.Context) error {
	if !a.hasFiles || !namesFolder(a.taskID) {
		return nil
	}
	host, err := a.engine.fileHost(ctx)
	if err != nil || host.engineID == "" { // there were none
		return err
	}
	return a.engine.files.remove(host.engineID, a.taskID)
}

// hiddenError is an engine's error without what it must not show. It has the
// class of what is behind it, which has the text and so is not handed out.
type hiddenError struct {
	text  string
	cause error
}

func (e hiddenError) Error() string { return e.text }

func (e hiddenError) Is(target error) bool {
	return stderrors.Is(e.cause, target) || target != nil && target == knownClass(e.cause)
}

// explain says more about an engine's refusal that comes of the task's
// references, and less of what is secret.
func (a *ContainerAdapter) explain(err error, files []taskFile) error {
	if err == nil {
		return nil
	}
	// An engine quotes an option that it does not take.
	if before, _, quotes := strings.Cut(err.Error(), credentialOption+"raw://"); quotes {
		return hiddenError{before + credentialOption + "raw://(the payload is not shown)", err}
	}
	host := a.engine.hosts.known.Load()
	if host == nil || len(files) == 0 || !noSource.matches(err) {
		return err
	}
	folder := a.engine.files.folder(host.engineID, a.taskID)
	switch below := filepath.Join("/", host.engineID, a.taskID) + "/"; {
	case strings.Contains(err.Error(), " "+folder+"/"):
	case strings.Contains(err.Error(), below):
		return errors.Wrapf(err, "the container was made with its files in another folder than %s, and they are gone there; name that folder with WithSecretsDir again, or have the task replaced", a.engine.files.dir)
	default: // a mount of the task's own
		return err
	}
	if missing, lookErr := a.engine.files.missing(host.engineID, a.taskID, files); lookErr != nil || len(missing) > 0 {
		return exec.MakeTemporary(errors.Wrapf(err, "the files in %s were removed meanwhile", folder))
	}
	return errors.Wrapf(err, "the engine does not see the files in %s; if this process has a container of its own, mount the host's %s there at the same path, or name a folder that both see with WithSecretsDir", folder, a.engine.files.dir)
}

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

func newFileHosts() fileHosts { return fileHosts{gate: make(chan struct{}, 1)} }

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

// sweepFiles removes the folders of tasks that have no container on the engine:
// those of a process that ended before it could. It is for the time before this
// Engine writes its first file, and removes nothing if the engine does not list
// its containers.
func (e *Engine) sweepFiles(ctx context.Context, engineID string) error {
	defer sweeping()()
	// Before the containers: a task that gets folder and container meanwhile
	// must not have the one without the other.
	left, err := e.files.tasks(engineID)
	if err != nil {
		log.G(ctx).WithError(err).Debug("files of ended tasks not looked for")
		return nil
	}
	if len(left) == 0 {
		return nil
	}
	containers, err := request(ctx, e, 0, func(ctx context.Context) ([]container.Summary, error) {
		return e.client.ContainerList(ctx, container.ListOptions{All: true, Filters: filters.NewArgs(filters.Arg("label", labelTask))})
	})
	if err := engineError(ctx, err, "secrets and configs: list of containers"); unfinished(ctx, err) {
		return err
	} else if err != nil {
		log.G(ctx).WithError(err).Debug("files of ended tasks not removed")
		return nil
	}
	for _, c := range containers {
		left = slices.DeleteFunc(left, func(task string) bool { return task == c.Labels[LabelTaskID] })
	}
	for _, task := range left {
		removed, err := e.files.removeLeft(engineID, task)
		if !removed && err == nil {
			continue
		}
		if err != nil {
			log.G(ctx).WithError(err).Debug("files of an ended task not removed")
			continue
		}
		log.G(ctx).WithField("task.id", task).Debug("files of a task without a container removed")
	}
	return nil
}

// creations are the creates of tasks with files that are under way in this
// process, by folder, and while a sweep is under way also those that have ended.
// Other Engines of this process, which may have the same folders, must not take
// them for left over. Both are guarded by changingFiles.
var (
	creations = map[string]int{}
	sweeps    int // under way
)

// creating notes that a task is created whose files are in folder, until the
// returned function is called.
func creating(folder string) (ended func()) {
	changingFiles.Lock()
	defer changingFiles.Unlock()
	creations[folder]++
	return func() {
		changingFiles.Lock()
		defer changingFiles.Unlock()
		creations[folder]--
		forgetCreations()
	}
}

// sweeping notes that a sweep is under way, until the returned function is called.
func sweeping() (ended func()) {
	changingFiles.Lock()
	defer changingFiles.Unlock()
	sweeps++
	return func() {
		changingFiles.Lock()
		defer changingFiles.Unlock()
		sweeps--
		forgetCreations()
	}
}

// forgetCreations drops those that have ended and that no sweep could still take
// for left over. It needs changingFiles.
func forgetCreations() {
	if sweeps == 0 {
		maps.DeleteFunc(creations, func(_ string, running int) bool { return running == 0 })
	}
}

// removeLeft removes the folder of a task that had no container when the sweep
// looked, unless it has been created since.
func (s fileStore) removeLeft(engineID, taskID string) (removed bool, err error) {
	changingFiles.Lock()
	defer changingFiles.Unlock()
	if _, created := creations[s.folder(engineID, taskID)]; created {
		return false, nil
	}
	return true, s.removeLocked(engineID, taskID)
}
