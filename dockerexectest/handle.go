package dockerexectest

import (
	"fmt"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/events"
)

// AddContainer adds a container of somebody else. It is started, and runs until it is
// stopped. Its image is not on the engine. If the name is taken, the test fails, and the
// result is the container that has the name; nil while that one's create is [Slow].
func (e *Engine) AddContainer(name string, labels map[string]string) *Container {
	e.mu.Lock()
	holder := e.names[name]
	if e.holderOf(name) == "" {
		image := &localImage{content: &content{program: UntilStopped(0), config: container.Config{Cmd: []string{"/program"}}}}
		c := e.newContainer(name, image, container.Config{Image: "example/other:1", Labels: labels}, container.HostConfig{})
		_ = e.planNetworks(&request{version: e.apiVersion}, c, nil)
		e.register(c)
		_ = c.start()
		e.mu.Unlock()
		return c
	}
	e.mu.Unlock()
	e.helper()
	e.failf("dockerexectest: the container name %q is taken", name)
	return holder
}

// Name returns the container's name now.
func (c *Container) Name() string {
	c.engine.mu.Lock()
	defer c.engine.mu.Unlock()
	return c.name
}

// ID returns the container's ID.
func (c *Container) ID() string { return c.id }

// Exit ends the container with a code, as if its program had returned. It does nothing if
// the container does not run.
func (c *Container) Exit(code int) {
	c.engine.mu.Lock()
	defer c.engine.mu.Unlock()
	if c.run != nil {
		c.end(c.run, code)
	}
}

// OOM ends the container as the kernel does if a container takes too much memory. It does
// nothing if the container does not run.
func (c *Container) OOM() { c.endByOOM(nil) }

// Print writes a line, with a newline, to "stdout" or "stderr". The test fails if
// there is no such stream. It does nothing if the container does not run.
func (c *Container) Print(stream, line string) {
	c.engine.mu.Lock()
	r := c.run
	c.engine.mu.Unlock()
	source := stdout
	switch stream {
	case "stdout":
	case "stderr":
		source = stderr
	default:
		c.engine.helper()
		c.engine.failf("dockerexectest: no stream %q: stdout and stderr are", stream)
		return
	}
	if r == nil {
		return
	}
	c.engine.mu.Lock()
	w := c.writer(r, source)
	c.engine.mu.Unlock()
	fmt.Fprintln(w, line)
}

// SetHealth sets the container's health status to "healthy" or "unhealthy" at once, as a
// check would: the log has one more check, and the failing streak is 0, or as long as the
// check's retries. Until the next start, the results of the health check do not count.
// SetHealth also works for a container without a check. It does nothing if the container
// does not run.
func (c *Container) SetHealth(status string) {
	c.engine.mu.Lock()
	defer c.engine.mu.Unlock()
	if c.run != nil {
		c.overrideHealth(status)
	}
}

// Pause pauses the container, as if somebody did it by hand. It does nothing if the
// container does not run.
func (c *Container) Pause() {
	c.engine.mu.Lock()
	defer c.engine.mu.Unlock()
	if c.run != nil && !c.paused {
		c.setPaused(true)
	}
}

// Unpause lets a paused container go on.
func (c *Container) Unpause() {
	c.engine.mu.Lock()
	defer c.engine.mu.Unlock()
	if c.paused {
		c.setPaused(false)
	}
}

// Rename gives the container another name, as if somebody did it by hand. The test fails
// if the name is taken or not valid.
func (c *Container) Rename(name string) {
	c.engine.mu.Lock()
	err := c.rename(name)
	c.engine.mu.Unlock()
	if err != nil {
		c.engine.helper()
		c.engine.failf("dockerexectest: rename: %v", err)
	}
}

// RemoveByHand kills the container, if it runs, and removes it with its anonymous
// volumes.
func (c *Container) RemoveByHand() {
	c.engine.mu.Lock()
	defer c.engine.mu.Unlock()
	c.removing = true
	if c.running || c.restarting {
		c.killNow()
	}
	c.remove(true)
	c.removing = false
}

// SetDead gives the container the state dead, as after a removal that failed. If the
// container runs, SetDead kills it.
func (c *Container) SetDead() {
	c.engine.mu.Lock()
	defer c.engine.mu.Unlock()
	c.killNow()
	c.dead = true
	c.changed.raise()
}

// AlterInspect has the engine show the container differently: change gets each answer to
// an inspect before it is sent, and so each result of [Container.Inspect]. The answer is
// a copy. No event tells of it. A later call replaces change; nil ends it. change must
// not call the engine.
func (c *Container) AlterInspect(change func(*container.InspectResponse)) {
	c.engine.mu.Lock()
	defer c.engine.mu.Unlock()
	c.alter = change
}

// Emit tells of an event of the container that has not happened, such as "die".
func (c *Container) Emit(action events.Action) {
	c.engine.mu.Lock()
	defer c.engine.mu.Unlock()
	c.emit(action, nil)
}

// Starts returns how often the container was started.
func (c *Container) Starts() int {
	c.engine.mu.Lock()
	defer c.engine.mu.Unlock()
	return c.starts
}

// Inspect returns the answer to an inspect of the container, also after its removal.
func (c *Container) Inspect() container.InspectResponse {
	c.engine.mu.Lock()
	defer c.engine.mu.Unlock()
	return c.shown()
}

// Log returns what the container has printed to stdout and stderr, in the order of time.
func (c *Container) Log() string {
	c.engine.mu.Lock()
	defer c.engine.mu.Unlock()
	return c.log.text()
}

// stamp returns a time in the form of an inspect.
func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }
