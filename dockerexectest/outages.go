package dockerexectest

import (
	"time"
)

// Down cuts all connections and refuses new ones, until [Engine.Up]. Containers run on.
// The engine goes on with its requests: a stop still ends in a kill, although its client
// is cut off. The engine still keeps events and logs.
func (e *Engine) Down() {
	e.mu.Lock()
	e.isDown = true
	for r := range e.inflight {
		r.cut()
	}
	e.mu.Unlock()
	e.listener.closeConns()
}

// Up ends the outage that [Engine.Down] began.
func (e *Engine) Up() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.isDown = false
}

// Hang makes the engine accept connections and requests but answer none, until
// [Engine.Resume]. Open streams stand still. Containers run on.
func (e *Engine) Hang() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.hung == nil && !e.isClosed {
		e.hung = make(chan struct{})
	}
}

// Resume ends what [Engine.Hang] began. The requests that came meanwhile are carried out,
// even if their clients have left. But Docker 29 gives up a create or a start whose client
// has left.
func (e *Engine) Resume() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.hung != nil {
		close(e.hung)
		e.hung = nil
	}
}

// RestartOptions say how an engine restarts. With the zero value the engine stops its
// containers, is back at once, and keeps its API versions.
type RestartOptions struct {
	// LiveRestore says that containers run on. Without it, each container gets its stop
	// signal, and is killed after its grace period.
	LiveRestore bool
	// Away is how long the engine is away after its containers have ended.
	Away time.Duration
	// APIVersion and MinAPIVersion are what the engine serves then. Empty: as before.
	APIVersion, MinAPIVersion string
}

// Restart ends the engine's process and starts it again. It returns when the engine is
// back. The engine cuts connections, forgets past events, and gives up its requests: a
// stop does not end in a kill any more. If a container ends while the engine is away, an
// inspect shows that, but no event does.
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
