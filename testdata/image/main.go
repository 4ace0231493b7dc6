// Command testtask is the one program of the test image. Its first argument
// names what it does; `testtask help` lists what there is. It uses the
// standard library alone and is built static, so that it runs from an image
// that holds nothing else.
package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unicode"
)

// command is one thing the program can do. Its run func returns the exit code.
type command struct {
	name  string
	args  string
	help  string
	least int // arguments it cannot do without
	run   func(args []string) (int, error)
}

// commands is filled by init: help reads it, and a variable must not refer to itself.
var commands []command

func init() {
	commands = []command{
		{"print", "N [TEXT]", "print N numbered lines to stdout, then one line to stderr", 1, printLines},
		{"exit", "CODE", "exit with CODE", 1, exit},
		{"sleep", "DURATION", "print \"ready\" and sleep; SIGTERM ends it with 0", 1, sleep},
		{"linger", "DURATION", "print \"ready\", and \"signal\" for each SIGTERM; end with 0 DURATION after the first", 1, linger},
		{"ignore-term", "", "print \"ready\" and sleep for ever, whatever SIGTERM or SIGINT arrives", 0, ignoreTerm},
		{"env", "", "print the environment, sorted", 0, printEnv},
		{"cat", "PATH...", "print the files", 1, cat},
		{"show", "PATH...", "print \"PATH = CONTENT\" of each, in one line, or why not", 1, show},
		{"link", "PATH...", "print \"PATH -> TARGET\" of each, or why not", 1, link},
		{"write", "PATH TEXT", "write TEXT and a newline to a file; missing folders are made", 2, write},
		{"append", "PATH TEXT", "add TEXT and a newline to a file, which is made if missing", 2, appendTo},
		{"stat", "PATH...", "print \"PATH MODE UID GID SIZE\" of each, the mode in octal", 1, stat},
		{"serve", "ADDR", "answer ok to any HTTP request; SIGTERM ends it with 0", 1, serve},
		{"health", "PATH", "exit with 0 if the file exists, else with 1", 1, health},
		{"job", "[FLAG...]", "a small job: environment, volume, port, log lines, exit code; job -h lists the flags", 0, job},
		{"lines", "N SIZE RATE", "log N numbered lines of SIZE bytes each, newline included, RATE a second (0: full speed)", 3, load},
		{"parts", "DURATION TEXT...", "print one line of the texts, DURATION apart", 2, parts},
		{"status", "", "print /proc/self/status", 0, printFile("/proc/self/status")},
		{"ulimit", "", "print /proc/self/limits", 0, printFile("/proc/self/limits")},
		{"mounts", "", "print /proc/self/mountinfo", 0, printFile("/proc/self/mountinfo")},
		{"ids", "", "print \"uid=N gid=N groups=N,N\"", 0, ids},
		{"interfaces", "", "print \"NAME mtu=N ADDRESS...\" of each network interface", 0, interfaces},
		{"resolve", "NAME", "print the addresses of a host name, sorted", 1, resolve},
		{"dial", "ADDR [TIME]", "connect to a TCP address within TIME (10s) and print \"connected\"", 1, dial},
		{"signal", "", "print \"ready\", wait for a signal that can be caught, print its name", 0, awaitSignal},
		{"try", "COMMAND [ARG...]", "run a command and print \"done: ...\" or \"failed: ...\" with the error", 1, try},
		{"oom", "MB", "take MB megabytes of memory and touch each page", 1, oom},
		{"help", "", "print this text", 0, help},
	}
}

func main() { os.Exit(run(os.Args[1:])) }

// run does the commands between "--" one after the other, up to the first that
// does not end with 0. So `write /tmp/ok 1 -- sleep 1h` needs no shell.
func run(args []string) int {
	for {
		one, rest, more := args, []string(nil), false
		if i := slices.Index(args, "--"); i >= 0 {
			one, rest, more = args[:i], args[i+1:], true
		}
		if code := runOne(one); code != 0 || !more {
			return code
		}
		args = rest
	}
}

func runOne(args []string) int {
	if len(args) == 0 {
		return usage("no command given")
	}
	i := slices.IndexFunc(commands, func(c command) bool { return c.name == args[0] })
	if i < 0 {
		return usage("no command " + strconv.Quote(args[0]))
	}
	if len(args)-1 < commands[i].least {
		return usage(args[0] + " needs " + commands[i].args)
	}
	code, err := commands[i].run(args[1:])
	if err != nil {
		fmt.Fprintf(os.Stderr, "testtask: %s: %v\n", args[0], err)
		if code == 0 {
			code = 1
		}
	}
	return code
}

func usage(problem string) int {
	fmt.Fprintf(os.Stderr, "testtask: %s\n", problem)
	printUsage(os.Stderr)
	return 64 // EX_USAGE of sysexits.h: no test asks for it by chance
}

func printUsage(w io.Writer) {
	fmt.Fprint(w, "usage: testtask COMMAND [ARG...] [-- COMMAND [ARG...]]...\n\n")
	for _, c := range commands {
		fmt.Fprintf(w, "  %-22s %s\n", c.name+" "+c.args, c.help)
	}
}

func help([]string) (int, error) {
	printUsage(os.Stdout)
	return 0, nil
}

func printLines(args []string) (int, error) {
	n, err := strconv.Atoi(args[0])
	if err != nil {
		return 0, err
	}
	text := "line"
	if len(args) > 1 {
		text = args[1]
	}
	for i := 1; i <= n; i++ {
		fmt.Printf("%s %d\n", text, i)
	}
	fmt.Fprintf(os.Stderr, "%s on stderr\n", text)
	return 0, nil
}

func exit(args []string) (int, error) {
	code, err := strconv.Atoi(args[0])
	if err != nil {
		return 64, err
	}
	return code, nil
}

// terminated returns a context that ends with SIGTERM or SIGINT. The first
// process of a container gets no signal that it has not asked for.
func terminated() (context.Context, context.CancelFunc) {
	return signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
}

func sleep(args []string) (int, error) {
	d, err := time.ParseDuration(args[0])
	if err != nil {
		return 0, err
	}
	ctx, cancel := terminated()
	defer cancel()
	fmt.Println("ready")
	select {
	case <-time.After(d):
	case <-ctx.Done():
		fmt.Println("terminated")
	}
	return 0, nil
}

func linger(args []string) (int, error) {
	d, err := time.ParseDuration(args[0])
	if err != nil {
		return 0, err
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM)
	fmt.Println("ready")
	var end <-chan time.Time
	for {
		select {
		case <-signals:
			fmt.Println("signal")
			if end == nil {
				end = time.After(d)
			}
		case <-end:
			return 0, nil
		}
	}
}

func ignoreTerm([]string) (int, error) {
	signal.Ignore(syscall.SIGTERM, syscall.SIGINT)
	fmt.Println("ready")
	for {
		time.Sleep(time.Hour)
	}
}

func printEnv([]string) (int, error) {
	env := os.Environ()
	slices.Sort(env)
	for _, e := range env {
		fmt.Println(e)
	}
	return 0, nil
}

func cat(args []string) (int, error) {
	for _, path := range args {
		f, err := os.Open(path)
		if err != nil {
			return 0, err
		}
		_, err = io.Copy(os.Stdout, f)
		f.Close()
		if err != nil {
			return 0, err
		}
	}
	return 0, nil
}

func show(args []string) (int, error) {
	for _, path := range args {
		content, err := os.ReadFile(path)
		if err != nil {
			fmt.Println(err)
			continue
		}
		fmt.Printf("%s = %s\n", path, strings.Join(strings.FieldsFunc(string(content), isSeparator), " "))
	}
	return 0, nil
}

func isSeparator(r rune) bool { return r == 0 || unicode.IsSpace(r) }

func link(args []string) (int, error) {
	for _, path := range args {
		target, err := os.Readlink(path)
		if err != nil {
			fmt.Println(err)
			continue
		}
		fmt.Printf("%s -> %s\n", path, target)
	}
	return 0, nil
}

func printFile(path string) func([]string) (int, error) {
	return func([]string) (int, error) { return cat([]string{path}) }
}

func write(args []string) (int, error) {
	if err := os.MkdirAll(filepath.Dir(args[0]), 0o755); err != nil {
		return 0, err
	}
	return 0, os.WriteFile(args[0], []byte(args[1]+"\n"), 0o644)
}

func appendTo(args []string) (int, error) {
	f, err := os.OpenFile(args[0], os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	_, err = f.WriteString(args[1] + "\n")
	return 0, err
}

func stat(args []string) (int, error) {
	for _, path := range args {
		var info syscall.Stat_t
		if err := syscall.Lstat(path, &info); err != nil {
			return 0, fmt.Errorf("%s: %w", path, err)
		}
		fmt.Printf("%s %04o %d %d %d\n", path, info.Mode&0o7777, info.Uid, info.Gid, info.Size)
	}
	return 0, nil
}

var answerOK = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "ok\n") })

func serve(args []string) (int, error) {
	l, err := net.Listen("tcp", args[0])
	if err != nil {
		return 0, err
	}
	ctx, cancel := terminated()
	defer cancel()
	server := &http.Server{Handler: answerOK}
	context.AfterFunc(ctx, func() { server.Close() })
	fmt.Println("serving on", l.Addr())
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return 0, err
	}
	return 0, nil
}

func health(args []string) (int, error) {
	if _, err := os.Stat(args[0]); err != nil {
		return 1, err
	}
	fmt.Println("healthy")
	return 0, nil
}

func job(args []string) (int, error) {
	flags := flag.NewFlagSet("job", flag.ContinueOnError)
	prefix := flags.String("env", "DEMO_", "print the variables whose names begin with this")
	volume := flags.String("volume", "", "folder to write the file done to")
	listen := flags.String("listen", "", "address to answer HTTP on while the job runs")
	ready := flags.String("ready", "/tmp/ready", "file to make once the job runs, for a health check")
	count := flags.Int("lines", 10, "log lines to print")
	every := flags.Duration("every", 400*time.Millisecond, "time between two log lines")
	code := flags.Int("code", 0, "exit code")
	if err := flags.Parse(args); err != nil {
		return 64, err
	}

	for _, e := range os.Environ() {
		if strings.HasPrefix(e, *prefix) {
			fmt.Println("env", e)
		}
	}
	if *listen != "" {
		l, err := net.Listen("tcp", *listen)
		if err != nil {
			return 0, err
		}
		defer l.Close()
		go http.Serve(l, answerOK)
		fmt.Println("serving on", l.Addr())
	}
	if err := os.WriteFile(*ready, nil, 0o644); err != nil {
		return 0, err
	}

	ctx, cancel := terminated()
	defer cancel()
	for i := 1; i <= *count; i++ {
		fmt.Printf("step %d of %d\n", i, *count)
		select {
		case <-time.After(*every):
		case <-ctx.Done():
			fmt.Println("terminated")
			return 143, nil // as a shell reports SIGTERM: the job is not done
		}
	}

	if *volume != "" {
		path := filepath.Join(*volume, "done")
		if err := os.WriteFile(path, []byte("done\n"), 0o644); err != nil {
			return 0, err
		}
		fmt.Println("wrote", path)
	}
	fmt.Fprintf(os.Stderr, "job ends with %d\n", *code)
	return *code, nil
}

func parts(args []string) (int, error) {
	apart, err := time.ParseDuration(args[0])
	if err != nil {
		return 64, err
	}
	for i, text := range args[1:] {
		if i > 0 {
			time.Sleep(apart)
		}
		fmt.Print(text)
	}
	fmt.Println()
	return 0, nil
}

func load(args []string) (int, error) {
	var numbers [3]int
	for i, arg := range args[:3] {
		n, err := strconv.Atoi(arg)
		if err != nil {
			return 0, err
		}
		numbers[i] = n
	}
	count, size, rate := numbers[0], numbers[1], numbers[2]
	const digits = 10
	if size < digits+1 {
		return 0, fmt.Errorf("SIZE is at least %d: a number and a newline", digits+1)
	}

	out := bufio.NewWriterSize(os.Stdout, 64<<10)
	defer out.Flush()
	tail := strings.Repeat(".", size-digits-1) + "\n"
	begin := time.Now()
	for i := 1; i <= count; i++ {
		fmt.Fprintf(out, "%0*d", digits, i)
		if _, err := out.WriteString(tail); err != nil {
			return 0, err
		}
		if rate > 0 {
			out.Flush()
			time.Sleep(time.Until(begin.Add(time.Duration(i) * time.Second / time.Duration(rate))))
		}
	}
	return 0, nil
}

func ids([]string) (int, error) {
	groups, err := os.Getgroups()
	if err != nil {
		return 0, err
	}
	slices.Sort(groups)
	var list []string
	for _, g := range groups {
		list = append(list, strconv.Itoa(g))
	}
	fmt.Printf("uid=%d gid=%d groups=%s\n", os.Getuid(), os.Getgid(), strings.Join(list, ","))
	return 0, nil
}

func resolve(args []string) (int, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	addrs, err := net.DefaultResolver.LookupHost(ctx, args[0])
	if err != nil {
		return 0, err
	}
	slices.Sort(addrs)
	for _, a := range addrs {
		fmt.Println(a)
	}
	return 0, nil
}

func dial(args []string) (int, error) {
	timeout := 10 * time.Second
	if len(args) > 1 {
		var err error
		if timeout, err = time.ParseDuration(args[1]); err != nil {
			return 0, err
		}
	}
	c, err := net.DialTimeout("tcp", args[0], timeout)
	if err != nil {
		return 0, err
	}
	fmt.Println("connected to", c.RemoteAddr())
	return 0, c.Close()
}

func interfaces([]string) (int, error) {
	all, err := net.Interfaces()
	if err != nil {
		return 0, err
	}
	for _, i := range all {
		addrs, err := i.Addrs()
		if err != nil {
			return 0, err
		}
		line := fmt.Sprintf("%s mtu=%d", i.Name, i.MTU)
		for _, a := range addrs {
			line += " " + a.String()
		}
		fmt.Println(line)
	}
	return 0, nil
}

func awaitSignal([]string) (int, error) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGUSR2)
	fmt.Println("ready")
	fmt.Println("signal:", <-signals)
	return 0, nil
}

func try(args []string) (int, error) {
	what := strings.Join(args, " ")
	i := slices.IndexFunc(commands, func(c command) bool { return c.name == args[0] })
	if i < 0 || len(args)-1 < commands[i].least {
		return usage("cannot try " + what), nil
	}
	if code, err := commands[i].run(args[1:]); err != nil || code != 0 {
		fmt.Printf("failed: %s: %d, %v\n", what, code, err)
	} else {
		fmt.Println("done:", what)
	}
	return 0, nil
}

func oom(args []string) (int, error) {
	mb, err := strconv.Atoi(args[0])
	if err != nil {
		return 0, err
	}
	var held [][]byte
	for range mb {
		block := make([]byte, 1<<20)
		for i := 0; i < len(block); i += 4096 {
			block[i] = 1
		}
		held = append(held, block)
	}
	fmt.Println("took", len(held), "MB")
	return 0, nil
}
