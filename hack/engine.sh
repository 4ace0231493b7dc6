#!/usr/bin/env bash
# Controls the private engine that with-engine.sh made: tests call it through
# DOCKEREXEC_TEST_ENGINE, which names its copy in the engine's folder.
#
#   engine start [FLAG...]   start it, with more flags if given; returns once its API answers
#   engine stop              SIGTERM; returns once it is gone (live-restore: containers go on)
#   engine kill              SIGKILL; returns once it is gone
#   engine restart [FLAG...] stop, start
#   engine use [FOLDER]      take dockerd and its helpers from there at the next start; from PATH if empty
#   engine pid               print its process id; fails if it does not run
#   engine log               print its log
#
# "It" is dockerd, or Podman's service if DOCKEREXEC_TEST_PODMAN is set. Flags go to dockerd, as do the
# words of DOCKEREXEC_TEST_DOCKERD_FLAGS; --no-live-restore stands for --live-restore=false. Podman takes none.
set -euo pipefail

dir=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
pidfile=$dir/docker.pid
log=$dir/engine.log
host=unix://$dir/docker.sock
[[ ! -e $dir/bin ]] || PATH=$dir/bin:$PATH
program=dockerd
[[ ! ${DOCKEREXEC_TEST_PODMAN:-} ]] || program=podman

die() {
	echo "engine: $*" >&2
	exit 1
}

# running: sets pid. A killed engine leaves its pidfile, so that alone says nothing.
running() {
	pid=$(cat "$pidfile" 2>/dev/null) && [[ $(cat "/proc/$pid/comm" 2>/dev/null) == "$program" ]] && kill -0 "$pid" 2>/dev/null
}

end() { # SIGNAL
	running || die "not running"
	kill -"$1" "$pid"
	local i
	for ((i = 0; i < 600; i++)); do
		kill -0 "$pid" 2>/dev/null || return 0
		sleep 0.1
	done
	die "$program (process $pid) does not end within a minute of SIG$1"
}

# podman_command: sets command.
podman_command() {
	(($# == 0)) || die "podman takes no flags: $*"
	rm -f "$dir/docker.sock" # of a killed one
	command=(podman --log-level warn system service --time=0 "$host")
}

# dockerd_command FLAG...: sets command.
dockerd_command() {
	local flags=(
		--host "$host"
		--config-file "$dir/daemon.json" # not the machine's own
		--data-root "$dir/data"
		--exec-root /run/docker # private: with-engine.sh mounts an empty /run
		--pidfile "$pidfile"
		--live-restore
		--cgroup-parent "/$DOCKEREXEC_TEST_GROUP"
		--exec-opt native.cgroupdriver=cgroupfs # systemd is outside and counts processes otherwise
	)
	# Up to 20.10 the default is negative, which needs a capability that root may lack.
	if dockerd --help 2>&1 | grep -q -e --oom-score-adjust; then flags+=(--oom-score-adjust 0); fi
	# dockerd from the Go tool chain comes without its proxy; iptables alone does the job.
	if [[ -e $dir/bin ]]; then flags+=(--userland-proxy=false); fi
	local extra flag
	read -ra extra <<<"${DOCKEREXEC_TEST_DOCKERD_FLAGS:-}"
	for flag in "${extra[@]}" "$@"; do
		[[ $flag != --no-live-restore ]] || flag=--live-restore=false
		flags+=("$flag")
	done

	command=(dockerd "${flags[@]}")
}

start() {
	! running || die "runs already, as process $pid"
	local command
	"${program}_command" "$@"
	cd "$dir" # Podman's conmon leaves a file named oom where the service was started
	# A session of its own: Ctrl-C is for the command under test.
	TMPDIR=$dir setsid "${command[@]}" </dev/null >>"$log" 2>&1 &
	pid=$!
	if [[ $program == podman ]]; then echo "$pid" >"$pidfile"; fi # dockerd writes its own
	local i
	for ((i = 0; i < 600; i++)); do
		kill -0 "$pid" 2>/dev/null || break
		if docker --host "$host" version >/dev/null 2>&1; then return 0; fi
		sleep 0.1
	done
	kill -KILL "$pid" 2>/dev/null || true
	tail -n 30 "$log" >&2
	die "$program does not come up"
}

case ${1-} in
start) start "${@:2}" ;;
stop) end TERM ;;
kill) end KILL ;;
restart)
	if [[ $program == podman ]]; then podman_command "${@:2}"; fi # before it is ended: flags are an error
	end TERM
	start "${@:2}"
	;;
use)
	rm -f "$dir/bin"
	[[ ! ${2-} ]] || ln -s "$2" "$dir/bin"
	;;
pid)
	running || die "not running"
	echo "$pid"
	;;
log) cat "$log" ;;
*) die "want start, stop, kill, restart, use, pid or log" ;;
esac
