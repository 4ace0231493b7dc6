package dockerexectest_test

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/dockerexec/dockerexec/dockerexectest"
)

// testtask is the program of testdata/image, as far as the tests here need it.
// Its commands between "--" run one after the other.
func testtask(p *dockerexectest.Process) int {
	args := p.Args
	if len(args) > 0 && args[0] == "/testtask" {
		args = args[1:]
	}
	for {
		one, rest, more := args, []string(nil), false
		if i := slices.Index(args, "--"); i >= 0 {
			one, rest, more = args[:i], args[i+1:], true
		}
		if code := testtaskOne(p, one); code != 0 || !more {
			return code
		}
		args = rest
	}
}

func testtaskOne(p *dockerexectest.Process, args []string) int {
	arg := func(n int, fallback string) string {
		if n < len(args) {
			return args[n]
		}
		return fallback
	}
	number := func(n int) int {
		value, _ := strconv.Atoi(arg(n, "0"))
		return value
	}
	switch arg(0, "") {
	case "print":
		for i := range number(1) {
			fmt.Fprintf(p.Stdout, "%s %d\n", arg(2, "line"), i+1)
		}
		fmt.Fprintf(p.Stderr, "%s on stderr\n", arg(2, "line"))
	case "exit":
		return number(1)
	case "sleep":
		fmt.Fprintln(p.Stdout, "ready")
		d, _ := time.ParseDuration(arg(1, "0s"))
		timer := time.NewTimer(d)
		defer timer.Stop()
		for {
			select {
			case <-timer.C:
				return 0
			case s := <-p.Signals:
				if s == syscall.SIGTERM || s == syscall.SIGINT {
					fmt.Fprintln(p.Stdout, "terminated")
					return 0
				}
			case <-p.Killed:
				return 137
			}
		}
	case "linger":
		fmt.Fprintln(p.Stdout, "ready")
		d, _ := time.ParseDuration(arg(1, "0s"))
		var end <-chan time.Time
		for {
			select {
			case s := <-p.Signals:
				if s == syscall.SIGTERM {
					fmt.Fprintln(p.Stdout, "signal")
					if end == nil {
						end = time.After(d)
					}
				}
			case <-end:
				return 0
			case <-p.Killed:
				return 137
			}
		}
	case "ignore-term":
		fmt.Fprintln(p.Stdout, "ready")
		<-p.Killed
	case "env":
		for _, pair := range slices.Sorted(slices.Values(p.Env)) {
			fmt.Fprintln(p.Stdout, pair)
		}
	case "lines":
		for i := range number(1) {
			fmt.Fprintf(p.Stdout, "%010d%s\n", i+1, strings.Repeat(".", number(2)-11))
		}
	case "write":
		p.Files.Write(arg(1, ""), arg(2, "")+"\n")
	case "health":
		if _, exists := p.Files.Read(arg(1, "")); !exists {
			fmt.Fprintf(p.Stderr, "testtask: health: stat %s: no such file or directory\n", arg(1, ""))
			return 1
		}
		fmt.Fprintln(p.Stdout, "healthy")
	case "signal":
		fmt.Fprintln(p.Stdout, "ready")
		select {
		case s := <-p.Signals:
			fmt.Fprintln(p.Stdout, "signal:", s)
		case <-p.Killed:
		}
	case "oom":
		p.OOM()
	default:
		fmt.Fprintf(p.Stderr, "testtask: no command %q\n", arg(0, ""))
		return 64
	}
	return 0
}
