package dockerexec

import (
	"context"
	"io/fs"
	"net"
	"net/url"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"time"
	"unicode/utf8"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/system"
	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/moby/swarmkit/v2/api"
	"github.com/moby/swarmkit/v2/log"
	"github.com/pkg/errors"
)

// provide gets the payloads of the task's secrets and configs and writes their files.
// config is the task with the folder of the files and the payload of the credential
// spec. The caller calls created after the create. If the create failed, created
// removes the folder that provide made.
func (a *ContainerAdapter) provide(ctx context.Context) (config *containerConfig, created func(failed bool), err error) {
	created = func(bool) {}
	whole, payloads, err := a.fullTask()
	if err != nil {
		return nil, nil, err
	}
	var credential []byte
	if d, _ := whole.credentialConfig(); d != nil { // checked by translateTask
		if credential, err = payloads.get(*d); err != nil {
			return nil, nil, err
		}
		a.secrets.learn(valuePayload, string(credential))
		if len(credential) == 0 || !utf8.Valid(credential) {
			return nil, nil, refuse(d.path, "%v is no credential spec (the payload is not shown)", *d)
		}
	}
	var folder string
	if len(whole.files) > 0 {
		host, err := a.fileEngine(ctx, whole.files)
		if err != nil {
			return nil, nil, err
		}
		folder = a.engine.files.folder(host.engineID, a.taskID)
		made, err := a.writeFiles(host, whole.files, payloads)
		if err != nil {
			return nil, nil, err
		}
		created = func(failed bool) {
			if failed && made {
				_ = a.engine.files.remove(host.engineID, a.taskID) // the create's error counts
			}
		}
	}
	published, err := a.volumePaths(whole, payloads)
	if err != nil {
		return nil, nil, err
	}
	return whole.withDependencies(folder, credential, published), created, nil
}

// volumePaths returns where the task's cluster volumes are on the engine's host. It refuses
// the task if the engine is on another host.
func (a *ContainerAdapter) volumePaths(config *containerConfig, given payloads) (map[string]string, error) {
	mounts := config.clusterMounts()
	if len(mounts) == 0 {
		return nil, nil
	}
	if address := a.engine.client.DaemonHost(); !onThisHost(address) {
		return nil, refuse(mountPath(mounts[0])+".Type", "%s: the engine at %s is on another host, and the volume is published on this one", api.MountTypeCluster, cleanURL(address))
	}
	return given.volumePaths(config)
}

// provideMissing writes the files of the task that no longer exist, at the paths that
// the container mounts. After a restart of the host all are gone: they were in memory.
func (a *ContainerAdapter) provideMissing(ctx context.Context, files []taskFile) error {
	if len(files) == 0 {
		return nil
	}
	host, err := a.fileEngine(ctx, files)
	if err != nil {
		return err
	}
	missing, err := a.engine.files.missing(host.engineID, a.taskID, files)
	if err != nil || len(missing) == 0 {
		return err
	}
	_, payloads, err := a.fullTask()
	if err != nil {
		return err
	}
	_, err = a.writeFiles(host, missing, payloads)
	return err
}

// checkFiles refuses a task whose files cannot be written.
func (a *ContainerAdapter) checkFiles(ctx context.Context, files []taskFile) error {
	if len(files) == 0 {
		return nil
	}
	if _, err := a.fileEngine(ctx, files); err != nil {
		return err
	}
	if err := a.engine.files.check(); exec.IsTemporary(err) { // for example: too many open files
		return err
	} else if err != nil {
		return refuse(files[0].path, "%v", err)
	}
	return nil
}

// fileEngine returns where the task's files belong. The engineID in the result is the ID
// that the engine had when the task's container was made, if that is known. files are the
// task's. fileEngine refuses the task if tasks on this engine cannot have files.
func (a *ContainerAdapter) fileEngine(ctx context.Context, files []taskFile) (fileHost, error) {
	host, err := a.engine.fileHost(ctx, a)
	if err == nil && host.refusal != "" {
		err = refuse(files[0].path, "%s", host.refusal)
	}
	if mounted := a.mountedUnder.Load(); mounted != nil {
		host.engineID = *mounted
	}
	return host, err
}

// noteFiles notes under which ID of the engine the container mounts the task's files.
// The engine may have another ID by now.
func (a *ContainerAdapter) noteFiles(answer container.InspectResponse) {
	for _, m := range answer.Mounts {
		task := filepath.Dir(m.Source)
		engine := filepath.Dir(task)
		if a.hasFiles && filepath.Base(task) == a.taskID && filepath.Dir(engine) == a.engine.files.dir {
			id := filepath.Base(engine)
			a.mountedUnder.Store(&id)
			return
		}
	}
}

// writeFiles gets all payloads before it writes the first file.
func (a *ContainerAdapter) writeFiles(host fileHost, files []taskFile, payloads payloads) (made bool, err error) {
	complete := []filePayload{{taskFile{source: noteName, mode: 0o400}, []byte(host.note)}}
	for _, f := range files {
		payload, err := payloads.get(f.dependency)
		if err != nil {
			return false, err
		}
		a.secrets.learn(valuePayload, string(payload))
		complete = append(complete, filePayload{f, payload})
	}
	return a.engine.files.write(host.engineID, a.taskID, complete)
}

// removeFiles removes the task's files. The container must be gone already. The engine is
// not asked: its ID may have changed, and the task's ID alone finds the files.
func (a *ContainerAdapter) removeFiles() error {
	if !a.hasFiles || !namesFolder(a.taskID) || noFilesFor(a.engine.client.DaemonHost()) != "" {
		return nil
	}
	return a.engine.files.removeTask(a.taskID)
}

// explain adds to an engine's error what the error means for the task's files.
func (a *ContainerAdapter) explain(err error, files []taskFile) error {
	if err == nil {
		return nil
	}
	host := a.engine.hosts.known.Load()
	if host == nil || len(files) == 0 || !noSource.matches(err) {
		return err
	}
	engineID := host.engineID
	if mounted := a.mountedUnder.Load(); mounted != nil {
		engineID = *mounted
	}
	folder := a.engine.files.folder(engineID, a.taskID)
	isOwn := func(f taskFile) bool { return strings.Contains(err.Error(), "/"+a.taskID+"/"+f.source) }
	switch {
	case strings.Contains(err.Error(), " "+folder+"/"):
	case slices.ContainsFunc(files, isOwn):
		return errors.Wrapf(err, "the container was made with its files in another folder than %s, and they are gone there; name that folder with WithSecretsDir again, or have the task replaced", a.engine.files.dir)
	default: // the error is about a mount that the task itself asks for
		return err
	}
	if missing, lookErr := a.engine.files.missing(engineID, a.taskID, files); lookErr != nil || len(missing) > 0 {
		return exec.MakeTemporary(errors.Wrapf(err, "the files in %s were removed meanwhile", folder))
	}
	return errors.Wrapf(err, "the engine does not see the files in %s; if this process has a container of its own, mount the host's %s there at the same path, or name a folder that both see with WithSecretsDir", folder, a.engine.files.dir)
}

// fileHost says where the tasks of an Engine have the files of their secrets and
// configs, or why they cannot have files.
type fileHost struct {
	engineID string // empty: no files of the engine's tasks can exist on this host
	note     string // goes into each folder of a task: which engine the task is on
	refusal  string // why tasks cannot have files; empty: they can

	until time.Time // then ask the engine again, and look for leftover files again; zero: never
}

// changingID is the engineID of an engine whose ID is another one in each answer. The note in
// a task's folder tells two such engines apart.
const changingID = "changing-id"

// fileHosts keeps the fileHost of an Engine. The engine is asked before the first task
// that has files.
type fileHosts struct {
	gate  chan struct{} // full while a call asks the engine
	known atomic.Pointer[fileHost]
}

func newFileHosts() fileHosts { return fileHosts{gate: make(chan struct{}, 1)} }

// current returns what is known, or nil if the engine must be asked.
func (h *fileHosts) current() *fileHost {
	known := h.known.Load()
	if known != nil && !known.until.IsZero() && time.Now().After(known.until) {
		return nil
	}
	return known
}

// fileHost returns what is known of the engine. If nothing is known, it first asks the
// engine and removes leftover files. The parameter by is the caller for whom it asks.
func (e *Engine) fileHost(ctx context.Context, by caller) (fileHost, error) {
	if known := e.hosts.current(); known != nil {
		return *known, nil
	}
	if err := passGate(ctx, e.hosts.gate, e.options.requestTimeout); err != nil {
		return fileHost{}, engineError(ctx, err, "secrets and configs: another task's look at the engine comes first")
	}
	defer leaveGate(e.hosts.gate)
	if known := e.hosts.current(); known != nil {
		return *known, nil
	}
	host, err := e.askFileHost(ctx, by)
	if old := e.hosts.known.Load(); old != nil && err != nil && ctx.Err() == nil && isForbidden(err) {
		e.optional.without(ctx, "GET /info", err, "files of secrets and configs are kept where they were")
		return *old, nil
	}
	if err == nil && host.engineID != "" {
		var young bool
		if young, err = e.sweepFiles(ctx, by, host, leftoverAge); young {
			host.until = time.Now().Add(leftoverAge)
		}
	}
	if err != nil {
		return fileHost{}, err
	}
	e.hosts.known.Store(&host)
	return host, nil
}

func (e *Engine) askFileHost(ctx context.Context, by caller) (fileHost, error) {
	address := e.client.DaemonHost()
	if refusal := noFilesFor(address); refusal != "" {
		return fileHost{refusal: refusal}, nil
	}
	info, err := request(ctx, by, 0, func(ctx context.Context) (system.Info, error) { return e.client.Info(ctx) })
	if err != nil {
		return fileHost{}, engineError(ctx, err, "secrets and configs: engine information (GET /info)")
	}
	// Podman makes up another ID for each answer. No Docker leaves out the address of its index.
	if info.IndexServerAddress == "" && !e.api.isFake && e.api.madeBy() != madeByDocker {
		again, err := request(ctx, by, 0, func(ctx context.Context) (system.Info, error) { return e.client.Info(ctx) })
		if err != nil {
			return fileHost{}, engineError(ctx, err, "secrets and configs: engine information (GET /info)")
		}
		if again.ID != info.ID {
			info.ID = changingID
		}
	}
	// The address alone does not tell engines apart: processes in containers of their own
	// may share the folder and have an engine each at the same address.
	host := fileHost{engineID: info.ID, note: cleanURL(address) + " " + info.Name}
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

// noFilesFor says why tasks on an engine at that address can have no files; empty: they
// can, as far as the address tells.
func noFilesFor(address string) string {
	switch {
	case runtime.GOOS != "linux":
		return "secrets and configs need an executor on Linux, on the engine's own host"
	case !onThisHost(address):
		return "the engine at " + cleanURL(address) + " is on another host, and an engine's API has no way to hand it a file that stays in memory; run the executor on the engine's host"
	}
	return ""
}

// onThisHost reports whether an engine's address is on this host. A loopback address
// counts, although it may be a tunnel to an engine elsewhere. The create finds that
// out, because that engine does not see the files.
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

// removeLeftFiles is sweepFiles for an executor's sweep. It asks the engine nothing if there
// is no folder of a task that this Engine does not know.
func (e *Engine) removeLeftFiles(ctx context.Context, age time.Duration) error {
	if engines, err := e.files.engines(); err != nil || len(engines) == 0 {
		return nil //nolint:nilerr // a task that has files reports the error
	}
	host, err := e.fileHost(ctx, e)
	if err == nil && host.engineID != "" {
		_, err = e.sweepFiles(ctx, e, host, age)
	}
	return err
}

// sweepFiles removes the folders of the engine's tasks that have no container and are not
// known to this Engine, if they are older than age. Such a folder is left over if a process
// ends after it removed the container and before it removed the files. young says that a
// folder was too new to be removed. If the engine does not list its containers, sweepFiles
// removes nothing.
func (e *Engine) sweepFiles(ctx context.Context, by caller, host fileHost, age time.Duration) (young bool, err error) {
	folders, err := e.taskFolders(host)
	if err != nil {
		log.G(ctx).WithError(err).Debug("files of ended tasks not looked for")
		return false, nil
	}
	folders = slices.DeleteFunc(folders, func(f taskFolder) bool { return e.tasks.knows(f.taskID) })
	if len(folders) == 0 {
		return false, nil
	}
	containers, err := request(ctx, by, 0, func(ctx context.Context) ([]container.Summary, error) {
		return e.client.ContainerList(ctx, container.ListOptions{All: true, Filters: filters.NewArgs(filters.Arg("label", labelTask))})
	})
	if refusal := err; ctx.Err() == nil && (isForbidden(refusal) || cerrdefs.IsNotFound(refusal)) {
		e.optional.without(ctx, "GET /containers/json", refusal, "files of ended tasks are not looked for")
		return false, nil
	}
	if err := engineError(ctx, err, "secrets and configs: list of containers"); unfinished(ctx, err) {
		return false, err
	} else if err != nil {
		log.G(ctx).WithError(err).Debug("files of ended tasks not removed")
		return false, nil
	}
	for _, c := range containers {
		folders = slices.DeleteFunc(folders, func(f taskFolder) bool { return f.taskID == c.Labels[LabelTaskID] })
	}
	for _, f := range folders {
		switch removed, err := e.files.removeLeftover(f.engineID, f.taskID, age); {
		case err != nil:
			log.G(ctx).WithError(err).Debug("files of an ended task not removed")
		case removed:
			log.G(ctx).WithField("task.id", f.taskID).Debug("files of a task without a container removed")
		default:
			young = true
		}
	}
	return young, nil
}

// taskFolder is the folder of a task's files.
type taskFolder struct{ engineID, taskID string }

// taskFolders lists the folders of the engine's tasks. The note in a folder says which
// engine the folder belongs to. The ID in the path does not: the engine may have had
// another ID when the folder was made, and two engines may have the same ID. A folder
// without a note was made by an older version of this package: only there the ID decides.
func (e *Engine) taskFolders(host fileHost) (folders []taskFolder, err error) {
	engines, err := e.files.engines()
	for _, id := range engines {
		tasks, err := e.files.tasks(id)
		if err != nil {
			return nil, err
		}
		for _, task := range tasks {
			note, err := e.files.readNote(id, task)
			if err == nil && note == host.note || errors.Is(err, fs.ErrNotExist) && id == host.engineID {
				folders = append(folders, taskFolder{id, task})
			}
		}
	}
	return folders, err
}
