#!/usr/bin/env bash
# Three hosts on one bridge, each with its own engine, registry and swarm node: examples/cluster
# drives them and checks what holds. Nothing is left behind.
#
#   hack/cluster.sh [GO-TEST-FLAG...]          ENGINES names the three engines: default, latest, podman
#   hack/cluster.sh --here [GO-TEST-FLAG...]   what with-engine.sh runs
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=hack/lib.sh
source "$root/hack/lib.sh"
if [[ ${1-} != --here ]]; then
	read -ra engines <<<"${ENGINES:-default default default}"
	((${#engines[@]} == 3)) || die "ENGINES names three engines: default, latest or podman"
	need_go
	need gcc nsenter
	need_files libc6-dev /usr/include/stdlib.h
	for engine in "${engines[@]}"; do
		[[ $engine == default || $engine == latest || $engine == podman ]] || die "ENGINES: there is no engine $engine"
		need_engine "$engine"
		if [[ $engine == latest ]]; then setpriv --pdeathsig TERM bash "$root/hack/latest-engine.sh" >/dev/null; fi
	done
	# Downloads and compiles all that is needed: where it runs there is no network.
	go -C "$root/examples" list -test -deps -export -race ./cluster ./swarmnode >/dev/null
	ENGINES=${engines[*]} exec "$root/hack/with-engine.sh" --engine none "$root/hack/cluster.sh" --here "$@"
fi

shift
ip link add swarm type bridge forward_delay 0 # else a cable that is plugged in works 15 s later
ip link set swarm up
export GOPROXY=off GOTOOLCHAIN=local DOCKEREXEC_TEST_REQUIRED=1 DOCKEREXEC_TEST_ENGINES=$ENGINES
go -C "$root/examples" build -race -buildvcs=false -o "$DOCKEREXEC_TEST_DIR/" ./swarmnode
# In the package's own folder: there go shows the story as it happens, and without -v too.
exec go -C "$root/examples/cluster" test -race -count=1 -timeout 0 "$@"
