package dockerexectest

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/events"
)

// restartContainer is POST /containers/{name}/restart.
func restartContainer(e *Engine, r *request) (answer, error) {
	if err := e.checkGrace(r); err != nil {
		if e.dialect == DockerV29 {
			err.status = http.StatusInternalServerError
		}
		return answer{}, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	c, err := e.find(r.name)
	if err != nil {
		return answer{}, err
	}
	s, grace, err := c.stopOptions(r)
	if err != nil {
		return answer{}, err
	}
	autoRemove := c.hostConfig.AutoRemove
	c.hostConfig.AutoRemove = false
	if c.running || c.restarting {
		c.stop(s, grace, r.life)
	}
	c.hostConfig.AutoRemove = autoRemove
	if c.isRemoved || c.run != nil {
		panic(http.ErrAbortHandler)
	}
	if err := c.startAnew(); err != nil {
		return answer{}, err
	}
	c.emit(events.ActionRestart, nil)
	return answer{}, nil
}

// pauseContainer is POST /containers/{name}/pause.
func pauseContainer(e *Engine, r *request) (answer, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	c, err := e.find(r.name)
	if err != nil {
		return answer{}, err
	}
	switch {
	case c.paused:
		text := "ontainer " + c.id + " is already paused"
		if e.dialect == DockerV20 {
			return answer{}, conflict("C%s", text)
		}
		return answer{}, conflict("c%s", text)
	case c.restarting:
		return answer{}, conflict("Container %s is restarting, wait until the container is running", c.id)
	case !c.running:
		return answer{}, e.dialect.notRunning(c)
	}
	c.setPaused(true)
	return answer{}, nil
}

// unpauseContainer is POST /containers/{name}/unpause.
func unpauseContainer(e *Engine, r *request) (answer, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	c, err := e.find(r.name)
	if err != nil {
		return answer{}, err
	}
	if !c.paused {
		return answer{}, internal("", "Container %s is not paused", c.id)
	}
	c.setPaused(false)
	return answer{}, nil
}

// setPaused stops or continues a running container. The caller holds mu.
func (c *Container) setPaused(paused bool) {
	c.paused = paused
	if paused {
		c.pauseHealth()
		c.emit(events.ActionPause, nil)
	} else {
		c.resumeHealth()
		c.emit(events.ActionUnPause, nil)
	}
	c.changed.raise()
}

// waitContainer is POST /containers/{name}/wait.
func waitContainer(e *Engine, r *request) (answer, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	c, err := e.find(r.name)
	if err != nil {
		if e.dialect == PodmanV4 {
			err = notFound("no such container")
		}
		return answer{}, err
	}
	condition := container.WaitCondition(r.query.Get("condition"))
	ends, runs := c.ends, c.running || c.restarting
	over := func() bool { return !runs || c.ends > ends }
	switch condition {
	case "", container.WaitConditionNotRunning:
	case container.WaitConditionNextExit:
		over = func() bool { return c.ends > ends }
	case container.WaitConditionRemoved:
		over = func() bool { return c.isRemoved }
	default:
		if e.dialect != DockerV20 { // Docker 20.10 takes any other condition as not-running
			return answer{}, badRequest("invalid condition: %q", condition)
		}
	}
	return answer{stream: e.waitStream(r, c, over)}, nil
}

// waitStream returns a function that answers a wait once over returns true.
func (e *Engine) waitStream(r *request, c *Container, over func() bool) func(io.Writer) error {
	return func(w io.Writer) error {
		for {
			e.mu.Lock()
			isOver, code, changed := over() || c.isRemoved, c.exitCode, c.changed.wait()
			if c.run != nil { // the container runs again
				code = c.endCode
			}
			e.mu.Unlock()
			if isOver {
				switch e.dialect {
				case DockerV29:
				case PodmanV4:
					_, err := fmt.Fprintf(w, "{\"StatusCode\":%d,\"Error\":null}\n", code)
					return err
				case DockerV20:
					_, err := fmt.Fprintf(w, "{\"Error\":null,\"StatusCode\":%d}\n", code)
					return err
				}
				return json.NewEncoder(w).Encode(container.WaitResponse{StatusCode: int64(code)})
			}
			select {
			case <-changed:
			case <-r.ctx.Done():
				return r.ctx.Err()
			}
		}
	}
}
