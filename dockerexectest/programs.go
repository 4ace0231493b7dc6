package dockerexectest

import (
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/docker/docker/api/types/container"
)

// Program runs in a container, and returns the exit code. When Killed is closed, the
// container has ended: the program must return soon, and what it does then has no effect.
// A nil Program ends with 0 at once. If a Program panics, the test fails with the stack,
// and the container ends with 2.
type Program func(p *Process) int

// Process is a [Program] that runs: the process 1 of its container, or a health
// check.
type Process struct {
	Args   []string // entrypoint and command
	Env    []string // "KEY=value"
	Stdout io.Writer
	Stderr io.Writer
	// Signals receives the signals of the container, except SIGKILL. Up to 16 signals wait
	// to be read, and further ones are lost. A process that does not read its signals runs
	// on, like a process 1. For a health check Signals is nil.
	Signals <-chan syscall.Signal
	// Killed is closed when the container, or the time of a health check, has ended.
	Killed <-chan struct{}
	// Config and HostConfig are those of the container, with the image's defaults. They are
	// copies, but share their maps, slices and pointers with the container: do not change
	// those.
	Config     container.Config
	HostConfig container.HostConfig
	// Files are the files of the container. Its health checks, and all its starts, have the
	// same files.
	Files *Files
	// Container is the container that the process runs in.
	Container *Container

	run        *run
	stopSignal syscall.Signal
}

// OOM ends the container as the kernel does if a container takes too much memory: with the
// exit code 137 and, except on Podman, with OOMKilled. OOM does not return.
func (p *Process) OOM() {
	p.Container.endByOOM(p.run)
	runtime.Goexit()
}

// Sleep waits for d and returns true. If Killed is closed first, it returns false at once.
func (p *Process) Sleep(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-p.Killed:
		return false
	}
}

// Exit is a program that ends with a code at once.
func Exit(code int) Program { return func(*Process) int { return code } }

// ExitAfter is a program that ends with a code after d. Like a process 1 that handles no
// signals, it ignores all signals except SIGKILL.
func ExitAfter(d time.Duration, code int) Program {
	return func(p *Process) int {
		p.Sleep(d)
		return code
	}
}

// Print is a program that prints lines to stdout, each with a newline, and then runs p. If
// p is nil, it ends with 0.
func Print(p Program, lines ...string) Program {
	return func(process *Process) int {
		for _, line := range lines {
			fmt.Fprintln(process.Stdout, line)
		}
		if p == nil {
			return 0
		}
		return p(process)
	}
}

// UntilStopped is a program that runs until it gets its stop signal, SIGTERM or SIGINT.
// Then it waits for the time after, and ends with 0.
func UntilStopped(after time.Duration) Program {
	return func(p *Process) int {
		for {
			select {
			case s := <-p.Signals:
				if s == p.stopSignal || s == sigTERM || s == sigINT {
					p.Sleep(after)
					return 0
				}
			case <-p.Killed:
				return 137
			}
		}
	}
}

// IgnoreStop is a program that runs until it is killed.
func IgnoreStop() Program {
	return func(p *Process) int {
		<-p.Killed
		return 137
	}
}

// Files are the files of a container, by path. They are safe for concurrent use.
type Files struct {
	mu      sync.Mutex
	content map[string]string
}

// Write makes or replaces a file.
func (f *Files) Write(path, content string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.content == nil {
		f.content = map[string]string{}
	}
	f.content[path] = content
}

// Read returns a file's content, and whether it exists.
func (f *Files) Read(path string) (string, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	content, exists := f.content[path]
	return content, exists
}

// Remove removes a file, if it exists.
func (f *Files) Remove(path string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.content, path)
}

// run is one run of a container: from a start to its end. The engine's mu guards all
// fields that are not channels.
type run struct {
	signals  chan syscall.Signal
	killed   chan struct{} // for the program
	ended    chan struct{} // for all others
	isKilled bool
	hasEnded bool
	isOOM    bool // the kernel ended it
	stops    int  // stop requests that wait for the end
	started  time.Time
	writers  []*lineWriter
}

func newRun() *run {
	return &run{signals: make(chan syscall.Signal, 16), killed: make(chan struct{}), ended: make(chan struct{})}
}

// kill tells the program to end. The caller holds mu.
func (r *run) kill() {
	if !r.isKilled {
		r.isKilled = true
		close(r.killed)
	}
}

// process makes the process of a run. The caller holds mu.
func (c *Container) process(r *run, args []string) *Process {
	return &Process{
		Args: args, Env: c.config.Env, Signals: r.signals, Killed: r.killed, Config: c.config, HostConfig: c.hostConfig,
		Files: c.files, Container: c, run: r, stopSignal: stopSignalOf(c.config.StopSignal),
	}
}

// execute runs a program and returns its exit code. A panic fails the test and is code 2.
func (e *Engine) execute(program Program, p *Process) (code int) {
	if program == nil {
		return 0
	}
	returned := false
	defer func() {
		reason := recover()
		switch {
		case returned:
		case reason != nil:
			code = 2
			e.failf("dockerexectest: the program of container %s panicked: %v\n%s", p.Container.Name(), reason, debug.Stack())
		}
	}()
	code = program(p)
	returned = true
	return code
}

// runProgram is the goroutine of a run.
func (c *Container) runProgram(r *run, program Program, p *Process) {
	code := 2 // for a program that calls runtime.Goexit
	defer func() {
		e := c.engine
		e.mu.Lock()
		defer e.mu.Unlock()
		for c.paused && !r.isKilled { // a paused container cannot end
			unpaused := c.changed.wait()
			e.mu.Unlock()
			select {
			case <-unpaused:
			case <-r.killed:
			}
			e.mu.Lock()
		}
		if e.isClosed {
			c.run = nil
		}
		c.end(r, code)
	}()
	code = c.engine.execute(program, p)
}

// The signals have the numbers of Linux, on whatever system the test runs.
const (
	sigINT  = syscall.Signal(2)
	sigKILL = syscall.Signal(9)
	sigTERM = syscall.Signal(15)
)

var signalNames = strings.Fields("HUP INT QUIT ILL TRAP ABRT BUS FPE KILL USR1 SEGV USR2 PIPE ALRM TERM STKFLT CHLD CONT STOP TSTP TTIN TTOU URG XCPU XFSZ VTALRM PROF WINCH IO PWR SYS")

// parseSignal reads a signal's name, with or without SIG, or its number. It reports
// whether text is a signal.
func parseSignal(text string) (syscall.Signal, bool) {
	if n, err := strconv.Atoi(text); err == nil {
		return syscall.Signal(n), n > 0
	}
	name := strings.TrimPrefix(strings.ToUpper(text), "SIG")
	for i, known := range signalNames {
		if known == name {
			return syscall.Signal(i + 1), true
		}
	}
	return 0, false
}

// lastSignal is the greatest number of a signal.
const lastSignal = syscall.Signal(64)

// stopSignalOf returns the signal that text names. If it names none, it is SIGTERM.
func stopSignalOf(text string) syscall.Signal {
	if s, ok := parseSignal(text); ok {
		return s
	}
	return sigTERM
}
