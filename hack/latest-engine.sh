#!/usr/bin/env bash
# Prints the folder that holds the newest engine's programs, dockerd and runc.
# Builds them first, with the Go tool chain, if that folder is not there yet;
# it lies outside the tree and is named after the versions. With --if-built it prints
# nothing instead of building them.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=hack/lib.sh
source "$root/hack/lib.sh"

dockerd=v2.0.0-beta.24
runc=v1.5.2 # dockerd asks for 1.2 or later, Debian 12 has 1.1

cache=${XDG_CACHE_HOME:-$HOME/.cache}/dockerexec
bin=$cache/dockerd-$dockerd-runc-$runc
if [[ ${1-} == --if-built ]]; then
	[[ ! -x $bin/dockerd ]] || echo "$bin"
	exit
fi
if [[ ! -x $bin/dockerd ]]; then
	mkdir -p "$cache"
	exec 8>"$cache/lock" # a second run waits here, and then finds it built
	flock 8
fi
if [[ ! -x $bin/dockerd ]]; then
	need_go
	need gcc pkg-config
	need_files libseccomp-dev /usr/include/seccomp.h libc6-dev /usr/include/stdlib.h
	say "building the newest engine, dockerd $dockerd and runc $runc: takes some minutes, once"
	# Only a whole build gets the name that is looked for above.
	rm -rf "$bin.part"
	export GOBIN=$bin.part
	setpriv --pdeathsig INT go install "github.com/moby/moby/v2/cmd/dockerd@$dockerd" >&2
	setpriv --pdeathsig INT go install -tags seccomp "github.com/opencontainers/runc@$runc" >&2
	mv -T "$bin.part" "$bin"
fi
echo "$bin"
