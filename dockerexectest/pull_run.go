package dockerexectest

import (
	"encoding/json"
	"io"
	"time"
)

// pullTick is the time between two messages of a layer.
const pullTick = 100 * time.Millisecond

// run downloads and extracts, and reports the progress in the words of the dialect's image
// store. It ends when the client leaves.
func (p *pull) run(w io.Writer) error {
	e := p.engine
	p.out = json.NewEncoder(crlf{w})
	if err := p.say(p.begins()); err != nil {
		return err
	}
	e.mu.Lock()
	isThere := false
	for _, i := range e.images {
		isThere = isThere || i.content == p.content
	}
	e.mu.Unlock()
	if !isThere {
		if err := p.download(); err != nil {
			return err
		}
	}
	status := "Status: Image is up to date for "
	if p.settle() {
		status = "Status: Downloaded newer image for "
	}
	if err := p.say(pullMessage{Status: "Digest: " + p.from.digest}); err != nil {
		return err
	}
	return p.say(pullMessage{Status: status + p.familiar})
}

func (p *pull) say(m pullMessage) error { return p.out.Encode(m) }

// layerSays sends a layer's status without numbers.
func (p *pull) layerSays(l layer, status string) error {
	detail := &pullDetail{}
	if p.engine.dialect != DockerV20 && status != "Pulling fs layer" {
		detail.HideCounts = true
	}
	return p.say(pullMessage{Status: status, Detail: detail, ID: l.id})
}

// layerIsAt sends how far a layer has come.
func (p *pull) layerIsAt(l layer, status string, current int64) error {
	m := pullMessage{Status: status, Detail: &pullDetail{Current: current, Total: l.size}, ID: l.id}
	if p.engine.dialect == DockerV20 {
		m.Progress = bar(current, l.size)
	}
	return p.say(m)
}

func (p *pull) download() error {
	layers, spec := p.content.layers, p.from.spec
	var total int64
	for _, l := range layers {
		total += l.size
		if err := p.layerSays(l, "Pulling fs layer"); err != nil {
			return err
		}
	}
	ticks := max(int64(spec.pullTime/pullTick), 1)
	step := max((total+ticks-1)/ticks, 1) // bytes a tick
	var before int64                      // bytes of the layers that are done
	var slept time.Duration
	for _, l := range layers {
		for at := int64(0); at < l.size; {
			to := min(at+step, l.size)
			if spec.stallAfter >= 0 && before+to > spec.stallAfter {
				return p.stall(l, max(spec.stallAfter-before, at))
			}
			due := time.Duration(float64(spec.pullTime) * float64(before+to) / float64(total))
			if err := p.sleep(due - slept); err != nil {
				return err
			}
			at, slept = to, due
			if at < l.size || spec.pullTime > 0 {
				if err := p.layerIsAt(l, "Downloading", at); err != nil {
					return err
				}
			}
		}
		before += l.size
		if p.engine.dialect == DockerV20 {
			if err := p.layerSays(l, "Verifying Checksum"); err != nil {
				return err
			}
		}
		if err := p.layerSays(l, "Download complete"); err != nil {
			return err
		}
	}
	for _, l := range layers {
		if err := p.extract(l); err != nil {
			return err
		}
	}
	return nil
}

func (p *pull) extract(l layer) error {
	if p.engine.dialect == DockerV20 {
		if err := p.layerIsAt(l, "Extracting", min(l.size, 32<<10)); err != nil {
			return err
		}
		if err := p.layerIsAt(l, "Extracting", l.size); err != nil {
			return err
		}
	} else if err := p.say(pullMessage{Status: "Extracting", Detail: &pullDetail{Current: 1, Units: "s"}, ID: l.id}); err != nil {
		return err
	}
	return p.layerSays(l, "Pull complete")
}

// stall waits until the client leaves. Meanwhile the containerd store repeats its last
// message, and an engine with graph drivers sends nothing.
func (p *pull) stall(l layer, at int64) error {
	if at > 0 {
		if err := p.layerIsAt(l, "Downloading", at); err != nil {
			return err
		}
	}
	for {
		if err := p.sleep(pullTick); err != nil {
			return err
		}
		if at > 0 && p.engine.dialect == DockerV29 {
			if err := p.layerIsAt(l, "Downloading", at); err != nil {
				return err
			}
		}
	}
}

// sleep waits for d. It returns an error at once if the client leaves or the engine ends.
func (p *pull) sleep(d time.Duration) error {
	if d <= 0 {
		return nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-p.request.ctx.Done():
		return errLeft
	case <-p.request.life:
		return errLeft
	}
}
