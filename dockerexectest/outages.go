package dockerexectest

import (
	"time"
)

// Down cuts every connection and refuses new ones, until [Engine.Up]. Containers
// run on, and so does what the engine has been asked for: the stop whose client
// is cut off still ends in a kill. The engine's events and logs go on.
func (e *Engine) Down() {
	e.mu.Lock()
	e.isDown = true
	for r := range e.inflight {
		r.cut()
	}
	e.mu.Unlock()
	e.listener.closeConns()
}

// Up ends what [Engine.Down] began.
func (e *Engine) Up() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.isDown = false
}

// Hang has the engine accept connections and requests and answer none, until
// [Engine.Resume]. Streams that are open stand still. Containers run on.
func (e *Engine) Hang() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.hung == nil && !e.isClosed {
		e.hung = make(chan struct{})
	}
}

// Resume ends what [Engine.Hang] began. What was asked meanwhile is carried out,
// also for clients that have left. Docker 29 gives up their creates and starts.
func (e *Engine) Resume() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.hung != nil {
		close(e.hung)
		e.hung = nil
	}
}

// RestartOptions say how an engine restarts. The zero value is an engine that is
// back at once, without its containers running, and the same otherwise.
type RestartOptions struct {
	// LiveRestore is whether containers run on. If not, each gets its stop signal
	// and its grace period, and is killed after it.
	LiveRestore bool
	// Away is how long the engine is away after its containers have ended.
	Away time.Duration
	// APIVersion and MinAPIVersion are served from then on. Empty: as before.
	APIVersion, MinAPIVersion string
}

// Restart ends the engine's process and starts it again. It returns when the
// engine is back. Connections are cut, requests that are carried out are given
// up (a stop does not end in a kill any more), and past events are forgotten.
// The end of a container while the engine is away is seen by an inspect, and
// told by no event.
func (e *Engine) Restart(o RestartOptions) {
	e.mu.Lock()
	if e.isClosed {
		e.mu.Unlock()
		return
	}
	e.working.Add(1)
	defer e.working.Done()
	e.isDown, e.isMute = true, true
	e.endLife()
	e.life = make(chan struct{})
	life := e.life
	e.events.ring = nil
	for _, c := range e.order {
		c.pauseHealth()
	}
	e.mu.Unlock()
	e.listener.closeConns()

	if !o.LiveRestore {
		e.stopAll(life)
	}
	if o.Away > 0 && !e.sleep(o.Away, life) {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.isClosed {
		return
	}
	e.isDown, e.isMute = false, false
	if o.APIVersion != "" {
		e.apiVersion = o.APIVersion
	}
	if o.MinAPIVersion != "" {
		e.minAPIVersion = o.MinAPIVersion
	}
	for _, c := range e.order {
		c.resumeAfterRestart()
	}
}
