package dockerexec

import (
	"context"
	stderrors "errors"
	"path/filepath"
	"strings"
	"unicode/utf8"

	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/pkg/errors"
)

// provide gets and writes what the task's references need, and returns the task
// as the container is created for it. created is to be called after the create;
// it removes what was made if that has failed.
func (a *ContainerAdapter) provide(ctx context.Context) (config *containerConfig, created func(failed bool), err error) {
	created = func(bool) {}
	whole, payloads, err := a.making()
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
		engineID, err := a.fileEngine(ctx)
		if err != nil {
			return nil, nil, err
		}
		folder = a.engine.files.folder(engineID, a.config.task.ID)
		ended := creating(folder)
		made, err := a.writeFiles(engineID, whole.files)
		if err != nil {
			ended()
			return nil, nil, err
		}
		created = func(failed bool) {
			ended()
			if failed && made {
				_ = a.engine.files.remove(engineID, a.config.task.ID) // the create's error counts
			}
		}
	}
	return whole.withDependencies(folder, credential), created, nil
}

// provideMissing writes those files of the task again that have gone, as all
// have after the host's restart: the container mounts them where they were.
func (a *ContainerAdapter) provideMissing(ctx context.Context) error {
	if len(a.config.files) == 0 {
		return nil
	}
	engineID, err := a.fileEngine(ctx)
	if err != nil {
		return err
	}
	missing, err := a.engine.files.missing(engineID, a.config.task.ID, a.config.files)
	if err != nil || len(missing) == 0 {
		return err
	}
	_, err = a.writeFiles(engineID, missing)
	return err
}

// checkFiles refuses a task whose files could not be made.
func (a *ContainerAdapter) checkFiles(ctx context.Context) error {
	if len(a.config.files) == 0 {
		return nil
	}
	if _, err := a.fileEngine(ctx); err != nil {
		return err
	}
	if err := a.engine.files.check(); exec.IsTemporary(err) { // too many open files, say
		return err
	} else if err != nil {
		return refuse(a.config.files[0].path, "%v", err)
	}
	return nil
}

// fileEngine returns the ID of the engine, or why the task cannot have files
// there.
func (a *ContainerAdapter) fileEngine(ctx context.Context) (string, error) {
	host, err := a.engine.fileHost(ctx)
	if err == nil && host.refusal != "" {
		err = refuse(a.config.files[0].path, "%s", host.refusal)
	}
	return host.engineID, err
}

// writeFiles writes nothing before it has all payloads.
func (a *ContainerAdapter) writeFiles(engineID string, files []taskFile) (made bool, err error) {
	_, payloads, err := a.making()
	if err != nil {
		return false, err
	}
	var complete []filePayload
	for _, f := range files {
		payload, err := payloads.get(f.dependency)
		if err != nil {
			return false, err
		}
		complete = append(complete, filePayload{f, payload})
	}
	return a.engine.files.write(engineID, a.config.task.ID, complete)
}

// removeFiles removes the task's files. The container is gone before.
func (a *ContainerAdapter) removeFiles(ctx context.Context) error {
	if len(a.config.files) == 0 && !a.config.maybeFiles || !namesFolder(a.config.task.ID) {
		return nil
	}
	host, err := a.engine.fileHost(ctx)
	if err != nil || host.engineID == "" { // there were none
		return err
	}
	return a.engine.files.remove(host.engineID, a.config.task.ID)
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
func (a *ContainerAdapter) explain(err error) error {
	if err == nil {
		return nil
	}
	// An engine quotes an option that it does not take.
	if before, _, quotes := strings.Cut(err.Error(), credentialOption+"raw://"); quotes {
		return hiddenError{before + credentialOption + "raw://(the payload is not shown)", err}
	}
	host := a.engine.hosts.known.Load()
	if host == nil || len(a.config.files) == 0 || !noSource.in(normalize(err.Error()), "") {
		return err
	}
	folder := a.engine.files.folder(host.engineID, a.config.task.ID)
	switch below := filepath.Join("/", host.engineID, a.config.task.ID) + "/"; {
	case strings.Contains(err.Error(), " "+folder+"/"):
	case strings.Contains(err.Error(), below):
		return errors.Wrapf(err, "the container was made with its files in another folder than %s, and they are gone there; name that folder with WithSecretsDir again, or have the task replaced", a.engine.files.dir)
	default: // a mount of the task's own
		return err
	}
	if missing, lookErr := a.engine.files.missing(host.engineID, a.config.task.ID, a.config.files); lookErr != nil || len(missing) > 0 {
		return exec.MakeTemporary(errors.Wrapf(err, "the files in %s were removed meanwhile", folder))
	}
	return errors.Wrapf(err, "the engine does not see the files in %s; if this process has a container of its own, mount the host's %s there at the same path, or name a folder that both see with WithSecretsDir", folder, a.engine.files.dir)
}
