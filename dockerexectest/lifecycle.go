package dockerexectest

import (
	"net/http"
	"slices"
	"strconv"
	"syscall"
	"time"

	"github.com/docker/docker/api/types/events"
)

// startContainer is POST /containers/{name}/start.
func startContainer(e *Engine, r *request) (answer, error) {
	givesUp := e.givesUp(r)
	e.mu.Lock()
	defer e.mu.Unlock()
	c, err := e.find(r.name)
	if err != nil {
		return answer{}, err
	}
	switch {
	case c.paused:
		return answer{}, conflict("cannot start a paused container, try unpause instead")
	case c.running || c.restarting:
		return answer{}, notModified
	}
	if givesUp {
		why := internal("", "Canceled: context canceled")
		c.errorText, c.exitCode = why.message, 128
		return answer{}, why
	}
	return answer{}, c.startAnew()
}

// givesUp reports whether the engine gives up a create or a start because the client has
// left. Only Docker 29 does so.
func (e *Engine) givesUp(r *request) bool {
	return e.dialect == DockerV29 && r.fault.kind != slow && r.fault.kind != call && r.ctx.Err() != nil
}

// startAnew starts the container and begins to count its restarts at 0. The caller holds
// mu.
func (c *Container) startAnew() error {
	c.restarts, c.backOff = 0, 0
	return c.start()
}

// start starts the container. The caller holds mu.
func (c *Container) start() error {
	e := c.engine
	if c.removing || c.dead || c.isRemoved {
		return conflict("container is marked for removal and cannot be started")
	}
	fail := func(code int, err *apiError) error {
		c.errorText = err.message
		if e.dialect != PodmanV4 {
			c.exitCode = code
		}
		return err
	}
	for _, m := range c.hostConfig.Mounts {
		if err := e.checkHostPath(m); err != nil {
			return fail(128, err)
		}
	}
	args := slices.Concat([]string(c.config.Entrypoint), []string(c.config.Cmd))
	mount := func() { e.emitMounts(c, events.ActionMount) }
	if e.dialect == DockerV29 {
		mount()
		if err := c.checkProgram(args); err != nil { // checked before the networks are joined
			for _, p := range c.endpoints {
				if n, _ := e.findNetwork(p.network); n != nil {
					e.emitNetwork(n, events.ActionDisconnect, c.id)
				}
			}
			e.emitMounts(c, events.ActionUnmount)
			return fail(127, err)
		}
	}
	if err := e.joinNetworks(c); err != nil {
		e.leaveNetworks(c)
		if e.dialect == DockerV29 {
			e.emitMounts(c, events.ActionUnmount)
		}
		return fail(128, err)
	}
	if e.dialect != DockerV29 {
		mount()
	}
	if err := c.checkProgram(args); err != nil {
		e.leaveNetworks(c)
		e.emitMounts(c, events.ActionUnmount)
		return fail(127, err)
	}
	r := newRun()
	p := c.process(r, args)
	p.Stdout, p.Stderr = c.writer(r, stdout), c.writer(r, stderr)
	if !e.work(func() { c.runProgram(r, c.program, p) }) {
		return fail(128, internal("", "the engine is closed"))
	}
	e.made++
	c.run, c.running, c.restarting, c.errorText, c.exitCode = r, true, false, "", 0
	c.oomKilled = c.oomKilled && e.dialect == DockerV20 // Docker 20.10 keeps it until this run ends
	c.byHand = false
	c.pid = 1000 + e.made
	c.starts++
	c.startedAt = e.now()
	r.started = c.startedAt
	c.startHealth()
	if e.dialect == PodmanV4 {
		c.emit("init", nil)
	}
	c.emit(events.ActionStart, nil)
	c.changed.raise()
	return nil
}

// checkProgram refuses a program that the image does not have.
func (c *Container) checkProgram(args []string) *apiError {
	if has := c.image.executables; len(has) > 0 && len(args) > 0 && !slices.Contains(has, args[0]) {
		return c.engine.dialect.noSuchProgram(args[0])
	}
	return nil
}

// end ends a run. A second call for the same run does nothing. The caller holds mu.
func (c *Container) end(r *run, code int) {
	if r.hasEnded {
		return
	}
	e := c.engine
	r.hasEnded = true
	for _, w := range r.writers {
		w.flush()
	}
	r.kill()
	if code < 0 || code > 255 {
		code &= 0xff // the kernel keeps 8 bits
	}
	c.run, c.running, c.paused, c.pid, c.exitCode, c.oomKilled = nil, false, false, 0, code, r.isOOM
	c.ends, c.endCode = c.ends+1, code
	c.finishedAt = e.now()
	c.stopHealth()
	cleanUp := func() {
		e.leaveNetworks(c)
		e.emitMounts(c, events.ActionUnmount)
	}
	if e.dialect == DockerV29 {
		cleanUp()
	}
	for _, action := range e.dialect.tellsEnd(r.stops > 0) {
		var attributes map[string]string
		if action == events.ActionDie {
			attributes = map[string]string{"exitCode": strconv.Itoa(code)}
			if e.dialect == DockerV29 {
				attributes["execDuration"] = strconv.Itoa(int(c.finishedAt.Sub(r.started).Seconds()))
			}
		}
		c.emit(action, attributes)
	}
	if e.dialect != DockerV29 {
		cleanUp()
	}
	close(r.ended)
	c.log.grown.raise()
	c.changed.raise()
	if !e.isClosed && !e.isMute {
		c.afterEnd(code, c.finishedAt.Sub(r.started))
	}
}

// afterEnd restarts or removes the container, if its configuration says so. The
// caller holds mu.
func (c *Container) afterEnd(code int, ran time.Duration) {
	e := c.engine
	policy := c.hostConfig.RestartPolicy
	restarts := !c.byHand && (policy.IsAlways() || policy.IsUnlessStopped() ||
		policy.IsOnFailure() && code != 0 && (policy.MaximumRetryCount == 0 || c.restarts < policy.MaximumRetryCount))
	switch {
	case restarts:
		c.restarting = true
		c.restarts++
		if ran >= 10*time.Second || c.backOff == 0 {
			c.backOff = 50 * time.Millisecond
		}
		c.backOff = min(2*c.backOff, time.Minute)
		wait, life := c.backOff, e.life
		e.work(func() {
			if !e.sleep(wait, life) {
				return
			}
			e.mu.Lock()
			defer e.mu.Unlock()
			if c.restarting && !c.isRemoved {
				c.restarting = false
				_ = c.start()
			}
		})
	case c.hostConfig.AutoRemove && !c.removing:
		c.remove(true)
	}
}

// endByOOM ends the run r as the kernel does if a container takes too much memory. nil is
// the current run.
func (c *Container) endByOOM(r *run) {
	e := c.engine
	e.mu.Lock()
	defer e.mu.Unlock()
	if r == nil {
		r = c.run
	}
	if r == nil || r.hasEnded {
		return
	}
	if e.dialect != PodmanV4 {
		r.isOOM = true
		c.emit(events.ActionOOM, nil)
	}
	c.end(r, 137)
}

// send sends a signal to the container's process. The container runs, or waits for its
// restart. The caller holds mu.
func (c *Container) send(s syscall.Signal) {
	isStop := c.config.StopSignal == "" || s == stopSignalOf(c.config.StopSignal) || s == sigKILL
	if isStop && !c.engine.isMute {
		c.byHand = true
	}
	if c.run == nil { // the container waits for its restart
		if isStop {
			c.giveUpRestart()
		}
		return
	}
	if c.engine.dialect != PodmanV4 { // Podman emits only the kills of kill requests
		c.emit(events.ActionKill, map[string]string{"signal": strconv.Itoa(int(s))})
	}
	if s == sigKILL {
		c.end(c.run, 137)
		return
	}
	if isStop && c.paused {
		c.setPaused(false)
	}
	select {
	case c.run.signals <- s:
	default: // the program does not read its signals: this one is lost
	}
}

// killNow kills the container, so that it is not restarted. The caller holds mu.
func (c *Container) killNow() {
	c.byHand = true
	if c.run != nil {
		c.send(sigKILL)
	}
	c.giveUpRestart()
}

// giveUpRestart cancels the restart that the container waits for, if it waits for one.
// The caller holds mu.
func (c *Container) giveUpRestart() {
	if c.restarting {
		c.restarting = false
		c.ends++
		c.changed.raise()
	}
}

// killContainer is POST /containers/{name}/kill.
func killContainer(e *Engine, r *request) (answer, error) {
	s := sigKILL
	if text := r.query.Get("signal"); text != "" {
		var ok bool
		s, ok = parseSignal(text)
		switch {
		case !ok && e.dialect == DockerV20:
			return answer{}, e.dialect.badSignal(text)
		case !ok:
			return answer{}, e.dialect.killFailed(r.name, e.dialect.badSignal(text))
		case s > lastSignal:
			return answer{}, e.dialect.killFailed(r.name, e.dialect.say(http.StatusInternalServerError,
				"The linux daemon does not support signal "+text, "the linux daemon does not support signal "+text))
		}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	c, err := e.find(r.name)
	if err != nil {
		return answer{}, e.dialect.killFailed(r.name, err.(*apiError)) //nolint:errorlint,forcetypeassert // find returns it bare
	}
	if c.run == nil && !c.restarting {
		return answer{}, e.dialect.killFailed(r.name, e.dialect.notRunning(c))
	}
	if e.dialect == PodmanV4 {
		c.emit(events.ActionKill, nil)
	}
	c.send(s)
	return answer{}, nil
}

// stopOptions returns the signal and the grace period (in seconds) of a stop or a restart.
func (c *Container) stopOptions(r *request) (s syscall.Signal, grace int, err error) {
	text := c.config.StopSignal
	if text == "" {
		text = "SIGTERM"
	}
	if asked := r.query.Get("signal"); asked != "" && r.atLeast("1.42") {
		text = asked
	}
	s, ok := parseSignal(text)
	if !ok {
		return 0, 0, internal("", "cannot stop container: %s: %s", r.name, c.engine.dialect.badSignal(text).message)
	}
	grace = c.grace()
	if asked := r.query.Get("t"); asked != "" {
		grace, _ = strconv.Atoi(asked) // checked by checkGrace
	}
	return s, grace, nil
}

// checkGrace refuses a grace period that is no number.
func (e *Engine) checkGrace(r *request) *apiError {
	if asked := r.query.Get("t"); asked != "" {
		if _, err := strconv.Atoi(asked); err != nil {
			return e.dialect.badNumber(err)
		}
	}
	return nil
}

// grace returns the container's own grace period in seconds.
func (c *Container) grace() int {
	if c.config.StopTimeout != nil {
		return *c.config.StopTimeout
	}
	return 10
}

// stopContainer is POST /containers/{name}/stop.
func stopContainer(e *Engine, r *request) (answer, error) {
	if err := e.checkGrace(r); err != nil {
		return answer{}, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	c, err := e.find(r.name)
	if err != nil {
		return answer{}, err
	}
	if !c.running && !c.restarting {
		if e.dialect == PodmanV4 && c.startedAt.IsZero() {
			return answer{}, nil
		}
		return answer{}, notModified
	}
	s, grace, err := c.stopOptions(r)
	if err != nil {
		return answer{}, err
	}
	c.stop(s, grace, r.life)
	return answer{}, nil
}

// stop sends a signal, waits for the grace period (negative: for ever), and then kills. It
// returns when the container or the engine's process has ended. The caller holds mu. stop
// unlocks mu while it waits.
func (c *Container) stop(s syscall.Signal, grace int, life <-chan struct{}) {
	e := c.engine
	if c.run == nil { // the container waits for its restart
		c.byHand = true
		c.giveUpRestart()
		c.emit(events.ActionStop, nil)
		return
	}
	r := c.run
	r.stops++
	if e.dialect == PodmanV4 && grace == 0 {
		s = sigKILL
	}
	c.send(s)
	if !r.hasEnded {
		wait := long
		if grace >= 0 {
			wait = time.Duration(grace) * time.Second
		}
		e.mu.Unlock()
		timer := time.NewTimer(wait)
		select {
		case <-r.ended:
		case <-timer.C:
		case <-life:
		}
		timer.Stop()
		e.mu.Lock()
		select {
		case <-life:
			r.stops--
			return
		default:
		}
	}
	if !r.hasEnded {
		c.send(sigKILL)
	}
	if e.dialect == DockerV20 {
		c.emit(events.ActionStop, nil)
	}
}

// stopAll stops all containers at the same time, as an engine does at its own end.
func (e *Engine) stopAll(life <-chan struct{}) {
	e.mu.Lock()
	var ended []<-chan struct{}
	for _, c := range e.order {
		c.giveUpRestart()
		if c.run == nil {
			continue
		}
		ended = append(ended, c.run.ended)
		s, grace := stopSignalOf(c.config.StopSignal), c.grace()
		e.work(func() {
			e.mu.Lock()
			defer e.mu.Unlock()
			if c.run != nil {
				c.stop(s, grace, life)
			}
		})
	}
	e.mu.Unlock()
	for _, done := range ended {
		select {
		case <-done:
		case <-life:
			return
		}
	}
}

// resumeAfterRestart does what an engine does with a container after its own restart. The
// caller holds mu.
func (c *Container) resumeAfterRestart() {
	policy := c.hostConfig.RestartPolicy
	switch {
	case c.run != nil:
		c.resumeHealth()
	case !c.startedAt.IsZero() && (policy.IsAlways() || policy.IsUnlessStopped() && !c.byHand):
		_ = c.startAnew()
	case c.hostConfig.AutoRemove && !c.startedAt.IsZero():
		c.remove(true)
	}
}
