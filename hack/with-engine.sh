#!/usr/bin/env bash
# Runs a command with a private Docker Engine and a private registry that asks
# for a password, and leaves nothing of them: not after a failure, not after
# Ctrl-C, not after SIGKILL.
#
#   hack/with-engine.sh [--engine default|latest|podman|none] COMMAND [ARG...]
#
# default: the dockerd on PATH, else Debian's docker.io, installed with apt.
# latest:  the newest engine, built with the Go tool chain, once.
# podman:  the podman on PATH, else Debian's, installed with apt.
# none:    namespaces, folder and test image alone: hack/cluster.sh makes hosts in there.
# DOCKEREXEC_TEST_HOST in the environment: that engine; it must be on this machine.
#
# The command finds in its environment:
#
#   DOCKEREXEC_TEST_HOST      the engine (DOCKER_HOST is the same)
#   DOCKEREXEC_TEST_ENGINE    a program that stops and starts it, see engine.sh; empty if the engine was given
#   DOCKEREXEC_TEST_PODMAN    yes if the engine is podman, else empty
#   DOCKEREXEC_TEST_LATEST    the folder of the newest engine's programs, to upgrade a default one to; empty if it is not built
#   DOCKEREXEC_TEST_REGISTRY  the registry, as HOST:PORT
#   DOCKEREXEC_TEST_USER, DOCKEREXEC_TEST_PASSWORD  what the registry asks for
#   DOCKEREXEC_TEST_IMAGE     an image there (made from testdata/image), which is not on the engine
#   DOCKEREXEC_TEST_DIR       a folder to write to, on the engine's machine; TMPDIR is in it
#
# Several can run at once, and beside the machine's own engine: network,
# mounts, processes and control groups are private.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=hack/lib.sh
source "$root/hack/lib.sh"

engine=default
while [[ ${1-} == -* ]]; do
	case $1 in
	--engine)
		engine=${2-}
		shift 2 || die "--engine needs a value"
		;;
	--) shift && break ;;
	*) die "no such option: $1" ;;
	esac
done
[[ $engine == default || $engine == latest || $engine == podman || $engine == none ]] || die "--engine is default, latest, podman or none"
(($# > 0)) || die "usage: with-engine.sh [--engine default|latest|podman|none] COMMAND [ARG...]"

dir='' janitor=''
# shellcheck disable=SC2317 # the trap calls it
finish() {
	local status=$?
	trap '' HUP INT TERM # it is all over, but for the janitor
	exec 9>&-
	[[ ! $running ]] || kill -KILL $! 2>/dev/null || true # run's helper, before it told its child
	if [[ $janitor ]]; then wait "$janitor" || true; elif [[ $dir ]]; then rmdir "$dir"; fi
	exit "${killed:-$status}"
}
trap finish EXIT

stop=TERM killed='' signalled=''
# on_signal NAME STATUS: hands a signal on; one more, later, ends everything at once.
# shellcheck disable=SC2317 # the traps call it
on_signal() {
	local pid
	if [[ ! $child ]]; then
		exit "$2"
	elif [[ $signalled ]] && ((SECONDS - signalled < 2)); then
		return # timeout, for one, sends to a process and then to its group
	elif [[ ! $signalled ]] && pid=$(cat "$dir/session.pid" 2>/dev/null); then
		kill -"$1" "$pid" 2>/dev/null || true
	else
		killed=$2
		kill -"$stop" "$child" 2>/dev/null || true
		stop=KILL
	fi
	signalled=$SECONDS
}
trap 'on_signal USR1 130' INT
trap 'on_signal USR2 143' TERM HUP

mode=private
if [[ $engine == none ]]; then mode=bare; elif [[ ${DOCKEREXEC_TEST_HOST:-} ]]; then mode=given; fi

# What lacks is found before anything is made.
if [[ $mode != given ]]; then
	need_go
	need unshare setpriv mount ip
	if [[ $mode == private ]]; then need_engine "$engine"; fi
	((EUID == 0)) || die "missing: root, for a private engine ('make test-unit' needs no engine)"
	unshare --net --mount --pid --fork true 2>/dev/null ||
		die "missing: the right to make namespaces, for a private engine ('make test-unit' needs no engine)"
	arch=
else
	need_go
	need setpriv docker docker-registry
	arch=$(docker --host "$DOCKEREXEC_TEST_HOST" version --format '{{.Server.Arch}}') ||
		die "no engine answers at DOCKEREXEC_TEST_HOST"
fi

# A socket's path has at most 107 bytes, and /run is another one inside.
base=$(realpath "${TMPDIR:-/tmp}")
if ((${#base} > 60)) || [[ $base == /run || $base == /run/* ]]; then base=/tmp; fi
dir=$(mktemp -d "$base/dockerexec.XXXXXX")

# The janitor waits for the last process that holds the write end of its pipe,
# descriptor 9, which the kernel closes however that process ends.
# shellcheck disable=SC2016 # $1 and $2 are the janitor's own
exec 9> >(exec setsid bash -c '
	trap "" HUP INT TERM
	source "$2/hack/lib.sh"
	cat >/dev/null
	name=${1##*/}
	for ((i = 0; i < 100; i++)); do # what SIGKILL ended may need a moment to be gone
		thaw /sys/fs/cgroup/freezer/"$name"*
		find /sys/fs/cgroup/"$name"* /sys/fs/cgroup/*/"$name"* -depth -type d -exec rmdir {} + 2>/dev/null
		rm -rf "$1" 2>/dev/null
		left=$(ls -d "$1" /sys/fs/cgroup/"$name"* /sys/fs/cgroup/*/"$name"* 2>/dev/null) || true
		[[ $left ]] || exit 0
		sleep 0.1
	done
	echo "hack: cannot remove" $left >&2' janitor "$dir" "$root")
janitor=$!

# The test image's root folder, as docker import takes it. Outside, because Go may have to download.
mkdir -p "$dir/rootfs/etc" "$dir/rootfs/tmp"
chmod 1777 "$dir/rootfs/tmp"
cat >"$dir/rootfs/etc/passwd" <<-'EOF'
	root:x:0:0:root:/:
	tester:x:1000:1000:tester:/tmp:
EOF
cat >"$dir/rootfs/etc/group" <<-'EOF'
	root:x:0:
	tester:x:1000:
	extra:x:2000:tester
EOF
export GOTMPDIR=$dir
# From outside the tree, so that it does not hang on the module's dependencies.
run env -C "$dir" CGO_ENABLED=0 GOOS=linux GOARCH="$arch" \
	go build -trimpath -buildvcs=false -ldflags='-s -w' -o rootfs/testtask "$root/testdata/image/main.go"
tar --create --file "$dir/image.tar" --directory "$dir/rootfs" --owner 0 --group 0 --numeric-owner .

if [[ $mode == private && $engine == latest ]]; then
	run setpriv --pdeathsig TERM bash "$root/hack/latest-engine.sh" >"$dir/latest"
	ln -s "$(cat "$dir/latest")" "$dir/bin"
fi
unset GOTMPDIR
DOCKEREXEC_TEST_LATEST='' DOCKEREXEC_TEST_PODMAN=''
if [[ $engine == default && $mode == private || $mode == bare ]]; then DOCKEREXEC_TEST_LATEST=$(bash "$root/hack/latest-engine.sh" --if-built); fi
if [[ $mode == private && $engine == podman ]]; then DOCKEREXEC_TEST_PODMAN=yes; fi
export DOCKEREXEC_TEST_LATEST DOCKEREXEC_TEST_PODMAN
export DOCKEREXEC_TEST_GROUP=${dir##*/} # the control group of the engine's containers; the janitor removes it

stop=KILL # all that unshare heeds
session=("$root/hack/session.sh" "$dir" "$mode")
if [[ $mode != given ]]; then
	namespaces=(unshare --net --mount --propagation private --pid --fork --kill-child)
	if [[ $engine == podman ]]; then namespaces=(bash "$root/hack/own-cgroup.sh" "$DOCKEREXEC_TEST_GROUP" "${namespaces[@]}"); fi
	run setpriv --pdeathsig KILL "${namespaces[@]}" bash "${session[@]}" "$@"
else
	run setpriv --pdeathsig KILL bash "${session[@]}" "$@"
fi
