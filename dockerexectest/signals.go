package dockerexectest

import (
	"strconv"
	"strings"
	"syscall"
)

// Signals by their numbers on Linux, wherever the test runs.
const (
	sigINT  = syscall.Signal(2)
	sigKILL = syscall.Signal(9)
	sigTERM = syscall.Signal(15)
)

var signalNames = strings.Fields("HUP INT QUIT ILL TRAP ABRT BUS FPE KILL USR1 SEGV USR2 PIPE ALRM TERM STKFLT CHLD CONT STOP TSTP TTIN TTOU URG XCPU XFSZ VTALRM PROF WINCH IO PWR SYS")

// parseSignal reads a signal's name, with or without SIG, or its number, and
// reports whether it is one.
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

// lastSignal is the greatest number of one.
const lastSignal = syscall.Signal(64)

// stopSignalOf is the signal of a container's configuration.
func stopSignalOf(text string) syscall.Signal {
	if s, ok := parseSignal(text); ok {
		return s
	}
	return sigTERM
}
