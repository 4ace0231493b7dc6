package dockerexec

import (
	"context"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/docker/docker/api/types/image"
	"github.com/moby/swarmkit/v2/log"
)

// PullProgress says how far a pull has come. It sums what the engine reports for
// each layer.
type PullProgress struct {
	// Image is the image as the task names it.
	Image string
	// Status is what the engine said last, such as "Downloading" or "Status:
	// Image is up to date for …". It is empty until the engine has answered.
	Status string
	// Attempt counts the attempts of this pull, from 1. All that follows is
	// about this attempt.
	Attempt int

	// LayersDone is the number of layers that are on the engine, LayersActive of
	// those being downloaded or extracted, and LayersTotal of all that the engine
	// has named so far.
	LayersDone, LayersActive, LayersTotal int

	// BytesDone is what has been downloaded, and BytesTotal what there is to
	// download, both in compressed bytes, as the registry sends them. Layers that
	// were on the engine before count in neither. BytesTotal is 0 until the size of
	// every layer is known; for some layers the engine never says it.
	BytesDone, BytesTotal int64
	// BytesPerSecond is the rate of the download over the last ten seconds; 0 if
	// it is not known.
	BytesPerSecond int64
	// Remaining is how long the rest of the download takes at that rate, without
	// the extraction after it; 0 if it is not known.
	Remaining time.Duration
}

// PullImage has the engine pull the task's image, and returns when the pull has
// ended. A tag is pulled every time, because it may have moved; a digest only if the
// engine does not have it; an image ID never. An image that only this engine has,
// under a tag, cannot be pulled: name it by its ID.
//
// The credentials are those of the task's PullOptions.RegistryAuth, and no others:
// no configuration file and no credential helper is read.
//
// Adapters of one [Engine] that want the same image, for the same platform and with
// the same credentials, share one request. It goes on as long as one of them waits,
// and is cancelled when the last of them leaves. Its result is not remembered.
//
// When the registry, or the connection to it, has a fault that may pass, the pull is
// tried again with growing pauses, up to [WithPullAttempts] times in all; the engine
// itself tries each layer several times. A pull that makes no progress is cancelled
// and not tried again; see [WithPullStallTimeout]. Extractions, and layers that the
// engine has queued, may take an hour without progress.
//
// The error is the bare error of a context that ended; a temporary one (see
// [exec.IsTemporary]) if the last attempt failed for a fault of the engine itself
// or of the connection to it; any other is final. It names image, attempt and
// cause. It has the class of github.com/containerd/errdefs that the cause has, as far
// as its text tells, and holds neither credentials nor the user or query part of any
// URL. The error of a registry that refuses the credentials contains "denied".
//
// The observer of [WithPullObserver] is called from the engine's first message
// on, and once more with the last state when the pull has ended, for which
// PullImage may take a tenth of a second longer. A call that is running when the pull
// ends is waited for. When ctx ends, PullImage returns within a second, even if
// the observer, or the client, is still busy; the observer is not called again.
func (a *ContainerAdapter) PullImage(ctx context.Context) error {
	if imageID.MatchString(a.config.image()) {
		return nil
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if _, err := a.ready(ctx); err != nil {
		return err
	}
	ref, _ := reference.ParseNormalizedNamed(a.config.image()) // checked by newContainerConfig
	if present, err := a.digestPresent(ctx, ref); present || err != nil {
		return err
	}
	return a.engine.pulls.pull(ctx, a.logContext(ctx), a.engine, pullTarget{
		image:   a.config.image(),
		ref:     ref,
		options: a.config.pullOptions(),
	})
}

// digestPresent reports whether ref names a digest that is on the engine, for
// the task's platform.
func (a *ContainerAdapter) digestPresent(ctx context.Context, ref reference.Named) (bool, error) {
	if _, digested := ref.(reference.Canonical); !digested {
		return false, nil
	}
	present, err := a.imagePresent(ctx)
	if present {
		log.G(a.logContext(ctx)).WithField("image", a.config.image()).Debug("image digest is on the engine: not pulled")
	}
	return present, err
}

// imagePresent reports whether the task's image is on the engine, for the task's
// platform. Only that the engine is away is an error; whatever else it answers
// means that it has no such image.
func (a *ContainerAdapter) imagePresent(ctx context.Context) (bool, error) {
	name := a.config.image()
	answer, err := request(ctx, a.engine, 0, func(ctx context.Context) (image.InspectResponse, error) {
		return a.engine.client.ImageInspect(ctx, name)
	})
	switch {
	case err == nil:
		return runsOn(answer, a.config.platform()), nil
	case ctx.Err() != nil, isPassing(err) && !cerrdefs.IsNotFound(err):
		return false, engineError(ctx, err, "inspect image %s", name)
	default:
		return false, nil
	}
}
