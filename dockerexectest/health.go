package dockerexectest

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/events"
)

// The defaults of engines, and how much of the results they keep.
const (
	probeInterval      = 30 * time.Second
	probeTimeout       = 30 * time.Second
	probeStartInterval = 5 * time.Second
	probeRetries       = 3
	probesKept         = 5
	probeOutput        = 4096 // bytes
)

// health is what a container's health check has found. The engine's mu guards it.
type health struct {
	status   container.HealthStatus
	streak   int
	log      []*container.HealthcheckResult
	override container.HealthStatus // set by SetHealth; empty: the check decides
	quit     chan struct{}          // closed when the monitor must end; nil: none runs
	execID   string                 // of the check that runs; empty: no check runs
}

// report returns the health in the form of an inspect; nil without a check.
func (h *health) report() *container.Health {
	if h == nil {
		return nil
	}
	log := append([]*container.HealthcheckResult{}, h.log...) // engines send no null
	return &container.Health{Status: h.status, FailingStreak: h.streak, Log: log}
}

// probeArgs returns the command of the container's check; nil if none is run.
func (c *Container) probeArgs() []string {
	check := c.config.Healthcheck
	if check == nil || len(check.Test) < 2 || c.engine.dialect == PodmanV4 { // Podman runs no checks by itself
		return nil
	}
	switch check.Test[0] {
	case "CMD":
		return check.Test[1:]
	case "CMD-SHELL":
		return []string{"/bin/sh", "-c", check.Test[1]}
	}
	return nil
}

// startHealth begins the checks of a container that starts. The caller holds mu.
func (c *Container) startHealth() {
	if c.probeArgs() == nil {
		c.health = nil
		return
	}
	c.pauseHealth()
	if c.health == nil {
		c.health = &health{}
	}
	c.health.status, c.health.streak, c.health.override = container.Starting, 0, ""
	c.resumeHealth()
}

// pauseHealth ends the monitor. A container whose monitor was ended is unhealthy; no event
// tells of that. The caller holds mu.
func (c *Container) pauseHealth() {
	if h := c.health; h != nil && h.quit != nil {
		close(h.quit)
		h.quit = nil
		h.status = container.Unhealthy
		c.probeEnds(137)
	}
}

// stopHealth ends the checks of a container that has ended.
func (c *Container) stopHealth() { c.pauseHealth() }

// resumeHealth starts the monitor, if the container has a check and runs unpaused. The
// caller holds mu.
func (c *Container) resumeHealth() {
	h, args := c.health, c.probeArgs()
	if h == nil || h.quit != nil || args == nil || c.run == nil || c.paused {
		return
	}
	quit, r := make(chan struct{}), c.run
	h.quit = quit
	if !c.engine.work(func() { c.monitor(r, args, quit) }) {
		h.quit = nil
	}
}

func orElse(d, fallback time.Duration) time.Duration {
	if d == 0 {
		return fallback
	}
	return d
}

// monitor probes until quit is closed.
func (c *Container) monitor(r *run, args []string, quit <-chan struct{}) {
	e, check := c.engine, c.config.Healthcheck
	for {
		e.mu.Lock()
		wait := orElse(check.Interval, probeInterval)
		if check.StartPeriod > 0 && time.Since(r.started) < check.StartPeriod && c.health.status == container.Starting && e.dialect == DockerV29 {
			wait = orElse(check.StartInterval, probeStartInterval)
		}
		e.mu.Unlock()
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-quit:
			timer.Stop()
			return
		case <-e.closed:
			timer.Stop()
			return
		}
		result := c.probe(r, args, quit)
		e.mu.Lock()
		select {
		case <-quit:
			e.mu.Unlock()
			return
		default:
		}
		switch c.health.override {
		case container.Healthy:
			result.ExitCode = 0
		case container.Unhealthy:
			result.ExitCode = max(result.ExitCode, 1)
		}
		c.found(result, r)
		e.mu.Unlock()
	}
}

// probe runs the check once.
func (c *Container) probe(r *run, args []string, quit <-chan struct{}) *container.HealthcheckResult {
	e := c.engine
	killed, out := make(chan struct{}), &probeBuffer{}
	e.mu.Lock()
	p := c.process(r, args)
	p.Stdout, p.Stderr, p.Killed, p.Signals = out, out, killed, nil
	execID := e.newID("exec")
	c.health.execID = execID
	command := strings.Join(args, " ")
	c.emit(events.ActionExecCreate+events.Action(": "+command), map[string]string{"execID": execID})
	c.emit(events.ActionExecStart+events.Action(": "+command), map[string]string{"execID": execID})
	began := e.now()
	done := make(chan int, 1)
	isWorking := e.work(func() {
		code := 2
		defer func() { done <- code }()
		code = e.execute(c.image.probe, p)
	})
	e.mu.Unlock()
	if !isWorking {
		return &container.HealthcheckResult{Start: began, End: began, ExitCode: -1}
	}
	limit := orElse(c.config.Healthcheck.Timeout, probeTimeout)
	timer := time.NewTimer(limit)
	defer timer.Stop()
	result, exitCode := &container.HealthcheckResult{Start: began}, 137
	select {
	case exitCode = <-done:
		result.ExitCode, result.Output = exitCode, out.text()
	case <-timer.C:
		close(killed)
		<-done
		result.ExitCode, result.Output = -1, fmt.Sprintf("Health check exceeded timeout (%v)", limit)
		if text := out.text(); text != "" && e.dialect == DockerV29 {
			result.Output += ": " + text
		}
	case <-quit:
		close(killed)
		<-done
	case <-e.closed:
		close(killed)
		<-done
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	result.End = e.now()
	if c.health != nil && c.health.execID == execID {
		c.probeEnds(exitCode)
	}
	return result
}

// probeEnds emits the end of the check that runs, if a check runs.
func (c *Container) probeEnds(code int) {
	if c.health.execID != "" {
		c.emit(events.ActionExecDie, map[string]string{"execID": c.health.execID, "exitCode": strconv.Itoa(code)})
		c.health.execID = ""
	}
}

// found changes the health by a check's result. The caller holds mu.
func (c *Container) found(result *container.HealthcheckResult, r *run) {
	h, check := c.health, c.config.Healthcheck
	before := h.status
	h.note(result)
	switch {
	case result.ExitCode == 0:
		h.status, h.streak = container.Healthy, 0
	case h.status == container.Starting && result.Start.Sub(r.started) < check.StartPeriod:
		// Within the start period a failure does not count.
	default:
		if h.streak++; h.streak >= c.probeRetries() {
			h.status = container.Unhealthy
		}
	}
	c.tellHealth(before)
}

// note adds a result to the log.
func (h *health) note(result *container.HealthcheckResult) {
	h.log = append(h.log, result)
	if len(h.log) > probesKept {
		h.log = slices.Clone(h.log[len(h.log)-probesKept:])
	}
}

// probeRetries is how many checks must fail in a row.
func (c *Container) probeRetries() int {
	if check := c.config.Healthcheck; check != nil && check.Retries > 0 {
		return check.Retries
	}
	return probeRetries
}

// overrideHealth does the work of SetHealth: it leaves what such checks would leave. The
// caller holds mu. The container runs.
func (c *Container) overrideHealth(status container.HealthStatus) {
	if c.health == nil {
		c.health = &health{}
	}
	h, before := c.health, c.health.status
	h.status, h.override, h.streak = status, status, 0
	result := &container.HealthcheckResult{Start: c.engine.now(), End: c.engine.now()}
	if status == container.Unhealthy {
		h.streak, result.ExitCode = c.probeRetries(), 1
	}
	h.note(result)
	c.tellHealth(before)
}

func (c *Container) tellHealth(before container.HealthStatus) {
	if c.health.status != before {
		c.emit(events.ActionHealthStatus+events.Action(": "+c.health.status), nil)
		c.changed.raise()
	}
}

// probeBuffer keeps the beginning of a check's output. Its mu guards it, because a check
// may still write after its time-out.
type probeBuffer struct {
	mu    sync.Mutex
	kept  bytes.Buffer
	isCut bool // there was more
}

func (b *probeBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	kept, _ := b.kept.Write(p[:min(len(p), max(probeOutput-b.kept.Len(), 0))])
	b.isCut = b.isCut || kept < len(p)
	return len(p), nil
}

func (b *probeBuffer) text() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.isCut {
		return b.kept.String() + "..."
	}
	return b.kept.String()
}
