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

// parseSignal reads a signal's name, with or without SIG, or its number.
func parseSignal(text string) (syscall.Signal, *apiError) {
	if n, err := strconv.Atoi(text); err == nil {
		if n < 1 || n > 64 {
			return 0, badRequest("Invalid signal: %s", text)
		}
		return syscall.Signal(n), nil
	}
	name := strings.TrimPrefix(strings.ToUpper(text), "SIG")
	for i, known := range signalNames {
		if known == name {
			return syscall.Signal(i + 1), nil
		}
	}
	return 0, badRequest("Invalid signal: %s", text)
}
